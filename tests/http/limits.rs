//! The limits of a server, and the hammer.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    mem::MaybeUninit,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use seamless_testing::{
    LIMIT,
    boxed::{self, Boxed},
    process::Watched,
    scene,
    signal::{KILL, TERM, USR2},
    wait_for,
};

use super::{Answers as _, GET, Web, assert_took, certificate, connect_to};

#[test]
fn limits_are_kept_to() {
    Boxed::new().private_net().run(|folder| {
        let address = boxed::address();
        let options = "--header-timeout=1s --keep-alive=1s --request-timeout=300ms \
            --max-header-size=8192";
        let web = Web::start(folder, format!("--listen={address} {options}"));
        let connect = || connect_to(address);
        let (mut silent, mut slow, mut idle) = (connect(), connect(), connect());
        slow.send("GET /");
        idle.send(GET);
        idle.answer_of(web.daemon);
        let mut late = connect();
        late.send("GET /?delay=1h HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = late.read_until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        let mut large = connect();
        large.send("GET / HTTP/1.1\r\nHost: ");
        _ = large.socket().write_all(&[b'a'; 9000]); // it may end meanwhile
        let head = large.read_until("\r\n");
        assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
        let mut named = connect();
        named.send("GET /peer HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let own = named
            .socket()
            .local_addr()
            .expect("our address")
            .as_socket()
            .expect("of IP")
            .to_string();
        named.read_until(&format!("\r\n\r\n{own}"));
        for one in [&mut silent, &mut slow, &mut idle] {
            one.ends();
        }

        let few = folder.join("few");
        fs::create_dir(&few).expect("a folder");
        let address = boxed::address();
        let web = Web::start(&few, format!("--listen={address} --max-connections=2"));
        let mut two = [connect_to(address), connect_to(address)];
        for one in &mut two {
            one.send(GET);
            one.answer_of(web.daemon);
        }
        let mut third = connect_to(address);
        third.send(GET);
        third.socket().set_read_timeout(Some(Duration::from_millis(200))).expect("a limit");
        let nothing = third.socket().read(&mut [0]).expect_err("there are two already");
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        third.socket().set_read_timeout(Some(LIMIT)).expect("a limit");
        drop(two);
        third.answer_of(web.daemon);
    });
}

#[test]
fn what_the_hammer_cuts_is_seen_to_be_cut() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let two = || [boxed::address(), boxed::address()];
        let cases = [("300ms", false, two()), ("1h", true, two())];
        scene::each(folder, cases, |folder, (limit, by_hand, [address, secure])| {
            certificate(folder);
            let options = format!("--listen={address} --tls-listen={secure} --drain-timeout={limit}");
            let mut web = Web::start(folder, options);
            let endless = "/download?pieces=1000000&every=1ms";
            let ask = |query: &str, version: &str| {
                let mut raw = connect_to(address);
                raw.send(&format!("GET {endless}{query} HTTP/{version}\r\nHost: a\r\n\r\n"));
                let head = raw.read_until("\r\n\r\n").to_ascii_lowercase();
                raw.skip();
                (raw, head)
            };
            let (chunked, head) = ask("", "1.1");
            assert!(head.contains("transfer-encoding: chunked"), "{head}");
            let (measured, head) = ask("&length=", "1.1");
            assert!(head.contains("content-length: 1000000000"), "{head}");
            // Its body ends with the connection.
            let (ancient, head) = ask("", "1.0");
            assert!(!head.contains("content-length") && !head.contains("chunked"), "{head}");
            let mut uploading = connect_to(address);
            uploading.send(
                "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
            );
            // The app reads it.
            assert!(uploading.read_until("\r\n\r\n").starts_with("HTTP/1.1 100 "));
            uploading.skip();
            uploading.send("1");
            let mut others = [
                ("http", address, ["--http2-prior-knowledge", "--no-alpn"]),
                ("https", secure, ["--http2", "--alpn"]),
                ("https", secure, ["--http1.0", "--no-alpn"]),
            ]
            .map(|(scheme, address, version)| {
                let into = folder.join(format!("{scheme}{}", version.concat()));
                let mut curl = Command::new("curl");
                curl.args(["--silent", "--insecure", "--no-buffer", "--output"]).arg(&into);
                let curl = curl.args(version).arg(format!("{scheme}://{address}{endless}")).spawn();
                (curl.expect("curl; run scripts/setup"), into)
            });
            for (_, into) in &others {
                wait_for(format!("something in {into:?}"), LIMIT, || {
                    fs::metadata(into).is_ok_and(|file| file.len() > 0).then_some(())
                });
            }
            let old = web.restart();
            if by_hand {
                old.signal(USR2);
            }
            for answer in [chunked, measured, ancient] {
                let (bytes, end) = answer.read_to_failure();
                assert!(!bytes.ends_with(b"\r\n0\r\n\r\n") && bytes.len() < 1_000_000_000);
                assert_eq!(end, Some(ErrorKind::ConnectionReset));
            }
            assert_eq!(uploading.read_to_failure(), (Vec::new(), Some(ErrorKind::ConnectionReset)));
            for (curl, into) in &mut others {
                assert!(!curl.wait().expect("its end").success(), "{into:?} looks whole");
            }
            old.wait_end(LIMIT);
            let reason = if by_hand { "USR2" } else { "drain_timeout" };
            web.log().wait(&[("stage", "hammer"), ("reason", reason), ("exit_code", "124")]);
            web.log().wait(&[("stage", "hammer"), ("connections", "7"), ("cut", "7")]);
        });
    });
}

/// Nor does it need the runtime, which is what hangs as often as not, or the program's own hooks.
#[test]
fn the_hammer_cuts_where_the_runtime_is_held_up() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let address = boxed::address();
        let options = format!("--listen={address} --drain-timeout=300ms --threads=1");
        let mut web =
            Web::start(folder, format!("{options} --hang-before=first --hang-before=hammer"));
        let asked = |path: &str| {
            let mut raw = connect_to(address);
            raw.send(&format!("GET {path} HTTP/1.0\r\n\r\n"));
            raw
        };
        let mut idle = connect_to(address);
        idle.send(GET);
        idle.answer_of(web.daemon);
        // Its body ends with the connection.
        let mut download = asked("/download?pieces=1000000&every=1ms");
        download.read_until("xxx");
        let blocked = asked("/block");
        web.log().wait(&[("stage", "block")]);
        let old = web.restart();
        let (_, end) = download.read_to_failure();
        assert_eq!(end, Some(ErrorKind::ConnectionReset));
        assert_eq!(blocked.read_to_failure(), (Vec::new(), Some(ErrorKind::ConnectionReset)));
        // Nothing of it was cut.
        assert_eq!(idle.read_to_failure(), (Vec::new(), None));
        old.wait_end(LIMIT);
        web.log().wait(&[("stage", "hammer"), ("connections", "3"), ("cut", "2")]);
    });
}

/// It stops itself, so that no hammer can fall.
#[test]
fn the_launcher_kills_a_daemon_that_outlives_the_limit_of_its_server() {
    Boxed::new().private_net().run(|folder| {
        use std::os::unix::process::ExitStatusExt;
        let options = format!("--listen={} --drain-timeout=100ms", boxed::address());
        let mut web = Web::start(folder, format!("{options} --stop-before=drain"));
        let (daemon, begin) = (Watched::new(web.daemon), Instant::now());
        daemon.signal(TERM);
        assert_eq!(web.launcher.wait().expect("its end").signal(), Some(KILL));
        assert_took(begin, Duration::from_millis(5100));
        web.log().wait(&[("stage", "kill"), ("daemon", &daemon.pid().to_string())]);
        assert!(daemon.has_ended());
    });
}

/// The timer of an idle connection and the word that something has come reach the server in any order.
#[test]
fn p2_what_has_come_before_an_idle_connection_ends_is_answered() {
    Boxed::new().private_net().run(|folder| {
        let address = boxed::address();
        let keep_alive = Duration::from_millis(500);
        let web = Web::start(folder, format!("--listen={address} --threads=1 --keep-alive=500ms"));
        let mut other = connect_to(address);
        other.send("GET /busy?time=20ms HTTP/1.1\r\nHost: a\r\n\r\n");
        other.answer_of(web.daemon);
        let ask = |number: u32| {
            let mut connection = connect_to(address);
            connection.send(GET);
            connection.answer_of(web.daemon);
            // Somewhere in the time in which the server is about to end it.
            thread::sleep(keep_alive + Duration::from_millis(1) * number);
            let socket = connection.socket();
            socket.set_nonblocking(true).expect("a socket");
            let has_ended = matches!(socket.peek(&mut [MaybeUninit::uninit()]), Ok(0));
            socket.set_nonblocking(false).expect("a socket");
            (!has_ended).then(|| {
                let last = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
                let sent = connection.socket().write_all(last.as_bytes());
                let (answer, _) = connection.read_to_failure();
                sent.is_ok() && answer.starts_with(b"HTTP/1.1 200 OK\r\n")
            })
        };
        let answered: Vec<bool> = thread::scope(|scope| {
            let asking: Vec<_> = (0..100).map(|number| scope.spawn(move || ask(number))).collect();
            asking.into_iter().filter_map(|one| one.join().expect("no panic")).collect()
        });
        // Between our look and our word, the server may end it.
        let lost = answered.iter().filter(|answered| !**answered).count();
        println!("{lost} of {} lost", answered.len());
        assert!(answered.len() >= 15, "{} of 100 met the end", answered.len());
        assert!(lost * 10 <= answered.len(), "{lost} of {} lost", answered.len());
    });
}

/// The limits of a server as they are by default, in real time: 75 s.
pub(crate) fn default_limits(folder: &Path) {
    let cases = [("idle", boxed::address()), ("drain", boxed::address())];
    scene::each(folder, cases, |folder, (what, address)| {
        let mut web = Web::start(folder, format!("--listen={address}"));
        let begin = Instant::now();
        let mut idle = connect_to(address);
        idle.send(GET);
        idle.answer_of(web.daemon);
        if what == "idle" {
            let mut silent = connect_to(address);
            silent.ends_after(begin, Duration::from_secs(10)); // header_timeout
            idle.ends_after(begin, Duration::from_secs(75)); // keep_alive
            return;
        }
        let mut endless = connect_to(address);
        endless.send("GET /download?pieces=1000000&every=1s HTTP/1.1\r\nHost: a\r\n\r\n");
        endless.read_until("\r\n\r\n");
        let begin = Instant::now();
        let old = web.restart();
        idle.ends_after(begin, Duration::from_secs(1)); // idle_grace
        let (_, end) = endless.read_to_failure();
        assert_eq!(end, Some(ErrorKind::ConnectionReset));
        assert_took(begin, Duration::from_secs(60)); // drain_timeout
        old.wait_end(LIMIT);
        web.log().wait(&[("stage", "hammer"), ("reason", "drain_timeout"), ("exit_code", "124")]);
    });
}
