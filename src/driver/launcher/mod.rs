//! Drives the launcher. It returns to the program only if nothing could be started, with the error.
//!
//! `member` starts the program again, `perform` does what the machines want, `progress` logs the stages
//! of the service and tells its daemon of them, `held` holds sockets, `keep` gives them to a keeper, and
//! `older` ends the older generations if no daemon is left that could.

mod held;
mod keep;
mod member;
mod older;
mod perform;
mod progress;
mod warnings;

use crate::driver::launcher::held::Keeping;
use crate::driver::launcher::member::{Again, Member};
use crate::driver::log::{self, launcher::Event};
use crate::driver::observers::{s6, systemd};
use crate::driver::retry;
use crate::driver::settings::Settings;
use crate::driver::threads::Asked;
use crate::driver::timers::Timers;
use crate::driver::unix_socket_error;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::Report;
use crate::proto::channel::{Aside, MESSAGE_MAX};
use crate::proto::generation::crowd::Crowd;
use crate::proto::launcher::{Child, InPlace, Input, Launcher, Timer};
use crate::proto::supervisor::notices::{self, Limits, Notices};
use crate::shutdown::Hook;
use crate::sys::process::Held;
use crate::sys::seqpacket::{Arrival, Link};
use crate::sys::signals::{self, SIGCONT, SIGPIPE, SIGTERM, SIGUSR2, Signals};
use crate::sys::supervisor::Supervisor;
use crate::sys::{launch, process, wait};
use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Returns an error if nothing could be started. `is_relative`: the program has named the PID file by a
/// relative path.
pub(in crate::driver) fn launch(mut settings: Settings, is_relative: bool) -> Result<()> {
    let supervisor = Supervisor::find(settings.parent_restarts).map_err(|error| {
        Error::io(ErrorKind::System, "cannot look at the supervisor (launch)", error)
    })?;
    s6::hold(&settings)?;
    let (meant, passed) = signals::for_launcher(settings.release_signal, &settings.reload_signals);
    let signals = Signals::install(&meant, &passed).map_err(|error| {
        unix_socket_error(ErrorKind::System, "cannot install handlers (launch)", error)
    })?;
    // What the supervisor blocked would never arrive, here or in the daemon.
    signals::unblock_all();
    let again = Again::new(&settings, is_relative);
    match again.start(&mut settings, &supervisor) {
        Ok(first) => run(settings, supervisor, signals, again, first),
        Err(error) => {
            signals.uninstall();
            Err(error)
        }
    }
}

/// Timers of the machine, and those of what supervisors are told.
#[derive(Clone, Copy, PartialEq)]
enum Due {
    Machine(Timer),
    Notices(notices::Timer),
}

struct Driver {
    machine: Launcher,
    timers: Timers<Due>,
    inputs: VecDeque<Input>,
    settings: Settings,
    /// Those that live, the oldest first.
    members: Vec<Member>,
    again: Again,
    keeping: Keeping,
    /// Older generations whose end is awaited.
    older: Vec<Held>,
    /// Why the program could not be executed again.
    not_executed: Option<Error>,
    supervisor: Arc<Supervisor>,
    /// What it has been asked.
    asking: Option<Asked>,
    notices: Notices,
    /// When the last TERM came.
    asked: Option<Instant>,
    /// When the last reload began.
    reloading: Option<Instant>,
    /// How long the last start took that has succeeded.
    start_took: Duration,
}

fn run(
    mut settings: Settings,
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
    keep.extend(s6::number());
    let threads = launch::close_all_but(&keep);
    launch::trim_memory();
    let daemon = first.daemon.pid();
    log::write(Event::Launch {
        daemon,
        supervisor: supervisor.pid(),
        supervisor_kind: supervisor.kind.name,
    });
    if let Some(reason) = supervisor.nobody_because {
        log::write(Event::LaunchedByNobody { parent_name: supervisor.name.as_deref(), reason });
    }
    if supervisor.is_gone() {
        log::write(Event::LaunchAbandoned {});
    }
    if supervisor.is_script() {
        log::write(Event::LaunchedByScript { parent_name: supervisor.name.as_deref() });
    }
    warnings::warn_at_launch(&supervisor, &again, threads);
    run_hooks(std::mem::take(&mut settings.on_launch));
    let max_draining = settings.crowd().and_then(Crowd::most_of_launcher);
    let in_place = again.in_place.then_some(InPlace { max_draining });
    let limits = Limits { handoff: settings.handoff_timeout, drain: settings.drain_timeout };
    let mut driver = Driver {
        machine: Launcher::new(supervisor.kind, supervisor.pid(), daemon, in_place),
        notices: Notices::new(systemd::listener(), daemon, limits),
        timers: Timers::new(),
        inputs: VecDeque::new(),
        settings,
        members: vec![first],
        again,
        keeping: Keeping::default(),
        older: Vec::new(),
        not_executed: None,
        supervisor: Arc::new(supervisor),
        asking: None,
        asked: None,
        reloading: None,
        start_took: Duration::ZERO,
    };
    driver.notify(notices::Input::Launched, None);
    loop {
        driver.step(&mut signals);
    }
}

fn run_hooks(hooks: Vec<Hook>) {
    let stage = crate::shutdown::HookList::new();
    for hook in hooks {
        stage.add(hook);
    }
    stage.run(|panic| log::write(Event::LaunchHookPanicked { panic }));
}

impl Driver {
    /// Sleeps until something happens, then feeds in all of it: the channels first.
    fn step(&mut self, signals: &mut Signals) {
        let mut fds = signals.readers();
        fds.extend(self.members.iter().filter_map(|one| one.channel.as_ref()).map(AsFd::as_fd));
        fds.extend(self.asking.as_ref().map(AsFd::as_fd));
        fds.extend(self.keeping.fds());
        fds.extend(self.older.iter().map(AsFd::as_fd));
        let resend = (!self.keeping.unsent.is_empty()).then_some(retry::LATER);
        wait::readable(&fds, self.timers.next().into_iter().chain(resend).min());
        // The signals are taken before the channels are read: what was written before a signal was
        // sent is then certain to be seen before the signal is acted on.
        let arrived = signals.pending();
        for pid in self.pids() {
            self.read_channel(pid);
        }
        for received in arrived {
            self.signal(received);
        }
        self.send_unsent();
        self.look_at_keeper();
        // The kernel may merge its own CHLD with one that a daemon has sent, so all daemons are asked.
        for pid in self.pids() {
            let ended = self.member(pid).and_then(|member| member.daemon.ended());
            if let Some(end) = ended {
                self.read_channel(pid);
                // From here on the PID may belong to another process.
                self.members.retain(|one| one.daemon.pid() != pid);
                self.feed(Input::Ended(pid, end));
            }
        }
        launch::reap_orphans(|pid| {
            self.keeping.is_keeper(pid) || self.members.iter().any(|one| one.daemon.pid() == pid)
        });
        self.look_at_older();
        if let Some(reading) = self.asking.as_mut().and_then(Asked::answer) {
            self.asking = None;
            if self.supervisor.is_going_down() {
                self.notify(notices::Input::GoingDown, None);
            }
            self.feed(Input::Status(reading));
        }
        while let Some(due) = self.timers.due() {
            match due {
                Due::Machine(timer) => self.feed(Input::Timer(timer)),
                Due::Notices(timer) => self.notify(notices::Input::Timer(timer), None),
            }
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
                        self.reported(pid, report, &message.bytes);
                    }
                    Ok(None) => {
                        let Some(message) = self.take_given(pid, message) else { continue };
                        if let Some(aside) = Aside::parse(&message.bytes) {
                            if aside == Aside::NoKeeper {
                                self.feed(Input::NeedsNoKeeper(pid));
                            }
                            let fd = message.fds.first();
                            self.notify(notices::Input::Aside(pid, aside), fd);
                        }
                    }
                    Err(refused) => log::write(Event::ChannelRefused { refused: &refused }),
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

    fn reported(&mut self, pid: Child, report: Report, message: &[u8]) {
        log::write(Event::Report { daemon: pid, report: report.name() });
        if let Some(member) = self.member(pid) {
            match report {
                Report::Started => {
                    let limit = Report::drain_timeout(message);
                    member.drain_timeout = limit;
                    self.start_took = member.since.elapsed();
                    self.notify(notices::Input::DrainTimeout(limit), None);
                }
                Report::Leaving => {
                    let leave = Report::leave_time(message);
                    member.leaves_for = leave;
                    self.notify(notices::Input::LeaveTime(leave), None);
                }
                Report::Draining => member.leaves_for = Duration::ZERO,
                _ => {}
            }
        }
        self.notify(notices::Input::Report(report), None);
        self.feed(Input::Report(pid, report));
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
                self.feed(Input::Signal { signal: SIGCONT, to_all: false });
            }
            // Our own write to a pipe that is closed, say of the log.
            SIGPIPE if from == process::own_pid() => {}
            // The release, which the channel has told already.
            signal if signal == self.settings.release_signal && self.member(from).is_some() => {}
            signal if self.settings.reload_signals.contains(&signal) => {
                log::write(Event::Reload { signal });
                self.feed(Input::Reload);
            }
            SIGUSR2 => self.feed(Input::Restart(SIGUSR2)),
            signal if signals::HALTS.contains(&signal) => {
                self.asked = Some(Instant::now());
                self.feed(Input::Halt(signal));
            }
            signal => {
                let to_all = self.settings.signals_to_all.contains(&signal);
                self.feed(Input::Signal { signal, to_all });
            }
        }
    }

    fn notify(&mut self, input: notices::Input, fd: Option<&OwnedFd>) {
        for notice in self.notices.on(input) {
            self.perform_notice(&notice, fd);
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
}
