//! Addresses that overlap from one generation to the next: nothing is lost while they change, and where
//! they cannot change the error says who holds what.

use std::{
    fs,
    net::{SocketAddr, TcpListener, UdpSocket},
    num::NonZeroU32,
    os::fd::AsFd,
    path::Path,
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use seamless_testing::{
    boxed::{self, Boxed, Isolation},
    http::{self, Connection, Prober, Target},
    log::Log,
    process::{NOBODY, Watched},
    site::{Site, Started, User},
};

use super::{
    LIMIT,
    found::{start_with, to_pass},
    next, origins,
};

/// `PORT` becomes a port of this test's own.
fn with_port(words: &[&str], port: u16) -> Vec<String> {
    words.iter().map(|word| word.replace("PORT", &port.to_string())).collect()
}

fn start(direct: &Site, old: Option<(Started, Watched)>, options: &[String]) -> (Started, Watched) {
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    match old {
        Some(old) => next(direct, old, &options),
        None => direct.start_ready(&options),
    }
}

/// Before, after, and the addresses that are served before and after.
type Change = (&'static [&'static str], &'static [&'static str], &'static [&'static str]);

const TCP: [Change; 10] = [
    (&["--tcp=127.0.0.1:PORT"], &["--tcp=0.0.0.0:PORT"], &["127.0.0.1:PORT"]),
    (&["--tcp=127.0.0.1:PORT"], &["--tcp=[::]:PORT"], &["127.0.0.1:PORT"]),
    (&["--tcp=0.0.0.0:PORT"], &["--tcp=[::]:PORT"], &["127.0.0.1:PORT", "127.0.0.2:PORT"]),
    (&["--tcp=[::1]:PORT"], &["--tcp=[::]:PORT"], &["[::1]:PORT"]),
    (&["--tcp=[::1]:PORT"], &["--tcp=[::]:PORT,only-v6"], &["[::1]:PORT"]),
    (
        &["--tcp=[::]:PORT"],
        &["--tcp=0.0.0.0:PORT", "--tcp=[::]:PORT,only-v6"],
        &["127.0.0.1:PORT", "[::1]:PORT"],
    ),
    (
        &["--tcp=127.0.0.1:PORT", "--tcp=127.0.0.2:PORT", "--tcp=[::1]:PORT"],
        &["--tcp=[::]:PORT"],
        &["127.0.0.1:PORT", "127.0.0.2:PORT", "[::1]:PORT"],
    ),
    (&["--group=127.0.0.1:PORT,count=3"], &["--group=0.0.0.0:PORT,count=2"], &["127.0.0.1:PORT"]),
    (&["--tcp=127.0.0.1:PORT"], &["--group=[::]:PORT,count=4"], &["127.0.0.1:PORT"]),
    (&["--tcp=127.0.0.1:PORT,reuse-port"], &["--tcp=0.0.0.0:PORT,reuse-port"], &["127.0.0.1:PORT"]),
];

/// A service at a port of its own, and its options before and after the change.
fn prepare(place: &Path, before: &[&str], after: &[&str]) -> (Site, u16, [Vec<String>; 2]) {
    println!("{before:?} -> {after:?}");
    fs::create_dir(place).expect("a folder");
    let port = boxed::address().port();
    (Site::alone(place), port, [before, after].map(|options| with_port(options, port)))
}

/// Each change, and back again, under load.
#[test]
fn p1_p2_an_address_may_grow_and_shrink_and_no_connection_is_lost() {
    Boxed::new().private_net_without_migration().run(|folder| {
        for (at, (before, after, served)) in TCP.into_iter().enumerate() {
            let place = folder.join(at.to_string());
            let (direct, port, options) = prepare(&place, before, after);
            let mut generation = start(&direct, None, &options[0]);
            let targets: Vec<Target> = with_port(served, port)
                .iter()
                .map(|one| Target::from(one.parse::<SocketAddr>().expect("an address")))
                .collect();
            let probers: Vec<Prober> = targets
                .iter()
                .flat_map(|target| [target; 3])
                .map(|target| Prober::start_every(Duration::from_millis(1), target))
                .collect();
            let mut expected = vec![generation.1.pid()];
            for to in [1, 0, 1] {
                probers.iter().for_each(|prober| prober.wait_pid(generation.1.pid()));
                generation = start(&direct, Some(generation), &options[to]);
                let found = origins(&place, &generation.1);
                assert!(found.iter().all(|from| from == "bound"), "{found:?}");
                expected.push(generation.1.pid());
            }
            for prober in probers {
                prober.wait_pid(generation.1.pid());
                prober.wait_more(20);
                let probes = prober.stop();
                probes.assert_all_answered();
                assert_eq!(probes.pids(), expected, "each generation has answered");
            }
            // From here on it is taken over as ever.
            let last = start(&direct, Some(generation), &options[1]);
            let found = origins(&place, &last.1);
            assert!(found.iter().all(|from| from == "predecessor"), "{found:?}");
            last.1.kill();
        }
    });
}

/// A socket at every IPv6 address leaves IPv4 to others, if the machine says so.
#[test]
fn what_the_machine_says_of_every_ipv6_address_holds_for_what_is_taken_over() {
    Boxed::new().private_net_without_migration().needs(Isolation::Namespaces).run(|folder| {
        fs::write("/proc/sys/net/ipv6/bindv6only", "1").expect("of this network");
        let direct = Site::alone(folder);
        let port = boxed::address().port();
        let options = with_port(&["--tcp=[::]:PORT", "--tcp=0.0.0.0:PORT"], port);
        let first = start(&direct, None, &options);
        let second = start(&direct, Some(first), &options);
        assert_eq!(origins(folder, &second.1), ["predecessor"; 2]);
        second.1.kill();
    });
}

/// What waits at the old address is answered by the old daemon, and nothing new goes there, however long
/// it holds that socket open.
#[test]
fn p2_what_waits_at_an_address_that_grows_is_answered_by_the_predecessor() {
    Boxed::new().private_net_without_migration().run(|folder| {
        for (at, wide) in ["--tcp=0.0.0.0:PORT", "--group=[::]:PORT,count=3"].iter().enumerate() {
            let place = folder.join(at.to_string());
            fs::create_dir(&place).expect("a folder");
            let direct = Site::alone(&place);
            let address = boxed::address();
            let ask = || {
                let mut connection = Connection::within(LIMIT, &Target::from(address));
                connection.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
                connection
            };
            let go = place.join("go");
            let (mut started, old) = direct.start_ready(&[
                &format!("--tcp={address}"),
                "--accept=late",
                &format!("--at=shutdown=file:{}", go.display()),
            ]);
            let waiting: Vec<Connection> = (0..50).map(|_| ask()).collect();
            started.detach();
            let wide = with_port(&[wide], address.port());
            let (_started, new) = direct.start_ready(&[&wide[0]]);
            direct.wait_drain(old.pid());
            for _ in 0..50 {
                assert!(ask().read_to_end().ends_with(&http::answer_of(new.pid())));
            }
            assert!(!old.has_ended());
            fs::write(go, "").expect("a file");
            for connection in waiting {
                assert!(connection.read_to_end().ends_with(&http::answer_of(old.pid())));
            }
            old.wait_end(LIMIT);
            Log::of(&place).wait(&[
                ("address", &address.to_string()),
                ("closed", "replaced by a socket whose address covers it"),
            ]);
            new.kill();
        }
    });
}

/// The old socket gets what arrives until the new generation serves.
#[test]
fn p1_p9_p11_a_program_that_fails_with_a_wider_address_costs_no_connection() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let address = boxed::address();
        let narrow = format!("--tcp={address}");
        let wide = format!("--tcp=[::]:{}", address.port());
        let (mut started, old) = direct.start_ready(&[&narrow, "--successor-timeout=none"]);
        started.detach();
        let prober = Prober::start_every(Duration::from_millis(1), &Target::from(address));
        for end in ["exit:3", "raise:9", "abort"] {
            let mut failed = direct.start(&[&wide, &format!("--at=ready={end}"), "--accept=never"]);
            failed.wait_init();
            failed.wait_end();
            prober.wait_more(20);
        }
        assert_eq!(prober.seen().pids(), [old.pid()]);
        let (_started, new) = direct.start_ready(&[&wide]);
        prober.wait_pid(new.pid());
        let probes = prober.stop();
        probes.assert_all_answered();
        assert_eq!(probes.pids(), [old.pid(), new.pid()]);
    });
}

/// The predecessor has lost its address for good: it drains, and what comes after a crash waits for the next start.
#[test]
fn p11_p12_a_wider_address_has_no_probation() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let address = boxed::address();
        let narrow = format!("--tcp={address}");
        let wide = format!("--tcp=0.0.0.0:{}", address.port());
        let (mut started, old) = direct.start_ready(&[&narrow, "--successor-timeout=none"]);
        started.detach();
        let go = folder.join("go");
        let waits = format!("--at=started=file:{}", go.display());
        let failing = [&wide, "--probation=1h", &waits, "--at=started=exit:3"];
        let mut failed = direct.start(&failing);
        let failing = failed.wait_init();
        let line = direct.log.wait_words(&["stage=probation", "could not serve there again"], 1);
        assert!(line.contains(&format!("predecessor={}", old.pid())), "{line}");
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        old.wait_end(LIMIT);
        fs::write(go, "").expect("a file");
        failing.wait_end(LIMIT);
        failed.wait_end();
        let target = Target::from(address);
        let waits = Connection::unfinished(&target);
        let (_started, new) = direct.start_ready(&[&wide, "--probation=1h"]);
        assert!(waits.finish().ends_with(&http::answer_of(new.pid())));
    });
}

/// Asks from a port of its own each time, and again and again.
fn ask_by_udp(address: SocketAddr, stop: &AtomicBool, asked: &AtomicUsize) {
    while !stop.load(Ordering::Relaxed) {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).expect("a socket");
        socket.set_read_timeout(Some(LIMIT)).expect("a limit");
        socket.send_to(b"ask", address).expect("room");
        let mut bytes = [0; 64];
        let (length, from) = socket.recv_from(&mut bytes).expect("an answer");
        assert!(bytes[..length].ends_with(b" ask"));
        assert_eq!(from, address, "from the address that was asked");
        asked.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn p1_p2_a_udp_address_may_grow_and_shrink_and_no_datagram_is_lost() {
    let changes: [Change; 4] = [
        (&["--udp=127.0.0.1:PORT"], &["--udp=0.0.0.0:PORT"], &["127.0.0.1:PORT"]),
        (&["--udp=127.0.0.1:PORT"], &["--udp=[::]:PORT"], &["127.0.0.1:PORT"]),
        (&["--udp=[::1]:PORT"], &["--udp=[::]:PORT,only-v6"], &["[::1]:PORT"]),
        (
            &["--udp-group=127.0.0.1:PORT,count=3"],
            &["--udp-group=0.0.0.0:PORT,count=2"],
            &["127.0.0.1:PORT"],
        ),
    ];
    Boxed::new().private_net().run(|folder| {
        for (at, (before, after, served)) in changes.into_iter().enumerate() {
            let place = folder.join(at.to_string());
            let (direct, port, options) = prepare(&place, before, after);
            let mut generation = start(&direct, None, &options[0]);
            let stop = Arc::new(AtomicBool::new(false));
            let asked = Arc::new(AtomicUsize::new(0));
            let served = with_port(served, port)[0].parse().expect("an address");
            let askers = [(); 4].map(|()| {
                let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
                thread::spawn(move || ask_by_udp(served, &stop, &asked))
            });
            let answered_more = || {
                let enough = asked.load(Ordering::Relaxed) + 20;
                seamless_testing::wait_for("answers", LIMIT, || {
                    (asked.load(Ordering::Relaxed) >= enough).then_some(())
                });
            };
            for to in [1, 0, 1] {
                answered_more();
                generation = start(&direct, Some(generation), &options[to]);
            }
            answered_more();
            stop.store(true, Ordering::Relaxed);
            askers.into_iter().for_each(|asker| asker.join().expect("all were answered"));
            generation.1.kill();
        }
    });
}

/// An address of every IP version for UDP: the change works, and the log tells what it may cost.
#[test]
fn a_udp_socket_at_every_address_may_change_as_well() {
    Boxed::new().private_net().run(|folder| {
        let direct = Site::alone(folder);
        let port = boxed::address().port();
        let first = direct.start_ready(&[&format!("--udp=0.0.0.0:{port}")]);
        let (_started, second) = next(&direct, first, &[&format!("--udp=[::]:{port}")]);
        let line = direct.log.wait_words(&["replaced only when the predecessor closes it"], 1);
        assert!(line.contains(&format!("daemon={}", second.pid())), "{line}");
        let asked = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            let (stop, asked) = (&stop, &asked);
            scope.spawn(move || ask_by_udp(address, stop, asked));
            seamless_testing::wait_for("answers", LIMIT, || {
                (asked.load(Ordering::Relaxed) > 3).then_some(())
            });
            stop.store(true, Ordering::Relaxed);
        });
    });
}

#[test]
fn a_port_that_the_system_chose_may_be_asked_for_by_its_number() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let first = direct.start_ready(&["--tcp=127.0.0.1:0"]);
        let bound = super::sockets(&direct, &first.1)[0].clone();
        let (_, address) = bound.split_once(' ').expect("an address");
        let (_started, second) = next(&direct, first, &[&format!("--tcp={address}")]);
        assert_eq!(super::sockets(&direct, &second).first(), Some(&bound));
        assert_eq!(origins(folder, &second), ["predecessor"]);
    });
}

/// The generation that has replaced a socket was killed before it told its predecessor to end: that socket
/// gets nothing any more, so the next generation does not use it.
#[test]
fn p9_a_socket_that_was_replaced_is_not_taken_over() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let port = boxed::address().port();
        let narrow = format!("--tcp=127.0.0.1:{port}");
        let (mut started, first) = direct.start_ready(&[&narrow, "--successor-timeout=none"]);
        started.detach();
        // As a successor does it, through a descriptor of the same socket.
        let listener = first.listener_at(SocketAddr::from(([127, 0, 0, 1], port)));
        let nowhere = NonZeroU32::new(i32::MAX as u32);
        listener.bind_device_by_index_v4(nowhere).expect("an interface that does not exist");
        drop(listener);
        let (_started, second) = direct.start_ready(&[&narrow]);
        assert_eq!(origins(folder, &second), ["bound"]);
        first.wait_end(LIMIT);
        assert_eq!(
            http::pid(&Target::from(SocketAddr::from(([127, 0, 0, 1], port)))),
            second.pid()
        );
    });
}

/// The error of the next generation, while this one serves.
#[track_caller]
fn error_of(direct: &Site, old: &mut (Started, Watched), options: &[&str]) -> String {
    old.0.detach();
    let error = direct.start(options).wait_error().text;
    assert!(!old.1.has_ended());
    error
}

#[test]
fn p10_an_address_that_a_stranger_holds_is_an_error_that_names_him() {
    Boxed::new().private_net_without_migration().run(|folder| {
        for (at, wide) in ["0.0.0.0", "[::]", "127.0.0.1"].iter().enumerate() {
            let place = folder.join(at.to_string());
            fs::create_dir(&place).expect("a folder");
            let direct = Site::alone(&place);
            let address = boxed::address();
            let option = format!("--tcp={wide}:{}", address.port());
            let mut old = direct.start_ready(&["--tcp=127.0.0.1:0", "--successor-timeout=none"]);
            let _held = TcpListener::bind(address).expect("a listener");
            let error = error_of(&direct, &mut old, &[&option]);
            let text = format!("socket: cannot bind tcp {wide}:{} (socket): ", address.port());
            assert!(error.starts_with(&text), "{error}");
            let named = format!("process {} (", process::id());
            assert!(error.contains(&named), "{error}");
            let end = format!(
                "), which is no predecessor, holds tcp {address}: end it, or choose another address"
            );
            assert!(error.ends_with(&end), "{error}");
            old.1.kill();
        }
    });
}

#[test]
fn p10_an_address_that_overlaps_the_supervisors_is_an_error_that_says_so() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let address = boxed::address();
        let passed = to_pass(TcpListener::bind(address).expect("a listener"));
        let variables = "export LISTEN_PID=$$ LISTEN_FDS=1";
        let option = format!("--tcp=0.0.0.0:{}", address.port());
        let mut started = start_with(&direct, &[passed.as_fd()], variables, &[&option]);
        let error = started.wait_error().text;
        let text = format!("the supervisor has passed tcp {address}, which overlaps");
        assert!(error.contains(&text), "{error}");
        assert!(error.contains("ListenStream="), "{error}");
    });
}

#[test]
fn p10_an_address_that_a_draining_generation_holds_is_an_error_that_names_it() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let address = boxed::address();
        let hold = format!("--at=shutdown=file:{}", folder.join("go").display());
        let (mut started, first) =
            direct.start_ready(&[&format!("--tcp={address}"), "--accept=until-drain", &hold]);
        started.detach();
        let mut second = direct.start_ready(&["--tcp=127.0.0.1:0", "--successor-timeout=none"]);
        direct.wait_drain(first.pid());
        let option = format!("--tcp=0.0.0.0:{}", address.port());
        let error = error_of(&direct, &mut second, &[&option]);
        let text = format!(
            "; generation 1 with daemon {} still holds tcp {address}, which overlaps, and does not \
             transfer it: the address is free when that generation has closed it",
            first.pid()
        );
        assert!(error.contains(&text), "{error}");
    });
}

fn p10_the_socket_of_another_user(folder: &Path) {
    let direct = Site::at(folder).user(User::ByItself { reads: true }).no_socket().alone();
    let address = boxed::address();
    let narrow = format!("--tcp={address}");
    let as_nobody = format!("--at=after-init=user:{NOBODY}");
    let mut old = direct.start_ready(&[&as_nobody, &narrow, "--successor-timeout=none"]);
    let wide = format!("--tcp=0.0.0.0:{}", address.port());
    let error = error_of(&direct, &mut old, &[&wide]);
    let text = format!(
        "; generation 1 with daemon {} holds tcp {address}, which overlaps, with a socket of uid {NOBODY}, \
         and this process has uid 0: two sockets share a port only if one user has made both \
         (SO_REUSEPORT). Stop the service and start it again, or start it as uid {NOBODY}",
        old.1.pid()
    );
    assert!(error.ends_with(&text), "{error}");
    // The same address is taken over as ever.
    let (_started, new) = direct.start_ready(&[&narrow]);
    assert_eq!(origins(folder, &new), ["predecessor"]);
}

#[test]
fn p10_an_address_that_overlaps_another_users_is_an_error_that_names_both() {
    Boxed::new()
        .private_net_without_migration()
        .needs(Isolation::Namespaces)
        .run(p10_the_socket_of_another_user);
}
