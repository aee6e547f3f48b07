//! Several machines take turns by a ZooKeeper that runs already, in the queue of Curator's clients.
//!
//! `cargo run --features zookeeper --example zookeeper` starts a server of its own, as Debian installs
//! it, if `TIERLOCK_SERVICE` names none.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use tierlock::{LockManager, MutexGuard, Token};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(server) = Server::find()? else { return Ok(()) };
    // Each thread stands for a machine: it has a manager of its own.
    let machine = |number: u32| -> tierlock::Result<Token> {
        let label = format!("machine {number}");
        let locks = LockManager::builder().service(&server.url).label(label).open()?;
        let guard = locks.mutex("deploy", ()).lock()?;
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

/// The server to use, and its process and data if it is ours.
struct Server {
    url: String,
    child: Option<(Child, std::path::PathBuf)>,
}

impl Server {
    fn find() -> std::io::Result<Option<Server>> {
        if let Some(url) = std::env::var("TIERLOCK_SERVICE").ok().filter(|url| !url.is_empty()) {
            return Ok(Some(Server { url, child: None }));
        }
        let jars = "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-nop.jar";
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let folder =
            std::env::temp_dir().join(format!("tierlock-zookeeper-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let settings = format!(
            "tickTime=2000\ndataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\n\
             admin.enableServer=false\n",
            folder.join("data").display(),
            address.port()
        );
        let file = folder.join("zoo.cfg");
        std::fs::write(&file, settings)?;
        let mut command = Command::new("java");
        command.args(["-cp", jars, "org.apache.zookeeper.server.quorum.QuorumPeerMain"]);
        let spawned = command.arg(file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let Ok(mut child) = spawned else {
            println!("there is no Java: nothing is shown");
            std::fs::remove_dir_all(&folder)?;
            return Ok(None);
        };
        while child.try_wait()?.is_none() {
            if is_serving(address) {
                let url = format!("zookeeper://{address}");
                return Ok(Some(Server { url, child: Some((child, folder)) }));
            }
            thread::sleep(Duration::from_millis(50));
        }
        println!("ZooKeeper is not installed: nothing is shown");
        std::fs::remove_dir_all(&folder)?;
        Ok(None)
    }
}

fn is_serving(address: std::net::SocketAddr) -> bool {
    let ask = || {
        let mut line = TcpStream::connect(address)?;
        line.set_read_timeout(Some(Duration::from_secs(1)))?;
        line.write_all(b"srvr")?;
        let mut told = String::new();
        line.read_to_string(&mut told)?;
        std::io::Result::Ok(told)
    };
    ask().is_ok_and(|told| told.contains("Mode:"))
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
