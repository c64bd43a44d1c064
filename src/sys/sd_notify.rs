//! Messages to systemd, or to another listener at NOTIFY_SOCKET (`sd_notify(3)`).

pub(crate) use sd_notify::NotifyState as Word;
use std::env;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Is there a NOTIFY_SOCKET?
pub(crate) fn is_heard() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some_and(|path| !path.is_empty())
}

/// The time within which systemd's watchdog wants a sign of life from this process.
pub(crate) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|time| !time.is_zero())
}

/// Sends one message. Waits while the listener's queue is full.
pub(crate) fn say(words: &[Word<'_>]) -> io::Result<()> {
    sd_notify::notify(words)
}

/// Puts a descriptor into systemd's store, until it is removed or the service is stopped for good.
pub(crate) fn store(name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
    // systemd drops a descriptor that shows POLLERR, which others can cause on a UDP socket.
    let words = [Word::FdStore, Word::FdName(name), Word::Custom("FDPOLL=0")];
    sd_notify::notify_with_fds(&words, &[fd])
}
