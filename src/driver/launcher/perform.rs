//! Does what the launcher's machines want.

use super::member::Member;
use super::{Driver, Due, warnings};
use crate::driver::log::{self, elapsed, launcher::Event};
use crate::driver::threads::{Answer, ask};
use crate::driver::{observers, retry};
use crate::proto::End;
use crate::proto::channel::ToDaemon;
use crate::proto::launcher::timers::Limits;
use crate::proto::launcher::{Child, Input, Output, Timer};
use crate::proto::supervisor::notices::{self, Notice};
use crate::sys::signals::{SIGKILL, SIGTERM, SIGUSR2};
use crate::sys::{launch, proc, process};
use std::io;
use std::os::fd::OwnedFd;

impl Driver {
    pub(super) fn perform(&mut self, output: Output) {
        self.notify(notices::Input::Performing(output), None);
        match output {
            Output::ReadStatus => match ask(&self.supervisor, Some(process::own_pid())) {
                Answer::Known(reading) => self.inputs.push_back(Input::Status(reading)),
                Answer::Awaited(asked) => self.asking = Some(asked),
            },
            Output::Tell(pid, intent) => {
                self.tell(pid, "tell the intent", &ToDaemon::Intent(intent));
                log::write(Event::Intent { intent: intent.name() });
            }
            Output::Handoff(pid) => {
                self.send(pid, SIGUSR2, "send USR2");
                log::write(Event::Handoff { daemon: pid, elapsed_ms: elapsed(self.asked) });
            }
            Output::Stop(pid) => {
                self.send(pid, SIGTERM, "send TERM");
                log::write(Event::Stop { daemon: pid, elapsed_ms: elapsed(self.asked) });
            }
            Output::Cancel(pid) => {
                self.tell(pid, "cancel its start", &ToDaemon::Cancel);
                self.send(pid, SIGUSR2, "send USR2");
                log::write(Event::Cancel { daemon: pid });
            }
            Output::TellTakenOver(pid) => {
                self.tell(pid, "tell of a takeover", &ToDaemon::TakenOver);
                log::write(Event::TakenOver { predecessor: pid });
            }
            Output::Prepare(pid) => self.tell(pid, "tell of a restart", &ToDaemon::Prepare),
            Output::Kill(pid, timer) => {
                let limit = match timer {
                    Timer::Handoff => "handoff_timeout, and no handlers installed",
                    Timer::Cancel => "handoff_timeout, and its start was cancelled",
                    Timer::Kill(_) => "drain_timeout and 5 s",
                    _ => "none",
                };
                log::write(Event::Kill { daemon: pid, limit, elapsed_ms: elapsed(self.asked) });
                self.send(pid, SIGKILL, "send KILL");
            }
            Output::Forward(pid, signal) => {
                self.send(pid, signal, "pass on a signal");
                log::write(Event::Forward { daemon: pid, signal });
            }
            Output::ForwardIfHandled(pid, signal) => {
                if proc::catches(pid, signal).unwrap_or(false) {
                    self.send(pid, signal, "pass on a signal");
                    log::write(Event::Forward { daemon: pid, signal });
                }
            }
            Output::Start => self.start(),
            Output::DropSockets(child) => self.drop_sockets(child),
            Output::PassSockets { from, to } => self.pass_sockets(from, to),
            Output::Keep(child) => self.start_keeper(child),
            Output::EndKeeper => self.signal_keeper(SIGTERM),
            Output::KillKeeper => self.signal_keeper(SIGKILL),
            Output::StopOlder => self.stop_older(),
            Output::Progress(progress) => self.progress(progress),
            Output::Arm(timer) => {
                if let Some(after) = timer.after(&self.limits(timer)) {
                    self.timers.arm(Due::Machine(timer), after);
                }
            }
            Output::Disarm(timer) => self.timers.disarm(Due::Machine(timer)),
            Output::Leave { child, expired } => self.leave(child, expired),
            Output::Mirror(pid, end) => {
                let (daemon, elapsed_ms) = (pid, elapsed(self.asked));
                log::write(match end {
                    End::Code(exit_code) => Event::EndedWithCode { daemon, exit_code, elapsed_ms },
                    End::Signal(signal) => Event::EndedBySignal { daemon, signal, elapsed_ms },
                });
                launch::end_as(end)
            }
        }
    }

    fn limits(&mut self, timer: Timer) -> Limits {
        let (handoff, start_took) = (self.settings.handoff_timeout, self.start_took);
        let limits = Limits { handoff, start_took, ..Limits::default() };
        let Timer::Kill(pid) = timer else { return limits };
        let Some(child) = self.member(pid) else { return limits };
        Limits { drain: child.drain_timeout, leaves_for: child.leaves_for, ..limits }
    }

    /// `fd`: what came with the message that led to it.
    pub(super) fn perform_notice(&mut self, notice: &Notice, fd: Option<&OwnedFd>) {
        match *notice {
            Notice::Ask(pid) => {
                let known = self.members.iter().find(|one| one.daemon.pid() == pid);
                if let Some(Member { channel: Some(channel), .. }) = known.or(self.members.last()) {
                    // If its queue is full, an earlier question waits there already.
                    _ = channel.send(&ToDaemon::Ask.format(), &[]);
                }
            }
            Notice::Kill(pid) => {
                log::write(Event::WatchdogKill { daemon: pid });
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
        let started = self.again.start(&mut self.settings, &self.supervisor);
        self.not_executed = None;
        let child = match started {
            Ok(member) => {
                let pid = member.daemon.pid();
                log::write(Event::LaunchAgain { daemon: pid });
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
                // Without the message, the signal that follows would be misunderstood.
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
        let (daemon, elapsed_ms) = (pid, elapsed(self.asked));
        log::write(match expired {
            true => Event::ReleaseExpired { daemon, elapsed_ms },
            false => Event::Release { daemon, elapsed_ms },
        });
        let code = self.settings.release_code;
        warnings::warn_at_release(&self.supervisor, code, self.asked.is_some());
        launch::end_as(End::Code(code))
    }
}

fn note_failure(pid: Child, step: &str, result: io::Result<()>) {
    if let Err(error) = result {
        log::write(Event::StepFailed { daemon: pid, step, error: &error });
    }
}
