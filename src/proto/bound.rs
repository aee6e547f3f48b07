//! The bound: what an absent session may hold, or have a place in the queue of.
//!
//! An entry of the journal says which names its session has asked for: the hashes of the first few, then
//! those of the parents of a few more, then that it may be any. It is durable before a grant or a place
//! is told, so after a take-over a name is open as soon as no absent session's bound covers it: a client that
//! died with the leader holds up its own names only. A hash that two names share holds up both, which
//! is safe.

use crate::name::Name;

/// How many names and parents a bound has before it covers more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundSize {
    pub names: usize,
    pub parents: usize,
}

impl BoundSize {
    /// The most that an entry has room for: with the last step, at most nine writes until it is narrowed.
    pub const LARGEST: BoundSize = BoundSize { names: FEW, parents: FEW };
}

/// What bounds know of a name. Part of the journal's format: the same in every process and release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameHashes {
    name: u32,
    parent: u32,
}

impl NameHashes {
    pub fn of(name: &Name) -> NameHashes {
        let text = name.as_str();
        // With its `/`, so that the parent of names without one covers only those.
        let parent = text.rfind('/').map_or("", |last| &text[..=last]);
        NameHashes { name: fnv_1a(text), parent: fnv_1a(parent) }
    }

    pub(super) fn of_name(self) -> u32 {
        self.name
    }

    pub(super) fn of_parent(self) -> u32 {
        self.parent
    }
}

fn fnv_1a(text: &str) -> u32 {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    text.bytes().fold(0x811c_9dc5, step)
}

const FEW: usize = 4;

/// Some hashes, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FewHashes {
    count: u8,
    all: [u32; FEW],
}

impl FewHashes {
    fn as_slice(&self) -> &[u32] {
        &self.all[..usize::from(self.count)]
    }

    fn contains(&self, hash: u32) -> bool {
        self.as_slice().contains(&hash)
    }

    fn insert(&mut self, hash: u32) {
        let at = self.as_slice().partition_point(|known| *known < hash);
        self.all.copy_within(at..usize::from(self.count), at + 1);
        self.all[at] = hash;
        self.count += 1;
    }

    /// `None` unless there are few, each once and in order.
    fn read(hashes: &[u32]) -> Option<FewHashes> {
        let is_ordered = hashes.is_sorted_by(|one, next| one < next);
        if hashes.len() > FEW || !is_ordered {
            return None;
        }
        let mut few = FewHashes { count: hashes.len() as u8, ..FewHashes::default() };
        few.all[..hashes.len()].copy_from_slice(hashes);
        Some(few)
    }
}

/// The names that a session has asked for, and perhaps more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    names: FewHashes,
    parents: FewHashes,
    is_everything: bool,
}

impl Bound {
    /// It has asked for nothing.
    pub const NOTHING: Bound = Bound {
        names: FewHashes { count: 0, all: [0; FEW] },
        parents: FewHashes { count: 0, all: [0; FEW] },
        is_everything: false,
    };

    /// It may have asked for any name, as every session of an older release may.
    pub const EVERYTHING: Bound = Bound { is_everything: true, ..Bound::NOTHING };

    pub fn is_everything(&self) -> bool {
        self.is_everything
    }

    /// Whether the session may have asked for this name.
    pub fn covers(&self, name: NameHashes) -> bool {
        self.is_everything || self.names.contains(name.name) || self.parents.contains(name.parent)
    }

    /// The same with one more name.
    pub fn with(mut self, name: NameHashes, size: BoundSize) -> Bound {
        let has_room = |few: &FewHashes, most: usize| few.as_slice().len() < most.min(FEW);
        if self.covers(name) {
            return self;
        }
        if has_room(&self.names, size.names) {
            self.names.insert(name.name);
            self
        } else if has_room(&self.parents, size.parents) {
            self.parents.insert(name.parent);
            self
        } else {
            Bound::EVERYTHING
        }
    }

    /// The more it has, the more names it holds up.
    pub(super) fn weight(&self) -> usize {
        let parents = self.parents.as_slice().len();
        self.names.as_slice().len() + (FEW + 1) * parents + usize::from(self.is_everything) * 1000
    }

    /// The hashes of its names and of its parents, in order.
    pub(super) fn hashes(&self) -> (&[u32], &[u32]) {
        (self.names.as_slice(), self.parents.as_slice())
    }

    /// One that does not cover everything, as it was written.
    pub(super) fn read(names: &[u32], parents: &[u32]) -> Option<Bound> {
        let (names, parents) = (FewHashes::read(names)?, FewHashes::read(parents)?);
        Some(Bound { names, parents, is_everything: false })
    }
}

#[cfg(test)]
pub(super) mod tests;
