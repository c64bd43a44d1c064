//! The daemon: `init` in it, and its threads.

mod arrivals;
pub(in crate::driver) mod calls;
pub(in crate::driver) mod candidates;
pub(in crate::driver) mod events;
pub(in crate::driver) mod hooks;
mod partner;
mod progress;
mod signal_hooks;
pub(in crate::driver) mod stdio;
#[cfg(feature = "systemd")]
mod watchdog;

use crate::DrainReason;
use crate::driver::control::Server;
use crate::driver::generation::Service;
use crate::driver::log::{self, daemon::Event};
use crate::driver::observers::s6;
use crate::driver::retry;
use crate::driver::settings::Settings;
use crate::driver::shared::{Daemon, PROCESS};
use crate::driver::threads::{run_hooks, spawn};
use crate::driver::unix_socket_error;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::channel::{Hello, MESSAGE_MAX, ToDaemon};
use crate::proto::daemon::{Daemon as Machine, Input};
use crate::shutdown::{Stage, lock};
use crate::sys::seqpacket::{Arrival, Link};
use crate::sys::signals::{self, Signals};
use crate::sys::{launch, process, wait};
use events::{Events, Stage1};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, mpsc};
use stdio::Outputs;

pub(in crate::driver) fn init(mut settings: Settings, launcher: i32, channel: Link) -> Result<()> {
    launch::new_session();
    PROCESS.sockets.adopt_passed(Some(launcher));
    let (hello, pidfd) = first_message(launcher, &channel)?;
    let service = Service::open(&settings, launcher, &hello, pidfd)?;
    service.make_room();
    let machine = Machine::new(hello.kind, hello.in_place).takes_unhandled(hello.takes_unhandled);
    let server = Server::new(&settings.pid_file, settings.takeover_timeout)?;
    PROCESS.handed.set(std::mem::take(&mut settings.hand_over));
    let daemon = run(machine, &settings, Some((service, channel)))?;
    #[cfg(feature = "systemd")]
    watchdog::watch(settings.watchdog, daemon.channel.clone())?;
    let server = PROCESS.server.get_or_init(|| server);
    spawn("seamless-sockets", move || server.run(daemon))?;
    let service = daemon.service.as_ref().expect("just given");
    *lock(&PROCESS.probation_check) = settings.probation_check;
    service.wait_if_rejected(daemon);
    let claimed = service.claim();
    if !daemon.is_starting() || process::parent_pid() != launcher {
        service.park(); // told to end, or the launcher died, while we waited
    }
    claimed?;
    daemon.post(Input::Claimed);
    Ok(())
}

/// What the launcher has sent before it started us, and a pidfd of its supervisor.
fn first_message(launcher: i32, channel: &Link) -> Result<(Hello, Option<OwnedFd>)> {
    let unread = |error| {
        let text = format!("cannot read the message of launcher {launcher} (channel)");
        Error::io(ErrorKind::Channel, text, error)
    };
    let message = match retry::within(retry::FIRST_MESSAGE, || channel.receive(MESSAGE_MAX)) {
        Arrival::Message(message) => message,
        Arrival::Closed => match channel.refusal() {
            Some(refused) => return Err(unread(refused)),
            // Without its first message the launcher cannot have got as far as starting us. Nothing was served
            // yet, and nobody would restart us.
            None => {
                log::write(Event::LauncherGone { launcher });
                crate::sys::exit_now(0)
            }
        },
        // It is there, but there is no memory for it now.
        Arrival::Nothing | Arrival::OutOfMemory => {
            return Err(unread(io::ErrorKind::OutOfMemory.into()));
        }
    };
    match ToDaemon::parse(&message.bytes) {
        Ok(Some(ToDaemon::Hello(hello))) => Ok((hello, message.fds.into_iter().next())),
        other => {
            let text = format!("cannot understand launcher {launcher} (channel): {other:?}");
            Err(Error::new(ErrorKind::Channel, text))
        }
    }
}

/// Without a PID file, or on a system without restarts.
pub(in crate::driver) fn init_disabled(settings: Settings) -> Result<()> {
    PROCESS.sockets.adopt_passed(None);
    s6::hold(&settings)?;
    run(Machine::disabled(), &settings, None)?;
    log::write(if settings.is_disabled() { Event::Disabled {} } else { Event::NotLinux {} });
    #[cfg(feature = "systemd")]
    watchdog::watch_alone(settings.watchdog)?;
    Ok(())
}

/// Installs the handlers and starts the threads.
fn run(
    machine: Machine,
    settings: &Settings,
    service: Option<(Service, Link)>,
) -> Result<&'static Daemon> {
    let (service, channel) = service.unzip();
    // Without a service, nothing here outlives its supervisor.
    let outputs = Outputs::new(settings.replace_output && service.is_some());
    let reload_signals = match service {
        Some(_) => settings.reload_signals.clone(),
        None => Vec::new(),
    };
    let system = |step: &str| {
        let text = format!("cannot {step} (init)");
        move |error| unix_socket_error(ErrorKind::System, text, error)
    };
    let waker = wait::Waker::new().map_err(system("make a socket pair"))?;
    let signals =
        Signals::install(&signals::for_daemon(), &[]).map_err(system("install handlers"))?;
    let launcher = service.as_ref().map_or(0, |service| service.launcher);
    signals::take_unless_handled(&reload_signals, launcher, &waker)
        .map_err(system("install handlers"))?;
    let (request_stage, run_stage_1) = mpsc::channel::<Stage1>();
    let (drain_stage, run_drain_hooks) = mpsc::channel::<DrainReason>();
    let channel = channel.map(Arc::new);
    let daemon = PROCESS.set_daemon(Daemon {
        machine: Mutex::new(machine.leaves(settings.leave_time.is_some())),
        inputs: Mutex::default(),
        waker,
        channel: channel.as_ref().map(Arc::downgrade).unwrap_or_default(),
        unsent: Mutex::default(),
        partner: Mutex::default(),
        candidates: Mutex::default(),
        waits_at: Mutex::default(),
        to_launcher: Mutex::default(),
        handoff_timeout: settings.handoff_timeout,
        drain_timeout: settings.drain_timeout,
        leave_time: settings.leave_time,
        stop_limit: Mutex::default(),
        plan: Mutex::default(),
        reload_signals,
        past: Mutex::default(),
        service,
    });
    PROCESS.states.publish(daemon.state());
    let events = Events::new(daemon, channel, outputs, request_stage, drain_stage);
    // Started now: later, under load, there might be no thread to be had.
    spawn("seamless-stage1", move || {
        for job in run_stage_1 {
            match job {
                Stage1::Request => {
                    PROCESS.hooks.run_before(Stage::Handoff);
                    run_hooks(&PROCESS.request_hooks, "on_shutdown_request");
                    PROCESS.hooks.run_after(Stage::Handoff);
                    daemon.post(Input::RequestHooksDone);
                }
                Stage1::Resume => PROCESS.hooks.run_resume(&PROCESS.request_hooks),
                Stage1::Standby => PROCESS.hooks.run_standby(),
            }
        }
    })?;
    spawn("seamless-stage3", move || {
        for reason in run_drain_hooks {
            PROCESS.shutdown.decided(reason);
            PROCESS.hooks.run_before(Stage::Drain);
            lock(&daemon.to_launcher).clear();
            PROCESS.sockets.let_go();
            PROCESS.shutdown.begin(daemon.drain_timeout());
            run_hooks(&PROCESS.drain_hooks, "on_shutdown");
            PROCESS.shutdown.wait_guards();
            PROCESS.hooks.run_after(Stage::Drain);
            daemon.post(Input::DrainHooksDone);
            PROCESS.shutdown.wake_finished();
        }
    })?;
    spawn("seamless-signal", move || events.run(signals))?;
    PROCESS.hooks.begin()?;
    Ok(daemon)
}
