//! A drain: each kind of connection is answered, and is waited for no longer than its grace.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    thread::sleep,
    time::Duration,
};

use seamless_testing::{
    LIMIT,
    boxed::{self, Boxed},
    process::Watched,
    scene,
    signal::USR2,
    wait_for,
};
use tungstenite::{Error as Closed, Message, WebSocket};

use super::{Answers as _, GET, Web, assert_ended, connect_to, launch, wait_started};

#[test]
fn p3_http1_connections_of_every_kind_are_answered_in_a_drain() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let address = boxed::address();
        let listen = format!("--listen={address}");
        // Only answers end a connection.
        let mut web = Web::start(folder, format!("{listen} --idle-grace=1h --header-timeout=1h"));
        let (first, connect) = (web.daemon, || connect_to(address));

        let mut fresh = connect();
        let mut ancient = connect();
        let mut begun = connect();
        begun.send(&GET[..9]);
        let mut chunked = connect();
        chunked.send("POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        chunked.send("5\r\n\r\n\r\n1\r\n");
        let mut measured = connect();
        measured.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n\n\n\n");
        let mut waiting = connect();
        waiting.send(&format!("GET /?delay=2s HTTP/1.1\r\nHost: a\r\n\r\n{GET}{GET}"));
        let mut long = connect();
        long.send("GET /download?pieces=4&every=700ms HTTP/1.1\r\nHost: a\r\n\r\n");
        long.read_until("\r\n\r\n");
        let mut upgraded = connect();
        upgraded
            .send("GET /echo HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
        let head = upgraded.read_until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        upgraded.send("one\n");
        upgraded.read_until("one\n");
        // Whoever connected before it has been accepted by now.
        let (mut idle, mut pipelining) = (connect(), connect());
        for one in [&mut idle, &mut pipelining] {
            one.send(GET);
            assert!(!one.answer_of(first), "no drain yet");
        }

        let old = web.restart();
        assert_eq!(old.pid(), first);
        // Its log tells of the drain a moment before the program can know.
        scene::wait_let_go(first);
        for one in [&mut fresh, &mut idle] {
            one.send(GET);
            one.last_answer_of(first);
        }
        ancient.send("GET / HTTP/1.0\r\n\r\n");
        ancient.read_until(&format!("\r\n\r\nServer pid: {first}\n"));
        ancient.ends();
        begun.send(&GET[9..]);
        begun.last_answer_of(first);
        chunked.send("1\r\na\r\n0\r\n\r\n");
        chunked.last_answer_of(first);
        measured.send("12345");
        measured.last_answer_of(first);
        pipelining.send(&format!("{GET}{GET}{GET}"));
        for _ in 0..2 {
            assert!(!pipelining.answer_of(first), "there are more to come");
        }
        pipelining.last_answer_of(first);
        // On a machine that is too slow for that, all of them were answered before the drain.
        let told = [(); 3].map(|()| waiting.answer_of(first));
        if told != [false, false, true] {
            assert_eq!(told, [false; 3]);
            waiting.send(GET);
            waiting.last_answer_of(first);
        }
        let body = long.read_until("\r\n0\r\n\r\n");
        assert_eq!(body.matches('x').count(), 4000);
        long.send(GET); // it had not been told that the connection ends
        long.last_answer_of(first);
        upgraded.send("two\n");
        upgraded.read_until("two\n");
        assert!(!old.has_ended(), "an upgraded connection is still open");
        drop(upgraded);
        assert_ended(&web, &old);
        let mut new = connect();
        new.send(GET);
        assert!(!new.answer_of(web.daemon));
    });
}

/// The library has the whole answer, and the client reads it late: neither it nor what is behind it is lost.
#[test]
fn p3_an_answer_that_is_read_slowly_is_written_to_its_end() {
    const SIZE: usize = 30_000_000; // no socket holds so much
    Boxed::new().private_net_without_migration().run(|folder| {
        let address = boxed::address();
        let times = "--idle-grace=100ms --header-timeout=3s --drain-timeout=1h";
        let mut web = Web::start(folder, format!("--listen={address} {times}"));
        let first = web.daemon;
        let ask = |behind: &str| {
            let mut one = connect_to(address);
            let path = format!("/download?pieces=1&every=1ms&length=&size={SIZE}");
            one.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n{behind}"));
            let head = one.read_until("\r\n\r\n").to_ascii_lowercase();
            assert!(!head.contains("connection: close"), "{head}");
            one
        };
        let (mut whole, mut half) = (ask(GET), ask(&GET[..9]));
        let old = web.restart();
        sleep(Duration::from_secs(4)); // longer than each of its times
        for one in [&mut whole, &mut half] {
            let body = one.read_bytes(SIZE);
            assert!(body.iter().all(|byte| *byte == b'x'));
        }
        half.send(&GET[9..]);
        for one in [&mut whole, &mut half] {
            one.last_answer_of(first);
        }
        assert_ended(&web, &old);
    });
}

type Socket = WebSocket<TcpStream>;

fn websocket(address: SocketAddr, path: &str) -> Socket {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    let (socket, _) =
        tungstenite::client(format!("ws://localhost{path}"), stream).expect("a WebSocket");
    socket
}

/// A frame there, and one back, of this server.
#[track_caller]
fn talk(socket: &mut Socket, pid: u32, text: &str) {
    socket.send(Message::text(text)).expect("sent");
    let answer = socket.read().expect("an answer");
    assert_eq!(answer, Message::text(format!("Server pid: {pid}\n{text}")));
}

/// Until the client ends them, or the app, or the hammer.
#[test]
fn p3_websockets_are_held_across_a_restart() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let cases = [(false, boxed::address()), (true, boxed::address())];
        scene::each(folder, cases, |folder, (hammer, address)| {
            let mut web = Web::start(folder, format!("--listen={address} --drain-timeout=1h"));
            let old = Watched::new(web.daemon);
            let mut held = websocket(address, "/socket");
            let mut polite = websocket(address, "/socket?polite");
            for one in [&mut held, &mut polite] {
                talk(one, old.pid(), "before");
            }
            web.hand_off();
            talk(&mut held, old.pid(), "no launcher");
            web.launcher = launch(folder, &web.options);
            talk(&mut held, old.pid(), "the next one starts");
            web.daemon = wait_started(folder, old.pid());
            web.log().wait(&[("stage", "drain"), ("daemon", &old.pid().to_string())]);
            // The app ends this one, as the documentation says.
            let Ok(Message::Close(Some(close))) = polite.read() else { panic!("no Close frame") };
            assert_eq!((u16::from(close.code), &*close.reason), (1012, "service restart"));
            assert!(matches!(polite.read(), Err(Closed::ConnectionClosed)));
            talk(&mut held, old.pid(), "after");
            let large = Message::binary(vec![7; 300_000]);
            held.send(large.clone()).expect("sent");
            assert_eq!(held.read().expect("the same"), large);
            talk(&mut websocket(address, "/socket"), web.daemon, "new");
            assert!(!old.has_ended(), "a WebSocket is open");
            if hammer {
                old.signal(USR2);
                let cut = held.read();
                assert!(cut.is_err() && !matches!(cut, Err(Closed::ConnectionClosed)), "{cut:?}");
                old.wait_end(LIMIT);
                web.log().wait(&[("stage", "hammer"), ("reason", "USR2"), ("exit_code", "124")]);
            } else {
                held.close(None).expect("closed");
                let end = wait_for("an orderly end", LIMIT, || held.read().err());
                assert!(matches!(end, Closed::ConnectionClosed), "{end}");
                assert_ended(&web, &old);
            }
        });
    });
}

/// The limit of the server is that of the drain, if the program sets no other one.
#[test]
fn p3_a_drain_has_the_limit_of_the_server() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let address = boxed::address();
        let mut web = Web::start(folder, format!("--listen={address} --drain-timeout=1s"));
        let mut held = websocket(address, "/socket");
        talk(&mut held, web.daemon, "before");
        let old = web.restart();
        let end = held.read();
        assert!(end.is_err(), "{end:?}");
        old.wait_end(LIMIT);
        let by_limit = [("stage", "hammer"), ("reason", "drain_timeout"), ("exit_code", "124")];
        web.log().wait(&by_limit);
    });
}

/// Who says nothing, who says it too slowly, and who is idle hold up no drain.
#[test]
fn p3_a_drain_waits_no_longer_than_its_graces() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let address = boxed::address();
        let mut web = Web::start(
            folder,
            format!("--listen={address} --idle-grace=200ms --header-timeout=1500ms"),
        );
        let mut silent = connect_to(address);
        let mut slow = connect_to(address);
        let mut idle = connect_to(address);
        idle.send(GET);
        idle.answer_of(web.daemon);
        let mut after_upload = connect_to(address);
        after_upload.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n\r\n\r\n");
        after_upload.answer_of(web.daemon);
        slow.send("GET /");
        let old = web.restart();
        // Each byte in time, their sum never.
        wait_for("an end of the slow one", LIMIT, || slow.socket().write_all(b"x").err());
        for one in [&mut silent, &mut idle, &mut after_upload] {
            one.ends();
        }
        assert_ended(&web, &old);
    });
}
