//! Unsafe code: system calls that neither `std` nor `nix` wraps, and the places where a bare number becomes
//! a descriptor. Each function is safe to call. What only Linux has is in `raw_linux`. No other file has
//! unsafe code.
#![allow(unsafe_code)]

use super::system;
use nix::libc;
use std::ffi::CStr;
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;

pub(super) fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// `listen(2)`. nix refuses a backlog above SOMAXCONN, which the kernel's `net.core.somaxconn` may
/// exceed.
pub(crate) fn listen(socket: BorrowedFd<'_>, backlog: u32) -> io::Result<()> {
    let backlog = backlog.try_into().unwrap_or(libc::c_int::MAX);
    // SAFETY: takes two integers; the descriptor is open for the call.
    unsafe { check(libc::listen(socket.as_raw_fd(), backlog).into()).map(drop) }
}

/// `getsockname(2)` of a Unix socket. nix does not read a path that fills the address to its last
/// byte.
pub(crate) fn unix_address(socket: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    // SAFETY: the descriptor is open for as long as it is borrowed, and nothing here closes it.
    let socket = ManuallyDrop::new(unsafe { UnixDatagram::from_raw_fd(socket.as_raw_fd()) });
    socket.local_addr()
}

/// `kill(2)` with any signal number, real-time ones included.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: takes two integers.
    unsafe { check(libc::kill(pid, signal).into()).map(drop) }
}

/// The process that sent a signal; 0 if it is not in our PID namespace.
pub(crate) fn sender(info: &libc::siginfo_t) -> i32 {
    // SAFETY: `si_pid` only reads; for kinds of signals that carry no PID it reads other initialized
    // bytes of the same union, and the kernel fills the whole structure.
    unsafe { info.si_pid() }
}

/// The action of a signal: its handler, flags and mask.
#[derive(Clone, Copy)]
pub(crate) struct Action(libc::sigaction);

impl Action {
    pub(crate) fn of(signal: i32) -> Action {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: a null new action only asks; the structure is zeroed, so it is initialized
        // whatever happens.
        unsafe {
            libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
            Action(action.assume_init())
        }
    }

    pub(crate) fn is_ignored(&self) -> bool {
        self.is(libc::SIG_IGN)
    }

    pub(crate) fn is_default(&self) -> bool {
        self.is(libc::SIG_DFL)
    }

    /// Is it the one that [`handle`] installs?
    pub(super) fn is_handled(&self) -> bool {
        self.is(HANDLER as libc::sighandler_t)
    }

    fn is(&self, handler: libc::sighandler_t) -> bool {
        self.0.sa_sigaction == handler
    }

    pub(crate) fn restore(&self, signal: i32) {
        // SAFETY: the same action was installed before, by code that vouched for it.
        unsafe {
            libc::sigaction(signal, &self.0, std::ptr::null_mut());
        }
    }
}

type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
const HANDLER: Handler = handler;
/// What [`handle`] was given.
static ON_SIGNAL: OnceLock<fn(i32, i32)> = OnceLock::new();

extern "C" fn handler(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gives a valid siginfo to a handler with SA_SIGINFO, and so does signal-hook, which
    // passes its own on.
    let sender = unsafe { info.as_ref() }.map_or(0, sender);
    // A read of an atomic: the lock was set before any handler was installed.
    if let Some(on_signal) = ON_SIGNAL.get() {
        on_signal(signal, sender);
    }
}

/// From now on `on_signal` is called, in a signal handler, with the signal and its sender. It must do what
/// is async-signal-safe alone, and put errno back. The first one that is given holds for all signals.
pub(crate) fn handle(signal: i32, on_signal: fn(i32, i32)) -> io::Result<()> {
    ON_SIGNAL.get_or_init(|| on_signal);
    // SAFETY: the structure is zeroed, so its mask is empty; the handler is as `on_signal` promises, and
    // lives as long as the process.
    unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        action.sa_sigaction = HANDLER as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        check(libc::sigaction(signal, &action, std::ptr::null_mut()).into()).map(drop)
    }
}

/// Lets this process ignore a signal, and what it executes too.
pub(crate) fn ignore(signal: i32) {
    // SAFETY: SIG_IGN installs no code.
    unsafe {
        libc::signal(signal, libc::SIG_IGN);
    }
}

/// Gives a signal its default action, so that it can end this process.
pub(crate) fn reset_to_default(signal: i32) {
    // SAFETY: SIG_DFL installs no code.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
    }
}

/// An `fcntl(2)` lock on a whole file.
pub(crate) fn whole_file_lock() -> libc::flock {
    // SAFETY: a C structure of integers, for which all zeroes is a valid value: from the start
    // (SEEK_SET is 0), to the end (length 0).
    let mut lock = unsafe { MaybeUninit::<libc::flock>::zeroed().assume_init() };
    lock.l_type = libc::F_WRLCK as _;
    lock
}

/// Lets the program that `command` starts inherit this one descriptor, under its number. In this process
/// it stays close-on-exec, so a program that another thread starts at the same time does not inherit it.
/// That program begins with these signals ignored.
pub(crate) fn inherit(command: &mut Command, fd: RawFd, ignored: Vec<i32>) {
    // SAFETY: between fork and exec only `fcntl` and `signal`, which are async-signal-safe, are called, and
    // nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            ignored.iter().copied().for_each(ignore);
            check(libc::fcntl(fd, libc::F_SETFD, 0).into()).map(drop)
        });
    }
}

/// Examines a descriptor that other code may own. The error is EBADF if it is not open. `f` must not close it, and
/// changes something only if the caller knows that no other code uses it.
pub(crate) fn look_at<T>(
    fd: RawFd,
    f: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>,
) -> io::Result<T> {
    // SAFETY: the descriptor is open, as fcntl says, and only borrowed. If its owner closes it meanwhile, the
    // question fails or is answered about another descriptor.
    unsafe {
        check(libc::fcntl(fd, libc::F_GETFD).into())?;
        f(BorrowedFd::borrow_raw(fd))
    }
}

/// Takes ownership of a descriptor and makes it close-on-exec. The caller knows that nothing else in
/// this process owns it: the kernel has just returned it, or it was passed by exec and is adopted once.
pub(crate) fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: the descriptor is open and has no other owner, as the caller knows (see above).
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: sets a flag on a descriptor that we own.
    unsafe {
        libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC);
    }
    fd
}

/// Ends the process at once, without destructors, `atexit(3)` functions or flushing: other threads of the
/// program may be in the middle of anything.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

/// What [`receive`] has received.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) bytes: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
    /// The message was longer than the room for it.
    pub(crate) is_cut: bool,
    /// Some of the descriptors that came with it are lost (MSG_CTRUNC).
    pub(crate) lost_fds: bool,
}

/// Receives a message of at most `longest` bytes and its descriptors, close-on-exec from birth (`recvmsg(2)`).
/// Never waits. If some descriptors of a message were lost, nix would leak the others.
pub(crate) fn receive(socket: BorrowedFd<'_>, longest: usize) -> io::Result<Message> {
    let mut bytes = vec![0; longest];
    // Room for 253 descriptors, the most that the kernel delivers with a message; of u64, for the alignment.
    let mut control = [0_u64; 256];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let flags = libc::MSG_DONTWAIT | system::MSG_CMSG_CLOEXEC;
    let mut fds = Vec::new();
    // SAFETY: the header is zeroed and then points to buffers that outlive the call, with their
    // true lengths; the kernel fills `control` with well-formed messages and says how much of it
    // it used, and the CMSG macros stay within that. Each descriptor in it is new and ours alone.
    unsafe {
        let mut header = MaybeUninit::<libc::msghdr>::zeroed().assume_init();
        header.msg_iov = &mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control) as _;
        let length = check(libc::recvmsg(socket.as_raw_fd(), &mut header, flags) as _)?;
        let mut one = libc::CMSG_FIRSTHDR(&header);
        while !one.is_null() {
            if (*one).cmsg_level == libc::SOL_SOCKET && (*one).cmsg_type == libc::SCM_RIGHTS {
                let room = (*one).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(one).cast::<RawFd>();
                for at in 0..room / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(data.add(at).read_unaligned()));
                }
            }
            one = libc::CMSG_NXTHDR(&header, one);
        }
        bytes.truncate(length as usize);
        Ok(Message {
            bytes,
            fds,
            is_cut: header.msg_flags & libc::MSG_TRUNC != 0,
            lost_fds: header.msg_flags & libc::MSG_CTRUNC != 0,
        })
    }
}

/// `fnmatch(3)` with FNM_PERIOD.
pub(super) fn fnmatch(pattern: &CStr, name: &CStr) -> bool {
    // SAFETY: both are strings that end with 0 and that nobody changes meanwhile.
    unsafe { libc::fnmatch(pattern.as_ptr(), name.as_ptr(), libc::FNM_PERIOD) == 0 }
}

/// Maps this number of words of a file, for the rest of the process's life (`mmap(2)`). The caller knows that
/// the file has them, and is sealed so that it keeps them: a file that shrinks would end this process (SIGBUS).
pub(super) fn map_words(
    file: BorrowedFd<'_>,
    count: usize,
) -> io::Result<&'static [std::sync::atomic::AtomicU64]> {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: a new mapping at an address that the kernel chooses, which nothing unmaps; it is aligned to a
    // page. Other processes may write to it at any time: it is only used by way of atomics.
    unsafe {
        let fd = file.as_raw_fd();
        let at = libc::mmap(std::ptr::null_mut(), count * 8, access, kind, fd, 0);
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(std::slice::from_raw_parts(at.cast::<std::sync::atomic::AtomicU64>(), count))
    }
}
