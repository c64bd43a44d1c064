//! Changes of sockets that other processes may share: what the program adjusts, and their mode.

use super::{Adjust, Entry, Own};
use crate::driver::log::{self, sockets::Event};
use crate::driver::shared::PROCESS;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::control::frame::{Address, Socket};
use crate::shutdown::lock;
use crate::sys::socket;
use std::os::fd::AsFd;

/// This generation is about to take over, and nothing of it is in force yet: the program adjusts the sockets
/// that others have bound. After an error, a further call tries again.
pub(in crate::driver) fn adjust() -> Result<()> {
    let adjusts = lock(&PROCESS.sockets.held).adjusts.clone();
    for (entry, adjust) in &adjusts {
        adjust_one(entry, adjust)?;
    }
    let held = &mut lock(&PROCESS.sockets.held).adjusts;
    // A drain that has begun meanwhile has dropped them.
    let done = adjusts.len().min(held.len());
    held.drain(..done);
    Ok(())
}

/// Those that this process has bound just now.
pub(super) fn adjust_all<'a>(own: &Own, bound: impl IntoIterator<Item = &'a Entry>) -> Result<()> {
    let Some(adjust) = &own.adjust else { return Ok(()) };
    bound.into_iter().try_for_each(|entry| adjust_one(entry, adjust))
}

fn adjust_one(entry: &Entry, adjust: &Adjust) -> Result<()> {
    adjust(entry.fd.as_fd()).map_err(|error| {
        let kind = entry.socket.kind.name();
        let address = address_of(&entry.socket);
        let text = format!("cannot adjust {kind} {address} (socket): `adjust` failed");
        Error::io(ErrorKind::Socket, text, error)
    })
}

/// This generation serves, and every older one has been told to end. Guards against a predecessor whose
/// `accept` fails, or blocks, because of a successor that never comes to serve.
pub(in crate::driver) fn set_modes() {
    let modes = std::mem::take(&mut lock(&PROCESS.sockets.held).modes);
    for (entry, nonblocking) in modes {
        let (kind, address) = (entry.socket.kind.name(), address_of(&entry.socket));
        match socket::set_nonblocking(entry.fd.as_fd(), nonblocking) {
            Ok(()) => log::write(Event::SocketModeChanged { kind, address, nonblocking }),
            Err(_) => {
                log::write(Event::SocketMode { kind, address, nonblocking: !nonblocking });
            }
        }
    }
}

/// A path may have been bound under another name.
pub(super) fn address_of(socket: &Socket) -> &Address {
    match socket.kind {
        kind if kind.is_unix() => &socket.asked,
        _ => &socket.local,
    }
}
