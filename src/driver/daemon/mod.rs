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
pub(in crate::driver) mod watchdog;
#[cfg(not(feature = "systemd"))]
#[path = "no_watchdog.rs"]
pub(in crate::driver) mod watchdog;

use crate::DrainReason;
use crate::driver::control::Server;
use crate::driver::generation::Service;
use crate::driver::log::{self, daemon::Event};
use crate::driver::observers::s6;
use crate::driver::retry;
use crate::driver::settings::Settings;
use crate::driver::shared::{Daemon, PROCESS, Past};
use crate::driver::threads::{run_hooks, spawn};
use crate::driver::unix_socket_error;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::channel::{Aside, MESSAGE_MAX, ToDaemon};
use crate::proto::daemon::{Daemon as Machine, Input};
use crate::shutdown::{Stage, lock};
use crate::sys::seqpacket::{Arrival, Link};
use crate::sys::signals::{self, Signals};
use crate::sys::{launch, process, wait};
use events::{Events, Stage1};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use stdio::Outputs;

pub(in crate::driver) fn init(settings: Settings, launcher: i32, channel: Link) -> Result<()> {
    launch::new_session();
    PROCESS.sockets.adopt_passed(Some(launcher));
    let (hello, pidfd) = match first_message(&channel) {
        Arrival::Message(message) => match ToDaemon::parse(&message.bytes) {
            Ok(Some(ToDaemon::Hello(hello))) => (hello, message.fds.into_iter().next()),
            other => {
                let text = format!("cannot understand launcher {launcher} (channel): {other:?}");
                return Err(Error::new(ErrorKind::Channel, text));
            }
        },
        // Without its first message the launcher cannot have got as far as starting us.
        Arrival::Closed => match channel.refusal() {
            None => end_without_launcher(launcher),
            Some(refused) => {
                let text = format!("cannot read the message of launcher {launcher} (channel)");
                return Err(Error::io(ErrorKind::Channel, text, refused));
            }
        },
        Arrival::Nothing | Arrival::OutOfMemory => {
            let text = format!("cannot read the message of launcher {launcher} (channel)");
            return Err(Error::io(ErrorKind::Channel, text, io::ErrorKind::OutOfMemory.into()));
        }
    };
    let outputs = Outputs::new(settings.replace_output);
    let service = Service::open(&settings, launcher, &hello, pidfd)?;
    service.make_room();
    let machine = Machine::new(hello.kind, hello.in_place)
        .takes_unhandled(hello.takes_unhandled)
        .leaves(settings.leave_time.is_some());
    let reload_signals = settings.reload_signals;
    let times = (settings.drain_timeout, settings.leave_time);
    let server = Server::new(&settings.pid_file, settings.takeover_timeout)?;
    PROCESS.handed.set(settings.hand_over);
    let daemon = run(machine, outputs, times, reload_signals, Some(service), Some(channel))?;
    #[cfg(feature = "systemd")]
    watchdog::watch(settings.watchdog, daemon.channel.clone())?;
    let server = PROCESS.server.get_or_init(|| server);
    spawn("seamless-sockets", move || server.run(daemon))?;
    let service = daemon.service.as_ref().expect("just given");
    *lock(&PROCESS.probation_check) = settings.probation_check;
    let tell_launcher = |left| {
        if let Some(channel) = daemon.channel.upgrade() {
            // If it is lost, the next one comes in a second.
            _ = channel.send(&Aside::Waits(left).format(), &[]);
        }
    };
    service.wait_if_rejected(daemon, tell_launcher);
    let claimed = service.claim();
    if !daemon.is_starting() || process::parent_pid() != launcher {
        service.park(); // told to end, or the launcher died, while we waited
    }
    claimed?;
    daemon.post(Input::Claimed);
    Ok(())
}

/// It was sent before we were started: if there seems to be none, there is no memory for it now.
fn first_message(channel: &Link) -> Arrival {
    retry::within(retry::FIRST_MESSAGE, || channel.receive(MESSAGE_MAX))
}

/// Without a PID file, or on a system without restarts.
pub(in crate::driver) fn init_disabled(settings: Settings) -> Result<()> {
    let is_disabled = settings.is_disabled();
    PROCESS.sockets.adopt_passed(None);
    s6::hold(&settings)?;
    let outputs = Outputs::new(false); // nothing here outlives its supervisor
    let times = (settings.drain_timeout, settings.leave_time);
    let machine = Machine::disabled().leaves(settings.leave_time.is_some());
    run(machine, outputs, times, Vec::new(), None, None)?;
    #[cfg(feature = "systemd")]
    watchdog::watch_alone(settings.watchdog)?;
    log::write(if is_disabled { Event::Disabled {} } else { Event::NotLinux {} });
    Ok(())
}

/// Installs the handlers and starts the threads.
fn run(
    machine: Machine,
    outputs: Outputs,
    (drain_timeout, leave_time): (Option<Duration>, Option<Duration>),
    reload_signals: Vec<i32>,
    service: Option<Service>,
    channel: Option<Link>,
) -> Result<&'static Daemon> {
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
        machine: Mutex::new(machine),
        inputs: Mutex::new(VecDeque::new()),
        waker,
        channel: channel.as_ref().map(Arc::downgrade).unwrap_or_default(),
        unsent: Mutex::default(),
        partner: Mutex::default(),
        candidates: Mutex::default(),
        waits_at: Mutex::default(),
        to_launcher: Mutex::default(),
        drain_timeout,
        leave_time,
        stop_limit: Mutex::default(),
        plan: Mutex::default(),
        reload_signals,
        past: Mutex::new(Past::default()),
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

/// Nothing was served yet, and nobody would restart us.
fn end_without_launcher(launcher: i32) -> ! {
    log::write(Event::LauncherGone { launcher });
    crate::sys::exit_now(0)
}
