//! Starts the program again, as a daemon of this launcher.

use crate::error::{Error, ErrorKind};
use crate::proto::channel::ToDaemon;
use crate::sys::launch;
use crate::sys::seqpacket::Link;
use crate::sys::shortage::is_family_refused;
use crate::sys::supervisor::Supervisor;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// What it takes to start the program again.
pub(super) struct Again {
    pub(super) in_place: bool,
    /// For a restart in place.
    pub(super) executed_by: Option<PathBuf>,
    pub(super) drain_timeout: Option<Duration>,
}

impl Again {
    /// The handlers are installed by now: a signal that comes while the daemon is being started is
    /// not lost. The hello waits in the channel when the daemon first looks.
    pub(super) fn start(
        &self,
        supervisor: &Supervisor,
        program: impl FnOnce() -> io::Result<PathBuf>,
    ) -> Result<Member, Error> {
        let (ours, theirs) = Link::pair().map_err(|error| {
            let refused = is_family_refused(&error);
            let error = Error::io(ErrorKind::Channel, "cannot make the channel (launch)", error);
            match refused {
                true => error.hint(
                    "Unix sockets are refused to this process: under systemd, AF_UNIX must be one of \
                     RestrictAddressFamilies=",
                ),
                false => error,
            }
        })?;
        let (hello, pidfd) = supervisor.hello(self.in_place);
        ours.send(&ToDaemon::Hello(hello).format(), pidfd.as_slice()).map_err(|error| {
            Error::io(ErrorKind::Channel, "cannot use the channel (launch)", error)
        })?;
        let program = program().map_err(|error| {
            Error::io(ErrorKind::Launch, "cannot find the program's file (launch)", error)
        })?;
        let daemon = launch::spawn(&program, &theirs).map_err(|error| {
            let denied = error.kind() == io::ErrorKind::PermissionDenied;
            let text = format!("cannot start {program:?} again (launch)");
            let error = Error::io(ErrorKind::Launch, text, error);
            match denied {
                true => error.hint(
                    "the program must be allowed to execute itself: see its mode, noexec mounts and \
                     NoExecPaths=, seccomp (execve), and the rules of SELinux or AppArmor",
                ),
                false => error,
            }
        })?;
        Ok(Member { daemon, channel: Some(ours), drain_timeout: self.drain_timeout })
    }

    /// From the file as it is now.
    pub(super) fn program(&self) -> io::Result<PathBuf> {
        self.executed_by.clone().map_or_else(launch::program, Ok)
    }
}

/// A daemon of this launcher.
pub(super) struct Member {
    pub(super) daemon: launch::Daemon,
    /// `None` once its end of it is closed.
    pub(super) channel: Option<Link>,
    /// How long its drain may take: as this program is configured, until it has said so itself. A
    /// server has a limit of its own, and in place another program may have been started.
    pub(super) drain_timeout: Option<Duration>,
}
