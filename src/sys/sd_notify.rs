//! What is said to systemd, or to whoever else listens at NOTIFY_SOCKET (`sd_notify(3)`).

pub(crate) use sd_notify::NotifyState as Word;
use std::env;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Does somebody listen?
pub(crate) fn is_heard() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some_and(|path| !path.is_empty())
}

/// How often systemd wants a sign of life of this very process.
pub(crate) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|time| !time.is_zero())
}

/// One message. Waits where the listener's queue is full.
pub(crate) fn say(words: &[Word<'_>]) -> io::Result<()> {
    sd_notify::notify(words)
}

/// Has systemd keep a descriptor until it is removed, or the service stopped for good.
pub(crate) fn store(name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
    // A UDP socket shows POLLERR for what others did to it, and would be dropped.
    let words = [Word::FdStore, Word::FdName(name), Word::Custom("FDPOLL=0")];
    sd_notify::notify_with_fds(&words, &[fd])
}
