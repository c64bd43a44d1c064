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

/// A standard descriptor that is a pipe or a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    stream: Stream,
    is_pipe: bool,
    /// Device and inode at the start: the program may have put another file there since.
    inode: (u64, u64),
}

#[derive(Clone, Copy, Debug)]
enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn fd(self) -> BorrowedFd<'static> {
        // Borrowed from values that live for ever. Whether the number is open is checked at each use.
        static STDOUT: std::sync::LazyLock<io::Stdout> = std::sync::LazyLock::new(io::stdout);
        static STDERR: std::sync::LazyLock<io::Stderr> = std::sync::LazyLock::new(io::stderr);
        match self {
            Stream::Stdout => STDOUT.as_fd(),
            Stream::Stderr => STDERR.as_fd(),
        }
    }

    fn look(self) -> Option<(SFlag, (u64, u64))> {
        let stat = fstat(self.fd()).ok()?;
        Some((
            SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT,
            (stat.st_dev as u64, stat.st_ino as u64),
        ))
    }
}

impl Output {
    /// The standard descriptors that can lose their reader.
    pub(crate) fn all() -> Vec<Output> {
        let one = |stream: Stream| {
            let (kind, inode) = stream.look()?;
            let is_pipe = kind == SFlag::S_IFIFO;
            (is_pipe || kind == SFlag::S_IFSOCK).then_some(Output { stream, is_pipe, inode })
        };
        [Stream::Stdout, Stream::Stderr].into_iter().filter_map(one).collect()
    }

    pub(crate) fn number(&self) -> i32 {
        match self.stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        }
    }

    /// Is it still the file that it was at the start?
    pub(crate) fn is_same(&self) -> bool {
        self.stream.look().is_some_and(|(_, inode)| inode == self.inode)
    }

    /// Has the last reader gone? Then nobody will ever read what is written there (`poll(2)`: POLLERR
    /// for a pipe, POLLHUP for a socket).
    pub(crate) fn is_closed(&self) -> bool {
        let mut fds = [PollFd::new(self.stream.fd(), PollFlags::empty())];
        let closed = PollFlags::POLLERR | PollFlags::POLLHUP;
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
            && fds[0].revents().is_some_and(|events| events.intersects(closed))
    }

    /// Has this process no end of that pipe? Also `false` if its descriptors cannot be read.
    pub(crate) fn is_not_of(&self, pid: i32) -> bool {
        let pipe = format!("pipe:[{}]", self.inode.1);
        let Ok(mut files) = proc::open_files(pid) else { return false };
        proc::identity(pid).is_some() && !files.any(|file| file.as_os_str() == pipe.as_str())
    }

    pub(crate) fn is_pipe(&self) -> bool {
        self.is_pipe
    }

    /// Puts `/dev/null` in its place, atomically for all threads (`dup2(2)`): no write finds the number
    /// closed.
    pub(crate) fn replace(&self) -> io::Result<()> {
        let null = File::options().write(true).open("/dev/null")?;
        match self.stream {
            Stream::Stdout => dup2_stdout(null)?,
            Stream::Stderr => dup2_stderr(null)?,
        }
        Ok(())
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.fd()
    }
}
