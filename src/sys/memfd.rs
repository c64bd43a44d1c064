//! Sealed memory: how state moves from one generation to the next (`memfd_create(2)`).

use crate::proto::control::frame::STATE_MAX;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

/// Without these seals the sender could change the bytes, or cut them off, while the receiver reads
/// them.
fn seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE
}

/// Memory that holds these bytes and can no longer be changed.
pub(crate) fn seal(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"seamless-state", flags)?);
    file.write_all(bytes)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals() | SealFlag::F_SEAL_SEAL))?;
    Ok(file.into())
}

/// Reads memory that somebody else has sealed. `Err`: why it is not what the sender claims, or why
/// it cannot be read.
pub(crate) fn read_sealed(fd: OwnedFd, size: u64) -> Result<Vec<u8>, String> {
    match fcntl(&fd, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_truncate) {
        Ok(held) if held.contains(seals()) => {}
        Ok(_) | Err(Errno::EINVAL) => return Err("the state is not sealed memory".to_owned()),
        Err(error) => {
            return Err(format!("cannot look at the state: {}", io::Error::from(error)));
        }
    }
    let file = File::from(fd);
    let actual =
        file.metadata().map_err(|error| format!("cannot look at the state: {error}"))?.len();
    if actual != size || size > STATE_MAX {
        return Err(format!("the state has {actual} bytes, not {size}"));
    }
    let mut bytes = vec![0; size as usize];
    file.read_exact_at(&mut bytes, 0).map_err(|error| format!("cannot read the state: {error}"))?;
    Ok(bytes)
}
