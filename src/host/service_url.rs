//! What `service(…)`, `--service` and `TIERLOCK_SERVICE` may say: which lock service, and where.
//!
//! `SCHEME://[USER[:PASSWORD]@]HOST[:PORT][,HOST[:PORT] …][/PATH][?OPTION=VALUE[&…]]`. A URL may hold
//! a password, so the only text that is ever shown of it is [`shown`](ServiceUrl::shown).

use std::fmt;
#[cfg(feature = "service")]
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;

use crate::error::{LockError, Result};

/// A service as it was named.
#[derive(Clone)]
pub(crate) struct ServiceUrl {
    pub(crate) kind: ServiceKind,
    /// Each as `HOST` or `HOST:PORT`.
    pub(crate) addresses: Vec<String>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Password>,
    /// Without its leading slash.
    pub(crate) path: String,
    /// Its scheme says that it is reached by TLS.
    is_tls: bool,
    options: Vec<(String, String)>,
}

/// What is spoken at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServiceKind {
    /// Our own leaders.
    Tierlock,
    Etcd,
    /// MariaDB too.
    Mysql,
    Postgres,
    Redis,
    Redlock,
    /// ShedLock's table on MySQL or MariaDB.
    ShedLockMysql,
    /// ShedLock's table on PostgreSQL.
    ShedLockPostgres,
    Zookeeper,
}

/// Never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

impl Password {
    #[cfg(any(feature = "service", test))]
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// The first line of a file that only its owner, and perhaps a group, may read.
    #[cfg(feature = "service")]
    pub(crate) fn read(path: &Path) -> Result<Password> {
        if std::fs::symlink_metadata(path).is_err() {
            let what = format!("there is no password file {}", path.display());
            return Err(LockError::config(what));
        }
        let (text, _) = super::net::secret_file::read_private(path, "password")?;
        let text = String::from_utf8(text).map_err(|error| {
            let shown = path.display();
            let what = format!("the password file {shown} is not UTF-8");
            LockError::config(what).with_source(error.utf8_error())
        })?;
        match text.lines().next() {
            Some(line) if !line.is_empty() => Ok(Password(line.to_owned())),
            _ => {
                let shown = path.display();
                Err(LockError::config(format!("the password file {shown} has an empty first line")))
            }
        }
    }
}

impl ServiceKind {
    const ALL: [(&'static str, ServiceKind); 10] = [
        ("tierlock", ServiceKind::Tierlock),
        ("etcd", ServiceKind::Etcd),
        ("mysql", ServiceKind::Mysql),
        ("postgres", ServiceKind::Postgres),
        ("postgresql", ServiceKind::Postgres),
        ("redis", ServiceKind::Redis),
        ("redlock", ServiceKind::Redlock),
        ("shedlock+mysql", ServiceKind::ShedLockMysql),
        ("shedlock+postgres", ServiceKind::ShedLockPostgres),
        ("zookeeper", ServiceKind::Zookeeper),
    ];

    pub(crate) fn scheme(self) -> &'static str {
        let known = ServiceKind::ALL.iter().find(|(_, kind)| *kind == self);
        known.map_or("", |(scheme, _)| scheme)
    }

    /// Its scheme with an `s` behind it is the same by TLS. PostgreSQL has the option sslmode, and our own
    /// leaders know nothing else.
    fn has_tls_scheme(self) -> bool {
        use ServiceKind::{Postgres, ShedLockPostgres, Tierlock};
        !matches!(self, Postgres | ShedLockPostgres | Tierlock)
    }

    /// How a URL says that the server is reached by TLS.
    pub(crate) fn tls_form(self) -> String {
        match self.has_tls_scheme() {
            true => format!("{}s://…", self.scheme()),
            false => format!("{}://…?sslmode=verify-full", self.scheme()),
        }
    }

    /// The cargo feature that it is in, and whether this build has that.
    pub(crate) fn feature(self) -> (&'static str, bool) {
        match self {
            ServiceKind::Tierlock => ("host", cfg!(feature = "host")),
            ServiceKind::Etcd => ("etcd", cfg!(feature = "etcd")),
            ServiceKind::Mysql | ServiceKind::ShedLockMysql => ("mysql", cfg!(feature = "mysql")),
            ServiceKind::Postgres | ServiceKind::ShedLockPostgres => {
                ("postgres", cfg!(feature = "postgres"))
            }
            ServiceKind::Redis | ServiceKind::Redlock => ("redis", cfg!(feature = "redis")),
            ServiceKind::Zookeeper => ("zookeeper", cfg!(feature = "zookeeper")),
        }
    }
}

impl ServiceUrl {
    pub(crate) fn parse(text: &str) -> Result<ServiceUrl> {
        let refused = |what: &str| {
            // The text itself may hold a password.
            Err(LockError::config(format!(
                "a service is named as SCHEME://HOST[:PORT][,…][?OPTION=VALUE], such as \
                 etcd://10.0.0.1:2379: {what}"
            )))
        };
        let Some((scheme, rest)) = text.split_once("://") else {
            return refused("`://` is missing");
        };
        let find = |scheme: &str| ServiceKind::ALL.iter().find(|(known, _)| *known == scheme);
        let plain = scheme.strip_suffix('s').and_then(find);
        let Some((_, kind)) = find(scheme).or(plain.filter(|(_, kind)| kind.has_tls_scheme()))
        else {
            let schemes: Vec<_> = ServiceKind::ALL.iter().map(|(scheme, _)| *scheme).collect();
            return refused(&match plain.map(|(_, kind)| kind) {
                Some(ServiceKind::Postgres | ServiceKind::ShedLockPostgres) => {
                    "TLS of PostgreSQL is an option: postgres://…?sslmode=verify-full".to_owned()
                }
                Some(_) => "tierlock:// is encrypted always".to_owned(),
                None => {
                    let shown: String = scheme.chars().take(20).collect();
                    format!("unknown scheme {shown:?}: it must be one of {}", schemes.join(", "))
                }
            });
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Some(login), hosts),
            None => (None, authority),
        };
        let (user, password) = match login.map(|login| login.split_once(':').ok_or(login)) {
            None => (None, None),
            Some(Ok((user, password))) => (Some(user), Some(password)),
            Some(Err(user)) => (Some(user), None),
        };
        let password = password.map(decoded).transpose()?.map(Password);
        let user = user.filter(|user| !user.is_empty()).map(decoded).transpose()?;
        let addresses: Vec<String> = hosts.split(',').map(|host| host.trim().to_owned()).collect();
        if addresses.iter().any(String::is_empty) {
            return refused("an address is empty");
        }
        let mut options = Vec::new();
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            options.push((decoded(key)?, decoded(value)?));
        }
        let path = decoded(path)?;
        let is_tls = find(scheme).is_none();
        Ok(ServiceUrl { kind: *kind, addresses, user, password, path, is_tls, options })
    }

    /// As people and logs may see it: no password, no options.
    pub(crate) fn shown(&self) -> String {
        let slash = if self.path.is_empty() { "" } else { "/" };
        let (scheme, s) = (self.kind.scheme(), if self.is_tls { "s" } else { "" });
        format!("{scheme}{s}://{}{slash}{}", self.addresses.join(","), self.path)
    }

    /// Takes an option out.
    pub(crate) fn take(&mut self, key: &str) -> Result<Option<String>> {
        let mut found = Vec::new();
        self.options.retain(|(known, value)| {
            let is_it = known == key;
            if is_it {
                found.push(value.clone());
            }
            !is_it
        });
        match found.len() {
            0 | 1 => Ok(found.pop()),
            _ => Err(self.refuse(format_args!("the option {key} is given twice: leave one out"))),
        }
    }

    /// Takes an option out that is a switch: `?key=1`, or `?key` alone.
    pub(crate) fn take_switch(&mut self, key: &str) -> Result<bool> {
        match self.take(key)?.as_deref() {
            None | Some("0") => Ok(false),
            Some("1" | "") => Ok(true),
            Some(_) => Err(self.refuse(format_args!("the option {key} must be 1 or 0"))),
        }
    }

    /// Whether it is reached by TLS, with the server's name checked.
    pub(crate) fn is_secured(&self) -> Result<bool> {
        let mode = self.options.iter().find(|(key, _)| key == "sslmode").map(|(_, mode)| &**mode);
        let has_modes = matches!(self.kind, ServiceKind::Postgres | ServiceKind::ShedLockPostgres);
        match mode {
            None => Ok(self.is_tls),
            Some("verify-full") if has_modes => Ok(true),
            Some("disable") if has_modes => Ok(false),
            Some(_) if has_modes => Err(self.refuse(
                "the option sslmode must be verify-full, which checks that the server is the one \
                 that the URL names, or disable",
            )),
            Some(_) => Err(self.refuse(format_args!(
                "the option sslmode is PostgreSQL's: by TLS it is {}",
                self.kind.tls_form()
            ))),
        }
    }

    /// The file that `?password_file=` names.
    #[cfg(feature = "service")]
    pub(crate) fn take_password_file(&mut self) -> Result<Option<PathBuf>> {
        let file = self.take("password_file")?.map(PathBuf::from);
        if file.is_some() && self.password.is_some() {
            return Err(self.refuse("it has a password and names a password file: leave one out"));
        }
        Ok(file)
    }

    /// No option is left that was not taken.
    pub(crate) fn finish(&self, known: &str) -> Result<()> {
        match self.options.first() {
            None => Ok(()),
            Some((key, _)) => {
                let key: String = key.chars().take(40).collect();
                let what = format!("unknown option {key:?}: the options are {known}");
                Err(self.refuse(what))
            }
        }
    }

    /// An address as `HOST`, `HOST:PORT` or `[ADDRESS]:PORT`.
    #[cfg(feature = "service")]
    pub(crate) fn host_and_port(&self, address: &str, port: u16) -> Result<(String, u16)> {
        let refused =
            || self.refuse(format_args!("invalid address {address:?}: write HOST or HOST:PORT"));
        let (host, port) = match address.rsplit_once(':') {
            // The colons of an IPv6 address without a port.
            Some((host, _)) if host.contains(':') && !host.ends_with(']') => (address, port),
            Some((host, port)) => (host, port.parse().map_err(|_| refused())?),
            None => (address, port),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match host.is_empty() {
            true => Err(refused()),
            false => Ok((host.to_owned(), port)),
        }
    }

    pub(crate) fn refuse(&self, what: impl fmt::Display) -> LockError {
        LockError::config(format!("the service {}: {what}", self.shown()))
    }
}

fn decoded(text: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|error| {
        LockError::config("a part of the service's URL is not UTF-8").with_source(error)
    })?;
    Ok(decoded.into_owned())
}

impl fmt::Debug for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

#[cfg(test)]
mod tests;
