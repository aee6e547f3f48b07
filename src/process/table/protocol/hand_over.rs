//! Handing a word over to the oldest wait, or releasing it to all if no wait stands: the part that
//! the holder's release, a waiter giving up its reservation, and a sweeper have in common.

use crate::error::Predecessor;

#[cfg(test)]
use super::super::step::Step;
use super::{Answer, Op, RecordScan, ToWake, WaitId, Word};

/// Hands one word over to the oldest wait, or frees it if none stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct HandOver {
    /// The word that is to be exchanged. An exchange of exactly this one.
    seen: Word,
    how: Predecessor,
    /// The word is still the caller's own hold: to be released if no record is found twice.
    is_held: bool,
    /// The first exchange has been made. What follows it may be done by others as well.
    is_done: bool,
    phase: LeavePhase,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum LeavePhase {
    Scan(RecordScan),
    Stamp(WaitId),
    /// Is the hold still this guard's? Right before each exchange of it.
    SeeToken(Option<WaitId>),
    Appoint(WaitId),
    /// Appointed: does it still stand?
    SeeRecord(WaitId),
    /// It gave up before it could see that: is the word still reserved for it?
    Reload(WaitId),
    WakeWait(WaitId),
    /// No record: first so that waiters may sleep, and then, if there is none again, quiet.
    Free,
    ScanAgain(RecordScan),
    Clear,
    WakeOne,
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HandedOver {
    Yes,
    /// It is another hold's word by now.
    Lost,
    /// The word had changed, into this one.
    Missed(Word),
}

impl HandOver {
    /// Releases the holder's own word.
    pub(super) const fn release(seen: Word, how: Predecessor) -> HandOver {
        let phase = LeavePhase::Scan(RecordScan::BEGIN);
        HandOver { seen, how, is_held: true, is_done: false, phase }
    }

    /// Hands on a word without a living owner.
    pub(super) const fn other(seen: Word, how: Predecessor) -> HandOver {
        HandOver { is_held: false, ..HandOver::release(seen, how) }
    }

    pub(super) fn op(&self) -> Op {
        match self.phase {
            LeavePhase::Scan(scan) | LeavePhase::ScanAgain(scan) => scan.op(),
            LeavePhase::Stamp(_) => Op::Stamp,
            LeavePhase::SeeToken(_) => Op::SeeToken,
            LeavePhase::Appoint(wait) => {
                Op::Swap { from: self.seen, to: self.seen.appointed(wait, self.how) }
            }
            LeavePhase::SeeRecord(wait) => Op::LoadRecord(wait.number()),
            LeavePhase::Reload(_) => Op::Load,
            LeavePhase::WakeWait(wait) => Op::Wake(ToWake::Wait(wait)),
            LeavePhase::Free => Op::Swap { from: self.seen, to: self.seen.freed(self.how) },
            LeavePhase::Clear => Op::Swap { from: self.seen, to: self.seen.cleared() },
            LeavePhase::WakeOne => Op::Wake(ToWake::One),
        }
    }

    /// What came of it; how it ended, once it has.
    pub(super) fn heard(&mut self, answer: Answer) -> Option<HandedOver> {
        self.phase = match (self.phase, answer) {
            (LeavePhase::Scan(scan), Answer::Read(read)) => match scan.heard(read) {
                Ok(scan) => LeavePhase::Scan(scan),
                Err(Some(wait)) => LeavePhase::Stamp(wait),
                Err(None) if self.is_held => LeavePhase::SeeToken(None),
                Err(None) => LeavePhase::Free,
            },
            (LeavePhase::Stamp(wait), Answer::Done) if self.is_held => {
                LeavePhase::SeeToken(Some(wait))
            }
            (LeavePhase::Stamp(wait), Answer::Done) => LeavePhase::Appoint(wait),
            (LeavePhase::SeeToken(_), Answer::Yes(false)) => return Some(HandedOver::Lost),
            (LeavePhase::SeeToken(Some(wait)), Answer::Yes(true)) => LeavePhase::Appoint(wait),
            (LeavePhase::SeeToken(None), Answer::Yes(true)) => LeavePhase::Free,
            (LeavePhase::Appoint(wait), Answer::Word(found)) if found == self.seen => {
                self.seen = self.seen.appointed(wait, self.how);
                (self.is_held, self.is_done) = (false, true);
                LeavePhase::SeeRecord(wait)
            }
            (LeavePhase::Free, Answer::Word(found)) if found == self.seen => {
                self.seen = self.seen.freed(self.how);
                self.is_done = true;
                // A waiter that published its record after the first scan, and saw the word still
                // held, sleeps. One that saw it reserved for a wait that is gone does not.
                match std::mem::take(&mut self.is_held) {
                    true => LeavePhase::ScanAgain(RecordScan::BEGIN),
                    false => LeavePhase::WakeOne,
                }
            }
            (LeavePhase::Appoint(_) | LeavePhase::Free, Answer::Word(found)) => {
                return Some(match self.is_done {
                    true => HandedOver::Yes,
                    false => HandedOver::Missed(found),
                });
            }
            (LeavePhase::SeeRecord(wait), Answer::Record(record)) => match record.is_of(wait) {
                true => LeavePhase::WakeWait(wait),
                false => LeavePhase::Reload(wait),
            },
            (LeavePhase::Reload(_), Answer::Word(found)) if found == self.seen => {
                LeavePhase::Scan(RecordScan::BEGIN)
            }
            // Claimed before it was erased, or handed on by another thread.
            (LeavePhase::Reload(_), Answer::Word(_)) => return Some(HandedOver::Yes),
            (LeavePhase::WakeWait(_) | LeavePhase::WakeOne, Answer::Yes(_)) => {
                return Some(HandedOver::Yes);
            }
            (LeavePhase::ScanAgain(scan), Answer::Read(read)) => match scan.heard(read) {
                Ok(scan) => LeavePhase::ScanAgain(scan),
                Err(Some(wait)) => LeavePhase::Stamp(wait),
                Err(None) => LeavePhase::Clear,
            },
            (LeavePhase::Clear, Answer::Word(found)) if found == self.seen => LeavePhase::WakeOne,
            // Taken meanwhile, with HUNGRY: its release scans and wakes.
            (LeavePhase::Clear, Answer::Word(_)) => return Some(HandedOver::Yes),
            (phase, answer) => unreachable!("{answer:?} is no answer in {phase:?}"),
        };
        None
    }

    #[cfg(test)]
    pub(super) fn step(&self) -> Step {
        match self.phase {
            LeavePhase::Scan(_) => Step::HandScan,
            LeavePhase::Stamp(_) => Step::HandStamp,
            LeavePhase::SeeToken(_) => Step::HandSeeToken,
            LeavePhase::Appoint(_) => Step::HandAppoint,
            LeavePhase::SeeRecord(_) => Step::HandSeeRecord,
            LeavePhase::Reload(_) => Step::HandReload,
            LeavePhase::WakeWait(_) => Step::HandWakeWait,
            LeavePhase::Free => Step::HandFree,
            LeavePhase::ScanAgain(_) => Step::HandScanAgain,
            LeavePhase::Clear => Step::HandClear,
            LeavePhase::WakeOne => Step::HandWakeOne,
        }
    }
}
