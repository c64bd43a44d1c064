//! The sockets of this process: what was passed to it, what it has taken over, what it holds for
//! its successor.
//!
//! `obtain` finds or binds what the program asks for, `bind` binds, `conflict` tells why it cannot, `stages`
//! does what each stage of a restart asks for, `adjust` changes sockets that others share, `give` gives
//! duplicates to the launcher for a keeper. `descriptors` are what the program keeps under names.

pub(in crate::driver) mod adjust;
pub(in crate::driver) mod bind;
mod conflict;
pub(crate) mod descriptors;
#[cfg(feature = "systemd")]
pub(in crate::driver) mod fdstore;
pub(crate) mod flows;
mod fresh;
pub(in crate::driver) mod give;
pub(in crate::driver) mod given;
pub(crate) mod obtain;
mod own;
pub(in crate::driver) mod stages;

use crate::driver::log::{self, sockets::Event};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::control::frame::{Address, Socket, SocketKind};
use crate::proto::sockets::passed::Passed;
use crate::proto::sockets::pool::{self, Found, Pool};
use crate::shutdown::lock;
use crate::sys::{descriptor, passed, socket, unix_path};
use flows::Flows;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

pub(crate) use own::{Adjust, Make, Own};
pub use own::{Place, ToMake};

pub(in crate::driver) type Entry = pool::Entry<Arc<OwnedFd>>;

/// The sockets of this process.
pub(in crate::driver) struct Sockets {
    /// Held by a call that asks for sockets, also while the program makes one.
    asking: Mutex<()>,
    /// Held by the call that takes over: a second one at the same time waits for it.
    taking: Mutex<()>,
    held: Mutex<Held>,
    /// Of the generation that serves while we wait in `init`, and its number. Used if that one dies.
    copies: Mutex<Option<(u64, Vec<Entry>)>>,
    /// How many descriptors systemd's store takes; 0 as long as that is unknown.
    store_room: AtomicUsize,
    /// Held while the store is told: one look at a time.
    storing: Mutex<()>,
}

/// All that this process has, and what came with it.
struct Held {
    pool: Pool<Arc<OwnedFd>>,
    /// Whose sockets these were.
    predecessor: Option<u64>,
    flows: Flows,
    /// Sockets whose O_NONBLOCK changes when this generation serves, and its new value.
    modes: Vec<(Entry, bool)>,
    /// What the program adjusts of sockets that others have bound, when this generation takes over.
    adjusts: Vec<(Entry, Adjust)>,
    /// How many sockets `fresh` has tried.
    tried: usize,
}

impl Sockets {
    pub(in crate::driver) const fn new() -> Sockets {
        let pool = Pool::new();
        let held = Held {
            pool,
            predecessor: None,
            flows: Flows::new(),
            modes: Vec::new(),
            adjusts: Vec::new(),
            tried: 0,
        };
        Sockets {
            asking: Mutex::new(()),
            taking: Mutex::new(()),
            held: Mutex::new(held),
            copies: Mutex::new(None),
            store_room: AtomicUsize::new(0),
            storing: Mutex::new(()),
        }
    }

    /// What a successor gets; `None` once the drain has begun.
    pub(in crate::driver) fn held(&self) -> Option<Vec<Entry>> {
        let held = lock(&self.held);
        let mut entries = held.pool.held()?;
        entries.extend(held.flows.held());
        Some(entries)
    }

    /// What a successor gets even then: without the sockets of steered groups it could not find the flows
    /// of this generation.
    pub(in crate::driver) fn flows(&self) -> Vec<Entry> {
        lock(&self.held).flows.held()
    }

    /// Does a successor need to find this generation, although it drains?
    pub(in crate::driver) fn has_flows(&self) -> bool {
        lock(&self.held).flows.is_used()
    }

    /// Does a socket of this process take what arrives at one of the predecessor, as soon as this one serves?
    pub(in crate::driver) fn replaces(&self) -> bool {
        lock(&self.held).pool.replaces()
    }

    /// What was kept before is closed.
    pub(in crate::driver) fn keep_copies(&self, copies: (u64, Vec<Entry>)) {
        *lock(&self.copies) = Some(copies);
    }

    pub(in crate::driver) fn take_copies(&self) -> Option<(u64, Vec<Entry>)> {
        lock(&self.copies).take()
    }

    /// The drain begins: from here on the program's own close is the last one in this process.
    pub(in crate::driver) fn let_go(&self) {
        let mut held = lock(&self.held);
        let gone = (held.pool.let_go(), std::mem::take(&mut held.adjusts));
        held.flows.learn_no_more();
        drop(held);
        drop(gone);
    }

    /// What was passed to this process or to its launcher. Called as early as can be, so that no
    /// program that is executed meanwhile inherits it.
    pub(in crate::driver) fn adopt_passed(&self, launcher: Option<i32>) {
        for found in passed::find(launcher) {
            match found {
                Ok(all) => all.into_iter().for_each(|one| self.adopt(one)),
                Err(why) => log::write(Event::PassedRefused { refused: &why }),
            }
        }
    }

    fn adopt(&self, one: Passed) {
        let Passed { number, name } = one;
        match adopt(number, name.as_deref()) {
            Ok((fd, kind, local)) => {
                log::write(Event::Passed {
                    number,
                    name: name.as_deref(),
                    kind: kind.name(),
                    address: &local,
                });
                let file = unix_path::path_of(&local).and_then(|path| unix_path::file_at(&path));
                let socket = Socket { name, file, ..Socket::new(kind, local.clone(), local) };
                lock(&self.held).pool.pass(entry(socket, fd));
            }
            Err(why) => {
                let name = name.as_deref();
                log::write(Event::PassedUnusable { number, name, refused: &why });
            }
        }
    }
}

/// A descriptor may be of any type if our name says that it is one of those that the program keeps.
fn adopt(number: i32, name: Option<&str>) -> Result<(OwnedFd, SocketKind, Address), String> {
    if cfg!(feature = "systemd") && name.is_some_and(crate::proto::sockets::fdstore::is_descriptor)
    {
        let fd = passed::adopt_any(number)?;
        return Ok((fd, SocketKind::Descriptor, Address::Name(String::new())));
    }
    passed::adopt(number)
}

/// What a call for sockets has got, and duplicates of it for the program.
type Obtained = (Vec<Found<Arc<OwnedFd>>>, Vec<OwnedFd>);

/// The program gets duplicates. The sockets themselves are held for the successor.
fn hand_out(found: &[Found<Arc<OwnedFd>>]) -> Result<Vec<OwnedFd>> {
    let duplicates = found.iter().map(|(entry, _)| socket::duplicate(entry.fd.as_fd()));
    duplicates
        .collect::<io::Result<_>>()
        .map_err(|error| Error::io(ErrorKind::Socket, "cannot duplicate a socket (socket)", error))
}

/// The descriptor itself; a duplicate, if somebody else holds it at this moment.
fn unwrap(fd: Arc<OwnedFd>) -> io::Result<OwnedFd> {
    Arc::try_unwrap(fd).or_else(|fd| socket::duplicate(fd.as_fd()))
}

pub(in crate::driver) fn entry(socket: Socket, fd: OwnedFd) -> Entry {
    let is_descriptor = socket.kind == SocketKind::Descriptor;
    let cookie = socket::cookie(fd.as_fd()).ok();
    let cookie = cookie.or_else(|| is_descriptor.then(descriptor::unique));
    let is_v6 = matches!(socket.local, Address::Inet(address) if address.is_ipv6());
    let only_v6 = is_v6 && socket::is_only_v6(fd.as_fd());
    Entry { socket, fd: Arc::new(fd), cookie, only_v6, outlives_crash: !is_descriptor }
}
