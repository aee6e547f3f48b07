//! What a client may do, by the credential that it has proved.
//!
//! A leader judges each message here, before anything is looked up for it: [`Rights::permit`] is the one
//! place, and a kind of message that is added does not compile before it is decided here. Names are
//! compared byte by byte, and nothing is normalised: a name that only looks like another is another.

use std::{sync::Arc, time::Duration};

use super::{ClientId, Proof, RequestId, wire::ClientMessage};
use crate::name::Name;

/// What the holder of a credential may do: each role may do what the one before it may.
///
/// # Example
/// ```
/// use tierlock::Role;
///
/// assert!(Role::Read < Role::Lock && Role::Lock < Role::Admin);
/// assert_eq!("lock".parse(), Ok(Role::Lock));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Role {
    /// Sees holders and waiters, checks tokens, observes elections.
    Read,
    /// Takes locks as well.
    Lock,
    /// Breaks locks as well; with a credential for all names it has a leader step down, and replaces
    /// disks of a group.
    Admin,
}

impl Role {
    const ALL: [Role; 3] = [Role::Read, Role::Lock, Role::Admin];

    /// The word for it on the command line and in a credential.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Lock => "lock",
            Role::Admin => "admin",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a role is read, lock or admin")]
pub struct ParseRoleError;

impl std::str::FromStr for Role {
    type Err = ParseRoleError;

    fn from_str(text: &str) -> Result<Role, ParseRoleError> {
        let role = Role::ALL.into_iter().find(|role| role.as_str() == text);
        role.ok_or(ParseRoleError)
    }
}

/// A role, and what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    role: Role,
    /// One that ends in `/` stands for all names that begin with it, another for itself alone: `orders`
    /// would let `orders-admin` in. In order, and none stands for another. None at all: every name.
    names: Vec<Name>,
    /// The longest time to live that its sessions may have, if the leader's own limit is not enough.
    time_to_live_max: Option<Duration>,
}

/// A message that its client may say. There is no other way to one than [`Rights::permit`].
#[derive(Debug)]
pub struct PermittedMessage(ClientMessage);

impl PermittedMessage {
    pub fn get(&self) -> &ClientMessage {
        &self.0
    }

    pub fn into_inner(self) -> ClientMessage {
        self.0
    }
}

/// What follows from a message that its client may not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// This request for a lock is refused, and has no other effect.
    Acquire(RequestId),
    /// This question, or change of a lease, is refused.
    Question(RequestId),
    /// Its connection is closed, before any of its report counts: taken in, a lease that another client
    /// has would be that client's no more.
    Report,
}

impl Rights {
    /// Those of a client with the secret. They are no default: where it is not known what a client has
    /// proved, it has none.
    pub fn everything() -> Rights {
        Rights { role: Role::Admin, names: Vec::new(), time_to_live_max: None }
    }

    /// Of this role, for the names that begin with one of these (or all), with sessions of at most this
    /// time to live.
    pub fn new(role: Role, names: Vec<Name>, time_to_live_max: Option<Duration>) -> Rights {
        let mut names = names;
        names.sort();
        // In order, what one stands for comes right behind it: none is kept that another stands for.
        names.dedup_by(|later, known| reaches(known, later));
        Rights { role, names, time_to_live_max }
    }

    pub fn role(&self) -> Role {
        self.role
    }

    /// The names and beginnings of names that it is for; none: every name.
    pub fn names(&self) -> &[Name] {
        &self.names
    }

    pub fn time_to_live_max(&self) -> Option<Duration> {
        self.time_to_live_max
    }

    /// Whether a client with these may be shown this name, and what is told of it.
    pub fn may_see(&self, name: &Name) -> bool {
        self.names.is_empty() || self.names.iter().any(|known| reaches(known, name))
    }

    /// Whether a client with these may hold this name, or wait for it.
    pub fn may_take(&self, name: &Name) -> bool {
        self.role >= Role::Lock && self.may_see(name)
    }

    /// Judges a message of a client with these rights.
    pub fn permit(&self, message: ClientMessage) -> Result<PermittedMessage, Forbidden> {
        match self.forbids(&message) {
            Some(forbidden) => Err(forbidden),
            None => Ok(PermittedMessage(message)),
        }
    }

    /// Every kind of message is named: what a later one may say is decided when it is added.
    fn forbids(&self, message: &ClientMessage) -> Option<Forbidden> {
        let (is_permitted, otherwise) = match message {
            // Its time to live is limited where the session is opened.
            ClientMessage::Hello { .. } | ClientMessage::Ready => return None,
            ClientMessage::Held { leases } => {
                let may_have_all = leases.iter().all(|held| self.may_take(&held.name));
                (may_have_all, Forbidden::Report)
            }
            ClientMessage::Waiting { requests } => {
                let mut wanted = requests.iter().map(|waiting| &waiting.acquire.name);
                (wanted.all(|name| self.may_take(name)), Forbidden::Report)
            }
            ClientMessage::Acquire { request, acquire } => {
                (self.may_take(&acquire.name), Forbidden::Acquire(*request))
            }
            // They name requests and leases of the session's own, which it cannot have of a name that it
            // may not take.
            ClientMessage::Cancel { .. }
            | ClientMessage::Release { .. }
            | ClientMessage::Use { .. }
            | ClientMessage::TopUp { .. }
            | ClientMessage::Lower { .. }
            | ClientMessage::StopObserving { .. } => return None,
            ClientMessage::Upgrade { request, .. } | ClientMessage::Downgrade { request, .. } => {
                (self.role >= Role::Lock, Forbidden::Question(*request))
            }
            ClientMessage::Renew { .. } | ClientMessage::Goodbye => return None,
            // A refusal, and no `false`: that would be an answer about a name that it may not see.
            ClientMessage::Check { query, name, .. } | ClientMessage::Observe { query, name } => {
                (self.may_see(name), Forbidden::Question(*query))
            }
            // It is shown what it may see.
            ClientMessage::List { .. } => return None,
            ClientMessage::Break { query, name, .. } => {
                (self.role >= Role::Admin && self.may_see(name), Forbidden::Question(*query))
            }
            // They show no name.
            ClientMessage::AskStanding { .. } | ClientMessage::AskGroup { .. } => return None,
            // They concern the locks of all.
            ClientMessage::StepDown { query, .. } | ClientMessage::Replace { query, .. } => {
                let is_for_all = self.role >= Role::Admin && self.names.is_empty();
                (is_for_all, Forbidden::Question(*query))
            }
        };
        (!is_permitted).then_some(otherwise)
    }
}

/// Whether `known`, of a credential, stands for this name.
pub(super) fn reaches(known: &Name, name: &Name) -> bool {
    match known.as_str().ends_with('/') {
        true => name.as_str().starts_with(known.as_str()),
        false => name == known,
    }
}

/// A connected client, as its driver knows it.
#[derive(Clone, Debug)]
pub struct ConnectedClient {
    /// What it counts as where limits are shared out: its credential, or its address.
    pub share: ClientId,
    /// Where it is.
    pub at: ClientId,
    /// What it has proved that it may do; none: nothing that it says is permitted.
    pub rights: Option<Arc<Rights>>,
    /// The label of its credential; without one its label is what it says.
    pub label: Option<ProvedLabel>,
}

/// The label of a credential, which is proved.
#[derive(Clone, Debug)]
pub struct ProvedLabel {
    pub text: Arc<str>,
    /// Makes of a session's proof one that is good with this label alone, so that a session belongs to
    /// its label in every reign: the journal has that proof and no other. It tells nothing of the proof
    /// that it was made of, and no other label and proof give the same.
    pub bind: fn(&str, Proof) -> Proof,
}

impl ConnectedClient {
    /// The proof that its session is known by.
    pub(super) fn bind(&self, proof: Proof) -> Proof {
        self.label.as_ref().map_or(proof, |label| (label.bind)(&label.text, proof))
    }
}

/// One with the secret, at an address that this stands for.
impl From<ClientId> for ConnectedClient {
    fn from(at: ClientId) -> ConnectedClient {
        let rights = Some(Arc::new(Rights::everything()));
        ConnectedClient { share: at, at, rights, label: None }
    }
}

#[cfg(test)]
mod tests;
