use super::*;

#[test]
fn messages_survive_the_pipe() {
    let pid = Pid::from_raw(4711).unwrap();
    for message in [
        GuardianMessage::Group(pid),
        GuardianMessage::Deadline(Time::from_nanos(123_456_789_000)),
        GuardianMessage::Deadline(Time::NEVER),
    ] {
        assert_eq!(GuardianMessage::decode(message.encode()), Some(message));
    }
    assert_eq!(GuardianMessage::decode([b'g'; MESSAGE_BYTES]), None);
    assert_eq!(GuardianMessage::decode([0; MESSAGE_BYTES]), None);
}
