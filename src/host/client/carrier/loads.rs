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
    alarm::contain,
    clock,
    error::LockError,
    host::{
        client::{
            link::Link,
            ports::{LinkKey, Ports},
            routes::Routes,
        },
        net::bell::LONGEST_SLEEP,
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
    /// Later ones have higher ones.
    key: LinkKey,
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

/// What came of a look at all links, but for what is to be told.
pub(super) struct LookedAtAll {
    pub(super) limit: Duration,
    pub(super) outstanding: usize,
    pub(super) has_ended: bool,
}

/// Links whose callers are to be told what came of it, once nothing is locked: links twice, perhaps.
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

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.others.is_empty() && self.failed.is_empty()
    }

    /// Tells what can be told without running foreign code; whether nothing is left.
    pub(super) fn tell_as_owner(&mut self) -> bool {
        let first = self.first.take_if(|link| link.follow_up_shortly());
        let others = self.others.extract_if(.., |link| link.follow_up_shortly());
        // Its manager may be gone, and a callback hangs on it.
        first.into_iter().chain(others).for_each(|link| contain(|| drop(link)));
        self.is_empty()
    }

    pub(super) fn append(&mut self, mut more: ToBeTold) {
        more.first.into_iter().chain(more.others).for_each(|link| self.add(link));
        self.failed.append(&mut more.failed);
    }

    /// Takes out what runs foreign code of other links than this one, those that have failed among it.
    pub(super) fn split_off_others(&mut self, own: &Weak<Link>) -> ToBeTold {
        let is_others = |link: &mut Arc<Link>| !is_it(link, own) && link.tells_foreign();
        let mut others = ToBeTold { failed: mem::take(&mut self.failed), ..ToBeTold::default() };
        self.first.take_if(is_others).into_iter().for_each(|link| others.add(link));
        self.others.extract_if(.., is_others).for_each(|link| others.add(link));
        others
    }

    /// Tells everything of this link, and of others what runs no foreign code. What does by now came of a
    /// later look, whose owner tells it.
    pub(super) fn tell_for(self, own: &Weak<Link>) {
        for link in self.first.into_iter().chain(self.others) {
            contain(move || match is_it(&link, own) {
                true => link.follow_up(),
                false => {
                    link.follow_up_shortly();
                }
            });
        }
        debug_assert!(self.failed.is_empty(), "they were left to the thread");
    }

    /// Tells everything. It may run foreign code, and does not panic.
    pub(super) fn tell(self) {
        for link in self.first.into_iter().chain(self.others) {
            contain(move || link.follow_up());
        }
        for link in self.failed {
            contain(move || link.abandon(failed));
        }
    }
}

fn is_it(link: &Arc<Link>, own: &Weak<Link>) -> bool {
    std::ptr::eq(Arc::as_ptr(link), own.as_ptr())
}

impl CarrierWire {
    /// Adds a link to those that are carried.
    pub(super) fn add(&mut self, carried: Arc<CarriedLink>, mut routes: Routes) {
        self.last_key += 1;
        let key = self.last_key;
        routes.are_of(key);
        self.loads.push(WireLoad {
            key,
            carried,
            routes,
            due: Time::ZERO,
            has_heard: false,
            is_broken: false,
            unanswered: 0,
            closed_at: None,
        });
    }

    /// Moves the frames of each link that has something to be looked at.
    pub(super) fn look(&mut self, reads: bool, told: &mut ToBeTold) -> LookedAtAll {
        let count = self.loads.len();
        if reads {
            self.hear();
        }
        loop {
            self.look_at_each(reads, told);
            let sent = catch_unwind(AssertUnwindSafe(|| self.ports.transmit()));
            // Sending may have brought something, and what one link met may be another's.
            let has_heard = match sent {
                Ok(()) => self.collect_or_break(),
                Err(_) => self.break_all(),
            };
            if !has_heard {
                break;
            }
        }
        let CarrierWire { loads, ports, .. } = self;
        let now = clock::now();
        let soonest = loads.iter().map(|load| load.due).min().unwrap_or(Time::NEVER);
        let timeout = ports.timeout().map(|at| at.saturating_duration_since(Instant::now()));
        let limit = soonest.since(now).min(timeout.unwrap_or(LONGEST_SLEEP)).min(LONGEST_SLEEP);
        let outstanding = loads.iter().map(WireLoad::outstanding).sum();
        LookedAtAll { limit, outstanding, has_ended: loads.len() < count }
    }

    fn look_at_each(&mut self, reads: bool, told: &mut ToBeTold) {
        let CarrierWire { loads, ports, activity, .. } = self;
        let mut now = clock::now();
        loads.retain_mut(|load| {
            let is_marked = load.carried.is_marked.swap(false, AcqRel);
            let has_heard = mem::take(&mut load.has_heard);
            // With one that has nothing to look at, a look at the clock costs as much.
            let is_due = load.due <= now || reads && load.closed_at.is_some();
            if !is_marked && !has_heard && !load.is_broken && !is_due {
                return true;
            }
            let Some(link) = load.carried.link.upgrade() else {
                load.end(ENDED, ports);
                return false;
            };
            let moved = (!load.is_broken)
                .then(|| catch_unwind(AssertUnwindSafe(|| load.move_frames(&link, ports))));
            match moved {
                Some(Ok(has_moved)) => {
                    *activity += u64::from(has_moved);
                    let ends = load.ends(&link);
                    if ends {
                        load.end(ENDED, ports);
                    }
                    told.add(link);
                    now = clock::now();
                    !ends
                }
                _ => {
                    load.end(FAILED, ports);
                    told.failed.push(link);
                    false
                }
            }
        });
    }

    /// Reads what the sockets have, for the next look; whether anything came.
    pub(super) fn hear(&mut self) -> bool {
        match catch_unwind(AssertUnwindSafe(|| self.ports.receive())) {
            Ok(false) => false,
            Ok(true) => {
                self.collect_or_break();
                true
            }
            Err(_) => self.break_all(),
        }
    }

    /// As [`collect`](CarrierWire::collect), whichever thread it panics on. That a thread panics says
    /// nothing by itself: locks are released while their callers unwind.
    fn collect_or_break(&mut self) -> bool {
        let collected = catch_unwind(AssertUnwindSafe(|| self.collect()));
        collected.unwrap_or_else(|_| self.break_all())
    }

    /// Hands what happened on connections to the links that they are of; whether anything did.
    fn collect(&mut self) -> bool {
        let CarrierWire { loads, ports, .. } = self;
        let mut has_heard = false;
        while let Some((link, id, event)) = ports.poll_event() {
            let Ok(index) = loads.binary_search_by_key(&link, |load| load.key) else { continue };
            let load = &mut loads[index];
            let heard = || load.routes.hear(id, event, ports);
            load.is_broken |= catch_unwind(AssertUnwindSafe(heard)).is_err();
            load.has_heard = true;
            has_heard = true;
        }
        has_heard
    }

    /// The owner has panicked, and no link is to be trusted any more. Whether there is one.
    pub(super) fn break_all(&mut self) -> bool {
        self.ports = Ports::default();
        self.loads.iter_mut().for_each(|load| load.is_broken = true);
        !self.loads.is_empty()
    }
}

impl WireLoad {
    /// What is waited for.
    fn outstanding(&self) -> usize {
        self.unanswered + usize::from(self.closed_at.is_some())
    }

    /// Moves everything that is ready; whether there was anything.
    fn move_frames(&mut self, link: &Link, ports: &mut Ports) -> bool {
        #[cfg(test)]
        assert!(!self.carried.is_to_fail.load(SeqCst), "a test wants it to fail");
        let routes = &mut self.routes;
        let mut has_moved = false;
        loop {
            routes.listen(ports);
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
            routes.obey(ports);
            has_moved |= routes.has_moved();
            if !routes.has_news() {
                self.due = now + routes.limit().min(next.unwrap_or(LONGEST_SLEEP));
                self.unanswered = link.unanswered();
                return has_moved;
            }
        }
    }

    /// Whether it was closed, and owes no peer a word.
    fn ends(&mut self, link: &Link) -> bool {
        if !link.is_closed() {
            return false;
        }
        let since = self.closed_at.get_or_insert_with(Instant::now);
        self.routes.is_empty() || since.elapsed() >= GOODBYE
    }

    fn end(&mut self, life: u8, ports: &mut Ports) {
        // Of one that has panicked nothing is sure.
        let _ = catch_unwind(AssertUnwindSafe(|| self.routes.close(ports)));
        self.carried.life.store(life, Release);
    }
}
