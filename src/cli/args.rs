//! What the command line may say.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::failure::{Failure, exit};
use crate::{
    manager::LockManagerBuilder, name::Name, process, proto::leader::Config as LeaderConfig,
    scope::Scope, token::Token,
};

/// Locks across threads, processes and machines, with fencing tokens.
#[derive(Debug, Parser)]
#[command(name = "tierlock", version, max_term_width = 100, after_long_help = OVERVIEW)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

const OVERVIEW: &str = "\
Two ways to start:

  One machine: a directory says who shares the locks.
      tierlock run --dir /run/lock/shop nightly -- ./nightly.sh

  Several machines: a leader, a secret, and the same words.
      tierlock secret new /etc/shop/tierlock.key
      tierlock serve --init --listen 10.0.0.1:7420 --state-dir /var/lib/tierlock \\
                     --secret-file /etc/shop/tierlock.key
      tierlock run --leader 10.0.0.1:7420 --secret-file /etc/shop/tierlock.key \\
                     nightly -- ./nightly.sh

Exit status of a failure of tierlock's own, with one line `tierlock: …` on standard error:
  64 usage                     75 lock not obtained      78 configuration
  69 no leader reachable       76 lock lost              126 command not executable
  70 internal                  77 refused                127 command not found
  74 I/O failed, or damage";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a command while holding a lock
    ///
    /// Waits for the lock (without limit, as flock(1), unless --wait or --no-wait is given), runs
    /// COMMAND, lets go when it ends, and exits with its status.
    Run(Box<Run>),
    /// Be the leader that machines take locks from
    ///
    /// Prints `listening on ADDR` on standard output, a line for each address, once it answers.
    /// SIGTERM or SIGINT ends it in good order; SIGHUP has it read the secret file again. Restarted, it finds all that was held still held: new locks are granted once its
    /// clients are back, within milliseconds, or once the time to live of one that is not has passed.
    Serve(Serve),
    /// Show who holds which lock, since when, who waits, how the last holder left
    ///
    /// Exits with 0 whether anything is held or not.
    Status(Status),
    /// Take a lock away from its holder
    ///
    /// Names the holder by its token, which `tierlock status` shows: nobody else loses anything, and
    /// whoever has taken the lock meanwhile keeps it.
    Break(Break),
    /// Say what is wrong with a directory, and what to do
    ///
    /// Looks at version and engine, file system, rights, damaged and foreign files, at what the dead
    /// left behind, and at names that stay at host scope though nobody uses them. It repairs nothing,
    /// makes nothing, and disturbs nobody who uses the locks meanwhile.
    Doctor(Doctor),
    /// Measure what the locks of each scope cost on this machine
    ///
    /// Everything runs here, over loopback, for half a minute: a table of operations per second
    /// and of waits for each scope.
    Bench(crate::bench::Args),
    /// Make the secret that a leader and its clients share
    #[command(subcommand)]
    Secret(Secret),
    /// One of the bench's own processes
    #[command(hide = true)]
    BenchWorker {
        /// What it does, in the bench's own words
        spec: String,
    },
}

const SHARING: &str = "Who shares the lock";
const WAITING: &str = "Waiting";
const HOLDING: &str = "Holding";

/// Who shares the locks.
#[derive(Args, Debug, Default)]
pub(super) struct Common {
    /// Directory that all processes sharing the locks are given; run makes it if it is
    /// missing [env: TIERLOCK_DIR]
    #[arg(long, value_name = "DIR", help_heading = SHARING)]
    dir: Option<PathBuf>,
    /// Address of a leader as HOST:PORT (7420 when left out); given once for each member of a group
    /// [env: TIERLOCK_LEADERS, comma-separated]
    #[arg(long = "leader", value_name = "ADDR", value_delimiter = ',', help_heading = SHARING)]
    leaders: Vec<String>,
    /// File with the secret that leader and clients share [env: TIERLOCK_SECRET_FILE]
    #[arg(long, value_name = "FILE", help_heading = SHARING)]
    secret_file: Option<PathBuf>,
    /// Shown to whoever asks who holds a lock [env: TIERLOCK_LABEL; default: run's COMMAND]
    #[arg(long, value_name = "TEXT", help_heading = SHARING)]
    label: Option<String>,
}

/// What `run` is told.
#[derive(Args, Debug)]
#[command(after_long_help = RUN_EXAMPLES)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) common: Common,

    /// Who else may take the lock [default: the widest that is reachable]
    #[arg(long, value_name = "SCOPE", help_heading = SHARING)]
    pub(super) scope: Option<RunScope>,

    /// Fail at once if somebody else has it
    #[arg(short = 'n', long, conflicts_with = "wait", help_heading = WAITING)]
    pub(super) no_wait: bool,
    /// Wait at most this long [default: without limit]
    #[arg(short = 'w', long, value_name = "TIME", value_parser = duration)]
    #[arg(help_heading = WAITING)]
    pub(super) wait: Option<Duration>,
    /// Exit status when the lock is not obtained
    #[arg(short = 'E', long, value_name = "N", default_value_t = exit::CONFLICT)]
    #[arg(help_heading = WAITING)]
    pub(super) conflict_exit_code: u8,

    /// Host scope: how long the lock outlives a silence of this machine (1s to 60s)
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    #[arg(help_heading = HOLDING)]
    pub(super) ttl: Duration,
    /// How long before its deadline a lock about to be lost has the command told to stop; at most
    /// half of --ttl and --at-most [default: 1s, or a quarter of --ttl if that is less]
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = HOLDING)]
    pub(super) grace: Option<Duration>,
    /// Give the lock up after this long, ending the command
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = HOLDING)]
    pub(super) at_most: Option<Duration>,
    /// Keep the lock at least this long, though the command ends before; with a leader it is
    /// remembered there, however the command ends, and tierlock ends with the command
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = HOLDING)]
    pub(super) at_least: Option<Duration>,
    /// What happens to the command when the lock is lost
    #[arg(long, value_name = "WHAT", default_value = "kill", help_heading = HOLDING)]
    pub(super) on_lost: OnLost,

    /// The lock's name: 1 to 255 bytes; `/` separates parts by custom (orders/42)
    pub(super) name: Name,
    /// The command and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

const RUN_EXAMPLES: &str = "\
Times are 300ms, 30s, 10m, 2h; a bare number is seconds.

Set for the command: TIERLOCK_NAME, TIERLOCK_SCOPE, and TIERLOCK_TOKEN, a number that grows with
every grant of the name: give it to what the lock protects, and let that refuse a smaller one.

What protects the command:
  It has a process group of its own. Signals that reach tierlock are passed on to the group; in a
  terminal it is the foreground group, so that Ctrl-C reaches it and an editor works.
  When the lock is about to be lost, the group is sent SIGTERM --grace before the deadline, and
  SIGKILL at it; tierlock then exits with 76 whatever the command said. With --on-lost warn it
  says so, and the command runs on.
  If tierlock itself is killed, the command dies with it. Whatever of its tree lives on keeps the
  lock at process scope, as with flock(1); at host scope the whole group is killed. A process that
  leaves the group (a daemon, a job of an interactive shell) is out of reach there: give it the
  token. So is one of another user: write `sudo tierlock run …`, not `tierlock run … -- sudo …`.
  A command under a host-scope lock is not stopped by Ctrl-Z: its lease would run out.
  The lock is let go when COMMAND ends. What it leaves running keeps the lock at process scope, as
  with flock(1), and has none at host scope: end a script with `wait`.

Exit status: the command's own; 128+N if signal N ended it; else
  64 usage                     75 lock not obtained      78 configuration
  69 no leader reachable       76 lost while it ran      126 not executable
  70 internal                  77 refused                127 not found
  74 I/O failed, or damage     -E changes 75

Examples:
  A cron job that never overlaps itself, and is skipped when the last run is still at it:
      */5 * * * *  tierlock run --dir /run/lock/shop -n -E 0 sync -- /usr/local/bin/sync-shop

  The same job on three machines, run by one of them, though their clocks differ by seconds:
      0 3 * * *  tierlock run -n -E 0 --at-least 1m nightly -- /usr/local/bin/nightly
  with TIERLOCK_LEADERS and TIERLOCK_SECRET_FILE set at the top of the crontab.

  A script that locks itself (the flock(1) idiom), as its first line after #!/bin/sh:
      [ \"$TIERLOCK_NAME\" = deploy ] || exec tierlock run --dir /run/lock/shop deploy -- \"$0\" \"$@\"

  A deployment that waits half a minute for its turn and may take ten:
      tierlock run --wait 30s --at-most 10m deploy/eu -- ./deploy.sh eu

A `run` of a name that it already runs under, however deep, exits with 75 at once, since it would
wait for itself. TIERLOCK_NAME is the innermost name.";

/// What `serve` is told.
#[derive(Args, Debug)]
#[command(after_long_help = SERVE_EXAMPLES)]
pub(super) struct Serve {
    /// Address to listen on, as HOST:PORT (7420 when left out; 0 takes a free one), or :PORT for
    /// every address of this machine; of a HOST with several addresses all are taken
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: String,
    /// Directory of what must survive a restart, used by one leader at a time
    #[arg(long, value_name = "DIR")]
    pub(super) state_dir: PathBuf,
    /// File with the secret that leader and clients share, read again every minute and on SIGHUP
    /// [env: TIERLOCK_SECRET_FILE]
    #[arg(long, value_name = "FILE")]
    pub(super) secret_file: Option<PathBuf>,
    /// The longest time to live that a client may ask for
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(super) ttl_max: Duration,
    /// How many clients may have locks at a time, of one address half of them at most; the
    /// connection of one takes some 40 KiB of memory, and up to 1.5 MiB if it misbehaves
    #[arg(long, value_name = "N", default_value_t = LeaderConfig::default().sessions_max)]
    pub(super) sessions_max: usize,
    /// How many locks all clients together may hold, wait for or keep taken by `--at-least`, those of
    /// one address half of them at most; each takes 200 to 700 bytes of memory
    #[arg(long, value_name = "N", default_value_t = LeaderConfig::default().claims_max)]
    pub(super) claims_max: usize,
    /// Make the journal of a new leader in the state directory: for its first start only
    #[arg(long)]
    pub(super) init: bool,
    /// Start above this epoch, on a copy of a state directory or one whose journal is damaged or
    /// lost: grants nothing for a minute
    #[arg(long, value_name = "N")]
    pub(super) epoch_above: Option<u32>,
    /// Accept a state directory on this file system though it may lose what was written (tmpfs,
    /// nfs); may be given several times
    #[arg(long, value_name = "NAME")]
    pub(super) accept_fs: Vec<String>,
}

const SERVE_EXAMPLES: &str = "\
Example:
  tierlock secret new /etc/tierlock.key          (copy it to every client)
  tierlock serve --listen 0.0.0.0:7420 --state-dir /var/lib/tierlock \\
                 --secret-file /etc/tierlock.key --init
and from then on without --init: an empty directory may be a volume that is not mounted, and is
refused, as is a file system that forgets (tmpfs) or is far away, and a copy of a state directory.

To exchange the secret, without a pause: a secret file may hold several, one a line; the first is
presented, all are accepted. Add the new one as the second line at the leader, then at every client;
make it the first everywhere; then take the old one out. Clients read the file again whenever they connect.

The secret file belongs to the user that runs this or to root, only its owner may write it, and not
all users may read it (0600, or 0440 for a group). A pipe such as <(cat key) is read once.

Exit status: 0 after SIGTERM or SIGINT; 74 when the storage fails; 77 when the state directory is \
in use; 78 when the settings or the state do not fit.";

/// What `status` is told.
#[derive(Args, Debug)]
#[command(after_long_help = STATUS_EXAMPLES)]
pub(super) struct Status {
    #[command(flatten)]
    pub(super) common: Common,
    /// As JSON, for programs
    #[arg(long)]
    pub(super) json: bool,
    /// Only the lock of this name; one that nobody knows is free
    pub(super) name: Option<Name>,
}

const STATUS_EXAMPLES: &str = "\
States: held; kept (its last user let go, and its machine keeps the lease until somebody else asks);
climbing (taken on this machine, on its way to a wider scope); free.

Examples:
  tierlock status --dir /run/lock/shop
  tierlock status --json nightly | jq -r '.locks[0].holder.host'";

/// What `break` is told.
#[derive(Args, Debug)]
#[command(after_long_help = BREAK_EXAMPLES)]
pub(super) struct Break {
    #[command(flatten)]
    pub(super) common: Common,
    /// The lock's name
    pub(super) name: Name,
    /// The token of the holder that is to lose it
    #[arg(long, value_name = "N")]
    pub(super) token: Token,
}

const BREAK_EXAMPLES: &str = "\
The holder is told, and a command under `tierlock run` is stopped (its exit status is 76). A lock \
of a leader is free once the holder has answered; one that is silent is waited for until its time \
to live is over. A lock of a directory goes to the next one at once, whether its holder has noticed \
or not: end a holder that may go on to write. Where locks are files (doctor says so), a lock ends \
with its holder only.

Example:
  tierlock status nightly                  (shows the holder and its token)
  tierlock break nightly --token 1099511627781

Exit status: 0 when it was taken away (for good: at host scope the loss is on the leader's disk); 69 \
when no leader answered; 77 when the token is not the holder's, and the line says whose it is; 78 \
when it cannot be taken away, and the line says what to do.";

/// What `doctor` is told.
#[derive(Args, Debug)]
#[command(after_long_help = DOCTOR_EXAMPLES)]
pub(super) struct Doctor {
    #[command(flatten)]
    pub(super) common: Common,
}

const DOCTOR_EXAMPLES: &str = "\
One finding on a line of standard output, and before it how bad it is:
  ok        as it should be
  note      worth knowing; nothing has to be done (what the dead left is taken over by the living)
  trouble   settings, rights or files that somebody should change
  damage    locks, or what is known about them, cannot be relied on

Exit status: 0 when there is neither trouble nor damage; 74 when there is damage; 78 when there is \
only trouble, or no such directory; 77 when this user may not look.

Example:
  tierlock doctor --dir /run/lock/shop";

#[derive(Debug, Subcommand)]
pub(super) enum Secret {
    /// Write a new secret to FILE
    ///
    /// One line of text with 32 random bytes in hex, readable by its owner only. A file that exists
    /// is never overwritten. Give a copy to the leader and to every client; whoever has it may take
    /// and break every lock.
    New {
        /// The file to make
        file: PathBuf,
    },
}

/// The scopes in which a command can share a lock: a thread-scope lock would exclude nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum RunScope {
    /// The processes of this machine that use the same directory
    Process,
    /// The machines that use the same leader
    Host,
}

impl From<RunScope> for Scope {
    fn from(scope: RunScope) -> Scope {
        match scope {
            RunScope::Process => Scope::Process,
            RunScope::Host => Scope::Host,
        }
    }
}

/// What happens to the command when its lock is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OnLost {
    /// It is ended by the deadline
    Kill,
    /// It runs on, and a line says so
    Warn,
}

impl Common {
    /// Fills in from the environment what the command line leaves out. A variable that is set to
    /// nothing counts as unset.
    pub(super) fn with_environment(mut self) -> Result<Common, Failure> {
        let path = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        self.dir = self.dir.or_else(|| path("TIERLOCK_DIR"));
        self.secret_file = self.secret_file.or_else(|| path("TIERLOCK_SECRET_FILE"));
        if self.leaders.is_empty()
            && let Some(leaders) = text_of("TIERLOCK_LEADERS")?
        {
            let leaders = leaders.split(',').map(str::trim).filter(|leader| !leader.is_empty());
            self.leaders = leaders.map(str::to_owned).collect();
        }
        if self.label.is_none() {
            self.label = text_of("TIERLOCK_LABEL")?;
        }
        if self.dir.is_none() && self.leaders.is_empty() {
            return Err(Failure::new(
                exit::CONFIG,
                "nothing says who shares the locks; give --dir or --leader, or set TIERLOCK_DIR \
                 or TIERLOCK_LEADERS",
            ));
        }
        Ok(self)
    }

    /// The label unless one was given.
    pub(super) fn or_label(mut self, label: impl FnOnce() -> String) -> Common {
        self.label.get_or_insert_with(label);
        self
    }

    /// The leaders' addresses; none, if no lock can be taken at host scope.
    pub(super) fn leaders(&self) -> &[String] {
        &self.leaders
    }

    /// The directory of process-scope locks.
    pub(super) fn directory(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// The same, but for a directory that nobody has used yet: for who makes nothing, neither a
    /// directory that was mistyped nor a new one's files.
    pub(super) fn without_unused_directory(self) -> Result<Common, Failure> {
        let is_in_use = self.directory().map(process::is_in_use).transpose()?.unwrap_or_default();
        Ok(Common { dir: self.dir.filter(|_| is_in_use), ..self })
    }

    pub(super) fn into_builder(self) -> LockManagerBuilder {
        let mut builder = LockManagerBuilder::default().leaders(self.leaders);
        if let Some(dir) = self.dir {
            builder = builder.directory(dir);
        }
        if let Some(file) = self.secret_file {
            builder = builder.secret_file(file);
        }
        if let Some(label) = self.label {
            builder = builder.label(label);
        }
        builder
    }
}

impl Serve {
    pub(super) fn secret_file(&self) -> Result<PathBuf, Failure> {
        let from_environment = || std::env::var_os("TIERLOCK_SECRET_FILE").map(PathBuf::from);
        let given = self.secret_file.clone().or_else(from_environment);
        given.filter(|file| !file.as_os_str().is_empty()).ok_or_else(|| {
            Failure::new(
                exit::USAGE,
                "serve needs --secret-file; make one with `tierlock secret new FILE`",
            )
        })
    }
}

fn text_of(variable: &str) -> Result<Option<String>, Failure> {
    match std::env::var(variable) {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => Ok(Some(text)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(Failure::new(exit::CONFIG, format_args!("{variable}: {error}"))),
    }
}

/// A usage error of clap's in one line, without its block of usage.
pub(super) fn usage_failure(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let told = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    let told = told.strip_prefix("error: ").unwrap_or(&told);
    Failure::new(exit::USAGE, format_args!("{told}; `tierlock --help` tells more"))
}

/// `300ms`, `30s`, `10m`, `2h`; a bare number is seconds. Fractions are fine.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let complaint = || format!("{text:?} is no time; write it as 300ms, 30s, 10m, 2h, or 2.5");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds_each = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(complaint()),
    };
    let number: f64 = number.parse().map_err(|_| complaint())?;
    Duration::try_from_secs_f64(number * seconds_each).map_err(|_| complaint())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

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
        ] {
            assert_eq!(duration(text), Ok(expected), "{text}");
        }
        for text in ["", "s", "-1", "+1", "1 s", "1S", "1d", "1e3", "inf", "NaN", ".", "1.2.3"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(duration(&"9".repeat(400)).is_err());
    }

    #[test]
    fn usage_errors_are_one_line() {
        for args in [
            &["tierlock"][..],
            &["tierlock", "run"],
            &["tierlock", "run", "x", "--"],
            &["tierlock", "run", "--ttl", "soon", "x", "--", "true"],
            &["tierlock", "run", "-n", "-w", "1", "x", "--", "true"],
            &["tierlock", "run", "--scope", "thread", "x", "--", "true"],
            &["tierlock", "run", "", "--", "true"],
            &["tierlock", "walk"],
        ] {
            let error = Cli::try_parse_from(args).unwrap_err();
            let Failure::Said { status: exit::USAGE, line } = usage_failure(&error) else {
                panic!("{args:?}")
            };
            assert!(!line.contains('\n') && !line.contains("Usage"), "{line}");
        }
    }
}
