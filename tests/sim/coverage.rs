//! How often each message met each state.
//!
//! What never happens is listed with its reason; everything else that a run of thousands of seeds
//! never saw is a hole in the simulator, or dead code.

use std::fmt::{self, Debug, Write as _};

use tierlock::proto::{
    ConnectionId,
    client::Client,
    leader::LeaderMachine,
    look::{AtClient, AtLeader, ClientSubject, LeaderSubject, Phase, Session},
    wire::{ClientMessage, LeaderMessage},
};

macro_rules! kinds {
    ($name:ident of $message:ident { $($kind:ident),* $(,)? }) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $($kind),* }

        impl $name {
            const ALL: &'static [$name] = &[$($name::$kind),*];

            fn of(message: &$message) -> $name {
                match message {
                    $($message::$kind { .. } => $name::$kind),*
                }
            }
        }
    };
}

kinds!(Said of ClientMessage {
    Hello, Held, Waiting, Ready, Acquire, Cancel, Release, Renew, Goodbye, Check, List, Break,
    Use, TopUp, Lower, Observe, StopObserving, Upgrade, Downgrade, AskStanding, StepDown,
    AskGroup, Replace,
});

kinds!(Answered of LeaderMessage {
    Welcome, NotLeader, Gone, Queued, Granted, Refused, Released, Recall, Lost, Renewed, Checked,
    Listed, Broke, ToppedUp, Raised, NotUnderstood, Leads, Converted, Standing, StepsDown,
    Group, Replaced, Deadlocked,
});

pub(crate) struct Coverage {
    at_leader: Counts<Said, AtLeader>,
    in_phase: Counts<Said, Phase>,
    about: Counts<Said, LeaderSubject>,
    at_client: Counts<Answered, AtClient>,
    in_session: Counts<Answered, Session>,
    about_client: Counts<Answered, ClientSubject>,
}

impl Default for Coverage {
    fn default() -> Coverage {
        Coverage {
            at_leader: Counts::new(Said::ALL, AtLeader::ALL),
            in_phase: Counts::new(Said::ALL, Phase::ALL),
            about: Counts::new(Said::ALL, LeaderSubject::ALL),
            at_client: Counts::new(Answered::ALL, AtClient::ALL),
            in_session: Counts::new(Answered::ALL, Session::ALL),
            about_client: Counts::new(Answered::ALL, ClientSubject::ALL),
        }
    }
}

impl Coverage {
    /// The leader is about to read it.
    pub(crate) fn leader_meets(
        &mut self,
        leader: &LeaderMachine,
        connection: ConnectionId,
        message: &ClientMessage,
    ) {
        let kind = Said::of(message) as usize;
        self.at_leader.add(kind, leader.connection_state(connection) as usize);
        self.in_phase.add(kind, leader.phase() as usize);
        self.about.add(kind, leader.subject(connection, message) as usize);
    }

    /// The client is about to read it.
    pub(crate) fn client_meets(
        &mut self,
        client: &Client,
        connection: ConnectionId,
        message: &LeaderMessage,
    ) {
        let kind = Answered::of(message) as usize;
        self.at_client.add(kind, client.connection_state(connection) as usize);
        self.in_session.add(kind, client.session_state() as usize);
        self.about_client.add(kind, client.subject(message) as usize);
    }

    pub(crate) fn add(&mut self, other: &Coverage) {
        self.at_leader.merge(&other.at_leader);
        self.in_phase.merge(&other.in_phase);
        self.about.merge(&other.about);
        self.at_client.merge(&other.at_client);
        self.in_session.merge(&other.in_session);
        self.about_client.merge(&other.about_client);
    }

    /// Pairs that never met and are not listed as impossible, and pairs that met though they are.
    /// What takes rare things at once is missed only by a run of many `seeds`.
    pub(crate) fn holes(&self, seeds: u64) -> Vec<String> {
        let mut holes = Vec::new();
        self.at_leader.holes(impossible_at_leader, seeds, &mut holes);
        self.in_phase.holes(impossible_in_phase, seeds, &mut holes);
        self.about.holes(impossible_about, seeds, &mut holes);
        self.at_client.holes(impossible_at_client, seeds, &mut holes);
        self.in_session.holes(impossible_in_session, seeds, &mut holes);
        self.about_client.holes(impossible_about_client, seeds, &mut holes);
        holes
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "clients' messages by connection, as the leader sees it\n{}", self.at_leader)?;
        writeln!(f, "clients' messages by the reign\n{}", self.in_phase)?;
        writeln!(f, "clients' messages by what they are about\n{}", self.about)?;
        writeln!(f, "leaders' messages by connection, as the client sees it\n{}", self.at_client)?;
        writeln!(f, "leaders' messages by the session\n{}", self.in_session)?;
        writeln!(f, "leaders' messages by what they are about\n{}", self.about_client)
    }
}

/// What observers say, and are told: `observing` has rules of its own for it. What operators ask outside a
/// session: a hand-over is played as what comes of it, the question in situations of the successor.
fn is_played_elsewhere(said: Said) -> bool {
    use Said::*;
    matches!(said, Observe | StopObserving | AskStanding | StepDown | AskGroup | Replace)
}

const ELSEWHERE: &str = "it is counted nowhere here";

fn impossible_at_leader(said: Said, at: AtLeader) -> Option<&'static str> {
    if is_played_elsewhere(said) {
        return Some(ELSEWHERE);
    }
    let part_of_report = matches!(said, Said::Held | Said::Waiting | Said::Ready);
    let of_lease = matches!(
        said,
        Said::Release | Said::Use | Said::TopUp | Said::Lower | Said::Upgrade | Said::Downgrade
    );
    let serving = matches!(
        at,
        AtLeader::ServingNew
            | AtLeader::ServingOpening
            | AtLeader::ServingOpen
            | AtLeader::ServingIdling
    );
    match (said, at) {
        (Said::Renew, AtLeader::New | AtLeader::Reporting) => {
            Some("nothing is renewed before a report is believed")
        }
        (_, AtLeader::Reporting) if !part_of_report => Some("a report is not interrupted"),
        (Said::Hello, _) if serving => {
            Some("a connection has one report, unless its session is gone")
        }
        (_, at)
            if part_of_report
                && (serving || at == AtLeader::Sessionless || at == AtLeader::Refused) =>
        {
            Some("the parts of a report follow its Hello")
        }
        (_, AtLeader::ServingNew | AtLeader::ServingOpening) if of_lease => {
            Some("there is no lease before the session's opening is durable")
        }
        (Said::Cancel, AtLeader::ServingIdling) => Some("nothing was wanted for long"),
        (_, AtLeader::ServingIdling) if of_lease => Some("nothing was held for long"),
        (Said::Hello, AtLeader::Refused) => Some("only Gone asks for another report"),
        _ => None,
    }
}

fn impossible_in_phase(said: Said, phase: Phase) -> Option<&'static str> {
    match (said, phase) {
        _ if is_played_elsewhere(said) => Some(ELSEWHERE),
        (Said::Renew, Phase::Starting) => Some("no session is welcomed yet"),
        _ => None,
    }
}

fn impossible_about(said: Said, subject: LeaderSubject) -> Option<&'static str> {
    use LeaderSubject::*;
    if is_played_elsewhere(said) {
        return Some(ELSEWHERE);
    }
    let possible = match said {
        Said::Hello => {
            matches!(subject, SessionUnknown | SessionAwaited | SessionKnown | SessionEnding)
        }
        Said::Acquire => {
            matches!(subject, None | LockUnknown | LockFree | LockHeld | LockBeingLost)
        }
        Said::Cancel => matches!(subject, None | RequestWaiting | RequestGranted | RequestUnknown),
        Said::Release | Said::Use | Said::TopUp | Said::Lower | Said::Upgrade | Said::Downgrade => {
            let lease = matches!(subject, LeaseHeld | LeaseBeingRevoked | LeaseRevoked);
            lease || matches!(subject, None | LeaseStale)
        }
        Said::Check | Said::Break => {
            matches!(subject, LeaseHeld | LeaseBeingRevoked | LeaseRevoked | LeaseStale)
        }
        _ => subject == None,
    };
    match (said, subject) {
        (Said::Acquire, RequestRead) => {
            Some("what may have been read is said again in reports only")
        }
        _ => (!possible).then_some("it is not about that"),
    }
}

fn impossible_at_client(answered: Answered, at: AtClient) -> Option<&'static str> {
    use Answered::*;
    match (answered, at) {
        (NotUnderstood, _) => Some("all are of one release"),
        (Leads | Standing | StepsDown | Group | Replaced | Deadlocked, _) => Some(ELSEWHERE),
        (Converted, AtClient::Reporting) => Some("it is answered behind the welcome"),
        (Welcome | NotLeader, AtClient::Probing) => Option::None,
        (NotLeader, AtClient::Serving) => Some("it answers a report"),
        (Listed, AtClient::Reporting) => Some("it is answered at once, before its session is gone"),
        (_, AtClient::Probing) => Some("probes ask for nothing"),
        (Welcome, AtClient::Serving) => Some("a report is answered once"),
        (Queued | Granted | Renewed | Recall | ToppedUp | Raised, AtClient::Reporting) => {
            Some("requests are answered behind the welcome")
        }
        _ => Option::None,
    }
}

fn impossible_in_session(answered: Answered, _: Session) -> Option<&'static str> {
    match answered {
        Answered::NotUnderstood => Some("all are of one release"),
        Answered::Leads
        | Answered::Standing
        | Answered::StepsDown
        | Answered::Group
        | Answered::Replaced
        | Answered::Deadlocked => Some(ELSEWHERE),
        _ => None,
    }
}

fn impossible_about_client(answered: Answered, subject: ClientSubject) -> Option<&'static str> {
    use Answered::*;
    use ClientSubject::*;
    let possible = match answered {
        Welcome | Gone => matches!(subject, SessionOwn | SessionOther),
        Queued | Granted | Refused => matches!(subject, RequestWaiting | RequestGone),
        Released => matches!(subject, LeaseReleasing | LeaseUnknown),
        Leads | Standing | StepsDown | Group | Replaced | Deadlocked => false,
        Converted => matches!(subject, LeaseHeld | LeaseLosing | LeaseReleasing | LeaseUnknown),
        ToppedUp => matches!(subject, LeaseHeld | LeaseLosing | LeaseReleasing | LeaseUnknown),
        Recall | Lost => {
            let known = matches!(subject, LeaseHeld | LeaseLosing | LeaseReleasing);
            known || matches!(subject, LeaseNotYetGood | LeaseUnknown)
        }
        Checked | Listed | Broke => matches!(subject, QueryAsked | QueryGone),
        Renewed | NotLeader | Raised => subject == ClientSubject::None,
        // All are of one release.
        NotUnderstood => false,
    };
    (!possible).then_some("it is not about that")
}

/// From so many seeds on it is a hole that these never met.
fn missed_from(pair: &str) -> u64 {
    if RAREST.iter().any(|(rarest, _)| *rarest == pair) {
        SEEDS_LONGEST
    } else if RARE.contains(&pair) {
        SEEDS_LONG
    } else {
        0
    }
}

const SEEDS_LONG: u64 = 100_000;
const SEEDS_LONGEST: u64 = 10_000_000;

/// Seen eight times in two thousand seeds, or more seldom: missed from [`SEEDS_LONG`] on. With fewer a change of
/// one byte in one message, which gives each seed another course, would find some of them missing.
const RARE: &[&str] = &[
    "Converted never met LeaseUnknown",
    "Upgrade never met Refused",
    "Downgrade never met Refused",
    "Downgrade never met Over",
    "Lower never met New",
    "Lower never met Refused",
    "Lower never met Starting",
    "Lower never met Unknown",
    "Lower never met LeaseStale",
    "Lower never met LeaseRevoked",
    "Lower never met LeaseBeingRevoked",
    "Lower never met Sessionless",
    "Lower never met Over",
    "Lower never met None",
    "TopUp never met New",
    "TopUp never met Starting",
    "TopUp never met LeaseBeingRevoked",
    "TopUp never met LeaseRevoked",
    "Acquire never met ServingIdling",
    "Goodbye never met ServingIdling",
    "Renew never met ServingIdling",
    "TopUp never met Unknown",
    "Check never met ServingIdling",
    "List never met ServingIdling",
    "Break never met ServingIdling",
    "Use never met Refused",
    "Use never met Over",
    "Use never met Unknown",
    "TopUp never met Sessionless",
    "Use never met LeaseBeingRevoked",
    "Use never met LeaseRevoked",
    "TopUp never met None",
    "Use never met New",
    "Use never met Starting",
    "Listed never met Closed",
    "ToppedUp never met Lapsed",
    "TopUp never met Over",
    "Listed never met Stale",
    "Broke never met Fresh",
    "ToppedUp never met Fresh",
    "Goodbye never met Refused",
    "List never met New",
    "List never met Starting",
    "List never met Over",
    "NotLeader never met Stale",
    "Check never met LeaseBeingRevoked",
    "Checked never met Closed",
    "Use never met Sessionless",
    "Raised never met Closed",
    "Listed never met Lapsed",
    "TopUp never met Refused",
    "List never met Refused",
    "Check never met Refused",
    "Gone never met SessionOther",
    "Checked never met Reporting",
    "ToppedUp never met LeaseUnknown",
    "Held never met Unknown",
    "Waiting never met Unknown",
    "List never met Unknown",
    "Break never met Unknown",
    "Break never met Refused",
    "Break never met Over",
    "Broke never met Stale",
    "Broke never met Lapsed",
    "Broke never met Closed",
    "Refused never met Reporting",
    "Released never met Reporting",
    "ToppedUp never met Stale",
    "ToppedUp never met Closed",
    "ToppedUp never met LeaseLosing",
];

/// What a run of a million seeds met once or not at all, what that takes, and which of the protocol's
/// situations plays it: missed from [`SEEDS_LONGEST`] on.
const RAREST: &[(&str, &str)] = &[
    ("TopUp never met LeaseStale", SAID_BEFORE_IT_HEARD),
    ("Use never met LeaseStale", SAID_BEFORE_IT_HEARD),
    (
        "Broke never met Reporting",
        "the asker of the break ran out while that was on its way to the disk: the answer comes \
         behind the Gone, and the question is asked again with the next report; \
         a_break_is_answered_though_the_session_that_asked_ran_out_before_it_was_durable",
    ),
];

const SAID_BEFORE_IT_HEARD: &str = "its keeper had yet to hear of the loss when it said so, and \
     it was read when the lease was free: past the last promise, or by another's later token; \
     a_late_word_on_a_kept_lease_changes_nothing_for_the_next_holder";

/// A table of messages by states.
struct Counts<M: 'static, S: 'static> {
    messages: &'static [M],
    states: &'static [S],
    counts: Vec<u64>,
}

impl<M: Copy + Debug, S: Copy + Debug> Counts<M, S> {
    fn new(messages: &'static [M], states: &'static [S]) -> Counts<M, S> {
        Counts { messages, states, counts: vec![0; messages.len() * states.len()] }
    }

    fn add(&mut self, message: usize, state: usize) {
        self.counts[message * self.states.len() + state] += 1;
    }

    fn merge(&mut self, other: &Counts<M, S>) {
        for (own, other) in self.counts.iter_mut().zip(&other.counts) {
            *own += other;
        }
    }

    fn cells(&self) -> impl Iterator<Item = (M, S, u64)> {
        let pairs = self.messages.iter().flat_map(|&m| self.states.iter().map(move |&s| (m, s)));
        pairs.zip(&self.counts).map(|((message, state), &count)| (message, state, count))
    }

    fn holes(
        &self,
        impossible: impl Fn(M, S) -> Option<&'static str>,
        seeds: u64,
        holes: &mut Vec<String>,
    ) {
        for (message, state, count) in self.cells() {
            match impossible(message, state) {
                None if count == 0 => {
                    let pair = format!("{message:?} never met {state:?}");
                    if seeds >= missed_from(&pair) {
                        holes.push(pair);
                    }
                }
                Some(why) if count > 0 => {
                    holes.push(format!("{message:?} met {state:?} {count} times, but: {why}"));
                }
                _ => {}
            }
        }
    }
}

impl<M: Copy + Debug, S: Copy + Debug> fmt::Display for Counts<M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut head = format!("{:10}", "");
        for state in self.states {
            write!(head, " {:>10}", abbreviated(&format!("{state:?}")))?;
        }
        writeln!(f, "{head}")?;
        for (message, counts) in self.messages.iter().zip(self.counts.chunks(self.states.len())) {
            write!(f, "{:10}", format!("{message:?}"))?;
            for count in counts {
                match count {
                    0 => write!(f, " {:>10}", "-")?,
                    count => write!(f, " {count:>10}")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// The last ten letters: states of one kind begin alike.
fn abbreviated(text: &str) -> &str {
    &text[text.len().saturating_sub(10)..]
}
