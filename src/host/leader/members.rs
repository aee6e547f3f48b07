//! A leader's part in a group, and how its own program reaches that.

use std::sync::{Arc, Weak, atomic::Ordering::Release, mpsc};

use super::{Leader, LeaderShared};
use crate::{
    error::{LockError, LockErrorKind, Result},
    host::journal::{GroupJournal, MemberDoor},
    proto::wire::DiskReplacement,
};

/// A leader's part in its group.
pub(super) struct Membership {
    pub(super) journal: Arc<GroupJournal>,
    /// What other members say is handed in by it.
    pub(super) door: MemberDoor,
}

impl Membership {
    pub(super) fn new(journal: Arc<GroupJournal>) -> Membership {
        let door = journal.door();
        Membership { journal, door }
    }

    pub(super) fn handle(&self) -> GroupHandle {
        Arc::downgrade(&self.journal)
    }
}

impl LeaderShared {
    /// Has the journal looked at, since it has changed.
    pub(super) fn look_at_journal(&self) {
        self.is_to_look.store(true, Release);
        self.bell.ring();
    }
}

/// How a leader's own program reaches the group, as long as the leader runs.
pub(super) type GroupHandle = Weak<GroupJournal>;

impl Leader {
    /// Admits the disk that a member of the [`group`](super::LeaderBuilder::group) has now, in the place of
    /// the one that the group knows, which has no part in it any more. For a machine that is dead, or a
    /// disk that is lost: the member is started on an empty state directory with
    /// [`init`](super::LeaderBuilder::init), and waits for this. It has a vote once it has caught up.
    ///
    /// Only the member that leads the group's log can do it, which is as a rule the one that reigns; the
    /// error of another one names it. As `tierlock replace` does, with any of the leaders.
    ///
    /// Blocks until a majority of the members has it on disk.
    ///
    /// # Errors
    ///
    /// `Config` if no group keeps the journal, there is no such member or it has no new disk; `Refused` if
    /// this member does not lead the log, or another change is under way; `Unreachable` if no majority
    /// answers, and then it may have happened; `Io` if this leader has ended.
    ///
    /// # Example
    /// ```no_run
    /// # fn admit(leader: &tierlock::Leader) -> tierlock::Result<()> {
    /// // b's machine was replaced, and its new leader was started once with `init(true)`
    /// leader.replace("b")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn replace(&self, member: &str) -> Result<()> {
        let ended = || LockError::new(LockErrorKind::Io, "the leader has ended");
        let Some(group) = &self.group else {
            return Err(LockError::config("no group keeps the journal of this leader"));
        };
        let (told, outcome) = mpsc::channel();
        let group = group.upgrade().ok_or_else(ended)?;
        group.replace(member, move |outcome| drop(told.send(outcome)));
        drop(group);
        let outcome = outcome.recv().map_err(|_| self.failure().unwrap_or_else(ended))?;
        refusal(member, &outcome).map_or(Ok(()), Err)
    }
}

/// Why a disk was not replaced, in words.
pub(crate) fn refusal(member: &str, outcome: &DiskReplacement) -> Option<LockError> {
    let refused = |text: String| Some(LockError::new(LockErrorKind::Refused, text));
    let config = |text: String| Some(LockError::config(text));
    match outcome {
        DiskReplacement::Replaced => None,
        DiskReplacement::NoGroup => config("no group keeps the journal of this leader".to_owned()),
        DiskReplacement::NotLeading(Some(leader)) => {
            refused(format!("{leader} leads the group's log, and only that member replaces disks"))
        }
        DiskReplacement::NotLeading(None) => refused(
            "no member is known that leads the group's log: is a majority of the members there?"
                .to_owned(),
        ),
        DiskReplacement::NotMade => config(
            "the group is not made yet: its first start needs all members, each with --init"
                .to_owned(),
        ),
        DiskReplacement::NoSuchMember => config(format!("the group has no member {member:?}")),
        DiskReplacement::NoDiskWaits => config(format!(
            "{member} has no disk that waits: start it once with --init on an empty state directory first; \
             it says then that its disk is new to the group"
        )),
        DiskReplacement::Changing => {
            refused("another change of the members is under way; try again".to_owned())
        }
        DiskReplacement::Unknown(why) => Some(LockError::new(
            LockErrorKind::Unreachable,
            format!("it may have happened, or may yet happen: {why}"),
        )),
    }
}
