//! Binds what the program asks for and nobody holds.

use super::own::{make_inet, make_unix, make_vsock};
use super::{Entry, Make, entry};
use crate::driver::log::{self, sockets::Event};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::control::frame::{Address, FileId, Socket, SocketKind};
use crate::proto::control::transfer::Predecessor;
use crate::proto::sockets::pool::{Origin, Spread, Wanted};
use crate::sys::socket::{self, Settings};
use crate::sys::unix_path::{self, Beside, Occupant, SocketType};
use crate::sys::{reuseport, rlimit};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

/// What there is already where a socket is to be bound.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    /// The members of its group that were found.
    pub(super) found: &'a [(Entry, Origin)],
    /// What nobody has asked for so far, at addresses that overlap.
    pub(super) overlapping: &'a [(Entry, Origin)],
    pub(super) predecessors: &'a [Predecessor],
    pub(super) make: Option<&'a Make>,
}

/// Binds what is missing, at the first address that can be bound.
pub(super) fn bind(
    wanted: &Wanted<'_>,
    settings: Settings,
    around: Around<'_>,
    missing: usize,
) -> Result<Vec<Entry>> {
    let mut failure = None;
    for asked in &wanted.addresses {
        let bound = match (asked, around.found) {
            (Address::Unix(_), _) => {
                bind_path(wanted, settings, around, asked).map(|one| vec![one])
            }
            (Address::Vsock { cid, port }, _) => {
                bind_vsock(wanted, settings, around, asked, (*cid, *port)).map(|one| vec![one])
            }
            (Address::Name(_), _) => unreachable!("a descriptor is not bound"),
            (Address::Inet(address), []) => {
                bind_members(wanted, settings, around, asked, *address, missing)
            }
            (Address::Inet(_), [(first, _), ..]) => {
                let Address::Inet(port) = first.socket.local else { unreachable!("of one kind") };
                return join(wanted, settings, around, port, missing);
            }
        };
        match bound {
            Ok(bound) => return Ok(bound),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.expect("an address was tried"))
}

/// New members of a group that was taken over. Nothing must go to them as long as this generation
/// does not serve: if it fails, what waits in their queues would be lost.
fn join(
    wanted: &Wanted<'_>,
    settings: Settings,
    around: Around<'_>,
    port: SocketAddr,
    missing: usize,
) -> Result<Vec<Entry>> {
    let first = &around.found[0].0;
    let active = around.found.iter().filter(|(entry, _)| !entry.socket.retired).count() as u32;
    for (entry, _) in around.found {
        reuseport::share_port(entry.fd.as_fd()).map_err(|error| {
            let text = format!("cannot share {} {port} (socket)", wanted.kind.name());
            Error::io(ErrorKind::Socket, text, error)
        })?;
    }
    let is_group = reuseport::steer_to_first(first.fd.as_fd(), wanted.kind, active).is_ok();
    let asked = &first.socket.asked;
    let mut bound = bind_members(wanted, settings, around, asked, port, 1)?;
    if !is_group {
        // The first was alone, and a group begins with the second.
        steer(first, Spread::First(active));
    }
    bound.extend(bind_members(wanted, settings, around, asked, port, missing - 1)?);
    Ok(bound)
}

/// All at one port, which is the first one's where the system chooses.
pub(super) fn bind_members(
    wanted: &Wanted<'_>,
    settings: Settings,
    around: Around<'_>,
    asked: &Address,
    mut address: SocketAddr,
    count: usize,
) -> Result<Vec<Entry>> {
    let reuse_port = settings.reuse_port || wanted.group.is_some();
    let mut settings = Settings { reuse_port, ..settings };
    let mut bound: Vec<Entry> = Vec::new();
    for _ in 0..count {
        let fail = |error| {
            let text = format!("cannot bind {} {address} (socket)", wanted.kind.name());
            Error::io(ErrorKind::Socket, text, error)
        };
        let bind = |settings| match around.make {
            Some(make) => make_inet(make, wanted.kind, address, settings),
            None => socket::bind(wanted.kind, address, settings),
        };
        let try_bind = |settings| match bind(settings) {
            Err(error) if error.raw_os_error() == Some(rlimit::TOO_MANY_FILES) => {
                rlimit::make_room(2 * count as u64);
                bind(settings)
            }
            done => done,
        };
        let fd = match try_bind(settings) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && share(wanted.kind, address, around.overlapping) =>
            {
                settings.reuse_port = true;
                try_bind(settings)
            }
            done => done,
        };
        let fd = fd.map_err(fail)?;
        let entry = describe(wanted, asked, fd, None).map_err(|why| fail(io::Error::other(why)))?;
        if let Address::Inet(local) = entry.socket.local {
            address = local;
        }
        bound.push(entry);
    }
    Ok(bound)
}

/// Lets a socket be bound beside those that nobody has asked for. The supervisor's are left alone: they
/// would stay open for ever, and nobody would accept from them. `false`: there is none.
fn share(kind: SocketKind, address: SocketAddr, overlapping: &[(Entry, Origin)]) -> bool {
    let mut shared = false;
    for (entry, origin) in overlapping {
        if *origin == Origin::Supervisor || reuseport::share_port(entry.fd.as_fd()).is_err() {
            continue;
        }
        shared = true;
        log::write(Event::SocketShared {
            kind: kind.name(),
            address: &address,
            shared_with: &entry.socket.local,
        });
    }
    shared
}

fn bind_path(
    wanted: &Wanted<'_>,
    settings: Settings,
    around: Around<'_>,
    asked: &Address,
) -> Result<Entry> {
    let predecessors = around.predecessors;
    let path = unix_path::path_of(asked).expect("a path");
    let ty = match wanted.kind {
        SocketKind::UnixDatagram => SocketType::Datagram,
        SocketKind::UnixSeqpacket => SocketType::SeqPacket,
        _ => SocketType::Stream,
    };
    let fail =
        |error| Error::io(ErrorKind::Socket, format!("cannot bind {path:?} (socket)"), error);
    let in_use = |hint| Err(fail(io::ErrorKind::AddrInUse.into()).hint(hint));
    match unix_path::occupant_of(&path, ty).map_err(fail)? {
        Occupant::Nobody => {}
        Occupant::NoSocket => return in_use("something that is no socket is there".to_owned()),
        Occupant::Somebody(Some(pid)) if predecessors.iter().any(|one| one.pid == pid) => {}
        Occupant::Somebody(Some(pid)) => {
            return in_use(format!("process {pid}, which is no predecessor, listens there"));
        }
        // The kernel does not say who; a predecessor may.
        Occupant::Somebody(None) if !predecessors.is_empty() => {}
        Occupant::Somebody(None) => return in_use("somebody listens there".to_owned()),
    }
    let beside = match around.make {
        Some(make) => make_unix(make, wanted.kind, &path, settings),
        None => Beside::bind(ty, &path, settings),
    };
    let bound = beside.and_then(Beside::place);
    let (fd, file) = bound.map_err(fail)?;
    describe(wanted, asked, fd, Some(file)).map_err(|why| fail(io::Error::other(why)))
}

fn bind_vsock(
    wanted: &Wanted<'_>,
    settings: Settings,
    around: Around<'_>,
    asked: &Address,
    (cid, port): (u32, u32),
) -> Result<Entry> {
    let fail = |error| Error::io(ErrorKind::Socket, format!("cannot bind {asked} (socket)"), error);
    let fd = match around.make {
        Some(make) => make_vsock(make, cid, port, settings),
        None => socket::bind_vsock(cid, port, settings),
    };
    describe(wanted, asked, fd.map_err(fail)?, None).map_err(|why| fail(io::Error::other(why)))
}

/// An entry for a socket that was bound just now.
fn describe(
    wanted: &Wanted<'_>,
    asked: &Address,
    fd: OwnedFd,
    file: Option<FileId>,
) -> Result<Entry, String> {
    let (kind, local) = socket::describe(fd.as_fd())?;
    let name = wanted.name.map(str::to_owned);
    let socket = Socket {
        kind,
        asked: asked.clone(),
        name,
        member: 0,
        retired: false,
        local,
        file,
        flow: None,
    };
    Ok(entry(socket, fd))
}

pub(super) fn steer(member: &Entry, spread: Spread) {
    let Socket { kind, local, .. } = &member.socket;
    let steered = match spread {
        Spread::All => reuseport::steer_to_all(member.fd.as_fd()),
        Spread::First(members) => reuseport::steer_to_first(member.fd.as_fd(), *kind, members),
    };
    if let Err(error) = steered {
        log::write(Event::NotSteered { kind: kind.name(), address: local, error: &error });
    }
}
