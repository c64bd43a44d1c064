//! supervisord: a restart and a stop look alike to it, it reads what its child prints no longer than its
//! child lives, and by default it starts nothing after exit code 0.

use std::{fs, path::Path, process::Child};

use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed},
    clients::{Host, Program},
    http::{Connection, Prober, Target, answer_of},
    process::Watched,
    scene,
    signal::{KILL, TERM, USR2},
    site::Site,
    supervisor::copy_folder,
    supervisord::Supervisord,
    wait_for,
};

// ---- the sample, as a client sees it ----

/// `examples/service/supervisord` as it is, with the example `takeover` in it.
pub(crate) struct Web {
    supervisord: Supervisord,
    target: Target,
    program: Program,
    stop: Option<Child>,
}

impl Web {
    pub(crate) fn new(folder: &Path) -> Self {
        let target = Target::from(boxed::address());
        let program = Program::new(folder.join("web"), &bin::example("takeover"));
        let service = folder.join("service");
        copy_folder(&bin::root().join("examples/service/supervisord/web"), &service);
        let at = folder.display();
        let env = format!(
            "WEB_BIN='{}'\nWEB_PID_FILE='{at}/run/web.pid'\nWEB_USER=\nWEB_LOG='{at}/log'\n\
             WEB_ARGS='--listen {target} --startup-delay 200ms'\n",
            program.path().display(),
        );
        fs::write(service.join("env"), env).expect("its settings");
        let conf = service.join("web.conf");
        let supervisord = Supervisord::start(&folder.join("supervisord"), &conf);
        supervisord.main_pid();
        Web { supervisord, target, program, stop: None }
    }
}

impl Host for Web {
    fn target(&self) -> &Target {
        &self.target
    }

    fn program(&self) -> &Program {
        &self.program
    }

    fn restart(&mut self) {
        assert!(self.supervisord.control(&["signal", "TERM", "web"]));
    }

    fn stop(&mut self) {
        // Returns when it is down, and the request is answered later.
        self.stop = Some(self.supervisord.spawn_control(&["stop", "web"]));
    }

    fn wait_down(&mut self) {
        self.supervisord.wait_state("STOPPED");
        let stop = self.stop.as_mut().expect("a stop");
        assert!(stop.wait().expect("its end").success());
    }

    fn kill(&mut self) {
        assert!(self.supervisord.control(&["signal", "KILL", "web"]));
    }
}

// ---- the probe, with settings of its own ----

const BEFORE_RELEASE: &str = "supervisord closes it when the launcher has ended: what is written there is lost from \
                              now on";
const GONE: &str = "its reader is gone: what is written there is lost from now on";

struct Scene {
    supervisord: Supervisord,
    site: Site,
}

impl Scene {
    /// Logs to a file, and prints to supervisord without end. `settings` follow those of the program.
    fn new(folder: &Path, options: &str, settings: &str) -> Self {
        let site = Site::at(folder).alone();
        let (probe, at) = (bin::probe(), folder.display());
        let program = format!(
            "[program:web]\ncommand={} --pid-file={at}/web.pid --report={at}/report \
             --log-file={at}/log --keep-log --chatter --listen={} {options}\n{settings}\n",
            probe.display(),
            site.target,
        );
        let conf = folder.join("web.conf");
        fs::write(&conf, program).expect("its settings");
        Scene { supervisord: Supervisord::start(&folder.join("supervisord"), &conf), site }
    }

    /// What `--chatter` could not print.
    fn failed_prints(&self) -> Vec<String> {
        let called = self.site.report.named("called").into_iter();
        let errors = called.filter(|event| event.text.starts_with("print error"));
        errors.map(|event| event.text).collect()
    }
}

/// `restart` says STOPPING, as `stop` does: the old generation serves until the new one is ready, and
/// after a stop until `successor_timeout`. And whoever prints all the while has no failure.
#[test]
fn p1_p3_with_the_default_settings() {
    Boxed::new().private_net().run(|folder| {
        let scene = Scene::new(folder, "--successor-timeout=3s", "");
        let old = scene.site.daemon(1);
        let prober = Prober::start(&scene.site.target);
        prober.wait_pid(old.pid());
        let request = Connection::unfinished(&scene.site.target);
        prober.wait_more(2);
        scene.supervisord.main_pid();
        assert!(scene.supervisord.control(&["restart", "web"]));
        let new = scene.site.daemon(2);
        prober.wait_pid(new.pid());
        scene.site.wait_drain(old.pid());
        prober.wait_more(10);
        assert!(request.finish().ends_with(&answer_of(old.pid())));
        old.wait_end(LIMIT);
        assert_eq!(scene.site.report.wait_of(old.pid(), "wait").text, "TakenOver");
        prober.seen().assert_all_answered();

        // Down, says supervisord, while the daemon waits for a successor.
        let launcher = Watched::new(scene.supervisord.main_pid());
        assert!(scene.supervisord.control(&["stop", "web"]));
        assert!(launcher.has_ended());
        assert_eq!(scene.supervisord.info().state, "STOPPED");
        scene.site.wait_drain(new.pid());
        let probes = prober.stop();
        assert_eq!(probes.pids(), [old.pid(), new.pid()]);
        assert!(probes.answers.len() >= 20, "{probes:?}");
        new.wait_end(LIMIT);
        assert_eq!(scene.site.report.wait_of(new.pid(), "wait").text, "Stopped");
        assert_eq!(scene.failed_prints(), [""; 0]);
        for daemon in [&old, &new] {
            for fd in ["1", "2"] {
                let daemon = daemon.pid().to_string();
                let before = ("reason", BEFORE_RELEASE); // not afterwards, when a line may have failed
                scene.site.log.wait(&[
                    ("stage", "output"),
                    ("daemon", &daemon),
                    ("fd", fd),
                    before,
                ]);
            }
        }
    });
}

/// Where the launcher is killed, nothing can be done beforehand: what is printed before the loss is
/// noticed fails, and nothing after that. Without the replacement every line would.
#[test]
fn a_closed_output_is_replaced() {
    Boxed::new().private_net().run(|folder| {
        scene::each(folder, ["--keep-output", ""], |folder, option| {
            let options = format!("--successor-timeout=none {option}");
            let scene = Scene::new(folder, &options, "autorestart=false");
            let daemon = scene.site.daemon(1);
            let id = daemon.pid().to_string();
            scene.site.report.wait_of(daemon.pid(), "called");
            Watched::new(scene.supervisord.main_pid()).signal(KILL);
            scene.supervisord.wait_state("EXITED");
            if option == "--keep-output" {
                wait_for("a line cannot be printed", LIMIT, || {
                    (scene.failed_prints() == ["print error: Broken pipe (os error 32)"])
                        .then_some(())
                });
                let lines = scene.site.log.stage("output");
                assert!(lines.is_empty(), "{lines:?}");
            } else {
                for fd in ["1", "2"] {
                    let gone = ("reason", GONE);
                    let line = [("stage", "output"), ("daemon", &id), ("fd", fd), gone];
                    scene.site.log.wait(&line);
                    let path = format!("/proc/{id}/fd/{fd}");
                    assert_eq!(fs::read_link(path).expect("it"), Path::new("/dev/null"));
                }
            }
            assert!(!daemon.has_ended());
            daemon.signal(TERM);
            daemon.wait_end(LIMIT);
        });
    });
}

/// By default supervisord starts a program again only after a code that it does not expect.
#[test]
fn p1_a_restart_from_within_by_release_code() {
    Boxed::new().private_net().run(|folder| {
        scene::each(folder, [0, 75], |folder, code| {
            let options = format!("--release-code={code} --successor-timeout=none");
            let scene = Scene::new(folder, &options, "");
            let old = scene.site.daemon(1);
            // Else its end would count as a failure to start.
            scene.supervisord.wait_state("RUNNING");
            let launcher = Watched::new(scene.supervisord.main_pid());
            old.signal(USR2);
            launcher.wait_end(LIMIT);
            let warns = || {
                let lines = scene.site.log.stage("release");
                lines.iter().any(|line| line.is(&[("exit_code", "0")]))
            };
            if code == 0 {
                scene.supervisord.wait_state("EXITED");
                assert!(warns(), "{}", scene.site.log);
                assert!(!old.has_ended());
                // An operator does it.
                assert!(scene.supervisord.control(&["start", "web"]));
            }
            let new = scene.site.daemon(2);
            old.wait_end(LIMIT);
            assert_eq!(scene.site.report.wait_of(old.pid(), "wait").text, "TakenOver");
            assert_eq!(warns(), code == 0, "{}", scene.site.log);
            assert!(!new.has_ended());
        });
    });
}

/// KILL after `stopwaitsecs`, also to the group: it hits the launcher, and the daemon serves on.
#[test]
fn p1_p8_stopwaitsecs_and_killasgroup_hit_the_launcher_only() {
    Boxed::new().private_net().run(|folder| {
        let options = "--handoff-timeout=1000s --successor-timeout=none --at=request=hang";
        let settings = "stopwaitsecs=1\nstopasgroup=true\nkillasgroup=true";
        let scene = Scene::new(folder, options, settings);
        let old = scene.site.daemon(1);
        let launcher = Watched::new(scene.supervisord.main_pid());
        let prober = Prober::start(&scene.site.target);
        prober.wait_pid(old.pid());
        assert!(scene.supervisord.control(&["stop", "web"]));
        assert!(launcher.has_ended());
        prober.wait_more(10);
        assert!(!old.has_ended());
        assert!(scene.supervisord.control(&["start", "web"]));
        let new = scene.site.daemon(2);
        prober.wait_pid(new.pid());
        old.wait_end(LIMIT);
        assert_eq!(scene.site.report.wait_of(old.pid(), "wait").text, "TakenOver");
        let probes = prober.stop();
        probes.assert_all_answered();
        assert_eq!(probes.pids(), [old.pid(), new.pid()]);
    });
}
