use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;

fn read(text: &str) -> Result<RevokedSerials, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("revoked");
    fs::write(&path, text).unwrap();
    RevokedSerials::read(&path).map_err(|error| error.to_string())
}

#[test]
fn serials_stand_one_a_line_and_remarks_behind_them() {
    let [one, other] = [0x41, 0x42].map(|byte| CredentialSerial::of_random([byte; SERIAL_BYTES]));
    let text = format!("# stolen\n{one}  # a laptop\r\n\n{}\n", other.to_string().to_uppercase());
    let revoked = read(&text).unwrap();
    assert!(revoked.has(&one) && revoked.has(&other));
    assert!(!revoked.has(&CredentialSerial::of_random([0x43; SERIAL_BYTES])));
    assert_eq!(read("# none any more\n"), Ok(RevokedSerials::default()));
}

/// It is made before it is written.
#[test]
fn an_empty_file_is_no_list() {
    let trouble = read("").unwrap_err();
    assert!(trouble.contains("is empty") && trouble.contains("# none"), "{trouble}");
}

#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("revoked");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
    let error = RevokedSerials::read(&path).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config);
    assert!(error.to_string().contains("no regular file"), "{error}");
}

#[test]
fn a_file_that_is_not_whole_is_refused_wherever_it_was_cut() {
    let serial = CredentialSerial::of_random([0x41; SERIAL_BYTES]).to_string();
    for length in 1..=serial.len() {
        let trouble = read(&serial[..length]).unwrap_err();
        assert!(trouble.contains("ends within a line"), "{length}: {trouble}");
    }
    for wrong in [&serial[1..], &format!("{serial}0"), &serial.replace('4', "g"), "0x12"] {
        let trouble = read(&format!("# remark\n{wrong}\n")).unwrap_err();
        assert!(trouble.contains("line 2"), "{wrong}: {trouble}");
    }
}

#[test]
fn a_file_that_others_may_write_revokes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("revoked");
    fs::write(&path, "# none\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    RevokedSerials::read(&path).unwrap();
    for mode in [0o664, 0o646] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = RevokedSerials::read(&path).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Config, "{error}");
        assert!(error.to_string().contains("may be written by others"), "{error}");
    }
    let error = RevokedSerials::read(&directory.path().join("none")).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config);
    assert!(RevokedSerials::read(directory.path()).is_err());
}

#[test]
fn no_address_counts_as_the_client_of_a_credential() {
    let serial = CredentialSerial::of_random([0; SERIAL_BYTES]);
    assert_eq!(serial.as_bytes()[0], 0x40, "a positive number that needs all its bytes");
    assert_eq!(serial.client(), serial.clone().client());
    assert_ne!(serial.client(), CredentialSerial::of_random([1; SERIAL_BYTES]).client());
    assert_eq!(serial.client().0 >> 120, 0xff);
}
