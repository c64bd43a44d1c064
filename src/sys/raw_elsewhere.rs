//! What `raw_linux` has, for every other system. There is no launcher there, so what only launchers and
//! takeovers need is an error, "unsupported", and is never called. Sockets are bound and used as on Linux.

use crate::proto::control::frame::Address;
use crate::proto::flows::bpf::Instruction;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc::{self, c_int};
use nix::sys::socket::{
    self as nix_socket, AddressFamily, MsgFlags, SockFlag, SockType, SockaddrLike, SockaddrStorage,
    getsockname,
};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
#[cfg(feature = "command")]
use nix::unistd::Gid;
use std::ffi::{CStr, OsString};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::lchown;
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// See [`signals::HALTS`](super::signals::HALTS).
pub(crate) const HALTS: &[i32] = &[libc::SIGQUIT];
/// There are launchers, restarts and takeovers.
pub(crate) const RESTARTS: bool = false;
/// Rust programs ignore PIPE.
pub(crate) const MSG_NOSIGNAL: MsgFlags = MsgFlags::empty();
pub(crate) const MSG_CMSG_CLOEXEC: c_int = 0;
/// No socket has it.
pub(crate) const IPPROTO_MPTCP: c_int = -1;

macro_rules! unsupported {
    ($(fn $name:ident($($argument:ty),*) -> $result:ty;)*) => {
        $(pub(crate) fn $name($(_: $argument),*) -> io::Result<$result> {
            Err(io::ErrorKind::Unsupported.into())
        })*
    };
}

unsupported! {
    fn pidfd_open(i32) -> OwnedFd;
    fn pid_namespace(&OwnedFd) -> OwnedFd;
    fn pidfd_send_signal(BorrowedFd<'_>, i32) -> ();
    fn close_for_good(&[RawFd]) -> ();
    fn become_user(u32, u32, &[u32]) -> ();
    fn seqpacket_pair() -> (OwnedFd, OwnedFd);
    fn cookie(BorrowedFd<'_>) -> u64;
    fn bind_to_interface(BorrowedFd<'_>, c_int) -> ();
    fn bind_vsock(u32, u32, bool) -> OwnedFd;
    fn attach_to_group(BorrowedFd<'_>, &[Instruction]) -> ();
    fn memory(&CStr) -> File;
    fn seal(&File, bool) -> ();
    fn is_sealed(impl AsFd, bool) -> bool;
}

// ---- processes ----

pub(crate) fn end_with_this_thread(_command: &mut Command) {}

pub(crate) fn executed_path() -> Option<OsString> {
    None
}

pub(crate) fn trim_memory() {}

/// Only for keepers, which these systems do not have.
pub(crate) fn since_boot() -> std::time::Duration {
    std::time::Duration::ZERO
}

pub(crate) fn dump_no_core() {}

pub(crate) fn reap_orphans(_is_ours: impl Fn(i32) -> bool) {}

#[cfg(feature = "command")]
pub(crate) fn getgrouplist(_user: &CStr, group: Gid) -> nix::Result<Vec<Gid>> {
    Ok(vec![group])
}

/// Some systems have real-time signals, but no common way to tell which.
pub(crate) fn real_time_signals() -> std::ops::Range<i32> {
    0..0
}

// ---- sockets ----

/// A socket that is close-on-exec.
pub(crate) fn socket(
    family: AddressFamily,
    ty: SockType,
    nonblocking: bool,
) -> io::Result<OwnedFd> {
    let socket = nix_socket::socket(family, ty, SockFlag::empty(), None)?;
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    if nonblocking {
        fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    Ok(socket)
}

pub(crate) fn accept(_listener: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    Err(Errno::ENOTSUP)
}

/// The address family of a socket.
pub(crate) fn domain(socket: BorrowedFd<'_>) -> nix::Result<c_int> {
    let local: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    Ok(local.family().map_or(libc::AF_UNSPEC, |family| family as c_int))
}

/// The protocol of a socket of this type: the usual one, since not every system tells it.
pub(crate) fn protocol(_socket: BorrowedFd<'_>, ty: c_int) -> nix::Result<c_int> {
    Ok(if ty == libc::SOCK_DGRAM { libc::IPPROTO_UDP } else { libc::IPPROTO_TCP })
}

/// Fills the bytes with random ones.
pub(crate) fn random(bytes: &mut [u8]) -> io::Result<()> {
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, bytes)
}

pub(crate) fn interface(_socket: BorrowedFd<'_>) -> nix::Result<c_int> {
    Err(Errno::ENOPROTOOPT)
}

/// PID and user of the peer. The PID is 0 if the peer cannot be seen.
pub(crate) fn peer(_socket: BorrowedFd<'_>) -> nix::Result<(i32, u32)> {
    Ok((0, u32::MAX))
}

pub(crate) fn peer_pidfd(_socket: BorrowedFd<'_>) -> nix::Result<Option<OwnedFd>> {
    Err(Errno::ENOPROTOOPT)
}

/// No socket has it.
pub(crate) const AF_VSOCK: c_int = -1;

pub(crate) fn vsock_address(_socket: BorrowedFd<'_>) -> nix::Result<Option<Address>> {
    Ok(None)
}

pub(crate) fn abstract_name(_address: &SocketAddr) -> Option<&[u8]> {
    None
}

/// Not every system can. [`SocketFile::set_mode`] does it once the socket is bound, and before it listens.
pub(crate) fn set_mode_of_unbound(_socket: &OwnedFd, _mode: u32) -> io::Result<()> {
    Ok(())
}

/// For paths that are too long for the address of a socket: there is no way to them.
pub(crate) fn open_path(_path: &Path, _more: OFlag) -> io::Result<File> {
    Err(Errno::ENAMETOOLONG.into())
}

/// The file of a Unix socket, by its path. A link is not followed.
pub(crate) struct SocketFile(PathBuf);

impl SocketFile {
    pub(crate) fn open(path: &Path) -> io::Result<SocketFile> {
        Ok(SocketFile(path.to_owned()))
    }

    pub(crate) fn about(&self) -> io::Result<Metadata> {
        fs::symlink_metadata(&self.0)
    }

    pub(crate) fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        lchown(&self.0, uid, gid)
    }

    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        let mode = Mode::from_bits_truncate(mode as libc::mode_t);
        Ok(fchmodat(AT_FDCWD, &self.0, mode, FchmodatFlags::NoFollowSymlink)?)
    }
}

/// Nothing was attached.
pub(crate) fn detach_from_group(_socket: BorrowedFd<'_>) -> nix::Result<()> {
    Ok(())
}
