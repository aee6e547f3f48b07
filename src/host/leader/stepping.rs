//! Callers in a leader's own process that have it step down, and wait until it has.

use std::sync::mpsc;

use parking_lot::Mutex;

use super::{Leader, LeaderShared};
use crate::{
    error::{LockError, LockErrorKind, Result},
    proto::wire::StepDownRefusal,
};

/// What becomes of it; no more is said once the leader has ended.
type StepDownOutcome = Option<StepDownRefusal>;

/// How one of them is told.
pub(super) type StepDownCaller = mpsc::Sender<StepDownOutcome>;

/// The callers that the leader's thread has not heard of yet.
#[derive(Debug, Default)]
pub(super) struct StepDowns {
    asked: Mutex<Vec<StepDownCaller>>,
}

impl StepDowns {
    fn ask(&self) -> mpsc::Receiver<StepDownOutcome> {
        let (sender, outcome) = mpsc::channel();
        self.asked.lock().push(sender);
        outcome
    }

    pub(super) fn take(&self) -> Vec<StepDownCaller> {
        std::mem::take(&mut *self.asked.lock())
    }

    /// The leader has ended: none of them is answered.
    pub(super) fn drop_all(&self) {
        drop(self.take());
    }
}

impl LeaderShared {
    /// Has another leader follow, if this one reigns, and waits for nothing.
    pub(super) fn step_aside(&self) {
        // Whether it does is seen by what it tells.
        drop(self.step_downs.ask());
        self.bell.ring();
    }
}

impl Leader {
    /// Has another leader follow, and stands by from then on. It does what the end in good order does:
    /// it stops serving, writes what is to be written and resigns, so that one that stands by takes over
    /// at once. Held locks stay held, and waiters keep their places. For
    /// [`reign_lasts`](super::LeaderBuilder::reign_lasts) it takes no part itself; if none has taken over
    /// by then, it reigns again.
    ///
    /// Blocks until it has resigned: for as long as the journal's store takes for two writes, and never
    /// longer than 500 ms and one more `reign_lasts`.
    ///
    /// # Errors
    ///
    /// `Config` for a leader with a state directory, which no other leader can follow while it runs;
    /// `Refused` if it does not reign; `Io` if it has ended.
    ///
    /// # Example
    /// ```no_run
    /// use tierlock::{Leader, LockErrorKind};
    ///
    /// let leader = Leader::builder()
    ///     .listen("10.0.0.2:7420")
    ///     .journal("postgres://tierlock@127.0.0.1/locks?password_file=/etc/tierlock.pw")
    ///     .secret_file("/etc/tierlock.key")
    ///     .start()?;
    /// // before this machine is busy with something else:
    /// match leader.step_down() {
    ///     Err(error) if error.kind() == LockErrorKind::Refused => {} // another leader reigns
    ///     stepped_down => stepped_down?,
    /// }
    /// # Ok::<(), tierlock::LockError>(())
    /// ```
    pub fn step_down(&self) -> Result<()> {
        let outcome = self.shared.step_downs.ask();
        self.shared.bell.ring();
        if self.shared.end.lock().is_some() {
            self.shared.step_downs.drop_all();
        }
        match outcome.recv() {
            Ok(None) => Ok(()),
            Ok(Some(StepDownRefusal::HasOwnJournal)) => Err(LockError::config(HAS_OWN_JOURNAL)),
            Ok(Some(StepDownRefusal::OtherReign)) => Err(LockError::new(
                LockErrorKind::Refused,
                "this leader does not reign: another one does, or none yet",
            )),
            Err(mpsc::RecvError) => Err(self
                .failure()
                .unwrap_or_else(|| LockError::new(LockErrorKind::Io, "the leader has ended"))),
        }
    }
}

/// Why a leader with a state directory does not step down.
pub(crate) const HAS_OWN_JOURNAL: &str = "this leader has its state directory for itself: no other leader can follow it while it runs, so \
     that without it no lock is granted. Stop it and start it again (held locks stay held), or move its \
     journal to a store that several leaders share (tierlock journal move)";
