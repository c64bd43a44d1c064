//! What happens when the system is short of memory, descriptors or room in a queue: the same thing is
//! tried again, in the whole driver by this one policy.
//!
//! - [`is_shortage`] decides which errors count. Every other error is final.
//! - A thread that has nothing else to do sleeps for [`PAUSE`] between two attempts. A thread that has
//!   other work does that work, and tries again after [`LATER`] at the latest.
//! - Each retry has a limit. The limits that the program does not set stand below. A limit counts attempts,
//!   not time, so a busy machine does not use it up.

use crate::sys::seqpacket::Arrival;
use crate::sys::shortage::is_shortage;
use std::io;
use std::thread;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(1);
/// When a report to the launcher is sent again. There is no limit: the launcher KILLs a daemon of which it
/// hears nothing.
pub(in crate::driver) const LATER: Duration = Duration::from_millis(10);

/// The launcher tells its daemon something. Meanwhile nothing else is done in the launcher.
pub(in crate::driver) const TO_DAEMON: Duration = Duration::from_millis(100);
/// The launcher sends its first message, and the daemon receives it: without it, the daemon cannot start.
pub(in crate::driver) const FIRST_MESSAGE: Duration = Duration::from_millis(500);
/// The daemon has its sockets stored. Its launcher may be waiting for systemd.
pub(in crate::driver) const STORE: Duration = Duration::from_secs(5);

/// What an attempt has led to.
pub(in crate::driver) trait Outcome {
    fn is_shortage(&self) -> bool;
}

impl<T> Outcome for io::Result<T> {
    fn is_shortage(&self) -> bool {
        self.as_ref().err().is_some_and(is_shortage)
    }
}

/// For a message that is known to have been sent.
impl Outcome for Arrival {
    fn is_shortage(&self) -> bool {
        matches!(self, Arrival::Nothing | Arrival::OutOfMemory)
    }
}

/// Attempts it until there is no shortage or the limit is reached. Returns the last outcome.
pub(in crate::driver) fn within<T: Outcome>(limit: Duration, mut attempt: impl FnMut() -> T) -> T {
    for _ in 0..limit.as_millis() / PAUSE.as_millis() {
        let outcome = attempt();
        if !outcome.is_shortage() {
            return outcome;
        }
        pause();
    }
    attempt()
}

/// No connection can be accepted for now, and the socket stays readable.
pub(in crate::driver) fn pause_accepting() {
    thread::sleep(Duration::from_millis(100));
}

/// Between two attempts, for a caller with a limit of its own.
pub(in crate::driver) fn pause() {
    thread::sleep(PAUSE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_tried_again_until_the_limit_and_other_errors_are_final() {
        let failing = |kind: io::ErrorKind, limit| {
            let mut attempts = 0;
            let outcome: io::Result<()> = within(limit, || {
                attempts += 1;
                Err(match kind {
                    io::ErrorKind::OutOfMemory => io::Error::from_raw_os_error(12), // ENOMEM
                    kind => kind.into(),
                })
            });
            (attempts, outcome.is_err())
        };
        assert_eq!(failing(io::ErrorKind::OutOfMemory, PAUSE * 3), (4, true));
        assert_eq!(failing(io::ErrorKind::BrokenPipe, PAUSE * 3), (1, true));
    }

    #[test]
    fn the_first_success_counts() {
        let mut attempts = 0;
        let outcome = within(TO_DAEMON, || {
            attempts += 1;
            if attempts < 3 { Arrival::OutOfMemory } else { Arrival::Closed }
        });
        assert!(matches!(outcome, Arrival::Closed));
        assert_eq!(attempts, 3);
    }
}
