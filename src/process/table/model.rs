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
//! younger wait, unless it was passed over ([`Place`]).
//!
//! The sound protocol is run first; then each planted mistake, which must be found out.

mod explore;
mod mistakes;
mod permits;
mod plays;
mod shared;

use std::fmt;

use super::{
    protocol::{
        Answer, Burying, Draining, Leaving, Machine, Mark, Marking, Op, Outcome, ReadRecord,
        Reading, Renaming, Slept, Taking, Unsharing, Verdict, Whom,
    },
    share::ShareWord,
    step::Step,
    word::{OwnerId, RecordWord, State, StayEnd, WaitId, Word},
};
use crate::error::Predecessor;

use mistakes::Mistake;

/// What a thread does, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Job {
    /// Waits for the lock and releases it in good order, or gives it back unused.
    Lock,
    /// The same, and may release it panicking.
    LockAndPanic,
    /// The same, as a task: polled, and waited for by a thread that takes nothing.
    Await,
    /// Only tries.
    Try,
    /// Locks it with `at_least`.
    Stay,
    /// Locks it and marks it as locked at host scope.
    Widen,
    /// Locks it and goes on holding it under another id.
    Rename,
    /// Forgets the name, if it is not used.
    Forget,
    /// Releases it, if its holder is dead.
    Sweep,
    /// Waits for another slot for a while, in a record of this table.
    Elsewhere,
    /// Comes in as a reader, quietly if it can, and else behind those that wait.
    Read,
    /// Only tries that, quietly.
    TryRead,
    /// Locks it as an upgradable reader, and becomes a writer or not.
    Upgrade,
    /// Locks it and becomes a reader.
    Downgrade,
    /// Waits for a permit.
    Acquire,
    /// Waits for all permits.
    AcquireAll,
    /// Only tries for a permit.
    TryAcquire,
    /// Only tries for a permit, and never returns it.
    TryForGood,
}

impl Job {
    /// Its holder waits until no reader is inside.
    fn drains(self) -> bool {
        matches!(self, Job::Lock | Job::LockAndPanic | Job::Try | Job::Downgrade)
    }

    /// It waits for the word, if it has to.
    fn waits(self) -> bool {
        !matches!(self, Job::Try | Job::TryRead | Job::TryAcquire | Job::TryForGood)
    }

    fn shares(self) -> bool {
        matches!(self, Job::Read | Job::TryRead | Job::Upgrade | Job::Downgrade)
            || self.permits(1).is_some()
    }
}

/// A few threads and what may befall them.
#[derive(Clone, Copy)]
struct Play<const N: usize> {
    jobs: [&'static [Job]; N],
    /// Of which process each thread is.
    process: [usize; N],
    /// At most so many processes die.
    deaths: u32,
    /// Waiters' time may be over, futures be dropped.
    give_ups: bool,
    /// All records share one futex bit.
    one_bit: bool,
    /// The futex's half of the word does not tell the owners apart.
    same_low_half: bool,
    /// A record is read in four steps, as `lock` does.
    fine: bool,
    /// Once, a living process is judged to be dead.
    lies: bool,
    /// Whether each waiter has waited for so long that it may have a record, if that is not left
    /// open.
    hunger: Option<bool>,
    /// Two waiters may pass each other over for ever, if each is always late. So a play is cut where
    /// a record has been used so often: what comes then is taken to end well.
    uses_max: u32,
    spins: u8,
    /// How many permits there are.
    limit: u32,
    mistake: Option<Mistake>,
}

/// As many records as threads, and none to spare.
const RECORDS: usize = 3;

impl<const N: usize> Play<N> {
    const fn new(jobs: [&'static [Job]; N]) -> Play<N> {
        let mut process = [0; N];
        let mut thread = 0;
        while thread < N {
            process[thread] = thread;
            thread += 1;
        }
        Play {
            jobs,
            process,
            deaths: N as u32,
            give_ups: true,
            one_bit: false,
            same_low_half: false,
            fine: false,
            lies: false,
            hunger: None,
            uses_max: u32::MAX,
            spins: 0,
            limit: 2,
            mistake: None,
        }
    }

    fn id(&self, thread: usize) -> OwnerId {
        self.id_of(self.process[thread])
    }

    fn id_of(&self, process: usize) -> OwnerId {
        let number = process as u64 + 1;
        OwnerId::new(if self.same_low_half { number << 16 | 1 } else { number }).unwrap()
    }

    /// Under which a process may go on holding.
    fn other_id(&self, thread: usize) -> OwnerId {
        self.id_of(self.process[thread] + N)
    }

    fn process_of(&self, id: OwnerId) -> usize {
        (0..2 * N).find(|process| self.id_of(*process) == id).expect("an id of the play") % N
    }

    fn owner(&self, word: Word) -> Option<usize> {
        word.owner().map(|owner| self.process_of(owner))
    }

    fn has(&self, job: Job) -> bool {
        self.jobs.iter().any(|jobs| jobs.contains(&job))
    }

    /// Whether the name is ever shared.
    fn shares(&self) -> bool {
        self.jobs.iter().any(|jobs| jobs.iter().any(|job| job.shares()))
    }

    fn has_siblings(&self, thread: usize) -> bool {
        (0..N).any(|other| other != thread && self.process[other] == self.process[thread])
    }
}

/// The world between two steps.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct World<const N: usize> {
    word: Word,
    records: [Record; RECORDS],
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
    /// The thread that has the structural lock, or died with it.
    structure: Option<u8>,
    threads: [Thread; N],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Record {
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
    place: Place,
    /// The token of its hold.
    token: u8,
    /// How far it is with reading a record, and what it read of it.
    look: RecordLook,
    /// It is inside as a reader.
    reads: bool,
    /// It is inside as a writer, in a play with readers.
    excludes: bool,
    /// So many permits are its.
    permits: u8,
    /// It found too few, and has waited in front since.
    is_in_front: bool,
    /// It goes without the permits it wanted.
    gave_up: bool,
    /// A mistake: it is to count its permits once it has let go of the word.
    counts_later: bool,
    doing: Doing,
}

/// What a waiter can count on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Place {
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
    Whose(RecordWord),
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
    Burying(Burying),
    /// Needs the structural lock, to settle this word.
    Queueing(Word),
    /// Finishes what a dead forgetter began, then starts its job again.
    Finishing(Burying),
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
enum Kind {
    Plain,
    Timer,
    /// A taker's time is over, or its lock is not wanted any more.
    GiveUp,
    Death,
}

/// A step of one thread.
struct Move<const N: usize> {
    thread: usize,
    kind: Kind,
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
            place: Place::None,
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
        let free = Record { word: RecordWord::from_bits(0), here: false, since: 0 };
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
        (at.represents, at.place) = (false, Place::None);
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
                | Job::Downgrade,
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
            Some(Job::Sweep) => Doing::Burying(Burying::sweeping()),
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
                let (kind, what) = (Kind::Death, (None, None));
                moves.push(Move { thread, kind, what, to: Ok(to) });
            }
        }
        moves
    }

    fn die(&mut self, play: &Play<N>, process: usize) {
        let held = matches!(self.word.state(), Some(State::Held(_)));
        for thread in (0..N).filter(|thread| play.process[*thread] == process) {
            let at = &mut self.threads[thread];
            at.doing = Doing::Dead;
            (at.reads, at.excludes) = (false, false);
            (at.permits, at.is_in_front) = (0, false);
            (at.look, at.place, at.represents) = (RecordLook::Nothing, Place::None, false);
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
            Doing::Burying(burying) | Doing::Finishing(burying) => Some(burying.step()),
            Doing::Forgetting => Some(Step::RetireBegin),
            _ => None,
        }
    }

    fn own_moves(&self, play: &Play<N>, thread: usize, moves: &mut Vec<Move<N>>) {
        let job = play.jobs[thread].get(usize::from(self.threads[thread].job));
        let step = self.step(thread);
        let mut turn = Turn { world: self, play, thread, step, moves };
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
            Doing::Burying(burying) | Doing::Finishing(burying) => turn.machine(burying.op()),
            Doing::Asleep(taking, _) => {
                turn.ends_sleep(taking, Kind::Timer, Slept::ByItself);
                turn.gives_up(taking);
            }
            Doing::Woken(taking) => {
                turn.ends_sleep(taking, Kind::Plain, Slept::Woken);
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
                turn.done(to, Kind::Plain, (None, Some(Answer::Polled)));
            }
            Doing::WritesEnd(told) => {
                let mut to = *self;
                to.stay = AtLeast::Running(to.stay.next());
                to.threads[thread].doing = Doing::Inside(told);
                turn.done(to, Kind::Plain, (None, None));
            }
            Doing::Inside(told) => turn.is_inside(told, job),
            Doing::Forgetting => turn.forgets(),
            Doing::Queueing(word) => {
                turn.has_structure(Doing::Finishing(Burying::settling(word)));
            }
            Doing::Elsewhere(at) => turn.is_elsewhere(at),
            Doing::Done | Doing::Dead => {}
        }
    }
}

/// One thread's turn.
struct Turn<'a, const N: usize> {
    world: &'a World<N>,
    play: &'a Play<N>,
    thread: usize,
    step: Option<Step>,
    moves: &'a mut Vec<Move<N>>,
}

impl<const N: usize> Turn<'_, N> {
    fn me(&self) -> OwnerId {
        self.play.id(self.thread)
    }

    fn has_mistake(&self, mistake: Mistake) -> bool {
        self.play.mistake == Some(mistake)
    }

    fn passes_turnstile(&mut self) {
        let process = self.play.process[self.thread];
        let taken = (0..N).any(|other| {
            self.play.process[other] == process && self.world.threads[other].represents
        });
        if !taken {
            let mut to = *self.world;
            to.threads[self.thread].represents = true;
            let taking = Taking::new(self.me(), true, self.play.spins);
            to.threads[self.thread].doing = Doing::Taking(taking);
            self.done(to, Kind::Plain, (None, None));
        }
    }

    fn machine(&mut self, op: Op) {
        let step = self.step.expect("a machine stands somewhere");
        let mut to = *self.world;
        let op = mistakes::bent_op(self.play, &to, op, step);
        let skipped = mistakes::is_skipped(self.play.mistake, step);
        let done = Kind::Plain;
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
                    self.answer(to, Kind::Timer, op, Answer::Stay(None));
                }
                _ => self.answer(to, done, op, Answer::Stay(None)),
            },
            Op::IsOver(end) if to.stay == AtLeast::Running(end) => {
                self.answer(to, done, op, Answer::Yes(false));
                to.stay = AtLeast::Over(end);
                self.answer(to, Kind::Timer, op, Answer::Yes(true));
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
                    record.word = match self.has_mistake(Mistake::ReturnedAsBefore) {
                        true => from.standing(),
                        false => from.returned(),
                    };
                }
                self.answer(to, done, op, Answer::Record(found));
            }
            Op::Erase(wait) => {
                if !skipped {
                    to.erase(wait);
                    to.threads[self.thread].place = Place::None;
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
                if !self.has_mistake(Mistake::ReservationsNeverLapse) {
                    self.answer(to, Kind::Timer, op, Answer::Yes(true));
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
            Op::Wake(whom) => self.wakes(op, whom, skipped),
            Op::End(outcome) => unreachable!("{outcome:?} was not taken note of"),
        }
    }

    /// Compares the token and exchanges the word: one step here. Between the two a guard that is
    /// stopped cannot be told from one that still holds.
    fn sees_token(&mut self, op: Op) {
        let same = !self.play.lies
            || self.has_mistake(Mistake::TokenIsNotCompared)
            || self.world.threads[self.thread].token == self.world.token;
        let mut to = *self.world;
        if let Err(violation) = to.heard(self.play, self.thread, Answer::Yes(same)) {
            return self.violates(op, violation);
        }
        let step = to.step(self.thread);
        match to.threads[self.thread].doing {
            Doing::Leaving(leaving) if same && leaving.op() != Op::SeeStay => {
                let mut turn = Turn {
                    world: &to,
                    play: self.play,
                    thread: self.thread,
                    step,
                    moves: self.moves,
                };
                turn.machine(leaving.op());
            }
            _ => self.done(to, Kind::Plain, (Some(op), Some(Answer::Yes(same)))),
        }
    }

    /// Reads one record: in one step, or as `lock` does.
    fn reads(&mut self, op: Op, number: u16, skipped: bool) {
        let mut to = *self.world;
        if let Doing::Leaving(_) = to.threads[self.thread].doing
            && number == 1
            && to.threads[self.thread].inside
        {
            to.count_on_places(self.thread);
        }
        let at = usize::from(number) - 1;
        if skipped || at >= usize::from(to.used) {
            return self.answer(to, Kind::Plain, op, Answer::Read(ReadRecord::Beyond));
        }
        let Record { word, here, since } = to.records[at];
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
            (true, RecordLook::ItsSlot) if is_to_wait => Ok(RecordLook::Whose(word)),
            (true, RecordLook::Whose(word)) if here => Ok(RecordLook::ItsSlotAgain(word)),
            (true, RecordLook::ItsSlotAgain(word)) => Err(stands(word)),
            (true, _) => Err(ReadRecord::Nothing),
        };
        match next {
            Ok(reading) => {
                to.threads[self.thread].look = reading;
                self.done(to, Kind::Plain, (Some(op), None));
            }
            Err(read) => {
                to.threads[self.thread].look = RecordLook::Nothing;
                self.answer(to, Kind::Plain, op, Answer::Read(read));
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
        let verdict = match self.play.mistake {
            Some(Mistake::PresencesAreNotJudged) => Verdict::Alive,
            Some(Mistake::StoppedCountsAsDead) => Verdict::Dead,
            Some(Mistake::DeadReadersCount | Mistake::DeadPermitsCount)
                if self.step == Some(Step::DrainJudge) =>
            {
                Verdict::Alive
            }
            Some(Mistake::LivingReadersAreStruck | Mistake::LivingPermitsAreStruck)
                if self.step == Some(Step::DrainJudge) =>
            {
                Verdict::Dead
            }
            _ if is_dead => {
                if !named {
                    self.answer(*self.world, Kind::Plain, op, Answer::Verdict(Verdict::Missing));
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
            self.answer(to, Kind::Timer, op, Answer::Verdict(Verdict::Dead));
        }
        self.answer(*self.world, Kind::Plain, op, Answer::Verdict(verdict));
    }

    fn goes_to_sleep(&mut self, op: Op, seen: Word, record: Option<WaitId>) {
        let Doing::Taking(taking) = self.world.threads[self.thread].doing else {
            unreachable!("only takers sleep");
        };
        let marks = !self.has_mistake(Mistake::SleepersDoNotMark);
        let seen = if marks { seen } else { self.world.word };
        let mut to = *self.world;
        let says_so = seen.is_hungry() || seen.reserved_for().is_some();
        let stands = record.is_some_and(|wait| {
            to.record(wait).word.is_of(wait) && !to.record(wait).word.is_passed()
        });
        if stands && says_so {
            let place = &mut to.threads[self.thread].place;
            *place = (*place).max(Place::Stands);
        }
        let changed = self.world.word.low_half() != seen.low_half();
        if changed && !self.has_mistake(Mistake::SleepersDoNotCompare) {
            self.answer(to, Kind::Plain, op, Answer::Slept(Slept::Changed));
        } else {
            to.threads[self.thread].doing = Doing::Asleep(taking, record);
            self.done(to, Kind::Plain, (Some(op), None));
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
        if self.has_mistake(Mistake::TasksAreWonFor) && is_its {
            let told = to.word.left();
            to.word = to.word.seized(self.me());
            to.erase(taking.record().expect("its own"));
            to.threads[self.thread].doing = Doing::WonFor(told);
        }
        self.done(to, Kind::Plain, (Some(Op::Park), None));
    }

    fn is_polled(&mut self, taking: Taking) {
        let mut to = *self.world;
        to.threads[self.thread].doing = Doing::Taking(taking);
        self.tell(to, Kind::Plain, None, Answer::Polled);
    }

    fn wakes(&mut self, op: Op, whom: Whom, skipped: bool) {
        let mut to = *self.world;
        if skipped {
            return self.answer(to, Kind::Plain, op, Answer::Yes(true));
        }
        let mut woke = false;
        for sleeper in 0..N {
            let Doing::Asleep(taking, record) = self.world.threads[sleeper].doing else {
                continue;
            };
            match whom {
                Whom::One => {
                    let mut to = *self.world;
                    to.threads[sleeper].doing = Doing::Woken(taking);
                    self.answer(to, Kind::Plain, op, Answer::Yes(true));
                    woke = true;
                }
                Whom::Wait(wait) => {
                    let is_its = self.play.one_bit
                        || record.is_none_or(|record| record.number() == wait.number());
                    if is_its {
                        to.threads[sleeper].doing = Doing::Woken(taking);
                    }
                }
            }
        }
        if !woke {
            self.answer(to, Kind::Plain, op, Answer::Yes(true));
        }
    }

    fn ends_sleep(&mut self, taking: Taking, kind: Kind, slept: Slept) {
        let mut to = *self.world;
        to.threads[self.thread].doing = Doing::Taking(taking);
        if slept == Slept::GiveUp {
            to.threads[self.thread].place = Place::None;
        }
        self.tell(to, kind, None, Answer::Slept(slept));
    }

    fn gives_up(&mut self, taking: Taking) {
        if self.play.give_ups {
            self.ends_sleep(taking, Kind::GiveUp, Slept::GiveUp);
        }
    }

    fn is_inside(&mut self, told: Predecessor, job: Option<&Job>) {
        let me = self.me();
        if job == Some(&Job::Downgrade) {
            return self.downgrades(told);
        }
        if job == Some(&Job::Widen) && !self.world.word.is_wide() {
            let mut to = *self.world;
            to.threads[self.thread].doing = Doing::Marking(Marking::new(me, Mark::Wide), told);
            return self.done(to, Kind::Plain, (None, None));
        }
        // A thread that holds under another's id finds that out when it releases.
        let other = self.play.other_id(self.thread);
        let me = if self.world.word.owner() == Some(other) { other } else { me };
        if job == Some(&Job::Rename) && me != other {
            let mut to = *self.world;
            to.threads[self.thread].doing = Doing::Renaming(Renaming::new(me, other), told);
            return self.done(to, Kind::Plain, (None, None));
        }
        let unused = match self.play.mistake {
            Some(Mistake::UnusedIsGivenBackClean) => Predecessor::Clean,
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
            to.threads[self.thread].excludes = false;
            to.threads[self.thread].doing = Doing::Leaving(Leaving::held(me, how, stays_on));
            self.done(to, Kind::Plain, (None, None));
        }
    }

    fn forgets(&mut self) {
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
        self.done(to, Kind::Plain, (Some(op), None));
    }

    /// Goes on once it has the structural lock.
    fn has_structure(&mut self, doing: Doing) {
        let mut to = *self.world;
        if to.structure.is_some_and(|other| !to.is_dead(other.into())) {
            return;
        }
        to.structure = Some(self.thread as u8);
        to.threads[self.thread].doing = doing;
        self.done(to, Kind::Plain, (None, None));
    }

    fn is_elsewhere(&mut self, at: Elsewhere) {
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
        self.done(to, Kind::Plain, (None, None));
    }

    fn answer(&mut self, to: World<N>, kind: Kind, op: Op, answer: Answer) {
        self.tell(to, kind, Some(op), answer);
    }

    /// Tells the machine, and takes note of its end.
    fn tell(&mut self, mut to: World<N>, kind: Kind, op: Option<Op>, answer: Answer) {
        let told = to.heard(self.play, self.thread, answer);
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
        self.moves.push(Move { thread: self.thread, kind, what, to });
    }
}

impl<const N: usize> World<N> {
    // ---- records -------------------------------------------------------------------------------

    fn record(&self, wait: WaitId) -> &Record {
        &self.records[usize::from(wait.number()) - 1]
    }

    fn record_mut(&mut self, wait: WaitId) -> &mut Record {
        &mut self.records[usize::from(wait.number()) - 1]
    }

    /// A free record, or a dead process's, for a wait of `me` that begins now.
    fn enlist(&mut self, play: &Play<N>, me: OwnerId) -> Option<WaitId> {
        let is_dead = |owner| self.is_dead_process(play, play.process_of(owner));
        let of_dead = |record: &Record| record.word.owner().is_some_and(is_dead);
        let free = self.records.iter().position(|record| record.word.is_free());
        let at = free.or_else(|| self.records.iter().position(of_dead))?;
        self.used = self.used.max(at as u8 + 1);
        let record = &mut self.records[at];
        record.word = record.word.taken(me);
        if play.mistake == Some(Mistake::PublishedBeforeFilledIn) {
            record.word = record.word.standing();
        }
        record.since = self.now;
        self.now += 1;
        record.word.wait(at as u16 + 1)
    }

    fn erase(&mut self, wait: WaitId) {
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
    fn pass_over(&mut self, number: u16) {
        for thread in 0..N {
            if self.wait_of(thread).is_some_and(|wait| wait.number() == number) {
                self.threads[thread].place = Place::None;
            }
        }
    }

    /// A hold begins, or its holder begins to release it.
    fn count_on_places(&mut self, holder: usize) {
        for thread in (0..N).filter(|thread| *thread != holder) {
            let place = &mut self.threads[thread].place;
            if *place == Place::Stands {
                *place = Place::Counts;
            }
        }
    }

    /// Whether this one may have the word now, by the order of waiters.
    fn is_in_order(&self, taker: usize) -> bool {
        let since = |thread| self.wait_of(thread).map_or(u8::MAX, |wait| self.record(wait).since);
        let counts = |other: &usize| self.threads[*other].place == Place::Counts;
        (0..N).filter(counts).all(|other| other == taker || since(other) > since(taker))
    }

    // ---- the word ------------------------------------------------------------------------------

    /// Changes the word, watching over what must hold.
    fn set_word(&mut self, play: &Play<N>, thread: usize, to: Word) -> Result<(), Violation> {
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
            if matches!(to.state(), Some(State::Held(_))) {
                if !self.is_in_order(thread) {
                    return Err(Violation::Overtaken);
                }
                if matches!(self.stay, AtLeast::Running(_)) {
                    return Err(Violation::RanTwice);
                }
                self.threads[thread].place = Place::None;
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

    fn raise_token(&mut self, play: &Play<N>, thread: usize, skipped: bool) {
        if play.lies {
            self.token += u8::from(!skipped);
            self.threads[thread].token = self.token;
        }
    }

    fn heard(&mut self, play: &Play<N>, thread: usize, answer: Answer) -> Result<(), Violation> {
        let at = &mut self.threads[thread];
        let op = match &mut at.doing {
            Doing::Taking(machine) => hear(machine, answer),
            Doing::Marking(machine, _) => hear(machine, answer),
            Doing::ComingIn(machine, _) => hear(machine, answer),
            Doing::GoingOut(machine) => hear(machine, answer),
            Doing::Draining(machine, _) => hear(machine, answer),
            Doing::Renaming(machine, _) => hear(machine, answer),
            Doing::Leaving(machine) => hear(machine, answer),
            Doing::Burying(machine) | Doing::Finishing(machine) => hear(machine, answer),
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
                    Some(Mistake::RecoveriesTellNothing) => Predecessor::Clean,
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
            (Outcome::Marked, Doing::Marking(_, told))
            | (Outcome::Renamed, Doing::Renaming(_, told)) => {
                self.threads[thread].doing = Doing::Inside(told);
            }
            (Outcome::Unsettled(word), Doing::Burying(_)) => {
                self.threads[thread].doing = Doing::Queueing(word);
            }
            (Outcome::Unsettled(word), _) => {
                self.threads[thread].doing = Doing::Queueing(word);
            }
            (Outcome::Buried | Outcome::Nothing, Doing::Finishing(_)) => {
                self.structure = None;
                self.begin(play, thread);
            }
            (Outcome::LetGo, Doing::Leaving(_)) if self.is_past_gate(play, thread) => {}
            (Outcome::WouldBlock, _) if self.found_gate_taken(play, thread) => {
                self.threads[thread].doing = Doing::Passing;
            }
            (Outcome::LetGo, Doing::Leaving(_)) if self.threads[thread].reads => {
                self.threads[thread].doing = Doing::Reads;
            }
            (
                Outcome::WouldBlock
                | Outcome::GaveUp
                | Outcome::LetGo
                | Outcome::Buried
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
    fn becomes_quiet(mut self, play: &Play<N>) -> bool {
        let me = play.id_of(0);
        let mut taking = Taking::new(me, false, 0);
        let won = self.runs(play, &mut taking);
        let mut leaving = Leaving::held(me, Predecessor::Clean, false);
        matches!(won, Outcome::Won(_))
            && self.runs(play, &mut leaving) == Outcome::LetGo
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

fn hear(machine: &mut impl Machine, answer: Answer) -> Op {
    machine.heard(answer);
    machine.op()
}
