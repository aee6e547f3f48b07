//! `tierlock step-down`: the leader that reigns lets another follow, and stands by.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    args,
    failure::{Failure, exit, print},
    leaders::{
        ANSWERS_AT_LAST, ANSWERS_WITHIN, SEVERAL_CLUSTERS, are_of_several_clusters, lines,
        reigning, reigning_unheard,
    },
};
use crate::{
    host::{
        ClientKeys, HAS_OWN_JOURNAL,
        asking::{AskedLeader, NotTold, ask_leaders, ask_to_step_down},
    },
    printable::Printable,
    proto::{ReignId, wire::StepDownRefusal},
};

/// How long another may take to follow, beside the reign's own length.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(10);
/// The pause between two looks at which leader reigns.
const LOOK: Duration = Duration::from_millis(20);

/// Asks the leader that reigns, and waits until one does in another reign.
pub(super) fn step_down(what: args::StepDown) -> Result<u8, Failure> {
    let common = what.common.with_environment()?;
    let addresses = common.leader_addresses();
    if addresses.is_empty() {
        return Err(Failure::new(
            exit::CONFIG,
            "leaders step down: give their addresses by --leader or TIERLOCK_LEADERS",
        ));
    }
    let group = LeaderGroup { keys: common.keys()?, addresses };
    let mut asked = group.ask(ANSWERS_WITHIN)?;
    if reigning(&asked).is_none() {
        asked = group.ask(ANSWERS_AT_LAST)?;
    }
    if are_of_several_clusters(&asked) {
        let text =
            format!("{SEVERAL_CLUSTERS}: give those of the one in which a leader is to step down");
        return Err(Failure::new(exit::CONFIG, text));
    }
    let Some((leader, told)) = reigning(&asked) else {
        let said = lines(&asked);
        let is_refused = |asked: &AskedLeader| matches!(asked.told, Err(NotTold::Refused(_)));
        return Err(Failure::new(
            if asked.iter().any(is_refused) { exit::REFUSED } else { exit::UNREACHABLE },
            format_args!(
                "no leader reigns that could step down: {}",
                said.trim_end().replace('\n', "; ")
            ),
        ));
    };
    let Some(reign) = told.reign else {
        return Err(Failure::internal("the leader's answer", "a reign without a name"));
    };
    let lasts = told.lasts.unwrap_or_default();
    let refused = ask_to_step_down(&leader.address, &group.keys, ANSWERS_AT_LAST, reign)?;
    match refused {
        Ok(Some(StepDownRefusal::HasOwnJournal)) => {
            let text = format!("{}: {HAS_OWN_JOURNAL}", leader.address);
            return Err(Failure::new(exit::CONFIG, text));
        }
        // It has stepped down since it was asked what it is, for another reason.
        Ok(Some(StepDownRefusal::OtherReign)) | Ok(None) => {}
        Err(refused @ NotTold::Refused(_)) => {
            let text = format!("{}: {refused}", leader.address);
            return Err(Failure::new(exit::REFUSED, text));
        }
        // The next reign says whether it has heard it.
        Err(_) => {}
    }
    group.wait_for_another(
        reign,
        &leader.address,
        FOLLOWS_WITHIN.saturating_add(lasts.saturating_mul(2)),
    )
}

/// The leaders that were named.
struct LeaderGroup {
    keys: ClientKeys,
    addresses: Vec<String>,
}

impl LeaderGroup {
    fn ask(&self, within: Duration) -> Result<Vec<AskedLeader>, Failure> {
        Ok(ask_leaders(&self.addresses, &self.keys, within)?)
    }

    fn wait_for_another(
        &self,
        before: ReignId,
        stepped_down: &str,
        limit: Duration,
    ) -> Result<u8, Failure> {
        let begun = Instant::now();
        loop {
            let asked = self.ask(ANSWERS_WITHIN)?;
            let is_over = begun.elapsed() >= limit;
            if reigning(&asked).is_none()
                && let Some(at) = reigning_unheard(&asked, before)
            {
                print(&format!("{stepped_down} has stepped down; {} reigns\n", Printable(&at)))?;
                return Ok(0);
            }
            match reigning(&asked) {
                Some((leader, told)) if told.reign != Some(before) => {
                    print(&format!(
                        "{stepped_down} has stepped down; {} reigns, in epoch {}\n",
                        leader.address, told.epoch
                    ))?;
                    return Ok(0);
                }
                Some((leader, _)) if is_over => {
                    return Err(Failure::new(
                        exit::UNREACHABLE,
                        format_args!(
                            "{} still reigns: it did not answer that it steps down",
                            leader.address
                        ),
                    ));
                }
                None if is_over => {
                    return Err(Failure::new(
                        exit::UNREACHABLE,
                        format_args!(
                            "{stepped_down} has stepped down, and no leader that was named reigns since: {}",
                            lines(&asked).trim_end().replace('\n', "; ")
                        ),
                    ));
                }
                _ => thread::sleep(LOOK),
            }
        }
    }
}
