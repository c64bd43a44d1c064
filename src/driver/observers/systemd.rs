//! Speaks to systemd (`sd_notify(3)`). A launcher speaks, since it is the unit's main process: the
//! default `NotifyAccess=main` lets it. A process without a launcher is the main process itself.

use crate::driver::log::{self, daemon::Event};
use crate::proto::supervisor::notices::{Listener, Word};
use crate::sys::process;
use crate::sys::sd_notify::{self, Word as State};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

pub(in crate::driver) fn listener() -> Option<Listener> {
    sd_notify::is_heard().then(|| Listener { watchdog: sd_notify::watchdog() })
}

/// Says all of it in one message.
pub(super) fn say(words: &[Word]) {
    note_failure(states(words).and_then(|states| sd_notify::say(&states)));
}

fn states(words: &[Word]) -> io::Result<Vec<State<'_>>> {
    let mut states = Vec::new();
    for word in words {
        let state = match word {
            Word::Ready => State::Ready,
            Word::MainPid => State::MainPid(process::own_pid().unsigned_abs()),
            Word::Reloading => {
                states.push(State::Reloading);
                State::monotonic_usec_now()?
            }
            Word::Stopping => State::Stopping,
            Word::Status(text) => State::Status(text),
            Word::Watchdog => State::Watchdog,
            Word::ExtendTimeout(by) => State::ExtendTimeoutUsec(by.as_micros() as u32),
        };
        states.push(state);
    }
    Ok(states)
}

pub(super) fn store(name: &str, fd: &OwnedFd) {
    note_failure(sd_notify::store(name, fd.as_fd()));
}

pub(super) fn remove(name: &str) {
    note_failure(sd_notify::say(&[State::FdStoreRemove, State::FdName(name)]));
}

fn note_failure(said: io::Result<()>) {
    if let Err(error) = said {
        let address = sd_notify::address().unwrap_or_default();
        let address = address.to_string_lossy();
        let error = io::Error::other(format!("NOTIFY_SOCKET={address}: {error}"));
        log::write(Event::NotifyFailed { error: &error });
    }
}
