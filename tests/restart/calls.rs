//! Calls in the wrong order or state are errors that name the step, and change nothing; and a log that
//! is closed or panics harms nothing.

use std::{
    fs,
    os::unix::{fs::MetadataExt, net::UnixStream},
    process::Command,
};

use seamless_testing::{
    LIMIT, boxed, process,
    signal::{INT, TERM, USR1, USR2},
    site::Site,
    wait_for,
};

#[test]
fn p10_calls_before_init_are_errors() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let go = folder.join("go");
        let mut started = direct.start(&[
            "--at=before-daemon-init=call:started",
            "--at=before-daemon-init=call:restart",
            "--at=before-daemon-init=call:state",
            "--at=before-daemon-init=call:wait",
            &format!("--at=before-daemon-init=file:{}", go.display()),
            "--no-wait",
        ]);
        direct.log.wait_words(&["stage=wait", "called before init"], 1);
        fs::write(go, "").expect("a file");
        let daemon = started.wait_started();
        // The early `wait` waits all the same.
        daemon.signal(TERM);
        direct.report.wait_nth("called", 4);
        let called: Vec<String> =
            direct.report.named("called").into_iter().map(|event| event.text).collect();
        assert_eq!(
            called,
            [
                "started error: cannot announce the service (started): init was not called, or failed",
                "restart error: cannot restart (restart): init was not called, or failed",
                "state Starting None",
                "wait Requested",
            ]
        );
        daemon.kill();
        started.wait_end();
    });
}

#[test]
fn p10_a_second_init_is_an_error() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (started, daemon) =
            direct.start_ready(&["--at=after-init=call:init", "--at=started=call:init"]);
        for nth in 1..=2 {
            assert_eq!(
                direct.report.wait_nth("called", nth).text,
                "init error: cannot initialize (init): it was called before in this process"
            );
        }
        assert_eq!(direct.named(), Some(daemon.pid()));
        assert_eq!(process::children(started.launcher.pid()), [daemon.pid()]);
        assert!(process::children(daemon.pid()).is_empty());
    });
}

#[test]
fn a_second_started_does_nothing() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let options =
            ["--at=started=call:started", "--at=shutdown=call:started", "--on=10=call:started"];
        let (mut started, daemon) = direct.start_ready(&options);
        assert_eq!(direct.report.wait_nth("called", 1).text, "started ok");
        let before = fs::metadata(direct.pid_file()).expect("the PID file").ino();
        let record = fs::read(direct.lock_file()).expect("the record");
        daemon.signal(USR1);
        assert_eq!(direct.report.wait_nth("called", 2).text, "started ok");
        assert_eq!(fs::metadata(direct.pid_file()).expect("the PID file").ino(), before);
        assert_eq!(fs::read(direct.lock_file()).expect("the record"), record);
        daemon.signal(TERM);
        assert_eq!(direct.report.wait_nth("called", 3).text, "started ok");
        assert!(started.wait_end().success());
    });
}

#[test]
fn p10_a_restart_in_each_state() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut started, daemon) = direct.start_ready(&[
            "--successor-timeout=none",
            "--at=after-init=call:restart",
            "--at=request=call:restart",
            "--at=shutdown=call:restart",
            "--on=10=call:restart",
        ]);
        let called = |nth| direct.report.wait_nth("called", nth).text;
        let error = |why: &str| format!("restart error: cannot restart (restart): {why}");
        assert_eq!(called(1), error("this generation has not started yet"));
        daemon.signal(USR1);
        assert_eq!(called(2), "restart ok", "Serving");
        assert_eq!(called(3), "restart ok", "under way already");
        assert!(started.wait_end().success());
        direct.wait_checks(daemon.pid(), 1);
        daemon.signal(USR1);
        assert_eq!(called(4), "restart ok", "Detached: a successor is awaited");
        assert_eq!(direct.report.named("hook").len(), 1);
        daemon.signal(TERM);
        assert_eq!(called(5), error("this generation is draining"));
        daemon.wait_end(LIMIT);
    });
}

#[test]
fn p10_a_restart_that_nobody_would_follow_is_an_error() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        // Its parent ends at once.
        let mut command = direct.command(&["--on=10=call:restart"]);
        let words: Vec<_> = command.get_args().map(|word| word.to_owned()).collect();
        let script = r#""$@" & until grep -q " started " "$report"; do sleep 0.05; done"#;
        let mut parent = Command::new("bash");
        parent.args(["-c", script, "parent"]).arg(command.get_program()).args(words);
        parent.env("report", direct.report.path());
        assert!(parent.status().expect("bash").success());
        let daemon = direct.report.wait("started").pid;
        process::signal(daemon, USR1);
        assert_eq!(
            direct.report.wait("called").text,
            "restart error: cannot restart (restart): nobody would start the service again"
        );
        command.args(["--pid-file="]);
        let without = direct.spawn(&mut command);
        let disabled = direct.report.wait_of(without.launcher.pid(), "started").pid;
        process::signal(disabled, USR1);
        assert_eq!(
            direct.report.wait_of(disabled, "called").text,
            "restart error: cannot restart (restart): without a PID file restarts are disabled"
        );
    });
}

// ---- a closed or panicking log ----

fn a_whole_life(direct: &Site, options: &[&str], broken_log: impl Fn(&mut Command)) {
    let spawn = || {
        let mut options = options.to_vec();
        options.extend(["--successor-timeout=none", "--at=request=panic", "--drain-timeout=20s"]);
        let mut command = direct.command(&options);
        broken_log(&mut command);
        let started = direct.spawn(&mut command);
        let daemon = started.wait_started();
        (started, daemon)
    };
    let (mut first, old) = spawn();
    first.launcher.signal(TERM);
    assert!(first.wait_end().success(), "the handoff");
    fs::remove_file(direct.pid_file()).expect("the PID file");
    wait_for("it is put back", LIMIT, || (direct.named() == Some(old.pid())).then_some(()));
    let (mut second, new) = spawn();
    assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
    old.wait_end(LIMIT);
    new.signal(TERM);
    assert!(second.wait_end().success());
    assert_eq!(direct.report.wait_of(new.pid(), "wait").text, "Requested");
}

#[test]
fn p10_a_closed_log_harms_nothing() {
    boxed::run(|folder| {
        a_whole_life(&Site::alone(folder), &[], |command| {
            let (ours, theirs) = UnixStream::pair().expect("a socket pair");
            drop(ours);
            let theirs = std::os::fd::OwnedFd::from(theirs);
            command.stdout(theirs.try_clone().expect("the same")).stderr(theirs);
        });
    });
}

#[test]
fn p10_a_log_that_panics_harms_nothing() {
    boxed::run(|folder| {
        a_whole_life(&Site::alone(folder), &["--log-panics"], |_| {});
    });
}

// ---- disabled ----

#[test]
fn an_empty_path_disables_the_crate() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        for signal in [TERM, INT] {
            // The later option counts.
            let options = [
                "--pid-file=",
                "--exit-code=7",
                "--at=after-init=call:state",
                "--on=10=call:state",
            ];
            let mut started = direct.start(&options);
            let pid = started.launcher.pid();
            let init = direct.report.wait_of(pid, "init");
            assert_eq!(init.number(), u64::from(std::process::id()), "no launcher in between");
            assert_eq!(direct.report.wait_of(pid, "started").number(), 0);
            assert!(process::children(pid).is_empty());
            assert_eq!(process::variable(pid, "SEAMLESS"), None);
            // Nothing to hand over to, so this asks for nothing.
            process::signal(pid, USR2);
            direct.log.wait_words(&["stage=signal", &format!("daemon={pid} signal={USR2}")], 1);
            process::signal(pid, USR1);
            wait_for("two answers", LIMIT, || {
                let called = direct.report.events().into_iter().filter(|event| event.pid == pid);
                let called: Vec<_> = called.filter(|event| event.name == "called").collect();
                (called.len() == 2).then_some(called)
            })
            .iter()
            .for_each(|called| assert_eq!(called.text, "state Serving None"));
            process::signal(pid, signal);
            assert_eq!(started.wait_end().code(), Some(7));
            assert_eq!(direct.report.wait_of(pid, "wait").text, "Requested");
            assert_eq!(direct.report.wait_of(pid, "hook").text, "shutdown");
        }
        assert!(!direct.pid_file().exists() && !direct.lock_file().exists());
    });
}
