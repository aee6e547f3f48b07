use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::*;
use crate::{fork::testing::fork, process::Options};

#[test]
fn a_child_forked_while_a_thread_looks_for_a_ground_finds_its_own() {
    let files = tempfile::tempdir().unwrap();
    let directory = Directory::open(files.path(), &Options::default()).unwrap();
    let looking = GROUNDS.here(Mutex::default).lock();
    let Some(child) = fork() else {
        std::mem::forget(Ground::of(directory));
        std::process::exit(0);
    };
    let child = Pid::from_raw(child).unwrap();
    let begin = Instant::now();
    let status = loop {
        if let Some((_, status)) = waitpid(Some(child), WaitOptions::NOHANG).unwrap() {
            break status;
        }
        if begin.elapsed() > Duration::from_secs(60) {
            kill_process(child, Signal::KILL).unwrap();
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    drop(looking);
    assert_eq!(status.exit_status(), Some(0), "{status:?}");
}
