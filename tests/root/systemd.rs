//! A service of a real systemd: what each of its commands does, and what a unit's settings make of
//! it.

mod bus;
mod clients;
mod hardened;
mod kill_signal;
mod samples;
mod store;
mod watchdog;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use seamless_testing::{
    bin,
    boxed::{self, Boxed},
    clients::Program,
    http::{self, Connection, Prober, Target},
    log::Log,
    process::{self, NOBODY, Watched},
    report::{self, Report},
    signal::KILL,
    supervisor::write_script,
    systemd::{self, Systemd},
    wait_for,
};

use crate::LIMIT;

fn run(test: impl FnOnce(&Systemd, &Path)) {
    systemd::run(Boxed::new().private_net_without_migration(), test);
}

/// A service with its files in a folder of its own.
struct Web<'a> {
    systemd: &'a Systemd,
    unit: String,
    folder: PathBuf,
    target: Target,
    report: Report,
    log: Log,
}

impl<'a> Web<'a> {
    fn new(systemd: &'a Systemd, folder: &Path, name: &str) -> Self {
        let folder = folder.join(name);
        fs::create_dir(&folder).expect("a folder");
        let report = Report::new(folder.join("report"));
        let (target, log) = (Target::from(boxed::address()), Log::of(&folder));
        Web { systemd, unit: format!("{name}.service"), folder, target, report, log }
    }

    /// Writes the unit of a probe with these options. What is set here goes before what stands in
    /// every unit.
    fn deploy(&self, settings: &str, options: &str) {
        let (folder, target) = (self.folder.display(), &self.target);
        self.write(settings, &format!("--report={folder}/report --tcp={target} {options}"));
    }

    fn write(&self, settings: &str, options: &str) {
        let (probe, folder) = (bin::probe(), self.folder.display());
        self.systemd.unit(
            &self.unit,
            &format!(
                "[Unit]\nDefaultDependencies=no\nStartLimitIntervalSec=0\n[Service]\n\
                 Type=notify\nKillMode=process\nRestart=always\nRestartSec=0\n\
                 Environment=RUST_LOG=debug\nTimeoutStartSec=100s\n\
                 StandardOutput=append:{folder}/log\nStandardError=append:{folder}/log\n\
                 ExecStart={} --pid-file={folder}/web.pid {options}\n{settings}",
                probe.display(),
            ),
        );
    }

    #[track_caller]
    fn control(&self, command: &[&str]) {
        self.systemd.control(&[command, &[&self.unit]].concat());
    }

    fn show(&self, property: &str) -> String {
        self.systemd.show(&self.unit, property)
    }

    #[track_caller]
    fn wait_show(&self, property: &str, value: &str) {
        self.systemd.wait_show(&self.unit, property, value);
    }

    fn launcher(&self) -> u32 {
        self.systemd.main_pid(&self.unit)
    }

    /// The daemon that starts as the `nth` of all.
    #[track_caller]
    fn started(&self, nth: usize) -> u32 {
        self.report.wait_nth("started", nth).pid
    }

    /// A restart of the first generation, with no request that fails. The second one.
    #[track_caller]
    fn restart_unseen(&self, first: u32) -> u32 {
        let prober = Prober::start(&self.target);
        prober.wait_pid(first);
        self.control(&["restart"]);
        let second = self.started(2);
        prober.wait_pid(second);
        prober.stop().assert_all_answered();
        // Until then, both may answer.
        self.report.wait_of(first, "wait");
        second
    }

    /// Waits until the daemon has looked at its unit, which is the last thing of its start.
    #[track_caller]
    fn wait_looked(&self, daemon: u32) {
        self.log.wait_words(&["stage=systemd", &format!("daemon={daemon} "), "stored="], 1);
    }

    #[track_caller]
    fn wait_nothing_left(&self) {
        let option = format!("--pid-file={}/web.pid", self.folder.display());
        wait_for("nothing of the service is left", LIMIT, || {
            let mut all = process::all().into_iter();
            let is_ours = |pid| process::command_line(pid).contains(&option);
            (!all.any(|stat| is_ours(stat.pid))).then_some(())
        });
    }
}

/// What a failed test has to tell.
impl Drop for Web<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}:\n{}{}", self.unit, self.report, self.log.text());
            eprintln!("{}", self.show("ActiveState,SubState,Result,StatusText,MainPID,NRestarts"));
        }
    }
}

/// `systemctl restart` returns when the new generation serves, and costs nothing; `stop` returns
/// when every generation is gone.
#[test]
fn p1_p2_p6_systemctl_restart_and_stop() {
    run(|systemd, folder| {
        let web = Web::new(systemd, folder, "web");
        let gate = folder.join("gate");
        web.deploy("", &format!("--at=ready=file:{}", gate.display()));
        web.control(&["start", "--no-block"]);
        web.report.wait("init");
        // The gate keeps it from being ready, for as long as it takes to look twice.
        assert_eq!(web.show("ActiveState"), "activating");
        assert_eq!(web.show("ActiveState"), "activating");
        fs::write(&gate, "").expect("the gate");
        web.wait_show("ActiveState", "active");
        let mut pids = vec![web.started(1)];
        let prober = Prober::start(&web.target);
        prober.wait_pid(pids[0]);
        for turn in 1..=3 {
            let launcher = Watched::new(web.launcher());
            web.control(&["restart"]);
            // It has been told that the new one serves: no later than that, the old launcher is gone.
            assert!(launcher.has_ended());
            let new = web.started(turn + 1);
            assert_eq!(process::stat(new).expect("it serves").ppid, web.launcher());
            assert_eq!(web.show("StatusText"), format!("serving: daemon {new}"));
            prober.wait_pid(new);
            let old = Watched::new(pids[turn - 1]);
            old.wait_end(LIMIT);
            assert_eq!(web.report.wait_of(old.pid(), "wait").text, "TakenOver");
            pids.push(new);
        }
        assert_eq!(web.log.with(&["stage=intent", "intent=restart"]).len(), 3);
        assert_eq!((web.show("ActiveState"), web.show("NRestarts")), ("active".into(), "0".into()));
        let probes = prober.stop();
        probes.assert_all_answered();
        assert_eq!(probes.pids(), pids);
        assert!(probes.requests() >= 10);
        web.control(&["stop"]);
        assert_eq!(
            (web.show("ActiveState"), web.show("Result")),
            ("inactive".into(), "success".into())
        );
        web.wait_nothing_left();
        assert_eq!(web.log.with(&["stage=intent", "intent=stop"]).len(), 1);
        assert_eq!(web.report.wait_of(pids[3], "wait").text, "Stopped");
    });
}

/// A drain may take longer than `TimeoutStopSec=`.
#[test]
fn p3_p6_a_stop_waits_for_what_is_in_flight() {
    run(|systemd, folder| {
        let web = Web::new(systemd, folder, "web");
        web.deploy("TimeoutStopSec=1s", "--drain-timeout=100s");
        web.control(&["start"]);
        let (launcher, daemon) = (Watched::new(web.launcher()), web.started(1));
        let request = Connection::unfinished(&web.target);
        // What comes behind it in the same queue has been answered: it is accepted.
        assert_eq!(http::pid(&web.target), daemon);
        web.control(&["stop", "--no-block"]);
        web.wait_show(
            "StatusText",
            &format!("stopping: daemon {daemon} answers what is in flight"),
        );
        // Twice the limit.
        assert!(!launcher.ends_within(std::time::Duration::from_secs(2)));
        assert_eq!(web.show("SubState"), "stop-sigterm");
        let answer = request.try_finish().expect("an answer");
        assert_eq!(answer.pid, Some(daemon));
        web.wait_show("ActiveState", "inactive");
        assert_eq!(web.show("Result"), "success");
        web.wait_nothing_left();
    });
}

/// `systemctl kill`, and what happens to one process: what systemd makes of it.
#[test]
fn p1_p6_p8_signals_by_hand() {
    run(|systemd, folder| {
        let web = Web::new(systemd, folder, "web");
        web.deploy("", "");
        web.control(&["start"]);
        let mut old = web.started(1);
        let mut nth = 1;
        let prober = Prober::start(&web.target);
        for (signal, intent) in [("TERM", "intent=restart"), ("KILL", "")] {
            prober.wait_pid(old);
            let before = web.log.with(&["stage=intent", intent]).len();
            web.control(&["kill", "--kill-who=main", "--signal", signal]);
            nth += 1;
            let new = web.started(nth);
            Watched::new(old).wait_end(LIMIT);
            assert_eq!(web.report.wait_of(old, "wait").text, "TakenOver");
            assert_eq!(web.show("NRestarts"), (nth - 1).to_string());
            if !intent.is_empty() {
                assert_eq!(web.log.with(&["stage=intent", intent]).len(), before + 1);
            }
            old = new;
        }
        prober.wait_pid(old);
        prober.stop().assert_all_answered();
        // A crash is seen as it is, and followed by a start.
        process::signal(old, KILL);
        nth += 1;
        let new = web.started(nth);
        assert_eq!(http::wait_pid(&web.target), new);
        assert_eq!(web.show("NRestarts"), (nth - 1).to_string());
        // Where `Restart=` would not start it again, a TERM is a stop.
        web.deploy("Restart=on-failure", "");
        web.control(&["kill", "--kill-who=main"]);
        web.wait_show("ActiveState", "inactive");
        web.wait_nothing_left();
        assert_eq!(web.report.wait_of(new, "wait").text, "Stopped");
    });
}

/// A deploy that fails costs nothing, however systemd gives up; the next good one takes over.
#[test]
fn p1_p6_bad_deploys() {
    run(|systemd, folder| {
        let web = Web::new(systemd, folder, "web");
        web.deploy("", "");
        web.control(&["start"]);
        let first = web.started(1);
        let prober = Prober::start(&web.target);
        prober.wait_pid(first);
        // It gives up: the unit has failed, and the old generation is all there is.
        web.deploy(
            "[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=3",
            "--at=before-init=exit:3",
        );
        assert!(!systemd.command(&["restart", &web.unit]).output().expect("it").status.success());
        web.wait_show("ActiveState", "failed");
        assert_eq!(web.show("Result"), "exit-code");
        let checks = format!("daemon={first} finding=Seen");
        web.log.wait_words(&["stage=check", &checks, "supervisor=Up"], 2);
        prober.wait_more(5);
        web.deploy("", "");
        web.control(&["start"]);
        let second = web.started(2);
        prober.wait_pid(second);
        Watched::new(first).wait_end(LIMIT);
        // It is told to stop while no launcher runs: between two attempts.
        web.deploy("RestartSec=1h", "--at=before-init=exit:3");
        assert!(!systemd.command(&["restart", &web.unit]).output().expect("it").status.success());
        web.wait_show("SubState", "auto-restart");
        let checks = format!("daemon={second} finding=Seen");
        web.log.wait_words(&["stage=check", &checks, "supervisor=Up"], 1);
        prober.wait_more(5);
        let probes = prober.stop();
        probes.assert_all_answered();
        assert_eq!(probes.pids(), [first, second]);
        web.control(&["stop"]);
        web.wait_nothing_left();
        assert_eq!(web.report.wait_of(second, "wait").text, "Stopped");
    });
}

/// Where a unit runs in what looks like the folder of a service of daemontools, it is systemd that
/// supervises it: PID 1 has not adopted it.
#[test]
fn p1_p6_in_the_folder_of_another_supervisor() {
    run(|systemd, folder| {
        let web = Web::new(systemd, folder, "web");
        fs::create_dir(web.folder.join("supervise")).expect("a folder");
        fs::write(web.folder.join("run"), "").expect("a file");
        web.deploy(&format!("WorkingDirectory={}", web.folder.display()), "");
        web.control(&["start"]);
        web.restart_unseen(web.started(1));
        web.log.wait_words(&["stage=launch", "supervisor=1 supervisor_kind=systemd"], 2);
        web.control(&["stop"]);
        web.wait_nothing_left();
    });
}

/// The sample, with the program `seamless` and the PID file of a test.
fn reload_by_command(sample: &str, folder: &Path) -> String {
    let seamless = bin::support("seamless").display().to_string();
    let changed = sample.replace("=seamless ", &format!("={seamless} "));
    let changed = changed.replace("/run/%N", &folder.display().to_string());
    assert!(changed.contains(&format!("ExecReload={seamless} restart {}", folder.display())));
    changed
}

/// `systemctl reload` restarts in place: the main process stays, whatever comes of it.
#[test]
fn p1_p2_systemctl_reload() {
    run(|systemd, folder| {
        let web = Web::new(systemd, folder, "web");
        let program = Program::new(web.folder.join("program"), &bin::probe());
        let sample = bin::root().join("examples/service/systemd/web.service.d/reload.conf");
        let sample =
            reload_by_command(&fs::read_to_string(sample).expect("the sample"), &web.folder);
        let start = format!(
            "ExecStart=\nExecStart={} --pid-file={folder}/web.pid --report={folder}/report \
             --tcp={} --reload-signal=1",
            program.path().display(),
            web.target,
            folder = web.folder.display(),
        );
        web.write(&format!("{start}\n{sample}"), "");
        web.control(&["start"]);
        let launcher = web.launcher();
        let mut pids = vec![web.started(1)];
        let prober = Prober::start(&web.target);
        prober.wait_pid(pids[0]);
        for nth in 2..=3 {
            program.deploy_bad();
            let reload = systemd.command(&["reload", &web.unit]).output().expect("systemctl");
            assert!(!reload.status.success(), "a reload into a bad program is reported");
            let failed = format!("serving: daemon {}; the last reload failed", pids[nth - 2]);
            web.wait_show("StatusText", &failed);
            web.wait_show("ActiveState", "active");
            program.deploy_good();
            web.control(&["reload"]);
            pids.push(web.started(nth));
            web.wait_show("StatusText", &format!("serving: daemon {}", pids[nth - 1]));
            web.wait_show("ActiveState", "active");
            prober.wait_pid(pids[nth - 1]);
            assert_eq!((web.launcher(), web.show("NRestarts")), (launcher, "0".into()));
        }
        assert_eq!(web.log.with(&["stage=systemd", "setting="]).len(), 0);
        web.control(&["restart"]);
        pids.push(web.started(4));
        assert_ne!(web.launcher(), launcher);
        prober.wait_pid(pids[3]);
        let probes = prober.stop();
        probes.assert_all_answered();
        assert_eq!(probes.pids(), pids);
        web.control(&["stop"]);
        web.wait_nothing_left();
    });
}

/// Each setting that would cost connections is named in the log, and a good unit has no such line.
#[test]
fn settings_that_would_cost_connections_are_named() {
    run(|systemd, folder| {
        let cases = [
            ("", ""),
            ("KillMode=mixed", "KillMode=mixed"),
            ("KillMode=control-group", "KillMode=control-group"),
            ("KillMode=none", "KillMode=none"),
            ("Type=simple\nNotifyAccess=none\nRemainAfterExit=yes", "RemainAfterExit=yes"),
            ("Restart=no", "Restart=no"),
            ("KillSignal=SIGINT", "KillSignal=2"),
            ("SendSIGHUP=yes", "SendSIGHUP=yes"),
            ("[Unit]\nStartLimitIntervalSec=1h", "StartLimitBurst=5"),
            ("RuntimeDirectory=DIR", "RuntimeDirectoryPreserve=no"),
            ("TimeoutStopSec=infinity", "TimeoutStopSec=infinity"),
            ("ProcSubset=pid", "ProcSubset=pid"),
            ("MemoryMax=1G", "OOMPolicy=stop"),
            ("MemoryMax=1G\nOOMPolicy=continue", ""),
        ];
        let services = cases.iter().enumerate().map(|(at, (setting, named))| {
            let name = format!("web-{at}");
            let web = Web::new(systemd, folder, &name);
            web.deploy(&setting.replace("DIR", &name), "");
            web.control(&["start", "--no-block"]);
            (web, *named)
        });
        let services: Vec<(Web<'_>, &str)> = services.collect();
        for (web, named) in services {
            let daemon = web.started(1);
            web.wait_looked(daemon);
            let all = web.log.with(&["stage=systemd", "setting="]).len();
            assert_eq!(all, usize::from(!named.is_empty()), "{named}");
            if !named.is_empty() {
                let words = ["WARN", "stage=systemd", &web.unit, &format!("setting=\"{named}\"")];
                assert_eq!(web.log.with(&words).len(), 1, "{named}");
            }
        }
    });
}

/// A `systemctl` that a service finds first, and the line of its unit that makes it so.
fn systemctl_of_ours(folder: &Path, script: &str) -> (PathBuf, String) {
    let programs = folder.join("bin");
    fs::create_dir(&programs).expect("a folder");
    let systemctl = programs.join("systemctl");
    write_script(&systemctl, script);
    (systemctl, format!("Environment=PATH={}:/usr/bin:/bin", programs.display()))
}

/// While a machine starts, systemd takes its time. Nothing waits for the look at the unit's settings.
#[test]
fn settings_are_named_by_a_systemd_that_answers_late() {
    run(|systemd, folder| {
        let late = "sleep 2\nPATH=/usr/bin:/bin exec systemctl \"$@\"";
        let (_, path) = systemctl_of_ours(folder, late);
        let web = Web::new(systemd, folder, "web");
        web.deploy(&format!("{path}\nKillMode=mixed"), "");
        web.control(&["start"]);
        web.wait_looked(web.started(1));
        assert_eq!(web.log.with(&["WARN", "stage=systemd", "setting=\"KillMode=mixed\""]).len(), 1);
    });
}

/// A question costs one `systemctl`: whoever watches asks often.
#[test]
fn a_status_asks_systemd_once() {
    run(|systemd, folder| {
        let count = "echo >>\"$0.count\"\nPATH=/usr/bin:/bin exec systemctl \"$@\"";
        let (systemctl, path) = systemctl_of_ours(folder, count);
        let web = Web::new(systemd, folder, "web");
        web.deploy(&path, "");
        web.control(&["start"]);
        web.wait_looked(web.started(1));
        let count = || fs::read(systemctl.with_extension("count")).expect("their number").len();
        let before = count();
        for _ in 0..5 {
            let mut status = Command::new(bin::support("seamless"));
            let status = status.arg("status").arg(web.folder.join("web.pid")).output();
            let said = String::from_utf8(status.expect("seamless").stdout).expect("text");
            assert!(said.contains("wants it up"), "{said}");
        }
        assert_eq!(count() - before, 5);
        web.control(&["stop"]);
        web.wait_nothing_left();
    });
}

/// Where systemd cannot be asked, a service restarts as seamlessly; only a stop is understood late:
/// a service that gave up root before its launcher started has no way to it here, and another one is
/// kept waiting for an answer.
#[test]
fn p1_p6_a_systemd_that_cannot_be_asked() {
    run(|systemd, folder| {
        // A launcher asks for the job first. What a daemon asks in passing may outlive it.
        let asked = "case $* in *Job,*) echo $$ >>\"$0.pids\" ;; esac\nexec sleep 1000";
        let (systemctl, slow) = systemctl_of_ours(folder, asked);
        let cases = [("web-0", "User=nobody".to_owned()), ("web-1", slow)];
        thread::scope(|scope| {
            for (name, setting) in cases {
                let web = Web::new(systemd, folder, name);
                report::for_all_users(&web.folder);
                fs::set_permissions(&web.folder, fs::Permissions::from_mode(0o777)).expect("it");
                web.deploy(&setting, "--successor-timeout=8s");
                scope.spawn(move || {
                    web.control(&["start"]);
                    let second = web.restart_unseen(web.started(1));
                    assert_eq!(web.log.with(&["stage=intent", "intent=unknown"]).len(), 1);
                    web.control(&["stop"]);
                    web.wait_nothing_left();
                    assert_eq!(web.report.wait_of(second, "wait").text, "Stopped");
                });
            }
        });
        let pids = fs::read_to_string(systemctl.with_extension("pids")).expect("their PIDs");
        assert!(pids.lines().count() >= 2);
        for pid in pids.lines() {
            assert_eq!(process::stat(pid.parse().expect("a PID")), None, "a systemctl is left");
        }
    });
}

/// systemd KILLs the launcher behind a script without `exec` at once: it waits for no process that is not
/// its child. Where it listens to whom the main process is, no request is lost, and the daemon finds out
/// about a stop by itself.
#[test]
fn p1_p2_p8_a_script_without_exec() {
    run(|systemd, folder| {
        let web = Web::new(systemd, folder, "web");
        let (probe, folder) = (bin::probe(), web.folder.display());
        let probe = probe.display();
        web.write(
            &format!(
                "NotifyAccess=all\nExecStart=\nExecStart=/bin/sh -c \"{probe} \
                 --pid-file={folder}/web.pid --report={folder}/report --tcp={}; exit 0\"",
                web.target
            ),
            "",
        );
        web.control(&["start"]);
        let mut pids = vec![web.started(1)];
        let prober = Prober::start(&web.target);
        prober.wait_pid(pids[0]);
        web.control(&["restart"]);
        pids.push(web.started(2));
        prober.wait_pid(pids[1]);
        assert_eq!(process::stat(pids[1]).expect("it serves").ppid, web.launcher());
        let probes = prober.stop();
        probes.assert_all_answered();
        assert_eq!(probes.pids(), pids);
        web.control(&["stop"]);
        web.wait_nothing_left();
        assert_eq!(web.report.wait_of(pids[1], "wait").text, "Stopped");
        // It has not waited for successor_timeout.
        let checks = format!("daemon={} finding=Seen", pids[1]);
        assert_eq!(web.log.with(&["stage=check", &checks, "supervisor: Lost"]).len(), 0);
    });
}

/// Under the manager of a user without rights, which answers that user.
#[test]
fn p1_p2_p6_a_user_manager() {
    systemd::run_user(Boxed::new().private_net_without_migration(), |systemd, folder| {
        let web = Web::new(systemd, folder, "web");
        chown(&web.folder, Some(NOBODY), Some(NOBODY)).expect("chown");
        web.deploy("FileDescriptorStoreMax=4", "");
        web.control(&["start"]);
        let mut pids = vec![web.started(1)];
        let prober = Prober::start(&web.target);
        prober.wait_pid(pids[0]);
        for nth in 2..=3 {
            web.control(&["restart"]);
            pids.push(web.started(nth));
            prober.wait_pid(pids[nth - 1]);
        }
        let probes = prober.stop();
        probes.assert_all_answered();
        assert_eq!(probes.pids(), pids);
        assert_eq!(web.log.with(&["stage=intent", "intent=restart"]).len(), 2);
        web.wait_show("NFileDescriptorStore", "1");
        web.control(&["stop"]);
        web.wait_nothing_left();
        assert_eq!(web.log.with(&["stage=intent", "intent=stop"]).len(), 1);
    });
}

/// Sockets that systemd itself listens at: they are had from it in each generation.
#[test]
fn p1_p2_a_socket_unit() {
    run(|systemd, folder| {
        let web = Web::new(systemd, folder, "web");
        let settings = "[Unit]\nDefaultDependencies=no\n[Socket]\nFileDescriptorName=web\n";
        systemd.unit("web.socket", &format!("{settings}ListenStream={}", web.target));
        let folder = folder.join("web");
        let tcp = format!("--report={}/report --tcp={},name=web", folder.display(), web.target);
        web.write("NonBlocking=yes\nFileDescriptorStoreMax=8", &tcp);
        systemd.control(&["start", "web.socket"]);
        let prober = Prober::start(&web.target);
        let mut pids = vec![web.started(1)];
        prober.wait_pid(pids[0]);
        for nth in 2..=3 {
            web.control(&["restart"]);
            pids.push(web.started(nth));
            prober.wait_pid(pids[nth - 1]);
        }
        let probes = prober.stop();
        probes.assert_all_answered();
        assert_eq!(probes.pids(), pids);
        assert_eq!(web.log.with(&["stage=socket", "name=web", "from=supervisor"]).len(), 3);
        // What systemd holds anyway is not put into its store as well.
        web.wait_looked(pids[2]);
        assert_eq!(web.show("NFileDescriptorStore"), "0");
        // With nobody left, a connection waits in its queue.
        let last = [web.launcher(), pids[2]].map(Watched::new);
        web.control(&["kill", "--signal=KILL"]);
        last.iter().for_each(|one| one.wait_end(LIMIT));
        assert_eq!(http::pid(&web.target), web.started(4));
    });
}
