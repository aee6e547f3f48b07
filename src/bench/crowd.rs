//! Threads with a client each, that want each other's names now and then.

use std::{
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use super::{
    failure::{Result, check_count},
    run::Contender,
    stats::{RowTally, Unprotected},
};

/// Threads side by side that never pause. Each has a client of its own: it locks the name of the
/// number that it is given, and runs what it is given under the lock.
pub(crate) struct Crowd<F, W> {
    members: Vec<CrowdMember<F>>,
    /// The number of the name that a member wants next.
    wants: W,
    /// What is counted under the lock of each name.
    counts: Arc<[Count]>,
    expected: u64,
}

/// Threads that share no lock are to share no cache line either.
#[repr(align(128))]
#[derive(Default)]
struct Count(Unprotected);

#[repr(align(128))]
struct CrowdMember<F> {
    lock: F,
    dice: Dice,
}

impl<F, W> Crowd<F, W>
where
    F: FnMut(usize, &mut dyn FnMut()) -> Result<()> + Send,
    W: Fn(usize, &mut Dice) -> usize + Sync,
{
    /// `wants` chooses by the member's own number; there is a name for each, and one more.
    pub(crate) fn new(clients: impl IntoIterator<Item = F>, wants: W) -> Crowd<F, W> {
        let members = clients.into_iter().zip(1..);
        let members: Vec<_> =
            members.map(|(lock, seed)| CrowdMember { lock, dice: Dice::new(seed) }).collect();
        let counts = (0..=members.len()).map(|_| Count::default()).collect();
        Crowd { members, wants, counts, expected: 0 }
    }
}

impl<F: FnMut(usize, &mut dyn FnMut()) -> Result<()> + Send> CrowdMember<F> {
    /// What this member does in one slice; how often it locked.
    fn work(
        &mut self,
        wants: impl Fn(&mut Dice) -> usize,
        counts: &[Count],
        slice: Duration,
        tally: &mut RowTally,
    ) -> Result<u64> {
        tally.repeat(slice, || {
            let name = wants(&mut self.dice);
            (self.lock)(name, &mut || counts[name].0.increment())
        })
    }
}

impl<F, W> Contender for Crowd<F, W>
where
    F: FnMut(usize, &mut dyn FnMut()) -> Result<()> + Send,
    W: Fn(usize, &mut Dice) -> usize + Sync,
{
    fn run(&mut self, slice: Duration, tally: &mut RowTally) -> Result<()> {
        let (wants, counts) = (&self.wants, &*self.counts);
        let members = self.members.iter_mut().enumerate();
        self.expected += at_once(members, tally, |(number, member), tally| {
            member.work(|dice| wants(number, dice), counts, slice, tally)
        })?;
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        let counted = self.counts.iter().map(|count| count.0.get()).sum();
        check_count("threads with a client each", counted, self.expected)
    }
}

/// Runs `work` for each member on a thread of its own, all from the same moment on; returns the sum
/// of what they counted.
pub(crate) fn at_once<M: Send>(
    members: impl ExactSizeIterator<Item = M>,
    tally: &mut RowTally,
    work: impl Fn(M, &mut RowTally) -> Result<u64> + Sync,
) -> Result<u64> {
    let (work, barrier) = (&work, &Barrier::new(members.len()));
    let mut tallies: Vec<RowTally> = (0..members.len()).map(|_| tally.empty()).collect();
    let counted: Vec<Result<u64>> = thread::scope(|scope| {
        let start = |(member, tally)| {
            scope.spawn(move || {
                barrier.wait();
                work(member, tally)
            })
        };
        let threads: Vec<_> = members.zip(&mut tallies).map(start).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    });
    let counted = counted.into_iter().sum::<Result<u64>>()?;
    tally.side_by_side(tallies);
    Ok(counted)
}

/// The member's own name, but with this probability another one's, out of so many members.
pub(crate) fn own_or_others(
    probability: f64,
    members: usize,
) -> impl Fn(usize, &mut Dice) -> usize + Sync {
    move |own, dice| {
        if dice.roll() >= probability {
            return own;
        }
        let step = 1 + (dice.roll() * (members - 1) as f64) as usize;
        (own + step) % members
    }
}

/// Numbers without a pattern that could be mistaken for luck; the same ones in every run.
pub(crate) struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A number from 0 to 1, without 1.
    pub(crate) fn roll(&mut self) -> f64 {
        // Marsaglia's xorshift: a few instructions, so that it costs little of what is measured.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests;
