//! What the command line may say.

mod common;
mod elect;
mod examples;
mod journal;
mod replace;
mod secret;
mod step_down;
mod telling;
mod usage;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

pub(super) use self::{
    elect::Elect,
    journal::{JournalCommand, JournalMove},
    replace::ReplaceArgs,
    secret::{SecretCommand, SecretIssue},
    step_down::StepDown,
    telling::{LogFormat, ServeTelling},
    usage::usage_failure,
};
use self::{
    examples::{
        BENCH_EXAMPLES, BREAK_EXAMPLES, COMPLETIONS_EXAMPLES, DOCTOR_EXAMPLES, HELD_EXAMPLES,
        HOLD_EXAMPLES, JOURNAL_EXAMPLES, MAN_EXAMPLES, OVERVIEW, RUN_EXAMPLES, SECRET_EXAMPLES,
        SERVE_EXAMPLES, STATUS_EXAMPLES, WATCH_EXAMPLES, WHY_EXAMPLES,
    },
    usage::usage,
};
use super::failure::{Failure, exit};
use crate::{
    host::service_url::ServiceUrl, name::Name, proto::leader::LeaderConfig, scope::Scope,
    time::AT_LEAST_MAX, token::Token,
};

/// Locks across threads, processes and machines, with fencing tokens.
#[derive(Debug, Parser)]
#[command(name = "tierlock", version, max_term_width = 80, after_long_help = OVERVIEW)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a command while holding a lock
    ///
    /// Waits for the lock (without limit, as flock(1), unless --wait or --no-wait is given), runs
    /// COMMAND, releases it when COMMAND ends, and exits with its status.
    Run(Box<Run>),
    /// Hold a lock until standard input ends
    ///
    /// Takes the lock as run does, prints `token N` on standard output (of several names a line each,
    /// in their order), and holds the lock until its standard input ends: for one section of a script.
    /// No process inherits the lock: what the script starts does not keep it.
    Hold(Box<HoldArgs>),
    /// Run a command while elected, or observe which candidate is
    ///
    /// Waits until it is elected, runs COMMAND, resigns when COMMAND ends, and exits with its status. When
    /// the election is lost meanwhile, COMMAND is ended as run does, and it campaigns again, by itself.
    /// Without COMMAND it prints `token N` each time that it is elected, and resigns when its standard
    /// input ends. With --observe it is no candidate, and prints the present leader, then each change.
    Elect(Box<Elect>),
    /// Tell whether the caller runs under a lock
    ///
    /// Exits with 0 if an ancestor of the caller (the `tierlock run` above it) holds the lock just
    /// now, else with 1, and prints nothing.
    Held(HeldArgs),
    /// Be the leader that machines take locks from
    ///
    /// Prints `listening on ADDR` on standard output, a line for each address, once it answers.
    /// SIGTERM or SIGINT ends it in good order; on SIGHUP it reads the secret file and the
    /// --revoked file again. After a
    /// restart held locks stay held. A free one is granted as soon as the clients that had asked
    /// for it are back, within milliseconds, or once the time to live of one that is not has passed.
    Serve(Serve),
    /// Show each lock's holder, since when, its waiters, how the last holder left
    ///
    /// Exits with 0 whether anything is held or not.
    Status(Status),
    /// Show what status shows, again and again, with a mark at what has changed
    ///
    /// On a terminal the screen is drawn anew each time; elsewhere a table is printed whenever
    /// anything but the time has changed. A silent leader is reported, and asked again.
    Watch(WatchLocks),
    /// Explain one lock: which process has it, and what will free it by when
    ///
    /// Says in sentences what keeps the lock from being free, what will free it and by when at the
    /// latest, which processes wait for it in which order, and what can be done. Exits with 0 whether
    /// it is held or not.
    Why(Why),
    /// Take a lock away from its holder, or end the holder's process
    ///
    /// Names the holder by its token, which `tierlock status` shows: no other holder loses anything,
    /// and one that has taken the lock meanwhile keeps it.
    Break(Break),
    /// Say what is wrong with a directory, a service, leaders or a journal, and what helps
    ///
    /// Looks at version and engine, file system, rights, damaged and foreign files, at what dead
    /// processes left behind, and at names that stay at host scope though no process uses them. It
    /// repairs nothing, makes nothing, and disturbs no process that uses the locks meanwhile.
    Doctor(Doctor),
    /// Measure what the locks of each scope cost on this machine
    ///
    /// Everything runs here, over loopback, for half a minute: a table of operations per second
    /// and of waits for each scope.
    #[command(after_long_help = BENCH_EXAMPLES)]
    Bench(super::bench::Args),
    /// Have the leader that reigns step down, so that another one follows
    ///
    /// Of several leaders over one journal: the one that reigns stops serving, resigns, and stands by.
    /// Another takes over at once; held locks stay held, and waiters keep their places. For work on its
    /// machine, or to have the reign on another one. Ends when another reign has begun.
    StepDown(StepDown),
    /// Let a member's new disk into its group, in the place of the old one
    ///
    /// For a member of a group that has lost its machine or its disk. It is started with --init on an empty state
    /// directory, and waits for this. Ends when the new disk has caught up, and has a vote.
    Replace(ReplaceArgs),
    /// Move what leaders must not forget to another place
    #[command(subcommand, after_long_help = JOURNAL_EXAMPLES)]
    Journal(JournalCommand),
    /// Make a secret for leaders and clients, and credentials from it
    #[command(subcommand, after_long_help = SECRET_EXAMPLES)]
    Secret(SecretCommand),
    /// Print the script with which a shell completes these commands
    #[command(after_long_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages to DIR
    ///
    /// tierlock.1, and tierlock-run.1 and so on for each command. DIR is made if it is missing; pages
    /// that are there are replaced.
    #[command(after_long_help = MAN_EXAMPLES)]
    Man {
        /// The directory
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// One of the bench's own processes
    #[command(hide = true)]
    BenchWorker {
        /// What it does, in the bench's own words
        spec: String,
    },
}

const SHARING: &str = "Sharing";
const WAITING: &str = "Waiting";
const HOLDING: &str = "Holding";

/// Which processes share the locks.
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
    /// A lock service that runs already, in the place of leaders: etcd://HOST,
    /// mysql://HOST/DATABASE, postgres://HOST/DATABASE, redis://HOST, redlock://HOST,HOST,HOST,
    /// zookeeper://HOST/CHROOT; tierlock://HOST are leaders. Give no password here, where every user sees it: use
    /// ?password_file=FILE, or the variable [env: TIERLOCK_SERVICE]
    #[arg(long, value_name = "URL", conflicts_with = "leaders", help_heading = SHARING)]
    service: Option<String>,
    /// File with the secret that leader and clients share, or with a credential that `tierlock secret
    /// issue` has made of it [env: TIERLOCK_SECRET_FILE]
    #[arg(long, value_name = "FILE", help_heading = SHARING)]
    secret_file: Option<PathBuf>,
    /// How the holder is shown to others [env: TIERLOCK_LABEL; default: run's COMMAND]
    #[arg(long, value_name = "TEXT", help_heading = SHARING)]
    label: Option<String>,
}

/// How a lock is taken and kept, by `run` and by `hold`. flock(1)'s spellings are accepted where they
/// mean the same.
#[derive(Args, Debug)]
pub(super) struct Terms {
    #[command(flatten)]
    pub(super) common: Common,

    /// Which other callers the lock excludes [default: the widest that is reachable]
    #[arg(long, value_name = "SCOPE", help_heading = SHARING)]
    pub(super) scope: Option<RunScope>,
    /// Show a command's arguments, and not only its program's name, where the holder is
    /// shown to others: they may hold passwords
    #[arg(long, help_heading = SHARING)]
    pub(super) show_command: bool,
    /// Take it alone, as without this option
    #[arg(short = 'x', short_alias = 'e', long, hide = true, overrides_with = "shared")]
    exclusive: bool,
    /// Take it beside others that share it
    #[arg(short = 's', long, overrides_with = "exclusive", help_heading = WAITING)]
    pub(super) shared: bool,

    /// Fail at once if another holder has it
    #[arg(short = 'n', long, aliases = ["nb", "nonblock"], conflicts_with = "wait")]
    #[arg(help_heading = WAITING)]
    pub(super) no_wait: bool,
    /// Wait at most this long [default: without limit]
    #[arg(short = 'w', long, alias = "timeout", value_name = "TIME", value_parser = duration)]
    #[arg(help_heading = WAITING)]
    pub(super) wait: Option<Duration>,
    /// Exit status when the lock is not obtained
    #[arg(short = 'E', long, value_name = "N", default_value_t = exit::CONFLICT)]
    #[arg(help_heading = WAITING)]
    pub(super) conflict_exit_code: u8,
    /// Say on standard error what happens: waiting and for which holder, got, released
    #[arg(short = 'v', long, help_heading = WAITING)]
    pub(super) verbose: bool,

    /// Host scope: how long the lock outlives a silence of this machine (1s to 60s)
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time_to_live)]
    #[arg(help_heading = HOLDING)]
    pub(super) ttl: Duration,
    /// Give the lock up after this long, ending the command
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = HOLDING)]
    pub(super) at_most: Option<Duration>,
    /// Keep the lock taken at least this long (31 days at most), however and whenever the command
    /// ends; the directory or the leader remembers it, and tierlock ends with the command
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = HOLDING)]
    pub(super) at_least: Option<Duration>,
    /// What happens to the command when the lock is lost
    #[arg(long, value_name = "WHAT", default_value = "kill", help_heading = HOLDING)]
    pub(super) on_lost: OnLost,
}

/// What `run` is told.
#[derive(Args, Debug)]
#[command(after_long_help = RUN_EXAMPLES, override_usage = RUN_USAGE)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) terms: Terms,
    /// How long before the deadline of a lock that is about to be lost the command gets SIGTERM; at
    /// most half of --ttl and of --at-most [default: 1s, or a quarter of --ttl if that is less]
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = HOLDING)]
    pub(super) grace: Option<Duration>,
    /// Do not let the command inherit the lock: processes that it leaves running do not keep the
    /// lock taken, and run without it
    #[arg(short = 'o', long, help_heading = HOLDING)]
    pub(super) close: bool,
    /// The command as one string for the shell ($SHELL, or /bin/sh), as flock(1) has it
    #[arg(short = 'c', long = "command", value_name = "STRING", allow_hyphen_values = true)]
    shell: Option<OsString>,

    /// The lock's name: 1 to 255 bytes; `/` separates parts by custom (orders/42). Several are taken
    /// together, all or none
    #[arg(value_name = "NAME")]
    names: Vec<Name>,
    /// The command and its arguments, after `--`
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

const RUN_USAGE: &str = "\
tierlock run [OPTIONS] NAME [NAME ...] -- COMMAND [ARG ...]
       tierlock run [OPTIONS] NAME -c STRING";

/// What `hold` is told.
#[derive(Args, Debug)]
#[command(after_long_help = HOLD_EXAMPLES)]
pub(super) struct HoldArgs {
    #[command(flatten)]
    pub(super) terms: Terms,
    /// The lock's name; several are taken together, all or none
    #[arg(value_name = "NAME", required = true)]
    pub(super) names: Vec<Name>,
}

/// What `held` is told.
#[derive(Args, Debug)]
#[command(after_long_help = HELD_EXAMPLES)]
pub(super) struct HeldArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// Which lock of the name, as given to run [default: the widest that is reachable]
    #[arg(long, value_name = "SCOPE", help_heading = SHARING)]
    pub(super) scope: Option<RunScope>,
    /// The lock's name
    pub(super) name: Name,
}

/// What `serve` is told.
#[derive(Args, Debug)]
#[command(after_long_help = SERVE_EXAMPLES)]
#[command(group(ArgGroup::new("shared").args(["journal", "group"])))]
pub(super) struct Serve {
    /// Address to listen on, as HOST:PORT (7420 when left out; 0 takes a free one), or :PORT for
    /// every address of this machine; of a HOST with several addresses all are taken
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: String,
    /// Directory of what must survive a restart, used by one leader at a time
    #[arg(long, value_name = "DIR", required_unless_present = "journal")]
    pub(super) state_dir: Option<PathBuf>,
    /// A store in the place of a state directory, with any number of leaders, one of which reigns:
    /// postgres://USER@HOST/DATABASE or etcd://HOST,HOST; by TLS with ?sslmode=verify-full or
    /// etcds://, and ?ca=FILE
    #[arg(long, value_name = "URL", conflicts_with = "state_dir")]
    pub(super) journal: Option<String>,
    /// The members of a group that keeps the journal itself, three or five, the same at each of
    /// them: a=10.0.0.1:7420,b=10.0.0.2:7420,c=10.0.0.3:7420. This one is the member with the
    /// address of --listen; its part of the journal is in --state-dir
    #[arg(long, value_name = "ID=ADDR,...", requires = "state_dir")]
    pub(super) group: Option<String>,
    /// With --group: which member this is, where it listens at another address than the others find
    /// it by (--listen :7420 --member b)
    #[arg(long, value_name = "ID", requires = "group")]
    pub(super) member: Option<String>,
    /// With --journal or --group: how long a reign is believed without a new proof, 250ms to 10s; a
    /// leader that fails is followed after about this long [default: 1s; in a group 400ms]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "shared")]
    pub(super) reign: Option<Duration>,
    /// With --journal or --group: where clients find this leader, if not where it listens, or where
    /// the group has it
    #[arg(long, value_name = "ADDR", requires = "shared")]
    pub(super) address: Option<String>,
    /// File with the secret that leader and clients share, read again every minute and on SIGHUP
    /// [env: TIERLOCK_SECRET_FILE]
    #[arg(long, value_name = "FILE")]
    pub(super) secret_file: Option<PathBuf>,
    /// File with the serials of credentials that are accepted no longer, one a line; read again every
    /// minute and on SIGHUP. Replace it by renaming another to it; an empty one is refused, and `# none`
    /// is a list of none
    #[arg(long, value_name = "FILE")]
    pub(super) revoked: Option<PathBuf>,
    /// The longest time to live that a client may ask for
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(super) ttl_max: Duration,
    /// How many clients may have locks at a time, of one address or credential half of them at most; the
    /// connection of one takes some 40 KiB of memory, and up to 1.5 MiB if it misbehaves
    #[arg(long, value_name = "N", default_value_t = LeaderConfig::default().sessions_max)]
    pub(super) sessions_max: usize,
    /// How many locks all clients together may hold, wait for or keep taken by `--at-least`, those of
    /// one address or credential half of them at most; each takes 200 to 700 bytes of memory
    #[arg(long, value_name = "N", default_value_t = LeaderConfig::default().claims_max)]
    pub(super) claims_max: usize,
    /// Make the journal in the state directory or the store: for the first start of the first leader.
    /// Of a group: make this member's disk, for its first start; all members make the group so, once
    #[arg(long)]
    pub(super) init: bool,
    /// Start above this epoch, on a copy of a state directory or one with a damaged or lost journal:
    /// grants nothing for a minute, and forgets every running --at-least that is not in the journal
    #[arg(long, value_name = "N")]
    pub(super) epoch_above: Option<u32>,
    /// Accept a state directory on this file system though it may lose what was written (tmpfs,
    /// nfs); may be given several times
    #[arg(long, value_name = "NAME")]
    pub(super) accept_fs: Vec<String>,
    #[command(flatten)]
    pub(super) telling: ServeTelling,
}

/// What `status` is told.
#[derive(Args, Debug)]
#[command(after_long_help = STATUS_EXAMPLES)]
pub(super) struct Status {
    #[command(flatten)]
    pub(super) common: Common,
    /// As JSON, for programs
    #[arg(long)]
    pub(super) json: bool,
    /// Only the lock of this name; one that is not known is free
    pub(super) name: Option<Name>,
}

/// What `watch` is told.
#[derive(Args, Debug)]
#[command(after_long_help = WATCH_EXAMPLES)]
pub(super) struct WatchLocks {
    #[command(flatten)]
    pub(super) common: Common,
    /// The time between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(super) every: Duration,
    /// Only the lock of this name
    pub(super) name: Option<Name>,
}

/// What `why` is told.
#[derive(Args, Debug)]
#[command(after_long_help = WHY_EXAMPLES)]
pub(super) struct Why {
    #[command(flatten)]
    pub(super) common: Common,
    /// The lock's name
    pub(super) name: Name,
}

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
    /// Process scope: how long the holder's process may take to end after SIGTERM, before SIGKILL
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(super) grace: Duration,
}

/// What `doctor` is told.
#[derive(Args, Debug)]
#[command(after_long_help = DOCTOR_EXAMPLES)]
pub(super) struct Doctor {
    #[command(flatten)]
    pub(super) common: Common,
    /// The journal of leaders that follow each other, by its URL
    #[arg(long, value_name = "URL", conflicts_with_all = ["dir", "leaders", "service"])]
    pub(super) journal: Option<String>,
}

/// The scopes in which a command can share a lock: a thread-scope lock would exclude no other process.
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

/// A URL on the command line has no password.
pub(super) fn refuse_password(url: &str) -> Result<(), Failure> {
    if url.contains("://") && ServiceUrl::parse(url)?.password.is_some() {
        return Err(Failure::new(
            exit::CONFIG,
            "the URL of the journal has a password, which every user of this machine can read there: \
             put it in a file and name that by ?password_file=FILE",
        ));
    }
    Ok(())
}

impl Serve {
    /// The store, if it is one.
    pub(super) fn journal(&self) -> Result<Option<String>, Failure> {
        let Some(url) = &self.journal else { return Ok(None) };
        refuse_password(url)?;
        Ok(Some(url.clone()))
    }

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

impl Terms {
    /// What clap cannot refuse by itself.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.shared && self.at_least.is_some() {
            return Err(usage("--at-least keeps a lock that is held alone: leave out --shared"));
        }
        match (self.at_most, self.at_least) {
            (_, Some(at_least)) if at_least > AT_LEAST_MAX => {
                let line = format!(
                    "--at-least {at_least:?} is longer than the 31 days that are remembered"
                );
                Err(Failure::new(exit::CONFIG, line))
            }
            (Some(at_most), Some(at_least)) if at_least > at_most => {
                let line = format!("--at-least {at_least:?} is longer than --at-most {at_most:?}");
                Err(Failure::new(exit::CONFIG, line))
            }
            _ => Ok(()),
        }
    }
}

/// `300ms`, `30s`, `10m`, `2h`, `1d`, `1h30m`; a bare number is seconds. Fractions are fine.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let complaint =
        || format!("invalid time {text:?}: write it as 300ms, 30s, 10m, 2h, 1d, 1h30m, or 2.5");
    let (mut total, mut rest, mut last) = (0.0, text, f64::INFINITY);
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at(digits);
        let letters = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        let seconds_each = match unit {
            "ms" => 0.001,
            // Only alone.
            "" if rest.len() == text.len() => 1.0,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(complaint()),
        };
        let number: f64 = number.parse().map_err(|_| complaint())?;
        // From the largest unit to the smallest, each once.
        if seconds_each >= last {
            return Err(complaint());
        }
        total += number * seconds_each;
        (last, rest) = (seconds_each, behind);
        if rest.is_empty() {
            return Duration::try_from_secs_f64(total).map_err(|_| complaint());
        }
    }
}

/// A time to live that a leader accepts.
fn time_to_live(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    match (Duration::from_secs(1)..=Duration::from_secs(60)).contains(&time) {
        true => Ok(time),
        false => Err(format!("a time to live is between 1s and 60s, and {text:?} is not")),
    }
}

#[cfg(test)]
mod tests;
