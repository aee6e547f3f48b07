use std::{fs, os::unix::fs::MetadataExt as _};

use super::*;

#[test]
fn a_state_directory_keeps_its_own_id_and_two_have_two() {
    let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let id = OwnId::of(one.path()).unwrap();
    assert!(id == OwnId::of(one.path()).unwrap());
    assert!(id != OwnId::of(other.path()).unwrap());
    assert_eq!(fs::metadata(one.path().join(FILE)).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(one.path()).unwrap().count(), 1);
}

#[test]
fn an_own_id_that_is_damaged_is_drawn_anew() {
    let directory = tempfile::tempdir().unwrap();
    let id = OwnId::of(directory.path()).unwrap();
    let whole = fs::read_to_string(directory.path().join(FILE)).unwrap();
    for text in ["", "\n", &whole[1..], &whole.replace(|_: char| true, "x")] {
        fs::write(directory.path().join(FILE), text).unwrap();
        let drawn = OwnId::of(directory.path()).unwrap();
        assert!(drawn != id);
        assert!(drawn == OwnId::of(directory.path()).unwrap());
    }
}
