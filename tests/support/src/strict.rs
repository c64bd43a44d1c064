//! Clients that never ask twice: a client of hyper (HTTP/1) or h2 each, on a connection that it keeps. A request that
//! was sent and is not answered to its end has failed, whatever HTTP would let a client do then. Only
//! one that could not be sent, since the connection was closed before, goes to another connection.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{
        CertificateDer, ServerName,
        pem::{self, PemObject},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::JoinSet,
    time::sleep,
};
use tokio_rustls::TlsConnector;

use crate::{http::Target, wait_for};

type Problem = Box<dyn std::error::Error + Send + Sync>;

/// How long a request may take.
const REQUEST: Duration = Duration::from_secs(50);
/// Before the next connection, where one has failed.
const REST: Duration = Duration::from_millis(20);

/// Clients to be.
#[derive(Clone)]
pub struct Strict {
    target: Target,
    path: String,
    clients: usize,
    streams: Option<usize>,
    every: Option<Duration>,
    tls: Option<Arc<ClientConfig>>,
}

impl Strict {
    /// One client that asks for `/` by HTTP/1, again and again.
    pub fn new(target: &Target) -> Self {
        Strict {
            target: target.clone(),
            path: "/".to_owned(),
            clients: 1,
            streams: None,
            every: None,
            tls: None,
        }
    }

    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        self.path = path.to_owned();
        self
    }

    #[must_use]
    pub fn clients(mut self, count: usize) -> Self {
        self.clients = count;
        self
    }

    /// By HTTP/2, each with so many requests at a time.
    #[must_use]
    pub fn http2(mut self, streams: usize) -> Self {
        self.streams = Some(streams);
        self
    }

    /// So long from one request of each client, or each stream, to the next. Without it none waits.
    #[must_use]
    pub fn every(mut self, period: Duration) -> Self {
        self.every = Some(period);
        self
    }

    #[must_use]
    pub fn tls(mut self, config: Arc<ClientConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Starts them, on a thread of their own.
    pub fn start(self) -> Running {
        let shared = Arc::new(Shared {
            place: Mutex::new((0, self.target.clone())),
            strict: self,
            stopping: AtomicBool::new(false),
            seen: Mutex::default(),
            start: Instant::now(),
        });
        let thread = thread::spawn({
            let shared = shared.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(async {
                    let mut clients = JoinSet::new();
                    for _ in 0..shared.strict.clients {
                        clients.spawn(client(shared.clone()));
                    }
                    clients.join_all().await;
                });
            }
        });
        Running { shared, thread }
    }
}

struct Shared {
    strict: Strict,
    /// Where to connect to, and how many places there were before.
    place: Mutex<(u64, Target)>,
    stopping: AtomicBool,
    seen: Mutex<Seen>,
    start: Instant,
}

/// What the clients saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// How many answers each server has given, by its PID.
    pub answers: BTreeMap<u32, u64>,
    /// The servers, in the order of their first answers.
    pub pids: Vec<u32>,
    /// What failed, when.
    pub failures: Vec<(Duration, String)>,
    /// When each request that was answered began, and what it took. Times count from the start.
    pub times: Vec<(Duration, Duration)>,
    /// How many connections there were.
    pub connections: u64,
}

impl Seen {
    pub fn total(&self) -> u64 {
        self.answers.values().sum()
    }

    /// No failure, so many answers at least, and some from each of exactly so many servers.
    #[track_caller]
    pub fn assert_clean(&self, floor: u64, servers: usize) {
        let few = &self.failures[..self.failures.len().min(10)];
        assert!(few.is_empty(), "{} failed: {few:#?}", self.failures.len());
        assert!(self.total() >= floor, "{} answers, not {floor}", self.total());
        assert_eq!(self.answers.len(), servers, "{:?}", self.answers);
    }
}

/// What trusts these certificates alone, and offers HTTP/2 or HTTP/1.
pub fn trusting(
    certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    http2: bool,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for one in certificates {
        roots.add(one).expect("a root");
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    Arc::new(config)
}

/// The same, with those of a PEM file.
pub fn trusting_file(path: &Path, http2: bool) -> Result<Arc<ClientConfig>, pem::Error> {
    let certificates = CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>()?;
    Ok(trusting(certificates, http2))
}

/// Clients at work.
pub struct Running {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Running {
    pub fn total(&self) -> u64 {
        self.shared.seen().total()
    }

    /// Whose first answer was the last to come; `None` before any.
    pub fn newest(&self) -> Option<u32> {
        self.shared.seen().pids.last().copied()
    }

    /// How many requests and connections have failed.
    pub fn failed(&self) -> usize {
        self.shared.seen().failures.len()
    }

    /// The time that [`Seen`] counts in.
    pub fn elapsed(&self) -> Duration {
        self.shared.start.elapsed()
    }

    /// From now on each client, once it has an answer, goes on with another server: what a restart
    /// asks of clients, without one.
    pub fn move_to(&self, target: Target) {
        let mut place = self.shared.place();
        *place = (place.0 + 1, target);
    }

    /// Waits until this server has answered.
    #[track_caller]
    pub fn wait_pid(&self, pid: u32) {
        wait_for(format!("{pid} answers"), REQUEST, || {
            self.shared.seen().answers.contains_key(&pid).then_some(())
        });
    }

    /// Waits until a server that began after this one has answered, and gives its PID.
    #[track_caller]
    pub fn wait_another(&self, old: u32) -> u32 {
        wait_for(format!("another answers than {old}"), REQUEST, || {
            let seen = self.shared.seen();
            let at = seen.pids.iter().position(|pid| *pid == old);
            seen.pids.get(at? + 1).copied()
        })
    }

    /// Waits for so many answers more.
    #[track_caller]
    pub fn wait_more(&self, count: u64) {
        let enough = self.total() + count;
        wait_for(format!("{count} more answers"), REQUEST, || {
            (self.total() >= enough).then_some(())
        });
    }

    /// Lets the requests in flight end.
    pub fn stop(self) -> Seen {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.thread.join().expect("a client panicked");
        self.shared.seen().clone()
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("nobody panics with it")
    }

    fn place(&self) -> MutexGuard<'_, (u64, Target)> {
        self.place.lock().expect("nobody panics with it")
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn failed(&self, text: String) {
        self.seen().failures.push((self.start.elapsed(), text));
    }
}

async fn client(shared: Arc<Shared>) {
    while !shared.stopping() {
        if let Err(problem) = one_connection(&shared).await {
            shared.failed(format!("no connection: {problem:?}"));
            sleep(REST).await;
        }
    }
}

/// An error: there was none.
async fn one_connection(shared: &Arc<Shared>) -> Result<(), Problem> {
    let (number, target) = shared.place().clone();
    let io: Box<dyn Io> = match &target {
        Target::Tcp(address) => {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            match shared.strict.tls.clone() {
                None => Box::new(tcp),
                Some(config) => {
                    let name = ServerName::try_from("localhost")?;
                    Box::new(TlsConnector::from(config).connect(name, tcp).await?)
                }
            }
        }
        Target::Unix(path) => Box::new(UnixStream::connect(path).await?),
    };
    shared.seen().connections += 1;
    let io = TokioIo::new(io);
    let Some(streams) = shared.strict.streams else {
        let (mut sender, connection) = http1::handshake(io).await?;
        let connection = tokio::spawn(connection);
        let mut pace = Pace::new(shared.strict.every, number);
        while pace.next(shared).await && sender.ready().await.is_ok() {
            if !exchange(shared, sender.try_send_request(request(shared))).await {
                break;
            }
        }
        drop(sender);
        _ = connection.await;
        return Ok(());
    };
    // Not hyper: it does not tell whether a request was refused here, after a GOAWAY, or there.
    let (sender, connection) = h2::client::handshake(io.into_inner()).await?;
    tokio::spawn(connection);
    let mut asking = JoinSet::new();
    for _ in 0..streams {
        let (shared, sender) = (shared.clone(), sender.clone());
        asking.spawn(async move {
            let mut pace = Pace::new(shared.strict.every, number);
            while pace.next(&shared).await {
                let Ok(mut sender) = sender.clone().ready().await else { break };
                let request = request(&shared).map(drop);
                let Ok((answer, _)) = sender.send_request(request, true) else { break };
                let answer = async { Ok(Some(whole(answer.await?).await?)) };
                if !count(&shared, answer).await {
                    break;
                }
            }
        });
    }
    drop(sender);
    asking.join_all().await;
    Ok(())
}

/// When the next request is due.
struct Pace {
    every: Option<Duration>,
    due: tokio::time::Instant,
    /// The place of this connection.
    number: u64,
}

impl Pace {
    fn new(every: Option<Duration>, number: u64) -> Self {
        Pace { every, due: tokio::time::Instant::now(), number }
    }

    /// False where there is to be none on this connection.
    async fn next(&mut self, shared: &Shared) -> bool {
        if let Some(every) = self.every {
            self.due = (self.due + every).max(tokio::time::Instant::now());
            tokio::time::sleep_until(self.due).await;
        }
        !shared.stopping() && shared.place().0 == self.number
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Body = Empty<Bytes>;

fn request(shared: &Shared) -> Request<Body> {
    let strict = &shared.strict;
    let scheme = if strict.tls.is_some() { "https" } else { "http" };
    let request = Request::builder();
    let request = match strict.streams {
        None => request.uri(&*strict.path).header("host", "localhost"),
        Some(_) => request.uri(format!("{scheme}://localhost{}", strict.path)),
    };
    request.body(Empty::new()).expect("a request")
}

/// False where the connection is not to be used again.
async fn exchange(
    shared: &Shared,
    sent: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Body>>>>,
) -> bool {
    let answer = async {
        match sent.await {
            Ok(answer) => Ok(Some(whole(answer).await?)),
            Err(mut error) => match error.take_message() {
                Some(_) => Ok(None), // never sent: the connection was closed before
                None => Err(Problem::from(error.into_error())),
            },
        }
    };
    count(shared, answer).await
}

/// `None`: it was never sent.
async fn count(
    shared: &Shared,
    answer: impl Future<Output = Result<Option<u32>, Problem>>,
) -> bool {
    let begin = shared.start.elapsed();
    match tokio::time::timeout(REQUEST, answer).await {
        Ok(Ok(Some(pid))) => {
            let took = shared.start.elapsed() - begin;
            let mut seen = shared.seen();
            let count = seen.answers.entry(pid).or_default();
            *count += 1;
            if *count == 1 {
                seen.pids.push(pid);
            }
            seen.times.push((begin, took));
            true
        }
        Ok(Ok(None)) => false,
        Ok(Err(problem)) => {
            shared.failed(format!("{problem:?}"));
            false
        }
        Err(_) => {
            shared.failed("timed out".to_owned());
            false
        }
    }
}

/// The PID of the server, from an answer that has come whole.
async fn whole(answer: Response<impl IntoBytes>) -> Result<u32, Problem> {
    let status = answer.status();
    let body = answer.into_body().bytes().await?;
    let text = String::from_utf8_lossy(&body);
    let pid = text.trim().strip_prefix("Server pid: ").and_then(|pid| pid.parse().ok());
    pid.filter(|_| status == 200).ok_or_else(|| format!("{status}: {text}").into())
}

trait IntoBytes {
    fn bytes(self) -> impl Future<Output = Result<Vec<u8>, Problem>> + Send;
}

impl IntoBytes for Incoming {
    async fn bytes(self) -> Result<Vec<u8>, Problem> {
        Ok(self.collect().await?.to_bytes().into())
    }
}

impl IntoBytes for h2::RecvStream {
    async fn bytes(mut self) -> Result<Vec<u8>, Problem> {
        let mut all = Vec::new();
        while let Some(part) = self.data().await {
            let part = part?;
            self.flow_control().release_capacity(part.len())?;
            all.extend_from_slice(&part);
        }
        Ok(all)
    }
}
