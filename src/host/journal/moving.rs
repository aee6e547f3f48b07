//! Moves a journal to another place without losing a lock: from a state directory to a store, back, or
//! from one store to another.
//!
//! No leader may have it meanwhile: a state directory is locked, and a journal in a store whose stamp
//! stands still for as long as a standby would count is marked by a write that has that stamp as its
//! condition, and ends the reign. It is marked as moved *before* the other place has it, so that at no
//! moment there are two to begin from, and *after* the other place has shown that it can have it: a place
//! that refuses it leaves the first as it was. One that is marked stays as it is, so a move that is interrupted is
//! made again with the same places, and one that was complete says so.

use std::{
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::{
    entries::FoundEntries,
    file::{Journal, JournalOpening},
    reach_store,
};
use crate::{
    error::{LockError, LockErrorKind, Result},
    proto::{
        ClusterId,
        journal::{ReignJournal, ReignKey, Stamp},
        record::Record,
        reign::standby_counts,
        wire,
    },
    token::Token,
};

/// What moving needs of a journal in a store, beside what leaders need.
pub(super) trait MovableStore: ReignJournal {
    /// All of it at one moment; `None` if there is none.
    fn survey(&self) -> Result<Option<JournalSurvey>>;

    /// Says where it goes and ends its reign, if its stamp is still this one. Whether it was.
    fn mark_moved(&self, seen: Stamp, to: &str) -> Result<bool>;

    /// Shows that it can be made with these entries. A store that has to be told in several writes is
    /// told all but what makes it a journal, under a marker of this cluster; another leaves nothing.
    fn prepare(&self, entries: &FoundEntries) -> Result<()>;

    /// Takes back what [`prepare`](Self::prepare) has written, after it has failed or what was to be
    /// moved was not marked: never where it may have been.
    fn take_back(&self) -> Result<()> {
        Ok(())
    }

    /// Makes it with these entries, where there is none, whole or not at all. What is prepared is not
    /// written again.
    fn fill(&self, entries: &FoundEntries) -> Result<()>;

    /// In words, if a move to here was interrupted.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the program moves journals"))]
    fn half_filled(&self) -> Result<Option<String>> {
        Ok(None)
    }
}

/// A journal in a store, as it was at one moment.
pub(super) struct JournalSurvey {
    pub(super) reign: Option<ReignKey>,
    pub(super) lasts: Duration,
    pub(super) stamp: Stamp,
    pub(super) moved_to: Option<String>,
    pub(super) entries: FoundEntries,
}

/// A journal that has been moved.
#[derive(Debug)]
#[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the program moves journals"))]
pub(crate) struct MovedJournal {
    pub(crate) epoch: u32,
    pub(crate) sessions: usize,
}

/// Moves the journal at one place, a state directory or a URL, to another that has none.
///
/// # Errors
///
/// `Refused` while a leader has it, `Config` if there is none, the other place has one, or it was moved
/// elsewhere before; what opening it comes to.
#[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the program moves journals"))]
pub(crate) fn move_journal(from: &str, to: &str, accepted: &[String]) -> Result<MovedJournal> {
    move_between(&MovePlace::new(from, accepted)?, &MovePlace::new(to, accepted)?)
}

fn move_between(source: &MovePlace, target: &MovePlace) -> Result<MovedJournal> {
    let shown = target.shown();
    if source.shown() == shown {
        return Err(LockError::config("a journal is moved from one place to another"));
    }
    let there = target.cluster()?;
    if there.is_some() && source.moved_to()?.as_deref() != Some(&*shown) {
        return Err(taken(&shown));
    }
    // Its lock is held until the other place has it all: no leader starts here between, whatever becomes of
    // the mark.
    let prepare = |entries: &FoundEntries| match there {
        None => {
            let prepared = target.prepare(&as_of_the_next_place(entries)?);
            // What it was refused for tells more than that it cannot be taken back.
            prepared.inspect_err(|_| drop(target.take_back()))
        }
        Some(_) => Ok(()),
    };
    let given_up = source.give_up(&shown, &prepare)?;
    let GivenUp::Marked(entries, _journal) = given_up else {
        let _ = target.take_back();
        let text = format!(
            "a leader reigns in {}, or stands by there: stop all its leaders first; nothing was moved",
            source.shown()
        );
        return Err(LockError::new(LockErrorKind::Refused, text));
    };
    let entries = as_of_the_next_place(&entries)?;
    let moved = MovedJournal { epoch: entries.epochs.epoch, sessions: entries.sessions.len() };
    match there {
        // By an earlier try, which was complete.
        Some(cluster) if cluster == entries.cluster => return Ok(moved),
        Some(_) => return Err(taken(&shown)),
        None => {}
    }
    target.fill(&entries)?;
    Ok(moved)
}

/// What has become of the place that a journal is to leave.
enum GivenUp {
    /// It says where it goes; what it had, and a directory's journal itself.
    Marked(Box<FoundEntries>, Option<Box<Journal>>),
    /// A leader has it.
    Reigned,
}

fn taken(place: &str) -> LockError {
    LockError::config(format!("{place} has a journal already: nothing was moved"))
}

/// What the next place is to have: behind another epoch, so that nothing of before is taken for its own.
fn as_of_the_next_place(entries: &FoundEntries) -> Result<FoundEntries> {
    let sessions = entries.sessions.iter().map(|session| as_of_another_process(session));
    let mut next = FoundEntries { sessions: sessions.collect::<Result<_>>()?, ..entries.clone() };
    next.epochs.epoch += 1;
    Ok(next)
}

/// A session of the leader's own process is known to be dead by the state directory's lock alone.
fn as_of_another_process(bytes: &[u8]) -> Result<Vec<u8>> {
    match wire::decode_record(bytes) {
        Ok(Record::SessionOpened { session, proof, time_to_live, bound, .. }) => {
            let embedded = false;
            let open = Record::SessionOpened { session, proof, time_to_live, embedded, bound };
            Ok(wire::encode_record(&open))
        }
        _ => Err(LockError::new(LockErrorKind::Damaged, "a session in the journal cannot be read")),
    }
}

/// Where a journal is, or is to be.
enum MovePlace {
    Directory(PathBuf, Vec<String>),
    Store(Box<dyn MovableStore>, String),
}

impl MovePlace {
    fn new(text: &str, accepted: &[String]) -> Result<MovePlace> {
        if !text.contains("://") {
            return Ok(MovePlace::Directory(PathBuf::from(text), accepted.to_vec()));
        }
        let (store, shown) = reach_store(text)?;
        Ok(MovePlace::Store(store, shown))
    }

    /// As it is named in the place that it leaves.
    fn shown(&self) -> String {
        match self {
            MovePlace::Directory(path, _) => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                let parent = parent.unwrap_or(Path::new(".")).canonicalize();
                // It need not be there yet.
                let path = match (path.canonicalize(), parent, path.file_name()) {
                    (Ok(path), _, _) => path,
                    (_, Ok(parent), Some(name)) => parent.join(name),
                    _ => path.clone(),
                };
                format!("the state directory {}", path.display())
            }
            MovePlace::Store(_, shown) => shown.clone(),
        }
    }

    fn opening(&self, moves_to: Option<&str>) -> JournalOpening {
        let accepted_file_systems = match self {
            MovePlace::Directory(_, accepted) => accepted.clone(),
            MovePlace::Store(..) => Vec::new(),
        };
        let moves_to = moves_to.map(str::to_owned);
        JournalOpening { moves_to, accepted_file_systems, ..JournalOpening::default() }
    }

    /// Of the journal that is there, if one is.
    fn cluster(&self) -> Result<Option<ClusterId>> {
        match self {
            MovePlace::Directory(path, _) if !Journal::is_made_in(path) => Ok(None),
            MovePlace::Directory(path, _) => {
                let (_, recovered) = Journal::enter(path, self.opening(None))?.open()?;
                Ok(Some(recovered.cluster))
            }
            MovePlace::Store(store, _) => Ok(store.survey()?.map(|survey| survey.entries.cluster)),
        }
    }

    fn moved_to(&self) -> Result<Option<String>> {
        match self {
            MovePlace::Directory(path, _) => Journal::moved_to(path),
            MovePlace::Store(store, _) => Ok(store.survey()?.and_then(|survey| survey.moved_to)),
        }
    }

    /// Marks it as moved, once that is prepared, unless it is marked already.
    fn give_up(&self, to: &str, prepare: &dyn Fn(&FoundEntries) -> Result<()>) -> Result<GivenUp> {
        match self {
            MovePlace::Directory(path, _) => {
                let (journal, recovered) = Journal::enter(path, self.opening(Some(to)))?.open()?;
                let entries = journal.entries(&recovered)?;
                has_epochs(&entries)?;
                if Journal::moved_to(path)?.is_none() {
                    prepare(&entries)?;
                    // After an error it may be marked: what is prepared stays for the next try.
                    journal.mark_moved(path, to)?;
                }
                Ok(GivenUp::Marked(Box::new(entries), Some(Box::new(journal))))
            }
            MovePlace::Store(store, shown) => give_up_store(&**store, shown, to, prepare),
        }
    }

    fn take_back(&self) -> Result<()> {
        match self {
            MovePlace::Directory(..) => Ok(()),
            MovePlace::Store(store, _) => store.take_back(),
        }
    }

    fn prepare(&self, entries: &FoundEntries) -> Result<()> {
        match self {
            MovePlace::Directory(path, _) => {
                let opening = JournalOpening { init: true, ..self.opening(None) };
                Journal::enter(path, opening)?.prepare(entries)
            }
            MovePlace::Store(store, _) => store.prepare(entries),
        }
    }

    fn fill(&self, entries: &FoundEntries) -> Result<()> {
        match self {
            MovePlace::Directory(path, _) => {
                let opening = JournalOpening { init: true, ..self.opening(None) };
                Journal::enter(path, opening)?.fill(entries)
            }
            MovePlace::Store(store, _) => store.fill(entries),
        }
    }
}

/// Whether a reign can begin behind it, and one be moved again.
fn has_epochs(entries: &FoundEntries) -> Result<()> {
    match entries.epochs.epoch < Token::MAX_EPOCH - 1 {
        true => Ok(()),
        false => Err(LockError::config("the epochs of the journal are used up")),
    }
}

/// Waits until no leader can believe in a reign in it, and marks it.
fn give_up_store(
    store: &dyn MovableStore,
    shown: &str,
    to: &str,
    prepare: &dyn Fn(&FoundEntries) -> Result<()>,
) -> Result<GivenUp> {
    let missing = || LockError::config(format!("there is no journal in {shown}"));
    let first = store.survey()?.ok_or_else(missing)?;
    has_epochs(&first.entries)?;
    match &first.moved_to {
        // By an earlier try: the other place has what that wrote there, or nothing.
        Some(there) if there == to => return Ok(GivenUp::Marked(Box::new(first.entries), None)),
        Some(there) => {
            return Err(LockError::config(format!("{shown} was moved to {there} before")));
        }
        None => {}
    }
    if first.reign.is_some() {
        // Its last leader may have been killed: as another leader would, we look whether it goes on.
        thread::sleep(standby_counts(first.lasts));
    }
    let now = store.survey()?.ok_or_else(missing)?;
    if now.stamp != first.stamp {
        return Ok(GivenUp::Reigned);
    }
    prepare(&now.entries)?;
    // Without an answer it may be marked: what is prepared stays for the next try.
    Ok(match store.mark_moved(now.stamp, to)? {
        true => GivenUp::Marked(Box::new(now.entries), None),
        false => GivenUp::Reigned,
    })
}

#[cfg(test)]
mod tests;
