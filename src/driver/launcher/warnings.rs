//! Warns of settings of the supervisor with which a restart would cost requests, as soon as they are
//! known, and of a launcher that is larger than it has to be.

use super::member::Again;
use crate::driver::log::{self, launcher::Event};
use crate::proto::supervisor::StartsAgain;
use crate::sys::supervisor::Supervisor;

/// At the start, in the launcher. `threads`: how many it had when it would have closed the program's files.
pub(super) fn warn_at_launch(supervisor: &Supervisor, again: &Again, threads: Option<usize>) {
    if let Some(threads) = threads.filter(|threads| *threads > 1) {
        log::write(Event::LaunchedWithThreads { threads });
    }
    if again.is_unknown() {
        log::write(Event::FolderUnknown {});
    }
    if let Some((signal, reason)) = supervisor.other_signal() {
        log::write(Event::OtherDownSignal { down_signal: &signal, reason });
    }
}

/// Before the launcher leaves with this code. `asked`: it was sent a TERM. That may have been a restart
/// by the supervisor, which starts the service whatever the code is (`supervisorctl restart`).
pub(super) fn warn_at_release(supervisor: &Supervisor, code: i32, asked: bool) {
    if supervisor.kind.starts_again == StartsAgain::Unknown {
        log::write(Event::ReleaseToUnknown { parent_name: supervisor.name.as_deref() });
    }
    let Some(exit_0) = &supervisor.kind.exit_0_is_final else { return };
    if code == 0 && !asked {
        log::write(Event::ReleaseCode { exit_code: code, reason: exit_0.warning });
    }
}
