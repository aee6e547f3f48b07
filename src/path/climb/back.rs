//! The way back down, of a climb that gave up or failed.

use super::Climb;
use crate::{
    error::Predecessor,
    fork,
    host::lease_word::Claim,
    path::{
        quiet::HostTier,
        right::{LEASE, SHARED_LEASE, SLOT, THREAD, short},
    },
    scope::Scope,
};
#[cfg(feature = "process")]
use crate::{path::LockMode, process::SlotWish};

impl<'a> Climb<'a> {
    /// Gives everything back as it was found.
    pub(super) fn go_back(&mut self) {
        if !self.end_turn() {
            self.held.forget();
        }
        self.get_up();
        let named = self.named;
        named.leave_cell(&mut self.held);
        named.stop_sharing(&mut self.held);
        if let Some(word) = self.asked_word.take()
            && let Some(tier) = named.host_tier()
            && let Some(used) = word.give_up_reserved()
        {
            tier.service.give_back(&word, &used);
        }
        if let Some(tier) = named.host_tier() {
            if self.held.remove(SHARED_LEASE) {
                tier.leave_shared();
            } else if self.held.remove(LEASE) {
                tier.leave_unused(self.held.token, self.held.predecessor());
            } else if self.goal == Scope::Host && self.held.has(THREAD) {
                self.give_up_word(tier);
            }
        }
        self.release_slot();
        self.leave_turnstile(self.found_thread);
    }

    /// The representative goes: it leaves no mark and no reservation at the lease word, and what the
    /// slot had to tell to the next holder.
    fn give_up_word(&self, tier: HostTier<'_>) {
        let has_mark = self.has_grant && self.found_slot != Predecessor::Clean;
        if has_mark {
            match tier.word.claim() {
                Claim::Entered(entered) => {
                    return tier.leave_unused(entered.token, self.found_slot);
                }
                Claim::UsedUp(used) => return tier.give_back(&used),
                Claim::Closed(_) | Claim::Held => {}
            }
        }
        if let Some(used) = tier.word.give_up() {
            tier.give_back(&used);
        }
    }

    pub(super) fn release_slot(&mut self) {
        if self.held.remove(SLOT) {
            #[cfg(feature = "process")]
            if let Some(slot) = self.named.entry.slot() {
                slot.release(self.found_slot);
            }
        }
    }

    // ---- small things ------------------------------------------------------------------------

    /// Tells how the previous holder left: the widest tier that has something to tell tells it.
    pub(super) fn tell(&mut self, predecessor: Predecessor) {
        if predecessor != Predecessor::Clean {
            self.held.set_predecessor(predecessor);
        }
    }

    /// How it waits at the slot.
    #[cfg(feature = "process")]
    pub(super) fn wish(&self) -> SlotWish {
        let permits = match self.mode {
            LockMode::Permits(permits) => permits.count,
            _ => 0,
        };
        SlotWish { shares: self.mode.shares(), permits, arrived: self.since }
    }

    #[cfg(feature = "process")]
    pub(super) fn label(&self) -> &'a str {
        &self.named.reach.label
    }

    pub(super) fn generation(&self) -> u32 {
        short(fork::generation())
    }
}
