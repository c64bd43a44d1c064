//! Tells systemd how the service is (`sd_notify(3)`). The launcher speaks, since it is the unit's main
//! process: the default `NotifyAccess=main` lets it. What it says of the daemon's life it knows from
//! the daemon's own thread, which it asks over the channel.
//!
//! Without a PID file there is no launcher, and the process speaks for itself.

use crate::driver::daemon::Daemon;
use crate::driver::log::note;
use crate::proto::channel::Aside;
use crate::proto::daemon::Phase;
use crate::proto::launcher::{Child, Output, Progress};
use crate::proto::{End, Report};
use crate::sys::process;
use crate::sys::sd_notify::{self, Word};
use crate::sys::seqpacket::Link;
use crate::sys::signals::SIGABRT;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{OnceLock, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// A check of the program's own: is it well?
pub(crate) type Check = Box<dyn FnMut() -> bool + Send>;

/// How long systemd is asked to wait for what takes its time, each time that it is asked.
const EXTENSION: Duration = Duration::from_secs(10);
/// How often it is asked.
const EXTEND_EVERY: Duration = Duration::from_secs(3);
/// How long a daemon may take to end by the watchdog's ABRT. Then it is KILLed: one that is stopped,
/// or hangs in the kernel, would be in its successor's way.
const ABORT: Duration = Duration::from_secs(2);

// ---- the launcher ----

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Ask this daemon for a sign of life.
    Ask(Child),
    /// KILL this daemon: it has outlived the watchdog's signal.
    Kill(Child),
}

pub(super) struct Notifier {
    heard: bool,
    watchdog: Option<Duration>,
    /// The one that serves, or is to be the first.
    daemon: Child,
    serves: bool,
    reloads: bool,
    stops: bool,
    /// Something is awaited that systemd has a time limit for: a handoff, or a drain.
    waits: bool,
    ask: Option<Instant>,
    kill: Option<Instant>,
}

impl Notifier {
    /// In the launcher, when its first daemon has been started.
    pub(super) fn new(daemon: Child) -> Notifier {
        let heard = sd_notify::is_heard();
        let watchdog = sd_notify::watchdog().filter(|_| heard);
        let notifier = Notifier {
            heard,
            watchdog,
            daemon,
            serves: false,
            reloads: false,
            stops: false,
            waits: false,
            ask: watchdog.map(|_| Instant::now()),
            kill: None,
        };
        notifier.say(&[Word::Status(&format!("starting: daemon {daemon}")), Word::Watchdog]);
        notifier
    }

    fn say(&self, words: &[Word<'_>]) {
        if self.heard {
            note_failure(sd_notify::say(words));
        }
    }

    fn status(&self, status: &str) {
        self.say(&[Word::Status(status)]);
    }

    /// Until when to sleep.
    pub(super) fn next(&self) -> Option<Duration> {
        let next = self.ask.into_iter().chain(self.kill).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    pub(super) fn due(&mut self) -> Option<Due> {
        let now = Instant::now();
        if self.kill.is_some_and(|at| at <= now) {
            self.kill = None;
            note!(
                Error,
                "stage=kill launcher={} daemon={} signal=KILL limit=\"watchdog, and 2 s after its \
                 signal\"",
                process::own_pid(),
                self.daemon,
            );
            return Some(Due::Kill(self.daemon));
        }
        if self.ask.is_some_and(|at| at <= now) {
            let half = self.watchdog.map(|time| time / 2);
            let every = self.waits.then_some(EXTEND_EVERY);
            self.ask = half.into_iter().chain(every).min().and_then(|time| now.checked_add(time));
            return Some(Due::Ask(self.daemon));
        }
        None
    }

    /// The service has come to another stage.
    pub(super) fn progress(&mut self, progress: Progress) {
        let daemon = self.daemon;
        match progress {
            Progress::Reloading => self.reloading(),
            Progress::Serving(child) => {
                (self.daemon, self.serves) = (child, true);
                self.serving(&format!("serving: daemon {child}"));
            }
            Progress::ReloadFailed(_) if self.serves => {
                self.serving(&format!("serving: daemon {daemon}; the last reload failed"));
            }
            Progress::ReloadRefused(_) if self.serves && !self.reloads => {
                self.reloading();
                self.serving(&format!("serving: daemon {daemon}; the last reload was refused"));
            }
            Progress::ReloadFailed(_) => self.reloads = false,
            Progress::ReloadRefused(_) => {}
            Progress::CurrentEnded(child, _) => {
                self.serves = false;
                self.status(&format!("starting: daemon {child} has ended meanwhile"));
            }
            Progress::Draining(child) => {
                let what = if self.stops { "stopping" } else { "draining" };
                self.status(&format!("{what}: daemon {child} answers what is in flight"));
                self.waits();
            }
            Progress::Stopping(child) => {
                self.stops = true;
                let status = format!("stopping: daemon {child} answers what is in flight");
                self.say(&[Word::Stopping, Word::Status(&status)]);
                self.waits();
            }
        }
    }

    /// systemd takes what comes next for the end of this reload, and not of an earlier one
    /// (MONOTONIC_USEC).
    fn reloading(&mut self) {
        self.reloads = true;
        let status = Word::Status("reloading: the next generation starts");
        match Word::monotonic_usec_now() {
            Ok(now) => self.say(&[Word::Reloading, now, status]),
            Err(error) => note_failure(Err(error)),
        }
    }

    /// MAINPID tells systemd who we are where it started a script that did not `exec` us.
    fn serving(&mut self, status: &str) {
        self.reloads = false;
        let own = process::own_pid().unsigned_abs();
        self.say(&[Word::Ready, Word::MainPid(own), Word::Status(status), Word::Watchdog]);
    }

    /// A daemon has a message for us that changes no stage.
    pub(super) fn reported(&mut self, report: Report) {
        if report == Report::Waiting {
            self.status("stopping: older generations answer what is in flight");
        }
    }

    /// A message beside the protocol.
    pub(super) fn aside(&mut self, child: Child, message: &[u8], fd: Option<OwnedFd>) {
        let said = match (Aside::parse(message), fd) {
            // Where none serves, whoever is starting may answer.
            (Some(Aside::Alive), _) if child == self.daemon || !self.serves => {
                let extension = Word::ExtendTimeoutUsec(EXTENSION.as_micros() as u32);
                let words = [Word::Watchdog, extension];
                self.say(if self.waits { &words } else { &words[..1] });
                Ok(())
            }
            (Some(Aside::Store(name)), Some(fd)) if self.heard => {
                sd_notify::store(&name, std::os::fd::AsFd::as_fd(&fd))
            }
            (Some(Aside::Remove(name)), _) if self.heard => {
                sd_notify::say(&[Word::FdStoreRemove, Word::FdName(&name)])
            }
            (Some(Aside::Alive | Aside::Store(_) | Aside::Remove(_)) | None, _) => Ok(()),
        };
        note_failure(said);
    }

    /// Before the machine's output is performed: what it means for somebody who waits.
    pub(super) fn performing(&mut self, output: &Output) {
        match output {
            Output::Handoff(child) => {
                self.status(&format!("handing off: daemon {child} serves on"));
                self.waits();
            }
            Output::Forward(child, signal) => {
                let is_watchdog = *signal == SIGABRT && self.watchdog.is_some();
                if is_watchdog && *child == self.daemon && self.kill.is_none() {
                    self.kill = Instant::now().checked_add(ABORT);
                }
            }
            Output::Leave { child, .. } => {
                self.status(&format!(
                    "detached: daemon {child} serves on until a successor is ready"
                ));
            }
            Output::Mirror(child, end) => {
                let (how, number) = match end {
                    End::Code(code) => ("exit code", code),
                    End::Signal(signal) => ("signal", signal),
                };
                self.status(&format!("ended: daemon {child} with {how} {number}"));
            }
            Output::ReadStatus
            | Output::Tell(..)
            | Output::Stop(_)
            | Output::Cancel(_)
            | Output::TellTakenOver(_)
            | Output::Kill(..)
            | Output::Start
            | Output::Progress(_)
            | Output::Arm(_)
            | Output::Disarm(_) => {}
        }
    }

    /// From here on systemd's time limit is extended, as long as the daemon shows that it lives.
    fn waits(&mut self) {
        if !self.heard || self.waits {
            return;
        }
        self.waits = true;
        // It is not known yet how soon the daemon answers, and the limit may be short.
        self.say(&[Word::ExtendTimeoutUsec(EXTENSION.as_micros() as u32)]);
        self.ask = Some(Instant::now());
    }
}

fn note_failure(said: io::Result<()>) {
    if let Err(error) = said {
        note!(Warn, "stage=notify pid={} error=\"{error}\"", process::own_pid());
    }
}

// ---- the daemon ----

/// To the thread that runs the program's check.
static CHECK: OnceLock<mpsc::SyncSender<()>> = OnceLock::new();

/// Starts the thread of the program's check.
pub(super) fn watch(check: Option<Check>, channel: Weak<Link>) -> crate::error::Result<()> {
    let Some(mut check) = check else { return Ok(()) };
    let (asked, asks) = mpsc::sync_channel(1);
    _ = CHECK.set(asked);
    crate::driver::daemon::spawn("seamless-watchdog", move || {
        for () in asks {
            if let (true, Some(channel)) = (is_well(&mut check), channel.upgrade()) {
                say_alive(&channel);
            }
        }
    })
}

fn is_well(check: &mut Check) -> bool {
    let well = catch_unwind(AssertUnwindSafe(check));
    if !matches!(well, Ok(true)) {
        let why = if well.is_ok() { "it says no" } else { "it panicked" };
        note!(
            Error,
            "stage=watchdog daemon={} reason=\"the health check failed: {why}\"",
            process::own_pid(),
        );
    }
    well.unwrap_or(false)
}

/// The launcher asks for a sign of life. This thread's own is one; while we serve, the program's
/// check has to agree, and where that hangs, nothing is answered.
pub(super) fn answer(daemon: &Daemon, channel: &Link) {
    let serves = matches!(daemon.phase(), Phase::Serving | Phase::HandingOff | Phase::Detached);
    match CHECK.get().filter(|_| serves) {
        Some(check) => _ = check.try_send(()), // full: it hangs, or is about to run again
        None => say_alive(channel),
    }
}

fn say_alive(channel: &Link) {
    // A launcher that has gone needs none.
    _ = channel.send(&Aside::Alive.format(), &[]);
}

// ---- without a launcher ----

/// Without a PID file: systemd's signs of life, on a thread of their own.
pub(super) fn watch_alone(check: Option<Check>) -> crate::error::Result<()> {
    let Some(time) = sd_notify::watchdog().filter(|_| sd_notify::is_heard()) else { return Ok(()) };
    let mut check = check.unwrap_or_else(|| Box::new(|| true));
    crate::driver::daemon::spawn("seamless-watchdog", move || {
        loop {
            if is_well(&mut check) {
                note_failure(sd_notify::say(&[Word::Watchdog]));
            }
            thread::sleep(time / 2);
        }
    })
}

pub(super) fn serves_alone() {
    if sd_notify::is_heard() {
        note_failure(sd_notify::say(&[Word::Ready, Word::Status("serving")]));
    }
}

/// The drain has begun, and may take its time.
pub(super) fn drains_alone() {
    if !sd_notify::is_heard() {
        return;
    }
    let status = Word::Status("stopping: what is in flight is answered");
    note_failure(sd_notify::say(&[Word::Stopping, status]));
    let extending = thread::Builder::new().name("seamless-notify".to_owned()).spawn(|| {
        loop {
            let extension = Word::ExtendTimeoutUsec(EXTENSION.as_micros() as u32);
            note_failure(sd_notify::say(&[extension]));
            thread::sleep(EXTEND_EVERY);
        }
    });
    note_failure(extending.map(drop));
}
