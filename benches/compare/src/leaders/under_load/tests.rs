use super::*;

#[test]
fn spread_of_few_has_the_worst_at_its_end() {
    let spread = Spread::of((1..=10).rev().map(Duration::from_nanos).collect());
    let expected = Spread { times: 10, p50_ns: 6.0, p99_ns: 10.0, worst_ns: 10.0 };
    assert_eq!(spread, expected);
    assert_eq!(Spread::of(Vec::new()), Spread::default());
}

#[test]
fn pause_is_the_longest_until_the_first_grant_of_a_higher_reign() {
    let begun = Instant::now();
    let at = |ms| begun + Duration::from_millis(ms);
    let mut seen = SeenGrants::default();
    seen.granted(1, at(0));
    // Before another is expected, pauses are no matter.
    seen.granted(2, at(500));
    seen.expect_another();
    seen.granted(2, at(510));
    seen.granted(2, at(600));
    seen.granted(1, at(610));
    assert_eq!(seen.first, None, "of no higher reign");
    seen.granted(3, at(640));
    seen.granted(3, at(940));
    let first = FirstOfReign { at: at(640), pause: Duration::from_millis(90) };
    assert_eq!(seen.first, Some(first));
}

#[test]
fn a_client_that_fails_ends_the_wait_for_its_grants() {
    let grants = Grants::default();
    grants.fail(BenchFailure::other("it is gone"));
    assert!(grants.until_more().unwrap_err().to_string().contains("it is gone"));
}
