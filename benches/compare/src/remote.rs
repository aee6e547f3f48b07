//! What a lock between machines costs by how often other clients want it: from a lease that is
//! kept all the time to one that is never worth keeping.

use std::{fmt::Write, path::Path, time::Duration};

use plotters::{prelude::*, style::text_anchor::HPos};

use crate::{
    bench::{
        case::TIERLOCK,
        crowd::Dice,
        failure::Result,
        host::{self, remote_clients, remote_names},
        human,
        machine::MachineInfo,
        progress::Progress,
        report::{BenchReport, Row},
        run::race,
    },
    comparison::Comparison,
    peers,
    peers::field::Field,
    plot::{self, FAINT, GRID, GRID_OF_UNITS, INK, OTHERS, OURS, Painted},
};

/// In how many cases of one a client wants the name that all want, and not its own.
const SHARES: [f64; 7] = [0.0, 0.001, 0.01, 0.05, 0.2, 0.5, 1.0];
/// The word of the JSON.
const REMOTE_SHARE: &str = "remote_share";

/// Measures all shares, in so many seconds all together.
pub(crate) fn measure(seconds: f64) -> Result<Comparison> {
    let mut field = Field::new()?;
    let total = Duration::from_secs_f64(seconds);
    let mut progress = Progress::new(total);
    let mut rows = Vec::new();
    for share in SHARES {
        let names = remote_names(&format!("{share}"));
        let common = names.len() - 1;
        let wants = move |own, dice: &mut Dice| if dice.roll() < share { common } else { own };
        let mut entries = vec![host::remote(&mut field.grounds, &names, wants)?];
        peers::host::remote(&mut field, remote_clients(), &names, wants, &mut entries)?;
        let each = total / SHARES.len() as u32;
        let measured =
            race(entries, each, &mut progress, |label, failure| field.on_failure(label, failure))?;
        rows.extend(measured.into_iter().map(|mut row| {
            row.facts.insert(REMOTE_SHARE, share);
            row
        }));
    }
    Ok(Comparison::new(BenchReport { machine: MachineInfo::this(), rows }, field))
}

/// What one locking costs its client on the average.
fn cost_ns(row: &Row) -> f64 {
    f64::from(row.label.clients) * 1e9 / row.figures.ops_per_s.max(1e-3)
}

/// The costs of one subject, by share.
fn curve<'a>(report: &'a BenchReport, subject: &str) -> Vec<(f64, &'a Row)> {
    let rows = report.rows.iter().filter(|row| row.label.subject == subject);
    rows.filter_map(|row| Some((*row.facts.get(REMOTE_SHARE)?, row))).collect()
}

/// The subjects, ours first.
fn subjects(report: &BenchReport) -> Vec<&'static str> {
    let mut subjects = vec![TIERLOCK];
    for row in &report.rows {
        if !subjects.contains(&row.label.subject) {
            subjects.push(row.label.subject);
        }
    }
    subjects
}

fn percent(share: f64) -> String {
    format!("{} %", (share * 1_000.0).round() / 10.0)
}

/// The figures for people.
pub(crate) fn text(comparison: &Comparison) -> String {
    let report = &comparison.report;
    let mut text = report.machine.heading();
    let subjects = subjects(report);
    let _ = write!(text, "{:<16}", "common name");
    for subject in &subjects {
        let _ = write!(text, "{subject:>14}");
    }
    text.push('\n');
    for share in SHARES {
        let _ = write!(text, "{:<16}", percent(share));
        for subject in &subjects {
            let curve = curve(report, subject);
            let cost = curve.iter().find(|(at, _)| *at == share).map(|(_, row)| cost_ns(row));
            let _ = write!(text, "{:>14}", cost.map_or("?".into(), human::time));
        }
        text.push('\n');
    }
    let _ = writeln!(
        text,
        "\nTime per locking of {} clients, each with a name of its own and one in common.",
        report.rows.first().map_or(0, |row| row.label.clients)
    );
    text + &comparison.missing_text()
}

const SIZE: (u32, u32) = (760, 440);
const LEFT: i32 = 76;
const RIGHT: i32 = 110;
const TOP: i32 = 84;
const BOTTOM: i32 = 62;

/// Draws the curves into an SVG file.
pub(crate) fn draw(report: &BenchReport, file: &Path) -> Result<()> {
    plot::draw_with(|svg| paint(report, svg), file)
}

fn paint(report: &BenchReport, svg: &mut String) -> Painted {
    let canvas = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    canvas.fill(&WHITE)?;
    let subjects = subjects(report);
    let costs = report.rows.iter().map(cost_ns);
    let scale = Scale {
        first: costs.clone().fold(1e6, f64::min).log10().floor() as i32,
        last: costs.fold(1e3, f64::max).log10().ceil() as i32,
    };
    let write = |text: &str, at, size, colour: &RGBColor, to, bold| {
        plot::write(&canvas, text, at, size, colour, to, bold)
    };

    let title = "A lock between machines, by how often others want it";
    write(title, (16, 24), 20, &INK, HPos::Left, true)?;
    let clients = report.rows.first().map_or(0, |row| row.label.clients);
    let machine = &report.machine;
    let how = format!(
        "mean time per lock and unlock of {clients} clients, each with a name of its own and one in \
         common; tierlock {} on {} × {}",
        machine.version, machine.cpus, machine.cpu
    );
    write(&how, (16, 48), 12, &FAINT, HPos::Left, false)?;

    let (right, bottom) = (SIZE.0 as i32 - RIGHT, SIZE.1 as i32 - BOTTOM);
    let line = |from, to, colour: &RGBColor, width| {
        canvas.draw(&PathElement::new(vec![from, to], colour.stroke_width(width)))
    };
    for decade in scale.first..=scale.last {
        let time = 10_f64.powi(decade);
        let y = scale.y(time);
        let colour = if decade % 3 == 0 { GRID_OF_UNITS } else { GRID };
        line((LEFT, y), (right, y), &colour, 1)?;
        let label = human::time(time).replace(".0", "");
        write(&label, (LEFT - 10, y), 11, &FAINT, HPos::Right, false)?;
    }
    for share in SHARES {
        let label = percent(share);
        write(&label, (x(share), bottom + 18), 12, &INK, HPos::Center, false)?;
    }
    let below = "share of lockings that want the name in common";
    write(below, ((LEFT + right) / 2, bottom + 42), 12, &FAINT, HPos::Center, false)?;

    for subject in subjects {
        let ours = subject == TIERLOCK;
        let (colour, ink) = if ours { (OURS, OURS) } else { (OTHERS, FAINT) };
        let points: Vec<(i32, i32)> = curve(report, subject)
            .into_iter()
            .map(|(share, row)| (x(share), scale.y(cost_ns(row))))
            .collect();
        let Some(&last) = points.last() else { continue };
        canvas.draw(&PathElement::new(points.clone(), colour.stroke_width(3)))?;
        for ((at, y), (_, row)) in points.into_iter().zip(curve(report, subject)) {
            canvas.draw(&Circle::new((at, y), 4, colour.filled()))?;
            // Ours below its curve, the others' above: they may come close at the right.
            let beside = if ours { y + 17 } else { y - 15 };
            write(&human::time(cost_ns(row)), (at, beside), 11, &ink, HPos::Center, ours)?;
        }
        write(subject, (last.0 + 14, last.1), 13, &ink, HPos::Left, ours)?;
    }
    canvas.present()?;
    Ok(())
}

/// Steps of the same width: the shares grow by about as much.
fn x(share: f64) -> i32 {
    let step = SHARES.iter().position(|&known| known == share).unwrap_or(0) as i32;
    let width = SIZE.0 as i32 - LEFT - RIGHT - 60;
    LEFT + 30 + width * step / (SHARES.len() as i32 - 1)
}

/// From times to heights, in whole decades.
struct Scale {
    first: i32,
    last: i32,
}

impl Scale {
    fn y(&self, ns: f64) -> i32 {
        let part =
            (ns.max(1.0).log10() - f64::from(self.first)) / f64::from(self.last - self.first);
        let height = f64::from(SIZE.1 as i32 - TOP - BOTTOM);
        SIZE.1 as i32 - BOTTOM - (part.clamp(0.0, 1.0) * height).round() as i32
    }
}

#[cfg(test)]
mod tests;
