//! A client that died with the leader holds up the names that it has asked for, and no others.

use super::*;
use crate::error::LostReason;

/// What the journal has of a session's bound.
fn bound_of(reign: &ReignScene, speaker: Speaker) -> Bound {
    reign.durable.sessions[&SessionId(speaker.session)].bound
}

fn covers(reign: &ReignScene, speaker: Speaker, text: &str) -> bool {
    bound_of(reign, speaker).covers(NameHashes::of(&name(text)))
}

/// How many entries of sessions were written since the reign began.
fn entries(reign: &ReignScene) -> usize {
    reign.written.iter().filter(|record| matches!(record, Record::SessionOpened { .. })).count()
}

/// A client that holds `held/1` and waits for `waited`, and one that lives.
fn one_dies_with_the_leader() -> (ReignScene, Speaker, Speaker) {
    let mut reign = begin();
    let [dead, alive] = [reign.session(1), reign.session(2)];
    reign.acquire(dead, 1, acquire("held/1"));
    reign.granted(dead, 1);
    reign.acquire(alive, 1, acquire("waited"));
    reign.granted(alive, 1);
    reign.acquire(dead, 2, acquire("waited"));
    reign.place(dead, 2);
    reign.restart();
    let alive = reign.again(alive);
    reign.report(alive, &[], Vec::new());
    reign.take(alive);
    (reign, dead, alive)
}

#[test]
fn a_client_that_died_with_the_leader_holds_up_its_own_names_only() {
    let (mut reign, _, alive) = one_dies_with_the_leader();
    for (request, text) in [(2, "other"), (3, "held/2"), (4, "held")] {
        reign.acquire(alive, request, acquire(text));
        assert_eq!(reign.granted(alive, request).token.epoch(), 2, "{text}");
    }
    let c = reign.session(3);
    reign.acquire(c, 1, acquire("held/1"));
    reign.acquire(c, 2, try_acquire("waited"));
    reign.pass(ms(5000));
    reign.renew(alive);
    reign.renew(c);
    assert!(reign.try_granted(c, 1).is_err(), "its time to live is not over");
    reign.pass(ms(60));
    let heard = reign.take(c);
    let is_granted = |message: &LeaderMessage| matches!(message, LeaderMessage::Granted { .. });
    assert_eq!(heard.into_iter().filter(is_granted).count(), 2);
}

#[test]
fn questions_and_tries_wait_for_the_absent_sessions_that_have_asked_for_their_name() {
    let (mut reign, dead, alive) = one_dies_with_the_leader();
    let check = |reign: &mut ReignScene, text: &str| {
        let query = RequestId(77);
        reign.say(alive, ClientMessage::Check { query, name: name(text), token: Token::ZERO });
        let heard = reign.take(alive);
        heard.iter().any(|message| matches!(message, LeaderMessage::Checked { .. }))
    };
    assert!(check(&mut reign, "free"));
    assert!(!check(&mut reign, "held/1"));
    let query = RequestId(78);
    let token = Token::first_of(1).next().unwrap();
    reign.say(alive, ClientMessage::Break { query, name: name("held/1"), token });
    assert_eq!(reign.take(alive), []);
    reign.acquire(alive, 2, acquire("free"));
    reign.granted(alive, 2);
    let c = reign.session(3);
    reign.acquire(c, 1, try_acquire("free"));
    assert_eq!(reign.refused(c, 1), Some(Refusal::WouldBlock));
    reign.acquire(c, 2, try_acquire("held/1"));
    assert_eq!(reign.refused(c, 2), None);
    // It comes back after all, with what it had.
    let dead = reign.again(dead);
    let lease = LeaseId { epoch: 1, count: 1 };
    let back = HeldLease { name: name("held/1"), first: token, last: token, ..held_lease(lease) };
    reign.report_held(dead, vec![back], Vec::new());
    let heard = reign.take(alive);
    assert!(heard.contains(&LeaderMessage::Checked { query: RequestId(77), good: false }));
    assert!(heard.contains(&LeaderMessage::Broke { query, found: true }), "{heard:?}");
    let lost = LeaderMessage::Lost { lease, why: LostReason::Broken };
    assert!(reign.take(dead).contains(&lost));
}

#[test]
fn a_name_waits_for_each_absent_session_that_has_asked_for_it_until_its_end_is_durable() {
    let mut reign = begin();
    let all = [1, 2, 3].map(|number| reign.session(number));
    for speaker in [all[0], all[1]] {
        reign.has_asked_for(speaker, 1, "x");
    }
    reign.has_asked_for(all[1], 2, "y");
    reign.restart();
    let c = reign.session(4);
    reign.acquire(c, 1, acquire("x"));
    reign.acquire(c, 2, acquire("y"));
    reign.pass(ms(1000));
    let [b, _] = [reign.again(all[1]), c];
    reign.report(b, &[], Vec::new());
    let heard = reign.take(c);
    let of_y =
        |m: &LeaderMessage| matches!(m, LeaderMessage::Granted { request, .. } if request.0 == 2);
    assert!(heard.iter().any(of_y), "{heard:?}");
    reign.disk_answers = false;
    for _ in 0..5 {
        reign.pass(ms(900));
        reign.renew(b);
        reign.renew(c);
    }
    assert!(reign.try_granted(c, 1).is_err(), "its end is not durable");
    reign.commit();
    reign.granted(c, 1);
}

#[test]
fn a_grant_and_a_place_wait_for_the_bound_and_the_next_is_made_from_the_one_on_its_way() {
    let mut reign = begin();
    let [a, b] = [reign.session(1), reign.session(2)];
    reign.has_asked_for(a, 1, "w");
    reign.acquire(b, 1, acquire("z"));
    reign.granted(b, 1);
    reign.disk_answers = false;
    reign.acquire(a, 2, acquire("x"));
    reign.acquire(a, 3, acquire("y"));
    reign.acquire(a, 4, acquire("z"));
    assert_eq!(reign.take(a), [], "neither granted nor told its place");
    reign.commit_one();
    reign.drive();
    reign.granted(a, 2);
    reign.commit_one();
    reign.drive();
    reign.granted(a, 3);
    reign.commit_one();
    reign.drive();
    reign.place(a, 4);
    assert!(["w", "x", "y", "z"].iter().all(|text| covers(&reign, a, text)));
    // What it has asked for before costs no write.
    let before = reign.written.len();
    reign.acquire(a, 5, acquire("w"));
    reign.granted(a, 5);
    assert_eq!(reign.written.len(), before);
}

#[test]
fn a_session_costs_nine_entries_at_most_until_its_bound_is_narrowed() {
    let mut reign = begin();
    let a = reign.session(1);
    for request in 1..=100 {
        reign.has_asked_for(a, request, &format!("folder {request}/name"));
    }
    assert!(bound_of(&reign, a).is_everything());
    assert_eq!(entries(&reign), 9);
    // Once a minute, to what it holds and waits for.
    let b = reign.session(2);
    reign.acquire(b, 1, acquire("waited"));
    reign.acquire(a, 101, acquire("held"));
    reign.acquire(a, 102, acquire("waited"));
    for _ in 0..60 {
        reign.pass(ms(3000));
        reign.renew(a);
        reign.renew(b);
    }
    for (text, is_covered) in [("held", true), ("waited", true), ("folder 7/name", false)] {
        assert_eq!(covers(&reign, a, text), is_covered, "{text}");
    }
    assert_eq!(entries(&reign), 9 + 1 + 1, "b's, and the narrow one, once");
    // It is narrow from its handing over on: what it had before is asked for anew.
    reign.disk_answers = false;
    reign.acquire(a, 103, acquire("folder 7/name"));
    assert!(reign.try_granted(a, 103).is_err());
    reign.commit();
    reign.granted(a, 103);
}

#[test]
fn a_bound_is_not_narrowed_while_a_loss_is_unanswered() {
    let mut reign = begin();
    let [a, b] = [reign.session(1), reign.session(2)];
    for request in 1..=10 {
        reign.has_asked_for(a, request, &format!("{request}/name"));
    }
    reign.acquire(a, 11, acquire("lost"));
    let grant = reign.granted(a, 11);
    reign.acquire(a, 12, acquire("held")); // so that it is not idle
    let query = RequestId(9);
    reign.say(b, ClientMessage::Break { query, name: name("lost"), token: grant.token });
    for _ in 0..50 {
        reign.pass(ms(3000));
        reign.renew(a);
    }
    assert!(bound_of(&reign, a).is_everything());
    reign.release(a, grant.lease);
    for _ in 0..21 {
        reign.pass(ms(3000));
        reign.renew(a);
    }
    assert!(!bound_of(&reign, a).is_everything());
}

#[test]
fn a_lease_that_its_session_never_asked_for_is_not_confirmed_and_sounds_an_alarm() {
    let mut reign = begin();
    let a = reign.session(1);
    reign.acquire(a, 1, acquire("x"));
    let grant = reign.granted(a, 1);
    reign.restart();
    let a = reign.again(a);
    reign.report_held(a, vec![held("y", grant)], Vec::new());
    let token = grant.token;
    assert_eq!(reign.notices, [Notice::NotAskedFor { name: name("y"), token }]);
    assert_eq!(reign.closed(a), Some(Close::Unconfirmed));
    let a = reign.again(a);
    reign.report_held(a, vec![held("y", grant)], Vec::new());
    let lost = LeaderMessage::Lost { lease: grant.lease, why: LostReason::Forgotten };
    assert_eq!(reign.take(a)[0], lost);
}

#[test]
fn a_release_that_was_not_answered_may_be_of_a_name_that_the_bound_no_longer_has() {
    let mut reign = begin();
    let a = reign.session(1);
    for request in 1..=9 {
        reign.has_asked_for(a, request, &format!("{request}/name"));
    }
    reign.acquire(a, 10, acquire("x"));
    let grant = reign.granted(a, 10);
    reign.release(a, grant.lease);
    reign.acquire(a, 11, acquire("y"));
    for _ in 0..22 {
        reign.pass(ms(3000));
        reign.renew(a);
    }
    assert!(!covers(&reign, a, "x"));
    reign.restart();
    let a = reign.again(a);
    let leaving = Some(crate::error::Predecessor::Clean);
    reign.report_held(a, vec![HeldLease { leaving, ..held("x", grant) }], Vec::new());
    assert_eq!(reign.notices, []);
    assert!(matches!(reign.take(a)[..], [LeaderMessage::Welcome { .. }]));
}

#[test]
fn sessions_of_an_older_release_hold_up_everything() {
    let (mut reign, dead, alive) = one_dies_with_the_leader();
    let session = reign.durable.sessions.get_mut(&SessionId(dead.session)).unwrap();
    session.bound = Bound::EVERYTHING;
    reign.restart();
    let alive = reign.again(alive);
    reign.report(alive, &[], Vec::new());
    reign.acquire(alive, 2, acquire("other"));
    assert!(reign.try_granted(alive, 2).is_err());
}

#[test]
fn every_bound_is_everything_while_clients_are_waited_for_that_the_journal_does_not_know() {
    let (mut reign, _, _) = one_dies_with_the_leader();
    reign.durable.waits_for = Some(Duration::from_secs(10));
    reign.restart();
    let c = reign.session(3);
    reign.acquire(c, 1, acquire("other"));
    for _ in 0..10 {
        assert!(reign.try_granted(c, 1).is_err());
        reign.pass(ms(1000));
        reign.renew(c);
    }
    reign.pass(ms(101));
    reign.granted(c, 1);
}

#[test]
fn a_disk_without_room_refuses_the_name_that_is_new_and_the_journal_is_asked_anew() {
    let mut reign = begin();
    let a = reign.session(1);
    reign.has_asked_for(a, 1, "x");
    reign.disk_answers = false;
    reign.acquire(a, 2, acquire("y"));
    let pending = reign.pending.pop_front().expect("its bound is to be written");
    reign.leader.handle_unwritten(pending.unwritten(), reign.now);
    reign.disk_answers = true;
    reign.drive();
    assert_eq!(reign.refused(a, 2), Some(Refusal::DiskFull));
    reign.acquire(a, 3, acquire("x"));
    reign.granted(a, 3);
    reign.acquire(a, 4, acquire("y"));
    reign.granted(a, 4);
    assert!(covers(&reign, a, "y"));
}

#[test]
fn an_opening_without_room_is_made_up_for_by_the_entry_behind_it() {
    let mut reign = begin();
    let a = reign.session(1);
    reign.disk_answers = false;
    reign.acquire(a, 1, acquire("x"));
    reign.acquire(a, 2, acquire("y"));
    let pending = reign.pending.pop_front().expect("its opening is to be written");
    reign.leader.handle_unwritten(pending.unwritten(), reign.now);
    reign.disk_answers = true;
    reign.commit();
    let heard = reign.take(a);
    let is_granted = |message: &LeaderMessage| matches!(message, LeaderMessage::Granted { .. });
    assert_eq!(heard.iter().filter(|message| is_granted(message)).count(), 2, "{heard:?}");
    assert!(covers(&reign, a, "x") && covers(&reign, a, "y"));
}

/// ceph#25536: the window for reports ended while the leader itself was busy.
#[test]
fn a_leader_that_is_late_in_its_grace_gives_absent_sessions_their_time() {
    let (mut reign, absent, alive) = one_dies_with_the_leader();
    let held_before = {
        let token = Token::first_of(1).next().unwrap();
        let lease = LeaseId { epoch: 1, count: 1 };
        HeldLease { name: name("held/1"), first: token, last: token, ..held_lease(lease) }
    };
    reign.pass(ms(1000));
    reign.now = reign.now + Duration::from_secs(60);
    reign.leader.handle_timeout(reign.now);
    reign.drive();
    reign.renew(alive);
    reign.acquire(alive, 2, acquire("held/1"));
    assert!(reign.try_granted(alive, 2).is_err());
    let back = reign.again(absent);
    reign.report_held(back, vec![held_before], Vec::new());
    assert!(matches!(reign.take(back)[..], [LeaderMessage::Welcome { .. }]));
    assert!(reign.try_granted(alive, 2).is_err(), "it is held");
}

/// chimera#1075: a reclaim was accepted outside grace.
#[test]
fn a_lease_of_an_earlier_reign_is_not_confirmed_after_the_first_report() {
    let (mut reign, _, alive) = one_dies_with_the_leader();
    let token = Token::first_of(1).next().unwrap();
    let lease = LeaseId { epoch: 1, count: 2 };
    let late = HeldLease { name: name("waited"), first: token, last: token, ..held_lease(lease) };
    let alive = reign.again(alive);
    reign.report_held(alive, vec![late.clone()], Vec::new());
    assert_eq!(reign.closed(alive), Some(Close::Unconfirmed));
    let alive = reign.again(alive);
    reign.report_held(alive, vec![late], Vec::new());
    let lost = LeaderMessage::Lost { lease, why: LostReason::Forgotten };
    assert_eq!(reign.take(alive)[0], lost);
}
