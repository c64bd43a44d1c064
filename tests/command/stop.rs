//! `seamless stop`, and the supervisor's own commands that it names.

use std::{fs, path::Path, process::Command, thread};

use seamless_testing::{
    LIMIT,
    boxed::{self, Boxed, Isolation},
    clients::Host,
    http::{self, Connection, Prober, Target, answer_of},
    process::Watched,
    site::{SERVES_ON, Site, Started, User},
    supervisor::Supervisor,
    under_each_supervisor, wait_for,
};

use crate::supervisors::{clients, openrc, supervisord};

use super::{Said, seamless, status, wait_state};

under_each_supervisor![
    Boxed::new().private_net().needs(Isolation::UserNamespaces) => p3_stop_says_who_would_start_it_again
];

/// The samples for other supervisors: what it says of them, and the commands that it names.
#[test]
fn p1_p2_p3_p6_s6() {
    names_commands("s6", ["s6-svc -t ", "s6-svc -d "], |folder| {
        clients::supervised(Supervisor::S6, folder)
    });
}

#[test]
fn p1_p2_p3_p6_supervisord() {
    let commands = ["supervisorctl signal TERM web", "supervisorctl stop web"];
    names_commands("supervisord", commands, supervisord::Web::new);
}

#[test]
fn p1_p2_p3_p6_openrc() {
    let commands = ["rc-service web restart", "rc-service web stop"];
    names_commands("openrc", commands, openrc::Web::new);
}

fn names_commands<H: Host>(kind: &str, commands: [&str; 2], host: impl FnOnce(&Path) -> H) {
    Boxed::new().private_net().run(|folder| {
        let host = host(folder);
        let pid_file = folder.join("run/web.pid");
        let first = http::wait_pid(host.target());
        let prober = Prober::start(host.target());
        let said = status(&pid_file);
        assert_eq!((&said["state"], &said["daemon"]), (&"serving".into(), &first.into()));
        assert_eq!(said["supervisor"]["kind"], kind);
        let check = seamless("check", &pid_file, &["--json"]);
        assert_eq!(check.json()["ok"], true, "{check:?}");

        seamless("restart", &pid_file, &[]).assert(0, &["took over from generation 1"]);
        let second = status(&pid_file)["daemon"].as_u64().expect("a PID") as u32;
        Watched::new(first).wait_end(LIMIT);

        // One that cannot be asked: the command that it names instead is a restart.
        let [lock_file, socket, aside] =
            ["lock", "sock", "aside"].map(|end| folder.join(format!("run/web.pid.{end}")));
        let record = fs::read_to_string(&lock_file).expect("the record");
        fs::write(&lock_file, record.replace("state=serving", "state=draining")).expect("a record");
        fs::rename(&socket, &aside).expect("the socket");
        let said = seamless("restart", &pid_file, &[]);
        fs::rename(&aside, &socket).expect("the socket");
        fs::write(&lock_file, &record).expect("the record");
        said.assert(1, &["nobody listens", commands[0]]);
        run_named(&said, commands[0], folder);
        Watched::new(second).wait_end(LIMIT);
        let third = http::wait_pid(host.target());
        prober.wait_pid(third);
        let probes = prober.stop();
        assert_eq!(probes.pids(), [first, second, third]);
        probes.assert_all_answered();

        let said = seamless("stop", &pid_file, &[]);
        said.assert(4, &["would start it again", commands[1], "--force"]);
        let request = Connection::unfinished(host.target());
        thread::scope(|scope| {
            scope.spawn(|| run_named(&said, commands[1], folder));
            wait_state(&pid_file, "draining");
            assert_eq!(request.try_finish().expect("an answer").pid, Some(third));
        });
        Watched::new(third).wait_end(LIMIT);
        seamless("status", &pid_file, &[]).assert(3, &["no generation runs"]);
    });
}

/// The command in what was said that begins like this.
#[track_caller]
fn run_named(said: &Said, begins: &str, folder: &Path) {
    let mut quoted = said.err.split('`');
    let command = quoted.find(|part| part.starts_with(begins)).expect("a command");
    // Where supervisorctl finds its settings.
    let at = Some(folder.join("supervisord")).filter(|at| at.exists());
    let status = Command::new("sh")
        .args(["-c", command])
        .current_dir(at.as_deref().unwrap_or(folder))
        .status();
    assert!(status.expect("sh").success(), "{command}");
}

fn p3_stop_says_who_would_start_it_again(kind: Supervisor, folder: &Path) {
    let site = Site::at(folder).user(User::Root).options(SERVES_ON).under(kind);
    let pid_file = site.pid_file();
    let service = site.service().folder().display();
    let instead = match kind {
        Supervisor::Daemontools => format!("svc -d {service}"),
        Supervisor::S6 => format!("s6-svc -d {service}"),
        Supervisor::Runit => format!("sv down {service}"),
    };
    site.service().settle();
    let first = site.started(1);
    let said = seamless("stop", &pid_file, &[]);
    said.assert(4, &["would start it again", &format!("`{instead}`"), "--force"]);
    assert_eq!(http::pid(&site.target), first);
    // By force: what is in flight is answered, and the supervisor starts the next.
    let request = Connection::unfinished(&site.target);
    let said = thread::scope(|scope| {
        let said = scope.spawn(|| seamless("stop", &pid_file, &["--force"]));
        site.wait_drain(first);
        assert!(request.finish().ends_with(&answer_of(first)));
        said.join().expect("no panic")
    });
    said.assert(0, &["generation 1 has ended", "starts it again", &instead]);
    let second = site.started(2);

    // Detached, with a request in flight; nobody starts another one.
    site.deploy("exec sleep 1000");
    site.service().settle();
    site.service().restart();
    wait_state(&pid_file, "detached");
    let request = Connection::unfinished(&site.target);
    let said = seamless("stop", &pid_file, &["--timeout=1s"]);
    said.assert(5, &["not yet", &format!("daemon {second}) still drains"), "1 connection open"]);
    let draining = seamless("status", &pid_file, &[]);
    draining.assert(3, &["generation 2 is draining"]);
    let said = thread::scope(|scope| {
        let asked = site.log.stage("command").len();
        let said = scope.spawn(|| seamless("stop", &pid_file, &[]));
        wait_for("it has asked", LIMIT, || (site.log.stage("command").len() > asked).then_some(()));
        assert!(request.finish().ends_with(&answer_of(second)));
        said.join().expect("no panic")
    });
    said.assert(0, &["generation 2 has ended", &instead]);
    assert_eq!(site.report.wait_of(second, "wait").text, "Stopped");
    seamless("stop", &pid_file, &[]).assert(0, &["no generation runs"]);
    // The command that it names does what it says.
    assert!(Command::new("sh").args(["-c", &instead]).status().expect("sh").success());
    site.service().wait_down();
}

/// By hand, with an older generation that has a request in flight: it waits for both.
#[test]
fn p3_stop_waits_for_every_generation() {
    Boxed::new().private_net().run(|folder| {
        let direct = Site::alone(folder);
        let address = boxed::address();
        let (tcp, target) = (format!("--tcp={address}"), Target::from(address));
        let (mut first, old) = direct.start_ready(&[&tcp, SERVES_ON]);
        let requests = [Connection::unfinished(&target)];
        wait_for("it is accepted", LIMIT, || (http::pid(&target) == old.pid()).then_some(()));
        first.detach();
        let (mut second, new): (Started, Watched) = direct.start_ready(&[&tcp, SERVES_ON]);
        let said = thread::scope(|scope| {
            let said = scope.spawn(|| seamless("stop", &direct.pid_file(), &[]));
            direct.report.wait_of(new.pid(), "hook");
            // Its launcher stays until the older one is through: down is the truth.
            wait_state(&direct.pid_file(), "draining");
            assert!(!second.launcher.has_ended() && !old.has_ended());
            for request in requests {
                assert!(request.finish().ends_with(&answer_of(old.pid())));
            }
            said.join().expect("no panic")
        });
        said.assert(0, &["generation 2 has ended", "and every older one"]);
        assert!(old.has_ended() && new.has_ended());
        assert!(second.wait_end().success());
    });
}
