//! The sockets of this process: what was passed to it, what it has taken over, what it holds for
//! its successor.

use super::DAEMON;
use super::handover::{self, Taken};
use super::journal::{Maybe, note};
use super::service::Predecessor;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::daemon::Phase;
use crate::proto::frame::{Address, FileId, Kind, Socket};
use crate::proto::passed;
#[cfg(feature = "systemd")]
use crate::proto::stored;
use crate::shutdown::lock;
use crate::sockets::Wanted;
use crate::sys::process::{self, Held};
use crate::sys::socket::{self, Beside, Listener, Settings, SocketType};
use std::collections::{HashMap, HashSet};
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

/// As long as names are that a supervisor passes (`sd_listen_fds_with_names(3)`).
const NAME_MAX: usize = 255;

static POOL: Mutex<Pool> = Mutex::new(Pool::new());
/// Held by the call that takes over: a second one at the same time waits for it. Before the files
/// of the service and before the pool, which is never held while one of the others is awaited.
static TAKING: Mutex<()> = Mutex::new(());

/// A socket, and what a successor has to know of it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) socket: Socket,
    pub(super) fd: Arc<OwnedFd>,
}

/// By what a program asks for a socket: an address with a port is one socket whatever its name.
type Key = (Kind, Address, Option<String>);

struct Pool {
    /// Somebody has asked for a socket: from then on what is not asked for is closed.
    used: bool,
    /// Passed by the supervisor, and not asked for so far.
    passed: Vec<Entry>,
    /// The cookies of all that were passed: the supervisor keeps them itself.
    of_supervisor: Vec<u64>,
    /// From the supervisor's store, and not asked for so far.
    stored: Vec<Entry>,
    /// All that were in the store at the start: their names there, and their cookies.
    #[cfg(feature = "systemd")]
    in_store: Vec<(String, u64)>,
    /// What the predecessor held, and may have put there since: known as above.
    #[cfg(feature = "systemd")]
    of_predecessor: Vec<(String, u64)>,
    /// The predecessor was asked, or there was none to ask.
    taken: bool,
    /// Whose sockets these were.
    predecessor: Option<u64>,
    /// Held by the predecessor, and not asked for so far.
    received: Option<HashMap<Key, Vec<Entry>>>,
    /// What the predecessor handed over beside them.
    state: Option<Vec<u8>>,
    /// Asked for, and held for the successor; and the retired members of groups.
    held: Vec<Entry>,
    /// What was asked for, so that nothing is asked for twice.
    asked: Option<HashSet<Key>>,
    /// What is to be done to groups as soon as this generation serves.
    groups: Vec<(Entry, Spread)>,
    /// The drain has begun: nothing is held any more.
    let_go: bool,
}

/// Between which members of a group the kernel spreads what arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spread {
    All,
    First(u32),
}

/// Where a socket came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Supervisor,
    Predecessor,
    Store,
    Bound,
}

impl Origin {
    fn name(self) -> &'static str {
        match self {
            Origin::Supervisor => "supervisor",
            Origin::Predecessor => "predecessor",
            Origin::Store => "store",
            Origin::Bound => "bound",
        }
    }
}

// ---- found ----

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
                pool.pass(Entry { socket, fd: Arc::new(fd) });
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
    let Some(daemon) = DAEMON.get() else {
        let text = "cannot find a socket (socket): init was not called, or failed";
        return Err(Error::new(ErrorKind::NotInitialized, text));
    };
    if wanted.name.is_some_and(|name| name.len() > NAME_MAX) {
        let text = format!("cannot use a name of more than {NAME_MAX} bytes (socket)");
        return Err(Error::new(ErrorKind::Socket, text));
    }
    lock(&POOL).used = true;
    take_over()?;
    let is_path = matches!(wanted.kind, Kind::Unix | Kind::UnixDatagram);
    let predecessors = match &daemon.service {
        Some(service) if is_path => service.predecessors()?,
        Some(_) | None => Vec::new(),
    };
    let mut pool = lock(&POOL);
    pool.refuse_second(wanted)?;
    let count = wanted.group.unwrap_or(1);
    let mut found = pool.take_passed(wanted, count)?;
    if found.len() < count {
        found.extend(pool.take_received(wanted));
    }
    if found.is_empty() {
        found = pool.take_stored(wanted, count);
    }
    let had = found.len();
    if had < count {
        let active = found.iter().filter(|(entry, _)| !entry.socket.retired).count();
        match bind(wanted, &found, count - had, active as u32, &predecessors) {
            Ok(bound) => found.extend(bound.into_iter().map(|entry| (entry, Origin::Bound))),
            Err(error) => {
                pool.put_back(found);
                return Err(error);
            }
        }
    }
    let handed = found[..count].iter().map(|(entry, _)| socket::duplicate(entry.fd.as_fd()));
    let handed = handed
        .collect::<io::Result<Vec<OwnedFd>>>()
        .map_err(|error| Error::io(ErrorKind::Socket, "cannot duplicate a socket (socket)", error));
    let handed = match handed {
        Ok(handed) => handed,
        Err(error) => {
            pool.put_back(found);
            return Err(error);
        }
    };
    if wanted.group.is_some() || found.len() > count {
        let spread = if found.len() > count { Spread::First(count as u32) } else { Spread::All };
        pool.spread(found[0].0.clone(), spread, daemon.phase());
    }
    for (at, (mut entry, origin)) in found.into_iter().enumerate() {
        entry.socket.member = at as u32;
        entry.socket.retired = at >= count;
        pool.hold(entry, origin, wanted);
    }
    Ok(handed)
}

/// Takes over from the predecessor, once.
fn take_over() -> Result<()> {
    let _one_at_a_time = lock(&TAKING);
    if lock(&POOL).taken {
        return Ok(());
    }
    let Some(daemon) = DAEMON.get() else { return Ok(()) };
    let taken = match &daemon.service {
        Some(service) if daemon.phase() == Phase::Starting => handover::take(service)?,
        Some(_) | None => Taken::default(),
    };
    let mut pool = lock(&POOL);
    pool.taken = true;
    pool.predecessor = taken.generation;
    pool.state = taken.state;
    // What the supervisor has passed to both of us is the same socket: the supervisor's counts. Of
    // what lies in its store the predecessor's counts: it knows more of it.
    let passed: HashSet<u64> = pool.passed.iter().filter_map(cookie).collect();
    let mut known = passed.clone();
    for entry in taken.entries {
        let cookie = cookie(&entry);
        known.extend(cookie);
        #[cfg(feature = "systemd")]
        pool.of_predecessor.extend(cookie.map(|cookie| (stored::name(&entry.socket), cookie)));
        if cookie.is_none_or(|cookie| !passed.contains(&cookie)) {
            pool.receive(entry);
        }
    }
    pool.stored.retain(|entry| cookie(entry).is_none_or(|cookie| !known.contains(&cookie)));
    Ok(())
}

impl Pool {
    const fn new() -> Pool {
        Pool {
            used: false,
            passed: Vec::new(),
            of_supervisor: Vec::new(),
            stored: Vec::new(),
            #[cfg(feature = "systemd")]
            in_store: Vec::new(),
            #[cfg(feature = "systemd")]
            of_predecessor: Vec::new(),
            taken: false,
            predecessor: None,
            received: None,
            state: None,
            held: Vec::new(),
            asked: None,
            groups: Vec::new(),
            let_go: false,
        }
    }

    /// Guards against two servers in one process that would take each other's connections.
    fn refuse_second(&self, wanted: &Wanted<'_>) -> Result<()> {
        let Some(asked) = wanted.addresses.iter().find(|address| {
            self.asked
                .as_ref()
                .is_some_and(|asked| asked.contains(&key(wanted.kind, address, wanted.name)))
        }) else {
            return Ok(());
        };
        let text = format!(
            "cannot bind {} {asked} (socket): this process has asked for it before",
            wanted.kind.name(),
        );
        let error = Error::io(ErrorKind::Socket, text, io::ErrorKind::AddrInUse.into());
        Err(if asked.is_any_port() {
            error.hint("sockets with port 0 are told apart by their names")
        } else {
            error
        })
    }

    /// By name, else by kind and address; no more than are wanted.
    fn take_passed(&mut self, wanted: &Wanted<'_>, count: usize) -> Result<Vec<(Entry, Origin)>> {
        let named =
            |entry: &&Entry| wanted.name.is_some() && entry.socket.name.as_deref() == wanted.name;
        let address = match self.passed.iter().find(named) {
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
            None => {
                let is_passed = |address: &&Address| {
                    let mut passed = self.passed.iter().map(|entry| &entry.socket);
                    passed.any(|one| one.kind == wanted.kind && one.local == **address)
                };
                wanted.addresses.iter().find(is_passed).cloned()
            }
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
                found.push((Entry { socket, ..entry }, Origin::Supervisor));
            } else {
                self.passed.push(entry);
            }
        }
        Ok(found)
    }

    /// By kind and the address as it was asked for, port 0 also by name; in the order of the group.
    fn take_received(&mut self, wanted: &Wanted<'_>) -> Vec<(Entry, Origin)> {
        let Some(received) = &mut self.received else { return Vec::new() };
        for address in &wanted.addresses {
            let key = key(wanted.kind, address, wanted.name);
            let Some(entries) = received.remove(&key) else { continue };
            let (lost, mut found): (Vec<Entry>, Vec<Entry>) =
                entries.into_iter().partition(has_lost_its_path);
            if !lost.is_empty() {
                received.insert(key, lost);
            }
            if !found.is_empty() {
                found.sort_by_key(|entry| entry.socket.member);
                return found.into_iter().map(|entry| (entry, Origin::Predecessor)).collect();
            }
        }
        Vec::new()
    }

    /// One that was passed.
    fn pass(&mut self, entry: Entry) {
        let cookie = cookie(&entry);
        #[cfg(feature = "systemd")]
        if let Some(name) = entry.socket.name.clone().filter(|name| stored::is_ours(name)) {
            self.in_store.extend(cookie.map(|cookie| (name, cookie)));
            self.stored.push(entry);
            return;
        }
        self.of_supervisor.extend(cookie);
        self.passed.push(entry);
    }

    /// What the store has under this request's names: all members of a group that there are, in
    /// order. A predecessor, where there was one, handed over the same sockets itself.
    #[cfg(feature = "systemd")]
    fn take_stored(&mut self, wanted: &Wanted<'_>, count: usize) -> Vec<(Entry, Origin)> {
        let mut found = Vec::new();
        for asked in &wanted.addresses {
            while found.len() < count {
                let member = found.len() as u32;
                let stem = stored::stem(wanted.kind, asked, wanted.name, member);
                let is_it = |entry: &Entry| {
                    let name = entry.socket.name.as_deref();
                    entry.socket.kind == wanted.kind
                        && name.is_some_and(|name| stored::has_stem(name, &stem))
                };
                let Some(at) = self.stored.iter().position(is_it) else { break };
                let Entry { socket, fd } = self.stored.swap_remove(at);
                let file = socket.name.as_deref().and_then(stored::file);
                let name = wanted.name.map(str::to_owned);
                let socket = Socket { asked: asked.clone(), name, member, file, ..socket };
                let entry = Entry { socket, fd };
                if has_lost_its_path(&entry) {
                    break;
                }
                found.push((entry, Origin::Store));
            }
            if !found.is_empty() {
                break;
            }
        }
        found
    }

    #[cfg(not(feature = "systemd"))]
    fn take_stored(&mut self, _: &Wanted<'_>, _: usize) -> Vec<(Entry, Origin)> {
        Vec::new()
    }

    /// What was found for a request that failed all the same may be asked for again.
    fn put_back(&mut self, found: Vec<(Entry, Origin)>) {
        for (entry, origin) in found {
            match origin {
                Origin::Supervisor => self.passed.push(entry),
                // As it is known now: under the address that was asked for.
                Origin::Predecessor | Origin::Store => self.receive(entry),
                Origin::Bound => {}
            }
        }
    }

    fn receive(&mut self, entry: Entry) {
        let Socket { kind, asked, name, .. } = &entry.socket;
        let key = key(*kind, asked, name.as_deref());
        self.received.get_or_insert_default().entry(key).or_default().push(entry);
    }

    fn hold(&mut self, entry: Entry, origin: Origin, wanted: &Wanted<'_>) {
        note_found(&entry, origin, wanted);
        let asked = key(wanted.kind, &entry.socket.asked, wanted.name);
        self.asked.get_or_insert_default().insert(asked);
        if !self.let_go {
            self.held.push(entry);
        }
    }

    /// Before this generation serves, the groups stay as the predecessor has them.
    fn spread(&mut self, member: Entry, spread: Spread, phase: Phase) {
        if phase == Phase::Starting {
            self.groups.push((member, spread));
        } else {
            steer(&member, spread);
        }
    }

    /// Closes what nobody has asked for.
    fn close_unclaimed(&mut self) {
        if !self.used && !self.taken {
            return; // a program that finds its passed sockets by itself
        }
        let passed = mem::take(&mut self.passed);
        let received = self.received.take().unwrap_or_default().into_values().flatten();
        let stored = mem::take(&mut self.stored).into_iter().map(|entry| (entry, Origin::Store));
        let unclaimed = passed.into_iter().map(|entry| (entry, Origin::Supervisor)).chain(stored);
        for (entry, origin) in unclaimed.chain(received.map(|entry| (entry, Origin::Predecessor))) {
            let Socket { kind, name, local, .. } = &entry.socket;
            note!(
                Info,
                "stage=socket daemon={} kind={} name={} address={local} from={} closed=\"not asked \
                 for\"",
                process::own_pid(),
                kind.name(),
                Maybe(name.as_deref()),
                origin.name(),
            );
        }
    }
}

fn cookie(entry: &Entry) -> Option<u64> {
    socket::cookie(entry.fd.as_fd()).ok()
}

fn key(kind: Kind, address: &Address, name: Option<&str>) -> Key {
    let name = name.filter(|_| address.is_any_port()).map(str::to_owned);
    (kind, address.clone(), name)
}

/// Guards against a listener that nobody can reach any more: its path was removed, or names another
/// socket.
fn has_lost_its_path(entry: &Entry) -> bool {
    let Socket { asked, local, file, .. } = &entry.socket;
    let Some(path) = socket::path_of(asked) else { return false };
    let there = socket::file_at(&path);
    let lost = match file {
        // One that was passed by name may be bound to another path than the one asked for.
        Some(file) => {
            there != Some(*file)
                && socket::path_of(local).is_none_or(|path| socket::file_at(&path) != Some(*file))
        }
        None => there.is_none() && socket::path_of(local).is_some(),
    };
    if lost {
        note!(
            Warn,
            "stage=socket daemon={} kind={} address={asked} from=predecessor refused=\"its path no \
             longer names it: bound anew\"",
            process::own_pid(),
            entry.socket.kind.name(),
        );
    }
    lost
}

fn note_found(entry: &Entry, origin: Origin, wanted: &Wanted<'_>) {
    let Socket { kind, name, asked, local, member, retired, .. } = &entry.socket;
    let own = process::own_pid();
    // A path may have been bound under another name.
    let local = if matches!(kind, Kind::Unix | Kind::UnixDatagram) { asked } else { local };
    note!(
        Info,
        "stage=socket daemon={own} kind={} name={} address={local} member={} from={}{}",
        kind.name(),
        Maybe(name.as_deref()),
        Maybe(wanted.group.map(|count| format!("{}/{count}", member + 1))),
        origin.name(),
        if *retired { " retired=\"one too many: nothing new goes to it\"" } else { "" },
    );
    let nonblocking = socket::is_nonblocking(entry.fd.as_fd());
    if nonblocking != wanted.settings.nonblocking {
        note!(
            Warn,
            "stage=socket daemon={own} kind={} address={local} nonblocking={nonblocking} \
             reason=\"asked for otherwise, but other processes share it\"",
            kind.name(),
        );
    }
}

// ---- bound ----

/// Binds what is missing, at the first address that can be bound.
fn bind(
    wanted: &Wanted<'_>,
    found: &[(Entry, Origin)],
    missing: usize,
    active: u32,
    predecessors: &[Predecessor],
) -> Result<Vec<Entry>> {
    let mut failure = None;
    for asked in &wanted.addresses {
        let bound = match (asked, found) {
            (Address::Unix(_), _) => bind_path(wanted, asked, predecessors).map(|one| vec![one]),
            (Address::Inet(address), []) => bind_members(wanted, asked, *address, missing),
            (Address::Inet(_), [(first, _), ..]) => {
                let Address::Inet(port) = first.socket.local else { unreachable!("of one kind") };
                return join(wanted, found, port, missing, active);
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
    found: &[(Entry, Origin)],
    port: SocketAddr,
    missing: usize,
    active: u32,
) -> Result<Vec<Entry>> {
    let first = &found[0].0;
    for (entry, _) in found {
        socket::share_port(entry.fd.as_fd()).map_err(|error| {
            let text = format!("cannot share {} {port} (socket)", wanted.kind.name());
            Error::io(ErrorKind::Socket, text, error)
        })?;
    }
    let is_group = socket::steer_to_first(first.fd.as_fd(), wanted.kind, active).is_ok();
    let asked = &first.socket.asked;
    let mut bound = bind_members(wanted, asked, port, 1)?;
    if !is_group {
        // The first was alone, and a group begins with the second.
        steer(first, Spread::First(active));
    }
    bound.extend(bind_members(wanted, asked, port, missing - 1)?);
    Ok(bound)
}

/// All at one port, which is the first one's where the system chooses.
fn bind_members(
    wanted: &Wanted<'_>,
    asked: &Address,
    mut address: SocketAddr,
    count: usize,
) -> Result<Vec<Entry>> {
    let reuse_port = wanted.settings.reuse_port || wanted.group.is_some();
    let settings = Settings { reuse_port, ..wanted.settings };
    let mut bound: Vec<Entry> = Vec::new();
    for _ in 0..count {
        let fail = |error| {
            let text = format!("cannot bind {} {address} (socket)", wanted.kind.name());
            Error::io(ErrorKind::Socket, text, error)
        };
        let fd = match socket::bind(wanted.kind, address, settings) {
            Err(error) if error.raw_os_error() == Some(socket::TOO_MANY_FILES) => {
                socket::make_room(2 * count as u64);
                socket::bind(wanted.kind, address, settings)
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

fn bind_path(wanted: &Wanted<'_>, asked: &Address, predecessors: &[Predecessor]) -> Result<Entry> {
    let path = socket::path_of(asked).expect("a path");
    let ty = match wanted.kind {
        Kind::UnixDatagram => SocketType::Datagram,
        Kind::Unix | Kind::Tcp | Kind::Udp => SocketType::Stream,
    };
    let fail =
        |error| Error::io(ErrorKind::Socket, format!("cannot bind {path:?} (socket)"), error);
    let in_use = |hint| Err(fail(io::ErrorKind::AddrInUse.into()).hint(hint));
    match socket::listener_at(&path, ty).map_err(fail)? {
        Listener::Nobody => {}
        Listener::NoSocket => return in_use("something that is no socket is there".to_owned()),
        Listener::Somebody(Some(pid)) if predecessors.iter().any(|one| one.pid == pid) => {}
        Listener::Somebody(Some(pid)) => {
            return in_use(format!("process {pid}, which is no predecessor, listens there"));
        }
        // The kernel does not say who; a predecessor may.
        Listener::Somebody(None) if !predecessors.is_empty() => {}
        Listener::Somebody(None) => return in_use("somebody listens there".to_owned()),
    }
    let bound = Beside::bind(ty, &path, wanted.settings).and_then(Beside::place);
    let (fd, file) = bound.map_err(fail)?;
    describe(wanted, asked, fd, Some(file)).map_err(|why| fail(io::Error::other(why)))
}

/// An entry for a socket that was bound just now.
fn describe(
    wanted: &Wanted<'_>,
    asked: &Address,
    fd: OwnedFd,
    file: Option<FileId>,
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

fn steer(member: &Entry, spread: Spread) {
    let Socket { kind, local, .. } = &member.socket;
    let steered = match spread {
        Spread::All => socket::steer_to_all(member.fd.as_fd()),
        Spread::First(members) => socket::steer_to_first(member.fd.as_fd(), *kind, members),
    };
    if let Err(error) = steered {
        note!(
            Warn,
            "stage=socket daemon={} kind={} address={local} error=\"{error}\" reason=\"cannot choose \
             among the members of a group: what still arrives at those that close is lost\"",
            process::own_pid(),
            kind.name(),
        );
    }
}

// ---- the state ----

pub(crate) fn inherited() -> Option<Vec<u8>> {
    take_over_or_log();
    lock(&POOL).state.take()
}

pub(crate) fn inherited_from() -> Option<u64> {
    take_over_or_log();
    lock(&POOL).predecessor
}

fn take_over_or_log() {
    if let Err(error) = take_over() {
        note!(Error, "stage=takeover daemon={} error=\"{error}\"", process::own_pid());
    }
}

// ---- the stages ----

/// This generation serves, and no older one has been told to end yet.
pub(super) fn serving() {
    let groups = mem::take(&mut lock(&POOL).groups);
    for (member, spread) in groups {
        steer(&member, spread);
    }
}

/// `started` is through; these older generations end.
pub(super) fn started(older: Vec<Held>) {
    let has_retired = {
        let mut pool = lock(&POOL);
        pool.close_unclaimed();
        pool.held.iter().any(|entry| entry.socket.retired)
    };
    if has_retired && older.is_empty() {
        close_retired(); // nobody is left to answer what waits there
    } else if has_retired {
        // As long as one that accepts from it may live: the kernel closes up the ranks of a group
        // when a member goes, and those that stay must keep their places.
        handover::retire_after(older);
    }
}

/// Closes the retired members of groups, the last one first.
pub(super) fn close_retired() {
    let mut retired = Vec::new();
    let mut pool = lock(&POOL);
    for entry in mem::take(&mut pool.held) {
        if entry.socket.retired {
            retired.push(entry);
        } else {
            pool.held.push(entry);
        }
    }
    drop(pool);
    retired.sort_by_key(|entry| entry.socket.member);
    while let Some(entry) = retired.pop() {
        let Socket { kind, local, member, .. } = &entry.socket;
        note!(
            Info,
            "stage=socket daemon={} kind={} address={local} member={} closed=\"the older generations \
             have ended\"",
            process::own_pid(),
            kind.name(),
            member + 1,
        );
    }
}

/// What a successor gets; `None` once the drain has begun.
pub(super) fn held() -> Option<Vec<Entry>> {
    let pool = lock(&POOL);
    (!pool.let_go).then(|| pool.held.clone())
}

/// What is to become of the supervisor's store.
#[cfg(feature = "systemd")]
pub(super) struct Store {
    /// These are not held any more, or stand for another socket now.
    pub(super) remove: Vec<String>,
    pub(super) add: Vec<(String, Arc<OwnedFd>)>,
    /// How many are in it and stay.
    pub(super) kept: usize,
}

/// All that is held and serves is to be in the store, but what the supervisor keeps anyway, and
/// nothing else. Afterwards the store counts as being so.
#[cfg(feature = "systemd")]
pub(super) fn to_store() -> Store {
    let mut pool = lock(&POOL);
    let wanted: Vec<(String, u64, Arc<OwnedFd>)> = pool
        .held
        .iter()
        .filter(|entry| !entry.socket.retired)
        .filter_map(|entry| Some((stored::name(&entry.socket), cookie(entry)?, entry.fd.clone())))
        .filter(|(_, cookie, _)| !pool.of_supervisor.contains(cookie))
        .collect();
    let is_in = |set: &[(String, u64)], name: &str, cookie| {
        set.iter().any(|(one, other)| one == name && *other == cookie)
    };
    let now: Vec<(String, u64)> =
        wanted.iter().map(|(name, cookie, _)| (name.clone(), *cookie)).collect();
    let before = mem::replace(&mut pool.in_store, now.clone());
    let earlier = mem::take(&mut pool.of_predecessor);
    let mut remove: Vec<String> = before
        .iter()
        .chain(&earlier)
        .filter(|(name, cookie)| !is_in(&now, name, *cookie))
        .map(|(name, _)| name.clone())
        .collect();
    remove.sort();
    remove.dedup();
    // What goes by its name takes all of that name with it.
    let in_place = |name: &String, cookie| is_in(&before, name, cookie) && !remove.contains(name);
    let add: Vec<(String, Arc<OwnedFd>)> = wanted
        .into_iter()
        .filter(|(name, cookie, _)| !in_place(name, *cookie))
        .map(|(name, _, fd)| (name, fd))
        .collect();
    Store { kept: now.len() - add.len(), remove, add }
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
