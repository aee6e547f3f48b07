//! Thread scope: what a lock costs that stays inside the process.

use std::{
    hint::spin_loop,
    num::NonZero,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use super::{
    case::{Case, Label, TIERLOCK},
    failure::{Result, check_count},
    grounds::Grounds,
    run::{Contender, Entry},
    stats::{Meter, Tally, Unprotected},
};
use crate::{Mutex, Scope};

pub(crate) fn quiet(grounds: &mut Grounds) -> Result<Vec<Entry>> {
    let mutex = Mutex::new(0_u64);
    let mut entries = vec![Entry::new(
        Label::new(Scope::Thread, Case::Quiet),
        Quiet(move || {
            *mutex.lock()? += 1;
            Ok(())
        }),
    )];
    super::peers::thread_quiet(grounds, &mut entries)?;
    note_guarantees(&mut entries);
    Ok(entries)
}

pub(crate) fn threads(grounds: &mut Grounds) -> Result<Vec<Entry>> {
    contended(grounds, Case::Threads, Duration::ZERO)
}

pub(crate) fn threads_200us(grounds: &mut Grounds) -> Result<Vec<Entry>> {
    contended(grounds, Case::Threads200us, Duration::from_micros(200))
}

fn contended(grounds: &mut Grounds, case: Case, hold: Duration) -> Result<Vec<Entry>> {
    let mutex = Mutex::new(());
    let with_lock = move |section: &mut dyn FnMut()| {
        let _guard = mutex.lock()?;
        section();
        Ok(())
    };
    let label = threads_label(case);
    let mut entries = vec![Entry::new(label.clone(), Threads::new(&label, hold, with_lock))];
    super::peers::thread_contended(grounds, &label, hold, &mut entries)?;
    note_guarantees(&mut entries);
    Ok(entries)
}

/// What a reader must know who compares their rows: `guarantees.txt` says more.
fn note_guarantees(entries: &mut [Entry]) {
    for Entry { label, .. } in entries {
        label.note = match label.subject {
            TIERLOCK => Some("in order for who waited over 0.5 ms; with tokens"),
            "parking_lot" => Some("no order, no token"),
            "std" => Some("no order, no token; poisoned by panics"),
            "tokio" => Some("in order; no token"),
            _ => None,
        };
    }
}

/// As many threads as the machine runs at once, within reason; two where each holds for a while.
fn threads_label(case: Case) -> Label {
    let threads = match case {
        Case::Threads200us => 2,
        _ => thread::available_parallelism().map_or(2, NonZero::get).clamp(2, 8) as u32,
    };
    Label { threads, clients: threads, ..Label::new(Scope::Thread, case) }
}

/// One caller: a closure that locks and unlocks once.
pub(crate) struct Quiet<F>(pub(crate) F);

impl<F: FnMut() -> Result<()>> Contender for Quiet<F> {
    fn run(&mut self, slice: Duration, tally: &mut Tally) -> Result<()> {
        let mut meter = Meter::start(slice, tally);
        while let Some(cycles) = meter.next() {
            for _ in 0..cycles {
                (self.0)()?;
            }
        }
        Ok(())
    }
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

    /// One thread's slice with empty sections; returns how often it counted.
    fn without_sections(&self, slice: Duration, tally: &mut Tally) -> Result<u64> {
        let mut counted = 0;
        let mut meter = Meter::start(slice, tally);
        while let Some(cycles) = meter.next() {
            for _ in 0..cycles {
                (self.with_lock)(&mut || self.count.increment())?;
            }
            counted += cycles;
        }
        Ok(counted)
    }

    /// One thread's slice with sections that last; returns how often it counted.
    fn with_sections(&self, slice: Duration, tally: &mut Tally) -> Result<u64> {
        let mut counted = 0;
        let mut last = Instant::now();
        let end = last + slice;
        while last < end {
            let asked = last;
            let mut locked = asked;
            (self.with_lock)(&mut || {
                locked = Instant::now();
                self.count.increment();
                spin_until(locked + self.hold);
            })?;
            last = Instant::now();
            tally.wait(locked - asked);
            tally.stretch(1, last - asked);
            counted += 1;
        }
        Ok(counted)
    }
}

impl<F: Fn(&mut dyn FnMut()) -> Result<()> + Sync> Contender for Threads<F> {
    fn run(&mut self, slice: Duration, tally: &mut Tally) -> Result<()> {
        let barrier = Barrier::new(self.threads);
        let mut tallies: Vec<Tally> = (0..self.threads).map(|_| tally.empty()).collect();
        let counted: Vec<Result<u64>> = thread::scope(|scope| {
            let threads: Vec<_> = tallies
                .iter_mut()
                .map(|tally| {
                    let (this, barrier) = (&*self, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        if this.hold.is_zero() {
                            this.without_sections(slice, tally)
                        } else {
                            this.with_sections(slice, tally)
                        }
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
        });
        self.expected += counted.into_iter().sum::<Result<u64>>()?;
        tally.side_by_side(tallies);
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        check_count("threads", self.count.get(), self.expected)
    }
}

/// Works for so long without giving up the processor.
pub(crate) fn spin_until(end: Instant) {
    while Instant::now() < end {
        spin_loop();
    }
}
