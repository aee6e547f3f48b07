//! What is to be done once the link's lock is released: wakes, losses, callbacks.

use std::{sync::Arc, task::Waker, thread::Thread};

use super::{IdleLook, LOOK_EVERY, Link, settling::SettleJob};
use crate::{
    alarm::{self, contain},
    callbacks, clock,
    error::LostReason,
    host::{
        lease_word::{LeaseWord, Used, WordWaiter},
        service::CLAIM_LIMIT,
    },
    proto::{LeaseId, history},
    time::Time,
    watch::{Tell, Watch},
};

/// What is to be done once no lock is held: it wakes others, or runs foreign code.
#[derive(Default)]
pub(super) struct Aftermath {
    pub(super) answered: usize,
    /// Leases that may be kept, to be looked after.
    pub(super) opened: Vec<LeaseId>,
    /// Leases that go back if they are not claimed.
    pub(super) unclaimed: Vec<LeaseId>,
    /// Words that were closed while idle: the last of each may be dropped here.
    pub(super) gone: Vec<Arc<LeaseWord>>,
    pub(super) wakes: Vec<Wake>,
    /// Those that waited at words which were closed.
    pub(super) waiters: Vec<WordWaiter>,
    pub(super) losses: Vec<Loss>,
    pub(super) warnings: Vec<(Tell, String)>,
    pub(super) saw: Option<(Remember, history::Seen)>,
    pub(super) to_settle: Vec<SettleJob>,
}

/// What is called with what a leader has shown.
pub(crate) type Remember = Arc<dyn Fn(history::Seen) + Send + Sync>;

/// A loss to be told, whereupon the leader may hear that no guard believes in the lease.
pub(super) struct Loss {
    pub(super) lease: LeaseId,
    /// What to tell it by, but for what another thread has seen first; nothing if no guard asked to be
    /// told.
    tell: Vec<(Arc<Watch>, LostReason)>,
}

impl Aftermath {
    pub(super) fn is_empty(&self) -> bool {
        let Aftermath { opened, unclaimed, gone, wakes, waiters, losses, warnings, .. } = self;
        wakes.is_empty()
            && waiters.is_empty()
            && opened.is_empty()
            && unclaimed.is_empty()
            && gone.is_empty()
            && losses.is_empty()
            && warnings.is_empty()
            && self.saw.is_none()
            && self.to_settle.is_empty()
    }

    /// Whether it wakes a task, drops what may own a task's waker, writes a file or starts a thread: none
    /// of which this library bounds.
    #[cfg(feature = "host")]
    pub(super) fn is_foreign(&self) -> bool {
        // What is left out of this list sets alarms, and those unpark threads.
        let Aftermath { gone, wakes, waiters, losses, warnings, saw, .. } = self;
        let is_of_task = |wake: &Wake| matches!(wake, Wake::Task(_));
        wakes.iter().any(is_of_task)
            || !waiters.is_empty()
            || !gone.is_empty()
            || !losses.is_empty()
            || !warnings.is_empty()
            || saw.is_some()
            || !self.to_settle.is_empty()
    }

    /// Marks a lease as lost, to be told; whether this was the first to see it.
    pub(super) fn lose(&mut self, lease: LeaseId, watches: &[Arc<Watch>], why: LostReason) -> bool {
        let marked = watches.iter().filter(|watch| watch.mark(why));
        let tell: Vec<_> = marked.map(|watch| (watch.clone(), why)).collect();
        let is_first = !tell.is_empty();
        self.losses.push(Loss { lease, tell });
        is_first
    }

    /// The same of a lease with a guard that did not ask to be told.
    pub(super) fn lose_unwatched(&mut self, lease: LeaseId) {
        self.losses.push(Loss { lease, tell: Vec::new() });
    }

    /// An idle word was closed. A representative may have been about to wait there.
    pub(super) fn close(&mut self, word: Arc<LeaseWord>, used: &Used) {
        self.waiters.extend(word.take_waiter());
        word.gone(used);
        self.gone.push(word);
    }

    /// Remembers and wakes first; then tells the losses, on the alarm thread, each before the
    /// leader hears of it. Callbacks run on threads of their own and delay none of this.
    pub(super) fn run(self, link: &Link) {
        link.settler.settle(self.to_settle);
        let link = &link.me;
        if let Some((remember, seen)) = self.saw {
            contain(|| remember(seen));
        }
        for lease in self.opened {
            let link = link.clone();
            alarm::call_at(clock::now() + LOOK_EVERY, move || {
                if let Some(link) = link.upgrade() {
                    link.look_after(lease, IdleLook::default());
                }
            })
            .detach();
        }
        for lease in self.unclaimed {
            let link = link.clone();
            alarm::call_at(clock::now() + CLAIM_LIMIT, move || {
                if let Some(link) = link.upgrade() {
                    link.give_up_unclaimed(lease);
                }
            })
            .detach();
        }
        for wake in self.wakes {
            contain(|| wake.wake());
        }
        for waiter in self.waiters {
            contain(|| waiter.wake());
        }
        for (warn, text) in self.warnings {
            callbacks::run(move || warn(&text));
        }
        for Loss { lease, tell } in self.losses {
            let link = link.clone();
            let tell = move || {
                for (watch, why) in tell {
                    contain(|| watch.tell(why));
                }
                if let Some(link) = link.upgrade() {
                    link.loss_is_told(lease);
                }
            };
            alarm::call_at(Time::ZERO, tell).detach();
        }
    }
}

/// How a caller that waits is woken.
pub(super) enum Wake {
    Nothing,
    Thread(Thread),
    Task(Waker),
}

impl Wake {
    pub(super) fn wake(self) {
        match self {
            Wake::Nothing => {}
            Wake::Thread(thread) => thread.unpark(),
            Wake::Task(waker) => waker.wake(),
        }
    }
}
