//! Every interleaving of a few processes on one slot, at the grain of single atomic operations,
//! sleeps and wakes, with a death, a stop and a give-up possible at every step.
//!
//! What runs here are the machines of `protocol` and the transitions of `word`, the very ones
//! that `lock` drives over shared memory; only memory, futex and clock are the model's. The model
//! assumes one order of all operations; that the real ones keep to it is argued at the word.
//!
//! - A *death* ends a process for good, at any step.
//! - A *stop* is a process that makes no step for as long as one likes.
//! - *Timers* (a sleep that ends by itself, a reservation that lapses, a taker whose time is over)
//!   may fire at any time, so that nothing depends on how long they take.
//!
//! The sound protocol is run first; then each planted mistake, which must be found out.

mod explore;
mod mistakes;

use std::{collections::BTreeSet, fmt};

use super::{
    protocol::{
        Answer, Burying, Leaving, Machine, Op, Outcome, Place, Renaming, Slept, Taking, Verdict,
        Whom, Widening,
    },
    step::Step,
    word::{Heir, OwnerId, State, Word},
};
use crate::{error::Predecessor, time::Time};

use explore::{Report, explore};
use mistakes::Mistake;

/// What a process does, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Job {
    /// Waits for the lock and lets it go in good order, or gives it back unused.
    Lock,
    /// The same, and may let go panicking.
    LockAndPanic,
    /// Only tries.
    Try,
    /// Locks it and marks it as locked at host scope.
    Widen,
    /// Locks it and goes on holding it under another id.
    Rename,
    /// Forgets the name, if nobody uses it.
    Forget,
    /// Frees it, if its holder is dead.
    Sweep,
}

/// A few processes and what may befall them.
#[derive(Clone, Copy)]
struct Play<const N: usize> {
    jobs: [&'static [Job]; N],
    /// At most so many processes die.
    deaths: u32,
    /// Waiters' time may be over, futures be dropped.
    give_ups: bool,
    /// These sleep in a way that cannot be told from an heir's (`futex_waitv`).
    indistinct: [bool; N],
    /// The futex's half of the word does not tell the owners apart.
    same_low_half: bool,
    spins: u8,
    mistake: Option<Mistake>,
}

impl<const N: usize> Play<N> {
    const fn new(jobs: [&'static [Job]; N]) -> Play<N> {
        Play {
            jobs,
            deaths: N as u32,
            give_ups: true,
            indistinct: [false; N],
            same_low_half: false,
            spins: 0,
            mistake: None,
        }
    }

    fn id(&self, process: usize) -> OwnerId {
        let number = process as u64 + 1;
        OwnerId::new(if self.same_low_half { number << 16 | 1 } else { number }).unwrap()
    }

    /// Under which a process may go on holding.
    fn other_id(&self, process: usize) -> OwnerId {
        self.id(process + N)
    }

    fn process(&self, id: OwnerId) -> usize {
        (0..2 * N).find(|process| self.id(*process) == id).expect("an id of the play") % N
    }

    fn is_owned_by(&self, word: Word, process: usize) -> bool {
        word.owner().is_some_and(|owner| self.process(owner) == process)
    }
}

/// The world between two steps.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct World<const N: usize> {
    word: Word,
    heir: Heir,
    /// How the last one inside really left.
    truth: Predecessor,
    /// Who has the structural lock, or died with it.
    structure: Option<u8>,
    processes: [Process; N],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Process {
    /// Which of its jobs it is at.
    job: u8,
    /// It took the word and has neither let it go nor died.
    inside: bool,
    doing: Doing,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Doing {
    Taking(Taking),
    Asleep(Taking, Place),
    /// Woken, and not yet running.
    Woken(Taking),
    /// Between taking and letting go; how the one before left.
    Inside(Predecessor),
    Widening(Widening, Predecessor),
    Renaming(Renaming, Predecessor),
    Leaving(Leaving),
    Forgetting,
    Burying(Burying),
    /// Needs the structural lock, to settle this word.
    Queueing(Word),
    /// Finishes what a dead forgetter began, then starts its job again.
    Finishing(Burying),
    Done,
    Dead,
}

/// A property that does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Violation {
    TwoInside,
    /// Somebody is told something else about the one before than what happened.
    Untold,
    /// Somebody's word was changed under it.
    Lost,
    /// A process meets a word that cannot be.
    Nonsense,
    /// The widened mark is gone.
    Narrowed,
    /// Without a death, somebody waits for a timer.
    NeedsTimer,
    /// Not even timers help.
    NeverFinishes,
    /// A stopped process that holds nothing keeps others from going on.
    HeldUpByStopped,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Violation::TwoInside => "never two inside",
            Violation::Untold => "no death untold, and none told twice",
            Violation::Lost => "nobody loses what it holds",
            Violation::Nonsense => "no word outside the table",
            Violation::Narrowed => "the widened mark stays",
            Violation::NeedsTimer => "without deaths nobody depends on a timer",
            Violation::NeverFinishes => "no state that cannot finish",
            Violation::HeldUpByStopped => "nobody who is stopped outside holds others up",
        })
    }
}

/// What kind of step it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
enum Kind {
    Plain,
    Timer,
    /// A taker's time is over, or nobody wants its lock any more.
    GiveUp,
    Death,
}

/// A step of one process.
struct Move<const N: usize> {
    process: usize,
    kind: Kind,
    /// Where its machine stood.
    step: Option<Step>,
    /// For people.
    what: (Option<Op>, Option<Answer>),
    to: Result<World<N>, Violation>,
}

impl<const N: usize> World<N> {
    fn new(play: &Play<N>) -> World<N> {
        let first = Process { job: 0, inside: false, doing: Doing::Done };
        let mut world = World {
            word: Word::FREE,
            heir: Heir::NONE,
            truth: Predecessor::Clean,
            structure: None,
            processes: [first; N],
        };
        for process in 0..N {
            world.begin(play, process);
        }
        world
    }

    fn is_dead(&self, process: usize) -> bool {
        self.processes[process].doing == Doing::Dead
    }

    fn deaths(&self) -> u32 {
        (0..N).filter(|process| self.is_dead(*process)).count() as u32
    }

    /// Whether there is nothing left to do for it.
    fn is_done(&self, process: usize) -> bool {
        matches!(self.processes[process].doing, Doing::Done | Doing::Dead)
    }

    /// Begins the job that it is at.
    fn begin(&mut self, play: &Play<N>, process: usize) {
        let me = play.id(process);
        let at = &mut self.processes[process];
        at.doing = match play.jobs[process].get(usize::from(at.job)) {
            None => Doing::Done,
            Some(Job::Lock | Job::LockAndPanic | Job::Widen | Job::Rename) => {
                Doing::Taking(Taking::new(me, true, play.spins))
            }
            Some(Job::Try) => Doing::Taking(Taking::new(me, false, 0)),
            Some(Job::Forget) => Doing::Forgetting,
            Some(Job::Sweep) => Doing::Burying(Burying::sweeping()),
        };
    }

    fn next_job(&mut self, play: &Play<N>, process: usize) {
        self.processes[process].job += 1;
        self.begin(play, process);
    }

    /// Every step that anybody can make.
    fn moves(&self, play: &Play<N>) -> Vec<Move<N>> {
        let mut moves = Vec::with_capacity(4 * N);
        for process in (0..N).filter(|process| !self.is_done(*process)) {
            self.own_moves(play, process, &mut moves);
            if self.deaths() < play.deaths {
                let mut to = *self;
                to.die(play, process);
                let (kind, what) = (Kind::Death, (None, None));
                moves.push(Move { process, kind, step: None, what, to: Ok(to) });
            }
        }
        moves
    }

    fn die(&mut self, play: &Play<N>, process: usize) {
        let at = &mut self.processes[process];
        at.doing = Doing::Dead;
        let held = matches!(self.word.state(), Some(State::Held(_)));
        if std::mem::take(&mut at.inside) && held && play.is_owned_by(self.word, process) {
            self.truth = Predecessor::Died;
        }
    }

    /// Where its machine stands, if it is at one.
    fn step(&self, process: usize) -> Option<Step> {
        match self.processes[process].doing {
            Doing::Taking(taking) => Some(taking.step()),
            Doing::Widening(widening, _) => Some(widening.step()),
            Doing::Renaming(renaming, _) => Some(renaming.step()),
            Doing::Leaving(leaving) => Some(leaving.step()),
            Doing::Burying(burying) | Doing::Finishing(burying) => Some(burying.step()),
            Doing::Forgetting => Some(Step::RetireBegin),
            _ => None,
        }
    }

    fn own_moves(&self, play: &Play<N>, process: usize, moves: &mut Vec<Move<N>>) {
        let job = play.jobs[process].get(usize::from(self.processes[process].job));
        let step = self.step(process);
        let mut turn = Turn { world: self, play, process, step, moves };
        match self.processes[process].doing {
            Doing::Taking(taking) => turn.machine(taking.op()),
            Doing::Widening(widening, _) => turn.machine(widening.op()),
            Doing::Renaming(renaming, _) => turn.machine(renaming.op()),
            Doing::Leaving(leaving) => turn.machine(leaving.op()),
            Doing::Burying(burying) | Doing::Finishing(burying) => turn.machine(burying.op()),
            Doing::Asleep(taking, _) => {
                turn.ends_sleep(taking, Kind::Timer, Slept::ByItself);
                turn.gives_up(taking);
            }
            Doing::Woken(taking) => {
                turn.ends_sleep(taking, Kind::Plain, Slept::Woken);
                turn.gives_up(taking);
            }
            Doing::Inside(told) => turn.is_inside(told, job),
            Doing::Forgetting => turn.forgets(),
            Doing::Queueing(word) => {
                turn.has_structure(Doing::Finishing(Burying::settling(word)));
            }
            Doing::Done | Doing::Dead => {}
        }
    }
}

/// One process's turn.
struct Turn<'a, const N: usize> {
    world: &'a World<N>,
    play: &'a Play<N>,
    process: usize,
    step: Option<Step>,
    moves: &'a mut Vec<Move<N>>,
}

impl<const N: usize> Turn<'_, N> {
    fn me(&self) -> OwnerId {
        self.play.id(self.process)
    }

    fn machine(&mut self, op: Op) {
        let step = self.step.expect("a machine stands somewhere");
        let op = mistakes::bent_op(self.play.mistake, op, step, self.world.word, self.world.heir);
        let mut to = *self.world;
        match op {
            Op::Load => self.answer(to, Kind::Plain, op, Answer::Word(to.word)),
            Op::Swap { from, to: wanted } => {
                let blind = mistakes::is_blind(self.play.mistake, step);
                let found = if blind { from } else { to.word };
                if found == from
                    && let Err(violation) = to.set_word(self.play, self.process, wanted)
                {
                    return self.violates(op, violation);
                }
                self.answer(to, Kind::Plain, op, Answer::Word(found));
            }
            Op::LoadHeir => self.answer(to, Kind::Plain, op, Answer::Heir(to.heir)),
            Op::Stand(me) => {
                let found = to.heir;
                if found == Heir::NONE {
                    to.heir = Heir::new(me, Time::ZERO);
                }
                self.answer(to, Kind::Plain, op, Answer::Heir(found));
            }
            Op::Unseat { from } => {
                let found = to.heir;
                let stays = mistakes::is_skipped(self.play.mistake, step);
                if found == from && !stays {
                    to.heir = Heir::NONE;
                }
                self.answer(to, Kind::Plain, op, Answer::Heir(found));
            }
            Op::Stamp | Op::Pause(_) => self.answer(to, Kind::Plain, op, Answer::Done),
            Op::HasLapsed => {
                self.answer(to, Kind::Plain, op, Answer::Yes(false));
                if self.play.mistake != Some(Mistake::ReservationsNeverLapse) {
                    self.answer(to, Kind::Timer, op, Answer::Yes(true));
                }
            }
            Op::IsHungry => {
                self.answer(to, Kind::Plain, op, Answer::Yes(false));
                self.answer(to, Kind::Plain, op, Answer::Yes(true));
            }
            Op::Judge(owner) => self.judges(op, owner),
            Op::Sleep { seen, place } => self.goes_to_sleep(op, seen, place),
            Op::Wake(whom) => self.wakes(op, whom, step),
            Op::End(outcome) => unreachable!("{outcome:?} was not taken note of"),
        }
    }

    fn judges(&mut self, op: Op, owner: OwnerId) {
        let judged = self.play.process(owner);
        let named = self.world.word.owner() == Some(owner);
        let verdict = match (self.world.processes[judged].doing, self.play.mistake) {
            (_, Some(Mistake::NobodyLooksAtPresences)) => Verdict::Alive,
            (_, Some(Mistake::StoppedCountsAsDead)) => Verdict::Dead,
            // Presences are removed at a clean exit, and by whoever finds that no word names one.
            (Doing::Done, _) => Verdict::Missing,
            (Doing::Dead, _) => {
                if !named {
                    self.answer(*self.world, Kind::Plain, op, Answer::Verdict(Verdict::Missing));
                }
                Verdict::Dead
            }
            _ => Verdict::Alive,
        };
        self.answer(*self.world, Kind::Plain, op, Answer::Verdict(verdict));
    }

    fn goes_to_sleep(&mut self, op: Op, seen: Word, place: Place) {
        let Doing::Taking(taking) = self.world.processes[self.process].doing else {
            unreachable!("only takers sleep");
        };
        let seen = if self.play.mistake == Some(Mistake::SleepersDoNotMark) {
            self.world.word
        } else {
            seen
        };
        let changed = self.world.word.low_half() != seen.low_half();
        if changed && self.play.mistake != Some(Mistake::SleepersDoNotCompare) {
            self.answer(*self.world, Kind::Plain, op, Answer::Slept(Slept::Changed));
        } else {
            let mut to = *self.world;
            to.processes[self.process].doing = Doing::Asleep(taking, place);
            self.done(to, Kind::Plain, (Some(op), None));
        }
        self.gives_up(taking);
    }

    fn wakes(&mut self, op: Op, whom: Whom, step: Step) {
        if mistakes::is_skipped(self.play.mistake, step) {
            return self.answer(*self.world, Kind::Plain, op, Answer::Yes(true));
        }
        let mut woke = false;
        for sleeper in 0..N {
            let Doing::Asleep(taking, place) = self.world.processes[sleeper].doing else {
                continue;
            };
            if whom == Whom::Anyone || place == Place::Heir || self.play.indistinct[sleeper] {
                let mut to = *self.world;
                to.processes[sleeper].doing = Doing::Woken(taking);
                self.answer(to, Kind::Plain, op, Answer::Yes(true));
                woke = true;
            }
        }
        if !woke {
            self.answer(*self.world, Kind::Plain, op, Answer::Yes(false));
        }
    }

    fn ends_sleep(&mut self, taking: Taking, kind: Kind, slept: Slept) {
        let mut to = *self.world;
        to.processes[self.process].doing = Doing::Taking(taking);
        self.tell(to, kind, None, Answer::Slept(slept));
    }

    fn gives_up(&mut self, taking: Taking) {
        if self.play.give_ups {
            self.ends_sleep(taking, Kind::GiveUp, Slept::GiveUp);
        }
    }

    fn is_inside(&mut self, told: Predecessor, job: Option<&Job>) {
        let me = self.me();
        if job == Some(&Job::Widen) && !self.world.word.is_wide() {
            let mut to = *self.world;
            to.processes[self.process].doing = Doing::Widening(Widening::new(me), told);
            return self.done(to, Kind::Plain, (None, None));
        }
        // Whoever lost it finds out when it lets go.
        let other = self.play.other_id(self.process);
        let me = if self.world.word.owner() == Some(other) { other } else { me };
        if job == Some(&Job::Rename) && me != other {
            let mut to = *self.world;
            to.processes[self.process].doing = Doing::Renaming(Renaming::new(me, other), told);
            return self.done(to, Kind::Plain, (None, None));
        }
        let unused = match self.play.mistake {
            Some(Mistake::UnusedIsGivenBackClean) => Predecessor::Clean,
            _ => told,
        };
        let mut hows = vec![(Predecessor::Clean, Predecessor::Clean), (unused, told)];
        if job == Some(&Job::LockAndPanic) {
            hows.push((Predecessor::Panicked, Predecessor::Panicked));
        }
        hows.dedup();
        for (how, truth) in hows {
            let mut to = *self.world;
            // Nobody can be told before the word is let go.
            to.truth = truth;
            to.processes[self.process].doing = Doing::Leaving(Leaving::held(me, how));
            self.done(to, Kind::Plain, (None, None));
        }
    }

    fn forgets(&mut self) {
        let mut to = *self.world;
        let op = Op::Swap { from: Word::FREE, to: Word::retiring(self.me()) };
        if self.world.word == Word::FREE {
            if let Err(violation) = to.set_word(self.play, self.process, Word::retiring(self.me()))
            {
                return self.violates(op, violation);
            }
            to.processes[self.process].doing = Doing::Leaving(Leaving::retiring(self.me()));
        } else {
            to.next_job(self.play, self.process);
        }
        self.done(to, Kind::Plain, (Some(op), None));
    }

    /// Goes on once it has the structural lock, and what a dead one left with that is settled.
    fn has_structure(&mut self, doing: Doing) {
        let mut to = *self.world;
        if let Some(other) = to.structure.map(usize::from) {
            if !to.is_dead(other) {
                return;
            }
        }
        to.structure = Some(self.process as u8);
        to.processes[self.process].doing = doing;
        self.done(to, Kind::Plain, (None, None));
    }

    fn answer(&mut self, to: World<N>, kind: Kind, op: Op, answer: Answer) {
        self.tell(to, kind, Some(op), answer);
    }

    /// Tells the machine, and takes note of its end.
    fn tell(&mut self, mut to: World<N>, kind: Kind, op: Option<Op>, answer: Answer) {
        let told = to.heard(self.play, self.process, answer);
        self.push(kind, (op, Some(answer)), told.map(|()| to));
    }

    fn done(&mut self, to: World<N>, kind: Kind, what: (Option<Op>, Option<Answer>)) {
        self.push(kind, what, Ok(to));
    }

    fn violates(&mut self, op: Op, violation: Violation) {
        self.push(Kind::Plain, (Some(op), None), Err(violation));
    }

    fn push(
        &mut self,
        kind: Kind,
        what: (Option<Op>, Option<Answer>),
        to: Result<World<N>, Violation>,
    ) {
        self.moves.push(Move { process: self.process, kind, step: self.step, what, to });
    }
}

impl<const N: usize> World<N> {
    /// Changes the word, watching over what must hold.
    fn set_word(&mut self, play: &Play<N>, process: usize, to: Word) -> Result<(), Violation> {
        let (was, is) = (play.is_owned_by(self.word, process), play.is_owned_by(to, process));
        if is && !was {
            if self.processes.iter().any(|other| other.inside) {
                return Err(Violation::TwoInside);
            }
            self.processes[process].inside = true;
        }
        if was && !is {
            self.processes[process].inside = false;
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

    fn heard(&mut self, play: &Play<N>, process: usize, answer: Answer) -> Result<(), Violation> {
        let at = &mut self.processes[process];
        let op = match &mut at.doing {
            Doing::Taking(machine) => hear(machine, answer),
            Doing::Widening(machine, _) => hear(machine, answer),
            Doing::Renaming(machine, _) => hear(machine, answer),
            Doing::Leaving(machine) => hear(machine, answer),
            Doing::Burying(machine) | Doing::Finishing(machine) => hear(machine, answer),
            doing => unreachable!("{doing:?} hears nothing"),
        };
        match op {
            Op::End(outcome) => self.ended(play, process, outcome),
            _ => Ok(()),
        }
    }

    fn ended(&mut self, play: &Play<N>, process: usize, outcome: Outcome) -> Result<(), Violation> {
        let doing = self.processes[process].doing;
        match (outcome, doing) {
            (Outcome::Won(told), _) => {
                let told = match play.mistake {
                    Some(Mistake::RecoveriesTellNothing) => Predecessor::Clean,
                    _ => told,
                };
                if told != self.truth {
                    return Err(Violation::Untold);
                }
                self.processes[process].doing = Doing::Inside(told);
            }
            (Outcome::Widened, Doing::Widening(_, told))
            | (Outcome::Renamed, Doing::Renaming(_, told)) => {
                self.processes[process].doing = Doing::Inside(told);
            }
            (Outcome::Unsettled(word), Doing::Burying(_)) => {
                self.processes[process].doing = Doing::Queueing(word);
            }
            (Outcome::Unsettled(word), _) => {
                self.processes[process].doing = Doing::Queueing(word);
            }
            (Outcome::Buried | Outcome::Nothing, Doing::Finishing(_)) => {
                self.structure = None;
                self.begin(play, process);
            }
            (
                Outcome::WouldBlock
                | Outcome::GaveUp
                | Outcome::LetGo
                | Outcome::Buried
                | Outcome::Nothing,
                _,
            ) => self.next_job(play, process),
            (Outcome::Lost | Outcome::OurOwn, _) => return Err(Violation::Lost),
            (outcome, _) => {
                let _ = outcome;
                return Err(Violation::Nonsense);
            }
        }
        Ok(())
    }
}

fn hear(machine: &mut impl Machine, answer: Answer) -> Op {
    machine.heard(answer);
    machine.op()
}

// ---- the plays -----------------------------------------------------------------------------

use Job::*;

/// Nothing may be found.
fn is_sound<const N: usize>(title: &str, play: &Play<N>) -> Report {
    let report = explore(play);
    println!("{title}: {} worlds, {} steps", report.worlds, report.moves);
    if let Some((violation, story)) = &report.violation {
        panic!("{title}: it is not so that {violation}\n{story}");
    }
    report
}

fn two() -> Vec<(&'static str, Play<2>)> {
    let lock: &[Job] = &[Lock, LockAndPanic, Lock];
    vec![
        ("two lock", Play::new([lock, lock])),
        ("two lock and spin", Play { spins: 2, ..Play::new([lock, &[Lock, Lock]]) }),
        ("one tries", Play::new([lock, &[Try, Lock, Try]])),
        ("one widens", Play::new([&[Lock, Try, Lock], &[Widen, Lock]])),
        ("one takes another id", Play::new([lock, &[Rename, Try, Rename]])),
        ("both forget", Play::new([&[Lock, Forget, Lock], &[Forget, Lock, Forget]])),
        ("both sweep", Play::new([&[Lock, Sweep, Lock], &[Sweep, LockAndPanic, Sweep]])),
    ]
}

fn three() -> Vec<(&'static str, Play<3>)> {
    let lock: &[Job] = &[Lock];
    let three = Play::new([lock, lock, lock]);
    vec![
        ("two lock, one forgets", Play::new([lock, lock, &[Forget]])),
        ("two lock, one sweeps", Play::new([lock, lock, &[Sweep]])),
        ("three lock", Play { indistinct: [true, true, false], same_low_half: true, ..three }),
    ]
}

/// Where a reservation follows on one that somebody still believes in.
fn again() -> Play<3> {
    Play { deaths: 0, ..Play::new([&[Lock], &[Lock], &[Try, Lock]]) }
}

#[test]
fn two_and_three_processes_in_every_order() {
    let two = two().into_iter().map(|(title, play)| is_sound(title, &play));
    let three = three().into_iter().map(|(title, play)| is_sound(title, &play));
    let reports: Vec<Report> = two.chain(three).collect();

    // The model met every row of the word's table, and no other.
    let rows: BTreeSet<_> = reports.iter().flat_map(|report| &report.rows).copied().collect();
    assert_eq!(rows, Word::rows());
    let made: BTreeSet<_> = reports.iter().flat_map(|report| &report.steps).copied().collect();
    let machines = Step::ALL.iter().filter(|step| **step <= Step::RetireBegun);
    let unmade: Vec<_> = machines.filter(|step| !made.contains(step)).collect();
    let outside =
        [Step::TakeEnd, Step::TakeEntered, Step::LeaveEnd, Step::BuryEnd, Step::RetireBegun];
    assert_eq!(unmade, outside.iter().collect::<Vec<_>>(), "the machines' steps are all made");
}

/// `cargo test --release --all-features --lib table::model -- --ignored --nocapture`: 98 million
/// steps, 80 s, 3 GB.
#[test]
#[ignore = "takes minutes, and gigabytes"]
fn three_processes_that_lock_again_in_every_order() {
    let lock: &[Job] = &[Lock];
    is_sound("three lock, told apart", &Play::new([lock, lock, lock]));
    is_sound("one locks again", &Play { deaths: 3, ..again() });
    is_sound("one locks again and widens", &Play::new([lock, lock, &[Try, Widen]]));
    is_sound("one takes another id", &Play::new([lock, lock, &[Rename]]));
    let panics: &[Job] = &[LockAndPanic, Lock];
    let waits = [true, false, false];
    is_sound(
        "two lock again",
        &Play { deaths: 1, indistinct: waits, ..Play::new([panics, panics, lock]) },
    );
}

#[test]
fn every_planted_mistake_is_found() {
    for (mistake, may_break) in Mistake::ALL {
        let mistake = *mistake;
        let two = two().into_iter().map(|(_, play)| explore(&Play { mistake, ..play }));
        let three = three().into_iter().map(|(_, play)| explore(&Play { mistake, ..play }));
        let again = std::iter::once_with(|| explore(&Play { mistake, ..again() }));
        let found = two.chain(three).chain(again).find_map(|report| report.violation);
        let (violation, story) = found.unwrap_or_else(|| panic!("{mistake:?} is not found"));
        println!("{:?}: it is not so that {violation}", mistake.unwrap());
        assert!(may_break.contains(&violation), "{mistake:?} breaks {violation:?}:\n{story}");
    }
}
