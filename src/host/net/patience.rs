//! How long to look at the sockets before sleeping on them.
//!
//! A thread that sleeps lets its CPU halt, and on a virtual machine waking a halted CPU takes longer
//! (50 to 75 µs measured) than a leader takes to answer. So a thread that was answered soon reads its
//! sockets again and again for a while. How long is learnt as Linux learns it for the idle loop of a guest
//! (Documentation/virt/guest-halt-polling.rst):
//!
//! | a wait took | the next one looks |
//! |---|---|
//! | no longer than it looked | as long |
//! | longer, but at most 200 µs | twice as long, 50 µs at least, 200 µs at most |
//! | longer than that | half as long, or not at all if that is below 50 µs |
//!
//! Tasks look as well, but only for as long as a runtime bears ([`Lending`]), and only where that is
//! long enough: most are not alone on their thread. And only while few answers are on their way to
//! the process, whichever managers they are for: a look takes a CPU, the peer that answers takes
//! another, and the other managers wait meanwhile (32 managers on two CPUs: those that had just been
//! answered ran on, and the least of them had a tenth of the most).
//!
//! So a link that is used now and then costs no more than it would without, and a busy one at most
//! 200 µs of looking for each message. Where the CPUs are busy with something else nothing is
//! gained, as none of them halts, and what a thread has used up by looking the system lets it wait for
//! later. So after one look in [`OFFER_EVERY`] a thread offers its CPU to others: after each that would be a
//! system call in vain where a CPU is free. A thread that got its CPU back late again and again does not
//! look for a while. What is taken from it without an offer is no sign of that: the kernel's own threads
//! and the host of a virtual machine take it now and then, and it looks on once it has it back. Nor does
//! any thread look where there is one CPU, which the awaited peer needs.

use std::{
    mem, thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// As in Linux, `guest_halt_poll_grow_start`.
const FIRST: Duration = Duration::from_micros(50);
/// A CPU that was offered and comes back later was given to others that have work for it.
const LATE: Duration = Duration::from_micros(100);
/// After one look in so many the CPU is offered: several times in a wait.
const OFFER_EVERY: u32 = 4;
/// After so many that came back in time a late one was bad luck, and no sign of a busy machine.
const GOOD_SIGN: u32 = 64;
/// For how long no thread looks on a busy machine: twice as long each time.
const SHORTEST_REST: Duration = Duration::from_millis(10);
const LONGEST_REST: Duration = Duration::from_secs(10);
/// After so many misses in a row one wait of 1,024 looks.
const MISSES_MAX: u32 = 11;

/// What was learnt from the waits so far.
#[derive(Debug)]
pub(in crate::host) struct PollPatience {
    cpus: Cpus,
    looks: Duration,
}

/// The same for tasks, which lend a thread that others run on: for [`LONGEST`](Lending::LONGEST) or
/// not at all.
///
/// How long an answer takes is known only to a task that looks for it: one that sleeps is
/// woken later than that. So where answers take longer than a thread is lent, one wait of 1,024 still
/// looks: perhaps they do not any more.
#[derive(Debug)]
pub(in crate::host) struct Lending {
    cpus: Cpus,
    /// How many waits in a row have looked in vain.
    misses: u32,
    /// How many waits do not look before the next one does.
    skips: u32,
}

/// Whether there is a CPU to spare.
#[derive(Debug)]
pub(in crate::host) struct Cpus {
    /// How many may look at once, if the peer of each is to have a CPU as well.
    pairs: usize,
    /// How many looks there were since the CPU was offered.
    looks: u32,
    /// How often it came back in time since it came back late.
    in_time: u32,
    rest: Duration,
    rests_until: Option<Instant>,
}

impl PollPatience {
    /// As in Linux, `guest_halt_poll_ns`.
    pub(in crate::host) const LONGEST: Duration = Duration::from_micros(200);

    /// Nothing learnt yet.
    pub(in crate::host) fn new() -> PollPatience {
        PollPatience { cpus: Cpus::new(), looks: Duration::ZERO }
    }

    /// How long a wait that begins at `now` looks before it sleeps.
    pub(in crate::host) fn looks(&self, now: Instant) -> Duration {
        if self.cpus.is_one_free(now) { self.looks } else { Duration::ZERO }
    }

    /// A wait that looked for up to `looked` is over, `took` after it began.
    pub(in crate::host) fn waited(&mut self, looked: Duration, took: Duration) {
        if took > Self::LONGEST {
            self.looks /= 2;
            if self.looks < FIRST {
                self.looks = Duration::ZERO;
            }
        } else if took > looked {
            self.looks = (self.looks * 2).clamp(FIRST, Self::LONGEST);
        }
    }

    pub(in crate::host) fn cpus(&mut self) -> &mut Cpus {
        &mut self.cpus
    }
}

impl Lending {
    /// A runtime is said to bear 10 to 100 µs between two awaits.
    pub(in crate::host) const LONGEST: Duration = Duration::from_micros(50);

    /// Nothing learnt yet: the first wait sleeps, since it is for a connection.
    pub(in crate::host) fn new() -> Lending {
        Lending { cpus: Cpus::new(), misses: 0, skips: 1 }
    }

    /// How long a wait that begins at `now` looks before its task sleeps, where the process expects
    /// so many answers, this one included.
    pub(in crate::host) fn looks(&self, now: Instant, expected: usize) -> Duration {
        let is_roomy = expected <= self.cpus.pairs;
        let looks = is_roomy && self.skips == 0 && self.cpus.is_one_free(now);
        if looks { Self::LONGEST } else { Duration::ZERO }
    }

    /// A wait that looked for up to `looked` is over, `took` after it began.
    pub(in crate::host) fn waited(&mut self, looked: Duration, took: Duration) {
        if looked.is_zero() {
            self.skips = self.skips.saturating_sub(1);
        } else if took <= looked {
            self.misses = 0;
        } else {
            // One is bad luck. Then 1, 2, 4 do not look, and so on.
            self.skips = (1 << self.misses) >> 1;
            self.misses = MISSES_MAX.min(self.misses + 1);
        }
    }

    pub(in crate::host) fn cpus(&mut self) -> &mut Cpus {
        &mut self.cpus
    }
}

impl Cpus {
    fn new() -> Cpus {
        Cpus {
            pairs: thread::available_parallelism().map_or(0, |cpus| cpus.get() / 2),
            looks: 0,
            in_time: 0,
            rest: Duration::ZERO,
            rests_until: None,
        }
    }

    fn is_one_free(&self, now: Instant) -> bool {
        self.pairs > 0 && self.rests_until.is_none_or(|until| now >= until)
    }

    /// Whether this thread has looked so often that it is to offer its CPU.
    fn is_offer_due(&mut self) -> bool {
        self.looks = (self.looks + 1) % OFFER_EVERY;
        self.looks == 0
    }

    /// Whether a CPU that was offered and came back `later`, at `now`, was back too late.
    fn is_kept_off(&mut self, later: Duration, now: Instant) -> bool {
        if later <= LATE {
            self.in_time = self.in_time.saturating_add(1);
            return false;
        }
        if mem::take(&mut self.in_time) >= GOOD_SIGN {
            self.rest = Duration::ZERO;
        } else {
            self.rest = (self.rest * 2).clamp(SHORTEST_REST, LONGEST_REST);
            self.rests_until = Some(now + self.rest);
        }
        true
    }
}

/// After a look in vain: when this thread looks again, or nothing if it had better sleep. No lock is held
/// while others may have the CPU.
pub(in crate::host) fn look_again<T>(
    patience: &Mutex<T>,
    cpus: impl Fn(&mut T) -> &mut Cpus,
) -> Option<Instant> {
    if !cpus(&mut patience.lock()).is_offer_due() {
        return Some(Instant::now());
    }
    let offered = Instant::now();
    thread::yield_now();
    let now = Instant::now();
    let is_late = cpus(&mut patience.lock()).is_kept_off(now - offered, now);
    (!is_late).then_some(now)
}

#[cfg(test)]
mod tests;
