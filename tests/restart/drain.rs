//! What holds up the end of a drain, and what is told of its way there.

use std::{fs, time::Duration};

use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed},
    http::{Connection, answer_of},
    process,
    report::Report,
    scene,
    signal::{TERM, USR1},
    site::{SERVES_ON, Site},
    wait_for,
};

/// Those events, without what else the process reported.
fn events(report: &Report, pid: u32, name: &str) -> Vec<String> {
    let events = report.named(name).into_iter().filter(|event| event.pid == pid);
    events.map(|event| event.text).collect()
}

#[test]
fn p3_a_guard_holds_up_the_end_of_the_drain_past_its_hooks() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let gone = folder.join("gone");
        let guard = format!("--at=ready=guard:{}", gone.display());
        // One that is taken in the drain counts as well.
        let late = folder.join("late");
        let late_guard = format!("--on=10=guard:{}", late.display());
        let (mut started, daemon) =
            direct.start_ready(&[&guard, &late_guard, "--on=1=call:state", "--exit-code=5"]);
        daemon.signal(TERM);
        assert_eq!(direct.report.wait_of(daemon.pid(), "hook").text, "shutdown");
        daemon.signal(USR1);
        direct.report.wait_of(daemon.pid(), "signal"); // the same thread answers the next one
        for file in [&gone, &late] {
            let count = events(&direct.report, daemon.pid(), "called").len();
            daemon.signal(1);
            assert_eq!(direct.report.wait_nth("called", count + 1).text, "state Draining Some(1)");
            assert!(direct.report.named("wait").is_empty());
            fs::write(file, "").expect("a file");
        }
        assert_eq!(started.wait_end().code(), Some(5));
        assert_eq!(direct.report.wait("wait").text, "Requested");
    });
}

#[test]
fn the_hammer_waits_for_no_guard_and_its_hooks_have_an_order() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let guard = format!("--at=ready=guard:{}", folder.join("never").display());
        let hooks = ["before", "after"].map(|when| format!("--at={when}-hammer=call:reason"));
        let options = [&guard, "--drain-timeout=300ms", &hooks[0], &hooks[1], "--at=hammer=hang"];
        let (mut started, daemon) = direct.start_ready(&options);
        daemon.signal(TERM);
        assert_eq!(started.wait_end().code(), Some(124));
        let order = ["shutdown", "before-hammer", "hammer", "after-hammer"];
        assert_eq!(scene::hooks(&direct.report, daemon.pid()), order);
        assert!(direct.report.named("wait").is_empty());
    });
}

/// Nor does one before it, for longer than its second.
#[test]
fn a_hook_before_the_hammer_that_hangs_holds_up_the_exit_for_a_second() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let options = ["--drain-timeout=100ms", "--at=shutdown=hang", "--at=before-hammer=hang"];
        let began = std::time::Instant::now();
        let (mut started, daemon) = direct.start_ready(&options);
        daemon.signal(TERM);
        assert_eq!(started.wait_end().code(), Some(124));
        assert!(began.elapsed() >= Duration::from_millis(1100));
        let order = ["shutdown", "before-hammer", "hammer"];
        assert_eq!(scene::hooks(&direct.report, daemon.pid()), order);
    });
}

#[test]
fn every_change_of_the_state_and_the_reason_are_told() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let options = [
            "--at=after-init=call:states",
            "--at=shutdown=call:reason",
            &format!("--at=drained=file:{}", direct.flag("told").display()),
            "--successor-timeout=none",
        ];
        let (mut first, old) = direct.start_ready(&options);
        first.detach();
        let wait_told = |all: &[&str], last: [&[&str]; 2]| {
            wait_for(format!("told of {all:?}, {last:?}"), LIMIT, || {
                let told = |name| events(&direct.report, old.pid(), name);
                let [thread, task] = last.map(|last| [all, last].concat());
                (told("thread") == thread && told("task") == task).then_some(())
            });
        };
        wait_told(&["Serving", "Detached"], [&[], &[]]);
        direct.start_ready(&["--at=shutdown=hang"]);
        wait_told(&["Serving", "Detached", "Draining"], [&["end"], &["TakenOver"]]);
        assert_eq!(events(&direct.report, old.pid(), "called"), ["reason Some(TakenOver)"]);
        fs::write(direct.flag("told"), "").expect("a file");
        old.wait_end(LIMIT);
    });
}

/// Without a launcher, and up to the end: it waits long enough for all to be told.
#[test]
fn a_disabled_daemon_tells_its_states_too() {
    boxed::run(|folder| {
        let report = Report::new(folder.join("report"));
        let mut probe = std::process::Command::new(bin::probe())
            .arg(format!("--report={}", folder.join("report").display()))
            .args(["--pid-file=", "--at=before-init=call:states", "--at=drained=file:told"])
            .current_dir(folder)
            .spawn()
            .expect("the probe");
        let pid = report.wait("started").pid;
        seamless_testing::process::signal(pid, TERM);
        wait_for("both have told all", LIMIT, || {
            let told = |name| events(&report, pid, name);
            (told("thread") == ["Serving", "Draining", "end"]
                && told("task") == ["Serving", "Draining", "Requested"])
            .then_some(())
        });
        fs::write(folder.join("told"), "").expect("a file");
        assert!(probe.wait().expect("its end").success());
    });
}

/// It waits for a client that may take hours, and leaves the processors alone meanwhile.
#[test]
fn a_generation_that_drains_does_not_wake_up_for_nothing() {
    Boxed::new().private_net().run(|folder| {
        let site = Site::at(folder).shared_socket().alone();
        let (mut first, old) = site.start_ready(&[SERVES_ON]);
        let request = Connection::unfinished(&site.target);
        request.wait_accepted(old.pid());
        first.detach();
        let (_second, _new) = site.start_ready(&[SERVES_ON]);
        site.wait_drain(old.pid());
        scene::wait_let_go(old.pid());
        let woken = || process::voluntary_switches(old.pid()).expect("it drains");
        // What the beginning of the drain has to do is done when a while has passed without any.
        wait_for("it has come to rest", LIMIT, || {
            let before = woken();
            std::thread::sleep(Duration::from_millis(500));
            (woken() == before).then_some(())
        });
        let before = woken();
        std::thread::sleep(Duration::from_secs(2));
        assert!(woken() - before <= 4, "{} times in 2 s", woken() - before);
        assert!(request.finish().ends_with(&answer_of(old.pid())));
        old.wait_end(LIMIT);
    });
}
