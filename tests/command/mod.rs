//! The program `seamless`: what it says of a service, compared with what the kernel and the
//! supervisor say, and what it brings about.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::Path,
    process::{self, Command, Stdio},
    thread,
    time::Instant,
};

use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed, Isolation},
    clients::Host,
    handover::{Predecessor, write_record},
    http::{self, Connection, Prober, Target, answer_of},
    process::{NOBODY, Watched, descriptors, listeners, stat, stop_without_claim},
    scene,
    signal::CONT,
    site::{SERVES_ON, Site, Started, User},
    supervisor::{Supervisor, Want, write_script},
    systemd, under_each_supervisor, wait_for,
};
use serde_json::Value;

use crate::supervisors::{clients, openrc, supervisord};

/// How a command has ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// What it printed as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    fn assert(&self, code: i32, words: &[&str]) {
        let text = format!("{}{}", self.out, self.err);
        assert_eq!(self.code, code, "{text}");
        let missing: Vec<&&str> = words.iter().filter(|word| !text.contains(**word)).collect();
        assert!(missing.is_empty(), "{missing:?} in: {text}");
    }
}

pub(crate) fn seamless(verb: &str, pid_file: &Path, options: &[&str]) -> Said {
    run(Command::new(bin::support("seamless")).arg(verb).arg(pid_file).args(options))
}

pub(crate) fn run(command: &mut Command) -> Said {
    let output = command.stdin(Stdio::null()).output().expect("seamless");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Said {
        code: output.status.code().expect("an exit code"),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

fn status(pid_file: &Path) -> Value {
    seamless("status", pid_file, &["--json"]).json()
}

/// Waits until `status` says that.
#[track_caller]
fn wait_state(pid_file: &Path, state: &str) -> Value {
    let mut last = Value::Null;
    wait_for(format!("state {state}"), LIMIT, || {
        last = status(pid_file);
        (last["state"] == state).then(|| last.clone())
    })
}

/// Seconds since the boot.
fn uptime() -> f64 {
    let uptime = fs::read_to_string("/proc/uptime").expect("uptime");
    uptime.split(' ').next().expect("a number").parse().expect("a number")
}

/// `socket:[INODE]` of what listens at this port.
fn inode_at(port: u16) -> String {
    listeners(Some(port)).first().expect("a listener").display().to_string()
}

// ---- status ----

under_each_supervisor![
    Boxed::new().private_net().needs(Isolation::UserNamespaces) =>
        status_is_what_the_kernel_says,
        p1_p4_restart_tells_what_came_of_it,
        p3_stop_says_who_would_start_it_again,
];

fn status_is_what_the_kernel_says(kind: Supervisor, folder: &Path) {
    let address = boxed::address();
    let go = folder.join("go");
    let options =
        format!("{SERVES_ON} --tcp={address},name=web --at=request=file:{}", go.display());
    let site = Site::at(folder).user(User::Root).options(&options).under(kind);
    let (pid_file, target) = (site.pid_file(), Target::from(address));
    let daemon = site.started(1);
    let before = uptime();
    let first = status(&pid_file);
    assert_eq!(first["state"], "serving");
    assert_eq!(first["serving"], true);
    assert_eq!(first["generation"], 1);
    assert_eq!(first["daemon"], daemon);
    assert_eq!(first["launcher"], site.service().main_pid());
    let supervisor = &first["supervisor"];
    assert_eq!(supervisor["pid"], site.service().supervisor_pid());
    assert_eq!(supervisor["name"], kind.program());
    assert_eq!(supervisor["kind"], format!("{kind:?}").to_lowercase());
    assert_eq!(supervisor["wants"], "up");
    assert_eq!(supervisor["folder"], site.service().folder().to_str().expect("a path"));
    let age = first["age"].as_f64().expect("seconds");
    let start = stat(daemon).expect("the daemon").start_ticks as f64 / 100.0;
    let possible = before - start - 0.02..=uptime() - start + 0.02;
    assert!(possible.contains(&age), "{age}, not in {possible:?}");
    assert_eq!(first["version"], env!("CARGO_PKG_VERSION"));
    let sockets = first["sockets"].as_array().expect("a list");
    assert_eq!(sockets.len(), 1);
    assert_eq!(sockets[0]["kind"], "tcp");
    assert_eq!(sockets[0]["address"], address.to_string());
    assert_eq!(sockets[0]["name"], "web");
    assert_eq!(first["socket_count"], 1);
    assert_eq!(first["draining"], Value::Array(vec![]));
    for empty in ["error", "starting"] {
        assert!(first[empty].is_null(), "{empty}: {first}");
    }
    for empty in ["notes", "unknown"] {
        assert_eq!(first[empty], Value::Array(vec![]), "{empty}");
    }

    // Stage 1: the hook waits for the file.
    let mut open = vec![Connection::unfinished(&target)];
    wait_for("the connection is accepted", LIMIT, || (http::pid(&target) == daemon).then_some(()));
    site.service().settle();
    site.service().restart();
    site.report.wait_of(daemon, "hook");
    let handing_off = wait_state(&pid_file, "handing-off");
    assert_eq!(handing_off["serving"], true);
    // Detached: the successor does not get as far as `started`.
    site.deploy_options(&format!("{options} --at=after-init=file:{}", folder.join("on").display()));
    fs::write(go, "").expect("a file");
    let starting = site.report.wait_nth("init", 2).pid;
    let detached = wait_state(&pid_file, "detached");
    assert_eq!(detached["daemon"], daemon);
    assert_eq!(detached["launcher"], Value::Null);
    assert_eq!(detached["starting"], starting);
    let text = seamless("status", &pid_file, &[]);
    text.assert(0, &["generation 1 serves, detached", &format!("process {starting} holds")]);

    // Two older generations drain, each with a connection.
    fs::write(folder.join("on"), "").expect("a file");
    let second = site.started(2);
    let listener = inode_at(address.port());
    wait_for("the first accepts nothing more", LIMIT, || {
        let descriptors = descriptors(daemon);
        (!descriptors.iter().any(|(_, target)| target.ends_with(&listener))).then_some(())
    });
    open.push(Connection::unfinished(&target));
    wait_for("the connection is accepted", LIMIT, || (http::pid(&target) == second).then_some(()));
    assert_eq!(status(&pid_file)["restart"]["took_over"], 1);
    seamless("restart", &pid_file, &[]).assert(0, &["took over from generation 2"]);
    let third = site.started(3);
    let last = status(&pid_file);
    assert_eq!((&last["generation"], &last["daemon"]), (&3.into(), &third.into()));
    let draining = last["draining"].as_array().expect("a list");
    for (at, (one, pid)) in draining.iter().zip([daemon, second]).enumerate() {
        assert_eq!(one["generation"], at + 1);
        assert_eq!(one["daemon"], pid);
        assert_eq!(one["connections"], 1, "{one}");
    }
    let text = seamless("status", &pid_file, &[]);
    text.assert(
        0,
        &[
            "generation 3 serves\n",
            &format!("draining    generation 1: daemon {daemon}, for "),
            ", 1 connection open\n",
            &format!("sockets     tcp {address} (web)\n"),
            "restart     took over from generation 2",
        ],
    );
    for (request, pid) in open.into_iter().zip([daemon, second]) {
        assert!(request.finish().ends_with(&answer_of(pid)));
        Watched::new(pid).wait_end(LIMIT);
    }
    wait_for("nobody drains", LIMIT, || {
        (status(&pid_file)["draining"] == Value::Array(vec![])).then_some(())
    });
    site.stop();
    seamless("status", &pid_file, &[]).assert(3, &["no generation runs", "is stale"]);
}

/// None runs: by the exit code, and each oddity by its name.
#[test]
fn p10_status_names_stale_and_foreign_files() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (pid_file, lock_file) = (direct.pid_file(), direct.lock_file());
        let status = || seamless("status", &pid_file, &[]);
        status().assert(3, &["no generation runs", "web.pid\" does not exist"]);
        fs::write(&pid_file, "web\n").expect("a file");
        status().assert(3, &["holds no PID"]);
        fs::write(&pid_file, format!("{}\n", process::id())).expect("a file");
        status().assert(3, &["is stale: process", "does not hold it"]);
        let held = fs::File::open(&pid_file).expect("the file");
        fs2::FileExt::lock_exclusive(&held).expect("the lock");
        status().assert(3, &[&format!("process {} holds", process::id()), "no record lists it"]);
        drop(held);
        fs::remove_file(&pid_file).expect("removed");
        symlink(folder.join("report"), &pid_file).expect("a link");
        status().assert(3, &["cannot use"]);
        fs::remove_file(&pid_file).expect("removed");
        for (record, words) in [
            ("GET / HTTP/1.1\n", "it is not a lock file of this crate"),
            ("seamless-record 9 last=1\nend\n", "written by a later version of this crate"),
        ] {
            fs::write(&lock_file, record).expect("a file");
            status().assert(1, &["cannot tell", words]);
        }
        // Nobody of those that it lists lives.
        fs::write(&lock_file, "seamless-record 1 last=7\ngeneration\nend\n").expect("a record");
        status().assert(3, &["no generation runs", "has a bad line: \"generation\""]);
        // What it asks for is another's as well.
        for (arguments, words) in [
            (vec![], "which command"),
            (vec!["reload", "/web.pid"], "unknown command"),
            (vec!["status"], "which PID file"),
            (vec!["status", "/web.pid", "--force"], "--force"),
            (vec!["stop", "/web.pid", "--timeout=soon"], "soon"),
        ] {
            run(Command::new(bin::support("seamless")).args(arguments)).assert(2, &[words]);
        }
        for (option, words) in [("--help", "usage: seamless"), ("--version", "seamless 0.")] {
            run(Command::new(bin::support("seamless")).arg(option)).assert(0, &[words]);
        }
    });
}

/// As it enters the record without the feature `sockets`.
fn without_sockets(direct: &Site) {
    let record = fs::read_to_string(direct.lock_file()).expect("the record");
    assert!(record.contains(" takeover=1"), "{record}");
    fs::write(direct.lock_file(), record.replace(" takeover=1", "")).expect("a record");
    fs::remove_file(direct.socket()).expect("the socket");
}

#[test]
fn a_service_without_sockets_is_known_by_its_record() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut started, daemon) = direct.start_ready(&[SERVES_ON]);
        without_sockets(&direct);
        let said = status(&direct.pid_file());
        assert_eq!((&said["state"], &said["daemon"]), (&"serving".into(), &daemon.pid().into()));
        assert_eq!(said["launcher"], started.launcher.pid());
        assert_eq!(said["sockets"], Value::Null);
        assert!(said["unknown"][0].as_str().expect("a text").contains("without the feature"));
        seamless("restart", &direct.pid_file(), &[]).assert(1, &["without the feature `sockets`"]);
        assert!(!daemon.has_ended());
        seamless("stop", &direct.pid_file(), &[]).assert(0, &["generation 1 has ended"]);
        assert!(started.wait_end().success());
        assert_eq!(direct.report.wait_of(daemon.pid(), "wait").text, "Requested");
    });
}

// ---- who is believed ----

#[test]
fn p5_p10_only_the_newest_generation_is_believed() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (_started, daemon) = direct.start_ready(&[SERVES_ON]);
        // A liar has the path of the socket, but not the PID of the record.
        for verb in ["status", "restart", "stop"] {
            let liar = Predecessor::unproven(&direct);
            let said = thread::scope(|scope| {
                let said = scope.spawn(|| seamless(verb, &direct.pid_file(), &["--timeout=300ms"]));
                liar.accept().try_send(b"seamless-takeover 1 accepted", &[]);
                said.join().expect("no panic")
            });
            let who = format!("process {} listens", process::id());
            said.assert(1, &[&who, "not proven to be generation 1"]);
        }
        seamless("status", &direct.pid_file(), &["--timeout=300ms"]).assert(1, &["nobody listens"]);
        assert!(!daemon.has_ended());
        daemon.kill();
        daemon.wait_end(LIMIT);

        // One that is proven, and talks nonsense.
        let liar = Predecessor::new(&direct);
        write_record(&direct, process::id(), " takeover=1");
        let own = process::id();
        for (answer, words) in [
            ("GET / HTTP/1.1".to_owned(), "it sent no message of this protocol"),
            ("seamless-takeover 2 status".to_owned(), "a message of version 2"),
            ("seamless-takeover 1 accepted".to_owned(), "something else than it was asked"),
            (
                "seamless-takeover 1 status state=serving daemon=1".to_owned(),
                "no status of its own",
            ),
            (
                format!("seamless-takeover 1 status generation=2 state=serving daemon={own}"),
                "no status of its own",
            ),
        ] {
            let said = thread::scope(|scope| {
                scope.spawn(|| {
                    let end = liar.accept();
                    end.text();
                    end.send(&answer);
                });
                seamless("status", &direct.pid_file(), &[])
            });
            said.assert(1, &["cannot tell", words]);
        }
    });
}

/// A daemon that is stopped: an error in time, which names it.
#[test]
fn p10_a_daemon_that_hangs_is_named_in_time() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut started, daemon) = direct.start_ready(&[SERVES_ON]);
        stop_without_claim(&daemon);
        for verb in ["status", "restart", "stop"] {
            let began = Instant::now();
            let said = seamless(verb, &direct.pid_file(), &["--timeout=300ms"]);
            let name = format!("daemon {} (generation 1) does not answer", daemon.pid());
            said.assert(1, &[&name, "it is stopped (SIGSTOP)"]);
            assert!(began.elapsed() < LIMIT);
        }
        daemon.signal(CONT);
        // What was asked for meanwhile was not: nobody waited for an answer to it.
        assert_eq!(wait_state(&direct.pid_file(), "serving")["daemon"], daemon.pid());
        seamless("stop", &direct.pid_file(), &[]).assert(0, &["generation 1 has ended"]);
        assert!(started.wait_end().success());
    });
}

/// It is the business of the service's user and of root.
#[test]
fn p10_another_user_is_refused() {
    Boxed::new().needs(Isolation::Namespaces).run(|folder| {
        let direct = Site::alone(folder);
        let (mut started, daemon) = direct.start_ready(&[SERVES_ON]);
        for verb in ["status", "restart", "stop"] {
            let mut command = Command::new("setpriv");
            let user = NOBODY.to_string();
            command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
            let said = run(command.arg(bin::support("seamless")).arg(verb).arg(direct.pid_file()));
            said.assert(1, &["Permission denied", "ask as the service's user, or as root"]);
        }
        assert!(!daemon.has_ended());
        seamless("stop", &direct.pid_file(), &[]).assert(0, &[]);
        assert!(started.wait_end().success());
    });
}

/// Whoever owns a folder may write a record and link a socket there: root asks and stops nobody by
/// them whom that user could not stop himself.
#[test]
fn p5_a_planted_record_stops_nobody() {
    Boxed::new().needs(Isolation::Namespaces).run(|folder| {
        let direct = Site::alone(folder);
        let (mut started, daemon) = direct.start_ready(&[SERVES_ON]);
        let planted = folder.join("planted");
        fs::create_dir(&planted).expect("a folder");
        let pid_file = planted.join("web.pid");
        for ending in ["", ".lock"] {
            let name = format!("web.pid{ending}");
            fs::copy(folder.join(&name), planted.join(&name)).expect("a copy");
            chown(planted.join(&name), Some(NOBODY), None).expect("chown");
        }
        symlink(direct.socket(), planted.join("web.pid.sock")).expect("a link");
        for (verb, code) in [("status", 3), ("restart", 3), ("stop", 0)] {
            let why =
                format!("belongs to uid {NOBODY}, but process {} in it does not", daemon.pid());
            let said = seamless(verb, &pid_file, &[]);
            said.assert(code, &["no generation runs", &why]);
        }
        assert!(!direct.log.text().contains("stage=command"), "{}", direct.log);
        assert!(!daemon.has_ended());
        seamless("stop", &direct.pid_file(), &[]).assert(0, &["generation 1 has ended"]);
        assert!(started.wait_end().success());
    });
}

// ---- restart ----

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

// ---- stop ----

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
        let lock_file = folder.join("run/web.pid.lock");
        let record = fs::read_to_string(&lock_file).expect("the record");
        fs::write(&lock_file, record.replace(" takeover=1", "")).expect("a record");
        let said = seamless("restart", &pid_file, &[]);
        fs::write(&lock_file, &record).expect("the record");
        said.assert(1, &["without the feature `sockets`", commands[0]]);
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
        scene::wait_drain(&site.report, first);
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

// ---- check ----

fn check(pid_file: &Path, options: &[&str]) -> Said {
    seamless("check", pid_file, options)
}

/// The faults that its JSON lists, by what they are about.
#[track_caller]
fn problems(said: &Said) -> Vec<(String, String)> {
    let json = said.json();
    let findings = json["findings"].as_array().expect("a list");
    let problems = findings.iter().filter(|one| one["severity"] == "problem");
    let text = |one: &Value, name: &str| one[name].as_str().expect("a text").to_owned();
    let problems: Vec<_> = problems.map(|one| (text(one, "about"), text(one, "says"))).collect();
    assert_eq!(json["ok"], problems.is_empty(), "{json}");
    assert_eq!(said.code, i32::from(!problems.is_empty()), "{json}");
    problems
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
        assert!(found[0].1.contains("is no supervisor that is known"), "{found:?}");
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
