//! What a leader tells of itself: events for a log, counts for metrics, a look at its locks.

use super::*;
use crate::proto::leader::{LostNames, MachineEvent, tally::RECALL_LATE};

fn events(reign: &mut ReignScene) -> Vec<MachineEvent> {
    reign.leader.take_events()
}

fn keep(text: &str) -> Acquire {
    Acquire { keep: true, ..acquire(text) }
}

#[test]
fn a_session_is_told_when_it_opens_and_how_it_ends() {
    let mut reign = begin();
    events(&mut reign); // of the grace, in which it waits for no session
    let (first, looker, silent) = (reign.session(1), reign.session(2), reign.session(3));
    assert_eq!(events(&mut reign), [], "a session that asks for nothing is no news");
    reign.acquire(first, 1, acquire("a"));
    let opened = events(&mut reign);
    let [MachineEvent::SessionOpened { session, time_to_live: TTL }] = &opened[..] else {
        panic!("{opened:?}")
    };
    assert_eq!((session.session, session.client), (SessionId(1), ClientId(1)));
    reign.acquire(first, 2, acquire("b"));
    assert_eq!(events(&mut reign), [], "it is opened once");

    reign.say(looker, ClientMessage::Goodbye);
    assert_eq!(events(&mut reign), []);
    reign.say(first, ClientMessage::Goodbye);
    assert!(matches!(&events(&mut reign)[..], [MachineEvent::SessionEnded { .. }]));

    for (request, text) in ["d", "c", "f", "e"].into_iter().enumerate() {
        reign.acquire(silent, request as u64 + 1, acquire(text));
    }
    events(&mut reign);
    reign.pass(LONG);
    let expired = events(&mut reign);
    let [MachineEvent::SessionExpired { session, lost }] = &expired[..] else {
        panic!("{expired:?}")
    };
    assert_eq!(session.session, SessionId(3));
    assert_eq!(*lost, LostNames { some: ["d", "c", "f"].map(name).into(), count: 4 });
    let sessions = reign.leader.tally().unwrap().sessions;
    assert_eq!((sessions.opened, sessions.ended, sessions.expired), (2, 1, 1));
}

#[test]
fn a_break_is_told_with_its_author_and_its_holder() {
    let mut reign = begin();
    let (holder, operator) = (reign.session(1), reign.session(2));
    reign.acquire(holder, 1, acquire("job"));
    let token = reign.granted(holder, 1).token;
    events(&mut reign);
    let query = RequestId(7);
    let other = Token::new(token.get() + 1).unwrap();
    reign.disk_answers = false;
    // The wrong one, the right one, and that again while its loss is on the way to the disk.
    for token in [other, token, token] {
        reign.say(operator, ClientMessage::Break { query, name: name("job"), token });
    }
    let told = events(&mut reign);
    let [MachineEvent::Broken { name: broken, token: taken, holder: Some(from), by }] = &told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!((broken, *taken), (&name("job"), token));
    assert_eq!((from.session, by.session), (SessionId(1), SessionId(2)));
    assert_eq!(reign.leader.tally().unwrap().taken_away.broken, 1);
}

#[test]
fn a_recall_is_told_as_late_once_unless_it_is_answered() {
    let mut reign = begin();
    let (keeper, waiter) = (reign.session(1), reign.session(2));
    reign.acquire(keeper, 1, keep("quick"));
    let (quick, _) = reign.block(keeper, 1);
    reign.acquire(keeper, 2, keep("slow"));
    let (slow, _) = reign.block(keeper, 2);
    events(&mut reign);
    reign.acquire(waiter, 1, acquire("quick"));
    reign.say(keeper, ClientMessage::Use { lease: quick, kept: false });
    reign.acquire(waiter, 2, acquire("slow"));
    events(&mut reign);
    reign.pass(RECALL_LATE - ms(1));
    assert_eq!(events(&mut reign), []);
    reign.pass(ms(200));
    let told = events(&mut reign);
    let [MachineEvent::RecallLate { name: late, holder, .. }] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!((late, holder.session), (&name("slow"), SessionId(1)));
    reign.pass(ms(1000));
    assert_eq!(events(&mut reign), [], "it is told once");
    reign.release(keeper, slow);
    reign.granted(waiter, 2);
    let tally = reign.leader.tally().unwrap();
    assert_eq!((tally.recalls, tally.recalls_late), (2, 1));
}

/// The key of a lease is another one after a change of its mode.
#[test]
fn a_recall_of_a_lease_that_has_changed_its_mode_is_over() {
    let mut reign = begin();
    let (keeper, waiter) = (reign.session(1), reign.session(2));
    reign.acquire(keeper, 1, keep("job"));
    let (lease, block) = reign.block(keeper, 1);
    reign.acquire(waiter, 1, acquire("job"));
    events(&mut reign);
    reign.say(
        keeper,
        ClientMessage::Downgrade {
            request: RequestId(2),
            lease,
            last_used: block.first,
            to: Mode::Shared,
        },
    );
    reign.pass(RECALL_LATE + ms(200));
    assert_eq!(reign.leader.tally().unwrap().recalls_late, 0);
    reign.release(keeper, lease);
    reign.granted(waiter, 1);
}

#[test]
fn what_leaves_no_room_is_told_with_the_session_that_wanted_it() {
    let mut reign = begin();
    let session = reign.session(1);
    for request in 1..=6 {
        reign.acquire(session, request, acquire(&format!("name {request}")));
    }
    let told = events(&mut reign);
    let limits = told.iter().filter_map(|event| match event {
        MachineEvent::RequestRefused { why, .. } => Some(*why),
        _ => None,
    });
    assert_eq!(Vec::from_iter(limits), [Refusal::TooManyLeases; 2]);
    // That another session has it is an answer, not a limit.
    let other = reign.session(2);
    reign.acquire(other, 1, try_acquire("name 1"));
    assert!(!events(&mut reign).iter().any(|e| matches!(e, MachineEvent::RequestRefused { .. })));
    let refused: Vec<_> = reign.leader.tally().unwrap().refused.parts().collect();
    assert!(refused.contains(&("too_many_leases", 2)), "{refused:?}");
    assert!(refused.contains(&("would_block", 1)), "{refused:?}");
}

#[test]
fn a_lock_that_is_held_too_long_is_told() {
    let mut reign = begin();
    let session = reign.session(1);
    reign.acquire(session, 1, Acquire { at_most: Some(ms(100)), ..acquire("job") });
    events(&mut reign);
    reign.pass(ms(300));
    let told = events(&mut reign);
    assert!(
        matches!(&told[..], [MachineEvent::HeldTooLong { name: n, .. }] if *n == name("job")),
        "{told:?}"
    );
}

#[test]
fn waits_and_holds_are_counted_as_they_were() {
    let mut reign = begin();
    let (holder, waiter) = (reign.session(1), reign.session(2));
    reign.acquire(holder, 1, acquire("job"));
    let lease = reign.granted(holder, 1).lease;
    reign.acquire(waiter, 1, acquire("job"));
    reign.pass(ms(30));
    reign.release(holder, lease);
    reign.granted(waiter, 1);
    reign.acquire(waiter, 2, Acquire { mode: Mode::Shared, ..acquire("read") });
    let tally = reign.leader.tally().unwrap();
    assert_eq!(tally.grants, [2, 1, 0, 0]);
    let counted = |parts: Vec<(f64, u64)>| -> Vec<(f64, u64)> {
        parts.into_iter().filter(|(_, count)| *count > 0).collect()
    };
    assert_eq!(counted(tally.waits.parts().collect()), [(0.0001, 2), (0.05, 1)]);
    assert_eq!(counted(tally.holds.parts().collect()), [(0.05, 1)]);
    assert!((tally.holds.sum() - 0.03).abs() < 1e-9);
    let longest = tally.minute.seconds(reign.now).map(|second| second.longest).max();
    assert_eq!(longest, Some(ms(30)));
}

#[test]
fn a_look_shows_what_most_wait_for_first() {
    let mut reign = begin();
    let holder = reign.session(1);
    for (request, text) in ["a", "b", "c"].into_iter().enumerate() {
        reign.acquire(holder, request as u64 + 1, acquire(text));
    }
    let waiters = [reign.session(2), reign.session(3)];
    reign.acquire(waiters[0], 1, acquire("b"));
    reign.acquire(waiters[0], 2, acquire("c"));
    reign.acquire(waiters[1], 1, acquire("c"));
    let shown = |limit| {
        let survey = reign.leader.survey(limit);
        assert_eq!(survey.names, 3);
        let locks = survey.locks.into_iter();
        Vec::from_iter(locks.map(|(lock, waiting)| (lock.name.to_string(), waiting)))
    };
    let all = [("c".to_owned(), 2), ("b".to_owned(), 1), ("a".to_owned(), 0)];
    assert_eq!(shown(10), all);
    assert_eq!(shown(2), all[..2]);
    let counts = reign.leader.counts();
    assert_eq!((counts.leases, counts.waiters, reign.leader.longest_queue()), (3, 3, 2));
    assert_eq!((counts.sessions, counts.names, counts.connections), (3, 3, 3));
    assert!(!counts.in_grace);
}

#[test]
fn sessions_that_come_back_are_counted_and_the_end_of_grace_is_told() {
    let mut reign = begin();
    let speaker = reign.session(1);
    reign.acquire(speaker, 1, acquire("job"));
    let grant = reign.granted(speaker, 1);
    reign.restart();
    assert!(reign.leader.counts().in_grace);
    let again = reign.again(speaker);
    reign.report_held(again, vec![held("job", grant)], Vec::new());
    let told = events(&mut reign);
    assert!(matches!(&told[..], [MachineEvent::GraceOver { .. }]), "{told:?}");
    let tally = reign.leader.tally().unwrap();
    assert_eq!((tally.sessions.returned, tally.leases_reclaimed, tally.grants), (1, 1, [0; 4]));
    assert!(!reign.leader.counts().in_grace);
}

#[test]
fn a_lease_that_no_session_can_have_is_counted_as_forgotten() {
    let mut reign = begin();
    let speaker = reign.session(1);
    reign.acquire(speaker, 1, acquire("job"));
    let grant = reign.granted(speaker, 1);
    reign.restart();
    let again = reign.again(speaker);
    reign.report_held(again, vec![held("another", grant)], Vec::new());
    assert!(matches!(&reign.notices[..], [Notice::NotAskedFor { .. }]), "{:?}", reign.notices);
    assert_eq!(reign.leader.tally().unwrap().taken_away.forgotten, 1);
}

#[test]
fn a_late_recall_is_told_by_a_busy_leader_too() {
    let mut reign = begin();
    let (keeper, waiter) = (reign.session(1), reign.session(2));
    reign.acquire(keeper, 1, keep("job"));
    reign.block(keeper, 1);
    reign.acquire(waiter, 1, acquire("job"));
    events(&mut reign);
    for _ in 0..12 {
        reign.now = reign.now + ms(50);
        reign.renew(waiter);
    }
    let told = events(&mut reign);
    assert!(matches!(&told[..], [MachineEvent::RecallLate { .. }]), "{told:?}");
}

#[test]
fn the_last_minute_is_shown_by_a_clock_that_lateness_does_not_stop() {
    let mut reign = begin();
    let speaker = reign.session(1);
    reign.acquire(speaker, 1, acquire("early"));
    reign.renew(speaker);
    reign.now = reign.now + Duration::from_secs(120); // it slept
    reign.acquire(speaker, 2, acquire("late"));
    let minute = &reign.leader.tally().unwrap().minute;
    let shown: Vec<_> = minute.seconds(reign.now).map(|second| second.grants).collect();
    assert_eq!((shown.iter().sum::<u32>(), shown.last()), (1, Some(&1)));
}

#[test]
fn nothing_is_told_unless_that_is_asked_for() {
    let mut reign =
        ReignScene::new(LeaderConfig { tells: LeaderTells::default(), ..config() }, fresh());
    let speaker = reign.session(1);
    reign.acquire(speaker, 1, acquire("job"));
    reign.pass(LONG);
    assert_eq!(events(&mut reign), []);
    assert!(reign.leader.tally().is_none());
}
