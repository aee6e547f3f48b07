//! Sharing a slot: does in shared memory what `protocol::sharing` asks for.
//!
//! | call | by | what it does |
//! |---|---|---|
//! | [`read`] | any thread, at any time | comes in past the word: one compare-and-swap of its process's record, one look at the word |
//! | [`read_under_the_word`] | the holder | the same, while it holds the word: then it releases that |
//! | [`count_permits`] | the holder | counts permits while it holds the word: then it releases that |
//! | [`unshare`] | a reader, a holder of permits, any thread of its process | leaves: one compare-and-swap; the last reader wakes a writer, each permit its waiter |
//! | [`WriterDrain`] | the holder | waits until no reader is inside, or permits are free, and clears the counts of dead processes |
//! | [`mark`] | the holder | lets readers in beside it, or no more of them |
//!
//! The record is this process's alone ([`Own`]), made when the process first reads the name.

use std::{sync::atomic::Ordering::*, time::Duration};

use rustix::io::Errno;

use crate::{
    clock,
    error::{LockError, LockErrorKind, LostReason, Predecessor},
    mode::{Room, Share},
    process::sys::futex,
    time::Time,
};

use super::super::{Drain, dir::home::damaged};
use super::{
    chain::{ring, swap_share},
    layout::ShareRecord,
    lock::{Ahead, Kept, LostHold, PresenceView, SlotAt, Stop, advance, cannot_sleep, judge, run},
    map::Cell,
    protocol::{
        Answer, Draining, Machine, Marking, Outcome, Reading, Slept, SlotMark, Unsharing, Way,
    },
    share::{Generation, ShareWord},
    slot::MappedSlot,
    step::step,
    word::{OwnerId, Word},
};

/// This process's share record of one slot.
pub(super) struct Own {
    number: u32,
    record: Cell<ShareRecord>,
}

impl Own {
    pub(super) fn new(number: u32, record: Cell<ShareRecord>) -> Own {
        Own { number, record }
    }

    /// Whether the record still bears the id of this process. If not, this process was taken for
    /// dead while it lived, and its readers are not counted any more.
    pub(super) fn is_of(&self, me: OwnerId) -> bool {
        ShareWord::from_bits(self.record.word.load(SeqCst)).is_of(me)
    }

    /// Whether it is the only one of its name and counts none, for the holder of a slot that shows this
    /// beside its generation: three loads, where a chain takes a look-up for each of its records.
    #[inline]
    pub(super) fn is_alone(&self, me: OwnerId, with_head: u64) -> bool {
        Generation::head_in(with_head) == Some(self.number)
            && self.record.next.load(SeqCst) == 0
            && self.record.word.load(SeqCst) == ShareWord::of(me).bits()
    }

    /// Counts no reader any more: those that this process still counts were forgotten.
    pub(super) fn forget_readers(&self, slot: &MappedSlot, me: OwnerId) {
        self.replace(slot, me, ShareWord::of(me));
    }

    /// Nor is the record this process's any more, which uses the table no longer.
    pub(super) fn leave(&self, me: OwnerId) {
        let mut found = ShareWord::from_bits(self.record.word.load(SeqCst));
        while found.is_of(me) {
            match swap_share(&self.record, found, ShareWord::FREE) {
                done if done == found => return,
                other => found = other,
            }
        }
    }

    /// The only reader of this process is counted as one of `to` from now on, which is a presence of
    /// this process; whether there was one.
    #[cfg(feature = "cli")]
    pub(super) fn move_one(&self, me: OwnerId, to: OwnerId) -> bool {
        let mut found = ShareWord::from_bits(self.record.word.load(SeqCst));
        while found.is_of(me) && found.count() == 1 {
            match swap_share(&self.record, found, found.moved(to)) {
                done if done == found => return true,
                other => found = other,
            }
        }
        false
    }

    /// Gives the record up with all that it counts for this owner, and wakes whatever waits for that.
    pub(super) fn leave_and_ring(&self, slot: &MappedSlot, owner: OwnerId) {
        self.replace(slot, owner, ShareWord::FREE);
    }

    fn replace(&self, slot: &MappedSlot, me: OwnerId, with: ShareWord) {
        let mut found = ShareWord::from_bits(self.record.word.load(SeqCst));
        while found.is_of(me) && found != with {
            match swap_share(&self.record, found, with) {
                done if done == found => {
                    ring(&slot.bell);
                    futex::wake_all_on(&slot.bell);
                    return;
                }
                other => found = other,
            }
        }
    }
}

/// Comes in as a reader: how the last holder left. `None` leaves everything as it was.
#[inline]
pub(super) fn read(at: SlotAt<'_>, own: &Own, me: OwnerId, way: Way) -> Option<Predecessor> {
    step!(ReadLoad);
    let found = ShareWord::from_bits(own.record.word.load(Relaxed));
    let added = found.added(Share::Reader).filter(|_| found.is_of(me))?;
    step!(ReadAdd);
    if swap_share(&own.record, found, added) != found {
        return read_slow(at, own, me, way);
    }
    step!(ReadLook);
    if way == Way::UnderTheWord {
        step!(ReadEnd);
        return Some(Predecessor::Clean);
    }
    let word = Word::from_bits(at.slot.word.load(SeqCst));
    if word.admits_readers(way == Way::Beside) {
        step!(ReadEnd);
        return Some(word.left());
    }
    // Not silently: a writer that saw it would sleep for ever. If it is lost, it is not counted any
    // more.
    let _ = unshare_slow(at, own, me, Share::Reader);
    None
}

#[cold]
fn read_slow(at: SlotAt<'_>, own: &Own, me: OwnerId, way: Way) -> Option<Predecessor> {
    match run(at, Reading::new(me, own.number, way), None) {
        Outcome::Won(left) => Some(left),
        _ => None,
    }
}

/// Counts permits, for the holder of the word, which has found room for them. Whether it did.
pub(super) fn count_permits(at: SlotAt<'_>, own: &Own, me: OwnerId, count: u32) -> bool {
    matches!(run(at, Reading::permits(me, own.number, count), None), Outcome::Won(_))
}

/// Takes back what an entry counted.
#[inline]
pub(super) fn unshare(
    at: SlotAt<'_>,
    own: &Own,
    me: OwnerId,
    share: Share,
) -> Result<(), LostHold> {
    step!(UnreadLoad);
    let found = ShareWord::from_bits(own.record.word.load(Relaxed));
    if found.is_of(me)
        && !found.rings(share)
        && let Some(left) = found.subtracted(share)
    {
        step!(UnreadSubtract);
        if swap_share(&own.record, found, left) == found {
            step!(UnreadEnd);
            return Ok(());
        }
    }
    unshare_slow(at, own, me, share)
}

#[cold]
fn unshare_slow(at: SlotAt<'_>, own: &Own, me: OwnerId, share: Share) -> Result<(), LostHold> {
    match run(at, Unsharing::new(me, own.number, share), None) {
        Outcome::Released => Ok(()),
        _ => Err(LostHold),
    }
}

/// Marks a word that this process holds, or takes the mark out of it. Where it lets readers in,
/// every sleeper looks.
pub(super) fn mark(at: SlotAt<'_>, me: OwnerId, mark: SlotMark) -> Result<(), LostHold> {
    match run(at, Marking::new(me, mark), None) {
        Outcome::Marked => {}
        _ => return Err(LostHold),
    }
    if matches!(mark, SlotMark::Readable(_)) {
        futex::wake(&at.slot.word, futex::ALL, u32::MAX >> 1);
    }
    Ok(())
}

/// The holder of a word, while there is no room beside readers or permits.
pub(super) struct WriterDrain {
    draining: Draining,
    kept: Kept,
    /// When it found that it has to wait.
    since: Option<Time>,
}

/// No writer sleeps longer without looking at the presences of those that share, but for one that
/// has waited for a while: a part of that.
const FIRST_NAP: Duration = Duration::from_millis(3);
const NAP_PART: u32 = 32;
const LONGEST_NAP: Duration = Duration::from_millis(100);

impl WriterDrain {
    pub(super) fn new(me: OwnerId, room: Room, waits: bool) -> WriterDrain {
        WriterDrain { draining: Draining::new(me, room, waits), kept: None, since: None }
    }

    /// Goes on until there is nothing to do but to sleep. Never blocks.
    pub(super) fn go_on<P: PresenceView>(
        &mut self,
        at: SlotAt<'_>,
        presences: &P,
    ) -> Result<Drain, Stop> {
        loop {
            let answer = match advance(&mut self.draining, at, None) {
                Ahead::Judge(owner) => Answer::Verdict(judge(presences, owner, &mut self.kept)?),
                Ahead::SleepOnBell(bell) => {
                    return Ok(Drain::Sleep { bell, longest: self.longest_nap() });
                }
                Ahead::End(Outcome::Drained) => return Ok(Drain::Drained),
                Ahead::End(Outcome::WouldBlock) => return Ok(Drain::Full),
                Ahead::End(Outcome::Lost) => {
                    return Err(Stop::Failed(LockError::lost(LostReason::Broken)));
                }
                Ahead::End(outcome) => return Err(stop(outcome)),
                ahead => unreachable!("{ahead:?} is nothing that a writer asks"),
            };
            self.draining.heard(answer);
        }
    }

    /// Blocks while the bell is this, at most so long.
    pub(super) fn sleep(
        &mut self,
        slot: &MappedSlot,
        bell: u32,
        longest: Duration,
    ) -> Result<(), Stop> {
        let slept = match futex::sleep_on(&slot.bell, bell, longest) {
            Ok(()) => Slept::Woken,
            Err(Errno::AGAIN) => Slept::Changed,
            Err(Errno::TIMEDOUT | Errno::INTR) => Slept::ByItself,
            Err(error) => return Err(Stop::Failed(cannot_sleep(error))),
        };
        self.slept(slept);
        Ok(())
    }

    /// How the sleep it asked for ended.
    pub(super) fn slept(&mut self, slept: Slept) {
        self.draining.heard(Answer::Slept(slept));
    }

    fn longest_nap(&mut self) -> Duration {
        let now = clock::now();
        let waited = now.since(*self.since.get_or_insert(now));
        (waited / NAP_PART).clamp(FIRST_NAP, LONGEST_NAP)
    }
}

#[cold]
fn stop(outcome: Outcome) -> Stop {
    let text = match outcome {
        Outcome::ShareAbsent(word) => format!(
            "process {} of this directory shares it and has no presence file any more, so it cannot \
             be told whether it is alive; stop every process that uses the directory, then remove it",
            word.owner().map_or(0, OwnerId::get)
        ),
        Outcome::ShareNonsense(word) => {
            format!("its share record is {:#x}, which no lock wrote", word.bits())
        }
        Outcome::SharesBroken => "its share records lead outside of the table".to_owned(),
        outcome => unreachable!("{outcome:?} is no failure"),
    };
    Stop::Failed(damaged(text))
}

/// This process was taken for dead while it lived: its readers are not counted any more.
#[cold]
pub(super) fn uncounted() -> LockError {
    LockError::new(
        LockErrorKind::Damaged,
        "this process was taken for dead while it lived, and its readers and permits are not counted any \
         more; restart it",
    )
}
