//! What a daemon logs of its life. Its sockets have a list of their own.

use super::event::Field;
use super::events;
use crate::proto::Reading;
use crate::sys::process::own_pid;
use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

events! {
    /// Of a daemon.
    Event {
        // ---- its start ----

        /// There is no PID file, so there are no restarts.
        Disabled: Info "init" {
            daemon = own_pid(),
            reason = Field::Text("no PID file: restarts are disabled"),
        } => "Configure a PID file, if you want restarts.";

        /// This system has no restarts. The PID file is ignored.
        NotLinux: Warn "init" {
            daemon = own_pid(),
            reason = Field::Text("this system is not Linux: restarts are disabled, as without a PID \
                file"),
        } => "Nothing for development. In production, run the service under Linux.";

        /// The launcher has ended before the daemon was ready. The daemon ends.
        LauncherGone: Warn "init" {
            launcher: i32,
            daemon = own_pid(),
            reason = Field::Text("the launcher is gone"),
        } => "Nothing: the supervisor starts the service again.";

        /// `/proc` cannot be used.
        NoProc: Warn "init" {
            daemon = own_pid(),
            error: &'a dyn Display as Field::Quoted,
            reason = Field::Text("no /proc of ours: older generations are known by the lock on the PID \
                file alone"),
        } => "Mount `/proc` of the PID namespace of the service.";

        /// The boot ID cannot be read.
        NoBoot: Warn "init" {
            daemon = own_pid(),
            error: &'a dyn Display as Field::Quoted,
            reason = Field::Text("the boot ID is hidden: of the older generations, only the one that holds \
                the PID file can be proven"),
        } => "Show `/proc/sys` to the service. Under systemd: remove `ProcSubset=pid`.";

        /// More than `max_draining` generations would drain: the oldest one is forced to end.
        OldestEnded: Warn "takeover" {
            predecessor: i32,
            max_draining: usize,
            signal = "USR2",
            reason = Field::Text("it is the oldest of too many generations that drain"),
        } => "Find out which clients never finish, or raise `max_draining`.";

        /// The draining generation could not be made the first victim of a lack of memory.
        OomScoreKept: Debug "oom" { daemon = own_pid(), error: &'a dyn Display as Field::Quoted }
            => "Nothing.";

        /// Another generation is starting. This one waits for the claim.
        ClaimHeld: Info "claim" {
            daemon = own_pid(),
            holder: i32,
            path: &'a Path as Field::Path,
            reason = Field::Text("another generation is starting"),
        } => "Nothing, unless `holder` never finishes its start.";

        /// This generation has the claim, and its number.
        Claim: Info "claim" {
            generation: u64,
            launcher: i32,
            daemon = own_pid(),
            elapsed_ms: Duration as Field::Millis,
        } => "Nothing.";

        /// This generation serves. Its predecessors have been told.
        Started: Info "started" {
            generation: u64,
            launcher: i32,
            daemon = own_pid(),
            predecessors: usize,
            elapsed_ms: Duration as Field::Millis,
        } => "Nothing.";

        /// An older generation is told to end.
        Takeover: Info "takeover" {
            daemon = own_pid(),
            predecessor: i32,
            predecessor_generation: u64,
            signal = "TERM",
        } => "Nothing.";

        /// An older generation could not be signalled.
        TakeoverFailed: Warn "takeover" {
            daemon = own_pid(),
            predecessor: i32,
            signal = "TERM",
            error: &'a dyn Display as Field::Quoted,
        } => "Run all generations as the same user.";

        /// A process is left alone, since it may be no older generation of this service.
        TakeoverRefused: Warn "takeover" {
            daemon = own_pid(),
            predecessor: i32,
            refused: &'a dyn Display as Field::Quoted,
        } => "Check what that process is. If it is an old generation: end it by hand.";

        /// The older generations could not be looked up.
        StopOlderFailed: Warn "stop-older" {
            daemon = own_pid(),
            error: &'a dyn Display as Field::Quoted,
        } => "Repair what `error` names. If memory or descriptors were short, the daemon tries again.";

        /// A line of the record could not be read.
        RecordLineDropped: Warn "record" {
            path: &'a Path as Field::Path,
            dropped: &'a str as Field::Escaped,
        } => "Find out what else writes to that file.";

        /// `started` has not been called, while the program may be serving already. Logged once.
        NotStarted: Warn "not-started" {
            daemon = own_pid(),
            elapsed_ms: Option<Duration> as Field::millis_if_any,
            reason = Field::Text("started() has not been called: until then a restart or a stop ends \
                this process at once, with the connections that it has accepted"),
        } => "If the program serves: it must call `started` when its sockets listen. If it still \
            prepares itself: nothing.";

        /// Many older generations have not ended yet. Logged at the start of each further one.
        GenerationsPileUp: Warn "generations" {
            generation: u64,
            daemon = own_pid(),
            older: usize,
            oldest_ms: Duration as Field::Millis,
            reason = Field::Text("older generations have not finished their drains, and each of them \
                keeps its memory"),
        } => "Let the program end its long connections when `draining` resolves, or set \
            `Config::drain_timeout`.";

        // ---- its end ----

        /// The supervisor gives a stop less time than the service would take.
        StopIsShort: Warn "leave" {
            daemon = own_pid(),
            stop_ms: Duration as Field::Millis,
            leave_ms: Duration as Field::Millis,
            limit_ms: Option<Duration> as Field::millis_if_any,
            reason = Field::Text("the supervisor gives a stop less time than leave_time and the drain \
                need: both are bounded by it"),
        } => "Raise `TimeoutStopSec=`, or set `Config::leave_time` and `Config::drain_timeout` below it.";

        /// A drain takes long. Logged once.
        DrainLasts: Warn "drain-lasts" {
            generation: Option<u64>,
            daemon = own_pid(),
            waits_for: &'a str as Field::Text,
            guards: usize,
            elapsed_ms: Option<Duration> as Field::millis_if_any,
            limit_ms: Option<Duration> as Field::millis_if_any,
        } => "Let the program end its long connections when `draining` resolves, or set \
            `Config::drain_timeout`. USR2 to the daemon forces its end.";

        /// A drain was forced to end.
        Hammer: Error "hammer" {
            generation: Option<u64>,
            daemon = own_pid(),
            reason: &'a str,
            exit_code: i32,
            elapsed_ms: Option<Duration> as Field::millis_if_any,
        } => "Find out which requests take so long, or raise `drain_timeout`.";

        // ---- while it serves ----

        /// A detached daemon has no successor yet. Logged once a minute.
        StillDetached: Warn "detached" {
            generation: Option<u64>,
            daemon = own_pid(),
            supervisor: &'a Reading as Field::Variant,
            elapsed_ms: Option<Duration> as Field::millis_if_any,
            reason = Field::Text("no successor is ready yet: serving on"),
        } => "Find out why the supervisor starts no new generation, or why that does not start.";

        /// What the check of a detached daemon found.
        Check: Debug "check" {
            daemon = own_pid(),
            finding: &'a str,
            supervisor: &'a Reading as Field::Variant,
        } => "Nothing.";

        /// A check failed. The same error is logged once a minute.
        CheckFailed: Warn "check" { daemon = own_pid(), error: &'a dyn Display as Field::Quoted }
            => "Repair what `error` names.";

        /// The record did not list this generation.
        RecordPutBack: Warn "check" {
            generation: u64,
            daemon = own_pid(),
            path: &'a Path as Field::Path,
            reason = Field::Text("the record was lost: entered again"),
        } => "Find out what removes or changes files beside the PID file.";

        /// The PID file was missing or wrong.
        PidFilePutBack: Warn "check" {
            daemon = own_pid(),
            path: &'a Path as Field::Path,
            reason = Field::Text("the PID file named no live generation: ours is back"),
        } => "Find out what removes or changes the PID file.";

        /// A signal arrived. `from`: its sender, or 0 if that is unknown.
        Signal: Debug "signal" { daemon = own_pid(), signal: i32, from: i32 } => "Nothing.";

        /// A restart was asked for that cannot be.
        RestartRefused: Warn "signal" {
            daemon = own_pid(),
            signal = "USR2",
            refused: &'a str as Field::Escaped,
        } => "See `refused`.";

        /// A message of the launcher is not one of the protocol.
        ChannelRefused: Warn "channel" { refused: &'a dyn std::fmt::Debug as Field::Variant }
            => "Report it: launcher and daemon disagree about their protocol.";

        /// A report did not reach the launcher.
        ReportFailed: Debug "channel" { report: &'a str, error: &'a dyn Display as Field::Quoted }
            => "Nothing: if memory was short, it is sent again.";

        /// The signal that releases the launcher did not reach it.
        ReleaseSignalFailed: Debug "release" {
            launcher: i32,
            error: &'a dyn Display as Field::Quoted,
        } => "Nothing: the channel has told the launcher.";

        /// A standard stream without a reader was replaced by `/dev/null`.
        OutputReplaced: Warn "output" {
            daemon = own_pid(),
            fd: i32,
            reason: &'a dyn Display as Field::Quoted,
        } => "Let the program log to a file, or to a log service that outlives the supervisor's pipe.";

        /// A standard stream without a reader could not be replaced.
        OutputNotReplaced: Warn "output" {
            daemon = own_pid(),
            fd: i32,
            error: &'a dyn Display as Field::Quoted,
        } => "Nothing: it is tried again.";

        /// The program's health check says no, or panicked.
        Unwell: Error "watchdog" {
            daemon = own_pid(),
            reason: &'a dyn Display as Field::Quoted,
        } => "Find out why the program is not well. systemd ends it at its watchdog's limit.";

        /// systemd could not be told. A launcher logs it too.
        NotifyFailed: Warn "notify" { pid = own_pid(), error: &'a dyn Display as Field::Quoted }
            => "Check that `NOTIFY_SOCKET` can be reached.";

        /// The notification descriptor was told that the service is ready.
        Notified: Debug "notification" { process = own_pid(), ready = true } => "Nothing.";

        /// The notification descriptor could not be told.
        NotificationFailed: Warn "notification" {
            process = own_pid(),
            error: &'a dyn Display as Field::Quoted,
        } => "Check that the file `notification-fd` names the descriptor of the program.";

        /// The thread that asks systemd about the unit could not be started.
        UnitNotAsked: Warn "systemd" { daemon = own_pid(), error: &'a dyn Display as Field::Quoted }
            => "Raise the limit of threads.";

        /// systemd does not answer.
        UnitUnknown: Info "systemd" {
            daemon = own_pid(),
            unit: &'a str as Field::Escaped,
            error: &'a dyn Display as Field::Quoted,
            reason = Field::Text("systemd cannot be asked: a TERM is taken for a restart"),
        } => "Let the service run `systemctl show`.";

        /// With this setting of the unit, restarts cost requests.
        UnitSetting: Warn "systemd" {
            daemon = own_pid(),
            unit: &'a str as Field::Escaped,
            setting: &'a str as Field::Escaped,
            instead: &'a str as Field::Escaped,
            reason: &'a dyn Display as Field::Quoted,
        } => "Write in the unit what `instead` says.";

        // ---- the program's hooks and calls ----

        /// A hook panicked. The others run.
        HookPanicked: Error "hooks" {
            daemon = own_pid(),
            hook: &'a str,
            panic: &'a str as Field::Escaped,
        } => "Repair the hook.";

        /// A hook for a signal panicked. The others run.
        SignalHookPanicked: Error "hooks" {
            daemon = own_pid(),
            hook: &'a str,
            signal: i32,
            panic = true,
        } => "Repair the hook.";

        /// A hook before a signal takes too long.
        SignalHookHangs: Warn "hooks" {
            daemon = own_pid(),
            hook = "before_signal",
            signal: i32,
            reason = Field::Text("it has not returned: going on without it"),
        } => "Repair the hook: it must return within a second.";

        /// A hook was added too late. It never runs.
        HookRefused: Error "hooks" {
            refused: &'a str,
            reason = Field::Text("added after its stage was over"),
        } => "Add the hook earlier.";

        /// `wait` was called before `init`.
        WaitBeforeInit: Error "wait" {
            reason = Field::Text("called before init: it waits until somebody calls init"),
        } => "Call `init` first.";
    }
}
