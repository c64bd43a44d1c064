//! `seamless check`: the problems that it finds.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
};

use seamless_testing::{
    LIMIT,
    boxed::{self, Boxed, Isolation},
    http::Target,
    process::{NOBODY, Watched},
    scene,
    signal::CONT,
    site::{SERVES_ON, Site, User},
    supervisor::{Supervisor, write_script},
    under_each_supervisor, wait_for,
};
use serde_json::Value;

use super::{Said, problems, seamless};

fn check(pid_file: &Path, options: &[&str]) -> Said {
    seamless("check", pid_file, options)
}

/// Before the service was ever started, each on files of its own.
#[test]
fn check_before_the_first_start() {
    Boxed::new().private_net().needs(Isolation::UserNamespaces).run(|folder| {
        let run = folder.join("run");
        let pid_file = run.join("web.pid");
        check(&pid_file, &["--user=root"]).assert(
            1,
            &[
                "1 problem (not running, as root)",
                "problem: folder: ",
                "does not exist: init fails\n  mkdir ",
                "not looked at: the supervisor",
            ],
        );
        fs::create_dir(&run).expect("a folder");
        let clean = check(&pid_file, &["--user=root"]);
        clean.assert(0, &["nothing would go wrong (not running, as root)"]);
        assert_eq!(fs::read_dir(&run).expect("the folder").count(), 0, "it leaves nothing behind");
        check(&pid_file, &["--user=nobody"]).assert(1, &["nobody may not write to"]);
        check(&pid_file, &["--user=no such user"]).assert(1, &["there is no user"]);
        let sticky = fs::Permissions::from_mode(0o1777);
        fs::set_permissions(&run, sticky).expect("a mode");
        check(&pid_file, &["--user=nobody"]).assert(1, &["everybody may write", "is sticky"]);
        fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).expect("a mode");
        fs::write(run.join("web.pid.lock"), "mine").expect("a file");
        check(&pid_file, &[]).assert(1, &["it is not a lock file of this crate"]);
        fs::remove_file(run.join("web.pid.lock")).expect("removed");
        fs::write("/proc/sys/net/core/somaxconn", "128").expect("a setting of this network");
        check(&pid_file, &[]).assert(1, &["net.core.somaxconn is 128"]);
        fs::write("/proc/sys/net/core/somaxconn", "4096").expect("a setting of this network");

        let service = folder.join("service");
        let option = format!("--service={}", service.display());
        check(&pid_file, &[&option]).assert(1, &["does not exist: nothing can be started"]);
        fs::create_dir(&service).expect("a folder");
        write_script(&service.join("run"), "exec 2>&1\n/usr/bin/web");
        check(&pid_file, &[&option]).assert(1, &["run-script", "starts nothing by exec"]);
        write_script(&service.join("run"), "exec /usr/bin/web");
        check(&pid_file, &[&option]).assert(0, &["nothing would go wrong"]);
        // Nobody writes into it, and nobody waits for that.
        fs::remove_file(service.join("run")).expect("the script");
        let fifo = Command::new("mkfifo").args(["-m", "755"]).arg(service.join("run")).status();
        assert!(fifo.expect("mkfifo").success());
        check(&pid_file, &[&option]).assert(0, &["nothing would go wrong"]);
        // There is no systemd here that could be asked.
        check(&pid_file, &["--unit=web"])
            .assert(0, &["not looked at: the settings of web.service: "]);
    });
}

mod by_default {
    use super::*;
    under_each_supervisor![
        Boxed::new().private_net_without_migration().needs(Isolation::UserNamespaces) =>
            check_of_a_service_that_runs
    ];
}

/// Linux as it is by default: what waits at a listener that closes is reset.
fn check_of_a_service_that_runs(kind: Supervisor, folder: &Path) {
    let address = boxed::address();
    let hold = format!("{SERVES_ON} --tcp={address}");
    let site = Site::at(folder).user(User::Root).options(&hold).under(kind);
    let pid_file = site.pid_file();
    site.service().main_pid(); // before, what the supervisor says is about no process
    // The one that the site makes by itself is not handed over.
    let Target::Tcp(other) = &site.target else { panic!("no port") };
    let said = check(&pid_file, &["--json"]);
    let found = problems(&said);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, "tcp-migrate-req");
    assert!(found[0].1.contains(&format!("listens at {other} ")), "{found:?}");
    assert_eq!(said.json()["running"], true);
    fs::write("/proc/sys/net/ipv4/tcp_migrate_req", "1").expect("a setting of this network");
    let said = check(&pid_file, &["--json"]);
    assert_eq!(problems(&said), []);
    assert_eq!((&said.json()["uid"], &said.json()["unknown"]), (&0.into(), &Value::Array(vec![])));

    // Too few files for a successor.
    let daemon = site.started(1);
    site.deploy(&site.script("prlimit --nofile=64:64", &format!("{SERVES_ON} --many=20")));
    site.service().settle();
    seamless("restart", &pid_file, &[]).assert(0, &[]);
    Watched::new(daemon).wait_end(LIMIT);
    let found = problems(&check(&pid_file, &["--json"]));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, "nofile");
    assert!(found[0].1.contains("holds 20 sockets, and may have no more than 64"), "{found:?}");

    // It hangs.
    let daemon = Watched::new(site.started(2));
    daemon.stop();
    let found = problems(&check(&pid_file, &["--json"]));
    assert!(found[0].1.contains("does not answer"), "{found:?}");
    daemon.signal(CONT);
}

/// What it says of who supervises.
#[test]
fn check_of_parents_that_supervise_nothing() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (started, daemon) = direct.start_ready(&[SERVES_ON]);
        let found = problems(&check(&direct.pid_file(), &["--json"]));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].1.contains("is an unknown supervisor"), "{found:?}");
        started.launcher.kill();
        daemon.kill();
        daemon.wait_end(LIMIT);
        // A run script without exec.
        let script = scene::script(folder, SERVES_ON).replace("\nexec '", "\n'") + "\ntrue";
        let mut shell = scene::shell(&script).spawn().expect("sh");
        let launcher = wait_for("a launcher", LIMIT, || direct.report.named("init").pop());
        let daemon = Watched::new(direct.report.wait_nth("started", 2).pid);
        let found = problems(&check(&direct.pid_file(), &["--json"]));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].1.contains("a shell, sh "), "{found:?}, {launcher:?}");
        daemon.kill();
        shell.wait().expect("its end");
    });
}

/// The program gives up root, and cannot read its supervisor's status.
#[test]
fn check_of_a_status_that_is_hidden() {
    Boxed::new().private_net().needs(Isolation::Namespaces).run(|folder| {
        let user = User::ByItself { reads: false };
        let site = Site::at(folder).user(user).options(SERVES_ON).under(Supervisor::Runit);
        wait_for("it has become that user", LIMIT, || {
            (fs::metadata(format!("/proc/{}", site.started(1))).ok()?.uid() == NOBODY).then_some(())
        });
        let said = check(&site.pid_file(), &["--json"]);
        let found = problems(&said);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].1.contains("nobody cannot read what runsv"), "{found:?}");
        assert_eq!(said.json()["user"], "nobody");
    });
}
