//! A group: three or five leaders that keep the journal themselves, without a store.
//!
//! The journal's operations are entries of a Raft log, and their conditions are evaluated when they are
//! applied. Nothing else of the succession changes: the proof of a reign is the answered `renew` (see
//! [`reign`](super::reign)), never who leads the log, and `read` is this member's applied state, which
//! may be stale. Only the member that leads the log can write: another one's operation is answered
//! [`Unknown`](super::journal::JournalTrouble::Unknown) at once, so its reign lapses, and the log's
//! leader follows it.
//!
//! # How it is driven
//!
//! One thread hands in what has happened (`handle_*`, with the clock read after that), then takes out
//! what is to be done, until each is empty:
//!
//! - [`poll_write`](GroupMachine::poll_write): to the disk, in order. The machine never waits: while a
//!   write is on its way, frames and time go on being handed in. When a write is durable, and all before
//!   it are, [`handle_stored`](GroupMachine::handle_stored) is called with its number; one call for the
//!   last of several is enough. If it fails, the process ends, or makes a new machine of what the
//!   disk has.
//! - [`poll_frame`](GroupMachine::poll_frame): to be sent to that member, or dropped. A frame comes out
//!   only when the writes that it depends on are durable, so it may be sent at once.
//! - [`poll_answer`](GroupMachine::poll_answer), [`poll_notice`](GroupMachine::poll_notice).
//! - [`poll_timeout`](GroupMachine::poll_timeout): when to call
//!   [`handle_timeout`](GroupMachine::handle_timeout) at the latest.
//!
//! A disk is read by [`StoredGroup::remember`]ing its writes in order. An empty disk is none:
//! `GroupMachine::new(config, None, now)`. Frames and writes spell themselves: [`GroupFrame::encode`],
//! [`GroupWrite::encode`].

mod entry;
mod frame;
mod standing;
mod state;
mod stored;

use std::time::Duration;

pub use self::{
    entry::{
        DiskId, GroupCommand, GroupEntry, GroupMembers, GroupSeat, LogPlace, MemberName, VoterId,
    },
    frame::{GROUP_FRAME_BYTES_MAX, GroupBody, GroupFrame},
    standing::{GroupAnswer, GroupNotice, GroupStanding, MemberStanding, ReplaceRefusal},
    state::GroupState,
    stored::{GroupSnapshot, GroupWrite, StoredGroup},
};
use super::{
    ClusterId,
    journal::{JournalAnswer, JournalHead, JournalOperation, JournalTerms},
};
use crate::time::Time;

/// What a journal kept by a group can do.
pub const GROUP_TERMS: JournalTerms = JournalTerms { is_exclusive: false, batch_max: 128 };

/// How a member takes part in its group.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    pub own: MemberName,
    /// Its disk.
    pub disk: DiskId,
    /// All members, this one too: the same at each of them.
    pub members: Vec<MemberName>,
    /// It may make the group: once, when all members have met and no disk has anything.
    pub init: bool,
    /// For how long at least a leader of the log is not heard of before a member stands.
    pub election_min: Duration,
    /// For how long at most.
    pub election_max: Duration,
    /// How often a leader says that it leads.
    pub heartbeat: Duration,
    /// For how the time until a member stands is drawn.
    pub seed: u64,
    /// What the group calls itself, if it is this member that makes it: random.
    pub cluster: ClusterId,
}

impl GroupConfig {
    /// A member with the times that hold unless they are set.
    pub fn new(own: MemberName, disk: DiskId, members: Vec<MemberName>) -> GroupConfig {
        GroupConfig {
            own,
            disk,
            members,
            init: false,
            election_min: Duration::from_millis(150),
            election_max: Duration::from_millis(300),
            heartbeat: Duration::from_millis(50),
            seed: 0,
            cluster: ClusterId(0),
        }
    }
}

/// A write to the disk, numbered from 1 in the order in which they come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteId(pub u64);

/// What was asked for; its answer bears the same number. The driver numbers them as it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// The answer to what was asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum AskAnswer {
    /// To [`handle_operation`](GroupMachine::handle_operation).
    Journal(JournalAnswer),
    /// To [`handle_replace`](GroupMachine::handle_replace).
    Group(GroupAnswer),
}

/// One member of a group.
pub struct GroupMachine {
    config: GroupConfig,
    stored: Option<StoredGroup>,
    now: Time,
}

impl GroupMachine {
    /// A member that starts. `stored`: what its disk has, `None` if that is empty.
    pub fn new(config: GroupConfig, stored: Option<StoredGroup>, now: Time) -> GroupMachine {
        GroupMachine { config, stored, now }
    }

    /// A frame from another member, which has proven that it is one of the group's.
    pub fn handle_frame(&mut self, from: &MemberName, frame: GroupFrame, now: Time) {
        let _ = (from, frame);
        self.now = now;
    }

    /// A connection to a member was made, or its port refuses every datagram.
    pub fn handle_peer(&mut self, peer: &MemberName, is_reachable: bool, now: Time) {
        let _ = (peer, is_reachable);
        self.now = now;
    }

    /// This write and all before it are durable.
    pub fn handle_stored(&mut self, write: WriteId, now: Time) {
        let _ = write;
        self.now = now;
    }

    /// An operation of this process's own leader. Its answer comes as [`AskAnswer::Journal`], once, and
    /// at the latest when this member leads the log no more.
    pub fn handle_operation(&mut self, ask: AskId, operation: JournalOperation, now: Time) {
        let _ = (ask, operation);
        self.now = now;
    }

    /// A member has another disk, which the group does not know: it is to take the place of the one that
    /// the group knows. Its answer comes as [`AskAnswer::Group`].
    pub fn handle_replace(&mut self, ask: AskId, member: MemberName, now: Time) {
        let _ = (ask, member);
        self.now = now;
    }

    /// Hands over the log's lead, if this member has it, to the one that has most of it. To be called
    /// once its reign has resigned. Until another leads the log, or this one again after as long as an
    /// election takes, operations that write are answered *unknown*.
    pub fn handle_transfer(&mut self, now: Time) {
        self.now = now;
    }

    /// Time passes.
    pub fn handle_timeout(&mut self, now: Time) {
        self.now = now;
    }

    /// When to look again.
    pub fn poll_timeout(&self) -> Option<Time> {
        None
    }

    /// A write to the disk.
    pub fn poll_write(&mut self) -> Option<(WriteId, GroupWrite)> {
        None
    }

    /// A frame to another member.
    pub fn poll_frame(&mut self) -> Option<(MemberName, GroupFrame)> {
        None
    }

    /// An answer.
    pub fn poll_answer(&mut self) -> Option<(AskId, AskAnswer)> {
        None
    }

    /// Something an operator may want to know.
    pub fn poll_notice(&mut self) -> Option<GroupNotice> {
        None
    }

    /// The journal's head as far as this member has applied the log: what a `read` is answered. `None`
    /// until it has any of it.
    pub fn head(&self) -> Option<JournalHead> {
        self.stored.as_ref()?.snapshot.as_ref().map(|snapshot| snapshot.state.head())
    }

    /// Whether this member leads the log, and a majority answers it: only then can it write.
    pub fn is_leading(&self) -> bool {
        false
    }

    /// How the group stands, as this member sees it.
    pub fn standing(&self) -> GroupStanding {
        GroupStanding {
            own: self.config.own.clone(),
            cluster: None,
            leader: None,
            is_leading: false,
            is_made: false,
            own_disk_waits: false,
            term: 0,
            applied: 0,
            last: 0,
            members: Vec::new(),
        }
    }
}
