//! Sockets of further kinds, those that the program makes or adjusts itself, and those that Einhorn and circus
//! pass.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use seamless_testing::{
    boxed::{self, Boxed},
    http::{self, Target},
    site::Site,
};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::found::{start_with, to_pass};
use super::{LIMIT, next, origins, sockets, tcp_of};

// ---- further kinds ----

#[test]
fn a_seqpacket_listener_is_taken_over() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let path = folder.join("messages");
        let option = format!("--unix-seqpacket={},mode=600", path.display());
        let old = direct.start_ready(&[&option]);
        let inode = sockets(&direct, &old.1);
        // It waits in the queue through the restart.
        let client = Socket::new(Domain::UNIX, Type::SEQPACKET, None).expect("a socket");
        client.connect(&SockAddr::unix(&path).expect("an address")).expect("a connection");
        let new = next(&direct, old, &[&option]);
        assert_eq!(sockets(&direct, &new.1), inode, "the very socket");
        assert_eq!(origins(folder, &new.1), ["predecessor"]);
        assert!(client.take_error().expect("its state").is_none());
        // Another kind at that path is another socket: bound anew.
        let stream = next(&direct, new, &[&format!("--unix={}", path.display())]);
        assert_eq!(origins(folder, &stream.1), ["bound"]);
        assert_eq!(http::pid(&Target::Unix(path)), stream.1.pid());
    });
}

#[test]
fn a_vsock_listener_is_taken_over() {
    if let Err(error) = Socket::new(Domain::VSOCK, Type::STREAM, None) {
        eprintln!("no vsock in this kernel: {error}");
        return;
    }
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let options = ["--vsock=4294967295", "--vsock=7010"];
        let old = direct.start_ready(&options);
        let inodes = sockets(&direct, &old.1);
        assert_eq!(origins(folder, &old.1), ["bound"; 2]);
        let new = next(&direct, old, &options);
        assert_eq!(sockets(&direct, &new.1), inodes);
        assert_eq!(origins(folder, &new.1), ["predecessor"; 2]);
        direct.log.wait_words(&["stage=socket", "kind=vsock", "address=vsock:4294967295:7010"], 2);
    });
}

// ---- made by the program ----

#[test]
fn the_program_makes_a_socket_once_and_it_is_taken_over_then() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let unix = folder.join("unix");
        let options = [
            "--tcp=127.0.0.1:0,make=".to_owned(),
            "--group=127.0.0.1:0,name=group,count=2,make=".to_owned(),
            format!("--unix={},mode=600,make=", unix.display()),
        ];
        let old = direct.start_ready(&options.each_ref().map(String::as_str));
        let made = sockets(&direct, &old.1);
        assert_eq!(origins(folder, &old.1), ["bound"; 4]);
        assert_eq!(http::pid(&tcp_of(&made[0])), old.1.pid());
        assert_eq!(http::pid(&Target::Unix(unix.clone())), old.1.pid());
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&unix).expect("a socket").permissions().mode() & 0o777, 0o600);
        // This `make` would fail: it is not called.
        let options = options.map(|option| option + "error");
        let new = next(&direct, old, &options.each_ref().map(String::as_str));
        assert_eq!(sockets(&direct, &new.1), made);
        assert_eq!(origins(folder, &new.1), ["predecessor"; 4]);
        assert_eq!(http::pid(&Target::Unix(unix)), new.1.pid());
        assert_eq!(http::pid(&tcp_of(&made[0])), new.1.pid());
    });
}

#[test]
fn what_the_program_makes_wrong_is_an_error() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let refused = "what `make` returned cannot be used:";
        for (how, why) in [
            ("error", "as told".to_owned()),
            ("kind", format!("{refused} it is a udp socket, not a tcp socket")),
            ("deaf", format!("{refused} it is not listening")),
            ("port", format!("{refused} it is bound to 127.0.0.2:")),
            ("inherited", format!("{refused} it is not close-on-exec (SOCK_CLOEXEC)")),
        ] {
            let error = direct.start(&[&format!("--tcp=127.0.0.1:0,make={how}")]).wait_error().text;
            let step = format!("socket: cannot bind tcp 127.0.0.1:0 (socket): {why}");
            assert!(error.starts_with(&step), "{error}");
        }
        let path = folder.join("unix");
        let option = format!("--unix={},make=deaf", path.display());
        let error = direct.start(&[&option]).wait_error().text;
        let step = format!("socket: cannot bind {path:?} (socket): {refused} it is not listening");
        assert_eq!(error, step);
        let left: Vec<_> = fs::read_dir(folder).expect("a folder").flatten().collect();
        let left = left.iter().filter(|one| one.file_name().to_string_lossy().contains("unix"));
        assert_eq!(left.count(), 0, "no temporary name is left");
    });
}

#[test]
fn the_program_makes_and_adjusts_the_members_of_a_steered_group() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let address = boxed::address();
        let option = |how: &str| format!("--udp-group={address},count=2,steer=newest,{how}");
        let error = direct.start(&[&option("adjust=0")]).wait_error().text;
        let step = format!("cannot adjust udp {address} (socket): `adjust` failed: as told");
        assert_eq!(error, format!("socket: {step}"));
        let (mut started, daemon) = direct.start_ready(&[&option("make=counting")]);
        assert_eq!(origins(folder, &daemon), ["bound"; 2]);
        daemon.kill();
        started.wait_end();
        // The places of a generation that has crashed are used again.
        let error = direct.start(&[&option("adjust=0")]).wait_error().text;
        assert_eq!(error, format!("started: {step}"));
    });
}

#[test]
fn each_generation_adjusts_the_socket_when_it_takes_over() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let listener = to_pass(TcpListener::bind("127.0.0.1:0").expect("a listener"));
        let buffer = || SockRef::from(&listener).recv_buffer_size().expect("a size");
        let address = TcpListener::from(listener.try_clone().expect("a copy")).local_addr();
        let address = address.expect("its address");
        let option = |bytes: usize| format!("--tcp={address},adjust={bytes}");
        let go = folder.join("go");
        let fds = [listener.as_fd()];
        let wait = format!("--at=ready=file:{}", go.display());
        let before = buffer();
        let mut started = start_with(
            &direct,
            &fds,
            "export LISTEN_PID=$$ LISTEN_FDS=1",
            &[&option(30_000), &wait],
        );
        let daemon = started.wait_init();
        direct.report.wait_of(daemon.pid(), "socket");
        assert_eq!(buffer(), before, "it has not started");
        fs::write(&go, "").expect("a file");
        direct.report.wait_of(daemon.pid(), "started");
        assert_eq!(buffer(), 60_000, "the kernel doubles it");
        started.detach();
        // A version that fails harms nobody; the next one adjusts what it has taken over.
        let error = direct.start(&[&option(0)]).wait_error().text;
        let step =
            format!("started: cannot adjust tcp {address} (socket): `adjust` failed: as told");
        assert_eq!(error, step);
        assert_eq!(buffer(), 60_000);
        assert_eq!(http::pid(&address.into()), daemon.pid());
        let (mut started, new) = direct.start_ready(&[&option(40_000)]);
        assert_eq!(buffer(), 80_000);
        daemon.wait_end(LIMIT);
        assert_eq!(http::pid(&address.into()), new.pid());
        started.detach();
        // One that is bound is adjusted at once.
        let error = direct.start(&["--tcp=127.0.0.1:0,adjust=0"]).wait_error().text;
        assert!(error.starts_with("socket: cannot adjust tcp 127.0.0.1:"), "{error}");
    });
}

// ---- passed by others than systemd ----

/// Starts a probe as Einhorn does, from a process whose PID is told.
fn from_einhorn(
    direct: &Site,
    fds: &[BorrowedFd<'_>],
    variables: &str,
    options: &[&str],
) -> seamless_testing::site::Started {
    // The numbers are neither in order nor the first ones.
    start_with(direct, fds, &format!("export EINHORN_MASTER_PID=$PPID {variables}"), options)
}

#[test]
fn einhorn_passes_sockets() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let (web, dns) = (tcp.local_addr().unwrap(), udp.local_addr().unwrap());
        let passed: [OwnedFd; 2] = [to_pass(tcp), to_pass(udp)];
        let fds = passed.each_ref().map(AsFd::as_fd);
        let options = [format!("--udp={dns}"), format!("--tcp={web}")];
        let options = options.each_ref().map(String::as_str);
        let variables = "EINHORN_FD_COUNT=2 EINHORN_FD_0=4 EINHORN_FD_1=3";
        let mut started = from_einhorn(&direct, &fds, variables, &options);
        let daemon = started.wait_started();
        assert_eq!(origins(folder, &daemon), ["supervisor"; 2]);
        assert_eq!(http::pid(&web.into()), daemon.pid());
        started.detach();
        // The next one finds them again; and where there is no Einhorn any more, at the predecessor.
        let mut started = from_einhorn(&direct, &fds, variables, &options);
        let second = started.wait_started();
        assert_eq!(origins(folder, &second), ["supervisor"; 2]);
        daemon.wait_end(LIMIT);
        started.detach();
        let (_started, third) = direct.start_ready(&options);
        assert_eq!(origins(folder, &third), ["predecessor"; 2]);
        second.wait_end(LIMIT);
    });
}

#[test]
fn what_einhorn_has_passed_to_another_process_is_left_alone() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let passed = to_pass(tcp);
        let variables = "export EINHORN_MASTER_PID=1 EINHORN_FD_COUNT=1 EINHORN_FD_0=3";
        let started = start_with(&direct, &[passed.as_fd()], variables, &["--tcp=127.0.0.1:0"]);
        let daemon = started.wait_started();
        assert_eq!(origins(folder, &daemon), ["bound"]);
        let why = "refused=\"EINHORN_FD_COUNT=1 was meant for a child of process 1\"";
        direct.log.wait_words(&["stage=passed", why], 1);
    });
}

/// The number stands on the command line.
#[test]
fn circus_passes_sockets() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = tcp.local_addr().unwrap();
        let passed = to_pass(tcp);
        let fds = [passed.as_fd()];
        // Whatever the address that is asked for.
        let options = ["--tcp=127.0.0.1:0,fd=3"];
        let mut started = start_with(&direct, &fds, "", &options);
        let daemon = started.wait_started();
        assert_eq!(origins(folder, &daemon), ["supervisor"]);
        assert_eq!(http::pid(&address.into()), daemon.pid());
        started.detach();
        // Nothing is passed: the number is not open, or is this program's own.
        let (_started, second) = direct.start_ready(&options);
        assert_eq!(origins(folder, &second), ["predecessor"]);
        direct.log.wait_words(&["WARN", "stage=passed", "number=3", "refused="], 1);
        daemon.wait_end(LIMIT);
        assert_eq!(http::pid(&address.into()), second.pid());
    });
}

#[test]
fn a_socket_of_another_kind_that_circus_passes_is_refused() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let passed = to_pass(UdpSocket::bind("127.0.0.1:0").expect("a socket"));
        let option = ["--tcp=127.0.0.1:0,fd=3"];
        let error = start_with(&direct, &[passed.as_fd()], "", &option).wait_error().text;
        let words = "cannot use \"fd-3\" (socket): the supervisor passed a udp socket";
        assert!(error.contains(words), "{error}");
    });
}
