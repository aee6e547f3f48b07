//! What the table says about its names, to people: without a lock, and without disturbing holders
//! or waiters.

use std::{cell::RefCell, collections::HashMap, sync::atomic::Ordering::*};

use crate::{
    clock,
    error::{Holder, LockError, Predecessor},
    name::Name,
    token::Token,
};

use super::super::{
    NameStatus, WaiterStatus,
    dir::{
        files::FileIdentity,
        home::{Home, damaged},
    },
};
use super::{
    lock,
    map::Loads,
    marks::Marks,
    presence::Presences,
    records::ShownWait,
    slot::MappedSlot,
    store::{self, MappedTable},
    word::{OwnerId, SlotState, Word},
};

/// Every name: its status, or what is wrong with its slot.
pub(super) fn inspect(home: &Home) -> Result<Vec<Result<NameStatus, LockError>>, LockError> {
    let survey = Survey::of(home)?;
    let used = survey.table.header().slots_used.seen();
    let mut found = Vec::new();
    for number in 0..used {
        let status = match survey.table.slot(number) {
            Ok(slot) => survey.status(number, slot),
            Err(error) => return Err(store::about(home, error)),
        };
        let about = |error| store::about(home, error);
        found.extend(status.map_err(about).transpose());
    }
    Ok(found)
}

/// The status of one name; `None`: it has no slot.
pub(super) fn look(home: &Home, name: &Name) -> Result<Option<NameStatus>, LockError> {
    Survey::of(home)?.find(name).map_err(|error| store::about(home, error))
}

/// So often a name is looked for that may be on its way into another chain.
const LOOKS: u32 = 3;

pub(super) struct Survey {
    pub(super) table: MappedTable,
    pub(super) presences: Presences,
    /// Every wait, by the number of its slot, in order.
    waits: HashMap<u32, Vec<ShownWait>>,
    /// A process may have thousands of names: each is looked at once.
    owners: RefCell<HashMap<OwnerId, SeenOwner>>,
}

/// What was found out about an owner when it was first met.
#[derive(Clone)]
struct SeenOwner {
    /// `None`: it has ended.
    living: Option<Holder>,
    proof: Option<FileIdentity>,
}

impl Survey {
    fn of(home: &Home) -> Result<Survey, LockError> {
        home.check()?;
        let Some(table) = MappedTable::open_to_look(home)? else {
            return Err(home.about(damaged("its table was removed")));
        };
        Ok(Survey::new(Presences::open(home)?, table))
    }

    pub(super) fn new(presences: Presences, table: MappedTable) -> Survey {
        let mut waits = HashMap::<_, Vec<_>>::new();
        for wait in table.shown_waits() {
            waits.entry(wait.slot).or_default().push(wait);
        }
        Survey { table, presences, waits, owners: RefCell::default() }
    }

    fn find(&self, name: &Name) -> Result<Option<NameStatus>, LockError> {
        for _ in 0..LOOKS {
            let Some(found) = self.table.find(name, self.table.hash(name))? else { continue };
            let status = self.status(found.number, self.table.slot(found.number)?)?;
            // Else the slot has been given to another name meanwhile.
            if let Some(status) = status.filter(|status| status.name == *name) {
                return Ok(Some(status));
            }
        }
        Ok(None)
    }

    /// `None`: no name is in the slot.
    pub(super) fn status(
        &self,
        number: u32,
        slot: &MappedSlot,
    ) -> Result<Option<NameStatus>, LockError> {
        let generation = slot.generation.seen();
        let name = self.table.name_of(slot);
        let (word, token) = (Word::from_bits(slot.word.seen()), slot.token.load(Relaxed));
        let marks = Marks::of(slot);
        let widened_by = word.is_wide().then(|| self.table.widened_by(slot));
        if slot.generation.seen() != generation {
            // Forgotten meanwhile.
            return Ok(None);
        }
        let Some(name) = name? else { return Ok(None) };
        let about = |error: LockError| error.with_name(&name);
        let token_of_slot = Token::new(token)
            .ok_or_else(|| about(damaged(format!("{token} is no token: it is 2^63 or more"))))?;
        let state = word.state().ok_or_else(|| {
            about(damaged(format!("its word is {:#x}, which no lock wrote", word.bits())))
        })?;
        let limit = marks.counts_permits().then(|| slot.limit.seen());
        let (holder, predecessor, stay) = match state {
            SlotState::Free | SlotState::Reserved(_) => (None, word.left(), None),
            SlotState::Staying(end) => (None, word.left(), Some(end)),
            SlotState::Held(owner) => match self.living(owner) {
                Some(holder) => {
                    if self.table.may_write() {
                        Marks::note_held(slot, token, clock::now());
                    }
                    (Some(held(holder, slot, token)), marks.before(token), None)
                }
                None => (None, marks.told(Predecessor::Died, token), lock::stay_ahead(slot)),
            },
            SlotState::Retiring(_) => (None, Predecessor::Clean, None),
        };
        let (sharers, share_proofs) = self.sharers(slot);
        let mut waiters = self.waiters(number);
        // Whatever has a semaphore's word waits in front, or is just passing.
        let (in_front, holder) = match limit {
            Some(_) => (holder, None),
            None => (None, holder),
        };
        if let Some(process) = in_front.filter(|_| word.drains()) {
            let waiting = process.held.unwrap_or_default();
            waiters.insert(0, WaiterStatus { process, waiting, shares: false, permits: None });
        }
        Ok(Some(NameStatus {
            name,
            token: token_of_slot,
            holder,
            stays_for: stay.and_then(lock::time_ahead),
            predecessor,
            widened_by,
            limit,
            sharers,
            share_proofs,
            waiters,
            proof: word.owner().and_then(|owner| self.owner(owner).proof),
            survivors: Vec::new(),
        }))
    }

    /// The living processes that share it, how much each has, and what proves them alive.
    fn sharers(&self, slot: &MappedSlot) -> (Vec<(Holder, u32)>, Vec<FileIdentity>) {
        let shares = self.table.shares_of(slot).unwrap_or_default().into_iter();
        let its = shares.filter(|share| share.count() > 0);
        let living = its.filter_map(|share| {
            let SeenOwner { living, proof } = self.owner(share.owner()?);
            Some(((living?, share.count()), proof))
        });
        let (sharers, proofs): (Vec<_>, Vec<_>) = living.unzip();
        (sharers, proofs.into_iter().flatten().collect())
    }

    /// Every wait that has lasted for a millisecond, in order.
    fn waiters(&self, number: u32) -> Vec<WaiterStatus> {
        let now = clock::now();
        let its = self.waits.get(&number).into_iter().flatten();
        its.filter_map(|wait| {
            let process = self.living(wait.owner)?;
            let permits = Some(wait.permits).filter(|&permits| permits > 0);
            Some(WaiterStatus {
                process,
                waiting: now.since(wait.since),
                shares: wait.shares,
                permits,
            })
        })
        .collect()
    }

    fn living(&self, owner: OwnerId) -> Option<Holder> {
        self.owner(owner).living
    }

    fn owner(&self, id: OwnerId) -> SeenOwner {
        let look = || {
            let may_live = self.presences.verdict(id, &mut None).0.may_live();
            let living = may_live.then(|| self.presences.holder(id).unwrap_or_default());
            SeenOwner { living, proof: self.presences.proof(id) }
        };
        self.owners.borrow_mut().entry(id).or_insert_with(look).clone()
    }
}

/// A holder, with what the slot says about its lock.
pub(super) fn held(holder: Holder, slot: &MappedSlot, token: u64) -> Holder {
    let since = Marks::of(slot).held_for(slot, token, clock::now());
    Holder { held: Some(since.unwrap_or_default()), token: Token::new(token), ..holder }
}
