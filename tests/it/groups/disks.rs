//! Disks that are lost, replaced, damaged, copied, or another member's.

use super::*;

#[test]
fn a_lost_disk_waits_until_it_is_admitted_and_then_two_suffice() {
    let (rig, mut members) = GroupRig::of_three(SOON);
    let locks = rig.locks();
    let held = hold(&locks, "held");
    let lost = (first_to_reign(&members) + 1) % 3;
    members[lost].kill();
    lose(&rig, lost);
    // A volume that is not mounted looks like it.
    let words = ["--init", "tierlock replace", "mounted"];
    fails(&rig.serve(lost, &[]).output().unwrap(), 78, &words);
    let name = NAMES[lost];
    members[lost] = rig.start(lost, &["--init"]);
    members[lost].says("its disk is new to the group");
    let doctor = rig.tierlock(&["doctor"]);
    let told = String::from_utf8(doctor.stdout).unwrap();
    let waits = told.lines().find(|line| line.contains(&format!("member {name} ")));
    assert!(waits.unwrap().contains("waits to be admitted"), "{told}");
    assert_eq!(doctor.status.code(), Some(78));

    let said = succeeds(&rig.tierlock(&["replace", name]));
    assert_eq!(said, format!("{name}: its new disk is in the group, and has a vote\n"));
    rig.until_whole(3);
    // Its vote is needed now.
    members[first_to_reign(&members)].kill();
    give(hold(&rig.locks(), "new"));
    give(held);
    // And it is a disk like any other.
    members[lost].kill();
    fails(&rig.serve(lost, &["--init"]).output().unwrap(), 78, &["is made"]);
    members[lost] = rig.start(lost, &[]);
    give(hold(&rig.locks(), "newer"));
}

#[test]
fn a_disk_that_is_not_admitted_has_no_vote() {
    let (rig, mut members) = GroupRig::of_three(SOON);
    let alone = first_to_reign(&members);
    let (lost, away) = ((alone + 1) % 3, (alone + 2) % 3);
    members[lost].kill();
    lose(&rig, lost);
    members[lost] = rig.start(lost, &["--init"]);
    members[lost].says("its disk is new to the group");
    members[away].kill();
    // With the vote of the new disk there would be two of three.
    members[alone].says("its reign is over");
    assert!(!members[lost].has_said("it reigns"));
    members[away] = rig.start(away, &[]);
    give(hold(&rig.locks(), "new"));
}

#[test]
fn only_a_disk_that_waits_is_admitted() {
    let (rig, members) = GroupRig::of_three(SLOWLY);
    fails(&rig.tierlock(&["replace", "b"]), 78, &["no disk that waits", "--init"]);
    fails(&rig.tierlock(&["replace", "x"]), 78, &["no member", "x"]);
    let nowhere = program(env!("CARGO_BIN_EXE_tierlock"))
        .args(["replace", "b", "--secret-file"])
        .arg(rig.secret())
        .output()
        .unwrap();
    fails(&nowhere, 78, &["--leader"]);
    drop(members);
}

#[test]
fn a_damaged_log_is_refused_and_a_copy_too() {
    let (rig, members) = GroupRig::of_three(SLOWLY);
    let number = (first_to_reign(&members) + 1) % 3;
    members[number].kill();
    let log = rig.state(number).join("group.log");
    let whole = fs::read(&log).unwrap();
    let mut bent = whole.clone();
    bent[whole.len() / 2] ^= 1;
    fs::write(&log, &bent).unwrap();
    let damaged = rig.serve(number, &[]).output().unwrap();
    fails(&damaged, 74, &["is damaged", "nothing was repaired", "tierlock replace"]);
    fs::write(&log, &whole).unwrap();
    let elsewhere = rig.files.path().join("original");
    fs::rename(&log, &elsewhere).unwrap();
    fs::copy(&elsewhere, &log).unwrap();
    fails(&rig.serve(number, &[]).output().unwrap(), 78, &["is a copy", "--epoch-above"]);
    fs::remove_file(&log).unwrap();
    fails(&rig.serve(number, &[]).output().unwrap(), 74, &["missing", "tierlock replace"]);
    fs::rename(&elsewhere, &log).unwrap();
    let member = rig.start(number, &[]);
    rig.until_whole(3);
    drop(member);
}

/// As a virtual machine is put back to a snapshot: each file is the one that it was, with what it had.
#[test]
fn a_disk_that_was_put_back_is_out_until_it_is_admitted() {
    let (rig, mut members) = GroupRig::of_three(SLOWLY);
    let locks = rig.locks();
    let held = hold(&locks, "held");
    rig.until_whole(3);
    let leader = first_to_reign(&members);
    let number = (leader + 1) % 3;
    let name = NAMES[number];
    members[number].kill();
    let [log, commits] = ["group.log", "commits"].map(|file| rig.state(number).join(file));
    // The next start goes on in another file, and this one stays as it is.
    let kept = rig.files.path().join("kept");
    fs::hard_link(&log, &kept).unwrap();
    let noted = fs::read(&commits).unwrap();
    members[number] = rig.start(number, &[]);
    rig.until_whole(3);
    // What it confirms from here on, its disk has not.
    let others: Vec<_> = (0..3).map(|_| rig.locks()).collect();
    let more: Vec<_> = others.iter().map(|locks| hold(locks, "more")).map(give).collect();
    rig.until_whole(3);
    members[number].kill();
    fs::rename(&kept, &log).unwrap();
    fs::write(&commits, noted).unwrap();
    members[number] = rig.start(number, &[]);
    let alarm = members[number].says("ALARM");
    for words in ["less than it has confirmed", "put back", &format!("tierlock replace {name}")] {
        assert!(alarm.contains(words), "{alarm}");
    }
    members[number].says("its disk is new to the group");
    assert!(rig.state(number).join("group.put-back").is_file());
    let doctor = String::from_utf8(rig.tierlock(&["doctor"]).stdout).unwrap();
    let waits = doctor.lines().find(|line| line.contains(&format!("member {name} ")));
    assert!(waits.unwrap().contains("waits to be admitted"), "{doctor}");
    succeeds(&rig.tierlock(&["replace", name]));
    rig.until_whole(3);
    give(held);
    drop((locks, more));
    // It is as good as any: it comes back by itself.
    members[number].kill();
    members[number] = rig.start(number, &[]);
    rig.until_whole(3);
}
