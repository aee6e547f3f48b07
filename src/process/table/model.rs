//! Every interleaving of a few processes on one slot, at the grain of single atomic operations,
//! sleeps and wakes, with a death, a stop and a give-up possible at every step.
//!
//! What runs here are the machines of `protocol` and the transitions of `word`, the very ones
//! that `lock` drives over shared memory; only memory, futex and clock are the model's. The model
//! assumes one order of all operations; that the real ones keep to it is argued at the word.
//!
//! - A *death* ends a process with all its threads for good, at any step.
//! - A *stop* is a process that makes no step for as long as one likes. So is a task that is not
//!   polled.
//! - *Timers* (a sleep that ends by itself, a reservation that is out of time, the end of
//!   `at_least`, a taker that is out of time) may fire at any time, so that nothing depends on how
//!   long they take.
//! - Several threads may be of one process, and write one id. One of them waits at a time, as
//!   the turnstile lets it; the others try.
//! - A record may be of a wait for another slot ([`Job::Elsewhere`]), and is used again and again.
//!
//! **First come, first served** is a property here: a waiter that stands, and has seen the word
//! say so before a hold began, or before its holder began to release or died, is overtaken by no
//! younger wait, unless it was passed over ([`CountedPlace`]).
//!
//! The sound protocol is run first; then each planted mistake, which must be found out.

mod explore;
mod mistakes;
mod permits;
mod play;
mod plays;
mod shared;
mod turn;
mod world;

use std::fmt;

use super::{
    protocol::{
        Answer, Draining, Leaving, Machine, Marking, Op, Reading, Reaping, Renaming, Slept, Taking,
        Unsharing,
    },
    share::ShareWord,
    step::Step,
    word::{OwnerId, RecordWord, SlotState, StayEnd, WaitId, Word},
};
use crate::error::Predecessor;

use self::{
    play::{Job, Play, RECORDS},
    turn::ThreadTurn,
};

/// The world between two steps.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct World<const N: usize> {
    word: Word,
    records: [ModelRecord; RECORDS],
    /// The highest number of a record ever taken.
    used: u8,
    /// The next time.
    now: u8,
    /// How the last one inside really left.
    truth: Predecessor,
    stay: AtLeast,
    /// The share record of each process, once it is in the chain; see [`shared`].
    shares: [Option<ShareWord>; N],
    bell: u8,
    /// Counted where a living process may be judged to be dead.
    token: u8,
    lied: bool,
    /// A lease of the name was granted: other machines may have the next.
    is_granted: bool,
    /// The thread that has the structural lock, or died with it.
    structure: Option<u8>,
    threads: [Thread; N],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct ModelRecord {
    word: RecordWord,
    /// It waits for the slot of the play.
    here: bool,
    since: u8,
}

/// Of the hold that has it, or had it last.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum AtLeast {
    None,
    Running(StayEnd),
    Over(StayEnd),
}

impl AtLeast {
    /// The end of the next one: no two are alike.
    fn next(self) -> StayEnd {
        let last = match self {
            AtLeast::None => 0,
            AtLeast::Running(end) | AtLeast::Over(end) => end.milliseconds(),
        };
        StayEnd::new(last + 1).expect("there are few")
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Thread {
    /// Which of its jobs it is at.
    job: u8,
    /// It took the word and has neither let it go nor died.
    inside: bool,
    /// It is its process's representative.
    represents: bool,
    place: CountedPlace,
    /// The token of its hold.
    token: u8,
    /// How far it is with reading a record, and what it read of it.
    look: RecordLook,
    /// It is inside as a reader.
    reads: bool,
    /// It is inside as a writer, in a play with readers; or has asked for the lease, which is then a
    /// writer's here or elsewhere.
    excludes: bool,
    /// So many permits are its.
    permits: u8,
    /// It found too few, and has waited in front since.
    is_in_front: bool,
    /// It goes without the permits it wanted.
    gave_up: bool,
    /// A mistake: it is to count its permits once it has released the word.
    counts_later: bool,
    doing: Doing,
}

/// What a waiter can count on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum CountedPlace {
    /// It does not stand, or was passed over.
    None,
    /// It stands, and has seen that the word says so.
    Stands,
    /// It did before the hold began that is, or before its holder began to release or died.
    Counts,
}

/// A record being read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum RecordLook {
    Nothing,
    ItsSlot,
    ItsWait(RecordWord),
    ItsSlotAgain(RecordWord),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Doing {
    /// Waits to be its process's representative.
    AtTurnstile,
    Taking(Taking),
    Asleep(Taking, Option<WaitId>),
    /// Woken, and not yet running.
    Woken(Taking),
    /// The task is to be polled.
    Parked(Taking),
    /// A mistake: the lock was won for a task that may never be polled.
    WonFor(Predecessor),
    /// Is to write down the end of `at_least`.
    WritesEnd(Predecessor),
    /// Between taking and releasing; how the one before left.
    Inside(Predecessor),
    Marking(Marking, Predecessor),
    /// Is about to have a share record.
    Linking,
    /// Comes in as a reader; whether it holds the word, and how the last holder left.
    ComingIn(Reading, Option<Predecessor>),
    /// Inside as a reader.
    Reads,
    HasPermits,
    /// A try that found the word taken.
    Passing,
    GoingOut(Unsharing),
    /// Holds the word, and waits until no reader is inside.
    Draining(Draining, Predecessor),
    AtBell(Draining, Predecessor),
    WokenByBell(Draining, Predecessor),
    /// Holds the word as an upgradable reader.
    Readable(Predecessor),
    Renaming(Renaming, Predecessor),
    Leaving(Leaving),
    Forgetting,
    Reaping(Reaping),
    /// Needs the structural lock, to settle this word.
    Queueing(Word),
    /// Finishes what a dead forgetter began, then starts its job again.
    Finishing(Reaping),
    /// With a wait for another slot.
    Elsewhere(Elsewhere),
    Done,
    Dead,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Elsewhere {
    Enlists,
    FillsIn(WaitId),
    Publishes(WaitId),
    Waits(WaitId),
}

/// A property that does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Violation {
    TwoInside,
    /// A taker is told something else about the one before than what happened.
    Untold,
    /// A holder's word was changed under it.
    Lost,
    /// A thread released the hold of another one of its process.
    FreedSibling,
    /// A process meets a word that cannot be.
    Nonsense,
    /// The widened mark is gone.
    Narrowed,
    /// A waiter that could count on its place was overtaken.
    Overtaken,
    /// The lock was taken before the end of `at_least`.
    RanTwice,
    /// The lock was taken at process scope though a service grants it.
    BesideOtherMachines,
    /// More permits are taken than there are.
    OverLimit,
    /// A try for a permit fails though there is one and no other waits in front.
    RefusedWithRoom,
    /// The word does not become quiet again.
    NeverQuiet,
    /// Without a death, a waiter needs a timer.
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
            Violation::Lost => "no holder loses what it holds",
            Violation::FreedSibling => "no thread releases another one's hold",
            Violation::Nonsense => "no word outside the table",
            Violation::Narrowed => "the widened mark stays",
            Violation::Overtaken => "first come, first served",
            Violation::RanTwice => "not taken before the end of at_least",
            Violation::BesideOtherMachines => {
                "none inside at process scope once a service grants the name"
            }
            Violation::OverLimit => "never a permit over the limit",
            Violation::RefusedWithRoom => "a try gets a permit that none waits for",
            Violation::NeverQuiet => "a lock without waiters becomes quiet again",
            Violation::NeedsTimer => "without deaths no waiter depends on a timer",
            Violation::NeverFinishes => "no state that cannot finish",
            Violation::HeldUpByStopped => "no process that is stopped outside holds others up",
        })
    }
}

/// What kind of step it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
enum StepKind {
    Plain,
    Timer,
    /// A taker's time is over, or its lock is not wanted any more.
    GiveUp,
    Death,
}

/// A step of one thread.
struct Move<const N: usize> {
    thread: usize,
    kind: StepKind,
    /// For people.
    what: (Option<Op>, Option<Answer>),
    to: Result<World<N>, Violation>,
}

impl<const N: usize> World<N> {
    fn new(play: &Play<N>) -> World<N> {
        let first = Thread {
            job: 0,
            inside: false,
            represents: false,
            place: CountedPlace::None,
            token: 0,
            look: RecordLook::Nothing,
            reads: false,
            excludes: false,
            permits: 0,
            is_in_front: false,
            gave_up: false,
            counts_later: false,
            doing: Doing::Done,
        };
        let free = ModelRecord { word: RecordWord::from_bits(0), here: false, since: 0 };
        let mut world = World {
            word: Word::FREE,
            records: [free; RECORDS],
            used: 0,
            now: 1,
            truth: Predecessor::Clean,
            shares: [None; N],
            bell: 0,
            stay: AtLeast::None,
            token: 0,
            lied: false,
            is_granted: false,
            structure: None,
            threads: [first; N],
        };
        for thread in 0..N {
            world.begin(play, thread);
        }
        world
    }

    fn is_dead(&self, thread: usize) -> bool {
        self.threads[thread].doing == Doing::Dead
    }

    fn is_dead_process(&self, play: &Play<N>, process: usize) -> bool {
        (0..N).any(|thread| play.process[thread] == process && self.is_dead(thread))
    }

    fn deaths(&self, play: &Play<N>) -> u32 {
        (0..N).filter(|process| self.is_dead_process(play, *process)).count() as u32
    }

    fn is_cut(&self, play: &Play<N>) -> bool {
        self.records.iter().any(|record| record.word.use_count() > play.uses_max)
    }

    /// Whether there is nothing left to do for it.
    fn is_done(&self, thread: usize) -> bool {
        matches!(self.threads[thread].doing, Doing::Done | Doing::Dead)
    }

    /// Begins the job that it is at.
    fn begin(&mut self, play: &Play<N>, thread: usize) {
        let me = play.id(thread);
        let at = &mut self.threads[thread];
        (at.represents, at.place) = (false, CountedPlace::None);
        (at.is_in_front, at.gave_up) = (false, false);
        at.doing = match play.jobs[thread].get(usize::from(at.job)) {
            None => Doing::Done,
            Some(Job::Lock | Job::LockAndPanic | Job::Stay | Job::Widen | Job::Rename)
                if play.has_siblings(thread) =>
            {
                Doing::AtTurnstile
            }
            Some(
                Job::Lock
                | Job::LockAndPanic
                | Job::Stay
                | Job::Widen
                | Job::Rename
                | Job::Upgrade
                | Job::Downgrade
                | Job::WidenAlone,
            ) => Doing::Taking(Taking::new(me, true, play.spins)),
            Some(
                Job::Read
                | Job::TryRead
                | Job::Acquire
                | Job::AcquireAll
                | Job::TryAcquire
                | Job::TryForGood,
            ) => Doing::Linking,
            Some(Job::Await) => Doing::Taking(Taking::for_task(me, play.spins)),
            Some(Job::Try) => Doing::Taking(Taking::new(me, false, 0)),
            Some(Job::Forget) => Doing::Forgetting,
            Some(Job::Sweep) => Doing::Reaping(Reaping::sweeping()),
            Some(Job::Elsewhere) => Doing::Elsewhere(Elsewhere::Enlists),
        };
    }

    fn next_job(&mut self, play: &Play<N>, thread: usize) {
        self.threads[thread].job += 1;
        self.begin(play, thread);
    }

    /// Every step that a thread can make.
    fn moves(&self, play: &Play<N>) -> Vec<Move<N>> {
        let mut moves = Vec::with_capacity(4 * N);
        for thread in (0..N).filter(|thread| !self.is_done(*thread)) {
            self.own_moves(play, thread, &mut moves);
        }
        if self.deaths(play) < play.deaths {
            for process in 0..N {
                let of_it = |thread: &usize| play.process[*thread] == process;
                let Some(thread) = (0..N).filter(of_it).find(|thread| !self.is_done(*thread))
                else {
                    continue;
                };
                let mut to = *self;
                to.die(play, process);
                let (kind, what) = (StepKind::Death, (None, None));
                moves.push(Move { thread, kind, what, to: Ok(to) });
            }
        }
        moves
    }

    fn die(&mut self, play: &Play<N>, process: usize) {
        let held = matches!(self.word.state(), Some(SlotState::Held(_)));
        for thread in (0..N).filter(|thread| play.process[*thread] == process) {
            let at = &mut self.threads[thread];
            at.doing = Doing::Dead;
            (at.reads, at.excludes) = (false, false);
            (at.permits, at.is_in_front) = (0, false);
            (at.look, at.place, at.represents) = (RecordLook::Nothing, CountedPlace::None, false);
            if std::mem::take(&mut at.inside) && held && play.owner(self.word) == Some(process) {
                self.truth = Predecessor::Died;
                // Its prover scans after this.
                self.count_on_places(thread);
            }
        }
    }

    /// Where its machine stands, if it is at one.
    fn step(&self, thread: usize) -> Option<Step> {
        match self.threads[thread].doing {
            Doing::Taking(taking) => Some(taking.step()),
            Doing::Parked(_) => Some(Step::TakePark),
            Doing::Marking(marking, _) => Some(marking.step()),
            Doing::ComingIn(reading, _) => Some(reading.step()),
            Doing::GoingOut(unsharing) => Some(unsharing.step()),
            Doing::Draining(draining, _) => Some(draining.step()),
            Doing::Renaming(renaming, _) => Some(renaming.step()),
            Doing::Leaving(leaving) => Some(leaving.step()),
            Doing::Reaping(reaping) | Doing::Finishing(reaping) => Some(reaping.step()),
            Doing::Forgetting => Some(Step::RetireBegin),
            _ => None,
        }
    }

    fn own_moves(&self, play: &Play<N>, thread: usize, moves: &mut Vec<Move<N>>) {
        let job = play.jobs[thread].get(usize::from(self.threads[thread].job));
        let step = self.step(thread);
        let mut turn = ThreadTurn { world: self, play, thread, step, moves };
        match self.threads[thread].doing {
            Doing::AtTurnstile => turn.passes_turnstile(),
            Doing::Taking(taking) => turn.machine(taking.op()),
            Doing::Marking(marking, _) => turn.machine(marking.op()),
            Doing::ComingIn(reading, _) => turn.machine(reading.op()),
            Doing::GoingOut(unsharing) => turn.machine(unsharing.op()),
            Doing::Draining(draining, _) => turn.machine(draining.op()),
            Doing::Linking if job.is_some_and(|job| job.permits(1).is_some()) => {
                turn.begins_to_acquire();
            }
            Doing::Linking => turn.links(),
            Doing::Reads => turn.reads_inside(),
            Doing::HasPermits => turn.has_permits(),
            Doing::Passing => turn.passes_others(),
            Doing::AtBell(draining, told) => turn.is_at_bell(draining, told),
            Doing::WokenByBell(draining, told) => turn.leaves_bell(draining, told, Slept::Woken),
            Doing::Readable(told) => turn.is_readable(told),
            Doing::Renaming(renaming, _) => turn.machine(renaming.op()),
            Doing::Leaving(leaving) => turn.machine(leaving.op()),
            Doing::Reaping(reaping) | Doing::Finishing(reaping) => turn.machine(reaping.op()),
            Doing::Asleep(taking, _) => {
                turn.ends_sleep(taking, StepKind::Timer, Slept::ByItself);
                turn.gives_up(taking);
            }
            Doing::Woken(taking) => {
                turn.ends_sleep(taking, StepKind::Plain, Slept::Woken);
                turn.gives_up(taking);
            }
            Doing::Parked(taking) => {
                turn.is_polled(taking);
                turn.gives_up(taking);
            }
            Doing::WonFor(told) => {
                let mut to = *self;
                to.threads[thread].inside = true;
                to.threads[thread].doing = Doing::Inside(told);
                turn.done(to, StepKind::Plain, (None, Some(Answer::Polled)));
            }
            Doing::WritesEnd(told) => {
                let mut to = *self;
                to.stay = AtLeast::Running(to.stay.next());
                to.threads[thread].doing = Doing::Inside(told);
                turn.done(to, StepKind::Plain, (None, None));
            }
            Doing::Inside(told) => turn.is_inside(told, job),
            Doing::Forgetting => turn.forgets(),
            Doing::Queueing(word) => {
                turn.has_structure(Doing::Finishing(Reaping::settling(word)));
            }
            Doing::Elsewhere(at) => turn.is_elsewhere(at),
            Doing::Done | Doing::Dead => {}
        }
    }
}

fn hear(machine: &mut impl Machine, answer: Answer) -> Op {
    machine.heard(answer);
    machine.op()
}
