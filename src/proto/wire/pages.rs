//! Lists that may be longer than a frame, cut into messages that fit.

use std::mem::size_of;

use super::{ClientMessage, HeldLease, HolderInfo, LockInfo, Texts, WaitingRequest};

/// A report's leases in as few messages as frames allow; none for none.
pub fn held_messages(leases: Vec<HeldLease>) -> impl Iterator<Item = ClientMessage> {
    split(leases, |held| size_of::<HeldLease>() + held.name.len() + held.weight_of_value() + MARGIN)
        .map(|leases| ClientMessage::Held { leases })
}

/// A report's requests in as few messages as frames allow; none for none.
pub fn waiting_messages(requests: Vec<WaitingRequest>) -> impl Iterator<Item = ClientMessage> {
    split(requests, |WaitingRequest { acquire, .. }| {
        let extras = acquire.weight_of_extras();
        size_of::<WaitingRequest>() + acquire.name.len() + extras + 2 * MARGIN
    })
    .map(|requests| ClientMessage::Waiting { requests })
}

/// Collects the locks of one `Listed` until its frame is full.
#[derive(Debug, Default)]
pub struct Page {
    pub(super) locks: Vec<LockInfo>,
    weight: usize,
}

impl Page {
    /// Adds `lock`, or answers `false` if it does not fit any more.
    pub fn add(&mut self, mut lock: LockInfo) -> bool {
        lock.waiters.truncate(LISTED_WAITERS_MAX);
        lock.others.truncate(LISTED_HOLDERS_MAX - 1);
        let weight = size_of::<LockInfo>()
            + lock.name.len()
            + lock
                .holder
                .iter()
                .chain(&lock.others)
                .chain(&lock.waiters)
                .map(weight_of_holder)
                .sum::<usize>();
        if self.weight + weight > WEIGHT_MAX {
            return false;
        }
        self.weight += weight;
        self.locks.push(lock);
        true
    }

    /// What it collected.
    pub fn into_locks(self) -> Vec<LockInfo> {
        self.locks
    }
}

/// How many of a lock's waiters a `Listed` names.
pub const LISTED_WAITERS_MAX: usize = 16;

/// How many of its holders.
pub const LISTED_HOLDERS_MAX: usize = 16;

fn weight_of_holder(holder: &HolderInfo) -> usize {
    let Texts { label, host, command, .. } = &*holder.identity;
    size_of::<HolderInfo>() + size_of::<Texts>() + label.len() + host.len() + command.len() + MARGIN
}

/// Groups `items` so that no group weighs more than a frame carries.
fn split<T>(items: Vec<T>, weight: impl Fn(&T) -> usize) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut group = Vec::new();
        let mut total = 0;
        while let Some(item) =
            items.next_if(|item| group.is_empty() || total + weight(item) <= WEIGHT_MAX)
        {
            total += weight(&item);
            group.push(item);
        }
        (!group.is_empty()).then_some(group)
    })
}

/// What a list in a frame may weigh; the rest is for what stands beside it.
const WEIGHT_MAX: usize = 60_000;

/// What an entry's lengths and tags may add to its size in memory.
const MARGIN: usize = 16;
