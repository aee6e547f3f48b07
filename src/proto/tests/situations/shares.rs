//! Shared leases and permits: many holders of one name.

use super::*;
use crate::{
    error::{LostReason, Predecessor},
    proto::wire::{NameUse, PERMITS_MAX},
};

fn read(text: &str) -> Acquire {
    Acquire { mode: Mode::Shared, ..acquire(text) }
}

fn keep(asked: Acquire) -> Acquire {
    Acquire { keep: true, ..asked }
}

fn permits(text: &str, count: u32, limit: u32) -> Acquire {
    Acquire { mode: Mode::Permits { count, limit }, ..acquire(text) }
}

fn once(asked: Acquire) -> Acquire {
    Acquire { wait: Wait::No, ..asked }
}

/// What the holder of a shared lease reports of it.
fn shared(text: &str, grant: HeardGrant) -> HeldLease {
    HeldLease { mode: Mode::Shared, ..held(text, grant) }
}

fn is_good(reign: &mut ReignScene, speaker: Speaker, text: &str, token: Token) -> bool {
    let query = RequestId(99);
    reign.say(speaker, ClientMessage::Check { query, name: name(text), token });
    reign.take(speaker).contains(&LeaderMessage::Checked { query, good: true })
}

fn break_of(reign: &mut ReignScene, speaker: Speaker, text: &str, token: Token) -> LeaderMessage {
    let query = RequestId(98);
    reign.say(speaker, ClientMessage::Break { query, name: name(text), token });
    LeaderMessage::Broke { query, found: true }
}

fn is_recalled(reign: &mut ReignScene, speaker: Speaker, lease: LeaseId) -> bool {
    reign.take(speaker).contains(&LeaderMessage::Recall { lease })
}

/// Three sessions, and a reader of `x` in each of the first two.
fn two_readers() -> (ReignScene, [Speaker; 3], [HeardGrant; 2]) {
    let mut reign = begin();
    let all = [1, 2, 3].map(|number| reign.session(number));
    // So that the third is open as well.
    reign.has_asked_for(all[2], 1, "x");
    let grants = [all[0], all[1]].map(|speaker| {
        reign.acquire(speaker, 1, read("x"));
        reign.granted(speaker, 1)
    });
    (reign, all, grants)
}

#[test]
fn readers_are_together_and_writers_alone() {
    // redisson#4023: an exclusive lock and a read lock of one name were both held
    let (mut reign, [a, b, c], [one, other]) = two_readers();
    assert_eq!(one.token, other.token, "inside together they bear one token");
    assert_ne!(one.lease, other.lease);
    reign.acquire(c, 11, once(acquire("x")));
    assert_eq!(reign.refused(c, 11), Some(Refusal::WouldBlock));
    reign.acquire(c, 12, acquire("x"));
    reign.release(a, one.lease);
    assert!(reign.try_granted(c, 12).is_err(), "one reader's end frees its own share only");
    reign.release(b, other.lease);
    let writer = reign.granted(c, 12);
    assert!(writer.token > one.token);
    reign.acquire(a, 2, once(read("x")));
    assert_eq!(reign.refused(a, 2), Some(Refusal::WouldBlock));
    reign.acquire(a, 3, read("x"));
    reign.release(c, writer.lease);
    assert!(reign.granted(a, 3).token > writer.token, "no reader bears a writer's token");
}

#[test]
fn readers_in_a_row_enter_together_and_stop_at_a_writer() {
    // redisson#1542: readers that queued behind a writer entered one at a time
    let mut reign = begin();
    let [a, b, c] = [1, 2, 3].map(|number| reign.session(number));
    reign.acquire(a, 1, acquire("x"));
    let first = reign.granted(a, 1);
    reign.acquire(b, 1, read("x"));
    reign.acquire(c, 1, read("x"));
    reign.acquire(a, 2, acquire("x"));
    reign.acquire(b, 2, read("x"));
    reign.release(a, first.lease);
    let (one, other) = (reign.granted(b, 1), reign.granted(c, 1));
    assert_eq!(one.token, other.token);
    assert!(reign.try_granted(a, 2).is_err());
    reign.release(b, one.lease);
    // futures-locks#34, dart-mutex#11: readers without a pause starved writers
    assert!(reign.try_granted(b, 2).is_err(), "it came after the writer");
    reign.acquire(c, 2, once(read("x")));
    assert_eq!(reign.refused(c, 2), Some(Refusal::WouldBlock), "a try does not pass it either");
    reign.release(c, other.lease);
    let writer = reign.granted(a, 2);
    assert!(reign.try_granted(b, 2).is_err());
    reign.release(a, writer.lease);
    assert!(reign.granted(b, 2).token > writer.token);
}

#[test]
fn a_writer_that_gives_up_or_whose_connection_is_lost_lets_the_readers_behind_it_in() {
    // llvm#201937: a writer that timed out ate the wake of a reader
    for cancels in [true, false] {
        let (mut reign, [a, b, c], [one, _]) = two_readers();
        reign.release(a, one.lease);
        reign.acquire(c, 11, acquire("x"));
        reign.acquire(a, 2, read("x"));
        assert!(reign.try_granted(a, 2).is_err());
        if cancels {
            reign.cancel(c, 11)
        } else {
            reign.disconnect(c)
        }
        let again = reign.granted(a, 2);
        assert_eq!(again.token, one.token, "they are together with the one that stayed");
        if !cancels {
            // It has kept its place, and stands before those that come now.
            let c = reign.again(c);
            reign.report(c, &[], vec![waiting(11, acquire("x"), None)]);
            reign.acquire(b, 2, read("x"));
            assert!(reign.try_granted(b, 2).is_err());
        }
    }
}

#[test]
fn a_reader_that_runs_out_while_a_writer_waits_frees_its_own_share_once_that_is_durable() {
    // redisson#1604, #1458: one reader's timeout ended the others'
    let (mut reign, [a, b, c], [one, other]) = two_readers();
    reign.acquire(c, 11, acquire("x"));
    reign.pass(LONG / 2);
    reign.renew(b);
    reign.renew(c);
    reign.disk_answers = false;
    reign.pass(LONG / 2 + ms(10));
    assert_eq!(reign.take(a), [LeaderMessage::Gone { session: SessionId(1) }]);
    reign.release(b, other.lease);
    assert!(reign.try_granted(c, 11).is_err(), "the end of the first is not durable");
    reign.commit();
    let writer = reign.granted(c, 11);
    assert_eq!(writer.predecessor, Predecessor::Clean, "a reader changed nothing");
    assert!(writer.token > one.token);
}

#[test]
fn a_reader_that_knows_a_higher_token_gets_a_higher_one() {
    let (mut reign, [a, _, c], [one, _]) = two_readers();
    reign.acquire(c, 11, Acquire { above: one.token, ..read("x") });
    let above = reign.granted(c, 11);
    assert!(above.token > one.token);
    reign.acquire(a, 2, read("x"));
    assert_eq!(reign.granted(a, 2).token, above.token, "the next bears the highest");
    // A reader's release lowers no count, whatever it says of its use.
    reign.release(c, above.lease);
    reign.acquire(c, 12, Acquire { above: above.token, ..read("x") });
    assert!(reign.granted(c, 12).token > above.token);
}

#[test]
fn a_break_by_a_shared_token_takes_it_from_all_that_bear_it() {
    let (mut reign, [a, b, c], [one, other]) = two_readers();
    reign.disk_answers = false;
    let broke = break_of(&mut reign, c, "x", one.token);
    // One that enters now, or waits for them, is not taken for one of them.
    reign.acquire(c, 11, read("x"));
    let fresh = reign.granted(c, 11);
    assert!(fresh.token > one.token);
    assert!(reign.commit_one());
    reign.drive();
    let lost = |lease| LeaderMessage::Lost { lease, why: LostReason::Broken };
    assert_eq!(reign.take(a), [lost(one.lease)]);
    assert!(!reign.take(c).contains(&broke), "the other's loss is not durable yet");
    assert_eq!(reign.take(b), []);
    reign.commit();
    assert_eq!(reign.take(b), [lost(other.lease)]);
    assert!(reign.take(c).contains(&broke));
    assert!(!is_good(&mut reign, c, "x", one.token));
    assert!(is_good(&mut reign, c, "x", fresh.token));
    // A writer waits for the answers of all.
    reign.acquire(c, 12, acquire("x"));
    reign.release(c, fresh.lease);
    reign.release(a, one.lease);
    assert!(reign.try_granted(c, 12).is_err());
    reign.release(b, other.lease);
    assert!(reign.granted(c, 12).token > fresh.token);
}

#[test]
fn sessions_that_bring_back_one_name_as_shared_are_no_conflict() {
    let (mut reign, [a, b, c], [one, other]) = two_readers();
    reign.acquire(c, 11, acquire("x"));
    let place = reign.place(c, 11);
    reign.restart();
    let [a, b, c] = [a, b, c].map(|speaker| reign.again(speaker));
    reign.report_held(a, vec![shared("x", one)], Vec::new());
    reign.report(c, &[], vec![waiting(11, acquire("x"), Some(place))]);
    assert!(reign.try_granted(c, 11).is_err(), "the other has yet to come");
    reign.report_held(b, vec![shared("x", other)], Vec::new());
    assert_eq!((&reign.notices[..], &reign.closed[..]), (&[][..], &[][..]));
    assert!(is_good(&mut reign, a, "x", one.token));
    reign.release(a, one.lease);
    assert!(reign.try_granted(c, 11).is_err());
    reign.release(b, other.lease);
    assert_eq!(reign.granted(c, 11).token.epoch(), 2);
}

#[test]
fn readers_bear_one_token_also_across_a_change_of_reign() {
    let (mut reign, [a, b, c], [one, other]) = two_readers();
    reign.restart();
    let [a, b, c] = [a, b, c].map(|speaker| reign.again(speaker));
    reign.report_held(a, vec![shared("x", one)], Vec::new());
    reign.report_held(b, vec![shared("x", other)], Vec::new());
    reign.report(c, &[], vec![waiting(11, read("x"), None)]);
    let third = reign.granted(c, 11);
    assert_eq!((third.token, third.lease.epoch), (one.token, 2));
    // And across the next, though its reign is not that of its token.
    reign.config.reign = ReignId(2);
    reign.restart();
    let [a, c] = [a, c].map(|speaker| reign.again(speaker));
    reign.report_held(a, vec![shared("x", one)], Vec::new());
    reign.report_held(c, vec![HeldLease { reign: REIGN, ..shared("x", third) }], Vec::new());
    assert_eq!(reign.notices, []);
}

#[test]
fn a_writer_that_comes_back_behind_readers_is_told_that_it_lost() {
    // What only restored state does: by the tokens the readers came after it.
    let (mut reign, [a, b, _], [one, _]) = two_readers();
    let writer = HeardGrant { lease: LeaseId { epoch: 1, count: 900 }, ..one };
    let earlier = Token::new(one.token.get() - 1).unwrap();
    reign.restart();
    let [a, b] = [a, b].map(|speaker| reign.again(speaker));
    reign.report_held(a, vec![shared("x", one)], Vec::new());
    reign.report_held(b, vec![held("x", HeardGrant { token: earlier, ..writer })], Vec::new());
    assert_eq!(reign.closed(b), Some(Close::Unconfirmed));
    assert!(matches!(reign.notices[..], [Notice::Conflict { .. }]));
    let b = reign.again(b);
    reign.report_held(b, vec![held("x", HeardGrant { token: earlier, ..writer })], Vec::new());
    let lost = LeaderMessage::Lost { lease: writer.lease, why: LostReason::Forgotten };
    assert_eq!(reign.take(b).first(), Some(&lost));
}

#[test]
fn readers_that_come_back_behind_a_reader_with_a_higher_token_are_no_conflict() {
    let (mut reign, [a, b, c], [one, _]) = two_readers();
    reign.acquire(c, 11, Acquire { above: one.token, ..read("x") });
    let above = reign.granted(c, 11);
    reign.restart();
    let [a, b, c] = [a, b, c].map(|speaker| reign.again(speaker));
    // It is on its way out: nothing of it is held, and its token is known.
    let leaving = Some(Predecessor::Clean);
    reign.report_held(c, vec![HeldLease { leaving, ..shared("x", above) }], Vec::new());
    reign.report_held(a, vec![shared("x", one)], Vec::new());
    reign.report(b, &[], Vec::new());
    assert_eq!((&reign.notices[..], &reign.closed[..]), (&[][..], &[][..]));
    assert!(is_good(&mut reign, a, "x", one.token));
}

#[test]
fn a_shared_token_is_broken_once_all_that_may_bear_it_are_back() {
    let (mut reign, [a, b, c], [one, other]) = two_readers();
    reign.acquire(c, 11, read("y"));
    let own = reign.granted(c, 11);
    reign.restart();
    let [a, b, c] = [a, b, c].map(|speaker| reign.again(speaker));
    reign.report_held(a, vec![shared("x", one)], Vec::new());
    reign.report_held(c, vec![shared("y", own)], Vec::new());
    let broke = break_of(&mut reign, c, "x", one.token);
    assert!(!reign.take(c).contains(&broke), "another reader may come back with that token");
    reign.report_held(b, vec![shared("x", other)], Vec::new());
    assert!(reign.take(c).contains(&broke));
    for (speaker, grant) in [(a, one), (b, other)] {
        let lost = LeaderMessage::Lost { lease: grant.lease, why: LostReason::Broken };
        assert!(reign.take(speaker).contains(&lost));
    }
    // A reader that is told on its return is waited for all the same.
    reign.restart();
    let [a, b, c] = [a, b, c].map(|speaker| reign.again(speaker));
    reign.report_held(a, vec![shared("x", one)], Vec::new());
    let lost = LeaderMessage::Lost { lease: one.lease, why: LostReason::Broken };
    assert_eq!(reign.take(a).first(), Some(&lost));
    reign.report(b, &[], Vec::new());
    reign.report(c, &[], vec![waiting(19, acquire("x"), None)]);
    assert!(reign.try_granted(c, 19).is_err());
    reign.release(a, one.lease);
    reign.granted(c, 19);
}

#[test]
fn kept_shared_leases_are_all_recalled_when_a_writer_asks() {
    let mut reign = begin();
    let [a, b, c] = [1, 2, 3].map(|number| reign.session(number));
    let [one, other] = [a, b].map(|speaker| {
        reign.acquire(speaker, 1, keep(read("x")));
        let grant = reign.granted(speaker, 1);
        reign.say(speaker, ClientMessage::Use { lease: grant.lease, kept: true });
        grant
    });
    reign.acquire(c, 1, read("x"));
    let third = reign.granted(c, 1);
    assert!(!is_recalled(&mut reign, a, one.lease), "readers do not stand in its way");
    reign.release(c, third.lease);
    // A try waits for the answers.
    reign.acquire(c, 2, once(acquire("x")));
    assert!(is_recalled(&mut reign, a, one.lease) && is_recalled(&mut reign, b, other.lease));
    reign.release(a, one.lease);
    assert!(reign.refused(c, 2).is_none());
    reign.release(b, other.lease);
    let writer = reign.granted(c, 2);
    // From now on a reader is recalled at once, since a writer waits behind it.
    reign.acquire(a, 2, keep(read("x")));
    reign.acquire(b, 2, acquire("x"));
    reign.release(c, writer.lease);
    let heard = reign.take(a);
    let is_granted = |m: &LeaderMessage| matches!(m, LeaderMessage::Granted { .. });
    let is_asked = |m: &LeaderMessage| matches!(m, LeaderMessage::Recall { .. });
    let places = [&is_granted as &dyn Fn(&LeaderMessage) -> bool, &is_asked]
        .map(|is_it| heard.iter().position(is_it).expect("it is told"));
    assert!(places[0] < places[1], "{heard:?}");
}

#[test]
fn a_recall_that_was_lost_is_told_again_on_the_next_connection() {
    let mut reign = begin();
    let [a, b, _] = [1, 2, 3].map(|number| reign.session(number));
    reign.acquire(a, 1, keep(read("x")));
    let one = reign.granted(a, 1);
    reign.acquire(b, 1, acquire("x"));
    assert!(is_recalled(&mut reign, a, one.lease));
    reign.disconnect(a);
    let a = reign.again(a);
    reign.report_held(a, vec![HeldLease { kept: true, ..shared("x", one) }], Vec::new());
    assert!(is_recalled(&mut reign, a, one.lease));
    // And by the next reign.
    reign.restart();
    let [a, b] = [a, b].map(|speaker| reign.again(speaker));
    reign.report_held(a, vec![HeldLease { kept: true, ..shared("x", one) }], Vec::new());
    reign.report(b, &[], vec![waiting(1, acquire("x"), None)]);
    let c = Speaker { session: 3, count: 2, connection: reign.connect(301) };
    reign.report(c, &[], Vec::new());
    assert!(is_recalled(&mut reign, a, one.lease));
    reign.say(a, ClientMessage::Use { lease: one.lease, kept: false });
    assert!(reign.try_granted(b, 1).is_err(), "a guard has it");
    reign.release(a, one.lease);
    reign.granted(b, 1);
}

#[test]
fn a_grant_that_crosses_a_cancel_is_handed_back_alone() {
    let mut reign = begin();
    let [a, b, c] = [1, 2, 3].map(|number| reign.session(number));
    reign.acquire(a, 1, acquire("x"));
    let writer = reign.granted(a, 1);
    for speaker in [b, c] {
        reign.acquire(speaker, 1, read("x"));
    }
    reign.release(a, writer.lease);
    // Both were granted when the cancel of one arrives.
    reign.cancel(b, 1);
    let (given_up, stays) = (reign.granted(b, 1), reign.granted(c, 1));
    reign.acquire(a, 2, acquire("x"));
    reign.release(b, given_up.lease);
    assert!(reign.try_granted(a, 2).is_err());
    assert!(is_good(&mut reign, c, "x", stays.token));
    reign.release(c, stays.lease);
    reign.granted(a, 2);
    // A grant that was never heard is told again, and no other with it.
    reign.acquire(b, 2, read("y"));
    reign.acquire(c, 2, read("y"));
    let [of_b, of_c] = [reign.granted(b, 2), reign.granted(c, 2)];
    let b = reign.again(b);
    reign.report(b, &[], vec![waiting(2, read("y"), None)]);
    assert_eq!(reign.granted(b, 2), of_b);
    assert_eq!(reign.take(c), []);
    let c = reign.again(c);
    reign.report(c, &[], Vec::new());
    assert!(is_good(&mut reign, b, "y", of_c.token), "the other bears it still");
}

#[test]
fn permits_are_counted_and_a_large_request_is_not_passed_by_small_ones() {
    // helix#2515; cats-effect#403, redisson#7206
    let mut reign = begin();
    let [a, b, c] = [1, 2, 3].map(|number| reign.session(number));
    reign.acquire(a, 1, permits("x", 2, 3));
    let first = reign.granted(a, 1);
    reign.acquire(b, 1, permits("x", 1, 3));
    let second = reign.granted(b, 1);
    assert!(second.token > first.token, "each has a token of its own");
    reign.acquire(c, 1, once(permits("x", 1, 3)));
    assert_eq!(reign.refused(c, 1), Some(Refusal::WouldBlock));
    reign.acquire(c, 2, permits("x", 3, 3));
    reign.acquire(b, 2, permits("x", 1, 3));
    reign.release(a, first.lease);
    assert!(reign.try_granted(b, 2).is_err(), "there is room for it, and another before it");
    reign.acquire(a, 2, once(permits("x", 1, 3)));
    assert_eq!(reign.refused(a, 2), Some(Refusal::WouldBlock));
    // The large one gives up: those behind it go on.
    reign.cancel(c, 2);
    let third = reign.granted(b, 2);
    // Permits come back with their session (redisson#4462).
    reign.acquire(c, 3, permits("x", 3, 3));
    reign.say(b, ClientMessage::Goodbye);
    assert!(reign.granted(c, 3).token > third.token);
}

/// The lease of three of four permits, as its holder reports it.
fn three_of_four(reign: &mut ReignScene, speaker: Speaker) -> HeldLease {
    let mode = Mode::Permits { count: 3, limit: 4 };
    reign.acquire(speaker, 1, permits("x", 3, 4));
    let (_, block) = reign.block(speaker, 1);
    HeldLease { mode, name: name("x"), ..block }
}

#[test]
fn each_of_several_permits_has_a_token_and_some_come_back_before_the_others() {
    let mut reign = begin();
    let [a, b, c] = [1, 2, 3].map(|number| reign.session(number));
    let three = three_of_four(&mut reign, a);
    assert_eq!(three.last.get() - three.first.get(), 2);
    reign.acquire(b, 1, permits("x", 3, 4));
    let lower = |count| ClientMessage::Lower { lease: three.lease, count };
    reign.say(a, lower(2));
    assert!(reign.try_granted(b, 1).is_err(), "two and three are more than four");
    // What is said late, or of another's lease, changes nothing.
    reign.say(a, lower(3));
    reign.say(c, lower(1));
    reign.say(a, ClientMessage::Lower { lease: LeaseId { epoch: 9, count: 9 }, count: 1 });
    reign.say(a, lower(0));
    let next = reign.granted(b, 1);
    assert!(next.token > three.last, "each token is one permit's");
    reign.acquire(c, 2, once(permits("x", 1, 4)));
    assert_eq!(
        reign.refused(c, 2),
        Some(Refusal::WouldBlock),
        "one is left however little is said"
    );
    for token in [three.first, three.last] {
        assert!(is_good(&mut reign, a, "x", token));
    }
    reign.release(a, three.lease);
    reign.acquire(c, 3, once(permits("x", 1, 4)));
    reign.granted(c, 3);
    assert!(!is_good(&mut reign, a, "x", three.last));
}

#[test]
fn permits_that_came_back_while_the_connection_or_the_leader_was_away_are_free() {
    let mut reign = begin();
    let [a, b, _] = [1, 2, 3].map(|number| reign.session(number));
    let three = three_of_four(&mut reign, a);
    let with = |count| {
        let mode = Mode::Permits { count, limit: 4 };
        vec![HeldLease { mode, ..three.clone() }]
    };
    reign.acquire(b, 1, permits("x", 2, 4));
    reign.disconnect(a);
    let a = reign.again(a);
    reign.report_held(a, with(2), Vec::new());
    let two = reign.granted(b, 1);
    reign.acquire(b, 2, permits("x", 1, 4));
    assert!(reign.try_granted(b, 2).is_err());
    reign.restart();
    let [a, b] = [a, b].map(|speaker| reign.again(speaker));
    reign.report_held(a, with(1), Vec::new());
    let mode = Mode::Permits { count: 2, limit: 4 };
    let last = Token::new(two.token.get() + 1).unwrap();
    let beside = HeldLease { mode, last, ..held("x", two) };
    reign.report_held(b, vec![beside], vec![waiting(2, permits("x", 1, 4), None)]);
    let third = reign.granted(b, 2);
    assert!(third.token > last);
    // No session was taken for another's rival.
    assert!(reign.notices.is_empty(), "{:?}", reign.notices);
    for token in [three.first, three.last, two.token, last] {
        assert!(is_good(&mut reign, a, "x", token));
    }
}

/// A hostile client's reports may contradict each other: the later use of a name counts.
#[test]
fn permits_of_two_limits_in_two_reports_are_a_conflict_and_no_fault() {
    let mut reign = begin();
    let [a, b] = [1, 2].map(|number| reign.session(number));
    reign.acquire(a, 1, permits("x", 1, 3));
    let first = reign.granted(a, 1);
    reign.acquire(b, 1, permits("x", 1, 3));
    let second = reign.granted(b, 1);
    reign.restart();
    let [a, b] = [a, b].map(|speaker| reign.again(speaker));
    let with = |limit, grant| {
        let mode = Mode::Permits { count: 1, limit };
        vec![HeldLease { mode, ..held("x", grant) }]
    };
    reign.report_held(a, with(3, first), Vec::new());
    reign.report_held(b, with(5, second), Vec::new());
    reign.commit();
    assert!(is_good(&mut reign, b, "x", second.token));
    assert!(!is_good(&mut reign, b, "x", first.token));
}

#[test]
fn permits_of_a_session_that_ran_out_come_back_once_that_is_durable() {
    // redisson#4462
    let mut reign = begin();
    let [a, b, _] = [1, 2, 3].map(|number| reign.session(number));
    three_of_four(&mut reign, a);
    reign.acquire(b, 1, permits("x", 2, 4));
    reign.disk_answers = false;
    for _ in 0..7 {
        reign.pass(ms(1_000));
        reign.renew(b);
    }
    assert!(reign.try_granted(b, 1).is_err(), "its end is on its way to the disk");
    reign.commit();
    reign.granted(b, 1);
}

#[test]
fn a_name_is_used_in_one_way_and_an_asker_in_another_is_told_which() {
    let mut reign = begin();
    let [a, b, _] = [1, 2, 3].map(|number| reign.session(number));
    reign.acquire(a, 1, permits("x", 1, 3));
    let permit = reign.granted(a, 1);
    reign.acquire(a, 2, read("y"));
    reign.granted(a, 2);
    let in_force = NameUse::Permits { limit: 3 };
    for (request, asked, in_force) in [
        (1, permits("x", 1, 4), in_force),
        (2, acquire("x"), in_force),
        (3, read("x"), in_force),
        (4, permits("y", 1, 3), NameUse::Lock),
    ] {
        reign.acquire(b, request, asked);
        assert_eq!(reign.refused(b, request), Some(Refusal::UsedAs(in_force)));
    }
    // Once no session has it any more it may be used as anything.
    reign.release(a, permit.lease);
    reign.acquire(b, 5, permits("x", 1, 4));
    reign.granted(b, 5);
    for (request, mode) in [
        (6, Mode::Permits { count: 0, limit: 3 }),
        (7, Mode::Permits { count: 4, limit: 3 }),
        (8, Mode::Permits { count: 1, limit: PERMITS_MAX + 1 }),
    ] {
        reign.acquire(b, request, Acquire { mode, ..acquire("z") });
        assert_eq!(reign.refused(b, request), Some(Refusal::NotSupported));
    }
    // A client of an earlier release is told what it knows.
    let old = Speaker { connection: reign.connect(3000), session: 30, count: 1 };
    let ClientMessage::Hello { .. } = hello(old) else { unreachable!() };
    let mut said = hello(old);
    if let ClientMessage::Hello { capabilities, .. } = &mut said {
        *capabilities = 0;
    }
    reign.say(old, said);
    reign.say(old, ClientMessage::Ready);
    reign.acquire(old, 1, acquire("x"));
    assert_eq!(reign.refused(old, 1), Some(Refusal::NotSupported));
}

#[test]
fn what_a_holder_brings_back_says_what_a_name_is_used_as() {
    let mut reign = begin();
    let [a, b, c] = [1, 2, 3].map(|number| reign.session(number));
    let mode = Mode::Permits { count: 2, limit: 3 };
    for speaker in [b, c] {
        reign.acquire(speaker, 1, read("another"));
    }
    reign.acquire(a, 1, Acquire { mode, ..acquire("x") });
    let permit = reign.granted(a, 1);
    reign.restart();
    let [a, b, c] = [a, b, c].map(|speaker| reign.again(speaker));
    // It cannot know yet.
    reign.report(b, &[], vec![waiting(2, read("x"), None)]);
    assert!(reign.refused(b, 2).is_none());
    reign.report_held(a, vec![HeldLease { mode, ..held("x", permit) }], Vec::new());
    assert_eq!(reign.refused(b, 2), Some(Refusal::UsedAs(NameUse::Permits { limit: 3 })));
    reign.report(c, &[], vec![waiting(2, permits("x", 2, 3), None)]);
    assert!(reign.try_granted(c, 2).is_err(), "the limit counts what was brought back");
    reign.release(a, permit.lease);
    reign.granted(c, 2);
}

#[test]
fn a_list_names_all_holders_with_their_modes() {
    let (mut reign, [a, b, c], _) = two_readers();
    reign.acquire(c, 11, permits("y", 2, 3));
    reign.acquire(c, 12, acquire("x"));
    reign.take(a);
    reign.say(a, ClientMessage::List { query: RequestId(50), after: None, limit: 9 });
    let heard = reign.take(a);
    let [LeaderMessage::Listed { locks, .. }] = &heard[..] else { panic!("{heard:?}") };
    let [x, y] = &locks[..] else { panic!("{locks:?}") };
    let holders = x.holder.iter().chain(&x.others).map(|holder| &*holder.identity.label);
    assert_eq!(holders.collect::<Vec<_>>(), ["session 1", "session 2"]);
    assert_eq!((x.holders, x.holder.as_ref().unwrap().mode), (2, Mode::Shared));
    assert_eq!(x.waiters[0].mode, Mode::Exclusive);
    assert_eq!(y.holder.as_ref().unwrap().mode, Mode::Permits { count: 2, limit: 3 });
    reign.take(b);
}

#[test]
fn at_least_is_for_exclusive_leases_and_at_most_for_all() {
    let (mut reign, [a, b, c], _) = two_readers();
    reign.acquire(c, 11, Acquire { at_least: Some(ms(100)), ..read("x") });
    assert_eq!(reign.refused(c, 11), Some(Refusal::NotSupported));
    reign.acquire(c, 12, Acquire { at_most: Some(ms(500)), ..read("x") });
    let short = reign.granted(c, 12);
    for _ in 0..2 {
        reign.pass(ms(300));
        [a, b, c].into_iter().for_each(|speaker| reign.renew(speaker));
    }
    let lost = |lease| LeaderMessage::Lost { lease, why: LostReason::HeldTooLong };
    assert!(reign.take(c).contains(&lost(short.lease)));
    let is_lost = |m: &LeaderMessage| matches!(m, LeaderMessage::Lost { .. });
    assert!(!reign.take(a).iter().any(is_lost), "the others have no such limit");
}
