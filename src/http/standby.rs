//! A generation that stands by accepts nothing: its successor serves, on probation.

use super::stream::Listener;
use crate::{Draining, State};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Set by a hook, so that a service without probations need not ask for its state at each connection.
static PARKED: AtomicBool = AtomicBool::new(false);
/// Wakes who waits for a connection.
static BEGINS: Notify = Notify::const_new();
static INSTALL: Once = Once::new();

pub(super) fn install() {
    INSTALL.call_once(|| {
        crate::on_standby(|| {
            PARKED.store(true, Ordering::SeqCst);
            BEGINS.notify_waiters();
        });
        crate::on_resume(|| PARKED.store(false, Ordering::SeqCst));
    });
}

/// Resolves when this generation begins to stand by, from this call on.
pub(super) fn begins() -> Notified<'static> {
    BEGINS.notified()
}

/// Waits while this generation stands by. The end is seen by the state, not by a hook: another hook of the
/// program may still run.
pub(super) async fn is_over(listener: &mut Listener, draining: &mut Draining) {
    if !PARKED.load(Ordering::SeqCst) {
        return;
    }
    let mut states = crate::states();
    if crate::state() == State::Standby {
        // If it fails, this process is woken by each connection that its successor accepts, no more.
        _ = listener.unregister();
    }
    while crate::state() == State::Standby && !draining.has_begun() {
        tokio::select! {
            _ = states.changed() => {}
            () = &mut *draining => {}
        }
    }
}
