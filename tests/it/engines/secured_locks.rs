//! Lock services that are reached by TLS by a scheme of their own, each on its real server.

use std::{
    fs::OpenOptions,
    io::Write,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use tempfile::TempDir;
use tierlock::{LockErrorKind, LockManager, MutexGuard};

use super::{
    mysql,
    proxy::Proxy,
    rig::{ENDLESS, EngineRig, give, hold, mutex},
    test_ca::TestCa,
    zookeeper,
};
use crate::{
    setting::{LONG, Port, temp_dir, until},
    surroundings::program,
};

/// Servers that show a certificate for 127.0.0.1, and serve nothing else.
struct SecuredRig {
    kind: &'static str,
    ports: Vec<u16>,
    files: TempDir,
    children: Vec<Child>,
}

/// Where ZooKeeper's locks are.
const CHROOT: &str = "locks";

impl SecuredRig {
    fn start(kind: &'static str) -> Option<SecuredRig> {
        let server = match kind {
            "redis" | "redlock" => "redis",
            "mysql" | "shedlock+mysql" => "mysql",
            other => other,
        };
        if !EngineRig::is_installed(kind, server) {
            return None;
        }
        let files = temp_dir();
        let (ca, other) = (TestCa::new(), TestCa::new());
        let [certificate, key] = ca.certify("127.0.0.1");
        let together = format!("{key}{certificate}");
        for (name, text) in [
            ("ca", ca.own()),
            ("other-ca", other.own()),
            ("certificate", &certificate),
            ("key", &key),
            ("both.pem", &together),
        ] {
            std::fs::write(files.path().join(name), text).unwrap();
        }
        let mut rig = SecuredRig { kind, ports: Vec::new(), files, children: Vec::new() };
        for number in 0..if kind == "redlock" { 3 } else { 1 } {
            let folder = rig.path(&format!("server{number}"));
            std::fs::create_dir(&folder).unwrap();
            let port = Port::claim().address().port();
            match server {
                "redis" => rig.start_redis(&folder, port),
                "mysql" => rig.start_mysql(&folder, port),
                _ => rig.start_zookeeper(&folder, port),
            }
            rig.ports.push(port);
        }
        Some(rig)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn spawn(&mut self, mut server: Command) {
        let child = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.children.push(child);
    }

    fn start_redis(&mut self, folder: &Path, port: u16) {
        let mut server = program("redis-server");
        server.args(["--port", "0", "--tls-port", &port.to_string(), "--bind", "127.0.0.1"]);
        server.args(["--save", "", "--tls-auth-clients", "no", "--dir"]).arg(folder);
        server.arg("--tls-cert-file").arg(self.path("certificate"));
        server.arg("--tls-key-file").arg(self.path("key"));
        server.arg("--tls-ca-cert-file").arg(self.path("ca"));
        self.spawn(server);
        until("an answer of Redis", || self.redis_cli(port, &["PING"]) == "PONG\n");
    }

    fn redis_cli(&self, port: u16, arguments: &[&str]) -> String {
        let mut command = program("redis-cli");
        command.args(["-p", &port.to_string(), "--tls", "--cacert"]).arg(self.path("ca"));
        String::from_utf8(command.args(arguments).output().unwrap().stdout).unwrap()
    }

    fn start_mysql(&mut self, folder: &Path, port: u16) {
        mysql::set_up(folder);
        let mut server = mysql::server(folder, &port.to_string());
        for (option, name) in [("ssl-cert", "certificate"), ("ssl-key", "key"), ("ssl-ca", "ca")] {
            server.arg(format!("--{option}={}", self.path(name).display()));
        }
        server.arg("--require-secure-transport=ON");
        self.spawn(server);
        until("an answer of MariaDB", || self.is_mysql_told(port, "SELECT 1"));
        let table = "CREATE TABLE shedlock (name VARCHAR(64) NOT NULL, lock_until TIMESTAMP(3) NOT \
             NULL, locked_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3), locked_by \
             VARCHAR(255) NOT NULL, PRIMARY KEY (name))";
        assert!(self.is_mysql_told(port, table));
    }

    fn is_mysql_told(&self, port: u16, sql: &str) -> bool {
        let mut command = program("mysql");
        command.args(["--no-defaults", "-h127.0.0.1", "-uroot", "-Dtest"]);
        command.arg(format!("-P{port}")).arg(format!("--ssl-ca={}", self.path("ca").display()));
        command.args(["-e", sql]).output().unwrap().status.success()
    }

    /// It listens at another port without TLS, for what prepares it.
    fn start_zookeeper(&mut self, folder: &Path, port: u16) {
        let plain = Port::claim().address().port();
        let server = zookeeper::server(folder, &plain.to_string());
        let mut settings = OpenOptions::new().append(true).open(folder.join("zoo.cfg")).unwrap();
        let both = self.path("both.pem");
        write!(
            settings,
            "secureClientPort={port}\nsecureClientPortAddress=127.0.0.1\nssl.clientAuth=none\n\
             serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n\
             ssl.keyStore.location={0}\nssl.keyStore.type=PEM\n\
             ssl.trustStore.location={0}\nssl.trustStore.type=PEM\n",
            both.display(),
        )
        .unwrap();
        self.spawn(server);
        until("an answer of ZooKeeper", || zookeeper::answers(plain));
        until("its port for TLS", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        zookeeper::make_chroot(plain, CHROOT);
    }

    fn url(&self, host: &str, ca: &str) -> String {
        self.url_at(host, self.ports.iter().copied(), ca)
    }

    fn url_at(&self, host: &str, ports: impl Iterator<Item = u16>, ca: &str) -> String {
        let addresses: Vec<String> = ports.map(|port| format!("{host}:{port}")).collect();
        let addresses = addresses.join(",");
        let ca = self.path(ca);
        let (login, rest) = match self.kind {
            "redlock" => ("", "?unfenced=1&"),
            "mysql" => ("root@", "/test?"),
            "shedlock+mysql" => ("root@", "/test?unfenced=1&"),
            "zookeeper" => ("", "/locks?"),
            _ => ("", "?"),
        };
        format!("{}s://{login}{addresses}{rest}ca={}", self.kind, ca.display())
    }

    fn locks(&self, host: &str, ca: &str) -> LockManager {
        open(self.url(host, ca), LONG)
    }
}

fn open(url: String, patience: Duration) -> LockManager {
    let builder = LockManager::builder().service(url).time_to_live(ENDLESS);
    builder.connect_timeout(patience).open().unwrap()
}

impl Drop for SecuredRig {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Makes one test for each engine out of a situation.
macro_rules! by_tls {
    ($($situation:ident)*) => {
        $(
            mod $situation {
                use super::SecuredRig;

                #[test]
                fn redis() {
                    SecuredRig::start("redis").iter().for_each(super::$situation);
                }

                #[test]
                fn redlock() {
                    SecuredRig::start("redlock").iter().for_each(super::$situation);
                }

                #[test]
                fn mysql() {
                    SecuredRig::start("mysql").iter().for_each(super::$situation);
                }

                #[test]
                fn zookeeper() {
                    SecuredRig::start("zookeeper").iter().for_each(super::$situation);
                }
            }
        )*
    };
}
by_tls!(a_lock_is_taken_and_given a_server_that_is_another_one_is_refused_in_words a_cut_connection_is_made_anew);

fn a_lock_is_taken_and_given(rig: &SecuredRig) {
    let (locks, others) = (rig.locks("127.0.0.1", "ca"), rig.locks("127.0.0.1", "ca"));
    let held = hold(&locks, "a");
    MutexGuard::check(&held).unwrap();
    assert!(mutex(&others, "a").try_lock().unwrap_err().is_contended());
    // A wait that is given up is cancelled by a connection of its own, where it is.
    assert!(mutex(&others, "a").try_lock_for(Duration::from_millis(50)).is_err());
    thread::scope(|scope| {
        let waiter = scope.spawn(|| hold(&others, "a"));
        if rig.kind == "redis" {
            let is_heard = || rig.redis_cli(rig.ports[0], &["PUBSUB", "CHANNELS"]).contains(":{a}");
            until("a waiter that listens", is_heard);
        }
        give(held);
        give(waiter.join().unwrap());
    });
    give(hold(&locks, "a"));
}

fn a_server_that_is_another_one_is_refused_in_words(rig: &SecuredRig) {
    for (host, ca, words) in [
        ("127.0.0.1", "other-ca", "is not signed by a CA that is trusted here"),
        ("localhost", "ca", "is for another name than the URL has"),
    ] {
        let error = mutex(&rig.locks(host, ca), "a").try_lock().unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Refused, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

fn a_cut_connection_is_made_anew(rig: &SecuredRig) {
    let proxies: Vec<Proxy> = rig.ports.iter().map(|port| Proxy::start(*port)).collect();
    let url = rig.url_at("127.0.0.1", proxies.iter().map(Proxy::port), "ca");
    let (locks, others) = (open(url, LONG), rig.locks("127.0.0.1", "ca"));
    let held = hold(&locks, "a");
    proxies.iter().for_each(Proxy::cut);
    give(hold(&locks, "b"));
    // A lock of a database ends with its connection, and the others outlive theirs.
    if rig.kind != "mysql" {
        assert!(mutex(&others, "a").try_lock().unwrap_err().is_contended());
        MutexGuard::check(&held).unwrap();
        give(held);
    }
    give(hold(&others, "a"));
}

#[test]
fn shedlock_takes_a_row_by_tls() {
    let Some(rig) = SecuredRig::start("shedlock+mysql") else { return };
    let (locks, others) = (rig.locks("127.0.0.1", "ca"), rig.locks("127.0.0.1", "ca"));
    let of = |locks: &LockManager| locks.mutex("a", ()).at_most(LONG).build().unwrap();
    let (mutex, other) = (of(&locks), of(&others));
    let held = mutex.try_lock().unwrap();
    assert!(other.try_lock().unwrap_err().is_contended());
    give(held);
    give(other.try_lock().unwrap());
}

/// Nothing is taken there without TLS in its place.
#[test]
fn a_server_without_tls_is_told_from_one_with_it() {
    let files = temp_dir();
    let ca = files.path().join("ca");
    std::fs::write(&ca, TestCa::new().own()).unwrap();
    let rigs =
        [EngineRig::redis(), EngineRig::redlock(), EngineRig::mysql(), EngineRig::zookeeper()];
    for rig in rigs.iter().flatten() {
        let plain = rig.url();
        let (secured, mark) =
            (plain.replacen("://", "s://", 1), if plain.contains('?') { '&' } else { '?' });
        let locks = open(format!("{secured}{mark}ca={}", ca.display()), Duration::from_secs(6));
        let error = mutex(&locks, "a").try_lock().unwrap_err();
        let expected = [LockErrorKind::Refused, LockErrorKind::Unreachable];
        assert!(expected.contains(&error.kind()), "{} {error:?}", rig.kind);
        assert!(error.to_string().contains("it does not speak TLS there"), "{} {error}", rig.kind);
    }
}

/// One that asks each client for a certificate says so, and not that it is down.
#[test]
fn a_redis_that_wants_certificates_of_its_clients_is_told() {
    let Some(rig) = SecuredRig::start("redis") else { return };
    rig.redis_cli(rig.ports[0], &["CONFIG", "SET", "tls-auth-clients", "yes"]);
    let error = mutex(&rig.locks("127.0.0.1", "ca"), "a").try_lock().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("a certificate of each client's own"), "{error}");
}

#[test]
fn what_a_url_says_of_tls_is_read_when_a_manager_is_opened() {
    let files = temp_dir();
    let missing = files.path().join("missing");
    for scheme in ["redis", "mysql", "zookeeper", "shedlock+mysql"] {
        let refused = |url: String| {
            let error = LockManager::builder().service(url).open().unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Config, "{error}");
            error.to_string()
        };
        let said = refused(format!("{scheme}s://h/d?ca={}", missing.display()));
        assert!(said.contains("No such file"), "{said}");
        let said = refused(format!("{scheme}://h/d?ca={}", missing.display()));
        assert!(said.contains(&format!("write {scheme}s://…")), "{said}");
        let said = refused(format!("{scheme}s://h/d?sslmode=verify-full"));
        assert!(said.contains(&format!("by TLS it is {scheme}s://…")), "{said}");
    }
}
