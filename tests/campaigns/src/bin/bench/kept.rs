//! What `--passing` and `--storm` share: the test service `web`, restarted by hand, and clients that keep their
//! connections.

use std::{
    error::Error,
    ffi::OsString,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use seamless::client::Service;
use seamless_campaigns::{deploy::Server, load::Target};
use seamless_testing::{
    bin,
    process::{self, Watched},
};
use signal_hook::consts::SIGTERM;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::sleep,
};

use crate::{Bench, table};

/// How long a step may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Of a process: what it has open besides connections.
const OTHERS: u64 = 200;

/// So many of these connections may be open, after the limit of open files was raised for this process and for
/// what it starts.
pub(crate) fn allowed(connections: usize) -> usize {
    let needed = connections as u64 + OTHERS;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    let limits = [needed.max(hard), hard];
    let may = |limit: &u64| setrlimit(Resource::RLIMIT_NOFILE, *limit, *limit).is_ok();
    let files = limits.into_iter().find(may).unwrap_or(soft);
    if files < needed {
        table::print(&format!("as many connections as {files} open files allow"));
    }
    connections.min(files.saturating_sub(OTHERS) as usize)
}

// ---- the service ----

pub(crate) struct Site {
    pub(crate) folder: PathBuf,
    server: Server,
    launcher: Child,
}

/// When the steps of a restart were done.
pub(crate) struct Restart {
    /// The TERM to the launcher.
    pub(crate) told: Instant,
    /// The PID file names the successor, which sends its TERM then.
    pub(crate) taken_over: Instant,
    /// The old daemon has ended.
    pub(crate) ended: Instant,
}

impl Site {
    pub(crate) fn start(bench: &Bench, options: &str) -> Result<Site, Box<dyn Error>> {
        let folder = bench.folder("kept")?;
        Site::start_in(folder, bench.port.address(), options)
    }

    pub(crate) fn start_in(
        folder: PathBuf,
        address: SocketAddr,
        options: &str,
    ) -> Result<Site, Box<dyn Error>> {
        let mut args = vec![OsString::from("--pid-file"), folder.join("web.pid").into()];
        args.extend(["--listen".into(), address.to_string().into()]);
        args.extend(options.split_ascii_whitespace().map(OsString::from));
        let server = Server::new(bin::support("web"), args, Target::Tcp(address), &folder);
        let launcher = command(&server)?.spawn()?;
        let site = Site { folder, server, launcher };
        site.wait("it listens", || site.server.listens().then_some(()))?;
        Ok(site)
    }

    pub(crate) fn daemon(&self) -> Option<u32> {
        fs::read_to_string(self.folder.join("web.pid")).ok()?.trim().parse().ok()
    }

    /// Hands off and starts the successor; does not wait for the end of the old one.
    pub(crate) fn hand_over(&mut self) -> Result<(Watched, Instant, Instant), Box<dyn Error>> {
        let old = self.daemon().ok_or("no PID file")?;
        let watched = Watched::new(old);
        let told = Instant::now();
        Watched::new(self.launcher.id()).signal(SIGTERM);
        self.launcher.wait()?;
        self.launcher = command(&self.server)?.spawn()?;
        self.wait("the successor", || self.daemon().filter(|pid| *pid != old))?;
        Ok((watched, told, Instant::now()))
    }

    pub(crate) fn restart(&mut self, bench: &Bench) -> Result<Restart, Box<dyn Error>> {
        let (old, told, taken_over) = self.hand_over()?;
        if !old.ends_within(LIMIT) {
            return Err(format!("the old daemon stays\n{}", self.server.last_lines(20)).into());
        }
        let ended = Instant::now();
        bench.family.reap(old.pid());
        Ok(Restart { told, taken_over, ended })
    }

    /// The newest daemon was killed, and its launcher has ended as it did.
    pub(crate) fn start_again(&mut self, dead: u32) -> Result<(), Box<dyn Error>> {
        self.launcher.wait()?;
        self.launcher = command(&self.server)?.spawn()?;
        self.wait("the next one", || self.daemon().filter(|pid| *pid != dead))?;
        Ok(())
    }

    /// What all generations have counted together.
    pub(crate) fn counter(&self, name: &str) -> Result<u64, Box<dyn Error>> {
        let service = Service::at(self.folder.join("web.pid"))?;
        let (_, counters) = service.counters(LIMIT);
        let counters = counters.map_err(|_| "no counters")?;
        let counter = counters.into_iter().find(|one| one.name == name);
        Ok(counter.ok_or("no such counter")?.value)
    }

    pub(crate) fn wait<T>(
        &self,
        what: &str,
        fact: impl Fn() -> Option<T>,
    ) -> Result<T, Box<dyn Error>> {
        Ok(self.server.wait(what, fact)?)
    }

    pub(crate) fn last_lines(&self) -> String {
        self.server.last_lines(40)
    }

    /// What the daemon has open, by kind; nothing of its clients'.
    pub(crate) fn open(&self) -> Vec<String> {
        let all = process::descriptors(self.daemon().unwrap_or_default());
        let kind = |what: &Path| what.to_string_lossy().split(":[").next().unwrap_or("").to_owned();
        let mut kinds: Vec<String> = all.iter().map(|(_, what)| kind(what)).collect();
        kinds.sort();
        kinds
    }

    /// Processor time of the daemon so far.
    pub(crate) fn processor_time(&self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.daemon()?)).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
    }

    pub(crate) fn end(mut self, bench: &Bench) -> Result<(), Box<dyn Error>> {
        let daemon = self.daemon().map(Watched::new);
        Watched::new(self.launcher.id()).signal(SIGTERM);
        self.launcher.wait()?;
        if let Some(daemon) = daemon {
            daemon.signal(SIGTERM);
            if !daemon.ends_within(LIMIT) {
                daemon.signal(signal_hook::consts::SIGKILL);
            }
        }
        bench.family.end_all()?;
        Ok(())
    }
}

fn command(server: &Server) -> io::Result<Command> {
    let mut command = server.command()?;
    command.env("RUST_LOG", "seamless=info");
    Ok(command)
}

// ---- clients ----

/// What a client does between two requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// It has asked once, and is silent. If its connection is closed, it makes another one if this says so.
    Idle { comes_back: bool },
    /// It asks, and waits for a time between these.
    Between(Duration, Duration),
    /// As often around each of these.
    Around(&'static [Duration]),
}

impl Pace {
    fn pause(self) -> Duration {
        match self {
            Pace::Idle { .. } => Duration::ZERO,
            Pace::Between(from, to) => from + (to - from).mul_f64(fastrand::f64()),
            Pace::Around(times) => {
                let time = times[fastrand::usize(..times.len())];
                time.mul_f64(0.9 + 0.2 * fastrand::f64())
            }
        }
    }
}

/// One request: when it began, and how long it took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) begin: Instant,
    pub(crate) took: Duration,
}

impl Asked {
    pub(crate) fn meets(&self, from: Instant, to: Instant) -> bool {
        self.begin <= to && self.begin + self.took >= from
    }

    pub(crate) fn is_within(&self, from: Instant, to: Instant) -> bool {
        self.begin >= from && self.begin + self.took <= to
    }
}

#[derive(Default)]
struct Seen {
    answered: u64,
    asked: Vec<(usize, Asked)>,
    closed: Vec<Instant>,
    failed: Vec<String>,
}

struct Shared {
    address: SocketAddr,
    /// A client whose request has failed goes on, with a new connection and the next request.
    goes_on: bool,
    stopping: AtomicBool,
    connected: AtomicUsize,
    seen: Mutex<Seen>,
}

/// Clients that never retry, each with one connection.
pub(crate) struct Clients {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What came of them.
pub(crate) struct Report {
    /// All of them, the first of each connection included.
    pub(crate) answered: u64,
    /// Each request, with the number of its client.
    pub(crate) asked: Vec<(usize, Asked)>,
    /// When connections were closed that nobody used at the moment.
    pub(crate) closed: Vec<Instant>,
    pub(crate) failed: Vec<String>,
}

const GET: &str = "GET / HTTP/1.1\r\nHost: bench\r\n\r\n";
/// So many connect at a time.
const AT_ONCE: usize = 64;

impl Clients {
    /// Returns when all are connected and have been answered once.
    pub(crate) fn start(
        address: SocketAddr,
        count: usize,
        pace: Pace,
    ) -> Result<Clients, Box<dyn Error>> {
        Clients::begin(address, count, pace, false)
    }

    /// The same, and they go on after a failure, without asking again what has failed.
    pub(crate) fn start_again(
        address: SocketAddr,
        count: usize,
        pace: Pace,
    ) -> Result<Clients, Box<dyn Error>> {
        Clients::begin(address, count, pace, true)
    }

    fn begin(
        address: SocketAddr,
        count: usize,
        pace: Pace,
        goes_on: bool,
    ) -> Result<Clients, Box<dyn Error>> {
        let shared = Arc::new(Shared {
            address,
            goes_on,
            stopping: AtomicBool::new(false),
            connected: AtomicUsize::new(0),
            seen: Mutex::default(),
        });
        let theirs = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let mut clients = JoinSet::new();
                let gate = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
                for number in 0..count {
                    clients.spawn(client(theirs.clone(), number, pace, gate.clone()));
                }
                while clients.join_next().await.is_some() {}
            });
        });
        let clients = Clients { shared, thread: Some(thread) };
        let began = Instant::now();
        while clients.shared.connected.load(Ordering::Relaxed) < count {
            let failed = clients.seen().failed.first().cloned();
            if let Some(why) = failed.or_else(|| (began.elapsed() > LIMIT).then(|| "late".into())) {
                return Err(format!("the clients cannot connect: {why}").into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(clients)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.shared.seen()
    }

    /// How many connections were closed so far that nobody used.
    pub(crate) fn closed(&self) -> usize {
        self.seen().closed.len()
    }

    /// How many requests have failed so far.
    pub(crate) fn failed(&self) -> usize {
        self.seen().failed.len()
    }

    /// Silent clients ask once more.
    pub(crate) fn stop(mut self) -> Report {
        self.shared.stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
        let mut seen = self.seen();
        let mut report = Report {
            answered: seen.answered,
            asked: std::mem::take(&mut seen.asked),
            closed: std::mem::take(&mut seen.closed),
            failed: std::mem::take(&mut seen.failed),
        };
        report.asked.sort_by_key(|(_, one)| one.begin);
        report
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
    }
}

async fn client(shared: Arc<Shared>, number: usize, pace: Pace, gate: Arc<tokio::sync::Semaphore>) {
    let mut turn = number;
    let mut is_first = true;
    loop {
        let gone = one_connection(&shared, number, pace, &gate, &mut turn, &mut is_first).await;
        let Err(error) = gone else { return };
        shared.seen().failed.push(format!("client {number}: {error}"));
        if !shared.goes_on && !matches!(pace, Pace::Idle { comes_back: true })
            || shared.stopping.load(Ordering::Relaxed)
        {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no panic")
    }
}

/// Until all is over. A silent client comes back by itself.
async fn one_connection(
    shared: &Shared,
    number: usize,
    pace: Pace,
    gate: &tokio::sync::Semaphore,
    turn: &mut usize,
    is_first: &mut bool,
) -> io::Result<()> {
    let connecting = if *is_first { gate.acquire().await.ok() } else { None };
    let mut stream = connect(shared.address, number).await?;
    ask(&mut stream, None).await?;
    shared.seen().answered += 1;
    drop(connecting);
    if std::mem::take(is_first) {
        shared.connected.fetch_add(1, Ordering::Relaxed);
    }
    loop {
        match pace {
            Pace::Idle { comes_back } => {
                let closed = tokio::select! {
                    _ = stream.readable() => true,
                    () = until_stopping(shared) => false,
                };
                if closed {
                    shared.seen().closed.push(Instant::now());
                    if !comes_back {
                        return Ok(());
                    }
                    drop(stream);
                    stream = connect(shared.address, number).await?;
                    ask(&mut stream, None).await?;
                    shared.seen().answered += 1;
                    continue;
                }
            }
            _ => {
                let pause = pace.pause();
                tokio::select! {
                    () = sleep(pause) => {}
                    () = until_stopping(shared), if pause > Duration::from_millis(50) => {}
                }
            }
        }
        let stopping = shared.stopping.load(Ordering::Relaxed);
        let begin = Instant::now();
        *turn += 1;
        let length = (*turn % 3 == 0).then_some(*turn % 700 + 1);
        ask(&mut stream, length).await?;
        let took = begin.elapsed();
        let mut seen = shared.seen();
        seen.answered += 1;
        seen.asked.push((number, Asked { begin, took }));
        if stopping {
            return Ok(());
        }
    }
}

async fn until_stopping(shared: &Shared) {
    while !shared.stopping.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(250)).await;
    }
}

/// From one of several addresses: of each there are 28,000 ports.
async fn connect(to: SocketAddr, number: usize) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let from = Ipv4Addr::new(127, 0, 0, 2 + (number % 16) as u8);
    socket.bind((from, 0).into())?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// With a body of this length, which the answer tells. The whole answer comes, with 200 and a length, and nothing
/// behind it.
async fn ask(stream: &mut TcpStream, length: Option<usize>) -> io::Result<()> {
    let request = match length {
        None => GET.to_owned(),
        Some(length) => {
            let head = "POST /upload HTTP/1.1\r\nHost: bench\r\nContent-Length:";
            format!("{head} {length}\r\n\r\n{}", "x".repeat(length))
        }
    };
    stream.write_all(request.as_bytes()).await?;
    let (mut bytes, mut piece) = (Vec::new(), [0; 1024]);
    loop {
        let read = stream.read(&mut piece).await?;
        if read == 0 {
            return Err(io::Error::other("closed without an answer"));
        }
        bytes.extend_from_slice(&piece[..read]);
        let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        if !head.starts_with("http/1.1 200 ") {
            return Err(io::Error::other(head));
        }
        if head.contains("\r\nconnection: close") {
            return Err(io::Error::other("it says close"));
        }
        let size = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let Some(size) = size.and_then(|size| size.trim().parse::<usize>().ok()) else {
            return Err(io::Error::other("no length"));
        };
        let body = &bytes[end + 4..];
        if body.len() < size {
            continue;
        }
        let begins = length.map_or("Server pid: ".to_owned(), |length| format!("{length} bytes\n"));
        return match body.len() == size && body.starts_with(begins.as_bytes()) {
            true => Ok(()),
            false => Err(io::Error::other("a wrong answer")),
        };
    }
}
