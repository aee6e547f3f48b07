use std::sync::mpsc;

use super::*;

#[test]
fn callbacks_that_block_or_panic_delay_no_other() {
    let (stop, stopped) = mpsc::channel::<()>();
    let stopped = std::sync::Arc::new(Mutex::new(stopped));
    for _ in 0..8 {
        let stopped = stopped.clone();
        run(move || {
            let _ = lock(&stopped).recv();
        });
        run(|| panic!("on purpose"));
    }
    let (tell, told) = mpsc::channel();
    run(move || tell.send(()).unwrap());
    told.recv().unwrap();
    drop(stop);
}

#[test]
fn more_callbacks_than_threads_all_run() {
    let callbacks: &'static Callbacks = Box::leak(Box::new(Callbacks::new()));
    let (tell, told) = mpsc::channel();
    let (stop, stopped) = mpsc::channel::<()>();
    let stopped = std::sync::Arc::new(Mutex::new(stopped));
    for number in 0..3 * THREADS_MAX {
        let (tell, stopped) = (tell.clone(), stopped.clone());
        let work = move || {
            let _ = lock(&stopped).recv();
            tell.send(number).unwrap();
        };
        lock(&callbacks.state).queue.push_back(Box::new(work));
        callbacks.serve_queue();
    }
    assert_eq!(lock(&callbacks.state).threads, THREADS_MAX);
    drop(stop);
    let mut ran: Vec<_> = told.iter().take(3 * THREADS_MAX).collect();
    ran.sort_unstable();
    assert!(ran.into_iter().eq(0..3 * THREADS_MAX));
}
