//! The log lines of this module, in the shape of the crate's others: the fields stand in the text, and
//! are key-value pairs of the record. The guide's page about the log lists them too.

use std::fmt::Display;
use std::process;

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
