//! Sockets that survive a restart: the successor takes over the very sockets, with all that is
//! queued on them.
//!
//! ```no_run
//! seamless::init("/run/web/web.pid")?;
//! let web = seamless::sockets::tcp("0.0.0.0:8080")?; // a std::net::TcpListener
//! let admin = seamless::sockets::Options::new().mode(0o660).unix("/run/web/admin")?;
//! seamless::started()?;
//! # Ok::<(), seamless::Error>(())
//! ```
//!
//! Linux binds a connection to one listener when it arrives, and resets what waits in the queue of
//! a listener that is closed. So a successor that binds a listener of its own loses connections at
//! each restart. One that takes over the predecessor's loses none: both processes accept from one
//! queue, and it lives as long as either of them does.
//!
//! # Where a socket comes from
//!
//! Each call looks in this order, and the log says what it found
//! (`stage=socket address=… from=supervisor|predecessor|store|bound`):
//!
//! 1. What the supervisor has passed (`LISTEN_FDS`, `LISTEN_FDNAMES`, `LISTEN_PID`, see
//!    `sd_listen_fds(3)`): a socket of that [name](Options::name), else one of that kind and
//!    address.
//! 2. What the predecessor holds under the same address, as it was asked for: port 0 finds the port
//!    that the predecessor was given.
//! 3. With the feature `systemd`: what lies in systemd's store. Where the unit allows it
//!    (`FileDescriptorStoreMax=`, as many as there are sockets), each generation has the sockets
//!    kept there that it has when it starts to serve, soon after. They outlive the end of every process of the service: connections wait for the
//!    next start instead of being refused. What is no longer asked for leaves the store, and a
//!    service that is stopped leaves none.
//! 4. Else it is bound anew. A Unix socket is bound beside its path and renamed over it, so
//!    `local_addr` may tell the name that it was bound under; a path at which somebody else
//!    listens is an error, one that nobody listens at any more is replaced.
//!
//! systemd passes sockets as they are: an async runtime needs `NonBlocking=yes` in the service's unit.
//!
//! What was passed or held and has not been asked for when [`started`](crate::started) is called is
//! closed, before any older generation is told to end; it ends with its last holder. So addresses may
//! change from one generation to the next.
//!
//! # When to call
//!
//! Between [`init`](crate::init) and [`started`](crate::started): only then is there a predecessor
//! to ask. A call after it binds anew, and the successor will find that socket too. Where the crate
//! is disabled (an empty path), sockets are passed by the supervisor or bound.
//!
//! Where the service is told to stop before `started`, a call does not return: the process ends, as
//! soon as the older generations have, which still use these addresses.
//!
//! # What the program must do
//!
//! **Drain by accepting until the queue is empty, then close.** The successor accepts from the same
//! queue, so nothing is lost if the old daemon leaves connections there; it must only not take one
//! and drop it. The crate holds each socket open too, until the drain begins: then it lets go, and
//! the program's own close is the last one in this process.
//!
//! **Never change O_NONBLOCK on a socket that may be shared.** It belongs to the socket, not to the
//! process: set it with [`Options::nonblocking`] when the socket is made. A runtime such as tokio
//! needs it set; a successor that wants it otherwise gets a warning, and the socket as it is.
//!
//! # Several sockets on one port
//!
//! [`Options::tcp_group`] and [`Options::udp_group`] make one socket a worker, between which the
//! kernel spreads what arrives (SO_REUSEPORT). They are taken over one by one, in order. A successor
//! that asks for more binds the rest and they join. One that asks for fewer leaves the last ones to
//! the old daemon, and from the moment at which it serves nothing new goes to them; the old daemon
//! must empty their queues before it closes them. To that end the crate gives a group a program that
//! chooses among its members (SO_ATTACH_REUSEPORT_CBPF, `socket(7)`) or takes away the one it has,
//! when [`started`](crate::started) is called: attach one of your own after that.
//!
//! # After a crash
//!
//! A daemon that drains hands nothing over. Where its successor crashes meanwhile, the next
//! generation finds nobody to take over from, and binds anew. A single TCP or UDP socket cannot be
//! bound before the one that drains has closed it: that is an error, and the supervisor tries again.
//! A group can, and shares the port until then: it gets a part of what arrives, and the rest waits
//! at the members that are to be closed, and is lost then unless `net.ipv4.tcp_migrate_req` is set.

use crate::driver::sockets::obtain as pool;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::control::frame::{Address, SocketKind};
use crate::proto::sockets::pool::Wanted;
use crate::sys::socket::Settings;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;

/// A TCP listener, with every default: [`Options::tcp`].
pub fn tcp(addr: impl ToSocketAddrs) -> Result<TcpListener> {
    Options::new().tcp(addr)
}

/// A UDP socket, with every default: [`Options::udp`].
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

/// How a socket is found and, where it has to be, bound.
///
/// Used like [`std::fs::OpenOptions`]. All but the name matter only where the socket is bound anew:
/// one that was taken over stays as it was made.
///
/// ```no_run
/// # seamless::init("")?;
/// let listener = seamless::sockets::Options::new().name("web").nonblocking(true).tcp("[::]:80")?;
/// # Ok::<(), seamless::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    name: Option<String>,
    settings: Settings,
}

impl Default for Options {
    fn default() -> Self {
        Options::new()
    }
}

impl Options {
    /// Every default.
    pub fn new() -> Self {
        Options {
            name: None,
            settings: Settings {
                backlog: 4096,
                only_v6: None,
                mode: None,
                reuse_port: false,
                nonblocking: false,
            },
        }
    }

    /// The name by which the supervisor passes it (`LISTEN_FDNAMES`; of systemd,
    /// `FileDescriptorName=`). A passed socket of this name is taken whatever its address. It also
    /// tells apart several sockets that ask for port 0. At most 255 bytes. Default: none.
    pub fn name(&mut self, name: impl Into<String>) -> &mut Self {
        self.name = Some(name.into());
        self
    }

    /// How many connections may wait to be accepted. The kernel caps it at `net.core.somaxconn`.
    /// Default: 4096.
    pub fn backlog(&mut self, connections: u32) -> &mut Self {
        self.settings.backlog = connections;
        self
    }

    /// Whether a socket at an IPv6 address leaves IPv4 to others. Default: as the system has it
    /// (`net.ipv6.bindv6only`).
    pub fn only_v6(&mut self, only: bool) -> &mut Self {
        self.settings.only_v6 = Some(only);
        self
    }

    /// The mode of a Unix socket's path, for example `0o660`, in force before anybody can connect.
    /// Default: what the umask leaves of `0o777`.
    pub fn mode(&mut self, mode: u32) -> &mut Self {
        self.settings.mode = Some(mode);
        self
    }

    /// Sets SO_REUSEPORT. Needed where a predecessor that hands nothing over, since it was built
    /// without this, still listens there with SO_REUSEPORT set. What is queued on its listener when
    /// it closes is lost that one time. Default: `false`; a group sets it anyway.
    pub fn reuse_port(&mut self, reuse: bool) -> &mut Self {
        self.settings.reuse_port = reuse;
        self
    }

    /// Sets O_NONBLOCK, which async runtimes need. It belongs to the socket, so all generations
    /// must want the same. Default: `false`, as in `std`.
    pub fn nonblocking(&mut self, nonblocking: bool) -> &mut Self {
        self.settings.nonblocking = nonblocking;
        self
    }

    /// A TCP listener. Of several addresses the first that is found, or else can be bound, is used.
    /// Bound anew it has SO_REUSEADDR set, as in `std`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Socket`]: the address cannot be resolved or bound, or this process has asked
    /// for it before. [`ErrorKind::Takeover`]: there is a predecessor, and taking over from it
    /// failed; it serves on, unharmed, and the call may be repeated.
    /// [`ErrorKind::NotInitialized`]: [`init`](crate::init) has not succeeded.
    pub fn tcp(&self, addr: impl ToSocketAddrs) -> Result<TcpListener> {
        self.one(SocketKind::Tcp, resolve(addr)?).map(TcpListener::from)
    }

    /// A UDP socket. Old and new generation read from one queue, until the old one closes it.
    ///
    /// # Errors
    ///
    /// As [`tcp`](Options::tcp).
    pub fn udp(&self, addr: impl ToSocketAddrs) -> Result<UdpSocket> {
        self.one(SocketKind::Udp, resolve(addr)?).map(UdpSocket::from)
    }

    /// A Unix stream listener at a path, of any length. A relative path counts from the current
    /// folder. The path stays when the service ends; the next one replaces it.
    ///
    /// # Errors
    ///
    /// As [`tcp`](Options::tcp); and [`ErrorKind::Socket`] where somebody else listens at that
    /// path, or something other than a socket is there.
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

    /// So many TCP listeners on one port, one for each worker. Taken over in order; see the
    /// [module](self) for what happens when their number changes.
    ///
    /// # Errors
    ///
    /// As [`tcp`](Options::tcp); and [`ErrorKind::Socket`] for a group of none.
    pub fn tcp_group(&self, addr: impl ToSocketAddrs, count: usize) -> Result<Vec<TcpListener>> {
        let group = self.group(SocketKind::Tcp, resolve(addr)?, count)?;
        Ok(group.into_iter().map(TcpListener::from).collect())
    }

    /// So many UDP sockets on one port, one for each worker. What comes from one sender goes to one
    /// member, as long as their number stays the same.
    ///
    /// # Errors
    ///
    /// As [`tcp_group`](Options::tcp_group).
    pub fn udp_group(&self, addr: impl ToSocketAddrs, count: usize) -> Result<Vec<UdpSocket>> {
        let group = self.group(SocketKind::Udp, resolve(addr)?, count)?;
        Ok(group.into_iter().map(UdpSocket::from).collect())
    }

    fn one(&self, kind: SocketKind, addresses: Vec<Address>) -> Result<OwnedFd> {
        let found = pool::obtain(&self.wanted(kind, addresses, None), self.settings)?;
        Ok(found.into_iter().next().expect("one was asked for"))
    }

    fn group(
        &self,
        kind: SocketKind,
        addresses: Vec<Address>,
        count: usize,
    ) -> Result<Vec<OwnedFd>> {
        if count == 0 {
            let text = "cannot make a group of no sockets (socket)";
            return Err(Error::new(ErrorKind::Socket, text));
        }
        pool::obtain(&self.wanted(kind, addresses, Some(count)), self.settings)
    }

    fn wanted(
        &self,
        kind: SocketKind,
        addresses: Vec<Address>,
        group: Option<usize>,
    ) -> Wanted<'_> {
        Wanted { kind, addresses, name: self.name.as_deref(), group }
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
