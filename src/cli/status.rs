//! `tierlock status`: who holds which lock, since when, who waits, how the last holder left.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    time::Duration,
};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::{args, failure::Failure};
use crate::{
    error::{Holder, Predecessor},
    manager::LockManager,
    name::Name,
    scope::Scope,
    status::{LockStatus, State, Waiter},
    token::Token,
};

/// Shows the locks that can be seen.
pub(super) fn status(status: args::Status) -> Result<u8, Failure> {
    let common = status.common.with_environment()?;
    let leaders = common.leaders().to_vec();
    let widest = if leaders.is_empty() { Scope::Process } else { Scope::Host };
    let locks = common.without_unused_directory()?.into_builder().open()?;
    let found = locks.status(status.name.as_ref());
    let mut found = found.map_err(|error| Failure::from(error).naming_leaders(&leaders))?;
    if let Some(name) = status.name
        && found.is_empty()
    {
        found.push(unknown(name, widest));
    }
    let text = if status.json { json(&found) } else { table(&found, width()) };
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever reads has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        Err(error) => Err(Failure::new(super::failure::exit::IO, format_args!("output: {error}"))),
        Ok(()) => Ok(0),
    }
}

/// Who holds this lock, if that can be found out.
pub(super) fn holder_of(locks: &LockManager, name: &Name) -> Option<Holder> {
    locks.status(Some(name)).ok()?.into_iter().find_map(|lock| lock.holder)
}

/// For how long `at_least` keeps a lock taken that has no holder.
pub(super) fn reserved_for(locks: &LockManager, name: &Name) -> Option<String> {
    let lock = locks.status(Some(name)).ok()?.into_iter().next()?;
    let left = lock.remaining.filter(|_| lock.state == State::Reserved)?;
    Some(in_words(left))
}

/// A name that nobody has used is free.
fn unknown(name: Name, scope: Scope) -> LockStatus {
    LockStatus {
        name,
        scope,
        state: State::Free,
        token: Token::ZERO,
        holder: None,
        remaining: None,
        predecessor: Predecessor::Clean,
        waiters: Vec::new(),
    }
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            State::Held => "held",
            State::Kept => "kept",
            State::Free => "free",
            State::Climbing => "climbing",
            State::Reserved => "reserved",
        }
    }
}

// ── for programs ────────────────────────────────────────────────────────────────────────────────

#[derive(Serialize)]
struct Report<'a> {
    locks: Vec<Lock<'a>>,
}

#[derive(Serialize)]
struct Lock<'a> {
    name: &'a str,
    scope: &'static str,
    state: &'static str,
    token: u64,
    holder: Option<Who<'a>>,
    remaining_ms: Option<u64>,
    predecessor: &'static str,
    waiters: Vec<Waits<'a>>,
}

#[derive(Serialize)]
struct Who<'a> {
    label: &'a str,
    host: &'a str,
    pid: Option<u32>,
    command: &'a str,
    held_ms: Option<u64>,
}

#[derive(Serialize)]
struct Waits<'a> {
    label: &'a str,
    host: &'a str,
    pid: Option<u32>,
    waiting_ms: u64,
}

fn json(locks: &[LockStatus]) -> String {
    let report = Report { locks: locks.iter().map(Lock::from).collect() };
    let mut text = serde_json::to_string_pretty(&report).expect("it is text and numbers");
    text.push('\n');
    text
}

impl<'a> From<&'a LockStatus> for Lock<'a> {
    fn from(lock: &'a LockStatus) -> Lock<'a> {
        Lock {
            name: lock.name.as_str(),
            scope: lock.scope.as_str(),
            state: lock.state.as_str(),
            token: lock.token.get(),
            holder: lock.holder.as_ref().map(|holder| Who {
                label: &holder.label,
                host: &holder.host,
                pid: holder.pid,
                command: &holder.command,
                held_ms: holder.held.map(in_ms),
            }),
            remaining_ms: lock.remaining.map(in_ms),
            predecessor: lock.predecessor.as_str(),
            waiters: lock.waiters.iter().map(Waits::from).collect(),
        }
    }
}

impl<'a> From<&'a Waiter> for Waits<'a> {
    fn from(waiter: &'a Waiter) -> Waits<'a> {
        Waits {
            label: &waiter.label,
            host: &waiter.host,
            pid: waiter.pid,
            waiting_ms: in_ms(waiter.waiting),
        }
    }
}

fn in_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

// ── for people ──────────────────────────────────────────────────────────────────────────────────

/// One row for each lock, and one below it for everybody who waits for it.
fn table(locks: &[LockStatus], width: u16) -> String {
    if locks.is_empty() {
        return "no lock has been used here yet\n".to_owned();
    }
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width)
        .set_header(["NAME", "STATE", "WHO", "FOR", "LAST LEFT", "TOKEN"]);
    for lock in locks {
        table.add_row([
            lock.name.as_str().to_owned(),
            format!("{}, {}", lock.state.as_str(), lock.scope),
            lock.holder.as_ref().map(who).unwrap_or_default(),
            times(lock),
            lock.predecessor.to_string(),
            lock.token.to_string(),
        ]);
        for waiter in &lock.waiters {
            let name = Holder {
                label: waiter.label.clone(),
                host: waiter.host.clone(),
                pid: waiter.pid,
                ..Holder::default()
            };
            table.add_row(["", "waits", &who(&name), &in_words(waiter.waiting), "", ""]);
        }
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{}", line.trim_end());
        text
    })
}

/// Since when it is held, or for how long it is reserved.
fn times(lock: &LockStatus) -> String {
    match (lock.state, lock.remaining) {
        (State::Reserved, Some(left)) => format!("{} more", in_words(left)),
        _ => lock.holder.as_ref().and_then(|holder| holder.held).map(at_least).unwrap_or_default(),
    }
}

/// The holder without its time, which has a column of its own.
fn who(holder: &Holder) -> String {
    Holder { held: None, ..holder.clone() }.to_string()
}

/// Nobody notes when a lock was taken below host scope, only since when it was seen.
fn at_least(held: Duration) -> String {
    format!("≥ {}", in_words(held))
}

fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// The terminal's width, or 80 columns.
fn width() -> u16 {
    match rustix::termios::tcgetwinsize(rustix::stdio::stdout()) {
        Ok(size) if size.ws_col > 0 => size.ws_col,
        _ => 80,
    }
}
