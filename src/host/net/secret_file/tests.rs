use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown},
    path::PathBuf,
    process::{Command, Stdio},
};

use super::*;
use crate::{host::net::client_keys::ClientKeys, proto::rights::Role};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn refused(path: &Path, words: &[&str]) {
    let error = Secret::read(path).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{error}: lacks {word:?}");
    }
}

#[test]
fn a_new_secret_is_one_line_for_its_owner_only_and_is_read_back() {
    let directory = directory();
    let path = directory.path().join("key");
    let made = Secret::create(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.len(), 65);
    assert!(text.ends_with('\n'));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let read = Secret::read(&path).unwrap();
    assert_eq!((&made, Some(&*path)), (&read, read.file()));
}

#[test]
fn a_secret_is_never_overwritten() {
    let directory = directory();
    let path = directory.path().join("key");
    fs::write(&path, "precious").unwrap();
    let error = Secret::create(&path).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config);
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_secret_file_may_be_read_by_a_group_and_written_by_its_owner_only() {
    let directory = directory();
    let path = directory.path().join("key");
    Secret::create(&path).unwrap();
    for mode in [0o604, 0o644, 0o444, 0o660, 0o620, 0o602, 0o601] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        refused(&path, &["chmod 600", &format!("{mode:03o}")]);
    }
    // As container platforms mount it: `0440 root:app`.
    for mode in [0o600, 0o400, 0o440, 0o640] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        Secret::read(&path).unwrap();
    }
}

#[test]
fn a_secret_file_of_another_user_is_refused() {
    let directory = directory();
    let path = directory.path().join("key");
    Secret::create(&path).unwrap();
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: only root can give a file away");
    }
    const OTHER: u32 = 65_534;
    chown(&path, Some(OTHER), None).unwrap();
    refused(&path, &["belongs to user 65534", "root"]);
    // Its group is no matter.
    chown(&path, Some(0), Some(OTHER)).unwrap();
    Secret::read(&path).unwrap();
}

#[test]
fn a_missing_or_malformed_secret_is_a_matter_of_settings() {
    let directory = directory();
    let path = directory.path().join("key");
    refused(&path, &["tierlock secret new"]);
    refused(directory.path(), &["regular file"]);
    Secret::create(&path).unwrap();
    let good = "ab".repeat(32);
    for bad in [
        "",
        "\n",
        &good[1..],
        &format!("{good}0"),
        &good.replace('a', "g"),
        &format!("{good}\n\n"),
        &format!("\n{good}"),
        &format!("{good}\n# a remark"),
        &format!("{good}\n").repeat(1000),
    ] {
        fs::write(&path, bad).unwrap();
        refused(&path, &["64 hexadecimal digits"]);
    }
    for fine in [good.clone(), format!("{good}\n"), format!("{good}\r\n"), good.to_uppercase()] {
        fs::write(&path, &fine).unwrap();
        Secret::read(&path).unwrap();
    }
}

#[test]
fn a_secret_is_read_again_and_stays_as_it_is_where_that_fails() {
    let directory = directory();
    let path = directory.path().join("key");
    let first = Secret::create(&path).unwrap().of_file(&path);
    let mut keys = ClientKeys::from(first.clone());
    let mut refreshed = || {
        keys = keys.read_again().unwrap_or_else(|| keys.clone());
        match &keys {
            ClientKeys::Secret(secret) => secret.clone(),
            ClientKeys::Credential(credential) => panic!("{credential:?}"),
        }
    };
    fs::write(&path, "damaged").unwrap();
    assert_eq!(refreshed(), first);
    fs::write(&path, "ab".repeat(32)).unwrap();
    assert_eq!(refreshed(), Secret::from_secrets(&[[0xab; 32]]));
    fs::remove_file(&path).unwrap();
    assert_eq!(refreshed(), Secret::from_secrets(&[[0xab; 32]]));
    // A client may be given a credential in the place of the secret.
    Secret::from_secrets(&[[0xab; 32]]).issue(Role::Lock, "a").write(&path).unwrap();
    assert!(matches!(keys.read_again(), Some(ClientKeys::Credential(_))));
}

#[test]
fn a_secret_file_may_hold_several_secrets_and_their_order_counts() {
    let directory = directory();
    let path = directory.path().join("key");
    Secret::create(&path).unwrap();
    let [one, other] = ["ab", "cd"].map(|byte| byte.repeat(32));
    let read = |text: String| {
        fs::write(&path, text).unwrap();
        Secret::read(&path).unwrap()
    };
    let both = read(format!("{one}\n{other}\n"));
    assert_eq!(both, read(format!("{one}\r\n{other}")));
    assert_ne!(both, read(format!("{other}\n{one}\n")));
    assert_ne!(both, read(one));
}

/// A named pipe, which has no writer yet.
fn named_pipe(directory: &tempfile::TempDir) -> PathBuf {
    let path = directory.path().join("pipe");
    assert!(Command::new("mkfifo").arg("-m600").arg(&path).status().unwrap().success());
    path
}

#[test]
fn a_pipe_without_a_writer_is_an_error_and_not_waited_for() {
    let directory = directory();
    let path = named_pipe(&directory);
    refused(&path, &["pipe", "writer"]);
    // A writer that says nothing is one all the same.
    let writer = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let silent = std::thread::spawn({
        let path = path.clone();
        move || Secret::read(path)
    });
    std::thread::yield_now();
    drop(writer);
    refused(&path, &["pipe"]);
    silent.join().unwrap().unwrap_err();
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    refused(&path, &["chmod 600"]);
}

#[test]
fn a_pipe_is_read_to_its_end_however_slowly_it_is_written() {
    let directory = directory();
    let key = directory.path().join("key");
    let made = Secret::create(&key).unwrap();
    let path = named_pipe(&directory);
    let mut writer = Command::new("sh")
        .args(["-c", "exec >\"$1\"; head -c 10 \"$0\"; sleep .1; tail -c +11 \"$0\""])
        .args([&key, &path])
        .spawn()
        .unwrap();
    // Its shell may not have come to the pipe yet.
    let read = std::iter::repeat_with(|| Secret::read(&path)).find_map(|read| match read {
        Err(error) if error.to_string().contains("start its writer") => None,
        read => Some(read.unwrap()),
    });
    let read = read.unwrap();
    assert_eq!((&made, None), (&read, read.file()));
    writer.wait().unwrap();
    // The same with one that has no name, of whichever user.
    let mut cat = Command::new("cat").arg(&key).stdout(Stdio::piped()).spawn().unwrap();
    let pipe = cat.stdout.take().unwrap();
    let unnamed = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&pipe));
    let read = Secret::read(unnamed).unwrap();
    assert_eq!((&made, None), (&read, read.file()));
    cat.wait().unwrap();
}
