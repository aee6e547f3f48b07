//! What a run found out, for people: a table of at most 80 columns, and what follows from it.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};

use super::{case::Case, human, names, report::Report};
use crate::Scope;

/// The whole text.
pub(crate) fn text(report: &Report) -> String {
    let mut text = report.machine.heading();
    text += &figures(report);
    text += &missing(report);
    text += &advice(report);
    text
}

/// What was measured, and how far that keeps what was promised.
pub(crate) fn figures(report: &Report) -> String {
    let mut notes = Notes::default();
    let mut text = table(report, &mut notes);
    text += "\n";
    text += &notes.text();
    text += &names_in_a_directory(report);
    text += &budgets(report);
    text += &ladder(report);
    text
}

fn table(report: &Report, notes: &mut Notes) -> String {
    let mut table = Table::new();
    // A line under the header, and no other.
    table.load_preset("     ──            ").set_content_arrangement(ContentArrangement::Disabled);
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    table.set_header([
        Cell::new("case"),
        Cell::new("subject"),
        right("ops/s".into()),
        right("p50".into()),
        right("p99".into()),
        right("max".into()),
        right("share".into()),
    ]);
    let (mut scope, mut case) = (None, String::new());
    for row in &report.rows {
        let (label, figures) = (&row.label, &row.figures);
        if scope != Some(label.scope) {
            scope = Some(label.scope);
            case.clear();
            table.add_row([label.scope.as_str()]);
        }
        // Each case once, at the head of its rows.
        let title = label.title();
        let head = if title == case { String::new() } else { format!(" {title}") };
        case = title;
        // Staged cases have no throughput of their own, and nobody's share.
        let staged = label.case.is_staged();
        let rate = if staged { String::new() } else { human::count(figures.ops_per_s) };
        let share = if staged || label.clients == 1 || label.case == Case::Turns2 {
            String::new()
        } else {
            format!("{:.2}", figures.share_min_max)
        };
        table.add_row([
            Cell::new(head),
            Cell::new(format!("{}{}", label.who(), notes.mark(label.note))),
            right(rate),
            right(human::time(figures.p50_ns)),
            right(human::time(figures.p99_ns)),
            right(human::time(figures.max_ns)),
            right(share),
        ]);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        // Between columns there is a blank already.
        column.set_padding(if index < 2 { (0, 0) } else { (1, 0) });
    }
    table.trim_fmt() + "\n"
}

/// Footnotes, numbered as they come.
#[derive(Default)]
struct Notes(Vec<&'static str>);

impl Notes {
    fn mark(&mut self, note: Option<&'static str>) -> String {
        let Some(note) = note else { return String::new() };
        let known = self.0.iter().position(|&known| known == note);
        let index = known.unwrap_or_else(|| {
            self.0.push(note);
            self.0.len() - 1
        });
        format!(" {}", superscript(index + 1))
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (index, note) in self.0.iter().enumerate() {
            let _ = writeln!(text, "{} {note}", superscript(index + 1));
        }
        text + "share: the smallest client's part over the largest's. Waits are timed one by\n\
                one; below 1 µs, p50 is the median of means over batches of 1,000.\n\n"
    }
}

fn superscript(number: usize) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    number.to_string().bytes().map(|digit| DIGITS[usize::from(digit - b'0')]).collect()
}

fn names_in_a_directory(report: &Report) -> String {
    let text = names::table(&report.measures);
    if text.is_empty() { text } else { text + "\n" }
}

fn budgets(report: &Report) -> String {
    if report.budgets.is_empty() {
        return String::new();
    }
    let mut text = format!("{:<48}{:>9}{:>10}\n", "Budgets", "here", "target");
    for verdict in &report.budgets {
        let _ = writeln!(
            text,
            "  {:<46}{:>9}{:>10}  {}",
            verdict.what,
            verdict.measured.map_or_else(String::new, |measured| verdict.unit.show(measured)),
            verdict.target(),
            match verdict.met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "unknown",
            }
        );
    }
    text + "\n"
}

fn missing(report: &Report) -> String {
    let mut text = String::new();
    for missing in &report.missing {
        let _ = writeln!(text, "Not compared: {missing}");
    }
    for left_out in &report.left_out {
        let _ = writeln!(text, "Left out: {left_out}.");
    }
    if text.is_empty() { text } else { text + "\n" }
}

/// What each wider scope costs in multiples of the narrower one.
fn ladder(report: &Report) -> String {
    let steps: Vec<(Scope, f64)> =
        Scope::ALL.into_iter().filter_map(|scope| Some((scope, report.quiet_ns(scope)?))).collect();
    if steps.is_empty() {
        return String::new();
    }
    let mut text = String::from("A quiet lock and unlock costs here\n");
    for (index, &(scope, cost_ns)) in steps.iter().enumerate() {
        let _ = write!(text, "  {:<9}{:>8}", scope, human::time(cost_ns));
        if let Some((narrower, narrower_ns)) = index.checked_sub(1).map(|below| steps[below]) {
            let _ =
                write!(text, "   {} × {narrower} scope", human::multiple(cost_ns / narrower_ns));
        }
        text.push('\n');
    }
    text + "\n"
}

fn advice(report: &Report) -> String {
    let mut text = String::from(
        "Take the narrowest scope that holds everybody who shares it:\n\
         \x20 thread   only threads and tasks of one process\n\
         \x20 process  several processes of one machine: workers, cron jobs, scripts\n\
         \x20 host     several machines; such a lock can be lost: let what it protects check\n\
         \x20          the token\n",
    );
    if let (Some(process), Some(host)) =
        (report.quiet_ns(Scope::Process), report.quiet_ns(Scope::Host))
    {
        let _ = writeln!(
            text,
            "Widening a lock from process to host scope adds {} to each locking here.",
            human::time((host - process).max(0.0))
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{
        case::{Label, Mode, TIERLOCK},
        report::tests::{report, row},
    };

    fn sample() -> Report {
        let mut rows = vec![
            row(Scope::Thread, Case::Quiet, TIERLOCK, 5.4),
            row(Scope::Thread, Case::Quiet, "parking_lot", 3.3),
            row(Scope::Process, Case::Quiet, TIERLOCK, 8.9),
            row(Scope::Process, Case::Processes200us, TIERLOCK, 188.9),
            row(Scope::Host, Case::Quiet, TIERLOCK, 96_000.0),
            row(Scope::Host, Case::Connections32, "redis-aof-always", 188_000_000.0),
            row(Scope::Host, Case::Turns2, TIERLOCK, 914_000.0),
        ];
        rows[6].label.variant = Some("keeping off");
        let label = &mut rows[3].label;
        *label = Label { processes: 2, clients: 2, ..label.clone() };
        let label = &mut rows[5].label;
        *label = Label { mode: Mode::Async, clients: 32, note: Some("a note"), ..label.clone() };
        rows[3].figures.ops_per_s = 123_000_000.0;
        report(rows)
    }

    #[test]
    fn every_line_of_the_table_fits_in_80_columns() {
        let mut sample = sample();
        sample.budgets = crate::bench::budget::verdicts(&sample);
        // What the machine calls itself is as long as it is.
        sample.machine.cpu = "a CPU".into();
        let text = text(&sample);
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line:?}\n{text}");
        }
        assert!(text.contains("MISSED"), "{text}");
    }

    #[test]
    fn ladder_compares_with_the_next_narrower_scope_measured() {
        let ladder = ladder(&sample());
        assert!(ladder.contains("1.6 × thread scope"), "{ladder}");
        assert!(ladder.contains("11,000 × process scope"), "{ladder}");
        let only_host = report(vec![row(Scope::Host, Case::Quiet, TIERLOCK, 96_000.0)]);
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
}
