//! Tests of the protocol: situations in the domain's words, and bytes. The world in which everything
//! that may go wrong does is tests/sim.

mod bytes;
mod situations;

use super::client::Random;

/// Xorshift: enough for tests, and the same on every machine.
#[derive(Clone)]
struct ByteDice(u64);

impl ByteDice {
    fn new(seed: u64) -> ByteDice {
        let mut dice = ByteDice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        dice.next();
        dice.next();
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// 0 to `end`, without it.
    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }

    fn random(&mut self) -> Random {
        let mut own = ByteDice::new(self.next());
        Box::new(move || u128::from(own.next()) << 64 | u128::from(own.next()))
    }
}
