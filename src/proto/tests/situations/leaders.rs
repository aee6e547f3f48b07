//! Reigns: their beginning, their end, their epochs.

use super::*;
use crate::error::{LostReason, Predecessor};

#[test]
fn nothing_is_said_before_the_reign_is_durable_and_nothing_granted_before_the_session_is() {
    let mut reign = begin();
    reign.leader = LeaderMachine::new(config(), fresh(), reign.now);
    reign.written.clear();
    reign.disk_answers = false;
    let a = Speaker { connection: reign.connect(1), session: 1, count: 1 };
    reign.report(a, &[], Vec::new());
    reign.acquire(a, 1, acquire("x"));
    assert_eq!(reign.take(a), []);
    assert!(reign.commit_one());
    assert_eq!(reign.written, [took_over(1, None)]);
    reign.drive();
    let heard = reign.take(a);
    assert!(matches!(heard[..], [LeaderMessage::Welcome { .. }]), "{heard:?}");
    assert!(reign.commit_one());
    assert!(matches!(reign.written[1], Record::SessionOpened { .. }));
    reign.drive();
    reign.granted(a, 1);
}

#[test]
fn what_came_before_the_disk_failed_is_answered_and_what_follows_it_is_understood() {
    let mut reign = begin();
    reign.leader = LeaderMachine::new(config(), fresh(), reign.now);
    reign.disk_answers = false;
    let a = Speaker { connection: reign.connect(1), session: 1, count: 1 };
    reign.report(a, &[], vec![waiting(1, acquire("x"), None)]);
    reign.acquire(a, 2, acquire("x"));
    reign.leader.handle_storage_failed(reign.now);
    reign.cancel(a, 1);
    reign.acquire(a, 3, acquire("x"));
    let heard = reign.take(a);
    for request in 1..=3 {
        let answer = |m: &LeaderMessage| matches!(m, LeaderMessage::Refused { request: r, why: Refusal::Storage, .. } if r.0 == request);
        assert!(heard.iter().any(answer), "request {request}: {heard:?}");
    }
    assert_eq!(reign.closed(a), None);
}

#[test]
fn a_session_that_only_looks_around_is_not_written() {
    let mut reign = begin();
    let a = reign.session(1);
    reign.say(a, ClientMessage::List { query: RequestId(1), after: None, limit: 10 });
    reign.renew(a);
    reign.say(a, ClientMessage::Goodbye);
    assert_eq!(reign.written, [took_over(1, None)]);
}

#[test]
fn a_leader_started_above_an_epoch_waits_for_the_longest_promise() {
    // live-mutex, etcd#17780
    let mut reign = ReignScene::new(LeaderConfig { epoch_above: Some(40), ..config() }, fresh());
    assert_eq!(reign.written, [started_above(41, REIGN)]);
    let a = reign.session(1);
    reign.acquire(a, 1, acquire("x"));
    for _ in 0..60 {
        reign.pass(ms(1000));
        reign.renew(a);
        assert!(reign.try_granted(a, 1).is_err());
    }
    reign.pass(ms(700));
    assert_eq!(reign.granted(a, 1).token.epoch(), 41);
}

#[test]
fn a_leader_killed_while_it_waits_above_an_epoch_waits_as_long_when_it_is_started_without() {
    let mut reign = ReignScene::new(LeaderConfig { epoch_above: Some(40), ..config() }, fresh());
    reign.config.epoch_above = None;
    reign.pass(ms(30_000));
    reign.restart();
    assert_eq!(reign.written, [took_over(42, Some(Duration::from_secs(60)))]);
    let a = reign.session(1);
    reign.acquire(a, 1, acquire("x"));
    for _ in 0..60 {
        reign.pass(ms(1000));
        reign.renew(a);
        assert!(reign.try_granted(a, 1).is_err());
    }
    reign.pass(ms(700));
    let lease = reign.granted(a, 1).lease;
    assert_eq!(lease.epoch, 42);
    // It has waited: the next reign need not.
    assert_eq!(reign.written.last(), Some(&Record::Waited));
    reign.release(a, lease);
    reign.say(a, ClientMessage::Goodbye);
    reign.restart();
    assert_eq!(reign.written, [took_over(43, None)]);
    let b = reign.session(2);
    reign.acquire(b, 1, acquire("x"));
    reign.granted(b, 1);
}

fn took_over(epoch: u32, waits_for: Option<Duration>) -> Record {
    Record::TookOver { epoch, reign: REIGN, waits_for, starts_above: false }
}

fn started_above(epoch: u32, reign: ReignId) -> Record {
    let waits_for = Some(Duration::from_secs(60));
    Record::TookOver { epoch, reign, waits_for, starts_above: true }
}

/// The leader has met this, and says what it does about it.
fn met(seen: u32, own: u32, pauses: Duration, takes: Option<u32>) -> Notice {
    Notice::OtherHistory { seen, own, pauses, takes }
}

fn raised(epoch: u32, starts_above: bool) -> Record {
    Record::EpochRaised { epoch, starts_above }
}

/// What a client hears of a history that this leader does not know.
fn not_leader(own: u32) -> LeaderMessage {
    LeaderMessage::NotLeader { try_next: None, cluster: ClusterId(1), epoch: Some(own) }
}

/// The longest time to live, as a leader counts it.
const LONGEST: Duration = Duration::from_nanos(60_600_000_001);

#[test]
fn a_leader_that_meets_a_later_history_pauses_its_grants_and_goes_on_sixteen_epochs_above() {
    // etcd#12528, #15247, #17780
    let mut reign = begin();
    let (a, b) = (reign.session(1), reign.session(2));
    reign.acquire(a, 1, acquire("x"));
    let lease = reign.granted(a, 1).lease;
    reign.pass(ms(5_000));
    reign.renew(a);
    reign.renew(b);
    let c = has_seen(&mut reign, 9, 6, ReignId(9));
    // Not `Gone`: the leader of epoch 6 may keep its leases for it.
    assert_eq!(reign.take(c), [not_leader(1)]);
    assert_eq!(reign.notices, [met(6, 1, LONGEST - ms(5_000), Some(22))]);
    // It goes on serving: what is held is renewed and released, and nothing new is granted.
    reign.take(a);
    reign.renew(a);
    assert!(matches!(reign.take(a)[..], [LeaderMessage::Renewed { .. }]));
    reign.release(a, lease);
    reign.acquire(a, 2, try_acquire("x"));
    reign.acquire(b, 1, acquire("y"));
    while reign.now < Time::ZERO + Duration::from_secs(1060) {
        reign.pass(ms(1_000));
        reign.renew(a);
        reign.renew(b);
        assert!(reign.try_granted(a, 2).is_err() && reign.try_granted(b, 1).is_err());
    }
    // The same client again sounds no second alarm.
    let c = has_seen(&mut reign, 10, 6, ReignId(9));
    assert_eq!(reign.take(c), [not_leader(1)]);
    assert_eq!((reign.notices.len(), reign.written.last()), (1, Some(&opened(&reign, 2))));
    // Nor does a grant precede the higher epoch.
    reign.disk_answers = false;
    reign.pass(ms(700));
    assert!(reign.try_granted(a, 2).is_err());
    reign.disk_answers = true;
    reign.commit();
    assert_eq!(reign.written.last(), Some(&raised(22, true)));
    let heard = reign.take(a);
    let [LeaderMessage::Raised { epoch: 22, attestation }, LeaderMessage::Granted { first, .. }] =
        heard[..]
    else {
        panic!("{heard:?}")
    };
    assert_eq!(attestation, seen_in(ClusterId(1), 22, REIGN).attestation);
    assert_eq!(first.epoch(), 22);
    assert_eq!(reign.granted(b, 1).lease.epoch, 22);
    // Now that client is served, and whatever it may still tell of that history.
    for (number, (epoch, of)) in (11..).zip([(6, 9), (21, 9), (1, 8)]) {
        let c = has_seen(&mut reign, number, epoch, ReignId(of));
        assert!(matches!(reign.take(c)[..], [LeaderMessage::Welcome { epoch: 22, .. }]));
    }
    // So it is after a restart.
    reign.config.reign = ReignId(2);
    reign.restart();
    let c = has_seen(&mut reign, 15, 21, ReignId(9));
    assert!(matches!(reign.take(c)[..], [LeaderMessage::Welcome { epoch: 23, .. }]));
    // Another one, later still.
    has_seen(&mut reign, 16, 22, ReignId(9));
    assert_eq!(reign.notices[1..], [met(22, 23, LONGEST, Some(38))]);
}

fn opened(reign: &ReignScene, session: u128) -> Record {
    let is_it = |record: &&Record| matches!(record, Record::SessionOpened { session: own, .. } if own.0 == session);
    reign.written.iter().find(is_it).expect("it was opened").clone()
}

#[test]
fn a_leader_older_than_every_promise_pauses_for_no_longer_than_its_disk() {
    let mut reign = begin();
    let a = reign.session(1);
    for _ in 0..70 {
        reign.pass(ms(1_000));
        reign.renew(a);
    }
    reign.disk_answers = false;
    let c = has_seen(&mut reign, 9, 4, ReignId(9));
    assert_eq!(reign.take(c), [not_leader(1)]);
    assert_eq!(reign.notices, [met(4, 1, Duration::ZERO, Some(20))]);
    reign.acquire(a, 1, acquire("x"));
    reign.disk_answers = true;
    reign.commit();
    assert_eq!(reign.granted(a, 1).token.epoch(), 20);
    let c = has_seen(&mut reign, 10, 4, ReignId(9));
    assert!(matches!(reign.take(c)[..], [LeaderMessage::Welcome { epoch: 20, .. }]));
}

#[test]
fn a_history_far_above_is_come_up_to_by_its_bound_each_day_while_others_are_served() {
    let mut reign = begin();
    let a = reign.session(1);
    let c = has_seen(&mut reign, 9, 2_500, ReignId(9));
    assert_eq!(reign.notices, [met(2_500, 1, LONGEST, None)]);
    assert_eq!(reign.take(c), [not_leader(1)]);
    let mut grants = 0;
    let mut epochs = Vec::new();
    for hour in 0..75 {
        let minutes = if hour == 0 { 2 } else { 60 };
        for _ in 0..minutes * 20 {
            reign.pass(ms(3_000));
            reign.renew(a);
        }
        reign.take(a);
        reign.acquire(a, 1 + hour, acquire("x"));
        let grant = reign.granted(a, 1 + hour);
        reign.release(a, grant.lease);
        grants += 1;
        if epochs.last() != Some(&grant.token.epoch()) {
            epochs.push(grant.token.epoch());
        }
    }
    assert_eq!((grants, epochs), (75, vec![1_025, 2_049, 2_516]));
    let above: Vec<_> =
        reign.written.iter().filter(|r| matches!(r, Record::EpochRaised { .. })).collect();
    assert_eq!(above, [&raised(1_025, false), &raised(2_049, false), &raised(2_516, true)]);
    let c = has_seen(&mut reign, 10, 2_500, ReignId(9));
    assert!(matches!(reign.take(c)[..], [LeaderMessage::Welcome { epoch: 2_516, .. }]));
}

#[test]
fn what_no_leader_has_said_counts_for_nothing() {
    let mut reign = begin();
    let a = reign.session(1);
    for (number, epoch) in [(9, 6), (10, Token::MAX_EPOCH - 1), (11, Token::MAX_EPOCH)] {
        let forger =
            Speaker { connection: reign.connect(number), session: number.into(), count: 1 };
        let true_one = seen_in(ClusterId(1), epoch, ReignId(9));
        let mut hello = hello(forger);
        if let ClientMessage::Hello { seen, .. } = &mut hello {
            // The code of another epoch, as one that was heard elsewhere.
            let attestation = seen_in(ClusterId(1), epoch - 1, ReignId(9)).attestation;
            *seen = Some(Box::new(Seen { attestation, ..true_one }));
        }
        reign.say(forger, hello);
        reign.say(forger, ClientMessage::Ready);
        assert!(matches!(reign.take(forger)[..], [LeaderMessage::Welcome { epoch: 1, .. }]));
    }
    assert_eq!((&reign.notices[..], &reign.written[..]), (&[][..], &[took_over(1, None)][..]));
    reign.acquire(a, 1, acquire("x"));
    assert_eq!(reign.granted(a, 1).token.epoch(), 1);
}

#[test]
fn a_history_at_the_last_epoch_leaves_its_clients_elsewhere_and_others_served() {
    let last = Recovered { epoch: Token::MAX_EPOCH - 1, ..fresh() };
    let mut reign = ReignScene::new(config(), last);
    let a = reign.session(1);
    let c = has_seen(&mut reign, 9, Token::MAX_EPOCH, ReignId(9));
    assert_eq!(reign.take(c), [not_leader(Token::MAX_EPOCH)]);
    for _ in 0..65 {
        reign.pass(ms(1_000));
        reign.renew(a);
    }
    reign.take(a);
    reign.acquire(a, 1, acquire("x"));
    assert_eq!(reign.granted(a, 1).token.epoch(), Token::MAX_EPOCH);
    let c = has_seen(&mut reign, 10, Token::MAX_EPOCH, ReignId(9));
    assert_eq!(reign.take(c), [not_leader(Token::MAX_EPOCH)]);
    assert_eq!(reign.notices.len(), 1);
}

/// A client that has seen this much reports to the leader.
fn has_seen(reign: &mut ReignScene, session: u64, epoch: u32, of: ReignId) -> Speaker {
    has_seen_in(ClusterId(1), reign, session, epoch, of)
}

fn has_seen_in(
    in_: ClusterId,
    reign: &mut ReignScene,
    session: u64,
    epoch: u32,
    of: ReignId,
) -> Speaker {
    let speaker = Speaker { connection: reign.connect(session), session: session.into(), count: 1 };
    let mut hello = hello(speaker);
    if let ClientMessage::Hello { seen, .. } = &mut hello {
        *seen = Some(Box::new(seen_in(in_, epoch, of)));
    }
    reign.say(speaker, hello);
    reign.say(speaker, ClientMessage::Ready);
    speaker
}

#[test]
fn a_leader_restored_from_before_its_last_start_is_told_by_clients_of_the_lost_reign() {
    // etcd#17780
    let (lost, above) = (ReignId(77), Token::new(Token::first_of(3).get() - 1).unwrap());
    for raises in [false, true] {
        let mut reign = begin();
        let a = reign.session(1);
        if raises {
            reign.acquire(a, 1, Acquire { above, ..acquire("x") });
            assert_eq!(reign.granted(a, 1).token.epoch(), 3);
        }
        // Its own clients, of whatever epoch of its reign, and one that has seen nothing yet.
        has_seen(&mut reign, 2, 1, REIGN);
        reign.session(3);
        assert_eq!(reign.notices, []);
        // The reign that was lost had epoch 1 as well. It need not have raised it as this one.
        let b = has_seen(&mut reign, 4, 1, lost);
        let own = if raises { 3 } else { 1 };
        assert_eq!(reign.notices, [met(1, own, LONGEST, Some(17))]);
        assert_eq!(reign.take(b), [not_leader(own)]);
        reign.acquire(a, 2, acquire("y"));
        assert!(reign.try_granted(a, 2).is_err());
        // The operator starts it above that.
        reign.config = LeaderConfig { epoch_above: Some(1), reign: ReignId(5), ..config() };
        reign.restart();
        assert_eq!(reign.written, [started_above(own + 1, ReignId(5))]);
        has_seen(&mut reign, 5, 1, lost);
        has_seen(&mut reign, 6, own, REIGN);
        assert_eq!(reign.notices.len(), 1, "{:?}", reign.notices);
    }
}

#[test]
fn a_lease_counts_only_if_the_journal_knows_its_reign() {
    // After a restore: a session that the copy knows reports a lease of a lost reign, though what
    // it has seen counts for nothing, since the secret was changed meanwhile.
    for is_lost in [false, true] {
        let (mut reign, a, granted) = {
            let mut reign = begin();
            let a = reign.session(1);
            reign.acquire(a, 1, acquire("x"));
            let granted = reign.granted(a, 1);
            reign.config.reign = ReignId(2);
            reign.restart();
            reign.config.reign = ReignId(3);
            reign.restart();
            (reign, a, granted)
        };
        // Of epoch 2, which was the lost reign's and this history's.
        let lease = LeaseId { epoch: 2, count: 1 };
        let token = Token::new(Token::first_of(2).get() + 1).unwrap();
        let of = if is_lost { ReignId(77) } else { ReignId(2) };
        let held = HeldLease { reign: of, ..held("x", HeardGrant { lease, token, ..granted }) };
        let a = reign.again(a);
        reign.report_held(a, vec![held.clone()], Vec::new());
        if !is_lost {
            assert!(matches!(reign.take(a)[..], [LeaderMessage::Welcome { .. }]));
            continue;
        }
        assert_eq!(reign.closed(a), Some(Close::Unconfirmed));
        assert_eq!(reign.notices, [], "it is no second holder");
        // Free, it waits for the answer or a time to live.
        let b = reign.session(2);
        let a = reign.again(a);
        reign.report_held(a, vec![held], Vec::new());
        let why = LostReason::Forgotten;
        assert_eq!(reign.take(a)[0], LeaderMessage::Lost { lease, why });
        reign.acquire(b, 1, acquire("x"));
        reign.pass(TTL);
        reign.renew(b);
        assert!(reign.try_granted(b, 1).is_err());
        reign.pass(ms(100));
        assert!(reign.granted(b, 1).token > token);
    }
}

/// A state directory that was copied in its first reign, lost in its third, and the copy of which has
/// seen three starts since: their ids are 21 to 23.
fn restored_and_restarted() -> ReignScene {
    let mut reign = begin();
    for id in 21..=23 {
        reign.config.reign = ReignId(id);
        reign.restart();
    }
    reign
}

#[test]
fn a_restored_leader_is_told_however_often_it_was_started_since() {
    // etcd#17780
    let mut reign = restored_and_restarted();
    // Clients that have seen nothing but this history, of whatever age.
    reign.session(1);
    for (session, (epoch, of)) in (2..).zip([(1, REIGN), (2, ReignId(21)), (3, ReignId(22))]) {
        has_seen(&mut reign, session, epoch, of);
    }
    has_seen_in(ClusterId(2), &mut reign, 5, 3, ReignId(13));
    assert_eq!(reign.notices, []);
    // It is past the epochs that were lost.
    let lost = has_seen(&mut reign, 6, 3, ReignId(13));
    assert_eq!(reign.notices, [met(3, 4, LONGEST, Some(19))]);
    assert_eq!(reign.take(lost), [not_leader(4)]);
    let ours = has_seen(&mut reign, 7, 3, ReignId(22));
    let heard = reign.take(ours);
    assert!(
        matches!(heard[..], [LeaderMessage::Welcome { epoch: 4, reign: ReignId(23), .. }]),
        "{heard:?}"
    );
}

#[test]
fn what_was_seen_below_the_start_above_it_is_not_judged_and_above_it_is() {
    let mut reign = restored_and_restarted();
    let (lost, new) = (ReignId(13), ReignId(31));
    reign.config = LeaderConfig { epoch_above: Some(3), reign: new, ..config() };
    reign.restart();
    assert_eq!(reign.written, [started_above(5, new)]);
    reign.config = LeaderConfig { epoch_above: None, reign: ReignId(32), ..config() };
    reign.restart();
    for (session, (epoch, of)) in
        (1..).zip([(3, lost), (3, ReignId(22)), (4, lost), (4, ReignId(23)), (5, new)])
    {
        has_seen(&mut reign, session, epoch, of);
    }
    assert_eq!(reign.notices, []);
    // The operator named too low an epoch.
    has_seen(&mut reign, 6, 5, lost);
    assert_eq!(reign.notices, [met(5, 6, LONGEST, Some(21))]);
}

#[test]
fn what_was_seen_is_one_line_of_text_that_only_a_later_epoch_replaces() {
    let seen = Seen {
        cluster: ClusterId(7),
        epoch: 5,
        reign: ReignId(1 << 60),
        attestation: Attestation(0xabc),
    };
    let line = "00000000000000000000000000000007 5 1000000000000000 \
                00000000000000000000000000000abc";
    assert_eq!(seen.to_line(), line);
    assert_eq!(Seen::from_line(&format!("{line}\n")), Some(seen));
    for other in [
        "",
        "7 5 1000000000000000 abc",
        &line[..40],
        &line[..51], // without a code
        &format!("{line} 1"),
        &line.replace('5', "8388608"),
    ] {
        assert_eq!(Seen::from_line(other), None, "{other:?}");
    }
    assert!(seen.is_news_to(None));
    for (news, is_news) in [
        (Seen { epoch: 6, ..seen }, true),
        (Seen { epoch: 1, cluster: ClusterId(8), ..seen }, true),
        (Seen { reign: ReignId(9), ..seen }, false),
        (Seen { epoch: 4, ..seen }, false),
    ] {
        assert_eq!(news.is_news_to(Some(seen)), is_news, "{news:?}");
    }
}

#[test]
fn of_more_reigns_than_are_remembered_the_first_are_not_judged() {
    let mut history = History::default();
    let id = |epoch: u32| ReignId((epoch * 3).into());
    let last = REIGNS_MAX as u32 + 10;
    (1..=last).for_each(|epoch| history.begin(epoch, id(epoch), false));
    assert!(history.agrees(10, ReignId(1)));
    assert!(!history.agrees(11, ReignId(1)) && history.agrees(11, id(11)));
    assert!(!history.agrees(last, id(last - 1)) && history.agrees(last, id(last)));
    // Epochs that it raised are its own.
    assert!(history.agrees(last + 5, id(last)));
}

#[test]
fn a_client_of_another_cluster_is_shown_this_cluster_and_loses_nothing() {
    let mut reign = begin();
    let a = Speaker { connection: reign.connect(9), session: 9, count: 3 };
    let mut hello = hello(a);
    let ClientMessage::Hello { cluster, .. } = &mut hello else { unreachable!() };
    *cluster = Some(ClusterId(2));
    reign.say(a, hello);
    reign.say(a, ClientMessage::Held { leases: vec![held_lease(LeaseId { epoch: 1, count: 1 })] });
    reign.say(a, ClientMessage::Waiting { requests: vec![waiting(4, acquire("x"), None)] });
    reign.say(a, ClientMessage::Ready);
    let heard = reign.take(a);
    let [LeaderMessage::Welcome { cluster, .. }, LeaderMessage::Refused { why, .. }] = &heard[..]
    else {
        panic!("{heard:?}")
    };
    assert_eq!((*cluster, *why), (ClusterId(1), Refusal::OtherCluster));
}

#[test]
fn a_session_belongs_to_its_proof_alone() {
    // curator#1121
    let mut reign = begin();
    let a = reign.session(1);
    let thief = Speaker { connection: reign.connect(9), count: 9, ..a };
    let mut hello = hello(thief);
    let ClientMessage::Hello { proof, .. } = &mut hello else { unreachable!() };
    *proof = Proof(999);
    reign.say(thief, hello);
    reign.say(thief, ClientMessage::Ready);
    assert!(matches!(reign.closed(thief), Some(Close::Protocol(_))));
    reign.renew(a);
    assert!(matches!(reign.take(a)[..], [LeaderMessage::Renewed { .. }]));
}

#[test]
fn a_forgotten_session_is_gone_and_may_come_as_another() {
    let mut reign = begin();
    let connection = reign.connect(5);
    for (count, held) in [(2, vec![]), (1, vec![LeaseId { epoch: 1, count: 3 }])] {
        let speaker = Speaker { connection, session: 5, count };
        reign.report(speaker, &held, Vec::new());
        assert_eq!(reign.take(speaker), [LeaderMessage::Gone { session: SessionId(5) }]);
        // What it still said in the old name counts for no session.
        reign.acquire(speaker, 1, acquire("x"));
        assert_eq!(reign.take(speaker), []);
    }
    let speaker = Speaker { connection, session: 6, count: 1 };
    reign.report(speaker, &[], vec![waiting(1, acquire("x"), None)]);
    reign.granted(speaker, 1);
}

#[test]
fn frames_out_of_order_end_the_connection() {
    let mut reign = begin();
    let first = Speaker { connection: reign.connect(1), session: 1, count: 1 };
    reign.renew(first);
    assert!(matches!(reign.closed(first), Some(Close::Protocol(_))));
    let within = Speaker { connection: reign.connect(2), session: 2, count: 1 };
    reign.say(within, hello(within));
    reign.renew(within);
    assert!(matches!(reign.closed(within), Some(Close::Protocol(_))));
    let twice = reign.session(3);
    reign.say(twice, hello(twice));
    assert!(matches!(reign.closed(twice), Some(Close::Protocol(_))));
}

#[test]
fn a_report_is_no_longer_than_what_a_session_may_have() {
    let mut reign = begin();
    let a = Speaker { connection: reign.connect(1), session: 1, count: 1 };
    let requests = (1..=20).map(|number| waiting(number, acquire("x"), None)).collect();
    reign.report(a, &[], requests);
    let heard = reign.take(a);
    assert!(matches!(heard[0], LeaderMessage::Welcome { .. }), "{heard:?}");
    let refused = heard.iter().filter_map(|message| match message {
        LeaderMessage::Refused { request, why: Refusal::TooManyWaiters, .. } => Some(request.0),
        _ => None,
    });
    assert!(refused.eq(5..=20), "{heard:?}");

    // As many again may have been given back unanswered.
    let b = Speaker { connection: reign.connect(2), session: 2, count: 2 };
    let leases = [1, 2, 3, 4, 5, 6, 7, 8, 9].map(|count| LeaseId { epoch: 1, count });
    reign.report(b, &leases[..8], Vec::new());
    assert_eq!(reign.take(b), [LeaderMessage::Gone { session: SessionId(2) }]);
    reign.report(b, &leases, Vec::new());
    assert!(matches!(reign.closed(b), Some(Close::Protocol(_))));

    // Requests without end are not even counted without end.
    let c = Speaker { connection: reign.connect(3), session: 3, count: 1 };
    reign.say(c, hello(c));
    let requests: Vec<_> = (0..1 << 14).map(|n| waiting(n, acquire("x"), None)).collect();
    for _ in 0..17 {
        reign.say(c, ClientMessage::Waiting { requests: requests.clone() });
    }
    assert!(matches!(reign.closed(c), Some(Close::Protocol(_))));
}

/// As many requests as weigh about so many bytes, with names of 255.
fn requests_of(bytes: usize) -> Vec<WaitingRequest> {
    let name = "n".repeat(255);
    (1..=bytes as u64 / 450).map(|number| waiting(number, acquire(&name), None)).collect()
}

/// A session that begins to report, and says so much of it.
fn reporting(reign: &mut ReignScene, number: u64, bytes: usize) -> Speaker {
    let speaker = Speaker { connection: reign.connect(number), session: number.into(), count: 1 };
    reign.say(speaker, hello(speaker));
    reign.say(speaker, ClientMessage::Waiting { requests: requests_of(bytes) });
    speaker
}

fn roomy() -> ReignScene {
    let (leases_per_session_max, waiters_per_session_max) = (65_536, 65_536);
    ReignScene::new(
        LeaderConfig { leases_per_session_max, waiters_per_session_max, ..config() },
        fresh(),
    )
}

#[test]
fn of_too_many_unfinished_reports_the_heaviest_is_given_up_and_may_come_again() {
    let mut reign = roomy();
    let (_, most) = reign.leader.unfinished();
    let oldest = reporting(&mut reign, 1, most / 2);
    let heavy = reporting(&mut reign, 2, most / 4);
    let modest = reporting(&mut reign, 3, most / 100);
    assert_eq!(reign.closed, []);
    let last = reporting(&mut reign, 4, most / 5);
    assert_eq!(reign.closed, [(heavy.connection, Close::Crowded)]);
    // While there is no room it is given up again, and no other.
    let heavy = reporting(&mut reign, 5, most / 2);
    assert_eq!(reign.closed(heavy), Some(Close::Crowded));
    assert_eq!(reign.closed.len(), 2);
    for speaker in [oldest, modest, last] {
        reign.say(speaker, ClientMessage::Ready);
        assert!(matches!(reign.take(speaker)[0], LeaderMessage::Welcome { .. }));
    }
    assert_eq!(reign.leader.unfinished().0, 0);
    let heavy = reporting(&mut reign, 6, most / 2);
    reign.say(heavy, ClientMessage::Ready);
    assert!(matches!(reign.take(heavy)[0], LeaderMessage::Welcome { .. }));
    assert_eq!(reign.closed.len(), 2);
}

#[test]
fn unfinished_reports_are_bounded_together_however_many_connections_send_them() {
    let mut reign = roomy();
    let (_, most) = reign.leader.unfinished();
    let share = most / 10;
    let speakers: Vec<_> = (1..=100).map(|number| reporting(&mut reign, number, share)).collect();
    assert!(reign.closed.len() >= 90, "{}", reign.closed.len());
    assert!(reign.leader.unfinished().0 <= most);
    // A session with little to report finds room beside them.
    let small = reporting(&mut reign, 101, share / 10);
    reign.say(small, ClientMessage::Ready);
    assert!(matches!(reign.take(small)[0], LeaderMessage::Welcome { .. }));
    // What is gone weighs nothing, however it went.
    speakers.into_iter().for_each(|speaker| reign.disconnect(speaker));
    assert_eq!(reign.leader.unfinished().0, 0);
    let silent = reporting(&mut reign, 102, share);
    reign.pass(ms(10_010));
    assert!(matches!(reign.closed(silent), Some(Close::Protocol(_))));
    assert_eq!(reign.leader.unfinished().0, 0);
}

#[test]
fn a_report_is_heard_to_its_end_however_much_it_weighs_alone() {
    let mut reign = roomy();
    let (_, most) = reign.leader.unfinished();
    let huge = reporting(&mut reign, 1, 3 * most);
    let other = reporting(&mut reign, 2, most / 100);
    assert_eq!(reign.closed, [(other.connection, Close::Crowded)]);
    reign.say(huge, ClientMessage::Ready);
    assert!(matches!(reign.take(huge)[0], LeaderMessage::Welcome { .. }));
}

#[test]
fn a_connection_that_does_not_report_in_time_is_closed_and_one_that_did_is_not() {
    let mut reign = begin();
    let served = reign.session(1);
    let silent = Speaker { connection: reign.connect(2), session: 2, count: 1 };
    let half = Speaker { connection: reign.connect(3), session: 3, count: 1 };
    reign.say(half, hello(half));
    // Without a session, it is given as long again.
    let gone = Speaker { connection: reign.connect(4), session: 4, count: 7 };
    reign.pass(ms(5000));
    reign.renew(served);
    reign.report(gone, &[], Vec::new());
    assert_eq!(reign.take(gone), [LeaderMessage::Gone { session: SessionId(4) }]);
    reign.pass(ms(4990));
    reign.renew(served);
    reign.say(half, ClientMessage::Waiting { requests: Vec::new() });
    assert_eq!(reign.closed, []);
    reign.pass(ms(20));
    let closed: Vec<_> = reign.closed.iter().map(|(connection, _)| *connection).collect();
    assert_eq!(closed, [silent.connection, half.connection]);
    reign.pass(ms(4000));
    reign.renew(served);
    reign.pass(ms(1000));
    assert!(matches!(reign.closed(gone), Some(Close::Protocol(_))));
    assert_eq!(reign.closed(served), None);
}

#[test]
fn a_disk_that_fails_ends_the_reign() {
    let mut reign = begin();
    let (a, b) = (reign.session(1), reign.session(2));
    reign.acquire(a, 1, acquire("x"));
    let lease = reign.granted(a, 1).lease;
    reign.acquire(b, 1, acquire("x"));
    reign.take(b);
    reign.leader.handle_storage_failed(reign.now);
    reign.drive();
    assert_eq!(reign.refused(b, 1), Some(Refusal::Storage));
    reign.renew(a);
    assert_eq!(reign.take(a), []);
    reign.release(a, lease);
    reign.acquire(b, 2, acquire("x"));
    assert_eq!(reign.refused(b, 2), Some(Refusal::Storage));
    reign.pass(LONG);
    assert_eq!(reign.take(a), [LeaderMessage::Released { lease }]);
}

/// The client would take the epoch that it is shown for the last of its history, and tell the next
/// reign of nothing else.
#[test]
fn a_leader_with_a_failed_disk_shows_its_epoch_to_no_client_of_another_history() {
    let mut reign = begin();
    let a = reign.session(1);
    reign.leader.handle_storage_failed(reign.now);
    reign.drive();
    for (number, epoch) in [(2, 1), (3, 6)] {
        let of_another = has_seen(&mut reign, number, epoch, ReignId(9));
        assert_eq!(reign.take(of_another), [not_leader(1)]);
    }
    let of_this = has_seen(&mut reign, 4, 1, REIGN);
    let heard = reign.take(of_this);
    let none = Duration::ZERO;
    assert!(
        matches!(heard[..], [LeaderMessage::Welcome { time_to_live, epoch: 1, .. }] if time_to_live == none),
        "{heard:?}"
    );
    // What the client has seen reaches the next reign.
    reign.restart();
    let a = reign.again(a);
    reign.report(a, &[], Vec::new());
    assert_eq!(reign.notices, []);
    has_seen(&mut reign, 5, 6, ReignId(9));
    assert_eq!(reign.notices.len(), 1);
    reign.acquire(a, 1, acquire("x"));
    assert!(reign.try_granted(a, 1).is_err());
}

/// The token before the first of this epoch.
fn before(epoch: u32) -> Token {
    Token::new(Token::first_of(epoch).get() - 1).unwrap()
}

#[test]
fn an_above_past_every_token_given_waits_alone_for_the_first_token_of_a_new_epoch() {
    let mut reign = begin();
    let [a, b] = [reign.session(1), reign.session(2)];
    let above = |token| Acquire { above: token, ..acquire("x") };
    reign.has_asked_for(b, 1, "y2");
    reign.has_asked_for(b, 2, "y3");
    reign.acquire(b, 3, acquire("given"));
    let given = reign.granted(b, 3).token;
    // Explained by a token that this reign gave, of whatever name.
    reign.acquire(a, 1, above(given));
    let grant = reign.granted(a, 1);
    assert_eq!(grant.token, given.next().unwrap());
    reign.release(a, grant.lease);
    // One further in the same epoch, which no token explains, and the last of epoch 7.
    for (request, known, epoch) in [(2, grant.token.next().unwrap(), 2), (3, before(8), 8)] {
        reign.disk_answers = false;
        reign.acquire(a, request, above(known));
        assert!(reign.try_granted(a, request).is_err());
        reign.acquire(b, request + 2, acquire(&format!("y{request}")));
        let other = reign.granted(b, request + 2).token;
        assert!(other.epoch() < epoch, "no other session waits for it");
        reign.disk_answers = true;
        reign.commit();
        assert_eq!(reign.written.last(), Some(&raised(epoch, false)));
        let grant = reign.granted(a, request);
        assert_eq!(
            (grant.token, grant.lease.epoch),
            (Token::first_of(epoch).next().unwrap(), epoch)
        );
        reign.release(a, grant.lease);
    }
}

#[test]
fn clients_lift_the_epoch_by_a_thousand_a_day_and_more_is_refused_in_words() {
    let mut reign = begin();
    let a = reign.session(1);
    let mut request = 0;
    let mut ask = |reign: &mut ReignScene, above: Token| {
        request += 1;
        reign.acquire(a, request, Acquire { above, ..acquire("x") });
        let heard = reign.take(a);
        let answer = heard.iter().find_map(|message| match message {
            LeaderMessage::Granted { lease, first, .. } => Some(Ok((*lease, first.epoch()))),
            LeaderMessage::Refused { why, .. } => Some(Err(*why)),
            _ => None,
        });
        let answer = answer.unwrap_or_else(|| panic!("{heard:?}"));
        answer.map(|(lease, epoch)| {
            reign.release(a, lease);
            epoch
        })
    };
    // Half of all epochs by one message.
    assert_eq!(ask(&mut reign, Token::first_of(1 << 22)), Err(Refusal::TooFarAbove));
    assert_eq!(ask(&mut reign, before(1_026)), Err(Refusal::TooFarAbove));
    assert_eq!(ask(&mut reign, before(600)), Ok(600));
    assert_eq!(ask(&mut reign, before(1_026)), Err(Refusal::TooFarAbove));
    assert_eq!(ask(&mut reign, before(1_025)), Ok(1_025));
    assert_eq!(ask(&mut reign, before(1_026)), Err(Refusal::TooFarAbove));
    assert_eq!(ask(&mut reign, Token::ZERO), Ok(1_025), "others are served");
    let wait = |reign: &mut ReignScene, hours: u64| {
        for _ in 0..hours * 1_200 {
            reign.pass(ms(3_000));
            reign.renew(a);
        }
        reign.take(a);
    };
    wait(&mut reign, 24);
    assert_eq!(ask(&mut reign, before(1_026)), Err(Refusal::TooFarAbove));
    wait(&mut reign, 1);
    assert_eq!(ask(&mut reign, before(1_026)), Ok(1_026));
    assert_eq!(ask(&mut reign, Token::MAX), Err(Refusal::Tokens));
}

#[test]
fn a_reign_with_a_used_up_count_takes_the_next_epoch_unbounded() {
    let mut reign = ReignScene::new(LeaderConfig { block: 1 << 31, ..config() }, fresh());
    let [a, b] = [reign.session(1), reign.session(2)];
    for (request, epoch) in (1..).zip([1, 2, 3]) {
        reign.acquire(a, request, Acquire { keep: true, ..acquire("x") });
        let (lease, block) = reign.block(a, request);
        assert_eq!(block.first.epoch(), epoch);
        // Its tokens never leave its epoch, however often it asks for more.
        for _ in 0..520 {
            reign.say(a, ClientMessage::TopUp { lease });
        }
        let heard = reign.take(a);
        let Some(LeaderMessage::ToppedUp { last, .. }) = heard.last() else { panic!("{heard:?}") };
        assert_eq!(*last, before(epoch + 1));
        reign.say(a, ClientMessage::Release { lease, last_used: *last, how: Predecessor::Clean });
        reign.take(a);
    }
    reign.acquire(b, 1, acquire("x"));
    assert_eq!(reign.granted(b, 1).token, Token::first_of(4).next().unwrap());
    let raises = reign.written.iter().filter(|r| matches!(r, Record::EpochRaised { .. })).count();
    assert_eq!(raises, 3);
}

#[test]
fn a_lock_waits_once_for_a_higher_epoch_however_often_it_is_asked_for() {
    let mut reign = begin();
    let [a, b] = [reign.session(1), reign.session(2)];
    [a, b].into_iter().for_each(|speaker| reign.has_asked_for(speaker, 1, "x"));
    reign.disk_answers = false;
    reign.acquire(a, 2, Acquire { above: before(8), ..acquire("x") });
    for request in 2..100 {
        reign.acquire(b, request, acquire("x"));
        reign.cancel(b, request);
    }
    assert_eq!(reign.leader.awaiting_epoch(), 1);
    reign.commit();
    assert_eq!(reign.leader.awaiting_epoch(), 0);
    assert_eq!(reign.granted(a, 2).token.epoch(), 8);
}

#[test]
fn a_disk_without_room_for_a_session_refuses_what_it_waits_for_and_ends_nothing() {
    let mut reign = begin();
    let [a, b] = [reign.session(1), reign.session(2)];
    reign.acquire(a, 1, acquire("x"));
    let held = reign.granted(a, 1);
    reign.disk_answers = false;
    reign.acquire(b, 1, acquire("y"));
    reign.acquire(b, 2, acquire("z"));
    assert_eq!(reign.pending.len(), 2, "its opening, and that it has asked for another name");
    while let Some(pending) = reign.pending.pop_front() {
        reign.leader.handle_unwritten(pending.unwritten(), reign.now);
    }
    reign.disk_answers = true;
    reign.drive();
    let heard = reign.take(b);
    for request in 1..=2 {
        let answer = |m: &LeaderMessage| matches!(m, LeaderMessage::Refused { request: r, why: Refusal::DiskFull, .. } if r.0 == request);
        assert!(heard.iter().any(answer), "request {request}: {heard:?}");
    }
    reign.renew(a);
    reign.renew(b);
    assert!(matches!(reign.take(b)[..], [LeaderMessage::Renewed { .. }]));
    reign.release(a, held.lease);
    reign.acquire(a, 2, acquire("x"));
    reign.granted(a, 2);
    // With room again it is opened anew.
    reign.acquire(b, 3, acquire("y"));
    reign.granted(b, 3);
    // One that left meanwhile leaves nothing behind.
    let c = reign.session(3);
    reign.disk_answers = false;
    reign.acquire(c, 1, acquire("w"));
    reign.disconnect(c);
    let pending = reign.pending.pop_front().expect("its opening is to be written");
    reign.leader.handle_unwritten(pending.unwritten(), reign.now);
    reign.disk_answers = true;
    reign.drive();
    let again = reign.again(c);
    reign.report(again, &[], Vec::new());
    assert_eq!(reign.take(again), [LeaderMessage::Gone { session: SessionId(3) }]);
}

#[test]
fn a_held_lock_is_small() {
    // With an entry in the table of names (some 40 bytes), the name's own text (48 with what the
    // allocator adds, at 16 bytes) and an entry in its session (some 25), under 200 bytes.
    assert!(size_of::<Option<crate::proto::lock::Lock>>() <= 80);
}

#[test]
fn a_client_that_is_too_old_is_told_so_and_loses_nothing() {
    let mut reign = begin();
    let a = Speaker { connection: reign.connect(900), session: 9, count: 3 };
    let mut hello = hello(a);
    let ClientMessage::Hello { version, .. } = &mut hello else { unreachable!() };
    *version = VERSION_OLDEST - 1;
    reign.say(a, hello);
    reign.say(a, ClientMessage::Held { leases: vec![held_lease(LeaseId { epoch: 1, count: 1 })] });
    reign.say(a, ClientMessage::Waiting { requests: vec![waiting(4, acquire("x"), None)] });
    reign.say(a, ClientMessage::Ready);
    let heard = reign.take(a);
    let [LeaderMessage::Welcome { version, .. }, LeaderMessage::Refused { why, .. }] = &heard[..]
    else {
        panic!("{heard:?}")
    };
    assert_eq!((*version, *why), (VERSION_OLDEST - 1, Refusal::TooOld));
}

#[test]
fn both_go_on_in_the_older_of_their_versions() {
    let mut reign = begin();
    let a = Speaker { connection: reign.connect(900), session: 9, count: 1 };
    let mut hello = hello(a);
    let ClientMessage::Hello { version, .. } = &mut hello else { unreachable!() };
    *version = VERSION + 7;
    reign.say(a, hello);
    reign.say(a, ClientMessage::Ready);
    let heard = reign.take(a);
    assert!(matches!(heard[..], [LeaderMessage::Welcome { version: VERSION, .. }]), "{heard:?}");
}

#[test]
fn what_only_a_later_release_grants_is_refused_and_never_granted_as_something_else() {
    let mut reign = begin();
    let a = reign.session(1);
    let with = |extras| Acquire { extras: Some(Box::new(extras)), ..acquire("x") };
    let none = Mode::Permits { count: 2, limit: 1 };
    let value = Some([1].into());
    let later = [
        Acquire { mode: none, ..acquire("x") },
        Acquire { mode: Mode::Shared, ..with(Extras { value, ..Extras::default() }) },
    ];
    for (request, acquire) in (1..).zip(later) {
        reign.acquire(a, request, acquire);
        assert_eq!(reign.refused(a, request), Some(Refusal::NotSupported));
    }
    // What else it holds changes nothing of what is granted.
    let holds = vec![LeaseId { epoch: 1, count: 1 }];
    reign.acquire(a, 9, with(Extras { holds, ..Extras::default() }));
    reign.granted(a, 9);
    let b = Speaker { connection: reign.connect(900), session: 9, count: 1 };
    reign.say(b, hello(b));
    let lease = held_lease(LeaseId { epoch: 1, count: 1 });
    reign.say(b, ClientMessage::Held { leases: vec![HeldLease { mode: none, ..lease }] });
    assert!(matches!(reign.closed(b), Some(Close::Protocol(_))));
}
