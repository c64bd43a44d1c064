use crate::proto::daemon::Input as D;
use crate::proto::daemon::{
    Daemon, Event, Forced, Output as DO, Phase, Question, Sender, Sight, Timer as DT, Word,
};
use crate::proto::{DrainReason, Intent, Kind, Reading, Report, Scope, State};

const STOP: D = D::Told(Intent::Stop(Scope::Service));
const LEAVES: [DO; 4] = [
    DO::Disarm(DT::Check),
    DO::Disarm(DT::Successor),
    DO::Report(Report::Leaving),
    DO::Arm(DT::Leave),
];

fn serving(kind: Kind) -> Daemon {
    let mut daemon = Daemon::new(kind, false).leaves(true);
    assert_eq!(daemon.started(1), Some(Report::Started));
    daemon
}

fn leaving() -> Daemon {
    let mut daemon = serving(Kind::DAEMONTOOLS);
    assert_eq!(daemon.on(STOP), [&LEAVES[..], &[DO::StopOlder]].concat());
    assert_eq!(
        (daemon.phase(), daemon.state()),
        (Phase::Leaving(DrainReason::Stopped), State::Leaving)
    );
    assert!(daemon.state().serves());
    let _ = daemon.on(D::OlderTold { awaited: false, again: false });
    daemon
}

fn detached(kind: Kind) -> Daemon {
    let mut daemon = serving(kind);
    for input in [D::Told(Intent::Restart), D::RequestHooksDone, D::LauncherGone] {
        let _ = daemon.on(input);
    }
    assert_eq!(daemon.phase(), Phase::Detached);
    daemon
}

fn drains_for(outputs: &[DO]) -> Option<DrainReason> {
    outputs.iter().find_map(|one| match one {
        DO::RunDrainHooks(reason) => Some(*reason),
        _ => None,
    })
}

#[test]
fn the_time_is_over_and_the_drain_begins_with_its_reason() {
    let mut daemon = leaving();
    let outputs = daemon.on(D::Timer(DT::Leave));
    assert_eq!(drains_for(&outputs), Some(DrainReason::Stopped));
    assert!(outputs.contains(&DO::Report(Report::Draining)));
    assert!(outputs.contains(&DO::Disarm(DT::Leave)));
    assert_eq!(daemon.on(D::Timer(DT::Leave)), [], "a late timer");
}

#[test]
fn p4_whoever_does_not_want_to_wait_begins_the_drain_at_once() {
    let by_launcher = Sender::Launcher { announced: false };
    for (input, reason) in [
        (D::Term(Sender::Successor), DrainReason::TakenOver),
        (D::Term(Sender::Other), DrainReason::Stopped),
        (D::Term(by_launcher), DrainReason::Stopped),
        (D::Halt(Sender::Other), DrainReason::Stopped),
        (D::Usr2(Sender::Other), DrainReason::Stopped),
        (D::Usr2(by_launcher), DrainReason::Stopped),
        (D::Told(Intent::Restart), DrainReason::Stopped),
        (D::Told(Intent::Unknown), DrainReason::Stopped),
    ] {
        let mut daemon = leaving();
        let outputs = daemon.on(input.clone());
        assert_eq!(drains_for(&outputs), Some(reason), "{input:?}");
        let lets_go = outputs.contains(&DO::Report(Report::Released));
        assert_eq!(lets_go, input == D::Told(Intent::Restart), "{input:?}");
        // The next USR2 is the hammer's.
        assert_eq!(daemon.on(D::Usr2(Sender::Other)), [DO::Hammer(Forced::Usr2)]);
    }
}

#[test]
fn what_does_not_end_it() {
    let announced = Sender::Launcher { announced: true };
    for input in [
        D::Term(announced),
        D::Usr2(announced),
        D::Reload,
        D::LauncherGone,
        D::Restart,
        D::RequestHooksDone,
        D::OlderGone,
        D::Timer(DT::Drain),
        D::Timer(DT::Check),
        D::Timer(DT::Successor),
        D::Status(Question::OfService, Reading::Up),
        D::Checked(Sight::ClaimHeld),
        D::Probation(Event::Heard(Word::Committed)),
        D::Probation(Event::PartnerEnded),
    ] {
        let mut daemon = leaving();
        assert_eq!(daemon.on(input.clone()), [], "{input:?}");
        assert_eq!(daemon.phase(), Phase::Leaving(DrainReason::Stopped));
    }
    // The stop may reach further than it did at first.
    let mut daemon = serving(Kind::NOBODY);
    assert_eq!(daemon.on(D::Told(Intent::Stop(Scope::Generation))), LEAVES);
    assert_eq!(daemon.on(STOP), [DO::StopOlder]);
    // It does not stand by for anybody any more.
    assert_eq!(daemon.on(D::Probation(Event::AskedToStandBy(2))), [DO::StandBy(false)]);
}

#[test]
fn only_a_stop_is_a_reason_to_leave() {
    for (input, reason) in [
        (D::Term(Sender::Successor), DrainReason::TakenOver),
        (D::Term(Sender::Other), DrainReason::Requested),
    ] {
        for mut daemon in [serving(Kind::DAEMONTOOLS), detached(Kind::DAEMONTOOLS)] {
            assert_eq!(drains_for(&daemon.on(input.clone())), Some(reason), "{input:?}");
        }
    }
    let mut daemon = serving(Kind::DAEMONTOOLS);
    assert_eq!(daemon.on(D::Told(Intent::Restart)), [DO::RunRequestHooks]);
    let mut never = Daemon::new(Kind::DAEMONTOOLS, false);
    let _ = never.started(1);
    assert_eq!(drains_for(&never.on(STOP)), Some(DrainReason::Stopped));
}

#[test]
fn p6_without_a_launcher_a_stop_that_is_read_is_one() {
    let mut daemon = detached(Kind::DAEMONTOOLS);
    let _ = daemon.on(D::Timer(DT::Check));
    let _ = daemon.on(D::Status(Question::OfService, Reading::Down));
    let outputs = daemon.on(D::Checked(Sight::NoRecord { newer: false }));
    assert_eq!(outputs, [&LEAVES[..], &[DO::StopOlder]].concat());
    // Nobody will come.
    let mut daemon = detached(Kind::OTHER);
    daemon.intent = Some(Intent::Unknown);
    for input in [
        D::Status(Question::OfService, Reading::Unreadable),
        D::Checked(Sight::NoRecord { newer: false }),
        D::Timer(DT::Successor),
        D::Status(Question::OfService, Reading::Unreadable),
    ] {
        let _ = daemon.on(input);
    }
    assert_eq!(daemon.on(D::Checked(Sight::NoRecord { newer: false })), LEAVES);
}

/// Of the two generations of a probation, the one that serves leaves, and the other one ends at once.
#[test]
fn p11_a_stop_in_a_probation() {
    let mut new = serving(Kind::DAEMONTOOLS);
    let _ = new.on(D::Probation(Event::OnProbation));
    assert_eq!(new.on(STOP), [&LEAVES[..], &[DO::StopOlder]].concat());
    assert!(!new.is_on_probation(), "it is neither committed nor rolled back");
    let mut standby = detached(Kind::DAEMONTOOLS);
    let _ = standby.on(D::Probation(Event::AskedToStandBy(2)));
    assert_eq!(standby.state(), State::Standby);
    let _ = standby.on(D::Timer(DT::Check));
    let _ = standby.on(D::Status(Question::OfService, Reading::Down));
    let outputs = standby.on(D::Checked(Sight::NoRecord { newer: false }));
    assert_eq!(drains_for(&outputs), Some(DrainReason::Stopped));
}

/// An empty PID path: each TERM is a stop.
#[test]
fn a_daemon_without_restarts_leaves_by_each_term() {
    let mut daemon = Daemon::disabled().leaves(true);
    assert_eq!(daemon.on(D::Term(Sender::Other)), LEAVES);
    let outputs = daemon.on(D::Term(Sender::Other));
    assert_eq!(drains_for(&outputs), Some(DrainReason::Requested));
}
