//! What `step-down` is told.

use clap::Args;

use super::Common;

#[derive(Args, Debug)]
#[command(after_long_help = STEP_DOWN_EXAMPLES)]
pub(in crate::cli) struct StepDown {
    #[command(flatten)]
    pub(in crate::cli) common: Common,
}

const STEP_DOWN_EXAMPLES: &str = "\
All leaders are to be named, as for clients. The one that steps down takes no
part for the length of a reign (its --reign); if no other has taken over by
then, it reigns again.

A leader with a state directory cannot step down: no other can follow it while
it runs.

Example:
  tierlock step-down --leader 10.0.0.1:7420,10.0.0.2:7420 \\
      --secret-file /etc/tierlock.key
  10.0.0.1:7420 has stepped down; 10.0.0.2:7420 reigns, in epoch 12

Exit status: 0 when another reign has begun; 69 when no leader reigns that
answers, or none has followed; 77 when the secret is another; 78 for a leader
with a state directory.";
