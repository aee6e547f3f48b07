//! A lock between machines on a Redis that runs already: no leader of ours.
//!
//! `cargo run --features redis --example redis` starts a `redis-server` of its own if `TIERLOCK_SERVICE`
//! names none.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tierlock::{LockManager, MutexGuard, fence::Gate};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(server) = Server::find()? else { return Ok(()) };
    let open = |label: &str| LockManager::builder().service(&server.url).label(label).open();
    let (checkout, reports) = (open("checkout")?, open("reports")?);

    // What the lock protects refuses a token that is smaller than one it has seen.
    let ledger = Gate::new(Vec::new());
    let guard = checkout.mutex("ledger/eu", ()).lock()?;
    ledger.enter(MutexGuard::check(&guard)?)?.push("paid");

    let refused = reports.mutex("ledger/eu", ()).try_lock_for(Duration::from_millis(100));
    println!("reports: {}", refused.unwrap_err());
    MutexGuard::unlock(guard)?;

    let guard = reports.mutex("ledger/eu", ()).lock()?;
    ledger.enter(MutexGuard::check(&guard)?)?.push("counted");
    println!("reports: got it with token {}", MutexGuard::token(&guard));
    drop(guard);
    assert_eq!(ledger.into_inner(), ["paid", "counted"]);
    Ok(())
}

/// The Redis to use, and its process if it is ours.
struct Server {
    url: String,
    child: Option<Child>,
}

impl Server {
    fn find() -> std::io::Result<Option<Server>> {
        if let Some(url) = std::env::var("TIERLOCK_SERVICE").ok().filter(|url| !url.is_empty()) {
            return Ok(Some(Server { url, child: None }));
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir", "/tmp"]);
        match command.stdout(Stdio::null()).spawn() {
            Ok(child) => {
                let url = format!("redis://127.0.0.1:{port}");
                Ok(Some(Server { url, child: Some(child) }))
            }
            Err(error) => {
                println!("redis-server cannot be started ({error}): nothing is shown");
                Ok(None)
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
