//! Does what the launcher's machines want.

use super::member::Member;
use super::{Driver, Due, warnings};
use crate::driver::log::{Maybe, note};
use crate::driver::threads::Asked;
use crate::driver::{observers, retry};
use crate::proto::End;
use crate::proto::channel::ToDaemon;
use crate::proto::launcher::{Child, Input, Output, Timer};
use crate::proto::supervisor::notices::{self, Notice};
use crate::sys::signals::{SIGKILL, SIGTERM, SIGUSR2};
use crate::sys::{launch, process};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// A CONT that is further from its TERM belongs to something else; and the supervisors that write
/// their status after the signals need half of that.
const SETTLE: Duration = Duration::from_millis(20);
/// How much longer than its own `drain_timeout` an attached daemon may live.
const KILL_AFTER: Duration = Duration::from_secs(5);

/// How long after its successor has started a daemon may serve on before it is told once more: as
/// long as a detached one needs to find out.
const OVERDUE: Duration = Duration::from_secs(1);

impl Driver {
    pub(super) fn perform(&mut self, output: Output) {
        self.notify(notices::Input::Performing(output), None);
        match output {
            Output::ReadStatus => {
                let mut asked = Asked::ask(&self.supervisor, Some(process::own_pid()));
                match asked.answer() {
                    Some(reading) => self.inputs.push_back(Input::Status(reading)),
                    None => self.asking = Some(asked),
                }
            }
            Output::Tell(pid, intent) => {
                self.tell(pid, "tell the intent", &ToDaemon::Intent(intent));
                note!(
                    Debug,
                    "stage=intent launcher={} intent={}",
                    process::own_pid(),
                    intent.name(),
                );
            }
            Output::Handoff(pid) => {
                self.send(pid, SIGUSR2, "send USR2");
                note!(
                    Info,
                    "stage=handoff launcher={} daemon={pid} signal=USR2 elapsed_ms={}",
                    process::own_pid(),
                    elapsed_ms(self.asked),
                );
            }
            Output::Stop(pid) => {
                self.send(pid, SIGTERM, "send TERM");
                note!(
                    Info,
                    "stage=stop launcher={} daemon={pid} signal=TERM elapsed_ms={}",
                    process::own_pid(),
                    elapsed_ms(self.asked),
                );
            }
            Output::Cancel(pid) => {
                self.tell(pid, "cancel its start", &ToDaemon::Cancel);
                self.send(pid, SIGUSR2, "send USR2");
                note!(
                    Info,
                    "stage=cancel launcher={} daemon={pid} signal=USR2 reason=\"it was still \
                     starting\"",
                    process::own_pid(),
                );
            }
            Output::TellTakenOver(pid) => {
                self.tell(pid, "tell of a takeover", &ToDaemon::TakenOver);
                note!(
                    Info,
                    "stage=takeover launcher={} predecessor={pid} reason=\"its successor's TERM did \
                     not reach it\"",
                    process::own_pid(),
                );
            }
            Output::Kill(pid, timer) => {
                let limit = match timer {
                    Timer::Handoff => "handoff_timeout, and no handlers installed",
                    Timer::Cancel => "handoff_timeout, and its start was cancelled",
                    Timer::Kill(_) => "drain_timeout and 5 s",
                    Timer::Cont | Timer::Settle | Timer::Overdue => "none",
                };
                note!(
                    Error,
                    "stage=kill launcher={} daemon={pid} signal=KILL limit={limit:?} elapsed_ms={}",
                    process::own_pid(),
                    elapsed_ms(self.asked),
                );
                self.send(pid, SIGKILL, "send KILL");
            }
            Output::Forward(pid, signal) => {
                self.send(pid, signal, "pass on a signal");
                note!(
                    Debug,
                    "stage=forward launcher={} daemon={pid} signal={signal}",
                    process::own_pid(),
                );
            }
            Output::Start => self.start(),
            Output::Progress(progress) => self.progress(progress),
            Output::Arm(timer) => {
                let after = match timer {
                    Timer::Cont | Timer::Settle => Some(SETTLE),
                    Timer::Handoff | Timer::Cancel => Some(self.handoff_timeout),
                    Timer::Overdue => Some(OVERDUE),
                    Timer::Kill(pid) => {
                        let limit = self.member(pid).and_then(|member| member.drain_timeout);
                        limit.map(|limit| limit.saturating_add(KILL_AFTER))
                    }
                };
                if let Some(after) = after {
                    self.timers.arm(Due::Machine(timer), after);
                }
            }
            Output::Disarm(timer) => self.timers.disarm(Due::Machine(timer)),
            Output::Leave { child, expired } => self.leave(child, expired),
            Output::Mirror(pid, end) => {
                let (how, number) = shown(end);
                note!(
                    Info,
                    "stage=end launcher={} daemon={pid} {how}={number} elapsed_ms={}",
                    process::own_pid(),
                    elapsed_ms(self.asked),
                );
                launch::end_as(end)
            }
        }
    }

    /// `fd`: what came with the message that led to it.
    pub(super) fn perform_notice(&mut self, notice: &Notice, fd: Option<&OwnedFd>) {
        match *notice {
            Notice::Ask(pid) => {
                let known = self.members.iter().find(|one| one.daemon.pid() == pid);
                if let Some(Member { channel: Some(channel), .. }) = known.or(self.members.last()) {
                    // One that is full has an answer waiting behind it.
                    _ = channel.send(&ToDaemon::Ask.format(), &[]);
                }
            }
            Notice::Kill(pid) => {
                note!(
                    Error,
                    "stage=kill launcher={} daemon={} signal=KILL limit=\"watchdog, and 2 s after its \
                     signal\"",
                    process::own_pid(),
                    pid,
                );
                self.send(pid, SIGKILL, "send KILL");
            }
            Notice::Arm(timer, after) => self.timers.arm(Due::Notices(timer), after),
            Notice::Disarm(timer) => self.timers.disarm(Due::Notices(timer)),
            Notice::Say(_) | Notice::Store(_) | Notice::Remove(_) | Notice::Readiness => {
                observers::tell(notice, fd);
            }
        }
    }

    /// Starts the next generation.
    fn start(&mut self) {
        let started = self.again.start(&self.supervisor, || self.again.program());
        self.not_executed = None;
        let child = match started {
            Ok(member) => {
                let pid = member.daemon.pid();
                note!(Info, "stage=launch launcher={} daemon={pid}", process::own_pid());
                self.members.push(member);
                launch::trim_memory();
                Some(pid)
            }
            Err(error) => {
                self.not_executed = Some(error);
                None
            }
        };
        self.inputs.push_back(Input::Spawned(child));
    }

    pub(super) fn tell(&mut self, pid: Child, step: &str, message: &ToDaemon) {
        let told = match self.member(pid) {
            Some(Member { channel: Some(channel), .. }) => {
                // The signal that follows means less without it.
                retry::within(retry::TO_DAEMON, || channel.send(&message.format(), &[]))
            }
            Some(_) | None => Err(io::ErrorKind::NotConnected.into()),
        };
        note_failure(pid, step, told);
    }

    fn send(&mut self, pid: Child, signal: i32, step: &str) {
        if let Some(member) = self.member(pid) {
            let sent = member.daemon.signal(signal);
            note_failure(pid, step, sent);
        }
    }

    fn leave(&self, pid: Child, expired: bool) -> ! {
        if expired {
            note!(
                Warn,
                "stage=release launcher={} daemon={pid} elapsed_ms={} reason=\"handoff_timeout: the \
                 daemon did not release its launcher and serves on detached\"",
                process::own_pid(),
                elapsed_ms(self.asked),
            );
        } else {
            note!(
                Info,
                "stage=release launcher={} daemon={pid} elapsed_ms={}",
                process::own_pid(),
                elapsed_ms(self.asked),
            );
        }
        warnings::warn_at_release(&self.supervisor, self.release_code, self.asked.is_some());
        launch::end_as(End::Code(self.release_code))
    }
}

/// How a process ended, as it is logged.
pub(super) fn shown(end: End) -> (&'static str, i32) {
    match end {
        End::Code(code) => ("exit_code", code),
        End::Signal(signal) => ("signal", signal),
    }
}

fn note_failure(pid: Child, step: &str, result: io::Result<()>) {
    if let Err(error) = result {
        note!(
            Warn,
            "stage=launcher launcher={} daemon={pid} step={step:?} error=\"{error}\"",
            process::own_pid(),
        );
    }
}

/// `-` where it has not begun.
pub(super) fn elapsed_ms(since: Option<Instant>) -> Maybe<String> {
    Maybe(since.map(|since| format!("{:.1}", since.elapsed().as_secs_f64() * 1e3)))
}
