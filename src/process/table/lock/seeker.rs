//! A taker of a slot, one turn at a time: it never blocks, and says what it waits for.

use std::{sync::atomic::Ordering, time::Duration};

use super::{
    super::{
        ends::EndHint,
        protocol::{Answer, Machine as _, Outcome, SPINS, Slept, Taking, Verdict},
        slot::MappedSlot,
        word::{OwnerId, SlotState, WaitId, Word},
    },
    Ahead, FIRST_NAP, Kept, LONGEST_NAP, NAP_PART, PATIENCE, PresenceView, SlotAt, SlotWon, Stop,
    advance, entered, entered_quietly, judge, raise_token, stop, time_left,
};
use crate::{
    clock,
    process::{SlotWish, sys::futex, table::marks::Marks},
    time::Time,
};

/// What a waiter needs next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum SeekerTurn {
    /// Sleep while the low half of the slot's word is `seen`'s, at most so long, and tell it how
    /// that ended.
    Sleep {
        seen: Word,
        longest: Duration,
        record: Option<WaitId>,
    },
    /// The task is to be polled, and [`polled`](Seeker::polled) to be told.
    Park,
    Won(SlotWon),
    WouldBlock,
    GaveUp,
}

/// A taker of a slot, one turn at a time.
pub(in super::super) struct Seeker {
    taking: Taking,
    generation: u32,
    wish: SlotWish,
    kept: Kept,
    /// When it found that it has to wait.
    pub(super) since: Option<Time>,
    /// What the slot's token was raised to, off the quiet way.
    token: Option<u64>,
    /// Wakes it when the process ends that it waits for.
    hint: Hint,
}

/// Of which process the end is hinted at.
#[derive(Default)]
enum Hint {
    #[default]
    None,
    /// It cannot be.
    NotOf(OwnerId),
    Of(EndHint),
}

impl Hint {
    fn owner(&self) -> Option<OwnerId> {
        match self {
            Hint::None => None,
            Hint::NotOf(owner) => Some(*owner),
            Hint::Of(hint) => Some(hint.owner()),
        }
    }

    fn has_come(&self) -> bool {
        matches!(self, Hint::Of(hint) if hint.has_come())
    }
}

impl Seeker {
    pub(in super::super) fn new(me: OwnerId, generation: u32, waits: bool) -> Seeker {
        Seeker::of(Taking::new(me, waits, SPINS), generation)
    }

    /// A taker that waits for a task.
    pub(in super::super) fn for_task(me: OwnerId, generation: u32) -> Seeker {
        Seeker::of(Taking::for_task(me, SPINS), generation)
    }

    fn of(taking: Taking, generation: u32) -> Seeker {
        let (kept, since, token) = (None, None, None);
        Seeker {
            taking,
            generation,
            wish: SlotWish::default(),
            kept,
            since,
            token,
            hint: Hint::None,
        }
    }

    /// The same, as one that waits so.
    pub(in super::super) fn with(self, wish: SlotWish) -> Seeker {
        Seeker { wish, ..self }
    }

    /// Goes on until there is nothing to do but to sleep. Never blocks.
    pub(in super::super) fn go_on<P: PresenceView>(
        &mut self,
        at: SlotAt<'_>,
        presences: &P,
    ) -> Result<SeekerTurn, Stop> {
        loop {
            let answer = match advance(&mut self.taking, at, None) {
                // A process that ended before it was watched is found by this look.
                Ahead::Sleep { seen, .. } if self.asks_for_hint(at, presences, seen) => {
                    Answer::Slept(Slept::ByItself)
                }
                Ahead::Sleep { seen, record } => {
                    return Ok(SeekerTurn::Sleep {
                        seen,
                        longest: self.longest_nap(at, seen),
                        record,
                    });
                }
                Ahead::Park => return Ok(SeekerTurn::Park),
                Ahead::IsHungry => Answer::Yes(self.is_hungry(at.slot)),
                Ahead::Enlist => Answer::Wait(self.enlist(at, presences)),
                Ahead::FillIn(wait) => {
                    let since = self.since.unwrap_or_else(clock::now);
                    at.table.fill_in(wait, at.number, since, self.wish);
                    Answer::Done
                }
                Ahead::RaiseToken => {
                    self.token = Some(raise_token(at.slot));
                    Answer::Done
                }
                Ahead::Judge(owner) => match judge(presences, owner, &mut self.kept) {
                    Ok(verdict) => Answer::Verdict(verdict),
                    Err(stop) => {
                        self.abandon(at);
                        return Err(stop);
                    }
                },
                Ahead::End(outcome) => return self.ended(outcome, at),
                ahead @ Ahead::SleepOnBell(_) => unreachable!("{ahead:?} of a taker"),
            };
            self.taking.heard(answer);
        }
    }

    /// What the word was when the fast path found it taken.
    pub(super) fn found(&mut self, found: Word) {
        self.taking.heard(Answer::Word(found));
    }

    /// How the sleep it asked for ended.
    pub(in super::super) fn slept(&mut self, slept: Slept) {
        let slept = match slept {
            // No other wake says what this one does: its owner may be dead.
            Slept::Woken if self.is_hinted() => Slept::ByItself,
            slept => slept,
        };
        self.taking.heard(Answer::Slept(slept));
    }

    /// Whether the process that it waits for is said to have ended.
    pub(in super::super) fn is_hinted(&self) -> bool {
        self.hint.has_come()
    }

    /// The task that it waits for is polled.
    pub(in super::super) fn polled(&mut self) {
        self.taking.heard(Answer::Polled);
    }

    /// Ends it without the lock: its record does not stay, and what was reserved for it goes to
    /// another.
    pub(in super::super) fn abandon(&mut self, at: SlotAt<'_>) {
        self.taking.give_up();
        match advance(&mut self.taking, at, None) {
            Ahead::End(Outcome::GaveUp) => {}
            ahead => unreachable!("{ahead:?} of one that gives up"),
        }
    }

    /// Whether the name that is waited for is still in this slot.
    pub(in super::super) fn is_in_place(&self, slot: &MappedSlot) -> bool {
        slot.generation.load(Ordering::Acquire) == self.generation
    }

    fn ended(&mut self, outcome: Outcome, at: SlotAt<'_>) -> Result<SeekerTurn, Stop> {
        match (outcome, self.token) {
            (Outcome::Won(left), Some(token)) => {
                entered(at, self.taking.me(), self.generation, SlotWon { left, token })
                    .map(SeekerTurn::Won)
            }
            (Outcome::Won(_), None) => {
                entered_quietly(at, self.taking.me(), self.generation).map(SeekerTurn::Won)
            }
            // The word may be another name's by now.
            _ if !self.is_in_place(at.slot) => Err(Stop::Moved),
            (Outcome::WouldBlock, _) => Ok(SeekerTurn::WouldBlock),
            (Outcome::GaveUp, _) => Ok(SeekerTurn::GaveUp),
            (outcome, _) => Err(stop(outcome)),
        }
    }

    fn is_hungry(&mut self, slot: &MappedSlot) -> bool {
        let now = clock::now();
        let since = *self.since.get_or_insert_with(|| {
            note_holder(slot, now);
            now
        });
        now.since(self.wish.arrived.unwrap_or(since)) >= PATIENCE
    }

    /// How long it waits on before it may have a record, if it is to.
    fn patience_left(&self, now: Time) -> Option<Duration> {
        let since = self.wish.arrived.or(self.since)?;
        PATIENCE.checked_sub(now.since(since)).filter(|left| !left.is_zero())
    }

    fn enlist<P: PresenceView>(&self, at: SlotAt<'_>, presences: &P) -> Option<WaitId> {
        let me = self.taking.me();
        let free = at.table.enlist(me).or_else(|| {
            presences.make_room();
            at.table.enlist(me)
        });
        // What cannot be proved here is another look's business.
        let mut is_dead = |owner| matches!(judge(presences, owner, &mut None), Ok(Verdict::Dead));
        free.or_else(|| at.table.enlist_after_dead(me, &mut is_dead))
    }

    /// Whether it has just asked to be woken at the end of the process that it waits for.
    fn asks_for_hint<P: PresenceView>(
        &mut self,
        at: SlotAt<'_>,
        presences: &P,
        seen: Word,
    ) -> bool {
        let waits_long = self.since.is_some_and(|since| clock::now().since(since) >= FIRST_NAP);
        let Some(kept) = at.kept.filter(|_| waits_long) else { return false };
        let owner = match seen.reserved_for() {
            Some(wait) => at.table.record_word(wait.number()).owner(),
            None => seen.owner(),
        };
        let Some(owner) = owner.filter(|owner| *owner != self.taking.me()) else { return false };
        if self.hint.owner() == Some(owner) {
            return false;
        }
        // The old one first: nothing is watched for a waiter that does not wait for it.
        self.hint = Hint::None;
        let bits = self.taking.record().map_or(futex::ALL, |wait| futex::bit(wait.number()));
        let hint = presences.hint_at_end(owner, kept, bits);
        let asked = hint.is_some();
        self.hint = hint.map_or(Hint::NotOf(owner), Hint::Of);
        asked
    }

    /// How long it may sleep before it looks again.
    fn longest_nap(&self, at: SlotAt<'_>, seen: Word) -> Duration {
        let now = clock::now();
        let waited = self.since.map(|since| now.since(since));
        let nap = nap_after(waited.unwrap_or_default());
        let nap = match seen.state() {
            // Its wait may be late before that.
            Some(SlotState::Reserved(wait)) => nap.min(time_left(at, wait, now)),
            Some(SlotState::Staying(end)) => {
                let left = end.milliseconds().saturating_sub(now.as_millis());
                nap.min(Duration::from_millis(left.max(1)))
            }
            _ => nap,
        };
        // None sleeps past the moment when it may have a record.
        self.patience_left(now).map_or(nap, |left| left.min(nap))
    }
}

/// How long a waiter that has waited for so long sleeps at most before it looks again: ever longer. What
/// it waits for is watched besides, and a look is for what no watch tells.
pub(super) fn nap_after(waited: Duration) -> Duration {
    (waited / NAP_PART).clamp(FIRST_NAP, LONGEST_NAP)
}

/// A waiter sees the holder: since when it holds the lock is known from now on.
fn note_holder(slot: &MappedSlot, now: Time) {
    let word = Word::from_bits(slot.word.load(Ordering::Relaxed));
    if matches!(word.state(), Some(SlotState::Held(_))) {
        Marks::note_held(slot, slot.token.load(Ordering::Relaxed), now);
    }
}
