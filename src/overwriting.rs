//! Changing a word by a plain store, behind a read-modify-write that another word needs anyway.
//!
//! A read-modify-write costs several times a plain access, and orders everything around it: a word
//! that is changed next to one is then changed without one of its own, Dekker's way, as in biased
//! locks. Only one thread at a time may do so: who holds the lock that the word belongs to, and goes
//! through its tiers. Others mark the word: somebody waits, it is recalled, it is closed.
//!
//! ```text
//! who overwrites the word                 who marks it
//! overwriting = true                      mark into the word, a read-modify-write
//! the other word's read-modify-write      which is a full fence as well
//! the word has no mark?                   while overwriting: wait
//! then store; overwriting = false         the mark is not in the word? then anew
//! ```
//!
//! Of the two, one comes second in the order of the fences and sees what the other did. If who marks
//! comes first, who overwrites sees the mark. Else who marks sees the flag, and waits until it is
//! clear, or sees it clear already; either way it sees the word as it was left, where its mark is
//! missing if it was overwritten. A mark has to be one that nobody else can put there meanwhile, or
//! who looks again takes another's for its own.

#![forbid(unsafe_code)]

use self::words::{AtomicBool, Ordering::*};
pub(crate) use self::words::{const_fn, store_byte};

/// Somebody is about to overwrite a word by a plain store, perhaps.
pub(crate) struct Overwriting(AtomicBool);

impl Overwriting {
    const_fn! {
        pub(crate) fn new() -> Overwriting {
            Overwriting(AtomicBool::new(false))
        }
    }

    /// Whether somebody is at it.
    #[inline]
    pub(crate) fn is_under_way(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// `other` makes the read-modify-write of another word, and says what came of it; then `this`
    /// looks at the word, and may store, if there was one. Nobody else may be at it.
    #[inline]
    pub(crate) fn behind<O, R>(&self, other: impl FnOnce() -> O, this: impl FnOnce(O) -> R) -> R {
        self.0.store(true, Relaxed);
        words::before_exchange();
        let done = other();
        words::fence_behind_exchange();
        let result = this(done);
        self.0.store(false, Release);
        result
    }

    /// For who has put a mark into the word by a read-modify-write: waits for somebody who is about
    /// to overwrite it, which takes a few instructions, or until the system gives it a CPU. If the
    /// mark is in the word afterwards, it stays until somebody sees it.
    pub(crate) fn wait_behind_mark(&self) {
        words::fence_behind_exchange();
        words::wait_while(|| self.0.load(Acquire));
    }
}

/// What was let go of by who lets go of several tiers at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LetGo {
    Nothing,
    All,
}

impl LetGo {
    #[inline]
    pub(crate) fn all(is_all: bool) -> LetGo {
        if is_all { LetGo::All } else { LetGo::Nothing }
    }
}

#[cfg(not(tierlock_loom))]
mod words {
    use std::{
        sync::atomic::{AtomicU8, compiler_fence, fence},
        thread,
        time::Duration,
    };

    pub(super) use std::sync::atomic::{AtomicBool, Ordering};

    use parking_lot_core::SpinWait;

    /// Keeps the compiler from moving what came before it behind the read-modify-write that follows,
    /// which may be none that does so itself.
    #[inline(always)]
    pub(super) fn before_exchange() {
        compiler_fence(Ordering::SeqCst);
    }

    /// A full fence, right behind a read-modify-write. On x86 that is one already, and only the
    /// compiler has to be kept from moving what comes after it; the fence itself would cost more
    /// than the exchange that it is to spare.
    #[inline(always)]
    pub(super) fn fence_behind_exchange() {
        if cfg!(any(target_arch = "x86", target_arch = "x86_64")) {
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
    }

    #[inline(always)]
    pub(crate) fn store_byte(word: &AtomicU8, value: u8) {
        word.store(value, Ordering::Release);
    }

    /// It ends up asleep: who is waited for may need the very CPU, and have less of a right to it.
    pub(super) fn wait_while(is_so: impl Fn() -> bool) {
        let mut spin = SpinWait::new();
        while is_so() {
            if !spin.spin() {
                thread::sleep(Duration::from_micros(50));
            }
        }
    }

    /// Passes a `const fn` through.
    macro_rules! const_fn {
        ($vis:vis fn $($rest:tt)*) => { $vis const fn $($rest)* };
    }
    pub(crate) use const_fn;
}

#[cfg(tierlock_loom)]
mod words {
    use loom::{
        sync::atomic::{AtomicU8, fence},
        thread,
    };

    pub(super) use loom::sync::atomic::{AtomicBool, Ordering};

    pub(super) fn before_exchange() {}

    /// loom has no exchange that is a fence.
    pub(super) fn fence_behind_exchange() {
        fence(Ordering::SeqCst);
    }

    // By exchanges, whose results nobody looks at: loom may order a store before an exchange that
    // read an older value, which no memory does.

    pub(crate) fn store_byte(word: &AtomicU8, value: u8) {
        word.swap(value, Ordering::Release);
    }

    pub(super) fn wait_while(is_so: impl Fn() -> bool) {
        while is_so() {
            thread::yield_now();
        }
    }

    /// loom's atomics are no constants.
    macro_rules! const_fn {
        ($vis:vis fn $($rest:tt)*) => { $vis fn $($rest)* };
    }
    pub(crate) use const_fn;
}
