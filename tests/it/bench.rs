//! `tierlock bench`: its shape, never its figures.

use std::{
    collections::BTreeSet,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    children::{KilledOnDrop, children_of, interrupted_leaves_nothing, wait_for},
    surroundings::program,
};

fn bench(arguments: &[&str]) -> Command {
    let mut command = program(env!("CARGO_BIN_EXE_tierlock"));
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
        ("thread", "threads_200us"),
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
        ("host", "kept"),
        ("host", "remote_1pct"),
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
    let output = bench(&["--scope", "thread", "--seconds", "0.2"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let price = text.find("A quiet lock and unlock costs here").expect(&text);
    let advice = text.find("Take the narrowest scope").expect(&text);
    assert!(price < advice, "{text}");
}

#[test]
fn wrong_options_are_usage_errors_of_one_line() {
    for arguments in [
        ["--scope", "galaxy"].as_slice(),
        &["--case", "weather"],
        &["--seconds", "0"],
        &["--plot", "a.svg"],
        &["--peers"],
    ] {
        let output = bench(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {said}");
        assert!(said.starts_with("tierlock: "), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        if arguments == ["--peers"] {
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(said.contains("cargo run --release -p compare"), "{said}");
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
    wait_for("two child processes", || children_of(bench.id()).len() >= 2);
    interrupted_leaves_nothing(bench, scratch.path());
}
