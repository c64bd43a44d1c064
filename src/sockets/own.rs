//! Sockets of further kinds, and those that the program makes or adjusts itself.

use super::{Options, at_path};
use crate::driver::sockets::ToMake;
use crate::error::Result;
use crate::proto::control::frame::{Address, SocketKind};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

impl Options {
    /// Makes a socket that has to be bound anew, instead of the crate. For what has to be set before a socket
    /// is bound or listens: IP_FREEBIND, IP_TRANSPARENT, SO_BINDTODEVICE, TCP_FASTOPEN, SO_MARK, MPTCP, a
    /// buffer size. It is not called for a socket that is found, whoever holds it. Default: none.
    ///
    /// `make` gets the [place](ToMake) and returns a socket that is bound there, and that listens if it is of a
    /// kind that does. Its queue is what `make` chooses: [`backlog`](Options::backlog) then holds only for a
    /// listener that was taken over. The crate sets O_NONBLOCK as [`nonblocking`](Options::nonblocking)
    /// says, and gives the path of a Unix socket its mode and its owner. For a group, `make` is called once
    /// for each member. It must not ask for a socket of this crate itself: that call would never return.
    ///
    /// ```no_run
    /// use seamless::sockets::Place;
    /// use socket2::{Domain, Protocol, Socket, Type};
    ///
    /// # seamless::init("")?;
    /// let mut options = seamless::sockets::Options::new();
    /// options.make(|wanted| {
    ///     let Place::Inet(address) = wanted.place else { unreachable!("only TCP is asked for") };
    ///     let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    ///     socket.set_reuse_address(true)?;
    ///     socket.set_reuse_port(wanted.share_port)?;
    ///     socket.set_freebind_v4(true)?; // the address may come later
    ///     socket.bind(&address.into())?;
    ///     socket.listen(4096)?;
    ///     Ok(socket.into())
    /// });
    /// let listener = options.tcp("192.0.2.1:80")?;
    /// # Ok::<(), seamless::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The call that asks for the socket fails with [`ErrorKind::Socket`](crate::ErrorKind::Socket) if `make`
    /// fails, or if what it returns is of another kind, is bound to another address, does not listen, or is
    /// not close-on-exec.
    pub fn make(
        &mut self,
        make: impl Fn(&ToMake) -> io::Result<OwnedFd> + Send + Sync + 'static,
    ) -> &mut Self {
        self.own.make = Some(Arc::new(make));
        self
    }

    /// Changes a socket in each generation, wherever it came from. For options that can be changed at any
    /// time, such as a buffer size or TCP_DEFER_ACCEPT. Default: none.
    ///
    /// A socket that is bound anew is adjusted at once. One that was found is adjusted at the beginning of
    /// [`started`](crate::started), since the predecessor shares it: a version that fails before that
    /// changes nothing. `adjust` must not change O_NONBLOCK (see
    /// [`change_nonblocking`](Options::change_nonblocking)), and must not ask for a socket of this crate.
    ///
    /// # Errors
    ///
    /// If `adjust` fails, the call that asks for the socket fails with
    /// [`ErrorKind::Socket`](crate::ErrorKind::Socket), or `started` does. It may be called again.
    pub fn adjust(
        &mut self,
        adjust: impl Fn(BorrowedFd<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> &mut Self {
        self.own.adjust = Some(Arc::new(adjust));
        self
    }

    /// The number of a descriptor under which the supervisor has passed the socket. For a supervisor that
    /// tells it on the command line instead of in variables, such as circus:
    ///
    /// ```ini
    /// [watcher:web]
    /// cmd = /usr/local/bin/web --fd $(circus.sockets.web)
    /// use_sockets = True
    /// ```
    ///
    /// The socket is used whatever its address. It must be of the kind that is asked for, and inherited by
    /// `exec`: a descriptor that this program has opened itself is refused. If it cannot be used, the log says
    /// why, and the socket is taken over from the predecessor or bound. Default: none.
    pub fn passed_as(&mut self, fd: RawFd) -> &mut Self {
        self.own.passed_as = Some(fd);
        self.name.get_or_insert_with(|| format!("fd-{fd}"));
        self
    }

    /// A Unix listener at a path whose connections carry messages (SOCK_SEQPACKET, `unix(7)`). `std` has no
    /// type for it. It is found and bound as [`unix`](Options::unix) does.
    ///
    /// # Errors
    ///
    /// As [`unix`](Options::unix).
    pub fn unix_seqpacket(&self, path: impl AsRef<Path>) -> Result<OwnedFd> {
        self.one(SocketKind::UnixSeqpacket, at_path(path.as_ref())?)
    }

    /// A listener for connections between a virtual machine and its host (`vsock(7)`). `std` has no type for
    /// it. `cid`: `u32::MAX` for every context (VMADDR_CID_ANY). `port`: `u32::MAX` for one that the system
    /// chooses.
    ///
    /// # Errors
    ///
    /// As [`tcp`](Options::tcp).
    pub fn vsock(&self, cid: u32, port: u32) -> Result<OwnedFd> {
        self.one(SocketKind::Vsock, vec![Address::Vsock { cid, port }])
    }
}
