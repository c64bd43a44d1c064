//! Both ends of a connection at the control socket, with a limit for the whole of it.

use crate::driver::{UNIX_SOCKETS_REFUSED, retry};
use crate::proto::control::frame;
use crate::sys::rlimit;
use crate::sys::seqpacket::{Arrival, Link, Message};
use crate::sys::shortage::{is_family_refused, is_shortage};
use crate::sys::socket::Peer;
use crate::sys::wait;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

pub(in crate::driver) const CLOSED: &str = "it has closed the connection half-way";

/// Counts down what a whole conversation may take.
#[derive(Clone, Copy)]
pub(crate) struct Deadline {
    due: Instant,
    timeout: Duration,
    /// What the limit is called where it is set.
    name: &'static str,
}

impl Deadline {
    pub(in crate::driver) fn after(timeout: Duration) -> Deadline {
        Deadline::named(timeout, "takeover_timeout")
    }

    pub(crate) fn named(timeout: Duration, name: &'static str) -> Deadline {
        // A limit beyond what the clock can count is none.
        let far = Duration::from_secs(60 * 60 * 24 * 365);
        Deadline { due: Instant::now() + timeout.min(far), timeout, name }
    }

    /// The same, or this limit from now on if that is earlier.
    pub(in crate::driver) fn at_most(self, limit: Duration) -> Deadline {
        let part = Deadline::named(limit, self.name);
        if part.due < self.due { part } else { self }
    }

    pub(crate) fn left(self) -> Result<Duration, String> {
        let left = self.due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("it was not through within {:?} ({})", self.timeout, self.name));
        }
        Ok(left)
    }

    /// Sends one message, as soon as there is room for it.
    pub(crate) fn send(
        self,
        link: &Link,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), String> {
        loop {
            match link.send(bytes, fds) {
                Ok(()) => return Ok(()),
                Err(error) if is_shortage(&error) => {
                    let is_full = error.kind() == io::ErrorKind::WouldBlock;
                    let left = self.left();
                    let left = left.map_err(|why| match is_full {
                        true => why,
                        false => format!("{why}: {error}"),
                    })?;
                    wait::writable(link.as_fd(), left);
                    retry::pause(); // there was room, but not memory
                }
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Err(CLOSED.into());
                }
                Err(error) => return Err(format!("cannot send to it: {error}")),
            }
        }
    }

    /// Receives one message, complete and with all its descriptors.
    pub(crate) fn receive(self, link: &Link) -> Result<Message, String> {
        loop {
            match link.receive(frame::MESSAGE_MAX) {
                Arrival::Message(Message { lost_fds: true, .. }) => {
                    rlimit::make_room(frame::CHUNK_MAX as u64); // for another attempt
                    return Err("some of the descriptors that it sent are lost (MSG_CTRUNC): the \
                                limit of open files may be too low"
                        .into());
                }
                Arrival::Message(Message { is_cut: true, .. }) => {
                    return Err("it sent a message that is too long".into());
                }
                Arrival::Message(message) => return Ok(message),
                Arrival::Nothing => wait::readable(&[link.as_fd()], Some(self.left()?)),
                Arrival::Closed => return Err(CLOSED.into()),
                Arrival::OutOfMemory => {
                    self.left()?;
                    retry::pause();
                }
            }
        }
    }
}

pub(crate) enum Unconnected {
    /// Nothing is there, or what a process that is gone has left.
    Nobody,
    Failed(String),
}

/// Connects to this process. If another one listens, [`Unconnected::Nobody`] is returned as well.
pub(in crate::driver) fn connect_to(
    pid: i32,
    path: &Path,
    deadline: Deadline,
) -> Result<Link, Unconnected> {
    match connect(path, deadline)? {
        (link, Some(listener)) if listener.pid == pid => Ok(link),
        _ => Err(Unconnected::Nobody),
    }
}

/// Connects, and asks the kernel which process listens: see [`Link::listener`].
pub(crate) fn connect(
    path: &Path,
    deadline: Deadline,
) -> Result<(Link, Option<Peer>), Unconnected> {
    let failed = |error: io::Error| {
        Unconnected::Failed(match is_family_refused(&error) {
            true => format!("{error}; {UNIX_SOCKETS_REFUSED}"),
            false => error.to_string(),
        })
    };
    loop {
        match Link::connect(path) {
            Ok(link) => {
                let listener = link.listener().map_err(failed)?;
                return Ok((link, listener));
            }
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    return Err(Unconnected::Nobody);
                }
                // Others wait there, and the queue is full.
                io::ErrorKind::WouldBlock => {
                    deadline.left().map_err(Unconnected::Failed)?;
                    retry::pause();
                }
                _ => return Err(failed(error)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Deadline;
    use std::time::Duration;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn of_two_limits_the_earlier_one_counts() {
        let whole = Deadline::after(10 * DAY);
        let left = |deadline: Deadline| deadline.left().expect("time").as_secs_f64() / 86_400.0;
        assert_eq!(left(whole.at_most(3 * DAY)).round(), 3.0);
        assert_eq!(left(whole.at_most(30 * DAY)).round(), 10.0);
        assert_eq!(left(Deadline::after(Duration::MAX)).round(), 365.0);
        let over = whole.at_most(Duration::ZERO).left();
        assert_eq!(over, Err("it was not through within 0ns (takeover_timeout)".to_owned()));
    }
}
