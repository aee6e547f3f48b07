//! What goes wrong in a group, and its operator.

use std::mem;

use tierlock::proto::{
    group::DiskRoom,
    mistake::{Mistake, planted},
};

use super::{GroupEvent, GroupStep, GroupWorld, name_of, tell};
use crate::clock::{MS, SECOND, Truth};

impl GroupWorld {
    pub(super) fn trouble(&mut self) {
        if self.is_well {
            return;
        }
        if self.truth < self.calm_until {
            return self.at(self.calm_until, GroupStep::Trouble);
        }
        let pause = self.dice.below(2 * SECOND) + 10 * MS;
        let at = match self.dice.percent(50) {
            true => self.leading().unwrap_or(0),
            false => self.dice.below(self.seats.len() as u64) as usize,
        };
        match self.dice.below(15) {
            0..=2 => self.crash_for(at, pause),
            3 => {
                // The power of all of them.
                for seat in 0..self.seats.len() {
                    let own = self.dice.below(pause);
                    self.crash_for(seat, own);
                }
            }
            4 => {
                tell!(self, "{at} stands still");
                let until = self.truth + pause;
                self.seats[at].paused_until = until;
                self.tell_above(GroupEvent::StandsStill(at, until));
            }
            5 => self.isolate(at, pause),
            6 => self.cut_one_way(at, pause),
            7 => self.bridge(pause),
            8 => {
                tell!(self, "the disk of {at} is slow");
                self.seats[at].slow_until = self.truth + pause;
            }
            9 => self.hand_over(at),
            10 => self.lose_disk(at, pause),
            11 => self.show_old_disk(at, pause),
            12 => self.begin_to_put_back(),
            13 => self.fill_disk(at, pause * 2),
            _ => self.swap_disks(at, pause),
        }
        // The world above has troubles of its own.
        let seldom = if self.above.is_some() { 4 } else { 1 };
        let next = self.dice.below(1500 * MS * seldom) + 20 * MS;
        self.after(next, GroupStep::Trouble);
    }

    pub(super) fn leading(&self) -> Option<usize> {
        self.seats.iter().position(|seat| {
            seat.process.as_ref().is_some_and(|process| process.machine.is_leading())
        })
    }

    /// One member stays cut one way, or is left with one of the others: they are a majority without it, and
    /// are to be well all the same.
    pub(super) fn cut_for_good(&mut self) {
        if !self.is_whole() {
            return;
        }
        let at = match self.dice.percent(60) {
            true => self.leading().unwrap_or(0),
            false => self.dice.below(self.seats.len() as u64) as usize,
        };
        let kind = self.dice.below(3);
        tell!(self, "{at} stays cut, {kind}");
        self.cut_member = Some((at, kind < 2));
        let kept = (at + 1) % self.seats.len();
        for other in (0..self.seats.len()).filter(|other| *other != at) {
            match kind {
                0 => self.network.cut(at, other, Truth::MAX),
                1 => self.network.cut(other, at, Truth::MAX),
                _ if other == kept => {}
                _ => {
                    self.network.cut(at, other, Truth::MAX);
                    self.network.cut(other, at, Truth::MAX);
                }
            }
        }
    }

    fn crash_for(&mut self, at: usize, pause: Truth) {
        self.crash(at);
        self.after(pause, GroupStep::Starts { seat: at });
    }

    fn isolate(&mut self, at: usize, pause: Truth) {
        tell!(self, "{at} is cut off");
        let until = self.truth + pause;
        for other in 0..self.seats.len() {
            self.network.cut(at, other, until);
            self.network.cut(other, at, until);
        }
    }

    /// What a member says, or what it is told, is lost on the way to or from some of the others.
    fn cut_one_way(&mut self, at: usize, pause: Truth) {
        let until = self.truth + pause;
        let outward = self.dice.percent(50);
        tell!(self, "{at} is cut one way, outward: {outward}");
        for other in 0..self.seats.len() {
            if self.dice.percent(80) {
                let (from, to) = if outward { (at, other) } else { (other, at) };
                self.network.cut(from, to, until);
            }
        }
    }

    /// Two halves that only one member connects.
    fn bridge(&mut self, pause: Truth) {
        let until = self.truth + pause;
        let count = self.seats.len();
        let bridge = self.dice.below(count as u64) as usize;
        tell!(self, "{bridge} is a bridge");
        let others: Vec<usize> = (0..count).filter(|seat| *seat != bridge).collect();
        let (one, other) = others.split_at(others.len() / 2);
        for &one in one {
            for &other in other {
                self.network.cut(one, other, until);
                self.network.cut(other, one, until);
            }
        }
    }

    pub(super) fn hand_over(&mut self, at: usize) {
        let now = self.clock(at);
        if self.seats[at].paused_until > self.truth {
            return;
        }
        let Some(process) = &mut self.seats[at].process else { return };
        let Some(reign) = &mut process.reign else {
            return self.tell_above(GroupEvent::IsToHandOver(at));
        };
        tell!(self, "{at} hands over");
        self.tally.transfers += 1;
        process.writer = None;
        reign.resign(now);
        self.pump(at);
        // Its reign has asked to resign; what it has not been answered is repeated without the lead.
        if let Some(process) = &mut self.seats[at].process {
            process.machine.handle_transfer(now);
        }
        self.pump(at);
    }

    /// A disk is lost, where the group can bear it: no other is being replaced.
    fn lose_disk(&mut self, at: usize, pause: Truth) {
        if !self.is_whole() {
            return;
        }
        self.crash(at);
        tell!(self, "{at} loses its disk");
        let mut new = self.new_disk();
        if planted(Mistake::EmptiedDiskVotes) {
            new.id = self.seats[at].disk.id;
        }
        let old = mem::replace(&mut self.seats[at].disk, new);
        self.seats[at].old_disk = Some(old);
        self.after(pause, GroupStep::Starts { seat: at });
    }

    /// Whether every member's disk is one that votes, and no change of that is under way.
    pub(super) fn is_whole(&self) -> bool {
        let Some(leader) = self.leading() else { return false };
        let Some(process) = &self.seats[leader].process else { return false };
        let standing = process.machine.standing();
        self.rules.is_made()
            && standing.members.iter().zip(&self.seats).all(|(member, seat)| {
                member.votes && member.disk == Some(seat.disk.id) && member.lag.is_some()
            })
            && process.machine.is_settled()
    }

    /// A disk that was replaced long ago is put in again, for a while.
    fn show_old_disk(&mut self, at: usize, pause: Truth) {
        if self.seats[at].old_disk.is_none() || !self.is_whole() {
            return;
        }
        self.crash(at);
        tell!(self, "{at} has its old disk for a while");
        self.swap_with_old(at);
        self.starts(at);
        let until = self.truth + pause;
        self.at(until, GroupStep::PutsBack { seat: at });
    }

    pub(super) fn puts_back(&mut self, at: usize) {
        self.crash(at);
        self.swap_with_old(at);
        tell!(self, "{at} has its new disk again");
        self.starts(at);
    }

    fn swap_with_old(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        if let Some(old) = seat.old_disk.take() {
            seat.old_disk = Some(mem::replace(&mut seat.disk, old));
            seat.has_old = !seat.has_old;
        }
    }

    /// Two members have each other's disk, for a while.
    fn swap_disks(&mut self, at: usize, pause: Truth) {
        let other = (at + 1) % self.seats.len();
        if !self.is_whole() {
            return;
        }
        tell!(self, "{at} and {other} have each other's disk");
        self.exchange(at, other);
        self.after(pause, GroupStep::Exchanges { one: at, other });
    }

    pub(super) fn exchange(&mut self, one: usize, other: usize) {
        self.crash(one);
        self.crash(other);
        let taken = self.seats[one].disk.clone();
        let given = mem::replace(&mut self.seats[other].disk, taken);
        self.seats[one].disk = given;
        self.starts(one);
        self.starts(other);
    }

    /// The operator looks whether a disk waits, and has it take its place.
    pub(super) fn operate(&mut self) {
        if let Some(leader) = self.leading() {
            let now = self.clock(leader);
            let wanted = self.wants_replacing(leader);
            if let Some(process) = &mut self.seats[leader].process
                && let Some(member) = wanted
                && !process.replacing
            {
                let ask = process.next_ask();
                process.replacing = true;
                process.machine.handle_replace(ask, name_of(member), now);
                self.pump(leader);
            }
        }
        let next = self.dice.below(600 * MS) + 50 * MS;
        self.after(next, GroupStep::Operator);
    }

    /// A member whose disk waits, and is the one that it is to have.
    fn wants_replacing(&self, leader: usize) -> Option<usize> {
        let process = self.seats[leader].process.as_ref()?;
        let standing = process.machine.standing();
        standing.members.iter().zip(&self.seats).position(|(member, seat)| {
            // No operator has the old one in again, as long as there is the new one.
            member.waiting_disk == Some(seat.disk.id)
                && !seat.has_old
                && seat.old_disk.as_ref().is_some_and(|old| member.disk == Some(old.id))
        })
    }

    pub(super) fn heal(&mut self) {
        tell!(self, "nothing is broken any more");
        self.is_well = true;
        self.network.heal();
        match self.dice.below(100) {
            0..25 => self.after(2 * SECOND, GroupStep::CutForGood),
            25..50 => self.stay_low(),
            _ => {}
        }
        for at in 0..self.seats.len() {
            let seat = &mut self.seats[at];
            (seat.slow_until, seat.paused_until) = (0, seat.paused_until.min(self.truth));
            self.starts(at);
            self.has_room(at);
        }
    }

    /// Some disks are full for a while, or for good, but for what was set aside.
    fn fill_disk(&mut self, at: usize, pause: Truth) {
        let all = self.dice.percent(20);
        for seat in 0..self.seats.len() {
            if seat == at || all {
                self.be_low(seat, self.truth + pause);
                self.after(pause, GroupStep::HasRoom { seat });
            }
        }
    }

    fn be_low(&mut self, at: usize, until: Truth) {
        tell!(self, "the disk of {at} is low");
        self.tally.lows += 1;
        let now = self.clock(at);
        let seat = &mut self.seats[at];
        seat.low_until = seat.low_until.max(until);
        if let Some(process) = &mut seat.process {
            process.machine.handle_room(DiskRoom::Low, now);
            self.pump(at);
        }
    }

    pub(super) fn has_room(&mut self, at: usize) {
        let now = self.clock(at);
        let seat = &mut self.seats[at];
        if self.is_well && seat.low_until < Truth::MAX {
            seat.low_until = 0;
        }
        if seat.low_until > self.truth {
            return;
        }
        if let Some(process) = &mut seat.process {
            process.machine.handle_room(DiskRoom::Plenty, now);
            self.pump(at);
        }
    }

    /// One that is low already, if there is such a one: nothing new is told of it.
    fn stay_low(&mut self) {
        let mut seats = self.seats.iter();
        let low = seats.position(|seat| seat.low_until > self.truth);
        let low = low.unwrap_or_else(|| self.dice.below(self.seats.len() as u64) as usize);
        let all = self.dice.percent(20);
        for seat in 0..self.seats.len() {
            if seat == low || all {
                self.be_low(seat, Truth::MAX);
            }
        }
    }
}
