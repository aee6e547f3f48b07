use super::*;

#[test]
fn only_what_stands_between_the_marks_is_replaced() {
    let page = format!("# a\n{BEGINS}old\n{ENDS}rest\n");
    let once = filled(&page, "new\n").unwrap();
    assert_eq!(once, format!("# a\n{BEGINS}new\n{ENDS}rest\n"));
    assert_eq!(filled(&once, "new\n").unwrap(), once, "again and again");
    assert_eq!(filled("no marks\n", "new\n"), None);
}

#[test]
fn a_page_that_cannot_be_filled_is_refused_before_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("page.md");
    assert!(check(&page).unwrap_err().to_string().contains("cannot fill"));
    fs::write(&page, "no marks\n").unwrap();
    assert!(check(&page).unwrap_err().to_string().contains("it has no"));
    let text = format!("# a\n{BEGINS}old\n{ENDS}rest\n");
    fs::write(&page, &text).unwrap();
    check(&page).unwrap();
    assert_eq!(fs::read_to_string(&page).unwrap(), text, "a look changes nothing");
}

#[test]
fn results_have_the_marks_and_what_each_side_guarantees() {
    let results = include_str!("../../../RESULTS.md");
    assert!(filled(results, "").is_some());
    let (_, guarantees) = include_str!("../guarantees.txt").split_once("\n\n").unwrap();
    assert!(results.contains(guarantees), "copy guarantees.txt into the results");
}
