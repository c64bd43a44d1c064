//! What the servers count: see [`Server`](super::Server#counters).

use crate::counters;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) struct Counters {
    connections: &'static AtomicU64,
    requests: &'static AtomicU64,
    failures: &'static AtomicU64,
    passed: &'static AtomicU64,
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

    pub(super) fn accepted(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Before the app gets it, so before any client sees an answer.
    pub(super) fn asked(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// The successor serves a connection from now on.
    pub(super) fn passed(&self) {
        self.passed.fetch_add(1, Ordering::Relaxed);
    }

    /// Before the answer is sent.
    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}
