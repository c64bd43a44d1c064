//! Keeps standard output and error usable when their reader goes: `println!` panics if writing
//! fails.

use crate::driver::log::{self, daemon::Event};
use crate::sys::stdio::Output;
use crate::sys::supervisor::Supervisor;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// When it is tried again, if there was no descriptor for `/dev/null`.
const AGAIN: Duration = Duration::from_secs(1);

/// The standard descriptors that may lose their reader, once nobody starts this process again.
pub(in crate::driver) struct Outputs {
    left: Vec<Output>,
    /// Until then they are not watched: what is wrong with them would wake us all the time.
    again: Option<Instant>,
}

impl Outputs {
    pub(in crate::driver) fn new(replaced: bool) -> Outputs {
        Outputs { left: if replaced { Output::all() } else { Vec::new() }, again: None }
    }

    /// Those to watch, without asking whether anything can be written there.
    pub(in crate::driver) fn watched(&self) -> Vec<BorrowedFd<'_>> {
        match self.again {
            Some(_) => Vec::new(),
            None => self.left.iter().map(AsFd::as_fd).collect(),
        }
    }

    /// When to look again, whatever happens until then.
    pub(in crate::driver) fn next(&self) -> Option<Duration> {
        self.again.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Replaces those whose reader is gone.
    pub(in crate::driver) fn replace_closed(&mut self) {
        if self.again.is_some_and(|at| at > Instant::now()) {
            return;
        }
        self.replace(Output::is_closed, "its reader is gone");
    }

    /// Before the launcher is let go. Some supervisors (supervisord) close their end of the pipe as soon
    /// as they have seen the launcher's end. This guards against a write between that moment and the one
    /// in which we notice. A pipe that is known to lead elsewhere is left alone.
    pub(in crate::driver) fn before_release(&mut self, supervisor: &Supervisor) {
        let kind = supervisor.kind;
        let Some(identity) = supervisor.identity.filter(|_| kind.closes_output) else { return };
        let goes = |output: &Output| output.may_lead_to(identity.pid);
        self.replace(goes, &format!("{} closes it when the launcher has ended", kind.name));
    }

    fn replace(&mut self, which: impl Fn(&Output) -> bool, why: &str) {
        // The program may have put something of its own there, or closed it.
        self.left.retain(Output::is_same);
        self.again = None;
        let mut failed = false;
        self.left.retain(|output| {
            if !which(output) {
                return true;
            }
            let replaced = output.replace();
            let fd = output.number();
            match &replaced {
                Ok(()) => log::write(Event::OutputReplaced {
                    fd,
                    reason: &format_args!("{why}: what is written there is lost from now on"),
                }),
                Err(error) => log::write(Event::OutputNotReplaced { fd, error }),
            }
            failed |= replaced.is_err();
            replaced.is_err()
        });
        if failed {
            self.again = Some(Instant::now() + AGAIN);
        }
    }
}
