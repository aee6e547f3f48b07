use clap::CommandFactory as _;

use super::*;

#[test]
fn definitions_are_sound() {
    Cli::command().debug_assert();
}

#[test]
fn durations() {
    let ms = Duration::from_millis;
    for (text, expected) in [
        ("300ms", ms(300)),
        ("30s", ms(30_000)),
        ("10m", ms(600_000)),
        ("2h", ms(7_200_000)),
        ("5", ms(5_000)),
        ("0", ms(0)),
        ("0.25", ms(250)),
        ("1.5s", ms(1_500)),
        (".5", ms(500)),
        ("0.5m", ms(30_000)),
        ("1d", ms(86_400_000)),
        ("1h30m", ms(5_400_000)),
        ("1d2h3m4s5ms", ms(93_784_005)),
        ("1.5h30s", ms(5_430_000)),
    ] {
        assert_eq!(duration(text), Ok(expected), "{text}");
    }
    for text in [
        "", "s", "-1", "+1", "1 s", "1S", "1w", "1e3", "inf", "NaN", ".", "1.2.3", "1m1h", "1h1h",
        "1h30", "h1", "1h m", "1h-1m",
    ] {
        assert!(duration(text).is_err(), "{text}");
    }
    assert!(duration(&"9".repeat(400)).is_err());
}

fn words(args: &[&str]) -> Vec<OsString> {
    args.iter().map(OsString::from).collect()
}

/// What is said to arguments that clap refuses, or that are refused after it.
fn complaint(args: &[&str]) -> String {
    let failure = match Cli::try_parse_from(args) {
        Ok(Cli { command: Command::Run(mut run) }) => {
            let checked = run.terms.check();
            checked.and_then(|()| run.names_and_command(&words(args)).map(drop)).unwrap_err()
        }
        Ok(cli) => panic!("{args:?} is accepted: {cli:?}"),
        Err(error) => usage_failure(&error, &words(args)),
    };
    match failure {
        Failure::Said { status: exit::USAGE, line } => line,
        other => panic!("{args:?}: {other:?}"),
    }
}

#[test]
fn a_missing_double_dash_is_guessed_at() {
    for (given, guess) in [
        ("run job true", "tierlock run job -- true"),
        ("run -n --dir /d job sh -c x", "tierlock run -n --dir /d job -- sh -c x"),
        (
            "run --timeout 3 -nE 5 job -v make -j",
            "tierlock run --timeout 3 -nE 5 job -v -- make -j",
        ),
        ("run --wait=3 job ls -l", "tierlock run --wait=3 job -- ls -l"),
        ("run job sh -c x", "tierlock run job -- sh -c x"),
    ] {
        let args: Vec<&str> = ["tierlock"].into_iter().chain(given.split(' ')).collect();
        let line = complaint(&args);
        assert!(line.ends_with(&format!("before the command: {guess}")), "{line}");
    }
    let line = complaint(&["tierlock", "run", "job", "echo", "it's a"]);
    assert!(line.ends_with(r"tierlock run job -- echo 'it'\''s a'"), "{line}");
}

#[test]
fn a_name_that_looks_like_an_option_stands_between_two_double_dashes() {
    let line = complaint(&["tierlock", "run", "-job", "--", "true"]);
    assert!(line.ends_with("tierlock run -- -job -- true"), "{line}");
    assert!(!line.contains("tip"), "{line}");
    let mut run = match Cli::try_parse_from("tierlock run -n -- -job -- ls -l".split(' ')) {
        Ok(Cli { command: Command::Run(run) }) => run,
        other => panic!("{other:?}"),
    };
    let (names, command) = run.names_and_command(&[]).unwrap();
    assert_eq!((names[0].as_str(), command), ("-job", words(&["ls", "-l"])));
}

#[test]
fn what_is_missing_or_too_much_is_said() {
    for (given, words) in [
        ("run", "NAME is missing"),
        ("run job", "the command is missing"),
        ("run job --", "the command is missing"),
        ("run -- true", "NAME is missing"),
        ("run -- a b -- c", "NAME is missing"),
        ("run job -c x -- y", "not both"),
        ("run -s --at-least 5m job -- true", "leave out --shared"),
        ("run --ttl 0 job -- true", "between 1s and 60s"),
        ("run --ttl 61 job -- true", "between 1s and 60s"),
    ] {
        let args: Vec<&str> = ["tierlock"].into_iter().chain(given.split(' ')).collect();
        let line = complaint(&args);
        assert!(line.contains(words), "{given}: {line}");
    }
}

/// util-linux 2.41's flock(1), where it means the same.
#[test]
fn spellings_of_flock_are_understood() {
    let run = |args: &str| match Cli::try_parse_from(args.split(' ')) {
        Ok(Cli { command: Command::Run(run) }) => run,
        other => panic!("{args}: {other:?}"),
    };
    for no_wait in ["-n", "--nb", "--nonblock", "--no-wait", "-xn", "-e -n", "--exclusive -n"] {
        assert!(run(&format!("tierlock run {no_wait} job -- true")).terms.no_wait, "{no_wait}");
    }
    for wait in ["-w 1.5", "-w1.5", "--wait 1.5", "--wait=1.5", "--timeout 1.5", "--timeout=1.5"] {
        let wait = run(&format!("tierlock run {wait} job -- true")).terms.wait;
        assert_eq!(wait, Some(Duration::from_millis(1_500)));
    }
    let rest = run("tierlock run -o -v -E 9 job -c true");
    assert!(rest.close && rest.terms.verbose && rest.terms.conflict_exit_code == 9);
    let rest = run("tierlock run --close --verbose --conflict-exit-code 9 job --command true");
    assert!(rest.close && rest.terms.verbose && rest.terms.conflict_exit_code == 9);
}

#[test]
fn usage_errors_are_one_line() {
    for args in [
        &["tierlock"][..],
        &["tierlock", "run", "--ttl", "soon", "x", "--", "true"],
        &["tierlock", "run", "-n", "-w", "1", "x", "--", "true"],
        &["tierlock", "run", "--scope", "thread", "x", "--", "true"],
        &["tierlock", "run", "", "--", "true"],
        &["tierlock", "walk"],
    ] {
        let error = Cli::try_parse_from(args).unwrap_err();
        let Failure::Said { status: exit::USAGE, line } = usage_failure(&error, &words(args))
        else {
            panic!("{args:?}")
        };
        assert!(!line.contains('\n') && !line.contains("Usage"), "{line}");
    }
}
