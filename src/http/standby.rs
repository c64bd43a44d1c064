//! A generation that stands by accepts nothing: its successor serves, on probation.

use super::stream::Listener;
use crate::{Draining, State};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set by a hook, so that a service without probations pays for one load at each connection.
static PARKED: AtomicBool = AtomicBool::new(false);
static INSTALL: Once = Once::new();

pub(super) fn install() {
    INSTALL.call_once(|| {
        crate::on_standby(|| PARKED.store(true, Ordering::SeqCst));
        crate::on_resume(|| PARKED.store(false, Ordering::SeqCst));
    });
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
