//! A command's terminal: tests/it/cli/terminal.py plays the user at a pseudo-terminal.

use super::*;

#[test]
fn job_control_at_process_scope() {
    let place = Place::new();
    plays(&place, &format!("run --dir {}", place.dir().display()), "process");
}

#[test]
fn job_control_at_host_scope() {
    let place = Place::new();
    let leader = place.leader();
    let run = format!("run --leader {} --secret-file {}", leader.address, leader.secret.display());
    plays(&place, &run, "host");
}

/// Python brings the pseudo-terminal; where it or an interactive bash is missing, this says so.
fn plays(place: &Place, run: &str, scope: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/cli/terminal.py");
    let mut python = program("python3");
    python.args([script, env!("CARGO_BIN_EXE_tierlock"), run, scope]);
    python.current_dir(place.root.path());
    for needed in ["python3", "bash"] {
        if Command::new(needed).args(["-c", ""]).output().is_err() {
            eprintln!("SKIPPED: no {needed} here, so no terminal was played");
            return;
        }
    }
    let output = python.output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
