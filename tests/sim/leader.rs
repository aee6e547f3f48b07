//! The leader's process: a driver like the real one, around the real leader.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tierlock::{
    Name, Time, Token,
    proto::{
        ClusterId, ConnectionId, LeaseId, ReignId, RequestId, SessionId,
        history::{Attestation, Notary, Seen},
        journal::{JournalAnswer, ReignKey, TakeOver},
        leader::{BLOCK, Close, LeaderConfig, LeaderMachine, LeaderTells, Notice},
        look::{AtLeader, LeaderSubject},
        record::{Recovered, Reservation},
        reign::OperationId,
        wire::{ClientMessage, FrameReader, LeaderMessage, encode_frame},
    },
};

use crate::{
    clock::{MS, SECOND, Truth},
    disk::Answer,
    net::Piece,
    observing::is_of_observer,
    rank::Rank,
    restored::Branch,
    rules::Rule,
    world::{Node, Step, Ticket, World, note},
};

/// How a leader ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With its process.
    Killed,
    /// It writes what it was to write.
    InOrder,
    /// What it was to write is lost.
    DiskFailed,
}

pub(crate) struct Host {
    pub(crate) leader: Rank,
    /// What has arrived and was not read yet.
    inbox: VecDeque<News>,
    /// Connections that are read.
    readers: BTreeMap<usize, FrameReader>,
    /// Those of them that have not ended.
    open: BTreeSet<usize>,
    /// Which session each connection named.
    pub(crate) sessions: BTreeMap<usize, SessionId>,
    /// What is kept until its reign is proven.
    kept: VecDeque<News>,
    turn: Option<Turn>,
    next_turn: Ticket,
    pub(crate) disk_fails: bool,
    /// The epoch before this reign.
    pub(crate) epoch_before: u32,
    /// When it was started.
    pub(crate) started: Truth,
    /// The highest epoch that it has heard of in a reign that its state does not know.
    pub(crate) met_lost: Option<u32>,
    /// What each connection's report says of reigns.
    seen: BTreeMap<usize, Option<Seen>>,
    /// What each connection's report says of leases of earlier reigns, until that is believed.
    claims: BTreeMap<usize, BTreeMap<LeaseId, ReignId>>,
    /// The sessions welcomed in this reign.
    welcomed: BTreeSet<SessionId>,
    /// The leases that each connection's report names as held, until they are told as lost.
    pub(crate) reported: BTreeMap<usize, BTreeSet<LeaseId>>,
    /// The losses that it has heard to be durable.
    pub(crate) lost_known: BTreeSet<LeaseId>,
    /// The requests that earlier reigns have reserved a name for, whether or not they told them.
    pub(crate) reserved_before: BTreeSet<(SessionId, RequestId)>,
    /// When it last read its clock.
    pub(crate) read_at: Truth,
    /// Grants with `at_least` that were told since: name, token, `at_least`, when.
    pub(crate) undated: Vec<(usize, Token, Duration, Truth)>,
    /// What earlier reigns have reserved, until this one counts it.
    pub(crate) entries_before: BTreeMap<Name, Reservation>,
    /// What the journal had when its next reign was taken over.
    pub(crate) took_before: Option<Recovered>,
}

enum News {
    Connected(usize),
    Bytes(usize, Vec<u8>),
    Ended(usize),
    Answered(Vec<Answer>),
    DiskFailed,
    OfJournal(OperationId, JournalAnswer),
}

/// Vouches for what the world's leaders say: another code for each pair.
#[derive(Debug)]
struct Seal;

impl Notary for Seal {
    fn attest(&self, cluster: ClusterId, epoch: u32, reign: ReignId) -> Attestation {
        let mixed = (u128::from(reign.0) << 32 | u128::from(epoch)).wrapping_add(cluster.0);
        Attestation(mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835))
    }
}

/// A turn that was interrupted.
struct Turn {
    news: Vec<News>,
    now: Option<Time>,
}

impl Host {
    pub(crate) fn has_turn(&self, ticket: Ticket) -> bool {
        self.next_turn == ticket
    }

    /// Whether it is the leader of this reign, and that is proven as far as it has looked.
    pub(crate) fn is_of(&self, reign: Option<ReignKey>) -> bool {
        match &self.leader {
            Rank::Sole(_) => true,
            Rank::Successor(successor) => {
                successor.leader().is_some() && successor.reign().reigning() == reign
            }
        }
    }

    /// A reign begins over what the journal had.
    pub(crate) fn begin_reign(&mut self, before: &Recovered, now: Truth) {
        let sessions = before.sessions.values();
        self.lost_known = sessions.flat_map(|session| session.revoked.keys().copied()).collect();
        let entries = before.reservations.values();
        self.reserved_before = entries.map(|entry| (entry.session, entry.request)).collect();
        (self.epoch_before, self.started) = (before.epoch, now);
        self.welcomed.clear();
        self.undated.clear();
        self.entries_before = before.reservations.clone();
    }

    /// No connection that it had is served any more.
    pub(crate) fn hang_up(&mut self) {
        self.inbox.retain(|news| matches!(news, News::OfJournal(..)));
        self.readers.clear();
        self.open.clear();
        self.sessions.clear();
        self.seen.clear();
        self.claims.clear();
        self.reported.clear();
    }

    fn hears(&mut self, wire: usize, message: &ClientMessage) {
        match message {
            ClientMessage::Hello { session, seen, .. } => {
                self.sessions.insert(wire, *session);
                self.seen.insert(wire, seen.as_deref().copied());
                self.claims.remove(&wire);
                self.reported.remove(&wire);
            }
            ClientMessage::Held { leases } => {
                let held = leases.iter().filter(|held| held.leaving.is_none());
                self.reported.entry(wire).or_default().extend(held.map(|held| held.lease));
                let claims = leases
                    .iter()
                    .filter(|held| held.leaving.is_none() && held.lease.epoch <= self.epoch_before);
                let claims = claims.map(|held| (held.lease, held.reign));
                self.claims.entry(wire).or_default().extend(claims);
            }
            _ => {}
        }
    }

    /// Answers which leases of earlier reigns this confirms.
    fn says(&mut self, wire: usize, message: &LeaderMessage) -> Vec<(u32, ReignId)> {
        let claims = self.claims.entry(wire).or_default();
        match *message {
            LeaderMessage::Lost { lease, .. } => {
                claims.remove(&lease);
                self.reported.entry(wire).or_default().remove(&lease);
            }
            LeaderMessage::Welcome { session, time_to_live, .. }
                if !time_to_live.is_zero() && self.welcomed.insert(session) =>
            {
                return claims.iter().map(|(lease, reign)| (lease.epoch, *reign)).collect();
            }
            _ => {}
        }
        Vec::new()
    }
}

impl World {
    pub(crate) fn start_leader(&mut self, seat: usize) {
        self.sit(seat);
        if self.host.is_some() {
            return;
        }
        self.reigns += 1;
        self.reign = self.reigns;
        let config = LeaderConfig {
            time_to_live_max: Duration::from_secs(60),
            sessions_max: 1000,
            leases_per_session_max: 1000,
            waiters_per_session_max: 1000,
            claims_max: 100_000,
            reservations_max: 1000,
            bound: self.plan.bound,
            narrows_every: self.plan.narrows_every,
            block: if self.dice.percent(10) { BLOCK } else { 2 + self.dice.below(30) as u32 },
            epoch_above: self.past.above(self.disk.known.epoch),
            reign_lasts: None,
            members: Vec::new(),
            process: Some(self.mark(Node::Leader)),
            reign: ReignId(self.dice.next()),
            notary: Arc::new(Seal),
            tells: LeaderTells::default(),
            has_credentials: false,
        };
        let now = self.clock(Node::Leader);
        let is_sole = self.plan.leaders == 1;
        let recovered = if is_sole { self.disk.recover() } else { Recovered::new(ClusterId(7)) };
        note!(self, "leader starts, reign {} above epoch {}", self.reign, recovered.epoch);
        let entries_before = recovered.reservations.clone();
        self.host = Some(Box::new(Host {
            lost_known: {
                let sessions = recovered.sessions.values();
                sessions.flat_map(|session| session.revoked.keys().copied()).collect()
            },
            reserved_before: {
                let entries = recovered.reservations.values();
                entries.map(|entry| (entry.session, entry.request)).collect()
            },
            epoch_before: recovered.epoch.max(config.epoch_above.unwrap_or(0)),
            started: self.truth,
            met_lost: None,
            leader: match is_sole {
                true => Rank::Sole(Box::new(LeaderMachine::new(config, recovered, now))),
                false => Rank::Successor(self.successor(config)),
            },
            inbox: VecDeque::new(),
            readers: BTreeMap::new(),
            open: BTreeSet::new(),
            sessions: BTreeMap::new(),
            kept: VecDeque::new(),
            turn: None,
            next_turn: Ticket::NONE,
            disk_fails: false,
            seen: BTreeMap::new(),
            claims: BTreeMap::new(),
            welcomed: BTreeSet::new(),
            reported: BTreeMap::new(),
            read_at: self.truth,
            undated: Vec::new(),
            entries_before,
            took_before: None,
        }));
        self.wake_leader(self.truth);
        self.start_member(seat);
    }

    pub(crate) fn wake_leader(&mut self, at: Truth) {
        let Some(host) = &self.host else { return };
        let ticket = self.plan_turn(Node::Leader, host.next_turn, at);
        if let Some(host) = &mut self.host {
            host.next_turn = ticket;
        }
    }

    fn news_for_leader(&mut self, news: News) {
        if let Some(host) = &mut self.host {
            host.inbox.push_back(news);
            self.wake_leader(self.truth);
        }
    }

    pub(crate) fn news_of_journal(&mut self, id: OperationId, answer: JournalAnswer) {
        self.news_for_leader(News::OfJournal(id, answer));
    }

    /// A client's first packet.
    pub(crate) fn knock(&mut self, wire: usize) {
        let truth = self.truth;
        let Some(wire_state) = self.wires.get(wire).filter(|wire| wire.is_wanted()) else { return };
        let held = wire_state.to_leader.held();
        if self.lives[wire_state.client] != wire_state.life {
            return;
        }
        if held > truth {
            return self.at(held, Step::Knock(wire));
        }
        if self.host.is_some() {
            self.wires[wire].reign = Some(self.reign);
            return self.news_for_leader(News::Connected(wire));
        }
        if truth > self.wires[wire].tried_until || self.dice.percent(20) {
            self.end_at_client(wire, truth);
        } else {
            let again = 10 * MS + self.dice.below(200 * MS);
            self.after(again, Step::Knock(wire));
        }
    }

    pub(crate) fn arrive_at_leader(&mut self, wire: usize) {
        loop {
            match self.wires[wire].to_leader.receive(self.truth) {
                Err(later) => return self.at(later, Step::ToLeader(wire)),
                Ok(None) => return,
                Ok(Some(_)) if self.wires[wire].reign != Some(self.reign) => {}
                Ok(Some(Piece::Bytes(bytes))) => self.news_for_leader(News::Bytes(wire, bytes)),
                Ok(Some(Piece::End)) => self.news_for_leader(News::Ended(wire)),
                Ok(Some(Piece::Opened)) => unreachable!("only clients are answered"),
            }
        }
    }

    pub(crate) fn leader_turn(&mut self, ticket: Ticket) {
        let Some(mut host) = self.host.take_if(|host| host.next_turn == ticket) else { return };
        host.next_turn = Ticket::NONE;
        let Some(Turn { news, now }) = self.listen(&mut host) else {
            self.host = Some(host);
            let later = self.processes[self.process_of(Node::Leader)].paused_until;
            return self.wake_leader(later);
        };
        let now = now.expect("the clock was read");
        self.date_told(&mut host);
        let mut failed = false;
        let (of_journal, news): (Vec<_>, Vec<_>) =
            news.into_iter().partition(|news| matches!(news, News::OfJournal(..)));
        for news in of_journal {
            self.tell_leader(&mut host, news, now);
        }
        let before = self.reign;
        let is_let_in = self.is_let_in(&mut host, now);
        for news in news {
            failed |= matches!(news, News::DiskFailed);
            if before != self.reign {
                // It was said to a leader that is none any more, or was none then.
            } else if is_let_in {
                self.tell_leader(&mut host, news, now);
            } else {
                host.kept.push_back(news);
            }
        }
        while let Some(news) = host.kept.pop_back() {
            host.inbox.push_front(news);
        }
        if is_let_in {
            host.leader.handle_timeout(now);
        }
        self.obey_leader(&mut host);
        self.obey_closes(&mut host);
        self.ask_journal(&mut host);
        self.follow_succession(&mut host);
        // What one says that was deposed in the middle of its turn is not written down.
        if is_let_in && host.leader.leader().is_some() && self.check_reign(&host) {
            self.check_reserved(&mut host);
            self.check_readers(&host);
            self.check_keepers(&host);
            self.check_observers(&host);
        }
        let next = host.leader.poll_timeout();
        let more = !host.inbox.is_empty() && is_let_in;
        self.host = Some(host);
        if failed {
            // Its reign is over; its process ends, sooner or later.
            let later = if self.dice.percent(70) { self.dice.below(SECOND) } else { 0 };
            self.after(later, Step::LeaderEnds(self.reign));
        }
        self.begin_write();
        if more {
            self.wake_leader(self.truth + 1);
        } else if let Some(next) = next {
            self.wake_leader(self.when(Node::Leader, next).max(self.truth + 1));
        }
    }

    /// Whether what clients say may be handed over at this moment, and what the succession has come to.
    fn is_let_in(&mut self, host: &mut Host, now: Time) -> bool {
        self.follow_succession(host);
        let is_let_in = match host.leader.successor() {
            Some(successor) => successor.turn(now).is_some(),
            None => true,
        };
        self.follow_succession(host);
        // What follows from the journal's answers is said before anything else is read.
        self.obey_leader(host);
        is_let_in
    }

    /// Takes what has arrived, then reads the clock; `None` if the process stops in between.
    fn listen(&mut self, host: &mut Host) -> Option<Turn> {
        let mut turn = host.turn.take().unwrap_or_else(|| {
            let all = host.inbox.len();
            // One turn reads only so much.
            let part = self.dice.percent(10) && all > 1;
            let some = if part { 1 + self.dice.below(all as u64) as usize } else { all };
            Turn { news: host.inbox.drain(..some).collect(), now: None }
        });
        if turn.now.is_none() {
            if self.stalls_here(Node::Leader) {
                host.turn = Some(turn);
                return None;
            }
            turn.now = Some(self.clock(Node::Leader));
            host.read_at = self.truth;
            if self.stalls_here(Node::Leader) {
                host.turn = Some(turn);
                return None;
            }
        }
        Some(turn)
    }

    fn tell_leader(&mut self, host: &mut Host, news: News, now: Time) {
        match news {
            News::Connected(wire) => {
                host.readers.insert(wire, FrameReader::new());
                host.open.insert(wire);
                host.leader.handle_connected(ConnectionId(wire as u64), now);
                let delay = self.delay();
                self.send_to_client(wire, self.truth + delay, Piece::Opened);
            }
            News::Bytes(wire, bytes) => {
                let Some(reader) = host.readers.get_mut(&wire) else { return };
                reader.extend(&bytes);
                while let Some(reader) = host.readers.get_mut(&wire)
                    && let Some(received) = reader.next().expect("clients write well")
                {
                    let message = received.known().expect("all are of one release");
                    self.leader_reads(host, wire, message, now);
                }
            }
            News::Ended(wire) => {
                // A driver may hear of an end before it has read all that came.
                if !self.wires[wire].to_leader.is_busy() {
                    host.readers.remove(&wire);
                }
                if host.open.remove(&wire) {
                    note!(self, "leader sees the end of connection {wire}");
                    self.leader_forgets(wire);
                    host.leader.handle_disconnected(ConnectionId(wire as u64), now);
                }
            }
            News::Answered(answers) => {
                for answer in answers {
                    match answer {
                        Answer::Committed(committed, lost) => {
                            host.lost_known.extend(lost);
                            host.leader.handle_committed(committed, now);
                        }
                        Answer::Unwritten(unwritten) => {
                            self.tally.unwritten += 1;
                            host.leader.handle_unwritten(unwritten, now);
                        }
                    }
                    self.obey_leader(host);
                }
            }
            News::DiskFailed => host.leader.handle_storage_failed(now),
            News::OfJournal(id, answer) => {
                note!(self, "leader {} hears {id:?} {answer:?}", self.seat);
                if let JournalAnswer::TakeOver(TakeOver::Took(took)) = &answer {
                    host.took_before = Some(took.before.clone());
                }
                if let Some(successor) = host.leader.successor() {
                    successor.handle_answer(id, answer, now);
                }
            }
        }
        self.obey_leader(host);
    }

    fn leader_reads(&mut self, host: &mut Host, wire: usize, message: ClientMessage, now: Time) {
        let connection = ConnectionId(wire as u64);
        note!(self, "leader reads from {}: {message:?}", self.wire_shown(wire));
        if host.leader.leader().is_none() {
            host.leader.handle_message(connection, message, now);
            return self.obey_leader(host);
        }
        if !is_of_observer(&message) {
            self.coverage.leader_meets(&host.leader, connection, &message);
        }
        host.hears(wire, &message);
        if matches!(message, ClientMessage::Ready)
            && host.leader.connection_state(connection) == AtLeader::Reporting
        {
            host.met_lost = host.met_lost.max(self.tells_of_lost(wire, host.seen[&wire]));
        }
        self.heard_by_leader(wire, &message);
        host.leader.handle_message(connection, message.clone(), now);
        if matches!(message, ClientMessage::Cancel { .. })
            && host.leader.subject(connection, &message) == LeaderSubject::RequestWaiting
        {
            self.violate(Rule::Queue, format!("it waits after this was read: {message:?}"));
        }
        self.obey_leader(host);
    }

    /// Does what the leader wants done.
    pub(crate) fn obey_leader(&mut self, host: &mut Host) {
        while let Some(pending) = host.leader.poll_record() {
            note!(self, "leader writes {:?}", pending.record());
            self.check_entry(host, pending.record());
            self.disk.queue(pending);
        }
        let mut frames: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
        while let Some((connection, message)) = host.leader.poll_message() {
            let wire = connection.0 as usize;
            note!(self, "leader says to {}: {message:?}", self.wire_shown(wire));
            let is_notice = matches!(message, LeaderMessage::NotLeader { .. });
            // One that was deposed in the middle of its turn is judged by what clients make of it.
            if is_notice || self.check_reign(host) {
                self.said_by_leader(host, wire, &message);
            }
            self.may_lose(wire, &message);
            let confirmed = host.says(wire, &message);
            self.tally.reclaims += confirmed.len() as u64;
            if let Some(lost) = confirmed.into_iter().find(|claim| self.past.is_of_lost(claim)) {
                let text =
                    format!("a lease of {lost:?} was confirmed, which is no reign of this history");
                self.violate(Rule::Property, text);
            }
            if host.open.contains(&wire) {
                let bytes = frames.entry(wire).or_default();
                encode_frame(&message, bytes).expect("leaders say what fits a frame");
            }
        }
        for (wire, bytes) in frames {
            let mut at = self.truth + self.delay();
            for piece in self.in_pieces(bytes) {
                self.send_to_client(wire, at, Piece::Bytes(piece));
                at += self.dice.below(5 * MS);
            }
        }
        while let Some(notice) = host.leader.poll_notice() {
            match notice {
                Notice::OtherHistory { seen, .. } if self.past.branch == Branch::Restored => {
                    self.tally.histories_met += 1;
                    self.read_alarm(seen);
                }
                Notice::Conflict { .. } | Notice::NotAskedFor { .. }
                    if self.past.branch > Branch::First => {}
                _ => {
                    let text = format!("{notice:?} where nothing was restored");
                    self.violate(Rule::Property, text);
                }
            }
        }
    }

    pub(crate) fn obey_closes(&mut self, host: &mut Host) {
        while let Some((connection, why)) = host.leader.poll_close() {
            let wire = connection.0 as usize;
            note!(self, "leader closes {}: {why:?}", self.wire_shown(wire));
            match why {
                Close::Superseded | Close::Ended => {}
                Close::Protocol("it did not report in time") => {}
                Close::NotLeader if self.plan.leaders > 1 => {}
                Close::NotLeader => {
                    self.violate(Rule::Property, "a sole leader sent a client away".to_owned());
                }
                Close::Crowded => {
                    self.violate(Rule::Property, "a small world was crowded".to_owned());
                }
                Close::Unconfirmed if self.past.branch > Branch::First => {}
                Close::Unconfirmed => {
                    self.violate(Rule::Property, "a lease was not confirmed".to_owned());
                }
                Close::NotPermitted => {
                    self.violate(Rule::Property, "a client with the secret may all".to_owned());
                }
                Close::Protocol(what) => {
                    self.violate(Rule::Property, format!("a client broke the protocol: {what}"));
                }
            }
            self.leader_forgets(wire);
            // A driver may be slow to close, and read on.
            if self.dice.percent(30) {
                let later = self.dice.below(300 * MS);
                self.after(later, Step::LeaderCloses(self.reign, wire));
            } else {
                self.close_at_leader(host, wire);
            }
        }
    }

    fn close_at_leader(&mut self, host: &mut Host, wire: usize) {
        host.readers.remove(&wire);
        if host.open.remove(&wire) {
            self.hang_up_on_client(wire, 20 * MS, 50 * MS);
        }
    }

    pub(crate) fn leader_closes(&mut self, wire: usize) {
        if let Some(mut host) = self.host.take() {
            self.close_at_leader(&mut host, wire);
            self.host = Some(host);
        }
    }

    /// Bytes are not always read as they were written.
    pub(crate) fn in_pieces(&mut self, bytes: Vec<u8>) -> Vec<Vec<u8>> {
        if bytes.len() < 2 || !self.dice.percent(10) {
            return vec![bytes];
        }
        let middle = 1 + self.dice.below(bytes.len() as u64 - 1) as usize;
        let (first, second) = bytes.split_at(middle);
        vec![first.to_vec(), second.to_vec()]
    }

    pub(crate) fn send_to_client(&mut self, wire: usize, at: Truth, piece: Piece) {
        if let Some(at) = self.wires[wire].to_client.send(at, piece) {
            self.at(at, Step::ToClient(wire));
        }
    }

    pub(crate) fn end_at_client(&mut self, wire: usize, at: Truth) {
        if let Some(at) = self.wires[wire].to_client.end(at) {
            self.at(at, Step::ToClient(wire));
        }
    }

    /// The leader's side is closed: of what is under way some arrives, and the client learns.
    pub(crate) fn hang_up_on_client(&mut self, wire: usize, arrives: Truth, learns: Truth) {
        let arrives = if self.dice.percent(20) { 2 * SECOND } else { arrives };
        let cut = self.truth + self.dice.below(arrives);
        let learns = self.dice.below(learns);
        self.wires[wire].to_leader.close();
        self.wires[wire].to_client.cut(cut);
        self.end_at_client(wire, self.truth + learns);
    }

    fn begin_write(&mut self) {
        if self.plan.leaders > 1 {
            return;
        }
        let slow = if self.plan.sleeper.is_some() { 60 } else { 5 };
        let World { disk, dice, truth, .. } = self;
        let took = || {
            let slow = if dice.percent(slow) { 800 } else { 10 };
            dice.below(slow * MS)
        };
        if let Some(done) = disk.begin(*truth, took) {
            let reign = self.reign;
            self.at(done, Step::DiskDone(reign));
        }
    }

    pub(crate) fn disk_done(&mut self) {
        let Some(host) = &self.host else { return };
        if host.disk_fails {
            let World { disk, dice, truth, .. } = self;
            disk.lose_power(dice, *truth);
            self.look_at_raises();
            self.tally.disk_failures += 1;
            return self.news_for_leader(News::DiskFailed);
        }
        let answers = self.disk.finish(self.truth);
        self.look_at_raises();
        if let Some((name, token)) = self.disk.known.written_behind.take() {
            let text = format!("{token} of {name} is reserved again behind its end");
            self.violate(Rule::AtLeast, text);
        }
        if !answers.is_empty() {
            self.news_for_leader(News::Answered(answers));
        }
        self.begin_write();
    }

    /// The leader ends, in one way or another. It is started again.
    pub(crate) fn end_leader(&mut self, end: End) {
        if self.host.take().is_none() {
            return;
        }
        self.kill_member();
        note!(self, "the leader ends: {end:?}");
        self.tally.restarts += 1;
        let World { disk, dice, truth, .. } = self;
        match end {
            _ if self.plan.leaders > 1 => {}
            End::Killed | End::DiskFailed => disk.lose_power(dice, *truth),
            End::InOrder => disk.flush(*truth),
        }
        self.look_at_raises();
        if end != End::Killed && self.plan.embedded {
            self.disk.unmark();
        }
        self.hang_up_on_all(self.reign);
        let delay = match self.dice.below(3) {
            0 => self.dice.below(20 * MS),
            1 => self.dice.below(300 * MS),
            _ => self.dice.below(1500 * MS),
        };
        self.after(delay, Step::StartLeader(self.seat));
    }

    /// Every connection that this one has accepted ends.
    pub(crate) fn hang_up_on_all(&mut self, reign: u32) {
        for wire in 0..self.wires.len() {
            if self.wires[wire].reign == Some(reign) && self.wires[wire].seat == self.seat {
                self.leader_forgets(wire);
                let learns = if self.dice.percent(70) { 30 * MS } else { 2 * SECOND };
                self.hang_up_on_client(wire, 20 * MS, learns);
            }
        }
    }

    pub(crate) fn wire_shown(&self, wire: usize) -> String {
        let state = &self.wires[wire];
        format!("client {}.{} (connection {wire})", state.client, state.life)
    }
}
