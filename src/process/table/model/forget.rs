//! Forgetting a name in the play, also one that was shared: its records' chain is set aside, and the slot
//! has a name again at once.
//!
//! What is one name here stands for the slot's next one, too: a reader that comes in under a generation
//! that is over reads a name which another process locks elsewhere.

use super::{
    super::{
        protocol::{Leaving, Op, Unsharing},
        word::Word,
    },
    Doing, Job, Play, StepKind, ThreadTurn, Violation, World,
    mistakes::TableMistake,
};
use crate::mode::Share;

impl<const N: usize> ThreadTurn<'_, N> {
    /// The world in which it has the structural lock, if no other has it; what a dead one had begun under it
    /// is finished.
    pub(super) fn begins_change(&self) -> Option<Result<World<N>, Violation>> {
        let mut to = *self.world;
        if to.structure.is_some_and(|other| !to.is_dead(other.into())) {
            return None;
        }
        to.structure = Some(self.thread as u8);
        Some(match std::mem::take(&mut to.intends) {
            true => to.set_aside().map(|()| to),
            false => Ok(to),
        })
    }

    /// The same, of a change that is over in one step.
    pub(super) fn changes(&mut self, change: impl FnOnce(&mut World<N>)) {
        let Some(to) = self.begins_change() else { return };
        let to = to.map(|mut to| {
            to.structure = None;
            change(&mut to);
            to
        });
        self.push(StepKind::Plain, (None, None), to);
    }

    pub(super) fn forgets(&mut self) {
        match self.play.shares() {
            false => self.wins_word(*self.world, Doing::Leaving(Leaving::retiring(self.me()))),
            true => match self.begins_change() {
                Some(Ok(mut to)) if self.has_mistake(TableMistake::ForgettersCountFirst) => {
                    match to.counts_from(0).is_none() {
                        true => to.threads[self.thread].doing = Doing::ForgetWins,
                        false => to.next_job(self.play, self.thread),
                    }
                    self.done(to, StepKind::Plain, (None, None));
                }
                Some(Ok(to)) if self.has_mistake(TableMistake::ForgettersDoNotCount) => {
                    self.wins_word(to, Doing::ForgetSetsAside);
                }
                Some(Ok(to)) => self.wins_word(to, Doing::ForgetCounts(0)),
                Some(Err(violation)) => {
                    self.push(StepKind::Plain, (None, None), Err(violation));
                }
                None => {}
            },
        }
    }

    pub(super) fn wins_to_forget(&mut self) {
        self.wins_word(*self.world, Doing::ForgetSetsAside);
    }

    fn wins_word(&mut self, mut to: World<N>, next: Doing) {
        let op = Op::Swap { from: Word::FREE, to: Word::retiring(self.me()) };
        let won = to.word == Word::FREE;
        let moved = match won {
            true => to.set_word(self.play, self.thread, Word::retiring(self.me())),
            false => Ok(()),
        };
        match won {
            true => to.threads[self.thread].doing = next,
            false => to.next_job(self.play, self.thread),
        }
        self.push(StepKind::Plain, (Some(op), None), moved.map(|()| to));
    }

    /// One record at a time.
    pub(super) fn looks_at_counts(&mut self, from: u8) {
        let mut to = *self.world;
        let next = (usize::from(from)..N).find(|at| to.is_chained && to.shares[*at].is_some());
        let is_counted = |at: usize| to.shares[at].is_some_and(|share| share.count() > 0);
        to.threads[self.thread].doing = match next {
            Some(at) if is_counted(at) => Doing::Leaving(Leaving::retiring(self.me())),
            Some(at) => Doing::ForgetCounts(at as u8 + 1),
            None => {
                to.intends = true;
                Doing::ForgetSetsAside
            }
        };
        self.done(to, StepKind::Plain, (None, None));
    }

    pub(super) fn sets_aside(&mut self) {
        let mut to = *self.world;
        to.intends = false;
        to.threads[self.thread].doing = Doing::Leaving(Leaving::retiring(self.me()));
        let to = to.set_aside().map(|()| to);
        self.push(StepKind::Plain, (None, None), to);
    }

    /// It has come in past the word: whether that was its name's.
    pub(super) fn compares(&mut self) {
        let mut to = *self.world;
        let stands = to.is_in_place(self.thread);
        let came = if stands {
            to.threads[self.thread].doing = Doing::Reads;
            to.reads(self.thread)
        } else if self.has_mistake(TableMistake::ReadersDoNotCompare) {
            Err(Violation::TwoInside)
        } else {
            to.threads[self.thread].has_moved = true;
            let record = self.play.process[self.thread] as u32 + 1;
            to.threads[self.thread].doing =
                Doing::GoingOut(Unsharing::new(self.me(), record, Share::Reader));
            Ok(())
        };
        self.push(StepKind::Plain, (None, None), came.map(|()| to));
    }
}

impl<const N: usize> World<N> {
    pub(super) fn is_in_place(&self, thread: usize) -> bool {
        self.threads[thread].generation == self.generation
    }

    /// Whether the slot has records that its name has not.
    pub(super) fn finds_chain_aside(&self) -> bool {
        !self.is_chained && self.shares.iter().any(Option::is_some)
    }

    /// Under the structural lock: has a record in the chain, and knows under which generation.
    pub(super) fn link(&mut self, play: &Play<N>, thread: usize) {
        let process = play.process[thread];
        let is_new = self.shares[process].is_none();
        self.shares[process].get_or_insert(super::ShareWord::of(play.id(thread)));
        self.threads[thread].generation = self.generation;
        if is_new || play.mistake != Some(TableMistake::RecordsAreNotLinkedAgain) {
            self.is_chained = true;
        }
    }

    fn counts_from(&self, from: usize) -> Option<usize> {
        let is_counted = |at: &usize| self.shares[*at].is_some_and(|share| share.count() > 0);
        (from..N).find(|at| self.is_chained && is_counted(at))
    }

    /// The name is forgotten, and another one may come.
    fn set_aside(&mut self) -> Result<(), Violation> {
        if self.threads.iter().any(|thread| thread.reads) {
            return Err(Violation::TwoInside);
        }
        self.generation += 1;
        self.is_chained = false;
        Ok(())
    }

    /// It has the word for a name that is not here any more: gives that back, and looks it up again.
    pub(super) fn gives_back_moved(&mut self, play: &Play<N>, thread: usize) -> bool {
        let told = self.truth;
        let is_reader = play.has(Job::Forget) && self.job(play, thread) == Job::Read;
        if !is_reader || self.is_in_place(thread) {
            return false;
        }
        self.threads[thread].has_moved = true;
        self.threads[thread].doing = Doing::Leaving(Leaving::held(play.id(thread), told, false));
        true
    }

    /// It has left what was another name's.
    pub(super) fn looks_up_again(&mut self, play: &Play<N>, thread: usize) -> bool {
        let has_moved = std::mem::take(&mut self.threads[thread].has_moved);
        if has_moved {
            self.begin(play, thread);
        }
        has_moved
    }
}
