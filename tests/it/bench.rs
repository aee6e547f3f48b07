//! `tierlock bench`: its shape, never its figures.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tierlock"));
    command.arg("bench").args(arguments);
    command
}

fn rows(json: &Value) -> &[Value] {
    json["rows"].as_array().unwrap()
}

#[test]
fn json_has_a_row_for_every_case_of_every_scope() {
    let output = bench(&["--seconds", "1", "--json"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["machine"]["cpus"].as_u64().unwrap() > 0);

    let measured: BTreeSet<(&str, &str)> = rows(&json)
        .iter()
        .filter(|row| row["subject"] == "tierlock")
        .map(|row| (row["scope"].as_str().unwrap(), row["case"].as_str().unwrap()))
        .collect();
    let expected = BTreeSet::from([
        ("thread", "quiet"),
        ("thread", "threads"),
        ("process", "quiet"),
        ("process", "processes_empty"),
        ("process", "processes_200us"),
        ("process", "handover"),
        ("process", "holder_killed"),
        ("process", "names"),
        ("host", "quiet"),
        ("host", "connections_32"),
        ("host", "tasks_256"),
        ("host", "one_name_8"),
    ]);
    assert_eq!(measured, expected);

    for row in rows(&json) {
        for field in ["clients", "processes", "threads"] {
            assert!(row[field].as_u64().unwrap() >= 1, "{field} in {row}");
        }
        for field in ["ops_per_s", "p50_ns", "p99_ns", "max_ns"] {
            assert!(row[field].as_f64().unwrap() > 0.0, "{field} in {row}");
        }
        let [p50, p99, max] =
            ["p50_ns", "p99_ns", "max_ns"].map(|field| row[field].as_f64().unwrap());
        assert!(p50 <= p99 && p99 <= max, "{row}");
        let share = row["share_min_max"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&share), "{row}");
    }
}

#[test]
fn table_ends_with_the_price_of_each_scope_and_which_to_take() {
    let picture = tempfile::tempdir().unwrap();
    let file = picture.path().join("bench.svg");
    let output =
        bench(&["--scope", "thread", "--seconds", "0.2", "--plot"]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let price = text.find("A quiet lock and unlock costs here").expect(&text);
    let advice = text.find("Take the narrowest scope").expect(&text);
    assert!(price < advice, "{text}");
    assert!(std::fs::read_to_string(file).unwrap().starts_with("<svg"));
}

#[test]
fn wrong_options_are_usage_errors_of_one_line() {
    for arguments in [
        ["--scope", "galaxy"].as_slice(),
        &["--seconds", "0"],
        &["--plot", "/"],
        #[cfg(not(feature = "peers"))]
        &["--peers"],
    ] {
        let output = bench(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {said}");
        assert!(said.starts_with("tierlock: "), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        if arguments == ["--peers"] {
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(said.contains("cargo install tierlock --features peers"), "{said}");
        }
    }
}

#[cfg(feature = "peers")]
#[test]
fn peers_join_in_with_budgets_beside_them() {
    let output = bench(&["--peers", "--seconds", "2", "--json"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let subjects: BTreeSet<&str> =
        rows(&json).iter().map(|row| row["subject"].as_str().unwrap()).collect();
    for subject in ["tierlock", "std", "parking_lot", "tokio", "flock", "quic-echo"] {
        assert!(subjects.contains(subject), "no {subject} among {subjects:?}");
    }
    let budgets = json["budgets"].as_array().unwrap();
    match json.get("missing") {
        None => {
            assert!(subjects.contains("redis") && subjects.contains("redis-sync"), "{subjects:?}");
            assert_eq!(budgets.len(), 3, "{budgets:?}");
        }
        Some(missing) => {
            assert_eq!(missing[0]["package"], "redis-server");
            assert_eq!(budgets.len(), 1, "{budgets:?}");
        }
    }
}

/// Ctrl-C: nothing that the bench started is left, nor its directory.
#[test]
fn interrupted_bench_leaves_nothing_behind() {
    let scratch = tempfile::tempdir().unwrap();
    let mut bench = KilledOnDrop(
        bench(&["--scope", "process", "--seconds", "30"])
            .env("TMPDIR", scratch.path())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap(),
    );
    let bench = &mut bench.0;
    let pid = rustix::process::Pid::from_child(bench);
    wait_for("two child processes", || children_of(bench.id()).len() >= 2);
    let children = children_of(bench.id());
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = bench.wait().unwrap();
    assert_eq!(status.signal(), Some(2), "{status}");
    for child in children {
        assert!(!std::path::Path::new(&format!("/proc/{child}")).exists(), "{child} lives");
    }
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
}

struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn children_of(pid: u32) -> Vec<u32> {
    // Every thread has children of its own.
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks
        .filter_map(|task| std::fs::File::open(task.ok()?.path().join("children")).ok())
        .flat_map(|file| BufReader::new(file).lines().map_while(Result::ok))
        .flat_map(|line| line.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(30);
    while !there() {
        assert!(Instant::now() < patience, "no {what} after 30 s");
        std::thread::sleep(Duration::from_millis(10));
    }
}
