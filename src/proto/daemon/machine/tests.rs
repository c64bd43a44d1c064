//! Each state x event by a literal table, and ways through several of them. The model walks all of them
//! together with the launcher.

use crate::proto::daemon::{
    Daemon, Forced, Input as D, NewFlows, NoRestart, Output as DO, Phase, Question, RestartCall,
    Sender, Sight, Timer as DT,
};
use crate::proto::generation::check::{Content, Own, Seen};
use crate::proto::generation::record::{Identity, LineState};
use crate::proto::generation::verdict::{Facts, Unproven};
use crate::proto::{DrainReason, Intent, Kind, Reading, Report, Scope, State, are_told_apart};
use DrainReason::{Requested, Stopped, TakenOver};
use Intent::{Restart, Stop, Unknown};
use Question::{OfLauncher, OfService};
use Scope::{Generation, Service};

const SELF: Identity = Identity { pid: 50, start: 500 };
const ANNOUNCED: Sender = Sender::Launcher { announced: true };
const BY_LAUNCHER: Sender = Sender::Launcher { announced: false };

/// What a check sees if all is well.
fn well() -> Seen {
    let ours = Facts { start: SELF.start, ..Facts::of_test(5, Err(Unproven::Ours)) };
    Seen {
        own: Own { number: 5, identity: SELF },
        last: 5,
        lines: vec![(SELF, ours)],
        content: Some(Content { pid: Some(SELF.pid), locked: false }),
        named_lives: true,
        socket_lost: false,
    }
}

fn newer() -> Seen {
    let mut seen = well();
    let (identity, facts) = seen.lines[0];
    let facts = Facts { number: 6, proof: Ok(()), ..facts };
    seen.lines.push((Identity { pid: 60, ..identity }, facts));
    seen
}

fn lost_file() -> Seen {
    Seen { content: None, named_lives: false, ..well() }
}

fn claims_moved() -> Seen {
    Seen { last: 6, ..well() }
}

fn checked(seen: Seen) -> D {
    D::Checked(Sight::Seen(seen))
}

/// A check under a supervisor that says this: the question, its answer, and what is seen.
fn check(reading: Reading, seen: Seen) -> [D; 3] {
    [D::Timer(DT::Check), D::Status(OfService, reading), checked(seen)]
}

fn started(kind: Kind, in_place: bool) -> Daemon {
    let mut daemon = Daemon::new(kind, in_place);
    assert_eq!(daemon.started(5), Some(Report::Started));
    daemon
}

/// A daemon in each of its states, by the shortest way there.
fn daemon_in(phase: Phase) -> Daemon {
    let mut daemon = Daemon::new(Kind::DAEMONTOOLS, false);
    let way: &[D] = match phase {
        Phase::Starting => &[],
        Phase::StoppingEarly => &[D::Told(Stop(Service))],
        Phase::Ended => &[D::LauncherGone],
        Phase::Serving => &[],
        Phase::HandingOff => &[D::Told(Restart)],
        Phase::Detached => &[
            D::Told(Restart),
            D::RequestHooksDone,
            D::LauncherGone,
            D::Status(OfService, Reading::Unreadable),
        ],
        Phase::Leaving(_) => unreachable!("a program without leave_time"),
        Phase::Draining(_) => &[D::Term(Sender::Other)],
        Phase::AwaitingOlder(_) => &[D::Told(Stop(Service)), D::DrainHooksDone],
        Phase::Finished => &[D::Term(Sender::Other), D::DrainHooksDone],
    };
    if !matches!(phase, Phase::Starting | Phase::StoppingEarly | Phase::Ended) {
        assert_eq!(daemon.started(5), Some(Report::Started));
    }
    for input in way {
        let _ = daemon.on(input.clone());
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

/// The supervisor reads what a daemon prints as long as its launcher lives.
#[test]
fn a_daemon_outlives_its_readers_once_it_is_alone() {
    for phase in PHASES {
        let wanted = matches!(
            phase,
            Phase::Detached | Phase::Draining(_) | Phase::AwaitingOlder(_) | Phase::Finished
        );
        assert_eq!(daemon_in(phase).outlives_readers(), wanted, "{phase:?}");
        assert_eq!(daemon_in(phase).is_handing_off(), phase == Phase::HandingOff, "{phase:?}");
    }
    let mut left = daemon_in(Phase::HandingOff);
    let _ = left.on(D::LauncherGone);
    assert!(left.outlives_readers() && left.is_alone());
    let mut leaves = Daemon::new(Kind::RUNIT, false).leaves(true);
    assert_eq!(leaves.started(5), Some(Report::Started));
    let _ = leaves.on(D::Told(Stop(Service)));
    assert!(!leaves.outlives_readers(), "its launcher waits for it");
    let _ = leaves.on(D::LauncherGone);
    assert!(leaves.outlives_readers());
}

#[test]
fn the_log_tells_apart_what_a_check_has_seen() {
    let (older, newer) = (Sight::NoRecord { newer: false }, Sight::NoRecord { newer: true });
    let all = [Sight::ClaimHeld, Sight::Unknown, older, newer, Sight::Seen(well())];
    assert!(are_told_apart(all.map(|sight| sight.name())));
}

/// An answer that comes late, while it drains, leads to no check: that would take the claim, for which its
/// successor may wait.
#[test]
fn a_daemon_that_drains_does_not_check() {
    let mut daemon = daemon_in(Phase::Detached);
    let asks = [D::Timer(DT::Check), D::Term(Sender::Successor)];
    let _ = asks.map(|input| daemon.on(input));
    assert_eq!(daemon.on(D::Status(OfService, Reading::Up)), []);
}

#[test]
fn without_a_pid_file_a_daemon_serves_and_has_no_launcher() {
    let daemon = Daemon::disabled();
    assert_eq!((daemon.phase(), daemon.state()), (Phase::Serving, State::Serving));
    let mut daemon = daemon;
    let _ = daemon.on(D::LauncherGone);
    assert_eq!(daemon.phase(), Phase::Serving, "nothing was there to go");
}

/// What a drain begins with.
fn drain(reason: DrainReason) -> Vec<DO> {
    let mut outputs = vec![DO::Disarm(DT::Check), DO::Disarm(DT::Successor)];
    if reason == TakenOver {
        outputs.push(DO::Report(Report::TakenOver));
    }
    outputs.extend([DO::Report(Report::Draining), DO::Arm(DT::Drain), DO::RunDrainHooks(reason)]);
    outputs
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
    let ends = || (P::Starting, vec![DO::End], P::Ended);
    let handoff = || vec![ends(), (P::Serving, vec![DO::RunRequestHooks], P::HandingOff)];
    // By hand: only if the supervisor would start the service again.
    let wish = || vec![ends(), (P::Serving, vec![DO::ReadStatus(OfLauncher)], P::Serving)];
    let early_stop = vec![DO::StopOlder, DO::Report(Report::Waiting)];
    let with = |mut steps: Vec<Row>, step| {
        steps.push(step);
        steps
    };
    let stay = |outputs: Vec<DO>| vec![(P::Detached, outputs, P::Detached)];
    let wait = || vec![DO::Arm(DT::Check)];
    let older_gone = || {
        let drained = [DO::Report(Report::Draining), DO::Arm(DT::Drain), DO::Finish(Stopped)];
        vec![(P::StoppingEarly, vec![DO::End], P::Ended), (awaiting, drained.to_vec(), P::Finished)]
    };
    // Who does not check holds no claim for long.
    let elsewhere = |detached: Vec<DO>, after| {
        let others = PHASES.into_iter().filter(|phase| *phase != P::Detached);
        let rows = others.map(|phase| (phase, vec![DO::GiveUpClaim], phase));
        rows.chain([(P::Detached, detached, after)]).collect::<Vec<Row>>()
    };
    let newer_serves = [vec![DO::GiveUpClaim], drain(TakenOver)].concat();
    let put_back = |outputs: &[DO]| {
        let outputs = [outputs, &[DO::GiveUpClaim, DO::Arm(DT::Check)]].concat();
        elsewhere(outputs, P::Detached)
    };
    vec![
        (D::Claimed, vec![(P::Starting, vec![DO::Arm(DT::Orphan)], P::Starting)]),
        (D::Usr2(ANNOUNCED), vec![]),
        (D::Usr2(BY_LAUNCHER), wish()),
        (
            D::Usr2(Sender::Other),
            [
                wish(),
                vec![
                    (draining, hammer(), P::Ended),
                    (awaiting, hammer(), P::Ended),
                    (P::Finished, hammer(), P::Ended),
                ],
            ]
            .concat(),
        ),
        (D::Term(ANNOUNCED), vec![]),
        (D::Term(Sender::Successor), with(from_handoff(to_drain(TakenOver)), ends())),
        (D::Term(BY_LAUNCHER), with(from_handoff(to_drain(Requested)), ends())),
        (D::Term(Sender::Other), with(from_handoff(to_drain(Requested)), ends())),
        (D::Reload, vec![(P::Serving, vec![DO::ReadStatus(OfLauncher)], P::Serving)]),
        (D::Halt(BY_LAUNCHER), with(from_handoff(to_drain(Requested)), ends())),
        (D::Halt(Sender::Other), with(from_handoff(to_drain(Requested)), ends())),
        (
            D::Prepare,
            [P::HandingOff, P::Detached, draining, awaiting, P::Finished]
                .map(|phase| (phase, vec![DO::Report(Report::Prepared)], phase))
                .into_iter()
                .chain([(P::Serving, vec![DO::RunRequestHooks], P::Serving)])
                .collect(),
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
        (D::Told(Stop(Generation)), with(to_drain(Stopped), ends())),
        (D::Cancelled, vec![ends()]),
        (
            D::LauncherGone,
            vec![
                ends(),
                (P::Serving, vec![DO::RunRequestHooks, DO::ReadStatus(OfService)], P::HandingOff),
                (P::HandingOff, vec![DO::ReadStatus(OfService)], P::HandingOff),
                (P::StoppingEarly, vec![DO::End], P::Ended), // nobody waits for its end
            ],
        ),
        (
            D::ReloadFailed,
            [P::Serving, P::HandingOff]
                .map(|phase| (phase, vec![DO::Arm(DT::Check)], phase))
                .to_vec(),
        ),
        (D::Restart, vec![(P::Serving, vec![DO::RunRequestHooks], P::HandingOff)]),
        (
            D::RequestHooksDone,
            vec![(
                P::HandingOff,
                vec![DO::Report(Report::Released), DO::Release, DO::ReadStatus(OfService)],
                P::Detached,
            )],
        ),
        (D::DrainHooksDone, vec![(draining, vec![DO::Finish(Requested)], P::Finished)]),
        (D::OlderTold { awaited: false, again: false }, older_gone()),
        (D::OlderGone, older_gone()),
        // Nobody asked: what comes is too late.
        (D::Status(OfService, Reading::Down), vec![]),
        (D::Status(OfLauncher, Reading::Lost), vec![]),
        (D::Checked(Sight::ClaimHeld), stay(wait())),
        (D::Checked(Sight::Unknown), stay(wait())),
        (
            D::Checked(Sight::NoRecord { newer: true }), // believed at the next check
            stay(wait()),
        ),
        (D::Checked(Sight::NoRecord { newer: false }), stay(wait())),
        (checked(well()), put_back(&[])),
        (checked(newer()), elsewhere(newer_serves, P::Draining(TakenOver))),
        (checked(lost_file()), put_back(&[DO::PutBackFile])),
        (checked(Seen { socket_lost: true, ..well() }), put_back(&[DO::PutBackSocket])),
        (
            checked(Seen { lines: vec![], ..well() }),
            put_back(&[DO::EnterRecord(LineState::Serving)]),
        ),
        (
            D::Timer(DT::Check),
            vec![
                (P::Starting, vec![DO::ReadStatus(OfLauncher)], P::Starting),
                (P::Detached, vec![DO::ReadStatus(OfService)], P::Detached),
            ],
        ),
        (D::Timer(DT::Orphan), vec![(P::Starting, vec![DO::ReadStatus(OfLauncher)], P::Starting)]),
        (D::Timer(DT::Successor), vec![]), // nothing is waited for: it is stale
        (D::Timer(DT::TellOlder), vec![]),
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
            let outputs = daemon.on(input.clone());
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
    assert_eq!(cells, 9 * 40, "a new state or event needs its row");
}

#[test]
fn a_program_sees_one_of_four_states() {
    let states = PHASES.map(|phase| daemon_in(phase).state());
    use State::{Detached, Draining, Serving, Starting};
    let expected =
        [Starting, Starting, Serving, Serving, Detached, Draining, Draining, Draining, Draining];
    assert_eq!(states, expected);
    let mut alone = daemon_in(Phase::HandingOff);
    let _ = alone.on(D::LauncherGone);
    assert_eq!((alone.phase(), alone.state()), (Phase::HandingOff, Detached));
}

#[test]
fn started_counts_once_and_not_after_the_end() {
    for phase in PHASES {
        let told = daemon_in(phase).started(9);
        assert_eq!(told.is_some(), phase == Phase::Starting, "{phase:?}");
    }
}

/// Feeds inputs and returns what the last one led to.
fn after(mut daemon: Daemon, inputs: &[D]) -> (Vec<DO>, Phase) {
    let mut last = Vec::new();
    for input in inputs {
        last = daemon.on(input.clone());
    }
    (last, daemon.phase())
}

/// A restart by hand is followed only if somebody would start the service again.
#[test]
fn p1_a_restart_by_hand_needs_somebody_who_starts_the_next() {
    for sender in [Sender::Other, BY_LAUNCHER] {
        let with = |kind, reading| {
            let answer = D::Status(OfLauncher, reading);
            after(started(kind, false), &[D::Usr2(sender), answer])
        };
        let handoff = (vec![DO::RunRequestHooks], Phase::HandingOff);
        let refused = |why| (vec![DO::RefuseRestart(why)], Phase::Serving);
        for kind in [Kind::DAEMONTOOLS, Kind::RUNIT, Kind::OTHER, Kind::SYSTEMD] {
            assert_eq!(with(kind, Reading::Up), handoff, "{kind:?}");
            assert_eq!(with(kind, Reading::Unreadable), handoff, "{kind:?}");
            assert_eq!(with(kind, Reading::Lost), refused(NoRestart::NoSupervisor), "{kind:?}");
        }
        assert_eq!(
            with(Kind::RUNIT, Reading::Down),
            refused(NoRestart::WantedDown(Kind::RUNIT.down_means))
        );
        assert_eq!(
            with(Kind::SYSTEMD, Reading::Down),
            refused(NoRestart::WantedDown(Kind::SYSTEMD.down_means))
        );
        assert_eq!(with(Kind::NOBODY, Reading::Up), refused(NoRestart::NoSupervisor));
    }
    // Two wishes are one question; what has begun meanwhile goes on.
    let twice = [D::Usr2(Sender::Other), D::Usr2(Sender::Other)];
    assert_eq!(after(started(Kind::RUNIT, false), &twice), (vec![], Phase::Serving));
    let lost = [D::Usr2(Sender::Other), D::LauncherGone, D::Status(OfLauncher, Reading::Up)];
    assert_eq!(after(started(Kind::RUNIT, false), &lost), (vec![], Phase::HandingOff));
}

/// A generation that hangs before `started` and has lost its supervisor makes room for the next one.
#[test]
fn p9_an_orphan_that_does_not_start_ends() {
    let with = |kind, rest: &[D]| after(Daemon::new(kind, false), &[&[D::Claimed], rest].concat());
    let (orphan, check) = (D::Timer(DT::Orphan), D::Timer(DT::Check));
    let answer = |reading| D::Status(OfLauncher, reading);
    let ask = vec![DO::ReadStatus(OfLauncher)];
    assert_eq!(with(Kind::RUNIT, std::slice::from_ref(&orphan)), (ask.clone(), Phase::Starting));
    for reading in [Reading::Up, Reading::Down, Reading::Unreadable] {
        let supervised = [orphan.clone(), answer(reading)];
        assert_eq!(with(Kind::RUNIT, &supervised), (vec![DO::Arm(DT::Check)], Phase::Starting));
        let again = [&supervised[..], std::slice::from_ref(&check)].concat();
        assert_eq!(with(Kind::RUNIT, &again), (ask.clone(), Phase::Starting));
    }
    let lost = [orphan.clone(), answer(Reading::Lost)];
    assert_eq!(with(Kind::RUNIT, &lost), (vec![DO::End], Phase::Ended));
    // A program that was started by hand, and whose shell has ended, may take its time.
    assert_eq!(with(Kind::OTHER, std::slice::from_ref(&orphan)), (vec![], Phase::Starting));
    // It has got through meanwhile.
    let mut daemon = Daemon::new(Kind::RUNIT, false);
    let _ = daemon.on(D::Claimed);
    let _ = daemon.on(orphan);
    assert!(daemon.started(5).is_some());
    assert_eq!(after(daemon, &[answer(Reading::Lost)]), (vec![], Phase::Serving));
}

/// Below a launcher that restarts in place, a wish for a restart is the launcher's to fulfil.
#[test]
fn daemon_in_place_asks_its_launcher() {
    for wish in [D::Restart, D::Usr2(Sender::Other), D::Usr2(BY_LAUNCHER)] {
        let with = |way: &[D]| {
            after(started(Kind::OTHER, true), &[way, std::slice::from_ref(&wish)].concat())
        };
        assert_eq!(with(&[]), (vec![DO::Report(Report::Reload)], Phase::Serving));
        assert_eq!(with(&[D::Told(Restart)]), (vec![], Phase::HandingOff));
        assert_eq!(with(&[D::LauncherGone]), (vec![], Phase::HandingOff));
    }
    // What the launcher tells is followed as ever.
    let handoff = (vec![DO::RunRequestHooks], Phase::HandingOff);
    assert_eq!(after(started(Kind::OTHER, true), &[D::Told(Unknown)]), handoff);
    // It serves by now: the launcher's wish to cancel its start, and the signal behind it, mean nothing.
    let late = [D::Cancelled, D::Usr2(ANNOUNCED)];
    assert_eq!(after(started(Kind::OTHER, true), &late), (vec![], Phase::Serving));
}

#[test]
fn daemon_in_place_prepares_and_resumes() {
    let outputs = |inputs: &[D]| {
        let mut daemon = started(Kind::OTHER, true);
        inputs.iter().map(|input| daemon.on(input.clone())).collect::<Vec<_>>()
    };
    let run = || vec![DO::RunRequestHooks];
    let prepared = || vec![DO::Report(Report::Prepared)];
    let resumes = || vec![DO::RunResumeHooks, DO::Arm(DT::Check)];
    let released = || vec![DO::Report(Report::Released), DO::Release, DO::ReadStatus(OfService)];
    let (prepare, done, failed) = (D::Prepare, D::RequestHooksDone, D::ReloadFailed);
    // Once for each restart.
    assert_eq!(outputs(&[prepare.clone(), done.clone()]), [run(), prepared()]);
    let twice = [prepare.clone(), done.clone(), prepare.clone()];
    assert_eq!(outputs(&twice), [run(), prepared(), prepared()]);
    let again = [prepare.clone(), done.clone(), failed.clone(), prepare.clone(), done.clone()];
    assert_eq!(outputs(&again), [run(), prepared(), resumes(), run(), prepared()]);
    // A restart that was refused before it was prepared.
    assert_eq!(outputs(std::slice::from_ref(&failed)), [vec![DO::Arm(DT::Check)]]);
    // Hooks of an attempt that has failed meanwhile are not those of the next one.
    let slow = [prepare.clone(), failed, prepare.clone(), done.clone(), done.clone()];
    assert_eq!(outputs(&slow), [run(), resumes(), run(), vec![], prepared()]);
    // The supervisor's restart needs no second run, also if the first one has not ended.
    let told = [prepare.clone(), done.clone(), D::Told(Restart)];
    assert_eq!(outputs(&told), [run(), prepared(), released()]);
    let told = [prepare, D::Told(Restart), done];
    assert_eq!(outputs(&told), [run(), vec![], released()]);
}

#[test]
fn daemon_in_place_passes_a_reload_signal_on() {
    let mut daemon = Daemon::new(Kind::OTHER, true);
    assert_eq!(daemon.on(D::Reload), []);
    assert_eq!(daemon.started(5), Some(Report::Started));
    assert_eq!(daemon.wish(), Some(D::Reload));
    assert_eq!(daemon.wish(), None);
    let reload = [DO::Report(Report::Reload)];
    assert_eq!(daemon.on(D::Reload), reload);
    let _ = daemon.on(D::Term(Sender::Successor));
    assert_eq!(daemon.on(D::Reload), reload);
    let _ = daemon.on(D::LauncherGone);
    assert_eq!(daemon.on(D::Reload), []);
}

#[test]
fn daemon_lets_its_launcher_understand_a_stop_signal() {
    let new = || Daemon::new(Kind::OTHER, false).takes_unhandled(true);
    let unhandled = [DO::Report(Report::Unhandled)];
    let mut daemon = new();
    assert_eq!(daemon.on(D::Halt(BY_LAUNCHER)), unhandled);
    assert_eq!(daemon.started(5), Some(Report::Started));
    assert_eq!(daemon.on(D::Halt(BY_LAUNCHER)), unhandled);
    assert_eq!(daemon.on(D::Halt(Sender::Other)), drain(Requested));
    assert_eq!(daemon.on(D::Halt(BY_LAUNCHER)), unhandled);
    let mut daemon = new();
    assert_eq!(daemon.on(D::Halt(Sender::Other)), [DO::End]);
}

/// Beside its launcher a daemon checks when a successor has failed, until it has seen what that one
/// has left, and puts back its files. What is to become of it is the launcher's to say.
#[test]
fn daemon_in_place_puts_its_files_back() {
    let with = |way: &[D]| after(started(Kind::OTHER, true), &[&[D::ReloadFailed], way].concat());
    let timer = D::Timer(DT::Check);
    let put_back = vec![DO::PutBackFile, DO::GiveUpClaim];
    assert_eq!(with(&[]), (vec![DO::Arm(DT::Check)], Phase::Serving));
    assert_eq!(with(std::slice::from_ref(&timer)), (vec![DO::Check], Phase::Serving));
    assert_eq!(with(&[checked(lost_file())]), (put_back.clone(), Phase::Serving));
    let flows = vec![DO::SteerFlows(NewFlows::Ours), DO::GiveUpClaim];
    assert_eq!(with(&[checked(claims_moved())]), (flows, Phase::Serving));
    for nothing in [checked(well()), checked(newer())] {
        assert_eq!(with(std::slice::from_ref(&nothing)), (vec![DO::GiveUpClaim], Phase::Serving));
        assert_eq!(with(&[nothing, timer.clone()]), (vec![], Phase::Serving));
    }
    for unseen in [Sight::ClaimHeld, Sight::Unknown].map(D::Checked) {
        let again = [unseen.clone(), timer.clone()];
        assert_eq!(with(&[unseen]), (vec![DO::Arm(DT::Check)], Phase::Serving));
        assert_eq!(with(&again), (vec![DO::Check], Phase::Serving));
        let late = [again.as_slice(), &[checked(lost_file())]].concat();
        assert_eq!(with(&late), (put_back.clone(), Phase::Serving));
    }
    // In a drain the files are a successor's.
    let drains = [D::Term(Sender::Successor), checked(lost_file())];
    assert_eq!(with(&drains), (vec![DO::GiveUpClaim], Phase::Draining(TakenOver)));
}

#[test]
fn daemon_unknown_intent_waits_then_drains() {
    let detached = || {
        let mut daemon = started(Kind::OTHER, false);
        let asked = D::Status(OfService, Reading::Unreadable);
        for input in [D::Told(Unknown), D::RequestHooksDone, asked, checked(well())] {
            let _ = daemon.on(input);
        }
        daemon
    };
    let expire = D::Timer(DT::Successor);
    let asked = || D::Status(OfService, Reading::Unreadable);
    // Nobody came: the check that follows the timer drains.
    assert_eq!(after(detached(), std::slice::from_ref(&expire)).0, [DO::ReadStatus(OfService)]);
    assert_eq!(after(detached(), &[expire.clone(), asked()]).0, [DO::Check]);
    let over = [expire.clone(), asked(), checked(well())];
    assert_eq!(after(detached(), &over).1, Phase::Draining(Stopped));
    // Somebody is starting, or has tried since: the wait begins anew.
    let signs = [D::Checked(Sight::ClaimHeld), D::Checked(Sight::Unknown), checked(claims_moved())];
    for sign in signs {
        let later = Seen { last: 6, ..well() };
        let way = [expire.clone(), asked(), sign.clone(), D::Timer(DT::Check), asked()];
        let way = [&way[..], &[checked(later)]].concat();
        assert_eq!(after(detached(), &way).1, Phase::Detached, "{sign:?}");
    }
    // It may have taken the new flows before it died.
    let flows = DO::SteerFlows(NewFlows::Ours);
    assert_eq!(
        after(detached(), &check(Reading::Unreadable, claims_moved())).0,
        [flows, DO::GiveUpClaim, DO::Arm(DT::Successor), DO::Arm(DT::Check)]
    );
    // A status that says up ends the wait, and its timer is stale.
    let up = check(Reading::Up, well());
    let stale = [&up[..], &[expire]].concat();
    assert_eq!(after(detached(), &stale), (vec![], Phase::Detached));
}

/// Without the record, only the PID file tells of a successor, and it is put in place before that one
/// serves.
#[test]
fn p1_without_the_record_a_successor_is_believed_at_the_second_check() {
    let no_record = |newer| D::Checked(Sight::NoRecord { newer });
    let with = |way: &[D]| after(daemon_in(Phase::Detached), way);
    assert_eq!(with(&[no_record(true), no_record(true)]).1, Phase::Draining(TakenOver));
    assert_eq!(with(&[no_record(true), no_record(false), no_record(true)]).1, Phase::Detached);
    assert_eq!(with(&[no_record(true), checked(well()), no_record(true)]).1, Phase::Detached);
}

/// What was meant by the launcher's end, by what the status says and what the launcher was told.
#[test]
fn p1_p6_a_detached_daemon_follows_the_status_and_then_what_it_was_told() {
    let stays = |outputs: &[DO]| {
        let outputs = [&[DO::GiveUpClaim], outputs, &[DO::Arm(DT::Check)]].concat();
        (outputs, Phase::Detached)
    };
    let waits = [DO::Arm(DT::Successor)];
    let stops = (
        [vec![DO::GiveUpClaim], drain(Stopped), vec![DO::StopOlder]].concat(),
        Phase::Draining(Stopped),
    );
    for (told, reading, expected) in [
        (Restart, Reading::Up, stays(&[])),
        (Restart, Reading::Unreadable, stays(&[])),
        (Restart, Reading::Lost, stays(&waits)),
        (Restart, Reading::Down, stops.clone()),
        (Unknown, Reading::Up, stays(&[])),
        (Unknown, Reading::Unreadable, stays(&waits)),
        (Unknown, Reading::Lost, stays(&waits)),
        (Unknown, Reading::Down, stops),
    ] {
        let mut daemon = started(Kind::RUNIT, false);
        for input in [D::Told(told), D::RequestHooksDone, D::LauncherGone] {
            let _ = daemon.on(input);
        }
        let way = [D::Status(OfService, reading), checked(well())];
        assert_eq!(after(daemon, &way), expected, "{told:?}, {reading:?}");
    }
}

#[test]
fn daemon_that_lost_its_launcher_checks_while_its_hooks_run() {
    let with =
        |rest: &[D]| after(started(Kind::RUNIT, false), &[&[D::LauncherGone], rest].concat());
    let up = D::Status(OfService, Reading::Up);
    assert_eq!(with(std::slice::from_ref(&up)), (vec![DO::Check], Phase::HandingOff));
    let next = [up, checked(well()), D::Timer(DT::Check)];
    assert_eq!(with(&next), (vec![DO::ReadStatus(OfService)], Phase::HandingOff));
    let down = [D::Status(OfService, Reading::Down), checked(well())];
    assert_eq!(with(&down).1, Phase::Draining(Stopped));
    // The hooks have returned: there is nobody to release.
    assert_eq!(with(&[D::RequestHooksDone]), (vec![], Phase::Detached));
}

#[test]
fn daemon_told_to_stop_ends_after_the_older_ones() {
    let with = |rest: &[D]| {
        after(started(Kind::RUNIT, false), &[&[D::Told(Stop(Service))], rest].concat())
    };
    let waiting = with(&[D::DrainHooksDone]);
    assert_eq!(
        waiting,
        (vec![DO::Disarm(DT::Drain), DO::Report(Report::Waiting)], Phase::AwaitingOlder(Stopped))
    );
    assert_eq!(with(&[D::OlderGone, D::DrainHooksDone]).1, Phase::Finished);
    assert_eq!(with(&[D::DrainHooksDone, D::OlderGone]).1, Phase::Finished);
    // Those that could not be told are told again, and the end of all is awaited.
    let short = D::OlderTold { awaited: true, again: true };
    assert_eq!(with(std::slice::from_ref(&short)).0, [DO::Arm(DT::TellOlder)]);
    let told_again = [short.clone(), D::DrainHooksDone, D::OlderGone, D::Timer(DT::TellOlder)];
    assert_eq!(with(&told_again), (vec![DO::StopOlder], Phase::AwaitingOlder(Stopped)));
    let done = D::OlderTold { awaited: false, again: false };
    assert_eq!(with(&[&told_again[..], &[done]].concat()).1, Phase::Finished);
}

/// A stop that the check finds, before the launcher has told of it, is one for all generations.
#[test]
fn p6_daemon_that_finds_a_stop_ends_after_the_older_ones() {
    let found = [
        D::Told(Restart),
        D::RequestHooksDone,
        D::Status(OfService, Reading::Down),
        checked(well()),
        D::DrainHooksDone,
        D::Told(Stop(Service)),
    ];
    let with = |rest: &[D]| after(started(Kind::RUNIT, false), &[&found[..], rest].concat());
    assert_eq!(with(&[]).1, Phase::AwaitingOlder(Stopped));
    assert_eq!(with(&[D::OlderGone]).1, Phase::Finished);
}

#[test]
fn what_a_call_of_restart_does() {
    let call = |phase| daemon_in(phase).restart_call();
    assert_eq!(call(Phase::Serving), RestartCall::Restarts);
    assert_eq!(call(Phase::Detached), RestartCall::TriesAgain);
    for (phase, why) in [
        (Phase::Starting, "this generation has not started yet"),
        (Phase::Draining(Requested), "this generation is draining"),
    ] {
        assert_eq!(call(phase), RestartCall::Refused(why));
    }
    let mut leaving = started(Kind::DAEMONTOOLS, false).leaves(true);
    let _ = leaving.on(D::Told(Stop(Service)));
    let why = "the service is to be down: this generation is leaving";
    assert_eq!(leaving.restart_call(), RestartCall::Refused(why));
    let mut standby = daemon_in(Phase::Serving);
    let _ = standby.on(D::Probation(crate::proto::daemon::Event::AskedToStandBy(6)));
    let why = "it stands by for a newer generation";
    assert_eq!(standby.restart_call(), RestartCall::Refused(why));
}
