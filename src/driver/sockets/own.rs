//! Sockets that the program makes or adjusts itself.

use crate::proto::control::frame::{Address, SocketKind};
use crate::sys::passed;
use crate::sys::socket::{self, Settings};
use crate::sys::unix_path::Beside;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a socket is to be bound that the program makes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// A TCP or UDP address. With port 0, the system chooses the port.
    Inet(SocketAddr),
    /// A path. It is a temporary name: the crate renames the socket to the path that was asked for.
    Path(PathBuf),
    /// A context ID and a port of `vsock(7)`.
    #[allow(missing_docs)]
    Vsock { cid: u32, port: u32 },
}

/// A socket that the program is to make itself: see [`Options::make`](crate::sockets::Options::make).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ToMake {
    /// Where it has to be bound.
    pub place: Place,
    /// It must have SO_REUSEPORT before it is bound: it belongs to a group, or shares its port with a socket
    /// of the predecessor at an address that overlaps.
    pub share_port: bool,
}

/// Makes a socket.
pub(crate) type Make = Arc<dyn Fn(&ToMake) -> io::Result<OwnedFd> + Send + Sync>;
/// Changes a socket.
pub(crate) type Adjust = Arc<dyn Fn(BorrowedFd<'_>) -> io::Result<()> + Send + Sync>;

/// What the program does itself.
#[derive(Clone, Default)]
pub(crate) struct Own {
    pub(crate) make: Option<Make>,
    pub(crate) adjust: Option<Adjust>,
    /// The number under which the supervisor has passed the socket.
    pub(crate) passed_as: Option<RawFd>,
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Own")
            .field("make", &self.make.is_some())
            .field("adjust", &self.adjust.is_some())
            .field("passed_as", &self.passed_as)
            .finish()
    }
}

/// Has the program make a TCP or UDP socket, and checks what it has made.
pub(super) fn make_inet(
    make: &Make,
    kind: SocketKind,
    address: SocketAddr,
    settings: Settings,
) -> io::Result<OwnedFd> {
    let fd = make(&ToMake { place: Place::Inet(address), share_port: settings.reuse_port })?;
    check(kind, &fd, |local| {
        let Address::Inet(local) = local else { return false };
        local.ip() == address.ip() && (address.port() == 0 || local.port() == address.port())
    })?;
    socket::set_nonblocking(fd.as_fd(), settings.nonblocking)?;
    Ok(fd)
}

/// The same for a Unix socket, which is put in place later.
pub(super) fn make_unix(
    make: &Make,
    kind: SocketKind,
    path: &Path,
    settings: Settings,
) -> io::Result<Beside> {
    Beside::make(path, settings, |temporary| {
        let fd = make(&ToMake { place: Place::Path(temporary.to_owned()), share_port: false })?;
        let asked = Address::Unix(temporary.as_os_str().as_bytes().to_vec());
        check(kind, &fd, |local| *local == asked)?;
        socket::set_nonblocking(fd.as_fd(), settings.nonblocking)?;
        Ok(fd)
    })
}

/// The same for a vsock listener.
pub(super) fn make_vsock(
    make: &Make,
    cid: u32,
    port: u32,
    settings: Settings,
) -> io::Result<OwnedFd> {
    let fd = make(&ToMake { place: Place::Vsock { cid, port }, share_port: false })?;
    check(SocketKind::Vsock, &fd, |local| {
        let any = port == Address::ANY_VSOCK_PORT;
        matches!(local, Address::Vsock { cid: at, port: got } if *at == cid && (any || *got == port))
    })?;
    socket::set_nonblocking(fd.as_fd(), settings.nonblocking)?;
    Ok(fd)
}

fn check(
    kind: SocketKind,
    fd: &OwnedFd,
    is_asked: impl FnOnce(&Address) -> bool,
) -> io::Result<()> {
    let wrong = |why: String| {
        let text = format!("what `make` returned cannot be used: {why}");
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    };
    match socket::describe(fd.as_fd()) {
        Err(why) => wrong(why),
        Ok((made, _)) if made != kind => {
            wrong(format!("it is a {} socket, not a {} socket", made.name(), kind.name()))
        }
        Ok((_, local)) if !is_asked(&local) => wrong(format!("it is bound to {local}")),
        Ok(_) if !passed::is_close_on_exec(fd.as_fd())? => {
            wrong("it is not close-on-exec (SOCK_CLOEXEC)".to_owned())
        }
        Ok(_) => Ok(()),
    }
}
