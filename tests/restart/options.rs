//! Each option: its default with its real value, and what it does.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use seamless::{Config, ErrorKind};
use seamless_testing::{
    LIMIT, boxed,
    process::{self, Watched},
    signal::{HUP, KILL, TERM, USR1, USR2},
    site::{Site, Started},
    supervisor::Supervisor,
    under_each_supervisor, wait_for,
};

/// Draining, and its hook runs.
#[track_caller]
fn start_draining(direct: &Site, options: &[&str]) -> (Started, Watched) {
    let (started, daemon) = direct.start_ready(options);
    daemon.signal(TERM);
    assert_eq!(direct.report.wait_of(daemon.pid(), "hook").text, "shutdown");
    (started, daemon)
}

// ---- the defaults ----

#[test]
fn the_defaults() {
    assert_eq!(
        format!("{:?}", Config::new("/run/web/web.pid")),
        "Config { pid_file: \"/run/web/web.pid\", handoff_timeout: 10s, successor_timeout: Some(10s), \
         claim_timeout: Some(60s), drain_timeout: None, leave_time: None, release_signal: 17, reload_signals: [], \
         max_draining: Some(8), too_many_draining: None, parent_restarts: None, \
         release_code: 0, notification_fd: None, replace_output: true, \
         on_launch: 0, keep_open: [], keep_sockets: Some(10s), probation: None, \
         probation_check: false, hand_over: [], takeover_timeout: 5s, \
         signals_to_all: [], working_dir: None, environment: false, watchdog: false }"
    );
}

#[test]
fn each_option_is_taken() {
    let config = Config::new("web.pid")
        .handoff_timeout(Duration::from_millis(1))
        .successor_timeout(None)
        .claim_timeout(None)
        .drain_timeout(Duration::from_secs(2))
        .leave_time(Duration::from_secs(7))
        .keep_sockets(None)
        .probation(Duration::from_secs(30))
        .probation_check(|| true)
        .release_signal(USR1)
        .reload_signals([HUP, HUP])
        .max_draining(None)
        .release_code(75)
        .notification_fd(3)
        .replace_output(false)
        .on_launch(|| ())
        .on_launch(|| ())
        .keep_open(std::io::stderr())
        .hand_over("cache", Vec::new)
        .takeover_timeout(Duration::from_secs(6))
        .signals_to_all([USR1])
        .working_dir("/srv/web/current")
        .environment(Vec::new)
        .watchdog(|| true);
    assert_eq!(
        format!("{config:?}"),
        "Config { pid_file: \"web.pid\", handoff_timeout: 1ms, successor_timeout: None, \
         claim_timeout: None, drain_timeout: Some(2s), leave_time: Some(7s), release_signal: 10, \
         reload_signals: [1, 1], max_draining: None, too_many_draining: None, \
         parent_restarts: None, release_code: 75, notification_fd: Some(3), \
         replace_output: false, on_launch: 2, keep_open: [2], keep_sockets: None, \
         probation: Some(30s), probation_check: true, hand_over: [\"cache\"], \
         takeover_timeout: 6s, signals_to_all: [10], working_dir: Some(\"/srv/web/current\"), \
         environment: true, watchdog: true }"
    );
}

/// All the defaults that matter for a service in trouble, at once since each takes its 10 s.
#[test]
fn the_defaults_in_real_time() {
    const TEN: Duration = Duration::from_secs(10);
    boxed::run(|folder| {
        let place = |name: &str| {
            let folder = folder.join(name);
            fs::create_dir(&folder).expect("a folder");
            Site::alone(&folder)
        };
        // handoff_timeout: the hook never returns.
        let handoff = place("handoff");
        let (mut held_up, holding) = handoff.start_ready(&["--at=request=hang"]);
        // successor_timeout: nobody comes.
        let alone = place("alone");
        let (mut left, lonely) = alone.start_ready(&[]);
        // `None`: for ever.
        let patient = place("patient");
        let (mut left_too, patience) = patient.start_ready(&["--successor-timeout=none"]);
        // drain_timeout: none.
        let (_draining, drains) = start_draining(&place("drain"), &["--at=shutdown=hang"]);

        let began = Instant::now();
        held_up.launcher.signal(TERM);
        left.detach();
        left_too.detach();
        assert_eq!(alone.report.wait_of(lonely.pid(), "wait").text, "Stopped");
        assert!(began.elapsed() >= TEN, "successor_timeout: {:?}", began.elapsed());
        assert!(held_up.wait_end().success());
        assert!(began.elapsed() >= TEN, "handoff_timeout: {:?}", began.elapsed());
        assert!(began.elapsed() < TEN * 3, "{:?}", began.elapsed());
        handoff.log.wait_words(&["stage=release", "handoff_timeout"], 1);
        assert!(!holding.has_ended());
        patient.wait_checks(patience.pid(), 2);
        assert!(patient.report.named("wait").is_empty());
        assert!(!drains.has_ended());
    });
}

// ---- handoff_timeout ----

#[test]
fn a_handoff_that_takes_too_long_detaches_the_daemon() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let options = ["--handoff-timeout=300ms", "--successor-timeout=none", "--at=request=hang"];
        let (mut first, old) = direct.start_ready(&options);
        let began = Instant::now();
        first.launcher.signal(TERM);
        assert!(first.wait_end().success());
        assert!(began.elapsed() >= Duration::from_millis(300));
        direct.log.wait_words(&["stage=release", "serves on detached"], 1);
        // It looks round although its hook still runs, and is taken over as ever.
        direct.wait_checks(old.pid(), 2);
        fs::remove_file(direct.pid_file()).expect("the PID file");
        direct.log.wait_words(&["ours is back"], 1);
        direct.start_ready(&[]);
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        assert_eq!(direct.hooks(old.pid()), ["request", "shutdown"]);
    });
}

#[test]
fn a_daemon_without_handlers_is_killed() {
    boxed::run(|folder| {
        use std::os::unix::process::ExitStatusExt;
        let direct = Site::alone(folder);
        let mut started =
            direct.start(&["--handoff-timeout=300ms", "--at=before-daemon-init=hang"]);
        direct.report.wait("launch");
        let daemon = Watched::new(process::children(started.launcher.pid())[0]);
        let began = Instant::now();
        started.launcher.signal(TERM);
        assert_eq!(started.wait_end().signal(), Some(KILL), "as its daemon");
        assert!(began.elapsed() >= Duration::from_millis(300));
        assert!(daemon.has_ended());
        direct.log.wait_words(&["stage=kill", "signal=KILL"], 1);
    });
}

// ---- drain_timeout and the hammer ----

#[test]
fn a_drain_that_takes_too_long_gets_the_hammer() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let options = ["--drain-timeout=300ms", "--at=shutdown=hang"];
        let began = Instant::now();
        let (mut started, daemon) = start_draining(&direct, &options);
        assert_eq!(started.wait_end().code(), Some(124), "its parent sees it");
        assert!(began.elapsed() >= Duration::from_millis(300));
        assert_eq!(direct.hooks(daemon.pid()), ["shutdown", "hammer"]);
        direct.log.wait_words(&["stage=hammer", "reason=drain_timeout", "exit_code=124"], 1);
        assert!(direct.report.named("wait").is_empty());
    });
}

#[test]
fn a_drain_in_time_gets_no_hammer() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut started, daemon) =
            start_draining(&direct, &["--drain-timeout=20s", "--exit-code=5"]);
        assert_eq!(started.wait_end().code(), Some(5));
        assert_eq!(direct.hooks(daemon.pid()), ["shutdown"]);
    });
}

/// `wait` has returned, and what the service does then never ends.
#[test]
fn the_limit_of_a_drain_holds_until_the_process_ends() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let options = ["--drain-timeout=300ms", "--at=drained=hang"];
        let (mut started, daemon) = start_draining(&direct, &options);
        assert_eq!(started.wait_end().code(), Some(124));
        assert_eq!(direct.hooks(daemon.pid()), ["shutdown", "hammer"]);
        assert_eq!(direct.report.wait("wait").text, "Requested");
    });
}

#[test]
fn a_hammer_hook_that_blocks_is_cut() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let options = ["--drain-timeout=100ms", "--at=shutdown=hang", "--at=hammer=hang"];
        let (mut started, daemon) = direct.start_ready(&options);
        let began = Instant::now();
        daemon.signal(TERM);
        assert_eq!(started.wait_end().code(), Some(124));
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(1100), "the hook has its second: {took:?}");
        assert_eq!(direct.hooks(daemon.pid()), ["shutdown", "hammer"]);
    });
}

#[test]
fn a_detached_daemon_gets_the_hammer_as_well() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let options = ["--drain-timeout=200ms", "--successor-timeout=none", "--at=shutdown=hang"];
        let (mut first, old) = direct.start_ready(&options);
        first.detach();
        let (_second, _) = direct.start_ready(&[]);
        old.wait_end(LIMIT);
        assert_eq!(direct.hooks(old.pid()), ["request", "shutdown", "hammer"]);
    });
}

/// Its process is stopped, so that no hammer can fall.
#[test]
fn the_launcher_kills_a_daemon_that_outlives_its_limit() {
    boxed::run(|folder| {
        use std::os::unix::process::ExitStatusExt;
        let direct = Site::alone(folder);
        let (mut started, daemon) =
            direct.start_ready(&["--drain-timeout=100ms", "--at=shutdown=raise:19"]);
        let began = Instant::now();
        daemon.signal(TERM);
        assert_eq!(started.wait_end().signal(), Some(KILL));
        assert!(began.elapsed() >= Duration::from_millis(5100), "{:?}", began.elapsed());
        direct.log.wait_words(&["stage=kill", "drain_timeout and 5 s"], 1);
        assert!(daemon.has_ended());
    });
}

#[test]
fn usr2_by_hand_is_the_hammer_and_by_the_launcher_is_not() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let options = ["--at=shutdown=hang", "--on=10=call:state"];
        let (mut started, daemon) = start_draining(&direct, &options);
        let pid = daemon.pid();
        // The launcher turns this into USR2, and passes the next one on.
        started.launcher.signal(TERM);
        started.launcher.signal(USR2);
        let from_launcher = format!("from={}", started.launcher.pid());
        let signalled = ["stage=signal", &format!("signal={USR2} "), &from_launcher];
        direct.log.wait_words(&signalled.map(|word| word.trim()), 1);
        direct.log.wait_words(&["stage=handoff"], 1);
        started.launcher.signal(USR1);
        assert_eq!(direct.report.wait_of(pid, "called").text, "state Draining Some(1)");
        assert!(!daemon.has_ended());
        daemon.signal(USR2);
        assert_eq!(started.wait_end().code(), Some(124));
        assert_eq!(direct.hooks(pid), ["shutdown", "hammer"]);
        direct.log.wait_words(&["stage=hammer", "reason=USR2"], 1);
    });
}

// ---- hooks that block or panic ----

#[test]
fn a_request_hook_that_blocks_stops_no_signal_no_limit_and_no_question() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let options = [
            "--at=request=hang",
            "--at=shutdown=hang",
            "--drain-timeout=300ms",
            "--on=10=call:state",
        ];
        let (mut started, daemon) = direct.start_ready(&options);
        started.launcher.signal(TERM);
        direct.report.wait("hook");
        daemon.signal(USR1);
        assert_eq!(direct.report.wait_nth("called", 1).text, "state Serving Some(1)");
        daemon.signal(TERM);
        assert_eq!(direct.report.wait_nth("hook", 2).text, "shutdown");
        assert_eq!(started.wait_end().code(), Some(124));
        assert_eq!(direct.hooks(daemon.pid()), ["request", "shutdown", "hammer"]);
    });
}

#[test]
fn a_panic_in_a_hook_is_logged_and_the_life_goes_on() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let options = [
            "--at=launch=panic",
            "--at=request=panic",
            "--at=shutdown=panic",
            "--successor-timeout=none",
        ];
        let (mut first, old) = direct.start_ready(&options);
        first.detach();
        direct.log.wait_words(&["stage=launch", "hook=on_launch panic=\"as told\""], 1);
        direct.log.wait_words(&["stage=hooks", "hook=on_shutdown_request panic=\"as told\""], 1);
        direct.start_ready(&[]);
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        direct.log.wait_words(&["stage=hooks", "hook=on_shutdown panic=\"as told\""], 1);

        let folder = folder.join("hammer");
        fs::create_dir(&folder).expect("a folder");
        let direct = Site::alone(&folder);
        let options = ["--drain-timeout=100ms", "--at=shutdown=hang", "--at=hammer=panic"];
        let (mut started, _) = start_draining(&direct, &options);
        assert_eq!(started.wait_end().code(), Some(124));
        direct.log.wait_words(&["stage=hooks", "hook=on_hammer panic=\"as told\""], 1);
    });
}

/// The service's own part of the drain has no hook: it waits for `draining` and `wait`.
#[test]
fn hooks_run_in_order_and_before_wait_returns() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut first, old) = direct.start_ready(&["--successor-timeout=none"]);
        first.detach();
        direct.start_ready(&[]);
        old.wait_end(LIMIT);
        let names = direct.report.names_of(old.pid());
        assert_eq!(names, ["init", "started", "hook", "hook", "wait"]);
        assert_eq!(direct.hooks(old.pid()), ["request", "shutdown"]);
        assert_eq!(direct.report.names_of(first.launcher.pid()), ["launch"]);
    });
}

// ---- release_signal ----

#[test]
fn the_release_by_another_signal() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let real_time = format!("--release-signal={}", 40);
        for option in ["--release-signal=10", "--release-signal=12", &real_time] {
            let (mut started, daemon) =
                direct.start_ready(&[option, "--catch-all", "--successor-timeout=none"]);
            started.detach();
            let launcher = format!("launcher={} ", started.launcher.pid());
            let line = direct.log.wait_words(&["stage=release", &launcher], 1);
            assert!(!line.contains("handoff_timeout"), "{line}");
            // To the launcher alone: it is not passed on, or it would come before this one. USR2 is
            // the handoff.
            daemon.signal(HUP);
            let signals = || -> Vec<String> {
                let signals = direct.report.named("signal").into_iter();
                signals.filter(|one| one.pid == daemon.pid()).map(|one| one.text).collect()
            };
            wait_for("HUP", LIMIT, || signals().contains(&"1".to_owned()).then_some(()));
            let signals = signals();
            assert!(signals.iter().filter(|text| *text != "12").eq(["1"]), "{option}: {signals:?}");
            daemon.kill();
            daemon.wait_end(LIMIT);
        }
    });
}

#[test]
fn p10_a_release_signal_that_cannot_be_used_is_an_error() {
    boxed::run(|_| {
        for signal in [0, -1, 4, 8, 9, 11, 15, 18, 19, 32, 33, 65, 99, i32::MAX, i32::MIN] {
            let error = Config::new("/nonexistent/web.pid").release_signal(signal).init();
            let error = error.expect_err("no such release");
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{signal}");
            assert_eq!(
                error.to_string(),
                format!(
                    "cannot release a launcher with signal {signal} (release_signal): it cannot be \
                     caught, or has another meaning here"
                )
            );
        }
    });
}

#[test]
fn p10_a_release_code_that_is_none_is_an_error() {
    boxed::run(|_| {
        for code in [-1, 256, i32::MAX, i32::MIN] {
            let error = Config::new("/nonexistent/web.pid").release_code(code).init();
            let error = error.expect_err("no such code");
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{code}");
            assert_eq!(
                error.to_string(),
                format!("cannot exit with code {code} (release_code): 0 to 255 can be told apart")
            );
        }
    });
}

#[test]
fn p10_a_pid_file_without_a_name_is_an_error() {
    boxed::run(|_| {
        for path in ["/", "..", "/run/web/.."] {
            let error = Config::new(path).init().expect_err("no file");
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{path}");
            let text = format!("cannot use {path:?} (PID file): it names no file");
            assert_eq!(error.to_string(), text);
        }
    });
}

// ---- restart, state and generation ----

fn a_restart_from_within(kind: Supervisor, folder: &Path) {
    let site = Site::at(folder).no_socket().options("--on=10=call:restart").under(kind);
    let old = site.report.wait("started").pid;
    site.service().settle();
    let launcher = Watched::new(site.service().main_pid());
    process::signal(old, USR1);
    assert_eq!(site.report.wait("called").text, "restart ok");
    launcher.wait_end(LIMIT);
    let new = site.report.wait_nth("started", 2);
    assert_eq!(new.number(), 2);
    assert_eq!(site.report.wait_of(old, "wait").text, "TakenOver");
}

under_each_supervisor![a_restart_from_within];

#[test]
fn state_and_generation_tell_where_we_are() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let mut options =
            vec!["--successor-timeout=none".to_owned(), "--on=10=call:state".to_owned()];
        let points =
            ["before-daemon-init", "after-init", "started", "request", "shutdown", "drained"];
        options.extend(points.map(|point| format!("--at={point}=call:state")));
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let (mut first, old) = direct.start_ready(&options);
        first.detach();
        direct.wait_checks(old.pid(), 1);
        old.signal(USR1);
        direct.report.wait_nth("called", 5);
        let (_second, new) = direct.start_ready(&[&options[..], &["--at=hammer"][..0]].concat());
        old.wait_end(LIMIT);
        direct.report.wait_of(new.pid(), "started");
        let states = |pid| -> Vec<String> {
            let called =
                direct.report.named("called").into_iter().filter(|called| called.pid == pid);
            called.map(|called| called.text).collect()
        };
        assert_eq!(
            states(old.pid()),
            [
                "state Starting None",
                "state Starting Some(1)",
                "state Serving Some(1)",
                "state Serving Some(1)", // the request hook
                "state Detached Some(1)",
                "state Draining Some(1)",
                "state Draining Some(1)", // `wait` has returned
            ]
        );
        assert_eq!(states(new.pid())[..2], ["state Starting None", "state Starting Some(2)"]);
    });
}

#[test]
fn a_generation_that_was_refused_has_no_number() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        direct.start_ready(&[]);
        let options = [
            "--at=after-init=call:started",
            "--at=after-init=call:state",
            "--at=after-init=exit:0",
        ];
        let mut second = direct.start(&options);
        let waiting = second.wait_init();
        assert!(second.wait_end().success());
        let called: Vec<_> = direct
            .report
            .events()
            .into_iter()
            .filter(|event| event.pid == waiting.pid() && event.name == "called")
            .collect();
        assert_eq!(called[1].text, "state Starting None");
    });
}
