//! Readers and writers in the play: share records, the bell, upgrades and downgrades.
//!
//! The record of a process has the process's number, counted from 1. It enters the chain in one step:
//! that is an exchange of the chain's head, made by no holder of the word.

use super::{
    super::{
        protocol::{
            Answer, Draining, Leaving, Marking, Op, Outcome, Reading, ShareAnswer, ShareOp, Slept,
            SlotMark, Taking, Unsharing, Way,
        },
        share::ShareWord,
        step::Step,
    },
    Doing, Job, Play, StepKind, ThreadTurn, Violation, World,
    mistakes::TableMistake,
};
use crate::{
    error::Predecessor,
    mode::{Room, Share},
};

impl<const N: usize> ThreadTurn<'_, N> {
    pub(super) fn links(&mut self) {
        let process = self.play.process[self.thread];
        let mut to = *self.world;
        to.shares[process].get_or_insert(ShareWord::of(self.me()));
        let way = match self.play.mistake {
            Some(TableMistake::ReadersLookBeforeTheyAdd) if to.word.admits_readers(false) => {
                Way::UnderTheWord
            }
            _ => Way::Quiet,
        };
        to.come_in(self.play, self.thread, way);
        self.done(to, StepKind::Plain, (None, None));
    }

    pub(super) fn reads_inside(&mut self) {
        let mut to = *self.world;
        to.threads[self.thread].reads = false;
        let record = self.play.process[self.thread] as u32 + 1;
        to.threads[self.thread].doing =
            Doing::GoingOut(Unsharing::new(self.me(), record, Share::Reader));
        self.done(to, StepKind::Plain, (None, None));
    }

    pub(super) fn is_at_bell(&mut self, draining: Draining, told: Predecessor) {
        self.leave_bell(draining, told, Slept::ByItself, StepKind::Timer);
        if self.play.give_ups {
            self.leave_bell(draining, told, Slept::GiveUp, StepKind::GiveUp);
        }
    }

    pub(super) fn leaves_bell(&mut self, draining: Draining, told: Predecessor, slept: Slept) {
        self.leave_bell(draining, told, slept, StepKind::Plain);
    }

    fn leave_bell(&mut self, draining: Draining, told: Predecessor, slept: Slept, kind: StepKind) {
        let mut to = *self.world;
        to.threads[self.thread].doing = Doing::Draining(draining, told);
        self.tell(to, kind, None, Answer::Slept(slept));
    }

    /// An upgradable reader upgrades, or leaves.
    pub(super) fn is_readable(&mut self, told: Predecessor) {
        let mut upgraded = *self.world;
        let me = self.me();
        upgraded.threads[self.thread].doing = match self.play.mistake {
            Some(TableMistake::UpgradeStaysReadable) => {
                Doing::Draining(Draining::new(me, Room::Alone, true), told)
            }
            _ => Doing::Marking(Marking::new(me, SlotMark::Unreadable), told),
        };
        self.done(upgraded, StepKind::Plain, (None, None));
        let mut left = *self.world;
        if left.threads[self.thread].inside {
            left.truth = told;
        }
        left.threads[self.thread].doing = Doing::Leaving(Leaving::held(me, told, false));
        self.done(left, StepKind::Plain, (None, None));
    }

    /// A writer becomes a reader: it adds its 1, and then releases the word.
    pub(super) fn downgrades(&mut self, told: Predecessor) {
        let process = self.play.process[self.thread];
        let mut to = *self.world;
        to.threads[self.thread].excludes = false;
        if to.threads[self.thread].inside {
            to.truth = Predecessor::Clean;
        }
        to.shares[process].get_or_insert(ShareWord::of(self.me()));
        if self.has_mistake(TableMistake::DowngradeLetsGoFirst) {
            let leaving = Leaving::held(self.me(), Predecessor::Clean, false);
            to.threads[self.thread].reads = true;
            to.threads[self.thread].doing = Doing::Leaving(leaving);
        } else {
            let _ = told;
            to.come_in_under_the_word(self.play, self.thread, Predecessor::Clean);
        }
        self.done(to, StepKind::Plain, (None, None));
    }

    pub(super) fn shares(&mut self, op: Op, share: ShareOp, step: Step) {
        let mut to = *self.world;
        let record = |number: u32| number as usize - 1;
        let plain = StepKind::Plain;
        let mistake = self.play.mistake;
        let takes_back = matches!(to.threads[self.thread].doing, Doing::ComingIn(..));
        if takes_back
            && mistake == Some(TableMistake::TakingBackIsSilent)
            && matches!(share, ShareOp::Ring | ShareOp::WakeBell)
        {
            return self.answer(to, plain, op, Answer::Done);
        }
        match share {
            ShareOp::Load(number) => {
                let found = to.shares[record(number)].expect("it is in the chain");
                self.answer(to, plain, op, Answer::Share(ShareAnswer::Word(found)));
            }
            ShareOp::Swap { number, from, to: wanted } => {
                let place = to.shares[record(number)].as_mut().expect("it is in the chain");
                let found = *place;
                let wanted = match mistake {
                    Some(
                        TableMistake::WritersWantNothing | TableMistake::PermitWaitersWantNothing,
                    ) if step == Step::DrainWant => from,
                    _ => wanted,
                };
                if found == from {
                    *place = wanted;
                }
                self.answer(to, plain, op, Answer::Share(ShareAnswer::Word(found)));
            }
            ShareOp::Next(after) => {
                let next = (after.unwrap_or(0) as usize..N).find(|at| to.shares[*at].is_some());
                let next = match mistake {
                    Some(TableMistake::WritersDoNotLook) => None,
                    _ => next.map(|at| at as u32 + 1),
                };
                self.answer(to, plain, op, Answer::Share(ShareAnswer::Next(next)));
            }
            ShareOp::LoadBell => {
                let bell = u32::from(to.bell);
                self.answer(to, plain, op, Answer::Share(ShareAnswer::Bell(bell)));
            }
            ShareOp::Ring => {
                to.bell =
                    to.bell.wrapping_add(u8::from(mistake != Some(TableMistake::ReadersDoNotRing)));
                self.answer(to, plain, op, Answer::Done);
            }
            ShareOp::WakeBell => {
                for thread in &mut to.threads {
                    if let Doing::AtBell(draining, told) = thread.doing {
                        thread.doing = Doing::WokenByBell(draining, told);
                    }
                }
                self.answer(to, plain, op, Answer::Done);
            }
            ShareOp::SleepOnBell(bell) => {
                let bell = match mistake {
                    // As if it was read only now.
                    Some(
                        TableMistake::BellIsReadAfterTheCounts
                        | TableMistake::PermitBellIsReadAfterTheCounts,
                    ) => to.bell,
                    _ => bell as u8,
                };
                if bell != to.bell {
                    return self.answer(to, plain, op, Answer::Slept(Slept::Changed));
                }
                if mistake == Some(TableMistake::FrontLetsOthersPass) {
                    return self.lets_go_in_front();
                }
                let Doing::Draining(draining, told) = to.threads[self.thread].doing else {
                    unreachable!("only a writer sleeps on the bell");
                };
                let is_for_permits = to.job(self.play, self.thread).permits(1).is_some();
                to.threads[self.thread].is_in_front = is_for_permits;
                to.threads[self.thread].doing = Doing::AtBell(draining, told);
                self.done(to, plain, (Some(op), None));
            }
        }
    }
}

impl<const N: usize> World<N> {
    pub(super) fn job(&self, play: &Play<N>, thread: usize) -> Job {
        play.jobs[thread][usize::from(self.threads[thread].job)]
    }

    fn come_in(&mut self, play: &Play<N>, thread: usize, way: Way) {
        let record = play.process[thread] as u32 + 1;
        let reading = Reading::new(play.id(thread), record, way);
        self.threads[thread].doing = Doing::ComingIn(reading, None);
    }

    /// The word is its own, and is to be left so.
    fn come_in_under_the_word(&mut self, play: &Play<N>, thread: usize, how: Predecessor) {
        let record = play.process[thread] as u32 + 1;
        let reading = Reading::new(play.id(thread), record, Way::UnderTheWord);
        self.threads[thread].doing = Doing::ComingIn(reading, Some(how));
    }

    /// It has the word, in a play with readers.
    pub(super) fn won_shared(
        &mut self,
        play: &Play<N>,
        thread: usize,
        told: Predecessor,
    ) -> Result<(), Violation> {
        let (job, me) = (self.job(play, thread), play.id(thread));
        if self.looks_for_room(play, thread, told) {
            return Ok(());
        }
        match job {
            // It would ask for the lease, and has won a turnstile only.
            Job::Read if self.word.is_wide() => {
                self.truth = if self.threads[thread].inside { told } else { self.truth };
                self.threads[thread].doing = Doing::Leaving(Leaving::held(me, told, false));
            }
            Job::Read => {
                let how = match play.mistake {
                    Some(TableMistake::ReadersLeaveClean) => Predecessor::Clean,
                    _ => told,
                };
                self.come_in_under_the_word(play, thread, how);
            }
            Job::Upgrade => {
                let marking = Marking::new(me, SlotMark::Readable(told));
                self.threads[thread].doing = Doing::Marking(marking, told);
            }
            Job::WidenAlone if play.mistake == Some(TableMistake::WideIsSetAfterTheGrant) => {
                let draining = Draining::new(me, Room::Alone, true);
                self.threads[thread].doing = Doing::Draining(draining, told);
            }
            Job::WidenAlone => {
                let marking = Marking::new(me, SlotMark::Wide);
                self.threads[thread].doing = Doing::Marking(marking, told);
            }
            _ if job.drains() => {
                let draining = Draining::new(me, Room::Alone, job.waits());
                self.threads[thread].doing = Doing::Draining(draining, told);
            }
            _ => unreachable!("{job:?} is in no play with readers"),
        }
        Ok(())
    }

    /// The mark of host scope is set.
    pub(super) fn widened(
        &mut self,
        play: &Play<N>,
        thread: usize,
        told: Predecessor,
    ) -> Result<(), Violation> {
        if self.is_granted && self.threads[thread].excludes {
            // A mistake: it has its lease by now.
            self.threads[thread].doing = Doing::Inside(told);
            return Ok(());
        }
        if play.mistake == Some(TableMistake::WidenersDoNotDrain) {
            return self.drained(play, thread, Outcome::Drained, told);
        }
        let draining = Draining::new(play.id(thread), Room::Alone, true);
        self.threads[thread].doing = Doing::Draining(draining, told);
        Ok(())
    }

    /// The mark is set, or cleared.
    pub(super) fn marked(&mut self, play: &Play<N>, thread: usize, told: Predecessor) {
        let me = play.id(thread);
        self.threads[thread].doing = match self.word.is_readable() {
            true => {
                // Every sleeper looks.
                for other in &mut self.threads {
                    if let Doing::Asleep(taking, _) = other.doing {
                        other.doing = Doing::Woken(taking);
                    }
                }
                Doing::Readable(told)
            }
            false => Doing::Draining(Draining::new(me, Room::Alone, true), told),
        };
    }

    pub(super) fn came_in(
        &mut self,
        play: &Play<N>,
        thread: usize,
        outcome: Outcome,
        held: Option<Predecessor>,
    ) -> Result<(), Violation> {
        if self.counted_permits(play, thread, outcome)? {
            return Ok(());
        }
        match (outcome, held) {
            (Outcome::Won(told), None) => {
                self.reads(thread)?;
                let looked = play.mistake != Some(TableMistake::ReadersLookBeforeTheyAdd);
                // Beside a dead upgradable reader it is told what that one was.
                let beside = self.word.owner();
                let of_dead =
                    beside.is_some_and(|owner| self.is_dead_process(play, play.process_of(owner)));
                if told != self.truth && looked && !of_dead {
                    return Err(Violation::Untold);
                }
                self.threads[thread].doing = Doing::Reads;
            }
            (Outcome::Won(_), Some(how)) => {
                self.reads(thread)?;
                let leaving = Leaving::held(play.id(thread), how, false);
                self.threads[thread].doing = Doing::Leaving(leaving);
            }
            (Outcome::WouldBlock, _) if self.job(play, thread) == Job::TryRead => {
                self.next_job(play, thread);
            }
            (Outcome::WouldBlock, _) if play.has_siblings(thread) => {
                self.threads[thread].doing = Doing::AtTurnstile;
            }
            (Outcome::WouldBlock, _) => {
                self.threads[thread].doing =
                    Doing::Taking(Taking::new(play.id(thread), true, play.spins));
            }
            _ => return Err(Violation::Lost),
        }
        Ok(())
    }

    /// It is inside as a reader from now on.
    fn reads(&mut self, thread: usize) -> Result<(), Violation> {
        if self.threads.iter().any(|other| other.excludes) {
            return Err(Violation::TwoInside);
        }
        // It would ask for a lease of its own, if the word told it to.
        if self.is_granted && !self.word.is_wide() {
            return Err(Violation::BesideOtherMachines);
        }
        self.threads[thread].reads = true;
        Ok(())
    }

    pub(super) fn went_out(
        &mut self,
        play: &Play<N>,
        thread: usize,
        outcome: Outcome,
    ) -> Result<(), Violation> {
        match outcome {
            Outcome::Released if self.returned_permit(thread) => {}
            Outcome::Released => self.next_job(play, thread),
            _ => return Err(Violation::Lost),
        }
        Ok(())
    }

    pub(super) fn drained(
        &mut self,
        play: &Play<N>,
        thread: usize,
        outcome: Outcome,
        told: Predecessor,
    ) -> Result<(), Violation> {
        if self.looked_for_room(play, thread, outcome)? {
            return Ok(());
        }
        match outcome {
            Outcome::Drained => {
                if self.threads.iter().any(|other| other.reads) {
                    return Err(Violation::TwoInside);
                }
                self.threads[thread].excludes = true;
                self.threads[thread].doing = Doing::Inside(told);
                if self.job(play, thread) == Job::WidenAlone {
                    self.is_granted = true;
                    if !self.word.is_wide() {
                        let marking = Marking::new(play.id(thread), SlotMark::Wide);
                        self.threads[thread].doing = Doing::Marking(marking, told);
                    }
                }
            }
            // As if it had never been there.
            Outcome::GaveUp | Outcome::WouldBlock => {
                self.truth = if self.threads[thread].inside { told } else { self.truth };
                let leaving = Leaving::held(play.id(thread), told, false);
                self.threads[thread].doing = Doing::Leaving(leaving);
            }
            _ => return Err(Violation::Nonsense),
        }
        Ok(())
    }
}
