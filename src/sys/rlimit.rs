//! The limit of open files, and the kernel's table of descriptors.

use super::{proc, raw};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::rlim_t;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::{fs, io};

/// The error of a process that has reached its limit of open files.
pub(crate) const TOO_MANY_FILES: i32 = nix::libc::EMFILE;

/// For how many more descriptors room is made at a time.
const ROOM: u64 = 256;

/// Makes a descriptor. If the limit of open files is reached, raises it and tries once more: a program that has
/// used up its descriptors can still be restarted, which may be what it needs.
pub(crate) fn with_room<T>(mut make: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    match make() {
        Err(error) if error.raw_os_error() == Some(TOO_MANY_FILES) => {
            make_room(ROOM);
            make()
        }
        done => done,
    }
}

/// Raises the soft limit of open files, as far as the hard limit allows, so that this many more can be
/// opened. A limit that is high enough already is not changed.
#[allow(clippy::unnecessary_cast)] // `rlim_t` is signed on FreeBSD
pub(crate) fn make_room(more: u64) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let (soft, hard) = (soft as u64, hard as u64);
    let open = proc::own_descriptors().map_or(soft, |fds| fds.count() as u64);
    let needed = open.saturating_add(more);
    let limit = needed.saturating_add(ROOM).min(hard);
    if limit > soft {
        _ = setrlimit(Resource::RLIMIT_NOFILE, limit as rlim_t, hard as rlim_t);
    }
    if more > ROOM {
        grow_table(needed);
    }
}

/// The same for a whole table of this size, in a process that has just started and has no descriptor above it.
/// Does nothing if each process gets such a table anyway.
#[allow(clippy::unnecessary_cast)]
pub(crate) fn make_room_for_table(size: u64) {
    if size <= ROOM {
        return;
    }
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let limit = size.min(hard as u64);
    if limit > soft as u64 {
        _ = setrlimit(Resource::RLIMIT_NOFILE, limit as rlim_t, hard);
    }
    grow_table(limit.saturating_sub(1));
}

/// Lets the kernel's table of descriptors grow to this number at once. Otherwise the kernel doubles it
/// step by step. In a process with several threads each step waits until no thread uses the old table,
/// which takes some milliseconds.
fn grow_table(number: u64) {
    let Ok(number) = i32::try_from(number) else { return };
    let Ok(any) = fs::File::open("/proc/self/fd") else { return };
    if let Ok(high) = fcntl(&any, FcntlArg::F_DUPFD_CLOEXEC(number)) {
        drop(raw::adopt(high));
    }
}
