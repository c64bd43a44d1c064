//! Successors that lie, refuse or come in the middle; and clients that leave while they move.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use seamless_testing::{
    LIMIT,
    boxed::Boxed,
    handover::{End, Predecessor, targets},
    innocent::Innocent,
    process::Watched,
    scene,
    signal::{CONT, KILL, TERM},
    wait_for,
};

use super::{Client, HEAD, Moves, assert_all_at, enter, enter_test, launch, wait_started};

/// This process takes over from the service, as the PID file and the record say. Gives the link at which the
/// connections come.
fn take_over(moves: &Moves) -> (Predecessor, End) {
    let listener = Predecessor::at(moves.socket());
    enter_test(moves, "serving");
    let own = moves.folder.join("own.pid");
    fs::write(&own, format!("{}\n", std::process::id())).expect("a PID file");
    fs::rename(own, moves.folder.join("web.pid")).expect("in place");
    Watched::new(moves.daemon).signal(TERM);
    // Others look whether somebody listens there.
    loop {
        let end = listener.accept();
        match end.receive() {
            Some((text, _)) if text.starts_with(&format!("{HEAD}pass ")) => return (listener, end),
            Some((text, _)) => panic!("{text}"),
            None => {}
        }
    }
}

/// What a successor says to the request, and what then becomes of the connection.
#[test]
fn p13_p10_a_successor_that_does_not_take_part_gets_nothing() {
    Boxed::new().private_net().run(|folder| {
        let unknown = format!("{HEAD}refused it sent an unknown message \"pass\"");
        let cases = [
            ("another version", Some(unknown.as_str()), "the successor refuses it"),
            ("a later version", Some("seamless-takeover 2 accepted"), "the successor refuses it"),
            ("garbage", Some("\u{0}\n"), "the successor refuses it"),
            (
                "kept already",
                Some("seamless-takeover 1 kept number=1 fates=k"),
                "the successor refuses it",
            ),
            ("silent", None, "the successor does not answer"),
        ];
        scene::each(folder, cases, |folder, (_, says, reason)| {
            let moves = Moves::start(folder, "");
            let old = Watched::new(moves.daemon);
            let mut clients = moves.clients(2);
            let (_listener, end) = take_over(&moves);
            if let Some(says) = says {
                end.send(says);
            }
            let reason = format!("reason=\"{reason}\"");
            moves.log().wait_words(&["stage=stays", &reason], 2);
            assert_all_at(&mut clients, old.pid());
            drop(clients);
            old.wait_end(LIMIT);
        });
    });
}

/// The record and the PID file name a process that serves, and another one listens at the control socket.
#[test]
fn p5_p10_p13_only_the_successor_itself_gets_connections() {
    Boxed::new().private_net().run(|folder| {
        let moves = Moves::start(folder, "");
        let old = Watched::new(moves.daemon);
        let mut clients = moves.clients(1);
        let stranger = Predecessor::at(moves.socket());
        let successor = Innocent::start();
        enter(&moves, successor.pid(), "serving");
        let own = moves.folder.join("own.pid");
        fs::write(&own, format!("{}\n", successor.pid())).expect("a PID file");
        fs::rename(own, moves.folder.join("web.pid")).expect("in place");
        old.signal(TERM);
        // It looks several times, in case that the successor is about to listen.
        for _ in 0..5 {
            assert_eq!(stranger.accept().receive().map(|(text, _)| text), None, "it was asked");
        }
        drop(stranger);
        moves.log().wait_words(&["stage=stays", "reason=\"no other generation serves\""], 1);
        assert_all_at(&mut clients, old.pid());
        drop(clients);
        old.wait_end(LIMIT);
        successor.assert_unharmed();
    });
}

/// A message is out. Whatever comes that is no answer to it, the connection is not served by the old one: only an
/// answer decides, or the end of the process.
#[test]
fn p13_p10_a_successor_that_lies_decides_nothing() {
    Boxed::new().private_net().run(|folder| {
        let cases = [
            "seamless-takeover 1 kept number=2 fates=u",
            "seamless-takeover 1 kept number=1 fates=uu",
            "seamless-takeover 1 kept number=1 fates=?",
            "seamless-takeover 1 accepted",
            "garbage",
        ];
        scene::each(folder, cases, |folder, lie| {
            let moves = Moves::start(folder, "");
            let old = Watched::new(moves.daemon);
            let mut clients = moves.clients(1);
            let (_listener, end) = take_over(&moves);
            end.send(&format!("{HEAD}accepted"));
            let (text, fds) = end.receive().expect("a message");
            assert!(text.starts_with(&format!("{HEAD}connections number=1 count=1 ")), "{text}");
            assert_eq!(fds.len(), 1);
            end.send(lie);
            clients[0].send();
            // Longer than an answer may take.
            thread::sleep(Duration::from_millis(1300));
            assert!(!clients[0].has_answer(), "served, and it may have been kept: {lie}");
            drop(fds);
            end.send(&format!("{HEAD}kept number=1 fates=u"));
            assert_eq!(clients[0].answer(), old.pid());
            drop(clients);
            old.wait_end(LIMIT);
        });
    });
}

/// The limit of the drain passes while a connection is in doubt: the old one ends, and the successor has it.
#[test]
fn p13_the_limit_of_the_drain_passes_in_the_move() {
    Boxed::new().private_net().run(|folder| {
        let mut moves = Moves::start(folder, "--drain-timeout=2s");
        let mut clients = moves.clients(1);
        let old = moves.restart("--stop-in=admit");
        scene::wait_stopped(|| vec![moves.daemon]);
        clients[0].send();
        old.wait_end(LIMIT);
        moves.log().wait(&[("stage", "hammer"), ("daemon", &old.pid().to_string())]);
        Watched::new(moves.daemon).signal(CONT);
        assert_eq!(clients[0].answer(), moves.daemon);
        assert_all_at(&mut clients, moves.daemon);
    });
}

/// The second generation takes its time, and the third one comes meanwhile.
#[test]
fn p13_a_third_generation_comes_in_the_middle_of_the_move() {
    const CLIENTS: usize = 100;
    // The name fills a message with 40 of them.
    let kind = "%".repeat(255);
    let slow = format!("--kind={kind} --accepts={kind} --again --slow=20ms");
    let quick = format!("--kind={kind} --accepts={kind} --again");
    Boxed::new().private_net().run(|folder| {
        let mut moves = Moves::start(folder, &slow);
        let mut clients = moves.clients(CLIENTS);
        let first = moves.restart(&slow);
        clients.iter_mut().step_by(3).for_each(Client::send);
        let second = moves.restart(&quick);
        clients.iter_mut().step_by(3).for_each(|one| _ = one.answer());
        wait_for(format_args!("both have ended\n{}", moves.log()), LIMIT, || {
            (first.has_ended() && second.has_ended()).then_some(())
        });
        assert_all_at(&mut clients, moves.daemon);
        assert!(moves.log().stage("hammer").is_empty(), "{}", moves.log());
    });
}

/// A client that resets its connection while it moves costs nobody else anything.
#[test]
fn p13_clients_that_leave_in_the_move() {
    Boxed::new().private_net().run(|folder| {
        let mut moves = Moves::start(folder, "--again");
        let mut clients = moves.clients(6);
        let old = moves.restart("--stop-in=admit");
        scene::wait_stopped(|| vec![moves.daemon]);
        for (number, mut one) in clients.drain(..4).enumerate() {
            one.send(); // what is unread makes a close a reset
            if number % 2 == 0 {
                one.reset_on_close();
            }
            drop(one);
        }
        clients.iter_mut().for_each(Client::send);
        Watched::new(moves.daemon).signal(CONT);
        clients.iter_mut().for_each(|one| _ = one.answer());
        clients.iter_mut().for_each(|one| one.ask_until(moves.daemon));
        old.wait_end(LIMIT);
        assert_all_at(&mut clients, moves.daemon);
    });
}

/// Rounds of restarts in one place, in which now and then one side is killed. Each client goes on with its numbers,
/// until a process is killed that had its connection.
#[test]
fn p13_p9_numbers_go_on_through_restarts_and_kills() {
    const CLIENTS: usize = 40;
    const ROUNDS: u64 = 9;
    Boxed::new().private_net().run(|folder| {
        let options = "--again --slow=2ms";
        let mut moves = Moves::start(folder, options);
        let mut clients = moves.clients(CLIENTS);
        for round in 0..ROUNDS {
            let old = Watched::new(moves.daemon);
            let nth = moves.log().stage("started").len() + 1;
            clients.iter_mut().step_by(2).for_each(Client::send);
            Watched::new(moves.launcher.id()).signal(TERM);
            assert!(moves.launcher.wait().expect("its end").success());
            moves.launcher = launch(folder, moves.address, options);
            moves.daemon = wait_started(folder, nth);
            let new = Watched::new(moves.daemon);
            let began = Instant::now();
            let pause = Duration::from_millis(round * 7 % 31);
            while began.elapsed() < pause {
                thread::sleep(Duration::from_millis(1)); // somewhere in the move
            }
            let killed = match round % 3 {
                0 => None,
                1 => Some(&old),
                _ => Some(&new),
            };
            if let Some(killed) = killed {
                killed.signal(KILL);
                killed.wait_end(LIMIT);
            }
            let mut left = Vec::new();
            for (at, mut one) in clients.drain(..).enumerate() {
                let answered = match at % 2 {
                    0 => one.try_answer(),
                    _ => one.try_ask(),
                };
                match (answered, killed) {
                    // It may have answered before its end.
                    (Some(pid), _) => {
                        assert!([old.pid(), new.pid()].contains(&pid), "{pid}");
                        left.push(one);
                    }
                    (None, Some(_)) => {}
                    (None, None) => panic!("round {round}: closed, and nobody was killed"),
                }
            }
            if round % 3 == 2 {
                // The old one still has those that stay, and passes them to the next one.
                _ = moves.launcher.wait();
                let nth = moves.log().stage("started").len() + 1;
                moves.launcher = launch(folder, moves.address, options);
                moves.daemon = wait_started(folder, nth);
            }
            let lives: BTreeSet<u32> = [moves.daemon].into();
            for mut one in left {
                let moved = wait_for("an answer of the newest, or its end", LIMIT, || {
                    match one.try_ask() {
                        Some(pid) if lives.contains(&pid) => Some(true),
                        Some(_) => None,
                        None => Some(false), // it was answered by the one that was killed then
                    }
                });
                assert!(moved || killed.is_some(), "round {round}: closed, and nobody was killed");
                if moved {
                    clients.push(one);
                }
            }
            if round % 3 != 1 {
                old.wait_end(LIMIT);
            }
            let more = moves.clients(CLIENTS - clients.len());
            clients.extend(more);
        }
    });
}

/// What a generation has open, whatever has moved through it.
#[test]
fn p13_nothing_is_left_of_connections_that_have_moved() {
    const CLIENTS: usize = 12;
    Boxed::new().private_net().run(|folder| {
        let mut moves = Moves::start(folder, "--load=40000");
        let mut clients = moves.clients(CLIENTS);
        for _ in 0..4 {
            let old = moves.restart("--load=40000");
            old.wait_end(LIMIT);
            assert_all_at(&mut clients, moves.daemon);
            wait_open(moves.daemon, CLIENTS);
        }
        drop(clients);
        wait_open(moves.daemon, 0);
        let mut names: Vec<String> = files(folder);
        names.retain(|name| name != "log");
        assert_eq!(names, ["web.pid", "web.pid.lock", "web.pid.sock"]);
    });
}

/// The daemon has open what it always has, and so many connections.
#[track_caller]
fn wait_open(pid: u32, connections: usize) {
    // Null, and the log twice; the PID file and the lock file; the supervisor.
    let others = ["/dev/null", "anon_inode:[pidfd]", "log", "log", "web.pid", "web.pid.lock"];
    // Of the crate, what `restart::leaks` lists; of the program a listener, and a pair that ends with the drain.
    let sockets = SOCKETS + connections;
    let mut expected: Vec<&str> = others.into_iter().chain(vec!["socket"; sockets]).collect();
    expected.sort_unstable();
    let deadline = Instant::now() + LIMIT;
    loop {
        let targets = targets(pid);
        let mut names: Vec<&str> = targets.iter().map(|one| name(one)).collect();
        names.sort_unstable();
        if names == expected || Instant::now() > deadline {
            assert_eq!(names, expected, "{targets:#?}");
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

const SOCKETS: usize = 12;

fn name(target: &str) -> &str {
    match target.split_once(":[") {
        Some(("socket", _)) => "socket",
        _ if target.starts_with('/') && target != "/dev/null" => {
            target.rsplit('/').next().unwrap_or(target)
        }
        _ => target,
    }
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let mut names: Vec<String> =
        entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
