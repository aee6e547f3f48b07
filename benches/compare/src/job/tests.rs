use super::*;
use crate::bench::jobs::OwnLock;

#[test]
fn every_job_is_read_as_what_it_was_written_as() {
    let read = |text: String| -> Job { serde_json::from_str(&text).unwrap() };
    let lock = AnyLock::Own(OwnLock { directory: "/d".into(), name: "a/b".into() });
    let share = jobs::LockJob::Hold { lock, resident_mib: 1 };
    assert!(matches!(read(serde_json::to_string(&share).unwrap()), Job::Share(_)));
    let become_other = Become::new("/bin/true".as_ref(), ["a"]);
    assert!(matches!(read(serde_json::to_string(&become_other).unwrap()), Job::Become(_)));
    let serve = Serve { state_dir: "/s".into(), secret_file: "/k".into(), port: 0 };
    assert!(matches!(read(serde_json::to_string(&serve).unwrap()), Job::Serve(_)));
}
