//! Groups of sockets on one port (SO_REUSEPORT), and which members of a group get new connections and
//! datagrams.

use super::system;
pub(crate) use super::system::attach_to_group as attach;
use crate::proto::control::frame::SocketKind;
use crate::proto::flows::bpf::{self, Assembler};
use crate::proto::flows::program;
use nix::errno::Errno;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use std::io;
use std::os::fd::BorrowedFd;

/// Lets more sockets of this user share the port of this one, which may have been bound without
/// SO_REUSEPORT.
pub(crate) fn share_port(socket: BorrowedFd<'_>) -> io::Result<()> {
    if !getsockopt(&socket, sockopt::ReusePort)? {
        setsockopt(&socket, sockopt::ReusePort, &true)?;
    }
    Ok(())
}

/// Lets new connections and datagrams go only to the first `members` sockets of a SO_REUSEPORT group. The
/// order is that in which the sockets joined: a UDP socket joins when it is bound, a TCP socket when it
/// begins to listen. TCP connections are spread at random, UDP datagrams by their sender, so that those of
/// one sender stay together. The program belongs to the group, not to this process. No privilege is
/// needed.
pub(crate) fn steer_to_first(
    socket: BorrowedFd<'_>,
    kind: SocketKind,
    members: u32,
) -> io::Result<()> {
    /// A random number (SKF_AD_OFF + SKF_AD_RANDOM).
    const RANDOM: u32 = (-0x1000_i32 + 56) as u32;
    let mut asm = Assembler::default();
    match kind {
        SocketKind::Udp => program::sender(&mut asm),
        _ => asm.op(bpf::LOAD_WORD, RANDOM),
    }
    asm.op(bpf::MODULO, members);
    asm.op(bpf::RETURN_A, 0);
    attach(socket, &asm.finish())
}

/// Lets the kernel spread over all members again.
pub(crate) fn steer_to_all(socket: BorrowedFd<'_>) -> io::Result<()> {
    match system::detach_from_group(socket) {
        // There is no program, or the socket was bound without SO_REUSEPORT and is in no group.
        Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
