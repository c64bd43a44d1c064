//! What this daemon says of itself to whoever asks (`seamless status`).

use crate::driver::daemon::{self, Daemon, generation};
use crate::driver::sockets;
use crate::proto::Reading;
use crate::proto::control::status::{Stage, Status};
use crate::proto::daemon::Phase;
use crate::shutdown::lock;
use crate::states::State;
use crate::sys::process;
use std::os::unix::ffi::OsStrExt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

static PAST: Mutex<Past> = Mutex::new(Past { stage_since: None, took_over: None });

/// What only who was there can tell.
struct Past {
    stage_since: Option<Instant>,
    took_over: Option<u64>,
}

/// Another stage of this daemon's life has begun.
pub(in crate::driver) fn entered_stage() {
    lock(&PAST).stage_since = Some(Instant::now());
}

/// This generation serves in the place of that one.
pub(in crate::driver) fn took_over(predecessor: Option<u64>) {
    lock(&PAST).took_over = predecessor;
}

pub(in crate::driver) fn of(daemon: &Daemon, age: Duration) -> Status {
    let service = daemon.service.as_ref();
    let stage = stage(daemon);
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let attached = !matches!(stage, Stage::Detached);
    let wants = service.map(|service| {
        let main_pid = attached.then_some(service.launcher);
        match service.supervisor.read(main_pid) {
            Reading::Up => "up",
            Reading::Down => "down",
            Reading::Unreadable => "unreadable",
            Reading::Lost => "lost",
        }
    });
    let serving = service.filter(|_| stage == Stage::Serving);
    let no_restart = serving.and_then(|service| service.not_restarted());
    let held = sockets::held().unwrap_or_default();
    let failures = service.map(|service| service.reload_failures()).unwrap_or_default();
    let past = lock(&PAST);
    Status {
        generation: generation(),
        stage,
        daemon: process::own_pid(),
        launcher: service.map(|service| service.launcher),
        age_ms: ms(age),
        sockets: held.len() as u64,
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        stage_ms: past.stage_since.map(|since| ms(since.elapsed())),
        supervisor_kind: service.map(|service| service.supervisor.kind.name().to_owned()),
        supervisor: service.and_then(|service| service.supervisor.pid()),
        supervisor_wants: wants.map(str::to_owned),
        service_folder: service
            .and_then(|service| service.supervisor.folder())
            .map(|folder| folder.as_os_str().as_bytes().to_vec()),
        no_restart: no_restart.map(str::to_owned),
        took_over: past.took_over,
        notifies: cfg!(feature = "systemd"),
        drain_timeout_ms: daemon.drain_timeout().map(ms),
        in_place: service.is_some_and(|service| service.in_place),
        failures: failures.count,
        failure: failures.last,
        held: held.into_iter().map(|entry| entry.socket).collect(),
    }
}

fn stage(daemon: &Daemon) -> Stage {
    match (daemon.phase(), daemon::state()) {
        (Phase::HandingOff, State::Serving) => Stage::HandingOff,
        (_, State::Starting) => Stage::Starting,
        (_, State::Serving) => Stage::Serving,
        (_, State::Detached) => Stage::Detached,
        (_, State::Draining) => Stage::Draining,
    }
}
