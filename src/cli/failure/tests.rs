use super::*;

#[test]
fn every_failure_is_one_line() {
    assert_eq!(one_line("plain"), "plain");
    assert_eq!(one_line("a:\n   b\r\n\n c"), "a: b c");
}

#[test]
fn sources_are_told_once() {
    let io = std::io::Error::other("disk is gone");
    let told = LockError::new(LockErrorKind::Io, "cannot write").with_source(io);
    assert_eq!(with_sources(&told), "cannot write: disk is gone");
    let io = std::io::Error::other("disk is gone");
    let told = LockError::new(LockErrorKind::Io, "cannot write: disk is gone").with_source(io);
    assert_eq!(with_sources(&told), "cannot write: disk is gone");
}

#[test]
fn kinds_have_their_statuses() {
    let status = |kind| match Failure::from(LockError::new(kind, "x")) {
        Failure::Said { status, .. } => status,
        Failure::Signal(_) => unreachable!(),
    };
    assert_eq!(status(LockErrorKind::WouldBlock), 75);
    assert_eq!(status(LockErrorKind::TimedOut), 75);
    assert_eq!(status(LockErrorKind::Unreachable), 69);
    assert_eq!(status(LockErrorKind::Lost), 76);
    assert_eq!(status(LockErrorKind::Refused), 77);
    assert_eq!(status(LockErrorKind::Config), 78);
    assert_eq!(status(LockErrorKind::Damaged), 74);
    assert_eq!(status(LockErrorKind::Io), 74);
}
