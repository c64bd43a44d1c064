//! `seamless restart`: what it brings about, and what it says of it.

use std::{fs, path::Path, process::Command, thread};

use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed, Isolation},
    http::{self, Target},
    process::Watched,
    site::{SERVES_ON, Site, Started, User},
    supervisor::{Supervisor, Want, write_script},
    systemd, under_each_supervisor, wait_for,
};
use serde_json::Value;

use super::{problems, seamless, status, wait_state};

under_each_supervisor![
    Boxed::new().private_net().needs(Isolation::UserNamespaces) => p1_p4_restart_tells_what_came_of_it
];

fn p1_p4_restart_tells_what_came_of_it(kind: Supervisor, folder: &Path) {
    let site = Site::at(folder).user(User::Root).options(SERVES_ON).under(kind);
    let pid_file = site.pid_file();
    let restart = |options: &[&str]| seamless("restart", &pid_file, options);
    site.service().settle();
    let first = site.started(1);
    let said = restart(&[]);
    let second = site.started(2);
    let took_over = format!("generation 2 (daemon {second}) took over from generation 1 after ");
    said.assert(0, &[&took_over]);
    assert_ne!(first, second);
    site.log.wait(&[("stage", "command"), ("request", "restart")]);

    http::wait_one_listener(&site.target);

    // A bad deploy: it rolls forward. Asked again, it is still on the way.
    site.deploy("exit 1");
    for _ in 0..2 {
        let said = restart(&["--timeout=2s"]);
        let name = format!("not yet: generation 2 (daemon {second}) serves on, detached");
        said.assert(5, &[&name, "no start has got as far as init"]);
    }
    assert_eq!(http::pid(&site.target), second);
    // One that dies after `init` is counted.
    site.deploy_options("--at=after-init=exit:1");
    wait_for("a failed start", LIMIT, || {
        (status(&pid_file)["restart"]["starts_since"].as_u64() > Some(0)).then_some(())
    });
    restart(&["--timeout=2s"]).assert(5, &["serves on, detached"]);
    assert_eq!(http::pid(&site.target), second);
    // A good one, while the command waits.
    let asked = site.log.stage("command").len();
    let said = thread::scope(|scope| {
        let said = scope.spawn(|| restart(&[]));
        wait_for("it has asked", LIMIT, || (site.log.stage("command").len() > asked).then_some(()));
        site.deploy_options(SERVES_ON);
        said.join().expect("no panic")
    });
    said.assert(0, &["took over from generation 2"]);
    let third = status(&pid_file)["daemon"].as_u64().expect("a PID") as u32;
    http::wait_one_listener(&site.target);
    assert_eq!(http::pid(&site.target), third);

    // Up only once: nobody would start it again.
    site.service().settle();
    let once = match kind {
        Supervisor::Daemontools | Supervisor::S6 => "-o",
        Supervisor::Runit => "once",
    };
    site.service().control(once);
    site.service().wait_until("up once", |status| status.want != Want::Up);
    let said = restart(&[]);
    let stays = format!("(daemon {third}) stays: ");
    said.assert(4, &[&stays, "the supervisor wants the service down"]);
    assert_eq!(http::pid(&site.target), third);
    let last = status(&pid_file);
    assert_eq!(last["supervisor"]["wants"], "down");
    site.stop();
    restart(&[]).assert(3, &["no generation runs"]);
}

/// The supervisor is a process that starts nothing again.
#[test]
fn restart_where_nobody_starts_the_next() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut started, daemon) = direct.start_ready(&["--successor-timeout=100ms"]);
        let said = seamless("restart", &direct.pid_file(), &[]);
        let gone = format!("generation 1 (daemon {}) has ended, and nobody serves", daemon.pid());
        said.assert(3, &[&gone]);
        assert!(started.wait_end().success());
        // Somebody does, by hand.
        let (mut first, old) = direct.start_ready(&[SERVES_ON]);
        let said = thread::scope(|scope| {
            let said = scope.spawn(|| seamless("restart", &direct.pid_file(), &[]));
            assert!(first.wait_end().success());
            direct.start_ready(&[SERVES_ON]);
            said.join().expect("no panic")
        });
        said.assert(0, &["took over from generation 2"]);
        old.wait_end(LIMIT);
    });
}

fn start_ready(direct: &Site, mut command: Command) -> (Started, Watched) {
    let started = direct.spawn(&mut command);
    let daemon = started.wait_started();
    (started, daemon)
}

/// The launcher itself starts the next one, from the program's file as it is then.
#[test]
fn p1_restart_in_place_tells_what_came_of_it() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let program = folder.join("web");
        let deploy = |text: &str| write_script(&program, text);
        let good = format!("exec '{}' \"$@\"", bin::probe().display());
        fs::copy(bin::probe(), &program).expect("a copy");
        let (started, first) =
            start_ready(&direct, direct.command_of(&program, &["--reload-signal=1"]));
        let restart = || seamless("restart", &direct.pid_file(), &[]);
        restart().assert(0, &["took over from generation 1"]);
        first.wait_end(LIMIT);
        let second = wait_state(&direct.pid_file(), "serving");
        assert_eq!(second["launcher"], started.launcher.pid());
        assert_eq!(second["in_place"], true);
        assert_eq!(second["restart"]["failed"], 0);
        deploy("exit 7");
        let said = restart();
        let stays = format!("(daemon {}) stays: the restart failed: ", second["daemon"]);
        said.assert(4, &[&stays, "7"]);
        let after = status(&direct.pid_file());
        assert_eq!((&after["daemon"], &after["state"]), (&second["daemon"], &"serving".into()));
        assert_eq!(after["restart"]["failed"], 1);
        assert!(after["restart"]["failure"].as_str().expect("a text").contains('7'), "{after}");
        deploy(&good);
        restart().assert(0, &["took over from generation 2"]);
        assert!(!started.launcher.has_ended());
    });
}

/// A unit as it ought to be, and one that would cut connections.
#[test]
fn a_service_of_systemd() {
    systemd::run(Boxed::new().private_net(), |systemd, folder| {
        let direct = Site::alone(folder);
        let (probe, address) = (bin::probe(), boxed::address());
        let deploy = |settings: &str| {
            let command = format!(
                "{} --pid-file={} --report={} --tcp={address}",
                probe.display(),
                direct.pid_file().display(),
                direct.report.path().display(),
            );
            systemd.unit(
                "web.service",
                &format!(
                    "[Unit]\nDefaultDependencies=no\nStartLimitIntervalSec=0\n[Service]\n\
                     Type=exec\nKillMode=process\nRestart=always\nRestartSec=0\n\
                     ExecStart={command}\n{settings}"
                ),
            );
        };
        deploy("KillMode=control-group");
        let before = seamless("check", &direct.pid_file(), &["--json", "--unit=web"]);
        let found = problems(&before);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, "unit");
        assert!(found[0].1.starts_with("KillMode=control-group: "), "{found:?}");
        deploy("");
        systemd.control(&["start", "web"]);
        let first = direct.report.wait("started").pid;
        let check = seamless("check", &direct.pid_file(), &["--json"]);
        assert_eq!(problems(&check), []);
        assert_eq!(check.json()["unknown"], Value::Array(vec![]));
        let said = status(&direct.pid_file());
        assert_eq!(said["launcher"], systemd.main_pid("web"));
        assert_eq!(said["supervisor"]["pid"], 1);
        assert_eq!(said["supervisor"]["kind"], "systemd");
        assert_eq!(said["supervisor"]["unit"], "web.service");
        seamless("restart", &direct.pid_file(), &[]).assert(0, &["took over from generation 1"]);
        Watched::new(first).wait_end(LIMIT);
        let second = direct.report.wait_nth("started", 2).pid;
        let said = seamless("stop", &direct.pid_file(), &[]);
        said.assert(4, &["systemd would start it again", "`systemctl stop web.service`"]);
        assert_eq!(http::pid(&Target::from(address)), second);
        systemd.control(&["stop", "web"]);
        seamless("status", &direct.pid_file(), &[]).assert(3, &["no generation runs"]);
    });
}
