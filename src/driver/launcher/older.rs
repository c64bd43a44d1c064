//! The older generations, if the service is to be down and no daemon of this launcher is left that could tell them.

use super::Driver;
use crate::driver::generation::stop::{Stopped, Told};
use crate::driver::generation::{Service, is_shortage};
use crate::driver::log::{self, launcher::Event};
use crate::error::Result;
use crate::proto::launcher::Input;
use crate::proto::paths;
use crate::sys::process;

impl Driver {
    pub(super) fn stop_older(&mut self) {
        let stopped = match self.service() {
            Ok(Some(service)) => service.stop_older(log_told),
            Ok(None) => Stopped::default(),
            Err(error) => {
                log_told(Told::Unknown(&error));
                Stopped { again: is_shortage(&error), ..Stopped::default() }
            }
        };
        self.older = stopped.awaited;
        let awaited = !self.older.is_empty();
        self.inputs.push_back(Input::OlderTold { awaited, again: stopped.again });
    }

    /// This launcher in place of its newest daemon. `None`: no record names that one, so nobody is known to be older.
    fn service(&self) -> Result<Option<Service>> {
        if !paths::lock_file(&self.settings.pid_file).exists() {
            return Ok(None);
        }
        let (hello, pidfd) = self.supervisor.hello(false);
        let pidfd = pidfd.and_then(|pidfd| pidfd.try_clone_to_owned().ok());
        let service = Service::open(&self.settings, process::own_pid(), &hello, pidfd)?;
        Ok(service.stands_for_newest()?.then_some(service))
    }

    pub(super) fn look_at_older(&mut self) {
        if !self.older.is_empty() {
            self.older.retain(|older| !older.has_ended());
            if self.older.is_empty() {
                self.feed(Input::OlderGone);
            }
        }
    }
}

fn log_told(told: Told<'_>) {
    log::write(match told {
        Told::Sent { predecessor, generation } => {
            Event::StopOlder { predecessor, predecessor_generation: generation }
        }
        Told::NotSent { predecessor, error } => {
            Event::StopOlderRefused { predecessor, refused: error }
        }
        Told::Refused { predecessor, ref why } => {
            Event::StopOlderRefused { predecessor, refused: why }
        }
        Told::Unknown(error) => Event::StopOlderFailed { error },
    });
}
