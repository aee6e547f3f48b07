use super::*;

/// Ratios around this one, as far apart as starts are.
fn scattered(around: f64, count: usize) -> Vec<f64> {
    let mut lots = Lots(7);
    let mut scatter = || (0..12).map(|_| lots.below(1_001) as f64 / 1_000.0).sum::<f64>() - 6.0;
    (0..count).map(|_| around * (0.03 * scatter()).exp()).collect()
}

#[test]
fn a_loss_of_five_percent_is_told_from_one_of_three_and_equal_sides_from_both() {
    let (lost, equal) = (Estimate::of(&scattered(0.95, 32)), Estimate::of(&scattered(1.0, 32)));
    assert!(lost.low < 0.95 && 0.95 < lost.high && lost.high < 0.97, "{lost:?}");
    assert!(equal.low < 1.0 && 1.0 < equal.high && equal.low > 0.97, "{equal:?}");
}

#[test]
fn a_start_that_was_spoilt_moves_nothing() {
    let mut ratios = scattered(1.0, 32);
    let before = Estimate::of(&ratios).value;
    ratios.push(0.2);
    assert!((Estimate::of(&ratios).value - before).abs() < 0.01);
}

#[test]
fn the_bounds_stand_around_the_value_whichever_side_is_below() {
    let estimate = Estimate::of(&scattered(1.1, 8));
    for Estimate { value, low, high } in [estimate, estimate.inverse()] {
        assert!(low <= value && value <= high, "{low} {value} {high}");
    }
    assert!((estimate.inverse().value * estimate.value - 1.0).abs() < 1e-12);
}

#[test]
fn one_start_has_no_bounds_but_itself() {
    let Estimate { value, low, high } = Estimate::of(&[0.5]);
    assert!([value, low, high].iter().all(|ratio| (ratio - 0.5).abs() < 1e-12));
}
