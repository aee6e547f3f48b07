//! `tierlock watch`: what `status` shows, again and again, with a mark at what has changed.

use std::{
    collections::HashMap,
    io::{self, IsTerminal, Write},
    thread,
    time::Duration,
};

use super::{
    args,
    failure::{Failure, exit},
    leaders::SilenceTeller,
    status::{NONE_REMEMBERED, table, width},
};
use crate::{
    api::{
        manager::LockManager,
        status::{LockState, LockStatus},
    },
    name::Name,
    printable::{Printable, few},
    token::Token,
};

/// Shows the locks until it is ended.
pub(super) fn watch(asked: args::WatchLocks) -> Result<u8, Failure> {
    let common = asked.common.with_environment()?;
    let leaders = common.leaders();
    let locks = common.without_unused_directory()?.into_builder().open()?;
    let look = |locks: &LockManager| {
        let seen = locks.look(asked.name.as_ref());
        seen.map_err(|error| Failure::from(error).naming_leaders(&leaders))
    };
    // What fails at once is the caller's to mend; what fails later may pass.
    let silence = SilenceTeller::begin(&leaders);
    let mut seen = Ok(look(&locks)?);
    drop(silence);
    let mut view = WatchView { is_terminal: io::stdout().is_terminal(), ..WatchView::default() };
    loop {
        let frame = match &seen {
            Ok(found) => view.frame(found),
            Err(failure) => view.failed(failure),
        };
        if let Some(frame) = frame
            && let Err(error) = show(&frame)
        {
            return match error.kind() {
                // The reader has seen enough.
                io::ErrorKind::BrokenPipe => Ok(0),
                _ => Err(Failure::new(exit::IO, format_args!("output: {error}"))),
            };
        }
        thread::sleep(asked.every.max(SHORTEST));
        seen = look(&locks);
    }
}

fn show(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// What was shown last.
#[derive(Default)]
struct WatchView {
    is_terminal: bool,
    /// `None` before the first frame.
    last: Option<HashMap<Name, Essence>>,
    /// The failure that is shown just now.
    trouble: Option<String>,
}

/// What of a lock is told apart from the time that passes.
#[derive(PartialEq, Eq)]
struct Essence {
    state: LockState,
    token: Token,
    holder: Option<u32>,
    sharers: Vec<(Option<u32>, u32)>,
    waiters: Vec<Option<u32>>,
}

impl WatchView {
    /// A screen for a terminal; else a table, if anything has changed since the last one.
    fn frame(&mut self, found: &[LockStatus]) -> Option<String> {
        let was_in_trouble = self.trouble.take().is_some();
        let now: HashMap<_, _> =
            found.iter().map(|lock| (lock.name.clone(), Essence::of(lock))).collect();
        let last = self.last.take();
        let has_changed =
            |name: &Name| last.as_ref().is_some_and(|last| last.get(name) != now.get(name));
        let is_new = last.as_ref() != Some(&now) || was_in_trouble;
        let mut text = match found.is_empty() {
            true => format!("{NONE_REMEMBERED}\n"),
            false => table(found, self.is_terminal.then(width).flatten(), Some(&has_changed)),
        };
        let gone = last.iter().flat_map(HashMap::keys).filter(|name| !now.contains_key(*name));
        let mut gone: Vec<_> = gone.map(|name| name.as_str()).collect();
        gone.sort_unstable();
        if !gone.is_empty() {
            text += &format!("* forgotten: {}\n", few(gone.into_iter().map(Printable), ", "));
        }
        self.last = Some(now);
        match self.is_terminal {
            true => Some(format!("{CLEAR}{text}")),
            false => is_new.then(|| text + "\n"),
        }
    }

    /// The last frame stays in sight below what went wrong.
    fn failed(&mut self, failure: &Failure) -> Option<String> {
        let Failure::Said { line, .. } = failure else { return None };
        let line = Printable(line).to_string();
        let is_new = self.trouble.as_ref() != Some(&line);
        let text = format!("tierlock: {line}; trying again\n");
        self.trouble = Some(line);
        is_new.then_some(text)
    }
}

/// However often it is to look.
const SHORTEST: Duration = Duration::from_millis(20);

/// To the first row and column, and nothing below.
const CLEAR: &str = "\x1b[H\x1b[J";

impl Essence {
    fn of(lock: &LockStatus) -> Essence {
        Essence {
            state: lock.state,
            token: lock.token,
            holder: lock.holder.as_ref().and_then(|holder| holder.pid),
            sharers: lock.sharers.iter().map(|sharer| (sharer.holder.pid, sharer.count)).collect(),
            waiters: lock.waiters.iter().map(|waiter| waiter.pid).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
