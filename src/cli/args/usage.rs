//! The names and the command of `run` told apart, and usage errors with the line that was meant.

use std::ffi::{OsStr, OsString};

use clap::{CommandFactory, error::ErrorKind};

use super::{Cli, Run};
use crate::{
    cli::failure::{Failure, exit},
    name::Name,
};

impl Run {
    /// The locks' names and the command, however they were spelled.
    /// `arguments` are those of the whole command line.
    pub(in crate::cli) fn names_and_command(
        &mut self,
        arguments: &[OsString],
    ) -> Result<(Vec<Name>, Vec<OsString>), Failure> {
        let mut command = std::mem::take(&mut self.command);
        let mut names = std::mem::take(&mut self.names);
        // More than one name stands before `--` only: else a part of the command may be meant.
        if names.len() > 1
            && command.is_empty()
            && let Some(advice) = spelled_out(arguments.get(2..).unwrap_or_default())
        {
            return Err(usage(advice));
        }
        if names.is_empty() {
            if command.is_empty() {
                return Err(usage(format_args!("NAME is missing: {IN_FULL}")));
            }
            // A name that could be taken for an option.
            let name = command.remove(0);
            match command.first() {
                Some(dashes) if dashes == "--" => drop(command.remove(0)),
                _ if self.shell.is_some() && command.is_empty() => {}
                _ => return Err(usage(format_args!("NAME is missing: {IN_FULL}"))),
            }
            let name = name.to_str().ok_or_else(|| usage("a lock's name is UTF-8"))?;
            names.push(Name::new(name).map_err(usage)?);
        }
        match self.shell.take() {
            None if command.is_empty() => {
                Err(usage(format_args!("the command is missing: {IN_FULL}")))
            }
            None => Ok((names, command)),
            Some(_) if !command.is_empty() => {
                Err(usage("give the command either as -c STRING or after --, not both"))
            }
            Some(string) => {
                let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
                let shell = shell.unwrap_or_else(|| "/bin/sh".into());
                Ok((names, vec![shell, "-c".into(), string]))
            }
        }
    }
}

const IN_FULL: &str = "tierlock run [OPTIONS] NAME -- COMMAND [ARG ...]";

pub(super) fn usage(line: impl std::fmt::Display) -> Failure {
    Failure::new(exit::USAGE, line)
}

/// A usage error of clap's in one line, without its block of usage, and with the spelling that
/// works where one can be guessed.
pub(in crate::cli) fn usage_failure(error: &clap::Error, arguments: &[OsString]) -> Failure {
    let text = error.render().to_string();
    let runs = arguments.get(1).is_some_and(|argument| argument == "run");
    // The tip is to pass it after `--`, where it would be a name or a command.
    let misleads = |line: &&str| line.starts_with("tip: to pass '");
    let told = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty() && !misleads(line))
        .collect::<Vec<_>>()
        .join(" ");
    let told = told.strip_prefix("error: ").unwrap_or(&told);
    let advice = match error.kind() {
        ErrorKind::UnknownArgument if runs => spelled_out(&arguments[2..]),
        _ => None,
    };
    let advice = advice.unwrap_or_else(|| format!("`{} --help` tells more", meant(arguments)));
    usage(format_args!("{told}; {advice}"))
}

/// The subcommand that was meant, as far as it can be told.
fn meant(arguments: &[OsString]) -> String {
    let cli = Cli::command();
    let (mut command, mut path) = (&cli, cli.get_name().to_owned());
    for argument in arguments.iter().skip(1) {
        let Some(next) = argument.to_str().and_then(|word| command.find_subcommand(word)) else {
            break;
        };
        path = format!("{path} {}", next.get_name());
        command = next;
    }
    path
}

/// How a `run` is spelled in which `--` is missing, or the name begins with `-`.
fn spelled_out(arguments: &[OsString]) -> Option<String> {
    let dashes = arguments.iter().position(|argument| argument == "--");
    let mut places = positions_of_values(&arguments[..dashes.unwrap_or(arguments.len())]);
    let (name, command) = (places.next(), places.next());
    let line = |before: &[OsString], middle: &[&str], after: &[OsString]| {
        let before = before.iter().map(|argument| quoted(argument));
        let after = after.iter().map(|argument| quoted(argument));
        let middle = middle.iter().map(|&word| word.to_owned());
        before.chain(middle).chain(after).collect::<Vec<_>>().join(" ")
    };
    match (dashes, name, command) {
        (None, Some(_), Some(command)) => {
            let line = line(&arguments[..command], &["--"], &arguments[command..]);
            Some(format!("`--` is missing before the command: tierlock run {line}"))
        }
        (Some(dashes), None, _) if dashes > 0 => {
            let line = line(&arguments[..dashes - 1], &["--"], &arguments[dashes - 1..]);
            Some(format!("if it is the lock's name, put `--` before it, too: tierlock run {line}"))
        }
        _ => None,
    }
}

/// Where among the arguments of `run` those stand that are neither options nor their values.
fn positions_of_values(arguments: &[OsString]) -> impl Iterator<Item = usize> {
    let cli = Cli::command();
    let run = cli.find_subcommand("run").expect("it is defined").clone();
    let takes_value = move |argument: &str| {
        let is_meant = |option: &&clap::Arg| match argument.strip_prefix("--") {
            Some(long) => {
                option.get_long() == Some(long)
                    || option.get_all_aliases().is_some_and(|others| others.contains(&long))
            }
            None => option.get_short().is_some_and(|short| argument.ends_with(short)),
        };
        let option = run.get_arguments().find(is_meant);
        option.is_some_and(|option| option.get_action().takes_values())
    };
    let mut is_value = false;
    let found = arguments.iter().enumerate().filter_map(move |(at, argument)| {
        let argument = argument.to_string_lossy();
        let is_option = argument.len() > 1 && argument.starts_with('-');
        let belongs_to_one = std::mem::replace(&mut is_value, false);
        if !belongs_to_one && is_option {
            is_value = takes_value(&argument);
        }
        (!belongs_to_one && !is_option).then_some(at)
    });
    found.collect::<Vec<_>>().into_iter()
}

/// As a shell reads it.
fn quoted(argument: &OsStr) -> String {
    let text = argument.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.into_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}
