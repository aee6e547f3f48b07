//! What the journal keeps, on a disk that fails in every way.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt as _,
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    super::tests::{opened, revoked},
    opening::{agree, open_whole, recover},
    place::{COMMITS, SET_ASIDE, UNFINISHED, USED, parent, sync_parent},
    *,
};
use crate::{
    error::LockErrorKind,
    name::Name,
    proto::{ReignId, RequestId, TIME_TO_LIVE, record::Reservation},
    token::Token,
};

const TOOK_OVER: Record = took_over(9, None);

const fn took_over(epoch: u32, waits_for: Option<Duration>) -> Record {
    let reign = ReignId(epoch as u64 * 11);
    Record::TookOver { epoch, reign, waits_for, starts_above: false }
}

fn reserved(name: &str, token: u64, left_s: u64) -> Record {
    let reservation = Reservation {
        token: Token::new(token).unwrap(),
        session: SessionId(1),
        request: RequestId(7),
        at_least: Duration::from_secs(60),
        left: Duration::from_secs(left_s),
    };
    Record::Reserved { name: Name::new(name).unwrap(), reservation }
}

fn reservation_ended(name: &str, token: u64) -> Record {
    let name = Name::new(name).unwrap();
    Record::ReservationEnded { name, token: Token::new(token).unwrap() }
}

fn ended(session: u128) -> Record {
    Record::SessionEnded { session: SessionId(session) }
}

/// Opens the journal of a directory, or makes it where there is nothing.
fn open(directory: &Path) -> Result<(Journal, Recovered), LockError> {
    let init = !directory.join(JOURNAL).exists() && !directory.join(USED).exists();
    open_with(directory, JournalOpening { init, ..JournalOpening::default() })
}

fn open_above(directory: &Path, epoch: u32) -> Result<(Journal, Recovered), LockError> {
    open_with(directory, JournalOpening { epoch_above: Some(epoch), ..JournalOpening::default() })
}

fn open_with(
    directory: &Path,
    mut opening: JournalOpening,
) -> Result<(Journal, Recovered), LockError> {
    opening.accepted_file_systems.push("tmpfs".to_owned());
    Journal::enter(directory, opening)?.open()
}

fn recovered(journal: &Journal) -> Recovered {
    recover(journal.database().unwrap()).unwrap().0
}

fn records(journal: &Journal) -> Vec<Record> {
    read_records(&journal.database().unwrap().begin_read().unwrap()).unwrap()
}

#[test]
fn what_was_committed_is_recovered_and_what_ended_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let (mut journal, first) = open(&state).unwrap();
    assert_eq!(first, Recovered::new(first.cluster));
    let [a, b] = [opened(1, 60), opened(2, 5)];
    let [of_a, of_b] = [revoked(1, 10), revoked(2, 11)];
    let [begun, raised] =
        [took_over(1, None), Record::EpochRaised { epoch: 3, starts_above: false }];
    journal.write([&begun, &raised, &a, &b, &of_a, &of_b].into_iter()).unwrap();
    assert_eq!(records(&journal), [a, b.clone(), of_a, of_b.clone()]);
    journal.write([&ended(1)].into_iter()).unwrap();
    drop(journal);

    let (journal, again) = open(&state).unwrap();
    assert_eq!(again.cluster, first.cluster);
    assert_eq!(again.epoch, 3);
    assert_eq!(records(&journal), [b.clone(), of_b.clone()]);
    let mut remembered = Recovered::new(first.cluster);
    [begun, raised, b, of_b].iter().for_each(|record| remembered.remember(record));
    assert_eq!(again, remembered);
}

#[test]
fn a_journal_recovers_what_its_contract_says() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, mut remembered) = open(directory.path()).unwrap();
    let waits_for = Some(Duration::from_secs(60));
    for record in [
        took_over(3, None),
        took_over(4, waits_for),
        opened(1, 5),
        opened(2, 6),
        revoked(1, 10),
        revoked(2, 11),
        Record::EpochRaised { epoch: 6, starts_above: true },
        ended(2),
        opened(2, 7),
        Record::Waited,
        revoked(1, 12),
        opened(1, 5),
        took_over(7, None),
        revoked(3, 1),
        Record::TookOver { epoch: 10, reign: ReignId(8), waits_for, starts_above: true },
        took_over(11, waits_for),
        reserved("orders/42", 1, 20),
        reserved("nightly", 2, 30),
        reserved("orders/42", 1, 15),
        reserved("orders/43", 3, 15),
        reservation_ended("nightly", 2),
    ] {
        journal.write([&record].into_iter()).unwrap();
        remembered.remember(&record);
        let recovered = recovered(&journal);
        assert_eq!(recovered, remembered, "after {record:?}");
    }
    // Nothing is left of a session that is over, but what it reserved.
    journal.write([&ended(1), &ended(2), &revoked(1, 13)].into_iter()).unwrap();
    assert_eq!(records(&journal), [reserved("orders/42", 1, 15), reserved("orders/43", 3, 15)]);
    let ends = [reservation_ended("orders/42", 1), reservation_ended("orders/43", 3)];
    journal.write(ends.iter()).unwrap();
    assert_eq!(records(&journal), []);
}

#[test]
fn a_journal_made_before_names_were_reserved_is_opened_and_can_reserve_them() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(directory.path()).unwrap();
    journal.write([&TOOK_OVER].into_iter()).unwrap();
    let transaction = journal.database().unwrap().begin_write().unwrap();
    transaction.delete_table(RESERVED).unwrap();
    transaction.commit().unwrap();
    drop(journal);
    let (mut journal, recovered) = open(directory.path()).unwrap();
    assert!(recovered.reservations.is_empty());
    journal.write([&reserved("nightly", 2, 30)].into_iter()).unwrap();
    drop(journal);
    let (_, recovered) = open(directory.path()).unwrap();
    assert_eq!(recovered.reservations.len(), 1);
}

#[test]
fn of_more_reigns_than_are_remembered_the_last_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, mut remembered) = open(directory.path()).unwrap();
    let begun: Vec<_> = (1..=REIGNS_MAX as u32 + 100).map(|epoch| took_over(epoch, None)).collect();
    begun.iter().for_each(|record| remembered.remember(record));
    journal.write(begun.iter()).unwrap();
    drop(journal);
    assert!(fs::metadata(directory.path().join(JOURNAL)).unwrap().len() < 8 << 20);
    let (_, again) = open(directory.path()).unwrap();
    assert!(again == remembered);
}

#[test]
fn a_reign_beyond_the_last_epoch_is_damage() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(directory.path()).unwrap();
    journal.write([&TOOK_OVER].into_iter()).unwrap();
    let transaction = journal.database().unwrap().begin_write().unwrap();
    transaction.open_table(REIGNS).unwrap().insert(10, 1).unwrap();
    transaction.commit().unwrap();
    drop(journal);
    let error = open(directory.path()).map(drop).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Damaged);
    assert!(error.to_string().contains("a reign of epoch 10"), "{error}");
}

#[test]
fn sessions_of_our_own_process_are_not_left_as_dead_while_it_lives() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(directory.path()).unwrap();
    let mut own = opened(1, 5);
    let Record::SessionOpened { session, embedded, .. } = &mut own else { unreachable!() };
    *embedded = true;
    let session = *session;
    let all = [own, opened(2, 5), revoked(1, 10)];
    journal.mark(all.iter());
    journal.write(all.iter()).unwrap();
    // Killed now, it is known dead.
    assert!(recovered(&journal).sessions[&session].embedded);
    drop(journal);
    let (_, again) = open(directory.path()).unwrap();
    assert!(!again.sessions[&session].embedded);
    assert_eq!(again.sessions[&session].revoked.len(), 1);
    assert_eq!(again.sessions.len(), 2);
}

#[test]
fn a_journal_that_cannot_unmark_its_own_process_keeps_the_lock_until_that_dies() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(directory.path()).unwrap();
    let mut own = opened(1, 5);
    let Record::SessionOpened { embedded, .. } = &mut own else { unreachable!() };
    *embedded = true;
    journal.mark([&own].into_iter());
    journal.write([&own].into_iter()).unwrap();
    let transaction = journal.database().unwrap().begin_write().unwrap();
    transaction.delete_table(REVOKED).unwrap();
    transaction.commit().unwrap();
    drop(journal);
    let error = open(directory.path()).map(drop).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Refused);
}

#[test]
fn two_directories_are_two_clusters() {
    let [a, b] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (_journal, a) = open(a.path()).unwrap();
    let (_journal, b) = open(b.path()).unwrap();
    assert_ne!(a.cluster, b.cluster);
}

// gajae-code#4704
#[test]
fn a_second_leader_on_one_state_directory_is_refused_and_told_of_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path()).unwrap();
    let error = open(directory.path()).map(drop).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Refused);
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    drop(journal);
    open(directory.path()).unwrap();
}

#[test]
fn a_state_directory_that_cannot_be_one_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let kind = |path: &Path| open(path).map(drop).unwrap_err().kind();
    assert_eq!(kind(&file), LockErrorKind::Config);
    assert_eq!(kind(&directory.path().join("a/b")), LockErrorKind::Config);
}

#[test]
fn a_foreign_or_newer_file_is_named_as_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.redb");
    std::fs::write(&path, "x".repeat(10_000)).unwrap();
    let error = open(directory.path()).map(drop).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Damaged);
    assert!(error.to_string().contains("journal.redb"), "{error}");

    std::fs::remove_file(&path).unwrap();
    let (journal, _) = open(directory.path()).unwrap();
    let transaction = journal.database().unwrap().begin_write().unwrap();
    transaction.open_table(ABOUT).unwrap().insert(FORMAT, &9_u32.to_le_bytes()[..]).unwrap();
    transaction.commit().unwrap();
    drop(journal);
    let error = open(directory.path()).map(drop).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Damaged);
    assert!(error.to_string().contains("it has format 9"), "{error}");
}

#[test]
fn a_child_that_has_not_executed_its_program_yet_holds_up_no_successor_here() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).unwrap());
    let inherited = File::open(directory.path().join("lock")).unwrap();
    // Children of other tests may have it for a moment, too.
    while fs4::FileExt::try_lock(&inherited).is_err() {
        std::thread::yield_now();
    }
    let executes = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        drop(inherited);
    });
    open(directory.path()).unwrap();
    executes.join().unwrap();
}

#[test]
fn a_damaged_file_is_an_error_or_harmless_but_never_a_panic_or_a_lower_epoch() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(directory.path()).unwrap();
    let many: Vec<_> = (0..100).map(|session| opened(session, 5)).collect();
    journal.write([&TOOK_OVER].into_iter()).unwrap();
    journal.write(many.iter()).unwrap();
    drop(journal);
    let path = directory.path().join("journal.redb");
    let good = std::fs::read(&path).unwrap();
    let mut noticed = 0;
    let used = good.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for at in (0..used).step_by(used / 200) {
        std::fs::write(&path, &good).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[!good[at]; 16], at as u64).unwrap();
        match open(directory.path()) {
            Ok((_, recovered)) => assert_eq!(recovered.epoch, 9, "damage at {at}"),
            Err(error) => {
                noticed += 1;
                assert_eq!(error.kind(), LockErrorKind::Damaged, "{error}");
            }
        }
    }
    assert!(noticed > 0);
}

#[test]
fn a_used_directory_without_its_whole_journal_is_damaged_until_told_the_epoch() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, first) = open(directory.path()).unwrap();
    journal.write([&TOOK_OVER, &opened(1, 5)].into_iter()).unwrap();
    drop(journal);
    let path = directory.path().join(JOURNAL);
    let good = fs::read(&path).unwrap();
    let lengths = [0, 1, 100, good.len() / 2, good.len() - 1].map(Some);
    for length in lengths.into_iter().chain([None]) {
        match length {
            Some(length) => fs::write(&path, &good[..length]).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        for _ in 0..2 {
            let error = open(directory.path()).map(drop).unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Damaged, "{length:?}: {error}");
            let text = error.to_string();
            assert!(text.contains("journal.redb"), "{text}");
            assert!(text.contains("--epoch-above"), "{text}");
        }
        let (journal, above) = open_above(directory.path(), 40).unwrap();
        drop(journal);
        // Also if the leader is killed before its own first record.
        let (_, again) = open(directory.path()).unwrap();
        assert_eq!(above, again, "{length:?}");
        assert_eq!((again.cluster, again.epoch), (first.cluster, 40), "{length:?}");
        assert_eq!(again.waits_for, Some(*TIME_TO_LIVE.end()), "{length:?}");
    }
    assert_eq!(fs::read(directory.path().join(SET_ASIDE)).unwrap(), &good[..good.len() - 1]);
}

#[test]
fn a_leader_killed_while_it_made_its_first_journal_starts_again() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path()).unwrap();
    drop(journal);
    let good = fs::read(directory.path().join(JOURNAL)).unwrap();
    let half_made = [&[][..], &good[..1], &good[..good.len() / 2], &good];
    for bytes in half_made {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("lock"), "").unwrap();
        fs::write(directory.path().join(UNFINISHED), bytes).unwrap();
        let (_, first) = open(directory.path()).unwrap();
        assert_eq!(first, Recovered::new(first.cluster));
        assert!(!directory.path().join(UNFINISHED).exists());
    }
    // Renamed and not yet marked as used.
    fs::remove_file(directory.path().join(USED)).unwrap();
    let (journal, before) = open(directory.path()).unwrap();
    drop(journal);
    fs::remove_file(directory.path().join(JOURNAL)).unwrap();
    let error = open(directory.path()).map(drop).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Damaged);
    // A mark cut short still says that the directory was used.
    let text = fs::read_to_string(directory.path().join(USED)).unwrap();
    assert_eq!(text.trim(), format!("{:032x}", before.cluster.0));
    fs::write(directory.path().join(USED), "").unwrap();
    let error = open(directory.path()).map(drop).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Damaged);
}

/// A disk that remembers what was done to it since a commit, and may be full.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    bytes: Vec<u8>,
    done: Vec<Done>,
    length_max: Option<u64>,
    fails_to_sync: bool,
    /// So much more, once this file is gone.
    spare: Option<(PathBuf, u64)>,
}

#[derive(Clone, Debug)]
enum Done {
    Length(u64),
    Write(u64, Vec<u8>),
    Sync,
}

impl Done {
    /// Does it again, or as much of it as a crash has left.
    fn again(&self, bytes: &mut Vec<u8>, part: usize) {
        match self {
            Done::Length(length) => bytes.resize(*length as usize, 0),
            Done::Write(offset, data) => {
                let data = &data[..part.min(data.len())];
                let end = *offset as usize + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0); // its growth was lost, or came later
                }
                bytes[*offset as usize..end].copy_from_slice(data);
            }
            Done::Sync => {}
        }
    }
}

impl Disk {
    fn holding(bytes: Vec<u8>) -> Disk {
        Disk(Arc::new(Mutex::new(Platter { bytes, ..Platter::default() })))
    }

    /// What a start finds on it.
    fn found(self) -> Result<Recovered, Trouble> {
        open_whole(self, None).map(|(_, recovered)| recovered)
    }

    fn act(&self, done: Done) {
        let mut platter = self.0.lock();
        done.again(&mut platter.bytes, usize::MAX);
        platter.done.push(done);
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.0.lock();
        let at = offset as usize;
        let found = platter.bytes.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        {
            let platter = self.0.lock();
            if platter.length_max.is_some_and(|max| length > max) {
                let spare = platter.spare.as_ref().filter(|(spare, _)| !spare.is_file());
                let (spare, more) = spare.ok_or(io::ErrorKind::StorageFull)?;
                if platter.length_max.is_some_and(|max| length > max + more) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                // What it was is taken, and cannot be set aside again.
                let _ = fs::create_dir(spare);
            }
        }
        self.act(Done::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.0.lock().fails_to_sync {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.act(Done::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.act(Done::Write(offset, data.to_vec()));
        Ok(())
    }
}

/// An empty journal on such a disk, whole and synced, with nothing set aside.
fn on_disk() -> (Disk, Journal, Recovered) {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).unwrap());
    let disk = Disk::holding(fs::read(directory.path().join(JOURNAL)).unwrap());
    let (open, recovered) = open_whole(disk.clone(), None).unwrap();
    let journal = Journal {
        medium: Medium::Disk(disk.clone()),
        open: Some(open),
        commits: None,
        spare: Spare::new(directory.path().join(SPARE)),
        is_full: false,
        embedded: BTreeSet::new(),
        lock: None,
    };
    (disk, journal, recovered)
}

fn history() -> Vec<Vec<Record>> {
    let mut history = vec![vec![TOOK_OVER], vec![opened(1, 5)]];
    history.push((2..40).map(|session| opened(session, 5)).collect());
    for session in 2..8 {
        history.push(vec![revoked(session, 3), opened(100 + session, 60)]);
        history.push(vec![
            ended(session),
            Record::EpochRaised { epoch: 10 + session as u32, starts_above: session == 5 },
        ]);
    }
    history
}

#[test]
fn whenever_it_is_killed_or_loses_power_there_is_all_that_was_committed_and_nothing_torn() {
    let (disk, mut journal, mut before) = on_disk();
    // Numbers that look random; any will do.
    let mut state = 1_u64;
    let mut dice = move |end: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (state >> 33) as usize % end
    };
    let mut crashes = 0;
    for records in history() {
        let base = {
            let mut platter = disk.0.lock();
            platter.done.clear();
            platter.bytes.clone()
        };
        journal.write(records.iter()).unwrap();
        let done = disk.0.lock().done.clone();
        let mut after = before.clone();
        records.iter().for_each(|record| after.remember(record));
        for until in 0..=done.len() {
            let (all, next) = done.split_at(until);
            // Killed: what was done is there, and perhaps a part of what was not.
            let mut killed = base.clone();
            all.iter().for_each(|done| done.again(&mut killed, usize::MAX));
            if let Some(next @ Done::Write(_, data)) = next.first() {
                next.again(&mut killed, dice(data.len()));
            }
            // Without power: what was synced is there, and any part of what was done since.
            let synced = all.iter().rposition(|done| matches!(done, Done::Sync));
            let (synced, since) = all.split_at(synced.map_or(0, |at| at + 1));
            let mut dark = base.clone();
            synced.iter().for_each(|done| done.again(&mut dark, usize::MAX));
            for done in since {
                match dice(4) {
                    0 => done.again(&mut dark, dice(4096)),
                    1 => done.again(&mut dark, usize::MAX),
                    _ => {} // lost
                }
            }
            for bytes in [killed, dark] {
                let found = Disk::holding(bytes).found().unwrap();
                let is_whole = found == after || (until < done.len() && found == before);
                assert!(is_whole, "{found:?} after {until} of {}: {records:?}", done.len());
                crashes += 1;
            }
        }
        before = after;
    }
    assert!(crashes > 100, "{crashes}");
}

#[test]
fn a_full_disk_is_an_error_and_costs_nothing_that_was_committed() {
    let (disk, mut journal, mut known) = on_disk();
    let length = disk.0.lock().bytes.len() as u64;
    disk.0.lock().length_max = Some(length + 4096);
    let mut count = 0;
    let error = loop {
        let records: Vec<_> = (0..500).map(|session| opened(count * 500 + session, 5)).collect();
        match journal.write(records.iter()) {
            Ok(()) => records.iter().for_each(|record| known.remember(record)),
            Err(trouble) => break trouble.into_io(),
        }
        count += 1;
    };
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(journal.write([&opened(1, 5)].into_iter()).is_err(), "it is of no more use");
    let bytes = disk.0.lock().bytes.clone();
    assert_eq!(Disk::holding(bytes).found().unwrap(), known);
}

#[test]
fn a_newer_journal_is_left_alone_also_when_told_the_epoch() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = open(directory.path()).unwrap();
    let transaction = journal.database().unwrap().begin_write().unwrap();
    transaction.open_table(ABOUT).unwrap().insert(FORMAT, &9_u32.to_le_bytes()[..]).unwrap();
    transaction.commit().unwrap();
    drop(journal);
    let error = open_above(directory.path(), 7).map(drop).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Damaged);
    assert!(error.to_string().contains("it has format 9"), "{error}");
}

#[test]
fn the_name_of_a_new_state_directory_is_made_durable_however_it_is_given() {
    let top = tempfile::tempdir().unwrap();
    let top = top.path().canonicalize().unwrap();
    let state = top.join("state");
    fs::create_dir(&state).unwrap();
    std::os::unix::fs::symlink(&state, top.join("link")).unwrap();
    for given in [state.clone(), top.join("state/"), top.join("link"), state.join("../state/.")] {
        assert_eq!(parent(&given).unwrap(), top, "{given:?}");
        sync_parent(&given).unwrap();
    }
    let here = std::env::current_dir().unwrap().canonicalize().unwrap();
    assert_eq!(parent(Path::new("src")).unwrap(), here);
    assert_eq!(parent(Path::new("/")).unwrap(), Path::new("/"));
}

#[test]
fn of_a_session_that_loses_leases_without_end_the_last_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(directory.path()).unwrap();
    let [a, b, of_b] = [opened(1, 5), opened(2, 5), revoked(2, 1)];
    journal.write([&a, &b, &of_b].into_iter()).unwrap();
    let lost: Vec<_> = (0..2500).map(|count| revoked(1, count)).collect();
    for some in lost.chunks(700) {
        journal.write(some.iter()).unwrap();
    }
    let last = &lost[lost.len() - REVOKED_PER_SESSION_MAX..];
    assert_eq!(records(&journal), [&[a, b.clone()], last, std::slice::from_ref(&of_b)].concat());
    journal.write([&ended(1)].into_iter()).unwrap();
    assert_eq!(records(&journal), [b, of_b]);
}

/// Every bit of a journal's file, or of a part of it that stands for all.
fn bits(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let all = std::env::var_os("TIERLOCK_FLIP_ALL").is_some();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    // The first 320 bytes say where the last commit is.
    let (header, stride) = (320, (used / 300).max(1));
    (0..bytes.len() * 8).filter(move |bit| {
        let (byte, bit) = (bit / 8, bit % 8);
        let is_sample = match byte {
            9 => true, // which of the two last states is the last
            _ if byte < header => bit == byte % 8,
            _ if byte < used => byte % stride == 0 && bit == byte / stride % 8,
            _ => byte % 65_536 == 0 && bit == 0,
        };
        all || is_sample
    })
}

/// With `TIERLOCK_FLIP_ALL` set it flips every bit; that takes hours, and is for a release build.
#[test]
fn one_flipped_bit_is_refused_or_harmless_and_never_takes_back_what_was_committed() {
    let (disk, mut journal, mut known) = on_disk();
    for records in history() {
        journal.write(records.iter()).unwrap();
        records.iter().for_each(|record| known.remember(record));
    }
    let noted = journal.open.as_ref().unwrap().number;
    let killed = disk.0.lock().bytes.clone();
    drop(journal);
    let closed = disk.0.lock().bytes.clone();
    let (mut flipped, mut refused) = (0, 0);
    for bytes in [killed, closed] {
        for bit in bits(&bytes) {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            flipped += 1;
            let disk = Disk::holding(bytes);
            let opened = open_whole(disk.clone(), None)
                .and_then(|(open, found)| agree(&open, Some(noted)).map(|()| (open, found)));
            let (open, found) = match opened {
                Ok(opened) => opened,
                Err(Trouble::Damage(_) | Trouble::Foreign(_)) => {
                    refused += 1;
                    continue;
                }
                Err(trouble) => panic!("bit {bit}: {trouble:?}"),
            };
            assert!(found == known, "bit {bit}: {found:?}");
            if bit / 8 % 8 != 1 {
                continue;
            }
            // It is as good as new: what is written next harms nothing that was there.
            let mut journal = Journal {
                medium: Medium::Disk(disk.clone()),
                open: Some(open),
                commits: None,
                spare: Spare::new(PathBuf::from("/nowhere")),
                is_full: false,
                embedded: BTreeSet::new(),
                lock: None,
            };
            let mut known = known.clone();
            for session in 1000..1040 {
                journal.write([&opened_more(session)].into_iter()).unwrap();
                known.remember(&opened_more(session));
            }
            drop(journal);
            let bytes = disk.0.lock().bytes.clone();
            assert!(Disk::holding(bytes).found().unwrap() == known, "bit {bit}, and later");
        }
    }
    assert!(flipped > 800 && refused > flipped / 8, "{refused} of {flipped} were refused");
}

fn opened_more(session: u128) -> Record {
    opened(session, 7)
}

#[test]
fn the_bit_that_says_which_state_is_the_last_is_found_out_by_the_number_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(directory.path()).unwrap();
    journal.write([&TOOK_OVER].into_iter()).unwrap();
    journal.write([&opened(1, 5)].into_iter()).unwrap();
    // As a kill leaves it: a journal that is closed in good order has one state twice.
    let path = directory.path().join(JOURNAL);
    let good = fs::read(&path).unwrap();
    drop(journal);
    // In place: another file would be a copy.
    let write = |bytes: &[u8], path: &Path| {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        file.write_all_at(bytes, 0).unwrap();
    };
    let mut bad = good.clone();
    bad[9] ^= 1;
    write(&bad, &path);
    let error = open(directory.path()).map(drop).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Damaged);
    assert!(error.to_string().contains("commits, and had"), "{error}");
    write(&good, &path);
    drop(open(directory.path()).unwrap());
    // As is a bit of that number.
    let commits = directory.path().join(COMMITS);
    let number = fs::read(&commits).unwrap();
    for bit in 0..number.len() * 8 {
        let mut bad = number.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        write(&bad, &commits);
        let error = open(directory.path()).map(drop).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Damaged, "{bit}: {error}");
    }
    // After a loss of power it may be behind.
    write(&0_u128.to_le_bytes(), &commits);
    assert!(open(directory.path()).is_err(), "zeros are no number");
    write(&(u128::from(!1_u64) << 64 | 1).to_le_bytes(), &commits);
    drop(open(directory.path()).unwrap());
    fs::remove_file(&commits).unwrap();
    let error = open(directory.path()).map(drop).unwrap_err();
    assert!(error.to_string().contains("commits"), "{error}");
    drop(open_above(directory.path(), 40).unwrap());
}

#[test]
fn a_journal_is_made_once_and_by_init_only() {
    let top = tempfile::tempdir().unwrap();
    let state = top.path().join("state");
    let init =
        || open_with(&state, JournalOpening { init: true, ..JournalOpening::default() }).map(drop);
    let without = || open_with(&state, JournalOpening::default()).map(drop);
    let above = || open_above(&state, 7).map(drop);
    let is_refused = |error: LockError, word: &str| {
        assert_eq!(error.kind(), LockErrorKind::Config, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    };
    is_refused(without().unwrap_err(), "--init");
    is_refused(above().unwrap_err(), "--init");
    assert!(!state.exists(), "nothing is left in what may be a volume's place");
    fs::create_dir(&state).unwrap();
    is_refused(without().unwrap_err(), "--init");
    is_refused(above().unwrap_err(), "--init");
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0);
    init().unwrap();
    is_refused(init().unwrap_err(), "without --init");
    without().unwrap();
    // What was used and lost its journal is no new one either.
    fs::remove_file(state.join(JOURNAL)).unwrap();
    assert_eq!(init().unwrap_err().kind(), LockErrorKind::Damaged);
    // A leader that lost all of it begins above what its clients have seen.
    fs::remove_dir_all(&state).unwrap();
    let opening = JournalOpening { init: true, epoch_above: Some(7), ..JournalOpening::default() };
    let (_journal, found) = open_with(&state, opening).unwrap();
    assert_eq!((found.epoch, found.waits_for), (7, Some(*TIME_TO_LIVE.end())));
}

#[test]
fn a_copied_journal_is_refused_until_it_is_told_above_which_epoch_to_start() {
    // etcd#17780
    let top = tempfile::tempdir().unwrap();
    let [original, copy] = ["original", "copy"].map(|name| top.path().join(name));
    let (mut journal, _) = open(&original).unwrap();
    journal.write([&TOOK_OVER].into_iter()).unwrap();
    drop(journal);
    fs::create_dir(&copy).unwrap();
    for file in fs::read_dir(&original).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    for _ in 0..2 {
        let error = open(&copy).map(drop).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Config);
        let text = error.to_string();
        assert!(text.contains("--epoch-above") && text.contains("epoch 9"), "{text}");
    }
    // Killed before its reign is durable, it is a copy still.
    drop(open_above(&copy, 20).unwrap());
    assert!(open(&copy).is_err());
    let (mut journal, _) = open_above(&copy, 20).unwrap();
    journal.write([&took_over(21, None)].into_iter()).unwrap();
    drop(journal);
    drop(open(&copy).unwrap());
    // The original, moved, is the original.
    let moved = top.path().join("moved");
    fs::rename(&original, &moved).unwrap();
    drop(open(&moved).unwrap());
}

/// What became of these records, by whether each was written.
fn commit(journal: &mut Journal, records: Vec<Record>) -> io::Result<Vec<bool>> {
    let pending = (1..).zip(records).map(|(number, record)| Pending::for_tests(number, record));
    let answers = journal.commit(pending.collect())?;
    Ok(answers.into_iter().map(|answer| matches!(answer, CommitAnswer::Committed(_))).collect())
}

#[test]
fn a_full_disk_refuses_what_clients_add_and_takes_what_the_reign_needs_from_what_was_set_aside() {
    let (disk, mut journal, mut known) = on_disk();
    let place = tempfile::tempdir().unwrap();
    let spare = place.path().join(SPARE);
    journal.spare = Spare::new(spare.clone());
    let begun = vec![TOOK_OVER, reserved("nightly", 2, 60)];
    assert_eq!(commit(&mut journal, begun.clone()).unwrap(), [true, true]);
    begun.iter().for_each(|record| known.remember(record));
    let length = disk.0.lock().bytes.len() as u64;
    assert!(fs::metadata(&spare).unwrap().len() >= length);
    {
        let mut platter = disk.0.lock();
        platter.length_max = Some(length);
        platter.spare = Some((spare.clone(), length));
    }
    // Sessions come until one finds no room, and nothing is lost.
    let mut count = 0;
    loop {
        let some: Vec<_> = (0..500).map(|session| opened(count * 500 + session, 5)).collect();
        let written = commit(&mut journal, some.clone()).unwrap();
        count += 1;
        if written.contains(&false) {
            assert!(written.iter().all(|written| !written), "all of them or none");
            break;
        }
        some.iter().for_each(|record| known.remember(record));
    }
    assert!(count > 2 && journal.is_full());
    // Nor is there any beside what is set aside: nothing is written to find that out.
    fs::remove_file(&spare).unwrap();
    fs::create_dir(&spare).unwrap();
    disk.0.lock().done.clear();
    assert_eq!(commit(&mut journal, vec![opened(80_000, 5)]).unwrap(), [false]);
    for session in 0..300 {
        let records = vec![
            revoked(session, 1),
            opened(90_000 + session, 5),
            Record::EpochRaised { epoch: 10 + session as u32, starts_above: false },
            reserved(&format!("new {session}"), 9, 60),
            reserved("nightly", 2, 40),
            opened(session, 5),
        ];
        // What is left of a name that is reserved is written, and no other name's; and what a session
        // that is open has asked for besides.
        let written = commit(&mut journal, records.clone()).unwrap();
        assert_eq!(written, [true, false, true, false, true, true]);
        [0, 2, 4, 5].into_iter().for_each(|at: usize| known.remember(&records[at]));
    }
    assert!(recovered(&journal) == known);
    // With room again sessions are opened.
    disk.0.lock().length_max = None;
    fs::remove_dir(&spare).unwrap();
    assert_eq!(commit(&mut journal, vec![opened(1_000_000, 5)]).unwrap(), [true]);
    known.remember(&opened(1_000_000, 5));
    assert!(!journal.is_full() && spare.exists());
    assert!(recovered(&journal) == known);
    drop(journal);
    let bytes = disk.0.lock().bytes.clone();
    assert!(Disk::holding(bytes).found().unwrap() == known);
}

#[test]
fn a_disk_that_fails_to_sync_ends_the_reign_though_room_is_set_aside() {
    let (disk, mut journal, _) = on_disk();
    let place = tempfile::tempdir().unwrap();
    journal.spare = Spare::new(place.path().join(SPARE));
    commit(&mut journal, vec![TOOK_OVER]).unwrap();
    disk.0.lock().fails_to_sync = true;
    let error = commit(&mut journal, vec![opened(1, 5)]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
    assert!(commit(&mut journal, vec![ended(1)]).is_err(), "it is of no more use");
}

/// A measurement: what a commit costs in one phase and in two, each time for the opening of one
/// session.
/// `cargo test --release --lib commit_speed -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn commit_speed() {
    const COMMITS: u128 = 300;
    let directory = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
    let (journal, _) = open(directory.path()).unwrap();
    for round in 0..3 {
        for two_phases in [false, true] {
            let mut took: Vec<_> = (0..COMMITS)
                .map(|session| {
                    let record = opened(session, 5);
                    let begin = std::time::Instant::now();
                    let mut transaction = journal.database().unwrap().begin_write().unwrap();
                    transaction.set_durability(Durability::Immediate).unwrap();
                    transaction.set_two_phase_commit(two_phases);
                    let bytes = wire::encode_record(&record);
                    let mut sessions = transaction.open_table(SESSIONS).unwrap();
                    sessions.insert(session, &bytes[..]).unwrap();
                    drop(sessions);
                    transaction.commit().unwrap();
                    begin.elapsed()
                })
                .collect();
            took.sort_unstable();
            let [middle, late] = [took.len() / 2, took.len() * 99 / 100].map(|at| took[at]);
            println!("round {round}, two phases {two_phases}: p50 {middle:?}, p99 {late:?}");
        }
    }
}
