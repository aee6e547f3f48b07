//! `compare`: its shape, never its figures.

#[path = "../../../tests/it/children.rs"]
mod children;

use std::{
    collections::BTreeSet,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use children::{KilledOnDrop, children_of, interrupted_leaves_nothing, wait_for};
use serde_json::Value;

fn compare(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_compare"));
    command.args(arguments);
    command
}

fn rows(json: &Value) -> &[Value] {
    json["rows"].as_array().unwrap()
}

fn json_of(mut bench: Command) -> Value {
    let output = bench.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn picture_and_page_show_what_was_measured() {
    let directory = tempfile::tempdir().unwrap();
    let (picture, page) = (directory.path().join("bench.svg"), directory.path().join("page.md"));
    std::fs::write(&page, "before\n<!-- figures -->\n<!-- /figures -->\nafter\n").unwrap();
    let mut command = compare(&["--scope", "thread", "--case", "quiet", "--seconds", "0.2"]);
    let output = command.arg("--plot").arg(&picture).arg("--page").arg(&page).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("parking_lot"));
    let picture = std::fs::read_to_string(picture).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("parking_lot"));
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.starts_with("before\n") && page.ends_with("after\n"), "{page}");
    assert!(page.contains("parking_lot") && page.contains("A quiet lock"), "{page}");
}

#[test]
fn wrong_options_measure_nothing() {
    let output = compare(&["--plot", "/"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    for arguments in [["--self-check", "--plot", "a.svg"].as_slice(), &["--scale=3"]] {
        let output = compare(arguments).output().unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    }
}

#[test]
fn self_check_shows_both_ways_of_measuring() {
    let output = compare(&["--self-check", "--scope", "thread", "--seconds", "0.2", "--json"]);
    let json = json_of(output);
    for line in json["self_check"].as_array().unwrap() {
        for field in ["bench_ns", "loop_ns", "ratio"] {
            assert!(line[field].as_f64().unwrap() > 0.0, "{line}");
        }
    }
}

/// At both scopes, with few names: what grows with names and sessions is all there.
#[test]
fn scale_says_what_names_and_sessions_cost() {
    let json = json_of(compare(&["--scale=200", "--json"]));
    assert!(json["left_out"].is_null(), "{}", json["left_out"]);
    let measured = measures(&json);
    for (what, sizes) in [
        ("disk_bytes_per_name", [200].as_slice()),
        ("host_grant", &[10, 200]),
        ("leader_bytes_with_held_locks", &[0, 200]),
        ("leader_bytes_per_held_lock", &[200]),
        ("leader_bytes_per_waiter", &[199]),
        ("leader_bytes_with_sessions", &[2, 4]),
        ("leader_bytes_without_sessions", &[0]),
        ("leader_bytes_per_session", &[4]),
        ("leader_cpu_idle_sessions", &[4]),
    ] {
        expect_measure(&measured, what, sizes);
    }
    for what in NAMES_IN_A_DIRECTORY {
        expect_measure(&measured, what, &[10, 200]);
    }
}

/// What is measured with ever more names in a directory.
const NAMES_IN_A_DIRECTORY: [&str; 6] = [
    "process_insertion",
    "process_grant_same_ten",
    "process_grant",
    "process_grant_fresh",
    "process_grant_fresh_p99",
    "process_first_lock",
];

fn measures(json: &Value) -> BTreeSet<(&str, u64)> {
    let measures = json["measures"].as_array().unwrap();
    let of = |measure: &Value| measure["value"].as_f64().unwrap();
    // Memory is counted in whole pages: with few names there may be nothing more.
    let times = measures.iter().filter(|measure| measure["unit"] == "ns");
    times.for_each(|measure| assert!(of(measure) > 0.0, "{measure}"));
    let measures = measures.iter();
    measures.map(|it| (it["what"].as_str().unwrap(), it["at"].as_u64().unwrap())).collect()
}

fn expect_measure(measured: &BTreeSet<(&str, u64)>, what: &str, sizes: &[u64]) {
    for &size in sizes {
        assert!(measured.contains(&(what, size)), "no {what} at {size} in {measured:?}");
    }
}

/// Whether a row is there for each subject that a case is about, and a budget for every promise.
#[test]
fn peers_join_in_with_budgets_beside_them() {
    // Holders of much memory take long to die, and longer to be filled.
    let json = json_of(compare(&["--seconds", "3", "--memory", "300", "--json"]));
    let measured: BTreeSet<(&str, &str, &str)> = rows(&json)
        .iter()
        .map(|row| ["scope", "case", "subject"].map(|field| row[field].as_str().unwrap()))
        .map(|[scope, case, subject]| (scope, case, subject))
        .collect();
    let missing: Vec<&str> = json["missing"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|missing| {
            assert!(missing["why"].is_null(), "{missing}");
            missing["program"].as_str().unwrap()
        })
        .collect();
    let expect = |scope, cases: &[&'static str], subjects: &[&'static str]| {
        for &case in cases {
            for &subject in subjects {
                let row = (scope, case, subject);
                assert!(measured.contains(&row), "no {row:?}; missing: {missing:?}");
            }
        }
    };
    expect("thread", &["quiet"], &["tierlock", "std", "parking_lot", "tokio"]);
    expect("thread", &["threads", "threads_200us"], &["tierlock", "std", "parking_lot"]);
    let between_processes = ["tierlock", "flock", "ofd", "robust-pthread", "named-lock", "fd-lock"];
    let all = ["quiet", "processes_empty", "processes_200us", "handover", "holder_killed"];
    expect("process", &all, &between_processes);
    expect("process", &all[..4], &["posix-semaphore"]);
    expect("process", &["names"], &["tierlock"]);
    // What they guarantee differs, and each row says so in a line of 80 columns with its number.
    for row in rows(&json).iter().filter(|row| row["scope"] != "host") {
        let note = row["note"].as_str().unwrap_or_else(|| panic!("no note in {row}"));
        assert!(note.chars().count() <= 77, "{note}");
    }
    let sizes = |case: &str, subject: &str, field: &str| -> Vec<u64> {
        let of_it = |row: &&Value| row["case"] == case && row["subject"] == subject;
        let rows = rows(&json).iter().filter(|row| row["scope"] == "process").filter(of_it);
        rows.map(|row| row[field].as_u64().expect(field)).collect()
    };
    let left_out: Vec<&str> =
        json["left_out"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for subject in between_processes {
        // Budgets are about the first of each.
        for case in ["processes_empty", "processes_200us"] {
            assert_eq!(sizes(case, subject, "processes"), [2, 4, 8], "{case}, {subject}");
        }
        let mut resident_mib = sizes("holder_killed", subject, "resident_mib");
        for (title, mib) in [("killed, 256 MiB", 256), ("killed, 1 GiB", 1_024)] {
            if left_out.iter().any(|left_out| left_out.starts_with(title)) {
                resident_mib.push(mib);
            }
        }
        assert_eq!(resident_mib, [64, 0, 256, 1_024], "{subject}; left out: {left_out:?}");
    }
    let measured_with = measures(&json);
    for what in NAMES_IN_A_DIRECTORY {
        expect_measure(&measured_with, what, &[10, 1_000]);
    }
    expect("host", &["quiet", "tasks_256"], &["tierlock", "quic-echo"]);
    let ours = ["one_name_64", "kept", "turns_2", "remote_1pct", "leader_killed"];
    expect("host", &ours, &["tierlock"]);
    let host = ["quiet", "connections_32", "one_name_8"];
    for (program, subjects) in [
        ("redis-server", ["redis", "redis-aof-always", "redlock-3"].as_slice()),
        ("etcd", &["etcd"]),
        ("zookeeper", &["zookeeper"]),
        ("postgres", &["postgres"]),
        ("mariadbd", &["mariadb"]),
    ] {
        if !missing.contains(&program) {
            expect("host", &host, subjects);
        }
    }
    if !missing.contains(&"redis-server") {
        expect("host", &["quiet", "one_name_64", "remote_1pct"], &["redis-sync"]);
        expect("host", &["tasks_256"], &["redis"]);
    }

    let keeping_off = rows(&json).iter().any(|row| {
        row["case"] == "turns_2" && row["subject"] == "tierlock" && row["variant"] == "keeping off"
    });
    assert!(keeping_off, "two in turns are compared with keeping off");

    let budgets = json["budgets"].as_array().unwrap();
    assert!(budgets.len() >= 20, "{budgets:?}");
    for budget in budgets {
        assert!(budget["what"].is_string() && budget["unit"].is_string(), "{budget}");
        assert!(budget["at_most"].is_number() != budget["at_least"].is_number(), "{budget}");
        assert_eq!(budget["measured"].is_number(), budget["met"].is_boolean(), "{budget}");
    }
}

#[test]
fn modes_are_measured_at_every_scope() {
    let json = json_of(compare(&["--modes", "--seconds", "2", "--json"]));
    let measured = measures(&json);
    for what in ["quiet_thread_read", "quiet_process_read", "quiet_process_permit"] {
        expect_measure(&measured, what, &[1]);
    }
    expect_measure(&measured, "quiet_host_read_kept_while_all_machines_read", &[1]);
    expect_measure(&measured, "readers_in_processes", &[2, 4, 8]);
    expect_measure(&measured, "writers_worst_wait_under_a_storm_of_readers", &[3]);
    expect_measure(&measured, "remote_95_percent_readers", &[8]);
}

/// Each of them killed once, and handing over once. What takes a machine for itself is not judged here.
#[test]
fn leaders_that_follow_each_other_are_ended_and_compared() {
    let mut command = compare(&["--leaders", "--kills", "1", "--seconds", "2", "--json"]);
    // Built with all features, so that it is not replaced by one with fewer; without them cargo builds it now.
    let program = Path::new(env!("CARGO_BIN_EXE_compare")).with_file_name("tierlock");
    if cfg!(feature = "engines") && program.exists() {
        command.arg("--program").arg(program);
    }
    let json = json_of(command);
    let subjects: Vec<_> = rows(&json).iter().map(|row| row["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects, ["single", "group", "over_etcd", "over_postgres", "etcd"]);
    for row in rows(&json) {
        if row["missing"].is_object() {
            assert!(row["missing"]["why"].is_null() && row["killed"].is_null(), "{row}");
            continue;
        }
        assert!(row["quiet_p50_ns"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["held_locks_lost"].is_u64(), "{row}");
        for ended in ["killed", "handed_over"] {
            assert_eq!(row[ended]["times"], 1, "{row}");
            assert!(row[ended]["worst_ns"].as_f64().unwrap() > 0.0, "{row}");
        }
        for idle in ["idle_percent", "idle_with_holders_percent"] {
            assert!(row[idle]["reigning"].is_number(), "{row}");
            assert_eq!(row[idle]["standby"].is_number(), row["subject"] != "single", "{row}");
        }
        let proves = row["subject"] != "single" && row["subject"] != "etcd";
        assert_eq!(row["journal"].is_object(), proves, "{row}");
    }
    assert_eq!(json["budgets"].as_array().unwrap().len(), 18);
}

/// Ctrl-C in the middle of servers of others: they are gone too, with their directories.
#[test]
fn interrupted_comparison_leaves_no_server_behind() {
    let scratch = tempfile::tempdir().unwrap();
    // PostgreSQL runs as a user of its own, which must get there.
    let for_all_users = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(scratch.path(), for_all_users).unwrap();
    let mut bench = KilledOnDrop(
        compare(&["--scope", "host", "--seconds", "600"])
            .env("TMPDIR", scratch.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap(),
    );
    let bench = &mut bench.0;
    // PostgreSQL's directory comes second, and is filled once it has been made ready.
    let postgres_runs = || {
        let directories = std::fs::read_dir(scratch.path()).unwrap();
        directories.flatten().any(|directory| directory.path().join("postmaster.pid").exists())
    };
    if ["/usr/bin/postgres", "/usr/local/bin/postgres"].iter().any(|it| Path::new(it).exists()) {
        wait_for("PostgreSQL", postgres_runs);
    } else {
        wait_for("a server", || !children_of(bench.id()).is_empty());
    }
    interrupted_leaves_nothing(bench, scratch.path());
}
