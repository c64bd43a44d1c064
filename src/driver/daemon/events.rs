//! The thread that takes signals and messages. It never runs code of the program and waits for nobody,
//! so limits, the hammer and the check work while a hook blocks.
//!
//! It turns what happened into an `Input`, lets the machine decide, and performs its `Output`s: the one
//! place where a daemon's outputs are performed.

use crate::driver::control;
use crate::driver::daemon::progress::{self, Progress};
use crate::driver::daemon::signal_hooks::has_hooks;
use crate::driver::daemon::stdio::Outputs;
#[cfg(feature = "systemd")]
use crate::driver::daemon::watchdog;
use crate::driver::generation::probation::Partner;
use crate::driver::generation::stop::{Stopped, log_told};
use crate::driver::log::{self, daemon::Event};
use crate::driver::observers;
use crate::driver::retry;
use crate::driver::shared::{Daemon, PROCESS};
use crate::driver::sockets::{flows, give};
use crate::driver::threads::{Answer, Asked, ask};
use crate::driver::timers::Timers;
use crate::proto::channel::{MESSAGE_MAX, ToDaemon};
use crate::proto::daemon::reminders::Reminder;
use crate::proto::daemon::signal_hooks::{Run, SignalHooks};
use crate::proto::daemon::timers::Limits;
use crate::proto::daemon::{Begins, Forced, Input, Output, Question, Timer};
use crate::proto::generation::bookings;
use crate::proto::{Report, State};
use crate::shutdown::lock;
use crate::sys::process::Held;
use crate::sys::seqpacket::{Arrival, Link};
use crate::sys::signals::{self, Signals};
use crate::sys::{launch, process, wait};
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::{Arc, mpsc};
use std::time::Instant;

/// The exit code of a drain that was forced to end, as of `timeout(1)`.
const HAMMERED: i32 = 124;

/// Timers of the machine, and those of what is held back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Machine(Timer),
    /// The time for these hooks is over.
    Hooks(Run),
    Reminder(Reminder),
}

pub(in crate::driver) struct Events {
    pub(super) daemon: &'static Daemon,
    pub(super) timers: Timers<Due>,
    /// `None` once the launcher has gone.
    channel: Option<Arc<Link>>,
    /// Older generations whose end is awaited.
    older: Vec<Held>,
    /// What the supervisor has been asked.
    asked: Option<(Question, Asked)>,
    /// The other generation of a probation.
    pub(super) partner: Option<Partner>,
    /// When the other one was told last that we are well.
    pub(super) said_well: Option<Instant>,
    pub(super) not_resumed: log::Seldom,
    pub(super) hooks: SignalHooks,
    pub(super) hooks_returned: (mpsc::Sender<Run>, mpsc::Receiver<Run>),
    outputs: Outputs,
    pub(super) request_stage: mpsc::Sender<Stage1>,
    drain_stage: mpsc::Sender<crate::DrainReason>,
    /// The record says that this generation was told to end.
    end_is_marked: bool,
    progress: Progress,
}

/// What the thread of stage 1 has to run.
#[derive(Clone, Copy, Debug)]
pub(in crate::driver) enum Stage1 {
    /// The hooks of `on_shutdown_request`, and those around them.
    Request,
    /// The hooks of `on_resume`.
    Resume,
    /// The hooks of `on_standby`.
    Standby,
}

impl Events {
    pub(in crate::driver) fn new(
        daemon: &'static Daemon,
        channel: Option<Arc<Link>>,
        outputs: Outputs,
        request_stage: mpsc::Sender<Stage1>,
        drain_stage: mpsc::Sender<crate::DrainReason>,
    ) -> Events {
        Events {
            daemon,
            timers: Timers::new(),
            channel,
            older: Vec::new(),
            asked: None,
            partner: None,
            said_well: None,
            not_resumed: log::Seldom::default(),
            hooks: SignalHooks::default(),
            hooks_returned: mpsc::channel(),
            outputs,
            request_stage,
            drain_stage,
            end_is_marked: false,
            progress: Progress::new(daemon),
        }
    }

    pub(in crate::driver) fn run(mut self, mut signals: Signals) {
        signals::unblock_all();
        self.daemon.report(Report::Ready);
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
        fds.extend(self.partner.iter().flat_map(Partner::fds));
        let candidates = self.daemon.candidate_links();
        fds.extend(candidates.iter().map(|link| link.as_fd()));
        fds.extend(self.asked.as_ref().map(|(_, asked)| asked.as_fd()));
        let outlives = lock(&self.daemon.machine).outlives_readers();
        let (outputs, retry) = match outlives {
            true => (self.outputs.watched(), self.outputs.next()),
            false => (Vec::new(), None),
        };
        let sent = self.daemon.send_reports() & give::send(self.daemon);
        let resend = (!sent).then_some(retry::LATER);
        let next = self.timers.next().into_iter().chain(retry).chain(resend).min();
        wait::readable_or_closed(&fds, &outputs, next);
        if outlives {
            self.outputs.replace_closed(); // first: other threads write there meanwhile
        }
        // The signals are taken before the channel is read: what was written before a signal was sent is
        // then certain to be seen before the signal is acted on.
        let arrived = signals.pending();
        self.daemon.waker.clear();
        let yielded = signals::taken();
        let posted = std::mem::take(&mut *lock(&self.daemon.inputs));
        self.act_on_arrivals();
        self.read_channel();
        for received in arrived {
            self.hold(received);
        }
        for (signal, by_launcher) in yielded {
            self.yielded(signal, by_launcher);
        }
        for input in posted {
            self.feed(input);
        }
        self.look_at_silence();
        self.look_at_partner();
        self.look_at_candidates();
        if !self.older.is_empty() {
            self.older.retain(|older| !older.has_ended());
            if self.older.is_empty() {
                self.feed(Input::OlderGone);
            }
        }
        let asked = self.asked.as_mut();
        let answer = asked.and_then(|(question, asked)| Some((*question, asked.answer()?)));
        if let Some((question, reading)) = answer {
            self.asked = None;
            self.feed(Input::Status(question, reading));
        }
        while let Some(due) = self.timers.due() {
            match due {
                Due::Machine(timer) => self.feed(Input::Timer(timer)),
                Due::Hooks(run) => self.give_up_hooks(run),
                Due::Reminder(reminder) => self.progress.remind(reminder),
            }
        }
    }

    fn read_channel(&mut self) {
        while let Some(channel) = &self.channel {
            match channel.receive(MESSAGE_MAX) {
                Arrival::Message(message) => match ToDaemon::parse(&message.bytes) {
                    Ok(Some(ToDaemon::Intent(intent))) => {
                        let run = self.hooks.told(intent, has_hooks);
                        self.run_hooks(run);
                    }
                    Ok(Some(ToDaemon::Cancel)) => {
                        let run = self.hooks.cancelled(has_hooks);
                        self.run_hooks(run);
                    }
                    Ok(Some(ToDaemon::TakenOver)) => {
                        let run = self.hooks.taken_over(has_hooks);
                        self.run_hooks(run);
                    }
                    Ok(Some(ToDaemon::Prepare)) => self.feed(Input::Prepare),
                    Ok(Some(ToDaemon::ReloadFailed(why))) => {
                        if let Some(service) = &self.daemon.service {
                            service.note_reload_failed(why);
                        }
                        self.feed(Input::ReloadFailed);
                    }
                    #[cfg(feature = "systemd")]
                    Ok(Some(ToDaemon::Ask)) => watchdog::answer(self.daemon, channel),
                    #[cfg(not(feature = "systemd"))]
                    Ok(Some(ToDaemon::Ask)) => {}
                    Ok(Some(ToDaemon::Hello(_))) => {}
                    Ok(None) => {
                        let starts = self.daemon.is_starting();
                        PROCESS.from_launcher.receive(message, starts);
                    }
                    Err(refused) => log::write(Event::ChannelRefused { refused: &refused }),
                },
                Arrival::Nothing | Arrival::OutOfMemory => return,
                Arrival::Closed => {
                    self.channel = None;
                    self.feed(Input::LauncherGone);
                }
            }
        }
    }

    // ---- the machine ----

    pub(super) fn feed(&mut self, input: Input) {
        self.feed_by(input, None);
    }

    /// `by`: what the input is called in the log, if the input alone does not tell.
    pub(super) fn feed_by(&mut self, input: Input, mut by: Option<&'static str>) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let cause = by.take().unwrap_or_else(|| progress::cause(&input));
            let claimed = matches!(input, Input::Claimed);
            if let Input::Probation(event) = input {
                self.meet_partner(event);
            }
            let (before, outputs, after, serves_again) = {
                let mut machine = lock(&self.daemon.machine);
                let (before, was) = (machine.phase(), machine.state());
                let outputs = machine.on(input);
                PROCESS.states.publish(machine.state()); // locked, so that all come in order
                let serves_again = was == State::Standby && machine.state().serves();
                (before, outputs, machine.phase(), serves_again)
            };
            if serves_again {
                let generation = self.daemon.generation();
                log::write(log::probation::Event::ServesAgain { generation, cause });
            }
            if before != after {
                lock(&self.daemon.past).phase_since = Some(Instant::now());
                let Begins { plan, end, drain } = after.begins(before);
                if drain && self.daemon.service.is_some() {
                    if let Err(error) = process::offer_to_the_oom_killer() {
                        log::write(Event::OomScoreKept { error: &error });
                    }
                }
                if plan {
                    self.daemon.plan_stop();
                }
                if end && self.daemon.service.is_none() {
                    let drain = self.daemon.drain_timeout();
                    let limit = drain.map(|limit| limit.saturating_add(self.daemon.leaves_for()));
                    observers::drains_alone(limit);
                }
                self.progress.enter(cause, after);
            }
            if claimed || Reminder::of(before, false) != Reminder::of(after, false) {
                self.arm_reminder(Reminder::of(after, claimed));
            }
            for output in outputs {
                self.perform(output, &mut inputs);
            }
        }
    }

    fn perform(&mut self, output: Output, inputs: &mut VecDeque<Input>) {
        match output {
            Output::RunRequestHooks => _ = self.request_stage.send(Stage1::Request),
            Output::RunResumeHooks => _ = self.request_stage.send(Stage1::Resume),
            Output::Report(report) => {
                if report == Report::Leaving {
                    self.mark_end(crate::DrainReason::Stopped);
                }
                if let (Some(service), Report::Released) = (&self.daemon.service, report) {
                    self.outputs.before_release(&service.supervisor);
                }
                self.daemon.report(report);
                #[cfg(feature = "systemd")]
                if report == Report::Committed {
                    crate::driver::sockets::fdstore::again();
                }
            }
            Output::RunDrainHooks(reason) => {
                self.mark_end(reason);
                _ = self.drain_stage.send(reason);
            }
            Output::Finish(reason) => {
                self.mark_end(reason);
                flows::finish(self.daemon);
                PROCESS.states.end();
                PROCESS.shutdown.finish(reason);
            }
            Output::Hammer(forced) => self.hammer(forced),
            Output::End => crate::sys::exit_now(0),
            Output::Arm(timer) => {
                if let Some(after) = timer.after(&self.limits()) {
                    self.timers.arm(Due::Machine(timer), after);
                }
            }
            Output::Disarm(timer) => self.timers.disarm(Due::Machine(timer)),
            Output::Release
            | Output::StopOlder
            | Output::ReadStatus(_)
            | Output::Check
            | Output::EnterRecord(_)
            | Output::PutBackFile
            | Output::PutBackSocket
            | Output::GiveUpClaim
            | Output::RefuseRestart(_) => self.perform_for_service(output, inputs),
            Output::TryCommit
            | Output::StandBy(_)
            | Output::RunStandbyHooks
            | Output::Say(_)
            | Output::Go
            | Output::LogHooksHang
            | Output::LogNotResumed
            | Output::HangUp
            | Output::SteerFlows(_)
            | Output::LookForNewer
            | Output::LookForDump
            | Output::TakeBack(_) => self.perform_of_probation(output, inputs),
        }
    }

    /// At the beginning of a drain, and once more at its end if it could not be written then.
    fn mark_end(&mut self, reason: crate::DrainReason) {
        if let (Some(service), false) = (&self.daemon.service, self.end_is_marked) {
            self.end_is_marked = !bookings::marks_its_end(reason) || service.mark_end();
        }
    }

    /// What a disabled daemon never does.
    fn perform_for_service(&mut self, output: Output, inputs: &mut VecDeque<Input>) {
        let Some(service) = &self.daemon.service else { return };
        match output {
            Output::Release => {
                let sent = launch::signal_launcher(service.launcher, service.release_signal);
                if let Err(error) = sent {
                    // The channel has told it already.
                    log::write(Event::ReleaseSignalFailed {
                        launcher: service.launcher,
                        error: &error,
                    });
                }
            }
            Output::StopOlder => {
                let Stopped { awaited, again } = service.stop_older(log_told);
                self.older = awaited;
                inputs.push_back(Input::OlderTold { awaited: !self.older.is_empty(), again });
            }
            Output::ReadStatus(question) => {
                let main_pid = question.main_pid(service.launcher);
                match ask(&service.supervisor, main_pid) {
                    Answer::Known(reading) => inputs.push_back(Input::Status(question, reading)),
                    Answer::Awaited(asked) => self.asked = Some((question, asked)),
                }
            }
            Output::Check => {
                let (sight, trouble) = service.check();
                let supervisor = lock(&self.daemon.machine).reading();
                log::write(Event::Check { finding: sight.name(), supervisor: &supervisor });
                self.progress.trouble(trouble);
                self.progress.detached();
                inputs.push_back(Input::Checked(sight));
            }
            Output::EnterRecord(state) => {
                self.progress.trouble(service.enter_again(state).err());
            }
            Output::PutBackFile => self.progress.trouble(service.put_back_file().err()),
            Output::PutBackSocket => {
                let named = flows::named(service);
                let put_back = control::put_back(&service.pid_file, &PROCESS.server, named);
                self.progress.trouble(put_back.err());
            }
            Output::GiveUpClaim => service.give_up_claim(),
            Output::RefuseRestart(why) => log::write(Event::RestartRefused { refused: why.text() }),
            _ => {}
        }
    }

    /// One at a time: a phase that is left needs no reminder.
    fn arm_reminder(&mut self, reminder: Option<Reminder>) {
        for one in [Reminder::NotStarted, Reminder::DrainLasts] {
            self.timers.disarm(Due::Reminder(one));
        }
        if let Some(reminder) = reminder {
            let limit = match reminder {
                Reminder::NotStarted => {
                    self.daemon.service.as_ref().and_then(|service| service.claim_timeout)
                }
                Reminder::DrainLasts => self.daemon.drain_timeout(),
            };
            self.timers.arm(Due::Reminder(reminder), reminder.after(limit));
        }
    }

    fn limits(&self) -> Limits {
        let service = self.daemon.service.as_ref();
        Limits {
            successor: service.and_then(|service| service.successor_timeout),
            claim: service.and_then(|service| service.claim_timeout),
            handoff: self.daemon.handoff_timeout,
            leave: self.daemon.leaves_for(),
            drain: self.daemon.drain_timeout(),
            probation: service.and_then(|service| service.probation),
        }
    }

    fn hammer(&self, forced: Forced) -> ! {
        let reason = match forced {
            Forced::DrainTimeout => "drain_timeout",
            Forced::Usr2 => "USR2",
        };
        log::write(Event::Hammer {
            generation: self.daemon.generation(),
            reason,
            exit_code: HAMMERED,
            elapsed_ms: self.progress.elapsed(),
        });
        PROCESS.hooks.run_hammer(&PROCESS.hammer_hooks);
        crate::sys::exit_now(HAMMERED)
    }
}
