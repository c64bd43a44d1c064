//! Drives the launcher. It never returns to the program but with an error, before anything was
//! started.
//!
//! [`Driver::progress`] is the one place where the stages of the service are known by name: what tells
//! somebody of them belongs there.

mod observers;
mod warnings;

use crate::driver::launcher::observers::systemd::{self as notify, Notifier};
use crate::driver::log::{Maybe, note};
use crate::driver::notification_fd;
use crate::driver::retry;
use crate::driver::settings::Settings;
use crate::driver::threads::Asked;
use crate::driver::timers::Timers;
use crate::error::{Error, ErrorKind};
use crate::proto::channel::{MESSAGE_MAX, ToDaemon};
use crate::proto::launcher::{
    Child, Failure, InPlace, Input, Launcher, Output, Progress, Refusal, Timer,
};
use crate::proto::{End, Report};
use crate::shutdown::Hook;
use crate::sys::seqpacket::{Arrival, Link};
use crate::sys::signals::{self, SIGCONT, SIGKILL, SIGPIPE, SIGTERM, SIGUSR2, Signals};
use crate::sys::supervisor::Supervisor;
use crate::sys::{launch, process, wait};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A CONT that is further from its TERM belongs to something else; and the supervisors that write
/// their status after the signals need half of that.
const SETTLE: Duration = Duration::from_millis(20);
/// How much longer than its own `drain_timeout` an attached daemon may live.
const KILL_AFTER: Duration = Duration::from_secs(5);

/// How long after its successor has started a daemon may serve on before it is told once more: as
/// long as a detached one needs to find out.
const OVERDUE: Duration = Duration::from_secs(1);

pub(in crate::driver) fn launch(settings: Settings) -> Error {
    let supervisor = match Supervisor::find() {
        Ok(supervisor) => supervisor,
        Err(error) => {
            let text = "cannot look at the supervisor (launch)";
            return Error::io(ErrorKind::System, text, error);
        }
    };
    if let Err(error) = notification_fd::hold(&settings) {
        return error;
    }
    let (meant, passed) = signals::for_launcher(settings.release_signal, &settings.reload_signals);
    let signals = match Signals::install(&meant, &passed) {
        Ok(signals) => signals,
        Err(error) => {
            return Error::io(ErrorKind::System, "cannot install handlers (launch)", error);
        }
    };
    // What the supervisor blocked would never arrive, here or in the daemon.
    signals::unblock_all();
    let in_place = !settings.reload_signals.is_empty();
    let again = Again {
        in_place,
        executed_by: launch::executed_by().filter(|_| in_place),
        drain_timeout: settings.drain_timeout,
    };
    match again.start(&supervisor, launch::program) {
        Ok(first) => run(settings, supervisor, signals, again, first),
        Err(error) => {
            signals.uninstall();
            error
        }
    }
}

/// What it takes to start the program again.
struct Again {
    in_place: bool,
    /// For a restart in place.
    executed_by: Option<PathBuf>,
    drain_timeout: Option<Duration>,
}

impl Again {
    /// The handlers are installed by now: a signal that comes while the daemon is being started is
    /// not lost. The hello waits in the channel when the daemon first looks.
    fn start(
        &self,
        supervisor: &Supervisor,
        program: impl FnOnce() -> io::Result<PathBuf>,
    ) -> Result<Member, Error> {
        let (ours, theirs) = Link::pair().map_err(|error| {
            Error::io(ErrorKind::Channel, "cannot make the channel (launch)", error)
        })?;
        let (hello, pidfd) = supervisor.hello(self.in_place);
        ours.send(&ToDaemon::Hello(hello).format(), pidfd.as_slice()).map_err(|error| {
            Error::io(ErrorKind::Channel, "cannot use the channel (launch)", error)
        })?;
        let program = program().map_err(|error| {
            Error::io(ErrorKind::Launch, "cannot find the program's file (launch)", error)
        })?;
        let daemon = launch::spawn(&program, &theirs).map_err(|error| {
            Error::io(ErrorKind::Launch, format!("cannot start {program:?} again (launch)"), error)
        })?;
        Ok(Member { daemon, channel: Some(ours), drain_timeout: self.drain_timeout })
    }

    /// From the file as it is now.
    fn program(&self) -> io::Result<PathBuf> {
        self.executed_by.clone().map_or_else(launch::program, Ok)
    }
}

/// A daemon of this launcher.
struct Member {
    daemon: launch::Daemon,
    /// `None` once its end of it is closed.
    channel: Option<Link>,
    /// How long its drain may take: as this program is configured, until it has said so itself. A
    /// server has a limit of its own, and in place another program may have been started.
    drain_timeout: Option<Duration>,
}

struct Driver {
    machine: Launcher,
    timers: Timers<Timer>,
    inputs: VecDeque<Input>,
    /// Those that live, the oldest first.
    members: Vec<Member>,
    again: Again,
    /// Why the program could not be executed again.
    not_executed: Option<Error>,
    supervisor: Arc<Supervisor>,
    /// What it has been asked.
    asking: Option<Asked>,
    release_signal: i32,
    reload_signals: Vec<i32>,
    release_code: i32,
    handoff_timeout: Duration,
    notifier: Notifier,
    /// When the last TERM came.
    asked: Option<Instant>,
    /// When the last reload began.
    reloading: Option<Instant>,
}

fn run(
    settings: Settings,
    supervisor: Supervisor,
    mut signals: Signals,
    again: Again,
    first: Member,
) -> ! {
    let mut keep = signals.fds().to_vec();
    keep.extend(&settings.keep_open);
    keep.extend(first.channel.as_ref().map(Link::number));
    keep.extend(first.daemon.number());
    keep.extend(supervisor.hello(again.in_place).1.map(|pidfd| pidfd.as_raw_fd()));
    if again.in_place {
        keep.extend(launch::inheritable());
    }
    keep.extend(notification_fd::number());
    launch::close_all_but(&keep);
    launch::trim_memory();
    let daemon = first.daemon.pid();
    note!(
        Info,
        "stage=launch launcher={} daemon={daemon} supervisor={} supervisor_kind={}",
        process::own_pid(),
        Maybe(supervisor.pid()),
        supervisor.kind.name(),
    );
    if supervisor.is_gone() {
        note!(
            Warn,
            "stage=launch launcher={} reason=\"the supervisor has ended already: nobody restarts this \
             launcher\"",
            process::own_pid(),
        );
    }
    if supervisor.is_script() {
        note!(
            Warn,
            "stage=launch launcher={} parent_name={} reason=\"started by a shell script without \
             exec: the supervisor's TERM ends the shell and never arrives here\"",
            process::own_pid(),
            Maybe(supervisor.name.as_deref()),
        );
    }
    warnings::warn_at_launch(&supervisor);
    run_hooks(settings.on_launch);
    let in_place = again.in_place.then_some(InPlace { max_draining: settings.max_draining });
    let mut driver = Driver {
        machine: Launcher::new(supervisor.kind, supervisor.pid(), daemon, in_place),
        notifier: Notifier::new(daemon),
        timers: Timers::new(),
        inputs: VecDeque::new(),
        members: vec![first],
        again,
        not_executed: None,
        supervisor: Arc::new(supervisor),
        asking: None,
        release_signal: settings.release_signal,
        reload_signals: settings.reload_signals,
        release_code: settings.release_code,
        handoff_timeout: settings.handoff_timeout,
        asked: None,
        reloading: None,
    };
    loop {
        driver.step(&mut signals);
    }
}

fn run_hooks(hooks: Vec<Hook>) {
    let stage = crate::shutdown::HookList::new();
    for hook in hooks {
        stage.add(hook);
    }
    stage.run(|panic| note!(Error, "stage=launch hook=on_launch panic={panic:?}"));
}

impl Driver {
    /// Sleeps until something happens, then feeds in all of it: the channels first.
    fn step(&mut self, signals: &mut Signals) {
        let mut fds = signals.readers();
        fds.extend(self.members.iter().filter_map(|one| one.channel.as_ref()).map(AsFd::as_fd));
        fds.extend(self.asking.as_ref().and_then(Asked::as_fd));
        wait::readable(&fds, self.timers.next().into_iter().chain(self.notifier.next()).min());
        // The signals are taken before the channels are read: what was written before a signal was
        // sent is then certain to be seen before the signal is acted on.
        let arrived = signals.pending();
        for pid in self.pids() {
            self.read_channel(pid);
        }
        for received in arrived {
            self.signal(received);
        }
        // Any CHLD may be the kernel's merged with a daemon's, or the other way round.
        for pid in self.pids() {
            let ended = self.member(pid).and_then(|member| member.daemon.ended());
            if let Some(end) = ended {
                self.read_channel(pid);
                // From here on the number may be another's.
                self.members.retain(|one| one.daemon.pid() != pid);
                self.feed(Input::Ended(pid, end));
            }
        }
        launch::reap_orphans(|pid| self.members.iter().any(|one| one.daemon.pid() == pid));
        if let Some(reading) = self.asking.as_mut().and_then(Asked::answer) {
            self.asking = None;
            self.feed(Input::Status(reading));
        }
        while let Some(timer) = self.timers.due() {
            self.feed(Input::Timer(timer));
        }
        while let Some(due) = self.notifier.due() {
            self.notify(due);
        }
        self.feed(Input::Quiet);
    }

    fn pids(&self) -> Vec<Child> {
        self.members.iter().map(|one| one.daemon.pid()).collect()
    }

    fn member(&mut self, pid: Child) -> Option<&mut Member> {
        self.members.iter_mut().find(|one| one.daemon.pid() == pid)
    }

    fn read_channel(&mut self, pid: Child) {
        while let Some(Member { channel: Some(channel), .. }) = self.member(pid) {
            match channel.receive(MESSAGE_MAX) {
                Arrival::Message(message) => match Report::parse(&message.bytes) {
                    Ok(Some(report)) => {
                        note!(
                            Debug,
                            "stage=report launcher={} daemon={pid} report={}",
                            process::own_pid(),
                            report.name(),
                        );
                        if let Some(member) = self.member(pid).filter(|_| report == Report::Started)
                        {
                            member.drain_timeout = Report::drain_timeout(&message.bytes);
                        }
                        self.notifier.reported(report);
                        self.feed(Input::Report(pid, report));
                    }
                    Ok(None) => {
                        let fd = message.fds.into_iter().next();
                        self.notifier.aside(pid, &message.bytes, fd);
                    }
                    Err(refused) => note!(Warn, "stage=channel refused={refused:?}"),
                },
                Arrival::Nothing | Arrival::OutOfMemory => return,
                Arrival::Closed => {
                    if let Some(member) = self.member(pid) {
                        member.channel = None;
                    }
                    self.feed(Input::ChannelClosed(pid));
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
            signals::SIGCHLD => {} // after every wake-up the channels are read and daemons waited for
            SIGCONT => {
                self.feed(Input::Cont { from });
                self.feed(Input::Signal(SIGCONT));
            }
            // Our own write to a pipe that is closed, say of the log.
            SIGPIPE if from == process::own_pid() => {}
            // The release, which the channel has told already.
            signal if signal == self.release_signal && self.member(from).is_some() => {}
            signal if self.reload_signals.contains(&signal) => {
                note!(Info, "stage=reload launcher={} signal={signal}", process::own_pid(),);
                self.feed(Input::Reload);
            }
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
        self.notifier.performing(&output);
        match output {
            Output::ReadStatus => {
                let mut asked = Asked::ask(&self.supervisor, Some(process::own_pid()));
                match asked.answer() {
                    Some(reading) => self.inputs.push_back(Input::Status(reading)),
                    None => self.asking = Some(asked),
                }
            }
            Output::Tell(pid, intent) => {
                self.tell(pid, "tell the intent", &ToDaemon::Intent(intent));
                note!(
                    Debug,
                    "stage=intent launcher={} intent={}",
                    process::own_pid(),
                    intent.name(),
                );
            }
            Output::Handoff(pid) => {
                self.send(pid, SIGUSR2, "send USR2");
                note!(
                    Info,
                    "stage=handoff launcher={} daemon={pid} signal=USR2 elapsed_ms={}",
                    process::own_pid(),
                    elapsed_ms(self.asked),
                );
            }
            Output::Stop(pid) => {
                self.send(pid, SIGTERM, "send TERM");
                note!(
                    Info,
                    "stage=stop launcher={} daemon={pid} signal=TERM elapsed_ms={}",
                    process::own_pid(),
                    elapsed_ms(self.asked),
                );
            }
            Output::Cancel(pid) => {
                self.tell(pid, "cancel its start", &ToDaemon::Cancel);
                self.send(pid, SIGUSR2, "send USR2");
                note!(
                    Info,
                    "stage=cancel launcher={} daemon={pid} signal=USR2 reason=\"it was still \
                     starting\"",
                    process::own_pid(),
                );
            }
            Output::TellTakenOver(pid) => {
                self.tell(pid, "tell of a takeover", &ToDaemon::TakenOver);
                note!(
                    Info,
                    "stage=takeover launcher={} predecessor={pid} reason=\"its successor's TERM did \
                     not reach it\"",
                    process::own_pid(),
                );
            }
            Output::Kill(pid, timer) => {
                let limit = match timer {
                    Timer::Handoff => "handoff_timeout, and no handlers installed",
                    Timer::Cancel => "handoff_timeout, and its start was cancelled",
                    Timer::Kill(_) => "drain_timeout and 5 s",
                    Timer::Cont | Timer::Settle | Timer::Overdue => "none",
                };
                note!(
                    Error,
                    "stage=kill launcher={} daemon={pid} signal=KILL limit={limit:?} elapsed_ms={}",
                    process::own_pid(),
                    elapsed_ms(self.asked),
                );
                self.send(pid, SIGKILL, "send KILL");
            }
            Output::Forward(pid, signal) => {
                self.send(pid, signal, "pass on a signal");
                note!(
                    Debug,
                    "stage=forward launcher={} daemon={pid} signal={signal}",
                    process::own_pid(),
                );
            }
            Output::Start => self.start(),
            Output::Progress(progress) => self.progress(progress),
            Output::Arm(timer) => {
                let after = match timer {
                    Timer::Cont | Timer::Settle => Some(SETTLE),
                    Timer::Handoff | Timer::Cancel => Some(self.handoff_timeout),
                    Timer::Overdue => Some(OVERDUE),
                    Timer::Kill(pid) => {
                        let limit = self.member(pid).and_then(|member| member.drain_timeout);
                        limit.map(|limit| limit.saturating_add(KILL_AFTER))
                    }
                };
                if let Some(after) = after {
                    self.timers.arm(timer, after);
                }
            }
            Output::Disarm(timer) => self.timers.disarm(timer),
            Output::Leave { child, expired } => self.leave(child, expired),
            Output::Mirror(pid, end) => {
                let (how, number) = shown(end);
                note!(
                    Info,
                    "stage=end launcher={} daemon={pid} {how}={number} elapsed_ms={}",
                    process::own_pid(),
                    elapsed_ms(self.asked),
                );
                launch::end_as(end)
            }
        }
    }

    fn notify(&mut self, due: notify::Due) {
        match due {
            #[cfg(feature = "systemd")]
            notify::Due::Ask(pid) => {
                // The one that served may have ended, and the next be starting.
                let known = self.members.iter().find(|one| one.daemon.pid() == pid);
                if let Some(Member { channel: Some(channel), .. }) = known.or(self.members.last()) {
                    // One that is full has an answer waiting behind it.
                    _ = channel.send(&ToDaemon::Ask.format(), &[]);
                }
            }
            #[cfg(feature = "systemd")]
            notify::Due::Kill(pid) => self.send(pid, SIGKILL, "send KILL"),
        }
    }

    /// Starts the next generation.
    fn start(&mut self) {
        let started = self.again.start(&self.supervisor, || self.again.program());
        self.not_executed = None;
        let child = match started {
            Ok(member) => {
                let pid = member.daemon.pid();
                note!(Info, "stage=launch launcher={} daemon={pid}", process::own_pid());
                self.members.push(member);
                launch::trim_memory();
                Some(pid)
            }
            Err(error) => {
                self.not_executed = Some(error);
                None
            }
        };
        self.inputs.push_back(Input::Spawned(child));
    }

    /// What the service has come to.
    fn progress(&mut self, progress: Progress) {
        let launcher = process::own_pid();
        self.notifier.progress(progress);
        match progress {
            Progress::Reloading => self.reloading = Some(Instant::now()),
            Progress::Serving(pid) => {
                notification_fd::tell();
                if let Some(began) = self.reloading.take() {
                    note!(
                        Info,
                        "stage=reloaded launcher={launcher} daemon={pid} elapsed_ms={}",
                        elapsed_ms(Some(began)),
                    );
                }
            }
            Progress::ReloadFailed(failure) => {
                let why = match failure {
                    Failure::NotStarted => match self.not_executed.take() {
                        Some(error) => error.to_string(),
                        None => "the program could not be executed".to_owned(),
                    },
                    Failure::Ended(pid, end) => {
                        let (how, number) = shown(end);
                        format!("daemon {pid} ended before it had taken over: {how} {number}")
                    }
                };
                note!(
                    Warn,
                    "stage=reload-failed launcher={launcher} current={} elapsed_ms={} reason={why:?}",
                    Maybe(self.machine.current()),
                    elapsed_ms(self.reloading.take()),
                );
                self.tell_current(&why);
            }
            Progress::ReloadRefused(refusal) => {
                let why = match refusal {
                    Refusal::Draining => "as many generations drain as max_draining allows",
                    Refusal::Leaving => "the launcher was told to restart or to stop",
                };
                note!(
                    Warn,
                    "stage=reload-failed launcher={launcher} current={} elapsed_ms=- refused={why:?}",
                    Maybe(self.machine.current()),
                );
                self.tell_current(why);
            }
            Progress::CurrentEnded(pid, end) => {
                let (how, number) = shown(end);
                note!(
                    Warn,
                    "stage=current-ended launcher={launcher} daemon={pid} {how}={number} \
                     reason=\"another one is starting: its outcome is awaited\"",
                );
            }
            // Each daemon logs its own drain, and the signal of a stop has been logged.
            Progress::Draining(_) | Progress::Stopping(_) => {}
        }
    }

    /// The generation that stays knows why it does.
    fn tell_current(&mut self, why: &str) {
        if let Some(pid) = self.machine.current() {
            let message = ToDaemon::reload_failed(why);
            self.tell(pid, "tell of a failed restart", &message);
        }
    }

    fn tell(&mut self, pid: Child, step: &str, message: &ToDaemon) {
        let told = match self.member(pid) {
            Some(Member { channel: Some(channel), .. }) => {
                // The signal that follows means less without it.
                retry::within(retry::TO_DAEMON, || channel.send(&message.format(), &[]))
            }
            Some(_) | None => Err(io::ErrorKind::NotConnected.into()),
        };
        note_failure(pid, step, told);
    }

    fn send(&mut self, pid: Child, signal: i32, step: &str) {
        if let Some(member) = self.member(pid) {
            let sent = member.daemon.signal(signal);
            note_failure(pid, step, sent);
        }
    }

    fn leave(&self, pid: Child, expired: bool) -> ! {
        if expired {
            note!(
                Warn,
                "stage=release launcher={} daemon={pid} elapsed_ms={} reason=\"handoff_timeout: the \
                 daemon did not release its launcher and serves on detached\"",
                process::own_pid(),
                elapsed_ms(self.asked),
            );
        } else {
            note!(
                Info,
                "stage=release launcher={} daemon={pid} elapsed_ms={}",
                process::own_pid(),
                elapsed_ms(self.asked),
            );
        }
        warnings::warn_at_release(&self.supervisor, self.release_code, self.asked.is_some());
        launch::end_as(End::Code(self.release_code))
    }
}

/// How a process ended, as it is logged.
fn shown(end: End) -> (&'static str, i32) {
    match end {
        End::Code(code) => ("exit_code", code),
        End::Signal(signal) => ("signal", signal),
    }
}

fn note_failure(pid: Child, step: &str, result: io::Result<()>) {
    if let Err(error) = result {
        note!(
            Warn,
            "stage=launcher launcher={} daemon={pid} step={step:?} error=\"{error}\"",
            process::own_pid(),
        );
    }
}

/// `-` where it has not begun.
fn elapsed_ms(since: Option<Instant>) -> Maybe<String> {
    Maybe(since.map(|since| format!("{:.1}", since.elapsed().as_secs_f64() * 1e3)))
}
