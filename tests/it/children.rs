//! Processes that a test has started, and what these have started.

use std::{
    io::{BufRead, BufReader},
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

pub(crate) fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(30);
    while !there() {
        assert!(Instant::now() < patience, "no {what} after 30 s");
        std::thread::sleep(Duration::from_millis(10));
    }
}
