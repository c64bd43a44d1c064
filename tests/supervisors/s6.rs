//! s6: the scenarios in which the format of its status matters, each of its commands, and what only s6
//! has: readiness, `./finish` with a process group, `down-signal`.

use std::{
    fs,
    process::{Command, Stdio},
};

use seamless_testing::{
    LIMIT,
    boxed::{self, Boxed},
    http::{Connection, Prober, answer_of},
    process::{self, Watched},
    scene,
    site::{ENDS_SOON, SERVES_ON, Site, User},
    supervisor::{Service, Supervisor, Want, write_script},
    wait_for,
};

use crate::{
    restart::deploys,
    stop::{down, gaps},
    takeover::kills,
};

const S6: Supervisor = Supervisor::S6;

// ---- the scenarios of the others ----

/// `NAME: SCENARIO as USER`: a test each.
macro_rules! scenarios {
    ($($name:ident: $scenario:path as $user:expr;)+) => {
        $(
            #[test]
            fn $name() {
                let user: User = $user;
                let boxed = Boxed::new().private_net().needs(user.needs());
                boxed.run(|folder| $scenario(S6, folder, user));
            }
        )+
    };
}

const HIDDEN: User = User::ByScript { reads: false };

scenarios![
    p1_bad_and_slow_deploys_cost_no_request:
        deploys::p1_bad_and_slow_deploys_cost_no_request as User::Root;
    p3_p6_down_with_a_request_in_flight: down::p3_p6_down_with_a_request_in_flight as User::Root;
    p3_p6_down_where_the_status_is_hidden: down::p3_p6_down_with_a_request_in_flight as HIDDEN;
    p6_down_while_an_older_generation_drains:
        down::p6_down_while_an_older_generation_drains as User::ByItself { reads: false };
    p6_down_while_a_successor_starts: down::p6_down_while_a_successor_starts as User::Root;
    p6_down_soon_after_a_restart: down::p6_down_soon_after_a_restart as User::Root;
    p6_down_in_the_gap_between_launchers: gaps::p6_down_in_the_gap_between_launchers as User::Root;
    p6_exit_in_the_gap_between_launchers: gaps::p6_exit_in_the_gap_between_launchers as User::Root;
    p6_down_and_up_in_the_gap_between_launchers:
        gaps::p6_down_and_up_in_the_gap_between_launchers as User::Root;
    p9_the_supervisor_killed_at_each_stage:
        kills::p9_the_supervisor_killed_at_each_stage as User::Root;
];

// ---- the status ----

/// What `proto::wire` reads, as s6 writes it.
#[test]
fn the_status_is_as_the_parser_expects_it() {
    boxed::run(|folder| {
        let service = folder.join("service");
        fs::create_dir_all(&service).expect("a folder");
        write_script(
            &service.join("finish"),
            "echo $$ >finishing; until [ -e go ]; do sleep 0.05; done",
        );
        let service = Service::new(S6, service, "exec sleep 1000");
        let status = |flags: u8, pid: u32| {
            wait_for(format!("flags {flags} and PID {pid}"), LIMIT, || {
                let status = fs::read(service.folder().join("supervise/status")).ok()?;
                let about = u64::from_be_bytes(status.get(24..32)?.try_into().ok()?);
                let is_known = [35, 43].contains(&status.len());
                (is_known && *status.last()? == flags && about == u64::from(pid)).then_some(())
            });
        };
        let main = service.main_pid();
        status(4, main); // wanted up
        service.control("-O");
        status(0, main); // up only once
        service.up();
        status(4, main);
        service.control("-p");
        status(5, main); // paused
        service.control("-c");
        service.restart();
        let finish = wait_for("./finish runs", LIMIT, || {
            fs::read_to_string(service.folder().join("finishing")).ok()?.trim().parse().ok()
        });
        status(6, finish); // in `./finish`, wanted up
        service.down();
        status(2, finish);
        fs::write(service.folder().join("go"), "").expect("a file");
        status(8, 0);
    });
}

// ---- the commands ----

/// What becomes of the generation that serves, with a request in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    NoEffect,
    /// Another generation has taken over.
    Restart,
    /// All have ended, and not one before the service is reported down.
    Stop,
}

/// The options of `s6-svc` whose end is waited for, and what they lead to.
const COMMANDS: [(&[&str], Seen, Want); 13] = [
    (&["-t"], Seen::Restart, Want::Up),
    (&["-r"], Seen::Restart, Want::Up),
    (&["-wr", "-t"], Seen::Restart, Want::Up),
    (&["-wR", "-r"], Seen::Restart, Want::Up),
    (&["-k"], Seen::Restart, Want::Up),
    (&["-u"], Seen::NoEffect, Want::Up),
    (&["-wU", "-u"], Seen::NoEffect, Want::Up),
    (&["-o"], Seen::NoEffect, Want::Down),
    (&["-O"], Seen::NoEffect, Want::Down),
    (&["-x"], Seen::NoEffect, Want::Up),
    (&["-d"], Seen::Stop, Want::Down),
    (&["-wD", "-d"], Seen::Stop, Want::Down),
    (&["-dx"], Seen::Stop, Want::Down),
];

#[test]
fn p1_p3_p6_each_command() {
    Boxed::new().private_net().run(|folder| {
        scene::each(folder, COMMANDS, |folder, (options, seen, want)| {
            let site = Site::at(folder).user(User::Root).options(SERVES_ON).under(S6);
            let (old, launcher) = (site.daemon(1), site.launcher());
            let prober = Prober::start(&site.target);
            prober.wait_pid(old.pid());
            let request = Connection::unfinished(&site.target);
            prober.wait_more(2);
            let mut control = Command::new("s6-svc");
            control.args(options).arg(site.service().folder()).stdin(Stdio::null());
            let mut control = control.spawn().expect("s6-svc");
            match seen {
                Seen::NoEffect => {
                    assert!(control.wait().expect("its end").success());
                    site.service().wait_handled();
                    prober.wait_more(5);
                    site.assert_one_generation(old.pid());
                    assert!(!launcher.has_ended());
                    assert!(request.finish().ends_with(&answer_of(old.pid())));
                    prober.stop().assert_all_answered();
                }
                Seen::Restart => {
                    let new = site.started(2);
                    prober.wait_pid(new);
                    assert!(control.wait().expect("its end").success());
                    launcher.wait_end(LIMIT);
                    assert!(request.finish().ends_with(&answer_of(old.pid())));
                    old.wait_end(LIMIT);
                    assert_eq!(site.report.wait_of(old.pid(), "wait").text, "TakenOver");
                    site.assert_one_generation(new);
                    let probes = prober.stop();
                    probes.assert_all_answered();
                    assert_eq!(probes.pids(), [old.pid(), new]);
                    assert!(probes.answers.len() >= 10, "{probes:?}");
                }
                Seen::Stop => {
                    site.wait_drain(old.pid());
                    site.assert_not_down();
                    assert!(request.finish().ends_with(&answer_of(old.pid())));
                    site.service().wait_down();
                    assert_eq!(site.pids(), [0; 0], "{}", site.log);
                    assert!(control.wait().expect("its end").success());
                    assert_eq!(site.report.wait_of(old.pid(), "wait").text, "Stopped");
                    prober.stop();
                }
            }
            assert_eq!(site.service().status().want, want);
        });
    });
}

/// After `-O` and `-x` the next end of the launcher is the service's: the launcher knows the first, and
/// takes TERM for a stop; of the second the status says nothing, and the daemon's own wait decides.
#[test]
fn p6_a_restart_of_a_service_that_is_up_for_the_last_time_is_its_end() {
    Boxed::new().private_net().run(|folder| {
        scene::each(folder, ["-O", "-x"], |folder, command| {
            let site = Site::at(folder).user(User::Root).options(ENDS_SOON).under(S6);
            let daemon = site.started(1);
            let request = Connection::unfinished(&site.target);
            site.service().control(command);
            site.service().wait_handled();
            site.service().restart();
            site.wait_drain(daemon);
            if command == "-O" {
                assert!(site.service().status().pid.is_some(), "down too early:\n{}", site.log);
            }
            assert!(request.finish().ends_with(&answer_of(daemon)));
            site.wait_all_ended();
            assert_eq!(site.report.wait_of(daemon, "wait").text, "Stopped");
            assert_eq!(site.report.named("started").len(), 1);
        });
    });
}

// ---- readiness ----

fn is_ready(site: &Site) -> bool {
    let status = fs::read(site.service().folder().join("supervise/status")).expect("the status");
    status.last().expect("flags") & 8 != 0
}

/// s6 says ready when `started` has taken effect, of each generation anew. Only the launcher has the
/// descriptor, and closes it then.
#[test]
fn readiness_is_told_when_the_daemon_has_started() {
    Boxed::new().private_net().run(|folder| {
        let go = folder.join("go");
        let site = Site::at(folder).user(User::Root).options(SERVES_ON).under(S6);
        site.service().wait_until("ready", |_| is_ready(&site));
        let (old, before) = (site.daemon(1), site.launcher());
        site.deploy_options(&format!("{SERVES_ON} --at=ready=file:{}", go.display()));
        site.service().restart();
        let launcher = Watched::new(site.service().main_pid_after(before.pid()));
        let new = site.report.wait_nth("init", 2).pid;
        // It listens, but the old one serves still, and the supervisor knows no better.
        let mut waits = Command::new("s6-svwait");
        let mut waits = waits.arg("-U").arg(site.service().folder()).spawn().expect("s6-svwait");
        let pipes = |pid: u32| {
            let fds = process::descriptors(pid).into_iter();
            fds.filter(|(_, path)| path.to_string_lossy().starts_with("pipe:")).count()
        };
        // By a pipe of its own the launcher learns that the daemon's program was executed.
        wait_for("the launcher's pipe alone", LIMIT, || {
            ((pipes(launcher.pid()), pipes(new)) == (1, 0)).then_some(())
        });
        assert!(!is_ready(&site) && !old.has_ended());
        assert!(waits.try_wait().expect("s6-svwait").is_none());
        fs::write(go, "").expect("a file");
        assert!(waits.wait().expect("its end").success());
        assert!(is_ready(&site));
        wait_for("the launcher closes it", LIMIT, || (pipes(launcher.pid()) == 0).then_some(()));
        site.assert_one_generation(new);
    });
}

#[test]
fn p10_a_notification_fd_that_cannot_be_used_is_an_error() {
    boxed::run(|folder| {
        for (fd, why) in [
            (
                77,
                "cannot use descriptor 77 (notification_fd): Bad file descriptor (os error 9); the \
                  service folder's file notification-fd must hold the same number",
            ),
            (
                1,
                "cannot use descriptor 1 (notification_fd): it is none, or a standard one, which the \
                 daemon needs",
            ),
            (
                -1,
                "cannot use descriptor -1 (notification_fd): it is none, or a standard one, which the \
                  daemon needs",
            ),
        ] {
            let direct = Site::alone(folder);
            let mut started = direct.start(&[&format!("--notification-fd={fd}")]);
            assert_eq!(started.wait_end().code(), Some(111));
            let errors = direct.report.named("error");
            assert_eq!(errors.last().expect("an error").text, format!("init: {why}"));
        }
    });
}

/// Without a launcher the daemon says it itself.
#[test]
fn readiness_of_a_service_whose_restarts_are_disabled() {
    boxed::run(|folder| {
        let service = folder.join("service");
        fs::create_dir_all(&service).expect("a folder");
        fs::write(service.join("notification-fd"), "5\n").expect("a file");
        let (probe, report) = (seamless_testing::bin::probe(), folder.join("report"));
        let run = format!(
            "exec '{}' --pid-file= --notification-fd=5 --report='{}' --at=ready=file:go",
            probe.display(),
            report.display()
        );
        let service = Service::new(S6, service, &run);
        let report = seamless_testing::report::Report::new(report);
        report.wait("init");
        let flags = || {
            *fs::read(service.folder().join("supervise/status")).expect("it").last().expect("flags")
        };
        // It may run before s6 has written so.
        wait_for("up, and not ready", LIMIT, || (flags() == 4).then_some(()));
        fs::write(service.folder().join("go"), "").expect("a file");
        wait_for("ready", LIMIT, || (flags() == 12).then_some(()));
        report.wait("started");
    });
}

// ---- ./finish and down-signal ----

/// `./finish` KILLs the process group of the launcher; the daemon is in none of s6's.
#[test]
fn p1_a_finish_script_that_kills_the_process_group_spares_the_daemon() {
    Boxed::new().private_net().run(|folder| {
        let site = Site::at(folder).user(User::Root).options(SERVES_ON).under(S6);
        let old = site.daemon(1);
        // As its documentation suggests; before 2.12 it was not told the group.
        write_script(
            &site.service().folder().join("finish"),
            "echo finish >>finishes\nkill -s KILL -- -${4:-$(cat group)}",
        );
        let run = site.script("", SERVES_ON);
        site.deploy(&format!("echo $$ >group\nsleep 1000 &\necho $! >other\n{run}"));
        site.service().restart();
        let middle = site.daemon(2);
        old.wait_end(LIMIT);
        let other = fs::read_to_string(site.service().folder().join("other")).expect("its PID");
        let other = Watched::new(other.trim().parse().expect("a PID"));
        assert!(!other.has_ended());
        let prober = Prober::start(&site.target);
        prober.wait_pid(middle.pid());
        let request = Connection::unfinished(&site.target);
        prober.wait_more(2);
        site.deploy(&run);
        site.service().restart();
        let new = site.started(3);
        other.wait_end(LIMIT);
        prober.wait_pid(new);
        assert!(request.finish().ends_with(&answer_of(middle.pid())));
        assert_eq!(site.report.wait_of(middle.pid(), "wait").text, "TakenOver");
        let probes = prober.stop();
        probes.assert_all_answered();
        assert_eq!(probes.pids(), [middle.pid(), new]);
    });
}

/// `-r` and `-d` send it instead of TERM: INT is a drain and no handoff, and the log says so at once.
#[test]
fn a_down_signal_other_than_term_is_warned_of() {
    Boxed::new().private_net().run(|folder| {
        let site = Site::at(folder).user(User::Root).options(SERVES_ON).under(S6);
        let (launcher, old) = (site.launcher(), site.daemon(1));
        let warned = |launcher: u32| {
            let launcher = launcher.to_string();
            let lines = site.log.stage("launch");
            lines.iter().any(|line| {
                line.is(&[("launcher", &launcher)]) && line.field("down_signal").is_some()
            })
        };
        site.log.wait(&[("stage", "started")]);
        assert!(!warned(launcher.pid()));
        fs::write(site.service().folder().join("down-signal"), "SIGINT\n").expect("a file");
        site.service().restart();
        let new = site.daemon(2);
        old.wait_end(LIMIT);
        site.log.wait(&[("stage", "launch"), ("down_signal", "SIGINT")]);
        assert!(warned(site.launcher().pid()));
        let request = Connection::unfinished(&site.target);
        site.service().control("-r");
        site.log.wait(&[("stage", "forward"), ("signal", "2")]);
        site.wait_drain(new.pid());
        assert!(request.finish().ends_with(&answer_of(new.pid())));
        assert_eq!(site.report.wait_of(new.pid(), "wait").text, "Requested");
        site.assert_one_generation(site.started(3));
    });
}

/// As images have it whose STOPSIGNAL is QUIT: it means what TERM means.
#[test]
fn p1_p2_p6_a_down_signal_quit_is_a_restart_or_a_stop() {
    Boxed::new().private_net().run(|folder| {
        scene::each(folder, ["SIGQUIT", "30"], |folder, signal| {
            let site = Site::at(folder).user(User::Root).options(SERVES_ON).under(S6);
            let old = site.daemon(1);
            fs::write(site.service().folder().join("down-signal"), signal).expect("a file");
            site.service().restart();
            let second = site.daemon(2);
            old.wait_end(LIMIT);
            let prober = Prober::start(&site.target);
            prober.wait_pid(second.pid());
            site.service().settle();
            site.service().control("-r");
            let third = site.daemon(3);
            second.wait_end(LIMIT);
            assert_eq!(site.report.wait_of(second.pid(), "wait").text, "TakenOver");
            prober.wait_pid(third.pid());
            prober.stop().assert_all_answered();
            assert!(site.log.with(&["down_signal="]).is_empty(), "{}", site.log);
            let request = Connection::unfinished(&site.target);
            site.service().settle();
            site.service().control("-d");
            site.wait_drain(third.pid());
            assert!(request.finish().ends_with(&answer_of(third.pid())));
            assert_eq!(site.report.wait_of(third.pid(), "wait").text, "Stopped");
            site.wait_all_ended();
        });
    });
}
