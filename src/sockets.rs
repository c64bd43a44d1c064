//! Sockets that survive a restart: the successor takes over the very sockets, with all that is queued on
//! them.
//!
//! ```no_run
//! seamless::init("/run/web/web.pid")?;
//! let web = seamless::sockets::tcp("0.0.0.0:8080")?; // a std::net::TcpListener
//! let admin = seamless::sockets::Options::new().mode(0o660).unix("/run/web/admin")?;
//! seamless::started()?;
//! # Ok::<(), seamless::Error>(())
//! ```
//!
//! Linux gives each connection to one listener when it arrives. It resets what waits in the queue of a
//! listener that is closed. So a successor that binds a listener of its own loses connections at each
//! restart. A successor that takes over the predecessor's listener loses none: both processes accept
//! from one queue, which lives as long as either of them does.
//!
//! # Where a socket comes from
//!
//! Each call looks in this order, and the log says what it found
//! (`stage=socket address=… from=supervisor|predecessor|store|bound`):
//!
//! 1. What the supervisor has passed (`LISTEN_FDS`, `LISTEN_FDNAMES`, `LISTEN_PID`, see
//!    `sd_listen_fds(3)`; Einhorn's `EINHORN_FD_COUNT`, `EINHORN_FD_0` and so on;
//!    [`Options::passed_as`] for circus): a socket of that [name](Options::name), or else one of that kind and
//!    address.
//! 2. What the predecessor holds under the same address. What counts is the address that the program asked
//!    for: port 0 finds the port that the predecessor was given. The number of that port finds it, too.
//! 3. With the feature `systemd`: what lies in systemd's store, if the unit has one
//!    (`FileDescriptorStoreMax=`, as many as there are sockets, one more for [`counters`](crate::counters), and
//!    one for each descriptor that is [kept through a crash](crate::descriptors::keep_through_crash)). Soon after a generation begins to
//!    serve, its sockets are put there. They outlive the end of every process of the service:
//!    connections wait for the next start instead of being refused. A socket that is no longer asked
//!    for leaves the store, and a service that is stopped leaves none there.
//! 4. Otherwise it is bound anew. A Unix socket is bound under another name and renamed to its path, so
//!    `local_addr` may show that other name. If another process listens at the path, the call fails. If
//!    nobody does, the old socket is replaced.
//!
//! systemd passes sockets as they are: an async runtime needs `NonBlocking=yes` in the service's unit,
//! or [`Options::change_nonblocking`], or `sockets::tokio`.
//!
//! When [`started`](crate::started) is called, sockets that were passed or held and that nobody has asked
//! for are closed, before any older generation is told to end. Such a socket ends with its last holder. So
//! addresses may change from one generation to the next.
//!
//! # UDP protocols with state for each peer
//!
//! During a restart the old and the new generation read from one UDP queue, so each datagram goes to
//! either of them. This is right for protocols that answer each datagram alone, such as DNS, syslog or
//! statsd. It is wrong for a protocol that keeps state for each peer: QUIC and HTTP/3, DTLS, WireGuard,
//! WebRTC (STUN, SRTP), games. There, [`Options::steer`] keeps each flow with the generation that has
//! accepted it, and gives new flows to the newest one. The guide tells [which protocol needs
//! what](crate::guide::datagrams).
//!
//! # When to call
//!
//! Between [`init`](crate::init) and [`started`](crate::started): only then is there a predecessor to
//! ask. A later call binds anew, with a warning in the log, and the successor will find that socket too. If
//! a predecessor still holds the address, a later call fails, and says why. If the crate is disabled
//! (an empty path), sockets are passed by the supervisor or bound.
//!
//! If the service is told to stop before `started`, a call does not return. The process ends as soon as the
//! older generations have ended, which still use these addresses.
//!
//! # What the program must do
//!
//! **Drain by accepting until the queue is empty, then close.** The successor accepts from the same
//! queue, so nothing is lost if the old daemon leaves connections there. It must only not accept one
//! and drop it. The crate holds each socket open too, until the drain begins. After that, the program's
//! own close is the last one in this process.
//!
//! **Never change O_NONBLOCK on a socket that may be shared.** It belongs to the socket, not to the
//! process: set it with [`Options::nonblocking`] when the socket is made. If a successor asks for the
//! other setting, it gets the socket as it is, and a warning in the log;
//! [`Options::change_nonblocking`] changes it when that does no harm.
//!
//! **A runtime needs nonblocking sockets.** [`tcp`] and [`unix`] are for threads: they return blocking
//! sockets, as `std` does. A blocking listener in tokio panics in a debug build. In a release build it
//! works at first, and hangs in the drain. With tokio use `sockets::tokio` (feature `tokio`), which sees
//! to the mode whatever was found. With another runtime use [`Options::nonblocking`].
//!
//! # Several sockets on one port
//!
//! [`Options::tcp_group`] and [`Options::udp_group`] make one socket for each worker. The kernel
//! spreads what arrives between them (SO_REUSEPORT). They are taken over one by one, in order. If a
//! successor asks for more, the rest is bound, and joins the group. If it asks for fewer, the last ones
//! stay with the old daemon. When the successor serves, nothing new goes to those; the old daemon must
//! empty their queues before it closes them. If the old daemon serves again after a
//! [probation](crate::guide::probation), its own members get all.
//!
//! For this, the crate gives the group a program that chooses among its members
//! (SO_ATTACH_REUSEPORT_CBPF, `socket(7)`), or removes the one that it has. It does so when
//! [`started`](crate::started) is called. If you attach a program of your own, do it after that.
//!
//! # Addresses that overlap
//!
//! A deploy may move a service from `127.0.0.1:80` to `0.0.0.0:80` or `[::]:80`, and back. The kernel refuses
//! the new address while the old socket is open, so the crate lets both share their port (SO_REUSEPORT) as
//! long as both live. When [`started`](crate::started) is called, the new socket gets all that arrives, and
//! the old daemon answers what waits at the old one. It works for TCP and UDP, for IPv4, IPv6 and both
//! (`[::]`), for groups, and for another setting of [`Options::only_v6`].
//!
//! - Both sockets must have been made by one user. Otherwise the call fails, and the error names the
//!   predecessor, its generation and the user.
//! - A socket that the supervisor has passed is not shared: change the supervisor's setting.
//! - If the new address is narrower (`127.0.0.1:80` after `0.0.0.0:80`), the new socket gets what arrives there
//!   as soon as it is bound. Those clients wait until this generation accepts. If it fails before that, their
//!   connections are reset.
//! - A TCP handshake that is half done in the moment of the change ends at the old socket. If it ends only
//!   after the old daemon has closed that, the connection is reset.
//! - Before Linux 5.7, and for UDP at `0.0.0.0` or `[::]`, the old socket gets what arrives until the old
//!   daemon closes it. What arrives between its last look and the close is lost; the log warns of it.
//! - If the new socket takes all that arrives at the old one, there is no [probation](crate::guide::probation): the
//!   predecessor could not serve at its address again.
//!
//! # After a crash
//!
//! The next generation takes over from the [keeper](crate::guide::crashes). If there is none, as while a
//! predecessor drains: a daemon that drains transfers nothing, so the next generation binds anew. A single TCP or
//! UDP socket cannot be bound before the daemon that drains has closed it: the call fails, and the supervisor tries
//! again. A group can be bound, and shares the port until then. The new members get a part of what arrives. The
//! rest waits at the old members, and is lost when they are closed, unless `net.ipv4.tcp_migrate_req` is set.

mod own;
pub mod quic;
mod steer;
#[cfg(feature = "tokio")]
pub mod tokio;

pub use crate::driver::sockets::{Place, ToMake};
pub use crate::proto::control::frame::Steer;

use crate::driver::sockets::{Own, obtain as pool};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::control::frame::{Address, SocketKind};
use crate::proto::sockets::changes::Changes;
use crate::proto::sockets::pool::Wanted;
use crate::sys::socket::{self, Settings};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;

/// A TCP listener, with every default: [`Options::tcp`].
pub fn tcp(addr: impl ToSocketAddrs) -> Result<TcpListener> {
    Options::new().tcp(addr)
}

/// A UDP socket, with every default: [`Options::udp`]. For QUIC, DTLS and other protocols with state for each
/// peer, see [`Options::steer`].
pub fn udp(addr: impl ToSocketAddrs) -> Result<UdpSocket> {
    Options::new().udp(addr)
}

/// A Unix stream listener, with every default: [`Options::unix`].
pub fn unix(path: impl AsRef<Path>) -> Result<UnixListener> {
    Options::new().unix(path)
}

/// A Unix datagram socket, with every default: [`Options::unix_datagram`].
pub fn unix_datagram(path: impl AsRef<Path>) -> Result<UnixDatagram> {
    Options::new().unix_datagram(path)
}

/// How a socket is found and, if it has to be, bound.
///
/// Used like [`std::fs::OpenOptions`]. The options are for a socket that is bound anew. Of a socket that was
/// taken over, [`backlog`](Options::backlog), [`mode`](Options::mode) and [`owner`](Options::owner) are
/// changed if they are given; all else stays as it was made.
///
/// ```no_run
/// # seamless::init("")?;
/// let listener = seamless::sockets::Options::new().name("web").nonblocking(true).tcp("[::]:80")?;
/// # Ok::<(), seamless::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Options {
    name: Option<String>,
    settings: Settings,
    steer: Option<Steer>,
    own: Own,
}

impl Options {
    /// Every default.
    pub fn new() -> Self {
        Options::default()
    }

    /// The name under which the supervisor passes the socket (`LISTEN_FDNAMES`; of systemd,
    /// `FileDescriptorName=`). A passed socket of this name is taken whatever its address. The name also
    /// distinguishes several sockets that ask for port 0. At most 255 bytes. Default: none.
    pub fn name(&mut self, name: impl Into<String>) -> &mut Self {
        self.name = Some(name.into());
        self
    }

    /// How many connections may wait to be accepted. The kernel caps it at `net.core.somaxconn`.
    ///
    /// Default: 4096 for a listener that is bound anew; one that was taken over stays as it is. If it is given,
    /// it also holds for a listener that was taken over, from [`started`](crate::started) on.
    pub fn backlog(&mut self, connections: u32) -> &mut Self {
        self.settings.backlog = Some(connections);
        self
    }

    /// Whether a socket at an IPv6 address leaves IPv4 to others. If the predecessor's
    /// socket at `[::]` does otherwise, this one is bound anew beside it. Default: the system's setting
    /// (`net.ipv6.bindv6only`).
    pub fn only_v6(&mut self, only: bool) -> &mut Self {
        self.settings.only_v6 = Some(only);
        self
    }

    /// The mode of a Unix socket's path, for example `0o660`. For a socket that is bound anew it is in force
    /// before anybody can connect.
    ///
    /// Default: what the umask leaves of `0o777`; a socket that was taken over stays as it is. If it is given,
    /// the path of a socket that was taken over gets it, too: when [`started`](crate::started) is called, so
    /// that a program that fails before that changes nothing for its predecessor. If this user may not change
    /// it, `started` fails with [`ErrorKind::Socket`] and names the path. A socket that the supervisor has
    /// passed stays as the supervisor has made it (systemd: `SocketMode=`).
    pub fn mode(&mut self, mode: u32) -> &mut Self {
        self.settings.file.mode = Some(mode);
        self
    }

    /// The owner and the group of a Unix socket's path, by their numbers; `None` leaves one as it is. It holds
    /// when and for which sockets [`mode`](Options::mode) does. Only root may give a file to another user; its
    /// owner may give it to a group that the owner is in (`chown(2)`).
    ///
    /// Default: the user and the group of this process, or those of the socket that was taken over.
    ///
    /// ```no_run
    /// # seamless::init("")?;
    /// let mut options = seamless::sockets::Options::new();
    /// let listener = options.mode(0o660).owner(None, Some(33)).unix("/run/web/web")?; // www-data
    /// # Ok::<(), seamless::Error>(())
    /// ```
    pub fn owner(&mut self, uid: impl Into<Option<u32>>, gid: impl Into<Option<u32>>) -> &mut Self {
        (self.settings.file.uid, self.settings.file.gid) = (uid.into(), gid.into());
        self
    }

    /// Sets SO_REUSEPORT. Default: `false`; a group sets it anyway.
    ///
    /// It is needed if a predecessor that transfers no sockets, such as rs/seamless, still listens
    /// there with SO_REUSEPORT. What is queued on its listener when it closes is lost that one time.
    pub fn reuse_port(&mut self, reuse: bool) -> &mut Self {
        self.settings.reuse_port = reuse;
        self
    }

    /// Sets O_NONBLOCK, which async runtimes need. It belongs to the socket, so all generations
    /// must want the same. If a socket is found in the other mode, it stays as it is, and the log says
    /// so; see [`change_nonblocking`](Options::change_nonblocking). Default: `false`, as in `std`.
    pub fn nonblocking(&mut self, nonblocking: bool) -> &mut Self {
        self.settings.nonblocking = nonblocking;
        self
    }

    /// Whether a socket that is found in the other mode is changed to what
    /// [`nonblocking`](Options::nonblocking) says. Default: `false`. The sockets of `sockets::tokio` do
    /// this by themselves.
    ///
    /// This is the way out if an earlier version of the program, or the supervisor, has made the socket
    /// in the wrong mode. The change happens in [`started`](crate::started), after the predecessor has
    /// been told to end or to stand by, so a version that fails before that does no harm. One that fails in its
    /// [probation](crate::guide::probation) has changed it: the predecessor serves again with the new mode.
    /// Until then the socket is in the old mode; do not accept before. After `started`, the change happens at once.
    ///
    /// The predecessor shares the socket and may still accept from it in its drain:
    ///
    /// - From blocking to nonblocking: its `accept` returns `WouldBlock` if nobody waits. A predecessor
    ///   that ends at such an error cuts what it has in flight.
    /// - From nonblocking to blocking: its `accept` may block until the next connection comes, so its
    ///   drain may take that long.
    ///
    /// So use it for one deploy, and keep the new mode from then on.
    pub fn change_nonblocking(&mut self, change: bool) -> &mut Self {
        self.settings.change_nonblocking = change;
        self
    }

    /// Keeps the datagrams of a flow with the generation that has accepted it, for [`udp_group`] and [`udp`].
    /// New flows go to the newest generation as soon as its [`started`](crate::started) has been called.
    /// Default: not steered, so each datagram goes to either generation during a restart.
    ///
    /// Each generation has sockets of its own: they are bound beside those of older generations
    /// (SO_REUSEPORT), or taken over from generations that have ended. A program in the kernel chooses among
    /// them; that needs no privilege. [Flows](crate::guide::datagrams) tells which protocol needs which
    /// variant, and what a program has to do in its drain.
    ///
    /// Call it in every generation. The first deploy with it, and a deploy without it, split flows as before.
    ///
    /// # Errors
    ///
    /// [`udp_group`] fails with [`ErrorKind::Socket`], beside its other errors,
    ///
    /// - if the supervisor has passed a socket at this address;
    /// - if this process may not bind the address itself, for example a port below 1024 without
    ///   CAP_NET_BIND_SERVICE;
    /// - if an older generation lives and has a steered group at another address that overlaps, such as `[::]`
    ///   and `0.0.0.0`: these are two groups, and flows cannot move;
    /// - if the mask of [`Steer::Bytes`] has no value left, or the group has more than 1,024 members.
    ///
    /// [`tcp`](Options::tcp), [`tcp_group`](Options::tcp_group) and the calls for Unix sockets fail.
    ///
    /// ```no_run
    /// use seamless::sockets::{Options, Steer, quic::ConnectionIds};
    ///
    /// # seamless::init("")?;
    /// let members = Options::new().nonblocking(true).steer(Steer::Quic).udp_group("[::]:4433", 4)?;
    /// for member in &members {
    ///     let ids = ConnectionIds::new(member)?; // for the endpoint that reads from this member
    ///     # _ = ids;
    /// }
    /// # Ok::<(), seamless::Error>(())
    /// ```
    ///
    /// [`udp`]: Options::udp
    /// [`udp_group`]: Options::udp_group
    pub fn steer(&mut self, steer: Steer) -> &mut Self {
        self.steer = Some(steer);
        self
    }

    /// A TCP listener. If the name resolves to several addresses, the first one that is found is used,
    /// or else the first one that can be bound. A listener that is bound anew has SO_REUSEADDR, as in
    /// `std`.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Socket`]: the address cannot be resolved or bound, or this process has asked for
    ///   it before.
    /// - [`ErrorKind::Takeover`]: there is a predecessor, and the transfer from it failed. The
    ///   predecessor serves on, unharmed, and the call may be repeated.
    /// - [`ErrorKind::AlreadyRunning`]: the PID file belongs to a service that another supervisor runs. The
    ///   error names that supervisor and the command that restarts the service.
    /// - [`ErrorKind::NotInitialized`]: [`init`](crate::init) has not succeeded.
    pub fn tcp(&self, addr: impl ToSocketAddrs) -> Result<TcpListener> {
        self.one(SocketKind::Tcp, resolve(addr)?).map(TcpListener::from)
    }

    /// A UDP socket. Old and new generation read from one queue, until the old one closes it. For protocols
    /// with state for each peer, such as QUIC or DTLS, call [`steer`](Options::steer) before.
    ///
    /// # Errors
    ///
    /// As [`tcp`](Options::tcp).
    pub fn udp(&self, addr: impl ToSocketAddrs) -> Result<UdpSocket> {
        self.one(SocketKind::Udp, resolve(addr)?).map(UdpSocket::from)
    }

    /// A Unix stream listener at a path, of any length. A relative path counts from the current folder. The
    /// path stays when the service ends; the next start replaces it.
    ///
    /// # Errors
    ///
    /// As [`tcp`](Options::tcp); and [`ErrorKind::Socket`] if another process listens at that path, or
    /// if it is something other than a socket.
    pub fn unix(&self, path: impl AsRef<Path>) -> Result<UnixListener> {
        self.one(SocketKind::Unix, at_path(path.as_ref())?).map(UnixListener::from)
    }

    /// A Unix datagram socket at a path.
    ///
    /// # Errors
    ///
    /// As [`unix`](Options::unix).
    pub fn unix_datagram(&self, path: impl AsRef<Path>) -> Result<UnixDatagram> {
        self.one(SocketKind::UnixDatagram, at_path(path.as_ref())?).map(UnixDatagram::from)
    }

    /// A number of TCP listeners on one port, one for each worker. They are taken over in order. The
    /// [module](self) tells what happens when their number changes.
    ///
    /// # Errors
    ///
    /// As [`tcp`](Options::tcp); and [`ErrorKind::Socket`] if the number is 0.
    pub fn tcp_group(&self, addr: impl ToSocketAddrs, count: usize) -> Result<Vec<TcpListener>> {
        let group = self.group(SocketKind::Tcp, resolve(addr)?, count)?;
        Ok(group.into_iter().map(TcpListener::from).collect())
    }

    /// A number of UDP sockets on one port, one for each worker. As long as their number stays the
    /// same, what comes from one sender goes to one member.
    ///
    /// # Errors
    ///
    /// As [`tcp_group`](Options::tcp_group).
    pub fn udp_group(&self, addr: impl ToSocketAddrs, count: usize) -> Result<Vec<UdpSocket>> {
        let group = self.group(SocketKind::Udp, resolve(addr)?, count)?;
        Ok(group.into_iter().map(UdpSocket::from).collect())
    }

    fn one(&self, kind: SocketKind, addresses: Vec<Address>) -> Result<OwnedFd> {
        self.check_steer(kind)?;
        let wanted = self.wanted(kind, addresses, None);
        let found = pool::obtain(&wanted, self.settings, &self.own)?;
        Ok(found.into_iter().next().expect("one was asked for"))
    }

    fn group(
        &self,
        kind: SocketKind,
        addresses: Vec<Address>,
        count: usize,
    ) -> Result<Vec<OwnedFd>> {
        self.check_steer(kind)?;
        if count == 0 {
            let text = "cannot make a group of no sockets (socket)";
            return Err(Error::new(ErrorKind::Socket, text));
        }
        pool::obtain(&self.wanted(kind, addresses, Some(count)), self.settings, &self.own)
    }

    fn wanted(
        &self,
        kind: SocketKind,
        addresses: Vec<Address>,
        group: Option<usize>,
    ) -> Wanted<'_> {
        let Settings { backlog, only_v6, file, .. } = self.settings;
        let is_every_v6 = |one: &Address| match one {
            Address::Inet(address) => address.is_ipv6() && address.ip().is_unspecified(),
            _ => false,
        };
        let asks = || addresses.iter().any(is_every_v6) && socket::only_v6_by_default();
        let only_v6 = only_v6.unwrap_or_else(asks);
        let changes = Changes { backlog, file };
        let (name, steer) = (self.name.as_deref(), self.steer);
        Wanted { kind, addresses, name, group, only_v6, changes, steer }
    }
}

fn resolve(addr: impl ToSocketAddrs) -> Result<Vec<Address>> {
    let fail = |error| Error::io(ErrorKind::Socket, "cannot resolve an address (socket)", error);
    let mut addresses = Vec::new();
    for mut address in addr.to_socket_addrs().map_err(fail)? {
        if let SocketAddr::V6(address) = &mut address {
            address.set_flowinfo(0); // belongs to a connection
        }
        addresses.push(Address::Inet(address));
    }
    if addresses.is_empty() {
        let text = "cannot resolve an address (socket): it has none";
        return Err(Error::new(ErrorKind::Socket, text));
    }
    Ok(addresses)
}

fn at_path(path: &Path) -> Result<Vec<Address>> {
    let refuse =
        |why: &str| Error::new(ErrorKind::Socket, format!("cannot bind {path:?} (socket): {why}"));
    if path.file_name().is_none() {
        return Err(refuse("it names no file"));
    }
    let absolute = std::path::absolute(path).map_err(|error| {
        Error::io(ErrorKind::Socket, format!("cannot bind {path:?} (socket)"), error)
    })?;
    let bytes = absolute.as_os_str().as_bytes();
    if bytes.contains(&0) {
        return Err(refuse("it holds a NUL byte"));
    }
    Ok(vec![Address::Unix(bytes.to_vec())])
}
