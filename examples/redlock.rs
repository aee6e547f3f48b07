//! A lock on a majority of three independent Redis servers, as Redlock's clients take it: where double work is a
//! waste and no harm, since it has no tokens.
//!
//! `cargo run --features redis --example redlock` starts three `redis-server`s of its own if
//! `TIERLOCK_SERVICE` names none.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tierlock::LockManager;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(mut servers) = Servers::find()? else { return Ok(()) };
    let open = |label: &str| LockManager::builder().service(&servers.url).label(label).open();
    let (one, other) = (open("one")?, open("other")?);

    let guard = one.mutex("thumbnails/42", ()).lock()?;
    let refused = other.mutex("thumbnails/42", ()).try_lock_for(Duration::from_millis(100));
    println!("other: {}", refused.unwrap_err());
    drop(guard);

    // One server may be away.
    servers.end_one();
    let guard = other.mutex("thumbnails/42", ()).try_lock_for(Duration::from_secs(30))?;
    println!("other: got it from those that are left");
    drop(guard);
    Ok(())
}

/// The servers to use, and their processes if they are ours.
struct Servers {
    url: String,
    children: Vec<Child>,
}

impl Servers {
    fn find() -> std::io::Result<Option<Servers>> {
        if let Some(url) = std::env::var("TIERLOCK_SERVICE").ok().filter(|url| !url.is_empty()) {
            return Ok(Some(Servers { url, children: Vec::new() }));
        }
        let (mut addresses, mut children) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            let mut command = Command::new("redis-server");
            command.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1"]);
            command.args(["--save", "", "--dir", "/tmp"]).stdout(Stdio::null());
            match command.spawn() {
                Ok(child) => children.push(child),
                Err(error) => {
                    println!("redis-server cannot be started ({error}): nothing is shown");
                    return Ok(None);
                }
            }
            addresses.push(address.to_string());
        }
        let url = format!("redlock://{}?unfenced=1", addresses.join(","));
        Ok(Some(Servers { url, children }))
    }

    fn end_one(&mut self) {
        if let Some(mut child) = self.children.pop() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        while !self.children.is_empty() {
            self.end_one();
        }
    }
}
