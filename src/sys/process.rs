//! The proof that a process is one of ours, and signals to processes that were proven.

use super::proc;
use super::raw;
use super::shortage::is_shortage;
use super::system;
pub(crate) use super::system::become_user;
use crate::proto::generation::check::Content;
use crate::proto::generation::proof::{self, Sight, World};
use crate::proto::generation::record::{Generation, Identity};
use crate::proto::generation::verdict::Unproven;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub(crate) fn own_pid() -> i32 {
    std::process::id() as i32
}

pub(crate) fn parent_pid() -> i32 {
    nix::unistd::getppid().as_raw()
}

/// Does the kernel tell both? A process whose parent is in another PID namespace has parent 0.
pub(crate) fn knows_pids() -> bool {
    own_pid() > 0 && parent_pid() >= 0
}

/// The user that this process acts as.
pub(crate) fn effective_user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// A process that is held by its pidfd: a signal to it never reaches another process that got its
/// number later.
#[derive(Debug)]
pub(crate) struct Held {
    pidfd: OwnedFd,
}

impl Held {
    pub(crate) fn open(pid: i32) -> io::Result<Held> {
        Ok(Held { pidfd: system::pidfd_open(pid)? })
    }

    pub(crate) fn from_pidfd(pidfd: OwnedFd) -> Held {
        Held { pidfd }
    }

    /// The same process, held once more; `None` if the system is out of descriptors.
    pub(crate) fn again(&self) -> Option<Held> {
        Some(Held { pidfd: self.pidfd.try_clone().ok()? })
    }

    /// A zombie counts as ended.
    pub(crate) fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        system::pidfd_send_signal(self.pidfd.as_fd(), signal)
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// The one proof (promise P5): `proto::generation::proof`. A PID may have been used again, so the pidfd is
/// opened first, and only then are start time, boot and namespace compared: the process that was compared is
/// the process that is held. See `pidfd_open(2)`, `proc_pid_stat(5)`. A process that is to be signalled must
/// also not be [`is_untouchable`].
///
/// An error means that it cannot be known for now: see [`is_shortage`].
fn prove(
    who: Identity,
    theirs: &World,
    world: &World,
    of_this_boot: bool,
) -> io::Result<Result<Held, Unproven>> {
    let held = match Held::open(who.pid) {
        Err(error) if is_shortage(&error) => return Err(error),
        held => held,
    };
    let identity = proc::try_identity(who.pid)?;
    let is_missing = match &held {
        Ok(held) => held.has_ended(),
        // There is no such process, or the number belongs to a thread now; ENOSYS, or EPERM by seccomp.
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ESRCH | Errno::EINVAL | Errno::ENOENT) => true,
            _ => !exists(who.pid),
        },
    };
    let sight = Sight { is_missing, is_held: held.is_ok(), identity };
    let proven = proof::prove(who, theirs, world, of_this_boot, sight);
    Ok(proven.and_then(|()| held.map_err(|_| Unproven::Unknown)))
}

/// Is there a process of this number? It may be a zombie.
pub(crate) fn exists(pid: i32) -> bool {
    match raw::kill(pid, 0) {
        Ok(()) => true,
        Err(error) => error.raw_os_error() != Some(Errno::ESRCH as i32),
    }
}

/// Must this process never be signalled, whatever a file says? To `kill(2)`, 0 and negative numbers
/// mean groups of processes.
fn is_untouchable(pid: i32, launcher: i32) -> bool {
    pid <= 1 || pid == own_pid() || pid == launcher
}

/// [`prove`] for a generation's daemon. `content`: of the PID file.
pub(crate) fn prove_daemon(
    generation: &Generation,
    world: &World,
    launcher: i32,
    content: Content,
) -> io::Result<Result<Held, Unproven>> {
    if is_untouchable(generation.daemon.pid, launcher) {
        return Ok(Err(Unproven::Ours));
    }
    let holds_file = content.is_held_by(generation.daemon.pid);
    prove(generation.daemon, &World::of(generation), world, holds_file)
}

/// Does this generation belong to somebody else? It does if its launcher lives, is not ours, and still
/// has the supervisor that it started with: then two services share a PID file, or a copy was started by
/// hand. A launcher whose supervisor has died is an orphan, and a successor takes over from it.
///
/// `of_this_boot`: its daemon is proven, so what the record says of the launcher is of this boot as well.
pub(crate) fn is_foreign(
    generation: &Generation,
    world: &World,
    own_launcher: i32,
    of_this_boot: bool,
) -> io::Result<bool> {
    let Generation { launcher, supervisor, .. } = generation;
    if launcher.pid == own_launcher {
        return Ok(false);
    }
    let Ok(held) = prove(*launcher, &World::of(generation), world, of_this_boot)? else {
        return Ok(false);
    };
    let Some(supervisor) = supervisor else {
        return Ok(true);
    };
    let is_supervised = proc::try_parent_of(launcher.pid)? == Some(supervisor.pid)
        && proc::try_identity(supervisor.pid)? == Some(*supervisor);
    // If the launcher has ended since, its number may belong to our own supervisor's next child.
    Ok(is_supervised && !held.has_ended())
}

/// Could this user signal the process without us? As in `kill(2)`, the real and the saved user count.
/// The effective user, who also owns `/proc/PID`, does not: a process of root's may act as another user
/// for a while. The caller must hold the process.
pub(crate) fn is_of(pid: i32, user: u32) -> io::Result<bool> {
    let users = proc::users(pid)?;
    Ok(users.is_some_and(|[real, _effective, saved]| real == user || saved == user))
}

/// From here on the kernel prefers this process, if it is out of memory and has to kill one
/// (`proc_pid_oom_score_adj(5)`). A higher value stays: it may only be lowered with a capability.
pub(crate) fn offer_to_the_oom_killer() -> io::Result<()> {
    /// Above each process with the same value 0 that has up to nine tenths of the memory.
    const PREFERRED: i32 = 900;
    const FILE: &str = "/proc/self/oom_score_adj";
    let now = std::fs::read_to_string(FILE)?.trim().parse::<i32>().map_err(io::Error::other)?;
    match now < PREFERRED {
        true => std::fs::write(FILE, PREFERRED.to_string()),
        false => Ok(()),
    }
}

/// Signals the process that holds the lock on the PID file. Only for kernels without pidfds: its PID may
/// become another process's between the check of the lock and the signal.
pub(crate) fn signal_owner(pid: i32, signal: i32) -> io::Result<()> {
    raw::kill(pid, signal)
}
