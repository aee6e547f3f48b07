//! What `journal` is told.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum JournalCommand {
    /// Move a journal to another place without losing a lock
    ///
    /// All leaders on FROM are stopped first; held locks stay held meanwhile, as long as their clients'
    /// times to live allow. FROM is marked as moved before TO has it, and starts no leader any more, so that
    /// at no moment there are two to begin from.
    Move(JournalMove),
}

#[derive(Args, Debug)]
#[command(after_long_help = MOVE_EXAMPLES)]
pub(in crate::cli) struct JournalMove {
    /// Where it is: a state directory, or the URL of a store
    pub(in crate::cli) from: String,
    /// Where it is to be: a directory without a journal, or the URL of a store without one
    pub(in crate::cli) to: String,
    /// Accept a state directory on this file system though it may lose what was written (tmpfs,
    /// nfs); may be given several times
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) accept_fs: Vec<String>,
}

const MOVE_EXAMPLES: &str = "\
Example, from one leader to several and back:
  systemctl stop tierlock
  url='postgres://tierlock@127.0.0.1/locks?password_file=/etc/pw'
  tierlock journal move /var/lib/tierlock \"$url\"
  (start the leaders with --journal and that URL; to move back, stop them all)
  tierlock journal move \"$url\" /var/lib/tierlock2

A leader of a store that was killed is waited for as a standby does, for 1.02
times its --reign. A move that was interrupted is run again with the same two
places: it goes on where it was, and one that was complete says so. Until then
no leader starts at either place. To give it up where TO has no journal yet,
remove the mark: the file `moved` of a state directory, the key head/moved in
etcd, the column moved_to of tierlock_head in PostgreSQL. What it has left in an
etcd at TO is what lies under that prefix.

Exit status: 0 when it is at TO; 69 when a store does not answer; 74 when a
place cannot be read or written; 77 when a leader has it, and nothing was moved;
78 when there is none at FROM or one at TO already, or FROM was moved to another
place.";
