//! What `secret` is told.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use clap::{Args, Subcommand};
use time::{Date, OffsetDateTime, format_description, format_description::well_known::Rfc3339};

use super::time_to_live;
use crate::proto::rights::Role;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum SecretCommand {
    /// Write a new secret to FILE
    ///
    /// One line of text with 32 random bytes in hex, readable by its owner only. A file that exists
    /// is never overwritten. Give a copy to the leader and to every client; every process with it
    /// may take and break every lock. For clients that are to do less, see `tierlock secret issue`.
    #[command(after_long_help = NEW_EXAMPLES)]
    New {
        /// The file to make
        file: PathBuf,
    },
    /// Issue a credential from SECRET into FILE, for a client that is not to have the secret
    ///
    /// FILE is what that client names as its --secret-file. It proves a role, the names that it is
    /// for, and a label, to every leader with the secret; no leader serves with it. Prints what
    /// `tierlock secret show` prints of it.
    #[command(after_long_help = ISSUE_EXAMPLES, override_usage = ISSUE_USAGE)]
    Issue(Box<SecretIssue>),
    /// Show what the keys in FILE are for: serial, role, names, label and end of a credential
    #[command(after_long_help = SHOW_EXAMPLES)]
    Show {
        /// A credential, or a secret file
        file: PathBuf,
    },
}

const NEW_EXAMPLES: &str = "\
Example:
  tierlock secret new /etc/tierlock.key";

const SHOW_EXAMPLES: &str = "\
Example:
  tierlock secret show /etc/shop/checkout.key

Of a file with a secret it shows how many there are, and never the secret.";

/// What `secret issue` is told.
#[derive(Args, Debug)]
pub(in crate::cli) struct SecretIssue {
    /// What its holder may do: read sees locks and checks tokens, lock takes locks as well, admin
    /// breaks them as well, and for all names steps leaders down and replaces disks
    #[arg(long, value_name = "ROLE", value_parser = role)]
    pub(in crate::cli) role: Role,
    /// How its holder is shown to others; a session of one label belongs to no other
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) label: String,
    /// A name that it is for; one that ends in / stands for all that begin with it, another for itself
    /// alone. May be given several times [default: every name]
    #[arg(long, value_name = "PREFIX")]
    pub(in crate::cli) names: Vec<String>,
    /// When it ends, by the leaders' clocks: 2027-01-31 is 00:00 UTC of that day, 2027-01-31T12:00:00Z
    /// a time [default: never]
    #[arg(long, value_name = "DATE", value_parser = date)]
    pub(in crate::cli) until: Option<SystemTime>,
    /// The longest time to live that it may ask for (1s to 60s) [default: what the leader accepts]
    #[arg(long, value_name = "TIME", value_parser = time_to_live)]
    pub(in crate::cli) ttl_max: Option<Duration>,
    /// The secret file of the leaders
    pub(in crate::cli) secret: PathBuf,
    /// The file to make; one that exists is never overwritten
    pub(in crate::cli) file: PathBuf,
}

const ISSUE_USAGE: &str = "tierlock secret issue [OPTIONS] --role ROLE --label TEXT SECRET FILE";

const ISSUE_EXAMPLES: &str = "\
Of a file with several secrets the last one signs: the new one, until it is made
the first; from then on issue none before the old one is taken out. To take a
credential back, write its serial into the leaders' --revoked file.

Example:
  tierlock secret issue --role lock --label checkout --names orders/ \\
      --until 2027-01-31 /etc/tierlock.key checkout.key

Exit status: 78 when a name, the label or a time cannot be, or FILE exists; 74
when it cannot be written.";

fn role(text: &str) -> Result<Role, String> {
    text.parse().map_err(|_| "a role is read, lock or admin".to_owned())
}

/// A day of UTC, or a time with its offset.
fn date(text: &str) -> Result<SystemTime, String> {
    let day = format_description::parse_borrowed::<2>("[year]-[month]-[day]")
        .expect("it is a day's description");
    let day = Date::parse(text, &day).map(|day| day.midnight().assume_utc());
    let time = day.or_else(|_| OffsetDateTime::parse(text, &Rfc3339));
    time.map(SystemTime::from).map_err(|_| {
        format!("invalid date {text:?}: write it as 2027-01-31 or 2027-01-31T12:00:00Z")
    })
}

#[cfg(test)]
mod tests;
