//! Thread scope: what a lock costs that stays inside the process.

use std::{
    num::NonZero,
    thread,
    time::{Duration, Instant},
};

use tierlock::{Mutex, Scope};

use super::{
    case::{Case, Label},
    crowd::at_once,
    failure::{Result, check_count},
    jobs::spin_until,
    run::{Contender, Entrant, Quiet},
    stats::{RowTally, Unprotected},
};

/// What every row of tierlock says here.
pub(crate) const NOTE: &str = "FIFO for waiters older than 0.5 ms; with tokens";

pub(crate) fn quiet() -> Entrant {
    let mutex = Mutex::new(0_u64);
    Entrant::new(
        Label { note: Some(NOTE), ..Label::new(Scope::Thread, Case::QUIET) },
        Quiet(move || {
            *mutex.lock()? += 1;
            Ok(())
        }),
    )
}

/// Threads that want one lock and hold it for so long.
pub(crate) fn contended(case: Case, hold: Duration) -> Entrant {
    let mutex = Mutex::new(());
    let with_lock = move |section: &mut dyn FnMut()| {
        let _guard = mutex.lock()?;
        section();
        Ok(())
    };
    let label = Label { note: Some(NOTE), ..label(case, hold) };
    Entrant::new(label.clone(), Threads::new(&label, hold, with_lock))
}

/// As many threads as the machine runs at once, within reason; two where each holds for a while.
pub(crate) fn label(case: Case, hold: Duration) -> Label {
    let threads = match hold {
        Duration::ZERO => {
            thread::available_parallelism().map_or(2, NonZero::get).clamp(2, 8) as u32
        }
        _ => 2,
    };
    Label { threads, clients: threads, ..Label::new(Scope::Thread, case) }
}

/// Threads that all want one lock and never pause.
pub(crate) struct Threads<F> {
    with_lock: F,
    threads: usize,
    hold: Duration,
    count: Unprotected,
    expected: u64,
}

impl<F: Fn(&mut dyn FnMut()) -> Result<()> + Sync> Threads<F> {
    /// `with_lock` runs what it is given under the lock.
    pub(crate) fn new(label: &Label, hold: Duration, with_lock: F) -> Threads<F> {
        let threads = label.threads as usize;
        Threads { with_lock, threads, hold, count: Unprotected::default(), expected: 0 }
    }

    /// One thread's slice with sections that last; returns how often it counted.
    fn with_sections(&self, slice: Duration, tally: &mut RowTally) -> Result<u64> {
        tally.hold_again_and_again(slice, |tally, asked| {
            let mut locked = asked;
            (self.with_lock)(&mut || {
                locked = Instant::now();
                self.count.increment();
                spin_until(locked + self.hold);
            })?;
            tally.wait(locked - asked);
            Ok(())
        })
    }
}

impl<F: Fn(&mut dyn FnMut()) -> Result<()> + Sync> Contender for Threads<F> {
    fn run(&mut self, slice: Duration, tally: &mut RowTally) -> Result<()> {
        let this = &*self;
        let counted = at_once(0..this.threads, tally, |_, tally| {
            if this.hold.is_zero() {
                tally.repeat(slice, || (this.with_lock)(&mut || this.count.increment()))
            } else {
                this.with_sections(slice, tally)
            }
        })?;
        self.expected += counted;
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        check_count("threads", self.count.get(), self.expected)
    }
}
