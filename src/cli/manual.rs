//! `tierlock completions` and `tierlock man`: what shells and manual readers need, made from the
//! arguments' own definitions.

use std::{fs, io, path::Path};

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::{
    args::Cli,
    failure::{Failure, exit, print},
};

/// Prints the script with which a shell completes commands, options and their values.
pub(super) fn completions(shell: Shell) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown(), "tierlock", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(0)
}

/// Writes `tierlock.1`, and a page for each command, to a directory.
pub(super) fn manual(directory: &Path) -> Result<u8, Failure> {
    let written = fs::create_dir_all(directory).and_then(|()| write_pages(directory));
    written.map_err(|error| {
        let line = format_args!("cannot write the pages to {}: {error}", directory.display());
        Failure::new(exit::IO, line)
    })?;
    Ok(0)
}

fn write_pages(directory: &Path) -> io::Result<()> {
    clap_mangen::generate_to(shown().disable_help_subcommand(true), directory)
}

/// The program's arguments without the commands that are not for users.
fn shown() -> Command {
    let all = Cli::command();
    let commands: Vec<_> =
        all.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    let text = |text: Option<&clap::builder::StyledStr>| text.cloned().unwrap_or_default();
    Command::new("tierlock")
        .version(env!("CARGO_PKG_VERSION"))
        .about(text(all.get_about()))
        .after_long_help(text(all.get_after_long_help()))
        .subcommand_required(true)
        .subcommands(commands)
}
