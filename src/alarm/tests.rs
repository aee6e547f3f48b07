use std::{panic::panic_any, sync::mpsc};

use super::*;

#[test]
fn a_call_that_panics_keeps_no_other_from_ringing() {
    let (tell, told) = mpsc::channel();
    call_at(Time::ZERO, || panic!("on purpose")).detach();
    call_at(Time::ZERO, move || tell.send(()).unwrap()).detach();
    told.recv().unwrap();
}

/// What a panic leaves behind when it is caught.
struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("once more on purpose");
    }
}

#[test]
fn a_panic_with_a_payload_that_panics_keeps_no_other_from_ringing() {
    let (tell, told) = mpsc::channel();
    call_at(Time::ZERO, || panic_any(PanicsWhenDropped)).detach();
    call_at(Time::ZERO, move || tell.send(()).unwrap()).detach();
    told.recv().unwrap();
}

#[test]
fn alarms_that_do_not_return_keep_no_other_from_ringing() {
    let ((tell, told), mut kept) = (mpsc::channel(), Vec::new());
    for number in 0..3 {
        let (lets_go, may_return) = mpsc::channel::<()>();
        let (come, has_come) = mpsc::channel();
        let stuck = move || {
            come.send(()).unwrap();
            let _ = may_return.recv();
        };
        call_at(Time::ZERO, stuck).detach();
        has_come.recv().unwrap();
        kept.push(lets_go);
        let tell = tell.clone();
        call_at(Time::ZERO, move || tell.send((number, is_here())).unwrap()).detach();
        let rung = told.recv_timeout(Duration::from_secs(20));
        assert_eq!(rung, Ok((number, true)), "another rings in its place");
    }
    drop(kept);
    // Those that come back serve no longer.
    while Alarms::here().set.lock().kept > 0 {
        thread::yield_now();
    }
    call_at(Time::ZERO, move || tell.send((3, is_here())).unwrap()).detach();
    assert_eq!(told.recv(), Ok((3, true)));
}

#[test]
fn alarms_taken_back_leave_the_heap() {
    let never = Time::NEVER;
    for _ in 0..10_000 {
        drop(call_at(never, || ()));
    }
    // Other tests may have set theirs; they are few.
    assert!(Alarms::here().set.lock().heap.len() < 1_000);
}

#[test]
fn alarms_ring_in_the_order_of_their_times() {
    let (tell, told) = mpsc::channel();
    let start = clock::now();
    for wait in [30, 10, 20] {
        let tell = tell.clone();
        let at = start + Duration::from_millis(wait);
        call_at(at, move || tell.send((wait, clock::now() >= at)).unwrap()).detach();
    }
    let rung: Vec<_> = told.iter().take(3).collect();
    assert_eq!(rung, [(10, true), (20, true), (30, true)]);
}
