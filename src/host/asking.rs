//! Asks leaders what they are, and one of them to step down: without a session, each at its own address.
//!
//! A client goes to the leader that reigns. An operator wants to hear from those that stand by as well,
//! and of those that are silent.

use std::{
    fmt, io,
    net::SocketAddr,
    thread,
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
    printable::Printable,
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
    pub(crate) told: std::result::Result<LeaderStanding, NotTold>,
}

impl AskedLeader {
    /// Whether it is of a release that does not tell what it is.
    pub(crate) fn is_older(&self) -> bool {
        matches!(self.told, Err(NotTold::Older))
    }
}

/// Why a leader has not told what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotTold {
    /// It does not answer.
    Silent(String),
    /// It does not let us ask: its secret is another, or it takes no more connections.
    Refused(String),
    /// It is of an earlier release, which knows no such question.
    Older,
}

impl fmt::Display for NotTold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotTold::Silent(why) => write!(f, "silent ({})", Printable(why)),
            NotTold::Refused(why) => write!(f, "refuses to be asked ({})", Printable(why)),
            NotTold::Older => f.write_str("is of an earlier release, which does not tell"),
        }
    }
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
            told: asking
                .join()
                .unwrap_or_else(|_| Err(NotTold::Silent("asking it has failed (a panic)".into()))),
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
) -> Result<std::result::Result<Option<StepDownRefusal>, NotTold>> {
    let ask = ClientMessage::StepDown { query: QUERY, reign };
    Ok(ask_one(&address.parse()?, secret, limit, &ask, |answer| match answer {
        LeaderMessage::StepsDown { refused, .. } => Some(refused),
        _ => None,
    }))
}

/// One question is asked on each connection.
const QUERY: RequestId = RequestId(1);

/// Of a name that has several addresses each is tried for its share of the time, until one answers. How
/// long a name server takes is not counted.
fn ask_one<T>(
    address: &Address,
    secret: &Secret,
    limit: Duration,
    ask: &ClientMessage,
    answered: impl Fn(LeaderMessage) -> Option<T>,
) -> std::result::Result<T, NotTold> {
    let found = address.resolve();
    let found = found.map_err(|error| NotTold::Silent(format!("cannot look it up: {error}")))?;
    ask_any(&found, secret, limit, ask, answered)
}

fn ask_any<T>(
    found: &[SocketAddr],
    secret: &Secret,
    limit: Duration,
    ask: &ClientMessage,
    answered: impl Fn(LeaderMessage) -> Option<T>,
) -> std::result::Result<T, NotTold> {
    let begun = Instant::now();
    let mut trouble = NotTold::Silent("the name has no address".to_owned());
    for (tried, remote) in found.iter().enumerate() {
        let left = limit.saturating_sub(begun.elapsed());
        let until = Instant::now() + left / (found.len() - tried) as u32;
        let connected = Port::connect(CONNECTION, *remote, secret, limit).map(Questioner);
        let answer = match connected {
            Ok(mut questioner) => questioner.ask(ask, until, &answered),
            Err(error) => Err(NotTold::Silent(format!("cannot reach {remote}: {error}"))),
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
    ) -> std::result::Result<T, NotTold> {
        let Questioner(port) = self;
        let bell = Bell::new()
            .map_err(|error: io::Error| NotTold::Silent(format!("cannot make a pipe: {error}")))?;
        port.write(CONNECTION, ask);
        loop {
            port.transmit();
            let now = Instant::now();
            if until <= now {
                return Err(NotTold::Silent("it does not answer".to_owned()));
            }
            let due = port.timeout().map_or(until, |at| at.min(until));
            let sockets = [(port.socket().clone(), port.is_blocked())];
            bell.sleep(&sockets, due.saturating_duration_since(now));
            port.receive();
            // What came before the end of the connection first: it may be the answer.
            while let Some(message) = port.read::<LeaderMessage>(CONNECTION) {
                if let LeaderMessage::NotUnderstood { .. } = message {
                    return Err(NotTold::Older);
                }
                if let Some(answer) = answered(message) {
                    return Ok(answer);
                }
            }
            while let Some(event) = port.poll_event() {
                if let PortEvent::Ended(_, ended) = event {
                    return Err(match ended {
                        Ended::Disconnected(why) | Ended::NotThere(why) => NotTold::Silent(why),
                        Ended::Refused(why) => NotTold::Refused(why),
                    });
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
