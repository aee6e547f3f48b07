//! Maps from numbers that we, or our leader, gave out in order: no strong hash is needed where
//! nobody else chooses the keys.
//!
//! In what order such a map is gone through means nothing, so nothing that is said or decided may
//! follow it: whoever goes through one sorts first ([`sorted`]).

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hash, Hasher},
};

pub(crate) type Numbered<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// The map's keys, in order.
pub(super) fn sorted<K: Copy + Ord + Hash, V>(map: &Numbered<K, V>) -> Vec<K> {
    let mut keys: Vec<_> = map.keys().copied().collect();
    keys.sort_unstable();
    keys
}

#[derive(Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    #[inline]
    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    #[inline]
    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    #[inline]
    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64((*byte).into());
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
}
