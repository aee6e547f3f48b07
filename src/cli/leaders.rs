//! What leaders say of themselves: which of them reigns, which stand by, and how well its reign is proven.

use std::{
    io::{self, IsTerminal as _},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use serde::Serialize;

use super::{
    args::Common,
    failure::{Failure, say},
    group::{ShownMember, group_findings, group_lines, shown_members},
};
use crate::{
    host::asking::{AskedLeader, NotTold, ask_leaders},
    printable::{Printable, few, in_words},
    process::{Finding, Level},
    proto::{
        ReignId,
        wire::{LeaderRank, LeaderStanding},
    },
};

/// How long a leader may take to say what it is.
pub(super) const ANSWERS_WITHIN: Duration = Duration::from_millis(500);

/// How long one may take that has to answer.
pub(super) const ANSWERS_AT_LAST: Duration = Duration::from_secs(3);

/// Leaders that are being asked.
pub(super) struct AskingLeaders(Option<thread::JoinHandle<crate::Result<Vec<AskedLeader>>>>);

impl AskingLeaders {
    /// Asks, beside a manager with the same settings, the leaders that they name. A pipe with the secret
    /// is read once, and that is the manager's.
    pub(super) fn begin_beside_manager(common: &Common) -> Result<AskingLeaders, Failure> {
        match common.has_secret_in_a_file() {
            true => AskingLeaders::begin(common),
            false => {
                // Without any the manager says what is missing.
                if !common.leader_addresses().is_empty() && common.has_secret_in_a_pipe() {
                    eprintln!(
                        "tierlock: leaders are not asked which of them reigns: the secret comes through a \
                         pipe, which can be read once; name a file by --secret-file"
                    );
                }
                Ok(AskingLeaders(None))
            }
        }
    }

    /// Asks, meanwhile, the leaders that these settings name.
    pub(super) fn begin(common: &Common) -> Result<AskingLeaders, Failure> {
        let addresses = common.leader_addresses();
        if addresses.is_empty() {
            return Ok(AskingLeaders(None));
        }
        let keys = common.keys()?;
        let asking = thread::Builder::new().name("tierlock-leaders".into());
        let asking = asking.spawn(move || ask_leaders(&addresses, &keys, ANSWERS_WITHIN));
        let asking = asking.map_err(|error| Failure::internal("cannot start a thread", error))?;
        Ok(AskingLeaders(Some(asking)))
    }

    /// What they have said.
    pub(super) fn end(self) -> Result<Vec<AskedLeader>, Failure> {
        let AskingLeaders(Some(asking)) = self else { return Ok(Vec::new()) };
        match asking.join() {
            Ok(asked) => Ok(asked?),
            Err(_) => Err(Failure::internal("asking the leaders", "a panic")),
        }
    }
}

/// Tells a person at a terminal, once, what is waited for, if that takes long. Until it is dropped.
pub(super) struct SilenceTeller {
    /// Its end is what the thread waits for.
    _answered: Option<mpsc::Sender<()>>,
}

impl SilenceTeller {
    pub(super) fn begin(leaders: &[String]) -> SilenceTeller {
        if leaders.is_empty() || !io::stderr().is_terminal() {
            return SilenceTeller { _answered: None };
        }
        let (end, ended) = mpsc::channel::<()>();
        let line = format!("waiting for an answer from {}", few(leaders, ", "));
        let wait = move || {
            if ended.recv_timeout(WAITED_IN_SILENCE) == Err(RecvTimeoutError::Timeout) {
                say(line);
            }
        };
        // Without one it waits all the same.
        let waiting = thread::Builder::new().name("tierlock-silence".into()).spawn(wait);
        SilenceTeller { _answered: waiting.is_ok().then_some(end) }
    }
}

/// When people begin to wonder.
const WAITED_IN_SILENCE: Duration = Duration::from_secs(1);

/// Whether there is more to be told of these than that a leader answers.
pub(super) fn follow_each_other(asked: &[AskedLeader]) -> bool {
    let is_one = |asked: &AskedLeader| {
        asked
            .told
            .as_ref()
            .is_ok_and(|told| told.lasts.is_some() || told.rank != LeaderRank::Reigns)
    };
    asked.len() > 1 || asked.iter().any(is_one)
}

/// The leader that reigns, by its own word; of two, the one in the later epoch.
pub(super) fn reigning(asked: &[AskedLeader]) -> Option<(&AskedLeader, &LeaderStanding)> {
    let told = asked.iter().filter_map(|asked| Some((asked, asked.told.as_ref().ok()?)));
    told.filter(|(_, told)| told.rank == LeaderRank::Reigns).max_by_key(|(_, told)| told.epoch)
}

/// Where a leader of an earlier release reigns, which does not tell, by the word of one that stands by.
pub(super) fn reigning_unheard(asked: &[AskedLeader], before: ReignId) -> Option<String> {
    let standbys = asked.iter().filter_map(|asked| asked.told.as_ref().ok());
    let mut standbys = standbys.filter(|told| told.rank == LeaderRank::StandsBy);
    let followed = standbys.find(|told| told.reign.is_some_and(|reign| reign != before))?;
    let address = followed.address.clone().unwrap_or_else(|| "another leader".to_owned());
    asked.iter().any(AskedLeader::is_older).then_some(address)
}

/// Whether these do not belong together.
pub(super) fn are_of_several_clusters(asked: &[AskedLeader]) -> bool {
    let told = asked.iter().filter_map(|asked| asked.told.as_ref().ok());
    let mut clusters = told.filter_map(|told| told.cluster);
    clusters.next().is_some_and(|first| clusters.any(|other| other != first))
}

pub(super) const SEVERAL_CLUSTERS: &str = "these addresses are of more than one cluster";

// ── for people ──────────────────────────────────────────────────────────────────────────────────

/// A line for each of them.
pub(super) fn lines(asked: &[AskedLeader]) -> String {
    asked.iter().map(|asked| format!("leader {}: {}\n", asked.address, in_a_line(asked))).collect()
}

/// The same, and a line for each member of a group that keeps their journal.
pub(super) fn lines_with_group(asked: &[AskedLeader]) -> String {
    lines(asked) + &group_lines(asked)
}

fn in_a_line(asked: &AskedLeader) -> String {
    let told = match &asked.told {
        Ok(told) => told,
        Err(not_told) => return not_told.to_string(),
    };
    let journal = match told.journal_took {
        Some(took) if told.lasts.is_some() => format!("; the journal answers in {took:.1?}"),
        _ => String::new(),
    };
    let lasts = told.lasts.map_or_else(String::new, |lasts| format!(", L {lasts:?}"));
    match told.rank {
        LeaderRank::Ended => "has ended its part: its journal failed, or is a copy".to_owned(),
        LeaderRank::Reigns => {
            let proven = match (told.lasts, told.proven) {
                (Some(_), Some(proven)) => format!(", proven {} ago", in_words(proven)),
                _ => ", with its journal for itself".to_owned(),
            };
            format!("reigns in epoch {}{proven}{lasts}{journal}", told.epoch)
        }
        LeaderRank::StandsBy => {
            let knows = match (told.reign, told.proven, told.lag) {
                (Some(_), Some(proven), Some(lag)) => format!(
                    "for {}, epoch {}, which has proven its reign {} ago as of {} ago",
                    Printable(told.address.as_deref().unwrap_or("a leader without an address")),
                    told.epoch,
                    in_words(proven.saturating_sub(lag)),
                    in_words(lag)
                ),
                (None, _, Some(_)) => format!("behind epoch {}: no leader reigns", told.epoch),
                _ => "and has not read its journal yet".to_owned(),
            };
            format!("stands by {knows}{lasts}{journal}")
        }
    }
}

/// What a doctor makes of it.
pub(super) fn findings(asked: &[AskedLeader]) -> Vec<Finding> {
    let mut found: Vec<_> = asked
        .iter()
        .map(|asked| {
            let help = match asked.told {
                Err(NotTold::Silent(_)) => "; is `tierlock serve` running there?",
                _ => "",
            };
            let text = format!("{}: {}{help}", asked.address, in_a_line(asked));
            Finding { level: level(asked), text }
        })
        .collect();
    let mut say = |level, text: String| found.push(Finding { level, text });
    let told: Vec<_> =
        asked.iter().filter_map(|asked| Some((asked, asked.told.as_ref().ok()?))).collect();
    if are_of_several_clusters(asked) {
        say(Level::Trouble, format!("{SEVERAL_CLUSTERS}: give clients those of one"));
    }
    let reigns = told.iter().filter(|(_, told)| told.rank == LeaderRank::Reigns).count();
    match reigns {
        0 if told.is_empty() => {}
        // One of these may.
        0 if asked.iter().any(AskedLeader::is_older) => {}
        0 => say(
            Level::Trouble,
            format!(
                "no leader reigns that answers: unless this was in the moment of a change, no lock is \
                 granted; {}",
                match asked.iter().any(|asked| asked.group.is_some()) {
                    true => "most of the group's members have to be there, with their disks",
                    false => "tierlock doctor --journal says what the journal has",
                }
            ),
        ),
        1 => {}
        more => say(
            Level::Trouble,
            format!(
                "{more} leaders say that they reign: ask again, as this may be the moment of a change; \
                 if they go on, they are of different journals"
            ),
        ),
    }
    let is_shared = told.iter().any(|(_, told)| told.lasts.is_some());
    if is_shared && reigns == 1 && told.len() == 1 {
        let text = "no other leader that was asked stands by: when this one fails, none follows";
        say(Level::Note, text.to_owned());
    }
    for (asked, told) in told {
        let Some(lasts) = told.lasts else { continue };
        // L is to be 20 times the slowest writes.
        if let Some(took) = told.journal_took.filter(|took| took.saturating_mul(20) > lasts) {
            let text = format!(
                "{}: its journal took {took:.1?}, more than a twentieth of L: start its leaders with \
                 a longer --reign, if that is usual",
                asked.address
            );
            say(Level::Note, text);
        }
    }
    found.extend(group_findings(asked));
    found
}

fn level(asked: &AskedLeader) -> Level {
    match &asked.told {
        // It may be in the best of health.
        Err(NotTold::Older) => Level::Note,
        Err(_) => Level::Trouble,
        Ok(told) if told.rank == LeaderRank::Ended => Level::Trouble,
        // A reign that has lapsed, and a standby that has lost sight of the journal.
        Ok(told) => {
            let is_old =
                |age: Option<Duration>| age.zip(told.lasts).is_some_and(|(age, l)| age > l);
            match is_old(told.proven) || is_old(told.lag) {
                true => Level::Trouble,
                false => Level::Fine,
            }
        }
    }
}

// ── for programs ────────────────────────────────────────────────────────────────────────────────

/// One leader, as `status --json` shows it. What does not apply or is not known is `null`.
#[derive(Serialize)]
pub(super) struct ShownLeader<'a> {
    address: &'a str,
    /// `null` of one that is silent.
    rank: Option<&'static str>,
    cluster: Option<String>,
    reign: Option<String>,
    epoch: Option<u32>,
    /// L.
    reign_lasts_ms: Option<u64>,
    /// Where the leader of that reign is.
    reigning_at: Option<&'a str>,
    /// The age of the last proof.
    proven_ms: Option<u64>,
    journal_us: Option<u64>,
    /// How old is what a standby knows of the journal.
    lag_ms: Option<u64>,
    /// Which member of a group it is.
    member: Option<&'a str>,
    /// That group, as it sees it.
    group: Option<Vec<ShownMember<'a>>>,
    /// Why it has not told.
    trouble: Option<String>,
}

impl<'a> From<&'a AskedLeader> for ShownLeader<'a> {
    fn from(asked: &'a AskedLeader) -> ShownLeader<'a> {
        let told = asked.told.as_ref().ok();
        let in_ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let of = |find: fn(&LeaderStanding) -> Option<Duration>| told.and_then(find).map(in_ms);
        ShownLeader {
            address: &asked.address,
            rank: told.map(|told| match told.rank {
                LeaderRank::Reigns => "reigns",
                LeaderRank::StandsBy => "stands by",
                LeaderRank::Ended => "ended",
            }),
            cluster: told.and_then(|told| told.cluster).map(|id| format!("{:032x}", id.0)),
            reign: told.and_then(|told| told.reign).map(|id| format!("{:016x}", id.0)),
            epoch: told.map(|told| told.epoch),
            reign_lasts_ms: of(|told| told.lasts),
            reigning_at: told.and_then(|told| told.address.as_deref()),
            proven_ms: of(|told| told.proven),
            journal_us: told
                .and_then(|told| told.journal_took)
                .map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
            lag_ms: of(|told| told.lag),
            member: asked.group.as_deref().map(|report| &*report.own),
            group: asked.group.as_deref().map(shown_members),
            trouble: asked.told.as_ref().err().map(NotTold::to_string),
        }
    }
}

#[cfg(test)]
mod tests;
