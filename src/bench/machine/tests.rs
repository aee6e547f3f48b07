use super::*;

#[test]
fn processor_is_read_from_the_system() {
    assert_eq!(cpu_of("processor: 0\nmodel name\t: AMD EPYC 7B13\n"), Some("AMD EPYC 7B13"));
    assert_eq!(cpu_of("Hardware : something else\n"), None);
    assert!(MachineInfo::this().cpus >= 1);
}
