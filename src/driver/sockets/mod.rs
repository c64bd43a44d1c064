//! The sockets of this process: what was passed to it, what it has taken over, what it holds for
//! its successor.

#[cfg(feature = "systemd")]
pub(super) mod fdstore;

use crate::driver::DAEMON;
use crate::driver::control::{self, Taken};
use crate::driver::daemon::Daemon;
use crate::driver::log::{Maybe, note};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::control::frame::{Address, FileId, Socket, SocketKind};
use crate::proto::control::transfer::Predecessor;
use crate::proto::daemon::Phase;
use crate::proto::sockets::passed;
#[cfg(feature = "systemd")]
use crate::proto::sockets::pool::Store;
use crate::proto::sockets::pool::{self, Origin, Pool, Spread, Wanted};
use crate::shutdown::lock;
use crate::sys::process::{self, Held};
use crate::sys::socket::{self, Settings};
use crate::sys::unix_path::{self, Beside, Occupant, SocketType};
use crate::sys::{reuseport, rlimit};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

/// As long as names are that a supervisor passes (`sd_listen_fds_with_names(3)`).
const NAME_MAX: usize = 255;

static POOL: Mutex<State> = Mutex::new(State { pool: Pool::new(), predecessor: None, state: None });
/// Held by the call that takes over: a second one at the same time waits for it. Before the files
/// of the service and before the pool, which is never held while one of the others is awaited.
static TAKING: Mutex<()> = Mutex::new(());

pub(in crate::driver) type Entry = pool::Entry<Arc<OwnedFd>>;

/// All that this process has, and what came with it.
struct State {
    pool: Pool<Arc<OwnedFd>>,
    /// Whose sockets these were.
    predecessor: Option<u64>,
    /// What the predecessor handed over beside them.
    state: Option<Vec<u8>>,
}

// ---- found ----

/// What was passed to this process or to its launcher. Called as early as can be, so that no
/// program that is executed meanwhile inherits it.
pub(in crate::driver) fn adopt_passed(launcher: Option<i32>) {
    let variables = socket::passed_variables();
    let own = process::own_pid();
    let meant_for = [launcher.unwrap_or(own), own];
    let passed = match passed::parse(variables.as_ref(), &meant_for) {
        Ok(passed) => passed,
        Err(why) => {
            return note!(Info, "stage=passed daemon={own} refused=\"{why}\"");
        }
    };
    let pool = &mut lock(&POOL).pool;
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
                let file = unix_path::path_of(&local).and_then(|path| unix_path::file_at(&path));
                let asked = local.clone();
                let socket =
                    Socket { kind, asked, name: one.name, member: 0, retired: false, local, file };
                pool.pass(entry(socket, fd));
            }
            Err(why) => note!(
                Warn,
                "stage=passed daemon={own} number={} name={name} refused=\"{why}\"",
                one.number,
            ),
        }
    }
}

/// The sockets that the program asks for, found or bound. See [`crate::sockets`] for the order. Who
/// was told to stop while it starts does not return: the older generations that it waits for still
/// have the addresses, and a program that ended with that error would end before them.
pub(crate) fn obtain(wanted: &Wanted<'_>, settings: Settings) -> Result<Vec<OwnedFd>> {
    let Some(daemon) = DAEMON.get() else {
        let text = "cannot find a socket (socket): init was not called, or failed";
        return Err(Error::new(ErrorKind::NotInitialized, text));
    };
    park_if_ending(daemon);
    let found = find_or_bind(daemon, wanted, settings);
    if found.is_err() {
        park_if_ending(daemon);
    }
    found
}

fn park_if_ending(daemon: &Daemon) {
    if let (Some(service), Phase::StoppingEarly | Phase::Ended) = (&daemon.service, daemon.phase())
    {
        service.never_started();
    }
}

fn find_or_bind(daemon: &Daemon, wanted: &Wanted<'_>, settings: Settings) -> Result<Vec<OwnedFd>> {
    if wanted.name.is_some_and(|name| name.len() > NAME_MAX) {
        let text = format!("cannot use a name of more than {NAME_MAX} bytes (socket)");
        return Err(Error::new(ErrorKind::Socket, text));
    }
    lock(&POOL).pool.use_it();
    take_over()?;
    let is_path = matches!(wanted.kind, SocketKind::Unix | SocketKind::UnixDatagram);
    let predecessors = match &daemon.service {
        Some(service) if is_path => {
            service.predecessors()?.into_iter().map(|one| one.about).collect()
        }
        Some(_) | None => Vec::new(),
    };
    let pool = &mut lock(&POOL).pool;
    if let Some(asked) = pool.asked_before(wanted) {
        return Err(asked_before(wanted, asked));
    }
    let count = wanted.count();
    let found = pool.find(wanted, has_lost_its_path);
    let mut found = found.map_err(|passed| of_another_kind(wanted, &passed))?;
    let had = found.len();
    if had < count {
        let active = found.iter().filter(|(entry, _)| !entry.socket.retired).count();
        match bind(wanted, settings, &found, count - had, active as u32, &predecessors) {
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
    let (found, steered) = pool.hold(wanted, found, daemon.phase() != Phase::Starting);
    if let Some((member, spread)) = steered {
        steer(&member, spread);
    }
    for (entry, origin) in &found {
        note_found(entry, *origin, wanted, settings);
    }
    Ok(handed)
}

/// Takes over from the predecessor, once.
fn take_over() -> Result<()> {
    let _one_at_a_time = lock(&TAKING);
    if lock(&POOL).pool.is_taken() {
        return Ok(());
    }
    let Some(daemon) = DAEMON.get() else { return Ok(()) };
    let taken = match &daemon.service {
        Some(service) if daemon.phase() == Phase::Starting => control::take(service)?,
        Some(_) | None => Taken::default(),
    };
    let state = &mut *lock(&POOL);
    state.predecessor = taken.generation;
    state.state = taken.state;
    state.pool.take(taken.entries);
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

pub(in crate::driver) fn entry(socket: Socket, fd: OwnedFd) -> Entry {
    let cookie = socket::cookie(fd.as_fd()).ok();
    Entry { socket, fd: Arc::new(fd), cookie }
}

/// Guards against a listener that nobody can reach any more: its path was removed, or names another
/// socket.
fn has_lost_its_path(entry: &Entry) -> bool {
    let Socket { asked, local, file, .. } = &entry.socket;
    let Some(path) = unix_path::path_of(asked) else { return false };
    let there = unix_path::file_at(&path);
    let lost = match file {
        // One that was passed by name may be bound to another path than the one asked for.
        Some(file) => {
            there != Some(*file)
                && unix_path::path_of(local)
                    .is_none_or(|path| unix_path::file_at(&path) != Some(*file))
        }
        None => there.is_none() && unix_path::path_of(local).is_some(),
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

fn note_found(entry: &Entry, origin: Origin, wanted: &Wanted<'_>, settings: Settings) {
    let Socket { kind, name, asked, local, member, retired, .. } = &entry.socket;
    let own = process::own_pid();
    // A path may have been bound under another name.
    let local =
        if matches!(kind, SocketKind::Unix | SocketKind::UnixDatagram) { asked } else { local };
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
    if nonblocking != settings.nonblocking {
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
    settings: Settings,
    found: &[(Entry, Origin)],
    missing: usize,
    active: u32,
    predecessors: &[Predecessor],
) -> Result<Vec<Entry>> {
    let mut failure = None;
    for asked in &wanted.addresses {
        let bound = match (asked, found) {
            (Address::Unix(_), _) => {
                bind_path(wanted, settings, asked, predecessors).map(|one| vec![one])
            }
            (Address::Inet(address), []) => {
                bind_members(wanted, settings, asked, *address, missing)
            }
            (Address::Inet(_), [(first, _), ..]) => {
                let Address::Inet(port) = first.socket.local else { unreachable!("of one kind") };
                return join(wanted, settings, found, port, missing, active);
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
    found: &[(Entry, Origin)],
    port: SocketAddr,
    missing: usize,
    active: u32,
) -> Result<Vec<Entry>> {
    let first = &found[0].0;
    for (entry, _) in found {
        reuseport::share_port(entry.fd.as_fd()).map_err(|error| {
            let text = format!("cannot share {} {port} (socket)", wanted.kind.name());
            Error::io(ErrorKind::Socket, text, error)
        })?;
    }
    let is_group = reuseport::steer_to_first(first.fd.as_fd(), wanted.kind, active).is_ok();
    let asked = &first.socket.asked;
    let mut bound = bind_members(wanted, settings, asked, port, 1)?;
    if !is_group {
        // The first was alone, and a group begins with the second.
        steer(first, Spread::First(active));
    }
    bound.extend(bind_members(wanted, settings, asked, port, missing - 1)?);
    Ok(bound)
}

/// All at one port, which is the first one's where the system chooses.
fn bind_members(
    wanted: &Wanted<'_>,
    settings: Settings,
    asked: &Address,
    mut address: SocketAddr,
    count: usize,
) -> Result<Vec<Entry>> {
    let reuse_port = settings.reuse_port || wanted.group.is_some();
    let settings = Settings { reuse_port, ..settings };
    let mut bound: Vec<Entry> = Vec::new();
    for _ in 0..count {
        let fail = |error| {
            let text = format!("cannot bind {} {address} (socket)", wanted.kind.name());
            Error::io(ErrorKind::Socket, text, error)
        };
        let fd = match socket::bind(wanted.kind, address, settings) {
            Err(error) if error.raw_os_error() == Some(rlimit::TOO_MANY_FILES) => {
                rlimit::make_room(2 * count as u64);
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

fn bind_path(
    wanted: &Wanted<'_>,
    settings: Settings,
    asked: &Address,
    predecessors: &[Predecessor],
) -> Result<Entry> {
    let path = unix_path::path_of(asked).expect("a path");
    let ty = match wanted.kind {
        SocketKind::UnixDatagram => SocketType::Datagram,
        SocketKind::Unix | SocketKind::Tcp | SocketKind::Udp => SocketType::Stream,
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
    let bound = Beside::bind(ty, &path, settings).and_then(Beside::place);
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
    let name = wanted.name.map(str::to_owned);
    let socket =
        Socket { kind, asked: asked.clone(), name, member: 0, retired: false, local, file };
    Ok(entry(socket, fd))
}

fn steer(member: &Entry, spread: Spread) {
    let Socket { kind, local, .. } = &member.socket;
    let steered = match spread {
        Spread::All => reuseport::steer_to_all(member.fd.as_fd()),
        Spread::First(members) => reuseport::steer_to_first(member.fd.as_fd(), *kind, members),
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

/// This generation is about to serve: closes what nobody has asked for. Guards against a connection
/// that the kernel completes for us alone, after the older generations have closed theirs.
pub(in crate::driver) fn close_unclaimed() {
    let unclaimed = lock(&POOL).pool.unclaimed();
    for (entry, origin) in unclaimed {
        let Socket { kind, name, local, .. } = &entry.socket;
        note!(
            Info,
            "stage=socket daemon={} kind={} name={} address={local} from={} closed=\"not asked for\"",
            process::own_pid(),
            kind.name(),
            Maybe(name.as_deref()),
            origin.name(),
        );
    }
}

/// This generation serves, and no older one has been told to end yet.
pub(in crate::driver) fn steer_groups() {
    let groups = lock(&POOL).pool.steer();
    for (member, spread) in groups {
        steer(&member, spread);
    }
}

/// `started` is through; these older generations end.
pub(in crate::driver) fn started(older: Vec<Held>) {
    let has_retired = lock(&POOL).pool.has_retired();
    if has_retired && older.is_empty() {
        close_retired(); // nobody is left to answer what waits there
    } else if has_retired {
        control::retire_after(older);
    }
}

/// Closes the retired members of groups, the last one first.
pub(in crate::driver) fn close_retired() {
    let mut retired = lock(&POOL).pool.take_retired();
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
pub(in crate::driver) fn held() -> Option<Vec<Entry>> {
    lock(&POOL).pool.held()
}

#[cfg(feature = "systemd")]
pub(in crate::driver) fn to_store() -> Store<Arc<OwnedFd>> {
    lock(&POOL).pool.bring_store_into_line()
}

/// The drain begins: from here on the program's own close is the last one in this process.
pub(in crate::driver) fn let_go() {
    let held = lock(&POOL).pool.let_go();
    drop(held);
}
