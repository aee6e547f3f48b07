use super::*;

fn at(time: u64) -> Time {
    Time::from_nanos(time)
}

#[test]
fn keys_come_due_in_order_of_time_then_of_key_and_once() {
    let mut timers = Timers::new();
    for (key, time) in [(3, 10), (1, 20), (2, 10), (4, 30), (1, 5), (1, 20)] {
        timers.set(key, at(time));
    }
    timers.clear(4);
    assert_eq!((timers.next(), timers.pop_due(at(9))), (Some(at(10)), None));
    let due: Vec<_> = std::iter::from_fn(|| timers.pop_due(at(20))).collect();
    assert_eq!(due, [2, 3, 1]);
    assert_eq!(timers.next(), None);
    timers.set(1, at(20));
    assert_eq!((timers.pop_due(at(20)), timers.pop_due(at(40))), (Some(1), None));
    // Later, and later than another one by that.
    timers.set(1, at(50));
    timers.set(2, at(60));
    timers.set(1, at(70));
    assert_eq!((timers.next(), timers.pop_due(at(70))), (Some(at(60)), Some(2)));
}

#[test]
fn what_was_cleared_takes_no_room_for_long() {
    let mut timers = Timers::new();
    timers.set(0, at(1));
    for key in 1..100_000 {
        timers.set(key, at(1_000 + key));
        timers.set(key, at(2_000 + key));
        timers.clear(key);
    }
    assert!(timers.entries.len() <= 2 * STALE_MIN);
    assert_eq!(timers.pop_due(at(1_000_000)), Some(0));
    assert_eq!(timers.next(), None);
}
