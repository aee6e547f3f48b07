use super::*;

#[test]
fn part_that_is_done_is_said_if_the_whole_is_known() {
    let mut progress = Progress::new(Duration::from_secs(4));
    progress.advance(Duration::from_secs(1));
    assert_eq!(progress.line("host"), " 25 %  host");
    progress.advance(Duration::from_secs(9));
    assert_eq!(progress.line("host"), "100 %  host");
    assert_eq!(Progress::new(Duration::ZERO).line("host"), "host");
}
