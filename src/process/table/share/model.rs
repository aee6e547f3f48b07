//! Sharing a word under loom, which plays every interleaving and every value that a load may see:
//!
//! ```sh
//! RUSTFLAGS="--cfg tierlock_loom" cargo test --release --no-default-features --features testing \
//!     --lib share_model
//! ```
//!
//! Readers, a writer, upgrades, downgrades, permits. The machines are those of `protocol`, and the words are
//! those of the table; only the memory is loom's. loom takes a SeqCst load for an acquire, so the two looks
//! that the argument of `share` is about, a reader's at the word and a writer's at the counts, are exchanges
//! here. What loom adds to the step model is the order of everything else: that a writer sees what readers
//! read under, and readers what it wrote.

use std::cell::Cell;

use loom::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering::*},
    },
    thread,
};

use super::{
    protocol::{
        Answer, Draining, Leaving, Machine, Marking, Op, Outcome, Reading, ShareAnswer, ShareOp,
        Slept, SlotMark, Unsharing, Verdict, Way,
    },
    share::ShareWord,
    word::{OwnerId, Word},
};
use crate::{
    error::Predecessor,
    mode::{Room, Share},
    played,
};

/// Mistakes that the model plants, to see that it finds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ShareFlaw {
    /// The bell is read after the counts.
    BellReadLate,
    /// A reader that finds the word taken takes its 1 back, and rings nothing.
    TakenBackSilently,
    /// A reader looks at the word before it adds its 1.
    LookedBeforeAdding,
    /// A reader that comes in sees nothing of what the last writer did.
    CameInRelaxed,
    /// An upgrade waits for the readers that are inside, and lets others in.
    StaysReadable,
    /// An upgrade looks for readers, and lets no more of them in only then.
    ClosedAfterTheLook,
    /// A writer that becomes a reader releases the word, and then adds its 1.
    AddedAfterLeaving,
}

thread_local! {
    // loom runs all threads of a model on one thread of the system.
    static PLANTED: Cell<Option<ShareFlaw>> = const { Cell::new(None) };
}

fn flawed(flaw: ShareFlaw) -> bool {
    PLANTED.get() == Some(flaw)
}

/// A slot, and the share records of two processes.
struct SharedSlot {
    word: AtomicU64,
    records: [AtomicU64; 2],
    bell: AtomicU32,
    /// What the bell's sleepers sleep on.
    asleep: Mutex<()>,
    woken: Condvar,
    /// Two numbers that only a writer makes differ, read and written without an order of their own.
    data: [AtomicU64; 2],
    /// How many permits are taken.
    inside: AtomicU32,
}

/// The process that a writer is in; readers are in process 1 or 2.
const WRITERS: u64 = 3;

fn process(number: u64) -> OwnerId {
    OwnerId::new(number).expect("it is not 0")
}

impl SharedSlot {
    fn new() -> Arc<SharedSlot> {
        Arc::new(SharedSlot {
            word: AtomicU64::new(Word::left_so(Predecessor::Clean).bits()),
            records: [1, 2].map(|number| AtomicU64::new(ShareWord::of(process(number)).bits())),
            bell: AtomicU32::new(0),
            asleep: Mutex::new(()),
            woken: Condvar::new(),
            data: [(); 2].map(|()| AtomicU64::new(0)),
            inside: AtomicU32::new(0),
        })
    }

    /// Runs a machine to its end.
    fn run(&self, mut machine: impl Machine, leaves: bool) -> Outcome {
        let mut early = None;
        loop {
            let answer = match machine.op() {
                Op::End(outcome) => return outcome,
                Op::Load => early.take().unwrap_or_else(|| self.look_at_word()),
                Op::Swap { from, to } => {
                    let found = swap(&self.word, from.bits(), to.bits(), AcqRel);
                    Answer::Word(Word::from_bits(found))
                }
                Op::SeeToken => Answer::Yes(true),
                Op::SeeStay => Answer::Stay(None),
                Op::Judge(_) => Answer::Verdict(Verdict::Alive),
                Op::Wake(_) => Answer::Yes(false),
                Op::Share(op) => {
                    if flawed(ShareFlaw::LookedBeforeAdding) && matches!(op, ShareOp::Load(_)) {
                        early = Some(self.look_at_word());
                    }
                    self.perform(op, leaves)
                }
                op => unreachable!("{op:?} is nothing that is asked here"),
            };
            machine.heard(answer);
        }
    }

    fn look_at_word(&self) -> Answer {
        match flawed(ShareFlaw::CameInRelaxed) {
            true => Answer::Word(Word::from_bits(self.word.fetch_add(0, Relaxed))),
            false => Answer::Word(Word::from_bits(self.word.fetch_add(0, SeqCst))),
        }
    }

    fn perform(&self, op: ShareOp, leaves: bool) -> Answer {
        let record = |number: u32| &self.records[number as usize - 1];
        Answer::Share(match op {
            ShareOp::Load(number) => {
                ShareAnswer::Word(ShareWord::from_bits(record(number).fetch_add(0, SeqCst)))
            }
            ShareOp::Swap { number, from, to } => {
                let order = if flawed(ShareFlaw::CameInRelaxed) { Release } else { AcqRel };
                let found = swap(record(number), from.bits(), to.bits(), order);
                ShareAnswer::Word(ShareWord::from_bits(found))
            }
            ShareOp::Next(None) => ShareAnswer::Next(Some(1)),
            ShareOp::Next(Some(1)) => ShareAnswer::Next(Some(2)),
            ShareOp::Next(Some(_)) => ShareAnswer::Next(None),
            ShareOp::LoadBell => ShareAnswer::Bell(self.bell.load(SeqCst)),
            ShareOp::Ring => {
                if !(leaves && flawed(ShareFlaw::TakenBackSilently)) {
                    self.bell.fetch_add(1, SeqCst);
                }
                return Answer::Done;
            }
            ShareOp::WakeBell => {
                let _asleep = self.asleep.lock().unwrap();
                self.woken.notify_all();
                return Answer::Done;
            }
            ShareOp::SleepOnBell(bell) => return Answer::Slept(self.sleep(bell)),
        })
    }

    fn sleep(&self, bell: u32) -> Slept {
        let bell = if flawed(ShareFlaw::BellReadLate) { self.bell.load(SeqCst) } else { bell };
        let asleep = self.asleep.lock().unwrap();
        if self.bell.load(SeqCst) != bell {
            return Slept::Changed;
        }
        drop(self.woken.wait(asleep).unwrap());
        Slept::Woken
    }

    // ---- what users do ------------------------------------------------------------------------

    /// Comes in past the word, reads, and leaves; whether it came in.
    fn try_read(&self, number: u32, way: Way) -> bool {
        let me = process(number.into());
        let takes_back = flawed(ShareFlaw::TakenBackSilently);
        match self.run(Reading::new(me, number, way), takes_back) {
            Outcome::Won(_) => {}
            Outcome::WouldBlock => return false,
            outcome => panic!("{outcome:?}"),
        }
        self.see();
        assert_eq!(self.run(Unsharing::new(me, number, Share::Reader), true), Outcome::Released);
        true
    }

    /// Wins the word, which is free; another may have it.
    fn try_win(&self, number: u64) -> bool {
        let (held, free) = Word::left_quietly(process(number), Predecessor::Clean);
        swap(&self.word, free.bits(), held.bits(), AcqRel) == free.bits()
    }

    /// Waits for readers, and writes; for the holder of the word.
    fn write_once_alone(&self) {
        let drain = Draining::new(process(WRITERS), Room::Alone, true);
        assert_eq!(self.run(drain, false), Outcome::Drained);
        self.write_alone();
    }

    fn write_alone(&self) {
        for number in &self.data {
            // In one step: loom goes back to the last access of a word alone, and a load of the writer's own
            // would hide a reader's before it.
            number.fetch_add(1, Relaxed);
        }
    }

    fn see(&self) {
        let [one, other] = [0, 1].map(|at: usize| self.data[at].load(Relaxed));
        assert_eq!(one, other, "a write is half done");
    }

    fn leave(&self, number: u64) {
        let leaving = Leaving::held(process(number), Predecessor::Clean, false);
        assert_eq!(self.run(leaving, false), Outcome::Released);
    }

    fn write(&self) {
        assert!(self.try_win(WRITERS), "it is the only one");
        self.write_once_alone();
        self.leave(WRITERS);
    }

    fn mark(&self, number: u64, mark: SlotMark) {
        assert_eq!(self.run(Marking::new(process(number), mark), false), Outcome::Marked);
    }

    fn drain(&self, waits: bool) -> Outcome {
        self.run(Draining::new(process(WRITERS), Room::Alone, waits), false)
    }

    /// Reads as the one that may upgrade, and becomes the writer.
    fn upgrade(&self) {
        assert!(self.try_win(WRITERS), "it is the only one");
        self.mark(WRITERS, SlotMark::Readable(Predecessor::Clean));
        self.see();
        let looks_first = flawed(ShareFlaw::ClosedAfterTheLook);
        if looks_first {
            assert_eq!(self.drain(true), Outcome::Drained);
        }
        if !flawed(ShareFlaw::StaysReadable) {
            self.mark(WRITERS, SlotMark::Unreadable);
        }
        match looks_first {
            true => self.write_alone(),
            false => self.write_once_alone(),
        }
        self.leave_any(WRITERS);
    }

    /// The same, if no reader is inside; else it goes on reading.
    fn try_upgrade(&self) {
        assert!(self.try_win(WRITERS), "it is the only one");
        self.mark(WRITERS, SlotMark::Readable(Predecessor::Clean));
        self.mark(WRITERS, SlotMark::Unreadable);
        match self.drain(false) {
            Outcome::Drained => self.write_alone(),
            Outcome::WouldBlock => {
                self.mark(WRITERS, SlotMark::Readable(Predecessor::Clean));
                self.see();
            }
            outcome => panic!("{outcome:?}"),
        }
        self.leave_any(WRITERS);
    }

    /// Writes, and reads on: of process 2, which has a record.
    fn downgrade(&self) {
        let me = process(2);
        if !self.try_win(2) {
            return; // the other was first
        }
        let drain = Draining::new(me, Room::Alone, true);
        assert_eq!(self.run(drain, false), Outcome::Drained);
        self.write_alone();
        if flawed(ShareFlaw::AddedAfterLeaving) {
            self.leave(2);
        }
        let reading = Reading::new(me, 2, Way::UnderTheWord);
        assert!(matches!(self.run(reading, false), Outcome::Won(_)));
        if !flawed(ShareFlaw::AddedAfterLeaving) {
            self.leave(2);
        }
        self.see();
        assert_eq!(self.run(Unsharing::new(me, 2, Share::Reader), true), Outcome::Released);
    }

    /// Writes, if the word is free.
    fn write_if_free(&self) {
        if self.try_win(WRITERS) {
            self.write_once_alone();
            self.leave(WRITERS);
        }
    }

    /// Takes so many of three permits, and gives them back.
    fn take_permits(&self, number: u32, count: u32) {
        const LIMIT: u32 = 3;
        let me = process(number.into());
        while !self.try_win(number.into()) {
            thread::yield_now();
        }
        let room = Room::Beside(LIMIT - count);
        assert_eq!(self.run(Draining::new(me, room, true), false), Outcome::Drained);
        let counted = self.run(Reading::permits(me, number, count), false);
        assert!(matches!(counted, Outcome::Won(_)), "{counted:?}");
        self.leave_any(number.into());
        let before = self.inside.fetch_add(count, SeqCst);
        assert!(before + count <= LIMIT, "more are taken than there are");
        self.inside.fetch_sub(count, SeqCst);
        assert_eq!(
            self.run(Unsharing::new(me, number, Share::Permits(count)), true),
            Outcome::Released
        );
    }

    /// The same of a word that may bear the mark of a wait for permits.
    fn leave_any(&self, number: u64) {
        let me = process(number);
        let found = Word::from_bits(self.word.load(SeqCst));
        let leaving = Leaving::found(me, Predecessor::Clean, false, found);
        assert_eq!(self.run(leaving, false), Outcome::Released);
    }

    /// All are gone.
    fn end(&self) {
        let word = Word::from_bits(self.word.load(SeqCst));
        assert_eq!(word, Word::left_so(Predecessor::Clean));
        for record in &self.records {
            let record = ShareWord::from_bits(record.load(SeqCst));
            assert_eq!(record.count(), 0);
        }
    }
}

/// What was found; `from` if it is `to` now.
fn swap(word: &AtomicU64, from: u64, to: u64, order: loom::sync::atomic::Ordering) -> u64 {
    word.compare_exchange(from, to, order, Relaxed).unwrap_or_else(|found| found)
}

type ShareAct = fn(&SharedSlot);

/// `here` goes on, and the others do what they do meanwhile.
fn play(flaw: Option<ShareFlaw>, here: ShareAct, others: &'static [ShareAct]) {
    PLANTED.set(flaw);
    let preemptions = if others.len() > 1 { 2 } else { 6 };
    played::play(preemptions, SharedSlot::new, here, others, SharedSlot::end);
    PLANTED.set(None);
}

/// loom may end the process that finds a flaw in the middle of it: so it is another.
fn is_found(played: &str) {
    let (_, here) = module_path!().split_once("::").expect("a module of a crate");
    let played = format!("{here}::{played}");
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", &played, "--ignored", "--nocapture"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let found = ["deadlock", "a write is half done"].iter().any(|how| said.contains(how));
    assert!(!output.status.success() && found, "{output:?}");
}

/// A test that plants a flaw, and one that sees it found.
macro_rules! finds {
    ($($found:ident $played:ident: $flaw:ident, $here:expr, $beside:expr;)+) => {$(
        #[test]
        fn $found() {
            is_found(stringify!($played));
        }

        #[test]
        #[ignore = "a flaw, which the test before finds"]
        fn $played() {
            play(Some(ShareFlaw::$flaw), $here, &[$beside]);
        }
    )+};
}

finds! {
    found_a_bell_read_late a_bell_read_late: BellReadLate, SharedSlot::write, reads;
    found_a_silent_taking_back a_silent_taking_back: TakenBackSilently, SharedSlot::write, reads;
    found_a_look_before_adding a_look_before_adding: LookedBeforeAdding, SharedSlot::write, reads;
    found_a_relaxed_coming_in a_relaxed_coming_in: CameInRelaxed, SharedSlot::write, reads;
    found_an_upgrade_that_stays_readable an_upgrade_that_stays_readable:
        StaysReadable, SharedSlot::upgrade, reads;
    found_an_upgrade_closed_after_the_look an_upgrade_closed_after_the_look:
        ClosedAfterTheLook, SharedSlot::upgrade, reads;
    found_a_downgrade_that_adds_late a_downgrade_that_adds_late:
        AddedAfterLeaving, SharedSlot::downgrade, SharedSlot::write_if_free;
}

fn reads(slot: &SharedSlot) {
    slot.try_read(1, Way::Quiet);
}

fn reads_twice(slot: &SharedSlot) {
    slot.try_read(1, Way::Quiet);
    slot.try_read(1, Way::Quiet);
}

fn reads_elsewhere(slot: &SharedSlot) {
    slot.try_read(2, Way::Quiet);
}

#[test]
fn a_writer_and_a_reader_that_comes_in_twice() {
    play(None, SharedSlot::write, &[reads_twice]);
}

#[test]
fn a_writer_and_readers_of_two_processes() {
    play(None, SharedSlot::write, &[reads, reads_elsewhere]);
}

#[test]
fn a_writer_and_two_readers_of_one_process() {
    play(None, SharedSlot::write, &[reads, reads]);
}

#[test]
fn an_upgrade_beside_a_reader_that_comes_in_twice() {
    play(None, SharedSlot::upgrade, &[reads_twice]);
}

#[test]
fn an_upgrade_beside_readers_of_two_processes() {
    play(None, SharedSlot::upgrade, &[reads, reads_elsewhere]);
}

#[test]
fn an_upgrade_that_only_tries_beside_a_reader_that_comes_in_twice() {
    play(None, SharedSlot::try_upgrade, &[reads_twice]);
}

#[test]
fn a_downgrade_beside_a_reader_and_a_writer() {
    play(None, SharedSlot::downgrade, &[reads_twice]);
    play(None, SharedSlot::downgrade, &[SharedSlot::write_if_free]);
    play(None, SharedSlot::downgrade, &[reads, SharedSlot::write_if_free]);
}

#[test]
fn permits_of_two_processes() {
    fn two(slot: &SharedSlot) {
        slot.take_permits(1, 2);
    }
    fn two_elsewhere(slot: &SharedSlot) {
        slot.take_permits(2, 2);
    }
    play(None, two, &[two_elsewhere]);
}
