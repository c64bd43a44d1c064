//! Descriptors of any type, which the program keeps for its successor.

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Descriptors that cannot work in another process, by their names in `/proc`: they belong to the memory of the
/// process that has made them.
const BOUND_TO_A_PROCESS: [&str; 3] =
    ["anon_inode:[io_uring]", "anon_inode:[userfaultfd]", "anon_inode:kvm-"];

/// Why this descriptor cannot be used in another process; `None`: it can.
pub(crate) fn bound_to_a_process(fd: BorrowedFd<'_>) -> Option<String> {
    let target = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
    let target = target.to_string_lossy();
    let is_it = BOUND_TO_A_PROCESS.iter().any(|name| target.starts_with(name));
    is_it.then(|| format!("{target} belongs to the memory of the process that has made it"))
}

/// A number that no other descriptor has. The kernel numbers sockets from 1 on (SO_COOKIE), so no socket has it.
pub(crate) fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1 << 63);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
