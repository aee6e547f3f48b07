//! Threads with a client each, that want each other's names now and then.

use std::{
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use super::{
    failure::{Result, check_count},
    run::Contender,
    stats::{Meter, Tally, Unprotected},
};

/// Which names the threads of a crowd lock.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wants {
    /// All of them the first one.
    TheSame,
    /// Each the one that bears its number, but in so many cases of one any other's.
    ItsOwn { others: f64 },
    /// Each the one that bears its number, but in so many cases of one the last, which all want.
    Common { share: f64 },
}

/// Threads side by side that never pause. Each has a client of its own: it locks the name of the
/// number that it is given, and runs what it is given under the lock.
pub(crate) struct Crowd<F> {
    members: Vec<Member<F>>,
    wants: Wants,
    /// What is counted under the lock of each name.
    counts: Arc<[Count]>,
    expected: u64,
}

/// Threads that share no lock are to share no cache line either.
#[repr(align(128))]
#[derive(Default)]
struct Count(Unprotected);

#[repr(align(128))]
struct Member<F> {
    lock: F,
    dice: Dice,
}

impl<F: FnMut(usize, &mut dyn FnMut()) -> Result<()> + Send> Crowd<F> {
    pub(crate) fn new(clients: impl IntoIterator<Item = F>, wants: Wants) -> Crowd<F> {
        let members = clients.into_iter().zip(1..);
        let members: Vec<_> =
            members.map(|(lock, seed)| Member { lock, dice: Dice::new(seed) }).collect();
        // One for each member's own name, and one for a common one.
        let counts = (0..=members.len()).map(|_| Count::default()).collect();
        Crowd { members, wants, counts, expected: 0 }
    }
}

impl<F: FnMut(usize, &mut dyn FnMut()) -> Result<()> + Send> Member<F> {
    /// What this member does in one slice; how often it locked.
    fn work(
        &mut self,
        number: usize,
        wants: Wants,
        counts: &[Count],
        slice: Duration,
        tally: &mut Tally,
    ) -> Result<u64> {
        let mut locked = 0;
        let mut meter = Meter::start(slice, tally);
        while let Some(cycles) = meter.next() {
            for _ in 0..cycles {
                let name = wants.name(number, counts.len() - 1, &mut self.dice);
                (self.lock)(name, &mut || counts[name].0.increment())?;
            }
            locked += cycles;
        }
        Ok(locked)
    }
}

impl<F: FnMut(usize, &mut dyn FnMut()) -> Result<()> + Send> Contender for Crowd<F> {
    fn run(&mut self, slice: Duration, tally: &mut Tally) -> Result<()> {
        let (wants, counts) = (self.wants, &*self.counts);
        let barrier = &Barrier::new(self.members.len());
        let mut tallies: Vec<Tally> = self.members.iter().map(|_| tally.empty()).collect();
        let locked: Vec<Result<u64>> = thread::scope(|scope| {
            let members = self.members.iter_mut().zip(&mut tallies).enumerate();
            let threads: Vec<_> = members
                .map(|(number, (member, tally))| {
                    scope.spawn(move || {
                        barrier.wait();
                        member.work(number, wants, counts, slice, tally)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
        });
        self.expected += locked.into_iter().sum::<Result<u64>>()?;
        tally.side_by_side(tallies);
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        let counted = self.counts.iter().map(|count| count.0.get()).sum();
        check_count("threads with a client each", counted, self.expected)
    }
}

impl Wants {
    fn name(self, own: usize, members: usize, dice: &mut Dice) -> usize {
        match self {
            Wants::TheSame => 0,
            Wants::ItsOwn { others } if dice.roll() < others => {
                let step = 1 + (dice.roll() * (members - 1) as f64) as usize;
                (own + step) % members
            }
            Wants::Common { share } if dice.roll() < share => members,
            Wants::ItsOwn { .. } | Wants::Common { .. } => own,
        }
    }
}

/// Numbers without a pattern that could be mistaken for luck; the same ones in every run.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A number from 0 to 1, without 1.
    fn roll(&mut self) -> f64 {
        // Marsaglia's xorshift: a few instructions, so that it costs little of what is measured.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(wants: Wants, own: usize) -> [u32; 5] {
        let mut dice = Dice::new(7);
        let mut chosen = [0; 5];
        (0..10_000).for_each(|_| chosen[wants.name(own, 4, &mut dice)] += 1);
        chosen
    }

    #[test]
    fn others_names_are_wanted_as_often_as_was_said_and_each_alike() {
        assert_eq!(chosen(Wants::ItsOwn { others: 0.0 }, 2), [0, 0, 10_000, 0, 0]);
        let all = chosen(Wants::ItsOwn { others: 1.0 }, 2);
        assert_eq!((all[2], all[4]), (0, 0));
        for other in [0, 1, 3] {
            assert!((3_000..3_700).contains(&all[other]), "{all:?}");
        }
        let few = chosen(Wants::ItsOwn { others: 0.01 }, 2);
        assert!((9_800..9_970).contains(&few[2]), "{few:?}");
        assert_eq!(chosen(Wants::TheSame, 2), [10_000, 0, 0, 0, 0]);
        let half = chosen(Wants::Common { share: 0.5 }, 2);
        assert!(half[4] > 4_800 && half[2] + half[4] == 10_000, "{half:?}");
    }
}
