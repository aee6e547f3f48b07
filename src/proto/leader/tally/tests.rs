use super::*;

#[test]
fn a_duration_counts_up_to_its_bound_and_all_of_them_in_the_sum() {
    let mut spread = Spread::default();
    for micros in [0, 100, 101, 3_600_000_000, 3_600_000_001] {
        spread.add(Duration::from_micros(micros));
    }
    let parts: Vec<_> = spread.parts().filter(|(_, count)| *count > 0).collect();
    assert_eq!(parts, [(0.0001, 2), (0.0005, 1), (3600.0, 1), (f64::INFINITY, 1)]);
    assert_eq!(spread.count(), 5);
    assert!((spread.sum() - 7_200.000_202).abs() < 1e-6, "{}", spread.sum());
}

#[test]
fn every_reason_has_a_word_of_its_own() {
    let mut words = REASONS;
    words.sort_unstable();
    assert!(words.windows(2).all(|pair| pair[0] != pair[1]));
    assert_eq!(reason_of(Refusal::TooManyClaims), "too_many_claims");
}

#[test]
fn a_minute_forgets_what_is_older() {
    let at = |ms: u64| Time::ZERO + Duration::from_millis(ms);
    let mut minute = WaitMinute::default();
    minute.add(Duration::from_millis(3), at(1_000));
    minute.add(Duration::from_millis(1), at(1_999));
    let shown = |minute: &WaitMinute, now| -> Vec<_> {
        minute.seconds(now).map(|second| (second.grants, second.longest)).collect()
    };
    // A leader that is younger than a minute has fewer.
    assert_eq!(shown(&minute, at(2_000)).len(), 3);
    let now = at(60_500);
    assert_eq!(shown(&minute, now)[0], (2, Duration::from_millis(3)));
    assert_eq!(shown(&minute, now).len(), 60);
    let now = at(61_000);
    assert!(shown(&minute, now).iter().all(|(grants, _)| *grants == 0));
    // The same place, a minute on.
    minute.add(Duration::ZERO, at(61_000));
    assert_eq!(*shown(&minute, now).last().unwrap(), (1, Duration::ZERO));
}
