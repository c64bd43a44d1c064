//! What is logged of connections that move from one generation to the next.

use super::event::Field;
use super::events;
use crate::sys::process::own_pid;
use std::fmt::Display;
use std::time::Duration;

events! {
    /// Of connections that move.
    Event {
        /// Open connections were passed to the successor, which serves them from now on.
        Passed: Info "passing" {
            generation: Option<u64>,
            daemon = own_pid(),
            successor: i32,
            successor_generation: u64,
            connections: usize,
            elapsed_ms: Duration as Field::Millis,
        } => "Nothing.";

        /// These connections cannot be passed now. This generation serves them on.
        Stay: Info "passing" {
            generation: Option<u64>,
            daemon = own_pid(),
            connections: usize,
            reason: &'a dyn Display as Field::Quoted,
        } => "Nothing after a stop. Otherwise see `reason`: the clients of these connections have to connect again.";

        /// The successor cannot be reached, or does not keep to the protocol.
        PassFailed: Warn "passing" {
            generation: Option<u64>,
            daemon = own_pid(),
            successor: i32,
            successor_generation: u64,
            error: &'a dyn Display as Field::Quoted,
        } => "Nothing if that generation has just died. Otherwise see `error`.";

        /// An older generation has passed its open connections, which this one serves now. Written when that
        /// generation has ended, or has closed the link.
        Arrived: Info "passing" {
            generation: Option<u64>,
            daemon = own_pid(),
            predecessor: i32,
            predecessor_generation: u64,
            connections: usize,
        } => "Nothing.";

        /// Connections that another generation has sent were refused. That generation serves them on.
        ArrivalRefused: Warn "passing" {
            generation: Option<u64>,
            daemon = own_pid(),
            predecessor: i32,
            predecessor_generation: u64,
            error: &'a dyn Display as Field::Quoted,
        } => "Repair what `error` names.";

        /// The program panicked when it was given a connection. The connection is closed.
        AcceptPanicked: Error "passing" {
            daemon = own_pid(),
            name: &'a str as Field::Escaped,
            panic: &'a str as Field::Escaped,
        } => "Correct the program.";
    }
}
