use super::*;
use crate::bench::report::tests::row;

#[test]
fn count_is_read_from_what_callgrind_says() {
    let said = "==7== Events    : Ir\n==7== Collected : 1234567\n==7==\n";
    assert_eq!(collected(said), Some(1_234_567));
    assert_eq!(collected("==7== nothing"), None);
}

#[test]
fn counts_stand_in_a_line_for_each_scope() {
    let mut ours = row(Scope::Thread, Case::QUIET, TIERLOCK, 5.0);
    ours.facts.insert(WORD, 46.0);
    let uncounted = row(Scope::Process, Case::QUIET, "flock", 800.0);
    let text = text(&[ours, uncounted]);
    assert_eq!(text, "Instructions of a quiet cycle\n  thread   tierlock 46\n");
    assert_eq!(super::text(&[]), "");
}
