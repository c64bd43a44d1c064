//! What the service says at NOTIFY_SOCKET (`sd_notify(3)`), where the test listens in systemd's place.

use std::{
    fs,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    path::Path,
    sync::Mutex,
    time::Duration,
};

use seamless_testing::{
    LIMIT,
    boxed::{self, Boxed},
    http::{self, Connection, Target},
    process, scene,
    signal::TERM,
    site::Site,
    wait_for,
};

const INT: i32 = 2;

/// Listens at `notify` in a folder.
struct Ear {
    socket: UnixDatagram,
    heard: Mutex<Vec<String>>,
}

impl Ear {
    fn new(folder: &Path) -> Self {
        Ear::of(UnixDatagram::bind(folder.join("notify")).expect("a socket"))
    }

    fn of(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a limit");
        Ear { socket, heard: Mutex::default() }
    }

    /// All so far, a message a line.
    fn heard(&self) -> Vec<String> {
        let mut heard = self.heard.lock().expect("no panic");
        let mut bytes = [0; 4096];
        while let Ok(count) = self.socket.recv(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..count]);
            heard.push(text.trim_end().replace('\n', " "));
        }
        heard.clone()
    }

    fn count(&self, word: &str) -> usize {
        self.heard().iter().filter(|line| line.split(' ').any(|one| one == word)).count()
    }

    /// Waits until so many messages with this word have come.
    #[track_caller]
    fn wait(&self, word: &str, count: usize) {
        wait_for(format!("{count} of {word:?}: {:?}", self.heard()), LIMIT, || {
            (self.count(word) >= count).then_some(())
        });
    }
}

const EXTENDS: &str = "EXTEND_TIMEOUT_USEC=10000000";

/// The launcher speaks, or, where restarts are disabled, the process itself.
#[test]
fn p3_who_waits_is_told_what_for() {
    Boxed::new().private_net().run(|folder| {
        scene::each(folder, [true, false], |folder, has_launcher| {
            let ear = Ear::new(folder);
            let direct = Site::alone(folder);
            let target = Target::from(boxed::address());
            let (listen, gate) = (format!("--listen={target}"), folder.join("gate"));
            let gated = format!("--at=ready=file:{}", gate.display());
            let mut command = direct.command(&[&listen, &gated, "--drain-timeout=100s"]);
            command.env("NOTIFY_SOCKET", folder.join("notify")).env("WATCHDOG_USEC", "2000000");
            if !has_launcher {
                command.arg("--pid-file=");
            }
            let mut started = direct.spawn(&mut command);
            let launcher = started.launcher.pid();
            let daemon = direct.report.wait("init").pid;
            ear.wait("WATCHDOG=1", 2); // from the start, since systemd may count from there
            assert_eq!(ear.count("READY=1"), 0, "{:?}", ear.heard());
            fs::write(&gate, "").expect("the gate");
            ear.wait("READY=1", 1);
            if has_launcher {
                assert_eq!(ear.count(&format!("MAINPID={launcher}")), 1);
                // Nothing that the daemon starts can speak for the service.
                for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC"] {
                    assert!(process::variable(launcher, name).is_some());
                    assert_eq!(process::variable(daemon, name), None);
                }
            }
            direct.report.wait("started");
            assert_eq!((ear.count("STOPPING=1"), ear.count(EXTENDS)), (0, 0));
            // A drain that takes its time: systemd is asked for more, again and again.
            let request = Connection::unfinished(&target);
            assert_eq!(http::pid(&target), daemon);
            process::signal(daemon, if has_launcher { INT } else { TERM });
            // At once where there is a launcher to answer, then each 3 s.
            ear.wait(EXTENDS, if has_launcher { 3 } else { 2 });
            assert_eq!(ear.count("STOPPING=1"), usize::from(!has_launcher));
            assert_eq!(request.try_finish().expect("an answer").pid, Some(daemon));
            assert!(started.wait_end().success());
            assert_eq!(ear.count("READY=1"), 1);
        });
    });
}

/// It would say no before `started` and in the drain: the lock that it takes may be held there for long.
#[test]
fn p3_the_program_s_own_check_is_asked_only_while_it_serves() {
    Boxed::new().private_net().run(|folder| {
        scene::each(folder, [true, false], |folder, has_launcher| {
            let ear = Ear::new(folder);
            let direct = Site::alone(folder);
            let target = Target::from(boxed::address());
            let (gate, well) = (folder.join("gate"), folder.join("well"));
            let mut command = direct.command(&[
                &format!("--listen={target}"),
                &format!("--at=ready=file:{}", gate.display()),
                &format!("--watchdog={}", well.display()),
            ]);
            command.env("NOTIFY_SOCKET", folder.join("notify")).env("WATCHDOG_USEC", "1000000");
            command.args((!has_launcher).then_some("--pid-file="));
            let mut started = direct.spawn(&mut command);
            let daemon = direct.report.wait("init").pid;
            ear.wait("WATCHDOG=1", 4);
            let said_no = || direct.log.with(&["stage=watchdog", "it says no"]).len();
            assert_eq!(said_no(), 0, "{}", direct.log);
            fs::write(&gate, "").expect("the gate");
            direct.report.wait("started");
            direct.log.wait_words(&["stage=watchdog", "it says no"], 1);
            fs::write(&well, "").expect("a file");
            ear.wait("WATCHDOG=1", ear.count("WATCHDOG=1") + 2);
            let request = Connection::unfinished(&target);
            assert_eq!(http::pid(&target), daemon);
            process::signal(daemon, if has_launcher { INT } else { TERM });
            scene::wait_drain(&direct.report, daemon);
            let before = said_no();
            fs::remove_file(&well).expect("it is there");
            ear.wait("WATCHDOG=1", ear.count("WATCHDOG=1") + 4);
            assert_eq!(said_no(), before, "{}", direct.log);
            assert_eq!(request.try_finish().expect("an answer").pid, Some(daemon));
            started.wait_end();
        });
    });
}

/// A stop, a drain by hand, and one without a launcher: without a limit of the drain, none is asked for more.
#[test]
fn p6_a_stop_without_a_limit_of_its_own_is_limited_by_systemd() {
    Boxed::new().private_net().run(|folder| {
        scene::each(folder, [Some(TERM), Some(INT), None], |folder, how| {
            let ear = Ear::new(folder);
            let direct = Site::alone(folder);
            let target = Target::from(boxed::address());
            let listen = format!("--listen={target}");
            let mut command = direct.command(&[&listen, "--parent-restarts=no"]);
            command.env("NOTIFY_SOCKET", folder.join("notify")).env("WATCHDOG_USEC", "1000000");
            command.args(how.is_none().then_some("--pid-file="));
            let mut started = direct.spawn(&mut command);
            let daemon = direct.report.wait("started").pid;
            let request = Connection::unfinished(&target);
            assert_eq!(http::pid(&target), daemon);
            process::signal(started.launcher.pid(), how.unwrap_or(TERM));
            scene::wait_drain(&direct.report, daemon);
            // The drain goes on, and signs of life come: more would have been asked for twice.
            let signs = ear.count("WATCHDOG=1");
            ear.wait("WATCHDOG=1", signs + 10);
            let asked = |line: &String| line.contains("EXTEND_TIMEOUT_USEC");
            assert_eq!(ear.heard().iter().filter(|line| asked(line)).count(), 0);
            assert_eq!(request.try_finish().expect("an answer").pid, Some(daemon));
            started.wait_end();
        });
    });
}

/// Its own limits bound what it asks for: a drain by its drain_timeout, a handoff by its handoff_timeout.
#[test]
fn p6_more_time_is_asked_for_up_to_the_service_s_own_limit() {
    Boxed::new().private_net().run(|folder| {
        let cases = [
            ("--parent-restarts=no", "--drain-timeout=1s", 124),
            ("--at=request=hang", "--handoff-timeout=1s", 0),
        ];
        scene::each(folder, cases, |folder, (option, limit, code)| {
            let ear = Ear::new(folder);
            let direct = Site::alone(folder);
            let target = Target::from(boxed::address());
            let listen = format!("--listen={target}");
            let mut command = direct.command(&[&listen, option, limit]);
            command.env("NOTIFY_SOCKET", folder.join("notify"));
            let mut started = direct.spawn(&mut command);
            let daemon = direct.report.wait("started").pid;
            let _request = Connection::unfinished(&target);
            assert_eq!(http::pid(&target), daemon);
            process::signal(started.launcher.pid(), TERM);
            assert_eq!(started.wait_end().code(), Some(code));
            ear.wait(EXTENDS, 1);
            assert!(ear.count(EXTENDS) <= 2, "{:?}", ear.heard());
        });
    });
}

/// An abstract address, as the user's manager may have it.
#[test]
fn a_listener_at_an_abstract_address_is_told() {
    Boxed::new().private_net().run(|folder| {
        let address = SocketAddr::from_abstract_name("seamless-test/notify").expect("an address");
        let ear = Ear::of(UnixDatagram::bind_addr(&address).expect("a socket"));
        let direct = Site::alone(folder);
        let mut command = direct.command(&["--parent-restarts=no"]);
        command.env("NOTIFY_SOCKET", "@seamless-test/notify");
        let mut started = direct.spawn(&mut command);
        started.wait_started();
        ear.wait("READY=1", 1);
        started.launcher.signal(TERM);
        ear.wait("STOPPING=1", 1);
        assert!(started.wait_end().success());
    });
}

/// Nobody listens, or it is a kind of address that is unknown here: the service runs, and the log says so.
#[test]
fn a_listener_that_cannot_be_told_stops_nothing() {
    Boxed::new().private_net().run(|folder| {
        let cases = ["@nobody", "/nowhere/notify", "vsock:2:99999", "relative"];
        scene::each(folder, cases, |folder, address| {
            let direct = Site::alone(folder);
            let mut command = direct.command(&["--parent-restarts=no"]);
            command.env("NOTIFY_SOCKET", address);
            let mut started = direct.spawn(&mut command);
            started.wait_started();
            let named = format!("NOTIFY_SOCKET={address}: ");
            direct.log.wait_words(&["WARN", "stage=notify", &named], 1);
            started.launcher.signal(TERM);
            assert!(started.wait_end().success());
        });
    });
}

/// It listens, and reads nothing: its queue is full, and nobody waits for it for more than a second.
#[test]
fn a_listener_that_reads_nothing_stops_nothing() {
    Boxed::new().private_net().run(|folder| {
        let path = folder.join("notify");
        let ear = UnixDatagram::bind(&path).expect("a socket");
        let fills = UnixDatagram::unbound().expect("a socket");
        fills.set_nonblocking(true).expect("so");
        while fills.send_to(b"full", &path).is_ok() {}
        let direct = Site::alone(folder);
        let mut command = direct.command(&["--parent-restarts=no"]);
        command.env("NOTIFY_SOCKET", &path);
        let mut started = direct.spawn(&mut command);
        started.wait_started();
        let named = format!("NOTIFY_SOCKET={}: Resource temporarily unavailable", path.display());
        direct.log.wait_words(&["WARN", "stage=notify", &named], 1);
        started.launcher.signal(TERM);
        assert!(started.wait_end().success());
        drop(ear);
    });
}
