use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
};

use super::*;
use crate::host::net::serials::{CredentialSerial, SERIAL_BYTES};

/// What a look brings: the secret if it is another, what is wrong, and what is revoked.
fn looked(look: &mut Look) -> (Option<Secret>, Vec<String>, Arc<RevokedSerials>) {
    let (mut troubles, mut told) = (Vec::new(), None);
    for news in look.look() {
        match news {
            News::Accepted { accepted, is_new_secret } => told = Some((accepted, is_new_secret)),
            News::Trouble(_, text) => troubles.push(text),
        }
    }
    let (accepted, is_new) = told.expect("each look says what is accepted");
    (is_new.then_some(accepted.secret), troubles, accepted.revoked)
}

#[test]
fn a_look_tells_what_is_new_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    let known = Secret::create(&file).unwrap().of_file(&file);
    let good = fs::read(&file).unwrap();
    let mut look = Look::new(known.into(), None);
    let no_news = |look: &mut Look| {
        let (secret, troubles, _) = looked(look);
        assert!(secret.is_none() && troubles.is_empty(), "{troubles:?}");
    };
    let trouble = |look: &mut Look, part: &str| {
        let (secret, troubles, _) = looked(look);
        assert!(
            secret.is_none() && troubles.len() == 1 && troubles[0].contains(part),
            "{troubles:?}"
        );
    };
    no_news(&mut look);
    fs::write(&file, "damaged").unwrap();
    for _ in 0..2 {
        trouble(&mut look, "64 hexadecimal digits");
        no_news(&mut look);
        fs::remove_file(&file).unwrap();
        trouble(&mut look, "there is no secret file");
        no_news(&mut look);
        // What was in force is so still.
        fs::write(&file, &good).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        no_news(&mut look);
        fs::write(&file, "damaged").unwrap();
    }
    fs::write(&file, "ab".repeat(32)).unwrap();
    let (secret, ..) = looked(&mut look);
    assert!(secret.expect("it is another") == Secret::read(&file).unwrap());
    no_news(&mut look);
}

#[test]
fn a_revocation_file_that_is_being_written_leaves_the_old_one_in_force() {
    let directory = tempfile::tempdir().unwrap();
    let [key, file] = ["key", "revoked"].map(|name| directory.path().join(name));
    let known = Secret::create(&key).unwrap();
    let [one, other] = [1, 2].map(|byte| CredentialSerial::of_random([byte; SERIAL_BYTES]));
    fs::write(&file, format!("{one}\n")).unwrap();
    let revoked = Arc::new(RevokedSerials::read(&file).unwrap());
    let mut look = Look::new(Acceptance { secret: known, revoked }, Some(file.clone()));
    for half in [String::new(), format!("{other}\n{}", &one.to_string()[..7]), "what\n".to_owned()]
    {
        fs::write(&file, &half).unwrap();
        let (_, troubles, revoked) = looked(&mut look);
        assert!(troubles.len() == 1 && troubles[0].contains("revocation file"), "{troubles:?}");
        assert!(revoked.has(&one) && !revoked.has(&other), "{half:?}");
        // It is told once, and again when an operator asks.
        assert!(looked(&mut look).1.is_empty());
        look.forget_troubles();
        assert_eq!(looked(&mut look).1.len(), 1);
    }
    fs::write(&file, format!("{other}\n")).unwrap();
    let (_, troubles, revoked) = looked(&mut look);
    assert!(troubles.is_empty() && revoked.has(&other) && !revoked.has(&one));
    fs::write(&file, "# none\n").unwrap();
    assert!(!looked(&mut look).2.has(&other));
}
