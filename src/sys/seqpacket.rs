//! A connection that carries messages, with descriptors beside them: a Unix SEQPACKET socket. The
//! channel between launcher and daemon is one, and each connection at the control socket is another.
//!
//! Messages keep their borders, each end learns at once that the other is gone, and the kernel says who
//! the peer is. Nothing here ever waits.

use super::raw;
pub(crate) use super::raw::Message;
use super::rlimit;
use super::shortage::{is_shortage, uninterrupted};
use super::socket::{self, Peer, Settings};
use super::system;
use super::unix_path::{self, Beside, Occupant};
use crate::proto::control::frame::{FileId, SocketKind};
use crate::proto::sockets::changes::FileChanges;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    ControlMessage, MsgFlags, SockType, UnixAddr, getsockopt, sendmsg, sockopt,
};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Link {
    fd: OwnedFd,
}

/// What [`Link::receive`] finds.
#[derive(Debug)]
pub(crate) enum Arrival {
    Message(Message),
    /// Nothing has arrived yet.
    Nothing,
    /// A message is there, but the kernel has no memory to deliver it now. Receive again after a pause.
    OutOfMemory,
    /// The peer has closed its end or has died, and its last message has been read.
    Closed,
}

impl Link {
    /// Both ends of a new connection, close-on-exec.
    pub(crate) fn pair() -> io::Result<(Link, Link)> {
        let (one, other) = system::seqpacket_pair()?;
        Ok((Link { fd: one }, Link { fd: other }))
    }

    /// Is the descriptor under this number the daemon's end of the channel, inherited from the launcher?
    /// It may as well be one of the program's own, so it is examined before anything is read from it: only
    /// the launcher can have made a SEQPACKET socket whose peer (SO_PEERCRED, `unix(7)`) the launcher is.
    pub(crate) fn is_channel(fd: RawFd, launcher: i32) -> io::Result<bool> {
        let looked = raw::look_at(fd, |fd| {
            if getsockopt(&fd, sockopt::SockType)? != SockType::SeqPacket {
                return Ok(false);
            }
            match system::peer(fd)?.0 {
                0 => Err(io::Error::other("the other end is in another PID namespace")),
                peer => Ok(peer == launcher),
            }
        });
        match looked.as_ref().err().and_then(io::Error::raw_os_error).map(Errno::from_raw) {
            // Not open, not a socket, not a kind that knows its peer.
            Some(Errno::EBADF | Errno::ENOTSOCK | Errno::ENOPROTOOPT) => Ok(false),
            _ => looked,
        }
    }

    pub(crate) fn adopt(fd: RawFd) -> Link {
        Link { fd: raw::adopt(fd) }
    }

    /// Connects to a control socket. The error is EAGAIN if too many connections wait there already.
    pub(crate) fn connect(path: &Path) -> io::Result<Link> {
        Ok(Link { fd: unix_path::connect(path, SocketKind::UnixSeqpacket)? })
    }

    /// The process at the other end.
    pub(crate) fn peer(&self) -> io::Result<Option<Peer>> {
        socket::peer(self.fd.as_fd())
    }

    /// The process that listens at the socket to which this has connected.
    pub(crate) fn listener(&self) -> io::Result<Option<Peer>> {
        socket::listener(self.fd.as_fd())
    }

    /// Sends one message. Never raises PIPE. The error [`is_shortage`] if there is no room for it now.
    pub(crate) fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let control: &[_] = if fds.is_empty() { &[] } else { &rights };
        let flags = MsgFlags::MSG_DONTWAIT | system::MSG_NOSIGNAL;
        let parts = [IoSlice::new(bytes)];
        let send = || Ok(sendmsg::<UnixAddr>(self.fd.as_raw_fd(), &parts, control, flags, None)?);
        uninterrupted(send).map(drop)
    }

    /// Is nobody left at the other end? What was sent before can still be read.
    pub(crate) fn is_closed(&self) -> bool {
        let mut link = [PollFd::new(self.as_fd(), PollFlags::empty())];
        let hung_up = |link: &PollFd<'_>| link.any().is_some_and(|any| any);
        poll(&mut link, PollTimeout::ZERO).is_ok() && hung_up(&link[0])
    }

    /// Receives one message of at most `longest` bytes.
    pub(crate) fn receive(&self, longest: usize) -> Arrival {
        let mut was_reset = false;
        loop {
            let error = match uninterrupted(|| raw::receive(self.fd.as_fd(), longest)) {
                // Nobody sends an empty one.
                Ok(message) if message.bytes.is_empty() => return Arrival::Closed,
                Ok(message) => return Arrival::Message(message),
                Err(error) => error,
            };
            match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EAGAIN) => return Arrival::Nothing,
                // The peer closed its end without reading all that we sent. What it sent before that may
                // still be there.
                Some(Errno::ECONNRESET) if !was_reset => was_reset = true,
                _ if is_shortage(&error) => return Arrival::OutOfMemory,
                _ => return Arrival::Closed,
            }
        }
    }

    /// Why this process may not receive anything: a filter of system calls. [`receive`](Self::receive) takes that
    /// for a link that is closed.
    pub(crate) fn refusal(&self) -> Option<io::Error> {
        let error = raw::receive(self.fd.as_fd(), 1).err()?;
        let errno = Errno::from_raw(error.raw_os_error()?);
        matches!(errno, Errno::EPERM | Errno::EACCES | Errno::ENOSYS).then_some(error)
    }

    /// Sets whether programs that this process executes inherit this end.
    pub(crate) fn let_inherit(&self, inherit: bool) {
        let flags = if inherit { FdFlag::empty() } else { FdFlag::FD_CLOEXEC };
        _ = fcntl(&self.fd, FcntlArg::F_SETFD(flags)); // cannot fail: it is open
    }

    pub(crate) fn number(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The control socket of a daemon: where its successor and the command connect.
#[derive(Debug)]
pub(crate) struct Listener {
    fd: OwnedFd,
    file: FileId,
}

impl Listener {
    /// Binds it for this path, open to this user and root alone. It still has to be put in place.
    pub(crate) fn bind(path: &Path) -> io::Result<Beside> {
        let settings = Settings {
            backlog: Some(64),
            only_v6: None,
            file: FileChanges { mode: Some(0o600), ..FileChanges::NONE },
            reuse_port: false,
            nonblocking: true,
            change_nonblocking: false,
        };
        Beside::bind(SocketKind::UnixSeqpacket, path, settings)
    }

    pub(crate) fn place(beside: Beside) -> io::Result<Listener> {
        let (fd, file) = beside.place()?;
        Ok(Listener { fd, file })
    }

    /// The next connection, if one waits. If the limit of open files is reached, it is raised.
    pub(crate) fn accept(&self) -> io::Result<Option<Link>> {
        rlimit::with_room(|| match system::accept(self.fd.as_fd()) {
            Ok(fd) => Ok(Some(Link { fd })),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => Ok(None),
            Err(error) => Err(error.into()),
        })
    }

    /// Has the path lost its listener: does neither this process nor another one listen there? Also `true` if the
    /// file there is no socket.
    pub(crate) fn is_lost(&self, path: &Path) -> bool {
        use Occupant::{NoSocket, Nobody};
        let occupant = || unix_path::occupant_of(path, SocketKind::UnixSeqpacket);
        unix_path::file_at(path) != Some(self.file) && matches!(occupant(), Ok(Nobody | NoSocket))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests;
