//! The sockets that a program asks for: passed by the supervisor, taken over, or bound anew.

use super::adjust::{self, address_of};
use super::bind::{ToBind, steer};
use super::flows::{self, Asking};
use super::{Entry, Obtained, Own, conflict, fresh, hand_out};
use crate::driver::control::transfer::{self, Taken};
use crate::driver::handed::OWN;
use crate::driver::log::{self, sockets::Event};
use crate::driver::shared::{Daemon, PROCESS};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::control::frame::{Address, Socket};
use crate::proto::sockets::passed::Passed;
use crate::proto::sockets::pool::{Origin, Wanted};
use crate::shutdown::lock;
use crate::sys::socket::{self, Settings};
use crate::sys::unix_path;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

/// The longest name that a supervisor passes (`sd_listen_fds_with_names(3)`).
const NAME_MAX: usize = 255;
const LATE: &str = "it was asked for after started(): a socket is taken over from the predecessor only \
                    if it is asked for between init and started";

/// The sockets that the program asks for, found or bound. See [`crate::sockets`] for the order. If this
/// process is told to stop while it starts, the call does not return: the older generations still have the
/// addresses, and a program that ended because of the error would end before them.
pub(crate) fn obtain(wanted: &Wanted<'_>, settings: Settings, own: &Own) -> Result<Vec<OwnedFd>> {
    let Some(daemon) = PROCESS.daemon() else {
        let text = "cannot find a socket (socket): init was not called, or failed";
        return Err(Error::new(ErrorKind::NotInitialized, text));
    };
    park_if_ending(daemon);
    let found = find_or_bind(daemon, wanted, settings, own);
    if found.is_err() {
        park_if_ending(daemon);
    }
    found
}

fn park_if_ending(daemon: &Daemon) {
    if let Some(service) = daemon.service.as_ref().filter(|_| daemon.phase().parks_callers()) {
        service.park();
    }
}

fn find_or_bind(
    daemon: &Daemon,
    wanted: &Wanted<'_>,
    settings: Settings,
    own: &Own,
) -> Result<Vec<OwnedFd>> {
    if wanted.name.is_some_and(|name| name.len() > NAME_MAX) {
        let text = format!("cannot use a name of more than {NAME_MAX} bytes (socket)");
        return Err(Error::new(ErrorKind::Socket, text));
    }
    let _one_at_a_time = lock(&PROCESS.sockets.asking);
    lock(&PROCESS.sockets.held).pool.use_it();
    if let Some(number) = own.passed_as {
        PROCESS.sockets.adopt(Passed { number, name: wanted.name.map(str::to_owned) });
    }
    take_over()?;
    if let Some(asked) = lock(&PROCESS.sockets.held).pool.asked_before(wanted) {
        return Err(asked_before(wanted, asked));
    }
    let (found, handed) = match wanted.steer {
        Some(steer) => {
            let older = match &daemon.service {
                Some(service) => service.living()?,
                None => BTreeSet::new(),
            };
            let obtained = flows::obtain(&Asking { daemon, wanted, steer, settings, own, older })?;
            obtained.0.iter().for_each(|(entry, origin)| note_found(entry, *origin, wanted));
            obtained
        }
        None => obtain_plain(daemon, wanted, settings, own)?,
    };
    if let Some(adjust) = &own.adjust {
        let others = found.into_iter().filter(|(_, origin)| *origin != Origin::Bound);
        let adjusts = others.map(|(entry, _)| (entry, adjust.clone()));
        lock(&PROCESS.sockets.held).adjusts.extend(adjusts);
    }
    if !daemon.is_starting() {
        adjust::set_modes();
        adjust::adjust()?;
    }
    Ok(handed)
}

/// Without steering.
fn obtain_plain(
    daemon: &Daemon,
    wanted: &Wanted<'_>,
    settings: Settings,
    own: &Own,
) -> Result<Obtained> {
    let predecessors = match &daemon.service {
        Some(service) if wanted.kind.is_unix() => {
            service.predecessors()?.into_iter().map(|one| one.about).collect()
        }
        Some(_) | None => Vec::new(),
    };
    let is_late = daemon.service.is_some() && !daemon.is_starting();
    let count = wanted.count();
    let mut held = lock(&PROCESS.sockets.held);
    let forgotten = held.flows.forget(wanted);
    held.pool.receive_all(forgotten);
    let found = held.pool.find(wanted, is_lost);
    let mut found = found.map_err(|passed| of_another_kind(wanted, &passed))?;
    let missing = count.saturating_sub(found.len());
    let overlapping = if missing > 0 { held.pool.overlapping(wanted) } else { Vec::new() };
    let from = held.predecessor;
    drop(held); // while code of the program may run
    let bound = match missing {
        0 => Ok(Vec::new()),
        _ => {
            let (found, overlapping, predecessors) =
                (&found[..], &overlapping[..], &predecessors[..]);
            let make = own.make.as_ref();
            let to_bind = ToBind { wanted, settings, make, found, overlapping, predecessors };
            to_bind
                .bind(missing)
                .and_then(|bound| {
                    adjust::adjust_all(own, &bound)?;
                    Ok(bound)
                })
                .map_err(|error| {
                    let error = conflict::explain(daemon, wanted, overlapping, from, error);
                    if is_late { error.hint(LATE) } else { error }
                })
        }
    };
    let handed = bound.and_then(|bound| {
        found.extend(bound.into_iter().map(|entry| (entry, Origin::Bound)));
        hand_out(&found[..count])
    });
    let mut held = lock(&PROCESS.sockets.held);
    let handed = match handed {
        Ok(handed) => handed,
        Err(error) => {
            held.pool.put_back(found);
            return Err(error);
        }
    };
    let (found, steered) = held.pool.hold(wanted, found, !daemon.is_starting());
    drop(held);
    if let Some((member, spread)) = steered {
        steer(&member, spread);
    }
    let mut modes = Vec::new();
    for (entry, origin) in &found {
        note_found(entry, *origin, wanted);
        // What the program makes itself may be what a plain bind cannot (IP_FREEBIND).
        if own.make.is_none() {
            fresh::warn(daemon, entry, *origin);
        }
        let kind = entry.socket.kind.name();
        let address = address_of(&entry.socket);
        if is_late && *origin == Origin::Bound {
            log::write(Event::SocketLate { kind, address });
        }
        let nonblocking = settings.nonblocking;
        if socket::is_nonblocking(entry.fd.as_fd()) == nonblocking {
            continue;
        }
        if settings.change_nonblocking {
            modes.push((entry.clone(), nonblocking));
        } else {
            log::write(Event::SocketMode { kind, address, nonblocking: !nonblocking });
        }
    }
    lock(&PROCESS.sockets.held).modes.extend(modes);
    Ok((found, handed))
}

/// Takes over from the predecessor, once.
fn take_over() -> Result<()> {
    let _one_at_a_time = lock(&PROCESS.sockets.taking);
    if lock(&PROCESS.sockets.held).pool.is_taken() {
        return Ok(());
    }
    let Some(daemon) = PROCESS.daemon() else { return Ok(()) };
    let taken = match &daemon.service {
        Some(service) if daemon.is_starting() => {
            let began = Instant::now();
            let taken = transfer::take(service, PROCESS.takeover_timeout())?;
            drop(PROCESS.sockets.take_copies()); // older than what has come
            lock(&daemon.past).transfer = taken.generation.map(|_| began.elapsed());
            taken
        }
        Some(_) | None => Taken::default(),
    };
    PROCESS.handed.inherit(taken.states);
    let held = &mut *lock(&PROCESS.sockets.held);
    held.predecessor = taken.generation;
    let (flows, mut entries): (Vec<Entry>, Vec<Entry>) =
        taken.entries.into_iter().partition(|entry| entry.socket.flow.is_some());
    held.flows.take(flows);
    // A generation that has begun to steer a plain group was rolled back: the predecessor has the same sockets twice.
    entries.retain(|entry| !held.flows.is_member(entry));
    held.pool.take(entries);
    Ok(())
}

fn asked_before(wanted: &Wanted<'_>, asked: &Address) -> Error {
    let text = format!(
        "cannot bind {} {asked} (socket): this process has asked for it before",
        wanted.kind.name(),
    );
    let error = Error::io(ErrorKind::Socket, text, io::ErrorKind::AddrInUse.into());
    if asked.is_any_port() {
        error.hint("sockets with port 0 are told apart by their names")
    } else {
        error
    }
}

fn of_another_kind(wanted: &Wanted<'_>, passed: &Socket) -> Error {
    let text = format!(
        "cannot use {:?} (socket): the supervisor passed a {} socket at {} under this name, not a {} \
         socket",
        wanted.name.unwrap_or_default(),
        passed.kind.name(),
        passed.local,
        wanted.kind.name(),
    );
    Error::new(ErrorKind::Socket, text)
}

/// Guards against a socket that nobody can reach any more: it has lost its path, or a later generation has put
/// another socket in its place, and was killed afterwards.
fn is_lost(entry: &Entry) -> bool {
    has_lost_its_path(entry) || socket::has_stepped_aside(entry.fd.as_fd(), entry.socket.kind)
}

/// Guards against a listener that nobody can reach any more: its path was removed, or names another
/// socket.
fn has_lost_its_path(entry: &Entry) -> bool {
    let Socket { asked, local, file, .. } = &entry.socket;
    let Some(path) = unix_path::path_of(asked) else { return false };
    let there = unix_path::file_at(&path);
    let lost = match file {
        // A socket that was passed by name may be bound to another path than the one asked for.
        Some(file) => {
            there != Some(*file)
                && unix_path::path_of(local)
                    .is_none_or(|path| unix_path::file_at(&path) != Some(*file))
        }
        None => there.is_none() && unix_path::path_of(local).is_some(),
    };
    if lost {
        log::write(Event::SocketLostItsPath { kind: entry.socket.kind.name(), address: asked });
    }
    lost
}

fn note_found(entry: &Entry, origin: Origin, wanted: &Wanted<'_>) {
    let Socket { kind, name, member, retired, .. } = &entry.socket;
    let member = wanted.group.map(|count| format!("{}/{count}", member + 1));
    log::write(Event::Socket {
        kind: kind.name(),
        name: name.as_deref(),
        address: address_of(&entry.socket),
        member: member.as_deref(),
        from: origin.name(),
        retired: retired.then_some("one too many: nothing new goes to it"),
    });
}

#[cfg(feature = "tokio")]
pub(crate) fn cannot_accept(error: &io::Error) {
    log::write(Event::CannotAccept { error });
}

// ---- the state ----

/// The state of this name, and its version.
pub(crate) fn inherited(name: &str) -> Option<(u32, Vec<u8>)> {
    if name.starts_with(OWN) {
        return None;
    }
    take_over_or_log();
    PROCESS.handed.take(name)
}

pub(crate) fn inherited_from() -> Option<u64> {
    take_over_or_log();
    lock(&PROCESS.sockets.held).predecessor
}

/// `false`: there is a predecessor, and nothing could be taken over from it.
pub(in crate::driver) fn take_over_or_log() -> bool {
    take_over().inspect_err(|error| log::write(Event::ReceiveFailed { error })).is_ok()
}
