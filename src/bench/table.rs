//! What a run found out, for people: a table of at most 80 columns, and what follows from it.

use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table};
use tierlock::Scope;

use super::{
    case::WaitMode,
    human,
    report::{BenchReport, Row},
};

/// A line for each row, and the notes below.
pub(crate) fn rows(report: &BenchReport) -> String {
    let mut table = Table::new();
    // A line under the header, and no other.
    table.load_preset("     ──            ").set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["case", "subject", "ops/s", "p50", "p99", "max", "share"]);
    let mut notes = Notes::default();
    let (mut scope, mut case) = (None, String::new());
    for row in &report.rows {
        if scope != Some(row.label.scope) {
            scope = Some(row.label.scope);
            case.clear();
            table.add_row([row.label.scope.as_str()]);
        }
        // Each case once, at the head of its rows.
        let title = row.label.title();
        let head = if title == case { String::new() } else { format!(" {title}") };
        case = title;
        table.add_row(cells(head, row, &mut notes));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        // Between columns there is a blank already.
        column.set_padding(if index < WORDS { (0, 0) } else { (1, 0) });
        if index >= WORDS {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt() + "\n\n" + &notes.text()
}

/// The columns of words, which are aligned to the left.
const WORDS: usize = 2;

fn cells(head: String, row: &Row, notes: &mut Notes) -> [String; 7] {
    let (label, figures) = (&row.label, &row.figures);
    // Staged cases have no throughput of their own.
    let staged = label.case.is_staged;
    let rate = if staged { String::new() } else { human::count(figures.ops_per_s) };
    // Neither a single client nor several of one thread compete.
    let alone = label.clients == 1
        || (label.mode == WaitMode::Blocking && label.processes * label.threads == 1);
    let share =
        if staged || alone { String::new() } else { format!("{:.2}", figures.share_min_max) };
    [
        head,
        format!("{}{}", label.subject(), notes.mark(label.note)),
        rate,
        human::time(figures.p50_ns),
        human::time(figures.p99_ns),
        human::time(figures.max_ns),
        share,
    ]
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

/// What each wider scope costs in multiples of the narrower one.
pub(crate) fn ladder(report: &BenchReport) -> String {
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

pub(crate) fn advice(report: &BenchReport) -> String {
    let mut text = String::from(
        "Take the narrowest scope that holds all that share it:\n\
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
mod tests;
