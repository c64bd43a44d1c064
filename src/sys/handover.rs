//! The connection over which sockets and state are handed over: messages with descriptors beside
//! them, and who is at the other end. Acts, decides nothing, never blocks.

use super::raw;
use super::socket::{self, Beside, Peer, Settings, SocketType};
use crate::proto::control::frame::{FileId, STATE_MAX};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, SockFlag, UnixAddr, accept4, sendmsg};
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where a daemon waits for its successor.
#[derive(Debug)]
pub(crate) struct Listener {
    fd: OwnedFd,
    file: FileId,
}

impl Listener {
    /// For this path and for this user alone; it still has to be put in place.
    pub(crate) fn bind(path: &Path) -> io::Result<Beside> {
        let settings = Settings {
            backlog: 64,
            only_v6: None,
            mode: Some(0o600),
            reuse_port: false,
            nonblocking: true,
        };
        Beside::bind(SocketType::SeqPacket, path, settings)
    }

    pub(crate) fn place(beside: Beside) -> io::Result<Listener> {
        let (fd, file) = beside.place()?;
        Ok(Listener { fd, file })
    }

    /// Who has connected, if anybody has.
    pub(crate) fn accept(&self) -> io::Result<Option<Link>> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        match accept4(self.fd.as_raw_fd(), flags) {
            Ok(fd) => Ok(Some(Link { fd: raw::adopt(fd) })),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Does nobody listen at the path, neither we nor somebody else? What is no socket is in the way.
    pub(crate) fn is_lost(&self, path: &Path) -> bool {
        use socket::Listener::{NoSocket, Nobody, Somebody};
        socket::file_at(path) != Some(self.file)
            && socket::listener_at(path, SocketType::SeqPacket).is_ok_and(|there| match there {
                Nobody | NoSocket => true,
                Somebody(_) => false,
            })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Link {
    fd: OwnedFd,
}

/// What a look at a connection finds.
#[derive(Debug)]
pub(crate) enum Arrival {
    Message(Message),
    Nothing,
    Closed,
}

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) bytes: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
    /// It was longer than there was room for.
    pub(crate) is_cut: bool,
    /// Descriptors that came with it are lost (MSG_CTRUNC).
    pub(crate) lost_fds: bool,
}

impl Link {
    /// EAGAIN: too many wait there already.
    pub(crate) fn connect(path: &Path) -> io::Result<Link> {
        Ok(Link { fd: socket::connect(path, SocketType::SeqPacket)? })
    }

    pub(crate) fn peer(&self) -> Option<Peer> {
        socket::peer(self.fd.as_fd())
    }

    /// Who listens where this has connected to.
    pub(crate) fn listener(&self) -> Option<Peer> {
        socket::listener(self.fd.as_fd())
    }

    /// `false`: there is no room for it now.
    pub(crate) fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<bool> {
        let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let control: &[_] = if fds.is_empty() { &[] } else { &rights };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let parts = [IoSlice::new(bytes)];
        match sendmsg::<UnixAddr>(self.fd.as_raw_fd(), &parts, control, flags, None) {
            Ok(_) => Ok(true),
            // ETOOMANYREFS: too many descriptors of ours are under way, in other connections too.
            Err(
                Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS | Errno::ENOMEM | Errno::ETOOMANYREFS,
            ) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn receive(&self, longest: usize) -> io::Result<Arrival> {
        let mut bytes = vec![0; longest];
        let received = match raw::receive(self.fd.as_fd(), &mut bytes) {
            // It closed without reading all that we sent; what it sent before may still be there.
            Err(error) if error.raw_os_error() == Some(Errno::ECONNRESET as i32) => {
                raw::receive(self.fd.as_fd(), &mut bytes)
            }
            received => received,
        };
        match received {
            Ok(arrived) if arrived.length == 0 => Ok(Arrival::Closed), // nobody sends an empty message
            Ok(arrived) => {
                bytes.truncate(arrived.length);
                let (is_cut, lost_fds) = (arrived.is_cut, arrived.lost_fds);
                Ok(Arrival::Message(Message { bytes, fds: arrived.fds, is_cut, lost_fds }))
            }
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EAGAIN | Errno::EINTR) => Ok(Arrival::Nothing),
                Some(Errno::ECONNRESET) => Ok(Arrival::Closed),
                _ => Err(error),
            },
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Without these the sender could change what the receiver reads, or cut it off under its hands.
fn seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE
}

/// Memory that holds these bytes and can no longer be changed (`memfd_create(2)`).
pub(crate) fn seal(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"seamless-state", flags)?);
    file.write_all(bytes)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals() | SealFlag::F_SEAL_SEAL))?;
    Ok(file.into())
}

/// What sealed memory holds. `Err`: why it is not what it claims to be.
pub(crate) fn read_sealed(fd: OwnedFd, size: u64) -> Result<Vec<u8>, String> {
    match fcntl(&fd, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_truncate) {
        Ok(held) if held.contains(seals()) => {}
        Ok(_) | Err(Errno::EINVAL) => return Err("the state is no sealed memory".to_owned()),
        Err(error) => {
            return Err(format!("cannot look at the state: {}", io::Error::from(error)));
        }
    }
    let file = File::from(fd);
    let actual =
        file.metadata().map_err(|error| format!("cannot look at the state: {error}"))?.len();
    if actual != size || size > STATE_MAX {
        return Err(format!("the state has {actual} bytes, not {size}"));
    }
    let mut bytes = vec![0; size as usize];
    file.read_exact_at(&mut bytes, 0).map_err(|error| format!("cannot read the state: {error}"))?;
    Ok(bytes)
}

/// This user and root may take over and ask for the status, nobody else.
pub(crate) fn may_take(peer: Peer) -> bool {
    peer.uid == 0 || peer.uid == super::launch::effective_user()
}
