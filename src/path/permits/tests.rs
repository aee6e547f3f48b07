use std::cell::Cell;

use super::*;

#[test]
fn a_try_gets_in_once_another_has_passed() {
    let tries = Cell::new(0);
    let attempt = || {
        tries.set(tries.get() + 1);
        tries.get() == 2
    };
    assert!(past_others(attempt, || false));
    assert_eq!(tries.get(), 2);
}

#[test]
fn a_try_does_not_wait_for_one_that_waits_in_front() {
    let tries = Cell::new(0);
    let attempt = || {
        tries.set(tries.get() + 1);
        None::<()>
    };
    assert!(past_others(attempt, || true).is_none());
    assert_eq!(tries.get(), 1);
    // It came in front meanwhile.
    assert!(past_others(attempt, || tries.get() == 3).is_none());
    assert_eq!(tries.get(), 3);
}

#[test]
fn a_try_gives_up_in_time() {
    let start = clock::now();
    assert!(!past_others(|| false, || false));
    assert!(clock::now().since(start) >= PASSING);
}

#[test]
fn what_can_never_be_had_is_refused() {
    let asks = |count, limit| Permits { count, limit }.check();
    assert!(asks(0, 3).is_err() && asks(4, 3).is_err() && asks(3, 3).is_ok());
    assert!(check_limit(0).is_err() && check_limit(PERMITS_MAX + 1).is_err());
    assert!(check_limit(1).is_ok() && check_limit(PERMITS_MAX).is_ok());
    assert_eq!(Permits { count: 3, limit: 3 }.room(), Room::Beside(0));
    assert!(last_of(Token::MAX, 1).is_ok() && last_of(Token::MAX, 2).is_err());
}
