use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
};

use super::*;

#[test]
fn a_look_tells_what_is_new_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    let known = Secret::create(&file).unwrap();
    let good = fs::read(&file).unwrap();
    let mut look = Look { file: file.clone(), known, trouble: None };
    assert!(look.look().is_none());
    fs::write(&file, "damaged").unwrap();
    for _ in 0..2 {
        let Some(News::Trouble(text)) = look.look() else { panic!("it is damaged") };
        assert!(text.contains("64 hexadecimal digits"), "{text}");
        assert!(look.look().is_none());
        fs::remove_file(&file).unwrap();
        let Some(News::Trouble(text)) = look.look() else { panic!("it is missing") };
        assert!(text.contains("there is no secret file"), "{text}");
        assert!(look.look().is_none());
        // What was in force is so still.
        fs::write(&file, &good).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        assert!(look.look().is_none());
        fs::write(&file, "damaged").unwrap();
    }
    fs::write(&file, "ab".repeat(32)).unwrap();
    let Some(News::Secret(secret)) = look.look() else { panic!("it is another") };
    assert!(secret == Secret::read(&file).unwrap());
    assert!(look.look().is_none());
}
