//! P13: connections of HTTP/1 move to the successor.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use seamless_testing::{
    LIMIT,
    boxed::{self, Boxed},
    http::{Connection, Target},
    is_long,
    process::{self, Watched},
    signal::{CONT, STOP, TERM},
    strict::Strict,
    wait_for,
};

use super::{Answers as _, GET, Web, assert_ended, connect_to};

const POST: &str = "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12345";
const MULTIPART: &str = "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 36\r\n\r\n\
    --b\r\nContent-Type: a/b\r\n\r\n1\r\n--b--\r\n";
const CHUNKED: &str =
    "POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n";

/// Its connections move.
fn start(folder: &Path, address: SocketAddr, more: &str) -> Web {
    // What does not move stays for ever.
    let stays = "--pass=yes --spread=1h --idle-grace=1h --drain-timeout=9h --header-timeout=1h";
    Web::start(folder, format!("--listen={address} {stays} {more}"))
}

/// A client that keeps its connection and never retries.
fn keep_asking(address: SocketAddr, number: u64, done: &AtomicBool, all: &AtomicU64) {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    stream.set_nodelay(true).expect("an option");
    let mut reader = BufReader::new(stream);
    let mut answered = 0;
    while !done.load(Ordering::Relaxed) {
        let request = if answered % 3 == 2 { POST } else { GET };
        // Half of them come in two pieces.
        let cut = if (answered + number) % 2 == 0 { request.len() } else { 20 };
        reader.get_mut().write_all(&request.as_bytes()[..cut]).expect("sent");
        if cut < request.len() {
            thread::sleep(Duration::from_millis(3));
            reader.get_mut().write_all(&request.as_bytes()[cut..]).expect("sent");
        }
        let (mut length, mut line) = (0, String::new());
        reader.read_line(&mut line).expect("an answer");
        assert_eq!(line, "HTTP/1.1 200 OK\r\n", "client {number}, request {answered}");
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).expect("the head");
            let lower = line.to_ascii_lowercase();
            assert!(!lower.starts_with("connection: close"), "client {number}");
            if let Some(text) = lower.strip_prefix("content-length: ") {
                length = text.trim().parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("the body");
        answered += 1;
        all.fetch_add(1, Ordering::Relaxed);
        // Pauses of every length up to some 100 ms.
        thread::sleep(Duration::from_millis((answered * 7 + number * 13) % 97));
    }
}

/// It never moves, and has requests in flight all the time.
#[test]
fn p1_p3_http2_leaves_in_the_drain_beside_those_that_move() {
    Boxed::new().private_net().run(|folder| {
        let address = boxed::address();
        let mut web =
            Web::start(folder, format!("--listen={address} --pass=yes --drain-timeout=9h"));
        let strict = Strict::new(&Target::Tcp(address)).path("/?delay=5ms");
        let running = strict.clients(2).http2(20).start();
        running.wait_pid(web.daemon);
        let old = web.restart();
        running.wait_pid(web.daemon);
        assert_ended(&web, &old);
        running.stop().assert_clean(20, 2);
    });
}

#[test]
fn p13_clients_that_keep_their_connections_notice_nothing() {
    const CLIENTS: u64 = 64;
    let restarts = if is_long() { 100 } else { 5 };
    Boxed::new().private_net().run(|folder| {
        let address = boxed::address();
        let mut web = start(folder, address, "");
        let (done, all) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            for number in 0..CLIENTS {
                let (done, all) = (&done, &all);
                scope.spawn(move || keep_asking(address, number, done, all));
            }
            for _ in 0..restarts {
                // Many of them have asked the newest one; the others move with what they have.
                let enough = all.load(Ordering::Relaxed) + CLIENTS;
                wait_for("answers", LIMIT, || {
                    let some = all.load(Ordering::Relaxed) >= enough;
                    (some && connections(folder) == CLIENTS).then_some(())
                });
                let old = web.restart();
                assert_ended(&web, &old);
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(connections(folder), CLIENTS);
        let counters = crate::command::counters_of(&folder.join("web.pid"));
        assert_eq!(counters["http_failures"], 0);
        assert_eq!(counters["http_passed"], restarts * CLIENTS);
    });
}

/// As some clients do with each first request: the server need not agree, and the connection goes on as it was.
#[test]
fn p13_a_connection_whose_wish_for_another_protocol_was_declined_moves() {
    const WISH: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
                        HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n";
    Boxed::new().private_net().run(|folder| {
        let address = boxed::address();
        let mut web = start(folder, address, "");
        // The wish was the last thing that was asked, or another request has followed.
        let mut both = [connect_to(address), connect_to(address)];
        for one in &mut both {
            one.send(WISH);
            assert!(!one.answer_of(web.daemon));
        }
        both[1].send(super::GET);
        assert!(!both[1].answer_of(web.daemon));
        let old = web.restart();
        assert_ended(&web, &old);
        for one in &mut both {
            one.send(WISH);
            assert!(!one.answer_of(web.daemon));
        }
        assert_eq!(crate::command::counters_of(&folder.join("web.pid"))["http_passed"], 2);
    });
}

/// Of sockets there are so many; whatever else there is, by its name.
fn held(pid: u32) -> (usize, Vec<String>) {
    let targets = process::descriptors(pid).into_iter().map(|(_, target)| target);
    let names = targets.map(|target| {
        let name = target.file_name().expect("a name").to_string_lossy().into_owned();
        if name.starts_with("socket:") {
            return "socket".to_owned();
        }
        name.strip_prefix("anon_inode:").unwrap_or(&name).to_owned()
    });
    let (sockets, mut others): (Vec<_>, Vec<_>) = names.partition(|name| name == "socket");
    others.sort();
    (sockets.len(), others)
}

/// No copy of a connection is left in either of the two, nor of anything by which it moved.
#[test]
fn p13_after_50_restarts_old_and_new_hold_what_they_should() {
    const CLIENTS: usize = 16;
    const POLLS: [&str; 3] = ["[eventfd]", "[eventpoll]", "[eventpoll]"];
    const COUNTERS: &str = "memfd:seamless-counters (deleted)";
    const FILES: [&str; 4] = ["log", "log", "null", "web.pid.lock"];
    // Of the supervisor, and while they pass connections, of each other.
    const PIDFD: &str = "[pidfd]";
    let sorted = |sockets: usize, more: &[&str]| {
        let mut others = [&POLLS, &FILES[..], more].concat();
        others.sort_unstable();
        (sockets, others.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    // The listener twice, the control socket, the channel, and what wakes the threads.
    const OWN: usize = 13;
    let wait_held = |pid: u32, expected: (usize, Vec<String>)| {
        wait_for(format_args!("{pid} holds {expected:?}"), LIMIT, || {
            (held(pid) == expected).then_some(())
        });
    };
    Boxed::new().private_net().run(|folder| {
        let address = boxed::address();
        let mut web = start(folder, address, "");
        let alone = |sockets| sorted(sockets, &[COUNTERS, PIDFD, "web.pid"]);
        wait_held(web.daemon, alone(OWN));
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| connect_to(address)).collect();
        for one in &mut clients {
            one.send(GET);
            assert!(!one.answer_of(web.daemon));
        }
        for _ in 0..50 {
            let old = web.restart();
            assert_ended(&web, &old);
        }
        wait_held(web.daemon, alone(OWN + CLIENTS));
        // It stays where it is, and so does its process.
        let mut half = connect_to(address);
        half.send(&POST[..POST.len() - 3]);
        half.wait_accepted(web.daemon);
        let old = web.restart();
        // It listens no more, and has no launcher. The two are linked.
        wait_held(old.pid(), sorted(14, &[PIDFD, PIDFD, "web.pid (deleted)"]));
        let linked = sorted(OWN + CLIENTS + 1, &[COUNTERS, PIDFD, PIDFD, "web.pid"]);
        wait_held(web.daemon, linked);
        half.send("345");
        assert!(!half.answer_of(old.pid()));
        assert_ended(&web, &old);
        half.send(GET);
        assert!(!half.answer_of(web.daemon));
        wait_held(web.daemon, alone(OWN + CLIENTS + 1));
    });
}

/// Each server of a program gets the connections of its own places.
#[test]
fn p13_connections_of_two_servers_of_one_program() {
    Boxed::new().private_net().run(|folder| {
        let places = [boxed::address(), boxed::address()];
        let second = format!("--second-listen={} --steps=3", places[1]);
        let mut web = start(folder, places[0], &second);
        let mut clients = places.map(connect_to);
        for restarts in 0..3 {
            if restarts > 0 {
                let old = web.restart();
                assert_ended(&web, &old);
            }
            for (client, name) in clients.iter_mut().zip(["web", "second"]) {
                client.send(GET);
                assert!(!client.answer_of(web.daemon));
                client.send("GET /name HTTP/1.1\r\nHost: a\r\n\r\n");
                client.read_until("\r\n\r\n");
                assert_eq!(client.read_until(name), name);
            }
        }
    });
}

/// How many were opened, in all generations.
fn connections(folder: &Path) -> u64 {
    let counters = crate::command::counters_of(&folder.join("web.pid"));
    counters["http_connections"].as_u64().unwrap_or_default()
}

#[test]
fn p13_what_has_come_of_the_next_request_moves_too() {
    Boxed::new().private_net().run(|folder| {
        let address = boxed::address();
        let unix = folder.join("web.sock");
        let mut web = start(folder, address, &format!("--unix-socket={}", unix.display()));
        let first = web.daemon;
        let asked = |target: &Target, request: &str| {
            let mut one = Connection::to(target);
            one.send(request);
            assert!(!one.answer_of(first));
            one
        };
        let tcp = Target::from(address);
        // Half of its first head; nothing; idle; half of the next head; after a request with a body.
        let mut half = connect_to(address);
        half.send(&GET[..9]);
        let mut silent = connect_to(address);
        let mut idle = asked(&tcp, GET);
        let mut begun = asked(&tcp, GET);
        begun.send(&GET[..9]);
        let mut posted = asked(&tcp, POST);
        let mut local = asked(&Target::Unix(unix), GET);
        // Its answer takes longer than the restart; two more requests are behind it.
        let mut slow = connect_to(address);
        slow.send("GET /?delay=1s HTTP/1.1\r\nHost: a\r\n\r\n");
        slow.send(GET);
        slow.send(&GET[..9]);
        half.wait_accepted(first);
        silent.wait_accepted(first);
        slow.wait_accepted(first);

        let old = web.restart();
        assert!(!slow.answer_of(old.pid()), "it was asked there");
        assert_ended(&web, &old);
        // Once more, with the same halves.
        let old = web.restart();
        assert_ended(&web, &old);
        for one in [&mut half, &mut begun] {
            one.send(&GET[9..]);
            assert!(!one.answer_of(web.daemon));
        }
        for one in [&mut silent, &mut idle, &mut posted, &mut local] {
            one.send(GET);
            assert!(!one.answer_of(web.daemon));
        }
        slow.read_until("Server pid: "); // of any of them
        slow.read_until("\n");
        slow.send(&GET[9..]);
        assert!(!slow.answer_of(web.daemon));
    });
}

#[test]
fn p13_who_cannot_move_is_served_on() {
    Boxed::new().private_net().run(|folder| {
        let address = boxed::address();
        let mut web = start(folder, address, "");
        let first = web.daemon;
        // Where their requests end is known only after the next one.
        let mut both = [connect_to(address), connect_to(address)];
        for chunked in &mut both {
            chunked.send(CHUNKED);
            assert!(!chunked.answer_of(first));
        }
        let mut upgraded = connect_to(address);
        upgraded
            .send("GET /echo HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
        upgraded.read_until("\r\n\r\n");
        let old = web.restart();
        upgraded.send("hello\n");
        assert_eq!(upgraded.read_until("hello\n"), "hello\n");
        let left = both.each_mut().map(|chunked| {
            chunked.send(GET);
            chunked.answer_of(old.pid())
        });
        // The moments begin with 0, so one of the two may leave at once.
        assert_ne!(left, [true; 2]);
        for (chunked, _) in both.iter_mut().zip(left).filter(|(_, left)| !left) {
            // It moves now, and the next request may be there before.
            wait_for("it has moved", LIMIT, || {
                chunked.send(GET);
                let (server, closes) = chunked.next_answer();
                assert!(!closes);
                (server == web.daemon).then_some(())
            });
        }
        drop(upgraded);
        assert_ended(&web, &old);
    });
}

/// Their next request may never come, or be another one of this kind.
#[test]
fn p3_who_cannot_move_leaves_at_its_moment() {
    Boxed::new().private_net().run(|folder| {
        let address = boxed::address();
        let leaves = "--pass=yes --spread=0s --idle-grace=100ms --keep-alive=1h --drain-timeout=9h";
        let mut web = Web::start(folder, format!("--listen={address} {leaves}"));
        let first = web.daemon;
        let asked = |request: &str| {
            let mut one = connect_to(address);
            one.send(request);
            assert!(!one.answer_of(first));
            one
        };
        let mut chunked = asked(CHUNKED);
        let mut multipart = asked(MULTIPART);
        let mut busy = asked(CHUNKED);
        busy.send(&CHUNKED[..CHUNKED.len() - 5]);
        let old = web.restart();
        chunked.ends();
        // Their moment has come too.
        busy.send(&CHUNKED[CHUNKED.len() - 5..]);
        busy.last_answer_of(old.pid());
        multipart.send(MULTIPART);
        assert!(!multipart.answer_of(web.daemon));
        assert_ended(&web, &old);
    });
}

/// At its limit (of which one is for the next that is accepted), without the place, and with passing switched off.
#[test]
fn p13_what_the_successor_refuses_leaves_as_always() {
    Boxed::new().private_net().run(|folder| {
        for (number, options) in
            ["--max-connections=2", "--pass=no", "elsewhere"].iter().enumerate()
        {
            let folder = folder.join(number.to_string());
            std::fs::create_dir(&folder).expect("a folder");
            let address = boxed::address();
            let leaves = "--spread=0s --idle-grace=100ms --pass=yes";
            let mut web = Web::start(&folder, format!("--listen={address} {leaves}"));
            let mut clients: Vec<Connection> = (0..3).map(|_| connect_to(address)).collect();
            for one in &mut clients {
                one.send(GET);
                assert!(!one.answer_of(web.daemon));
            }
            web.options = match *options {
                "elsewhere" => format!("--listen={} {leaves}", boxed::address()),
                options => format!("--listen={address} {leaves} {options}"),
            };
            let old = web.restart();
            assert_ended(&web, &old);
            let mut moved = 0;
            for mut one in clients {
                one.set_limit(LIMIT);
                let mut bytes = [0; 1];
                one.socket().set_nonblocking(true).expect("a mode");
                // It was closed, or has moved and is silent.
                if one.socket().read(&mut bytes).is_err() {
                    one.socket().set_nonblocking(false).expect("a mode");
                    one.send(GET);
                    assert!(!one.answer_of(web.daemon));
                    moved += 1;
                }
            }
            // It accepts as soon as it can, and needs one of the two for that.
            let expected = if *options == "--max-connections=2" { 1..=2 } else { 0..=0 };
            assert!(expected.contains(&moved), "{options}: {moved}");
        }
    });
}

#[test]
fn p13_on_a_stop_nothing_moves() {
    Boxed::new().private_net().run(|folder| {
        let address = boxed::address();
        let web = Web::start(folder, format!("--listen={address} --pass=yes --idle-grace=1ms"));
        let mut one = connect_to(address);
        one.send(GET);
        assert!(!one.answer_of(web.daemon));
        let daemon = Watched::new(web.daemon);
        daemon.signal(TERM);
        one.set_limit(LIMIT);
        one.ends();
        daemon.wait_end(LIMIT);
        assert!(web.log().stage("passing").is_empty(), "{}", web.log());
    });
}

/// Its age moves with it: a client that is silent is closed in time.
#[test]
fn a_connection_that_moves_stays_as_old_as_it_is() {
    const KEEP_ALIVE: Duration = Duration::from_secs(10);
    Boxed::new().private_net().run(|folder| {
        let address = boxed::address();
        let mut web = Web::start(folder, format!("--listen={address} --pass=yes --keep-alive=10s"));
        let mut one = connect_to(address);
        one.send(GET);
        assert!(!one.answer_of(web.daemon));
        let began = Instant::now();
        thread::sleep(KEEP_ALIVE / 2); // this is what moves
        let old = web.restart();
        assert_ended(&web, &old);
        let moved = Instant::now();
        one.set_limit(LIMIT);
        one.ends();
        assert!(
            began.elapsed() + Duration::from_millis(100) >= KEEP_ALIVE,
            "{:?}",
            began.elapsed()
        );
        assert!(moved.elapsed() < KEEP_ALIVE.mul_f64(0.9), "{:?}", moved.elapsed());
    });
}

/// An empty line behind a request (RFC 9112, 2.2) is no beginning of another one.
#[test]
fn p13_a_connection_that_moves_with_an_empty_line_ends_in_time() {
    Boxed::new().private_net().run(|folder| {
        let address = boxed::address();
        let mut web = Web::start(folder, format!("--listen={address} --pass=yes"));
        let mut one = connect_to(address);
        one.send(&format!("{POST}\r\n"));
        assert!(!one.answer_of(web.daemon));
        web.options += " --keep-alive=1s --header-timeout=1s";
        let old = web.restart();
        assert_ended(&web, &old);
        one.set_limit(LIMIT);
        one.ends();
        let mut counters = crate::command::counters_of(&folder.join("web.pid"));
        assert_eq!(counters["http_passed"].take(), 1);
    });
}

/// A successor that does not answer holds up nobody that was not sent, and is tried again.
#[test]
fn p13_a_successor_that_is_stopped_gets_them_later() {
    Boxed::new().private_net().run(|folder| {
        let address = boxed::address();
        let mut web = start(folder, address, "--stop-before=drain");
        let mut one = connect_to(address);
        one.send(GET);
        assert!(!one.answer_of(web.daemon));
        // The old one stops itself before its drain.
        let old = Watched::new(web.daemon);
        web.hand_off();
        web.options = web.options.replace("--stop-before=drain", "");
        web.launcher = super::launch(folder, &web.options);
        web.daemon = super::wait_started(folder, old.pid());
        seamless_testing::scene::wait_stopped(|| vec![old.pid()]);
        let new = Watched::new(web.daemon);
        new.signal(STOP);
        seamless_testing::scene::wait_stopped(|| vec![new.pid()]);
        old.signal(CONT);
        web.log().wait_words(&["stage=passing", "the successor does not answer"], 1);
        one.send(GET);
        assert!(!one.answer_of(old.pid()), "it is served on");
        new.signal(CONT);
        assert_ended(&web, &old);
        one.send(GET);
        assert!(!one.answer_of(new.pid()));
    });
}
