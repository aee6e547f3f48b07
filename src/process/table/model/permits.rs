//! Takers of permits in the play. Each thread that has several returns one after the other.

use super::{
    super::{
        protocol::{Draining, Leaving, Outcome, Reading, Taking, Unsharing},
        share::ShareWord,
    },
    Doing, Job, Play, StepKind, ThreadTurn, Violation, World,
    mistakes::TableMistake,
};
use crate::{
    error::Predecessor,
    mode::{Room, Share},
};

impl Job {
    /// How many permits it takes of as many as there are.
    pub(super) fn permits(self, limit: u32) -> Option<u32> {
        match self {
            Job::Acquire | Job::TryAcquire | Job::TryForGood => Some(1),
            Job::AcquireAll => Some(limit),
            _ => None,
        }
    }
}

impl<const N: usize> ThreadTurn<'_, N> {
    /// Has a record from now on, and goes for permits.
    pub(super) fn begins_to_acquire(&mut self) {
        let mut to = *self.world;
        to.shares[self.play.process[self.thread]].get_or_insert(ShareWord::of(self.me()));
        to.threads[self.thread].doing = match self.job() {
            job if !job.waits() => Doing::Taking(Taking::new(self.me(), false, 0)),
            _ if self.play.has_siblings(self.thread) => Doing::AtTurnstile,
            _ => Doing::Taking(Taking::new(self.me(), true, self.play.spins)),
        };
        self.done(to, StepKind::Plain, (None, None));
    }

    fn job(&self) -> Job {
        self.play.jobs[self.thread][usize::from(self.world.threads[self.thread].job)]
    }

    /// A try has found the gate taken: it looks again until its time is over, or until another waits
    /// in front.
    pub(super) fn passes_others(&mut self) {
        let mut over = *self.world;
        over.next_job(self.play, self.thread);
        let does_not_look = self.has_mistake(TableMistake::TriesDoNotLookAgain);
        if does_not_look || self.world.word.drains() {
            let taken: u32 =
                self.world.threads.iter().map(|thread| u32::from(thread.permits)).sum();
            return match self.world.word.drains() || taken >= self.play.limit {
                true => self.done(over, StepKind::Plain, (None, None)),
                false => self.push(StepKind::Plain, (None, None), Err(Violation::RefusedWithRoom)),
            };
        }
        self.done(over, StepKind::Timer, (None, None));
        let mut again = *self.world;
        again.threads[self.thread].doing = Doing::Taking(Taking::new(self.me(), false, 0));
        self.done(again, StepKind::Plain, (None, None));
    }

    pub(super) fn has_permits(&mut self) {
        if self.job() == Job::TryForGood {
            let mut to = *self.world;
            to.next_job(self.play, self.thread);
            return self.done(to, StepKind::Plain, (None, None));
        }
        let record = self.play.process[self.thread] as u32 + 1;
        let share = match self.has_mistake(TableMistake::PermitsRingAtTheLast) {
            true => Share::Reader,
            false => Share::Permits(1),
        };
        let mut to = *self.world;
        to.threads[self.thread].permits -= 1;
        to.threads[self.thread].doing = Doing::GoingOut(Unsharing::new(self.me(), record, share));
        self.done(to, StepKind::Plain, (None, None));
    }

    /// A mistake: it waits for permits without the word.
    pub(super) fn lets_go_in_front(&mut self) {
        let mut to = *self.world;
        to.threads[self.thread].is_in_front = true;
        if to.threads[self.thread].inside {
            to.truth = Predecessor::Clean;
        }
        let leaving = Leaving::held(self.me(), Predecessor::Clean, false);
        to.threads[self.thread].doing = Doing::Leaving(leaving);
        self.done(to, StepKind::Plain, (None, None));
    }
}

impl<const N: usize> World<N> {
    fn permits_wanted(&self, play: &Play<N>, thread: usize) -> Option<u32> {
        let job = play.jobs[thread].get(usize::from(self.threads[thread].job))?;
        job.permits(play.limit)
    }

    /// It has the word: looks whether there is room.
    pub(super) fn looks_for_room(
        &mut self,
        play: &Play<N>,
        thread: usize,
        told: Predecessor,
    ) -> bool {
        let Some(wanted) = self.permits_wanted(play, thread) else { return false };
        let room = Room::Beside(play.limit - wanted);
        let waits = self.job(play, thread).waits();
        self.threads[thread].doing =
            Doing::Draining(Draining::new(play.id(thread), room, waits), told);
        true
    }

    /// It has looked, or given up.
    pub(super) fn looked_for_room(
        &mut self,
        play: &Play<N>,
        thread: usize,
        outcome: Outcome,
    ) -> Result<bool, Violation> {
        let Some(wanted) = self.permits_wanted(play, thread) else { return Ok(false) };
        let me = play.id(thread);
        let record = play.process[thread] as u32 + 1;
        let count = match (outcome, play.mistake) {
            (Outcome::Drained, _) => wanted,
            (Outcome::GaveUp, Some(TableMistake::GivingUpKeepsAPart)) => 1,
            (Outcome::GaveUp | Outcome::WouldBlock, _) => 0,
            _ => return Err(Violation::Nonsense),
        };
        self.threads[thread].is_in_front = false;
        self.threads[thread].gave_up = outcome != Outcome::Drained;
        let outside = play.mistake == Some(TableMistake::RoomIsTakenOutsideTheGate);
        self.threads[thread].doing = match count {
            0 => self.leaves_gate(play, thread),
            _ if outside => {
                self.threads[thread].counts_later = true;
                self.leaves_gate(play, thread)
            }
            _ => Doing::ComingIn(Reading::permits(me, record, count), Some(Predecessor::Clean)),
        };
        Ok(true)
    }

    /// What a holder of permits did is told to none.
    fn leaves_gate(&mut self, play: &Play<N>, thread: usize) -> Doing {
        if self.threads[thread].inside {
            self.truth = Predecessor::Clean;
        }
        Doing::Leaving(Leaving::held(play.id(thread), Predecessor::Clean, false))
    }

    /// Its permits are counted.
    pub(super) fn counted_permits(
        &mut self,
        play: &Play<N>,
        thread: usize,
        outcome: Outcome,
    ) -> Result<bool, Violation> {
        let Some(wanted) = self.permits_wanted(play, thread) else { return Ok(false) };
        let Outcome::Won(_) = outcome else { return Err(Violation::Lost) };
        if std::mem::take(&mut self.threads[thread].counts_later) {
            self.threads[thread].doing = Doing::HasPermits;
        } else {
            self.threads[thread].doing = self.leaves_gate(play, thread);
        }
        if self.threads[thread].gave_up {
            return Ok(true); // a mistake: what it keeps is given back by no thread
        }
        if self.threads.iter().any(|other| other.is_in_front) {
            return Err(Violation::Overtaken);
        }
        self.threads[thread].permits = wanted as u8;
        let taken: u32 = self.threads.iter().map(|thread| u32::from(thread.permits)).sum();
        match taken > play.limit {
            true => Err(Violation::OverLimit),
            false => Ok(true),
        }
    }

    /// It has released the gate.
    pub(super) fn is_past_gate(&mut self, play: &Play<N>, thread: usize) -> bool {
        let Some(wanted) = self.permits_wanted(play, thread) else { return false };
        let record = play.process[thread] as u32 + 1;
        self.threads[thread].doing = match self.threads[thread] {
            at if at.counts_later => {
                Doing::ComingIn(Reading::permits(play.id(thread), record, wanted), None)
            }
            at if at.permits > 0 => Doing::HasPermits,
            at if at.is_in_front => Doing::Taking(Taking::new(play.id(thread), true, play.spins)),
            _ => {
                self.next_job(play, thread);
                return true;
            }
        };
        true
    }

    /// Whether it tries for permits, and found the gate taken.
    pub(super) fn found_gate_taken(&self, play: &Play<N>, thread: usize) -> bool {
        let tries = self.permits_wanted(play, thread).is_some() && !self.job(play, thread).waits();
        tries && matches!(self.threads[thread].doing, Doing::Taking(_))
    }

    /// It has given one permit back.
    pub(super) fn returned_permit(&mut self, thread: usize) -> bool {
        let has_more = self.threads[thread].permits > 0;
        if has_more {
            self.threads[thread].doing = Doing::HasPermits;
        }
        has_more
    }
}
