use super::{Adopts, Kind, NamedBy, Tells};
use crate::proto::channel::{Hello, ToDaemon};
use crate::proto::daemon::{
    Daemon, Input as D, NoRestart, Output as DO, Phase, Question, Sender, Sight,
};
use crate::proto::launcher::{Input as L, Launcher, Output as LO, Timer as LT};
use crate::proto::{DrainReason, Intent, Reading, Report, Scope};
use std::collections::HashSet;

const INVENTED: Kind = Kind::named("invented");

#[test]
fn each_kind_has_one_row_that_contradicts_no_other() {
    let (mut names, mut processes, mut lengths) = (HashSet::new(), HashSet::new(), HashSet::new());
    for kind in Kind::all() {
        assert!(names.insert(kind.name), "two rows: {kind:?}");
        assert_eq!(Kind::from_name(kind.name), Some(kind));
        assert_eq!(format!("{kind:?}"), kind.name);
        assert!(
            kind.name.bytes().all(|byte| byte.is_ascii_alphanumeric()),
            "on the wire: {kind:?}"
        );
        for process in kind.processes {
            assert!(process.len() <= 15, "the kernel cuts it: {process:?}");
            assert!(processes.insert(process), "two kinds: {process:?}");
            assert_eq!(Kind::of_process(process), Some(kind));
        }
        for length in kind.status_file().iter().flat_map(|file| file.lengths) {
            assert!(lengths.insert(length), "two kinds have a status of {length} bytes");
            assert_eq!(Kind::of_status_file(Some(*length)), kind);
        }
        let has_folder = kind.status_file().is_some();
        assert!(kind.signal_file.is_none() || has_folder, "{kind:?}");
        let Some(commands) = &kind.commands else { continue };
        for command in [commands.restart, commands.stop] {
            assert_eq!(command.matches("{}").count(), 1, "{command}");
        }
        match commands.service {
            NamedBy::Folder => assert!(has_folder, "{kind:?}"),
            NamedBy::Unit => assert!(matches!(kind.tells, Tells::Job), "{kind:?}"),
            NamedBy::Variable { .. } => {}
        }
    }
    assert_eq!(Kind::from_name("upstart"), None);
    assert_eq!(Kind::of_process("upstart"), None);
    assert_eq!(Kind::of_process("supervise-daemon"), None, "the kernel cuts it");
    for length in [None, Some(0), Some(17)] {
        assert_eq!(Kind::of_status_file(length), Kind::DAEMONTOOLS, "{length:?}");
    }
}

/// The columns that make one kind unlike most.
#[test]
fn what_is_peculiar_to_one_kind() {
    let only = |what: &str, has: fn(&Kind) -> bool, expected: &[Kind]| {
        let kinds: Vec<Kind> = Kind::all().filter(|kind| *kind != INVENTED).filter(has).collect();
        assert_eq!(kinds, expected, "{what}");
    };
    only("reaches past scripts", |kind| kind.reaches_past_scripts, &[Kind::SYSTEMD]);
    only("closes the output", |kind| kind.closes_output, &[Kind::SUPERVISORD]);
    only("exit code 0 is final", |kind| kind.exit_0_is_final.is_some(), &[Kind::SUPERVISORD]);
    only("another signal", |kind| kind.signal_file.is_some(), &[Kind::S6]);
    only("a limit for KILL", |kind| kind.kill_limit_file.is_some(), &[Kind::S6]);
    only("a subreaper", |kind| kind.adopts_orphans == Adopts::Always, &[Kind::SYSTEMD]);
    let as_pid_1 = |kind: &Kind| kind.adopts_orphans == Adopts::AsPid1;
    only("adopts as PID 1", as_pid_1, &[Kind::NOBODY, Kind::OTHER]);
    only("no commands", |kind| kind.commands.is_none(), &[Kind::NOBODY, Kind::OTHER]);
    only("no process", |kind| kind.processes.is_empty(), &[Kind::NOBODY]);
    let by_systemd = |kind: &Kind| kind.down_means != Kind::DAEMONTOOLS.down_means;
    only("another word for down", by_systemd, &[Kind::SYSTEMD]);
}

/// Why a manual USR2 is refused.
fn no_restart(kind: Kind, reading: Reading) -> Option<&'static str> {
    NoRestart::why(kind, false, reading).map(NoRestart::text)
}

/// Kind x status: may a daemon count on a successor, may `seamless stop` be undone, and is a manual USR2
/// refused?
#[test]
fn whether_the_service_is_started_again() {
    let by_systemd = "systemd would not start the service again: see Restart= of its unit";
    let by_hand = "the supervisor wants the service down";
    let nobody = "nobody would start the service again";
    // Certain; possible if not wanted down; why not while wanted down.
    for (kind, certain, possible, down) in [
        (Kind::DAEMONTOOLS, true, true, by_hand),
        (Kind::RUNIT, true, true, by_hand),
        (Kind::S6, true, true, by_hand),
        (Kind::SYSTEMD, false, true, by_systemd),
        (Kind::SUPERVISORD, false, true, by_hand),
        (Kind::OPENRC, false, true, by_hand),
        (Kind::NOBODY, false, false, nobody),
        (Kind::OTHER, false, false, by_hand),
    ] {
        assert_eq!(kind.starts_again.is_certain(), certain, "{kind:?}");
        assert_eq!(kind.starts_again.is_possible(false), possible, "{kind:?}");
        assert!(!kind.starts_again.is_possible(true), "{kind:?}");
        assert_eq!(no_restart(kind, Reading::Down), Some(down), "{kind:?}");
        assert_eq!(no_restart(kind, Reading::Lost), Some(nobody), "{kind:?}");
        let known = (kind == Kind::NOBODY).then_some(nobody);
        assert_eq!(no_restart(kind, Reading::Up), known, "{kind:?}");
        assert_eq!(no_restart(kind, Reading::Unreadable), known, "{kind:?}");
    }
}

#[test]
fn what_an_unreadable_status_leaves_to_understand() {
    for (kind, alone, with_cont) in [
        (Kind::DAEMONTOOLS, Intent::Restart, Intent::Stop(Scope::Service)),
        (Kind::S6, Intent::Restart, Intent::Stop(Scope::Service)),
        (Kind::RUNIT, Intent::Unknown, Intent::Unknown),
        (Kind::SYSTEMD, Intent::Unknown, Intent::Unknown),
        (Kind::SUPERVISORD, Intent::Unknown, Intent::Unknown),
        (Kind::OPENRC, Intent::Unknown, Intent::Unknown),
        (Kind::OTHER, Intent::Unknown, Intent::Unknown),
    ] {
        assert_eq!(kind.unread_intent(false), alone, "{kind:?}");
        assert_eq!(kind.unread_intent(true), with_cont, "{kind:?}");
    }
}

// ---- a kind that is one row and one parser: see also `sys::supervisor` and `command` ----

const SUPERVISOR: i32 = 7;
const DAEMON: i32 = 812;

/// What a launcher tells its daemon after a TERM, if the status is this.
fn told(cont: bool, reading: Reading) -> Option<Intent> {
    let mut launcher = Launcher::new(INVENTED, Some(SUPERVISOR), DAEMON, None);
    let mut inputs = vec![L::Report(DAEMON, Report::Started), L::Term { from: SUPERVISOR }];
    inputs.extend(cont.then_some(L::Cont { from: SUPERVISOR }));
    inputs.extend([L::Timer(LT::Settle), L::Status(reading)]);
    let outputs: Vec<LO> = inputs.into_iter().flat_map(|input| launcher.on(input)).collect();
    outputs.into_iter().find_map(|output| match output {
        LO::Tell(DAEMON, intent) => Some(intent),
        _ => None,
    })
}

#[test]
fn the_launcher_understands_a_term_of_an_invented_kind() {
    assert_eq!(told(false, Reading::Up), Some(Intent::Restart));
    assert_eq!(told(false, Reading::Down), Some(Intent::Stop(Scope::Service)));
    // As its row says: it writes late, so it has to be read again, or a CONT has to tell.
    assert_eq!(told(true, Reading::Up), None);
    assert_eq!(told(true, Reading::Unreadable), Some(Intent::Stop(Scope::Service)));
    assert_eq!(told(false, Reading::Unreadable), Some(Intent::Restart));
}

#[test]
fn the_daemon_learns_of_an_invented_kind_and_checks_by_its_status() {
    let hello = ToDaemon::Hello(Hello {
        kind: INVENTED,
        launcher: None,
        supervisor: None,
        in_place: false,
        takes_unhandled: true,
        folder: Some(b"/service/web".to_vec()),
    });
    assert_eq!(ToDaemon::parse(&hello.format()), Ok(Some(hello.clone())));

    let parse = INVENTED.status_file().expect("one").parse;
    let read = |status: &[u8], main_pid| parse(status, main_pid).expect("a status");
    let (up, down) = (b"+\0\0\x03\x2c", b"-\0\0\x03\x2c");
    assert_eq!(parse(up, Some(1)), None, "about another process");
    for (status, phase) in [(up, Phase::Detached), (down, Phase::Draining(DrainReason::Stopped))] {
        let mut daemon = serving();
        for input in [D::LauncherGone, D::RequestHooksDone] {
            let _ = daemon.on(input);
        }
        assert_eq!(daemon.phase(), Phase::Detached);
        let status = D::Status(Question::OfService, read(status, None));
        assert!(daemon.on(status).contains(&DO::Check));
        let _ = daemon.on(D::Checked(Sight::NoRecord { newer: false }));
        assert_eq!(daemon.phase(), phase);
    }
    // And a manual USR2.
    let usr2 = |status: &[u8]| {
        let mut daemon = serving();
        let _ = daemon.on(D::Usr2(Sender::Other));
        daemon.on(D::Status(Question::OfLauncher, read(status, Some(812))))
    };
    let refused = NoRestart::WantedDown("it is down for an invented reason");
    assert_eq!(usr2(down), [DO::RefuseRestart(refused)]);
    assert_eq!(usr2(up), [DO::RunRequestHooks]);
}

fn serving() -> Daemon {
    let mut daemon = Daemon::new(INVENTED, false);
    assert_eq!(daemon.started(5), Some(Report::Started));
    daemon
}
