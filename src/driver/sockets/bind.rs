//! Binds what the program asks for and nobody holds.

use super::{Entry, Make, Place, entry, own};
use crate::driver::log::{self, sockets::Event};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::control::frame::{Address, FileId, Socket, SocketKind};
use crate::proto::control::transfer::{Predecessor, may_take_path};
use crate::proto::sockets::pool::{Origin, Spread, Wanted};
use crate::sys::socket::{self, Settings};
use crate::sys::unix_path::{self, Beside, Occupant};
use crate::sys::{reuseport, rlimit};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

/// What is to be bound, and what there is around it.
pub(super) struct ToBind<'a> {
    pub(super) wanted: &'a Wanted<'a>,
    pub(super) settings: Settings,
    pub(super) make: Option<&'a Make>,
    /// The members of its group that were found.
    pub(super) found: &'a [(Entry, Origin)],
    /// What nobody has asked for so far, at addresses that overlap.
    pub(super) overlapping: &'a [(Entry, Origin)],
    pub(super) predecessors: &'a [Predecessor],
}

/// Returns the last error if nothing can be bound at any of these addresses.
pub(super) fn at_first<T>(
    addresses: &[Address],
    bind: impl Fn(&Address) -> Result<T>,
) -> Result<T> {
    let mut failure = None;
    for address in addresses {
        match bind(address) {
            Ok(bound) => return Ok(bound),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.expect("an address was tried"))
}

impl ToBind<'_> {
    /// Binds what is missing, at the first address that can be bound.
    pub(super) fn bind(&self, missing: usize) -> Result<Vec<Entry>> {
        if let [(first, _), ..] = self.found {
            return self.join(first, missing);
        }
        at_first(&self.wanted.addresses, |asked| match asked {
            Address::Inet(address) => self.members(asked, *address, missing),
            Address::Unix(_) => Ok(vec![self.path(asked)?]),
            Address::Vsock { cid, port } => Ok(vec![self.vsock(asked, *cid, *port)?]),
            Address::Name(_) => unreachable!("a descriptor is not bound"),
        })
    }

    /// New members of a group that was taken over. Nothing must go to them as long as this generation
    /// does not serve: if it fails, what waits in their queues would be lost.
    fn join(&self, first: &Entry, missing: usize) -> Result<Vec<Entry>> {
        let Socket { asked, local, .. } = &first.socket;
        let Address::Inet(port) = *local else { unreachable!("only TCP and UDP have groups") };
        let kind = self.wanted.kind;
        for (entry, _) in self.found {
            reuseport::share_port(entry.fd.as_fd()).map_err(|error| {
                let text = format!("cannot share {} {port} (socket)", kind.name());
                Error::io(ErrorKind::Socket, text, error)
            })?;
        }
        let active = self.found.iter().filter(|(entry, _)| !entry.socket.retired).count() as u32;
        let is_group = reuseport::steer_to_first(first.fd.as_fd(), kind, active).is_ok();
        let mut bound = self.members(asked, port, 1)?;
        if !is_group {
            // The first was alone, and a group begins with the second.
            steer(first, Spread::First(active));
        }
        bound.extend(self.members(asked, port, missing - 1)?);
        Ok(bound)
    }

    /// All get one port. If the system chooses it, it is that of the first socket.
    pub(super) fn members(
        &self,
        asked: &Address,
        mut address: SocketAddr,
        count: usize,
    ) -> Result<Vec<Entry>> {
        let kind = self.wanted.kind;
        let reuse_port = self.settings.reuse_port || self.wanted.group.is_some();
        let mut settings = Settings { reuse_port, ..self.settings };
        let bind = |address, settings| match self.make {
            Some(make) => own::make(make, kind, Place::Inet(address), settings),
            None => socket::bind(kind, address, settings),
        };
        let try_bind = |address, settings| match bind(address, settings) {
            Err(error) if error.raw_os_error() == Some(rlimit::TOO_MANY_FILES) => {
                rlimit::make_room(2 * count as u64);
                bind(address, settings)
            }
            done => done,
        };
        let mut bound: Vec<Entry> = Vec::new();
        for _ in 0..count {
            let fd = match try_bind(address, settings) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && self.share(address) => {
                    settings.reuse_port = true;
                    try_bind(address, settings)
                }
                done => done,
            };
            let entry = fd.and_then(|fd| self.describe(asked, fd, None)).map_err(|error| {
                let text = format!("cannot bind {} {address} (socket)", kind.name());
                Error::io(ErrorKind::Socket, text, error)
            })?;
            if let Address::Inet(local) = entry.socket.local {
                address = local;
            }
            bound.push(entry);
        }
        Ok(bound)
    }

    /// Lets a socket be bound beside those that nobody has asked for. The supervisor's are left alone: they
    /// would stay open for ever, and nobody would accept from them. Returns `false` if none was shared.
    fn share(&self, address: SocketAddr) -> bool {
        let mut shared = false;
        for (entry, origin) in self.overlapping {
            if *origin == Origin::Supervisor || reuseport::share_port(entry.fd.as_fd()).is_err() {
                continue;
            }
            shared = true;
            log::write(Event::SocketShared {
                kind: self.wanted.kind.name(),
                address: &address,
                shared_with: &entry.socket.local,
            });
        }
        shared
    }

    fn path(&self, asked: &Address) -> Result<Entry> {
        let ToBind { wanted, settings, predecessors, .. } = *self;
        let path = unix_path::path_of(asked).expect("a path");
        let fail =
            |error| Error::io(ErrorKind::Socket, format!("cannot bind {path:?} (socket)"), error);
        let in_use = |hint| Err(fail(io::ErrorKind::AddrInUse.into()).hint(hint));
        match unix_path::occupant_of(&path, wanted.kind).map_err(fail)? {
            Occupant::Nobody => {}
            Occupant::NoSocket => return in_use("something that is no socket is there".to_owned()),
            Occupant::Somebody(who) if may_take_path(who, predecessors) => {}
            Occupant::Somebody(Some(pid)) => {
                return in_use(format!("process {pid}, which is no predecessor, listens there"));
            }
            Occupant::Somebody(None) => return in_use("somebody listens there".to_owned()),
        }
        let beside = match self.make {
            Some(make) => Beside::make(&path, settings, |temporary| {
                own::make(make, wanted.kind, Place::Path(temporary.to_owned()), settings)
            }),
            None => Beside::bind(wanted.kind, &path, settings),
        };
        let placed = beside.and_then(Beside::place);
        placed.and_then(|(fd, file)| self.describe(asked, fd, Some(file))).map_err(fail)
    }

    fn vsock(&self, asked: &Address, cid: u32, port: u32) -> Result<Entry> {
        let fd = match self.make {
            Some(make) => {
                own::make(make, SocketKind::Vsock, Place::Vsock { cid, port }, self.settings)
            }
            None => socket::bind_vsock(cid, port, self.settings),
        };
        fd.and_then(|fd| self.describe(asked, fd, None)).map_err(|error| {
            Error::io(ErrorKind::Socket, format!("cannot bind {asked} (socket)"), error)
        })
    }

    /// An entry for a socket that was bound just now.
    fn describe(&self, asked: &Address, fd: OwnedFd, file: Option<FileId>) -> io::Result<Entry> {
        let (kind, local) = socket::describe(fd.as_fd()).map_err(io::Error::other)?;
        let name = self.wanted.name.map(str::to_owned);
        Ok(entry(Socket { name, file, ..Socket::new(kind, asked.clone(), local) }, fd))
    }
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
