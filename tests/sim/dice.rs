//! Chance, all of it from the seed.

use tierlock::proto::client::Random;

/// Xorshift: enough for chance, and the same on every machine.
#[derive(Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        // Neighbouring seeds are to have nothing in common.
        let mut dice = Dice((seed.wrapping_add(1)).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        dice.next();
        dice.next();
        dice
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// 0 to `end`, without it.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// Session ids and proofs for a client.
    pub(crate) fn random(&mut self) -> Random {
        let mut own = Dice::new(self.next());
        Box::new(move || u128::from(own.next()) << 64 | u128::from(own.next()))
    }
}
