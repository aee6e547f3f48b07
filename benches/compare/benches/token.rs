//! The vocabulary's arithmetic: a token made, compared, written and read.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tierlock::{Name, Token};

fn token(c: &mut Criterion) {
    let mut group = c.benchmark_group("token");
    let number = (7 << Token::COUNT_BITS) + 1_000_000;
    let (token, next) = (Token::new(number).unwrap(), Token::new(number + 1).unwrap());
    group.bench_function("from a number", |bench| bench.iter(|| Token::new(black_box(number))));
    group.bench_function("compare", |bench| bench.iter(|| black_box(token) < black_box(next)));
    group.bench_function("to text", |bench| bench.iter(|| black_box(token).to_string()));
    let text = token.to_string();
    group.bench_function("from text", |bench| {
        bench.iter(|| black_box(text.as_str()).parse::<Token>().unwrap());
    });
    assert_eq!(text.parse::<Token>().unwrap(), token);
}

fn name(c: &mut Criterion) {
    c.bench_function("name from text", |bench| {
        bench.iter(|| Name::new(black_box("orders/4711")).unwrap());
    });
}

criterion_group!(benches, token, name);
criterion_main!(benches);
