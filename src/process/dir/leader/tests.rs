use std::{fs, os::unix::fs::symlink};

use super::*;

#[test]
fn the_last_line_stands_alone_and_what_cannot_be_read_says_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::open(dir.path(), &["unknown".to_owned()]).unwrap();
    assert_eq!(home.read_leader(), None);
    for line in ["one line", "another"] {
        home.write_leader(line).unwrap();
        assert_eq!(home.read_leader(), Some(format!("{line}\n")));
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left aside");

    let (file, elsewhere) = (dir.path().join(LEADER), dir.path().join("elsewhere"));
    fs::write(&elsewhere, "another's\n").unwrap();
    fs::remove_file(&file).unwrap();
    symlink(&elsewhere, &file).unwrap();
    assert_eq!(home.read_leader(), None);
    home.write_leader("ours").unwrap();
    assert_eq!(fs::read_to_string(elsewhere).unwrap(), "another's\n");
    assert_eq!(home.read_leader(), Some("ours\n".to_owned()));

    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_eq!(home.read_leader(), None);
    assert!(home.write_leader("ours").is_err());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left aside");
}
