//! Why an address is in use: who holds it, and what to do.

use super::Entry;
use crate::driver::shared::Daemon;
use crate::error::{Error, ErrorKind};
use crate::proto::control::frame::{Address, Socket, SocketKind};
use crate::proto::control::transfer::Predecessor;
use crate::proto::sockets::overlap::Reach;
use crate::proto::sockets::pool::{Origin, Wanted};
use crate::sys::proc::{self, Holder};
use crate::sys::{process, socket};
use std::os::fd::AsFd;
use std::time::Duration;

/// An error is not held back for longer than this.
const SEARCH: Duration = Duration::from_secs(1);

/// Adds to the error who holds the address. `overlapping`: what nobody has asked for. `from`: the
/// generation that it was taken over from.
pub(super) fn explain(
    daemon: &Daemon,
    wanted: &Wanted<'_>,
    overlapping: &[(Entry, Origin)],
    from: Option<u64>,
    error: Error,
) -> Error {
    if !wanted.kind.is_inet() || !error.is_address_in_use() {
        return error;
    }
    let predecessors = daemon.service.as_ref().map(|service| service.predecessors());
    let predecessors: Vec<Predecessor> = match predecessors {
        // Since the last look: that is why the address is in use.
        Some(Err(running)) if running.kind() == ErrorKind::AlreadyRunning => return running,
        Some(Ok(predecessors)) => predecessors.into_iter().map(|one| one.about).collect(),
        Some(Err(_)) | None => Vec::new(),
    };
    let giver = predecessors.iter().find(|one| Some(one.number) == from);
    let why = overlapping.iter().find_map(|(entry, origin)| of_another(entry, *origin, giver));
    match why.or_else(|| held_by(wanted, &predecessors)) {
        Some(why) => error.hint(why),
        None => error,
    }
}

/// Why the port of a socket that nobody has asked for cannot be shared.
fn of_another(entry: &Entry, origin: Origin, giver: Option<&Predecessor>) -> Option<String> {
    let Socket { kind, local, .. } = &entry.socket;
    let kind = kind.name();
    if origin == Origin::Supervisor {
        return Some(format!(
            "the supervisor has passed {kind} {local}, which overlaps, and keeps it open: ask for that \
             address, or change it in the settings of the supervisor (systemd: ListenStream=, \
             ListenDatagram=)"
        ));
    }
    let own = process::effective_user();
    let owner = socket::owner(entry.fd.as_fd()).filter(|owner| *owner != own)?;
    let giver = giver.map_or("a predecessor".to_owned(), named);
    Some(format!(
        "{giver} holds {kind} {local}, which overlaps, with a socket of uid {owner}, and this process has \
         uid {own}: two sockets share a port only if one user has made both (SO_REUSEPORT). Stop the \
         service and start it again, or start it as uid {owner}"
    ))
}

/// Who holds an address that overlaps, as far as `/proc` tells it.
fn held_by(wanted: &Wanted<'_>, predecessors: &[Predecessor]) -> Option<String> {
    let asked: Vec<Reach> = wanted
        .addresses
        .iter()
        .filter_map(|address| match address {
            Address::Inet(address) => Some(Reach::of(*address, wanted.only_v6)),
            Address::Unix(_) | Address::Vsock { .. } | Address::Name(_) => None,
        })
        .collect();
    let overlaps = |holder: &&Holder| {
        let reach = Reach::of(holder.local, false);
        asked.iter().any(|one| one.meets(reach))
    };
    let holders = proc::holders(wanted.kind == SocketKind::Udp);
    let holders: Vec<&Holder> = holders.iter().filter(overlaps).collect();
    let of_predecessor = |holder: &&Holder| {
        let one = predecessors.iter().find(|one| holder.is_held_by(one.pid))?;
        Some((holder.local, *one))
    };
    let kind = wanted.kind.name();
    if let Some((local, one)) = holders.iter().find_map(of_predecessor) {
        let giver = named(&one);
        return Some(format!(
            "{giver} still holds {kind} {local}, which overlaps, and does not transfer it: the address is \
             free when that generation has closed it, at its end at the latest"
        ));
    }
    let holder = holders.first()?;
    let local = holder.local;
    Some(match holder.find(SEARCH) {
        // The launcher keeps the sockets of its daemon, for the case that it crashes.
        Some(pid) if [Some(pid), proc::parent_of(pid)].contains(&Some(process::parent_pid())) => {
            format!(
                "this service itself holds {kind} {local} (process {pid}), and its record does not say so: \
                 somebody has removed the files beside the PID file. They are put back within a second: \
                 restart again"
            )
        }
        Some(pid) => {
            let name = proc::name(pid).unwrap_or_default();
            format!(
                "process {pid} ({name}), which is no predecessor, holds {kind} {local}: end it, or choose \
                 another address"
            )
        }
        None => format!(
            "a process of uid {} that was not found in /proc holds {kind} {local}: end it, or choose \
             another address",
            holder.uid
        ),
    })
}

fn named(one: &Predecessor) -> String {
    format!("generation {} with daemon {}", one.number, one.pid)
}
