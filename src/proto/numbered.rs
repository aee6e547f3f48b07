//! Maps from numbers that we, or our leader, gave out in order: no strong hash is needed where
//! no other side chooses the keys.
//!
//! In what order such a map is gone through means nothing, so nothing that is said or decided may
//! follow it: a caller that goes through one sorts first ([`sorted`]).

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState},
};

pub(crate) type Numbered<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// The same where a client that means harm may choose keys: of those that it makes meet in one place
/// of a [`Numbered`] map each would look at all the others.
pub(super) type Keyed<K, V> = HashMap<K, V, Key>;

/// The map's keys, in order.
pub(crate) fn sorted<K: Copy + Ord + Hash, V, S>(map: &HashMap<K, V, S>) -> Vec<K> {
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

/// What is not known outside: a number's place is a folded product of both, folded once more, since
/// numbers in a row leave a pattern in the first (as in wyhash).
#[derive(Clone, Copy, Debug)]
pub(super) struct Key([u64; 2]);

impl Default for Key {
    /// Drawn at random.
    fn default() -> Key {
        let drawn = RandomState::new();
        Key([drawn.hash_one(0), drawn.hash_one(1) | 1])
    }
}

impl BuildHasher for Key {
    type Hasher = KeyedHasher;

    #[inline]
    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher { state: self.0[0], factor: self.0[1] }
    }
}

pub(super) struct KeyedHasher {
    state: u64,
    factor: u64,
}

impl Hasher for KeyedHasher {
    #[inline]
    fn write_u64(&mut self, number: u64) {
        self.state = folded(self.state ^ number, self.factor);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64((*byte).into());
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        folded(self.state, 0x9e37_79b9_7f4a_7c15)
    }
}

#[inline]
fn folded(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests;
