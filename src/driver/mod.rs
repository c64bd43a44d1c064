//! The only place where machines and system meet: facts in, outputs out. A driver waits, turns what came
//! into an `Input`, lets the machine decide, and performs its `Output`s. Clocks are read here and in
//! `shutdown` alone.

pub(crate) mod control;
pub(crate) mod counters;
mod daemon;
mod generation;
pub(crate) mod handed;
mod keeper;
mod launcher;
mod log;
mod observers;
pub(crate) mod passing;
mod retry;
pub(crate) mod settings;
mod shared;
pub(crate) mod sockets;
mod threads;
#[cfg(feature = "tls")]
pub(crate) mod tickets;
mod timers;

use crate::error::{Error, ErrorKind, Result};
use crate::proto::role::Role;
use crate::shutdown::{DrainGuard, Draining, Finished, Hook, HookList, Stage, lock};
use crate::states::States;
use crate::sys::shortage::is_family_refused;
use crate::sys::{RESTARTS, launch, process, signals};
use log::daemon::Event;
use settings::Settings;
use shared::PROCESS;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub(crate) use daemon::calls::{commit, generation, restart, started, state};
#[cfg(feature = "tokio")]
pub(crate) use log::Seldom;
pub(crate) use signals::{can_catch, can_pass_to_all, can_release, can_reload, handles};
pub(crate) use sockets::obtain::{inherited, inherited_from};

pub(crate) fn init(mut settings: Settings) -> Result<()> {
    if PROCESS.called.swap(true, Ordering::SeqCst) {
        return Err(Error::new(
            ErrorKind::AlreadyInitialized,
            "cannot initialize (init): it was called before in this process",
        ));
    }
    if settings.is_disabled() || !RESTARTS {
        return daemon::init_disabled(settings);
    }
    // Otherwise a daemon would not know that a launcher has started it, and would start another daemon.
    if !process::knows_pids() {
        let text = "cannot learn the PID of this process or of its parent (getpid, getppid)";
        return Err(
            Error::new(ErrorKind::System, text).hint("a filter of system calls refuses them")
        );
    }
    let is_relative = settings.pid_file.is_relative();
    settings.pid_file = std::path::absolute(&settings.pid_file).map_err(|error| {
        let text = format!("cannot find {:?} (PID file)", settings.pid_file);
        Error::io(ErrorKind::PidFile, text, error)
    })?;
    check_path(&settings.pid_file)?;
    let Some(mark) = launch::Mark::find() else { return launcher::launch(settings, is_relative) };
    let launcher = mark.launcher;
    let step = || format!("cannot know whether launcher {launcher} has started us (channel)");
    let facts = retry::within(retry::FIRST_MESSAGE, || mark.facts());
    match facts.map_err(|error| Error::io(ErrorKind::Channel, step(), error))?.role() {
        Role::Daemon => {
            // Our working folder may be another one than that of the first generation.
            if let Some(path) = launch::pid_file().filter(|_| is_relative) {
                settings.pid_file = path;
            }
            daemon::init(settings, launcher, mark.adopt_channel())
        }
        Role::Keeper => keeper::keep(settings, launcher, mark.adopt_channel()),
        Role::Launcher => launcher::launch(settings, is_relative),
        Role::Lost => {
            let text = format!(
                "cannot talk to launcher {launcher} (channel): the program has closed descriptor {}",
                mark.channel
            );
            let hint = "before init, close only descriptors that the program has opened itself";
            Err(Error::new(ErrorKind::Channel, text).hint(hint))
        }
    }
}

/// Refuses a path that no file can be renamed to, before a file is made next to it.
fn check_path(path: &Path) -> Result<()> {
    let is_folder = || std::fs::symlink_metadata(path).is_ok_and(|about| about.is_dir());
    let ends_as_folder = path.as_os_str().as_encoded_bytes().ends_with(b"/");
    if path.file_name().is_some() && !ends_as_folder && !is_folder() {
        return Ok(());
    }
    let text = format!("cannot use {path:?} (PID file): it is a folder");
    Err(Error::new(ErrorKind::PidFile, text).hint("name a file in it, such as web.pid"))
}

const UNIX_SOCKETS_REFUSED: &str = "Unix sockets are refused to this process: under systemd, AF_UNIX must be \
                                    one of RestrictAddressFamilies=";

/// The error of a call that makes Unix sockets.
fn unix_socket_error(kind: ErrorKind, text: impl Into<String>, error: io::Error) -> Error {
    let refused = is_family_refused(&error);
    let error = Error::io(kind, text, error);
    if refused { error.hint(UNIX_SOCKETS_REFUSED) } else { error }
}

// ---- hooks ----

pub(crate) fn on_shutdown_request(hook: Hook) {
    add(&PROCESS.request_hooks, "on_shutdown_request", hook);
}

pub(crate) fn on_standby(hook: Box<dyn FnMut() + Send>) {
    PROCESS.hooks.on_standby(hook);
}

pub(crate) fn on_resume(hook: Box<dyn FnMut() + Send>) {
    PROCESS.hooks.on_resume(hook);
}

pub(crate) fn on_shutdown(hook: Hook) {
    add(&PROCESS.drain_hooks, "on_shutdown", hook);
}

pub(crate) fn on_hammer(hook: Hook) {
    add(&PROCESS.hammer_hooks, "on_hammer", hook);
}

pub(crate) fn add_before(stage: Stage, hook: Hook) {
    add(PROCESS.hooks.before(stage), "before", hook);
}

pub(crate) fn add_after(stage: Stage, hook: Hook) {
    add(PROCESS.hooks.after(stage), "after", hook);
}

fn add(hooks: &HookList, name: &str, hook: Hook) {
    if !hooks.add(hook) {
        log::write(Event::HookRefused { refused: name });
    }
}

pub(crate) fn on_signal(signal: i32, hook: Box<dyn FnMut() + Send>) -> Result<()> {
    PROCESS.hooks.on_signal(signal, hook)
}

pub(crate) fn before_signal(signal: i32, hook: Box<dyn FnMut() + Send>) -> Result<()> {
    PROCESS.hooks.before_signal(signal, hook)
}

pub(crate) fn after_signal(signal: i32, hook: Box<dyn FnMut() + Send>) -> Result<()> {
    PROCESS.hooks.after_signal(signal, hook)
}

/// Is this process a generation of the service with this PID file?
#[cfg(feature = "command")]
pub(crate) fn is_own(pid_file: &Path) -> bool {
    let service = PROCESS.daemon().and_then(|daemon| daemon.service.as_ref());
    service.is_some_and(|service| crate::sys::proc::is_same_path(&service.pid_file, pid_file))
}

// ---- the drain ----

pub(crate) fn draining() -> Draining {
    Draining::of(&PROCESS.shutdown)
}

pub(crate) fn drain_guard() -> DrainGuard {
    DrainGuard::of(&PROCESS.shutdown)
}

pub(crate) fn finished() -> Finished {
    Finished::of(&PROCESS.shutdown)
}

pub(crate) fn states() -> States {
    States::of(&PROCESS.states)
}

pub(crate) fn wait() -> crate::DrainReason {
    if !PROCESS.called.load(Ordering::SeqCst) {
        log::write(Event::WaitBeforeInit {});
    }
    finished().wait()
}

pub(crate) fn default_drain_timeout(timeout: Option<Duration>) {
    *lock(&PROCESS.default_drain_timeout) = timeout;
}
