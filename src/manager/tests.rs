//! What a host-scope lock costs the leader that moves between the processes of one directory, and
//! what its holder hears when the directory takes the name away.
//!
//! Two managers on grounds of their own are two processes here, as far as tiers can tell: each has
//! its thread tier and its lease, and only the table and the leader are common to both. Every
//! message counts that such a move causes; renewals and reports of what is kept go by time.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    climb::Keep,
    guard::MutexGuard,
    host::memory::{Frame, MemoryLeader},
    mutex::Mutex,
    name::Name,
    process::{Directory, EngineKind, Options, Slot},
    proto::wire::{ClientMessage, LeaderMessage},
};

/// What the leader hears and says at best: the old holder's release, the new one's request, and
/// the answer to each.
const ONE_EACH: Cost =
    Cost { releases: 1, acquires: 1, released: 1, granted: 1, queued: 0, recalls: 0 };

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cost {
    releases: u32,
    acquires: u32,
    released: u32,
    granted: u32,
    queued: u32,
    recalls: u32,
}

impl Cost {
    fn of(frames: &[Frame]) -> Cost {
        let mut cost = Cost::default();
        for frame in frames {
            match frame {
                Frame::Up(ClientMessage::Release { .. }) => cost.releases += 1,
                Frame::Up(ClientMessage::Acquire { .. }) => cost.acquires += 1,
                Frame::Down(LeaderMessage::Released { .. }) => cost.released += 1,
                Frame::Down(LeaderMessage::Granted { .. }) => cost.granted += 1,
                Frame::Down(LeaderMessage::Queued { .. }) => cost.queued += 1,
                Frame::Down(LeaderMessage::Recall { .. }) => cost.recalls += 1,
                Frame::Up(ClientMessage::Renew { .. } | ClientMessage::Use { .. })
                | Frame::Down(LeaderMessage::Renewed { .. }) => {}
                other => panic!("a move has no need of {other:?}"),
            }
        }
        cost
    }
}

/// How the next holder comes to it.
#[derive(Clone, Copy)]
enum Next {
    /// It asks once the lock is free.
    Comes,
    /// It sleeps at the process tier.
    Sleeps,
    /// It has slept there for so long that it is next, whoever else comes.
    IsHeir,
}

/// How the holder leaves.
#[derive(Clone, Copy)]
enum Leaves {
    Dropping,
    AwaitingTheAnswer,
}

struct Siblings {
    leader: MemoryLeader,
    mutexes: [Mutex<()>; 2],
    /// To look at the table with.
    slot: Slot,
    _managers: [LockManager; 2],
    _files: tempfile::TempDir,
}

impl Siblings {
    fn new(keep: Keep) -> Siblings {
        let files = tempfile::tempdir().unwrap();
        let options = Options { engine: Some(EngineKind::Table), ..Options::default() };
        let open = || Directory::open(files.path(), &options).unwrap();
        let leader = MemoryLeader::new();
        let managers = [(); 2].map(|()| {
            LockManager::on_memory(Ground::new(BelowHost::Directory(open())), leader.clone())
        });
        let mutex = |locks: &LockManager| {
            // The session is there before anything is counted.
            drop(locks.mutex("other", ()).lock().unwrap());
            locks.mutex("a", ()).scope(Scope::Host).keep(keep).build().unwrap()
        };
        // Of two that have something to send the first one's goes first: the second one begins.
        let mutexes = [mutex(&managers[1]), mutex(&managers[0])];
        let directory = open();
        let slot = directory.slot(&Name::new("a").unwrap()).unwrap();
        assert!(slot.holder().is_none());
        leader.watch_frames();
        Siblings { leader, mutexes, slot, _managers: managers, _files: files }
    }

    /// Has the lock move so many times between the two; what each move cost.
    fn moves(&self, count: usize, next: Next, leaves: Leaves) -> Vec<Cost> {
        let mut held = self.mutexes[0].lock().unwrap();
        self.leader.take_frames();
        let mut costs = Vec::new();
        for number in 1..=count {
            let mutex = &self.mutexes[number % 2];
            held = thread::scope(|scope| {
                let lock = || mutex.try_lock_for(LONG).unwrap();
                match next {
                    Next::Comes => {
                        leaves.leave(held);
                        lock()
                    }
                    Next::Sleeps | Next::IsHeir => {
                        let waiting = scope.spawn(lock);
                        self.wait_for(next);
                        leaves.leave(held);
                        waiting.join().unwrap()
                    }
                }
            });
            costs.push(Cost::of(&self.leader.take_frames()));
        }
        costs
    }

    fn wait_for(&self, next: Next) {
        let begin = Instant::now();
        let is_there = || match next {
            Next::IsHeir => self.slot.has_heir(),
            _ => self.slot.is_waited_for(),
        };
        while !is_there() {
            assert!(begin.elapsed() < LONG, "nobody waits");
            thread::yield_now();
        }
    }
}

impl Leaves {
    fn leave(self, guard: MutexGuard<'_, ()>) {
        match self {
            Leaves::Dropping => drop(guard),
            Leaves::AwaitingTheAnswer => MutexGuard::unlock(guard).unwrap(),
        }
    }
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_lease_that_is_not_kept_moves_for_one_message_each_way() {
    for next in [Next::Sleeps, Next::IsHeir, Next::Comes] {
        for leaves in [Leaves::Dropping, Leaves::AwaitingTheAnswer] {
            let siblings = Siblings::new(Keep::Never);
            let costs = siblings.moves(20, next, leaves);
            // Of the first who has it nobody knows yet that it moves, unless somebody waits.
            let known = if let Next::Comes = next { &costs[1..] } else { &costs[..] };
            assert!(known.iter().all(|cost| *cost == ONE_EACH), "{costs:?}");
        }
    }
}

#[test]
fn a_lease_that_may_be_kept_goes_with_the_process_tier_to_its_heir() {
    for keep in [Keep::Adaptive, Keep::Always] {
        for leaves in [Leaves::Dropping, Leaves::AwaitingTheAnswer] {
            let costs = Siblings::new(keep).moves(20, Next::IsHeir, leaves);
            assert!(costs.iter().all(|cost| *cost == ONE_EACH), "{costs:?}");
        }
    }
}

/// Also where its holder found it kept, and leaves the quiet way.
#[test]
fn a_lease_that_was_kept_goes_with_the_process_tier_to_its_heir() {
    let siblings = Siblings::new(Keep::Always);
    for mutex in siblings.mutexes.iter().cycle().take(6) {
        siblings.leader.take_frames();
        drop(mutex.lock().unwrap());
        let held = mutex.lock().unwrap();
        siblings.leader.take_frames();
        let cost = thread::scope(|scope| {
            let other = siblings.mutexes.iter().find(|other| !std::ptr::eq(*other, mutex)).unwrap();
            let waiting = scope.spawn(|| drop(other.try_lock_for(LONG).unwrap()));
            siblings.wait_for(Next::IsHeir);
            drop(held);
            waiting.join().unwrap();
            Cost::of(&siblings.leader.take_frames())
        });
        assert_eq!(cost, ONE_EACH);
    }
}

/// Where nobody has waited for long it is kept now and then, ever more seldom: each time costs a
/// recall, and a place in the queue that one has until it is answered.
#[test]
fn a_lease_that_moves_is_hardly_ever_kept() {
    for next in [Next::Comes, Next::Sleeps] {
        let costs = Siblings::new(Keep::Adaptive).moves(200, next, Leaves::Dropping);
        let dear: Vec<_> = costs[1..].iter().filter(|cost| **cost != ONE_EACH).collect();
        assert!(
            dear.iter().all(|cost| **cost == Cost { queued: 1, recalls: 1, ..ONE_EACH }),
            "{dear:?}"
        );
        // Each of the two tries after 3 grants, 12 more and 48 more.
        assert!(dear.len() <= 6, "{} of 200 moves", dear.len());
    }
}
