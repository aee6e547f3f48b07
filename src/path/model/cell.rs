//! The cell: a guard loses its right while it is inside, and others of its process win the gate.
//!
//! A word stands for the gate; all threads write one id, as those of a process do. The guard that lost its
//! right goes on with what the lock protects, which is plain memory, until it sees that.

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::*},
    },
    thread,
};

use crate::path::ground::GuardCell;

/// A mistake about the cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CellMistake {
    /// The winner of the gate does not look at it.
    LeftOut,
    /// A winner that finds it occupied clears it as it gives the gate back.
    ClearedByAnother,
}

struct CellScene {
    gate: AtomicU64,
    cell: GuardCell,
    /// Read and written without an order of its own.
    count: AtomicU64,
    mistake: Option<CellMistake>,
}

/// The fork generation.
const HERE: u32 = 1;
const FREE: u64 = 0;
const HELD: u64 = 1;

impl CellScene {
    /// How often it was inside: not at all, or once. `loses`: its right is lost meanwhile.
    fn lock(&self, loses: bool) -> u64 {
        if !self.comes_in() {
            return 0;
        }
        let before = self.count.load(Relaxed);
        if loses {
            // As a wrong verdict or a break does it; another process may have had it by now.
            self.gate.store(FREE, SeqCst);
        }
        self.count.store(before + 1, Relaxed);
        // Before the gate: it alone can have set it.
        self.cell.leave();
        if !loses {
            self.leave_gate();
        }
        1
    }

    /// A few looks, and no more: a model cannot wait.
    fn comes_in(&self) -> bool {
        for _ in 0..3 {
            if self.gate.compare_exchange(FREE, HELD, SeqCst, Relaxed).is_ok() {
                if self.cell.enter(HERE) || self.mistake == Some(CellMistake::LeftOut) {
                    return true;
                }
                if self.mistake == Some(CellMistake::ClearedByAnother) {
                    self.cell.leave();
                }
                self.leave_gate();
            }
            thread::yield_now();
        }
        false
    }

    fn leave_gate(&self) {
        let left = self.gate.compare_exchange(HELD, FREE, SeqCst, Relaxed);
        assert!(left.is_ok(), "its right was not lost");
    }
}

fn play(mistake: Option<CellMistake>) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let (gate, count) = (AtomicU64::new(FREE), AtomicU64::new(0));
        let scene = Arc::new(CellScene { gate, cell: GuardCell::new(), count, mistake });
        let others = [true, false].map(|loses| {
            let scene = scene.clone();
            thread::spawn(move || scene.lock(loses))
        });
        let own = scene.lock(false);
        let times = own + others.into_iter().map(|other| other.join().unwrap()).sum::<u64>();
        assert_eq!(scene.count.load(Relaxed), times, "two were inside");
    });
}

#[test]
fn a_guard_that_lost_its_right_is_alone_until_it_goes() {
    play(None);
}

#[test]
fn each_mistake_about_the_cell_is_found() {
    for mistake in [CellMistake::LeftOut, CellMistake::ClearedByAnother] {
        let found = catch_unwind(AssertUnwindSafe(|| play(Some(mistake))));
        let panic = found.expect_err(&format!("{mistake:?} is not found"));
        let said = panic.downcast_ref::<String>().map_or("", String::as_str);
        assert!(said.contains("two were inside"), "{mistake:?}: {said}");
    }
}
