//! A link as what answers questions about other holders' locks.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::{Link, Questioning, holder_of};
use crate::{
    error::Result,
    host::questions::{
        AnswerInTime, LockQuestions, PendingAnswer, PendingList, PendingYes, ServedLock,
        ServedWaiter,
    },
    mode::WaiterMode,
    name::Name,
    proto::wire::{HolderInfo, LockInfo, Mode},
    time::Time,
    token::Token,
};

impl LockQuestions for Link {
    fn list(self: Arc<Self>, only: Option<&Name>, limit: Time) -> Box<dyn PendingList> {
        Box::new(PendingListing { link: self, only: only.cloned(), limit, polled: None })
    }

    fn is_good(self: Arc<Self>, name: &Name, token: Token, limit: Time) -> Box<dyn PendingYes> {
        Box::new(self.check(name, token, Some(limit)))
    }

    fn take_away(self: Arc<Self>, name: &Name, token: Token, limit: Time) -> Box<dyn PendingYes> {
        Box::new(self.break_lock(name, token, Some(limit)))
    }

    fn place(&self) -> Option<String> {
        Some(format!("{:?}", Link::cluster(self)?))
    }

    #[cfg(feature = "cli")]
    fn cluster(&self) -> Option<u128> {
        Some(Link::cluster(self)?.0)
    }

    #[cfg(feature = "cli")]
    fn is_used_by_one(&self, above: Vec<(u128, Name, Token, u32)>) {
        let held = above.into_iter().map(|(cluster, name, token, pid)| {
            let cluster = crate::proto::ClusterId(cluster);
            crate::proto::wire::HeldAbove { cluster, name, token, pid }
        });
        Link::is_used_by_one(self, held.collect());
    }
}

impl PendingAnswer<bool> for Questioning {
    fn wait(self: Box<Self>) -> Result<bool> {
        Questioning::wait(*self)
    }
}

/// A list under way: nothing is asked before it is waited for or polled.
struct PendingListing {
    link: Arc<Link>,
    only: Option<Name>,
    limit: Time,
    polled: Option<AnswerInTime<Vec<ServedLock>>>,
}

impl Future for PendingListing {
    type Output = Result<Vec<ServedLock>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let PendingListing { link, only, limit, polled } = self.get_mut();
        let listing = polled.get_or_insert_with(|| {
            let (link, only, limit) = (link.clone(), only.take(), *limit);
            AnswerInTime::new(async move {
                let locks = link.list_async(only.as_ref(), Some(limit)).await?;
                Ok(locks.into_iter().map(ServedLock::from).collect())
            })
        });
        Pin::new(listing).poll(cx)
    }
}

impl PendingAnswer<Vec<ServedLock>> for PendingListing {
    fn wait(self: Box<Self>) -> Result<Vec<ServedLock>> {
        let locks = Link::list(&self.link, self.only.as_ref(), Some(self.limit))?;
        Ok(locks.into_iter().map(ServedLock::from).collect())
    }
}

impl From<LockInfo> for ServedLock {
    fn from(lock: LockInfo) -> ServedLock {
        let mode = lock.holder.as_ref().map(|holder| holder.mode);
        let limit = match mode {
            Some(Mode::Permits { limit, .. }) => Some(limit),
            _ => None,
        };
        let is_alone = matches!(mode, Some(Mode::Exclusive | Mode::Upgradable));
        // How many readers a manager has among its threads the leader does not know.
        let sharer = |holder: HolderInfo| {
            let count = holder.mode.permits().max(1);
            (holder_of(holder), count)
        };
        let mut holders = lock.holder.into_iter().chain(lock.others).map(sharer);
        let holder = is_alone.then(|| holders.next()).flatten().map(|(holder, _)| holder);
        ServedLock {
            name: lock.name,
            token: lock.token,
            holder,
            sharers: holders.collect(),
            is_kept: lock.kept,
            is_reserved: lock.reserved,
            limit,
            permits_taken: lock.permits,
            remaining: lock.remaining,
            predecessor: lock.predecessor,
            waiters: lock.waiters.into_iter().map(waiter_of).collect(),
        }
    }
}

fn waiter_of(waiter: HolderInfo) -> ServedWaiter {
    let mode = match waiter.mode {
        Mode::Exclusive => WaiterMode::Exclusive,
        Mode::Shared => WaiterMode::Shared,
        Mode::Upgradable => WaiterMode::Upgradable,
        Mode::Permits { count, .. } => WaiterMode::Permits(count),
    };
    ServedWaiter { waiter: holder_of(waiter), mode: Some(mode) }
}
