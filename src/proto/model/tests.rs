//! The walks: what the protocol keeps within which bounds, and that each way to break it is found.
//!
//! `SEAMLESS_MODEL=deep` walks further (`scripts/model --deep`).

use super::super::Kind;
use super::Variant::{self, *};
use super::steps::Action;
use super::world::{Budget, Promise, Setting, World};
use super::{Protocol, trace};
use Promise::{P1, P3, P4, P5, P6, P8};
use stateright::{Checker, HasDiscoveries, Model};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io::Write as _;
use std::time::Instant;

/// The supervisors, and whether their status can be read.
const SUPERVISORS: [(Kind, bool); 5] = [
    (Kind::Daemontools, true),
    (Kind::Daemontools, false),
    (Kind::Runit, true),
    (Kind::Runit, false),
    (Kind::Other, false),
];

const NONE: Budget = Budget {
    commands: 0,
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
fn print(line: &str) {
    _ = writeln!(std::io::stderr(), "{line}");
}

impl Setting {
    fn name(&self) -> String {
        let readable = match (self.kind.restarts(), self.readable) {
            (true, true) => " (status readable)",
            (true, false) => " (status not readable)",
            (false, _) => "",
        };
        let budget = &self.budget;
        let counts = [
            (self.starts, "generations"),
            (budget.commands, "commands"),
            (budget.kills, "kills"),
            (budget.bad, "bad deploys"),
            (budget.direct, "direct signals"),
            (budget.losses, "refused signals"),
            (budget.removals, "PID files removed"),
            (budget.reuses, "PIDs reused"),
            (budget.slow, "slow checks"),
            (budget.limits, "limits passed"),
            (budget.by_hand, "started by hand"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<String> = counts.map(|(count, of)| format!("{of} {count}")).collect();
        format!("{}{readable}: {}", self.kind.name(), counts.join(", "))
    }
}

/// A way to a fault, one line for each thing that a process did or was told.
fn render(protocol: &Protocol, actions: &[Action]) -> String {
    let mut world = World::new(&protocol.setting);
    let mut text = String::new();
    for (at, action) in actions.iter().enumerate() {
        let said = trace::listen(|| {
            world = protocol.next_state(&world, *action).expect("a step of the way");
        });
        for (line, said) in said.iter().enumerate() {
            let number = if line == 0 { format!("{:>3}", at + 1) } else { "   ".to_owned() };
            text.push_str(&format!("{number} {said}\n"));
        }
    }
    let fault = world.fault.expect("the way leads to a fault");
    text.push_str(&format!("==> {:?} is not kept: {}\n", fault.promise, fault.what));
    text
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
        panic!("{promise}\n{}", render(&protocol, &way.into_actions()));
    }
}

fn is_deep() -> bool {
    std::env::var("SEAMLESS_MODEL").is_ok_and(|value| value == "deep")
}

/// Walks under every supervisor. `deep`: what is added for the long run.
fn walk_all(starts: u8, budget: Budget, deep: fn(&mut Setting)) {
    for (kind, readable) in SUPERVISORS {
        let mut setting = Setting { kind, readable, starts, budget };
        if is_deep() {
            deep(&mut setting);
        }
        walk(setting);
    }
}

#[test]
fn p1_a_bad_deploy_costs_nothing() {
    walk_all(4, Budget { commands: 1, bad: 2, ..NONE }, |one| one.budget.kills = 1);
}

#[test]
fn p3_a_drain_is_cut_by_its_limit_or_on_demand_only() {
    walk_all(3, Budget { commands: 1, direct: 1, limits: 1, ..NONE }, |one| one.budget.kills = 1);
}

#[test]
fn p4_restarts_end_with_the_newest_alone() {
    walk_all(3, Budget { commands: 2, losses: 1, removals: 1, ..NONE }, |one| {
        one.starts = 4;
        one.budget.commands = 3;
    });
}

#[test]
fn p5_no_process_of_others_is_signalled() {
    walk_all(3, Budget { commands: 1, kills: 1, reuses: 1, ..NONE }, |one| one.budget.slow = 1);
    walk_all(3, Budget { commands: 1, by_hand: 1, ..NONE }, |one| one.budget.kills = 1);
}

#[test]
fn p6_down_means_that_all_are_gone() {
    walk_all(3, Budget { commands: 2, bad: 1, ..NONE }, |one| one.budget.commands = 3);
}

#[test]
fn p8_no_daemon_outlives_its_launcher_unnoticed() {
    walk_all(3, Budget { kills: 2, slow: 1, ..NONE }, |one| one.budget.commands = 1);
}

#[test]
fn p9_any_process_may_be_killed_anywhere() {
    walk_all(3, Budget { commands: 1, kills: 1, ..NONE }, |one| one.budget.kills = 2);
    walk_all(3, Budget { kills: 2, removals: 1, slow: 1, ..NONE }, |one| one.budget.commands = 1);
}

#[test]
fn p6_without_a_supervisor_term_is_a_stop() {
    let budget = Budget { commands: 2, kills: 1, direct: 1, bad: 1, limits: 1, ..NONE };
    walk(Setting { kind: Kind::Nobody, readable: false, starts: 2, budget });
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
    for (kind, readable) in SUPERVISORS {
        let budget =
            Budget { commands: 1, kills: 1, losses: 1, removals: 1, reuses: 1, slow: 1, ..NONE };
        let protocol =
            Protocol { setting: Setting { kind, readable, starts: 2, budget }, broken: None };
        let mut visits = HashMap::new();
        let start = World::new(&protocol.setting);
        visits.insert(hasher.hash_one(&start), Visit::Begun);
        let mut way = vec![(hasher.hash_one(&start), protocol.next_states(&start))];
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
        print(&format!("{}: {} states, no circle", protocol.setting.name(), visits.len()));
    }
}

/// Where each variant is to be found, and which promise it breaks.
fn broken(variant: Variant) -> (Setting, Promise) {
    let of = |kind, readable, starts, budget| Setting { kind, readable, starts, budget };
    let daemontools = |budget| of(Kind::Daemontools, true, 3, budget);
    let unreadable = |budget| of(Kind::Daemontools, false, 3, budget);
    let other = |budget| of(Kind::Other, false, 3, budget);
    let restart = Budget { commands: 1, ..NONE };
    let twice = Budget { commands: 2, ..NONE };
    let kill = Budget { kills: 1, ..NONE };
    match variant {
        TermBeforeRename | ServingAfterTerm | FixedDrainTimer => (daemontools(restart), P1),
        NobodyServes => (daemontools(NONE), P1),
        ClaimGivenUpEarly => (daemontools(Budget { slow: 1, ..kill }), P4),
        NoClaim => (daemontools(Budget { kills: 2, ..NONE }), P4),
        NoStartTickCheck => (daemontools(Budget { reuses: 1, ..kill }), P5),
        HammerOnLauncherUsr2 => (daemontools(Budget { direct: 1, ..restart }), P3),
        LostFileNotPutBack => (of(Kind::Daemontools, true, 1, Budget { removals: 1, ..kill }), P4),
        LauncherGoneIgnoredInServing => (of(Kind::Daemontools, true, 1, kill), P8),
        CheckOutsideClaim => (daemontools(restart), P1),
        PutBackOverNewer => (daemontools(restart), P4),
        NewerIgnored => (daemontools(Budget { losses: 1, ..restart }), P4),
        Usr2BeforeSettled | AgainIgnored => (daemontools(twice), P6),
        ExitWhileSettling | ReleasedBeforeSignals => (daemontools(twice), P6),
        StopNotToldToOlder | NoStopWhileStarting => (daemontools(twice), P6),
        ContIgnored => (unreadable(restart), P6),
        StatusIgnored => (daemontools(twice), P6),
        LauncherGoneIgnoredInStarting => (daemontools(Budget { bad: 1, ..kill }), P8),
        OverdueIgnored => (other(restart), P6),
        ClaimsMovedIgnored => (other(Budget { bad: 1, ..restart }), P1),
        NoHandoffTimeout => (daemontools(Budget { bad: 1, ..restart }), P4),
        StopsNewer => (daemontools(Budget { commands: 1, kills: 1, direct: 1, ..NONE }), P4),
        ForeignTakenOver => (daemontools(Budget { by_hand: 1, ..NONE }), P5),
        NoMirror => (daemontools(kill), P6),
    }
}

#[test]
fn every_broken_variant_is_found() {
    for variant in Variant::ALL {
        let (setting, promise) = broken(variant);
        let began = Instant::now();
        let protocol = Protocol { setting, broken: Some(variant) };
        let name = format!("{promise:?}").leak();
        let checker = protocol
            .checker()
            .finish_when(HasDiscoveries::AnyOf([&*name].into()))
            .spawn_bfs()
            .join();
        let states = checker.unique_state_count();
        let seconds = began.elapsed().as_secs_f64();
        let Some(way) = checker.discovery(name) else {
            panic!("{variant:?} does not break {name} within {}, {states} states", setting.name());
        };
        let actions = way.into_actions();
        println!("\n{variant:?}\n{}", render(&protocol, &actions));
        print(&format!(
            "{variant:?} breaks {name}: {} steps, {states} states, {seconds:.1} s",
            actions.len(),
        ));
    }
}

/// The walk of a run that is known, as a person reads it.
#[test]
fn a_trace_can_be_read() {
    let (setting, _) = broken(NobodyServes);
    let protocol = Protocol { setting, broken: Some(NobodyServes) };
    let way = protocol.checker().spawn_bfs().join().discovery("P1").expect("nobody serves");
    let trace = render(&protocol, &way.into_actions());
    assert!(trace.contains("supervisor starts launcher 0"), "{trace}");
    assert!(trace.contains("daemon 0 has the claim, and number 1"), "{trace}");
    assert!(trace.ends_with("==> P1 is not kept: wanted up, and nobody serves\n"), "{trace}");
}

#[test]
fn probe() {
    let Ok(_) = std::env::var("S") else { return };
    let number =
        |name: &str| std::env::var(name).ok().and_then(|one| one.parse().ok()).unwrap_or(0);
    let kind = match std::env::var("KIND").as_deref() {
        Ok("r") => Kind::Runit,
        Ok("o") => Kind::Other,
        Ok("n") => Kind::Nobody,
        _ => Kind::Daemontools,
    };
    let setting = Setting {
        kind,
        readable: number("READ") == 1,
        starts: number("S"),
        budget: Budget {
            commands: number("C"),
            kills: number("K"),
            bad: number("B"),
            direct: number("D"),
            losses: number("L"),
            removals: number("M"),
            reuses: number("R"),
            slow: number("W"),
            limits: number("T"),
            by_hand: number("H"),
        },
    };
    walk(setting);
}
