//! A keeper process: its machine, driven as `driver::keeper` drives it.

use super::net::Cookie;
use super::trace::say;
use super::world::{Id, Promise, Setting, World};
use crate::machines::Keeper;
use crate::proto::daemon::Phase;
use crate::proto::generation::record::LineState;
use crate::proto::keeper::{Input, Output, Seen, Timer};
use crate::proto::launcher::Keeper as Told;
use crate::proto::sockets::pool::Entry;
use crate::variants::{self, Variant};
use std::collections::VecDeque;
use std::time::Duration;

/// The keeper that stands for this generation, where a daemon's number is expected.
pub(crate) const fn keeper_of(id: Id) -> Id {
    64 + id
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KeeperProcess {
    machine: Keeper,
    /// It has read what its launcher has sent.
    gathered: bool,
    /// How many sockets it holds.
    holds: usize,
    /// What it has still to do.
    steps: VecDeque<Step>,
    /// It waits for the claim.
    again: bool,
    /// The check timer runs.
    checks: bool,
    /// A TERM is pending.
    pub(crate) term: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Perform(Output),
    Enter,
}

/// What a keeper can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeeperAction {
    /// The next thing that it has to do.
    Step,
    Term,
    Check,
    /// It has waited for the claim for a second.
    ClaimTimeout,
    /// `keep_sockets` is over.
    Over,
}

const KEEP_SOCKETS: Duration = Duration::from_secs(10);

impl World {
    pub(crate) fn keeper(&self, id: Id) -> Option<&KeeperProcess> {
        self.at(id).keeper.as_ref()
    }

    fn keeper_mut(&mut self, id: Id) -> Option<&mut KeeperProcess> {
        self.at_mut(id).keeper.as_mut()
    }

    /// `Driver::start_keeper` of the launcher.
    pub(crate) fn start_keeper(&mut self, id: Id, holds: &[Entry<Cookie>]) {
        say(|| format!("  a keeper is started for daemon {id}"));
        self.at_mut(id).keeper = Some(KeeperProcess {
            machine: Keeper::new(KEEP_SOCKETS, Duration::ZERO, false),
            gathered: false,
            holds: holds.len(),
            steps: VecDeque::new(),
            again: false,
            checks: false,
            term: false,
        });
    }

    pub(crate) fn keeper_ends(&mut self, id: Id, why: &str) {
        if self.at_mut(id).keeper.take().is_some() {
            say(|| format!("keeper of generation {id} is gone: {why}"));
            if self.claim == Some(keeper_of(id)) {
                self.claim = None;
            }
            self.net_keeper_ends(id);
            self.tell_of_keeper(id, Told::Gone);
        }
    }

    fn tell_of_keeper(&mut self, id: Id, told: Told) {
        if self.launcher(id).is_some() {
            self.at_mut(id).of_keeper.push(told);
        }
    }

    /// What can happen to this keeper by itself.
    pub(crate) fn keeper_fair(&self, id: Id, may: &mut impl FnMut(bool, KeeperAction)) {
        let Some(keeper) = self.keeper(id) else { return };
        let held = self.claim.is_some_and(|holder| holder != keeper_of(id));
        let steps = !keeper.gathered || !keeper.steps.is_empty();
        may(steps || keeper.again && !held, KeeperAction::Step);
        may(!steps && keeper.term, KeeperAction::Term);
        // The signals are taken first.
        may(!steps && !keeper.term && keeper.checks, KeeperAction::Check);
        may(!steps && keeper.again && self.is_claimed_for_long(), KeeperAction::ClaimTimeout);
    }

    /// A generation that is starting holds the claim. A check and a keeper hold it for a moment only.
    pub(crate) fn is_claimed_for_long(&self) -> bool {
        let holder = self.claim.filter(|holder| *holder < keeper_of(0));
        let holder = holder.and_then(|holder| self.daemon(holder));
        holder.is_some_and(|daemon| daemon.machine.phase() == Phase::Starting)
    }

    /// An orphan that starts has the claim: a keeper does not wait for it.
    pub(crate) fn excuse_long_claim(&mut self) {
        if self.claim.is_some_and(|holder| !self.is_supervised(holder % keeper_of(0))) {
            self.net_excuse_keeper();
        }
    }

    pub(crate) fn may_be_over(&self, id: Id) -> bool {
        self.keeper(id).is_some_and(|keeper| keeper.checks && keeper.steps.is_empty())
    }

    pub(crate) fn keeper_act(&mut self, id: Id, action: KeeperAction, setting: &Setting) {
        let fired = |timer| Input::Timer { timer, transferring: false };
        let Some(keeper) = self.keeper_mut(id) else { return };
        match action {
            KeeperAction::Step => {
                if !std::mem::replace(&mut keeper.gathered, true) {
                    let count = keeper.holds;
                    self.tell_keeper(id, Input::Gathered(count));
                } else if let Some(step) = keeper.steps.pop_front() {
                    self.keeper_step(id, step, setting);
                } else {
                    keeper.again = false;
                    self.tell_keeper(id, fired(Timer::ClaimAgain));
                }
            }
            KeeperAction::Term => {
                keeper.term = false;
                if !variants::is(Variant::KeeperDeaf) {
                    self.tell_keeper(id, Input::Term);
                }
            }
            KeeperAction::Check => self.tell_keeper(id, fired(Timer::Check)),
            KeeperAction::ClaimTimeout => {
                say(|| format!("keeper of generation {id} has waited for the claim for a second"));
                self.excuse_long_claim();
                self.tell_keeper(id, fired(Timer::Claim));
            }
            KeeperAction::Over => {
                self.budget.limits -= 1;
                self.net_excuse_keeper();
                let transferring = self.net_keeper_transfers(id);
                self.tell_keeper(id, Input::Timer { timer: Timer::Over, transferring });
            }
        }
        // A check is one step with what it asks.
        while let Some(Step::Perform(Output::Check)) =
            self.keeper(id).and_then(|keeper| keeper.steps.front()).copied()
        {
            self.keeper_mut(id).expect("it checks").steps.pop_front();
            self.keeper_step(id, Step::Perform(Output::Check), setting);
        }
    }

    fn tell_keeper(&mut self, id: Id, input: Input) {
        let Some(keeper) = self.keeper_mut(id) else { return };
        let outputs = keeper.machine.on(input);
        for output in outputs {
            say(|| format!("  keeper of generation {id}: {output:?}"));
            let keeper = self.keeper_mut(id).expect("it lives");
            match output {
                Output::Arm(Timer::Check, _) => keeper.checks = true,
                Output::Arm(Timer::ClaimAgain, _) => keeper.again = true,
                Output::Arm(Timer::Claim | Timer::Over, _) => {}
                Output::Place(_) => keeper.steps.extend([Step::Perform(output), Step::Enter]),
                Output::End(why) => {
                    return self.keeper_ends(id, why.text());
                }
                _ => keeper.steps.push_back(Step::Perform(output)),
            }
        }
    }

    fn keeper_step(&mut self, id: Id, step: Step, setting: &Setting) {
        match step {
            Step::Perform(Output::Claim) => {
                if self.claim.is_some() {
                    return self.tell_keeper(id, Input::ClaimHeld);
                }
                say(|| format!("keeper of generation {id} has the claim"));
                self.claim = Some(keeper_of(id));
                let state = |one: &Id| {
                    let facts = self.facts(*one, keeper_of(id), setting);
                    let state = match (facts.serves, facts.keeps) {
                        (true, _) => LineState::Serving,
                        (false, true) => LineState::Keeping,
                        (false, false) => LineState::Draining,
                    };
                    (Some(state), facts.lives())
                };
                let others = self.record.iter().filter(|one| **one != id).map(state).collect();
                let seen = Seen { others, crashes: None, now: Duration::ZERO };
                self.tell_keeper(id, Input::Claimed(seen));
            }
            Step::Perform(Output::Place(_)) => self.net_keeper_listens(id),
            Step::Enter => {
                say(|| format!("keeper of generation {id} enters the record"));
                self.record.retain(|one| *one != id);
                self.record.push(id);
                self.at_mut(id).is_keeper = true;
                self.net_keeper_entered(id);
            }
            Step::Perform(Output::GiveUpClaim) => {
                if self.claim == Some(keeper_of(id)) {
                    self.claim = None;
                }
            }
            Step::Perform(Output::TellInPlace) => self.tell_of_keeper(id, Told::InPlace),
            Step::Perform(Output::Check) => {
                let reading = self.reading(id, None, setting);
                let supervisor = match variants::is(Variant::KeeperOutstays) {
                    true => crate::proto::Reading::Up,
                    false => reading,
                };
                let path_lost = self.net_keeper_lost_path(id)
                    && self.claim.is_none()
                    && !variants::is(Variant::KeeperNotMended);
                self.tell_keeper(id, Input::Checked { supervisor, path_lost });
            }
            Step::Perform(Output::Arm(..) | Output::End(_)) => {}
        }
    }

    /// What must hold of keepers where nothing happens any more.
    pub(crate) fn check_keepers_at_rest(&mut self, serving: &[Id], setting: &Setting) {
        for id in self.ids().filter(|id| self.keeper(*id).is_some()).collect::<Vec<Id>>() {
            let refused = self.at(id).refused;
            if serving.iter().any(|one| self.at(*one).number > self.at(id).number) && !refused {
                self.fault(Promise::P4, "a keeper outlives the takeover");
            }
            let alone = serving.is_empty() && self.claim.is_none();
            if alone && self.supervisor.wants_up && self.net_keeper_lost_path(id) {
                self.fault(Promise::P4, "the next start does not find the keeper");
            }
            let told = setting.readable && self.supervisor.instance == 0;
            if told && !self.supervisor.wants_up {
                self.fault(Promise::P6, "wanted down, and a keeper lives on");
            }
        }
    }
}
