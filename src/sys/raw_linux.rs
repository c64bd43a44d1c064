//! What only Linux has: system calls and constants that neither `std` nor `nix` has for every Unix.
//! `raw_elsewhere` has the same names for other systems. Each function is safe to call.
#![allow(unsafe_code)]

use super::raw::{check, sender};
use super::shortage::uninterrupted;
use crate::proto::control::frame::Address;
use crate::proto::flows::bpf::Instruction;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open};
use nix::libc::{self, c_int};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    self as nix_socket, AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, VsockAddr,
    accept4, getsockname, getsockopt, setsockopt, socketpair, sockopt,
};
use nix::sys::stat::{Mode, fchmod};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::time::ClockId;
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};
use std::ffi::CStr;
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub(crate) use libc::{AF_VSOCK, IPPROTO_MPTCP, MSG_CMSG_CLOEXEC};
#[cfg(feature = "command")]
pub(crate) use nix::unistd::getgrouplist;

/// See [`signals::HALTS`](super::signals::HALTS).
pub(crate) const HALTS: &[i32] = &[libc::SIGQUIT, libc::SIGPWR];
/// There are launchers, restarts and takeovers.
pub(crate) const RESTARTS: bool = true;
pub(crate) const MSG_NOSIGNAL: MsgFlags = MsgFlags::MSG_NOSIGNAL;

// Options that nix does not have.
sockopt_impl!(Domain, GetOnly, libc::SOL_SOCKET, libc::SO_DOMAIN, c_int);
sockopt_impl!(Protocol, GetOnly, libc::SOL_SOCKET, libc::SO_PROTOCOL, c_int);
sockopt_impl!(Cookie, GetOnly, libc::SOL_SOCKET, libc::SO_COOKIE, u64);
sockopt_impl!(BindToIfIndex, Both, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, c_int);
const SO_DETACH_REUSEPORT_BPF: c_int = 68;
sockopt_impl!(DetachReusePortBpf, SetOnly, libc::SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, c_int);

/// `pidfd_open(2)`; close-on-exec from birth.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers; a result that is not negative is a new descriptor of ours.
    unsafe {
        let fd = check(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// The PID namespace of a process (`PIDFD_GET_PID_NAMESPACE`, `ioctl_pidfd(2)`), since Linux 6.11.
pub(crate) fn pid_namespace(pidfd: &OwnedFd) -> io::Result<OwnedFd> {
    const PIDFD_GET_PID_NAMESPACE: u32 = 0xFF05;
    // SAFETY: the descriptor is open for the call, which reads no memory of ours; a result that is not
    // negative is a new descriptor of ours.
    unsafe {
        let fd = check(libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_PID_NAMESPACE as _, 0).into())?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Has the kernel KILL a program when the thread that starts it ends (`PR_SET_PDEATHSIG`): with the end of
/// this process at the latest.
pub(crate) fn end_with_this_thread(command: &mut Command) {
    // SAFETY: between fork and exec this makes one system call, and neither allocates nor locks.
    unsafe {
        command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(nix::sys::signal::SIGKILL)?));
    }
}

/// `pidfd_send_signal(2)`.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>(); // as kill(2) does
    // SAFETY: the descriptor is open for the call, and a null siginfo is allowed.
    unsafe {
        check(libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0))
            .map(drop)
    }
}

/// The first and last real-time signal that the C library leaves to programs.
pub(crate) fn real_time_signals() -> std::ops::RangeInclusive<i32> {
    libc::SIGRTMIN()..=libc::SIGRTMAX()
}

/// The path of this program as it was given to `execve(2)` (`getauxval(3)`).
pub(crate) fn executed_path() -> Option<std::ffi::OsString> {
    use std::os::unix::ffi::OsStrExt;
    // SAFETY: the kernel puts a NUL-terminated string there, which lives as long as the process.
    let path = unsafe {
        let path = libc::getauxval(libc::AT_EXECFN) as *const libc::c_char;
        if path.is_null() {
            return None;
        }
        CStr::from_ptr(path)
    };
    Some(std::ffi::OsStr::from_bytes(path.to_bytes()).to_owned())
}

/// Gives up all users and groups but these, for good (`setresuid(2)`).
pub(crate) fn become_user(user: u32, group: u32, groups: &[u32]) -> io::Result<()> {
    let groups: Vec<Gid> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    setgroups(&groups)?;
    setresgid(group, group, group)?;
    Ok(setresuid(user, user, user)?)
}

/// The time since boot, suspensions included (CLOCK_BOOTTIME, `clock_gettime(2)`).
pub(crate) fn since_boot() -> Duration {
    // Linux has had this clock since 2.6.39.
    ClockId::CLOCK_BOOTTIME.now().map_or(Duration::ZERO, Duration::from)
}

/// Gives unused memory back to the system: `malloc_trim(3)`, if the C library has it.
pub(crate) fn trim_memory() {
    // SAFETY: takes an integer; gives back only memory that is not in use.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Lets this program choose among the sockets of a SO_REUSEPORT group, instead of the one before (`socket(7)`,
/// SO_ATTACH_REUSEPORT_CBPF). It returns the index of a socket. The socket is in such a group. No privilege is
/// needed.
pub(crate) fn attach_to_group(socket: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let native = |one: &Instruction| {
        let Instruction { code, jt, jf, k } = *one;
        libc::sock_filter { code, jt, jf, k }
    };
    let mut native: Vec<libc::sock_filter> = program.iter().map(native).collect();
    let program = libc::sock_fprog { len: native.len() as _, filter: native.as_mut_ptr() };
    Ok(setsockopt(&socket, sockopt::AttachReusePortCbpf, &program)?)
}

/// Removes the program from a SO_REUSEPORT group.
pub(crate) fn detach_from_group(socket: BorrowedFd<'_>) -> nix::Result<()> {
    setsockopt(&socket, DetachReusePortBpf, &0)
}

/// Closes these descriptors, as far as they are open, and gives their numbers to what can be neither read nor written:
/// `dup3(2)`, and O_PATH of `open(2)`. Only for [`close_all_but`](super::launch::close_all_but), whose caller uses none
/// of them any more.
pub(crate) fn close_for_good(numbers: &[RawFd]) -> io::Result<()> {
    let nothing = open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    for fd in numbers.iter().filter(|fd| **fd != nothing.as_raw_fd()) {
        // SAFETY: takes integers; no code of this process uses this descriptor any more, as the caller knows.
        unsafe {
            if libc::fcntl(*fd, libc::F_GETFD) >= 0 {
                check(libc::dup3(nothing.as_raw_fd(), *fd, libc::O_CLOEXEC).into())?;
            }
        }
    }
    Ok(())
}

/// Dumps no core when this process is ended by a signal.
pub(crate) fn dump_no_core() {
    _ = nix::sys::prctl::set_dumpable(false);
}

/// A child that has ended. `waitid` of nix fails if a real-time signal has ended it.
fn ended_child(look: WaitPidFlag) -> Option<i32> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: writes to the structure only, which is zeroed, so it is initialized whatever happens.
    let info = unsafe {
        check(libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), look.bits()).into()).ok()?;
        info.assume_init()
    };
    Some(sender(&info)).filter(|pid| *pid > 0) // 0: no child has ended
}

/// See [`launch::reap_orphans`](super::launch::reap_orphans).
pub(crate) fn reap_orphans(is_ours: impl Fn(i32) -> bool) {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Some(ended) = ended_child(look) {
        if is_ours(ended) {
            return; // `Daemon::ended` waits for it next, and then this function is called again
        }
        _ = waitpid(Pid::from_raw(ended), Some(WaitPidFlag::WNOHANG));
    }
}

// ---- sockets ----

/// A socket that is close-on-exec from birth.
pub(crate) fn socket(
    family: AddressFamily,
    ty: SockType,
    nonblocking: bool,
) -> io::Result<OwnedFd> {
    let more = if nonblocking { SockFlag::SOCK_NONBLOCK } else { SockFlag::empty() };
    Ok(nix_socket::socket(family, ty, SockFlag::SOCK_CLOEXEC | more, None)?)
}

/// Both ends of a SEQPACKET connection, close-on-exec.
pub(crate) fn seqpacket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?)
}

/// The next connection, close-on-exec; it never blocks.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    accept4(listener.as_raw_fd(), flags).map(super::raw::adopt)
}

/// The address family of a socket.
pub(crate) fn domain(socket: BorrowedFd<'_>) -> nix::Result<c_int> {
    getsockopt(&socket, Domain)
}

/// The protocol of a socket of this type.
pub(crate) fn protocol(socket: BorrowedFd<'_>, _ty: c_int) -> nix::Result<c_int> {
    getsockopt(&socket, Protocol)
}

/// Fills the bytes with random ones (`getrandom(2)`); waits for the kernel's generator if the system has just
/// booted.
pub(crate) fn random(bytes: &mut [u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        // SAFETY: the kernel writes at most as many bytes as there is room for.
        let got = uninterrupted(|| unsafe {
            check(libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) as _)
        })?;
        rest = &mut rest[got as usize..];
    }
    Ok(())
}

/// A number that distinguishes a socket from every other one, and that its duplicates share.
pub(crate) fn cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(getsockopt(&socket, Cookie)?)
}

/// The interface that a socket is bound to (Linux 5.7 or later).
pub(crate) fn interface(socket: BorrowedFd<'_>) -> nix::Result<c_int> {
    getsockopt(&socket, BindToIfIndex)
}

/// Binds a socket to an interface, which need not exist (Linux 5.7 or later).
pub(crate) fn bind_to_interface(socket: BorrowedFd<'_>, index: c_int) -> io::Result<()> {
    Ok(setsockopt(&socket, BindToIfIndex, &index)?)
}

/// PID and user of the peer (SO_PEERCRED, `unix(7)`). The PID is 0 if the peer cannot be seen.
pub(crate) fn peer(socket: BorrowedFd<'_>) -> nix::Result<(i32, u32)> {
    getsockopt(&socket, sockopt::PeerCredentials).map(|peer| (peer.pid(), peer.uid()))
}

/// A pidfd of the peer (SO_PEERPIDFD); `None` if it has ended.
pub(crate) fn peer_pidfd(socket: BorrowedFd<'_>) -> nix::Result<Option<OwnedFd>> {
    match getsockopt(&socket, sockopt::PeerPidfd) {
        Ok(pidfd) => Ok(Some(pidfd)),
        Err(Errno::ENODATA | Errno::ESRCH | Errno::EINVAL) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A vsock socket that is bound (`vsock(7)`).
pub(crate) fn bind_vsock(cid: u32, port: u32, nonblocking: bool) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Vsock, SockType::Stream, nonblocking)?;
    nix_socket::bind(socket.as_raw_fd(), &VsockAddr::new(cid, port))?;
    Ok(socket)
}

/// Where a vsock socket is bound.
pub(crate) fn vsock_address(socket: BorrowedFd<'_>) -> nix::Result<Option<Address>> {
    let local: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    Ok(local.as_vsock_addr().map(|local| Address::Vsock { cid: local.cid(), port: local.port() }))
}

/// The name of an abstract address.
pub(crate) fn abstract_name(address: &SocketAddr) -> Option<&[u8]> {
    address.as_abstract_name()
}

/// Gives a Unix socket that is not bound yet the mode of the file that `bind` creates, less the umask.
pub(crate) fn set_mode_of_unbound(socket: &OwnedFd, mode: u32) -> io::Result<()> {
    Ok(fchmod(socket, Mode::from_bits_truncate(mode))?)
}

/// Opens the file itself (O_PATH), to be used as `/proc/self/fd/N`: for paths that are too long for the
/// address of a socket. Not by `std`: musl counts O_PATH among the access modes, and so `std` drops it there.
pub(crate) fn open_path(path: &Path, more: OFlag) -> io::Result<File> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | more;
    uninterrupted(|| Ok(open(path, flags, Mode::empty())?.into()))
}

/// The file of a Unix socket. It is held open, so the file that was examined is the one that is changed, even
/// if another one has its path by now. A link is not followed.
pub(crate) struct SocketFile(File);

impl SocketFile {
    pub(crate) fn open(path: &Path) -> io::Result<SocketFile> {
        open_path(path, OFlag::O_NOFOLLOW).map(SocketFile)
    }

    pub(crate) fn about(&self) -> io::Result<Metadata> {
        self.0.metadata()
    }

    pub(crate) fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        chown(self.held(), uid, gid)
    }

    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        fs::set_permissions(self.held(), Permissions::from_mode(mode))
    }

    fn held(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }
}

// ---- sealed memory ----

/// Without these seals the sender could cut the bytes off, or change them, while the receiver reads them.
/// `writable`: only the size stays, so that the memory can be mapped for writing.
fn seals(writable: bool) -> SealFlag {
    let size = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    if writable { size } else { size | SealFlag::F_SEAL_WRITE }
}

/// A file in memory (`memfd_create(2)`), which `/proc` shows under this name.
pub(crate) fn memory(name: &CStr) -> io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    Ok(memfd_create(name, flags)?.into())
}

pub(crate) fn seal(file: &File, writable: bool) -> io::Result<()> {
    fcntl(file, FcntlArg::F_ADD_SEALS(seals(writable) | SealFlag::F_SEAL_SEAL))?;
    Ok(())
}

/// Was it sealed so? `false` also for a descriptor that is not such a file.
pub(crate) fn is_sealed(fd: impl AsFd, writable: bool) -> io::Result<bool> {
    match fcntl(fd, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_truncate) {
        Ok(held) => Ok(held.intersection(seals(false)) == seals(writable)),
        Err(Errno::EINVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
