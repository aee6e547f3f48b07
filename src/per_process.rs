//! A value for each process, in a `static`.
//!
//! A forked child touches nothing that it inherited, not even a lock: a thread of its parent may
//! have held it at the fork, and is not there to release it. So the first process that asks has
//! the first value, and its children have theirs behind it.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering::Relaxed},
};

pub(crate) struct PerProcess<T> {
    /// The id of the process that the value belongs to; 0 as long as no process has asked.
    process: AtomicU32,
    value: T,
    child: OnceLock<Box<PerProcess<T>>>,
}

impl<T> PerProcess<T> {
    pub(crate) const fn new(value: T) -> PerProcess<T> {
        PerProcess { process: AtomicU32::new(0), value, child: OnceLock::new() }
    }

    /// This process's value, made by `make` in a forked child.
    pub(crate) fn here(&self, make: fn() -> T) -> &T {
        let process = std::process::id();
        let mut link = self;
        loop {
            match link.process.compare_exchange(0, process, Relaxed, Relaxed) {
                Ok(_) => return &link.value,
                Err(owner) if owner == process => return &link.value,
                Err(_) => {}
            }
            link = match link.child.get() {
                Some(child) => child,
                None => {
                    // Two threads at once may make one each, and one of them in vain.
                    let _ = link.child.set(Box::new(PerProcess::new(make())));
                    continue;
                }
            };
        }
    }
}
