//! Which requests are answered: under which host name, and with which token.

use std::{net::IpAddr, path::Path};

use hyper::{Request, header};
use ring::{hmac, rand::SystemRandom};

use crate::{
    cli::failure::{Failure, exit},
    host::read_private,
};

/// The token that shows names. It is compared by a code under a random key: how long that takes says
/// nothing of it.
pub(super) struct HttpToken {
    key: hmac::Key,
    code: hmac::Tag,
}

/// How many characters a token has.
const TOKEN_CHARACTERS: std::ops::RangeInclusive<usize> = 16..=512;

impl HttpToken {
    /// The token of this file, which is none of the secrets in the other one: it crosses the network.
    pub(super) fn read(path: &Path, secret_file: &Path) -> Result<HttpToken, Failure> {
        let (text, _) = read_private(path, "token")?;
        let bad = || {
            let line = format!(
                "the token in {} is not one line of 16 to 512 visible ASCII characters; `tierlock secret \
                 new FILE` makes one",
                path.display()
            );
            Failure::new(exit::CONFIG, line)
        };
        let token = text.strip_suffix(b"\n").unwrap_or(&text);
        let is_good = token.iter().all(u8::is_ascii_graphic);
        if !is_good || !TOKEN_CHARACTERS.contains(&token.len()) {
            return Err(bad());
        }
        // A pipe is read once, by the leader.
        if secret_file.is_file() {
            let (secrets, _) = read_private(secret_file, "secret")?;
            let mut secrets = secrets.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
            if secrets.any(|secret| secret.eq_ignore_ascii_case(token)) {
                let line = format!(
                    "the token in {} is the secret of the locks, which would cross the network with every \
                     look at the page: make another one with `tierlock secret new FILE`",
                    path.display()
                );
                return Err(Failure::new(exit::CONFIG, line));
            }
        }
        HttpToken::new(token)
            .ok_or_else(|| Failure::internal("the system gives no random bytes", path.display()))
    }

    fn new(token: &[u8]) -> Option<HttpToken> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok()?;
        let code = hmac::sign(&key, token);
        Some(HttpToken { key, code })
    }

    /// Whether the request bears it.
    pub(super) fn is_in<B>(&self, request: &Request<B>) -> bool {
        let mut given = request.headers().get_all(header::AUTHORIZATION).iter();
        let (Some(given), None) = (given.next(), given.next()) else { return false };
        let Some((scheme, token)) = given.as_bytes().split_first_chunk::<7>() else { return false };
        scheme.eq_ignore_ascii_case(BEARER)
            && hmac::verify(&self.key, token, self.code.as_ref()).is_ok()
    }
}

const BEARER: &[u8; 7] = b"Bearer ";

/// Whether the request is for a host that this leader has: an IP address, `localhost`, or one of these
/// names. A page of another site that has its own name point here is told apart by that.
pub(super) fn is_own_host<B>(request: &Request<B>, names: &[String]) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(host) = host.to_str() else { return false };
    let by_line = request.uri().authority().map(|authority| authority.as_str());
    [Some(host), by_line].into_iter().flatten().all(|host| is_own(host, names))
}

fn is_own(host: &str, names: &[String]) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit());
    let (host, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let Some((host, port)) = rest.split_once(']') else { return false };
            let is_literal = matches!(host.parse(), Ok(IpAddr::V6(_)));
            return is_literal && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
        }
        None => host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port))),
    };
    let is_named = host.eq_ignore_ascii_case("localhost")
        || matches!(host.parse(), Ok(IpAddr::V4(_)))
        || names.iter().any(|name| name.eq_ignore_ascii_case(host));
    is_named && port.is_none_or(is_port)
}

#[cfg(test)]
mod tests;
