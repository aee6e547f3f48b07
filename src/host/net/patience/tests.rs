use super::*;

const LONGEST: Duration = PollPatience::LONGEST;
const SOON: Duration = Duration::from_micros(100);
const TOO_LATE: Duration = Duration::from_millis(3);

fn several() -> Cpus {
    Cpus { pairs: 1, ..Cpus::new() }
}

#[test]
fn looking_begins_with_short_waits_and_ends_with_long_ones() {
    let now = Instant::now();
    let mut patience = PollPatience { cpus: several(), ..PollPatience::new() };
    assert_eq!(patience.looks(now), Duration::ZERO);
    for looks in [FIRST, 2 * FIRST, 2 * FIRST, 2 * FIRST] {
        patience.waited(patience.looks(now), SOON);
        assert_eq!(patience.looks(now), looks);
    }
    patience.waited(patience.looks(now), LONGEST);
    assert_eq!(patience.looks(now), LONGEST);
    for looks in [LONGEST / 2, LONGEST / 4, Duration::ZERO, Duration::ZERO] {
        patience.waited(patience.looks(now), TOO_LATE);
        assert_eq!(patience.looks(now), looks);
    }
}

#[test]
fn no_thread_looks_where_there_is_one_cpu() {
    let one = || Cpus { pairs: 0, ..Cpus::new() };
    let mut patience = PollPatience { cpus: one(), ..PollPatience::new() };
    patience.waited(Duration::ZERO, SOON);
    assert_eq!(patience.looks(Instant::now()), Duration::ZERO);
    let lending = Lending { cpus: one(), skips: 0, ..Lending::new() };
    assert_eq!(lending.looks(Instant::now(), 1), Duration::ZERO);
}

/// Which of so many waits look, where answers take so long.
fn lent(lending: &mut Lending, waits: usize, answer: Duration) -> Vec<usize> {
    let now = Instant::now();
    let mut lent = Vec::new();
    for wait in 0..waits {
        let looks = lending.looks(now, 1);
        lent.extend((!looks.is_zero()).then_some(wait));
        // A task that does not look is woken later.
        let woken = if looks < answer { TOO_LATE } else { answer };
        lending.waited(looks, woken);
    }
    lent
}

#[test]
fn a_task_lends_its_thread_from_its_second_wait_while_answers_come_within_that() {
    let mut lending = Lending { cpus: several(), ..Lending::new() };
    let all: Vec<_> = (1..100).collect();
    assert_eq!(lent(&mut lending, 100, Lending::LONGEST), all);
}

#[test]
fn a_task_hardly_ever_lends_its_thread_where_answers_take_longer() {
    let mut lending = Lending { cpus: several(), ..Lending::new() };
    assert_eq!(lent(&mut lending, 40, SOON), [1, 2, 4, 7, 12, 21, 38]);
    lent(&mut lending, 4_000, SOON);
    assert!(lent(&mut lending, 10_000, SOON).len() <= 10);
    // Once they come sooner it finds that out, and one late answer changes nothing.
    lent(&mut lending, 1_025, LONGEST / 5);
    assert_eq!(lent(&mut lending, 1, SOON), [0]);
    assert_eq!(lent(&mut lending, 3, LONGEST / 5), [0, 1, 2]);
}

#[test]
fn a_task_keeps_its_thread_from_others_only_where_there_is_a_cpu_for_each_and_its_answer() {
    let now = Instant::now();
    let lending =
        |pairs| Lending { cpus: Cpus { pairs, ..Cpus::new() }, skips: 0, ..Lending::new() };
    for (pairs, expected, looks) in [(1, 1, true), (1, 2, false), (4, 4, true), (4, 5, false)] {
        assert_eq!(!lending(pairs).looks(now, expected).is_zero(), looks, "{expected} of {pairs}");
    }
}

#[test]
fn a_cpu_that_comes_back_late_again_and_again_ends_it_for_longer_and_longer() {
    let mut now = Instant::now();
    let mut patience = PollPatience { cpus: several(), ..PollPatience::new() };
    patience.waited(Duration::ZERO, SOON);
    let mut rest = SHORTEST_REST;
    for _ in 0..20 {
        assert!(!patience.cpus.is_kept_off(LATE, now));
        assert!(patience.cpus.is_kept_off(TOO_LATE, now));
        assert_eq!(patience.looks(now + rest - SOON), Duration::ZERO);
        now += rest;
        assert_eq!(patience.looks(now), FIRST);
        rest = (rest * 2).min(LONGEST_REST);
    }
    assert_eq!(rest, LONGEST_REST);
}

#[test]
fn the_cpu_is_offered_now_and_then() {
    let mut cpus = several();
    let offers: Vec<_> = (1..=20).filter(|_| cpus.is_offer_due()).collect();
    assert_eq!(offers, [4, 8, 12, 16, 20]);
}

#[test]
fn a_cpu_that_comes_back_late_once_ends_only_that_look() {
    let now = Instant::now();
    let mut patience = PollPatience { cpus: several(), ..PollPatience::new() };
    patience.waited(Duration::ZERO, SOON);
    for _ in 0..GOOD_SIGN {
        assert!(!patience.cpus.is_kept_off(LATE, now));
    }
    assert!(patience.cpus.is_kept_off(TOO_LATE, now));
    assert_eq!(patience.looks(now), FIRST);
    // The next is not preceded by so many.
    assert!(patience.cpus.is_kept_off(TOO_LATE, now));
    assert_eq!(patience.looks(now), Duration::ZERO);
}
