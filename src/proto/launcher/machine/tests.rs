//! Each state x event by a literal table, and ways through several of them. The model walks all of them
//! together with the daemon.

use crate::proto::launcher::{
    Child, Failure, InPlace, Input as L, Keeper, Launcher, Output as LO, Progress, Refusal,
    Timer as LT,
};
use crate::proto::{End, Intent, Kind, Reading, Report, Scope};
use Intent::{Restart, Stop, Unknown};
use Scope::{Generation, Service};

/// The only child.
const PID: Child = 70;
/// The child after it, in place.
const NEXT: Child = 71;
const SUPERVISOR: i32 = 6;

fn report(report: Report) -> L {
    L::Report(PID, report)
}

fn signal(signal: i32) -> L {
    L::Signal { signal, to_all: false }
}

/// All outputs of a way.
fn all(launcher: &mut Launcher, way: &[L]) -> Vec<LO> {
    way.iter().flat_map(|input| launcher.on(*input)).collect()
}

/// A launcher that has come this way.
fn after(mut launcher: Launcher, way: &[L]) -> Launcher {
    let _ = all(&mut launcher, way);
    launcher
}

/// A launcher that restarts in place, and lets any number drain.
fn in_place(kind: Kind) -> Launcher {
    Launcher::new(kind, None, PID, Some(InPlace { max_draining: None }))
}

fn named(name: &str, states: Vec<(&'static str, Launcher)>) -> Launcher {
    let found = states.into_iter().find(|(state, _)| *state == name);
    found.expect("a state").1
}

/// The launcher's states, by the shortest way there.
fn launchers() -> Vec<(&'static str, Launcher)> {
    let term = L::Term { from: 7 };
    let (ready, started) = (report(Report::Ready), report(Report::Started));
    let ways: [(&str, &[L]); 9] = [
        ("early", &[]),
        ("ready", &[ready]),
        ("serving", &[ready, started]),
        ("settling", &[ready, started, term]),
        ("held", &[term, L::Status(Reading::Up)]),
        ("handoff", &[ready, started, term, L::Status(Reading::Up)]),
        ("settling again", &[ready, started, term, L::Status(Reading::Up), term]),
        ("stopping", &[ready, started, term, L::Status(Reading::Down)]),
        ("gone", &[ready, report(Report::Released), L::Quiet]),
    ];
    let new = Launcher::new(Kind::DAEMONTOOLS, None, PID, None);
    ways.map(|(name, way)| (name, after(new.clone(), way))).to_vec()
}

#[test]
fn launcher_every_state_and_event() {
    let arm = LO::Arm;
    let kill = LT::Kill(PID);
    let stop = |scope| {
        vec![
            LO::Tell(PID, Stop(scope)),
            LO::Stop(PID),
            LO::Disarm(LT::Handoff),
            arm(kill),
            LO::Progress(Progress::Stopping(PID)),
        ]
    };
    let handoff = || vec![LO::Tell(PID, Restart), LO::Handoff(PID)];
    let serving = || vec![LO::Disarm(LT::Cancel), LO::Progress(Progress::Serving(PID))];
    let drains = || vec![arm(kill), LO::Progress(Progress::Draining(PID))];
    let all_but_gone =
        ["early", "ready", "serving", "settling", "held", "handoff", "settling again", "stopping"];
    let have_started = ["serving", "settling", "handoff", "settling again", "stopping"];
    let everywhere = |outputs: Vec<LO>| all_but_gone.map(|name| (name, outputs.clone())).to_vec();
    // Where the report itself tells that it has started.
    let and_serving = |outputs: Vec<LO>| -> Rows {
        let late = |name: &&str| have_started.contains(name);
        let rows = all_but_gone.iter().map(|name| match late(name) {
            true => (*name, outputs.clone()),
            false if *name == "held" => (*name, [serving(), handoff(), outputs.clone()].concat()),
            false => (*name, [serving(), outputs.clone()].concat()),
        });
        rows.collect()
    };
    // While a TERM is being understood, it is not known yet whether older ones have to end first.
    let ends = |end| {
        let outputs = |name| match name {
            "settling" | "settling again" => vec![],
            "stopping" => vec![LO::StopOlder],
            _ => vec![LO::Mirror(PID, end)],
        };
        all_but_gone.map(|name| (name, [vec![LO::Disarm(kill)], outputs(name)].concat())).to_vec()
    };
    let but_not = |names: &[&str], mut rows: Rows| -> Rows {
        rows.retain(|(name, _)| !names.contains(name));
        rows
    };
    type Rows = Vec<(&'static str, Vec<LO>)>;
    let table: Vec<(L, Rows)> = vec![
        // What it holds back waits until the generation has started.
        (report(Report::Ready), vec![]),
        (L::ChannelClosed(PID), vec![]),
        (report(Report::Started), but_not(&have_started, and_serving(vec![]))),
        // Noted: it leaves when all is quiet.
        (report(Report::Released), but_not(&have_started, and_serving(vec![]))),
        (report(Report::TakenOver), but_not(&have_started, and_serving(vec![]))),
        (
            report(Report::Leaving),
            and_serving(vec![arm(kill), LO::Progress(Progress::Leaving(PID))]),
        ),
        (report(Report::Draining), and_serving(drains())),
        (report(Report::Waiting), everywhere(vec![LO::Disarm(kill)])),
        (report(Report::Reload), but_not(&have_started, and_serving(vec![]))), // not in place
        (report(Report::Prepared), but_not(&have_started, and_serving(vec![]))),
        (
            report(Report::Unhandled),
            ["early", "ready", "serving", "held", "handoff"]
                .map(|name| (name, vec![arm(LT::Settle)]))
                .to_vec(),
        ),
        (L::Reload, vec![]),
        (L::Restart(12), have_started.map(|name| (name, vec![LO::Forward(PID, 12)])).to_vec()),
        (
            L::Halt(3),
            all_but_gone
                .map(|name| match name {
                    "early" | "held" => (name, vec![arm(LT::Settle)]),
                    _ => (name, vec![LO::Forward(PID, 3)]),
                })
                .to_vec(),
        ),
        (L::Ended(PID, End::Code(3)), ends(End::Code(3))),
        (L::Ended(PID, End::Signal(9)), ends(End::Signal(9))),
        (L::OlderTold { awaited: true, again: false }, vec![]),
        (L::OlderGone, vec![]),
        (
            L::Term { from: 7 },
            ["early", "ready", "serving", "held", "handoff"]
                .map(|name| (name, vec![arm(LT::Settle)]))
                .to_vec(),
        ),
        (
            L::Cont { from: 7 },
            // In "settling" it belongs to the TERM that is being settled.
            ["early", "ready", "serving", "held", "handoff", "stopping"]
                .map(|name| (name, vec![arm(LT::Cont)]))
                .to_vec(),
        ),
        (signal(1), everywhere(vec![LO::Forward(PID, 1)])),
        (
            L::Status(Reading::Up),
            vec![
                ("settling", [vec![arm(LT::Handoff)], handoff()].concat()),
                ("settling again", vec![]),
            ],
        ),
        (
            L::Status(Reading::Unreadable),
            vec![("settling", [vec![arm(LT::Handoff)], handoff()].concat())],
        ),
        (
            L::Status(Reading::Down),
            vec![
                ("settling", [vec![arm(LT::Handoff)], stop(Service)].concat()),
                ("settling again", stop(Service)),
            ],
        ),
        (
            L::Status(Reading::Lost),
            vec![
                ("settling", [vec![arm(LT::Handoff)], stop(Generation)].concat()),
                ("settling again", stop(Generation)),
            ],
        ),
        (L::Timer(LT::Cont), vec![]),
        (
            L::Timer(LT::Settle),
            vec![("settling", vec![LO::ReadStatus]), ("settling again", vec![LO::ReadStatus])],
        ),
        (
            L::Timer(LT::Handoff),
            ["early", "held"].map(|name| (name, vec![LO::Kill(PID, LT::Handoff)])).to_vec(),
        ),
        (L::Timer(LT::Cancel), vec![]),
        (L::Timer(LT::Gather), vec![]),
        (L::Timer(LT::Prepare), vec![]),
        (L::Timer(LT::Start), vec![]),
        (L::Timer(LT::TellOlder), vec![]),
        (L::Timer(kill), everywhere(vec![LO::Kill(PID, kill)])),
        (L::Quiet, vec![]),
    ];
    for (input, rows) in table {
        for (name, mut launcher) in launchers() {
            let expected = rows.iter().find(|(state, _)| *state == name);
            let expected = expected.map(|(_, outputs)| outputs.clone()).unwrap_or_default();
            assert_eq!(launcher.on(input), expected, "{input:?} in {name:?}");
        }
    }
}

// ---- a launcher that restarts in place, state x event ----

/// Its states, by the shortest way there; the intent of a TERM is not known, so it is a restart.
fn launchers_in_place() -> Vec<(&'static str, Launcher)> {
    let told = |child, report| L::Report(child, report);
    let serving = [
        told(PID, Report::Started),
        L::Reload,
        L::Timer(LT::Gather),
        told(PID, Report::Prepared),
        L::Spawned(Some(NEXT)),
    ];
    let cancelled = [L::Reload, L::Timer(LT::Start)];
    let term = [L::Term { from: 7 }, L::Status(Reading::Unreadable)];
    let both = [&serving[..], &[told(NEXT, Report::Started)]].concat();
    let taken_over = [told(PID, Report::TakenOver), told(PID, Report::Draining)];
    let crash = [L::Ended(NEXT, End::Signal(6))];
    let ways: [(&str, Vec<L>); 10] = [
        ("first", vec![]),
        ("first cancelled", cancelled.to_vec()),
        ("serving", serving[..1].to_vec()),
        ("candidate", serving.to_vec()),
        ("cancelled", [&serving[..], &cancelled].concat()),
        ("both serve", both.clone()),
        ("one drains", [&both[..], &taken_over].concat()),
        ("newest crashed", [&both[..], &crash].concat()),
        ("alone ended", [&serving[..], &[L::Ended(PID, End::Code(3))]].concat()),
        ("told", [&serving[..], &term].concat()),
    ];
    let new = Launcher::new(Kind::OTHER, None, PID, Some(InPlace { max_draining: Some(1) }));
    ways.map(|(name, way)| (name, after(new.clone(), &way))).to_vec()
}

#[test]
fn launcher_in_place_every_state_and_event() {
    use LO::{Arm, Cancel, Disarm, Forward, Handoff, Mirror, Start, Tell};
    let (ended, crash) = (End::Code(3), End::Signal(6));
    let stage = LO::Progress;
    let prepare = || vec![LO::Prepare(PID), Arm(LT::Prepare)];
    let begin = || vec![stage(Progress::Reloading), Arm(LT::Gather)];
    let start = || [begin(), prepare()].concat();
    let again = || [vec![Disarm(LT::Start)], begin()].concat();
    let wait = || vec![Arm(LT::Start)];
    let late_start = || [again(), prepare(), vec![Disarm(LT::Prepare), Start]].concat();
    let refused = |why| vec![stage(Progress::ReloadRefused(why))];
    let cancel = |child| vec![Cancel(child), Arm(LT::Cancel)];
    let ends = |child, outputs: Vec<LO>| [vec![Disarm(LT::Kill(child))], outputs].concat();
    let failed = |child, end| vec![stage(Progress::ReloadFailed(Failure::Ended(child, end)))];
    let serves = |child, outputs: Vec<LO>| -> Vec<LO> {
        [vec![Disarm(LT::Cancel), stage(Progress::Serving(child))], outputs].concat()
    };
    let told = |child| vec![Tell(child, Unknown), Handoff(child)];
    let decided = |outputs: Vec<LO>| [vec![LO::ReadStatus, Arm(LT::Handoff)], outputs].concat();
    let pass = LO::PassSockets { from: PID, to: NEXT };
    type Rows = Vec<(&'static str, Vec<LO>)>;
    let table: Vec<(Vec<L>, Rows)> = vec![
        (
            vec![L::Reload],
            vec![
                ("first", wait()),
                ("serving", start()),
                ("candidate", wait()),
                ("both serve", refused(Refusal::Draining)),
                ("one drains", refused(Refusal::Draining)),
                ("newest crashed", start()),
                ("alone ended", wait()),
                ("told", refused(Refusal::Leaving)),
            ],
        ),
        (
            vec![L::Report(PID, Report::Reload)],
            vec![
                // What came late to cancel it is no wish of its own.
                ("first", serves(PID, start())),
                ("first cancelled", serves(PID, [again(), prepare()].concat())),
                ("serving", start()),
                ("candidate", wait()),
                ("both serve", refused(Refusal::Draining)),
                ("one drains", refused(Refusal::Draining)),
                ("newest crashed", start()),
                ("told", refused(Refusal::Leaving)),
            ],
        ),
        (
            vec![L::Report(NEXT, Report::Started)],
            vec![
                ("candidate", serves(NEXT, vec![Arm(LT::Overdue)])),
                (
                    "cancelled",
                    serves(
                        NEXT,
                        [vec![Arm(LT::Overdue), Disarm(LT::Start)], refused(Refusal::Draining)]
                            .concat(),
                    ),
                ),
                ("alone ended", serves(NEXT, vec![])),
                // It is told what the one before it was told.
                ("told", serves(NEXT, [vec![Arm(LT::Overdue)], told(NEXT)].concat())),
            ],
        ),
        (
            vec![L::Ended(PID, ended)],
            vec![
                ("first", ends(PID, vec![Mirror(PID, ended)])),
                ("first cancelled", ends(PID, [vec![Disarm(LT::Cancel)], again()].concat())),
                ("serving", ends(PID, vec![Mirror(PID, ended)])),
                ("candidate", ends(PID, vec![stage(Progress::CurrentEnded(PID, ended)), pass])),
                ("cancelled", ends(PID, vec![stage(Progress::CurrentEnded(PID, ended)), pass])),
                ("both serve", ends(PID, vec![])),
                ("one drains", ends(PID, vec![])),
                ("newest crashed", ends(PID, vec![Mirror(PID, ended)])),
                ("told", ends(PID, vec![stage(Progress::CurrentEnded(PID, ended)), pass])),
            ],
        ),
        (
            vec![L::Ended(NEXT, crash)],
            vec![
                ("candidate", ends(NEXT, failed(NEXT, crash))),
                ("cancelled", ends(NEXT, [vec![Disarm(LT::Cancel)], again()].concat())),
                ("both serve", ends(NEXT, failed(NEXT, crash))),
                ("one drains", ends(NEXT, vec![Mirror(NEXT, crash)])),
                (
                    "alone ended",
                    ends(NEXT, [failed(NEXT, crash), vec![Mirror(PID, ended)]].concat()),
                ),
                ("told", ends(NEXT, vec![Disarm(LT::Cancel)])),
            ],
        ),
        (
            vec![L::Report(PID, Report::TakenOver), L::Report(PID, Report::Draining)],
            vec![
                ("first", serves(PID, vec![Arm(LT::Kill(PID))])),
                (
                    "first cancelled",
                    serves(
                        PID,
                        [again(), prepare(), vec![Arm(LT::Kill(PID)), Disarm(LT::Prepare)]]
                            .concat(),
                    ),
                ),
                ("serving", vec![Arm(LT::Kill(PID))]),
                ("candidate", vec![Arm(LT::Kill(PID))]),
                ("cancelled", vec![Arm(LT::Kill(PID))]),
                ("both serve", vec![Arm(LT::Kill(PID))]),
                ("one drains", vec![Arm(LT::Kill(PID))]),
                // For one that is gone: nobody serves.
                ("newest crashed", vec![Arm(LT::Kill(PID)), Mirror(NEXT, crash)]),
                ("told", vec![Arm(LT::Kill(PID))]),
            ],
        ),
        (
            vec![L::Report(PID, Report::Draining)],
            ["first", "first cancelled", "serving", "candidate", "cancelled"]
                .into_iter()
                .chain(["newest crashed", "told"])
                .map(|name| (name, vec![Arm(LT::Kill(PID)), stage(Progress::Draining(PID))]))
                .map(|(name, outputs)| match name {
                    "first" => (name, serves(PID, outputs)),
                    "first cancelled" => {
                        let prepared = vec![Disarm(LT::Prepare)];
                        (name, serves(PID, [again(), prepare(), outputs, prepared].concat()))
                    }
                    _ => (name, outputs),
                })
                .chain(["both serve", "one drains"].map(|name| (name, vec![Arm(LT::Kill(PID))])))
                .collect(),
        ),
        (
            vec![L::Term { from: 7 }, L::Status(Reading::Unreadable)],
            vec![
                ("first", decided(vec![])),
                ("first cancelled", decided(vec![])),
                ("serving", decided(told(PID))),
                ("candidate", decided([cancel(NEXT), told(PID)].concat())),
                ("cancelled", decided(told(PID))),
                ("both serve", decided(told(NEXT))),
                ("one drains", decided(told(NEXT))),
                ("newest crashed", decided(told(PID))),
                ("alone ended", decided(vec![])),
                ("told", vec![LO::ReadStatus]),
            ],
        ),
        (
            vec![signal(10)],
            [
                ["first", "first cancelled", "serving", "candidate", "cancelled"]
                    .map(|name| (name, PID)),
                [
                    ("both serve", NEXT),
                    ("one drains", NEXT),
                    ("newest crashed", PID),
                    ("alone ended", NEXT),
                    ("told", PID),
                ],
            ]
            .concat()
            .into_iter()
            .map(|(name, child)| (name, vec![Forward(child, 10)]))
            .collect(),
        ),
        (
            vec![L::Timer(LT::Cancel)],
            vec![
                ("first cancelled", vec![LO::Kill(PID, LT::Cancel)]),
                ("cancelled", vec![LO::Kill(NEXT, LT::Cancel)]),
                ("told", vec![LO::Kill(NEXT, LT::Cancel)]),
            ],
        ),
        (
            vec![L::Reload, L::Timer(LT::Start)],
            vec![
                ("first", [wait(), cancel(PID)].concat()),
                ("serving", start()),
                ("candidate", [wait(), cancel(NEXT)].concat()),
                ("both serve", refused(Refusal::Draining)),
                ("one drains", refused(Refusal::Draining)),
                ("newest crashed", start()),
                ("alone ended", [wait(), cancel(NEXT)].concat()),
                ("told", refused(Refusal::Leaving)),
            ],
        ),
        (
            vec![
                L::Reload,
                L::Reload,
                L::Timer(LT::Gather),
                L::Report(PID, Report::Prepared),
                L::Timer(LT::Gather),
            ],
            vec![
                ("first", [wait(), serves(PID, late_start())].concat()),
                ("first cancelled", serves(PID, late_start())),
                ("serving", [start(), vec![Disarm(LT::Prepare), Start]].concat()),
                ("candidate", wait()),
                ("both serve", [refused(Refusal::Draining), refused(Refusal::Draining)].concat()),
                ("one drains", [refused(Refusal::Draining), refused(Refusal::Draining)].concat()),
                ("newest crashed", [start(), vec![Disarm(LT::Prepare), Start]].concat()),
                ("alone ended", wait()),
                ("told", [refused(Refusal::Leaving), refused(Refusal::Leaving)].concat()),
            ],
        ),
        (vec![L::Timer(LT::Overdue)], vec![("both serve", vec![LO::TellTakenOver(PID)])]),
    ];
    for (inputs, rows) in table {
        for (name, mut launcher) in launchers_in_place() {
            let expected = rows.iter().find(|(state, _)| *state == name);
            let expected = expected.map(|(_, outputs)| outputs.clone()).unwrap_or_default();
            assert_eq!(all(&mut launcher, &inputs), expected, "{inputs:?} in {name:?}");
        }
    }
}

/// It waits for the end of what was cancelled, since that may serve by now.
#[test]
fn launcher_in_place_leaves_as_the_newest_lets_it_go() {
    let leaves = |inputs: &[L]| {
        let mut launcher = named("told", launchers_in_place());
        let _ = launcher.on(L::Report(PID, Report::Released));
        let outputs = all(&mut launcher, inputs);
        outputs.into_iter().find(|output| matches!(output, LO::Leave { .. }))
    };
    let leave = |child, expired| Some(LO::Leave { child, expired });
    assert_eq!(leaves(&[L::Quiet]), None);
    assert_eq!(leaves(&[L::Ended(NEXT, End::Code(0)), L::Quiet]), leave(PID, false));
    let started = [L::Report(NEXT, Report::Started), L::Quiet];
    assert_eq!(leaves(&started), None);
    let released = [L::Report(NEXT, Report::Released), L::Quiet];
    assert_eq!(leaves(&[&started[..], &released].concat()), leave(NEXT, false));
    let expired = [L::Timer(LT::Handoff), L::Quiet];
    assert_eq!(leaves(&[&started[..], &expired].concat()), leave(NEXT, true));
}

/// The limit is for a service that goes well.
#[test]
fn launcher_in_place_starts_one_more_where_nobody_serves() {
    let mut launcher = named("one drains", launchers_in_place());
    let refused = [LO::Progress(Progress::ReloadRefused(Refusal::Draining))];
    assert_eq!(launcher.on(L::Reload), refused);
    let _ = launcher.on(L::Report(NEXT, Report::Draining));
    let begins = [LO::Progress(Progress::Reloading), LO::Arm(LT::Gather)];
    assert_eq!(launcher.on(L::Reload), begins);
    assert_eq!(launcher.on(L::Timer(LT::Gather)), [LO::Start]);
}

/// A stop is over when all have ended, and so is a drain where all ends with the launcher.
#[test]
fn p6_launcher_in_place_awaits_those_that_drain() {
    let way = [
        L::Report(PID, Report::Started),
        L::Reload,
        L::Spawned(Some(NEXT)),
        L::Report(NEXT, Report::Started),
        L::Report(PID, Report::TakenOver),
        L::Report(PID, Report::Draining),
    ];
    let drained = [L::Report(NEXT, Report::Draining), L::Ended(NEXT, End::Code(5))];
    let crashed = [L::Ended(NEXT, End::Signal(6))];
    let stop = [L::Term { from: 7 }, L::Status(Reading::Lost)];
    let mirrors = |kind, inputs: &[&[L]]| {
        let outputs = all(&mut in_place(kind), &[&way[..], &inputs.concat()].concat());
        outputs.into_iter().find(|output| matches!(output, LO::Mirror(..)))
    };
    let last = [L::Ended(PID, End::Code(0))];
    let mirror = |end| Some(LO::Mirror(NEXT, end));
    for (kind, inputs) in [
        (Kind::NOBODY, vec![&drained[..]]),
        (Kind::NOBODY, vec![&stop, &drained]),
        (Kind::OTHER, vec![&stop, &drained]),
        (Kind::OTHER, vec![&stop, &drained[1..]]),
    ] {
        assert_eq!(mirrors(kind, &inputs), None, "{kind:?} {inputs:?}");
        let all = [&inputs[..], &[&last]].concat();
        assert_eq!(mirrors(kind, &all), mirror(End::Code(5)), "{kind:?} {inputs:?}");
    }
    // A supervisor starts it again.
    assert_eq!(mirrors(Kind::OTHER, &[&drained]), mirror(End::Code(5)));
    assert_eq!(mirrors(Kind::OTHER, &[&crashed]), mirror(End::Signal(6)));
    assert_eq!(mirrors(Kind::NOBODY, &[&crashed]), mirror(End::Signal(6)));
}

/// What a launcher comes to after these inputs: all outputs of the way there.
fn outputs(kind: Kind, inputs: &[L]) -> Vec<LO> {
    all(&mut Launcher::new(kind, Some(SUPERVISOR), PID, None), inputs)
}

fn told(kind: Kind, inputs: &[L]) -> Vec<Intent> {
    let ready = [report(Report::Started)];
    let outputs = outputs(kind, &[&ready[..], inputs].concat());
    let tell = |output| match output {
        LO::Tell(PID, intent) => Some(intent),
        _ => None,
    };
    outputs.into_iter().filter_map(tell).collect()
}

/// DESIGN's table of intents: supervisor x status x CONT.
#[test]
fn launcher_settles_the_intent() {
    let term = L::Term { from: 7 };
    let last = L::Term { from: SUPERVISOR };
    let cont = L::Cont { from: 7 };
    let settle = L::Timer(LT::Settle);
    let status = L::Status;
    let cases: &[(Kind, &[L], &[Intent])] = &[
        (Kind::DAEMONTOOLS, &[term, settle, status(Reading::Up)], &[Restart]),
        (Kind::DAEMONTOOLS, &[term, settle, status(Reading::Down)], &[Stop(Service)]),
        (Kind::DAEMONTOOLS, &[term, settle, status(Reading::Unreadable)], &[Restart]),
        // Either order, but of one sender, and not too far apart.
        (Kind::DAEMONTOOLS, &[term, cont, settle, status(Reading::Unreadable)], &[Stop(Service)]),
        (Kind::DAEMONTOOLS, &[cont, term, settle, status(Reading::Unreadable)], &[Stop(Service)]),
        (
            Kind::DAEMONTOOLS,
            &[L::Cont { from: 8 }, term, settle, status(Reading::Unreadable)],
            &[Restart],
        ),
        (
            Kind::DAEMONTOOLS,
            &[cont, L::Timer(LT::Cont), term, settle, status(Reading::Unreadable)],
            &[Restart],
        ),
        // A CONT and a status of "up": read again.
        (
            Kind::DAEMONTOOLS,
            &[term, cont, settle, status(Reading::Up), settle, status(Reading::Down)],
            &[Stop(Service)],
        ),
        (Kind::RUNIT, &[term, status(Reading::Up)], &[Restart]),
        (Kind::RUNIT, &[term, cont, status(Reading::Up)], &[Restart]),
        (Kind::RUNIT, &[term, status(Reading::Down)], &[Stop(Service)]),
        (Kind::RUNIT, &[term, status(Reading::Unreadable)], &[Unknown]),
        (Kind::OTHER, &[term, status(Reading::Unreadable)], &[Unknown]),
        (Kind::OTHER, &[term, status(Reading::Lost)], &[Stop(Generation)]),
        (Kind::DAEMONTOOLS, &[term, settle, status(Reading::Lost)], &[Stop(Generation)]),
        // The last that it did.
        (Kind::OTHER, &[last, status(Reading::Lost)], &[Unknown]),
        (Kind::DAEMONTOOLS, &[last, settle, status(Reading::Lost)], &[Unknown]),
        (Kind::DAEMONTOOLS, &[last, cont, settle, status(Reading::Lost)], &[Unknown]),
        // And one that came behind it, of somebody else.
        (
            Kind::DAEMONTOOLS,
            &[last, term, settle, status(Reading::Lost), settle, status(Reading::Lost)],
            &[Unknown, Stop(Generation)],
        ),
        (Kind::NOBODY, &[term], &[Stop(Generation)]),
        // A stop that follows a restart is told; a restart that follows a stop comes too late.
        (
            Kind::RUNIT,
            &[term, status(Reading::Up), term, status(Reading::Down)],
            &[Restart, Stop(Service)],
        ),
        (Kind::RUNIT, &[term, status(Reading::Down), term, status(Reading::Up)], &[Stop(Service)]),
        // A second TERM while the first is being settled is settled as well.
        (
            Kind::DAEMONTOOLS,
            &[term, term, settle, status(Reading::Up), settle, status(Reading::Down)],
            &[Restart, Stop(Service)],
        ),
    ];
    for (kind, inputs, intents) in cases {
        assert_eq!(told(*kind, inputs), *intents, "{kind:?} {inputs:?}");
    }
}

/// One that hangs is told when its time is over, and has that time again to let its launcher go.
#[test]
fn p1_launcher_lets_a_start_finish_before_a_restart() {
    let term = [L::Term { from: 7 }, L::Status(Reading::Up)];
    let way = [&[report(Report::Ready)], &term[..]].concat();
    let handoff = [LO::Tell(PID, Restart), LO::Handoff(PID)];
    let after = |more: &[L]| {
        let mut launcher = Launcher::new(Kind::RUNIT, Some(SUPERVISOR), PID, None);
        assert_eq!(all(&mut launcher, &way), [LO::ReadStatus, LO::Arm(LT::Handoff)]);
        all(&mut launcher, more)
    };
    let then = [&[LO::Arm(LT::Handoff)], &handoff[..]].concat();
    let serving = [LO::Disarm(LT::Cancel), LO::Progress(Progress::Serving(PID))];
    assert_eq!(after(&[report(Report::Started)]), [&serving[..], &then].concat());
    assert_eq!(after(&[L::Timer(LT::Handoff)]), then);
    // Further ones are the same wish; a stop does not wait.
    assert_eq!(after(&term), [LO::ReadStatus]);
    let stop = after(&[L::Term { from: 7 }, L::Status(Reading::Down)]);
    assert!(stop.contains(&LO::Stop(PID)), "{stop:?}");
    // Twice too late: the launcher leaves.
    let late = [L::Timer(LT::Handoff), L::Timer(LT::Handoff), L::Quiet];
    assert!(after(&late).contains(&LO::Leave { child: PID, expired: true }));
}

/// QUIT and the like.
#[test]
fn launcher_settles_a_stop_signal() {
    let unhandled = report(Report::Unhandled);
    let settle = L::Timer(LT::Settle);
    let status = L::Status;
    let cases: &[(Kind, &[L], &[Intent])] = &[
        (Kind::NOBODY, &[unhandled], &[Stop(Generation)]),
        (Kind::OTHER, &[unhandled, status(Reading::Unreadable)], &[Stop(Generation)]),
        (Kind::SUPERVISORD, &[unhandled, status(Reading::Unreadable)], &[Stop(Generation)]),
        (Kind::RUNIT, &[unhandled, status(Reading::Unreadable)], &[Stop(Generation)]),
        (Kind::RUNIT, &[unhandled, status(Reading::Up)], &[Restart]),
        (Kind::RUNIT, &[unhandled, status(Reading::Down)], &[Stop(Service)]),
        (Kind::SYSTEMD, &[unhandled, status(Reading::Up)], &[Restart]),
        (Kind::SYSTEMD, &[unhandled, status(Reading::Down)], &[Stop(Service)]),
        (Kind::DAEMONTOOLS, &[unhandled, settle, status(Reading::Up)], &[Restart]),
        (
            Kind::DAEMONTOOLS,
            &[unhandled, L::Term { from: 7 }, settle, status(Reading::Up), settle],
            &[Restart],
        ),
    ];
    for (kind, inputs, intents) in cases {
        assert_eq!(told(*kind, inputs), *intents, "{kind:?} {inputs:?}");
    }
}

#[test]
fn launcher_passes_signals_on() {
    let mut launcher = Launcher::new(Kind::RUNIT, Some(SUPERVISOR), PID, None);
    let _ = launcher.on(report(Report::Ready));
    // It would end the start.
    assert_eq!(launcher.on(L::Restart(12)), []);
    let started = launcher.on(report(Report::Started));
    assert_eq!(started.last(), Some(&LO::Forward(PID, 12)));
    assert_eq!(launcher.on(L::Restart(12)), [LO::Forward(PID, 12)]);
    let mut launcher = named("one drains", launchers_in_place());
    let all = launcher.on(L::Signal { signal: 10, to_all: true });
    assert_eq!(all, [LO::ForwardIfHandled(PID, 10), LO::Forward(NEXT, 10)]);
}

/// That of another process has nothing to do with the TERM: somebody continues the service by hand.
#[test]
fn launcher_takes_a_cont_for_a_part_of_the_term_of_its_sender_only() {
    let way = [L::Term { from: 7 }, L::Cont { from: 8 }, L::Timer(LT::Settle)];
    let read = [&way[..], &[L::Status(Reading::Unreadable)]].concat();
    assert_eq!(told(Kind::DAEMONTOOLS, &read), [Restart]);
}

/// The daemon waits differently after what is known to be a restart.
#[test]
fn launcher_tells_what_a_second_term_means_if_it_means_something_else() {
    let term = L::Term { from: 7 };
    let (up, unread) = (L::Status(Reading::Up), L::Status(Reading::Unreadable));
    assert_eq!(told(Kind::OTHER, &[term, up, term, unread]), [Restart, Unknown]);
    assert_eq!(told(Kind::OTHER, &[term, up, term, up]), [Restart]);
}

/// The supervisor starts the next generation: one that is started here as well would be one too many.
#[test]
fn launcher_in_place_drops_a_wish_when_it_is_told_to_end() {
    let serving = named("serving", launchers_in_place());
    let term = [L::Term { from: 7 }, L::Status(Reading::Unreadable)];
    let starts = |inputs: &[L]| all(&mut serving.clone(), inputs).contains(&LO::Start);
    let due = [L::Report(PID, Report::Prepared), L::Timer(LT::Gather)];
    assert!(starts(&[&[L::Reload], &due[..]].concat()));
    assert!(!starts(&[&[L::Reload], &term[..], &due].concat()));
    // It is being executed already: then it is waited for.
    let mut launcher = serving.clone();
    let spawned = [&[L::Reload], &due[..], &term, &[L::Ended(PID, End::Code(0))]].concat();
    let outputs = all(&mut launcher, &spawned);
    assert!(!outputs.iter().any(|one| matches!(one, LO::Mirror(..))), "{outputs:?}");
    assert!(launcher.on(L::Spawned(None)).contains(&LO::Mirror(PID, End::Code(0))));
}

/// Its hooks may hold what the next one needs.
#[test]
fn launcher_in_place_starts_only_when_the_one_that_serves_has_prepared() {
    let both = [
        L::Report(PID, Report::Started),
        L::Reload,
        L::Timer(LT::Gather),
        L::Report(PID, Report::Prepared),
        L::Spawned(Some(NEXT)),
        L::Report(NEXT, Report::Started),
        L::Reload,
        L::Timer(LT::Gather),
    ];
    let mut launcher = after(in_place(Kind::OTHER), &both);
    assert_eq!(launcher.on(L::Report(PID, Report::Prepared)), [], "of the one that is to drain");
    let starts = [LO::Disarm(LT::Prepare), LO::Start];
    assert_eq!(launcher.on(L::Report(NEXT, Report::Prepared)), starts);
    assert_eq!(launcher.on(L::Timer(LT::Prepare)), [], "too late");
}

#[test]
fn launcher_reads_a_doubtful_status_ten_times() {
    let mut inputs = vec![L::Term { from: 7 }, L::Cont { from: 7 }];
    for _ in 1..10 {
        inputs.extend([L::Timer(LT::Settle), L::Status(Reading::Up)]);
        assert_eq!(told(Kind::DAEMONTOOLS, &inputs), []);
    }
    inputs.extend([L::Timer(LT::Settle), L::Status(Reading::Up)]);
    assert_eq!(told(Kind::DAEMONTOOLS, &inputs), [Restart]);
}

#[test]
fn launcher_leaves_only_when_all_is_settled() {
    let term = L::Term { from: 7 };
    let released = [report(Report::Started), report(Report::Released)];
    let leaves = |inputs: &[L]| {
        let all = outputs(Kind::RUNIT, &[&released[..], inputs].concat());
        all.contains(&LO::Leave { child: PID, expired: false })
    };
    assert!(leaves(&[L::Quiet]));
    assert!(!leaves(&[term, L::Quiet]));
    assert!(leaves(&[term, L::Status(Reading::Up), L::Quiet]));
    assert!(!leaves(&[term, L::Status(Reading::Down), L::Quiet]));
    // Nor does it leave when the handoff's time is over while a TERM is being settled.
    let expired = [report(Report::Started), term, L::Status(Reading::Up), L::Timer(LT::Handoff)];
    let settling = [&expired[..], &[term, L::Quiet]].concat();
    let leave = LO::Leave { child: PID, expired: true };
    assert!(outputs(Kind::RUNIT, &[&expired[..], &[L::Quiet]].concat()).contains(&leave));
    assert!(!outputs(Kind::RUNIT, &settling).contains(&leave));
}

// ---- the keeper ----

/// Under this kind, with a daemon that serves and has given its sockets.
fn keeping(kind: Kind) -> Launcher {
    after(Launcher::new(kind, None, PID, None), &[L::Given(PID), report(Report::Started)])
}

#[test]
fn p12_a_crash_starts_a_keeper_and_is_mirrored_when_it_is_in_place() {
    for end in [End::Signal(9), End::Code(1)] {
        let mut launcher = keeping(Kind::DAEMONTOOLS);
        let keeps = [LO::Disarm(LT::Kill(PID)), LO::Arm(LT::Keeper), LO::Keep(PID)];
        assert_eq!(launcher.on(L::Ended(PID, end)), keeps);
        assert_eq!(launcher.on(L::Quiet), []);
        let news = [
            (L::Keeper(Keeper::InPlace), vec![LO::Mirror(PID, end)]),
            (L::Keeper(Keeper::Gone), vec![LO::Mirror(PID, end)]),
            (L::Timer(LT::Keeper), vec![LO::KillKeeper, LO::Mirror(PID, end)]),
        ];
        for (input, outputs) in news {
            assert_eq!(launcher.clone().on(input), outputs);
        }
    }
}

#[test]
fn p12_no_keeper_where_none_is_of_use() {
    let crash = L::Ended(PID, End::Signal(9));
    let mirrors = |end| vec![LO::Disarm(LT::Kill(PID)), LO::Mirror(PID, end)];
    let exit = L::Ended(PID, End::Code(0));
    assert_eq!(keeping(Kind::DAEMONTOOLS).on(exit), mirrors(End::Code(0)));
    assert_eq!(keeping(Kind::NOBODY).on(crash), mirrors(End::Signal(9)));
    let stop = [L::Term { from: 7 }, L::Status(Reading::Down)];
    for before in [
        vec![L::NeedsNoKeeper(PID)],
        vec![L::NoneGiven(PID)],
        vec![report(Report::Draining)],
        vec![report(Report::Leaving)],
        vec![report(Report::Released)],
        stop.to_vec(),
    ] {
        let mut launcher = keeping(Kind::DAEMONTOOLS);
        let outputs = all(&mut launcher, &before);
        assert!(outputs.contains(&LO::DropSockets(PID)), "{before:?}");
        assert!(!launcher.on(crash).contains(&LO::Keep(PID)), "{before:?}");
    }
    // What comes too late is closed at once.
    let mut stopped = after(keeping(Kind::DAEMONTOOLS), &stop);
    assert_eq!(stopped.on(L::Given(PID)), [LO::DropSockets(PID)]);
    for late in [Report::Released, Report::Draining] {
        let mut launcher = after(keeping(Kind::DAEMONTOOLS), &[report(late)]);
        assert_eq!(launcher.on(L::Given(PID)), [LO::DropSockets(PID)], "{late:?}");
    }
    // The supervisor keeps those that are given later as well.
    let mut kept = after(keeping(Kind::SYSTEMD), &[L::NeedsNoKeeper(PID)]);
    assert_eq!(kept.on(L::Given(PID)), [LO::DropSockets(PID)]);
    let mut anew = after(keeping(Kind::DAEMONTOOLS), &[L::NoneGiven(PID), L::Given(PID)]);
    assert!(anew.on(crash).contains(&LO::Keep(PID)));
}

/// A stop that the launcher knows nothing of, by `seamless stop`.
#[test]
fn p6_a_crash_of_one_that_leaves_is_an_end_after_a_stop() {
    let mut launcher = keeping(Kind::DAEMONTOOLS);
    let leaves =
        [LO::DropSockets(PID), LO::Arm(LT::Kill(PID)), LO::Progress(Progress::Leaving(PID))];
    assert_eq!(launcher.on(report(Report::Leaving)), leaves);
    let crash = End::Signal(9);
    let outputs = [LO::Disarm(LT::Kill(PID)), LO::Mirror(PID, crash)];
    assert_eq!(launcher.on(L::Ended(PID, crash)), outputs);
    // On probation an exit with 0 is what was asked for.
    let way = [report(Report::Probation), report(Report::Leaving)];
    let mut launcher = after(keeping(Kind::DAEMONTOOLS), &way);
    let outputs = [LO::Disarm(LT::Kill(PID)), LO::Mirror(PID, End::Code(0))];
    assert_eq!(launcher.on(L::Ended(PID, End::Code(0))), outputs);
}

#[test]
fn p6_a_stop_ends_the_keeper_before_the_launcher_ends() {
    let way = [L::Ended(PID, End::Signal(9)), L::Term { from: 7 }];
    let mut launcher = after(keeping(Kind::DAEMONTOOLS), &way);
    assert!(launcher.on(L::Status(Reading::Down)).contains(&LO::EndKeeper));
    assert_eq!(launcher.on(L::Keeper(Keeper::InPlace)), []);
    assert_eq!(launcher.on(L::Keeper(Keeper::Gone)), [LO::StopOlder]);
    let none = L::OlderTold { awaited: false, again: false };
    assert_eq!(launcher.on(none), [LO::Mirror(PID, End::Signal(9))]);
}

#[test]
fn p12_in_place_the_next_one_gets_what_the_launcher_holds() {
    let way = [L::Given(PID), report(Report::Started), L::Reload, L::Spawned(Some(NEXT))];
    let mut launcher = after(in_place(Kind::DAEMONTOOLS), &way);
    let crash = End::Signal(11);
    let pass = LO::PassSockets { from: PID, to: NEXT };
    assert!(launcher.on(L::Ended(PID, crash)).contains(&pass));
    // It fails: the keeper gets them.
    let mut failed = launcher.clone();
    assert!(failed.on(L::Ended(NEXT, End::Code(1))).contains(&LO::Keep(PID)));
    let refused = LO::Progress(Progress::ReloadRefused(Refusal::Leaving));
    assert_eq!(failed.on(L::Reload), [refused]);
    // It serves: they are closed.
    let outputs = launcher.on(L::Report(NEXT, Report::Started));
    assert!(outputs.contains(&LO::DropSockets(PID)), "{outputs:?}");
}

// ---- probation ----

#[test]
fn p6_p11_an_unasked_exit_with_0_on_probation_is_shown_as_75() {
    let ends = |before: &[L], code| {
        let launcher = Launcher::new(Kind::DAEMONTOOLS, None, PID, None);
        let launcher = after(launcher, &[report(Report::Probation), report(Report::Started)]);
        let ended = [L::Ended(PID, End::Code(code)), L::OlderTold { awaited: false, again: false }];
        let outputs = all(&mut after(launcher, before), &ended);
        outputs.into_iter().find(|one| matches!(one, LO::Mirror(..)))
    };
    let mirrors = |code| Some(LO::Mirror(PID, End::Code(code)));
    assert_eq!(ends(&[], 0), mirrors(75));
    assert_eq!(ends(&[], 3), mirrors(3));
    let fails = [report(Report::RolledBack), report(Report::Draining)];
    assert_eq!(ends(&fails, 0), mirrors(75));
    assert_eq!(ends(&[report(Report::Committed)], 0), mirrors(0));
    let stops = [L::Term { from: 7 }, L::Status(Reading::Down), report(Report::Draining)];
    assert_eq!(ends(&stops, 0), mirrors(0));
}

/// Otherwise the launcher would end the one that stands by after a second.
#[test]
fn p11_in_place_the_older_one_is_overdue_from_the_commit_on() {
    let next = |report| L::Report(NEXT, report);
    let start = [report(Report::Started), L::Reload, L::Spawned(Some(NEXT))];
    let mut launcher = after(in_place(Kind::DAEMONTOOLS), &start);
    let _ = launcher.on(next(Report::Probation));
    let overdue = LO::Arm(LT::Overdue);
    assert!(!launcher.on(next(Report::Started)).contains(&overdue));
    assert_eq!(launcher.current(), Some(NEXT));
    assert_eq!(launcher.clone().on(next(Report::Committed)), [overdue]);
    let _ = launcher.on(report(Report::Resumed));
    assert_eq!(launcher.current(), Some(PID), "the one that serves again");
    let _ = launcher.on(next(Report::RolledBack));
    let _ = launcher.on(next(Report::Draining));
    let ends = launcher.on(L::Ended(NEXT, End::Code(0)));
    assert!(!ends.iter().any(|one| matches!(one, LO::Mirror(..))), "{ends:?}");
}

/// The second reload comes within a second of the commit: the one that was proven last stands by for the third.
#[test]
fn p11_in_place_the_proven_one_is_not_overdue_while_the_next_one_proves_itself() {
    const NEXT: Child = 71;
    const LAST: Child = 72;
    let in_place = Some(crate::proto::launcher::InPlace { max_draining: None });
    let mut launcher = Launcher::new(Kind::DAEMONTOOLS, None, PID, in_place);
    let said = |child, reports: [Report; 2]| reports.map(|report| L::Report(child, report));
    let starts =
        |child| [L::Reload, L::Report(child - 1, Report::Prepared), L::Spawned(Some(child))];
    _ = launcher.on(report(Report::Started));
    starts(NEXT).iter().for_each(|input| _ = launcher.on(*input));
    said(NEXT, [Report::Probation, Report::Started]).iter().for_each(|one| _ = launcher.on(*one));
    assert_eq!(launcher.on(L::Report(NEXT, Report::Committed)), [LO::Arm(LT::Overdue)]);
    let overdue = |launcher: &Launcher| launcher.clone().on(L::Timer(LT::Overdue));
    assert_eq!(overdue(&launcher), [LO::TellTakenOver(PID)]);
    _ = launcher.on(report(Report::Draining));
    starts(LAST).iter().for_each(|input| _ = launcher.on(*input));
    said(LAST, [Report::Probation, Report::Started]).iter().for_each(|one| _ = launcher.on(*one));
    assert_eq!(launcher.current(), Some(LAST));
    assert_eq!(overdue(&launcher), [], "it stands by");
    _ = launcher.on(L::Report(LAST, Report::Committed));
    assert_eq!(overdue(&launcher), [LO::TellTakenOver(NEXT)]);
}

/// An operator tells the one that stands by to serve again, and the new one commits at the same time. The record
/// decides for the new one, whichever report is read first.
#[test]
fn p1_p11_in_place_a_commit_counts_also_if_the_older_one_has_served_again() {
    let next = |report| L::Report(NEXT, report);
    for resumed_first in [true, false] {
        let start = [report(Report::Started), L::Reload, L::Spawned(Some(NEXT))];
        let probation = [next(Report::Probation), next(Report::Started)];
        let mut both = [report(Report::Resumed), next(Report::Committed)];
        if !resumed_first {
            both.reverse();
        }
        let way = [&start[..], &probation, &both].concat();
        let mut launcher = after(in_place(Kind::DAEMONTOOLS), &way);
        assert_eq!(launcher.current(), Some(NEXT), "resumed first: {resumed_first}");
        let told = launcher.on(L::Timer(LT::Overdue));
        assert!(!told.contains(&LO::TellTakenOver(NEXT)), "{told:?}");
    }
}

// ---- a stop, and nobody is left to tell the older generations ----

#[test]
fn p6_a_launcher_whose_daemon_dies_after_a_stop_ends_after_the_older_generations() {
    let (end, told) = (End::Signal(9), |awaited, again| L::OlderTold { awaited, again });
    let mirror = [LO::Mirror(PID, end)];
    let mut dead = named("stopping", launchers());
    assert_eq!(dead.on(L::Ended(PID, end)), [LO::Disarm(LT::Kill(PID)), LO::StopOlder]);
    assert_eq!(dead.clone().on(told(false, false)), mirror, "there is none");
    let mut awaits = dead.clone();
    assert_eq!(awaits.on(told(true, false)), []);
    assert_eq!(awaits.on(L::Timer(LT::TellOlder)), []);
    assert_eq!(awaits.on(L::Quiet), []);
    assert_eq!(awaits.on(L::Term { from: 7 }), []);
    assert_eq!(awaits.on(L::OlderGone), mirror);
    // Memory is short: those that could be told have ended, and the others are told later.
    assert_eq!(dead.on(told(true, true)), [LO::Arm(LT::TellOlder)]);
    assert_eq!(dead.on(L::OlderGone), []);
    assert_eq!(dead.on(L::Timer(LT::TellOlder)), [LO::StopOlder]);
    assert_eq!(dead.on(told(false, false)), mirror);
}

/// The daemon dies while it is being found out what a TERM meant.
#[test]
fn p6_p12_a_launcher_does_not_end_before_it_has_understood_a_term() {
    let end = End::Signal(9);
    let settling = |name: &str| -> Launcher {
        let mut launcher = named(name, launchers());
        assert_eq!(launcher.on(L::Ended(PID, end)), [LO::Disarm(LT::Kill(PID))]);
        launcher
    };
    let stops = |mut launcher: Launcher| launcher.on(L::Status(Reading::Down)).pop();
    assert_eq!(stops(settling("settling")), Some(LO::StopOlder));
    assert_eq!(stops(settling("settling again")), Some(LO::StopOlder));
    let restarts = |launcher: &mut Launcher| launcher.on(L::Status(Reading::Up)).pop();
    assert_eq!(restarts(&mut settling("settling")), Some(LO::Mirror(PID, end)));
    // The next TERM may be a stop. A stop cannot be taken back.
    let mut again = settling("settling");
    assert_eq!(again.on(L::Term { from: 7 }), []);
    assert_eq!(restarts(&mut again), Some(LO::Arm(LT::Settle)));
    assert_eq!(stops(again), Some(LO::StopOlder));
    let mut again = settling("settling");
    assert_eq!(again.on(L::Term { from: 7 }), []);
    assert_eq!(stops(again), Some(LO::StopOlder));
    // The keeper is in place meanwhile. After a stop its end is awaited as well.
    let mut kept = keeping(Kind::DAEMONTOOLS);
    for input in [L::Term { from: 7 }, L::Ended(PID, end), L::Keeper(Keeper::InPlace)] {
        assert!(!kept.on(input).contains(&LO::Mirror(PID, end)), "{input:?}");
    }
    assert_eq!(restarts(&mut kept.clone()), Some(LO::Mirror(PID, end)));
    assert_eq!(stops(kept.clone()), Some(LO::EndKeeper));
    let _ = kept.on(L::Status(Reading::Down));
    assert_eq!(kept.on(L::Keeper(Keeper::Gone)), [LO::StopOlder]);
}
