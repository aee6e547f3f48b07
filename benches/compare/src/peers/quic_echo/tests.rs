use super::*;

#[test]
fn frames_are_taken_whole_and_in_order() {
    let frames = Frames::new();
    let mut stream = [frames.acquire.clone(), frames.release.clone(), granted()].concat();
    let tail = stream.split_off(stream.len() - 3);
    let mut kinds = Vec::new();
    take_frames(&mut stream, |kind, _| kinds.push(kind));
    assert_eq!(kinds, [ACQUIRE, RELEASE]);
    stream.extend(tail);
    take_frames(&mut stream, |kind, _| kinds.push(kind));
    assert_eq!(kinds, [ACQUIRE, RELEASE, ACQUIRE]);
    assert!(stream.is_empty());
}
