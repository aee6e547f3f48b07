//! Requests that wait for each other.

use super::*;
use crate::proto::wire::{DeadlockCircle, HeldAbove};

/// Waits for the name, and has these leases meanwhile.
fn wants(text: &str, holds: &[LeaseId]) -> Acquire {
    let extras = Extras { holds: holds.to_vec(), ..Extras::default() };
    Acquire { extras: Some(Box::new(extras)), ..acquire(text) }
}

fn for_ms(acquire: Acquire, limit: u64) -> Acquire {
    Acquire { wait: Wait::For(ms(limit)), ..acquire }
}

/// A leader with room for a few sessions, and these of them.
fn begin_with<const N: usize>() -> (ReignScene, [Speaker; N]) {
    let config = LeaderConfig { sessions_max: 100, ..config() };
    let mut reign = ReignScene::new(config, fresh());
    let mut number = 0;
    let sessions = [(); N].map(|()| {
        number += 1;
        reign.session(number)
    });
    (reign, sessions)
}

impl ReignScene {
    fn has(&mut self, speaker: Speaker, request: u64, acquire: Acquire) -> HeardGrant {
        self.acquire(speaker, request, acquire);
        self.granted(speaker, request)
    }

    /// Each time so late that nothing said before is on its way any more, and so often that the leader knows
    /// how long a renewal takes.
    fn renew_all(&mut self, speakers: &[Speaker], times: usize) {
        for _ in 0..times {
            self.pass(ms(600));
            for &speaker in speakers {
                (0..4).for_each(|_| self.renew(speaker));
            }
        }
    }

    /// The circle that this session is told of in answer to this request.
    fn deadlocked(&mut self, speaker: Speaker, wanted: u64) -> Option<DeadlockCircle> {
        self.take(speaker).into_iter().find_map(|message| match message {
            LeaderMessage::Deadlocked { request, circle } if request == RequestId(wanted) => {
                Some(*circle)
            }
            _ => None,
        })
    }

    /// None of these is told of any deadlock, however often they renew.
    fn waits_on(&mut self, speakers: &[Speaker]) {
        self.renew_all(speakers, 4);
        for &speaker in speakers {
            let heard = self.take(speaker);
            let is_told = |said: &LeaderMessage| matches!(said, LeaderMessage::Deadlocked { .. });
            assert!(!heard.iter().any(is_told), "{heard:?}");
        }
    }

    /// Two sessions that have a name each and wait for the other's.
    fn cross(&mut self, [a, b]: [Speaker; 2]) -> [HeardGrant; 2] {
        let (x, y) = (self.has(a, 1, acquire("x")), self.has(b, 1, acquire("y")));
        self.acquire(a, 2, wants("y", &[x.lease]));
        self.acquire(b, 2, wants("x", &[y.lease]));
        [x, y]
    }
}

/// Each of the steps as `label has waits_for`.
fn told(circle: &DeadlockCircle) -> Vec<String> {
    let name = |name: &Option<Name>| name.as_ref().map_or("?", |name| name.as_str()).to_owned();
    let step = circle.steps.iter().map(|step| {
        format!("{} {} {}", step.identity.label, name(&step.has), name(&step.waits_for))
    });
    step.collect()
}

#[test]
fn the_youngest_of_two_that_wait_for_each_other_is_told_and_the_other_goes_on() {
    let (mut reign, [a, b]) = begin_with();
    let [_, y] = reign.cross([a, b]);
    assert_eq!(reign.leader.pinned(), (2, 1));
    reign.renew_all(&[a, b], 2);
    let circle = reign.deadlocked(b, 2).expect("it is the youngest");
    assert_eq!(told(&circle), ["session 2 y x", "session 1 x y"]);
    assert_eq!(circle.left_out, 0);
    assert!(reign.deadlocked(a, 2).is_none());
    assert!(!reign.leader.waits(SessionId(b.session), RequestId(2)));
    assert_eq!(reign.leader.pinned(), (1, 0));
    reign.release(b, y.lease);
    reign.granted(a, 2);
    assert_eq!(reign.leader.pinned(), (0, 0));
}

#[test]
fn a_ring_of_three_is_told_in_the_order_of_its_waits() {
    let (mut reign, [a, b, c]) = begin_with();
    let [x, y, z] = [(a, "x"), (b, "y"), (c, "z")].map(|(s, n)| reign.has(s, 1, acquire(n)));
    reign.acquire(c, 2, wants("x", &[z.lease]));
    reign.acquire(a, 2, wants("y", &[x.lease]));
    reign.waits_on(&[a, b, c]);
    reign.acquire(b, 2, wants("z", &[y.lease]));
    reign.renew_all(&[a, b, c], 2);
    let circle = reign.deadlocked(b, 2).expect("it is the youngest");
    assert_eq!(told(&circle), ["session 2 y z", "session 3 z x", "session 1 x y"]);
}

#[test]
fn a_circle_counts_only_once_all_of_it_have_renewed_some_time_after_it_was_found() {
    let (mut reign, [a, b]) = begin_with();
    reign.renew_all(&[a, b], 3);
    reign.cross([a, b]);
    // What is read now may have been sent before the last of them waited.
    for _ in 0..4 {
        reign.pass(ms(100));
        [a, b].into_iter().for_each(|speaker| reign.renew(speaker));
    }
    assert!(reign.deadlocked(b, 2).is_none());
    reign.renew_all(&[b], 3);
    assert!(reign.deadlocked(b, 2).is_none());
    reign.renew(a);
    assert!(reign.deadlocked(b, 2).is_some());
}

#[test]
fn a_renewal_that_was_held_up_proves_nothing_of_what_came_behind_it() {
    let (mut reign, [a, b]) = begin_with();
    reign.renew_all(&[a, b], 1);
    let [x, _] = reign.cross([a, b]);
    let sent_at = reign.now;
    // The network of `a` keeps its renewal, and the cancel and the release behind it.
    reign.renew_all(&[b], 3);
    reign.say(a, ClientMessage::Renew { sent_at });
    assert!(reign.deadlocked(b, 2).is_none());
    reign.say(a, ClientMessage::Cancel { request: RequestId(2) });
    reign.release(a, x.lease);
    assert!(reign.take(b).iter().any(|said| matches!(said, LeaderMessage::Granted { .. })));
}

#[test]
fn what_one_client_pins_costs_the_leader_no_more_than_its_part() {
    let (mut reign, [a, b]) = begin_with();
    let (x, y) = (reign.has(a, 1, acquire("x")), reign.has(b, 1, acquire("y")));
    // Many say that they have one lease: none of them is believed, and each end is a small step.
    for request in 2..2_000 {
        reign.acquire(a, request, wants("y", &[x.lease]));
    }
    reign.acquire(b, 2, wants("x", &[y.lease]));
    reign.renew_all(&[a, b], 2);
    assert!(reign.deadlocked(b, 2).is_none());
    for request in 2..1_999 {
        reign.say(a, ClientMessage::Cancel { request: RequestId(request) });
    }
    reign.renew_all(&[a, b], 2);
    assert!(reign.leader.pinned().1 <= 1);
    // A lease of another's is no pin at all.
    let before = reign.leader.pinned().0;
    reign.acquire(b, 3, wants("x", &[x.lease]));
    assert_eq!(reign.leader.pinned().0, before);
}

#[test]
fn what_waits_for_a_dead_session_gets_what_that_had_and_is_told_nothing() {
    let (mut reign, [a, b]) = begin_with();
    reign.cross([a, b]);
    // `a` is dead, and its connection says nothing of that.
    for _ in 0..12 {
        reign.pass(ms(500));
        reign.renew(b);
    }
    let heard = reign.take(b);
    let is_granted = |said: &LeaderMessage| matches!(said, LeaderMessage::Granted { request, .. } if *request == RequestId(2));
    assert!(heard.iter().any(is_granted), "{heard:?}");
    assert!(!heard.iter().any(|said| matches!(said, LeaderMessage::Deadlocked { .. })));
    assert_eq!(reign.leader.pinned(), (0, 0));
}

#[test]
fn of_limits_the_first_to_end_is_told_whichever_is_the_youngest() {
    let (mut reign, [a, b]) = begin_with();
    let (x, y) = (reign.has(a, 1, acquire("x")), reign.has(b, 1, acquire("y")));
    reign.acquire(a, 2, for_ms(wants("y", &[x.lease]), 3_000));
    reign.acquire(b, 2, for_ms(wants("x", &[y.lease]), 4_000));
    reign.renew_all(&[a, b], 2);
    assert!(reign.deadlocked(b, 2).is_none());
    assert!(reign.deadlocked(a, 2).is_some());
    // One without a limit goes on.
    reign.acquire(a, 3, for_ms(wants("y", &[x.lease]), 3_000));
    reign.cancel(b, 2);
    reign.acquire(b, 3, wants("x", &[y.lease]));
    reign.renew_all(&[a, b], 2);
    assert!(reign.deadlocked(b, 3).is_none());
    assert!(reign.deadlocked(a, 3).is_some());
}

#[test]
fn sessions_whose_threads_have_one_name_each_wait_for_each_other_without_a_deadlock() {
    let (mut reign, [a, b]) = begin_with();
    let (x, y) = (reign.has(a, 1, acquire("x")), reign.has(b, 1, acquire("y")));
    // Another thread of each waits, which has something else, or nothing.
    let z = reign.has(a, 2, acquire("z"));
    reign.acquire(a, 3, wants("y", &[z.lease]));
    reign.acquire(b, 2, acquire("x"));
    reign.waits_on(&[a, b]);
    reign.release(a, x.lease);
    reign.granted(b, 2);
    reign.release(b, y.lease);
    reign.granted(a, 3);
}

#[test]
fn what_two_requests_pin_is_believed_of_neither_until_one_is_over() {
    let (mut reign, [a, b]) = begin_with();
    let (x, y) = (reign.has(a, 1, acquire("x")), reign.has(b, 1, acquire("y")));
    let w = reign.has(b, 2, acquire("w"));
    reign.acquire(a, 2, wants("y", &[x.lease]));
    reign.acquire(a, 3, wants("w", &[x.lease]));
    reign.acquire(b, 3, wants("x", &[y.lease]));
    reign.waits_on(&[a, b]);
    reign.cancel(a, 3);
    reign.renew_all(&[a, b], 2);
    assert!(reign.deadlocked(b, 3).is_some());
    reign.release(b, w.lease);
}

#[test]
fn a_lease_that_comes_back_by_itself_closes_no_circle() {
    let (mut reign, [a, b]) = begin_with();
    let at_most = Some(ms(3_000));
    let x = reign.has(a, 1, Acquire { at_most, ..acquire("x") });
    let y = reign.has(b, 1, acquire("y"));
    reign.acquire(a, 2, wants("y", &[x.lease]));
    reign.acquire(b, 2, wants("x", &[y.lease]));
    reign.waits_on(&[a, b]);
    // The same of one that is broken, and not answered for.
    reign.cancel(a, 2);
    reign.release(a, x.lease);
    reign.granted(b, 2);
    let z = reign.has(a, 3, acquire("z"));
    reign.acquire(b, 3, wants("z", &[y.lease]));
    let query = RequestId(4);
    reign.say(b, ClientMessage::Break { query, name: name("z"), token: z.token });
    reign.acquire(a, 5, wants("y", &[z.lease]));
    reign.waits_on(&[a, b]);
}

#[test]
fn what_a_session_pins_of_others_or_has_given_back_is_no_pin() {
    let (mut reign, [a, b, c]) = begin_with();
    let (x, y) = (reign.has(a, 1, acquire("x")), reign.has(b, 1, acquire("y")));
    // `c` says that it has what `a` has.
    reign.acquire(c, 2, wants("y", &[x.lease]));
    reign.acquire(b, 2, wants("x", &[y.lease]));
    reign.waits_on(&[a, b, c]);
    // `a` has given back what it says it has, and got another in its place.
    reign.release(a, x.lease);
    let of_b = reign.granted(b, 2);
    reign.acquire(a, 3, acquire("x"));
    reign.release(b, of_b.lease);
    reign.granted(a, 3);
    reign.cancel(c, 2);
    reign.acquire(a, 4, wants("y", &[x.lease]));
    reign.acquire(b, 4, wants("x", &[y.lease]));
    reign.waits_on(&[a, b, c]);
}

#[test]
fn a_name_that_is_locked_twice_by_one_is_waited_for_and_no_deadlock() {
    let (mut reign, [a]) = begin_with();
    let x = reign.has(a, 1, acquire("x"));
    reign.acquire(a, 2, wants("x", &[x.lease]));
    reign.waits_on(&[a]);
    reign.release(a, x.lease);
    reign.granted(a, 2);
}

#[test]
fn writers_wait_for_each_reader_and_readers_for_none_beside_them() {
    let (mut reign, [a, b, c]) = begin_with();
    let shared = |text: &str| Acquire { mode: Mode::Shared, ..acquire(text) };
    let (of_a, of_c) = (reign.has(a, 1, shared("x")), reign.has(c, 1, shared("x")));
    let y = reign.has(b, 1, acquire("y"));
    // A reader that waits behind a writer may still come in: that writer may give up.
    reign.acquire(b, 2, wants("x", &[y.lease]));
    reign.waits_on(&[a, b, c]);
    reign.acquire(a, 2, Acquire { mode: Mode::Shared, ..wants("y", &[of_a.lease]) });
    reign.renew_all(&[a, b, c], 2);
    let circle = reign.deadlocked(a, 2).expect("it is the youngest");
    assert_eq!(told(&circle), ["session 1 x y", "session 2 y x"]);
    reign.release(c, of_c.lease);
    reign.release(a, of_a.lease);
    reign.granted(b, 2);
}

#[test]
fn each_of_two_circles_that_one_request_closes_is_told() {
    let (mut reign, [a, b, c]) = begin_with();
    let shared = |text: &str| Acquire { mode: Mode::Shared, ..acquire(text) };
    let (of_a, of_c) = (reign.has(a, 1, shared("x")), reign.has(c, 1, shared("x")));
    let y = reign.has(b, 1, acquire("y"));
    reign.acquire(b, 2, for_ms(wants("x", &[y.lease]), 60_000));
    reign.acquire(a, 2, for_ms(wants("y", &[of_a.lease]), 3_000));
    reign.acquire(c, 2, for_ms(wants("y", &[of_c.lease]), 3_100));
    reign.renew_all(&[a, b, c], 4);
    assert!(reign.deadlocked(a, 2).is_some());
    assert!(reign.deadlocked(c, 2).is_some());
    assert!(reign.deadlocked(b, 2).is_none());
}

#[test]
fn processes_that_wait_for_others_to_end_count_if_they_are_one_client_on_one_machine() {
    let config = LeaderConfig { sessions_max: 100, ..config() };
    let mut reign = ReignScene::new(config, fresh());
    let mut session = |number: u64, client: u128, host: &str| {
        let connection = reign.connect_from(ClientId(client), ConnectionId(number * 100));
        let speaker = Speaker { connection, session: number.into(), count: 1 };
        let mut own = hello(speaker);
        if let ClientMessage::Hello { identity, .. } = &mut own {
            *identity = Identity::new("jobs", host, 10 + number as u32, "cmd");
        }
        reign.say(speaker, own);
        reign.say(speaker, ClientMessage::Ready);
        speaker
    };
    let [outer_a, inner_a, outer_b, inner_b] = [1, 2, 3, 4].map(|n| session(n, 7, "host"));
    let (other_client, elsewhere) = (session(5, 8, "host"), session(6, 7, "another"));
    let x = reign.has(outer_a, 1, acquire("x"));
    let y = reign.has(outer_b, 1, acquire("y"));
    let under =
        |text: &str, above: &[(u128, &str, HeardGrant, u32)]| {
            let held = above.iter().map(|&(cluster, text, HeardGrant { token, .. }, pid)| {
                HeldAbove { cluster: ClusterId(cluster), name: name(text), token, pid }
            });
            let extras = Extras { above: held.collect(), ..Extras::default() };
            Acquire { extras: Some(Box::new(extras)), ..acquire(text) }
        };
    let all = [outer_a, inner_a, outer_b, inner_b, other_client, elsewhere];
    reign.acquire(inner_a, 1, under("y", &[(1, "x", x, 11)]));
    // Of another client, machine, cluster, process, token.
    reign.acquire(other_client, 1, under("x", &[(1, "y", y, 13)]));
    reign.acquire(elsewhere, 1, under("x", &[(1, "y", y, 13)]));
    reign.acquire(inner_b, 1, under("x", &[(2, "y", y, 13)]));
    reign.acquire(inner_b, 2, under("x", &[(1, "y", y, 11)]));
    let later = HeardGrant { token: y.token.next().unwrap(), ..y };
    reign.acquire(inner_b, 3, under("x", &[(1, "y", later, 13)]));
    reign.waits_on(&all);
    reign.acquire(inner_b, 4, under("x", &[(1, "y", y, 13)]));
    // The processes above are to be alive as well.
    reign.renew_all(&[inner_a, inner_b], 4);
    assert!(reign.deadlocked(inner_b, 4).is_none());
    reign.renew_all(&[outer_a, outer_b], 2);
    let circle = reign.deadlocked(inner_b, 4).expect("it is the youngest");
    assert_eq!(told(&circle), ["jobs y x", "jobs x y"]);
    assert_eq!(circle.steps[0].identity.pid, 14);
}

#[test]
fn a_circle_is_found_anew_by_the_next_leader() {
    let (mut reign, [a, b]) = begin_with();
    let (x, y) = (reign.has(a, 1, acquire("x")), reign.has(b, 1, acquire("y")));
    reign.restart();
    let (a, b) = (reign.again(a), reign.again(b));
    let wish = |text: &str, own: HeardGrant| vec![waiting(2, wants(text, &[own.lease]), None)];
    reign.report_held(a, vec![held("x", x)], wish("y", x));
    reign.report_held(b, vec![held("y", y)], wish("x", y));
    reign.renew_all(&[a, b], 2);
    assert!(reign.deadlocked(b, 2).is_some());
    // And on another connection to the same one.
    let a = reign.again(a);
    reign.report_held(a, vec![held("x", x)], wish("y", x));
    reign.acquire(b, 3, wants("x", &[y.lease]));
    reign.renew_all(&[a, b], 2);
    assert!(reign.deadlocked(b, 3).is_some());
}

#[test]
fn a_client_of_an_earlier_release_pins_nothing() {
    let (mut reign, [a]) = begin_with();
    let b = Speaker { connection: reign.connect(900), session: 9, count: 1 };
    let mut own = hello(b);
    if let ClientMessage::Hello { capabilities, .. } = &mut own {
        *capabilities = 1;
    }
    reign.say(b, own);
    reign.say(b, ClientMessage::Ready);
    reign.cross([a, b]);
    assert_eq!(reign.leader.pinned(), (1, 0));
    reign.waits_on(&[a, b]);
}

#[test]
fn a_long_circle_is_told_in_part_and_fits_its_frame() {
    const LONG: usize = 40;
    let (mut reign, sessions) = begin_with::<LONG>();
    let text = |at: usize| format!("{}{}", "n".repeat(250), at % LONG);
    let held = sessions.each_ref();
    let leases: Vec<_> =
        (0..LONG).map(|at| reign.has(*held[at], 1, acquire(&text(at))).lease).collect();
    for (at, &session) in sessions.iter().enumerate() {
        reign.acquire(session, 2, wants(&text(at + 1), &[leases[at]]));
    }
    reign.renew_all(&sessions, 2);
    let heard = reign.take(sessions[LONG - 1]);
    let found = heard.iter().find_map(|message| match message {
        LeaderMessage::Deadlocked { circle, .. } => Some((message, circle)),
        _ => None,
    });
    let (message, circle) = found.expect("it is the youngest");
    assert_eq!((circle.steps.len(), circle.left_out), (16, 24));
    let mut bytes = Vec::new();
    crate::proto::wire::encode_frame(message, &mut bytes).unwrap();
}
