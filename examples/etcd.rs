//! Several machines take turns by an etcd that runs already: no leader of ours.
//!
//! `cargo run --features etcd --example etcd` starts an `etcd` of its own if `TIERLOCK_SERVICE` names
//! none.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread,
};

use tierlock::{LockManager, MutexGuard, Token};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(server) = Server::find()? else { return Ok(()) };
    // Each thread stands for a machine: it has a manager of its own.
    let machine = |number: u32| -> tierlock::Result<Token> {
        let label = format!("machine {number}");
        let locks = LockManager::builder().service(&server.url).label(label).open()?;
        let guard = locks.mutex("deploy/eu", ()).lock()?;
        println!("machine {number} deploys with token {}", MutexGuard::token(&guard));
        MutexGuard::check(&guard)
    };
    let tokens = thread::scope(|scope| {
        let machines = [1, 2, 3].map(|number| scope.spawn(move || machine(number)));
        machines.map(|machine| machine.join().expect("it does not panic"))
    });
    let mut tokens = tokens.into_iter().collect::<tierlock::Result<Vec<_>>>()?;
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 3, "every grant has a token of its own");
    Ok(())
}

/// The etcd to use, and its process and data if it is ours.
struct Server {
    url: String,
    child: Option<(Child, std::path::PathBuf)>,
}

impl Server {
    fn find() -> std::io::Result<Option<Server>> {
        if let Some(url) = std::env::var("TIERLOCK_SERVICE").ok().filter(|url| !url.is_empty()) {
            return Ok(Some(Server { url, child: None }));
        }
        let port = || TcpListener::bind("127.0.0.1:0")?.local_addr();
        let (client, peer) = (port()?, port()?);
        let data = std::env::temp_dir().join(format!("tierlock-etcd-{}", std::process::id()));
        let (client_url, peer_url) = (format!("http://{client}"), format!("http://{peer}"));
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(&data).args(["--name", "one"]);
        command.args(["--listen-client-urls", &client_url]);
        command.args(["--advertise-client-urls", &client_url, "--listen-peer-urls", &peer_url]);
        command.args(["--initial-advertise-peer-urls", &peer_url]);
        command.args(["--initial-cluster", &format!("one={peer_url}")]);
        match command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(child) => {
                let url = format!("etcd://{client}?prefix=/locks/");
                Ok(Some(Server { url, child: Some((child, data)) }))
            }
            Err(error) => {
                println!("etcd cannot be started ({error}): nothing is shown");
                Ok(None)
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((child, data)) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
            let _ = std::fs::remove_dir_all(data);
        }
    }
}
