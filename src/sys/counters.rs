//! The memory of the counters, which all generations map (`memfd_create(2)`).

use super::raw::map_words;
use super::{rlimit, system};
use crate::proto::counters::BYTES;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::AtomicU64;

/// Fresh memory, all zeroes, of a size that stays.
pub(crate) fn make() -> io::Result<OwnedFd> {
    let memory = rlimit::with_room(|| system::memory(c"seamless-counters"))?;
    memory.set_len(BYTES as u64)?;
    system::seal(&memory, true)?;
    Ok(memory.into())
}

/// `Err`: why this is no memory of counters.
pub(crate) fn check(memory: OwnedFd) -> Result<OwnedFd, String> {
    match system::is_sealed(&memory, true) {
        Ok(true) => {}
        Ok(false) => return Err("it is not sealed as it should be".to_owned()),
        Err(error) => return Err(format!("it is not sealed memory: {error}")),
    }
    let file = File::from(memory);
    match file.metadata() {
        Ok(about) if about.len() == BYTES as u64 => Ok(file.into()),
        Ok(about) => Err(format!("it has {} bytes, not {BYTES}", about.len())),
        Err(error) => Err(format!("cannot look at it: {error}")),
    }
}

/// Maps what [`make`] has made or [`check`] has checked.
pub(crate) fn map(memory: &OwnedFd) -> io::Result<&'static [AtomicU64]> {
    map_words(memory.as_fd(), BYTES / 8)
}

/// A copy of what [`check`] has checked.
pub(crate) fn read(memory: OwnedFd) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; BYTES];
    File::from(memory).read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}
