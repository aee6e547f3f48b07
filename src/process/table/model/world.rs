//! What the world does in answer to an operation, and what it must never come to.

use super::{
    AtLeast, CountedPlace, Doing, ModelRecord, Violation, World, hear,
    mistakes::{self, TableMistake},
    play::{Job, Play},
};
use crate::{
    error::Predecessor,
    process::table::{
        protocol::{Answer, Leaving, Machine, Op, Outcome, ReadRecord, Taking, Verdict},
        word::{OwnerId, RecordWord, SlotState, WaitId, Word},
    },
};

impl<const N: usize> World<N> {
    // ---- records -------------------------------------------------------------------------------

    pub(super) fn record(&self, wait: WaitId) -> &ModelRecord {
        &self.records[usize::from(wait.number()) - 1]
    }

    pub(super) fn record_mut(&mut self, wait: WaitId) -> &mut ModelRecord {
        &mut self.records[usize::from(wait.number()) - 1]
    }

    /// A free record, or a dead process's, for a wait of `me` that begins now.
    pub(super) fn enlist(&mut self, play: &Play<N>, me: OwnerId) -> Option<WaitId> {
        let is_dead = |owner| self.is_dead_process(play, play.process_of(owner));
        let of_dead = |record: &ModelRecord| record.word.owner().is_some_and(is_dead);
        let free = self.records.iter().position(|record| record.word.is_free());
        let at = free.or_else(|| self.records.iter().position(of_dead))?;
        self.used = self.used.max(at as u8 + 1);
        let record = &mut self.records[at];
        record.word = record.word.taken(me);
        if play.mistake == Some(TableMistake::PublishedBeforeFilledIn) {
            record.word = record.word.standing();
        }
        record.since = self.now;
        self.now += 1;
        record.word.wait(at as u16 + 1)
    }

    pub(super) fn erase(&mut self, wait: WaitId) {
        let record = self.record_mut(wait);
        if record.word.is_of(wait) {
            record.word = record.word.erased();
        }
    }

    /// The published wait of a taker, while its record is its own.
    fn wait_of(&self, thread: usize) -> Option<WaitId> {
        let taking = match self.threads[thread].doing {
            Doing::Taking(taking) | Doing::Asleep(taking, _) => taking,
            Doing::Woken(taking) | Doing::Parked(taking) => taking,
            _ => return None,
        };
        taking.record().filter(|wait| self.record(*wait).word.is_of(*wait))
    }

    /// The waiter of this record cannot count on its place until the record stands again.
    pub(super) fn pass_over(&mut self, number: u16) {
        for thread in 0..N {
            if self.wait_of(thread).is_some_and(|wait| wait.number() == number) {
                self.threads[thread].place = CountedPlace::None;
            }
        }
    }

    /// A hold begins, or its holder begins to release it.
    pub(super) fn count_on_places(&mut self, holder: usize) {
        for thread in (0..N).filter(|thread| *thread != holder) {
            let place = &mut self.threads[thread].place;
            if *place == CountedPlace::Stands {
                *place = CountedPlace::Counts;
            }
        }
    }

    /// Whether this one may have the word now, by the order of waiters.
    fn is_in_order(&self, taker: usize) -> bool {
        let since = |thread| self.wait_of(thread).map_or(u8::MAX, |wait| self.record(wait).since);
        let counts = |other: &usize| self.threads[*other].place == CountedPlace::Counts;
        (0..N).filter(counts).all(|other| other == taker || since(other) > since(taker))
    }

    // ---- the word ------------------------------------------------------------------------------

    /// Changes the word, watching over what must hold.
    pub(super) fn set_word(
        &mut self,
        play: &Play<N>,
        thread: usize,
        to: Word,
    ) -> Result<(), Violation> {
        let (was, is) = (play.owner(self.word), play.owner(to));
        if was.is_some() && was != is {
            let holder = (0..N).find(|other| self.threads[*other].inside);
            if let Some(holder) = holder {
                let sibling = holder != thread && play.process[holder] == play.process[thread];
                if sibling {
                    return Err(Violation::FreedSibling);
                }
                self.threads[holder].inside = false;
            }
        }
        if is.is_some() && was != is {
            if self.threads.iter().any(|other| other.inside) {
                return Err(Violation::TwoInside);
            }
            if matches!(to.state(), Some(SlotState::Held(_))) {
                if !self.is_in_order(thread) {
                    return Err(Violation::Overtaken);
                }
                if matches!(self.stay, AtLeast::Running(_)) {
                    return Err(Violation::RanTwice);
                }
                self.threads[thread].place = CountedPlace::None;
                self.count_on_places(thread);
            }
            self.threads[thread].inside = true;
        }
        if self.word.is_wide() && !to.is_wide() {
            return Err(Violation::Narrowed);
        }
        if to.state().is_none() {
            return Err(Violation::Nonsense);
        }
        self.word = to;
        Ok(())
    }

    pub(super) fn raise_token(&mut self, play: &Play<N>, thread: usize, skipped: bool) {
        if play.lies {
            self.token += u8::from(!skipped);
            self.threads[thread].token = self.token;
        }
    }

    pub(super) fn heard(
        &mut self,
        play: &Play<N>,
        thread: usize,
        answer: Answer,
    ) -> Result<(), Violation> {
        let at = &mut self.threads[thread];
        let op = match &mut at.doing {
            Doing::Taking(machine) => hear(machine, answer),
            Doing::Marking(machine, _) => hear(machine, answer),
            Doing::ComingIn(machine, _) => hear(machine, answer),
            Doing::GoingOut(machine) => hear(machine, answer),
            Doing::Draining(machine, _) => hear(machine, answer),
            Doing::Renaming(machine, _) => hear(machine, answer),
            Doing::Leaving(machine) => hear(machine, answer),
            Doing::Reaping(machine) | Doing::Finishing(machine) => hear(machine, answer),
            doing => unreachable!("{doing:?} hears nothing"),
        };
        match op {
            Op::End(outcome) => self.ended(play, thread, outcome),
            _ => Ok(()),
        }
    }

    fn ended(&mut self, play: &Play<N>, thread: usize, outcome: Outcome) -> Result<(), Violation> {
        let doing = self.threads[thread].doing;
        let job = play.jobs[thread].get(usize::from(self.threads[thread].job));
        match (outcome, doing) {
            (outcome, Doing::ComingIn(_, held)) => {
                return self.came_in(play, thread, outcome, held);
            }
            (outcome, Doing::GoingOut(_)) => return self.went_out(play, thread, outcome),
            (outcome, Doing::Draining(_, told)) => {
                return self.drained(play, thread, outcome, told);
            }
            (Outcome::Won(told), _) => {
                let told = match play.mistake {
                    Some(TableMistake::RecoveriesTellNothing) => Predecessor::Clean,
                    _ => told,
                };
                // A living holder that was judged to be dead did not die.
                if told != self.truth && !self.lied {
                    return Err(Violation::Untold);
                }
                self.threads[thread].represents = false;
                // By the quiet path the token is raised next. A taker that is stopped in between and
                // judged to be dead there is not played, as none between its compare and its
                // exchange.
                if !matches!(doing, Doing::Taking(taking) if taking.has_raised_token()) {
                    self.raise_token(play, thread, false);
                }
                self.threads[thread].doing = match job {
                    Some(Job::Stay) => Doing::WritesEnd(told),
                    Some(_) if play.shares() => return self.won_shared(play, thread, told),
                    _ => Doing::Inside(told),
                };
            }
            (Outcome::Marked, Doing::Marking(_, told)) if job == Some(&Job::Upgrade) => {
                self.marked(play, thread, told);
            }
            (Outcome::Marked, Doing::Marking(_, told)) if job == Some(&Job::WidenAlone) => {
                return self.widened(play, thread, told);
            }
            (Outcome::Marked, Doing::Marking(_, told))
            | (Outcome::Renamed, Doing::Renaming(_, told)) => {
                self.threads[thread].doing = Doing::Inside(told);
            }
            (Outcome::Unsettled(word), Doing::Reaping(_)) => {
                self.threads[thread].doing = Doing::Queueing(word);
            }
            (Outcome::Unsettled(word), _) => {
                self.threads[thread].doing = Doing::Queueing(word);
            }
            (Outcome::Reaped | Outcome::Nothing, Doing::Finishing(_)) => {
                self.structure = None;
                self.begin(play, thread);
            }
            (Outcome::Released, Doing::Leaving(_)) if self.is_past_gate(play, thread) => {}
            (Outcome::WouldBlock, _) if self.found_gate_taken(play, thread) => {
                self.threads[thread].doing = Doing::Passing;
            }
            (Outcome::Released, Doing::Leaving(_)) if self.threads[thread].reads => {
                self.threads[thread].doing = Doing::Reads;
            }
            (
                Outcome::WouldBlock
                | Outcome::GaveUp
                | Outcome::Released
                | Outcome::Reaped
                | Outcome::Nothing,
                _,
            ) => self.next_job(play, thread),
            // Its process was judged to be dead while it lived.
            (Outcome::Lost, _) if self.lied => {
                self.threads[thread].inside = false;
                self.next_job(play, thread);
            }
            (Outcome::Lost, _) => return Err(Violation::Lost),
            (outcome, _) => {
                let _ = outcome;
                return Err(Violation::Nonsense);
            }
        }
        Ok(())
    }

    /// Whether one more lock and its release, with all others gone, leave the word quiet.
    pub(super) fn becomes_quiet(mut self, play: &Play<N>) -> bool {
        let me = play.id_of(0);
        let mut taking = Taking::new(me, false, 0);
        let won = self.runs(play, &mut taking);
        let mut leaving = Leaving::held(me, Predecessor::Clean, false);
        matches!(won, Outcome::Won(_))
            && self.runs(play, &mut leaving) == Outcome::Released
            && !self.word.has_waiters()
    }

    /// Runs a machine while no other runs.
    fn runs(&mut self, play: &Play<N>, machine: &mut impl Machine) -> Outcome {
        loop {
            let step = machine.step();
            let answer = match mistakes::bent_op(play, self, machine.op(), step) {
                Op::End(outcome) => return outcome,
                Op::Load => Answer::Word(self.word),
                Op::Swap { from, to } => {
                    let found = self.word;
                    if found == from {
                        self.word = to;
                    }
                    Answer::Word(found)
                }
                Op::Read(_) => Answer::Read(ReadRecord::Beyond),
                Op::LoadRecord(_) => Answer::Record(RecordWord::from_bits(0)),
                Op::SeeToken => Answer::Yes(true),
                Op::Wake(_) => Answer::Yes(false),
                Op::IsOver(_) => Answer::Yes(true),
                Op::SeeStay => Answer::Stay(None),
                Op::RaiseToken => Answer::Done,
                Op::Judge(_) => Answer::Verdict(Verdict::Alive),
                op => unreachable!("{op:?} with no other about"),
            };
            machine.heard(answer);
        }
    }
}
