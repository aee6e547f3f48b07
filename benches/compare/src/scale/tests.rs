use super::*;

#[test]
fn growth_is_that_of_the_outermost_sizes() {
    let measure = |at, value| Measure { what: HOST_GRANT, at, value, unit: Unit::Ns };
    let scale = Scale {
        machine: MachineInfo::this(),
        measures: vec![measure(10, 5.0), measure(1_000, 50.0), measure(100_000, 10.0)],
        left_out: Vec::new(),
    };
    assert_eq!(scale.growth(HOST_GRANT), Some(2.0));
    assert_eq!(scale.growth(names::ANY), None);
}
