//! The only file with unsafe code: system calls that neither `std` nor `nix` wraps, and the two
//! places where a bare number becomes a descriptor. Each function is safe to call.
#![allow(unsafe_code)]

use nix::libc;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// `pidfd_open(2)`; close-on-exec from birth.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers; a result that is not negative is a new descriptor of ours.
    unsafe {
        let fd = check(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// `pidfd_send_signal(2)`.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: the descriptor is open for the call; a null siginfo means "as kill(2) does".
    unsafe {
        check(libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0))
            .map(drop)
    }
}

/// `kill(2)` with any signal number, real-time ones included.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: takes two integers.
    unsafe { check(libc::kill(pid, signal).into()).map(drop) }
}

/// The first and last real-time signal that the C library leaves to programs.
pub(crate) fn real_time_signals() -> std::ops::RangeInclusive<i32> {
    libc::SIGRTMIN()..=libc::SIGRTMAX()
}

/// Who sent a signal; 0 where it was nobody in our PID namespace.
pub(crate) fn sender(info: &libc::siginfo_t) -> i32 {
    // SAFETY: `si_pid` only reads; for kinds of signals that carry no PID it reads other initialized
    // bytes of the same union, and the kernel fills the whole structure.
    unsafe { info.si_pid() }
}

/// What a signal does: its handler, flags and mask.
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
        self.0.sa_sigaction == libc::SIG_IGN
    }

    pub(crate) fn restore(&self, signal: i32) {
        // SAFETY: the same action stood there before, put there by whoever vouched for it.
        unsafe {
            libc::sigaction(signal, &self.0, std::ptr::null_mut());
        }
    }
}

/// Gives a signal its default action, so that it can end this process.
pub(crate) fn reset_to_default(signal: i32) {
    // SAFETY: SIG_DFL installs no code.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
    }
}

/// Lets every signal through to this thread, whatever mask it was started with.
pub(crate) fn unblock_all() {
    let mut none = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: sigemptyset initializes the set before it is read.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
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

/// Lets the program that `command` starts inherit this one descriptor, under its number. It stays
/// close-on-exec here, so a program that another thread starts meanwhile does not get it.
pub(crate) fn inherit(command: &mut Command, fd: RawFd) {
    // SAFETY: between fork and exec only `fcntl`, which is async-signal-safe, is called.
    unsafe {
        command.pre_exec(move || check(libc::fcntl(fd, libc::F_SETFD, 0).into()).map(drop));
    }
}

/// Looks at a descriptor that somebody else may own. `f` must only ask questions about it.
pub(crate) fn look_at<T>(fd: RawFd, f: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
    // SAFETY: the descriptor is open, as fcntl says, and only borrowed for a question; should its
    // owner close it meanwhile, the question fails or is answered about another descriptor, and
    // nothing is touched.
    unsafe {
        check(libc::fcntl(fd, libc::F_GETFD).into()).ok()?;
        Some(f(BorrowedFd::borrow_raw(fd)))
    }
}

/// Takes over the descriptor that the launcher left us. The caller has made sure that it is that
/// one.
pub(crate) fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: the channel's number was handed to this process alone, by exec, and is adopted once
    // (`init` succeeds at most once); no other value in this process owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: sets a flag on a descriptor that we own.
    unsafe {
        libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC);
    }
    fd
}

/// Closes every descriptor from 3 up but those in `keep`. Only for the launcher, and only while it
/// has a single thread: nothing of the program runs in it any more that could use them.
pub(crate) fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<RawFd> = keep.iter().copied().filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep.into_iter().chain([RawFd::MAX]) {
        if from < fd {
            // SAFETY: see above; the range holds no descriptor that this process goes on to use.
            let done = unsafe { check(libc::syscall(libc::SYS_close_range, from, fd - 1, 0)) };
            done?;
        }
        from = fd.saturating_add(1);
    }
    Ok(())
}

/// The path that this program was executed by, as `execve(2)` was given it (`getauxval(3)`).
pub(crate) fn executed_path() -> Option<std::ffi::OsString> {
    use std::os::unix::ffi::OsStrExt;
    // SAFETY: the kernel puts a NUL-terminated string there, which lives as long as the process.
    let path = unsafe {
        let path = libc::getauxval(libc::AT_EXECFN) as *const libc::c_char;
        if path.is_null() {
            return None;
        }
        std::ffi::CStr::from_ptr(path)
    };
    Some(std::ffi::OsStr::from_bytes(path.to_bytes()).to_owned())
}

/// Ends the process at once: no destructors, no `atexit(3)` functions, no flushing. The program's
/// other threads may be anywhere.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

/// `malloc_trim(3)`, where the C library has it.
pub(crate) fn trim_memory() {
    // SAFETY: takes an integer; only memory that is not in use is given back.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
