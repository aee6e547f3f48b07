//! Tasks that wait for a slot's bell: one thread of this process sleeps on the bells for all of them,
//! and wakes a task when its bell has rung.
//!
//! Where the kernel has no `futex_waitv` (before Linux 5.16), or a sandbox forbids it, tasks look by
//! themselves. So do those beyond as many as one thread can sleep on: the wait of each has an end, at
//! which it looks at presences anyway.
//!
//! A waker is foreign code: it is cloned, called and dropped only while no lock of this file is held.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering::*},
    },
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use crate::{
    alarm::contain,
    fork::{Mutex, PerFork},
    process::sys::futex,
};

use super::{map::Cell, slot::MappedSlot};

/// How long the thread stays without bells.
const LINGER: Duration = Duration::from_secs(1);
/// No sleep exceeds this: an end that was missed is found then.
const LONGEST_NAP: Duration = Duration::from_secs(10);

/// Waits until the bell of a slot is another than it was.
pub(super) struct BellWait {
    slot: Cell<MappedSlot>,
    bell: u32,
    ticket: Option<u64>,
}

/// A task that waits for a bell.
struct BellWaiter {
    ticket: u64,
    slot: Cell<MappedSlot>,
    bell: u32,
    waker: Waker,
}

#[derive(Default)]
struct BellWaiters {
    waiters: Vec<BellWaiter>,
    next: u64,
    /// A thread sleeps for them.
    is_served: bool,
}

struct BellThread {
    waiters: Mutex<BellWaiters>,
    /// Raised when there is a new one. The thread sleeps on it, too.
    poked: AtomicU32,
}

static BELLS: PerFork<BellThread> = PerFork::unset();

/// Whether tasks are woken by bells. If not, they look by themselves.
pub(super) fn wake_tasks() -> bool {
    static CAN_SLEEP_ON_MANY: OnceLock<bool> = OnceLock::new();
    *CAN_SLEEP_ON_MANY.get_or_init(futex::can_sleep_on_many)
}

impl BellWait {
    pub(super) fn new(slot: &Cell<MappedSlot>, bell: u32) -> BellWait {
        BellWait { slot: slot.clone(), bell, ticket: None }
    }
}

impl Future for BellWait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        // Before the bell is looked at: one that rings afterwards is heard by the thread.
        let (ticket, old) = BellThread::here().ask(self.ticket, &self.slot, self.bell, waker);
        self.ticket = Some(ticket);
        drop(old);
        match self.slot.bell.load(SeqCst) == self.bell {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }
}

impl Drop for BellWait {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            drop(BellThread::here().forget(ticket));
        }
    }
}

impl BellThread {
    fn here() -> &'static BellThread {
        BELLS.here(|| BellThread { waiters: Mutex::default(), poked: AtomicU32::new(0) })
    }

    /// Has the task woken when the bell rings: its ticket, and a waker to be dropped. A ticket that is
    /// not known, of the process that this one was forked from, gets another.
    fn ask(
        &'static self,
        ticket: Option<u64>,
        slot: &Cell<MappedSlot>,
        bell: u32,
        waker: Waker,
    ) -> (u64, Option<Waker>) {
        let mut all = self.waiters.lock();
        let known = all.waiters.iter_mut().find(|waiter| Some(waiter.ticket) == ticket);
        if let Some(waiter) = known {
            return (waiter.ticket, Some(std::mem::replace(&mut waiter.waker, waker)));
        }
        let ticket = all.next;
        all.next += 1;
        all.waiters.push(BellWaiter { ticket, slot: slot.clone(), bell, waker });
        if !all.is_served {
            let serving = thread::Builder::new().name("tierlock-bells".into());
            // Without a thread each task looks by itself.
            all.is_served = serving.spawn(move || self.serve()).is_ok();
        }
        drop(all);
        self.poked.fetch_add(1, SeqCst);
        futex::poke(&self.poked);
        (ticket, None)
    }

    fn forget(&self, ticket: u64) -> Option<BellWaiter> {
        let mut all = self.waiters.lock();
        let at = all.waiters.iter().position(|waiter| waiter.ticket == ticket)?;
        Some(all.waiters.swap_remove(at))
    }

    fn serve(&self) {
        loop {
            // Before the waiters are looked at: what comes after that changes it.
            let poked = self.poked.load(SeqCst);
            let (rung, bells) = self.look();
            let has_rung = !rung.is_empty();
            for waiter in rung {
                contain(|| waiter.waker.wake());
            }
            if has_rung {
                continue;
            }
            if bells.is_empty() {
                futex::sleep_until_poked(&self.poked, poked, LINGER);
                let mut all = self.waiters.lock();
                if all.waiters.is_empty() && self.poked.load(SeqCst) == poked {
                    all.is_served = false;
                    return;
                }
                continue;
            }
            let words = bells.iter().map(|(slot, bell)| (&slot.bell, *bell));
            // However it ends, they are looked at.
            let _ = futex::sleep_on_any((&self.poked, poked), words, LONGEST_NAP);
        }
    }

    /// Those whose bells have rung, which wait no longer; and what to sleep on.
    fn look(&self) -> (Vec<BellWaiter>, Vec<(Cell<MappedSlot>, u32)>) {
        let mut all = self.waiters.lock();
        let has_rung = |waiter: &mut BellWaiter| waiter.slot.bell.load(SeqCst) != waiter.bell;
        let rung: Vec<_> = all.waiters.extract_if(.., has_rung).collect();
        let rest = all.waiters.iter().take(futex::MANY - 1);
        (rung, rest.map(|waiter| (waiter.slot.clone(), waiter.bell)).collect())
    }
}
