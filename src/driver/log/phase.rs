//! The phases of a daemon's life, which are all logged with the same fields.

use super::event::Field;
use super::events;
use crate::sys::process::own_pid;
use std::time::Duration;

events! {
    /// A daemon enters a phase.
    Event with {
        generation: Option<u64>,
        launcher: Option<i32>,
        daemon = own_pid(),
        cause: &'a str,
        elapsed_ms: Option<Duration> as Field::millis_if_any,
    } {
        /// The daemon has not finished its start, and ends once it has.
        StoppingEarly: Info "stop-early" => "Nothing.";

        /// The daemon serves again, after a restart that has failed.
        Serving: Info "started" => "Nothing.";

        /// A handoff begins: the `on_shutdown_request` hooks run.
        Prepare: Info "prepare" => "Nothing.";

        /// The launcher is released. The daemon serves until a successor takes over.
        Detached: Info "detached" => "Nothing.";

        /// The service is to be down. Everything is served on for `leave_time`, so that load balancers notice.
        Leave: Info "leave" => "Nothing.";

        /// The drain begins: the `on_shutdown` hooks run.
        Drain: Info "drain" => "Nothing.";

        /// The `on_shutdown` hooks have finished. The daemon waits until older generations have ended.
        Drained: Info "drained" => "Nothing.";

        /// `wait` returns. The process ends when the program's `main` does.
        WaitReturns: Info "wait-returns" => "If the process lives on: find out what `main` waits for.";

        /// The daemon ends at once, since it serves nothing.
        Ended: Info "end" => "Nothing.";
    }
}
