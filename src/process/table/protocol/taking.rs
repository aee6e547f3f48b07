//! Taking a word: trying, waiting, claiming a reservation, passing over another, recovering after
//! a death, giving up.

use crate::error::Predecessor;

#[cfg(test)]
use super::super::step::Step;
use super::{
    Answer, HandOver, Machine, Op, Outcome, OwnerId, RecordScan, RecordWord, Slept, State, StayEnd,
    Verdict, WaitId, Whom, Word,
};

/// How often to pause, twice as long each time, before sleeping.
pub(in super::super) const SPINS: u8 = 3;
/// About a microsecond: a sooner look takes the word's line from a holder that has hardly had it,
/// and the two of them are busy with that.
const FIRST_PAUSE: u32 = 64;

/// Takes a lock, waiting for it or not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(in super::super) struct Taking {
    me: OwnerId,
    phase: Phase,
    waits: bool,
    /// It is a task's, and is run by turns by the task's poll and by a thread that waits for it.
    is_task: bool,
    /// That thread runs it: it takes nothing, since the task may never be polled again.
    by_proxy: bool,
    spins_left: u8,
    /// It slept, so that others may sleep of which the word knows nothing.
    slept: bool,
    /// It waited for so long that it may have a record.
    hungry: bool,
    /// It does not know whether the process is alive that it waits for.
    unsure: bool,
    /// It won, off the quiet path, and raised the slot's token.
    #[cfg(test)]
    raised_token: bool,
    /// The record of this wait, once published.
    record: Option<WaitId>,
}

/// A word that may be taken or given to a wait: reserved for one that is late or gone, a dead
/// holder's, or staying beyond its end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Choice {
    seen: Word,
    /// How its last holder left.
    left: Predecessor,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Phase {
    Quiet,
    /// Was this wait passed over? Before each look.
    Refresh,
    /// It was.
    Return(RecordWord),
    Look,
    Pause,

    /// The word was free.
    Grab(Word),
    /// It was reserved for this wait.
    Claim(Word),

    /// It was reserved for another wait.
    SeeRecord(Word, WaitId),
    JudgeWaiter(Word, WaitId, RecordWord),
    SeeLate(Word, WaitId, RecordWord),
    Pass(Word, WaitId, RecordWord),

    /// It was owned: by the living?
    Judge(Word),
    /// Its owner has no presence: is it still its owner?
    Recheck(Word),
    SeeStay(Word),
    Stay(Word, StayEnd),
    /// It was left before this end of `at_least`.
    SeeOver(Word, StayEnd),

    /// A word without a living owner: which wait is next?
    Scan(Choice, RecordScan),
    Stamp(Choice, WaitId),
    Appoint(Choice, WaitId),
    WakeWait(WaitId),
    /// No older wait stands: it is this taker's.
    Seize(Choice),
    /// The same, for a task without a record.
    Free(Choice),

    /// The word is taken: the holder before it, which may still believe that it holds, finds
    /// another token in the slot.
    RaiseToken(Predecessor),

    /// Another holds it.
    SeeHunger(Word),
    Enlist(Word),
    FillIn(WaitId),
    Publish(WaitId, RecordWord),
    /// No waiter may sleep on a word that does not say so.
    Mark(Word),
    Sleep(Word),

    /// The task is to be polled, and another sleeper has the wake that this one may have had.
    PassWake,
    Park,

    Erase(End),
    FindReservation(WaitId, Outcome),
    GiveOn(HandOver, Outcome),
    WakeAnother(Outcome),
    Ended(Outcome),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum End {
    Won(Predecessor),
    /// Without the lock, to end so.
    Stop(Outcome),
}

impl Taking {
    /// Begins with the quiet path.
    pub(in super::super) fn new(me: OwnerId, waits: bool, spins: u8) -> Taking {
        Taking {
            me,
            phase: Phase::Quiet,
            waits,
            is_task: false,
            by_proxy: false,
            spins_left: if waits { spins } else { 0 },
            slept: false,
            hungry: false,
            unsure: true,
            #[cfg(test)]
            raised_token: false,
            record: None,
        }
    }

    /// Waits for a task: from its first sleep on, a thread that takes nothing runs it until the
    /// task is [polled](Answer::Polled).
    pub(in super::super) fn for_task(me: OwnerId, spins: u8) -> Taking {
        Taking { is_task: true, ..Taking::new(me, true, spins) }
    }

    /// The quiet path: what it swaps for what.
    #[inline]
    pub(in super::super) const fn quiet(me: OwnerId) -> (Word, Word) {
        (Word::FREE, Word::held(me))
    }

    pub(in super::super) fn me(&self) -> OwnerId {
        self.me
    }

    /// The published record of this wait.
    pub(in super::super) fn record(&self) -> Option<WaitId> {
        self.record
    }

    /// Whether it raised the slot's token when it won: not by the quiet path.
    #[cfg(test)]
    pub(in super::super) fn has_raised_token(&self) -> bool {
        self.raised_token
    }

    /// Ends without the lock, wherever it stands but at its end: the caller cannot go on.
    pub(in super::super) fn give_up(&mut self) {
        self.phase = self.end(End::Stop(Outcome::GaveUp));
    }

    /// What to do about a word that was seen just now.
    fn look(&self, seen: Word) -> Phase {
        match seen.state() {
            None => self.stop(Outcome::Nonsense(seen)),
            Some(State::Free) if !self.by_proxy => Phase::Grab(seen),
            Some(State::Free) => self.appoint_itself(Choice::of(seen, seen.left())),
            Some(State::Reserved(wait)) if Some(wait) == self.record => match self.by_proxy {
                true => Phase::Park,
                false => Phase::Claim(seen),
            },
            Some(_) if self.pauses() => Phase::Pause,
            Some(State::Reserved(wait)) => Phase::SeeRecord(seen, wait),
            Some(State::Staying(end)) => Phase::SeeOver(seen, end),
            // Another thread of this process holds it.
            Some(State::Held(owner) | State::Retiring(owner)) if owner == self.me => {
                self.stay(seen)
            }
            Some(State::Held(_) | State::Retiring(_)) if self.unsure => Phase::Judge(seen),
            Some(State::Held(_) | State::Retiring(_)) => self.stay(seen),
        }
    }

    fn pauses(&self) -> bool {
        self.waits && self.spins_left > 0
    }

    /// What to do while the word is another's.
    fn stay(&self, seen: Word) -> Phase {
        if !self.waits {
            Phase::Ended(Outcome::WouldBlock)
        } else if !self.hungry {
            Phase::SeeHunger(seen)
        } else if self.record.is_none() {
            Phase::Enlist(seen)
        } else {
            self.settle(seen)
        }
    }

    /// Goes to sleep, once the word says what it must.
    fn settle(&self, seen: Word) -> Phase {
        if self.marked(seen) == seen { Phase::Sleep(seen) } else { Phase::Mark(seen) }
    }

    fn marked(&self, seen: Word) -> Word {
        match seen.state() {
            // It says so already.
            Some(State::Reserved(_)) => seen,
            // It is released at once, and to no wait.
            Some(State::Retiring(_)) => seen.waited_for(),
            _ if self.record.is_some() => seen.hungered_for(),
            _ => seen.waited_for(),
        }
    }

    /// The oldest wait that stands may have this word, or, if none does, this taker.
    fn choose(&self, choice: Choice, oldest: Option<WaitId>) -> Phase {
        match oldest {
            Some(wait) if Some(wait) != self.record => Phase::Stamp(choice, wait),
            _ if self.by_proxy => self.appoint_itself(choice),
            _ => Phase::Seize(choice),
        }
    }

    /// For a task the word is only reserved: its poll claims it.
    fn appoint_itself(&self, choice: Choice) -> Phase {
        match self.record {
            Some(wait) => Phase::Stamp(choice, wait),
            // It is free already, and the task is told so.
            None if choice.seen.state() == Some(State::Free) => Phase::PassWake,
            None => Phase::Free(choice),
        }
    }

    /// Looks, first at its own record if it has one.
    fn look_again(&self) -> Phase {
        if self.record.is_some() { Phase::Refresh } else { Phase::Look }
    }

    fn end(&self, end: End) -> Phase {
        match end {
            _ if self.record.is_some() => Phase::Erase(end),
            End::Won(left) => Phase::Ended(Outcome::Won(left)),
            // It may have had the wake of another.
            End::Stop(outcome) => Phase::WakeAnother(outcome),
        }
    }

    /// Something is wrong with the word; a waiter does not leave its record behind.
    fn stop(&self, outcome: Outcome) -> Phase {
        match self.waits {
            true => self.end(End::Stop(outcome)),
            false => Phase::Ended(outcome),
        }
    }

    fn judged_waiter(
        &self,
        verdict: Verdict,
        seen: Word,
        wait: WaitId,
        record: RecordWord,
    ) -> Phase {
        match verdict {
            Verdict::Dead | Verdict::Missing => Phase::Pass(seen, wait, record),
            Verdict::Alive | Verdict::Unknown => Phase::SeeLate(seen, wait, record),
        }
    }
}

impl Choice {
    const fn of(seen: Word, left: Predecessor) -> Choice {
        Choice { seen, left }
    }

    /// To be decided by a scan.
    const fn begin(self) -> Phase {
        Phase::Scan(self, RecordScan::BEGIN)
    }
}

impl Machine for Taking {
    fn op(&self) -> Op {
        match self.phase {
            Phase::Quiet => {
                let (from, to) = Taking::quiet(self.me);
                Op::Swap { from, to }
            }
            Phase::Look | Phase::Recheck(_) | Phase::FindReservation(..) => Op::Load,
            Phase::Refresh => {
                Op::LoadRecord(self.record.expect("only a record is refreshed").number())
            }
            Phase::Return(from) => {
                let number = self.record.expect("only a record returns").number();
                Op::Return { number, from }
            }
            Phase::Pause => Op::Pause(FIRST_PAUSE << (SPINS - self.spins_left.min(SPINS))),
            Phase::Grab(seen) => {
                Op::Swap { from: seen, to: seen.taken(self.me, self.slept, self.record.is_some()) }
            }
            Phase::Claim(seen) | Phase::Seize(Choice { seen, .. }) => {
                Op::Swap { from: seen, to: seen.seized(self.me) }
            }
            Phase::SeeRecord(_, wait) => Op::LoadRecord(wait.number()),
            Phase::JudgeWaiter(_, _, record) => {
                Op::Judge(record.owner().expect("only a wait that stands is judged"))
            }
            Phase::SeeLate(_, wait, _) => Op::IsLate(wait),
            Phase::Pass(_, wait, from) => {
                Op::SwapRecord { number: wait.number(), from, to: from.passed() }
            }
            Phase::Judge(seen) => Op::Judge(seen.owner().expect("only an owned word is judged")),
            Phase::SeeStay(_) => Op::SeeStay,
            Phase::SeeOver(_, end) => Op::IsOver(end),
            Phase::Stay(seen, end) => {
                Op::Swap { from: seen, to: seen.staying(Predecessor::Died, end) }
            }
            Phase::Scan(_, scan) => scan.op(),
            Phase::Stamp(..) => Op::Stamp,
            Phase::Appoint(Choice { seen, left, .. }, wait) => {
                Op::Swap { from: seen, to: seen.appointed(wait, left) }
            }
            Phase::WakeWait(wait) => Op::Wake(Whom::Wait(wait)),
            Phase::Free(Choice { seen, left, .. }) => Op::Swap { from: seen, to: seen.freed(left) },
            Phase::RaiseToken(_) => Op::RaiseToken,
            Phase::SeeHunger(_) => Op::IsHungry,
            Phase::Enlist(_) => Op::Enlist,
            Phase::FillIn(wait) => Op::FillIn(wait),
            Phase::Publish(wait, from) => {
                Op::SwapRecord { number: wait.number(), from, to: from.standing() }
            }
            Phase::Mark(seen) => Op::Swap { from: seen, to: self.marked(seen) },
            Phase::Sleep(seen) => Op::Sleep { seen, record: self.record },
            Phase::PassWake | Phase::WakeAnother(_) => Op::Wake(Whom::One),
            Phase::Park => Op::Park,
            Phase::Erase(_) => Op::Erase(self.record.expect("only a record is erased")),
            Phase::GiveOn(hand_over, _) => hand_over.op(),
            Phase::Ended(outcome) => Op::End(outcome),
        }
    }

    fn heard(&mut self, answer: Answer) {
        self.phase = self.next(answer);
        if matches!(self.phase, Phase::Sleep(_)) {
            self.by_proxy = self.is_task;
        }
    }

    #[cfg(test)]
    fn step(&self) -> Step {
        match self.phase {
            Phase::Quiet => Step::TakeQuiet,
            Phase::Refresh => Step::TakeRefresh,
            Phase::Return(_) => Step::TakeReturn,
            Phase::Look => Step::TakeLook,
            Phase::Pause => Step::TakePause,
            Phase::Grab(_) => Step::TakeGrab,
            Phase::Claim(_) => Step::TakeClaim,
            Phase::SeeRecord(..) => Step::TakeSeeRecord,
            Phase::JudgeWaiter(..) => Step::TakeJudgeWaiter,
            Phase::SeeLate(..) => Step::TakeSeeLate,
            Phase::Pass(..) => Step::TakePass,
            Phase::Judge(_) => Step::TakeJudge,
            Phase::Recheck(_) => Step::TakeRecheck,
            Phase::SeeStay(_) => Step::TakeSeeStay,
            Phase::Stay(..) => Step::TakeStay,
            Phase::SeeOver(..) => Step::TakeSeeOver,
            Phase::Scan(..) => Step::TakeScan,
            Phase::Stamp(..) => Step::TakeStamp,
            Phase::Appoint(..) => Step::TakeAppoint,
            Phase::WakeWait(_) => Step::TakeWakeWait,
            Phase::Seize(_) => Step::TakeSeize,
            Phase::Free(_) => Step::TakeFree,
            Phase::RaiseToken(_) => Step::TakeRaiseToken,
            Phase::SeeHunger(_) => Step::TakeSeeHunger,
            Phase::Enlist(_) => Step::TakeEnlist,
            Phase::FillIn(_) => Step::TakeFillIn,
            Phase::Publish(..) => Step::TakePublish,
            Phase::Mark(_) => Step::TakeMark,
            Phase::Sleep(_) => Step::TakeSleep,
            Phase::PassWake => Step::TakePassWake,
            Phase::Park => Step::TakePark,
            Phase::Erase(_) => Step::TakeErase,
            Phase::FindReservation(..) => Step::TakeFindReservation,
            Phase::GiveOn(hand_over, _) => hand_over.step(),
            Phase::WakeAnother(_) => Step::TakeWakeAnother,
            Phase::Ended(_) => Step::TakeEnd,
        }
    }
}

impl Taking {
    fn next(&mut self, answer: Answer) -> Phase {
        match (self.phase, answer) {
            // Quiet: the caller raises the token, once it has compared the generation.
            (Phase::Quiet, Answer::Word(Word::FREE)) => self.end(End::Won(Predecessor::Clean)),
            (Phase::Quiet | Phase::Look, Answer::Word(found)) => self.look(found),
            (Phase::Pause, Answer::Done) => {
                self.spins_left -= 1;
                self.look_again()
            }

            (Phase::Refresh, Answer::Record(record)) => {
                match self.record.filter(|wait| record.is_of(*wait)) {
                    // Taken as a dead process's: this wait has none.
                    None => {
                        self.record = None;
                        Phase::Look
                    }
                    Some(_) if !record.is_passed() => Phase::Look,
                    // Only its poll lets a task take its place again: one that is never polled
                    // would make each release slow, for ever.
                    Some(_) if self.by_proxy => Phase::PassWake,
                    Some(_) => Phase::Return(record),
                }
            }
            (Phase::Return(before), Answer::Record(found)) if found == before => {
                let number = self.record.expect("only a record returns").number();
                self.record = before.returned().wait(number);
                Phase::Look
            }
            (Phase::Return(_), Answer::Record(_)) => Phase::Refresh,

            (
                Phase::Grab(seen) | Phase::Claim(seen) | Phase::Seize(Choice { seen, .. }),
                Answer::Word(found),
            ) if found == seen => match self.phase {
                Phase::Seize(choice) => Phase::RaiseToken(choice.left),
                _ => Phase::RaiseToken(seen.left()),
            },
            (Phase::RaiseToken(left), Answer::Done) => {
                #[cfg(test)]
                {
                    self.raised_token = true;
                }
                self.end(End::Won(left))
            }

            (Phase::SeeRecord(seen, wait), Answer::Record(record)) => match record.owner() {
                Some(_) if !record.is_of(wait) || record.is_passed() => {
                    Choice::of(seen, seen.left()).begin()
                }
                None => Choice::of(seen, seen.left()).begin(),
                Some(owner) if self.unsure && owner != self.me => {
                    Phase::JudgeWaiter(seen, wait, record)
                }
                Some(_) => Phase::SeeLate(seen, wait, record),
            },
            (Phase::JudgeWaiter(seen, wait, record), Answer::Verdict(verdict)) => {
                self.unsure = false;
                self.judged_waiter(verdict, seen, wait, record)
            }
            (Phase::SeeLate(seen, wait, record), Answer::Yes(true)) => {
                Phase::Pass(seen, wait, record)
            }
            (Phase::SeeLate(seen, ..), Answer::Yes(false)) => self.stay(seen),
            (Phase::Pass(seen, _, before), Answer::Record(found)) if found == before => {
                Choice::of(seen, seen.left()).begin()
            }
            (Phase::Pass(..), Answer::Record(_)) => self.look_again(),

            (Phase::Judge(seen), Answer::Verdict(verdict)) => match verdict {
                Verdict::Dead if matches!(seen.state(), Some(State::Held(_))) => {
                    Phase::SeeStay(seen)
                }
                Verdict::Dead => self.stop(Outcome::Unsettled(seen)),
                Verdict::Missing => Phase::Recheck(seen),
                Verdict::Alive | Verdict::Unknown => {
                    self.unsure = false;
                    self.stay(seen)
                }
            },
            (Phase::Recheck(seen), Answer::Word(found)) if found.owner() == seen.owner() => {
                self.stop(Outcome::Absent(seen))
            }
            (Phase::SeeStay(seen), Answer::Stay(Some(end))) => Phase::Stay(seen, end),
            (Phase::SeeStay(seen), Answer::Stay(None)) => {
                Choice::of(seen, Predecessor::Died).begin()
            }
            (Phase::Stay(seen, end), Answer::Word(found)) if found == seen => {
                self.look(seen.staying(Predecessor::Died, end))
            }
            (Phase::SeeOver(seen, _), Answer::Yes(false)) => self.stay(seen),
            (Phase::SeeOver(seen, _), Answer::Yes(true)) => Choice::of(seen, seen.left()).begin(),

            (Phase::Scan(choice, scan), Answer::Read(read)) => match scan.heard(read) {
                Ok(scan) => Phase::Scan(choice, scan),
                Err(oldest) => self.choose(choice, oldest),
            },
            (Phase::Stamp(choice, wait), Answer::Done) => Phase::Appoint(choice, wait),
            (Phase::Appoint(choice, wait), Answer::Word(found)) if found == choice.seen => {
                match Some(wait) == self.record {
                    true => Phase::Park,
                    false => Phase::WakeWait(wait),
                }
            }
            // It may be gone, or its process may be dead: so it looks again.
            (Phase::WakeWait(_), Answer::Yes(_)) => {
                self.unsure = true;
                self.look_again()
            }
            (Phase::Free(choice), Answer::Word(found)) if found == choice.seen => Phase::PassWake,

            (Phase::SeeHunger(seen), Answer::Yes(hungry)) => {
                self.hungry = hungry;
                if hungry { self.stay(seen) } else { self.settle(seen) }
            }
            (Phase::Enlist(_), Answer::Wait(Some(wait))) => Phase::FillIn(wait),
            // It waits on without a place, and tries again at each look.
            (Phase::Enlist(seen), Answer::Wait(None)) => self.settle(seen),
            (Phase::FillIn(wait), Answer::Done) => {
                Phase::Publish(wait, RecordWord::enlisted(self.me, wait))
            }
            (Phase::Publish(wait, before), Answer::Record(found)) => {
                self.record = (found == before).then_some(wait);
                // The word may have been released before the record stood.
                Phase::Look
            }
            (Phase::Mark(seen), Answer::Word(found)) if found == seen => {
                Phase::Sleep(self.marked(seen))
            }
            (Phase::Sleep(_), Answer::Slept(slept)) => {
                self.slept |= slept != Slept::Changed;
                self.unsure |= slept == Slept::ByItself;
                match slept {
                    Slept::GiveUp => self.end(End::Stop(Outcome::GaveUp)),
                    Slept::Woken | Slept::Changed | Slept::ByItself => self.look_again(),
                }
            }

            (Phase::PassWake, Answer::Yes(_)) => Phase::Park,
            (Phase::Park, Answer::Polled) => {
                (self.by_proxy, self.slept, self.unsure) = (false, true, true);
                self.look_again()
            }
            (Phase::Park, Answer::Slept(Slept::GiveUp)) => self.end(End::Stop(Outcome::GaveUp)),

            (Phase::Erase(end), Answer::Done) => {
                let wait = self.record.take().expect("it was erased");
                match end {
                    End::Won(_) => self.end(end),
                    End::Stop(outcome) => Phase::FindReservation(wait, outcome),
                }
            }
            (Phase::FindReservation(wait, outcome), Answer::Word(found)) => {
                match found.reserved_for() == Some(wait) {
                    true => Phase::GiveOn(HandOver::other(found, found.left()), outcome),
                    false => Phase::WakeAnother(outcome),
                }
            }
            (Phase::GiveOn(mut hand_over, outcome), answer) => match hand_over.heard(answer) {
                None => Phase::GiveOn(hand_over, outcome),
                Some(_) => Phase::WakeAnother(outcome),
            },
            (Phase::WakeAnother(outcome), Answer::Yes(_)) => Phase::Ended(outcome),

            // Another changed the word before we could.
            (
                Phase::Grab(_)
                | Phase::Claim(_)
                | Phase::Recheck(_)
                | Phase::Stay(..)
                | Phase::Seize(_)
                | Phase::Appoint(..)
                | Phase::Free(_)
                | Phase::Mark(_),
                Answer::Word(found),
            ) => self.look(found),
            (phase, answer) => unreachable!("{answer:?} is no answer in {phase:?}"),
        }
    }
}
