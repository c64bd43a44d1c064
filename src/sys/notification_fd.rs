//! A descriptor by which a supervisor is told that the service is ready (s6: `notification-fd`).

use super::raw;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

#[derive(Debug)]
pub(crate) struct Notification(OwnedFd);

impl Notification {
    /// Holds what is open under this number, and lets no program that this process executes inherit
    /// it: neither under that number, nor as ours.
    pub(crate) fn hold(fd: RawFd) -> io::Result<Notification> {
        let hold = |fd: BorrowedFd<'_>| {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
            fd.try_clone_to_owned()
        };
        let held = raw::look_at(fd, hold).unwrap_or(Err(nix::errno::Errno::EBADF.into()));
        held.map(Notification)
    }

    pub(crate) fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Says "ready", and closes it.
    pub(crate) fn tell(self) -> io::Result<()> {
        std::fs::File::from(self.0).write_all(b"\n")
    }
}
