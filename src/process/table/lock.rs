//! Taking a slot and letting it go: does in shared memory what `protocol` asks for.
//!
//! What the rest of the table engine uses, in the order of a lock's life:
//!
//! | call | who may | what it does |
//! |---|---|---|
//! | [`try_take`] | anyone | takes it if nobody alive holds it |
//! | [`take`] | anyone | the same, and waits until a time |
//! | [`Seeker`] | anyone | the same, for a thread that waits on many slots |
//! | [`widen`] | the holder | sets the widened mark, for good |
//! | [`rename`] | the holder | goes on holding it under another id of its own |
//! | [`release`] | the holder | lets go; also gives back what was taken and not used |
//! | [`retire`], [`retired`] | under the structural lock | begin and end forgetting a name |
//! | [`settle`] | under the structural lock | ends that in place of a process that died |
//! | [`bury`] | a sweeper | frees the word of a dead holder |
//! | [`wake_another`] | who was woken and does not want the lock any more | passes that on |
//!
//! Quiet, taking is one compare-and-swap and a look at the generation, and letting go is one
//! compare-and-swap. The winner compares the generation before anything else, here: `Moved` says
//! that the name is somewhere else now, and nothing is held. Giving back unused is
//! `release(slot, me, the predecessor that was told)`, so that the next one is told the same.
//!
//! At most one thread of a process is in [`take`] or [`try_take`] for a slot, or holds it.

#[cfg(test)]
mod tests;

use std::{
    fs::File,
    hint, io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rustix::io::Errno;

use crate::{
    clock,
    error::{LockError, LockErrorKind, Predecessor},
    process::sys::futex,
    time::Time,
};

use super::{
    protocol::{
        Answer, Burying, Leaving, Machine, Op, Outcome, Place, Renaming, SPINS, Slept, Taking,
        Verdict, Whom, Widening,
    },
    slot::Slot,
    step::step,
    word::{Heir, OwnerId, Word},
};

/// Waiting longer than this earns a reservation.
const PATIENCE: Duration = Duration::from_millis(1);
/// A reservation older than this binds nobody.
const LAPSE_MS: u32 = 3;
/// Nobody sleeps longer without looking at the word and at its owner's presence…
const LONGEST_NAP: Duration = Duration::from_millis(3);
/// …except behind an heir.
const LONGEST_NAP_BEHIND: Duration = Duration::from_millis(7);
/// Who is first in line looks so often, and later after each such part of what it has waited: a
/// dead holder is found out soon, and one process for each lock pays for that, for a while.
const HEIRS_NAP: Duration = Duration::from_millis(1);
const HEIRS_PART: u32 = 256;

/// The presences of the processes that use the table.
pub(super) trait Presences {
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
}

/// The presence that is looked at while waiting.
pub(super) type Kept = Option<(OwnerId, Looked)>;

/// An open presence: of one look, or shared by all that wait behind its owner.
pub(super) enum Looked {
    Once(File),
    Shared(Arc<File>),
}

impl Looked {
    pub(super) fn file(&self) -> &File {
        match self {
            Looked::Once(file) => file,
            Looked::Shared(file) => file,
        }
    }
}

/// Why a lock was not taken.
#[derive(Debug)]
pub(super) enum Stop {
    /// The time is over and somebody holds it.
    TimedOut,
    /// The slot is not this name's any more: look the name up again.
    Moved,
    /// The process that was forgetting the name died at it: under the structural lock, finish what was begun, call [`settle`] with this word, and look
    /// the name up again.
    Unsettled(Word),
    Failed(LockError),
}

/// The word was not this process's any more: a wrong verdict of death, or damage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Lost;

/// Takes it if it is free, or if whoever holds it is dead; `None` if somebody alive holds it.
/// How the one before left it.
#[inline]
pub(super) fn try_take<P: Presences>(
    slot: &Slot,
    me: OwnerId,
    generation: u32,
    presences: &P,
) -> Result<Option<Predecessor>, Stop> {
    match take_quietly(slot, me) {
        Ok(()) => entered(slot, me, generation, Predecessor::Clean).map(Some),
        Err(found) => try_take_slow(slot, me, generation, presences, found),
    }
}

/// Takes it if it is as it was `seen`, [quiet](Word::quiet), and the name stands here. Whether it
/// did; if not, it is as it was.
#[inline]
pub(super) fn take_as_seen(slot: &Slot, me: OwnerId, generation: u32, seen: Word) -> bool {
    step!(TakeQuiet);
    let taken = Word::held(me).as_wide_as(seen);
    let swapped =
        slot.word.compare_exchange(seen.bits(), taken.bits(), Ordering::Acquire, Ordering::Relaxed);
    step!(TakeEnd);
    swapped.is_ok() && entered(slot, me, generation, Predecessor::Clean).is_ok()
}

/// Takes it, waiting for it until `until`. How the one before left it.
#[inline]
pub(super) fn take<P: Presences>(
    slot: &Slot,
    me: OwnerId,
    generation: u32,
    presences: &P,
    until: Time,
) -> Result<Predecessor, Stop> {
    match take_quietly(slot, me) {
        Ok(()) => entered(slot, me, generation, Predecessor::Clean),
        Err(found) => take_slow(slot, me, generation, presences, until, found),
    }
}

/// Lets go of what this process took; the next one is told `how`.
#[inline]
pub(super) fn release(slot: &Slot, me: OwnerId, how: Predecessor) -> Result<(), Lost> {
    release_as_seen(slot, me, how, Word::from_bits(slot.word.load(Ordering::Relaxed)))
}

/// The same, for who knows how wide it is. To know it wrongly costs a look.
#[inline]
pub(super) fn release_as_seen(
    slot: &Slot,
    me: OwnerId,
    how: Predecessor,
    seen: Word,
) -> Result<(), Lost> {
    leave_as_seen(slot, me, how, seen).or_else(|found| release_slow(slot, me, how, found))
}

/// The same, if nobody waits; else nothing is done, and this is what the word was.
#[inline]
pub(super) fn leave_as_seen(
    slot: &Slot,
    me: OwnerId,
    how: Predecessor,
    seen: Word,
) -> Result<(), Word> {
    step!(LeaveQuiet);
    // Others may put flags to it, so it is read again with the swap.
    let (from, to) = Leaving::quiet(me, how, seen);
    let swapped =
        slot.word.compare_exchange(from.bits(), to.bits(), Ordering::Release, Ordering::Relaxed);
    step!(LeaveEnd);
    swapped.map(drop).map_err(Word::from_bits)
}

/// Marks what this process took as locked at host scope.
pub(super) fn widen(slot: &Slot, me: OwnerId) -> Result<(), Lost> {
    owners_result(run(slot, Widening::new(me)))
}

/// Goes on holding, under the id `to`, what this process took under the id `from`.
pub(super) fn rename(slot: &Slot, from: OwnerId, to: OwnerId) -> Result<(), Lost> {
    owners_result(run(slot, Renaming::new(from, to)))
}

/// Takes a free and quiet slot in order to forget its name; whether that was possible. What has
/// any flag set is not forgotten. Ended by [`retired`].
pub(super) fn retire(slot: &Slot, me: OwnerId) -> bool {
    let (from, to) = (Word::FREE, Word::retiring(me));
    step!(RetireBegin);
    let done = swap(slot, from, to) == from;
    step!(RetireBegun);
    done
}

/// The name is forgotten: the slot is free again.
pub(super) fn retired(slot: &Slot, me: OwnerId) -> Result<(), Lost> {
    owners_result(run(slot, Leaving::retiring(me)))
}

/// The name is forgotten, as the owner of this word, which is dead, had begun: no process owns the
/// word any more.
pub(super) fn settle(slot: &Slot, judged: Word) {
    run(slot, Burying::settling(judged));
}

/// Frees the word if its owner is dead; whether it did.
pub(super) fn bury<P: Presences>(slot: &Slot, presences: &P) -> Result<bool, Stop> {
    let mut machine = Burying::sweeping();
    let mut kept = None;
    loop {
        match advance(&mut machine, slot) {
            Ahead::Judge(owner) => {
                machine.heard(Answer::Verdict(judge(presences, owner, &mut kept)?));
            }
            Ahead::End(Outcome::Buried) => return Ok(true),
            Ahead::End(Outcome::Nothing) => return Ok(false),
            Ahead::End(outcome) => return Err(stop(outcome)),
            ahead => unreachable!("{ahead:?} is nothing a sweeper asks"),
        }
    }
}

/// Wakes another one of those who sleep on the slot: a wake is for one only.
pub(super) fn wake_another(slot: &Slot) {
    futex::wake(&slot.word, futex::ALL, 1);
}

/// Wakes every sleeper on the slot.
#[cfg(test)]
pub(super) fn wake_all(slot: &Slot) {
    futex::wake(&slot.word, futex::ALL, u32::MAX >> 1);
}

/// What a waiter needs next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// Sleep while the low half of the slot's word is `seen`'s, at most so long, and tell it how
    /// that ended.
    Sleep {
        seen: Word,
        longest: Duration,
        place: Place,
    },
    Won(Predecessor),
    WouldBlock,
    GaveUp,
}

/// Somebody who takes a slot, one turn at a time.
pub(super) struct Seeker {
    taking: Taking,
    generation: u32,
    kept: Kept,
    /// When it found that it has to wait.
    since: Option<Time>,
}

impl Seeker {
    pub(super) fn new(me: OwnerId, generation: u32, waits: bool) -> Seeker {
        let taking = Taking::new(me, waits, SPINS);
        Seeker { taking, generation, kept: None, since: None }
    }

    /// Goes on until there is nothing to do but to sleep. Never blocks.
    pub(super) fn go_on<P: Presences>(&mut self, slot: &Slot, presences: &P) -> Result<Turn, Stop> {
        loop {
            let answer = match advance(&mut self.taking, slot) {
                Ahead::Sleep { seen, place } => {
                    return Ok(Turn::Sleep { seen, longest: self.longest_nap(seen, place), place });
                }
                Ahead::IsHungry => Answer::Yes(self.is_hungry()),
                Ahead::Stand(me) => Answer::Heir(self.stand(slot, me)),
                Ahead::Judge(owner) => Answer::Verdict(judge(presences, owner, &mut self.kept)?),
                Ahead::End(outcome) => return self.ended(outcome, slot),
            };
            self.taking.heard(answer);
        }
    }

    /// How the sleep it asked for ended.
    pub(super) fn slept(&mut self, slept: Slept) {
        self.taking.heard(Answer::Slept(slept));
    }

    /// Whether the name that is waited for is still in this slot.
    pub(super) fn is_in_place(&self, slot: &Slot) -> bool {
        slot.generation.load(Ordering::Acquire) == self.generation
    }

    fn ended(&self, outcome: Outcome, slot: &Slot) -> Result<Turn, Stop> {
        match outcome {
            Outcome::Won(left) => {
                entered(slot, self.taking.me(), self.generation, left).map(Turn::Won)
            }
            // The word may be another name's by now.
            _ if !self.is_in_place(slot) => Err(Stop::Moved),
            Outcome::WouldBlock => Ok(Turn::WouldBlock),
            Outcome::GaveUp => Ok(Turn::GaveUp),
            outcome => Err(stop(outcome)),
        }
    }

    fn is_hungry(&mut self) -> bool {
        let now = clock::now();
        now.since(*self.since.get_or_insert(now)) >= PATIENCE
    }

    fn stand(&self, slot: &Slot, me: OwnerId) -> Heir {
        let heir = Heir::new(me, self.since.unwrap_or_else(clock::now));
        swap_heir(slot, Heir::NONE, heir)
    }

    fn longest_nap(&self, seen: Word, place: Place) -> Duration {
        let waited = self.since.map(|since| clock::now().since(since));
        let longest = match place {
            Place::Heir => (waited.unwrap_or_default() / HEIRS_PART).clamp(HEIRS_NAP, LONGEST_NAP),
            _ if seen.is_hungry() => LONGEST_NAP_BEHIND,
            _ => LONGEST_NAP,
        };
        // Nobody who is not hungry yet sleeps past that.
        let hunger = waited.and_then(|waited| PATIENCE.checked_sub(waited));
        hunger.filter(|left| !left.is_zero()).map_or(longest, |left| left.min(longest))
    }
}

// ---- the slow paths ------------------------------------------------------------------------

#[inline]
fn take_quietly(slot: &Slot, me: OwnerId) -> Result<(), Word> {
    step!(TakeQuiet);
    let (from, to) = Taking::quiet(me);
    let swapped =
        slot.word.compare_exchange(from.bits(), to.bits(), Ordering::Acquire, Ordering::Relaxed);
    step!(TakeEnd);
    swapped.map(drop).map_err(Word::from_bits)
}

/// Whoever wins a word compares the generation before anything else.
#[inline]
fn entered(
    slot: &Slot,
    me: OwnerId,
    generation: u32,
    left: Predecessor,
) -> Result<Predecessor, Stop> {
    if slot.generation.load(Ordering::Relaxed) == generation {
        Ok(left)
    } else {
        give_back(slot, me, left)
    }
}

#[cold]
fn give_back(slot: &Slot, me: OwnerId, left: Predecessor) -> Result<Predecessor, Stop> {
    // If it is lost, somebody else has it, and it is not this name's either.
    let _ = release(slot, me, left);
    Err(Stop::Moved)
}

#[cold]
fn try_take_slow<P: Presences>(
    slot: &Slot,
    me: OwnerId,
    generation: u32,
    presences: &P,
    found: Word,
) -> Result<Option<Predecessor>, Stop> {
    let mut seeker = Seeker::new(me, generation, false);
    seeker.taking.heard(Answer::Word(found));
    match seeker.go_on(slot, presences)? {
        Turn::Won(left) => Ok(Some(left)),
        Turn::WouldBlock => Ok(None),
        turn => unreachable!("{turn:?} of one that does not wait"),
    }
}

#[cold]
fn take_slow<P: Presences>(
    slot: &Slot,
    me: OwnerId,
    generation: u32,
    presences: &P,
    until: Time,
    found: Word,
) -> Result<Predecessor, Stop> {
    let mut seeker = Seeker::new(me, generation, true);
    seeker.taking.heard(Answer::Word(found));
    loop {
        match seeker.go_on(slot, presences)? {
            Turn::Won(left) => return Ok(left),
            Turn::Sleep { seen, longest, place } => {
                let slept = if seeker.is_in_place(slot) {
                    sleep(slot, seen, longest, place, until)?
                } else {
                    Slept::GiveUp
                };
                seeker.slept(slept);
            }
            Turn::GaveUp => return Err(Stop::TimedOut),
            Turn::WouldBlock => unreachable!("it waits"),
        }
    }
}

fn sleep(
    slot: &Slot,
    seen: Word,
    longest: Duration,
    place: Place,
    until: Time,
) -> Result<Slept, Stop> {
    let left = until.since(clock::now());
    if left.is_zero() {
        return Ok(Slept::GiveUp);
    }
    let bits = if place == Place::Heir { futex::HEIR } else { futex::CROWD };
    match futex::sleep(&slot.word, seen.low_half(), bits, longest.min(left)) {
        Ok(()) => Ok(Slept::Woken),
        Err(Errno::AGAIN) => Ok(Slept::Changed),
        Err(Errno::TIMEDOUT | Errno::INTR) => Ok(Slept::ByItself),
        Err(error) => Err(Stop::Failed(cannot_sleep(error))),
    }
}

#[cold]
fn release_slow(slot: &Slot, me: OwnerId, how: Predecessor, found: Word) -> Result<(), Lost> {
    let mut leaving = Leaving::held(me, how);
    leaving.heard(Answer::Word(found));
    owners_result(run(slot, leaving))
}

fn owners_result(outcome: Outcome) -> Result<(), Lost> {
    match outcome {
        Outcome::LetGo | Outcome::Widened | Outcome::Renamed => Ok(()),
        Outcome::Lost => Err(Lost),
        outcome => unreachable!("{outcome:?} of somebody who holds it"),
    }
}

/// Runs a machine that asks nothing but the memory.
fn run(slot: &Slot, mut machine: impl Machine) -> Outcome {
    match advance(&mut machine, slot) {
        Ahead::End(outcome) => outcome,
        ahead => unreachable!("{ahead:?} is nothing a holder asks"),
    }
}

/// What a machine asks of others than the memory.
#[derive(Debug)]
enum Ahead {
    Sleep { seen: Word, place: Place },
    IsHungry,
    Stand(OwnerId),
    Judge(OwnerId),
    End(Outcome),
}

/// Does what the machine asks for in the slot, until it asks for something else.
fn advance(machine: &mut impl Machine, slot: &Slot) -> Ahead {
    loop {
        #[cfg(test)]
        super::step::reached(machine.step());
        let answer = match machine.op() {
            Op::Load => Answer::Word(Word::from_bits(slot.word.load(Ordering::SeqCst))),
            Op::Swap { from, to } => Answer::Word(swap(slot, from, to)),
            Op::LoadHeir => Answer::Heir(Heir::from_bits(slot.heir.load(Ordering::SeqCst))),
            Op::Unseat { from } => Answer::Heir(swap_heir(slot, from, Heir::NONE)),
            Op::Stamp => {
                slot.reserved_ms.store(milliseconds(), Ordering::Relaxed);
                Answer::Done
            }
            Op::HasLapsed => Answer::Yes(has_lapsed(slot)),
            Op::Pause(pauses) => {
                (0..pauses).for_each(|_| hint::spin_loop());
                Answer::Done
            }
            Op::Wake(Whom::Heir) => Answer::Yes(futex::wake(&slot.word, futex::HEIR, 1)),
            Op::Wake(Whom::Anyone) => Answer::Yes(futex::wake(&slot.word, futex::ALL, 1)),
            Op::Sleep { seen, place } => return Ahead::Sleep { seen, place },
            Op::IsHungry => return Ahead::IsHungry,
            Op::Stand(me) => return Ahead::Stand(me),
            Op::Judge(owner) => return Ahead::Judge(owner),
            Op::End(outcome) => return Ahead::End(outcome),
        };
        machine.heard(answer);
    }
}

fn judge<P: Presences>(presences: &P, owner: OwnerId, kept: &mut Kept) -> Result<Verdict, Stop> {
    let verdict = presences.verdict(owner, kept);
    match verdict {
        Verdict::Dead => presences.check_mapped().map_err(Stop::Failed)?,
        Verdict::Unknown => presences.check_may_look(owner).map_err(Stop::Failed)?,
        Verdict::Alive | Verdict::Missing => {}
    }
    Ok(verdict)
}

/// What the word was; `from` if it is `to` now.
fn swap(slot: &Slot, from: Word, to: Word) -> Word {
    let ordering = Ordering::SeqCst;
    let swapped = slot.word.compare_exchange(from.bits(), to.bits(), ordering, ordering);
    Word::from_bits(swapped.unwrap_or_else(|found| found))
}

fn swap_heir(slot: &Slot, from: Heir, to: Heir) -> Heir {
    let ordering = Ordering::SeqCst;
    let swapped = slot.heir.compare_exchange(from.bits(), to.bits(), ordering, ordering);
    Heir::from_bits(swapped.unwrap_or_else(|found| found))
}

/// Two processes' clocks may differ (time namespaces), so a time too far ahead has lapsed too.
fn has_lapsed(slot: &Slot) -> bool {
    let age = milliseconds().wrapping_sub(slot.reserved_ms.load(Ordering::Relaxed)) as i32;
    age.unsigned_abs() > LAPSE_MS
}

fn milliseconds() -> u32 {
    (clock::now().as_nanos() / 1_000_000) as u32
}

/// What an end means that is neither the lock nor a plain no.
#[cold]
fn stop(outcome: Outcome) -> Stop {
    let text = match outcome {
        Outcome::Unsettled(word) => return Stop::Unsettled(word),
        Outcome::Absent(word) => format!(
            "its holder, process {} of this directory, has no presence file any more, so nobody \
             can tell whether it is alive; stop every process that uses the directory, then \
             remove it",
            word.owner().map_or(0, OwnerId::get)
        ),
        Outcome::OurOwn => "it names this process as its holder, which does not hold it; \
                            somebody wrote into the table"
            .to_owned(),
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
        (LockErrorKind::Damaged, "the table was cut off under this process; restart it")
    } else {
        (LockErrorKind::Io, "cannot wait for the lock")
    };
    LockError::new(kind, text).with_source(io::Error::from(error))
}
