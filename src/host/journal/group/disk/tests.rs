use proptest::prelude::*;

use super::*;
use crate::proto::{
    ClusterId,
    group::{GroupEntry, GroupMembers, GroupSeat, MemberName, VoterId},
};

fn vote(term: u64) -> GroupWrite {
    GroupWrite::Vote { term, voted_for: Some(VoterId(term + 1)) }
}

fn entries(after: u64, terms: &[u64]) -> GroupWrite {
    GroupWrite::Entries {
        after,
        entries: terms.iter().map(|term| GroupEntry::Term(*term)).collect(),
    }
}

fn members() -> GroupWrite {
    let seat = |name: &str, disk| GroupSeat { member: MemberName::new(name), disk: DiskId(disk) };
    let voters = vec![seat("a", 1), seat("b", 2), seat("c", 3)];
    let members =
        GroupMembers { cluster: ClusterId(77), voters, new_voters: vec![], learners: vec![] };
    GroupWrite::Entries { after: 0, entries: vec![GroupEntry::Members(members)] }
}

/// What a disk has that has seen these.
fn after(writes: &[GroupWrite]) -> Option<StoredGroup> {
    let mut stored = None::<StoredGroup>;
    for write in writes {
        stored.get_or_insert_default().remember(write.clone()).unwrap();
    }
    stored
}

fn whole(writes: &[GroupWrite]) -> GroupWrite {
    GroupWrite::Whole(Box::new(after(writes).unwrap_or_default()))
}

/// What a test says of the room that a disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TriedRoom {
    Plenty,
    /// What was set aside, once it is given.
    Spare,
    None,
}

impl TriedRoom {
    pub(super) fn is_for_write(self, spare: u64) -> bool {
        self == TriedRoom::Plenty || self == TriedRoom::Spare && spare == 0
    }
}

struct DiskPlace(tempfile::TempDir);

impl DiskPlace {
    fn new() -> DiskPlace {
        DiskPlace(tempfile::tempdir().unwrap())
    }

    fn log(&self) -> PathBuf {
        self.0.path().join(GROUP_LOG)
    }

    fn make(&self) -> GroupDisk {
        GroupDisk::make(self.0.path()).unwrap()
    }

    fn open(&self) -> Result<(GroupDisk, Option<StoredGroup>), LockError> {
        GroupDisk::open(self.0.path(), false)
    }

    /// In place, as a disk would be found: the file is the same.
    fn spoil(&self, bytes: &[u8]) {
        fs::write(self.log(), bytes).unwrap();
    }

    /// As after a loss of power: nothing but the log itself was waited for.
    fn forget_commits(&self) {
        fs::write(self.0.path().join(COMMITS), []).unwrap();
        Commits::make(&self.0.path().join(COMMITS)).unwrap();
    }
}

fn some_writes() -> Vec<GroupWrite> {
    vec![vote(1), members(), entries(1, &[1, 1]), vote(2), entries(2, &[2])]
}

#[test]
fn what_was_written_is_there_after_a_restart_and_the_disk_is_the_same() {
    let place = DiskPlace::new();
    let mut disk = place.make();
    let id = disk.id();
    let writes = some_writes();
    for (number, write) in writes.iter().enumerate() {
        disk.write(std::slice::from_ref(write)).unwrap();
        drop(disk);
        let stored;
        (disk, stored) = place.open().unwrap();
        assert_eq!((disk.id(), stored), (id, after(&writes[..=number])));
    }
    assert!(is_made(&after(&writes).unwrap()) && !is_made(&after(&writes[..1]).unwrap()));
    assert_eq!(
        fs::read_to_string(place.0.path().join("cluster")).unwrap(),
        format!("{:032x}\n", 77)
    );
}

#[test]
fn a_new_disk_has_nothing_and_each_is_another() {
    let place = DiskPlace::new();
    let id = place.make().id();
    let (disk, stored) = place.open().unwrap();
    assert_eq!((disk.id(), stored), (id, None));
    assert_ne!(DiskPlace::new().make().id(), id);
}

#[test]
fn a_write_that_is_torn_at_any_byte_is_cut_and_all_before_it_is_there() {
    let writes = some_writes();
    for torn in 1.. {
        // Each on a disk of its own: one that is opened is another file from then on.
        let place = DiskPlace::new();
        let mut disk = place.make();
        disk.write(&writes[..2]).unwrap();
        let durable = fs::read(place.log()).unwrap().len();
        disk.write(&writes[2..]).unwrap();
        drop(disk);
        let bytes = fs::read(place.log()).unwrap();
        let end = bytes.len() - torn;
        if end < durable {
            assert!(torn > 1);
            break;
        }
        place.spoil(&bytes[..end]);
        place.forget_commits();
        let (mut disk, stored) = place.open().unwrap();
        assert_eq!(stored, after(&writes[..2]), "{end}");
        // And it goes on from there.
        disk.write(&writes[2..]).unwrap();
        drop(disk);
        assert_eq!(place.open().unwrap().1, after(&writes), "{end}");
    }
}

#[test]
fn a_confirmed_write_that_is_missing_is_refused() {
    let place = DiskPlace::new();
    let mut disk = place.make();
    disk.write(&some_writes()[..2]).unwrap();
    let durable = fs::read(place.log()).unwrap();
    disk.write(&some_writes()[2..]).unwrap();
    drop(disk);
    place.spoil(&durable);
    let error = place.open().err().unwrap();
    assert_eq!(error.kind(), LockErrorKind::Damaged);
    assert!(error.to_string().contains("it has 1 writes, and had 2"), "{error}");
    assert!(error.to_string().contains("tierlock replace"), "{error}");
}

#[test]
fn one_turned_bit_anywhere_is_refused() {
    let place = DiskPlace::new();
    let mut disk = place.make();
    for write in some_writes() {
        disk.write(&[write]).unwrap();
    }
    drop(disk);
    let bytes = fs::read(place.log()).unwrap();
    for at in 0..bytes.len() {
        let mut bent = bytes.clone();
        bent[at] ^= 1 << (at % 8);
        place.spoil(&bent);
        let error = place.open().err().unwrap_or_else(|| panic!("byte {at} is not missed"));
        assert_eq!(error.kind(), LockErrorKind::Damaged, "{at}");
    }
    place.spoil(&bytes);
    place.open().unwrap();
}

#[test]
fn a_snapshot_begins_the_file_anew() {
    let place = DiskPlace::new();
    let mut disk = place.make();
    let id = disk.id();
    disk.write(&[members()]).unwrap();
    for term in 1..200 {
        disk.write(&[vote(term)]).unwrap();
    }
    let long = fs::metadata(place.log()).unwrap().len();
    disk.write(&[vote(200), whole(&some_writes()), vote(201)]).unwrap();
    assert!(fs::metadata(place.log()).unwrap().len() < long / 4);
    drop(disk);
    let mut all = some_writes();
    all.push(vote(201));
    let (mut disk, stored) = place.open().unwrap();
    assert_eq!((disk.id(), stored), (id, after(&all)));
    disk.write(&[vote(202)]).unwrap();
    all.push(vote(202));
    drop(disk);
    assert_eq!(place.open().unwrap().1, after(&all));
}

#[test]
fn a_crash_while_the_file_is_begun_anew_leaves_the_old_one() {
    let place = DiskPlace::new();
    let mut disk = place.make();
    disk.write(&some_writes()).unwrap();
    let old = fs::read(place.log()).unwrap();
    disk.write(&[whole(&[vote(9)])]).unwrap();
    let new = fs::read(place.log()).unwrap();
    drop(disk);
    // The new one had not got its name yet, however much of it was written.
    for end in 0..new.len() {
        let place = DiskPlace::new();
        let mut disk = place.make();
        disk.write(&some_writes()).unwrap();
        assert_eq!(fs::read(place.log()).unwrap().len(), old.len());
        fs::write(place.0.path().join(UNFINISHED), &new[..end]).unwrap();
        drop(disk);
        let (mut disk, stored) = place.open().unwrap();
        assert_eq!(stored, after(&some_writes()));
        disk.write(&[whole(&[vote(9)])]).unwrap();
        drop(disk);
        assert_eq!(place.open().unwrap().1, after(&[vote(9)]));
    }
}

#[test]
fn a_copy_votes_for_no_member() {
    let place = DiskPlace::new();
    let mut disk = place.make();
    disk.write(&some_writes()).unwrap();
    drop(disk);
    let copy = DiskPlace::new();
    for name in [GROUP_LOG, COMMITS] {
        // The original stays where it is, so that the copy gets another inode.
        fs::copy(place.0.path().join(name), copy.0.path().join(name)).unwrap();
    }
    let error = copy.open().err().unwrap();
    assert_eq!(error.kind(), LockErrorKind::Config);
    assert!(error.to_string().contains("--epoch-above"), "{error}");
    // All of a group is restored.
    let (disk, stored) = GroupDisk::open(copy.0.path(), true).unwrap();
    assert_eq!(stored, after(&some_writes()));
    drop(disk);
    assert_eq!(copy.open().unwrap().1, after(&some_writes()));
}

#[test]
fn what_is_no_log_is_refused() {
    for bytes in [&b""[..], b"not a log of a group, but something else that is longer than a head"]
    {
        let place = DiskPlace::new();
        drop(place.make());
        place.spoil(bytes);
        assert_eq!(place.open().err().unwrap().kind(), LockErrorKind::Damaged);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Batches of any size, now and then all anew, and a restart wherever.
    #[test]
    fn a_disk_has_what_it_was_told_in_order(
        steps in proptest::collection::vec((0..4_u8, any::<bool>(), any::<bool>()), 1..30),
    ) {
        let place = DiskPlace::new();
        let mut disk = place.make();
        let mut told: Vec<GroupWrite> = Vec::new();
        let mut batch = Vec::new();
        for (number, (kind, ends_batch, restarts)) in steps.into_iter().enumerate() {
            let term = number as u64;
            let last = after(&told).map_or(0, |stored| stored.entries.len() as u64);
            let write = match kind {
                0 => vote(term),
                1 => whole(&told),
                2 => entries(last / 2, &[term]),
                _ => entries(last, &[term, term]),
            };
            told.push(write.clone());
            batch.push(write);
            if ends_batch {
                disk.write(&batch).unwrap();
                batch.clear();
                if restarts {
                    drop(disk);
                    let stored;
                    (disk, stored) = place.open().unwrap();
                    prop_assert_eq!(stored, after(&told));
                }
            }
        }
    }
}

#[test]
fn a_disk_becomes_another_and_its_log_is_kept() {
    let place = DiskPlace::new();
    let mut disk = place.make();
    disk.write(&[members(), entries(1, &[1, 1])]).unwrap();
    let before = fs::read(place.log()).unwrap();
    let old = disk.id();
    let new = disk.become_another().unwrap();
    assert_eq!(disk.id(), new);
    assert_ne!(new, old);
    assert_eq!(fs::read(place.0.path().join(PUT_BACK)).unwrap(), before);
    drop(disk);
    let (mut disk, stored) = place.open().unwrap();
    assert_eq!((disk.id(), stored), (new, None));
    disk.write(&[vote(9)]).unwrap();
    drop(disk);
    let (disk, stored) = place.open().unwrap();
    assert_eq!((disk.id(), stored), (new, after(&[vote(9)])));
}

#[test]
fn a_full_disk_writes_into_what_was_set_aside_and_sets_it_aside_again() {
    let place = DiskPlace::new();
    let spare = place.0.path().join(SPARE);
    let mut disk = place.make();
    let writes = some_writes();
    disk.write(&writes[..2]).unwrap();
    assert_eq!(fs::metadata(&spare).unwrap().len(), SPARE_BYTES_MIN);
    disk.room = TriedRoom::Spare;
    disk.write(&writes[2..3]).unwrap();
    assert!(disk.is_low() && !spare.exists());
    let looks = Instant::now();
    disk.set_aside(looks);
    assert!(disk.is_low() && !spare.exists());
    disk.write(&writes[3..4]).unwrap();
    disk.room = TriedRoom::None;
    assert!(matches!(disk.write(&writes[4..]), Err(DiskTrouble::Full(_))));
    assert!(disk.is_low());
    disk.room = TriedRoom::Plenty;
    disk.write(&writes[4..]).unwrap();
    disk.set_aside(looks + LOOK_PAUSE / 2);
    assert!(disk.is_low(), "it looked just before");
    disk.set_aside(looks + LOOK_PAUSE);
    assert!(!disk.is_low());
    assert_eq!(fs::metadata(&spare).unwrap().len(), SPARE_BYTES_MIN);
    drop(disk);
    assert_eq!(place.open().unwrap().1, after(&writes));
}

#[test]
fn what_was_set_aside_is_there_after_a_restart_and_grows_with_the_log_by_doubling() {
    let place = DiskPlace::new();
    let spare = place.0.path().join(SPARE);
    let mut disk = place.make();
    let now = Instant::now();
    disk.end = SPARE_BYTES_MIN + 1;
    disk.set_aside(now);
    assert_eq!(disk.spare.bytes(), 2 * SPARE_BYTES_MIN);
    // The log grows within that: it is not even looked at.
    fs::remove_file(&spare).unwrap();
    disk.end = 2 * SPARE_BYTES_MIN;
    disk.set_aside(now);
    assert!(!spare.exists());
    drop(disk);
    fs::write(&spare, vec![7; 3 * SPARE_BYTES_MIN as usize]).unwrap();
    assert_eq!(Spare::new(spare).bytes(), 3 * SPARE_BYTES_MIN);
}

#[test]
fn more_that_cannot_be_set_aside_takes_nothing_from_what_is() {
    let place = DiskPlace::new();
    let mut disk = place.make();
    disk.end = SPARE_BYTES_MIN + 1;
    disk.room = TriedRoom::None;
    disk.set_aside(Instant::now());
    assert_eq!((disk.spare.bytes(), disk.is_low()), (SPARE_BYTES_MIN, false));
    disk.room = TriedRoom::Plenty;
    // No file is that long.
    disk.spare.set_aside(i64::MAX as u64).unwrap_err();
    assert_eq!(disk.spare.bytes(), SPARE_BYTES_MIN);
    assert_eq!(fs::metadata(place.0.path().join(SPARE)).unwrap().len(), SPARE_BYTES_MIN);
}

#[test]
fn a_disk_that_has_nothing_aside_and_no_room_for_it_is_low() {
    let place = DiskPlace::new();
    let mut disk = place.make();
    disk.spare.release();
    (disk.room, disk.next_look) = (TriedRoom::None, None);
    let now = Instant::now();
    disk.set_aside(now);
    assert_eq!((disk.spare.bytes(), disk.is_low()), (0, true));
    disk.room = TriedRoom::Plenty;
    disk.set_aside(now + LOOK_PAUSE);
    assert!(disk.spare.bytes() > 0 && !disk.is_low());
}

#[test]
fn a_disk_that_is_full_becomes_another_with_what_was_set_aside() {
    let place = DiskPlace::new();
    let mut disk = place.make();
    disk.write(&[members(), entries(1, &[1, 1])]).unwrap();
    disk.room = TriedRoom::None;
    assert!(matches!(disk.become_another(), Err(DiskTrouble::Full(_))));
    assert!(disk.is_low());
    disk.room = TriedRoom::Spare;
    let new = disk.become_another().unwrap();
    assert!(disk.is_low() && disk.id() == new);
    drop(disk);
    assert_eq!(place.open().unwrap().0.id(), new);
}

#[test]
fn the_log_that_is_kept_is_that_of_the_disk_that_was_put_back_however_often_it_is_tried() {
    let place = DiskPlace::new();
    let kept = place.0.path().join(PUT_BACK);
    fs::write(&kept, "of an earlier time").unwrap();
    let mut disk = place.make();
    disk.write(&[members(), entries(1, &[1, 1])]).unwrap();
    let before = fs::read(place.log()).unwrap();
    disk.keep_log().unwrap();
    // The new log has the name already, and the directory could not be synced.
    drop(begin_file(place.0.path(), DiskId(9), 3).unwrap());
    put_in_place(&place.0.path().join(UNFINISHED), GROUP_LOG).unwrap();
    disk.become_another().unwrap();
    assert_eq!(fs::read(&kept).unwrap(), before);
    // Where there are no hard links it is copied; what cannot be copied leaves nothing.
    fs::remove_file(&kept).unwrap();
    copy_whole(&place.log(), &kept).unwrap();
    assert_eq!(fs::read(&kept).unwrap(), fs::read(place.log()).unwrap());
    copy_whole(&place.0.path().join("nothing"), &kept).unwrap_err();
}
