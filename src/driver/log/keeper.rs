//! What a keeper logs. Its standard output leads nowhere, so these lines arrive only if the program has set
//! up a logger with a file of its own before `init`, and `Config::keep_open` keeps that file open.

use super::event::Field;
use super::events;
use crate::sys::process::own_pid;
use std::fmt::Display;
use std::time::Duration;

events! {
    /// Of a keeper.
    Event {
        /// The keeper holds the sockets of this generation, for `left_ms` at most.
        Keeping: Info "keep" {
            generation: u64,
            keeper = own_pid(),
            sockets: usize,
            left_ms: Duration as Field::Millis,
        } => "Read why the daemon has crashed.";

        /// The sockets were sent to the successor.
        Given: Info "keep" {
            generation: u64,
            keeper = own_pid(),
            successor: i32,
            successor_generation: u64,
            sockets: usize,
        } => "Nothing.";

        /// The keeper ends.
        Ended: Info "keep" {
            generation: u64,
            keeper = own_pid(),
            reason: &'a str as Field::Text,
        } => "If `keep_sockets` is over: find out why no generation starts.";

        /// Something that the keeper had to do has failed.
        Failed: Warn "keep" {
            keeper = own_pid(),
            error: &'a dyn Display as Field::Quoted,
        } => "Repair what `error` names.";
    }
}
