//! Sockets and state that survive a restart: where they are found, and what is queued on them.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{
            fs::{MetadataExt, PermissionsExt},
            net::{UnixDatagram, UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use seamless_testing::{
    boxed::{self, Boxed},
    handover::{self, targets},
    http::{self, Connection, Prober, Target, answer_of},
    log::{Line, Log},
    process::{Watched, descriptors, stop_without_claim},
    report::Report,
    scene,
    site::{Site, Started},
    supervisor::{Service, Supervisor},
    under_each_supervisor, wait_for,
};
use socket2::SockRef;

const LIMIT: Duration = Duration::from_secs(20);
const TERM: i32 = 15;

/// What the probe of this PID has found or bound, in order.
fn sockets(direct: &Site, daemon: &Watched) -> Vec<String> {
    let events = direct.report.named("socket").into_iter();
    events.filter(|event| event.pid == daemon.pid()).map(|event| event.text).collect()
}

/// Where the sockets of this daemon came from, in the order in which it asked for them.
fn origins(folder: &Path, daemon: &Watched) -> Vec<String> {
    let daemon = daemon.pid().to_string();
    let lines = Log::of(folder).stage("socket").into_iter();
    let own =
        lines.filter(|line| line.is(&[("daemon", &daemon)]) && line.field("closed").is_none());
    own.filter_map(|line| Some(line.field("from")?.to_owned())).collect()
}

/// The next generation, ready, and the one before it at its end.
#[track_caller]
fn next(direct: &Site, old: (Started, Watched), options: &[&str]) -> (Started, Watched) {
    let (mut started, daemon) = old;
    started.detach();
    let next = direct.start_ready(options);
    assert_eq!(direct.report.wait_of(daemon.pid(), "wait").text, "TakenOver");
    daemon.wait_end(LIMIT);
    next
}

fn tcp_of(text: &str) -> Target {
    let address = text.rsplit_once(' ').expect("an address").1;
    Target::from(address.parse::<std::net::SocketAddr>().expect("an address"))
}

// ---- found ----

#[test]
fn bound_at_first_and_then_taken_over() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let (unix, datagram) = (folder.join("unix"), folder.join("datagram"));
        let options = [
            "--tcp=127.0.0.1:0".to_owned(),
            "--tcp=[::1]:0,only-v6,name=six".to_owned(),
            "--udp=127.0.0.1:0".to_owned(),
            format!("--unix={}", unix.display()),
            format!("--unix-datagram={}", datagram.display()),
            "--group=127.0.0.1:0,count=3,name=group".to_owned(),
            "--udp-group=127.0.0.1:0,count=2,name=group".to_owned(),
        ];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let first = direct.start_ready(&options);
        let bound = sockets(&direct, &first.1);
        assert_eq!(bound.len(), 10);
        assert_eq!(origins(folder, &first.1), ["bound"; 10]);
        let files = [&unix, &datagram].map(|path| fs::metadata(path).expect("a socket").ino());

        let mut generation = first;
        for _ in 0..2 {
            generation = next(&direct, generation, &options);
            let daemon = &generation.1;
            assert_eq!(sockets(&direct, daemon), bound, "the same addresses");
            assert_eq!(origins(folder, daemon), ["predecessor"; 10]);
            assert_eq!(files, [&unix, &datagram].map(|path| fs::metadata(path).unwrap().ino()));
            assert_eq!(http::pid(&tcp_of(&bound[0])), daemon.pid());
            assert_eq!(http::pid(&tcp_of(&bound[1])), daemon.pid());
            assert_eq!(http::pid(&Target::Unix(unix.clone())), daemon.pid());
            assert_eq!(http::pid(&tcp_of(&bound[5])), daemon.pid());
        }
    });
}

/// Starts a probe as systemd would, with these descriptors from number 3 on.
fn start_with(direct: &Site, fds: &[BorrowedFd<'_>], variables: &str, options: &[&str]) -> Started {
    let mut script = String::new();
    for (at, fd) in fds.iter().enumerate() {
        let fd = fd.as_raw_fd();
        assert!(fd > 20, "numbers that are not in each other's way");
        script.push_str(&format!("exec {}<&{fd} {fd}<&-\n", at + 3));
    }
    script.push_str(variables);
    script.push_str("\nexec \"$@\"");
    let probe = direct.command(options);
    let mut command = Command::new("bash");
    command.args(["-c", &script, "bash"]).arg(probe.get_program()).args(probe.get_args());
    command.stdin(Stdio::null()).stderr(direct.log_end());
    direct.spawn(&mut command)
}

/// High numbers, and inherited by what we execute.
fn to_pass(socket: impl Into<OwnedFd>) -> OwnedFd {
    let mut socket: OwnedFd = socket.into();
    let mut low = Vec::new();
    while socket.as_raw_fd() <= 20 {
        let next = socket.try_clone().expect("a duplicate");
        low.push(std::mem::replace(&mut socket, next));
    }
    SockRef::from(&socket).set_nonblocking(true).expect("a flag");
    SockRef::from(&socket).set_cloexec(false).expect("a flag");
    socket
}

#[test]
fn passed_by_the_supervisor_and_handed_on() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let listener = || TcpListener::bind("127.0.0.1:0").expect("a listener");
        let (web, admin) = (listener(), listener());
        let (web_address, admin_address) = (web.local_addr().unwrap(), admin.local_addr().unwrap());
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let udp_address = udp.local_addr().unwrap();
        let unix = UnixListener::bind(folder.join("unix")).expect("a listener");
        let passed: Vec<OwnedFd> = vec![to_pass(web), to_pass(admin), to_pass(udp), to_pass(unix)];
        let fds: Vec<BorrowedFd<'_>> = passed.iter().map(AsFd::as_fd).collect();
        // By address; by name, whatever the address; by address without a name.
        let options = [
            format!("--tcp={web_address}"),
            "--tcp=127.0.0.1:1,name=admin".to_owned(),
            format!("--udp={udp_address},name=none-passed"),
            format!("--unix={}/unix", folder.display()),
        ];
        let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
        options.push("--accept=never");
        let variables = "export LISTEN_PID=$$ LISTEN_FDS=4 LISTEN_FDNAMES=web:admin:dns";
        let first = start_with(&direct, &fds, variables, &options);
        let daemon = first.wait_started();
        let expected = [
            format!("tcp {web_address}"),
            format!("tcp {admin_address}"),
            format!("udp {udp_address}"),
            format!("unix {:?} (pathname)", folder.join("unix")),
        ];
        assert_eq!(sockets(&direct, &daemon), expected);
        assert_eq!(origins(folder, &daemon), ["supervisor"; 4]);
        // The launcher closes its copies; the daemon's are close-on-exec.
        let sockets_of = |pid| {
            let mut all: Vec<PathBuf> =
                descriptors(pid).into_iter().map(|(_, target)| target).collect();
            all.retain(|target| target.to_string_lossy().starts_with("socket:"));
            all
        };
        let held: Vec<PathBuf> = (3..7).map(|fd| fd_target(daemon.pid(), fd)).collect();
        wait_for(format!("the launcher has none of {held:?}"), LIMIT, || {
            let of_launcher = sockets_of(first.launcher.pid());
            held.iter().all(|one| !of_launcher.contains(one)).then_some(())
        });
        for fd in 3..7 {
            let info = fs::read_to_string(format!("/proc/{}/fdinfo/{fd}", daemon.pid())).unwrap();
            assert!(info.contains("flags:\t02004002"), "close-on-exec: {info}");
        }
        drop(passed);

        // The successor is passed nothing, and gets them all the same.
        let (_started, second) = next(&direct, (first, daemon), &options);
        assert_eq!(sockets(&direct, &second), expected);
        assert_eq!(origins(folder, &second), ["predecessor"; 4]);
    });
}

fn fd_target(pid: u32, number: i32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/fd/{number}")).expect("a descriptor")
}

#[test]
fn passed_to_a_daemon_without_launcher() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let target = Target::from(listener.local_addr().unwrap());
        let passed = to_pass(listener);
        let options = [&format!("--tcp={target}"), "--pid-file="];
        let variables = "export LISTEN_PID=$$ LISTEN_FDS=1";
        let mut started = start_with(&direct, &[passed.as_fd()], variables, &options);
        direct.report.wait("started");
        let daemon = Watched::new(started.launcher.pid());
        assert_eq!(origins(folder, &daemon), ["supervisor"]);
        drop(passed);
        assert_eq!(http::pid(&target), daemon.pid());
        // Nobody hands over to a disabled one, and it to nobody.
        assert!(!direct.socket().exists());
        daemon.signal(TERM);
        assert!(started.wait_end().success());
    });
}

#[test]
fn what_was_passed_to_others_or_is_no_socket_is_not_adopted() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let listener = || TcpListener::bind("127.0.0.1:0").expect("a listener");
        let connected = {
            let listener = listener();
            TcpStream::connect(listener.local_addr().unwrap()).expect("a connection")
        };
        let file = fs::File::create(folder.join("file")).expect("a file");
        for (at, (variables, why)) in [
            ("export LISTEN_PID=1 LISTEN_FDS=1", "LISTEN_FDS=1 was meant for process 1"),
            ("export LISTEN_FDS=1", "LISTEN_FDS=1 without a LISTEN_PID that is one"),
            ("export LISTEN_PID=$$ LISTEN_FDS=-1", "LISTEN_FDS=-1 is no number of descriptors"),
            ("export LISTEN_PID=$$ LISTEN_FDS=x", "LISTEN_FDS=x is no number of descriptors"),
            ("export LISTEN_PID=$$ LISTEN_FDS=3", "it is not listening"),
            ("export LISTEN_PID=$$ LISTEN_FDS=3", "it is not a socket"),
            ("export LISTEN_PID=$$ LISTEN_FDS=40", "it is not open"),
            ("export LISTEN_PID=$$ LISTEN_FDS=40", "it was not passed: it is this program's own"),
        ]
        .into_iter()
        .enumerate()
        {
            println!("{variables}: {why}");
            let place = folder.join(at.to_string());
            fs::create_dir(&place).expect("a folder");
            let direct = Site::alone(&place);
            let listener = listener();
            let target = Target::from(listener.local_addr().unwrap());
            let passed = [
                to_pass(listener),
                to_pass(connected.try_clone().unwrap()),
                to_pass(file.try_clone().unwrap()),
            ];
            let fds: Vec<BorrowedFd<'_>> = passed.iter().map(AsFd::as_fd).collect();
            let option = format!("--tcp={target}");
            let mut started = start_with(&direct, &fds, variables, &[&option]);
            direct.log.wait_words(&["stage=passed", &format!("refused=\"{why}\"")], 1);
            if at < 4 {
                // Not ours: bound anew, which fails where somebody else listens.
                let error = started.wait_error().text;
                let text =
                    format!("socket: cannot bind tcp {target} (socket): Address already in use");
                assert!(error.starts_with(&text), "{error}");
            } else {
                let daemon = started.wait_started();
                assert_eq!(origins(&place, &daemon), ["supervisor"]);
                assert!(fd_target(daemon.pid(), 5).ends_with("file"), "left as it was");
                daemon.signal(TERM);
                drop(passed);
                assert!(started.wait_end().success());
            }
        }
    });
}

#[test]
fn addresses_may_change_from_one_generation_to_the_next() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let [one, two, three] = [(); 3].map(|()| boxed::address());
        let (first, second) = ([one, two], [two, three]);
        let options = |both: [std::net::SocketAddr; 2]| both.map(|one| format!("--tcp={one}"));
        let mut old = direct.start_ready(&options(first).each_ref().map(String::as_str));
        old.0.detach();
        // While both live, the unclaimed one is still served by the old.
        let hold = folder.join("hold");
        let new = direct.start_ready(&[
            &options(second)[0],
            &options(second)[1],
            &format!("--at=shutdown=file:{}", hold.display()),
        ]);
        assert_eq!(origins(folder, &new.1), ["predecessor", "bound"]);
        let daemon = new.1.pid().to_string();
        let closed = Log::of(folder).wait(&[
            ("stage", "socket"),
            ("daemon", &daemon),
            ("address", &one.to_string()),
            ("from", "predecessor"),
        ]);
        assert_eq!(closed.field("closed"), Some("not asked for"));
        // The old one must be the last to hold it before it is told to end: what came to the new one
        // alone would be reset.
        let lines = Log::of(folder).lines();
        let at = |field| {
            let is_it = |line: &Line| line.is(&[("daemon", &daemon), field]);
            lines.iter().position(is_it).expect("logged")
        };
        assert!(at(("closed", "not asked for")) < at(("signal", "TERM")), "{lines:?}");
        old.1.wait_end(LIMIT);
        let refused = TcpStream::connect(one).expect_err("nobody listens any more");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(http::pid(&Target::from(two)), new.1.pid());
        assert_eq!(http::pid(&Target::from(three)), new.1.pid());
    });
}

#[test]
fn p10_a_socket_is_asked_for_once() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let address = boxed::address();
        let same = format!("--tcp={address}");
        let text = format!(
            "socket: cannot bind tcp {address} (socket): this process has asked for it before: \
             address in use"
        );
        assert_eq!(direct.start(&[&same, &same]).wait_error().text, text);
        let named = format!("--tcp={address},name=other");
        assert_eq!(direct.start(&[&same, &named]).wait_error().text, text);
        let any = "--tcp=127.0.0.1:0,name=any";
        let text = "socket: cannot bind tcp 127.0.0.1:0 (socket): this process has asked for it \
                    before: address in use; sockets with port 0 are told apart by their names";
        assert_eq!(direct.start(&[any, any]).wait_error().text, text);
        let udp = format!("--udp={address}");
        let (_started, daemon) = direct.start_ready(&[&same, &udp, any, "--tcp=127.0.0.1:0"]);
        assert_eq!(sockets(&direct, &daemon).len(), 4);
    });
}

#[test]
fn p10_before_init_and_after_started() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let before = "--at=before-init=tcp:127.0.0.1:0,name=early";
        let late = "--at=started=tcp:127.0.0.1:0,name=late";
        let first = direct.start_ready(&[before, late]);
        let error = "tcp error: cannot find a socket (socket): init was not called, or failed";
        let called = |nth| direct.report.wait_nth("called", nth).text;
        assert_eq!((called(1).as_str(), called(2).as_str()), (error, error), "launcher and daemon");
        let bound = called(3);
        assert!(bound.starts_with("tcp 127.0.0.1:"), "{bound}");
        // The successor finds what was bound late.
        let (_started, second) = next(&direct, first, &["--tcp=127.0.0.1:0,name=late"]);
        assert_eq!(sockets(&direct, &second), [bound]);
        assert_eq!(origins(folder, &second), ["predecessor"]);
    });
}

#[test]
fn o_nonblock_is_the_sockets_own() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let option = |more| format!("--tcp=127.0.0.1:0{more}");
        let first = direct.start_ready(&[&option("")]);
        let (_started, second) = next(&direct, first, &[&option(",blocking"), "--accept=never"]);
        let line = direct.log.wait_words(&["nonblocking=true", "asked for otherwise"], 1);
        assert!(line.contains(&format!("daemon={}", second.pid())), "{line}");
    });
}

// ---- Unix paths ----

#[test]
fn a_unix_path_has_its_mode_and_replaces_what_is_stale() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let path = folder.join("unix");
        drop(UnixListener::bind(&path).expect("a listener")); // leaves its path
        let leftover = folder.join("unix.new");
        drop(UnixListener::bind(&leftover).expect("a listener"));
        let datagram = folder.join("datagram");
        drop(UnixDatagram::bind(&datagram).expect("a socket"));
        let (_started, daemon) = direct.start_ready(&[
            &format!("--unix={},mode=612", path.display()),
            &format!("--unix-datagram={},mode=777", datagram.display()),
        ]);
        let mode =
            |path: &Path| fs::metadata(path).expect("a socket").permissions().mode() & 0o7777;
        assert_eq!((mode(&path), mode(&datagram)), (0o612, 0o777));
        assert_eq!(mode(&direct.socket()), 0o600);
        assert!(!leftover.exists());
        assert_eq!(http::pid(&Target::Unix(path)), daemon.pid());
    });
}

#[test]
fn p10_a_unix_path_of_somebody_else_is_an_error() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let path = folder.join("unix");
        let us = std::process::id();
        let in_use = format!("socket: cannot bind {path:?} (socket): address in use; ");
        let refused = |option: &str| {
            let option = format!("--{option}={}", path.display());
            direct.start(&[&option]).wait_error().text
        };
        let theirs = UnixListener::bind(&path).expect("a listener");
        let text = format!("{in_use}process {us}, which is no predecessor, listens there");
        assert_eq!(refused("unix"), text);
        assert_eq!(refused("unix-datagram"), format!("{in_use}somebody listens there"));
        drop(theirs);
        fs::remove_file(&path).expect("removed");
        let theirs = UnixDatagram::bind(&path).expect("a socket");
        assert_eq!(refused("unix-datagram"), format!("{in_use}somebody listens there"));
        drop(theirs);
        fs::remove_file(&path).expect("removed");
        fs::write(&path, "mine").expect("a file");
        assert_eq!(refused("unix"), format!("{in_use}something that is no socket is there"));
        assert_eq!(fs::read_to_string(&path).expect("unharmed"), "mine");
        fs::remove_file(&path).expect("removed");
        fs::write(folder.join("unix.new"), "mine").expect("a file");
        let text = format!(
            "socket: cannot bind {path:?} (socket): {:?} is in the way, and is no socket",
            folder.join("unix.new")
        );
        assert_eq!(refused("unix"), text);
    });
}

#[test]
fn a_unix_socket_that_lost_its_path_is_bound_anew() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let path = folder.join("unix");
        let option = format!("--unix={}", path.display());
        let first = direct.start_ready(&[&option]);
        fs::remove_file(&path).expect("removed");
        let second = next(&direct, first, &[&option]);
        direct.log.wait_words(&["refused=\"its path no longer names it: bound anew\""], 1);
        assert_eq!(http::pid(&Target::Unix(path.clone())), second.1.pid());
        // Now somebody else has it, and keeps it.
        fs::remove_file(&path).expect("removed");
        let _theirs = UnixListener::bind(&path).expect("a listener");
        let (mut started, daemon) = second;
        started.detach();
        let error = direct.start(&[&option]).wait_error().text;
        let text = format!(
            "socket: cannot bind {path:?} (socket): address in use; process {}, which is no \
             predecessor, listens there",
            std::process::id()
        );
        assert_eq!(error, text);
        assert!(!daemon.has_ended());
    });
}

#[test]
fn paths_longer_than_a_socket_address() {
    Boxed::new().private_net_without_migration().run(|folder| {
        // The folder is too long, or even the name by itself.
        for name in ["web.pid", &"n".repeat(200)] {
            let place = folder.join("d".repeat(120)).join(&name[..1]);
            fs::create_dir_all(&place).expect("a folder");
            let path = place.join(name);
            let unix = place.join(format!("{name}.unix"));
            let direct = Site::alone(&place);
            let options = [
                format!("--pid-file={}", path.display()),
                format!("--unix={}", unix.display()),
                "--tcp=127.0.0.1:0".to_owned(),
            ];
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            let first = direct.start_ready(&options);
            let (_started, second) = next(&direct, first, &options);
            assert_eq!(origins(&place, &second), ["predecessor"; 2]);
            let mut left: Vec<String> = fs::read_dir(&place)
                .expect("the folder")
                .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
                .collect();
            left.sort();
            let mut expected = ["", ".lock", ".sock", ".unix"].map(|end| format!("{name}{end}"));
            expected.sort();
            left.retain(|name| name != "log" && name != "report");
            assert_eq!(left, expected);
        }
    });
}

// ---- the takeover socket ----

#[test]
fn a_takeover_socket_that_was_removed_is_put_back() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let options = ["--tcp=127.0.0.1:0", "--successor-timeout=none"];
        let (mut started, daemon) = direct.start_ready(&options);
        let bound = sockets(&direct, &daemon);
        started.detach();
        for stale in [false, true] {
            fs::remove_file(direct.socket()).expect("removed");
            if stale {
                drop(UnixListener::bind(direct.socket()).expect("a listener"));
            }
            direct
                .log
                .wait_words(&["nobody listened at the takeover socket"], 1 + usize::from(stale));
            let status = handover::status(&direct.socket());
            assert!(status.contains(&format!("daemon={}", daemon.pid())), "{status}");
        }
        assert_eq!(direct.named(), Some(daemon.pid()));
        let (_second, new) = direct.start_ready(&options);
        assert_eq!(sockets(&direct, &new), bound);
        daemon.wait_end(LIMIT);
    });
}

#[test]
fn a_predecessor_whose_takeover_socket_is_missing_is_waited_for() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let options = ["--tcp=127.0.0.1:0", "--successor-timeout=none"];
        let (mut started, daemon) = direct.start_ready(&options);
        started.detach();
        stop_without_claim(&daemon); // so that it puts nothing back
        fs::remove_file(direct.socket()).expect("removed");
        let error = direct.start(&options).wait_error().text;
        let text = format!(
            "socket: cannot take over at {:?} (takeover): nobody listens there, while generation 1 \
             with daemon {} should; it looks after it each second",
            direct.socket(),
            daemon.pid()
        );
        assert_eq!(error, text);
        daemon.signal(18);
        direct.log.wait_words(&["nobody listened at the takeover socket"], 1);
        let (_second, new) = direct.start_ready(&options);
        assert_eq!(sockets(&direct, &new), sockets(&direct, &daemon));
    });
}

/// It serves no more and sees to no takeover socket, though it may live for as long as a download
/// takes; the generation that took its sockets is dead.
#[test]
fn p1_p9_a_predecessor_that_drains_is_not_waited_for() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let address = boxed::address();
        let tcp = format!("--tcp={address}");
        let options = [tcp.as_str(), "--successor-timeout=none"];
        let (mut first, old) = direct.start_ready(&options);
        let request = Connection::unfinished(&Target::from(address));
        // What comes later is accepted later.
        assert_eq!(http::pid(&Target::from(address)), old.pid());
        first.detach();
        let (mut second, new) = direct.start_ready(&options);
        scene::wait_drain(&direct.report, old.pid());
        second.launcher.kill();
        new.kill();
        second.wait_end();
        new.wait_end(LIMIT);

        let (_third, newest) = direct.start_ready(&options);
        assert_eq!(origins(folder, &newest), ["bound"]);
        assert_eq!(http::wait_pid(&Target::from(address)), newest.pid());
        assert!(request.finish().ends_with(&answer_of(old.pid())));
        old.wait_end(LIMIT);
    });
}

#[test]
fn p10_a_takeover_socket_that_cannot_be_put_in_place_is_an_error() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let temporary = folder.join("web.pid.sock.new");
        fs::write(&temporary, "mine").expect("a file");
        let mut first = direct.start(&[]);
        let text = format!(
            "started: cannot bind {:?} (takeover): {temporary:?} is in the way, and is no socket",
            direct.socket()
        );
        assert_eq!(first.wait_error().text, text);
        fs::remove_file(&temporary).expect("removed");
        direct.start_ready(&[]);
    });
}

#[test]
fn status_is_answered_also_while_draining() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let go = folder.join("go");
        let (started, daemon) = direct.start_ready(&[
            "--tcp=127.0.0.1:0",
            "--udp=127.0.0.1:0",
            &format!("--at=shutdown=file:{}", go.display()),
        ]);
        let status = handover::status(&direct.socket());
        let (head, sockets) = status.split_once('\n').expect("lines");
        let words: Vec<&str> = head.split(' ').collect();
        let (daemon_word, launcher_word) =
            (format!("daemon={}", daemon.pid()), format!("launcher={}", started.launcher.pid()));
        assert_eq!(
            words[..7],
            [
                "seamless-takeover",
                "1",
                "status",
                "generation=1",
                "state=serving",
                &daemon_word,
                &launcher_word
            ]
        );
        assert!(words[7].starts_with("age_ms="), "{head}");
        assert_eq!(words[8], "sockets=2");
        let kinds: Vec<&str> = sockets.lines().filter_map(|line| line.split(' ').nth(1)).collect();
        assert_eq!(kinds, ["tcp", "udp"]);
        daemon.signal(TERM);
        direct.report.wait_of(daemon.pid(), "hook");
        let status = handover::status(&direct.socket());
        assert!(status.contains(" state=draining "), "{status}");
        assert!(status.contains(" sockets=0 "), "{status}");
        fs::write(go, "").expect("a file");
        daemon.wait_end(LIMIT);
    });
}

// ---- the state ----

#[test]
fn state_is_handed_over() {
    Boxed::new().limit(Duration::from_secs(120)).run(|folder| {
        let direct = Site::alone(folder);
        let inherited = |daemon: &Watched| direct.report.wait_of(daemon.pid(), "inherited").text;
        let mut old = direct.start_ready(&["--state=text:first words", "--inherit"]);
        assert_eq!(inherited(&old.1), "None none");
        for (number, (state, expected)) in [
            ("text:", "11 first words"),
            ("size:1", "0 as made"),
            ("size:67108864", "1 as made"),
            ("text:last", "67108864 as made"),
        ]
        .into_iter()
        .enumerate()
        {
            let state = format!("--state={state}");
            let options = [&state, "--inherit", "--takeover-timeout=60s"];
            old = next(&direct, old, &options);
            assert_eq!(inherited(&old.1), format!("Some({}) {expected}", number + 1));
        }
        // It is handed out once; and one that gives none hands over none.
        let old = next(&direct, old, &["--inherit", "--at=after-init=call:inherited"]);
        let twice = direct.report.named("inherited").into_iter();
        let twice = twice.filter(|event| event.pid == old.1.pid()).map(|event| event.text);
        assert_eq!(twice.collect::<Vec<_>>(), ["Some(5) 4 last", "Some(5) none"]);
        let old = next(&direct, old, &["--inherit"]);
        assert_eq!(inherited(&old.1), "Some(6) none");
    });
}

#[test]
fn state_that_cannot_be_handed_over_is_an_error_and_harms_nobody() {
    Boxed::new().limit(Duration::from_secs(120)).run(|folder| {
        for (at, (state, why)) in [
            ("size:67108865", "hand_over gave 67108865 bytes, and 67108864 are the limit"),
            ("panic", "hand_over panicked"),
            ("hang", "hand_over takes longer than 300ms (takeover_timeout)"),
        ]
        .into_iter()
        .enumerate()
        {
            let place = folder.join(at.to_string());
            fs::create_dir(&place).expect("a folder");
            let direct = Site::alone(&place);
            let timeout = if state == "hang" { "300ms" } else { "60s" };
            let options = [
                "--tcp=127.0.0.1:0".to_owned(),
                format!("--state={state}"),
                format!("--takeover-timeout={timeout}"),
                "--successor-timeout=none".to_owned(),
            ];
            let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
            let (mut started, old) = direct.start_ready(&options);
            started.detach();
            options[2] = "--takeover-timeout=60s";
            let error = direct.start(&options).wait_error().text;
            let path = direct.socket();
            let text = format!(
                "socket: cannot take over at {path:?} (takeover): process {}: it refuses: {why}",
                old.pid()
            );
            assert_eq!(error, text);
            direct.log.wait_words(&["stage=handover", &format!("error=\"{why}\"")], 1);
            assert_eq!(http::pid(&tcp_of(&sockets(&direct, &old)[0])), old.pid());
            if state == "hang" {
                let error = direct.start(&options).wait_error().text;
                assert!(error.ends_with("it refuses: hand_over still runs"), "{error}");
            }
            assert!(!old.has_ended());
        }
    });
}

// ---- nothing queued is lost ----

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

// ---- many ----

#[test]
fn from_one_to_4000_sockets_in_one_takeover() {
    Boxed::new().private_net_without_migration().limit(Duration::from_secs(180)).run(|folder| {
        for count in [1, 10, 100, 1000, 4000] {
            let place = folder.join(count.to_string());
            fs::create_dir(&place).expect("a folder");
            let direct = Site::alone(&place);
            let options = [&format!("--many={count}"), "--takeover-timeout=60s"];
            // The soft limit of open files is raised where it must be.
            let mut command = Command::new("sh");
            let probe = direct.command(&options);
            command
                .args(["-c", "ulimit -Sn 256; exec \"$0\" \"$@\""])
                .arg(probe.get_program())
                .args(probe.get_args())
                .envs(probe.get_envs().filter_map(|(key, value)| Some((key, value?))))
                .stdin(Stdio::null())
                .stderr(direct.log_end());
            let mut first = direct.spawn(&mut command);
            let old = first.wait_started();
            first.detach();
            command.stderr(direct.log_end());
            let second = direct.spawn(&mut command);
            let new = second.wait_started();
            old.wait_end(LIMIT);
            let line = direct.log.wait_words(&["stage=takeover", &format!(" sockets={count} ")], 1);
            println!("{line}");
            let origins = origins(&place, &new);
            assert_eq!(origins.len(), count);
            assert!(origins.iter().all(|one| one == "predecessor"));
            let number = |line: &str| {
                let address = line.split_once("address=127.0.0.1:").expect("an address").1;
                address.split(' ').next().expect("a port").parse::<u16>().expect("a port")
            };
            let ports = |pid: u32| -> Vec<u16> {
                let words = [format!("daemon={pid} "), "stage=socket".to_owned()];
                let log = direct.log.text();
                let lines = log.lines().filter(|line| words.iter().all(|word| line.contains(word)));
                lines.map(number).collect()
            };
            assert_eq!(ports(old.pid()), ports(new.pid()), "each the one of its name");
            new.signal(TERM);
            new.wait_end(LIMIT);
        }
    });
}

// ---- descriptors ----

/// Each kind of descriptor by itself, sockets without their numbers.
fn kinds(pid: u32) -> Vec<String> {
    let mut kinds: Vec<String> = targets(pid)
        .into_iter()
        .map(|target| match target.split_once(":[") {
            Some((kind, _)) => kind.to_owned(),
            None => Path::new(&target).file_name().expect("a name").to_string_lossy().into_owned(),
        })
        .collect();
    kinds.sort();
    kinds
}

fn sorted<'a>(kinds: impl Iterator<Item = &'a &'a str>) -> Vec<String> {
    let mut kinds: Vec<String> = kinds.map(|kind| (*kind).to_owned()).collect();
    kinds.sort();
    kinds
}

#[test]
fn each_process_holds_what_it_should_after_50_restarts() {
    Boxed::new().limit(Duration::from_secs(240)).run(|folder| {
        let direct = Site::alone(folder);
        let options = [
            "--tcp=127.0.0.1:0".to_owned(),
            format!("--unix={}/unix", folder.display()),
            "--group=127.0.0.1:0,count=4,name=group".to_owned(),
            "--state=size:100".to_owned(),
            "--inherit".to_owned(),
        ];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let mut generation = direct.start_ready(&options);
        let bound = sockets(&direct, &generation.1);
        for _ in 0..50 {
            generation = next(&direct, generation, &options);
        }
        let (started, daemon) = generation;
        assert_eq!(sockets(&direct, &daemon), bound);
        assert_eq!(direct.report.named("started").len(), 51);
        // Its pidfds of the supervisor and the daemon, the channel, and two pairs that wake it at a
        // signal.
        let standard = ["null", "output", "log"];
        let launcher = ["anon_inode"; 2].iter().chain(&["socket"; 5]).chain(&standard);
        assert_eq!(kinds(started.launcher.pid()), sorted(launcher));
        // The supervisor's pidfd; the PID file and its lock; a socket each for the channel and the
        // takeover; a pair each to be woken by signals (the crate's and the probe's), by other
        // threads and for the takeover; the six sockets twice, in the program's hands and in the
        // crate's; a pair for each of the probe's six servers.
        let own = ["anon_inode", "web.pid", "web.pid.lock"];
        let sockets = ["socket"; 2 + 2 * 4 + 2 * 6 + 2 * 6];
        assert_eq!(kinds(daemon.pid()), sorted(own.iter().chain(&sockets).chain(&standard)));
    });
}
