//! Machines take turns by a MySQL or MariaDB that runs already: no leader of ours.
//!
//! `cargo run --features mysql --example mysql` starts a `mariadbd` of its own if `TIERLOCK_SERVICE` names
//! none.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
};

use tierlock::{LockManager, MutexGuard, fence::Gate};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(server) = Server::find()? else { return Ok(()) };
    // What the lock protects refuses a token that is smaller than one it has seen.
    let ledger = Gate::new(Vec::new());
    // Each thread stands for a machine: it has a manager of its own.
    let machine = |number: u32| -> tierlock::Result<()> {
        let label = format!("machine {number}");
        let locks = LockManager::builder().service(&server.url).label(label).open()?;
        let guard = locks.mutex("ledger/eu", ()).lock()?;
        let token = MutexGuard::check(&guard)?;
        ledger.enter(token)?.push(token);
        println!("machine {number} wrote with token {token}");
        Ok(())
    };
    thread::scope(|scope| {
        let machines = [1, 2, 3].map(|number| scope.spawn(move || machine(number)));
        machines.into_iter().try_for_each(|machine| machine.join().expect("it does not panic"))
    })?;
    let written = ledger.into_inner();
    assert!(written.len() == 3 && written.is_sorted());
    Ok(())
}

/// The server to use, and its process and data if it is ours.
struct Server {
    url: String,
    child: Option<(Child, PathBuf)>,
}

impl Server {
    fn find() -> std::io::Result<Option<Server>> {
        if let Some(url) = std::env::var("TIERLOCK_SERVICE").ok().filter(|url| !url.is_empty()) {
            return Ok(Some(Server { url, child: None }));
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let folder = std::env::temp_dir().join(format!("tierlock-mysql-{}", std::process::id()));
        std::fs::create_dir(&folder)?;
        let run = |program: &str| {
            let mut command = Command::new(program);
            command.args(["--no-defaults", "--user=root", "--innodb-log-file-size=8M"]);
            command.arg(format!("--datadir={}", folder.join("data").display()));
            command.arg(format!("--tmpdir={}", folder.display()));
            command.stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let made =
            run("mariadb-install-db").arg("--auth-root-authentication-method=normal").status();
        if !made.is_ok_and(|status| status.success()) {
            println!("MariaDB is not installed: nothing is shown");
            std::fs::remove_dir_all(&folder)?;
            return Ok(None);
        }
        let mut command = run("mariadbd");
        command.arg(format!("--port={port}")).arg("--bind-address=127.0.0.1");
        command.arg(format!("--socket={}", folder.join("socket").display()));
        let child = command.arg(format!("--pid-file={}", folder.join("pid").display())).spawn()?;
        let url = format!("mysql://root@127.0.0.1:{port}/test");
        Ok(Some(Server { url, child: Some((child, folder)) }))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((child, folder)) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}
