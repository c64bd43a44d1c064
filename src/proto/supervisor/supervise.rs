//! The parsers of `supervise/status`, a supervisor's status file. Pure: bytes in, a [`Reading`] out.

use crate::proto::Reading;
use std::time::Duration;

/// The status of daemontools (18 bytes) and runit (20 bytes). The first 18 bytes mean the same: 12 bytes of
/// TAI64N, the PID (little-endian), whether it is paused, and `u` (up), `d` (down) or 0 (up only once).
/// Returns `None` if the bytes are no such status, or if the status is about another process.
///
/// "Up only once" means up until the main process ends. To the main process itself this is "down": no
/// other one will be started after it. To a detached daemon (no `main_pid`) it is "up": the process that
/// runs is its successor.
pub(crate) fn parse_status(status: &[u8], main_pid: Option<i32>) -> Option<Reading> {
    let about = i32::from_le_bytes(status.get(12..16)?.try_into().ok()?);
    if main_pid.is_some_and(|pid| pid != about) {
        return None;
    }
    // runit writes `d` also for "once". But then it has sent no TERM (byte 18 is 0) to the process that runs
    // (byte 19 is 1).
    let once = matches!(&status[16..], [_, 0] | [_, b'd', 0, 1]);
    match status.get(17)? {
        b'u' => Some(Reading::Up),
        b'd' | 0 if once && about != 0 && main_pid.is_none() => Some(Reading::Up),
        b'd' | 0 => Some(Reading::Down),
        _ => None,
    }
}

/// The status of s6: 35 bytes, 43 since 2.13. The PID (big-endian) is at byte 24; while `./finish` runs, it is
/// that of `./finish`. The last byte holds flags. "Up only once" looks like "down" while the service runs.
pub(crate) fn parse_s6_status(status: &[u8], main_pid: Option<i32>) -> Option<Reading> {
    const FINISHING: u8 = 2;
    const WANTED_UP: u8 = 4;
    let (35 | 43) = status.len() else { return None };
    let about = u64::from_be_bytes(status[24..32].try_into().ok()?);
    let flags = *status.last()?;
    if main_pid.is_some_and(|pid| u64::try_from(pid) != Ok(about)) {
        return None;
    }
    // A successor is starting. If the service is to go down instead, the successor's launcher hears that.
    let runs = about != 0 && flags & FINISHING == 0;
    match flags & WANTED_UP != 0 || runs && main_pid.is_none() {
        true => Some(Reading::Up),
        false => Some(Reading::Down),
    }
}

/// Does this content of s6's file `down-signal` name a signal that is understood as a restart or a stop? The file
/// holds a signal's name or number.
pub(crate) fn is_understood(down_signal: &str) -> bool {
    let name = down_signal.trim().to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    ["15", "TERM", "3", "QUIT", "30", "PWR"].contains(&name)
}

/// What a file like `timeout-kill` says.
pub(crate) fn kill_limit(text: &str) -> Option<Duration> {
    let millis = text.trim().parse().ok().filter(|millis| *millis > 0)?;
    Some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests;
