//! What a process has of its own, although it may have been forked from one that has it too.

use std::sync::OnceLock;

use super::sys;

/// A value for each of the processes that were forked from each other since the first one was
/// made: a child touches nothing that it inherited, not even a mutex, and has its own beside it.
pub(crate) struct PerFork<T> {
    generation: u64,
    value: T,
    child: OnceLock<Box<PerFork<T>>>,
}

impl<T> PerFork<T> {
    pub(super) fn new(value: T) -> PerFork<T> {
        PerFork { generation: sys::generation(), value, child: OnceLock::new() }
    }

    /// One that is there before any fork, in a `static`.
    pub(crate) const fn of_the_first(value: T) -> PerFork<T> {
        PerFork { generation: sys::FIRST_GENERATION, value, child: OnceLock::new() }
    }

    /// This process's value, if it has one.
    #[inline]
    pub(super) fn so_far(&self) -> Option<&T> {
        self.so_far_in(sys::generation())
    }

    /// The same, for who knows in which generation this process is.
    #[inline]
    pub(super) fn so_far_in(&self, generation: u64) -> Option<&T> {
        if self.generation == generation {
            return Some(&self.value);
        }
        self.child.get()?.so_far_in(generation)
    }

    /// This process's value, made if need be.
    pub(crate) fn here(&self, make: impl FnOnce() -> T) -> &T {
        match self.try_here(|| Ok::<T, std::convert::Infallible>(make())) {
            Ok(value) => value,
        }
    }

    /// The same with a value that may fail to be made.
    #[inline]
    pub(super) fn try_here<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        if self.generation == sys::generation() {
            return Ok(&self.value);
        }
        self.try_child(make)
    }

    #[cold]
    fn try_child<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        let generation = sys::generation();
        let mut last = self;
        while let Some(child) = last.child.get() {
            if child.generation == generation {
                return Ok(&child.value);
            }
            last = child;
        }
        // Two threads at once may make it, and one of them in vain.
        let _ = last.child.set(Box::new(PerFork::new(make()?)));
        Ok(&last.child.get().expect("it was made").value)
    }
}
