//! How a group is made, and what is no group.

use super::*;

#[test]
fn a_group_is_made_once_when_all_members_have_met() {
    let rig = GroupRig::new(3, SLOWLY);
    let a = rig.start(0, &["--init"]);
    let b = rig.start(1, &["--init"]);
    // On a busy machine a member may take longer to answer than it is waited for.
    until("two members that wait for the third", || {
        let told = [0, 1].map(|number| rig.seen_by(number).unwrap_or_default());
        let not_made = |member: &SeenMember| member.text.contains("the group is not made yet");
        assert!(told.iter().flatten().all(not_made));
        told.iter().all(|seen| seen.len() == 3)
    });
    assert!(!a.has_said("it reigns") && !b.has_said("it reigns"));
    // One that was not there yet has lost no disk.
    fails(&rig.tierlock(&["replace", "c"]), 78, &["not made yet", "--init"]);
    let members = [a, b, rig.start(2, &["--init"])];
    first_to_reign(&members);
    members.iter().for_each(|member| drop(member.says_or_said("the group is made")));
    give(hold(&rig.locks(), "job"));
    rig.until_whole(3);

    // With the option left in a unit file.
    members[1].kill();
    fails(&rig.serve(1, &["--init"]).output().unwrap(), 78, &["is made", "without --init"]);
    let b = rig.start(1, &[]);
    rig.until_whole(3);
    drop(b);
}

impl Member {
    /// Waits until it has said this, whatever was waited for before.
    fn says_or_said(&self, words: &str) -> String {
        let said = self.heard.borrow().iter().find(|line| line.contains(words)).cloned();
        said.unwrap_or_else(|| self.says(words))
    }
}

#[test]
fn five_members_go_on_without_two() {
    let rig = GroupRig::new(5, SOON);
    let members: Vec<_> = (0..5).map(|number| rig.start(number, &["--init"])).collect();
    let locks = rig.locks();
    let held = hold(&locks, "held");
    for job in ["one", "two"] {
        members[first_to_reign(&members)].kill();
        // Of a session that ended a moment before, the end may not be durable: its names are waited for.
        give(hold(&rig.locks(), job));
    }
    give(held);
}

#[test]
fn a_member_may_listen_elsewhere_than_the_others_find_it() {
    let rig = GroupRig::new(3, SLOWLY);
    let port = rig.address(0).rsplit_once(':').unwrap().1.to_owned();
    let mut command = program(env!("CARGO_BIN_EXE_tierlock"));
    command.args(["serve", "--init", "--listen", &format!(":{port}"), "--member", "a"]);
    command.args(["--group", &rig.members().replace("127.0.0.1", "localhost")]);
    command.args(["--reign", SLOWLY, "--accept-fs", "tmpfs", "--state-dir"]).arg(rig.state(0));
    let members = [
        Member::start({
            command.arg("--secret-file").arg(rig.secret());
            command
        }),
        rig.start(1, &["--init"]),
        rig.start(2, &["--init"]),
    ];
    first_to_reign(&members);
    give(hold(&rig.locks(), "job"));
}

#[test]
fn what_is_no_group_is_refused_in_words() {
    let rig = GroupRig::new(3, SLOWLY);
    let three = rig.members();
    let with = |arguments: &[&str]| {
        let mut command = program(env!("CARGO_BIN_EXE_tierlock"));
        command.args(["serve", "--listen", &rig.address(0), "--accept-fs", "tmpfs", "--init"]);
        command.args(arguments).arg("--secret-file").arg(rig.secret()).output().unwrap()
    };
    let state = rig.state(0).to_str().unwrap().to_owned();
    let on_disk = |members: &str, more: &[&str]| {
        with(&[&["--group", members, "--state-dir", &state], more].concat())
    };
    let two = three.rsplit_once(',').unwrap().0;
    fails(&on_disk(two, &[]), 78, &["2 members", "3", "5"]);
    fails(&on_disk(&three.replace("b=", "a="), &[]), 78, &["the ID a is there twice"]);
    let twice = three.replace(&rig.address(1), &rig.address(0));
    fails(&on_disk(&twice, &[]), 78, &[&rig.address(0), "twice"]);
    let elsewhere = three.replace(&rig.address(0), "192.0.2.1:7420");
    fails(&on_disk(&elsewhere, &[]), 78, &["none of the group's members", "--member"]);
    fails(&on_disk(&three, &["--member", "x"]), 78, &["no member", "a, b, c"]);
    fails(&on_disk(&three, &["--member", "b"]), 78, &["is where", "listens"]);
    fails(&with(&["--group", &three]), 64, &["--state-dir"]);
    fails(&with(&["--member", "a", "--state-dir", &state]), 64, &["--group"]);
    let both = on_disk(&three, &["--journal", "postgres://127.0.0.1/locks"]);
    fails(&both, 64, &["cannot be used with"]);
    assert!(!rig.state(0).exists(), "none of these has made anything");
}

#[test]
fn a_directory_is_a_leaders_or_a_members() {
    let rig = GroupRig::new(3, SLOWLY);
    let alone = |init: &[&str]| {
        let mut command = program(env!("CARGO_BIN_EXE_tierlock"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--accept-fs", "tmpfs"]).args(init);
        command.arg("--state-dir").arg(rig.state(0)).arg("--secret-file").arg(rig.secret());
        command
    };
    let leader = Member::start(alone(&["--init"]));
    leader.says("listening on ");
    leader.kill();
    fails(&rig.serve(0, &["--init"]).output().unwrap(), 78, &["a leader alone"]);
    lose(&rig, 0);
    let member = rig.start(0, &["--init"]);
    fails(&rig.serve(0, &[]).output().unwrap(), 77, &["another leader"]);
    member.kill();
    for options in [&[][..], &["--init"], &["--epoch-above", "9"]] {
        fails(&alone(options).output().unwrap(), 78, &["a group's member", "--group"]);
    }
}

#[test]
fn leaders_without_a_group_replace_no_disk() {
    let rig = GroupRig::new(1, SLOWLY);
    fails(&rig.tierlock(&["replace", "a"]), 69, &["no majority", "silent"]);
    let mut command = program(env!("CARGO_BIN_EXE_tierlock"));
    command.args(["serve", "--listen", &rig.address(0), "--accept-fs", "tmpfs", "--init"]);
    command.arg("--state-dir").arg(rig.state(0)).arg("--secret-file").arg(rig.secret());
    let leader = Member::start(command);
    leader.says("listening on ");
    fails(&rig.tierlock(&["replace", "a"]), 78, &["no group"]);
}
