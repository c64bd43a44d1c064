//! Asks systemd about our unit, by `systemctl`: no library that speaks D-Bus is worth its weight for
//! a few questions in a service's life. Root needs no D-Bus for it; everybody else needs the bus of
//! the system, or of the user's manager.

use super::{proc, wait};
use crate::proto::Reading;
use crate::proto::supervisor::systemd::{self, Properties, Unit};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long an answer may take that something waits for. It takes 4 ms, and longer while systemd
/// reads its units anew.
const LIMIT: Duration = Duration::from_secs(1);

/// How long an answer may take that nothing waits for: while a machine starts, everything asks.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The unit that a process runs in.
pub(crate) fn unit_of(pid: i32) -> Option<Unit> {
    systemd::unit_of(&proc::control_group(pid)?)
}

/// How often the state is asked for anew where its job ends before it can be asked about.
const ATTEMPTS: usize = 3;

/// What systemd wants of the unit; see [`systemd::reading`]. `None` where it cannot be asked.
pub(crate) fn read(unit: &Unit, main_pid: Option<i32>) -> Option<Reading> {
    for _ in 0..ATTEMPTS {
        let state = show(unit, systemd::STATE, LIMIT).ok()?;
        let Some(job) = state.job() else {
            return systemd::reading(&state, None, main_pid);
        };
        let list = ask(unit, &["list-jobs", "--no-legend", &unit.name], LIMIT).ok()?;
        if let Some(kind) = systemd::job_kind(&list, job) {
            return systemd::reading(&state, Some(kind), main_pid);
        }
    }
    None
}

/// Properties of the unit. Guards against an answer that is none: it has all that was asked for.
pub(crate) fn show(unit: &Unit, names: &[&str], limit: Duration) -> io::Result<Properties> {
    let text = ask(unit, &["show", "--property", &names.join(","), &unit.name], limit)?;
    let properties = Properties::parse(&text);
    if text.is_empty() { Err(io::ErrorKind::NotConnected.into()) } else { Ok(properties) }
}

/// `systemctl` with these arguments, and what it prints. It never takes longer than `limit`.
fn ask(unit: &Unit, arguments: &[&str], limit: Duration) -> io::Result<String> {
    let mut child = Command::new("systemctl")
        .args(["--no-pager", if unit.user { "--user" } else { "--system" }])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut output = child.stdout.take().expect("a pipe");
    let mut text = Vec::new();
    let read = fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(io::Error::from);
    let read = read.and_then(|_| wait::read_to_end(&mut output, &mut text, limit));
    // It has ended, or is to: whoever closes its output is through. What became of it says no more
    // than its output, and the program may have waited for it before us.
    _ = child.kill();
    _ = child.wait();
    read?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
