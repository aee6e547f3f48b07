//! The figures as a picture: the ladder of scopes first, then a panel per scope with its cases one
//! below the other, all on one logarithmic scale of time.

use std::{error::Error, io, path::Path};

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use tierlock::Scope;

use crate::bench::{
    case::{Case, TIERLOCK, WaitMode},
    failure::{BenchFailure, Result},
    human,
    report::{BenchReport, Row},
};

const WIDTH: u32 = 960;
const LEFT: i32 = 262;
const RIGHT: i32 = 40;
const HEADING: i32 = 74;
const PANEL_TITLE: i32 = 34;
const ROW: i32 = 21;
/// Between two cases.
const GAP: i32 = 9;
const AXIS: i32 = 30;

pub(crate) const INK: RGBColor = RGBColor(32, 36, 44);
pub(crate) const FAINT: RGBColor = RGBColor(112, 120, 132);
pub(crate) const GRID: RGBColor = RGBColor(226, 230, 236);
pub(crate) const GRID_OF_UNITS: RGBColor = RGBColor(176, 184, 196);
pub(crate) const OURS: RGBColor = RGBColor(24, 108, 196);
pub(crate) const OTHERS: RGBColor = RGBColor(166, 174, 186);

/// Fails if the picture could not be written later.
pub(crate) fn check_target(file: &Path) -> Result<()> {
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    if file.is_dir() {
        return Err(BenchFailure::Usage(format!(
            "the picture wants a file, {} is a directory",
            file.display()
        )));
    }
    if directory.is_some_and(|directory| !directory.is_dir()) {
        let error = io::Error::from(io::ErrorKind::NotFound);
        return Err(BenchFailure::io(format!("cannot write {}", file.display()))(error));
    }
    Ok(())
}

/// Draws the report into an SVG file.
pub(crate) fn draw(report: &BenchReport, file: &Path) -> Result<()> {
    draw_with(|svg| paint(report, svg), file)
}

/// Writes what `paint` paints into an SVG file.
pub(crate) fn draw_with(paint: impl FnOnce(&mut String) -> Painted, file: &Path) -> Result<()> {
    let mut svg = String::new();
    paint(&mut svg).map_err(|error| {
        BenchFailure::io(format!("cannot draw {}", file.display()))(io::Error::other(
            error.to_string(),
        ))
    })?;
    std::fs::write(file, svg).map_err(BenchFailure::io(format!("cannot write {}", file.display())))
}

pub(crate) type Painted = std::result::Result<(), Box<dyn Error>>;
pub(crate) type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn paint(report: &BenchReport, svg: &mut String) -> Painted {
    let panels = panels(report);
    let height = HEADING + panels.iter().map(Panel::height).sum::<i32>();
    let canvas = SVGBackend::with_string(svg, (WIDTH, height as u32)).into_drawing_area();
    canvas.fill(&WHITE)?;
    let picture = Picture { canvas: &canvas, scale: Scale::of(report) };
    picture.heading(report)?;
    let mut top = HEADING;
    for panel in &panels {
        picture.panel(panel, top)?;
        top += panel.height();
    }
    canvas.present()?;
    Ok(())
}

/// Bars under one title, in groups.
struct Panel<'a> {
    title: String,
    groups: Vec<Group<'a>>,
}

struct Group<'a> {
    title: String,
    /// Each with what stands beside its bar.
    rows: Vec<(String, &'a Row)>,
}

impl Panel<'_> {
    fn height(&self) -> i32 {
        PANEL_TITLE + self.bars_height() + AXIS
    }

    fn bars_height(&self) -> i32 {
        let rows: usize = self.groups.iter().map(|group| group.rows.len()).sum();
        ROW * rows as i32 + GAP * (self.groups.len() as i32 - 1)
    }
}

fn panels(report: &BenchReport) -> Vec<Panel<'_>> {
    let scopes = Scope::ALL.into_iter().map(|scope| Panel {
        title: format!("{scope} scope"),
        groups: groups(report.rows.iter().filter(|row| row.label.scope == scope)),
    });
    [ladder(report)].into_iter().chain(scopes).filter(|panel| !panel.groups.is_empty()).collect()
}

/// What a quiet lock and unlock of ours costs, from scope to scope.
fn ladder(report: &BenchReport) -> Panel<'_> {
    let steps = [
        ("thread", Scope::Thread, Case::QUIET),
        ("process", Scope::Process, Case::QUIET),
        ("host, kept lease", Scope::Host, Case::KEPT),
        ("host, round trip", Scope::Host, Case::QUIET),
    ];
    let rows: Vec<_> = steps
        .into_iter()
        .filter_map(|(name, scope, case)| {
            Some((name.to_owned(), report.row(scope, case, TIERLOCK, WaitMode::Blocking)?))
        })
        .collect();
    let title = "lock and unlock".to_owned();
    let groups = if rows.is_empty() { Vec::new() } else { vec![Group { title, rows }] };
    Panel { title: "The ladder: tierlock while no other caller wants the lock".into(), groups }
}

/// Rows of one case and mode together, in the report's order.
fn groups<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<Group<'a>> {
    let mut groups: Vec<Group> = Vec::new();
    for row in rows {
        let title = row.label.title();
        if groups.last().is_none_or(|group| group.title != title) {
            groups.push(Group { title, rows: Vec::new() });
        }
        let group = groups.last_mut().expect("there is one now");
        group.rows.push((row.label.subject(), row));
    }
    groups
}

/// From times to places: the same for all panels, in whole decades.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Scale {
    first_decade: i32,
    last_decade: i32,
}

impl Scale {
    fn of(report: &BenchReport) -> Scale {
        let shortest = report.rows.iter().map(|row| row.figures.p50_ns).fold(1e9, f64::min);
        let longest = report.rows.iter().map(|row| row.figures.max_ns).fold(1.0, f64::max);
        let first_decade = (shortest.max(1.0).log10() - 0.5).floor().max(0.0) as i32;
        let last_decade = longest.max(10.0).log10().ceil() as i32;
        Scale { first_decade, last_decade: last_decade.max(first_decade + 1) }
    }

    fn x(self, ns: f64) -> i32 {
        let (first, last) = (f64::from(self.first_decade), f64::from(self.last_decade));
        let part = (ns.max(1.0).log10() - first) / (last - first);
        let width = f64::from(WIDTH as i32 - LEFT - RIGHT);
        LEFT + (part.clamp(0.0, 1.0) * width).round() as i32
    }

    fn decades(self) -> impl Iterator<Item = i32> {
        self.first_decade..=self.last_decade
    }
}

struct Picture<'a, 'b> {
    canvas: &'a Canvas<'b>,
    scale: Scale,
}

impl Picture<'_, '_> {
    fn heading(&self, report: &BenchReport) -> Painted {
        let machine = &report.machine;
        self.text("What a lock costs", (16, 24), 20, &INK, HPos::Left, true)?;
        let measured = format!(
            "tierlock {} on {} × {}, {}; logarithmic: each line is ten times the one before",
            machine.version, machine.cpus, machine.cpu, machine.system
        );
        self.text(&measured, (16, 46), 12, &FAINT, HPos::Left, false)?;
        let legend = "bar: half of the lockings are faster · line: 99 % are · tick: the slowest";
        self.text(legend, (16, 64), 12, &FAINT, HPos::Left, false)
    }

    fn panel(&self, panel: &Panel, top: i32) -> Painted {
        let middle = top + PANEL_TITLE / 2 + 2;
        self.text(&panel.title, (16, middle), 15, &INK, HPos::Left, true)?;
        let mut at = top + PANEL_TITLE;
        self.axis(at, at + panel.bars_height())?;
        for group in &panel.groups {
            self.text(&group.title, (16, at + ROW / 2), 12, &INK, HPos::Left, true)?;
            for (name, row) in &group.rows {
                self.row(name, row, at + ROW / 2)?;
                at += ROW;
            }
            at += GAP;
        }
        Ok(())
    }

    /// Lines down a panel, and what they mean below it.
    fn axis(&self, first: i32, bottom: i32) -> Painted {
        for decade in self.scale.decades() {
            let time = 10_f64.powi(decade);
            let x = self.scale.x(time);
            let colour = if decade % 3 == 0 { GRID_OF_UNITS } else { GRID };
            self.line((x, first - 4), (x, bottom + 4), &colour, 1)?;
            let time = human::time(time).replace(".0", "");
            self.text(&time, (x, bottom + 14), 11, &FAINT, HPos::Center, false)?;
        }
        Ok(())
    }

    fn row(&self, name: &str, row: &Row, middle: i32) -> Painted {
        let (label, figures) = (&row.label, &row.figures);
        let ours = label.subject == TIERLOCK;
        let (colour, ink) = if ours { (OURS, INK) } else { (OTHERS, FAINT) };
        self.text(name, (LEFT - 10, middle), 12, &ink, HPos::Right, false)?;

        let [start, p50, p99, max] =
            [1.0, figures.p50_ns, figures.p99_ns, figures.max_ns].map(|time| self.scale.x(time));
        let start = start.max(LEFT);
        let bar = [(start, middle - 7), (p50.max(start + 2), middle + 7)];
        self.canvas.draw(&Rectangle::new(bar, colour.filled()))?;
        self.line((p50, middle), (p99, middle), &colour, 3)?;
        self.line((max, middle - 5), (max, middle + 5), &colour, 2)?;
        // In the bar where it fits, for beside it is the way of the line.
        let value = human::time(figures.p50_ns);
        if p50 - start > 56 {
            let ink = if ours { &WHITE } else { &INK };
            self.text(&value, (p50 - 6, middle), 11, ink, HPos::Right, ours)
        } else {
            let beside = if max - p50 < 70 { max + 8 } else { p50 + 6 };
            let raised = if max - p50 < 70 { 0 } else { 6 };
            self.text(&value, (beside, middle - raised), 10, &ink, HPos::Left, ours)
        }
    }

    fn line(&self, from: (i32, i32), to: (i32, i32), colour: &RGBColor, width: u32) -> Painted {
        self.canvas.draw(&PathElement::new(vec![from, to], colour.stroke_width(width)))?;
        Ok(())
    }

    fn text(
        &self,
        text: &str,
        at: (i32, i32),
        size: i32,
        colour: &RGBColor,
        to: HPos,
        bold: bool,
    ) -> Painted {
        write(self.canvas, text, at, size, colour, to, bold)
    }
}

/// Text on the side of `at` that `to` says; its middle is at this height.
pub(crate) fn write(
    canvas: &Canvas<'_>,
    text: &str,
    at: (i32, i32),
    size: i32,
    colour: &RGBColor,
    to: HPos,
    bold: bool,
) -> Painted {
    let weight = if bold { FontStyle::Bold } else { FontStyle::Normal };
    let style = TextStyle::from(("sans-serif", size, weight).into_font())
        .color(colour)
        .pos(Pos::new(to, VPos::Center));
    canvas.draw(&Text::new(text.to_owned(), at, style))?;
    Ok(())
}

#[cfg(test)]
mod tests;
