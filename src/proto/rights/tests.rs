use std::time::Duration;

use super::*;
use crate::{
    error::Predecessor,
    proto::{
        LeaseId, ProcessMark, ReignId, SessionId,
        wire::{Acquire, HeldLease, Identity, Mode, Wait, WaitingRequest},
    },
    time::Time,
    token::Token,
};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn rights(role: Role, names: &[&str]) -> Rights {
    Rights::new(role, names.iter().map(|text| name(text)).collect(), None)
}

const REQUEST: RequestId = RequestId(7);
const LEASE: LeaseId = LeaseId { epoch: 1, count: 1 };

fn acquire(text: &str) -> Acquire {
    Acquire::exclusive(name(text), Wait::No)
}

fn held(text: &str) -> HeldLease {
    HeldLease {
        lease: LEASE,
        name: name(text),
        first: Token::ZERO,
        last: Token::ZERO,
        last_used: Token::ZERO,
        at_most: None,
        kept: false,
        since: Duration::ZERO,
        leaving: None,
        reign: ReignId(1),
        mode: Mode::Exclusive,
        value: None,
    }
}

fn waiting(text: &str) -> WaitingRequest {
    WaitingRequest { request: REQUEST, place: None, acquire: acquire(text) }
}

/// What may be said of a name, and what follows if it may not.
fn about(text: &str) -> [(ClientMessage, Role, Forbidden); 6] {
    let (query, name) = (REQUEST, || name(text));
    let token = Token::ZERO;
    let refused = Forbidden::Question(REQUEST);
    let own = || held("orders/0");
    [
        (ClientMessage::Observe { query, name: name() }, Role::Read, refused),
        (ClientMessage::Check { query, name: name(), token }, Role::Read, refused),
        (
            ClientMessage::Acquire { request: query, acquire: acquire(text) },
            Role::Lock,
            Forbidden::Acquire(REQUEST),
        ),
        (ClientMessage::Held { leases: vec![own(), held(text)] }, Role::Lock, Forbidden::Report),
        (
            ClientMessage::Waiting { requests: vec![waiting("orders/0"), waiting(text)] },
            Role::Lock,
            Forbidden::Report,
        ),
        (ClientMessage::Break { query, name: name(), token }, Role::Admin, refused),
    ]
}

#[test]
fn a_role_may_say_what_it_is_for_and_of_its_names_alone() {
    for (text, is_own) in [
        ("orders/0", true),
        ("orders/", true),
        ("users", true),
        ("orders", false),
        ("orders-admin", false),
        ("Orders/0", false),
        ("users/1", false),
        ("user", false),
    ] {
        for (message, least, otherwise) in about(text) {
            for role in Role::ALL {
                let judged = rights(role, &["orders/", "users"]).forbids(&message);
                let is_permitted = is_own && role >= least;
                let expected = (!is_permitted).then_some(otherwise);
                assert_eq!(judged, expected, "{role}: {message:?}");
                let for_all = rights(role, &[]).forbids(&message);
                assert_eq!(for_all, (role < least).then_some(otherwise), "{role}: {message:?}");
            }
        }
    }
}

#[test]
fn what_concerns_the_locks_of_all_takes_an_admin_for_all_names() {
    let (query, member) = (REQUEST, "b".to_owned());
    let messages = [
        ClientMessage::StepDown { query, reign: ReignId(1) },
        ClientMessage::Replace { query, member },
    ];
    for message in messages {
        for role in Role::ALL {
            for names in [&[][..], &["orders/"]] {
                let is_permitted = role == Role::Admin && names.is_empty();
                let expected = (!is_permitted).then_some(Forbidden::Question(REQUEST));
                assert_eq!(rights(role, names).forbids(&message), expected, "{role}, {names:?}");
            }
        }
    }
}

#[test]
fn a_reader_changes_no_mode() {
    let (request, lease) = (REQUEST, LEASE);
    let (last_used, to) = (Token::ZERO, Mode::Shared);
    let messages = [
        ClientMessage::Upgrade { request, lease, tries: false },
        ClientMessage::Downgrade { request, lease, last_used, to },
    ];
    for message in messages {
        for role in Role::ALL {
            let expected = (role == Role::Read).then_some(Forbidden::Question(REQUEST));
            assert_eq!(rights(role, &["orders/"]).forbids(&message), expected, "{role}");
        }
    }
}

/// A session's own business, and questions that are answered with what the client may see.
#[test]
fn what_names_no_lock_is_permitted_to_all() {
    let (request, query, lease) = (REQUEST, REQUEST, LEASE);
    let messages = [
        ClientMessage::Hello {
            version: 1,
            capabilities: 0,
            session: SessionId(1),
            proof: Proof(1),
            count: 1,
            cluster: None,
            seen: None,
            time_to_live: Duration::from_secs(60),
            identity: Identity::new("a", "b", 1, "c"),
            process: ProcessMark(1),
        },
        ClientMessage::Held { leases: Vec::new() },
        ClientMessage::Waiting { requests: Vec::new() },
        ClientMessage::Ready,
        ClientMessage::Cancel { request },
        ClientMessage::Release { lease, last_used: Token::ZERO, how: Predecessor::Clean },
        ClientMessage::Use { lease, kept: true },
        ClientMessage::TopUp { lease },
        ClientMessage::Lower { lease, count: 1 },
        ClientMessage::Renew { sent_at: Time::ZERO },
        ClientMessage::Goodbye,
        ClientMessage::List { query, after: None, limit: 1 },
        ClientMessage::StopObserving { query },
        ClientMessage::AskStanding { query },
        ClientMessage::AskGroup { query },
    ];
    for message in messages {
        assert_eq!(rights(Role::Read, &["orders/"]).forbids(&message), None, "{message:?}");
    }
}

#[test]
fn a_client_with_the_secret_may_do_everything() {
    for (message, ..) in about("any/name") {
        assert_eq!(Rights::everything().forbids(&message), None);
    }
    let step_down = ClientMessage::StepDown { query: REQUEST, reign: ReignId(1) };
    assert!(Rights::everything().permit(step_down).is_ok());
}

#[test]
fn names_are_in_order_and_none_stands_for_another() {
    let known = rights(Role::Lock, &["b", "a/b/", "a/", "a", "a/c", "b", "a/b/c/"]);
    assert_eq!(known.names(), [name("a"), name("a/"), name("b")]);
}

#[test]
fn a_role_is_read_as_it_is_written() {
    for role in Role::ALL {
        assert_eq!(role.to_string().parse(), Ok(role));
    }
    assert_eq!("ADMIN".parse::<Role>(), Err(ParseRoleError));
    assert_eq!("member".parse::<Role>(), Err(ParseRoleError));
}
