//! `tierlock replace`: a member's new disk takes the place of the one that its group knows.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    args,
    failure::{Failure, exit, print},
    group::{group_lines, report},
    leaders::{ANSWERS_AT_LAST, lines},
};
use crate::{
    error::LockErrorKind,
    host::{
        ClientKeys,
        asking::{AskedLeader, NotTold, ask_leaders, ask_to_replace},
        refusal,
    },
    printable::Printable,
    proto::wire::{DiskReplacement, GroupReport, MemberReport},
};

/// How long a majority may take to have a new disk in the group.
const ADMITTED_WITHIN: Duration = Duration::from_secs(15);
/// How long the disk may take to catch up.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(60);
/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Has the group admit the disk that a member has now, and waits until that has a vote.
pub(super) fn replace(what: args::ReplaceArgs) -> Result<u8, Failure> {
    let args::ReplaceArgs { member, common } = what;
    let common = common.with_environment()?;
    let addresses = common.leader_addresses();
    if addresses.is_empty() {
        return Err(Failure::new(
            exit::CONFIG,
            "the members of a group replace disks: give their addresses by --leader or TIERLOCK_LEADERS",
        ));
    }
    let group = AskedGroup { keys: common.keys()?, addresses, member };
    group.admit()?;
    group.wait_for_vote()?;
    print(&format!(
        "{}: its new disk is in the group, and has a vote\n",
        Printable(&group.member)
    ))?;
    Ok(0)
}

/// The members that were named, and the one that is replaced.
struct AskedGroup {
    keys: ClientKeys,
    addresses: Vec<String>,
    member: String,
}

impl AskedGroup {
    fn ask(&self) -> Result<Vec<AskedLeader>, Failure> {
        Ok(ask_leaders(&self.addresses, &self.keys, ANSWERS_AT_LAST)?)
    }

    /// Asks the member that leads the log, until that answers.
    fn admit(&self) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut may_have_happened = false;
        loop {
            let asked = self.ask()?;
            let Some(at) = self.leader_of_log(&asked)? else {
                self.refuse_if_late(begun, &asked)?;
                continue;
            };
            match ask_to_replace(&at, &self.keys, ANSWERS_AT_LAST, &self.member)? {
                Ok(DiskReplacement::Replaced) => return Ok(()),
                // By an earlier try, which was not answered.
                Ok(DiskReplacement::NoDiskWaits) if may_have_happened => return Ok(()),
                Ok(
                    DiskReplacement::NotLeading(_)
                    | DiskReplacement::Changing
                    | DiskReplacement::Unknown(_),
                )
                | Err(NotTold::Silent(_)) => may_have_happened = true,
                Ok(refused) => {
                    let error = refusal(&self.member, &refused).expect("it was not replaced");
                    let status = match error.kind() {
                        LockErrorKind::Config => exit::CONFIG,
                        _ => exit::REFUSED,
                    };
                    return Err(Failure::new(status, error));
                }
                Err(not_told) => {
                    return Err(Failure::new(exit::REFUSED, format_args!("{at}: {not_told}")));
                }
            }
            self.refuse_if_late(begun, &asked)?;
        }
    }

    /// Where the member is that leads the log; none, while none does.
    fn leader_of_log(&self, asked: &[AskedLeader]) -> Result<Option<String>, Failure> {
        let Some(report) = report(asked) else {
            let answers = asked.iter().any(|asked| asked.told.is_ok());
            let is_refused = |asked: &AskedLeader| matches!(asked.told, Err(NotTold::Refused(_)));
            return match answers {
                true => Err(Failure::new(
                    exit::CONFIG,
                    "no group keeps the journal of these leaders, so that no member of one has a disk to \
                     replace",
                )),
                false if asked.iter().any(is_refused) => {
                    let said = lines(asked).trim_end().replace('\n', "; ");
                    Err(Failure::new(exit::REFUSED, said))
                }
                false => Ok(None),
            };
        };
        if !report.members.iter().any(|member| member.member == self.member) {
            let error = refusal(&self.member, &DiskReplacement::NoSuchMember);
            return Err(Failure::new(exit::CONFIG, error.expect("it was not replaced")));
        }
        // A disk that is lost while the group is made, when some have the log already, is replaced as any.
        if !report.is_made && report.leader.is_none() {
            let error = refusal(&self.member, &DiskReplacement::NotMade);
            return Err(Failure::new(exit::CONFIG, error.expect("it was not replaced")));
        }
        let leads = |member: &&MemberReport| Some(&member.member) == report.leader.as_ref();
        Ok(report.members.iter().find(leads).map(|member| member.address.clone()))
    }

    fn refuse_if_late(&self, begun: Instant, asked: &[AskedLeader]) -> Result<(), Failure> {
        if begun.elapsed() < ADMITTED_WITHIN {
            thread::sleep(LOOK);
            return Ok(());
        }
        let said = lines(asked) + &group_lines(asked);
        Err(Failure::new(
            exit::UNREACHABLE,
            format_args!(
                "no majority of the group answers that could admit a disk; it may have happened: {}",
                said.trim_end().replace('\n', "; ")
            ),
        ))
    }

    fn wait_for_vote(&self) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            let asked = self.ask()?;
            let of_it = |member: &&MemberReport| member.member == self.member;
            let leads = |report: &&GroupReport| report.leader.as_ref() == Some(&report.own);
            let member =
                report(&asked).filter(leads).and_then(|report| report.members.iter().find(of_it));
            if member.is_some_and(|member| member.votes && !member.disk_waits) {
                return Ok(());
            }
            if begun.elapsed() > CAUGHT_UP_WITHIN {
                return Err(Failure::new(
                    exit::UNREACHABLE,
                    format_args!(
                        "the new disk of {} is in the group and has not caught up yet; it gets its vote by \
                         itself (tierlock status shows it)",
                        Printable(&self.member)
                    ),
                ));
            }
            thread::sleep(LOOK);
        }
    }
}
