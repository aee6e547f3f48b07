use super::*;
use crate::bench::{
    case::{Case, Label, TIERLOCK},
    report::tests::{report, row},
};

fn sample() -> BenchReport {
    let mut rows = vec![
        row(Scope::Thread, Case::QUIET, TIERLOCK, 5.4),
        row(Scope::Thread, Case::QUIET, "parking_lot", 3.3),
        row(Scope::Process, Case::QUIET, TIERLOCK, 8.9),
        row(Scope::Process, Case::PROCESSES_200US, TIERLOCK, 188.9),
        row(Scope::Host, Case::QUIET, TIERLOCK, 96_000.0),
        row(Scope::Host, Case::CONNECTIONS_32, "redis-aof-always", 188_000_000.0),
        row(Scope::Host, Case::KEPT, TIERLOCK, 914_000.0),
    ];
    rows[6].label.variant = Some("+ dir");
    let label = &mut rows[3].label;
    *label = Label { processes: 2, clients: 2, ..label.clone() };
    let label = &mut rows[5].label;
    *label = Label { mode: WaitMode::Async, clients: 32, note: Some("a note"), ..label.clone() };
    rows[3].figures.ops_per_s = 123_000_000.0;
    report(rows)
}

#[test]
fn every_line_of_the_table_fits_in_80_columns() {
    let sample = sample();
    let text = rows(&sample) + &ladder(&sample) + &advice(&sample);
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line:?}\n{text}");
    }
}

#[test]
fn columns_of_figures_end_where_their_headings_do() {
    let text = rows(&report(vec![
        row(Scope::Thread, Case::QUIET, TIERLOCK, 5.4),
        row(Scope::Host, Case::QUIET, "quic-echo", 96_000.0),
    ]));
    let lines: Vec<&str> = text.lines().collect();
    let end = |line: &str, word: &str| {
        let at = line.find(word).unwrap_or_else(|| panic!("no {word} in {text}"));
        line[..at + word.len()].chars().count()
    };
    assert!(lines[1].chars().all(|rule| rule == '─'), "{text}");
    assert_eq!(end(lines[0], "p50"), end(lines[3], "5.4 ns"));
    assert_eq!(end(lines[0], "p50"), end(lines[5], "96 µs"));
}

#[test]
fn ladder_compares_with_the_next_narrower_scope_measured() {
    let ladder = ladder(&sample());
    assert!(ladder.contains("1.6 × thread scope"), "{ladder}");
    assert!(ladder.contains("11,000 × process scope"), "{ladder}");
    let only_host = report(vec![row(Scope::Host, Case::QUIET, TIERLOCK, 96_000.0)]);
    assert!(!super::ladder(&only_host).contains('×'));
}

#[test]
fn note_is_numbered_once() {
    let mut notes = Notes::default();
    assert_eq!(notes.mark(Some("a")), " ¹");
    assert_eq!(notes.mark(Some("b")), " ²");
    assert_eq!(notes.mark(Some("a")), " ¹");
    assert_eq!(notes.mark(None), "");
}
