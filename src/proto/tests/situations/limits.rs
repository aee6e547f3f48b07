//! Sessions that take and never answer: what a leader remembers of them is bounded.

use super::*;

/// It holds what it may, lets all of that run out, and says nothing of it.
#[test]
fn who_does_not_answer_for_losses_gets_no_more_leases_until_it_does() {
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
fn what_nobody_answers_for_counts_among_what_all_may_have() {
    let mut reign = Reign::new(Config { claims_max: 3, ..config() }, fresh());
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
    // Who owes runs out in the end, and its debt with it.
    gets_y_when_debts_have_run_out(&mut reign, b, 3);
}

/// Only this one goes on, and asks for `y` once it is alone.
fn gets_y_when_debts_have_run_out(reign: &mut Reign, who: Who, request: u64) {
    for _ in 0..6 {
        reign.pass(ms(1000));
        reign.renew(who);
    }
    assert_eq!(reign.leader.owed(), 0);
    reign.acquire(who, request, acquire("y"));
    reign.granted(who, request);
}

/// Each of its reports names others, so that none of them is ever whole and true.
#[test]
fn reports_of_what_nobody_can_have_are_not_remembered_without_end() {
    for disk_answers in [true, false] {
        let mut reign = Reign::new(Config { claims_max: 50, ..config() }, fresh());
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

/// The disk takes its time, and somebody asks again and again meanwhile.
#[test]
fn breaks_that_wait_for_the_disk_are_bounded_and_who_asks_too_often_is_shown_out() {
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
    reign.take(c);
    reign.commit();
    let broke = LeaderMessage::Broke { query: RequestId(1), found: true };
    assert_eq!(reign.take(c), [broke]);
    // And again, as many as before.
    assert_eq!(reign.leader.breaks_awaited(), 0);
}
