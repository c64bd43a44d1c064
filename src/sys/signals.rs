//! Signals as descriptors to wait for. Handlers only note the signal and wake the reader
//! (`signal-safety(7)`); what a signal means is decided elsewhere.

use super::notes;
use super::raw::{self, Action};
use super::system;
use super::wait::Waker;
use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow};
use signal_hook::iterator::backend::{Handle, SignalDelivery};
use signal_hook::iterator::exfiltrator::{SignalOnly, WithRawSiginfo};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;

pub(crate) use libc::{SIGCHLD, SIGCONT, SIGINT, SIGKILL, SIGPIPE, SIGTERM, SIGUSR2};

/// Unblocks every signal for this thread, whatever mask it was started with.
pub(crate) fn unblock_all() {
    _ = SigSet::empty().thread_set_mask();
}

/// A signal that arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    pub(crate) signal: i32,
    /// The sender, for signals with a meaning in the protocol; 0 if it is not in our PID namespace.
    pub(crate) from: Option<i32>,
}

/// Signal handlers, and the descriptors that become readable when a signal arrives.
pub(crate) struct Signals {
    /// Signals with a meaning in the protocol, with their senders.
    meant: SignalDelivery<UnixStream, WithRawSiginfo>,
    /// Signals that are passed on, by number only, which takes a fraction of the memory.
    passed: Option<SignalDelivery<UnixStream, SignalOnly>>,
    fds: Vec<RawFd>,
    before: Vec<(i32, Action)>,
}

impl Signals {
    /// Installs the handlers. signal-hook would swallow a signal that arrives in the middle of this if
    /// its action was the default one, so all signals are blocked until everything is in place.
    pub(crate) fn install(meant: &[i32], passed: &[i32]) -> io::Result<Signals> {
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let installed = Signals::install_all(meant, passed);
        mask.thread_set_mask()?;
        installed
    }

    fn install_all(meant: &[i32], passed: &[i32]) -> io::Result<Signals> {
        let before = meant.iter().chain(passed).map(|signal| (*signal, Action::of(*signal)));
        let before = before.collect();
        // One pair for each kind: emptying a shared one for one kind would swallow the wake-up of the
        // other.
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

    /// Restores the earlier actions. Without this a signal would be lost: nobody reads it any more.
    pub(crate) fn uninstall(self) {
        for (signal, action) in &self.before {
            action.restore(*signal);
        }
    }

    /// The signals that have arrived, ordered by number and not by arrival; at most five of a kind.
    pub(crate) fn pending(&mut self) -> Vec<Received> {
        let meant = self
            .meant
            .pending()
            .map(|info| Received { signal: info.si_signo, from: Some(raw::sender(&info)) });
        let passed = self.passed.iter_mut().flat_map(SignalDelivery::pending);
        let passed = passed.map(|signal| Received { signal, from: None });
        meant.chain(passed).collect()
    }

    /// All descriptors that must stay open for this to work.
    pub(crate) fn fds(&self) -> &[RawFd] {
        &self.fds
    }

    /// The descriptors to wait for.
    pub(crate) fn readers(&self) -> Vec<BorrowedFd<'_>> {
        let passed = self.passed.iter().map(|passed| passed.get_read().as_fd());
        std::iter::once(self.meant.get_read().as_fd()).chain(passed).collect()
    }
}

/// Every signal that we can catch. Not KILL and STOP; not BUS, ILL, FPE and SEGV (after the handler of a real
/// one returns, the same instruction raises it again, for ever); and not those that the C library uses.
fn catchable() -> impl Iterator<Item = i32> {
    const NOT: [i32; 6] =
        [SIGKILL, libc::SIGSTOP, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGSEGV];
    (1..=31).chain(system::real_time_signals()).filter(|signal| !NOT.contains(signal))
}

/// The signals that the launcher catches: those with a meaning, and those that it passes on. A signal
/// that was ignored at the start (`nohup(1)`) stays ignored in launcher and daemon, with these
/// exceptions: TERM and the release belong to the protocol, the program has given a reload signal its
/// meaning, and the Rust runtime ignores PIPE in every program, so that says nothing about the user's
/// wish.
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

/// A program that does not handle these is to stop when it gets them. Images say `STOPSIGNAL SIGQUIT`,
/// units `KillSignal=SIGQUIT`, and LXC sends PWR.
pub(crate) const HALTS: &[i32] = system::HALTS;

/// The daemon takes those of [`HALTS`] and of the reload signals that have their default action: they are ours
/// only as long as the program does not handle them itself. A reload signal has a meaning also if it was
/// ignored at the start. To be called once; `waker` is woken by each signal, and must stay open.
pub(crate) fn take_unless_handled(reload: &[i32], launcher: i32, waker: &Waker) -> io::Result<()> {
    notes::prepare(waker.number(), launcher);
    for signal in HALTS.iter().chain(reload).copied() {
        let action = Action::of(signal);
        if action.is_default() || action.is_ignored() && reload.contains(&signal) {
            notes::install(signal)?;
        }
    }
    Ok(())
}

/// Those that have arrived since the last call and are not the program's, and whether the launcher sent
/// them. To be called after [`Waker::clear`].
pub(crate) fn taken() -> Vec<(i32, bool)> {
    notes::take().filter(|(signal, _)| notes::is_installed(*signal)).collect()
}

/// The signals that the daemon catches. All others are left to the program.
pub(crate) fn for_daemon() -> Vec<i32> {
    let mut signals = vec![SIGTERM, SIGUSR2];
    if !Action::of(SIGINT).is_ignored() {
        signals.push(SIGINT);
    }
    signals
}

/// The signals that a keeper catches, by number only, which takes less memory. All others that can be
/// caught are ignored from now on.
pub(crate) fn for_keeper() -> [i32; 2] {
    let left = [SIGTERM, SIGINT, SIGCHLD];
    catchable().filter(|signal| !left.contains(signal)).for_each(raw::ignore);
    [SIGTERM, SIGINT]
}

/// Does the daemon give this signal a meaning?
pub(crate) fn handles(signal: i32) -> bool {
    [SIGTERM, SIGINT, SIGUSR2].contains(&signal)
}

/// Can this signal have a handler?
pub(crate) fn can_catch(signal: i32) -> bool {
    catchable().any(|one| one == signal)
}

/// Signals that a thread of its own waits for; other handlers of the same signals still run.
pub(crate) struct Arrivals(Handle);

impl Arrivals {
    /// Also returns the value whose `hand_over` gives them one by one, for ever, to the thread that calls
    /// it.
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

/// Can the daemon send this signal to wake the launcher?
pub(crate) fn can_release(signal: i32) -> bool {
    can_catch(signal) && ![SIGTERM, SIGCONT].contains(&signal)
}

/// Can this signal be passed on to every generation? Not those that mean something to the crate.
pub(crate) fn can_pass_to_all(signal: i32, release: i32) -> bool {
    can_reload(signal, release) && !HALTS.contains(&signal)
}

/// Can this signal ask for a restart in place? Not those that mean something else, and not PIPE, which
/// a write to the log can raise.
pub(crate) fn can_reload(signal: i32, release: i32) -> bool {
    let taken = [SIGTERM, SIGINT, SIGUSR2, SIGCHLD, SIGCONT, SIGPIPE, release];
    can_catch(signal) && !taken.contains(&signal)
}
