//! `tierlock secret`.

use std::{fmt::Write as _, path::Path, time::SystemTime};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    args::{SecretCommand, SecretIssue},
    failure::{Failure, print},
};
use crate::{
    host::{ClientKeys, Credential, Secret},
    printable::Printable,
};

pub(super) fn secret(command: SecretCommand) -> Result<u8, Failure> {
    match command {
        SecretCommand::New { file } => drop(Secret::create(file)?),
        SecretCommand::Issue(what) => print(&issue(*what)?)?,
        SecretCommand::Show { file } => print(&show(&file)?)?,
    }
    Ok(0)
}

/// What it has issued, and by which secret of several: while they are exchanged, the last may be the old
/// one, and the credential would end with that.
fn issue(what: SecretIssue) -> Result<String, Failure> {
    let SecretIssue { role, label, names, until, ttl_max, secret, file } = what;
    let secret = Secret::read(secret)?;
    let mut credential = secret.issue(role, label).names(names);
    if let Some(until) = until {
        credential = credential.until(until);
    }
    if let Some(limit) = ttl_max {
        credential = credential.time_to_live_max(limit);
    }
    let mut text = lines(&credential.write(file)?);
    let count = secret.count();
    if count > 1 {
        let _ = writeln!(text, "signed   by secret {count} of {count}, the last line");
    }
    Ok(text)
}

fn show(file: &Path) -> Result<String, Failure> {
    Ok(match ClientKeys::read(file)? {
        ClientKeys::Credential(credential) => lines(&credential),
        ClientKeys::Secret(secret) => {
            let count = match secret.count() {
                1 => "1".to_owned(),
                count => format!("{count}; the first is presented, all are accepted"),
            };
            format!(
                "secrets  {count}\nrole     admin: leaders serve with it, and credentials are issued from it\n"
            )
        }
    })
}

/// What a credential is for, a line for each thing that it says.
fn lines(credential: &Credential) -> String {
    let names: Vec<_> = credential.names().map(|name| Printable(name).to_string()).collect();
    let names = if names.is_empty() { "every name".to_owned() } else { names.join(" ") };
    let ends = credential.until().map_or("never".to_owned(), written);
    let mut text = format!(
        "serial   {}\nrole     {}\nnames    {names}\nlabel    {}\nends     {ends}\n",
        credential.serial(),
        credential.role(),
        Printable(credential.label()),
    );
    if let Some(limit) = credential.time_to_live_max() {
        let _ = writeln!(text, "ttl-max  {limit:?}");
    }
    text
}

fn written(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    time.format(&Rfc3339).unwrap_or_else(|_| time.to_string())
}
