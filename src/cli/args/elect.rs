//! What `elect` is told.

use std::{ffi::OsString, time::Duration};

use clap::Args;

use super::{Failure, HOLDING, Name, Terms, duration, usage};
use crate::elected::VALUE_BYTES_MAX;

/// What `elect` is told.
#[derive(Args, Debug)]
#[command(after_long_help = ELECT_EXAMPLES, override_usage = ELECT_USAGE)]
pub(in crate::cli) struct Elect {
    #[command(flatten)]
    pub(in crate::cli) terms: Terms,
    /// What observers are told of this candidate while it leads: where it is found, at most 1024 bytes
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(in crate::cli) value: String,
    /// How long before the deadline of an election that is about to be lost the command gets SIGTERM; as
    /// for run
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = HOLDING)]
    pub(in crate::cli) grace: Option<Duration>,
    /// Do not let the command inherit the election: processes that it leaves running do not keep it
    #[arg(short = 'o', long, help_heading = HOLDING)]
    pub(in crate::cli) close: bool,
    /// Campaign for nothing: print the present leader, and each change, until ended
    #[arg(long, conflicts_with_all = ["value", "command"])]
    pub(in crate::cli) observe: bool,
    /// With --observe: a line of JSON each
    #[arg(long)]
    pub(in crate::cli) json: bool,

    /// The name of the election
    #[arg(value_name = "NAME")]
    pub(in crate::cli) name: Name,
    /// The command and its arguments, after `--`
    #[arg(last = true, value_name = "COMMAND")]
    pub(in crate::cli) command: Vec<OsString>,
}

const ELECT_USAGE: &str = "\
tierlock elect [OPTIONS] NAME [--value TEXT] [-- COMMAND [ARG ...]]
       tierlock elect [OPTIONS] NAME --observe [--json]";

const ELECT_EXAMPLES: &str = "\
COMMAND is protected as under run, which `tierlock run --help` describes, and is
told the same: TIERLOCK_NAME, TIERLOCK_SCOPE, and TIERLOCK_TOKEN, a number that
grows with every term. --wait and --no-wait apply to each campaign.

What --observe prints, a line each, on standard output:
  leader TOKEN TEXT     or, with --json,  {\"leader\":{\"token\":N,\"value\":\"TEXT\"}}
  none                                    {\"leader\":null}

Examples:
  A service of which one runs, on whichever machine:
      tierlock elect primary --value \"$(hostname):8080\" -- ./serve --port 8080

  Its clients:
      tierlock elect primary --observe |
          while read -r what token address; do ... done

Exit status: as that of run, but for an election that is lost: it campaigns
again.";

impl Elect {
    /// What clap cannot refuse by itself.
    pub(in crate::cli) fn check(&self) -> Result<(), Failure> {
        if self.terms.shared {
            return Err(usage("one is elected at a time: leave out --shared"));
        }
        if self.json && !self.observe {
            return Err(usage("--json is how --observe prints: give both"));
        }
        if self.value.len() > VALUE_BYTES_MAX {
            return Err(usage(format_args!(
                "--value has {} bytes, and at most {VALUE_BYTES_MAX} are told to observers: give \
                 a reference to where the rest is found",
                self.value.len()
            )));
        }
        self.terms.check()
    }
}
