//! A daemon process: its machine, driven as `driver::daemon` drives it, and the program's own thread.

use super::trace::say;
use super::world::{
    DaemonProcess, Deploy, Id, Main, Promise, Setting, Signal, ToDaemon, World, id_of, pid, serves,
};
use crate::machines;
use crate::proto::daemon::{Finding, Forced, Input, Output, Phase, Timer};
use crate::proto::generation::record::Identity;
use crate::proto::generation::takeover::{self, Content, Line, Own, Step};
use crate::proto::supervisor::Tells;
use crate::proto::{DrainReason, End, Intent, Reading, Report, Scope};
use crate::variants::{self, Variant};
use std::collections::VecDeque;

fn identity(id: Id) -> Identity {
    Identity { pid: pid(id), start: u64::from(id) }
}

impl World {
    fn daemon_mut(&mut self, id: Id) -> Option<&mut DaemonProcess> {
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
        if self.at_mut(id).daemon.take().is_none() {
            return;
        }
        say(|| format!("daemon {id} (PID {}) is gone: {end:?}", pid(id)));
        let generation = self.at_mut(id);
        generation.to_daemon.clear();
        generation.end = Some(end);
        self.net_ends(id, end);
        if self.claim == Some(id) {
            self.claim = None;
        }
    }

    // ---- the thread that takes signals ----

    /// `Driver::step`: the channel is read before a signal that was taken is acted on. Each wake-up
    /// acts on one signal at most: more of them are more wake-ups. `merge`: others of its kind were
    /// merged with it.
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
        if let Some(signal) = signal {
            say(|| format!("daemon {id} hears {signal:?}{}", if merge { ", merged" } else { "" }));
            let input = match signal {
                Signal::Usr2OfLauncher => Input::Usr2 { from_launcher: true },
                Signal::Usr2OfOperator => Input::Usr2 { from_launcher: false },
                Signal::Eviction => Input::Evicted,
                Signal::TermOfLauncher | Signal::TermOfOperator => {
                    Input::Term { from_successor: false }
                }
                Signal::TermOf(by) => Input::Term { from_successor: self.file == Some(by) },
            };
            self.feed(id, input, setting);
        }
    }

    /// A hook has returned, an older generation has ended or a timer has fired; the channel is read
    /// first. `false`: the thread has to wait before it acts on it.
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
                let intent = match message {
                    ToDaemon::Intent(intent) => intent,
                    ToDaemon::TakenOver => {
                        self.feed(id, Input::Term { from_successor: true }, setting);
                        continue;
                    }
                    ToDaemon::ReloadFailed => {
                        self.feed(id, Input::ReloadFailed, setting);
                        continue;
                    }
                };
                let in_time = daemon.machine.phase() != Phase::Finished;
                generation.told_stop |= in_time && intent == Intent::Stop(Scope::Service);
                generation.told_restart |= intent == Intent::Restart;
                self.feed(id, Input::Told(intent), setting);
            } else if closed && !daemon.heard_closed {
                daemon.heard_closed = true;
                say(|| format!("daemon {id} reads: its launcher is gone"));
                self.feed(id, Input::LauncherGone, setting);
            } else {
                return true;
            }
        }
    }

    /// `Driver::feed`.
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
        let before = daemon.machine.phase();
        let outputs = daemon.machine.on(input);
        let after = daemon.machine.phase();
        if before != after {
            say(|| format!("  daemon {id}: {before:?} -> {after:?}"));
        }
        for output in &outputs {
            say(|| format!("  daemon {id}: {output:?}"));
        }
        if serves(before) && !serves(after) {
            self.check_departure(id, after, input, setting);
        }
        if outputs.contains(&Output::Hammer(Forced::Usr2))
            && input != (Input::Usr2 { from_launcher: false })
        {
            self.fault(Promise::P3, "a drain is cut, and nobody asked for that");
        }
        outputs
    }

    /// `Driver::perform`. Where another thread has the files, this one waits for them.
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
                Output::StopOlder | Output::Check if daemon.main.has_files() => {
                    daemon.stalled = outputs[at..].to_vec();
                    return;
                }
                Output::RunRequestHooks => {
                    daemon.request_hooks = !daemon.hooks_hang;
                    if variants::is(Variant::LetGoAtHandoff) {
                        self.net_let_go(id);
                    }
                }
                Output::Report(report) => self.report(id, report),
                Output::Release => {} // wakes the launcher, which the report does as well
                Output::RunDrainHooks(_) => {
                    daemon.drain_hooks = true;
                    self.net_let_go(id);
                }
                Output::StopOlder => {
                    let older = self.stop_older(id);
                    if older.is_empty() {
                        inputs.push_back(Input::OlderGone);
                    }
                    if let Some(daemon) = self.daemon_mut(id) {
                        daemon.awaits = older;
                    }
                }
                Output::Finish(_) => daemon.finished = true,
                Output::Hammer(_) => {
                    self.excuse_stop();
                    self.daemon_ends(id, End::Code(124));
                }
                Output::End => self.daemon_ends(id, End::Code(0)),
                Output::Check => self.check(id, false, inputs, setting),
                Output::PutBack => {} // by the check, which holds the claim
                Output::Arm(timer) => {
                    daemon.timers.arm(timer);
                    if timer == Timer::Successor {
                        daemon.claims_since = false;
                    }
                }
                Output::Disarm(timer) => daemon.timers.disarm(timer),
            }
        }
    }

    fn report(&mut self, id: Id, report: Report) {
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
    }

    // ---- the check ----

    /// `Driver::check`. Its real steps are: claim, look, decide, put back, give up. What others do
    /// between them matters where they meet the claim: that is a slow check.
    pub(crate) fn check(
        &mut self,
        id: Id,
        slow: bool,
        inputs: &mut VecDeque<Input>,
        setting: &Setting,
    ) {
        if variants::is(Variant::CheckOutsideClaim) {
            let finding = self.look(id, setting);
            say(|| format!("  daemon {id} looks, without the claim: {finding:?}"));
            self.daemon_mut(id).expect("it looks").checking = Some(Some(finding));
        } else if self.claim.is_some() {
            self.decide_check(id, Finding::ClaimHeld, inputs, setting);
        } else if slow {
            say(|| format!("  daemon {id} has the claim, to look round"));
            self.claim = Some(id);
            self.daemon_mut(id).expect("it looks").checking = Some(None);
        } else {
            let finding = self.look(id, setting);
            self.decide_check(id, finding, inputs, setting);
        }
    }

    /// The second half of a slow check.
    pub(crate) fn end_check(&mut self, id: Id, setting: &Setting) {
        let checking = self.daemon_mut(id).and_then(|daemon| daemon.checking.take());
        let finding = match checking.expect("it looks round") {
            Some(finding) => finding,
            None => self.look(id, setting),
        };
        let mut inputs = VecDeque::new();
        self.decide_check(id, finding, &mut inputs, setting);
        self.give_up_claim(id);
        for input in inputs {
            self.feed(id, input, setting);
        }
    }

    fn decide_check(
        &mut self,
        id: Id,
        finding: Finding,
        inputs: &mut VecDeque<Input>,
        setting: &Setting,
    ) {
        say(|| format!("  daemon {id} looks round: {finding:?}"));
        let outputs = self.decide(id, Input::Checked(finding), setting);
        if outputs.contains(&Output::PutBack) {
            let lost = self.daemon(id).is_some_and(|daemon| daemon.lost_file);
            if lost || variants::is(Variant::PutBackOverNewer) {
                self.install(id);
            }
            self.net_put_back(id);
        }
        self.with_daemon(id, |daemon| daemon.lost_file = false);
        self.perform(id, outputs, inputs, setting);
    }

    /// `Service::look`.
    fn look(&mut self, id: Id, setting: &Setting) -> Finding {
        let daemon = self.daemon(id).expect("it looks");
        let own = Own {
            number: u64::from(self.at(id).number),
            identity: identity(id),
            last_claim: u64::from(daemon.last_claim),
            stranger: daemon.stranger.map(pid),
        };
        let lines: Vec<Line> = self.record.iter().map(|one| self.line(*one, id)).collect();
        let lives = |pid| {
            let id = id_of(pid);
            self.daemon(id).is_some() || self.innocent == Some(id)
        };
        let seen = takeover::look(own, u64::from(self.last), &lines, self.content(), lives);
        if seen.enter {
            self.record.push(id);
            self.last = self.last.max(self.at(id).number);
        }
        let last = self.last;
        let daemon = self.daemon_mut(id).expect("it looks");
        daemon.last_claim = last;
        daemon.stranger = seen.stranger.map(id_of);
        let takeover::Seen { newer, lost_file, claims_moved, .. } = seen;
        let net_lost = self.net_has_lost_path(id);
        self.with_daemon(id, |daemon| daemon.lost_file = lost_file);
        let lost_file = lost_file || self.net.is_some() && net_lost;
        let supervisor = self.reading(id, None, setting);
        Finding::Seen { newer, lost_file, claims_moved, supervisor }
    }

    fn content(&self) -> Option<Content> {
        let owner = self.file?;
        Some(Content { pid: Some(pid(owner)), locked: self.daemon(owner).is_some() })
    }

    /// `Service::line`.
    fn line(&self, id: Id, by: Id) -> Line {
        let number = u64::from(self.at(id).number);
        Line { number, daemon: identity(id), proof: self.prove(id, by) }
    }

    /// `PidFile::install`.
    fn install(&mut self, id: Id) {
        say(|| format!("  daemon {id} puts its PID file in place"));
        if let Some(owner) = self.file {
            let newer = self.at(owner).number > self.at(id).number;
            if newer && self.daemon(owner).is_some() {
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
                self.excuse_stop(); // as by a crash
                self.daemon_ends(id, End::Code(1));
            }
            Main::Booting(deploy) => {
                say(|| format!("daemon {id} installs its handlers"));
                self.set_main(id, Main::Claiming(deploy));
                self.report(id, Report::Ready);
            }
            Main::Claiming(deploy) => self.claim(id, deploy),
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

    /// `Service::never_started`.
    pub(crate) fn park(&mut self, id: Id) {
        if !variants::is(Variant::ClaimKeptWhileStopping) {
            self.give_up_claim(id);
        }
        self.set_main(id, Main::Parked);
    }

    /// `LockFile::give_up_if_held`.
    fn give_up_claim(&mut self, id: Id) {
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
    fn claim(&mut self, id: Id, deploy: Deploy) {
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
            self.park(id);
        }
    }

    /// `claim_timeout`: `init` returns an error, and the program exits.
    pub(crate) fn give_up_claiming(&mut self, id: Id) {
        match self.daemon(id).map(|daemon| daemon.machine.phase()) {
            Some(Phase::Starting) => self.daemon_ends(id, End::Code(1)),
            _ => self.park(id),
        }
    }

    /// `Service::started` up to its first step.
    fn begin_started(&mut self, id: Id, setting: &Setting) {
        say(|| format!("daemon {id} calls started()"));
        match self.daemon(id).expect("it runs").machine.phase() {
            Phase::Starting => {}
            Phase::StoppingEarly | Phase::Ended => return self.park(id),
            phase => unreachable!("{phase:?} before started"),
        }
        let before = self.content().unwrap_or_default();
        for one in self.record.clone() {
            let line = self.line(one, id);
            let foreign = line.proof.is_ok() && self.is_foreign(one, id);
            if let Some(why) = line.refusal(foreign, before) {
                say(|| format!("  generation {one} {why}: daemon {id} gives up"));
                self.at_mut(id).number = 0;
                return self.daemon_ends(id, End::Code(1));
            }
        }
        let number = self.at(id).number;
        let is_kept = |one: &Id| self.line(*one, id).is_kept(u64::from(number));
        let lines: Vec<Id> = self.record.iter().copied().filter(is_kept).collect();
        let is_older = |one: &Id| self.at(*one).number < number;
        let older = lines.iter().copied().filter(is_older).collect();
        self.set_main(id, Main::TakingOver { step: 0, lines, last: self.last, older });
        self.take_over(id, setting);
    }

    /// The next step of `Service::started`; each TERM is one.
    fn take_over(&mut self, id: Id, setting: &Setting) {
        self.net_step(id);
        let has_sockets = self.net.is_some();
        let main = &mut self.daemon_mut(id).expect("it runs").main;
        let Main::TakingOver { step: at, lines, last, older } = main else { unreachable!() };
        let step = machines::steps()[usize::from(*at)];
        let stop = if step == Step::StopOlder { older.pop() } else { None };
        if older.is_empty() || step != Step::StopOlder {
            *at += 1;
        }
        let of_sockets = |step: &Step| matches!(step, Step::Listen | Step::Close | Step::Steer);
        let rest = machines::steps().into_iter().skip(usize::from(*at));
        if !has_sockets {
            *at += rest.take_while(of_sockets).count() as u8; // nothing happens in them
        }
        let done = usize::from(*at) == machines::steps().len();
        match step {
            Step::Install => self.install(id),
            Step::Listen | Step::Close | Step::Steer => {}
            Step::Enter => {
                let (mut lines, last) = (std::mem::take(lines), *last);
                lines.push(id);
                say(|| format!("  daemon {id} enters the record"));
                self.record = lines;
                self.last = last;
                self.daemon_mut(id).expect("it runs").last_claim = last;
            }
            Step::Serve => {
                let daemon = self.daemon_mut(id).expect("it runs");
                let outputs = daemon.machine.on(Input::Started);
                let serves = daemon.machine.phase() == Phase::Serving;
                for output in outputs {
                    if let Output::Report(report) = output {
                        self.report(id, report);
                    }
                }
                if !serves {
                    say(|| format!("  daemon {id} has been told to end"));
                    return self.park(id);
                }
                say(|| format!("  daemon {id} serves"));
                self.at_mut(id).was_ready = true;
                self.net_serves(id, setting);
            }
            Step::StopOlder => {
                if let Some(older) = stop {
                    self.stop(older, id);
                }
            }
            Step::GiveUp => {
                self.give_up_claim(id);
            }
        }
        if done {
            self.set_main(id, Main::Waiting);
            self.net_started(id, setting);
        }
    }

    /// `Service::stop_older`.
    fn stop_older(&mut self, id: Id) -> Vec<Id> {
        if !variants::is(Variant::ClaimKeptWhileStopping) {
            self.give_up_claim(id);
        }
        let number = self.at(id).number;
        let own = Some(u64::from(number)).filter(|number| *number > 0);
        let is_older = |one: &Id| {
            let number = u64::from(self.at(*one).number);
            machines::is_older(number, u64::from(*one), own, u64::from(id))
        };
        let older: Vec<Id> = self.record.iter().copied().filter(is_older).collect();
        let stop = self.at(id).stop_sent;
        for one in &older {
            self.at_mut(*one).stop_sent |= stop;
        }
        older.into_iter().filter(|one| self.stop(*one, id)).collect()
    }

    /// `Service::stop`: TERM to an older generation of this service, and to nobody else.
    fn stop(&mut self, id: Id, by: Id) -> bool {
        if self.is_foreign(id, by) {
            say(|| format!("  generation {id} is supervised by somebody else"));
            return false;
        }
        if let Err(unproven) = self.prove(id, by) {
            say(|| format!("  daemon {id}: {unproven:?}, no TERM"));
            return false;
        }
        say(|| format!("  daemon {by} sends TERM to PID {}", pid(id)));
        if self.daemon(id).is_none() {
            self.fault(Promise::P5, "TERM to a process that is none of ours");
            return false;
        }
        let (target, own) = (self.at(id), self.at(by));
        let foreign = target.instance != own.instance && self.launcher(id).is_some();
        let older = match own.number {
            0 => id < by,
            number => target.number < number,
        };
        if foreign && self.is_supervised(id) {
            self.fault(Promise::P5, "TERM to a service that somebody else supervises");
        }
        if !older {
            self.fault(Promise::P4, "an older generation signals a newer one");
        }
        self.signal(id, Signal::TermOf(by));
        true
    }

    // ---- P1 ----

    /// A generation leaves serving by its own decision: there must be a reason.
    fn check_departure(&mut self, id: Id, phase: Phase, input: Input, setting: &Setting) {
        let (Phase::Draining(reason), own) = (phase, self.at(id)) else {
            return self.fault(Promise::P1, "a serving generation ends without a drain");
        };
        let succeeded = self.generations.iter().any(|one| one.was_ready && one.number > own.number);
        let mut newer = self.generations.iter().filter(|one| one.number > own.number);
        let stopping = newer.any(|one| one.daemon.is_some() && one.told_stop);
        let unclaimed = own.daemon.as_ref().is_some_and(|daemon| !daemon.claims_since);
        let excused = match (reason, input) {
            // Its successor is in the record, and was told to stop since: so are the older ones.
            (DrainReason::TakenOver, Input::Checked(_)) if stopping => true,
            _ if succeeded || own.termed || own.stop_sent || own.lost => true,
            // Told by the status, which the supervisor may be about to write anew; a unit's has one
            // truth.
            (DrainReason::Stopped, Input::Checked(Finding::Seen { supervisor, .. })) => {
                match supervisor {
                    Reading::Down if matches!(setting.kind.tells, Tells::Job) => {
                        !self.supervisor.wants_up || self.supervisor.idle
                    }
                    Reading::Down => true,
                    Reading::Up => false,
                    // Nobody came for as long as `successor_timeout`.
                    Reading::Unreadable | Reading::Lost => {
                        let excused = supervisor == Reading::Lost || !own.told_restart;
                        unclaimed && excused
                    }
                }
            }
            _ => false,
        };
        if matches!(reason, DrainReason::Stopped) {
            self.net_excuse();
        }
        if !excused {
            self.fault(Promise::P1, "a generation stops serving, and no successor is ready");
        }
    }
}
