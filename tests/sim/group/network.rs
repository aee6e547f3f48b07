//! The network between members: datagrams, each on its own way.

use tierlock::proto::group::GroupFrame;

use super::{GroupStep, GroupWorld, tell};
use crate::{
    clock::{MS, Truth},
    dice::Dice,
};

/// How the network is, and what of it is cut.
pub(crate) struct GroupNetwork {
    /// Until when nothing comes from one seat to another.
    cuts: Vec<Vec<Truth>>,
    /// Of a thousand.
    loss: u64,
    twice: u64,
    late: u64,
    /// How long a frame takes at most, but for late ones.
    delay: Truth,
}

impl GroupNetwork {
    pub(crate) fn new(dice: &mut Dice, count: usize) -> GroupNetwork {
        let [loss, twice, late] = match dice.below(4) {
            0 => [0, 0, 0],
            1 => [10, 5, 10],
            2 => [50, 20, 50],
            _ => [dice.below(200), dice.below(100), dice.below(100)],
        };
        let delay = [MS, 3 * MS, 10 * MS][dice.below(3) as usize];
        GroupNetwork { cuts: vec![vec![0; count]; count], loss, twice, late, delay }
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize, until: Truth) {
        let cut = &mut self.cuts[from][to];
        *cut = (*cut).max(until);
    }

    /// Whether everything gets through that is not lost by chance.
    pub(crate) fn is_whole(&self, truth: Truth) -> bool {
        self.cuts.iter().flatten().all(|until| *until <= truth)
    }

    /// Nothing is cut, and little is lost.
    pub(crate) fn heal(&mut self) {
        self.cuts.iter_mut().flatten().for_each(|cut| *cut = 0);
        (self.loss, self.twice, self.late) = (self.loss.min(10), self.twice.min(10), 0);
    }
}

impl GroupWorld {
    pub(super) fn carry(&mut self, from: usize, to: usize, frame: GroupFrame) {
        self.tally.frames += 1;
        let is_cut = self.network.cuts[from][to] > self.truth;
        if is_cut || self.dice.below(1000) < self.network.loss {
            self.tally.losses += 1;
            return;
        }
        if self.dice.below(1000) < self.network.twice {
            let pause = self.delay() * 2;
            let frame = Box::new(frame.clone());
            self.after(pause, GroupStep::Arrives { from, to, frame });
        }
        let pause = self.delay();
        self.after(pause, GroupStep::Arrives { from, to, frame: Box::new(frame) });
    }

    fn delay(&mut self) -> Truth {
        match self.dice.below(1000) < self.network.late {
            true => self.dice.below(800 * MS),
            false => self.dice.below(self.network.delay) + MS / 10,
        }
    }

    pub(super) fn arrives(&mut self, from: usize, to: usize, frame: GroupFrame) {
        let paused = self.seats[to].paused_until;
        if paused > self.truth {
            let frame = Box::new(frame);
            return self.at(paused, GroupStep::Arrives { from, to, frame });
        }
        if self.seats[to].process.is_none() {
            // The port refuses it; the sender may hear of that.
            if self.seats[from].process.is_some() && self.dice.percent(30) {
                let (seat, start) = (from, self.seats[from].starts);
                self.after(MS, GroupStep::Refused { seat, start, peer: to });
            }
            return;
        }
        tell!(self, "{from} -> {to} {:?}", frame.body);
        let read = GroupFrame::decode(&frame.encode()).expect("frames can be read");
        let read = read.expect("its kind is known");
        assert_eq!(read, frame, "frames are read as they were written");
        self.hand_frame(to, from, read);
    }
}
