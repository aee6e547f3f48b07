//! What a host-scope lock costs the leader that moves between the processes of one directory.
//!
//! Two managers on grounds of their own are two processes here, as far as tiers can tell: each has
//! its turnstile and its lease word, and only the table and the leader are common to both. Every
//! message counts that such a move causes; renewals and reports of what is kept go by time.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    api::{guard::MutexGuard, mutex::Mutex},
    host::memory::{Frame, MemoryLeader},
    path::Keep,
    path::ground::{BelowHost, Ground},
    process::{Directory, EngineKind, Options, parts::TableParts},
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
#[derive(Clone, Copy, PartialEq, Eq)]
enum NextHolder {
    /// It asks once the lock is free.
    Comes,
    /// It waits in the leader's queue.
    Waits,
}

/// How the holder leaves.
#[derive(Clone, Copy)]
enum Leaves {
    Dropping,
    Unlocking,
}

struct Siblings {
    leader: MemoryLeader,
    mutexes: [Mutex<()>; 2],
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
        leader.watch_frames();
        Siblings { leader, mutexes, _managers: managers, _files: files }
    }

    /// Has the lock move so many times between the two; what each move cost.
    fn moves(&self, count: usize, next: NextHolder, leaves: Leaves) -> Vec<Cost> {
        let mut held = self.mutexes[0].lock().unwrap();
        self.leader.take_frames();
        let mut costs = Vec::new();
        for number in 1..=count {
            let mutex = &self.mutexes[number % 2];
            let mut frames = Vec::new();
            held = thread::scope(|scope| {
                let lock = || mutex.try_lock_for(LONG).unwrap();
                match next {
                    NextHolder::Comes => {
                        leaves.leave(held);
                        lock()
                    }
                    NextHolder::Waits => {
                        let waiting = scope.spawn(lock);
                        frames = self.until_one_waits();
                        leaves.leave(held);
                        waiting.join().unwrap()
                    }
                }
            });
            frames.extend(self.leader.take_frames());
            costs.push(Cost::of(&frames));
        }
        costs
    }

    /// What the leader heard and said until it had a waiter in its queue.
    fn until_one_waits(&self) -> Vec<Frame> {
        let begin = Instant::now();
        let mut frames = Vec::new();
        while !frames.iter().any(|f| matches!(f, Frame::Down(LeaderMessage::Queued { .. }))) {
            assert!(begin.elapsed() < LONG, "no request waits");
            thread::yield_now();
            frames.extend(self.leader.take_frames());
        }
        frames
    }
}

impl Leaves {
    fn leave(self, guard: MutexGuard<'_, ()>) {
        match self {
            Leaves::Dropping => drop(guard),
            Leaves::Unlocking => MutexGuard::unlock(guard).unwrap(),
        }
    }
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_lease_that_is_not_kept_moves_for_one_message_each_way() {
    for leaves in [Leaves::Dropping, Leaves::Unlocking] {
        let costs = Siblings::new(Keep::Never).moves(20, NextHolder::Comes, leaves);
        assert!(costs.iter().all(|cost| *cost == ONE_EACH), "{costs:?}");
        // A waiter is told its place besides.
        let costs = Siblings::new(Keep::Never).moves(20, NextHolder::Waits, leaves);
        let with_place = Cost { queued: 1, ..ONE_EACH };
        assert!(costs.iter().all(|cost| *cost == with_place), "{costs:?}");
    }
}

#[test]
fn a_kept_lease_moves_for_one_recall_more() {
    for next in [NextHolder::Comes, NextHolder::Waits] {
        let costs = Siblings::new(Keep::Always).moves(20, next, Leaves::Dropping);
        let recalled = Cost { queued: 1, recalls: 1, ..ONE_EACH };
        assert!(costs.iter().all(|cost| *cost == recalled), "{costs:?}");
    }
}

/// Where two take turns it is kept now and then, ever more seldom: each time costs a recall, and a
/// place in the queue until it is answered.
#[test]
fn a_lease_that_moves_is_hardly_ever_kept() {
    let costs = Siblings::new(Keep::Adaptive).moves(200, NextHolder::Comes, Leaves::Dropping);
    let dear: Vec<_> = costs[1..].iter().filter(|cost| **cost != ONE_EACH).collect();
    assert!(
        dear.iter().all(|cost| **cost == Cost { queued: 1, recalls: 1, ..ONE_EACH }),
        "{dear:?}"
    );
    // Each of the two tries after 3 grants, 12 more and 48 more.
    assert!(dear.len() <= 6, "{} of 200 moves", dear.len());
}

#[test]
fn names_made_at_run_time_ask_for_no_higher_epoch() {
    let siblings = Siblings::new(Keep::Never);
    siblings.leader.take_frames();
    for number in 0..5 {
        for locks in &siblings._managers {
            drop(locks.mutex(format!("orders/{number}"), ()).lock().unwrap());
        }
    }
    let frames = siblings.leader.take_frames();
    let raised = frames.iter().find(|f| matches!(f, Frame::Down(LeaderMessage::Raised { .. })));
    assert!(raised.is_none(), "{raised:?}");
}

/// The kinds of the frames that belong to acquires, in the order they crossed.
fn acquiring(frames: &[Frame]) -> Vec<&'static str> {
    let kind = |frame: &Frame| match frame {
        Frame::Up(ClientMessage::Acquire { .. }) => Some("asks"),
        Frame::Down(LeaderMessage::Granted { .. }) => Some("granted"),
        Frame::Down(LeaderMessage::Refused { .. }) => Some("refused"),
        Frame::Down(LeaderMessage::Queued { .. }) => Some("queued"),
        _ => None,
    };
    frames.iter().filter_map(kind).collect()
}

#[test]
fn several_locks_cost_one_round_trip_where_nothing_stands_in_the_way() {
    let siblings = Siblings::new(Keep::Never);
    let [locks, others] = &siblings._managers;
    let names = ["p", "q", "r", "s"];
    let said = [["asks"; 4], ["granted"; 4]].concat();
    // A renewal between the requests sends those before it on their way early: that run says nothing.
    let renews = |frame: &Frame| matches!(frame, Frame::Up(ClientMessage::Renew { .. }));
    let check = |is_task: bool| loop {
        siblings.leader.take_frames();
        let held = match is_task {
            false => locks.lock_all(names),
            true => futures::executor::block_on(locks.lock_all_async(names)),
        };
        let frames = siblings.leader.take_frames();
        held.unwrap().unlock_blocking().unwrap();
        if !frames.iter().any(renews) {
            break assert_eq!(acquiring(&frames), said, "{is_task}: {frames:#?}");
        }
    };
    // A name that is new to its session waits for the journal, and what comes after it is asked again.
    locks.lock_all(names).unwrap().unlock_blocking().unwrap();
    check(false);
    check(true);
    // Behind one that another has nothing is had.
    let taken = others.mutex("r", ()).lock().unwrap();
    siblings.leader.take_frames();
    assert!(locks.try_lock_all(names).unwrap_err().is_contended());
    let said = acquiring(&siblings.leader.take_frames());
    assert_eq!(said[..2], ["asks"; 2]);
    assert_eq!(said.iter().filter(|said| **said == "granted").count(), 2);
    drop(others.mutex("s", ()).try_lock().unwrap());
    drop(taken);
}

/// At the first grant of an epoch the directory reserves tokens beyond it, which one process at a time does.
#[test]
fn a_directory_that_another_process_is_changing_holds_up_no_other_manager() {
    let siblings = Siblings::new(Keep::Never);
    let [mutex, _] = &siblings.mutexes;
    let earlier = MutexGuard::token(&mutex.lock().unwrap());
    siblings.leader.stop();
    siblings.leader.start();
    let elsewhere = LockManager::on_memory(Ground::new(BelowHost::Memory), siblings.leader.clone());
    let other = elsewhere.mutex("a", ()).build().unwrap();
    thread::scope(|scope| {
        let mut locking = None;
        TableParts::open(siblings._files.path()).unwrap().while_changing(|| {
            let begin = Instant::now();
            let locked = locking.insert(scope.spawn(|| mutex.try_lock_for(LONG)));
            while !other.try_lock().is_err_and(|error| error.is_contended()) {
                assert!(begin.elapsed() < LONG, "it is not granted");
                thread::yield_now();
            }
            // It is granted, and others go on.
            drop(elsewhere.mutex("b", ()).lock().unwrap());
            assert!(!locked.is_finished());
            assert!(begin.elapsed() < Duration::from_secs(8), "the others have waited for it");
        });
        let guard = locking.unwrap().join().unwrap().unwrap();
        let token = MutexGuard::token(&guard);
        assert!(token.epoch() > earlier.epoch());
        MutexGuard::check(&guard).unwrap();
        let reserve = std::fs::read_to_string(siblings._files.path().join("tokens")).unwrap();
        assert!(reserve.trim_end().parse::<u64>().unwrap() > token.get());
    });
}
