use super::*;

fn exactly(value: f64) -> Estimate {
    Estimate { value, low: value, high: value }
}

/// Every subject as it should be, but for these: how the second plain pair is apart from the first, what is
/// found of the planted loss, and the leader's time where it is observed.
fn rows(again: f64, planted: Estimate, leader: f64) -> Vec<ObservedRow> {
    let all = SUBJECTS.iter().enumerate();
    all.map(|(at, subject)| ObservedRow {
        callers: CALLERS[0],
        place: Place::OneProcessor,
        subject: subject.text,
        ops_per_s: 1.0,
        rate: match at {
            AGAIN => exactly(again),
            PLANTED => planted,
            _ => exactly(0.98),
        },
        client: if at == PLANTED { planted.inverse() } else { exactly(1.0) },
        leader: exactly(if subject.is_leader_observed { leader } else { 1.0 }),
    })
    .collect()
}

fn met(rows: &[ObservedRow]) -> Vec<Option<bool>> {
    verdicts(rows, 0, STARTS_LEAST).iter().map(|verdict| verdict.met).collect()
}

#[test]
fn a_leader_is_judged_by_its_own_time() {
    let of = |leader| met(&rows(1.0, exactly(0.95), leader));
    assert_eq!(of(1.02), [Some(true); 3]);
    assert_eq!(of(1.05), [Some(false), Some(true), Some(true)]);
}

#[test]
fn spans_that_nothing_wants_are_judged_by_the_rate() {
    let mut rows = rows(1.0, exactly(0.95), 1.0);
    rows.iter_mut().skip(PLANTED + 1).for_each(|row| row.rate = exactly(0.96));
    assert_eq!(met(&rows), [Some(true), Some(false), Some(true)]);
}

#[test]
fn what_has_its_target_within_its_bounds_is_unknown() {
    let around = |low, high| Estimate { value: 0.97, low, high };
    assert_eq!(verdict("", around(0.96, 0.98), true).met, None);
    assert_eq!(verdict("", around(0.97, 0.98), true).met, Some(true));
    assert_eq!(verdict("", around(0.94, 0.969), true).met, Some(false));
}

#[test]
fn nothing_is_decided_by_rates_while_those_of_equal_pairs_differ() {
    assert_eq!(met(&rows(0.98, exactly(0.95), 1.0)), [Some(true), None, Some(true)]);
}

#[test]
fn nothing_is_decided_while_a_planted_loss_is_not_found() {
    let not_found = Estimate { value: 0.955, low: 0.93, high: 0.975 };
    assert_eq!(met(&rows(1.0, not_found, 1.0)), [None; 3]);
}

#[test]
fn nothing_is_decided_by_a_few_starts() {
    let few = verdicts(&rows(1.0, exactly(0.95), 1.0), 0, STARTS_LEAST - 1);
    assert_eq!(few.iter().map(|verdict| verdict.met).collect::<Vec<_>>(), [None; 3]);
}
