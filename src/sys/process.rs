//! Who a process is, and the proof without which none is signalled.

pub(crate) use super::shortage::is_shortage;
use super::shortage::unless_short;
use super::{raw, signals};
use crate::proto::generation::record::{Generation, Identity};
use crate::proto::generation::takeover::Unproven;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// What distinguishes our PIDs and start times from those of another boot or namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct World {
    pub(crate) boot: String,
    pub(crate) pid_namespace: u64,
}

/// The fields of `/proc/PID/stat` that we need.
struct Stat {
    parent: i32,
    start: u64,
}

pub(crate) fn own_pid() -> i32 {
    std::process::id() as i32
}

pub(crate) fn parent_pid() -> i32 {
    nix::unistd::getppid().as_raw()
}

/// The user that this process acts as.
pub(crate) fn effective_user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// A process as it is now; `None` where it is gone or `/proc` does not show it, or cannot for now.
pub(crate) fn identity(pid: i32) -> Option<Identity> {
    try_identity(pid).ok().flatten()
}

/// The same, with an error where it cannot be known for now.
pub(crate) fn try_identity(pid: i32) -> io::Result<Option<Identity>> {
    Ok(unless_short(stat(pid))?.map(|stat| Identity { pid, start: stat.start }))
}

/// Ourselves; an error where `/proc` does not say.
pub(crate) fn own_identity() -> io::Result<Identity> {
    let pid = own_pid();
    stat(pid).map(|stat| Identity { pid, start: stat.start })
}

/// The parent of a process, where `/proc` shows it.
pub(crate) fn parent_of(pid: i32) -> Option<i32> {
    stat(pid).ok().map(|stat| stat.parent)
}

/// Does `/proc` number processes as we do? One that is left over from before an `unshare(2)` shows
/// others under our numbers.
fn check_proc() -> io::Result<()> {
    let own = std::fs::read_link("/proc/self")?;
    match own.as_os_str() == own_pid().to_string().as_str() {
        true => Ok(()),
        false => Err(io::Error::other("/proc belongs to another PID namespace")),
    }
}

fn stat(pid: i32) -> io::Result<Stat> {
    check_proc()?;
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in field 2 may hold anything, blanks and parentheses too; field 3 follows its last
    // `)`.
    let fields = text.rsplit_once(") ").map(|(_, rest)| rest.split_ascii_whitespace());
    let mut fields = fields.ok_or(io::ErrorKind::InvalidData)?.skip(1);
    let parent = fields.next().and_then(|field| field.parse().ok());
    let start = fields.nth(17).and_then(|field| field.parse().ok());
    match (parent, start) {
        (Some(parent), Some(start)) => Ok(Stat { parent, start }),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A process's name: the first 15 bytes of its program's file name.
pub(crate) fn name(pid: i32) -> Option<String> {
    try_name(pid).ok()
}

/// The same, with the error.
pub(crate) fn try_name(pid: i32) -> io::Result<String> {
    check_proc()?;
    let name = std::fs::read(format!("/proc/{pid}/comm"))?;
    Ok(String::from_utf8_lossy(&name).trim_end().to_owned())
}

/// The file name in the first word of a process's command line.
pub(crate) fn program(pid: i32) -> Option<String> {
    check_proc().ok()?;
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let first = command.split(|byte| *byte == 0).next()?;
    let name = first.rsplit(|byte| *byte == b'/').next()?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// This boot and this PID namespace. Without `/proc` there is no such thing, and no proof.
pub(crate) fn world() -> io::Result<World> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    check_proc()?;
    Ok(World {
        boot: boot.trim_end().to_owned(),
        pid_namespace: std::fs::metadata("/proc/self/ns/pid")?.ino(),
    })
}

/// Has this process a single thread? `false` where that cannot be known.
pub(crate) fn is_single_threaded() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1)
}

/// What tells of sockets that the supervisor has passed.
#[derive(Debug)]
pub(crate) struct PassedVariables([Option<String>; 3]);

impl PassedVariables {
    pub(crate) fn as_ref(&self) -> crate::proto::sockets::passed::Variables<'_> {
        let [pid, fds, names] = self.0.each_ref().map(Option::as_deref);
        crate::proto::sockets::passed::Variables { pid, fds, names }
    }
}

pub(crate) fn passed_variables() -> PassedVariables {
    PassedVariables(
        ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]
            .map(|name| Some(std::env::var_os(name)?.to_string_lossy().into_owned())),
    )
}

/// A process held by its pidfd: the kernel keeps it from becoming another one.
#[derive(Debug)]
pub(crate) struct Held {
    pidfd: OwnedFd,
}

impl Held {
    pub(crate) fn open(pid: i32) -> io::Result<Held> {
        Ok(Held { pidfd: raw::pidfd_open(pid)? })
    }

    pub(crate) fn from_pidfd(pidfd: OwnedFd) -> Held {
        Held { pidfd }
    }

    /// A zombie has ended too.
    pub(crate) fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        raw::pidfd_send_signal(self.pidfd.as_fd(), signal, None)
    }

    /// USR2 that only ends what has not started yet; see [`signals::EVICTION`].
    pub(crate) fn evict(&self) -> io::Result<()> {
        raw::pidfd_send_signal(self.pidfd.as_fd(), signals::SIGUSR2, Some(signals::EVICTION))
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// The one proof (promise P5). Guards against a PID that was used again: the pidfd is opened first
/// and only then are start time, boot and namespace compared, so that what was compared is what is
/// held. See `pidfd_open(2)`, `proc_pid_stat(5)`. What it proves may be looked at; to be signalled,
/// a process must be no [`is_untouchable`] as well.
///
/// An error where it cannot be known for now: see [`is_shortage`].
fn prove(
    who: Identity,
    boot: &str,
    pid_namespace: u64,
    world: &World,
) -> io::Result<Result<Held, Unproven>> {
    if boot != world.boot {
        return Ok(Err(Unproven::Gone));
    }
    if pid_namespace != world.pid_namespace {
        return Ok(Err(Unproven::Elsewhere));
    }
    let held = match Held::open(who.pid) {
        Ok(held) => held,
        Err(error) if is_shortage(&error) => return Err(error),
        Err(error) => {
            return Ok(Err(match error.raw_os_error().map(Errno::from_raw) {
                // No process at all, or the number is that of a thread now.
                Some(Errno::ESRCH | Errno::EINVAL | Errno::ENOENT) => Unproven::Gone,
                _ => Unproven::Unknown, // ENOSYS, or EPERM by seccomp
            }));
        }
    };
    Ok(match unless_short(stat(who.pid))? {
        Some(stat) if stat.start != who.start => Err(Unproven::Gone),
        _ if held.has_ended() => Err(Unproven::Gone),
        Some(_) => Ok(held),
        None => Err(Unproven::Unknown),
    })
}

/// Never signalled, whatever a file says: 0, 1 and negative numbers mean others to `kill(2)`.
fn is_untouchable(pid: i32, launcher: i32) -> bool {
    pid <= 1 || pid == own_pid() || pid == launcher
}

/// [`prove`] for a generation's daemon.
pub(crate) fn prove_daemon(
    generation: &Generation,
    world: &World,
    launcher: i32,
) -> io::Result<Result<Held, Unproven>> {
    if is_untouchable(generation.daemon.pid, launcher) {
        return Ok(Err(Unproven::Ours));
    }
    prove(generation.daemon, &generation.boot, generation.pid_namespace, world)
}

/// Does this generation belong to somebody else? Its launcher lives, is not ours, and still has
/// the supervisor that it started with: two services share a PID file, or a copy was started by
/// hand. A launcher whose supervisor died is an orphan that the successor takes over from.
pub(crate) fn is_foreign(
    generation: &Generation,
    world: &World,
    own_launcher: i32,
) -> io::Result<bool> {
    let Generation { boot, pid_namespace, launcher, supervisor, .. } = generation;
    if launcher.pid == own_launcher {
        return Ok(false);
    }
    let Ok(held) = prove(*launcher, boot, *pid_namespace, world)? else {
        return Ok(false);
    };
    let Some(supervisor) = supervisor else {
        return Ok(true);
    };
    let parent = unless_short(stat(launcher.pid))?.map(|stat| stat.parent);
    let is_supervised =
        parent == Some(supervisor.pid) && try_identity(supervisor.pid)? == Some(*supervisor);
    // If it has ended meanwhile, its number may be that of our own supervisor's next child.
    Ok(is_supervised && !held.has_ended())
}

/// Could this user signal the process without us? As `kill(2)` asks it: by the real and the saved
/// user, not by the effective one, as which a process of root's may act for a while. That is also
/// the one that owns `/proc/PID`. To be asked about a process that is held.
pub(crate) fn is_of(pid: i32, user: u32) -> io::Result<bool> {
    let status = unless_short(std::fs::read_to_string(format!("/proc/{pid}/status")))?;
    let status = status.unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let ids = ids.unwrap_or_default().split_ascii_whitespace().map(str::parse::<u32>);
    let ids: Vec<u32> = ids.map_while(Result::ok).collect();
    Ok(match ids[..] {
        [real, _effective, saved, ..] => real == user || saved == user,
        _ => false,
    })
}

/// Signals the process that holds the lock on the PID file. Only where there is no pidfd: between
/// the look at the lock and the signal, its PID can have become another's.
pub(crate) fn signal_owner(pid: i32, signal: i32) -> io::Result<()> {
    raw::kill(pid, signal)
}
