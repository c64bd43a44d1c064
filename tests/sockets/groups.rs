//! Groups of sockets on one port: taken over in order, and nothing queued on any member is lost
//! where their number changes.

use std::{
    collections::HashMap,
    fs,
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    path::Path,
};

use seamless_testing::{
    LIMIT,
    boxed::{self, Boxed},
    http::{Connection, Target},
    log::Log,
    process::{self, Watched},
    signal::TERM,
    site::Site,
    wait_for,
};

fn ask(address: SocketAddr) -> Connection {
    let mut connection = Connection::within(LIMIT, &Target::from(address));
    connection.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    connection
}

/// The PID that answers.
#[track_caller]
fn answer(connection: Connection) -> u32 {
    let answer = connection.read_to_end();
    let pid = answer.rsplit_once("Server pid: ").expect("an answer").1;
    pid.trim().parse().expect("a PID")
}

/// Who answers how many of so many requests.
#[track_caller]
fn answers(connections: Vec<Connection>) -> HashMap<u32, usize> {
    let mut count = HashMap::new();
    for connection in connections {
        *count.entry(answer(connection)).or_default() += 1;
    }
    count
}

#[track_caller]
fn datagrams(address: SocketAddr, count: usize) -> HashMap<u32, usize> {
    let mut answers = HashMap::new();
    for number in 0..count {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(LIMIT)).expect("a limit");
        let mut seen = None;
        for part in 0..3 {
            socket.send_to(format!("{number} {part}").as_bytes(), address).expect("room");
            let mut bytes = [0; 64];
            let length = socket.recv(&mut bytes).expect("an answer");
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            let (pid, rest) = text.split_once(' ').expect("two words");
            assert_eq!(rest, format!("{number} {part}"));
            let pid: u32 = pid.parse().expect("a PID");
            assert_eq!(*seen.get_or_insert(pid), pid);
        }
        *answers.entry(seen.expect("three answers")).or_default() += 1;
    }
    answers
}

/// What waits on every member of a group is answered by the successor, whether it asks for as many
/// or for more.
#[test]
fn p2_what_waits_on_any_member_is_answered() {
    Boxed::new().private_net_without_migration().run(|folder| {
        for (before, after) in [(4, 4), (4, 8), (1, 4), (3, 5)] {
            println!("{before} -> {after}");
            let place = folder.join(format!("{before}-{after}"));
            fs::create_dir(&place).expect("a folder");
            let direct = Site::alone(&place);
            let address = boxed::address();
            let group = |count| format!("--group={address},count={count}");
            let (mut started, old) = direct.start_ready(&[&group(before), "--accept=never"]);
            let waiting: Vec<Connection> = (0..100).map(|_| ask(address)).collect();
            started.detach();
            let (_started, new) = direct.start_ready(&[&group(after)]);
            old.wait_end(LIMIT);
            assert_eq!(answers(waiting), HashMap::from([(new.pid(), 100)]));
            let fresh = (0..100).map(|_| ask(address)).collect();
            assert_eq!(answers(fresh), HashMap::from([(new.pid(), 100)]));
            new.kill();
        }
    });
}

/// A successor that asks for fewer: what waits on the rest is answered by the old one, and nothing
/// new goes there, however long it still holds them open.
#[test]
fn p2_members_that_are_not_asked_for_are_drained_by_the_old_daemon() {
    Boxed::new().private_net_without_migration().run(|folder| {
        for (before, after) in [(4, 2), (4, 1), (5, 3)] {
            println!("{before} -> {after}");
            let place = folder.join(format!("{before}-{after}"));
            fs::create_dir(&place).expect("a folder");
            let direct = Site::alone(&place);
            let address = boxed::address();
            let go = place.join("go");
            let group = |count| format!("--group={address},count={count}");
            let (mut started, old) = direct.start_ready(&[
                &group(before),
                "--accept=late",
                &format!("--at=shutdown=file:{}", go.display()),
            ]);
            let waiting: Vec<Connection> = (0..100).map(|_| ask(address)).collect();
            started.detach();
            let (_started, new) = direct.start_ready(&[&group(after)]);
            // The old one does not accept now, so what went to the rest would hang.
            let fresh = (0..100).map(|_| ask(address)).collect();
            assert_eq!(answers(fresh), HashMap::from([(new.pid(), 100)]));
            assert!(!old.has_ended());
            fs::write(go, "").expect("a file");
            let answered = answers(waiting);
            assert_eq!(answered.values().sum::<usize>(), 100);
            assert!(answered.contains_key(&old.pid()), "{answered:?}");
            assert!(answered.contains_key(&new.pid()), "{answered:?}");
            old.wait_end(LIMIT);
            let closed = ("closed", "the older generations have ended");
            for member in after + 1..=before {
                Log::of(&place).wait(&[("member", &member.to_string()), closed]);
            }
            let fresh = (0..100).map(|_| ask(address)).collect();
            assert_eq!(answers(fresh), HashMap::from([(new.pid(), 100)]));
            new.kill();
        }
    });
}

/// A chain of generations that each ask for another number, while the one before holds its sockets
/// open and no longer accepts: whatever goes to a wrong member hangs.
fn chain(folder: &Path, counts: &[usize], hold: bool, check: impl Fn(SocketAddr, &Watched)) {
    let kind = if folder.ends_with("udp") { "udp-group" } else { "group" };
    fs::create_dir(folder).expect("a folder");
    let direct = Site::alone(folder);
    let address = boxed::address();
    let mut last = None;
    let mut holding = Vec::new();
    for (number, count) in counts.iter().enumerate() {
        println!("{kind}: {count} members");
        let go = folder.join(format!("go-{number}"));
        let (started, daemon) = direct.start_ready(&[
            &format!("--{kind}={address},count={count}"),
            "--accept=until-drain",
            &format!("--at=shutdown=file:{}", go.display()),
        ]);
        let old = last.replace((started, daemon));
        let (_, daemon) = last.as_ref().expect("just put there");
        if let Some((_, old)) = old {
            // It holds all it had, and no longer accepts.
            direct.wait_drain(old.pid());
            check(address, daemon);
            holding.push((old, go_of(folder, number - 1)));
            if !hold {
                let (old, go) = holding.pop().expect("one");
                fs::write(go, "").expect("a file");
                old.wait_end(LIMIT);
                if counts[number] < counts[number - 1] {
                    let pid = daemon.pid().to_string();
                    Log::of(folder).wait(&[
                        ("daemon", &pid),
                        ("member", &(counts[number] + 1).to_string()),
                        ("closed", "the older generations have ended"),
                    ]);
                }
            }
        }
        check(address, daemon);
        last.as_mut().expect("just put there").0.detach();
    }
    for (old, go) in holding {
        fs::write(go, "").expect("a file");
        old.wait_end(LIMIT);
    }
    let (_, daemon) = last.expect("at least one");
    check(address, &daemon);
    daemon.kill();
}

fn go_of(folder: &Path, number: usize) -> std::path::PathBuf {
    folder.join(format!("go-{number}"))
}

const COUNTS: [usize; 8] = [4, 2, 4, 3, 6, 6, 1, 3];

fn all_answered_by_tcp(address: SocketAddr, daemon: &Watched) {
    let fresh = (0..60).map(|_| ask(address)).collect();
    assert_eq!(answers(fresh), HashMap::from([(daemon.pid(), 60)]));
}

fn all_answered_by_udp(address: SocketAddr, daemon: &Watched) {
    assert_eq!(datagrams(address, 60), HashMap::from([(daemon.pid(), 60)]));
}

#[test]
fn p2_groups_shrink_and_grow() {
    Boxed::new().private_net_without_migration().run(|folder| {
        chain(&folder.join("tcp"), &COUNTS, false, all_answered_by_tcp);
        chain(&folder.join("udp"), &COUNTS, false, all_answered_by_udp);
    });
}

/// The same, and every older generation lives on to the end.
#[test]
fn p2_groups_shrink_and_grow_while_all_older_generations_drain() {
    Boxed::new().private_net_without_migration().run(|folder| {
        chain(&folder.join("tcp"), &COUNTS, true, all_answered_by_tcp);
        chain(&folder.join("udp"), &COUNTS, true, all_answered_by_udp);
    });
}

/// New members get nothing before their generation serves: were it to die, that would be lost. There are as many as
/// are asked for, also beside a group of one.
#[test]
fn p1_a_growing_group_whose_generation_dies_costs_no_request() {
    Boxed::new().private_net_without_migration().run(|folder| {
        for before in [1, 2] {
            println!("{before} -> 6");
            let place = folder.join(before.to_string());
            fs::create_dir(&place).expect("a folder");
            let direct = Site::alone(&place);
            let address = boxed::address();
            let group = |count| format!("--group={address},count={count}");
            let (mut started, old) =
                direct.start_ready(&[&group(before), "--successor-timeout=none"]);
            started.detach();
            let die = place.join("die");
            let new = direct.start(&[
                &group(6),
                "--accept=never",
                &format!("--at=ready=file:{}", die.display()),
                "--at=ready=raise:9",
            ]);
            let daemon = new.wait_init();
            let members = || direct.report.named("socket").into_iter();
            let members = || members().filter(|event| event.pid == daemon.pid()).count();
            wait_for("six members", LIMIT, || (members() == 6).then_some(()));
            assert_eq!(process::listeners(Some(address.port())).len(), 6);
            let fresh: Vec<Connection> = (0..100).map(|_| ask(address)).collect();
            fs::write(die, "").expect("a file");
            daemon.wait_end(LIMIT);
            assert_eq!(answers(fresh), HashMap::from([(old.pid(), 100)]));
            all_answered_by_tcp(address, &old);
            old.kill();
        }
    });
}

/// How many connections wait at each listener of this port that has some.
fn queues(port: u16) -> Vec<usize> {
    let sockets = fs::read_to_string("/proc/net/tcp").expect("the sockets");
    // `0: 0100007F:1F90 00000000:0000 0A 00000000:00000003 …`
    let waiting = sockets.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let here = words.get(1)?.ends_with(&format!(":{port:04X}")) && words.get(3) == Some(&"0A");
        here.then(|| usize::from_str_radix(words[4].split_once(':')?.1, 16).ok())?
    });
    waiting.filter(|waiting| *waiting > 0).collect()
}

/// A member that the new generation has left out gets connections again when the predecessor serves again.
#[test]
fn p11_a_group_that_was_smaller_in_a_probation_is_whole_after_the_rollback() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let address = boxed::address();
        let group = |count| format!("--group={address},count={count}");
        let options = [&group(3), "--accept=late", "--successor-timeout=none"];
        let (mut started, old) = direct.start_ready(&options);
        started.detach();
        let (_started, new) = direct.start_ready(&[&group(2), "--probation=1h"]);
        direct.log.wait(&[("stage", "standby"), ("daemon", &old.pid().to_string())]);
        all_answered_by_tcp(address, &new);
        new.kill();
        direct.log.wait(&[("stage", "rollback"), ("failed_generation", "2")]);
        let waiting: Vec<Connection> = (0..60).map(|_| ask(address)).collect();
        let at = queues(address.port());
        assert_eq!((at.len(), at.iter().sum::<usize>()), (3, 60), "{at:?}");
        old.signal(TERM);
        assert_eq!(answers(waiting), HashMap::from([(old.pid(), 60)]));
        old.wait_end(LIMIT);
    });
}

/// The members that only the new generation has get nothing while it drains: that would be lost at its end.
#[test]
fn p2_p11_a_group_that_was_larger_in_a_probation_is_as_before_after_the_rollback() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let address = boxed::address();
        let group = |count| format!("--group={address},count={count}");
        let (mut started, old) = direct.start_ready(&[&group(2), "--successor-timeout=none"]);
        started.detach();
        let (unhealthy, go) = (folder.join("unhealthy"), folder.join("go"));
        let (_started, new) = direct.start_ready(&[
            &group(3),
            "--accept=until-drain",
            "--probation=1h",
            &format!("--unhealthy={}", unhealthy.display()),
            &format!("--at=shutdown=file:{}", go.display()),
        ]);
        direct.log.wait(&[("stage", "standby"), ("daemon", &old.pid().to_string())]);
        fs::write(unhealthy, "").expect("a file");
        direct.log.wait(&[("stage", "rollback"), ("failed_generation", "2")]);
        direct.wait_drain(new.pid());
        all_answered_by_tcp(address, &old);
        fs::write(go, "").expect("a file");
        new.wait_end(LIMIT);
        all_answered_by_tcp(address, &old);
        old.kill();
    });
}

/// After a crash there is nobody to take over from but one that drains, and that hands nothing over:
/// the group is bound anew beside its members, and must get a part of what arrives, whatever the
/// generation that crashed had made of the group. The rest waits until the older one closes.
#[test]
fn p1_p2_a_group_is_bound_anew_beside_one_that_drains() {
    Boxed::new().private_net().run(|folder| {
        let direct = Site::alone(folder);
        let address = boxed::address();
        let go = folder.join("go");
        let (mut started, old) = direct.start_ready(&[
            &format!("--group={address},count=3"),
            "--accept=until-drain",
            &format!("--at=shutdown=file:{}", go.display()),
        ]);
        started.detach();
        let (mut second, crashed) = direct.start_ready(&[&format!("--group={address},count=1")]);
        direct.wait_drain(old.pid());
        all_answered_by_tcp(address, &crashed);
        crashed.kill();
        second.wait_end(); // until then the service is not to be started by hand

        let (_started, new) = direct.start_ready(&[&format!("--group={address},count=2")]);
        let fresh: Vec<Connection> = (0..60).map(|_| ask(address)).collect();
        wait_for("an answer", LIMIT, || fresh.iter().any(Connection::has_answer).then_some(()));
        fs::write(go, "").expect("a file");
        assert_eq!(answers(fresh), HashMap::from([(new.pid(), 60)]));
        old.wait_end(LIMIT);
        new.kill();
    });
}

/// The predecessor dies before its successor serves: nobody accepts any more from the members that
/// were not asked for, and what waits there must be told so.
#[test]
fn p9_members_that_are_not_asked_for_end_with_a_predecessor_that_is_killed() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let address = boxed::address();
        let (mut started, old) = direct.start_ready(&[
            &format!("--group={address},count=3"),
            "--accept=never",
            "--successor-timeout=none",
        ]);
        started.detach();
        let go = folder.join("go");
        let successor = direct.start(&[
            &format!("--group={address},count=1"),
            &format!("--at=ready=file:{}", go.display()),
        ]);
        let new = successor.wait_init();
        let has_socket = || direct.report.named("socket").iter().any(|had| had.pid == new.pid());
        wait_for("it has taken over", LIMIT, || has_socket().then_some(()));
        let waiting: Vec<Connection> = (0..60).map(|_| ask(address)).collect();
        old.kill();
        old.wait_end(LIMIT);
        fs::write(go, "").expect("a file");
        let mut answered = 0;
        for connection in waiting {
            match connection.read_to_failure() {
                (_, None) => answered += 1,
                (_, Some(error)) => assert_eq!(error, ErrorKind::ConnectionReset),
            }
        }
        assert!((1..60).contains(&answered), "{answered} answered of 60 among three members");
        all_answered_by_tcp(address, &new);
        new.kill();
    });
}
