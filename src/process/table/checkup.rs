//! What is wrong with a directory of the table engine. See `process::checkup`.

use std::{io, sync::atomic::Ordering::*};

use crate::{
    error::{Holder, LockError},
    token::Token,
};

use super::super::dir::{
    home::Home,
    record,
    report::{DirectoryReport, Level, counted, foreign_entry, judge_file_rights},
};
use super::{
    index::Found,
    map::{Access, Loads},
    marks::Marks,
    presence::{PRESENCE, Presences, file_name},
    protocol::Verdict,
    reserve,
    share::ShareWord,
    slot::MappedSlot,
    store::{self, MappedTable},
    survey::Survey,
    word::{OwnerId, SlotState, Word},
};

/// How often what others may just be changing is looked at before it is damage.
const LOOKS: usize = 5;

/// Looks at the table, the tokens and the presences.
pub(in super::super) fn examine(home: Home, report: &mut DirectoryReport) {
    let presences = match Presences::open(&home) {
        Ok(presences) => presences,
        Err(error) => return report.error(&error),
    };
    let alive = examine_presences(&home, &presences, report);
    let table = match MappedTable::open(&home, Access::Look) {
        Ok(Some(table)) => table,
        Ok(None) => {
            report.add(Level::Damage, missing_table(alive));
            return examine_tokens(&home, None, report);
        }
        Err(error) => {
            report.error(&error);
            return examine_tokens(&home, None, report);
        }
    };
    examine_tokens(&home, Some(&table), report);
    if table.boot() != record::boot() {
        report.add(
            Level::Note,
            "its table is of another boot of the machine, or of a container with a boot id of its \
             own; the next process that opens it while no process is alive in it starts it anew, \
             above every token and with names as wide as they are",
        );
    }
    examine_structure(&home, &presences, &table, report);
    examine_slots(&home, Survey::new(presences, table), report);
}

fn missing_table(alive: usize) -> String {
    match alive {
        0 => "its table is missing; the next process that opens the directory makes a new one, \
              above every token, but names that were widened are narrow again: lock each of them \
              once at host scope"
            .into(),
        alive => format!(
            "its table was removed while {} used it, and those do not exclude processes that come \
             later; stop every process that uses the directory, then start them again",
            counted(alive, "process", "processes")
        ),
    }
}

// ---- tokens ------------------------------------------------------------------------------------

fn examine_tokens(home: &Home, table: Option<&MappedTable>, report: &mut DirectoryReport) {
    let known = table.map_or(Ok(Token::ZERO), MappedTable::limit);
    match (reserve::read(home), known) {
        (Err(error), _) => report.error(&error),
        (_, Err(error)) => report.error(&store::about(home, error)),
        (Ok(reserve), Ok(known)) if reserve < known => report.add(
            Level::Damage,
            format!(
                "tokens is missing or an old copy: it says {reserve}, and up to {known} may have \
                 been granted; the next process to use a lock here writes it anew, so use one \
                 before the machine is switched off"
            ),
        ),
        (Ok(reserve), Ok(_)) => {
            report.add(Level::Fine, format!("tokens are reserved up to {reserve}"));
        }
    }
}

// ---- presences ---------------------------------------------------------------------------------

/// How many processes are alive, or may be.
fn examine_presences(home: &Home, presences: &Presences, report: &mut DirectoryReport) -> usize {
    let (ids, others) = match presences.entries() {
        Ok(found) => found,
        Err(e) => {
            report.error(&home.failed("cannot list its presences", e));
            return 0;
        }
    };
    let foreign = others.iter().map(|name| foreign_entry(&format!("{PRESENCE}/{name}")));
    let (mut alive, mut dead, mut unknown, mut rights) = (0, Vec::new(), Vec::new(), Vec::new());
    for id in ids {
        match presences.verdict(id, &mut None) {
            // Gone since it was listed.
            (Verdict::Missing, _) => continue,
            (Verdict::Alive, _) => alive += 1,
            (Verdict::Dead, _) => dead.push(ended(id, presences.holder(id))),
            (Verdict::Unknown, why) => {
                alive += 1;
                unknown.push(unknowable(id, why));
            }
        }
        let name = file_name(id);
        let shown = format!("{PRESENCE}/{name}");
        let found = judge_file_rights(home, presences.fd(), &name, &shown, home.file_mode());
        rights.extend(found);
    }
    let count = counted(alive, "process", "processes");
    report.add(Level::Fine, format!("{count} alive in it"));
    report.list(Level::Note, "presences of the dead", dead);
    report.list(Level::Damage, "presences of unknown state", unknown);
    report.list(Level::Trouble, "entries among its presences", foreign.collect());
    report.list(Level::Trouble, "of its presences", rights);
    alive
}

fn ended(id: OwnerId, process: Option<Holder>) -> String {
    let process = process.unwrap_or_default();
    format!(
        "{PRESENCE}/{} is of a process that died, {process}; nothing needs to be done: it is removed \
         when no lock names it any more",
        file_name(id)
    )
}

fn unknowable(id: OwnerId, why: Option<io::Error>) -> String {
    let why = why.map_or_else(String::new, |why| format!(": {why}"));
    format!(
        "{PRESENCE}/{} does not tell whether its process is alive{why}; it counts as alive, and \
         its locks stay taken; if it is no file that can be read and locked, stop every process \
         that uses the directory and remove the directory",
        file_name(id)
    )
}

// ---- the table ---------------------------------------------------------------------------------

/// The lock of the table's own changes.
fn examine_structure(
    home: &Home,
    presences: &Presences,
    table: &MappedTable,
    report: &mut DirectoryReport,
) {
    let structure = &table.header().structure;
    if let Some(fault) = fault_of_word(structure, presences) {
        let text = format!("the lock of its own changes is damaged: {fault}");
        return report.error(&store::about(home, super::damaged(text)));
    }
    let word = Word::from_bits(structure.word.seen_in_order());
    let left_by_the_dead = match word.owner() {
        Some(owner) => presences.verdict(owner, &mut None).0 == Verdict::Dead,
        None => table.header().intent[0].load(Relaxed) != 0,
    };
    // A process that is alive and at it owns the word.
    if left_by_the_dead && structure.word.seen_in_order() == word.bits() {
        report.add(
            Level::Note,
            "a process died in the middle of a change of its table; nothing needs to be done: the \
             next change finishes or undoes it",
        );
    }
}

fn examine_slots(home: &Home, survey: Survey, report: &mut DirectoryReport) {
    let about = |error| store::about(home, error).to_string();
    let (mut names, mut damaged, mut struck) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..survey.table.header().slots_used.seen() {
        let slot = match survey.table.slot(number) {
            Ok(slot) => slot,
            Err(error) => {
                damaged.push(about(error));
                break;
            }
        };
        let fault = fault_of_word(slot, &survey.presences).map(super::damaged);
        let fault = fault.or_else(|| fault_of_index(&survey.table, number, slot).err());
        match fault.or_else(|| survey.fault_of_shares(slot, &mut struck)) {
            Some(error) => {
                let name = survey.table.name_of(slot).ok().flatten();
                damaged.push(about(match &name {
                    Some(name) => error.with_name(name),
                    None => error,
                }));
            }
            None => match survey.status(number, slot) {
                Ok(status) => names.extend(status),
                Err(error) => damaged.push(about(error)),
            },
        }
    }
    for text in &mut damaged {
        text.push_str("; stop every process that uses the directory and remove it");
    }
    report.names(&mut names);
    report.list(Level::Note, "counts of readers and permits whose process died", struck);
    report.list(Level::Damage, "faults of its table", damaged);
}

impl Survey {
    /// What is wrong with the chain of a slot's share records. Counts of the dead are no fault: they
    /// are told to `struck`.
    fn fault_of_shares(&self, slot: &MappedSlot, struck: &mut Vec<String>) -> Option<LockError> {
        let shares = match self.table.shares_of(slot) {
            Ok(shares) => shares,
            Err(error) => return Some(error),
        };
        let name = self.table.name_of(slot).ok().flatten();
        for share in shares.into_iter().filter(|share| share.count() > 0) {
            let Some(owner) = share.owner() else {
                let text = format!("a share record is {:#x}, which no lock wrote", share.bits());
                return Some(super::damaged(text));
            };
            match self.presences.verdict(owner, &mut None).0 {
                Verdict::Dead => struck.push(format!(
                    "{:?} counts {} of process {} of the directory, which died; nothing needs to be \
                     done: whatever waits for them takes them out",
                    name.as_deref().unwrap_or_default(),
                    share.count(),
                    owner.get()
                )),
                Verdict::Missing if self.is_counted_still(slot, share) => {
                    return Some(super::damaged(format!(
                        "process {} of the directory shares it and has no presence file, so it \
                         cannot be told whether it is alive, and writers wait for ever",
                        owner.get()
                    )));
                }
                Verdict::Alive | Verdict::Unknown | Verdict::Missing => {}
            }
        }
        None
    }

    /// Whether the record was no changed one: it is looked at a few times.
    fn is_counted_still(&self, slot: &MappedSlot, share: ShareWord) -> bool {
        let is_there = || {
            let shares = self.table.shares_of(slot).unwrap_or_default();
            shares.iter().any(|now| now.owner() == share.owner() && now.count() > 0)
        };
        (0..LOOKS).all(|_| is_there())
    }
}

/// What is wrong with a word, if it stays so.
fn fault_of_word(slot: &MappedSlot, presences: &Presences) -> Option<String> {
    let mut judged = None;
    for _ in 0..LOOKS {
        let word = Word::from_bits(slot.word.seen_in_order());
        let fault = match word.state() {
            None => format!("its word is {:#x}, which no lock wrote", word.bits()),
            Some(SlotState::Free | SlotState::Reserved(_) | SlotState::Staying(_)) => return None,
            Some(SlotState::Held(owner) | SlotState::Retiring(owner)) => {
                if presences.verdict(owner, &mut None).0 != Verdict::Missing {
                    return None;
                }
                format!(
                    "its holder, process {} of the directory, has no presence file, so that \
                     it is unknown whether it is alive, and no process takes the lock",
                    owner.get()
                )
            }
        };
        if judged == Some(word) {
            return Some(fault);
        }
        judged = Some(word);
    }
    None
}

/// Whether the name of this slot is found there and nowhere else.
fn fault_of_index(table: &MappedTable, number: u32, slot: &MappedSlot) -> Result<(), LockError> {
    let mut fault = Ok(());
    for _ in 0..LOOKS {
        let changes = &table.header().structure.word;
        let (before, generation) = (changes.seen_in_order(), slot.generation.seen_in_order());
        let Some(name) = table.name_of(slot)? else { return Ok(()) };
        let found = table.find(&name, table.hash(&name))?;
        if found == Some(Found { number, generation }) {
            return Ok(());
        }
        let moved = slot.generation.seen_in_order() != generation || !Marks::of(slot).is_live();
        let changing = Word::from_bits(before).owner().is_some()
            || changes.seen_in_order() != before
            || table.header().intent[0].seen_in_order() != 0;
        if moved || changing {
            // Not to be judged now; nor at all, if a process was stopped in the middle.
            fault = Ok(());
            continue;
        }
        fault = Err(super::damaged(match found {
            Some(other) => format!("it stands in two slots, {number} and {}", other.number),
            None => format!("it stands in slot {number}, where no process looks for it"),
        }));
    }
    fault
}
