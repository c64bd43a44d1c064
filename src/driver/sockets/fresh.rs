//! Warns of a socket that was taken over and that this generation could not have bound itself: the next fresh
//! start of the service would fail, perhaps months after the permission was lost.

use super::Entry;
use super::adjust::address_of;
use crate::driver::log::{self, sockets::Event};
use crate::driver::shared::{Daemon, PROCESS};
use crate::proto::control::frame::{Address, Socket};
use crate::proto::sockets::fresh;
use crate::proto::sockets::pool::Origin;
use crate::shutdown::lock;
use crate::sys::shortage::is_shortage;
use crate::sys::{passed, proc, socket, unix_path};

pub(super) fn warn(daemon: &Daemon, entry: &Entry, origin: Origin) {
    let Socket { kind, asked, local, member, .. } = &entry.socket;
    let is_older = matches!(origin, Origin::Predecessor | Origin::Store);
    if !is_older || *member > 0 || supervisor_passes(daemon) {
        return;
    }
    {
        let tried = &mut lock(&PROCESS.sockets.held).tried;
        if *tried == fresh::TRIALS {
            return;
        }
        *tried += 1;
    }
    let bound = match (local, unix_path::path_of(asked)) {
        (Address::Inet(address), _) => socket::try_bind(*kind, *address),
        (Address::Unix(_), Some(path)) => unix_path::try_place(&path),
        (Address::Unix(_) | Address::Vsock { .. } | Address::Name(_), _) => Ok(()),
    };
    let Err(error) = bound else { return };
    if is_shortage(&error) {
        return; // it says nothing of the address
    }
    let refusal = socket::refusal(&error);
    let remedy = fresh::remedy(*kind, local, refusal, proc::first_unprivileged_port());
    let address = address_of(&entry.socket);
    log::write(Event::NotBindable { kind: kind.name(), address, error: &error, remedy: &remedy });
}

/// A launcher that restarts in place was passed sockets once. Its later daemons have them from their
/// predecessors, and a fresh start has them from the supervisor.
fn supervisor_passes(daemon: &Daemon) -> bool {
    let in_place = daemon.service.as_ref().is_some_and(|service| service.in_place);
    in_place && passed::are_set()
}
