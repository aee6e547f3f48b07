//! Programs that are measured beside this one: cargo builds them as this one was built.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::bench::failure::{BenchFailure, Result};

/// The program `tierlock`, as its users build it.
pub(crate) const TIERLOCK: [&str; 6] = ["-p", "tierlock", "--bin", "tierlock", "--features", "cli"];

/// The same with a client of each store that leaders can have their journal in.
pub(crate) const TIERLOCK_WITH_STORES: [&str; 6] =
    ["-p", "tierlock", "--bin", "tierlock", "--features", "cli,etcd,postgres"];

/// The directory that this program is in.
pub(crate) fn directory() -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(BenchFailure::io("cannot find this program"))?;
    Ok(own.parent().expect("a program is in a directory").to_owned())
}

/// Has cargo build these into the directory that this program is in.
pub(crate) fn build(built: &Path, arguments: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.arg("build").args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    if built.file_name().is_some_and(|name| name == "release") {
        command.arg("--release");
    }
    if let Some(target) = built.parent() {
        command.arg("--target-dir").arg(target);
    }
    let status = command.stdout(Stdio::null()).status();
    match status.map_err(BenchFailure::io("cannot start cargo, which builds what is measured"))? {
        status if status.success() => Ok(()),
        status => {
            let arguments = arguments.join(" ");
            Err(BenchFailure::other(format!("cargo build {arguments} failed: {status}")))
        }
    }
}
