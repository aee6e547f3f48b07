//! The lock's protocol: what to do next to a slot, given what was seen. It touches no memory,
//! reads no clock and never sleeps: `lock` does what the machines here ask for, one operation at
//! a time, and tells them what came of it. So does the model, in every order.
//!
//! A machine's operation is one atomic step for all others, and its process may die or be stopped
//! before and after each.
//!
//! | machine | is run by | does |
//! |---|---|---|
//! | [`Taking`] | a waiter, a try, or the thread that waits for a task | takes a word, or waits for it |
//! | [`Leaving`] | the holder | releases it |
//! | [`Marking`], [`Renaming`] | the holder | changes its own word |
//! | [`Reading`], [`Unsharing`] | a reader; for permits the holder | comes in beside others, and leaves |
//! | [`Draining`] | the holder | waits until no reader is inside, or until permits are free |
//! | [`Reaping`] | a sweeper | releases a dead holder's word |
//!
//! **Order.** A waiter that has waited for 1 ms takes a wait record, and the oldest record is
//! served first. The holder's release scans the records if the word is HUNGRY, and reserves the
//! word for the oldest one; only that wait's own thread claims it. So no stopped, dead or leaving
//! waiter is ever made a holder. A reservation that is not claimed in time is passed over, by
//! whichever thread looks at it then.
//!
//! **Threads.** All threads of a process write the same id. A word that bears one's own id is held
//! by another thread of this process: its presence is not judged. One thread of a process waits
//! for a word at a time; any number may try.

mod hand_over;
mod sharing;
mod taking;

use crate::error::Predecessor;

use super::{
    share::ShareWord,
    word::{OwnerId, RecordWord, SlotState, StayEnd, WaitId, Word},
};

use self::hand_over::{HandOver, HandedOver};
pub(super) use self::{
    sharing::{Draining, Reading, Unsharing, Way},
    taking::{SPINS, Taking},
};

/// What a machine asks for, and which [`Answer`] it expects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    // ---- the word
    /// `Word`: the slot's word.
    Load,
    /// Compare-and-swap of the word. `Word`: what was found, `from` if it was done.
    Swap { from: Word, to: Word },
    /// `Yes`: does the slot still bear the token of the hold that is released?
    SeeToken,
    /// Raise the slot's token, by which the hold is told from those before it. `Done`.
    RaiseToken,
    /// `Stay`: the end of `at_least` that stands in the slot, if it lies ahead.
    SeeStay,
    /// `Yes`: is this end past?
    IsOver(StayEnd),

    // ---- wait records
    /// Take a wait record, not to be believed yet. `Wait`: which; none if all are taken.
    Enlist,
    /// Write down in it what is waited for, and since when. `Done`.
    FillIn(WaitId),
    /// Compare-and-swap of a record's word. `Record`: what was found.
    SwapRecord { number: u16, from: RecordWord, to: RecordWord },
    /// The same, by the waiter that was passed over and [stands again](RecordWord::returned): it
    /// has twice the time to claim from now on.
    Return { number: u16, from: RecordWord },
    /// Free this wait's record, if it still is this wait's. `Done`.
    Erase(WaitId),
    /// `Record`: the word of the record of this number.
    LoadRecord(u16),
    /// `Read`: what the record of this number says about this slot.
    Read(u16),
    /// Write down when the reservation begins. `Done`.
    Stamp,
    /// `Yes`: has the wait that the word is reserved for had its time to claim it?
    IsLate(WaitId),

    /// About share records.
    Share(ShareOp),

    // ---- the rest
    /// `Yes`: has this taker waited for so long that it may have a record?
    IsHungry,
    /// `Verdict` on a process.
    Judge(OwnerId),
    /// Leave the memory alone for as many pauses. `Done`.
    Pause(u32),
    /// Sleep while the word's low half is `seen`'s. `Slept`.
    Sleep { seen: Word, record: Option<WaitId> },
    /// The task is to be polled. `Polled`, or `Slept(GiveUp)`.
    Park,
    /// Wake sleepers. `Yes`: was there one?
    Wake(ToWake),
    /// There is nothing left to do.
    End(Outcome),
}

/// What a machine asks for about the share records of the slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ShareOp {
    /// `Word`: that of the record of this number.
    Load(u32),
    /// Compare-and-swap of a record's word. `Word`: what was found.
    Swap { number: u32, from: ShareWord, to: ShareWord },
    /// `Next`: the record that follows this one in the slot's chain, or begins it.
    Next(Option<u32>),
    /// `Bell`: what a writer sleeps on.
    LoadBell,
    /// Change the bell. `Done`.
    Ring,
    /// Wake every sleeper of the bell. `Done`.
    WakeBell,
    /// Sleep while the bell is this. `Slept`.
    SleepOnBell(u32),
}

/// What came of a [`ShareOp`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ShareAnswer {
    Word(ShareWord),
    Next(Option<u32>),
    Bell(u32),
    /// There is no such record: the table is damaged.
    Broken,
}

/// What came of an [`Op`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    Word(Word),
    Record(RecordWord),
    Wait(Option<WaitId>),
    Read(ReadRecord),
    Stay(Option<StayEnd>),
    Yes(bool),
    Verdict(Verdict),
    Share(ShareAnswer),
    Slept(Slept),
    Polled,
    Done,
}

/// What one record says to a scan of one slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReadRecord {
    /// No record of this or a higher number was ever taken.
    Beyond,
    /// It is free, was passed over, or waits for another slot.
    Nothing,
    /// It waits for the slot.
    Stands { since: u64, wait: WaitId },
}

/// Whether a process is alive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Alive,
    /// Proved, and the table is still the one that is mapped.
    Dead,
    /// There is no presence of this id. An owner of a word has one, so either the word has changed
    /// by now or the directory is damaged.
    Missing,
    /// It could not be found out; the judge reports why. Treated as alive.
    Unknown,
}

impl Verdict {
    /// Whether its process is alive, or may be.
    pub(super) fn may_live(self) -> bool {
        matches!(self, Verdict::Alive | Verdict::Unknown)
    }
}

/// How a sleep ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Slept {
    /// It was woken.
    Woken,
    /// It never slept: the word had changed.
    Changed,
    /// By itself, or by a signal.
    ByItself,
    /// There was or is to be no sleep: the taker gives up (its time is over, it was cancelled,
    /// the name has moved). It may have been woken all the same.
    GiveUp,
}

/// Which sleepers are woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ToWake {
    /// All that share this wait's futex bit, and all that sleep under every bit.
    Wait(WaitId),
    /// Any one.
    One,
}

/// What a machine ends with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Outcome {
    /// The lock is this process's. The holder before it left so.
    Won(Predecessor),
    /// A living process or another thread of this one holds it, or it is reserved for another
    /// wait, or it stays taken until the end of `at_least`.
    WouldBlock,
    GaveUp,
    /// Released in good order.
    Released,
    /// The word bears the mark.
    Marked,
    /// No reader is inside, or there are permits enough.
    Drained,
    /// As many share as can be counted.
    TooMany,
    /// The process of this share record has no presence.
    ShareAbsent(ShareWord),
    /// The chain of share records leads to none.
    SharesBroken,
    /// No lock ever wrote this share record.
    ShareNonsense(ShareWord),
    /// The word bears this process's other id.
    #[cfg(any(feature = "cli", test))]
    Renamed,
    /// The hold was not this guard's any more.
    Lost,
    /// A sweeper released the word.
    Reaped,
    /// A sweeper found no dead owner.
    Nothing,
    /// The process that was forgetting the name died. To be settled under the structural lock.
    Unsettled(Word),
    /// The owner of this word has no presence.
    Absent(Word),
    /// No lock ever wrote this word.
    Nonsense(Word),
}

/// A protocol being followed by one thread on one slot.
pub(super) trait Machine {
    /// What is to be done now.
    fn op(&self) -> Op;

    /// What came of it.
    fn heard(&mut self, answer: Answer);

    /// Where it stands.
    #[cfg(test)]
    fn step(&self) -> super::step::Step;
}

// ---- reading the records -------------------------------------------------------------------

/// Reads the wait records one by one, and finds the oldest that stands for the slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct RecordScan {
    next: u16,
    oldest: Option<(u64, WaitId)>,
}

impl RecordScan {
    const BEGIN: RecordScan = RecordScan { next: 1, oldest: None };

    const fn op(self) -> Op {
        Op::Read(self.next)
    }

    /// The scan as it goes on, or what it found.
    fn heard(self, read: ReadRecord) -> Result<RecordScan, Option<WaitId>> {
        let found = || self.oldest.map(|(_, wait)| wait);
        let oldest = match read {
            ReadRecord::Beyond => return Err(found()),
            ReadRecord::Nothing => self.oldest,
            ReadRecord::Stands { since, wait } => match self.oldest {
                Some(older) if older <= (since, wait) => Some(older),
                _ => Some((since, wait)),
            },
        };
        match self.next.checked_add(1) {
            Some(next) => Ok(RecordScan { next, oldest }),
            None => Err(oldest.map(|(_, wait)| wait)),
        }
    }
}

// ---- releasing -----------------------------------------------------------------------------

/// Releases a word that is this process's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Leaving {
    me: OwnerId,
    how: Predecessor,
    /// The holder wrote an end of `at_least` into the slot.
    may_stay: bool,
    phase: LeavingPhase,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum LeavingPhase {
    /// The name is forgotten. One expects the word to be this.
    Quiet(Word),
    /// Is the hold still this guard's?
    SeeToken(Word),
    SeeStay(Word),
    Stay(Word, StayEnd),
    Release(Word),
    HandOver(HandOver),
    WakeOne,
    Ended(Outcome),
}

impl Leaving {
    /// Releases a held word; the next owner is told `how`.
    pub(super) const fn held(me: OwnerId, how: Predecessor, may_stay: bool) -> Leaving {
        Leaving { me, how, may_stay, phase: LeavingPhase::SeeToken(Word::held(me)) }
    }

    /// The same, for a holder that found its word to be this.
    pub(super) fn found(me: OwnerId, how: Predecessor, may_stay: bool, found: Word) -> Leaving {
        let begun = Leaving::held(me, how, may_stay);
        Leaving { phase: begun.look(found), ..begun }
    }

    /// Releases the word of a name that is forgotten.
    pub(super) const fn retiring(me: OwnerId) -> Leaving {
        let phase = LeavingPhase::Quiet(Word::retiring(me));
        Leaving { me, how: Predecessor::Clean, may_stay: false, phase }
    }

    fn look(&self, found: Word) -> LeavingPhase {
        match found.state() {
            Some(SlotState::Held(owner)) if owner == self.me => LeavingPhase::SeeToken(found),
            Some(SlotState::Retiring(owner)) if owner == self.me => LeavingPhase::Release(found),
            _ => LeavingPhase::Ended(Outcome::Lost),
        }
    }

    fn release(&self, seen: Word) -> LeavingPhase {
        if seen.is_hungry() {
            LeavingPhase::HandOver(HandOver::release(seen, self.how))
        } else {
            LeavingPhase::Release(seen)
        }
    }

    fn released(from: Word) -> LeavingPhase {
        match from.has_waiters() {
            true => LeavingPhase::WakeOne,
            false => LeavingPhase::Ended(Outcome::Released),
        }
    }
}

impl Machine for Leaving {
    fn op(&self) -> Op {
        match self.phase {
            LeavingPhase::Quiet(seen) | LeavingPhase::Release(seen) => {
                Op::Swap { from: seen, to: seen.released(self.how) }
            }
            LeavingPhase::SeeToken(_) => Op::SeeToken,
            LeavingPhase::SeeStay(_) => Op::SeeStay,
            LeavingPhase::Stay(seen, end) => {
                Op::Swap { from: seen, to: seen.staying(self.how, end) }
            }
            LeavingPhase::HandOver(hand_over) => hand_over.op(),
            LeavingPhase::WakeOne => Op::Wake(ToWake::One),
            LeavingPhase::Ended(outcome) => Op::End(outcome),
        }
    }

    fn heard(&mut self, answer: Answer) {
        self.phase = match (self.phase, answer) {
            (LeavingPhase::Quiet(seen) | LeavingPhase::Release(seen), Answer::Word(found)) => {
                if found == seen {
                    Leaving::released(seen)
                } else {
                    self.look(found)
                }
            }
            (LeavingPhase::SeeToken(_), Answer::Yes(false)) => LeavingPhase::Ended(Outcome::Lost),
            (LeavingPhase::SeeToken(seen), Answer::Yes(true)) if self.may_stay => {
                LeavingPhase::SeeStay(seen)
            }
            (LeavingPhase::SeeToken(seen), Answer::Yes(true)) => self.release(seen),
            (LeavingPhase::SeeStay(seen), Answer::Stay(Some(end))) => LeavingPhase::Stay(seen, end),
            (LeavingPhase::SeeStay(seen), Answer::Stay(None)) => self.release(seen),
            (LeavingPhase::Stay(seen, _), Answer::Word(found)) if found == seen => {
                LeavingPhase::Ended(Outcome::Released)
            }
            (LeavingPhase::Stay(..), Answer::Word(found)) => self.look(found),
            (LeavingPhase::HandOver(mut hand_over), answer) => match hand_over.heard(answer) {
                None => LeavingPhase::HandOver(hand_over),
                Some(HandedOver::Yes) => LeavingPhase::Ended(Outcome::Released),
                Some(HandedOver::Lost) => LeavingPhase::Ended(Outcome::Lost),
                Some(HandedOver::Missed(found)) => self.look(found),
            },
            (LeavingPhase::WakeOne, Answer::Yes(_)) => LeavingPhase::Ended(Outcome::Released),
            (phase, answer) => unreachable!("{answer:?} is no answer in {phase:?}"),
        };
    }

    #[cfg(test)]
    fn step(&self) -> super::step::Step {
        use super::step::Step;
        match self.phase {
            LeavingPhase::Quiet(_) => Step::LeaveQuiet,
            LeavingPhase::SeeToken(_) => Step::LeaveSeeToken,
            LeavingPhase::SeeStay(_) => Step::LeaveSeeStay,
            LeavingPhase::Stay(..) => Step::LeaveStay,
            LeavingPhase::Release(_) => Step::LeaveRelease,
            LeavingPhase::HandOver(hand_over) => hand_over.step(),
            LeavingPhase::WakeOne => Step::LeaveWakeOne,
            LeavingPhase::Ended(_) => Step::LeaveEnd,
        }
    }
}

// ---- changes of one's own word -------------------------------------------------------------

/// Marks a word that is this process's, or takes a mark out of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Marking {
    me: OwnerId,
    mark: SlotMark,
    seen: Word,
    end: Option<Outcome>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum SlotMark {
    /// Locked at host scope, for good.
    Wide,
    /// Readers may come in beside the holder. They are told how the last writer left.
    Readable(Predecessor),
    /// They may not any more.
    Unreadable,
    /// The holder waits for permits: a try need not wait for it.
    Draining,
}

impl Marking {
    pub(super) const fn new(me: OwnerId, mark: SlotMark) -> Marking {
        Marking { me, mark, seen: Word::held(me), end: None }
    }
}

impl Machine for Marking {
    fn op(&self) -> Op {
        let to = match self.mark {
            SlotMark::Wide => self.seen.widened(),
            SlotMark::Readable(how) => self.seen.readable(how),
            SlotMark::Unreadable => self.seen.unreadable(),
            SlotMark::Draining => self.seen.draining(),
        };
        match self.end {
            None => Op::Swap { from: self.seen, to },
            Some(outcome) => Op::End(outcome),
        }
    }

    fn heard(&mut self, answer: Answer) {
        match answer {
            Answer::Word(found) if found == self.seen => self.end = Some(Outcome::Marked),
            Answer::Word(found) if found.owner() == Some(self.me) => self.seen = found,
            Answer::Word(_) => self.end = Some(Outcome::Lost),
            answer => unreachable!("{answer:?} is no answer to a swap"),
        }
    }

    #[cfg(test)]
    fn step(&self) -> super::step::Step {
        match self.mark {
            SlotMark::Wide => super::step::Step::WidenMark,
            SlotMark::Readable(_) => super::step::Step::ReadableMark,
            SlotMark::Unreadable => super::step::Step::ReadableClear,
            SlotMark::Draining => super::step::Step::DrainMark,
        }
    }
}

/// Goes on holding a word that is this process's, under another id of this process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg(any(feature = "cli", test))]
pub(super) struct Renaming {
    from: OwnerId,
    to: OwnerId,
    seen: Word,
    end: Option<Outcome>,
}

#[cfg(any(feature = "cli", test))]
impl Renaming {
    /// `to` proves that this process lives, as `from` does.
    pub(super) const fn new(from: OwnerId, to: OwnerId) -> Renaming {
        Renaming { from, to, seen: Word::held(from), end: None }
    }
}

#[cfg(any(feature = "cli", test))]
impl Machine for Renaming {
    fn op(&self) -> Op {
        match self.end {
            None => Op::Swap { from: self.seen, to: self.seen.renamed(self.to) },
            Some(outcome) => Op::End(outcome),
        }
    }

    fn heard(&mut self, answer: Answer) {
        match answer {
            Answer::Word(found) if found == self.seen => self.end = Some(Outcome::Renamed),
            Answer::Word(found) if found.owner() == Some(self.from) => self.seen = found,
            Answer::Word(_) => self.end = Some(Outcome::Lost),
            answer => unreachable!("{answer:?} is no answer to a swap"),
        }
    }

    #[cfg(test)]
    fn step(&self) -> super::step::Step {
        super::step::Step::RenameSwap
    }
}

// ---- reaping -------------------------------------------------------------------------------

/// Releases the word of an owner that is dead, without taking it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Reaping(ReapingPhase);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum ReapingPhase {
    Look,
    Judge(Word),
    Recheck(Word),
    SeeStay(Word),
    Stay(Word, StayEnd),
    HandOver(HandOver),
    Settle(Word),
    Wake,
    Ended(Outcome),
}

impl Reaping {
    /// Looks which process owns the word, and whether it lives.
    pub(super) const fn sweeping() -> Reaping {
        Reaping(ReapingPhase::Look)
    }

    /// `judged` is a word with a dead owner, of a name that is forgotten by now.
    pub(super) const fn settling(judged: Word) -> Reaping {
        Reaping(ReapingPhase::Settle(judged))
    }
}

impl Machine for Reaping {
    fn op(&self) -> Op {
        match self.0 {
            ReapingPhase::Look | ReapingPhase::Recheck(_) => Op::Load,
            ReapingPhase::Judge(seen) => {
                Op::Judge(seen.owner().expect("only an owned word is judged"))
            }
            ReapingPhase::SeeStay(_) => Op::SeeStay,
            ReapingPhase::Stay(seen, end) => {
                Op::Swap { from: seen, to: seen.staying(Predecessor::Died, end) }
            }
            ReapingPhase::HandOver(hand_over) => hand_over.op(),
            ReapingPhase::Settle(seen) => Op::Swap { from: seen, to: seen.settled() },
            ReapingPhase::Wake => Op::Wake(ToWake::One),
            ReapingPhase::Ended(outcome) => Op::End(outcome),
        }
    }

    fn heard(&mut self, answer: Answer) {
        let ended = ReapingPhase::Ended;
        self.0 = match (self.0, answer) {
            (ReapingPhase::Look, Answer::Word(found)) => match found.state() {
                None => ended(Outcome::Nonsense(found)),
                Some(_) if found.owner().is_some() => ReapingPhase::Judge(found),
                Some(_) => ended(Outcome::Nothing),
            },
            (ReapingPhase::Judge(seen), Answer::Verdict(verdict)) => {
                match (verdict, seen.state()) {
                    (Verdict::Dead, Some(SlotState::Held(_))) => ReapingPhase::SeeStay(seen),
                    (Verdict::Dead, _) => ended(Outcome::Unsettled(seen)),
                    (Verdict::Missing, _) => ReapingPhase::Recheck(seen),
                    (Verdict::Alive | Verdict::Unknown, _) => ended(Outcome::Nothing),
                }
            }
            (ReapingPhase::Recheck(seen), Answer::Word(found)) => {
                let absent = found.owner() == seen.owner();
                ended(if absent { Outcome::Absent(seen) } else { Outcome::Nothing })
            }
            (ReapingPhase::SeeStay(seen), Answer::Stay(Some(end))) => ReapingPhase::Stay(seen, end),
            (ReapingPhase::SeeStay(seen), Answer::Stay(None)) => {
                ReapingPhase::HandOver(HandOver::other(seen, Predecessor::Died))
            }
            (ReapingPhase::Stay(seen, _), Answer::Word(found)) => {
                ended(if found == seen { Outcome::Reaped } else { Outcome::Nothing })
            }
            (ReapingPhase::HandOver(mut hand_over), answer) => match hand_over.heard(answer) {
                None => ReapingPhase::HandOver(hand_over),
                Some(HandedOver::Yes) => ended(Outcome::Reaped),
                Some(HandedOver::Lost | HandedOver::Missed(_)) => ended(Outcome::Nothing),
            },
            (ReapingPhase::Settle(seen), Answer::Word(found)) if found == seen => {
                ReapingPhase::Wake
            }
            (ReapingPhase::Settle(_), Answer::Word(_)) => ended(Outcome::Nothing),
            (ReapingPhase::Wake, Answer::Yes(_)) => ended(Outcome::Reaped),
            (phase, answer) => unreachable!("{answer:?} is no answer in {phase:?}"),
        };
    }

    #[cfg(test)]
    fn step(&self) -> super::step::Step {
        use super::step::Step;
        match self.0 {
            ReapingPhase::Look | ReapingPhase::Recheck(_) => Step::ReapLook,
            ReapingPhase::Judge(_) => Step::ReapJudge,
            ReapingPhase::SeeStay(_) => Step::ReapSeeStay,
            ReapingPhase::Stay(..) => Step::ReapStay,
            ReapingPhase::HandOver(hand_over) => hand_over.step(),
            ReapingPhase::Settle(_) => Step::ReapSettle,
            ReapingPhase::Wake => Step::ReapWake,
            ReapingPhase::Ended(_) => Step::ReapEnd,
        }
    }
}
