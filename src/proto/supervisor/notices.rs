//! What a supervisor is told of the service, and when: systemd with `sd_notify(3)`, s6 over the
//! descriptor for readiness.
//!
//! A launcher has a machine for it, [`Notices`]: it hears what the launcher's own machine puts out and
//! what daemons report. Nothing that it does changes what the launcher does. A process without a
//! launcher has two occasions only, [`serves_alone`] and [`drains_alone`].

use crate::proto::channel::Aside;
use crate::proto::launcher::{Child, Output, Progress};
use crate::proto::{End, Report};
use std::time::Duration;

/// How much longer systemd is asked to wait for something, each time that it is asked.
const EXTENSION: Duration = Duration::from_secs(10);
/// How often systemd is asked.
pub(crate) const EXTEND_EVERY: Duration = Duration::from_secs(3);
/// How long a daemon may take to end by the watchdog's ABRT. Then it is KILLed: a daemon that is
/// stopped, or hangs in the kernel, would be in its successor's way.
const ABORT: Duration = Duration::from_secs(2);
/// The number of the signal that systemd's watchdog sends, on each Linux.
const ABRT: i32 = 6;

/// Who listens at NOTIFY_SOCKET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    /// The time within which its watchdog wants a sign of life.
    pub(crate) watchdog: Option<Duration>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// The first daemon has been started.
    Launched,
    /// The launcher is about to do this.
    Performing(Output),
    /// A daemon has reported this.
    Report(Report),
    /// How long the drain of the daemon that serves may take.
    DrainTimeout(Option<Duration>),
    /// For so long a daemon that is to end serves on before its drain.
    LeaveTime(Duration),
    /// The system is about to go down.
    GoingDown,
    /// This daemon has sent a message beside the protocol.
    Aside(Child, Aside),
    Timer(Timer),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The next sign of life is wanted.
    Ask,
    /// This daemon has had the time to end by the watchdog's signal.
    Kill(Child),
    /// The limit that the service itself has for what it waits for is over.
    Limit,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// One message to systemd.
    Say(Vec<Word>),
    /// Put the descriptor that came with the message into systemd's store, under this name.
    Store(String),
    /// Remove what is stored under this name.
    Remove(String),
    /// The service is ready: for the descriptor that s6 reads from. Only the first one counts.
    Readiness,
    /// Ask this daemon for a sign of life. If it has ended, ask the youngest one.
    Ask(Child),
    /// KILL this daemon: it has outlived the watchdog's signal.
    Kill(Child),
    Arm(Timer, Duration),
    Disarm(Timer),
}

/// A part of a message to systemd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Ready,
    /// The process that speaks. systemd does not know it if it started a script that did not `exec` it.
    MainPid,
    /// With the time of now: systemd takes the next `Ready` for the end of this reload, and not of an
    /// earlier one (MONOTONIC_USEC).
    Reloading,
    Stopping,
    Status(String),
    Watchdog,
    ExtendTimeout(Duration),
}

/// What the service does, as systemd sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No daemon serves.
    Starting,
    Serving,
    /// A daemon serves, and the next one starts.
    Reloading,
}

/// Does the service wait for something that systemd has a time limit for? There is no way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wait {
    None,
    /// For a handoff.
    Handoff,
    /// For a drain.
    Drain,
    /// For a drain, and the service is to be down.
    Stop,
}

/// How long the service itself lets a handoff and a drain take. `None`: without a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) handoff: Duration,
    pub(crate) drain: Option<Duration>,
}

/// The launcher's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notices {
    listener: Option<Listener>,
    /// The daemon that serves, or is to be the first.
    daemon: Child,
    stage: Stage,
    wait: Wait,
    limits: Limits,
    /// How long the daemon that is to end serves on.
    leave: Duration,
    /// systemd is asked for more time: never for more than the service gives itself.
    extends: bool,
    going_down: bool,
    /// The watchdog's signal has been passed on to this daemon, whose time to end runs.
    aborted: Option<Child>,
}

impl Notices {
    /// `first`: the first daemon.
    pub(crate) fn new(listener: Option<Listener>, first: Child, limits: Limits) -> Notices {
        Notices {
            listener,
            daemon: first,
            stage: Stage::Starting,
            wait: Wait::None,
            limits,
            leave: Duration::ZERO,
            extends: false,
            going_down: false,
            aborted: None,
        }
    }

    #[must_use]
    pub(crate) fn on(&mut self, input: Input) -> Vec<Notice> {
        let mut out = Vec::new();
        match input {
            Input::Launched => self.launched(&mut out),
            Input::Performing(output) => self.performing(output, &mut out),
            Input::Report(Report::Waiting) => {
                out.push(status("stopping: older generations answer what is in flight".to_owned()));
            }
            Input::Report(
                Report::Ready
                | Report::Started
                | Report::Released
                | Report::TakenOver
                | Report::Leaving
                | Report::Draining
                | Report::Reload
                | Report::Prepared
                | Report::Unhandled
                | Report::Probation
                | Report::Committed
                | Report::RolledBack
                | Report::Resumed,
            ) => {}
            Input::Aside(child, aside) => self.aside(child, aside, &mut out),
            Input::DrainTimeout(limit) => self.limits.drain = limit,
            Input::LeaveTime(leave) => self.leave = leave,
            Input::GoingDown => {
                self.going_down = true;
                self.extends = false;
            }
            Input::Timer(Timer::Limit) => self.extends = false,
            Input::Timer(Timer::Ask) => self.ask(&mut out),
            Input::Timer(Timer::Kill(child)) => {
                if self.aborted.take_if(|aborted| *aborted == child).is_some() {
                    out.push(Notice::Kill(child));
                }
            }
        }
        if self.listener.is_none() {
            out.retain(|notice| *notice == Notice::Readiness);
        }
        out
    }

    fn watchdog(&self) -> Option<Duration> {
        self.listener?.watchdog
    }

    fn launched(&self, out: &mut Vec<Notice>) {
        let text = format!("starting: daemon {}", self.daemon);
        out.push(Notice::Say(vec![Word::Status(text), Word::Watchdog]));
        if self.watchdog().is_some() {
            out.push(Notice::Arm(Timer::Ask, Duration::ZERO));
        }
    }

    fn performing(&mut self, output: Output, out: &mut Vec<Notice>) {
        match output {
            Output::Handoff(child) => {
                out.push(status(format!("handing off: daemon {child} serves on")));
                self.wait_for(Wait::Handoff, out);
            }
            Output::Forward(child, signal) => {
                let is_watchdog = signal == ABRT && self.watchdog().is_some();
                if is_watchdog && child == self.daemon && self.aborted.is_none() {
                    self.aborted = Some(child);
                    out.push(Notice::Arm(Timer::Kill(child), ABORT));
                }
            }
            Output::Leave { child, expired: _ } => out.push(status(format!(
                "detached: daemon {child} serves on until a successor is ready"
            ))),
            Output::Mirror(child, end) => {
                let (how, number) = match end {
                    End::Code(code) => ("exit code", code),
                    End::Signal(signal) => ("signal", signal),
                };
                out.push(status(format!("ended: daemon {child} with {how} {number}")));
            }
            Output::Progress(progress) => self.progress(progress, out),
            Output::ReadStatus
            | Output::Tell(..)
            | Output::Stop(_)
            | Output::Cancel(_)
            | Output::TellTakenOver(_)
            | Output::Prepare(_)
            | Output::ForwardIfHandled(..)
            | Output::Kill(..)
            | Output::Start
            | Output::DropSockets(_)
            | Output::PassSockets { .. }
            | Output::Keep(_)
            | Output::EndKeeper
            | Output::KillKeeper
            | Output::StopOlder
            | Output::Arm(_)
            | Output::Disarm(_) => {}
        }
    }

    fn progress(&mut self, progress: Progress, out: &mut Vec<Notice>) {
        let daemon = self.daemon;
        match (progress, self.stage) {
            (Progress::Reloading, Stage::Starting) => out.push(reloading()),
            (Progress::Reloading, Stage::Serving | Stage::Reloading) => {
                self.stage = Stage::Reloading;
                out.push(reloading());
            }
            (Progress::Serving(child), _) => {
                (self.daemon, self.stage) = (child, Stage::Serving);
                out.extend([serving(format!("serving: daemon {child}")), Notice::Readiness]);
            }
            (Progress::ReloadFailed(_), Stage::Serving | Stage::Reloading) => {
                self.stage = Stage::Serving;
                out.push(serving(format!("serving: daemon {daemon}; the last reload failed")));
            }
            // systemd waits for the end of a reload of which it has not heard yet.
            (Progress::ReloadRefused(_), Stage::Serving) => {
                let text = format!("serving: daemon {daemon}; the last reload was refused");
                out.extend([reloading(), serving(text)]);
            }
            // The reload that is under way ends with words of its own, and so does a start.
            (Progress::ReloadRefused(_), Stage::Reloading | Stage::Starting)
            | (Progress::ReloadFailed(_), Stage::Starting) => {}
            (Progress::CurrentEnded(child, _), _) => {
                self.stage = Stage::Starting;
                out.push(status(format!("starting: daemon {child} has ended meanwhile")));
                // From here on the number may be another process's.
                if self.aborted.take_if(|aborted| *aborted == child).is_some() {
                    out.push(Notice::Disarm(Timer::Kill(child)));
                }
            }
            (Progress::Leaving(child), _) => {
                let text =
                    format!("stopping: daemon {child} serves on until balancers have noticed");
                out.push(Notice::Say(vec![Word::Stopping, Word::Status(text)]));
                self.wait_for(Wait::Stop, out);
                // The stop was known before how long it leaves.
                if let Some(drain) = self.limits.drain.filter(|_| self.extends) {
                    let limit = drain.saturating_add(self.leave);
                    out.push(Notice::Arm(Timer::Limit, limit));
                }
            }
            (Progress::Draining(child), _) => {
                let what = match self.wait {
                    Wait::Stop => "stopping",
                    Wait::None | Wait::Handoff | Wait::Drain => "draining",
                };
                out.push(status(format!("{what}: daemon {child} answers what is in flight")));
                self.wait_for(Wait::Drain, out);
            }
            (Progress::Stopping(child), _) => {
                let text = format!("stopping: daemon {child} answers what is in flight");
                out.push(Notice::Say(vec![Word::Stopping, Word::Status(text)]));
                self.wait_for(Wait::Stop, out);
            }
        }
    }

    fn aside(&self, child: Child, aside: Aside, out: &mut Vec<Notice>) {
        match aside {
            // If no daemon serves, each daemon that is starting may answer.
            Aside::Alive if child == self.daemon || self.stage == Stage::Starting => {
                let mut words = vec![Word::Watchdog];
                if self.extends {
                    words.push(Word::ExtendTimeout(EXTENSION));
                }
                out.push(Notice::Say(words));
            }
            Aside::Alive => {}
            Aside::Store(name) => out.push(Notice::Store(name)),
            Aside::Remove(name) => out.push(Notice::Remove(name)),
            // It ends by its own clock, after a minute at most.
            Aside::Waits(left) => {
                let seconds = left.as_secs_f64().ceil();
                let text = format!(
                    "waiting: this program has failed in its probation, and is tried again in {seconds} s"
                );
                out.push(Notice::Say(match self.going_down {
                    true => vec![Word::Status(text)],
                    false => {
                        vec![
                            Word::ExtendTimeout(left.saturating_add(EXTENSION)),
                            Word::Status(text),
                        ]
                    }
                }));
            }
            Aside::NoKeeper | Aside::InPlace => {} // nothing for a supervisor
        }
    }

    /// Asks now, and again in time for the watchdog and for the next extension.
    fn ask(&self, out: &mut Vec<Notice>) {
        let half = self.watchdog().map(|time| time / 2);
        let every = self.extends.then_some(EXTEND_EVERY);
        if let Some(again) = half.into_iter().chain(every).min() {
            out.push(Notice::Arm(Timer::Ask, again));
        }
        out.push(Notice::Ask(self.daemon));
    }

    /// From here on systemd's time limit is extended, as long as the daemon shows that it lives, and at most
    /// for as long as the service itself lets it take. Without a limit of its own, and while the system goes
    /// down, systemd's limit counts: a stop has to end.
    fn wait_for(&mut self, wait: Wait, out: &mut Vec<Notice>) {
        if wait <= self.wait {
            return;
        }
        self.wait = wait;
        let limit = match wait {
            Wait::None => None,
            Wait::Handoff => Some(self.limits.handoff),
            Wait::Drain | Wait::Stop => self.limits.drain,
        };
        let extended = std::mem::replace(&mut self.extends, limit.is_some() && !self.going_down);
        if let Some(limit) = limit.filter(|_| self.extends) {
            out.push(Notice::Arm(Timer::Limit, limit));
            if !extended {
                // It is not known yet how soon the daemon answers, and the limit may be short.
                out.extend([extend(), Notice::Arm(Timer::Ask, Duration::ZERO)]);
            }
        }
    }
}

fn status(text: String) -> Notice {
    Notice::Say(vec![Word::Status(text)])
}

pub(crate) fn extend() -> Notice {
    Notice::Say(vec![Word::ExtendTimeout(EXTENSION)])
}

fn reloading() -> Notice {
    let text = "reloading: the next generation starts".to_owned();
    Notice::Say(vec![Word::Reloading, Word::Status(text)])
}

fn serving(text: String) -> Notice {
    Notice::Say(vec![Word::Ready, Word::MainPid, Word::Status(text), Word::Watchdog])
}

// ---- without a launcher ----

/// The process serves.
pub(crate) fn serves_alone() -> Notice {
    Notice::Say(vec![Word::Ready, Word::Status("serving".to_owned())])
}

/// The drain has begun. If it has a limit, [`extend`] follows now, and then again each [`EXTEND_EVERY`] until the
/// limit is over.
pub(crate) fn drains_alone() -> Notice {
    let text = "stopping: what is in flight is answered".to_owned();
    Notice::Say(vec![Word::Stopping, Word::Status(text)])
}

#[cfg(test)]
mod tests;
