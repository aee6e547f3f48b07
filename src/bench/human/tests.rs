use super::*;

#[test]
fn times_change_units_before_they_grow_long() {
    assert_eq!(time(4.91), "4.9 ns");
    assert_eq!(time(9.96), "10 ns");
    assert_eq!(time(790.0), "790 ns");
    assert_eq!(time(999.6), "1.0 µs");
    assert_eq!(time(78_400.0), "78 µs");
    assert_eq!(time(2_100_000.0), "2.1 ms");
    assert_eq!(time(5.02e9), "5.0 s");
    assert_eq!(time(5.02e12), "5020 s");
}

#[test]
fn counts_and_multiples() {
    assert_eq!(count(203e6), "203 M");
    assert_eq!(count(12_700.0), "12.7 k");
    assert_eq!(count(850.4), "850");
    assert_eq!(multiple(1.06), "1.1");
    assert_eq!(multiple(84.2), "84");
    assert_eq!(multiple(9_231.0), "9,200");
    assert_eq!(multiple(1_234_567.0), "1,200,000");
    assert_eq!(multiple(f64::NAN), "?");
}
