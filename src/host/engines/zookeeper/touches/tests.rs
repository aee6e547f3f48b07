use super::*;

#[test]
fn an_answer_proves_what_was_said_half_a_tick_before_and_not_itself() {
    let second = Duration::from_secs(1);
    let at = |tenths: u32| Time::ZERO + second * tenths / 10;
    let mut touches = Touches::new(at(10), second * 4);
    assert_eq!(touches.answered(at(15), at(16)), at(10));
    assert_eq!(touches.answered(at(25), at(26)), at(10), "9 tenths after the answer");
    assert_eq!(touches.answered(at(26), at(27)), at(15));
    assert_eq!(touches.answered(at(36), at(37)), at(25));
    assert_eq!(touches.answered(at(90), at(91)), at(36), "of what was sent before the silence");
}

#[test]
fn a_follower_that_is_cut_off_after_an_answer_gives_no_more_than_the_leader_does() {
    // The leader asks each half tick, and counts from then; it hears nothing after the cut.
    let life = Duration::from_millis(4_000);
    let tick = Duration::from_millis(2_000);
    let step = life / 6;
    for cut in (0..8_000).map(Duration::from_millis).step_by(7) {
        let (cut, begun) = (Time::ZERO + cut, Time::ZERO);
        let mut touches = Touches::new(begun, life);
        let (mut proven, mut said, mut heard) = (begun, Vec::new(), begun);
        let mut now = begun;
        while now < cut {
            said.push(now);
            proven = touches.answered(now, now);
            now = now + step;
        }
        let mut asked = begun;
        while asked < cut {
            if said.iter().any(|at| *at <= asked && *at + tick / 2 > asked) {
                heard = asked;
            }
            asked = asked + tick / 2;
        }
        assert!(proven <= heard, "cut at {cut:?}: counted from {proven:?}, the leader {heard:?}");
    }
}
