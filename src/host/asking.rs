//! Asks leaders what they are, and one of them to step down: without a session, each at its own address.
//!
//! A client goes to the leader that reigns. An operator wants to hear from those that stand by as well,
//! and of those that are silent.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use super::net::{
    address::Address,
    bell::Bell,
    quic::{CloseCode, Port, PortEvent},
    tls::Secret,
};
use crate::{
    error::Result,
    proto::{
        ConnectionId, ReignId, RequestId,
        client::Ended,
        wire::{ClientMessage, LeaderMessage, LeaderStanding, StepDownRefusal},
    },
};

/// What became of asking one address.
pub(crate) struct AskedLeader {
    pub(crate) address: String,
    /// Its own word, or why there is none.
    pub(crate) told: std::result::Result<LeaderStanding, String>,
}

/// Asks all of these addresses at once, each for so long at most.
///
/// # Errors
///
/// `Config` for an address that is none.
pub(crate) fn ask_leaders(
    addresses: &[String],
    secret: &Secret,
    limit: Duration,
) -> Result<Vec<AskedLeader>> {
    let parsed = addresses.iter().map(|text| text.parse()).collect::<Result<Vec<Address>>>()?;
    let ask = ClientMessage::AskStanding { query: QUERY };
    let told = |answer| match answer {
        LeaderMessage::Standing { standing, .. } => Some(*standing),
        _ => None,
    };
    Ok(thread::scope(|scope| {
        let asking: Vec<_> = parsed
            .iter()
            .map(|address| scope.spawn(|| ask_one(address, secret, limit, &ask, told)))
            .collect();
        let answers = asking.into_iter().zip(addresses).map(|(asking, address)| AskedLeader {
            address: address.clone(),
            told: asking.join().unwrap_or_else(|_| Err("asking it has failed (a panic)".into())),
        });
        answers.collect()
    }))
}

/// Asks the leader at this address to step down, if it is still in this reign: why it does not, if so. On
/// `Err` it may have heard it.
pub(crate) fn ask_to_step_down(
    address: &str,
    secret: &Secret,
    limit: Duration,
    reign: ReignId,
) -> Result<std::result::Result<Option<StepDownRefusal>, String>> {
    let ask = ClientMessage::StepDown { query: QUERY, reign };
    Ok(ask_one(&address.parse()?, secret, limit, &ask, |answer| match answer {
        LeaderMessage::StepsDown { refused, .. } => Some(refused),
        _ => None,
    }))
}

/// One question is asked on each connection.
const QUERY: RequestId = RequestId(1);

/// Of a name that has several addresses each is tried for its share of the time, until one answers.
fn ask_one<T>(
    address: &Address,
    secret: &Secret,
    limit: Duration,
    ask: &ClientMessage,
    answered: impl Fn(LeaderMessage) -> Option<T>,
) -> std::result::Result<T, String> {
    let begun = Instant::now();
    let found = address.resolve().map_err(|error| format!("cannot look it up: {error}"))?;
    let mut trouble = "the name has no address".to_owned();
    for (tried, remote) in found.iter().enumerate() {
        let left = limit.saturating_sub(begun.elapsed());
        let until = Instant::now() + left / (found.len() - tried) as u32;
        let connected = Port::connect(CONNECTION, *remote, secret, limit).map(Questioner);
        let answer = match connected {
            Ok(mut questioner) => questioner.ask(ask, until, &answered),
            Err(error) => Err(format!("cannot reach {remote}: {error}")),
        };
        match answer {
            Ok(answer) => return Ok(answer),
            Err(text) => trouble = text,
        }
    }
    Err(trouble)
}

const CONNECTION: ConnectionId = ConnectionId(1);

/// One connection, for one question.
struct Questioner(Port);

impl Questioner {
    fn ask<T>(
        &mut self,
        ask: &ClientMessage,
        until: Instant,
        answered: &impl Fn(LeaderMessage) -> Option<T>,
    ) -> std::result::Result<T, String> {
        let Questioner(port) = self;
        let bell =
            Bell::new().map_err(|error: io::Error| format!("cannot make a pipe: {error}"))?;
        port.write(CONNECTION, ask);
        loop {
            port.transmit();
            let now = Instant::now();
            if until <= now {
                return Err("it does not answer".to_owned());
            }
            let due = port.timeout().map_or(until, |at| at.min(until));
            let sockets = [(port.socket().clone(), port.is_blocked())];
            bell.sleep(&sockets, due.saturating_duration_since(now));
            port.receive();
            while let Some(event) = port.poll_event() {
                if let PortEvent::Ended(_, ended) = event {
                    let (Ended::Disconnected(text) | Ended::NotThere(text) | Ended::Refused(text)) =
                        ended;
                    return Err(text);
                }
            }
            while let Some(message) = port.read::<LeaderMessage>(CONNECTION) {
                if let LeaderMessage::NotUnderstood { .. } = message {
                    return Err("it is of an earlier release, which does not tell".to_owned());
                }
                if let Some(answer) = answered(message) {
                    return Ok(answer);
                }
            }
        }
    }
}

impl Drop for Questioner {
    fn drop(&mut self) {
        let Questioner(port) = self;
        port.close_all(CloseCode::Done, "not needed any more");
        port.transmit();
    }
}
