//! Each service of `src/bin` is restarted ten times under load, under daemontools. Clients that keep their
//! connections and never ask twice, and clients with a connection for each request, see no failure, and an
//! answer from every generation. The example `lines` too, with clients of its own protocol.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use seamless_frameworks::pids::PidsClient;
use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed},
    http::{self, Prober, Target},
    process::Watched,
    strict::Strict,
    supervisor::{Service, Supervisor},
    wait_for,
};

const RESTARTS: usize = 10;
/// Requests of the clients that keep their connections, in each generation.
const FLOOR: u64 = 200;

/// More clients of a service, on threads of their own.
#[derive(Default)]
struct More {
    stopping: AtomicBool,
    /// What was answered, or ended as it should.
    good: AtomicU64,
}

impl More {
    fn goes_on(&self) -> bool {
        !self.stopping.load(Ordering::Relaxed)
    }

    fn count(&self) {
        self.good.fetch_add(1, Ordering::Relaxed);
    }
}

type Client = fn(SocketAddr, &More);

/// `more`: clients of the framework's own protocols, which panic if they see a failure, and how often each
/// must have seen what it waits for.
fn restarted_ten_times(name: &str, http2: bool, more: &'static [(Client, u64)]) {
    // The module `http` moves a connection to the successor when nothing is in flight.
    let moves = ["axum-http", "rocket", "warp"].contains(&name);
    Boxed::new().private_net_without_migration().run(|folder: &Path| {
        let address = boxed::address();
        let (program, place) = (bin::support(name), folder.display());
        let run = format!("exec 2>&1\nexec '{}' '{place}/web.pid' {address}", program.display());
        let service = Service::new(Supervisor::Daemontools, folder.join("service"), &run);
        let target = Target::Tcp(address);
        let mut newest = if http2 {
            let strict = Strict::new(&target).http2(1).start();
            let pid = wait_for("an answer", LIMIT, || strict.newest());
            strict.stop();
            pid
        } else {
            http::wait_pid(&target)
        };
        let kept = Strict::new(&target).clients(8).every(Duration::from_millis(20));
        let kept = if http2 { kept.http2(2) } else { kept }.start();
        let prober = (!http2).then(|| Prober::start_every(Duration::from_millis(10), &target));
        let others: Vec<_> = more
            .iter()
            .map(|(client, floor)| {
                let shared = Arc::new(More::default());
                let clients: Vec<_> = (0..2)
                    .map(|_| {
                        let (client, shared) = (*client, shared.clone());
                        thread::spawn(move || client(address, &shared))
                    })
                    .collect();
                (shared, clients, *floor)
            })
            .collect();
        kept.wait_pid(newest);
        let mut pids = vec![newest];
        for _ in 0..RESTARTS {
            service.settle();
            kept.wait_more(FLOOR);
            let idle = (!http2).then(|| idle_connection(address, newest));
            let old = Watched::new(newest);
            service.restart();
            newest = kept.wait_another(newest);
            pids.push(newest);
            if moves {
                old.wait_end(LIMIT);
                idle.into_iter().for_each(|mut idle| ask_once(&mut idle, newest));
            } else {
                idle.into_iter().for_each(ends_cleanly);
                old.wait_end(LIMIT);
            }
        }
        kept.wait_more(FLOOR);
        for (shared, clients, floor) in others {
            let good = || shared.good.load(Ordering::Relaxed);
            // How many it asks meanwhile depends on what else the machine does.
            wait_for(format!("{floor} of a further kind"), LIMIT, || {
                (good() >= floor || clients.iter().any(|client| client.is_finished())).then_some(())
            });
            shared.stopping.store(true, Ordering::Relaxed);
            clients.into_iter().for_each(|client| client.join().expect("a client saw a failure"));
            println!("{name}: {} of a further kind", good());
            assert!(good() >= floor, "{}, not {floor}", good());
        }
        let seen = kept.stop();
        println!("{name}: {} answers, {} connections", seen.total(), seen.connections);
        seen.assert_clean(FLOOR * (RESTARTS as u64 + 1), RESTARTS + 1);
        assert_eq!(seen.pids, pids);
        if let Some(prober) = prober {
            let probes = prober.stop();
            println!("{name}: {} connections of one request", probes.requests());
            probes.assert_all_answered();
            assert_eq!(probes.pids(), pids);
        }
        service.down();
        service.wait_down();
    });
}

/// A client that has asked this generation once, and keeps the connection.
fn idle_connection(address: SocketAddr, pid: u32) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("a server");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    ask_once(&mut stream, pid);
    stream
}

/// This server answers.
fn ask_once(stream: &mut TcpStream, pid: u32) {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("a request");
    let mut answer = Vec::new();
    let end = format!("Server pid: {pid}\n");
    while !answer.ends_with(end.as_bytes()) {
        let mut chunk = [0; 1024];
        let count = stream.read(&mut chunk).expect("an answer");
        assert!(count > 0, "closed in the middle of an answer");
        answer.extend_from_slice(&chunk[..count]);
    }
}

/// What HTTP allows: the connection is closed between two answers. It is not reset.
fn ends_cleanly(mut idle: TcpStream) {
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).expect("an end without a reset");
    assert!(rest.is_empty(), "{rest:?}");
}

// ---- further protocols ----

/// A stream of events ends with its last chunk, and the next one is there.
fn server_sent_events(address: SocketAddr, more: &More) {
    while more.goes_on() {
        let mut stream = TcpStream::connect(address).expect("a server");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").expect("a request");
        let mut lines = BufReader::new(stream).lines();
        loop {
            let line = lines.next().expect("no end without a last chunk").expect("no reset");
            if line == "0" {
                more.count();
                break;
            }
            if !more.goes_on() {
                return;
            }
        }
    }
}

/// Each message is answered, or the connection is closed with 1012.
fn web_sockets(address: SocketAddr, more: &More) {
    use tungstenite::{Error, Message, protocol::frame::coding::CloseCode};
    while more.goes_on() {
        let stream = TcpStream::connect(address).expect("a server");
        let (mut socket, _) =
            tungstenite::client(format!("ws://{address}/echo"), stream).expect("a WebSocket");
        loop {
            // The server may be closing it at this moment: then what counts is its close.
            let sent = socket.send(Message::text("a"));
            match socket.read() {
                Ok(Message::Text(text)) => assert_eq!(text.as_str(), "a"),
                Ok(Message::Close(close)) => {
                    let code = close.expect("a reason").code;
                    assert_eq!(code, CloseCode::Restart);
                    while socket.read().is_ok() {} // the close is answered
                    more.count();
                    break;
                }
                Err(Error::ConnectionClosed) => panic!("closed without a reason: {sent:?}"),
                other => panic!("{other:?}, {sent:?}"),
            }
            thread::sleep(Duration::from_millis(5));
            if !more.goes_on() {
                return;
            }
        }
    }
}

/// axum's extractor for the client's address.
fn client_addresses(address: SocketAddr, more: &More) {
    while more.goes_on() {
        let mut stream = TcpStream::connect(address).expect("a server");
        let own = stream.local_addr().expect("an address");
        let request = b"GET /peer HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        stream.write_all(request).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.ends_with(&format!("\r\n\r\n{own}\n")), "{answer}");
        more.count();
        thread::sleep(Duration::from_millis(5));
    }
}

fn block_on(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work);
}

/// A channel for each call.
fn unary_calls(address: SocketAddr, more: &More) {
    block_on(async {
        while more.goes_on() {
            let mut client =
                PidsClient::connect(format!("http://{address}")).await.expect("a server");
            assert!(client.get().await.expect("an answer") > 0);
            more.count();
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    });
}

/// A stream goes on until its end, which is no error.
fn streams(address: SocketAddr, more: &More) {
    block_on(async {
        while more.goes_on() {
            let mut client =
                PidsClient::connect(format!("http://{address}")).await.expect("a server");
            let mut stream = client.watch().await.expect("a stream");
            while let Some(pid) = stream.message().await.expect("an end without an error") {
                assert!(pid.pid > 0);
                if !more.goes_on() {
                    return;
                }
            }
            more.count();
        }
    });
}

#[test]
fn p2_p3_axum_by_http() {
    let more: &[(Client, u64)] =
        &[(server_sent_events, 20), (web_sockets, 20), (client_addresses, 100)];
    restarted_ten_times("axum-http", false, more);
}

#[test]
fn p2_p3_axum_serve() {
    restarted_ten_times("axum-serve", false, &[]);
}

#[test]
fn p2_p3_actix() {
    restarted_ten_times("actix", false, &[]);
}

#[test]
fn p2_p3_hyper_by_hand() {
    restarted_ten_times("hyper-by-hand", false, &[]);
}

#[test]
fn p2_p3_warp_by_http() {
    restarted_ten_times("warp", false, &[]);
}

#[test]
fn p2_p3_poem() {
    restarted_ten_times("poem", false, &[]);
}

#[test]
fn p2_p3_salvo() {
    restarted_ten_times("salvo", false, &[]);
}

#[test]
fn p2_p3_warp_serve() {
    restarted_ten_times("warp-serve", false, &[]);
}

#[test]
fn p2_p3_pingora() {
    restarted_ten_times("pingora", false, &[]);
}

#[test]
fn p2_p3_rocket_behind_http() {
    restarted_ten_times("rocket", false, &[]);
}

#[test]
fn p2_p3_threads() {
    restarted_ten_times("threads", false, &[]);
}

#[test]
fn p2_p3_tonic_by_http() {
    restarted_ten_times("tonic-http", true, &[(unary_calls, 500), (streams, 20)]);
}

#[test]
fn p2_p3_tonic_serve() {
    restarted_ten_times("tonic-serve", true, &[(unary_calls, 500), (streams, 20)]);
}

// ---- a line protocol: the example `lines` ----

/// Sends a line, and returns the PID of the server that answered it.
fn ask(client: &mut BufReader<TcpStream>) -> u32 {
    client.get_mut().write_all(b"a\n").expect("a connection");
    let mut answer = String::new();
    client.read_line(&mut answer).expect("no reset");
    let pid = answer.strip_suffix(" a\n").and_then(|pid| pid.parse().ok());
    pid.unwrap_or_else(|| panic!("{answer:?}"))
}

fn connect(address: SocketAddr) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).expect("a server");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    BufReader::new(stream)
}

/// So many lines over a connection are answered by one process. Then there is another connection.
fn lines<const LINES: usize>(address: SocketAddr, more: &More) {
    while more.goes_on() {
        let mut client = connect(address);
        let pid = ask(&mut client);
        for _ in 1..LINES {
            assert_eq!(ask(&mut client), pid);
            more.count();
            thread::sleep(Duration::from_millis(2));
        }
        more.count();
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn p2_p3_lines() {
    Boxed::new().private_net_without_migration().run(|folder: &Path| {
        let address = boxed::address();
        let (program, place) = (bin::example("lines"), folder.display());
        let run = format!("exec 2>&1\nexec '{}' '{place}/web.pid' {address}", program.display());
        let service = Service::new(Supervisor::Daemontools, folder.join("service"), &run);
        let listens = || TcpStream::connect(address).ok();
        let first = BufReader::new(wait_for("a server", LIMIT, listens));
        let mut newest = ask(&mut { first });
        let clients: Vec<_> = [lines::<1> as Client, lines::<300>]
            .into_iter()
            .cycle()
            .take(8)
            .map(|client| {
                let more = Arc::new(More::default());
                let shared = more.clone();
                (more, thread::spawn(move || client(address, &shared)))
            })
            .collect();
        let good = |more: &More| more.good.load(Ordering::Relaxed);
        let mut old = Vec::new();
        for _ in 0..RESTARTS {
            service.settle();
            for (more, _) in &clients {
                let floor = good(more) + FLOOR / 4;
                wait_for("answers", LIMIT, || (good(more) > floor).then_some(()));
            }
            let mut idle = connect(address);
            assert_eq!(ask(&mut idle), newest);
            old.push((idle, Watched::new(newest)));
            service.restart();
            newest = wait_for("the successor", LIMIT, || {
                Some(ask(&mut connect(address))).filter(|pid| *pid != newest)
            });
        }
        for (idle, daemon) in old {
            ends_cleanly(idle.into_inner());
            daemon.wait_end(LIMIT);
        }
        for (more, client) in clients {
            more.stopping.store(true, Ordering::Relaxed);
            client.join().expect("a client saw a failure");
            println!("lines: {} answers", good(&more));
        }
        service.down();
        service.wait_down();
    });
}
