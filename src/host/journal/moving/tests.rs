use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use parking_lot::Mutex;

use super::*;
use crate::{
    host::journal::{
        entries::EpochEntry,
        file::{EnteredDirectory, enter_after},
        tests::{opened, revoked},
    },
    name::Name,
    proto::{
        ReignId, RequestId, SessionId,
        journal::{
            Appended, JournalHead, JournalTerms, JournalTrouble, ReignAttempt, ReignRenewal,
            TakeOver,
        },
        record::Reservation,
    },
};

/// A store that ends in the middle of a move, before or after what it is asked has happened.
#[derive(Clone, Default)]
struct FailingStore {
    journal: Arc<Mutex<Option<JournalSurvey>>>,
    /// How many operations are left until it fails.
    left: Arc<AtomicUsize>,
    /// A leader renews whenever it is looked at.
    is_reigned: bool,
    /// It takes no journal: no room, or no right to write.
    takes_none: bool,
    /// What was written of a move, but for its head.
    prepared: Arc<Mutex<bool>>,
}

impl FailingStore {
    fn step(&self) -> Result<()> {
        match self.left.load(SeqCst).checked_sub(1) {
            Some(left) => {
                self.left.store(left, SeqCst);
                Ok(())
            }
            None => Err(LockError::new(LockErrorKind::Io, "killed")),
        }
    }

    fn place(&self, shown: &str) -> MovePlace {
        MovePlace::Store(Box::new(self.clone()), shown.to_owned())
    }

    /// Whether a leader could begin here.
    fn may_be_begun(&self) -> bool {
        self.journal.lock().as_ref().is_some_and(|journal| journal.moved_to.is_none())
    }
}

impl MovableStore for FailingStore {
    fn survey(&self) -> Result<Option<JournalSurvey>> {
        self.step()?;
        let mut journal = self.journal.lock();
        if let (true, Some(journal)) = (self.is_reigned, &mut *journal) {
            journal.stamp.0 += 1;
        }
        Ok(journal.as_ref().map(|known| JournalSurvey {
            reign: known.reign,
            lasts: known.lasts,
            stamp: known.stamp,
            moved_to: known.moved_to.clone(),
            entries: known.entries.clone(),
        }))
    }

    fn mark_moved(&self, seen: Stamp, to: &str) -> Result<bool> {
        self.step()?;
        let mut journal = self.journal.lock();
        let journal = journal.as_mut().unwrap();
        let is_seen = journal.stamp == seen && journal.moved_to.is_none();
        if is_seen {
            (journal.stamp, journal.reign) = (Stamp(seen.0 + 1), None);
            journal.moved_to = Some(to.to_owned());
        }
        // It has happened, and the answer may be lost.
        self.step()?;
        Ok(is_seen)
    }

    fn prepare(&self, _: &FoundEntries) -> Result<()> {
        self.step()?;
        assert!(self.journal.lock().is_none(), "it is prepared before it is there");
        *self.prepared.lock() = true;
        match self.takes_none {
            true => Err(LockError::new(LockErrorKind::Refused, "no room")),
            false => Ok(()),
        }
    }

    fn take_back(&self) -> Result<()> {
        self.step()?;
        *self.prepared.lock() = false;
        Ok(())
    }

    fn fill(&self, entries: &FoundEntries) -> Result<()> {
        self.step()?;
        *self.prepared.lock() = false;
        let before = self.journal.lock().replace(journal_of(entries.clone()));
        assert!(before.is_none(), "it is filled once");
        self.step()
    }
}

/// No leader comes here.
impl ReignJournal for FailingStore {
    fn terms(&self) -> JournalTerms {
        JournalTerms { is_exclusive: false, batch_max: 1, renewals: 6 }
    }

    fn read(&self) -> core::result::Result<JournalHead, JournalTrouble> {
        Err(no_leader())
    }

    fn take_over(&self, _: &ReignAttempt) -> core::result::Result<TakeOver, JournalTrouble> {
        Err(no_leader())
    }

    fn append(
        &self,
        _: ReignKey,
        _: u64,
        _: &[Record],
    ) -> core::result::Result<Appended, JournalTrouble> {
        Err(no_leader())
    }

    fn renew(&self, _: ReignKey) -> core::result::Result<ReignRenewal, JournalTrouble> {
        Err(no_leader())
    }

    fn resign(&self, _: ReignKey) -> core::result::Result<(), JournalTrouble> {
        Err(no_leader())
    }
}

fn no_leader() -> JournalTrouble {
    JournalTrouble::Unknown("no leader comes here".to_owned())
}

fn journal_of(entries: FoundEntries) -> JournalSurvey {
    let (reign, lasts) = (None, Duration::ZERO);
    JournalSurvey { reign, lasts, stamp: Stamp(7), moved_to: None, entries }
}

/// Two sessions, of one of which something was taken away, and a name that is kept.
fn entries() -> FoundEntries {
    let epochs = EpochEntry { epoch: 5, judged_from: 2, waits_for: Some(Duration::from_secs(9)) };
    let reservation = Reservation {
        token: Token::first_of(5),
        session: SessionId(1),
        request: RequestId(3),
        at_least: Duration::from_secs(60),
        left: Duration::from_secs(30),
    };
    let name = Name::new("job").unwrap();
    FoundEntries {
        reigns: vec![(2, ReignId(11)), (5, ReignId(12))],
        sessions: vec![wire::encode_record(&opened(1, 5)), wire::encode_record(&opened(2, 5))],
        revoked: vec![wire::encode_record(&revoked(1, 10))],
        stays: vec![wire::encode_record(&Record::Reserved { name, reservation })],
        ..FoundEntries::of(ClusterId(4), epochs)
    }
}

fn full() -> FailingStore {
    let store =
        FailingStore { left: Arc::new(AtomicUsize::new(usize::MAX)), ..FailingStore::default() };
    *store.journal.lock() = Some(journal_of(entries()));
    store
}

fn empty() -> FailingStore {
    FailingStore { left: Arc::new(AtomicUsize::new(usize::MAX)), ..FailingStore::default() }
}

fn kind_of(moved: Result<MovedJournal>) -> LockErrorKind {
    moved.map(|moved| panic!("{moved:?}")).unwrap_err().kind()
}

/// What a leader would find there.
fn recovered(store: &FailingStore) -> crate::proto::record::Recovered {
    store.journal.lock().as_ref().unwrap().entries.clone().recovered().unwrap()
}

#[test]
fn a_move_that_is_killed_at_any_step_loses_nothing_and_goes_on_when_it_is_made_again() {
    for side in [0, 1] {
        let mut steps = 0;
        loop {
            let stores = [full(), empty()];
            let [source, target] = [stores[0].place("from"), stores[1].place("to")];
            let before = recovered(&stores[0]);
            stores[side].left.store(steps, SeqCst);
            let killed = move_between(&source, &target).is_err();
            let begun = stores.iter().filter(|store| store.may_be_begun()).count();
            assert!(begun <= 1, "killed at {steps} of {side}, two may begin");
            stores[side].left.store(usize::MAX, SeqCst);
            let moved = move_between(&source, &target).unwrap();
            assert_eq!((moved.epoch, moved.sessions), (6, 2));
            assert!(!stores[0].may_be_begun() && stores[1].may_be_begun());
            let mut found = recovered(&stores[1]);
            assert_eq!(std::mem::replace(&mut found.epoch, before.epoch), 6);
            assert_eq!(found, before);
            if !killed {
                break;
            }
            steps += 1;
        }
        assert!(steps >= 3, "only {steps} steps of {side}");
    }
}

#[test]
fn a_journal_with_a_leader_is_not_moved() {
    let source = FailingStore { is_reigned: true, ..full() };
    let target = empty();
    let moved = move_between(&source.place("from"), &target.place("to"));
    assert_eq!(kind_of(moved), LockErrorKind::Refused);
    assert!(source.may_be_begun() && target.journal.lock().is_none());
}

/// It would start nowhere until an operator has removed the mark.
#[test]
fn a_journal_is_not_marked_before_its_next_place_has_shown_that_it_takes_it() {
    let (source, target) = (full(), FailingStore { takes_none: true, ..empty() });
    let moved = move_between(&source.place("from"), &target.place("to"));
    assert_eq!(kind_of(moved), LockErrorKind::Refused);
    assert!(source.may_be_begun() && target.journal.lock().is_none());

    let files = tempfile::tempdir().unwrap();
    let accepted = vec!["tmpfs".to_owned()];
    let place = |name: &str| MovePlace::Directory(files.path().join(name), accepted.clone());
    move_between(&source.place("from"), &place("state")).unwrap();
    let moved = move_between(&place("state"), &target.place("to"));
    assert_eq!(kind_of(moved), LockErrorKind::Refused);
    assert_eq!(place("state").moved_to().unwrap(), None);
    // A directory is tried likewise, and nothing is left of that.
    let new = files.path().join("new");
    place("new").prepare(&entries()).unwrap();
    assert!(!Journal::is_made_in(&new));
    let left = std::fs::read_dir(&new).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["lock"]);
    std::fs::write(files.path().join("file"), "").unwrap();
    let moved = move_between(&place("state"), &place("file"));
    assert!(moved.is_err() && place("state").moved_to().unwrap().is_none());
    move_between(&place("state"), &place("new")).unwrap();
}

/// As long as the source may be marked, what is prepared keeps another cluster from beginning there.
#[test]
fn what_is_prepared_is_taken_back_only_where_the_source_is_known_not_to_be_marked() {
    let target = FailingStore { takes_none: true, ..empty() };
    move_between(&full().place("from"), &target.place("to")).unwrap_err();
    assert!(!*target.prepared.lock(), "it was refused");

    // Two looks, and the mark: it has happened, and its answer is lost.
    let (source, target) = (full(), empty());
    source.left.store(3, SeqCst);
    move_between(&source.place("from"), &target.place("to")).unwrap_err();
    assert!(!source.may_be_begun() && *target.prepared.lock(), "it may be marked");
    source.left.store(usize::MAX, SeqCst);
    // One that is marked is not prepared again: what is there is its own, and is never taken back.
    let refusing = FailingStore { takes_none: true, ..target };
    move_between(&source.place("from"), &refusing.place("to")).unwrap();
    assert!(refusing.may_be_begun());
}

#[test]
fn a_journal_that_was_moved_elsewhere_is_not_moved_again_and_none_is_overwritten() {
    let [source, there, other] = [full(), empty(), empty()];
    move_between(&source.place("from"), &there.place("there")).unwrap();
    let again = move_between(&source.place("from"), &other.place("other"));
    assert_eq!(kind_of(again), LockErrorKind::Config);
    assert!(other.journal.lock().is_none());
    let taken = move_between(&full().place("from"), &there.place("there"));
    assert_eq!(kind_of(taken), LockErrorKind::Config);
    let nowhere = move_between(&empty().place("from"), &empty().place("to"));
    assert_eq!(kind_of(nowhere), LockErrorKind::Config);
    let same = move_between(&there.place("there"), &there.place("there"));
    assert_eq!(kind_of(same), LockErrorKind::Config);
}

/// Another journal that happens to be at the place that this one was to be moved to.
#[test]
fn what_another_has_made_at_the_place_of_an_interrupted_move_is_not_taken_for_it() {
    let [source, target] = [full(), empty()];
    // Looked at and prepared; then it is killed.
    target.left.store(2, SeqCst);
    move_between(&source.place("from"), &target.place("to")).unwrap_err();
    assert!(!source.may_be_begun());
    target.left.store(usize::MAX, SeqCst);
    let foreign = FoundEntries::of(ClusterId(99), EpochEntry::default());
    *target.journal.lock() = Some(journal_of(foreign));
    let moved = move_between(&source.place("from"), &target.place("to"));
    assert_eq!(kind_of(moved), LockErrorKind::Config);
}

#[test]
fn a_directorys_journal_goes_to_a_store_and_back_to_another_directory_whole() {
    let files = tempfile::tempdir().unwrap();
    let accepted = vec!["tmpfs".to_owned()];
    let place = |name: &str| MovePlace::Directory(files.path().join(name), accepted.clone());
    let source = full();
    let before = recovered(&source);
    move_between(&source.place("from"), &place("one")).unwrap();
    let between = empty();
    move_between(&place("one"), &between.place("between")).unwrap();
    let mut found = recovered(&between);
    assert_eq!(std::mem::replace(&mut found.epoch, before.epoch), 7);
    assert_eq!(found, before);
    move_between(&between.place("between"), &place("two")).unwrap();
    // The first is marked, and says where it is now.
    let opening = JournalOpening { accepted_file_systems: accepted, ..JournalOpening::default() };
    let marked = Journal::enter(&files.path().join("one"), opening.clone()).map(drop).unwrap_err();
    assert!(marked.to_string().contains("was moved to between"), "{marked}");
    let (_, mut found) =
        Journal::enter(&files.path().join("two"), opening).unwrap().open().unwrap();
    assert_eq!(std::mem::replace(&mut found.epoch, before.epoch), 8);
    assert_eq!(found, before);
}

/// Another move may have been quicker.
#[test]
fn a_directory_that_has_got_a_journal_meanwhile_is_not_filled() {
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("state");
    let place = MovePlace::Directory(path.clone(), vec!["tmpfs".to_owned()]);
    place.fill(&entries()).unwrap();
    let before = place.cluster().unwrap();
    let other = FoundEntries { cluster: ClusterId(77), ..entries() };
    let error = place.fill(&other).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config, "{error}");
    assert_eq!(place.cluster().unwrap(), before);
}

/// A leader that starts looks at the directory, and waits for its lock while that is moved away.
#[test]
fn a_directory_that_is_moved_between_a_look_at_it_and_its_lock_starts_no_leader() {
    let files = tempfile::tempdir().unwrap();
    let (path, accepted) = (files.path().join("state"), vec!["tmpfs".to_owned()]);
    let place = || MovePlace::Directory(path.clone(), accepted.clone());
    place().fill(&entries()).unwrap();
    let opening =
        JournalOpening { accepted_file_systems: accepted.clone(), ..JournalOpening::default() };
    let there = empty();
    let entered = enter_after(&path, &opening, || {
        move_between(&place(), &there.place("there")).unwrap();
    });
    let error = entered.unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Config);
    assert!(error.to_string().contains("was moved to there"), "{error}");
    // What waits for the lock to move it elsewhere finds the same.
    let opening = JournalOpening { moves_to: Some("elsewhere".to_owned()), ..opening };
    assert!(enter_after(&path, &opening, || ()).is_err());
}

/// Two moves to one directory look at it when it is empty; the second finds what the first has made.
#[test]
fn a_directory_that_is_filled_between_a_look_at_it_and_its_lock_is_not_filled_again() {
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("state");
    let place = MovePlace::Directory(path.clone(), vec!["tmpfs".to_owned()]);
    let opening = JournalOpening { init: true, ..place.opening(None) };
    let lock = enter_after(&path, &opening, || place.fill(&entries()).unwrap()).unwrap();
    let other = FoundEntries { cluster: ClusterId(77), ..entries() };
    let entered = EnteredDirectory::locked(&path, opening, lock);
    assert_eq!(entered.fill(&other).unwrap_err().kind(), LockErrorKind::Config);
    assert_eq!(place.cluster().unwrap(), Some(ClusterId(4)));
}
