//! Groups of sockets on one port (SO_REUSEPORT), and which members of a group get new connections and
//! datagrams.

use super::system::{self, Instruction};
use crate::proto::control::frame::SocketKind;
use crate::proto::flows::bpf::Instruction as Portable;
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
    match kind {
        SocketKind::Udp => system::attach_to_group(socket, &by_sender(members)),
        _ => system::attach_to_group(socket, &at_random(members)),
    }
}

/// Lets the kernel spread over all members again.
pub(crate) fn steer_to_all(socket: BorrowedFd<'_>) -> io::Result<()> {
    match system::detach_from_group(socket) {
        // There is no program, or the socket was bound without SO_REUSEPORT and is in no group.
        Err(error)
            if matches!(
                error.raw_os_error().map(Errno::from_raw),
                Some(Errno::ENOENT | Errno::EINVAL)
            ) =>
        {
            Ok(())
        }
        done => done,
    }
}

/// Lets this program choose among the sockets of a SO_REUSEPORT group, instead of the one before. The socket
/// is in such a group. No privilege is needed.
pub(crate) fn attach(socket: BorrowedFd<'_>, program: &[Portable]) -> io::Result<()> {
    let native = |one: &Portable| Instruction { code: one.code, jt: one.jt, jf: one.jf, k: one.k };
    let program: Vec<Instruction> = program.iter().map(native).collect();
    system::attach_to_group(socket, &program)
}

// Classic BPF (`linux/filter.h`).
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF_AT_X: u16 = 0x48;
const ADD_X: u16 = 0x0c;
const MULTIPLY: u16 = 0x24;
const AND: u16 = 0x54;
const SHIFT_LEFT: u16 = 0x64;
const SHIFT_RIGHT: u16 = 0x74;
const MODULO: u16 = 0x94;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN_A: u16 = 0x16;
const A_TO_X: u16 = 0x07;
/// A random number (SKF_AD_OFF + SKF_AD_RANDOM).
const RANDOM: u32 = (-0x1000_i32 + 56) as u32;
/// The IP header (SKF_NET_OFF).
const IP: u32 = -0x10_0000_i32 as u32;

const fn op(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

fn at_random(members: u32) -> [Instruction; 3] {
    [op(LOAD_WORD, RANDOM), op(MODULO, members), op(RETURN_A, 0)]
}

/// Chooses by the sender's port and the end of its address. A packet that is too short goes to the first
/// member.
fn by_sender(members: u32) -> [Instruction; 20] {
    [
        op(LOAD_BYTE, IP),
        op(SHIFT_RIGHT, 4), // the version of IP
        Instruction { code: JUMP_IF_EQUAL, jt: 9, jf: 0, k: 6 },
        // IPv4: the port follows the header, whose length is in its first byte.
        op(LOAD_BYTE, IP),
        op(AND, 15),
        op(SHIFT_LEFT, 2),
        op(A_TO_X, 0),
        op(LOAD_HALF_AT_X, IP),
        op(A_TO_X, 0),
        op(LOAD_WORD, IP + 12),
        op(ADD_X, 0),
        op(JUMP, 4),
        // IPv6
        op(LOAD_HALF, IP + 40),
        op(A_TO_X, 0),
        op(LOAD_WORD, IP + 20),
        op(ADD_X, 0),
        // Spreads adjacent addresses.
        op(MULTIPLY, 0x9e37_79b1),
        op(SHIFT_RIGHT, 16),
        op(MODULO, members),
        op(RETURN_A, 0),
    ]
}
