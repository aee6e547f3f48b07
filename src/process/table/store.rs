//! `DIR/table` as this process sees it: opened, believed in nothing, mapped part by part.
//!
//! What stands in the file may be hostile or broken. The header is read where it is needed, and
//! every number in it is checked against what it must fit: parts against the file's length,
//! numbers of slots and names against the parts there are. What does not fit is `Damaged`.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::*},
    },
};

use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};

use crate::{
    error::{LockError, LockErrorKind},
    fork::FirstMade,
    name::Name,
    token::Token,
};

use super::super::dir::{
    files::{self, FileIdentity, cannot_open},
    home::{self, Home, Replace, SAFELY, damaged, failed},
};
use super::{
    layout::{
        FIRST_HEADS, HEAD_PARTS, HEADS, Header, MAGIC, NAMES, PARTS, PARTS_BEGIN, RECORD_BYTES,
        RECORD_PARTS, RECORDS, SHARE_PARTS, SHARES, SLOTS, ShareRecord, UNITS_MAX, WaitRecord,
        place, size,
    },
    map::{Access, Cell, Loads, PAGE, Part, Shared},
    marks::Marks,
    slot::MappedSlot,
    step::step,
};

/// The file's name in its directory.
pub(super) const TABLE: &str = "table";
/// From this number of names on idle ones are forgotten: half a gigabyte or so.
const NAMES_MAX: u32 = 1 << 22;

/// The mapped table.
pub(super) struct MappedTable {
    file: File,
    access: Access,
    pub(super) identity: FileIdentity,
    header: Part<Header>,
    slots: Box<[FirstMade<Arc<Part<MappedSlot>>>; PARTS]>,
    names: Box<[FirstMade<Arc<Part<AtomicU32>>>; PARTS]>,
    heads: Box<[FirstMade<Arc<Part<AtomicU32>>>; HEAD_PARTS]>,
    records: [FirstMade<RecordPart>; RECORD_PARTS],
    shares: Box<[FirstMade<Arc<Part<ShareRecord>>>; SHARE_PARTS]>,
    key: [u64; 2],
}

/// A part of the wait records.
#[derive(Clone)]
pub(super) struct RecordPart {
    pub(super) slots: Arc<Part<AtomicU32>>,
    pub(super) records: Arc<Part<WaitRecord>>,
}

/// What a new table begins with.
pub(super) struct Beginning {
    /// Every token starts above it.
    pub(super) floor: Token,
    pub(super) limit: Token,
    pub(super) last_id: u64,
    pub(super) boot: [u64; 2],
}

impl MappedTable {
    /// Opens the table; `None` if there is none.
    pub(super) fn open(home: &Home, access: Access) -> Result<Option<MappedTable>, LockError> {
        let flags = match access {
            Access::Full => OFlags::RDWR | SAFELY,
            Access::Look => OFlags::RDONLY | SAFELY,
        };
        let file = match rustix::fs::openat(&home.fd, TABLE, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(about(home, cannot_open(e))),
        };
        MappedTable::of(file, access).map(Some).map_err(|error| about(home, error))
    }

    /// Opens it to look. A process that may only read may look all the same.
    pub(super) fn open_to_look(home: &Home) -> Result<Option<MappedTable>, LockError> {
        match MappedTable::open(home, Access::Full) {
            Err(error) if error.kind() == LockErrorKind::Refused => {
                MappedTable::open(home, Access::Look)
            }
            opened => opened,
        }
    }

    fn of(file: File, access: Access) -> Result<MappedTable, LockError> {
        let found = file.metadata().map_err(|e| failed("cannot look at it", e))?;
        if !found.is_file() {
            return Err(damaged("it is not a regular file"));
        }
        if found.len() < PARTS_BEGIN {
            return Err(damaged(format!("it has only {} bytes", found.len())));
        }
        let header = map(&file, 0, 1, access)?;
        let first: &Header = &header[0];
        match first.magic.seen() {
            MAGIC => {}
            other => {
                let what = format!("it starts with {other:#x}, which tierlock did not write");
                return Err(damaged(what));
            }
        }
        let key = [0, 1].map(|half| first.key[half].load(Relaxed));
        Ok(MappedTable {
            identity: FileIdentity::of_file(&file).map_err(|e| failed("cannot look at it", e))?,
            file,
            access,
            header,
            slots: Box::new([const { FirstMade::new() }; PARTS]),
            names: Box::new([const { FirstMade::new() }; PARTS]),
            heads: Box::new([const { FirstMade::new() }; HEAD_PARTS]),
            records: [const { FirstMade::new() }; RECORD_PARTS],
            shares: Box::new([const { FirstMade::new() }; SHARE_PARTS]),
            key,
        })
    }

    /// Makes a new table and puts it in place, when `enter` has put into it what belongs there from
    /// its begin; over another one only if that is to be replaced.
    pub(super) fn make(
        home: &Home,
        beginning: &Beginning,
        replace: Replace,
        enter: impl FnOnce(&MappedTable) -> io::Result<()>,
    ) -> Result<(), LockError> {
        let fill = |file: &File| {
            let first = [
                size(&SLOTS, 0) * 64,
                size(&NAMES, 0) * 4,
                size(&HEADS, 0) * 4,
                size(&RECORDS, 0) * RECORD_BYTES as usize,
            ];
            let end = PARTS_BEGIN + first.iter().sum::<usize>() as u64;
            files::reserve(file, 0, end)?;
            if file.metadata()?.len() < end {
                return Err(io::Error::other("it stays shorter than the space reserved"));
            }
            let header: Part<Header> = Part::map(file, 0, 1, Access::Full)?;
            let header = &header[0];
            let mut at = PARTS_BEGIN;
            let parts = [
                &header.slot_parts[0],
                &header.name_parts[0],
                &header.head_parts[0],
                &header.record_parts[0],
            ];
            for (part, bytes) in parts.into_iter().zip(first) {
                part.store(at, Relaxed);
                at += bytes as u64;
            }
            header.names_max.store(NAMES_MAX, Relaxed);
            header.floor.store(beginning.floor.get(), Relaxed);
            header.limit.store(beginning.limit.get(), Relaxed);
            header.last_id.store(beginning.last_id, Relaxed);
            for half in [0, 1] {
                header.boot[half].store(beginning.boot[half], Relaxed);
                header.key[half].store(home::random(), Relaxed);
            }
            header.magic.store(MAGIC, Release);
            let new = MappedTable::of(file.try_clone()?, Access::Full).map_err(io::Error::other)?;
            enter(&new)
        };
        home.write_aside(&home.fd, TABLE, replace, fill)
            .map_err(|e| about(home, failed("cannot make it", e)))
    }

    /// Which boot made it.
    pub(super) fn boot(&self) -> [u64; 2] {
        [0, 1].map(|half| self.header().boot[half].load(Relaxed))
    }

    /// The reserve of tokens, as far as the table knows it.
    pub(super) fn limit(&self) -> Result<Token, LockError> {
        let limit = self.header().limit.seen();
        Token::new(limit).ok_or_else(|| damaged("the token it counts to is none"))
    }

    /// Whether it was opened to be written.
    pub(super) fn may_write(&self) -> bool {
        self.access == Access::Full
    }

    pub(super) fn header(&self) -> &Header {
        &self.header[0]
    }

    /// That the path still leads to this very file.
    pub(super) fn is_in_place(&self, home: &Home) -> Result<bool, LockError> {
        match rustix::fs::statat(&home.fd, TABLE, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(FileIdentity::of(&found) == self.identity),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(about(home, failed("cannot look at it", e.into()))),
        }
    }

    pub(super) fn hash(&self, name: &Name) -> u64 {
        let [one, two] = self.key;
        siphasher::sip::SipHasher13::new_with_keys(one, two).hash(name.as_bytes())
    }

    // ---- slots ---------------------------------------------------------------------------------

    /// The slot of this number.
    pub(super) fn slot(&self, number: u32) -> Result<&MappedSlot, LockError> {
        let (part, at) = place(&SLOTS, number.into());
        Ok(&self.slot_part(part)?[at])
    }

    /// The same, to be kept.
    pub(super) fn slot_cell(&self, number: u32) -> Result<Cell<MappedSlot>, LockError> {
        let (part, at) = place(&SLOTS, number.into());
        let part = self.slot_part(part)?;
        Ok(Cell::new(part, at).expect("`place` stays within the part"))
    }

    fn slot_part(&self, part: usize) -> Result<&Arc<Part<MappedSlot>>, LockError> {
        self.part(&*self.slots, &self.header().slot_parts, part, &SLOTS)
    }

    // ---- names ---------------------------------------------------------------------------------

    /// Whether these bytes stand at this place among the names.
    pub(super) fn name_is(&self, at: u32, name: &[u8]) -> Result<bool, LockError> {
        let Some(units) = self.units(at, name.len().div_ceil(4))? else { return Ok(false) };
        Ok(name.chunks(4).zip(units).all(|(bytes, unit)| unit.load(Relaxed) == packed(bytes)))
    }

    /// That many bytes at this place among the names.
    pub(super) fn name_bytes(&self, at: u32, length: usize) -> Result<Option<Vec<u8>>, LockError> {
        let Some(units) = self.units(at, length.div_ceil(4))? else { return Ok(None) };
        let mut bytes: Vec<u8> =
            units.iter().flat_map(|unit| unit.load(Relaxed).to_le_bytes()).collect();
        bytes.truncate(length);
        Ok(Some(bytes))
    }

    /// Stores bytes among the names. Under the structural lock, at a place that no slot names yet:
    /// a look that finds one of them there finds what forgot the name before.
    pub(super) fn write_name(&self, at: u32, name: &[u8]) -> Result<(), LockError> {
        let units = self.units(at, name.len().div_ceil(4))?;
        let units = units.ok_or_else(|| damaged("a name crosses the end of its part"))?;
        name.chunks(4).zip(units).for_each(|(bytes, unit)| unit.store(packed(bytes), Release));
        Ok(())
    }

    /// What widened the name of this slot, in words.
    pub(super) fn widened_by(&self, slot: &MappedSlot) -> String {
        self.text_of(slot).ok().flatten().unwrap_or_else(|| "an unknown process".into())
    }

    fn text_of(&self, slot: &MappedSlot) -> Result<Option<String>, LockError> {
        let marks = Marks::of(slot);
        if !marks.has_text() {
            return Ok(None);
        }
        let at = u64::from(slot.name_offset.load(Relaxed)) + marks.name_length().div_ceil(4) as u64;
        let Ok(at) = u32::try_from(at) else { return Ok(None) };
        let Some([length]) = self.units(at, 1)? else { return Ok(None) };
        let length = (length.load(Relaxed) as usize).min(UNITS_MAX * 4);
        let Some(bytes) = self.name_bytes(at + 1, length)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        Ok(Some(text.replace(char::is_control, "\u{fffd}")))
    }

    /// `None` if they cross the end of their part, as no name does.
    fn units(&self, at: u32, count: usize) -> Result<Option<&[AtomicU32]>, LockError> {
        let (part, at) = place(&NAMES, at.into());
        if at + count > size(&NAMES, part) || self.header().name_parts[part].seen() == 0 {
            return Ok(None);
        }
        let part = self.part(&*self.names, &self.header().name_parts, part, &NAMES)?;
        Ok(Some(&part[at..at + count]))
    }

    // ---- the index -----------------------------------------------------------------------------

    /// The head of this chain.
    pub(super) fn head(&self, chain: u64) -> Result<&AtomicU32, LockError> {
        let (part, at) = place(&HEADS, chain);
        let part = self.part(&*self.heads, &self.header().head_parts, part, &HEADS)?;
        Ok(&part[at])
    }

    /// How many chains there are.
    pub(super) fn chains(&self) -> Result<u64, LockError> {
        match self.header().doublings.seen() {
            doublings if (doublings as usize) < HEAD_PARTS => Ok(FIRST_HEADS << doublings),
            _ => Err(damaged("its index is larger than an index can be")),
        }
    }

    // ---- wait records --------------------------------------------------------------------------

    /// A part of the wait records.
    pub(super) fn record_part(&self, part: usize) -> Result<&RecordPart, LockError> {
        let missing = || damaged("it names something beyond what it holds");
        let mapped = self.records.get(part).ok_or_else(missing)?;
        if let Some(mapped) = mapped.get() {
            return Ok(mapped);
        }
        let (at, count) = (self.header().record_parts[part].seen(), size(&RECORDS, part));
        if at == 0 {
            return Err(missing());
        }
        self.check_part(at, count as u64 * RECORD_BYTES)?;
        let records = at + count as u64 * size_of::<AtomicU32>() as u64;
        let new = RecordPart {
            slots: Arc::new(map(&self.file, at, count, self.access)?),
            records: Arc::new(map(&self.file, records, count, self.access)?),
        };
        Ok(mapped.get_or_make(|| new))
    }

    // ---- share records -------------------------------------------------------------------------

    /// The share record of this number, counted from 1.
    pub(super) fn share(&self, number: u32) -> Result<&ShareRecord, LockError> {
        let (part, at) = place(&SHARES, number.into());
        Ok(&self.share_part(part)?[at])
    }

    /// The same, to be kept.
    pub(super) fn share_cell(&self, number: u32) -> Result<Cell<ShareRecord>, LockError> {
        let (part, at) = place(&SHARES, number.into());
        Ok(Cell::new(self.share_part(part)?, at).expect("`place` stays within the part"))
    }

    fn share_part(&self, part: usize) -> Result<&Arc<Part<ShareRecord>>, LockError> {
        self.part(&*self.shares, &self.header().share_parts, part, &SHARES)
    }

    // ---- growth, under the structural lock -----------------------------------------------------

    /// Has a part of slots for this number.
    pub(super) fn grow_slots(&self, number: u32) -> Result<(), LockError> {
        let (part, _) = place(&SLOTS, number.into());
        self.grow(&self.header().slot_parts, part, size(&SLOTS, part) * 64)
    }

    /// Has a part of names for the unit of this number.
    pub(super) fn grow_names(&self, unit: u32) -> Result<(), LockError> {
        let (part, _) = place(&NAMES, unit.into());
        self.grow(&self.header().name_parts, part, size(&NAMES, part) * 4)
    }

    /// Has a part of share records for this number.
    pub(super) fn grow_shares(&self, number: u32) -> Result<(), LockError> {
        let (part, _) = place(&SHARES, number.into());
        if part >= SHARE_PARTS {
            return Err(damaged("it counts more share records than there can be"));
        }
        self.grow(&self.header().share_parts, part, size(&SHARES, part) * size_of::<ShareRecord>())
    }

    /// Has the part of heads that a doubling needs.
    pub(super) fn grow_heads(&self, part: usize) -> Result<(), LockError> {
        self.grow(&self.header().head_parts, part, size(&HEADS, part) * 4)
    }

    /// Has one more part of wait records, unless there are as many as there can be.
    pub(super) fn grow_records(&self) -> Result<(), LockError> {
        let parts = &self.header().record_parts;
        match parts.iter().position(|part| part.load(Relaxed) == 0) {
            None => Ok(()),
            Some(part) => self.grow(parts, part, size(&RECORDS, part) * RECORD_BYTES as usize),
        }
    }

    /// Killed at any step it leaves at most bytes behind the last part, which the next growth
    /// takes.
    fn grow(&self, parts: &[AtomicU64], part: usize, bytes: usize) -> Result<(), LockError> {
        if parts[part].load(Relaxed) != 0 {
            return Ok(());
        }
        let (at, bytes) = (self.end()?, bytes as u64);
        files::reserve(&self.file, at, bytes)
            .map_err(|e| failed("cannot allocate space for more names", e))?;
        if self.length()? < at + bytes {
            return Err(damaged("it stays as short as it was although space was allocated"));
        }
        step!(GrowReserved);
        parts[part].store(at, Release);
        step!(GrowDone);
        Ok(())
    }

    /// Where the parts end.
    fn end(&self) -> Result<u64, LockError> {
        let header = self.header();
        let ends = |parts: &[AtomicU64], starts: &'static [u64], bytes: u64| {
            let end = |(part, at): (usize, &AtomicU64)| match at.load(Relaxed) {
                0 => 0,
                at => at.saturating_add(size(starts, part) as u64 * bytes),
            };
            parts.iter().enumerate().map(end).max().unwrap_or_default()
        };
        let end = ends(&header.slot_parts, &SLOTS, 64)
            .max(ends(&header.name_parts, &NAMES, 4))
            .max(ends(&header.head_parts, &HEADS, 4))
            .max(ends(&header.record_parts, &RECORDS, RECORD_BYTES))
            .max(ends(&header.share_parts, &SHARES, size_of::<ShareRecord>() as u64));
        let fits = end.is_multiple_of(PAGE) && end >= PARTS_BEGIN && end <= self.length()?;
        if fits { Ok(end) } else { Err(damaged("its parts do not end where the file does")) }
    }

    fn length(&self) -> Result<u64, LockError> {
        self.file.metadata().map(|found| found.size()).map_err(|e| failed("cannot look at it", e))
    }

    /// A part, mapped by the first thread of this process that needs it.
    fn part<'a, T: Shared>(
        &self,
        mapped: &'a [FirstMade<Arc<Part<T>>>],
        parts: &[AtomicU64],
        part: usize,
        starts: &[u64],
    ) -> Result<&'a Arc<Part<T>>, LockError> {
        let missing = || damaged("it names something beyond what it holds");
        let mapped = mapped.get(part).ok_or_else(missing)?;
        if let Some(mapped) = mapped.get() {
            return Ok(mapped);
        }
        let (at, count) = (parts[part].seen(), size(starts, part));
        if at == 0 {
            return Err(missing());
        }
        self.check_part(at, (count * size_of::<T>()) as u64)?;
        let new = Arc::new(map(&self.file, at, count, self.access)?);
        Ok(mapped.get_or_make(|| new))
    }

    /// That a part of so many bytes lies in the file.
    fn check_part(&self, at: u64, bytes: u64) -> Result<(), LockError> {
        let end = at.checked_add(bytes);
        let fits = at.is_multiple_of(PAGE)
            && at >= PARTS_BEGIN
            && end.is_some_and(|end| self.length().is_ok_and(|length| end <= length));
        if fits { Ok(()) } else { Err(damaged("a part of it lies outside of it")) }
    }
}

/// `error` is about the table of this directory.
pub(super) fn about(home: &Home, error: LockError) -> LockError {
    home.about_file(TABLE, error)
}

fn map<T: Shared>(
    file: &File,
    at: u64,
    count: usize,
    access: Access,
) -> Result<Part<T>, LockError> {
    Part::map(file, at, count, access).map_err(|e| failed("cannot map it", e))
}

/// Up to four bytes as a unit.
fn packed(bytes: &[u8]) -> u32 {
    let mut unit = [0; 4];
    unit[..bytes.len()].copy_from_slice(bytes);
    u32::from_le_bytes(unit)
}
