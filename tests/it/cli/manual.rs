//! Manual pages and completions, which are made from the program's own definitions.

use std::{fs, io::Write};

use super::*;

/// The commands that the program's help shows.
fn commands() -> Vec<String> {
    let names = below(&[]);
    assert!(names.len() > 8, "{names:?}");
    names
}

/// The commands that the help of this one shows.
fn below(command: &[&str]) -> Vec<String> {
    let help = succeeds(&tierlock(command).arg("-h").output().unwrap());
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| line.starts_with("  "));
    // What is behind a name may go on in the next line, further to the right.
    let listed = listed.filter(|line| !line.starts_with("   "));
    let names = listed.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn every_help_fits_80_columns_and_has_an_example() {
    let mut all: Vec<Vec<String>> = vec![Vec::new()];
    for command in commands() {
        let inner = below(&[&command]);
        all.push(vec![command.clone()]);
        all.extend(inner.into_iter().map(|inner| vec![command.clone(), inner]));
    }
    assert!(all.contains(&vec!["secret".to_owned(), "issue".to_owned()]), "{all:?}");
    for command in all {
        for (help, is_long) in [("-h", false), ("--help", true)] {
            let output = tierlock(&[]).args(&command).arg(help).output().unwrap();
            let text = succeeds(&output);
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{command:?} {help}: {line}");
            }
            let has_example = text.lines().any(|line| line.starts_with("Example"));
            assert!(has_example || !is_long, "{command:?} has no example:\n{text}");
        }
    }
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
