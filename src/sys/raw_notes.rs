//! A second file with unsafe code: a signal handler that gives way to the program's own.
//!
//! signal-hook shares one handler for each signal among all who register for it, and does not tell who they
//! are. So for signals that are ours only as long as the program does not handle them, this file installs
//! a handler of its own. If the program then installs another one, by whatever library, the action of the
//! signal is no longer ours, which [`is_installed`] tells. signal-hook and tokio also call the handler
//! that was there before, so the note is made all the same, and is to be dropped.
#![allow(unsafe_code)]

use nix::libc;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// Signals that have arrived, as bits: from others, and from the launcher.
static NOTED: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static LAUNCHER: AtomicI32 = AtomicI32::new(0);
/// A socket to wake the reader by.
static WAKE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn note(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let launcher = LAUNCHER.load(Ordering::SeqCst);
    // SAFETY: the kernel gives a valid siginfo to a handler with SA_SIGINFO, and so does signal-hook, which
    // passes its own on; `si_pid` only reads. `send` is async-signal-safe, never waits here, and errno is
    // put back.
    unsafe {
        let by_launcher = info.as_ref().is_some_and(|info| info.si_pid() == launcher);
        let bit = 1_u64.checked_shl(signal as u32 - 1).unwrap_or(0);
        NOTED[usize::from(by_launcher)].fetch_or(bit, Ordering::SeqCst);
        let errno = libc::__errno_location();
        let before = *errno;
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        libc::send(WAKE.load(Ordering::SeqCst), [0_u8].as_ptr().cast(), 1, flags);
        *errno = before;
    }
}

/// To be called once, before [`install`]. The socket must stay open.
pub(crate) fn prepare(wake: RawFd, launcher: i32) {
    LAUNCHER.store(launcher, Ordering::SeqCst);
    WAKE.store(wake, Ordering::SeqCst);
}

pub(crate) fn install(signal: i32) -> io::Result<()> {
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = note;
    // SAFETY: the structure is zeroed, so its mask is empty; the handler is async-signal-safe and lives
    // as long as the process.
    let result = unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigaction(signal, &action, std::ptr::null_mut())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Does the signal still come to us alone?
pub(crate) fn is_installed(signal: i32) -> bool {
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = note;
    super::raw::Action::of(signal).is(handler as libc::sighandler_t)
}

/// The signals that have arrived since the last call, and whether the launcher sent them.
pub(crate) fn take() -> impl Iterator<Item = (i32, bool)> {
    let taken = NOTED.each_ref().map(|noted| noted.swap(0, Ordering::SeqCst));
    taken.into_iter().zip([false, true]).flat_map(|(bits, by_launcher)| {
        (1..=64).filter(move |signal| bits >> (signal - 1) & 1 == 1).map(move |s| (s, by_launcher))
    })
}
