//! Tells the supervisor that the service is ready, in the process that holds the descriptor for it:
//! the launcher, or a daemon without one.

use crate::config::Config;
use crate::driver::log::note;
use crate::error::{Error, ErrorKind, Result};
use crate::shutdown::lock;
use crate::sys::notification_fd::Notification;
use crate::sys::process;
use std::os::fd::RawFd;
use std::sync::Mutex;

static HELD: Mutex<Option<Notification>> = Mutex::new(None);

/// Holds [`Config::notification_fd`], if one is given, before any other program is started.
pub(super) fn hold(config: &Config) -> Result<()> {
    if let Some(fd) = config.notification_fd {
        let held = Notification::hold(fd).map_err(|error| {
            let text = format!("cannot use descriptor {fd} (notification_fd)");
            Error::io(ErrorKind::InvalidConfig, text, error)
                .hint("the service folder's file notification-fd must hold the same number")
        })?;
        *lock(&HELD) = Some(held);
    }
    Ok(())
}

/// What must stay open.
pub(super) fn number() -> Option<RawFd> {
    lock(&HELD).as_ref().map(Notification::number)
}

/// The service is ready. Only the first time counts.
pub(super) fn tell() {
    let Some(held) = lock(&HELD).take() else { return };
    let (own, told) = (process::own_pid(), held.tell());
    match told {
        Ok(()) => note!(Debug, "stage=notification process={own} ready=true"),
        Err(error) => note!(Warn, "stage=notification process={own} error=\"{error}\""),
    }
}
