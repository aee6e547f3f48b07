//! What others call themselves reaches people escaped and programs as it is; what a command was given
//! stays on its machine.

use super::*;

const LABEL: &str = "x\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}FAKE";
const SHOWN: &str = r"x\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}FAKE";
/// A name may have no control characters, and may have these.
const NAME: &str = "job\u{202e}\u{2066}";
const SHOWN_NAME: &str = r"job\u{202e}\u{2066}";

#[track_caller]
fn harmless(text: &[u8]) -> String {
    let text = std::str::from_utf8(text).unwrap();
    let is_harmful = |c: char| c != '\n' && c.is_control() || ['\u{202e}', '\u{2066}'].contains(&c);
    assert!(!text.contains(is_harmful), "{text:?}");
    text.to_owned()
}

/// A `run`, a `status` and the like for both engines and a leader.
fn everywhere(test: impl Fn(&dyn Fn(&str) -> Command)) {
    let [table, files] = Place::of_each_engine();
    for dir in [table.dir(), files.dir()] {
        test(&|subcommand| {
            let mut command = tierlock(&[subcommand, "--dir"]);
            command.arg(&dir);
            command
        });
    }
    let place = Place::new();
    let leader = place.leader();
    test(&|subcommand| leader.command(subcommand));
}

#[test]
fn a_label_cannot_write_to_a_terminal() {
    everywhere(|at| {
        let script = "echo $TIERLOCK_TOKEN; exec sleep 1000";
        let mut holder = Running::script(at("run").env("TIERLOCK_LABEL", LABEL), &[], NAME, script);
        let token = holder.line();
        let table = harmless(&at("status").output().unwrap().stdout);
        assert!(table.contains(SHOWN) && table.contains(SHOWN_NAME), "{table}");
        let taken = at("run").args(["-n", NAME, "--", "true"]).output().unwrap();
        assert!(harmless(&taken.stderr).contains(SHOWN), "{taken:?}");
        assert!(harmless(&taken.stderr).contains(SHOWN_NAME), "{taken:?}");
        let other = (token.parse::<u64>().unwrap() + 1).to_string();
        let unbroken = at("break").args([NAME, "--token", &other]).output().unwrap();
        assert!(harmless(&unbroken.stderr).contains(SHOWN), "{unbroken:?}");

        let mut waiter = Running::start(at("run").args(["-v", NAME, "--", "true"]));
        let line = waiter.error_line();
        harmless(line.as_bytes());
        assert!(line.contains("waiting for") && line.contains(SHOWN), "{line}");

        let output = at("status").args(["--json", NAME]).output().unwrap();
        let json: serde_json::Value = serde_json::from_str(&succeeds(&output)).unwrap();
        assert_eq!(json["locks"][0]["name"], NAME);
        assert_eq!(json["locks"][0]["holder"]["label"], LABEL);
    });
}

#[test]
fn a_label_with_several_lines_is_one() {
    everywhere(|at| {
        let script = "echo holding; exec sleep 1000";
        let mut run = at("run");
        let mut holder = Running::script(&mut run, &["--label", "one\nFAKE held"], "job", script);
        assert_eq!(holder.line(), "holding");
        let table = harmless(&at("status").output().unwrap().stdout);
        assert_eq!(table.lines().count(), 2, "{table}");
        assert_eq!(shown(at("status"))["holder"]["label"], "one\nFAKE held");
    });
}

#[test]
fn doctor_escapes_the_label_of_the_dead_and_the_names_of_files() {
    for place in Place::of_each_engine() {
        let script = "echo holding; exec sleep 1000";
        let mut holder = Running::script(&mut place.run(), &["--label", LABEL], NAME, script);
        assert_eq!(holder.line(), "holding");
        holder.signal(Signal::KILL);
        holder.exit();
        std::fs::write(place.dir().join("no\u{1b}[2Jtes"), "").unwrap();
        let doctor = || tierlock(&["doctor", "--dir"]).arg(place.dir()).output().unwrap();
        let text = eventually("the holder's end is seen", || {
            Some(harmless(&doctor().stdout)).filter(|text| text.contains("died"))
        });
        assert!(text.contains(SHOWN_NAME) && text.contains(r"no\u{1b}[2Jtes"), "{text}");
    }
}

/// `mysql -pSECRET`, for one.
#[test]
fn the_arguments_of_a_command_are_nobodys_business_unless_they_are_shown() {
    everywhere(|at| {
        let script = "echo holding; exec sleep 1000";
        for (options, command) in [
            (&[][..], "sh".to_owned()),
            (&["--show-command"], format!("/bin/sh -c {script} hunter2")),
        ] {
            let mut run = at("run");
            run.args(options).args(["job", "--", "/bin/sh", "-c", script, "hunter2"]);
            let mut holder = Running::start(&mut run);
            assert_eq!(holder.line(), "holding");
            let output = at("status").args(["--json", "job"]).output().unwrap();
            let json: serde_json::Value = serde_json::from_str(&succeeds(&output)).unwrap();
            assert_eq!(json["locks"][0]["holder"]["command"], command);
            assert_eq!(json["locks"][0]["holder"]["label"], "sh");
            assert_eq!(succeeds(&output).contains("hunter2"), !options.is_empty());
            holder.signal(Signal::TERM);
            holder.exit();
        }
    });
}

/// Nor does a directory keep them in its files.
#[test]
fn nothing_in_a_directory_tells_a_commands_arguments() {
    fn files(directory: &Path, found: &mut Vec<u8>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => files(&path, found),
                false => found.extend(std::fs::read(path).unwrap()),
            }
        }
    }
    for place in Place::of_each_engine() {
        let script = "echo holding; exec sleep 1000";
        let mut run = place.run();
        run.args(["--label", "visible", "job", "--", "sh", "-c", script, "hunter2"]);
        let mut holder = Running::start(&mut run);
        assert_eq!(holder.line(), "holding");
        let mut found = Vec::new();
        files(&place.dir(), &mut found);
        let has = |text: &str| found.windows(text.len()).any(|bytes| bytes == text.as_bytes());
        assert!(has("visible") && !has("hunter2"));
    }
}
