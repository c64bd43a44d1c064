//! The internet sockets of a machine, and which processes hold them.

use super::{open_files, text};
use std::collections::HashSet;
use std::fmt::Display;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// A TCP or UDP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) local: SocketAddr,
    /// Who has made it.
    pub(crate) uid: u32,
    pub(super) inode: u64,
}

// States of TCP sockets.
pub(super) const ESTABLISHED: &str = "01";
pub(super) const LISTEN: &str = "0A";

/// The listening TCP sockets, or the UDP sockets, of this network namespace. Empty if `/proc` does not tell them.
pub(crate) fn holders(udp: bool) -> Vec<Holder> {
    if udp { table("self", "udp", None) } else { table("self", "tcp", Some(LISTEN)) }
}

/// The sockets of one protocol in the network namespace of a process, in this state or in any.
pub(super) fn table(process: impl Display, protocol: &str, state: Option<&str>) -> Vec<Holder> {
    // `0: 0100007F:1F90 0100007F:D431 01 … uid … inode`
    let parse = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if state.is_some_and(|state| words.get(3) != Some(&state)) {
            return None;
        }
        Some(Holder {
            local: address(words.get(1)?)?,
            uid: words.get(7)?.parse().ok()?,
            inode: words.get(9)?.parse().ok()?,
        })
    };
    let mut found = Vec::new();
    for version in ["", "6"] {
        let Ok(table) = text(format!("/proc/{process}/net/{protocol}{version}")) else { continue };
        found.extend(table.lines().filter_map(parse));
    }
    found
}

impl Holder {
    pub(crate) fn is_held_by(&self, pid: i32) -> bool {
        sockets(pid).is_some_and(|sockets| sockets.contains(&self.inode))
    }

    /// A process that holds it; `None` if this process may not see any, or if `limit` has passed: a machine
    /// may have millions of open files.
    pub(crate) fn find(&self, limit: Duration) -> Option<i32> {
        let begin = Instant::now();
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let pids = processes.filter_map(|one| one.file_name().to_str()?.parse::<i32>().ok());
        pids.take_while(|_| begin.elapsed() < limit).find(|pid| self.is_held_by(*pid))
    }
}

/// The inodes of a process's sockets.
pub(super) fn sockets(pid: i32) -> Option<HashSet<u64>> {
    let inodes = open_files(pid).ok()?.filter_map(|link| {
        link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    });
    Some(inodes.collect())
}

/// Parses `0100007F:1F90`: each word of four bytes is written as this machine stores it.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok();
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?.to_ne_bytes()).into(),
        32 => {
            let mut bytes = [0; 16];
            for (at, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(at * 8)?.to_ne_bytes());
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests;
