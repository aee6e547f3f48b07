//! What a run has seen.

use std::{fmt, ops::AddAssign};

macro_rules! tally {
    ($($field:ident),* $(,)?) => {
        /// How often what happened.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub(crate) struct Tally {
            $(pub(crate) $field: u64,)*
        }

        impl AddAssign for Tally {
            fn add_assign(&mut self, other: Tally) {
                $(self.$field += other.$field;)*
            }
        }

        impl fmt::Display for Tally {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let fields = [$((stringify!($field), self.$field)),*];
                for (at, (field, count)) in fields.into_iter().enumerate() {
                    let between = if at == 0 { "" } else { ", " };
                    write!(f, "{between}{} {count}", field.replace('_', " "))?;
                }
                Ok(())
            }
        }
    };
}

tally! {
    steps, grants, refusals, cancels, losses, expiries, breaks, restarts, reclaims, gone,
    reconnects, pauses, stalls, cuts, silences, kills, goodbyes, disk_failures, checks, faults,
    reservations, keeps, local_grants, recalls, top_ups, idle_returns, warnings, restores,
    starts_above, histories_met, raised_above, unwritten, kept_shares, conversions, refused_upgrades, told_observers, take_overs, step_downs,
    hand_overs, journal_operations, journal_losses, members_killed,
    writes_lost, log_leads, snapshots, disks_admitted, disks_put_back,
}

/// What everything that happened comes to: equal runs have equal digests.
#[derive(Clone, Copy)]
pub(crate) struct Digest(u64);

impl Default for Digest {
    fn default() -> Digest {
        Digest(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    pub(crate) fn add(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }

    pub(crate) fn add_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
        self.add(bytes.len() as u64);
    }

    pub(crate) fn value(self) -> u64 {
        self.0
    }
}
