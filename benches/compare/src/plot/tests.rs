use super::*;
use crate::bench::report::tests::{report, row};

#[test]
fn picture_has_a_panel_per_scope_that_was_measured() {
    let report = report(vec![
        row(Scope::Thread, Case::QUIET, TIERLOCK, 5.0),
        row(Scope::Thread, Case::QUIET, "std", 5.0),
        row(Scope::Host, Case::QUIET, TIERLOCK, 96_000.0),
    ]);
    let mut svg = String::new();
    paint(&report, &mut svg).unwrap();
    assert!(svg.starts_with("<svg"));
    assert!(svg.contains("thread scope") && svg.contains("host scope"));
    assert!(!svg.contains("process scope"));
}

#[test]
fn case_is_named_once_however_many_are_compared_in_it() {
    let report = report(vec![
        row(Scope::Process, Case::HANDOVER, TIERLOCK, 5_000.0),
        row(Scope::Process, Case::HANDOVER, "flock", 9_000.0),
    ]);
    let mut svg = String::new();
    paint(&report, &mut svg).unwrap();
    assert_eq!(svg.matches("hand-over").count(), 1);
    assert!(!svg.contains("The ladder"), "nothing quiet was measured");
}

#[test]
fn scale_covers_everything_in_whole_decades() {
    let report = report(vec![row(Scope::Host, Case::QUIET, TIERLOCK, 96_000.0)]);
    let scale = Scale::of(&report);
    assert_eq!(scale, Scale { first_decade: 4, last_decade: 8 });
    assert_eq!(scale.x(1e4), LEFT);
    assert_eq!(scale.x(1e8), WIDTH as i32 - RIGHT);
    assert_eq!(scale.x(1.0), LEFT, "never outside the panel");
}

#[test]
fn unwritable_target_is_found_before_measuring() {
    assert_eq!(check_target(Path::new("/nowhere/at/all.svg")).unwrap_err().exit_code(), 74);
    assert_eq!(check_target(Path::new("/")).unwrap_err().exit_code(), 64);
    assert!(check_target(Path::new("beside.svg")).is_ok());
}
