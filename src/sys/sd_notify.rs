//! Messages to systemd, or to another listener at NOTIFY_SOCKET (`sd_notify(3)`).

use super::shortage::uninterrupted;
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
pub(crate) use sd_notify::NotifyState as Word;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

const ADDRESS: &str = "NOTIFY_SOCKET";

/// Is there a NOTIFY_SOCKET?
pub(crate) fn is_heard() -> bool {
    address().is_some()
}

/// Where systemd listens.
pub(crate) fn address() -> Option<OsString> {
    env::var_os(ADDRESS).filter(|address| !address.is_empty())
}

/// A path, or a name without a file: after `@`, as a user's manager may have it.
fn parse(address: &OsStr) -> io::Result<UnixAddr> {
    let bytes = address.as_bytes();
    match bytes.first() {
        #[cfg(target_os = "linux")]
        Some(b'@') => Ok(UnixAddr::new_abstract(&bytes[1..])?),
        Some(b'/') => Ok(UnixAddr::new(address)?),
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "neither a path nor a name after `@`: this kind of address is unknown",
        )),
    }
}

/// For a listener whose queue is full: those who wait have other things to do.
const LIMIT: Duration = Duration::from_secs(1);

/// Waits while the listener's queue is full, for a second at most.
fn send(words: &[Word<'_>], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let Some(address) = address() else { return Ok(()) };
    let address = parse(&address)?;
    let mut text = String::new();
    for word in words {
        _ = writeln!(text, "{word}");
    }
    let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control: &[_] = if fds.is_empty() { &[] } else { &rights };
    let parts = [IoSlice::new(text.as_bytes())];
    let from = UnixDatagram::unbound()?;
    from.set_write_timeout(Some(LIMIT))?;
    let flags = MsgFlags::empty();
    uninterrupted(|| Ok(sendmsg(from.as_raw_fd(), &parts, control, flags, Some(&address))?))
        .map(drop)
}

/// The time within which systemd's watchdog wants a sign of life from this process.
pub(crate) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|time| !time.is_zero())
}

/// Sends one message. Waits while the listener's queue is full, for a second at most.
pub(crate) fn say(words: &[Word<'_>]) -> io::Result<()> {
    send(words, &[])
}

/// Puts a descriptor into systemd's store, until it is removed or the service is stopped for good.
pub(crate) fn store(name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
    // systemd drops a descriptor that shows POLLERR, which others can cause on a UDP socket.
    let words = [Word::FdStore, Word::FdName(name), Word::Custom("FDPOLL=0")];
    send(&words, &[fd])
}
