//! A store that takes changes as they come says the same as a journal that remembers each record.

use proptest::prelude::*;

use super::{
    super::tests::{opened, revoked},
    *,
};
use crate::{
    proto::{RequestId, record::Reservation},
    token::Token,
};

const REIGN: ReignKey = ReignKey(9);

fn ended(session: u128) -> Record {
    Record::SessionEnded { session: SessionId(session) }
}

fn reserved(name: &str, seconds: u64) -> Record {
    let reservation = Reservation {
        token: Token::first_of(1),
        session: SessionId(1),
        request: RequestId(7),
        at_least: Duration::from_secs(60),
        left: Duration::from_secs(seconds),
    };
    Record::Reserved { name: Name::new(name).unwrap(), reservation }
}

fn unreserved(name: &str) -> Record {
    Record::ReservationEnded { name: Name::new(name).unwrap(), token: Token::first_of(1) }
}

/// A store in memory that does what changes say.
#[derive(Clone, Default)]
struct EntryStore {
    epochs: EpochEntry,
    sessions: BTreeMap<SessionId, Vec<u8>>,
    revoked: BTreeMap<(SessionId, LeaseId), Vec<u8>>,
    stays: BTreeMap<Name, Vec<u8>>,
}

fn put<K: Ord + Clone>(entries: &mut BTreeMap<K, Vec<u8>>, key: &K, value: &Option<Vec<u8>>) {
    match value {
        Some(value) => entries.insert(key.clone(), value.clone()),
        None => entries.remove(key),
    };
}

impl EntryStore {
    fn change(&mut self, changes: &EntryChanges) {
        self.epochs = changes.epochs.unwrap_or(self.epochs);
        self.revoked.retain(|(session, _), _| !changes.cleared.contains(session));
        changes.sessions.iter().for_each(|(key, value)| put(&mut self.sessions, key, value));
        changes.revoked.iter().for_each(|(key, value)| put(&mut self.revoked, key, value));
        changes.stays.iter().for_each(|(key, value)| put(&mut self.stays, key, value));
    }

    fn recovered(self) -> Recovered {
        let found = FoundEntries {
            sessions: self.sessions.into_values().collect(),
            revoked: self.revoked.into_values().collect(),
            stays: self.stays.into_values().collect(),
            ..FoundEntries::of(ClusterId(1), self.epochs)
        };
        found.recovered().unwrap()
    }
}

fn any_record() -> impl Strategy<Value = Record> {
    let name = || prop_oneof![Just("a"), Just("b")];
    prop_oneof![
        (1..4_u128, 1..60_u64).prop_map(|(session, seconds)| opened(session, seconds)),
        (1..4_u128).prop_map(ended),
        (1..4_u128, 1..5_u64).prop_map(|(session, count)| revoked(session, count)),
        (name(), 1..60_u64).prop_map(|(name, seconds)| reserved(name, seconds)),
        name().prop_map(unreserved),
        Just(Record::Waited),
        (2..9_u32, any::<bool>())
            .prop_map(|(epoch, starts_above)| Record::EpochRaised { epoch, starts_above }),
    ]
}

proptest! {
    #[test]
    fn changes_come_to_what_the_records_say(
        batches in prop::collection::vec(prop::collection::vec(any_record(), 1..12), 1..12),
    ) {
        let mut remembered = Recovered::new(ClusterId(1));
        let mut entries = ReignEntries::begin(REIGN, &remembered, EpochEntry::default());
        let mut store = EntryStore::default();
        for (number, batch) in (1..).zip(&batches) {
            batch.iter().for_each(|record| remembered.remember(record));
            let changes = entries.changes(REIGN, number, batch).unwrap();
            let again = entries.changes(REIGN, number, batch).unwrap();
            prop_assert_eq!(&changes, &again);
            store.change(&changes);
            prop_assert_eq!(&store.clone().recovered(), &remembered);
            // What is told of a session in one transaction names no entry twice.
            let is_named_twice = |key: &(SessionId, LeaseId), value: &Option<Vec<u8>>| {
                value.is_none() && changes.cleared.contains(&key.0)
            };
            prop_assert!(!changes.revoked.iter().any(|(key, value)| is_named_twice(key, value)));
        }
    }
}

#[test]
fn only_the_next_batch_and_the_last_come_to_anything() {
    let mut entries =
        ReignEntries::begin(REIGN, &Recovered::new(ClusterId(1)), EpochEntry::default());
    let batch = [opened(1, 5)];
    assert_eq!(entries.changes(REIGN, 0, &batch), None);
    assert_eq!(entries.changes(REIGN, 2, &batch), None);
    assert_eq!(entries.changes(ReignKey(8), 1, &batch), None);
    assert!(entries.changes(REIGN, 1, &batch).is_some());
    assert!(entries.changes(REIGN, 2, &[ended(1)]).is_some());
    assert_eq!(entries.changes(REIGN, 1, &batch), None);
}

#[test]
fn of_a_session_that_loses_many_leases_the_last_are_kept() {
    let mut before = Recovered::new(ClusterId(1));
    before.remember(&opened(1, 5));
    let most = REVOKED_PER_SESSION_MAX as u64;
    (1..=most).for_each(|count| before.remember(&revoked(1, count)));
    let mut entries = ReignEntries::begin(REIGN, &before, EpochEntry::default());
    let changes = entries.changes(REIGN, 1, &[revoked(1, most + 1)]).unwrap();
    let of = |count| (SessionId(1), LeaseId { epoch: 1, count });
    assert_eq!(changes.revoked.get(&of(1)), Some(&None));
    assert!(changes.revoked[&of(most + 1)].is_some());
    assert_eq!(changes.revoked.len(), 2);
}
