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

/// As much as the thread that asks a supervisor needs.
const STACK: usize = 128 << 10;

/// A question to the supervisor. systemd is asked by a program that may take a second, and nobody waits
/// for it on a thread that takes signals.
pub(in crate::driver) enum Asked {
    Answered(Reading),
    /// Readable once there is an answer.
    Waits(UnixStream),
}

impl Asked {
    /// `main_pid`: see [`Supervisor::read`].
    pub(in crate::driver) fn ask(supervisor: &Arc<Supervisor>, main_pid: Option<i32>) -> Asked {
        if !supervisor.is_asked_by_program() {
            return Asked::Answered(supervisor.read(main_pid));
        }
        let Ok((ours, mut theirs)) = UnixStream::pair() else {
            return Asked::Answered(Reading::Unreadable);
        };
        let supervisor = Arc::clone(supervisor);
        let asking = move || _ = theirs.write_all(&[supervisor.read(main_pid) as u8]);
        let thread = thread::Builder::new().name("seamless-ask".to_owned()).stack_size(STACK);
        match thread.spawn(asking) {
            Ok(_) => Asked::Waits(ours),
            Err(_) => Asked::Answered(Reading::Unreadable),
        }
    }

    pub(in crate::driver) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Asked::Answered(_) => None,
            Asked::Waits(answer) => Some(answer.as_fd()),
        }
    }

    /// The answer, if it is there. It is not waited for.
    pub(in crate::driver) fn answer(&mut self) -> Option<Reading> {
        let stream = match self {
            Asked::Answered(reading) => return Some(*reading),
            Asked::Waits(stream) => stream,
        };
        _ = stream.set_nonblocking(true);
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1..) => Some(Reading::from_byte(byte[0])),
            Ok(0) => Some(Reading::Unreadable), // the thread panicked
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
            Err(_) => Some(Reading::Unreadable),
        }
    }
}
