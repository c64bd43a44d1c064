//! Descriptors that the program keeps under names.

use super::obtain::take_over_or_log;
use super::{entry, unwrap};
use crate::driver::handed::{OWN, refused_name};
use crate::driver::log::{self, sockets::Event};
use crate::driver::shared::PROCESS;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::control::frame::{Address, Socket, SocketKind};
use crate::shutdown::lock;
use crate::sys::{descriptor, socket};
use std::os::fd::{BorrowedFd, OwnedFd};

/// Keeps a descriptor of the program.
pub(crate) fn keep(name: &str, fd: BorrowedFd<'_>, outlives_crash: bool) -> Result<()> {
    let refuse = |kind, why: &str| Err(Error::new(kind, format!("{}: {why}", step(name))));
    if PROCESS.daemon().is_none() {
        return refuse(ErrorKind::NotInitialized, "init was not called, or failed");
    }
    if name.is_empty() {
        return refuse(ErrorKind::Descriptor, "it has no name");
    }
    match refused_name(name).or_else(|| descriptor::bound_to_a_process(fd)) {
        Some(why) => refuse(ErrorKind::Descriptor, &why),
        None => keep_any(name, fd, outlives_crash),
    }
}

fn step(name: &str) -> String {
    format!("cannot keep {name:?} (descriptor)")
}

/// Keeps a descriptor of the program, or one of the crate itself.
pub(in crate::driver) fn keep_any(
    name: &str,
    fd: BorrowedFd<'_>,
    outlives_crash: bool,
) -> Result<()> {
    let copy = socket::duplicate(fd).map_err(|error| {
        Error::io(ErrorKind::Descriptor, format!("{}: cannot duplicate it", step(name)), error)
    })?;
    let name = Address::Name(name.to_owned());
    let mut entry = entry(Socket::new(SocketKind::Descriptor, name.clone(), name), copy);
    entry.outlives_crash = outlives_crash;
    let before = lock(&PROCESS.sockets.held).pool.keep(entry);
    let changed = outlives_crash || before.iter().any(|one| one.outlives_crash);
    drop(before);
    if changed {
        note_change();
    }
    Ok(())
}

pub(crate) fn forget(name: &str) {
    let gone = lock(&PROCESS.sockets.held).pool.forget(name);
    if gone.iter().any(|one| one.outlives_crash) {
        note_change();
    }
}

/// What is to outlive a crash has changed while this generation serves.
fn note_change() {
    super::give::again();
    #[cfg(feature = "systemd")]
    super::fdstore::again();
}

pub(crate) fn take(name: &str) -> Option<OwnedFd> {
    if name.starts_with(OWN) {
        return None;
    }
    take_over_or_log();
    take_any(name)
}

/// Also one of the crate itself. The transfer has been made before.
pub(in crate::driver) fn take_any(name: &str) -> Option<OwnedFd> {
    let entry = lock(&PROCESS.sockets.held).pool.take_descriptor(name)?;
    let fd = unwrap(entry.fd);
    fd.inspect_err(|error| log::write(Event::ReceiveFailed { error })).ok()
}
