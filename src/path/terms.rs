//! A mutex's terms, and how a holder learns of its loss: `at_most`, `at_least`, deadlines, watches.

use std::sync::Arc;

use crate::{
    alarm, clock,
    error::{LostReason, Predecessor},
    host::lease_word::LeaseWord,
    scope::Scope,
    time::Time,
    watch::Watch,
};

use super::{
    named::Named,
    quiet::HostTier,
    right::{Held, LEASE, SHARED_LEASE},
};

impl Named {
    /// `at_most` below host scope, and the start of `at_least`.
    pub(super) fn start_terms(&self, held: &mut Held) {
        let now = clock::now();
        let scope = held.scope();
        // At host scope the service remembers `at_least`.
        let is_remembered = scope >= Scope::Host
            || self.remember_until(self.at_least.map(|at_least| now + at_least), held);
        let more = held.more_mut();
        more.since = (!is_remembered).then_some(now);
        if let Some(at_most) = self.at_most
            && scope < Scope::Host
        {
            let end = now + at_most;
            let watch = Arc::new(Watch::new(None, Some(end)));
            let told = watch.clone();
            more.alarm = Some(alarm::call_at(end, move || {
                told.lost();
            }));
            more.watch = Some(watch);
        }
    }

    /// Until when `at_least` keeps the lock, though the guard is gone, where only this process
    /// remembers it.
    pub(super) fn stays_until(&self, held: &Held) -> Option<Time> {
        let until = held.more()?.since? + self.at_least?;
        (until > clock::now()).then_some(until)
    }

    /// Has the slot remember until when `at_least` keeps the lock, whatever becomes of its holder:
    /// whether it does. `None` ends that.
    pub(super) fn remember_until(&self, end: Option<Time>, held: &Held) -> bool {
        #[cfg(feature = "process")]
        if self.at_least.is_some()
            && held.scope() == Scope::Process
            && held.has(super::right::SLOT)
            && let Some(slot) = self.entry.slot()
        {
            slot.keep_until(end);
            return true;
        }
        let _ = (end, held);
        false
    }

    /// Why the right is lost, if it is.
    pub(crate) fn lost(&self, held: &Held) -> Option<LostReason> {
        match self.lease_of(held) {
            Some(tier) => word_of(tier, held).lost_by(clock::now),
            None => held.watch().and_then(|watch| watch.lost()).or_else(|| self.uncounted(held)),
        }
    }

    /// Until when it is good without a further word.
    pub(crate) fn deadline(&self, held: &Held) -> Time {
        match self.lease_of(held) {
            Some(tier) => word_of(tier, held).deadline(),
            None => held.watch().map_or(Time::NEVER, |watch| watch.deadline()),
        }
    }

    /// What tells its loss; `None` if it cannot be lost. A reader keeps what it is given, and is given
    /// it once: see [`end_reader_watch`](Named::end_reader_watch).
    pub(crate) fn watch(&self, held: &Held) -> Option<Arc<Watch>> {
        match self.lease_of(held) {
            Some(tier) if held.has(SHARED_LEASE) => Some(word_of(tier, held).watch_for_reader()),
            Some(tier) => Some(tier.word.watch()),
            None => held.watch().cloned(),
        }
    }

    /// Whether [`watch`](Named::watch) makes one for this guard alone.
    pub(crate) fn has_own_watch(&self, held: &Held) -> bool {
        held.has(SHARED_LEASE)
    }

    /// A reader that has asked to be told of its loss leaves.
    pub(crate) fn end_reader_watch(&self, held: &Held, watch: &Arc<Watch>) {
        if let Some(tier) = self.lease_of(held) {
            word_of(tier, held).end_reader_watch(watch);
        }
    }

    /// The lease that a guard has.
    pub(super) fn lease_of(&self, held: &Held) -> Option<HostTier<'_>> {
        self.host_tier().filter(|_| held.has(LEASE | SHARED_LEASE))
    }
}

/// The word of what is held: the name's, or that of permits.
fn word_of<'a>(tier: HostTier<'a>, held: &'a Held) -> &'a LeaseWord {
    held.leased().map_or(tier.word, |leased| &leased.word)
}

impl Held {
    /// No loss is told any more. What is returned may be foreign code, to be dropped when nothing
    /// is held.
    pub(super) fn end_watch(&mut self) -> impl Sized + use<> {
        self.more()?;
        let more = self.more_mut();
        let callbacks = more.watch.as_ref().map(|watch| watch.release());
        Some((more.alarm.take(), callbacks))
    }

    /// How it is left below host scope: a holder that was told that it had held for too long left
    /// so.
    pub(super) fn left(&self, how: Predecessor) -> Predecessor {
        match self.watch().and_then(|watch| watch.told()) {
            None | Some(LostReason::Broken) => how,
            Some(_) if how == Predecessor::Clean => Predecessor::Expired,
            Some(_) => how,
        }
    }
}
