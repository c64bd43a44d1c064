//! The support crate does what the other tests rely on.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::{CommandExt, ExitStatusExt},
    panic::catch_unwind,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use seamless_campaigns::port::ReservedPort;
use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed, Isolation},
    http::{self, Connection, FailureKind, Prober, Target},
    process::{self, Watched},
    report::Report,
    supervisor::{self, Service, Supervisor, Want},
    under_each_supervisor, wait_for,
};
use socket2::{Domain, Socket, Type};

/// Makes a test of each function, for every kind of box.
macro_rules! in_each_isolation {
    ($($scenario:ident),+) => {
        in_each_isolation![@module namespaces, Namespaces, $($scenario),+];
        in_each_isolation![@module user_namespaces, UserNamespaces, $($scenario),+];
        in_each_isolation![@module sweep, Sweep, $($scenario),+];
    };
    (@module $module:ident, $isolation:ident, $($scenario:ident),+) => {
        mod $module {
            use seamless_testing::boxed::{self, Boxed, Isolation};
            $(
                #[test]
                fn $scenario() {
                    let isolation = Isolation::$isolation;
                    // Some are for root, some machines allow none but the last.
                    if boxed::folder().is_some() || isolation.works() {
                        super::$scenario(isolation, Boxed::new().isolation(isolation));
                    }
                }
            )+
        }
    };
}

in_each_isolation![
    a_box_that_fails_tells_why_and_leaves_nothing,
    a_box_ends_at_its_limit,
    a_box_that_passes_is_one_of_its_own
];

fn sleeper() -> Child {
    Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().expect("sleep")
}

/// The folder that a box printed before it failed, and that nothing of the box is left.
#[track_caller]
fn assert_nothing_left(output: &str) {
    let folder =
        output.lines().find_map(|line| line.strip_prefix("folder ")).expect("the folder's line");
    let folder = Path::new(folder);
    assert!(folder.is_absolute());
    assert!(
        !folder.parent().expect("the box's outer folder").exists(),
        "{} stays",
        folder.display()
    );
    assert_eq!(members(folder), []);
}

fn members(folder: &Path) -> Vec<u32> {
    let pids = process::all().into_iter().map(|stat| stat.pid);
    pids.filter(|&pid| {
        process::variable(pid, "SEAMLESS_TEST_BOX").is_some_and(|value| Path::new(&value) == folder)
    })
    .collect()
}

fn a_box_that_fails_tells_why_and_leaves_nothing(_: Isolation, boxed: Boxed) {
    let failure = boxed.try_run(|folder| {
        println!("folder {}", folder.display());
        fs::write(folder.join("file"), "content").expect("a file");
        let start = "sleep 1000 & setsid --fork sleep 2000";
        Command::new("sh").args(["-c", start]).status().expect("sh");
        wait_for("both sleep", LIMIT, || {
            let sleeps = |pid: &u32| process::command_line(*pid).starts_with(&["sleep".into()]);
            (members(folder).iter().filter(|pid| sleeps(pid)).count() == 2).then_some(())
        });
        panic!("as planned");
    });
    let output = failure.expect_err("the closure panics");
    assert!(output.contains("as planned"), "{output}");
    assert!(output.contains(": sleep 1000") && output.contains(": sleep 2000"), "{output}");
    assert_nothing_left(&output);
}

fn a_box_ends_at_its_limit(_: Isolation, boxed: Boxed) {
    let failure = boxed.limit(Duration::from_secs(2)).try_run(|folder| {
        println!("folder {}", folder.display());
        sleeper().wait().expect("sleep runs on");
    });
    let output = failure.expect_err("the closure runs on");
    assert!(output.contains("did not end within 2s"), "{output}");
    assert!(output.contains(": sleep 1000"), "{output}");
    assert_nothing_left(&output);
}

fn a_box_that_passes_is_one_of_its_own(isolation: Isolation, boxed: Boxed) {
    boxed.run(|folder| {
        assert_eq!(boxed::folder().as_deref(), Some(folder));
        assert_eq!(env::temp_dir(), folder);
        assert!(folder.as_os_str().len() < 64, "too long for a Unix socket in it");
        assert_eq!(boxed::by_root(), isolation == Isolation::Namespaces);
        if isolation != Isolation::Sweep {
            let init = process::stat(1).expect("an init");
            assert_eq!((init.comm.as_str(), process::all().len()), ("init", 2));
            // Nor does it see what others have left there, or leave anything.
            assert_eq!(fs::read_dir("/dev/shm").expect("a folder").count(), 0);
            fs::write("/dev/shm/left", "").expect("a file");
        }
        let orphan =
            Command::new("sh").args(["-c", "sleep 1000 >&- 2>&- & echo $!"]).output().expect("sh");
        let orphan: u32 = String::from_utf8_lossy(&orphan.stdout).trim().parse().expect("a PID");
        process::signal(orphan, 9);
        wait_for("the orphan is reaped", LIMIT, || process::stat(orphan).is_none().then_some(()));
    });
    assert!(!Path::new("/dev/shm/left").exists());
}

#[test]
fn a_box_whose_test_does_not_run_has_failed() {
    let stranger = thread::Builder::new().name("no_such_test".into());
    let failure = stranger
        .spawn(|| Boxed::new().try_run(|_| {}))
        .expect("a thread")
        .join()
        .expect("no panic");
    let output = failure.expect_err("no such test");
    assert!(output.contains("no_such_test never ran"), "{output}");
}

#[test]
fn a_test_has_one_box() {
    let second = || boxed::run(|_| {});
    boxed::run(|_| {});
    catch_unwind(second).expect_err("the second");
}

#[test]
fn a_box_without_write_permission_is_removed() {
    let failure = Boxed::new().try_run(|folder| {
        println!("folder {}", folder.display());
        let locked = folder.join("locked");
        fs::create_dir_all(locked.join("inner")).expect("a folder");
        Command::new("chmod").args(["-R", "a-w"]).arg(&locked).status().expect("chmod");
        panic!("as planned");
    });
    assert_nothing_left(&failure.expect_err("the closure panics"));
}

#[test]
fn a_box_ends_with_the_program_that_made_it() {
    const PLACE: &str = "HARNESS_PLACE";
    if let Some(place) = env::var_os(PLACE) {
        boxed::run(|folder| {
            fs::write(place, folder.as_os_str().as_encoded_bytes()).expect("the place");
            sleeper().wait().expect("sleep runs on");
        });
        return;
    }
    boxed::run(|folder| {
        let place = folder.join("place");
        let mut maker = Command::new(env::current_exe().expect("our binary"))
            .args(["a_box_ends_with_the_program_that_made_it", "--exact", "--nocapture"])
            .env(PLACE, &place)
            .env_remove("SEAMLESS_TEST_BOX")
            .spawn()
            .expect("the maker");
        let within = wait_for("a box in the box with three processes", LIMIT, || {
            let inner = PathBuf::from(fs::read_to_string(&place).ok()?);
            let members = members(&inner);
            // The init, the test's binary and its child.
            (members.len() >= 3).then(|| members.into_iter().map(Watched::new).collect::<Vec<_>>())
        });
        maker.kill().expect("KILL");
        maker.wait().expect("its end");
        within.iter().for_each(|process| process.wait_end(LIMIT));
    });
}

#[test]
fn a_private_network_resets_nothing_that_is_queued() {
    Boxed::new().private_net_without_migration().run(|_| {
        assert!(answered_after_one_of_two_listeners_closes() < 64, "Linux as it is by default");
        fs::write("/proc/sys/net/ipv4/tcp_migrate_req", "1").expect("the sysctl");
        assert_eq!(answered_after_one_of_two_listeners_closes(), 64);
    });
}

#[test]
fn a_private_network_is_ready() {
    Boxed::new().private_net().run(|_| {
        let migrates =
            fs::read_to_string("/proc/sys/net/ipv4/tcp_migrate_req").expect("the sysctl");
        assert_eq!(migrates.trim(), "1");
        let listener = TcpListener::bind("127.0.0.1:80").expect("every port is free");
        TcpStream::connect("127.0.0.1:80").expect("the loopback is up");
        listener.accept().expect("a connection");
    });
}

fn answered_after_one_of_two_listeners_closes() -> usize {
    let listen = |address: std::net::SocketAddr| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_port(true).expect("SO_REUSEPORT");
        socket.bind(&address.into()).expect("a port");
        socket.listen(128).expect("a listener");
        TcpListener::from(socket)
    };
    let closing = listen("127.0.0.1:0".parse().expect("an address"));
    let address = closing.local_addr().expect("its address");
    let staying = listen(address);
    let clients: Vec<TcpStream> =
        (0..64).map(|_| TcpStream::connect(address).expect("queued")).collect();
    drop(closing);
    staying.set_nonblocking(true).expect("O_NONBLOCK");
    // Both ends of a connection are open until all have been counted.
    let accepted: Vec<_> = std::iter::from_fn(|| staying.accept().ok()).collect();
    drop(clients);
    accepted.len()
}

/// Serves each connection by `answer`, until the test ends.
fn serve(answer: impl Fn(TcpStream) + Send + 'static) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = listener.local_addr().expect("its address").into();
    thread::spawn(move || listener.incoming().flatten().for_each(answer));
    target
}

fn answer(mut connection: TcpStream, text: &str) {
    let _ = connection.read(&mut [0; 1024]);
    let _ = connection.write_all(text.as_bytes());
}

#[test]
fn a_request_tells_each_failure_apart() {
    let kind = |target: &Target| {
        http::get_within(Duration::from_millis(300), target, "/").expect_err("a failure").kind
    };
    let text = |text: &'static str| serve(move |connection| answer(connection, text));

    let nobody = ReservedPort::new().expect("a port");
    assert_eq!(kind(&nobody.address().into()), FailureKind::Refused);
    assert_eq!(kind(&Path::new("/nonexistent/socket").into()), FailureKind::Missing);
    assert_eq!(kind(&text("")), FailureKind::Closed);
    assert_eq!(
        kind(&text("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfour")),
        FailureKind::Closed
    );
    assert_eq!(kind(&text("HTTP/1.1 200 OK\r\n\r\n")), FailureKind::Unexpected);
    // What is closed with unread bytes is reset.
    assert_eq!(kind(&serve(|mut connection| drop(connection.read(&mut [0])))), FailureKind::Reset);
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    assert_eq!(kind(&silent.local_addr().expect("its address").into()), FailureKind::TimedOut);

    let good = text("HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\nServer pid: 7\n");
    let response = http::get(&good, "/").expect("an answer");
    assert_eq!((response.status, response.pid), (200, Some(7)));
    assert_eq!(http::pid(&good), 7);
    assert_eq!(Connection::ask(&good, "/").response().expect("an answer").body, "Server pid: 7\n");
}

#[test]
fn the_prober_sees_servers_and_failures() {
    let count = Arc::new(AtomicUsize::new(0));
    let target = serve({
        let count = count.clone();
        move |connection| match count.fetch_add(1, Ordering::Relaxed) {
            0..3 => {
                answer(connection, "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\nServer pid: 7\n")
            }
            3 => answer(connection, "HTTP/1.1 503 No\r\nContent-Length: 14\r\n\r\nServer pid: 7\n"),
            4 => answer(connection, ""),
            _ => answer(connection, "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\nServer pid: 8\n"),
        }
    });
    let prober = Prober::start(&target);
    prober.wait_pid(8);
    prober.wait_more(2);
    let probes = prober.stop();
    assert_eq!(probes.pids(), [7, 8]);
    assert_eq!(
        probes.failures_by_kind(),
        BTreeMap::from([(FailureKind::Closed, 1), (FailureKind::Unexpected, 1)])
    );
    assert_eq!(probes.requests(), count.load(Ordering::Relaxed));
    assert!(probes.answers.is_sorted_by_key(|answer| answer.at));
    catch_unwind(|| probes.assert_all_answered()).expect_err("two failed");

    let prober = Prober::start(&target);
    prober.wait_more(5);
    prober.stop().assert_all_answered();
    let nobody = ReservedPort::new().expect("a port");
    let nobody = Prober::start(&nobody.address().into()).stop();
    catch_unwind(|| nobody.assert_all_answered()).expect_err("nobody answered");
}

#[test]
fn waiting_names_what_did_not_happen() {
    let mut looks = 0;
    let third = wait_for("the third look", LIMIT, || {
        looks += 1;
        (looks == 3).then_some(looks)
    });
    assert_eq!(third, 3);
    let never = || wait_for("pigs fly", Duration::from_millis(10), || None::<()>);
    let panic = catch_unwind(never).expect_err("they do not");
    assert_eq!(panic.downcast_ref::<String>().expect("a text"), "not within 10ms: pigs fly");
}

#[test]
fn facts_about_processes() {
    boxed::run(|_| {
        let script = "trap '' HUP; trap : USR1; echo ready; read line; echo $line";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .env("COLOUR", "green=blue")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh");
        let pid = child.id();
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        assert_eq!(
            line,
            "ready
"
        );

        let own = process::stat(std::process::id()).expect("ourselves");
        let stat = process::stat(pid).expect("the shell");
        assert_eq!((stat.pid, stat.ppid, stat.comm.as_str()), (pid, own.pid, "sh"));
        assert_eq!((stat.threads, stat.group, stat.session), (1, pid, own.session));
        assert!(stat.start_ticks >= own.start_ticks);
        assert_eq!(process::command_line(pid), ["sh", "-c", script]);
        assert_eq!(process::variable(pid, "COLOUR").as_deref(), Some("green=blue"));
        assert_eq!(process::variable(pid, "COLOR"), None);
        assert_eq!(process::children(own.pid), [pid]);
        assert!(process::descendants(1).contains(&pid));

        let descriptors = process::descriptors(pid);
        let numbers: Vec<i32> = descriptors.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [0, 1, 2]);
        assert!(descriptors[0].1.to_string_lossy().starts_with("pipe:"), "{descriptors:?}");

        let signals = process::signals(pid).expect("its signals");
        assert!(
            signals.ignored.contains(1)
                && signals.caught.contains(10)
                && !signals.caught.contains(12)
        );
        assert!(signals.blocked.is_empty() && signals.pending.is_empty());

        let dirty = process::private_dirty(pid).expect("its memory");
        assert!((4096..4 << 20).contains(&dirty), "{dirty} bytes");
        let share = process::proportional(pid).expect("its memory");
        assert!((dirty..16 << 20).contains(&share), "{share} bytes, {dirty} of them private");
        let switches = process::voluntary_switches(pid).expect("its switches");
        process::signal(pid, 1);
        assert_eq!(
            process::voluntary_switches(pid),
            Some(switches),
            "an ignored signal wakes nobody"
        );
        child.stdin.take().expect("its input").write_all(b"hello\n").expect("a line");
        let watched = Watched::new(pid);
        watched.wait_end(LIMIT);
        let zombie = process::stat(pid).expect("not reaped yet");
        assert_eq!(zombie.state, 'Z');
        line.clear();
        output.read_line(&mut line).expect("a line");
        assert_eq!(
            line,
            "hello
"
        );
        assert!(child.wait().expect("its end").success());
        assert!(watched.has_ended() && !watched.signal(9));
        assert!(Watched::new(pid).has_ended() && process::stat(pid).is_none());
    });
}

#[test]
fn every_catchable_signal_can_be_sent() {
    boxed::run(|_| {
        assert_eq!(process::catchable_signals().count(), 56);
        for signal in [1, 15, 34, 64, 9] {
            let mut child = sleeper();
            let watched = Watched::new(child.id());
            assert!(!watched.has_ended());
            assert!(watched.signal(signal));
            watched.wait_end(LIMIT);
            assert_eq!(child.wait().expect("its end").signal(), Some(signal));
        }
    });
}

#[test]
fn the_probe_plays_and_reports() {
    Boxed::new().private_net().run(|folder| {
        let report = Report::new(folder.join("report"));
        let address = boxed::address();
        let mut probe = Command::new(bin::probe())
            .args([
                "--pid-file=",
                "--exit-code=7",
                "--on=10=call:restart",
                "--at=shutdown=sleep:1ms",
            ])
            .arg(format!("--report={}", report.path().display()))
            .arg(format!("--listen={address}"))
            .spawn()
            .expect("the probe");
        let pid = probe.id();
        assert_eq!(report.wait("init").number(), u64::from(std::process::id()));
        report.wait_of(pid, "started");
        assert_eq!(http::pid(&address.into()), pid);
        let slow = Connection::ask(&address.into(), "/?delay=300ms");
        assert_eq!(report.wait("request").text, "/?delay=300ms");
        process::signal(pid, 10);
        assert_eq!(report.wait("signal").number(), 10);
        assert!(report.wait("called").text.starts_with("restart error"), "{report}");
        process::signal(pid, 15);
        assert_eq!(slow.response().expect("an answer").pid, Some(pid));
        report.wait_of(pid, "wait");
        assert_eq!(probe.wait().expect("its end").code(), Some(7));
        let names = ["init", "started", "request", "signal", "called", "hook", "wait"];
        assert_eq!(report.names_of(pid), names);
        assert_eq!(report.named("hook").len(), 1);
        assert_eq!(
            http::get(&address.into(), "/").expect_err("it has ended").kind,
            FailureKind::Refused
        );
    });
}

#[test]
fn the_probe_ends_as_told() {
    boxed::run(|_| {
        let end = |options: &[&str]| {
            let mut probe = Command::new(bin::probe());
            let status = probe.arg("--pid-file=").args(options).status().expect("the probe");
            (status.code(), status.signal())
        };
        assert_eq!(end(&["--at=before-init=exit:4"]), (Some(4), None));
        assert_eq!(end(&["--at=after-init=panic"]), (Some(101), None));
        assert_eq!(end(&["--at=started=abort"]), (None, Some(6)));
        for signal in [1, 9, 11, 40] {
            assert_eq!(end(&[&format!("--at=started=raise:{signal}")]), (None, Some(signal)));
        }
        assert_eq!(
            end(&["--on=10=panic", "--at=started=raise:10"]).1,
            Some(10),
            "`raise` skips the handler"
        );
        assert_eq!(end(&["--at=started"]), (Some(100), None));
    });
}

fn starts_restarts_and_stops(kind: Supervisor, folder: &Path) {
    let mut service = Service::new(kind, folder.join("service"), "exec sleep 1000");
    assert_eq!(process::stat(service.supervisor_pid()).expect("a supervisor").comm, kind.program());
    let first = service.main_pid();
    assert_eq!(process::stat(first).expect("a process").ppid, service.supervisor_pid());
    assert_eq!(service.status().want, Want::Up);
    service.settle();
    assert_eq!(service.main_pid(), first);

    let watched = Watched::new(first);
    service.restart();
    let second = service.main_pid_after(first);
    assert!(watched.has_ended());
    service.control(if kind == Supervisor::Runit { "kill" } else { "-k" });
    let third = service.main_pid_after(second);

    let watched = Watched::new(third);
    service.down();
    service.wait_down();
    assert!(watched.has_ended());
    assert_eq!(service.status().want, Want::Down);
    service.up();
    let fourth = Watched::new(service.main_pid());
    service.exit();
    assert!(service.wait_exit().success());
    assert!(fourth.has_ended());
}

fn main_process_outlives_its_supervisor(kind: Supervisor, folder: &Path) {
    let mut service = Service::new(kind, folder.join("service"), "exec sleep 1000");
    let orphan = Watched::new(service.main_pid());
    // Until it has executed `run`, it shares the supervisor's lock, and no other one could have it.
    wait_for("it runs", LIMIT, || {
        process::command_line(orphan.pid()).contains(&"1000".to_owned()).then_some(())
    });
    let supervisor = service.supervisor_pid();
    service.kill_supervisor();
    wait_for("the orphan has a new parent", LIMIT, || {
        (process::stat(orphan.pid())?.ppid != supervisor).then_some(())
    });
    service.start_supervisor();
    let second = service.main_pid_after(orphan.pid());
    assert!(!orphan.has_ended());
    let second = Watched::new(second);
    drop(service);
    second.wait_end(LIMIT);
    assert!(!orphan.has_ended(), "it was nobody's when the service was dropped");
}

fn run_script_can_be_replaced(kind: Supervisor, folder: &Path) {
    let original = folder.join("original");
    fs::create_dir(&original).expect("a folder");
    supervisor::write_script(&original.join("run"), "echo one >>out; exec sleep 1000");
    fs::create_dir(original.join("supervise")).expect("what a supervisor left");
    supervisor::copy_folder(&original, &folder.join("copy"));
    let service = Service::supervise(kind, folder.join("copy"));
    let out = || fs::read_to_string(folder.join("copy/out")).unwrap_or_default();
    wait_for("the first run", LIMIT, || (out() == "one\n").then_some(()));
    supervisor::write_script(
        &service.folder().join("run"),
        "#!/bin/sh -e\necho two >>out\nexec sleep 1000",
    );
    service.restart();
    wait_for("the second run", LIMIT, || (out() == "one\ntwo\n").then_some(()));
    assert!(!original.join("out").exists());
}

under_each_supervisor![
    starts_restarts_and_stops,
    main_process_outlives_its_supervisor,
    run_script_can_be_replaced
];
