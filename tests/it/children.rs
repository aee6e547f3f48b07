//! Processes that a test has started, and what these have started.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::Child,
    time::{Duration, Instant},
};

pub(crate) struct KilledOnDrop(pub(crate) Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn children_of(pid: u32) -> Vec<u32> {
    // Every thread has children of its own.
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks
        .filter_map(|task| std::fs::File::open(task.ok()?.path().join("children")).ok())
        .flat_map(|file| BufReader::new(file).lines().map_while(Result::ok))
        .flat_map(|line| line.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// Ctrl-C: it ends by the signal, and with it the children that it has now, and what it made there.
pub(crate) fn interrupted_leaves_nothing(child: &mut Child, directory: &Path) {
    let children = children_of(child.id());
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(2), "{status}");
    for child in children {
        assert!(!Path::new(&format!("/proc/{child}")).exists(), "{child} lives");
    }
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 0);
}

pub(crate) fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(30);
    while !there() {
        assert!(Instant::now() < patience, "no {what} after 30 s");
        std::thread::sleep(Duration::from_millis(10));
    }
}
