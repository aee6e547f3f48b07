use std::fs;

use super::*;

fn home() -> (tempfile::TempDir, Home) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::open(dir.path(), &["unknown".to_owned()]).unwrap();
    (dir, home)
}

fn announcement(number: u64, value: &[u8]) -> Announcement {
    Announcement { token: Token::new(number).unwrap(), process: 7, value: value.into() }
}

#[test]
fn what_a_leader_announces_is_read_whole_and_its_end_in_place() {
    let (dir, home) = home();
    let name = Name::new("primary/eu").unwrap();
    assert_eq!(home.read_announced(&name).unwrap(), Announcements::default());
    assert!(!dir.path().join(ELECTIONS).exists(), "a look makes nothing");
    let long = vec![b'x'; VALUE_BYTES_MAX];
    let one = home.announce(&name, announcement(1, &long)).unwrap();
    let read = home.read_announced(&name).unwrap();
    assert_eq!(read.all, [announcement(1, &long)]);
    assert!(read.is_in_force);
    one.end();
    assert!(!home.read_announced(&name).unwrap().is_in_force);

    let two = home.announce(&name, announcement(2, b"")).unwrap();
    // The first has left long ago: its file is none any more.
    one.end();
    let read = home.read_announced(&name).unwrap();
    assert_eq!(read.all, [announcement(1, &long), announcement(2, b"")]);
    assert!(read.is_in_force);
    two.end();
    let left = fs::read_dir(dir.path().join(ELECTIONS)).unwrap().count();
    assert_eq!(left, 1, "nothing is left aside");
}

#[test]
fn the_last_announcements_are_kept() {
    let (_dir, home) = home();
    let name = Name::new("a").unwrap();
    for number in 1..=3 + KEPT as u64 {
        home.announce(&name, announcement(number, &number.to_le_bytes())).unwrap();
    }
    let read = home.read_announced(&name).unwrap();
    let tokens: Vec<_> = read.all.iter().map(|one| one.token.get()).collect();
    assert_eq!(tokens, (4..=3 + KEPT as u64).collect::<Vec<_>>());
    // A directory that was made anew counts from the beginning.
    home.announce(&name, announcement(2, b"anew")).unwrap();
    assert_eq!(home.read_announced(&name).unwrap().all, [announcement(2, b"anew")]);
}

#[test]
fn a_torn_or_foreign_file_announces_nothing() {
    let (dir, home) = home();
    let name = Name::new("a").unwrap();
    home.announce(&name, announcement(9, b"whole")).unwrap();
    let file = dir.path().join(ELECTIONS).join("a");
    let whole = fs::read(&file).unwrap();
    assert!(Announcements::decode(&whole).is_some());
    for at in 0..whole.len() {
        assert_eq!(Announcements::decode(&whole[..at]), None, "cut at {at}");
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        assert_eq!(Announcements::decode(&flipped), None, "flipped at {at}");
    }
    assert_eq!(Announcements::decode(&[&whole[..], b"x"].concat()), None);
    fs::write(&file, b"foreign").unwrap();
    assert_eq!(home.read_announced(&name).unwrap(), Announcements::default());
    home.announce(&name, announcement(10, b"again")).unwrap();
    assert_eq!(home.read_announced(&name).unwrap().all, [announcement(10, b"again")]);
}
