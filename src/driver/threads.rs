//! Threads of the crate, and what runs on them: hooks of the program, and questions that may take long.

use crate::driver::log::{self, daemon::Event};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::Reading;
use crate::shutdown::HookList;
use crate::sys::supervisor::Supervisor;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

pub(in crate::driver) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(body);
    thread.map(drop).map_err(|error| {
        Error::io(ErrorKind::System, format!("cannot start thread {name} (init)"), error)
    })
}

pub(in crate::driver) fn run_hooks(hooks: &HookList, name: &str) {
    hooks.run(|panic| {
        log::write(Event::HookPanicked { hook: name, panic });
    });
}

/// Enough for the thread that asks a supervisor.
const STACK: usize = 128 << 10;

/// What comes of a question to the supervisor.
pub(in crate::driver) enum Answer {
    Known(Reading),
    Awaited(Asked),
}

/// A question that has not been answered yet. Readable once it is.
pub(in crate::driver) struct Asked(UnixStream);

/// Asks the supervisor. systemd is asked by a program that may take a second, and nobody waits for it on a
/// thread that takes signals. `main_pid`: see [`Supervisor::read`].
pub(in crate::driver) fn ask(supervisor: &Arc<Supervisor>, main_pid: Option<i32>) -> Answer {
    if !supervisor.is_asked_by_program() {
        return Answer::Known(supervisor.read(main_pid));
    }
    let asked = UnixStream::pair().and_then(|(ours, mut theirs)| {
        ours.set_nonblocking(true)?;
        let supervisor = Arc::clone(supervisor);
        let asking = move || _ = theirs.write_all(&[supervisor.read(main_pid) as u8]);
        let thread = thread::Builder::new().name("seamless-ask".to_owned()).stack_size(STACK);
        thread.spawn(asking).map(|_| Asked(ours))
    });
    asked.map_or(Answer::Known(Reading::Unreadable), Answer::Awaited)
}

impl Asked {
    /// The answer, if it is there. It is not waited for.
    pub(in crate::driver) fn answer(&mut self) -> Option<Reading> {
        let mut byte = [0];
        match self.0.read(&mut byte) {
            Ok(1..) => Some(Reading::from_byte(byte[0])),
            Ok(0) => Some(Reading::Unreadable), // the thread panicked
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
            Err(_) => Some(Reading::Unreadable),
        }
    }
}

impl AsFd for Asked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
