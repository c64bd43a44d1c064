//! Signals as something to wait for. Handlers only note the signal and wake the reader
//! (`signal-safety(7)`); what it means is decided elsewhere.

use super::raw::{self, Action};
use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow};
use signal_hook::iterator::backend::{Handle, SignalDelivery};
use signal_hook::iterator::exfiltrator::{SignalOnly, WithRawSiginfo};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;

#[cfg(feature = "systemd")]
pub(crate) use libc::SIGABRT;
pub(crate) use libc::{SIGCHLD, SIGCONT, SIGINT, SIGKILL, SIGPIPE, SIGTERM, SIGUSR2};
pub(crate) use raw::unblock_all;

/// A signal that arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    pub(crate) signal: i32,
    /// Who sent it, where that matters; 0 where it was nobody in our PID namespace.
    pub(crate) from: Option<i32>,
}

/// Signal handlers, and the descriptors that become readable when a signal arrives.
pub(crate) struct Signals {
    /// With their senders: what the protocol gives a meaning to.
    meant: SignalDelivery<UnixStream, WithRawSiginfo>,
    /// By number only, which takes a fraction of the memory: what is passed on.
    passed: Option<SignalDelivery<UnixStream, SignalOnly>>,
    fds: Vec<RawFd>,
    before: Vec<(i32, Action)>,
}

impl Signals {
    /// Guards against a signal that arrives in the middle of it: where the action before was the
    /// default one, signal-hook swallows it. So it has to wait until all is in place.
    pub(crate) fn install(meant: &[i32], passed: &[i32]) -> io::Result<Signals> {
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let installed = Signals::install_all(meant, passed);
        mask.thread_set_mask()?;
        installed
    }

    fn install_all(meant: &[i32], passed: &[i32]) -> io::Result<Signals> {
        let before = meant.iter().chain(passed).map(|signal| (*signal, Action::of(*signal)));
        let before = before.collect();
        // One pair each: a shared one, read empty for one kind, would swallow the other's wake-up.
        let mut fds = Vec::new();
        let mut pair = || {
            let (read, write) = UnixStream::pair()?;
            fds.extend([read.as_raw_fd(), write.as_raw_fd()]);
            io::Result::Ok((read, write))
        };
        let (read, write) = pair()?;
        let meant = SignalDelivery::with_pipe(read, write, WithRawSiginfo, meant)?;
        let passed = match passed {
            [] => None,
            passed => {
                let (read, write) = pair()?;
                Some(SignalDelivery::with_pipe(read, write, SignalOnly, passed)?)
            }
        };
        Ok(Signals { meant, passed, fds, before })
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
        let meant = self
            .meant
            .pending()
            .map(|info| Received { signal: info.si_signo, from: Some(raw::sender(&info)) });
        let passed = self.passed.iter_mut().flat_map(SignalDelivery::pending);
        let passed = passed.map(|signal| Received { signal, from: None });
        meant.chain(passed).collect()
    }

    /// All descriptors that this needs to stay open.
    pub(crate) fn fds(&self) -> &[RawFd] {
        &self.fds
    }

    /// Those to wait for.
    pub(crate) fn readers(&self) -> Vec<BorrowedFd<'_>> {
        let passed = self.passed.iter().map(|passed| passed.get_read().as_fd());
        std::iter::once(self.meant.get_read().as_fd()).chain(passed).collect()
    }
}

/// Every signal that can be caught: not KILL and STOP, not ILL, FPE and SEGV (a handler that
/// returns from a real one would run into it for ever), and not what the C library keeps.
fn catchable() -> impl Iterator<Item = i32> {
    const NOT: [i32; 5] = [SIGKILL, libc::SIGSTOP, libc::SIGILL, libc::SIGFPE, libc::SIGSEGV];
    (1..=31).chain(raw::real_time_signals()).filter(|signal| !NOT.contains(signal))
}

/// What the launcher catches: what it gives a meaning to, and what it passes on. A signal that was
/// ignored at the start (`nohup(1)`) stays ignored in launcher and daemon; TERM and the release are
/// the protocol's, a reload signal has been given its meaning by the program, and PIPE is ignored by
/// the Rust runtime in every program, which says nothing.
pub(crate) fn for_launcher(release: i32, reload: &[i32]) -> (Vec<i32>, Vec<i32>) {
    let kept = |signal: &i32| !Action::of(*signal).is_ignored();
    let mut meant = vec![SIGTERM, SIGCHLD, SIGPIPE];
    meant.extend([SIGCONT].into_iter().filter(kept));
    if !meant.contains(&release) {
        meant.push(release);
    }
    let passed = catchable().filter(|signal| !meant.contains(signal));
    let passed = passed.filter(|signal| kept(signal) || reload.contains(signal)).collect();
    (meant, passed)
}

/// What the daemon catches; everything else is left to the program.
pub(crate) fn for_daemon() -> Vec<i32> {
    let mut signals = vec![SIGTERM, SIGUSR2];
    if !Action::of(SIGINT).is_ignored() {
        signals.push(SIGINT);
    }
    signals
}

/// Does the daemon do something at this signal?
pub(crate) fn handles(signal: i32) -> bool {
    [SIGTERM, SIGINT, SIGUSR2].contains(&signal)
}

/// Is this a signal that a handler may be had for?
pub(crate) fn can_catch(signal: i32) -> bool {
    catchable().any(|one| one == signal)
}

/// Signals that a thread of its own waits for, beside whoever else handles them.
pub(crate) struct Arrivals(Handle);

impl Arrivals {
    /// With what hands them over one by one, for ever, on the thread that calls it.
    pub(crate) fn install(signals: &[i32]) -> io::Result<(Arrivals, Waiting)> {
        let waiting = signal_hook::iterator::Signals::new(signals)?;
        Ok((Arrivals(waiting.handle()), Waiting(waiting)))
    }

    pub(crate) fn add(&self, signal: i32) -> io::Result<()> {
        self.0.add_signal(signal)
    }
}

pub(crate) struct Waiting(signal_hook::iterator::Signals);

impl Waiting {
    pub(crate) fn hand_over(mut self, take: impl FnMut(i32)) {
        self.0.forever().for_each(take);
    }
}

/// Is this a signal that can be sent to wake the launcher?
pub(crate) fn can_release(signal: i32) -> bool {
    catchable().any(|one| one == signal) && ![SIGTERM, SIGCONT].contains(&signal)
}

/// Is this a signal that can ask for a restart in place? Those that mean something else cannot, nor
/// PIPE, which a write to the log can raise.
pub(crate) fn can_reload(signal: i32, release: i32) -> bool {
    let taken = [SIGTERM, SIGINT, SIGUSR2, SIGCHLD, SIGCONT, SIGPIPE, release];
    catchable().any(|one| one == signal) && !taken.contains(&signal)
}
