//! The channel between launcher and daemon: a Unix SEQPACKET socketpair. Messages keep their
//! borders, each end learns at once that the other is gone, and the kernel says who made it.

use super::raw;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    getsockopt, recvmsg, sendmsg, socketpair, sockopt,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

/// What a look at the channel finds.
#[derive(Debug)]
pub(crate) enum Received {
    Message(Vec<u8>, Option<OwnedFd>),
    Empty,
    /// The peer is gone, and its last message has been read.
    Closed,
}

impl Channel {
    /// Both ends, close-on-exec.
    pub(crate) fn pair() -> io::Result<(Channel, Channel)> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Channel(ours), Channel(theirs)))
    }

    /// The end that this process inherited from the launcher under that number. The number may as
    /// well be a descriptor of the program's own, so it is looked at before anything is read from
    /// it: only the launcher can have made a SEQPACKET socket whose peer (SO_PEERCRED, `unix(7)`)
    /// it is.
    pub(crate) fn inherited(fd: RawFd, launcher: i32) -> Option<Channel> {
        let is_ours = raw::look_at(fd, |fd| {
            getsockopt(&fd, sockopt::SockType) == Ok(SockType::SeqPacket)
                && getsockopt(&fd, sockopt::PeerCredentials)
                    .is_ok_and(|peer| peer.pid() == launcher)
        })?;
        is_ours.then(|| Channel(raw::adopt(fd)))
    }

    /// Never waits and never raises PIPE.
    pub(crate) fn send(&self, message: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let fds: Vec<RawFd> = fd.iter().map(|fd| fd.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let control: &[_] = if fds.is_empty() { &[] } else { &rights };
        let (parts, flags) =
            ([IoSlice::new(message)], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
        loop {
            match sendmsg::<UnixAddr>(self.0.as_raw_fd(), &parts, control, flags, None) {
                Err(Errno::EINTR) => {}
                sent => return Ok(sent.map(drop)?),
            }
        }
    }

    /// Never waits.
    pub(crate) fn receive(&self, longest: usize) -> Received {
        loop {
            match self.try_receive(longest) {
                Ok((message, _)) if message.is_empty() => return Received::Closed, // we send none
                Ok((message, fd)) => return Received::Message(message, fd),
                Err(Errno::EINTR) => {}
                // Short of memory, nobody is gone: it is read again.
                Err(Errno::EAGAIN | Errno::ENOMEM | Errno::ENOBUFS) => return Received::Empty,
                // ECONNRESET: it closed without reading what we sent.
                Err(_) => return Received::Closed,
            }
        }
    }

    fn try_receive(&self, longest: usize) -> nix::Result<(Vec<u8>, Option<OwnedFd>)> {
        let mut message = vec![0; longest];
        let mut control = nix::cmsg_space!(RawFd);
        let mut parts = [IoSliceMut::new(&mut message)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let received =
            recvmsg::<UnixAddr>(self.0.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
        let fd = received.cmsgs().ok().and_then(|mut controls| {
            controls.find_map(|one| match one {
                ControlMessageOwned::ScmRights(fds) => fds.first().copied().map(raw::adopt),
                _ => None,
            })
        });
        let length = received.bytes;
        message.truncate(length);
        Ok((message, fd))
    }

    /// Shall programs that this process executes inherit it?
    pub(crate) fn let_inherit(&self, inherit: bool) {
        let flags = if inherit { FdFlag::empty() } else { FdFlag::FD_CLOEXEC };
        _ = fcntl(&self.0, FcntlArg::F_SETFD(flags)); // cannot fail: it is open
    }

    pub(crate) fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
