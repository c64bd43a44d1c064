//! Load: clients that ask for the PID of the server, and a report of what became of every request.
//!
//! - closed loop, the default: a client sends its next request when the last one has ended, so that
//!   a server that stalls is asked less. For full load.
//! - open loop ([`Load::rate`]): requests begin at a fixed rate, whether or not earlier ones have
//!   been answered, and latency counts from when each was due. For latencies below full load.
//!
//! By default each request has a connection of its own (`Connection: close`), which is what a restart
//! endangers most: a connection is lost if its listener goes away between SYN and `accept`.
//! [`Load::datagrams`] asks by UDP: a request without its answer is lost.
//!
//! The clients are spread over a few threads, each with a runtime of its own, so that several
//! hundred of them load two cores and leave the server its share. What was counted stays with the
//! thread that counted it; a report adds up.
//!
//! # Local ports
//! One connection a request uses up 28,000 local ports in seconds: each ends in TIME_WAIT, for a
//! minute, at whichever side closed first. Closing with SO_LINGER 0 would leave none, but sends the
//! server a reset. So each connection to a loopback address leaves from the next of 250 loopback
//! source addresses, which gives seven million pairs of address and port; the kernel picks the port
//! only at the connect (IP_BIND_ADDRESS_NO_PORT) and may then reuse one in TIME_WAIT as well.
//! Where a port is missing all the same, that is a failure of its own kind.

mod report;
mod request;

pub use report::{Answers, Failed, Failure, Latency, Origin, Record, Report, Split};
pub use seamless_testing::http::Target;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use report::Stats;
use request::{Connection, Server};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};

/// How long a client rests after a failure: a server that is gone refuses at once, and a million
/// refusals a second say no more than a thousand.
const REST_AFTER_FAILURE: Duration = Duration::from_millis(1);

/// How soon an open loop without a request to send sees that it is to stop.
const LONGEST_SLEEP: Duration = Duration::from_millis(10);

/// What load to make.
#[derive(Debug, Clone)]
pub struct Load {
    server: Server,
    clients: usize,
    threads: usize,
    path: String,
    upload: Option<usize>,
    timeout: Duration,
    keep_alive: bool,
    every: Option<Duration>,
    rate: Option<u32>,
    keep_records: bool,
}

impl Load {
    /// 32 clients on two threads, one connection a request, 10 s for each.
    pub fn new(target: Target) -> Self {
        Self::to(Server::Http(target))
    }

    /// Datagrams instead of HTTP, each with a number of its own and from a socket of its own, to a
    /// server that sends each back after a line `Server pid: N`. None is sent twice: one without an
    /// answer within the timeout has failed. Otherwise as [`new`](Self::new).
    pub fn datagrams(address: SocketAddr) -> Self {
        Self::to(Server::Udp(address))
    }

    fn to(server: Server) -> Self {
        Load {
            server,
            clients: 32,
            threads: 2,
            path: "/".to_owned(),
            upload: None,
            timeout: Duration::from_secs(10),
            keep_alive: false,
            every: None,
            rate: None,
            keep_records: false,
        }
    }

    /// The number of clients, each with one request at a time.
    #[must_use]
    pub fn clients(mut self, clients: usize) -> Self {
        self.clients = clients;
        self
    }

    /// The number of threads that the clients share.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// The path to ask for, with its query.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Sends a body of so many bytes (POST), each time on a new connection: such a request may not be
    /// sent again.
    #[must_use]
    pub fn upload(mut self, bytes: usize) -> Self {
        self.upload = Some(bytes);
        self
    }

    /// How long a request may take, from its begin to the last byte of the answer.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Keeps the connection for the next request. A request is sent again, once and on a new
    /// connection, only where HTTP allows it (RFC 9112, section 9.3.1): it is idempotent, as each
    /// GET is, and the connection had been used before and ended without a byte of an answer. With
    /// [`rate`](Self::rate), a request takes the idle connection that was used last, or a new one.
    #[must_use]
    pub fn keep_alive(mut self) -> Self {
        self.keep_alive = true;
        self
    }

    /// Paces each client: one request every `period`, or as soon after that as the last one has
    /// ended. The latency counts from when the request was due, so that a stall shows in all the
    /// requests that it held up. Without it a client never waits.
    #[must_use]
    pub fn every(mut self, period: Duration) -> Self {
        self.every = Some(period);
        self
    }

    /// An open loop: so many requests a second begin, evenly spread over the threads and over time,
    /// however many are still unanswered; the number of clients is of no account. The latency
    /// counts from when a request was due, and [`Report::late`] tells how late the generator itself
    /// sent it.
    ///
    /// # Panics
    /// Where the rate is 0.
    #[must_use]
    pub fn rate(mut self, per_second: u32) -> Self {
        assert!(per_second > 0, "a rate of 0");
        self.rate = Some(per_second);
        self
    }

    /// Keeps a [`Record`] of each request, not of the failed ones alone: 32 bytes a request.
    #[must_use]
    pub fn keep_records(mut self) -> Self {
        self.keep_records = true;
        self
    }

    /// Starts the clients.
    ///
    /// # Panics
    /// Where a thread or its runtime cannot be had.
    pub fn start(self) -> Running {
        let host = match &self.server {
            Server::Http(Target::Tcp(address)) | Server::Udp(address) => address.to_string(),
            Server::Http(Target::Unix(_)) => "localhost".to_owned(),
        };
        assert!(!(self.keep_alive && self.upload.is_some()), "an upload has its own connection");
        let connection = if self.keep_alive { "keep-alive" } else { "close" };
        let common =
            format!("{} HTTP/1.1\r\nHost: {host}\r\nConnection: {connection}\r\n", self.path);
        let request = match self.upload {
            None => format!("GET {common}\r\n"),
            Some(bytes) => {
                format!("POST {common}Content-Length: {bytes}\r\n\r\n{}", "x".repeat(bytes))
            }
        };
        let most = if self.rate.is_some() { self.threads } else { self.clients };
        let threads = self.threads.clamp(1, most.max(1));
        let shared = Arc::new(Shared {
            start: Instant::now(),
            request: request.into_bytes(),
            stats: (0..threads).map(|_| Mutex::new(Stats::new())).collect(),
            marks: Marks::default(),
            idle: (0..threads).map(|_| Mutex::new(Vec::new())).collect(),
            stopping: AtomicBool::new(false),
            cut: (0..threads).map(|_| Notify::new()).collect(),
            pids: Mutex::new(Vec::new()),
            news: Condvar::new(),
            load: self,
        });
        let spawn = |name: String, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name).spawn(work).expect("a thread for the load")
        };
        let (mut pace, mut running) = (Vec::new(), Vec::new());
        for thread in 0..threads {
            let (sender, turns) = mpsc::unbounded_channel();
            pace.push(sender);
            let shared = Arc::clone(&shared);
            running
                .push(spawn(format!("load-{thread}"), Box::new(move || shared.run(thread, turns))));
        }
        if let Some(rate) = shared.load.rate {
            let shared = Arc::clone(&shared);
            running.push(spawn("load-pace".to_owned(), Box::new(move || shared.pace(rate, &pace))));
        }
        Running { shared, threads: running }
    }
}

/// What the threads of the clients and their owner share.
struct Shared {
    load: Load,
    start: Instant,
    request: Vec<u8>,
    stats: Vec<Mutex<Stats>>,
    marks: Marks,
    /// Connections to be used again, where no client keeps one of its own.
    idle: Vec<Mutex<Vec<Connection>>>,
    stopping: AtomicBool,
    cut: Vec<Notify>,
    pids: Mutex<Vec<u32>>,
    news: Condvar,
}

/// A request of an open loop.
struct Turn {
    number: usize,
    due: Instant,
}

/// The restarts that were marked.
#[derive(Default)]
struct Marks {
    /// Odd while a restart is under way.
    count: AtomicU64,
    /// When the last one was over, in nanoseconds from the start.
    over: AtomicU64,
}

impl Marks {
    fn begin(&self) {
        let count = self.count.fetch_add(1, Ordering::AcqRel);
        assert!(count % 2 == 0, "a restart is marked already");
    }

    fn end(&self, now: Duration) {
        self.over.store(now.as_nanos() as u64, Ordering::Release);
        let count = self.count.fetch_add(1, Ordering::AcqRel);
        assert!(count % 2 == 1, "no restart is marked");
    }

    /// Some part of the time from `begin` to this moment fell within a restart.
    fn touch_since(&self, begin: Duration) -> bool {
        match self.count.load(Ordering::Acquire) {
            0 => false,
            count if count % 2 == 1 => true,
            _ => self.over.load(Ordering::Acquire) >= begin.as_nanos() as u64,
        }
    }
}

/// A panic of a client must not hide behind a poisoned lock: counts stay readable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Shared {
    /// Tells the threads in turn when a request is due. A thread of its own does that: a runtime's
    /// timers count in milliseconds, and each latency would show it.
    fn pace(&self, rate: u32, threads: &[mpsc::UnboundedSender<Turn>]) {
        for (number, thread) in threads.iter().cycle().enumerate() {
            let due = self.start + Duration::from_secs_f64(number as f64 / f64::from(rate));
            loop {
                if self.stopping.load(Ordering::Relaxed) {
                    return;
                }
                let left = due.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                std::thread::sleep(left.min(LONGEST_SLEEP));
            }
            // Fails where the thread was cut off.
            let _ = thread.send(Turn { number, due });
        }
    }

    fn run(self: Arc<Self>, thread: usize, turns: mpsc::UnboundedReceiver<Turn>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime for the load");
        runtime.block_on(async {
            let work = async {
                match self.load.rate {
                    Some(_) => self.open_loop(thread, turns).await,
                    None => self.closed_loops(thread).await,
                }
            };
            tokio::select! {
                biased;
                () = self.cut[thread].notified() => {}
                () = work => {}
            }
        });
    }

    async fn closed_loops(self: &Arc<Self>, thread: usize) {
        let mut clients = JoinSet::new();
        for client in (thread..self.load.clients).step_by(self.stats.len()) {
            clients.spawn(Arc::clone(self).client(thread, client));
        }
        while let Some(ended) = clients.join_next().await {
            ended.expect("a client panicked");
        }
    }

    async fn client(self: Arc<Self>, thread: usize, client: usize) {
        let mut kept: Option<Connection> = None;
        let mut due = Instant::now();
        let mut turn = client;
        while !self.stopping.load(Ordering::Relaxed) {
            let begin = match self.load.every {
                None => Instant::now(),
                Some(period) => {
                    tokio::time::sleep_until(due.into()).await;
                    if self.stopping.load(Ordering::Relaxed) {
                        break;
                    }
                    due += period;
                    due - period
                }
            };
            let outcome = self.request(thread, turn, begin, &mut kept).await;
            if outcome.is_err() {
                tokio::time::sleep(REST_AFTER_FAILURE).await;
            }
            turn += self.load.clients;
        }
    }

    async fn open_loop(self: &Arc<Self>, thread: usize, mut turns: mpsc::UnboundedReceiver<Turn>) {
        let mut requests = JoinSet::new();
        while let Some(turn) = turns.recv().await {
            requests.spawn(Arc::clone(self).request_at(thread, turn));
            while let Some(ended) = requests.try_join_next() {
                ended.expect("a request panicked");
            }
        }
        while let Some(ended) = requests.join_next().await {
            ended.expect("a request panicked");
        }
    }

    async fn request_at(self: Arc<Self>, thread: usize, turn: Turn) {
        lock(&self.stats[thread]).late(turn.due.elapsed());
        let mut kept = lock(&self.idle[thread]).pop();
        let _ = self.request(thread, turn.number, turn.due, &mut kept).await;
        lock(&self.idle[thread]).extend(kept);
    }

    /// One request, counted.
    async fn request(
        &self,
        thread: usize,
        turn: usize,
        begin: Instant,
        kept: &mut Option<Connection>,
    ) -> Result<u32, Failure> {
        let (mut retried, mut origin) = (false, None);
        let asked = self.ask(kept, &mut retried, &mut origin, turn);
        let outcome = match tokio::time::timeout(self.load.timeout, asked).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::Timeout), // and what was kept went with `asked`
        };
        let latency = begin.elapsed();
        let begin = begin - self.start;
        let during = self.marks.touch_since(begin);
        let record = Record { begin, latency, during, outcome };
        let keep = self.load.keep_records;
        let newcomer = lock(&self.stats[thread]).count(record, origin, retried, keep);
        if let Some(pid) = newcomer {
            self.announce(pid);
        }
        outcome
    }

    async fn ask(
        &self,
        kept: &mut Option<Connection>,
        retried: &mut bool,
        origin: &mut Option<Origin>,
        turn: usize,
    ) -> Result<u32, Failure> {
        let number;
        let request = match self.load.server {
            Server::Http(_) => &self.request,
            Server::Udp(_) => {
                number = turn.to_string().into_bytes();
                &number
            }
        };
        if let Some(mut connection) = kept.take() {
            match connection.exchange(request).await {
                Err(Failure::EofBeforeAnswer | Failure::ResetBeforeAnswer) => *retried = true,
                Err(failure) => {
                    *origin = connection.origin();
                    return Err(failure);
                }
                Ok(answer) => {
                    *kept = answer.reusable.then_some(connection);
                    return Ok(answer.pid);
                }
            }
        }
        let mut connection = Connection::open(&self.load.server, turn).await?;
        let answer = match connection.exchange(request).await {
            Ok(answer) => answer,
            Err(failure) => {
                *origin = connection.origin();
                return Err(failure);
            }
        };
        *kept = (self.load.keep_alive && answer.reusable).then_some(connection);
        Ok(answer.pid)
    }

    fn announce(&self, pid: u32) {
        let mut pids = lock(&self.pids);
        if !pids.contains(&pid) {
            pids.push(pid);
            self.news.notify_all();
        }
    }
}

/// Load that is being made. Dropped, it ends at once, in the middle of its requests; see
/// [`stop`](Self::stop).
pub struct Running {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// A restart begins: a request of which any part falls between here and
    /// [`mark_end`](Self::mark_end) counts as one during a restart.
    ///
    /// # Panics
    /// Where one is under way already.
    pub fn mark_begin(&self) {
        self.shared.marks.begin();
    }

    /// The restart is over.
    ///
    /// # Panics
    /// Where none is under way.
    pub fn mark_end(&self) {
        self.shared.marks.end(self.shared.start.elapsed());
    }

    /// The processes that have answered so far, in the order of their first answers.
    pub fn pids(&self) -> Vec<u32> {
        lock(&self.shared.pids).clone()
    }

    /// Waits until `pid` has answered; false where `limit` passed first.
    pub fn wait_for_pid(&self, pid: u32, limit: Duration) -> bool {
        self.wait_for(limit, |pids| pids.contains(&pid))
    }

    /// Waits until `count` processes have answered since the start; false where `limit` passed
    /// first.
    pub fn wait_for_pids(&self, count: usize, limit: Duration) -> bool {
        self.wait_for(limit, |pids| pids.len() >= count)
    }

    fn wait_for(&self, limit: Duration, fact: impl Fn(&[u32]) -> bool) -> bool {
        let pids = lock(&self.shared.pids);
        let (pids, _) = self
            .shared
            .news
            .wait_timeout_while(pids, limit, |pids| !fact(pids))
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        fact(&pids)
    }

    /// Waits until `count` requests have ended since the start, however they did; false where
    /// `limit` passed first.
    pub fn wait_for_requests(&self, count: u64, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.requests() < count {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// How long it has run: what the times of a [`Record`] count in.
    pub fn elapsed(&self) -> Duration {
        self.shared.start.elapsed()
    }

    /// How many requests have ended so far.
    pub fn requests(&self) -> u64 {
        self.shared.stats.iter().map(|stats| lock(stats).requests().total()).sum()
    }

    /// How many requests have been answered so far.
    pub fn answered(&self) -> u64 {
        self.shared.stats.iter().map(|stats| lock(stats).answered()).sum()
    }

    /// The failed requests of which more than the number is kept, and that were not taken before. Few
    /// enough at a time, none is missing.
    pub fn take_failed(&self) -> Vec<Failed> {
        self.shared.stats.iter().flat_map(|stats| lock(stats).take_failed()).collect()
    }

    /// What came of the requests that have ended so far.
    pub fn report(&self) -> Report {
        let stats = self.shared.stats.iter().map(lock);
        Report::of(stats, self.shared.start.elapsed())
    }

    /// Lets each client end the request that it is in, and reports.
    ///
    /// # Panics
    /// Where a client panicked.
    pub fn stop(mut self) -> Report {
        self.shared.stopping.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a thread of the load panicked");
        }
        self.report()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.shared.cut.iter().for_each(Notify::notify_one);
        for thread in self.threads.drain(..) {
            // A drop may be part of a panic already; `stop` is where a client's panic is told.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
