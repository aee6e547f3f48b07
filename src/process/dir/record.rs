//! What stands in a lock file, word by word.
//!
//! | words | what | written by |
//! |---|---|---|
//! | 0 | magic, stored last | each process that finds zeros |
//! | 1..34 | the whole name: length, bytes | each process that finds zeros |
//! | 40 | token of the last grant | the holder |
//! | 41 | how the last holder left; `Died` while the lock is held | the holder |
//! | 42 | life byte of the holder (1: it has none), 0 when free | the holder |
//! | 43 | what the holder was told about its predecessor | the holder |
//! | 44..46 | the end of `at_least`: time, boot id; time 0: there is none | the holder |
//! | 47 | 1 if the name was ever shared, for good; and 2 while readers may come in beside the holder | the holder |
//! | 48.. | holder: sequence, pid, since, boot id, label, host, command, pid namespace, start | the holder |
//! | 128.. | what widened the name: length, text | the first process that does |
//!
//! The holder is the process that has the file's lock. Everything about it is a hint for people,
//! except words 40, 41 and 44 to 46, and even those can only be wrong, never out of bounds: a
//! process that may write the file is trusted with its meaning, not with our memory. Nothing here
//! locks or decides.

use std::{
    sync::atomic::{Ordering, fence},
    time::Duration,
};

use crate::{
    clock,
    error::{Holder, Predecessor},
    fork::FirstMade,
    identity::{cut, this_process},
    name::Name,
    time::{AT_LEAST_MAX, Time},
    token::Token,
};

use super::births::Birth;
use crate::process::sys::{BYTES, WORDS, Words};

const MAGIC: u64 = u64::from_be_bytes(*b"tierlok1");
const NAME: Text = Text { at: 1, words: 32 };
const HEADER: usize = 34;
const TOKEN: usize = 40;
const LEFT: usize = 41;
const HELD_BY: usize = 42;
const BEFORE: usize = 43;
const END: usize = 44;
const END_BOOT: [usize; 2] = [45, 46];
const SHARING: usize = 47;
const SEQUENCE: usize = 48;
const PID: usize = 49;
const SINCE: usize = 50;
const BOOT: [usize; 2] = [51, 52];
const LABEL: Text = Text { at: 53, words: 16 };
const HOST: Text = Text { at: 70, words: 8 };
const COMMAND: Text = Text { at: 79, words: 32 };
const BIRTH: [usize; 2] = [113, 114];
const WIDENED: Text = Text { at: 128, words: 32 };

const _: () = assert!(
    LABEL.end() <= HOST.at
        && HOST.end() <= COMMAND.at
        && COMMAND.end() <= BIRTH[0]
        && BIRTH[1] < WIDENED.at
        && WIDENED.end() <= WORDS
        && NAME.end() == HEADER
);

/// Where words can be read.
pub(in crate::process) trait ReadWords {
    fn word(&self, at: usize) -> u64;
}

impl ReadWords for Words {
    fn word(&self, at: usize) -> u64 {
        self.load(at)
    }
}

/// A copy of a lock file.
pub(in crate::process) struct Copy(Box<[u8; BYTES]>);

impl Copy {
    pub(in crate::process) fn new(bytes: Box<[u8; BYTES]>) -> Copy {
        Copy(bytes)
    }

    /// The name it says it belongs to.
    pub(in crate::process) fn name(&self) -> Option<Name> {
        if self.word(0) != MAGIC {
            return None;
        }
        Name::new(&NAME.read(self)?).ok()
    }
}

impl ReadWords for Copy {
    fn word(&self, at: usize) -> u64 {
        let (words, _) = self.0.as_chunks::<8>();
        u64::from_ne_bytes(words[at])
    }
}

/// Makes the file `name`'s if it is blank, or says which name it belongs to.
///
/// Several may do this at once, for they store the same; a file that lost its contents with the
/// power is blank again.
pub(in crate::process) fn settle(words: &Words, name: &Name) -> Result<(), String> {
    let mut expected = [0; HEADER];
    expected[0] = MAGIC;
    NAME.write(name, |at, word| expected[at] = word);
    let blank = match words.load(0) {
        MAGIC => false,
        0 => true,
        other => return Err(format!("it starts with {other:#x}, which tierlock did not write")),
    };
    for (at, wanted) in expected.iter().enumerate().skip(1) {
        let found = words.load(at);
        if found != *wanted && !(blank && found == 0) {
            let other = NAME.read(words).unwrap_or_default();
            return Err(format!("it belongs to another name, {other:?}"));
        }
    }
    if blank {
        expected.iter().enumerate().rev().for_each(|(at, word)| words.store(at, *word));
    }
    Ok(())
}

/// The stored token; `None` if the number is none.
pub(in crate::process) fn token(file: &impl ReadWords) -> Option<Token> {
    Token::new(file.word(TOKEN))
}

pub(in crate::process) fn set_token(words: &Words, token: Token) {
    words.store(TOKEN, token.get());
}

/// How the last holder left; for the next one, which has the lock.
pub(in crate::process) fn left(file: &impl ReadWords) -> Predecessor {
    predecessor(file.word(LEFT))
}

/// What the present holder was told.
pub(in crate::process) fn before(file: &impl ReadWords) -> Predecessor {
    predecessor(file.word(BEFORE))
}

fn predecessor(word: u64) -> Predecessor {
    Predecessor::from_u8(u8::try_from(word).unwrap_or(u8::MAX))
}

/// The life byte of the holder, if the file says that there is one: locked while the holder lives.
pub(in crate::process) fn held_by(file: &impl ReadWords) -> Option<u64> {
    Some(file.word(HELD_BY)).filter(|life| *life != 0)
}

/// Enters the holder of the token. Until it releases the lock it counts as died.
pub(in crate::process) fn enter(words: &Words, token: Token, life: u64, taker: Taker<'_>) {
    words.store(BEFORE, words.load(LEFT));
    words.store(LEFT, Predecessor::Died as u64);
    set_token(words, token);
    publish(words, taker);
    words.store(HELD_BY, life);
}

/// The holder goes. `is_inherited`: it leaves the lock to a process that has its proof of life.
pub(in crate::process) fn leave(words: &Words, how: Predecessor, is_inherited: bool) {
    words.store(LEFT, how as u64);
    if !is_inherited {
        words.store(HELD_BY, 0);
    }
}

/// Writes down until when the lock stays taken, whatever becomes of its holder; `None` ends that.
pub(in crate::process) fn keep_until(words: &Words, end: Option<Time>) {
    // The time comes last: an end half written is none.
    words.store(END, 0);
    if let Some(end) = end {
        END_BOOT.iter().zip(boot()).for_each(|(at, half)| words.store(*at, half));
        words.store(END, end.as_nanos());
    }
}

/// For how long the lock stays taken though its holder is gone, if it does. A reboot ends that.
pub(in crate::process) fn stays_for(file: &impl ReadWords) -> Option<Duration> {
    let left = Time::from_nanos(file.word(END)).since(clock::now());
    // What lies further ahead was written by no lock.
    let is_ahead = !left.is_zero() && left <= AT_LEAST_MAX;
    (is_ahead && END_BOOT.map(|at| file.word(at)) == boot()).then_some(left)
}

/// In the word [`SHARING`]: readers were inside once.
const WAS_SHARED: u64 = 1;
/// In the word [`SHARING`]: readers may come in beside the holder.
const READABLE: u64 = 2;

/// Whether readers were ever inside.
pub(in crate::process) fn was_shared(words: &Words) -> bool {
    words.load(SHARING) & WAS_SHARED != 0
}

/// Readers come inside.
pub(in crate::process) fn share(words: &Words) {
    let before = words.load(SHARING);
    if before & WAS_SHARED == 0 {
        words.store(SHARING, before | WAS_SHARED);
    }
}

/// Whether readers may come in beside the holder.
pub(in crate::process) fn is_readable(words: &Words) -> bool {
    fence(Ordering::SeqCst);
    words.load(SHARING) & READABLE != 0
}

pub(in crate::process) fn set_readable(words: &Words, readable: bool) {
    let before = words.load(SHARING);
    let after = if readable { before | READABLE } else { before & !READABLE };
    if before != after {
        words.store(SHARING, after);
        fence(Ordering::SeqCst);
    }
}

/// What widened the name, if it is wide.
pub(in crate::process) fn widened_by(file: &impl ReadWords) -> Option<String> {
    WIDENED.read(file)
}

/// Marks the name as widened, for good; the first one to do so is remembered.
pub(in crate::process) fn widen(words: &Words, by: &str) {
    if words.load(WIDENED.at) != 0 {
        return;
    }
    let by = if by.is_empty() { "an unknown process" } else { by };
    // The length comes last: a mark half written is none.
    let mut length = 0;
    WIDENED.write(by, |at, word| {
        if at == WIDENED.at {
            length = word;
        } else {
            words.store(at, word);
        }
    });
    words.store(WIDENED.at, length);
}

/// What a holder says about itself.
#[derive(Clone, Copy)]
pub(in crate::process) struct Taker<'a> {
    pub(in crate::process) pid: u32,
    /// Which process that pid means, where that is known.
    pub(in crate::process) birth: Option<Birth>,
    pub(in crate::process) label: &'a str,
}

fn publish(words: &Words, Taker { pid, birth, label }: Taker<'_>) {
    let myself = this_process();
    let sequence = words.load(SEQUENCE) | 1;
    words.store(SEQUENCE, sequence);
    fence(Ordering::Release);
    words.store(PID, pid.into());
    words.store(SINCE, clock::now().as_nanos());
    BOOT.iter().zip(boot()).for_each(|(at, half)| words.store(*at, half));
    BIRTH.iter().zip(Birth::parts(birth)).for_each(|(at, part)| words.store(*at, part));
    for (text, value) in [(LABEL, label), (HOST, &myself.host), (COMMAND, &myself.command)] {
        text.write(value, |at, word| words.store(at, word));
    }
    words.store(SEQUENCE, sequence.wrapping_add(1));
}

/// What the holder published; as little as its token, if it is publishing right now.
///
/// `sequence_now` reads the sequence again after everything else was read.
pub(in crate::process) fn holder(
    file: &impl ReadWords,
    sequence_now: impl FnOnce() -> u64,
) -> Holder {
    let sequence = file.word(SEQUENCE);
    let found = read_holder(file);
    fence(Ordering::Acquire);
    if sequence % 2 == 1 || sequence_now() != sequence {
        return Holder { token: token(file), ..Holder::default() };
    }
    found
}

/// Which process took it, if it said so. To be read as [`holder`] is: with the sequence before and
/// after.
#[cfg_attr(not(all(feature = "cli", target_os = "linux")), expect(dead_code))]
pub(in crate::process) fn birth(file: &impl ReadWords) -> Option<Birth> {
    let [namespace, started] = BIRTH.map(|at| file.word(at));
    Birth::from_parts(u32::try_from(file.word(PID)).ok()?, namespace, started)
}

/// Where the sequence stands, in bytes.
pub(in crate::process) const SEQUENCE_OFFSET: u64 = (SEQUENCE * size_of::<u64>()) as u64;

pub(in crate::process) fn sequence(file: &impl ReadWords) -> u64 {
    file.word(SEQUENCE)
}

fn read_holder(file: &impl ReadWords) -> Holder {
    let boot = BOOT.map(|at| file.word(at));
    let since = Time::from_nanos(file.word(SINCE));
    let now = clock::now();
    // Another boot's clock says nothing, nor does a time that is still to come.
    let meaningful = boot == self::boot() && boot != [0; 2] && since <= now;
    Holder {
        label: LABEL.read(file).unwrap_or_default(),
        label_is_proved: false,
        claims_label: false,
        host: HOST.read(file).unwrap_or_default(),
        pid: u32::try_from(file.word(PID)).ok().filter(|pid| *pid != 0),
        command: COMMAND.read(file).unwrap_or_default(),
        held: meaningful.then(|| now.since(since)),
        held_since_grant: true,
        token: token(file),
    }
}

/// Which boot of which machine (or container) this is, read once; zero where that is unknown.
pub(in crate::process) fn boot() -> [u64; 2] {
    static BOOT: FirstMade<[u64; 2]> = FirstMade::new();
    *BOOT.get_or_make(|| boot_id().unwrap_or_default())
}

fn boot_id() -> Option<[u64; 2]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let id = u128::from_str_radix(&text.trim().replace('-', ""), 16).ok()?;
    Some([(id >> 64) as u64, id as u64])
}

/// A place for a text: a word with its length in bytes, and words for its bytes.
#[derive(Clone, Copy)]
struct Text {
    at: usize,
    words: usize,
}

impl Text {
    const fn end(self) -> usize {
        self.at + 1 + self.words
    }

    /// Hands out the words of `text`, cut to fit.
    fn write(self, text: &str, mut store: impl FnMut(usize, u64)) {
        let text = cut(text, self.words * 8);
        store(self.at, text.len() as u64);
        for (word, bytes) in text.as_bytes().chunks(8).enumerate() {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            store(self.at + 1 + word, u64::from_ne_bytes(padded));
        }
    }

    /// The text; `None` if there is none.
    fn read(self, file: &impl ReadWords) -> Option<String> {
        let length = usize::try_from(file.word(self.at)).ok()?.min(self.words * 8);
        if length == 0 {
            return None;
        }
        let mut bytes = Vec::with_capacity(self.words * 8);
        for word in 0..length.div_ceil(8) {
            bytes.extend(file.word(self.at + 1 + word).to_ne_bytes());
        }
        bytes.truncate(length);
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}
