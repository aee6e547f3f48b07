//! The members of a group as an operator writes them: `a=10.0.0.1:7420,b=…,c=…`, the same at each of them.

use std::{fmt, str::FromStr};

use crate::{
    error::LockError,
    host::net::address::{Address, ListenAddress},
    proto::group::MemberName,
};

/// The members of a group and where each listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::host) struct GroupAddresses(Vec<(MemberName, Address)>);

/// A name longer than this is a mistake.
const NAME_BYTES_MAX: usize = 32;

impl GroupAddresses {
    /// Each member, in the order in which they were written.
    pub(in crate::host) fn iter(&self) -> impl Iterator<Item = (&MemberName, &Address)> {
        self.0.iter().map(|(name, address)| (name, address))
    }

    /// All addresses, as clients are told them.
    pub(in crate::host) fn all(&self) -> Vec<String> {
        self.0.iter().map(|(_, address)| address.to_string()).collect()
    }

    /// Where this member is.
    pub(in crate::host) fn of(&self, member: &MemberName) -> Option<&Address> {
        self.iter().find(|(name, _)| *name == member).map(|(_, address)| address)
    }

    /// Which of the members a leader is: the one that it is said to be, else the one that listens where it
    /// does.
    ///
    /// # Errors
    ///
    /// `Config` if that is none of them, or another one listens there.
    pub(in crate::host) fn own(
        &self,
        said: Option<&str>,
        listen: &ListenAddress,
    ) -> Result<MemberName, LockError> {
        let listens = |address: &Address| matches!(listen, ListenAddress::At(at) if at == address);
        let by_address = self.iter().find(|(_, address)| listens(address)).map(|(name, _)| name);
        let Some(said) = said else {
            return by_address.cloned().ok_or_else(|| {
                LockError::config(format!(
                    "none of the group's members listens at {listen}; say which one this is by --member ID \
                     (member(id)): {}",
                    self.names()
                ))
            });
        };
        let said = MemberName::new(said);
        if self.of(&said).is_none() {
            let text = format!("the group has no member {said:?}, it has {}", self.names());
            return Err(LockError::config(text));
        }
        match by_address {
            Some(other) if *other != said => Err(LockError::config(format!(
                "{listen} is where {other:?} of the group listens, and this is to be {said:?}"
            ))),
            _ => Ok(said),
        }
    }

    fn names(&self) -> String {
        let names: Vec<_> = self.iter().map(|(name, _)| name.as_str()).collect();
        names.join(", ")
    }
}

impl FromStr for GroupAddresses {
    type Err = LockError;

    fn from_str(text: &str) -> Result<GroupAddresses, LockError> {
        let invalid = |what: String| {
            LockError::config(format!(
                "invalid group {text:?}: {what}; write each member as ID=HOST:PORT, with commas between: \
                 a=10.0.0.1:7420,b=10.0.0.2:7420,c=10.0.0.3:7420"
            ))
        };
        let mut members: Vec<(MemberName, Address)> = Vec::new();
        for part in text.split(',') {
            let Some((name, address)) = part.trim().split_once('=') else {
                return Err(invalid(format!("{:?} has no =", part.trim())));
            };
            let is_of_names = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.chars().all(is_of_names) {
                return Err(invalid(format!(
                    "{name:?} is no ID: letters, digits, - _ and ., {NAME_BYTES_MAX} at most"
                )));
            }
            let (name, address) = (MemberName::new(name), address.parse::<Address>()?);
            if members.iter().any(|(other, _)| *other == name) {
                return Err(invalid(format!("the ID {name} is there twice")));
            }
            if members.iter().any(|(_, other)| *other == address) {
                return Err(invalid(format!("the address {address} is there twice")));
            }
            members.push((name, address));
        }
        match members.len() {
            3 | 5 => Ok(GroupAddresses(members)),
            other => Err(invalid(format!(
                "it has {other} member{}, and a group has 3 (one may fail) or 5 (two may)",
                if other == 1 { "" } else { "s" }
            ))),
        }
    }
}

impl fmt::Display for GroupAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (name, address)) in self.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{name}={address}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
