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
mod tests {
    use super::*;

    /// Takes as many as it gets.
    fn fill(shares: &mut Shares, client: u128) -> usize {
        let client = ClientId(client);
        std::iter::from_fn(|| shares.has_room_for(client).then(|| shares.take(client))).count()
    }

    #[test]
    fn one_client_gets_half_and_each_further_one_half_of_the_rest() {
        for max in [1, 2, 3, 100, 101] {
            assert_eq!(fill(&mut Shares::new(max), 1), largest_share(max));
        }
        let mut shares = Shares::new(100);
        let all: Vec<_> = (1..=8).map(|client| fill(&mut shares, client)).collect();
        assert_eq!(all, [50, 25, 13, 6, 3, 2, 1, 0]);
        // What one gives back is free for all.
        shares.give_back(ClientId(1));
        assert!(shares.has_room_for(ClientId(9)) && !shares.has_room_for(ClientId(2)));
        shares.clear();
        assert_eq!(shares.taken(), 0);
        assert!(shares.has_room_for(ClientId(1)));
    }
}
