//! `tierlock status`: each lock's holder, since when, its waiters, how the last holder left.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal},
    sync::mpsc,
    thread,
    time::Duration,
};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::{
    args,
    failure::{Failure, print},
    leaders::{self, AskingLeaders, ShownLeader, SilenceTeller},
};
use crate::{
    api::{
        manager::LockManager,
        status::{LockState, LockStatus, Sharer, WaitingCaller, said},
        why::{shown, shown_waiter},
    },
    error::Holder,
    host::asking::AskedLeader,
    mode::WaiterMode,
    name::Name,
    printable::{Printable, in_words},
    process::Survivor,
    scope::Scope,
};

/// Shows the locks that can be seen.
pub(super) fn status(status: args::Status) -> Result<u8, Failure> {
    let common = status.common.with_environment()?;
    let leaders = common.leaders();
    let common = common.without_unused_directory()?;
    let asking = AskingLeaders::begin_beside_manager(&common)?;
    let has_directory = common.directory().is_some();
    let show = Show {
        only: status.name,
        json: status.json,
        widest: if leaders.is_empty() { Scope::Process } else { Scope::Host },
        // A leader forgets names without a holder, and so may a directory.
        nothing: match has_directory || !leaders.is_empty() {
            true => NONE_REMEMBERED,
            false => "no lock has been used here yet",
        },
    };
    let locks = common.into_builder().open()?;
    let _silence = SilenceTeller::begin(&leaders);
    if leaders.is_empty() {
        show.print(locks.look(show.only.as_ref())?, &[])?;
    } else {
        let seen = match has_directory {
            true => show.directory_first(&locks)?,
            false => locks.look(show.only.as_ref()),
        };
        let asked = asking.end()?;
        match seen {
            Ok(seen) => show.print(seen, &asked)?,
            Err(error) => {
                show.print_leaders_alone(&asked, has_directory)?;
                return Err(Failure::from(error).naming_leaders(&leaders));
            }
        }
    }
    Ok(0)
}

/// What there is to see, where forgotten names may have been.
pub(super) const NONE_REMEMBERED: &str = "no lock is held, and none is remembered";

/// How long a leader may take before the directory's locks are shown without its own.
const FIRST_ANSWER: Duration = Duration::from_millis(300);

/// What is to be shown, and how.
struct Show {
    only: Option<Name>,
    json: bool,
    widest: Scope,
    /// Said where there is nothing to show.
    nothing: &'static str,
}

impl Show {
    /// What the directory and the leader know together. While the leader is silent, people are shown
    /// what the directory knows alone; so are programs if it stays so, for they read one document.
    fn directory_first(
        &self,
        locks: &LockManager,
    ) -> Result<crate::Result<Vec<LockStatus>>, Failure> {
        let (sender, answer) = mpsc::channel();
        let (asked, only) = (locks.clone(), self.only.clone());
        let asking = thread::Builder::new().name("tierlock-asking".into());
        let asking = asking.spawn(move || drop(sender.send(asked.look(only.as_ref()))));
        asking.map_err(|error| Failure::internal("cannot start a thread", error))?;
        let early = answer.recv_timeout(FIRST_ANSWER).ok();
        let is_shown = early.is_none() && !self.json;
        if is_shown {
            self.print_alone(locks)?;
        }
        let answer = early.or_else(|| answer.recv().ok());
        let answer = answer.expect("the asking thread sends its answer");
        if answer.is_err() && !is_shown {
            self.print_alone(locks)?;
        }
        if answer.is_ok() && is_shown {
            print("\nwith the leader's answer:\n")?;
        }
        Ok(answer)
    }

    /// What the directory knows alone: whether a name that it does not know is free, the leader would
    /// have to say.
    fn print_alone(&self, locks: &LockManager) -> Result<(), Failure> {
        let found = locks.look_here(self.only.as_ref())?;
        match (self.json, found.is_empty()) {
            (true, _) => print(&json(Some(&found), &[])),
            (false, true) => Ok(()),
            (false, false) => print(&table(&found, width(), None)),
        }
    }

    /// No leader has told of its locks. If standbys have told what they are, that says why.
    fn print_leaders_alone(
        &self,
        asked: &[AskedLeader],
        has_directory: bool,
    ) -> Result<(), Failure> {
        match asked.iter().any(|asked| asked.told.is_ok()) {
            // A program reads one document, and has it.
            true if self.json && has_directory => Ok(()),
            true if self.json => print(&json(None, asked)),
            true => print(&leaders::lines_with_group(asked)),
            false => Ok(()),
        }
    }

    fn print(&self, mut found: Vec<LockStatus>, asked: &[AskedLeader]) -> Result<(), Failure> {
        if let Some(name) = &self.only
            && found.is_empty()
        {
            found.push(LockStatus::free(name.clone(), self.widest));
        }
        match (self.json, found.is_empty()) {
            (true, _) => return print(&json(Some(&found), asked)),
            (false, true) => print(&format!("{}\n", self.nothing))?,
            (false, false) => print(&table(&found, width(), None))?,
        }
        match leaders::follow_each_other(asked) {
            true => print(&format!("\n{}", leaders::lines_with_group(asked))),
            false => Ok(()),
        }
    }
}

/// The processes that keep a lock in the place of its holder, in words.
pub(super) fn kept_by(survivors: &[Survivor]) -> Option<String> {
    let (first, more) = survivors.split_first()?;
    let more = match more.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!("that process has ended or released it, and {first}{more} keeps it"))
}

/// For how long `at_least` keeps a lock taken that has no holder.
pub(super) fn reserved_for(locks: &LockManager, name: &Name) -> Option<String> {
    let lock = locks.look(Some(name)).ok()?.into_iter().next()?;
    let left = lock.remaining.filter(|_| lock.state == LockState::Reserved)?;
    Some(in_words(left))
}

// ── for programs ────────────────────────────────────────────────────────────────────────────────

#[derive(Serialize)]
struct ShownLocks<'a> {
    /// `null`: the leaders that have answered stand by.
    locks: Option<Vec<ShownLock<'a>>>,
    /// Only where leaders were asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    leaders: Vec<ShownLeader<'a>>,
}

#[derive(Serialize)]
pub(super) struct ShownLock<'a> {
    name: &'a str,
    scope: &'static str,
    mode: &'static str,
    /// How many permits a semaphore has; `null` of a lock.
    limit: Option<u32>,
    /// `null` of a lock of host scope without its leader asked: held there or not.
    state: Option<&'static str>,
    token: u64,
    holder: Option<ShownHolder<'a>>,
    /// All that are inside: the holder, or those that share it.
    holders: Vec<ShownShare<'a>>,
    remaining_ms: Option<u64>,
    predecessor: &'static str,
    waiters: Vec<ShownWaiter<'a>>,
}

#[derive(Serialize)]
struct ShownHolder<'a> {
    label: &'a str,
    /// By the holder's credential; else it is what the holder claims. Said where the leader knows proved ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    label_is_proved: Option<bool>,
    host: &'a str,
    pid: Option<u32>,
    command: &'a str,
    held_ms: Option<u64>,
    /// Only where there are any: the processes that keep the lock though this one has ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    survivors: Vec<Keeps<'a>>,
}

#[derive(Serialize)]
struct ShownShare<'a> {
    #[serde(flatten)]
    holder: ShownHolder<'a>,
    token: u64,
    /// How many threads and tasks of it are inside, or how many permits it has.
    count: u32,
}

#[derive(Serialize)]
struct Keeps<'a> {
    pid: u32,
    command: &'a str,
}

#[derive(Serialize)]
struct ShownWaiter<'a> {
    label: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    label_is_proved: Option<bool>,
    host: &'a str,
    pid: Option<u32>,
    waiting_ms: u64,
    /// `null` where that is not known.
    mode: Option<&'static str>,
    /// Only of one that waits for permits: how many.
    #[serde(skip_serializing_if = "Option::is_none")]
    permits: Option<u32>,
}

fn json(locks: Option<&[LockStatus]>, leaders: &[AskedLeader]) -> String {
    let report = ShownLocks {
        locks: locks.map(|locks| locks.iter().map(ShownLock::from).collect()),
        leaders: leaders.iter().map(ShownLeader::from).collect(),
    };
    let mut text = serde_json::to_string_pretty(&report).expect("it is text and numbers");
    text.push('\n');
    text
}

impl<'a> From<&'a LockStatus> for ShownLock<'a> {
    fn from(lock: &'a LockStatus) -> ShownLock<'a> {
        let holder = || {
            lock.holder.as_ref().map(|holder| ShownHolder {
                survivors: lock.survivors.iter().map(Keeps::from).collect(),
                ..ShownHolder::from(holder)
            })
        };
        let token = lock.token.get();
        let alone = holder().map(|holder| ShownShare { holder, token, count: 1 });
        let sharers = lock.sharers.iter().map(|Sharer { holder, count, .. }| ShownShare {
            holder: holder.into(),
            token,
            count: *count,
        });
        ShownLock {
            name: lock.name.as_str(),
            scope: lock.scope.as_str(),
            mode: mode(lock),
            limit: lock.limit,
            state: Some(lock.state)
                .filter(|&state| state != LockState::Unknown)
                .map(LockState::as_str),
            token,
            holder: holder(),
            holders: alone.into_iter().chain(sharers).collect(),
            remaining_ms: lock.remaining.map(in_ms),
            predecessor: lock.predecessor.as_str(),
            waiters: lock.waiters.iter().map(ShownWaiter::from).collect(),
        }
    }
}

/// How it is held just now.
fn mode(lock: &LockStatus) -> &'static str {
    match (lock.limit, lock.sharers.is_empty()) {
        (Some(_), _) => "permits",
        (None, false) => "shared",
        (None, true) => "exclusive",
    }
}

impl<'a> From<&'a Holder> for ShownHolder<'a> {
    fn from(holder: &'a Holder) -> ShownHolder<'a> {
        ShownHolder {
            label: &holder.label,
            label_is_proved: said(holder.label_is_proved, holder.claims_label),
            host: &holder.host,
            pid: holder.pid,
            command: &holder.command,
            held_ms: holder.held.map(in_ms),
            survivors: Vec::new(),
        }
    }
}

impl<'a> From<&'a Survivor> for Keeps<'a> {
    fn from(survivor: &'a Survivor) -> Keeps<'a> {
        Keeps { pid: survivor.pid, command: &survivor.command }
    }
}

impl<'a> From<&'a WaitingCaller> for ShownWaiter<'a> {
    fn from(waiter: &'a WaitingCaller) -> ShownWaiter<'a> {
        ShownWaiter {
            label: &waiter.label,
            label_is_proved: said(waiter.label_is_proved, waiter.claims_label),
            host: &waiter.host,
            pid: waiter.pid,
            waiting_ms: in_ms(waiter.waiting),
            mode: waiter.mode.map(WaiterMode::as_str),
            permits: waiter.mode.and_then(WaiterMode::permits),
        }
    }
}

fn in_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

// ── for people ──────────────────────────────────────────────────────────────────────────────────

/// One row for each lock, and below it one for every process that keeps it or waits for it. A name
/// that has changed, if that is asked, has a mark in front.
pub(super) fn table(
    locks: &[LockStatus],
    width: Option<u16>,
    has_changed: Option<&dyn Fn(&Name) -> bool>,
) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header([
        "NAME",
        "STATE",
        "PROCESS",
        "FOR",
        "LAST LEFT",
        "TOKEN",
    ]);
    let mark = |name| match has_changed {
        None => "",
        Some(has_changed) if has_changed(name) => "* ",
        Some(_) => "  ",
    };
    match width {
        Some(width) => {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        // For programs that read lines: a row is one, however long.
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    for lock in locks {
        table.add_row([
            format!("{}{}", mark(&lock.name), Printable(lock.name.as_str())),
            format!("{}, {}", state(lock), lock.scope),
            lock.holder.as_ref().map(shown).unwrap_or_default(),
            times(lock),
            lock.predecessor.to_string(),
            lock.token.to_string(),
        ]);
        for Sharer { holder, count, .. } in &lock.sharers {
            let (does, times) = match (lock.limit, count) {
                (Some(_), 1) => ("has 1 permit".to_owned(), String::new()),
                (Some(_), count) => (format!("has {count} permits"), String::new()),
                (None, 1) => ("reads".to_owned(), String::new()),
                (None, count) => ("reads".to_owned(), format!("{count} times")),
            };
            table.add_row(["", &does, &shown(holder), &times, "", ""]);
        }
        for survivor in &lock.survivors {
            table.add_row(["", "kept alive by", &survivor.to_string(), "", "", ""]);
        }
        for waiter in &lock.waiters {
            let waited = in_words(waiter.waiting);
            let waits = waits(waiter.mode);
            table.add_row(["", &waits, &shown_waiter(waiter), &waited, "", ""]);
        }
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = table.lines().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{}", line.trim_end());
        text
    });
    if locks.iter().any(|lock| lock.state == LockState::Unknown) {
        text.push_str(
            "unknown: only the leader knows whether it is held; ask with --leader
",
        );
    }
    text
}

/// That it waits, and for what, if that is not the whole lock.
fn waits(mode: Option<WaiterMode>) -> String {
    match mode {
        None | Some(WaiterMode::Exclusive) => "waits".to_owned(),
        Some(WaiterMode::Shared) => "waits to read".to_owned(),
        Some(WaiterMode::Upgradable) => "waits to read and upgrade".to_owned(),
        Some(WaiterMode::Permits(1)) => "waits for 1 permit".to_owned(),
        Some(WaiterMode::Permits(count)) => format!("waits for {count} permits"),
    }
}

/// What it does just now, in a word or two.
fn state(lock: &LockStatus) -> String {
    let word = lock.state.as_str();
    match lock.limit {
        None => word.to_owned(),
        Some(limit) => format!("{} of {limit} permits", lock.permits_taken),
    }
}

/// Since when it is held, or for how long it is reserved.
fn times(lock: &LockStatus) -> String {
    match (lock.state, lock.remaining) {
        (LockState::Reserved, Some(left)) => format!("{} more", in_words(left)),
        _ => lock.holder.as_ref().and_then(held_for).unwrap_or_default(),
    }
}

/// For how long it has held, or at least has been seen to hold, the lock.
fn held_for(holder: &Holder) -> Option<String> {
    let held = holder.held?;
    match holder.held_since_grant {
        true => Some(in_words(held)),
        // It is seen for the first time.
        false if held.is_zero() => None,
        false => Some(format!("≥ {}", in_words(held))),
    }
}

/// The width of the table, on a terminal.
pub(super) fn width() -> Option<u16> {
    let is_terminal = io::stdout().is_terminal();
    is_terminal.then(|| match rustix::termios::tcgetwinsize(rustix::stdio::stdout()) {
        Ok(size) if size.ws_col > 0 => size.ws_col.max(NARROWEST),
        _ => 80,
    })
}

/// A terminal that is narrower breaks the rows: cells of two letters a line could not be read.
const NARROWEST: u16 = 60;
