//! Restarts as clients see them: several servers, clients that never ask twice, certificates, examples.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed},
    http::{self, Connection, Target, answer_of},
    process::{self, Watched},
    scene,
    signal::TERM,
    strict::{self, Strict},
    supervisor::{Service, Supervisor},
    under_each_supervisor, wait_for,
};

use super::{Web, assert_ended, certificate, launch, wait_started};

#[test]
fn p2_several_servers_of_one_program_are_taken_over_together() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let (public, admin) = (boxed::address(), boxed::address());
        let path = folder.join("web.sock");
        let options =
            format!("--listen={public} --admin-listen={admin} --unix-socket='{}'", path.display());
        let mut web = Web::start(folder, options);
        let old = web.restart();
        assert_ended(&web, &old);
        let names =
            || [public, admin].map(|address| name(TcpStream::connect(address).expect("a server")));
        assert_eq!(names(), ["web", "admin"]);
        assert_eq!(name(UnixStream::connect(&path).expect("a server")), "unix");
        let sockets = web.log().stage("socket");
        let from = |daemon: u32, from: &str| {
            let daemon = daemon.to_string();
            sockets.iter().filter(|line| line.is(&[("daemon", &daemon), ("from", from)])).count()
        };
        assert_eq!((from(old.pid(), "bound"), from(web.daemon, "predecessor")), (3, 3));
    });
}

fn name(mut socket: impl Read + Write) -> String {
    let request = "GET /name HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
}

// ---- clients that never ask twice ----

#[derive(Clone, Copy, Debug)]
enum Way {
    Http1,
    Http2,
    Unix,
    Tls1,
    Tls2,
}

#[test]
fn p1_p2_p3_clients_that_never_retry_see_no_failure() {
    const RESTARTS: usize = 3;
    Boxed::new().private_net_without_migration().run(|folder| {
        let ways = [Way::Http1, Way::Http2, Way::Unix, Way::Tls1, Way::Tls2];
        let cases = ways.map(|way| (way, boxed::address()));
        scene::each(folder, cases, |folder, (way, address)| {
            let path = folder.join("web.sock");
            let tls = matches!(way, Way::Tls1 | Way::Tls2);
            let options = match way {
                Way::Http1 | Way::Http2 => format!("--listen={address}"),
                Way::Unix => format!("--unix-socket='{}'", path.display()),
                Way::Tls1 | Way::Tls2 => format!("--tls-listen={address}"),
            };
            let roots =
                tls.then(|| strict::trusting([certificate(folder)], matches!(way, Way::Tls2)));
            let target = match way {
                Way::Unix => Target::Unix(path),
                _ => Target::Tcp(address),
            };
            let mut web = Web::start(folder, options);
            let mut strict = Strict::new(&target).path("/?delay=5ms").clients(4);
            if let Way::Http2 | Way::Tls2 = way {
                strict = strict.clients(2).http2(20);
            }
            if let Some(roots) = roots {
                strict = strict.tls(roots);
            }
            let running = strict.start();
            for _ in 0..RESTARTS {
                running.wait_pid(web.daemon);
                running.wait_more(20);
                let old = web.restart();
                running.wait_pid(web.daemon);
                assert_ended(&web, &old);
            }
            running.stop().assert_clean(20 * RESTARTS as u64, RESTARTS + 1);
        });
    });
}

// ---- certificates ----

#[test]
fn p1_a_restart_picks_up_new_certificates_and_survives_wrong_ones() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let address = boxed::address();
        let clients = |certificate| {
            let target = Target::Tcp(address);
            Strict::new(&target).tls(strict::trusting([certificate], false))
        };
        let first = clients(certificate(folder));
        let mut web = Web::start(folder, format!("--tls-listen={address}"));
        let running = first.clone().start();
        running.wait_pid(web.daemon);

        fs::write(folder.join("cert.pem"), "no certificate\n").expect("cert.pem");
        web.hand_off();
        let mut failed = launch(folder, &web.options);
        assert!(!failed.wait().expect("its end").success());
        let log = web.log().to_string();
        assert!(log.contains("cannot use \"cert.pem\" (tls)"), "{log}");
        running.wait_more(10);
        running.stop().assert_clean(11, 1);

        let second = clients(certificate(folder));
        web.launcher = launch(folder, &web.options);
        let old = Watched::new(web.daemon);
        web.daemon = wait_started(folder, old.pid());
        assert_ended(&web, &old);
        let running = second.start();
        running.wait_pid(web.daemon);
        running.stop().assert_clean(1, 1);
        let refused = first.start();
        wait_for("a refusal of the new certificate", LIMIT, || {
            (refused.failed() > 0).then_some(())
        });
        assert_eq!(refused.stop().total(), 0);
        assert!(process::stat(web.daemon).is_some());
    });
}

// ---- the examples ----

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Example {
    Http,
    Grace,
    Tls,
}

fn p3_examples_across_a_restart(kind: Supervisor, folder: &Path) {
    let cases = [Example::Http, Example::Grace, Example::Tls];
    let cases = cases.map(|example| (example, boxed::address(), boxed::address()));
    scene::each(folder, cases, |folder, (example, address, tls_address)| {
        let place = folder.display();
        let (name, first, last) = match example {
            Example::Http => ("http", "web.pid", String::new()),
            Example::Grace => ("grace", "web.pid", tls_address.to_string()),
            Example::Tls => ("tls", "", tls_address.to_string()),
        };
        let program = bin::example(name).display().to_string();
        let run = format!(
            "exec >>'{place}/log' 2>&1\nexec '{program}' '{place}/{first}' {address} {last}"
        );
        let service = Service::new(kind, folder.join("service"), &run);
        let first = wait_started(folder, 0);
        let slow = (example == Example::Grace).then(|| {
            let slow = Connection::ask(&Target::from(address), "/sleep/?duration=3s");
            curl(&format!("http://{address}/sleep/"), &[]); // it has been accepted before this one
            slow
        });
        let secure = || {
            let url = format!("https://localhost:{}/", tls_address.port());
            let resolve = format!("localhost:{}:127.0.0.1", tls_address.port());
            let authority = format!("{place}/cert.pem");
            curl(&url, &["--resolve", &resolve, "--cacert", &authority])
        };
        if example == Example::Tls {
            assert_eq!(secure(), format!("Server pid: {first}\n"));
        }
        service.settle();
        service.restart();
        let second = wait_started(folder, first);
        let path = if example == Example::Grace { "sleep/?duration=0s" } else { "" };
        let url = format!("http://{address}/{path}");
        let quick = wait_for("an answer of the new one", LIMIT, || {
            let answer = curl(&url, &[]);
            answer.starts_with(&format!("Server pid: {second}\n")).then_some(answer)
        });
        if example == Example::Tls {
            wait_for("the new one, with the old certificate", LIMIT, || {
                (secure() == format!("Server pid: {second}\n")).then_some(())
            });
        }
        if let Some(slow) = slow {
            let slow = slow.response().expect("an answer").body;
            assert!(slow.starts_with(&format!("Server pid: {first}\nstarted at ")), "{slow}");
            let started = |body: &str| body.split(' ').nth(4).map(str::to_owned);
            assert!(started(&slow) < started(&quick), "{slow}{quick}");
        }
        Watched::new(first).wait_end(LIMIT);
    });
}

/// Else each connection of the successor would wake it, though it accepts none. Beside that, it hears each 100 ms that
/// its successor is well, and checks each second.
#[test]
fn p11_who_stands_by_is_not_woken_by_what_its_successor_serves() {
    const REQUESTS: usize = 600;
    Boxed::new().private_net().run(|folder| {
        let address = boxed::address();
        let target = Target::from(address);
        let mut web = Web::start(folder, format!("--listen={address} --probation=10m"));
        let first = Watched::new(web.daemon);
        assert_eq!(http::pid(&target), first.pid());
        web.hand_off();
        web.launcher = launch(folder, &format!("--listen={address} --probation=10m"));
        web.daemon = wait_started(folder, first.pid());
        web.log().wait(&[("stage", "standby"), ("daemon", &first.pid().to_string())]);
        // It may take what comes before it has parked.
        let mut row = 0;
        while row < 20 {
            row = if http::pid(&target) == web.daemon { row + 1 } else { 0 };
        }
        let switches = || process::voluntary_switches(first.pid()).expect("it stands by");
        let (before, began) = (switches(), Instant::now());
        for _ in 0..REQUESTS {
            assert_eq!(http::pid(&target), web.daemon);
        }
        let hundreds = 1 + began.elapsed().as_millis() as u64 / 100;
        let woken = switches().saturating_sub(before);
        let most = REQUESTS as u64 / 3 + 4 * hundreds;
        assert!(woken <= most, "woken {woken} times within {:?}\n{}", began.elapsed(), web.log());
        // It accepts again as soon as its successor has died.
        Watched::new(web.daemon).kill();
        wait_for("an answer of the first one", LIMIT, || {
            (http::get(&target, "/").ok()?.pid? == first.pid()).then_some(())
        });
        assert_eq!(http::pid(&target), first.pid());
        first.signal(TERM);
        first.wait_end(LIMIT);
    });
}

/// The body of an answer with status 200.
fn curl(url: &str, options: &[&str]) -> String {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "50"]).args(options).arg(url);
    let done = curl.stdin(Stdio::null()).output().expect("curl; run scripts/setup");
    let trouble = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{url}: {trouble}");
    String::from_utf8(done.stdout).expect("text")
}

under_each_supervisor![
    Boxed::new().private_net_without_migration() =>
    p3_examples_across_a_restart
];

#[test]
fn p3_what_serve_does_can_be_done_in_three_steps() {
    Boxed::new().private_net().run(|folder| {
        let (address, other) = (boxed::address(), boxed::address());
        let options =
            format!("--steps=3 --listen={address} --unix-socket=web.sock --listen={other}");
        let mut web = Web::start(folder, options);
        let target = Target::from(address);
        let mut request = Connection::unfinished(&target);
        request.wait_accepted(web.daemon);
        let old = web.restart();
        assert!(request.answer().ends_with(&answer_of(old.pid())));
        old.wait_end(LIMIT);
        assert_eq!(http::pid(&target), web.daemon);
        for daemon in [old.pid(), web.daemon] {
            let line = web.log().wait(&[("stage", "bound"), ("daemon", &daemon.to_string())]);
            let at: Vec<_> = line.field("at").expect("addresses").split(',').collect();
            assert_eq!([at[0], at[2]], [address.to_string(), other.to_string()]);
            assert!(at[1].ends_with("web.sock"), "{at:?}");
            assert_eq!(line.field("state"), Some("Starting"));
        }
    });
}
