//! Each kind of outcome, made by a server that does just that.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::net::UnixListener,
    sync::mpsc,
    time::Duration,
};

use socket2::SockRef;

use super::*;

const LIMIT: Duration = Duration::from_secs(10);

fn read_head(stream: &mut impl Read) -> bool {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return false,
        }
    }
    true
}

fn answer(pid: u32) -> String {
    let body = format!("Server pid: {pid}");
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A server that treats every connection alike, for as long as its test binary runs.
fn server(treat: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    std::thread::spawn(move || {
        listener.incoming().for_each(|stream| treat(stream.expect("accept")))
    });
    address
}

fn one_client(target: Target) -> Load {
    Load::new(target).clients(1).threads(1).keep_records()
}

/// The outcome of the first request of one client.
fn first(load: Load) -> Result<u32, Failure> {
    let running = load.start();
    assert!(running.wait_for_requests(1, LIMIT));
    let outcome = running.report().records[0].outcome;
    drop(running);
    outcome
}

fn first_of(treat: impl Fn(TcpStream) + Send + 'static) -> Result<u32, Failure> {
    first(one_client(Target::Tcp(server(treat))).timeout(Duration::from_millis(500)))
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
}

#[test]
fn an_answer_names_its_process() {
    let treat = |mut stream: TcpStream| {
        read_head(&mut stream);
        stream.write_all(answer(4711).as_bytes()).expect("write");
    };
    assert_eq!(first_of(treat), Ok(4711));
}

#[test]
fn an_answer_in_single_bytes_is_one_answer() {
    let treat = |mut stream: TcpStream| {
        read_head(&mut stream);
        stream.set_nodelay(true).expect("TCP_NODELAY");
        answer(4711).bytes().for_each(|byte| stream.write_all(&[byte]).expect("write"));
    };
    assert_eq!(first_of(treat), Ok(4711));
}

#[test]
fn an_answer_without_length_ends_with_its_connection() {
    let treat = |mut stream: TcpStream| {
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nServer pid: 4711\n").expect("write");
    };
    assert_eq!(first_of(treat), Ok(4711));
}

#[test]
fn a_port_without_listener_refuses() {
    let address = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("address");
    assert_eq!(first(one_client(Target::Tcp(address))), Err(Failure::Refused));
}

#[test]
fn a_connection_in_the_queue_of_a_closed_listener_is_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let running = one_client(Target::Tcp(listener.local_addr().expect("address"))).start();
    // Readable: the connection is in the queue. Its client learns of the close from the reset alone.
    rustix::event::poll(
        &mut [rustix::event::PollFd::new(&listener, rustix::event::PollFlags::IN)],
        None,
    )
    .expect("poll");
    drop(listener);
    let report = running.stop();
    // Which of the two depends on whether its client had learnt that it is connected.
    let outcome = report.records[0].outcome;
    assert!(
        matches!(outcome, Err(Failure::ResetConnecting | Failure::ResetBeforeAnswer)),
        "{report}"
    );
}

#[test]
fn a_reset_before_the_answer() {
    let treat = |mut stream: TcpStream| {
        read_head(&mut stream);
        reset(stream);
    };
    assert_eq!(first_of(treat), Err(Failure::ResetBeforeAnswer));
}

#[test]
fn a_reset_in_the_middle_of_the_answer() {
    let treat = |mut stream: TcpStream| {
        read_head(&mut stream);
        // What has arrived can be read also after a reset.
        stream.write_all(&answer(4711).as_bytes()[..20]).expect("write");
        reset(stream);
    };
    assert_eq!(first_of(treat), Err(Failure::ResetMidAnswer));
}

#[test]
fn an_end_before_the_answer() {
    let treat = |mut stream: TcpStream| {
        read_head(&mut stream);
    };
    assert_eq!(first_of(treat), Err(Failure::EofBeforeAnswer));
}

#[test]
fn an_end_in_the_middle_of_the_answer() {
    let treat = |mut stream: TcpStream| {
        read_head(&mut stream);
        let whole = answer(4711);
        stream.write_all(&whole.as_bytes()[..whole.len() - 1]).expect("write");
    };
    assert_eq!(first_of(treat), Err(Failure::EofMidAnswer));
}

#[test]
fn no_answer_is_a_timeout() {
    let (keep, kept) = mpsc::channel();
    let treat = move |stream: TcpStream| keep.send(stream).expect("the test holds the other end");
    assert_eq!(first_of(treat), Err(Failure::Timeout));
    drop(kept);
}

#[test]
fn an_answer_of_another_kind_is_bad() {
    for bad in [
        "HTTP/1.1 500 Oops\r\nContent-Length: 16\r\n\r\nServer pid: 4711",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n4711",
        "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\nServer pid: 4711 and more",
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ] {
        let treat = move |mut stream: TcpStream| {
            read_head(&mut stream);
            stream.write_all(bad.as_bytes()).expect("write");
        };
        assert_eq!(first_of(treat), Err(Failure::BadAnswer), "{bad}");
    }
}

#[test]
fn a_unix_socket_answers_refuses_or_is_missing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("web.socket");
    let target = Target::Unix(path.clone());
    assert_eq!(first(one_client(target.clone())), Err(Failure::NotFound));
    let listener = UnixListener::bind(&path).expect("bind");
    let running = one_client(target.clone()).start();
    let (mut stream, _) = listener.accept().expect("accept");
    read_head(&mut stream);
    stream.write_all(answer(4711).as_bytes()).expect("write");
    assert!(running.wait_for_pid(4711, LIMIT));
    drop(running);
    drop(listener);
    assert_eq!(first(one_client(target)), Err(Failure::Refused));
}

#[test]
fn a_full_backlog_of_a_unix_socket_makes_clients_wait() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("web.socket");
    let listener =
        socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).expect("socket");
    listener.bind(&socket2::SockAddr::unix(&path).expect("address")).expect("bind");
    listener.listen(0).expect("listen");
    let running = Load::new(Target::Unix(path)).clients(8).start();
    for _ in 0..100 {
        let (mut stream, _) = listener.accept().expect("accept");
        read_head(&mut stream);
        stream.write_all(answer(4711).as_bytes()).expect("write");
    }
    let report = running.report();
    assert_eq!(report.failures_but(&[]), 0, "{report}");
}

/// Answers `count` requests of a connection with `pid`, then closes it without a word of warning.
fn kept(pid: u32, count: usize) -> impl Fn(TcpStream) + Send {
    move |mut stream| {
        for _ in 0..count {
            if !read_head(&mut stream) {
                return;
            }
            stream.write_all(answer(pid).as_bytes()).expect("write");
        }
    }
}

#[test]
fn a_kept_connection_that_ends_without_an_answer_is_retried_once() {
    let running = one_client(Target::Tcp(server(kept(4711, 5)))).keep_alive().start();
    assert!(running.wait_for_requests(50, LIMIT));
    let report = running.stop();
    assert_eq!(report.failures_but(&[]), 0, "{report}");
    assert_eq!(report.retried, (report.requests.total() - 1) / 5, "{report}");
}

#[test]
fn a_new_connection_that_ends_without_an_answer_is_not_retried() {
    let treat = |mut stream: TcpStream| {
        read_head(&mut stream);
    };
    let load = one_client(Target::Tcp(server(treat))).keep_alive();
    assert_eq!(first(load), Err(Failure::EofBeforeAnswer));
}

#[test]
fn what_ends_in_the_middle_of_an_answer_is_never_sent_again() {
    let treat = |mut stream: TcpStream| {
        read_head(&mut stream);
        stream.write_all(answer(4711).as_bytes()).expect("write");
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 200").expect("write");
    };
    let load = one_client(Target::Tcp(server(treat))).keep_alive();
    let running = load.start();
    assert!(running.wait_for_requests(2, LIMIT));
    let report = running.stop();
    assert_eq!(report.records[0].outcome, Ok(4711));
    assert_eq!(report.records[1].outcome, Err(Failure::EofMidAnswer), "{report}");
    assert_eq!(report.retried, 0, "{report}");
}

#[test]
fn a_request_that_is_sent_again_may_fail() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("web.socket");
    let listener = UnixListener::bind(&path).expect("bind");
    let running = one_client(Target::Unix(path)).keep_alive().start();
    let (mut stream, _) = listener.accept().expect("accept");
    read_head(&mut stream);
    stream.write_all(answer(4711).as_bytes()).expect("write");
    assert!(running.wait_for_pid(4711, LIMIT));
    drop(listener);
    drop(stream);
    assert!(running.wait_for_requests(2, LIMIT));
    let report = running.stop();
    assert_eq!(report.records[1].outcome, Err(Failure::Refused), "{report}");
    assert_eq!(report.retried, 1, "{report}");
}

#[test]
fn a_report_adds_up() {
    let pids = AtomicU64::new(0);
    let address = server(move |mut stream| {
        read_head(&mut stream);
        let count = pids.fetch_add(1, Ordering::Relaxed);
        let pid = if count < 200 { 100 } else { 50 };
        stream.write_all(answer(pid).as_bytes()).expect("write");
    });
    let running = Load::new(Target::Tcp(address)).clients(4).keep_records().start();
    assert!(running.wait_for_pid(100, LIMIT));
    running.mark_begin();
    assert!(running.wait_for_pids(2, LIMIT));
    running.mark_end();
    let report = running.stop();
    assert_eq!(
        report.answers.iter().map(|answers| answers.pid).collect::<Vec<_>>(),
        [100, 50],
        "{report}"
    );
    assert_eq!(report.answers[0].count, 200, "{report}");
    assert_eq!(report.answers.iter().map(|answers| answers.count).sum::<u64>(), report.answered());
    assert_eq!(report.answered(), report.requests.total());
    assert_eq!(report.records.len() as u64, report.requests.total());
    let during = report.records.iter().filter(|record| record.during).count() as u64;
    assert_eq!((during, during), (report.requests.during, report.during.count()));
    assert!(report.during.count() > 0, "{report}");
    for (during, latency) in [(true, &report.during), (false, &report.outside)] {
        let records = report.records.iter().filter(|record| record.during == during);
        let mut exact: Vec<_> = records.map(|record| record.latency.as_nanos() as f64).collect();
        exact.sort_by(f64::total_cmp);
        let close = |measured: Duration, exact: f64| {
            (measured.as_nanos() as f64 / exact - 1.0).abs() < 0.002
        };
        assert!(close(latency.max(), exact[exact.len() - 1]), "{report}");
        assert!(close(latency.quantile(0.5), exact[exact.len().div_ceil(2) - 1]), "{report}");
    }
    report.assert_clean(201, 2);
    for (floor, generations) in [(report.requests.total() + 1, 2), (1, 1), (1, 3)] {
        let checked = std::panic::catch_unwind(|| report.assert_clean(floor, generations));
        assert!(checked.is_err(), "{floor} requests of {generations} generations");
    }
}

#[test]
fn paced_clients_count_a_stall_in_every_request_that_it_held_up() {
    let stalled = AtomicBool::new(false);
    let address = server(move |mut stream| {
        read_head(&mut stream);
        if !stalled.swap(true, Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
        }
        stream.write_all(answer(4711).as_bytes()).expect("write");
    });
    let running = one_client(Target::Tcp(address)).every(Duration::from_millis(10)).start();
    assert!(running.wait_for_requests(5, LIMIT));
    let report = running.stop();
    let begins: Vec<_> = report.records.iter().map(|record| record.begin).collect();
    assert!(
        begins.windows(2).all(|pair| pair[1] - pair[0] == Duration::from_millis(10)),
        "{begins:?}"
    );
    assert!(report.records[1].latency >= Duration::from_millis(90), "{report}");
}

/// Requests of one thread at a rate of 200 a second: one every 5 ms.
fn open_loop(load: Load) -> Load {
    load.threads(1).rate(200).keep_records()
}

#[test]
fn an_open_loop_keeps_its_rate_while_nobody_answers() {
    let (keep, kept) = mpsc::channel();
    let address =
        server(move |stream: TcpStream| keep.send(stream).expect("the test holds the other end"));
    let running = open_loop(Load::new(Target::Tcp(address))).start();
    let held: Vec<_> = kept.iter().take(50).collect();
    assert_eq!(running.requests(), 0, "none has ended, and 50 have begun");
    for mut stream in held.into_iter().chain(kept.try_iter()) {
        read_head(&mut stream);
        stream.write_all(answer(4711).as_bytes()).expect("write");
    }
    assert!(running.wait_for_requests(50, LIMIT));
    drop(kept); // and so is whoever comes now
    let report = running.stop();
    let begins: Vec<_> = report.records.iter().map(|record| record.begin).collect();
    let even = |pair: &[Duration]| (pair[1] - pair[0]).abs_diff(Duration::from_millis(5));
    assert!(begins.windows(2).all(|pair| even(pair) < Duration::from_micros(1)), "{begins:?}");
    // The first one waited until the fiftieth had come.
    assert!(report.records[0].latency >= Duration::from_millis(49 * 5), "{report}");
    assert_eq!(report.late.count(), report.requests.total());
}

#[test]
fn an_open_loop_counts_a_stall_in_every_request_that_was_due() {
    let stalled = AtomicBool::new(false);
    let address = server(move |mut stream| {
        read_head(&mut stream);
        if !stalled.swap(true, Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(200));
        }
        stream.write_all(answer(4711).as_bytes()).expect("write");
    });
    let running = open_loop(Load::new(Target::Tcp(address))).start();
    assert!(running.wait_for_requests(60, LIMIT));
    let report = running.stop();
    assert_eq!(report.failures_but(&[]), 0, "{report}");
    for (turn, record) in report.records.iter().take(39).enumerate() {
        let left = Duration::from_millis(200 - 5 * turn as u64);
        assert!(record.latency >= left, "number {turn}, due {left:?} before the stall was over");
    }
}

#[test]
fn an_open_loop_counts_refused_reset_and_late_ones() {
    let turn = AtomicU64::new(0);
    let (keep, kept) = mpsc::channel();
    let address = server(move |mut stream| {
        read_head(&mut stream);
        match turn.fetch_add(1, Ordering::Relaxed) % 4 {
            0 => stream.write_all(answer(4711).as_bytes()).expect("write"),
            1 => reset(stream),
            2 => drop(stream),
            _ => keep.send(stream).expect("the test holds the other end"),
        }
    });
    let load = open_loop(Load::new(Target::Tcp(address))).timeout(Duration::from_secs(2));
    let running = load.start();
    assert!(running.wait_for_requests(100, LIMIT));
    let report = running.stop();
    drop(kept);
    let total = report.requests.total();
    let near = |count: u64| count.abs_diff(total / 4) <= 1;
    assert!(near(report.answered()), "{report}");
    for failure in [Failure::ResetBeforeAnswer, Failure::EofBeforeAnswer, Failure::Timeout] {
        assert!(report.failures.get(&failure).is_some_and(|split| near(split.total())), "{report}");
    }
    assert!(std::panic::catch_unwind(|| report.assert_clean(1, 1)).is_err());

    let nobody = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("address");
    let running = open_loop(Load::new(Target::Tcp(nobody))).start();
    assert!(running.wait_for_requests(10, LIMIT));
    let report = running.stop();
    assert_eq!(report.failures[&Failure::Refused].total(), report.requests.total(), "{report}");
}

#[test]
fn an_open_loop_uses_idle_connections_again() {
    let connections = std::sync::Arc::new(AtomicU64::new(0));
    let counted = connections.clone();
    let address = server(move |stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::thread::spawn(|| kept(4711, 10)(stream));
    });
    let running = open_loop(Load::new(Target::Tcp(address))).keep_alive().start();
    seamless_testing::wait_for("more requests than connections", LIMIT, || {
        let requests = running.requests();
        (requests >= 50 && requests > 3 * connections.load(Ordering::Relaxed)).then_some(())
    });
    let report = running.stop();
    assert_eq!(report.failures_but(&[]), 0, "{report}");
}

/// What ends in a restart or was due in one counts there, however late it was sent.
#[test]
fn a_request_that_touches_a_restart_counts_as_one_during_it() {
    let marks = Marks::default();
    let ms = Duration::from_millis;
    assert!(!marks.touch_since(ms(0)), "no restart yet");
    marks.begin();
    assert!(marks.touch_since(ms(0)), "one is under way");
    marks.end(ms(10));
    assert!(marks.touch_since(ms(9)), "it was due before the restart was over");
    assert!(!marks.touch_since(ms(11)), "it was due after it");
    marks.begin();
    assert!(marks.touch_since(ms(11)));
    marks.end(ms(20));
    assert!(marks.touch_since(ms(11)), "it began between both and lasted into the second");
    assert!(!marks.touch_since(ms(21)));
}

/// A server of datagrams, which `treat` may answer.
fn datagrams(treat: impl Fn(&UdpSocket, &[u8], SocketAddr) + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let address = socket.local_addr().expect("address");
    std::thread::spawn(move || {
        let mut received = [0; 1024];
        loop {
            let (length, from) = socket.recv_from(&mut received).expect("receive");
            treat(&socket, &received[..length], from);
        }
    });
    address
}

fn echo(socket: &UdpSocket, received: &[u8], from: SocketAddr) {
    let answer = [b"Server pid: 4711\n", received].concat();
    socket.send_to(&answer, from).expect("send");
}

#[test]
fn each_datagram_is_answered_by_its_own() {
    for load in [Load::datagrams(datagrams(echo)), Load::datagrams(datagrams(echo)).keep_alive()] {
        let running = load.rate(1000).start();
        assert!(running.wait_for_requests(200, LIMIT));
        running.stop().assert_clean(200, 1);
    }
}

#[test]
fn each_datagram_without_an_answer_is_missed() {
    let numbers = Mutex::new(Vec::new());
    let address = datagrams(move |socket, received, from| {
        let mut numbers = lock(&numbers);
        assert!(!numbers.contains(&received.to_vec()), "none comes twice");
        numbers.push(received.to_vec());
        if numbers.len() % 10 != 7 {
            echo(socket, received, from);
        }
    });
    let load = Load::datagrams(address).rate(1000).timeout(Duration::from_secs(2));
    let running = load.start();
    assert!(running.wait_for_requests(200, LIMIT));
    let report = running.stop();
    let missed = (report.requests.total() + 3) / 10;
    assert_eq!(report.failures[&Failure::Timeout].total(), missed, "{report}");
    assert_eq!(report.failures_but(&[Failure::Timeout]), 0, "{report}");
    assert!(std::panic::catch_unwind(|| report.assert_clean(1, 1)).is_err());
}

#[test]
fn a_datagram_may_be_refused_answered_late_or_answered_wrong() {
    let nobody =
        UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("address");
    assert_eq!(first(open_loop(Load::datagrams(nobody))), Err(Failure::Refused));

    let late = datagrams(|socket, received, from| {
        std::thread::sleep(Duration::from_millis(100));
        echo(socket, received, from);
    });
    let running = open_loop(Load::datagrams(late)).start();
    assert!(running.wait_for_requests(1, LIMIT));
    let first_one = running.report().records[0];
    drop(running);
    assert_eq!(first_one.outcome, Ok(4711));
    assert!(first_one.latency >= Duration::from_millis(100));

    for wrong in ["Server pid: 4711\nanother", "Server pid: me\n0", "Server pid: 4711", "0"] {
        let server = datagrams(move |socket, _, from| {
            socket.send_to(wrong.as_bytes(), from).expect("send");
        });
        assert_eq!(first(open_loop(Load::datagrams(server))), Err(Failure::BadAnswer), "{wrong}");
    }
}

#[test]
fn a_dropped_load_ends_in_the_middle_of_its_requests() {
    let (keep, kept) = mpsc::channel();
    let address =
        server(move |stream: TcpStream| keep.send(stream).expect("the test holds the other end"));
    let running =
        Load::new(Target::Tcp(address)).clients(3).timeout(Duration::from_secs(3600)).start();
    let mut held: Vec<_> = kept.iter().take(3).collect();
    assert!(held.iter_mut().all(read_head), "the clients have sent their requests");
    drop(running);
    for stream in &mut held {
        assert_eq!(stream.read(&mut [0]).expect("an end, not a reset"), 0);
    }
}
