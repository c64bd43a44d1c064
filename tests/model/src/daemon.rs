//! A daemon process: its machine, driven as `driver::daemon` drives it, and the program's own thread.

use super::keeper::keeper_of;
use super::trace::say;
use super::world::{
    ANOTHER_LAUNCHER, DaemonProcess, Deploy, Generation, Id, Main, OPERATOR_PID, Promise, Setting,
    Signal, ToDaemon, World, launcher_pid, pid,
};
use crate::machines::{self, TakeOver};
use crate::proto::daemon::signal_hooks::{Arrived, Signal as Hooked};
use crate::proto::daemon::{
    Forced, Input, Output, Phase, Question, Sender, Sight, StartedCall, Timer,
};
use crate::proto::generation::check::{Own, Seen, names_newer};
use crate::proto::generation::lines::successor;
use crate::proto::generation::record::{Identity, LineState};
use crate::proto::generation::takeover::{Act, Done, End as Outcome, Next};
use crate::proto::generation::verdict::{Asker, Facts, Purpose, Verdict};
use crate::proto::{DrainReason, End, Intent, Kind, Reading, Report, Scope, State};
use crate::variants::{self, Variant};
use std::collections::VecDeque;

fn identity(id: Id) -> Identity {
    Identity { pid: pid(id), start: u64::from(id) }
}

/// The process that this line of the record is about.
fn process_of(world: &World, id: Id) -> Id {
    if world.at(id).is_keeper { keeper_of(id) } else { id }
}

impl World {
    pub(crate) fn daemon_mut(&mut self, id: Id) -> Option<&mut DaemonProcess> {
        self.at_mut(id).daemon.as_mut()
    }

    /// Sends a signal to a daemon.
    pub(crate) fn signal(&mut self, id: Id, signal: Signal) {
        let Some(daemon) = self.daemon_mut(id) else { return };
        if daemon.has_handlers() {
            daemon.pending.add(signal);
        } else {
            say(|| format!("daemon {id} has no handlers yet: {signal:?} ends it"));
            self.daemon_ends(id, End::Signal(15));
        }
    }

    pub(crate) fn daemon_ends(&mut self, id: Id, end: End) {
        self.goes_on(id); // who waits for it sees that its connection is closed
        if self.at_mut(id).daemon.take().is_none() {
            return;
        }
        say(|| format!("daemon {id} (PID {}) is gone: {end:?}", pid(id)));
        let generation = self.at_mut(id);
        generation.to_daemon.clear();
        generation.end = Some(end);
        self.net_ends(id, end);
        self.flows_end(id);
        self.moves_end(id);
        if self.claim == Some(id) {
            self.claim = None;
        }
    }

    // ---- the thread that takes signals ----

    /// The driver's `Events::step`: the channel is read before a signal that was taken is acted on. Each
    /// wake-up acts on one signal at most: more of them are more wake-ups. `merge`: others of its kind
    /// were merged with it.
    pub(crate) fn wake_daemon(
        &mut self,
        id: Id,
        signal: Option<Signal>,
        merge: bool,
        setting: &Setting,
    ) {
        let pending = &mut self.daemon_mut(id).expect("it wakes").pending;
        if let Some(signal) = signal {
            pending.remove(signal);
            if merge {
                let others: Vec<Signal> = pending.others(signal).collect();
                others.into_iter().for_each(|one| pending.remove(one));
            }
        }
        if !self.read_channel(id, setting) {
            // What the thread has in hand, it acts on when it can go on.
            if let (Some(signal), Some(daemon)) = (signal, self.daemon_mut(id)) {
                daemon.pending.add(signal);
            }
            return;
        }
        let launcher = launcher_pid(self.at(id).first);
        if let (Some(signal), Some(daemon)) = (signal, self.daemon_mut(id)) {
            say(|| format!("daemon {id} hears {signal:?}{}", if merge { ", merged" } else { "" }));
            let (signal, from) = match signal {
                Signal::Usr2OfLauncher => (Hooked::Usr2, launcher),
                Signal::Usr2OfOperator => (Hooked::Usr2, OPERATOR_PID),
                Signal::TermOfLauncher => (Hooked::Term, launcher),
                Signal::TermOfOperator => (Hooked::Term, OPERATOR_PID),
                Signal::TermOf(by) => (Hooked::Term, pid(by)),
                Signal::TermOfAnotherLauncher => (Hooked::Term, ANOTHER_LAUNCHER),
            };
            let hooks = &mut daemon.signal_hooks;
            _ = hooks.signal(signal, from, from == launcher, |_| setting.hooks);
            self.pass_hooks(id, setting);
        }
    }

    /// A hook has returned, an older generation has ended, a timer has fired or the supervisor has
    /// answered; the channel is read first. `false`: the thread has to wait before it acts on it.
    pub(crate) fn wake_daemon_for(&mut self, id: Id, input: Input, setting: &Setting) -> bool {
        let goes_on = self.read_channel(id, setting);
        if goes_on {
            self.feed(id, input, setting);
        }
        goes_on
    }

    /// `false`: the thread waits for the files, and has not read all.
    fn read_channel(&mut self, id: Id, setting: &Setting) -> bool {
        loop {
            let closed = self.launcher(id).is_none();
            let generation = self.at_mut(id);
            let Some(daemon) = &mut generation.daemon else { return true };
            if daemon.is_stalled() {
                return false;
            }
            if !generation.to_daemon.is_empty() {
                let message = generation.to_daemon.remove(0);
                say(|| format!("daemon {id} reads: {message:?}"));
                let hooks = &mut daemon.signal_hooks;
                let hooked = |_| setting.hooks;
                match message {
                    ToDaemon::Intent(intent) => _ = hooks.told(intent, hooked),
                    ToDaemon::Cancelled => _ = hooks.cancelled(hooked),
                    ToDaemon::TakenOver => _ = hooks.taken_over(hooked),
                    ToDaemon::Prepare => self.feed(id, Input::Prepare, setting),
                    ToDaemon::ReloadFailed => self.feed(id, Input::ReloadFailed, setting),
                    ToDaemon::Halt => {
                        let sender = Sender::Launcher { announced: false };
                        self.feed(id, Input::Halt(sender), setting);
                    }
                }
                self.pass_hooks(id, setting);
            } else if closed && !daemon.heard_closed {
                daemon.heard_closed = true;
                say(|| format!("daemon {id} reads: its launcher is gone"));
                self.feed(id, Input::LauncherGone, setting);
            } else {
                return true;
            }
        }
    }

    /// Acts on whatever no hook holds back.
    fn pass_hooks(&mut self, id: Id, setting: &Setting) {
        loop {
            let Some(daemon) = self.daemon_mut(id).filter(|one| !one.is_stalled()) else { return };
            let Some((arrival, _)) = daemon.signal_hooks.next() else { return };
            if let Arrived::Told(intent) = arrival {
                let in_time = daemon.machine.phase() != Phase::Finished;
                let generation = self.at_mut(id);
                generation.told_stop |= in_time && intent == Intent::Stop(Scope::Service);
                generation.told_restart |= intent == Intent::Restart;
            }
            let launcher = launcher_pid(self.at(id).first);
            let input = arrival.input(Some(launcher), |from| {
                let listed = || self.record.iter().any(|one| pid(*one) == from);
                let succeeded = || self.is_succeeded(id, setting);
                let daemon = self.at(id).daemon.as_ref().expect("it hears");
                daemon.machine.sender(from, self.file.map(pid), listed, succeeded)
            });
            self.feed(id, input, setting);
        }
    }

    /// The hooks before the first signal that is held back have returned, or a second has passed.
    pub(crate) fn hooks_return(&mut self, id: Id, setting: &Setting) {
        let hooks = &mut self.daemon_mut(id).expect("it has hooks").signal_hooks;
        let run = hooks.waits_for().expect("hooks run");
        hooks.returned(run);
        self.pass_hooks(id, setting);
    }

    /// `Events::feed`.
    pub(crate) fn feed(&mut self, id: Id, input: Input, setting: &Setting) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let outputs = self.decide(id, input, setting);
            self.perform(id, outputs, &mut inputs, setting);
        }
    }

    fn decide(&mut self, id: Id, input: Input, setting: &Setting) -> Vec<Output> {
        let Some(daemon) = self.daemon_mut(id) else { return Vec::new() };
        assert!(!daemon.is_stalled(), "a thread that waits was told something");
        let (before, served) = (daemon.machine.phase(), daemon.machine.state().serves());
        let outputs = daemon.machine.on(input.clone());
        let (after, serves) = (daemon.machine.phase(), daemon.machine.state().serves());
        if before != after {
            say(|| format!("  daemon {id}: {before:?} -> {after:?}"));
        }
        for output in &outputs {
            say(|| format!("  daemon {id}: {output:?}"));
        }
        let parks = self.daemon(id).is_some_and(|one| one.machine.state() == State::Standby);
        // The leaving is the beginning of the drain, as far as its reason goes.
        let departs = match (before, after) {
            (Phase::Leaving(_), _) => None,
            (_, Phase::Leaving(reason)) => Some(Phase::Draining(reason)),
            (_, after) => (served && !serves && !parks).then_some(after),
        };
        if let Some(phase) = departs {
            self.check_departure(id, phase, &input, setting);
        }
        self.check_leaving(id, (before, after), &input, &outputs);
        let asked = matches!(input, Input::Usr2(Sender::Other | Sender::Successor));
        if outputs.contains(&Output::Hammer(Forced::Usr2)) && !asked {
            self.fault(Promise::P3, "a drain is cut, and nobody asked for that");
        }
        outputs
    }

    /// A generation leaves on a stop only, the older ones are told when that begins, and whoever does not
    /// want to wait ends it.
    fn check_leaving(&mut self, id: Id, phases: (Phase, Phase), input: &Input, outputs: &[Output]) {
        let is_leaving = |phase| matches!(phase, Phase::Leaving(_));
        let announced = Sender::Launcher { announced: true };
        match (is_leaving(phases.0), is_leaving(phases.1), input) {
            (false, true, Input::Told(Intent::Stop(scope))) => {
                let awaits = self.daemon(id).is_some_and(|daemon| !daemon.awaits.is_empty());
                let tells = awaits || outputs.contains(&Output::StopOlder);
                if *scope == Scope::Service && !tells {
                    self.fault(Promise::P6, "older generations are told only after the leaving");
                }
            }
            (false, true, Input::Checked(_)) => {}
            (false, true, _) => self.fault(Promise::P4, "it leaves, and no stop was asked for"),
            (true, true, Input::Term(sender) | Input::Usr2(sender)) if *sender != announced => {
                self.fault(Promise::P4, "it goes on leaving, and somebody does not want to wait");
            }
            _ => {}
        }
    }

    /// The launcher's limit counts from the drain on, or will when it has read that its child leaves.
    pub(crate) fn has_moved_limit(&self, id: Id) -> bool {
        let generation = self.at(id);
        generation.leaving_heard || generation.to_launcher.contains(&Report::Leaving)
    }

    /// `Events::perform`. Where another thread has the files, this one waits for them.
    fn perform(
        &mut self,
        id: Id,
        outputs: Vec<Output>,
        inputs: &mut VecDeque<Input>,
        setting: &Setting,
    ) {
        for (at, output) in outputs.iter().enumerate() {
            let Some(daemon) = self.daemon_mut(id) else { return };
            match *output {
                Output::StopOlder | Output::Check | Output::TryCommit | Output::TakeBack(_)
                    if daemon.main.has_files() =>
                {
                    daemon.stalled = outputs[at..].to_vec();
                    return;
                }
                Output::RunRequestHooks => {
                    daemon.request_hooks += u8::from(!daemon.hooks_hang);
                    if variants::is(Variant::LetGoAtHandoff) {
                        self.net_let_go(id);
                    }
                }
                Output::RunResumeHooks => {}
                Output::Report(report) => self.report(id, report),
                Output::Release => {} // wakes the launcher, which the report does as well
                Output::RunDrainHooks(_) => {
                    daemon.drain_hooks = true;
                    self.net_let_go(id);
                }
                Output::StopOlder if std::mem::take(&mut daemon.short) => {
                    say(|| format!("  daemon {id} cannot tell the older ones: out of memory"));
                    inputs.push_back(Input::OlderTold { awaited: false, again: true });
                    self.give_up_claim(id);
                }
                Output::StopOlder => {
                    if !variants::is(Variant::ClaimKeptWhileStopping) {
                        self.give_up_claim(id);
                    }
                    let older = self.stop_older(id, self.asker(id), Signal::TermOf(id), setting);
                    inputs.push_back(Input::OlderTold { awaited: !older.is_empty(), again: false });
                    if let Some(daemon) = self.daemon_mut(id) {
                        daemon.awaits = older;
                    }
                }
                Output::Finish(_) => daemon.finished = true,
                Output::Hammer(_) => {
                    self.daemon_ends(id, End::Code(124));
                }
                Output::End => self.daemon_ends(id, End::Code(0)),
                Output::ReadStatus(question) if setting.kind == Kind::SYSTEMD => {
                    daemon.asks = Some(question);
                }
                Output::ReadStatus(question) => {
                    inputs.push_back(self.status_of(id, question, setting))
                }
                Output::Check => self.check(id, inputs, setting),
                Output::EnterRecord(state) => {
                    self.record.push(id);
                    self.at_mut(id).line = Some(state).filter(|_| setting.probation);
                    self.last = self.last.max(self.at(id).number);
                }
                Output::PutBackFile => self.install(id),
                Output::PutBackSocket => self.net_put_back(id),
                Output::GiveUpClaim => self.give_up_claim(id),
                Output::RefuseRestart(why) => {
                    say(|| format!("  daemon {id} refuses to restart: {}", why.text()));
                    self.at_mut(id).usr2_sent = false;
                }
                Output::Arm(timer) => {
                    daemon.timers.arm(timer);
                    daemon.was_silent &= timer != Timer::Probation;
                    if timer == Timer::Successor {
                        daemon.claims_since = false;
                    }
                }
                Output::Disarm(timer) => daemon.timers.disarm(timer),
                Output::SteerFlows(to) => self.flows_steer(id, to),
                Output::LogNotResumed => {}
                Output::LogHooksHang => {
                    say(|| format!("  daemon {id} goes on without its request hooks"));
                }
                Output::TryCommit
                | Output::StandBy(_)
                | Output::RunStandbyHooks
                | Output::Say(_)
                | Output::Go
                | Output::HangUp
                | Output::LookForNewer
                | Output::LookForDump
                | Output::TakeBack(_) => self.perform_of_probation(id, *output, inputs, setting),
            }
        }
    }

    pub(crate) fn report(&mut self, id: Id, report: Report) {
        if self.launcher(id).is_some() {
            self.at_mut(id).to_launcher.push(report);
        }
    }

    /// The files are free again: what waited for them goes on.
    pub(crate) fn resume(&mut self, id: Id, setting: &Setting) {
        let daemon = self.daemon_mut(id).expect("it goes on");
        let outputs = std::mem::take(&mut daemon.stalled);
        let mut inputs = VecDeque::new();
        self.perform(id, outputs, &mut inputs, setting);
        for input in inputs {
            self.feed(id, input, setting);
        }
        self.pass_hooks(id, setting);
    }

    // ---- the supervisor's answer ----

    /// It answers, which takes its time; the channel is read before that.
    pub(crate) fn answer(&mut self, id: Id, setting: &Setting) {
        if !self.read_channel(id, setting) {
            return;
        }
        let question = self.daemon_mut(id).and_then(|daemon| daemon.asks.take());
        if let Some(question) = question {
            let input = self.status_of(id, question, setting);
            self.feed(id, input, setting);
        }
    }

    /// `Supervisor::read`.
    fn status_of(&mut self, id: Id, question: Question, setting: &Setting) -> Input {
        let main_pid = match question {
            Question::OfLauncher => Some(launcher_pid(self.at(id).first)),
            Question::OfService => None,
        };
        let reading = self.reading(id, main_pid, setting);
        say(|| format!("  daemon {id} asks its supervisor ({question:?}): {reading:?}"));
        let up = self.supervisor.wants_up && !self.supervisor.idle;
        let is_true = setting.kind != Kind::SYSTEMD || reading != Reading::Down || !up;
        if let (Some(daemon), Question::OfService) = (self.daemon_mut(id), question) {
            daemon.told = Some((reading, is_true));
        }
        Input::Status(question, reading)
    }

    // ---- the check ----

    /// `Service::check`. Its real steps are: claim, look, decide, put back, give up. What others do
    /// between them matters where they meet the claim: that is a slow check.
    fn check(&mut self, id: Id, inputs: &mut VecDeque<Input>, setting: &Setting) {
        let slow = self.daemon_mut(id).is_some_and(|one| std::mem::take(&mut one.slow));
        if self.daemon_mut(id).is_some_and(|one| std::mem::take(&mut one.short)) {
            say(|| format!("  daemon {id} cannot check: out of memory"));
            return inputs.push_back(Input::Checked(Sight::Unknown));
        }
        if setting.shut_out {
            let named = self.file.filter(|owner| self.daemon(*owner).is_some()).map(identity);
            let content = self.content().unwrap_or_default();
            let newer = names_newer(identity(id), content, named);
            say(|| format!("  daemon {id} checks, and finds no record: {newer}"));
            return inputs.push_back(Input::Checked(Sight::NoRecord { newer }));
        }
        if variants::is(Variant::CheckOutsideClaim) {
            let seen = self.look(id, setting);
            say(|| format!("  daemon {id} looks, without the claim: {seen:?}"));
            self.daemon_mut(id).expect("it looks").checking = Some(Some(seen));
        } else if self.claim.is_some() {
            say(|| format!("  daemon {id} checks: the claim is held"));
            inputs.push_back(Input::Checked(Sight::ClaimHeld));
        } else {
            say(|| format!("  daemon {id} has the claim, to check"));
            self.claim = Some(id);
            if slow {
                self.daemon_mut(id).expect("it looks").checking = Some(None);
            } else {
                let seen = self.look(id, setting);
                say(|| format!("  daemon {id} checks: {seen:?}"));
                inputs.push_back(Input::Checked(seen));
            }
        }
    }

    /// The second half of a slow check.
    pub(crate) fn end_check(&mut self, id: Id, setting: &Setting) {
        let checking = self.daemon_mut(id).and_then(|daemon| daemon.checking.take());
        let seen = match checking.expect("it checks") {
            Some(seen) => seen,
            None => self.look(id, setting),
        };
        say(|| format!("  daemon {id} checks: {seen:?}"));
        self.feed(id, Input::Checked(seen), setting);
        self.pass_hooks(id, setting);
    }

    fn own(&self, id: Id) -> Own {
        Own { number: u64::from(self.at(id).number), identity: identity(id) }
    }

    /// `Service::look`.
    fn look(&self, id: Id, setting: &Setting) -> Sight {
        let line = |one: &Id| (identity(process_of(self, *one)), self.facts(*one, id, setting));
        let named_lives = self.file.is_some_and(|owner| {
            let lives = self.daemon(owner).is_some() || self.innocent == Some(owner);
            lives && self.is_elsewhere(owner) == self.is_elsewhere(id)
        });
        Sight::Seen(Seen {
            own: self.own(id),
            last: u64::from(self.last),
            lines: self.record.iter().map(line).collect(),
            content: self.content(),
            named_lives,
            socket_lost: self.net_has_lost_path(id),
        })
    }

    /// `PidFile::install`.
    pub(crate) fn install(&mut self, id: Id) {
        say(|| format!("  daemon {id} puts its PID file in place"));
        if let Some(owner) = self.file {
            let newer = self.at(owner).number > self.at(id).number;
            let here = self.is_elsewhere(owner) == self.is_elsewhere(id);
            if newer && here && self.daemon(owner).is_some() {
                self.fault(Promise::P4, "the file of a newer generation is replaced");
            }
        }
        self.file = Some(id);
    }

    // ---- the program's own thread ----

    /// The next thing that the program does.
    pub(crate) fn main(&mut self, id: Id, setting: &Setting) {
        let main = self.daemon(id).expect("it runs").main.clone();
        match main {
            Main::Preparing(_) if self.is_preparing(id) => self.prepare(id, setting),
            Main::Booting(Deploy::ExitsAtOnce) | Main::Preparing(Deploy::DiesBeforeStarted) => {
                say(|| format!("daemon {id}: a bad deploy, it exits"));
                self.daemon_ends(id, End::Code(1));
            }
            Main::Booting(deploy) => {
                say(|| format!("daemon {id} installs its handlers"));
                self.set_main(id, Main::Claiming(deploy));
                self.report(id, Report::Ready);
            }
            Main::Claiming(deploy) => self.claim(id, deploy, setting),
            Main::Preparing(deploy) => {
                if let Some(daemon) = self.daemon_mut(id) {
                    daemon.hooks_hang = deploy == Deploy::HooksHang;
                }
                self.begin_started(id, setting);
            }
            Main::TakingOver { .. } => self.take_over(id, setting),
            Main::Waiting => {
                say(|| format!("daemon {id}: wait has returned, main returns"));
                self.daemon_ends(id, End::Code(0));
            }
            Main::Parked => unreachable!("it never goes on"),
        }
    }

    /// `Service::park`.
    pub(crate) fn park(&mut self, id: Id) {
        if !variants::is(Variant::ClaimKeptWhileStopping) {
            self.give_up_claim(id);
        }
        self.set_main(id, Main::Parked);
    }

    /// `LockFile::give_up_if_held`.
    pub(crate) fn give_up_claim(&mut self, id: Id) {
        if self.claim == Some(id) {
            say(|| format!("  daemon {id} gives up the claim"));
            self.claim = None;
        }
    }

    fn set_main(&mut self, id: Id, main: Main) {
        if let Some(daemon) = self.daemon_mut(id) {
            daemon.main = main;
        }
    }

    /// `Service::claim`, and what `init` does after it.
    fn claim(&mut self, id: Id, deploy: Deploy, setting: &Setting) {
        self.claim = Some(id);
        self.last += 1;
        let number = self.last;
        self.at_mut(id).number = number;
        say(|| format!("daemon {id} has the claim, and number {number}"));
        for other in self.ids().filter(|other| *other != id) {
            if let Some(daemon) = self.daemon_mut(other) {
                daemon.claims_since |= daemon.timers.has(Timer::Successor);
            }
        }
        if self.daemon(id).is_some_and(|one| one.machine.phase() != Phase::Starting) {
            return self.park(id); // `init` does not return
        }
        self.set_main(id, Main::Preparing(deploy));
        if self.launcher(id).is_none() {
            say(|| format!("daemon {id} sees that its launcher is gone"));
            return self.park(id);
        }
        self.feed(id, Input::Claimed, setting);
    }

    /// `claim_timeout`: `init` returns an error, and the program exits.
    pub(crate) fn give_up_claiming(&mut self, id: Id) {
        match self.daemon(id).map(|daemon| daemon.machine.phase()) {
            Some(Phase::Starting) => self.daemon_ends(id, End::Code(1)),
            _ => self.park(id),
        }
    }

    /// `Service::is_succeeded`.
    fn is_succeeded(&self, id: Id, setting: &Setting) -> bool {
        let facts = self.served_facts(id, setting);
        successor(u64::from(self.at(id).number), facts.iter().map(|(_, one)| one)).is_some()
    }

    /// What this generation knows of those in the record. Without probations the world knows no lines: a
    /// generation serves by its line from the moment on at which it is in there.
    pub(crate) fn served_facts(&self, id: Id, setting: &Setting) -> Vec<(Id, Facts)> {
        let facts = |one: &Id| {
            let mut facts = self.facts(*one, id, setting);
            if !setting.probation {
                let serves = self.daemon(*one).is_some_and(DaemonProcess::serves);
                facts.serves = serves && self.at(*one).was_ready;
            }
            (*one, facts)
        };
        self.record.iter().map(facts).collect()
    }

    pub(crate) fn asker(&self, id: Id) -> Asker {
        let number = Some(u64::from(self.at(id).number)).filter(|number| *number > 0);
        Asker { number, start: u64::from(id) }
    }

    /// `started`, up to its first step that others see.
    fn begin_started(&mut self, id: Id, setting: &Setting) {
        say(|| format!("daemon {id} calls started()"));
        match self.daemon(id).expect("it runs").machine.phase().started_call() {
            StartedCall::TakesOver => {}
            StartedCall::Parks => return self.park(id),
            StartedCall::Returns => unreachable!("it is called once"),
        }
        let machine = TakeOver::new(self.asker(id), setting.probation);
        self.set_main(id, Main::TakingOver { machine, others: Vec::new() });
        self.take_over(id, setting);
    }

    /// The next act of `started` that others can see.
    fn take_over(&mut self, id: Id, setting: &Setting) {
        let mut seen = false;
        loop {
            let Some(Main::TakingOver { machine, others, .. }) =
                self.daemon(id).map(|daemon| &daemon.main)
            else {
                return;
            };
            let older: Vec<Id> = machine.older().map(|place| others[place].0).collect();
            let act = match machine.next() {
                Next::Act(act) => act,
                Next::End(end) => return self.end_started(id, end, older, setting),
            };
            let of_sockets = matches!(
                act,
                Act::KeepName(_) | Act::Listen | Act::Close | Act::Steer | Act::DropName
            );
            let of_flows = act == Act::SteerFlows && self.flows.is_none();
            let unseen = of_sockets && self.net.is_none() || of_flows || act == Act::Look;
            if seen && !unseen {
                return;
            }
            seen |= !unseen;
            let Some(done) = self.act(id, act, setting) else { return };
            if let Some(Main::TakingOver { machine, .. }) =
                self.daemon_mut(id).map(|daemon| &mut daemon.main)
            {
                machine.done(done);
            }
        }
    }

    /// `None`: the process has ended.
    fn act(&mut self, id: Id, act: Act, setting: &Setting) -> Option<Done> {
        self.net_act(id, &act);
        let daemon = self.daemon_mut(id)?;
        let Main::TakingOver { others, .. } = &mut daemon.main else { unreachable!() };
        match act {
            Act::Claim => unreachable!("it has the claim since init"),
            Act::Look => {
                let takes_over = daemon.machine.phase().started_call() == StartedCall::TakesOver;
                if self.launcher(id).is_none() {
                    return Some(Done::LauncherGone);
                }
                if !takes_over {
                    return Some(Done::ToldToEnd);
                }
                let record = self.record.clone();
                let facts = record.iter().map(|one| self.facts(*one, id, setting)).collect();
                let seen = record.iter().map(|one| (*one, self.is_daemon(*one, id))).collect();
                if let Some(Main::TakingOver { others, .. }) =
                    self.daemon_mut(id).map(|daemon| &mut daemon.main)
                {
                    *others = seen;
                }
                return Some(Done::Looked(facts));
            }
            Act::Install => self.install(id),
            Act::KeepName(_) | Act::Listen | Act::Close | Act::Steer | Act::DropName => {}
            Act::SteerFlows => self.flows_take_over(id),
            Act::Enter(kept) => {
                let mut lines: Vec<Id> = kept.into_iter().map(|place| others[place].0).collect();
                lines.push(id);
                say(|| format!("  daemon {id} enters the record"));
                self.record = lines;
                self.enter_lines(id, setting);
            }
            Act::StandBy(place) => {
                let older = others[place].0;
                return Some(Done::StandsBy(self.ask_to_stand_by(id, older, setting)));
            }
            Act::Prove => self.prove_at_once(id),
            Act::Serve => {
                let last_claim = u64::from(self.last);
                let daemon = self.daemon_mut(id)?;
                let Some(report) = daemon.machine.started(last_claim) else {
                    say(|| format!("  daemon {id} has been told to end"));
                    return Some(Done::ToldToEnd);
                };
                daemon.wishes = daemon.machine.wish().is_some();
                if !variants::is(Variant::GivenLate) {
                    self.net_gives(id, setting);
                }
                if self.at(id).line == Some(LineState::Probation) {
                    self.report(id, Report::Probation);
                }
                self.report(id, report);
                say(|| format!("  daemon {id} serves"));
                self.at_mut(id).was_ready = true;
                self.net_serves(id, setting);
            }
            Act::Stop(place, verdict) => {
                let (older, was_ours) = others[place];
                self.touch(older, verdict, was_ours, id, Signal::TermOf(id), setting);
            }
            Act::GiveUp => self.give_up_claim(id),
        }
        Some(Done::Yes)
    }

    fn end_started(&mut self, id: Id, end: Outcome, older: Vec<Id>, setting: &Setting) {
        match end {
            Outcome::Started => {
                if variants::is(Variant::GivenLate) {
                    self.net_gives(id, setting);
                }
                self.set_main(id, Main::Waiting);
                self.net_started(id, older, setting);
            }
            Outcome::NeverStarted => self.set_main(id, Main::Parked),
            Outcome::Refused(_, why) => {
                say(|| format!("  daemon {id} gives up: another generation {why}"));
                self.at_mut(id).number = 0;
                self.daemon_ends(id, End::Code(1));
            }
        }
    }

    /// `Service::stop_older`, by a daemon or by the launcher of the generation `id`.
    pub(crate) fn stop_older(
        &mut self,
        id: Id,
        asker: Asker,
        term: Signal,
        setting: &Setting,
    ) -> Vec<Id> {
        let stop = self.at(id).stop_sent;
        let mut awaited = Vec::new();
        for one in self.record.clone() {
            let facts: Facts = self.facts(one, id, setting);
            let verdict = machines::verdict(&facts, Purpose::Stop, asker);
            if asker.is_newer_than(facts.number, facts.start) {
                self.at_mut(one).stop_sent |= stop;
            }
            if self.touch(one, verdict, self.is_daemon(one, id), id, term, setting) {
                awaited.push(one);
            }
        }
        awaited
    }

    /// `Service::stands_for_newest`, in the launcher of the generation `id`. The record also names the one that took
    /// the claim last.
    pub(crate) fn newest_of(&self, id: Id) -> Option<u64> {
        let named = |child: &Id| self.record.contains(child) || self.at(*child).number == self.last;
        let named = self.children(id).filter(named).map(|child| self.at(child).number);
        named.filter(|number| *number > 0).max().map(u64::from)
    }

    /// Neither its daemon nor its keeper lives.
    pub(crate) fn is_gone(&self, id: Id) -> bool {
        self.daemon(id).is_none() && self.keeper(id).is_none()
    }

    /// Is the process that has this daemon's number that daemon, as seen by another one?
    fn is_daemon(&self, id: Id, by: Id) -> bool {
        (self.daemon(id).is_some() || self.at(id).is_keeper && self.keeper(id).is_some())
            && self.is_elsewhere(id) == self.is_elsewhere(by)
    }

    /// `Service::touch`: TERM, if the verdict says so. `was_ours`: the process was a daemon of ours when it
    /// was looked at. If it has ended since, the pidfd tells; without pidfds another process may have got
    /// its number, and nobody can know that. Tells whether the end of the process is awaited.
    fn touch(
        &mut self,
        id: Id,
        verdict: Verdict,
        was_ours: bool,
        by: Id,
        term: Signal,
        setting: &Setting,
    ) -> bool {
        let awaited = match verdict {
            Verdict::Touch { awaited } => awaited,
            Verdict::TouchByNumber => false,
            Verdict::Leave { why, awaited } => {
                say(|| format!("  daemon {by} sends no TERM to PID {}: it {why}", pid(id)));
                return awaited;
            }
            Verdict::Refuse(_) => return false,
        };
        say(|| format!("  daemon {by} sends TERM to PID {}", pid(id)));
        let elsewhere = self.is_elsewhere(id) != self.is_elsewhere(by);
        let of_others = self.planted == Some(id) || self.innocent == Some(id) || elsewhere;
        if !was_ours && of_others {
            self.fault(Promise::P5, "TERM to a process that is none of ours");
        }
        if let Some(keeper) = self.at_mut(id).keeper.as_mut().filter(|_| !elsewhere) {
            keeper.term = true;
            return awaited;
        }
        if self.daemon(id).is_none() || elsewhere {
            return awaited;
        }
        let (target, own) = (self.at(id), self.at(by));
        let foreign = target.instance != own.instance && self.launcher(id).is_some();
        let older = match own.number {
            0 => id < by,
            number => target.number < number,
        };
        // Without pidfds nobody knows whose its launcher is.
        if foreign && self.is_supervised(id) && !setting.by_lock {
            self.fault(Promise::P5, "TERM to a service that somebody else supervises");
        }
        if !older {
            self.fault(Promise::P4, "an older generation signals a newer one");
        }
        self.signal(id, term);
        awaited
    }

    // ---- P1 ----

    /// A generation leaves serving by its own decision: there must be a reason.
    fn check_departure(&mut self, id: Id, phase: Phase, input: &Input, setting: &Setting) {
        let (Phase::Draining(reason), own) = (phase, self.at(id)) else {
            return self.fault(Promise::P1, "a serving generation ends without a drain");
        };
        // A generation on probation replaces no proven one.
        let unproven = |one: &Generation| one.line.is_some_and(LineState::is_unproven);
        let replaces = |one: &Generation| one.was_ready && (unproven(own) || !unproven(one));
        let succeeded = self.generations.iter().any(|one| one.number > own.number && replaces(one));
        let mut newer = self.generations.iter().filter(|one| one.number > own.number);
        let stopping = newer.any(|one| one.daemon.is_some() && one.told_stop);
        let told = own.daemon.as_ref().and_then(|daemon| daemon.told);
        let nobody_came = |daemon: &DaemonProcess| !daemon.claims_since && !daemon.knows_candidate;
        let unclaimed = own.daemon.as_ref().is_some_and(nobody_came);
        let older_serves = self.ids().any(|one| {
            self.at(one).number < own.number && self.daemon(one).is_some_and(|one| one.serves())
        });
        let excused = match (reason, input) {
            (DrainReason::RolledBack, _) => older_serves,
            // Its successor is in the record, and was told to stop since: so are the older ones.
            (DrainReason::TakenOver, Input::Checked(_)) if stopping => true,
            // The PID file comes before the successor serves, and nothing else can be seen: see `crate`.
            (DrainReason::TakenOver, Input::Checked(Sight::NoRecord { newer: true })) => true,
            _ if succeeded || own.termed || own.stop_sent || own.lost => true,
            // Told by the status, which the supervisor may be about to write anew; a unit's has one
            // truth.
            (DrainReason::Stopped, Input::Checked(Sight::Seen(_) | Sight::NoRecord { .. })) => {
                match told {
                    Some((Reading::Down, is_true)) => is_true,
                    Some((Reading::Up, _)) | None => false,
                    // Nobody came for as long as `successor_timeout`.
                    Some((reading, _)) => {
                        unclaimed && (reading == Reading::Lost || !own.told_restart)
                    }
                }
            }
            _ => false,
        };
        let told = own.termed || own.stop_sent || own.lost || stopping;
        let by_term = reason == DrainReason::Requested && matches!(input, Input::Term(_)) && !told;
        let serves = |id: Id| self.daemon(id).is_some_and(DaemonProcess::serves);
        let mut serving = self.ids().filter(|id| serves(*id)).map(|id| self.at(id));
        let knows = !setting.by_lock; // without pidfds nobody knows whether a generation of the record lives
        if by_term && knows && serving.any(|one| one.number > own.number && replaces(one)) {
            self.fault(Promise::P13, "a successor's TERM is taken for somebody's: nothing moves");
        }
        if matches!(reason, DrainReason::Stopped) {
            self.net_excuse();
        }
        if !excused {
            self.fault(Promise::P1, "a generation stops serving, and no successor is ready");
        }
    }
}
