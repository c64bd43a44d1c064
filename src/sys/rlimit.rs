//! The limit of open files, and the kernel's table of descriptors.

use super::{proc, raw};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs;

/// The error of a process that has as many files open as it may have.
pub(crate) const TOO_MANY_FILES: i32 = nix::libc::EMFILE;

/// How many more descriptors are made room for at a time.
pub(super) const ROOM: u64 = 256;

/// Raises the soft limit of open files so that this many more can be opened, as far as the hard one
/// allows. A limit that is high enough already is left alone.
pub(crate) fn make_room(more: u64) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let open = proc::own_descriptors().map_or(soft, |fds| fds.count() as u64);
    let needed = open.saturating_add(more);
    let limit = needed.saturating_add(ROOM).min(hard);
    if limit > soft {
        _ = setrlimit(Resource::RLIMIT_NOFILE, limit, hard);
    }
    if more > ROOM {
        grow_table(needed);
    }
}

/// Lets the kernel's table of descriptors grow to this number at once. It would double it step by
/// step and, where there are several threads, wait at each step until none of them looks into the
/// old one: some milliseconds each.
fn grow_table(number: u64) {
    let Ok(number) = i32::try_from(number) else { return };
    let Ok(any) = fs::File::open("/proc/self/fd") else { return };
    if let Ok(high) = fcntl(&any, FcntlArg::F_DUPFD_CLOEXEC(number)) {
        drop(raw::adopt(high));
    }
}
