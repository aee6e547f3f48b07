//! A service of which one runs at a time, on whichever machine, and clients that find it: each candidate
//! campaigns with its address, and observers are told the one that leads.
//!
//! In a script, the same: `tierlock elect service --value "$(hostname):8080" -- ./serve`, and
//! `tierlock elect service --observe` for its clients.
//!
//! Run it: `cargo run --example singleton_service`

use std::{error::Error, fs, io::Write, net::TcpListener, ops::ControlFlow, thread};

use tierlock::{Leader, LockManager, Secret, Token};

/// So often another instance takes over.
const TERMS: usize = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let files = std::env::temp_dir().join(format!("tierlock-service-{}", std::process::id()));
    fs::create_dir(&files)?;
    let secret = files.join("secret");
    Secret::create(&secret)?;
    // Of its own here; `tierlock serve` elsewhere.
    let leader = Leader::builder()
        .listen("127.0.0.1:0")
        .state_dir(files.join("state"))
        .init(true)
        .accept_file_system("tmpfs")
        .secret_file(&secret)
        .start()?;
    let address = leader.local_addr().to_string();
    // One for each machine.
    let machine = |label: &str| {
        let builder = LockManager::builder().leaders([address.clone()]).secret_file(&secret);
        builder.label(label).open()
    };

    let mut finder = machine("client")?.election("service").build()?.observe()?;
    assert_eq!(finder.next()?, None); // it is told all that comes from here on
    let candidates = ["machine 1", "machine 2", "machine 3"].map(machine);
    let seen = thread::scope(|scope| {
        for locks in candidates {
            scope.spawn(move || serve(&locks?));
        }
        // The client knows where the service is, and which of two answers is the newer one.
        let mut newest = Token::ZERO;
        let mut seen = Vec::new();
        while seen.len() < 3 * TERMS {
            let Some(leader) = finder.next()? else { continue };
            assert!(leader.token() > newest, "a leader that is told follows on all before");
            newest = leader.token();
            seen.push(leader.value_text().into_owned());
        }
        Ok::<_, tierlock::LockError>(seen)
    })?;
    println!(
        "{} terms; the first ran at {}, the last at {}",
        seen.len(),
        seen[0],
        seen[seen.len() - 1]
    );
    leader.shutdown();
    fs::remove_dir_all(files)?;
    Ok(())
}

/// An instance of the service: runs whenever it is elected, and campaigns again by itself.
fn serve(locks: &LockManager) -> tierlock::Result<()> {
    // Open before it stands: what it campaigns with is true from its first moment.
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let own = socket.local_addr().expect("it is bound").to_string();
    let mut terms = 0;
    locks.election("service").build()?.lead(&own, |leadership| {
        terms += 1;
        // A real one would serve here until `leadership.ended()`, and show `leadership.check()?` to
        // whatever it writes to.
        writeln!(std::io::sink(), "serving under {}", leadership.token()).expect("a sink");
        match terms {
            TERMS => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    })
}
