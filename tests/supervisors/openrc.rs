//! OpenRC with its supervise-daemon: a restart and a stop look alike to it; a restart is a new
//! supervise-daemon, a reload below the same one is not.

use std::{
    fs,
    path::Path,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed, Isolation},
    clients::{Host, Program},
    http::{self, Connection, Prober, Target, answer_of},
    openrc::OpenRc,
    process::{self, Watched},
    report::Report,
    supervisor::write_script,
    wait_for,
};

/// `examples/service/openrc/web` as it is, with the example `takeover` in it.
pub(crate) struct Web {
    openrc: OpenRc,
    target: Target,
    program: Program,
    stop: Option<Child>,
}

impl Web {
    pub(crate) fn new(folder: &Path) -> Self {
        Self::with(folder, "")
    }

    /// With more settings.
    fn with(folder: &Path, more: &str) -> Self {
        let target = Target::from(boxed::address());
        let program = Program::new(folder.join("web"), &bin::example("takeover"));
        let at = folder.display();
        let settings = format!(
            "WEB_BIN='{}'\nWEB_PID_FILE='{at}/run/web.pid'\nWEB_USER=\nWEB_LOG='{at}/log'\n\
             WEB_ARGS='--listen {target} --startup-delay 200ms'\n{more}\n",
            program.path().display(),
        );
        let script = bin::root().join("examples/service/openrc/web");
        let openrc = OpenRc::install(folder, &script, &settings);
        assert!(openrc.service("start"));
        Web { openrc, target, program, stop: None }
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
        assert!(self.openrc.service("restart"));
    }

    fn stop(&mut self) {
        // Returns when it is down, and the request is answered later.
        self.stop = Some(self.openrc.spawn_service("stop"));
    }

    fn wait_down(&mut self) {
        self.openrc.wait_stopped();
        let stop = self.stop.as_mut().expect("a stop");
        assert!(stop.wait().expect("its end").success());
    }

    fn kill(&mut self) {
        Watched::new(self.openrc.main_pid()).kill();
    }

    /// supervise-daemon may have missed the end of a program that ended at once, and then starts
    /// nothing any more.
    fn start_good(&mut self) {
        let path = self.program.path().display().to_string();
        let runs = |pid| process::command_line(pid).first() == Some(&path);
        let patience = Instant::now() + Duration::from_secs(3);
        while !self.openrc.child().is_some_and(runs) {
            if Instant::now() > patience {
                return self.restart();
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A plain service: nobody tells a detached daemon of a stop, so its own wait decides. KILL, the end of
/// the `--retry` schedule, hits the launcher only.
#[test]
fn p1_p8_the_retry_schedule_and_a_stop_of_a_plain_service() {
    Boxed::new().private_net().needs(Isolation::UserNamespaces).run(|folder| {
        let target = Target::from(boxed::address());
        let (probe, at) = (bin::probe(), folder.display());
        let script = format!(
            "#!/sbin/openrc-run\nsupervisor=supervise-daemon\npidfile=/run/web-supervisor.pid\n\
             command={}\nretry=TERM/1/KILL/1\nerror_log={at}/log\ncommand_args=\"\
             --pid-file={at}/web.pid --report={at}/report --listen={target} \
             --handoff-timeout=1000s --successor-timeout=8s --at=request=hang\"",
            probe.display(),
        );
        write_script(&folder.join("script"), &script);
        let openrc = OpenRc::install(folder, &folder.join("script"), "");
        let report = Report::new(folder.join("report"));
        assert!(openrc.service("start"));
        let old = Watched::new(report.wait("started").pid);
        let prober = Prober::start(&target);
        prober.wait_pid(old.pid());
        let request = Connection::unfinished(&target);
        prober.wait_more(2);

        let launcher = Watched::new(openrc.main_pid());
        assert!(openrc.service("restart"));
        assert!(launcher.has_ended());
        let new = Watched::new(report.wait_nth("started", 2).pid);
        prober.wait_pid(new.pid());
        assert!(request.finish().ends_with(&answer_of(old.pid())));
        old.wait_end(LIMIT);
        assert_eq!(report.wait_of(old.pid(), "wait").text, "TakenOver");

        assert!(openrc.service("stop"));
        openrc.wait_stopped();
        prober.wait_more(5);
        let probes = prober.stop();
        probes.assert_all_answered();
        assert_eq!(probes.pids(), [old.pid(), new.pid()]);
        new.wait_end(LIMIT);
        assert_eq!(report.wait_of(new.pid(), "wait").text, "Stopped");
        assert_eq!(report.named("started").len(), 2);
    });
}

/// Below the same supervise-daemon, more often than its default allows; and no request fails.
#[test]
fn p1_p2_reload_again_and_again() {
    Boxed::new().private_net().needs(Isolation::UserNamespaces).run(|folder| {
        let web = Web::with(folder, "respawn_delay=");
        let mut daemon = http::wait_pid(&web.target);
        let mut launcher = web.openrc.main_pid();
        let prober = Prober::start(&web.target);
        let mut pids = vec![daemon];
        let supervisor = web.openrc.supervisor_pid();
        for _ in 0..12 {
            let old = Watched::new(daemon);
            assert!(web.openrc.service("reload"));
            launcher = web.openrc.main_pid_after(launcher);
            daemon = wait_for("the next generation answers", LIMIT, || {
                http::get(&web.target, "/").ok()?.pid.filter(|pid| !pids.contains(pid))
            });
            pids.push(daemon);
            old.wait_end(LIMIT);
        }
        prober.wait_pid(daemon);
        let probes = prober.stop();
        probes.assert_all_answered();
        assert!(probes.answers.len() >= 50, "{probes:?}");
        assert_eq!(web.openrc.supervisor_pid(), supervisor);
        assert_eq!(
            fs::read_to_string(folder.join("run/web.pid")).expect("it"),
            format!("{daemon}\n")
        );
    });
}
