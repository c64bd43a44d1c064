//! What can go wrong, and where.

use nix::errno::Errno;
use std::{fmt, io};

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error that names the step and the path, for example
/// `cannot open "/run/web/web.pid.lock" (claim): Permission denied (os error 13); the folder must
/// be writable by uid 1000`.
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<io::Error>,
    hint: Option<String>,
}

/// What kind of thing went wrong: enough to decide what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// `init` was called a second time.
    AlreadyInitialized,
    /// A call that needs `init`, or `started`, before it.
    NotInitialized,
    /// A value given to [`Config`](crate::Config) cannot be used.
    InvalidConfig,
    /// The program could not be started a second time: no daemon runs.
    Launch,
    /// The launcher cannot be understood: another version of this crate, or a broken channel.
    Channel,
    /// The lock file cannot be opened, locked, read or written, or is not to be trusted.
    Claim,
    /// Another generation is starting, and did not finish within `claim_timeout`.
    ClaimTimeout,
    /// As many generations drain as [`Config::max_draining`](crate::Config::max_draining) allows.
    TooManyDraining,
    /// The PID file cannot be written or locked.
    PidFile,
    /// The PID file belongs to a service that somebody else supervises.
    AlreadyRunning,
    /// No restart from here: not started yet, already draining, or nobody would restart us.
    CannotRestart,
    /// The [probation](crate::Config::probation) has ended without a commit.
    NotCommitted,
    /// A socket cannot be bound, or was asked for before.
    Socket,
    /// A descriptor cannot be kept for the successor.
    Descriptor,
    /// The predecessor's sockets and state could not be taken over.
    Takeover,
    /// A certificate or its key cannot be read or used.
    #[cfg(feature = "tls")]
    Certificate,
    /// The system refused something that has no path of the service's: a thread, a signal handler, a
    /// socket, a look at a process.
    System,
}

impl Error {
    /// An error of this kind, for a library or a program that serves and returns this crate's
    /// [`Result`]. The message names the step and the path: `cannot serve 127.0.0.1:8080 (ftp): …`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), source: None, hint: None }
    }

    /// As [`new`](Error::new), caused by an error of the system, which becomes the
    /// [`source`](std::error::Error::source) and the end of the text.
    pub fn io(kind: ErrorKind, message: impl Into<String>, source: io::Error) -> Self {
        Error { kind, message: message.into(), source: Some(source), hint: None }
    }

    /// Adds what the reader can do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// ENOSYS comes from a filter: Linux itself has every call that the crate needs. So does EPERM from a call that
    /// is not about files: Linux itself permits all of those that the crate makes.
    fn filter_hint(&self) -> Option<&'static str> {
        use ErrorKind::{Channel, System, Takeover};
        let refused = match Errno::from_raw(self.source.as_ref()?.raw_os_error()?) {
            Errno::ENOSYS => true,
            Errno::EPERM => self.hint.is_none() && matches!(self.kind, Channel | System | Takeover),
            _ => false,
        };
        refused.then_some(
            "perhaps a filter of system calls refuses it (seccomp, SystemCallFilter= of systemd)",
        )
    }

    pub(crate) fn is_address_in_use(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.kind() == io::ErrorKind::AddrInUse)
    }

    pub(crate) fn is_denied(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.kind() == io::ErrorKind::PermissionDenied)
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        match self.filter_hint().or(self.hint.as_deref()) {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests;
