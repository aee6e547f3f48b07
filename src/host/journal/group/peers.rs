//! A member's connections to the other members: one to each, which it makes and makes again. What the
//! others say comes on connections that they make, at this member's own endpoint.

use std::{
    net::SocketAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::mail::{GroupMail, GroupNews, LookedUp};
use crate::{
    host::net::{
        address::Address,
        bell::Slept,
        quic::{CloseCode, Port, PortEvent},
        tls::Secret,
    },
    proto::{
        ConnectionId,
        client::Ended,
        group::{GroupFrame, MemberName},
        wire::{MEMBER_VERSION, MemberMessage},
    },
};

/// The pause before the first attempt after one that failed; it doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(320);
/// A connection without a sign of life for so long is given up. It is no measure of whether a member is
/// there: that the group's own frames tell.
const SILENCE: Duration = Duration::from_secs(2);
/// With so much to be sent a member is told nothing more: it does not read, and what it has missed is said
/// again when it does.
const UNSENT_BYTES_MAX: usize = 512 << 10;
/// The one connection of a port.
const CONNECTION: ConnectionId = ConnectionId(1);

/// The way to one other member.
pub(super) struct GroupPeer {
    own: MemberName,
    name: MemberName,
    address: Address,
    way: PeerWay,
    /// Attempts since a connection was made last.
    failures: u32,
    /// What its name was looked up as.
    found: Vec<SocketAddr>,
    /// What an operator was told last of why there is no connection.
    told: Option<String>,
}

enum PeerWay {
    /// Until the next attempt.
    Pause(Instant),
    LookingUp,
    Open {
        port: Box<Port>,
        is_connected: bool,
    },
}

/// What has become of the way to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerNews {
    Connected,
    /// Its port refuses every datagram: nothing listens there.
    Refused,
}

impl GroupPeer {
    pub(super) fn new(own: &MemberName, name: &MemberName, address: &Address) -> GroupPeer {
        GroupPeer {
            own: own.clone(),
            name: name.clone(),
            address: address.clone(),
            way: PeerWay::Pause(Instant::now()),
            failures: 0,
            found: Vec::new(),
            told: None,
        }
    }

    /// Takes in what has come, and begins what is due.
    pub(super) fn turn(&mut self, secret: &Secret, mail: &Arc<GroupMail>) -> Vec<PeerNews> {
        let mut news = Vec::new();
        self.receive(mail, &mut news);
        if let PeerWay::Pause(until) = self.way
            && until <= Instant::now()
        {
            match self.address.literal() {
                Some(literal) => {
                    self.found = vec![literal];
                    self.connect(secret);
                }
                None => self.look_up(mail),
            }
        }
        news
    }

    fn receive(&mut self, mail: &GroupMail, news: &mut Vec<PeerNews>) {
        let PeerWay::Open { port, is_connected } = &mut self.way else { return };
        port.receive();
        let (mut is_over, mut refused) = (false, None);
        while let Some(event) = port.poll_event() {
            match event {
                PortEvent::Connected(..) => {
                    *is_connected = true;
                    self.failures = 0;
                    let introduce = MemberMessage::Introduce {
                        version: MEMBER_VERSION,
                        from: self.own.as_str().to_owned(),
                        to: self.name.as_str().to_owned(),
                    };
                    port.write(CONNECTION, &introduce);
                    news.push(PeerNews::Connected);
                }
                // Nothing is said this way, and a leader's port alone is told the last.
                PortEvent::Readable(_) | PortEvent::TurnedAway(..) | PortEvent::Unaccepted(..) => {}
                PortEvent::Ended(_, ended) => {
                    is_over = true;
                    if let Ended::Refused(why) = ended {
                        refused = Some(why);
                    }
                }
            }
        }
        if port.take_refusal() {
            news.push(PeerNews::Refused);
            // The process that this connection was with is gone, and the next one knows nothing of it.
            port.close(CONNECTION, CloseCode::Done, "nothing listens here");
            port.transmit();
            is_over = true;
        }
        if is_over {
            self.pause();
        }
        if let Some(why) = refused.filter(|why| self.told.as_ref() != Some(why)) {
            let name = &self.name;
            mail.tell(GroupNews::Note(format!("{name} does not let this member in: {why}")));
            self.told = Some(why);
        }
    }

    fn pause(&mut self) {
        let pause = PAUSE.saturating_mul(1 << self.failures.min(8)).min(PAUSE_MAX);
        self.failures += 1;
        self.way = PeerWay::Pause(Instant::now() + pause);
    }

    /// A name server takes as long as it likes.
    fn look_up(&mut self, mail: &Arc<GroupMail>) {
        let (name, address, mail) = (self.name.clone(), self.address.clone(), mail.clone());
        let looking = thread::Builder::new().name("tierlock-lookup".into()).spawn(move || {
            mail.looked_up(name, address.resolve());
        });
        match looking {
            Ok(_) => self.way = PeerWay::LookingUp,
            Err(_) => self.pause(),
        }
    }

    /// Its name was looked up.
    pub(super) fn looked_up(&mut self, found: LookedUp, secret: &Secret) {
        if !matches!(self.way, PeerWay::LookingUp) {
            return;
        }
        match found {
            Ok(found) => {
                self.found = found;
                self.connect(secret);
            }
            Err(_) => self.pause(),
        }
    }

    /// Of several addresses each has its turn.
    fn connect(&mut self, secret: &Secret) {
        let Some(remote) = self.found.get(self.failures as usize % self.found.len().max(1)) else {
            return self.pause();
        };
        match Port::connect_as_member(CONNECTION, *remote, secret, SILENCE) {
            Ok(port) => {
                self.way = PeerWay::Open { port: Box::new(port), is_connected: false };
            }
            Err(_) => self.pause(),
        }
    }

    /// Sends it a frame, if it can be sent now.
    pub(super) fn send(&mut self, frame: &GroupFrame) {
        if let PeerWay::Open { port, is_connected: true } = &mut self.way
            && port.unsent(CONNECTION) < UNSENT_BYTES_MAX
        {
            port.write(CONNECTION, &MemberMessage::Frame(frame.encode()));
        }
    }

    pub(super) fn transmit(&mut self) {
        if let PeerWay::Open { port, .. } = &mut self.way {
            port.transmit();
        }
    }

    /// When its turn is due without anything having happened.
    pub(super) fn due(&mut self) -> Option<Instant> {
        match &mut self.way {
            PeerWay::Pause(until) => Some(*until),
            PeerWay::LookingUp => None,
            PeerWay::Open { port, .. } => port.timeout(),
        }
    }

    /// What to sleep on.
    pub(super) fn socket(&self) -> Option<Slept> {
        match &self.way {
            PeerWay::Open { port, .. } => Some((port.socket().clone(), port.is_blocked())),
            _ => None,
        }
    }
}

impl Drop for GroupPeer {
    fn drop(&mut self) {
        if let PeerWay::Open { port, .. } = &mut self.way {
            port.close_all(CloseCode::Done, "this member ends");
            port.transmit();
        }
    }
}

#[cfg(test)]
mod tests;
