//! Signals as something to wait for. Handlers only note the signal and wake the reader
//! (`signal-safety(7)`); what it means is decided elsewhere.

use super::raw::{self, Action};
use nix::libc;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::WithRawSiginfo;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;

pub(crate) use libc::{SIGCHLD, SIGCONT, SIGINT, SIGKILL, SIGPIPE, SIGTERM, SIGUSR2};
pub(crate) use raw::unblock_all;

/// A signal that arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    pub(crate) signal: i32,
    /// Who sent it; 0 where it was nobody in our PID namespace.
    pub(crate) from: i32,
}

/// Signal handlers, and the descriptor that becomes readable when a signal arrives.
pub(crate) struct Signals {
    delivery: SignalDelivery<UnixStream, WithRawSiginfo>,
    fds: [RawFd; 2],
    before: Vec<(i32, Action)>,
}

impl Signals {
    pub(crate) fn install(signals: &[i32]) -> io::Result<Signals> {
        let (read, write) = UnixStream::pair()?;
        let fds = [read.as_raw_fd(), write.as_raw_fd()];
        let before = signals.iter().map(|signal| (*signal, Action::of(*signal))).collect();
        let delivery = SignalDelivery::with_pipe(read, write, WithRawSiginfo, signals)?;
        Ok(Signals { delivery, fds, before })
    }

    /// Puts back what was there before: without it a signal that nobody reads any more would be
    /// lost.
    pub(crate) fn uninstall(self) {
        for (signal, action) in &self.before {
            action.restore(*signal);
        }
    }

    /// What has arrived, by number and not in the order of arrival; at most five of a kind.
    pub(crate) fn pending(&mut self) -> Vec<Received> {
        let received = self.delivery.pending();
        received.map(|info| Received { signal: info.si_signo, from: raw::sender(&info) }).collect()
    }

    /// Both descriptors that this needs to stay open.
    pub(crate) fn fds(&self) -> [RawFd; 2] {
        self.fds
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}

/// Every signal that can be caught: not KILL and STOP, not ILL, FPE and SEGV (a handler that
/// returns from a real one would run into it for ever), and not what the C library keeps.
fn catchable() -> impl Iterator<Item = i32> {
    const NOT: [i32; 5] = [SIGKILL, libc::SIGSTOP, libc::SIGILL, libc::SIGFPE, libc::SIGSEGV];
    (1..=31).chain(raw::real_time_signals()).filter(|signal| !NOT.contains(signal))
}

/// What the launcher catches. A signal that was ignored at the start (`nohup(1)`) stays ignored in
/// launcher and daemon; TERM and CHLD are the protocol's, and PIPE is ignored by the Rust runtime
/// in every program, which says nothing.
pub(crate) fn for_launcher() -> Vec<i32> {
    catchable()
        .filter(|signal| {
            [SIGTERM, SIGCHLD, SIGPIPE].contains(signal) || !Action::of(*signal).is_ignored()
        })
        .collect()
}

/// What the daemon catches; everything else is left to the program.
pub(crate) fn for_daemon() -> Vec<i32> {
    let mut signals = vec![SIGTERM, SIGUSR2];
    if !Action::of(SIGINT).is_ignored() {
        signals.push(SIGINT);
    }
    signals
}

/// Is this a signal that can be sent to wake the launcher?
pub(crate) fn can_release(signal: i32) -> bool {
    catchable().any(|one| one == signal) && ![SIGTERM, SIGCONT].contains(&signal)
}
