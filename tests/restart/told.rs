//! What an operator or a developer is told when a program does not do what a restart needs: once, with
//! what to do.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use seamless_testing::{
    LIMIT, bin, boxed,
    process::{self, Watched},
    signal::{INT, TERM, USR1},
    site::{SERVES_ON, Site},
};

/// The lines of this stage that a daemon has logged.
fn count(site: &Site, stage: &str, daemon: &Watched) -> usize {
    let daemon = daemon.pid().to_string();
    site.log.stage(stage).iter().filter(|line| line.is(&[("daemon", &daemon)])).count()
}

#[test]
fn a_forgotten_started_is_told_once() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let go = folder.join("go");
        let mut late =
            direct.start(&["--claim-timeout=200ms", &format!("--at=ready=file:{}", go.display())]);
        let daemon = late.wait_init();
        let line =
            direct.log.wait(&[("stage", "not-started"), ("daemon", &daemon.pid().to_string())]);
        assert!(line.holds(&["WARN", "started() has not been called"]), "{line:?}");
        assert!(line.holds(&["elapsed_ms=2"]), "after 200 ms: {line:?}");
        fs::write(&go, "").expect("a file");
        direct.report.wait_of(daemon.pid(), "started");
        daemon.signal(TERM);
        assert!(late.wait_end().success());
        // One that has started in time is not told, however long it then serves.
        let (_next, next) = direct.start_ready(&[
            "--claim-timeout=200ms",
            "--drain-timeout=400ms",
            "--at=shutdown=hang",
        ]);
        next.signal(TERM);
        next.wait_end(LIMIT);
        assert_eq!(count(&direct, "not-started", &daemon), 1, "{}", direct.log);
        assert_eq!(count(&direct, "not-started", &next), 0, "{}", direct.log);
    });
}

/// After half of its limit, once, with what it waits for: a hook, a guard, or `main`.
#[test]
fn a_drain_that_lasts_is_told_once() {
    boxed::run(|folder| {
        let go = folder.join("go");
        let until_go =
            |point: &str, action: &str| format!("--at={point}={action}:{}", go.display());
        for (option, waits_for, guards) in [
            (until_go("shutdown", "file"), "the on_shutdown hooks", 0),
            (until_go("started", "guard"), "DrainGuards to be dropped", 1),
            (until_go("drained", "file"), "main to return", 0),
        ] {
            let direct = Site::alone(&folder.join(waits_for));
            fs::create_dir_all(direct.folder()).expect("a folder");
            _ = fs::remove_file(&go);
            let (mut started, daemon) = direct.start_ready(&["--drain-timeout=3s", &option]);
            daemon.signal(TERM);
            let own = daemon.pid().to_string();
            let line = direct.log.wait(&[("stage", "drain-lasts"), ("daemon", &own)]);
            assert!(line.is(&[("waits_for", waits_for), ("limit_ms", "3000.0")]), "{line:?}");
            assert_eq!(line.number("guards"), guards, "{line:?}");
            let elapsed: f64 = line.field("elapsed_ms").expect("a time").parse().expect("a number");
            assert!(line.holds(&["WARN"]) && (1500.0..3000.0).contains(&elapsed), "{line:?}");
            fs::write(&go, "").expect("a file");
            assert!(started.wait_end().success());
            assert_eq!(count(&direct, "drain-lasts", &daemon), 1, "{}", direct.log);
        }
    });
}

#[test]
fn older_generations_that_pile_up_are_counted_at_each_start() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let go = folder.join("go");
        let long = format!("--at=started=guard:{}", go.display());
        let mut generations: Vec<Watched> = Vec::new();
        for nth in 1..=6 {
            let (mut started, next) = direct.start_ready(&[&long, SERVES_ON]);
            if let Some(before) = generations.last() {
                direct.wait_drain_logged(before.pid());
            }
            let piled = count(&direct, "generations", &next);
            assert_eq!(piled, usize::from(nth > 4), "generation {nth}: {}", direct.log);
            started.detach();
            generations.push(next);
        }
        let counted = direct.log.stage("generations");
        let older: Vec<u32> = counted.iter().map(|line| line.number("older")).collect();
        assert_eq!(older, [4, 5]);
        assert!(counted.iter().all(|line| line.holds(&["WARN", "oldest_ms="])), "{counted:?}");
        fs::write(&go, "").expect("a file");
        generations.last().expect("six").signal(TERM);
        generations.iter().for_each(|daemon| daemon.wait_end(LIMIT));
    });
}

#[test]
fn a_ctrl_c_is_logged_as_what_it_is_and_the_end_as_an_end() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut started, daemon) = direct.start_ready(&[]);
        started.launcher.signal(INT);
        assert!(started.wait_end().success());
        let own = daemon.pid().to_string();
        direct.log.wait(&[("stage", "drain"), ("daemon", &own), ("cause", "INT")]);
        // The launcher has seen the daemon's end. The daemon does not call the beginning of it an end.
        let ends = direct.log.stage("end");
        let launcher = started.launcher.pid().to_string();
        assert_eq!(ends.len(), 1, "{}", direct.log);
        assert!(ends[0].is(&[("launcher", &launcher), ("daemon", &own), ("exit_code", "0")]));
    });
}

/// The parent is no supervisor that is known: the launcher says why its daemon lives on.
#[test]
fn a_release_to_an_unknown_parent_says_what_happens_next() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut started, daemon) = direct.start_ready(&["--successor-timeout=200ms"]);
        started.detach();
        let launcher = started.launcher.pid().to_string();
        let told = [("stage", "release"), ("launcher", &*launcher)];
        let lines = direct.log.lines().into_iter().filter(|line| line.is(&told));
        let why: Vec<_> = lines.filter(|line| line.holds(&["until successor_timeout"])).collect();
        assert_eq!(why.len(), 1, "{}", direct.log);
        let own = fs::read_to_string("/proc/self/comm").expect("our name");
        assert!(why[0].is(&[("parent_name", own.trim())]), "{why:?}");
        daemon.wait_end(LIMIT);
    });
}

/// A shell at a terminal starts nothing again. An operator who is about to start the program himself can
/// still ask for a handoff, by TERM or USR2.
#[test]
fn p10_a_restart_below_a_shell_at_a_terminal_is_an_error() {
    boxed::run(|folder| {
        for shell in ["bash --norc --noprofile -i", "sh -i"] {
            let direct = Site::alone(folder);
            let nth = direct.report.named("started").len() + 1;
            let command = direct.command(&["--on=10=call:restart", "--successor-timeout=200ms"]);
            let words = command.get_args().map(|word| format!("'{}'", word.display()));
            let words: Vec<String> = words.collect();
            let probe = format!("'{}' {}", bin::probe().display(), words.join(" "));
            let line = format!("{probe} 2>>'{}'\nexit\n", direct.log.path().display());
            let mut terminal = Command::new("script");
            terminal.args(["-qec", shell, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::null());
            let mut terminal = terminal.spawn().expect("script; run scripts/setup");
            let mut keyboard = terminal.stdin.take().expect("a pipe");
            keyboard.write_all(line.as_bytes()).expect("a terminal");
            let daemon = direct.daemon(nth);
            let launcher = process::stat(daemon.pid()).expect("the daemon").ppid;
            daemon.signal(USR1);
            assert_eq!(
                direct.report.wait_of(daemon.pid(), "called").text,
                "restart error: cannot restart (restart): a shell at a terminal started the service, \
                 and does not start it again"
            );
            process::signal(launcher, TERM);
            let name = shell.split(' ').next().expect("a name");
            let launcher = launcher.to_string();
            direct.log.wait(&[
                ("stage", "release"),
                ("launcher", &launcher),
                ("parent_name", name),
            ]);
            daemon.wait_end(LIMIT);
            drop(keyboard);
            terminal.wait().expect("its end");
        }
    });
}
