//! One attempt of a name at a time.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use crate::name::Name;

/// The names that attempts are made of.
#[derive(Default)]
pub(super) struct NameSlots(Arc<Mutex<HashMap<Name, WantedSlot>>>);

/// Shared by all attempts of a name.
struct WantedSlot {
    turn: Arc<tokio::sync::Mutex<()>>,
    wanted: usize,
}

/// A wish to be the one attempt of a name.
pub(super) struct SlotTurn {
    slots: Arc<Mutex<HashMap<Name, WantedSlot>>>,
    name: Name,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// The one attempt of a name, or what it has left behind.
pub(super) struct NameSlot {
    _guard: OwnedMutexGuard<()>,
    /// Counted until the guard is gone.
    _turn: SlotTurn,
}

impl NameSlots {
    pub(super) fn of(&self, name: &Name) -> SlotTurn {
        SlotTurn::new(&self.0, name)
    }
}

impl SlotTurn {
    fn new(slots: &Arc<Mutex<HashMap<Name, WantedSlot>>>, name: &Name) -> SlotTurn {
        let mut known = slots.lock();
        let make = || WantedSlot { turn: Arc::default(), wanted: 0 };
        let slot = known.entry(name.clone()).or_insert_with(make);
        slot.wanted += 1;
        SlotTurn { slots: slots.clone(), name: name.clone(), turn: slot.turn.clone() }
    }

    /// Waits until no other attempt of the name is under way. It may be dropped.
    pub(super) async fn take(&self) -> NameSlot {
        let guard = self.turn.clone().lock_owned().await;
        NameSlot { _guard: guard, _turn: SlotTurn::new(&self.slots, &self.name) }
    }
}

impl Drop for SlotTurn {
    fn drop(&mut self) {
        let mut known = self.slots.lock();
        if let Some(slot) = known.get_mut(&self.name) {
            slot.wanted -= 1;
            if slot.wanted == 0 {
                known.remove(&self.name);
            }
        }
    }
}
