//! When keeping a lease pays.

#[cfg(any(feature = "host", feature = "testing", test))]
use super::Used;

/// A lease is kept after a few grants in a row for which no other session stood in the way, after one
/// that has paid at once, and after a recall that came too soon only after many more.
///
/// Whether another session had the name in between is not asked: tokens do not tell, since a name
/// that was forgotten goes on above all others. Where two sessions take turns a lease is kept now and
/// then, and ever more seldom.
#[derive(Debug)]
pub(super) struct KeepPolicy {
    /// Grants in a row that no other session stood in the way of.
    streak: u32,
    /// How many it takes.
    needed: u32,
}

/// Grants in a row before a lease is kept, at first and at most.
const STREAK_MIN: u32 = 3;
#[cfg(any(feature = "host", feature = "testing", test))]
const STREAK_MAX: u32 = 192;
/// So many local locks pay for a recall.
#[cfg(any(feature = "host", feature = "testing", test))]
const WORTH_IT: u64 = 16;

impl Default for KeepPolicy {
    fn default() -> Self {
        KeepPolicy { streak: 0, needed: STREAK_MIN }
    }
}

impl KeepPolicy {
    pub(super) fn is_wanted(&self) -> bool {
        self.streak >= self.needed
    }

    pub(super) fn granted(&mut self, had_to_queue: bool) {
        self.streak = if had_to_queue { 0 } else { self.streak.saturating_add(1) };
    }

    #[cfg(any(feature = "host", feature = "testing", test))]
    pub(super) fn gone(&mut self, used: &Used) -> bool {
        let has_paid = used.local_grants >= WORTH_IT;
        let is_too_soon = used.is_recalled && !has_paid;
        self.needed = if is_too_soon { (self.needed * 4).min(STREAK_MAX) } else { STREAK_MIN };
        self.streak = if has_paid { self.needed } else { 0 };
        is_too_soon
    }
}
