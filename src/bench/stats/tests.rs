use super::*;

#[test]
fn median_of_odd_even_and_none() {
    assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
    assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    assert!(median(&[]).is_nan());
}

#[test]
fn share_of_one_client_is_one_and_of_an_idle_one_is_zero() {
    assert_eq!(share_min_max(&[]), 1.0);
    assert_eq!(share_min_max(&[7]), 1.0);
    assert_eq!(share_min_max(&[5, 10]), 0.5);
    assert_eq!(share_min_max(&[0, 10]), 0.0);
}

#[test]
fn batches_give_the_median_and_single_cycles_the_tail() {
    let mut tally = RowTally::new(Pace::Batches);
    tally.batch_means_ns.extend([4.0, 5.0, 900.0]);
    tally.stretch(3_000, Duration::from_micros(3));
    for _ in 0..999 {
        tally.wait(Duration::from_nanos(3));
    }
    tally.wait(Duration::from_micros(70));
    let summary = tally.summary();
    assert_eq!(summary.p50_ns, 5.0);
    assert_eq!(summary.p99_ns, 5.0, "never below the median");
    assert!((69_900.0..70_100.0).contains(&summary.max_ns), "{summary:?}");
    assert!((summary.ops_per_s - 1e9).abs() < 1.0, "{summary:?}");
}

#[test]
fn meter_batches_what_is_fast_and_times_what_is_slow_by_itself() {
    let mut probe = RowTally::new(Pace::OneByOne);
    let mut meter = Meter::start(Duration::from_millis(2), &mut probe);
    while let Some(cycles) = meter.next() {
        assert_eq!(cycles, 1);
        std::thread::sleep(Duration::from_micros(100));
    }
    assert_eq!(probe.suited_pace(), Pace::OneByOne);
    assert!(probe.summary().p50_ns >= 100_000.0);

    let mut probe = RowTally::new(Pace::OneByOne);
    let mut meter = Meter::start(Duration::from_millis(2), &mut probe);
    while meter.next().is_some() {}
    assert_eq!(probe.suited_pace(), Pace::Batches);
    let mut tally = RowTally::new(Pace::Batches);
    let mut meter = Meter::start(Duration::from_millis(2), &mut tally);
    let mut batches = 0;
    while let Some(cycles) = meter.next() {
        batches += u64::from(cycles == BATCH);
    }
    assert_eq!(tally.operations, batches * BATCH);
    assert_eq!(tally.batch_means_ns.len() as u64, batches);
}

#[test]
fn empty_slice_still_does_one_round() {
    let mut tally = RowTally::new(Pace::OneByOne);
    let mut meter = Meter::start(Duration::ZERO, &mut tally);
    assert_eq!(meter.next(), Some(1));
    assert_eq!(meter.next(), None);
    assert_eq!(tally.operations, 1);
}

#[test]
fn tally_of_another_process_arrives_whole() {
    let mut there = RowTally::new(Pace::OneByOne);
    for wait_us in [1, 1, 20, 3_000] {
        let wait = Duration::from_micros(wait_us);
        there.wait(wait);
        there.stretch(1, wait);
    }
    let mut tally = RowTally::new(Pace::OneByOne);
    tally.side_by_side(vec![RowTally::new(Pace::OneByOne), RowTally::from_seen(there.to_seen())]);
    tally.end_run();
    let summary = tally.summary();
    assert_eq!(summary.operations, 4);
    assert_eq!(summary.share_min_max, 0.0, "client 0 did nothing");
    assert!((2_990_000.0..3_010_000.0).contains(&summary.max_ns), "{summary:?}");
    assert!((2_990_000.0..3_010_000.0).contains(&summary.worst_ns), "{summary:?}");
}

#[test]
fn clients_side_by_side_add_up_to_their_common_rate() {
    let mut tally = RowTally::new(Pace::OneByOne);
    let client = || {
        let mut client = RowTally::new(Pace::OneByOne);
        client.stretch(1_000, Duration::from_secs(1));
        client
    };
    tally.side_by_side(vec![client(), client()]);
    let summary = tally.summary();
    assert!((summary.ops_per_s - 2_000.0).abs() < 0.1, "{summary:?}");
    assert_eq!(summary.share_min_max, 1.0);
}

#[test]
fn worst_wait_is_the_median_of_the_runs_worst() {
    let mut tally = RowTally::new(Pace::OneByOne);
    for worst_ms in [3, 2, 90] {
        tally.wait(Duration::from_micros(10));
        tally.wait(Duration::from_millis(worst_ms));
        tally.end_run();
    }
    let summary = tally.summary();
    assert_eq!(summary.worst_ns, 3e6);
    assert!(summary.max_ns > 89e6, "{summary:?}");
}
