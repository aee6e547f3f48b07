//! All that processes can do to one lock at once, while they are killed and stopped.

use crate::{
    helper::Helper,
    setting::{Setting, at, until},
};

at!([process process_file] a_lock_stands_a_storm);
/// Threads and tasks of two managers in each of four processes wait, give up, are cancelled, panic inside and fork, and
/// the processes are killed and stopped at any time; a number that nothing else protects loses no change.
fn a_lock_stands_a_storm(setting: &Setting) {
    storm(setting, 60);
}

/// `cargo test --release --all-features --test it a_lock_stands_a_long_storm -- --ignored`
#[test]
#[ignore = "takes minutes"]
fn a_lock_stands_a_long_storm() {
    storm(&Setting::process(), 2_000);
    storm(&Setting::process_file(), 500);
}

fn storm(setting: &Setting, blows: u64) {
    let folder = setting.directory().join("storm");
    std::fs::create_dir(&folder).unwrap();
    let start = |seed: u64| {
        let mut helper = setting.helper_with_two_managers();
        helper.say(&format!("storm\ta\t{}\t{seed}", folder.display()));
        helper
    };
    let done = || std::fs::metadata(folder.join("done")).map_or(0, |found| found.len());
    let goes_on = |helpers: &mut [Helper]| {
        let before = done();
        until("more of it done", || {
            for helper in helpers.iter_mut() {
                assert!(!helper.has_spoken(), "{}", helper.hear());
            }
            done() > before + 20
        });
    };
    let mut helpers: Vec<Helper> = (0..4).map(start).collect();
    for blow in 0..blows {
        goes_on(&mut helpers);
        let victim = (blow * 7 % 4) as usize;
        if blow % 3 == 0 {
            // One that stands still inside keeps all others out, and goes on where it was.
            helpers[victim].stop();
            helpers[victim].resume();
        } else {
            helpers[victim].kill();
            helpers[victim] = start(4 + blow);
        }
    }
    goes_on(&mut helpers);
    drop(helpers);
    // Children that were forked last may be at it yet, and end.
    let mutex = setting.mutex(&setting.locks(), "a", ());
    drop(mutex.try_lock_for(crate::setting::LONG).unwrap());
}
