//! Sockets: how one is bound anew, what a descriptor that came from outside is, and which process is at
//! the other end.

use super::process::{self, Held};
pub(crate) use super::system::cookie;
use super::{proc, raw, rlimit, system};
use crate::proto::control::frame::{Address, SocketKind};
use crate::proto::sockets::changes::FileChanges;
use crate::proto::sockets::fresh::Refusal;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::{self, c_int};
use nix::sys::socket::{
    self as nix_socket, AddressFamily, SockType, SockaddrIn, SockaddrIn6, SockaddrLike,
    SockaddrStorage, getsockname, getsockopt, setsockopt, sockopt,
};
use nix::{getsockopt_impl, sockopt_impl};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

// nix has SO_TYPE, but refuses the types that it does not know.
sockopt_impl!(Type, GetOnly, libc::SOL_SOCKET, libc::SO_TYPE, c_int);

/// How many connections may wait if the program does not say it.
const BACKLOG: u32 = 4096;

/// How a socket that is bound anew is set up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settings {
    /// `None`: [`BACKLOG`].
    pub(crate) backlog: Option<u32>,
    pub(crate) only_v6: Option<bool>,
    /// Of the path of a Unix socket.
    pub(crate) file: FileChanges,
    pub(crate) reuse_port: bool,
    pub(crate) nonblocking: bool,
    /// Also for a socket that is found, in the other mode.
    pub(crate) change_nonblocking: bool,
}

// ---- bound anew ----

/// Binds a TCP or UDP socket. A TCP socket listens then.
pub(crate) fn bind(
    kind: SocketKind,
    address: SocketAddr,
    settings: Settings,
) -> io::Result<OwnedFd> {
    let socket = inet_socket(kind, address, settings.nonblocking)?;
    if let (Some(only_v6), true) = (settings.only_v6, address.is_ipv6()) {
        setsockopt(&socket, sockopt::Ipv6V6Only, &only_v6)?;
    }
    if kind == SocketKind::Tcp {
        // As std does: old connections in TIME_WAIT must not prevent the bind.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    if settings.reuse_port {
        setsockopt(&socket, sockopt::ReusePort, &true)?;
    }
    bind_inet(&socket, address)?;
    if kind == SocketKind::Tcp {
        listen(socket.as_fd(), settings.backlog)?;
    }
    Ok(socket)
}

/// Binds a vsock listener (`vsock(7)`).
pub(crate) fn bind_vsock(cid: u32, port: u32, settings: Settings) -> io::Result<OwnedFd> {
    let socket = system::bind_vsock(cid, port, settings.nonblocking)?;
    listen(socket.as_fd(), settings.backlog)?;
    Ok(socket)
}

/// Begins to listen, or changes how many connections may wait.
pub(crate) fn listen(socket: BorrowedFd<'_>, backlog: Option<u32>) -> io::Result<()> {
    raw::listen(socket, backlog.unwrap_or(BACKLOG))
}

/// Could this process bind a socket there itself, if nobody had the address? Asks the kernel, which looks at
/// the permission and at the address before it looks at other sockets. Nothing arrives at the socket that is
/// tried: the address is in use.
pub(crate) fn try_bind(kind: SocketKind, address: SocketAddr) -> io::Result<()> {
    let socket = inet_socket(kind, address, true)?;
    match bind_inet(&socket, address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
        done => done,
    }
}

fn inet_socket(kind: SocketKind, address: SocketAddr, nonblocking: bool) -> io::Result<OwnedFd> {
    let ty = if kind == SocketKind::Udp { SockType::Datagram } else { SockType::Stream };
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    system::socket(family, ty, nonblocking)
}

/// Not with a `SockaddrStorage`: BSDs refuse an address that is longer than its family needs.
fn bind_inet(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(address) => bind_to(socket, &SockaddrIn::from(address)),
        SocketAddr::V6(address) => bind_to(socket, &SockaddrIn6::from(address)),
    }
}

/// What an error of `bind` means.
pub(crate) fn refusal(error: &io::Error) -> Refusal {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EACCES | Errno::EPERM) => Refusal::Denied,
        Some(Errno::EROFS) => Refusal::ReadOnly,
        Some(Errno::EADDRNOTAVAIL) => Refusal::NoSuchAddress,
        Some(Errno::ENOENT | Errno::ENOTDIR) => Refusal::NoSuchFolder,
        _ => Refusal::Other,
    }
}

pub(super) fn bind_to(socket: &OwnedFd, address: &dyn SockaddrLike) -> io::Result<()> {
    Ok(nix_socket::bind(socket.as_raw_fd(), address)?)
}

// ---- what a descriptor is ----

/// Asks the kernel what a descriptor is. `Ok` if it is a socket of one of our kinds with an address, and
/// listens if sockets of its kind do. `Err`: what it is instead.
pub(crate) fn describe(fd: BorrowedFd<'_>) -> Result<(SocketKind, Address), String> {
    let cannot = |error: Errno| format!("cannot look at it: {}", io::Error::from(error));
    let ty = getsockopt(&fd, Type).map_err(|error| match error {
        Errno::ENOTSOCK => "it is not a socket".to_owned(),
        _ => cannot(error),
    })?;
    let domain = system::domain(fd).map_err(cannot)?;
    let protocol = system::protocol(fd, ty).map_err(cannot)?;
    let kind = match (domain, ty, protocol) {
        (
            libc::AF_INET | libc::AF_INET6,
            libc::SOCK_STREAM,
            libc::IPPROTO_TCP | system::IPPROTO_MPTCP,
        ) => SocketKind::Tcp,
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDP) => SocketKind::Udp,
        (libc::AF_UNIX, libc::SOCK_STREAM, _) => SocketKind::Unix,
        (libc::AF_UNIX, libc::SOCK_DGRAM, _) => SocketKind::UnixDatagram,
        (libc::AF_UNIX, libc::SOCK_SEQPACKET, _) => SocketKind::UnixSeqpacket,
        (system::AF_VSOCK, libc::SOCK_STREAM, _) => SocketKind::Vsock,
        _ => return Err(format!("it is a socket of another kind (domain {domain}, type {ty})")),
    };
    if kind.listens() && !getsockopt(&fd, sockopt::AcceptConn).map_err(cannot)? {
        return Err("it is not listening".to_owned());
    }
    let local = match domain {
        libc::AF_UNIX => unix_address(fd).map_err(|error| format!("cannot look at it: {error}"))?,
        system::AF_VSOCK => system::vsock_address(fd).map_err(cannot)?,
        _ => inet(getsockname(fd.as_raw_fd()).map_err(cannot)?).map(Address::Inet),
    };
    Ok((kind, local.ok_or("it has no address that can be read")?))
}

fn inet(address: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|address| SocketAddr::V4((*address).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into())))
}

fn unix_address(fd: BorrowedFd<'_>) -> io::Result<Option<Address>> {
    let local = raw::unix_address(fd)?;
    if let Some(path) = local.as_pathname() {
        return Ok(Some(Address::Unix(path.as_os_str().as_bytes().to_vec())));
    }
    if let Some(name) = system::abstract_name(&local) {
        return Ok(Some(Address::Unix([&[0], name].concat())));
    }
    Ok(local.is_unnamed().then(|| Address::Unix(Vec::new())))
}

/// Does it get what one peer sends, and nothing else?
pub(crate) fn is_connected(fd: BorrowedFd<'_>) -> bool {
    nix_socket::getpeername::<SockaddrStorage>(fd.as_raw_fd()).is_ok()
}

/// Is it one end of a connection, of whatever family? Also if the other end has closed it.
pub(crate) fn is_connection(fd: BorrowedFd<'_>) -> bool {
    let of_connections = |ty| matches!(ty, libc::SOCK_STREAM | libc::SOCK_SEQPACKET);
    getsockopt(&fd, Type).is_ok_and(of_connections)
        && !getsockopt(&fd, sockopt::AcceptConn).unwrap_or(false)
}

/// Does it leave IPv4 to others? Only a socket at an IPv6 address can.
pub(crate) fn is_only_v6(fd: BorrowedFd<'_>) -> bool {
    getsockopt(&fd, sockopt::Ipv6V6Only).unwrap_or(false)
}

/// Does a socket at every IPv6 address leave IPv4 to others if the program does not say it?
pub(crate) fn only_v6_by_default() -> bool {
    proc::sysctl("net.ipv6.bindv6only") == Some(1)
}

/// The user that the kernel compares when two sockets are to share a port.
pub(crate) fn owner(fd: BorrowedFd<'_>) -> Option<u32> {
    Some(nix::sys::stat::fstat(fd).ok()?.st_uid)
}

/// An interface that no system has.
const NO_INTERFACE: c_int = c_int::MAX;

/// From now on, what arrives goes to another socket whose address overlaps, as if this one were closed.
/// What waits in its queue can still be accepted and answered. A TCP socket is bound to an interface that
/// does not exist (Linux 5.7 or later); its connections are not. A UDP socket is connected to itself, since
/// it could not send otherwise.
pub(crate) fn step_aside(fd: BorrowedFd<'_>, kind: SocketKind) -> io::Result<()> {
    if has_stepped_aside(fd, kind) {
        return Ok(());
    }
    match kind {
        SocketKind::Udp => {
            let own = own_address(fd)?;
            if own.ip().is_unspecified() {
                let text = "a UDP socket at every address cannot be connected to itself";
                return Err(io::Error::new(io::ErrorKind::Unsupported, text));
            }
            Ok(nix_socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(own))?)
        }
        _ => system::bind_to_interface(fd, NO_INTERFACE),
    }
}

/// Has it been told to [step aside](step_aside)? Nothing arrives there any more.
pub(crate) fn has_stepped_aside(fd: BorrowedFd<'_>, kind: SocketKind) -> bool {
    match kind {
        SocketKind::Tcp => system::interface(fd) == Ok(NO_INTERFACE),
        SocketKind::Udp => own_address(fd).is_ok_and(|own| {
            nix_socket::getpeername(fd.as_raw_fd()).ok().and_then(inet) == Some(own)
        }),
        _ => false,
    }
}

fn own_address(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    inet(getsockname(fd.as_raw_fd())?).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

pub(crate) fn is_nonblocking(fd: BorrowedFd<'_>) -> bool {
    fcntl(fd, FcntlArg::F_GETFL)
        .is_ok_and(|flags| OFlag::from_bits_truncate(flags).contains(OFlag::O_NONBLOCK))
}

pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>, nonblocking: bool) -> io::Result<()> {
    let mut flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_NONBLOCK, nonblocking);
    fcntl(fd, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

/// Another descriptor of the same socket, close-on-exec. If the limit of open files is reached, it is
/// raised.
pub(crate) fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    rlimit::with_room(|| fd.try_clone_to_owned())
}

// ---- the other end ----

/// The process at the other end of a connection: the one that connected, or the one that called
/// `listen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) pid: i32,
    pub(crate) uid: u32,
}

impl Peer {
    /// Only root and the user that this process acts as may use the control socket.
    pub(crate) fn may_control(self) -> bool {
        self.uid == 0 || self.uid == process::effective_user()
    }
}

/// SO_PEERCRED (`unix(7)`); `None` if the socket has no peer, as a datagram socket, or if the peer is in
/// a PID namespace that we do not see.
pub(crate) fn peer(socket: BorrowedFd<'_>) -> io::Result<Option<Peer>> {
    let (pid, uid) = system::peer(socket)?;
    Ok((pid > 0).then_some(Peer { pid, uid }))
}

/// The process that listens, asked over a connection to it. `None` also if that process has ended and
/// others hold its socket: then its PID may belong to any process. Linux tells that since 6.5.
pub(crate) fn listener(socket: BorrowedFd<'_>) -> io::Result<Option<Peer>> {
    let peer = peer(socket)?;
    match system::peer_pidfd(socket) {
        Ok(Some(pidfd)) => Ok(peer.filter(|_| !Held::from_pidfd(pidfd).has_ended())),
        Ok(None) => Ok(None),
        Err(Errno::ENOPROTOOPT) => Ok(peer),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
