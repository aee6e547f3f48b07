//! What a leader tells of itself for a log: each event in words, and its parts for programs.

use std::{
    fmt::{self, Write as _},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use crate::{
    host::net::{acceptance::Unaccepted, quic::TurnedAway},
    name::Name,
    printable::{Printable, in_words},
    proto::{
        ClientId,
        leader::{LostNames, MachineEvent, SessionNote, tally::reason_of},
        rights::ConnectedClient,
        wire::Refusal,
    },
    token::Token,
};

/// Something that a leader did or met, for an operator's log: see
/// [`LeaderBuilder::on_event`](crate::LeaderBuilder::on_event).
///
/// Shown (`Display`), it is one line of words, in which names and labels are escaped.
#[derive(Clone, Debug)]
pub struct LeaderEvent {
    kind: LeaderEventKind,
    text: String,
    /// It is told to `on_change` as well.
    pub(super) is_change: bool,
    pub(crate) parts: EventParts,
}

/// What kind of event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LeaderEventKind {
    /// An operator has to look at something. It is told to
    /// [`on_alarm`](crate::LeaderBuilder::on_alarm) as well.
    Alarm,
    /// The leader reigns, stands by, hands over, or has lost its reign.
    Reign,
    /// Every client of the reigns before has come back, or has run out.
    GraceOver,
    /// A client's first request is in the journal.
    SessionOpened,
    /// A client said goodbye.
    SessionEnded,
    /// A client was silent for its time to live. Its locks are free.
    SessionExpired,
    /// A client was turned away.
    SessionRefused,
    /// A request was refused for want of room, or for what no request may ask.
    LimitReached,
    /// A client with a credential asked for what that is not for.
    NotPermitted,
    /// An operator took a lock away.
    LockBroken,
    /// A lock was taken away, since it was held for as long as its `at_most` allows.
    HeldTooLong,
    /// A client that keeps a lease has not answered that another client waits for it.
    RecallLate,
    /// The journal took long for a write.
    JournalSlow,
    /// Events of another kind were so many that some are not told one by one.
    LeftOut,
}

impl LeaderEventKind {
    /// The word of `tierlock serve --log json`.
    pub const fn as_str(self) -> &'static str {
        match self {
            LeaderEventKind::Alarm => "alarm",
            LeaderEventKind::Reign => "reign",
            LeaderEventKind::GraceOver => "grace_over",
            LeaderEventKind::SessionOpened => "session_opened",
            LeaderEventKind::SessionEnded => "session_ended",
            LeaderEventKind::SessionExpired => "session_expired",
            LeaderEventKind::SessionRefused => "session_refused",
            LeaderEventKind::LimitReached => "limit_reached",
            LeaderEventKind::NotPermitted => "not_permitted",
            LeaderEventKind::LockBroken => "lock_broken",
            LeaderEventKind::HeldTooLong => "held_too_long",
            LeaderEventKind::RecallLate => "recall_late",
            LeaderEventKind::JournalSlow => "journal_slow",
            LeaderEventKind::LeftOut => "left_out",
        }
    }

    /// Whether an operator should look at it: `alarm`, `warning` or `info`.
    pub const fn level(self) -> &'static str {
        match self {
            LeaderEventKind::Alarm => "alarm",
            LeaderEventKind::SessionExpired
            | LeaderEventKind::SessionRefused
            | LeaderEventKind::LimitReached
            | LeaderEventKind::NotPermitted
            | LeaderEventKind::LockBroken
            | LeaderEventKind::HeldTooLong
            | LeaderEventKind::RecallLate
            | LeaderEventKind::JournalSlow
            | LeaderEventKind::LeftOut => "warning",
            _ => "info",
        }
    }
}

/// The parts of an event that a program may want.
#[derive(Clone, Debug, Default)]
#[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the program's log has them"))]
pub(crate) struct EventParts {
    pub(crate) name: Option<Name>,
    pub(crate) token: Option<Token>,
    pub(crate) epoch: Option<u32>,
    pub(crate) reason: Option<&'static str>,
    pub(crate) lasted: Option<Duration>,
    pub(crate) count: Option<u64>,
    /// The client that it is about.
    pub(crate) client: Option<EventClient>,
    /// The client that wanted it.
    pub(crate) by: Option<EventClient>,
}

/// A client, as it describes itself, and where it is.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the program's log has them"))]
pub(crate) struct EventClient {
    pub(crate) label: String,
    /// It is its credential's; else it is what the client claims.
    pub(crate) label_is_proved: bool,
    /// Others have proved theirs.
    pub(crate) claims_label: bool,
    pub(crate) host: String,
    pub(crate) pid: u32,
    pub(crate) command: String,
    pub(crate) address: Option<IpAddr>,
}

impl EventClient {
    fn of(note: &SessionNote) -> EventClient {
        let identity = &note.identity;
        EventClient {
            label: identity.label.clone(),
            label_is_proved: identity.label_is_proved,
            claims_label: note.claims_label,
            host: identity.host.clone(),
            pid: identity.pid,
            command: identity.command.clone(),
            address: address_of(note.client),
        }
    }
}

impl fmt::Display for EventClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = [&self.label, &self.command].into_iter().find(|text| !text.is_empty());
        match own {
            Some(own) => write!(f, "{}", Printable(own))?,
            None => f.write_str("a client")?,
        }
        if self.claims_label {
            f.write_str(", as it claims,")?;
        }
        if !self.host.is_empty() {
            write!(f, " on {} (pid {})", Printable(&self.host), self.pid)?;
        }
        match self.address {
            Some(address) => write!(f, " at {address}"),
            None => Ok(()),
        }
    }
}

/// Where a client is; with IPv6 its network.
fn address_of(client: ClientId) -> Option<IpAddr> {
    let bits = Some(client.0).filter(|&bits| bits != 0)?;
    Some(IpAddr::V6(Ipv6Addr::from_bits(bits)).to_canonical())
}

impl LeaderEvent {
    /// What kind of event it is.
    pub fn kind(&self) -> LeaderEventKind {
        self.kind
    }

    /// The lock that it is about, if it is about one.
    pub fn name(&self) -> Option<&Name> {
        self.parts.name.as_ref()
    }

    fn new(kind: LeaderEventKind, text: impl Into<String>, parts: EventParts) -> LeaderEvent {
        // An alarm may quote a store's error, or another leader's address.
        let text = Printable(&text.into()).to_string();
        LeaderEvent { kind, text, is_change: false, parts }
    }

    /// An alarm, and the lock that it is about, if it is about one.
    pub(super) fn alarm(text: &str, about: Option<(Name, Token)>) -> LeaderEvent {
        let (name, token) = about.unzip();
        LeaderEvent::new(
            LeaderEventKind::Alarm,
            text,
            EventParts { name, token, ..EventParts::default() },
        )
    }

    /// A change of reign.
    pub(super) fn reign(text: impl Into<String>, epoch: Option<u32>) -> LeaderEvent {
        let parts = EventParts { epoch, ..EventParts::default() };
        LeaderEvent { is_change: true, ..LeaderEvent::new(LeaderEventKind::Reign, text, parts) }
    }

    /// The beginning of a reign that no other leader can follow: no change of reign.
    pub(super) fn began(epoch: u32) -> LeaderEvent {
        let text = format!("it reigns from now on, in epoch {epoch}");
        LeaderEvent { is_change: false, ..LeaderEvent::reign(text, Some(epoch)) }
    }

    pub(super) fn journal_slow(operation: &'static str, took: Duration) -> LeaderEvent {
        let text = format!("the journal was slow: it took {} ({operation})", in_words(took));
        let parts =
            EventParts { reason: Some(operation), lasted: Some(took), ..EventParts::default() };
        LeaderEvent::new(LeaderEventKind::JournalSlow, text, parts)
    }

    /// A peer that has not got through its handshake: what it is, it has not said.
    pub(super) fn turned_away(client: ClientId, why: TurnedAway) -> LeaderEvent {
        let address = address_of(client);
        let at = address.map(|address| format!(" at {address}")).unwrap_or_default();
        let words = match why {
            TurnedAway::OtherSecret => format!("a client{at} has another secret than this leader"),
            TurnedAway::CredentialEnded => format!("the credential of a client{at} has ended"),
            TurnedAway::CredentialUnknown => format!(
                "the credential of a client{at} is of this leader's secret, and says what this release \
                 does not understand: update the leader"
            ),
            TurnedAway::OtherProtocol => {
                format!("what connects{at} is no tierlock client, or one of another release")
            }
            TurnedAway::Failed => {
                format!("the handshake of a client{at} failed by a fault of one side's own")
            }
        };
        let text = format!("session refused: {words}");
        let (label, host, command) = Default::default();
        let client = EventClient {
            label,
            label_is_proved: false,
            claims_label: false,
            host,
            pid: 0,
            command,
            address,
        };
        let parts = EventParts {
            reason: Some(why.as_str()),
            client: Some(client),
            ..EventParts::default()
        };
        LeaderEvent::new(LeaderEventKind::SessionRefused, text, parts)
    }

    /// A client with the leader's secret, or a credential of it, that is not let in any more.
    pub(super) fn unaccepted(client: ConnectedClient, why: Unaccepted) -> LeaderEvent {
        let address = address_of(client.at);
        let label = client.label.as_ref().map_or(String::new(), |label| label.text.to_string());
        let label_is_proved = client.label.is_some();
        let (host, command) = Default::default();
        let client = EventClient {
            label,
            label_is_proved,
            claims_label: false,
            host,
            pid: 0,
            command,
            address,
        };
        let (reason, words) = match why {
            Unaccepted::OtherSecret => ("other_secret", "its secret is not accepted any more"),
            Unaccepted::Revoked => ("revoked", "its credential is revoked"),
            Unaccepted::Ended => ("ended", "its credential has ended"),
            Unaccepted::OtherPurpose => ("other_role", "its credential is for another protocol"),
        };
        let text = format!("session refused: {client}: {words}");
        let parts =
            EventParts { reason: Some(reason), client: Some(client), ..EventParts::default() };
        LeaderEvent::new(LeaderEventKind::SessionRefused, text, parts)
    }

    pub(super) fn left_out(kind: LeaderEventKind, count: u64) -> LeaderEvent {
        let text = format!("{count} more events of the kind {} are not told", kind.as_str());
        let parts =
            EventParts { reason: Some(kind.as_str()), count: Some(count), ..EventParts::default() };
        LeaderEvent::new(LeaderEventKind::LeftOut, text, parts)
    }

    /// The kind of [`LeaderEvent::of`] this.
    pub(super) fn kind_of(event: &MachineEvent) -> LeaderEventKind {
        match event {
            MachineEvent::SessionOpened { .. } => LeaderEventKind::SessionOpened,
            MachineEvent::SessionEnded { .. } => LeaderEventKind::SessionEnded,
            MachineEvent::SessionExpired { .. } => LeaderEventKind::SessionExpired,
            MachineEvent::SessionRefused { .. } => LeaderEventKind::SessionRefused,
            MachineEvent::RequestRefused { why: Refusal::NotPermitted, .. } => {
                LeaderEventKind::NotPermitted
            }
            MachineEvent::RequestRefused { .. } => LeaderEventKind::LimitReached,
            MachineEvent::Broken { .. } => LeaderEventKind::LockBroken,
            MachineEvent::HeldTooLong { .. } => LeaderEventKind::HeldTooLong,
            MachineEvent::RecallLate { .. } => LeaderEventKind::RecallLate,
            MachineEvent::GraceOver { .. } => LeaderEventKind::GraceOver,
        }
    }

    pub(super) fn of(event: MachineEvent) -> LeaderEvent {
        let kind = LeaderEvent::kind_of(&event);
        let about = |session: &SessionNote| EventParts {
            client: Some(EventClient::of(session)),
            ..EventParts::default()
        };
        match event {
            MachineEvent::SessionOpened { session, time_to_live } => {
                let parts = EventParts { lasted: Some(time_to_live), ..about(&session) };
                let text =
                    format!("session opened: {}, time to live {time_to_live:?}", client(&parts));
                LeaderEvent::new(kind, text, parts)
            }
            MachineEvent::SessionEnded { session } => {
                let parts = about(&session);
                let text = format!("session ended in good order: {}", client(&parts));
                LeaderEvent::new(kind, text, parts)
            }
            MachineEvent::SessionExpired { session, lost } => {
                let parts = EventParts {
                    name: lost.some.first().filter(|_| lost.count == 1).cloned(),
                    count: Some(lost.count as u64),
                    ..about(&session)
                };
                let text = format!(
                    "session expired: {} was silent for its time to live; {}",
                    client(&parts),
                    lost_in_words(&lost)
                );
                LeaderEvent::new(kind, text, parts)
            }
            MachineEvent::SessionRefused { session, why } => {
                let parts = EventParts { reason: Some(reason_of(why)), ..about(&session) };
                let text = format!("session refused: {}: {}", client(&parts), in_short(why));
                LeaderEvent::new(kind, text, parts)
            }
            MachineEvent::RequestRefused { session, why } => {
                let parts = EventParts { reason: Some(reason_of(why)), ..about(&session) };
                let begins = match why {
                    Refusal::NotPermitted => "not permitted",
                    _ => "limit reached",
                };
                let text = format!("{begins}: {} was refused: {}", client(&parts), in_short(why));
                LeaderEvent::new(kind, text, parts)
            }
            MachineEvent::Broken { name, token, holder, by } => {
                let by = EventClient::of(&by);
                let holder = holder.as_ref().map(EventClient::of);
                let from = match &holder {
                    Some(holder) => holder.to_string(),
                    None => "no holder: its at_least kept it taken".to_owned(),
                };
                let text = format!(
                    "lock broken: {} with token {token} was taken from {from}, by {by}",
                    Printable(name.as_str())
                );
                let parts = EventParts {
                    name: Some(name),
                    token: Some(token),
                    client: holder,
                    by: Some(by),
                    ..EventParts::default()
                };
                LeaderEvent::new(kind, text, parts)
            }
            MachineEvent::HeldTooLong { name, token, holder } => {
                let parts =
                    EventParts { name: Some(name.clone()), token: Some(token), ..about(&holder) };
                let text = format!(
                    "lock taken away: {} with token {token} was held for as long as its at_most allows, \
                     by {}",
                    Printable(name.as_str()),
                    client(&parts)
                );
                LeaderEvent::new(kind, text, parts)
            }
            MachineEvent::RecallLate { name, holder, waits } => {
                let parts =
                    EventParts { name: Some(name.clone()), lasted: Some(waits), ..about(&holder) };
                let text = format!(
                    "recall is late: {} keeps {}, and has not answered for {} that another client waits",
                    client(&parts),
                    Printable(name.as_str()),
                    in_words(waits)
                );
                LeaderEvent::new(kind, text, parts)
            }
            MachineEvent::GraceOver { lasted } => {
                let parts = EventParts { lasted: Some(lasted), ..EventParts::default() };
                let text = format!("grace is over, after {}", in_words(lasted));
                LeaderEvent::new(kind, text, parts)
            }
        }
    }
}

impl fmt::Display for LeaderEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn client(parts: &EventParts) -> &EventClient {
    parts.client.as_ref().expect("it is about one")
}

fn lost_in_words(lost: &LostNames) -> String {
    if lost.count == 0 {
        return "it held no lock".to_owned();
    }
    let mut text = "it held ".to_owned();
    for (at, name) in lost.some.iter().enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        let _ = write!(text, "{comma}{}", Printable(name.as_str()));
    }
    match lost.count - lost.some.len() {
        0 => {}
        more => {
            let _ = write!(text, " and {more} more");
        }
    }
    text
}

/// Why something was refused, for an operator.
fn in_short(why: Refusal) -> &'static str {
    match why {
        Refusal::WouldBlock => "another client holds it",
        Refusal::TimedOut => "it has waited for as long as it was to",
        Refusal::TooManySessions => "it has its share of the sessions (--sessions-max)",
        Refusal::TooManyLeases => "one session may not hold more locks",
        Refusal::TooManyWaiters => "one session may not wait for more locks",
        Refusal::TooManyClaims => {
            "it has its share of what may be held and waited for (--claims-max)"
        }
        Refusal::TooManyReservations => {
            "it has its share of the names that at_least may keep taken"
        }
        Refusal::TimeToLive => "this leader does not accept its time to live (--ttl-max)",
        Refusal::AtLeastTooLong => "its at_least is too long",
        Refusal::DiskFull => "the journal has no room",
        Refusal::TooFarAbove => "it asks for a token that is too far above all others",
        Refusal::Tokens => "no token is left",
        Refusal::Storage => "the journal has failed",
        Refusal::OtherCluster => "it belongs to another cluster",
        Refusal::NotSupported => "it asks for something that this release does not grant",
        Refusal::TooOld => "its release is too old",
        Refusal::UsedAs(_) => "other clients use the name otherwise",
        Refusal::NotPermitted => "its credential is not for that",
    }
}
