//! The machines: each state x event by a literal table, and ways through several of
//! them. `model` walks all of them together.

use super::daemon::{Daemon, Finding, Forced, Input as D, Output as DO, Phase, Timer as DT};
use super::launcher::{Input as L, Launcher, Output as LO, Timer as LT};
use super::{DrainReason, End, Intent, Kind, Reading, Report, Scope};
use DrainReason::{Requested, Stopped, TakenOver};
use Intent::{Restart, Stop, Unknown};
use Scope::{Generation, Service};

const SEEN: Finding = seen(Reading::Unreadable);

const fn seen(supervisor: Reading) -> Finding {
    Finding::Seen { newer: false, lost_file: false, claims_moved: false, supervisor }
}

// ---- the daemon, state x event ----

/// A daemon in each of its states, by the shortest way there.
fn daemon_in(phase: Phase) -> Daemon {
    let mut daemon = Daemon::new(true);
    let way: &[D] = match phase {
        Phase::Starting => &[],
        Phase::StoppingEarly => &[D::Told(Stop(Service))],
        Phase::Serving => &[D::Started],
        Phase::HandingOff => &[D::Started, D::Told(Restart)],
        Phase::Detached => &[D::Started, D::Told(Restart), D::RequestHooksDone, D::LauncherGone],
        Phase::Draining(_) => &[D::Started, D::Term { from_successor: false }],
        Phase::AwaitingOlder(_) => &[D::Started, D::Told(Stop(Service)), D::DrainHooksDone],
        Phase::Finished => &[D::Started, D::Term { from_successor: false }, D::DrainHooksDone],
        Phase::Ended => &[D::LauncherGone],
    };
    for input in way {
        let _ = daemon.on(*input);
    }
    assert_eq!(daemon.phase(), phase);
    daemon
}

const PHASES: [Phase; 9] = [
    Phase::Starting,
    Phase::StoppingEarly,
    Phase::Serving,
    Phase::HandingOff,
    Phase::Detached,
    Phase::Draining(Requested),
    Phase::AwaitingOlder(Stopped),
    Phase::Finished,
    Phase::Ended,
];

/// What a drain begins with.
fn drain(reason: DrainReason) -> Vec<DO> {
    vec![
        DO::Disarm(DT::Check),
        DO::Disarm(DT::Successor),
        DO::Report(Report::Draining),
        DO::Arm(DT::Drain),
        DO::RunDrainHooks(reason),
    ]
}

fn and(mut outputs: Vec<DO>, output: DO) -> Vec<DO> {
    outputs.push(output);
    outputs
}

/// A phase, what the input leads to there, and the phase after it.
type Row = (Phase, Vec<DO>, Phase);

/// For each input: the phases in which it does something, what, and the phase after. Everywhere
/// else it is ignored: no output, no other phase.
fn daemon_table() -> Vec<(D, Vec<Row>)> {
    use Phase as P;
    let draining = P::Draining(Requested);
    let awaiting = P::AwaitingOlder(Stopped);
    let hammer = || vec![DO::Hammer(Forced::Usr2)];
    let to_drain = |reason| {
        [P::Serving, P::HandingOff, P::Detached]
            .map(|phase| (phase, drain(reason), P::Draining(reason)))
            .to_vec()
    };
    let let_go = [DO::Report(Report::Released), DO::Release];
    // A handoff was told, so the launcher does not wait for the drain.
    let from_handoff = |mut steps: Vec<Row>| -> Vec<Row> {
        steps[1].1.extend(let_go);
        steps
    };
    let and_older = |steps: Vec<Row>| -> Vec<Row> {
        steps.into_iter().map(|(from, out, to)| (from, and(out, DO::StopOlder), to)).collect()
    };
    let handoff = || {
        vec![
            (P::Starting, vec![DO::End], P::Ended),
            (P::Serving, vec![DO::RunRequestHooks], P::HandingOff),
        ]
    };
    let early_stop = vec![DO::StopOlder, DO::Report(Report::Waiting)];
    let with = |mut steps: Vec<Row>, step| {
        steps.push(step);
        steps
    };
    let stay = vec![DO::Disarm(DT::Successor), DO::Arm(DT::Check)];
    vec![
        (D::Started, vec![(P::Starting, vec![DO::Report(Report::Started)], P::Serving)]),
        (D::Usr2 { from_launcher: true }, handoff()),
        (
            D::Usr2 { from_launcher: false },
            [
                handoff(),
                vec![
                    (draining, hammer(), P::Ended),
                    (awaiting, hammer(), P::Ended),
                    (P::Finished, hammer(), P::Ended),
                ],
            ]
            .concat(),
        ),
        (
            D::Term { from_successor: true },
            with(from_handoff(to_drain(TakenOver)), (P::Starting, vec![DO::End], P::Ended)),
        ),
        (
            D::Term { from_successor: false },
            with(from_handoff(to_drain(Requested)), (P::Starting, vec![DO::End], P::Ended)),
        ),
        (
            D::Told(Restart),
            [
                handoff(),
                vec![
                    (draining, let_go.to_vec(), draining),
                    (P::Finished, let_go.to_vec(), P::Finished),
                ],
            ]
            .concat(),
        ),
        (D::Told(Unknown), handoff()),
        (
            D::Told(Stop(Service)),
            [
                and_older(to_drain(Stopped)),
                vec![
                    (P::Starting, early_stop, P::StoppingEarly),
                    (draining, vec![DO::StopOlder], draining),
                ],
            ]
            .concat(),
        ),
        (
            D::Told(Stop(Generation)),
            with(to_drain(Stopped), (P::Starting, vec![DO::End], P::Ended)),
        ),
        (
            D::LauncherGone,
            vec![
                (P::Starting, vec![DO::End], P::Ended),
                (P::Serving, vec![DO::RunRequestHooks, DO::Check], P::HandingOff),
                (P::HandingOff, vec![DO::Check], P::HandingOff),
                (P::StoppingEarly, vec![DO::End], P::Ended), // nobody waits for its end
            ],
        ),
        (D::Restart, vec![(P::Serving, vec![DO::RunRequestHooks], P::HandingOff)]),
        (
            D::RequestHooksDone,
            vec![(
                P::HandingOff,
                vec![DO::Report(Report::Released), DO::Release, DO::Check],
                P::Detached,
            )],
        ),
        (D::DrainHooksDone, vec![(draining, vec![DO::Finish(Requested)], P::Finished)]),
        (
            D::OlderGone,
            vec![
                (P::StoppingEarly, vec![DO::End], P::Ended),
                (
                    awaiting,
                    vec![DO::Report(Report::Draining), DO::Arm(DT::Drain), DO::Finish(Stopped)],
                    P::Finished,
                ),
            ],
        ),
        (D::Checked(Finding::ClaimHeld), vec![(P::Detached, stay.clone(), P::Detached)]),
        (D::Checked(Finding::Unseen), vec![(P::Detached, stay.clone(), P::Detached)]),
        (D::Checked(SEEN), vec![(P::Detached, stay.clone(), P::Detached)]),
        (D::Checked(seen(Reading::Up)), vec![(P::Detached, stay.clone(), P::Detached)]),
        (
            D::Checked(seen(Reading::Down)),
            vec![(P::Detached, and(drain(Stopped), DO::StopOlder), P::Draining(Stopped))],
        ),
        (
            D::Checked(seen(Reading::Lost)), // unknown from here on: the wait begins
            vec![(P::Detached, vec![DO::Arm(DT::Successor), DO::Arm(DT::Check)], P::Detached)],
        ),
        (
            D::Checked(Finding::Seen {
                newer: true,
                lost_file: true,
                claims_moved: true,
                supervisor: Reading::Up,
            }),
            vec![(P::Detached, drain(TakenOver), P::Draining(TakenOver))],
        ),
        (
            D::Checked(Finding::Seen {
                newer: false,
                lost_file: true,
                claims_moved: false,
                supervisor: Reading::Up,
            }),
            vec![(P::Detached, [vec![DO::PutBack], stay].concat(), P::Detached)],
        ),
        (D::Timer(DT::Check), vec![(P::Detached, vec![DO::Check], P::Detached)]),
        (D::Timer(DT::Successor), vec![]), // no wait is on: it is stale
        (
            D::Timer(DT::Drain),
            [draining, P::Finished]
                .map(|phase| (phase, vec![DO::Hammer(Forced::DrainTimeout)], P::Ended))
                .to_vec(),
        ),
    ]
}

#[test]
fn daemon_every_state_and_event() {
    let table = daemon_table();
    let mut cells = 0;
    for (input, rows) in &table {
        for phase in PHASES {
            let mut daemon = daemon_in(phase);
            let outputs = daemon.on(*input);
            let expected = rows.iter().find(|(from, _, _)| *from == phase);
            let (expected, after) = match expected {
                Some((_, outputs, after)) => (outputs.clone(), *after),
                None => (vec![], phase),
            };
            assert_eq!(outputs, expected, "{input:?} in {phase:?}");
            assert_eq!(daemon.phase(), after, "{input:?} in {phase:?}");
            cells += 1;
        }
    }
    assert_eq!(cells, 9 * 25, "a new state or event needs its row");
}

/// Feeds inputs and returns what the last one led to.
fn after(mut daemon: Daemon, inputs: &[D]) -> (Vec<DO>, Phase) {
    let mut last = Vec::new();
    for input in inputs {
        last = daemon.on(*input);
    }
    (last, daemon.phase())
}

#[test]
fn daemon_unknown_intent_waits_then_drains() {
    let detached = || {
        let mut daemon = Daemon::new(false);
        for input in [D::Started, D::Told(Unknown), D::RequestHooksDone, D::Checked(SEEN)] {
            let _ = daemon.on(input);
        }
        daemon
    };
    let expire = D::Timer(DT::Successor);
    let moved = Finding::Seen {
        newer: false,
        lost_file: false,
        claims_moved: true,
        supervisor: Reading::Unreadable,
    };
    // Nobody came: the look that follows the timer drains.
    assert_eq!(after(detached(), &[expire]).0, [DO::Check]);
    assert_eq!(after(detached(), &[expire, D::Checked(SEEN)]).1, Phase::Draining(Stopped));
    // Somebody is starting, or has tried since: the wait begins anew.
    for sign in [Finding::ClaimHeld, Finding::Unseen, moved] {
        let (_, phase) = after(detached(), &[expire, D::Checked(sign), D::Checked(SEEN)]);
        assert_eq!(phase, Phase::Detached, "{sign:?}");
    }
    assert_eq!(
        after(detached(), &[D::Checked(moved)]).0,
        [DO::Arm(DT::Successor), DO::Arm(DT::Check)]
    );
    // A status that says up ends the wait, and its timer is stale.
    let up = D::Checked(seen(Reading::Up));
    assert_eq!(after(detached(), &[up, expire]), (vec![], Phase::Detached));
}

#[test]
fn daemon_that_lost_its_launcher_looks_round_while_its_hooks_run() {
    let lost = [D::Started, D::LauncherGone];
    let with = |rest: &[D]| after(Daemon::new(true), &[&lost[..], rest].concat());
    assert_eq!(with(&[D::Timer(DT::Check)]), (vec![DO::Check], Phase::HandingOff));
    assert_eq!(with(&[D::Checked(seen(Reading::Down))]).1, Phase::Draining(Stopped));
    // The hooks are through: there is nobody to release.
    assert_eq!(with(&[D::RequestHooksDone]), (vec![], Phase::Detached));
}

#[test]
fn daemon_told_to_stop_ends_after_the_older_ones() {
    let told = [D::Started, D::Told(Stop(Service))];
    let with = |rest: &[D]| after(Daemon::new(true), &[&told[..], rest].concat());
    let waiting = with(&[D::DrainHooksDone]);
    assert_eq!(
        waiting,
        (vec![DO::Disarm(DT::Drain), DO::Report(Report::Waiting)], Phase::AwaitingOlder(Stopped))
    );
    assert_eq!(with(&[D::OlderGone, D::DrainHooksDone]).1, Phase::Finished);
    assert_eq!(with(&[D::DrainHooksDone, D::OlderGone]).1, Phase::Finished);
}

/// A stop that the check finds, before the launcher has told of it, is one for all generations.
#[test]
fn p6_daemon_that_finds_a_stop_ends_after_the_older_ones() {
    let found = [
        D::Started,
        D::Told(Restart),
        D::RequestHooksDone,
        D::Checked(seen(Reading::Down)),
        D::DrainHooksDone,
        D::Told(Stop(Service)),
    ];
    let with = |rest: &[D]| after(Daemon::new(true), &[&found[..], rest].concat());
    assert_eq!(with(&[]).1, Phase::AwaitingOlder(Stopped));
    assert_eq!(with(&[D::OlderGone]).1, Phase::Finished);
}

/// Without a number of its own, a daemon must not take a newer generation for an older one.
#[test]
fn p4_a_daemon_without_a_number_goes_by_the_start_times() {
    use super::takeover::is_older;
    assert!(is_older(1, 700, Some(2), 700));
    assert!(!is_older(3, 700, Some(2), 800));
    assert!(is_older(1, 700, None, 800));
    assert!(!is_older(3, 900, None, 800));
    assert!(!is_older(3, 800, None, 800));
}

/// A look without the record goes by the PID file, as long as it can be believed.
#[test]
fn p4_without_the_record_a_newer_generation_is_known_by_its_pid_file() {
    use super::takeover::{Content, names_newer};
    use super::wire::Identity;
    let own = Identity { pid: 70, start: 700 };
    let newer = Identity { pid: 80, start: 800 };
    let held = Content { pid: Some(80), locked: true };
    assert!(names_newer(own, held, Some(newer)));
    assert!(names_newer(own, held, Some(Identity { start: 700, ..newer })), "in the same tick");
    assert!(!names_newer(own, held, Some(Identity { start: 699, ..newer })), "an older one");
    assert!(!names_newer(own, held, None), "it has ended");
    assert!(!names_newer(own, Content { locked: false, ..held }, Some(newer)), "not its owner");
    assert!(!names_newer(own, Content { pid: Some(70), ..held }, Some(own)), "ourselves");
    assert!(!names_newer(own, Content::default(), None), "no file");
}

// ---- the launcher, state x event ----

/// The launcher's states, by the shortest way there.
fn launchers() -> Vec<(&'static str, Launcher)> {
    let term = L::Term { from: 7 };
    let ready = L::Report(Report::Ready);
    let ways: [(&str, &[L]); 8] = [
        ("early", &[]),
        ("ready", &[ready]),
        ("settling", &[ready, term]),
        ("held", &[term, L::Status(Reading::Up)]),
        ("handoff", &[ready, term, L::Status(Reading::Up)]),
        ("settling again", &[ready, term, L::Status(Reading::Up), term]),
        ("stopping", &[ready, term, L::Status(Reading::Down)]),
        ("gone", &[ready, L::Report(Report::Released), L::Quiet]),
    ];
    ways.map(|(name, way)| {
        let mut launcher = Launcher::new(Kind::Daemontools);
        for input in way {
            let _ = launcher.on(*input);
        }
        (name, launcher)
    })
    .to_vec()
}

#[test]
fn launcher_every_state_and_event() {
    let arm = LO::Arm;
    let to_stop =
        || vec![LO::Tell(Stop(Service)), LO::Stop, LO::Disarm(LT::Handoff), arm(LT::Kill)];
    let all_but_gone =
        ["early", "ready", "settling", "held", "handoff", "settling again", "stopping"];
    let everywhere = |outputs: Vec<LO>| all_but_gone.map(|name| (name, outputs.clone())).to_vec();
    type Rows = Vec<(&'static str, Vec<LO>)>;
    let table: Vec<(L, Rows)> = vec![
        (L::Report(Report::Ready), vec![("held", vec![LO::Tell(Restart), LO::Handoff])]),
        (L::ChannelClosed, vec![("held", vec![LO::Tell(Restart), LO::Handoff])]),
        (L::Report(Report::Started), vec![]),
        (L::Report(Report::Released), vec![]), // noted: it leaves when all is quiet
        (L::Report(Report::Draining), everywhere(vec![arm(LT::Kill)])),
        (L::Report(Report::Waiting), everywhere(vec![LO::Disarm(LT::Kill)])),
        (L::Ended(End::Code(3)), everywhere(vec![LO::Mirror(End::Code(3))])),
        (L::Ended(End::Signal(9)), everywhere(vec![LO::Mirror(End::Signal(9))])),
        (
            L::Term { from: 7 },
            ["early", "ready", "held", "handoff"]
                .map(|name| (name, vec![arm(LT::Settle)]))
                .to_vec(),
        ),
        (
            L::Cont { from: 7 },
            // In "settling" it belongs to the TERM that is being settled.
            ["early", "ready", "held", "handoff", "stopping"]
                .map(|name| (name, vec![arm(LT::Cont)]))
                .to_vec(),
        ),
        (L::Signal(1), everywhere(vec![LO::Forward(1)])),
        (
            L::Status(Reading::Up),
            vec![
                ("settling", vec![arm(LT::Handoff), LO::Tell(Restart), LO::Handoff]),
                ("settling again", vec![]),
            ],
        ),
        (
            L::Status(Reading::Unreadable),
            vec![("settling", vec![arm(LT::Handoff), LO::Tell(Restart), LO::Handoff])],
        ),
        (
            L::Status(Reading::Down),
            vec![
                ("settling", [vec![arm(LT::Handoff)], to_stop()].concat()),
                ("settling again", to_stop()),
            ],
        ),
        (
            L::Status(Reading::Lost),
            vec![
                (
                    "settling",
                    vec![
                        arm(LT::Handoff),
                        LO::Tell(Stop(Generation)),
                        LO::Stop,
                        LO::Disarm(LT::Handoff),
                        arm(LT::Kill),
                    ],
                ),
                (
                    "settling again",
                    vec![
                        LO::Tell(Stop(Generation)),
                        LO::Stop,
                        LO::Disarm(LT::Handoff),
                        arm(LT::Kill),
                    ],
                ),
            ],
        ),
        (L::Timer(LT::Cont), vec![]),
        (
            L::Timer(LT::Settle),
            vec![("settling", vec![LO::ReadStatus]), ("settling again", vec![LO::ReadStatus])],
        ),
        (
            L::Timer(LT::Handoff),
            vec![("early", vec![LO::Kill(LT::Handoff)]), ("held", vec![LO::Kill(LT::Handoff)])],
        ),
        (L::Timer(LT::Kill), everywhere(vec![LO::Kill(LT::Kill)])),
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

/// What a launcher comes to after these inputs: all outputs of the way there.
fn outputs(kind: Kind, inputs: &[L]) -> Vec<LO> {
    let mut launcher = Launcher::new(kind);
    inputs.iter().flat_map(|input| launcher.on(*input)).collect()
}

fn told(kind: Kind, inputs: &[L]) -> Vec<Intent> {
    let ready = [L::Report(Report::Ready)];
    let outputs = outputs(kind, &[&ready[..], inputs].concat());
    let tell = |output| match output {
        LO::Tell(intent) => Some(intent),
        _ => None,
    };
    outputs.into_iter().filter_map(tell).collect()
}

/// DESIGN's table of intents: supervisor x status x CONT.
#[test]
fn launcher_settles_the_intent() {
    let term = L::Term { from: 7 };
    let cont = L::Cont { from: 7 };
    let settle = L::Timer(LT::Settle);
    let status = L::Status;
    let cases: &[(Kind, &[L], &[Intent])] = &[
        (Kind::Daemontools, &[term, settle, status(Reading::Up)], &[Restart]),
        (Kind::Daemontools, &[term, settle, status(Reading::Down)], &[Stop(Service)]),
        (Kind::Daemontools, &[term, settle, status(Reading::Unreadable)], &[Restart]),
        // Either order, but of one sender, and not too far apart.
        (Kind::Daemontools, &[term, cont, settle, status(Reading::Unreadable)], &[Stop(Service)]),
        (Kind::Daemontools, &[cont, term, settle, status(Reading::Unreadable)], &[Stop(Service)]),
        (
            Kind::Daemontools,
            &[L::Cont { from: 8 }, term, settle, status(Reading::Unreadable)],
            &[Restart],
        ),
        (
            Kind::Daemontools,
            &[cont, L::Timer(LT::Cont), term, settle, status(Reading::Unreadable)],
            &[Restart],
        ),
        // A CONT and a status of "up": read again.
        (
            Kind::Daemontools,
            &[term, cont, settle, status(Reading::Up), settle, status(Reading::Down)],
            &[Stop(Service)],
        ),
        (Kind::Runit, &[term, status(Reading::Up)], &[Restart]),
        (Kind::Runit, &[term, cont, status(Reading::Up)], &[Restart]),
        (Kind::Runit, &[term, status(Reading::Down)], &[Stop(Service)]),
        (Kind::Runit, &[term, status(Reading::Unreadable)], &[Unknown]),
        (Kind::Other, &[term, status(Reading::Unreadable)], &[Unknown]),
        (Kind::Other, &[term, status(Reading::Lost)], &[Stop(Generation)]),
        (Kind::Daemontools, &[term, settle, status(Reading::Lost)], &[Stop(Generation)]),
        (Kind::Nobody, &[term], &[Stop(Generation)]),
        // A stop that follows a restart is told; a restart that follows a stop comes too late.
        (
            Kind::Runit,
            &[term, status(Reading::Up), term, status(Reading::Down)],
            &[Restart, Stop(Service)],
        ),
        (Kind::Runit, &[term, status(Reading::Down), term, status(Reading::Up)], &[Stop(Service)]),
        // A second TERM while the first is being settled is settled as well.
        (
            Kind::Daemontools,
            &[term, term, settle, status(Reading::Up), settle, status(Reading::Down)],
            &[Restart, Stop(Service)],
        ),
    ];
    for (kind, inputs, intents) in cases {
        assert_eq!(told(*kind, inputs), *intents, "{kind:?} {inputs:?}");
    }
}

#[test]
fn launcher_reads_a_doubtful_status_ten_times() {
    let mut inputs = vec![L::Term { from: 7 }, L::Cont { from: 7 }];
    for _ in 1..10 {
        inputs.extend([L::Timer(LT::Settle), L::Status(Reading::Up)]);
        assert_eq!(told(Kind::Daemontools, &inputs), []);
    }
    inputs.extend([L::Timer(LT::Settle), L::Status(Reading::Up)]);
    assert_eq!(told(Kind::Daemontools, &inputs), [Restart]);
}

#[test]
fn launcher_leaves_only_when_all_is_settled() {
    let term = L::Term { from: 7 };
    let released = [L::Report(Report::Ready), L::Report(Report::Released)];
    let leaves = |inputs: &[L]| {
        let all = outputs(Kind::Runit, &[&released[..], inputs].concat());
        all.contains(&LO::Leave { expired: false })
    };
    assert!(leaves(&[L::Quiet]));
    assert!(!leaves(&[term, L::Quiet]));
    assert!(leaves(&[term, L::Status(Reading::Up), L::Quiet]));
    assert!(!leaves(&[term, L::Status(Reading::Down), L::Quiet]));
    // Nor does it leave when the handoff's time is over while a TERM is being settled.
    let expired = [L::Report(Report::Ready), term, L::Status(Reading::Up), L::Timer(LT::Handoff)];
    let settling = [&expired[..], &[term, L::Quiet]].concat();
    let leave = LO::Leave { expired: true };
    assert!(outputs(Kind::Runit, &[&expired[..], &[L::Quiet]].concat()).contains(&leave));
    assert!(!outputs(Kind::Runit, &settling).contains(&leave));
}
