//! The client: keeps streams running on many connections, and counts what is lost.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, TokioRuntime,
    crypto::rustls::QuicClientConfig,
};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use tokio::sync::RwLock;

use crate::ALPN;

#[derive(Clone, Debug)]
pub struct Settings {
    pub server: SocketAddr,
    pub connections: usize,
    /// What one stream sends, and gets back.
    pub bytes: usize,
    /// The pause between two streams of a connection.
    pub pause: Duration,
    /// A connection is closed after about this time, and another one takes its place.
    pub lifetime: Duration,
    /// How often the clients get another address; `None`: never.
    pub migrate: Option<Duration>,
    /// Sockets of the clients.
    pub sockets: usize,
    /// At most.
    pub time: Duration,
    /// Set it, and the clients end.
    pub ends: Arc<AtomicBool>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            server: SocketAddr::from(([127, 0, 0, 1], 4433)),
            connections: 100,
            bytes: 4096,
            pause: Duration::from_millis(20),
            lifetime: Duration::from_secs(5),
            migrate: None,
            sockets: 4,
            time: Duration::from_secs(10),
            ends: Arc::default(),
        }
    }
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub connections: u64,
    /// Closed by the client, after all of its streams.
    pub complete: u64,
    /// Connections that ended otherwise, or never began, by the error.
    pub broken: BTreeMap<String, u64>,
    pub streams: u64,
    /// Echoed.
    pub bytes: u64,
    /// The longest time from the begin of a stream to its end.
    pub slowest: Duration,
    /// New addresses of clients.
    pub migrations: u64,
    pub time: Duration,
}

impl Table {
    pub fn broken(&self) -> u64 {
        self.broken.values().sum()
    }

    /// A stream that has got its answer.
    fn note(&mut self, bytes: usize, time: Duration) {
        self.streams += 1;
        self.bytes += bytes as u64;
        self.slowest = self.slowest.max(time);
    }

    /// Echoed bytes in a second.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 / self.time.as_secs_f64()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Table { connections, complete, broken, streams, slowest, migrations, .. } = self;
        writeln!(
            f,
            "| connections | complete | broken | streams | slowest stream | MB/s | new addresses |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- |")?;
        let rate = self.rate() / 1e6;
        let count = self.broken();
        writeln!(
            f,
            "| {connections} | {complete} | {count} | {streams} | {slowest:.1?} | {rate:.2} | {migrations} |"
        )?;
        broken.iter().try_for_each(|(why, count)| writeln!(f, "{count} broken: {why}"))
    }
}

/// Runs until the time is over, and lets each connection finish its stream.
pub async fn run(settings: &Settings) -> Result<Table, Failure> {
    let table = Arc::new(Mutex::new(Table::default()));
    let began = Instant::now();
    let end = began + settings.time;
    let endpoints = (0..settings.sockets.max(1)).map(|_| endpoint(settings.server));
    let endpoints = endpoints.collect::<Result<Vec<Endpoint>, _>>()?;
    // A client must not change its address during a handshake (RFC 9000, section 9).
    let moving = Arc::new(RwLock::new(()));
    let tasks = (0..settings.connections).map(|number| {
        let endpoint = endpoints[number % endpoints.len()].clone();
        let (settings, table) = (settings.clone(), Arc::clone(&table));
        let moving = Arc::clone(&moving);
        tokio::spawn(async move {
            // Not all at the same moment.
            let part = (number % 16 + 1) as u32;
            let mut lifetime = settings.lifetime * part / 16;
            while Instant::now() < end && !settings.ends.load(Ordering::Relaxed) {
                let until = end.min(Instant::now() + lifetime);
                let done = one(&endpoint, &settings, until, &table, &moving).await;
                let mut table = table.lock().expect("no panic");
                table.connections += 1;
                match done {
                    Ok(()) => table.complete += 1,
                    Err(why) => *table.broken.entry(chain(&*why)).or_default() += 1,
                }
                lifetime = settings.lifetime;
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    if let Some(every) = settings.migrate {
        let mut at = 0;
        while Instant::now() + every < end && !settings.ends.load(Ordering::Relaxed) {
            tokio::time::sleep(every).await;
            let none_begins = moving.write().await;
            endpoints[at % endpoints.len()].rebind(socket(settings.server)?)?;
            drop(none_begins);
            table.lock().expect("no panic").migrations += 1;
            at += 1;
        }
    }
    for task in tasks {
        task.await?;
    }
    for endpoint in &endpoints {
        endpoint.wait_idle().await;
    }
    let mut table = table.lock().expect("no panic").clone();
    table.time = began.elapsed();
    Ok(table)
}

pub type Failure = Box<dyn Error + Send + Sync>;

/// An error with all of its causes.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// One connection, until it has had its time.
async fn one(
    endpoint: &Endpoint,
    settings: &Settings,
    until: Instant,
    table: &Mutex<Table>,
    moving: &RwLock<()>,
) -> Result<(), Failure> {
    let begins = moving.read().await;
    let connection = endpoint.connect(settings.server, "localhost")?.await?;
    // Its answer proves that the handshake has ended.
    stream(&connection, 1, Instant::now()).await?;
    drop(begins);
    while Instant::now() < until && !settings.ends.load(Ordering::Relaxed) {
        let began = Instant::now();
        stream(&connection, settings.bytes.max(1), began).await?;
        table.lock().expect("no panic").note(settings.bytes, began.elapsed());
        tokio::time::sleep(settings.pause).await;
    }
    connection.close(0_u8.into(), b"enough");
    Ok(())
}

/// One stream, whose answer must be what it has sent.
pub async fn stream(connection: &Connection, bytes: usize, began: Instant) -> Result<(), Failure> {
    let fill = (began.elapsed().as_nanos() as u8).wrapping_mul(31);
    let question: Vec<u8> = (0..bytes).map(|at| fill.wrapping_add(at as u8)).collect();
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(&question).await?;
    send.finish()?;
    let answer = receive.read_to_end(bytes + 1).await?;
    if answer == question { Ok(()) } else { Err("another answer than what was sent".into()) }
}

/// The process that has this connection.
pub async fn process(connection: &Connection) -> Result<u32, Failure> {
    let (mut send, mut receive) = connection.open_bi().await?;
    send.finish()?;
    let answer = receive.read_to_end(20).await?;
    Ok(std::str::from_utf8(&answer)?.parse()?)
}

/// A new address of a client.
pub fn socket(server: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind(match server {
        SocketAddr::V4(_) => "0.0.0.0:0",
        SocketAddr::V6(_) => "[::]:0",
    })?;
    _ = socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20);
    Ok(socket)
}

/// One that can connect to this server.
pub fn endpoint(server: SocketAddr) -> Result<Endpoint, Failure> {
    Ok(early_endpoint(server, false)?.0)
}

/// The same, which sends data with the first packet of a connection if `early`, and the server allows it. With the
/// number of its full handshakes: in those alone it gets to see a certificate.
pub fn early_endpoint(
    server: SocketAddr,
    early: bool,
) -> Result<(Endpoint, Arc<AtomicU64>), Failure> {
    let handshakes = Arc::new(AtomicU64::new(0));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider, Arc::clone(&handshakes))))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.enable_early_data = early;
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let mut transport = quinn::TransportConfig::default();
    transport.max_idle_timeout(Some(Duration::from_secs(10).try_into()?));
    config.transport_config(Arc::new(transport));
    let runtime = Arc::new(TokioRuntime);
    let mut endpoint = Endpoint::new(EndpointConfig::default(), None, socket(server)?, runtime)?;
    endpoint.set_default_client_config(config);
    Ok((endpoint, handshakes))
}

/// Accepts any certificate, and counts them: each start of the server has another one. For this example only.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>, Arc<AtomicU64>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
