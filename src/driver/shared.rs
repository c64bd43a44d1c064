//! What the threads of this process share: one static, [`PROCESS`].
//!
//! # Lock order
//!
//! A thread that holds one of these locks takes only locks that stand below it:
//!
//! 1. `Service::announcing`: a call of `started`
//! 2. `Sockets::asking`, then `Sockets::taking`: a call for sockets, and a transfer of sockets and state
//! 3. `Service::files`: the lock file and the PID file
//! 4. `Tickets` and `Counters`, then `Sockets::held`: the counters, and the pool of sockets
//! 5. `Daemon::machine`
//! 6. all others (`inputs`, `unsent`, `to_launcher`, `past`, `candidates`, `waits_at`, the hooks, the server's, those of `Connections`), of
//!    which a thread holds one at a time
//!
//! No lock is held while code of the program runs, except by the hook or the kind of connections that it belongs
//! to. A logger may run while some are held, as in a transfer.

use crate::driver::control::Server;
use crate::driver::counters::Counters;
use crate::driver::daemon::hooks::Hooks;
use crate::driver::generation::Service;
use crate::driver::generation::probation::{Candidate, Partner};
use crate::driver::handed::Handed;
use crate::driver::log::{self, daemon::Event};
use crate::driver::observers;
use crate::driver::passing::Connections;
use crate::driver::settings::Check;
use crate::driver::sockets::Sockets;
use crate::driver::sockets::given::{FromLauncher, Unsent};
#[cfg(feature = "tls")]
use crate::driver::tickets::Tickets;
use crate::proto::daemon::leaving::{Limits, Plan};
use crate::proto::daemon::{Daemon as Machine, Event as ProbationEvent, Input, Phase};
use crate::proto::{Report, State};
use crate::shutdown::{HookList, Shutdown, lock};
use crate::states::Changes;
use crate::sys::notification_fd::Notification;
use crate::sys::seqpacket::Link;
use crate::sys::shortage::is_shortage;
use crate::sys::wait::Waker;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, Weak, mpsc};
use std::time::{Duration, Instant};

/// Hooks may be added before `init`.
pub(in crate::driver) static PROCESS: Process = Process {
    called: AtomicBool::new(false),
    daemon: OnceLock::new(),
    request_hooks: HookList::new(),
    drain_hooks: HookList::new(),
    hammer_hooks: HookList::new(),
    hooks: Hooks::new(),
    shutdown: Shutdown::new(),
    states: Changes::new(),
    sockets: Sockets::new(),
    from_launcher: FromLauncher::new(),
    handed: Handed::new(),
    counters: Counters::new(),
    connections: Connections::new(),
    #[cfg(feature = "tls")]
    tickets: Tickets::new(),
    server: OnceLock::new(),
    notification_fd: Mutex::new(None),
    watchdog: OnceLock::new(),
    default_drain_timeout: Mutex::new(None),
    probation_check: Mutex::new(None),
};

pub(in crate::driver) struct Process {
    /// `init` was called.
    pub(in crate::driver) called: AtomicBool,
    daemon: OnceLock<Daemon>,
    pub(in crate::driver) request_hooks: HookList,
    pub(in crate::driver) drain_hooks: HookList,
    pub(in crate::driver) hammer_hooks: HookList,
    pub(in crate::driver) hooks: Hooks,
    pub(in crate::driver) shutdown: Shutdown,
    pub(in crate::driver) states: Changes,
    pub(in crate::driver) sockets: Sockets,
    pub(in crate::driver) from_launcher: FromLauncher,
    pub(in crate::driver) handed: Handed,
    pub(in crate::driver) counters: Counters,
    pub(in crate::driver) connections: Connections,
    #[cfg(feature = "tls")]
    pub(in crate::driver) tickets: Tickets,
    pub(in crate::driver) server: OnceLock<Server>,
    /// Tells the supervisor that the service is ready; taken when that has been done.
    pub(in crate::driver) notification_fd: Mutex<Option<Notification>>,
    /// To the thread that runs the program's own check.
    pub(in crate::driver) watchdog: OnceLock<mpsc::SyncSender<()>>,
    /// The limit of a drain for which the configuration sets none.
    pub(in crate::driver) default_drain_timeout: Mutex<Option<Duration>>,
    /// Until the probation begins.
    pub(in crate::driver) probation_check: Mutex<Option<Check>>,
}

/// What the threads of a daemon share.
pub(in crate::driver) struct Daemon {
    pub(in crate::driver) machine: Mutex<Machine>,
    /// What other threads have to say to the one that takes signals.
    pub(in crate::driver) inputs: Mutex<VecDeque<Input>>,
    pub(in crate::driver) waker: Waker,
    /// To the launcher. It is closed when the launcher has gone, by the thread that takes signals.
    pub(in crate::driver) channel: Weak<Link>,
    /// What could not be sent there because memory was short, the oldest first.
    pub(in crate::driver) unsent: Mutex<VecDeque<Report>>,
    /// What the thread that takes signals is to take: a generation on probation, or its standby.
    pub(in crate::driver) partner: Mutex<Option<Partner>>,
    /// Processes that wait in `init`.
    pub(in crate::driver) candidates: Mutex<Vec<Candidate>>,
    /// To the generation that serves while we wait in `init`.
    pub(in crate::driver) waits_at: Mutex<Option<Arc<Link>>>,
    /// Sockets for the launcher that could not be sent so far. Emptied when the drain begins.
    pub(in crate::driver) to_launcher: Mutex<VecDeque<Unsent>>,
    pub(in crate::driver) handoff_timeout: Duration,
    pub(in crate::driver) drain_timeout: Option<Duration>,
    pub(in crate::driver) leave_time: Option<Duration>,
    /// After that time the supervisor KILLs, if that can be read.
    pub(in crate::driver) stop_limit: Mutex<Option<Duration>>,
    /// What a stop has time for, once it has begun.
    pub(in crate::driver) plan: Mutex<Option<Plan>>,
    pub(in crate::driver) reload_signals: Vec<i32>,
    pub(in crate::driver) past: Mutex<Past>,
    /// All that a disabled daemon does not have.
    pub(in crate::driver) service: Option<Service>,
}

/// What only this process itself can tell of its life.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::driver) struct Past {
    /// `started` was called. Without a PID file, the state is Serving before that.
    pub(in crate::driver) has_started: bool,
    pub(in crate::driver) phase_since: Option<Instant>,
    pub(in crate::driver) took_over: Option<u64>,
    pub(in crate::driver) probation_since: Option<Instant>,
    /// How long the transfer from the predecessor took.
    pub(in crate::driver) transfer: Option<Duration>,
}

impl Process {
    pub(in crate::driver) fn daemon(&'static self) -> Option<&'static Daemon> {
        self.daemon.get()
    }

    /// How long a transfer may take as a whole.
    pub(in crate::driver) fn takeover_timeout(&self) -> Duration {
        self.server.get().map_or(Duration::MAX, Server::timeout)
    }

    pub(in crate::driver) fn set_daemon(&'static self, daemon: Daemon) -> &'static Daemon {
        self.daemon.get_or_init(|| daemon)
    }
}

impl Daemon {
    pub(in crate::driver) fn drain_timeout(&self) -> Option<Duration> {
        let plan = *lock(&self.plan);
        let own = || self.drain_timeout.or(*lock(&PROCESS.default_drain_timeout));
        plan.map_or_else(own, |plan| plan.drain)
    }

    /// A stop has begun, and everything is served on for a while.
    pub(in crate::driver) fn plan_stop(&self) -> Plan {
        let attached = self.channel.upgrade().is_some();
        let limits = Limits {
            leave: self.leave_time.unwrap_or_default(),
            drain: self.drain_timeout(),
            stop: lock(&self.stop_limit).filter(|_| attached),
            extends: observers::systemd::listener().is_some(),
        };
        let plan = limits.plan();
        if (plan.leave, plan.drain) != (limits.leave, limits.drain) {
            log::write(Event::StopIsShort {
                stop_ms: limits.stop.unwrap_or_default(),
                leave_ms: plan.leave,
                limit_ms: plan.drain,
            });
        }
        *lock(&self.plan) = Some(plan);
        plan
    }

    /// How long everything is served on, once a stop has begun.
    pub(in crate::driver) fn leaves_for(&self) -> Duration {
        lock(&self.plan).map_or(Duration::ZERO, |plan| plan.leave)
    }

    pub(in crate::driver) fn phase(&self) -> Phase {
        lock(&self.machine).phase()
    }

    pub(in crate::driver) fn is_starting(&self) -> bool {
        lock(&self.machine).is_starting()
    }

    pub(in crate::driver) fn state(&self) -> State {
        lock(&self.machine).state()
    }

    pub(in crate::driver) fn generation(&self) -> Option<u64> {
        self.service.as_ref()?.number()
    }

    /// The state is Serving, and the launcher knows, before anything that follows from it is told.
    /// `false`: the process has been told to end meanwhile. `last_claim`: the number of the last claim.
    /// `predecessor`: in whose place we serve.
    pub(in crate::driver) fn serve(&self, last_claim: u64, predecessor: Option<u64>) -> bool {
        {
            let mut past = lock(&self.past);
            (past.phase_since, past.took_over) = (Some(Instant::now()), predecessor);
            past.has_started = true;
        }
        {
            let mut machine = lock(&self.machine);
            let Some(report) = machine.started(last_claim) else { return false };
            // With the machine locked, so that all come in order.
            PROCESS.states.publish(machine.state());
            lock(&self.unsent).push_back(report);
            if let Some(wish) = machine.wish() {
                self.post(wish);
            }
        }
        self.send_soon();
        true
    }

    /// The generation at the other end stands by for us from now on.
    pub(in crate::driver) fn begin_probation(&self, standby: Partner) {
        *lock(&self.partner) = Some(standby);
        let mut machine = lock(&self.machine);
        machine.begins_probation();
        // With the machine locked: who sees that it begins may post what ends it.
        self.post(Input::Probation(ProbationEvent::OnProbation));
    }

    /// The record could not be written: it is to say that nobody stands by for us.
    pub(in crate::driver) fn prove_later(&self) {
        let mut machine = lock(&self.machine);
        machine.proof_failed();
        self.post(Input::Probation(ProbationEvent::Commit));
    }

    /// Hands an input to the thread that takes signals.
    pub(in crate::driver) fn post(&self, input: Input) {
        lock(&self.inputs).push_back(input);
        self.waker.wake();
    }

    /// Tells the launcher. Guards against a report that is lost because memory is short: a launcher that
    /// never hears of handlers KILLs a daemon that serves. What cannot be sent now is sent later, by
    /// the thread that takes signals.
    pub(in crate::driver) fn report(&self, report: Report) {
        lock(&self.unsent).push_back(report);
        self.send_soon();
    }

    fn send_soon(&self) {
        if !self.send_reports() {
            self.waker.wake();
        }
    }

    /// Sends what there is to report; `false`: some of it has to wait.
    pub(in crate::driver) fn send_reports(&self) -> bool {
        let mut failures = Vec::new();
        let sent = self.send_in_order(&mut failures);
        for (report, error) in failures {
            log::write(Event::ReportFailed { report: report.name(), error: &error });
        }
        sent
    }

    /// The lock is held until all is sent: another thread must not send a later report first.
    fn send_in_order(&self, failures: &mut Vec<(Report, io::Error)>) -> bool {
        let mut unsent = lock(&self.unsent);
        while let Some(&report) = unsent.front() {
            let sent = match self.channel.upgrade() {
                Some(channel) => channel.send(&self.message(report), &[]),
                None => Ok(()), // a launcher that has gone needs no report
            };
            if let Err(error) = sent {
                let waits = is_shortage(&error);
                failures.push((report, error));
                if waits {
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
            Report::Leaving => Report::format_leaving(self.leaves_for()),
            other => other.format(),
        }
    }
}
