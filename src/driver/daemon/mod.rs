//! The daemon: `init` in it, its threads, and what the program calls.

use crate::driver::daemon::events::Events;
use crate::driver::daemon::stdio::Outputs;
use crate::driver::generation::Service;
use crate::driver::log::note;
use crate::driver::notify;
use crate::driver::{DAEMON, DRAIN_HOOKS, REQUEST_HOOKS, SHUTDOWN, STATES};

pub(super) mod events;
pub(crate) mod hooks;
pub(super) mod signal_hooks;
pub(super) mod stdio;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::hooks::Stage;
use crate::proto::Report;
use crate::proto::channel::{MESSAGE_MAX, ToDaemon};
use crate::proto::daemon::{Daemon as Machine, Input, Output, Phase};
use crate::proto::{DrainReason, Intent, Scope};
use crate::shutdown::{HookList, lock};
use crate::states::State;
use crate::sys::channel::{Channel, Received};
use crate::sys::signals::{self, Signals};
use crate::sys::{launch, process, wait};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, Weak, mpsc};
use std::thread;
use std::time::Duration;

/// A pause before something is tried again for which there was no memory, and how often it is, at
/// most.
const PAUSE: Duration = Duration::from_millis(5);
const AGAIN: u32 = 100;

/// What the threads of the daemon share.
pub(crate) struct Daemon {
    pub(super) machine: Mutex<Machine>,
    /// What other threads have to say to the one that takes signals.
    pub(super) inputs: Mutex<VecDeque<Input>>,
    pub(super) waker: wait::Waker,
    /// To the launcher. It is closed when the launcher has gone, by the thread that takes signals.
    pub(super) channel: Weak<Channel>,
    /// What could not be sent there for want of memory, the oldest first.
    unsent: Mutex<VecDeque<Report>>,
    drain_timeout: Option<Duration>,
    /// Everything that a disabled daemon does not have.
    pub(super) service: Option<Service>,
}

// ---- init ----

pub(in crate::driver) fn init(config: Config, launcher: i32, channel: Channel) -> Result<()> {
    launch::new_session();
    crate::driver::sockets::adopt_passed(Some(launcher));
    let (hello, pidfd) = match first_message(&channel) {
        Received::Message(message, pidfd) => match ToDaemon::parse(&message) {
            Ok(Some(ToDaemon::Hello(hello))) => (hello, pidfd),
            other => {
                let text = format!("cannot understand launcher {launcher} (channel): {other:?}");
                return Err(Error::new(ErrorKind::Channel, text));
            }
        },
        // Without its first message the launcher cannot have got as far as starting us.
        Received::Closed => end_without_launcher(launcher),
        Received::Empty => {
            let text = format!("cannot read the message of launcher {launcher} (channel)");
            return Err(Error::io(ErrorKind::Channel, text, io::ErrorKind::OutOfMemory.into()));
        }
    };
    let drain_timeout = config.drain_timeout;
    let outputs = Outputs::new(config.replace_output);
    let (config, settings) = crate::driver::control::Settings::take(config);
    #[cfg(feature = "systemd")]
    let (config, check) = config.take_watchdog();
    let service = Service::open(config, launcher, &hello, pidfd)?;
    let machine = Machine::new(hello.kind.restarts(), hello.in_place);
    let daemon = run(machine, outputs, drain_timeout, Some(service), Some(channel))?;
    #[cfg(feature = "systemd")]
    notify::watch(check, daemon.channel.clone())?;
    crate::driver::control::serve(daemon, settings)?;
    let service = daemon.service.as_ref().expect("just given");
    let claimed = service.claim();
    if daemon.phase() != Phase::Starting || process::parent_pid() != launcher {
        service.never_started(); // told to end, or the launcher died, while we waited
    }
    claimed?;
    Ok(())
}

/// It was sent before we were started: where there seems to be none, there is no memory for it now.
fn first_message(channel: &Channel) -> Received {
    for _ in 0..AGAIN {
        match channel.receive(MESSAGE_MAX) {
            Received::Empty => thread::sleep(PAUSE),
            received => return received,
        }
    }
    Received::Empty
}

pub(in crate::driver) fn init_disabled(config: Config) -> Result<()> {
    crate::driver::sockets::adopt_passed(None);
    crate::driver::notification_fd::hold(&config)?;
    let outputs = Outputs::new(false); // nothing here outlives its supervisor
    run(Machine::disabled(), outputs, config.drain_timeout, None, None)?;
    #[cfg(feature = "systemd")]
    notify::watch_alone(config.take_watchdog().1)?;
    note!(
        Info,
        "stage=init daemon={} reason=\"no PID file: restarts are disabled\"",
        process::own_pid()
    );
    Ok(())
}

/// Installs the handlers and starts the threads.
fn run(
    machine: Machine,
    outputs: Outputs,
    drain_timeout: Option<Duration>,
    service: Option<Service>,
    channel: Option<Channel>,
) -> Result<&'static Daemon> {
    let system = |step: &str| {
        let text = format!("cannot {step} (init)");
        move |error| Error::io(ErrorKind::System, text, error)
    };
    let waker = wait::Waker::new().map_err(system("make a socket pair"))?;
    let signals =
        Signals::install(&signals::for_daemon(), &[]).map_err(system("install handlers"))?;
    let (request_stage, run_request_hooks) = mpsc::channel();
    let (drain_stage, run_drain_hooks) = mpsc::channel::<DrainReason>();
    let channel = channel.map(Arc::new);
    let daemon = DAEMON.get_or_init(|| Daemon {
        machine: Mutex::new(machine),
        inputs: Mutex::new(VecDeque::new()),
        waker,
        channel: channel.as_ref().map(Arc::downgrade).unwrap_or_default(),
        unsent: Mutex::default(),
        drain_timeout,
        service,
    });
    daemon.publish(&lock(&daemon.machine));
    let events = Events::new(daemon, channel, outputs, request_stage, drain_stage);
    // Started now: later, under load, there might be no thread to be had.
    spawn("seamless-stage1", move || {
        for () in run_request_hooks {
            hooks::run_before(Stage::Handoff);
            run_hooks(&REQUEST_HOOKS, "on_shutdown_request");
            hooks::run_after(Stage::Handoff);
            daemon.post(Input::RequestHooksDone);
        }
    })?;
    spawn("seamless-stage3", move || {
        for reason in run_drain_hooks {
            SHUTDOWN.decided(reason);
            hooks::run_before(Stage::Drain);
            crate::driver::sockets::let_go();
            SHUTDOWN.begin();
            run_hooks(&DRAIN_HOOKS, "on_shutdown");
            SHUTDOWN.wait_guards();
            hooks::run_after(Stage::Drain);
            daemon.post(Input::DrainHooksDone);
            SHUTDOWN.wake_finished();
        }
    })?;
    spawn("seamless-signal", move || events.run(signals))?;
    hooks::begin()?;
    Ok(daemon)
}

pub(in crate::driver) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(body);
    thread.map(drop).map_err(|error| {
        Error::io(ErrorKind::System, format!("cannot start thread {name} (init)"), error)
    })
}

pub(in crate::driver) fn run_hooks(stage: &HookList, name: &str) {
    stage.run(|panic| {
        note!(Error, "stage=hooks daemon={} hook={name} panic={panic:?}", process::own_pid());
    });
}

/// Nothing was served yet, and nobody would restart us.
fn end_without_launcher(launcher: i32) -> ! {
    note!(
        Warn,
        "stage=init launcher={launcher} daemon={} reason=\"the launcher is gone\"",
        process::own_pid(),
    );
    crate::sys::exit_now(0)
}

// ---- what the program calls ----

pub(crate) fn started() -> Result<()> {
    let Some(daemon) = DAEMON.get() else {
        return Err(Error::new(
            ErrorKind::NotInitialized,
            "cannot announce the service (started): init was not called, or failed",
        ));
    };
    hooks::run_before(Stage::Takeover);
    match &daemon.service {
        Some(service) => service.started(daemon)?,
        None => {
            notify::serves_alone();
            crate::driver::sockets::close_unclaimed();
            crate::driver::notification_fd::tell();
        }
    }
    hooks::run_after(Stage::Takeover);
    Ok(())
}

pub(crate) fn restart() -> Result<()> {
    let refuse = |why: &str| {
        Err(Error::new(ErrorKind::CannotRestart, format!("cannot restart (restart): {why}")))
    };
    let Some(daemon) = DAEMON.get() else {
        return refuse("init was not called, or failed");
    };
    let Some(service) = &daemon.service else {
        return refuse("without a PID file restarts are disabled");
    };
    match state() {
        State::Starting => return refuse("this generation has not started yet"),
        State::Draining => return refuse("this generation is draining"),
        State::Detached => return Ok(()), // a successor is awaited already
        State::Serving => {}
    }
    match service.not_restarted() {
        Some(why) => refuse(why),
        None => {
            daemon.post(Input::Restart);
            Ok(())
        }
    }
}

/// As TERM by hand does, but of the whole service: older generations that missed their TERM are told
/// again, and awaited.
pub(in crate::driver) fn stop(daemon: &Daemon) {
    daemon.post(Input::Told(Intent::Stop(Scope::Service)));
}

pub(crate) fn generation() -> Option<u64> {
    let service = DAEMON.get()?.service.as_ref()?;
    service.number()
}

pub(crate) fn state() -> State {
    let Some(daemon) = DAEMON.get() else {
        return State::Starting;
    };
    state_of(&lock(&daemon.machine))
}

fn state_of(machine: &Machine) -> State {
    match machine.phase() {
        // Its launcher has gone, and a hook still runs, maybe for ever.
        Phase::HandingOff if machine.looks_round() => State::Detached,
        Phase::Starting | Phase::StoppingEarly => State::Starting,
        Phase::Serving | Phase::HandingOff => State::Serving,
        Phase::Detached => State::Detached,
        Phase::Draining(_) | Phase::AwaitingOlder(_) | Phase::Finished | Phase::Ended => {
            State::Draining
        }
    }
}

/// The limit of a drain for which the configuration sets none.
static DEFAULT_DRAIN_TIMEOUT: Mutex<Option<Duration>> = Mutex::new(None);

pub(crate) fn default_drain_timeout(timeout: Option<Duration>) {
    *lock(&DEFAULT_DRAIN_TIMEOUT) = timeout;
}

impl Daemon {
    pub(in crate::driver) fn drain_timeout(&self) -> Option<Duration> {
        self.drain_timeout.or(*lock(&DEFAULT_DRAIN_TIMEOUT))
    }

    pub(in crate::driver) fn phase(&self) -> Phase {
        lock(&self.machine).phase()
    }

    /// Tells those that wait for changes of our state. The caller has the machine locked, so that they
    /// are told in order.
    pub(in crate::driver) fn publish(&self, machine: &Machine) {
        STATES.publish(state_of(machine));
    }

    /// The state is Serving, and the launcher knows, before anything that follows from it is told.
    /// `false`: the process has been told to end meanwhile.
    pub(in crate::driver) fn serve(&self) -> bool {
        crate::driver::control::status::entered_stage();
        let mut machine = lock(&self.machine);
        for output in machine.on(Input::Started) {
            if let Output::Report(report) = output {
                self.report(report);
            }
        }
        self.publish(&machine);
        machine.phase() == Phase::Serving
    }

    /// Tells the launcher. Guards against a report that is lost for want of memory: a launcher that
    /// never hears of handlers KILLs a daemon that serves. What cannot be sent now is sent later, by
    /// the thread that takes signals.
    pub(in crate::driver) fn report(&self, report: Report) {
        lock(&self.unsent).push_back(report);
        if !self.send_reports() {
            self.waker.wake();
        }
    }

    /// Sends what there is to report; `false` where some of it has to wait.
    pub(in crate::driver) fn send_reports(&self) -> bool {
        let mut unsent = lock(&self.unsent);
        while let Some(report) = unsent.front() {
            let sent = match self.channel.upgrade() {
                Some(channel) => channel.send(&self.message(*report), None),
                None => Ok(()), // a launcher that has gone needs no report
            };
            if let Err(error) = sent {
                note!(Debug, "stage=channel report={} error=\"{error}\"", report.name());
                if process::is_shortage(&error) {
                    return false;
                }
            }
            unsent.pop_front();
        }
        true
    }

    fn message(&self, report: Report) -> Vec<u8> {
        match report {
            Report::Started => Report::format_started(self.drain_timeout()),
            other => other.format(),
        }
    }

    /// Hands an input to the thread that takes signals.
    fn post(&self, input: Input) {
        lock(&self.inputs).push_back(input);
        self.waker.wake();
    }
}
