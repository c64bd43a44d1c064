//! The descriptor over which a supervisor is told that the service is ready (s6: `notification-fd`).

use super::raw;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

#[derive(Debug)]
pub(crate) struct Notification(OwnedFd);

impl Notification {
    /// Takes a copy of the descriptor under this number. Makes both close-on-exec, so that no program
    /// that this process executes inherits either.
    pub(crate) fn hold(fd: RawFd) -> io::Result<Notification> {
        let hold = |fd: BorrowedFd<'_>| {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
            fd.try_clone_to_owned()
        };
        raw::look_at(fd, hold).map(Notification)
    }

    pub(crate) fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Tells the supervisor that the service is ready, and closes the copy.
    pub(crate) fn tell(self) -> io::Result<()> {
        std::fs::File::from(self.0).write_all(b"\n")
    }
}
