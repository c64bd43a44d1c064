//! What the program calls.

use super::candidates;
use crate::driver::generation::started::started as take_over;
use crate::driver::observers;
use crate::driver::shared::PROCESS;
use crate::driver::sockets::{adjust, stages};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::daemon::{CommitCall, Event, Input, RestartCall};
use crate::proto::supervisor::notices::Notice;
use crate::proto::{Intent, Scope, State};
use crate::shutdown::{Stage, lock};
use crate::sys::RESTARTS;

pub(crate) fn started() -> Result<()> {
    let Some(daemon) = PROCESS.daemon() else {
        return Err(Error::new(
            ErrorKind::NotInitialized,
            "cannot announce the service (started): init was not called, or failed",
        ));
    };
    PROCESS.hooks.run_before(Stage::Takeover);
    match &daemon.service {
        Some(service) => take_over(service, daemon)?,
        None => {
            adjust::adjust()?;
            lock(&daemon.past).has_started = true;
            observers::serves_alone();
            stages::close_unclaimed();
            observers::tell(&Notice::Readiness, None);
        }
    }
    PROCESS.hooks.run_after(Stage::Takeover);
    Ok(())
}

pub(crate) fn restart() -> Result<()> {
    let refuse = |why: &str| {
        Err(Error::new(ErrorKind::CannotRestart, format!("cannot restart (restart): {why}")))
    };
    let Some(daemon) = PROCESS.daemon() else {
        return refuse("init was not called, or failed");
    };
    let Some(service) = &daemon.service else {
        return refuse(match RESTARTS {
            true => "without a PID file restarts are disabled",
            false => "this system is not Linux, so restarts are disabled",
        });
    };
    let call = lock(&daemon.machine).restart_call();
    match call {
        RestartCall::Restarts => {}
        RestartCall::TriesAgain => {
            candidates::try_again(daemon);
            return Ok(());
        }
        RestartCall::Refused(why) => return refuse(why),
    }
    match service.no_restart() {
        Some(why) => refuse(why.text()),
        None => {
            daemon.post(Input::Restart);
            Ok(())
        }
    }
}

/// Returns when the record says that this generation has taken over, or never will.
pub(crate) fn commit() -> Result<()> {
    let Some(daemon) = PROCESS.daemon() else {
        let text = "cannot end the probation (commit): init was not called, or failed";
        return Err(Error::new(ErrorKind::NotInitialized, text));
    };
    if let Some(service) = &daemon.service {
        service.await_started(); // on another thread: it may be about to begin a probation
    }
    let call = || lock(&daemon.machine).commit_call();
    if call() == CommitCall::Waits {
        daemon.post(Input::Probation(Event::Commit));
    }
    loop {
        match call() {
            CommitCall::Waits => std::thread::sleep(std::time::Duration::from_millis(1)),
            CommitCall::Returns => return Ok(()),
            CommitCall::Fails => {
                let text = "cannot end the probation (commit): it has ended otherwise, and this \
                            generation is to end";
                return Err(Error::new(ErrorKind::NotCommitted, text));
            }
        }
    }
}

/// As TERM by hand does, but of the whole service: older generations that missed their TERM are told
/// again, and awaited.
pub(in crate::driver) fn stop() {
    if let Some(daemon) = PROCESS.daemon() {
        daemon.post(Input::Told(Intent::Stop(Scope::Service)));
    }
}

pub(crate) fn generation() -> Option<u64> {
    PROCESS.daemon()?.generation()
}

pub(crate) fn state() -> State {
    PROCESS.daemon().map_or(State::Starting, |daemon| daemon.state())
}
