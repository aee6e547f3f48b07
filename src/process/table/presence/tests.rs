use std::sync::Arc;

use super::{
    super::{super::Options, TableDirectory, member::Member},
    *,
};

#[test]
fn a_text_survives_its_line() {
    for text in ["", "plain", "a\nb\n", "\\", "\\n\n\\\\n", "C:\\new\u{1b}[2J\t\r"] {
        assert!(!one_line(text).contains('\n'));
        assert_eq!(text_of_line(&one_line(text)), text);
    }
}

/// No word may hold an id with 16 zeros as its low bits; a process that comes to one gets the
/// next.
#[test]
fn an_id_that_no_word_may_hold_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Home::open(dir.path(), &[]).unwrap();
    TableDirectory::open(open(), &Options::default()).unwrap();
    let home = Arc::new(open());
    let first = Member::join(&home, "").unwrap();
    first.table.header().last_id.store(0x2_fffe, Relaxed);
    let ids = [(); 2].map(|()| Member::join(&home, "").unwrap().id.get());
    assert_eq!(ids, [0x2_ffff, 0x3_0001]);
    for used_up in [0xff_ffff_ffff, 1 << 40, u64::MAX] {
        first.table.header().last_id.store(used_up, Relaxed);
        let error = Member::join(&home, "").err().expect("an id that is none");
        assert_eq!(error.kind(), LockErrorKind::Refused, "{error}");
    }
}
