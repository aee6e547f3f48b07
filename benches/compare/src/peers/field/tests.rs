use tierlock::Scope;

use super::*;
use crate::bench::case::Case;

#[test]
fn what_does_not_fit_into_memory_is_left_out_with_a_sentence() {
    let mut field = Field::new().unwrap();
    assert!(field.has_memory_for("little", 1));
    assert!(field.left_out.is_empty());
    assert!(!field.has_memory_for("killed, 8 EiB", 1 << 63));
    field.memory_max = 1_000;
    assert!(!field.has_memory_for("killed, 2 kB", 2_000));
    let [much, more] = &field.left_out[..] else { panic!("{:?}", field.left_out) };
    assert!(much.starts_with("killed, 8 EiB: it takes some "), "{much}");
    assert_eq!(more, "killed, 2 kB: it takes some 2.0 kB of memory, and 1.0 kB may be used");
}

#[test]
fn only_what_is_compared_with_may_fail_and_only_by_not_answering() {
    let mut field = Field::new().unwrap();
    let label = |subject| Label { subject, ..Label::new(Scope::Host, Case::QUIET) };
    let gone = || BenchFailure::other("its server is gone");
    field.on_failure(&label("etcd"), gone()).unwrap();
    let missing = field.servers.missing[0].to_string();
    assert_eq!(missing, "etcd failed at host, quiet: its server is gone");
    assert!(field.on_failure(&label(TIERLOCK), gone()).is_err());
    let wrong = BenchFailure::Wrong("two held it".into());
    assert!(field.on_failure(&label("etcd"), wrong).is_err());
}
