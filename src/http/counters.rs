//! What the servers count: see [`Server`](super::Server#counters).

use crate::counters;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) struct Counters {
    pub(super) connections: &'static AtomicU64,
    /// Counted before the app gets it, so before any client sees an answer.
    pub(super) requests: &'static AtomicU64,
    /// Counted before the answer is sent.
    pub(super) failures: &'static AtomicU64,
    /// The successor serves the connection from then on.
    pub(super) passed: &'static AtomicU64,
}

impl Counters {
    /// May transfer everything from the predecessor.
    pub(super) fn get() -> Counters {
        Counters {
            connections: counters::get("http_connections"),
            requests: counters::get("http_requests"),
            failures: counters::get("http_failures"),
            passed: counters::get("http_passed"),
        }
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
