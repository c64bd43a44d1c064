//! The thread that takes signals and messages. It never runs code of the program, so limits, the
//! hammer and the check work while a hook blocks.

use crate::driver::daemon::hooks;
use crate::driver::daemon::signal_hooks::{Gate, What};
use crate::driver::daemon::stdio::Outputs;
use crate::driver::daemon::{Daemon, generation};
use crate::driver::generation::{self, Service};
use crate::driver::log::{Maybe, note};
use crate::driver::notify;
use crate::driver::{REQUEST_HOOKS, SHUTDOWN, STATES, Timers};
use crate::error::Error;
use crate::hooks::Stage;
use crate::proto::channel::{MESSAGE_MAX, ToDaemon};
use crate::proto::daemon::{Finding, Forced, Input, Output, Phase, Timer};
use crate::proto::{DrainReason, Reading, Report};
use crate::shutdown::lock;
use crate::sys::channel::{Channel, Received};
use crate::sys::lock_file::Attempt;
use crate::sys::process::Held;
use crate::sys::signals::{self, SIGUSR2, Signals};
use crate::sys::{launch, pid_file, process, wait};
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// How often a detached daemon looks round.
const CHECK: Duration = Duration::from_secs(1);
/// How often it says that it is still detached.
const SAY: Duration = Duration::from_secs(60);
/// When what could not be reported for want of memory is tried again.
const RESEND: Duration = Duration::from_millis(10);
/// The exit code of a drain that was forced to end, as of `timeout(1)`.
const HAMMERED: i32 = 124;

pub(in crate::driver) struct Events {
    daemon: &'static Daemon,
    timers: Timers<Timer>,
    /// `None` once the launcher has gone.
    channel: Option<Arc<Channel>>,
    /// Older generations whose end is awaited.
    older: Vec<Held>,
    /// When those that could not be told to stop are told again.
    stop_again: Option<Instant>,
    /// When the handoff began, and after it the drain.
    left_serving: Option<Instant>,
    /// When it was last logged that no successor is ready.
    said: Option<Instant>,
    /// What was wrong with the last check, and when that was logged.
    trouble: Option<(String, Instant)>,
    outputs: Outputs,
    gate: Gate,
    request_stage: mpsc::Sender<()>,
    drain_stage: mpsc::Sender<DrainReason>,
}

impl Events {
    pub(in crate::driver) fn new(
        daemon: &'static Daemon,
        channel: Option<Arc<Channel>>,
        outputs: Outputs,
        request_stage: mpsc::Sender<()>,
        drain_stage: mpsc::Sender<DrainReason>,
    ) -> Events {
        Events {
            daemon,
            timers: Timers::new(),
            channel,
            older: Vec::new(),
            stop_again: None,
            left_serving: None,
            said: None,
            trouble: None,
            outputs,
            gate: Gate::default(),
            request_stage,
            drain_stage,
        }
    }

    pub(in crate::driver) fn run(mut self, mut signals: Signals) {
        signals::unblock_all();
        self.perform(Output::Report(Report::Ready), &mut VecDeque::new());
        loop {
            self.step(&mut signals);
        }
    }

    /// Sleeps until something happens, then feeds in all of it: the channel first.
    fn step(&mut self, signals: &mut Signals) {
        let mut fds = signals.readers();
        fds.push(self.daemon.waker.as_fd());
        fds.extend(self.channel.as_ref().map(|channel| channel.as_fd()));
        fds.extend(self.older.iter().map(AsFd::as_fd));
        let again = self.stop_again.map(|at| at.saturating_duration_since(Instant::now()));
        let outlives = self.outlives_readers();
        let (outputs, retry) = match outlives {
            true => (self.outputs.watched(), self.outputs.next()),
            false => (Vec::new(), None),
        };
        let resend = (!self.daemon.send_reports()).then_some(RESEND);
        let next = self.timers.next().into_iter().chain(again).chain(retry).chain(resend);
        let next = next.chain(self.gate.next()).min();
        wait::readable_or_closed(&fds, &outputs, next);
        if outlives {
            self.outputs.replace_closed(); // before anything else: others write there meanwhile
        }
        // The signals are taken before the channel is read: what was written before a signal was
        // sent is then certain to be seen before the signal is acted on.
        let arrived = signals.pending();
        self.daemon.waker.clear();
        let posted = std::mem::take(&mut *lock(&self.daemon.inputs));
        self.pass_gate();
        self.read_channel();
        let launcher = self.daemon.service.as_ref().map(|service| service.launcher);
        for received in arrived {
            self.gate.signal(received, launcher);
            self.pass_gate();
        }
        for input in posted {
            self.feed(input);
        }
        if !self.older.is_empty() {
            self.older.retain(|older| !older.has_ended());
            if self.older.is_empty() && self.stop_again.is_none() {
                self.feed(Input::OlderGone);
            }
        }
        if self.stop_again.is_some_and(|at| at <= Instant::now()) && self.stop_older() {
            self.feed(Input::OlderGone);
        }
        while let Some(timer) = self.timers.due() {
            self.feed(Input::Timer(timer));
        }
    }

    /// Detached or draining: what the supervisor reads from our launcher, it stops reading. A daemon
    /// that serves beside its launcher is left with what it has: to a reader that fails there, the
    /// program's own answer may be to end and be started anew.
    fn outlives_readers(&self) -> bool {
        let machine = lock(&self.daemon.machine);
        match machine.phase() {
            Phase::Draining(_) | Phase::AwaitingOlder(_) | Phase::Finished => true,
            Phase::HandingOff | Phase::Detached => machine.looks_round(),
            Phase::Starting | Phase::StoppingEarly | Phase::Serving | Phase::Ended => false,
        }
    }

    fn read_channel(&mut self) {
        while let Some(channel) = &self.channel {
            match channel.receive(MESSAGE_MAX) {
                Received::Message(message, _) => match ToDaemon::parse(&message) {
                    Ok(Some(ToDaemon::Intent(intent))) => {
                        self.gate.told(intent);
                        self.pass_gate();
                    }
                    Ok(Some(ToDaemon::TakenOver)) => {
                        self.gate.taken_over();
                        self.pass_gate();
                    }
                    Ok(Some(ToDaemon::ReloadFailed(why))) => {
                        if let Some(service) = &self.daemon.service {
                            service.note_reload_failed(why);
                        }
                        self.feed(Input::ReloadFailed);
                    }
                    Ok(Some(ToDaemon::Ask)) => notify::answer(self.daemon, channel),
                    Ok(Some(ToDaemon::Hello(_)) | None) => {}
                    Err(refused) => note!(Warn, "stage=channel refused={refused:?}"),
                },
                Received::Empty => return,
                Received::Closed => {
                    self.channel = None;
                    self.feed(Input::LauncherGone);
                }
            }
        }
    }

    /// Acts on whatever no hook holds back.
    fn pass_gate(&mut self) {
        while let Some((what, signal)) = self.gate.due() {
            let input = match what {
                What::Said(input) => Some(input),
                What::Signal(received) => self.signal(received),
            };
            if let Some(input) = input {
                self.feed(input);
            }
            if let Some(signal) = signal {
                hooks::run_after_signal(signal);
            }
        }
    }

    /// `None`: a USR2 by hand that is not followed. One that the launcher sends of its own accord
    /// comes behind a message, which was read before and has begun the handoff.
    fn signal(&self, received: signals::Received) -> Option<Input> {
        let from = received.from.unwrap_or(0);
        let service = self.daemon.service.as_ref();
        note!(
            Debug,
            "stage=signal daemon={} signal={} from={from}",
            process::own_pid(),
            received.signal,
        );
        if received.evicts {
            return Some(Input::Evicted);
        }
        if received.signal == SIGUSR2 {
            let serves = self.daemon.phase() == Phase::Serving;
            let refused = service.filter(|_| serves).and_then(Service::not_restarted);
            if let Some(why) = refused {
                note!(
                    Warn,
                    "stage=signal daemon={} signal=USR2 from={from} refused={why:?}",
                    process::own_pid(),
                );
                return None;
            }
            let from_launcher = service.is_some_and(|service| service.launcher == from);
            return Some(Input::Usr2 { from_launcher });
        }
        // A successor puts its own PID file in place before it sends TERM; one in Go too.
        let names = |service: &Service| pid_file::read(&service.pid_file).ok()?.pid;
        let from_successor = from != process::own_pid()
            && service.is_some_and(|service| names(service) == Some(from));
        Some(Input::Term { from_successor })
    }

    fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for output in self.decide(input) {
                self.perform(output, &mut inputs);
            }
        }
    }

    fn decide(&mut self, input: Input) -> Vec<Output> {
        let (before, outputs, after) = {
            let mut machine = lock(&self.daemon.machine);
            let before = machine.phase();
            let outputs = machine.on(input);
            self.daemon.publish(&machine);
            (before, outputs, machine.phase())
        };
        if before != after {
            self.note_phase(input, after);
        }
        outputs
    }

    /// One line for each stage of a daemon's life.
    fn note_phase(&mut self, input: Input, phase: Phase) {
        crate::driver::control::status::entered_stage();
        let now = Instant::now();
        let stage = match phase {
            Phase::Starting => "starting",
            Phase::StoppingEarly => "stop",
            Phase::Serving => "started",
            Phase::HandingOff => {
                self.left_serving = Some(now);
                self.said = Some(now);
                "prepare"
            }
            Phase::Detached => {
                self.said = Some(now);
                "detached"
            }
            Phase::Draining(_) => {
                self.left_serving = Some(now);
                if self.daemon.service.is_none() {
                    notify::drains_alone();
                }
                "drain"
            }
            Phase::AwaitingOlder(_) => "drained",
            Phase::Finished => "end",
            Phase::Ended => "ended",
        };
        let launcher = self.daemon.service.as_ref().map(|service| service.launcher);
        note!(
            Info,
            "stage={stage} generation={} launcher={} daemon={} cause={} elapsed_ms={}",
            Maybe(generation()),
            Maybe(launcher),
            process::own_pid(),
            cause(input),
            elapsed_ms(self.left_serving),
        );
    }

    /// Once a minute, so that an operator learns of a service that nobody takes over.
    fn note_detached(&mut self, supervisor: Reading) {
        let due = self.said.is_none_or(|said| said.elapsed() >= SAY);
        if due && lock(&self.daemon.machine).looks_round() {
            self.said = Some(Instant::now());
            note!(
                Warn,
                "stage=detached generation={} daemon={} supervisor={supervisor:?} elapsed_ms={} \
                 reason=\"no successor is ready yet: serving on\"",
                Maybe(generation()),
                process::own_pid(),
                elapsed_ms(self.left_serving),
            );
        }
    }

    fn perform(&mut self, output: Output, inputs: &mut VecDeque<Input>) {
        match output {
            Output::RunRequestHooks => {
                let none = REQUEST_HOOKS.end_if_empty() && hooks::end_if_empty(Stage::Handoff);
                if none || self.request_stage.send(()).is_err() {
                    inputs.push_back(Input::RequestHooksDone);
                }
            }
            Output::Report(report) => {
                if let Some(service) =
                    self.daemon.service.as_ref().filter(|_| report == Report::Released)
                {
                    self.outputs.before_release(&service.supervisor);
                }
                self.daemon.report(report);
            }
            Output::Release => {
                if let Some(service) = &self.daemon.service {
                    let sent = launch::signal_launcher(service.launcher, service.release_signal);
                    if let Err(error) = sent {
                        // The channel has told it already.
                        note!(
                            Debug,
                            "stage=release launcher={} error=\"{error}\"",
                            service.launcher
                        );
                    }
                }
            }
            Output::RunDrainHooks(reason) => {
                if self.drain_stage.send(reason).is_err() {
                    inputs.push_back(Input::DrainHooksDone);
                }
            }
            Output::StopOlder => {
                if self.stop_older() {
                    inputs.push_back(Input::OlderGone);
                }
            }
            Output::Finish(reason) => {
                STATES.end();
                SHUTDOWN.finish(reason);
            }
            Output::Hammer(forced) => self.hammer(forced),
            Output::End => crate::sys::exit_now(0),
            Output::Check => self.check(inputs),
            Output::PutBack => {} // by `check`, which holds the claim
            Output::Arm(timer) => {
                let after = match timer {
                    Timer::Check => Some(CHECK),
                    Timer::Successor => {
                        self.daemon.service.as_ref().and_then(|service| service.successor_timeout)
                    }
                    Timer::Drain => self.daemon.drain_timeout(),
                };
                if let Some(after) = after {
                    self.timers.arm(timer, after);
                }
            }
            Output::Disarm(timer) => self.timers.disarm(timer),
        }
    }

    /// TERM to every older generation; true where none is left. Those that cannot be told for want of
    /// descriptors or memory are told later, and all of them with them: a second TERM is ignored.
    fn stop_older(&mut self) -> bool {
        let stopped = self.daemon.service.as_ref().map(Service::stop_older).unwrap_or_default();
        self.older = stopped.awaited;
        self.stop_again = stopped.again.then(|| Instant::now() + CHECK);
        self.older.is_empty() && self.stop_again.is_none()
    }

    /// Looks round and lets the machine decide while the claim is held.
    fn check(&mut self, inputs: &mut VecDeque<Input>) {
        let Some(service) = &self.daemon.service else { return };
        let mut trouble = None;
        let supervisor = service.supervisor.read(None); // may take a second
        let mut files = lock(&service.files);
        let finding = match files.lock_file.try_claim(&service.world) {
            Ok(Attempt::HeldBy(_)) => Ok(Finding::ClaimHeld),
            Ok(Attempt::Claimed) => service.look(&mut files, supervisor),
            Err(error) => Err(error),
        };
        let finding = finding.unwrap_or_else(|error| {
            let unseen = generation::is_shortage(&error);
            trouble = Some(error);
            match unseen {
                true => Finding::Unseen,
                false => Finding::Seen {
                    newer: service.is_taken_over(),
                    lost_file: false,
                    claims_moved: false,
                    supervisor,
                },
            }
        });
        let outputs = self.decide(Input::Checked(finding));
        if outputs.contains(&Output::PutBack) {
            trouble = service.put_back(&mut files).err().or(trouble);
        }
        files.lock_file.give_up_if_held();
        drop(files);
        self.note_trouble(trouble);
        note!(Debug, "stage=check daemon={} finding={finding:?}", process::own_pid());
        for output in outputs {
            self.perform(output, inputs);
        }
        self.note_detached(supervisor);
    }

    /// The same trouble, each second, is worth a line a minute.
    fn note_trouble(&mut self, trouble: Option<Error>) {
        let Some(trouble) = trouble.map(|error| error.to_string()) else {
            self.trouble = None;
            return;
        };
        if let Some((last, when)) = &self.trouble {
            if *last == trouble && when.elapsed() < SAY {
                return;
            }
        }
        note!(Warn, "stage=check daemon={} error=\"{trouble}\"", process::own_pid());
        self.trouble = Some((trouble, Instant::now()));
    }

    fn hammer(&self, forced: Forced) -> ! {
        let reason = match forced {
            Forced::DrainTimeout => "drain_timeout",
            Forced::Usr2 => "USR2",
        };
        note!(
            Error,
            "stage=hammer generation={} daemon={} reason={reason} exit_code={HAMMERED} elapsed_ms={}",
            Maybe(generation()),
            process::own_pid(),
            elapsed_ms(self.left_serving),
        );
        hooks::run_hammer();
        crate::sys::exit_now(HAMMERED)
    }
}

/// What an input is called in the log.
fn cause(input: Input) -> &'static str {
    match input {
        Input::Started => "started",
        Input::Usr2 { .. } => "USR2",
        Input::Term { from_successor: true } => "successor",
        Input::Term { from_successor: false } => "TERM",
        Input::Told(intent) => intent.name(),
        Input::LauncherGone => "launcher-gone",
        Input::ReloadFailed => "reload-failed",
        Input::Restart => "restart()",
        Input::RequestHooksDone => "on_shutdown_request",
        Input::DrainHooksDone => "on_shutdown",
        Input::Evicted => "evicted",
        Input::OlderGone => "older-gone",
        Input::Checked(_) => "check",
        Input::Timer(Timer::Drain) => "drain_timeout",
        Input::Timer(Timer::Successor) => "successor_timeout",
        Input::Timer(Timer::Check) => "check",
    }
}

fn elapsed_ms(since: Option<Instant>) -> Maybe<String> {
    Maybe(since.map(|since| format!("{:.1}", since.elapsed().as_secs_f64() * 1e3)))
}
