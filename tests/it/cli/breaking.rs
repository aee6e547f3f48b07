//! `tierlock break`.

use super::*;

const HOLD: &str = "echo $TIERLOCK_TOKEN; exec sleep 1000";

fn break_it(leader: &Leader, token: &str) -> Output {
    leader.command("break").args(["job", "--token", token]).output().unwrap()
}

#[test]
fn a_lock_is_taken_away_from_exactly_the_holder_of_a_token() {
    let place = Place::new();
    let leader = place.leader();
    let mut holder = Running::script(&mut leader.run(), &["--label", "first"], "job", HOLD);
    let token = holder.line();
    let mut waiter = Running::script(&mut leader.run(), &["--label", "second"], "job", HOLD);

    // live-mutex#131: break removes the wrong holder.
    let wrong = (token.parse::<u64>().unwrap() + 1).to_string();
    let refused = break_it(&leader, &wrong);
    fails(&refused, 77, &["\"job\"", &token, &wrong, "first", "nothing was broken"]);
    assert!(runs(holder.pid()));

    assert_eq!(succeeds(&break_it(&leader, &token)), "");
    let (status, stderr) = holder.end();
    assert_eq!(status.code(), Some(76), "{stderr}");
    assert!(stderr.contains("broke"), "{stderr}");
    let next = waiter.line();
    assert!(next.parse::<u64>().unwrap() > token.parse().unwrap());
    assert_eq!(shown(leader.command("status"))["predecessor"], "broken");

    // The one who came after it is left alone, however often.
    fails(&break_it(&leader, &token), 77, &[&token, &next, "second"]);
    assert!(runs(waiter.pid()));
}

#[test]
fn a_lock_that_nobody_holds_cannot_be_taken_away() {
    let place = Place::new();
    let leader = place.leader();
    fails(&break_it(&leader, "7"), 77, &["\"job\"", "nobody holds it"]);
}

fn break_here(place: &Place, token: &str, more: &[&str]) -> Output {
    let mut command = tierlock(&["break", "job", "--token", token, "--dir"]);
    command.arg(place.dir()).args(more).output().unwrap()
}

#[test]
fn a_lock_of_a_directory_is_taken_away_from_exactly_the_holder_of_a_token() {
    let place = Place::new();
    let mut holder = Running::script(&mut place.run(), &["--label", "first"], "job", HOLD);
    let token = holder.line();
    let mut waiter = Running::script(&mut place.run(), &["--label", "second"], "job", HOLD);
    let wrong = (token.parse::<u64>().unwrap() + 1).to_string();
    let refused = break_here(&place, &wrong, &[]);
    fails(&refused, 77, &["\"job\"", &token, &wrong, "first", "nothing was broken"]);
    assert!(runs(holder.pid()));

    assert_eq!(succeeds(&break_here(&place, &token, &[])), "");
    let (status, stderr) = holder.end();
    assert_eq!(status.code(), Some(76), "{stderr}");
    assert!(stderr.contains("broke"), "{stderr}");
    let next = waiter.line();
    assert!(next.parse::<u64>().unwrap() > token.parse().unwrap());
    assert_eq!(shown(place.status())["predecessor"], "broken");

    // Also where there is a leader, which knows nothing of it.
    let leader = place.leader();
    let with_leader =
        ["--leader", &leader.address, "--secret-file", leader.secret.to_str().unwrap()];
    fails(&break_here(&place, &token, &with_leader), 77, &[&token, &next, "second"]);
    assert!(runs(waiter.pid()));
    assert_eq!(succeeds(&break_here(&place, &next, &with_leader)), "");
    assert_eq!(waiter.end().0.code(), Some(76));
    fails(&break_here(&place, &next, &[]), 77, &["\"job\"", "nobody holds it"]);
}

/// Somebody has mistyped it, perhaps.
#[test]
fn a_directory_that_holds_no_locks_is_left_as_it_is() {
    let place = Place::new();
    let leader = place.leader();
    let with_leader =
        ["--leader", &leader.address, "--secret-file", leader.secret.to_str().unwrap()];
    for more in [&[][..], &with_leader] {
        fails(&break_here(&place, "7", more), 78, &["locks", "does not exist"]);
        assert!(!place.dir().exists(), "it was made");
    }
    std::fs::create_dir(place.dir()).unwrap();
    fails(
        &break_here(&place, "7", &[]),
        78,
        &["locks", "nobody has used it", "nothing was broken"],
    );
    fails(&break_here(&place, "7", &with_leader), 77, &["\"job\"", "nobody holds it"]);
    assert_eq!(std::fs::read_dir(place.dir()).unwrap().count(), 0, "something was made in it");
}

#[test]
fn a_lock_that_is_a_file_ends_with_its_process_and_the_line_says_which() {
    let place = Place::new();
    let builder = tierlock::LockManager::builder().directory(place.dir());
    drop(builder.engine(tierlock::Engine::FileLock).open().unwrap());
    let mut holder = Running::script(&mut place.run(), &["--label", "export"], "job", HOLD);
    let token = holder.line();
    let kill = format!("kill {}", holder.pid().as_raw_nonzero());
    fails(&break_here(&place, &token, &[]), 78, &["\"job\"", "export", &kill]);
    assert!(runs(holder.pid()));
}

#[test]
fn without_a_leader_to_ask_it_is_69() {
    let place = Place::new();
    let mut leader = place.leader();
    leader.process.signal(Signal::TERM);
    leader.process.end();
    let mut command = leader.command("break");
    let output = command.args(["job", "--token", "7"]).output().unwrap();
    fails(&output, 69, &[&leader.address, "tierlock serve"]);
}

#[test]
fn a_break_without_a_token_or_with_none_is_64() {
    for args in [&["job"][..], &["job", "--token", "x"], &["job", "--token", "9223372036854775808"]]
    {
        let output = tierlock(&["break", "--dir", "/tmp"]).args(args).output().unwrap();
        fails(&output, 64, &["--token"]);
    }
}
