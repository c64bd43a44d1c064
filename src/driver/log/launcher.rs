//! What a launcher logs.

use super::event::Field;
use super::events;
use crate::sys::process::own_pid;
use std::fmt::Display;
use std::time::Duration;

events! {
    /// Of a launcher.
    Event {
        /// The launcher has started the first daemon.
        Launch: Info "launch" {
            launcher = own_pid(), daemon: i32, supervisor: Option<i32>, supervisor_kind: &'a str,
        } => "Nothing. Check that `supervisor_kind` is the supervisor that you use.";

        /// The launcher has started a further daemon: a reload in place.
        LaunchAgain: Info "launch" { launcher = own_pid(), daemon: i32 } => "Nothing.";

        /// The launcher's parent had ended before the launcher looked at it.
        LaunchAbandoned: Warn "launch" {
            launcher = own_pid(),
            reason = Field::Text("the supervisor has ended already: nobody restarts this launcher"),
        } => "Start the service under its supervisor, without a program between them that ends.";

        /// The parent is no known supervisor, and what is above it restarts nothing: a TERM is a stop.
        LaunchedByNobody: Info "launch" {
            launcher = own_pid(),
            parent_name: Option<&'a str>,
            reason: &'a str as Field::Text,
        } => "Nothing in a container. If the parent starts the service again when it ends: \
            `Config::parent_restarts(true)`.";

        /// A shell script started the program without `exec`.
        LaunchedByScript: Warn "launch" {
            launcher = own_pid(),
            parent_name: Option<&'a str>,
            reason = Field::Text("started by a shell script without exec: the supervisor's TERM ends \
                the shell and never arrives here"),
        } => "Write `exec` before the program in the run script.";

        /// Restarts in place would not follow a link that a deploy changes.
        FolderUnknown: Warn "launch" {
            launcher = own_pid(),
            reason = Field::Text("the path by which the program or its working folder was entered is \
                unknown: restarts in place stay in the folder of the first start, whatever a link says"),
        } => "Set `Config::working_dir`, and start the program by an absolute path; or start it from a \
            shell, which sets `PWD`. Nothing if releases are not switched by a link.";

        /// s6 sends another signal than TERM for a restart.
        OtherDownSignal: Warn "launch" {
            launcher = own_pid(),
            down_signal: &'a str as Field::Escaped,
            reason: &'a str as Field::Text,
        } => "Remove the file `down-signal` of the service, or write TERM or QUIT there.";

        /// `init` was called while other threads of the program were running.
        LaunchedWithThreads: Warn "launch" {
            launcher = own_pid(),
            threads: usize,
            reason = Field::Text("other threads were running at init, for example those of \
                #[tokio::main]: the launcher keeps them, their memory and all open files; call init \
                first in main, before the runtime starts"),
        } => "Call `init` first in `main`, before the runtime starts: see \
            [programs](crate::guide::programs#tokio).";

        /// A hook of `on_launch` panicked.
        LaunchHookPanicked: Error "launch" { hook = "on_launch", panic: &'a str as Field::Escaped }
            => "Repair the hook.";

        /// A daemon has reported a step of the protocol.
        Report: Debug "report" { launcher = own_pid(), daemon: i32, report: &'a str } => "Nothing.";

        /// A message of the daemon is not one of the protocol.
        ChannelRefused: Warn "channel" { refused: &'a dyn std::fmt::Debug as Field::Variant }
            => "Report it: launcher and daemon disagree about their protocol.";

        /// A signal for a reload in place arrived.
        Reload: Info "reload" { launcher = own_pid(), signal: i32 } => "Nothing.";

        /// The launcher tells a daemon what the supervisor wants.
        Intent: Debug "intent" { launcher = own_pid(), intent: &'a str } => "Nothing.";

        /// A restart begins: the daemon is asked to prepare.
        Handoff: Info "handoff" {
            launcher = own_pid(),
            daemon: i32,
            signal = "USR2",
            elapsed_ms: Option<Duration> as Field::millis_if_any,
        } => "Nothing.";

        /// The supervisor wants the service down: the daemon is told to stop.
        Stop: Info "stop" {
            launcher = own_pid(),
            daemon: i32,
            signal = "TERM",
            elapsed_ms: Option<Duration> as Field::millis_if_any,
        } => "Nothing.";

        /// The service is to be down, and its daemon has ended: an older generation is told to end as well.
        StopOlder: Info "stop-older" {
            launcher = own_pid(),
            predecessor: i32,
            predecessor_generation: u64,
            signal = "TERM",
        } => "If the daemon has crashed: read its own log.";

        /// An older generation could not be signalled. It ends when it has read that the service is to be down.
        StopOlderRefused: Warn "stop-older" {
            launcher = own_pid(),
            predecessor: i32,
            refused: &'a dyn Display as Field::Quoted,
        } => "Check what that process is. If it is an old generation: end it by hand.";

        /// The older generations could not be looked up.
        StopOlderFailed: Warn "stop-older" {
            launcher = own_pid(),
            error: &'a dyn Display as Field::Quoted,
        } => "Repair what `error` names. If memory or descriptors were short, the launcher tries again.";

        /// A daemon that was still starting is told to end.
        Cancel: Info "cancel" {
            launcher = own_pid(),
            daemon: i32,
            signal = "USR2",
            reason = Field::Text("it was still starting"),
        } => "Nothing.";

        /// The launcher tells a daemon that its successor has taken over.
        TakenOver: Info "takeover" {
            launcher = own_pid(),
            predecessor: i32,
            reason = Field::Text("its successor's TERM did not reach it"),
        } => "Nothing.";

        /// A daemon has outlived a limit and is killed.
        Kill: Error "kill" {
            launcher = own_pid(),
            daemon: i32,
            signal = "KILL",
            limit: &'a str as Field::Escaped,
            elapsed_ms: Option<Duration> as Field::millis_if_any,
        } => "Find out what the daemon was doing, or raise the limit that the line names.";

        /// A daemon has outlived the signal of systemd's watchdog and is killed.
        WatchdogKill: Error "kill" {
            launcher = own_pid(),
            daemon: i32,
            signal = "KILL",
            limit = Field::Text("watchdog, and 2 s after its signal"),
        } => "Find out why the daemon hangs.";

        /// A signal is passed on to the daemon.
        Forward: Debug "forward" { launcher = own_pid(), daemon: i32, signal: i32 } => "Nothing.";

        /// The daemon has ended with this exit code. The launcher ends the same way.
        EndedWithCode: Info "end" {
            launcher = own_pid(),
            daemon: i32,
            exit_code: i32,
            elapsed_ms: Option<Duration> as Field::millis_if_any,
        } => "If `exit_code` is not 0 and nobody stopped the service: read the daemon's own log.";

        /// The daemon has ended by this signal. The launcher ends the same way.
        EndedBySignal: Info "end" {
            launcher = own_pid(),
            daemon: i32,
            signal: i32,
            elapsed_ms: Option<Duration> as Field::millis_if_any,
        } => "If nobody sent the signal: read the daemon's own log, and look for a core dump.";

        /// A reload in place has succeeded: the new daemon serves.
        Reloaded: Info "reloaded" {
            launcher = own_pid(),
            daemon: i32,
            elapsed_ms: Option<Duration> as Field::millis_if_any,
        } => "Nothing.";

        /// A reload in place has failed. The current daemon serves on.
        ReloadFailed: Warn "reload-failed" {
            launcher = own_pid(),
            current: Option<i32>,
            elapsed_ms: Option<Duration> as Field::millis_if_any,
            reason: &'a str as Field::Escaped,
        } => "Repair what `reason` names, and reload again.";

        /// A reload in place was refused. The current daemon serves on.
        ReloadRefused: Warn "reload-failed" {
            launcher = own_pid(),
            current: Option<i32>,
            elapsed_ms = Field::Nothing,
            refused: &'a str as Field::Escaped,
        } => "Reload again when an older generation has ended, or raise `max_draining`.";

        /// The daemon that served has ended with this exit code during a reload in place.
        CurrentEndedWithCode: Warn "current-ended" {
            launcher = own_pid(),
            daemon: i32,
            exit_code: i32,
            reason = Field::Text("another one is starting: its outcome is awaited"),
        } => "Read the daemon's own log.";

        /// The daemon that served has ended by this signal during a reload in place.
        CurrentEndedBySignal: Warn "current-ended" {
            launcher = own_pid(),
            daemon: i32,
            signal: i32,
            reason = Field::Text("another one is starting: its outcome is awaited"),
        } => "Read the daemon's own log.";

        /// The daemon has released its launcher, which ends now. The supervisor starts the next one.
        Release: Info "release" {
            launcher = own_pid(),
            daemon: i32,
            elapsed_ms: Option<Duration> as Field::millis_if_any,
        } => "Nothing.";

        /// The launcher ends although the daemon did not release it in time.
        ReleaseExpired: Warn "release" {
            launcher = own_pid(),
            daemon: i32,
            elapsed_ms: Option<Duration> as Field::millis_if_any,
            reason = Field::Text("handoff_timeout: the daemon did not release its launcher and serves \
                on detached"),
        } => "Look for an `on_shutdown_request` hook that takes longer than `handoff_timeout`.";

        /// The launcher ends, and it is unknown whether its parent starts the next one.
        ReleaseToUnknown: Info "release" {
            launcher = own_pid(),
            parent_name: Option<&'a str>,
            reason = Field::Text("it is unknown whether the parent starts the service again: the daemon \
                serves on until a successor takes over, or until successor_timeout"),
        } => "If the parent starts nothing again: stop the service by INT instead of TERM.";

        /// supervisord may not start the next launcher.
        ReleaseCode: Warn "release" {
            launcher = own_pid(),
            exit_code: i32,
            reason: &'a str as Field::Text,
        } => "Set `autorestart=true`, or another `release_code`.";

        /// The daemon has crashed, and a keeper was started: it holds the sockets until the next start.
        KeeperStarted: Info "keep" { launcher = own_pid(), daemon: i32, keeper: i32 } => "Nothing.";

        /// The keeper is in place: connections wait from here on.
        KeeperInPlace: Info "keep" {
            launcher = own_pid(),
            keeper: i32,
            reason = Field::Text("it is in place: connections wait for the next start"),
        } => "Read why the daemon has crashed.";

        /// The keeper has ended before it was in place, or was told to.
        KeeperEnded: Info "keep" {
            launcher = own_pid(),
            keeper: i32,
            reason = Field::Text("it has ended before its launcher"),
        } => "Nothing if the service was stopped, or an older generation serves.";

        /// The daemon has crashed, and no keeper could be started. Connections are refused until the next
        /// start.
        NoKeeper: Warn "keep" {
            launcher = own_pid(),
            daemon: i32,
            error: &'a dyn Display as Field::Quoted,
        } => "Repair what `error` names.";

        /// Some sockets of the daemon did not arrive at the launcher. A keeper would not hold them.
        NotKept: Warn "keep" {
            launcher = own_pid(),
            daemon: i32,
            sockets: usize,
            reason = Field::Text("these sockets would not outlive a crash: the limit of open files is \
                too low"),
        } => "Raise the limit of open files.";

        /// The launcher has closed its duplicates of a daemon's sockets.
        SocketsDropped: Debug "keep" {
            launcher = own_pid(),
            daemon: i32,
            reason = Field::Text("no keeper is needed any more"),
        } => "Nothing.";

        /// The launcher could not reach a daemon.
        StepFailed: Warn "launcher" {
            launcher = own_pid(),
            daemon: i32,
            step: &'a str as Field::Escaped,
            error: &'a dyn Display as Field::Quoted,
        } => "Nothing if the daemon has just ended.";
    }
}
