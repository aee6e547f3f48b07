//! Frames: what a cycle's messages cost to encode and to decode.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tierlock::{
    Predecessor, Token,
    proto::{
        LeaseId, RequestId,
        wire::{Acquire, ClientMessage, FrameReader, LeaderMessage, Message, Wait, encode_frame},
    },
};

fn wire(c: &mut Criterion) {
    let acquire = Acquire::exclusive("orders/4711".parse().unwrap(), Wait::Forever);
    both(c, "acquire", &ClientMessage::Acquire { request: RequestId(1_000_000), acquire });
    let lease = LeaseId { epoch: 1, count: 1_000_000 };
    let token = Token::new((1 << Token::COUNT_BITS) + 1_000_000).unwrap();
    let granted = LeaderMessage::Granted {
        request: RequestId(1_000_000),
        lease,
        first: token,
        last: token,
        predecessor: Predecessor::Clean,
        at_most: None,
    };
    both(c, "granted", &granted);
    let release = ClientMessage::Release { lease, last_used: token, how: Predecessor::Clean };
    both(c, "release", &release);
}

fn both<M: Message + PartialEq + std::fmt::Debug>(c: &mut Criterion, name: &str, message: &M) {
    let mut group = c.benchmark_group(format!("wire/{name}"));
    let mut bytes = Vec::new();
    encode_frame(message, &mut bytes).unwrap();
    group.bench_function("encode", |bench| {
        bench.iter(|| {
            bytes.clear();
            encode_frame(black_box(message), &mut bytes).unwrap();
        });
    });
    let mut reader = FrameReader::new();
    group.bench_function("decode", |bench| {
        bench.iter(|| {
            reader.extend(black_box(&bytes));
            reader.next::<M>().unwrap().unwrap()
        });
    });
    // The reader is empty again, so this is the frame just encoded.
    reader.extend(&bytes);
    assert_eq!(reader.next::<M>().unwrap().unwrap().known().as_ref(), Some(message));
}

criterion_group!(benches, wire);
criterion_main!(benches);
