//! The walks: within which bounds the protocol keeps its promises, whatever happens in which order.
//! Each of them looks for all promises; its name says which one its events press hardest.
//!
//! `scripts/model --deep` walks further.

use super::flows::Steered;
use super::net::{Ask, At, Sockets};
use super::supervisors::Manner;
use super::world::{Budget, RecordOf, Setting, World};
use crate::proto::Kind;
use crate::proto::supervisor::Tells;
use crate::{Protocol, Test, tests, trace};
use stateright::{Checker, HasDiscoveries, Model};
use std::collections::HashMap;
use std::io::Write as _;
use std::time::Instant;

/// Supervisors whose launcher learns what a TERM means, with a status that can be read or not.
const TELLING: [(Kind, bool); 3] =
    [(Kind::DAEMONTOOLS, true), (Kind::DAEMONTOOLS, false), (Kind::RUNIT, true)];
/// Supervisors whose launcher does not.
const SILENT: [(Kind, bool); 2] = [(Kind::RUNIT, false), (Kind::OTHER, false)];

pub(crate) const NONE: Budget = Budget {
    commands: 0,
    reloads: 0,
    kills: 0,
    bad: 0,
    direct: 0,
    halts: 0,
    losses: 0,
    removals: 0,
    reuses: 0,
    slow: 0,
    short: 0,
    limits: 0,
    by_hand: 0,
    elsewhere: 0,
    planted: 0,
    connections: 0,
    cuts: 0,
    waits: 0,
};

const RESTART: Budget = Budget { commands: 1, ..NONE };

pub(crate) const ALL: &[Test] = tests![
    p1_a_bad_deploy_costs_nothing,
    p3_a_drain_is_cut_by_its_limit_or_on_demand_only,
    p4_restarts_end_with_the_newest_alone,
    p5_no_process_of_others_is_signalled,
    p6_down_means_that_all_are_gone,
    p6_without_a_supervisor_term_is_a_stop,
    p8_no_daemon_outlives_its_launcher_unnoticed,
    p9_any_process_may_be_killed_anywhere,
    p1_p9_an_orphan_that_starts_ends,
    p4_p5_without_pidfds,
    p5_another_pid_namespace,
    p4_p5_a_record_of_another_user,
    p4_p8_checks_that_fail,
    p4_p6_hooks_hold_back_signals,
    p1_p4_p9_a_restart_in_place,
    p1_p4_p6_quit_to_a_launcher,
    p2_a_restart_loses_no_connection,
    p2_nor_does_one_that_fails,
    p2_p9_what_waits_outlives_a_kill,
    p2_in_place,
    p2_sockets_that_the_supervisor_keeps,
    p12_a_crash_refuses_nobody,
    p12_in_place,
    p3_p4_p6_a_stop_leaves_and_then_drains,
    p4_p11_a_stop_in_a_probation_and_in_place,
    p4_p11_a_new_generation_that_fails_is_replaced_by_the_proven_one,
    p1_p4_p6_p11_a_rejected_file_waits_for_the_generation_that_serves,
    p4_p6_p11_a_third_generation_and_a_stop_in_the_window,
    p11_probation_in_place,
    s6,
    systemd,
    supervisord,
    openrc,
    an_invented_kind,
    every_run_ends,
    p14_no_death_and_no_restart_leads_a_flow_astray,
    p14_no_rollback_leads_a_flow_astray,
    p14_in_place,
    p12_p14_the_keeper_has_the_group_as_well,
    all_mechanisms_together,
    p13_p9_each_connection_is_served_once,
];

/// Shown also where the test passes.
pub(crate) fn print(line: &str) {
    _ = writeln!(std::io::stderr(), "{line}");
}

pub(crate) fn is_deep() -> bool {
    std::env::var("SEAMLESS_MODEL").is_ok_and(|value| value == "deep")
}

impl Setting {
    pub(crate) fn name(&self) -> String {
        let tells = !matches!(self.kind.tells, Tells::Never);
        let readable = match (tells, self.readable) {
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
            halts,
            losses,
            removals,
            reuses,
            slow,
            short,
            limits,
            by_hand,
            elsewhere,
            planted,
            connections,
            cuts,
            waits,
        } = self.budget;
        let counts = [
            (self.starts, "generations"),
            (commands, "commands"),
            (reloads, "reloads"),
            (kills, "kills"),
            (bad, "bad deploys"),
            (direct, "direct signals"),
            (halts, "QUITs"),
            (losses, "refused signals"),
            (removals, "PID files removed"),
            (reuses, "PIDs reused"),
            (slow, "slow checks"),
            (short, "times out of memory"),
            (limits, "limits passed"),
            (by_hand, "started by hand"),
            (elsewhere, "started elsewhere"),
            (planted, "lines planted"),
            (connections, "connections"),
            (cuts, "takeovers cut"),
            (waits, "rejected files that wait"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<String> = counts.map(|(count, of)| format!("{of} {count}")).collect();
        let place = if self.in_place { ", in place" } else { "" };
        let sockets = self.sockets.map(|sockets| format!(", {}", sockets.name)).unwrap_or_default();
        let kind = self.kind.name;
        let lock = if self.by_lock { ", without pidfds" } else { "" };
        let flows = self.flows.map(|steered| {
            let from = if steered.from_the_end { ", closed from the end" } else { "" };
            format!(", a steered group of {:?}{from}", steered.members)
        });
        let flows = flows.unwrap_or_default();
        let keeps = if self.keeps { ", keep_sockets" } else { "" };
        let probation = if self.probation { ", probation" } else { "" };
        let leaves = if self.leaves { ", leave_time" } else { "" };
        let moves = if self.moves { ", connections that move" } else { "" };
        let hooks = if self.hooks { ", hooks before signals" } else { "" };
        let record = match self.record {
            RecordOf::Ours => "",
            RecordOf::DaemonsUser => ", as root with a record of the daemons' user",
            RecordOf::Another => ", with a record of another user",
        };
        let shut_out = if self.shut_out { ", shut out of the lock file" } else { "" };
        let manner = self.manner.name;
        let counts = counts.join(", ");
        format!(
            "{kind}{readable}{manner}{place}{sockets}{flows}{keeps}{probation}{leaves}{moves}{lock}{shut_out}{hooks}{record}: {counts}"
        )
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
        let mut setting = Setting::new(kind, readable, starts, budget);
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

fn p1_a_bad_deploy_costs_nothing() {
    walk_under_all(4, Budget { commands: 1, bad: 2, ..NONE }, |one| one.budget.kills = 1);
}

fn p3_a_drain_is_cut_by_its_limit_or_on_demand_only() {
    let budget = Budget { commands: 1, direct: 1, limits: 1, ..NONE };
    walk_under_all(3, budget, |one| one.budget.kills = 1);
}

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

fn p5_no_process_of_others_is_signalled() {
    let reuse = Budget { kills: 1, reuses: 1, slow: 1, ..NONE };
    walk_under_all(3, reuse, |one| one.budget.commands = 1);
    let by_hand = Budget { commands: 1, by_hand: 1, ..NONE };
    walk_under_all(3, by_hand, |one| one.budget.kills = 1);
}

fn p6_down_means_that_all_are_gone() {
    let told = Budget { commands: 2, bad: 1, ..NONE };
    walk_under(&TELLING, 3, told, |one| one.budget.kills = 1);
    walk_under(&SILENT, 3, Budget { commands: 2, ..NONE }, |one| one.budget.bad = 1);
}

fn p6_without_a_supervisor_term_is_a_stop() {
    let budget = Budget { commands: 2, kills: 1, direct: 1, bad: 1, limits: 1, ..NONE };
    walk(Setting::new(Kind::NOBODY, false, 1, budget));
}

fn p8_no_daemon_outlives_its_launcher_unnoticed() {
    walk_under_all(3, Budget { kills: 2, ..NONE }, |one| one.budget.slow = 1);
}

fn p9_any_process_may_be_killed_anywhere() {
    walk_under_all(3, Budget { commands: 1, kills: 1, ..NONE }, |one| one.budget.kills = 2);
    let files = Budget { kills: 2, removals: 1, ..NONE };
    walk_under(&TELLING, 3, files, |one| one.budget.slow = 1);
    if is_deep() {
        walk_under(&TELLING, 3, Budget { commands: 2, kills: 1, ..NONE }, |_| {});
    }
}

/// Who starts, and has lost its supervisor, makes room for the next.
fn p1_p9_an_orphan_that_starts_ends() {
    for kind in [Kind::DAEMONTOOLS, Kind::RUNIT] {
        walk(Setting::new(kind, true, 3, Budget { bad: 2, kills: 1, ..NONE }));
    }
}

/// Nothing can be proven: the lock on the PID file decides.
fn p4_p5_without_pidfds() {
    for budget in [
        Budget { commands: 2, ..NONE },
        Budget { commands: 1, kills: 1, ..NONE },
        Budget { commands: 1, bad: 1, ..NONE },
        Budget { kills: 1, reuses: 1, ..NONE },
    ] {
        walk(Setting { by_lock: true, ..daemontools(3, budget) });
    }
    let busy = Budget { commands: 1, connections: 1, ..NONE };
    walk_sockets(Setting { by_lock: true, ..daemontools(2, busy) }, SAME);
}

fn p5_another_pid_namespace() {
    for budget in [
        Budget { commands: 1, elsewhere: 1, ..NONE },
        Budget { kills: 1, elsewhere: 1, ..NONE },
        Budget { removals: 1, elsewhere: 1, ..NONE },
    ] {
        walk(daemontools(3, budget));
        walk(Setting { by_lock: true, ..daemontools(3, budget) });
    }
}

fn p4_p5_a_record_of_another_user() {
    let told = Budget { commands: 2, ..NONE };
    let planted = Budget { commands: 1, planted: 1, ..NONE };
    let kill = Budget { commands: 1, kills: 1, ..NONE };
    for budget in [told, planted, kill] {
        walk(Setting { record: RecordOf::DaemonsUser, ..daemontools(3, budget) });
    }
    for budget in [told, planted] {
        walk(Setting { record: RecordOf::Another, ..daemontools(3, budget) });
    }
}

/// A check that cannot be made, for now or ever.
fn p4_p8_checks_that_fail() {
    for kind in [Kind::DAEMONTOOLS, Kind::OTHER] {
        let short = Budget { commands: 1, losses: 1, short: 2, ..NONE };
        walk(Setting::new(kind, true, 3, short));
    }
    walk(daemontools(2, Budget { commands: 2, short: 1, ..NONE }));
    let refused = Budget { commands: 1, losses: 1, ..NONE };
    walk(Setting { shut_out: true, ..daemontools(3, refused) });
}

fn p4_p6_hooks_hold_back_signals() {
    for (kind, readable) in [(Kind::DAEMONTOOLS, true), (Kind::RUNIT, true), (Kind::OTHER, false)] {
        let direct = Budget { commands: 1, direct: 1, ..NONE };
        walk(Setting { hooks: true, ..Setting::new(kind, readable, 2, direct) });
        let kill = Budget { commands: 1, kills: 1, ..NONE };
        walk(Setting { hooks: true, ..Setting::new(kind, readable, 2, kill) });
    }
    walk(Setting { hooks: true, ..daemontools(2, Budget { commands: 2, ..NONE }) });
    let reload = Budget { reloads: 1, commands: 1, ..NONE };
    let in_place = Setting::new(Kind::NOBODY, false, 2, reload);
    walk(Setting { hooks: true, in_place: true, ..in_place });
}

/// Launchers that restart in place, under a supervisor or none.
fn walk_in_place(kind: Kind, starts: u8, budget: Budget, deep: impl Fn(&mut Setting)) {
    let readable = kind.status_file().is_some();
    let mut setting = Setting { in_place: true, ..Setting::new(kind, readable, starts, budget) };
    if is_deep() {
        deep(&mut setting);
    }
    walk(setting);
}

fn p1_p4_p9_a_restart_in_place() {
    let more = |setting: &mut Setting| setting.budget.kills += 1;
    let bad = Budget { reloads: 2, bad: 1, ..NONE };
    walk_in_place(Kind::NOBODY, 3, bad, |setting| setting.budget.bad = 2);
    let kill = Budget { reloads: 1, kills: 1, ..NONE };
    walk_in_place(Kind::NOBODY, 3, kill, more);
    let told = Budget { reloads: 1, bad: 1, commands: 1, ..NONE };
    walk_in_place(Kind::NOBODY, 3, told, more);
    walk_in_place(Kind::DAEMONTOOLS, 3, Budget { reloads: 1, commands: 1, ..NONE }, more);
    walk_in_place(Kind::RUNIT, 3, Budget { reloads: 1, kills: 1, ..NONE }, more);
    let by_itself = Budget { reloads: 1, direct: 1, ..NONE };
    walk_in_place(Kind::OTHER, 3, by_itself, |setting| setting.budget.losses = 1);
    let lost = Budget { reloads: 1, losses: 1, ..NONE };
    walk_in_place(Kind::OTHER, 3, lost, more);
}

/// QUIT, to a program that does not handle it: a stop, unless the supervisor says otherwise.
fn p1_p4_p6_quit_to_a_launcher() {
    for (kind, readable) in [(Kind::DAEMONTOOLS, true), (Kind::RUNIT, true), (Kind::OTHER, false)] {
        walk(Setting::new(kind, readable, 3, Budget { commands: 1, halts: 1, ..NONE }));
    }
    walk(Setting::new(Kind::NOBODY, false, 1, Budget { commands: 1, halts: 2, ..NONE }));
    walk_in_place(Kind::NOBODY, 2, Budget { reloads: 1, halts: 1, ..NONE }, |_| {});
}

// ---- sockets ----

const WEB: Ask = Ask { at: At::Tcp(80), group: None };
const OLD: Ask = Ask { at: At::Tcp(81), group: None };
const PATH: Ask = Ask { at: At::Path(b'w'), group: None };
const ONE: Ask = Ask { at: At::Tcp(80), group: Some(1) };
const TWO: Ask = Ask { at: At::Tcp(80), group: Some(2) };

/// The same socket for every generation.
pub(crate) const SAME: Sockets =
    Sockets { name: "one socket", asks: &[&[WEB]], passed: &[], store: false };
/// Two, of which the successors ask for one.
pub(crate) const FEWER: Sockets = Sockets {
    name: "two sockets, then one",
    asks: &[&[WEB, OLD], &[WEB]],
    passed: &[],
    store: false,
};
/// A Unix socket.
pub(crate) const UNIX: Sockets =
    Sockets { name: "a Unix socket", asks: &[&[PATH]], passed: &[], store: false };
/// A group that becomes larger.
pub(crate) const MORE_MEMBERS: Sockets =
    Sockets { name: "a group of 1, then 2", asks: &[&[ONE], &[TWO]], passed: &[], store: false };
/// A group that becomes smaller.
pub(crate) const FEWER_MEMBERS: Sockets =
    Sockets { name: "a group of 2, then 1", asks: &[&[TWO], &[ONE]], passed: &[], store: false };
/// Of a socket unit.
pub(crate) const PASSED: Sockets =
    Sockets { name: "a passed socket", asks: &[&[WEB]], passed: &[At::Tcp(80)], store: false };
/// None but those of a steered group.
pub(crate) const NO_OTHERS: Sockets =
    Sockets { name: "no other sockets", asks: &[&[]], passed: &[], store: false };
/// In systemd's store.
pub(crate) const STORED: Sockets =
    Sockets { name: "stored sockets", asks: &[&[WEB, OLD], &[WEB]], passed: &[], store: true };

fn walk_sockets(setting: Setting, sockets: Sockets) {
    let mut setting = Setting { sockets: Some(sockets), ..setting };
    if is_deep() {
        setting.budget.kills += 1;
    }
    walk(setting);
}

fn daemontools(starts: u8, budget: Budget) -> Setting {
    Setting::new(Kind::DAEMONTOOLS, true, starts, budget)
}

fn p2_a_restart_loses_no_connection() {
    let restart = Budget { commands: 1, connections: 1, ..NONE };
    for sockets in [SAME, FEWER, UNIX, MORE_MEMBERS, FEWER_MEMBERS] {
        walk_sockets(daemontools(2, restart), sockets);
    }
    let busy = Budget { connections: 2, ..restart };
    walk_sockets(daemontools(2, busy), SAME);
}

fn p2_nor_does_one_that_fails() {
    let bad = Budget { commands: 1, bad: 1, connections: 1, ..NONE };
    for sockets in [SAME, MORE_MEMBERS] {
        walk_sockets(daemontools(3, bad), sockets);
    }
    let cut = Budget { commands: 1, cuts: 1, connections: 1, ..NONE };
    walk_sockets(daemontools(3, cut), UNIX);
    let removed = Budget { commands: 1, removals: 1, ..NONE };
    walk_sockets(daemontools(3, removed), UNIX);
    // Stopped while the successor takes over: a supervisor that tells at once has the fewest ways.
    walk_sockets(Setting::new(Kind::SYSTEMD, true, 2, Budget { commands: 2, ..NONE }), FEWER);
}

fn p2_p9_what_waits_outlives_a_kill() {
    let kill = Budget { commands: 1, kills: 1, connections: 1, ..NONE };
    walk_sockets(Setting::new(Kind::SYSTEMD, true, 2, kill), SAME);
    let kill = Budget { kills: 1, connections: 1, ..NONE };
    for sockets in [FEWER, UNIX, FEWER_MEMBERS] {
        walk_sockets(daemontools(3, kill), sockets);
    }
}

fn p2_in_place() {
    for kind in [Kind::NOBODY, Kind::DAEMONTOOLS] {
        let reload = Budget { reloads: 1, bad: 1, connections: 1, ..NONE };
        let setting = Setting { in_place: true, ..Setting::new(kind, true, 2, reload) };
        walk_sockets(setting, FEWER);
    }
    let removed = Budget { reloads: 1, removals: 1, ..NONE };
    let setting = Setting { in_place: true, ..Setting::new(Kind::NOBODY, false, 3, removed) };
    walk_sockets(setting, SAME);
}

fn p2_sockets_that_the_supervisor_keeps() {
    let kill = Budget { commands: 1, kills: 1, connections: 1, ..NONE };
    let restart = Budget { commands: 1, connections: 1, ..NONE };
    walk_sockets(Setting::new(Kind::SYSTEMD, true, 2, kill), PASSED);
    walk_sockets(Setting::new(Kind::SYSTEMD, true, 2, restart), STORED);
    walk_sockets(Setting::new(Kind::SYSTEMD, true, 3, Budget { kills: 1, ..NONE }), STORED);
    let killed = Setting { manner: Manner::MIXED, ..Setting::new(Kind::SYSTEMD, true, 2, restart) };
    for sockets in [PASSED, STORED] {
        walk_sockets(killed, sockets);
    }
}

// ---- the keeper ----

fn walk_keeper(setting: Setting) {
    walk_sockets(Setting { keeps: true, ..setting }, SAME);
}

fn p12_a_crash_refuses_nobody() {
    for (kind, readable) in [(Kind::DAEMONTOOLS, true), (Kind::RUNIT, true), (Kind::OTHER, false)] {
        let crash = Budget { kills: 1, connections: 1, ..NONE };
        walk_keeper(Setting::new(kind, readable, 3, crash));
    }
    // Crashes in a row, of the keeper and the launcher as well.
    walk_keeper(daemontools(3, Budget { kills: 2, ..NONE }));
    // While a predecessor drains, and during a takeover.
    walk_keeper(daemontools(3, Budget { commands: 1, kills: 1, ..NONE }));
    walk_keeper(daemontools(3, Budget { kills: 1, bad: 1, ..NONE }));
    walk_keeper(daemontools(3, Budget { kills: 1, limits: 1, ..NONE }));
}

fn p12_in_place() {
    // Under systemd, which nobody kills: a daemon of an orphaned launcher does not look after its control
    // socket.
    for kind in [Kind::NOBODY, Kind::SYSTEMD] {
        let crash = Budget { reloads: 1, kills: 1, ..NONE };
        walk_keeper(Setting { in_place: true, ..Setting::new(kind, true, 3, crash) });
    }
}

// ---- leaving ----

fn walk_leaving(setting: Setting) {
    walk(Setting { leaves: true, ..setting });
}

/// A stop, told or read, with what may come in between: a start, a signal by hand, a crash, a limit.
fn p3_p4_p6_a_stop_leaves_and_then_drains() {
    for (kind, readable) in TELLING {
        walk_leaving(Setting::new(kind, readable, 2, Budget { commands: 2, ..NONE }));
        let commands = if is_deep() { 2 } else { 1 };
        walk_leaving(Setting::new(kind, readable, 2, Budget { commands, kills: 1, ..NONE }));
    }
    for (kind, readable) in SILENT {
        walk_leaving(Setting::new(kind, readable, 2, Budget { commands: 2, ..NONE }));
    }
    let by_hand = Budget { commands: 1, direct: 1, limits: 1, ..NONE };
    walk_leaving(Setting::new(Kind::DAEMONTOOLS, true, 2, by_hand));
    walk_leaving(Setting::new(Kind::SYSTEMD, true, 2, Budget { commands: 2, ..NONE }));
    let started = Budget { commands: 1, by_hand: 1, ..NONE };
    walk_leaving(Setting::new(Kind::DAEMONTOOLS, true, 2, started));
}

fn p4_p11_a_stop_in_a_probation_and_in_place() {
    let budget = Budget { commands: 2, ..NONE };
    let tried = Setting::new(Kind::DAEMONTOOLS, true, 2, budget);
    walk_leaving(Setting { probation: true, ..tried });
    let reloads = Budget { commands: 1, reloads: 1, ..NONE };
    let in_place = Setting::new(Kind::DAEMONTOOLS, true, 2, reloads);
    walk_leaving(Setting { in_place: true, ..in_place });
}

// ---- probation ----

fn walk_probation(setting: Setting) {
    walk(Setting { probation: true, ..setting });
}

fn p4_p11_a_new_generation_that_fails_is_replaced_by_the_proven_one() {
    for (kind, readable) in [(Kind::DAEMONTOOLS, true), (Kind::RUNIT, true)] {
        let fails = Budget { commands: 1, bad: 1, ..NONE };
        walk_probation(Setting::new(kind, readable, 3, fails));
        if kind == Kind::DAEMONTOOLS || is_deep() {
            // The one that stands by may be unable to see whether a newer one lives, or to take its files back.
            let short = Budget { commands: 1, kills: 1, short: 1, ..NONE };
            walk_probation(Setting::new(kind, readable, if is_deep() { 3 } else { 2 }, short));
            let kill = Budget { commands: 1, kills: 1, ..NONE };
            walk_probation(Setting::new(kind, readable, 3, kill));
        }
    }
    // It is found unhealthy, and its hooks never return.
    let hooks_hang = Budget { commands: 1, bad: 2, ..NONE };
    walk_probation(Setting::new(Kind::DAEMONTOOLS, true, 2, hooks_hang));
    let by_hand = Budget { commands: 1, direct: 1, ..NONE };
    walk_probation(Setting::new(Kind::DAEMONTOOLS, true, 3, by_hand));
    let silent = Budget { commands: 1, limits: 1, ..NONE };
    walk_probation(Setting::new(Kind::DAEMONTOOLS, true, 3, silent));
}

/// Two of them at most, and what happens to the ones that they wait for.
fn p1_p4_p6_p11_a_rejected_file_waits_for_the_generation_that_serves() {
    let waits = |kind, readable, starts, budget| {
        walk_probation(Setting::new(kind, readable, starts, Budget { waits: 1, ..budget }));
    };
    let direct = Budget { direct: 1, ..RESTART };
    let kill = Budget { kills: 1, ..RESTART };
    for (kind, readable) in [(Kind::DAEMONTOOLS, true), (Kind::OTHER, false)] {
        waits(kind, readable, 3, RESTART);
        waits(kind, readable, 2, direct);
        if kind == Kind::DAEMONTOOLS || is_deep() {
            waits(kind, readable, 2, kill);
        }
        if is_deep() {
            for budget in [direct, kill, Budget { commands: 2, ..NONE }] {
                waits(kind, readable, 3, budget);
            }
        }
    }
}

fn p4_p6_p11_a_third_generation_and_a_stop_in_the_window() {
    let twice = Budget { commands: 2, ..NONE };
    walk_probation(Setting::new(Kind::DAEMONTOOLS, true, 3, twice));
    if is_deep() {
        let kill = Budget { commands: 2, kills: 1, ..NONE };
        walk_probation(Setting::new(Kind::DAEMONTOOLS, true, 3, kill));
        let kills = Budget { commands: 1, kills: 2, ..NONE };
        walk_probation(Setting::new(Kind::DAEMONTOOLS, true, 3, kills));
    }
}

fn p11_probation_in_place() {
    let reload = Budget { reloads: 1, kills: 1, ..NONE };
    let fails = Budget { reloads: 1, bad: 1, ..NONE };
    let twice = Budget { reloads: 2, ..NONE };
    for budget in [reload, fails, twice] {
        walk_probation(Setting { in_place: true, ..Setting::new(Kind::NOBODY, false, 3, budget) });
    }
}

// ---- each kind of supervisor ----

fn walk_kind(kind: Kind, manner: Manner, readable: bool, starts: u8, budget: Budget) {
    let mut setting = Setting { manner, ..Setting::new(kind, readable, starts, budget) };
    if is_deep() {
        setting.budget.kills += 1;
    }
    walk(setting);
}

fn s6() {
    for readable in [true, false] {
        let told = Budget { commands: 2, ..NONE };
        walk_kind(Kind::S6, Manner::S6_FINISH, readable, 3, told);
        let kill = Budget { commands: 1, kills: 1, ..NONE };
        walk_kind(Kind::S6, Manner::S6_FINISH, readable, 2, kill);
    }
}

fn systemd() {
    let told = Budget { commands: 2, ..NONE };
    let kill = Budget { commands: 1, kills: 1, ..NONE };
    let late = Budget { commands: 1, bad: 1, limits: 1, ..NONE };
    let by_itself = Budget { direct: 1, ..NONE };
    for budget in [told, kill, by_itself] {
        walk_kind(Kind::SYSTEMD, Manner::SYSTEMD, true, 3, budget);
    }
    let starts = if is_deep() { 3 } else { 2 };
    walk_kind(Kind::SYSTEMD, Manner::SYSTEMD, true, starts, late);
    for manner in [Manner::ON_FAILURE, Manner::MIXED, Manner::CONTROL_GROUP] {
        let by_itself = Budget { commands: 1, direct: 1, ..NONE };
        walk_kind(Kind::SYSTEMD, manner, true, 2, by_itself);
        walk_kind(Kind::SYSTEMD, manner, true, 3, Budget { commands: 1, bad: 1, ..NONE });
    }
    walk_kind(Kind::SYSTEMD, Manner::SYSTEMD, false, 2, kill);
}

fn supervisord() {
    for budget in [
        Budget { commands: 2, ..NONE },
        Budget { commands: 1, kills: 1, ..NONE },
        Budget { commands: 1, limits: 1, ..NONE },
        Budget { direct: 1, ..NONE },
    ] {
        walk_kind(Kind::SUPERVISORD, Manner::SUPERVISORD, false, 2, budget);
    }
}

fn openrc() {
    for budget in [
        Budget { commands: 2, ..NONE },
        Budget { commands: 1, kills: 1, ..NONE },
        Budget { commands: 1, limits: 1, ..NONE },
    ] {
        walk_kind(Kind::OPENRC, Manner::OPENRC, false, 2, budget);
    }
}

/// A kind that has nothing but a row in the table of kinds and a parser.
fn an_invented_kind() {
    let kind = Kind::named("invented");
    for readable in [true, false] {
        let told = Budget { commands: 2, ..NONE };
        let kill = Budget { commands: 1, kills: 1, ..NONE };
        let by_itself = Budget { commands: 1, direct: 1, ..NONE };
        for budget in [told, kill, by_itself] {
            walk_kind(kind, Manner::of(kind), readable, 2, budget);
        }
    }
}

/// "In the end" is looked for where nothing happens any more, so no run may go round in circles.
fn every_run_ends() {
    let small = Budget { commands: 1, connections: 1, ..NONE };
    for sockets in [FEWER, FEWER_MEMBERS] {
        ends(Setting { sockets: Some(sockets), ..daemontools(2, small) });
    }
    let kinds = [(Kind::S6, true), (Kind::SYSTEMD, true), (Kind::SUPERVISORD, false)];
    for (kind, readable) in [TELLING.as_slice(), &SILENT, &kinds].concat() {
        let mut budget = Budget { commands: 1, kills: 1, losses: 1, slow: 1, ..NONE };
        if is_deep() {
            budget = Budget { removals: 1, reuses: 1, direct: 1, ..budget };
        }
        ends(Setting::new(kind, readable, 2, budget));
    }
}

fn ends(setting: Setting) {
    #[derive(PartialEq)]
    enum Visit {
        Begun,
        Done,
    }
    let hasher = ahash::RandomState::new();
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

// ---- steered groups ----

pub(crate) const ONE_THEN_TWO: Steered = Steered { members: &[1, 2, 1], from_the_end: false };
const TWO_THEN_ONE: Steered = Steered { members: &[2, 1, 2], from_the_end: true };

fn walk_flows(setting: Setting, steered: Steered) {
    walk(Setting { sockets: Some(NO_OTHERS), flows: Some(steered), ..setting });
}

fn p14_no_death_and_no_restart_leads_a_flow_astray() {
    let kill = Budget { commands: 1, kills: 1, ..NONE };
    walk_flows(daemontools(3, Budget { commands: 2, ..NONE }), ONE_THEN_TWO);
    walk_flows(daemontools(3, kill), ONE_THEN_TWO);
    walk_flows(daemontools(3, Budget { kills: 2, ..NONE }), TWO_THEN_ONE);
    if is_deep() {
        walk_flows(daemontools(4, kill), TWO_THEN_ONE);
        walk_flows(daemontools(3, Budget { commands: 2, kills: 1, ..NONE }), TWO_THEN_ONE);
    }
}

fn p14_no_rollback_leads_a_flow_astray() {
    let kill = Budget { commands: 1, kills: 1, ..NONE };
    let fails = Budget { commands: 1, bad: 1, ..NONE };
    let silent = Budget { commands: 1, limits: 1, ..NONE };
    let tried = |starts, budget| Setting { probation: true, ..daemontools(starts, budget) };
    walk_flows(tried(2, kill), ONE_THEN_TWO);
    walk_flows(tried(3, fails), ONE_THEN_TWO);
    walk_flows(tried(3, silent), TWO_THEN_ONE);
    if is_deep() {
        walk_flows(tried(3, kill), ONE_THEN_TWO);
        walk_flows(tried(3, kill), TWO_THEN_ONE);
        walk_flows(tried(3, Budget { commands: 2, ..NONE }), ONE_THEN_TWO);
    }
}

fn p14_in_place() {
    let reload = |kind, budget| Setting { in_place: true, ..Setting::new(kind, true, 3, budget) };
    let kill = reload(Kind::SYSTEMD, Budget { reloads: 1, kills: 1, ..NONE });
    let fails = reload(Kind::NOBODY, Budget { reloads: 1, bad: 1, ..NONE });
    walk_flows(kill, ONE_THEN_TWO);
    walk_flows(Setting { keeps: true, ..fails }, ONE_THEN_TWO);
    walk_flows(Setting { probation: true, ..fails }, TWO_THEN_ONE);
    if is_deep() {
        let twice = reload(Kind::NOBODY, Budget { reloads: 2, ..NONE });
        for setting in [twice, kill] {
            walk_flows(Setting { keeps: true, ..setting }, TWO_THEN_ONE);
            walk_flows(Setting { probation: true, ..setting }, ONE_THEN_TWO);
        }
    }
}

fn p12_p14_the_keeper_has_the_group_as_well() {
    let keeping = |budget| Setting { keeps: true, ..daemontools(3, budget) };
    walk_flows(keeping(Budget { kills: 1, limits: 1, ..NONE }), ONE_THEN_TWO);
    let kill = Budget { commands: 1, kills: 1, ..NONE };
    walk_flows(Setting { keeps: true, ..daemontools(2, kill) }, TWO_THEN_ONE);
    if is_deep() {
        walk_flows(keeping(kill), TWO_THEN_ONE);
        walk_flows(keeping(Budget { kills: 2, ..NONE }), ONE_THEN_TWO);
    }
}

// ---- all in one ----

/// A service that uses all that there is.
fn walk_all_in_one(setting: Setting) {
    let (sockets, flows) = (Some(SAME), Some(ONE_THEN_TWO));
    let (keeps, probation, leaves, moves) = (true, true, true, true);
    walk(Setting { sockets, flows, keeps, probation, leaves, moves, ..setting });
}

fn all_mechanisms_together() {
    let (kill, fails) = (Budget { kills: 1, ..NONE }, Budget { bad: 1, ..NONE });
    for budget in [kill, Budget { commands: 1, ..fails }] {
        walk_all_in_one(daemontools(2, budget));
    }
    for budget in [kill, fails] {
        let budget = Budget { reloads: 1, ..budget };
        // Nobody kills systemd: a daemon of an orphaned launcher does not look after its control socket.
        let setting = Setting::new(Kind::SYSTEMD, true, 2, budget);
        walk_all_in_one(Setting { in_place: true, ..setting });
    }
    if is_deep() {
        let twice = Budget { commands: 2, ..NONE };
        for budget in [twice, Budget { commands: 1, ..kill }] {
            walk_all_in_one(daemontools(2, budget));
        }
        walk_all_in_one(daemontools(3, Budget { commands: 1, ..fails }));
        walk_all_in_one(Setting { hooks: true, ..daemontools(2, Budget { commands: 1, ..kill }) });
        let waits = Budget { commands: 1, bad: 1, waits: 1, ..NONE };
        walk_all_in_one(daemontools(3, waits));
    }
}

/// Open connections move with each restart, whoever is killed at whatever step.
fn p13_p9_each_connection_is_served_once() {
    let moving =
        |kind, starts, budget| Setting { moves: true, ..Setting::new(kind, true, starts, budget) };
    let (kill, slow, lost) = (
        Budget { commands: 1, kills: 1, ..NONE },
        Budget { commands: 1, limits: 1, cuts: 1, ..NONE },
        Budget { commands: 1, kills: 1, cuts: 1, ..NONE },
    );
    for kind in [Kind::DAEMONTOOLS, Kind::OTHER] {
        walk(moving(kind, 2, kill));
        walk(moving(kind, 2, slow));
    }
    walk(moving(Kind::OTHER, 2, lost));
    // A probation with a rollback, after which they move back.
    let fails = Budget { commands: 1, bad: 1, ..NONE };
    walk(Setting { probation: true, ..moving(Kind::DAEMONTOOLS, 2, fails) });
    if is_deep() {
        let all = Budget { commands: 1, kills: 1, limits: 1, cuts: 1, ..NONE };
        walk(moving(Kind::DAEMONTOOLS, 2, all));
        walk(moving(Kind::DAEMONTOOLS, 2, Budget { commands: 1, kills: 2, ..NONE }));
        // A third generation, also while they move.
        walk(moving(Kind::DAEMONTOOLS, 3, Budget { commands: 2, ..NONE }));
    }
}
