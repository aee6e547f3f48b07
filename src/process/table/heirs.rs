//! What the only reader of a process leaves to others: the command of `tierlock run --shared`.
//!
//! Its share record goes over to a presence of its own, by one exchange of the record's word, so that
//! it is counted at every moment. Whatever has a descriptor of that presence reads on, also when the
//! process that came in has left or died.

#[cfg(feature = "cli")]
use std::{io, os::fd::OwnedFd};

use super::{Heirloom, NamePlace, sharing::Own};
#[cfg(feature = "cli")]
use super::{LatestMade, TableSlot};

#[cfg(feature = "cli")]
impl TableSlot {
    /// See `process::Slot::proof_of_sharing`.
    pub(in super::super) fn proof_of_sharing(&self) -> io::Result<OwnedFd> {
        let not_read = || io::Error::other("the lock is not read by this process's only reader");
        let place = self.places.so_far().map(LatestMade::get).ok_or_else(not_read)?;
        let own = place.own().ok_or_else(not_read)?;
        let mut heirloom = place.heirloom_of_reader();
        if heirloom.is_none() {
            let presence = place.member.second_presence().map_err(io::Error::other)?;
            if !own.move_one(place.member.id, presence.id) {
                place.member.end_presence(presence, false, |_| ());
                return Err(not_read());
            }
            *heirloom = Some(Heirloom { presence, given: false });
        }
        let heirloom = heirloom.as_mut().expect("it was made");
        let proof = heirloom.presence.heirloom()?;
        heirloom.given = true;
        Ok(proof)
    }
}

impl NamePlace {
    /// The reader leaves that was counted under a presence of its own, if there is one. If not, it is
    /// not counted any more.
    #[cold]
    pub(super) fn end_sharing(&self, own: &Own) {
        let Some(Heirloom { presence, given }) = self.heirloom_of_reader().take() else { return };
        self.member.end_presence(presence, given, |id| own.leave_and_ring(&self.slot, id));
    }
}
