//! Members that are too far behind for the log get the state instead, in pieces beside the heartbeats; and a
//! disk's log begins anew with the state when it has become long.

use std::sync::Arc;

use super::{
    GroupMachine,
    entry::{GroupMembers, LogPlace, VoterId},
    frame::GroupBody,
    standing::GroupNotice,
    state::GroupState,
    stored::{GroupSnapshot, StoredGroup},
};
use crate::time::Time;

/// A snapshot on its way to a member.
pub(super) struct SentSnapshot {
    place: LogPlace,
    bytes: Arc<[u8]>,
    /// So much of it has come.
    arrived: usize,
    /// Up to there it was sent.
    sent: usize,
    /// When something of it was sent, or has come.
    at: Time,
}

/// A snapshot that comes.
pub(super) struct ReceivedSnapshot {
    place: LogPlace,
    whole: usize,
    bytes: Vec<u8>,
}

/// What is applied.
pub(super) struct AppliedLog {
    pub(super) state: GroupState,
    pub(super) place: LogPlace,
    pub(super) members: GroupMembers,
    /// How many entries, of how many bytes, were applied since the disk has a snapshot.
    entries: u64,
    bytes: usize,
    /// How long that snapshot was.
    snapshot_bytes: usize,
}

impl AppliedLog {
    /// The state of a snapshot.
    pub(super) fn of(snapshot: GroupSnapshot, snapshot_bytes: usize) -> AppliedLog {
        let GroupSnapshot { place, members, state } = snapshot;
        AppliedLog { state, place, members, entries: 0, bytes: 0, snapshot_bytes }
    }

    /// One more entry of so many bytes.
    pub(super) fn count(&mut self, place: LogPlace, bytes: usize) {
        self.place = place;
        self.entries += 1;
        self.bytes += bytes;
    }

    fn is_long(&self, bytes_max: usize) -> bool {
        // The longer the state, the seldomer it is written again.
        let bytes_max = bytes_max.max(2 * self.snapshot_bytes);
        self.entries as usize >= bytes_max / 100 || self.bytes >= bytes_max
    }

    fn snapshot(&self) -> GroupSnapshot {
        let (members, state) = (self.members.clone(), self.state.clone());
        GroupSnapshot { place: self.place, members, state }
    }
}

impl GroupMachine {
    /// The disk's log begins anew, if it has become long.
    pub(super) fn compact_if_long(&mut self) {
        let bytes_max = self.config.log_bytes_max;
        let Some(applied) = self.applied.as_mut().filter(|applied| applied.is_long(bytes_max))
        else {
            return;
        };
        let snapshot = applied.snapshot();
        // Its length is needed only as often as the log is long.
        applied.snapshot_bytes = snapshot.encode().len();
        (applied.entries, applied.bytes) = (0, 0);
        let index = applied.place.index;
        self.write_whole(snapshot, false);
        // Members that are a little behind get what they lack from memory.
        let kept = index.saturating_sub(bytes_max as u64 / 400);
        if kept > self.raft.before() {
            self.raft.forget_up_to(kept);
        }
    }

    fn write_whole(&mut self, snapshot: GroupSnapshot, is_awaited: bool) {
        let (term, voted_for) = self.raft.vote();
        let entries = self.raft.entries_behind(snapshot.place.index);
        let last = self.raft.last().index;
        let stored = StoredGroup { term, voted_for, snapshot: Some(snapshot), entries };
        self.outbox.write_whole(stored, last, is_awaited);
    }

    /// A member lacks entries that are here no more.
    pub(super) fn begin_sending(&mut self, to: VoterId) {
        let Some(applied) = &self.applied else { return };
        if self.sending.contains_key(&to) {
            return;
        }
        let same = self.sending.values().find(|sent| sent.place == applied.place);
        let bytes = match same {
            Some(sent) => sent.bytes.clone(),
            None => applied.snapshot().encode().into(),
        };
        let place = applied.place;
        let sent = SentSnapshot { place, bytes, arrived: 0, sent: 0, at: self.now };
        self.sending.insert(to, sent);
        self.send_pieces(to);
    }

    fn send_pieces(&mut self, to: VoterId) {
        if self.is_quiet() {
            return; // a piece counts as a heartbeat
        }
        let term = self.raft.term();
        while let Some(sent) = self.sending.get_mut(&to)
            && sent.sent < sent.bytes.len()
            && sent.sent < sent.arrived + PIECES_AT_ONCE * PIECE_BYTES
        {
            let (at, end) = (sent.sent, (sent.sent + PIECE_BYTES).min(sent.bytes.len()));
            (sent.sent, sent.at) = (end, self.now);
            let (place, whole) = (sent.place, sent.bytes.len() as u64);
            let bytes = sent.bytes[at..end].to_vec();
            self.send(to, GroupBody::Piece { term, place, whole, at: at as u64, bytes });
        }
    }

    /// Pieces of which nothing was heard since the last heartbeat are sent again.
    pub(super) fn send_pieces_again(&mut self) {
        let (now, patience) = (self.now, self.config.heartbeat);
        let late = self.sending.iter_mut().filter(|(_, sent)| sent.at + patience <= now);
        let late: Vec<VoterId> = late
            .map(|(to, sent)| {
                sent.sent = sent.arrived;
                *to
            })
            .collect();
        late.into_iter().for_each(|to| self.send_pieces(to));
    }

    /// A member has so much of a snapshot.
    pub(super) fn handle_has_pieces(&mut self, from: VoterId, place: LogPlace, bytes: u64) {
        let now = self.now;
        let Some(sent) = self.sending.get_mut(&from).filter(|sent| sent.place == place) else {
            return;
        };
        let bytes = bytes as usize;
        if bytes >= sent.bytes.len() {
            self.sending.remove(&from);
            // Its answer to this says that it has the log up to there.
            self.raft.heartbeat();
            return self.settle();
        }
        if bytes > sent.arrived {
            (sent.arrived, sent.at) = (bytes, now);
            sent.sent = sent.sent.max(bytes);
        } else if bytes < sent.arrived {
            // It has begun anew.
            (sent.arrived, sent.sent, sent.at) = (bytes, bytes, now);
        }
        self.send_pieces(from);
    }

    /// A piece of a snapshot from the leader of this term.
    pub(super) fn handle_piece(
        &mut self,
        from: VoterId,
        (place, whole, at): (LogPlace, u64, u64),
        piece: &[u8],
    ) {
        let term = self.raft.term();
        let applied = self.applied.as_ref().map_or(0, |applied| applied.place.index);
        if place.index <= applied {
            self.receiving = None;
            return self.send(from, GroupBody::HasPieces { term, place, bytes: whole });
        }
        let Ok(whole) = usize::try_from(whole) else { return };
        if whole == 0 || whole > SNAPSHOT_BYTES_MAX || place.term > term {
            return;
        }
        let is_same = |got: &ReceivedSnapshot| got.place == place && got.whole == whole;
        if !self.receiving.as_ref().is_some_and(is_same) {
            self.receiving = Some(ReceivedSnapshot { place, whole, bytes: Vec::new() });
        }
        let got = self.receiving.as_mut().expect("just made");
        if got.bytes.len() as u64 == at && got.bytes.len() + piece.len() <= whole {
            got.bytes.extend_from_slice(piece);
        }
        let bytes = got.bytes.len();
        if bytes == whole {
            let got = self.receiving.take().expect("just seen");
            match GroupSnapshot::decode(&got.bytes) {
                Ok(snapshot) if snapshot.place == place => self.install(snapshot, whole),
                _ => return self.fail("a snapshot from the leader cannot be read"),
            }
        }
        self.send(from, GroupBody::HasPieces { term, place, bytes: bytes as u64 });
    }

    fn install(&mut self, snapshot: GroupSnapshot, bytes: usize) {
        if !self.raft.install(&snapshot) {
            return;
        }
        if snapshot.state.is_made() && self.head().is_none() {
            let cluster = snapshot.members.cluster;
            self.tell(snapshot.place.index, GroupNotice::Made { cluster });
        }
        self.applied = Some(AppliedLog::of(snapshot.clone(), bytes));
        self.write_whole(snapshot, true);
        self.settle();
    }
}

const PIECE_BYTES: usize = 32 * 1024;
const PIECES_AT_ONCE: usize = 4;

/// More is no snapshot of a journal: its entries are bounded.
const SNAPSHOT_BYTES_MAX: usize = 256 * 1024 * 1024;
