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

/// For a descriptor of the program's.
pub(crate) fn keep(name: &str, fd: BorrowedFd<'_>, outlives_crash: bool) -> Result<()> {
    let step = || format!("cannot keep {name:?} (descriptor)");
    if PROCESS.daemon().is_none() {
        let text = format!("{}: init was not called, or failed", step());
        return Err(Error::new(ErrorKind::NotInitialized, text));
    }
    let no_name = || name.is_empty().then(|| "it has no name".to_owned());
    let refused = refused_name(name).or_else(no_name);
    if let Some(why) = refused.or_else(|| descriptor::bound_to_a_process(fd)) {
        return Err(Error::new(ErrorKind::Descriptor, format!("{}: {why}", step())));
    }
    keep_any(name, fd, outlives_crash)
}

/// Also for those of the crate's own.
pub(in crate::driver) fn keep_any(
    name: &str,
    fd: BorrowedFd<'_>,
    outlives_crash: bool,
) -> Result<()> {
    let step = || format!("cannot keep {name:?} (descriptor)");
    let copy = socket::duplicate(fd).map_err(|error| {
        Error::io(ErrorKind::Descriptor, format!("{}: cannot duplicate it", step()), error)
    })?;
    let asked = Address::Name(name.to_owned());
    let (kind, local) = (SocketKind::Descriptor, asked.clone());
    let socket = Socket {
        kind,
        asked,
        name: None,
        member: 0,
        retired: false,
        local,
        file: None,
        flow: None,
    };
    let mut entry = entry(socket, copy);
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

/// Also one of the crate's own. Everything has been transferred.
pub(in crate::driver) fn take_any(name: &str) -> Option<OwnedFd> {
    let entry = lock(&PROCESS.sockets.held).pool.take_descriptor(name)?;
    match unwrap(entry.fd) {
        Ok(fd) => Some(fd),
        Err(error) => {
            log::write(Event::ReceiveFailed { error: &error });
            None
        }
    }
}
