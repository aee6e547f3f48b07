//! Handing a word over to the oldest wait, or releasing it to all if no wait stands: the part that
//! the holder's release, a waiter giving up its reservation, and a sweeper have in common.

use crate::error::Predecessor;

#[cfg(test)]
use super::super::step::Step;
use super::{Answer, Op, RecordScan, WaitId, Whom, Word};

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
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Phase {
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
        let phase = Phase::Scan(RecordScan::BEGIN);
        HandOver { seen, how, is_held: true, is_done: false, phase }
    }

    /// Hands on a word without a living owner.
    pub(super) const fn other(seen: Word, how: Predecessor) -> HandOver {
        HandOver { is_held: false, ..HandOver::release(seen, how) }
    }

    pub(super) fn op(&self) -> Op {
        match self.phase {
            Phase::Scan(scan) | Phase::ScanAgain(scan) => scan.op(),
            Phase::Stamp(_) => Op::Stamp,
            Phase::SeeToken(_) => Op::SeeToken,
            Phase::Appoint(wait) => {
                Op::Swap { from: self.seen, to: self.seen.appointed(wait, self.how) }
            }
            Phase::SeeRecord(wait) => Op::LoadRecord(wait.number()),
            Phase::Reload(_) => Op::Load,
            Phase::WakeWait(wait) => Op::Wake(Whom::Wait(wait)),
            Phase::Free => Op::Swap { from: self.seen, to: self.seen.freed(self.how) },
            Phase::Clear => Op::Swap { from: self.seen, to: self.seen.cleared() },
            Phase::WakeOne => Op::Wake(Whom::One),
        }
    }

    /// What came of it; how it ended, once it has.
    pub(super) fn heard(&mut self, answer: Answer) -> Option<HandedOver> {
        self.phase = match (self.phase, answer) {
            (Phase::Scan(scan), Answer::Read(read)) => match scan.heard(read) {
                Ok(scan) => Phase::Scan(scan),
                Err(Some(wait)) => Phase::Stamp(wait),
                Err(None) if self.is_held => Phase::SeeToken(None),
                Err(None) => Phase::Free,
            },
            (Phase::Stamp(wait), Answer::Done) if self.is_held => Phase::SeeToken(Some(wait)),
            (Phase::Stamp(wait), Answer::Done) => Phase::Appoint(wait),
            (Phase::SeeToken(_), Answer::Yes(false)) => return Some(HandedOver::Lost),
            (Phase::SeeToken(Some(wait)), Answer::Yes(true)) => Phase::Appoint(wait),
            (Phase::SeeToken(None), Answer::Yes(true)) => Phase::Free,
            (Phase::Appoint(wait), Answer::Word(found)) if found == self.seen => {
                self.seen = self.seen.appointed(wait, self.how);
                (self.is_held, self.is_done) = (false, true);
                Phase::SeeRecord(wait)
            }
            (Phase::Free, Answer::Word(found)) if found == self.seen => {
                self.seen = self.seen.freed(self.how);
                self.is_done = true;
                // A waiter that published its record after the first scan, and saw the word still
                // held, sleeps. One that saw it reserved for a wait that is gone does not.
                match std::mem::take(&mut self.is_held) {
                    true => Phase::ScanAgain(RecordScan::BEGIN),
                    false => Phase::WakeOne,
                }
            }
            (Phase::Appoint(_) | Phase::Free, Answer::Word(found)) => {
                return Some(match self.is_done {
                    true => HandedOver::Yes,
                    false => HandedOver::Missed(found),
                });
            }
            (Phase::SeeRecord(wait), Answer::Record(record)) => match record.is_of(wait) {
                true => Phase::WakeWait(wait),
                false => Phase::Reload(wait),
            },
            (Phase::Reload(_), Answer::Word(found)) if found == self.seen => {
                Phase::Scan(RecordScan::BEGIN)
            }
            // Claimed before it was erased, or handed on by another thread.
            (Phase::Reload(_), Answer::Word(_)) => return Some(HandedOver::Yes),
            (Phase::WakeWait(_) | Phase::WakeOne, Answer::Yes(_)) => return Some(HandedOver::Yes),
            (Phase::ScanAgain(scan), Answer::Read(read)) => match scan.heard(read) {
                Ok(scan) => Phase::ScanAgain(scan),
                Err(Some(wait)) => Phase::Stamp(wait),
                Err(None) => Phase::Clear,
            },
            (Phase::Clear, Answer::Word(found)) if found == self.seen => Phase::WakeOne,
            // Taken meanwhile, with HUNGRY: its release scans and wakes.
            (Phase::Clear, Answer::Word(_)) => return Some(HandedOver::Yes),
            (phase, answer) => unreachable!("{answer:?} is no answer in {phase:?}"),
        };
        None
    }

    #[cfg(test)]
    pub(super) fn step(&self) -> Step {
        match self.phase {
            Phase::Scan(_) => Step::HandScan,
            Phase::Stamp(_) => Step::HandStamp,
            Phase::SeeToken(_) => Step::HandSeeToken,
            Phase::Appoint(_) => Step::HandAppoint,
            Phase::SeeRecord(_) => Step::HandSeeRecord,
            Phase::Reload(_) => Step::HandReload,
            Phase::WakeWait(_) => Step::HandWakeWait,
            Phase::Free => Step::HandFree,
            Phase::ScanAgain(_) => Step::HandScanAgain,
            Phase::Clear => Step::HandClear,
            Phase::WakeOne => Step::HandWakeOne,
        }
    }
}
