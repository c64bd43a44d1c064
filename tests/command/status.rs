//! `seamless status`: what it says of a service, and whom it believes.

use std::{
    fs,
    os::unix::fs::{chown, symlink},
    path::Path,
    process::{self, Command},
    thread,
    time::Instant,
};

use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed, Isolation},
    handover::{Predecessor, write_record, write_record_of},
    http::{self, Connection, Target, answer_of},
    process::{NOBODY, Watched, stat, stop_without_claim},
    scene,
    signal::CONT,
    site::{SERVES_ON, Site, User},
    supervisor::Supervisor,
    under_each_supervisor, wait_for,
};
use serde_json::Value;

use super::{run, seamless, status, uptime, wait_state};

under_each_supervisor![
    Boxed::new().private_net().needs(Isolation::UserNamespaces) => status_is_what_the_kernel_says
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
    scene::wait_let_go(daemon);
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

/// As a successor leaves it that dies between its line in the record and its first TERM: the control
/// socket and the word for it in the record are gone.
fn lose_socket(direct: &Site) {
    let record = fs::read_to_string(direct.lock_file()).expect("the record");
    assert!(record.contains(" state=serving"), "{record}");
    fs::write(direct.lock_file(), record.replace("state=serving", "state=draining"))
        .expect("a record");
    fs::remove_file(direct.socket()).expect("the socket");
}

#[test]
fn a_generation_that_lost_its_control_socket_can_be_stopped() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut started, daemon) = direct.start_ready(&[SERVES_ON]);
        lose_socket(&direct);
        let said = seamless("status", &direct.pid_file(), &["--json"]);
        said.assert(1, &["nobody listens"]);
        let said = said.json();
        assert_eq!((&said["state"], &said["daemon"]), (&"unknown".into(), &daemon.pid().into()));
        assert_eq!(said["launcher"], started.launcher.pid());
        assert_eq!(said["sockets"], Value::Null);
        seamless("restart", &direct.pid_file(), &[]).assert(1, &["nobody listens"]);
        assert!(!daemon.has_ended());
        seamless("stop", &direct.pid_file(), &[]).assert(0, &["generation 1 has ended"]);
        assert!(started.wait_end().success());
        assert_eq!(direct.report.wait_of(daemon.pid(), "wait").text, "Requested");
    });
}

/// To read the lock file would give up the claim, without a word.
#[test]
fn p4_a_generation_that_looks_at_its_own_service_keeps_the_claim() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let go = folder.join("go");
        let wait = format!("--at=after-init=file:{}", go.display());
        let started = direct.start(&[SERVES_ON, "--at=after-init=call:look", &wait]);
        let called = direct.report.wait("called");
        assert!(called.text.starts_with("look 1 1 "), "{called:?}");
        assert!(called.text.contains("is a generation of the service"), "{called:?}");
        // A second one would be let in.
        assert_eq!(status(&direct.pid_file())["starting"], called.pid);
        fs::write(go, "").expect("a file");
        let daemon = started.wait_started();
        seamless("stop", &direct.pid_file(), &[]).assert(0, &["generation 1 has ended"]);
        assert!(daemon.has_ended());
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
        write_record(&direct, process::id(), " state=serving");
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

/// What is not known is no success, and no failure either.
#[test]
fn p10_an_end_of_a_probation_that_cannot_be_seen() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let daemon = Predecessor::unproven(&direct);
        for verb in ["rollback", "commit"] {
            let ends: [(i32, &str, &dyn Fn()); 2] = [
                (1, "unknown what came of it", &|| {
                    fs::write(direct.lock_file(), "mine").expect("a file");
                }),
                (3, "nobody serves", &|| {
                    let record = "seamless-record 1 last=2\nend\n";
                    fs::write(direct.lock_file(), record).expect("a record");
                }),
            ];
            for (code, words, end) in ends {
                write_record(&direct, process::id(), " state=probation");
                let said = thread::scope(|scope| {
                    let timeout = if code == 1 { "--timeout=1s" } else { "--timeout=60s" };
                    let said = scope.spawn(|| seamless(verb, &direct.pid_file(), &[timeout]));
                    let question = daemon.accept();
                    question.text();
                    end();
                    question.send("seamless-takeover 1 accepted");
                    said.join().expect("no panic")
                });
                said.assert(code, &[words]);
            }
        }
    });
}

/// A takeover between its two questions: it waits for those that it told to end.
#[test]
fn p3_stop_waits_for_whom_it_told() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let daemon = Predecessor::unproven(&direct);
        let own = process::id();
        let mut other = Command::new("sleep").arg("1000").spawn().expect("sleep");
        write_record_of(&direct, &[(2, own, " state=serving")]);
        let said = thread::scope(|scope| {
            let said = scope.spawn(|| seamless("stop", &direct.pid_file(), &["--timeout=1s"]));
            let question = daemon.accept();
            question.text();
            let both = [(1, other.id(), " state=draining"), (2, own, " state=serving")];
            write_record_of(&direct, &both);
            let status = format!("status generation=2 state=serving daemon={own}");
            question.send(&format!("seamless-takeover 1 {status}"));
            let question = daemon.accept();
            question.text();
            question.send("seamless-takeover 1 accepted");
            said.join().expect("no panic")
        });
        let names = [(1, other.id()), (2, own)];
        let names =
            names.map(|(number, pid)| format!("generation {number} (daemon {pid}) still drains"));
        other.kill().and_then(|()| other.wait()).expect("its end");
        said.assert(5, &names.each_ref().map(String::as_str));
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
