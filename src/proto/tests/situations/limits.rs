//! Sessions that take and never answer: what a leader remembers of them is bounded.

use super::*;

/// It holds what it may, lets all of that run out, and says nothing of it.
#[test]
fn a_session_that_does_not_answer_for_losses_gets_no_more_leases_until_it_does() {
    let mut reign = begin();
    let a = reign.session(1);
    let wish = |text: &str| Acquire { at_most: Some(ms(10)), ..acquire(text) };
    let mut first = None;
    for request in 1..=20 {
        reign.acquire(a, request, wish(&format!("{request}")));
        match reign.try_granted(a, request) {
            Ok(grant) if request <= 4 => first = first.or(Some(grant.lease)),
            other => assert!(request > 4, "{request}: {other:?}"),
        }
        // Its `at_most` passes, and then the last promise it had before it was told.
        for _ in 0..6 {
            reign.pass(ms(1000));
            reign.renew(a);
        }
    }
    assert_eq!((reign.leader.owed(), reign.leader.held()), (4, 0));
    // One that waits gets none either.
    let b = reign.session(2);
    reign.acquire(b, 1, acquire("x"));
    let grant = reign.granted(b, 1);
    reign.acquire(a, 30, acquire("x"));
    assert_eq!(reign.refused(a, 30), Some(Refusal::TooManyLeases));
    reign.release(b, grant.lease);
    reign.release(a, first.unwrap());
    reign.take(a);
    reign.acquire(a, 31, acquire("x"));
    reign.granted(a, 31);
    // What a report does not name is answered for.
    let a = reign.again(a);
    reign.report(a, &[], Vec::new());
    assert_eq!(reign.leader.owed(), 0);
}

#[test]
fn unanswered_losses_count_among_what_all_may_have() {
    let mut reign = ReignScene::new(LeaderConfig { claims_max: 3, ..config() }, fresh());
    let [a, b] = [1, 2].map(|number| reign.session(number));
    for request in 1..=2 {
        let acquire = Acquire { at_most: Some(ms(10)), ..acquire(&format!("{request}")) };
        reign.acquire(a, request, acquire);
    }
    for _ in 0..6 {
        reign.pass(ms(1000));
        reign.renew(a);
        reign.renew(b);
    }
    assert_eq!((reign.leader.owed(), reign.leader.held()), (2, 0));
    reign.acquire(b, 1, acquire("x"));
    reign.granted(b, 1);
    reign.acquire(b, 2, acquire("y"));
    assert_eq!(reign.refused(b, 2), Some(Refusal::TooManyClaims));
    // A session that owes runs out in the end, and its debt with it.
    gets_y_when_debts_have_run_out(&mut reign, b, 3);
}

/// Only this one goes on, and asks for `y` once it is alone.
fn gets_y_when_debts_have_run_out(reign: &mut ReignScene, speaker: Speaker, request: u64) {
    for _ in 0..6 {
        reign.pass(ms(1000));
        reign.renew(speaker);
    }
    assert_eq!(reign.leader.owed(), 0);
    reign.acquire(speaker, request, acquire("y"));
    reign.granted(speaker, request);
}

/// Each of its reports names others, so that none of them is ever whole and true.
#[test]
fn reports_of_impossible_leases_are_not_remembered_without_end() {
    for disk_answers in [true, false] {
        let mut reign = ReignScene::new(LeaderConfig { claims_max: 50, ..config() }, fresh());
        let honest = reign.session(1);
        reign.acquire(honest, 1, acquire("x"));
        let grant = reign.granted(honest, 1);
        let mut liar = reign.session(2);
        reign.acquire(liar, 1, acquire("y"));
        reign.granted(liar, 1);
        reign.disk_answers = disk_answers;
        for round in 0..100 {
            liar = reign.again(liar);
            let forged =
                (0..8).map(|n| held_lease(LeaseId { epoch: 1, count: 100 + 8 * round + n }));
            reign.report_held(liar, forged.collect(), Vec::new());
            assert_eq!(reign.closed(liar), Some(Close::Unconfirmed));
            assert!(reign.leader.owed() <= 50, "{}", reign.leader.owed());
            assert!(reign.pending.len() <= 50, "{}", reign.pending.len());
        }
        assert!(reign.leader.owed() > 40, "{}", reign.leader.owed());
        reign.disk_answers = true;
        reign.commit();
        assert!((40..=50).contains(&reign.leader.owed()), "{}", reign.leader.owed());
        // It is promised nothing any more, and others have what they had.
        gets_y_when_debts_have_run_out(&mut reign, honest, 2);
        reign.release(honest, grant.lease);
    }
}

/// The disk takes its time, and a session asks again and again meanwhile.
#[test]
fn breaks_that_wait_for_the_disk_are_bounded_and_a_flood_of_them_is_shown_out() {
    let mut reign = begin();
    let [a, b, c] = [1, 2, 3].map(|number| reign.session(number));
    reign.acquire(a, 1, acquire("x"));
    let grant = reign.granted(a, 1);
    reign.disk_answers = false;
    let ask = |query| {
        let (name, token) = (name("x"), grant.token);
        ClientMessage::Break { query: RequestId(query), name, token }
    };
    reign.say(c, ask(1));
    let asked = (1..1_000_000).find(|&query| {
        reign.leader.handle_message(b.connection, ask(query), reign.now);
        reign.drive();
        reign.closed(b).is_some()
    });
    assert!((1_000..100_000).contains(&asked.unwrap()), "{asked:?}");
    assert!(matches!(reign.closed(b), Some(Close::Protocol(_))));
    // Another client has its share.
    reign.say(c, ask(2));
    assert_eq!(reign.closed(c), None);
    reign.take(c);
    reign.commit();
    let broke = |query| LeaderMessage::Broke { query: RequestId(query), found: true };
    assert_eq!(reign.take(c), [broke(1), broke(2)]);
    // And again, as many as before.
    assert_eq!(reign.leader.breaks_awaited(), 0);
}

const ATTACKER: u128 = 2;
const VICTIM: u128 = 3;

#[test]
fn one_client_gets_half_of_the_sessions_however_many_it_opens() {
    let mut reign = ReignScene::new(LeaderConfig { sessions_max: 10, ..config() }, fresh());
    let attackers: Vec<_> = (1..=20).map(|n| reign.session_of(ATTACKER, n)).collect();
    let refused = attackers.iter().filter(|&&attacker| {
        reign.acquire(attacker, 1, acquire(&format!("{}", attacker.session)));
        reign.refused(attacker, 1) == Some(Refusal::TooManySessions)
    });
    assert_eq!(refused.count(), 15);
    let victims = [50, 51].map(|n| reign.session_of(VICTIM, n));
    for victim in victims {
        reign.acquire(victim, 1, acquire(&format!("{}", victim.session)));
        reign.granted(victim, 1);
    }
    // What the attacker gives back any session may have, its own among them.
    reign.say(attackers[0], ClientMessage::Goodbye);
    reign.say(attackers[1], ClientMessage::Goodbye);
    reign.acquire(attackers[19], 2, acquire("late"));
    reign.granted(attackers[19], 2);
    let victim = reign.session_of(VICTIM, 52);
    reign.acquire(victim, 1, acquire("more"));
    reign.granted(victim, 1);
}

#[test]
fn one_client_gets_half_of_the_claims_over_however_many_sessions() {
    let limits = LeaderConfig { claims_max: 16, sessions_max: 1000, ..config() };
    let mut reign = ReignScene::new(limits, fresh());
    let victim = reign.session_of(VICTIM, 50);
    let (mut granted, mut queued) = (0, 0);
    for number in 1..=6 {
        let attacker = reign.session_of(ATTACKER, number);
        for request in 1..=2 {
            reign.acquire(attacker, request, acquire(&format!("{}", request * number % 4)));
            match &reign.take(attacker)[..] {
                [.., LeaderMessage::Granted { .. }] => granted += 1,
                [LeaderMessage::Queued { .. }] => queued += 1,
                [LeaderMessage::Refused { why: Refusal::TooManyClaims, .. }] => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(granted + queued, 8);
    assert!(granted > 0 && queued > 0, "{granted} {queued}");
    for request in 1..=4 {
        reign.acquire(victim, request, acquire(&format!("victim {request}")));
        reign.granted(victim, request);
    }
}

fn at_least(text: &str) -> Acquire {
    Acquire { at_least: Some(Duration::from_secs(3600)), ..acquire(text) }
}

/// Reserves this name and leaves it, or says why not.
fn reserves(reign: &mut ReignScene, speaker: Speaker, request: u64) -> Result<(), Refusal> {
    reign.acquire(speaker, request, at_least(&format!("{} {request}", speaker.session)));
    let heard = reign.take(speaker);
    let refusal = heard.iter().find_map(|message| match message {
        LeaderMessage::Refused { why, .. } => Some(*why),
        _ => None,
    });
    if let Some(why) = refusal {
        return Err(why);
    }
    let grant = heard.iter().find_map(|message| match *message {
        LeaderMessage::Granted { lease, first, .. } => Some((lease, first)),
        _ => None,
    });
    let (lease, last_used) = grant.unwrap_or_else(|| panic!("no grant, but {heard:?}"));
    let how = crate::error::Predecessor::Clean;
    reign.say(speaker, ClientMessage::Release { lease, last_used, how });
    reign.take(speaker);
    Ok(())
}

#[test]
fn a_running_at_least_is_a_claim_of_its_client_also_when_its_session_has_left() {
    let limits =
        LeaderConfig { claims_max: 16, sessions_max: 1000, reservations_max: 100, ..config() };
    let mut reign = ReignScene::new(limits, fresh());
    // Each session leaves before the next one comes.
    let reserved = (1..=20).filter(|&number| {
        let attacker = reign.session_of(ATTACKER, number);
        let is_reserved = match reserves(&mut reign, attacker, 1) {
            Ok(()) => true,
            Err(why) => {
                assert_eq!(why, Refusal::TooManyClaims, "{number}");
                false
            }
        };
        reign.say(attacker, ClientMessage::Goodbye);
        is_reserved
    });
    // Its lease is one beside the last of them.
    assert_eq!(reserved.count(), 7);
    assert_eq!(reign.durable.reservations.len(), 7);
    let attacker = reign.session_of(ATTACKER, 30);
    reign.acquire(attacker, 1, acquire("x"));
    reign.granted(attacker, 1);
    reign.acquire(attacker, 2, acquire("y"));
    assert_eq!(reign.refused(attacker, 2), Some(Refusal::TooManyClaims));
    let victim = reign.session_of(VICTIM, 50);
    for request in 1..=4 {
        reign.acquire(victim, request, acquire(&format!("victim {request}")));
        reign.granted(victim, request);
    }
    // They are no claims any more once they are over.
    let token = reign.durable.reservations[&name("1 1")].token;
    let query = RequestId(9);
    reign.say(victim, ClientMessage::Break { query, name: name("1 1"), token });
    assert_eq!(reign.take(victim), [LeaderMessage::Broke { query, found: true }]);
    reign.pass(Duration::from_secs(3700));
    assert_eq!(reign.durable.reservations.len(), 0);
    let attacker = reign.session_of(ATTACKER, 31);
    for request in 1..=4 {
        assert_eq!(reserves(&mut reign, attacker, request), Ok(()));
    }
}

#[test]
fn one_client_gets_half_of_what_at_least_may_keep_taken() {
    let limits = LeaderConfig { reservations_max: 10, sessions_max: 1000, ..config() };
    let mut reign = ReignScene::new(limits, fresh());
    let attacker = reign.session_of(ATTACKER, 1);
    for request in 1..=5 {
        assert_eq!(reserves(&mut reign, attacker, request), Ok(()));
    }
    assert_eq!(reserves(&mut reign, attacker, 6), Err(Refusal::TooManyReservations));
    let other = reign.session_of(ATTACKER, 2);
    assert_eq!(reserves(&mut reign, other, 1), Err(Refusal::TooManyReservations));
    let victim = reign.session_of(VICTIM, 50);
    assert_eq!(reserves(&mut reign, victim, 1), Ok(()));
    assert_eq!(reserves(&mut reign, victim, 2), Ok(()));
}

#[test]
fn what_a_session_reserved_is_its_clients_again_after_a_restart() {
    let limits =
        LeaderConfig { claims_max: 16, sessions_max: 1000, reservations_max: 100, ..config() };
    let mut reign = ReignScene::new(limits, fresh());
    let speaker = reign.session_of(ATTACKER, 1);
    for request in 1..=7 {
        assert_eq!(reserves(&mut reign, speaker, request), Ok(()));
    }
    let victim = reign.session_of(VICTIM, 50);
    reign.acquire(victim, 1, acquire("held"));
    let grant = reign.granted(victim, 1);
    reign.restart();
    let [speaker, victim] = [(ATTACKER, speaker), (VICTIM, victim)]
        .map(|(client, speaker)| reign.again_from(client, speaker));
    reign.report(speaker, &[], Vec::new());
    reign.report_held(victim, vec![held("held", grant)], Vec::new());
    assert_eq!(reserves(&mut reign, speaker, 9), Err(Refusal::TooManyClaims));
    // From another address it is another client's, with what it reserved.
    let speaker = reign.again_from(4, speaker);
    reign.report(speaker, &[], Vec::new());
    assert_eq!(reserves(&mut reign, speaker, 10), Err(Refusal::TooManyClaims));
    let other = reign.session_of(ATTACKER, 2);
    assert_eq!(reserves(&mut reign, other, 1), Ok(()));
    reign.acquire(victim, 2, acquire("y"));
    reign.granted(victim, 2);
}

/// With a limit of 100, 60,000 invented places were queued.
#[test]
fn requests_that_are_reported_with_places_are_held_to_the_limits_of_new_ones() {
    let limits = LeaderConfig {
        claims_max: 100,
        waiters_per_session_max: 1000,
        sessions_max: 10,
        ..config()
    };
    let mut reign = ReignScene::new(limits, fresh());
    let victim = reign.session_of(VICTIM, 50);
    reign.acquire(victim, 1, acquire("x"));
    let grant = reign.granted(victim, 1);
    let mut attacker = reign.session_of(ATTACKER, 1);
    reign.acquire(attacker, 1, acquire("x"));
    let place = reign.place(attacker, 1);
    for round in 0..20 {
        attacker = reign.again_from(ATTACKER, attacker);
        // Sooner or later a reign waits for it.
        if round == 10 {
            reign.restart();
            let back = reign.again_from(VICTIM, victim);
            attacker = reign.again_from(ATTACKER, attacker);
            reign.report_held(back, vec![held("x", grant)], Vec::new());
        }
        let invented = (1..=900).map(|n| waiting(1000 * round + n, acquire("x"), Some(place)));
        reign.report(attacker, &[], invented.collect());
        let heard = reign.take(attacker);
        let queued = heard.iter().filter(|m| matches!(m, LeaderMessage::Queued { .. })).count();
        assert_eq!(queued, 50, "round {round}");
        let why = Refusal::TooManyClaims;
        let is_refused = |m: &&LeaderMessage| matches!(m, LeaderMessage::Refused { why: told, .. } if *told == why);
        assert_eq!(heard.iter().filter(is_refused).count(), 850);
    }
    let victim = reign.session_of(VICTIM, 51);
    reign.acquire(victim, 1, acquire("y"));
    reign.granted(victim, 1);
}

/// In the other order each would have found too little free for what it had.
#[test]
fn sessions_that_come_back_keep_what_they_had_whatever_the_order() {
    let limits =
        LeaderConfig { claims_max: 16, waiters_per_session_max: 8, sessions_max: 100, ..config() };
    for first_comes_last in [false, true] {
        let mut reign = ReignScene::new(limits.clone(), fresh());
        let holder = reign.session_of(9, 9);
        reign.acquire(holder, 1, acquire("x"));
        let grant = reign.granted(holder, 1);
        let mut waiters = Vec::new();
        for (client, count) in [(1, 7), (2, 4), (3, 2)] {
            let speaker = reign.session_of(client, client as u64);
            let places = (1..=count).map(|request| {
                reign.acquire(speaker, request, acquire("x"));
                (request, reign.place(speaker, request))
            });
            waiters.push((client, speaker, places.collect::<Vec<_>>()));
        }
        reign.restart();
        if first_comes_last {
            waiters.reverse();
        }
        for (client, speaker, places) in waiters {
            let back = reign.again_from(client, speaker);
            let all = places.iter().map(|&(n, place)| waiting(n, acquire("x"), Some(place)));
            reign.report(back, &[], all.collect());
            let heard = reign.take(back);
            let queued = heard.iter().filter(|m| matches!(m, LeaderMessage::Queued { .. }));
            assert_eq!(queued.count(), places.len(), "{heard:?}");
        }
        let holder = reign.again_from(9, holder);
        reign.report_held(holder, vec![held("x", grant)], Vec::new());
        assert_eq!(reign.leader.held(), 1);
    }
}

#[test]
fn a_client_that_brings_back_more_leases_than_it_can_have_been_given_is_not_believed() {
    // Its sessions may hold whatever they say that they do.
    let bound = BoundSize { names: 0, parents: 0 };
    let limits = LeaderConfig { claims_max: 16, sessions_max: 10, bound, ..config() };
    let mut reign = ReignScene::new(limits, fresh());
    let attackers = [1, 2].map(|n| reign.session_of(ATTACKER, n));
    let victim = reign.session_of(VICTIM, 50);
    for speaker in attackers.into_iter().chain([victim]) {
        reign.acquire(speaker, 1, acquire(&format!("{}", speaker.session)));
    }
    let grant = reign.granted(victim, 1);
    reign.restart();
    let mut invent = |speaker: Speaker| {
        let back = reign.again_from(ATTACKER, speaker);
        let leases = (1..=8).map(|n| {
            let count = 100 * back.session as u64 + n;
            let token = Token::new(1 << Token::COUNT_BITS | count).unwrap();
            let text = format!("invented {count}");
            let invented = held_lease(LeaseId { epoch: 1, count });
            HeldLease { name: name(&text), first: token, last: token, last_used: token, ..invented }
        });
        reign.report_held(back, leases.collect(), Vec::new());
        reign.closed(back)
    };
    // As many as one session can have been given, and no more of the same client.
    assert_eq!(invent(attackers[0]), None);
    assert!(matches!(invent(attackers[1]), Some(Close::Protocol(_))));
    assert_eq!(reign.leader.held(), 8);
    let back = reign.again_from(VICTIM, victim);
    reign.report_held(back, vec![held("50", grant)], Vec::new());
    assert_eq!(reign.leader.held(), 9);
    // The one that was not believed runs out.
    for _ in 0..6 {
        reign.pass(ms(1000));
        reign.renew(back);
    }
    reign.acquire(back, 2, acquire("free"));
    reign.granted(back, 2);
}

#[test]
fn one_client_that_talks_before_the_reign_begins_leaves_others_room_to() {
    let now = Time::ZERO + Duration::from_secs(1000);
    let mut leader = LeaderMachine::new(config(), fresh(), now);
    let [noisy, quiet] = [(ATTACKER, 1), (VICTIM, 2)].map(|(client, number)| {
        leader.handle_connected(ConnectionId(number), ClientId(client), now);
        ConnectionId(number)
    });
    let shown_out = (1..1_000_000).find(|_| {
        leader.handle_message(noisy, ClientMessage::Ready, now);
        leader.poll_close().is_some()
    });
    assert!(shown_out.is_some_and(|count| count > 1_000), "{shown_out:?}");
    let speaker = Speaker { connection: quiet, session: 7, count: 1 };
    for message in [hello(speaker), ClientMessage::Ready] {
        leader.handle_message(quiet, message, now);
    }
    while let Some(pending) = leader.poll_record() {
        leader.handle_committed(pending.committed(), now);
    }
    let heard: Vec<_> = std::iter::from_fn(|| leader.poll_message()).collect();
    assert!(matches!(heard[..], [(to, LeaderMessage::Welcome { .. })] if to == quiet), "{heard:?}");
}
