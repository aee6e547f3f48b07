//! What a lock over the network costs, measured on the loopback. Nothing is asserted.
//!
//! `cargo test --release --no-default-features --features host,testing --lib speed -- --ignored
//! --nocapture --test-threads=1`

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    client::link::Link,
    leased::ask,
    net::tls::Dialect,
    tests::{Town, close, give, take, want},
};

fn report(what: &str, mut waits: Vec<Duration>) {
    waits.sort_unstable();
    let at = |part: f64| waits[((waits.len() - 1) as f64 * part) as usize].as_nanos() as f64 / 1e3;
    println!(
        "{what:<44} p50 {:8.1} µs   p90 {:8.1}   p99 {:8.1}   max {:9.1}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}

fn rate(what: &str, cycles: u64, time: Duration) {
    println!("{what:<44} {:10.0} cycles/s", cycles as f64 / time.as_secs_f64());
}

/// Acquires, the release sent and not awaited.
fn cycles(link: &Arc<Link>, name: &str, count: usize) -> Vec<Duration> {
    let mut waits = Vec::with_capacity(count);
    for _ in 0..count {
        let begin = Instant::now();
        let lease = take(link, name);
        give(link, lease);
        waits.push(begin.elapsed());
    }
    waits
}

async fn cycles_async(link: Arc<Link>, name: String, count: usize) -> Vec<Duration> {
    let mut waits = Vec::with_capacity(count);
    for _ in 0..count {
        let begin = Instant::now();
        let lease = ask(&link, want(&name)).await.unwrap();
        give(&link, lease);
        waits.push(begin.elapsed());
    }
    waits
}

const QUIET: usize = 20_000;

fn two_workers() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

#[test]
#[ignore = "measures"]
fn speed_quiet() {
    let town = Town::new();
    let leader = town.leader();
    for _ in 0..3 {
        let link = town.link(&leader);
        cycles(&link, "warm", 2000);
        report("quiet, blocking", cycles(&link, "quiet", QUIET));
        #[cfg(feature = "tokio")]
        {
            let multi = two_workers();
            let link = town.link_on(&leader, &multi);
            let cycles = |count| {
                let task = multi.spawn(cycles_async(link.clone(), "quiet".into(), count));
                multi.block_on(task).unwrap()
            };
            cycles(2000);
            report("quiet, async, runtime lent", cycles(QUIET));
            close(&link);
        }
        let single = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let waits = single.block_on(cycles_async(link.clone(), "quiet".into(), QUIET));
        report("quiet, async, current thread", waits);
        let multi = two_workers();
        let waits = multi.block_on(async {
            tokio::spawn(cycles_async(link.clone(), "quiet".into(), QUIET)).await.unwrap()
        });
        report("quiet, async, multi-threaded", waits);
        close(&link);
    }
}

/// The floor: one round trip of a few bytes over quinn, one runtime thread on each side.
#[test]
#[ignore = "measures"]
fn speed_quinn_echo() {
    let town = Town::new();
    let secret = super::Secret::read(town.path("key")).unwrap();
    let (sender, address) = std::sync::mpsc::channel();
    let server = quinn::ServerConfig::with_crypto(secret.server(&[Dialect::Locks]));
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let at = "127.0.0.1:0".parse().unwrap();
            let endpoint = quinn::Endpoint::server(server, at).unwrap();
            sender.send(endpoint.local_addr().unwrap()).unwrap();
            let connection = endpoint.accept().await.unwrap().await.unwrap();
            let (mut out, mut stream) = connection.accept_bi().await.unwrap();
            let mut buffer = [0; 1024];
            while let Ok(Some(count)) = stream.read(&mut buffer).await {
                out.write_all(&buffer[..count]).await.unwrap();
            }
        });
    });
    let address = address.recv().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(secret.client()));
        let connection = endpoint.connect(address, "tierlock").unwrap().await.unwrap();
        let (mut out, mut stream) = connection.open_bi().await.unwrap();
        for round in 0..3 {
            let mut waits = Vec::with_capacity(QUIET);
            for _ in 0..QUIET {
                let begin = Instant::now();
                out.write_all(&[1; 40]).await.unwrap();
                stream.read_exact(&mut [0; 40]).await.unwrap();
                waits.push(begin.elapsed());
            }
            report(&format!("quinn echo, one round trip ({round})"), waits);
        }
    });
}

#[test]
#[ignore = "measures"]
fn speed_crowds() {
    let town = Town::new();
    let leader = town.leader();
    let multi = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let single = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for (flavour, runtime) in [("multi", &multi), ("single", &single)] {
        let links: Vec<_> = (0..32).map(|_| town.link(&leader)).collect();
        links.iter().for_each(|link| drop(cycles(link, "warm", 10)));
        let begin = Instant::now();
        let total: usize = runtime.block_on(async {
            let tasks: Vec<_> = links
                .iter()
                .enumerate()
                .map(|(n, link)| tokio::spawn(cycles_async(link.clone(), format!("n{n}"), 3000)))
                .collect();
            let mut total = 0;
            for task in tasks {
                total += task.await.unwrap().len();
            }
            total
        });
        rate(&format!("32 connections, own names, async {flavour}"), total as u64, begin.elapsed());

        let link = town.link(&leader);
        cycles(&link, "warm", 1000);
        for tasks in [1, 32, 256] {
            let begin = Instant::now();
            let total: usize = runtime.block_on(async {
                let tasks: Vec<_> = (0..tasks)
                    .map(|n| {
                        let count = (400_000 / tasks).min(20_000);
                        tokio::spawn(cycles_async(link.clone(), format!("n{n}"), count))
                    })
                    .collect();
                let mut total = 0;
                for task in tasks {
                    total += task.await.unwrap().len();
                }
                total
            });
            let what = format!("one connection, {tasks} tasks, async {flavour}");
            rate(&what, total as u64, begin.elapsed());
        }
    }
    let begin = Instant::now();
    thread::scope(|scope| {
        for n in 0..32 {
            let link = town.link(&leader);
            scope.spawn(move || cycles(&link, &format!("n{n}"), 2000));
        }
    });
    rate("32 connections, own names, 32 threads", 32 * 2000, begin.elapsed());
}

#[test]
#[ignore = "measures"]
fn speed_one_name() {
    let town = Town::new();
    let leader = town.leader();
    let links: Vec<_> = (0..8).map(|_| town.link(&leader)).collect();
    let begin = Instant::now();
    let end = begin + Duration::from_secs(5);
    let all: Vec<Vec<Duration>> = thread::scope(|scope| {
        let threads: Vec<_> = links
            .iter()
            .map(|link| {
                scope.spawn(move || {
                    let mut waits = Vec::new();
                    while Instant::now() < end {
                        waits.extend(cycles(link, "one", 1));
                    }
                    waits
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (least, most) = (all.iter().map(Vec::len).min(), all.iter().map(Vec::len).max());
    let total: usize = all.iter().map(Vec::len).sum();
    rate("8 clients on one name", total as u64, begin.elapsed());
    println!("shares {least:?} to {most:?}");
    report("8 clients on one name", all.into_iter().flatten().collect());
}

#[test]
#[ignore = "measures"]
fn speed_blocking() {
    let town = Town::new();
    let leader = town.leader();
    let link = town.link(&leader);
    report("quiet, blocking", cycles(&link, "quiet", 5 * QUIET));
}

#[test]
#[ignore = "measures"]
fn speed_threads() {
    let town = Town::new();
    let leader = town.leader();
    let begin = Instant::now();
    thread::scope(|scope| {
        for n in 0..32 {
            let link = town.link(&leader);
            scope.spawn(move || cycles(&link, &format!("n{n}"), 4000));
        }
    });
    rate("32 connections, own names, 32 threads", 32 * 4000, begin.elapsed());
}

/// Redis as a lock, by hand over a blocking socket: the least that any of its clients costs.
#[test]
#[ignore = "measures, with redis-server"]
fn speed_beside_redis() {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
        process::{Command, Stdio},
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let arguments = ["--port", &port.to_string(), "--save", "", "--bind", "127.0.0.1"];
    let server = Command::new("redis-server").args(arguments).stdout(Stdio::null()).spawn();
    let Ok(mut server) = server else { return println!("no redis-server here") };
    let mut redis = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => break stream,
            Err(_) => thread::yield_now(),
        }
    };
    redis.set_nodelay(true).unwrap();
    let mut ask = |words: &[&str], answer: &str| {
        let mut text = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| text += &format!("${}\r\n{word}\r\n", word.len()));
        redis.write_all(text.as_bytes()).unwrap();
        let mut got = vec![0; answer.len()];
        redis.read_exact(&mut got).unwrap();
        assert_eq!(got, answer.as_bytes());
    };
    const DELETE: &str =
        "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) end return 0";
    let town = Town::new();
    let leader = town.leader();
    let link = town.link(&leader);
    for _ in 0..5 {
        let mut waits = Vec::with_capacity(QUIET);
        for round in 0..QUIET {
            let value = format!("{round:020}");
            let begin = Instant::now();
            ask(&["SET", "quiet", &value, "NX", "PX", "5000"], "+OK\r\n");
            ask(&["EVAL", DELETE, "1", "quiet", &value], ":1\r\n");
            waits.push(begin.elapsed());
        }
        report("redis, both awaited", waits);
        report("quiet, blocking", cycles(&link, "quiet", QUIET));
    }
    server.kill().unwrap();
    server.wait().unwrap();
}
