//! Numbered steps, so that a test can kill or stop a process at each of them.
//!
//! `step!(Name)` marks a place before or after a change of what processes share; outside of tests
//! it is nothing.

/// Marks a place at which a test can end the process.
macro_rules! step {
    ($name:ident) => {
        #[cfg(test)]
        crate::process::table::step::reached(crate::process::table::step::Step::$name);
    };
}
pub(super) use step;

#[cfg(test)]
pub(in super::super) use self::testing::*;

#[cfg(test)]
mod testing {
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::process::Signal;

    macro_rules! steps {
        ($($(#[$doc:meta])* $name:ident,)+) => {
            /// Every place at which a process may end with the table half changed. A step of a
            /// machine of `protocol` stands before its operation.
            #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
            pub(in super::super::super) enum Step {
                $($(#[$doc])* $name,)+
            }

            impl Step {
                pub(in super::super::super) const ALL: &'static [Step] = &[$(Step::$name,)+];
            }
        };
    }

    steps! {
        // The steps of `protocol` and `lock` stand first, up to `RetireBegun`. Taking.
        TakeQuiet,
        TakeLook,
        TakePause,
        TakeGrab,
        TakeSeeHeir,
        TakeSeeLapse,
        TakeClaim,
        TakePassOn,
        TakeJudge,
        TakeRecheck,
        TakeRecover,
        TakeSeeHunger,
        TakeSeeSeat,
        TakeStand,
        TakeMark,
        TakeSleep,
        TakeFindSeat,
        TakeLeaveSeat,
        TakeFindReservation,
        TakeClearReservation,
        TakeWakeAnother,
        TakeEnd,
        // Letting go.
        LeaveQuiet,
        LeaveStamp,
        LeaveLetGo,
        LeaveSeeHeir,
        LeaveClearReservation,
        LeaveWakeHeir,
        LeaveWakeOne,
        LeaveEnd,
        // Freeing a dead owner's word.
        BuryLook,
        BuryJudge,
        BuryFree,
        BuryWake,
        BuryEnd,
        // Changes of one's own word, and beginning to forget a name.
        WidenMark,
        RenameSwap,
        RetireBegin,
        RetireBegun,
        // Entering a name.
        EnterIntended,
        EnterReserved,
        EnterFilled,
        EnterLinked,
        TextPlaced,
        // Forgetting one.
        ForgetWon,
        ForgetIntended,
        ForgetFloor,
        ForgetUnnamed,
        ForgetGeneration,
        ForgetUnlinked,
        ForgetDone,
        // Growing.
        GrowReserved,
        DoubleFilled,
        PartedOne,
    }

    /// The step to end at, counted from 1; 0 is none.
    static AT: AtomicU32 = AtomicU32::new(0);
    /// How often to pass it before.
    static PASSES: AtomicU32 = AtomicU32::new(0);
    static SIGNAL: AtomicU32 = AtomicU32::new(0);

    /// Makes this process send itself `signal` when it comes to `step` once more than `passes`
    /// times.
    pub(in super::super::super) fn end_at(step: Step, passes: u32, signal: Signal) {
        SIGNAL.store(signal.as_raw() as u32, Ordering::SeqCst);
        PASSES.store(passes, Ordering::SeqCst);
        AT.store(step as u32 + 1, Ordering::SeqCst);
    }

    /// This process is at `step`.
    #[inline]
    pub(in super::super) fn reached(step: Step) {
        if AT.load(Ordering::Relaxed) == step as u32 + 1 {
            end();
        }
    }

    #[cold]
    fn end() {
        let pass = |passes: u32| passes.checked_sub(1);
        if PASSES.fetch_update(Ordering::SeqCst, Ordering::SeqCst, pass).is_ok() {
            return;
        }
        if AT.swap(0, Ordering::SeqCst) == 0 {
            return;
        }
        crate::process::sys::testing::signal_this_thread(SIGNAL.load(Ordering::SeqCst) as i32);
    }
}
