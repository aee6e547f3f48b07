//! Leases: given back, expired, taken away.

use super::*;
use crate::error::{LostReason, Predecessor};

#[test]
fn a_stale_release_is_answered_and_frees_no_other_lock() {
    // etcd#22082, live-mutex#131
    let mut reign = begin();
    let (a, b) = (reign.session(1), reign.session(2));
    reign.acquire(a, 1, acquire("x"));
    let first = reign.granted(a, 1);
    reign.acquire(b, 1, acquire("x"));
    reign.release(a, first.lease);
    let second = reign.granted(b, 1);
    assert!(second.token > first.token && second.lease != first.lease);
    reign.release(a, first.lease);
    let released = LeaderMessage::Released { lease: first.lease };
    assert_eq!(reign.take(a), [released.clone(), released]);
    reign.release(a, second.lease); // another session's
    reign.acquire(a, 2, try_acquire("x"));
    assert_eq!(reign.refused(a, 2), Some(Refusal::WouldBlock));
}

#[test]
fn an_expired_session_is_over_once_its_end_is_handed_to_the_disk() {
    // redlock-rb#36, RedLock.net#48, redsync#147
    let mut reign = begin();
    let (a, b) = (reign.session(1), reign.session(2));
    reign.acquire(a, 1, acquire("x"));
    let first = reign.granted(a, 1);
    reign.acquire(b, 1, acquire("x"));
    reign.pass(LONG / 2);
    reign.renew(b);
    reign.take(b);
    reign.disk_answers = false;
    reign.pass(LONG / 2 + ms(10));
    assert_eq!(reign.take(a), [LeaderMessage::Gone { session: SessionId(1) }]);
    reign.renew(a);
    assert_eq!(reign.take(a), []);
    let back = reign.again(a);
    reign.report(back, &[first.lease], Vec::new());
    assert_eq!(reign.take(back), [LeaderMessage::Gone { session: SessionId(1) }]);
    assert_eq!(reign.take(b), [], "nothing is granted that is not durably free");
    reign.commit();
    let second = reign.granted(b, 1);
    assert_eq!(second.predecessor, Predecessor::Expired);
    assert!(second.token > first.token);
    assert_eq!(reign.written.last(), Some(&Record::SessionEnded { session: SessionId(1) }));
}

#[test]
fn a_late_leader_expires_no_session_before_it_has_read_what_came() {
    // etcd#15247
    let mut reign = begin();
    let a = reign.session(1);
    reign.acquire(a, 1, acquire("x"));
    reign.granted(a, 1);
    reign.pass(LONG - ms(300));
    reign.now = reign.now + Duration::from_secs(60);
    reign.leader.handle_timeout(reign.now);
    reign.drive();
    assert_eq!(reign.take(a), []);
    reign.renew(a);
    assert!(matches!(reign.take(a)[..], [LeaderMessage::Renewed { .. }]));
    reign.pass(LONG - ms(300));
    reign.renew(a);
    assert!(matches!(reign.take(a)[..], [LeaderMessage::Renewed { .. }]));
    reign.pass(LONG);
    assert_eq!(reign.take(a), [LeaderMessage::Gone { session: SessionId(1) }]);
}

#[test]
fn renewals_do_not_wait_for_the_disk() {
    let mut reign = begin();
    let a = reign.session(1);
    reign.disk_answers = false;
    reign.acquire(a, 1, acquire("x"));
    reign.take(a);
    let sent_at = Time::from_nanos(5);
    reign.say(a, ClientMessage::Renew { sent_at });
    assert!(matches!(reign.take(a)[..], [LeaderMessage::Renewed { sent_at: echoed, .. }]
        if echoed == sent_at));
}

#[test]
fn a_goodbye_frees_at_once_and_a_closed_connection_does_not() {
    let mut reign = begin();
    let (a, b) = (reign.session(1), reign.session(2));
    reign.acquire(a, 1, acquire("x"));
    reign.granted(a, 1);
    reign.acquire(b, 1, acquire("x"));
    reign.take(b);
    reign.disconnect(a);
    reign.pass(ms(4000));
    reign.renew(b);
    assert!(reign.try_granted(b, 1).is_err());
    let a = reign.again(a);
    reign.report(a, &[LeaseId { epoch: 1, count: 1 }], Vec::new());
    reign.disk_answers = false;
    reign.say(a, ClientMessage::Goodbye);
    assert_eq!(reign.granted(b, 1).predecessor, Predecessor::Clean);
    assert_eq!(reign.closed(a), Some(Close::Ended));
}

#[test]
fn a_lease_that_reached_its_at_most_is_taken_away_and_answered_for() {
    let mut reign = begin();
    let (a, b) = (reign.session(1), reign.session(2));
    reign.acquire(a, 1, Acquire { at_most: Some(ms(1000)), ..acquire("x") });
    let first = reign.granted(a, 1);
    assert_eq!(first.at_most, Some(ms(1000)));
    reign.acquire(b, 1, acquire("x"));
    reign.take(b);
    reign.pass(ms(1000));
    assert_eq!(reign.take(a), []);
    reign.disk_answers = false;
    reign.pass(ms(20));
    assert_eq!(reign.take(a), [], "not told before it is durable");
    reign.commit();
    let lost = LeaderMessage::Lost { lease: first.lease, why: LostReason::HeldTooLong };
    assert_eq!(reign.take(a), [lost]);
    assert!(reign.try_granted(b, 1).is_err(), "not free before it is answered for");
    reign.release(a, first.lease);
    assert_eq!(reign.granted(b, 1).predecessor, Predecessor::Expired);
}

#[test]
fn a_break_names_the_token_and_waits_for_a_silent_holder_as_long_as_was_promised() {
    // live-mutex#131
    let mut reign = begin();
    let (a, b) = (reign.session(1), reign.session(2));
    reign.acquire(a, 1, acquire("x"));
    let first = reign.granted(a, 1);
    reign.acquire(b, 1, acquire("x"));
    let query = RequestId(7);
    let break_token = |token| ClientMessage::Break { query, name: name("x"), token };
    reign.take(b);
    reign.say(b, break_token(first.token.next().unwrap()));
    assert_eq!(reign.take(b), [LeaderMessage::Broke { query, found: false }]);
    reign.disk_answers = false;
    reign.say(b, break_token(first.token));
    assert_eq!(reign.take(b), [], "not answered before it is durable");
    reign.commit();
    assert_eq!(reign.take(b), [LeaderMessage::Broke { query, found: true }]);
    let lost = LeaderMessage::Lost { lease: first.lease, why: LostReason::Broken };
    assert_eq!(reign.take(a), [lost]);
    // The silent one renews, but does not answer: what it was promised before counts.
    reign.disk_answers = true;
    reign.pass(ms(3000));
    reign.renew(a);
    reign.renew(b);
    reign.take(b);
    reign.pass(ms(2000));
    assert!(reign.try_granted(b, 1).is_err());
    reign.pass(ms(100));
    assert_eq!(reign.granted(b, 1).predecessor, Predecessor::Broken);
}

#[test]
fn a_break_is_answered_though_the_session_that_asked_ran_out_before_it_was_durable() {
    let mut reign = begin();
    let (a, b) = (reign.session(1), reign.session(2));
    reign.acquire(a, 1, acquire("x"));
    let token = reign.granted(a, 1).token;
    reign.acquire(b, 1, acquire("y"));
    reign.take(b);
    reign.pass(LONG / 2);
    reign.renew(a);
    let query = RequestId(7);
    let break_x = ClientMessage::Break { query, name: name("x"), token };
    reign.disk_answers = false;
    reign.say(b, break_x.clone());
    reign.pass(LONG / 2 + ms(10));
    assert_eq!(reign.take(b), [LeaderMessage::Gone { session: SessionId(2) }]);
    let broke = LeaderMessage::Broke { query, found: true };
    reign.commit();
    // Behind the Gone, and before the next report.
    assert_eq!(reign.take(b), std::slice::from_ref(&broke));
    reign.disk_answers = true;
    // It comes as another, on the same connection, and asks again.
    let b = Speaker { session: 3, ..b };
    reign.report(b, &[], Vec::new());
    reign.say(b, break_x);
    let heard = reign.take(b);
    assert!(matches!(&heard[..], [LeaderMessage::Welcome { .. }, again] if *again == broke));
}

#[test]
fn a_late_word_on_a_kept_lease_changes_nothing_for_the_next_holder() {
    let mut reign = begin();
    let (a, b) = (reign.session(1), reign.session(2));
    reign.acquire(a, 1, Acquire { keep: true, ..acquire("x") });
    let (lease, block) = reign.block(a, 1);
    let (query, token) = (RequestId(7), block.first);
    reign.say(b, ClientMessage::Break { query, name: name("x"), token });
    reign.acquire(b, 1, acquire("x"));
    // `a` hears nothing from here on. It renews, and its last promise passes.
    reign.pass(ms(3000));
    reign.renew(a);
    reign.renew(b);
    reign.pass(LONG - ms(3000));
    let next = reign.granted(b, 1);
    let lost = LeaderMessage::Lost { lease, why: LostReason::Broken };
    let heard = reign.take(a);
    assert!(matches!(&heard[..], [told, LeaderMessage::Renewed { .. }] if *told == lost));
    let listed = |reign: &mut ReignScene| {
        reign.say(b, ClientMessage::List { query: RequestId(9), after: None, limit: 9 });
        reign.take(b)
    };
    let before = listed(&mut reign);
    assert!(matches!(&before[..], [LeaderMessage::Listed { locks, .. }]
        if locks[0].token == next.token && !locks[0].kept));
    // Said before its own deadline, and long under way.
    reign.say(a, ClientMessage::Use { lease, kept: true });
    reign.say(a, ClientMessage::TopUp { lease });
    assert_eq!(reign.take(a), [], "it has been told of the loss, and gets no more tokens");
    assert_eq!(listed(&mut reign), before);
    reign.release(b, next.lease);
    reign.acquire(b, 2, acquire("x"));
    assert_eq!(reign.granted(b, 2).token, next.token.next().unwrap());
}

#[test]
fn a_returning_session_hears_of_every_loss_before_the_welcome() {
    let mut reign = begin();
    let (a, b) = (reign.session(1), reign.session(2));
    reign.acquire(a, 1, acquire("x"));
    let first = reign.granted(a, 1);
    reign.disconnect(a);
    let (query, token) = (RequestId(7), first.token);
    reign.say(b, ClientMessage::Break { query, name: name("x"), token });
    reign.acquire(b, 1, acquire("x"));
    reign.take(b);
    let unknown = LeaseId { epoch: 1, count: 99 };
    let early = reign.again(a);
    reign.report(early, &[first.lease, unknown], Vec::new());
    assert_eq!(reign.take(early), [], "nothing is told before it is durable");
    assert_eq!(reign.closed(early), Some(Close::Unconfirmed));
    let a = reign.again(early);
    reign.report(a, &[first.lease, unknown], Vec::new());
    let heard = reign.take(a);
    let lost = |lease, why| LeaderMessage::Lost { lease, why };
    assert_eq!(
        heard[..2],
        [lost(first.lease, LostReason::Broken), lost(unknown, LostReason::Forgotten)]
    );
    assert!(matches!(heard[2..], [LeaderMessage::Welcome { .. }]));
    assert!(reign.try_granted(b, 1).is_err(), "the reported one is waited for");
    reign.release(a, first.lease);
    reign.granted(b, 1);
}

#[test]
fn a_grant_lost_before_its_session_heard_of_it_puts_the_request_back_at_its_place() {
    let mut reign = begin();
    let (a, b, c) = (reign.session(1), reign.session(2), reign.session(3));
    reign.acquire(c, 1, acquire("x"));
    let holder = reign.granted(c, 1);
    reign.acquire(a, 1, acquire("x"));
    let place = reign.place(a, 1);
    reign.acquire(b, 1, acquire("x"));
    reign.release(c, holder.lease);
    // The grant to `a` never arrives.
    let unheard = reign.granted(a, 1);
    reign.disconnect(a);
    let (query, token) = (RequestId(7), unheard.token);
    reign.say(b, ClientMessage::Break { query, name: name("x"), token });
    let a = reign.again(a);
    reign.report(a, &[], vec![waiting(1, acquire("x"), None)]);
    let again = reign.granted(a, 1);
    assert!(again.token > unheard.token && again.lease != unheard.lease);
    assert!(reign.try_granted(b, 1).is_err(), "it stood at {place:?}, before the others");
}

#[test]
fn what_a_whole_report_does_not_name_is_released() {
    let mut reign = begin();
    let (a, b) = (reign.session(1), reign.session(2));
    reign.acquire(a, 1, acquire("x"));
    reign.acquire(a, 2, acquire("y"));
    let held = reign.take(a);
    assert_eq!(held.iter().filter(|m| matches!(m, LeaderMessage::Granted { .. })).count(), 2);
    reign.acquire(b, 1, acquire("x"));
    reign.acquire(b, 2, acquire("y"));
    reign.take(b);
    let back = reign.again(a);
    reign.say(back, hello(back));
    reign.say(back, ClientMessage::Held { leases: Vec::new() });
    assert!(reign.try_granted(b, 1).is_err(), "the first part of a report is no report");
    let leases = vec![held_lease(LeaseId { epoch: 1, count: 2 })];
    reign.say(back, ClientMessage::Held { leases });
    reign.say(back, ClientMessage::Ready);
    let heard = reign.take(b);
    let granted: Vec<_> =
        heard.iter().filter(|m| matches!(m, LeaderMessage::Granted { .. })).collect();
    assert!(matches!(granted[..], [LeaderMessage::Granted { request: RequestId(1), .. }]));
}

#[test]
fn an_older_connection_counts_no_more() {
    // curator#1137, #1169, #980
    let mut reign = begin();
    let old = reign.session(1);
    reign.acquire(old, 1, acquire("x"));
    let grant = reign.granted(old, 1);
    let newer = reign.again(old);
    reign.report(newer, &[grant.lease], Vec::new());
    assert_eq!(reign.closed(old), Some(Close::Superseded));
    reign.release(old, grant.lease);
    reign.disconnect(old);
    let late = Speaker { connection: reign.connect(77), ..old };
    reign.report(late, &[], Vec::new());
    assert_eq!(reign.closed(late), Some(Close::Superseded), "its count is not the highest");
    reign.acquire(newer, 2, try_acquire("x"));
    assert_eq!(reign.refused(newer, 2), Some(Refusal::WouldBlock), "it still holds");
}

#[test]
fn a_check_says_whether_the_lease_still_holds_that_token() {
    let mut reign = begin();
    let a = reign.session(1);
    reign.acquire(a, 1, acquire("x"));
    let grant = reign.granted(a, 1);
    let good = |reign: &mut ReignScene, token| {
        let query = RequestId(50);
        reign.say(a, ClientMessage::Check { query, name: name("x"), token });
        reign.take(a).contains(&LeaderMessage::Checked { query, good: true })
    };
    assert!(good(&mut reign, grant.token));
    assert!(!good(&mut reign, grant.token.next().unwrap()));
    reign.release(a, grant.lease);
    assert!(!good(&mut reign, grant.token));
}

#[test]
fn how_the_last_holder_left_is_told_to_the_next_even_after_the_name_was_left_alone() {
    let mut reign = begin();
    let a = reign.session(1);
    reign.acquire(a, 1, acquire("x"));
    let lease = reign.granted(a, 1).lease;
    let how = Predecessor::Panicked;
    reign.say(a, ClientMessage::Release { lease, last_used: Token::ZERO, how });
    reign.pass(ms(500));
    reign.acquire(a, 2, acquire("x"));
    assert_eq!(reign.granted(a, 2).predecessor, how);
}

#[test]
fn a_forgotten_name_costs_nothing_and_its_tokens_do_not_go_back() {
    // redisson#6510
    let mut reign = begin();
    let a = reign.session(1);
    let mut last = Token::ZERO;
    for request in 1..100 {
        reign.acquire(a, request, acquire(&format!("orders/{}", request % 7)));
        let grant = reign.granted(a, request);
        assert!(grant.token > last);
        last = grant.token;
        reign.release(a, grant.lease);
        reign.take(a);
        assert_eq!(reign.leader.names(), 0);
    }
}

#[test]
fn predecessors_are_remembered_for_a_bounded_number_of_names() {
    let mut reign = begin();
    let a = reign.session(1);
    for request in 1..20_000 {
        reign.acquire(a, request, acquire(&format!("orders/{request}")));
        let lease = reign.granted(a, request).lease;
        let how = Predecessor::Died;
        reign.say(a, ClientMessage::Release { lease, last_used: Token::ZERO, how });
    }
    assert_eq!(reign.leader.names(), 16_384);
}

#[test]
fn what_is_kept_is_listed_so_on_the_next_connection_too() {
    let mut reign = begin();
    let a = reign.session(1);
    reign.acquire(a, 1, Acquire { keep: true, ..acquire("x") });
    let (_, block) = reign.block(a, 1);
    reign.disconnect(a);
    let a = reign.again(a);
    reign.report_held(a, vec![HeldLease { name: name("x"), kept: true, ..block }], Vec::new());
    reign.say(a, ClientMessage::List { query: RequestId(9), after: None, limit: 9 });
    let heard = reign.take(a);
    let [.., LeaderMessage::Listed { locks, .. }] = &heard[..] else { panic!("{heard:?}") };
    assert!(locks[0].kept, "{locks:?}");
}
