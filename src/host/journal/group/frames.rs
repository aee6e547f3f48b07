//! Checksummed frames, one behind the other in a file, and what the end of such a file means.
//!
//! A frame is written in one call and is durable before the next one is begun, so a crash can spoil the
//! last frame only. What it leaves there is a file that is too short, or sectors of zeros where bytes
//! should be: that is a *torn* frame, of which nothing was confirmed, and it is cut off. Anything else
//! that a checksum finds is damage. The length has a checksum of its own: with a bit turned it would
//! point past the end, and all that follows would pass for one torn frame.

use std::ops::Range;

use ring::digest::{SHA256, digest};

/// What stands before each body.
const HEAD_BYTES: usize = 32;
const MAGIC: u32 = u32::from_le_bytes(*b"TLgl");
/// A disk writes no less than this at once.
const SECTOR_BYTES: usize = 512;

/// The frames of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FoundFrames {
    /// The body of each, with its number.
    pub(super) frames: Vec<(u64, Range<usize>)>,
    /// Where the last whole one ends. What stands behind it is torn.
    pub(super) end: usize,
}

/// Appends a frame.
pub(super) fn append_frame(number: u64, body: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(body.len()).expect("a frame is shorter than 4 GiB");
    let start = out.len();
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&check_of(body));
    let head_check = check_of(&out[start..]);
    out.extend_from_slice(&head_check);
    out.extend_from_slice(body);
}

/// Finds all frames.
///
/// # Errors
///
/// What is damaged, in words.
pub(super) fn find_frames(file: &[u8]) -> Result<FoundFrames, String> {
    let mut found = FoundFrames { frames: Vec::new(), end: 0 };
    while found.end < file.len() {
        let Some((number, body)) = find_frame(file, found.end)? else { break };
        if let Some((last, _)) = found.frames.last()
            && number != last + 1
        {
            return Err(format!("its write {number} stands behind its write {last}"));
        }
        found.end = body.end;
        found.frames.push((number, body));
    }
    Ok(found)
}

/// The frame that begins there; `None` if it is torn.
fn find_frame(file: &[u8], at: usize) -> Result<Option<(u64, Range<usize>)>, String> {
    let Some(head) = file[at..].first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let (said, head_check) = head.split_at(HEAD_BYTES - CHECK_BYTES);
    if check_of(said) != *head_check {
        return match has_hole(file, at..at + HEAD_BYTES) {
            true => Ok(None),
            false => Err(format!("the head of the write at byte {at} is not as it was written")),
        };
    }
    let u32_at = |from| u32::from_le_bytes(*said[from..].first_chunk().expect("it is longer"));
    if u32_at(0) != MAGIC {
        return Err(format!("what stands at byte {at} is no write"));
    }
    let number = u64::from_le_bytes(*said[8..].first_chunk().expect("it is longer"));
    let body = at + HEAD_BYTES..at + HEAD_BYTES + u32_at(4) as usize;
    let Some(bytes) = file.get(body.clone()) else { return Ok(None) };
    if check_of(bytes) == said[16..] {
        return Ok(Some((number, body)));
    }
    match body.end == file.len() && has_hole(file, body) {
        true => Ok(None),
        false => Err(format!("the write {number} at byte {at} is not as it was written")),
    }
}

/// Whether a sector that has a part of this has nothing but zeros there: it was never written.
fn has_hole(file: &[u8], part: Range<usize>) -> bool {
    let mut from = part.start;
    while from < part.end {
        let until = part.end.min((from / SECTOR_BYTES + 1) * SECTOR_BYTES);
        if file[from..until].iter().all(|byte| *byte == 0) {
            return true;
        }
        from = until;
    }
    false
}

const CHECK_BYTES: usize = 8;

fn check_of(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    *digest(&SHA256, bytes).as_ref().first_chunk().expect("a hash has 32 bytes")
}

#[cfg(test)]
mod tests;
