use std::{sync::mpsc, thread, time::Duration};

use super::*;

/// Locks, says so, and unlocks when told.
struct HoldUntilTold(mpsc::Sender<()>, mpsc::Receiver<()>);

impl Visitor for HoldUntilTold {
    type Output = ();

    fn visit(self, mut lock: impl OpenLock + 'static) -> Result<()> {
        lock.with(|| {
            self.0.send(()).unwrap();
            self.1.recv().unwrap();
        })
    }
}

struct Take;

impl Visitor for Take {
    type Output = ();

    fn visit(self, mut lock: impl OpenLock + 'static) -> Result<()> {
        lock.with(|| {})
    }
}

#[test]
fn every_lock_excludes_a_thread_that_opened_it_separately() {
    let directory = tempfile::tempdir().unwrap();
    for Subject { name, lock, .. } in locks(directory.path(), Case::QUIET).unwrap() {
        let (held, is_held) = mpsc::channel();
        let (release, told) = mpsc::channel();
        let (took, has_taken) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| lock.open(HoldUntilTold(held, told)).unwrap());
            is_held.recv().unwrap();
            scope.spawn(|| {
                lock.open(Take).unwrap();
                took.send(()).unwrap();
            });
            let early = has_taken.recv_timeout(Duration::from_millis(20));
            release.send(()).unwrap();
            assert!(early.is_err(), "{name} let two in");
            has_taken.recv().unwrap();
        });
    }
}

#[test]
fn a_robust_mutex_is_not_held_beyond_a_section_that_panics() {
    let file = tempfile::tempfile().unwrap();
    RobustMutex::create(&file).unwrap();
    let mut mutex = RobustMutex::open(&file).unwrap();
    let section = || mutex.with(|| std::panic::resume_unwind(Box::new("on purpose")));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(section)).is_err());
    let error = mutex.unlock().expect_err("it is held");
    assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
}

#[test]
fn what_a_dead_holder_takes_along_is_left_out_where_holders_die() {
    let directory = tempfile::tempdir().unwrap();
    let of = |case| locks(directory.path(), case).unwrap().len();
    assert_eq!(of(Case::HOLDER_KILLED), of(Case::QUIET) - 1);
}
