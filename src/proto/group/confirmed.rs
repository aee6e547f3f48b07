//! A disk that has less than it has confirmed: that of a machine that was put back to an earlier state, as a
//! virtual machine is from a snapshot.
//!
//! Such a disk looks like any other, and is worse than an empty one: what it has confirmed is committed by its
//! word, and with its vote a member could lead that has nothing of it; its own votes it may give a second
//! time. It cannot know of that itself, but others do: a member that has led the log knows what of the committed
//! part each disk has confirmed, and every member knows the last term in which a disk has given it a vote
//! or an answer. So a member asks all others when it starts, and votes once each has answered, or after a
//! while in which they would have, if they ran. One that leads says it unasked to a disk that shows less.
//!
//! A leader also says which entries of its own term it counts a disk for that are not committed yet: its own disk may
//! be the slow one, and once that has them they are committed, by an answer of long ago. Committed entries stay, and
//! so do those of a term as long as the disk has heard of no later one. Then they may have been overwritten by
//! rights. So a disk that lacks them in a later term is not out; but as if it had them it votes only for a
//! log that is as long, and does not stand before its own is. A leader that it hears of in that term was elected by
//! others, of which one has all that was committed.
//!
//! What is told so was true of the disk when it was said, and a disk that was left alone only gains: a
//! frame that comes late or twice says nothing wrong. So one look at it decides. A disk that has less
//! is out of the group for good, and its member begins anew with another one, which waits to be admitted.
//!
//! It is no proof: what a member knows it forgets when it ends, so a disk that is put back while the
//! members that know of it are away is believed. So is one the confirmations of which were lost on their way, to
//! no harm: what no member has heard of none has counted. Nor does a leader know of an answer that is still on its
//! way when the next process of that disk asks; a machine is not put back within a packet's life.
//!
//! Of three members with such a disk and one that is away, the third cannot go on alone, though it leads the log
//! and has all that it knows to be committed. The one that is away may lead in a later term, by the vote of that
//! disk and with entries that it has confirmed, and nothing of that is left where it could be seen. So the
//! disk is replaced as any other is: by a majority.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    GroupConfig, GroupMachine,
    entry::{LogPlace, MemberName, VoterId},
    frame::GroupBody,
    standing::GroupNotice,
};
use crate::{
    proto::mistake::{Mistake, planted},
    time::Time,
};

/// What members know of each other's disks.
pub(super) struct ConfirmedDisks {
    confirmed: BTreeMap<VoterId, Confirmed>,
    /// Up to where the log was committed when that was looked at last.
    noted: u64,
    /// The members that have not said yet what they know of this one's disk.
    unanswered: BTreeSet<MemberName>,
    next_ask: Time,
    /// What a leader counts this disk for, and it has not: it votes as if it had.
    acknowledged: LogPlace,
    /// How often it asks yet before it votes without their answers.
    ///
    /// It counts questions and not time: a process that stood still from its start on would find that
    /// its time is up, with the answers behind the question of a candidate that it is about to read. As many as
    /// fit into twice the longest time until an election: with that an answer comes though two packets of the
    /// connection's handshake are lost. A path that stays dead is not waited for, so a group that starts
    /// anew without one of its members elects a leader that much later, and no more.
    asks_left: u32,
}

/// What a disk has for certain, unless it was put back.
#[derive(Clone, Copy, Default)]
struct Confirmed {
    term: u64,
    /// Up to there it has the log, which is committed as far as that.
    place: LogPlace,
}

impl ConfirmedDisks {
    /// Of a member that starts.
    pub(super) fn new(others: Vec<MemberName>, asks: u32, now: Time) -> ConfirmedDisks {
        ConfirmedDisks {
            confirmed: BTreeMap::new(),
            noted: 0,
            unanswered: others.into_iter().collect(),
            next_ask: now,
            acknowledged: LogPlace::default(),
            asks_left: asks,
        }
    }
}

impl GroupMachine {
    /// Whether others may still say that this disk has less than it has confirmed. Until then it has no vote.
    pub(super) fn is_unsure(&self) -> bool {
        let ConfirmedDisks { unanswered, asks_left, .. } = &self.confirmed;
        !unanswered.is_empty() && *asks_left > 0 && !planted(Mistake::PutBackDiskVotes)
    }

    /// Whether a log that ends there may have this disk's vote: it has all that this disk is counted for.
    pub(super) fn has_acknowledged(&self, last: LogPlace) -> bool {
        last >= self.confirmed.acknowledged || planted(Mistake::UncommittedUntold)
    }

    /// Asks those that have not answered what they know of this disk, if that is due.
    pub(super) fn ask_confirmed_if_due(&mut self) {
        if self.asks_confirmed_at().is_none_or(|at| self.now < at) {
            return;
        }
        let asks_left = &mut self.confirmed.asks_left;
        *asks_left = asks_left.saturating_sub(1);
        let pace = if *asks_left > 0 { ask_pace(&self.config) } else { self.config.heartbeat * 8 };
        self.confirmed.next_ask = self.now + pace;
        for member in self.confirmed.unanswered.clone() {
            self.send_to(&member, None, GroupBody::AskConfirmed);
        }
    }

    /// When it asks next.
    pub(super) fn asks_confirmed_at(&self) -> Option<Time> {
        let ConfirmedDisks { unanswered, next_ask, .. } = &self.confirmed;
        (!unanswered.is_empty()).then_some(*next_ask)
    }

    /// A connection to a member was made: it may not have heard the question.
    pub(super) fn ask_confirmed_anew(&mut self, member: &MemberName) {
        if self.config.members.contains(member) && *member != self.config.own {
            self.confirmed.unanswered.insert(member.clone());
            self.send_to(member, None, GroupBody::AskConfirmed);
        }
    }

    /// A disk asks what this member knows of it, or shows that it has less.
    pub(super) fn tell_confirmed(&mut self, disk: VoterId) {
        let Confirmed { term, place } =
            self.confirmed.confirmed.get(&disk).copied().unwrap_or_default();
        let acknowledged = self.acknowledged_by(disk).unwrap_or_default();
        self.send(disk, GroupBody::Confirmed { term, place, acknowledged });
    }

    /// The last entry that this leader counts the disk for and that is not committed. Only an entry of its own term
    /// commits any.
    fn acknowledged_by(&self, disk: VoterId) -> Option<LogPlace> {
        self.lead.as_ref()?;
        let index = self.raft.matched(disk).filter(|matched| *matched > self.commit_index())?;
        let term = self.raft.term_at(index).filter(|term| *term == self.raft.term())?;
        Some(LogPlace { term, index })
    }

    /// A disk has stored this term: it has said so in a vote or an answer.
    pub(super) fn note_term(&mut self, disk: VoterId, term: u64) {
        let confirmed = self.confirmed.confirmed.entry(disk).or_default();
        confirmed.term = confirmed.term.max(term);
    }

    /// A disk answers with this as the last of its log.
    pub(super) fn tell_confirmed_if_less(&mut self, disk: VoterId, last: u64) {
        let known = self.confirmed.confirmed.get(&disk).map(|known| known.place.index);
        let counted = self.acknowledged_by(disk).map(|place| place.index);
        if self.lead.is_some() && known.max(counted).is_some_and(|known| last < known) {
            self.tell_confirmed(disk);
        }
    }

    /// What is committed has grown, as this leader counts it: by the disks that have confirmed it.
    pub(super) fn note_confirmed(&mut self) {
        let committed = self.commit_index();
        if self.lead.is_none() || committed == self.confirmed.noted {
            return;
        }
        self.confirmed.noted = committed;
        for disk in self.other_disks() {
            self.note_confirmed_by(disk.voter());
        }
    }

    /// Notes what this disk has confirmed of what is committed: a disk that comes later confirms it when nothing
    /// more is.
    pub(super) fn note_confirmed_by(&mut self, disk: VoterId) {
        let matched = self.lead.as_ref().and_then(|_| self.raft.matched(disk));
        let Some(index) = matched.map(|matched| matched.min(self.commit_index())) else { return };
        // Of a place in the middle of a snapshot the term is not known; soon the disk has a later one.
        let Some(term) = self.raft.term_at(index) else { return };
        let confirmed = self.confirmed.confirmed.entry(disk).or_default();
        if confirmed.place.index < index {
            confirmed.place = LogPlace { term, index };
        }
    }

    /// A member says what this disk has confirmed to it.
    pub(super) fn handle_confirmed(
        &mut self,
        from: VoterId,
        term: u64,
        place: LogPlace,
        acknowledged: LogPlace,
    ) {
        if let Some((member, _)) = self.route(from) {
            self.confirmed.unanswered.remove(&member);
        }
        if self.confirmed.unanswered.is_empty() {
            self.confirmed.asks_left = 0;
        }
        let (own_term, last) = (self.raft.term(), self.raft.last().index);
        // What is committed is overwritten by nothing: with another entry there, the disk is one that has less too.
        let has = |place: LogPlace| {
            place.index <= self.raft.before() || self.raft.term_at(place.index) == Some(place.term)
        };
        let mut lacks = Some(place).filter(|place| !has(*place));
        if !has(acknowledged) && !planted(Mistake::UncommittedUntold) {
            if acknowledged.term >= own_term {
                lacks = Some(acknowledged);
            }
            self.confirmed.acknowledged = self.confirmed.acknowledged.max(acknowledged);
        }
        if (term <= own_term && lacks.is_none()) || planted(Mistake::PutBackDiskVotes) {
            return self.stop_standing();
        }
        self.leave();
        let (had, has) = ((term, lacks.unwrap_or(place).index), (own_term, last));
        self.notices.push_back(GroupNotice::OwnDiskPutBack { had, has });
    }
}

/// How often a member asks before it votes without answers.
pub(super) fn asks_before_vote(config: &GroupConfig) -> u32 {
    let (within, pace) = (config.election_max * 2, ask_pace(config));
    // The first is at once.
    1 + (within.as_nanos() / pace.as_nanos().max(1)) as u32
}

fn ask_pace(config: &GroupConfig) -> Duration {
    config.heartbeat / 2
}
