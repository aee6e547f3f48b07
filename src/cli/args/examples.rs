//! What the help of each command ends with: more than a line about it, and examples.

pub(super) const OVERVIEW: &str = concat!(
    "\
Examples, the two ways to start:

  One machine: a directory says which processes share the locks.
      tierlock run --dir /run/lock/shop nightly -- ./nightly.sh

  Several machines: a leader, a secret, and the same words.
      tierlock secret new /etc/shop/tierlock.key
      tierlock serve --init --listen 10.0.0.1:7420 \\
          --state-dir /var/lib/tierlock --secret-file /etc/shop/tierlock.key
      tierlock run --leader 10.0.0.1:7420 \\
          --secret-file /etc/shop/tierlock.key nightly -- ./nightly.sh

Another machine gets the same version from a Rust toolchain:
      cargo install tierlock@",
    env!("CARGO_PKG_VERSION"),
    " --features cli

Exit status of a failure of tierlock's own, with one line `tierlock: …` on
standard error:
  64 usage                     75 lock not obtained      78 configuration
  69 no leader reachable       76 lock lost              126 not executable
  70 internal                  77 refused                127 command not found
  74 I/O failed, or damage"
);

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Example, for bash:
  tierlock completions bash > /etc/bash_completion.d/tierlock";

pub(super) const MAN_EXAMPLES: &str = "\
Example:
  tierlock man /usr/local/share/man/man1";

pub(super) const BENCH_EXAMPLES: &str = "\
Examples:
  tierlock bench
  tierlock bench --scope host --seconds 10 --json > host.json";

pub(super) const JOURNAL_EXAMPLES: &str = "\
Example, with all its leaders stopped:
  tierlock journal move /var/lib/tierlock etcd://10.0.0.4,10.0.0.5,10.0.0.6";

pub(super) const SECRET_EXAMPLES: &str = "\
Example:
  tierlock secret new /etc/tierlock.key
  tierlock secret issue --role read --label page /etc/tierlock.key page.key
  tierlock secret show page.key";

pub(super) const HOLD_EXAMPLES: &str = "\
It ends with 0 when its standard input has ended and the lock is released, and
with 76 when the lock is lost: a script that must not go on then checks whether
it still runs, or gives the token to what the lock protects. A signal that ends
it releases the lock first.

Example, for bash:
  coproc tierlock hold --dir /run/lock/shop deploy
  read -r _ token <&\"${COPROC[0]}\" || exit    (the lock is held from here on …)
  ./deploy.sh \"$token\"
  exec {COPROC[1]}>&-                            (… to here)";

pub(super) const HELD_EXAMPLES: &str = "\
It asks about the lock that run would take with the same settings: with --leader
the leader's lock, else the directory's. A name in the environment alone proves
nothing: the lock must be held just now, by the `tierlock run` with the token
that the caller inherited, or by a process above the caller that has the lock's
file open.

It cannot see an ancestor beyond a PID namespace (a container's), nor, for a
lock of host scope, one behind a cleared environment (sudo): there it exits with
1.

Example, as a script's first line after #!/bin/sh:
  tierlock held deploy || exec tierlock run deploy -- \"$0\" \"$@\"

Exit status: 0 held by an ancestor; 1 not; 69 when no leader answered; 78 when
nothing says which processes share the locks.";

pub(super) const RUN_EXAMPLES: &str = "\
Times are 300ms, 30s, 10m, 2h, 1d, 1h30m; a bare number is seconds. flock's
spellings are accepted where the meaning is the same (-x, --nb, --nonblock,
--timeout, -c). A name that begins with - stands between two --:
  tierlock run -- -name -- COMMAND

Set for the command: TIERLOCK_NAME, TIERLOCK_SCOPE, and TIERLOCK_TOKEN, a number
that grows with every grant of the name: give it to what the lock protects, and
let that refuse a smaller one. Of several names TIERLOCK_NAME and TIERLOCK_TOKEN
have a line each, in the order given. They are taken all or none; the loss of
one counts as the loss of all.

What protects the command:
  It has a process group of its own. Signals that reach tierlock are passed on
  to the group; in a terminal it is the foreground group, so that Ctrl-C reaches
  it and an editor works.

  When the lock is about to be lost, the group is sent SIGTERM --grace before
  the deadline, and SIGKILL at it; tierlock then exits with 76 whatever the
  command said. With --on-lost warn it says so, and the command runs on.

  If tierlock itself is killed, the command dies with it. A process of its tree
  that lives on keeps the lock at process scope, as with flock(1); at host scope
  the whole group is killed. A process that leaves the group (a daemon, a job of
  an interactive shell) is out of reach there: give it the token. So is one of
  another user: write `sudo tierlock run …`, not `tierlock run … -- sudo …`.

  A command under a host-scope lock is not stopped by Ctrl-Z: its lease would
  run out.

  The lock is released when COMMAND ends. What it leaves running keeps the lock
  at process scope, as with flock(1), unless --close was given, and has none at
  host scope: end a script with `wait`. `status` and `doctor` name a process
  that keeps a lock so.

  The command starts with the same signals blocked and ignored as tierlock was
  started with. A LISTEN_PID that names tierlock (sockets from systemd) is set
  to the command's process.

Exit status: the command's own; 128+N if signal N ended it; else
  64 usage                     75 lock not obtained      78 configuration
  69 no leader reachable       76 lost while it ran      126 not executable
  70 internal                  77 refused                127 not found
  74 I/O failed, or damage     -E changes 75

Examples:
  A cron job that never overlaps itself, and is skipped when the last run is
  still at it:
      */5 * * * *  tierlock run --dir /run/lock/shop -n -E 0 sync -- sync-shop

  The same job on three machines, run by one of them, though their clocks differ
  by seconds:
      0 3 * * *  tierlock run -n -E 0 --at-least 1m nightly -- ./nightly.sh
  with TIERLOCK_LEADERS and TIERLOCK_SECRET_FILE set at the top of the crontab.

  A script that locks itself, with TIERLOCK_DIR or TIERLOCK_LEADERS set, as its
  first line after #!/bin/sh:
      tierlock held deploy || exec tierlock run deploy -- \"$0\" \"$@\"

  A deployment that waits half a minute for its turn and may take ten:
      tierlock run --wait 30s --at-most 10m deploy/eu -- ./deploy.sh eu

A `run` that would wait for itself exits with 75 at once: when a process above
it, or itself, holds the same lock of the same directory or leader just now. So
does one that waits at a leader for a run that waits for a lock held above this
one. TIERLOCK_NAME is the innermost name.";

pub(super) const SERVE_EXAMPLES: &str = "\
Example:
  tierlock secret new /etc/tierlock.key          (copy it to every client)
  tierlock serve --listen 0.0.0.0:7420 --state-dir /var/lib/tierlock \\
                 --secret-file /etc/tierlock.key --init
and from then on without --init: an empty directory may be a volume that is not
mounted, and is refused, as is a file system that forgets (tmpfs) or is far
away, and a copy of a state directory.

To exchange the secret, without a pause: a secret file may hold several, one a
line; the first is presented, all are accepted. Add the new one as the second
line at the leader, then at every client; issue credentials anew; make it the
first everywhere; then take the old one out, and issue none before that is done.
Clients read the file again whenever they connect.

The secret file belongs to the user that runs this or to root, only its owner
may write it, and not all users may read it (0600, or 0440 for a group). A pipe
such as <(cat key) is read once.

Three machines that need no store, each with its own address:
  tierlock serve --init --listen 10.0.0.1:7420 --state-dir /var/lib/tierlock \\
                 --group a=10.0.0.1:7420,b=10.0.0.2:7420,c=10.0.0.3:7420 \\
                 --secret-file /etc/tierlock.key
and from then on without --init. One of the three may fail, and is started again
as it was; if its disk is lost, it is started with --init on an empty directory
and admitted by `tierlock replace`.

With --journal or --group the reign moves to another leader when this one ends,
and each change of it is told on standard error. A password belongs in a file
(?password_file=FILE in the URL).

Exit status: 0 after SIGTERM or SIGINT; 69 when the journal's store does not
answer at the start; 74 when the storage fails; 77 when the state directory is
in use; 78 when the settings or the state do not fit.";

pub(super) const STATUS_EXAMPLES: &str = "\
States: held; kept (no holder; the last one's machine keeps the lease until
another client asks); climbing (taken on this machine, on its way to host
scope); reserved (no holder; the last one's --at-least keeps it taken); free;
unknown, in JSON null (a lock of host scope: give --leader to ask for it).

Of several leaders a line each says which of them reigns and which stand by,
when the reign was proven to its journal last, and how fast that answers; with
--json they are `leaders`, beside `locks`. Where only standbys answer, these
lines are shown, and it exits with 69.

Examples:
  tierlock status --dir /run/lock/shop
  tierlock status --json nightly | jq -r '.locks[0].holder.host'";

pub(super) const WATCH_EXAMPLES: &str = "\
Examples:
  tierlock watch --dir /run/lock/shop
  tierlock watch --every 200ms nightly | tee changes.txt";

pub(super) const WHY_EXAMPLES: &str = "\
Example:
  tierlock why --dir /run/lock/shop nightly";

pub(super) const BREAK_EXAMPLES: &str = "\
At host scope the lock is taken away from its holder: the holder is told, and a
command under `tierlock run` is stopped (exit status 76). The lock is free once
the holder has answered; one that is silent is waited for until its time to live
is over.

At process scope a lock ends with its holder's process: that gets SIGTERM, and
SIGKILL after --grace, once it is certain that it holds the lock with exactly
this token. If it is gone and other processes keep the lock (a daemon that
`tierlock run` started), these are ended. Nothing is taken from a process that
lives on. If no process holds the lock and --at-least keeps it taken, that ends.
It is refused for a holder in another container, for one of another user, and
for tierlock itself where it runs under that lock.

Example:
  tierlock status nightly                  (shows the holder and its token)
  tierlock break nightly --token 1099511627781

Exit status: 0 when it was taken away (for good: at host scope the loss is on
the leader's disk) or its holder has ended; 69 when no leader answered; 77 when
the token is not the holder's, and the line names the holder, or when this user
may not end the holder; 78 when it cannot be broken so, and the line says what
to do.";

pub(super) const DOCTOR_EXAMPLES: &str = "\
One finding on a line of standard output, and before it how bad it is:
  ok        as it should be
  note      worth knowing; nothing has to be done (living processes take over
            what dead ones left)
  trouble   settings, rights or files that have to be changed
  damage    locks, or what is known about them, cannot be relied on

Exit status: 0 when there is neither trouble nor damage; 74 when there is
damage; 78 when there is only trouble, or no such directory; 77 when this user
may not look.

With --service it asks the lock service: whether it answers, its version, and
what in its settings endangers locks.

With --leader it asks each of these leaders which of them reigns and which stand
by, how long ago the reign was proven to the journal, how fast that answers, and
how old is what a standby knows of it.

With --journal it asks the store of several leaders which of them reigns,
whether it still proves that (so it takes as long as L, if none does), how fast
the store answers, and what the journal has.

Examples:
  tierlock doctor --dir /run/lock/shop
  tierlock doctor --service redis://10.0.0.1
  tierlock doctor --leader 10.0.0.1:7420,10.0.0.2:7420
  tierlock doctor --journal 'postgres://me@127.0.0.1/db?password_file=/etc/pw'";
