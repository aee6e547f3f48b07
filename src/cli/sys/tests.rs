use std::os::unix::process::ExitStatusExt;

use super::*;

/// As if nothing was blocked or ignored when this process was started.
fn no_signals() -> &'static Inherited {
    // SAFETY: all zeroes is a valid value of the plain C type `sigset_t`: no signal.
    let blocked = unsafe { std::mem::zeroed() };
    Box::leak(Box::new(Inherited { blocked, ignored: 0 }))
}

/// A shell that would die of SIGPIPE at once.
fn command(guardian: impl Into<OwnedFd>) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "kill -PIPE $$"]);
    prepare(&mut command, guarded_by(guardian));
    command
}

fn guarded_by(guardian: impl Into<OwnedFd>) -> CommandBirth {
    CommandBirth {
        parent: rustix::process::getpid(),
        proofs: Vec::new(),
        guardian: Some(guardian.into()),
        terminal: None,
        inherited: no_signals(),
        listener: None,
    }
}

#[test]
fn without_a_guardian_there_is_no_command() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let error = command(writer).spawn().expect_err("it has no guardian");
    assert!(has_no_guardian(&error), "{error}");
}

#[test]
fn a_full_pipe_is_no_guardian_either() {
    let (_reader, writer) = io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while rustix::io::write(&writer, &[0]).is_ok() {}
    let error = command(writer).spawn().expect_err("it has no guardian");
    assert!(has_no_guardian(&error), "{error}");
}

#[test]
fn a_guarded_command_is_announced_and_has_the_usual_sigpipe() {
    let (mut reader, writer) = io::pipe().unwrap();
    let mut command = command(writer);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut told = Vec::new();
    io::Read::read_to_end(&mut reader, &mut told).unwrap();
    let group = super::super::guardian::GuardianMessage::Group(Pid::from_child(&child));
    assert_eq!(told, group.encode());
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGPIPE));
}

#[test]
fn a_program_that_is_not_there_is_something_else() {
    let (_reader, writer) = io::pipe().unwrap();
    let mut command = Command::new("/nonexistent/program");
    prepare(&mut command, guarded_by(writer));
    assert!(!has_no_guardian(&command.spawn().unwrap_err()));
}
