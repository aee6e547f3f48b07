use super::*;

#[test]
fn killed_holders_memory_is_said_where_it_is_not_the_usual_one() {
    let title = |resident_mib| {
        let label = Label::new(Scope::Process, Case::HOLDER_KILLED);
        Label { resident_mib, ..label }.title()
    };
    assert_eq!(title(Some(USUAL_RESIDENT_MIB)), "holder killed");
    assert_eq!(title(Some(0)), "killed, 0 MiB");
    assert_eq!(title(Some(256)), "killed, 256 MiB");
    assert_eq!(title(Some(1_024)), "killed, 1 GiB");
}

#[test]
fn title_says_how_many_callers_there_are_and_that_they_are_tasks() {
    let label = Label { clients: 4, ..Label::new(Scope::Process, Case::PROCESSES_EMPTY) };
    assert_eq!(label.title(), "4 processes, empty");
    let label = Label { mode: WaitMode::Async, ..Label::new(Scope::Host, Case::QUIET) };
    assert_eq!(label.title(), "quiet, async");
}
