//! A leader among others that may follow it: it stands by, reigns, and steps down.
//!
//! It joins the [`Reign`], which knows the clock, and the [`LeaderMachine`], which knows the locks. What
//! clients say reaches the leader by a [`SuccessorTurn`] only, and there is none while the reign is not
//! proven: until it is again, what arrives is not read. So nothing is granted, confirmed, promised,
//! expired or broken without proof, and no frame is dropped. Each reign has a leader of its own,
//! made of what `Took` brought, and connections that were made before it count for nothing in it.

mod asked;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{
    ClusterId, ConnectionId,
    journal::{JournalAnswer, JournalOperation, ReignAttempt, Took},
    leader::{Close, LeaderConfig, LeaderMachine, MachineEvent, Notice, tally::LeaderTally},
    mistake::{Mistake, planted},
    record::CommitAnswer,
    reign::{OperationId, Reign, ReignEnding, ReignEvent},
    rights::{ConnectedClient, Forbidden, PermittedMessage, Rights},
    wire::{ClientMessage, LeaderMessage, Refusal},
};
use crate::time::Time;

/// What an operator may want to know of the succession.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SuccessionNotice {
    /// This leader reigns, in this epoch.
    Reigns { epoch: u32 },
    /// Its reign has ended.
    Ended(ReignEnding),
    /// It hands over.
    HandsOver,
    /// It has resigned, or has waited for that in vain, and stands by.
    HandedOver,
}

/// A leader among others that may follow it.
pub struct Successor {
    config: LeaderConfig,
    reign: Reign,
    /// The leader of the reign, once that was proven.
    leader: Option<LeaderMachine>,
    /// A reign that has begun, and was not proven yet when it was looked at.
    begun: Option<(Arc<ReignAttempt>, Box<Took>)>,
    /// What became of its records, until the leader may act on it.
    answers: Vec<CommitAnswer>,
    /// For how long the reign was not proven since the leader heard of anything last.
    lapsed: Duration,
    /// The last turn was refused.
    is_frozen: bool,
    /// It serves no client any more, and resigns when its records are written, or at this time.
    hands_over: Option<Time>,
    /// It has resigned, and tells its clients which leader follows: once it knows, or at this time.
    parts: Option<Time>,
    /// It was asked to do so.
    is_to_step_down: bool,
    cluster: Option<ClusterId>,
    /// A reign has begun since the driver has closed what it has.
    is_to_sweep: bool,
    /// The connections that are not closed, and what their clients may do.
    connections: BTreeMap<ConnectionId, Option<Arc<Rights>>>,
    /// Those of them whose clients wait to be told which leader reigns, and until when.
    parked: BTreeMap<ConnectionId, Time>,
    messages: VecDeque<(ConnectionId, LeaderMessage)>,
    closes: VecDeque<(ConnectionId, Close)>,
    notices: VecDeque<SuccessionNotice>,
    /// For a mistake: what an earlier reign began with.
    memory: Option<Took>,
    /// What its leaders have counted so far, while there is none.
    tally: Option<Box<LeaderTally>>,
    /// The same of what they have told.
    events: Vec<MachineEvent>,
}

/// The right to hand over what has arrived. The clock was read after that, and read once.
pub struct SuccessorTurn<'a> {
    successor: &'a mut Successor,
    now: Time,
}

impl Successor {
    /// One that stands by. `config` is that of its leaders, but for what belongs to each reign.
    pub fn new(config: LeaderConfig, reign: Reign) -> Successor {
        Successor {
            config,
            reign,
            leader: None,
            begun: None,
            answers: Vec::new(),
            lapsed: Duration::ZERO,
            is_frozen: false,
            hands_over: None,
            parts: None,
            is_to_step_down: false,
            cluster: None,
            is_to_sweep: false,
            connections: BTreeMap::new(),
            parked: BTreeMap::new(),
            messages: VecDeque::new(),
            closes: VecDeque::new(),
            notices: VecDeque::new(),
            memory: None,
            tally: None,
            events: Vec::new(),
        }
    }

    /// Its part in the succession.
    pub fn reign(&self) -> &Reign {
        &self.reign
    }

    /// The leader of its reign, while there is one.
    pub fn leader(&self) -> Option<&LeaderMachine> {
        self.leader.as_ref()
    }

    /// The same, for what its operator changes.
    pub fn leader_mut(&mut self) -> Option<&mut LeaderMachine> {
        self.leader.as_mut()
    }

    /// Whether what has arrived is to be kept, as far as it was looked at last.
    pub fn is_frozen(&self) -> bool {
        self.is_frozen || self.hands_over.is_some() || self.parts.is_some()
    }

    /// Whether it stops serving and resigns just now.
    pub fn is_handing_over(&self) -> bool {
        self.hands_over.is_some()
    }

    /// Whether it has resigned, and its clients are still to be told which leader follows.
    pub fn is_parting(&self) -> bool {
        self.parts.is_some()
    }

    /// What each of its leaders begins with.
    pub fn config_mut(&mut self) -> &mut LeaderConfig {
        &mut self.config
    }

    /// The answer to an operation, received before `now` was read.
    pub fn handle_answer(&mut self, id: OperationId, answer: JournalAnswer, now: Time) {
        self.reign.handle_answer(id, answer, now);
        self.step(now);
    }

    /// Time passes; the leader is told by its turn.
    pub fn handle_timeout(&mut self, now: Time) {
        self.reign.handle_timeout(now);
        self.step(now);
    }

    /// The journal has changed, as the driver has heard: it is read at once.
    pub fn look_at_journal(&mut self, now: Time) {
        self.reign.look_again(now);
        self.step(now);
    }

    /// Stops serving, writes what is to be written, and resigns. Its clients hear of it when they have somewhere
    /// to go: before that all of them would ask all leaders, again and again, and those that stand by would
    /// have to turn them away instead of following.
    pub fn hand_over(&mut self, now: Time) {
        self.step(now);
        let Some(leader) = &mut self.leader else { return };
        leader.handle_stop(now);
        self.gather();
        self.hands_over = Some(now + HAND_OVER_LIMIT);
        self.notices.push_back(SuccessionNotice::HandsOver);
        self.drop_leader();
        self.step(now);
    }

    /// What has arrived may be handed over, if the reign is proven at this moment or there is none.
    /// Until then it is to be kept.
    pub fn turn(&mut self, now: Time) -> Option<SuccessorTurn<'_>> {
        self.step(now);
        self.is_frozen = self.reign.reigning().is_some()
            && !self.reign.has_proof(now)
            && !planted(Mistake::ActsWithoutProof);
        if self.is_frozen() {
            return None;
        }
        if let Some((attempt, took)) = self.begun.take() {
            self.begin(&attempt, *took, now);
        }
        if let Some(leader) = &mut self.leader {
            let lapsed = std::mem::take(&mut self.lapsed);
            if !lapsed.is_zero() {
                leader.handle_lapse(lapsed, now);
            }
            for answer in self.answers.drain(..) {
                match answer {
                    CommitAnswer::Committed(committed) => leader.handle_committed(committed, now),
                    CommitAnswer::Unwritten(unwritten) => leader.handle_unwritten(unwritten, now),
                }
            }
        }
        Some(SuccessorTurn { successor: self, now })
    }

    /// Whether a reign has begun: every connection of before is to be closed at once, those too that
    /// are not told of yet. What was said on it counts for nothing in this reign.
    pub fn poll_sweep(&mut self) -> bool {
        std::mem::take(&mut self.is_to_sweep)
    }

    pub fn poll_message(&mut self) -> Option<(ConnectionId, LeaderMessage)> {
        let own = self.messages.pop_front();
        own.or_else(|| self.leader.as_mut().and_then(LeaderMachine::poll_message))
    }

    pub fn poll_close(&mut self) -> Option<(ConnectionId, Close)> {
        let own = self.closes.pop_front();
        let close = own.or_else(|| self.leader.as_mut().and_then(LeaderMachine::poll_close))?;
        self.connections.remove(&close.0);
        self.parked.remove(&close.0);
        Some(close)
    }

    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.leader.as_mut().and_then(LeaderMachine::poll_notice)
    }

    /// The rare events since this was asked last, if its leaders tell any.
    pub fn take_events(&mut self) -> Vec<MachineEvent> {
        let mut events = std::mem::take(&mut self.events);
        events.extend(self.leader.as_mut().into_iter().flat_map(LeaderMachine::take_events));
        events
    }

    /// What its leaders have counted, if they do.
    pub fn tally(&self) -> Option<&LeaderTally> {
        self.leader.as_ref().and_then(LeaderMachine::tally).or(self.tally.as_deref())
    }

    pub fn poll_succession(&mut self) -> Option<SuccessionNotice> {
        self.notices.pop_front()
    }

    /// An operation to ask of the journal. `now` is read before it is sent.
    pub fn poll_operation(&mut self, now: Time) -> Option<(OperationId, JournalOperation)> {
        self.gather();
        let operation = self.reign.poll_operation(now);
        self.step(now);
        operation
    }

    /// When to look again.
    pub fn poll_timeout(&self) -> Option<Time> {
        let leader = self.leader.as_ref().filter(|_| !self.is_frozen);
        let leader = leader.and_then(LeaderMachine::poll_timeout);
        let parked = self.parked.values().min().copied();
        let own = [self.hands_over, self.parts, parked].into_iter().flatten();
        own.chain(leader).chain(self.reign.poll_timeout()).min()
    }
}

impl SuccessorTurn<'_> {
    pub fn handle_connected(
        &mut self,
        connection: ConnectionId,
        client: impl Into<ConnectedClient>,
    ) {
        let client = client.into();
        let Successor { leader, connections, .. } = self.successor;
        connections.insert(connection, client.rights.clone());
        if let Some(leader) = leader {
            leader.handle_connected(connection, client, self.now);
        }
    }

    /// A message, if the connection's client may say it; else it is refused here, whether this leader
    /// reigns or stands by. What a closed connection said counts for nothing, nor does what a client says
    /// that has proved nothing.
    pub fn permit(
        &mut self,
        connection: ConnectionId,
        message: ClientMessage,
    ) -> Option<PermittedMessage> {
        let Successor { leader, connections, messages, closes, .. } = &mut *self.successor;
        let said = match connections.get(&connection)?.as_ref()?.permit(message) {
            Ok(permitted) => return Some(permitted),
            Err(said) => said,
        };
        match (leader, said) {
            (Some(leader), said) => leader.handle_forbidden(connection, said, self.now),
            (None, Forbidden::Acquire(request) | Forbidden::Question(request)) => {
                let (why, holder) = (Refusal::NotPermitted, None);
                messages.push_back((connection, LeaderMessage::Refused { request, why, holder }));
            }
            (None, Forbidden::Report) => closes.push_back((connection, Close::NotPermitted)),
        }
        None
    }

    pub fn handle_message(&mut self, connection: ConnectionId, message: ClientMessage) {
        if let Some(message) = self.permit(connection, message) {
            self.handle_permitted(connection, message);
        }
    }

    pub fn handle_permitted(&mut self, connection: ConnectionId, message: PermittedMessage) {
        let message = message.into_inner();
        if self.successor.answers_operator(connection, &message, self.now) {
            return;
        }
        match &mut self.successor.leader {
            Some(leader) => leader.handle_message(connection, message, self.now),
            None => self.successor.park(connection, self.now),
        }
    }

    pub fn handle_disconnected(&mut self, connection: ConnectionId) {
        let Successor { leader, connections, parked, .. } = self.successor;
        connections.remove(&connection);
        parked.remove(&connection);
        if let Some(leader) = leader {
            leader.handle_disconnected(connection, self.now);
        }
    }

    /// What is due by now.
    pub fn handle_timeout(&mut self) {
        if let Some(leader) = &mut self.successor.leader
            && leader.poll_timeout().is_some_and(|at| at <= self.now)
        {
            leader.handle_timeout(self.now);
        }
    }
}

impl Successor {
    /// Takes in what has become of the reign.
    fn step(&mut self, now: Time) {
        while let Some(event) = self.reign.poll_event() {
            match event {
                ReignEvent::Began { attempt, took, .. } => {
                    self.cluster = Some(took.before.cluster);
                    self.is_to_sweep = true;
                    self.part();
                    self.begun = Some((attempt, took));
                }
                ReignEvent::Answered(answers) => self.answers.extend(answers),
                ReignEvent::Regained { lapsed } => self.lapsed += lapsed,
                ReignEvent::Ended(ending) => {
                    if self.hands_over.is_some() {
                        // Its operator wants another to follow, however this one's reign has ended.
                        self.reign.stay_out(now);
                    }
                    match (&ending, &mut self.leader) {
                        // Its requests are told why, and it grants nothing any more.
                        (ReignEnding::Failed(_), Some(leader)) => leader.handle_storage_failed(now),
                        _ => self.drop_leader(),
                    }
                    (self.begun, self.hands_over) = (None, None);
                    self.forget_reign();
                    if self.leader.is_none() {
                        self.part();
                    }
                    self.notices.push_back(SuccessionNotice::Ended(ending));
                }
            }
        }
        if self.parts.is_some_and(|at| at <= now || self.reign.follower().is_some()) {
            self.part();
        }
        self.turn_parked_away(now);
        let Some(until) = self.hands_over else { return };
        if self.reign.reigning().is_some() && (!self.reign.is_writing() || until <= now) {
            self.reign.resign(now);
            self.hands_over = Some(Time::NEVER);
        }
        if self.reign.reigning().is_none() && !self.reign.is_resigning() {
            self.hands_over = None;
            self.forget_reign();
            let limit = self.reign.lasts().unwrap_or_default() / PARTS_WITHIN;
            self.parts = Some(now + limit);
            self.notices.push_back(SuccessionNotice::HandedOver);
        }
    }

    /// What it has counted goes on.
    fn drop_leader(&mut self) {
        if let Some(mut leader) = self.leader.take() {
            self.tally = leader.take_tally();
            self.events.extend(leader.take_events());
        }
    }

    fn forget_reign(&mut self) {
        self.answers.clear();
        self.lapsed = Duration::ZERO;
    }

    /// The reign is proven for the first time.
    fn begin(&mut self, attempt: &ReignAttempt, took: Took, now: Time) {
        self.forget_reign();
        let took = if planted(Mistake::ReignFromMemory) { self.remember(took) } else { took };
        let is_exclusive = self.reign.terms().is_exclusive;
        let config = LeaderConfig {
            reign: attempt.reign.id(),
            epoch_above: attempt.epoch_above,
            reign_lasts: (!is_exclusive).then_some(attempt.lasts),
            // Another journal's lock proves no process dead.
            process: self.config.process.filter(|_| is_exclusive),
            ..self.config.clone()
        };
        let mut leader = LeaderMachine::new(config, took.before, now);
        let took_over = leader.poll_record().expect("it begins with its own record");
        assert_eq!(took_over.record(), &attempt.took_over, "leader and journal begin alike");
        let Some((epoch, _)) = took_over.record().begins() else {
            unreachable!("its first record is the reign's beginning")
        };
        for answer in took.written.of(vec![took_over]) {
            if let CommitAnswer::Committed(committed) = answer {
                leader.handle_committed(committed, now);
            }
        }
        self.drop_leader();
        leader.resume_tally(self.tally.take());
        self.leader = Some(leader);
        self.notices.push_back(SuccessionNotice::Reigns { epoch });
    }

    /// For a mistake: the sessions of its first reign, whatever the journal has by now.
    fn remember(&mut self, mut took: Took) -> Took {
        let memory = self.memory.get_or_insert_with(|| took.clone());
        took.before.sessions = memory.before.sessions.clone();
        took
    }

    /// The reign's records, in its own queue.
    fn gather(&mut self) {
        if let Some(leader) = &mut self.leader {
            while let Some(pending) = leader.poll_record() {
                self.reign.write(pending);
            }
        }
    }

    /// A client has come to a leader that does not reign. While it is not known which one does, it waits here
    /// for a while: turned away it would come again at once and find no more, and with many clients those that
    /// are to follow would be busy with connections alone.
    fn park(&mut self, connection: ConnectionId, now: Time) {
        if !self.reign.awaits_follower(now) {
            return self.turn_away(connection);
        }
        if self.connections.contains_key(&connection) {
            let limit = self.reign.lasts().unwrap_or_default() / 2;
            self.parked.entry(connection).or_insert(now + limit.min(PARKED_MAX));
        }
    }

    fn turn_parked_away(&mut self, now: Time) {
        if self.parked.is_empty() {
            return;
        }
        let is_known = !self.reign.awaits_follower(now);
        let due = self.parked.iter().filter(|(_, until)| is_known || **until <= now);
        for connection in due.map(|(connection, _)| *connection).collect::<Vec<_>>() {
            self.parked.remove(&connection);
            self.turn_away(connection);
        }
    }

    /// Tells a client that another leader reigns, and where, as far as this one knows.
    fn turn_away(&mut self, connection: ConnectionId) {
        let head = self.reign.head();
        let Some(cluster) = head.map(|head| head.cluster).or(self.cluster) else { return };
        if self.connections.remove(&connection).is_some() {
            let try_next = head.and_then(|head| head.address.clone());
            let answer = LeaderMessage::NotLeader { try_next, cluster, epoch: None };
            self.messages.push_back((connection, answer));
            self.closes.push_back((connection, Close::NotLeader));
        }
    }

    /// Closes what is open. As far as it knows by now which leader reigns, clients are told.
    fn part(&mut self) {
        self.parts = None;
        self.parked.clear();
        let address = self.reign.head().and_then(|head| head.address.clone());
        for (connection, _) in std::mem::take(&mut self.connections) {
            if let Some(cluster) = self.cluster {
                let answer =
                    LeaderMessage::NotLeader { try_next: address.clone(), cluster, epoch: None };
                self.messages.push_back((connection, answer));
            }
            self.closes.push_back((connection, Close::NotLeader));
        }
    }
}

/// How long a leader that hands over waits for its last records.
const HAND_OVER_LIMIT: Duration = Duration::from_millis(500);

/// The part of L after which a leader that has resigned keeps its clients no longer, though it has not heard of
/// another. One that stands by reads that there is no reign within an eighth of L.
const PARTS_WITHIN: u32 = 2;

/// For how long a client waits at most to be told which leader reigns. It gives up after a second itself.
const PARKED_MAX: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;
