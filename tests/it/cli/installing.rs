//! What is installed besides the program: units of systemd, and what a leader tells a service manager.

use std::{fs, os::unix::net::UnixDatagram};

use super::*;

/// What a leader tells `NOTIFY_SOCKET`.
struct NotifySocket(UnixDatagram);

impl NotifySocket {
    fn at(path: &Path) -> NotifySocket {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        NotifySocket(socket)
    }

    /// Reads until this is told.
    fn hears(&self, told: &str) {
        let mut buffer = [0; 4096];
        loop {
            let length = match self.0.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => panic!("{told}: {error}"),
            };
            if String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == told) {
                return;
            }
        }
    }
}

#[test]
fn a_service_manager_hears_that_a_leader_is_ready_lives_and_ends() {
    let place = Place::new();
    let socket = place.path("notify");
    let hears = NotifySocket::at(&socket);
    let mut command = place.serve("127.0.0.1:0");
    command.arg("--init").env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "2000000");
    let mut leader = Running::start(&mut command);
    assert!(leader.line().starts_with("listening on "));
    hears.hears("READY=1");
    hears.hears("STATUS=reigns in epoch 1");
    hears.hears("WATCHDOG=1");
    hears.hears("WATCHDOG=1");
    leader.signal(Signal::TERM);
    hears.hears("STOPPING=1");
    assert_eq!(leader.exit().code(), Some(0));
}

#[test]
fn a_service_manager_that_is_gone_ends_no_leader() {
    let place = Place::new();
    let mut command = place.serve("127.0.0.1:0");
    command.arg("--init").env("NOTIFY_SOCKET", place.path("gone"));
    let mut leader = Running::start(&mut command);
    assert!(leader.line().starts_with("listening on "));
    leader.signal(Signal::TERM);
    assert_eq!(leader.exit().code(), Some(0));
}

/// As in a container without anything else: no shell, no C library, no /proc. `TIERLOCK_STATIC` names the
/// program, which takes minutes to be built.
#[test]
fn the_program_alone_in_an_empty_root_directory_leads_and_locks() {
    let Some(built) = std::env::var_os("TIERLOCK_STATIC") else {
        return eprintln!("SKIPPED: TIERLOCK_STATIC names no static program; see CONTRIBUTING.md");
    };
    let place = Place::new();
    let root = place.path("root");
    // As a container has it: /dev and /proc, and nothing else that is not the program's own.
    for directory in ["state", "dev", "proc"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    // Another process makes the copy: one that is open to write could not be run.
    let copied = program("cp").arg(built).arg(root.join("tierlock")).status().unwrap();
    assert!(copied.success());
    let alone = |args: &[&str]| {
        let mut command = program("unshare");
        command.args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"]);
        let mounts = "mount --rbind /dev \"$0/dev\" && mount -t proc proc \"$0/proc\"";
        command.args(["sh", "-c", &format!("{mounts} && exec chroot \"$0\" /tierlock \"$@\"")]);
        command.arg(&root).args(args).stdin(Stdio::null());
        command
    };
    let version = match alone(&["--version"]).output() {
        Ok(output) if output.status.success() => output.stdout,
        refused => return eprintln!("SKIPPED: no other root directory can be had: {refused:?}"),
    };
    assert_eq!(version, format!("tierlock {}\n", env!("CARGO_PKG_VERSION")).into_bytes());
    let secret = ["--secret-file", "/state/secret"];
    succeeds(&alone(&["secret", "new", "/state/secret"]).output().unwrap());
    let serve = ["serve", "--init", "--listen", "127.0.0.1:0", "--accept-fs", "tmpfs"];
    let serve = [&serve[..], &["--state-dir", "/state/journal"], &secret].concat();
    let mut leader = Running::start(&mut alone(&serve));
    let address = leader.line().strip_prefix("listening on ").unwrap().to_owned();
    let at_the_leader = ["--leader", &address, secret[0], secret[1]];
    let run = [&["run"][..], &at_the_leader, &["job", "--", "/tierlock", "--version"]].concat();
    assert_eq!(succeeds(&alone(&run).output().unwrap()).into_bytes(), version);
    let status = alone(&[&["status", "--json", "job"][..], &at_the_leader].concat()).output();
    let status: serde_json::Value = serde_json::from_str(&succeeds(&status.unwrap())).unwrap();
    assert_eq!(
        (&status["locks"][0]["state"], &status["locks"][0]["predecessor"]),
        (&"free".into(), &"clean".into())
    );
    // A directory of its own is enough, too.
    let run = ["run", "--dir", "/state/locks", "job", "--", "/tierlock", "--version"];
    succeeds(&alone(&run).output().unwrap());
}

/// A unit of ours.
fn unit(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/systemd").join(name))
        .unwrap()
}

/// The words of a unit's command without the program.
fn arguments_of(unit: &str) -> Vec<&str> {
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    line.split(' ').skip(1).collect()
}

#[test]
fn the_units_are_sound() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return eprintln!("systemd is not installed: its look at the units is skipped");
    }
    let place = Place::new();
    let copy = |name: &str| {
        let text = unit(name)
            .replace("/usr/bin/tierlock", env!("CARGO_BIN_EXE_tierlock"))
            .replace("/etc/tierlock/jobs/%i", "/bin/true");
        fs::write(place.path(name), text).unwrap();
    };
    ["tierlock.service", "tierlock-job@.service", "tierlock-job@.timer"].into_iter().for_each(copy);
    let verified = program("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(["tierlock.service", "tierlock-job@x.service", "tierlock-job@x.timer"])
        .current_dir(place.root.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verified.stderr);
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("tierlock")).collect();
    assert!(verified.status.success() && ours.is_empty(), "{said}");
}

#[test]
fn the_command_of_the_leaders_unit_serves() {
    let place = Place::new();
    let unit = unit("tierlock.service");
    let (state, secret) = (place.path("state"), place.secret());
    let mut command = tierlock(&[]);
    for argument in arguments_of(&unit) {
        match argument {
            "${TIERLOCK_LISTEN}" => command.arg("127.0.0.1:0"),
            "/var/lib/tierlock" => command.arg(&state),
            "/etc/tierlock/secret" => command.arg(&secret),
            "$TIERLOCK_OPTIONS" => command.args(["--accept-fs", "tmpfs"]),
            plain => command.arg(plain),
        };
    }
    // Without a journal it says what is to be done, and is not started again and again.
    let refused = command.output().unwrap();
    assert_eq!(refused.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--init"), "{refused:?}");
    // A core file would hold the secret.
    for line in ["Type=notify", "WatchdogSec=10s", "LimitCORE=0", "RestartPreventExitStatus=64 78"]
    {
        assert!(unit.lines().any(|own| own == line), "no {line}: {unit}");
    }
    let mut leader = Running::start(command.arg("--init"));
    assert!(leader.line().starts_with("listening on "));
}

/// A start of the job's unit on a machine.
fn job(leader: &Leader, machine: &str) -> Command {
    let unit = unit("tierlock-job@.service");
    let mut command = tierlock(&[]);
    for argument in arguments_of(&unit) {
        match argument {
            "%H" => command.arg(machine),
            "/etc/tierlock/jobs/%i" => command.args(["echo", "done"]),
            plain => command.arg(plain.replace("%i", "nightly")),
        };
    }
    command.env("TIERLOCK_LEADERS", &leader.address).env("TIERLOCK_SECRET_FILE", &leader.secret);
    command
}

#[test]
fn of_fifty_starts_at_once_one_runs_the_job_of_the_unit() {
    let place = Place::new();
    let leader = place.leader();
    let starts = (0..50).map(|number| {
        let mut command = job(&leader, &format!("machine {number}"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    let starts: Vec<Child> = starts.collect();
    let outputs: Vec<_> =
        starts.into_iter().map(|start| start.wait_with_output().unwrap()).collect();
    let ran = outputs.iter().filter(|output| output.stdout == b"done\n");
    assert_eq!(ran.count(), 1, "{outputs:?}");
    let others = outputs.iter().filter(|output| output.status.code() == Some(75));
    assert_eq!(others.count(), 49, "{outputs:?}");
    // One more, with a clock that is behind.
    assert_eq!(job(&leader, "late").output().unwrap().status.code(), Some(75));
    assert!(unit("tierlock-job@.service").contains("SuccessExitStatus=75"));
}
