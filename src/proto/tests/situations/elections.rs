//! Elections: what holders say of themselves, and what observers are told when.

use super::*;
use crate::{
    error::Predecessor,
    proto::wire::{PresentLeader, VALUE_BYTES_MAX},
};

const QUERY: RequestId = RequestId(90);

fn stand(text: &str, value: &[u8]) -> Acquire {
    let extras = Extras { value: Some(value.into()), ..Extras::default() };
    Acquire { extras: Some(Box::new(extras)), ..acquire(text) }
}

fn observe(reign: &mut ReignScene, speaker: Speaker, text: &str) {
    reign.say(speaker, ClientMessage::Observe { query: QUERY, name: name(text) });
}

/// What this observer was told since the last look: tokens and values.
fn told(reign: &mut ReignScene, speaker: Speaker) -> Vec<Option<(Token, Vec<u8>)>> {
    let heard = reign.take(speaker).into_iter();
    heard
        .filter_map(|message| match message {
            LeaderMessage::Leads { query: QUERY, leader } => {
                Some(leader.map(|PresentLeader { token, value }| (token, value.to_vec())))
            }
            _ => None,
        })
        .collect()
}

fn leads(grant: HeardGrant, value: &[u8]) -> Option<(Token, Vec<u8>)> {
    Some((grant.token, value.to_vec()))
}

/// What its holder reports of it.
fn led(text: &str, grant: HeardGrant, value: &[u8]) -> HeldLease {
    HeldLease { value: Some(value.into()), ..held(text, grant) }
}

#[test]
fn an_observer_is_told_the_present_leader_and_each_change_as_one_event_makes_it() {
    let mut reign = begin();
    let [a, b, observer] = [1, 2, 3].map(|number| reign.session(number));
    observe(&mut reign, observer, "x");
    assert_eq!(told(&mut reign, observer), [None]);
    reign.acquire(a, 1, stand("x", b"of a"));
    let one = reign.granted(a, 1);
    assert_eq!(told(&mut reign, observer), [leads(one, b"of a")]);
    reign.acquire(b, 1, stand("x", b"of b"));
    reign.release(a, one.lease);
    let two = reign.granted(b, 1);
    assert_eq!(told(&mut reign, observer), [leads(two, b"of b")], "none was without a leader");
    reign.release(b, two.lease);
    assert_eq!(told(&mut reign, observer), [None]);
    // A lock is no election's leader, and an empty value is one.
    reign.acquire(a, 2, acquire("x"));
    let lock = reign.granted(a, 2);
    reign.acquire(b, 2, stand("x", b""));
    assert_eq!(told(&mut reign, observer), []);
    reign.release(a, lock.lease);
    let empty = reign.granted(b, 2);
    assert_eq!(told(&mut reign, observer), [leads(empty, b"")]);
    // What is asked twice is told once, and what is stopped no more.
    observe(&mut reign, observer, "x");
    assert_eq!(told(&mut reign, observer), []);
    reign.say(observer, ClientMessage::StopObserving { query: QUERY });
    reign.release(b, empty.lease);
    assert_eq!(told(&mut reign, observer), []);
    assert_eq!(reign.leader.observed(), (0, 0));
}

#[test]
fn an_observation_ends_with_its_connection() {
    let mut reign = begin();
    let [a, observer] = [1, 2].map(|number| reign.session(number));
    observe(&mut reign, observer, "x");
    told(&mut reign, observer);
    reign.disconnect(observer);
    assert_eq!(reign.leader.observed().0, 0);
    reign.acquire(a, 1, stand("x", b"of a"));
    let grant = reign.granted(a, 1);
    let observer = reign.session(3);
    observe(&mut reign, observer, "x");
    assert_eq!(told(&mut reign, observer), [leads(grant, b"of a")]);
    // A session that is sent away on its connection observes nothing any more.
    reign.pass(LONG);
    assert_eq!(reign.leader.observed().0, 0);
}

/// etcd#18163, trillian#1387: an observer is told an old leader, or none where one will come back.
#[test]
fn before_the_end_of_grace_an_observer_is_told_nothing() {
    let mut reign = begin();
    let [a, observer] = [1, 2].map(|number| reign.session(number));
    reign.acquire(a, 1, stand("x", b"of a"));
    let grant = reign.granted(a, 1);
    reign.acquire(observer, 1, acquire("another"));
    let another = reign.granted(observer, 1);
    reign.restart();
    let observer = reign.again(observer);
    reign.report_held(observer, vec![held("another", another)], Vec::new());
    observe(&mut reign, observer, "x");
    assert_eq!(told(&mut reign, observer), []);
    let a = reign.again(a);
    reign.report_held(a, vec![led("x", grant, b"of a")], Vec::new());
    assert_eq!(told(&mut reign, observer), [leads(grant, b"of a")]);
    reign.release(a, grant.lease);
    assert_eq!(told(&mut reign, observer), [None]);
    assert_eq!(reign.leader.observed().1, 0, "its value went with its lease");
}

#[test]
fn a_leader_that_is_broken_leads_until_it_has_answered() {
    let mut reign = begin();
    let [a, observer] = [1, 2].map(|number| reign.session(number));
    reign.acquire(a, 1, stand("x", b"of a"));
    let grant = reign.granted(a, 1);
    observe(&mut reign, observer, "x");
    assert_eq!(told(&mut reign, observer), [leads(grant, b"of a")]);
    let (query, token) = (RequestId(91), grant.token);
    reign.say(observer, ClientMessage::Break { query, name: name("x"), token });
    assert_eq!(told(&mut reign, observer), []);
    let (lease, last_used, how) = (grant.lease, grant.token, Predecessor::Clean);
    reign.say(a, ClientMessage::Release { lease, last_used, how });
    assert_eq!(told(&mut reign, observer), [None]);
}

#[test]
fn a_session_that_ends_leads_no_more_once_that_is_durable() {
    let mut reign = begin();
    let [a, observer] = [1, 2].map(|number| reign.session(number));
    reign.acquire(a, 1, stand("x", b"of a"));
    let grant = reign.granted(a, 1);
    observe(&mut reign, observer, "x");
    assert_eq!(told(&mut reign, observer), [leads(grant, b"of a")]);
    reign.disk_answers = false;
    reign.pass(TTL / 2);
    reign.renew(observer);
    reign.pass(TTL / 2 + ms(100));
    assert_eq!(told(&mut reign, observer), []);
    reign.commit();
    assert_eq!(told(&mut reign, observer), [None]);
}

#[test]
fn a_waiter_keeps_its_value_through_a_restart_and_gives_it_up_with_its_request() {
    let mut reign = begin();
    let [a, b] = [1, 2].map(|number| reign.session(number));
    reign.acquire(a, 1, stand("x", b"of a"));
    let one = reign.granted(a, 1);
    reign.acquire(b, 1, stand("x", b"of b"));
    let place = reign.place(b, 1);
    assert_eq!(reign.leader.observed().1, 2);
    reign.restart();
    let [a, b] = [a, b].map(|speaker| reign.again(speaker));
    let waiting =
        WaitingRequest { request: RequestId(1), place: Some(place), acquire: stand("x", b"of b") };
    reign.report_held(b, Vec::new(), vec![waiting]);
    reign.report_held(a, vec![led("x", one, b"of a")], Vec::new());
    observe(&mut reign, a, "x");
    assert_eq!(told(&mut reign, a), [leads(one, b"of a")]);
    reign.release(a, one.lease);
    let two = reign.granted(b, 1);
    assert_eq!(told(&mut reign, a), [leads(two, b"of b")]);
    reign.acquire(a, 2, stand("x", b"again"));
    assert_eq!(reign.leader.observed().1, 2);
    reign.cancel(a, 2);
    assert_eq!(reign.leader.observed().1, 1);
    reign.release(b, two.lease);
    assert_eq!(reign.leader.observed().1, 0);
}

#[test]
fn values_are_limited_in_length_and_to_what_one_holder_says() {
    let mut reign = begin();
    let a = reign.session(1);
    reign.acquire(a, 1, stand("x", &[b'x'; VALUE_BYTES_MAX]));
    let longest = reign.granted(a, 1);
    reign.release(a, longest.lease);
    let too_long = [b'x'; VALUE_BYTES_MAX + 1];
    reign.acquire(a, 2, stand("x", &too_long));
    assert_eq!(reign.refused(a, 2), Some(Refusal::NotSupported));
    reign.acquire(a, 3, Acquire { mode: Mode::Shared, ..stand("x", b"of a reader") });
    assert_eq!(reign.refused(a, 3), Some(Refusal::NotSupported));
    assert_eq!(reign.leader.observed().1, 0);
    let again = reign.again(a);
    reign.say(again, hello(again));
    let lease = led("x", longest, &too_long);
    reign.say(again, ClientMessage::Held { leases: vec![lease] });
    let closed = reign.closed.pop().expect("no leader grants such a one");
    assert!(matches!(closed, (_, Close::Protocol(_))), "{closed:?}");
}
