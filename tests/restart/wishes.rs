//! Who may be asked for a restart in place, how often, and what becomes of a wish that comes too early.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use seamless_testing::{
    LIMIT,
    boxed::{self, Boxed},
    http::{Connection, Prober},
    process::{self, Watched, signal},
    signal::{CONT, HUP, INT, PWR, QUIT, STOP, TERM, USR1, USR2},
    site::{Site, User},
    supervisor::Supervisor,
    under_each_supervisor, wait_for,
};

use super::in_place::{Scene, in_a_box, request_is_answered};

// ---- any process of the service ----

/// The daemon, launcher and daemon at once in either order, a daemon that drains, and all of them.
#[test]
fn p1_p2_p3_a_reload_signal_to_any_process_of_the_service_is_one_restart() {
    in_a_box(|folder| {
        let mut scene = Scene::new(folder, &[]);
        let launcher = Watched::new(scene.launcher());
        let request = scene.hold();
        let oldest = scene.current();
        for nth in 0..5 {
            let current = scene.current();
            let targets = match nth {
                0 => vec![current],
                1 => vec![launcher.pid(), current],
                2 => vec![current, launcher.pid()],
                3 => vec![oldest], // it drains
                _ => vec![oldest, launcher.pid(), current, current, launcher.pid()],
            };
            // The launcher hears of all of them together: one that comes after it has begun is another wish.
            let log = &scene.direct.log;
            let heard =
                |pid: &u32| log.with(&["stage=signal", &format!("daemon={pid} signal=1 ")]).len();
            let daemons = BTreeSet::from_iter(targets.iter().filter(|pid| **pid != launcher.pid()));
            let before: Vec<usize> = daemons.iter().map(|pid| heard(pid)).collect();
            launcher.stop();
            targets.iter().for_each(|pid| signal(*pid, HUP));
            for (pid, before) in daemons.into_iter().zip(before) {
                wait_for(format_args!("{pid} has heard: {log}"), LIMIT, || {
                    (heard(pid) > before).then_some(())
                });
            }
            launcher.signal(CONT);
            scene.wait_taken_over();
            if nth > 0 {
                scene.wait_drained();
            }
        }
        assert!(request_is_answered(request, oldest));
        scene.wait_children(&[scene.current()]);
        scene.finish();
    });
}

/// By a hook, by a handler that is there before `init`, and by one that comes later.
#[test]
fn p7_a_reload_signal_that_the_program_handles_is_the_programs() {
    in_a_box(|folder| {
        for option in ["--hook-signal=1", "--catch-before=1", "--on=1=sleep:0s"] {
            let folder = folder.join(option);
            fs::create_dir(&folder).expect("a folder");
            let mut scene = Scene::new(&folder, &[option]);
            let daemon = scene.current();
            signal(daemon, HUP);
            let seen = scene.direct.report.wait_of(daemon, "signal");
            assert_eq!(seen.text, "1");
            // The launcher still restarts, and what was the program's did not restart before.
            scene.reload();
            scene.wait_taken_over();
            scene.wait_drained();
            scene.finish();
        }
    });
}

/// It is not lost: the program may have changed since it was executed.
#[test]
fn p1_a_reload_signal_to_a_daemon_that_starts_is_remembered() {
    in_a_box(|folder| {
        let mut scene = Scene::new(folder, &[]);
        let (early, go, next) = (folder.join("early"), folder.join("go"), folder.join("next"));
        let [wait_early, wait, wait_next] =
            [&early, &go, &next].map(|file| file.display().to_string());
        scene.deploy(&format!(
            "--at=before-daemon-init=file:{wait_early} --at=after-init=file:{wait}"
        ));
        scene.reload();
        let candidate = wait_for("a candidate that runs the probe", LIMIT, || {
            let mut children = process::children(scene.launcher());
            children.retain(|child| !scene.served.contains(child));
            let child = *children.first()?;
            let runs = fs::read_link(format!("/proc/{child}/exe")).ok()?;
            (runs == seamless_testing::bin::probe()).then_some(child)
        });
        // It has no handlers yet, and ignores the signal.
        signal(candidate, HUP);
        fs::write(early, "").expect("a file");
        scene.direct.report.wait_of(candidate, "init");
        // The next one waits, so that this one has time to answer.
        scene.deploy(&format!("--at=after-init=file:{wait_next}"));
        signal(candidate, HUP);
        fs::write(go, "").expect("a file");
        scene.wait_taken_over();
        assert_eq!(scene.current(), candidate);
        fs::write(next, "").expect("a file");
        scene.wait_taken_over();
        scene.wait_drained();
        scene.finish();
    });
}

under_each_supervisor![
    Boxed::new().private_net_without_migration() =>
        p1_p2_a_reload_signal_to_the_daemon,
        p1_p4_terms_that_come_faster_than_a_start,
        p3_p6_quit_is_what_the_supervisor_says
];

/// In place under a supervisor; a daemon that is detached awaits its successor already.
fn p1_p2_a_reload_signal_to_the_daemon(kind: Supervisor, folder: &Path) {
    let options = format!("--reload-signal={HUP}");
    let site = Site::at(folder).user(User::Root).shared_socket().options(&options).under(kind);
    let launcher = site.launcher();
    let first = site.daemon(1);
    let prober = Prober::start(&site.target);
    prober.wait_pid(first.pid());
    first.signal(HUP);
    let second = site.daemon(2);
    first.wait_end(LIMIT);
    assert!(!launcher.has_ended());
    prober.wait_pid(second.pid());
    let go = site.flag("go");
    site.deploy_options(&format!("{options} --at=after-init=file:{}", go.display()));
    site.service().settle();
    site.service().restart();
    launcher.wait_end(LIMIT);
    second.signal(HUP);
    site.report.wait_nth("init", 3);
    site.wait_checks(second.pid(), 1);
    fs::write(&go, "").expect("a file");
    let third = site.started(3);
    second.wait_end(LIMIT);
    prober.wait_pid(third);
    let probes = prober.stop();
    probes.assert_all_answered();
    assert_eq!(probes.pids(), [first.pid(), second.pid(), third]);
    site.stop();
}

// ---- many wishes ----

/// Reload signals, calls of `restart`, and USR2 to the launcher, all faster than the program starts.
#[test]
fn p1_p4_wishes_that_come_faster_than_a_start_starve_no_restart() {
    in_a_box(|folder| {
        let restart = format!("--on={USR1}=call:restart");
        let mut scene = Scene::new(folder, &[&restart, "--at=after-init=sleep:400ms"]);
        let mut wish = 0;
        let end = Instant::now() + Duration::from_secs(6);
        while Instant::now() < end {
            let newest = scene.direct.report.newest().expect("one").pid;
            match wish % 3 {
                0 => _ = Watched::new(scene.launcher()).signal(HUP),
                1 => _ = Watched::new(newest).signal(USR1),
                _ => _ = Watched::new(scene.launcher()).signal(USR2),
            }
            wish += 1;
            thread::sleep(Duration::from_millis(250));
        }
        let started = scene.direct.report.named("started").len();
        println!("{wish} wishes, {started} generations");
        assert!(started >= 5, "{started} of {wish}: {}", scene.direct.log);
        let text = scene.direct.log.text();
        assert!(!text.contains("stage=cancel") && !text.contains("reload-failed"), "{text}");
        // The last wish counts too, and then it is quiet.
        // A wish waits for 100 ms, in which others may join it; meanwhile there is only the last one, too.
        let mut alone_since: Option<(u32, Instant)> = None;
        scene.served = wait_for("the last one alone", LIMIT, || {
            let started: Vec<u32> =
                scene.direct.report.named("started").iter().map(|one| one.pid).collect();
            let newest = *started.last()?;
            if process::children(scene.launcher()) != [newest] || !scene.is_idle() {
                alone_since = None;
                return None;
            }
            let (_, since) =
                alone_since.filter(|(one, _)| *one == newest).unwrap_or((newest, Instant::now()));
            alone_since = Some((newest, since));
            (since.elapsed() >= Duration::from_secs(1)).then_some(started)
        });
        scene.prober.wait_pid(scene.current());
        scene.finish();
    });
}

/// A start that hangs is ended all the same, by KILL if it must be, and the wish that waited is met.
#[test]
fn p1_p4_a_start_that_hangs_is_ended_for_the_wish_that_waits() {
    in_a_box(|folder| {
        let mut scene = Scene::new(folder, &["--handoff-timeout=500ms"]);
        for options in ["--at=after-init=hang", &format!("--at=after-init=raise:{STOP}")] {
            let nth = scene.direct.report.named("init").len() + 1;
            scene.deploy(options);
            scene.reload();
            let hangs = Watched::new(scene.direct.report.wait_nth("init", nth).pid);
            scene.deploy_good();
            (0..3).for_each(|_| scene.reload());
            hangs.wait_end(LIMIT);
            scene.wait_taken_over();
            scene.wait_drained();
        }
        scene.finish();
    });
}

/// A restart by the supervisor lets a start finish, too.
fn p1_p4_terms_that_come_faster_than_a_start(kind: Supervisor, folder: &Path) {
    let site = Site::at(folder).options("--at=after-init=sleep:1400ms").under(kind);
    let prober = Prober::start(&site.target);
    prober.wait_pid(site.started(1));
    site.service().settle();
    let started = || site.report.named("started").len();
    let (mut terms, mut last, began) = (0, None, Instant::now());
    // If each wish began anew, no start would ever be through, however long this takes.
    while terms < 10 || started() < 4 && began.elapsed() < LIMIT {
        // Not by a command: those that come too fast keep runit itself from starting the service.
        if let Some(launcher) = site.service().status().pid {
            let launcher = Watched::new(launcher);
            if launcher.signal(TERM) {
                (terms, last) = (terms + 1, Some(launcher));
            }
        }
        thread::sleep(Duration::from_millis(1100));
    }
    let started = started();
    println!("{terms} restarts, {started} generations");
    assert!(started >= 4, "{started} of {terms}: {}", site.log);
    let probes = prober.stop();
    probes.assert_all_answered();
    // A stop while no launcher runs is reported before the detached daemon has seen it.
    let last = last.expect("there were ten");
    last.wait_end(LIMIT);
    wait_for("the last restart is through", LIMIT, || {
        let launcher = site.service().status().pid.filter(|launcher| *launcher != last.pid())?;
        let newest = process::stat(site.report.named("started").last()?.pid)?;
        (newest.ppid == launcher).then_some(())
    });
    site.stop();
}

// ---- signals that ask for a stop ----

/// With a request in flight, to a program that does not handle them. The daemon may get them as well.
#[test]
fn p3_quit_and_pwr_are_a_stop() {
    Boxed::new().private_net().run(|folder| {
        for (nth, (number, to_daemon)) in
            [(QUIT, false), (PWR, false), (QUIT, true), (PWR, true)].into_iter().enumerate()
        {
            let folder = folder.join(nth.to_string());
            fs::create_dir(&folder).expect("a folder");
            let site = Site::at(&folder).shared_socket().alone();
            let (mut started, daemon) = site.start_ready(&["--exit-code=7"]);
            let request = Connection::unfinished(&site.target);
            request.wait_accepted(daemon.pid());
            signal(if to_daemon { daemon.pid() } else { started.launcher.pid() }, number);
            site.wait_drain(daemon.pid());
            // Again, as those do who are impatient.
            started.launcher.signal(number);
            daemon.signal(number);
            assert!(!started.launcher.has_ended() && !daemon.has_ended());
            assert!(request_is_answered(request, daemon.pid()));
            let reason = if to_daemon { "Requested" } else { "Stopped" };
            assert_eq!(site.report.wait_of(daemon.pid(), "wait").text, reason);
            assert_eq!(started.wait_end().code(), Some(7), "{}", site.log);
        }
    });
}

#[test]
fn p7_quit_and_pwr_that_the_program_handles_are_the_programs() {
    boxed::run(|folder| {
        for (nth, number) in [QUIT, PWR].into_iter().enumerate() {
            for (which, option) in ["hook-signal=", "catch-before=", "on="].into_iter().enumerate()
            {
                let folder = folder.join(format!("{nth}-{which}"));
                fs::create_dir(&folder).expect("a folder");
                let site = Site::alone(&folder);
                let action = if option == "on=" { "=sleep:0s" } else { "" };
                let option = format!("--{option}{number}{action}");
                let (mut started, daemon) = site.start_ready(&[&option, "--exit-code=7"]);
                started.launcher.signal(number);
                assert_eq!(site.report.wait_of(daemon.pid(), "signal").number(), number as u64);
                started.launcher.signal(INT);
                assert_eq!(site.report.wait_of(daemon.pid(), "wait").text, "Requested");
                assert_eq!(started.wait_end().code(), Some(7), "{}", site.log);
            }
        }
    });
}

/// Before it serves, it ends, and nobody dumps a core.
#[test]
fn p6_quit_ends_a_start() {
    boxed::run(|folder| {
        let site = Site::alone(folder);
        let mut started = site.start(&["--at=after-init=hang"]);
        let daemon = started.wait_init();
        started.launcher.signal(QUIT);
        daemon.wait_end(LIMIT);
        assert_eq!(started.wait_end().code(), Some(0), "{}", site.log);
    });
}

/// The status says whether the supervisor restarts the service, whatever signal it sends.
fn p3_p6_quit_is_what_the_supervisor_says(kind: Supervisor, folder: &Path) {
    let site = Site::at(folder).user(User::Root).under(kind);
    let (launcher, first) = (site.launcher(), site.daemon(1));
    let prober = Prober::start(&site.target);
    prober.wait_pid(first.pid());
    site.service().settle();
    launcher.signal(QUIT);
    let second = site.started(2);
    launcher.wait_end(LIMIT);
    first.wait_end(LIMIT);
    prober.wait_pid(second);
    let probes = prober.stop();
    probes.assert_all_answered();
    site.stop();
}

// ---- signals of the program's own ----

/// Log rotation: generations that drain get it as well, unless they would die of it.
#[test]
fn p7_a_signal_to_all_reaches_those_that_drain() {
    in_a_box(|folder| {
        let to_all = format!("--to-all={USR1}");
        let handles = format!("--on={USR1}=sleep:0s");
        let mut scene = Scene::new(folder, &[&to_all]);
        let deaf = scene.hold();
        scene.deploy(&handles);
        scene.reload();
        scene.wait_taken_over();
        let hears = scene.hold();
        scene.reload();
        scene.wait_taken_over();
        signal(scene.launcher(), USR1);
        for pid in &scene.served[1..] {
            let seen = scene.direct.report.wait_of(*pid, "signal");
            assert_eq!(seen.number(), USR1 as u64);
        }
        assert!(request_is_answered(deaf, scene.served[0]));
        assert!(request_is_answered(hears, scene.served[1]));
        scene.finish();
    });
}

#[test]
fn p10_a_signal_to_all_that_means_something_is_an_error() {
    boxed::run(|_| {
        for number in [0, 9, 11, INT, QUIT, PWR, TERM, USR2, HUP] {
            let config = seamless::Config::new("/nonexistent/web.pid").reload_signals([HUP]);
            let error = config.signals_to_all([USR1, number]).init().expect_err("no such signal");
            assert_eq!(error.kind(), seamless::ErrorKind::InvalidConfig, "{number}");
            assert!(error.to_string().contains("signals_to_all"), "{error}");
        }
    });
}
