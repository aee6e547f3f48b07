//! The tables of leaders that follow each other, and what tierlock promises of them.

use std::fmt::Write as _;

use super::{IdleCost, LeadersFigures, LeadersReport, LeadersRow, Subject, under_load::Spread};
use crate::{
    bench::human,
    budget::{
        Target::{self, AtMost},
        Unit, Verdict,
    },
    comparison,
};

type Figure = fn(&LeadersFigures) -> Option<f64>;

/// A promise, in the words of a group, over an etcd and over a PostgreSQL.
struct LeadersBudget {
    what: [&'static str; 3],
    unit: Unit,
    /// Of a group, and over a store.
    targets: [Target; 2],
    figure: Figure,
}

const MS: f64 = 1e6;

const BUDGETS: [LeadersBudget; 6] = [
    LeadersBudget {
        what: [
            "group of 3, quiet: × a single leader",
            "over etcd, quiet: × a single leader",
            "over postgres, quiet: × a single leader",
        ],
        unit: Unit::Ratio,
        targets: [AtMost(1.1), AtMost(1.1)],
        figure: |figures| Some(figures.quiet_ratio),
    },
    LeadersBudget {
        what: [
            "group of 3, leader killed: first grant, p50",
            "over etcd, leader killed: first grant, p50",
            "over postgres, leader killed: first grant, p50",
        ],
        unit: Unit::Ns,
        targets: [AtMost(500.0 * MS), AtMost(1_200.0 * MS)],
        figure: |figures| Some(figures.killed.p50_ns),
    },
    LeadersBudget {
        what: [
            "group of 3, leader killed: first grant, p99",
            "over etcd, leader killed: first grant, p99",
            "over postgres, leader killed: first grant, p99",
        ],
        unit: Unit::Ns,
        targets: [AtMost(1_000.0 * MS), AtMost(1_500.0 * MS)],
        figure: |figures| Some(figures.killed.p99_ns),
    },
    LeadersBudget {
        what: [
            "group of 3: held locks lost",
            "over etcd: held locks lost",
            "over postgres: held locks lost",
        ],
        unit: Unit::Count,
        targets: [AtMost(0.0), AtMost(0.0)],
        figure: |figures| Some(figures.held_locks_lost as f64),
    },
    LeadersBudget {
        what: [
            "group of 3, handed over: pause, p99",
            "over etcd, handed over: pause, p99",
            "over postgres, handed over: pause, p99",
        ],
        unit: Unit::Ns,
        targets: [AtMost(200.0 * MS), AtMost(200.0 * MS)],
        figure: |figures| Some(figures.handed_over.p99_ns),
    },
    LeadersBudget {
        what: [
            "group of 3: a member's idle cost",
            "over etcd: a leader's idle cost",
            "over postgres: a leader's idle cost",
        ],
        unit: Unit::Percent,
        targets: [AtMost(1.0), AtMost(1.0)],
        figure: |figures| Some(figures.idle_percent.most()),
    },
];

const SUBJECTS: [Subject; 3] = [Subject::Group, Subject::OverEtcd, Subject::OverPostgres];

/// Every promise, beside what these rows say.
pub(super) fn verdicts(rows: &[LeadersRow]) -> Vec<Verdict> {
    let of = |wanted: Subject| rows.iter().find(|row| row.subject == wanted);
    let mut verdicts = Vec::new();
    for (at, subject) in SUBJECTS.into_iter().enumerate() {
        let figures = of(subject).and_then(|row| row.figures.as_ref());
        verdicts.extend(BUDGETS.iter().map(|budget| {
            let target = budget.targets[usize::from(subject != Subject::Group)];
            Verdict::of(budget.what[at], budget.unit, target, figures.and_then(budget.figure))
        }));
    }
    verdicts
}

impl IdleCost {
    fn most(self) -> f64 {
        self.reigning.max(self.standby.unwrap_or_default())
    }
}

impl Subject {
    pub(super) fn title(self) -> &'static str {
        match self {
            Subject::Single => "single leader",
            Subject::Group => "group of 3",
            Subject::OverEtcd => "3 over etcd",
            Subject::OverPostgres => "3 over postgres",
            Subject::Etcd => "etcd of 3, its own lock",
        }
    }
}

/// A table: its heading, and the cells of a row.
type LeadersTable = ([&'static str; 6], fn(&LeadersFigures) -> [String; 5]);

const TABLES: [LeadersTable; 6] = [
    (["Quiet lock and unlock", "L", "p50", "p99", "× single", ""], |figures| {
        let lasts = figures.reign_lasts_ms.map(|ms| human::time(ms as f64 * MS));
        let [p50, p99] = [figures.quiet_p50_ns, figures.quiet_p99_ns].map(human::time);
        [or_none(lasts), p50, p99, format!("{:.2}", figures.quiet_ratio), String::new()]
    }),
    (["Leader killed: first new grant", "times", "p50", "p99", "worst", "lost"], |figures| {
        let [times, p50, p99, worst] = spread(&figures.killed);
        [times, p50, p99, worst, figures.held_locks_lost.to_string()]
    }),
    (["Leader killed: another reigns", "times", "p50", "p99", "worst", ""], |figures| {
        let [times, p50, p99, worst] = spread(&figures.followed);
        [times, p50, p99, worst, String::new()]
    }),
    (["Handed over: pause", "times", "p50", "p99", "worst", ""], |figures| {
        let [times, p50, p99, worst] = spread(&figures.handed_over);
        [times, p50, p99, worst, String::new()]
    }),
    (["Journal's answers", "looks", "p50", "p99", "worst", ""], |figures| {
        let [times, p50, p99, worst] = spread(&figures.journal.clone().unwrap_or_default());
        [times, p50, p99, worst, String::new()]
    }),
    (["Idle, of a core", "reigns", "stands by", "held:", "reigns", "stands by"], |figures| {
        let percent = |percent: f64| format!("{percent:.2} %");
        let both = |cost: IdleCost| [percent(cost.reigning), or_none(cost.standby.map(percent))];
        let [reigns, stands_by] = both(figures.idle_percent);
        let [holding, holding_standby] = both(figures.idle_with_holders_percent);
        [reigns, stands_by, String::new(), holding, holding_standby]
    }),
];

fn spread(spread: &Spread) -> [String; 4] {
    if spread.times == 0 {
        return [(); 4].map(|()| or_none(None));
    }
    let [p50, p99, worst] = [spread.p50_ns, spread.p99_ns, spread.worst_ns].map(in_whole);
    [spread.times.to_string(), p50, p99, worst]
}

/// A time in three digits and more: `412 ms`, `1,230 ms`, `850 µs`.
fn in_whole(ns: f64) -> String {
    if ns < MS { human::time(ns) } else { format!("{:.0} ms", ns / MS) }
}

fn or_none(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| "–".into())
}

impl LeadersReport {
    pub(crate) fn text(&self) -> String {
        let mut text = self.machine.heading();
        for (heading, cells) in TABLES {
            let [title, columns @ ..] = heading;
            text += &line(title, columns.map(str::to_owned));
            for row in &self.rows {
                let title = format!("  {}", row.subject.title());
                match (&row.figures, &row.missing) {
                    (Some(figures), _) => text += &line(&title, cells(figures)),
                    (None, Some(missing)) if missing.why.is_some() => {
                        text += &format!("{title:<31}not measured\n");
                    }
                    (None, _) => text += &format!("{title:<31}not installed\n"),
                }
            }
            text += "\n";
        }
        text += &comparison::budgets(&self.budgets);
        for missing in self.rows.iter().filter_map(|row| row.missing.as_ref()) {
            let _ = writeln!(text, "Not compared: {missing}");
        }
        text += NOTES;
        text
    }
}

const NOTES: &str = "\
20 clients on loopback: 18 hold a lock each, 2 ask for new names. A single leader is
started again at once; of several another follows, and the one that was killed is back
before the next kill. Handed over: by `tierlock step-down`, a single one by SIGTERM and
started again, etcd by MoveLeader. Lost: held locks, of those 18, by all of that.
";

fn line(title: &str, cells: [String; 5]) -> String {
    let cells: String = cells.iter().map(|cell| format!("{cell:>10}")).collect();
    format!("{title:<31}{cells}").trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests;
