//! Servers of others, started for one run on a free port of loopback.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use crate::bench::{
    cleanup::OwnChild,
    failure::{Failure, Result},
    worker::{self, Job},
};

/// Where an installed program is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/bin", "/usr/bin", "/usr/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// Starts a program that listens on the port given to `arguments`, and waits until it does. It is
/// killed when the child is dropped, and dies with the bench in any case.
pub(crate) fn start(
    subject: &'static str,
    program: &Path,
    arguments: impl Fn(u16) -> Vec<String>,
) -> Result<(OwnChild, u16)> {
    let mut last = None;
    // Somebody else may take the port that was free a moment ago.
    for _ in 0..3 {
        let port = free_port()?;
        let job = Job::Become { program: program.to_owned(), arguments: arguments(port) };
        let mut command = worker::command(job)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = OwnChild::start(&mut command)
            .map_err(Failure::io(format!("cannot start {}", program.display())))?;
        match wait_until_it_listens(&mut child, port) {
            Ok(()) => return Ok((child, port)),
            Err(message) => last = Some(message),
        }
    }
    let message = format!("{} {}", program.display(), last.unwrap_or_default());
    Err(Failure::Peer { subject, message })
}

fn free_port() -> Result<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(Failure::io("cannot find a free port"))
}

fn wait_until_it_listens(child: &mut OwnChild, port: u16) -> Result<(), String> {
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(status) = child.ended() {
            return Err(format!("ended at once: {status}"));
        }
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(());
        }
        if Instant::now() > patience {
            return Err("does not listen after 10 s".into());
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_on_the_path_or_not_at_all() {
        assert!(find("sh").is_some());
        assert_eq!(find("tierlock-no-such-program"), None);
    }
}
