use super::*;

#[test]
fn scratch_goes_with_its_content() {
    let scratch = Scratch::new().unwrap();
    let inside = scratch.directory("a/b").unwrap();
    fs::write(inside.join("file"), "x").unwrap();
    let path = scratch.path().to_owned();
    drop(scratch);
    assert!(!path.exists());
}

fn is_left(pid: Pid) -> bool {
    LEFT_TO_END.lock().children.iter().any(|&(child, _)| child == pid)
}

#[test]
fn dropped_child_is_dead_and_forgotten() {
    let child = OwnChild::start(Command::new("sleep").arg("1000"), Signal::KILL).unwrap();
    let pid = child.pid();
    assert!(is_left(pid));
    drop(child);
    assert!(!is_left(pid));
    assert!(rustix::process::test_kill_process(pid).is_err(), "reaped");
}

#[test]
fn dropped_child_gets_the_signal_it_cleans_up_on() {
    // A shell cannot handle what it was started to ignore, as below a shell's `&`.
    signal_hook::flag::register(signal_hook::consts::SIGQUIT, std::sync::Arc::default()).unwrap();
    let scratch = Scratch::new().unwrap();
    let (ready, cleaned) = (scratch.path().join("ready"), scratch.path().join("cleaned"));
    let script = format!(
        "trap 'touch {}; exit' QUIT; touch {}; while :; do sleep 0.01; done",
        cleaned.display(),
        ready.display()
    );
    let mut command = Command::new("sh");
    let child = OwnChild::start(command.arg("-c").arg(script), Signal::QUIT).unwrap();
    while !ready.exists() {
        thread::sleep(Duration::from_millis(1));
    }
    drop(child);
    assert!(cleaned.exists());
}
