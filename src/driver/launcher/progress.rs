//! The stages of the service: in the log, and for the daemon that serves. What supervisors are told of
//! them is decided in `proto::supervisor::notices`.

use super::Driver;
use crate::driver::log::{self, elapsed, launcher::Event};
use crate::proto::End;
use crate::proto::channel::ToDaemon;
use crate::proto::launcher::{Failure, Progress, Refusal};
use std::time::Instant;

impl Driver {
    /// What the service has come to.
    pub(super) fn progress(&mut self, progress: Progress) {
        match progress {
            Progress::Reloading => self.reloading = Some(Instant::now()),
            Progress::Serving(pid) => {
                if let Some(began) = self.reloading.take() {
                    log::write(Event::Reloaded { daemon: pid, elapsed_ms: elapsed(Some(began)) });
                }
            }
            Progress::ReloadFailed(failure) => {
                let why = match failure {
                    Failure::NotStarted => match self.not_executed.take() {
                        Some(error) => error.to_string(),
                        None => "the program could not be executed".to_owned(),
                    },
                    Failure::Ended(pid, end) => {
                        let (how, number) = match end {
                            End::Code(code) => ("exit_code", code),
                            End::Signal(signal) => ("signal", signal),
                        };
                        format!("daemon {pid} ended before it had taken over: {how} {number}")
                    }
                };
                log::write(Event::ReloadFailed {
                    current: self.machine.current(),
                    elapsed_ms: elapsed(self.reloading.take()),
                    reason: &why,
                });
                self.tell_current(&why);
            }
            Progress::ReloadRefused(refusal) => {
                let why = match refusal {
                    Refusal::Draining => "as many generations drain as max_draining allows",
                    Refusal::Leaving => "the launcher was told to restart or to stop",
                };
                log::write(Event::ReloadRefused { current: self.machine.current(), refused: why });
                self.tell_current(why);
            }
            Progress::CurrentEnded(pid, end) => {
                log::write(match end {
                    End::Code(exit_code) => Event::CurrentEndedWithCode { daemon: pid, exit_code },
                    End::Signal(signal) => Event::CurrentEndedBySignal { daemon: pid, signal },
                });
            }
            // Each daemon logs its own drain, and the signal of a stop has been logged.
            Progress::Leaving(_) | Progress::Draining(_) | Progress::Stopping(_) => {}
        }
    }

    /// The generation that serves on learns why.
    fn tell_current(&mut self, why: &str) {
        if let Some(pid) = self.machine.current() {
            let message = ToDaemon::reload_failed(why);
            self.tell(pid, "tell of a failed restart", &message);
        }
    }
}
