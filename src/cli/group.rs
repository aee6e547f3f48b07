//! What the members of a group say of it.

use serde::Serialize;

use crate::{
    host::asking::AskedLeader,
    printable::Printable,
    process::{Finding, Level},
    proto::wire::{GroupReport, MemberReport},
};

/// What is known best of the group: by the word of the member that leads its log, or else of any.
pub(super) fn report(asked: &[AskedLeader]) -> Option<&GroupReport> {
    let reports = || asked.iter().filter_map(|asked| asked.group.as_deref());
    let leads = |report: &&GroupReport| report.leader.as_ref() == Some(&report.own);
    reports().find(leads).or_else(|| reports().find(|report| report.is_made)).or(reports().next())
}

/// A line for each member.
pub(super) fn group_lines(asked: &[AskedLeader]) -> String {
    let Some(report) = report(asked) else { return String::new() };
    let line = |member: &MemberReport| {
        let at = Printable(&member.address);
        format!("member {} at {at}: {}\n", Printable(&member.member), in_a_line(report, member))
    };
    report.members.iter().map(line).collect()
}

fn in_a_line(report: &GroupReport, member: &MemberReport) -> String {
    let waits = match member.disk_waits {
        true => "; its new disk waits to be admitted (tierlock replace)",
        false => "",
    };
    if !report.is_made {
        return format!("the group is not made yet{waits}");
    }
    let leads = report.leader.as_ref() == Some(&member.member);
    let part = match (leads, member.votes) {
        (true, _) => "leads the group's log",
        (_, true) => "has a vote",
        (_, false) => "has no vote yet",
    };
    let lag = match member.lag {
        _ if leads => String::new(),
        Some(0) => ", up to date".to_owned(),
        Some(lag) => format!(", {lag} entries behind"),
        None => String::new(),
    };
    let silent = if member.is_heard { "" } else { ", silent" };
    format!("{part}{lag}{silent}{waits}")
}

/// What a doctor makes of it.
pub(super) fn group_findings(asked: &[AskedLeader]) -> Vec<Finding> {
    let Some(report) = report(asked) else { return Vec::new() };
    let finding = |member: &MemberReport| Finding {
        level: match member.is_heard && member.votes && !member.disk_waits {
            true => Level::Fine,
            // It is on its way.
            false if member.is_heard && !member.disk_waits && report.is_made => Level::Note,
            false => Level::Trouble,
        },
        text: format!(
            "member {} at {}: {}",
            member.member,
            member.address,
            in_a_line(report, member)
        ),
    };
    let mut found: Vec<_> = report.members.iter().map(finding).collect();
    let silent = report.members.iter().filter(|member| !member.is_heard).count();
    if report.is_made && silent > 0 && silent * 2 < report.members.len() {
        let more = report.members.len().div_ceil(2) - silent;
        found.push(Finding {
            level: Level::Note,
            text: format!(
                "the group goes on, and stops when {more} more of its members fail{}",
                if more == 1 { "s" } else { "" }
            ),
        });
    }
    found
}

/// A member, as `status --json` shows it.
#[derive(Serialize)]
pub(super) struct ShownMember<'a> {
    member: &'a str,
    address: &'a str,
    leads_log: bool,
    votes: bool,
    heard: bool,
    /// `null` unless the member that was asked leads the log.
    lag_entries: Option<u64>,
    disk_waits: bool,
}

/// All members, as this one sees them.
pub(super) fn shown_members(report: &GroupReport) -> Vec<ShownMember<'_>> {
    report
        .members
        .iter()
        .map(|member| ShownMember {
            member: &member.member,
            address: &member.address,
            leads_log: report.leader.as_ref() == Some(&member.member),
            votes: member.votes,
            heard: member.is_heard,
            lag_entries: member.lag,
            disk_waits: member.disk_waits,
        })
        .collect()
}
