//! `tierlock serve`: a leader in the foreground.

mod http;
mod log;
mod metrics;
mod page;
mod supervision;

use std::{
    io::{self, Write},
    net::SocketAddr,
};

use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTERM};

use self::{http::HttpSockets, supervision::ServiceManager};
use super::{
    args,
    events::{CliEvent, Events},
    failure::Failure,
};
use crate::host::Leader;

/// Serves until a signal or a failure of the storage ends the reign.
pub(super) fn serve(serve: args::Serve) -> Result<u8, Failure> {
    let (secret_file, journal) = (serve.secret_file()?, serve.journal()?);
    let http = http::open(&serve.telling, &secret_file)?;
    // Before anything is written: from here on a signal ends us in good order, or has us read the
    // secret file again.
    let events = Events::listen_to([SIGTERM, SIGINT, SIGHUP])
        .map_err(|error| Failure::internal("cannot listen to signals", error))?;
    let mut leader = Leader::builder()
        .listen(serve.listen)
        .secret_file(secret_file)
        .time_to_live_max(serve.ttl_max)
        .sessions_max(serve.sessions_max)
        .claims_max(serve.claims_max)
        .init(serve.init);
    leader = log::to(serve.telling.log, leader);
    if http.is_some() {
        leader = leader.counted();
    }
    if let Some(file) = serve.revoked {
        leader = leader.revoked_file(file);
    }
    if let Some(directory) = serve.state_dir {
        leader = leader.state_dir(directory);
    }
    if let Some(members) = serve.group {
        leader = leader.group(members);
    }
    if let Some(id) = serve.member {
        leader = leader.member(id);
    }
    if let Some(lasts) = serve.reign {
        leader = leader.reign_lasts(lasts);
    }
    if let Some(url) = journal {
        leader = leader.journal(url);
    }
    if let Some(address) = serve.address {
        leader = leader.address(address);
    }
    for name in serve.accept_fs {
        leader = leader.accept_file_system(name);
    }
    if let Some(epoch) = serve.epoch_above {
        leader = leader.epoch_above(epoch);
    }
    let pages = http.as_ref().map(HttpSockets::addresses).unwrap_or_default();
    // Its sockets take connections already, and none of them is to wait for a leader that is slow to start.
    let http = http.map(HttpSockets::serve).transpose()?;
    let leader = leader.start()?;
    if let Some(http) = &http {
        http.show(leader.window());
    }
    announce(leader.local_addrs(), &pages);
    leader.wake_at_end(events.waker());
    let mut service_manager = ServiceManager::told_ready(leader.window(), &events);
    loop {
        match events.next(service_manager.as_ref().map(ServiceManager::sleeps)) {
            Some(CliEvent::Signal(SIGHUP)) => leader.reload(),
            Some(CliEvent::Signal(_)) => break,
            _ => {}
        }
        if let Some(failure) = leader.failure() {
            return Err(failure.into());
        }
        if let Some(manager) = &mut service_manager {
            manager.look();
        }
    }
    if let Some(manager) = service_manager {
        manager.tell_stopping();
    }
    leader.shutdown();
    Ok(0)
}

/// The program that started us may wait for these lines, perhaps through a pipe. It does not have
/// to.
fn announce(addresses: &[SocketAddr], pages: &[SocketAddr]) {
    let mut out = io::stdout().lock();
    let listens = addresses.iter().map(|address| format!("listening on {address}"));
    let shows = pages.iter().map(|address| format!("shown at http://{address}/"));
    let mut written = listens.chain(shows).map(|line| writeln!(out, "{line}"));
    let _ = written.try_for_each(|written| written).and_then(|()| out.flush());
}
