//! Mistakes that somebody could make in the protocol, each of which the model must find out.

use super::{
    super::{
        protocol::Op,
        step::Step,
        word::{Heir, State, Word},
    },
    Violation,
};
use crate::error::Predecessor;

macro_rules! mistakes {
    ($($(#[$doc:meta])* $name:ident => $($violation:ident)|+,)+) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(super) enum Mistake {
            $($(#[$doc])* $name,)+
        }

        impl Mistake {
            /// Each, and what may be found out about it.
            pub(super) const ALL: &'static [(Option<Mistake>, &'static [Violation])] =
                &[$((Some(Mistake::$name), &[$(Violation::$violation),+]),)+];
        }
    };
}

mistakes! {
    /// A sleeper does not say in the word that it sleeps.
    SleepersDoNotMark => NeedsTimer,
    /// A sleeper goes to sleep though the word has changed since it looked.
    SleepersDoNotCompare => NeedsTimer,
    /// Letting go wakes nobody.
    LettingGoWakesNobody => NeedsTimer,
    /// Letting go for an heir wakes nobody.
    HeirsAreNotWoken => NeedsTimer,
    /// Who slept takes the word as if nobody else slept.
    WokenTakeQuietly => NeedsTimer,
    /// Who was woken in an heir's place keeps that for itself.
    WakesAreNotPassedOn => NeedsTimer,
    /// Who gives up wakes nobody.
    GivingUpIsSilent => NeedsTimer,
    /// Who gives up stays in the heir's place.
    GivingUpKeepsTheSeat => NeedsTimer,
    /// What was let go for an heir that had gone stays reserved.
    NobodysReservationStays => NeedsTimer,
    /// Letting go stores instead of swapping, over what others wrote.
    BlindRelease => NeedsTimer,
    /// Letting go hands the word over to the heir, instead of reserving it.
    TransferToTheHeir => TwoInside | Lost | Untold | NeverFinishes,
    /// A word is taken from the dead by a store.
    BlindRecovery => TwoInside | Untold,
    /// The word swapped is not the word judged, but the one found now.
    RecoveryOfAnotherWord => TwoInside | Lost,
    /// A stopped process is taken for dead.
    StoppedCountsAsDead => TwoInside,
    /// Nobody asks whether a holder lives.
    NobodyLooksAtPresences => NeverFinishes,
    /// Reservations bind for ever.
    ReservationsNeverLapse => NeverFinishes | HeldUpByStopped,
    /// Who takes the word from the dead is told nothing.
    RecoveriesTellNothing => Untold,
    /// A sweeper frees the word as if its holder had left in good order.
    SweepersTellNothing => Untold,
    /// What was taken and not used is given back as clean.
    UnusedIsGivenBackClean => Untold,
    /// Taking clears the widened mark.
    TakingNarrows => Narrowed,
    /// Whoever takes another id forgets that somebody sleeps.
    RenamingForgetsSleepers => NeedsTimer,
}

/// The operation as the mistaken make it.
pub(super) fn bent_op(mistake: Option<Mistake>, op: Op, step: Step, word: Word, heir: Heir) -> Op {
    let Op::Swap { from, to } = op else { return op };
    let takes = matches!(step, Step::TakeGrab | Step::TakeClaim);
    let to = match mistake {
        Some(Mistake::NobodysReservationStays) if step == Step::LeaveClearReservation => from,
        Some(Mistake::WokenTakeQuietly) if takes => {
            let owner = to.owner().expect("a taker");
            if from.is_wide() { Word::held(owner).widened() } else { Word::held(owner) }
        }
        Some(Mistake::TakingNarrows) if takes => {
            let owner = to.owner().expect("a taker");
            if to.has_waiters() { Word::held(owner).waited_for() } else { Word::held(owner) }
        }
        Some(Mistake::TransferToTheHeir) if step == Step::LeaveLetGo && from.is_hungry() => {
            heir.id().map_or(to, |heir| to.taken(heir, true))
        }
        Some(Mistake::SweepersTellNothing) if step == Step::BuryFree => {
            from.buried(Predecessor::Clean)
        }
        Some(Mistake::RenamingForgetsSleepers) if step == Step::RenameSwap => {
            Word::held(to.owner().expect("a holder"))
        }
        _ => to,
    };
    match mistake {
        Some(Mistake::RecoveryOfAnotherWord)
            if step == Step::TakeRecover && matches!(word.state(), Some(State::Held(_))) =>
        {
            Op::Swap { from: word, to }
        }
        _ => Op::Swap { from, to },
    }
}

/// Whether the swap at this step is a store.
pub(super) fn is_blind(mistake: Option<Mistake>, step: Step) -> bool {
    match mistake {
        Some(Mistake::BlindRelease) => matches!(step, Step::LeaveQuiet | Step::LeaveLetGo),
        Some(Mistake::BlindRecovery) => step == Step::TakeRecover,
        _ => false,
    }
}

/// Whether the operation at this step is left out.
pub(super) fn is_skipped(mistake: Option<Mistake>, step: Step) -> bool {
    match mistake {
        Some(Mistake::LettingGoWakesNobody) => {
            matches!(step, Step::LeaveWakeOne | Step::LeaveWakeHeir)
        }
        Some(Mistake::HeirsAreNotWoken) => step == Step::LeaveWakeHeir,
        Some(Mistake::WakesAreNotPassedOn) => step == Step::TakePassOn,
        Some(Mistake::GivingUpIsSilent) => step == Step::TakeWakeAnother,
        Some(Mistake::GivingUpKeepsTheSeat) => step == Step::TakeLeaveSeat,
        _ => false,
    }
}
