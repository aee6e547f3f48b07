//! Sharing a word: readers come in beside each other, and a writer waits until they are gone; permits
//! are counted under the word, and a holder for which there is no room waits until there is.
//!
//! A reader adds 1 to its process's share record and *then* looks at the word. If the word lets no
//! reader in, it takes its 1 back, as an unlock does. A writer wins the word and *then* looks at the
//! counts: it reads the bell, sets WANTED in each record with a count, and sleeps on the bell. The
//! last reader of a record with WANTED rings. So a writer that has read the bell either sees a
//! reader gone or is woken by it.
//!
//! Permits are added by holders of the word alone, so that counts only fall while one looks at them.
//! It adds them up without a look at presences: that is an upper bound, and mostly enough. If not, it
//! strikes the dead, wants each permit's return, says so in the word, and sleeps.

#[cfg(test)]
use super::super::step::Step;
use super::{
    Answer, Machine, Marking, Op, Outcome, OwnerId, Predecessor, ShareAnswer, ShareOp, ShareWord,
    Slept, SlotMark, Verdict, Word,
};
use crate::mode::{Room, Share};

/// How a reader may come in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(in super::super) enum Way {
    /// Past the word, if it is free, or readable and no waiter has waited for long.
    Quiet,
    /// The same, also if a waiter has waited for long that is no writer.
    Beside,
    /// It holds the word.
    UnderTheWord,
}

/// Comes in as a reader, or leaves everything as it was.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(in super::super) struct Reading {
    me: OwnerId,
    /// This process's record.
    record: u32,
    way: Way,
    share: Share,
    phase: ReadingPhase,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum ReadingPhase {
    Load,
    Add(ShareWord),
    Look,
    TakeBack(Unsharing),
    Ended(Outcome),
}

impl Reading {
    pub(in super::super) const fn new(me: OwnerId, record: u32, way: Way) -> Reading {
        Reading { me, record, way, share: Share::Reader, phase: ReadingPhase::Load }
    }

    /// Counts permits, for the holder of the word.
    pub(in super::super) const fn permits(me: OwnerId, record: u32, count: u32) -> Reading {
        let share = Share::Permits(count);
        Reading { me, record, way: Way::UnderTheWord, share, phase: ReadingPhase::Load }
    }

    fn seen(&self, found: ShareWord) -> ReadingPhase {
        match found.added(self.share) {
            _ if !found.is_of(self.me) => ReadingPhase::Ended(Outcome::Lost),
            None => ReadingPhase::Ended(Outcome::TooMany),
            Some(_) => ReadingPhase::Add(found),
        }
    }

    fn looked(&self, found: Word) -> ReadingPhase {
        match found.admits_readers(self.way == Way::Beside) {
            true => ReadingPhase::Ended(Outcome::Won(found.left())),
            false => ReadingPhase::TakeBack(Unsharing::new(self.me, self.record, self.share)),
        }
    }
}

impl Machine for Reading {
    fn op(&self) -> Op {
        match self.phase {
            ReadingPhase::Load => Op::Share(ShareOp::Load(self.record)),
            ReadingPhase::Add(from) => {
                let to = from.added(self.share).expect("it was looked at");
                Op::Share(ShareOp::Swap { number: self.record, from, to })
            }
            ReadingPhase::Look => Op::Load,
            ReadingPhase::TakeBack(unsharing) => unsharing.op(),
            ReadingPhase::Ended(outcome) => Op::End(outcome),
        }
    }

    fn heard(&mut self, answer: Answer) {
        self.phase = match (self.phase, answer) {
            (ReadingPhase::Load, Answer::Share(ShareAnswer::Word(found))) => self.seen(found),
            (ReadingPhase::Add(before), Answer::Share(ShareAnswer::Word(found))) => {
                match (found == before, self.way) {
                    (true, Way::UnderTheWord) => {
                        ReadingPhase::Ended(Outcome::Won(Predecessor::Clean))
                    }
                    (true, _) => ReadingPhase::Look,
                    (false, _) => self.seen(found),
                }
            }
            (ReadingPhase::Load | ReadingPhase::Add(_), Answer::Share(ShareAnswer::Broken)) => {
                ReadingPhase::Ended(Outcome::Lost)
            }
            (ReadingPhase::Look, Answer::Word(found)) => self.looked(found),
            (ReadingPhase::TakeBack(mut unsharing), answer) => {
                unsharing.heard(answer);
                match unsharing.op() {
                    Op::End(Outcome::Released) => ReadingPhase::Ended(Outcome::WouldBlock),
                    Op::End(outcome) => ReadingPhase::Ended(outcome),
                    _ => ReadingPhase::TakeBack(unsharing),
                }
            }
            (phase, answer) => unreachable!("{answer:?} is no answer in {phase:?}"),
        };
    }

    #[cfg(test)]
    fn step(&self) -> Step {
        match self.phase {
            ReadingPhase::Load => Step::ReadLoad,
            ReadingPhase::Add(_) => Step::ReadAdd,
            ReadingPhase::Look => Step::ReadLook,
            ReadingPhase::TakeBack(unsharing) => unsharing.step(),
            ReadingPhase::Ended(_) => Step::ReadEnd,
        }
    }
}

/// Takes back what an entry counted that ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(in super::super) struct Unsharing {
    me: OwnerId,
    record: u32,
    share: Share,
    phase: UnsharingPhase,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum UnsharingPhase {
    Load,
    Subtract(ShareWord),
    Ring,
    WakeWriter,
    Ended(Outcome),
}

impl Unsharing {
    pub(in super::super) const fn new(me: OwnerId, record: u32, share: Share) -> Unsharing {
        Unsharing { me, record, share, phase: UnsharingPhase::Load }
    }

    fn seen(&self, found: ShareWord) -> UnsharingPhase {
        match found.subtracted(self.share) {
            Some(_) if found.is_of(self.me) => UnsharingPhase::Subtract(found),
            _ => UnsharingPhase::Ended(Outcome::Lost),
        }
    }
}

impl Machine for Unsharing {
    fn op(&self) -> Op {
        match self.phase {
            UnsharingPhase::Load => Op::Share(ShareOp::Load(self.record)),
            UnsharingPhase::Subtract(from) => {
                let to = from.subtracted(self.share).expect("it was looked at");
                Op::Share(ShareOp::Swap { number: self.record, from, to })
            }
            UnsharingPhase::Ring => Op::Share(ShareOp::Ring),
            UnsharingPhase::WakeWriter => Op::Share(ShareOp::WakeBell),
            UnsharingPhase::Ended(outcome) => Op::End(outcome),
        }
    }

    fn heard(&mut self, answer: Answer) {
        self.phase = match (self.phase, answer) {
            (UnsharingPhase::Load, Answer::Share(ShareAnswer::Word(found))) => self.seen(found),
            (UnsharingPhase::Subtract(before), Answer::Share(ShareAnswer::Word(found))) => {
                match (found == before, before.rings(self.share)) {
                    (true, true) => UnsharingPhase::Ring,
                    (true, false) => UnsharingPhase::Ended(Outcome::Released),
                    (false, _) => self.seen(found),
                }
            }
            (UnsharingPhase::Load | UnsharingPhase::Subtract(_), Answer::Share(_)) => {
                UnsharingPhase::Ended(Outcome::Lost)
            }
            (UnsharingPhase::Ring, Answer::Done) => UnsharingPhase::WakeWriter,
            (UnsharingPhase::WakeWriter, Answer::Done) => UnsharingPhase::Ended(Outcome::Released),
            (phase, answer) => unreachable!("{answer:?} is no answer in {phase:?}"),
        };
    }

    #[cfg(test)]
    fn step(&self) -> Step {
        match self.phase {
            UnsharingPhase::Load => Step::UnreadLoad,
            UnsharingPhase::Subtract(_) => Step::UnreadSubtract,
            UnsharingPhase::Ring => Step::UnreadRing,
            UnsharingPhase::WakeWriter => Step::UnreadWake,
            UnsharingPhase::Ended(_) => Step::UnreadEnd,
        }
    }
}

/// Waits, for the holder of a word, until there is room: until no reader is inside any more, or so
/// many permits are free.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(in super::super) struct Draining {
    me: OwnerId,
    room: Room,
    waits: bool,
    /// It only adds up, wants nothing and asks for no presence: permits, at first.
    only_counts: bool,
    /// It does not know whether the processes are alive that share.
    unsure: bool,
    /// The word says that its holder waits for permits.
    is_announced: bool,
    phase: DrainingPhase,
}

/// The bell, as it was read before the counts; how much the living were found to share.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Round {
    bell: u32,
    shared: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum DrainingPhase {
    Bell,
    /// What follows this record in the chain, or begins it?
    Next(Round, Option<u32>),
    Look(Round, u32),
    Judge(Round, u32, ShareWord),
    /// The process has no presence: does it still share?
    Recheck(Round, u32, ShareWord),
    Strike(Round, u32, ShareWord),
    Want(Round, u32, ShareWord),
    /// No try waits for a holder that sleeps.
    Announce(u32, Marking),
    Sleep(u32),
    Ended(Outcome),
}

impl Draining {
    /// One that does not wait looks at presences too, where there is no room without.
    pub(in super::super) const fn new(me: OwnerId, room: Room, waits: bool) -> Draining {
        let only_counts = room.is_for_permits();
        let unsure = !waits && !only_counts;
        let phase = DrainingPhase::Bell;
        Draining { me, room, waits, only_counts, unsure, is_announced: false, phase }
    }

    fn seen(&self, round: Round, number: u32, found: ShareWord) -> DrainingPhase {
        match found.owner() {
            _ if found.count() == 0 => DrainingPhase::Next(round, Some(number)),
            None => DrainingPhase::Ended(Outcome::ShareNonsense(found)),
            Some(owner) if self.unsure && owner != self.me => {
                DrainingPhase::Judge(round, number, found)
            }
            Some(_) => self.shared(round, number, found),
        }
    }

    /// A living process shares, or one of which that is not asked yet.
    fn shared(&self, round: Round, number: u32, found: ShareWord) -> DrainingPhase {
        match self.waits && !self.only_counts && !found.is_wanted() {
            true => DrainingPhase::Want(round, number, found),
            false => DrainingPhase::Next(round.with(found), Some(number)),
        }
    }

    fn counted(&mut self, round: Round) -> DrainingPhase {
        if round.shared <= self.room.most() {
            return DrainingPhase::Ended(Outcome::Drained);
        }
        if std::mem::take(&mut self.only_counts) {
            self.unsure = true;
            return DrainingPhase::Bell;
        }
        match (self.waits, self.room) {
            (false, _) => DrainingPhase::Ended(Outcome::WouldBlock),
            (true, Room::Beside(_)) if !self.is_announced => {
                DrainingPhase::Announce(round.bell, Marking::new(self.me, SlotMark::Draining))
            }
            (true, _) => DrainingPhase::Sleep(round.bell),
        }
    }
}

impl Round {
    const fn with(self, found: ShareWord) -> Round {
        Round { shared: self.shared.saturating_add(found.count()), ..self }
    }
}

impl Machine for Draining {
    fn op(&self) -> Op {
        let swap = |number, from, to| Op::Share(ShareOp::Swap { number, from, to });
        match self.phase {
            DrainingPhase::Bell => Op::Share(ShareOp::LoadBell),
            DrainingPhase::Next(_, after) => Op::Share(ShareOp::Next(after)),
            DrainingPhase::Look(_, number) | DrainingPhase::Recheck(_, number, _) => {
                Op::Share(ShareOp::Load(number))
            }
            DrainingPhase::Judge(_, _, seen) => {
                Op::Judge(seen.owner().expect("only a process is judged"))
            }
            DrainingPhase::Strike(_, number, seen) => swap(number, seen, ShareWord::FREE),
            DrainingPhase::Want(_, number, seen) => swap(number, seen, seen.wanted()),
            DrainingPhase::Announce(_, marking) => marking.op(),
            DrainingPhase::Sleep(bell) => Op::Share(ShareOp::SleepOnBell(bell)),
            DrainingPhase::Ended(outcome) => Op::End(outcome),
        }
    }

    fn heard(&mut self, answer: Answer) {
        use DrainingPhase as Phase;
        self.phase = match (self.phase, answer) {
            (Phase::Bell, Answer::Share(ShareAnswer::Bell(bell))) => {
                Phase::Next(Round { bell, shared: 0 }, None)
            }
            (Phase::Next(round, _), Answer::Share(ShareAnswer::Next(next))) => match next {
                Some(number) => Phase::Look(round, number),
                None => self.counted(round),
            },
            (Phase::Look(round, number), Answer::Share(ShareAnswer::Word(found))) => {
                self.seen(round, number, found)
            }
            (Phase::Judge(round, number, seen), Answer::Verdict(verdict)) => match verdict {
                Verdict::Dead => Phase::Strike(round, number, seen),
                Verdict::Missing => Phase::Recheck(round, number, seen),
                Verdict::Alive | Verdict::Unknown => self.shared(round, number, seen),
            },
            (Phase::Recheck(round, number, seen), Answer::Share(ShareAnswer::Word(found))) => {
                match found.owner() == seen.owner() && found.count() > 0 {
                    true => Phase::Ended(Outcome::ShareAbsent(seen)),
                    false => self.seen(round, number, found),
                }
            }
            (Phase::Strike(round, number, seen), Answer::Share(ShareAnswer::Word(found))) => {
                match found == seen {
                    true => Phase::Next(round, Some(number)),
                    false => self.seen(round, number, found),
                }
            }
            (Phase::Want(round, number, seen), Answer::Share(ShareAnswer::Word(found))) => {
                match found == seen {
                    true => Phase::Next(round.with(found), Some(number)),
                    false => self.seen(round, number, found),
                }
            }
            (Phase::Announce(bell, mut marking), answer @ Answer::Word(_)) => {
                marking.heard(answer);
                match marking.op() {
                    Op::End(Outcome::Marked) => {
                        self.is_announced = true;
                        Phase::Sleep(bell)
                    }
                    Op::End(outcome) => Phase::Ended(outcome),
                    _ => Phase::Announce(bell, marking),
                }
            }
            (_, Answer::Share(ShareAnswer::Broken)) => Phase::Ended(Outcome::SharesBroken),
            (Phase::Sleep(_), Answer::Slept(slept)) => {
                self.unsure = slept == Slept::ByItself;
                match slept {
                    Slept::GiveUp => Phase::Ended(Outcome::GaveUp),
                    Slept::Woken | Slept::Changed | Slept::ByItself => Phase::Bell,
                }
            }
            (phase, answer) => unreachable!("{answer:?} is no answer in {phase:?}"),
        };
    }

    #[cfg(test)]
    fn step(&self) -> Step {
        match self.phase {
            DrainingPhase::Bell => Step::DrainBell,
            DrainingPhase::Next(..) => Step::DrainNext,
            DrainingPhase::Look(..) | DrainingPhase::Recheck(..) => Step::DrainLook,
            DrainingPhase::Judge(..) => Step::DrainJudge,
            DrainingPhase::Strike(..) => Step::DrainStrike,
            DrainingPhase::Want(..) => Step::DrainWant,
            DrainingPhase::Announce(_, marking) => marking.step(),
            DrainingPhase::Sleep(_) => Step::DrainSleep,
            DrainingPhase::Ended(_) => Step::DrainEnd,
        }
    }
}
