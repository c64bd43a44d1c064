//! The files that processes hold locks on.

use super::open_files;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The paths of the files on which processes hold locks by `flock(2)`, as far as those processes may be
/// looked at, and how many may not.
pub(crate) fn locked_files() -> io::Result<(BTreeSet<PathBuf>, usize)> {
    let table = fs::read_to_string("/proc/locks")?;
    let holders: BTreeSet<i32> = table.lines().filter_map(holder).collect();
    let inodes: BTreeSet<u64> = table.lines().filter_map(inode).collect();
    let (mut found, mut hidden) = (BTreeSet::new(), 0);
    for pid in holders {
        let files = match open_files(pid) {
            Ok(files) => files,
            Err(error) => {
                hidden += usize::from(error.kind() == io::ErrorKind::PermissionDenied);
                continue;
            }
        };
        // The path may lead to another file from here, or to none.
        let is_locked = |path: &PathBuf| {
            fs::symlink_metadata(path).is_ok_and(|about| inodes.contains(&about.ino()))
        };
        found.extend(files.filter(is_locked));
    }
    Ok((found, hidden))
}

/// `1: FLOCK  ADVISORY  WRITE 812 fe:00:4711 0 EOF`. A process of another PID namespace is 0.
fn holder(line: &str) -> Option<i32> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let pid = words.get(4).filter(|_| words.get(1) == Some(&"FLOCK"))?.parse().ok()?;
    (pid > 0).then_some(pid)
}

fn inode(line: &str) -> Option<u64> {
    line.split_ascii_whitespace().nth(5)?.rsplit(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{holder, inode};

    #[test]
    fn a_line_of_proc_locks() {
        let line = "1: FLOCK  ADVISORY  WRITE 812 fe:00:4711 0 EOF";
        assert_eq!((holder(line), inode(line)), (Some(812), Some(4711)));
        let waits = "1: -> FLOCK  ADVISORY  WRITE 813 fe:00:4711 0 EOF";
        assert_eq!(holder(waits), None);
        for other in
            ["2: POSIX  ADVISORY  WRITE 812 fe:00:1 0 EOF", "3: FLOCK ADVISORY READ 0 x 0", ""]
        {
            assert_eq!(holder(other), None, "{other}");
        }
    }
}
