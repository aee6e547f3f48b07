use super::*;

#[test]
fn seconds_are_positive_and_finite() {
    assert_eq!(seconds("0.5"), Ok(0.5));
    for wrong in ["0", "-1", "nan", "inf", "1e9", "ten", ""] {
        assert!(seconds(wrong).is_err(), "{wrong:?}");
    }
}

struct Steady;

impl Contender for Steady {
    fn run(&mut self, _: Duration, tally: &mut RowTally) -> Result<()> {
        tally.wait(Duration::from_micros(5));
        tally.stretch(1, Duration::from_micros(5));
        Ok(())
    }
}

struct FailsLater(u32);

impl Contender for FailsLater {
    fn run(&mut self, slice: Duration, tally: &mut RowTally) -> Result<()> {
        self.0 += 1;
        if self.0 > 2 {
            return Err(BenchFailure::other("its server is gone"));
        }
        Steady.run(slice, tally)
    }
}

fn label(subject: &'static str) -> Label {
    Label { subject, ..Label::new(Scope::Host, Case::QUIET) }
}

fn of_two(on_failure: OnFailure<Vec<String>>) -> (Result<Vec<Row>>, Vec<String>) {
    let heat = Heat {
        scope: Scope::Host,
        case: Case::QUIET,
        weight: 1.0,
        enter: |_| {
            let fails = Entrant::new(label("etcd"), FailsLater(0));
            Ok(vec![fails, Entrant::new(label("steady"), Steady)])
        },
    };
    let mut heard = Vec::new();
    (measure(&[&heat], &mut heard, 1e-9, on_failure), heard)
}

#[test]
fn contender_that_fails_is_out_and_the_others_go_on() {
    let (rows, heard) = of_two(|heard, label, failure| {
        heard.push(format!("{}: {failure}", label.subject));
        Ok(())
    });
    let rows = rows.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].label.subject, "steady");
    assert_eq!(rows[0].figures.operations, u64::from(RUNS));
    assert_eq!(heard, ["etcd: its server is gone"]);
}

#[test]
fn failure_that_is_not_accepted_ends_the_run() {
    let (rows, _) = of_two(|_, _, failure| Err(failure));
    assert_eq!(rows.unwrap_err().to_string(), "its server is gone");
}

#[test]
fn heats_are_chosen_by_scope_and_word() {
    let heat = |scope, case| Heat::<()> { scope, case, weight: 1.0, enter: |()| Ok(Vec::new()) };
    let heats = [
        heat(Scope::Thread, Case::QUIET),
        heat(Scope::Host, Case::QUIET),
        heat(Scope::Host, Case::KEPT),
    ];
    let number = |scope, case| chosen(&heats, scope, case).map_or(0, |heats| heats.len());
    assert_eq!(number(None, None), 3);
    assert_eq!(number(None, Some("quiet")), 2);
    assert_eq!(number(Some(Scope::Host), Some("quiet")), 1);
    assert!(chosen(&heats, Some(Scope::Process), None).is_err());
}
