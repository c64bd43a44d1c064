//! Hostile and broken peers of a takeover. Whatever they do: an error or a log line that names
//! them, no descriptor left, nothing hung, the old daemon unharmed and good for the next attempt.

use std::{
    fs::{self, File},
    io::ErrorKind,
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{
            fs::MetadataExt,
            net::{UnixDatagram, UnixListener},
        },
    },
    path::Path,
    process::{self, Command, Stdio},
};

use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed},
    handover::{
        End, Predecessor, add_to_record, targets, wait_targets, write_record, write_record_of,
    },
    http,
    innocent::Innocent,
    process::Watched,
    site::Site,
    wait_for,
};
use socket2::{Domain, SockAddr, Socket, Type};

const HEAD: &str = "seamless-takeover 1 ";
/// Of the flows of a group: so many bytes.
const SECRET: usize = 64;

// ---- the peer is the new daemon ----

/// A detached daemon with two sockets and state, which gives its peers 500 ms.
fn old(direct: &Site) -> Watched {
    let (mut started, daemon) = direct.start_ready(&[
        "--tcp=127.0.0.1:0",
        "--udp=127.0.0.1:0",
        "--state=text:state",
        "--takeover-timeout=3s",
        "--successor-timeout=none",
    ]);
    started.detach();
    direct.wait_checks(daemon.pid(), 1);
    daemon
}

#[track_caller]
fn assert_unharmed(direct: &Site, old: &Watched, held: &[String]) {
    wait_targets(old.pid(), held);
    let address = direct.report.wait_of(old.pid(), "socket").text;
    let address: std::net::SocketAddr = address.split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(http::pid(&address.into()), old.pid());
}

/// An honest successor takes over.
#[track_caller]
fn assert_hands_over(direct: &Site, old: &Watched) {
    let bound = direct.report.named("socket");
    let (_started, new) =
        direct.start_ready(&["--tcp=127.0.0.1:0", "--udp=127.0.0.1:0", "--inherit"]);
    old.wait_end(LIMIT);
    assert_eq!(direct.report.wait_of(new.pid(), "inherited").text, "Some(1) 5 state");
    let all = direct.report.named("socket");
    let theirs: Vec<&str> = all[bound.len()..].iter().map(|event| event.text.as_str()).collect();
    let ours: Vec<&str> = bound[..2].iter().map(|event| event.text.as_str()).collect();
    assert_eq!(theirs, ours);
}

/// What a successor does wrong, step by step: what it says, and what it is answered.
enum Move {
    Say(&'static str),
    /// With a descriptor that nobody asked for.
    SayWith(&'static str),
    SayBytes(Vec<u8>),
    Hear(&'static str),
    Close,
}

use Move::{Close, Hear, Say, SayBytes, SayWith};

#[test]
fn p10_a_successor_that_does_anything_wrong_harms_nobody() {
    Boxed::new().run(|folder| {
        let direct = Site::alone(folder);
        let old = old(&direct);
        let held = targets(old.pid());
        let silent = "it was not through within 3s (takeover_timeout)";
        let closed = "it has closed the connection half-way";
        let take = "take generation=2";
        let offer = "offer generation=1 sockets=2 state=5";
        let cases: Vec<(&str, Vec<Move>)> = vec![
            // garbage
            ("it sent no message of this protocol", vec![SayBytes(b"GET / HTTP/1.1\r\n".into())]),
            ("it sent no message of this protocol", vec![SayBytes(vec![0xff; 5000])]),
            ("it sent no message of this protocol", vec![SayBytes(b"seamless-takeover".into())]),
            ("it sent a message that is too long", vec![SayBytes(vec![b'x'; 70_000])]),
            (
                "it sent a message of version 2, where this side speaks 1",
                vec![
                    SayBytes(b"seamless-takeover 2 take generation=2".into()),
                    Hear("refused it sent a message of version 2, where this side speaks 1"),
                ],
            ),
            (
                "it sent an unknown message \"steal\"",
                vec![Say("steal all"), Hear("refused it sent an unknown message \"steal\"")],
            ),
            ("it sent a message with a wrong generation", vec![Say("take generation=-1")]),
            ("it sent a message with a wrong generation", vec![Say("take")]),
            ("generation 1 is not newer than 1", vec![Say("take generation=1")]),
            ("it began in the middle", vec![Say("done")]),
            ("it began in the middle", vec![Say("got 1")]),
            ("it sent 1 descriptors that nobody asked for", vec![SayWith(take)]),
            // silence
            (silent, vec![]),
            (silent, vec![Say(take)]),
            (silent, vec![Say(take), Hear(offer), Hear("sockets"), Say("got 2"), Hear("state")]),
            (
                silent,
                vec![
                    Say(take),
                    Hear(offer),
                    Hear("sockets"),
                    Say("got 2"),
                    Hear("state bytes=5"),
                    Say("got 1"),
                    Hear("end"),
                ],
            ),
            // an early end
            (closed, vec![Say(take), Close]),
            (closed, vec![Say(take), Hear(offer), Hear("sockets count=2"), Close]),
            (
                closed,
                vec![Say(take), Hear(offer), Hear("sockets"), Say("got 2"), Hear("state"), Close],
            ),
            // nonsense half-way
            (
                "it sent Got { count: 1 } where Got { count: 2 } was due",
                vec![Say(take), Hear(offer), Hear("sockets"), Say("got 1")],
            ),
            (
                "it sent a message with a wrong count",
                vec![Say(take), Hear(offer), Hear("sockets"), Say("got 254")],
            ),
            (
                "it sent Done where Got { count: 2 } was due",
                vec![Say(take), Hear(offer), Hear("sockets"), Say("done")],
            ),
            (
                "it sent 1 descriptors that nobody asked for",
                vec![Say(take), Hear(offer), Hear("sockets"), SayWith("got 2")],
            ),
        ];
        let file = File::open("/dev/null").expect("a file");
        let mut seen = std::collections::HashMap::new();
        for (number, (why, moves)) in cases.into_iter().enumerate() {
            println!("{number}: {why}");
            let end = End::connect(&direct.socket());
            let mut open = Some(end);
            for one in moves {
                let end = open.as_ref().expect("the last move");
                match one {
                    Say(text) => end.send(&format!("{HEAD}{text}")),
                    SayWith(text) => {
                        end.send_with(format!("{HEAD}{text}").as_bytes(), &[file.as_fd()]);
                    }
                    SayBytes(bytes) => _ = end.try_send(&bytes, &[]),
                    Hear(text) => {
                        let heard = end.text();
                        assert!(heard.starts_with(&format!("{HEAD}{text}")), "{heard}");
                    }
                    Close => open = None,
                }
            }
            let count = seen.entry(why).or_insert(0);
            *count += 1;
            let peer = format!("peer={} ", process::id());
            let text = format!("error=\"{why}\"");
            direct.log.wait_words(&["WARN", "stage=transfer", &peer, &text], *count);
            drop(open);
            assert_unharmed(&direct, &old, &held);
        }
        assert_hands_over(&direct, &old);
    });
}

#[test]
fn peers_that_hang_hold_up_nobody_else() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut started, old) = direct.start_ready(&[
            "--tcp=127.0.0.1:0",
            "--udp=127.0.0.1:0",
            "--state=text:state",
            "--takeover-timeout=60s",
            "--successor-timeout=none",
        ]);
        started.detach();
        let hanging: Vec<End> = (0..5)
            .map(|_| {
                let end = End::connect(&direct.socket());
                end.send(&format!("{HEAD}take generation=2"));
                end
            })
            .collect();
        assert_hands_over(&direct, &old);
        drop(hanging);
    });
}

// ---- the peer is the old daemon ----

/// A new daemon whose first attempt fails, and which then waits.
struct Successor {
    daemon: Watched,
    held: Vec<String>,
    go: std::path::PathBuf,
}

impl Successor {
    fn start(direct: &Site, folder: &Path, command: Option<&str>) -> Self {
        let go = folder.join("go");
        _ = std::fs::remove_file(&go);
        let options = [
            "--at=after-init=call:state",
            &format!("--at=after-init=file:{}", go.display()),
            "--at=after-init=tcp:127.0.0.1:0",
            "--at=after-init=hang",
            "--takeover-timeout=3s",
        ];
        let probe = direct.command(&options);
        let mut shell = Command::new("sh");
        let before = command.unwrap_or(":");
        shell
            .args(["-c", &format!("{before}; exec \"$0\" \"$@\"")])
            .arg(probe.get_program())
            .args(probe.get_args())
            .stdin(Stdio::null())
            .stderr(direct.log_end());
        let daemon = direct.spawn(&mut shell).wait_init();
        // It has opened what it opens by itself, and closed its report again.
        direct.report.wait_of(daemon.pid(), "called");
        let held = wait_for("a closed report", LIMIT, || {
            let held = targets(daemon.pid());
            (!held.iter().any(|target| target.ends_with("/report"))).then_some(held)
        });
        Successor { daemon, held, go }
    }

    fn go(&self) {
        std::fs::write(&self.go, "").expect("a file");
    }

    /// The attempt has failed for this reason, and nothing is left of it.
    #[track_caller]
    fn assert_failed(self, direct: &Site, why: &str) {
        let pid = self.daemon.pid();
        let text = wait_for(format!("an attempt of {pid}"), LIMIT, || {
            let mut called = direct.report.named("called").into_iter();
            called
                .find(|event| event.pid == pid && event.text.starts_with("tcp "))
                .map(|event| event.text)
        });
        let path = direct.socket();
        assert_eq!(text, format!("tcp error: cannot take over at {path:?} (takeover): {why}"));
        wait_targets(self.daemon.pid(), &self.held);
        self.daemon.kill();
        self.daemon.wait_end(LIMIT);
    }
}

/// Sockets to offer, true and false ones.
struct Wares {
    tcp: TcpListener,
    udp: UdpSocket,
    unix: UnixListener,
    datagram: UnixDatagram,
    connected: TcpStream,
    file: File,
    unsealed: File,
}

impl Wares {
    fn new(folder: &Path) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a listener");
        Wares {
            connected: TcpStream::connect(tcp.local_addr().unwrap()).expect("a connection"),
            tcp,
            udp: UdpSocket::bind("127.0.0.1:0").expect("a socket"),
            unix: UnixListener::bind(folder.join("wares")).expect("a listener"),
            datagram: UnixDatagram::bind(folder.join("more")).expect("a socket"),
            file: File::open("/dev/null").expect("a file"),
            unsealed: unsealed(folder),
        }
    }

    fn line(&self) -> String {
        let local = self.tcp.local_addr().unwrap();
        format!("tcp asked=127.0.0.1:0 local={local} member=0")
    }
}

/// Five bytes that can still be changed.
fn unsealed(folder: &Path) -> File {
    let path = folder.join("unsealed");
    std::fs::write(&path, "state").expect("a file");
    File::open(path).expect("the file")
}

/// What is wrong, and how it is played.
type Case<'a> = (&'a str, &'a dyn Fn(&End, &Wares));

/// Plays the old daemon against a new one.
fn against(folder: &Path, cases: &[Case<'_>]) {
    let direct = Site::alone(folder);
    let predecessor = Predecessor::new(&direct);
    let wares = Wares::new(folder);
    let own = process::id();
    for (why, play) in cases {
        println!("{why}");
        write_record(&direct, own, " state=serving");
        let successor = Successor::start(&direct, folder, None);
        successor.go();
        let end = predecessor.accept();
        let kinds = "tcp,udp,unix,unix-datagram,unix-seqpacket,vsock,descriptor,state";
        assert_eq!(end.text(), format!("{HEAD}take generation=2 kinds={kinds}"));
        play(&end, &wares);
        successor.assert_failed(&direct, &format!("process {own}: {why}"));
        drop(end);
    }
}

fn offer(end: &End, text: &str) {
    end.send(&format!("{HEAD}offer generation=1 {text}"));
}

fn sockets(end: &End, lines: &[&str], fds: &[BorrowedFd<'_>]) {
    let text = format!("{HEAD}sockets count={}\n{}", lines.len(), lines.join("\n"));
    _ = end.try_send(text.as_bytes(), fds);
}

const SILENT: &str = "it was not through within 3s (takeover_timeout)";
const CLOSED: &str = "it has closed the connection half-way";

#[test]
fn p10_a_predecessor_that_is_silent_or_closes_half_way_is_an_error() {
    Boxed::new().run(|folder| {
        against(
            folder,
            &[
                (SILENT, &|_, _| {}),
                (SILENT, &|end, _| offer(end, "sockets=1 state=-")),
                (SILENT, &|end, _| offer(end, "sockets=0 state=5")),
                (SILENT, &|end, _| offer(end, "sockets=0 state=-")),
                (SILENT, &|end, wares| {
                    offer(end, "sockets=2 state=-");
                    sockets(end, &[&wares.line()], &[wares.tcp.as_fd()]);
                }),
                (CLOSED, &|end, _| end.shut()),
                (CLOSED, &|end, _| {
                    offer(end, "sockets=1 state=-");
                    end.shut();
                }),
                (CLOSED, &|end, wares| {
                    offer(end, "sockets=2 state=-");
                    sockets(end, &[&wares.line()], &[wares.tcp.as_fd()]);
                    assert_eq!(end.text(), format!("{HEAD}got 1"));
                    end.shut();
                }),
                (CLOSED, &|end, wares| {
                    offer(end, "sockets=1 state=5");
                    sockets(end, &[&wares.line()], &[wares.tcp.as_fd()]);
                    assert_eq!(end.text(), format!("{HEAD}got 1"));
                    end.shut();
                }),
                (CLOSED, &|end, wares| {
                    offer(end, "sockets=1 state=-");
                    sockets(end, &[&wares.line()], &[wares.tcp.as_fd()]);
                    assert_eq!(end.text(), format!("{HEAD}got 1"));
                    end.shut();
                }),
            ],
        );
    });
}

#[test]
fn p10_a_predecessor_that_sends_garbage_is_an_error() {
    Boxed::new().run(|folder| {
        let say = |end: &End, text: &str| end.send(&format!("{HEAD}{text}"));
        against(
            folder,
            &[
                ("it sent no message of this protocol", &|end, _| end.send("hello")),
                ("it sent no message of this protocol", &|end, _| {
                    end.send_with(&[0xff; 100], &[]);
                }),
                ("it sent a message that is too long", &|end, _| {
                    end.send(&"x".repeat(70_000));
                }),
                ("it sent a message of version 9, where this side speaks 1", &|end, _| {
                    end.send("seamless-takeover 9 offer generation=1 sockets=0 state=-");
                }),
                ("it sent an unknown message \"gift\"", &|end, _| say(end, "gift horse")),
                ("it refuses: no reason", &|end, _| say(end, "refused no reason")),
                ("it says that it is generation 7, and the record says 1", &|end, _| {
                    say(end, "offer generation=7 sockets=0 state=-");
                }),
                ("it sent a message with a wrong number of sockets", &|end, _| {
                    offer(end, "sockets=9999999 state=-");
                }),
                ("it sent a message with a wrong size of the state", &|end, _| {
                    offer(end, "sockets=0 state=67108865");
                }),
                ("it sent the end with 0 descriptors where an offer was due", &|end, _| {
                    say(end, "end");
                }),
                ("it sent the end with 0 descriptors where sockets was due", &|end, _| {
                    offer(end, "sockets=1 state=-");
                    say(end, "end");
                }),
                ("it sent an offer with 1 descriptors where an offer was due", &|end, wares| {
                    let text = format!("{HEAD}offer generation=1 sockets=0 state=-");
                    end.send_with(text.as_bytes(), &[wares.tcp.as_fd()]);
                }),
                ("it sent a message with a wrong kind of socket", &|end, wares| {
                    offer(end, "sockets=1 state=-");
                    sockets(end, &["sctp asked=1 local=1 member=0"], &[wares.tcp.as_fd()]);
                }),
                ("it sent a message with a wrong count", &|end, wares| {
                    offer(end, "sockets=2 state=-");
                    let text = format!("{HEAD}sockets count=2\n{}", wares.line());
                    end.send_with(text.as_bytes(), &[wares.tcp.as_fd(), wares.tcp.as_fd()]);
                }),
            ],
        );
    });
}

#[test]
fn p10_a_predecessor_that_lies_about_its_sockets_is_an_error() {
    Boxed::new().run(|folder| {
        let local = "127.0.0.1:9";
        let path = folder.join("wares").display().to_string();
        let one = |end: &End, line: &str, fd: BorrowedFd<'_>| {
            offer(end, "sockets=1 state=-");
            sockets(end, &[line], &[fd]);
        };
        let tcp = format!("tcp asked={local} local={local} member=0");
        let udp = format!("udp asked={local} local={local} member=0");
        let unix = format!("unix asked={path} local={path} member=0");
        let wrong = |kind: &str, why: &str| {
            let local = if kind == "unix" { &path } else { local };
            format!("the {kind} socket that it sent for {local} is not one: {why}")
        };
        against(
            folder,
            &[
                (&wrong("tcp", "it is a udp socket"), &|end, wares| {
                    one(end, &tcp, wares.udp.as_fd());
                }),
                (&wrong("tcp", "it is a unix socket"), &|end, wares| {
                    one(end, &tcp, wares.unix.as_fd());
                }),
                (&wrong("unix", "it is a unix-datagram socket"), &|end, wares| {
                    one(end, &unix, wares.datagram.as_fd());
                }),
                (&wrong("udp", "it is a tcp socket"), &|end, wares| {
                    one(end, &udp, wares.tcp.as_fd());
                }),
                (&wrong("tcp", "it is not a socket"), &|end, wares| {
                    one(end, &tcp, wares.file.as_fd());
                }),
                (&wrong("tcp", "it is not listening"), &|end, wares| {
                    one(end, &tcp, wares.connected.as_fd());
                }),
                (
                    &wrong("unix", &format!("it is bound to {}", folder.join("other").display())),
                    &|end, _| {
                        let path = folder.join("other");
                        let other = UnixListener::bind(&path).expect("a listener");
                        one(end, &unix, other.as_fd());
                    },
                ),
                ("it sent 0 descriptors with 1 sockets", &|end, wares| {
                    offer(end, "sockets=1 state=-");
                    sockets(end, &[&wares.line()], &[]);
                }),
                ("it sent 2 descriptors with 1 sockets", &|end, wares| {
                    offer(end, "sockets=1 state=-");
                    sockets(end, &[&wares.line()], &[wares.tcp.as_fd(), wares.udp.as_fd()]);
                }),
                ("it sent 253 descriptors with 1 sockets", &|end, wares| {
                    offer(end, "sockets=1 state=-");
                    sockets(end, &[&wares.line()], &[wares.tcp.as_fd(); 253]);
                }),
                ("it sent more than the 1 sockets that it offered", &|end, wares| {
                    offer(end, "sockets=1 state=-");
                    let line = wares.line();
                    sockets(end, &[&line, &line], &[wares.tcp.as_fd(), wares.tcp.as_fd()]);
                }),
                ("it sent sockets with 1 descriptors where the end was due", &|end, wares| {
                    offer(end, "sockets=1 state=-");
                    sockets(end, &[&wares.line()], &[wares.tcp.as_fd()]);
                    assert_eq!(end.text(), format!("{HEAD}got 1"));
                    sockets(end, &[&wares.line()], &[wares.tcp.as_fd()]);
                }),
            ],
        );
    });
}

#[test]
fn p10_a_predecessor_that_lies_about_its_state_is_an_error() {
    Boxed::new().run(|folder| {
        let state = |end: &End, text: &str, fds: &[BorrowedFd<'_>]| {
            offer(end, "sockets=0 state=5");
            end.send_with(format!("{HEAD}state {text}").as_bytes(), fds);
        };
        against(
            folder,
            &[
                ("the state is not sealed memory", &|end, wares| {
                    state(end, "bytes=5", &[wares.unsealed.as_fd()]);
                }),
                ("the state is not sealed memory", &|end, wares| {
                    state(end, "bytes=5", &[wares.tcp.as_fd()]);
                }),
                ("the state has 3 bytes, not 5", &|end, _| {
                    let memory = seamless_testing::handover::sealed(b"abc");
                    state(end, "bytes=5", &[memory.as_fd()]);
                }),
                ("the state has 6 bytes, not 5", &|end, _| {
                    let memory = seamless_testing::handover::sealed(b"abcdef");
                    state(end, "bytes=5", &[memory.as_fd()]);
                }),
                ("it sent a state with 1 descriptors where the state was due", &|end, wares| {
                    state(end, "bytes=6", &[wares.unsealed.as_fd()]);
                }),
                ("it sent a state with 0 descriptors where the state was due", &|end, _| {
                    state(end, "bytes=5", &[]);
                }),
                ("it sent a state with 2 descriptors where the state was due", &|end, wares| {
                    state(end, "bytes=5", &[wares.unsealed.as_fd(), wares.tcp.as_fd()]);
                }),
            ],
        );
    });
}

#[test]
fn p10_a_predecessor_that_lies_about_named_states_and_descriptors_is_an_error() {
    Boxed::new().run(|folder| {
        let states = |end: &End, lines: &[&str], fds: &[BorrowedFd<'_>]| {
            offer(end, "sockets=0 state=- states=1");
            let text = format!("{HEAD}states count={}\n{}", lines.len(), lines.join("\n"));
            end.send_with(text.as_bytes(), fds);
        };
        let sealed = || seamless_testing::handover::sealed(b"abcde");
        let cache = "name=cache version=1 bytes=5";
        let descriptor = |end: &End, line: &str, fd: BorrowedFd<'_>| {
            offer(end, "sockets=1 state=-");
            sockets(end, &[line], &[fd]);
        };
        against(
            folder,
            &[
                ("it sent a message with a wrong number of states", &|end, _| {
                    offer(end, "sockets=0 state=- states=4097");
                }),
                ("the state is not sealed memory", &|end, wares| {
                    states(end, &[cache], &[wares.unsealed.as_fd()]);
                }),
                ("the state has 5 bytes, not 6", &|end, _| {
                    states(end, &["name=cache version=1 bytes=6"], &[sealed().as_fd()]);
                }),
                ("it sent 0 descriptors with 1 states", &|end, _| states(end, &[cache], &[])),
                ("it sent more states than it offered", &|end, _| {
                    let memory = sealed();
                    states(end, &[cache, cache], &[memory.as_fd(), memory.as_fd()]);
                }),
                ("it sent a message with a wrong name of a state", &|end, _| {
                    let line = format!("name={} version=1 bytes=5", "x".repeat(256));
                    states(end, &[&line], &[sealed().as_fd()]);
                }),
                ("it sent a message with a wrong name of a state", &|end, _| {
                    states(end, &["name=%FF version=1 bytes=5"], &[sealed().as_fd()]);
                }),
                ("it sent a message with a wrong version of a state", &|end, _| {
                    states(end, &["name=a version=4294967296 bytes=5"], &[sealed().as_fd()]);
                }),
                ("it sent a message with a wrong size of the state", &|end, _| {
                    states(end, &["name=a version=1 bytes=67108865"], &[sealed().as_fd()]);
                }),
                ("it sent the end with 0 descriptors where named states was due", &|end, _| {
                    offer(end, "sockets=0 state=- states=1");
                    end.send(&format!("{HEAD}end"));
                }),
                ("it sent a message with a wrong address", &|end, wares| {
                    let line = format!("descriptor asked={0} local={0} member=0", "x".repeat(256));
                    descriptor(end, &line, wares.file.as_fd());
                }),
                ("it sent a message with a wrong address", &|end, wares| {
                    let line = "vsock asked=vsock:1 local=vsock:1:2 member=0";
                    descriptor(end, line, wares.file.as_fd());
                }),
                ("the descriptor x cannot be used: its names differ: y", &|end, wares| {
                    let line = "descriptor asked=x local=y member=0";
                    descriptor(end, line, wares.file.as_fd());
                }),
            ],
        );
    });
}

/// Descriptors for which there is no room are lost, and the kernel says so.
#[test]
fn p10_a_limit_of_open_files_that_is_too_low_is_an_error() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let predecessor = Predecessor::new(&direct);
        let wares = Wares::new(folder);
        let successor = Successor::start(&direct, folder, Some("ulimit -Sn 50; ulimit -Hn 100"));
        successor.go();
        let end = predecessor.accept();
        end.text();
        offer(&end, "sockets=200 state=-");
        let line = wares.line();
        sockets(&end, &[line.as_str(); 200], &[wares.tcp.as_fd(); 200]);
        let why = "some of the descriptors that it sent are lost (MSG_CTRUNC): the limit of open \
                   files may be too low";
        successor.assert_failed(&direct, &format!("process {}: {why}", process::id()));
    });
}

/// Whoever listens there: what is not proven to be a predecessor gives us nothing.
#[test]
fn p5_p10_sockets_come_from_a_proven_predecessor_only() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let stranger = Predecessor::unproven(&direct);
        let own = process::id();
        let why = format!("process {own} listens there, which is not proven to be a predecessor");
        // In no record; and in one that is about another process.
        let successor = Successor::start(&direct, folder, None);
        successor.go();
        successor.assert_failed(&direct, &why);
        write_record(&direct, 1, " state=serving");
        let successor = Successor::start(&direct, folder, None);
        successor.go();
        successor.assert_failed(&direct, &why);
        drop(stranger);
    });
}

/// The same process is asked again, and this time it is honest.
#[test]
fn a_failed_takeover_may_be_repeated() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let predecessor = Predecessor::new(&direct);
        let wares = Wares::new(folder);
        let started = direct.start(&[
            "--at=after-init=tcp:127.0.0.1:0",
            "--at=after-init=tcp:127.0.0.1:0",
            "--at=after-init=hang",
        ]);
        let daemon = started.wait_init();
        let end = predecessor.accept();
        end.text();
        end.send("garbage");
        let end = predecessor.accept();
        end.text();
        offer(&end, "sockets=1 state=-");
        sockets(&end, &[&wares.line()], &[wares.tcp.as_fd()]);
        assert_eq!(end.text(), format!("{HEAD}got 1"));
        end.send(&format!("{HEAD}end"));
        assert_eq!(end.text(), format!("{HEAD}done"));
        let second = direct.report.wait_nth("called", 2).text;
        assert_eq!(second, format!("tcp {}", wares.tcp.local_addr().unwrap()));
        daemon.kill();
    });
}

/// The first one refuses, and the one that stands by is asked instead. At its name listens another process.
#[test]
fn p5_p10_the_generation_that_stands_by_is_proven_too() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let on_probation = Predecessor::new(&direct);
        let stranger = Predecessor::at(direct.run.join("web.pid.sock.standby"));
        let standby = Innocent::start();
        let own = process::id();
        let generations = [(1, standby.pid(), " state=serving"), (2, own, " state=probation")];
        write_record_of(&direct, &generations);
        let successor = Successor::start(&direct, folder, None);
        successor.go();
        let end = on_probation.accept();
        assert!(end.text().starts_with(&format!("{HEAD}take generation=3 ")));
        end.send(&format!("{HEAD}refused no reason"));
        assert_eq!(stranger.accept().receive().map(|(text, _)| text), None, "it was asked");
        successor.assert_failed(&direct, &format!("process {own}: it refuses: no reason"));
        standby.assert_unharmed();
    });
}

/// The newest one has crashed, and the sockets of flows come from one that drains. At its name listens another
/// process.
#[test]
fn p5_p10_a_generation_that_drains_is_proven_before_it_gives_flows() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let stranger = Predecessor::at(direct.run.join("web.pid.sock.1"));
        let draining = Innocent::start();
        write_record_of(&direct, &[(1, draining.pid(), " state=draining")]);
        let successor = Successor::start(&direct, folder, None);
        successor.go();
        assert_eq!(stranger.accept().receive().map(|(text, _)| text), None, "it was asked");
        let bound = wait_for("a socket", LIMIT, || {
            let mut called = direct.report.named("called").into_iter();
            called.find(|event| event.text.starts_with("tcp ")).map(|event| event.text)
        });
        assert!(bound.starts_with("tcp 127.0.0.1:"), "{bound}");
        successor.daemon.kill();
        successor.daemon.wait_end(LIMIT);
        draining.assert_unharmed();
    });
}

/// The generation that serves has the process that waits in `init` connected, and is replaced at its name before that
/// one asks for copies of the sockets: by another service, which would give its own.
#[test]
fn p5_p10_copies_come_from_the_generation_that_serves() {
    Boxed::new().private_net().run(|folder| {
        let another = folder.join("another");
        fs::create_dir(&another).expect("a folder");
        let another = Site::alone(&another);
        let (_started, stranger) = another.start_ready(&["--tcp=127.0.0.1:0"]);
        let direct = Site::alone(folder);
        let serving = Predecessor::new(&direct);
        let program = fs::metadata(bin::probe()).expect("the probe");
        let mtime = i128::from(program.mtime()) * 1_000_000_000 + i128::from(program.mtime_nsec());
        // It waits for 64 s.
        let rejected = format!(
            "rejected={}:{}:{mtime}:{}:6 failed=0:ended",
            program.dev(),
            program.ino(),
            program.len(),
        );
        let record = fs::read_to_string(direct.lock_file()).expect("the record");
        let record = record.replacen(" last=1\n", &format!(" last=1 {rejected}\n"), 1);
        fs::write(direct.lock_file(), record).expect("a record");
        let candidate = direct.start(&["--probation=10m"]);
        let end = serving.accept();
        assert!(end.text().starts_with(&format!("{HEAD}wait left_ms=")));
        fs::rename(another.socket(), direct.socket()).expect("the socket of another service");
        end.send(&format!("{HEAD}accepted"));
        let no_copies = ["stage=init", "it does not listen any more"];
        let line = wait_for(format_args!("no copies\n{}", direct.log), LIMIT, || {
            direct.log.with(&no_copies).pop()
        });
        assert!(another.log.with(&["candidate="]).is_empty(), "{}", another.log);
        Watched::new(line.number("daemon")).kill();
        candidate.launcher.kill();
        stranger.kill();
    });
}

/// As many wait there as the queue takes, and nobody accepts: one more waits as well, and has its limit.
#[test]
fn p10_a_queue_at_the_control_socket_that_stays_full_is_an_error() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let _predecessor = Predecessor::new(&direct);
        let address = SockAddr::unix(direct.socket()).expect("an address");
        let mut waiting = Vec::new();
        loop {
            let one = Socket::new(Domain::UNIX, Type::SEQPACKET, None).expect("a socket");
            one.set_nonblocking(true).expect("a flag");
            match one.connect(&address) {
                Ok(()) => waiting.push(one),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        let successor = Successor::start(&direct, folder, None);
        successor.go();
        successor.assert_failed(&direct, SILENT);
    });
}

/// Its datagrams would go to a socket that nobody has.
#[test]
fn p10_p14_a_group_of_which_a_socket_is_missing_is_not_used() {
    Boxed::new().private_net().run(|folder| {
        let direct = Site::alone(folder);
        let predecessor = Predecessor::new(&direct);
        let address = boxed::address();
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
        socket.set_reuse_port(true).expect("a flag");
        socket.bind(&address.into()).expect("an address");
        let mut started = direct.start(&[&format!("--udp-group={address},count=1,steer=quic")]);
        let end = predecessor.accept();
        end.text();
        offer(&end, "sockets=1 state=-");
        let secret = "00".repeat(SECRET);
        let line =
            format!("udp asked={address} local={address} member=1 flow=free secret={secret}");
        sockets(&end, &[&line], &[socket.as_fd()]);
        assert_eq!(end.text(), format!("{HEAD}got 1"));
        end.send(&format!("{HEAD}end"));
        assert_eq!(end.text(), format!("{HEAD}done"));
        let text = started.wait_error().text;
        assert!(text.contains(&format!("cannot bind udp {address}")), "{text}");
    });
}

/// The number and the process have to be those of one line of the record.
#[test]
fn p5_p10_only_a_newer_generation_has_another_one_stand_by() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let old = old(&direct);
        let held = targets(old.pid());
        let newer = Innocent::start();
        add_to_record(&direct.lock_file(), 2, newer.pid(), " state=probation");
        add_to_record(&direct.lock_file(), 3, process::id(), " state=probation");
        for generation in [2, 4] {
            let end = End::connect(&direct.socket());
            end.send(&format!("{HEAD}stand-by generation={generation}"));
            let why = "the record does not say that it is a newer generation";
            assert_eq!(end.text(), format!("{HEAD}refused {why}"), "{generation}");
        }
        assert_unharmed(&direct, &old, &held);
        newer.assert_unharmed();
    });
}

/// A generation on probation sends the sockets of its flows in as many messages as they need. Each of them is of this
/// generation, and so is the request to stand by.
#[test]
fn p10_p14_the_sockets_of_flows_come_from_one_generation() {
    Boxed::new().run(|folder| {
        let direct = Site::alone(folder);
        let old = old(&direct);
        let held = targets(old.pid());
        let wares = Wares::new(folder);
        add_to_record(&direct.lock_file(), 2, process::id(), " state=probation");
        let (local, secret) = (wares.udp.local_addr().expect("its address"), "00".repeat(SECRET));
        let flows = |generation: u64, member: u64| {
            let line = format!(
                "udp asked={local} local={local} member={member} flow=free secret={secret}"
            );
            format!("{HEAD}flows generation={generation} count=1\n{line}")
        };
        let refused = format!("{HEAD}refused it sent no sockets and no stand-by");
        for (last, with) in [(flows(3, 2), true), (format!("{HEAD}stand-by generation=3"), false)] {
            let end = End::connect(&direct.socket());
            for member in 0..2 {
                end.send_with(flows(2, member).as_bytes(), &[wares.udp.as_fd()]);
                assert_eq!(end.text(), format!("{HEAD}accepted"));
            }
            let fds: &[BorrowedFd<'_>] = if with { &[wares.udp.as_fd()] } else { &[] };
            end.send_with(last.as_bytes(), fds);
            assert_eq!(end.text(), refused, "{last}");
            drop(end);
            assert_unharmed(&direct, &old, &held);
        }
    });
}
