//! The signals that hooks may hold back.

use crate::driver::shared::PROCESS;
use crate::proto::daemon::signal_hooks::Signal;
use crate::sys::signals::{SIGINT, SIGTERM, SIGUSR2};

pub(super) fn number(signal: Signal) -> i32 {
    match signal {
        Signal::Term => SIGTERM,
        Signal::Int => SIGINT,
        Signal::Usr2 => SIGUSR2,
    }
}

pub(super) fn has_hooks(signal: Signal) -> bool {
    PROCESS.hooks.has_before_signal(number(signal))
}
