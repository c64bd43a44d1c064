//! The only place where machines and system meet: wait, turn what came into an `Input`, let the
//! machine decide, perform its `Output`s. Clocks are read here and in `shutdown` alone.

pub(crate) mod control;
pub(crate) mod daemon;
pub(crate) mod generation;
mod launcher;
mod log;
mod notification_fd;
#[cfg(feature = "systemd")]
#[path = "systemd_notify.rs"]
mod notify;
#[cfg(not(feature = "systemd"))]
#[path = "systemd_silent.rs"]
mod notify;
pub(crate) mod sockets;

use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::shutdown::{DrainGuard, Draining, Finished, Hook, HookList, Shutdown};
use crate::states::{Changes, States};
use crate::sys::{launch, signals};
use log::note;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub(crate) use daemon::{default_drain_timeout, generation, restart, started, state};
#[cfg(feature = "systemd")]
pub(crate) use notify::Check;
pub(crate) use signals::{can_catch, can_release, can_reload, handles};
pub(crate) const DEFAULT_RELEASE_SIGNAL: i32 = signals::SIGCHLD;

// The state of the process. Hooks may be added before `init`.
static CALLED: AtomicBool = AtomicBool::new(false);
static DAEMON: OnceLock<daemon::Daemon> = OnceLock::new();
static REQUEST_HOOKS: HookList = HookList::new();
static DRAIN_HOOKS: HookList = HookList::new();
static HAMMER_HOOKS: HookList = HookList::new();
static SHUTDOWN: Shutdown = Shutdown::new();
static STATES: Changes = Changes::new();

pub(crate) fn init(mut config: Config) -> Result<()> {
    if CALLED.swap(true, Ordering::SeqCst) {
        return Err(Error::new(
            ErrorKind::AlreadyInitialized,
            "cannot initialize (init): it was called before in this process",
        ));
    }
    if config.is_disabled() {
        return daemon::init_disabled(config);
    }
    config.pid_file = std::path::absolute(&config.pid_file).map_err(|error| {
        let text = format!("cannot find {:?} (PID file)", config.pid_file);
        Error::io(ErrorKind::PidFile, text, error)
    })?;
    match launch::launcher() {
        Some((launcher, channel)) => daemon::init(config, launcher, channel),
        None => Err(launcher::launch(config)),
    }
}

pub(crate) fn on_shutdown_request(hook: Hook) {
    add(&REQUEST_HOOKS, "on_shutdown_request", hook);
}

pub(crate) fn on_shutdown(hook: Hook) {
    add(&DRAIN_HOOKS, "on_shutdown", hook);
}

pub(crate) fn on_hammer(hook: Hook) {
    add(&HAMMER_HOOKS, "on_hammer", hook);
}

fn add(stage: &HookList, name: &str, hook: Hook) {
    if !stage.add(hook) {
        note!(Error, "stage=hooks refused={name} reason=\"added after its stage was over\"");
    }
}

pub(crate) fn draining() -> Draining {
    Draining::of(&SHUTDOWN)
}

pub(crate) fn drain_guard() -> DrainGuard {
    DrainGuard::of(&SHUTDOWN)
}

pub(crate) fn finished() -> Finished {
    Finished::of(&SHUTDOWN)
}

pub(crate) fn states() -> States {
    States::of(&STATES)
}

pub(crate) fn wait() -> crate::DrainReason {
    if !CALLED.load(Ordering::SeqCst) {
        note!(
            Error,
            "stage=wait reason=\"called before init: it waits until somebody calls init\""
        );
    }
    finished().wait()
}

/// Which timer is due when. Arming a timer anew replaces it.
struct Timers<T>(Vec<(T, Instant)>);

impl<T: Copy + PartialEq> Timers<T> {
    fn new() -> Self {
        Timers(Vec::new())
    }

    fn arm(&mut self, timer: T, after: Duration) {
        self.disarm(timer);
        if let Some(due) = Instant::now().checked_add(after) {
            self.0.push((timer, due));
        }
    }

    fn disarm(&mut self, timer: T) {
        self.0.retain(|(one, _)| *one != timer);
    }

    /// How long until the next timer is due; `None` where none is armed.
    fn next(&self) -> Option<Duration> {
        let due = self.0.iter().map(|(_, due)| *due).min()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    /// Removes and returns one timer that is due.
    fn due(&mut self) -> Option<T> {
        let now = Instant::now();
        let at = self.0.iter().position(|(_, due)| *due <= now)?;
        Some(self.0.remove(at).0)
    }
}
