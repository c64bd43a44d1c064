//! Sockets: binding them, and what the kernel says of those that come from somewhere else.

use super::process::Held;
use super::raw;
use crate::proto::control::frame::{Address, FileId, Kind};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::{self, c_int};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    self as nix_socket, AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6,
    SockaddrLike, SockaddrStorage, UnixAddr, getsockname, getsockopt, setsockopt, sockopt,
};
use nix::sys::stat::{Mode, fchmod};
use nix::{getsockopt_impl, sockopt_impl};
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// How a socket that is bound anew is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) backlog: u32,
    pub(crate) only_v6: Option<bool>,
    pub(crate) mode: Option<u32>,
    pub(crate) reuse_port: bool,
    pub(crate) nonblocking: bool,
}

/// How a Unix socket passes on what it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketType {
    Stream,
    Datagram,
    SeqPacket,
}

impl SocketType {
    fn raw(self) -> SockType {
        match self {
            SocketType::Stream => SockType::Stream,
            SocketType::Datagram => SockType::Datagram,
            SocketType::SeqPacket => SockType::SeqPacket,
        }
    }
}

// Options that nix does not have, or for which it refuses values that it does not know.
sockopt_impl!(Domain, GetOnly, libc::SOL_SOCKET, libc::SO_DOMAIN, c_int);
sockopt_impl!(Type, GetOnly, libc::SOL_SOCKET, libc::SO_TYPE, c_int);
sockopt_impl!(Protocol, GetOnly, libc::SOL_SOCKET, libc::SO_PROTOCOL, c_int);
sockopt_impl!(Cookie, GetOnly, libc::SOL_SOCKET, libc::SO_COOKIE, u64);

/// The room in a socket address for a path, with its NUL.
const PATH_ROOM: usize = 108;

// ---- bound anew ----

/// Binds, and listens if it is TCP.
pub(crate) fn bind(kind: Kind, address: SocketAddr, settings: Settings) -> io::Result<OwnedFd> {
    let (ty, protocol) = match kind {
        Kind::Udp => (SockType::Datagram, SockProtocol::Udp),
        Kind::Tcp | Kind::Unix | Kind::UnixDatagram => (SockType::Stream, SockProtocol::Tcp),
    };
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let socket = nix_socket::socket(family, ty, flags(settings.nonblocking), protocol)?;
    if let (Some(only_v6), true) = (settings.only_v6, address.is_ipv6()) {
        setsockopt(&socket, sockopt::Ipv6V6Only, &only_v6)?;
    }
    if kind == Kind::Tcp {
        // As std does: what is left of old connections is no obstacle.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    if settings.reuse_port {
        setsockopt(&socket, sockopt::ReusePort, &true)?;
    }
    match address {
        SocketAddr::V4(address) => bind_to(&socket, &SockaddrIn::from(address))?,
        SocketAddr::V6(address) => bind_to(&socket, &SockaddrIn6::from(address))?,
    }
    if kind == Kind::Tcp {
        raw::listen(socket.as_fd(), settings.backlog)?;
    }
    Ok(socket)
}

/// Close-on-exec from birth.
fn flags(nonblocking: bool) -> SockFlag {
    let more = if nonblocking { SockFlag::SOCK_NONBLOCK } else { SockFlag::empty() };
    SockFlag::SOCK_CLOEXEC | more
}

fn bind_to(socket: &OwnedFd, address: &dyn SockaddrLike) -> io::Result<()> {
    Ok(nix_socket::bind(socket.as_raw_fd(), address)?)
}

/// Lets more sockets of our own share this one's port. It may have been bound without.
pub(crate) fn share_port(socket: BorrowedFd<'_>) -> io::Result<()> {
    if !getsockopt(&socket, sockopt::ReusePort)? {
        setsockopt(&socket, sockopt::ReusePort, &true)?;
    }
    Ok(())
}

/// A socket that is bound beside the path that it is to have: ready to be used, with its mode from
/// the first moment on. Until it is put in place, dropping it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Beside {
    socket: Option<OwnedFd>,
    temporary: PathBuf,
    path: PathBuf,
}

impl Beside {
    pub(crate) fn bind(ty: SocketType, path: &Path, settings: Settings) -> io::Result<Beside> {
        let place = Place::of(path)?;
        let temporary = place.temporary();
        remove_leftover(&temporary)?;
        let flags = flags(settings.nonblocking);
        let socket = nix_socket::socket(AddressFamily::Unix, ty.raw(), flags, None)?;
        if let Some(mode) = settings.mode {
            // Unbound, it passes its mode on to the file, less the umask.
            fchmod(&socket, Mode::from_bits_truncate(mode))?;
        }
        bind_to(&socket, &place.address(&temporary)?)?;
        let mut beside = Beside { socket: None, temporary, path: path.to_owned() };
        if let Some(mode) = settings.mode {
            set_mode(&beside.temporary, mode)?;
        }
        if ty != SocketType::Datagram {
            raw::listen(socket.as_fd(), settings.backlog)?;
        }
        beside.socket = Some(socket);
        Ok(beside)
    }

    /// Renamed over whatever is there: the path names a socket that can be used at any time.
    pub(crate) fn place(mut self) -> io::Result<(OwnedFd, FileId)> {
        let file = file_id(&fs::symlink_metadata(&self.temporary)?);
        fs::rename(&self.temporary, &self.path)?;
        let socket = self.socket.take().expect("it is placed once");
        self.temporary = PathBuf::new();
        Ok((socket, file))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.temporary.as_os_str().is_empty() {
            _ = fs::remove_file(&self.temporary);
        }
    }
}

/// The file itself, by the standard library, which goes on where a signal interrupts it.
fn open_path(path: &Path, more: OFlag) -> io::Result<fs::File> {
    let flags = OFlag::O_PATH | more;
    fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

/// Gives a socket that is bound what the umask has taken from its mode. Guards against a file that
/// somebody who may write to the folder has put in its place, or a link to one: what is looked at is
/// what is changed, and it is a socket without a second name.
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let file = open_path(path, OFlag::O_NOFOLLOW)?;
    let about = file.metadata()?;
    if about.mode() & 0o7777 == mode {
        return Ok(());
    }
    if !about.file_type().is_socket() || about.nlink() > 1 {
        let text = format!("{path:?} was replaced by somebody else");
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    let held = format!("/proc/self/fd/{}", file.as_raw_fd());
    fs::set_permissions(held, Permissions::from_mode(mode))
}

/// What a bind that was killed has left at the temporary name. Guards against taking away a file
/// of somebody else's.
fn remove_leftover(temporary: &Path) -> io::Result<()> {
    match fs::symlink_metadata(temporary) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(about) if about.file_type().is_socket() => fs::remove_file(temporary),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("{temporary:?} is in the way, and is no socket"),
        )),
    }
}

/// A path whose folder is held open where the path is longer than a socket address has room for.
struct Place<'a> {
    path: &'a Path,
    folder: Option<OwnedFd>,
}

impl Place<'_> {
    fn of(path: &Path) -> io::Result<Place<'_>> {
        let long = path.as_os_str().len() + ".new".len() >= PATH_ROOM;
        let folder = match path.parent() {
            Some(folder) if long => Some(open_path(folder, OFlag::O_DIRECTORY)?.into()),
            Some(_) | None => None,
        };
        Ok(Place { path, folder })
    }

    /// The path's own name and `.new`. Where even the name alone is too long for an address, a
    /// short one made of it: names that differ must not meet.
    fn temporary(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default();
        if self.folder.is_some() && name.len() + ".new".len() > PATH_ROOM / 2 {
            let hash = name.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
            return self.path.with_file_name(format!(".seamless-{hash:016x}.new"));
        }
        let mut temporary = self.path.as_os_str().to_owned();
        temporary.push(".new");
        temporary.into()
    }

    /// The address of a name in the same folder.
    fn address(&self, path: &Path) -> nix::Result<UnixAddr> {
        match &self.folder {
            None => UnixAddr::new(path),
            Some(folder) => {
                let name = path.file_name().unwrap_or(OsStr::new("."));
                let folder = format!("/proc/self/fd/{}", folder.as_raw_fd());
                UnixAddr::new(&Path::new(&folder).join(name))
            }
        }
    }
}

pub(crate) fn file_id(about: &fs::Metadata) -> FileId {
    FileId { device: about.dev(), inode: about.ino() }
}

/// The socket file that a path names.
pub(crate) fn file_at(path: &Path) -> Option<FileId> {
    let about = fs::symlink_metadata(path).ok()?;
    about.file_type().is_socket().then(|| file_id(&about))
}

/// Who listens at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listener {
    /// Nothing is there, or a socket whose process is gone.
    Nobody,
    /// A process, where it can be known which.
    Somebody(Option<i32>),
    /// Something else than a socket stands there.
    NoSocket,
}

/// Connects to see who answers; nothing is sent, and nothing is waited for.
pub(crate) fn listener_at(path: &Path, ty: SocketType) -> io::Result<Listener> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Listener::Nobody),
        Err(error) => return Err(error),
        Ok(about) if !about.file_type().is_socket() => return Ok(Listener::NoSocket),
        Ok(_) => {}
    }
    match connect(path, ty) {
        Ok(socket) => Ok(Listener::Somebody(peer(socket.as_fd()).map(|peer| peer.pid))),
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(Listener::Nobody),
            // Its queue is full; it is a socket of another type; we may not connect to it.
            Some(Errno::EAGAIN | Errno::EPROTOTYPE | Errno::EACCES) => Ok(Listener::Somebody(None)),
            _ => Err(error),
        },
    }
}

/// Connects to a path of any length. The socket never blocks, not even here: EAGAIN is a full
/// queue.
pub(crate) fn connect(path: &Path, ty: SocketType) -> io::Result<OwnedFd> {
    let socket = nix_socket::socket(AddressFamily::Unix, ty.raw(), flags(true), None)?;
    if path.as_os_str().len() < PATH_ROOM {
        connect_to(&socket, &UnixAddr::new(path)?)?;
    } else {
        let file = open_path(path, OFlag::empty())?;
        let held = format!("/proc/self/fd/{}", file.as_raw_fd());
        connect_to(&socket, &UnixAddr::new(held.as_str())?)?;
    }
    Ok(socket)
}

/// For Unix sockets: interrupted, nothing has begun that would go on by itself.
fn connect_to(socket: &OwnedFd, address: &UnixAddr) -> io::Result<()> {
    loop {
        match nix_socket::connect(socket.as_raw_fd(), address) {
            Err(Errno::EINTR) => {}
            done => return Ok(done?),
        }
    }
}

/// The process at the other end: the one that connected, or the one that called `listen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) pid: i32,
    pub(crate) uid: u32,
}

impl Peer {
    /// Only root and the user that this process acts as may use the control socket.
    pub(crate) fn may_control(self) -> bool {
        self.uid == 0 || self.uid == super::launch::effective_user()
    }
}

/// SO_PEERCRED (`unix(7)`); `None` where the socket has none, as a datagram socket.
pub(crate) fn peer(socket: BorrowedFd<'_>) -> Option<Peer> {
    let peer = getsockopt(&socket, sockopt::PeerCredentials).ok()?;
    (peer.pid() > 0).then_some(Peer { pid: peer.pid(), uid: peer.uid() })
}

/// The process that listens, seen by one that has connected to it. `None` also where it has ended,
/// and others hold its socket: then its PID may be anybody's. Linux tells that since 6.5.
pub(crate) fn listener(socket: BorrowedFd<'_>) -> Option<Peer> {
    let peer = peer(socket)?;
    match getsockopt(&socket, sockopt::PeerPidfd).map(Held::from_pidfd) {
        Ok(held) => (!held.has_ended()).then_some(peer),
        Err(Errno::ENOPROTOOPT) => Some(peer),
        Err(_) => None,
    }
}

// ---- what a descriptor is ----

/// What the kernel says of a descriptor: a socket of one of our kinds, bound, and listening where
/// the kind listens. `Err`: what it is instead.
pub(crate) fn describe(fd: BorrowedFd<'_>) -> Result<(Kind, Address), String> {
    let cannot = |error: Errno| format!("cannot look at it: {}", io::Error::from(error));
    let ty = getsockopt(&fd, Type).map_err(|error| match error {
        Errno::ENOTSOCK => "it is not a socket".to_owned(),
        _ => cannot(error),
    })?;
    let domain = getsockopt(&fd, Domain).map_err(cannot)?;
    let protocol = getsockopt(&fd, Protocol).map_err(cannot)?;
    let kind = match (domain, ty, protocol) {
        (
            libc::AF_INET | libc::AF_INET6,
            libc::SOCK_STREAM,
            libc::IPPROTO_TCP | libc::IPPROTO_MPTCP,
        ) => Kind::Tcp,
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDP) => Kind::Udp,
        (libc::AF_UNIX, libc::SOCK_STREAM, _) => Kind::Unix,
        (libc::AF_UNIX, libc::SOCK_DGRAM, _) => Kind::UnixDatagram,
        _ => return Err(format!("it is a socket of another kind (domain {domain}, type {ty})")),
    };
    if matches!(kind, Kind::Tcp | Kind::Unix)
        && !getsockopt(&fd, sockopt::AcceptConn).map_err(cannot)?
    {
        return Err("it is not listening".to_owned());
    }
    let local = match domain {
        libc::AF_UNIX => unix_address(fd).map_err(|error| format!("cannot look at it: {error}"))?,
        _ => inet_address(fd).map_err(cannot)?,
    };
    Ok((kind, local.ok_or("it has no address that can be read")?))
}

fn inet_address(fd: BorrowedFd<'_>) -> nix::Result<Option<Address>> {
    let local: SockaddrStorage = getsockname(fd.as_raw_fd())?;
    let v4 = local.as_sockaddr_in().map(|address| SocketAddr::V4((*address).into()));
    let v6 = || local.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into()));
    Ok(v4.or_else(v6).map(Address::Inet))
}

fn unix_address(fd: BorrowedFd<'_>) -> io::Result<Option<Address>> {
    let local = raw::unix_address(fd)?;
    if let Some(path) = local.as_pathname() {
        return Ok(Some(Address::Unix(path.as_os_str().as_bytes().to_vec())));
    }
    if let Some(name) = local.as_abstract_name() {
        return Ok(Some(Address::Unix([&[0], name].concat())));
    }
    Ok(local.is_unnamed().then(|| Address::Unix(Vec::new())))
}

/// A path that an address holds.
pub(crate) fn path_of(address: &Address) -> Option<PathBuf> {
    match address {
        Address::Unix(bytes) if bytes.first().is_some_and(|byte| *byte != 0) => {
            Some(std::ffi::OsString::from_vec(bytes.clone()).into())
        }
        Address::Unix(_) | Address::Inet(_) => None,
    }
}

/// Tells whether two descriptors are of one socket.
pub(crate) fn cookie(fd: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(getsockopt(&fd, Cookie)?)
}

pub(crate) fn is_nonblocking(fd: BorrowedFd<'_>) -> bool {
    fcntl(fd, FcntlArg::F_GETFL)
        .is_ok_and(|flags| OFlag::from_bits_truncate(flags).contains(OFlag::O_NONBLOCK))
}

/// Takes what was passed by exec under this number. `Err`: why it cannot be that. A descriptor that
/// came by exec is not close-on-exec; one that is was made by this program, and has an owner.
pub(crate) fn adopt_passed(number: i32) -> Result<(OwnedFd, Kind, Address), String> {
    let looked = raw::look_at(number, |fd| {
        let flags = fcntl(fd, FcntlArg::F_GETFD).map_err(|error| error.to_string())?;
        if flags & nix::libc::FD_CLOEXEC != 0 {
            return Err("it was not passed: it is this program's own".to_owned());
        }
        describe(fd)
    });
    let (kind, local) = looked.unwrap_or_else(|| Err("it is not open".to_owned()))?;
    Ok((raw::adopt(number), kind, local))
}

/// Another descriptor of the same socket, close-on-exec.
pub(crate) fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    match fd.try_clone_to_owned() {
        Err(error) if error.raw_os_error() == Some(TOO_MANY_FILES) => {
            make_room(ROOM);
            fd.try_clone_to_owned()
        }
        done => done,
    }
}

/// The error of a process that has as many files open as it may have.
pub(crate) const TOO_MANY_FILES: i32 = nix::libc::EMFILE;

/// How many more descriptors are made room for at a time.
const ROOM: u64 = 256;

/// Raises the soft limit of open files so that this many more can be opened, as far as the hard one
/// allows. A limit that is high enough already is left alone.
pub(crate) fn make_room(more: u64) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let open = fs::read_dir("/proc/self/fd").map_or(soft, |fds| fds.count() as u64);
    let needed = open.saturating_add(more);
    let limit = needed.saturating_add(ROOM).min(hard);
    if limit > soft {
        _ = setrlimit(Resource::RLIMIT_NOFILE, limit, hard);
    }
    if more > ROOM {
        grow_table(needed);
    }
}

/// Lets the kernel's table of descriptors grow to this number at once. It would double it step by
/// step and, where there are several threads, wait at each step until none of them looks into the
/// old one: some milliseconds each.
fn grow_table(number: u64) {
    let Ok(number) = i32::try_from(number) else { return };
    let Ok(any) = fs::File::open("/proc/self/fd") else { return };
    if let Ok(high) = fcntl(&any, FcntlArg::F_DUPFD_CLOEXEC(number)) {
        drop(raw::adopt(high));
    }
}

// ---- groups ----

/// Lets new connections and datagrams go to the first `members` sockets of a SO_REUSEPORT group
/// only, in the order in which they joined: they were bound (UDP) or began to listen (TCP). TCP is
/// spread at random, UDP by its sender, so that one sender's datagrams stay together. The program
/// is the group's, not this process's. No privilege is needed.
pub(crate) fn steer_to_first(socket: BorrowedFd<'_>, kind: Kind, members: u32) -> io::Result<()> {
    match kind {
        Kind::Udp => raw::attach_to_group(socket, &by_sender(members)),
        Kind::Tcp | Kind::Unix | Kind::UnixDatagram => {
            raw::attach_to_group(socket, &at_random(members))
        }
    }
}

/// The kernel spreads over all members again.
pub(crate) fn steer_to_all(socket: BorrowedFd<'_>) -> io::Result<()> {
    match raw::detach_from_group(socket) {
        // There is no program; or it is in no group, since it was bound without SO_REUSEPORT.
        Err(error)
            if matches!(
                error.raw_os_error().map(Errno::from_raw),
                Some(Errno::ENOENT | Errno::EINVAL)
            ) =>
        {
            Ok(())
        }
        done => done,
    }
}

// Classic BPF (`linux/filter.h`).
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF_AT_X: u16 = 0x48;
const ADD_X: u16 = 0x0c;
const MULTIPLY: u16 = 0x24;
const AND: u16 = 0x54;
const SHIFT_LEFT: u16 = 0x64;
const SHIFT_RIGHT: u16 = 0x74;
const MODULO: u16 = 0x94;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN_A: u16 = 0x16;
const A_TO_X: u16 = 0x07;
/// A random number (SKF_AD_OFF + SKF_AD_RANDOM).
const RANDOM: u32 = (-0x1000_i32 + 56) as u32;
/// The IP header (SKF_NET_OFF).
const IP: u32 = -0x10_0000_i32 as u32;

type Instruction = nix::libc::sock_filter;

const fn op(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

fn at_random(members: u32) -> [Instruction; 3] {
    [op(LOAD_WORD, RANDOM), op(MODULO, members), op(RETURN_A, 0)]
}

/// By the sender's port and the end of its address. A packet that is too short goes to the first
/// member.
fn by_sender(members: u32) -> [Instruction; 20] {
    [
        op(LOAD_BYTE, IP),
        op(SHIFT_RIGHT, 4), // the version of IP
        Instruction { code: JUMP_IF_EQUAL, jt: 9, jf: 0, k: 6 },
        // IPv4: the port stands behind the header, whose length is in its first byte.
        op(LOAD_BYTE, IP),
        op(AND, 15),
        op(SHIFT_LEFT, 2),
        op(A_TO_X, 0),
        op(LOAD_HALF_AT_X, IP),
        op(A_TO_X, 0),
        op(LOAD_WORD, IP + 12),
        op(ADD_X, 0),
        op(JUMP, 4),
        // IPv6
        op(LOAD_HALF, IP + 40),
        op(A_TO_X, 0),
        op(LOAD_WORD, IP + 20),
        op(ADD_X, 0),
        // Addresses that follow each other are spread.
        op(MULTIPLY, 0x9e37_79b1),
        op(SHIFT_RIGHT, 16),
        op(MODULO, members),
        op(RETURN_A, 0),
    ]
}

#[cfg(test)]
mod tests;
