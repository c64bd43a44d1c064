//! The surroundings of a service, for `seamless check`: files, users, the kernel, the folder of the
//! service. What follows from them is decided elsewhere.

use super::process::{self, Held};
use super::shortage::is_shortage;
use super::{proc, raw, system};
use fs2::FileExt;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::User;
use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The type of the file at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Regular,
    Folder,
    Socket,
    Link,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) what: What,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) links: u64,
}

/// `None` if there is no file. A link is not followed.
pub(crate) fn about(path: &Path) -> io::Result<Option<About>> {
    described(fs::symlink_metadata(path))
}

/// The same, with links followed.
pub(crate) fn about_target(path: &Path) -> io::Result<Option<About>> {
    described(fs::metadata(path))
}

fn described(about: io::Result<fs::Metadata>) -> io::Result<Option<About>> {
    let about = match about {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        about => about?,
    };
    let ty = about.file_type();
    let what = match () {
        () if ty.is_file() => What::Regular,
        () if ty.is_dir() => What::Folder,
        () if ty.is_socket() => What::Socket,
        () if ty.is_symlink() => What::Link,
        () => What::Other,
    };
    Ok(Some(About {
        what,
        mode: about.mode() & 0o7777,
        uid: about.uid(),
        gid: about.gid(),
        links: about.nlink(),
    }))
}

/// The user that the service runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) uid: u32,
    pub(crate) name: Option<String>,
    pub(crate) groups: Vec<u32>,
}

impl Who {
    pub(crate) fn of(uid: u32) -> Who {
        Who::from(uid, User::from_uid(uid.into()).ok().flatten())
    }

    /// By name or number; `None` if there is no such name.
    pub(crate) fn named(name: &str) -> Option<Who> {
        match name.parse() {
            Ok(uid) => Some(Who::of(uid)),
            Err(_) => {
                let user = User::from_name(name).ok().flatten()?;
                Some(Who::from(user.uid.as_raw(), Some(user)))
            }
        }
    }

    fn from(uid: u32, user: Option<User>) -> Who {
        let groups = user.as_ref().and_then(|user| {
            let name = CString::new(user.name.as_str()).ok()?;
            system::getgrouplist(&name, user.gid).ok()
        });
        let groups = groups.unwrap_or_default().into_iter().map(|group| group.as_raw()).collect();
        Who { uid, name: user.map(|user| user.name), groups }
    }
}

/// Is the file system of this path mounted read-only?
pub(crate) fn is_read_only(path: &Path) -> bool {
    statvfs(path).is_ok_and(|about| about.flags().contains(FsFlags::ST_RDONLY))
}

/// Tries both kinds of locks on a temporary file in this folder. `None` if we may not create one there.
pub(crate) fn locks_work(folder: &Path) -> Option<Result<(), String>> {
    let path = folder.join(format!(".seamless-check-{}", process::own_pid()));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let file = options.custom_flags(OFlag::O_NOFOLLOW.bits()).open(&path).ok()?;
    let locked = FileExt::try_lock_exclusive(&file).map_err(|error| format!("flock: {error}"));
    let locked = locked.and_then(|()| {
        let lock = raw::whole_file_lock();
        let done = fcntl(&file, FcntlArg::F_SETLK(&lock));
        done.map(drop).map_err(|error| format!("fcntl: {error}"))
    });
    _ = fs::remove_file(&path);
    Some(locked)
}

// ---- the kernel ----

pub(crate) use super::proc::sysctl;

pub(crate) fn pidfds() -> Result<(), String> {
    match Held::open(process::own_pid()) {
        Ok(_) => Ok(()),
        // This process is short of something; the kernel has pidfds.
        Err(error) if is_shortage(&error) => Ok(()),
        Err(error) if error.raw_os_error() == Some(Errno::ENOSYS as i32) => {
            Err("the kernel has none".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

pub(crate) fn proc() -> Result<(), String> {
    match proc::world() {
        Ok((_, Some(proc::Hidden::Processes(error) | proc::Hidden::Boot(error)))) | Err(error) => {
            Err(error.to_string())
        }
        Ok((_, None)) => Ok(()),
    }
}

/// Is the memory of a process limited by its control group, and would the kernel kill all of the group at once
/// (`memory.oom.group`, cgroup v2)? Docker and Kubernetes set this for a container.
pub(crate) fn dies_as_a_group(pid: i32) -> bool {
    let Some(folder) = control_group(pid) else { return false };
    let is = |name: &str, wanted| {
        fs::read_to_string(folder.join(name)).is_ok_and(|value| value.trim() == wanted)
    };
    is("memory.oom.group", "1") && !is("memory.max", "max")
}

/// The folder of a process's control group (cgroup v2).
fn control_group(pid: i32) -> Option<PathBuf> {
    let groups = proc::control_group(pid)?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new("/sys/fs/cgroup").join(group))
}

/// The memory of a process that is limited by its control group, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// What is its own, and not that of files (`proc_pid_status(5)`, RssAnon).
    pub(crate) used: u64,
    /// What the whole group may use (`memory.max`, cgroup v2).
    pub(crate) limit: u64,
}

/// `None`: there is no limit, or one of both is unknown.
pub(crate) fn memory(pid: i32) -> Option<Memory> {
    let limit =
        fs::read_to_string(control_group(pid)?.join("memory.max")).ok()?.trim().parse().ok()?;
    let used = proc::status(pid, "RssAnon").ok()??;
    let kibibytes: u64 = used.strip_suffix("kB")?.trim().parse().ok()?;
    Some(Memory { used: kibibytes << 10, limit })
}

// ---- the supervisor ----

/// The beginning of a text file; `None` if it cannot be read, or is none. Nobody waits for the writer of a FIFO.
pub(crate) fn text(path: &Path) -> Option<String> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let file = file.ok().filter(|file| file.metadata().is_ok_and(|about| about.is_file()))?;
    let mut bytes = Vec::new();
    file.take(1 << 16).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
