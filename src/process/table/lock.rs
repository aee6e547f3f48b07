//! Taking a slot and releasing it: does in shared memory what `protocol` asks for.
//!
//! What the rest of the table engine uses, in the order of a lock's life:
//!
//! | call | by | what it does |
//! |---|---|---|
//! | [`take_word`] | any thread, at any time | the fast path in: one compare-and-swap, one compare of the generation |
//! | [`try_take`] | any thread, at any time | takes the slot if no living process holds it and no wait stands before; looks at records, marks nothing but a late wait |
//! | [`take`], [`Seeker`] | one thread of a process at a time, its representative | the same, and waits until a time: sleeps on the word as any foreign waiter does |
//! | [`widen`] | the holder | sets the widened mark, for good |
//! | [`rename`] | the holder | goes on holding it under another id of its own |
//! | [`release`] | the holder, any thread of its process | one compare of the token, one compare-and-swap; off the fast path it also hands over and wakes, and gives back what was taken and not used |
//! | [`retire`], [`retired`] | under the structural lock | begin and end forgetting a name |
//! | [`settle`] | under the structural lock | ends that in place of a process that died |
//! | [`reap`] | a sweeper | releases the word of a dead holder |
//! | [`end_stay`] | an operator | makes the word free that `at_least` keeps |
//! | [`wake_another`] | a thread that was woken and does not want the lock any more | passes that on |
//!
//! **Threads.** A thread that holds the slot need not be the representative: all threads of a
//! process write one id, and the slot's token tells their holds apart. A release names the token
//! that its hold was given ([`Exit::token`]): it is compared before each exchange, and a hold that
//! was taken away is `LostHold` without a change. A waiter of the holder's own process stands in the
//! order of all waits, and is woken like a foreign one, by one futex wake on the slot's word with
//! the bit of its record: the releasing thread needs to know nothing of its own process's waiter.
//!
//! **Tokens.** Each of these raises the slot's token by one when it wins, and says which token
//! the hold now has ([`SlotWon`]). Off the fast path that is the first thing after the winning
//! exchange, used or not, before even the generation is compared: a stale guard of a process that
//! was wrongly judged to be dead must not find its own token there.
//!
//! The winner compares the generation before anything is done under the word, here: `Moved` says
//! that the name is somewhere else now, and nothing is held. Giving back unused is a release with
//! the predecessor that was told, so that the next one is told the same.

mod seeker;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    hint, io,
    num::NonZeroU32,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rustix::io::Errno;

use crate::{
    clock,
    error::{LockError, LockErrorKind, Predecessor},
    process::{SlotWish, sys::futex},
    time::{AT_LEAST_MAX, Time},
};

pub(super) use self::seeker::{Seeker, SeekerTurn};
use super::{
    chain,
    ends::EndHint,
    map::Cell,
    marks::milliseconds,
    protocol::{
        Answer, Leaving, Machine, Marking, Op, Outcome, Reaping, Slept, SlotMark, ToWake, Verdict,
    },
    slot::MappedSlot,
    step::step,
    store::MappedTable,
    word::{OwnerId, StayEnd, WaitId, Word},
};

/// Waiting longer than this earns a record, and with it a place in the order of waits.
const PATIENCE: Duration = Duration::from_millis(1);
/// No waiter sleeps longer without looking at the word and at its owner's presence…
const FIRST_NAP: Duration = Duration::from_millis(3);
/// …but for one that has waited for a while: a part of that, and at last so long. What it waits
/// for is watched besides.
const NAP_PART: u32 = 32;
const LONGEST_NAP: Duration = Duration::from_millis(100);
/// A wait has a tenth of the time that it has waited to claim what is reserved for it, and no less
/// and no more than this, twice as much after each time that it was passed over, at most this.
const CLAIM_PART: u64 = 10;
const SHORTEST_CLAIM_MS: u64 = 3;
const LONGEST_CLAIM_MS: u64 = 100;
const LONGEST_DOUBLED_MS: u64 = 1000;

/// The presences of the processes that use the table.
pub(super) trait PresenceView {
    /// Whether the process that owns `owner` is alive. Never by its pid. For [`Verdict::Unknown`]
    /// it reports why.
    ///
    /// `kept` is for this waiter alone, for the presence that it is waiting behind.
    fn verdict(&self, owner: OwnerId, kept: &mut Kept) -> Verdict;

    /// Fails with `Damaged` if the table's file is not the one that is mapped any more. Asked
    /// before any death is acted upon.
    fn check_mapped(&self) -> Result<(), LockError>;

    /// Fails if this process may not look at the presence of `owner`, so that it would wait for ever
    /// behind the dead. Asked where the verdict is unknown.
    fn check_may_look(&self, owner: OwnerId) -> Result<(), LockError> {
        let _ = owner;
        Ok(())
    }

    /// Makes room for more wait records, if that can be done without waiting.
    fn make_room(&self);

    /// Has the sleepers of this slot with these bits woken when this process ends, as far as that
    /// can be known: a hint to look.
    fn hint_at_end(
        &self,
        owner: OwnerId,
        slot: &Cell<MappedSlot>,
        bits: NonZeroU32,
    ) -> Option<EndHint>;
}

/// The presence that is looked at while waiting.
pub(super) type Kept = Option<(OwnerId, LookedPresence)>;

/// An open presence: of one look, or shared by all that wait behind its owner.
pub(super) enum LookedPresence {
    Once(File),
    Shared(Arc<File>),
}

impl LookedPresence {
    pub(super) fn file(&self) -> &File {
        match self {
            LookedPresence::Once(file) => file,
            LookedPresence::Shared(file) => file,
        }
    }
}

/// A slot, and the table with the wait records about it.
#[derive(Clone, Copy)]
pub(super) struct SlotAt<'a> {
    pub(super) slot: &'a MappedSlot,
    /// By which wait records name it.
    pub(super) number: u32,
    pub(super) table: &'a MappedTable,
    /// The slot, to be kept by a thread that is to wake this one's sleepers. The structural lock
    /// has none: its holders have it for microseconds.
    pub(super) kept: Option<&'a Cell<MappedSlot>>,
}

/// What the winner of a slot is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SlotWon {
    /// How the holder before it left.
    pub(super) left: Predecessor,
    /// What the slot's token was raised to.
    pub(super) token: u64,
}

/// How a holder leaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exit {
    /// The token of its hold. `None` for a holder that raised the slot's token beyond that.
    pub(super) token: Option<u64>,
    /// What the next one is told.
    pub(super) how: Predecessor,
    /// It wrote an end of `at_least` into the slot.
    pub(super) may_stay: bool,
}

impl Exit {
    pub(super) const fn new(token: u64, how: Predecessor) -> Exit {
        Exit { token: Some(token), how, may_stay: false }
    }

    /// As if it had never been there.
    const fn unused(admission: SlotWon) -> Exit {
        Exit::new(admission.token, admission.left)
    }

    #[inline]
    fn is_of(self, slot: &MappedSlot) -> bool {
        self.token.is_none_or(|token| token == slot.token.load(Ordering::Relaxed))
    }
}

/// Why a lock was not taken.
#[derive(Debug)]
pub(super) enum Stop {
    /// The time is over and another holds it.
    TimedOut,
    /// The slot is not this name's any more: look the name up again.
    Moved,
    /// The process that was forgetting the name died at it: under the structural lock, finish what
    /// was begun, call [`settle`] with this word, and look the name up again.
    Unsettled(Word),
    Failed(LockError),
}

/// The hold was not this guard's any more: a wrong verdict of death, or damage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LostHold;

/// Takes it if it is free, or if its holder is dead, and no wait stands before; `None` if not.
#[inline]
pub(super) fn try_take<P: PresenceView>(
    at: SlotAt<'_>,
    me: OwnerId,
    generation: u32,
    presences: &P,
) -> Result<Option<SlotWon>, Stop> {
    match take_quietly(at.slot, me) {
        Ok(()) => entered_quietly(at, me, generation).map(Some),
        Err(found) => try_take_slow(at, me, generation, presences, found),
    }
}

/// What else may be inside where a quiet word was won.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WordWon {
    /// None.
    Alone,
    /// Readers, or the name is not here any more: [`stays_shared`] finds out.
    Beside,
}

/// Takes the word of a free and quiet slot. The caller raises the token, once it is alone.
#[inline]
pub(super) fn take_word(slot: &MappedSlot, me: OwnerId, generation: u32) -> Option<WordWon> {
    take_quietly(slot, me).ok()?;
    // Its head is loaded after the exchange: a reader that comes later sees the word held.
    Some(match slot.generation.with_head() == u64::from(generation) {
        true => WordWon::Alone,
        false => WordWon::Beside,
    })
}

/// Exchanges the word of a free and quiet slot for this process's; else this is what it was.
#[inline]
fn take_quietly(slot: &MappedSlot, me: OwnerId) -> Result<(), Word> {
    step!(TakeQuiet);
    let (from, to) = Word::taken_quietly(me);
    let swapped =
        slot.word.compare_exchange(from.bits(), to.bits(), Ordering::SeqCst, Ordering::Relaxed);
    step!(TakeEnd);
    swapped.map(drop).map_err(Word::from_bits)
}

/// The name was shared once, or is not here any more: whether it is, and no reader is inside. If
/// not, the word is given back. `is_counted`: readers of this process are still counted; asked only
/// where the name was shared.
pub(super) fn stays_shared(
    at: SlotAt<'_>,
    me: OwnerId,
    generation: u32,
    is_counted: impl FnOnce() -> bool,
) -> bool {
    let stands = at.slot.generation.load(Ordering::Relaxed) == generation;
    if stands && at.table.is_unshared(at.slot) && is_counted() {
        return true;
    }
    leave_stale(at, me, Predecessor::Clean);
    false
}

/// Takes it, waiting for it until `until`.
#[inline]
pub(super) fn take<P: PresenceView>(
    at: SlotAt<'_>,
    me: OwnerId,
    generation: u32,
    presences: &P,
    until: Time,
) -> Result<SlotWon, Stop> {
    take_unless(at, me, generation, presences, (until, &|| false), SlotWish::default())
}

/// The same, for a wait that may be over before that. It looks whether it is whenever it wakes.
#[inline]
pub(super) fn take_unless<P: PresenceView>(
    at: SlotAt<'_>,
    me: OwnerId,
    generation: u32,
    presences: &P,
    limit: (Time, &dyn Fn() -> bool),
    wish: SlotWish,
) -> Result<SlotWon, Stop> {
    let seeker = || Seeker::new(me, generation, true).with(wish);
    match take_quietly(at.slot, me) {
        Ok(()) => entered_quietly(at, me, generation),
        Err(found) => take_slow(at, seeker(), presences, limit, found),
    }
}

/// Releases what this process took.
#[inline]
pub(super) fn release(at: SlotAt<'_>, me: OwnerId, exit: Exit) -> Result<(), LostHold> {
    match leave_quietly(at.slot, me, exit) {
        Ok(()) => Ok(()),
        Err(found) => release_slow(at, me, exit, found),
    }
}

/// The same of a narrow name, if no waiter stands or sleeps; else nothing is done, this is what the
/// word was, and [`release_slow`] goes on.
#[inline]
pub(super) fn leave_quietly(slot: &MappedSlot, me: OwnerId, exit: Exit) -> Result<(), Word> {
    if !exit.is_of(slot) || exit.may_stay {
        return Err(Word::from_bits(slot.word.load(Ordering::Relaxed)));
    }
    leave_unasked(slot, me, exit.how)
}

/// The same of a hold that was found to have its token still, and leaves no end of `at_least`.
#[inline]
pub(super) fn leave_unasked(slot: &MappedSlot, me: OwnerId, how: Predecessor) -> Result<(), Word> {
    step!(LeaveQuiet);
    // Others may put flags to it, so it is read again with the swap.
    let (from, to) = Word::left_quietly(me, how);
    let swapped =
        slot.word.compare_exchange(from.bits(), to.bits(), Ordering::Release, Ordering::Relaxed);
    step!(LeaveEnd);
    swapped.map(drop).map_err(Word::from_bits)
}

/// Writes down until when the lock stays taken, whatever becomes of its holder; `None` ends that.
/// For the holder, right after it has won and before its caller runs.
pub(super) fn keep_until(slot: &MappedSlot, end: Option<Time>) {
    // Rounded down: a holder that leaves at that time leaves as at any other.
    let end = end.map_or(0, Time::as_millis);
    slot.end.store(end, Ordering::Relaxed);
}

/// Marks what this process took as locked at host scope.
pub(super) fn widen(at: SlotAt<'_>, me: OwnerId) -> Result<(), LostHold> {
    owners_result(run(at, Marking::new(me, SlotMark::Wide), None))
}

/// Goes on holding, under the id `to`, what this process took under the id `from`.
#[cfg(any(feature = "cli", test))]
pub(super) fn rename(at: SlotAt<'_>, from: OwnerId, to: OwnerId) -> Result<(), LostHold> {
    owners_result(run(at, super::protocol::Renaming::new(from, to), None))
}

/// Takes a free and quiet slot in order to forget its name; whether that was possible. What has
/// any flag set is not forgotten. Ended by [`retired`].
pub(super) fn retire(slot: &MappedSlot, me: OwnerId) -> bool {
    let (from, to) = (Word::FREE, Word::retiring(me));
    step!(RetireBegin);
    let done = swap(slot, from, to) == from;
    step!(RetireBegun);
    done
}

/// The name is forgotten: the slot is free again.
pub(super) fn retired(at: SlotAt<'_>, me: OwnerId) -> Result<(), LostHold> {
    owners_result(run(at, Leaving::retiring(me), None))
}

/// The name is forgotten, as the owner of this word, which is dead, had begun: no process owns the
/// word any more.
pub(super) fn settle(at: SlotAt<'_>, judged: Word) {
    run(at, Reaping::settling(judged), None);
}

/// Releases the word if its owner is dead; whether it did.
pub(super) fn reap<P: PresenceView>(at: SlotAt<'_>, presences: &P) -> Result<bool, Stop> {
    let mut machine = Reaping::sweeping();
    let mut kept = None;
    loop {
        match advance(&mut machine, at, None) {
            Ahead::Judge(owner) => {
                machine.heard(Answer::Verdict(judge(presences, owner, &mut kept)?));
            }
            Ahead::End(Outcome::Reaped) => return Ok(true),
            Ahead::End(Outcome::Nothing) => return Ok(false),
            Ahead::End(outcome) => return Err(stop(outcome)),
            ahead => unreachable!("{ahead:?} is nothing a sweeper asks"),
        }
    }
}

/// Ends the stay that the hold with this token left, before its time: whether there was one.
#[cfg(feature = "cli")]
pub(super) fn end_stay<P: PresenceView>(
    at: SlotAt<'_>,
    me: OwnerId,
    generation: u32,
    presences: &P,
    token: u64,
) -> Result<bool, Stop> {
    // A holder that died has left none before its death is proved.
    reap(at, presences)?;
    loop {
        let seen = Word::from_bits(at.slot.word.load(Ordering::SeqCst));
        let is_its = || {
            at.slot.token.load(Ordering::Relaxed) == token
                && at.slot.generation.load(Ordering::Relaxed) == generation
        };
        if !matches!(seen.state(), Some(super::word::SlotState::Staying(_))) || !is_its() {
            return Ok(false);
        }
        // A waiter may mark it meanwhile.
        if swap(at.slot, seen, seen.seized(me)) == seen {
            let is_its = is_its();
            if is_its {
                keep_until(at.slot, None);
            }
            // Another hold's goes on to its end.
            let exit = Exit { token: None, how: seen.left(), may_stay: !is_its };
            // If it is lost, another has it by a wrong verdict.
            let _ = release(at, me, exit);
            return Ok(is_its);
        }
    }
}

/// Wakes another one of the threads that sleep on the slot: a wake is for one only.
pub(super) fn wake_another(slot: &MappedSlot) {
    futex::wake(&slot.word, futex::ALL, 1);
}

/// Wakes every sleeper on the slot.
#[cfg(test)]
pub(super) fn wake_all(slot: &MappedSlot) {
    futex::wake(&slot.word, futex::ALL, u32::MAX >> 1);
}

// ---- the slow paths ------------------------------------------------------------------------

/// Has the word by the quiet way: compares the generation, then raises the token.
#[inline]
fn entered_quietly(at: SlotAt<'_>, me: OwnerId, generation: u32) -> Result<SlotWon, Stop> {
    if !stands(at, me, generation) {
        return Err(Stop::Moved);
    }
    // No other thread writes it under this word.
    let token = at.slot.token.load(Ordering::Relaxed).saturating_add(1);
    at.slot.token.store(token, Ordering::Relaxed);
    Ok(SlotWon { left: Predecessor::Clean, token })
}

/// Whether the name stands where the word was won by the quiet way; else that is given back.
#[inline]
fn stands(at: SlotAt<'_>, me: OwnerId, generation: u32) -> bool {
    let stands = at.slot.generation.load(Ordering::Relaxed) == generation;
    if !stands {
        leave_stale(at, me, Predecessor::Clean);
    }
    stands
}

/// Has the word, and has raised the token.
fn entered(
    at: SlotAt<'_>,
    me: OwnerId,
    generation: u32,
    admission: SlotWon,
) -> Result<SlotWon, Stop> {
    if at.slot.generation.load(Ordering::Relaxed) == generation {
        return Ok(admission);
    }
    leave_stale(at, me, admission.left);
    Err(Stop::Moved)
}

/// Gives back a word that is another name's, or of no name. Its token is not this taker's to
/// compare: a name that is entered here meanwhile has its own.
#[cold]
fn leave_stale(at: SlotAt<'_>, me: OwnerId, how: Predecessor) {
    // If it is lost, another has it, and it is not this name's either.
    let _ = release(at, me, Exit { token: None, how, may_stay: false });
}

/// Off the quiet way, where the slot may be another name's: an old name's taker does not lower
/// the token that a new one begins with.
fn raise_token(slot: &MappedSlot) -> u64 {
    let token = slot.token.load(Ordering::Relaxed).saturating_add(1);
    slot.token.fetch_max(token, Ordering::Relaxed).max(token)
}

/// Gives back what was won and is not used.
pub(super) fn give_back(at: SlotAt<'_>, me: OwnerId, admission: SlotWon) {
    // If it is lost, another has it by a wrong verdict.
    let _ = release(at, me, Exit::unused(admission));
}

#[cold]
fn try_take_slow<P: PresenceView>(
    at: SlotAt<'_>,
    me: OwnerId,
    generation: u32,
    presences: &P,
    found: Word,
) -> Result<Option<SlotWon>, Stop> {
    let mut seeker = Seeker::new(me, generation, false);
    seeker.found(found);
    match seeker.go_on(at, presences)? {
        SeekerTurn::Won(admission) => Ok(Some(admission)),
        SeekerTurn::WouldBlock => Ok(None),
        turn => unreachable!("{turn:?} of one that does not wait"),
    }
}

#[cold]
fn take_slow<P: PresenceView>(
    at: SlotAt<'_>,
    mut seeker: Seeker,
    presences: &P,
    (until, is_over): (Time, &dyn Fn() -> bool),
    found: Word,
) -> Result<SlotWon, Stop> {
    seeker.found(found);
    loop {
        match seeker.go_on(at, presences)? {
            SeekerTurn::Won(admission) => return Ok(admission),
            SeekerTurn::Sleep { seen, longest, record } => {
                let slept = match seeker.is_in_place(at.slot) && !is_over() {
                    true => sleep(at.slot, seen, longest, record, until),
                    false => Ok(Slept::GiveUp),
                };
                let slept = slept.inspect_err(|_| seeker.abandon(at))?;
                seeker.slept(slept);
            }
            SeekerTurn::GaveUp => return Err(Stop::TimedOut),
            turn @ (SeekerTurn::WouldBlock | SeekerTurn::Park) => {
                unreachable!("{turn:?} of a thread")
            }
        }
    }
}

fn sleep(
    slot: &MappedSlot,
    seen: Word,
    longest: Duration,
    record: Option<WaitId>,
    until: Time,
) -> Result<Slept, Stop> {
    let left = until.since(clock::now());
    if left.is_zero() {
        return Ok(Slept::GiveUp);
    }
    let bits = record.map_or(futex::ALL, |wait| futex::bit(wait.number()));
    match futex::sleep(&slot.word, seen.low_half(), bits, longest.min(left)) {
        Ok(()) => Ok(Slept::Woken),
        Err(Errno::AGAIN) => Ok(Slept::Changed),
        Err(Errno::TIMEDOUT | Errno::INTR) => Ok(Slept::ByItself),
        Err(error) => Err(Stop::Failed(cannot_sleep(error))),
    }
}

#[cold]
pub(super) fn release_slow(
    at: SlotAt<'_>,
    me: OwnerId,
    exit: Exit,
    found: Word,
) -> Result<(), LostHold> {
    let leaving = Leaving::found(me, exit.how, exit.may_stay, found);
    owners_result(run(at, leaving, Some(exit)))
}

fn owners_result(outcome: Outcome) -> Result<(), LostHold> {
    match outcome {
        Outcome::Released | Outcome::Marked => Ok(()),
        #[cfg(any(feature = "cli", test))]
        Outcome::Renamed => Ok(()),
        Outcome::Lost => Err(LostHold),
        outcome => unreachable!("{outcome:?} of a holder"),
    }
}

/// Runs a machine that asks nothing but the memory.
pub(super) fn run(at: SlotAt<'_>, mut machine: impl Machine, exit: Option<Exit>) -> Outcome {
    match advance(&mut machine, at, exit) {
        Ahead::End(outcome) => outcome,
        ahead => unreachable!("{ahead:?} is nothing a holder asks"),
    }
}

/// What a machine asks of others than the memory.
#[derive(Debug)]
pub(super) enum Ahead {
    SleepOnBell(u32),
    Sleep { seen: Word, record: Option<WaitId> },
    Park,
    IsHungry,
    Enlist,
    FillIn(WaitId),
    RaiseToken,
    Judge(OwnerId),
    End(Outcome),
}

/// Does what the machine asks for in the slot, until it asks for something else. `exit` is the
/// hold that is released.
pub(super) fn advance(machine: &mut impl Machine, at: SlotAt<'_>, exit: Option<Exit>) -> Ahead {
    let SlotAt { slot, number: here, table, .. } = at;
    loop {
        #[cfg(test)]
        super::step::reached(machine.step());
        let answer = match machine.op() {
            Op::Load => Answer::Word(Word::from_bits(slot.word.load(Ordering::SeqCst))),
            Op::Swap { from, to } => Answer::Word(swap(slot, from, to)),
            Op::SeeToken => Answer::Yes(exit.is_none_or(|exit| exit.is_of(slot))),
            Op::SeeStay => Answer::Stay(stay_ahead(slot)),
            Op::IsOver(end) => Answer::Yes(!is_ahead(end)),
            Op::SwapRecord { number, from, to } => {
                Answer::Record(table.swap_record(number, from, to))
            }
            Op::Return { number, from } => {
                table.note_passed(number);
                Answer::Record(table.swap_record(number, from, from.returned()))
            }
            Op::Erase(wait) => {
                table.erase(wait);
                Answer::Done
            }
            Op::LoadRecord(number) => Answer::Record(table.record_word(number)),
            Op::Read(number) => Answer::Read(table.read_record(number, here)),
            Op::Stamp => {
                slot.since.store(milliseconds(clock::now()), Ordering::Relaxed);
                Answer::Done
            }
            Op::IsLate(wait) => Answer::Yes(time_left(at, wait, clock::now()).is_zero()),
            Op::Pause(pauses) => {
                (0..pauses).for_each(|_| hint::spin_loop());
                Answer::Done
            }
            Op::Wake(ToWake::Wait(wait)) => {
                let bit = futex::bit(wait.number());
                Answer::Yes(futex::wake(&slot.word, bit, u32::MAX >> 1))
            }
            Op::Wake(ToWake::One) => Answer::Yes(futex::wake(&slot.word, futex::ALL, 1)),
            Op::Share(op) => match chain::perform(at.table, at.slot, op) {
                Ok(answer) => answer,
                Err(bell) => return Ahead::SleepOnBell(bell),
            },
            Op::Sleep { seen, record } => return Ahead::Sleep { seen, record },
            Op::Park => return Ahead::Park,
            Op::IsHungry => return Ahead::IsHungry,
            Op::Enlist => return Ahead::Enlist,
            Op::FillIn(wait) => return Ahead::FillIn(wait),
            Op::RaiseToken => return Ahead::RaiseToken,
            Op::Judge(owner) => return Ahead::Judge(owner),
            Op::End(outcome) => return Ahead::End(outcome),
        };
        machine.heard(answer);
    }
}

pub(super) fn judge<P: PresenceView>(
    presences: &P,
    owner: OwnerId,
    kept: &mut Kept,
) -> Result<Verdict, Stop> {
    let verdict = presences.verdict(owner, kept);
    match verdict {
        Verdict::Dead => presences.check_mapped().map_err(Stop::Failed)?,
        Verdict::Unknown => presences.check_may_look(owner).map_err(Stop::Failed)?,
        Verdict::Alive | Verdict::Missing => {}
    }
    Ok(verdict)
}

/// What the word was; `from` if it is `to` now.
fn swap(slot: &MappedSlot, from: Word, to: Word) -> Word {
    let ordering = Ordering::SeqCst;
    let swapped = slot.word.compare_exchange(from.bits(), to.bits(), ordering, ordering);
    Word::from_bits(swapped.unwrap_or_else(|found| found))
}

/// How long a wait that the word is reserved for still has to claim it.
///
/// Two processes' clocks may differ (time namespaces), so a reservation from too far ahead is
/// late too.
fn time_left(at: SlotAt<'_>, wait: WaitId, now: Time) -> Duration {
    let (waited, passes) = at.table.wait_so_far(wait.number(), now);
    let waited = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
    let first = (waited / CLAIM_PART).clamp(SHORTEST_CLAIM_MS, LONGEST_CLAIM_MS);
    let allowed = (first << passes.min(10)).min(LONGEST_DOUBLED_MS);
    let age = milliseconds(now).wrapping_sub(at.slot.since.load(Ordering::Relaxed)) as i32;
    let left = (allowed + 1).saturating_sub(age.unsigned_abs().into());
    Duration::from_millis(left)
}

/// The end of `at_least` that stands in the slot, if it lies ahead.
pub(super) fn stay_ahead(slot: &MappedSlot) -> Option<StayEnd> {
    StayEnd::new(slot.end.load(Ordering::Relaxed)).filter(|end| is_ahead(*end))
}

fn is_ahead(end: StayEnd) -> bool {
    time_ahead(end).is_some()
}

/// How far the end lies ahead, if it does.
pub(super) fn time_ahead(end: StayEnd) -> Option<Duration> {
    let left = end.milliseconds().saturating_sub(clock::now().as_millis());
    // One that lies further ahead was written by no lock.
    Some(Duration::from_millis(left)).filter(|left| !left.is_zero() && *left <= AT_LEAST_MAX)
}

/// What an end means that is neither the lock nor a plain no.
#[cold]
fn stop(outcome: Outcome) -> Stop {
    let text = match outcome {
        Outcome::Unsettled(word) => return Stop::Unsettled(word),
        Outcome::Absent(word) => format!(
            "its holder, process {} of this directory, has no presence file any more, so it \
             cannot be told whether it is alive; stop every process that uses the directory, then \
             remove it",
            word.owner().map_or(0, OwnerId::get)
        ),
        Outcome::Nonsense(word) => {
            format!("its word is {:#x}, which no lock wrote", word.bits())
        }
        outcome => unreachable!("{outcome:?} is no failure"),
    };
    Stop::Failed(LockError::new(LockErrorKind::Damaged, text))
}

#[cold]
pub(super) fn cannot_sleep(error: Errno) -> LockError {
    let (kind, text) = if error == Errno::FAULT {
        (
            LockErrorKind::Damaged,
            "the table was cut short while this process used it; restart this process",
        )
    } else {
        (LockErrorKind::Io, "cannot wait for the lock")
    };
    LockError::new(kind, text).with_source(io::Error::from(error))
}
