//! Readers of the file-lock engine beside what other processes have of their file yet.

use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use super::*;
use crate::mode::{Room, Share};

/// A name that was read before, so that a writer looks for readers.
struct ReadName {
    dir: TempDir,
    one: Slot,
    two: Slot,
}

impl ReadName {
    fn new() -> ReadName {
        let dir = directory();
        let (one, two) = (slot(dir.path(), "a"), slot(dir.path(), "a"));
        let name = ReadName { dir, one, two };
        name.one.prepare_to_read().unwrap();
        name.two.prepare_to_read().unwrap();
        read(&name.one);
        name.one.unshare(Share::Reader);
        name
    }

    /// The file that its readers lock.
    fn file(&self) -> PathBuf {
        let directory = self.dir.path().join("readers");
        fs::read_dir(directory).unwrap().next().unwrap().unwrap().path()
    }

    /// The copies of all that this process has of that file, as a child made by `vfork` has them.
    fn copies(&self) -> Vec<OwnedFd> {
        let file = self.file();
        let descriptors = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
        let of_file = descriptors.filter(|entry| fs::read_link(entry).is_ok_and(|to| to == file));
        let own = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).unwrap();
        let copy = |entry: PathBuf| {
            let number = entry.file_name().unwrap().to_str().unwrap().parse().unwrap();
            pidfd_getfd(&own, number, PidfdGetfdFlags::empty()).unwrap()
        };
        of_file.map(copy).collect()
    }

    /// A writer comes in.
    fn write(&self) {
        try_take(&self.one).unwrap();
        let drained = self.one.drain(&mut Drainer::default(), Room::Alone, false).unwrap();
        assert!(matches!(drained, Drain::Drained));
    }
}

/// A reader comes in.
fn read(slot: &Slot) {
    let taken = take(slot);
    slot.read_under_the_word(&taken, true).unwrap();
    slot.release(Predecessor::Clean);
}

#[test]
fn a_writer_that_leaves_lets_readers_in_whatever_a_starting_child_has_copies_of() {
    let name = ReadName::new();
    name.write();
    let copies = name.copies();
    assert_eq!(copies.len(), 1);
    name.one.release(Predecessor::Clean);
    // No later than that.
    assert!(fs4::FileExt::try_lock_shared(&File::open(name.file()).unwrap()).is_ok());
    drop(copies);
}

#[test]
fn a_reader_that_leaves_lets_a_writer_in_whatever_a_starting_child_has_copies_of() {
    let name = ReadName::new();
    read(&name.two);
    let copies = name.copies();
    assert_eq!(copies.len(), 1);
    name.two.unshare(Share::Reader);
    name.write();
    drop(copies);
}

/// Its process ends, or a child of it is about to execute another program: the gate is free before that.
#[test]
fn a_reader_waits_for_what_a_killed_writer_has_left() {
    let name = ReadName::new();
    let left = File::open(name.file()).unwrap();
    fs4::FileExt::lock(&left).unwrap();
    thread::scope(|scope| {
        let reader = scope.spawn(|| read(&name.two));
        while name.one.holder().is_none() {
            thread::yield_now();
        }
        fs4::FileExt::unlock(&left).unwrap();
        reader.join().unwrap();
    });
    assert!(name.two.is_read());
}
