//! The module `http`: what clients of every kind see of a restart.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustls::pki_types::CertificateDer;
use seamless_testing::{
    bin,
    boxed::{self, Boxed},
    http::{self, Target},
    process::{self, Watched},
    signal::{KILL, TERM, USR2},
    strict::{self, Strict},
    supervisor::{Service, Supervisor},
    under_each_supervisor, wait_for,
};
use tungstenite::{Error as Closed, Message, WebSocket};

use crate::scene::{self, LIMIT, Log, Unfinished, answer_of};

/// The service `web`, restarted by hand.
pub(crate) struct Web {
    folder: PathBuf,
    options: String,
    pub(crate) launcher: Child,
    pub(crate) daemon: u32,
}

impl Web {
    #[track_caller]
    pub(crate) fn start(folder: &Path, options: impl Into<String>) -> Self {
        let options = options.into();
        let launcher = launch(folder, &options);
        let daemon = wait_started(folder, 0);
        Web { folder: folder.to_owned(), options, launcher, daemon }
    }

    /// Lets the launcher go, as a supervisor does that restarts the service.
    #[track_caller]
    fn hand_off(&mut self) {
        Watched::new(self.launcher.id()).signal(TERM);
        assert!(self.launcher.wait().expect("its end").success());
    }

    /// Gives the old daemon, which drains by then.
    #[track_caller]
    pub(crate) fn restart(&mut self) -> Watched {
        let old = Watched::new(self.daemon);
        self.hand_off();
        self.launcher = launch(&self.folder, &self.options);
        self.daemon = wait_started(&self.folder, old.pid());
        self.log().wait(&[("stage", "drain"), ("daemon", &old.pid().to_string())]);
        old
    }

    pub(crate) fn log(&self) -> Log {
        Log::of(&self.folder)
    }
}

fn launch(folder: &Path, options: &str) -> Child {
    let (web, folder) = (bin::support("web"), folder.display());
    let script = format!(
        "cd '{folder}' && exec >>log 2>&1 && exec '{}' --pid-file=web.pid {options}",
        web.display()
    );
    scene::shell(&script).spawn().expect("sh")
}

#[track_caller]
fn wait_started(folder: &Path, before: u32) -> u32 {
    let log = Log::of(folder);
    let daemon: u32 = wait_for(format!("another daemon than {before}:\n{log}"), LIMIT, || {
        let text = fs::read_to_string(folder.join("web.pid")).ok()?;
        text.trim().parse().ok().filter(|pid| *pid != before)
    });
    // The file is there a moment before it serves.
    log.wait(&[("stage", "started"), ("daemon", &daemon.to_string())]);
    daemon
}

/// A connection, byte by byte.
struct Raw {
    socket: TcpStream,
    unread: Vec<u8>,
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

impl Raw {
    #[track_caller]
    fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).expect("a connection");
        socket.set_read_timeout(Some(LIMIT)).expect("a limit");
        socket.set_nodelay(true).expect("no delay");
        Raw { socket, unread: Vec::new() }
    }

    #[track_caller]
    fn send(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).expect("all of it sent");
    }

    /// Reads on until this has come.
    #[track_caller]
    fn read_until(&mut self, end: &str) -> String {
        let end = end.as_bytes();
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|part| part == end) {
                let rest = self.unread.split_off(at + end.len());
                let found = std::mem::replace(&mut self.unread, rest);
                return String::from_utf8(found).expect("text");
            }
            let mut part = [0; 4096];
            let count = self.socket.read(&mut part).expect("an answer");
            let so_far = String::from_utf8_lossy(&self.unread);
            assert!(count > 0, "the connection ended: {so_far:?}");
            self.unread.extend_from_slice(&part[..count]);
        }
    }

    /// The next answer, of this server: whether it says that the connection ends.
    #[track_caller]
    fn answer_of(&mut self, pid: u32) -> bool {
        let head = self.read_until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        let body = self.read_until("\n");
        let body = if body.ends_with("bytes\n") { self.read_until("\n") } else { body };
        assert_eq!(body, format!("Server pid: {pid}\n"));
        head.to_ascii_lowercase().contains("\r\nconnection: close\r\n")
    }

    /// The next answer is the last one.
    #[track_caller]
    fn last_answer_of(&mut self, pid: u32) {
        assert!(self.answer_of(pid), "it says close");
        self.ends();
    }

    #[track_caller]
    fn ends_after(&mut self, begin: Instant, limit: Duration) {
        self.socket.set_read_timeout(Some(limit + LIMIT)).expect("a limit");
        self.ends();
        assert_took(begin, limit);
    }

    #[track_caller]
    fn ends(&mut self) {
        assert_eq!(self.unread, b"");
        assert_eq!(self.socket.read(&mut [0]).expect("an orderly end"), 0);
    }
}

/// The old daemon has ended by itself.
#[track_caller]
fn assert_ended(web: &Web, old: &Watched) {
    old.wait_end(LIMIT);
    assert!(web.log().stage("hammer").is_empty(), "{}", web.log());
}

#[test]
fn p3_http1_connections_of_every_kind_are_answered_in_a_drain() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let address = boxed::address();
        let listen = format!("--listen={address}");
        // Only answers end a connection.
        let mut web = Web::start(folder, format!("{listen} --idle-grace=1h --header-timeout=1h"));
        let (first, connect) = (web.daemon, || Raw::connect(address));

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
            let mut web = Web::start(folder, format!("--listen={address} --drain-limit=1h"));
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
            assert!(matches!(polite.read(), Ok(Message::Close(_))));
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

/// Who says nothing, who says it too slowly, and who is idle hold up no drain.
#[test]
fn p3_a_drain_waits_no_longer_than_its_graces() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let address = boxed::address();
        let mut web = Web::start(
            folder,
            format!("--listen={address} --idle-grace=200ms --header-timeout=1500ms"),
        );
        let mut silent = Raw::connect(address);
        let mut slow = Raw::connect(address);
        let mut idle = Raw::connect(address);
        idle.send(GET);
        idle.answer_of(web.daemon);
        let mut after_upload = Raw::connect(address);
        after_upload.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n\r\n\r\n");
        after_upload.answer_of(web.daemon);
        slow.send("GET /");
        let old = web.restart();
        // Each byte in time, their sum never.
        wait_for("an end of the slow one", LIMIT, || slow.socket.write_all(b"x").err());
        for one in [&mut silent, &mut idle, &mut after_upload] {
            one.ends();
        }
        assert_ended(&web, &old);
    });
}

#[test]
fn limits_are_kept_to() {
    Boxed::new().private_net().run(|folder| {
        let address = boxed::address();
        let options = "--header-timeout=1s --keep-alive=1s --request-timeout=300ms \
            --max-header-size=8192";
        let web = Web::start(folder, format!("--listen={address} {options}"));
        let connect = || Raw::connect(address);
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
        _ = large.socket.write_all(&[b'a'; 9000]); // it may end meanwhile
        let head = large.read_until("\r\n");
        assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
        let mut named = connect();
        named.send("GET /peer HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let own = named.socket.local_addr().expect("our address").to_string();
        named.read_until(&format!("\r\n\r\n{own}"));
        for one in [&mut silent, &mut slow, &mut idle] {
            one.ends();
        }

        let few = folder.join("few");
        fs::create_dir(&few).expect("a folder");
        let address = boxed::address();
        let web = Web::start(&few, format!("--listen={address} --max-connections=2"));
        let mut two = [Raw::connect(address), Raw::connect(address)];
        for one in &mut two {
            one.send(GET);
            one.answer_of(web.daemon);
        }
        let mut third = Raw::connect(address);
        third.send(GET);
        third.socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a limit");
        let nothing = third.socket.read(&mut [0]).expect_err("there are two already");
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        third.socket.set_read_timeout(Some(LIMIT)).expect("a limit");
        drop(two);
        third.answer_of(web.daemon);
    });
}

/// What an answer that has no end comes to.
fn cut_off(mut answer: Raw) -> (Vec<u8>, Option<ErrorKind>) {
    let mut bytes = std::mem::take(&mut answer.unread);
    let end = answer.socket.read_to_end(&mut bytes).err().map(|error| error.kind());
    (bytes, end)
}

#[test]
fn what_the_hammer_cuts_is_seen_to_be_cut() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let two = || [boxed::address(), boxed::address()];
        let cases = [("300ms", false, two()), ("1h", true, two())];
        scene::each(folder, cases, |folder, (limit, by_hand, [address, secure])| {
            certificate(folder);
            let options = format!("--listen={address} --tls-listen={secure} --drain-limit={limit}");
            let mut web = Web::start(folder, options);
            let endless = "/download?pieces=1000000&every=1ms";
            let ask = |query: &str, version: &str| {
                let mut raw = Raw::connect(address);
                raw.send(&format!("GET {endless}{query} HTTP/{version}\r\nHost: a\r\n\r\n"));
                let head = raw.read_until("\r\n\r\n").to_ascii_lowercase();
                raw.unread.clear();
                (raw, head)
            };
            let (chunked, head) = ask("", "1.1");
            assert!(head.contains("transfer-encoding: chunked"), "{head}");
            let (measured, head) = ask("&length=", "1.1");
            assert!(head.contains("content-length: 1000000000"), "{head}");
            // Its body ends with the connection.
            let (ancient, head) = ask("", "1.0");
            assert!(!head.contains("content-length") && !head.contains("chunked"), "{head}");
            let mut uploading = Raw::connect(address);
            uploading.send(
                "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
            );
            // The app reads it.
            assert!(uploading.read_until("\r\n\r\n").starts_with("HTTP/1.1 100 "));
            uploading.unread.clear();
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
                let (bytes, end) = cut_off(answer);
                assert!(!bytes.ends_with(b"\r\n0\r\n\r\n") && bytes.len() < 1_000_000_000);
                assert_eq!(end, Some(ErrorKind::ConnectionReset));
            }
            assert_eq!(cut_off(uploading), (Vec::new(), Some(ErrorKind::ConnectionReset)));
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

#[test]
fn p3_what_serve_does_can_be_done_in_three_steps() {
    Boxed::new().private_net().run(|folder| {
        let (address, other) = (boxed::address(), boxed::address());
        let options =
            format!("--steps=3 --listen={address} --unix-socket=web.sock --listen={other}");
        let mut web = Web::start(folder, options);
        let target = Target::from(address);
        let request = Unfinished::start(&target);
        request.wait_accepted(web.daemon);
        let old = web.restart();
        assert!(request.finish().ends_with(&answer_of(old.pid())));
        old.wait_end(LIMIT);
        assert_eq!(seamless_testing::http::pid(&target), web.daemon);
        for daemon in [old.pid(), web.daemon] {
            let line = web.log().wait(&[("stage", "bound"), ("daemon", &daemon.to_string())]);
            let at: Vec<_> = line.field("at").expect("addresses").split(',').collect();
            assert_eq!([at[0], at[2]], [address.to_string(), other.to_string()]);
            assert!(at[1].ends_with("web.sock"), "{at:?}");
            assert_eq!(line.field("state"), Some("Starting"));
        }
    });
}

/// Nor does it need the runtime, which is what hangs as often as not, or the program's own hooks.
#[test]
fn the_hammer_cuts_where_the_runtime_is_held_up() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let address = boxed::address();
        let options = format!("--listen={address} --drain-limit=300ms --threads=1");
        let mut web =
            Web::start(folder, format!("{options} --hang-before=first --hang-before=hammer"));
        let asked = |path: &str| {
            let mut raw = Raw::connect(address);
            raw.send(&format!("GET {path} HTTP/1.0\r\n\r\n"));
            raw
        };
        let mut idle = Raw::connect(address);
        idle.send(GET);
        idle.answer_of(web.daemon);
        // Its body ends with the connection.
        let mut download = asked("/download?pieces=1000000&every=1ms");
        download.read_until("xxx");
        let blocked = asked("/block");
        web.log().wait(&[("stage", "block")]);
        let old = web.restart();
        let (_, end) = cut_off(download);
        assert_eq!(end, Some(ErrorKind::ConnectionReset));
        assert_eq!(cut_off(blocked), (Vec::new(), Some(ErrorKind::ConnectionReset)));
        // Nothing of it was cut.
        assert_eq!(cut_off(idle), (Vec::new(), None));
        old.wait_end(LIMIT);
        web.log().wait(&[("stage", "hammer"), ("connections", "3"), ("cut", "2")]);
    });
}

/// It stops itself, so that no hammer can fall.
#[test]
fn the_launcher_kills_a_daemon_that_outlives_the_limit_of_its_server() {
    Boxed::new().private_net().run(|folder| {
        use std::os::unix::process::ExitStatusExt;
        let options = format!("--listen={} --drain-limit=100ms", boxed::address());
        let mut web = Web::start(folder, format!("{options} --stop-before=drain"));
        let (daemon, begin) = (Watched::new(web.daemon), Instant::now());
        daemon.signal(TERM);
        assert_eq!(web.launcher.wait().expect("its end").signal(), Some(KILL));
        assert_took(begin, Duration::from_millis(5100));
        web.log().wait(&[("stage", "kill"), ("daemon", &daemon.pid().to_string())]);
        assert!(daemon.has_ended());
    });
}

/// The limits of a server as they are by default, in real time: 75 s.
pub(crate) fn default_limits(folder: &Path) {
    let cases = [("idle", boxed::address()), ("drain", boxed::address())];
    scene::each(folder, cases, |folder, (what, address)| {
        let mut web = Web::start(folder, format!("--listen={address}"));
        let begin = Instant::now();
        let mut idle = Raw::connect(address);
        idle.send(GET);
        idle.answer_of(web.daemon);
        if what == "idle" {
            let mut silent = Raw::connect(address);
            silent.ends_after(begin, Duration::from_secs(10)); // header_timeout
            idle.ends_after(begin, Duration::from_secs(75)); // keep_alive
            return;
        }
        let mut endless = Raw::connect(address);
        endless.send("GET /download?pieces=1000000&every=1s HTTP/1.1\r\nHost: a\r\n\r\n");
        endless.read_until("\r\n\r\n");
        let begin = Instant::now();
        let old = web.restart();
        idle.ends_after(begin, Duration::from_secs(1)); // idle_grace
        let (_, end) = cut_off(endless);
        assert_eq!(end, Some(ErrorKind::ConnectionReset));
        assert_took(begin, Duration::from_secs(60)); // drain_limit
        old.wait_end(LIMIT);
        web.log().wait(&[("stage", "hammer"), ("reason", "drain_timeout"), ("exit_code", "124")]);
    });
}

/// Not less; and how much more is the machine's affair.
#[track_caller]
fn assert_took(begin: Instant, limit: Duration) {
    let took = begin.elapsed();
    assert!(took >= limit && took < limit + LIMIT, "{took:?}, not {limit:?}");
}

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

/// A new one for `localhost`, with its key in the files that the service reads.
fn certificate(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(folder.join("cert.pem"), made.cert.pem()).expect("cert.pem");
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("key.pem");
    made.cert.der().clone()
}

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
        let (name, first) = match example {
            Example::Http => ("http", "web.pid"),
            Example::Grace => ("grace", "web.pid"),
            Example::Tls => ("tls", ""),
        };
        let program = bin::example(name).display().to_string();
        let run = format!(
            "exec >>'{place}/log' 2>&1\nexec '{program}' '{place}/{first}' {address} {tls_address}"
        );
        let service = Service::new(kind, folder.join("service"), &run);
        let first = wait_started(folder, 0);
        let slow = (example == Example::Grace).then(|| {
            let slow = http::start(&Target::from(address), "/sleep/?duration=3s");
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
            let slow = slow.finish().expect("an answer").body;
            assert!(slow.starts_with(&format!("Server pid: {first}\nstarted at ")), "{slow}");
            let started = |body: &str| body.split(' ').nth(4).map(str::to_owned);
            assert!(started(&slow) < started(&quick), "{slow}{quick}");
        }
        Watched::new(first).wait_end(LIMIT);
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
