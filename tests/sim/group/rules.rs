//! What holds in every group, judged in true time.

use std::collections::{BTreeMap, BTreeSet};

use tierlock::{
    Name,
    proto::{
        ClusterId,
        group::{DiskId, GroupStanding, GroupState},
        journal::{
            Appended, JournalAnswer, JournalHead, JournalOperation, ReignKey, ReignRenewal, Stamp,
            TakeOver, Took,
        },
        record::Record,
    },
};

use super::{GroupWorld, confirmed::ConfirmedPlaces};

/// What is known of the true journal.
pub(crate) struct GroupRules {
    /// The state at each place of the log, as the first member that came there has it.
    states: BTreeMap<u64, (Stamp, Option<ReignKey>, u64, u32, usize)>,
    /// The highest place that any member has applied, and the reign there.
    highest: u64,
    reign: Option<ReignKey>,
    /// Up to where each seat has applied, so that nothing is looked at twice.
    applied: Vec<(u64, Option<Stamp>)>,
    /// The highest stamp that a write was answered with.
    answered: Stamp,
    /// The stamps of writes, and the epochs of reigns.
    stamps: BTreeSet<Stamp>,
    epochs: BTreeMap<u32, ReignKey>,
    /// Names that were answered as written, in that order.
    written: Vec<Name>,
    /// Which disk led in a term.
    leaders: BTreeMap<u64, DiskId>,
    cluster: Option<ClusterId>,
    pub(super) confirmed: ConfirmedPlaces,
    violation: Option<String>,
}

/// What was so when a write was asked for.
#[derive(Clone)]
pub(crate) struct AskedWrite {
    answered: Stamp,
    /// How many names were written by then.
    written: usize,
    is_write: bool,
}

impl GroupRules {
    pub(crate) fn new(seats: usize) -> GroupRules {
        GroupRules {
            states: BTreeMap::new(),
            highest: 0,
            reign: None,
            applied: vec![(0, None); seats],
            answered: Stamp::default(),
            stamps: BTreeSet::new(),
            epochs: BTreeMap::new(),
            written: Vec::new(),
            leaders: BTreeMap::new(),
            cluster: None,
            confirmed: ConfirmedPlaces::default(),
            violation: None,
        }
    }

    pub(crate) fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    pub(crate) fn violate(&mut self, text: String) {
        self.violation.get_or_insert(text);
    }

    /// A member has this state at that place. The reign before and the head, if it is the first there.
    pub(crate) fn applied(
        &mut self,
        seat: usize,
        place: u64,
        state: &GroupState,
    ) -> Option<(Option<ReignKey>, JournalHead)> {
        let head = state.head();
        if self.applied[seat] == (place, Some(head.stamp)) {
            return None;
        }
        self.applied[seat] = (place, Some(head.stamp));
        let records = state.recovered().reservations.len();
        let seen = (head.stamp, head.reign, state.number(), head.epoch, records);
        let known = *self.states.entry(place).or_insert(seen);
        if known != seen {
            self.violate(format!("at {place} {seat} has {seen:?}, and another had {known:?}"));
        }
        if place <= self.highest {
            return None;
        }
        self.highest = place;
        let before = std::mem::replace(&mut self.reign, head.reign);
        Some((before, head))
    }

    pub(crate) fn asked(&mut self, operation: &JournalOperation) -> AskedWrite {
        AskedWrite {
            answered: self.answered,
            written: self.written.len(),
            is_write: !matches!(operation, JournalOperation::Read),
        }
    }

    pub(crate) fn answered(&mut self, asked: &AskedWrite, answer: &JournalAnswer) {
        let (stamp, is_new) = match answer {
            JournalAnswer::TakeOver(TakeOver::Took(took)) => (took.stamp, true),
            JournalAnswer::Renewal(ReignRenewal::Renewed(stamp)) => (*stamp, true),
            JournalAnswer::Appended(Appended::Committed(stamp, _)) => (*stamp, false),
            JournalAnswer::TakeOver(TakeOver::Raced(head))
            | JournalAnswer::Renewal(ReignRenewal::Deposed(head))
            | JournalAnswer::Appended(Appended::Deposed(head)) => (head.stamp, false),
            _ => return,
        };
        if stamp < asked.answered || is_new && stamp == asked.answered {
            let before = asked.answered;
            self.violate(format!("{stamp:?} is answered, and {before:?} was before it was asked"));
        }
        if is_new && !self.stamps.insert(stamp) {
            self.violate(format!("two writes are answered with {stamp:?}"));
        }
        if asked.is_write {
            self.answered = self.answered.max(stamp);
        }
        if let JournalAnswer::TakeOver(TakeOver::Took(took)) = answer {
            let found = &took.before.reservations;
            let lost = self.written[..asked.written].iter().find(|name| !found.contains_key(*name));
            if let Some(lost) = lost.cloned() {
                self.violate(format!("{lost} was answered as written, and a later reign lacks it"));
            }
        }
    }

    pub(crate) fn committed(&mut self, records: &[Record]) {
        for record in records {
            if let Record::Reserved { name, .. } = record {
                self.written.push(name.clone());
            }
        }
    }

    pub(crate) fn took(&mut self, reign: ReignKey, took: &Took) {
        let epoch = took.before.epoch + 1;
        if let Some(other) = self.epochs.insert(epoch, reign) {
            self.violate(format!("{other:?} and {reign:?} have the epoch {epoch}"));
        }
    }

    pub(crate) fn leads(&mut self, term: u64, disk: DiskId) {
        if let Some(other) = self.leaders.insert(term, disk).filter(|other| *other != disk) {
            self.violate(format!("{other:?} and {disk:?} lead in the term {term}"));
        }
    }

    pub(crate) fn made(&mut self, cluster: ClusterId) {
        if let Some(other) = self.cluster.replace(cluster).filter(|other| *other != cluster) {
            self.violate(format!("{other:?} and {cluster:?} are made"));
        }
    }

    pub(crate) fn highest(&self) -> u64 {
        self.highest
    }

    pub(crate) fn is_made(&self) -> bool {
        self.cluster.is_some()
    }
}

impl GroupWorld {
    /// Nothing was broken for long.
    pub(super) fn judge(&mut self) {
        let mut proven = 0;
        let mut has_written = false;
        for at in 0..self.seats.len() {
            let now = self.clock(at);
            let Some(process) = &self.seats[at].process else {
                self.rules.violate(format!("{at} does not run"));
                return;
            };
            if process.reign.as_ref().is_some_and(|reign| reign.has_proof(now)) {
                proven += 1;
                has_written |= process.writer.is_some();
            }
        }
        if proven != 1 || !has_written {
            let text = format!("{proven} reigns are proven though nothing is broken");
            let trouble = in_lines(&text, &self.standings());
            return self.rules.violate(trouble);
        }
        self.judge_members();
    }

    /// What each member says that is to follow the others.
    fn standings(&self) -> Vec<GroupStanding> {
        let follows = |at: usize| self.cut_member != Some((at, true));
        let processes = self.seats.iter().enumerate().filter(|(at, _)| follows(*at));
        let processes = processes.filter_map(|(_, seat)| seat.process.as_ref());
        processes.map(|process| process.machine.standing()).collect()
    }

    /// Every member follows, and votes.
    pub(super) fn judge_members(&mut self) {
        let standings = self.standings();
        let trouble = |text: &str| in_lines(text, &standings);
        self.judge_disks();
        if matches!(self.cut_member, Some((_, false))) {
            return;
        }
        let behind = |applied: u64| applied + 30 < self.rules.highest();
        if standings.iter().any(|standing| standing.own_disk_waits || behind(standing.applied)) {
            let text = format!("a member is behind {}", self.rules.highest());
            return self.rules.violate(trouble(&text));
        }
        // A disk of the member that is cut may wait, and its place be empty.
        let is_cut = self.cut_member.is_some();
        let is_settled = |standing: &&GroupStanding| {
            standing.is_leading && standing.members.iter().all(|member| member.votes)
        };
        if !is_cut && standings.iter().filter(is_settled).count() != 1 {
            self.rules.violate(trouble("not every member votes"));
        }
    }
}

impl GroupWorld {
    /// No member goes on with a disk that was put back, or leads with one that is low while others have room.
    fn judge_disks(&mut self) {
        for at in 0..self.seats.len() {
            let lacks = self.seats[at].process.as_ref().and_then(|process| process.lacks.clone());
            if let Some(what) = lacks {
                self.rules
                    .violate(format!("the disk of {at} was put back, which none tells it: {what}"));
            }
        }
        let is_low = |seat: usize| self.seats[seat].low_until > self.truth;
        let have_room = (0..self.seats.len()).any(|seat| !is_low(seat));
        if let Some(leader) = self.leading().filter(|leader| is_low(*leader) && have_room) {
            let standings = self.standings();
            let text = format!("the disk of {leader} is low, and it leads");
            self.rules.violate(in_lines(&text, &standings));
        }
    }
}

fn in_lines(text: &str, standings: &[GroupStanding]) -> String {
    let all: Vec<String> = standings.iter().map(|its| format!("\n    {its:?}")).collect();
    format!("{text}{}", all.concat())
}
