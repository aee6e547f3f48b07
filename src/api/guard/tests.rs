use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::mpsc,
};

use super::*;
use crate::Mutex;

/// Locks while its thread panics, and hands the guard out of that.
struct Rescuer<'a>(&'a Mutex<()>, mpsc::Sender<MutexGuard<'a, ()>>);

impl Drop for Rescuer<'_> {
    fn drop(&mut self) {
        self.1.send(self.0.lock().unwrap()).unwrap();
    }
}

fn panic_with<T>(held: T) {
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _held = held;
        resume_unwind(Box::new("on purpose"));
    }));
    assert!(panicked.is_err());
}

#[test]
fn a_lock_taken_in_a_panic_hides_no_later_one() {
    let mutex = Mutex::new(());
    let (send, rescued) = mpsc::channel();
    panic_with(Rescuer(&mutex, send));
    drop(rescued.recv().unwrap());
    panic_with(mutex.lock().unwrap());
    assert_eq!(MutexGuard::predecessor(&mutex.lock().unwrap()), Predecessor::Panicked);
}
