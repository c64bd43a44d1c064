//! What both generations log of a probation.

use super::event::Field;
use super::events;
use crate::sys::process::own_pid;
use std::fmt::Display;
use std::time::Duration;

events! {
    /// Of a probation.
    Event {
        /// This generation has to prove itself. Its predecessor stands by.
        Begins: Info "probation" {
            generation: Option<u64>,
            daemon = own_pid(),
            predecessor_generation: u64,
            limit_ms: Duration as Field::Millis,
        } => "Nothing.";

        /// No predecessor stands by, so this generation is proven at once.
        NoStandby: Warn "probation" {
            daemon = own_pid(),
            predecessor: i32,
            reason: &'a str as Field::Text,
        } => "If it runs an earlier version of this crate: nothing. Otherwise see `reason`.";

        /// The probation was passed: the predecessor drains.
        Committed: Info "commit" {
            generation: Option<u64>,
            daemon = own_pid(),
        } => "Nothing.";

        /// The probation was passed, and the record cannot say so. It is tried again each second, and the
        /// predecessor stands by until then.
        CommitFailed: Warn "commit" {
            daemon = own_pid(),
            error: &'a dyn Display as Field::Quoted,
        } => "Repair what `error` names.";

        /// No generation stands by, so this one is proven at once, and the record cannot say so. It takes over all the
        /// same, and tries again each second. If it dies before, the record takes that for a probation that has failed.
        ProofNotWritten: Warn "commit" {
            daemon = own_pid(),
            error: &'a dyn Display as Field::Quoted,
        } => "Repair what `error` names.";

        /// The program says that it is not well.
        Unhealthy: Warn "probation" {
            generation: Option<u64>,
            daemon = own_pid(),
            reason: &'a str as Field::Text,
        } => "Find out what is wrong with this version.";

        /// This generation has failed in its probation. Its predecessor serves again before the hooks have returned.
        HooksHang: Warn "hooks" {
            generation: Option<u64>,
            daemon = own_pid(),
            hook = "on_shutdown_request",
            reason = Field::Text("it has not returned within handoff_timeout: going on without it"),
        } => "Repair the hook, or raise `handoff_timeout`.";

        /// The generation that stands by was asked to serve again, and does not answer. It is asked each second.
        NotResumed: Warn "rollback" {
            generation: Option<u64>,
            daemon = own_pid(),
            reason = Field::Text("the generation that stands by does not answer: this one serves until it does"),
        } => "Find out why that process hangs. If it ends, this generation serves on.";

        /// A newer generation is on probation: this one stands by.
        StandsBy: Info "standby" {
            generation: Option<u64>,
            daemon = own_pid(),
            successor_generation: u64,
        } => "Nothing.";

        /// The newer generation has failed, hangs or has left: this one serves again.
        ServesAgain: Warn "rollback" {
            generation: Option<u64>,
            daemon = own_pid(),
            cause: &'a str as Field::Word,
        } => "Find out why the new version has failed.";

        /// A program file has failed in its probation. Its next try waits.
        Rejected: Warn "rollback" {
            generation: Option<u64>,
            daemon = own_pid(),
            failed_generation: u64,
            reason: &'a str as Field::Text,
            tries: u32,
            pause_ms: Duration as Field::Millis,
        } => "Install a version that works, or try again at once by `seamless restart`.";

        /// PID file, control socket or record could not be taken back. It is tried again.
        TakeBackFailed: Warn "rollback" {
            daemon = own_pid(),
            error: &'a dyn Display as Field::Quoted,
        } => "Repair what `error` names.";

        /// The other generation heard nothing of this one for two seconds, and has served as well. So the probation
        /// begins anew.
        BeginsAnew: Warn "probation" {
            generation: Option<u64>,
            daemon = own_pid(),
            elapsed_ms: Duration as Field::Millis,
        } => "If the process was not stopped: the machine may be out of processors or memory.";

        /// A process waits in `init`, since its program file has failed in its probation.
        CandidateWaits: Info "candidate" {
            generation: Option<u64>,
            daemon = own_pid(),
            candidate: i32,
            pause_ms: Duration as Field::Millis,
        } => "Install a version that works, or try again at once by `seamless restart`.";

        /// A program file that has failed is tried again at once: an operator has asked for a restart, or the
        /// process that waited was told to end.
        TryAtOnce: Info "candidate" {
            generation: Option<u64>,
            daemon = own_pid(),
            candidate: Option<i32>,
            cause: &'a str as Field::Word,
        } => "Nothing.";

        /// The generation that serves does not take note that this process waits in `init`.
        NotAwaited: Debug "init" {
            daemon = own_pid(),
            server: i32,
            reason: &'a str as Field::Text,
        } => "Nothing: it is tried again.";

        /// The generation that serves gives no duplicates of its sockets to this process, which waits in `init`. If
        /// it crashes meanwhile, connections are refused until this process has started.
        NoCopies: Warn "init" {
            daemon = own_pid(),
            server: i32,
            reason: &'a str as Field::Text,
        } => "See `reason`.";

        /// This process runs a file that has failed in its probation. It waits before it tries again.
        Waits: Warn "init" {
            daemon = own_pid(),
            tries: u32,
            pause_ms: Duration as Field::Millis,
        } => "Install a version that works, or try again at once by `seamless restart`.";
    }
}
