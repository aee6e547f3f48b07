//! The owner of a connection: one word, in which both sides decide by exchanges.
//!
//! **One owner at a time sends, receives and sleeps on the sockets.** A thread that has put something to
//! a protocol client [comes](WireWord::come): it finds the connection free and owns it, or marks the
//! word, and then the owner looks again before it sleeps or leaves.
//!
//! | word | a comer | the owner |
//! |---|---|---|
//! | free | → owned, by it | |
//! | owned | → rung | → free, or asleep |
//! | owned, rung | | → owned, and looks: it neither sleeps nor leaves before |
//! | owned, asleep | → rung, and wakes the owner | once awake → owned |
//!
//! Invariants, played in `model.rs` with the mistakes that break each:
//!
//! - *Nothing is left behind.* What was put before a `come` is seen by the look after the next
//!   [`begin`](WireWord::begin), since the mark is made by an exchange of the word that the owner has to
//!   exchange to sleep or to leave. A flag beside the word needs a fence on both sides, and a look
//!   that begins before the mark is taken out of the word, not after, overlooks what comes during it.
//! - *Every caller that waits is watched over.* An owner that leaves while answers are outstanding calls
//!   the thread, after its exchange: earlier, the thread finds the connection owned and rests again.
//! - *An owner sleeps only while nothing is marked*, and the comer that marks a sleeping one is told so.
//! - *An owner that was out looks again.* It [steps out](WireWord::step_out) to run foreign code; another
//!   may own the connection meanwhile, and read the answer that this one waits for.
//!
//! What is [put off](WireWord::put_off) alone may wait: it wakes no owner that sleeps no longer than a
//! tick, and the thread looks at a free connection each tick, but for the first one after a caller or a
//! task has left it with nothing to be waited for. Such an owner has looked at everything just now, and
//! comes again in a moment more often than not: where it finds the thread it has to sleep until that wakes
//! it, which takes several times as long as its answer. A connection may be [left to a
//! reader](WireWord::leave_to_reader), a runtime's task that sleeps on its sockets while it is free.

use self::these::{
    AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed, SeqCst},
    flawed,
};

#[cfg(all(test, tierlock_loom))]
mod model;
#[cfg(all(test, not(tierlock_loom)))]
mod tests;

/// A mistake that the model plants, to see that it finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(tierlock_loom),
    expect(dead_code, reason = "most are planted in the model's callers")
)]
enum WireFlaw {
    /// The owner sleeps whatever has come.
    SleptUnasked,
    /// The owner leaves whatever has come, and calls no thread for it.
    LeftUnasked,
    /// A comer that finds the owner asleep does not wake it.
    NotWoken,
    /// What has come is taken out of the word after the look.
    BegunLate,
    /// The mark is made before what it stands for is put.
    CameBeforePut,
    /// The owner leaves while others wait, and does not call the thread.
    NotCalled,
    /// The same, but it calls the thread before it has left.
    CalledEarly,
    /// An owner that stepped out to tell others rests once it is back, without another look.
    RestedUnlooked,
    /// An owner that calls the thread has it spare a tick.
    SparedCalled,
}

#[cfg(not(tierlock_loom))]
mod these {
    pub(super) use std::sync::atomic::{AtomicU32, Ordering};

    #[inline(always)]
    pub(super) const fn flawed(_: super::WireFlaw) -> bool {
        false
    }
}

#[cfg(tierlock_loom)]
mod these {
    use std::cell::Cell;

    pub(super) use loom::sync::atomic::{AtomicU32, Ordering};

    use super::WireFlaw;

    thread_local! {
        // loom runs all threads of a model on one thread of the system.
        static PLANTED: Cell<Option<WireFlaw>> = const { Cell::new(None) };
    }

    /// From now on models on this thread of the system have this flaw.
    pub(super) fn plant(flaw: Option<WireFlaw>) {
        PLANTED.set(flaw);
    }

    pub(super) fn flawed(flaw: WireFlaw) -> bool {
        PLANTED.get() == Some(flaw)
    }
}

pub(super) struct WireWord(AtomicU32);

const OWNED: u32 = 1;
/// Only with `OWNED`: the owner sleeps, or is about to, and has to be woken.
const ASLEEP: u32 = 1 << 1;
/// Only with `ASLEEP`: for no longer than a tick.
const DOZES: u32 = 1 << 2;
/// Something came that no owner has looked at.
const RUNG: u32 = 1 << 3;
const LEFT: u32 = 1 << 4;
const UNREAD: u32 = 1 << 5;
const WOULD_CARRY: u32 = 1 << 6;
const WANTS_READER: u32 = 1 << 7;
/// A runtime's task sleeps on the sockets while they are free.
const READS: u32 = 1 << 8;
/// The last owner has left nothing that is waited for, and the thread need not look at the next tick.
const SPARES: u32 = 1 << 9;

/// What an owner looks at, and takes out of the word with [`WireWord::begin`].
const SIGNS: u32 = RUNG | LEFT | UNREAD | WOULD_CARRY | WANTS_READER;

/// Why a thread comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WireWish {
    /// Something is to be sent.
    Send,
    /// The same, by a caller that waits and would carry its frames itself.
    Carry,
    /// The same, by a task that would have its answer read by its runtime.
    Reader,
    /// A socket has something to read.
    Read,
}

impl WireWish {
    fn signs(self) -> u32 {
        match self {
            WireWish::Send => RUNG,
            WireWish::Carry => RUNG | WOULD_CARRY,
            WireWish::Reader => RUNG | WANTS_READER,
            WireWish::Read => RUNG | UNREAD,
        }
    }
}

/// What a comer finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coming {
    /// It was free, and is the comer's now.
    Mine,
    /// Its owner will look before it sleeps or leaves.
    Heard,
    /// Its owner sleeps: the comer is to wake it.
    Asleep,
}

/// What had come before an owner's look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WireSigns(u32);

impl WireSigns {
    /// There may be something to read that the sockets did not tell this owner of.
    pub(super) fn is_unread(self) -> bool {
        self.0 & UNREAD != 0
    }

    /// A caller would have carried its frames itself.
    pub(super) fn would_carry(self) -> bool {
        self.0 & WOULD_CARRY != 0
    }

    /// A task would have its answer read by its runtime.
    pub(super) fn wants_reader(self) -> bool {
        self.0 & WANTS_READER != 0
    }
}

impl WireWord {
    pub(super) fn new() -> WireWord {
        WireWord(AtomicU32::new(0))
    }

    /// There is something to look at, put where an owner finds it *before* this: now the caller owns
    /// the connection, or its owner looks again.
    pub(super) fn come(&self, wish: WireWish) -> Coming {
        self.change(|word| match word {
            word if word & OWNED == 0 => (word | OWNED, Coming::Mine),
            // One comer wakes it, and others need not.
            word if word & ASLEEP != 0 => {
                ((word | wish.signs()) & !(ASLEEP | DOZES), Coming::Asleep)
            }
            word => (word | wish.signs(), Coming::Heard),
        })
    }

    /// There is something to send that may go with what is sent next, or at the next tick. Whether the
    /// owner is to be woken for it, since it sleeps past that.
    #[must_use]
    pub(super) fn put_off(&self) -> bool {
        self.change(|word| match word & (ASLEEP | DOZES) {
            ASLEEP => ((word | RUNG) & !ASLEEP, true),
            _ => (word | LEFT, false),
        })
    }

    /// As [`put_off`](WireWord::put_off), where a runtime's task sleeps on the sockets of a free
    /// connection and can look sooner: whether it does.
    #[must_use]
    pub(super) fn put_off_to_reader(&self) -> bool {
        self.change(|word| match word & (READS | OWNED) {
            READS => (word | LEFT, true),
            _ => (word, false),
        })
    }

    /// Owns it if it is free.
    #[must_use]
    pub(super) fn own(&self) -> bool {
        self.change(|word| (word | OWNED, word & OWNED == 0))
    }

    /// For the thread, at a tick or when it was called: owns it if it is free, unless its last owner spares
    /// the thread this tick.
    #[must_use]
    pub(super) fn own_at_tick(&self) -> bool {
        self.change(|word| match word & (OWNED | SPARES) {
            0 => (word | OWNED, true),
            SPARES => (word & !SPARES, false),
            _ => (word, false),
        })
    }

    /// The owner, before it looks at everything: what has come by now is in this look.
    pub(super) fn begin(&self) -> WireSigns {
        WireSigns(self.0.fetch_and(!SIGNS, AcqRel) & SIGNS)
    }

    /// Whether something has come since the owner began its look.
    pub(super) fn is_rung(&self) -> bool {
        self.0.load(Relaxed) & RUNG != 0
    }

    /// The owner is about to sleep, with `dozes` for no longer than a tick: whether it may. Afterwards it
    /// [gets up](WireWord::get_up).
    #[must_use]
    pub(super) fn lie_down(&self, dozes: bool) -> bool {
        if flawed(WireFlaw::SleptUnasked) {
            self.0.fetch_or(ASLEEP, AcqRel);
            return true;
        }
        let how = if dozes { ASLEEP | DOZES } else { ASLEEP };
        self.change(|word| match word {
            word if word & RUNG != 0 => (word, false),
            // What was left waits for a tick, and not for a long sleep.
            word if word & LEFT != 0 && !dozes => (word, false),
            word => (word | how, true),
        })
    }

    /// The owner is awake again, whatever woke it.
    pub(super) fn get_up(&self) {
        self.0.fetch_and(!(ASLEEP | DOZES), Acquire);
    }

    /// The owner leaves, if nothing has come since it began its look: whether it has. What was left for a
    /// tick stays for that, and with `spares` for one more: for an owner that leaves nothing to be waited
    /// for, since one that calls the thread afterwards is to be heard.
    #[must_use]
    pub(super) fn leave(&self, spares: bool) -> bool {
        if flawed(WireFlaw::LeftUnasked) {
            self.abandon();
            return true;
        }
        self.leave_marking(if spares { SPARES } else { 0 })
    }

    fn leave_marking(&self, marks: u32) -> bool {
        self.change(|word| match word & RUNG {
            0 => (word & !(OWNED | SPARES) | marks, true),
            _ => (word, false),
        })
    }

    /// The owner leaves, whatever has come: it has to call the thread afterwards.
    pub(super) fn abandon(&self) {
        self.0.fetch_and(!(OWNED | ASLEEP | DOZES | SPARES), AcqRel);
    }

    /// The owner steps out of the connection to run foreign code, whatever has come: that stays marked for
    /// the next owner, which is this one again if it [owns](WireWord::own) it afterwards.
    pub(super) fn step_out(&self) {
        self.0.fetch_and(!(OWNED | SPARES), AcqRel);
    }

    /// As [`leave`](WireWord::leave), and from now on a runtime's task sleeps on the sockets.
    #[must_use]
    pub(super) fn leave_to_reader(&self, spares: bool) -> bool {
        self.leave_marking(if spares { READS | SPARES } else { READS })
    }

    /// The owner takes the sockets back from the runtime's task.
    pub(super) fn end_reading(&self) {
        self.0.fetch_and(!READS, AcqRel);
    }

    /// Whether a runtime's task sleeps on the sockets while they are free.
    pub(super) fn reads(&self) -> bool {
        // A reading task that has said that it ends asks this; an owner that leaves the sockets to it asks
        // whether it runs. One of them sees the other.
        self.0.load(SeqCst) & READS != 0
    }

    fn change<R>(&self, to: impl Fn(u32) -> (u32, R)) -> R {
        let mut word = self.0.load(Relaxed);
        loop {
            let (next, result) = to(word);
            // Also where nothing changes: the exchange orders what the word says.
            match self.0.compare_exchange_weak(word, next, SeqCst, Acquire) {
                Ok(_) => return result,
                Err(found) => word = found,
            }
        }
    }
}
