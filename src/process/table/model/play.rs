//! What is played: the jobs of each thread, and what a play has room for.

use super::mistakes::TableMistake;
use crate::process::table::word::{OwnerId, Word};

/// What a thread does, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Job {
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
    /// Locks it, marks it as locked at host scope, and asks for that once no reader is inside: none may
    /// come in here from then on.
    WidenAlone,
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
    pub(super) fn drains(self) -> bool {
        matches!(self, Job::Lock | Job::LockAndPanic | Job::Try | Job::Downgrade | Job::WidenAlone)
    }

    /// It waits for the word, if it has to.
    pub(super) fn waits(self) -> bool {
        !matches!(self, Job::Try | Job::TryRead | Job::TryAcquire | Job::TryForGood)
    }

    pub(super) fn shares(self) -> bool {
        matches!(self, Job::Read | Job::TryRead | Job::Upgrade | Job::Downgrade)
            || self.permits(1).is_some()
    }
}

/// A few threads and what may befall them.
#[derive(Clone, Copy)]
pub(super) struct Play<const N: usize> {
    pub(super) jobs: [&'static [Job]; N],
    /// Of which process each thread is.
    pub(super) process: [usize; N],
    /// At most so many processes die.
    pub(super) deaths: u32,
    /// Waiters' time may be over, futures be dropped.
    pub(super) give_ups: bool,
    /// All records share one futex bit.
    pub(super) one_bit: bool,
    /// The futex's half of the word does not tell the owners apart.
    pub(super) same_low_half: bool,
    /// A record is read in four steps, as `lock` does.
    pub(super) fine: bool,
    /// Once, a living process is judged to be dead.
    pub(super) lies: bool,
    /// Whether each waiter has waited for so long that it may have a record, if that is not left
    /// open.
    pub(super) hunger: Option<bool>,
    /// Two waiters may pass each other over for ever, if each is always late. So a play is cut where
    /// a record has been used so often: what comes then is taken to end well.
    pub(super) uses_max: u32,
    pub(super) spins: u8,
    /// How many permits there are.
    pub(super) limit: u32,
    pub(super) mistake: Option<TableMistake>,
}

/// As many records as threads, and none to spare.
pub(super) const RECORDS: usize = 3;

impl<const N: usize> Play<N> {
    pub(super) const fn new(jobs: [&'static [Job]; N]) -> Play<N> {
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

    pub(super) fn id(&self, thread: usize) -> OwnerId {
        self.id_of(self.process[thread])
    }

    pub(super) fn id_of(&self, process: usize) -> OwnerId {
        let number = process as u64 + 1;
        OwnerId::new(if self.same_low_half { number << 16 | 1 } else { number }).unwrap()
    }

    /// Under which a process may go on holding.
    pub(super) fn other_id(&self, thread: usize) -> OwnerId {
        self.id_of(self.process[thread] + N)
    }

    pub(super) fn process_of(&self, id: OwnerId) -> usize {
        (0..2 * N).find(|process| self.id_of(*process) == id).expect("an id of the play") % N
    }

    pub(super) fn owner(&self, word: Word) -> Option<usize> {
        word.owner().map(|owner| self.process_of(owner))
    }

    pub(super) fn has(&self, job: Job) -> bool {
        self.jobs.iter().any(|jobs| jobs.contains(&job))
    }

    /// Whether the name is ever shared.
    pub(super) fn shares(&self) -> bool {
        self.jobs.iter().any(|jobs| jobs.iter().any(|job| job.shares()))
    }

    pub(super) fn has_siblings(&self, thread: usize) -> bool {
        (0..N).any(|other| other != thread && self.process[other] == self.process[thread])
    }
}
