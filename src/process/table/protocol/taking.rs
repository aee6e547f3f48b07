//! Taking a word: trying, waiting, claiming a reservation, passing over another, recovering after
//! a death, giving up.

use crate::error::Predecessor;

#[cfg(test)]
use super::super::step::Step;
use super::{
    Answer, HandOver, Machine, Op, Outcome, OwnerId, RecordScan, RecordWord, Slept, SlotState,
    StayEnd, ToWake, Verdict, WaitId, Word,
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
    phase: TakePhase,
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
enum TakePhase {
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
            phase: TakePhase::Quiet,
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
    fn look(&self, seen: Word) -> TakePhase {
        match seen.state() {
            None => self.stop(Outcome::Nonsense(seen)),
            Some(SlotState::Free) if !self.by_proxy => TakePhase::Grab(seen),
            Some(SlotState::Free) => self.appoint_itself(Choice::of(seen, seen.left())),
            Some(SlotState::Reserved(wait)) if Some(wait) == self.record => match self.by_proxy {
                true => TakePhase::Park,
                false => TakePhase::Claim(seen),
            },
            Some(_) if self.pauses() => TakePhase::Pause,
            Some(SlotState::Reserved(wait)) => TakePhase::SeeRecord(seen, wait),
            Some(SlotState::Staying(end)) => TakePhase::SeeOver(seen, end),
            // Another thread of this process holds it.
            Some(SlotState::Held(owner) | SlotState::Retiring(owner)) if owner == self.me => {
                self.stay(seen)
            }
            Some(SlotState::Held(_) | SlotState::Retiring(_)) if self.unsure => {
                TakePhase::Judge(seen)
            }
            Some(SlotState::Held(_) | SlotState::Retiring(_)) => self.stay(seen),
        }
    }

    fn pauses(&self) -> bool {
        self.waits && self.spins_left > 0
    }

    /// What to do while the word is another's.
    fn stay(&self, seen: Word) -> TakePhase {
        if !self.waits {
            TakePhase::Ended(Outcome::WouldBlock)
        } else if !self.hungry {
            TakePhase::SeeHunger(seen)
        } else if self.record.is_none() {
            TakePhase::Enlist(seen)
        } else {
            self.settle(seen)
        }
    }

    /// Goes to sleep, once the word says what it must.
    fn settle(&self, seen: Word) -> TakePhase {
        if self.marked(seen) == seen { TakePhase::Sleep(seen) } else { TakePhase::Mark(seen) }
    }

    fn marked(&self, seen: Word) -> Word {
        match seen.state() {
            // It says so already.
            Some(SlotState::Reserved(_)) => seen,
            // It is released at once, and to no wait.
            Some(SlotState::Retiring(_)) => seen.waited_for(),
            _ if self.record.is_some() => seen.hungered_for(),
            _ => seen.waited_for(),
        }
    }

    /// The oldest wait that stands may have this word, or, if none does, this taker.
    fn choose(&self, choice: Choice, oldest: Option<WaitId>) -> TakePhase {
        match oldest {
            Some(wait) if Some(wait) != self.record => TakePhase::Stamp(choice, wait),
            _ if self.by_proxy => self.appoint_itself(choice),
            _ => TakePhase::Seize(choice),
        }
    }

    /// For a task the word is only reserved: its poll claims it.
    fn appoint_itself(&self, choice: Choice) -> TakePhase {
        match self.record {
            Some(wait) => TakePhase::Stamp(choice, wait),
            // It is free already, and the task is told so.
            None if choice.seen.state() == Some(SlotState::Free) => TakePhase::PassWake,
            None => TakePhase::Free(choice),
        }
    }

    /// Looks, first at its own record if it has one.
    fn look_again(&self) -> TakePhase {
        if self.record.is_some() { TakePhase::Refresh } else { TakePhase::Look }
    }

    fn end(&self, end: End) -> TakePhase {
        match end {
            _ if self.record.is_some() => TakePhase::Erase(end),
            End::Won(left) => TakePhase::Ended(Outcome::Won(left)),
            // It may have had the wake of another.
            End::Stop(outcome) => TakePhase::WakeAnother(outcome),
        }
    }

    /// Something is wrong with the word; a waiter does not leave its record behind.
    fn stop(&self, outcome: Outcome) -> TakePhase {
        match self.waits {
            true => self.end(End::Stop(outcome)),
            false => TakePhase::Ended(outcome),
        }
    }

    fn judged_waiter(
        &self,
        verdict: Verdict,
        seen: Word,
        wait: WaitId,
        record: RecordWord,
    ) -> TakePhase {
        match verdict {
            Verdict::Dead | Verdict::Missing => TakePhase::Pass(seen, wait, record),
            Verdict::Alive | Verdict::Unknown => TakePhase::SeeLate(seen, wait, record),
        }
    }
}

impl Choice {
    const fn of(seen: Word, left: Predecessor) -> Choice {
        Choice { seen, left }
    }

    /// To be decided by a scan.
    const fn begin(self) -> TakePhase {
        TakePhase::Scan(self, RecordScan::BEGIN)
    }
}

impl Machine for Taking {
    fn op(&self) -> Op {
        match self.phase {
            TakePhase::Quiet => {
                let (from, to) = Word::taken_quietly(self.me);
                Op::Swap { from, to }
            }
            TakePhase::Look | TakePhase::Recheck(_) | TakePhase::FindReservation(..) => Op::Load,
            TakePhase::Refresh => {
                Op::LoadRecord(self.record.expect("only a record is refreshed").number())
            }
            TakePhase::Return(from) => {
                let number = self.record.expect("only a record returns").number();
                Op::Return { number, from }
            }
            TakePhase::Pause => Op::Pause(FIRST_PAUSE << (SPINS - self.spins_left.min(SPINS))),
            TakePhase::Grab(seen) => {
                Op::Swap { from: seen, to: seen.taken(self.me, self.slept, self.record.is_some()) }
            }
            TakePhase::Claim(seen) | TakePhase::Seize(Choice { seen, .. }) => {
                Op::Swap { from: seen, to: seen.seized(self.me) }
            }
            TakePhase::SeeRecord(_, wait) => Op::LoadRecord(wait.number()),
            TakePhase::JudgeWaiter(_, _, record) => {
                Op::Judge(record.owner().expect("only a wait that stands is judged"))
            }
            TakePhase::SeeLate(_, wait, _) => Op::IsLate(wait),
            TakePhase::Pass(_, wait, from) => {
                Op::SwapRecord { number: wait.number(), from, to: from.passed() }
            }
            TakePhase::Judge(seen) => {
                Op::Judge(seen.owner().expect("only an owned word is judged"))
            }
            TakePhase::SeeStay(_) => Op::SeeStay,
            TakePhase::SeeOver(_, end) => Op::IsOver(end),
            TakePhase::Stay(seen, end) => {
                Op::Swap { from: seen, to: seen.staying(Predecessor::Died, end) }
            }
            TakePhase::Scan(_, scan) => scan.op(),
            TakePhase::Stamp(..) => Op::Stamp,
            TakePhase::Appoint(Choice { seen, left, .. }, wait) => {
                Op::Swap { from: seen, to: seen.appointed(wait, left) }
            }
            TakePhase::WakeWait(wait) => Op::Wake(ToWake::Wait(wait)),
            TakePhase::Free(Choice { seen, left, .. }) => {
                Op::Swap { from: seen, to: seen.freed(left) }
            }
            TakePhase::RaiseToken(_) => Op::RaiseToken,
            TakePhase::SeeHunger(_) => Op::IsHungry,
            TakePhase::Enlist(_) => Op::Enlist,
            TakePhase::FillIn(wait) => Op::FillIn(wait),
            TakePhase::Publish(wait, from) => {
                Op::SwapRecord { number: wait.number(), from, to: from.standing() }
            }
            TakePhase::Mark(seen) => Op::Swap { from: seen, to: self.marked(seen) },
            TakePhase::Sleep(seen) => Op::Sleep { seen, record: self.record },
            TakePhase::PassWake | TakePhase::WakeAnother(_) => Op::Wake(ToWake::One),
            TakePhase::Park => Op::Park,
            TakePhase::Erase(_) => Op::Erase(self.record.expect("only a record is erased")),
            TakePhase::GiveOn(hand_over, _) => hand_over.op(),
            TakePhase::Ended(outcome) => Op::End(outcome),
        }
    }

    fn heard(&mut self, answer: Answer) {
        self.phase = self.next(answer);
        if matches!(self.phase, TakePhase::Sleep(_)) {
            self.by_proxy = self.is_task;
        }
    }

    #[cfg(test)]
    fn step(&self) -> Step {
        match self.phase {
            TakePhase::Quiet => Step::TakeQuiet,
            TakePhase::Refresh => Step::TakeRefresh,
            TakePhase::Return(_) => Step::TakeReturn,
            TakePhase::Look => Step::TakeLook,
            TakePhase::Pause => Step::TakePause,
            TakePhase::Grab(_) => Step::TakeGrab,
            TakePhase::Claim(_) => Step::TakeClaim,
            TakePhase::SeeRecord(..) => Step::TakeSeeRecord,
            TakePhase::JudgeWaiter(..) => Step::TakeJudgeWaiter,
            TakePhase::SeeLate(..) => Step::TakeSeeLate,
            TakePhase::Pass(..) => Step::TakePass,
            TakePhase::Judge(_) => Step::TakeJudge,
            TakePhase::Recheck(_) => Step::TakeRecheck,
            TakePhase::SeeStay(_) => Step::TakeSeeStay,
            TakePhase::Stay(..) => Step::TakeStay,
            TakePhase::SeeOver(..) => Step::TakeSeeOver,
            TakePhase::Scan(..) => Step::TakeScan,
            TakePhase::Stamp(..) => Step::TakeStamp,
            TakePhase::Appoint(..) => Step::TakeAppoint,
            TakePhase::WakeWait(_) => Step::TakeWakeWait,
            TakePhase::Seize(_) => Step::TakeSeize,
            TakePhase::Free(_) => Step::TakeFree,
            TakePhase::RaiseToken(_) => Step::TakeRaiseToken,
            TakePhase::SeeHunger(_) => Step::TakeSeeHunger,
            TakePhase::Enlist(_) => Step::TakeEnlist,
            TakePhase::FillIn(_) => Step::TakeFillIn,
            TakePhase::Publish(..) => Step::TakePublish,
            TakePhase::Mark(_) => Step::TakeMark,
            TakePhase::Sleep(_) => Step::TakeSleep,
            TakePhase::PassWake => Step::TakePassWake,
            TakePhase::Park => Step::TakePark,
            TakePhase::Erase(_) => Step::TakeErase,
            TakePhase::FindReservation(..) => Step::TakeFindReservation,
            TakePhase::GiveOn(hand_over, _) => hand_over.step(),
            TakePhase::WakeAnother(_) => Step::TakeWakeAnother,
            TakePhase::Ended(_) => Step::TakeEnd,
        }
    }
}

impl Taking {
    fn next(&mut self, answer: Answer) -> TakePhase {
        match (self.phase, answer) {
            // Quiet: the caller raises the token, once it has compared the generation.
            (TakePhase::Quiet, Answer::Word(Word::FREE)) => self.end(End::Won(Predecessor::Clean)),
            (TakePhase::Quiet | TakePhase::Look, Answer::Word(found)) => self.look(found),
            (TakePhase::Pause, Answer::Done) => {
                self.spins_left -= 1;
                self.look_again()
            }

            (TakePhase::Refresh, Answer::Record(record)) => {
                match self.record.filter(|wait| record.is_of(*wait)) {
                    // Taken as a dead process's: this wait has none.
                    None => {
                        self.record = None;
                        TakePhase::Look
                    }
                    Some(_) if !record.is_passed() => TakePhase::Look,
                    // Only its poll lets a task take its place again: one that is never polled
                    // would make each release slow, for ever.
                    Some(_) if self.by_proxy => TakePhase::PassWake,
                    Some(_) => TakePhase::Return(record),
                }
            }
            (TakePhase::Return(before), Answer::Record(found)) if found == before => {
                let number = self.record.expect("only a record returns").number();
                self.record = before.returned().wait(number);
                TakePhase::Look
            }
            (TakePhase::Return(_), Answer::Record(_)) => TakePhase::Refresh,

            (
                TakePhase::Grab(seen)
                | TakePhase::Claim(seen)
                | TakePhase::Seize(Choice { seen, .. }),
                Answer::Word(found),
            ) if found == seen => match self.phase {
                TakePhase::Seize(choice) => TakePhase::RaiseToken(choice.left),
                _ => TakePhase::RaiseToken(seen.left()),
            },
            (TakePhase::RaiseToken(left), Answer::Done) => {
                #[cfg(test)]
                {
                    self.raised_token = true;
                }
                self.end(End::Won(left))
            }

            (TakePhase::SeeRecord(seen, wait), Answer::Record(record)) => match record.owner() {
                Some(_) if !record.is_of(wait) || record.is_passed() => {
                    Choice::of(seen, seen.left()).begin()
                }
                None => Choice::of(seen, seen.left()).begin(),
                Some(owner) if self.unsure && owner != self.me => {
                    TakePhase::JudgeWaiter(seen, wait, record)
                }
                Some(_) => TakePhase::SeeLate(seen, wait, record),
            },
            (TakePhase::JudgeWaiter(seen, wait, record), Answer::Verdict(verdict)) => {
                self.unsure = false;
                self.judged_waiter(verdict, seen, wait, record)
            }
            (TakePhase::SeeLate(seen, wait, record), Answer::Yes(true)) => {
                TakePhase::Pass(seen, wait, record)
            }
            (TakePhase::SeeLate(seen, ..), Answer::Yes(false)) => self.stay(seen),
            (TakePhase::Pass(seen, _, before), Answer::Record(found)) if found == before => {
                Choice::of(seen, seen.left()).begin()
            }
            (TakePhase::Pass(..), Answer::Record(_)) => self.look_again(),

            (TakePhase::Judge(seen), Answer::Verdict(verdict)) => match verdict {
                Verdict::Dead if matches!(seen.state(), Some(SlotState::Held(_))) => {
                    TakePhase::SeeStay(seen)
                }
                Verdict::Dead => self.stop(Outcome::Unsettled(seen)),
                Verdict::Missing => TakePhase::Recheck(seen),
                Verdict::Alive | Verdict::Unknown => {
                    self.unsure = false;
                    self.stay(seen)
                }
            },
            (TakePhase::Recheck(seen), Answer::Word(found)) if found.owner() == seen.owner() => {
                self.stop(Outcome::Absent(seen))
            }
            (TakePhase::SeeStay(seen), Answer::Stay(Some(end))) => TakePhase::Stay(seen, end),
            (TakePhase::SeeStay(seen), Answer::Stay(None)) => {
                Choice::of(seen, Predecessor::Died).begin()
            }
            (TakePhase::Stay(seen, end), Answer::Word(found)) if found == seen => {
                self.look(seen.staying(Predecessor::Died, end))
            }
            (TakePhase::SeeOver(seen, _), Answer::Yes(false)) => self.stay(seen),
            (TakePhase::SeeOver(seen, _), Answer::Yes(true)) => {
                Choice::of(seen, seen.left()).begin()
            }

            (TakePhase::Scan(choice, scan), Answer::Read(read)) => match scan.heard(read) {
                Ok(scan) => TakePhase::Scan(choice, scan),
                Err(oldest) => self.choose(choice, oldest),
            },
            (TakePhase::Stamp(choice, wait), Answer::Done) => TakePhase::Appoint(choice, wait),
            (TakePhase::Appoint(choice, wait), Answer::Word(found)) if found == choice.seen => {
                match Some(wait) == self.record {
                    true => TakePhase::Park,
                    false => TakePhase::WakeWait(wait),
                }
            }
            // It may be gone, or its process may be dead: so it looks again.
            (TakePhase::WakeWait(_), Answer::Yes(_)) => {
                self.unsure = true;
                self.look_again()
            }
            (TakePhase::Free(choice), Answer::Word(found)) if found == choice.seen => {
                TakePhase::PassWake
            }

            (TakePhase::SeeHunger(seen), Answer::Yes(hungry)) => {
                self.hungry = hungry;
                if hungry { self.stay(seen) } else { self.settle(seen) }
            }
            (TakePhase::Enlist(_), Answer::Wait(Some(wait))) => TakePhase::FillIn(wait),
            // It waits on without a place, and tries again at each look.
            (TakePhase::Enlist(seen), Answer::Wait(None)) => self.settle(seen),
            (TakePhase::FillIn(wait), Answer::Done) => {
                TakePhase::Publish(wait, RecordWord::enlisted(self.me, wait))
            }
            (TakePhase::Publish(wait, before), Answer::Record(found)) => {
                self.record = (found == before).then_some(wait);
                // The word may have been released before the record stood.
                TakePhase::Look
            }
            (TakePhase::Mark(seen), Answer::Word(found)) if found == seen => {
                TakePhase::Sleep(self.marked(seen))
            }
            (TakePhase::Sleep(_), Answer::Slept(slept)) => {
                self.slept |= slept != Slept::Changed;
                self.unsure |= slept == Slept::ByItself;
                match slept {
                    Slept::GiveUp => self.end(End::Stop(Outcome::GaveUp)),
                    Slept::Woken | Slept::Changed | Slept::ByItself => self.look_again(),
                }
            }

            (TakePhase::PassWake, Answer::Yes(_)) => TakePhase::Park,
            (TakePhase::Park, Answer::Polled) => {
                (self.by_proxy, self.slept, self.unsure) = (false, true, true);
                self.look_again()
            }
            (TakePhase::Park, Answer::Slept(Slept::GiveUp)) => self.end(End::Stop(Outcome::GaveUp)),

            (TakePhase::Erase(end), Answer::Done) => {
                let wait = self.record.take().expect("it was erased");
                match end {
                    End::Won(_) => self.end(end),
                    End::Stop(outcome) => TakePhase::FindReservation(wait, outcome),
                }
            }
            (TakePhase::FindReservation(wait, outcome), Answer::Word(found)) => {
                match found.reserved_for() == Some(wait) {
                    true => TakePhase::GiveOn(HandOver::other(found, found.left()), outcome),
                    false => TakePhase::WakeAnother(outcome),
                }
            }
            (TakePhase::GiveOn(mut hand_over, outcome), answer) => match hand_over.heard(answer) {
                None => TakePhase::GiveOn(hand_over, outcome),
                Some(_) => TakePhase::WakeAnother(outcome),
            },
            (TakePhase::WakeAnother(outcome), Answer::Yes(_)) => TakePhase::Ended(outcome),

            // Another changed the word before we could. A wait that was marked as passed over for an
            // exchange that then fails stays so, also where the word names it still: this look finds the
            // mark and passes it over at once, and the wait clears it itself, at its own next look. Taken
            // back here instead, the mark would race with that look, and be one more step to die after.
            (
                TakePhase::Grab(_)
                | TakePhase::Claim(_)
                | TakePhase::Recheck(_)
                | TakePhase::Stay(..)
                | TakePhase::Seize(_)
                | TakePhase::Appoint(..)
                | TakePhase::Free(_)
                | TakePhase::Mark(_),
                Answer::Word(found),
            ) => self.look(found),
            (phase, answer) => unreachable!("{answer:?} is no answer in {phase:?}"),
        }
    }
}
