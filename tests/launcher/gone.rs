//! P8: a daemon whose launcher dies notices at once; and what the death of each other process does.

use std::{fs, path::Path};

use seamless_testing::{
    LIMIT,
    boxed::{self, Boxed},
    http::{self, Prober},
    log::Log,
    process::{self, Watched, signal},
    report::Report,
    scene,
    signal::{CONT, KILL, STOP, TERM},
    site::Site,
    supervisor::Supervisor,
    under_each_supervisor, wait_for,
};

/// `svc -k` or `sv kill`: the supervisor KILLs the launcher and starts the next.
fn p8_a_daemon_serves_on_when_its_launcher_is_killed(kind: Supervisor, folder: &Path) {
    // The next one starts only when the old daemon has noticed, with no help from a successor.
    let noticed = format!(
        "cd '{}'; [ ! -e report ] || until grep -q 'hook request' report; do sleep 0.05; done",
        folder.display()
    );
    let site = Site::at(folder).first(&noticed).under(kind);
    let old = site.report.wait("started").pid;
    let (launcher, daemon) = (Watched::new(site.service().main_pid()), Watched::new(old));
    let prober = Prober::start(&site.target);
    prober.wait_pid(old);

    site.service().control(if kind == Supervisor::Runit { "kill" } else { "-k" });
    launcher.wait_end(LIMIT);
    site.log.wait(&[
        ("stage", "prepare"),
        ("cause", "launcher-gone"),
        ("daemon", &old.to_string()),
    ]);
    let new = site.report.wait_nth("started", 2).pid;
    daemon.wait_end(LIMIT);
    assert_eq!(site.report.wait_of(old, "wait").text, "TakenOver");
    prober.wait_pid(new);
    let probes = prober.stop();
    probes.assert_all_answered();
    assert_eq!(probes.pids(), [old, new]);
    assert_eq!(process::stat(new).expect("it serves").ppid, site.service().main_pid());
}

/// The supervisor dies and a new one starts the service, while the old launcher still runs.
fn p8_a_new_supervisor_takes_over(kind: Supervisor, folder: &Path) {
    let mut site = Site::at(folder).under(kind);
    let first = site.report.wait("started").pid;
    let first_launcher = Watched::new(site.service().main_pid());
    let prober = Prober::start(&site.target);
    prober.wait_pid(first);

    let (first_daemon, supervisor) =
        (Watched::new(first), Watched::new(site.service().supervisor_pid()));
    site.service_mut().kill_supervisor();
    assert!(supervisor.has_ended() && !first_launcher.has_ended());
    site.service_mut().start_supervisor();
    let second = site.report.wait_nth("started", 2).pid;
    first_daemon.wait_end(LIMIT);
    first_launcher.wait_end(LIMIT);

    // A restart works as ever.
    let (second_launcher, second_daemon) = (site.service().main_pid(), Watched::new(second));
    site.service().restart();
    let third = site.report.wait_nth("started", 3).pid;
    second_daemon.wait_end(LIMIT);
    prober.wait_pid(third);
    let probes = prober.stop();
    probes.assert_all_answered();
    assert_eq!(probes.pids(), [first, second, third]);
    let mut left: Vec<u32> = scene::running(folder).iter().map(Watched::pid).collect();
    let mut expected = vec![site.service().main_pid_after(second_launcher), third];
    left.sort_unstable();
    expected.sort_unstable();
    assert_eq!(left, expected, "one generation");
}

/// The new version ends at once, and the supervisor that has its place in the folder since tries it again and
/// again. It wants the service up, so the old daemon waits for longer than `successor_timeout`.
fn p8_p11_a_new_supervisor_may_try_a_bad_version_for_long(kind: Supervisor, folder: &Path) {
    let mut site = Site::at(folder).options("--successor-timeout=1s").under(kind);
    let first = site.daemon(1);
    let launcher = site.launcher();
    site.deploy("exit 1");
    site.service().restart();
    launcher.wait_end(LIMIT);
    site.wait_checks(first.pid(), 1);
    site.service_mut().kill_supervisor();
    site.service_mut().start_supervisor();
    site.wait_checks(first.pid(), 4); // a second each
    assert_eq!(http::pid(&site.target), first.pid());
    site.deploy_options("");
    let second = site.started(2);
    first.wait_end(LIMIT);
    assert_eq!(site.report.wait_of(first.pid(), "wait").text, "TakenOver");
    assert_eq!(http::pid(&site.target), second);
}

fn p8_a_killed_daemon_is_started_again(kind: Supervisor, folder: &Path) {
    let site = Site::at(folder).under(kind);
    let old = site.report.wait("started").pid;
    let launcher = Watched::new(site.service().main_pid());
    signal(old, KILL);
    launcher.wait_end(LIMIT);
    let new = site.report.wait_nth("started", 2).pid;
    assert_eq!(http::pid(&site.target), new);
    assert_eq!(process::stat(new).expect("it serves").ppid, site.service().main_pid());
    assert!(!site.log.stage("end").is_empty(), "the old launcher has seen the end");
}

under_each_supervisor![
    Boxed::new().private_net() =>
    p8_a_daemon_serves_on_when_its_launcher_is_killed,
    p8_a_new_supervisor_takes_over,
    p8_p11_a_new_supervisor_may_try_a_bad_version_for_long,
    p8_a_killed_daemon_is_started_again
];

/// The lock file has become a folder. The check of each second fails, the log says so once a minute, and the daemon
/// serves on.
#[test]
fn p1_p10_a_check_that_fails_is_told_once() {
    Boxed::new().private_net().run(|folder| {
        let options = "--successor-timeout=none";
        let site = Site::at(folder).options(options).under(Supervisor::Daemontools);
        let (daemon, launcher) = (site.daemon(1), site.launcher());
        site.deploy("exec sleep 1000");
        site.service().restart();
        launcher.wait_end(LIMIT);
        site.wait_checks(daemon.pid(), 1);
        let lock_file = site.run.join("web.pid.lock");
        fs::remove_file(&lock_file).expect("the lock file");
        fs::create_dir(&lock_file).expect("a folder");
        let told = || {
            let mut lines = site.log.stage("check");
            lines.retain(|line| line.field("error").is_some());
            lines.len()
        };
        wait_for(format_args!("it is told\n{site}"), LIMIT, || (told() > 0).then_some(()));
        site.wait_checks(daemon.pid(), 3);
        assert_eq!(told(), 1, "{site}");
        assert_eq!(http::pid(&site.target), daemon.pid());
        daemon.signal(TERM);
        daemon.wait_end(LIMIT);
    });
}

#[test]
fn p8_a_starting_daemon_ends_with_its_launcher() {
    boxed::run(|folder| {
        let launcher = scene::start(folder, "--at=after-init=hang").id();
        let daemon = Watched::new(Report::new(folder.join("report")).wait("init").pid);
        signal(launcher, KILL);
        daemon.wait_end(LIMIT);
    });
}

/// One generation hangs in its start, and the next waits for the claim.
#[test]
fn p8_a_daemon_that_waits_for_the_claim_ends_with_its_launcher() {
    boxed::run(|folder| {
        let mut first = scene::start(folder, "--at=after-init=hang");
        let holder = Report::new(folder.join("report")).wait("init").pid;
        let launcher = scene::start(folder, "").id();
        let waiting = Log::of(folder).wait(&[("stage", "claim"), ("holder", &holder.to_string())]);
        let waiting = Watched::new(waiting.number("daemon"));
        signal(launcher, KILL);
        waiting.wait_end(LIMIT);
        assert!(process::stat(holder).is_some());
        signal(holder, KILL);
        first.wait().expect("its end");
    });
}

/// The launcher dies when its daemon has not even begun.
#[test]
fn p8_a_daemon_that_finds_its_launcher_dead_ends() {
    boxed::run(|folder| {
        for turn in 0..10 {
            let folder = folder.join(turn.to_string());
            fs::create_dir(&folder).expect("a folder");
            let options = format!("--at=before-daemon-init=raise:{STOP}");
            let mut launcher = scene::start(&folder, &options);
            let daemon = Watched::new(scene::stopped_child(launcher.id()));
            signal(launcher.id(), KILL);
            launcher.wait().expect("its end");
            wait_for("a new parent", LIMIT, || {
                (process::stat(daemon.pid())?.ppid != launcher.id()).then_some(())
            });
            daemon.signal(CONT);
            daemon.wait_end(LIMIT);
            assert_eq!(Report::new(folder.join("report")).named("started"), []);
        }
    });
}
