//! The host tier on loopback, beside the least that any server can cost: one round trip of TCP.

use std::{
    hint::black_box,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
};

use criterion::{Criterion, criterion_group, criterion_main};
use tierlock::{Keep, Leader, LockManager, MutexGuard, Scope, Secret};

fn quiet(c: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    Secret::create(&secret).unwrap();
    let leader = Leader::builder()
        .listen("127.0.0.1:0")
        .state_dir(directory.path().join("leader"))
        .init(true)
        .accept_file_system("tmpfs")
        .secret_file(&secret)
        .start()
        .unwrap();
    let locks = LockManager::builder()
        .leaders([leader.local_addr().to_string()])
        .secret_file(&secret)
        .open()
        .unwrap();
    let mutex = locks.mutex("quiet", ()).scope(Scope::Host).keep(Keep::Never).build().unwrap();

    let mut group = c.benchmark_group("host/quiet");
    group.bench_function("tierlock", |bench| {
        bench.iter(|| drop(black_box(&mutex).lock().unwrap()));
    });
    group.bench_function("tierlock, release awaited", |bench| {
        bench.iter(|| MutexGuard::unlock(black_box(&mutex).lock().unwrap()).unwrap());
    });
    let mut echo = tcp_echo();
    group.bench_function("tcp, one round trip", |bench| {
        let mut frame = [7; 40];
        bench.iter(|| {
            echo.write_all(black_box(&frame)).unwrap();
            echo.read_exact(&mut frame).unwrap();
        });
    });
}

/// A connection to a thread that sends back what it reads.
fn tcp_echo() -> TcpStream {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    thread::spawn(move || {
        let mut frame = [0; 40];
        while server.read_exact(&mut frame).is_ok() && server.write_all(&frame).is_ok() {}
    });
    client
}

criterion_group!(benches, quiet);
criterion_main!(benches);
