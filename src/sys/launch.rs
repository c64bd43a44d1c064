//! The program a second time, and its end.

use super::process::{self, Held};
use super::seqpacket::Link;
use super::{proc, raw};
use crate::proto::End;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

/// The launcher's PID, as in the Go original.
const LAUNCHER: &str = "SEAMLESS";
/// The number of the daemon's end of the channel.
const CHANNEL: &str = "SEAMLESS_CHANNEL";

/// The launcher that started this process as its daemon, if one did.
pub(crate) fn launcher() -> Option<(i32, Link)> {
    let number = |name| env::var(name).ok()?.parse::<i32>().ok();
    let (launcher, fd) = (number(LAUNCHER)?, number(CHANNEL)?);
    if launcher <= 0 || fd <= 2 {
        return None;
    }
    Some((launcher, Link::inherited(fd, launcher)?))
}

/// The path to start again. The file may have been replaced since (a deploy): then the same path
/// names the new one.
pub(crate) fn program() -> io::Result<PathBuf> {
    const DELETED: &[u8] = b" (deleted)";
    let path = match env::current_exe() {
        Ok(path) => path,
        Err(error) => return raw::executed_path().map(PathBuf::from).ok_or(error), // no /proc
    };
    let bytes = path.as_os_str().as_bytes();
    let Some(without) = bytes.strip_suffix(DELETED) else {
        return Ok(path);
    };
    // A file may really be called so.
    if proc::runs_from(&path) {
        return Ok(path);
    }
    Ok(PathBuf::from(OsString::from_vec(without.to_vec())))
}

/// The path that this program was executed by, if it names the file that runs: a link in it, that a
/// deploy points to another folder, is followed anew at each start.
pub(crate) fn executed_by() -> Option<PathBuf> {
    let path = std::path::absolute(raw::executed_path()?).ok()?;
    proc::runs_from(&path).then_some(path)
}

/// Starts the program again as our daemon: same path, arguments (the zeroth too), environment,
/// folder and standard descriptors. Returns when it has been executed, or with the reason why it
/// could not be.
pub(crate) fn spawn(program: &Path, channel: &Link) -> io::Result<Daemon> {
    let mut arguments = env::args_os();
    let mut command = Command::new(program);
    if let Some(zeroth) = arguments.next() {
        command.arg0(zeroth);
    }
    command
        .args(arguments)
        .env(LAUNCHER, process::own_pid().to_string())
        .env(CHANNEL, channel.number().to_string());
    // The launcher speaks for all of the service. A program that the daemon starts, with these in its
    // environment, would speak for it too.
    #[cfg(feature = "systemd")]
    for name in ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"] {
        command.env_remove(name);
    }
    if proc::is_single_threaded() {
        // Nobody else can start a program meanwhile that would inherit it too, and without code to
        // run in between, `std` need not copy the whole process to execute another program.
        channel.let_inherit(true);
        let daemon = command.spawn().map(Daemon::new);
        channel.let_inherit(false);
        return daemon;
    }
    raw::inherit(&mut command, channel.number());
    command.spawn().map(Daemon::new)
}

/// The daemon as its launcher knows it. It keeps its PID until it has been waited for, which threads
/// of the program's in the launcher may do as well: so it is held.
pub(crate) struct Daemon {
    child: Child,
    /// `None` where there are no pidfds.
    held: Option<Held>,
}

impl Daemon {
    fn new(child: Child) -> Daemon {
        let held = Held::open(child.id() as i32).ok();
        Daemon { child, held }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// The descriptor by which it is held.
    pub(crate) fn number(&self) -> Option<RawFd> {
        self.held.as_ref().map(|held| held.as_fd().as_raw_fd())
    }

    /// Has it ended, and how?
    pub(crate) fn ended(&mut self) -> Option<End> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => {
                let code = status.code().map(End::Code);
                code.or(status.signal().map(End::Signal))
            }
            // Somebody else waited for it: how it ended is lost.
            Err(error) if error.raw_os_error() == Some(nix::libc::ECHILD) => Some(End::Code(0)),
            // Nothing would have us look again.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.ended(),
            Err(_) => None,
        }
    }

    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        match &self.held {
            Some(held) => held.signal(signal),
            None => raw::kill(self.pid(), signal),
        }
    }
}

/// As PID 1, whatever is left of the service's own children becomes ours when its parent ends, and
/// would stay a zombie. Our own are left to [`Daemon::ended`].
pub(crate) fn reap_orphans(is_ours: impl Fn(i32) -> bool) {
    use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
    if process::own_pid() != 1 {
        return; // a child that the program has is its own to wait for
    }
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Some(ended) = waitid(Id::All, look).ok().and_then(|status| status.pid()) {
        if is_ours(ended.as_raw()) {
            return; // it is waited for next, and the others after it
        }
        _ = waitpid(ended, Some(WaitPidFlag::WNOHANG));
    }
}

/// Ends this process as `end` says, so that whoever waits for it sees what it would have seen
/// without a launcher in between. No second core is dumped.
pub(crate) fn end_as(end: End) -> ! {
    let signal = match end {
        End::Code(code) => raw::exit_now(code),
        End::Signal(signal) => signal,
    };
    _ = nix::sys::prctl::set_dumpable(false);
    raw::reset_to_default(signal);
    raw::unblock_all();
    _ = raw::kill(process::own_pid(), signal);
    // PID 1 is not ended by its own signals.
    raw::exit_now(128 + signal)
}

/// Signals our launcher: our parent, as long as the channel to it is open.
pub(crate) fn signal_launcher(launcher: i32, signal: i32) -> io::Result<()> {
    // Held first, then looked at: if it is our parent now, the number has not become another's.
    let held = Held::open(launcher);
    if process::parent_pid() != launcher {
        return Err(Errno::ESRCH.into());
    }
    match held {
        Ok(held) => held.signal(signal),
        Err(error) if process::is_shortage(&error) => Err(error),
        Err(_) => raw::kill(launcher, signal), // no pidfds
    }
}

/// Leads a session of its own: a signal to the launcher's group, an orphaned group's HUP and a
/// terminal's ^C do not reach it (`setsid(2)`, `credentials(7)`).
pub(crate) fn new_session() {
    // EPERM: it leads one already.
    _ = nix::unistd::setsid();
}

/// Closes what the launcher does not need, if nobody else can be using it.
pub(crate) fn close_all_but(keep: &[RawFd]) {
    if proc::is_single_threaded() {
        _ = raw::close_all_but(keep);
    }
}

/// What a program that we execute inherits beyond the standard descriptors: what we have inherited
/// ourselves, such as the sockets of `LISTEN_FDS`. Rust opens everything else close-on-exec.
pub(crate) fn inheritable() -> Vec<RawFd> {
    let numbers: Vec<RawFd> = proc::own_descriptors().into_iter().flatten().collect();
    let is_inheritable = |fd: &RawFd| {
        let flags = raw::look_at(*fd, |fd| fcntl(fd, FcntlArg::F_GETFD));
        matches!(flags, Some(Ok(flags)) if !FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC))
    };
    numbers.into_iter().filter(is_inheritable).collect()
}

/// Gives unused memory back: what the program and the start used, the launcher never needs again.
pub(crate) fn trim_memory() {
    raw::trim_memory();
}
