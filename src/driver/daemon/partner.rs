//! The lifeline in a daemon: what the other generation of a probation says, and when it ends.

use super::events::{Events, Stage1};
use crate::driver::control;
use crate::driver::generation::Service;
use crate::driver::generation::probation::{Others, Partner};
use crate::driver::log::{self, probation::Event as Line};
use crate::driver::settings::Check;
use crate::driver::shared::{Daemon, PROCESS};
use crate::driver::sockets::{flows, give, stages};
use crate::driver::threads::spawn;
use crate::error::Result;
use crate::proto::control::frame::{self, Answer, Request};
use crate::proto::daemon::health::{self, Health};
use crate::proto::daemon::{CommitTried, Event, Input, NewFlows, Output, RollbackCause, Word};
use crate::shutdown::lock;
use crate::sys::proc;
use crate::sys::seqpacket::Arrival;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

impl Partner {
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.link.iter().map(|link| link.as_fd()).chain([self.held.as_fd()])
    }

    fn say(&self, word: Word) {
        if let Some(link) = &self.link {
            // If its queue is full, it hangs; if it has ended, its pidfd tells.
            _ = link.send(&Request::Say(word).format(), &[]);
        }
    }
}

impl Events {
    /// Called before the timers fire, since that of the probation may be due as well.
    pub(super) fn look_at_silence(&mut self) {
        let Some(elapsed_ms) = self.said_well.map(|said| said.elapsed()) else { return };
        if lock(&self.daemon.machine).begins_anew(elapsed_ms) {
            log::write(Line::BeginsAnew { generation: self.daemon.generation(), elapsed_ms });
            self.probation_begins();
            self.feed(Input::Probation(Event::WasSilent));
        }
    }

    fn probation_begins(&mut self) {
        let now = Some(Instant::now());
        (self.said_well, lock(&self.daemon.past).probation_since) = (now, now);
    }

    pub(super) fn look_at_partner(&mut self) {
        while let Some(Partner { link: Some(link), .. }) = &self.partner {
            match link.receive(frame::MESSAGE_MAX) {
                Arrival::Message(message) => {
                    if let Ok(Request::Say(word)) = Request::parse(&message.bytes) {
                        self.feed(Input::Probation(Event::Heard(word)));
                    }
                }
                Arrival::Nothing | Arrival::OutOfMemory => break,
                Arrival::Closed => {
                    if let Some(partner) = &mut self.partner {
                        partner.link = None;
                    }
                    self.feed(Input::Probation(Event::HungUp));
                }
            }
        }
        if self.partner.take_if(|partner| partner.held.has_ended()).is_some() {
            self.feed(Input::Probation(Event::PartnerEnded));
        }
    }

    pub(super) fn perform_of_probation(&mut self, output: Output, inputs: &mut VecDeque<Input>) {
        let Some(service) = &self.daemon.service else { return };
        match output {
            Output::TryCommit => {
                let tried = service.try_commit();
                if tried == CommitTried::Written {
                    control::drop_name(&service.pid_file);
                    log::write(Line::Committed { generation: service.number() });
                }
                inputs.push_back(Input::Probation(Event::CommitTried(tried)));
            }
            Output::StandBy(stands) => {
                let Some(partner) = lock(&self.daemon.partner).take() else { return };
                let answer = match stands {
                    true => Answer::Accepted,
                    false => Answer::Refused("it does not serve, or is on probation".to_owned()),
                };
                if let Some(link) = &partner.link {
                    _ = link.send(&answer.format(), &[]);
                }
                if stands {
                    log::write(Line::StandsBy {
                        generation: service.number(),
                        successor_generation: partner.number,
                    });
                    self.partner = Some(partner);
                }
            }
            Output::RunStandbyHooks => _ = self.request_stage.send(Stage1::Standby),
            Output::Say(Word::Told) => {
                if let Some(link) = lock(&self.daemon.waits_at).as_ref() {
                    _ = link.send(&Request::Say(Word::Told).format(), &[]);
                }
            }
            Output::SteerFlows(to) => flows::steer_to(match to {
                NewFlows::Ours => service.number().unwrap_or_default(),
                NewFlows::Of(number) => number,
            }),
            Output::Say(word) => {
                if word != Word::Well {
                    flows::written();
                }
                if let Some(partner) = &self.partner {
                    partner.say(word);
                }
                if word == Word::Well {
                    self.said_well = Some(Instant::now());
                }
            }
            Output::Go => self.let_candidates_go(),
            Output::LogHooksHang => log::write(Line::HooksHang { generation: service.number() }),
            Output::LogNotResumed if self.not_resumed.is_due() => {
                log::write(Line::NotResumed { generation: service.number() });
            }
            Output::HangUp => (self.partner, self.said_well) = (None, None),
            Output::LookForNewer => {
                let newer;
                (newer, self.partner) = service.newest_newer();
                inputs.push_back(Input::Probation(Event::Newer(newer)));
            }
            Output::LookForDump => {
                let partner = self.partner.as_ref();
                let dumps = partner.is_some_and(|partner| {
                    proc::dumps_core(partner.pid) && !partner.held.has_ended()
                });
                if dumps {
                    inputs.push_back(Input::Probation(Event::Dumps));
                }
            }
            Output::TakeBack(cause) => {
                let taken = service.take_back(cause, |others| take_back(service, others));
                inputs.push_back(Input::Probation(Event::TakenBack(taken)));
            }
            _ => {}
        }
    }

    /// Before the machine is told: it may answer to the other generation.
    pub(super) fn meet_partner(&mut self, event: Event) {
        if event == Event::OnProbation {
            self.partner = lock(&self.daemon.partner).take();
            self.probation_begins();
            let check = lock(&PROCESS.probation_check).take();
            if let (Some(partner), Some(service)) = (&self.partner, &self.daemon.service) {
                log::write(Line::Begins {
                    generation: service.number(),
                    predecessor_generation: partner.number,
                    limit_ms: service.probation.unwrap_or_default(),
                });
            }
            if let Some(check) = check {
                ask_each_second(self.daemon, check);
            }
        }
    }
}

/// Under the claim.
fn take_back(service: &Service, others: Others) -> Result<()> {
    match others {
        Others::Successor(number) => flows::steer_to(number),
        Others::Failed { with_flows, newer } => {
            let named = flows::named(service);
            control::place_again(&service.pid_file, &PROCESS.server, named)?;
            stages::steer_back();
            flows::take_over(service.number().unwrap_or_default(), &with_flows);
            if let Some(server) = PROCESS.server.get() {
                server.watch(newer);
            }
            give::again();
        }
    }
    Ok(())
}

/// Asks until the probation is over. The program answers on a thread of its own, since it may hang.
fn ask_each_second(daemon: &'static Daemon, mut check: Check) {
    let (asks, asked) = mpsc::channel::<()>();
    let (answers, answered) = mpsc::channel();
    let answering = spawn("seamless-check", move || {
        for () in asked {
            let answer = catch_unwind(AssertUnwindSafe(&mut check));
            _ = answers.send(answer.map_or(Health::Panicked, Health::Says));
        }
    });
    let asking = spawn("seamless-probation", move || {
        loop {
            thread::sleep(health::ASK);
            if !lock(&daemon.machine).is_on_probation() {
                return;
            }
            daemon.post(Input::Probation(Event::Check { asked: true }));
            let answer =
                asks.send(()).ok().and_then(|()| answered.recv_timeout(health::ANSWER).ok());
            let Some(why) = answer.unwrap_or(Health::Silent).fails() else {
                daemon.post(Input::Probation(Event::Check { asked: false }));
                continue;
            };
            if !lock(&daemon.machine).is_on_probation() {
                return; // it has ended meanwhile
            }
            log::write(Line::Unhealthy { generation: daemon.generation(), reason: why });
            return daemon.post(Input::Probation(Event::RollBack(RollbackCause::Unhealthy)));
        }
    });
    if let Err(error) = answering.and(asking) {
        log::write(Line::Unhealthy { generation: daemon.generation(), reason: &error.to_string() });
        daemon.post(Input::Probation(Event::RollBack(RollbackCause::Unhealthy)));
    }
}
