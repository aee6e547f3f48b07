//! Waiters: their order, their patience, their end.

use super::*;
use crate::{
    error::Predecessor,
    proto::{
        rights::{ConnectedClient, Rights, Role},
        wire::Extras,
    },
};

#[test]
fn the_queue_is_first_come_first_served_across_sessions() {
    // python-redis-lock#58, #104
    let mut reign = begin();
    let (a, b, c) = (reign.session(1), reign.session(2), reign.session(3));
    reign.acquire(a, 1, acquire("x"));
    let mut holder = (a, 1, reign.granted(a, 1));
    for (speaker, request) in [(b, 1), (c, 1), (a, 2), (b, 2)] {
        reign.acquire(speaker, request, acquire("x"));
    }
    for (speaker, request) in [(b, 1), (c, 1), (a, 2), (b, 2)] {
        reign.release(holder.0, holder.2.lease);
        holder = (speaker, request, reign.granted(speaker, request));
        // A newcomer does not overtake.
        reign.acquire(c, 10 + holder.2.token.get(), try_acquire("x"));
        assert!(matches!(reign.take(c)[..], [.., LeaderMessage::Refused { .. }]));
    }
}

#[test]
fn a_release_wakes_exactly_one() {
    // consul#7523
    let mut reign = begin();
    let (a, b, c) = (reign.session(1), reign.session(2), reign.session(3));
    reign.acquire(a, 1, acquire("x"));
    let lease = reign.granted(a, 1).lease;
    reign.acquire(b, 1, acquire("x"));
    reign.acquire(c, 1, acquire("x"));
    reign.take(b);
    reign.take(c);
    reign.release(a, lease);
    reign.granted(b, 1);
    assert_eq!(reign.take(c), []);
}

#[test]
fn a_try_waits_for_a_slow_disk_and_for_a_keeper_only_so_long() {
    let mut reign = begin();
    let (a, b) = (reign.session(1), reign.session(2));
    reign.disk_answers = false;
    reign.acquire(a, 1, Acquire { wait: Wait::No, keep: true, ..acquire("x") });
    reign.pass(ms(3000));
    assert_eq!(reign.refused(a, 1), None, "it is free");
    reign.disk_answers = true;
    reign.commit();
    reign.renew(a);
    reign.acquire(b, 1, try_acquire("x")); // the keeper says nothing to its recall
    reign.pass(ms(400));
    assert_eq!(reign.refused(b, 1), None);
    reign.pass(ms(200));
    assert_eq!(reign.refused(b, 1), Some(Refusal::WouldBlock));
}

#[test]
fn a_recall_is_said_again_on_the_next_connection_also_of_a_grant_that_was_not_heard() {
    let recall = |lease| LeaderMessage::Recall { lease };
    for has_heard in [true, false] {
        let mut reign = begin();
        let (a, b) = (reign.session(1), reign.session(2));
        reign.acquire(a, 1, Acquire { keep: true, ..acquire("x") });
        let lease = reign.granted(a, 1).lease;
        reign.acquire(b, 1, acquire("x"));
        assert_eq!(reign.take(a), [recall(lease)]);
        let a = reign.again(a);
        if has_heard {
            reign.report(a, &[lease], Vec::new());
        } else {
            reign.report(a, &[], vec![waiting(1, acquire("x"), None)]);
        }
        assert_eq!(reign.take(a).last(), Some(&recall(lease)));
        reign.release(a, lease);
        reign.granted(b, 1);
    }
}

#[test]
fn a_waiter_with_a_lost_connection_keeps_its_place_and_is_passed_over() {
    // redisson#3004, #6150
    let mut reign = begin();
    let (a, b, c) = (reign.session(1), reign.session(2), reign.session(3));
    reign.acquire(a, 1, acquire("x"));
    let first = reign.granted(a, 1);
    reign.acquire(b, 1, acquire("x"));
    reign.acquire(c, 1, acquire("x"));
    reign.acquire(c, 2, acquire("x"));
    let place = reign.place(b, 1);
    reign.disconnect(b);
    reign.release(a, first.lease);
    let second = reign.granted(c, 1);
    let b = reign.again(b);
    reign.report(b, &[], vec![waiting(1, acquire("x"), Some(place))]);
    assert_eq!(reign.place(b, 1), place);
    reign.release(c, second.lease);
    reign.granted(b, 1);
}

#[test]
fn a_waiter_of_an_expired_session_is_not_granted() {
    // etcd#11456
    let mut reign = begin();
    let (a, b) = (reign.session(1), reign.session(2));
    reign.acquire(a, 1, acquire("x"));
    let first = reign.granted(a, 1);
    reign.acquire(b, 1, acquire("x"));
    reign.take(b);
    for _ in 0..6 {
        reign.pass(ms(1000));
        reign.renew(a);
    }
    reign.release(a, first.lease);
    assert_eq!(reign.take(b), [LeaderMessage::Gone { session: SessionId(2) }]);
    assert_eq!(reign.leader.held(), 0);
}

#[test]
fn a_free_lock_is_not_granted_on_a_deadline_that_has_just_passed() {
    // etcd#11456, before the leader's own timer has rung
    let mut reign = begin();
    let (a, b) = (reign.session(1), reign.session(2));
    reign.acquire(a, 1, acquire("x"));
    let first = reign.granted(a, 1);
    reign.pass(ms(50));
    reign.renew(a);
    reign.acquire(b, 1, acquire("x"));
    reign.take(b);
    reign.pass(LONG - ms(60));
    reign.now = reign.now + ms(15);
    reign.release(a, first.lease);
    assert_eq!(reign.take(b), [LeaderMessage::Gone { session: SessionId(2) }]);
}

#[test]
fn a_repeated_request_waits_once() {
    // go-zookeeper#237, accumulo#1086, databend#18576
    let mut reign = begin();
    let (a, b) = (reign.session(1), reign.session(2));
    reign.acquire(a, 1, acquire("x"));
    let first = reign.granted(a, 1);
    // The grant was lost with its connection: it is told again, and does not wait for itself.
    let a = reign.again(a);
    reign.report(a, &[], vec![waiting(1, acquire("x"), None)]);
    assert_eq!(reign.granted(a, 1), first);
    reign.acquire(a, 1, acquire("x"));
    assert_eq!(reign.take(a), []);
    // So is a place.
    reign.acquire(b, 1, acquire("x"));
    reign.acquire(b, 1, acquire("x"));
    let place = reign.place(b, 1);
    let b = reign.again(b);
    reign.report(b, &[], vec![waiting(1, acquire("x"), Some(place))]);
    assert_eq!(reign.place(b, 1), place);
    reign.release(a, first.lease);
    let lease = reign.granted(b, 1).lease;
    reign.release(b, lease);
    assert_eq!(reign.leader.held(), 0);
}

#[test]
fn a_cancelled_waiter_is_not_granted() {
    // atlasdb#4933, zk-ruby#49
    let mut reign = begin();
    let (a, b, c) = (reign.session(1), reign.session(2), reign.session(3));
    reign.acquire(a, 1, acquire("x"));
    let first = reign.granted(a, 1);
    reign.acquire(b, 1, acquire("x"));
    reign.acquire(c, 1, acquire("x"));
    reign.take(b);
    reign.cancel(b, 1);
    assert!(!reign.leader.waits(SessionId(2), RequestId(1)));
    reign.release(a, first.lease);
    assert_eq!(reign.take(b), []);
    let second = reign.granted(c, 1);
    // One that was granted already is the client's to hand back.
    reign.cancel(c, 1);
    assert_eq!(reign.leader.held(), 1);
    reign.release(c, second.lease);
    assert_eq!(reign.leader.held(), 0);
}

#[test]
fn a_wait_that_ends_names_the_holder() {
    // hazelcast#1055, terraform#30650, cargo#15094
    let config =
        LeaderConfig { waiters_per_session_max: 200, leases_per_session_max: 200, ..config() };
    let mut reign = ReignScene::new(config, fresh());
    let (a, b, c) = (reign.session(1), reign.session(2), reign.session(3));
    reign.acquire(a, 1, acquire("x"));
    let grant = reign.granted(a, 1);
    reign.pass(ms(500));
    reign.acquire(b, 1, Acquire { wait: Wait::For(ms(300)), ..acquire("x") });
    reign.acquire(c, 1, Acquire { wait: Wait::For(ms(200)), ..acquire("x") });
    reign.acquire(b, 2, try_acquire("x"));
    let heard = reign.take(b);
    let [LeaderMessage::Refused { why: Refusal::WouldBlock, holder: Some(now), .. }] = &heard[1..]
    else {
        panic!("{heard:?}")
    };
    assert_eq!((&*now.identity.label, now.token), ("session 1", grant.token));
    assert!(now.since >= ms(500) && now.ahead.is_none(), "a try waits behind none");
    let ahead = |heard: Vec<LeaderMessage>| {
        let last = heard.into_iter().next_back();
        let Some(LeaderMessage::Refused { holder: Some(then), .. }) = last else {
            panic!("{last:?}")
        };
        then.ahead
    };
    reign.pass(ms(200));
    assert_eq!(ahead(reign.take(c)), Some(1));
    reign.pass(ms(100));
    let heard = reign.take(b);
    let [LeaderMessage::Refused { why: Refusal::TimedOut, holder: Some(then), .. }] = &heard[..]
    else {
        panic!("{heard:?}")
    };
    assert!(then.since >= ms(800));
    assert_eq!(then.ahead, Some(0), "it was the next");
    // A crowd whose time is over at once is not counted through for each of it.
    for request in 1..=150 {
        reign.acquire(c, 1 + request, Acquire { wait: Wait::Forever, ..acquire("x") });
    }
    reign.acquire(b, 3, Acquire { wait: Wait::For(ms(300)), ..acquire("x") });
    reign.pass(ms(300));
    assert_eq!(ahead(reign.take(b)), Some(100));
}

#[test]
fn all_holders_and_waiters_are_listed_page_by_page() {
    let mut reign = begin();
    let (a, b) = (reign.session(1), reign.session(2));
    for (request, text) in (1..).zip(["c", "a", "b"]) {
        reign.acquire(a, request, acquire(text));
    }
    reign.acquire(b, 1, acquire("b"));
    reign.take(a);
    reign.disconnect(b);
    let mut list = |after: Option<&str>| {
        let after = after.map(name);
        reign.say(a, ClientMessage::List { query: RequestId(9), after, limit: 2 });
        let mut heard = reign.take(a);
        let Some(LeaderMessage::Listed { locks, more, .. }) = heard.pop() else {
            panic!("{heard:?}")
        };
        let names: Vec<_> = locks.iter().map(|lock| lock.name.to_string()).collect();
        (names.join(" "), locks.iter().map(|l| l.waiters.len()).sum::<usize>(), more)
    };
    assert_eq!(list(None), ("a b".to_owned(), 1, true));
    assert_eq!(list(Some("b")), ("c".to_owned(), 0, false));
}

#[test]
fn a_leader_refuses_what_is_beyond_its_limits_and_nothing_that_waits_already() {
    let mut reign = begin();
    let a = reign.session(1);
    let others = [2, 3, 4].map(|number| reign.session(number));
    for request in 1..=4 {
        reign.acquire(a, request, acquire(&format!("{request}")));
    }
    reign.take(a);
    reign.acquire(a, 5, acquire("5"));
    assert_eq!(reign.refused(a, 5), Some(Refusal::TooManyLeases));
    for request in 1..=4 {
        reign.acquire(others[0], request, acquire("1"));
    }
    let place = reign.place(others[0], 1);
    reign.acquire(others[0], 5, acquire("1"));
    assert_eq!(reign.refused(others[0], 5), Some(Refusal::TooManyWaiters));
    reign.acquire(others[1], 1, acquire("7"));
    reign.granted(others[1], 1);
    reign.acquire(others[2], 1, acquire("8"));
    assert_eq!(reign.refused(others[2], 1), Some(Refusal::TooManySessions));
    // Those that wait go on waiting; that a fifth has a place, too, is no reason to let it in.
    let back = reign.again(others[0]);
    let requests = (1..=5).map(|request| waiting(request, acquire("1"), Some(place))).collect();
    reign.report(back, &[], requests);
    let heard = reign.take(back);
    let queued = |m: &&LeaderMessage| matches!(m, LeaderMessage::Queued { .. });
    assert_eq!(heard.iter().filter(queued).count(), 4);
    let refused = |m: &LeaderMessage| match *m {
        LeaderMessage::Refused { request, why, .. } => Some((request, why)),
        _ => None,
    };
    let refused: Vec<_> = heard.iter().filter_map(refused).collect();
    assert_eq!(refused, [(RequestId(5), Refusal::TooManyWaiters)]);
}

#[test]
fn places_do_not_bring_in_more_requests_than_a_session_may_have() {
    let mut reign = begin();
    let holder = reign.session(9);
    reign.acquire(holder, 1, acquire("x"));
    let a = reign.session(1);
    reign.acquire(a, 1, acquire("x"));
    let place = reign.place(a, 1);
    let queued = |heard: Vec<LeaderMessage>| -> Vec<u64> {
        let request = |message| match message {
            LeaderMessage::Queued { request, .. } => Some(request.0),
            _ => None,
        };
        let mut queued: Vec<_> = heard.into_iter().filter_map(request).collect();
        queued.sort_unstable();
        queued
    };
    // As many as a session may have, whatever places it says they have.
    let mut a = a;
    let request = |number| waiting(number, acquire("x"), Some(place));
    for _ in 0..2 {
        a = reign.again(a);
        reign.report(a, &[], (1..=30).map(request).collect());
        assert_eq!(queued(reign.take(a)), [1, 2, 3, 4]);
    }
    // What may be new does not keep out what may have been accepted before.
    let b = Speaker { connection: reign.connect(700), session: 7, count: 1 };
    let placed = |number| waiting(number, acquire("x"), (number > 3).then_some(place));
    reign.report(b, &[], (1..=8).map(placed).collect());
    assert_eq!(queued(reign.take(b)), [4, 5, 6, 7]);
    // One that the next reign waits for had four that waited, and perhaps four that were granted
    // without its knowledge; and no more the next time.
    reign.restart();
    for _ in 0..2 {
        a = reign.again(a);
        reign.report(a, &[], (1..=30).map(request).collect());
        assert_eq!(queued(reign.take(a)), [1, 2, 3, 4, 5, 6, 7, 8]);
    }
}

#[test]
fn a_time_to_live_out_of_bounds_is_refused_and_one_in_bounds_stays() {
    let mut reign = begin();
    let with = |speaker, wanted| {
        let mut hello = hello(speaker);
        let ClientMessage::Hello { time_to_live, .. } = &mut hello else { unreachable!() };
        *time_to_live = wanted;
        hello
    };
    for (number, time_to_live) in [(1, ms(999)), (2, ms(60_001)), (3, Duration::MAX)] {
        let speaker =
            Speaker { connection: reign.connect(number), session: number.into(), count: 1 };
        reign.say(speaker, with(speaker, time_to_live));
        reign.say(speaker, ClientMessage::Ready);
        reign.acquire(speaker, 1, acquire("x"));
        assert_eq!(reign.refused(speaker, 1), Some(Refusal::TimeToLive));
    }
    let speaker = reign.session(9);
    let speaker = reign.again(speaker);
    reign.say(speaker, with(speaker, ms(30_000)));
    reign.say(speaker, ClientMessage::Ready);
    let heard = reign.take(speaker);
    assert!(matches!(heard[..], [LeaderMessage::Welcome { time_to_live: TTL, .. }]), "{heard:?}");
}

/// Raised to what a lease needs to outlive a change of reign, it was more than the credential allows: with
/// a short `--ttl-max` none could be used at a leader that others may follow.
#[test]
fn a_credential_bounds_the_time_to_live_that_is_asked_for_and_not_the_raised_one() {
    let config = LeaderConfig { reign_lasts: Some(ms(1000)), sessions_max: 6, ..config() };
    let mut reign = ReignScene::new(config, fresh());
    let mut asks = |number: u64, wanted| {
        let connection = ConnectionId(number * 100);
        let rights = Some(Arc::new(Rights::new(Role::Lock, Vec::new(), Some(ms(3000)))));
        let client = ConnectedClient { rights, ..ClientId(number.into()).into() };
        reign.leader.handle_connected(connection, client, reign.now);
        let speaker = Speaker { connection, session: number.into(), count: 1 };
        let mut hello = hello(speaker);
        let ClientMessage::Hello { time_to_live, .. } = &mut hello else { unreachable!() };
        *time_to_live = wanted;
        reign.say(speaker, hello);
        reign.say(speaker, ClientMessage::Ready);
        let heard = reign.take(speaker);
        let [LeaderMessage::Welcome { time_to_live, .. }] = heard[..] else { panic!("{heard:?}") };
        reign.acquire(speaker, 1, acquire(&number.to_string()));
        match reign.refused(speaker, 1) {
            Some(why) => Err(why),
            None => Ok(time_to_live),
        }
    };
    assert_eq!(asks(1, ms(3000)), Ok(ms(4000)));
    assert_eq!(asks(2, ms(1000)), Ok(ms(4000)));
    assert_eq!(asks(3, ms(3001)), Err(Refusal::TimeToLive));
    assert_eq!(asks(4, ms(4000)), Err(Refusal::TimeToLive));
    // The leader's own limit is one of what is in force.
    reign.config.time_to_live_max = ms(3500);
    reign.restart();
    let speaker = reign.session(9);
    reign.acquire(speaker, 1, acquire("x"));
    assert_eq!(reign.refused(speaker, 1), Some(Refusal::TimeToLive));
}

#[test]
fn all_sessions_together_have_no_more_than_the_leader_allows_and_lose_nothing_by_it() {
    let mut reign = ReignScene::new(LeaderConfig { claims_max: 6, ..config() }, fresh());
    let [a, b, c] = [1, 2, 3].map(|number| reign.session(number));
    let grants: Vec<_> = (1..=3)
        .map(|request| {
            reign.acquire(a, request, acquire(&format!("{request}")));
            reign.granted(a, request)
        })
        .collect();
    reign.acquire(b, 1, acquire("1"));
    let first = reign.place(b, 1);
    reign.acquire(b, 2, acquire("2"));
    let second = reign.place(b, 2);
    reign.acquire(c, 1, acquire("9"));
    let of_c = reign.granted(c, 1);
    for (request, wish) in (2..).zip([acquire("8"), acquire("1"), try_acquire("9")]) {
        reign.acquire(c, request, wish);
        let heard = reign.take(c);
        let why = Refusal::TooManyClaims;
        assert!(
            matches!(heard[..], [LeaderMessage::Refused { why: told, .. }] if told == why),
            "{heard:?}"
        );
    }
    // A reign that allows fewer takes in all that was given before it.
    reign.config.claims_max = 4;
    reign.restart();
    let [a, b, c] = [a, b, c].map(|speaker| reign.again(speaker));
    let leases = [("1", grants[0]), ("2", grants[1]), ("3", grants[2])];
    reign.report_held(a, leases.map(|(text, grant)| held(text, grant)).into(), Vec::new());
    let waiting = vec![
        waiting(1, acquire("1"), Some(first)),
        waiting(2, acquire("2"), Some(second)),
        waiting(3, acquire("3"), None),
    ];
    reign.report(b, &[], waiting);
    assert_eq!(reign.refused(b, 3), Some(Refusal::TooManyClaims), "this one is new");
    reign.report_held(c, vec![held("9", of_c)], Vec::new());
    assert_eq!(reign.leader.held(), 4);
    for (request, grant) in [(1, grants[0]), (2, grants[1])] {
        reign.release(a, grant.lease);
        reign.granted(b, request);
    }
    // With those of `b` and one of each other there are four.
    reign.acquire(a, 8, acquire("8"));
    assert_eq!(reign.refused(a, 8), Some(Refusal::TooManyClaims));
    reign.say(b, ClientMessage::Goodbye);
    reign.acquire(a, 9, acquire("8"));
    reign.granted(a, 9);
}

#[test]
fn the_fewer_hold_or_wait_the_more_often_they_renew() {
    let mut reign = ReignScene::new(LeaderConfig { sessions_max: 10_000, ..config() }, fresh());
    let renew_every = |reign: &mut ReignScene, speaker| {
        reign.renew(speaker);
        match reign.take(speaker).pop() {
            Some(LeaderMessage::Renewed { renew_every, .. }) => renew_every,
            other => panic!("{other:?}"),
        }
    };
    let a = reign.session(1);
    assert_eq!(renew_every(&mut reign, a), TTL / 3);
    reign.acquire(a, 1, acquire("x"));
    assert_eq!(renew_every(&mut reign, a), ms(100));
    for number in 2..500 {
        let speaker = reign.session(number);
        reign.acquire(speaker, 1, acquire("x"));
    }
    assert_eq!(renew_every(&mut reign, a), ms(499));
    for number in 500..4000 {
        let speaker = reign.session(number);
        reign.acquire(speaker, 1, acquire("x"));
    }
    assert_eq!(renew_every(&mut reign, a), TTL / 3);
}

/// Its client judges by that how long the leader may be silent, should it ask for something before it renews.
#[test]
fn a_new_session_of_a_leader_that_others_may_follow_is_told_the_quick_pace() {
    for (reign_lasts, told) in [(None, TTL / 3), (Some(ms(1_000)), ms(250))] {
        let mut reign = ReignScene::new(LeaderConfig { reign_lasts, ..config() }, fresh());
        let connection = reign.connect(100);
        let speaker = Speaker { connection, session: 1, count: 1 };
        reign.report(speaker, &[], Vec::new());
        let welcomed = reign.take(speaker).into_iter().find_map(|message| match message {
            LeaderMessage::Welcome { renew_every, .. } => Some(renew_every),
            _ => None,
        });
        assert_eq!(welcomed, Some(told));
    }
}

#[test]
fn a_hand_back_without_entering_passes_on_how_the_one_before_left() {
    let mut reign = begin();
    let (a, b, c) = (reign.session(1), reign.session(2), reign.session(3));
    reign.acquire(a, 1, acquire("x"));
    let lease = reign.granted(a, 1).lease;
    reign.acquire(b, 1, acquire("x"));
    reign.acquire(c, 1, acquire("x"));
    let how = Predecessor::Panicked;
    reign.say(a, ClientMessage::Release { lease, last_used: Token::ZERO, how });
    assert_eq!(reign.granted(b, 1).predecessor, how);
    // `b` never heard of it and does not want it any more.
    let b = reign.again(b);
    reign.report(b, &[], Vec::new());
    assert_eq!(reign.granted(c, 1).predecessor, how);
}

#[test]
fn unacknowledged_block_is_recalled_after_reconnect() {
    let mut reign = begin();
    let (a, b) = (reign.session(1), reign.session(2));
    let wanted = Acquire { keep: true, ..acquire("x") };
    reign.acquire(a, 1, wanted.clone());
    reign.acquire(b, 1, acquire("x"));
    // Neither the grant nor the recall gets through.
    reign.disconnect(a);
    reign.take(a);
    let a = reign.again(a);
    reign.report(a, &[], vec![waiting(1, wanted, None)]);
    let heard = reign.take(a);
    let granted = heard.iter().position(|m| matches!(m, LeaderMessage::Granted { .. }));
    let recalled = heard.iter().position(|m| matches!(m, LeaderMessage::Recall { .. }));
    assert!(granted.is_some() && granted < recalled, "{heard:?}");
}

#[test]
fn a_try_in_grace_waits_no_longer_for_a_recalled_lease_than_others() {
    let mut reign = begin();
    let (a, b) = (reign.session(1), reign.session(2));
    reign.acquire(a, 1, Acquire { keep: true, ..acquire("x") });
    let (_, block) = reign.block(a, 1);
    reign.acquire(b, 1, acquire("y"));
    let of_b = reign.granted(b, 1);
    reign.restart();
    let b = reign.again(b);
    reign.report_held(b, vec![held("y", of_b)], vec![waiting(2, try_acquire("x"), None)]);
    let a = reign.again(a);
    // It is back, and says nothing more.
    reign.report_held(a, vec![HeldLease { name: name("x"), ..block }], Vec::new());
    assert!(reign.take(a).iter().any(|m| matches!(m, LeaderMessage::Recall { .. })));
    reign.pass(ms(600));
    assert_eq!(reign.refused(b, 2), Some(Refusal::WouldBlock));
}

/// A try for a name, which comes after another request.
fn after(text: &str, request: u64) -> Acquire {
    let extras = Extras { after: Some(RequestId(request)), ..Extras::default() };
    Acquire { extras: Some(Box::new(extras)), ..try_acquire(text) }
}

#[test]
fn requests_that_come_after_others_are_granted_behind_granted_ones_only() {
    // redisson#4050: two that ask for the same names, and each gets one of them
    let mut reign = begin();
    let (a, b) = (reign.session(1), reign.session(2));
    reign.acquire(b, 1, acquire("y"));
    let y = reign.granted(b, 1);
    reign.acquire(a, 1, acquire("w"));
    reign.granted(a, 1);
    // The second of three is taken: the third is not had.
    reign.acquire(a, 2, try_acquire("x"));
    reign.acquire(a, 3, after("y", 2));
    reign.acquire(a, 4, after("z", 3));
    let heard = reign.take(a);
    let is_granted = |request| {
        let is_its = |said: &LeaderMessage| matches!(said, LeaderMessage::Granted { request: own, .. } if *own == RequestId(request));
        heard.iter().any(is_its)
    };
    assert!(is_granted(2) && !is_granted(3) && !is_granted(4), "{heard:?}");
    let refused = heard
        .iter()
        .filter(|said| matches!(said, LeaderMessage::Refused { why: Refusal::WouldBlock, .. }));
    assert_eq!(refused.count(), 2, "{heard:?}");
    reign.acquire(b, 2, try_acquire("z"));
    reign.granted(b, 2);
    // The first waits: none behind it is had, and none waits.
    reign.acquire(a, 5, acquire("y"));
    reign.acquire(a, 6, Acquire { wait: Wait::Forever, ..after("v", 5) });
    assert_eq!(reign.refused(a, 6), Some(Refusal::WouldBlock));
    reign.acquire(b, 3, try_acquire("v"));
    let v = reign.granted(b, 3);
    // It is had: the next one may come.
    reign.release(b, y.lease);
    reign.release(b, v.lease);
    reign.acquire(a, 7, after("v", 5));
    let heard = reign.take(a);
    assert_eq!(heard.iter().filter(|m| matches!(m, LeaderMessage::Granted { .. })).count(), 2);
}

#[test]
fn a_chain_of_requests_that_is_said_again_leaves_nothing_behind_one_that_waits() {
    let mut reign = begin();
    let (a, b) = (reign.session(1), reign.session(2));
    reign.acquire(b, 1, acquire("x"));
    let x = reign.granted(b, 1);
    reign.acquire(a, 1, acquire("w"));
    let w = reign.granted(a, 1);
    let chain = || vec![waiting(2, acquire("x"), None), waiting(3, after("y", 2), None)];
    reign.disconnect(a);
    let a = reign.again(a);
    reign.report_held(a, vec![held("w", w)], chain());
    assert_eq!(reign.refused(a, 3), Some(Refusal::WouldBlock));
    // In grace the first waits, whether or not its name is free.
    reign.restart();
    let (a, b) = (reign.again(a), reign.again(b));
    reign.report_held(a, vec![held("w", w)], chain());
    assert_eq!(reign.refused(a, 3), Some(Refusal::WouldBlock));
    reign.report_held(b, vec![held("x", x)], Vec::new());
    reign.acquire(b, 2, try_acquire("y"));
    reign.granted(b, 2);
    reign.release(b, x.lease);
    reign.granted(a, 2);
    // What crosses a cancel its client gives back.
    reign.acquire(a, 4, try_acquire("p"));
    reign.acquire(a, 5, after("q", 4));
    for request in [4, 5] {
        reign.cancel(a, request);
    }
    let heard = reign.take(a);
    let crossing = heard.iter().filter_map(|said| match said {
        LeaderMessage::Granted { lease, .. } => Some(*lease),
        _ => None,
    });
    let crossing: Vec<_> = crossing.collect();
    assert_eq!(crossing.len(), 2);
    crossing.into_iter().for_each(|lease| reign.release(a, lease));
    for (request, name) in [(3, "p"), (4, "q")] {
        reign.acquire(b, request, try_acquire(name));
        reign.granted(b, request);
    }
    // It ends with what it had.
    reign.say(a, ClientMessage::Goodbye);
    reign.acquire(b, 5, try_acquire("x"));
    reign.granted(b, 5);
}
