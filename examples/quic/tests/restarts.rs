//! QUIC connections stay with their process (P14), by quinn on both sides.

use std::{
    fs::File,
    net::SocketAddr,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use quinn::{Connection, ConnectionError, Endpoint};
use seamless_quic::client::{self, Failure, Settings};
use seamless_testing::{
    bin,
    boxed::{self, Boxed},
    log::Log,
    process::{NOBODY, Watched},
    wait_for,
};

const LIMIT: Duration = Duration::from_secs(60);
const TERM: i32 = 15;

struct Service {
    folder: PathBuf,
    address: SocketAddr,
    launcher: Option<Child>,
    daemons: Vec<Watched>,
}

impl Service {
    fn new(folder: &Path) -> Service {
        if boxed::by_root() {
            chown(folder, Some(NOBODY), Some(NOBODY)).expect("chown");
        }
        let (folder, address) = (folder.to_owned(), boxed::address());
        Service { folder, address, launcher: None, daemons: Vec::new() }
    }

    /// The next generation, once it serves; the one before is detached.
    #[track_caller]
    fn next(&mut self, members: usize) {
        if let Some(mut launcher) = self.launcher.take() {
            Watched::new(launcher.id()).signal(TERM);
            launcher.wait().expect("its end");
        }
        self.next_after_a_crash(members);
    }

    #[track_caller]
    fn next_after_a_crash(&mut self, members: usize) {
        let log = File::options().append(true).create(true).open(self.folder.join("log"));
        let mut command = Command::new(bin::support("quic"));
        command
            .arg(format!("--listen={}", self.address))
            .arg(format!("--pid-file={}", self.folder.join("web.pid").display()))
            .arg(format!("--members={members}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a log"));
        if boxed::by_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let before: Vec<u32> = self.daemons.iter().map(Watched::pid).collect();
        let mut launcher = command.spawn().expect("the server");
        let daemon = wait_for("a generation that serves", LIMIT, || {
            assert!(launcher.try_wait().expect("a child").is_none(), "{}", self.log().text());
            let lines = self.log().with(&["stage=started"]);
            let pids = lines.iter().map(|line| line.number("daemon"));
            pids.into_iter().find(|pid| !before.contains(pid))
        });
        self.launcher = Some(launcher);
        self.daemons.push(Watched::new(daemon));
    }

    fn log(&self) -> Log {
        Log::of(&self.folder)
    }

    /// Kills the newest generation, and its launcher ends.
    fn kill_newest(&mut self) {
        let newest = self.daemons.pop().expect("one");
        newest.kill();
        newest.wait_end(LIMIT);
        if let Some(mut launcher) = self.launcher.take() {
            _ = launcher.wait();
        }
    }

    /// What the servers that have drained have counted.
    fn sum(&self, field: &str) -> u64 {
        let text = self.log().text();
        let numbers = text.split(field).skip(1).map(|rest| {
            rest.split(|byte: char| !byte.is_ascii_digit()).next().expect("a word").parse::<u64>()
        });
        numbers.map(|number| number.expect("a number")).sum()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        for daemon in &self.daemons {
            daemon.kill();
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

fn a_box() -> Boxed {
    Boxed::new().private_net_without_migration().limit(Duration::from_secs(240))
}

/// Clients whose addresses change, groups that grow and shrink, and several generations that drain.
#[test]
fn p14_restarts_break_no_connection_and_send_no_packet_astray() {
    a_box().run(|folder| {
        let mut service = Service::new(folder);
        service.next(2);
        let settings = Settings {
            server: service.address,
            connections: 60,
            lifetime: Duration::from_secs(3),
            migrate: Some(Duration::from_millis(300)),
            time: Duration::from_secs(12),
            ..Settings::default()
        };
        let clients = std::thread::spawn(move || runtime().block_on(client::run(&settings)));
        for members in [3, 1, 4, 2, 2, 3] {
            // As an operator who is in a hurry; what is tested does not depend on it.
            std::thread::sleep(Duration::from_millis(1200));
            service.next(members);
        }
        let table = clients.join().expect("no panic").expect("clients");
        println!("{table}");
        assert_eq!(table.broken(), 0, "{table}");
        assert!(table.streams > 500 && table.migrations > 20, "{table}");
        // All connections are closed, so all but the newest have drained.
        for old in &service.daemons[..6] {
            old.wait_end(LIMIT);
        }
        assert!(service.sum(" packets=") > 2000);
        assert_eq!(service.sum(" astray="), 0, "{}", service.log().text());
    });
}

async fn connections(endpoint: &Endpoint, server: SocketAddr) -> Vec<Connection> {
    let mut all = Vec::new();
    for _ in 0..10 {
        let connection = endpoint.connect(server, "localhost").expect("an endpoint").await;
        all.push(connection.expect("a connection"));
        client::stream(all.last().expect("one"), 100, Instant::now()).await.expect("an echo");
    }
    all
}

async fn echoes(connections: &[Connection]) -> Vec<Result<(), Failure>> {
    let mut all = Vec::new();
    for one in connections {
        all.push(client::stream(one, 5000, Instant::now()).await);
    }
    all
}

/// The newest generation dies: its connections are reset as soon as there is a successor, and those of an
/// older one go on, whatever their addresses.
#[test]
fn p14_a_crash_ends_the_connections_of_its_own_generation_alone() {
    a_box().run(|folder| {
        let mut service = Service::new(folder);
        service.next(2);
        let runtime = runtime();
        let endpoint = runtime.block_on(async { client::endpoint(service.address) }).expect("one");
        let old = runtime.block_on(connections(&endpoint, service.address));
        service.next(3);
        let new = runtime.block_on(connections(&endpoint, service.address));
        service.kill_newest();
        let all_well = |connections: &[Connection]| {
            for echo in runtime.block_on(echoes(connections)) {
                if let Err(error) = echo {
                    panic!("{}", client::chain(&*error));
                }
            }
        };
        all_well(&old);
        service.next_after_a_crash(2);
        all_well(&old);
        let began = Instant::now();
        for echo in runtime.block_on(echoes(&new)) {
            let error = client::chain(&*echo.expect_err("its process is gone"));
            assert!(error.contains("reset by peer"), "{error}");
        }
        assert!(began.elapsed() < Duration::from_secs(8), "before the clients' own limit of 10 s");
        assert!(matches!(new[0].close_reason(), Some(ConnectionError::Reset)));
        let fresh = runtime.block_on(connections(&endpoint, service.address));
        let moved = runtime.block_on(async { client::socket(service.address) }).expect("a socket");
        runtime.block_on(async { endpoint.rebind(moved) }).expect("another address");
        all_well(&old);
        all_well(&fresh);
        // The oldest one dies as well.
        let first = service.daemons.remove(0);
        first.kill();
        first.wait_end(LIMIT);
        all_well(&fresh);
        service.next(2);
        all_well(&fresh);
    });
}
