use std::fs;

use proptest::prelude::*;

use super::*;

fn home() -> (tempfile::TempDir, Home) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::open(dir.path(), &["unknown".to_owned()]).unwrap();
    fs::write(dir.path().join("format"), "").unwrap();
    home.make_wide(|| Ok(Vec::new())).unwrap();
    (dir, home)
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn names(widened: &Widened) -> Vec<&str> {
    let mut names: Vec<_> = widened.names.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_directory_belongs_to_the_first_service_and_another_one_is_told_both() {
    let (dir, home) = home();
    home.append_wide(&name("a"), "helper").unwrap();
    home.claim_for("cluster 1").unwrap();
    home.claim_for("cluster 1").unwrap();
    let error = home.claim_for("cluster 2").unwrap_err();
    assert_eq!(error.kind(), crate::LockErrorKind::Config);
    let text = error.to_string();
    assert!(text.contains("cluster 1") && text.contains("cluster 2"), "{text}");
    let read = WideNames::default().read(&home).unwrap();
    assert_eq!((read.service.as_deref(), names(&read)), (Some("cluster 1"), vec!["a"]));

    // The way that doctor tells.
    let file = fs::File::options().write(true).open(dir.path().join(WIDE)).unwrap();
    file.write_all_at(&[b' '; SERVICE_BYTES], 0).unwrap();
    home.claim_for("cluster 2").unwrap();
    assert_eq!(names(&WideNames::default().read(&home).unwrap()), ["a"]);
}

#[test]
fn a_first_line_that_was_torn_is_damage_and_no_service() {
    let (dir, home) = home();
    home.claim_for("cluster 1").unwrap();
    let file = fs::File::options().write(true).open(dir.path().join(WIDE)).unwrap();
    file.write_all_at(b"9 cluster", 0).unwrap();
    file.write_all_at(b" ", 9).unwrap();
    file.write_all_at(b"            ", 10).unwrap();
    assert_eq!(home.claim_for("cluster 1").unwrap_err().kind(), crate::LockErrorKind::Damaged);
}

#[test]
fn a_line_that_was_cut_short_swallows_no_other() {
    for cut in 0..line(&name("orders/42"), "helper").len() {
        let (dir, home) = home();
        home.append_wide(&name("a"), "first").unwrap();
        let mut file = fs::File::options().append(true).open(dir.path().join(WIDE)).unwrap();
        file.write_all(&line(&name("orders/42"), "helper").as_bytes()[..cut]).unwrap();
        home.append_wide(&name("b"), "last").unwrap();
        let read = WideNames::default().read(&home).unwrap();
        let whole = cut > "\n9 orders/42".len();
        let expected = if whole { vec!["a", "b", "orders/42"] } else { vec!["a", "b"] };
        assert_eq!(names(&read), expected, "cut after {cut}");
        assert_eq!(read.names[&name("b")], "last");
    }
}

#[test]
fn names_that_others_append_are_seen_and_the_first_to_widen_is_told() {
    let (_dir, home) = home();
    let known = WideNames::default();
    assert_eq!(names(&known.read(&home).unwrap()), [""; 0]);
    home.append_wide(&name("a"), "one").unwrap();
    home.append_wide(&name("a"), "another").unwrap();
    let read = known.read(&home).unwrap();
    assert_eq!((names(&read), &*read.names[&name("a")]), (vec!["a"], "one"));
}

proptest! {
    #[test]
    fn hostile_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = parsed(&bytes);
    }

    #[test]
    fn what_is_written_is_read(text in "[^\\p{C}]{1,60}", by in ".{0,300}") {
        prop_assume!(Name::new(&text).is_ok());
        let name = name(&text);
        let mut bytes = vec![b' '; SERVICE_BYTES];
        bytes.extend(line(&name, &by).as_bytes());
        let read = parsed(&bytes);
        prop_assert_eq!(read.names.keys().collect::<Vec<_>>(), [&name]);
        prop_assert_eq!(read.damaged, 0);
    }
}
