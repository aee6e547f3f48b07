//! Mistakes that others made, planted to see that the simulator finds them.
//!
//! Each stands behind a question in the code that would be wrong with it. Without the feature
//! `mistakes`, which the program is never built with, the answer is a constant `false` and no
//! trace of the question is left.

/// One mistake, in the words of what goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mistake {
    /// Neither side allows for clocks that run at different rates.
    NoDriftAllowance,
    /// Only the client allows for them.
    OneSidedDrift,
    /// The client's deadline counts from the answer, not from its own sending.
    DeadlineFromReply,
    /// An answer that comes after the deadline brings the leases back.
    RevivedLease,
    /// A new leader grants before the earlier holders have come back or run out.
    NoGrace,
    /// A session is granted locks before its opening is durable.
    ReplyBeforeRecord,
    /// What a session held is free before its end is durable.
    ExpiryNotDurable,
    /// A reign begins before its epoch is durable.
    ReignNotDurable,
    /// Tokens go on into the next epoch without raising it.
    AboveBeyondEpoch,
    /// The block of a keeper that died is granted once more.
    BlockReused,
    /// A lock that became free looks for no waiter, if its holder panicked.
    LostWakeUp,
    /// A cancel is read, and the request stays.
    LostCancel,
    /// A forgotten name begins again with small tokens.
    NoFloor,
    /// A broken lock is free before its holder has answered.
    BreakAtOnce,
    /// A session that returns is not told of what it lost meanwhile.
    LossNotToldAgain,
    /// A report counts before it is whole.
    HelloCountsAlone,
    /// A report counts though a later connection has reported.
    NoConnectionCount,
    /// A client takes what an old connection still brings.
    OldConnectionAtClient,
    /// Leases that a report does not name are kept for its session.
    HelloNotAuthoritative,
    /// A broken connection is a goodbye.
    CloseIsGoodbye,
    /// The number of a lease is used again when that is given back.
    LeaseIdReused,
    /// A returning waiter takes a place at the end of the queue.
    PlaceForgotten,
    /// The waiter that came last is granted first.
    LastComeFirstServed,
    /// A leader grants on though a client has seen a later reign.
    DeposedLeaderServes,
    /// A leader compares epochs only, and not their reigns.
    SameEpochUnnoticed,
    /// A leader knows the reign of its own epochs, and not of those before it.
    EarlierReignsUnknown,
    /// A manager tells no leader what others have seen on its machine before it.
    MachineForgets,
    /// A leader that was started above an epoch still counts what was lost below it.
    JudgedAbove,
    /// A leader that starts above an epoch does not wait for the promises made in it.
    NoWaitAbove,
    /// A leader that meets another history grants on while its clients may be promised something.
    NoPauseForHistory,
    /// It takes the very next epoch above what was seen of that history.
    RaisedByOne,
    /// It confirms leases that no reign of its journal has granted.
    ForeignLeasesConfirmed,
    /// Clients lift the epoch as far as they like.
    RaisesUnbounded,
    /// A client does not hear that another session waits.
    RecallIgnored,
    /// A lease is recalled once, and not again on the next connection.
    RecallLostInReconnect,
    /// Tokens are taken of a block that was given back when it was recalled.
    BlockUsedAfterRecall,
    /// A kept lease is entered without a look at its deadline.
    KeptPastDeadline,
    /// A guard that leaves a kept lease hands it on locally though it is recalled.
    HandOverWithoutEnd,
    /// The rest of a block that was given back counts as granted.
    RestOfBlockClaims,
    /// A session that returns is welcomed first, and told then of what it lost meanwhile.
    WelcomeBeforeLost,
    /// An operator is told of a break that is not durable yet.
    BreakAnsweredFirst,
    /// A grant with `at_least` is told before its entry is durable.
    ReservedToldFirst,
    /// The entry of an `at_least` is written when its holder leaves.
    ReservedAtRelease,
    /// An `at_least` counts from when its entry is handed to the journal, not from its telling.
    ReservedFromGrant,
    /// A report is answered with a grant while its entry is still being written.
    ReportAnsweredEarly,
    /// The entry stays though the request that it was written for is gone.
    ReservedForNone,
    /// A name stays reserved by a grant that was given back unused.
    UnusedReserved,
    /// An entry is written anew behind its deletion.
    RewrittenBehindDeletion,
    /// A new reign counts an `at_least` from its beginning.
    CountedAnew,
    /// What is reserved ends with its holder.
    ReservationEndsWithHolder,
    /// A new reign does not read what is reserved.
    NoReservationAfterRestart,
    /// A leader that was late extends what is reserved.
    LateLoopExtends,
    /// A request that never heard that a name was reserved for it waits for the end of that.
    UnheardNotAnew,
    /// A broken grant stays reserved.
    ReservationOutlivesBreak,
    /// A release lets one reader in, and those behind it wait for the next.
    OneGrantPerEvent,
    /// Readers that come enter though a writer waits.
    ReadersPassWriters,
    /// Sessions that report one name as shared are taken for a conflict.
    SharesConflict,
    /// One reader's end frees the shares of all.
    ReaderEndsAll,
    /// A reader that leaves gives back the token that others bear.
    ShareLowersTokens,
    /// Readers bear the token of the last writer.
    ReadersBearWritersToken,
    /// A reader that enters after a break bears the token that was broken.
    BrokenTokenBorneAgain,
    /// A reader that knows of a higher token bears that of the readers inside.
    ReaderNotAbove,
    /// A break takes a shared token from one of those that bear it.
    BreakTakesOne,
    /// A shared token is broken before all that bear it have come back.
    BreakInGrace,
    /// Shared leases are kept though a writer waits.
    SharedNotRecalled,
    /// Of those that keep a shared lease one is asked for it.
    OneKeeperRecalled,
    /// A request for several permits counts as one for one.
    PermitsUncounted,
    /// Small requests for permits pass large ones.
    SmallPassLarge,
    /// Another limit than the one in force is not refused.
    LimitNotCompared,
    /// A client reports its shared leases as exclusive ones.
    ModeNotReported,
    /// Of several requests that are sent together one behind another that waits is granted.
    SentWithoutAfter,
    /// Of a lease of permits as many are given back as are left.
    LoweredByTheRest,
    /// An upgrade does not wait for the readers inside.
    UpgradedBesideReaders,
    /// Readers enter though an upgrade waits for those inside.
    ReadersEnterBesideUpgrade,
    /// An upgrade is granted before all readers of an earlier reign have come back.
    UpgradedInGrace,
    /// Readers beside a downgraded writer bear the token that it wrote with.
    DowngradedTokenBorne,
    /// A deadlock counts without a word from those that are in it.
    DeadlockOfTheDead,
    /// A thread that waits pins what others of its session may give back meanwhile.
    SessionPins,
    /// Observers are not told that no holder leads any more.
    EndOfLeadershipUntold,
    /// Observers are told before all that may lead have come back.
    ObserversToldInGrace,
    /// A reign is proven from the answer on, not from the sending of what was answered.
    ProofFromAnswer,
    /// A standby counts from when it sent its read.
    StandbyCountsFromSending,
    /// A standby counts half of the time that a reign is believed.
    StandbyCountsHalf,
    /// Neither the reign nor the standby allows for clocks that run at different rates.
    NoReignAllowance,
    /// All reigns of one leader have the same name.
    ReignNamedAfterLeader,
    /// A reign without proof acts until it hears that it was deposed.
    ActsWithoutProof,
    /// The journal's: what has no answer counts as written.
    UnknownIsDone,
    /// A leader that takes over again goes on from its own memory.
    ReignFromMemory,
    /// The journal's: it renews whichever reign asks.
    RenewsUnchecked,
    /// The journal's: batches have no number.
    AppendsUnnumbered,
    /// The journal's: stamps begin anew with each reign.
    StampsRestart,
    /// The journal's: a take-over is compared with the reign that was seen, not with the stamp.
    TakesOverByReign,
    /// A session's opening says nothing of the name that it was for.
    FirstNameNotWritten,
    /// A bound is made from the one that is durable, not from the one on its way.
    BoundFromCommitted,
    /// A name is granted before the journal knows that its session has asked for it.
    GrantedBeforeBound,
    /// A waiter is told its place before that.
    QueuedBeforeBound,
    /// A take-over forgets what sessions have asked for.
    BoundForgotten,
    /// An absent session is waited for until its end is handed over, not until it is durable.
    EndNotAwaited,
    /// An absent session is waited for half of its time to live.
    SilentNotAwaited,
    /// A bound is narrowed to what the session holds, without what it waits for.
    NarrowedBelowWaiting,
    /// A bound counts as wide until the narrow one is durable.
    NarrowCountsLate,
    /// Bounds are believed while clients are waited for that the journal does not know.
    BoundsBeforeWaited,
    /// A group: a vote counts before it is on the disk, and is forgotten in a crash.
    GroupVoteForgotten,
    /// A group: entries count before they are on the disk.
    GroupLogNotSynced,
    /// A group: a leader without a majority's answers goes on with its heartbeats.
    NoQuietRule,
    /// A group: the condition of a take-over is evaluated when it is proposed, not when it is applied.
    ConditionAtProposal,
    /// A group: a member with a low disk hands over once, when it becomes so, and is elected like any other.
    LowDiskToldOnce,
    /// A group's member: a disk that was emptied votes on as the one that it was.
    EmptiedDiskVotes,
    /// A group: a disk that was put back to an earlier state votes and answers on.
    PutBackDiskVotes,
    /// A group: a leader does not tell a disk what it counts it for before that is committed.
    UncommittedUntold,
    /// A group: a member that hears its leader votes for another.
    NotSticky,
    /// A group: a member stands without asking whether it would have a majority.
    NoPreVote,
}

#[cfg(feature = "mistakes")]
mod planting {
    use std::cell::Cell;

    use super::Mistake;

    // One world is one thread, and beside it others run without mistakes.
    thread_local! {
        static PLANTED: Cell<u128> = const { Cell::new(0) };
    }

    /// From now on this thread makes these mistakes, and no others.
    pub fn plant(mistakes: &[Mistake]) {
        PLANTED.set(mistakes.iter().fold(0, |all, mistake| all | 1 << *mistake as u8));
    }

    /// Whether this thread makes that mistake.
    pub fn planted(mistake: Mistake) -> bool {
        PLANTED.get() >> mistake as u8 & 1 == 1
    }
}

#[cfg(feature = "mistakes")]
pub use planting::{plant, planted};

/// Whether that mistake is to be made: never.
#[cfg(not(feature = "mistakes"))]
#[inline(always)]
pub const fn planted(_: Mistake) -> bool {
    false
}
