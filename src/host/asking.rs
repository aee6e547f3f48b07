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
    client_keys::ClientKeys,
    quic::{CloseCode, Port, PortEvent},
};
use crate::{
    error::Result,
    printable::Printable,
    proto::{
        ConnectionId, ReignId, RequestId,
        client::Ended,
        wire::{
            ClientMessage, DiskReplacement, GroupReport, LeaderMessage, LeaderStanding,
            StepDownRefusal,
        },
    },
};

/// What became of asking one address.
pub(crate) struct AskedLeader {
    pub(crate) address: String,
    /// Its own word, or why there is none.
    pub(crate) told: std::result::Result<LeaderStanding, NotTold>,
    /// What it says of the group that keeps its journal, if one does.
    pub(crate) group: Option<Box<GroupReport>>,
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
    keys: &ClientKeys,
    limit: Duration,
) -> Result<Vec<AskedLeader>> {
    let parsed = addresses.iter().map(|text| text.parse()).collect::<Result<Vec<Address>>>()?;
    let ask = [
        ClientMessage::AskStanding { query: QUERY },
        ClientMessage::AskGroup { query: GROUP_QUERY },
    ];
    Ok(thread::scope(|scope| {
        let asking: Vec<_> = parsed
            .iter()
            .map(|address| scope.spawn(|| ask_one(address, keys, limit, &ask, told_of_itself)))
            .collect();
        let answers = asking.into_iter().zip(addresses).map(|(asking, address)| {
            let told = asking.join();
            let told = told
                .unwrap_or_else(|_| Err(NotTold::Silent("asking it has failed (a panic)".into())));
            let address = address.clone();
            match told {
                Ok((standing, group)) => AskedLeader { address, told: Ok(standing), group },
                Err(not_told) => AskedLeader { address, told: Err(not_told), group: None },
            }
        });
        answers.collect()
    }))
}

/// Asks the leader at this address to step down, if it is still in this reign: why it does not, if so. On
/// `Err` it may have heard it.
pub(crate) fn ask_to_step_down(
    address: &str,
    keys: &ClientKeys,
    limit: Duration,
    reign: ReignId,
) -> Result<std::result::Result<Option<StepDownRefusal>, NotTold>> {
    let ask = [ClientMessage::StepDown { query: QUERY, reign }];
    Ok(ask_one(&address.parse()?, keys, limit, &ask, |answers| {
        answers.iter().find_map(|answer| match answer {
            LeaderMessage::StepsDown { refused, .. } => Some(*refused),
            _ => None,
        })
    }))
}

/// Asks the leader at this address to admit the disk that a member of its group has now. On `Err` it may
/// have heard it.
pub(crate) fn ask_to_replace(
    address: &str,
    keys: &ClientKeys,
    limit: Duration,
    member: &str,
) -> Result<std::result::Result<DiskReplacement, NotTold>> {
    let ask = [ClientMessage::Replace { query: QUERY, member: member.to_owned() }];
    Ok(ask_one(&address.parse()?, keys, limit, &ask, |answers| {
        answers.iter().find_map(|answer| match answer {
            LeaderMessage::Replaced { outcome, .. } => Some(outcome.clone()),
            _ => None,
        })
    }))
}

const NOT_PERMITTED: &str =
    "this credential is not for that: it takes one of the role admin, for all names";

const QUERY: RequestId = RequestId(1);
/// The second question on one connection.
const GROUP_QUERY: RequestId = RequestId(2);

/// What a leader is, and what it says of its group, once both are told.
fn told_of_itself(answers: &[LeaderMessage]) -> Option<(LeaderStanding, Option<Box<GroupReport>>)> {
    let standing = answers.iter().find_map(|answer| match answer {
        LeaderMessage::Standing { standing, .. } => Some((**standing).clone()),
        _ => None,
    })?;
    let group = answers.iter().find_map(|answer| match answer {
        LeaderMessage::Group { report, .. } => Some(report.clone()),
        // Of a release without groups.
        LeaderMessage::NotUnderstood { request: Some(GROUP_QUERY), .. } => Some(None),
        _ => None,
    })?;
    Some((standing, group))
}

/// Of a name that has several addresses each is tried for its share of the time, until one answers. How
/// long a name server takes is not counted.
fn ask_one<T>(
    address: &Address,
    keys: &ClientKeys,
    limit: Duration,
    ask: &[ClientMessage],
    answered: impl Fn(&[LeaderMessage]) -> Option<T>,
) -> std::result::Result<T, NotTold> {
    let found = address.resolve();
    let found = found.map_err(|error| NotTold::Silent(format!("cannot look it up: {error}")))?;
    ask_any(&found, keys, limit, ask, answered)
}

fn ask_any<T>(
    found: &[SocketAddr],
    keys: &ClientKeys,
    limit: Duration,
    ask: &[ClientMessage],
    answered: impl Fn(&[LeaderMessage]) -> Option<T>,
) -> std::result::Result<T, NotTold> {
    let begun = Instant::now();
    let mut trouble = NotTold::Silent("the name has no address".to_owned());
    for (tried, remote) in found.iter().enumerate() {
        let left = limit.saturating_sub(begun.elapsed());
        let until = Instant::now() + left / (found.len() - tried) as u32;
        let connected = Port::connect(CONNECTION, *remote, keys, limit).map(Questioner);
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

/// One connection, for one question or two.
struct Questioner(Port);

impl Questioner {
    fn ask<T>(
        &mut self,
        ask: &[ClientMessage],
        until: Instant,
        answered: &impl Fn(&[LeaderMessage]) -> Option<T>,
    ) -> std::result::Result<T, NotTold> {
        let Questioner(port) = self;
        let bell = Bell::new()
            .map_err(|error: io::Error| NotTold::Silent(format!("cannot make a pipe: {error}")))?;
        ask.iter().for_each(|question| port.write(CONNECTION, question));
        let mut answers = Vec::new();
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
                if let LeaderMessage::NotUnderstood { request: None | Some(QUERY), .. } = message {
                    return Err(NotTold::Older);
                }
                if let LeaderMessage::Refused { request: QUERY, .. } = message {
                    return Err(NotTold::Refused(NOT_PERMITTED.to_owned()));
                }
                answers.push(message);
                if let Some(answer) = answered(&answers) {
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
