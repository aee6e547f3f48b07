use std::collections::BTreeSet;

use super::*;

#[test]
fn names_have_the_length_that_is_promised() {
    assert_eq!(name(0).len(), 16);
    assert_eq!(name(1_000_000).len(), 16);
}

#[test]
fn sizes_have_three_digits_and_a_unit() {
    assert_eq!(bytes(143.2), "143 B");
    assert_eq!(bytes(38_200.0), "38 kB");
}

#[test]
fn walk_visits_every_number() {
    for size in [10, 1_000, 100_000, 1_000_000] {
        let mut walk = Walk::over(size);
        let visited: BTreeSet<u64> = (0..size.min(1_000)).map(|_| walk.next()).collect();
        assert_eq!(visited.len() as u64, size.min(1_000));
        assert!(visited.iter().all(|&number| number < size));
    }
}
