//! What a daemon logs of its counters.

use super::event::Field;
use super::events;
use crate::sys::process::own_pid;
use std::fmt::Display;

events! {
    /// Of counters.
    Event {
        /// A counter was asked for before `init`, or by a name that cannot be used. It counts in this process
        /// alone.
        Refused: Error "counters" {
            daemon = own_pid(),
            name: &'a str as Field::Escaped,
            reason: &'a dyn Display as Field::Quoted,
        } => "Correct the program: see `reason`.";

        /// A counter cannot be shared with the next generation. It counts in this process alone.
        Own: Warn "counters" {
            daemon = own_pid(),
            name: &'a str as Field::Escaped,
            reason: &'a dyn Display as Field::Quoted,
        } => "See `reason`.";

        /// What the predecessor has counted cannot be read. The counters begin at 0.
        Afresh: Warn "counters" {
            daemon = own_pid(),
            reason: &'a dyn Display as Field::Quoted,
        } => "Nothing after a deploy that changes the version of the crate.";
    }
}
