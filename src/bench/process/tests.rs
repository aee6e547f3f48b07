use super::*;

fn turn(asked_ns: u64, locked_ns: u64, unlocked_ns: u64) -> TimedTurn {
    TimedTurn { asked_ns, locked_ns, unlocked_ns }
}

#[test]
fn handover_counts_only_where_the_other_was_waiting() {
    let turns = vec![
        (0, turn(0, 1, 10)),
        (1, turn(5, 12, 20)),  // waited since 5: 2 ns after the unlock
        (1, turn(21, 22, 30)), // took it twice
        (0, turn(35, 36, 40)), // did not wait
    ];
    assert_eq!(handovers(turns).unwrap(), [Duration::from_nanos(2)]);
}

#[test]
fn overlapping_turns_are_a_failure() {
    let turns = vec![(0, turn(0, 1, 10)), (1, turn(5, 9, 20))];
    let failure = handovers(turns).unwrap_err();
    assert_eq!(failure.exit_code(), 70);
}
