//! Sealed memory: how state moves from one generation to the next (`memfd_create(2)`).

use super::{rlimit, system};
use crate::proto::control::frame::STATE_MAX;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

/// Memory that holds these bytes and can no longer be changed.
pub(crate) fn seal(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = rlimit::with_room(|| system::memory(c"seamless-state"))?;
    file.write_all(bytes)?;
    system::seal(&file, false)?;
    Ok(file.into())
}

/// Memory that somebody else has sealed. `Err`: why it is not what the sender claims.
pub(crate) fn check_sealed(fd: OwnedFd, size: u64) -> Result<OwnedFd, String> {
    match system::is_sealed(&fd, false) {
        Ok(true) => {}
        Ok(false) => return Err("the state is not sealed memory".to_owned()),
        Err(error) => return Err(format!("cannot look at the state: {error}")),
    }
    let file = File::from(fd);
    let actual =
        file.metadata().map_err(|error| format!("cannot look at the state: {error}"))?.len();
    if actual != size || size > STATE_MAX {
        return Err(format!("the state has {actual} bytes, not {size}"));
    }
    Ok(file.into())
}

/// Reads what [`check_sealed`] has checked.
pub(crate) fn read_sealed(fd: OwnedFd, size: u64) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; size as usize];
    let file = File::from(fd);
    file.read_exact_at(&mut bytes, 0).map_err(|error| format!("cannot read the state: {error}"))?;
    Ok(bytes)
}
