use super::*;

fn at(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

#[test]
fn one_that_was_held_up_counts_from_its_sending() {
    // The client's clock is ahead by an hour, or behind.
    for origin in [3_600_000, 0] {
        let sent = |millis: u64| at(origin + millis);
        let mut clock = RenewalClock::default();
        for number in 0..3 {
            clock.add(sent(number), at(50_020 + number));
            assert_eq!(clock.sent_after(), Time::ZERO);
        }
        clock.add(sent(1_000), at(51_020));
        assert_eq!(clock.sent_after(), at(51_020));
        // Held up for two seconds on a way that takes 20 ms.
        clock.add(sent(2_000), at(54_020));
        assert_eq!(clock.sent_after(), at(52_020));
        clock.add(sent(5_000), at(55_010));
        assert_eq!(clock.sent_after(), at(55_010));
    }
}

#[test]
fn a_slower_clock_is_known_after_a_while() {
    let mut clock = RenewalClock::default();
    // It shows one percent less; the way takes no time.
    for second in 0..1_000 {
        let now = at(second * 1_000);
        clock.add(at(second * 990), now);
        let behind = now.since(clock.sent_after());
        assert!(second < 3 || behind <= 2 * WINDOW / 100, "{behind:?}");
    }
}
