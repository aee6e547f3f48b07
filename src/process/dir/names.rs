//! What the lock file of a name is called.
//!
//! Injective, and safe on file systems that fold case or normalise Unicode: only `a-z 0-9 - _ .`
//! stand for themselves, everything else is percent-encoded, also a leading dot. A name that gets
//! too long that way is cut and told apart by its SHA-256 after a `~`, which no other has.

use sha2::{Digest, Sha256};

use crate::name::Name;

/// Longest encoded name that is used as it is.
const LONGEST: usize = 200;
/// How much of a longer one stays readable.
const READABLE: usize = 128;

/// The file name of `name`, at most 200 bytes of ASCII.
pub(in crate::process) fn file_name(name: &Name) -> String {
    let mut file_name = encode(name);
    if file_name.len() > LONGEST {
        file_name.truncate(READABLE);
        file_name.push('~');
        file_name.extend(Sha256::digest(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")));
    }
    file_name
}

fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => encoded.push(byte.into()),
            b'.' if at > 0 => encoded.push('.'),
            _ => encoded.push_str(&format!("%{byte:02x}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
