//! The links that are carried, and one look at all of them.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU8, Ordering::*},
    },
    time::{Duration, Instant},
};

use super::{CarrierWire, failed};
use crate::{
    clock,
    error::LockError,
    host::{
        client::{link::Link, routes::Routes},
        net::bell::{LONGEST_SLEEP, Slept},
    },
    time::Time,
};

/// How long the goodbye may take to be answered before the link ends regardless.
const GOODBYE: Duration = Duration::from_secs(1);

/// What callers and owners share of a link that is carried.
pub(in super::super) struct CarriedLink {
    link: Weak<Link>,
    /// There is something of it to look at. Set before the word is marked, and cleared after that was
    /// taken out of the word.
    is_marked: AtomicBool,
    /// Only grows.
    life: AtomicU8,
    #[cfg(test)]
    is_to_fail: AtomicBool,
}

const NEW: u8 = 0;
const TAKEN_ON: u8 = 1;
/// It is carried no more, whatever the reason.
const ENDED: u8 = 2;
/// Its turn has panicked, and what that left is not to be trusted.
const FAILED: u8 = 3;

impl CarriedLink {
    pub(in super::super) fn new(link: Weak<Link>) -> Arc<CarriedLink> {
        Arc::new(CarriedLink {
            link,
            is_marked: AtomicBool::new(false),
            life: AtomicU8::new(NEW),
            #[cfg(test)]
            is_to_fail: AtomicBool::new(false),
        })
    }

    pub(in super::super) fn link(&self) -> &Weak<Link> {
        &self.link
    }

    pub(super) fn mark(&self) {
        self.is_marked.store(true, Release);
    }

    pub(super) fn is_now_taken_on(&self) {
        self.life.store(TAKEN_ON, Release);
    }

    pub(in super::super) fn is_taken_on(&self) -> bool {
        self.life.load(Acquire) != NEW
    }

    pub(super) fn has_ended(&self) -> bool {
        self.life.load(Acquire) >= ENDED
    }

    /// Why it is carried no more, if so; with `closed` also if it was closed.
    pub(in super::super) fn attend(&self, closed: bool) -> Result<(), LockError> {
        match self.life.load(Acquire) {
            FAILED => Err(failed()),
            ENDED if closed => Err(LockError::config("the manager was closed")),
            _ => Ok(()),
        }
    }

    #[cfg(test)]
    pub(in super::super) fn break_down(&self) {
        self.is_to_fail.store(true, SeqCst);
    }
}

/// A link that is carried, and its routes.
pub(super) struct WireLoad {
    carried: Arc<CarriedLink>,
    routes: Routes,
    /// When something is to be done next that nothing announces.
    due: Time,
    /// Something was read for it that it was not told.
    has_heard: bool,
    /// Its turn has panicked.
    is_broken: bool,
    /// Answers that its callers wait for.
    unanswered: usize,
    closed_at: Option<Instant>,
}

/// What came of a look at all links.
pub(super) struct LookedAtAll {
    pub(super) limit: Duration,
    pub(super) outstanding: usize,
    pub(super) has_ended: bool,
    pub(super) told: ToBeTold,
}

/// Links whose callers are to be told what came of it, once nothing is locked.
#[derive(Default)]
pub(super) struct ToBeTold {
    first: Option<Arc<Link>>,
    others: Vec<Arc<Link>>,
    failed: Vec<Arc<Link>>,
}

impl ToBeTold {
    fn add(&mut self, link: Arc<Link>) {
        match &self.first {
            None => self.first = Some(link),
            Some(_) => self.others.push(link),
        }
    }

    pub(super) fn tell(self) {
        for link in self.first.into_iter().chain(self.others) {
            link.follow_up();
        }
        for link in self.failed {
            link.abandon(failed);
        }
    }
}

impl CarrierWire {
    /// Moves the frames of each link that has something to be looked at.
    pub(super) fn look(&mut self, reads: bool) -> LookedAtAll {
        let CarrierWire { loads, activity, .. } = self;
        let mut told = ToBeTold::default();
        let (mut soonest, mut outstanding) = (Time::NEVER, 0);
        let count = loads.len();
        loads.retain_mut(|load| {
            let is_marked = load.carried.is_marked.swap(false, AcqRel);
            let has_heard = mem::take(&mut load.has_heard);
            let is_broken = load.is_broken;
            if is_marked || has_heard || reads || is_broken || load.due <= clock::now() {
                let link = load.carried.link.upgrade();
                let end = match &link {
                    None => Some(ENDED),
                    Some(_) if is_broken => Some(FAILED),
                    Some(link) => {
                        let moved =
                            catch_unwind(AssertUnwindSafe(|| load.move_frames(link, reads)));
                        moved.map_or(Some(FAILED), |has_moved| {
                            *activity += u64::from(has_moved);
                            load.has_ended(link).then_some(ENDED)
                        })
                    }
                };
                match (end, link) {
                    (Some(FAILED), Some(link)) => told.failed.push(link),
                    (_, Some(link)) => told.add(link),
                    (_, None) => {}
                }
                if let Some(end) = end {
                    let _ = catch_unwind(AssertUnwindSafe(|| load.routes.close()));
                    load.carried.life.store(end, Release);
                    return false;
                }
            }
            soonest = soonest.min(load.due);
            outstanding += load.unanswered + usize::from(load.closed_at.is_some());
            true
        });
        let limit = soonest.since(clock::now()).min(LONGEST_SLEEP);
        LookedAtAll { limit, outstanding, has_ended: loads.len() < count, told }
    }

    /// Reads what the sockets have, for the next look; whether anything came.
    pub(super) fn hear(&mut self) -> bool {
        let mut has_heard = false;
        for load in &mut self.loads {
            let heard = catch_unwind(AssertUnwindSafe(|| load.routes.hear()));
            load.is_broken |= heard.is_err();
            load.has_heard |= heard.unwrap_or(true);
            has_heard |= load.has_heard;
        }
        has_heard
    }

    /// The owner has panicked, and no link is to be trusted any more.
    pub(super) fn break_all(&mut self) {
        self.loads.iter_mut().for_each(|load| load.is_broken = true);
    }

    /// Whether a socket may have had more than was read at the last time.
    pub(super) fn has_unread(&self) -> bool {
        self.loads.iter().any(|load| load.routes.has_unread())
    }

    /// Adds what to sleep on.
    pub(super) fn sockets(&self, sockets: &mut Vec<Slept>) {
        self.loads.iter().for_each(|load| load.routes.sockets(sockets));
    }
}

impl WireLoad {
    pub(super) fn new(carried: Arc<CarriedLink>, routes: Routes) -> WireLoad {
        let due = Time::ZERO;
        WireLoad {
            carried,
            routes,
            due,
            is_broken: false,
            has_heard: false,
            unanswered: 0,
            closed_at: None,
        }
    }

    /// Moves everything that is ready; whether there was anything.
    fn move_frames(&mut self, link: &Link, mut reads: bool) -> bool {
        #[cfg(test)]
        assert!(!self.carried.is_to_fail.load(SeqCst), "a test wants it to fail");
        let routes = &mut self.routes;
        let mut has_moved = false;
        loop {
            routes.listen(reads);
            reads = false;
            let (now, next) = link.drive(
                routes,
                |routes, client| {
                    // The clock is read after what it dates.
                    let now = clock::now();
                    routes.tell(client, now);
                    if client.poll_timeout().is_some_and(|at| at <= now) {
                        client.handle_timeout(now);
                    }
                    now
                },
                |routes, client, now| {
                    // Dated a moment early, what is sent promises a moment less.
                    routes.take_orders(client, now);
                    (now, client.poll_timeout().map(|at| at.since(now)))
                },
            );
            routes.obey();
            has_moved |= routes.has_moved();
            if !routes.has_news() {
                self.due = now + routes.limit().min(next.unwrap_or(LONGEST_SLEEP));
                self.unanswered = link.unanswered();
                return has_moved;
            }
        }
    }

    /// Whether it was closed, and owes no peer a word.
    fn has_ended(&mut self, link: &Link) -> bool {
        if !link.is_closed() {
            return false;
        }
        let since = self.closed_at.get_or_insert_with(Instant::now);
        self.routes.is_empty() || since.elapsed() >= GOODBYE
    }
}
