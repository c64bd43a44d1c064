//! A service, and what it can be asked for.

use super::ask::{self, NoAnswer};
use super::look::Look;
use super::status::Status;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::control::frame::{Answer, Request};
use crate::sys::signals::SIGTERM;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A service, named by its PID file. To make one costs nothing: no file is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pid_file: PathBuf,
}

impl Service {
    /// The service that gives this path to [`init`](crate::init). A relative path counts from the
    /// current folder. The file need not exist.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PidFile`]: the path names no file (it is empty, or `/`), or the current folder
    /// is unknown.
    pub fn at(pid_file: impl AsRef<Path>) -> Result<Service> {
        let path = pid_file.as_ref();
        if path.file_name().is_none() {
            return Err(Error::new(ErrorKind::PidFile, format!("{path:?} names no PID file")));
        }
        let pid_file = std::path::absolute(path).map_err(|error| {
            Error::io(ErrorKind::PidFile, format!("cannot find {path:?} (PID file)"), error)
        })?;
        Ok(Service { pid_file })
    }

    /// The absolute path of the PID file.
    pub fn pid_file(&self) -> &Path {
        &self.pid_file
    }

    /// Reads the PID file and the record, and proves which of the listed generations live. Nothing
    /// is changed and no daemon is asked, so this also works while a daemon hangs.
    ///
    /// It never fails: [`Look::unknown`] and [`Look::notes`] tell what cannot be read. The result may
    /// be outdated when it is returned; but a [`Generation`] stays the same process for as long as the
    /// value lives.
    ///
    /// A process that is a generation of this service cannot look at it: reading the record would
    /// give up its claim, since closing any descriptor of a file drops the process's locks on it
    /// (`fcntl_locking(2)`). It gets a [`Look`] that says so.
    ///
    /// [`Generation`]: super::Generation
    pub fn look(&self) -> Look {
        Look::at(&self.pid_file)
    }

    /// Asks the newest generation what it says of itself, for at most `limit`. Returns what was
    /// seen when the question was asked, and the answer.
    ///
    /// While a takeover is under way, the record and the control socket may name two generations.
    /// Then it looks again, for up to two seconds (or `limit`), until both agree.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`] tells why there is none.
    pub fn status(&self, limit: Duration) -> (Look, Result<Status, NoAnswer>) {
        let (look, answer) = ask::ask(&self.pid_file, &Request::Status, limit);
        let status = answer.and_then(|(answer, _)| ask::status_of(look.newest(), answer));
        (look, status)
    }

    /// Asks the newest generation for a restart, as [`restart`](crate::restart) in it does, for at
    /// most `limit`. `Ok` means that the restart has begun, not that a successor serves: look again
    /// to see what comes of it.
    ///
    /// # Errors
    ///
    /// [`NoAnswer::Refused`]: the generation stays, and says why. Others as in
    /// [`status`](Service::status).
    pub fn restart(&self, limit: Duration) -> (Look, Result<(), NoAnswer>) {
        self.tell(&Request::Restart, limit)
    }

    /// Asks the newest generation to stop, for at most `limit`: it drains, and tells all older ones
    /// to drain. `Ok` means that the stop has begun: [`wait_end`] waits for its end.
    ///
    /// Most supervisors start a service again that ends by itself: see [`starts_again`].
    ///
    /// A generation that lost its control socket to a successor that died, and that is proven, is
    /// sent TERM instead, which drains that generation alone.
    ///
    /// # Errors
    ///
    /// As in [`status`](Service::status). [`NoAnswer::NobodyRuns`]: there is nothing to stop.
    ///
    /// [`wait_end`]: super::Generation::wait_end
    /// [`starts_again`]: super::Supervisor::starts_again
    pub fn stop(&self, limit: Duration) -> (Look, Result<(), NoAnswer>) {
        let (look, told) = self.tell(&Request::Stop, limit);
        let told = match (told, look.newest()) {
            (Err(NoAnswer::NotListening(_)), Some(newest)) => {
                newest.signal(SIGTERM).map_err(|error| NoAnswer::Failed(error.to_string()))
            }
            (told, _) => told,
        };
        (look, told)
    }

    /// Ends the [probation](crate::Config::probation) of the newest generation, passed. `Ok` means that it will
    /// be written: [`is_on_probation`](super::Generation::is_on_probation) tells when that is done.
    ///
    /// # Errors
    ///
    /// [`NoAnswer::Refused`]: it is not on probation. Others as in [`status`](Service::status).
    pub fn commit(&self, limit: Duration) -> (Look, Result<(), NoAnswer>) {
        self.tell(&Request::Commit, limit)
    }

    /// Ends the [probation](crate::Config::probation) of the newest generation, failed: its predecessor serves
    /// again, and then it drains. `Ok` means that this has begun.
    ///
    /// If the newest generation does not do it within half of `limit`, its predecessor, which stands by, is told to
    /// serve again. Then the newest one drains as soon as it is heard again.
    ///
    /// # Errors
    ///
    /// As in [`commit`](Service::commit).
    pub fn rollback(&self, limit: Duration) -> (Look, Result<(), NoAnswer>) {
        let (look, told) = self.tell(&Request::RollBack, limit / 2);
        let Err(why) = told else { return (look, told) };
        match ask::ask_standby(&self.pid_file, &look, &Request::RollBack, limit / 2) {
            Some(Ok(Answer::Accepted)) => (look, Ok(())),
            // Why the newest one does not do it says more.
            Some(Ok(_) | Err(_)) | None => (look, Err(why)),
        }
    }

    /// Asks the generation that stands by for the newest one of this look, for at most `limit`: for the case that
    /// the newest one does not answer. If that one hangs, the other one serves beside it
    /// ([`State::Serving`](crate::State::Serving) or [`State::Detached`](crate::State::Detached)). `None`: no
    /// generation [stands by](Look::standby).
    ///
    /// # Errors
    ///
    /// As in [`status`](Service::status).
    pub fn standby_status(&self, look: &Look, limit: Duration) -> Option<Result<Status, NoAnswer>> {
        let answer = ask::ask_standby(&self.pid_file, look, &Request::Status, limit)?;
        Some(answer.and_then(|answer| ask::status_of(look.standby(), answer)))
    }

    fn tell(&self, request: &Request, limit: Duration) -> (Look, Result<(), NoAnswer>) {
        let (look, answer) = ask::ask(&self.pid_file, request, limit);
        let told = answer.and_then(|(answer, _)| match answer {
            Answer::Accepted => Ok(()),
            other => Err(ask::unexpected(other)),
        });
        (look, told)
    }
}

#[cfg(test)]
mod tests {
    use super::Service;

    #[test]
    fn a_service_is_named_by_a_file() {
        let service = Service::at("web.pid").expect("a service");
        assert!(service.pid_file().is_absolute() && service.pid_file().ends_with("web.pid"));
        for path in ["", "/", ".."] {
            Service::at(path).expect_err(path);
        }
    }
}
