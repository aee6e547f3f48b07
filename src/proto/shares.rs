//! What is limited is shared out: one client alone never gets all of it.

use std::collections::{BTreeMap, btree_map::Entry};

use super::ClientId;

/// Whether a client that has `own` of what is `taken` may have one more of `max`: while it has fewer
/// than are still free. So one client alone gets half, and leaves the others as much.
pub(crate) fn has_share(own: usize, taken: usize, max: usize) -> bool {
    own < max.saturating_sub(taken)
}

/// The most that one client can have been given of `max`.
pub(super) fn largest_share(max: usize) -> usize {
    max.div_ceil(2)
}

/// How many of one kind there may be, are, and are of each client that has any.
pub(crate) struct Shares {
    max: usize,
    taken: usize,
    of: BTreeMap<ClientId, usize>,
}

impl Shares {
    pub(crate) fn new(max: usize) -> Shares {
        Shares { max, taken: 0, of: BTreeMap::new() }
    }

    /// Whether the client may have one more.
    pub(crate) fn has_room_for(&self, client: ClientId) -> bool {
        let own = self.of.get(&client).copied().unwrap_or(0);
        has_share(own, self.taken, self.max)
    }

    /// The client has one more.
    pub(crate) fn take(&mut self, client: ClientId) {
        self.taken += 1;
        *self.of.entry(client).or_default() += 1;
    }

    /// The client has one less.
    pub(crate) fn give_back(&mut self, client: ClientId) {
        self.taken -= 1;
        let Entry::Occupied(mut count) = self.of.entry(client) else {
            unreachable!("it has some that it gives back")
        };
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }

    /// No client has any.
    pub(crate) fn clear(&mut self) {
        self.taken = 0;
        self.of.clear();
    }

    /// How many there are.
    #[cfg(any(feature = "host", test))]
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }
}

#[cfg(test)]
mod tests;
