//! Signals that are ours only as long as the program does not handle them.
//!
//! signal-hook shares one handler for each signal among all who register for it, and does not tell who they
//! are. So such a signal gets a handler of our own, which notes it. If the program then installs another
//! handler, by any library, ours is no longer installed, which [`is_installed`] tells. signal-hook and
//! tokio also call the handler that was there before, so the note is made all the same, and is to be dropped.

use super::{raw, system};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// Signals that have arrived, as bits: from others, and from the launcher.
static NOTED: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static LAUNCHER: AtomicI32 = AtomicI32::new(0);
/// A socket to wake the reader by.
static WAKE: AtomicI32 = AtomicI32::new(-1);

/// Runs in the signal handler: all of it is async-signal-safe (`signal-safety(7)`), it never waits, and it
/// puts errno back.
fn note(signal: i32, sender: i32) {
    let by_launcher = sender == LAUNCHER.load(Ordering::SeqCst);
    let bit = 1_u64.checked_shl(signal as u32 - 1).unwrap_or(0);
    NOTED[usize::from(by_launcher)].fetch_or(bit, Ordering::SeqCst);
    let errno = Errno::last_raw();
    let flags = MsgFlags::MSG_DONTWAIT | system::MSG_NOSIGNAL;
    _ = send(WAKE.load(Ordering::SeqCst), &[0], flags);
    Errno::set_raw(errno);
}

/// To be called once, before [`install`]. The socket must stay open.
pub(crate) fn prepare(wake: RawFd, launcher: i32) {
    LAUNCHER.store(launcher, Ordering::SeqCst);
    WAKE.store(wake, Ordering::SeqCst);
}

pub(crate) fn install(signal: i32) -> io::Result<()> {
    raw::handle(signal, note)
}

/// Does the signal still come to us alone?
pub(crate) fn is_installed(signal: i32) -> bool {
    raw::Action::of(signal).is_handled()
}

/// The signals that have arrived since the last call, and whether the launcher sent them.
pub(crate) fn take() -> impl Iterator<Item = (i32, bool)> {
    let taken = NOTED.each_ref().map(|noted| noted.swap(0, Ordering::SeqCst));
    taken.into_iter().zip([false, true]).flat_map(|(bits, by_launcher)| {
        (1..=64).filter(move |signal| bits >> (signal - 1) & 1 == 1).map(move |s| (s, by_launcher))
    })
}
