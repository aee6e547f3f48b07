use super::*;
use crate::error::LockErrorKind;

fn accept(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

#[test]
fn a_directory_is_made_once_and_one_that_is_there_keeps_its_mode() {
    let above = tempfile::tempdir().unwrap();
    let path = above.path().join("state");
    let mode = || fs::metadata(&path).unwrap().mode() & 0o777;
    assert!(make_private_directory(&path).unwrap());
    assert_eq!(mode(), OWNERS_RIGHTS);
    fs::set_permissions(&path, Permissions::from_mode(0o750)).unwrap();
    assert!(!make_private_directory(&path).unwrap());
    assert_eq!(mode(), 0o750);
    let missing = make_private_directory(&path.join("a/b")).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}

#[test]
fn local_file_systems_are_trusted() {
    for kind in [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0xca45_1a4e] {
        assert_eq!(judge(Some(kind), &[]).unwrap(), Trust::Known);
    }
    for kind in [0x2fc1_2fc1, 0x0102_1994, 0x794c_7630] {
        assert_eq!(judge(Some(kind), &[]).unwrap(), Trust::Known);
    }
}

/// cargo#4629, filelock#67, mamba#1446: locks on a network file system.
#[test]
fn network_file_systems_are_refused_by_name() {
    for (kind, name) in [
        (0x6969, "nfs"),
        (0xff53_4d42, "cifs"),
        (0xfe53_4d42, "smb2"),
        (0x0102_1997, "9p"),
        (0x6573_5546, "fuse"),
        (0x00c3_6400, "ceph"),
        (0x4d44, "vfat"),
    ] {
        let error = judge(Some(kind), &[]).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Config);
        let text = error.to_string();
        assert!(text.contains(&format!("accept_file_system({name:?})")), "{text}");
    }
}

/// cargo#2623: a lock that is silently none.
#[test]
fn unknown_file_systems_are_refused_by_number() {
    let text = judge(Some(0x1234_5678), &[]).unwrap_err().to_string();
    assert!(text.contains("0x12345678"), "{text}");
    assert!(judge(None, &[]).unwrap_err().to_string().contains("unknown"));
}

#[test]
fn a_file_system_that_was_asked_for_is_accepted() {
    assert_eq!(judge(Some(0x6969), &accept(&["xyz", "NFS"])).unwrap(), Trust::OnRequest);
    assert_eq!(judge(Some(0xfe53_4d42), &accept(&["cifs"])).unwrap(), Trust::OnRequest);
    assert_eq!(judge(Some(0x12), &accept(&["0x12"])).unwrap(), Trust::OnRequest);
    assert_eq!(judge(None, &accept(&["unknown"])).unwrap(), Trust::OnRequest);
    assert!(judge(Some(0x6969), &accept(&["fuse"])).is_err());
}

#[test]
fn a_leaders_state_is_not_kept_in_memory_or_far_away_unless_that_is_asked_for() {
    for kind in [0xef53, 0x5846_5342, 0x9123_683e, 0x2fc1_2fc1, 0x794c_7630] {
        judge_state(Some(kind), &[]).unwrap();
    }
    for (kind, name) in [
        (Some(0x0102_1994), "tmpfs"),
        (Some(0x8584_58f6), "ramfs"),
        (Some(0x6969), "nfs"),
        (Some(0x6573_5546), "fuse"),
        (Some(0x1234_5678), "0x12345678"),
        (None, "unknown"),
    ] {
        let error = judge_state(kind, &accept(&["ext4"])).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Config);
        let text = error.to_string();
        assert!(text.contains(&format!("--accept-fs {name}")), "{text}");
        assert!(text.contains(&format!("accept_file_system({name:?})")), "{text}");
        judge_state(kind, &accept(&[&name.to_uppercase()])).unwrap();
    }
}
