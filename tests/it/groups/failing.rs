//! Members that fail, stand still, come back, or are asked to end: no lock is lost.

use rustix::process::{Resource, Rlimit, prlimit};

use super::*;
use crate::restarts::{Mount, fill, make_room};

#[test]
fn a_held_lock_survives_the_member_that_granted_it_and_its_waiter_has_its_turn() {
    let (rig, members) = GroupRig::of_three(SOON);
    let (holder, waiter) = (rig.locks(), rig.locks());
    let held = hold(&holder, "held");
    let token = MutexGuard::token(&held);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let turn = hold(&waiter, "held");
            let token = MutexGuard::token(&turn);
            give(turn);
            token
        });
        until("a waiter in the queue", || {
            rig.status()["locks"][0]["waiters"].as_array().is_some_and(|all| all.len() == 1)
        });
        let killed = first_to_reign(&members);
        members[killed].kill();
        // A name that no client has asked for, which the next reign grants.
        let new = hold(&rig.locks(), "new");
        assert!(MutexGuard::token(&new).epoch() > token.epoch());
        give(new);
        assert_eq!(MutexGuard::check(&held).unwrap(), token);
        assert!(!waiting.is_finished());
        give(held);
        assert!(waiting.join().unwrap() > token);
    });
}

#[test]
fn a_member_that_is_killed_comes_back_by_itself() {
    let (rig, mut members) = GroupRig::of_three(SLOWLY);
    let away = (first_to_reign(&members) + 1) % 3;
    members[away].kill();
    let locks = rig.locks();
    let all: Vec<_> = (0..40).map(|number| hold(&locks, &format!("names/{number}"))).collect();
    members[away] = rig.start(away, &[]);
    members[away].says("it stands by");
    rig.until_whole(3);
    all.into_iter().for_each(give);
}

#[test]
fn a_member_that_stands_still_is_followed_and_then_follows() {
    let (rig, members) = GroupRig::of_three(SOON);
    let locks = rig.locks();
    let held = hold(&locks, "held");
    let still = first_to_reign(&members);
    members[still].signal(Signal::STOP);
    give(hold(&rig.locks(), "new"));
    members[still].signal(Signal::CONT);
    members[still].says("its reign is over");
    members[still].says("it stands by");
    give(held);
    rig.until_whole(3);
}

#[test]
fn two_of_three_that_are_away_grant_nothing_and_then_all_goes_on() {
    let (rig, mut members) = GroupRig::of_three(SOON);
    let locks = rig.locks();
    let held = hold(&locks, "held");
    let alone = first_to_reign(&members);
    let others: Vec<_> = (0..3).filter(|number| *number != alone).collect();
    others.iter().for_each(|number| members[*number].kill());
    members[alone].says("its reign is over");
    for number in others {
        members[number] = rig.start(number, &[]);
    }
    give(hold(&rig.locks(), "new"));
    give(held);
    rig.until_whole(3);
}

#[test]
fn a_step_down_moves_the_reign_and_the_log() {
    let (rig, members) = GroupRig::of_three(SLOWLY);
    let held = hold(&rig.locks(), "held");
    let before = first_to_reign(&members);
    let said = succeeds(&rig.tierlock(&["step-down"]));
    assert!(said.starts_with(&format!("{} has stepped down; ", rig.address(before))), "{said}");
    members[before].says("it has handed its reign over, and stands by");
    let after = first_to_reign(&members);
    assert_ne!(before, after);
    // On a busy machine a leader may take longer to answer than it is waited for.
    until("a status that says so", || {
        let status = rig.status();
        let reigns = |one: &&Value| one["rank"] == "reigns";
        let Some(reigning) = status["leaders"].as_array().unwrap().iter().find(reigns) else {
            return false;
        };
        let log = reigning["group"].as_array().unwrap().iter().find(|one| one["leads_log"] == true);
        reigning["member"] == NAMES[after] && log.is_some_and(|log| log["member"] == NAMES[after])
    });
    drop(held);
}

/// No file of it may grow any more, which is no room at all: not even what was set aside helps.
#[test]
fn a_member_whose_disk_is_full_is_followed_and_ends_no_reign_of_the_others() {
    let rig = GroupRig::new(3, SOON);
    let members: Vec<_> = (0..3)
        .map(|number| {
            let member = Member::start(without_signal(&rig.serve(number, &["--init"])));
            member.says("listening on ");
            member
        })
        .collect();
    let full = first_to_reign(&members);
    let locks = rig.locks();
    let held = hold(&locks, "held");
    limit_files(&members[full], Some(64));
    members[full].says("the disk of this member is full");
    members[full].says("its reign is over");
    give(hold(&rig.locks(), "new"));
    // A full one that follows holds up none of the others.
    let next = first_to_reign(&members);
    assert_ne!(next, full);
    let more: Vec<_> = (0..3).map(|_| rig.locks()).collect();
    more.iter().for_each(|locks| give(hold(locks, "more")));
    limit_files(&members[full], None);
    members[full].says("its disk has room again");
    rig.until_whole(3);
    assert!(!members[next].has_said("its reign is over"));
    give(held);
}

/// Both members that are left have low disks long before one of them leads. Where no mount is permitted it is skipped.
#[test]
fn members_whose_disks_are_low_reign_until_one_with_room_is_back() {
    let rig = GroupRig::new(3, SOON);
    let mount = |number: usize| {
        fs::create_dir(rig.state(number)).unwrap();
        Mount::of_mib(8, &rig.state(number))
    };
    let Some(_mounts) = (0..3).map(mount).collect::<Option<Vec<_>>>() else {
        return eprintln!("skipped: mounting is not permitted");
    };
    let mut members: Vec<_> = (0..3).map(|number| rig.start(number, &["--init"])).collect();
    let away = first_to_reign(&members);
    let low: Vec<_> = (0..3).filter(|number| *number != away).collect();
    let locks = rig.locks();
    let held = hold(&locks, "held");
    low.iter().for_each(|number| fill(&rig.state(*number)));
    // What they write goes into what was left of the last block, and then into what was set aside.
    until("two members with low disks", || {
        give(hold(&rig.locks(), "more"));
        low.iter().all(|number| members[*number].has_said("leaves the lead to"))
    });
    members[away].kill();
    give(hold(&rig.locks(), "new"));
    members[away] = rig.start(away, &[]);
    members[away].says("it reigns from now on");
    give(hold(&rig.locks(), "newer"));
    low.iter().for_each(|number| make_room(&rig.state(*number)));
    for number in low {
        members[number].says("its disk has room again");
    }
    rig.until_whole(3);
    give(held);
}

/// The command, for which a file that may not grow is an error and no end.
fn without_signal(command: &Command) -> Command {
    let mut shell = program("sh");
    shell.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]).arg(command.get_program());
    shell.args(command.get_args());
    shell
}

fn limit_files(member: &Member, bytes: Option<u64>) {
    let limit = Rlimit { current: bytes, maximum: None };
    let pid = Pid::from_child(&member.child.borrow());
    prlimit(Some(pid), Resource::Fsize, limit).unwrap();
}
