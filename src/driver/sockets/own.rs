//! Sockets that the program makes or adjusts itself.

use crate::proto::control::frame::{Address, SocketKind};
use crate::sys::passed;
use crate::sys::socket::{self, Settings};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
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

/// Has the program make a socket, and checks what it has made.
pub(super) fn make(
    make: &Make,
    kind: SocketKind,
    place: Place,
    settings: Settings,
) -> io::Result<OwnedFd> {
    let share_port = settings.reuse_port && matches!(place, Place::Inet(_));
    let wanted = ToMake { place, share_port };
    let fd = make(&wanted)?;
    check(&fd, kind, &wanted.place)?;
    socket::set_nonblocking(fd.as_fd(), settings.nonblocking)?;
    Ok(fd)
}

fn check(fd: &OwnedFd, kind: SocketKind, place: &Place) -> io::Result<()> {
    let wrong = |why: String| {
        let text = format!("what `make` returned cannot be used: {why}");
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    };
    match socket::describe(fd.as_fd()) {
        Err(why) => wrong(why),
        Ok((made, _)) if made != kind => {
            wrong(format!("it is a {} socket, not a {} socket", made.name(), kind.name()))
        }
        Ok((_, local)) if !place.is_at(&local) => wrong(format!("it is bound to {local}")),
        Ok(_) if !passed::is_close_on_exec(fd.as_fd())? => {
            wrong("it is not close-on-exec (SOCK_CLOEXEC)".to_owned())
        }
        Ok(_) => Ok(()),
    }
}

impl Place {
    /// Is a socket with this address bound here?
    fn is_at(&self, local: &Address) -> bool {
        match (self, local) {
            (Place::Inet(asked), Address::Inet(local)) => {
                local.ip() == asked.ip() && (asked.port() == 0 || local.port() == asked.port())
            }
            (Place::Path(asked), Address::Unix(local)) => asked.as_os_str().as_bytes() == local,
            (Place::Vsock { cid, port }, Address::Vsock { cid: at, port: got }) => {
                at == cid && (*port == Address::ANY_VSOCK_PORT || got == port)
            }
            _ => false,
        }
    }
}
