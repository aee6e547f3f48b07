//! `tierlock status`.

use serde_json::{Value, json};
use tierlock::{Keep, LockManager, Scope};

use super::*;

fn status(place: &Place, args: &[&str]) -> Value {
    let output = tierlock(&["status", "--json", "--dir"]).arg(place.dir()).args(args).output();
    serde_json::from_str(&succeeds(&output.unwrap())).unwrap()
}

/// What `--json` shows, with what differs from run to run made plain.
fn shape(mut status: Value) -> Value {
    blank_numbers(&mut status);
    status
}

/// Replaces every number and every machine's name by what kind of thing it is.
fn blank_numbers(value: &mut Value) {
    match value {
        Value::Number(_) => *value = json!("number"),
        Value::Array(items) => items.iter_mut().for_each(blank_numbers),
        Value::Object(fields) => {
            for (name, field) in fields {
                match name.as_str() {
                    "host" | "command" | "cluster" | "reign" if field.is_string() => {
                        *field = json!("text")
                    }
                    _ => blank_numbers(field),
                }
            }
        }
        _ => {}
    }
}

#[test]
fn an_unknown_name_is_free() {
    let place = Place::new();
    std::fs::create_dir(place.dir()).unwrap();
    let is_free = || {
        let lock = &status(&place, &["job"])["locks"][0];
        assert_eq!(lock["name"], "job");
        assert_eq!(lock["state"], "free");
        assert_eq!(lock["scope"], "process");
        assert_eq!(lock["holder"], Value::Null);
        assert_eq!(lock["predecessor"], "clean");
        assert_eq!(lock["waiters"], json!([]));
    };
    is_free();
    assert_eq!(status(&place, &[]), json!({"locks": []}));
    assert_eq!(std::fs::read_dir(place.dir()).unwrap().count(), 0, "looking made something");
    succeeds(&place.ran(&["other", "--", "true"]));
    is_free();
}

/// It was mistyped, perhaps.
#[test]
fn a_directory_that_is_not_there_is_not_made_by_looking() {
    let place = Place::new();
    let leader = place.leader();
    let words = ["does not exist", "first process that opens it makes it"];
    fails(&place.status().output().unwrap(), 78, &words);
    fails(&place.status().arg("job").output().unwrap(), 78, &words);
    let mut with_leader = leader.command("status");
    fails(&with_leader.arg("--dir").arg(place.dir()).output().unwrap(), 78, &words);
    assert!(!place.dir().exists());
}

#[test]
fn a_process_scope_lock_shows_its_holder() {
    let place = Place::new();
    let mut holder = Running::script(
        &mut place.run(),
        &["--label", "export"],
        "reports/daily",
        "echo holding; exec sleep 1000",
    );
    assert_eq!(holder.line(), "holding");
    let shown = status(&place, &["reports/daily"]);
    let lock = &shown["locks"][0];
    assert_eq!(lock["holder"]["pid"], holder.pid().as_raw_nonzero().get());
    assert_eq!(lock["holder"]["label"], "export");
    assert!(lock["token"].as_u64().unwrap() > 0);
    assert_eq!(
        shape(shown),
        json!({"locks": [{
            "name": "reports/daily",
            "scope": "process",
            "mode": "exclusive",
            "limit": null,
            "state": "held",
            "token": "number",
            "holder": {
                "label": "export",
                "host": "text",
                "pid": "number",
                "command": "text",
                "held_ms": "number",
            },
            "holders": [{
                "label": "export",
                "host": "text",
                "pid": "number",
                "command": "text",
                "held_ms": "number",
                "token": "number",
                "count": "number",
            }],
            "remaining_ms": null,
            "predecessor": "clean",
            "waiters": [],
        }]})
    );
}

#[test]
fn a_host_scope_lock_shows_its_holder_its_deadline_and_its_waiters() {
    let place = Place::new();
    let leader = place.leader();
    let script = "echo holding; exec sleep 1000";
    let mut holder = Running::script(&mut leader.run(), &["--label", "first"], "job", script);
    assert_eq!(holder.line(), "holding");
    let waiter = Running::script(&mut leader.run(), &["--label", "second"], "job", script);
    let look = || -> Value {
        let output = leader.command("status").args(["--json", "job"]).output().unwrap();
        serde_json::from_str(&succeeds(&output)).unwrap()
    };
    let shown = eventually("the waiter is seen", || {
        Some(look()).filter(|shown| shown["locks"][0]["waiters"] != json!([]))
    });
    let lock = &shown["locks"][0];
    assert_eq!(lock["holder"]["pid"], holder.pid().as_raw_nonzero().get());
    assert_eq!(lock["waiters"][0]["pid"], waiter.pid().as_raw_nonzero().get());
    assert!(lock["remaining_ms"].as_u64().unwrap() <= 5_100);
    assert_eq!(
        shape(shown),
        json!({"locks": [{
            "name": "job",
            "scope": "host",
            "mode": "exclusive",
            "limit": null,
            "state": "held",
            "token": "number",
            "holder": {
                "label": "first",
                "host": "text",
                "pid": "number",
                "command": "text",
                "held_ms": "number",
            },
            "holders": [{
                "label": "first",
                "host": "text",
                "pid": "number",
                "command": "text",
                "held_ms": "number",
                "token": "number",
                "count": "number",
            }],
            "remaining_ms": "number",
            "predecessor": "clean",
            "waiters": [
                {
                    "label": "second",
                    "host": "text",
                    "pid": "number",
                    "waiting_ms": "number",
                    "mode": "exclusive",
                },
            ],
        }],
        "leaders": [{
            "address": leader.address,
            "rank": "reigns",
            "cluster": "text",
            "reign": "text",
            "epoch": "number",
            "reign_lasts_ms": null,
            "reigning_at": leader.address,
            "proven_ms": null,
            "journal_us": "number",
            "lag_ms": null,
            "member": null,
            "group": null,
            "trouble": null,
        }]})
    );
}

/// Each waiter of a pile-up, in the order in which they came.
#[test]
fn a_pile_up_is_shown_with_every_waiter_in_its_order_at_both_scopes() {
    let place = Place::new();
    let leader = place.leader();
    let at_the_directory = |subcommand: &str| {
        let mut command = tierlock(&[subcommand, "--dir"]);
        command.arg(place.dir());
        command
    };
    let at_the_leader = |subcommand: &str| leader.command(subcommand);
    type Program<'a> = &'a dyn Fn(&str) -> Command;
    let scopes: [(Program<'_>, &str); 2] =
        [(&at_the_directory, "process"), (&at_the_leader, "host")];
    for (at, scope) in scopes {
        let script = "echo holding; exec sleep 1000";
        let mut holder = Running::script(&mut at("run"), &["--label", "holder"], "job", script);
        assert_eq!(holder.line(), "holding");
        let (mut waiters, mut labels) = (Vec::new(), Vec::new());
        for number in 0..12 {
            labels.push(format!("waiter {number}"));
            let label = ["--label", &labels[number]];
            waiters.push(Running::script(&mut at("run"), &label, "job", script));
            let lock = eventually("the next one is seen", || {
                let lock = shown(at("status"));
                (lock["waiters"].as_array().unwrap().len() > number).then_some(lock)
            });
            let seen: Vec<_> = lock["waiters"].as_array().unwrap().iter().collect();
            let seen: Vec<_> =
                seen.iter().map(|waiter| waiter["label"].as_str().unwrap()).collect();
            assert_eq!(
                (seen, lock["scope"].as_str()),
                (labels.iter().map(String::as_str).collect(), Some(scope))
            );
        }
        let lock = shown(at("status"));
        for (waits, process) in lock["waiters"].as_array().unwrap().iter().zip(&waiters) {
            assert_eq!(waits["pid"], process.pid().as_raw_nonzero().get(), "{lock}");
        }
        let table = succeeds(&at("status").output().unwrap());
        assert_eq!(table.matches("waits").count(), labels.len(), "{table}");
    }
}

/// Of the processes of one directory one waits at the leader, at most; the others wait for it.
#[test]
fn a_waiter_behind_a_sibling_for_a_host_scope_lock_is_shown_beside_the_leaders_waiters() {
    let place = Place::new();
    let leader = place.leader();
    let script = "echo holding; exec sleep 1000";
    let local = |subcommand| {
        let mut command = leader.command(subcommand);
        command.arg("--dir").arg(place.dir());
        command
    };
    let mut holder = Running::script(&mut local("run"), &["--label", "holder"], "job", script);
    assert_eq!(holder.line(), "holding");
    let sibling = Running::script(&mut local("run"), &["--label", "sibling"], "job", script);
    let other = Running::script(&mut leader.run(), &["--label", "other"], "job", script);
    let look = || shown(local("status"));
    let lock = eventually("both waiters are seen", || {
        Some(look()).filter(|lock| lock["waiters"].as_array().unwrap().len() > 1)
    });
    assert_eq!(lock["scope"], "host");
    assert_eq!(lock["holder"]["label"], "holder");
    let waiters: Vec<_> = lock["waiters"].as_array().unwrap().iter().collect();
    let pid = |waits: &Running| waits.pid().as_raw_nonzero().get();
    assert_eq!(waiters.len(), 2, "{lock}");
    for (label, pid) in [("other", pid(&other)), ("sibling", pid(&sibling))] {
        let is_shown = |waiter: &&Value| waiter["label"] == label && waiter["pid"] == pid;
        assert!(waiters.iter().any(is_shown), "{label}: {lock}");
    }
    // The directory's waiter may have waited longer than the leader's, or not: one order for both.
    let waiting = |waiter: &&Value| std::cmp::Reverse(waiter["waiting_ms"].as_u64().unwrap());
    assert!(waiters.is_sorted_by_key(waiting), "{lock}");
}

#[test]
fn a_waiter_is_shown_with_what_it_waits_for() {
    let place = Place::new();
    let locks = LockManager::builder().directory(place.dir()).label("holder").open().unwrap();
    let seats = &locks.semaphore("seats", 3).build().unwrap();
    let taken = seats.acquire_many(3).unwrap();
    // Not by this process, beneath which the reader runs.
    let mut writer =
        Running::script(&mut place.run(), &[], "prices", "echo holding; exec sleep 1000");
    assert_eq!(writer.line(), "holding");
    let waiters = |name: &str, count| {
        eventually("the waiters are seen", || {
            let output = place.status().args(["--json", name]).output().unwrap();
            let shown: Value = serde_json::from_str(&succeeds(&output)).unwrap();
            let waiters = shown["locks"][0]["waiters"].as_array().unwrap().clone();
            (waiters.len() == count).then_some(waiters)
        })
    };
    let reads = ["--shared", "--label", "reader"];
    let reader = Running::script(&mut place.run(), &reads, "prices", "exec sleep 1000");
    let shown = waiters("prices", 1);
    assert_eq!((&shown[0]["label"], &shown[0]["mode"]), (&json!("reader"), &json!("shared")));
    assert!(shown[0].get("permits").is_none(), "{shown:?}");
    std::thread::scope(|scope| {
        let one = scope.spawn(|| seats.acquire().map(drop));
        // It has the gate, and waits for room: what it wants it has said to no other.
        assert_eq!(waiters("seats", 1)[0]["mode"], Value::Null);
        let two = scope.spawn(|| seats.acquire_many(2).map(drop));
        let shown = waiters("seats", 2);
        let behind = (&shown[1]["mode"], &shown[1]["permits"]);
        assert_eq!(behind, (&json!("permits"), &json!(2)), "{shown:?}");
        eventually("the table says what each waits for", || {
            let table = succeeds(&place.status().output().unwrap());
            let tells = |words| table.contains(words);
            ["waits to read", "waits for 2 permits"].into_iter().all(tells).then_some(())
        });
        drop(taken);
        [one, two].into_iter().for_each(|waits| waits.join().unwrap().unwrap());
    });
    drop((writer, reader));
}

#[test]
fn every_process_that_reads_is_shown_with_how_many_of_it_are_inside() {
    let place = Place::new();
    let locks = LockManager::builder().directory(place.dir()).label("reader").open().unwrap();
    let prices = locks.rw_lock("job", ()).build().unwrap();
    drop(prices.write().unwrap());
    let guards = [prices.read().unwrap(), prices.read().unwrap()];
    let lock = shown(place.status());
    assert_eq!((&lock["mode"], &lock["state"]), (&json!("shared"), &json!("held")), "{lock}");
    assert_eq!(lock["holder"], Value::Null);
    assert_eq!(lock["holders"].as_array().unwrap().len(), 1, "{lock}");
    let reader = &lock["holders"][0];
    assert_eq!((&reader["label"], &reader["count"]), (&json!("reader"), &json!(2)));
    assert_eq!((&reader["pid"], &reader["token"]), (&json!(std::process::id()), &lock["token"]));
    let table = succeeds(&place.status().output().unwrap());
    assert!(table.contains("reads") && table.contains("2 times"), "{table}");
    drop(guards);
    let lock = shown(place.status());
    assert_eq!((&lock["state"], &lock["holders"]), (&json!("free"), &json!([])), "{lock}");
}

#[test]
fn how_the_last_holder_left_is_shown() {
    let place = Place::new();
    let mut holder = Running::script(&mut place.run(), &[], "job", "echo holding; exec sleep 1000");
    assert_eq!(holder.line(), "holding");
    holder.child.kill().unwrap();
    holder.child.wait().unwrap();
    // The next taker is the one that finds out, and is shown as having been told.
    let me = env!("CARGO_BIN_EXE_tierlock");
    let script = format!("{me} status --json --dir {} job", place.dir().display());
    let output = place.ran(&["-w", "30", "job", "--", "sh", "-c", &script]);
    let shown: Value = serde_json::from_str(&succeeds(&output)).unwrap();
    assert_eq!(shown["locks"][0]["predecessor"], "died", "{shown}");
}

/// A waiter in a directory says so once it is next in line.
#[test]
fn a_process_scope_waiter_is_shown_with_how_long_it_waits() {
    let place = Place::new();
    let script = "echo holding; exec sleep 1000";
    let mut holder = Running::script(&mut place.run(), &["--label", "first"], "job", script);
    assert_eq!(holder.line(), "holding");
    let waiter = Running::script(&mut place.run(), &["--label", "second"], "job", script);
    let lock = eventually("the waiter is seen", || {
        Some(shown(place.status())).filter(|lock| lock["waiters"] != json!([]))
    });
    assert_eq!(lock["holder"]["label"], "first");
    assert_eq!(lock["waiters"][0]["pid"], waiter.pid().as_raw_nonzero().get());
    assert_eq!(lock["waiters"][0]["label"], "second");
    let waiting = |lock: &Value| lock["waiters"][0]["waiting_ms"].as_u64().unwrap();
    eventually("its wait grows", || {
        (waiting(&shown(place.status())) > waiting(&lock)).then_some(())
    });
    // Since it was seen, it is known to be held.
    let held = |lock: &Value| lock["holder"]["held_ms"].as_u64().unwrap();
    eventually("its time grows", || (held(&shown(place.status())) > held(&lock)).then_some(()));
    let table = succeeds(&place.status().output().unwrap());
    assert!(table.contains("≥") && table.contains("waits"), "{table}");
}

/// The table says it to a looker, not only to the next taker of the lock.
#[test]
fn how_a_killed_holder_left_is_shown_before_the_lock_is_taken() {
    let place = Place::new();
    let mut holder = Running::script(&mut place.run(), &[], "job", "echo holding; exec sleep 1000");
    assert_eq!(holder.line(), "holding");
    holder.child.kill().unwrap();
    holder.child.wait().unwrap();
    let lock = eventually("its command is gone too", || {
        Some(shown(place.status())).filter(|lock| lock["state"] == "free")
    });
    assert_eq!((&lock["holder"], &lock["predecessor"]), (&Value::Null, &json!("died")));
    let again = shown(place.status());
    assert_eq!(again["predecessor"], "died", "looking changes nothing");
    assert_eq!(again["token"], lock["token"]);
}

/// A lease that stays with its session between two locks has no holder: it is shown as kept, and
/// as held again when it is locked.
#[test]
fn a_kept_lease_is_shown_apart_from_a_held_one() {
    let place = Place::new();
    let leader = place.leader();
    let locks = LockManager::builder()
        .leaders([&leader.address])
        .secret_file(&leader.secret)
        .label("keeper")
        .open()
        .unwrap();
    let mutex = locks.mutex("job", ()).scope(Scope::Host).keep(Keep::Always).build().unwrap();
    let state = || shown(leader.command("status"))["state"].take();
    let becomes = |wanted: &str| {
        eventually(wanted, || (state() == wanted).then_some(()));
    };

    let guard = mutex.lock().unwrap();
    assert_eq!(state(), "held");
    drop(guard);
    becomes("kept");
    let lock = shown(leader.command("status"));
    assert_eq!(
        lock["holder"]["label"], "keeper",
        "the session that would have to give it back: {lock}"
    );
    assert_eq!(lock["waiters"], json!([]));
    let table = succeeds(&leader.command("status").output().unwrap());
    assert!(table.contains("kept, host"), "{table}");

    let guard = mutex.lock().unwrap();
    becomes("held");
    drop(guard);
    becomes("kept");
    drop((mutex, locks));
    becomes("free");
}

/// Prints how long that takes; it asserts no time. See CONTRIBUTING.md.
#[test]
#[ignore = "it measures, on a machine that does nothing else"]
fn twenty_thousand_held_locks_are_shown() {
    const LOCKS: usize = 20_000;
    const ROUNDS: usize = 9;
    let place = Place::new();
    let leader = place.leader();
    let in_the_directory = |subcommand: &str| {
        let mut command = tierlock(&[subcommand, "--dir"]);
        command.arg(place.dir());
        command
    };
    for (place, at) in [
        ("a directory", &in_the_directory as &dyn Fn(&str) -> Command),
        ("a leader", &|subcommand| leader.command(subcommand)),
    ] {
        let names = (0..LOCKS).map(|number| format!("orders/{number}"));
        let mut hold = Running::start(at("hold").args(names).stdin(Stdio::piped()));
        (0..LOCKS).for_each(|_| assert!(hold.line().starts_with("token ")));
        for options in [&[][..], &["--json"]] {
            let mut times: Vec<_> = (0..ROUNDS)
                .map(|_| {
                    let begin = Instant::now();
                    let shown = at("status").args(options).output().unwrap();
                    let took = begin.elapsed();
                    assert!(succeeds(&shown).matches("orders/").count() >= LOCKS);
                    took
                })
                .collect();
            times.sort();
            let (least, median, most) = (times[0], times[ROUNDS / 2], times[ROUNDS - 1]);
            let line = ["status"].iter().chain(options).copied().collect::<Vec<_>>().join(" ");
            println!("{LOCKS} locks of {place}: {line}: {median:.1?} ({least:.1?} to {most:.1?})");
        }
        drop(hold.stdin());
        assert!(hold.exit().success());
    }
}
