//! P13: connections that move from one generation to the next. Each client counts its questions and the answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{self, Child},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed},
    handover::{End, add_to_record, sealed, targets, wait_targets},
    log::Log,
    process::{Watched, wait_rests},
    scene,
    signal::{CONT, KILL, TERM},
    wait_for,
};

mod successors;
mod ws;

/// What is restarted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Program {
    /// The service `moves`.
    Moves,
    /// An example of this name.
    Example(&'static str),
}

/// A service, restarted by hand.
struct Moves {
    program: Program,
    folder: PathBuf,
    address: SocketAddr,
    launcher: Child,
    daemon: u32,
}

impl Moves {
    #[track_caller]
    fn start(folder: &Path, options: &str) -> Moves {
        Moves::start_program(folder, Program::Moves, options)
    }

    /// The example `chat` instead.
    #[track_caller]
    fn chat(folder: &Path) -> Moves {
        Moves::start_program(folder, Program::Example("chat"), "")
    }

    /// The example `ws` instead.
    #[track_caller]
    fn ws(folder: &Path) -> Moves {
        Moves::start_program(folder, Program::Example("ws"), "")
    }

    #[track_caller]
    fn start_program(folder: &Path, program: Program, options: &str) -> Moves {
        fs::create_dir_all(folder).expect("a folder");
        let address = boxed::address();
        let launcher = program.launch(folder, address, options);
        let daemon = wait_started(folder, 1);
        Moves { program, folder: folder.to_owned(), address, launcher, daemon }
    }

    /// Gives the old daemon, which drains by then.
    #[track_caller]
    fn restart(&mut self, options: &str) -> Watched {
        let old = Watched::new(self.daemon);
        let nth = self.log().stage("started").len() + 1;
        Watched::new(self.launcher.id()).signal(TERM);
        assert!(self.launcher.wait().expect("its end").success());
        self.launcher = self.program.launch(&self.folder, self.address, options);
        self.daemon = wait_started(&self.folder, nth);
        old
    }

    fn log(&self) -> Log {
        Log::of(&self.folder)
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("web.pid.sock")
    }

    fn clients(&self, count: usize) -> Vec<Client> {
        let mut clients: Vec<Client> = (0..count).map(|_| Client::to(self.address)).collect();
        clients.iter_mut().for_each(|one| assert_eq!(one.ask(), self.daemon));
        clients
    }
}

fn launch(folder: &Path, address: SocketAddr, options: &str) -> Child {
    let options = format!("--pid-file=web.pid --listen={address} {options}");
    scene::logged(folder, &bin::support("moves"), &options).spawn().expect("sh")
}

impl Program {
    fn launch(self, folder: &Path, address: SocketAddr, options: &str) -> Child {
        match self {
            Program::Moves => launch(folder, address, options),
            Program::Example(name) => {
                let arguments = format!("service.pid {address}");
                scene::logged(folder, &bin::example(name), &arguments).spawn().expect("sh")
            }
        }
    }
}

/// The PID of the daemon that was the nth to start.
#[track_caller]
fn wait_started(folder: &Path, nth: usize) -> u32 {
    let log = Log::of(folder);
    wait_for(format!("start {nth}"), LIMIT, || {
        Some(log.stage("started").get(nth - 1)?.number("daemon"))
    })
}

/// A connection that is never made again.
struct Client {
    stream: BufReader<TcpStream>,
    sent: u64,
    answered: u64,
}

impl Client {
    #[track_caller]
    fn to(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        stream.set_nodelay(true).expect("an option");
        Client { stream: BufReader::new(stream), sent: 0, answered: 0 }
    }

    #[track_caller]
    fn write(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).expect("all of it");
    }

    #[track_caller]
    fn send(&mut self) {
        self.write(&format!("{}\n", self.sent));
        self.sent += 1;
    }

    /// The PID of the process that answers the next question.
    #[track_caller]
    fn answer(&mut self) -> u32 {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("an answer");
        let (pid, number) = line.trim_end().split_once(' ').expect("an answer, and no end");
        assert_eq!(number, self.answered.to_string(), "by {pid}");
        self.answered += 1;
        pid.parse().expect("a PID")
    }

    #[track_caller]
    fn ask(&mut self) -> u32 {
        self.send();
        self.answer()
    }

    /// `None`: the connection has ended.
    #[track_caller]
    fn try_ask(&mut self) -> Option<u32> {
        let question = format!("{}\n", self.sent);
        self.stream.get_mut().write_all(question.as_bytes()).ok()?;
        self.sent += 1;
        self.try_answer()
    }

    /// The answer to the next question that was sent; `None`: the connection has ended.
    #[track_caller]
    fn try_answer(&mut self) -> Option<u32> {
        let ends = matches!(self.stream.fill_buf(), Ok([]) | Err(_));
        (!ends).then(|| self.answer())
    }

    /// Has anything come?
    fn has_answer(&mut self) -> bool {
        self.stream.get_ref().set_nonblocking(true).expect("a mode");
        let has = self.stream.fill_buf().is_ok_and(|bytes| !bytes.is_empty());
        self.stream.get_ref().set_nonblocking(false).expect("a mode");
        has
    }

    fn reset_on_close(&self) {
        let socket = socket2::SockRef::from(self.stream.get_ref());
        socket.set_linger(Some(Duration::ZERO)).expect("an option");
    }

    /// Asks until this process answers.
    #[track_caller]
    fn ask_until(&mut self, pid: u32) {
        wait_for(format!("an answer of {pid}"), LIMIT, || (self.ask() == pid).then_some(()));
    }
}

#[track_caller]
fn assert_all_at(clients: &mut [Client], pid: u32) {
    let pids: BTreeSet<u32> = clients.iter_mut().map(Client::ask).collect();
    assert_eq!(pids, BTreeSet::from([pid]));
}

#[test]
fn p13_clients_do_not_notice_restarts() {
    const CLIENTS: usize = 64;
    Boxed::new().private_net().run(|folder| {
        let mut moves = Moves::start(folder, "--load=100");
        let clients = moves.clients(CLIENTS);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            // All of them send several questions at a time, and some are always on their way.
            let asking: Vec<_> = clients
                .into_iter()
                .map(|mut one| {
                    let done = &done;
                    scope.spawn(move || {
                        while !done.load(Ordering::Relaxed) {
                            (0..3).for_each(|_| one.send());
                            (0..3).for_each(|_| _ = one.answer());
                            thread::sleep(Duration::from_millis(20)); // for the machine's sake
                        }
                        one
                    })
                })
                .collect();
            for _ in 0..5 {
                let old = moves.restart("--load=100");
                old.wait_end(LIMIT);
            }
            done.store(true, Ordering::Relaxed);
            let mut clients: Vec<Client> =
                asking.into_iter().map(|one| one.join().expect("no break")).collect();
            assert_all_at(&mut clients, moves.daemon);
        });
        let passed = moves.log().stage("passing").into_iter();
        let passed = passed.filter(|line| line.field("elapsed_ms").is_some());
        let passed: u32 = passed.map(|line| line.number("connections")).sum();
        assert_eq!(passed, 5 * CLIENTS as u32, "{}", moves.log());
    });
}

/// Each member of a room gets all that is said there, once and in order, whichever process the speakers are in.
#[test]
fn p13_in_a_chat_nobody_notices_a_restart() {
    const MEMBERS: usize = 12;
    const ROOMS: usize = 3;
    Boxed::new().private_net().run(|folder| {
        let mut chat = Moves::chat(folder);
        let read = |stream: &mut BufReader<TcpStream>| {
            let mut line = String::new();
            stream.read_line(&mut line).expect("a line, and no end");
            let (speaker, text) = line.trim_end().split_once(' ').expect("a speaker");
            (speaker.to_owned(), text.to_owned())
        };
        let mut members: Vec<BufReader<TcpStream>> = (0..MEMBERS)
            .map(|at| {
                let Client { mut stream, .. } = Client::to(chat.address);
                write!(stream.get_mut(), "join {}\nsay I am here\n", at % ROOMS).expect("a room");
                while read(&mut stream).1 != "I am here" {}
                stream
            })
            .collect();
        // They hear of each other from now on.
        for (at, one) in members.iter_mut().enumerate() {
            let later = (at + 1..MEMBERS).filter(|other| other % ROOMS == at % ROOMS);
            later.for_each(|_| assert_eq!(read(one).1, "I am here"));
        }
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for one in members {
                let mut speaker = one.get_ref().try_clone().expect("a copy");
                let done = &done;
                scope.spawn(move || {
                    let mut number = 0;
                    while !done.load(Ordering::Relaxed) {
                        // In two pieces: half a line moves, too.
                        speaker.write_all(b"say ").expect("half a line");
                        thread::sleep(Duration::from_millis(5));
                        writeln!(speaker, "{number}").expect("the rest");
                        number += 1;
                    }
                    speaker.write_all(b"say the end\n").expect("the end");
                });
                scope.spawn(move || {
                    let mut listener = one;
                    let (mut heard, mut ended) = (BTreeMap::<String, u64>::new(), 0);
                    while ended < MEMBERS / ROOMS {
                        let (speaker, text) = read(&mut listener);
                        if text == "the end" {
                            ended += 1;
                            continue;
                        }
                        let next = heard.entry(speaker).or_default();
                        assert_eq!(text, next.to_string());
                        *next += 1;
                    }
                    assert_eq!(heard.len(), MEMBERS / ROOMS);
                });
            }
            for _ in 0..5 {
                let old = chat.restart("");
                old.wait_end(LIMIT);
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(chat.log().with(&["connection", "stays"]).is_empty(), "{}", chat.log());
    });
}

/// The successor stops itself in this place, with one connection or more in doubt.
#[track_caller]
fn stopped(folder: &Path, place: &str, clients: usize) -> (Moves, Watched, Vec<Client>) {
    let mut moves = Moves::start(folder, "--again");
    let mut clients = moves.clients(clients);
    let old = moves.restart(&format!("--stop-in={place}"));
    scene::wait_stopped(|| vec![moves.daemon]);
    clients.iter_mut().for_each(Client::send);
    (moves, old, clients)
}

#[test]
fn p13_what_is_in_doubt_waits_for_the_successor() {
    Boxed::new().private_net().run(|folder| {
        scene::each(folder, ["go on", "killed", "old killed", "old ends"], |folder, what| {
            let count = if what.starts_with("old") { 1 } else { 5 };
            let place = if what == "old ends" { "serve" } else { "admit" };
            let (mut moves, old, mut clients) = stopped(folder, place, count);
            let new = Watched::new(moves.daemon);
            match what {
                "go on" => {
                    // Longer than an answer may take: those that were not sent are served on.
                    thread::sleep(Duration::from_millis(1500));
                    new.signal(CONT);
                    clients.iter_mut().for_each(|one| _ = one.answer());
                    clients.iter_mut().for_each(|one| one.ask_until(new.pid()));
                    old.wait_end(LIMIT);
                }
                "killed" => {
                    new.signal(KILL);
                    _ = moves.launcher.wait();
                    for one in &mut clients {
                        assert_eq!(one.answer(), old.pid());
                    }
                    assert_all_at(&mut clients, old.pid());
                    let nth = moves.log().stage("started").len() + 1;
                    moves.launcher = launch(folder, moves.address, "");
                    moves.daemon = wait_started(folder, nth);
                    clients.iter_mut().for_each(|one| one.ask_until(moves.daemon));
                    old.wait_end(LIMIT);
                }
                "old killed" => {
                    old.signal(KILL);
                    old.wait_end(LIMIT);
                    new.signal(CONT);
                    assert_eq!(clients[0].answer(), new.pid());
                    assert_eq!(clients[0].ask(), new.pid());
                }
                _ => {
                    old.wait_end(LIMIT); // it has heard `kept`
                    new.signal(CONT);
                    assert_eq!(clients[0].answer(), new.pid());
                    assert_eq!(clients[0].ask(), new.pid());
                }
            }
        });
    });
}

/// Either side is killed somewhere in the move. A connection ends only if the process that had it was killed.
#[test]
fn p13_p9_whoever_is_killed_in_the_move_takes_only_its_own_connections_along() {
    const CLIENTS: usize = 100;
    // The name fills a message with 40 of them.
    let kind = "%".repeat(255);
    let options = format!("--kind={kind} --accepts={kind} --slow=1ms");
    Boxed::new().private_net().run(|folder| {
        let mut middle = 0;
        for round in 0..12 {
            let folder = folder.join(round.to_string());
            let mut moves = Moves::start(&folder, &options);
            let mut clients = moves.clients(CLIENTS);
            let old = Watched::new(moves.daemon);
            Watched::new(moves.launcher.id()).signal(TERM);
            assert!(moves.launcher.wait().expect("its end").success());
            moves.launcher = launch(&folder, moves.address, &options);
            moves.log().wait(&[("stage", "drain"), ("daemon", &old.pid().to_string())]);
            moves.daemon = wait_started(&folder, 2);
            let new = Watched::new(moves.daemon);
            thread::sleep(Duration::from_millis(round / 2 * 25)); // somewhere
            let (killed, left) = if round % 2 == 0 { (&new, &old) } else { (&old, &new) };
            killed.signal(KILL);
            killed.wait_end(LIMIT);
            let mut alive: Vec<Client> = Vec::new();
            for mut one in clients.drain(..) {
                match one.try_ask() {
                    Some(pid) => {
                        assert_eq!(pid, left.pid());
                        alive.push(one);
                    }
                    None => continue,
                }
            }
            // What the log says of connections that the new one has had.
            let had = |daemon: &Watched, field: &str| {
                let daemon = daemon.pid().to_string();
                let lines = moves.log().stage("passing").into_iter();
                let lines = lines.filter(|line| line.is(&[("daemon", &daemon)]));
                let lines = lines.filter(|line| line.field(field).is_some());
                lines.map(|line| line.number("connections") as usize).sum::<usize>()
            };
            let expected = match round % 2 {
                0 => CLIENTS - alive.len(), // kept by the new one, as the old one has heard
                _ => alive.len(),
            };
            wait_for(
                format!("{expected} had moved in round {round}:\n{}", moves.log()),
                LIMIT,
                || {
                    let field = if round % 2 == 0 { "elapsed_ms" } else { "predecessor" };
                    (had(left, field) == expected).then_some(())
                },
            );
            middle += usize::from(!alive.is_empty() && alive.len() < CLIENTS);
            alive.iter_mut().for_each(|one| assert_eq!(one.ask(), left.pid()));
            drop(alive);
            left.signal(KILL);
            left.wait_end(LIMIT);
            _ = moves.launcher.wait();
        }
        assert!(middle > 0, "no process was killed in the middle of the move");
    });
}

#[test]
fn p13_who_is_refused_stays() {
    Boxed::new().private_net().run(|folder| {
        let cases = [
            ("--accepts=none", "the successor refuses it"),
            ("--accepts=other", "the successor accepts no connections of this kind"),
            ("--refuse", "the successor refuses it"),
            ("--panic-in=admit", "the successor refuses it"),
            ("--files=45", "the successor refuses it"),
            ("stop", "the service is stopped"),
        ];
        scene::each(folder, cases, |folder, (options, reason)| {
            let mut moves = Moves::start(folder, "");
            let count = if options == "--files=45" { 60 } else { 1 };
            let mut clients = moves.clients(count);
            let old = match options {
                "stop" => {
                    let old = Watched::new(moves.daemon);
                    old.signal(TERM);
                    old
                }
                options => moves.restart(options),
            };
            let reason = format!("reason=\"{reason}\"");
            let daemon = format!("daemon={}", old.pid());
            moves.log().wait_words(&["stage=stays", &daemon, &reason], 1);
            let pids: BTreeSet<u32> = clients.iter_mut().map(Client::ask).collect();
            assert!(pids.contains(&old.pid()), "{pids:?}");
            assert!(count > 1 || pids.len() == 1, "{pids:?}");
            if options == "--files=45" {
                moves.log().wait_words(&["stage=passing", "MSG_CTRUNC"], 1);
            }
            drop(clients);
            old.wait_end(LIMIT);
        });
    });
}

/// More than a message holds.
#[test]
fn p13_half_a_line_and_much_of_it_moves_too() {
    Boxed::new().private_net().run(|folder| {
        let mut moves = Moves::start(folder, "--load=1000000");
        let mut clients = moves.clients(6);
        let more = "x".repeat(1 << 20);
        for (at, one) in clients.iter_mut().enumerate() {
            let sent = one.sent;
            one.write(&format!("{sent} {}", &more[..(1 << 20) >> at]));
        }
        let old = moves.restart("");
        old.wait_end(LIMIT);
        for one in &mut clients {
            one.write("\n");
            one.sent += 1;
            assert_eq!(one.answer(), moves.daemon);
        }
        assert_all_at(&mut clients, moves.daemon);
    });
}

/// The second generation does not want them, and the third one does.
#[test]
fn p13_the_newest_generation_gets_them() {
    Boxed::new().private_net().run(|folder| {
        let mut moves = Moves::start(folder, "--again");
        let mut clients = moves.clients(3);
        let first = moves.restart("--accepts=none");
        moves.log().wait_words(&["stage=stays", &format!("daemon={}", first.pid())], 1);
        let second = moves.restart("");
        second.wait_end(LIMIT);
        clients.iter_mut().for_each(|one| one.ask_until(moves.daemon));
        first.wait_end(LIMIT);
    });
}

/// Nothing moves to a generation on probation. What it has accepted itself moves back with a rollback.
#[test]
fn p13_p11_connections_move_to_the_generation_that_is_proven() {
    Boxed::new().private_net().run(|folder| {
        scene::each(folder, ["commit", "roll-back"], |folder, end| {
            let mut moves = Moves::start(folder, "--again");
            let mut clients = moves.clients(3);
            let first = moves.restart("--probation=10m --again");
            moves.log().wait(&[("stage", "standby"), ("daemon", &first.pid().to_string())]);
            let second = Watched::new(moves.daemon);
            // Both accept from one queue.
            let theirs = wait_for("the second one accepts", LIMIT, || {
                let mut one = Client::to(moves.address);
                (one.ask() == second.pid()).then_some(one)
            });
            assert_all_at(&mut clients, first.pid());
            clients.push(theirs);
            let asks = End::connect(&moves.socket());
            asks.send(&format!("seamless-takeover 1 {end}"));
            assert_eq!(asks.text(), "seamless-takeover 1 accepted");
            let (stays, ends) = if end == "commit" { (second, first) } else { (first, second) };
            clients.iter_mut().for_each(|one| one.ask_until(stays.pid()));
            ends.wait_end(LIMIT);
            assert_all_at(&mut clients, stays.pid());
        });
    });
}

#[test]
fn a_panic_of_the_program_costs_its_connection() {
    Boxed::new().private_net().run(|folder| {
        let mut moves = Moves::start(folder, "");
        let mut clients = moves.clients(3);
        let old = moves.restart("--panic-in=serve");
        old.wait_end(LIMIT);
        let panic = moves.log().wait_words(&["stage=passing", "as it was told"], 1);
        assert!(panic.contains("name=\"moves\""), "{panic}");
        clients.iter_mut().for_each(Client::send);
        let mut answers = 0;
        for one in clients {
            let mut line = String::new();
            let mut stream = one.stream;
            answers += usize::from(stream.read_line(&mut line).is_ok_and(|count| count > 0));
        }
        assert_eq!(answers, 2);
    });
}

// ---- peers ----

const HEAD: &str = "seamless-takeover 1 ";

/// Enters this process as generation 7, in this state.
fn enter_test(moves: &Moves, state: &str) {
    enter(moves, process::id(), state);
}

/// Enters a process as generation 7, in this state.
fn enter(moves: &Moves, pid: u32, state: &str) {
    add_to_record(&moves.folder.join("web.pid.lock"), 7, pid, &format!(" state={state}"));
}

fn batch(number: u64, count: usize, memory: &str, lines: &str) -> Vec<u8> {
    format!("{HEAD}connections number={number} count={count} memory={memory}\n{lines}").into_bytes()
}

#[test]
fn p5_p10_p13_hostile_peers_get_nothing_in() {
    Boxed::new().private_net().run(|folder| {
        let moves = Moves::start(folder, "");
        let daemon = Watched::new(moves.daemon);
        let mut client = moves.clients(1);
        let held = targets(daemon.pid());
        let pair = || UnixStream::pair().expect("a pair");
        let one = "kind=moves state=2 unread=0\n3 ";
        let unproven = "the record does not say that it is a generation of this service";

        // Nobody that the record knows.
        let end = End::connect(&moves.socket());
        end.send(&format!("{HEAD}pass generation=1 open=1"));
        assert_eq!(end.text(), format!("{HEAD}refused {unproven}"));
        let end = End::connect(&moves.socket());
        end.send_with(&batch(1, 1, "no", one), &[]);
        assert_eq!(end.text(), format!("{HEAD}refused it sent an unknown message \"connections\""));

        enter_test(&moves, "draining");
        for generation in ["1", "8", "-7", "7x", ""] {
            let end = End::connect(&moves.socket());
            end.send(&format!("{HEAD}pass generation={generation} open=1"));
            assert!(end.text().starts_with(&format!("{HEAD}refused ")), "{generation}");
        }
        let end = End::connect(&moves.socket());
        end.send(&format!("{HEAD}pass generation=7 open=18446744073709551615"));
        assert_eq!(end.text(), format!("{HEAD}accepted"));
        let (ours, theirs) = pair();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let file = fs::File::open("/proc/self/stat").expect("a file");
        let short = sealed(b"3");
        let unsealed = tempfile(folder);
        let in_memory = "kind=moves state=40000 unread=0\n";
        let cases: Vec<(Vec<u8>, Vec<BorrowedFd<'_>>, &str)> = vec![
            (b"garbage".to_vec(), vec![], "it sent no message of this protocol"),
            (
                format!("{HEAD}status\n").into_bytes(),
                vec![],
                "it sent an unknown message \"status\"",
            ),
            (batch(1, 1, "no", one), vec![], "it sent 0 descriptors where 1 were due"),
            (
                batch(1, 1, "no", one),
                vec![theirs.as_fd(), theirs.as_fd()],
                "it sent 2 descriptors where 1 were due",
            ),
            (batch(2, 1, "no", one), vec![theirs.as_fd()], "it sent message 2 where 1 was due"),
            (batch(0, 1, "no", one), vec![theirs.as_fd()], "it sent message 0 where 1 was due"),
            (batch(1, 2, "no", one), vec![theirs.as_fd()], "it sent a message with a wrong count"),
            (
                batch(1, 1, "no", "kind=moves state=3 unread=0\n3 "),
                vec![theirs.as_fd()],
                "it sent a message with a wrong length",
            ),
        ];
        for (bytes, fds, why) in cases {
            end.send_with(&bytes, &fds);
            assert_eq!(end.text(), format!("{HEAD}refused {why}"));
        }
        // Each of these counts as a message.
        let no_connection = "it sent a descriptor that is no connection";
        let cases: Vec<(Vec<u8>, Vec<BorrowedFd<'_>>, &str)> = vec![
            (batch(1, 1, "no", one), vec![listener.as_fd()], no_connection),
            (batch(2, 1, "no", one), vec![file.as_fd()], no_connection),
            (
                batch(3, 1, "yes", in_memory),
                vec![theirs.as_fd(), short.as_fd()],
                "the state has 1 bytes, not 40000",
            ),
            (
                batch(4, 1, "yes", in_memory),
                vec![theirs.as_fd(), unsealed.as_fd()],
                "the state is not sealed memory",
            ),
        ];
        for (bytes, fds, why) in cases {
            end.send_with(&bytes, &fds);
            assert_eq!(end.text(), format!("{HEAD}refused {why}"));
        }
        wait_unharmed(&moves, &mut client, &held, 1);
        // And one that is in order, at last.
        end.send_with(&batch(5, 1, "no", one), &[theirs.as_fd()]);
        assert_eq!(end.text(), format!("{HEAD}kept number=5 fates=k"));
        drop(theirs);
        (&ours).write_all(b"3\n").expect("a question");
        let mut answer = String::new();
        BufReader::new(&ours).read_line(&mut answer).expect("an answer");
        assert_eq!(answer, format!("{} 3\n", daemon.pid()));
        drop((ours, end));
        wait_unharmed(&moves, &mut client, &held, 0);
    });
}

/// Whoever passes asks the record first; but a drain may have begun since then.
#[test]
fn p13_a_generation_that_drains_takes_no_connections() {
    Boxed::new().private_net().run(|folder| {
        let moves = Moves::start(folder, "");
        let daemon = Watched::new(moves.daemon);
        let mut client = moves.clients(1);
        let end = End::connect(&moves.socket());
        end.send(&format!("{HEAD}stop"));
        assert_eq!(end.text(), format!("{HEAD}accepted"));
        moves.log().wait(&[("stage", "drain"), ("daemon", &daemon.pid().to_string())]);
        enter_test(&moves, "draining");
        let end = End::connect(&moves.socket());
        end.send(&format!("{HEAD}pass generation=7 open=1"));
        assert_eq!(end.text(), format!("{HEAD}refused it drains"));
        assert_all_at(&mut client, daemon.pid());
        drop(client);
        daemon.wait_end(LIMIT);
    });
}

/// What has moved has moved, and one connection is refused and stays: the thread that passes them has nothing to do.
#[test]
fn p13_who_has_nothing_to_pass_rests() {
    Boxed::new().private_net().run(|folder| {
        let mut moves = Moves::start(folder, "");
        let mut clients = moves.clients(3);
        let old = moves.restart("--refuse");
        moves.log().wait_words(&["stage=stays"], 3);
        wait_rests(old.pid(), Some("seamless-pass"));
        assert_all_at(&mut clients, old.pid());
        drop(clients);
        old.wait_end(LIMIT);
    });
}

/// It has these descriptors, and so many links more.
#[track_caller]
fn wait_unharmed(moves: &Moves, client: &mut [Client], held: &[String], links: usize) {
    assert_all_at(client, moves.daemon);
    match links {
        0 => wait_targets(moves.daemon, held),
        // The link, and the process at its other end.
        links => wait_for("no more descriptors", LIMIT, || {
            (targets(moves.daemon).len() == held.len() + 2 * links).then_some(())
        }),
    }
}

fn tempfile(folder: &Path) -> OwnedFd {
    let path = folder.join("memory");
    fs::write(&path, [b'3'; 40_000]).expect("a file");
    fs::File::open(path).expect("a file").into()
}
