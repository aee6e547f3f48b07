//! What a wait for a slot is told, and what it comes to.

use std::time::Duration;

use crate::time::Time;

/// How a representative waits for a slot.
#[derive(Clone, Copy, Default, Debug)]
#[cfg_attr(
    not(all(
        target_os = "linux",
        target_pointer_width = "64",
        target_endian = "little",
        not(tierlock_no_table)
    )),
    expect(dead_code, reason = "the table engine alone has it")
)]
pub(crate) struct SlotWish {
    /// It is to share it, so that another reader need not wait behind this one.
    pub(crate) shares: bool,
    /// It wants so many permits. 0: it locks.
    pub(crate) permits: u32,
    /// When it reached the turnstile of its process, if it had to wait there. Its patience counts from
    /// there, so that of a queue of threads not each is free for others to overtake for a millisecond; its
    /// place among the processes does not, or a queue of a hundred stood before a process that came
    /// meanwhile.
    pub(crate) arrived: Option<Time>,
}

/// Whether there is room beside readers or permits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Drain {
    Drained,
    /// There is none, and it was not to be waited for.
    #[cfg_attr(
        not(all(
            target_os = "linux",
            target_pointer_width = "64",
            target_endian = "little",
            not(tierlock_no_table)
        )),
        expect(dead_code, reason = "the table engine alone has it")
    )]
    Full,
    /// There is none: to sleep while the bell is this, at most so long.
    Sleep {
        bell: u32,
        longest: Duration,
    },
}
