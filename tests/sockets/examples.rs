//! The examples whose sockets are taken over, with all of their options.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    net::{SocketAddr, TcpStream, UdpSocket},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed},
    http::{self, Connection, FailureKind, Prober, Target},
    log::Log,
    process::Watched,
    supervisor::{Service, Supervisor, write_script},
    under_each_supervisor, wait_for,
};

/// How many requests it has answered, it says.
fn requests(admin: &Target) -> u64 {
    let answer = http::get(admin, "/requests").expect("an answer");
    answer.body.trim().parse().unwrap_or_else(|_| panic!("no number: {answer:?}"))
}

fn p2_takeover_takes_over_every_socket_and_its_count(supervisor: Supervisor, folder: &Path) {
    let web = Target::from(boxed::address());
    let admin = Target::from(boxed::address());
    let unix = Target::Unix(folder.join("web.sock"));
    let (program, log) = (bin::example("takeover"), folder.join("log"));
    let run = format!(
        "exec 2>>'{}'\nexec '{}' --pid-file '{}' --listen {web} --admin-listen {admin} \
         --unix-socket '{unix}' --workers 3",
        log.display(),
        program.display(),
        folder.join("web.pid").display(),
    );
    let service = Service::new(supervisor, folder.join("service"), &run);
    let old = http::wait_pid(&admin);
    for place in [&web, &unix] {
        assert_eq!(http::pid(place), old);
    }
    // Those three, and who asks.
    let before = requests(&admin);
    assert!(before >= 3, "{before}");

    service.settle();
    let daemon = Watched::new(old);
    service.restart();
    daemon.wait_end(LIMIT);
    let new = http::pid(&web);
    assert_ne!(new, old);
    for place in [&web, &unix, &admin] {
        assert_eq!(http::pid(place), new);
    }
    let after = requests(&admin);
    assert!(after > before, "{after} requests after {before}");
    let log = fs::read_to_string(log).expect("the log");
    let daemon = format!("daemon={new} ");
    let had = |from: &str| {
        let lines = log.lines().filter(|line| line.contains("stage=socket"));
        lines.filter(|line| line.contains(&daemon) && line.contains(from)).count()
    };
    assert_eq!((had("from=predecessor"), had("from=bound")), (5, 0), "{log}");
}

fn p2_udp_takes_over_its_socket(supervisor: Supervisor, folder: &Path) {
    let address = boxed::address();
    let (program, pid_file) = (bin::example("udp"), folder.join("web.pid"));
    let run = format!(
        "exec '{}' --pid-file '{}' --listen {address}",
        program.display(),
        pid_file.display()
    );
    let service = Service::new(supervisor, folder.join("service"), &run);
    let ask = udp_asker(address, Duration::from_millis(100));
    let old = wait_for("an answer", LIMIT, &ask);
    service.settle();
    let daemon = Watched::new(old);
    service.restart();
    daemon.wait_end(LIMIT);
    wait_for("an answer of another", LIMIT, || ask().filter(|pid| *pid != old));
}

/// Asks `examples/udp` who it is, and waits for so long.
fn udp_asker(address: SocketAddr, limit: Duration) -> impl Fn() -> Option<u32> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(address).expect("an address");
    socket.set_read_timeout(Some(limit)).expect("a timeout");
    move || {
        socket.send(b"hello").ok()?;
        let mut answer = [0; 100];
        let length = socket.recv(&mut answer).ok()?;
        let answer = std::str::from_utf8(&answer[..length]).expect("text");
        answer.strip_prefix("Server pid: ")?.strip_suffix("\nhello")?.parse().ok()
    }
}

/// While it stands by, the new one alone takes from their queue. When that one dies, it takes again.
fn p11_udp_leaves_the_queue_to_the_new_one(supervisor: Supervisor, folder: &Path) {
    let address = boxed::address();
    let (program, pid_file) = (bin::example("udp"), folder.join("web.pid"));
    let run = format!(
        "exec 2>>'{}'\nexec '{}' --pid-file '{}' --listen {address} --probation 10m",
        folder.join("log").display(),
        program.display(),
        pid_file.display()
    );
    let service = Service::new(supervisor, folder.join("service"), &run);
    let log = Log::of(folder);
    let ask = udp_asker(address, LIMIT);
    let old = wait_for("an answer", LIMIT, &ask);
    service.settle();
    service.restart();
    log.wait(&[("stage", "standby"), ("daemon", &old.to_string())]);
    // Its hook runs a moment later.
    let new = wait_for("an answer of the new one", LIMIT, || ask().filter(|pid| *pid != old));
    wait_for("the old one has parked", LIMIT, || (0..20).all(|_| ask() == Some(new)).then_some(()));
    for _ in 0..100 {
        assert_eq!(ask(), Some(new));
    }
    Watched::new(new).kill();
    // None of them is lost: what comes in between waits in the queue.
    let answers: BTreeSet<u32> = (0..20).map(|_| ask().expect("an answer")).collect();
    assert!(answers.contains(&old) && !answers.contains(&new), "{answers:?} of {old}");
    service.down();
    service.wait_down();
    Watched::new(old).wait_end(LIMIT);
}

/// `--crash-after 20` of the examples under load, and then a version that works.
fn p11_a_bad_version_of_an_example_and_then_a_good_one(supervisor: Supervisor, folder: &Path) {
    for name in ["http", "takeover"] {
        let (folder, address) = (folder.join(name), boxed::address());
        fs::create_dir(&folder).expect("a folder");
        let (log, target) = (Log::of(&folder), Target::from(address));
        let script = |options: &str| {
            format!(
                "exec 2>>'{}'\nexec '{}' --pid-file '{}' --listen {address} {options}",
                log.path().display(),
                bin::example(name).display(),
                folder.join("web.pid").display(),
            )
        };
        let service = Service::new(supervisor, folder.join("service"), &script(""));
        let old = http::wait_pid(&target);
        let probers: Vec<Prober> = (0..3).map(|_| Prober::start(&target)).collect();
        service.settle();
        let deploy = |options: &str| write_script(&service.folder().join("run"), &script(options));
        deploy("--probation 10m --crash-after 20");
        service.restart();
        log.wait_words(&["stage=candidate", "pause_ms"], 1);
        log.wait(&[("stage", "rollback"), ("daemon", &old.to_string()), ("tries", "1")]);
        for prober in &probers {
            prober.wait_pid(old);
        }
        deploy("--probation 10m");
        service.settle();
        service.restart();
        let mut by_new = 0;
        wait_for("the old one, which stands by, accepts nothing", LIMIT, || {
            by_new = if http::wait_pid(&target) == old { 0 } else { by_new + 1 };
            (by_new == 100).then_some(())
        });
        let mut commit = Command::new(bin::support("seamless"));
        let commit = commit.arg("commit").arg(folder.join("web.pid")).status();
        assert!(commit.expect("the command").success());
        Watched::new(old).wait_end(LIMIT);
        let (mut last, mut failed) = (0, 0);
        for prober in probers {
            prober.wait_more(3);
            let probes = prober.stop();
            let kinds = probes.failures_by_kind();
            assert_eq!(kinds.get(&FailureKind::Refused), None, "{kinds:?}");
            failed += kinds.values().sum::<usize>();
            last = *probes.pids().last().expect("an answer");
        }
        let died = log.with(&["stage=rollback", "failed_generation"]).len();
        assert!(failed <= 3 * died, "{failed}: more than the {died} that have died could hold");
        assert!(last != old && !Watched::new(last).has_ended());
        service.down();
        service.wait_down();
    }
}

/// A TXT question for `pid.example`, and the PID in its answer.
fn ask_dns(address: SocketAddr) -> Option<u32> {
    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    client.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
    client.connect(address).expect("an address");
    let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03pid\x07example\0\0\x10\0\x01";
    client.send(question).ok()?;
    let mut answer = [0; 500];
    let length = client.recv(&mut answer).ok()?;
    assert_eq!(&answer[..8], b"\x12\x34\x85\0\0\x01\0\x01");
    assert_eq!(&answer[12..question.len()], &question[12..]);
    let text = String::from_utf8_lossy(&answer[..length]);
    text.rsplit_once("Server pid: ")?.1.parse().ok()
}

/// Clients that never ask twice get each of their answers, over three restarts.
fn p14_dns_answers_every_question(supervisor: Supervisor, folder: &Path) {
    let address = boxed::address();
    let (program, pid_file) = (bin::example("dns"), folder.join("web.pid"));
    let run = format!(
        "exec '{}' --pid-file '{}' --listen {address}",
        program.display(),
        pid_file.display()
    );
    let service = Service::new(supervisor, folder.join("service"), &run);
    let first = wait_for("an answer", LIMIT, || ask_dns(address));
    service.settle();
    let stopping = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = BTreeSet::new();
                    while !stopping.load(Ordering::Relaxed) {
                        seen.insert(ask_dns(address).expect("an answer"));
                    }
                    seen
                })
            })
            .collect();
        let mut old = first;
        for _ in 0..3 {
            let daemon = Watched::new(old);
            service.restart();
            daemon.wait_end(LIMIT);
            // The old one has ended, so this is the new one.
            let new = ask_dns(address).expect("an answer");
            assert_ne!(new, old);
            old = new;
            service.settle();
        }
        stopping.store(true, Ordering::Relaxed);
        let seen: BTreeSet<u32> =
            clients.into_iter().flat_map(|one| one.join().expect("no panic")).collect();
        assert_eq!(seen.len(), 4, "{seen:?}");
    });
}

/// hyper ends a connection whose request body nobody has read, and the client's next request is lost.
#[test]
fn p2_the_http_examples_read_bodies_that_come_later() {
    Boxed::new().private_net_without_migration().run(|folder| {
        for name in ["http", "tls"] {
            let (folder, address) = (folder.join(name), boxed::address());
            fs::create_dir(&folder).expect("a folder");
            let (first, last) = match name {
                "http" => (folder.join("web.pid"), String::new()),
                _ => (folder.clone(), boxed::address().to_string()),
            };
            let run = format!(
                "exec '{}' '{}' {address} {last}",
                bin::example(name).display(),
                first.display(),
            );
            let _service = Service::new(Supervisor::Runit, folder.join("service"), &run);
            let target = Target::from(address);
            let pid = http::wait_pid(&target);
            let mut connection = Connection::to(&target);
            for _ in 0..300 {
                connection.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
                thread::yield_now();
                connection.send("hello");
                connection.read_until(&format!("\r\n\r\nServer pid: {pid}\n"));
            }
        }
    });
}

/// A line, or the head of a request, that has no end does not fill the memory.
#[test]
fn chat_and_ws_let_go_of_a_client_that_sends_no_end() {
    Boxed::new().private_net().run(|folder| {
        for name in ["chat", "ws"] {
            let (folder, address) = (folder.join(name), boxed::address());
            fs::create_dir(&folder).expect("a folder");
            let pid_file = folder.join("web.pid");
            let run = format!(
                "exec '{}' '{}' {address}",
                bin::example(name).display(),
                pid_file.display()
            );
            let _service = Service::new(Supervisor::Runit, folder.join("service"), &run);
            let mut client = wait_for("a connection", LIMIT, || TcpStream::connect(address).ok());
            client.set_write_timeout(Some(LIMIT)).expect("a time limit");
            let mut sent = 0;
            while client.write_all(&[b'x'; 4096]).is_ok() {
                sent += 4096;
                assert!(sent < 16 << 20, "{name} goes on reading");
            }
        }
    });
}

under_each_supervisor![
    Boxed::new().private_net_without_migration() =>
    p2_takeover_takes_over_every_socket_and_its_count,
    p2_udp_takes_over_its_socket,
    p11_udp_leaves_the_queue_to_the_new_one,
    p11_a_bad_version_of_an_example_and_then_a_good_one,
    p14_dns_answers_every_question,
];
