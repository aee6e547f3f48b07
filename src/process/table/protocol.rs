//! The lock's protocol: what to do next to a slot, given what was seen. It touches no memory,
//! reads no clock and never sleeps: `lock` does what the machines here ask for, one operation at
//! a time, and tells them what came of it. So does the model, in every order.
//!
//! A machine's operation is one atomic step for everybody else, and its process may die or be
//! stopped before and after each.

use crate::error::Predecessor;

use super::word::{Heir, OwnerId, State, Word};

/// How often to pause, twice as long each time, before sleeping.
pub(super) const SPINS: u8 = 3;
/// About a microsecond: whoever looks sooner takes the word's line from a holder that has hardly
/// had it, and the two of them are busy with that.
const FIRST_PAUSE: u32 = 64;

/// What a machine asks for, and which [`Answer`] it expects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    /// `Word`: the slot's word.
    Load,
    /// Compare-and-swap of the word. `Word`: what was found, `from` if it was done.
    Swap { from: Word, to: Word },
    /// `Heir`: the heir's place.
    LoadHeir,
    /// Compare-and-swap of the heir's place, from empty to this process. `Heir`: what was found.
    Stand(OwnerId),
    /// Compare-and-swap of the heir's place, to empty. `Heir`: what was found.
    Unseat { from: Heir },
    /// Write down when the reservation began. `Done`.
    Stamp,
    /// `Yes`: is the reservation so old, or so far in the future, that it binds nobody?
    HasLapsed,
    /// `Yes`: has this taker waited for so long that it may ask for a reservation?
    IsHungry,
    /// `Verdict` on the owner of a word.
    Judge(OwnerId),
    /// Leave the memory alone for as many pauses. `Done`.
    Pause(u32),
    /// Sleep while the word's low half is `seen`'s. `Slept`.
    Sleep { seen: Word, place: Place },
    /// Wake one sleeper. `Yes`: was there one?
    Wake(Whom),
    /// There is nothing left to do.
    End(Outcome),
}

/// What came of an [`Op`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    Word(Word),
    Heir(Heir),
    Yes(bool),
    Verdict(Verdict),
    Slept(Slept),
    Done,
}

/// Whether the owner of a word is alive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Alive,
    /// Proved, and the table is still the one that is mapped.
    Dead,
    /// There is no presence of this id. An owner has one, so either the word has changed by now
    /// or the directory is damaged.
    Missing,
    /// It could not be found out; whoever judged reports why. Treated as alive.
    Unknown,
}

/// How a sleep ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Slept {
    /// Somebody woke it.
    Woken,
    /// It never slept: the word had changed.
    Changed,
    /// By itself, or by a signal.
    ByItself,
    /// There was or is to be no sleep: the taker gives up (its time is over, it was cancelled,
    /// the name has moved). It may have been woken all the same.
    GiveUp,
}

/// As whom a taker sleeps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Place {
    /// First in line: woken when the lock is let go for it.
    Heir,
    /// Somebody else is first in line and the lock will be let go for it.
    BehindHeir,
    Crowd,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Whom {
    /// Who sleeps as [`Place::Heir`], or whoever sleeps in a way that cannot tell.
    Heir,
    Anyone,
}

/// What a machine ends with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Outcome {
    /// The lock is this process's. The one before it left so.
    Won(Predecessor),
    /// Somebody alive holds it, or it is reserved for another.
    WouldBlock,
    GaveUp,
    /// Let go in good order.
    LetGo,
    /// The word bears the widened mark.
    Widened,
    /// The word bears this process's other id.
    Renamed,
    /// The word was not this process's any more.
    Lost,
    /// A sweeper freed the word.
    Buried,
    /// A sweeper found nobody dead.
    Nothing,
    /// The process that was forgetting the name died. To be settled under the structural lock.
    Unsettled(Word),
    /// The owner of this word has no presence.
    Absent(Word),
    /// The word says that this process owns it, which it does not.
    OurOwn,
    /// No lock ever wrote this word.
    Nonsense(Word),
}

/// A protocol being followed by one process on one slot.
pub(super) trait Machine {
    /// What is to be done now.
    fn op(&self) -> Op;

    /// What came of it.
    fn heard(&mut self, answer: Answer);

    /// Where it stands.
    #[cfg(test)]
    fn step(&self) -> super::step::Step;
}

// ---- taking --------------------------------------------------------------------------------

/// Takes a lock, waiting for it or not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Taking {
    me: OwnerId,
    phase: TakingPhase,
    waits: bool,
    spins_left: u8,
    /// It slept, so that others may sleep of whom the word knows nothing.
    slept: bool,
    /// It was woken, by a wake that may have been meant for somebody else.
    woken: bool,
    /// It waited for so long that it may ask for a reservation.
    hungry: bool,
    /// It does not know whether the owner is alive.
    unsure: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum TakingPhase {
    Quiet,
    Look,
    Pause,
    /// The word was free.
    Grab(Word),
    /// It was reserved: for whom?
    SeeHeir(Word),
    SeeLapse(Word, Heir),
    Claim(Word, Heir),
    /// It is reserved for another, whose wake this may have been.
    PassOn(Word),
    /// It was owned: by the living?
    Judge(Word),
    /// Its owner has no presence: is it still its owner?
    Recheck(Word),
    Recover(Word),
    /// Its owner lives.
    SeeHunger(Word),
    SeeSeat(Word),
    Stand,
    /// Nobody may sleep on a word that does not say so.
    Mark(Word, Place),
    Sleep(Word, Place),
    /// It is over; whoever was hungry may stand in the heir's place.
    FindSeat(End),
    LeaveSeat(Heir, End),
    /// An heir gave up.
    FindReservation,
    ClearReservation(Word),
    WakeAnother,
    Ended(Outcome),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum End {
    Won(Predecessor),
    GiveUp,
}

impl Taking {
    /// Begins with the quiet path.
    pub(super) fn new(me: OwnerId, waits: bool, spins: u8) -> Taking {
        Taking {
            me,
            phase: TakingPhase::Quiet,
            waits,
            spins_left: if waits { spins } else { 0 },
            slept: false,
            woken: false,
            hungry: false,
            unsure: true,
        }
    }

    /// The quiet path: what it swaps for what.
    #[inline]
    pub(super) const fn quiet(me: OwnerId) -> (Word, Word) {
        (Word::FREE, Word::held(me))
    }

    pub(super) fn me(&self) -> OwnerId {
        self.me
    }

    /// What to do about a word that was seen just now.
    fn look(&self, seen: Word) -> TakingPhase {
        match seen.state() {
            None => TakingPhase::Ended(Outcome::Nonsense(seen)),
            Some(State::Free) => TakingPhase::Grab(seen),
            Some(State::Reserved) => TakingPhase::SeeHeir(seen),
            // Another thread of this process may be forgetting the name.
            Some(State::Held(owner)) if owner == self.me => TakingPhase::Ended(Outcome::OurOwn),
            Some(_) if self.spins_left > 0 => TakingPhase::Pause,
            Some(_) if self.unsure => TakingPhase::Judge(seen),
            Some(_) => self.stay(seen),
        }
    }

    /// What to do while the owner of `seen` lives.
    fn stay(&self, seen: Word) -> TakingPhase {
        if !self.waits {
            TakingPhase::Ended(Outcome::WouldBlock)
        } else if self.hungry {
            self.stay_hungry(seen)
        } else {
            TakingPhase::SeeHunger(seen)
        }
    }

    fn stay_hungry(&self, seen: Word) -> TakingPhase {
        match seen.state() {
            // It is let go at once, and for nobody.
            Some(State::Retiring(_)) => self.settle(seen, Place::Crowd),
            _ => TakingPhase::SeeSeat(seen),
        }
    }

    /// Goes to sleep at `place`, once the word says what it must.
    fn settle(&self, seen: Word, place: Place) -> TakingPhase {
        if Taking::marked(seen, place) == seen {
            TakingPhase::Sleep(seen, place)
        } else {
            TakingPhase::Mark(seen, place)
        }
    }

    fn marked(seen: Word, place: Place) -> Word {
        match place {
            Place::Crowd => seen.waited_for(),
            Place::Heir | Place::BehindHeir => seen.hungered_for(),
        }
    }

    /// What to do about a word that is reserved for another.
    fn stay_behind(&self, seen: Word) -> TakingPhase {
        if !self.waits {
            TakingPhase::Ended(Outcome::WouldBlock)
        } else if self.spins_left > 0 {
            TakingPhase::Pause
        } else if self.woken {
            TakingPhase::PassOn(seen)
        } else {
            TakingPhase::Sleep(seen, Place::Crowd)
        }
    }

    /// The lock is ours; `heir` is whom its reservation was for.
    fn won(&self, left: Predecessor, heir: Heir) -> TakingPhase {
        let end = End::Won(left);
        match heir {
            Heir::NONE if self.hungry => TakingPhase::FindSeat(end),
            Heir::NONE => Taking::end(end),
            heir => TakingPhase::LeaveSeat(heir, end),
        }
    }

    fn end(end: End) -> TakingPhase {
        match end {
            End::Won(left) => TakingPhase::Ended(Outcome::Won(left)),
            // It may have had the wake of another.
            End::GiveUp => TakingPhase::WakeAnother,
        }
    }
}

impl Machine for Taking {
    fn op(&self) -> Op {
        match self.phase {
            TakingPhase::Quiet => {
                let (from, to) = Taking::quiet(self.me);
                Op::Swap { from, to }
            }
            TakingPhase::Look | TakingPhase::Recheck(_) | TakingPhase::FindReservation => Op::Load,
            TakingPhase::Pause => Op::Pause(FIRST_PAUSE << (SPINS - self.spins_left.min(SPINS))),
            TakingPhase::Grab(seen) | TakingPhase::Claim(seen, _) => {
                Op::Swap { from: seen, to: seen.taken(self.me, self.slept) }
            }
            TakingPhase::SeeHeir(_) | TakingPhase::SeeSeat(_) | TakingPhase::FindSeat(_) => {
                Op::LoadHeir
            }
            TakingPhase::SeeLapse(..) => Op::HasLapsed,
            TakingPhase::PassOn(_) => Op::Wake(Whom::Heir),
            TakingPhase::Judge(seen) => {
                Op::Judge(seen.owner().expect("only an owned word is judged"))
            }
            TakingPhase::Recover(seen) => Op::Swap { from: seen, to: seen.recovered(self.me) },
            TakingPhase::SeeHunger(_) => Op::IsHungry,
            TakingPhase::Stand => Op::Stand(self.me),
            TakingPhase::Mark(seen, place) => {
                Op::Swap { from: seen, to: Taking::marked(seen, place) }
            }
            TakingPhase::Sleep(seen, place) => Op::Sleep { seen, place },
            TakingPhase::LeaveSeat(heir, _) => Op::Unseat { from: heir },
            TakingPhase::ClearReservation(seen) => Op::Swap { from: seen, to: seen.given_up() },
            TakingPhase::WakeAnother => Op::Wake(Whom::Anyone),
            TakingPhase::Ended(outcome) => Op::End(outcome),
        }
    }

    fn heard(&mut self, answer: Answer) {
        self.phase = match (self.phase, answer) {
            (TakingPhase::Quiet, Answer::Word(Word::FREE)) => {
                self.won(Word::FREE.left(), Heir::NONE)
            }
            (TakingPhase::Quiet | TakingPhase::Look, Answer::Word(found)) => self.look(found),
            (TakingPhase::Pause, Answer::Done) => {
                self.spins_left -= 1;
                TakingPhase::Look
            }
            (TakingPhase::Grab(seen), Answer::Word(found)) if found == seen => {
                self.won(seen.left(), Heir::NONE)
            }
            (TakingPhase::SeeHeir(seen), Answer::Heir(heir)) => match heir.id() {
                None => TakingPhase::Claim(seen, heir),
                Some(id) if id == self.me => TakingPhase::Claim(seen, heir),
                Some(_) => TakingPhase::SeeLapse(seen, heir),
            },
            (TakingPhase::SeeLapse(seen, heir), Answer::Yes(true)) => {
                TakingPhase::Claim(seen, heir)
            }
            (TakingPhase::SeeLapse(seen, _), Answer::Yes(false)) => self.stay_behind(seen),
            (TakingPhase::Claim(seen, heir), Answer::Word(found)) if found == seen => {
                self.won(seen.left(), heir)
            }
            (TakingPhase::PassOn(seen), Answer::Yes(_)) => {
                self.woken = false;
                TakingPhase::Sleep(seen, Place::Crowd)
            }
            (TakingPhase::Judge(seen), Answer::Verdict(verdict)) => match verdict {
                Verdict::Dead if matches!(seen.state(), Some(State::Held(_))) => {
                    TakingPhase::Recover(seen)
                }
                Verdict::Dead => TakingPhase::Ended(Outcome::Unsettled(seen)),
                Verdict::Missing => TakingPhase::Recheck(seen),
                Verdict::Alive | Verdict::Unknown => {
                    self.unsure = false;
                    self.stay(seen)
                }
            },
            (TakingPhase::Recheck(seen), Answer::Word(found)) if found.owner() == seen.owner() => {
                TakingPhase::Ended(Outcome::Absent(seen))
            }
            (TakingPhase::Recover(seen), Answer::Word(found)) if found == seen => {
                self.won(Predecessor::Died, Heir::NONE)
            }
            (TakingPhase::SeeHunger(seen), Answer::Yes(hungry)) => {
                self.hungry = hungry;
                if hungry { self.stay_hungry(seen) } else { self.settle(seen, Place::Crowd) }
            }
            (TakingPhase::SeeSeat(seen), Answer::Heir(heir)) => match heir.id() {
                None => TakingPhase::Stand,
                Some(id) if id == self.me => self.settle(seen, Place::Heir),
                Some(_) => self.settle(seen, Place::BehindHeir),
            },
            // Who has become heir looks again: the lock may have been let go before it stood.
            (TakingPhase::Stand, Answer::Heir(_)) => TakingPhase::Look,
            (TakingPhase::Mark(seen, place), Answer::Word(found)) if found == seen => {
                TakingPhase::Sleep(Taking::marked(seen, place), place)
            }
            (TakingPhase::Sleep(..), Answer::Slept(slept)) => {
                self.slept |= slept != Slept::Changed;
                self.woken = slept == Slept::Woken;
                self.unsure |= slept == Slept::ByItself;
                match slept {
                    Slept::GiveUp if self.hungry => TakingPhase::FindSeat(End::GiveUp),
                    Slept::GiveUp => Taking::end(End::GiveUp),
                    Slept::Woken | Slept::Changed | Slept::ByItself => TakingPhase::Look,
                }
            }
            (TakingPhase::FindSeat(end), Answer::Heir(heir)) if heir.id() == Some(self.me) => {
                TakingPhase::LeaveSeat(heir, end)
            }
            (TakingPhase::FindSeat(end), Answer::Heir(_)) => Taking::end(end),
            (TakingPhase::LeaveSeat(_, End::GiveUp), Answer::Heir(_)) => {
                TakingPhase::FindReservation
            }
            (TakingPhase::LeaveSeat(_, end), Answer::Heir(_)) => Taking::end(end),
            (TakingPhase::FindReservation, Answer::Word(found)) => match found.state() {
                Some(State::Reserved) => TakingPhase::ClearReservation(found),
                _ => TakingPhase::WakeAnother,
            },
            (TakingPhase::ClearReservation(_), Answer::Word(_)) => TakingPhase::WakeAnother,
            (TakingPhase::WakeAnother, Answer::Yes(_)) => TakingPhase::Ended(Outcome::GaveUp),
            // Somebody else changed the word before we could.
            (
                TakingPhase::Grab(_)
                | TakingPhase::Claim(..)
                | TakingPhase::Recheck(_)
                | TakingPhase::Recover(_)
                | TakingPhase::Mark(..),
                Answer::Word(found),
            ) => self.look(found),
            (phase, answer) => unreachable!("{answer:?} is no answer in {phase:?}"),
        };
    }

    #[cfg(test)]
    fn step(&self) -> super::step::Step {
        use super::step::Step;
        match self.phase {
            TakingPhase::Quiet => Step::TakeQuiet,
            TakingPhase::Look => Step::TakeLook,
            TakingPhase::Pause => Step::TakePause,
            TakingPhase::Grab(_) => Step::TakeGrab,
            TakingPhase::SeeHeir(_) => Step::TakeSeeHeir,
            TakingPhase::SeeLapse(..) => Step::TakeSeeLapse,
            TakingPhase::Claim(..) => Step::TakeClaim,
            TakingPhase::PassOn(_) => Step::TakePassOn,
            TakingPhase::Judge(_) => Step::TakeJudge,
            TakingPhase::Recheck(_) => Step::TakeRecheck,
            TakingPhase::Recover(_) => Step::TakeRecover,
            TakingPhase::SeeHunger(_) => Step::TakeSeeHunger,
            TakingPhase::SeeSeat(_) => Step::TakeSeeSeat,
            TakingPhase::Stand => Step::TakeStand,
            TakingPhase::Mark(..) => Step::TakeMark,
            TakingPhase::Sleep(..) => Step::TakeSleep,
            TakingPhase::FindSeat(_) => Step::TakeFindSeat,
            TakingPhase::LeaveSeat(..) => Step::TakeLeaveSeat,
            TakingPhase::FindReservation => Step::TakeFindReservation,
            TakingPhase::ClearReservation(_) => Step::TakeClearReservation,
            TakingPhase::WakeAnother => Step::TakeWakeAnother,
            TakingPhase::Ended(_) => Step::TakeEnd,
        }
    }
}

// ---- letting go ----------------------------------------------------------------------------

/// Lets go of a word that is this process's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Leaving {
    me: OwnerId,
    how: Predecessor,
    phase: LeavingPhase,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum LeavingPhase {
    /// One expects the word to be this.
    Quiet(Word),
    /// An heir stands: first say when it was let go for.
    Stamp(Word),
    LetGo(Word),
    /// Reserved: for whom?
    SeeHeir(Word),
    /// For nobody: the heir had gone before.
    ClearReservation(Word),
    WakeHeir,
    WakeAnyone,
    Ended(Outcome),
}

impl Leaving {
    /// Lets go of a held word; the next owner is told `how`.
    pub(super) const fn held(me: OwnerId, how: Predecessor) -> Leaving {
        Leaving { me, how, phase: LeavingPhase::Quiet(Word::held(me)) }
    }

    /// Lets go of a word whose name is forgotten.
    pub(super) const fn retiring(me: OwnerId) -> Leaving {
        let phase = LeavingPhase::Quiet(Word::retiring(me));
        Leaving { me, how: Predecessor::Clean, phase }
    }

    /// The quiet path: what it swaps for what.
    #[inline]
    pub(super) const fn quiet(me: OwnerId, how: Predecessor, seen: Word) -> (Word, Word) {
        (Word::held(me).as_wide_as(seen), Word::left_so(how).as_wide_as(seen))
    }

    fn look(&self, found: Word) -> LeavingPhase {
        if found.owner() != Some(self.me) {
            LeavingPhase::Ended(Outcome::Lost)
        } else if found.is_hungry() {
            LeavingPhase::Stamp(found)
        } else {
            LeavingPhase::LetGo(found)
        }
    }

    fn let_go(&self, from: Word) -> LeavingPhase {
        if from.is_hungry() {
            LeavingPhase::SeeHeir(from.let_go(self.how))
        } else if from.has_waiters() {
            LeavingPhase::WakeAnyone
        } else {
            LeavingPhase::Ended(Outcome::LetGo)
        }
    }
}

impl Machine for Leaving {
    fn op(&self) -> Op {
        match self.phase {
            LeavingPhase::Quiet(seen) | LeavingPhase::LetGo(seen) => {
                Op::Swap { from: seen, to: seen.let_go(self.how) }
            }
            LeavingPhase::Stamp(_) => Op::Stamp,
            LeavingPhase::SeeHeir(_) => Op::LoadHeir,
            LeavingPhase::ClearReservation(seen) => Op::Swap { from: seen, to: seen.given_up() },
            LeavingPhase::WakeHeir => Op::Wake(Whom::Heir),
            LeavingPhase::WakeAnyone => Op::Wake(Whom::Anyone),
            LeavingPhase::Ended(outcome) => Op::End(outcome),
        }
    }

    fn heard(&mut self, answer: Answer) {
        self.phase = match (self.phase, answer) {
            (LeavingPhase::Quiet(seen) | LeavingPhase::LetGo(seen), Answer::Word(found)) => {
                if found == seen { self.let_go(seen) } else { self.look(found) }
            }
            (LeavingPhase::Stamp(seen), Answer::Done) => LeavingPhase::LetGo(seen),
            (LeavingPhase::SeeHeir(seen), Answer::Heir(Heir::NONE)) => {
                LeavingPhase::ClearReservation(seen)
            }
            (LeavingPhase::SeeHeir(_), Answer::Heir(_)) => LeavingPhase::WakeHeir,
            // Whoever is about to sleep behind an heir that it saw before finds the word changed.
            (LeavingPhase::ClearReservation(_), Answer::Word(_)) => LeavingPhase::WakeAnyone,
            (LeavingPhase::WakeHeir, Answer::Yes(false)) => LeavingPhase::WakeAnyone,
            (LeavingPhase::WakeHeir | LeavingPhase::WakeAnyone, Answer::Yes(_)) => {
                LeavingPhase::Ended(Outcome::LetGo)
            }
            (phase, answer) => unreachable!("{answer:?} is no answer in {phase:?}"),
        };
    }

    #[cfg(test)]
    fn step(&self) -> super::step::Step {
        use super::step::Step;
        match self.phase {
            LeavingPhase::Quiet(_) => Step::LeaveQuiet,
            LeavingPhase::Stamp(_) => Step::LeaveStamp,
            LeavingPhase::LetGo(_) => Step::LeaveLetGo,
            LeavingPhase::SeeHeir(_) => Step::LeaveSeeHeir,
            LeavingPhase::ClearReservation(_) => Step::LeaveClearReservation,
            LeavingPhase::WakeHeir => Step::LeaveWakeHeir,
            LeavingPhase::WakeAnyone => Step::LeaveWakeOne,
            LeavingPhase::Ended(_) => Step::LeaveEnd,
        }
    }
}

/// Marks a word that is this process's as locked at host scope.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Widening {
    me: OwnerId,
    seen: Word,
    end: Option<Outcome>,
}

impl Widening {
    pub(super) const fn new(me: OwnerId) -> Widening {
        Widening { me, seen: Word::held(me), end: None }
    }
}

impl Machine for Widening {
    fn op(&self) -> Op {
        match self.end {
            None => Op::Swap { from: self.seen, to: self.seen.widened() },
            Some(outcome) => Op::End(outcome),
        }
    }

    fn heard(&mut self, answer: Answer) {
        match answer {
            Answer::Word(found) if found == self.seen => self.end = Some(Outcome::Widened),
            Answer::Word(found) if found.owner() == Some(self.me) => self.seen = found,
            Answer::Word(_) => self.end = Some(Outcome::Lost),
            answer => unreachable!("{answer:?} is no answer to a swap"),
        }
    }

    #[cfg(test)]
    fn step(&self) -> super::step::Step {
        super::step::Step::WidenMark
    }
}

/// Goes on holding a word that is this process's, under another id of this process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Renaming {
    from: OwnerId,
    to: OwnerId,
    seen: Word,
    end: Option<Outcome>,
}

impl Renaming {
    /// `to` proves that this process lives, as `from` does.
    pub(super) const fn new(from: OwnerId, to: OwnerId) -> Renaming {
        Renaming { from, to, seen: Word::held(from), end: None }
    }
}

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

// ---- burying -------------------------------------------------------------------------------

/// Frees the word of an owner who is dead, without taking it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Burying(BuryingPhase);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum BuryingPhase {
    Look,
    Judge(Word),
    Recheck(Word),
    Free(Word, Predecessor),
    Wake,
    Ended(Outcome),
}

impl Burying {
    /// Looks who owns the word, and whether it lives.
    pub(super) const fn sweeping() -> Burying {
        Burying(BuryingPhase::Look)
    }

    /// `judged` is a word whose owner is dead, of a name that is forgotten by now.
    pub(super) const fn settling(judged: Word) -> Burying {
        Burying(BuryingPhase::Free(judged, Predecessor::Clean))
    }
}

impl Machine for Burying {
    fn op(&self) -> Op {
        match self.0 {
            BuryingPhase::Look | BuryingPhase::Recheck(_) => Op::Load,
            BuryingPhase::Judge(seen) => {
                Op::Judge(seen.owner().expect("only an owned word is judged"))
            }
            BuryingPhase::Free(seen, how) => Op::Swap { from: seen, to: seen.buried(how) },
            BuryingPhase::Wake => Op::Wake(Whom::Anyone),
            BuryingPhase::Ended(outcome) => Op::End(outcome),
        }
    }

    fn heard(&mut self, answer: Answer) {
        let ended = BuryingPhase::Ended;
        self.0 = match (self.0, answer) {
            (BuryingPhase::Look, Answer::Word(found)) => match found.state() {
                None => ended(Outcome::Nonsense(found)),
                Some(_) if found.owner().is_some() => BuryingPhase::Judge(found),
                Some(_) => ended(Outcome::Nothing),
            },
            (BuryingPhase::Judge(seen), Answer::Verdict(verdict)) => {
                match (verdict, seen.state()) {
                    (Verdict::Dead, Some(State::Held(_))) => {
                        BuryingPhase::Free(seen, Predecessor::Died)
                    }
                    (Verdict::Dead, _) => ended(Outcome::Unsettled(seen)),
                    (Verdict::Missing, _) => BuryingPhase::Recheck(seen),
                    (Verdict::Alive | Verdict::Unknown, _) => ended(Outcome::Nothing),
                }
            }
            (BuryingPhase::Recheck(seen), Answer::Word(found)) => {
                let absent = found.owner() == seen.owner();
                ended(if absent { Outcome::Absent(seen) } else { Outcome::Nothing })
            }
            (BuryingPhase::Free(seen, _), Answer::Word(found)) if found == seen => {
                BuryingPhase::Wake
            }
            (BuryingPhase::Free(..), Answer::Word(_)) => ended(Outcome::Nothing),
            (BuryingPhase::Wake, Answer::Yes(_)) => ended(Outcome::Buried),
            (phase, answer) => unreachable!("{answer:?} is no answer in {phase:?}"),
        };
    }

    #[cfg(test)]
    fn step(&self) -> super::step::Step {
        use super::step::Step;
        match self.0 {
            BuryingPhase::Look | BuryingPhase::Recheck(_) => Step::BuryLook,
            BuryingPhase::Judge(_) => Step::BuryJudge,
            BuryingPhase::Free(..) => Step::BuryFree,
            BuryingPhase::Wake => Step::BuryWake,
            BuryingPhase::Ended(_) => Step::BuryEnd,
        }
    }
}
