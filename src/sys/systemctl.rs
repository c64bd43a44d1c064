//! Asks systemd about our unit, with `systemctl`: a library that speaks D-Bus is too heavy for the few
//! questions in a service's life. Root needs no D-Bus for it; other users need the system's bus or that
//! of the user's manager.

use super::{proc, system, wait};
use crate::proto::Reading;
use crate::proto::supervisor::systemd::{self, Properties, Unit};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The time limit of a question whose answer something waits for. An answer takes 4 ms, and longer while
/// systemd reloads its units or the processors are busy: then an answer of more than a second was seen. The daemon
/// serves meanwhile, so a restart loses nothing by it.
const LIMIT: Duration = Duration::from_secs(5);

/// The time limit of a question whose answer nothing waits for. While a machine starts, many services ask
/// at the same time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The unit that a process runs in.
pub(crate) fn unit_of(pid: i32) -> Option<Unit> {
    systemd::unit_of(&proc::control_group(pid)?)
}

/// How often the state is read again because its job ended before its kind could be read.
const ATTEMPTS: usize = 3;

/// What systemd wants of the unit; see [`systemd::reading`]. `None` if it cannot be asked.
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

/// Is the manager of this unit about to end everything: is the system going down? `false` if it cannot be asked.
pub(crate) fn is_going_down(unit: &Unit) -> bool {
    ask(unit, &["is-system-running"], LIMIT).is_ok_and(|state| state.trim() == "stopping")
}

/// The same for the unit that a process runs in.
pub(crate) fn is_going_down_by(pid: i32) -> bool {
    unit_of(pid).is_some_and(|unit| is_going_down(&unit))
}

/// Properties of the unit. An empty answer is an error, so a caller finds every property that it asked
/// for.
pub(crate) fn show(unit: &Unit, names: &[&str], limit: Duration) -> io::Result<Properties> {
    let text = ask(unit, &["show", "--property", &names.join(","), &unit.name], limit)?;
    let properties = Properties::parse(&text);
    if text.is_empty() { Err(io::ErrorKind::NotConnected.into()) } else { Ok(properties) }
}

/// Runs `systemctl` with these arguments and returns what it prints. Never takes longer than `limit`.
fn ask(unit: &Unit, arguments: &[&str], limit: Duration) -> io::Result<String> {
    let mut command = Command::new("systemctl");
    // This process may end before the answer is there. `systemctl` must not outlive it.
    system::end_with_this_thread(&mut command);
    let mut child = command
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
    // If it has closed its output, it is finished. The program may have waited for it before us, and another process
    // may have its number now, so only one that has not finished is killed.
    if read.is_err() {
        _ = child.kill();
    }
    _ = child.wait(); // how it ended is not needed: the output says enough
    read?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
