//! `tierlock serve`: a leader in the foreground.

use std::{
    io::{self, Write},
    net::{IpAddr, SocketAddr, ToSocketAddrs},
};

use signal_hook::{
    consts::signal::{SIGINT, SIGTERM},
    iterator::Signals,
};

use super::{
    args,
    failure::{Failure, exit},
};
use crate::host::Leader;

/// The port when none is given.
const PORT: u16 = 7420;

/// Serves until a signal or a failure of the storage ends the reign.
pub(super) fn serve(serve: args::Serve) -> Result<u8, Failure> {
    let secret_file = serve.secret_file()?;
    // Before anything is written: from here on a signal ends us in good order.
    let mut signals = Signals::new([SIGTERM, SIGINT])
        .map_err(|error| Failure::internal("cannot listen to signals", error))?;
    let mut leader = Leader::builder()
        .listen(address(&serve.listen)?)
        .state_dir(&serve.state_dir)
        .secret_file(secret_file)
        .time_to_live_max(serve.ttl_max);
    if let Some(epoch) = serve.epoch_above {
        leader = leader.epoch_above(epoch);
    }
    let leader = leader.start()?;
    announce(leader.local_addr());
    let until_signal = signals.handle();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if signals.forever().next().is_some() {
                leader.shutdown();
            }
        });
        let ended = leader.wait();
        until_signal.close();
        ended
    })?;
    Ok(0)
}

/// Whoever started us waits for this line, perhaps through a pipe. Nobody has to.
fn announce(address: SocketAddr) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "listening on {address}").and_then(|()| out.flush());
}

/// `HOST:PORT`, `HOST`, or an address of either family without a port.
fn address(text: &str) -> Result<SocketAddr, Failure> {
    let complaint = |why: &dyn std::fmt::Display| {
        let line = format!("--listen {text:?}: {why}; write it as HOST:PORT, as 0.0.0.0:7420");
        Failure::new(exit::USAGE, line)
    };
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, PORT));
    }
    let has_port = text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let found = match has_port {
        true => text.to_socket_addrs(),
        false => (text, PORT).to_socket_addrs(),
    };
    let mut found = found.map_err(|error| complaint(&error))?;
    found.next().ok_or_else(|| complaint(&"no address has this name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_may_be_left_out() {
        let parsed = |text| address(text).map(|address| address.to_string()).ok();
        assert_eq!(parsed("127.0.0.1:0").as_deref(), Some("127.0.0.1:0"));
        assert_eq!(parsed("127.0.0.1").as_deref(), Some("127.0.0.1:7420"));
        assert_eq!(parsed("[::1]:9").as_deref(), Some("[::1]:9"));
        assert_eq!(parsed("[::1]").as_deref(), Some("[::1]:7420"));
        assert_eq!(parsed("::1").as_deref(), Some("[::1]:7420"));
        assert_eq!(parsed("127.0.0.1:port"), None);
        assert_eq!(parsed(""), None);
    }
}
