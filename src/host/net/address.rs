//! Addresses as people write them: a host name or an IP address, and perhaps a port.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket},
    str::FromStr,
};

use crate::error::LockError;

/// The port when none is named.
pub(crate) const DEFAULT_PORT: u16 = 7420;

/// `HOST`, `HOST:PORT`, `IPV4`, `IPV4:PORT`, `IPV6`, `[IPV6]` or `[IPV6]:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// The socket address, if no name has to be looked up for it.
    pub(crate) fn literal(&self) -> Option<SocketAddr> {
        let ip = self.host.parse::<IpAddr>().ok()?;
        Some(SocketAddr::new(ip, self.port))
    }

    /// All socket addresses of this name. May take as long as the system's resolver does.
    pub(crate) fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        if let Some(literal) = self.literal() {
            return Ok(vec![literal]);
        }
        let found: Vec<_> = (self.host.as_str(), self.port).to_socket_addrs()?.collect();
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(found)
    }
}

impl FromStr for Address {
    type Err = LockError;

    fn from_str(text: &str) -> Result<Address, LockError> {
        let text = text.trim();
        let invalid = |what: &str| LockError::config(format!("invalid address {text:?}: {what}"));
        let bad = || invalid("write HOST:PORT or HOST");
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(bad)?;
            match rest {
                "" => (host, None),
                rest => (host, Some(rest.strip_prefix(':').ok_or_else(bad)?)),
            }
        } else if text.parse::<IpAddr>().is_ok() {
            (text, None)
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
        if host.is_empty() || !host.chars().all(is_host) {
            return Err(bad());
        }
        let port = match port {
            Some(port) => port.parse().map_err(|_| match port.parse::<u64>() {
                Ok(_) => invalid("the port must be at most 65535"),
                Err(_) => bad(),
            })?,
            None => DEFAULT_PORT,
        };
        Ok(Address { host: host.to_owned(), port })
    }
}

/// Where a leader listens: an [`Address`], or `:PORT` for every address of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListenAddress {
    At(Address),
    Everywhere { port: u16 },
}

impl ListenAddress {
    /// The socket addresses to listen at.
    pub(crate) fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match self {
            ListenAddress::At(address) => address.resolve(),
            // That of IPv6 serves both, where there is one.
            ListenAddress::Everywhere { port } => {
                let everywhere = match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)) {
                    Ok(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
                    Err(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
                };
                Ok(vec![SocketAddr::new(everywhere, *port)])
            }
        }
    }
}

impl FromStr for ListenAddress {
    type Err = LockError;

    fn from_str(text: &str) -> Result<ListenAddress, LockError> {
        match text.trim().strip_prefix(':').map(str::parse) {
            Some(Ok(port)) => Ok(ListenAddress::Everywhere { port }),
            _ => text.parse().map(ListenAddress::At),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::At(address) => address.fmt(f),
            ListenAddress::Everywhere { port } => write!(f, ":{port}"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests;
