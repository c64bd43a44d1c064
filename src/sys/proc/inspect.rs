//! What only the command asks about a process.

use super::ports::{ESTABLISHED, LISTEN, sockets, table};
use super::{id, is_same, state_and_more, text, time_between, users, variable};
use crate::sys::system::since_boot;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// The age of a process that started this many ticks after the boot; `None` for 0, which stands for a start
/// that the process itself could not read.
pub(crate) fn age(start: u64) -> Option<Duration> {
    (start > 0).then(|| since_boot().saturating_sub(time_between(0, start)))
}

/// The state of a process: `R`, `S`, `T`, `Z`… (`proc_pid_stat(5)`).
pub(crate) fn state(pid: i32) -> Option<char> {
    state_and_more(pid).ok()?.chars().next()
}

/// Does the process live in another user namespace than we do? There, other numbers stand for its users.
/// `false` if that cannot be seen.
pub(crate) fn has_other_users(pid: i32) -> bool {
    let (own, its) = (id("/proc/self/ns/user"), id(format!("/proc/{pid}/ns/user")));
    own.zip(its).is_some_and(|(own, its)| own != its)
}

/// How many connections a process has open: established TCP connections, and accepted or connected Unix
/// streams that are bound to a path. `None` if its descriptors may not be read.
pub(crate) fn connections(pid: i32) -> Option<usize> {
    let own = sockets(pid)?;
    let mut tcp = table(pid, "tcp", Some(ESTABLISHED));
    tcp.retain(|one| own.contains(&one.inode));
    let mut count = tcp.len();
    if let Ok(table) = text(format!("/proc/{pid}/net/unix")) {
        const STREAM: &str = "0001";
        const CONNECTED: &str = "03";
        // `0000: 00000003 00000000 00000000 0001 03 4711 /run/web`
        count += table
            .lines()
            .map(|line| line.split_ascii_whitespace().collect::<Vec<&str>>())
            .filter(|words| words.len() > 7)
            .filter(|words| words[4] == STREAM && words[5] == CONNECTED)
            .filter(|words| words[6].parse().is_ok_and(|inode| own.contains(&inode)))
            .count();
    }
    Some(count)
}

/// The effective user of a process, as which it opens files.
pub(crate) fn effective_user_of(pid: i32) -> Option<u32> {
    let [_real, effective, _saved] = users(pid).ok()??;
    Some(effective)
}

/// The hard limit of open files; `None` if there is none or it cannot be read.
pub(crate) fn file_limit(pid: i32) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The addresses at which a process listens with TCP.
pub(crate) fn tcp_listeners(pid: i32) -> Option<Vec<SocketAddr>> {
    let own = sockets(pid)?;
    let mut listeners = table(pid, "tcp", Some(LISTEN));
    listeners.retain(|one| own.contains(&one.inode));
    let mut found: Vec<SocketAddr> = listeners.into_iter().map(|one| one.local).collect();
    found.sort_unstable();
    found.dedup();
    Some(found)
}

/// Whether two absolute paths name one file, even if their folders are reached by links.
pub(crate) fn is_same_path(one: &Path, other: &Path) -> bool {
    let folder = |path: &Path| fs::canonicalize(path.parent()?).ok();
    one == other || one.file_name() == other.file_name() && folder(one) == folder(other)
}

/// Has a process entered its folder by a path that nobody knows? `PWD` of its environment names another
/// folder, or none. `false` if that cannot be seen, and for `/`, of which there is one path only.
pub(crate) fn has_unknown_folder(pid: i32) -> bool {
    let cwd = format!("/proc/{pid}/cwd");
    let Ok(place) = fs::read_link(&cwd) else { return false };
    place != Path::new("/") && !variable(pid, "PWD").is_some_and(|pwd| is_same(pwd, &cwd))
}
