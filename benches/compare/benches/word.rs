//! The words that a quiet lock goes through, each by itself, and the way to the second: the kept
//! lease's, the slot's in a directory, and the look-up of the name's slot among so many.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tierlock::{
    Predecessor, Token,
    lease_word::{Claim, Entering, LeaseKey, LeaseWord, Left, Opening},
};

/// The next token of a kept lease, and out again.
fn kept_lease(c: &mut Criterion) {
    let kept = LeaseWord::new();
    let of_epoch = |count: u64| Token::new((1 << Token::COUNT_BITS) + count).unwrap();
    kept.open(Opening {
        lease: LeaseKey { high: 1, low: 1 },
        first: of_epoch(1),
        last: of_epoch(1 << 39),
        predecessor: Predecessor::Clean,
        at_most: None,
        keeps: true,
        is_shared: false,
    });
    assert!(matches!(kept.claim(), Claim::Entered(_)));
    assert_eq!(kept.leave(of_epoch(1), Predecessor::Clean), Left::Kept);
    c.bench_function("word/kept lease: enter, leave", |bench| {
        bench.iter(|| {
            let Entering::Entered(entered) = black_box(&kept).enter() else {
                panic!("it is idle");
            };
            assert_eq!(kept.leave(entered.token, Predecessor::Clean), Left::Kept);
            entered
        });
    });
}

/// The table is on little-endian 64-bit Linux only.
#[cfg(all(target_os = "linux", target_pointer_width = "64", target_endian = "little"))]
mod table {
    use tierlock::{Name, parts::TableParts};

    use super::*;

    const SIZES: [usize; 3] = [10, 1_000, 100_000];
    /// Coprime to every size, so that the walk passes every name.
    const STEP: usize = 7_919;

    pub(super) fn measure(c: &mut Criterion) {
        slot(c);
        look_up(c);
    }

    /// The slot's word and its token, as they are taken and released quietly.
    fn slot(c: &mut Criterion) {
        let directory = tempfile::tempdir().unwrap();
        let table = TableParts::open(directory.path()).unwrap();
        let word = table.word(&name(0)).unwrap();
        let (mut cycles, mut in_earnest) = (0_u64, 0);
        c.bench_function("word/slot: take, release", |bench| {
            bench.iter(|| {
                cycles += 1;
                let token = black_box(&word).take().unwrap_or_else(|| {
                    in_earnest += 1;
                    word.take_in_earnest().unwrap()
                });
                word.release(token);
                token
            });
        });
        assert!(in_earnest <= 1 + cycles / 10_000, "{in_earnest} of {cycles} were not quiet");
    }

    /// The slot of a name that has one, in an order that no cache foresees.
    fn look_up(c: &mut Criterion) {
        let directory = tempfile::tempdir().unwrap();
        let table = TableParts::open(directory.path()).unwrap();
        let mut names: Vec<Name> = Vec::new();
        let mut group = c.benchmark_group("table");
        for size in SIZES {
            names.extend((names.len()..size).map(name));
            let slots: Vec<u32> = names.iter().map(|name| table.find(name).unwrap()).collect();
            let mut next = 0;
            group.bench_function(format!("find one of {size}"), |bench| {
                bench.iter(|| {
                    next = (next + STEP) % size;
                    assert_eq!(table.find(black_box(&names[next])).unwrap(), slots[next]);
                });
            });
        }
    }

    fn name(number: usize) -> Name {
        Name::new(&format!("orders/{number:09}")).unwrap()
    }
}

#[cfg(not(all(target_os = "linux", target_pointer_width = "64", target_endian = "little")))]
mod table {
    pub(super) fn measure(_: &mut super::Criterion) {}
}

criterion_group!(benches, kept_lease, table::measure);
criterion_main!(benches);
