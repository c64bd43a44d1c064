//! Tells systemd and s6 how the service is. `proto::supervisor::notices` decides what they are told.

pub(in crate::driver) mod s6;
#[cfg(not(feature = "systemd"))]
#[path = "silent.rs"]
pub(in crate::driver) mod systemd;
#[cfg(feature = "systemd")]
pub(in crate::driver) mod systemd;

use crate::driver::log::{self, daemon::Event};
use crate::proto::supervisor::notices::{self, EXTEND_EVERY, Notice};
use crate::sys::{process, systemctl};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

/// Performs what a process tells its supervisor. `fd`: what came with the message that led to it.
pub(in crate::driver) fn tell(notice: &Notice, fd: Option<&OwnedFd>) {
    match (notice, fd) {
        (Notice::Say(words), _) => systemd::say(words),
        (Notice::Store(name), Some(fd)) => systemd::store(name, fd),
        (Notice::Store(_), None) => {}
        (Notice::Remove(name), _) => systemd::remove(name),
        (Notice::Readiness, _) => s6::tell(),
        // Not for a supervisor: the launcher's timers and its daemons.
        (Notice::Ask(_) | Notice::Kill(_) | Notice::Arm(..) | Notice::Disarm(_), _) => {}
    }
}

// ---- without a launcher ----

/// The process serves.
pub(in crate::driver) fn serves_alone() {
    if systemd::listener().is_some() {
        tell(&notices::serves_alone(), None);
    }
}

/// The drain has begun, and may take this time.
pub(in crate::driver) fn drains_alone(limit: Option<Duration>) {
    if systemd::listener().is_none() {
        return;
    }
    tell(&notices::drains_alone(), None);
    // Without a limit of its own, and while the system goes down, the limit of systemd counts.
    let Some(limit) = limit else { return };
    let extending = thread::Builder::new().name("seamless-notify".to_owned()).spawn(move || {
        let began = Instant::now();
        while began.elapsed() < limit && !systemctl::is_going_down_by(process::own_pid()) {
            tell(&notices::extend(), None);
            thread::sleep(EXTEND_EVERY.min(limit.saturating_sub(began.elapsed())));
        }
    });
    if let Err(error) = extending {
        log::write(Event::NotifyFailed { error: &error });
    }
}
