//! A leader that is a member of a group: what the other members say to it, what operators ask of the
//! group, and how it leaves.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::*},
        mpsc,
    },
    time::Duration,
};

use super::{Leader, court::Court};
use crate::{
    clock,
    error::{LockError, LockErrorKind, Result},
    host::{
        journal::{GroupJournal, MemberDoor},
        net::quic::{CloseCode, PortEvent},
    },
    proto::{
        ConnectionId,
        wire::{ClientMessage, DiskReplacement, LeaderMessage, MemberMessage},
    },
};

/// How long a leader that ends waits at most until another member leads the log.
const LEAVES_WITHIN: Duration = Duration::from_millis(500);

/// A leader's part in its group.
pub(super) struct Membership {
    journal: Arc<GroupJournal>,
    door: MemberDoor,
}

impl Membership {
    pub(super) fn new(journal: Arc<GroupJournal>) -> Membership {
        let door = journal.door();
        Membership { journal, door }
    }

    pub(super) fn handle(&self) -> GroupHandle {
        Arc::downgrade(&self.journal)
    }

    pub(super) fn journal(&self) -> &GroupJournal {
        &self.journal
    }
}

impl Court {
    /// Hands in what other members have said, and sends what operators are answered.
    pub(super) fn serve_members(&mut self) {
        let Some(group) = &mut self.group else { return };
        while let Some(event) = self.doors.poll_member_event() {
            match event {
                PortEvent::Connected(..) => {}
                PortEvent::Readable(id) => {
                    while let Some(message) = self.doors.read::<MemberMessage>(id) {
                        if let Err(why) = group.door.handle(id, message) {
                            self.doors.close(id, CloseCode::Stranger, &why);
                        }
                    }
                }
                PortEvent::Ended(id, _) => {
                    group.door.forget(id);
                    self.doors.forget(id);
                }
            }
        }
        group.door.hand_in();
        for (id, answer) in std::mem::take(&mut *self.shared.group_answers.lock()) {
            self.doors.write(id, &answer);
        }
    }

    /// Whether that was an operator's question about the group, which is answered when it can be.
    pub(super) fn answers_about_group(&self, id: ConnectionId, message: &ClientMessage) -> bool {
        let Some(group) = &self.group else { return false };
        let shared = self.shared.clone();
        let answer = move |answer| {
            shared.group_answers.lock().push((id, answer));
            shared.bell.ring();
        };
        match message {
            &ClientMessage::AskGroup { query } => group.journal.ask_standing(move |report| {
                answer(LeaderMessage::Group { query, report: report.map(Box::new) });
            }),
            &ClientMessage::Replace { query, ref member } => {
                group.journal.replace(member, move |outcome| {
                    answer(LeaderMessage::Replaced { query, outcome });
                });
            }
            _ => return false,
        }
        true
    }

    /// Before its end: hands over its reign, then the log's lead. The other members are heard meanwhile,
    /// since neither can be done without them.
    pub(super) fn leave_group(&mut self) {
        if self.group.is_none() {
            return;
        }
        self.is_leaving = true;
        let hands_over = self.successor.reign().reigning().is_some();
        self.successor.hand_over(clock::now());
        // It ends by itself, however the journal answers.
        while self.successor.is_handing_over() {
            self.turn();
            self.sleep();
        }
        if hands_over {
            self.shared.note_now("it has handed its reign over");
        }
        let has_left = Arc::new(AtomicBool::new(false));
        if let Some(group) = &self.group {
            let (has_left, shared) = (has_left.clone(), self.shared.clone());
            group.journal.leave(move || {
                has_left.store(true, Release);
                shared.bell.ring();
            });
        }
        let until = clock::now() + LEAVES_WITHIN;
        while !has_left.load(Acquire) && clock::now() < until {
            self.turn();
            self.sleep();
        }
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
