//! What a supervisor's status file says (`supervise/status`). Pure: bytes in, a [`Reading`] out.

use crate::proto::Reading;

/// What `supervise/status` says. daemontools writes 18 bytes, runit 20; the first 18 mean the same:
/// 12 of TAI64N, the PID little-endian, paused, and `u`, `d` or 0 (up only once). `None` where it
/// is no such status, or not about this process: then it is another service's.
///
/// What is wanted once is wanted as long as it runs. To the main process itself that says: when it
/// ends, no other comes. To a detached daemon (no `main_pid`) it says: a successor is starting.
pub(crate) fn parse_status(status: &[u8], main_pid: Option<i32>) -> Option<Reading> {
    let about = i32::from_le_bytes(status.get(12..16)?.try_into().ok()?);
    if main_pid.is_some_and(|pid| pid != about) {
        return None;
    }
    // runit writes `d` for once as well, but has sent no TERM (18) to what runs (19).
    let once = matches!(&status[16..], [_, 0] | [_, b'd', 0, 1]);
    match status.get(17)? {
        b'u' => Some(Reading::Up),
        b'd' | 0 if once && about != 0 && main_pid.is_none() => Some(Reading::Up),
        b'd' | 0 => Some(Reading::Down),
        _ => None,
    }
}

/// The same of s6: 35 bytes, 43 since 2.13. A big-endian PID at 24, which is that of `./finish` while
/// it runs, and flags in the last byte. Up only once looks like down while something runs.
pub(crate) fn parse_s6_status(status: &[u8], main_pid: Option<i32>) -> Option<Reading> {
    const FINISHING: u8 = 2;
    const WANTED_UP: u8 = 4;
    let (35 | 43) = status.len() else { return None };
    let about = u64::from_be_bytes(status[24..32].try_into().ok()?);
    let flags = *status.last()?;
    if main_pid.is_some_and(|pid| u64::try_from(pid) != Ok(about)) {
        return None;
    }
    // Somebody starts, or its launcher hears the stop itself.
    let runs = about != 0 && flags & FINISHING == 0;
    match flags & WANTED_UP != 0 || runs && main_pid.is_none() {
        true => Some(Reading::Up),
        false => Some(Reading::Down),
    }
}

/// Does a file `down-signal` of s6 name TERM? It holds a signal's name or number.
pub(crate) fn is_term(down_signal: &str) -> bool {
    let name = down_signal.trim().to_ascii_uppercase();
    ["15", "TERM", "SIGTERM"].contains(&name.as_str())
}

#[cfg(test)]
mod tests;
