//! Restarts: what a new reign knows of those before it, and which sessions it waits for.

use super::*;
use crate::error::{LostReason, Predecessor};

/// A holder and others, in the reign that is about to end.
fn holding(text: &str) -> (ReignScene, Speaker, HeardGrant) {
    let mut reign = begin();
    let a = reign.session(1);
    reign.acquire(a, 1, acquire(text));
    let grant = reign.granted(a, 1);
    (reign, a, grant)
}

fn is_welcome(message: &LeaderMessage) -> bool {
    matches!(message, LeaderMessage::Welcome { .. })
}

fn lost(lease: LeaseId, why: LostReason) -> LeaderMessage {
    LeaderMessage::Lost { lease, why }
}

fn is_good(reign: &mut ReignScene, speaker: Speaker, text: &str, token: Token) -> bool {
    let query = RequestId(99);
    reign.say(speaker, ClientMessage::Check { query, name: name(text), token });
    reign.take(speaker).contains(&LeaderMessage::Checked { query, good: true })
}

#[test]
fn with_all_sessions_back_holders_hold_waiters_keep_their_order_and_grants_go_on_at_once() {
    // redisson#4706, #5256; Chubby's rule
    let (mut reign, a, first) = holding("x");
    reign.has_asked_for(a, 2, "y");
    let (b, c) = (reign.session(2), reign.session(3));
    reign.acquire(b, 1, acquire("x"));
    let of_b = reign.place(b, 1);
    reign.acquire(c, 1, acquire("x"));
    let of_c = reign.place(c, 1);
    reign.restart();
    assert!(matches!(reign.written[..], [Record::TookOver { epoch: 2, .. }]));

    let (a, b, c) = (reign.again(a), reign.again(b), reign.again(c));
    // The last comes back first, with a second request, the place of which it never heard.
    let unplaced = waiting(2, acquire("x"), None);
    reign.report(c, &[], vec![unplaced, waiting(1, acquire("x"), Some(of_c))]);
    assert_eq!(reign.place(c, 1), of_c);
    reign.report(b, &[], vec![waiting(1, acquire("x"), Some(of_b))]);
    reign.acquire(b, 2, acquire("y"));
    assert!(reign.try_granted(b, 2).is_err(), "a session is still awaited");
    reign.report_held(a, vec![held("x", first)], Vec::new());
    assert!(matches!(reign.take(a)[..], [LeaderMessage::Welcome { epoch: 2, .. }]));
    assert_eq!(reign.granted(b, 2).token.epoch(), 2, "now all are back");
    assert!(is_good(&mut reign, a, "x", first.token));

    let mut last = (a, first);
    for (speaker, request) in [(b, 1), (c, 1), (c, 2)] {
        assert!(reign.try_granted(speaker, request).is_err());
        reign.release(last.0, last.1.lease);
        let next = reign.granted(speaker, request);
        assert!(next.token > last.1.token && next.lease > last.1.lease);
        last = (speaker, next);
    }
}

#[test]
fn a_session_that_does_not_come_back_delays_new_grants_by_its_time_to_live_at_most() {
    let (mut reign, a, _) = holding("x");
    reign.pass(ms(1000));
    reign.restart();
    // A new session is served, except for what waits for the end of grace.
    let (b, c) = (reign.session(2), reign.session(3));
    reign.acquire(b, 1, acquire("x"));
    reign.place(b, 1);
    reign.acquire(b, 2, acquire("y"));
    reign.cancel(b, 2);
    reign.acquire(c, 1, try_acquire("x"));
    let query = RequestId(8);
    reign.say(c, ClientMessage::Check { query, name: name("x"), token: Token::ZERO });
    let checked = LeaderMessage::Checked { query, good: false };
    for _ in 0..5 {
        assert!(reign.try_granted(b, 1).is_err());
        let heard = reign.take(c);
        assert!(!heard.iter().any(|m| matches!(m, LeaderMessage::Refused { .. }) || *m == checked));
        reign.pass(ms(1000));
        reign.renew(b);
        reign.renew(c);
    }
    reign.disk_answers = false;
    reign.pass(ms(60));
    assert!(reign.try_granted(b, 1).is_err(), "its end is not durable yet");
    reign.commit();
    let grant = reign.granted(b, 1);
    assert_eq!((grant.token.epoch(), grant.lease.epoch), (2, 2));
    let heard = reign.take(c);
    assert!(heard.contains(&checked));
    assert!(
        heard.iter().any(|m| matches!(m, LeaderMessage::Refused { why: Refusal::WouldBlock, .. })),
        "a try is answered at the end: {heard:?}"
    );
    // Too late.
    let a = reign.again(a);
    reign.report(a, &[LeaseId { epoch: 1, count: 1 }], Vec::new());
    assert_eq!(reign.take(a), [LeaderMessage::Gone { session: SessionId(1) }]);
}

/// As one whose credential is revoked meanwhile: the leader hears of the end of its connection alone.
#[test]
fn a_client_that_is_shut_out_during_grace_has_what_it_reported_until_its_time_to_live_and_no_more()
{
    for is_whole in [false, true] {
        let (mut reign, a, grant) = holding("x");
        let other = reign.session(2);
        reign.acquire(other, 1, acquire("y"));
        reign.granted(other, 1);
        reign.restart();
        // Grace waits for the other session, which has a lease as well.
        let a = reign.again(a);
        if is_whole {
            reign.report(a, &[grant.lease], Vec::new());
        } else {
            reign.say(a, hello(a));
        }
        assert!(reign.leader.is_in_grace());
        reign.disconnect(a);
        let c = reign.session(3);
        reign.acquire(c, 1, acquire("x"));
        // What comes on its connection after that is nothing's.
        reign.renew(a);
        reign.say(a, ClientMessage::Ready);
        for _ in 0..4 {
            reign.pass(ms(1000));
            reign.renew(c);
            assert!(reign.try_granted(c, 1).is_err(), "whole: {is_whole}");
        }
        reign.pass(ms(1100));
        reign.renew(c);
        assert!(!reign.leader.is_in_grace());
        assert!(reign.granted(c, 1).token > grant.token);
    }
}

#[test]
fn a_session_of_the_leaders_own_process_is_known_dead_with_it() {
    let mut reign =
        ReignScene::new(LeaderConfig { process: Some(ProcessMark(1)), ..config() }, fresh());
    let own = reign.session(1);
    reign.acquire(own, 1, acquire("x"));
    let grant = reign.granted(own, 1);
    let b = reign.session(2);
    reign.config.process = Some(ProcessMark(7));
    reign.restart();
    let ended = Record::SessionEnded { session: SessionId(1) };
    assert_eq!(reign.written.last(), Some(&ended));
    let b = Speaker { session: 12, ..b };
    let b = Speaker { connection: reign.connect(50), count: 1, ..b };
    reign.report(b, &[], vec![waiting(1, acquire("x"), None)]);
    assert!(reign.granted(b, 1).token > grant.token);
}

#[test]
fn an_unknown_session_is_gone_and_waits_on_as_another_at_its_place() {
    let (mut reign, _, _) = holding("x");
    reign.durable = Recovered { epoch: 1, ..fresh() };
    reign.restart();
    let a = Speaker { connection: reign.connect(1), session: 1, count: 7 };
    reign.report(a, &[LeaseId { epoch: 1, count: 1 }], Vec::new());
    assert_eq!(reign.take(a), [LeaderMessage::Gone { session: SessionId(1) }]);
    let b = reign.session(2);
    reign.acquire(b, 1, acquire("x"));
    let holder = reign.granted(b, 1);
    let c = reign.session(3);
    reign.acquire(c, 1, acquire("x"));
    let a = Speaker { session: 11, count: 1, ..a };
    let place = Place { epoch: 1, count: 9 };
    reign.report(a, &[], vec![waiting(5, acquire("x"), Some(place))]);
    reign.release(b, holder.lease);
    reign.granted(a, 5);
}

#[test]
fn a_session_that_is_gone_is_not_made_anew_by_its_earlier_messages() {
    let (mut reign, _, _) = holding("x");
    reign.durable = Recovered { epoch: 1, ..fresh() };
    reign.restart();
    let gone = [LeaderMessage::Gone { session: SessionId(5) }];
    let first = Speaker { connection: reign.connect(1), session: 5, count: 1 };
    let second = Speaker { connection: reign.connect(2), count: 2, ..first };
    reign.report(second, &[], vec![waiting(1, acquire("x"), None)]);
    assert_eq!(reign.take(second), gone);
    // What it said on its first connection was held up, and it has given up that request since.
    reign.report(first, &[], vec![waiting(1, acquire("x"), None)]);
    assert_eq!(reign.take(first), gone);
}

#[test]
fn a_release_that_was_not_answered_is_no_claim_and_says_how_the_lock_was_left() {
    // curator#1193, consul#4902
    let (mut reign, a, first) = holding("x");
    let b = reign.session(2);
    reign.acquire(b, 1, acquire("y"));
    let of_b = reign.granted(b, 1);
    reign.release(a, first.lease); // the answer is lost with the leader
    reign.acquire(b, 2, acquire("x"));
    let second = reign.granted(b, 2);
    reign.restart();
    let (a, b) = (reign.again(a), reign.again(b));
    let leaving = |held| HeldLease { leaving: Some(Predecessor::Panicked), ..held };
    let mine = vec![leaving(held("x", first))];
    reign.report_held(a, mine, Vec::new());
    reign.report_held(b, vec![leaving(held("y", of_b)), held("x", second)], Vec::new());
    reign.release(a, first.lease);
    let heard = reign.take(a);
    assert!(matches!(heard[..], [LeaderMessage::Welcome { .. }, LeaderMessage::Released { .. }]));
    assert_eq!(reign.notices, []);
    assert!(is_good(&mut reign, b, "x", second.token));
    reign.acquire(a, 5, acquire("y"));
    assert_eq!(reign.granted(a, 5).predecessor, Predecessor::Panicked);
    reign.acquire(a, 6, acquire("x"));
    reign.release(b, second.lease);
    assert_eq!(reign.granted(a, 6).predecessor, Predecessor::Clean);
}

#[test]
fn the_rest_of_a_block_that_was_given_back_claims_nothing() {
    for first_back in [0, 1] {
        let mut reign = begin();
        let (a, b) = (reign.session(1), reign.session(2));
        reign.acquire(a, 1, Acquire { keep: true, ..acquire("x") });
        let kept = reign.granted(a, 1);
        let used = kept.token.next().unwrap();
        let how = Predecessor::Clean;
        let release = ClientMessage::Release { lease: kept.lease, last_used: used, how };
        reign.say(a, release); // the answer is lost with the leader
        reign.acquire(b, 1, acquire("x"));
        let next = reign.granted(b, 1);
        assert_eq!(next.token, used.next().unwrap(), "the rest of the block was never granted");
        reign.restart();
        let (a, b) = (reign.again(a), reign.again(b));
        let last = Token::new(kept.token.get() + 1000).unwrap();
        let given_back = HeldLease { last, last_used: used, leaving: Some(how), ..held("x", kept) };
        let reports = [(a, given_back), (b, held("x", next))];
        for at in [first_back, 1 - first_back] {
            let (speaker, held) = reports[at].clone();
            reign.report_held(speaker, vec![held], Vec::new());
        }
        assert_eq!(reign.notices, []);
        assert!(is_good(&mut reign, b, "x", next.token));
    }
}

#[test]
fn what_was_taken_away_before_is_told_before_the_welcome_and_waited_for() {
    let (mut reign, a, first) = holding("x");
    let b = reign.session(2);
    reign.acquire(b, 1, acquire("y"));
    let of_b = reign.granted(b, 1);
    let query = RequestId(7);
    reign.say(b, ClientMessage::Break { query, name: name("x"), token: first.token });
    for answers in [true, false] {
        reign.restart();
        let (back, b) = (reign.again(a), reign.again(b));
        reign.report_held(b, vec![held("y", of_b)], vec![waiting(2, acquire("x"), None)]);
        reign.report_held(back, vec![held("x", first)], Vec::new());
        let heard = reign.take(back);
        assert_eq!(heard[0], lost(first.lease, LostReason::Broken), "{heard:?}");
        assert!(is_welcome(&heard[1]) && heard.len() == 2);
        assert!(!is_good(&mut reign, back, "x", first.token));
        assert!(reign.try_granted(b, 2).is_err(), "grace is over, but no session has answered");
        if answers {
            reign.release(back, first.lease);
        } else {
            // It goes on, but says nothing of it: what it was promised before counts.
            for _ in 0..5 {
                reign.pass(ms(1000));
                reign.renew(back);
                reign.renew(b);
                assert!(reign.try_granted(b, 2).is_err());
            }
            reign.pass(ms(60));
        }
        assert_eq!(reign.granted(b, 2).predecessor, Predecessor::Broken);
    }
}

#[test]
fn of_two_reported_holders_the_higher_token_wins_and_the_other_is_told() {
    for loser_first in [true, false] {
        let (mut reign, a, lower) = holding("x");
        let b = reign.session(2);
        reign.acquire(b, 1, acquire("x"));
        reign.cancel(b, 1);
        reign.acquire(b, 2, acquire("y"));
        let mut higher = reign.granted(b, 2);
        higher.token = higher.token.max(lower.token.next().unwrap());
        reign.restart();
        let (mut a, b) = (reign.again(a), reign.again(b));
        let both = [(a, lower), (b, higher)];
        reign.disk_answers = false;
        for (speaker, grant) in if loser_first { both } else { [both[1], both[0]] } {
            reign.report_held(speaker, vec![held("x", grant)], Vec::new());
        }
        let alarm = Notice::Conflict { name: name("x"), winner: higher.token, loser: lower.token };
        assert_eq!(reign.notices, [alarm]);
        assert!(matches!(reign.take(b)[..], [LeaderMessage::Welcome { .. }]));
        let told = lost(lower.lease, LostReason::Forgotten);
        if loser_first {
            assert!(matches!(reign.take(a)[..], [LeaderMessage::Welcome { .. }]));
            reign.say(a, ClientMessage::TopUp { lease: lower.lease }); // it has yet to hear
            assert_eq!(reign.take(a), []);
            reign.commit();
            assert_eq!(reign.take(a), [told]);
        } else {
            assert_eq!(reign.closed(a), Some(Close::Unconfirmed));
            reign.commit();
            a = reign.again(a);
            reign.report_held(a, vec![held("x", lower)], Vec::new());
            let heard = reign.take(a);
            assert_eq!(heard[0], told);
            assert!(is_welcome(&heard[1]));
        }
        reign.disk_answers = true;
        reign.take(b);
        assert!(is_good(&mut reign, b, "x", higher.token));
        // Until the loser's last promise has passed no other session gets it.
        reign.release(b, higher.lease);
        reign.acquire(b, 9, acquire("x"));
        reign.release(a, lower.lease);
        for _ in 0..5 {
            assert!(reign.try_granted(b, 9).is_err());
            reign.pass(ms(1000));
            reign.renew(a);
            reign.renew(b);
        }
        reign.pass(ms(60));
        reign.granted(b, 9);
        assert_eq!(reign.notices.len(), 1);
    }
}

#[test]
fn only_the_first_whole_report_of_a_reign_tells_anything_new_and_only_of_earlier_reigns() {
    let (mut reign, a, first) = holding("x");
    let b = reign.session(2);
    reign.acquire(b, 1, acquire("y"));
    let of_b = reign.granted(b, 1);
    reign.restart();
    let half = reign.again(a);
    reign.say(half, hello(half));
    reign.say(half, ClientMessage::Held { leases: vec![held("x", first)] });
    let a = reign.again(half);
    reign.report_held(a, vec![held("x", first)], Vec::new());
    // A lease that this reign or a later one would make.
    let forged = HeldLease { lease: LeaseId { epoch: 2, count: 1 }, ..held("z", of_b) };
    let b = reign.again(b);
    reign.report_held(b, vec![held("y", of_b), forged.clone()], Vec::new());
    assert_eq!(reign.closed(b), Some(Close::Unconfirmed));
    let b = reign.again(b);
    reign.report_held(b, vec![held("y", of_b), forged.clone()], Vec::new());
    let heard = reign.take(b);
    assert_eq!(heard[0], lost(forged.lease, LostReason::Forgotten));
    assert!(is_welcome(&heard[1]));
    assert!(is_good(&mut reign, b, "y", of_b.token));
    // Not in its second one.
    let late = HeldLease { lease: LeaseId { epoch: 1, count: 9 }, ..held("z", of_b) };
    let again = reign.again(a);
    reign.report_held(again, vec![held("x", first), late.clone()], Vec::new());
    assert_eq!(reign.closed(again), Some(Close::Unconfirmed));
    let again = reign.again(again);
    reign.report_held(again, vec![held("x", first), late.clone()], Vec::new());
    let heard = reign.take(again);
    assert_eq!(heard[0], lost(late.lease, LostReason::Forgotten));
    assert!(is_good(&mut reign, again, "x", first.token));
}

#[test]
fn one_that_the_disk_does_not_know_has_nothing_and_nothing_is_written_of_it() {
    let mut reign = begin();
    let a = reign.session(1);
    reign.written.clear();
    let again = reign.again(a);
    reign.report(again, &[LeaseId { epoch: 1, count: 1 }], Vec::new());
    let gone = LeaderMessage::Gone { session: SessionId(1) };
    assert_eq!((reign.take(a), reign.take(again)), (vec![gone.clone()], vec![gone]));
    assert_eq!(reign.written, []);
}

#[test]
fn what_the_first_report_does_not_name_is_free() {
    let (mut reign, a, first) = holding("x");
    reign.restart();
    let a = reign.again(a);
    reign.report(a, &[], vec![waiting(1, acquire("x"), None)]);
    assert!(reign.granted(a, 1).token > first.token);
}

#[test]
fn what_is_left_of_an_at_most_goes_on() {
    let mut reign = begin();
    let a = reign.session(1);
    reign.acquire(a, 1, Acquire { at_most: Some(ms(3000)), ..acquire("x") });
    let grant = reign.granted(a, 1);
    reign.pass(ms(1000));
    reign.restart();
    let a = reign.again(a);
    let left = HeldLease { at_most: Some(ms(2000)), since: ms(1000), ..held("x", grant) };
    reign.report_held(a, vec![left], Vec::new());
    reign.take(a);
    reign.say(a, ClientMessage::List { query: RequestId(1), after: None, limit: 9 });
    let heard = reign.take(a);
    let [LeaderMessage::Listed { locks, .. }] = &heard[..] else { panic!("{heard:?}") };
    let holder = locks[0].holder.as_ref().unwrap();
    assert_eq!((holder.since, holder.token), (ms(1000), grant.token));
    assert_eq!(holder.identity.label, "session 1");
    reign.pass(ms(2000));
    assert_eq!(reign.take(a), []);
    reign.pass(ms(30));
    assert_eq!(reign.take(a), [lost(grant.lease, LostReason::HeldTooLong)]);
}

#[test]
fn a_reclaimed_lock_is_broken_by_its_token_like_any_other() {
    let (mut reign, a, grant) = holding("x");
    reign.restart();
    let a = reign.again(a);
    reign.report_held(a, vec![held("x", grant)], Vec::new());
    let b = reign.session(2);
    reign.acquire(b, 1, acquire("x"));
    let query = RequestId(7);
    reign.take(a);
    reign.say(b, ClientMessage::Break { query, name: name("x"), token: grant.token });
    assert_eq!(reign.take(a), [lost(grant.lease, LostReason::Broken)]);
    reign.release(a, grant.lease);
    assert_eq!(reign.granted(b, 1).predecessor, Predecessor::Broken);
}

#[test]
fn a_leader_killed_in_its_grace_leaves_all_as_it_was() {
    let (mut reign, a, grant) = holding("x");
    let b = reign.session(2);
    reign.acquire(b, 1, acquire("x"));
    let place = reign.place(b, 1);
    let mut speaker = (a, b);
    for epoch in 2..6 {
        reign.restart();
        speaker = (reign.again(speaker.0), reign.again(speaker.1));
        reign.report(speaker.1, &[], vec![waiting(1, acquire("x"), Some(place))]);
        assert!(reign.try_granted(speaker.1, 1).is_err());
        if epoch % 2 == 0 {
            reign.report_held(speaker.0, vec![held("x", grant)], Vec::new());
        }
    }
    let a = reign.again(speaker.0);
    reign.report_held(a, vec![held("x", grant)], Vec::new());
    reign.release(a, grant.lease);
    assert!(reign.granted(speaker.1, 1).token > grant.token);
}

#[test]
fn limits_refuse_no_report() {
    let mut reign = begin();
    let a = reign.session(1);
    let grants: Vec<_> = (1..=4)
        .map(|request| {
            reign.acquire(a, request, acquire(&format!("n{request}")));
            reign.granted(a, request)
        })
        .collect();
    reign.config.leases_per_session_max = 2;
    reign.config.sessions_max = 0;
    reign.config.time_to_live_max = Duration::from_secs(1);
    reign.restart();
    let a = reign.again(a);
    let all = (1..=4).map(|n| held(&format!("n{n}"), grants[n - 1])).collect();
    reign.report_held(a, all, Vec::new());
    let heard = reign.take(a);
    assert!(
        matches!(heard[..], [LeaderMessage::Welcome { time_to_live: TTL, .. }]),
        "its time to live is that of its opening: {heard:?}"
    );
    assert_eq!(reign.leader.held(), 4);
}

#[test]
fn a_session_that_wants_nothing_for_a_minute_is_forgotten_by_the_disk_and_opened_again() {
    let (mut reign, a, grant) = holding("x");
    let lives_on = |reign: &mut ReignScene, seconds| {
        for _ in 0..seconds {
            reign.pass(ms(1000));
            reign.renew(a);
        }
        reign.take(a);
    };
    lives_on(&mut reign, 70);
    reign.release(a, grant.lease);
    let opened = |reign: &ReignScene| reign.durable.sessions.contains_key(&SessionId(1));
    lives_on(&mut reign, 59);
    assert!(opened(&reign));
    reign.disk_answers = false;
    lives_on(&mut reign, 5);
    // A request that comes before the disk has forgotten it opens it again.
    reign.acquire(a, 2, acquire("x"));
    reign.take(a);
    reign.commit();
    let grant = reign.granted(a, 2);
    assert!(opened(&reign));
    reign.release(a, grant.lease);
    reign.disk_answers = true;
    lives_on(&mut reign, 65);
    assert!(!opened(&reign));
    reign.acquire(a, 3, acquire("x"));
    let grant = reign.granted(a, 3);
    assert!(opened(&reign));
    reign.release(a, grant.lease);
    lives_on(&mut reign, 65);
    assert!(!opened(&reign));
    // No session waits for it any more.
    reign.restart();
    let b = reign.session(2);
    reign.acquire(b, 1, acquire("x"));
    reign.granted(b, 1);
}

#[test]
fn what_was_left_of_a_block_that_is_being_given_back_belongs_to_its_successor() {
    // The release was read and the next holder granted; only the answer to it died with the leader.
    for successor_first in [false, true] {
        let mut reign = begin();
        let (a, b) = (reign.session(1), reign.session(2));
        reign.acquire(a, 1, Acquire { keep: true, ..acquire("x") });
        let (lease, block) = reign.block(a, 1);
        let block = HeldLease { name: name("x"), ..block };
        let last_used = block.first.next().unwrap();
        let how = Predecessor::Clean;
        reign.say(a, ClientMessage::Release { lease, last_used, how });
        reign.acquire(b, 1, acquire("x"));
        let grant = reign.granted(b, 1);
        assert_eq!(Some(grant.token), last_used.next());
        reign.restart();

        let (a, b) = (reign.again(a), reign.again(b));
        let left = HeldLease { last_used, leaving: Some(how), ..block.clone() };
        let reports = [(a, left), (b, held("x", grant))];
        let order = if successor_first { [1, 0] } else { [0, 1] };
        for (speaker, held) in order.map(|at| reports[at].clone()) {
            reign.report_held(speaker, vec![held], Vec::new());
        }
        assert_eq!(reign.notices, [], "two claimed it");
        assert!(is_good(&mut reign, b, "x", grant.token));
    }
}

/// One of them can only be forged, or left over from a history that was lost.
#[test]
fn of_two_leases_of_one_lock_in_one_report_the_one_of_the_later_token_is_confirmed() {
    for later_lease_first in [true, false] {
        let (mut reign, a, earlier) = holding("x");
        reign.restart();
        let LeaseId { epoch, count } = earlier.lease;
        let lease = LeaseId { epoch, count: if later_lease_first { count - 1 } else { count + 1 } };
        let later = HeardGrant { lease, token: earlier.token.next().unwrap(), ..earlier };
        let both = || [earlier, later].map(|grant| held("x", grant)).to_vec();
        let a = reign.again(a);
        reign.report_held(a, both(), Vec::new());
        assert_eq!(reign.closed(a), Some(Close::Unconfirmed));
        let a = reign.again(a);
        reign.report_held(a, both(), Vec::new());
        assert_eq!(reign.take(a)[0], lost(earlier.lease, LostReason::Forgotten));
        assert!(is_good(&mut reign, a, "x", later.token));
        assert!(!is_good(&mut reign, a, "x", earlier.token));
        assert!(
            matches!(reign.notices[..], [Notice::Conflict { loser, .. }] if loser == earlier.token)
        );
    }
}
