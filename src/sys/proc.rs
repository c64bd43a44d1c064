//! What the command sees of other processes.

use nix::unistd::{SysconfVar, sysconf};
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// How long ago a process started that began so many ticks after the boot.
pub(crate) fn age(start: u64) -> Option<Duration> {
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split(' ').next()?.parse().ok()?;
    let ticks = sysconf(SysconfVar::CLK_TCK).ok()??;
    let age = uptime - start as f64 / ticks as f64;
    Some(Duration::from_secs_f64(age.max(0.0)))
}

/// `R`, `S`, `T`, `Z`… (`proc_pid_stat(5)`).
pub(crate) fn state(pid: i32) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ")?.1.chars().next()
}

/// A variable of the environment that a process was started with.
pub(crate) fn variable(pid: i32, name: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    environment.split(|byte| *byte == 0).find_map(|entry| {
        let entry = std::str::from_utf8(entry).ok()?;
        Some(entry.strip_prefix(name)?.strip_prefix('=')?.to_owned())
    })
}

/// How many connections a process has open: established TCP, and accepted or connected Unix streams
/// that are bound to a path. `None` where its descriptors may not be looked at.
pub(crate) fn connections(pid: i32) -> Option<usize> {
    const ESTABLISHED: &str = "01";
    let own = sockets(pid)?;
    let mut count = 0;
    for table in ["tcp", "tcp6"] {
        let Ok(table) = fs::read_to_string(format!("/proc/{pid}/net/{table}")) else { continue };
        // `0: 0100007F:1F90 0100007F:D431 01 … inode`
        count += table
            .lines()
            .map(|line| line.split_ascii_whitespace().collect::<Vec<&str>>())
            .filter(|words| words.get(3) == Some(&ESTABLISHED))
            .filter(|words| words.get(9).is_some_and(|inode| own.contains(*inode)))
            .count();
    }
    if let Ok(table) = fs::read_to_string(format!("/proc/{pid}/net/unix")) {
        const STREAM: &str = "0001";
        const CONNECTED: &str = "03";
        // `0000: 00000003 00000000 00000000 0001 03 4711 /run/web`
        count += table
            .lines()
            .map(|line| line.split_ascii_whitespace().collect::<Vec<&str>>())
            .filter(|words| words.len() > 7)
            .filter(|words| words[4] == STREAM && words[5] == CONNECTED && own.contains(words[6]))
            .count();
    }
    Some(count)
}

/// The inodes of a process's sockets.
pub(super) fn sockets(pid: i32) -> Option<HashSet<String>> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let inodes = links.filter_map(|link| {
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        Some(inode.to_owned())
    });
    Some(inodes.collect())
}

/// Whether two absolute paths name one file, even if their folders are reached by links.
pub(crate) fn is_same_path(one: &Path, other: &Path) -> bool {
    let folder = |path: &Path| fs::canonicalize(path.parent()?).ok();
    one == other || one.file_name() == other.file_name() && folder(one) == folder(other)
}
