//! The counters of a service.

use super::ask::{NoAnswer, ask, unexpected};
use super::look::Look;
use super::service::Service;
use crate::proto::control::frame::{Answer, Request};
use crate::proto::counters::list;
use crate::sys::counters as sys;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// A [counter](crate::counters) of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counter {
    /// The name that the program gives it.
    pub name: String,
    /// What all generations have counted together.
    pub value: u64,
}

impl Service {
    /// Asks the newest generation for the [counters](crate::counters) of the service, for at most `limit`, in the
    /// order of their names. They are read while the generations go on counting, so they need not be of one
    /// moment. The list is empty if the program has none, or is of a version of this crate that had none.
    ///
    /// # Errors
    ///
    /// As in [`status`](Service::status).
    pub fn counters(&self, limit: Duration) -> (Look, Result<Vec<Counter>, NoAnswer>) {
        let began = Instant::now();
        let (look, answer) = ask(self.pid_file(), &Request::Counters, limit);
        let counters = answer.and_then(|(answer, fds)| match (answer, fds.into_iter().next()) {
            (Answer::Counters, Some(memory)) => read(memory).map_err(NoAnswer::Failed),
            // Of an earlier version, or without counters; or it answers this user nothing.
            (Answer::Refused(_), _) => match self.status(limit.saturating_sub(began.elapsed())).1 {
                Err(refused @ NoAnswer::Refused(_)) => Err(refused),
                Ok(_) | Err(_) => Ok(Vec::new()),
            },
            (other, _) => Err(unexpected(other)),
        });
        (look, counters)
    }
}

fn read(memory: OwnedFd) -> Result<Vec<Counter>, String> {
    let memory = sys::check(memory).map_err(|why| format!("it sent no counters: {why}"))?;
    let bytes = sys::read(memory).map_err(|error| format!("cannot read the counters: {error}"))?;
    let all = list(&bytes).map_err(|why| format!("cannot read the counters: {why:?}"))?;
    Ok(all.into_iter().map(|(name, value)| Counter { name, value }).collect())
}
