//! A slot of the table: 64 bytes, shared with every process that has it mapped.

use std::sync::atomic::{AtomicU32, AtomicU64};

/// What the table keeps of one name. Only `word` carries exclusion; every other field may be
/// stale or hostile.
///
/// All zeros are a slot that is free.
#[repr(C, align(64))]
#[derive(Default)]
pub(super) struct Slot {
    /// A [`Word`](super::word::Word). Its low half is the futex.
    pub(super) word: AtomicU64,
    /// A [`Heir`](super::word::Heir): a hint.
    pub(super) heir: AtomicU64,
    /// The last token granted. Under the word.
    pub(super) token: AtomicU64,
    pub(super) hash: AtomicU64,
    /// Raised when the slot's name is forgotten. Under the word.
    pub(super) generation: AtomicU32,
    /// The next slot of the chain.
    pub(super) next: AtomicU32,
    pub(super) name_offset: AtomicU32,
    /// The name's length, and marks.
    pub(super) name_length: AtomicU32,
    /// When the word was last reserved for an heir, in ms: a hint.
    pub(super) reserved_ms: AtomicU32,
    pub(super) spare: [AtomicU32; 3],
}

const _: () = assert!(size_of::<Slot>() == 64 && align_of::<Slot>() == 64);
const _: () = assert!(std::mem::offset_of!(Slot, word) == 0);
const _: () = assert!(std::mem::offset_of!(Slot, heir) == 8);
const _: () = assert!(std::mem::offset_of!(Slot, token) == 16);
const _: () = assert!(std::mem::offset_of!(Slot, hash) == 24);
const _: () = assert!(std::mem::offset_of!(Slot, generation) == 32);
const _: () = assert!(std::mem::offset_of!(Slot, reserved_ms) == 48);
