use std::fs;

use super::*;
use crate::host::net::{acceptance::Acceptance, client_keys::ClientKeys};

fn secret(bytes: &[u8]) -> Secret {
    Secret::from_secrets(&bytes.iter().map(|byte| [*byte; 32]).collect::<Vec<_>>())
}

#[test]
fn a_credential_is_read_as_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("checkout.key");
    let until = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000_000_000);
    let issue = || {
        secret(&[1])
            .issue(Role::Lock, "check & out")
            .names(["orders/", "users/1", "orders/old/"])
            .until(until)
            .time_to_live_max(Duration::from_secs(5))
    };
    let made = issue().write(&path).unwrap();
    let read = Credential::read(&path).unwrap();
    for credential in [&made, &read] {
        assert_eq!((credential.role(), credential.label()), (Role::Lock, "check & out"));
        // The last is one of the first's.
        assert_eq!(credential.names().collect::<Vec<_>>(), ["orders/", "users/1"]);
        assert_eq!(credential.until(), Some(until));
        assert_eq!(credential.time_to_live_max(), Some(Duration::from_secs(5)));
        assert_eq!(credential.serial().len(), 32);
    }
    assert_eq!(made.serial(), read.serial());
    assert_eq!(read.file(), Some(&*path));
    assert!(!format!("{read:?}").contains("key"), "{read:?}");
    // It is never overwritten, and protected as a secret is.
    let error = issue().write(&path).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config, "{error}");
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap()) & 0o777;
    assert_eq!(mode, 0o600);
    let error = Secret::read(&path).unwrap_err();
    assert!(error.to_string().contains("is a credential"), "{error}");
    assert!(matches!(ClientKeys::read(&path).unwrap(), ClientKeys::Credential(_)));
}

#[test]
fn a_file_that_is_no_whole_credential_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    secret(&[1]).issue(Role::Read, "one").write(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let other = directory.path().join("other");
    secret(&[1]).issue(Role::Read, "two").write(&other).unwrap();
    let other = fs::read_to_string(&other).unwrap();
    let (_, from_certificate) = other.split_once("-----BEGIN CERT").unwrap();
    let (own_key, _) = text.split_once("-----BEGIN CERT").unwrap();
    let (without_leaders, _) = text.split_once("-----BEGIN PUBLIC").unwrap();
    for bad in [
        &text[..text.len() / 2],
        without_leaders,
        own_key,
        // The key of one and the certificate of another.
        &format!("{own_key}-----BEGIN CERT{from_certificate}"),
        &format!("{text}{other}"),
        &text.replace("PUBLIC KEY", "RSA PUBLIC KEY"),
    ] {
        fs::write(&path, bad).unwrap();
        let error = Credential::read(&path).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Config);
        assert!(error.to_string().contains("issued again"), "{error}\n{bad}");
    }
    fs::write(&path, "ab".repeat(32)).unwrap();
    assert!(Credential::read(&path).unwrap_err().to_string().contains("no credential"));
    fs::write(&path, &text).unwrap();
    Credential::read(&path).unwrap();
}

#[test]
fn what_cannot_be_is_not_issued() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    let issue = |label: &str| secret(&[1]).issue(Role::Lock, label);
    let past = SystemTime::now() - Duration::from_secs(1);
    let many = (0..500).map(|n| format!("names/{n}/"));
    for (builder, why) in [
        (issue(""), "label"),
        (issue(&"x".repeat(65)), "label"),
        (issue(&"€".repeat(43)), "128 bytes"),
        (issue("a\nb"), "label"),
        (issue("tierlock client"), "label"),
        (issue("a").names([""]), "name"),
        (issue("a").names(["a\u{7}"]), "name"),
        (issue("a").names(many), "so many names"),
        (issue("a").until(past), "in the future"),
        (issue("a").until(SystemTime::UNIX_EPOCH + no_end()), "4096"),
        (issue("a").time_to_live_max(Duration::from_millis(999)), "1 s to 60 s"),
    ] {
        let error = builder.write(&path).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Config, "{error}");
        assert!(error.to_string().contains(why), "{error}");
        assert!(!path.exists());
    }
}

#[test]
fn a_credential_outlives_the_secrets_before_the_last_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    let (old, both, new) = (secret(&[1]), secret(&[1, 2]), secret(&[2]));
    both.issue(Role::Lock, "checkout").write(&path).unwrap();
    let credential = Credential::read(&path).unwrap();
    let presented = &credential.key.cert[0];
    let judged =
        |secret: &Secret| Acceptance::from(secret).judge(presented, Dialect::Locks).is_ok();
    assert!(judged(&both) && judged(&new) && !judged(&old));
    assert_eq!(credential.leaders, both.leaders());
    assert!(Acceptance::from(&new).judge(presented, Dialect::Group).is_err());
}
