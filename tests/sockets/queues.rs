//! What is queued on sockets that are taken over is answered.

use std::{
    io::{Read, Write},
    net::{TcpStream, UdpSocket},
    os::unix::net::{UnixDatagram, UnixStream},
    path::Path,
    time::Duration,
};

use seamless_testing::{
    boxed::{self, Boxed},
    http::{Prober, Target, answer_of},
    report::Report,
    scene,
    site::Site,
    supervisor::{Service, Supervisor},
    under_each_supervisor,
};

use super::{LIMIT, sockets};

/// A client of each kind, whose request waits in the queue of a socket.
fn p2_p3_what_waits_in_a_queue_is_answered_by_the_successor(kind: Supervisor, folder: &Path) {
    let target = Target::from(boxed::address());
    let udp = boxed::address();
    let (unix, datagram) = (folder.join("unix"), folder.join("datagram"));
    let report = Report::new(folder.join("report"));
    let options = format!(
        "--tcp={target} --udp={udp} --unix={} --unix-datagram={}",
        unix.display(),
        datagram.display()
    );
    let run = scene::script(folder, &format!("{options} --accept=never"));
    let service = Service::new(kind, folder.join("service"), &run);
    let old = report.wait("started").pid;
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut tcp: Vec<TcpStream> = Vec::new();
    let mut streams: Vec<UnixStream> = Vec::new();
    for _ in 0..40 {
        let mut one = TcpStream::connect(target.to_string()).expect("a connection");
        one.write_all(request).expect("room");
        tcp.push(one);
        let mut one = UnixStream::connect(&unix).expect("a connection");
        one.write_all(request).expect("room");
        streams.push(one);
    }
    let asking = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let path = folder.join("asking");
    let asking_at_path = UnixDatagram::bind(&path).expect("a socket");
    asking.set_read_timeout(Some(LIMIT)).expect("a limit");
    asking_at_path.set_read_timeout(Some(LIMIT)).expect("a limit");
    for number in 0..8 {
        asking.send_to(format!("{number}").as_bytes(), udp).expect("room");
        asking_at_path.send_to(format!("{number}").as_bytes(), &datagram).expect("room");
    }
    service.settle();
    let script = scene::script(folder, &options);
    seamless_testing::supervisor::write_script(&service.folder().join("run"), &script);
    service.restart();
    let new = report.wait_nth("started", 2).pid;
    assert_eq!(report.wait_of(old, "wait").text, "TakenOver");
    let answered = answer_of(new);
    let answers = |stream: &mut dyn Read| {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer, and then its end");
        assert!(answer.ends_with(&answered), "{answer}");
    };
    for one in &mut tcp {
        one.set_read_timeout(Some(LIMIT)).expect("a limit");
        answers(one);
    }
    for one in &mut streams {
        one.set_read_timeout(Some(LIMIT)).expect("a limit");
        answers(one);
    }
    let mut bytes = [0; 64];
    for number in 0..8 {
        let expected = format!("{new} {number}");
        let (length, _) = asking.recv_from(&mut bytes).expect("an answer");
        assert_eq!(String::from_utf8_lossy(&bytes[..length]), expected);
        let (length, _) = asking_at_path.recv_from(&mut bytes).expect("an answer");
        assert_eq!(String::from_utf8_lossy(&bytes[..length]), expected);
    }
    assert_ne!(old, new);
}

/// Without `tcp_migrate_req`, which would hide what is lost.
fn p2_no_request_is_lost_over_restarts(kind: Supervisor, folder: &Path) {
    let target = Target::from(boxed::address());
    let unix = folder.join("unix");
    let report = Report::new(folder.join("report"));
    let run = scene::script(folder, &format!("--tcp={target} --unix={}", unix.display()));
    let service = Service::new(kind, folder.join("service"), &run);
    let first = report.wait("started").pid;
    let target_at_path = Target::Unix(unix);
    let probers =
        [&target, &target_at_path].map(|one| Prober::start_every(Duration::from_millis(1), one));
    let mut expected = vec![first];
    for restart in 1..=3 {
        service.settle();
        service.restart();
        let new = report.wait_nth("started", restart + 1).pid;
        probers.iter().for_each(|prober| prober.wait_pid(new));
        report.wait_of(*expected.last().expect("one"), "wait");
        expected.push(new);
    }
    for prober in probers {
        prober.wait_more(50);
        let probes = prober.stop();
        probes.assert_all_answered();
        assert_eq!(probes.pids(), expected, "each generation has answered");
        assert!(probes.requests() > 100, "{} requests", probes.requests());
    }
}

under_each_supervisor![
    Boxed::new().private_net_without_migration() =>
    p2_p3_what_waits_in_a_queue_is_answered_by_the_successor,
    p2_no_request_is_lost_over_restarts
];

/// A takeover changes nothing in the old daemon: it serves on if the new one dies.
#[test]
fn p1_p9_a_successor_that_dies_after_the_takeover_costs_no_request() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let target = Target::from(boxed::address());
        let option = format!("--tcp={target}");
        let (mut started, old) = direct.start_ready(&[&option, "--successor-timeout=none"]);
        started.detach();
        let prober = Prober::start(&target);
        for end in ["exit:3", "raise:9"] {
            let sockets = sockets(&direct, &old);
            let end = format!("--at=ready={end}");
            let mut failed = direct.start(&[&option, &end, "--accept=never"]);
            let daemon = failed.wait_init();
            failed.wait_end();
            assert_eq!(sockets, self::sockets(&direct, &daemon), "it had taken over");
            prober.wait_more(3);
        }
        assert_eq!(prober.seen().pids(), [old.pid()]);
        let (_started, new) = direct.start_ready(&[&option]);
        prober.wait_pid(new.pid());
        let probes = prober.stop();
        probes.assert_all_answered();
        assert_eq!(probes.pids(), [old.pid(), new.pid()]);
    });
}
