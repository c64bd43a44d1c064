//! Standard output and standard error, whose reader may go away before we end: `supervisord` closes its
//! end of the pipe as soon as the launcher has ended. From then on each write fails with EPIPE
//! (`pipe(7)`), and `println!` panics.

use super::proc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{dup2_stderr, dup2_stdout};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::LazyLock;

/// A standard descriptor that is a pipe or a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// 1 or 2.
    number: i32,
    is_pipe: bool,
    /// Device and inode at the start: the program may have put another file there since.
    inode: (u64, u64),
}

/// Borrowed from values that live for ever. Whether the number is open is checked at each use.
fn fd(number: i32) -> BorrowedFd<'static> {
    static STDOUT: LazyLock<io::Stdout> = LazyLock::new(io::stdout);
    static STDERR: LazyLock<io::Stderr> = LazyLock::new(io::stderr);
    if number == 1 { STDOUT.as_fd() } else { STDERR.as_fd() }
}

fn look(number: i32) -> Option<(SFlag, (u64, u64))> {
    let stat = fstat(fd(number)).ok()?;
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    Some((kind, (stat.st_dev as u64, stat.st_ino as u64)))
}

impl Output {
    /// The standard descriptors that can lose their reader.
    pub(crate) fn all() -> Vec<Output> {
        let one = |number| {
            let (kind, inode) = look(number)?;
            let is_pipe = kind == SFlag::S_IFIFO;
            (is_pipe || kind == SFlag::S_IFSOCK).then_some(Output { number, is_pipe, inode })
        };
        [1, 2].into_iter().filter_map(one).collect()
    }

    pub(crate) fn number(&self) -> i32 {
        self.number
    }

    /// Is it still the file that it was at the start?
    pub(crate) fn is_same(&self) -> bool {
        look(self.number).is_some_and(|(_, inode)| inode == self.inode)
    }

    /// Has the last reader gone? Then nobody will ever read what is written there (`poll(2)`: POLLERR
    /// for a pipe, POLLHUP for a socket).
    pub(crate) fn is_closed(&self) -> bool {
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::empty())];
        let closed = PollFlags::POLLERR | PollFlags::POLLHUP;
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
            && fds[0].revents().is_some_and(|events| events.intersects(closed))
    }

    /// Is it a pipe whose other end this process may have? `true` also if its descriptors cannot be read.
    pub(crate) fn may_lead_to(&self, pid: i32) -> bool {
        let pipe = format!("pipe:[{}]", self.inode.1);
        let has_it =
            proc::open_files(pid).map(|mut files| files.any(|file| file == Path::new(&pipe)));
        self.is_pipe && (has_it.unwrap_or(true) || proc::identity(pid).is_none())
    }

    /// Puts `/dev/null` in its place, atomically for all threads (`dup2(2)`): no write finds the number
    /// closed.
    pub(crate) fn replace(&self) -> io::Result<()> {
        let null = File::options().write(true).open("/dev/null")?;
        let replaced = if self.number == 1 { dup2_stdout(null) } else { dup2_stderr(null) };
        Ok(replaced?)
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        fd(self.number)
    }
}
