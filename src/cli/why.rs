//! `tierlock why`: one lock in sentences: which process has it, what keeps it from being free, what
//! will free it and by when, and which callers wait for it.

use super::{
    args,
    failure::{Failure, print},
    status::{shown, shown_waiter},
};
use crate::{
    api::status::{LockStatus, State},
    error::{Holder, Predecessor},
    identity::this_process,
    printable::{Printable, in_words},
    process::is_stopped,
    scope::Scope,
};

/// Explains one lock.
pub(super) fn why(asked: args::Why) -> Result<u8, Failure> {
    let common = asked.common.with_environment()?;
    let leaders = common.leaders();
    let common = common.without_unused_directory()?;
    let locks = common.into_builder().open()?;
    let seen = locks.status(Some(&asked.name));
    let seen = seen.map_err(|error| Failure::from(error).naming_leaders(&leaders))?;
    let widest = if leaders.is_empty() { Scope::Process } else { Scope::Host };
    let lock = seen.into_iter().next().unwrap_or_else(|| LockStatus::free(asked.name, widest));
    let mut text = sentences(&lock, is_stopped_here).join("\n");
    text.push('\n');
    print(&text)?;
    Ok(0)
}

/// What there is to say, from what matters most. `is_stopped` tells of a holder whether a signal keeps
/// it from running.
fn sentences(lock: &LockStatus, is_stopped: impl Fn(&Holder) -> bool) -> Vec<String> {
    let name = Printable(lock.name.as_str()).to_string();
    let mut text = Vec::new();
    match (lock.state, &lock.holder) {
        (State::Free, _) => {
            text.push(match lock.limit {
                None => format!("{name} is free."),
                Some(limit) => format!("All {limit} permits of {name} are free."),
            });
            text.extend(last_left(lock.predecessor));
        }
        (State::Unknown, _) => text.push(format!(
            "{name} is a lock of host scope, and only its leader knows whether it is held: give \
             --leader to ask it."
        )),
        (State::Reserved, _) => text.extend(reserved(&name, lock)),
        (State::Kept, Some(holder)) => text.extend(kept(&name, lock, holder)),
        (State::Climbing, Some(holder)) => {
            text.push(format!(
                "{name} is being taken by {}, which has it on this machine and waits for its leader \
                 to grant it.",
                shown(holder)
            ));
            text.extend(stopped(holder, &is_stopped));
        }
        (_, Some(holder)) => text.extend(held(&name, lock, holder, &is_stopped)),
        (_, None) if lock.limit.is_some() => text.extend(permits(&name, lock, &is_stopped)),
        (_, None) if !lock.sharers.is_empty() => text.extend(read(&name, lock, &is_stopped)),
        (_, None) => text.push(format!("{name} is held; its holder has not said what it is.")),
    }
    text.extend(waiting(lock));
    text
}

fn held(
    name: &str,
    lock: &LockStatus,
    holder: &Holder,
    is_stopped: &impl Fn(&Holder) -> bool,
) -> Vec<String> {
    let token = lock.token;
    let since = holder.held.filter(|held| !held.is_zero()).map(|held| {
        let least = if holder.held_since_grant { "" } else { "at least " };
        format!(" for {least}{}", in_words(held))
    });
    let since = since.unwrap_or_default();
    let mut text = vec![format!("{name} is held by {}{since}, with token {token}.", shown(holder))];
    if let Some((first, more)) = lock.survivors.split_first() {
        let ends = if more.is_empty() { "that process ends" } else { "all of these have ended" };
        let all = more.iter().map(|survivor| format!(" and {survivor}"));
        let all: String = std::iter::once(first.to_string()).chain(all).collect();
        text.push(format!(
            "The process that took it has ended or released it: {all}, which it started, keeps it. \
             It comes free when {ends}."
        ));
        return text;
    }
    text.extend(stopped(holder, is_stopped));
    match (lock.scope, lock.remaining) {
        (Scope::Host, Some(left)) => text.push(format!(
            "It comes free when its holder releases it. Should the holder's process end or be cut off \
             from the leader, it comes free in {} at the latest; while it lives, it renews that.",
            in_words(left)
        )),
        (Scope::Host, None) => text.push(
            "It comes free when its holder releases it, or is not heard of any more.".to_owned(),
        ),
        (_, left) => {
            text.push(
                "It comes free when that process releases it or ends, however it ends; there is no \
                 time by which that must be."
                    .to_owned(),
            );
            text.extend(left.map(|left| {
                format!("Its at_least keeps it taken for {} more, whatever happens.", in_words(left))
            }));
        }
    }
    text.push(match lock.scope {
        Scope::Host => format!("`tierlock break {name} --token {token}` takes it away."),
        _ => format!("`tierlock break {name} --token {token}` ends that process."),
    });
    text
}

fn read(name: &str, lock: &LockStatus, is_stopped: &impl Fn(&Holder) -> bool) -> Vec<String> {
    let readers = lock.sharers.iter().map(|(reader, count)| match count {
        1 => shown(reader),
        count => format!("{} ({count} times)", shown(reader)),
    });
    let readers: Vec<_> = readers.collect();
    let mut text = vec![format!("{name} is read by {}.", readers.join(", "))];
    for (reader, _) in &lock.sharers {
        text.extend(stopped(reader, is_stopped));
    }
    text.push(
        "A writer gets it once all of them have left or ended; there is no time by which that must \
         be. Readers that come behind a waiting writer wait too."
            .to_owned(),
    );
    text
}

fn permits(name: &str, lock: &LockStatus, is_stopped: &impl Fn(&Holder) -> bool) -> Vec<String> {
    let limit = lock.limit.unwrap_or_default();
    let taken: u32 = lock.sharers.iter().map(|(_, count)| count).sum();
    let holders: Vec<_> = lock
        .sharers
        .iter()
        .map(|(holder, count)| format!("{count} by {}", shown(holder)))
        .collect();
    let mut text = vec![format!(
        "{taken} of the {limit} permits of {name} are taken: {}.",
        holders.join(", ")
    )];
    for (holder, _) in &lock.sharers {
        text.extend(stopped(holder, is_stopped));
    }
    text.push(
        "A permit comes free when its holder releases it or ends, however it ends; there is no time \
         by which that must be."
            .to_owned(),
    );
    text
}

fn reserved(name: &str, lock: &LockStatus) -> Vec<String> {
    let left = lock.remaining.map(|left| format!(" for {} more", in_words(left)));
    let left = left.unwrap_or_default();
    let token = lock.token;
    vec![
        format!("No process holds {name}: the at_least of its last holder keeps it taken{left}."),
        format!("It comes free then; `tierlock break {name} --token {token}` frees it earlier."),
    ]
}

fn kept(name: &str, lock: &LockStatus, holder: &Holder) -> Vec<String> {
    let latest = lock.remaining.map(|left| format!(", or after {} without it", in_words(left)));
    let latest = latest.unwrap_or_default();
    vec![format!(
        "No caller holds {name}: {} keeps its lease for the next lock there. It comes free as soon as \
         another client asks: that machine's answer is waited for{latest}.",
        shown(holder)
    )]
}

fn last_left(how: Predecessor) -> Option<String> {
    let what = match how {
        Predecessor::Clean => return None,
        Predecessor::Panicked => "panicked while it held it",
        Predecessor::Died => "died while it held it",
        Predecessor::Expired => "lost it at a deadline",
        Predecessor::Broken => "lost it to an operator",
    };
    Some(format!(
        "Its last holder {what}, which the next one is told: what it protects may be half done."
    ))
}

fn stopped(holder: &Holder, is_stopped: &impl Fn(&Holder) -> bool) -> Option<String> {
    let pid = holder.pid.filter(|_| is_stopped(holder))?;
    Some(format!("That process is stopped: `kill -CONT {pid}` lets it go on."))
}

/// Whether it is a process of this machine that a signal or a debugger has stopped.
fn is_stopped_here(holder: &Holder) -> bool {
    holder.host == this_process().host && holder.pid.is_some_and(is_stopped)
}

fn waiting(lock: &LockStatus) -> Vec<String> {
    let mut text = match lock.waiters.len() {
        0 => return Vec::new(),
        1 => vec!["1 caller waits for it:".to_owned()],
        count => vec![format!("{count} callers wait for it, and are served in this order:")],
    };
    text.extend(lock.waiters.iter().enumerate().map(|(at, waiter)| {
        format!("  {}. {}, for {}", at + 1, shown_waiter(waiter), in_words(waiter.waiting))
    }));
    text
}

#[cfg(test)]
mod tests;
