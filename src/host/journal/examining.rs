//! What a journal in a store says of its leaders, by the store's own word.

use std::{thread, time::Instant};

use super::{moving::JournalSurvey, reach_store};
use crate::{
    error::Result,
    host::engines::{EngineFinding, FindingKind},
    proto::{journal::JournalTrouble, reign::standby_counts},
};

/// Looks at the journal that this URL names, for as long as a standby would count.
///
/// # Errors
///
/// As a leader's start there has them.
pub(crate) fn examine_journal(url: &str) -> Result<Vec<EngineFinding>> {
    let (store, shown) = reach_store(url)?;
    let finding = |kind, text: String| EngineFinding { kind, text: format!("{shown}: {text}") };
    let Some(survey) = store.survey()? else {
        let text = store.half_filled()?.map(|text| format!("half filled: {text}"));
        let text = text.unwrap_or_else(|| {
            "there is no journal: the first leader is started once with --init".to_owned()
        });
        return Ok(vec![finding(FindingKind::Trouble, text)]);
    };
    let JournalSurvey { reign, lasts, stamp, moved_to, entries } = survey;
    if let Some(there) = moved_to {
        let text = format!("it was moved to {there}; its leaders start there");
        return Ok(vec![finding(FindingKind::Trouble, text)]);
    }
    let epoch = entries.epochs.epoch;
    let mut found = vec![finding(
        FindingKind::Fine,
        format!(
            "a journal of cluster {:032x}, epoch {epoch}; open sessions: {}, losses that are not \
             answered for: {}, names kept by at_least: {}",
            entries.cluster.0,
            entries.sessions.len(),
            entries.revoked.len(),
            entries.stays.len()
        ),
    )];
    if reign.is_none() {
        let text = "no leader reigns: one that stands by takes over at once, so none does";
        found.push(finding(FindingKind::Trouble, text.to_owned()));
        return Ok(found);
    }
    let begun = Instant::now();
    let mut took = None;
    let head = loop {
        let asked = Instant::now();
        let head = match store.read() {
            Ok(head) => head,
            Err(JournalTrouble::Unknown(text) | JournalTrouble::Failed(text)) => {
                found.push(finding(FindingKind::Trouble, format!("it does not answer: {text}")));
                return Ok(found);
            }
        };
        // The first connects as well.
        if let Some(took) = &mut took {
            *took = asked.elapsed().min(*took);
        } else {
            took = Some(lasts);
        }
        let is_over = begun.elapsed() > standby_counts(lasts);
        if head.stamp > stamp || is_over {
            break head;
        }
        thread::sleep(lasts / 20);
    };
    let address = head.address.as_deref().unwrap_or("an address that it does not tell");
    let took = took.unwrap_or(lasts);
    found.push(match head.stamp > stamp {
        true => finding(
            FindingKind::Fine,
            format!(
                "the leader at {address} reigns, and has proven it within {:.1?}; L is {lasts:?}",
                begun.elapsed()
            ),
        ),
        false => finding(
            FindingKind::Trouble,
            format!(
                "the leader at {address} reigned last, and has not proven it for longer than L, \
                 {lasts:?}: it is down or cut off, and no other stands by"
            ),
        ),
    });
    // L is to be 20 times the slowest writes.
    found.push(match took.saturating_mul(20) > lasts {
        false => finding(FindingKind::Fine, format!("it is read in {took:.1?}")),
        true => finding(
            FindingKind::Trouble,
            format!(
                "it is read in {took:.1?} at best, more than a twentieth of L: start its leaders with a \
                 longer --reign"
            ),
        ),
    });
    Ok(found)
}
