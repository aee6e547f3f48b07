//! Stores that are reached by TLS: as lock services, and as journals.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use tierlock::{LockErrorKind, LockManager, MutexGuard};

use super::{
    postgres,
    rig::{ENDLESS, EngineRig, give, hold, mutex},
    test_ca::TestCa,
};
use crate::{
    setting::{LONG, Port, new_secret, temp_dir, until},
    surroundings::program,
};

/// A server that shows a certificate for 127.0.0.1.
struct SecuredStore {
    kind: &'static str,
    port: u16,
    files: TempDir,
    child: Child,
}

impl SecuredStore {
    fn start(kind: &'static str) -> Option<SecuredStore> {
        // A rig says whether the server is there.
        match kind {
            "etcd" => drop(EngineRig::etcd()?),
            _ => drop(EngineRig::postgres()?),
        }
        let files = temp_dir();
        let folder = files.path().join("server");
        std::fs::create_dir(&folder).unwrap();
        let (ca, other) = (TestCa::new(), TestCa::new());
        let [certificate, key] = ca.certify("127.0.0.1");
        for (name, text) in [("ca", ca.own()), ("other-ca", other.own())] {
            std::fs::write(files.path().join(name), text).unwrap();
        }
        let port = Port::claim().address().port();
        let mut server = match kind {
            "etcd" => etcd(&folder, port, &[&certificate, &key]),
            _ => postgres(&folder, port, &[&certificate, &key]),
        };
        let child = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let store = SecuredStore { kind, port, files, child };
        until("an answer of the server", || match kind {
            "etcd" => {
                store.etcdctl().args(["endpoint", "health"]).output().unwrap().status.success()
            }
            _ => postgres::answers(port),
        });
        Some(store)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn etcdctl(&self) -> Command {
        let mut command = program("etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints=https://127.0.0.1:{}", self.port));
        command.arg("--cacert").arg(self.path("ca"));
        command
    }

    fn url(&self, host: &str, ca: &str) -> String {
        let (port, ca) = (self.port, self.path(ca));
        match self.kind {
            "etcd" => format!("etcds://{host}:{port}?ca={}", ca.display()),
            _ => format!(
                "postgres://postgres@{host}:{port}/postgres?sslmode=verify-full&ca={}",
                ca.display()
            ),
        }
    }

    fn locks(&self, host: &str, ca: &str) -> LockManager {
        let builder = LockManager::builder().service(self.url(host, ca));
        builder.time_to_live(ENDLESS).connect_timeout(LONG).open().unwrap()
    }

    /// `tierlock serve` on a journal there.
    fn serve(&self, url: &str) -> Command {
        let secret = self.path("secret");
        if !secret.exists() {
            new_secret(&secret);
        }
        let mut command = program(env!("CARGO_BIN_EXE_tierlock"));
        command.args(["serve", "--init", "--listen", "127.0.0.1:0", "--journal", url]);
        command.arg("--secret-file").arg(secret).stdin(Stdio::null());
        command
    }
}

impl Drop for SecuredStore {
    fn drop(&mut self) {
        for pid in postgres::children(self.child.id()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn etcd(folder: &Path, port: u16, [certificate, key]: &[&str; 2]) -> Command {
    std::fs::write(folder.join("certificate"), certificate).unwrap();
    std::fs::write(folder.join("key"), key).unwrap();
    let client = format!("https://127.0.0.1:{port}");
    let peer = format!("http://127.0.0.1:{}", Port::claim().address().port());
    let mut command = program("etcd");
    command
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--name", "one", "--initial-cluster", &format!("one={peer}"), "--data-dir"])
        .arg(folder.join("data"))
        .arg("--cert-file")
        .arg(folder.join("certificate"))
        .arg("--key-file")
        .arg(folder.join("key"));
    command
}

fn postgres(folder: &Path, port: u16, [certificate, key]: &[&str; 2]) -> Command {
    use std::os::unix::fs::{PermissionsExt, chown, lchown};
    postgres::set_up(folder);
    let is_root = rustix::process::geteuid().is_root();
    for (name, text) in [("certificate", certificate), ("key", key)] {
        let file = folder.join(name);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        if is_root {
            chown(&file, Some(65534), None).unwrap();
        }
    }
    // Nothing but TLS is let in, from the address that shows whether the server answers at all.
    let rules = "hostssl all all 127.0.0.1/32 trust\n";
    let file = folder.join("data/pg_hba.conf");
    std::fs::write(&file, rules).unwrap();
    if is_root {
        lchown(&file, Some(65534), None).unwrap();
    }
    let mut command = postgres::server(folder);
    command.args(["-p", &port.to_string(), "-c", "ssl=on"]);
    for (setting, name) in [("ssl_cert_file", "certificate"), ("ssl_key_file", "key")] {
        command.arg("-c").arg(format!("{setting}={}", folder.join(name).display()));
    }
    command
}

const KINDS: [&str; 2] = ["etcd", "postgres"];

#[test]
fn a_lock_service_is_reached_by_tls() {
    for store in KINDS.into_iter().filter_map(SecuredStore::start) {
        let locks = store.locks("127.0.0.1", "ca");
        let (held, others) = (hold(&locks, "a"), store.locks("127.0.0.1", "ca"));
        MutexGuard::check(&held).unwrap();
        assert!(mutex(&others, "a").try_lock().unwrap_err().is_contended(), "{}", store.kind);
        // One that waits is cancelled by a connection of its own, where it is.
        assert!(mutex(&others, "a").try_lock_for(std::time::Duration::from_millis(50)).is_err());
        give(held);
        give(hold(&others, "a"));
    }
}

#[test]
fn a_lock_service_with_another_certificate_is_refused_in_words() {
    for store in KINDS.into_iter().filter_map(SecuredStore::start) {
        for (host, ca, words) in [
            ("127.0.0.1", "other-ca", "is not signed by a CA that is trusted here"),
            ("localhost", "ca", "is for another name than the URL has"),
        ] {
            let error = mutex(&store.locks(host, ca), "a").try_lock().unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Refused, "{} {error}", store.kind);
            assert!(error.to_string().contains(words), "{} {error}", store.kind);
        }
    }
}

/// One with a bad certificate is no more than down.
#[test]
fn an_etcd_of_which_one_address_has_another_certificate_is_reached_by_the_others() {
    let Some(store) = SecuredStore::start("etcd") else { return };
    let hosts = [
        format!("localhost:{0},127.0.0.1", store.port),
        format!("127.0.0.1:{0},localhost", store.port),
    ];
    for hosts in &hosts {
        for number in 0..5 {
            // Which address is asked first is chosen at random.
            let locks = store.locks(hosts, "ca");
            give(hold(&locks, &format!("a {number}")));
        }
    }
    let leader = super::journal::Served::start(store.serve(&store.url(&hosts[0], "ca")));
    leader.says("it reigns from now on");
    // All of them have said it.
    for (hosts, ca) in [(&hosts[0], "other-ca"), (&hosts[1], "other-ca")] {
        let error = mutex(&store.locks(hosts, ca), "a").try_lock().unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Refused, "{error}");
        let output = store.serve(&store.url(hosts, ca)).output().unwrap();
        assert_eq!(output.status.code(), Some(77), "{output:?}");
    }
}

#[test]
fn a_journal_is_reached_by_tls_and_one_with_another_certificate_is_refused_in_words() {
    for store in KINDS.into_iter().filter_map(SecuredStore::start) {
        for (host, ca, words) in [
            ("127.0.0.1", "other-ca", "is not signed by a CA that is trusted here"),
            ("localhost", "ca", "is for another name than the URL has"),
        ] {
            let output = store.serve(&store.url(host, ca)).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(77) && said.contains(words), "{said}");
        }
        let leader = super::journal::Served::start(store.serve(&store.url("127.0.0.1", "ca")));
        let address = leader.address();
        leader.says("it reigns from now on");
        let builder = LockManager::builder().leaders([address]).secret_file(store.path("secret"));
        let locks = builder.time_to_live(ENDLESS).connect_timeout(LONG).open().unwrap();
        give(hold(&locks, "a"));
    }
}

#[test]
fn a_ca_file_that_is_none_is_told() {
    let files = temp_dir();
    std::fs::write(files.path().join("empty"), "no certificate").unwrap();
    for (name, words) in [("missing", "No such file"), ("empty", "it has no certificate")] {
        let file = files.path().join(name);
        for url in [
            format!("etcds://h?ca={}", file.display()),
            format!("postgres://u@h/d?sslmode=verify-full&ca={}", file.display()),
        ] {
            let error = LockManager::builder().service(url).open().unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Config);
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
