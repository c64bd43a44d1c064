//! Drives the launcher. It never returns to the program but with an error, before anything was
//! started.

use super::Timers;
use super::journal::{Maybe, note};
use crate::config::Config;
use crate::error::{Error, ErrorKind};
use crate::proto::launcher::{Input, Launcher, Output, Timer};
use crate::proto::wire::{MESSAGE_MAX, ToDaemon};
use crate::proto::{End, Report};
use crate::shutdown::Hook;
use crate::sys::channel::{Channel, Received};
use crate::sys::signals::{self, SIGCONT, SIGKILL, SIGPIPE, SIGTERM, SIGUSR2, Signals};
use crate::sys::supervisor::Supervisor;
use crate::sys::{launch, process, wait};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// A CONT that is further from its TERM belongs to something else; and the supervisors that write
/// their status after the signals need half of that.
const SETTLE: Duration = Duration::from_millis(20);
/// How much longer than its own `drain_timeout` an attached daemon may live.
const KILL_AFTER: Duration = Duration::from_secs(5);

pub(super) fn launch(config: Config) -> Error {
    let supervisor = Supervisor::find();
    let (meant, passed) = signals::for_launcher(config.release_signal);
    let signals = match Signals::install(&meant, &passed) {
        Ok(signals) => signals,
        Err(error) => {
            return Error::io(ErrorKind::System, "cannot install handlers (launch)", error);
        }
    };
    // What the supervisor blocked would never arrive, here or in the daemon.
    signals::unblock_all();
    match start(&supervisor) {
        Ok((daemon, channel)) => run(config, supervisor, signals, daemon, channel),
        Err(error) => {
            signals.uninstall();
            error
        }
    }
}

/// The handlers are installed by now: a signal that comes while the daemon is being started is not
/// lost. The hello waits in the channel when the daemon first looks.
fn start(supervisor: &Supervisor) -> Result<(launch::Daemon, Channel), Error> {
    let (ours, theirs) = Channel::pair().map_err(|error| {
        Error::io(ErrorKind::Channel, "cannot make the channel (launch)", error)
    })?;
    let (hello, pidfd) = supervisor.hello();
    ours.send(&ToDaemon::Hello(hello).format(), pidfd)
        .map_err(|error| Error::io(ErrorKind::Channel, "cannot use the channel (launch)", error))?;
    let program = launch::program().map_err(|error| {
        Error::io(ErrorKind::Launch, "cannot find the program's file (launch)", error)
    })?;
    let daemon = launch::spawn(&program, &theirs).map_err(|error| {
        Error::io(ErrorKind::Launch, format!("cannot start {program:?} again (launch)"), error)
    })?;
    Ok((daemon, ours))
}

struct Driver {
    machine: Launcher,
    timers: Timers<Timer>,
    inputs: VecDeque<Input>,
    daemon: launch::Daemon,
    channel: Option<Channel>,
    supervisor: Supervisor,
    release_signal: i32,
    handoff_timeout: Duration,
    kill_timeout: Option<Duration>,
    /// When the last TERM came.
    asked: Option<Instant>,
}

fn run(
    config: Config,
    supervisor: Supervisor,
    mut signals: Signals,
    daemon: launch::Daemon,
    channel: Channel,
) -> ! {
    let mut keep = signals.fds().to_vec();
    keep.extend(&config.keep_open);
    keep.push(channel.number());
    keep.extend(supervisor.hello().1.map(|pidfd| pidfd.as_raw_fd()));
    launch::close_all_but(&keep);
    launch::trim_memory();
    note!(
        Info,
        "stage=launch launcher={} daemon={} supervisor={} supervisor_kind={}",
        process::own_pid(),
        daemon.pid(),
        Maybe(supervisor.identity.map(|one| one.pid)),
        supervisor.kind.name(),
    );
    if supervisor.is_script() {
        note!(
            Warn,
            "stage=launch launcher={} parent_name={} reason=\"started by a shell script without \
             exec: the supervisor's TERM ends the shell and never arrives here\"",
            process::own_pid(),
            Maybe(supervisor.name.as_deref()),
        );
    }
    run_hooks(config.on_launch);
    let mut driver = Driver {
        machine: Launcher::new(supervisor.kind),
        timers: Timers::new(),
        inputs: VecDeque::new(),
        daemon,
        channel: Some(channel),
        supervisor,
        release_signal: config.release_signal,
        handoff_timeout: config.handoff_timeout,
        kill_timeout: config.drain_timeout.map(|timeout| timeout.saturating_add(KILL_AFTER)),
        asked: None,
    };
    loop {
        driver.step(&mut signals);
    }
}

fn run_hooks(hooks: Vec<Hook>) {
    let stage = crate::shutdown::Stage::new();
    for hook in hooks {
        stage.add(hook);
    }
    stage.run(|panic| note!(Error, "stage=launch hook=on_launch panic={panic:?}"));
}

impl Driver {
    /// Sleeps until something happens, then feeds in all of it: the channel first.
    fn step(&mut self, signals: &mut Signals) {
        let mut fds = signals.readers();
        fds.extend(self.channel.as_ref().map(AsFd::as_fd));
        wait::readable(&fds, self.timers.next());
        // The signals are taken before the channel is read: what was written before a signal was
        // sent is then certain to be seen before the signal is acted on.
        let arrived = signals.pending();
        self.read_channel();
        for received in arrived {
            self.signal(received);
        }
        // Any CHLD may be the kernel's merged with the daemon's, or the other way round.
        if let Some(end) = self.daemon.ended() {
            self.read_channel();
            self.feed(Input::Ended(end));
        }
        launch::reap_orphans(&self.daemon);
        while let Some(timer) = self.timers.due() {
            self.feed(Input::Timer(timer));
        }
        self.feed(Input::Quiet);
    }

    fn read_channel(&mut self) {
        while let Some(channel) = &self.channel {
            match channel.receive(MESSAGE_MAX) {
                Received::Message(message, _) => match Report::parse(&message) {
                    Ok(Some(report)) => {
                        note!(
                            Debug,
                            "stage=report launcher={} daemon={} report={}",
                            process::own_pid(),
                            self.daemon.pid(),
                            report.name(),
                        );
                        self.feed(Input::Report(report));
                    }
                    Ok(None) => {}
                    Err(refused) => note!(Warn, "stage=channel refused={refused:?}"),
                },
                Received::Empty => return,
                Received::Closed => {
                    self.channel = None;
                    self.feed(Input::ChannelClosed);
                }
            }
        }
    }

    fn signal(&mut self, received: signals::Received) {
        let from = received.from.unwrap_or(0);
        match received.signal {
            SIGTERM => {
                self.asked = Some(Instant::now());
                self.feed(Input::Term { from });
            }
            signals::SIGCHLD => {} // after every wake-up the channel is read and the daemon waited for
            SIGCONT => {
                self.feed(Input::Cont { from });
                self.feed(Input::Signal(SIGCONT));
            }
            // Our own write to a pipe that is closed, say of the log.
            SIGPIPE if from == process::own_pid() => {}
            // The release, which the channel has told already.
            signal if signal == self.release_signal && from == self.daemon.pid() => {}
            signal => self.feed(Input::Signal(signal)),
        }
    }

    fn feed(&mut self, input: Input) {
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            for output in self.machine.on(input) {
                self.perform(output);
            }
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::ReadStatus => {
                let reading = self.supervisor.read(Some(process::own_pid()));
                self.inputs.push_back(Input::Status(reading));
            }
            Output::Tell(intent) => {
                let told = match &self.channel {
                    Some(channel) => channel.send(&ToDaemon::Intent(intent).format(), None),
                    None => Err(io::ErrorKind::NotConnected.into()),
                };
                self.note_failure("tell the intent", told);
                note!(
                    Debug,
                    "stage=intent launcher={} intent={}",
                    process::own_pid(),
                    intent.name(),
                );
            }
            Output::Handoff => {
                let sent = self.daemon.signal(SIGUSR2);
                self.note_failure("send USR2", sent);
                note!(
                    Info,
                    "stage=handoff launcher={} daemon={} signal=USR2 elapsed_ms={}",
                    process::own_pid(),
                    self.daemon.pid(),
                    self.elapsed_ms(),
                );
            }
            Output::Stop => {
                let sent = self.daemon.signal(SIGTERM);
                self.note_failure("send TERM", sent);
                note!(
                    Info,
                    "stage=stop launcher={} daemon={} signal=TERM elapsed_ms={}",
                    process::own_pid(),
                    self.daemon.pid(),
                    self.elapsed_ms(),
                );
            }
            Output::Kill(timer) => {
                let limit = match timer {
                    Timer::Handoff => "handoff_timeout, and no handlers installed",
                    Timer::Kill => "drain_timeout and 5 s",
                    Timer::Cont | Timer::Settle => "none",
                };
                note!(
                    Error,
                    "stage=kill launcher={} daemon={} signal=KILL limit={limit:?} elapsed_ms={}",
                    process::own_pid(),
                    self.daemon.pid(),
                    self.elapsed_ms(),
                );
                let sent = self.daemon.signal(SIGKILL);
                self.note_failure("send KILL", sent);
            }
            Output::Forward(signal) => {
                let sent = self.daemon.signal(signal);
                self.note_failure("pass on a signal", sent);
                note!(
                    Debug,
                    "stage=forward launcher={} daemon={} signal={signal}",
                    process::own_pid(),
                    self.daemon.pid(),
                );
            }
            Output::Arm(timer) => {
                let after = match timer {
                    Timer::Cont | Timer::Settle => Some(SETTLE),
                    Timer::Handoff => Some(self.handoff_timeout),
                    Timer::Kill => self.kill_timeout,
                };
                if let Some(after) = after {
                    self.timers.arm(timer, after);
                }
            }
            Output::Disarm(timer) => self.timers.disarm(timer),
            Output::Leave { expired } => self.leave(expired),
            Output::Mirror(end) => {
                let (how, number) = match end {
                    End::Code(code) => ("exit_code", code),
                    End::Signal(signal) => ("signal", signal),
                };
                note!(
                    Info,
                    "stage=end launcher={} daemon={} {how}={number} elapsed_ms={}",
                    process::own_pid(),
                    self.daemon.pid(),
                    self.elapsed_ms(),
                );
                launch::end_as(end)
            }
        }
    }

    fn leave(&self, expired: bool) -> ! {
        if expired {
            note!(
                Warn,
                "stage=release launcher={} daemon={} elapsed_ms={} reason=\"handoff_timeout: the \
                 daemon did not release its launcher and serves on detached\"",
                process::own_pid(),
                self.daemon.pid(),
                self.elapsed_ms(),
            );
        } else {
            note!(
                Info,
                "stage=release launcher={} daemon={} elapsed_ms={}",
                process::own_pid(),
                self.daemon.pid(),
                self.elapsed_ms(),
            );
        }
        launch::end_as(End::Code(0))
    }

    fn note_failure(&self, step: &str, result: io::Result<()>) {
        if let Err(error) = result {
            note!(
                Warn,
                "stage=launcher launcher={} daemon={} step={step:?} error=\"{error}\"",
                process::own_pid(),
                self.daemon.pid(),
            );
        }
    }

    /// Since the last TERM; `-` where none came.
    fn elapsed_ms(&self) -> Maybe<String> {
        Maybe(self.asked.map(|asked| format!("{:.1}", asked.elapsed().as_secs_f64() * 1e3)))
    }
}
