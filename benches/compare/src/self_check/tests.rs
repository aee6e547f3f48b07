use super::*;

#[test]
fn bench_and_loop_agree_on_what_only_takes_time() {
    let spin = Box::new(|| {
        crate::bench::jobs::spin_until(Instant::now() + Duration::from_micros(50));
        Ok(())
    });
    let line = compare("a spin", spin, Duration::from_millis(10)).unwrap();
    // Both at least what they time, whatever else the machine does.
    assert!(
        line.bench_ns >= 49_000.0 && line.loop_ns >= 49_000.0,
        "{} {}",
        line.bench_ns,
        line.loop_ns
    );
}

#[test]
fn every_scope_is_checked_unless_one_is_asked_for() {
    let whats = |scope| -> Vec<&str> {
        run(scope, 0.05).unwrap().self_check.iter().map(|line| line.what).collect()
    };
    assert_eq!(whats(None).len(), 4);
    assert_eq!(whats(Some(Scope::Process)), ["tierlock, process, quiet"]);
}
