//! Where sockets are found: bound, taken over, or passed by the supervisor.

use std::{
    fs,
    io::ErrorKind,
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{fs::MetadataExt, net::UnixListener},
    },
    path::PathBuf,
    process::{Command, Stdio},
};

use seamless_testing::{
    boxed::{self, Boxed},
    http::{self, Target},
    log::{Line, Log},
    process::{Watched, descriptors},
    site::{Site, Started},
    wait_for,
};
use socket2::SockRef;

use super::{LIMIT, TERM, next, origins, sockets, tcp_of};

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
pub(super) fn start_with(
    direct: &Site,
    fds: &[BorrowedFd<'_>],
    variables: &str,
    options: &[&str],
) -> Started {
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
pub(super) fn to_pass(socket: impl Into<OwnedFd>) -> OwnedFd {
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
        options.push("--keep-sockets=none"); // the launcher would hold copies for a keeper
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
        let address = bound.strip_prefix("tcp ").expect("an address");
        let said = [("stage", "socket"), ("address", address), ("from", "bound")];
        let lines = direct.log.lines().into_iter().filter(|line| line.is(&said));
        let warned = lines.filter(|line| line.holds(&["WARN", "asked for after started()"]));
        assert_eq!(warned.count(), 1, "{}", direct.log);
        // The successor finds what was bound late.
        let (_started, second) = next(&direct, first, &["--tcp=127.0.0.1:0,name=late"]);
        assert_eq!(sockets(&direct, &second), [bound]);
        assert_eq!(origins(folder, &second), ["predecessor"]);
    });
}

/// The predecessor has the address, and nothing is taken over any more.
#[test]
fn p10_an_address_in_use_after_started_says_that_it_is_too_late() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let (mut first, old) =
            direct.start_ready(&["--tcp=127.0.0.1:0", "--at=shutdown=hang"]);
        let address = sockets(&direct, &old)[0].strip_prefix("tcp ").expect("tcp").to_owned();
        first.detach();
        let late = format!("--at=started=tcp:{address}");
        let (_second, daemon) = direct.start_ready(&[&late]);
        let error = direct.report.wait_of(daemon.pid(), "called").text;
        let in_use = format!("tcp error: cannot bind tcp {address} (socket): Address already in use");
        assert!(error.starts_with(&in_use), "{error}");
        let hint = "; it was asked for after started(): a socket is taken over from the predecessor \
                    only if it is asked for between init and started";
        assert!(error.ends_with(hint), "{error}");
        old.kill();
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

/// systemd passes its sockets so that they stay open over `execve`; a program that the daemon starts would keep
/// the port.
#[test]
fn what_the_supervisor_has_passed_is_not_inherited_by_programs() {
    Boxed::new().private_net_without_migration().run(|folder| {
        for (at, pid_file) in ["web.pid", ""].into_iter().enumerate() {
            let place = folder.join(at.to_string());
            fs::create_dir(&place).expect("a folder");
            let direct = Site::alone(&place);
            let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
            let tcp = format!("--tcp={}", listener.local_addr().expect("its address"));
            let passed = to_pass(listener);
            let mut options = vec![tcp.as_str(), "--at=started=spawn:one"];
            options.extend(pid_file.is_empty().then_some("--pid-file="));
            let variables = "export LISTEN_PID=$$ LISTEN_FDS=1";
            let _started = start_with(&direct, &[passed.as_fd()], variables, &options);
            let spawned = direct.report.wait("spawned").text;
            let program: u32 =
                spawned.split(' ').next().unwrap_or_default().parse().expect("a PID");
            let held = descriptors(program);
            let is_socket = |what: &PathBuf| what.to_string_lossy().starts_with("socket:");
            assert!(!held.iter().any(|(_, what)| is_socket(what)), "{held:?}");
        }
    });
}
