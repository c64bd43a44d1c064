//! Executing the program a second time, as the daemon, and ending the launcher as its daemon ended.

use super::process::{self, Held};
use super::seqpacket::Link;
use super::shortage::is_shortage;
pub(crate) use super::system::trim_memory;
use super::{proc, raw, signals, system};
use crate::proto::End;
use crate::proto::role::Facts;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The launcher's PID, as in the Go original.
const LAUNCHER: &str = "SEAMLESS";
/// The PID file's path, if the program names it by a relative path, and generations may be started in
/// another folder than the first one.
const PID_FILE: &str = "SEAMLESS_PID_FILE";
/// The number of the daemon's end of the channel.
const CHANNEL: &str = "SEAMLESS_CHANNEL";
/// Set for a keeper only.
const KEEPER: &str = "SEAMLESS_KEEPER";

/// What the environment says about this process: a launcher's PID, and the number of the channel to it.
/// Every program that a daemon starts inherits it.
pub(crate) struct Mark {
    pub(crate) launcher: i32,
    pub(crate) channel: RawFd,
    is_keeper: bool,
}

impl Mark {
    pub(crate) fn find() -> Option<Mark> {
        let number = |name| env::var(name).ok()?.parse::<i32>().ok();
        let is_keeper = env::var_os(KEEPER).is_some();
        let mark = Mark { launcher: number(LAUNCHER)?, channel: number(CHANNEL)?, is_keeper };
        (mark.launcher > 0 && mark.channel > 2).then_some(mark)
    }

    /// An error means that the kernel does not tell.
    pub(crate) fn facts(&self) -> io::Result<Facts> {
        Ok(Facts {
            channel_is_its: Link::is_channel(self.channel, self.launcher)?,
            is_child: process::parent_pid() == self.launcher,
            shares_session: {
                let session = |pid| nix::unistd::getsid(pid);
                let its = session(Some(nix::unistd::Pid::from_raw(self.launcher)));
                its == session(None) // both fail if no session can be asked for
            },
            marked_keeper: self.is_keeper,
        })
    }

    /// The daemon's end of the channel. To be called once, and only if the facts say that it is there.
    pub(crate) fn adopt_channel(&self) -> Link {
        Link::adopt(self.channel)
    }
}

/// The path of this program, to be executed again. If a deploy has replaced the file since, the same
/// path names the new file.
pub(crate) fn program() -> io::Result<PathBuf> {
    const DELETED: &[u8] = b" (deleted)";
    let path = match env::current_exe() {
        Ok(path) => path,
        Err(error) => return system::executed_path().map(PathBuf::from).ok_or(error), // no /proc
    };
    let bytes = path.as_os_str().as_bytes();
    let Some(without) = bytes.strip_suffix(DELETED) else {
        return Ok(path);
    };
    // A file may really have that ending in its name.
    if proc::runs_from(&path) {
        return Ok(path);
    }
    Ok(PathBuf::from(OsString::from_vec(without.to_vec())))
}

/// The path by which this program was executed, if it still names the file that runs. It may contain a
/// link that a deploy points to another folder, and each start follows the link anew. `folder`: the path
/// by which the program's folder was entered, if that is known.
pub(crate) fn executed_by(folder: Option<&Path>) -> Option<PathBuf> {
    let path = PathBuf::from(system::executed_path()?);
    let path = match folder {
        Some(folder) => folder.join(path),
        None => std::path::absolute(path).ok()?,
    };
    proc::runs_from(&path).then_some(path)
}

/// The PID file's path that the launcher has found for its daemons.
pub(crate) fn pid_file() -> Option<PathBuf> {
    env::var_os(PID_FILE).map(PathBuf::from)
}

/// How a daemon is started, beyond its program.
#[derive(Default)]
pub(crate) struct Surroundings {
    /// Instead of our own environment.
    pub(crate) environment: Option<Vec<(OsString, OsString)>>,
    pub(crate) more_environment: Vec<(OsString, OsString)>,
    /// The daemon enters it anew. `None`: the daemon has the same working folder as we have.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) pid_file: Option<PathBuf>,
    /// The daemon ignores these until it installs its handlers.
    pub(crate) ignored: Vec<i32>,
}

/// The words by which this program was executed. A dynamic loader that was itself executed, with the program as
/// an argument (`ld.so(8)`), hides its own words from the program: the kernel still knows them. But if the
/// program has written its title over them (`setproctitle`), only the program's own are left.
fn arguments() -> Vec<OsString> {
    let known: Vec<OsString> = env::args_os().collect();
    let executed = proc::own_command_line().unwrap_or_default();
    let is_behind_a_loader = executed.len() > known.len() && executed.ends_with(&known);
    if is_behind_a_loader && !known.is_empty() { executed } else { known }
}

/// Executes the program again as our daemon, with the same path, arguments (the zeroth too) and
/// standard descriptors. Returns when the program has been executed, or the reason why it could not be.
pub(crate) fn spawn(
    program: &Path,
    channel: &Link,
    mut surroundings: Surroundings,
) -> io::Result<Daemon> {
    let ignored = std::mem::take(&mut surroundings.ignored);
    let mut command = command(program, channel, surroundings)?;
    command.env_remove(KEEPER);
    execute(command, channel, ignored)
}

/// Executes our own program again as a keeper, as it runs now: a deploy may have replaced the file. Its
/// standard descriptors lead nowhere, so that nobody who reads our output waits for its end.
pub(crate) fn spawn_keeper(channel: &Link) -> io::Result<Daemon> {
    let path = env::current_exe().ok().filter(|path| proc::runs_from(path));
    let path = path.unwrap_or_else(|| OWN_PROGRAM.into());
    let mut command = command(&path, channel, Surroundings::default())?;
    command.env(KEEPER, "1").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    execute(command, channel, Vec::new())
}

/// The file that this process runs, whatever its path names now.
const OWN_PROGRAM: &str = "/proc/self/exe";

fn command(program: &Path, channel: &Link, surroundings: Surroundings) -> io::Result<Command> {
    let Surroundings { environment, more_environment, folder, pid_file, ignored: _ } = surroundings;
    let mut arguments = arguments().into_iter();
    let mut command = Command::new(program);
    if let Some(zeroth) = arguments.next() {
        command.arg0(zeroth);
    }
    if let Some(environment) = environment {
        command.env_clear().envs(environment);
    }
    if let Some(folder) = folder {
        // Otherwise a failure looks as if the program were missing.
        fs::metadata(&folder).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot enter {folder:?}: {error}"))
        })?;
        command.env("PWD", &folder).current_dir(folder);
    }
    command.envs(more_environment);
    match pid_file {
        Some(path) => command.env(PID_FILE, path),
        None => command.env_remove(PID_FILE),
    };
    command
        .args(arguments)
        .env(LAUNCHER, process::own_pid().to_string())
        .env(CHANNEL, channel.number().to_string());
    // The launcher tells systemd the state of the service. A program that the daemon starts must not
    // find these in its environment, or it would tell systemd its own state.
    #[cfg(feature = "systemd")]
    for name in ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"] {
        command.env_remove(name);
    }
    Ok(command)
}

fn execute(mut command: Command, channel: &Link, ignored: Vec<i32>) -> io::Result<Daemon> {
    if ignored.is_empty() && proc::threads() == Some(1) {
        // No other thread can start a program now that would inherit the channel too. Without code to
        // run between fork and exec, `std` need not copy the whole process.
        channel.let_inherit(true);
        let daemon = command.spawn().map(Daemon::new);
        channel.let_inherit(false);
        return daemon;
    }
    raw::inherit(&mut command, channel.number(), ignored);
    command.spawn().map(Daemon::new)
}

/// A daemon or a keeper, for its launcher. A process keeps its PID until its parent has waited for it. Other
/// threads of the program may wait for any child, so the daemon is also held by a pidfd.
pub(crate) struct Daemon {
    child: Child,
    /// `None` if the kernel has no pidfds.
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

    /// The number of the pidfd.
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
            // Another thread of the program waited for it, so how it ended is lost.
            Err(error) if error.raw_os_error() == Some(nix::libc::ECHILD) => Some(End::Code(0)),
            // Nothing else would make us ask again.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.ended(),
            // A filter of system calls refuses it. That it has ended is still known.
            Err(_) => self.held.as_ref().filter(|held| held.has_ended()).map(|_| End::Code(0)),
        }
    }

    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        match &self.held {
            Some(held) => held.signal(signal),
            None => raw::kill(self.pid(), signal),
        }
    }
}

/// As PID 1, the launcher inherits every child of the service whose parent has ended, and such a child
/// would stay a zombie. Waits for those; our own daemons are left to [`Daemon::ended`].
pub(crate) fn reap_orphans(is_ours: impl Fn(i32) -> bool) {
    if process::own_pid() != 1 {
        return; // only the program itself may wait for its children
    }
    system::reap_orphans(is_ours);
}

/// Ends this process as its daemon ended, so that the supervisor sees what it would see without a
/// launcher in between. No second core is dumped.
pub(crate) fn end_as(end: End) -> ! {
    let signal = match end {
        End::Code(code) => raw::exit_now(code),
        End::Signal(signal) => signal,
    };
    system::dump_no_core();
    raw::reset_to_default(signal);
    signals::unblock_all();
    _ = raw::kill(process::own_pid(), signal);
    // PID 1 does not die of a signal that it sends to itself.
    raw::exit_now(128 + signal)
}

/// Signals our launcher. It is our parent as long as the channel to it is open.
pub(crate) fn signal_launcher(launcher: i32, signal: i32) -> io::Result<()> {
    // First held, then checked: if it is still our parent, its number has not become another
    // process's before it was held.
    let held = Held::open(launcher);
    if process::parent_pid() != launcher {
        return Err(Errno::ESRCH.into());
    }
    match held {
        Ok(held) => held.signal(signal),
        Err(error) if is_shortage(&error) => Err(error),
        Err(_) => raw::kill(launcher, signal), // no pidfds
    }
}

/// Makes this process the leader of a session of its own. A signal to the launcher's group, the HUP of
/// an orphaned group and a terminal's ^C do not reach it (`setsid(2)`, `credentials(7)`).
pub(crate) fn new_session() {
    // EPERM: it is a leader already.
    _ = nix::unistd::setsid();
}

/// Closes every descriptor from 3 up that the launcher does not need, if no other thread can be using one. Their
/// numbers are not used again: a logger that was set up before goes on writing to the number of its file. Returns how
/// many threads there were then; `None` if that is unknown.
pub(crate) fn close_all_but(keep: &[RawFd]) -> Option<usize> {
    let threads = proc::threads();
    if threads != Some(1) {
        return threads;
    }
    let mut open: Vec<RawFd> = proc::own_descriptors().into_iter().flatten().collect();
    if open.is_empty() {
        open.extend(0..1024); // no descriptor is left to look, or seccomp refuses it
    }
    open.retain(|fd| *fd > 2 && !keep.contains(fd));
    if system::close_for_good(&open).is_err() {
        for fd in open {
            _ = nix::unistd::close(fd);
        }
    }
    threads
}

/// The numbers of the descriptors that a program inherits if we execute it, the standard descriptors
/// included. The others are those that we have inherited ourselves, such as the sockets of
/// `LISTEN_FDS`: Rust opens every descriptor close-on-exec.
pub(crate) fn inheritable() -> Vec<RawFd> {
    let numbers: Vec<RawFd> = proc::own_descriptors().into_iter().flatten().collect();
    let is_inheritable = |fd: &RawFd| {
        let flags = raw::look_at(*fd, |fd| Ok(fcntl(fd, FcntlArg::F_GETFD)?));
        matches!(flags, Ok(flags) if !FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC))
    };
    numbers.into_iter().filter(is_inheritable).collect()
}
