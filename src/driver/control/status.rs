//! What this daemon says of itself to whoever asks (`seamless status`).

use crate::driver::shared::{Daemon, PROCESS};
use crate::proto::Reading;
use crate::proto::State;
use crate::proto::control::frame::SocketKind;
use crate::proto::control::status::Status;
use crate::shutdown::lock;
use crate::sys::process;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

pub(in crate::driver) fn of(daemon: &Daemon, age: Duration) -> Status {
    let service = daemon.service.as_ref();
    let (state, handing_off, on_probation, question) = {
        let machine = lock(&daemon.machine);
        let (handing_off, on_probation) = (machine.is_handing_off(), machine.is_on_probation());
        (machine.state(), handing_off, on_probation, machine.question())
    };
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    // Asked once: to read it may mean to run `systemctl`.
    let reading =
        service.map(|service| service.supervisor.read(question.main_pid(service.launcher)));
    let wants = reading.map(|reading| match reading {
        Reading::Up => "up",
        Reading::Down => "down",
        Reading::Unreadable => "unreadable",
        Reading::Lost => "lost",
    });
    let serving = service.filter(|_| state == State::Serving && !handing_off);
    let no_restart =
        serving.zip(reading).and_then(|(service, reading)| service.no_restart_by(reading));
    let mut held = PROCESS.sockets.held().unwrap_or_default();
    held.retain(|entry| entry.socket.kind != SocketKind::Descriptor);
    let failures = service.map(|service| service.reload_failures()).unwrap_or_default();
    let next = lock(&daemon.candidates)
        .iter()
        .map(|one| (one.next_try.saturating_duration_since(Instant::now()), one.pid))
        .min();
    let past = lock(&daemon.past);
    let left = || {
        let limit = service?.probation?;
        Some(past.probation_since.map_or(limit, |since| limit.saturating_sub(since.elapsed())))
    };
    Status {
        generation: daemon.generation(),
        state,
        keeping: false,
        handing_off,
        daemon: process::own_pid(),
        launcher: service.map(|service| service.launcher),
        age_ms: ms(age),
        sockets: held.len() as u64,
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        state_ms: past.phase_since.map(|since| ms(since.elapsed())),
        supervisor_kind: service.map(|service| service.supervisor.kind.name.to_owned()),
        supervisor: service.and_then(|service| service.supervisor.pid()),
        supervisor_wants: wants.map(str::to_owned),
        service_folder: service
            .and_then(|service| service.supervisor.folder())
            .map(|folder| folder.as_os_str().as_bytes().to_vec()),
        no_restart: no_restart.map(|why| why.text().to_owned()),
        took_over: past.took_over,
        transfer_us: past.transfer.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
        notifies: cfg!(feature = "systemd"),
        drain_timeout_ms: daemon.drain_timeout().map(ms),
        leave_time_ms: daemon.leave_time.map(ms),
        probation_limit_ms: service.and_then(|service| service.probation).map(ms),
        probation_ms: left().filter(|_| on_probation).map(ms),
        candidate: next.map(|(_, pid)| pid),
        next_try_ms: next.map(|(left, _)| ms(left)),
        in_place: service.is_some_and(|service| service.in_place),
        failures: failures.count,
        failure: failures.last,
        held: held.into_iter().map(|entry| entry.socket).collect(),
    }
}
