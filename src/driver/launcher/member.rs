//! Starts the program again, as a daemon of this launcher.

use crate::driver::retry;
use crate::driver::settings::Settings;
use crate::driver::unix_socket_error;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::channel::ToDaemon;
use crate::shutdown::panic_text;
use crate::sys::launch::{self, Surroundings};
use crate::sys::proc;
use crate::sys::seqpacket::Link;
use crate::sys::shortage::is_shortage;
use crate::sys::supervisor::Supervisor;
use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What it takes to start the program again.
pub(super) struct Again {
    pub(super) in_place: bool,
    /// Links included, which a deploy may switch: for a restart in place, and for a daemon that waits in `init`.
    executed_by: Option<PathBuf>,
    /// The folder that each daemon enters; `None`: it stands where we stand.
    folder: Option<PathBuf>,
    /// For a restart in place: what this process was started with.
    first_environment: Option<Vec<(OsString, OsString)>>,
    /// The PID file, if its path has to be passed on.
    pid_file: Option<PathBuf>,
}

impl Again {
    /// `is_relative`: the program has named the PID file by a relative path.
    pub(super) fn new(settings: &Settings, is_relative: bool) -> Again {
        let in_place = !settings.reload_signals.is_empty();
        let entered = proc::entered_folder();
        let executed_by = launch::executed_by(entered.as_deref());
        let folder = settings.working_dir.clone().or(entered.filter(|_| in_place));
        let moves = folder.is_some();
        Again {
            in_place,
            executed_by,
            folder,
            first_environment: proc::first_environment().ok().filter(|_| in_place),
            pid_file: Some(settings.pid_file.clone()).filter(|_| is_relative && moves),
        }
    }

    /// Is a path unknown that a deploy by links needs: that of the program, or that of its folder?
    pub(super) fn is_unknown(&self) -> bool {
        let in_root = env::current_dir().is_ok_and(|folder| folder == Path::new("/"));
        let folder = self.folder.is_none() && !in_root;
        self.in_place && (folder || self.executed_by.is_none())
    }

    fn surroundings(&self, settings: &mut Settings) -> io::Result<Surroundings> {
        let more_environment = match &mut settings.environment {
            None => Vec::new(),
            Some(variables) => catch_unwind(AssertUnwindSafe(variables)).map_err(|panic| {
                let panic = panic_text(&*panic);
                io::Error::other(format!("the hook of Config::environment panicked: {panic}"))
            })?,
        };
        Ok(Surroundings {
            environment: self.first_environment.clone(),
            more_environment,
            folder: self.folder.clone(),
            pid_file: self.pid_file.clone(),
            // A daemon must not die of these before it has installed its handlers.
            ignored: settings.reload_signals.clone(),
        })
    }

    /// The handlers are installed by now: a signal that comes while the daemon is being started is
    /// not lost. The hello waits in the channel when the daemon first looks.
    pub(super) fn start(&self, settings: &mut Settings, supervisor: &Supervisor) -> Result<Member> {
        let (ours, theirs) = Link::pair().map_err(|error| {
            unix_socket_error(ErrorKind::Channel, "cannot make the channel (launch)", error)
        })?;
        let (hello, pidfd) = supervisor.hello(self.in_place);
        let hello = ToDaemon::Hello(hello).format();
        greet(&ours, &hello, pidfd.as_slice()).map_err(|error| {
            Error::io(ErrorKind::Channel, "cannot use the channel (launch)", error)
        })?;
        let program = self.program().map_err(|error| {
            Error::io(ErrorKind::Launch, "cannot find the program's file (launch)", error)
        })?;
        let surroundings = self.surroundings(settings);
        let daemon = surroundings.and_then(|all| launch::spawn(&program, &theirs, all));
        let daemon = daemon.map_err(|error| {
            let denied = error.kind() == io::ErrorKind::PermissionDenied;
            let text = format!("cannot start {program:?} again (launch)");
            let error = Error::io(ErrorKind::Launch, text, error);
            match denied {
                true => error.hint(
                    "the program must be allowed to execute itself: see its mode, noexec mounts and \
                     NoExecPaths=, seccomp (execve), and the rules of SELinux or AppArmor",
                ),
                false => error,
            }
        })?;
        Ok(Member {
            daemon,
            channel: Some(ours),
            drain_timeout: settings.drain_timeout,
            leaves_for: Duration::ZERO,
            since: Instant::now(),
        })
    }

    /// From the file as it is now.
    fn program(&self) -> io::Result<PathBuf> {
        self.executed_by.clone().map_or_else(launch::program, Ok)
    }
}

/// The first message to a process that we start, with the supervisor's pidfd.
pub(super) fn greet(link: &Link, hello: &[u8], pidfd: &[BorrowedFd<'_>]) -> io::Result<()> {
    match retry::within(retry::FIRST_MESSAGE, || link.send(hello, pidfd)) {
        // Other processes of this user may have so many descriptors in messages that none may be added. Without the
        // pidfd, the supervisor is known by its PID and its start.
        Err(error) if !pidfd.is_empty() && is_shortage(&error) => link.send(hello, &[]),
        sent => sent,
    }
}

/// A daemon of this launcher.
pub(super) struct Member {
    pub(super) daemon: launch::Daemon,
    /// `None` once its end of it is closed.
    pub(super) channel: Option<Link>,
    /// How long its drain may take. Until it has told us, this is what our own configuration says: a server has a
    /// limit of its own, and after a restart in place the daemon may run another program.
    pub(super) drain_timeout: Option<Duration>,
    /// For so long it serves on before its drain, as it has told us.
    pub(super) leaves_for: Duration,
    pub(super) since: Instant,
}
