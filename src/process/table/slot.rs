//! A slot of the table: 64 bytes, shared with every process that has it mapped.

use std::sync::atomic::{AtomicU32, AtomicU64};

use super::share::Generation;

/// What the table keeps of one name. Only `word` carries exclusion; every other field may be
/// stale or hostile.
///
/// All zeros are a slot that is free.
#[repr(C, align(64))]
#[derive(Default)]
pub(super) struct MappedSlot {
    /// A [`Word`](super::word::Word). Its low half is the futex.
    pub(super) word: AtomicU64,
    /// The end of `at_least` of the hold that is, or of the last one that had such an end, in ms
    /// since boot: past, or 0, once that hold is over. Under the word.
    pub(super) end: AtomicU64,
    /// The last token granted. Under the word.
    pub(super) token: AtomicU64,
    pub(super) hash: AtomicU64,
    /// Raised when the slot's name is forgotten, under the word. In the same number: the head of the
    /// share records' chain.
    pub(super) generation: Generation,
    pub(super) name_offset: AtomicU32,
    /// The name's length, its mode, and marks.
    pub(super) name_length: AtomicU32,
    /// A hint, in ms: when the holder of the token in [marks](super::marks) was first seen; while
    /// the word is reserved, since when it is; of a swept slot, half of a token.
    pub(super) since: AtomicU32,
    /// The next slot of the name's chain in the index.
    pub(super) next: AtomicU32,
    /// A writer sleeps on it until readers are gone; raised by the last one of a process.
    pub(super) bell: AtomicU32,
    /// Of a semaphore: how many permits there are.
    pub(super) limit: AtomicU32,
}

const _: () = assert!(size_of::<MappedSlot>() == 64 && align_of::<MappedSlot>() == 64);
const _: () = assert!(std::mem::offset_of!(MappedSlot, word) == 0);
const _: () = assert!(std::mem::offset_of!(MappedSlot, end) == 8);
const _: () = assert!(std::mem::offset_of!(MappedSlot, token) == 16);
const _: () = assert!(std::mem::offset_of!(MappedSlot, hash) == 24);
const _: () = assert!(std::mem::offset_of!(MappedSlot, generation) == 32);
const _: () = assert!(std::mem::offset_of!(MappedSlot, since) == 48);
