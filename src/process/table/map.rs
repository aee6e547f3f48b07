//! The table's only `unsafe` code: parts of a file as shared memory.
//!
//! Other processes write it at any time, so it is seen as atomics and as nothing else. What the
//! numbers in it mean, and that a part lies inside its file, is the caller's business; whatever
//! they say, no access leaves the part. A user that may write the file can also truncate it, and
//! then the next access ends this process with SIGBUS; nothing prevents that.

use std::{
    fs::File,
    io,
    marker::PhantomData,
    ops::Deref,
    ptr::NonNull,
    slice,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::*, fence},
    },
};

use memmap2::{MmapOptions, MmapRaw};

use super::{
    layout::{Header, ShareRecord, WaitRecord},
    share::Generation,
    slot::MappedSlot,
};

/// Parts begin at multiples of this.
pub(super) const PAGE: u64 = 4096;

/// What shared memory can be seen as.
///
/// # Safety
/// Every bit pattern is a value of it, it consists of atomics only, without padding, and its
/// alignment divides [`PAGE`].
pub(super) unsafe trait Shared: Sync {}

// SAFETY: an atomic number.
unsafe impl Shared for AtomicU32 {}
// SAFETY: an atomic number.
unsafe impl Shared for AtomicU64 {}
// SAFETY: `repr(C)`, atomic numbers only, 64 bytes at a multiple of 64; its definition asserts it.
unsafe impl Shared for MappedSlot {}
// SAFETY: `repr(C)`, atomic numbers only, 16 bytes at a multiple of 16; its definition asserts it.
unsafe impl Shared for WaitRecord {}
// SAFETY: `repr(C)`, atomic numbers only, 64 bytes at a multiple of 64; its definition asserts it.
unsafe impl Shared for ShareRecord {}
// SAFETY: `repr(C)`, atomic numbers and a slot only; its definition asserts that nothing is padded.
unsafe impl Shared for Header {}

/// What a table is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Full,
    /// The mapping is not writable: a store would end the process. Only relaxed loads are made
    /// there, by [`Loads`] where an order is needed.
    Look,
}

/// Loads that may be made of a mapping that is not writable. Of those, only relaxed ones are
/// defined everywhere; the order comes from a fence.
pub(super) trait Loads {
    type Value;

    /// As an acquiring load.
    fn seen(&self) -> Self::Value;

    /// As a load of sequential consistency, for a caller that judges by several of them.
    #[cfg(any(feature = "cli", test))]
    fn seen_in_order(&self) -> Self::Value;
}

macro_rules! seen {
    ($($atomic:ty => $value:ty),+) => {
        $(impl Loads for $atomic {
            type Value = $value;

            #[inline]
            fn seen(&self) -> $value {
                let value = self.load(Relaxed);
                fence(Acquire);
                value
            }

            #[cfg(any(feature = "cli", test))]
            fn seen_in_order(&self) -> $value {
                fence(SeqCst);
                let value = self.load(Relaxed);
                fence(SeqCst);
                value
            }
        })+
    };
}

seen!(AtomicU32 => u32, AtomicU64 => u64);

impl Loads for Generation {
    type Value = u32;

    #[inline]
    fn seen(&self) -> u32 {
        self.word().seen() as u32
    }

    #[cfg(any(feature = "cli", test))]
    fn seen_in_order(&self) -> u32 {
        self.word().seen_in_order() as u32
    }
}

/// A part of a file, seen as so many `T`.
pub(super) struct Part<T> {
    raw: MmapRaw,
    count: usize,
    shape: PhantomData<T>,
}

impl<T: Shared> Part<T> {
    /// Maps `count` times `T` at `offset` of `file`, a multiple of [`PAGE`]; the caller has found
    /// the file to be long enough.
    ///
    /// The mapping keeps the open file description of `file` alive, also in forked children, so
    /// it must not be a description that is ever locked.
    ///
    /// With [`Access::Look`] only relaxed loads may be made of it.
    pub(super) fn map(
        file: &File,
        offset: u64,
        count: usize,
        access: Access,
    ) -> io::Result<Part<T>> {
        assert!(offset.is_multiple_of(PAGE) && PAGE.is_multiple_of(align_of::<T>() as u64));
        let bytes = count.checked_mul(size_of::<T>()).expect("the caller counted bytes of a file");
        let mut options = MmapOptions::new();
        options.offset(offset).len(bytes);
        let raw = match access {
            Access::Full => options.map_raw(file)?,
            Access::Look => options.map_raw_read_only(file)?,
        };
        Ok(Part { raw, count, shape: PhantomData })
    }
}

impl<T: Shared> Deref for Part<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let first = self.raw.as_ptr().cast::<T>();
        // SAFETY: `map` made the mapping readable and `count` times `T` long, and aligned as PAGE
        // is; `self` keeps it for as long as the reference lives; `T: Shared` says that any bits
        // are a `T` and that others may write them. It is writable too, unless it is for looking
        // only: then nothing but relaxed loads is made there, which atomics of this size allow.
        unsafe { slice::from_raw_parts(first, self.count) }
    }
}

/// One `T` of a part, which it keeps mapped.
pub(super) struct Cell<T> {
    at: NonNull<T>,
    part: Arc<Part<T>>,
}

// SAFETY: it is a shared reference to a `Sync` value, and an `Arc` that keeps that in place.
unsafe impl<T: Shared> Send for Cell<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for Cell<T> {}

impl<T: Shared> Cell<T> {
    /// `None` beyond the part's end.
    pub(super) fn new(part: &Arc<Part<T>>, index: usize) -> Option<Cell<T>> {
        let at = NonNull::from(part.get(index)?);
        Some(Cell { at, part: part.clone() })
    }
}

impl<T: Shared> Clone for Cell<T> {
    fn clone(&self) -> Cell<T> {
        Cell { at: self.at, part: self.part.clone() }
    }
}

impl<T: Shared> Deref for Cell<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `new` took it from a reference into `part`. The memory of `part` stays where it
        // is for as long as `part` lives, which `self` sees to.
        unsafe { self.at.as_ref() }
    }
}
