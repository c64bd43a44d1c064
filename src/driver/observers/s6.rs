//! Tells the supervisor that the service is ready, in the process that holds the descriptor for it:
//! the launcher, or a daemon without one.

use crate::driver::log::{self, daemon::Event};
use crate::driver::settings::Settings;
use crate::driver::shared::PROCESS;
use crate::error::{Error, ErrorKind, Result};
use crate::shutdown::lock;
use crate::sys::notification_fd::Notification;
use std::os::fd::RawFd;

/// Holds `Config::notification_fd`, if one is given, before any other program is started.
pub(in crate::driver) fn hold(settings: &Settings) -> Result<()> {
    if let Some(fd) = settings.notification_fd {
        let held = Notification::hold(fd).map_err(|error| {
            let text = format!("cannot use descriptor {fd} (notification_fd)");
            Error::io(ErrorKind::InvalidConfig, text, error)
                .hint("the service folder's file notification-fd must hold the same number")
        })?;
        *lock(&PROCESS.notification_fd) = Some(held);
    }
    Ok(())
}

/// What must stay open.
pub(in crate::driver) fn number() -> Option<RawFd> {
    lock(&PROCESS.notification_fd).as_ref().map(Notification::number)
}

/// The service is ready. Only the first time counts.
pub(super) fn tell() {
    let Some(held) = lock(&PROCESS.notification_fd).take() else { return };
    match held.tell() {
        Ok(()) => log::write(Event::Notified {}),
        Err(error) => log::write(Event::NotificationFailed { error: &error }),
    }
}
