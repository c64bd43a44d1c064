//! What a supervisor passes to its program by exec: descriptors, and the variables that tell their numbers.

use super::{proc, process, raw, socket};
use crate::proto::control::frame::{Address, SocketKind};
use crate::proto::sockets::passed::{self, Passed};
use nix::fcntl::{FcntlArg, fcntl};
use std::env;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// What the variables say that was passed to this process, or to the launcher that it has them from: those of
/// systemd (`sd_listen_fds(3)`), and those of Einhorn. `Err`: why one of them is not used.
pub(crate) fn find(launcher: Option<i32>) -> Vec<Result<Vec<Passed>, String>> {
    let own = process::own_pid();
    let names = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"].map(variable);
    let [pid, fds, names] = names.each_ref().map(Option::as_deref);
    let variables = passed::Variables { pid, fds, names };
    let listen = passed::parse(variables, &[launcher.unwrap_or(own), own]);
    // Einhorn starts the launcher, or this process if there is none.
    let parent = || match launcher {
        Some(launcher) => proc::parent_of(launcher),
        None => Some(process::parent_pid()),
    };
    let (master, count) = (variable("EINHORN_MASTER_PID"), variable("EINHORN_FD_COUNT"));
    let number = |at| variable(&format!("EINHORN_FD_{at}"));
    let einhorn = count.map(|count| passed::einhorn(master.as_deref(), &count, number, parent()));
    [Some(listen), einhorn].into_iter().flatten().collect()
}

/// Are the variables of systemd or Einhorn set, for this process or for the launcher that it has them from?
pub(crate) fn are_set() -> bool {
    ["LISTEN_FDS", "EINHORN_FD_COUNT"].into_iter().any(|name| env::var_os(name).is_some())
}

fn variable(name: &str) -> Option<String> {
    Some(env::var_os(name)?.to_string_lossy().into_owned())
}

/// Takes ownership of a socket that was passed by exec under this number. `Err`: why it cannot be that
/// socket.
pub(crate) fn adopt(number: i32) -> Result<(OwnedFd, SocketKind, Address), String> {
    let (kind, local) = look(number, socket::describe)?;
    Ok((raw::adopt(number), kind, local))
}

/// The same, for a descriptor of any type.
pub(crate) fn adopt_any(number: i32) -> Result<OwnedFd, String> {
    look(number, |_| Ok(()))?;
    Ok(raw::adopt(number))
}

/// Is it closed in the programs that this process executes?
pub(crate) fn is_close_on_exec(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(fcntl(fd, FcntlArg::F_GETFD)? & nix::libc::FD_CLOEXEC != 0)
}

/// A descriptor that came by exec is not close-on-exec: if it is, this program has opened it, and it has an
/// owner already.
fn look<T>(
    number: i32,
    describe: impl FnOnce(BorrowedFd<'_>) -> Result<T, String>,
) -> Result<T, String> {
    let looked = raw::look_at(number, |fd| {
        if is_close_on_exec(fd)? {
            return Ok(Err("it was not passed: it is this program's own".to_owned()));
        }
        Ok(describe(fd))
    });
    looked.unwrap_or_else(|error| {
        Err(match error.raw_os_error() {
            Some(nix::libc::EBADF) => "it is not open".to_owned(),
            _ => error.to_string(),
        })
    })
}
