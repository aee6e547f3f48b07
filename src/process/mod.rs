//! Process tier: exclusion between the processes of one machine that use the same directory.
//!
//! This page is the interface; behind it stands an engine, which the directory's `format` names.
//! The threads of one process do not queue here: at most one of them, its representative, waits for
//! a name. With the table engine, where its word is the gate, any thread may try and release; with
//! file locks only the thread that has won the name's thread lock does.

#[cfg(any(feature = "cli", test))]
mod checkup;
mod dir;
mod flock;
mod place;
mod shown;
mod sys;
#[cfg(all(
    target_os = "linux",
    target_pointer_width = "64",
    target_endian = "little",
    not(tierlock_no_table)
))]
mod table;
#[cfg(not(all(
    target_os = "linux",
    target_pointer_width = "64",
    target_endian = "little",
    not(tierlock_no_table)
)))]
#[path = "no_table.rs"]
mod table;
#[cfg(test)]
mod tests;
mod waiting;

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use crate::{
    error::{Holder, LockError, Predecessor},
    mode::{Room, Share, Usage},
    name::Name,
    time::Time,
    token::Token,
};

#[cfg(all(feature = "cli", target_os = "linux"))]
use self::dir::ending;
pub use self::dir::keepers::Survivor;
pub(crate) use self::dir::{births::is_stopped, keepers::find_survivors};
use self::dir::{elections::Announcement, home::Home};
#[cfg(feature = "testing")]
pub use self::table::parts;
#[cfg(feature = "cli")]
pub(crate) use self::{
    checkup::examine,
    dir::{
        births::{group_of, parent_and_start},
        files::FileIdentity,
        keepers::proofs_here,
        report::{Finding, Level},
    },
};
pub(crate) use self::{
    dir::{
        elections::{AnnouncedFile, Announcements},
        turns::{FileTurn, TurnFile},
    },
    shown::{NameStatus, WaiterStatus},
};
pub(crate) use self::{
    place::{SlotPlace, SlotShortcut},
    table::WordWon,
    waiting::{Drain, SlotWish},
};

/// How to open a directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Which engine is to be used. `None`: the one that the directory is in, or the best one of
    /// this system.
    pub(crate) engine: Option<EngineKind>,
    /// File systems accepted although they are not on the list, by the name the system gives
    /// them (`nfs`, `fuse`).
    pub(crate) accept_file_systems: Vec<String>,
    /// What others are told about this process, where a taker says nothing.
    pub(crate) label: String,
}

/// The engines there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EngineKind {
    File,
    Table,
}

impl EngineKind {
    /// The engine with this format, if there is one.
    fn of_format(format: &str) -> Option<EngineKind> {
        match format.trim_end() {
            flock::FORMAT => Some(EngineKind::File),
            table::FORMAT => Some(EngineKind::Table),
            _ => None,
        }
    }
}

/// A directory of locks, as this process has it open.
#[derive(Clone)]
pub(crate) struct Directory(EitherEngine<Arc<flock::FileDirectory>, Arc<table::TableDirectory>>);

/// Which engine it is, and what it has here.
#[derive(Clone)]
enum EitherEngine<File, Table> {
    File(File),
    Table(Table),
}

/// What tells one directory from another: device, inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DirectoryKey {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl Directory {
    /// Opens the directory, making it (not the one above it) if it is missing.
    pub(crate) fn open(path: &Path, options: &Options) -> Result<Directory, LockError> {
        let home = Home::open(path, &options.accept_file_systems)?;
        let engine = match options.engine {
            Some(engine) => engine,
            None => engine_of(&home)?,
        };
        Ok(Directory(match engine {
            EngineKind::File => {
                EitherEngine::File(Arc::new(flock::FileDirectory::open(home, options)?))
            }
            EngineKind::Table => {
                EitherEngine::Table(Arc::new(table::TableDirectory::open(home, options)?))
            }
        }))
    }

    pub(crate) fn key(&self) -> DirectoryKey {
        match &self.0 {
            EitherEngine::File(directory) => directory.key(),
            EitherEngine::Table(directory) => directory.key(),
        }
    }

    /// What its processes have seen of their leader, in the words of the last writer.
    pub(crate) fn read_leader(&self) -> Option<String> {
        self.home().read_leader()
    }

    /// Records that for processes that come later. Best effort.
    pub(crate) fn write_leader(&self, line: &str) {
        let _ = self.home().write_leader(line);
    }

    /// What the leaders of this election have announced.
    pub(crate) fn read_announced(&self, name: &Name) -> Result<Announcements, LockError> {
        self.home().read_announced(name)
    }

    /// Has this be announced. Only for the holder of the name, which has this token.
    pub(crate) fn announce(
        &self,
        name: &Name,
        token: Token,
        value: &Arc<[u8]>,
    ) -> Result<AnnouncedFile, LockError> {
        let (process, value) = (std::process::id(), value.clone());
        self.home().announce(name, Announcement { token, process, value })
    }

    /// Has it belong to this service, for good: another one's locks are no locks of its names.
    pub(crate) fn claim_for(&self, service: &str) -> Result<(), LockError> {
        self.home().claim_for(service)
    }

    /// What locks in it cannot promise, in words for people.
    pub(crate) fn caveat(&self) -> Option<String> {
        self.home().caveat()
    }

    fn home(&self) -> &Home {
        match &self.0 {
            EitherEngine::File(directory) => directory.home(),
            EitherEngine::Table(directory) => directory.home(),
        }
    }

    /// The lock of a name.
    #[cfg(test)]
    pub(crate) fn slot(&self, name: &Name) -> Result<Slot, LockError> {
        self.slot_for(name, Usage::Lock)
    }

    /// What stands for a name that is used so. Fails here, not later, when the disk is full, the file
    /// is damaged, or the name is used for something else.
    pub(crate) fn slot_for(&self, name: &Name, usage: Usage) -> Result<Slot, LockError> {
        Ok(Slot(match &self.0 {
            EitherEngine::File(directory) => EitherEngine::File(directory.slot_for(name, usage)?),
            EitherEngine::Table(directory) => EitherEngine::Table(directory.slot_for(name, usage)?),
        }))
    }

    /// Every name in the directory, without disturbing holders or waiters. Leaves out what
    /// [`inspect`](Directory::inspect) finds fault with.
    pub(crate) fn survey(&self) -> Result<Vec<NameStatus>, LockError> {
        Ok(self.inspect()?.into_iter().flatten().collect())
    }

    /// The status of one name, likewise; `None`: nothing is known of it.
    pub(crate) fn look(&self, name: &Name) -> Result<Option<NameStatus>, LockError> {
        match &self.0 {
            EitherEngine::File(directory) => directory.look(name),
            EitherEngine::Table(directory) => directory.look(name),
        }
    }

    /// Every name in the directory or what is wrong with it, without disturbing holders or waiters.
    pub(crate) fn inspect(&self) -> Result<Vec<Result<NameStatus, LockError>>, LockError> {
        match &self.0 {
            EitherEngine::File(directory) => directory.inspect(),
            EitherEngine::Table(directory) => directory.inspect(),
        }
    }
}

/// Whether a process has used the directory yet. Makes nothing; a directory that is not there is an
/// error.
#[cfg(feature = "cli")]
pub(crate) fn is_in_use(path: &Path) -> Result<bool, LockError> {
    Ok(Home::find(path)?.read_format()?.is_some())
}

/// Ends the process that holds `name` in this directory under exactly the order's token. Makes
/// nothing; a directory that is not there is an error.
#[cfg(all(feature = "cli", target_os = "linux"))]
pub(crate) fn end_holder(path: &Path, name: &Name, order: Order) -> Result<(), LockError> {
    let home = Home::find(path)?;
    let Some(format) = home.read_format()? else {
        return Err(home.about(LockError::config(
            "no process has used it yet, and nothing was broken; give the directory that the \
             holder uses",
        )));
    };
    let look = || match EngineKind::of_format(&format) {
        Some(EngineKind::File) => flock::holding(&home, name),
        Some(EngineKind::Table) => table::holding(&home, name),
        None => {
            let other = dir::home::judge_format(&format, table::FORMAT);
            other.map(|()| ending::HolderState::default()).map_err(|error| home.about(error))
        }
    };
    ending::end_holder(name, order, look, || match Directory::open(path, &Options::default())?.0 {
        EitherEngine::File(directory) => {
            directory.slot_for(name, Usage::Lock)?.end_stay(order.token)
        }
        EitherEngine::Table(directory) => directory.end_stay(name, order.token),
    })
}

/// Only on Linux can a process be ended without ever mistaking another one for it.
#[cfg(all(feature = "cli", not(target_os = "linux")))]
pub(crate) fn end_holder(_: &Path, name: &Name, _: Order) -> Result<(), LockError> {
    let error = LockError::config(
        "this system has no handles of processes, by which exactly the holder could be ended; \
         `tierlock status` says which process holds it: end that",
    );
    Err(error.with_name(name).with_scope(crate::scope::Scope::Process))
}

/// What is to be broken, and how.
#[cfg(feature = "cli")]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(target_os = "linux"), expect(dead_code))]
pub(crate) struct Order {
    /// The holder's.
    pub(crate) token: Token,
    /// So long the process may take to end in good order.
    pub(crate) grace: Duration,
    /// The leader was asked first, and had not granted this token: then a name of host scope may be
    /// broken here, where a process is on its way to the leader.
    pub(crate) asked_leader: bool,
}

/// The engine of a directory for which the caller chose none.
fn engine_of(home: &Home) -> Result<EngineKind, LockError> {
    let format = home.read_format()?;
    let is_file =
        format.and_then(|format| EngineKind::of_format(&format)) == Some(EngineKind::File);
    Ok(if is_file || !table::IS_HERE { EngineKind::File } else { EngineKind::Table })
}

/// One name in a directory. This process uses at most one `Slot` per name. One thread at a time
/// waits; where the slot [is the gate](Slot::is_gate), any may try and release besides.
pub(crate) struct Slot(EitherEngine<flock::FileSlot, table::TableSlot>);

/// What the winner is told.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    /// Larger than every token of this name before, and than `above`. Of a name that is locked at
    /// host scope it is the last one: there the service counts, and a slot is only won to ask it.
    pub(crate) token: Token,
    pub(crate) predecessor: Predecessor,
    /// Set if the name was locked at host scope: by which process, in words. Then the caller must
    /// climb too.
    pub(crate) widened_by: Option<String>,
}

impl Slot {
    /// `label` is what others are told about the holder, where the engine tells it by lock and
    /// not by process.
    #[inline]
    pub(crate) fn try_take(&self, above: Token, label: &str) -> Result<Option<Taken>, LockError> {
        match &self.0 {
            EitherEngine::File(slot) => slot.try_take(above, label),
            EitherEngine::Table(slot) => slot.try_take(above),
        }
    }

    /// Blocks; `TimedOut` with the holder at `until`.
    #[cfg(test)]
    pub(crate) fn take(&self, above: Token, label: &str, until: Time) -> Result<Taken, LockError> {
        self.take_unless(above, label, until, &|| false, SlotWish::default())
    }

    /// Blocks; `TimedOut` with the holder at `until`, or soon after the wait `is_over`.
    #[inline]
    pub(crate) fn take_unless(
        &self,
        above: Token,
        label: &str,
        until: Time,
        is_over: &dyn Fn() -> bool,
        wish: SlotWish,
    ) -> Result<Taken, LockError> {
        match &self.0 {
            EitherEngine::File(slot) => slot.take(above, label, until, is_over),
            EitherEngine::Table(slot) => slot.take_unless(above, until, is_over, wish),
        }
    }

    /// The same, without blocking a thread. Dropping the future gives back what it was about to
    /// receive.
    pub(crate) async fn take_async(
        &self,
        above: Token,
        label: &str,
        until: Time,
        wish: SlotWish,
    ) -> Result<Taken, LockError> {
        match &self.0 {
            EitherEngine::File(slot) => slot.take_async(above, label, until).await,
            EitherEngine::Table(slot) => slot.take_async(above, until, wish).await,
        }
    }

    /// Has what this process needs to read it.
    pub(crate) fn prepare_to_read(&self) -> Result<(), LockError> {
        match &self.0 {
            EitherEngine::File(slot) => slot.prepare_to_read(),
            EitherEngine::Table(slot) => slot.prepare_to_read(),
        }
    }

    /// Comes in as a reader under what was `taken`, which the caller releases then: the token that it
    /// reads under, the last writer's if it may. `is_first`: no process-scope lock of the name was
    /// taken in this process before, so the token must not go back.
    pub(crate) fn read_under_the_word(
        &self,
        taken: &Taken,
        is_first: bool,
    ) -> Result<Token, LockError> {
        match &self.0 {
            EitherEngine::File(slot) => slot.read_under_the_word(taken, is_first),
            EitherEngine::Table(slot) => slot.read_under_the_word(taken, is_first),
        }
    }

    /// Comes in as a reader, for the holder.
    pub(crate) fn share_beside(&self) -> Result<(), LockError> {
        match &self.0 {
            EitherEngine::File(slot) => slot.share_beside(),
            EitherEngine::Table(slot) => slot.share_beside(),
        }
    }

    /// Looks where it is, where this process has not yet, as a forked child of one that has.
    pub(crate) fn look_up(&self) {
        match &self.0 {
            EitherEngine::File(_) => {}
            EitherEngine::Table(slot) => slot.look_up(),
        }
    }

    /// Comes in as a reader past the gate, also past waiters that are no writers. `None` leaves it as
    /// it was, since the gate is not open to readers any more; an error says that this process cannot
    /// be counted there.
    pub(crate) fn read_beside(&self) -> Result<Option<(Token, Predecessor)>, LockError> {
        match &self.0 {
            EitherEngine::File(slot) => Ok(slot.read_beside()),
            EitherEngine::Table(slot) => slot.read_beside(),
        }
    }

    /// Whether an upgradable reader is inside, and no writer of any process is known to wait.
    pub(crate) fn may_read_beside(&self) -> bool {
        match &self.0 {
            EitherEngine::File(slot) => slot.may_read_beside(),
            EitherEngine::Table(slot) => slot.may_read_beside(),
        }
    }

    /// Whether a waiter may stand behind what this process holds of it, as a reader if it `shares`. The
    /// file-lock engine cannot know.
    pub(crate) fn may_be_waited_for(&self, shares: bool) -> bool {
        match &self.0 {
            EitherEngine::File(_) => true,
            EitherEngine::Table(slot) => slot.may_be_waited_for(shares),
        }
    }

    /// A reader leaves, or permits come back.
    pub(crate) fn unshare(&self, share: Share) {
        match &self.0 {
            EitherEngine::File(slot) => slot.unread(),
            EitherEngine::Table(slot) => slot.unshare(share),
        }
    }

    /// Counts so many permits, for the holder, which has found room for them and releases it then: the token
    /// of the last one.
    pub(crate) fn count_permits(&self, count: u32) -> Result<Token, LockError> {
        match &self.0 {
            EitherEngine::File(_) => Err(flock::no_permits()),
            EitherEngine::Table(slot) => slot.count_permits(count),
        }
    }

    /// How many permits are taken, as far as one look shows.
    pub(crate) fn permits_taken(&self) -> Result<u32, LockError> {
        match &self.0 {
            EitherEngine::File(_) => Err(flock::no_permits()),
            EitherEngine::Table(slot) => slot.permits_taken(),
        }
    }

    /// Whether readers are inside, as far as one look shows: of all processes, or of this one if the engine
    /// knows of no others.
    pub(crate) fn is_read(&self) -> bool {
        match &self.0 {
            EitherEngine::File(slot) => slot.is_read(),
            EitherEngine::Table(slot) => slot.permits_taken().is_ok_and(|readers| readers > 0),
        }
    }

    /// Whether its holder waits in front of permits that are taken.
    pub(crate) fn is_draining(&self) -> bool {
        match &self.0 {
            EitherEngine::File(_) => false,
            EitherEngine::Table(slot) => slot.is_draining(),
        }
    }

    /// Whether this process's readers and permits are counted still.
    pub(crate) fn is_counted(&self) -> bool {
        match &self.0 {
            EitherEngine::File(_) => true,
            EitherEngine::Table(slot) => slot.is_counted(),
        }
    }

    /// Lets readers in beside the holder, which are told how the last writer left; or no more of
    /// them. Only for the holder.
    pub(crate) fn set_readable(&self, readable: Option<Predecessor>) -> Result<(), LockError> {
        match &self.0 {
            EitherEngine::File(slot) => slot.set_readable(readable.is_some()),
            EitherEngine::Table(slot) => slot.set_readable(readable),
        }
    }

    /// Whether there is room, and how to wait for it. Only for the holder; all looks with one drainer
    /// are for the same.
    pub(crate) fn drain(
        &self,
        drainer: &mut Drainer,
        room: Room,
        waits: bool,
    ) -> Result<Drain, LockError> {
        match &self.0 {
            EitherEngine::File(slot) => slot.drain(drainer),
            EitherEngine::Table(slot) => slot.drain(&mut drainer.0, room, waits),
        }
    }

    /// Blocks until readers may be gone, at most so long.
    pub(crate) fn sleep_on_bell(
        &self,
        drainer: &mut Drainer,
        bell: u32,
        longest: Duration,
    ) -> Result<(), LockError> {
        match &self.0 {
            EitherEngine::File(_) => {
                std::thread::sleep(longest);
                Ok(())
            }
            EitherEngine::Table(slot) => slot.sleep_on_bell(&mut drainer.0, bell, longest),
        }
    }

    /// The same for a task, without an end of its own; `None` where it has to look by itself.
    pub(crate) fn await_bell(&self, bell: u32) -> Option<impl Future<Output = ()> + Send + use<>> {
        match &self.0 {
            EitherEngine::File(_) => None,
            EitherEngine::Table(slot) => slot.await_bell(bell),
        }
    }

    /// Where it is for the process of this fork generation, which must be the caller's. `None`:
    /// it has to be looked up, or the engine has no quiet way.
    #[inline]
    pub(crate) fn place(&self, generation: u64) -> Option<SlotPlace<'_>> {
        match &self.0 {
            EitherEngine::Table(slot) => slot.found(generation).map(SlotPlace),
            // A system call costs more than a second attempt.
            EitherEngine::File(_) => None,
        }
    }

    /// Whether its [release](Slot::release) waits for more than memory, or the
    /// [raising](Slot::raise_token) of its token this far before it: for a disk, a file server, another
    /// process. Only for the holder.
    pub(crate) fn may_block(&self, raised_to: Option<Token>) -> bool {
        match &self.0 {
            EitherEngine::File(slot) => slot.may_block(),
            EitherEngine::Table(slot) => slot.may_block(raised_to),
        }
    }

    /// Raises the stored token to at least this (a host-scope token is written back). Only for
    /// the holder.
    pub(crate) fn raise_token(&self, token: Token) {
        match &self.0 {
            EitherEngine::File(slot) => slot.raise_token(token),
            EitherEngine::Table(slot) => slot.raise_token(token),
        }
    }

    /// Marks the name as locked at host scope, for good, also after a loss of power. Only for the
    /// holder, and before its leader is asked.
    pub(crate) fn widen(&self, by: &str) -> Result<(), LockError> {
        match &self.0 {
            EitherEngine::File(slot) => slot.widen(by),
            EitherEngine::Table(slot) => slot.widen(by),
        }
    }

    /// Has the lock stay taken until then, also when its holder leaves or dies before; `None` ends
    /// that. Only for the holder, before its caller runs. A reboot of the machine ends it too.
    pub(crate) fn keep_until(&self, end: Option<Time>) {
        match &self.0 {
            EitherEngine::File(slot) => slot.keep_until(end),
            EitherEngine::Table(slot) => slot.keep_until(end),
        }
    }

    /// The last token that was granted. Only for the holder.
    pub(crate) fn last_token(&self) -> Token {
        match &self.0 {
            EitherEngine::File(slot) => slot.last_token(),
            EitherEngine::Table(slot) => slot.last_token(),
        }
    }

    /// Releases it. In a forked child it touches nothing of the parent's.
    #[inline]
    pub(crate) fn release(&self, how: Predecessor) {
        match &self.0 {
            EitherEngine::File(slot) => slot.release(how),
            EitherEngine::Table(slot) => slot.release(how),
        }
    }

    /// The same, of the holder that was given this token; nothing happens if the slot bears
    /// another one: the right was lost, and another holder has it.
    pub(crate) fn release_token(&self, token: Token, how: Predecessor) {
        match &self.0 {
            EitherEngine::File(slot) => slot.release(how),
            EitherEngine::Table(slot) => slot.release_token(token, how),
        }
    }

    /// Whether its word is the gate of its name at process scope, for any thread; else the thread
    /// lock has to be won first.
    #[inline]
    pub(crate) fn is_gate(&self) -> bool {
        matches!(self.0, EitherEngine::Table(_))
    }

    /// Its holder, as far as published.
    pub(crate) fn holder(&self) -> Option<Holder> {
        match &self.0 {
            EitherEngine::File(slot) => slot.holder(),
            EitherEngine::Table(slot) => slot.holder(),
        }
    }

    /// Whether a thread of this process holds it, or has won it on the way to host scope.
    pub(crate) fn is_held_here(&self) -> bool {
        match &self.0 {
            EitherEngine::File(slot) => slot.is_held_here(),
            EitherEngine::Table(slot) => slot.is_held_here(),
        }
    }

    /// A process that reads it, or has permits of it, if the engine knows: another before this one.
    pub(crate) fn sharer(&self) -> Option<Holder> {
        match &self.0 {
            EitherEngine::File(_) => None,
            EitherEngine::Table(slot) => slot.sharer(),
        }
    }

    /// The same, of other processes than this one.
    pub(crate) fn sharer_elsewhere(&self) -> Option<Holder> {
        match &self.0 {
            EitherEngine::File(_) => None,
            EitherEngine::Table(slot) => slot.sharer_elsewhere(),
        }
    }

    /// How many processes stand before this one's representative, or would if it has no place yet. With
    /// file locks the kernel orders them, and does not tell.
    pub(crate) fn waiters_before_own(&self) -> Option<usize> {
        match &self.0 {
            EitherEngine::File(_) => None,
            EitherEngine::Table(slot) => Some(slot.waiters_before_own()),
        }
    }

    /// Whether this process holds it under this token.
    pub(crate) fn is_held_under(&self, token: Token, process: u32) -> bool {
        let is_it = |holder: Holder| {
            holder.token == Some(token) && holder.pid.is_none_or(|pid| pid == process)
        };
        self.holder().is_some_and(is_it)
    }

    /// Whether its name was locked at host scope.
    pub(crate) fn is_wide(&self) -> bool {
        match &self.0 {
            EitherEngine::File(slot) => slot.is_wide(),
            EitherEngine::Table(slot) => slot.is_wide(),
        }
    }

    /// The proof of life of the lock that is held, for a command that is to inherit it
    /// (`tierlock run`): the lock stays taken until every copy of the descriptor is closed, also
    /// after `release` and after this process.
    ///
    /// It has close-on-exec set, which the caller clears in the child only, between fork and
    /// exec; any other fork while the caller has it keeps a copy too.
    #[cfg(any(feature = "cli", test))]
    pub(crate) fn proof_of_life(&self) -> std::io::Result<std::os::fd::OwnedFd> {
        match &self.0 {
            EitherEngine::File(slot) => slot.proof_of_life(),
            EitherEngine::Table(slot) => slot.proof_of_life(),
        }
    }

    /// The same of what is read, by this process's only reader of the name: from now on it is that of
    /// every process that has a copy of the descriptor.
    #[cfg(feature = "cli")]
    pub(crate) fn proof_of_sharing(&self) -> std::io::Result<std::os::fd::OwnedFd> {
        match &self.0 {
            EitherEngine::File(slot) => slot.proof_of_sharing(),
            EitherEngine::Table(slot) => slot.proof_of_sharing(),
        }
    }
}

/// A writer that waits for readers.
#[derive(Default)]
pub(crate) struct Drainer(table::TableDrainer);

impl Drainer {
    /// It looks again, after it waited otherwise than asleep; whether the bell rang.
    pub(crate) fn looks_again(&mut self, is_rung: bool) {
        self.0.looks_again(is_rung);
    }
}
