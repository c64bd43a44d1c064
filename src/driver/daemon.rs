//! Drives the daemon: one thread takes signals and messages and never runs code of the program;
//! hooks have threads of their own.

use super::journal::{Maybe, note};
use super::{DAEMON, DRAIN_HOOKS, HAMMER_HOOKS, REQUEST_HOOKS, SHUTDOWN, Timers};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::daemon::{Daemon as Machine, Finding, Forced, Input, Output, Phase, Timer};
use crate::proto::takeover::{self, Content, Line, Own, Step, Unproven};
use crate::proto::wire::{Generation, Identity, MESSAGE_MAX, Record, ToDaemon};
use crate::proto::{Kind, Reading, Report};
use crate::shutdown::{Stage, lock};
use crate::sys::channel::{Channel, Received};
use crate::sys::claim::{Attempt, LockFile};
use crate::sys::pid_file::{self, PidFile};
use crate::sys::process::{self, Held, World};
use crate::sys::signals::{self, SIGTERM, SIGUSR2, Signals};
use crate::sys::supervisor::Supervisor;
use crate::sys::{launch, wait};
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How often a detached daemon looks round.
const CHECK: Duration = Duration::from_secs(1);
/// How often it says that it is still detached.
const SAY: Duration = Duration::from_secs(60);
/// How long the `on_hammer` hooks may take.
const HAMMER_HOOKS_TIME: Duration = Duration::from_secs(1);
/// The exit code of a drain that was forced to end, as of `timeout(1)`.
const HAMMERED: i32 = 124;
/// The pauses between attempts to claim: from, to.
const CLAIM_PAUSE: (Duration, Duration) = (Duration::from_micros(500), Duration::from_millis(20));

/// What the threads of the daemon share.
pub(crate) struct Daemon {
    machine: Mutex<Machine>,
    /// What other threads have to say to the one that takes signals.
    inputs: Mutex<VecDeque<Input>>,
    waker: wait::Waker,
    drain_timeout: Option<Duration>,
    /// Everything that a disabled daemon does not have.
    service: Option<Service>,
}

struct Service {
    pid_file: PathBuf,
    launcher: i32,
    /// This generation, but for its number.
    identity: Identity,
    launcher_identity: Identity,
    world: World,
    supervisor: Supervisor,
    successor_timeout: Option<Duration>,
    claim_timeout: Option<Duration>,
    release_signal: i32,
    /// The number of our claim; 0 before it.
    number: AtomicU64,
    files: Mutex<Files>,
    /// Held by a call of `started`: a second one at the same time waits for the first.
    announcing: Mutex<()>,
}

/// Guarded by one mutex, since within a process the claim excludes nobody.
struct Files {
    lock_file: LockFile,
    /// Ours, once `started` has put it in place.
    pid_file: Option<PidFile>,
    /// The last claim that a check has seen.
    last_claim: u64,
    /// A PID in the PID file that nobody accounts for, seen by the last check.
    stranger: Option<i32>,
}

/// Where a daemon is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Until `started` has returned `Ok`. Before `init` as well.
    Starting,
    /// Serving, with a launcher, or about to let it go.
    Serving,
    /// Serving without a launcher, until a successor is ready.
    Detached,
    /// No longer to accept new work.
    Draining,
}

// ---- init ----

pub(super) fn init(config: Config, launcher: i32, channel: Channel) -> Result<()> {
    launch::new_session();
    let (hello, pidfd) = match channel.receive(MESSAGE_MAX) {
        Received::Message(message, pidfd) => match ToDaemon::parse(&message) {
            Ok(Some(ToDaemon::Hello(hello))) => (hello, pidfd),
            other => {
                let text = format!("cannot understand launcher {launcher} (channel): {other:?}");
                return Err(Error::new(ErrorKind::Channel, text));
            }
        },
        // Without its first message the launcher cannot have got as far as starting us.
        Received::Empty | Received::Closed => end_without_launcher(launcher),
    };
    let world = process::world().unwrap_or_else(|error| {
        note!(
            Warn,
            "stage=init daemon={} error=\"{error}\" reason=\"no /proc: older generations are known \
             by the lock on the PID file alone\"",
            process::own_pid(),
        );
        World { boot: "unknown".to_owned(), pid_namespace: 0 }
    });
    let lock_file = LockFile::open(&config.pid_file, &world)?;
    let unknown = |pid| Identity { pid, start: 0 };
    let service = Service {
        launcher,
        identity: process::identity(process::own_pid()).unwrap_or(unknown(process::own_pid())),
        launcher_identity: hello.launcher.unwrap_or(unknown(launcher)),
        world,
        supervisor: Supervisor::from_hello(&hello, pidfd),
        successor_timeout: config.successor_timeout,
        claim_timeout: config.claim_timeout,
        release_signal: config.release_signal,
        number: AtomicU64::new(0),
        announcing: Mutex::new(()),
        files: Mutex::new(Files { lock_file, pid_file: None, last_claim: 0, stranger: None }),
        pid_file: config.pid_file,
    };
    let machine = Machine::new(hello.kind.restarts());
    let daemon = run(machine, config.drain_timeout, Some(service), Some(channel))?;
    let service = daemon.service.as_ref().expect("just given");
    service.claim()?;
    if process::parent_pid() != launcher {
        end_without_launcher(launcher); // it died while we waited
    }
    Ok(())
}

pub(super) fn init_disabled(config: Config) -> Result<()> {
    run(Machine::disabled(), config.drain_timeout, None, None)?;
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
    let (drain_stage, run_drain_hooks) = mpsc::channel();
    let daemon = DAEMON.get_or_init(|| Daemon {
        machine: Mutex::new(machine),
        inputs: Mutex::new(VecDeque::new()),
        waker,
        drain_timeout,
        service,
    });
    let driver = Driver {
        daemon,
        timers: Timers::new(),
        channel,
        older: Vec::new(),
        left_serving: None,
        said: None,
        trouble: None,
        request_stage,
        drain_stage,
    };
    // Started now: later, under load, there might be no thread to be had.
    spawn("seamless-stage1", move || {
        for () in run_request_hooks {
            run_hooks(&REQUEST_HOOKS, "on_shutdown_request");
            daemon.post(Input::RequestHooksDone);
        }
    })?;
    spawn("seamless-stage3", move || {
        for () in run_drain_hooks {
            SHUTDOWN.begin();
            run_hooks(&DRAIN_HOOKS, "on_shutdown");
            daemon.post(Input::DrainHooksDone);
        }
    })?;
    spawn("seamless-signal", move || driver.run(signals))?;
    Ok(daemon)
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(body);
    thread.map(drop).map_err(|error| {
        Error::io(ErrorKind::System, format!("cannot start thread {name} (init)"), error)
    })
}

fn run_hooks(stage: &Stage, name: &str) {
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
    match &daemon.service {
        Some(service) => service.started(daemon),
        None => Ok(()),
    }
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
    match (service.supervisor.kind, service.supervisor.read(Some(service.launcher))) {
        (Kind::Nobody, _) | (_, Reading::Lost) => refuse("nobody would start the service again"),
        (_, Reading::Down) => refuse("the supervisor wants the service down"),
        (_, Reading::Up | Reading::Unreadable) => {
            daemon.post(Input::Restart);
            Ok(())
        }
    }
}

pub(crate) fn generation() -> Option<u64> {
    let service = DAEMON.get()?.service.as_ref()?;
    service.number()
}

pub(crate) fn state() -> State {
    let Some(daemon) = DAEMON.get() else {
        return State::Starting;
    };
    match daemon.phase() {
        Phase::Starting | Phase::StoppingEarly => State::Starting,
        Phase::Serving | Phase::HandingOff => State::Serving,
        Phase::Detached => State::Detached,
        Phase::Draining(_) | Phase::AwaitingOlder(_) | Phase::Finished | Phase::Ended => {
            State::Draining
        }
    }
}

impl Daemon {
    fn phase(&self) -> Phase {
        lock(&self.machine).phase()
    }

    /// Hands an input to the thread that takes signals.
    fn post(&self, input: Input) {
        lock(&self.inputs).push_back(input);
        self.waker.wake();
    }
}

// ---- the claim, the record and the PID file ----

impl Service {
    /// Waits for the claim and takes the next number. Guards against two generations that start at
    /// once and would each take itself for the newest.
    fn claim(&self) -> Result<()> {
        let began = Instant::now();
        let mut pause = CLAIM_PAUSE.0;
        let mut said = None;
        loop {
            let mut files = lock(&self.files);
            let holder = match files.lock_file.try_claim(&self.world)? {
                Attempt::Claimed => return self.take_number(&mut files, began),
                Attempt::HeldBy(holder) => holder,
            };
            let path = files.lock_file.path().to_owned();
            drop(files); // not while sleeping: a stop has to read the record
            if said != Some(holder) {
                said = Some(holder);
                note!(
                    Info,
                    "stage=claim daemon={} holder={holder} path={path:?} reason=\"another generation \
                     is starting\"",
                    process::own_pid(),
                );
            }
            let left = match self.claim_timeout {
                None => Duration::MAX,
                Some(timeout) => timeout.saturating_sub(began.elapsed()),
            };
            if left.is_zero() {
                return Err(Error::new(
                    ErrorKind::ClaimTimeout,
                    format!(
                        "cannot lock {path:?} (claim): process {holder} is starting, and holds it for \
                         longer than claim_timeout ({:?})",
                        self.claim_timeout.unwrap_or_default(),
                    ),
                ));
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(CLAIM_PAUSE.1);
        }
    }

    /// Under the claim.
    fn take_number(&self, files: &mut Files, began: Instant) -> Result<()> {
        let taken = self.read_record(&files.lock_file).and_then(|mut record| {
            record.last += 1;
            files.lock_file.write(&record).map(|()| record.last)
        });
        let number = taken.inspect_err(|_| files.lock_file.give_up())?;
        self.number.store(number, Ordering::SeqCst);
        note!(
            Info,
            "stage=claim generation={number} launcher={} daemon={} elapsed_ms={:.1}",
            self.launcher,
            process::own_pid(),
            began.elapsed().as_secs_f64() * 1e3,
        );
        Ok(())
    }

    fn read_record(&self, lock_file: &LockFile) -> Result<Record> {
        let (record, dropped) = lock_file.read()?;
        for line in dropped {
            note!(Warn, "stage=record path={:?} dropped={line:?}", lock_file.path());
        }
        Ok(record)
    }

    fn prove(&self, generation: &Generation) -> Result<Held, Unproven> {
        process::prove_daemon(generation, &self.world, self.launcher)
    }

    fn line(&self, generation: &Generation) -> Line {
        Line {
            number: generation.number,
            daemon: generation.daemon,
            proof: self.prove(generation).map(drop),
        }
    }

    /// Takes over, in the order of [`takeover::STEPS`].
    fn started(&self, daemon: &Daemon) -> Result<()> {
        let _only_one = lock(&self.announcing);
        match daemon.phase() {
            Phase::Starting => {}
            Phase::StoppingEarly | Phase::Ended => never_started(),
            Phase::Serving
            | Phase::HandingOff
            | Phase::Detached
            | Phase::Draining(_)
            | Phase::AwaitingOlder(_)
            | Phase::Finished => return Ok(()),
        }
        let began = Instant::now();
        let mut number = self.number();
        if number.is_none() {
            self.claim()?; // it was given up, or never got
            number = self.number();
        }
        let number = number.expect("a claim has a number");
        let mut files = lock(&self.files);
        let mut record = self.read_record(&files.lock_file)?;
        // What the path holds before our file replaces it.
        let before = pid_file::read(&self.pid_file).unwrap_or_default();
        if let Err(error) = self.refuse_foreign(&record, before) {
            self.number.store(0, Ordering::SeqCst);
            files.lock_file.give_up();
            return Err(error);
        }
        record.live.retain(|one| self.line(one).is_kept(number));
        let older: Vec<Generation> =
            record.live.iter().filter(|one| one.number < number).cloned().collect();
        for step in takeover::STEPS {
            match step {
                Step::Install => files.pid_file = Some(PidFile::install(&self.pid_file)?),
                Step::Enter => {
                    record.live.push(self.entry(number));
                    files.lock_file.write(&record)?;
                    files.last_claim = record.last;
                }
                Step::Serve => {
                    let phase = {
                        let mut machine = lock(&daemon.machine);
                        _ = machine.on(Input::Started);
                        machine.phase()
                    };
                    if phase != Phase::Serving {
                        drop(files);
                        never_started();
                    }
                }
                Step::StopOlder => {
                    for generation in &older {
                        self.stop(generation, before);
                    }
                }
                Step::GiveUp => files.lock_file.give_up(),
            }
        }
        note!(
            Info,
            "stage=started generation={number} launcher={} daemon={} predecessors={} \
             elapsed_ms={:.1}",
            self.launcher,
            process::own_pid(),
            older.len(),
            began.elapsed().as_secs_f64() * 1e3,
        );
        Ok(())
    }

    /// Is the PID file somebody else's?
    fn refuse_foreign(&self, record: &Record, before: Content) -> Result<()> {
        for generation in &record.live {
            let line = self.line(generation);
            let foreign =
                line.proof.is_ok() && process::is_foreign(generation, &self.world, self.launcher);
            if let Some(why) = line.refusal(foreign, before) {
                return Err(Error::new(
                    ErrorKind::AlreadyRunning,
                    format!(
                        "cannot take over {:?} (started): generation {} with daemon {} and launcher {} {why}",
                        self.pid_file,
                        generation.number,
                        generation.daemon.pid,
                        generation.launcher.pid,
                    ),
                ));
            }
        }
        Ok(())
    }

    /// TERM to an older generation of this service, and to nobody else.
    fn stop(&self, generation: &Generation, before: Content) -> Option<Held> {
        let pid = generation.daemon.pid;
        let own = process::own_pid();
        if process::is_foreign(generation, &self.world, self.launcher) {
            note!(
                Warn,
                "stage=takeover daemon={own} predecessor={pid} refused=\"is supervised by somebody else\""
            );
            return None;
        }
        let (sent, held) = match self.prove(generation) {
            Ok(held) => (held.signal(SIGTERM), Some(held)),
            Err(Unproven::Gone) => return None,
            // Without pidfds or /proc, the lock on the PID file tells that its owner lives.
            Err(Unproven::Unknown) if before.is_held_by(pid) => {
                (process::signal_owner(pid, SIGTERM), None)
            }
            Err(unproven) => {
                note!(Warn, "stage=takeover daemon={own} predecessor={pid} refused={unproven:?}");
                return None;
            }
        };
        match sent {
            Ok(()) => note!(
                Info,
                "stage=takeover daemon={own} predecessor={pid} predecessor_generation={} signal=TERM",
                generation.number,
            ),
            // It looks round each second and then finds us.
            Err(error) => note!(
                Warn,
                "stage=takeover daemon={own} predecessor={pid} signal=TERM error=\"{error}\"",
            ),
        }
        held
    }

    /// TERM to every older generation; returns those whose end can be awaited.
    fn stop_older(&self) -> Vec<Held> {
        let files = lock(&self.files);
        let Ok(record) = self.read_record(&files.lock_file).inspect_err(|error| {
            note!(Warn, "stage=stop daemon={} error=\"{error}\"", process::own_pid())
        }) else {
            return Vec::new();
        };
        let before = pid_file::read(&self.pid_file).unwrap_or_default();
        let number = self.number();
        let older =
            record.live.iter().filter(|one| number.is_none_or(|number| one.number < number));
        older.filter_map(|one| self.stop(one, before)).collect()
    }

    /// A look round, under the claim.
    fn look(&self, files: &mut Files, supervisor: Reading) -> Result<Finding> {
        let mut record = self.read_record(&files.lock_file)?;
        let own = Own {
            number: self.number().unwrap_or(0),
            identity: self.identity,
            last_claim: files.last_claim,
            stranger: files.stranger,
        };
        let lines: Vec<Line> = record.live.iter().map(|one| self.line(one)).collect();
        let content = pid_file::read(&self.pid_file).ok();
        let lives = |pid| process::identity(pid).is_some();
        let seen = takeover::look(own, record.last, &lines, content, lives);
        if seen.enter {
            note!(
                Warn,
                "stage=check generation={} daemon={} path={:?} reason=\"the record was lost: \
                 entered again\"",
                own.number,
                process::own_pid(),
                files.lock_file.path(),
            );
            record.live.push(self.entry(own.number));
            record.last = record.last.max(own.number);
            files.lock_file.write(&record)?;
        }
        files.last_claim = record.last;
        files.stranger = seen.stranger;
        let takeover::Seen { newer, lost_file, claims_moved, .. } = seen;
        Ok(Finding::Seen { newer, lost_file, claims_moved, supervisor })
    }

    /// Under the claim.
    fn put_back(&self, files: &mut Files) -> Result<()> {
        files.pid_file = Some(PidFile::install(&self.pid_file)?);
        note!(
            Warn,
            "stage=check daemon={} path={:?} reason=\"the PID file named no live generation: ours is \
             back\"",
            process::own_pid(),
            self.pid_file,
        );
        Ok(())
    }

    fn number(&self) -> Option<u64> {
        Some(self.number.load(Ordering::SeqCst)).filter(|number| *number > 0)
    }

    fn entry(&self, number: u64) -> Generation {
        Generation {
            number,
            daemon: self.identity,
            boot: self.world.boot.clone(),
            pid_namespace: self.world.pid_namespace,
            launcher: self.launcher_identity,
            supervisor: self.supervisor.identity,
            more: Vec::new(),
        }
    }
}

/// The process is ending, and its thread for signals sees to it.
fn never_started() -> ! {
    loop {
        thread::park();
    }
}

// ---- the thread that takes signals ----

struct Driver {
    daemon: &'static Daemon,
    timers: Timers<Timer>,
    channel: Option<Channel>,
    /// Older generations whose end is awaited.
    older: Vec<Held>,
    /// When the handoff began, and after it the drain.
    left_serving: Option<Instant>,
    /// When it was last logged that no successor is ready.
    said: Option<Instant>,
    /// What was wrong with the last check, and when that was logged.
    trouble: Option<(String, Instant)>,
    request_stage: mpsc::Sender<()>,
    drain_stage: mpsc::Sender<()>,
}

impl Driver {
    fn run(mut self, mut signals: Signals) {
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
        fds.extend(self.channel.as_ref().map(AsFd::as_fd));
        fds.extend(self.older.iter().map(AsFd::as_fd));
        wait::readable(&fds, self.timers.next());
        // The signals are taken before the channel is read: what was written before a signal was
        // sent is then certain to be seen before the signal is acted on.
        let arrived = signals.pending();
        self.daemon.waker.clear();
        let posted = std::mem::take(&mut *lock(&self.daemon.inputs));
        self.read_channel();
        for received in arrived {
            let input = self.signal(received);
            self.feed(input);
        }
        for input in posted {
            self.feed(input);
        }
        if !self.older.is_empty() {
            self.older.retain(|older| !older.has_ended());
            if self.older.is_empty() {
                self.feed(Input::OlderGone);
            }
        }
        while let Some(timer) = self.timers.due() {
            self.feed(Input::Timer(timer));
        }
    }

    fn read_channel(&mut self) {
        while let Some(channel) = &self.channel {
            match channel.receive(MESSAGE_MAX) {
                Received::Message(message, _) => match ToDaemon::parse(&message) {
                    Ok(Some(ToDaemon::Intent(intent))) => self.feed(Input::Told(intent)),
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

    fn signal(&self, received: signals::Received) -> Input {
        let from = received.from.unwrap_or(0);
        let service = self.daemon.service.as_ref();
        note!(
            Debug,
            "stage=signal daemon={} signal={} from={from}",
            process::own_pid(),
            received.signal,
        );
        if received.signal == SIGUSR2 {
            let from_launcher = service.is_some_and(|service| service.launcher == from);
            return Input::Usr2 { from_launcher };
        }
        // A successor puts its own PID file in place before it sends TERM; one in Go too.
        let names = |service: &Service| pid_file::read(&service.pid_file).ok()?.pid;
        let from_successor = from != process::own_pid()
            && service.is_some_and(|service| names(service) == Some(from));
        Input::Term { from_successor }
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
            (before, outputs, machine.phase())
        };
        if before != after {
            self.note_phase(input, after);
        }
        outputs
    }

    /// One line for each stage of a daemon's life.
    fn note_phase(&mut self, input: Input, phase: Phase) {
        let now = Instant::now();
        let stage = match phase {
            Phase::Starting => "starting",
            Phase::StoppingEarly => "stop",
            Phase::Serving => "started",
            Phase::HandingOff => {
                self.left_serving = Some(now);
                "prepare"
            }
            Phase::Detached => {
                self.said = Some(now);
                "detached"
            }
            Phase::Draining(_) => {
                self.left_serving = Some(now);
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
        if due && self.daemon.phase() == Phase::Detached {
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
                if REQUEST_HOOKS.end_if_empty() || self.request_stage.send(()).is_err() {
                    inputs.push_back(Input::RequestHooksDone);
                }
            }
            Output::Report(report) => {
                let sent =
                    self.channel.as_ref().map(|channel| channel.send(&report.format(), None));
                if let Some(Err(error)) = sent {
                    note!(Debug, "stage=channel report={} error=\"{error}\"", report.name());
                }
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
            Output::RunDrainHooks(_) => {
                if self.drain_stage.send(()).is_err() {
                    inputs.push_back(Input::DrainHooksDone);
                }
            }
            Output::StopOlder => {
                self.older =
                    self.daemon.service.as_ref().map(Service::stop_older).unwrap_or_default();
                if self.older.is_empty() {
                    inputs.push_back(Input::OlderGone);
                }
            }
            Output::Finish(reason) => SHUTDOWN.finish(reason),
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
                    Timer::Drain => self.daemon.drain_timeout,
                };
                if let Some(after) = after {
                    self.timers.arm(timer, after);
                }
            }
            Output::Disarm(timer) => self.timers.disarm(timer),
        }
    }

    /// Looks round and lets the machine decide while the claim is held.
    fn check(&mut self, inputs: &mut VecDeque<Input>) {
        let Some(service) = &self.daemon.service else { return };
        let mut trouble = None;
        let mut files = lock(&service.files);
        let supervisor = service.supervisor.read(None);
        let blind =
            Finding::Seen { newer: false, lost_file: false, claims_moved: false, supervisor };
        let finding = match files.lock_file.try_claim(&service.world) {
            Ok(Attempt::HeldBy(_)) => Ok(Finding::ClaimHeld),
            Ok(Attempt::Claimed) => service.look(&mut files, supervisor),
            Err(error) => Err(error),
        };
        let finding = finding.unwrap_or_else(|error| {
            trouble = Some(error);
            blind
        });
        let outputs = self.decide(Input::Checked(finding));
        if outputs.contains(&Output::PutBack) {
            trouble = service.put_back(&mut files).err().or(trouble);
        }
        if files.lock_file.is_held() {
            files.lock_file.give_up();
        }
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
        let (through, wait) = mpsc::channel();
        let hooks = thread::Builder::new().name("seamless-hammer".to_owned()).spawn(move || {
            run_hooks(&HAMMER_HOOKS, "on_hammer");
            _ = through.send(());
        });
        if hooks.is_ok() {
            _ = wait.recv_timeout(HAMMER_HOOKS_TIME);
        }
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
        Input::Restart => "restart()",
        Input::RequestHooksDone => "on_shutdown_request",
        Input::DrainHooksDone => "on_shutdown",
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
