//! A leader that is killed, or hands over, again and again under load: clients that hold a lock and ask for
//! nothing, and two that ask as often as they can, for names that no client has asked for before.

use std::{
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    bench::failure::{BenchFailure, Result},
    peers::followed::{Followed, ReignClient, Reigning},
};

/// 90 % of the clients hold, and ask for nothing.
pub(crate) const HOLDERS: usize = 18;
const BUSY: usize = 2;
/// A grant that takes longer counts as this long.
const PATIENCE: Duration = Duration::from_secs(30);
/// For how long clients work between two hand-overs, as in a rolling restart: all are back by then.
const SETTLING: Duration = Duration::from_secs(1);
/// New grants between two kills, at least.
const GRANTS_BETWEEN: u64 = 20;
/// How often a step-down may find that the reign has just moved by itself.
const ATTEMPTS: u32 = 5;

/// How long each of several events took.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) times: u32,
    pub(crate) p50_ns: f64,
    pub(crate) p99_ns: f64,
    pub(crate) worst_ns: f64,
}

impl Spread {
    pub(crate) fn of(mut took: Vec<Duration>) -> Spread {
        took.sort();
        let at = |part: usize| {
            let index = (took.len() * part / 100).min(took.len().saturating_sub(1));
            took.get(index).map_or(0.0, |took| took.as_nanos() as f64)
        };
        let times = u32::try_from(took.len()).unwrap_or(u32::MAX);
        Spread { times, p50_ns: at(50), p99_ns: at(99), worst_ns: at(100) }
    }
}

/// What clients saw of leaders that were ended.
pub(crate) struct Endings {
    /// From a kill to the first new grant of another reign.
    pub(crate) killed: Spread,
    /// From a kill to the word of another leader that it reigns.
    pub(crate) followed: Spread,
    /// The longest pause between new grants while a reign was handed over.
    pub(crate) pauses: Spread,
    /// Held locks that were lost.
    pub(crate) locks_lost: u64,
}

/// Clients that hold a lock each.
pub(crate) struct Holders(Vec<Box<dyn ReignClient>>);

impl Holders {
    pub(crate) fn start(leaders: &mut dyn Followed) -> Result<Holders> {
        let client = |number| {
            let mut client = leaders.client()?;
            client.hold(&held(number))?;
            Ok(client)
        };
        (0..HOLDERS).map(client).collect::<Result<_>>().map(Holders)
    }

    /// How many have lost theirs since this was last asked; those get another one.
    fn lost(&mut self) -> Result<u64> {
        let mut lost = 0;
        for (number, holder) in self.0.iter_mut().enumerate() {
            if !holder.holds()? {
                lost += 1;
                holder.hold(&held(number))?;
            }
        }
        Ok(lost)
    }

    fn give(&mut self) -> Result<u64> {
        let mut lost = 0;
        for holder in &mut self.0 {
            lost += u64::from(!holder.give()?);
        }
        Ok(lost)
    }
}

fn held(number: usize) -> String {
    format!("held/{number}")
}

/// Kills the one that reigns so often, and has it hand over as often.
pub(crate) fn end_again_and_again(
    leaders: &mut dyn Followed,
    mut holders: Holders,
    times: u32,
    mut says: impl FnMut(&str),
) -> Result<Endings> {
    let busy = (0..BUSY).map(|_| leaders.client()).collect::<Result<Vec<_>>>()?;
    let (grants, is_over, names) = (Grants::default(), AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        // However this ends, what runs beside it does.
        let _ends = Ends(&is_over);
        for mut client in busy {
            let (grants, is_over, names) = (&grants, &is_over, &names);
            scope.spawn(move || {
                let asked = ask_until(&mut *client, grants, is_over, names);
                if let Err(failure) = asked {
                    grants.fail(failure);
                }
            });
        }
        let (mut killed, mut followed) = (Vec::new(), Vec::new());
        let (mut pauses, mut locks_lost) = (Vec::new(), 0);
        for number in 1..=times {
            says(&format!("killed {number} of {times} times"));
            let (granted, reigns) = kill(leaders, &grants)?;
            killed.push(granted);
            followed.extend(reigns);
            locks_lost += holders.lost()?;
        }
        for number in 1..=times {
            says(&format!("handed over {number} of {times} times"));
            thread::sleep(SETTLING);
            pauses.push(hand_over(leaders, &grants)?);
            locks_lost += holders.lost()?;
        }
        grants.until_more()?;
        locks_lost += holders.give()?;
        let [killed, followed, pauses] = [killed, followed, pauses].map(Spread::of);
        Ok(Endings { killed, followed, pauses, locks_lost })
    })
}

/// A client that asks as often as it can.
fn ask_until(
    client: &mut dyn ReignClient,
    grants: &Grants,
    is_over: &AtomicBool,
    names: &AtomicU64,
) -> Result<()> {
    while !is_over.load(SeqCst) {
        client.grant("common")?;
        let name = format!("new/{}", names.fetch_add(1, SeqCst));
        if let Some(reign) = client.grant(&name)? {
            grants.granted(reign);
        }
    }
    Ok(())
}

/// The one that reigns, in the highest reign that anything was granted in.
fn reigning(leaders: &mut dyn Followed, grants: &Grants) -> Result<Reigning> {
    grants.until_more()?;
    let patience = Instant::now() + PATIENCE;
    loop {
        let found = leaders.reigning()?;
        let is_late = found.reign.is_some_and(|reign| reign < grants.highest());
        if !is_late {
            return Ok(found);
        }
        // On a busy machine the reign may move by itself, and what tells of it come late.
        if Instant::now() > patience {
            return Err(BenchFailure::other("it cannot be told which leader reigns"));
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// How long it takes until the first new grant, and until another leader says that it reigns.
fn kill(leaders: &mut dyn Followed, grants: &Grants) -> Result<(Duration, Option<Duration>)> {
    let Reigning { number, .. } = reigning(leaders, grants)?;
    grants.expect_another();
    let killed = Instant::now();
    leaders.kill(number)?;
    let granted = grants.until_another(killed)?.map_or(PATIENCE, |first| first.at - killed);
    leaders.restore(number)?;
    let since = reigning(leaders, grants)?.since;
    Ok((granted, since.and_then(|since| since.checked_duration_since(killed))))
}

fn hand_over(leaders: &mut dyn Followed, grants: &Grants) -> Result<Duration> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let Reigning { number, .. } = reigning(leaders, grants)?;
        grants.expect_another();
        let begun = Instant::now();
        match leaders.hand_over(number) {
            Ok(()) => {
                let first = grants.until_another(begun)?;
                return Ok(first.map_or(PATIENCE, |first| first.pause));
            }
            Err(failure) if attempts == ATTEMPTS => return Err(failure),
            Err(_) => leaders.restore(number)?,
        }
    }
}

/// Tells threads to end when this is dropped.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// What busy clients were granted.
#[derive(Default)]
struct Grants {
    seen: Mutex<SeenGrants>,
    changed: Condvar,
}

#[derive(Default)]
struct SeenGrants {
    count: u64,
    /// The highest reign that anything was granted in.
    highest: u64,
    last: Option<Instant>,
    /// The longest pause between two grants since another reign was expected.
    longest: Duration,
    /// A reign above this one is expected.
    above: Option<u64>,
    first: Option<FirstOfReign>,
    failure: Option<BenchFailure>,
}

/// The first new grant of another reign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FirstOfReign {
    at: Instant,
    /// The longest pause between grants until then.
    pause: Duration,
}

impl SeenGrants {
    fn granted(&mut self, reign: u64, now: Instant) {
        self.count += 1;
        self.highest = self.highest.max(reign);
        let pause = self.last.replace(now).map_or(Duration::ZERO, |last| now - last);
        self.longest = self.longest.max(pause);
        if self.above.is_some_and(|above| reign > above) {
            self.above = None;
            self.first = Some(FirstOfReign { at: now, pause: self.longest });
        }
    }

    fn expect_another(&mut self) {
        (self.above, self.first, self.longest) = (Some(self.highest), None, Duration::ZERO);
    }
}

impl Grants {
    fn seen(&self) -> std::sync::MutexGuard<'_, SeenGrants> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn granted(&self, reign: u64) {
        // The clock is read under the lock: pauses are between grants in their order.
        self.seen().granted(reign, Instant::now());
        self.changed.notify_all();
    }

    fn fail(&self, failure: BenchFailure) {
        self.seen().failure.get_or_insert(failure);
        self.changed.notify_all();
    }

    fn highest(&self) -> u64 {
        self.seen().highest
    }

    fn expect_another(&self) {
        self.seen().expect_another();
    }

    /// The first grant of the reign that is expected; none, if it does not come.
    fn until_another(&self, since: Instant) -> Result<Option<FirstOfReign>> {
        self.until(since + PATIENCE, |seen| seen.first)
    }

    /// Waits for some more grants.
    fn until_more(&self) -> Result<()> {
        let enough = self.seen().count + GRANTS_BETWEEN;
        let come = |seen: &SeenGrants| (seen.count >= enough).then_some(());
        let more = self.until(Instant::now() + PATIENCE, come)?;
        more.ok_or_else(|| BenchFailure::other("clients are granted nothing any more"))
    }

    fn until<T>(
        &self,
        latest: Instant,
        come: impl Fn(&SeenGrants) -> Option<T>,
    ) -> Result<Option<T>> {
        let mut seen = self.seen();
        loop {
            if let Some(failure) = seen.failure.take() {
                return Err(failure);
            }
            let found = come(&seen);
            let left = latest.saturating_duration_since(Instant::now());
            if found.is_some() || left.is_zero() {
                return Ok(found);
            }
            let waited = self.changed.wait_timeout(seen, left);
            seen = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests;
