//! The server of the example, and clients of it.

use std::{
    fs::File,
    net::SocketAddr,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quinn::{Connection, Endpoint};
use seamless_quic::client;
use seamless_testing::{
    bin,
    boxed::{self, Boxed},
    log::Log,
    process::{NOBODY, Watched},
    wait_for,
};
use tokio::{runtime::Runtime, task::JoinHandle};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
const TERM: i32 = 15;

pub(crate) fn a_box() -> Boxed {
    Boxed::new().private_net_without_migration().limit(Duration::from_secs(240))
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

pub(crate) struct Service {
    folder: PathBuf,
    pub(crate) address: SocketAddr,
    options: Vec<String>,
    launcher: Option<Child>,
    /// The newest last.
    pub(crate) daemons: Vec<Watched>,
}

impl Service {
    pub(crate) fn new(folder: &Path) -> Service {
        if boxed::by_root() {
            chown(folder, Some(NOBODY), Some(NOBODY)).expect("chown");
        }
        let (folder, address) = (folder.to_owned(), boxed::address());
        Service { folder, address, options: Vec::new(), launcher: None, daemons: Vec::new() }
    }

    /// Of all generations from now on.
    pub(crate) fn option(mut self, option: &str) -> Service {
        self.options.push(option.to_owned());
        self
    }

    /// The next generation, once it serves; the one before is detached.
    #[track_caller]
    pub(crate) fn next(&mut self, members: usize) {
        if let Some(mut launcher) = self.launcher.take() {
            Watched::new(launcher.id()).signal(TERM);
            launcher.wait().expect("its end");
        }
        self.next_after_a_crash(members);
    }

    #[track_caller]
    pub(crate) fn next_after_a_crash(&mut self, members: usize) {
        let log = File::options().append(true).create(true).open(self.folder.join("log"));
        let mut command = Command::new(bin::support("quic"));
        command
            .arg(format!("--listen={}", self.address))
            .arg(format!("--pid-file={}", self.pid_file().display()))
            .arg(format!("--members={members}"))
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a log"));
        if boxed::by_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let before: Vec<u32> = self.daemons.iter().map(Watched::pid).collect();
        let started_before = self.log().with(&["stage=started"]).len();
        let mut launcher = command.spawn().expect("the server");
        let daemon = wait_for("a generation that serves", LIMIT, || {
            assert!(launcher.try_wait().expect("a child").is_none(), "{}", self.log().text());
            let lines = self.log().with(&["stage=started"]);
            let pids = lines.iter().skip(started_before).map(|line| line.number("daemon"));
            pids.into_iter().find(|pid| !before.contains(pid))
        });
        self.launcher = Some(launcher);
        self.daemons.push(Watched::new(daemon));
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.folder.join("web.pid")
    }

    pub(crate) fn log(&self) -> Log {
        Log::of(&self.folder)
    }

    #[track_caller]
    pub(crate) fn newest(&self) -> u32 {
        self.daemons.last().expect("one").pid()
    }

    /// Kills the newest generation, and its launcher ends.
    pub(crate) fn kill_newest(&mut self) {
        let newest = self.daemons.pop().expect("one");
        newest.kill();
        newest.wait_end(LIMIT);
        self.wait_launcher();
    }

    pub(crate) fn wait_launcher(&mut self) {
        if let Some(mut launcher) = self.launcher.take() {
            _ = launcher.wait();
        }
    }

    /// What the servers that have drained have counted.
    pub(crate) fn sum(&self, field: &str) -> u64 {
        let text = self.log().text();
        let numbers = text.split(field).skip(1).map(|rest| {
            rest.split(|byte: char| !byte.is_ascii_digit()).next().expect("a word").parse::<u64>()
        });
        numbers.map(|number| number.expect("a number")).sum()
    }

    /// Starts one more generation: the others have no connection any more, so they end. No packet has reached a
    /// process that it was not for.
    #[track_caller]
    pub(crate) fn assert_nothing_astray(&mut self) {
        let old = self.daemons.len();
        self.next(1);
        for old in &self.daemons[..old] {
            old.wait_end(LIMIT);
        }
        self.assert_counted(200);
    }

    /// Those that have drained have counted more packets than that, and none that was not for them.
    #[track_caller]
    pub(crate) fn assert_counted(&self, packets: u64) {
        assert!(self.sum(" packets=") > packets, "{}", self.log().text());
        assert_eq!(self.sum(" astray="), 0, "{}", self.log().text());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        for daemon in &self.daemons {
            daemon.kill();
        }
    }
}

/// Connections from one address.
pub(crate) struct Clients {
    pub(crate) runtime: Runtime,
    server: SocketAddr,
    endpoint: Endpoint,
}

impl Clients {
    pub(crate) fn new(server: SocketAddr) -> Clients {
        let runtime = runtime();
        let endpoint = runtime.block_on(async { client::endpoint(server) }).expect("an endpoint");
        Clients { runtime, server, endpoint }
    }

    /// New ones, of which each has got an answer.
    pub(crate) fn connections(&self, count: usize) -> Vec<Connection> {
        let connect = async || {
            let connection = self.endpoint.connect(self.server, "localhost").expect("an endpoint");
            let connection = connection.await.expect("a connection");
            client::stream(&connection, 100, Instant::now()).await.expect("an echo");
            connection
        };
        (0..count).map(|_| self.runtime.block_on(connect())).collect()
    }

    /// All of them answer, and by this process.
    #[track_caller]
    pub(crate) fn assert_reach(&self, connections: &[Connection], pid: u32) {
        for connection in connections {
            assert_eq!(self.process(connection), pid);
        }
    }

    /// Which process has this connection.
    #[track_caller]
    pub(crate) fn process(&self, connection: &Connection) -> u32 {
        match self.runtime.block_on(client::process(connection)) {
            Ok(pid) => pid,
            Err(error) => panic!("{}", client::chain(&*error)),
        }
    }

    /// All of them get another address.
    pub(crate) fn move_on(&self) {
        self.runtime.block_on(async {
            let socket = client::socket(self.server).expect("a socket");
            self.endpoint.rebind(socket).expect("another address");
        });
    }

    pub(crate) fn traffic(&self, connections: &[Connection]) -> Traffic {
        let over = Arc::new(AtomicBool::new(false));
        let flows = connections.iter().map(|connection| {
            let (connection, over) = (connection.clone(), Arc::clone(&over));
            let rounds = Arc::new(AtomicU64::new(0));
            let count = Arc::clone(&rounds);
            let task = self.runtime.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let echo = client::stream(&connection, 3000, Instant::now()).await;
                    echo.map_err(|error| client::chain(&*error))?;
                    count.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Ok(())
            });
            Flow { rounds, task }
        });
        let traffic = Traffic { flows: flows.collect(), over };
        traffic.wait_rounds();
        traffic
    }

    /// How each of the connections has ended.
    pub(crate) fn end(&self, traffic: Traffic) -> Vec<Result<(), String>> {
        traffic.over.store(true, Ordering::Relaxed);
        let tasks = traffic.flows.into_iter().map(|flow| flow.task);
        tasks.map(|task| self.runtime.block_on(task).expect("no panic")).collect()
    }

    /// More streams have got their answers, and none of the connections is broken.
    #[track_caller]
    pub(crate) fn end_well(&self, traffic: Traffic) {
        traffic.wait_rounds();
        for end in self.end(traffic) {
            assert_eq!(end, Ok(()));
        }
    }

    pub(crate) fn close(&self, connections: Vec<Connection>) {
        for connection in connections {
            connection.close(0_u8.into(), b"enough");
        }
    }
}

/// Streams on each of some connections, one after the other.
pub(crate) struct Traffic {
    flows: Vec<Flow>,
    over: Arc<AtomicBool>,
}

struct Flow {
    rounds: Arc<AtomicU64>,
    task: JoinHandle<Result<(), String>>,
}

impl Traffic {
    /// Waits until each connection that is not broken has got more answers.
    #[track_caller]
    pub(crate) fn wait_rounds(&self) {
        let count = |flow: &Flow| flow.rounds.load(Ordering::Relaxed);
        let begun: Vec<u64> = self.flows.iter().map(count).collect();
        wait_for("more answers", LIMIT, || {
            let mut flows = self.flows.iter().zip(&begun);
            let goes_on =
                |(flow, begun): (&Flow, &u64)| count(flow) > begun + 5 || flow.task.is_finished();
            flows.all(goes_on).then_some(())
        });
    }

    /// Waits until all of the connections are broken.
    #[track_caller]
    pub(crate) fn wait_broken(&self) {
        wait_for("the end of the connections", LIMIT, || {
            self.flows.iter().all(|flow| flow.task.is_finished()).then_some(())
        });
    }
}
