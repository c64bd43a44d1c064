//! The walks: within which bounds the protocol keeps its promises, whatever happens in which order.
//! Each of them looks for all promises; its name says which one its events press hardest.
//!
//! `scripts/model --deep` walks further.

use super::super::Kind;
use super::world::{Budget, Setting, World};
use super::{Protocol, trace};
use stateright::{Checker, HasDiscoveries, Model};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io::Write as _;
use std::time::Instant;

/// Supervisors whose launcher learns what a TERM means, with a status that can be read or not.
const TELLING: [(Kind, bool); 3] =
    [(Kind::Daemontools, true), (Kind::Daemontools, false), (Kind::Runit, true)];
/// Supervisors whose launcher does not.
const SILENT: [(Kind, bool); 2] = [(Kind::Runit, false), (Kind::Other, false)];

pub(super) const NONE: Budget = Budget {
    commands: 0,
    reloads: 0,
    kills: 0,
    bad: 0,
    direct: 0,
    losses: 0,
    removals: 0,
    reuses: 0,
    slow: 0,
    limits: 0,
    by_hand: 0,
};

/// Shown also where the test passes.
pub(super) fn print(line: &str) {
    _ = writeln!(std::io::stderr(), "{line}");
}

fn is_deep() -> bool {
    std::env::var("SEAMLESS_MODEL").is_ok_and(|value| value == "deep")
}

impl Setting {
    pub(super) fn name(&self) -> String {
        let readable = match (self.kind.restarts(), self.readable) {
            (true, true) => " (status readable)",
            (true, false) => " (status not readable)",
            (false, _) => "",
        };
        let Budget {
            commands,
            reloads,
            kills,
            bad,
            direct,
            losses,
            removals,
            reuses,
            slow,
            limits,
            by_hand,
        } = self.budget;
        let counts = [
            (self.starts, "generations"),
            (commands, "commands"),
            (reloads, "reloads"),
            (kills, "kills"),
            (bad, "bad deploys"),
            (direct, "direct signals"),
            (losses, "refused signals"),
            (removals, "PID files removed"),
            (reuses, "PIDs reused"),
            (slow, "slow checks"),
            (limits, "limits passed"),
            (by_hand, "started by hand"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<String> = counts.map(|(count, of)| format!("{of} {count}")).collect();
        format!("{}{readable}: {}", self.kind.name(), counts.join(", "))
    }
}

/// Walks all that can happen within the bounds, and finds nothing wrong.
fn walk(setting: Setting) {
    let began = Instant::now();
    let protocol = Protocol { setting, broken: None };
    let checker =
        protocol.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_dfs().join();
    print(&format!(
        "{}: {} states, {} steps, at most {} in a row, {:.1} s",
        setting.name(),
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f64(),
    ));
    if let Some((promise, way)) = checker.discoveries().into_iter().next() {
        panic!("{promise}\n{}", trace::render(&protocol, &way.into_actions()));
    }
}

/// Walks under each of these supervisors. `deep`: what is added for the long run.
fn walk_under(
    supervisors: &[(Kind, bool)],
    starts: u8,
    budget: Budget,
    deep: impl Fn(&mut Setting),
) {
    for (kind, readable) in supervisors {
        let (kind, readable) = (*kind, *readable);
        let mut setting = Setting { kind, readable, in_place: false, starts, budget };
        if is_deep() {
            deep(&mut setting);
        }
        walk(setting);
    }
}

fn walk_under_all(starts: u8, budget: Budget, deep: impl Fn(&mut Setting)) {
    walk_under(&TELLING, starts, budget, &deep);
    walk_under(&SILENT, starts, budget, &deep);
}

#[test]
fn p1_a_bad_deploy_costs_nothing() {
    walk_under_all(4, Budget { commands: 1, bad: 2, ..NONE }, |one| one.budget.kills = 1);
}

#[test]
fn p3_a_drain_is_cut_by_its_limit_or_on_demand_only() {
    let budget = Budget { commands: 1, direct: 1, limits: 1, ..NONE };
    walk_under_all(3, budget, |one| one.budget.kills = 1);
}

#[test]
fn p4_restarts_end_with_the_newest_alone() {
    let told = Budget { commands: 2, losses: 1, ..NONE };
    walk_under(&TELLING, 3, told, |one| one.budget.removals = 1);
    let not_told = Budget { commands: 1, losses: 1, ..NONE };
    walk_under(&SILENT, 3, not_told, |one| one.budget.commands = 2);
    if is_deep() {
        walk_under_all(4, Budget { commands: 3, ..NONE }, |_| {});
        let pair = Budget { commands: 2, kills: 1, direct: 1, losses: 1, ..NONE };
        walk_under(&TELLING, 2, pair, |_| {});
    }
}

#[test]
fn p5_no_process_of_others_is_signalled() {
    let reuse = Budget { kills: 1, reuses: 1, slow: 1, ..NONE };
    walk_under_all(3, reuse, |one| one.budget.commands = 1);
    let by_hand = Budget { commands: 1, by_hand: 1, ..NONE };
    walk_under_all(3, by_hand, |one| one.budget.kills = 1);
}

#[test]
fn p6_down_means_that_all_are_gone() {
    let told = Budget { commands: 2, bad: 1, ..NONE };
    walk_under(&TELLING, 3, told, |one| one.budget.kills = 1);
    walk_under(&SILENT, 3, Budget { commands: 2, ..NONE }, |one| one.budget.bad = 1);
}

#[test]
fn p6_without_a_supervisor_term_is_a_stop() {
    let budget = Budget { commands: 2, kills: 1, direct: 1, bad: 1, limits: 1, ..NONE };
    walk(Setting { kind: Kind::Nobody, readable: false, in_place: false, starts: 1, budget });
}

#[test]
fn p8_no_daemon_outlives_its_launcher_unnoticed() {
    walk_under_all(3, Budget { kills: 2, ..NONE }, |one| one.budget.slow = 1);
}

#[test]
fn p9_any_process_may_be_killed_anywhere() {
    walk_under_all(3, Budget { commands: 1, kills: 1, ..NONE }, |one| one.budget.kills = 2);
    let files = Budget { kills: 2, removals: 1, ..NONE };
    walk_under(&TELLING, 3, files, |one| one.budget.slow = 1);
    if is_deep() {
        walk_under(&TELLING, 3, Budget { commands: 2, kills: 1, ..NONE }, |_| {});
    }
}

/// Launchers that restart in place, under a supervisor or none.
fn walk_in_place(kind: Kind, starts: u8, budget: Budget, deep: impl Fn(&mut Setting)) {
    let readable = kind.restarts();
    let mut setting = Setting { kind, readable, in_place: true, starts, budget };
    if is_deep() {
        deep(&mut setting);
    }
    walk(setting);
}

#[test]
fn p1_p4_p9_a_restart_in_place() {
    let more = |setting: &mut Setting| setting.budget.kills += 1;
    let bad = Budget { reloads: 2, bad: 2, ..NONE };
    walk_in_place(Kind::Nobody, 3, bad, more);
    let kill = Budget { reloads: 1, kills: 1, ..NONE };
    walk_in_place(Kind::Nobody, 3, kill, more);
    let told = Budget { reloads: 1, bad: 1, commands: 1, ..NONE };
    walk_in_place(Kind::Nobody, 3, told, more);
    walk_in_place(Kind::Daemontools, 3, Budget { reloads: 1, commands: 1, ..NONE }, more);
    walk_in_place(Kind::Runit, 3, Budget { reloads: 1, kills: 1, ..NONE }, more);
    let by_itself = Budget { reloads: 1, direct: 1, losses: 1, ..NONE };
    walk_in_place(Kind::Other, 3, by_itself, more);
}

/// "In the end" is looked for where nothing happens any more, so no run may go round in circles.
#[test]
fn every_run_ends() {
    #[derive(PartialEq)]
    enum Visit {
        Begun,
        Done,
    }
    let hasher = RandomState::new();
    for (kind, readable) in [TELLING.as_slice(), &SILENT].concat() {
        let mut budget = Budget { commands: 1, kills: 1, losses: 1, slow: 1, ..NONE };
        if is_deep() {
            budget = Budget { removals: 1, reuses: 1, direct: 1, ..budget };
        }
        let setting = Setting { kind, readable, in_place: false, starts: 2, budget };
        let protocol = Protocol { setting, broken: None };
        let start = World::new(&setting);
        let number = hasher.hash_one(&start);
        let mut visits = HashMap::from([(number, Visit::Begun)]);
        let mut way = vec![(number, protocol.next_states(&start))];
        while let Some((number, next)) = way.last_mut() {
            let Some(world) = next.pop() else {
                visits.insert(*number, Visit::Done);
                way.pop();
                continue;
            };
            let number = hasher.hash_one(&world);
            match visits.get(&number) {
                Some(Visit::Begun) => panic!("a circle through {world:?}"),
                Some(Visit::Done) => {}
                None => {
                    visits.insert(number, Visit::Begun);
                    way.push((number, protocol.next_states(&world)));
                }
            }
        }
        print(&format!("{}: {} states, no circle", setting.name(), visits.len()));
    }
}
