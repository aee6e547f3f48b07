//! Locks between machines on a PostgreSQL that runs already, and what its rows refuse by themselves.
//!
//! `cargo run --features postgres --example postgres` starts a server of its own if `TIERLOCK_SERVICE`
//! names none. Every machine of the story is a thread with a manager of its own.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tierlock::{
    LockManager, MutexGuard, Token,
    fence::{SQL_ENTER, SQL_SEEN, SQL_TABLE, Stale},
};
use tokio::net::TcpStream;
use tokio_postgres::{Client, Config, NoTls, config::Host};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let Some(server) = Server::find()? else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut stock = server.client().await?;
        stock.batch_execute(TABLES).await?;
        let (first, second) = lock_by_turns(&server)?;
        token_column(&stock, first, second).await?;
        token_gate(&mut stock, first, second).await?;
        row_lock(&server).await?;
        version_column(&stock).await?;
        stock.batch_execute(SHEDLOCK).await?;
        job_once(&server)?;
        Ok(())
    })
}

const TABLES: &str = "DROP TABLE IF EXISTS tierlock_example_stock, tierlock_fence; \
     CREATE TABLE tierlock_example_stock (id int PRIMARY KEY, left_over int8 NOT NULL, \
     token int8 NOT NULL DEFAULT 0, version int8 NOT NULL DEFAULT 0); \
     INSERT INTO tierlock_example_stock (id, left_over) VALUES (12, 100)";

/// As ShedLock's documentation makes it.
const SHEDLOCK: &str = "CREATE TABLE IF NOT EXISTS shedlock (name VARCHAR(64) PRIMARY KEY, \
     lock_until TIMESTAMP NOT NULL, locked_at TIMESTAMP NOT NULL, locked_by VARCHAR(255) NOT NULL); \
     DELETE FROM shedlock WHERE name = 'nightly'";

/// A job that the first machine runs and no other, in the table of those that use ShedLock.
fn job_once(server: &Server) -> Outcome<()> {
    let and = if server.url.contains('?') { '&' } else { '?' };
    let url = format!("shedlock+{}{and}unfenced=1", server.url);
    let runs = |label: &str| -> tierlock::Result<bool> {
        let locks = LockManager::builder().service(&url).label(label).open()?;
        let nightly = locks.mutex("nightly", ());
        let nightly = nightly.at_most(Duration::from_secs(600)).at_least(Duration::from_secs(60));
        match nightly.build()?.try_lock() {
            Ok(_guard) => Ok(true),
            Err(error) if error.is_contended() => Ok(false),
            Err(error) => Err(error),
        }
    };
    let ran = [runs("first machine")?, runs("second machine")?];
    println!("the nightly job ran on the first machine: {}, on the second: {}", ran[0], ran[1]);
    assert_eq!(ran, [true, false]);
    Ok(())
}

/// Two machines have the lock one after the other: the tokens that they got.
fn lock_by_turns(server: &Server) -> Outcome<(Token, Token)> {
    let open = |label: &str| LockManager::builder().service(&server.url).label(label).open();
    let (checkout, reports) = (open("checkout")?, open("reports")?);
    let guard = checkout.mutex("stock/12", ()).lock()?;
    let refused = reports.mutex("stock/12", ()).try_lock_for(Duration::from_millis(100));
    println!("reports: {}", refused.unwrap_err());
    let first = MutexGuard::check(&guard)?;
    MutexGuard::unlock(guard)?;
    let second = MutexGuard::check(&reports.mutex("stock/12", ()).lock()?)?;
    assert!(second > first);
    Ok((first, second))
}

/// One statement looks at the token and writes: no row is changed by a holder of earlier.
async fn token_column(stock: &Client, first: Token, second: Token) -> Outcome<()> {
    let write = "UPDATE tierlock_example_stock SET left_over = $1, token = $2 \
         WHERE id = 12 AND token <= $2";
    assert_eq!(stock.execute(write, &[&99_i64, &second.as_i64()]).await?, 1);
    // The first holder was paused all the while, and knows nothing of the second.
    assert_eq!(stock.execute(write, &[&42_i64, &first.as_i64()]).await?, 0);
    println!("a token column refused token {first}: {second} has been here");
    Ok(())
}

/// Several rows: the gate's row is locked until the transaction ends.
async fn token_gate(stock: &mut Client, first: Token, second: Token) -> Outcome<()> {
    stock.batch_execute(SQL_TABLE).await?;
    for token in [second, first] {
        let step = stock.transaction().await?;
        if step.execute(SQL_ENTER, &[&"stock/12", &token.as_i64()]).await? == 0 {
            let seen: i64 = step.query_one(SQL_SEEN, &[&"stock/12"]).await?.get(0);
            let stale = Stale::in_sql(token, seen);
            println!("a gate refused a transaction: {stale}");
            assert_eq!((stale.offered, stale.seen), (first, second));
            continue;
        }
        step.execute("UPDATE tierlock_example_stock SET left_over = left_over - 1", &[]).await?;
        step.commit().await?;
    }
    Ok(())
}

/// Where one transaction reads and writes, the row's own lock does: no token, and nothing to lose.
async fn row_lock(server: &Server) -> Outcome<()> {
    let mut clients = [server.client().await?, server.client().await?];
    let before = left_over(&clients[0]).await?;
    let sales = clients.iter_mut().map(|client| async {
        for _ in 0..20 {
            let step = client.transaction().await?;
            let row = "SELECT left_over FROM tierlock_example_stock WHERE id = 12 FOR UPDATE";
            let left: i64 = step.query_one(row, &[]).await?.get(0);
            let write = "UPDATE tierlock_example_stock SET left_over = $1 WHERE id = 12";
            step.execute(write, &[&(left - 1)]).await?;
            step.commit().await?;
        }
        Outcome::Ok(())
    });
    for sold in futures::future::join_all(sales).await {
        sold?;
    }
    assert_eq!(left_over(&clients[0]).await?, before - 40);
    println!("SELECT … FOR UPDATE lost none of 40 sales");
    Ok(())
}

/// Where the reader thinks for longer than a transaction should last, a version tells what it missed.
async fn version_column(stock: &Client) -> Outcome<()> {
    let row = "SELECT left_over, version FROM tierlock_example_stock WHERE id = 12";
    let read = stock.query_one(row, &[]).await?;
    let (left, version): (i64, i64) = (read.get(0), read.get(1));
    let write = "UPDATE tierlock_example_stock SET left_over = $1, version = version + 1 \
         WHERE id = 12 AND version = $2";
    assert_eq!(stock.execute(write, &[&(left - 1), &version]).await?, 1);
    // Whatever else was decided on by the same reading has to be decided again.
    assert_eq!(stock.execute(write, &[&(left - 2), &version]).await?, 0);
    println!("a version column refused what was decided on version {version}");
    Ok(())
}

async fn left_over(client: &Client) -> Outcome<i64> {
    let row = "SELECT left_over FROM tierlock_example_stock WHERE id = 12";
    Ok(client.query_one(row, &[]).await?.get(0))
}

/// The PostgreSQL to use, and its process and data if it is ours.
struct Server {
    url: String,
    child: Option<(Child, PathBuf)>,
}

impl Server {
    fn find() -> Outcome<Option<Server>> {
        if let Some(url) = std::env::var("TIERLOCK_SERVICE").ok().filter(|url| !url.is_empty()) {
            return Ok(Some(Server { url, child: None }));
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let data = std::env::temp_dir().join(format!("tierlock-postgres-{}", std::process::id()));
        std::fs::create_dir(&data)?;
        // It refuses to run as root.
        let is_root = std::fs::metadata("/proc/self")
            .is_ok_and(|about| std::os::unix::fs::MetadataExt::uid(&about) == 0);
        if is_root {
            std::os::unix::fs::chown(&data, Some(65534), None)?;
        }
        let run = |name: &str| {
            let mut command = match is_root {
                true => Command::new("setpriv"),
                false => Command::new(program(name)),
            };
            if is_root {
                command.args(["--reuid=nobody", "--clear-groups", "--"]).arg(program(name));
            }
            command.arg("-D").arg(data.join("data")).current_dir("/");
            command.stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let made =
            run("initdb").args(["--username=postgres", "--auth=trust", "--no-sync"]).status();
        if !made.is_ok_and(|status| status.success()) {
            println!("PostgreSQL is not installed: nothing is shown");
            std::fs::remove_dir_all(&data)?;
            return Ok(None);
        }
        let mut command = run("postgres");
        command.args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
        let child = command.args(["-c", "unix_socket_directories="]).spawn()?;
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        Ok(Some(Server { url, child: Some((child, data)) }))
    }

    /// A client of the resource's own, which need not be where the locks are.
    async fn client(&self) -> Outcome<Client> {
        let config: Config = self.url.split('?').next().unwrap_or_default().parse()?;
        let Some(Host::Tcp(host)) = config.get_hosts().first() else {
            return Err("the URL names no host".into());
        };
        let port = *config.get_ports().first().unwrap_or(&5432);
        for _ in 0..100 {
            if let Ok(stream) = TcpStream::connect((&**host, port)).await
                && let Ok((client, connection)) = config.connect_raw(stream, NoTls).await
            {
                tokio::spawn(connection);
                return Ok(client);
            }
            // It has just been started.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err("the server does not answer".into())
    }
}

/// A program of the server, which Debian has outside of the path.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|version| version.path().join("bin").join(name));
    found.filter(|path| path.exists()).max().unwrap_or_else(|| Path::new(name).to_owned())
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((child, data)) = &mut self.child {
            let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
            let _ = child.wait();
            let _ = std::fs::remove_dir_all(data);
        }
    }
}
