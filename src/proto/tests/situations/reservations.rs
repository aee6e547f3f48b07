//! `at_least`: a name stays taken, however its holder ends.

use super::*;
use crate::error::{LostReason, Predecessor};

const TEN: Duration = Duration::from_secs(10);
/// What a leader counts of [`TEN`].
const TEN_LONG: Duration = Duration::from_millis(10_100);

fn for_ten(text: &str) -> Acquire {
    Acquire { at_least: Some(TEN), ..acquire(text) }
}

/// A holder with `at_least`, that has heard of its grant, and another session.
fn holding() -> (ReignScene, Speaker, HeardGrant, Speaker) {
    let mut reign = begin();
    let [a, b] = [reign.session(1), reign.session(2)];
    reign.acquire(a, 1, for_ten("x"));
    let grant = reign.granted(a, 1);
    (reign, a, grant, b)
}

/// The first of two sessions asks for a name with `at_least`, and the disk has yet to answer. Each
/// holds a name of its own besides, so that both are on the disk.
fn reserving() -> (ReignScene, Speaker, Speaker) {
    // What they ask for after the first name is no news for the journal.
    let bound = BoundSize { names: 0, parents: 1 };
    let mut reign = ReignScene::new(LeaderConfig { bound, ..config() }, fresh());
    let [a, b] = [reign.session(1), reign.session(2)];
    for (speaker, text) in [(a, "y"), (b, "z")] {
        reign.acquire(speaker, 1, acquire(text));
        reign.granted(speaker, 1);
    }
    reign.disk_answers = false;
    reign.acquire(a, 2, for_ten("x"));
    (reign, a, b)
}

/// Both sessions stay alive for so long.
fn pass_alive(reign: &mut ReignScene, sessions: &[Speaker], duration: Duration) {
    let mut left = duration;
    while !left.is_zero() {
        let part = left.min(Duration::from_secs(1));
        reign.pass(part);
        sessions.iter().for_each(|&speaker| reign.renew(speaker));
        left -= part;
    }
}

fn entry(reign: &ReignScene) -> Option<Reservation> {
    reign.durable.reservations.get(&name("x")).copied()
}

fn used(reign: &mut ReignScene, speaker: Speaker, grant: HeardGrant) {
    let how = Predecessor::Clean;
    let release = ClientMessage::Release { lease: grant.lease, last_used: grant.token, how };
    reign.say(speaker, release);
}

/// The waiter is granted the name at the end, and not before.
fn comes_free_after(reign: &mut ReignScene, waiter: Speaker, alive: &[Speaker], left: Duration) {
    pass_alive(reign, alive, left - ms(1));
    assert!(reign.try_granted(waiter, 7).is_err(), "it is free too soon");
    pass_alive(reign, alive, ms(2));
    comes_free(reign, waiter);
}

/// The waiter is granted the name, of which nothing is kept.
fn comes_free(reign: &mut ReignScene, waiter: Speaker) {
    reign.granted(waiter, 7);
    assert_eq!(entry(reign), None);
}

#[test]
fn a_released_name_stays_taken_to_the_end_of_its_at_least() {
    let (mut reign, a, grant, b) = holding();
    assert!(entry(&reign).is_some_and(|entry| entry.token == grant.token && entry.left == TEN));
    reign.acquire(b, 7, acquire("x"));
    pass_alive(&mut reign, &[a, b], Duration::from_secs(1));
    used(&mut reign, a, grant);
    assert!(reign.take(a).contains(&LeaderMessage::Released { lease: grant.lease }));
    comes_free_after(&mut reign, b, &[a, b], TEN_LONG - Duration::from_secs(1));
}

#[test]
fn a_holder_that_died_or_said_goodbye_leaves_its_name_taken() {
    for goodbye in [false, true] {
        let (mut reign, a, grant, b) = holding();
        reign.acquire(b, 7, acquire("x"));
        pass_alive(&mut reign, &[a, b], ms(700));
        if goodbye {
            used(&mut reign, a, grant);
            reign.say(a, ClientMessage::Goodbye);
        } else {
            reign.disconnect(a);
        }
        comes_free_after(&mut reign, b, &[b], TEN_LONG - ms(700));
    }
}

#[test]
fn it_is_told_once_its_entry_is_durable_and_counts_from_then() {
    let (mut reign, a, b) = reserving();
    reign.acquire(b, 7, acquire("x"));
    pass_alive(&mut reign, &[a, b], Duration::from_secs(2));
    assert!(reign.try_granted(a, 2).is_err(), "its entry is not durable");
    reign.commit();
    reign.disk_answers = true;
    let grant = reign.granted(a, 2);
    used(&mut reign, a, grant);
    comes_free_after(&mut reign, b, &[a, b], TEN_LONG);
}

#[test]
fn a_try_for_a_reserved_name_is_refused() {
    let (mut reign, a, grant, b) = holding();
    used(&mut reign, a, grant);
    reign.acquire(b, 7, try_acquire("x"));
    assert_eq!(reign.refused(b, 7), Some(Refusal::WouldBlock));
    reign.say(b, ClientMessage::List { query: RequestId(8), after: None, limit: 9 });
    let heard = reign.take(b);
    let [LeaderMessage::Listed { locks, .. }] = &heard[..] else { panic!("{heard:?}") };
    assert!(locks[0].reserved && locks[0].holder.is_none());
    assert_eq!(locks[0].token, grant.token);
    assert!(locks[0].remaining.is_some_and(|left| left > TEN - ms(1)), "{locks:?}");
}

#[test]
fn cancelled_while_its_entry_is_written_it_leaves_nothing_reserved() {
    let (mut reign, a, b) = reserving();
    reign.cancel(a, 2);
    reign.acquire(b, 7, acquire("x"));
    reign.disk_answers = true;
    reign.commit();
    assert!(reign.try_granted(a, 2).is_err(), "its cancel was read");
    comes_free(&mut reign, b);
}

#[test]
fn a_request_that_reconnects_while_its_entry_is_written_is_told_at_its_place_and_granted_anew() {
    let mut reign = begin();
    let [a, b] = [reign.session(1), reign.session(2)];
    reign.acquire(a, 1, acquire("y"));
    reign.has_asked_for(b, 1, "x");
    let of_y = reign.granted(a, 1);
    reign.disk_answers = false;
    reign.acquire(a, 2, for_ten("x"));
    assert!(reign.commit_one(), "that it has asked for it");
    reign.drive();
    let place = reign.place(a, 2);
    let a = reign.again(a);
    reign.report_held(a, vec![held("y", of_y)], vec![waiting(2, for_ten("x"), Some(place))]);
    assert_eq!(reign.place(a, 2), place, "a report is not answered with the grant");
    reign.commit_one();
    reign.drive();
    assert!(reign.try_granted(a, 2).is_err(), "that entry was for another connection");
    reign.acquire(b, 7, acquire("x"));
    reign.disk_answers = true;
    reign.commit();
    let grant = reign.granted(a, 2);
    assert_eq!(entry(&reign).map(|entry| entry.token), Some(grant.token));
}

#[test]
fn a_grant_that_was_never_heard_is_made_anew_and_counts_from_then() {
    let (mut reign, a, first, b) = holding();
    reign.acquire(b, 7, acquire("x"));
    pass_alive(&mut reign, &[b], Duration::from_secs(3));
    let a = reign.again(a);
    reign.report(a, &[], vec![waiting(1, for_ten("x"), None)]);
    let again = reign.granted(a, 1);
    assert!(again.token > first.token && again.lease != first.lease);
    used(&mut reign, a, again);
    comes_free_after(&mut reign, b, &[a, b], TEN_LONG);
}

#[test]
fn given_back_unused_it_is_free_once_that_is_durable_and_answered_then() {
    // A try that timed out would keep a nightly job away for a day.
    let (mut reign, a, grant, b) = holding();
    reign.acquire(b, 1, acquire("z"));
    reign.acquire(b, 7, acquire("x"));
    reign.disk_answers = false;
    let last_used = Token::new(grant.token.get() - 1).unwrap();
    let (lease, how) = (grant.lease, Predecessor::Clean);
    reign.say(a, ClientMessage::Release { lease, last_used, how });
    reign.say(a, ClientMessage::Release { lease, last_used, how });
    assert_eq!(reign.take(a), [], "it may have to say so again");
    assert!(reign.try_granted(b, 7).is_err());
    reign.commit();
    let released = LeaderMessage::Released { lease };
    assert_eq!(reign.take(a), [released.clone(), released]);
    comes_free(&mut reign, b);
}

#[test]
fn a_grant_that_crosses_its_cancel_leaves_nothing_reserved() {
    let (mut reign, a, _, b) = holding();
    reign.acquire(b, 7, acquire("x"));
    reign.cancel(a, 1);
    comes_free(&mut reign, b);
}

#[test]
fn a_report_that_knows_neither_request_nor_lease_leaves_nothing_reserved() {
    let (mut reign, a, _, b) = holding();
    reign.acquire(b, 7, acquire("x"));
    let a = reign.again(a);
    reign.report(a, &[], Vec::new());
    comes_free(&mut reign, b);
}

#[test]
fn a_break_ends_it_with_and_without_a_holder_and_is_answered_once_that_is_durable() {
    for is_held in [true, false] {
        let (mut reign, a, grant, b) = holding();
        reign.acquire(b, 1, acquire("z"));
        reign.acquire(b, 7, acquire("x"));
        if !is_held {
            used(&mut reign, a, grant);
        }
        reign.take(b);
        reign.disk_answers = false;
        let query = RequestId(8);
        reign.say(b, ClientMessage::Break { query, name: name("x"), token: grant.token });
        assert_eq!(reign.take(b), []);
        reign.commit();
        reign.disk_answers = true;
        if is_held {
            assert!(reign.take(b).contains(&LeaderMessage::Broke { query, found: true }));
            used(&mut reign, a, grant);
        }
        let heard = reign.try_granted(b, 7);
        assert!(heard.is_ok(), "{heard:?}");
        assert_eq!(entry(&reign), None);
    }
}

#[test]
fn it_goes_on_through_a_restart_also_if_its_holder_died_with_the_leader() {
    for holder_died in [false, true] {
        let (mut reign, a, grant, b) = holding();
        reign.acquire(b, 1, acquire("z"));
        let of_z = reign.granted(b, 1);
        pass_alive(&mut reign, &[a, b], Duration::from_secs(4));
        let left = entry(&reign).expect("it is reserved").left;
        assert!(left <= TEN - ms(2_900), "{left:?}: each second it is written anew");
        reign.restart();
        let b = reign.again(b);
        let wish = waiting(7, acquire("x"), None);
        reign.report_held(b, vec![held("z", of_z)], vec![wish]);
        let mut alive = vec![b];
        if !holder_died {
            let a = reign.again(a);
            reign.report_held(a, vec![held("x", grant)], Vec::new());
            used(&mut reign, a, grant);
            alive.push(a);
        }
        comes_free_after(&mut reign, b, &alive, left + left / 100 + Duration::from_nanos(1));
    }
}

#[test]
fn after_a_restart_an_unheard_grant_is_made_anew_ahead_of_all_waiters() {
    let (mut reign, a, first, b) = holding();
    reign.acquire(b, 7, acquire("x"));
    let place = reign.place(b, 7);
    reign.restart();
    let [a, b] = [reign.again(a), reign.again(b)];
    reign.report(b, &[], vec![waiting(7, acquire("x"), Some(place))]);
    // It only tried: its own reservation is no reason to refuse it.
    let tried = Acquire { wait: Wait::No, ..for_ten("x") };
    reign.report(a, &[], vec![waiting(1, tried, None)]);
    let again = reign.granted(a, 1);
    assert!(again.token > first.token);
    used(&mut reign, a, again);
    comes_free_after(&mut reign, b, &[a, b], TEN_LONG);
}

#[test]
fn after_a_restart_a_grant_that_is_being_given_back_unused_leaves_nothing_reserved() {
    let (mut reign, a, grant, b) = holding();
    reign.acquire(b, 7, acquire("x"));
    let place = reign.place(b, 7);
    reign.restart();
    let [a, b] = [reign.again(a), reign.again(b)];
    reign.report(b, &[], vec![waiting(7, acquire("x"), Some(place))]);
    let last_used = Token::new(grant.token.get() - 1).unwrap();
    let (lease, how) = (grant.lease, Predecessor::Clean);
    let leaving = HeldLease { last_used, leaving: Some(how), ..held("x", grant) };
    reign.report_held(a, vec![leaving], Vec::new());
    reign.say(a, ClientMessage::Release { lease, last_used, how });
    assert!(reign.take(a).contains(&LeaderMessage::Released { lease }));
    comes_free(&mut reign, b);
}

#[test]
fn after_a_restart_a_grant_given_back_unused_waits_for_the_deletion_at_its_end() {
    // Answered before that, and the leader ends: the next one reads that the name is reserved.
    for leaving in [None, Some(Predecessor::Clean)] {
        let (mut reign, a, grant, b) = holding();
        pass_alive(&mut reign, &[a, b], Duration::from_secs(9));
        reign.restart();
        reign.disk_answers = false;
        reign.pass(ms(1_200));
        assert!(entry(&reign).is_some(), "its deletion is on its way");
        let a = reign.again(a);
        let last_used = Token::new(grant.token.get() - 1).unwrap();
        let last_used_of = leaving.map_or(grant.token, |_| last_used);
        let reported = HeldLease { last_used: last_used_of, leaving, ..held("x", grant) };
        reign.report_held(a, vec![reported], Vec::new());
        let (lease, how) = (grant.lease, Predecessor::Clean);
        reign.say(a, ClientMessage::Release { lease, last_used, how });
        let released = LeaderMessage::Released { lease };
        assert!(!reign.take(a).contains(&released));
        reign.commit();
        assert_eq!(entry(&reign), None);
        assert!(reign.take(a).contains(&released));
    }
}

#[test]
fn a_loss_other_than_a_break_leaves_the_name_taken() {
    let mut reign = begin();
    let [a, b] = [reign.session(1), reign.session(2)];
    let at_most = Some(Duration::from_secs(1));
    reign.acquire(a, 1, Acquire { at_most, ..for_ten("x") });
    let grant = reign.granted(a, 1);
    reign.acquire(b, 7, acquire("x"));
    pass_alive(&mut reign, &[a, b], Duration::from_secs(2));
    let lost = LeaderMessage::Lost { lease: grant.lease, why: LostReason::HeldTooLong };
    assert!(reign.take(a).contains(&lost));
    used(&mut reign, a, grant);
    comes_free_after(&mut reign, b, &[a, b], TEN_LONG - Duration::from_secs(2));
}

#[test]
fn a_leader_that_slept_extends_nothing() {
    let (mut reign, a, grant, b) = holding();
    pass_alive(&mut reign, &[a, b], Duration::from_secs(1));
    used(&mut reign, a, grant);
    reign.acquire(b, 7, acquire("x"));
    // Nothing of this is attended.
    reign.now = reign.now + TEN_LONG;
    reign.renew(b);
    reign.pass(ms(200));
    reign.granted(b, 7);
}

#[test]
fn a_leader_that_stops_in_good_order_writes_what_is_left() {
    let (mut reign, a, _, b) = holding();
    pass_alive(&mut reign, &[a, b], ms(1_900));
    reign.leader.handle_stop(reign.now);
    reign.drive();
    let left = entry(&reign).expect("it is reserved").left;
    assert!(left <= TEN - ms(1_800) && left >= TEN - ms(2_000), "{left:?}");
}

/// The disk has no room for the entry that it was asked for last.
fn finds_no_room(reign: &mut ReignScene) {
    let pending = reign.pending.pop_front().expect("an entry is to be written");
    assert!(matches!(pending.record(), Record::Reserved { .. }), "{:?}", pending.record());
    reign.leader.handle_unwritten(pending.unwritten(), reign.now);
    reign.drive();
}

#[test]
fn without_room_for_its_entry_it_is_refused_and_the_next_waiter_served() {
    let (mut reign, a, b) = reserving();
    reign.acquire(b, 7, acquire("x"));
    reign.take(a);
    finds_no_room(&mut reign);
    assert_eq!(reign.refused(a, 2), Some(Refusal::DiskFull));
    comes_free(&mut reign, b);
    // Nothing is kept for one that was cancelled meanwhile, either.
    reign.acquire(a, 3, for_ten("w"));
    reign.cancel(a, 3);
    finds_no_room(&mut reign);
    reign.acquire(b, 8, acquire("w"));
    reign.granted(b, 8);
    // With room again it is granted.
    reign.disk_answers = true;
    reign.acquire(a, 4, for_ten("v"));
    reign.granted(a, 4);
}

#[test]
fn without_room_for_a_grant_that_is_made_anew_it_is_refused_once_the_first_is_deleted() {
    let (mut reign, a, _, b) = holding();
    reign.acquire(b, 1, acquire("z"));
    reign.acquire(b, 7, acquire("x"));
    reign.disk_answers = false;
    let a = reign.again(a);
    reign.report(a, &[], vec![waiting(1, for_ten("x"), None)]);
    reign.take(a);
    finds_no_room(&mut reign);
    assert_eq!(reign.take(a), [], "killed now the leader grants it after all");
    assert!(entry(&reign).is_some() && reign.try_granted(b, 7).is_err());
    reign.commit();
    assert_eq!(reign.refused(a, 1), Some(Refusal::DiskFull));
    comes_free(&mut reign, b);
}

#[test]
fn only_so_many_names_are_reserved_and_none_for_longer_than_a_month() {
    let mut reign = begin();
    let a = reign.session(1);
    for request in 1..=3 {
        reign.acquire(a, request, for_ten(&request.to_string()));
        let grant = reign.granted(a, request);
        used(&mut reign, a, grant);
    }
    reign.acquire(a, 4, for_ten("4"));
    assert_eq!(reign.refused(a, 4), Some(Refusal::TooManyReservations));
    let day = Duration::from_secs(24 * 60 * 60);
    reign.acquire(a, 5, Acquire { at_least: Some(32 * day), ..acquire("5") });
    assert_eq!(reign.refused(a, 5), Some(Refusal::AtLeastTooLong));
    assert_eq!(reign.leader.held(), 0);
    pass_alive(&mut reign, &[a], TEN_LONG + ms(1));
    reign.acquire(a, 6, for_ten("4"));
    reign.granted(a, 6);
}

#[test]
fn a_break_in_grace_waits_for_the_holder_to_come_back() {
    let (mut reign, a, grant, b) = holding();
    reign.acquire(b, 1, acquire("z"));
    reign.restart();
    let [a, b] = [reign.again(a), reign.again(b)];
    reign.report(b, &[], Vec::new());
    let query = RequestId(8);
    reign.take(b);
    reign.say(b, ClientMessage::Break { query, name: name("x"), token: grant.token });
    assert_eq!(reign.take(b), [], "its holder may still report");
    reign.report_held(a, vec![held("x", grant)], Vec::new());
    assert_eq!(reign.take(b), [LeaderMessage::Broke { query, found: true }]);
    let lost = LeaderMessage::Lost { lease: grant.lease, why: LostReason::Broken };
    assert!(reign.take(a).contains(&lost));
}
