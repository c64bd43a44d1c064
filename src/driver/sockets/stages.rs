//! What the stages of a restart do with the sockets of this process.

use super::adjust;
use super::bind::steer;
use crate::driver::counters;
use crate::driver::log::{self, sockets::Event};
use crate::driver::shared::PROCESS;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::control::frame::Socket;
use crate::proto::sockets::changes::{Changes, FileChanges};
use crate::shutdown::lock;
use crate::sys::process::Held;
use crate::sys::{socket, unix_path};
use std::os::fd::AsFd;

/// This generation is about to take over: gives sockets that others have bound the mode, the owner and the
/// backlog that the program asks for. All of them, or an error; a further call of `started` tries again.
pub(in crate::driver) fn change() -> Result<()> {
    let changes = lock(&PROCESS.sockets.held).pool.changes();
    for (entry, Changes { backlog, file }) in changes {
        let Socket { kind, asked, .. } = &entry.socket;
        let path = unix_path::path_of(asked);
        let shown = adjust::address_of(&entry.socket);
        let fail = |error| {
            let text =
                format!("cannot change {} {shown} to {} (socket)", kind.name(), words(&file));
            let hint =
                "its owner and root may: let that user start the service once, or remove the path";
            Error::io(ErrorKind::Socket, text, error).hint(hint)
        };
        let changed = match &path {
            Some(path) => unix_path::change_file(path, file, entry.socket.file).map_err(fail)?,
            None => false,
        };
        if backlog.is_some() {
            socket::listen(entry.fd.as_fd(), backlog).map_err(|error| {
                let text = format!("cannot change the backlog of {} {shown} (socket)", kind.name());
                Error::io(ErrorKind::Socket, text, error)
            })?;
        }
        if changed || backlog.is_some() {
            let file = changed.then(|| words(&file));
            let (kind, address, file) = (kind.name(), shown, file.as_deref());
            log::write(Event::SocketChanged { kind, address, file, backlog });
        }
    }
    Ok(())
}

/// `mode 0660 owner 33:-`
fn words(FileChanges { mode, uid, gid }: &FileChanges) -> String {
    let number = |number: &Option<u32>| number.map_or("-".to_owned(), |number| number.to_string());
    let mode = mode.map(|mode| format!("mode {mode:04o}"));
    let owner =
        (uid.is_some() || gid.is_some()).then(|| format!("owner {}:{}", number(uid), number(gid)));
    mode.into_iter().chain(owner).collect::<Vec<_>>().join(" and ")
}

/// This generation is about to serve: closes what nobody has asked for. Guards against a connection
/// that the kernel completes for us alone, after the older generations have closed theirs.
pub(in crate::driver) fn close_unclaimed() {
    PROCESS.from_launcher.close();
    drop(PROCESS.sockets.take_copies());
    PROCESS.handed.close_unclaimed();
    counters::carry_on();
    let mut held = lock(&PROCESS.sockets.held);
    let mut unclaimed = held.pool.unclaimed();
    unclaimed.extend(held.flows.unclaimed());
    drop(held);
    for (entry, origin) in unclaimed {
        let Socket { kind, name, local, .. } = &entry.socket;
        log::write(Event::SocketUnclaimed {
            kind: kind.name(),
            name: name.as_deref(),
            address: local,
            from: origin.name(),
        });
    }
}

/// This generation serves, and no older one has been told to end yet. Guards against connections that
/// arrive at an address while the last older generation closes it, and that a newer socket could serve.
pub(in crate::driver) fn steer_groups() {
    let groups = lock(&PROCESS.sockets.held).pool.steer();
    for (member, spread) in groups {
        steer(&member, spread);
    }
    let replaced = lock(&PROCESS.sockets.held).pool.replaced();
    for entry in &replaced {
        let Socket { kind, name, local, .. } = &entry.socket;
        if let Err(error) = socket::step_aside(entry.fd.as_fd(), *kind) {
            log::write(Event::NotReplaced { kind: kind.name(), address: local, error: &error });
        }
        log::write(Event::SocketReplaced {
            kind: kind.name(),
            name: name.as_deref(),
            address: local,
        });
    }
    // In this process they are closed now, before any older generation closes its own.
}

/// This generation serves again: each group gets what arrives at its own members alone.
pub(in crate::driver) fn steer_back() {
    let groups = lock(&PROCESS.sockets.held).pool.steer_back();
    for (member, spread) in groups {
        steer(&member, spread);
    }
}

/// `started` is through; these older generations end.
pub(in crate::driver) fn started(older: Vec<(u64, Held)>) {
    adjust::set_modes();
    let has_retired = lock(&PROCESS.sockets.held).pool.has_retired();
    if has_retired && older.is_empty() {
        close_retired(); // nobody is left to answer what waits there
    } else if has_retired || PROCESS.sockets.has_flows() {
        if let Some(server) = PROCESS.server.get() {
            server.watch(older);
        }
    }
}

/// Closes the retired members of groups, the last one first.
pub(in crate::driver) fn close_retired() {
    let mut retired = lock(&PROCESS.sockets.held).pool.take_retired();
    while let Some(entry) = retired.pop() {
        let Socket { kind, local, member, .. } = &entry.socket;
        log::write(Event::SocketRetired { kind: kind.name(), address: local, member: member + 1 });
    }
}
