//! Values under small numbers that are used again. Compact rather than clever: what it is to
//! hold is counted in bytes per lock.

use std::ops::{Index, IndexMut};

#[derive(Debug)]
pub(super) struct Slab<T> {
    entries: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Slab<T> {
        Slab { entries: Vec::new(), free: Vec::new() }
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(key) = self.free.pop() {
            self.entries[key as usize] = Some(value);
            return key;
        }
        let length = self.entries.len();
        if length == self.entries.capacity() {
            // Not the doubling of `push`, of which half may lie idle.
            self.entries.reserve_exact(length / 8 + 32);
        }
        self.entries.push(Some(value));
        u32::try_from(length).expect("fewer than 2^32 entries fit the memory they need")
    }

    pub(super) fn get(&self, key: u32) -> Option<&T> {
        self.entries.get(key as usize)?.as_ref()
    }

    pub(super) fn remove(&mut self, key: u32) -> T {
        let value = self.entries[key as usize].take().expect("a key in use");
        self.free.push(key);
        value
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let keys = 0_u32..;
        keys.zip(&self.entries).filter_map(|(key, entry)| Some((key, entry.as_ref()?)))
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, key: u32) -> &T {
        self.entries[key as usize].as_ref().expect("a key in use")
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, key: u32) -> &mut T {
        self.entries[key as usize].as_mut().expect("a key in use")
    }
}
