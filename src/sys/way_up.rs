//! The processes above a launcher, up to PID 1 of its PID namespace. What follows from them is decided in
//! `proto::supervisor::above`.

use super::shortage::{note_shortage, unless_short};
use super::{proc, process};
use crate::proto::supervisor::above::{self, Above};
use std::env;
use std::fs;
use std::io;
use std::path::Path;

/// `PROC_PID_INIT_INO` of the kernel: the PID namespace of the machine has this number on each Linux.
const OF_THE_MACHINE: u64 = 0xEFFF_FFFC;
/// More than stand above any real service.
const MOST: usize = 64;
/// What a script is run by. The process of a script has the name of the script's file, which may be `init`.
const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ash", "ksh", "zsh", "busybox"];

pub(crate) fn is_shell(name: &str) -> bool {
    SHELLS.contains(&name)
}

/// What is above `launcher`, which is this process or another one of our PID namespace. `short`: set if
/// something could not be read because descriptors or memory were short.
pub(crate) fn look(launcher: i32, parent: i32, short: &mut Option<io::Error>) -> Above {
    let is_own = launcher == process::own_pid();
    let number = if is_own { number_in_proc() } else { Ok(launcher) };
    Above {
        at_the_top: parent <= 1 || launcher == 1,
        is_pid_1: launcher == 1,
        in_a_namespace: is_in_a_namespace(),
        names: note_shortage(number.and_then(names_above), short).unwrap_or_default(),
        has_traces: is_own && has_traces(),
    }
}

/// The number of this process in `/proc`, which may have been mounted in a namespace above ours.
fn number_in_proc() -> io::Result<i32> {
    let own = fs::read_link("/proc/self")?;
    let number = own.to_str().and_then(|number| number.parse().ok());
    number.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The names from the parent up to PID 1 of the namespace, by the numbers that `/proc` has.
fn names_above(launcher: i32) -> io::Result<Vec<Option<String>>> {
    let mut names = Vec::new();
    let mut number = look_at(launcher)?.parent;
    while number > 0 && names.len() < MOST {
        let Some(seen) = unless_short(look_at(number))? else {
            names.push(None); // hidden, and with it what is above
            break;
        };
        let script = proc::program_in_proc(number).filter(|name| is_shell(name));
        names.push(Some(script.unwrap_or(seen.name)));
        if seen.is_pid_1 {
            break;
        }
        number = seen.parent;
    }
    Ok(names)
}

struct Seen {
    name: String,
    parent: i32,
    /// In the innermost of the namespaces that it belongs to.
    is_pid_1: bool,
}

/// See `proc_pid_status(5)`.
fn look_at(number: i32) -> io::Result<Seen> {
    let status = proc::text(format!("/proc/{number}/status"))?;
    let field = |name| proc::field(&status, name);
    let parent = field("PPid").and_then(|parent| parent.parse().ok());
    let inner = field("NSpid").and_then(|all| all.split_ascii_whitespace().last());
    Ok(Seen {
        name: field("Name").unwrap_or_default().to_owned(),
        parent: parent.ok_or(io::ErrorKind::InvalidData)?,
        is_pid_1: inner == Some("1"),
    })
}

/// Is our PID namespace another one than the machine's? `false` if that is unknown.
fn is_in_a_namespace() -> bool {
    proc::pid_namespace().is_ok_and(|number| number != OF_THE_MACHINE)
}

/// Is this process in a service folder, or has it a variable that a supervisor sets?
fn has_traces() -> bool {
    let is_service_folder = Path::new("run").exists() && Path::new("supervise").is_dir();
    is_service_folder || above::variables().any(|name| env::var_os(name).is_some())
}
