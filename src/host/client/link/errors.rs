//! What callers are told of an answer that is no grant.

use std::time::Duration;

use crate::{
    error::{Holder, LockError, LockErrorKind},
    mode::Usage,
    name::Name,
    printable::{Printable, named_of},
    proto::{
        client::RequestFailure,
        wire::{DeadlockCircle, DeadlockStep, HolderInfo, Identity, NameUse, Refusal},
    },
    token::Token,
};

pub(super) fn error_of(failure: RequestFailure, waited: Duration) -> LockError {
    use LockErrorKind::{Config, Io, Refused, Unreachable};
    let (kind, text) = match failure {
        RequestFailure::Refused { why: Refusal::WouldBlock } => return LockError::WOULD_BLOCK,
        RequestFailure::Refused { why: Refusal::TimedOut } => {
            return LockError::timed_out(waited);
        }
        RequestFailure::Unanswered(trouble) => {
            let text = format!("no leader answered within the wait: {trouble}");
            return LockError::new(LockErrorKind::TimedOut, text).with_waited(waited);
        }
        RequestFailure::Refused { why } => refused(why),
        RequestFailure::Unreachable(trouble) if trouble.is_empty() => {
            return LockError::new(Unreachable, "no leader answered").with_waited(waited);
        }
        RequestFailure::Unreachable(trouble) => {
            return LockError::new(Unreachable, trouble).with_waited(waited);
        }
        RequestFailure::NotAccepted(why) => return LockError::new(Refused, why),
        RequestFailure::Config(why) => return LockError::new(Config, why),
        RequestFailure::Deadlock(circle) => {
            let text = in_words(&circle);
            return LockError::new(LockErrorKind::Deadlock, text).with_waited(waited);
        }
        RequestFailure::Closed => (Config, "the manager was closed"),
    };
    return LockError::new(kind, text);

    fn refused(why: Refusal) -> (LockErrorKind, &'static str) {
        match why {
            // The first two are told otherwise where they are answers, and the third where a lock was asked
            // for. A leader can say any of them to anything: that is its fault, and no reason to panic.
            Refusal::WouldBlock | Refusal::TimedOut | Refusal::UsedAs(_) => (
                Refused,
                "the leader has broken the protocol: it has refused this for a reason that only a request \
                 for a lock can be refused for",
            ),
            Refusal::NotPermitted => (
                Refused,
                "this client's credential is not for that: `tierlock secret show FILE` says which role \
                 and which names it is for",
            ),
            Refusal::TooManySessions => (
                Refused,
                "the leader has no room for another session of this client (one address or credential gets at most \
                 as many as it leaves free for others); close managers that are not needed, or \
                 start the leader with a larger --sessions-max",
            ),
            Refusal::TooManyLeases => (
                Refused,
                "this manager holds as many leases as the leader allows one session; \
                 unlock some, or open another manager",
            ),
            Refusal::TooManyWaiters => (
                Refused,
                "this manager waits for as many locks as the leader allows one session; \
                 wait for fewer at a time, or open another manager",
            ),
            Refusal::TooManyClaims => (
                Refused,
                "this client holds, waits for and keeps taken by at_least as many locks as the leader \
                 has room for (one address or credential gets at most as many as it leaves free for others); \
                 unlock some, or start the leader with a larger --claims-max",
            ),
            Refusal::TooManyReservations => (
                Refused,
                "as many names are kept taken by at_least as the leader remembers (65,536, of which \
                 one address or credential gets at most as many as it leaves free for others); lock without \
                 at_least, or with a shorter one",
            ),
            Refusal::AtLeastTooLong => (
                Config,
                "at_least is longer than a leader remembers; at host scope it is at most 31 days",
            ),
            Refusal::TimeToLive => (
                Refused,
                "the leader does not accept this manager's time_to_live; \
                 choose a shorter one, or start the leader with a larger --ttl-max",
            ),
            Refusal::OtherCluster => (
                Refused,
                "the leader is not the one this manager has spoken to before (its state \
                 directory is another one); point the manager at its own leader, or open it anew",
            ),
            Refusal::NotSupported => (
                Refused,
                "the leader is of an earlier release and does not know what is asked for; update it",
            ),
            Refusal::TooOld => (Refused, "this program is too old for the leader; update it"),
            Refusal::TooFarAbove => (
                Refused,
                "this machine knows a token of the name that is more than 1,024 epochs above the \
                 leader's, which is as far as a leader goes in a day; if that token is real, \
                 start the leader once with --epoch-above N, N being the token's epoch",
            ),
            Refusal::Tokens => (
                Refused,
                "the highest token known for this name leaves the leader no room above it",
            ),
            Refusal::DiskFull => (
                Refused,
                "the leader's disk has no room for one more session or at_least; it serves those \
                 that it has until its operator makes room in its state directory",
            ),
            Refusal::Storage => (
                Io,
                "the leader cannot write to its state directory; its operator finds the reason there",
            ),
        }
    }
}

/// What the name is used for by its other holders and waiters.
pub(super) fn usage_of(in_force: NameUse) -> Usage {
    match in_force {
        NameUse::Lock => Usage::Lock,
        NameUse::Permits { limit } => Usage::Permits(limit),
    }
}

pub(super) fn warning(left: Duration, held: usize, trouble: &str) -> String {
    let locks =
        if held == 1 { "1 held lock is".to_owned() } else { format!("{held} held locks are") };
    let trouble = Printable(trouble);
    format!("{trouble}; {locks} lost in {left:.1?} unless one answers before")
}

/// The requests of a deadlock, one after the other, the one that is told first.
fn in_words(circle: &DeadlockCircle) -> String {
    let name = |name: &Option<Name>| match name {
        Some(name) => format!("{name:?}"),
        None => "a lock".to_owned(), // which this session may not see
    };
    let step = |(at, DeadlockStep { identity, has, waits_for }): (usize, &DeadlockStep)| {
        let caller = match at {
            0 => "this caller".to_owned(),
            _ => described(identity).to_string(),
        };
        format!("{caller} has {} and waits for {}", name(has), name(waits_for))
    };
    let named = named_of(circle.steps.len());
    let mut steps: Vec<_> = circle.steps.iter().take(named).enumerate().map(step).collect();
    let left_out = circle.steps.len() - named + circle.left_out as usize;
    if left_out > 0 {
        steps.push(format!("{left_out} more wait for each other"));
    }
    format!("deadlock: {}; give up what you hold and begin anew", steps.join("; "))
}

pub(super) const UNANSWERED: &str =
    "no leader has confirmed the release; it is repeated until one does";

/// What the leader tells about a holder, as callers see it.
pub(crate) fn holder_of(info: HolderInfo) -> Holder {
    let HolderInfo { identity, since, token, mode: _, claims_label, ahead: _ } = info;
    Holder {
        claims_label,
        held: Some(since),
        held_since_grant: true,
        token: (token != Token::ZERO).then_some(token),
        ..described(&identity)
    }
}

fn described(identity: &Identity) -> Holder {
    Holder {
        label: identity.label.clone(),
        label_is_proved: identity.label_is_proved,
        host: identity.host.clone(),
        pid: (identity.pid != 0).then_some(identity.pid),
        command: identity.command.clone(),
        ..Holder::default()
    }
}
