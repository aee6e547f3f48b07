//! How long to look at the sockets before sleeping on them.
//!
//! A thread that sleeps lets its CPU halt, and on a virtual machine waking a halted CPU takes longer
//! (50 to 75 µs measured) than a leader takes to answer. So whoever was answered soon looks again
//! and again for a while, and offers the CPU to others between two looks. How long is learnt as
//! Linux learns it for the idle loop of a guest (Documentation/virt/guest-halt-polling.rst):
//!
//! | a wait took | the next one looks |
//! |---|---|
//! | no longer than it looked | as long |
//! | longer, but at most 200 µs | twice as long, 50 µs at least, 200 µs at most |
//! | longer than that | half as long, or not at all if that is below 50 µs |
//!
//! So a link that is used now and then costs no more than it would without, and a busy one at most
//! 200 µs of looking for each message. Where the CPUs are busy with something else nothing is
//! gained, as none of them halts, and a CPU once offered is back only when the others have had
//! their slices: whoever got it back late again and again does not look for a while. Nor does
//! anybody where there is one CPU, which whoever is waited for needs.

use std::{
    mem, thread,
    time::{Duration, Instant},
};

/// As in Linux, `guest_halt_poll_grow_start`.
const FIRST: Duration = Duration::from_micros(50);
/// A CPU that comes back later was not given to whoever answers.
const LATE: Duration = Duration::from_micros(100);
/// After so many that came back in time a late one was bad luck, and no sign of a busy machine.
const GOOD_SIGN: u32 = 64;
/// For how long nobody looks on a busy machine: twice as long each time.
const SHORTEST_REST: Duration = Duration::from_millis(10);
const LONGEST_REST: Duration = Duration::from_secs(10);

/// What was learnt from the waits so far.
#[derive(Debug)]
pub(super) struct Patience {
    has_cpus: bool,
    looks: Duration,
    /// How often the CPU came back in time since it came back late.
    in_time: u32,
    rest: Duration,
    rests_until: Option<Instant>,
}

impl Patience {
    /// As in Linux, `guest_halt_poll_ns`.
    pub(super) const LONGEST: Duration = Duration::from_micros(200);

    /// Nothing learnt yet.
    pub(super) fn new() -> Patience {
        let has_cpus = thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1);
        Patience {
            has_cpus,
            looks: Duration::ZERO,
            in_time: 0,
            rest: Duration::ZERO,
            rests_until: None,
        }
    }

    /// How long a wait that begins at `now` looks before it sleeps.
    pub(super) fn looks(&self, now: Instant) -> Duration {
        let may_look = self.has_cpus && self.rests_until.is_none_or(|until| now >= until);
        if may_look { self.looks } else { Duration::ZERO }
    }

    /// A wait that looked for up to `looked` is over, `took` after it began.
    pub(super) fn waited(&mut self, looked: Duration, took: Duration) {
        if took > Self::LONGEST {
            self.looks /= 2;
            if self.looks < FIRST {
                self.looks = Duration::ZERO;
            }
        } else if took > looked {
            self.looks = (self.looks * 2).clamp(FIRST, Self::LONGEST);
        }
    }

    /// Offers the CPU to others: perhaps whoever is waited for could run here. When it came back,
    /// or nothing if that was too late to go on looking.
    pub(super) fn offer_cpu(&mut self) -> Option<Instant> {
        let offered = Instant::now();
        thread::yield_now();
        let now = Instant::now();
        (!self.is_kept_off(now - offered, now)).then_some(now)
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

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Patience::LONGEST;
    const SOON: Duration = Duration::from_micros(100);
    const TOO_LATE: Duration = Duration::from_millis(3);

    #[test]
    fn looking_begins_with_short_waits_and_ends_with_long_ones() {
        let now = Instant::now();
        let mut patience = Patience { has_cpus: true, ..Patience::new() };
        assert_eq!(patience.looks(now), Duration::ZERO);
        for looks in [FIRST, 2 * FIRST, 2 * FIRST, 2 * FIRST] {
            patience.waited(patience.looks(now), SOON);
            assert_eq!(patience.looks(now), looks);
        }
        patience.waited(patience.looks(now), LONGEST);
        assert_eq!(patience.looks(now), LONGEST);
        for looks in [LONGEST / 2, LONGEST / 4, Duration::ZERO, Duration::ZERO] {
            patience.waited(patience.looks(now), TOO_LATE);
            assert_eq!(patience.looks(now), looks);
        }
    }

    #[test]
    fn nobody_looks_where_there_is_one_cpu() {
        let mut patience = Patience { has_cpus: false, ..Patience::new() };
        patience.waited(Duration::ZERO, SOON);
        assert_eq!(patience.looks(Instant::now()), Duration::ZERO);
    }

    #[test]
    fn a_cpu_that_comes_back_late_again_and_again_ends_it_for_longer_and_longer() {
        let mut now = Instant::now();
        let mut patience = Patience { has_cpus: true, ..Patience::new() };
        patience.waited(Duration::ZERO, SOON);
        let mut rest = SHORTEST_REST;
        for _ in 0..20 {
            assert!(!patience.is_kept_off(LATE, now));
            assert!(patience.is_kept_off(TOO_LATE, now));
            assert_eq!(patience.looks(now + rest - SOON), Duration::ZERO);
            now += rest;
            assert_eq!(patience.looks(now), FIRST);
            rest = (rest * 2).min(LONGEST_REST);
        }
        assert_eq!(rest, LONGEST_REST);
    }

    #[test]
    fn a_cpu_that_comes_back_late_once_ends_only_that_look() {
        let now = Instant::now();
        let mut patience = Patience { has_cpus: true, ..Patience::new() };
        patience.waited(Duration::ZERO, SOON);
        for _ in 0..GOOD_SIGN {
            assert!(!patience.is_kept_off(LATE, now));
        }
        assert!(patience.is_kept_off(TOO_LATE, now));
        assert_eq!(patience.looks(now), FIRST);
        // The next is not preceded by so many.
        assert!(patience.is_kept_off(TOO_LATE, now));
        assert_eq!(patience.looks(now), Duration::ZERO);
    }
}
