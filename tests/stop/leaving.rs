//! P3, P4 and P6: with `leave_time`, a stop serves on for a while before it drains, and nothing but a stop does.

use std::{fs, path::Path};

use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed, Isolation},
    http::{Prober, Target},
    process::Watched,
    signal::{HUP, TERM, USR2},
    site::{SERVES_ON, Site},
    supervisor::Supervisor,
    systemd, under_each_supervisor, wait_for,
};

use super::gaps::in_the_gap;
use crate::command::seamless;

under_each_supervisor![
    Boxed::new().private_net().needs(Isolation::UserNamespaces) =>
    p3_p6_a_stop_serves_on_until_somebody_does_not_want_to_wait,
    p6_the_drain_begins_when_the_time_is_over,
    p4_a_restart_does_not_leave,
    p6_p11_in_a_probation_the_new_one_leaves_and_the_standby_ends,
    p6_a_daemon_without_a_launcher_leaves_when_it_reads_the_stop,
    p6_a_crash_is_the_end_of_the_stop,
];

#[test]
fn p3_p6_a_stop_under_s6() {
    Boxed::new().private_net().run(|folder| {
        p3_p6_a_stop_serves_on_until_somebody_does_not_want_to_wait(Supervisor::S6, folder);
    });
}

/// s6 would KILL the launcher after that time, and report the service down while the daemon still drains.
#[test]
fn p6_under_s6_a_stop_ends_within_timeout_kill() {
    Boxed::new().private_net().run(|folder| {
        let (site, first) = site(Supervisor::S6, folder, LONG);
        fs::write(site.service().folder().join("timeout-kill"), "4000\n").expect("a file");
        let second = site.restart(first.pid(), &format!("{SERVES_ON} {LONG}"));
        site.service().settle();
        site.stop();
        assert_eq!(site.report.wait_of(second, "wait").text, "Stopped");
        site.log.wait(&[
            ("stage", "leave"),
            ("stop_ms", "4000.0"),
            ("leave_ms", "1800.0"),
            ("limit_ms", "1800.0"),
        ]);
    });
}

/// Longer than any test.
const LONG: &str = "--leave=10m";

fn site(kind: Supervisor, folder: &Path, options: &str) -> (Site, Watched) {
    let options = format!("{SERVES_ON} {options}");
    let site = Site::at(folder).shared_socket().options(&options).under(kind);
    let daemon = site.daemon(1);
    site.service().settle();
    (site, daemon)
}

#[track_caller]
fn wait_leaves(site: &Site, daemon: u32) {
    site.log.wait(&[("stage", "leave"), ("daemon", &daemon.to_string())]);
    wait_for(format_args!("state leaving\n{site}"), LIMIT, || {
        let said = seamless("status", &site.pid_file(), &["--json"]);
        (said.code == 0 && said.json()["state"] == "leaving").then_some(())
    });
}

/// New connections are answered all the time.
#[track_caller]
fn assert_serves(target: &Target, daemon: u32) {
    let prober = Prober::start(target);
    prober.wait_pid(daemon);
    prober.wait_more(5);
    let probes = prober.stop();
    probes.assert_all_answered();
    assert_eq!(probes.pids(), [daemon]);
}

#[track_caller]
fn assert_drained(site: &Site, daemon: u32, cause: &str, reason: &str) {
    site.log.wait(&[("stage", "drain"), ("daemon", &daemon.to_string()), ("cause", cause)]);
    assert_eq!(site.report.wait_of(daemon, "wait").text, reason, "{site}");
}

fn p3_p6_a_stop_serves_on_until_somebody_does_not_want_to_wait(kind: Supervisor, folder: &Path) {
    for (name, signal, cause) in [("term", TERM, "TERM"), ("usr2", USR2, "USR2")] {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).expect("a folder");
        let (site, daemon) = site(kind, &folder, LONG);
        site.service().down();
        wait_leaves(&site, daemon.pid());
        assert_serves(&site.target, daemon.pid());
        site.assert_not_down();
        assert!(site.log.stage("drain").is_empty(), "{site}");
        daemon.signal(signal);
        assert_drained(&site, daemon.pid(), cause, "Stopped");
        site.assert_ends();
    }
}

/// Its launcher would KILL it 5 s after the end of `drain_timeout`, had it not been told.
fn p6_the_drain_begins_when_the_time_is_over(kind: Supervisor, folder: &Path) {
    let leave = if kind == Supervisor::Runit { "--leave=5500ms" } else { "--leave=100ms" };
    let (site, daemon) = site(kind, folder, &format!("{leave} --drain-timeout=100ms"));
    site.service().down();
    assert_drained(&site, daemon.pid(), "leave_time", "Stopped");
    site.assert_ends();
    assert!(site.log.stage("kill").is_empty(), "{site}");
}

fn p4_a_restart_does_not_leave(kind: Supervisor, folder: &Path) {
    let (site, first) = site(kind, folder, LONG);
    let prober = Prober::start(&site.target);
    prober.wait_pid(first.pid());
    let second = site.restart(first.pid(), &format!("{SERVES_ON} {LONG}"));
    prober.wait_pid(second);
    prober.stop().assert_all_answered();
    assert!(site.log.stage("leave").is_empty(), "{site}");
    site.service().down();
    wait_leaves(&site, second);
    Watched::new(second).signal(TERM);
    site.assert_ends();
}

fn p6_p11_in_a_probation_the_new_one_leaves_and_the_standby_ends(kind: Supervisor, folder: &Path) {
    let (site, first) = site(kind, folder, LONG);
    site.deploy_options(&format!("{SERVES_ON} {LONG} --probation=10m"));
    site.service().restart();
    let second = site.daemon(2);
    site.log.wait(&[("stage", "standby"), ("daemon", &first.pid().to_string())]);
    site.service().settle();
    site.service().down();
    wait_leaves(&site, second.pid());
    first.wait_end(LIMIT);
    assert_serves(&site.target, second.pid());
    assert!(site.log.stage("rollback").is_empty() && site.log.stage("commit").is_empty(), "{site}");
    second.signal(TERM);
    assert_drained(&site, second.pid(), "TERM", "Stopped");
    site.assert_ends();
}

fn p6_a_daemon_without_a_launcher_leaves_when_it_reads_the_stop(kind: Supervisor, folder: &Path) {
    let options = format!("{SERVES_ON} {LONG}");
    let (site, old) = in_the_gap(kind, folder, seamless_testing::site::User::Root, &options);
    site.service().down();
    wait_leaves(&site, old.pid());
    assert_serves(&site.target, old.pid());
    old.signal(TERM);
    assert_drained(&site, old.pid(), "TERM", "Stopped");
    site.wait_all_ended();
}

/// No keeper, also if the launcher was told nothing.
fn p6_a_crash_is_the_end_of_the_stop(kind: Supervisor, folder: &Path) {
    for by_command in [false, true] {
        let folder = folder.join(if by_command { "command" } else { "supervisor" });
        fs::create_dir_all(&folder).expect("a folder");
        let (site, daemon) = site(kind, &folder, LONG);
        let launcher = site.launcher();
        if by_command {
            let said = seamless("stop", &site.pid_file(), &["--force", "--timeout=2s"]);
            said.assert(5, &["not yet"]);
        } else {
            site.service().down();
        }
        wait_leaves(&site, daemon.pid());
        daemon.kill();
        launcher.wait_end(LIMIT);
        assert!(site.log.with(&["stage=keep", "keeper="]).is_empty(), "{site}");
        if by_command {
            let second = site.started(2); // its supervisor wants it up
            site.service().down();
            wait_leaves(&site, second);
            Watched::new(second).signal(TERM);
        }
        site.assert_ends();
    }
}

/// A successor that serves is not kept waiting.
#[test]
fn p4_in_place_a_new_generation_ends_the_leaving() {
    Boxed::new().private_net().run(|folder| {
        let direct = Site::alone(folder);
        let target = Target::from(boxed::address());
        let reloads = format!("--reload-signal={HUP}");
        let (started, first) = direct.start_ready(&[LONG, &reloads, &format!("--tcp={target}")]);
        let prober = Prober::start(&target);
        prober.wait_pid(first.pid());
        let said = seamless("stop", &direct.pid_file(), &["--force", "--timeout=2s"]);
        said.assert(5, &["not yet"]);
        wait_leaves(&direct, first.pid());
        started.launcher.signal(HUP);
        let second = direct.daemon(2);
        assert_drained(&direct, first.pid(), "successor", "TakenOver");
        first.wait_end(LIMIT);
        prober.wait_pid(second.pid());
        prober.stop().assert_all_answered();
        assert!(!started.launcher.has_ended());
    });
}

/// `TimeoutStopSec=` bounds both: the rest of it is the drain's.
#[test]
fn p6_under_systemd_a_stop_ends_within_its_limit() {
    systemd::run(Boxed::new().private_net(), |systemd, folder| {
        let direct = Site::alone(folder);
        let (probe, address) = (bin::probe(), boxed::address());
        let unit = |options: &str| {
            systemd.unit(
                "web.service",
                &format!(
                    "[Unit]\nDefaultDependencies=no\nStartLimitIntervalSec=0\n[Service]\nType=exec\n\
                     KillMode=process\nRestart=always\nRestartSec=0\nTimeoutStopSec=4s\n\
                     StandardError=append:{}\nEnvironment=RUST_LOG=debug\n\
                     ExecStart={} --pid-file={} --report={} --tcp={address} {options}",
                    direct.log.path().display(),
                    probe.display(),
                    direct.pid_file().display(),
                    direct.report.path().display(),
                ),
            );
        };
        unit(LONG);
        systemd.control(&["start", "web"]);
        let daemon = direct.report.wait("started").pid;
        // A thread of its own asks systemd for the limit, and says that it is short.
        direct.log.wait_words(&["stage=systemd", "setting=\"TimeoutStopSec=4s\""], 1);
        systemd.control(&["stop", "web"]);
        assert_eq!(systemd.show("web", "Result"), "success", "{direct}");
        assert_eq!(direct.report.wait_of(daemon, "wait").text, "Stopped");
        direct.log.wait(&[
            ("stage", "leave"),
            ("stop_ms", "4000.0"),
            ("leave_ms", "1800.0"),
            ("limit_ms", "1800.0"),
        ]);
        direct.log.wait(&[("stage", "drain"), ("cause", "leave_time")]);
    });
}
