//! Mistakes that could be made in the protocol, each of which the model must find out.

use super::{
    super::{
        protocol::Op,
        step::Step,
        word::{RecordWord, SlotState, Word},
    },
    Play, Violation, World,
};
use crate::error::Predecessor;

macro_rules! mistakes {
    ($($(#[$doc:meta])* $name:ident => $($violation:ident)|+,)+) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(super) enum TableMistake {
            $($(#[$doc])* $name,)+
        }

        impl TableMistake {
            /// Each, and what may be found out about it.
            pub(super) const ALL: &'static [(Option<TableMistake>, &'static [Violation])] =
                &[$((Some(TableMistake::$name), &[$(Violation::$violation),+]),)+];
        }
    };
}

mistakes! {
    // Sleeping and waking.
    /// A sleeper does not say in the word that it sleeps.
    SleepersDoNotMark => NeedsTimer,
    /// A sleeper goes to sleep though the word has changed since it looked.
    SleepersDoNotCompare => NeedsTimer,
    /// Releasing wakes no sleeper.
    ReleasingWakesNone => NeedsTimer,
    /// The wait that the word is released for is not woken.
    AppointedAreNotWoken => NeedsTimer,
    /// A waiter that gives up keeps the wake that it may have had.
    GivingUpIsSilent => NeedsTimer,

    // Records and reservations.
    /// A record is published before it says what it waits for.
    PublishedBeforeFilledIn => NeedsTimer | Overtaken,
    /// A reservation for an earlier use of a record is believed.
    EarlierUseIsBelieved => NeedsTimer | NeverFinishes | HeldUpByStopped,
    /// A waiter that gives up leaves its record standing.
    GivingUpKeepsTheRecord => NeedsTimer,
    /// A waiter that gives up keeps what is reserved for it.
    GivingUpKeepsTheReservation => NeedsTimer,
    /// A process that appoints a wait does not look whether it still stands.
    AppointersDoNotLookAgain => NeedsTimer,
    /// Reservations bind for ever.
    ReservationsNeverLapse => NeverFinishes | HeldUpByStopped,
    /// A wait that was passed over stands again as the same use.
    ReturnedAsBefore => Overtaken | Lost | NeedsTimer,
    /// A late wait is passed over without a mark: it is the oldest, and so the next one again.
    PassedOverWithoutAMark => NeverFinishes | HeldUpByStopped,
    /// Releasing hands the word over to the wait's process, instead of reserving it.
    TransferToTheWaiter => Overtaken | TwoInside | Lost | Untold | NeverFinishes | HeldUpByStopped,
    /// The thread that waits for a task takes the lock for it.
    TasksAreWonFor => HeldUpByStopped | Untold,

    // Order.
    /// A word with waiters is taken, claimed or recovered without HUNGRY.
    WaitersTakenWithoutHungry => Overtaken | NeedsTimer,
    /// A word is cleared after one scan.
    ClearedAfterOneScan => Overtaken | NeedsTimer,
    /// A word is never cleared.
    NeverCleared => NeverQuiet,
    /// The prover of a death takes the word, whichever waits stand.
    RecoveryOutOfOrder => Overtaken,
    /// A waiter does not tell the word of its record.
    RecordsAreNotTold => NeedsTimer | NeverFinishes,

    // Deaths.
    /// A word is taken from the dead by a store.
    BlindRecovery => TwoInside | Untold | Lost,
    /// The word swapped is not the word judged, but the one found now.
    RecoveryOfAnotherWord => TwoInside | Lost | Untold | Narrowed,
    /// A stopped process is taken for dead.
    StoppedCountsAsDead => TwoInside | Lost | Untold | NeedsTimer,
    /// Presences are not asked for.
    PresencesAreNotJudged => NeverFinishes | HeldUpByStopped,
    /// A taker that recovers the word is told nothing.
    RecoveriesTellNothing => Untold,
    /// A sweeper frees the word as if its holder had left in good order.
    SweepersTellNothing => Untold,
    /// What was taken and not used is given back as clean.
    UnusedIsGivenBackClean => Untold,
    /// Releasing stores instead of swapping, over what others wrote.
    BlindRelease => NeedsTimer | Overtaken | Narrowed,

    // Holds of one process.
    /// A release does not look whether the hold is still its own.
    TokenIsNotCompared => FreedSibling,
    /// A recovery that is given back unused leaves the token as it was.
    RecoveriesRaiseNoToken => FreedSibling,

    // Marks.
    /// Taking clears the widened mark.
    TakingNarrows => Narrowed,
    /// A holder that takes another id forgets that a waiter sleeps.
    RenamingForgetsSleepers => NeedsTimer | Overtaken,
    /// A holder leaves before the end of `at_least` as at any time.
    LeavingForgetsAtLeast => RanTwice,
    /// The prover of a death does not ask for the end of `at_least`.
    RecoveryForgetsAtLeast => RanTwice,

    // Sharing.
    /// A reader looks at the word, and then adds its 1.
    ReadersLookBeforeTheyAdd => TwoInside,
    /// A writer does not look at the counts.
    WritersDoNotLook => TwoInside,
    /// A reader that is not let in takes its 1 back without waking the writer that saw it.
    TakingBackIsSilent => NeedsTimer,
    /// The last reader wakes the writer, and leaves the bell as it is.
    ReadersDoNotRing => NeedsTimer,
    /// A writer goes to sleep on the bell as it is after it has read the counts.
    BellIsReadAfterTheCounts => NeedsTimer,
    /// A writer does not tell the readers that it waits for them.
    WritersWantNothing => NeedsTimer,
    /// The count of a dead reader is not struck.
    DeadReadersCount => NeverFinishes | HeldUpByStopped,
    /// The count of a living reader is struck.
    LivingReadersAreStruck => TwoInside | Lost,
    /// An upgrade waits for the readers that are inside, and lets others in.
    UpgradeStaysReadable => TwoInside,
    /// A downgrade releases the word, and then adds its 1.
    DowngradeLetsGoFirst => TwoInside | Lost,
    /// A reader that came in by the word leaves that as if it was left clean.
    ReadersLeaveClean => Untold,
    /// A gate is left without waiting for the readers that are inside.
    WidenersDoNotDrain => TwoInside,
    /// A reader does not look whether the name is locked at host scope.
    ReadersOverlookWide => TwoInside,
    /// A name is marked as locked at host scope once the lease is granted: a death between the two.
    WideIsSetAfterTheGrant => BesideOtherMachines,

    // Permits.
    /// Permits that come back wake their waiter only when a process has none left.
    PermitsRingAtTheLast => NeedsTimer,
    /// Room is looked for in one step and taken in another.
    RoomIsTakenOutsideTheGate => OverLimit,
    /// The permits of a dead process stay taken.
    DeadPermitsCount => NeverFinishes | HeldUpByStopped,
    /// The permits of a living process are taken back.
    LivingPermitsAreStruck => OverLimit | Lost,
    /// A waiter does not tell the holders of permits that it waits for them.
    PermitWaitersWantNothing => NeedsTimer,
    /// A waiter goes to sleep on the bell as it is after it has read the counts.
    PermitBellIsReadAfterTheCounts => NeedsTimer,
    /// A waiter that gives up keeps a part of what it wanted.
    GivingUpKeepsAPart => NeverFinishes | HeldUpByStopped | NeedsTimer | Nonsense,
    /// A waiter for which there is no room lets others pass meanwhile.
    FrontLetsOthersPass => Overtaken,
    /// A try fails at once where another taker is just passing the gate.
    TriesDoNotLookAgain => RefusedWithRoom,
}

impl TableMistake {
    /// Those that only plays with readers can find.
    pub(super) fn is_of_sharing(self) -> bool {
        self as u8 >= TableMistake::ReadersLookBeforeTheyAdd as u8 && !self.is_of_permits()
    }

    /// Those that only plays with permits can find.
    pub(super) fn is_of_permits(self) -> bool {
        self as u8 >= TableMistake::PermitsRingAtTheLast as u8
    }
}

/// The operation as the mistaken make it.
pub(super) fn bent_op<const N: usize>(play: &Play<N>, world: &World<N>, op: Op, step: Step) -> Op {
    let mistake = play.mistake;
    let Op::Swap { from, to } = op else { return op };
    let takes =
        matches!(step, Step::TakeGrab | Step::TakeClaim | Step::TakeSeize | Step::TakeQuiet);
    let plain = |owner| Word::held(owner).as_wide_as(from);
    let to = match (mistake, to.owner()) {
        (Some(TableMistake::WaitersTakenWithoutHungry), Some(owner)) if takes && to.is_hungry() => {
            plain(owner).waited_for()
        }
        (Some(TableMistake::TakingNarrows), Some(owner)) if takes => match to.has_waiters() {
            true => Word::held(owner).hungered_for(),
            false => Word::held(owner),
        },
        (Some(TableMistake::TransferToTheWaiter), _) if step == Step::HandAppoint => {
            let wait = to.reserved_for().expect("it appoints");
            let owner = world.record(wait).word.owner();
            owner.map_or(to, |owner| from.seized(owner))
        }
        (Some(TableMistake::SweepersTellNothing), _)
            if matches!(step, Step::HandAppoint | Step::HandFree)
                && play.owner(from).is_some_and(|owner| world.is_dead_process(play, owner)) =>
        {
            match to.reserved_for() {
                Some(wait) => from.appointed(wait, Predecessor::Clean),
                None => from.freed(Predecessor::Clean),
            }
        }
        (Some(TableMistake::RenamingForgetsSleepers), Some(owner)) if step == Step::RenameSwap => {
            plain(owner)
        }
        (Some(TableMistake::NeverCleared), _) if step == Step::HandClear => from,
        (Some(TableMistake::RecordsAreNotTold), _) if step == Step::TakeMark && to.is_hungry() => {
            from
        }
        _ => to,
    };
    match mistake {
        Some(TableMistake::RecoveryOfAnotherWord)
            if step == Step::TakeSeize
                && matches!(world.word.state(), Some(SlotState::Held(_))) =>
        {
            Op::Swap { from: world.word, to }
        }
        _ => Op::Swap { from, to },
    }
}

/// The word as the mistaken see it.
pub(super) fn bent_word(mistake: Option<TableMistake>, step: Step, found: Word) -> Word {
    match mistake {
        Some(TableMistake::GivingUpKeepsTheReservation) if step == Step::TakeFindReservation => {
            Word::FREE
        }
        Some(TableMistake::ReadersOverlookWide) if step == Step::ReadLook && found.is_wide() => {
            found.narrowed()
        }
        _ => found,
    }
}

/// The record as the mistaken see it.
pub(super) fn bent_record(
    mistake: Option<TableMistake>,
    step: Step,
    word: Word,
    found: RecordWord,
) -> RecordWord {
    let Some(wait) = word.reserved_for() else { return found };
    match (mistake, found.owner()) {
        (Some(TableMistake::EarlierUseIsBelieved), Some(owner)) if step == Step::TakeSeeRecord => {
            RecordWord::enlisted(owner, wait).standing()
        }
        (Some(TableMistake::AppointersDoNotLookAgain), _) if step == Step::HandSeeRecord => {
            let owner = found.owner().or(super::OwnerId::new(1)).expect("1 is an id");
            RecordWord::enlisted(owner, wait)
        }
        _ => found,
    }
}

/// What the waiter finds that published its record too early.
pub(super) fn bent_publication(
    mistake: Option<TableMistake>,
    step: Step,
    before: RecordWord,
    found: RecordWord,
) -> RecordWord {
    match mistake {
        Some(TableMistake::PublishedBeforeFilledIn) if step == Step::TakePublish => before,
        _ => found,
    }
}

/// Whether the swap at this step is a store.
pub(super) fn is_blind(mistake: Option<TableMistake>, step: Step) -> bool {
    match mistake {
        Some(TableMistake::BlindRelease) => matches!(step, Step::LeaveQuiet | Step::LeaveRelease),
        Some(TableMistake::BlindRecovery) => step == Step::TakeSeize,
        _ => false,
    }
}

/// Whether the operation at this step is left out. A scan then finds no record, and `at_least`
/// counts as over.
pub(super) fn is_skipped(mistake: Option<TableMistake>, step: Step) -> bool {
    match mistake {
        Some(TableMistake::ReleasingWakesNone) => {
            matches!(step, Step::LeaveWakeOne | Step::HandWakeOne)
        }
        Some(TableMistake::AppointedAreNotWoken) => {
            matches!(step, Step::HandWakeWait | Step::TakeWakeWait)
        }
        Some(TableMistake::GivingUpIsSilent) => step == Step::TakeWakeAnother,
        Some(TableMistake::GivingUpKeepsTheRecord) => step == Step::TakeErase,
        Some(TableMistake::PassedOverWithoutAMark) => step == Step::TakePass,
        Some(TableMistake::ClearedAfterOneScan) => step == Step::HandScanAgain,
        Some(TableMistake::RecoveryOutOfOrder) => step == Step::TakeScan,
        Some(TableMistake::RecoveriesRaiseNoToken) => step == Step::TakeRaiseToken,
        Some(TableMistake::LeavingForgetsAtLeast) => step == Step::LeaveSeeStay,
        Some(TableMistake::RecoveryForgetsAtLeast) => {
            matches!(step, Step::TakeSeeStay | Step::ReapSeeStay)
        }
        _ => false,
    }
}
