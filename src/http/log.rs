//! The log lines of this module, in the shape of the crate's others: the fields stand in the text, and
//! are key-value pairs of the record. The guide's page about the log lists them too.

use std::fmt::Display;
use std::process;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is logged once in this time at most, however often it happens.
const SELDOM: Duration = Duration::from_secs(60);

/// When something was logged that may happen often.
#[derive(Default)]
pub(super) struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Is it to be logged? Then it counts as logged.
    pub(super) fn is_due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| last.elapsed() >= SELDOM);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

/// The server accepts connections at this address.
pub(super) fn serve(address: &dyn Display) {
    let daemon = process::id();
    log::info!(
        target: "seamless",
        stage = "serve", daemon = daemon, address:% = address;
        "stage=serve daemon={daemon} address={address}",
    );
}

/// A drain was forced to end.
pub(super) fn hammer(connections: usize, cut: usize) {
    let daemon = process::id();
    log::error!(
        target: "seamless",
        stage = "hammer", daemon = daemon, connections = connections, cut = cut;
        "stage=hammer daemon={daemon} connections={connections} cut={cut}",
    );
}

/// A PROXY header came from a peer that is not trusted.
pub(super) fn not_trusted(peer: &str) {
    let daemon = process::id();
    log::warn!(
        target: "seamless",
        stage = "http", daemon = daemon, step = "proxy", peer = peer,
        refused = "a PROXY header from a peer that is not trusted";
        "stage=http daemon={daemon} step=proxy peer={peer} \
         refused=\"a PROXY header from a peer that is not trusted\"",
    );
}

/// No connection can be accepted.
pub(super) fn cannot_accept(error: &dyn Display) {
    let daemon = process::id();
    log::warn!(
        target: "seamless",
        stage = "http", daemon = daemon, step = "accept", error:% = error;
        "stage=http daemon={daemon} step=accept error=\"{error}\"",
    );
}

/// A connection has failed at this step.
pub(super) fn failed(step: &str, error: &dyn Display) {
    let daemon = process::id();
    log::debug!(
        target: "seamless",
        stage = "http", daemon = daemon, step = step, error:% = error;
        "stage=http daemon={daemon} step={step} error=\"{error}\"",
    );
}
