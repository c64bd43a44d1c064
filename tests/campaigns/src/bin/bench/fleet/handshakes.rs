//! TLS clients whose connections stay open, and what a handshake costs the server.

use std::{
    error::Error,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection,
    StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

use crate::table::Samples;

/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_secs(10);
/// Handshakes of each kind.
const TURNS: usize = 200;

fn client_config(certificate: &Path) -> Result<Arc<ClientConfig>, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate)?)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a name")
}

// ---- clients ----

/// Clients that never ask twice. Each keeps its connection until the server says that it closes it.
pub(super) struct Clients {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<All>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct All {
    marked: Option<Instant>,
    /// Connections that were made, when, and whether they resumed a session.
    made: Vec<(Instant, bool)>,
    failed: u64,
}

/// What has happened since a mark.
pub(super) struct Seen {
    pub(super) anew: usize,
    pub(super) resumed: usize,
    /// From the first to the last.
    pub(super) span: Duration,
}

impl Clients {
    /// Returns when all are connected.
    pub(super) fn start(
        address: SocketAddr,
        certificate: &Path,
        count: usize,
    ) -> Result<Clients, Box<dyn Error>> {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(All::default()));
        let mut threads = Vec::new();
        for _ in 0..count {
            // Its own sessions, as another machine has them.
            let config = client_config(certificate)?;
            let (stop, seen) = (stop.clone(), seen.clone());
            threads.push(thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if one_connection(address, &config, &stop, &seen).is_err() {
                        lock(&seen).failed += 1;
                        thread::sleep(PAUSE);
                    }
                }
            }));
        }
        let clients = Clients { stop, seen, threads };
        let deadline = Instant::now() + LIMIT;
        while lock(&clients.seen).made.len() < count {
            if Instant::now() > deadline {
                clients.stop();
                return Err("the TLS clients are not answered".into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(clients)
    }

    pub(super) fn mark(&self) {
        lock(&self.seen).marked = Some(Instant::now());
    }

    pub(super) fn since_mark(&self) -> Seen {
        let all = lock(&self.seen);
        let made = all.made.iter().filter(|(at, _)| Some(*at) >= all.marked);
        let made: Vec<(Instant, bool)> = made.copied().collect();
        let times = || made.iter().map(|(at, _)| *at);
        let span = times().max().zip(times().min()).map(|(last, first)| last - first);
        Seen {
            anew: made.len(),
            resumed: made.iter().filter(|(_, resumed)| *resumed).count(),
            span: span.unwrap_or_default(),
        }
    }

    /// How many requests or connections have failed.
    pub(super) fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            _ = thread.join();
        }
        lock(&self.seen).failed
    }
}

fn lock(seen: &Mutex<All>) -> MutexGuard<'_, All> {
    seen.lock().expect("nobody panics with it")
}

fn one_connection(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    stop: &AtomicBool,
    seen: &Mutex<All>,
) -> Result<(), Box<dyn Error>> {
    let tcp = TcpStream::connect(address)?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(LIMIT))?;
    let tls = ClientConnection::new(config.clone(), name())?;
    let mut stream = StreamOwned::new(tls, tcp);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    let resumed = stream.conn.handshake_kind() == Some(HandshakeKind::Resumed);
    lock(seen).made.push((Instant::now(), resumed));
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
        if is_last(&mut stream)? {
            break;
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// Reads one answer. True if the server closes the connection after it.
fn is_last(stream: &mut impl Read) -> Result<bool, Box<dyn Error>> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut piece)?;
        if read == 0 {
            return Err("closed without an answer".into());
        }
        bytes.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        let length: usize = field("content-length:").ok_or("no length")?.trim().parse()?;
        if body.len() >= length {
            return Ok(field("connection:").is_some_and(|value| value.trim() == "close"));
        }
    }
}

// ---- the cost of a handshake ----

/// The server's time for a handshake in full, and for one that is resumed; medians. `folder` has its certificate.
pub(super) fn cost(folder: &Path) -> Result<(Duration, Duration), Box<dyn Error>> {
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let mut server =
        builder.with_safe_default_protocol_versions()?.with_no_client_auth().with_single_cert(
            vec![CertificateDer::from_pem_file(&certificate)?],
            PrivateKeyDer::from_pem_file(key)?,
        )?;
    server.ticketer = ring::Ticketer::new()?;
    let server = Arc::new(server);
    let (mut full, mut resumed) = (Samples::new(), Samples::new());
    let again = client_config(&certificate)?;
    for _ in 0..TURNS {
        let (time, kind) = handshake(&server, &client_config(&certificate)?)?;
        if kind == Some(HandshakeKind::Resumed) {
            return Err("a session was resumed that nobody had".into());
        }
        full.add(time);
        let (time, kind) = handshake(&server, &again)?;
        if kind == Some(HandshakeKind::Resumed) {
            resumed.add(time);
        }
    }
    if resumed.count() + 1 < TURNS {
        return Err("sessions are not resumed".into());
    }
    Ok((full.median(), resumed.median()))
}

/// In memory, until both are through and the client has its tickets.
fn handshake(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
) -> Result<(Duration, Option<HandshakeKind>), Box<dyn Error>> {
    let mut client = ClientConnection::new(client.clone(), name())?;
    let began = Instant::now();
    let mut server = ServerConnection::new(server.clone())?;
    let mut time = began.elapsed();
    loop {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes)?;
        }
        let quiet = bytes.is_empty();
        let began = Instant::now();
        let mut answer = Vec::new();
        let mut input = io::Cursor::new(bytes);
        while (input.position() as usize) < input.get_ref().len() {
            server.read_tls(&mut input)?;
            server.process_new_packets()?;
        }
        while server.wants_write() {
            server.write_tls(&mut answer)?;
        }
        time += began.elapsed();
        if quiet && answer.is_empty() {
            return Ok((time, client.handshake_kind()));
        }
        let mut input = io::Cursor::new(answer);
        while (input.position() as usize) < input.get_ref().len() {
            client.read_tls(&mut input)?;
            client.process_new_packets()?;
        }
    }
}
