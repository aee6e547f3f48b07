//! One turn of one thread: each answer that it may get, and the world after it.

use super::{
    AtLeast, CountedPlace, Doing, Elsewhere, ModelRecord, Move, RecordLook, StepKind, Violation,
    World,
    mistakes::{self, TableMistake},
    play::{Job, Play},
};
use crate::{
    error::Predecessor,
    process::table::{
        protocol::{
            Answer, Leaving, Machine as _, Marking, Op, ReadRecord, Renaming, Slept, SlotMark,
            Taking, ToWake, Verdict,
        },
        step::Step,
        word::{OwnerId, RecordWord, WaitId, Word},
    },
};

/// One thread's turn.
pub(super) struct ThreadTurn<'a, const N: usize> {
    pub(super) world: &'a World<N>,
    pub(super) play: &'a Play<N>,
    pub(super) thread: usize,
    pub(super) step: Option<Step>,
    pub(super) moves: &'a mut Vec<Move<N>>,
}

impl<const N: usize> ThreadTurn<'_, N> {
    pub(super) fn me(&self) -> OwnerId {
        self.play.id(self.thread)
    }

    pub(super) fn has_mistake(&self, mistake: TableMistake) -> bool {
        self.play.mistake == Some(mistake)
    }

    pub(super) fn passes_turnstile(&mut self) {
        let process = self.play.process[self.thread];
        let taken = (0..N).any(|other| {
            self.play.process[other] == process && self.world.threads[other].represents
        });
        if !taken {
            let mut to = *self.world;
            to.threads[self.thread].represents = true;
            let taking = Taking::new(self.me(), true, self.play.spins);
            to.threads[self.thread].doing = Doing::Taking(taking);
            self.done(to, StepKind::Plain, (None, None));
        }
    }

    pub(super) fn machine(&mut self, op: Op) {
        let step = self.step.expect("a machine stands somewhere");
        let mut to = *self.world;
        let op = mistakes::bent_op(self.play, &to, op, step);
        let skipped = mistakes::is_skipped(self.play.mistake, step);
        let done = StepKind::Plain;
        match op {
            Op::Load => {
                let found = mistakes::bent_word(self.play.mistake, step, to.word);
                self.answer(to, done, op, Answer::Word(found));
            }
            Op::Swap { from, to: wanted } => {
                let blind = mistakes::is_blind(self.play.mistake, step);
                let found = if blind { from } else { to.word };
                if found == from
                    && let Err(violation) = to.set_word(self.play, self.thread, wanted)
                {
                    return self.violates(op, violation);
                }
                self.answer(to, done, op, Answer::Word(found));
            }
            Op::SeeToken => self.sees_token(op),
            Op::RaiseToken => {
                to.raise_token(self.play, self.thread, skipped);
                self.answer(to, done, op, Answer::Done);
            }
            Op::SeeStay => match to.stay {
                AtLeast::Running(end) if !skipped => {
                    self.answer(to, done, op, Answer::Stay(Some(end)));
                    to.stay = AtLeast::Over(end);
                    self.answer(to, StepKind::Timer, op, Answer::Stay(None));
                }
                _ => self.answer(to, done, op, Answer::Stay(None)),
            },
            Op::IsOver(end) if to.stay == AtLeast::Running(end) => {
                self.answer(to, done, op, Answer::Yes(false));
                to.stay = AtLeast::Over(end);
                self.answer(to, StepKind::Timer, op, Answer::Yes(true));
            }
            Op::IsOver(_) => self.answer(to, done, op, Answer::Yes(true)),
            Op::Enlist => {
                let wait = to.enlist(self.play, self.me());
                self.answer(to, done, op, Answer::Wait(wait));
            }
            Op::FillIn(wait) => {
                to.record_mut(wait).here = true;
                self.answer(to, done, op, Answer::Done);
            }
            Op::SwapRecord { number, from, to: wanted } => {
                let record = &mut to.records[usize::from(number) - 1];
                let found = mistakes::bent_publication(self.play.mistake, step, from, record.word);
                if found == from && !skipped {
                    record.word = wanted;
                    if wanted.is_passed() {
                        to.pass_over(number);
                    }
                }
                self.answer(to, done, op, Answer::Record(found));
            }
            Op::Return { number, from } => {
                let record = &mut to.records[usize::from(number) - 1];
                let found = record.word;
                if found == from {
                    record.word = match self.has_mistake(TableMistake::ReturnedAsBefore) {
                        true => from.standing(),
                        false => from.returned(),
                    };
                }
                self.answer(to, done, op, Answer::Record(found));
            }
            Op::Erase(wait) => {
                if !skipped {
                    to.erase(wait);
                    to.threads[self.thread].place = CountedPlace::None;
                }
                self.answer(to, done, op, Answer::Done);
            }
            Op::LoadRecord(number) => {
                let record = to.records.get(usize::from(number) - 1);
                let found = record.map_or(RecordWord::from_bits(0), |record| record.word);
                let found = mistakes::bent_record(self.play.mistake, step, to.word, found);
                self.answer(to, done, op, Answer::Record(found));
            }
            Op::Read(number) => self.reads(op, number, skipped),
            Op::Stamp | Op::Pause(_) => self.answer(to, done, op, Answer::Done),
            Op::IsLate(_) => {
                self.answer(to, done, op, Answer::Yes(false));
                if !self.has_mistake(TableMistake::ReservationsNeverLapse) {
                    self.answer(to, StepKind::Timer, op, Answer::Yes(true));
                }
            }
            Op::IsHungry => {
                for hungry in [false, true] {
                    if self.play.hunger.is_none_or(|hunger| hunger == hungry) {
                        self.answer(to, done, op, Answer::Yes(hungry));
                    }
                }
            }
            Op::Judge(owner) => self.judges(op, owner),
            Op::Sleep { seen, record } => self.goes_to_sleep(op, seen, record),
            Op::Share(share) => self.shares(op, share, step),
            Op::Park => self.parks(),
            Op::Wake(to_wake) => self.wakes(op, to_wake, skipped),
            Op::End(outcome) => unreachable!("{outcome:?} was not taken note of"),
        }
    }

    /// Compares the token and exchanges the word: one step here. Between the two a guard that is
    /// stopped cannot be told from one that still holds.
    fn sees_token(&mut self, op: Op) {
        let same = !self.play.lies
            || self.has_mistake(TableMistake::TokenIsNotCompared)
            || self.world.threads[self.thread].token == self.world.token;
        let mut to = *self.world;
        if let Err(violation) = to.heard(self.play, self.thread, Answer::Yes(same)) {
            return self.violates(op, violation);
        }
        let step = to.step(self.thread);
        match to.threads[self.thread].doing {
            Doing::Leaving(leaving) if same && leaving.op() != Op::SeeStay => {
                let mut turn = ThreadTurn {
                    world: &to,
                    play: self.play,
                    thread: self.thread,
                    step,
                    moves: self.moves,
                };
                turn.machine(leaving.op());
            }
            _ => self.done(to, StepKind::Plain, (Some(op), Some(Answer::Yes(same)))),
        }
    }

    /// Reads one record: in one step, or as `lock` does.
    pub(super) fn reads(&mut self, op: Op, number: u16, skipped: bool) {
        let mut to = *self.world;
        if let Doing::Leaving(_) = to.threads[self.thread].doing
            && number == 1
            && to.threads[self.thread].inside
        {
            to.count_on_places(self.thread);
        }
        let at = usize::from(number) - 1;
        if skipped || at >= usize::from(to.used) {
            return self.answer(to, StepKind::Plain, op, Answer::Read(ReadRecord::Beyond));
        }
        let ModelRecord { word, here, since } = to.records[at];
        let stands = |word: RecordWord| ReadRecord::Stands {
            since: since.into(),
            wait: word.wait(number).expect("it stands"),
        };
        let is_to_wait = !word.is_free() && !word.is_passed();
        let was = to.threads[self.thread].look;
        let next = match (self.play.fine, was) {
            (false, _) if here && is_to_wait => Err(stands(word)),
            (false, _) => Err(ReadRecord::Nothing),
            (true, RecordLook::Nothing) if here => Ok(RecordLook::ItsSlot),
            (true, RecordLook::ItsSlot) if is_to_wait => Ok(RecordLook::ItsWait(word)),
            (true, RecordLook::ItsWait(word)) if here => Ok(RecordLook::ItsSlotAgain(word)),
            (true, RecordLook::ItsSlotAgain(word)) => Err(stands(word)),
            (true, _) => Err(ReadRecord::Nothing),
        };
        match next {
            Ok(reading) => {
                to.threads[self.thread].look = reading;
                self.done(to, StepKind::Plain, (Some(op), None));
            }
            Err(read) => {
                to.threads[self.thread].look = RecordLook::Nothing;
                self.answer(to, StepKind::Plain, op, Answer::Read(read));
            }
        }
    }

    fn judges(&mut self, op: Op, owner: OwnerId) {
        let process = self.play.process_of(owner);
        let of_it = |thread: &usize| self.play.process[*thread] == process;
        let named = self.world.word.owner() == Some(owner)
            || self.world.records.iter().any(|record| record.word.owner() == Some(owner))
            || self.world.shares.iter().flatten().any(|word| word.owner() == Some(owner));
        let is_dead = self.world.is_dead_process(self.play, process);
        let has_left =
            |thread| self.world.is_done(thread) && self.world.threads[thread].permits == 0;
        let is_done = (0..N).filter(of_it).all(has_left);
        let verdict =
            match self.play.mistake {
                Some(TableMistake::PresencesAreNotJudged) => Verdict::Alive,
                Some(TableMistake::StoppedCountsAsDead) => Verdict::Dead,
                Some(TableMistake::DeadReadersCount | TableMistake::DeadPermitsCount)
                    if self.step == Some(Step::DrainJudge) =>
                {
                    Verdict::Alive
                }
                Some(
                    TableMistake::LivingReadersAreStruck | TableMistake::LivingPermitsAreStruck,
                ) if self.step == Some(Step::DrainJudge) => Verdict::Dead,
                _ if is_dead => {
                    if !named {
                        self.answer(
                            *self.world,
                            StepKind::Plain,
                            op,
                            Answer::Verdict(Verdict::Missing),
                        );
                    }
                    Verdict::Dead
                }
                // Presences are removed at a clean exit, and by a sweep if no word names one.
                _ if is_done => Verdict::Missing,
                _ => Verdict::Alive,
            };
        if self.play.lies && !self.world.lied && verdict == Verdict::Alive {
            let mut to = *self.world;
            to.lied = true;
            self.answer(to, StepKind::Timer, op, Answer::Verdict(Verdict::Dead));
        }
        self.answer(*self.world, StepKind::Plain, op, Answer::Verdict(verdict));
    }

    fn goes_to_sleep(&mut self, op: Op, seen: Word, record: Option<WaitId>) {
        let Doing::Taking(taking) = self.world.threads[self.thread].doing else {
            unreachable!("only takers sleep");
        };
        let marks = !self.has_mistake(TableMistake::SleepersDoNotMark);
        let seen = if marks { seen } else { self.world.word };
        let mut to = *self.world;
        let says_so = seen.is_hungry() || seen.reserved_for().is_some();
        let stands = record.is_some_and(|wait| {
            to.record(wait).word.is_of(wait) && !to.record(wait).word.is_passed()
        });
        if stands && says_so {
            let place = &mut to.threads[self.thread].place;
            *place = (*place).max(CountedPlace::Stands);
        }
        let changed = self.world.word.low_half() != seen.low_half();
        if changed && !self.has_mistake(TableMistake::SleepersDoNotCompare) {
            self.answer(to, StepKind::Plain, op, Answer::Slept(Slept::Changed));
        } else {
            to.threads[self.thread].doing = Doing::Asleep(taking, record);
            self.done(to, StepKind::Plain, (Some(op), None));
        }
        self.gives_up(taking);
    }

    fn parks(&mut self) {
        let Doing::Taking(taking) = self.world.threads[self.thread].doing else {
            unreachable!("only takers park");
        };
        let mut to = *self.world;
        to.threads[self.thread].doing = Doing::Parked(taking);
        let is_its = to.word.reserved_for().is_some() && to.word.reserved_for() == taking.record();
        if self.has_mistake(TableMistake::TasksAreWonFor) && is_its {
            let told = to.word.left();
            to.word = to.word.seized(self.me());
            to.erase(taking.record().expect("its own"));
            to.threads[self.thread].doing = Doing::WonFor(told);
        }
        self.done(to, StepKind::Plain, (Some(Op::Park), None));
    }

    pub(super) fn is_polled(&mut self, taking: Taking) {
        let mut to = *self.world;
        to.threads[self.thread].doing = Doing::Taking(taking);
        self.tell(to, StepKind::Plain, None, Answer::Polled);
    }

    fn wakes(&mut self, op: Op, to_wake: ToWake, skipped: bool) {
        let mut to = *self.world;
        if skipped {
            return self.answer(to, StepKind::Plain, op, Answer::Yes(true));
        }
        let mut woke = false;
        for sleeper in 0..N {
            let Doing::Asleep(taking, record) = self.world.threads[sleeper].doing else {
                continue;
            };
            match to_wake {
                ToWake::One => {
                    let mut to = *self.world;
                    to.threads[sleeper].doing = Doing::Woken(taking);
                    self.answer(to, StepKind::Plain, op, Answer::Yes(true));
                    woke = true;
                }
                ToWake::Wait(wait) => {
                    let is_its = self.play.one_bit
                        || record.is_none_or(|record| record.number() == wait.number());
                    if is_its {
                        to.threads[sleeper].doing = Doing::Woken(taking);
                    }
                }
            }
        }
        if !woke {
            self.answer(to, StepKind::Plain, op, Answer::Yes(true));
        }
    }

    pub(super) fn ends_sleep(&mut self, taking: Taking, kind: StepKind, slept: Slept) {
        let mut to = *self.world;
        to.threads[self.thread].doing = Doing::Taking(taking);
        if slept == Slept::GiveUp {
            to.threads[self.thread].place = CountedPlace::None;
        }
        self.tell(to, kind, None, Answer::Slept(slept));
    }

    pub(super) fn gives_up(&mut self, taking: Taking) {
        if self.play.give_ups {
            self.ends_sleep(taking, StepKind::GiveUp, Slept::GiveUp);
        }
    }

    pub(super) fn is_inside(&mut self, told: Predecessor, job: Option<&Job>) {
        let me = self.me();
        if job == Some(&Job::Downgrade) {
            return self.downgrades(told);
        }
        if job == Some(&Job::Widen) && !self.world.word.is_wide() {
            let mut to = *self.world;
            to.threads[self.thread].doing = Doing::Marking(Marking::new(me, SlotMark::Wide), told);
            return self.done(to, StepKind::Plain, (None, None));
        }
        // A thread that holds under another's id finds that out when it releases.
        let other = self.play.other_id(self.thread);
        let me = if self.world.word.owner() == Some(other) { other } else { me };
        if job == Some(&Job::Rename) && me != other {
            let mut to = *self.world;
            to.threads[self.thread].doing = Doing::Renaming(Renaming::new(me, other), told);
            return self.done(to, StepKind::Plain, (None, None));
        }
        let unused = match self.play.mistake {
            Some(TableMistake::UnusedIsGivenBackClean) => Predecessor::Clean,
            _ => told,
        };
        let stays = job == Some(&Job::Stay);
        let mut hows = vec![(Predecessor::Clean, Predecessor::Clean, stays), (unused, told, false)];
        if job == Some(&Job::LockAndPanic) {
            hows.push((Predecessor::Panicked, Predecessor::Panicked, false));
        }
        hows.dedup();
        for (how, truth, stays_on) in hows {
            let mut to = *self.world;
            // Its word tells it only once it is released.
            if to.threads[self.thread].inside {
                to.truth = truth;
            }
            if stays && !stays_on {
                to.stay = AtLeast::Over(to.stay.next());
            }
            to.threads[self.thread].excludes = job == Some(&Job::WidenAlone);
            to.threads[self.thread].doing = Doing::Leaving(Leaving::held(me, how, stays_on));
            self.done(to, StepKind::Plain, (None, None));
        }
    }

    pub(super) fn forgets(&mut self) {
        let mut to = *self.world;
        let op = Op::Swap { from: Word::FREE, to: Word::retiring(self.me()) };
        if self.world.word == Word::FREE {
            if let Err(violation) = to.set_word(self.play, self.thread, Word::retiring(self.me())) {
                return self.violates(op, violation);
            }
            to.threads[self.thread].doing = Doing::Leaving(Leaving::retiring(self.me()));
        } else {
            to.next_job(self.play, self.thread);
        }
        self.done(to, StepKind::Plain, (Some(op), None));
    }

    /// Goes on once it has the structural lock.
    pub(super) fn has_structure(&mut self, doing: Doing) {
        let mut to = *self.world;
        if to.structure.is_some_and(|other| !to.is_dead(other.into())) {
            return;
        }
        to.structure = Some(self.thread as u8);
        to.threads[self.thread].doing = doing;
        self.done(to, StepKind::Plain, (None, None));
    }

    pub(super) fn is_elsewhere(&mut self, at: Elsewhere) {
        let mut to = *self.world;
        let next = match at {
            Elsewhere::Enlists => to.enlist(self.play, self.me()).map(Elsewhere::FillsIn),
            Elsewhere::FillsIn(wait) => {
                to.record_mut(wait).here = false;
                Some(Elsewhere::Publishes(wait))
            }
            Elsewhere::Publishes(wait) => {
                let record = to.record_mut(wait);
                if record.word.is_of(wait) {
                    record.word = record.word.standing();
                }
                Some(Elsewhere::Waits(wait))
            }
            Elsewhere::Waits(wait) => {
                to.erase(wait);
                None
            }
        };
        match next {
            Some(next) => to.threads[self.thread].doing = Doing::Elsewhere(next),
            None => to.next_job(self.play, self.thread),
        }
        self.done(to, StepKind::Plain, (None, None));
    }

    pub(super) fn answer(&mut self, to: World<N>, kind: StepKind, op: Op, answer: Answer) {
        self.tell(to, kind, Some(op), answer);
    }

    /// Tells the machine, and takes note of its end.
    pub(super) fn tell(
        &mut self,
        mut to: World<N>,
        kind: StepKind,
        op: Option<Op>,
        answer: Answer,
    ) {
        let told = to.heard(self.play, self.thread, answer);
        self.push(kind, (op, Some(answer)), told.map(|()| to));
    }

    pub(super) fn done(
        &mut self,
        to: World<N>,
        kind: StepKind,
        what: (Option<Op>, Option<Answer>),
    ) {
        self.push(kind, what, Ok(to));
    }

    fn violates(&mut self, op: Op, violation: Violation) {
        self.push(StepKind::Plain, (Some(op), None), Err(violation));
    }

    pub(super) fn push(
        &mut self,
        kind: StepKind,
        what: (Option<Op>, Option<Answer>),
        to: Result<World<N>, Violation>,
    ) {
        self.moves.push(Move { thread: self.thread, kind, what, to });
    }
}
