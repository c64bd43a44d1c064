//! Waiting for descriptors, and waking a thread that waits.

use super::shortage::uninterrupted;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

/// Instead of a wait that fails.
const PAUSE: Duration = Duration::from_millis(1);

/// Waits until one of the descriptors is readable or has lost its peer, until a signal arrives, or until
/// the time is over. Does not return which: the caller asks each source.
pub(crate) fn readable(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) {
    readable_or_closed(fds, &[], timeout);
}

/// The same, and also returns when one of `outputs` has lost its last reader.
pub(crate) fn readable_or_closed(
    fds: &[BorrowedFd<'_>],
    outputs: &[BorrowedFd<'_>],
    timeout: Option<Duration>,
) {
    let fds = fds.iter().map(|fd| (*fd, PollFlags::POLLIN));
    wait(fds.chain(outputs.iter().map(|fd| (*fd, PollFlags::empty()))), timeout);
}

/// Waits until the descriptor can be written to, the peer is gone, or the time is over.
pub(crate) fn writable(fd: BorrowedFd<'_>, timeout: Duration) {
    wait([(fd, PollFlags::POLLOUT)], Some(timeout));
}

fn wait<'a>(fds: impl IntoIterator<Item = (BorrowedFd<'a>, PollFlags)>, timeout: Option<Duration>) {
    let mut fds: Vec<PollFd<'a>> =
        fds.into_iter().map(|(fd, what)| PollFd::new(fd, what)).collect();
    // Rounded up: rounded down, the last part of a millisecond before a timer would be a busy loop.
    let timeout = timeout.map(|timeout| timeout.as_nanos().div_ceil(1_000_000));
    let timeout = match timeout {
        None => PollTimeout::NONE,
        Some(ms) => PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX),
    };
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => {} // a signal
        // Out of memory: the only other error if the descriptors are open. The caller asks each source
        // and comes back here; the pause keeps that from being a busy loop.
        Err(_) => thread::sleep(PAUSE),
    }
}

/// Reads from a nonblocking descriptor until its writer has closed it or the time is over.
pub(crate) fn read_to_end(
    mut from: impl Read + AsFd,
    bytes: &mut Vec<u8>,
    limit: Duration,
) -> io::Result<()> {
    let began = Instant::now();
    let mut part = [0; 4096];
    loop {
        match uninterrupted(|| from.read(&mut part)) {
            Ok(0) => return Ok(()),
            Ok(count) => bytes.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let left = limit.saturating_sub(began.elapsed());
                if left.is_zero() {
                    return Err(ErrorKind::TimedOut.into());
                }
                readable(&[from.as_fd()], Some(left));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Wakes a thread that waits in [`readable`].
pub(crate) struct Waker {
    read: UnixStream,
    write: UnixStream,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Waker> {
        let (read, write) = UnixStream::pair()?;
        read.set_nonblocking(true)?;
        write.set_nonblocking(true)?;
        Ok(Waker { read, write })
    }

    pub(crate) fn wake(&self) {
        // If the queue is full, the reader has been woken already.
        _ = uninterrupted(|| (&self.write).write(&[0]));
    }

    /// For a handler of signals: what is written there wakes the thread.
    pub(crate) fn number(&self) -> RawFd {
        self.write.as_raw_fd()
    }

    pub(crate) fn clear(&self) {
        let mut bytes = [0; 64];
        while uninterrupted(|| (&self.read).read(&mut bytes)).is_ok_and(|read| read > 0) {}
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}
