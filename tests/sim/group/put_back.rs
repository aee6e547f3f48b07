//! A disk that is put back to an earlier state, as that of a virtual machine is from a snapshot.
//!
//! It is done where it does the most harm and the group is able to notice: what the disk has confirmed since is
//! with a bare majority, the others do not reach the leader and would follow one of their own if they had one
//! more vote, and the leader, which knows what the disk has confirmed, runs on.

use tierlock::proto::group::StoredGroup;

use super::{GroupStep, GroupWorld, tell};
use crate::clock::{MS, SECOND, Truth};

impl GroupWorld {
    /// Cuts off as many as a majority can do without, and keeps what the disk of one of the majority has.
    pub(super) fn begin_to_put_back(&mut self) {
        let Some(leader) = self.leading().filter(|_| self.can_be_put_back()) else { return };
        let count = self.seats.len();
        let others: Vec<usize> = (1..count).map(|behind| (leader + behind) % count).collect();
        let (near, far) = others.split_at(count / 2);
        let one = near[0];
        let until = self.truth + 1200 * MS;
        for &far in far {
            for &near in near[1..].iter().chain([&leader]) {
                self.network.cut(near, far, until);
                self.network.cut(far, near, until);
            }
        }
        tell!(self, "{one} is to be put back, and {far:?} do not reach {leader}");
        self.calm_until = self.truth + 2 * SECOND;
        let before = Box::new(self.seats[one].disk.stored.clone());
        let later: Truth = 200 * MS + self.dice.below(400 * MS);
        self.after(later, GroupStep::PutsDiskBack { leader, seat: one, before });
    }

    /// Nothing that has gone wrong lasts.
    fn can_be_put_back(&self) -> bool {
        let is_well = |seat: &super::members::GroupSeatInWorld| {
            seat.process.is_some()
                && seat.paused_until <= self.truth
                && seat.slow_until <= self.truth
        };
        self.is_whole() && self.network.is_whole(self.truth) && self.seats.iter().all(is_well)
    }

    pub(super) fn put_disk_back(&mut self, leader: usize, at: usize, before: StoredGroup) {
        let is_there =
            self.seats.iter().all(|seat| seat.process.is_some() && seat.paused_until <= self.truth);
        if self.is_well || !is_there || self.leading() != Some(leader) {
            return;
        }
        self.crash(at);
        tell!(self, "the disk of {at} is put back");
        self.tally.put_back += 1;
        let disk = &mut self.seats[at].disk;
        (disk.stored, disk.is_put_back) = (before, true);
        self.starts(at);
    }

    /// It was told, and begins anew with another disk.
    pub(super) fn become_another(&mut self, at: usize, start: u32) {
        if self.seats[at].starts != start || self.seats[at].process.is_none() {
            return;
        }
        self.tally.told_put_back += 1;
        if self.seats[at].has_old {
            return; // it is out, and is taken out again
        }
        self.crash(at);
        let new = self.new_disk();
        let old = std::mem::replace(&mut self.seats[at].disk, new);
        self.seats[at].old_disk = Some(old);
        self.starts(at);
    }
}
