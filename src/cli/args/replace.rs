//! What `replace` is told.

use clap::Args;

use super::Common;

#[derive(Args, Debug)]
#[command(after_long_help = REPLACE_EXAMPLES)]
pub(in crate::cli) struct ReplaceArgs {
    /// The member's ID, as --group has it
    #[arg(value_name = "ID")]
    pub(in crate::cli) member: String,
    #[command(flatten)]
    pub(in crate::cli) common: Common,
}

const REPLACE_EXAMPLES: &str = "\
For a machine that is dead, or a disk that is lost. The old disk has no part in
the group from then on: never bring it back under that ID. Replace one member at
a time, and wait for the end of this command: until then the group has one copy
less.

Example, for member b of three:
  (on b's machine, with an empty state directory; serve says that it waits)
  tierlock serve --init --listen 10.0.0.2:7420 --state-dir /var/lib/tierlock \\
      --group a=10.0.0.1:7420,b=10.0.0.2:7420,c=10.0.0.3:7420 \\
      --secret-file /etc/tierlock.key
  (anywhere)
  tierlock replace b --leader 10.0.0.1:7420,10.0.0.3:7420
  b: its new disk is in the group, and has a vote

Exit status: 0 when the new disk has a vote; 69 when no majority of the members
answers, or it has not caught up yet; 77 when the secret is another; 78 when no
group keeps the journal, or the member has no disk that waits.";
