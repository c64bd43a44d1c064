//! What `/proc` says of a process (`proc(5)`).

use super::shortage::{is_shortage, unless_short};
use super::system;
use crate::proto::generation::proof::World;
use crate::proto::generation::record::Identity;
use crate::proto::generation::rejection::ProgramFile;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

#[cfg(feature = "command")]
mod inspect;
#[cfg(feature = "command")]
mod locked;
mod ports;
#[cfg(feature = "command")]
pub(crate) use inspect::*;
#[cfg(feature = "command")]
pub(crate) use locked::locked_files;
pub(crate) use ports::{Holder, holders};

/// What `/proc` does not tell.
#[derive(Debug)]
pub(crate) enum Hidden {
    /// There is no `/proc`, or it numbers processes in another way: no process can be proven.
    Processes(io::Error),
    /// The boot ID: only processes that hold the PID file can be proven.
    Boot(io::Error),
}

/// This boot and this PID namespace, and what could not be known. An error if it cannot be known for now.
pub(crate) fn world() -> io::Result<(World, Option<Hidden>)> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let (numbers, namespace) = (check_proc(), pid_namespace());
    let errors = [boot.as_ref().err(), numbers.as_ref().err(), namespace.as_ref().err()];
    if let Some(error) = errors.into_iter().flatten().find(|error| is_shortage(error)) {
        return Err(io::Error::from_raw_os_error(error.raw_os_error().unwrap_or_default()));
    }
    let hidden = match (numbers, &boot) {
        (Err(error), _) => Some(Hidden::Processes(error)),
        (Ok(()), Err(error)) => {
            let text = format!("/proc/sys/kernel/random/boot_id: {error}");
            Some(Hidden::Boot(io::Error::other(text)))
        }
        (Ok(()), Ok(_)) => None,
    };
    let world = World {
        boot: boot.ok().map(|boot| boot.trim_end().to_owned()),
        pid_namespace: namespace.ok(),
    };
    Ok((world, hidden))
}

/// The number of our PID namespace.
pub(super) fn pid_namespace() -> io::Result<u64> {
    let number = fs::metadata("/proc/self/ns/pid").map(|about| about.ino());
    number.or_else(|error| {
        if is_shortage(&error) {
            return Err(error);
        }
        // Without a /proc, a kernel since Linux 6.11 tells it.
        let pidfd = system::pidfd_open(std::process::id() as i32)?;
        fs::File::from(system::pid_namespace(&pidfd)?).metadata().map(|about| about.ino())
    })
}

/// Does `/proc` number processes as we do? If it was mounted before an `unshare(2)`, it shows other
/// processes under our numbers.
fn check_proc() -> io::Result<()> {
    let own = fs::read_link("/proc/self")?;
    match own.as_os_str() == std::process::id().to_string().as_str() {
        true => Ok(()),
        false => Err(io::Error::other("/proc belongs to another PID namespace")),
    }
}

/// A file of `/proc`. It may not be UTF-8: the kernel cuts the name of a process after 15 bytes, perhaps in the
/// middle of a character.
pub(super) fn text(path: impl AsRef<Path>) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

/// A field of `/proc/PID/status` (`proc_pid_status(5)`); `None` if this kernel does not have it.
pub(super) fn status(pid: i32, name: &str) -> io::Result<Option<String>> {
    let status = text(format!("/proc/{pid}/status"))?;
    Ok(field(&status, name).map(str::to_owned))
}

pub(super) fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

/// Is this bit of a set in `/proc/PID/status` set?
fn is_in_set(pid: i32, name: &str, bit: u32) -> io::Result<bool> {
    let set = status(pid, name)?.and_then(|set| u64::from_str_radix(&set, 16).ok());
    let set = set.ok_or(io::ErrorKind::InvalidData)?;
    Ok(set.checked_shr(bit).unwrap_or(0) & 1 == 1)
}

/// Do the two paths name one file? `false` if that cannot be seen.
fn is_same(one: impl AsRef<Path>, other: impl AsRef<Path>) -> bool {
    id(one).is_some_and(|one| id(other) == Some(one))
}

fn id(path: impl AsRef<Path>) -> Option<(u64, u64)> {
    fs::metadata(path).map(|file| (file.dev(), file.ino())).ok()
}

// ---- one process ----

/// The process as it is now. `None` if it is gone, if `/proc` does not show it, or if that cannot be
/// known for now.
pub(crate) fn identity(pid: i32) -> Option<Identity> {
    try_identity(pid).ok().flatten()
}

/// The same, with an error if it cannot be known for now: see [`super::shortage::is_shortage`].
pub(crate) fn try_identity(pid: i32) -> io::Result<Option<Identity>> {
    Ok(unless_short(stat(pid))?.map(|stat| Identity { pid, start: stat.start }))
}

/// This process; an error if `/proc` does not say.
pub(crate) fn own_identity() -> io::Result<Identity> {
    let pid = std::process::id() as i32;
    stat(pid).map(|stat| Identity { pid, start: stat.start })
}

/// The file that this process runs; `None` if `/proc` does not say.
pub(crate) fn own_program() -> Option<ProgramFile> {
    program_at(Path::new("/proc/self/exe"))
}

/// The file that this path names now.
pub(crate) fn program_at(path: &Path) -> Option<ProgramFile> {
    let file = fs::metadata(path).ok()?;
    let mtime = i128::from(file.mtime()) * 1_000_000_000 + i128::from(file.mtime_nsec());
    Some(ProgramFile { device: file.dev(), inode: file.ino(), mtime, size: file.len() })
}

/// The time between two starts of processes, which count in hundredths of a second (`USER_HZ`, on every
/// Linux that Rust knows).
pub(crate) fn time_between(earlier: u64, later: u64) -> Duration {
    Duration::from_millis(later.saturating_sub(earlier).saturating_mul(10))
}

/// The parent of a process, with an error if it cannot be known for now.
pub(crate) fn try_parent_of(pid: i32) -> io::Result<Option<i32>> {
    Ok(unless_short(stat(pid))?.map(|stat| stat.parent))
}

/// The parent of a process, if `/proc` shows it.
pub(crate) fn parent_of(pid: i32) -> Option<i32> {
    try_parent_of(pid).ok().flatten()
}

/// Has the process a controlling terminal? `false` if that cannot be known.
pub(crate) fn has_terminal(pid: i32) -> bool {
    stat(pid).is_ok_and(|stat| stat.terminal != 0)
}

/// The fields of `/proc/PID/stat` that we need.
struct Stat {
    parent: i32,
    /// The number of its controlling terminal; 0 if it has none.
    terminal: i32,
    start: u64,
}

fn stat(pid: i32) -> io::Result<Stat> {
    let text = state_and_more(pid)?;
    let mut fields = text.split_ascii_whitespace().skip(1);
    let parent = fields.next().and_then(|field| field.parse().ok());
    let terminal = fields.nth(2).and_then(|field| field.parse().ok());
    let start = fields.nth(14).and_then(|field| field.parse().ok());
    match (parent, terminal, start) {
        (Some(parent), Some(terminal), Some(start)) => Ok(Stat { parent, terminal, start }),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// `/proc/PID/stat` from field 3, the state, on (`proc_pid_stat(5)`). The name in field 2 may hold
/// anything, blanks and parentheses too; field 3 follows its last `)`.
fn state_and_more(pid: i32) -> io::Result<String> {
    check_proc()?;
    let mut text = text(format!("/proc/{pid}/stat"))?;
    let name_ends = text.rfind(") ").ok_or(io::ErrorKind::InvalidData)?;
    text.drain(..name_ends + 2);
    Ok(text)
}

/// A process's name: the first 15 bytes of its program's file name.
pub(crate) fn name(pid: i32) -> io::Result<String> {
    check_proc()?;
    Ok(text(format!("/proc/{pid}/comm"))?.trim_end().to_owned())
}

/// The file name in the first word of a process's command line.
pub(crate) fn program(pid: i32) -> Option<String> {
    check_proc().ok()?;
    program_in_proc(pid)
}

/// The same for a number that `/proc` uses, whose process may have another number here.
pub(crate) fn program_in_proc(number: i32) -> Option<String> {
    let command = fs::read(format!("/proc/{number}/cmdline")).ok()?;
    let first = command.split(|byte| *byte == 0).next()?;
    let name = first.rsplit(|byte| *byte == b'/').next()?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// The users of a process: real, effective, saved (`credentials(7)`). `None` if the process is gone; an
/// error if it cannot be known for now.
pub(crate) fn users(pid: i32) -> io::Result<Option<[u32; 3]>> {
    let ids = unless_short(status(pid, "Uid"))?.flatten().unwrap_or_default();
    let ids: Vec<u32> = ids.split_ascii_whitespace().map_while(|id| id.parse().ok()).collect();
    Ok(ids.first_chunk().copied())
}

/// The effective user and group of a process, and its other groups.
pub(crate) fn credentials(pid: i32) -> Option<(u32, u32, Vec<u32>)> {
    let status = text(format!("/proc/{pid}/status")).ok()?;
    let ids = |name: &str| {
        let ids = field(&status, name)?.split_ascii_whitespace();
        ids.map(|id| id.parse().ok()).collect::<Option<Vec<u32>>>()
    };
    Some((*ids("Uid")?.get(1)?, *ids("Gid")?.get(1)?, ids("Groups")?))
}

/// Does a process catch this signal, rather than ignore it or have its default action?
pub(crate) fn catches(pid: i32, signal: i32) -> io::Result<bool> {
    is_in_set(pid, "SigCgt", (signal - 1) as u32)
}

/// The words that this process was executed with.
pub(crate) fn own_command_line() -> io::Result<Vec<OsString>> {
    let mut words = fs::read("/proc/self/cmdline")?;
    words.pop(); // each word ends with a zero byte
    Ok(words.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect())
}

/// The environment that this process was started with. What the program has changed since is not in it.
pub(crate) fn first_environment() -> io::Result<Vec<(OsString, OsString)>> {
    let record = fs::read("/proc/self/environ")?;
    let entries = record.split(|byte| *byte == 0).filter_map(|entry| {
        let at = entry.iter().skip(1).position(|byte| *byte == b'=')? + 1;
        let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        Some((text(&entry[..at]), text(&entry[at + 1..])))
    });
    Ok(entries.collect())
}

/// The folder that this process stands in, by the path by which it was entered, if that is known: the shell
/// says it in `PWD`, links included.
pub(crate) fn entered_folder() -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("PWD")?);
    let is_plain = |one: Component<'_>| matches!(one, Component::RootDir | Component::Normal(_));
    let is_clean = path.is_absolute() && path.components().all(is_plain);
    (is_clean && is_same(&path, ".")).then_some(path)
}

/// The folder that a process stands in.
pub(crate) fn folder(pid: i32) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/{pid}/cwd"))
}

/// The control group of a process, as `/proc` tells it (`cgroups(7)`).
pub(crate) fn control_group(pid: i32) -> Option<String> {
    text(format!("/proc/{pid}/cgroup")).ok()
}

/// What the descriptors of a process are: `socket:[4711]`, `pipe:[815]`, or a path.
pub(crate) fn open_files(pid: i32) -> io::Result<impl Iterator<Item = PathBuf>> {
    let fds = fs::read_dir(format!("/proc/{pid}/fd"))?;
    Ok(fds.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()))
}

/// A variable in the environment that a process was started with.
pub(crate) fn variable(pid: i32, name: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    environment.split(|byte| *byte == 0).find_map(|entry| {
        let entry = std::str::from_utf8(entry).ok()?;
        Some(entry.strip_prefix(name)?.strip_prefix('=')?.to_owned())
    })
}

/// May this process do what needs this capability (`capabilities(7)`)? `None` if it is gone or `/proc` hides
/// it.
#[cfg(feature = "command")]
pub(crate) fn has_capability(pid: i32, number: u32) -> Option<bool> {
    is_in_set(pid, "CapEff", number).ok()
}

/// For how many descriptors a process has room in its table (`proc_pid_status(5)`, FDSize). `None` if `/proc` does
/// not say.
pub(crate) fn table_size(pid: i32) -> Option<u64> {
    status(pid, "FDSize").ok()??.parse().ok()
}

// ---- the kernel ----

/// A number in `/proc/sys`.
pub(crate) fn sysctl(name: &str) -> Option<u64> {
    let path = Path::new("/proc/sys").join(name.replace('.', "/"));
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The first port that needs no capability.
pub(crate) fn first_unprivileged_port() -> u16 {
    const LINUX_DEFAULT: u16 = 1024;
    let set = sysctl("net.ipv4.ip_unprivileged_port_start");
    set.and_then(|port| u16::try_from(port).ok()).unwrap_or(LINUX_DEFAULT)
}

// ---- this process ----

/// How many threads this process has. `None` if that cannot be known.
pub(crate) fn threads() -> Option<usize> {
    Some(fs::read_dir("/proc/self/task").ok()?.count())
}

/// The numbers of this process's open descriptors.
pub(crate) fn own_descriptors() -> io::Result<impl Iterator<Item = i32>> {
    let fds = fs::read_dir("/proc/self/fd")?;
    Ok(fds.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

/// Does the path name the file of the program that this process runs?
pub(crate) fn runs_from(path: &Path) -> bool {
    is_same(path, "/proc/self/exe")
}

/// Does the kernel write a core dump of this process (`proc_pid_status(5)`, CoreDumping; since Linux 4.15)? `false` if
/// that cannot be seen.
pub(crate) fn dumps_core(pid: i32) -> bool {
    status(pid, "CoreDumping").is_ok_and(|value| value.as_deref() == Some("1"))
}

#[cfg(test)]
mod tests {
    use super::{catches, credentials, dumps_core, field, table_size, try_identity, users};
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    /// Its last character has two bytes, of which the kernel keeps the first.
    #[test]
    fn a_process_whose_name_is_cut_in_the_middle_of_a_character_is_seen() {
        let folder = std::env::temp_dir().join(format!("seamless-cut-{}", std::process::id()));
        std::fs::create_dir(&folder).expect("a folder");
        let program = folder.join("fourteen-bytesä");
        std::os::unix::fs::symlink("/bin/cat", &program).expect("a link");
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        // It has its name for sure once it answers: `spawn` may return a moment earlier.
        child.stdin.as_mut().expect("a pipe").write_all(b"x").expect("written");
        child.stdout.as_mut().expect("a pipe").read_exact(&mut [0]).expect("an answer");
        let pid = i32::try_from(child.id()).expect("a PID");
        let name = std::fs::read(format!("/proc/{pid}/comm")).expect("a name");
        let identity = try_identity(pid).expect("a process");
        let (users, credentials) = (users(pid).expect("users"), credentials(pid));
        let (catches, size) = (catches(pid, 15), table_size(pid));
        child.kill().expect("killed");
        child.wait().expect("ended");
        std::fs::remove_dir_all(folder).expect("removed");
        assert!(std::str::from_utf8(&name).is_err(), "{name:?}");
        assert_eq!(identity.expect("identity").pid, pid);
        assert!(users.is_some() && credentials.is_some() && size.is_some());
        assert!(!catches.expect("known"));
    }

    #[test]
    fn the_kernel_says_how_large_a_table_of_descriptors_is() {
        let size = table_size(std::process::id() as i32).expect("a size");
        assert!(size >= 3, "{size}");
        assert_eq!(table_size(-1), None);
    }

    #[test]
    fn the_kernel_says_whether_it_writes_a_core_dump() {
        let says = |status| field(status, "CoreDumping");
        assert_eq!(says("State:\tS (sleeping)\nCoreDumping:\t1\nTHP_enabled:\t1\n"), Some("1"));
        assert_eq!(says("State:\tS (sleeping)\nCoreDumping:\t0\nTHP_enabled:\t1\n"), Some("0"));
        assert!(says("").is_none() && !dumps_core(std::process::id() as i32));
    }
}
