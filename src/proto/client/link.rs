//! The way to a leader: one connection at a time, made again for as long as something is wanted.
//!
//! A manager with several addresses asks all of them at once which of them leads, on short connections
//! under sessions of their own, and goes to the first that does: an address that does not answer costs
//! nothing. The first time it hears all that answer soon, whether they are one group.

use std::{collections::VecDeque, time::Duration};

use super::{Client, Closing, Ended, RENEW_SOON, RequestFailure};
use crate::{
    proto::{
        ClusterId, ConnectionId, Proof, SessionId, TIME_TO_LIVE,
        history::Seen,
        mistake::{Mistake, planted},
        wire::{self, ClientMessage, LeaderMessage},
    },
    time::Time,
};

pub(super) struct SessionLink {
    state: ConnectionPhase,
    now: Time,
    addresses: usize,
    /// The address that is tried next.
    next_address: usize,
    /// Attempts since the last welcome.
    attempts: u32,
    /// The leader that was left has said that the one there follows it.
    is_told: bool,
    last_connection: u64,
    /// Which addresses refused the packet when they were last tried.
    refused: Vec<bool>,
    /// Whether the addresses have shown that they are one group, as far as they answer.
    compared: bool,
    /// Until when others are waited for, to be compared with the one that leads.
    compares_until: Option<Time>,
    probes: Vec<Probe>,
    probe_messages: VecDeque<(ConnectionId, ClientMessage)>,
    closes: VecDeque<ConnectionId>,
    /// The last trouble in words.
    trouble: String,
}

enum ConnectionPhase {
    /// Nothing is wanted.
    Off,
    /// The addresses are being asked which of them leads.
    Probing,
    /// Between two attempts.
    Waiting {
        until: Time,
    },
    /// A connection is to be made.
    Due,
    Connecting {
        connection: ConnectionId,
        give_up: Time,
    },
    /// The report is on its way.
    Reporting {
        connection: ConnectionId,
        give_up: Time,
        hello_sent: Option<Time>,
    },
    /// The report is believed.
    Serving {
        connection: ConnectionId,
    },
}

/// One address that is being asked which leader is there.
struct Probe {
    state: ProbeState,
    attempts: u32,
    trouble: String,
    /// The cluster that a leader or standby there is of, once one has answered.
    cluster: Option<ClusterId>,
}

enum ProbeState {
    Waiting {
        until: Time,
    },
    Due,
    Asking {
        connection: ConnectionId,
        session: SessionId,
        give_up: Time,
    },
    /// It leads.
    Leads,
}

impl SessionLink {
    pub(super) fn new(addresses: usize) -> SessionLink {
        SessionLink {
            state: ConnectionPhase::Off,
            now: Time::ZERO,
            addresses: addresses.max(1),
            next_address: 0,
            attempts: 0,
            is_told: false,
            last_connection: 0,
            refused: vec![false; addresses.max(1)],
            compared: addresses <= 1,
            compares_until: None,
            probes: Vec::new(),
            probe_messages: VecDeque::new(),
            closes: VecDeque::new(),
            trouble: String::new(),
        }
    }

    pub(super) fn take_connect(&mut self, timeout: Duration) -> Option<(ConnectionId, usize)> {
        if let ConnectionPhase::Probing = self.state {
            return self.take_probe_connect(timeout);
        }
        let ConnectionPhase::Due = self.state else { return None };
        let connection = self.next_connection();
        self.state = ConnectionPhase::Connecting { connection, give_up: self.give_up(timeout) };
        Some((connection, self.next_address))
    }

    pub(super) fn take_close(&mut self) -> Option<ConnectionId> {
        self.closes.pop_front()
    }

    pub(super) fn take_probe_message(&mut self) -> Option<(ConnectionId, ClientMessage)> {
        self.probe_messages.pop_front()
    }

    /// The session's connection, once it takes messages.
    pub(super) fn reporting_or_serving(&self) -> Option<ConnectionId> {
        match self.state {
            ConnectionPhase::Reporting { connection, .. }
            | ConnectionPhase::Serving { connection } => Some(connection),
            _ => None,
        }
    }

    /// Whether there is another address than the one that is served.
    pub(super) fn has_elsewhere(&self) -> bool {
        self.addresses > 1
    }

    pub(super) fn is_serving(&self) -> bool {
        matches!(self.state, ConnectionPhase::Serving { .. })
    }

    /// Whether this connection asks an address which leader is there.
    #[cfg(feature = "testing")]
    pub(super) fn asks(&self, connection: ConnectionId) -> bool {
        self.probe_of(connection).is_some()
    }

    pub(super) fn hello_sent(&mut self, now: Time) {
        if let ConnectionPhase::Reporting { hello_sent, .. } = &mut self.state {
            *hello_sent = Some(now);
        }
    }

    pub(super) fn next_time(&self) -> Option<Time> {
        match &self.state {
            ConnectionPhase::Off | ConnectionPhase::Due | ConnectionPhase::Serving { .. } => None,
            ConnectionPhase::Waiting { until: time }
            | ConnectionPhase::Connecting { give_up: time, .. }
            | ConnectionPhase::Reporting { give_up: time, .. } => Some(*time),
            ConnectionPhase::Probing => {
                self.probes.iter().filter_map(Probe::next_time).chain(self.compares_until).min()
            }
        }
    }

    /// Whether nothing listens at any of the addresses, as far as they were tried.
    pub(super) fn is_refused_everywhere(&self) -> bool {
        self.refused.iter().all(|refused| *refused)
    }

    /// Whether an attempt to reach a leader has failed since one served last.
    pub(super) fn has_trouble(&self) -> bool {
        !self.trouble.is_empty() || self.refused.iter().any(|refused| *refused)
    }

    /// That no leader has answered, and why, in words.
    pub(super) fn trouble(&self) -> String {
        if let ConnectionPhase::Probing = self.state {
            return self.probing_trouble();
        }
        match self.trouble.as_str() {
            "" => "no leader answered in time".to_owned(),
            trouble => format!("no leader answered in time: {trouble}"),
        }
    }

    fn probing_trouble(&self) -> String {
        let silent: Vec<_> = (1..)
            .zip(&self.probes)
            .filter(|(_, probe)| !matches!(probe.state, ProbeState::Leads))
            .map(|(number, probe)| format!("address {number} ({})", probe.trouble))
            .collect();
        format!("no leader answered in time at {}", silent.join(", "))
    }

    fn newest(&self) -> Option<ConnectionId> {
        match self.state {
            ConnectionPhase::Connecting { connection, .. } => Some(connection),
            _ => self.reporting_or_serving(),
        }
    }

    fn next_connection(&mut self) -> ConnectionId {
        self.last_connection += 1;
        ConnectionId(self.last_connection)
    }

    /// When to try elsewhere. With one address there is no elsewhere.
    fn give_up(&self, timeout: Duration) -> Time {
        let patience = match self.addresses {
            1 => timeout,
            _ if self.is_told => timeout.min(ELSEWHERE_AFTER_TOLD),
            _ => timeout.min(ELSEWHERE_AFTER),
        };
        self.now + patience
    }

    fn begin(&mut self) {
        (self.attempts, self.is_told) = (0, false);
        self.seek();
    }

    /// Looks for the leader: at the only address, or at all of them, one soon after the other. The one
    /// that was left last comes last. Where it was told by that which leader follows it asks no other first:
    /// when a leader hands over all its clients come at once, and each connection costs both ends more than
    /// all that is said on it.
    fn seek(&mut self) {
        if self.addresses == 1 || (self.is_told && self.compared) {
            self.state = ConnectionPhase::Due;
            return;
        }
        self.state = ConnectionPhase::Probing;
        self.compares_until = None;
        let probe = |address: usize| {
            let turn = (address + self.addresses - self.next_address) % self.addresses;
            let state = match (turn as u32, self.compared) {
                (0, _) | (_, false) => ProbeState::Due,
                (turn, true) => ProbeState::Waiting { until: self.now + PROBES_APART * turn },
            };
            Probe { state, attempts: 0, trouble: "nothing heard".to_owned(), cluster: None }
        };
        self.probes = (0..self.addresses).map(probe).collect();
    }

    fn stop(&mut self) {
        self.closes.extend(self.newest());
        self.stop_probing();
        self.state = ConnectionPhase::Off;
    }

    fn stop_probing(&mut self) {
        for probe in std::mem::take(&mut self.probes) {
            if let ProbeState::Asking { connection, .. } = probe.state {
                self.closes.push_back(connection);
            }
        }
        self.probe_messages.clear();
    }

    fn take_probe_connect(&mut self, timeout: Duration) -> Option<(ConnectionId, usize)> {
        let due = |probe: &Probe| matches!(probe.state, ProbeState::Due);
        let address = self.probes.iter().position(due)?;
        let connection = self.next_connection();
        let give_up = self.give_up(timeout);
        let session = SessionId(0); // chosen when it is connected
        self.probes[address].state = ProbeState::Asking { connection, session, give_up };
        Some((connection, address))
    }

    fn probe_of(&self, connection: ConnectionId) -> Option<usize> {
        self.probes.iter().position(|probe| {
            matches!(probe.state, ProbeState::Asking { connection: own, .. } if own == connection)
        })
    }
}

impl Probe {
    fn next_time(&self) -> Option<Time> {
        match self.state {
            ProbeState::Waiting { until: time } | ProbeState::Asking { give_up: time, .. } => {
                Some(time)
            }
            ProbeState::Due | ProbeState::Leads => None,
        }
    }
}

// The session's connection.
impl Client {
    /// Brings the link to where it should be.
    pub(super) fn step_link(&mut self, now: Time) {
        self.link.now = now;
        if !self.is_wanted() {
            match self.link.state {
                // An open connection stays for the session's sake; there is none to make.
                ConnectionPhase::Serving { .. } | ConnectionPhase::Reporting { .. }
                    if self.closing != Closing::Closed => {}
                // What was said last is still to be sent: the driver ends the connection.
                ConnectionPhase::Serving { .. } | ConnectionPhase::Reporting { .. } => {
                    self.link.state = ConnectionPhase::Off
                }
                ConnectionPhase::Off => {}
                _ => self.link.stop(),
            }
        }
        match self.link.state {
            ConnectionPhase::Off if self.is_wanted() => self.link.begin(),
            ConnectionPhase::Waiting { until } if until <= now => self.link.seek(),
            ConnectionPhase::Connecting { give_up, .. }
            | ConnectionPhase::Reporting { give_up, .. }
                if give_up <= now =>
            {
                self.drop_link("it did not answer".to_owned(), now);
            }
            ConnectionPhase::Probing => self.step_probes(now),
            _ => {}
        }
    }

    pub(super) fn link_connected(&mut self, connection: ConnectionId, now: Time) {
        let probe = self.link.probe_of(connection);
        self.link.refused[probe.unwrap_or(self.link.next_address)] = false;
        if let Some(address) = probe {
            return self.probe_connected(address, connection);
        }
        match self.link.state {
            ConnectionPhase::Connecting { connection: own, .. } if own == connection => {
                self.begin_report(connection, now);
            }
            _ => self.link.closes.push_back(connection), // given up meanwhile
        }
    }

    pub(super) fn link_ended(&mut self, connection: ConnectionId, ended: Ended, now: Time) {
        let probe = self.link.probe_of(connection);
        if probe.is_none() && self.link.newest() != Some(connection) {
            return; // an older one
        }
        let address = probe.unwrap_or(self.link.next_address);
        self.link.refused[address] = matches!(ended, Ended::NotThere(_));
        let trouble = match ended {
            Ended::Disconnected(trouble) | Ended::NotThere(trouble) => trouble,
            // A client that was welcomed has the secret: that close came late, or from elsewhere.
            Ended::Refused(trouble) if self.cluster.is_some() => trouble,
            Ended::Refused(trouble) => {
                self.fail_everything(&RequestFailure::NotAccepted(trouble.clone()));
                trouble
            }
        };
        match probe {
            Some(address) => self.probe_again(address, trouble, now),
            None => self.retry(trouble, now),
        }
    }

    pub(super) fn link_message(
        &mut self,
        connection: ConnectionId,
        message: LeaderMessage,
        now: Time,
    ) {
        if let Some(address) = self.link.probe_of(connection) {
            return self.probe_message(address, connection, message, now);
        }
        let is_stale = self.link.reporting_or_serving() != Some(connection);
        if is_stale && !planted(Mistake::OldConnectionAtClient) {
            return; // of an older connection
        }
        match message {
            LeaderMessage::Gone { session } if session == self.session => {
                self.forget_session(now);
                self.begin_report(connection, now);
            }
            LeaderMessage::NotLeader { cluster, epoch, .. } => {
                self.is_not_served(cluster, epoch, now);
            }
            message if self.link.is_serving() => self.served(message, now),
            LeaderMessage::Welcome { .. } => self.welcome(message, now),
            // Told before the welcome.
            LeaderMessage::Lost { lease, why } => self.lost(lease, why, now),
            LeaderMessage::Refused { request, why, holder } => {
                self.any_refused(request, why, holder);
            }
            _ => {}
        }
    }

    /// A leader that does not reign has said that the one at this address does: it is the next to be
    /// asked. Two that name each other are asked no more often than others.
    pub fn handle_hint(&mut self, address: usize, now: Time) {
        if address >= self.link.addresses {
            return;
        }
        if let ConnectionPhase::Waiting { .. } = self.link.state {
            self.link.next_address = address;
            // Of several that name each other none is believed a second time.
            self.link.is_told = self.link.attempts == 1;
        }
        let probe = self.link.probes.get_mut(address);
        if let Some(Probe { state: ProbeState::Waiting { until }, .. }) = probe {
            *until = (*until).min(now + PROBES_APART);
        }
    }

    fn begin_report(&mut self, connection: ConnectionId, now: Time) {
        self.report(now);
        let give_up = self.link.give_up(self.config.connect_timeout);
        self.link.state = ConnectionPhase::Reporting { connection, give_up, hello_sent: None };
    }

    fn welcome(&mut self, message: LeaderMessage, now: Time) {
        let LeaderMessage::Welcome {
            version,
            session,
            time_to_live,
            epoch,
            reign,
            cluster,
            renew_every,
            attestation,
            ..
        } = message
        else {
            unreachable!("it is a welcome")
        };
        let ConnectionPhase::Reporting { connection, hello_sent: Some(sent_at), .. } =
            self.link.state
        else {
            return; // an answer to nothing that was said
        };
        if session != self.session {
            return;
        }
        if !self.is_of_known_cluster(cluster, now) {
            return;
        }
        if version < wire::VERSION_OLDEST {
            let text = format!(
                "the leader is too old: it speaks version {version} of the protocol, and this \
                 program {} and later",
                wire::VERSION_OLDEST
            );
            self.fail_everything(&RequestFailure::Config(text.clone()));
            return self.drop_link(text, now);
        }
        let last = self.seen.filter(|seen| seen.cluster == cluster);
        if let Some(Seen { epoch: seen, reign: known, .. }) = last
            && (epoch < seen || (epoch == seen && reign != known))
        {
            let again = if epoch == seen { ", when another leader was in it" } else { "" };
            let text = format!(
                "the leader's state is old: it is in epoch {epoch}, and this manager has seen \
                 {seen} before{again}; start it with --epoch-above {seen}"
            );
            return self.drop_link(text, now);
        }
        self.link.state = ConnectionPhase::Serving { connection };
        self.renewing_since = None;
        self.link.attempts = 0;
        self.link.is_told = false;
        self.link.trouble.clear();
        self.cluster = Some(cluster);
        self.see(Seen { cluster, epoch, reign, attestation });
        // A leader that another may follow makes it longer than a change of reign takes.
        self.time_to_live = time_to_live.min(*TIME_TO_LIVE.end());
        self.renew_every = self.renew_every_of(renew_every);
        self.quick_pace = self.renew_every;
        // What the leader says here it said before it had looked at its waiters.
        let soon = if self.is_wanted() { RENEW_SOON } else { self.renew_every };
        self.next_renewal = now + self.renew_every.min(soon);
        self.promised(sent_at, now);
    }

    /// Whether the leader is of the cluster that this manager has spoken to; if not, all that
    /// waits is told.
    fn is_of_known_cluster(&mut self, cluster: ClusterId, now: Time) -> bool {
        let Some(known) = self.cluster.filter(|known| *known != cluster) else { return true };
        let text = format!(
            "the leader is of another cluster than the one that this manager has spoken to \
             before ({cluster:?}, not {known:?}): they are two leaders, not one group, and both \
             could grant one lock: give the addresses of one"
        );
        self.fail_everything(&RequestFailure::Config(text.clone()));
        self.drop_link(text, now);
        false
    }

    /// The leader serves other managers, and not this one.
    fn is_not_served(&mut self, cluster: ClusterId, epoch: Option<u32>, now: Time) {
        if self.is_of_known_cluster(cluster, now) {
            self.drop_link(self.not_leader(epoch), now);
        }
    }

    /// Why a leader does not serve this manager, in words.
    fn not_leader(&self, epoch: Option<u32>) -> String {
        match (epoch, self.seen) {
            (Some(epoch), Some(Seen { epoch: seen, .. })) => format!(
                "the leader is in epoch {epoch} and does not know the history of its cluster that \
                 this manager or others of its directory have seen (epoch {seen}): it runs on a \
                 copy of the state, or that one did; it serves this manager about a minute after \
                 its start, in an epoch above both"
            ),
            _ => "the leader there does not reign".to_owned(),
        }
    }

    /// Leaves the connection, and tries again.
    pub(super) fn drop_link(&mut self, trouble: String, now: Time) {
        self.link.closes.extend(self.link.newest());
        self.retry(trouble, now);
    }

    fn retry(&mut self, trouble: String, now: Time) {
        // A goodbye is said again if there is something to say.
        self.forget_unsaid();
        self.link.trouble = trouble;
        self.link.next_address = (self.link.next_address + 1) % self.link.addresses;
        self.link.is_told = false;
        self.link.attempts += 1;
        let until = now + self.back_off(self.link.attempts);
        self.link.state = ConnectionPhase::Waiting { until };
    }

    /// At once the first time, then ever longer, though never long while something is held; never all
    /// clients together.
    fn back_off(&mut self, attempts: u32) -> Duration {
        let most = if self.link.addresses > 1 && self.holds() { RETRY_HELD_MAX } else { RETRY_MAX };
        let longest = match attempts {
            0 | 1 => RETRY_FIRST,
            more => (RETRY_FIRST * 2_u32.saturating_pow(more.min(16))).min(most),
        };
        let part = ((self.random)() % 1024) as u32;
        longest / 2 + longest / 2 * part / 1024
    }

    fn is_wanted(&self) -> bool {
        self.closing != Closing::Closed && (self.asks() || !self.observed.is_empty())
    }

    /// Whether it has locks, or waits for an answer.
    pub(super) fn asks(&self) -> bool {
        !self.requests.is_empty() || !self.queries.is_empty() || !self.leases.is_empty()
    }
}

// Comparing the addresses.
impl Client {
    fn step_probes(&mut self, now: Time) {
        for address in 0..self.link.probes.len() {
            match self.link.probes[address].state {
                ProbeState::Waiting { until } if until <= now => {
                    self.link.probes[address].state = ProbeState::Due;
                }
                ProbeState::Asking { connection, give_up, .. } if give_up <= now => {
                    self.link.closes.push_back(connection);
                    self.probe_again(address, "it did not answer".to_owned(), now);
                }
                _ => {}
            }
        }
        self.compare(now);
    }

    /// Looks at what has been answered so far.
    fn compare(&mut self, now: Time) {
        let mut first: Option<(usize, ClusterId)> = None;
        for (number, probe) in (1..).zip(&self.link.probes) {
            let Some(cluster) = probe.cluster else { continue };
            let (other, known) = *first.get_or_insert((number, cluster));
            if known != cluster {
                let text = format!(
                    "addresses {other} and {number} are two leaders, not one group ({known:?} \
                     and {cluster:?}); both could grant one lock, so neither is used: give the \
                     addresses of one"
                );
                self.link.stop();
                return self.fail_everything(&RequestFailure::Config(text));
            }
        }
        let leads = |probe: &Probe| matches!(probe.state, ProbeState::Leads);
        let Some(leading) = self.link.probes.iter().position(leads) else { return };
        let cluster = self.link.probes[leading].cluster;
        let is_known = self.link.compared || self.seen.map(|seen| seen.cluster) == cluster;
        let mut others = self.link.probes.iter().zip(&self.link.refused);
        let is_open = others.any(|(probe, refused)| probe.cluster.is_none() && !refused);
        let until = *self.link.compares_until.get_or_insert(now + COMPARE_LIMIT);
        if is_open && !is_known && now < until {
            return;
        }
        self.link.compared = true;
        self.link.compares_until = None;
        self.link.next_address = leading;
        self.link.stop_probing();
        self.link.state = ConnectionPhase::Due;
    }

    fn probe_connected(&mut self, address: usize, connection: ConnectionId) {
        let own = SessionId((self.random)());
        let hello = ClientMessage::Hello {
            version: wire::VERSION,
            capabilities: wire::CAPABILITIES,
            session: own,
            proof: Proof((self.random)()),
            count: 1,
            cluster: None,
            seen: self.seen.map(Box::new),
            time_to_live: self.config.time_to_live,
            identity: self.config.identity.clone(),
            process: self.config.process,
        };
        let messages = [hello, ClientMessage::Ready].map(|message| (connection, message));
        self.link.probe_messages.extend(messages);
        if let ProbeState::Asking { session, .. } = &mut self.link.probes[address].state {
            *session = own;
        }
    }

    fn probe_message(
        &mut self,
        address: usize,
        connection: ConnectionId,
        message: LeaderMessage,
        now: Time,
    ) {
        let ProbeState::Asking { session: own, .. } = self.link.probes[address].state else {
            return;
        };
        match message {
            LeaderMessage::Welcome { session, cluster, .. } if session == own => {
                // Its session asked for nothing, so it ends with its connection.
                self.link.closes.push_back(connection);
                self.link.probes[address].state = ProbeState::Leads;
                self.link.probes[address].cluster = Some(cluster);
                self.compare(now);
            }
            // A standby is of the group, too.
            LeaderMessage::NotLeader { cluster, epoch, .. } => {
                self.link.closes.push_back(connection);
                let trouble = self.not_leader(epoch);
                self.probe_again(address, trouble, now);
                self.link.probes[address].cluster = Some(cluster);
                self.compare(now);
            }
            _ => {}
        }
    }

    fn probe_again(&mut self, address: usize, trouble: String, now: Time) {
        let attempts = self.link.probes[address].attempts + 1;
        let until = now + self.back_off(attempts);
        let probe = &mut self.link.probes[address];
        (probe.state, probe.attempts) = (ProbeState::Waiting { until }, attempts);
        probe.trouble = trouble;
    }
}

const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// The same while something is held and there are several addresses.
const RETRY_HELD_MAX: Duration = Duration::from_millis(100);

/// With several addresses, how long one may keep silent before all are asked again.
const ELSEWHERE_AFTER: Duration = Duration::from_secs(1);

/// The same of the one that it was told of: that one may be gone by now.
const ELSEWHERE_AFTER_TOLD: Duration = Duration::from_millis(500);

/// How soon after one address the next is asked.
const PROBES_APART: Duration = Duration::from_millis(20);

/// For how long a manager that knows no cluster yet waits for the other addresses once one has
/// answered that it leads: two separate leaders could be taken for one group and both grant one
/// lock.
const COMPARE_LIMIT: Duration = Duration::from_millis(500);
