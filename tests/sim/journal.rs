//! A journal that outlives its leaders, and is a network away: it is slow, loses what it is asked and
//! what it answers, is cut off from one leader, one way or both, is down, and answers reads with
//! what was true some writes ago.
//!
//! What it has is what the world's disk has. Whether its head's reign is that of a leader that acts is
//! a rule of its own.

use std::{collections::VecDeque, time::Duration};

use tierlock::proto::{
    ClusterId,
    journal::{
        Appended, JournalAnswer, JournalHead, JournalOperation, JournalTerms, JournalTrouble,
        ReignAttempt, ReignKey, ReignRenewal, Stamp, TakeOver, Took,
    },
    mistake::{Mistake, planted},
    record::{Record, Written},
    reign::{OperationId, Reign, ReignConfig},
    successor::{SuccessionNotice, Successor},
};

use crate::{
    clock::{MS, Truth, shown},
    leader::{Host, SuccessorAct},
    rank::Rank,
    rules::Rule,
    world::{Node, Step, World, note},
};

/// From this seed on worlds have several leaders.
pub(crate) const SEVERAL: u64 = 1 << 40;

/// What an append may have.
const BATCH_MAX: usize = 8;

/// How stale a read may be, in writes.
const STALE_MAX: usize = 6;

/// The store.
pub(crate) struct Journal {
    pub(crate) head: JournalHead,
    /// The number of the reign's last batch.
    pub(crate) number: u64,
    /// The last heads before this one.
    past: VecDeque<JournalHead>,
    /// Which reign it was in from when on.
    reigns: Vec<(Truth, Option<ReignKey>)>,
    /// Until then nothing reaches it.
    pub(crate) down_until: Truth,
    /// Until then it takes long.
    pub(crate) slow_until: Truth,
    pub(crate) asked: Vec<Option<Asked>>,
}

/// An operation on its way, or its answer.
pub(crate) struct Asked {
    pub(crate) seat: usize,
    pub(crate) start: u32,
    id: OperationId,
    pub(crate) operation: JournalOperation,
    pub(crate) answer: Option<JournalAnswer>,
}

/// What of a leader's way to the journal is cut.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cut {
    pub(crate) requests_until: Truth,
    pub(crate) answers_until: Truth,
}

impl Journal {
    pub(crate) fn new(lasts: Duration) -> Journal {
        Journal {
            head: JournalHead {
                cluster: ClusterId(7),
                reign: None,
                lasts,
                stamp: Stamp(1),
                epoch: 0,
                waits_for: None,
                address: None,
            },
            number: 0,
            past: VecDeque::new(),
            reigns: vec![(0, None)],
            down_until: 0,
            slow_until: 0,
            asked: Vec::new(),
        }
    }

    /// Which reign it was in at that moment.
    pub(crate) fn reign_at(&self, truth: Truth) -> Option<ReignKey> {
        let last = self.reigns.iter().rev().find(|(since, _)| *since <= truth);
        last.and_then(|(_, reign)| *reign)
    }

    /// Every write changes the stamp, to one that never was.
    fn touch(&mut self) -> Stamp {
        self.past.push_back(self.head.clone());
        if self.past.len() > STALE_MAX {
            self.past.pop_front();
        }
        self.head.stamp.0 += 1;
        self.head.stamp
    }

    fn begin(&mut self, reign: Option<ReignKey>, truth: Truth) {
        self.head.reign = reign;
        self.reigns.push((truth, reign));
    }

    fn is_of(&self, reign: ReignKey) -> bool {
        self.head.reign == Some(reign)
    }
}

impl World {
    /// A successor for this seat, which stands by.
    pub(crate) fn successor(
        &mut self,
        config: tierlock::proto::leader::LeaderConfig,
    ) -> Box<Successor> {
        let reign = ReignConfig {
            lasts: self.plan.lasts,
            address: None,
            epoch_above: None,
            terms: JournalTerms { is_exclusive: false, batch_max: BATCH_MAX, renewals: 6 },
        };
        let now = self.clock(Node::Leader);
        let reign = Reign::new(reign, self.dice.random(), now);
        Box::new(Successor::new(config, reign))
    }

    /// The leader of this seat asks the journal for what is due.
    pub(crate) fn ask_journal(&mut self, host: &mut Host) {
        let now = self.clock(Node::Leader);
        while let Some(successor) = host.leader.successor()
            && let Some((id, operation)) = successor.poll_operation(now)
        {
            note!(self, "leader {} asks {id:?} {operation:?}", self.seat);
            let start = self.processes[self.process_of(Node::Leader)].starts;
            let asked = Asked { seat: self.seat, start, id, operation, answer: None };
            self.journal.asked.push(Some(asked));
            let number = self.journal.asked.len() - 1;
            if self.plan.in_group {
                self.ask_own_member(number);
                continue;
            }
            let cut = self.seats[self.seat].cut.requests_until.max(self.journal.down_until);
            let delay = self.journal_delay();
            let is_lost = self.dice.below(200) == 0;
            if cut > self.truth || is_lost {
                self.tally.journal_losses += 1;
                // Some of it is only late.
                if self.dice.percent(30) {
                    let late = self.dice.below(2000 * MS);
                    let at = cut.max(self.truth) + late;
                    self.at(at, Step::JournalReads(number));
                }
                // A connection may break before anything is known.
                if self.dice.percent(30) {
                    let soon = self.dice.below(20 * MS);
                    let trouble = self.trouble_with(number);
                    self.after(soon, Step::JournalAnswers(number, Some(Box::new(trouble))));
                }
            } else {
                self.after(delay, Step::JournalReads(number));
            }
        }
    }

    /// What its leader hears of an operation of which nothing is known.
    fn trouble_with(&self, number: usize) -> JournalAnswer {
        if planted(Mistake::UnknownIsDone)
            && let Some(Asked { operation: JournalOperation::Append { .. }, .. }) =
                self.journal.asked[number]
        {
            let written = Written::committed(Vec::new());
            let stamp = self.journal.head.stamp;
            return JournalAnswer::Appended(Appended::Committed(stamp, written));
        }
        JournalAnswer::Trouble(JournalTrouble::Unknown("the connection broke".to_owned()))
    }

    fn journal_delay(&mut self) -> Truth {
        let is_slow = self.truth < self.journal.slow_until;
        match self.dice.below(100) {
            _ if is_slow => self.dice.below(400 * MS),
            _ if self.plan.journal_is_far => self.dice.below(self.plan.lasts.as_nanos() as u64 / 4),
            0 => self.dice.below(1000 * MS),
            1..=5 => self.dice.below(60 * MS),
            _ => self.dice.below(3 * MS),
        }
    }

    /// An operation has reached the journal: it happens at this moment.
    pub(crate) fn journal_reads(&mut self, number: usize) {
        if self.plan.in_group {
            return self.member_is_asked(number);
        }
        let Some(asked) = &self.journal.asked[number] else { return };
        let (seat, operation) = (asked.seat, asked.operation.clone());
        if self.truth < self.journal.down_until {
            return;
        }
        let answer = self.journal_does(&operation);
        let cut = self.seats[seat].cut.answers_until > self.truth;
        if cut || self.dice.below(200) == 0 {
            self.tally.journal_losses += 1;
            return;
        }
        if let Some(asked) = &mut self.journal.asked[number] {
            asked.answer = Some(answer);
        }
        let delay = self.journal_delay();
        self.after(delay, Step::JournalAnswers(number, None));
    }

    pub(crate) fn journal_does(&mut self, operation: &JournalOperation) -> JournalAnswer {
        self.tally.journal_operations += 1;
        match operation {
            JournalOperation::Read => {
                let journal = &self.journal;
                let is_stale = !journal.past.is_empty() && self.dice.percent(20);
                let head = match is_stale {
                    true => {
                        journal.past[self.dice.below(journal.past.len() as u64) as usize].clone()
                    }
                    false => journal.head.clone(),
                };
                JournalAnswer::Head(head)
            }
            JournalOperation::TakeOver(attempt) => self.journal_take_over(attempt),
            JournalOperation::Append { reign, number, records } => {
                self.journal_append(*reign, *number, records)
            }
            JournalOperation::Renew(reign) => {
                JournalAnswer::Renewal(match self.journal.is_of(*reign) {
                    false if !planted(Mistake::RenewsUnchecked) => {
                        ReignRenewal::Deposed(self.journal.head.clone())
                    }
                    _ => ReignRenewal::Renewed(self.journal.touch()),
                })
            }
            JournalOperation::Resign(reign) => {
                if self.journal.is_of(*reign) {
                    self.journal.touch();
                    self.journal.begin(None, self.truth);
                }
                JournalAnswer::Resigned
            }
        }
    }

    fn journal_take_over(&mut self, attempt: &ReignAttempt) -> JournalAnswer {
        let is_seen = match planted(Mistake::TakesOverByReign) {
            false => attempt.seen == self.journal.head.stamp,
            true => {
                let mut heads = self.journal.past.iter().chain([&self.journal.head]);
                let seen = heads.find(|head| head.stamp == attempt.seen);
                seen.is_some_and(|seen| seen.reign == self.journal.head.reign)
            }
        };
        if !is_seen && !planted(Mistake::ConditionAtProposal) {
            return JournalAnswer::TakeOver(TakeOver::Raced(self.journal.head.clone()));
        }
        self.check_proofs();
        let before = self.disk.recover();
        let (epoch, _) = attempt.took_over.begins().expect("so it begins");
        self.disk.write(&attempt.took_over);
        let truth = self.truth;
        let stamp = self.journal.touch();
        let journal = &mut self.journal;
        journal.begin(Some(attempt.reign), truth);
        (journal.number, journal.head.epoch, journal.head.lasts) = (0, epoch, attempt.lasts);
        if planted(Mistake::StampsRestart) {
            journal.head.stamp = Stamp(1);
            journal.past.clear();
        }
        note!(self, "the journal is in the reign {:?}", attempt.reign);
        self.tally.take_overs += 1;
        // Whatever the leader before has told its clients, they stand in another queue now.
        self.ops.iter_mut().for_each(|op| op.leave_queue());
        let written = Written::committed(Vec::new());
        JournalAnswer::TakeOver(TakeOver::Took(Box::new(Took { stamp, before, written })))
    }

    fn journal_append(
        &mut self,
        reign: ReignKey,
        number: u64,
        records: &[Record],
    ) -> JournalAnswer {
        let written = Written::committed(Vec::new());
        if !self.journal.is_of(reign) {
            return JournalAnswer::Appended(Appended::Deposed(self.journal.head.clone()));
        }
        if number == self.journal.number && !planted(Mistake::AppendsUnnumbered) {
            let stamp = self.journal.head.stamp;
            return JournalAnswer::Appended(Appended::Committed(stamp, written));
        }
        if number != self.journal.number + 1 && !planted(Mistake::AppendsUnnumbered) {
            return JournalAnswer::Appended(Appended::Deposed(self.journal.head.clone()));
        }
        for record in records {
            self.disk.write(record);
        }
        self.journal.number = number;
        self.journal.head.epoch = self.disk.known.epoch;
        self.look_at_raises();
        if let Some((name, token)) = self.disk.known.written_behind.take() {
            let text = format!("{token} of {name} is reserved again behind its end");
            self.violate(Rule::AtLeast, text);
        }
        JournalAnswer::Appended(Appended::Committed(self.journal.touch(), written))
    }

    /// An answer, or the news that none will come, reaches the leader that asked.
    pub(crate) fn journal_answers(&mut self, number: usize, trouble: Option<Box<JournalAnswer>>) {
        let Some(asked) = self.journal.asked[number].take() else { return };
        let answer = match trouble {
            Some(trouble) => {
                let (answer, id, seat, start) = (*trouble, asked.id, asked.seat, asked.start);
                // The operation itself may still be under way.
                self.journal.asked[number] = Some(Asked { answer: None, ..asked });
                return self.answer_leader(seat, start, id, answer);
            }
            None => asked.answer,
        };
        if let Some(answer) = answer {
            self.answer_leader(asked.seat, asked.start, asked.id, answer);
        }
    }

    fn answer_leader(&mut self, seat: usize, start: u32, id: OperationId, answer: JournalAnswer) {
        self.sit(seat);
        if self.processes[self.process_of(Node::Leader)].starts == start {
            self.news_of_journal(id, answer);
        }
    }

    /// What goes wrong between leaders and their journal.
    pub(crate) fn succession_fault(&mut self, pause: Truth) {
        let until = self.truth + pause;
        let seat = match self.dice.percent(60) {
            true => self.seat_of_reign().unwrap_or(self.seat),
            false => self.seat,
        };
        if self.plan.in_group {
            // What else goes wrong the group's own world knows.
            self.sit(seat);
            return if self.dice.percent(25) {
                self.hand_over()
            };
        }
        let cut = &mut self.seats[seat].cut;
        match self.dice.below(8) {
            // It never hears of it again.
            0 if seat == 0 && self.plan.leaders > 2 => cut.answers_until = Truth::MAX,
            0 => cut.requests_until = until,
            1 | 2 => cut.answers_until = until,
            3 | 4 => (cut.requests_until, cut.answers_until) = (until, until),
            5 => self.journal.down_until = until,
            6 => self.journal.slow_until = until,
            _ => {
                self.sit(seat);
                self.hand_over();
            }
        }
        note!(self, "the journal has trouble with leader {seat} for {:?}", shown(pause));
    }

    /// Where the journal's reign is.
    fn seat_of_reign(&mut self) -> Option<usize> {
        let reign = self.journal.head.reign?;
        (0..self.plan.leaders).find(|&seat| {
            self.sit(seat);
            self.host.as_ref().is_some_and(|host| host.is_of(Some(reign)))
        })
    }

    /// The operator has this leader hand over.
    pub(crate) fn hand_over(&mut self) {
        self.with_successor(Successor::hand_over);
    }

    /// It hears that the journal has changed.
    pub(crate) fn look_at_journal(&mut self) {
        self.with_successor(Successor::look_at_journal);
    }

    /// Has the leader of this seat do something outside its turns, if it runs: one that stood still in the
    /// middle of a turn ends that first.
    fn with_successor(&mut self, act: SuccessorAct) {
        if self.is_paused(self.process_of(Node::Leader)) {
            return;
        }
        let Some(mut host) = self.host.take() else { return };
        if host.turn.is_some() {
            host.after_turn.push(act);
            self.host = Some(host);
            return;
        }
        let now = self.clock(Node::Leader);
        host.read_at = self.truth;
        if let Some(successor) = host.leader.successor() {
            act(successor, now);
        }
        self.ask_journal(&mut host);
        self.follow_succession(&mut host);
        self.host = Some(host);
        self.wake_leader(self.truth);
    }

    /// What it was to do while it was in the middle of a turn that is over.
    pub(crate) fn act_after_turn(&mut self) {
        let acts = self.host.as_mut().map(|host| std::mem::take(&mut host.after_turn));
        acts.into_iter().flatten().for_each(|act| self.with_successor(act));
    }

    /// What the leader of this seat has become.
    pub(crate) fn follow_succession(&mut self, host: &mut Host) {
        while let Some(successor) = host.leader.successor()
            && let Some(notice) = successor.poll_succession()
        {
            note!(self, "leader {}: {notice:?}", self.seat);
            match notice {
                SuccessionNotice::Reigns { .. } => {
                    let before = host.took_before.take().expect("it was answered");
                    host.begin_reign(&before, self.truth);
                }
                SuccessionNotice::Ended(_) => {
                    self.tally.step_downs += 1;
                    self.new_reign(host);
                }
                SuccessionNotice::HandsOver => {
                    self.tally.hand_overs += 1;
                    self.new_reign(host);
                }
                SuccessionNotice::HandedOver => {}
            }
        }
        if let Some(successor) = host.leader.successor()
            && successor.poll_sweep()
        {
            self.new_reign(host);
        }
    }

    /// What clients have said to this leader until now counts for nothing any more.
    fn new_reign(&mut self, host: &mut Host) {
        let before = self.reign;
        self.reigns += 1;
        self.reign = self.reigns;
        self.obey_leader(host);
        self.obey_closes(host);
        host.hang_up();
        self.hang_up_on_all(before);
    }

    /// The journal goes over to another reign: none is proven at this moment, by whichever clock.
    fn check_proofs(&mut self) {
        for seat in 0..self.plan.leaders {
            self.sit(seat);
            let now = self.clock(Node::Leader);
            let leader = self.host.as_ref().map(|host| &host.leader);
            let Some(Rank::Successor(successor)) = leader else { continue };
            if successor.reign().has_proof(now) {
                let own = successor.reign().reigning();
                let text = format!("{own:?} of leader {seat} is proven while another takes over");
                self.violate(Rule::TwoReigns, text);
            }
        }
    }

    /// A leader that acts with proof acts in the journal's reign. Whether this one still does.
    pub(crate) fn check_reign(&mut self, host: &Host) -> bool {
        let Rank::Successor(successor) = &host.leader else { return true };
        let Some(own) = successor.reign().reigning() else { return true };
        if self.journal.reign_at(host.read_at) != Some(own) {
            let text = format!(
                "leader {} acts in {own:?} at {:?}, and the journal was in {:?}",
                self.seat,
                shown(host.read_at),
                self.journal.reign_at(host.read_at)
            );
            self.violate(Rule::TwoReigns, text);
        }
        self.journal.head.reign == Some(own)
    }
}
