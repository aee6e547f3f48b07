//! Upgradable leases: beside readers, one at a time, and what becomes of them.

use super::*;
use crate::error::Predecessor;

const CHANGE: RequestId = RequestId(80);

fn read(text: &str) -> Acquire {
    Acquire { mode: Mode::Shared, ..acquire(text) }
}

fn upgradable(text: &str) -> Acquire {
    Acquire { mode: Mode::Upgradable, ..acquire(text) }
}

fn upgrade(reign: &mut ReignScene, speaker: Speaker, lease: LeaseId) {
    reign.say(speaker, ClientMessage::Upgrade { request: CHANGE, lease, tries: false });
}

fn downgrade(reign: &mut ReignScene, speaker: Speaker, grant: HeardGrant, to: Mode) {
    let (request, lease, last_used) = (CHANGE, grant.lease, grant.token);
    reign.say(speaker, ClientMessage::Downgrade { request, lease, last_used, to });
}

/// The token of a lease that was converted, if this connection was told.
fn converted(reign: &mut ReignScene, speaker: Speaker) -> Option<Token> {
    reign.take(speaker).into_iter().find_map(|message| match message {
        LeaderMessage::Converted { request: CHANGE, token, .. } => Some(token),
        _ => None,
    })
}

fn as_mode(mode: Mode, text: &str, grant: HeardGrant) -> HeldLease {
    HeldLease { mode, ..held(text, grant) }
}

/// An upgradable reader of `x`, a reader beside it, and a third session.
fn one_of_each() -> (ReignScene, [Speaker; 3], [HeardGrant; 2]) {
    let mut reign = begin();
    let all = [1, 2, 3].map(|number| reign.session(number));
    reign.acquire(all[2], 1, acquire("another"));
    reign.granted(all[2], 1);
    reign.acquire(all[0], 1, upgradable("x"));
    let one = reign.granted(all[0], 1);
    reign.acquire(all[1], 1, read("x"));
    let reader = reign.granted(all[1], 1);
    (reign, all, [one, reader])
}

#[test]
fn readers_stand_beside_one_upgradable_lease() {
    let (mut reign, [_, _, c], [one, reader]) = one_of_each();
    assert!(reader.token > one.token, "an upgradable one's token is its own");
    reign.acquire(c, 2, Acquire { wait: Wait::No, ..upgradable("x") });
    assert_eq!(reign.refused(c, 2), Some(Refusal::WouldBlock));
    reign.acquire(c, 3, read("x"));
    assert_eq!(reign.granted(c, 3).token, reader.token);
}

/// shuttle#351: an upgrade lets a queued writer in between.
#[test]
fn an_upgrade_stands_before_the_queue_and_lets_no_reader_in() {
    let (mut reign, [a, b, c], [one, reader]) = one_of_each();
    reign.acquire(c, 2, acquire("x"));
    reign.take(c);
    upgrade(&mut reign, a, one.lease);
    assert_eq!(converted(&mut reign, a), None);
    reign.acquire(b, 2, read("x"));
    assert!(reign.try_granted(b, 2).is_err());
    reign.release(b, reader.lease);
    let token = converted(&mut reign, a).expect("it is alone");
    assert!(token > reader.token && reign.try_granted(c, 2).is_err());
    // Asked again, as on a new connection: its answer was not heard.
    upgrade(&mut reign, a, one.lease);
    assert_eq!(converted(&mut reign, a), Some(token));
    reign.release(a, one.lease);
    assert!(reign.granted(c, 2).token > token);
    assert!(reign.try_granted(b, 2).is_err());
}

#[test]
fn an_upgrade_has_kept_shared_leases_recalled() {
    let mut reign = begin();
    let [a, b] = [1, 2].map(|number| reign.session(number));
    reign.acquire(a, 1, upgradable("x"));
    let one = reign.granted(a, 1);
    reign.acquire(b, 1, Acquire { keep: true, ..read("x") });
    let kept = reign.granted(b, 1);
    assert!(!reign.take(b).contains(&LeaderMessage::Recall { lease: kept.lease }));
    upgrade(&mut reign, a, one.lease);
    assert!(reign.take(b).contains(&LeaderMessage::Recall { lease: kept.lease }));
    reign.release(b, kept.lease);
    assert!(converted(&mut reign, a).is_some());
}

/// curator#1138, #796: a downgrade lets a queued writer in beside the new reader.
#[test]
fn a_downgrade_lets_readers_in_at_once_and_no_writer() {
    let (mut reign, [a, b, c], [one, reader]) = one_of_each();
    reign.release(b, reader.lease);
    upgrade(&mut reign, a, one.lease);
    let written = converted(&mut reign, a).unwrap();
    reign.acquire(b, 2, read("x"));
    reign.acquire(c, 2, acquire("x"));
    reign.take(c);
    downgrade(&mut reign, a, HeardGrant { token: written, ..one }, Mode::Shared);
    let own = converted(&mut reign, a).unwrap();
    assert!(own > written, "readers are above the writer that one of them was");
    assert_eq!(reign.granted(b, 2).token, own);
    assert!(reign.try_granted(c, 2).is_err());
}

/// Found by seed 872 of the simulator: a downgrade that was said again took the place of the upgrade.
#[test]
fn a_downgrade_that_is_said_again_takes_no_upgrades_place() {
    let (mut reign, [a, b, c], [one, reader]) = one_of_each();
    reign.release(b, reader.lease);
    downgrade(&mut reign, a, one, Mode::Shared);
    assert!(converted(&mut reign, a).is_some());
    reign.acquire(c, 2, upgradable("x"));
    let other = reign.granted(c, 2);
    upgrade(&mut reign, c, other.lease);
    downgrade(&mut reign, a, one, Mode::Shared);
    assert!(converted(&mut reign, a).is_some());
    reign.release(a, one.lease);
    assert!(converted(&mut reign, c).is_some());
}

#[test]
fn an_upgrade_that_is_given_up_leaves_a_reader_whether_or_not_it_was_granted() {
    let (mut reign, [a, b, c], [one, reader]) = one_of_each();
    upgrade(&mut reign, a, one.lease);
    downgrade(&mut reign, a, one, Mode::Upgradable);
    reign.acquire(c, 2, read("x"));
    let beside = reign.granted(c, 2);
    reign.release(b, reader.lease);
    reign.release(c, beside.lease);
    reign.take(a);
    upgrade(&mut reign, a, one.lease);
    let written = converted(&mut reign, a).unwrap();
    downgrade(&mut reign, a, one, Mode::Upgradable);
    assert!(converted(&mut reign, a).unwrap() > written);
    reign.acquire(c, 3, read("x"));
    assert!(reign.granted(c, 3).token > written);
}

#[test]
fn an_upgrade_whose_connection_is_lost_holds_readers_up_no_longer() {
    let (mut reign, [a, b, c], [one, reader]) = one_of_each();
    upgrade(&mut reign, a, one.lease);
    reign.acquire(c, 2, read("x"));
    assert!(reign.try_granted(c, 2).is_err());
    reign.disconnect(a);
    let beside = reign.granted(c, 2);
    let a = reign.again(a);
    reign.report_held(a, vec![as_mode(Mode::Upgradable, "x", one)], Vec::new());
    upgrade(&mut reign, a, one.lease);
    reign.release(b, reader.lease);
    assert_eq!(converted(&mut reign, a), None);
    reign.release(c, beside.lease);
    assert!(converted(&mut reign, a).is_some());
}

#[test]
fn an_upgrade_that_was_not_heard_is_undone_by_the_report_of_a_reader() {
    let (mut reign, [a, b, c], [one, reader]) = one_of_each();
    reign.release(b, reader.lease);
    upgrade(&mut reign, a, one.lease);
    reign.disconnect(a);
    reign.acquire(c, 2, read("x"));
    assert!(reign.try_granted(c, 2).is_err());
    let a = reign.again(a);
    reign.report_held(a, vec![as_mode(Mode::Upgradable, "x", one)], Vec::new());
    assert!(reign.granted(c, 2).token > one.token);
}

#[test]
fn an_upgrade_waits_for_the_end_of_grace_and_its_readers_come_back() {
    let (mut reign, [a, b, c], [one, reader]) = one_of_each();
    reign.restart();
    let [a, b, c] = [a, b, c].map(|speaker| reign.again(speaker));
    reign.report_held(a, vec![as_mode(Mode::Upgradable, "x", one)], Vec::new());
    upgrade(&mut reign, a, one.lease);
    reign.report_held(c, Vec::new(), Vec::new());
    assert_eq!(converted(&mut reign, a), None);
    reign.report_held(b, vec![as_mode(Mode::Shared, "x", reader)], Vec::new());
    assert_eq!(converted(&mut reign, a), None);
    reign.release(b, reader.lease);
    assert!(converted(&mut reign, a).unwrap() > reader.token);
    assert!(reign.notices.is_empty(), "{:?}", reign.notices);
}

#[test]
fn a_break_or_an_end_midway_ends_an_upgrade() {
    let (mut reign, [a, b, c], [one, reader]) = one_of_each();
    upgrade(&mut reign, a, one.lease);
    let (query, token) = (RequestId(90), one.token);
    reign.say(c, ClientMessage::Break { query, name: name("x"), token });
    reign.release(b, reader.lease);
    assert_eq!(converted(&mut reign, a), None);
    reign.acquire(c, 2, acquire("x"));
    assert!(reign.try_granted(c, 2).is_err(), "it has not answered yet");
    reign.release(a, one.lease);
    reign.granted(c, 2);
    reign.take(a);
    upgrade(&mut reign, a, one.lease);
    assert_eq!(reign.take(a), [], "it is over");
}

/// Found by seed 147 of the simulator: an upgradable lease that was given back, of which its session had yet
/// to hear, took the name from the next one.
#[test]
fn an_upgradable_lease_on_its_way_back_takes_nothing_from_the_next() {
    for comes_first in [false, true] {
        let (mut reign, [a, b, c], [one, reader]) = one_of_each();
        reign.release(a, one.lease);
        reign.acquire(c, 2, upgradable("x"));
        let next = reign.granted(c, 2);
        reign.restart();
        let [a, b, c] = [a, b, c].map(|speaker| reign.again(speaker));
        reign.report_held(b, vec![as_mode(Mode::Shared, "x", reader)], Vec::new());
        let gone =
            HeldLease { leaving: Some(Predecessor::Clean), ..as_mode(Mode::Upgradable, "x", one) };
        let next_held = as_mode(Mode::Upgradable, "x", next);
        let mut reports = [(a, vec![gone]), (c, vec![next_held])];
        if comes_first {
            reports.reverse();
        }
        for (speaker, held) in reports {
            reign.report_held(speaker, held, Vec::new());
        }
        assert!(reign.notices.is_empty(), "{:?}", reign.notices);
        upgrade(&mut reign, c, next.lease);
        reign.release(b, reader.lease);
        assert!(converted(&mut reign, c).is_some());
    }
}

#[test]
fn an_upgrade_that_only_tries_is_refused_once_another_is_surely_inside() {
    let (mut reign, [a, b, c], [one, reader]) = one_of_each();
    let tries = ClientMessage::Upgrade { request: CHANGE, lease: one.lease, tries: true };
    let refused = |reign: &mut ReignScene, speaker| {
        reign.take(speaker).into_iter().any(|message| {
            matches!(
                message,
                LeaderMessage::Refused { request: CHANGE, why: Refusal::WouldBlock, .. }
            )
        })
    };
    reign.say(a, tries.clone());
    assert!(refused(&mut reign, a));
    // It is upgradable as before: readers come in.
    reign.acquire(c, 2, Acquire { keep: true, ..read("x") });
    let kept = reign.granted(c, 2);
    reign.release(b, reader.lease);
    // What is kept may be given back: that is known once it is asked for.
    reign.say(a, tries.clone());
    assert!(!refused(&mut reign, a));
    assert!(reign.take(c).contains(&LeaderMessage::Recall { lease: kept.lease }));
    reign.say(c, ClientMessage::Use { lease: kept.lease, kept: false });
    assert!(refused(&mut reign, a));
    reign.say(a, tries);
    reign.release(c, kept.lease);
    assert!(refused(&mut reign, a), "it was in use when it was asked");
    upgrade(&mut reign, a, one.lease);
    assert!(converted(&mut reign, a).is_some());
}

/// What it cancels has become a reader's meanwhile.
#[test]
fn a_cancel_of_a_downgraded_grant_with_at_least_frees_the_name() {
    let mut reign = begin();
    let [a, b] = [1, 2].map(|number| reign.session(number));
    reign.has_asked_for(b, 1, "x");
    let at_least = Some(ms(10_000));
    reign.acquire(a, 1, Acquire { at_least, ..acquire("x") });
    let grant = reign.granted(a, 1);
    downgrade(&mut reign, a, grant, Mode::Shared);
    assert!(converted(&mut reign, a).is_some());
    reign.acquire(b, 2, acquire("x"));
    assert!(reign.try_granted(b, 2).is_err());
    reign.cancel(a, 1);
    reign.commit();
    reign.granted(b, 2);
}

/// An upgrade that was granted and given up has repaired nothing.
#[test]
fn an_upgrade_that_was_given_up_does_not_hide_how_the_last_writer_left() {
    for (last_used, next) in [(true, Predecessor::Clean), (false, Predecessor::Panicked)] {
        let mut reign = begin();
        let [a, b] = [1, 2].map(|number| reign.session(number));
        reign.acquire(a, 1, acquire("x"));
        let grant = reign.granted(a, 1);
        let how = Predecessor::Panicked;
        let release = ClientMessage::Release { lease: grant.lease, last_used: grant.token, how };
        reign.say(a, release);
        reign.acquire(a, 2, upgradable("x"));
        let one = reign.granted(a, 2);
        upgrade(&mut reign, a, one.lease);
        let written = converted(&mut reign, a).unwrap();
        let token = if last_used { written } else { Token::ZERO };
        downgrade(&mut reign, a, HeardGrant { token, ..one }, Mode::Upgradable);
        assert!(converted(&mut reign, a).is_some());
        reign.release(a, one.lease);
        reign.acquire(b, 1, acquire("x"));
        let told = reign.take(b).into_iter().find_map(|message| match message {
            LeaderMessage::Granted { predecessor, .. } => Some(predecessor),
            _ => None,
        });
        assert_eq!(told, Some(next));
    }
}
