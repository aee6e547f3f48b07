//! What waits for the disk: a frame, or a commit, that depends on a write comes out only behind it.

use std::collections::VecDeque;

use super::{
    WriteId,
    entry::{GroupEntry, MemberName, VoterId},
    frame::{GroupBody, GroupFrame},
    stored::{GroupWrite, StoredGroup},
};
use crate::proto::mistake::{Mistake, planted};

/// Writes and frames on their way out.
#[derive(Default)]
pub(super) struct GroupOutbox {
    writes: VecDeque<(WriteId, GroupWrite)>,
    /// The writes that are not known to be durable, each with the last index of the log that it brings.
    flights: VecDeque<(u64, Option<u64>)>,
    last_write: u64,
    stored: u64,
    /// The last write of a vote, and of anything that a follower's answer depends on.
    vote_write: u64,
    log_write: u64,
    /// The write that has brought the log's first entry, by which the disk belongs to a group.
    first_write: u64,
    /// Up to where the log is on the disk.
    durable: u64,
    frames: VecDeque<(u64, MemberName, GroupFrame)>,
    is_closed: bool,
}

impl GroupOutbox {
    /// That of a disk that has the log up to there.
    pub(super) fn new(durable: u64) -> GroupOutbox {
        GroupOutbox { durable, ..GroupOutbox::default() }
    }

    /// Up to where the log is on the disk.
    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    pub(super) fn write_vote(&mut self, term: u64, voted_for: Option<VoterId>) {
        if planted(Mistake::GroupVoteForgotten) {
            return;
        }
        self.vote_write = self.write(GroupWrite::Vote { term, voted_for }, None);
        self.log_write = self.vote_write;
    }

    pub(super) fn write_entries(&mut self, after: u64, entries: Vec<GroupEntry>) {
        let last = after + entries.len() as u64;
        // What stood there before is on the disk in vain, and so is what is on its way there.
        self.cut(after);
        self.log_write = self.write(GroupWrite::Entries { after, entries }, Some(last));
        if after == 0 {
            self.first_write = self.log_write;
        }
    }

    /// Everything that the disk is to have, up to that index. Nothing waits for it if the disk has all of it
    /// in another form.
    pub(super) fn write_whole(&mut self, stored: StoredGroup, last: u64, is_awaited: bool) {
        self.cut(last);
        let write = self.write(GroupWrite::Whole(Box::new(stored)), Some(last));
        if is_awaited {
            (self.log_write, self.vote_write) = (write, write);
        }
    }

    /// The log ends there, so what the disk has behind it does not count.
    pub(super) fn cut(&mut self, last: u64) {
        self.durable = self.durable.min(last);
        for (_, brings) in &mut self.flights {
            *brings = brings.map(|brings| brings.min(last));
        }
    }

    /// Nothing comes out any more.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        self.writes.clear();
        self.frames.clear();
    }

    fn write(&mut self, write: GroupWrite, brings: Option<u64>) -> u64 {
        self.last_write += 1;
        if self.is_closed {
            return self.last_write;
        }
        self.writes.push_back((WriteId(self.last_write), write));
        self.flights.push_back((self.last_write, brings));
        self.last_write
    }

    pub(super) fn handle_stored(&mut self, write: WriteId) {
        self.stored = self.stored.max(write.0.min(self.last_write));
        while let Some((number, brings)) = self.flights.front().copied()
            && number <= self.stored
        {
            self.flights.pop_front();
            self.durable = brings.unwrap_or(self.durable);
        }
        if planted(Mistake::GroupLogNotSynced)
            && let Some((_, Some(brings))) = self.flights.back()
        {
            self.durable = *brings;
        }
    }

    /// Whether an answer about the log has to wait.
    pub(super) fn is_log_awaited(&self) -> bool {
        self.stored < self.log_write && !planted(Mistake::GroupLogNotSynced)
    }

    pub(super) fn send(&mut self, to: MemberName, frame: GroupFrame) {
        if self.is_closed {
            return;
        }
        let needs = match &frame.body {
            GroupBody::Appended { .. } if planted(Mistake::GroupLogNotSynced) => 0,
            GroupBody::Appended { .. } => self.log_write,
            // The leader's own entries may go out before they are stored: they count as its own only then.
            GroupBody::AskVote { .. }
            | GroupBody::Vote { .. }
            | GroupBody::Append { .. }
            | GroupBody::Commit { .. } => self.vote_write,
            _ => 0,
        };
        // A member that has lost this entry is in no group, and makes another one, of a name of its own.
        let needs = if frame.cluster.is_some() { needs.max(self.first_write) } else { needs };
        if needs > self.stored && matches!(frame.body, GroupBody::Appended { .. }) {
            // A later answer says what the earlier one would have.
            self.frames.retain(|(needs, its, earlier)| {
                let is_answer = matches!(earlier.body, GroupBody::Appended { .. });
                *needs <= self.stored || *its != to || !is_answer
            });
        }
        if self.frames.len() == FRAMES_MAX {
            self.frames.pop_front();
        }
        self.frames.push_back((needs, to, frame));
    }

    pub(super) fn poll_write(&mut self) -> Option<(WriteId, GroupWrite)> {
        self.writes.pop_front()
    }

    pub(super) fn poll_frame(&mut self) -> Option<(MemberName, GroupFrame)> {
        let first = self.frames.iter().position(|(needs, ..)| *needs <= self.stored)?;
        self.frames.remove(first).map(|(_, to, frame)| (to, frame))
    }
}

/// How many frames wait for the disk or the driver. More are dropped, as the network would.
const FRAMES_MAX: usize = 1024;
