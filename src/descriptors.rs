//! Descriptors that survive a restart: files, locks, memory, TUN devices, connected sockets.
//!
//! The old generation [keeps](keep) a descriptor under a name, and its successor [takes](take) it:
//!
//! ```no_run
//! use std::fs::File;
//!
//! seamless::init("/run/vpn/vpn.pid")?;
//! let journal = match seamless::descriptors::take("journal") {
//!     Some(fd) => File::from(fd), // the predecessor's, at the position where it is
//!     None => File::options().append(true).create(true).open("/var/lib/vpn/journal")?,
//! };
//! seamless::descriptors::keep("journal", &journal)?; // for the next generation
//! seamless::started()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Both generations then share one open file (`open(2)`, "open file description"): its position, its flags
//! such as O_NONBLOCK, and its locks. Listeners belong to [`sockets`](crate::sockets) instead, which knows
//! their addresses.
//!
//! # What to know of each type
//!
//! - **`flock(2)`**: a copy is the same lock. The lock stays held through the restart, without a gap. But
//!   `LOCK_UN`, which many guards call when they are dropped, unlocks it for both generations. So the old
//!   generation only closes its copy. Locks of `fcntl(2)` (POSIX) belong to a process and do not travel.
//! - **TUN and TAP devices**: both generations read from one queue until the old one stops. The old one should
//!   stop when its drain begins.
//! - **Connected sockets**: take care that one generation alone reads and writes. To move what a client has
//!   already sent, hand it over as [state](crate::Config::hand_over).
//! - **epoll**: what was registered stays registered as long as any copy of that file is open.
//! - **io_uring, userfaultfd, KVM**: refused. They belong to the memory of the process that has made them.
//!
//! # After a crash
//!
//! A descriptor that is kept with [`keep_through_crash`] is also held outside of the daemon: by its launcher and,
//! after a crash, by the [keeper](crate::guide::crashes), or in systemd's descriptor store if the unit has one
//! (feature `systemd`, `FileDescriptorStoreMax=`). The next start then finds it with [`take`]. A lock that is kept
//! in this way stays held while no generation runs.

use crate::driver::sockets::descriptors as driver;
use crate::error::Result;
use std::os::fd::{AsFd, OwnedFd};

/// Keeps a descriptor for the successor, under a name.
///
/// The crate makes a copy (`dup(2)`), so the program may close its own. The copy is closed when the drain
/// begins: from then on, the program's own close is the last one in this process. A descriptor that had the
/// name before is not kept any more. The call is allowed at any time after [`init`](crate::init); during the
/// drain it does nothing.
///
/// Each generation keeps what its successor is to get: what it took is not kept by itself.
///
/// # Errors
///
/// - [`ErrorKind::Descriptor`](crate::ErrorKind::Descriptor): the name is empty, has more than 255 bytes or
///   begins with `seamless/`; the descriptor is of a type that cannot leave its process; or no copy can be
///   made, since the limit of open files is reached.
/// - [`ErrorKind::NotInitialized`](crate::ErrorKind::NotInitialized): `init` has not succeeded.
pub fn keep(name: &str, fd: impl AsFd) -> Result<()> {
    driver::keep(name, fd.as_fd(), false)
}

/// As [`keep`], and the descriptor outlives a crash of this process: see
/// [After a crash](self#after-a-crash).
///
/// # Errors
///
/// As [`keep`].
pub fn keep_through_crash(name: &str, fd: impl AsFd) -> Result<()> {
    driver::keep(name, fd.as_fd(), true)
}

/// Does not keep the descriptor of this name any more. Nothing happens if there is none.
pub fn forget(name: &str) {
    driver::forget(name);
}

/// The descriptor that the predecessor kept under this name, close-on-exec. `None` if there is none, and after
/// the first call: it is given once.
///
/// Call it between [`init`](crate::init) and [`started`](crate::started). When `started` is called, descriptors
/// that nobody has taken are closed. If the transfer fails, the reason is logged, this call returns `None`, and
/// the next call of this kind tries again.
pub fn take(name: &str) -> Option<OwnedFd> {
    driver::take(name)
}
