//! The server: each stream gets back what it sends.

use std::{
    error::Error,
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    process,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use quinn::{
    Connection, Endpoint, Incoming, Runtime, ServerConfig, TokioRuntime,
    crypto::rustls::QuicServerConfig,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use seamless::{
    Config,
    sockets::{Options, Steer, quic::ConnectionIds},
    tls::Ticketer,
};

use crate::{
    ALPN,
    counting::{Counting, Counts},
    ids,
    sessions::Sessions,
};

/// New connections that were on their way when the drain began are still accepted.
const LAST_CALL: Duration = Duration::from_millis(100);
/// The longest message of a stream.
const LONGEST: usize = 16 << 20;

#[derive(Clone, Debug)]
pub struct Settings {
    pub listen: SocketAddr,
    pub pid_file: PathBuf,
    pub members: usize,
    /// How long connections may go on after the drain has begun.
    pub drain_timeout: Option<Duration>,
    /// The time in which a new generation has to prove itself.
    pub probation: Option<Duration>,
    /// After this time, a connection gets other IDs.
    pub id_lifetime: Duration,
    /// Clients that come back may send data with their first packet (0-RTT).
    pub early_data: bool,
    /// `false`: no steering, to see what happens then.
    pub steer: bool,
}

/// `init` comes first, before the runtime's threads.
pub fn run(settings: &Settings) -> Result<(), Box<dyn Error>> {
    let sessions = Arc::new(Sessions::default());
    let own = Arc::clone(&sessions);
    Config::new(&settings.pid_file)
        .drain_timeout(settings.drain_timeout)
        .successor_timeout(None)
        .probation(settings.probation)
        .hand_over("sessions", move || own.hand_over())
        .init()?;
    if let Some(bytes) = seamless::inherited("sessions") {
        sessions.take_over(&bytes);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(settings, sessions))
}

async fn serve(settings: &Settings, sessions: Arc<Sessions>) -> Result<(), Box<dyn Error>> {
    let mut options = Options::new();
    options.nonblocking(true);
    if settings.steer {
        options.steer(Steer::Quic);
    }
    let members = options.udp_group(settings.listen, settings.members)?;
    let config = server_config(settings.early_data.then_some(sessions))?;
    let counts = Arc::new(Counts::default());
    let endpoints = members.into_iter().map(|member| endpoint(member, settings, &config, &counts));
    let endpoints = endpoints.collect::<Result<Vec<Endpoint>, Box<dyn Error>>>()?;
    // As long as it lives, a drain goes on: until all connections have ended, or for `drain_timeout`.
    let serving = seamless::drain_guard();
    // From here on new connections come to this process, and the older ones keep theirs.
    seamless::started()?;
    log::info!("process {} listens on {}", process::id(), settings.listen);
    for endpoint in &endpoints {
        let endpoint = endpoint.clone();
        let early = settings.early_data;
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                tokio::spawn(connection(incoming, early));
            }
        });
    }

    seamless::draining().at_once().await;
    tokio::time::sleep(LAST_CALL).await;
    for endpoint in &endpoints {
        endpoint.set_server_config(None);
    }
    for endpoint in &endpoints {
        endpoint.wait_idle().await;
    }
    drop(serving);
    let reason = seamless::finished().await;
    let count = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
    log::info!(
        "process {} has drained: {reason:?} packets={} astray={} of_ended={}",
        process::id(),
        count(&counts.packets),
        count(&counts.astray),
        count(&counts.of_ended),
    );
    Ok(())
}

/// One endpoint for each member of the group.
fn endpoint(
    member: UdpSocket,
    settings: &Settings,
    config: &ServerConfig,
    counts: &Arc<Counts>,
) -> Result<Endpoint, Box<dyn Error>> {
    // What comes while no process gets a processor waits here, as far as the system allows.
    _ = socket2::SockRef::from(&member).set_recv_buffer_size(4 << 20);
    let runtime = Arc::new(TokioRuntime);
    if !settings.steer {
        let own = quinn::EndpointConfig::default();
        return Ok(Endpoint::new(own, Some(config.clone()), member, runtime)?);
    }
    let ids = ConnectionIds::new(&member)?;
    let own = ids::endpoint_config(&ids, settings.id_lifetime);
    let socket = runtime.wrap_udp_socket(member)?;
    let counting = Arc::new(Counting { socket, ids, counts: Arc::clone(counts) });
    let server = Some(config.clone());
    Ok(Endpoint::new_with_abstract_socket(own, server, counting, runtime)?)
}

/// A certificate of its own at each start: the client of this example accepts any. Clients that come back resume their
/// sessions after a restart, too: with early data if the server stores its `sessions`.
fn server_config(sessions: Option<Arc<Sessions>>) -> Result<ServerConfig, Box<dyn Error>> {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key.into())?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    match sessions {
        Some(sessions) => {
            tls.session_storage = sessions;
            tls.max_early_data_size = u32::MAX; // the one value that QUIC knows
        }
        None => tls.ticketer = Ticketer::new("echo")?.into(),
    }
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    let transport = Arc::get_mut(&mut config.transport).expect("just made");
    transport.max_idle_timeout(Some(Duration::from_secs(30).try_into()?));
    Ok(config)
}

async fn connection(incoming: Incoming, early: bool) {
    let accepted = match incoming.accept() {
        // What comes early is answered before the handshake has ended.
        Ok(connecting) if early => match connecting.into_0rtt() {
            Ok((connection, _)) => Ok(connection),
            Err(connecting) => connecting.await,
        },
        Ok(connecting) => connecting.await,
        Err(error) => Err(error),
    };
    match accepted {
        Ok(connection) => streams(connection).await,
        Err(error) => log::debug!("no connection: {error}"),
    }
}

/// Until the client closes the connection. A stream that sends nothing gets the number of this process.
async fn streams(connection: Connection) {
    while let Ok((mut answer, mut question)) = connection.accept_bi().await {
        tokio::spawn(async move {
            if let Ok(mut bytes) = question.read_to_end(LONGEST).await {
                if bytes.is_empty() {
                    bytes = process::id().to_string().into_bytes();
                }
                _ = answer.write_all(&bytes).await;
                _ = answer.finish();
            }
        });
    }
}
