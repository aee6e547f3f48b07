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
    use std::{
        sync::{
            OnceLock,
            atomic::{AtomicU64, Ordering},
        },
        thread,
        time::Duration,
    };

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
        TakeRefresh,
        TakeReturn,
        TakeLook,
        TakePause,
        TakeGrab,
        TakeClaim,
        TakeSeeRecord,
        TakeJudgeWaiter,
        TakeSeeLate,
        TakePass,
        TakeJudge,
        TakeRecheck,
        TakeSeeStay,
        TakeStay,
        TakeSeeOver,
        TakeScan,
        TakeStamp,
        TakeAppoint,
        TakeWakeWait,
        TakeSeize,
        TakeFree,
        TakeRaiseToken,
        TakeSeeHunger,
        TakeEnlist,
        EnlistRaised,
        EnlistTaken,
        TakeFillIn,
        TakePublish,
        TakeMark,
        TakeSleep,
        TakePassWake,
        TakePark,
        TakeErase,
        TakeFindReservation,
        TakeWakeAnother,
        TakeEnd,
        TakeEntered,
        // Letting go, and handing over to a wait.
        LeaveQuiet,
        LeaveSeeToken,
        LeaveSeeStay,
        LeaveStay,
        LeaveRelease,
        HandScan,
        HandStamp,
        HandSeeToken,
        HandAppoint,
        HandSeeRecord,
        HandReload,
        HandWakeWait,
        HandFree,
        HandScanAgain,
        HandClear,
        HandWakeOne,
        LeaveWakeOne,
        LeaveEnd,
        // Freeing a dead owner's word.
        ReapLook,
        ReapJudge,
        ReapSeeStay,
        ReapStay,
        ReapSettle,
        ReapWake,
        ReapEnd,
        // Sharing: coming in as a reader, leaving, and waiting until readers are gone.
        ReadLoad,
        ReadAdd,
        ReadLook,
        ReadEnd,
        UnreadLoad,
        UnreadSubtract,
        UnreadRing,
        UnreadWake,
        UnreadEnd,
        DrainBell,
        DrainNext,
        DrainLook,
        DrainJudge,
        DrainStrike,
        DrainWant,
        DrainMark,
        DrainSleep,
        DrainEnd,
        // Changes of one's own word, and beginning to forget a name.
        WidenMark,
        ReadableMark,
        ReadableClear,
        RenameSwap,
        RetireBegin,
        RetireBegun,
        // Entering a name.
        EnterIntended,
        EnterReserved,
        EnterFilled,
        EnterLinked,
        NameSeen,
        TextPlaced,
        // Making a share record.
        ShareReserved,
        ShareFilled,
        ShareLinked,
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
        GrowDone,
        DoubleFilled,
        DoubleDone,
        PartedOne,
        // Reserving tokens.
        ReserveDue,
        ReserveWritten,
        ReserveKnown,
        // Coming and going.
        PresenceLocked,
        PresencePlaced,
        PresenceGone,
        // Sweeping what the dead left.
        SweepProved,
        SweepFreed,
        SweepForgotten,
    }

    /// What is to happen at each step: the signal's number, above it how often the step is passed
    /// before. 0 is nothing.
    static PLANS: [AtomicU64; Step::ALL.len()] = [const { AtomicU64::new(0) }; Step::ALL.len()];
    /// How many microseconds are slept at each step.
    static DWELLS: [AtomicU64; Step::ALL.len()] = [const { AtomicU64::new(0) }; Step::ALL.len()];
    /// Where the last step is written down, for a reader after this process's end.
    static WITNESS: OnceLock<Box<dyn Fn(Step) + Send + Sync>> = OnceLock::new();

    /// Makes this process send itself `signal` when it comes to `step` once more than `passes`
    /// times.
    pub(in super::super::super) fn end_at(step: Step, passes: u32, signal: Signal) {
        let plan = u64::from(passes) << 32 | signal.as_raw() as u64;
        PLANS[step as usize].store(plan, Ordering::SeqCst);
    }

    /// Makes this process sleep whenever it comes to `step`, so that others do something meanwhile.
    pub(in super::super) fn dwell_at(step: Step, time: Duration) {
        DWELLS[step as usize].store(time.as_micros() as u64, Ordering::SeqCst);
    }

    /// Nothing happens at any step any more.
    pub(in super::super) fn disarm() {
        PLANS.iter().chain(&DWELLS).for_each(|plan| plan.store(0, Ordering::SeqCst));
    }

    /// Tells every step from now on.
    pub(in super::super) fn witness(tell: impl Fn(Step) + Send + Sync + 'static) {
        assert!(WITNESS.set(Box::new(tell)).is_ok(), "there is one witness");
    }

    /// This process is at `step`.
    #[inline]
    pub(in super::super) fn reached(step: Step) {
        if let Some(tell) = WITNESS.get() {
            tell(step);
        }
        match DWELLS[step as usize].load(Ordering::Relaxed) {
            0 => {}
            micros => thread::sleep(Duration::from_micros(micros)),
        }
        if PLANS[step as usize].load(Ordering::Relaxed) != 0 {
            end(&PLANS[step as usize]);
        }
    }

    #[cold]
    fn end(plan: &AtomicU64) {
        let pass = |plan: u64| (plan >> 32 > 0).then(|| plan - (1 << 32));
        if plan.fetch_update(Ordering::SeqCst, Ordering::SeqCst, pass).is_ok() {
            return;
        }
        match plan.swap(0, Ordering::SeqCst) {
            0 => {}
            signal => crate::process::sys::testing::signal_this_thread(signal as i32),
        }
    }
}
