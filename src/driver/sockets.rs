//! The sockets of this process: what was passed to it, what it has taken over, what it holds for
//! its successor.

use super::DAEMON;
use super::journal::{Maybe, note};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::frame::{Address, Kind, Socket};
use crate::proto::passed;
use crate::shutdown::lock;
use crate::sockets::Wanted;
use crate::sys::process;
use crate::sys::socket::{self, Listener, Settings, SocketType};
use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};

pub(super) static POOL: Mutex<Pool> = Mutex::new(Pool::new());

/// A socket, and what a successor has to know of it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) socket: Socket,
    pub(super) fd: Arc<OwnedFd>,
}

pub(super) struct Pool {
    /// Somebody has asked for a socket: from then on what is not asked for is closed.
    used: bool,
    /// Passed by the supervisor, and not asked for so far.
    passed: Vec<Entry>,
    /// Asked for, and held for the successor.
    held: Vec<Entry>,
    /// The drain has begun: nothing is held any more.
    let_go: bool,
}

/// Where a socket came from.
#[derive(Clone, Copy, Debug)]
enum From {
    Supervisor,
    Bound,
}

impl From {
    fn name(self) -> &'static str {
        match self {
            From::Supervisor => "supervisor",
            From::Bound => "bound",
        }
    }
}

/// What was passed to this process or to its launcher. Called as early as can be, so that no
/// program that is executed meanwhile inherits it.
pub(super) fn adopt_passed(launcher: Option<i32>) {
    let variables = process::passed_variables();
    let own = process::own_pid();
    let meant_for = [launcher.unwrap_or(own), own];
    let passed = match passed::parse(variables.as_ref(), &meant_for) {
        Ok(passed) => passed,
        Err(why) => {
            return note!(Info, "stage=passed daemon={own} refused=\"{why}\"");
        }
    };
    let mut pool = lock(&POOL);
    for one in passed {
        let name = Maybe(one.name.as_deref());
        match socket::adopt_passed(one.number) {
            Ok((fd, kind, local)) => {
                note!(
                    Debug,
                    "stage=passed daemon={own} number={} name={name} kind={} address={local}",
                    one.number,
                    kind.name(),
                );
                let file = socket::path_of(&local).and_then(|path| socket::file_at(&path));
                let asked = local.clone();
                let socket =
                    Socket { kind, asked, name: one.name, member: 0, retired: false, local, file };
                pool.passed.push(Entry { socket, fd: Arc::new(fd) });
            }
            Err(why) => note!(
                Warn,
                "stage=passed daemon={own} number={} name={name} refused=\"{why}\"",
                one.number,
            ),
        }
    }
}

/// The sockets that the program asks for, found or bound. See [`crate::sockets`] for the order.
pub(crate) fn obtain(wanted: &Wanted<'_>) -> Result<Vec<OwnedFd>> {
    if DAEMON.get().is_none() {
        let text = "cannot find a socket (socket): init was not called, or failed";
        return Err(Error::new(ErrorKind::NotInitialized, text));
    }
    let mut pool = lock(&POOL);
    pool.used = true;
    pool.refuse_second(wanted)?;
    let count = wanted.group.unwrap_or(1);
    let mut found = pool.take_passed(wanted, count)?;
    let missing = count - found.len();
    if missing > 0 {
        found.extend(bind(wanted, &found, missing)?);
    }
    let handed = found.iter().map(|(entry, _)| socket::duplicate(entry.fd.as_fd()));
    let handed: Vec<OwnedFd> = handed.collect::<io::Result<_>>().map_err(|error| {
        Error::io(ErrorKind::Socket, "cannot duplicate a socket (socket)", error)
    })?;
    for (at, (mut entry, from)) in found.into_iter().enumerate() {
        entry.socket.member = at as u32;
        note_found(&entry, from, wanted);
        if !pool.let_go {
            pool.held.push(entry);
        }
    }
    Ok(handed)
}

fn note_found(entry: &Entry, from: From, wanted: &Wanted<'_>) {
    let Socket { kind, name, local, member, .. } = &entry.socket;
    note!(
        Info,
        "stage=socket daemon={} kind={} name={} address={local} member={} from={}",
        process::own_pid(),
        kind.name(),
        Maybe(name.as_deref()),
        Maybe(wanted.group.map(|count| format!("{}/{count}", member + 1))),
        from.name(),
    );
    let nonblocking = socket::is_nonblocking(entry.fd.as_fd());
    if nonblocking != wanted.settings.nonblocking {
        note!(
            Warn,
            "stage=socket daemon={} kind={} address={local} nonblocking={nonblocking} \
             reason=\"asked for otherwise; it is the socket's, and other processes share it\"",
            process::own_pid(),
            kind.name(),
        );
    }
}

impl Pool {
    const fn new() -> Pool {
        Pool { used: false, passed: Vec::new(), held: Vec::new(), let_go: false }
    }

    /// Guards against two servers in one process that would take each other's connections.
    fn refuse_second(&self, wanted: &Wanted<'_>) -> Result<()> {
        let name = wanted.name;
        let same = |entry: &&Entry| {
            let Socket { kind, asked, name: held, .. } = &entry.socket;
            *kind == wanted.kind
                && wanted.addresses.contains(asked)
                && (!asked.is_any_port() || held.as_deref() == name)
        };
        let Some(held) = self.held.iter().find(same) else {
            return Ok(());
        };
        let text = format!(
            "cannot bind {} {} (socket): this process has asked for it before",
            wanted.kind.name(),
            held.socket.asked,
        );
        let error = Error::io(ErrorKind::Socket, text, io::ErrorKind::AddrInUse.into());
        Err(if held.socket.asked.is_any_port() {
            error.hint("sockets with port 0 are told apart by their names")
        } else {
            error
        })
    }

    /// By name, else by kind and address; no more than are wanted.
    fn take_passed(&mut self, wanted: &Wanted<'_>, count: usize) -> Result<Vec<(Entry, From)>> {
        let named =
            |entry: &Entry| wanted.name.is_some() && entry.socket.name.as_deref() == wanted.name;
        let address = match self.passed.iter().find(|entry| named(entry)) {
            Some(entry) if entry.socket.kind != wanted.kind => {
                let text = format!(
                    "cannot use {:?} (socket): the supervisor passed a {} socket at {} under this \
                     name, not a {} socket",
                    wanted.name.unwrap_or_default(),
                    entry.socket.kind.name(),
                    entry.socket.local,
                    wanted.kind.name(),
                );
                return Err(Error::new(ErrorKind::Socket, text));
            }
            Some(entry) => Some(entry.socket.local.clone()),
            None => wanted
                .addresses
                .iter()
                .find(|address| self.is_passed(wanted.kind, address))
                .cloned(),
        };
        let Some(address) = address else {
            return Ok(Vec::new());
        };
        // It is handed on under the address that was asked for.
        let asked = wanted.addresses.iter().find(|asked| **asked == address);
        let asked = asked.unwrap_or(&wanted.addresses[0]).clone();
        let mut found = Vec::new();
        for entry in mem::take(&mut self.passed) {
            let Socket { kind, local, .. } = &entry.socket;
            if found.len() < count && *kind == wanted.kind && *local == address {
                let socket = Socket { asked: asked.clone(), ..entry.socket };
                found.push((Entry { socket, ..entry }, From::Supervisor));
            } else {
                self.passed.push(entry);
            }
        }
        Ok(found)
    }

    fn is_passed(&self, kind: Kind, address: &Address) -> bool {
        self.passed.iter().any(|one| one.socket.kind == kind && one.socket.local == *address)
    }

    /// Closes what nobody has asked for.
    fn close_unclaimed(&mut self) {
        if !self.used {
            return; // a program that finds its passed sockets by itself
        }
        for entry in mem::take(&mut self.passed) {
            let Socket { kind, name, local, .. } = &entry.socket;
            note!(
                Info,
                "stage=socket daemon={} kind={} name={} address={local} from=supervisor closed=\"not \
                 asked for\"",
                process::own_pid(),
                kind.name(),
                Maybe(name.as_deref()),
            );
        }
    }
}

/// Binds what is missing.
fn bind(
    wanted: &Wanted<'_>,
    found: &[(Entry, From)],
    missing: usize,
) -> Result<Vec<(Entry, From)>> {
    let mut failure = None;
    for asked in &wanted.addresses {
        let bound = match asked {
            Address::Inet(_) => bind_members(wanted, asked, found, missing),
            Address::Unix(_) => bind_path(wanted, asked).map(|entry| vec![entry]),
        };
        match bound {
            Ok(bound) => return Ok(bound.into_iter().map(|entry| (entry, From::Bound)).collect()),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.expect("an address was tried"))
}

/// All at the port of the first.
fn bind_members(
    wanted: &Wanted<'_>,
    asked: &Address,
    found: &[(Entry, From)],
    missing: usize,
) -> Result<Vec<Entry>> {
    let reuse_port = wanted.settings.reuse_port || wanted.group.is_some();
    let settings = Settings { reuse_port, ..wanted.settings };
    let mut bound: Vec<Entry> = Vec::new();
    for _ in 0..missing {
        let first = found.iter().map(|(entry, _)| entry).chain(&bound).next();
        let address = first.map_or(asked, |entry| &entry.socket.local);
        let fail = |error| {
            let text = format!("cannot bind {} {address} (socket)", wanted.kind.name());
            Error::io(ErrorKind::Socket, text, error)
        };
        let Address::Inet(address) = address else { unreachable!("of one kind") };
        let fd = socket::bind(wanted.kind, *address, settings).map_err(fail)?;
        let entry = describe(wanted, asked, fd, None).map_err(|why| fail(io::Error::other(why)))?;
        bound.push(entry);
    }
    Ok(bound)
}

fn bind_path(wanted: &Wanted<'_>, asked: &Address) -> Result<Entry> {
    let path = socket::path_of(asked).expect("a path");
    let ty = match wanted.kind {
        Kind::UnixDatagram => SocketType::Datagram,
        Kind::Unix | Kind::Tcp | Kind::Udp => SocketType::Stream,
    };
    let fail =
        |error| Error::io(ErrorKind::Socket, format!("cannot bind {path:?} (socket)"), error);
    match socket::listener_at(&path, ty).map_err(fail)? {
        Listener::Nobody => {}
        Listener::NoSocket => {
            return Err(
                fail(io::ErrorKind::AddrInUse.into()).hint("something that is no socket is there")
            );
        }
        Listener::Somebody(pid) => {
            if !may_replace(&path, pid) {
                let who = pid.map_or("somebody".to_owned(), |pid| format!("process {pid}"));
                let hint = format!("{who}, which is no predecessor, listens there");
                return Err(fail(io::ErrorKind::AddrInUse.into()).hint(hint));
            }
        }
    }
    let (fd, file) = socket::bind_path(ty, &path, wanted.settings).map_err(fail)?;
    describe(wanted, asked, fd, Some(file)).map_err(|why| fail(io::Error::other(why)))
}

/// Is the process that listens there a predecessor of ours, which hands nothing over?
fn may_replace(_path: &Path, _pid: Option<i32>) -> bool {
    false
}

/// An entry for a socket that was bound just now.
fn describe(
    wanted: &Wanted<'_>,
    asked: &Address,
    fd: OwnedFd,
    file: Option<crate::proto::frame::FileId>,
) -> Result<Entry, String> {
    let (kind, local) = socket::describe(fd.as_fd())?;
    let socket = Socket {
        kind,
        asked: asked.clone(),
        name: wanted.name.map(str::to_owned),
        member: 0,
        retired: false,
        local,
        file,
    };
    Ok(Entry { socket, fd: Arc::new(fd) })
}

pub(crate) fn inherited() -> Option<Vec<u8>> {
    None
}

pub(crate) fn inherited_from() -> Option<u64> {
    None
}

/// `started` is through.
pub(super) fn started() {
    lock(&POOL).close_unclaimed();
}

/// The drain begins: from here on the program's own close is the last one in this process.
pub(super) fn let_go() {
    let held = {
        let mut pool = lock(&POOL);
        pool.let_go = true;
        mem::take(&mut pool.held)
    };
    drop(held);
}
