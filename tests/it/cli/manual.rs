//! Manual pages and completions, which are made from the program's own definitions.

use std::{fs, io::Write};

use super::*;

/// The commands that the program's help shows.
fn commands() -> Vec<String> {
    let help = succeeds(&tierlock(&["-h"]).output().unwrap());
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| line.starts_with("  "));
    let names = listed.filter_map(|line| line.split_whitespace().next());
    let names: Vec<_> = names.filter(|name| *name != "help").map(str::to_owned).collect();
    assert!(names.len() > 8, "{help}");
    names
}

#[test]
fn each_command_has_a_manual_page_with_its_examples() {
    let place = Place::new();
    // Two levels that are not there.
    let pages = place.path("man/man1");
    succeeds(&tierlock(&["man"]).arg(&pages).output().unwrap());
    let page = |name: &str| fs::read_to_string(pages.join(name)).unwrap();
    for command in commands() {
        // As groff writes a hyphen.
        let named = format!("tierlock\\-{}(1)", command.replace('-', "\\-"));
        assert!(page("tierlock.1").contains(&named), "{command}");
        assert!(page(&format!("tierlock-{command}.1")).contains("SYNOPSIS"), "{command}");
    }
    let examples = page("tierlock-status.1");
    assert!(examples.contains("jq") && examples.contains("Examples:"), "{examples}");
    assert!(!pages.join("tierlock-bench-worker.1").exists());
    // Again: what is there is replaced.
    succeeds(&tierlock(&["man"]).arg(&pages).output().unwrap());
}

#[test]
fn pages_that_cannot_be_written_are_74() {
    let place = Place::new();
    let file = place.path("file");
    fs::write(&file, "precious").unwrap();
    fails(&tierlock(&["man"]).arg(&file).output().unwrap(), 74, &["file"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn a_shell_completes_commands_and_options() {
    let script = succeeds(&tierlock(&["completions", "bash"]).output().unwrap());
    assert!(!script.contains("bench-worker"));
    let mut bash = program("bash");
    bash.args(["--norc", "-s"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut bash = bash.spawn().unwrap();
    let asked = "
        completed() {
            COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMP_LINE=\"$*\"
            _tierlock tierlock \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"
            echo \"${COMPREPLY[@]}\"
        }
        completed tierlock ''
        completed tierlock run --no-
    ";
    let mut input = bash.stdin.take().unwrap();
    input.write_all(format!("{script}\n{asked}").as_bytes()).unwrap();
    drop(input);
    let text = succeeds(&bash.wait_with_output().unwrap());
    let mut lines = text.lines();
    let offered: Vec<_> = lines.next().unwrap().split(' ').collect();
    for command in commands() {
        assert!(offered.contains(&command.as_str()), "{command} is not in {offered:?}");
    }
    assert_eq!(lines.next(), Some("--no-wait"), "{text}");
    for shell in ["elvish", "fish", "powershell", "zsh"] {
        let script = succeeds(&tierlock(&["completions", shell]).output().unwrap());
        assert!(script.contains("no-wait"), "{shell}");
    }
    fails(&tierlock(&["completions", "nosh"]).output().unwrap(), 64, &["nosh", "zsh"]);
}
