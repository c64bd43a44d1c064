//! TLS, by rustls.

use super::log;
use super::stream::{Address, Stream};
use crate::tls::Ticketer;
use crate::{Error, ErrorKind, Result};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// What a server proves itself with: [`Server::tls`](super::Server::tls).
///
/// TLS 1.2 and 1.3 by rustls with the provider `ring`, which is passed explicitly: what other crates
/// of the program install as theirs does not matter. HTTP/2 if the client offers it (ALPN), else
/// HTTP/1.
#[derive(Clone)]
pub struct Tls(Source);

#[derive(Clone)]
enum Source {
    Pem { certificates: PathBuf, key: PathBuf },
    Config(Arc<ServerConfig>),
}

impl Tls {
    /// From two PEM files: the certificate with its chain, the server's own first, and its private
    /// key (PKCS#8, PKCS#1 or SEC1). They are read when the server starts, so a restart picks up
    /// new ones; if they are wrong, that start fails and the predecessor serves on. The user that
    /// the service runs as must be able to read them.
    ///
    /// Clients resume their sessions with the successor, as long as the address and the certificate stay: see
    /// [`tls`](crate::tls).
    pub fn pem(certificates: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Tls {
        Tls(Source::Pem { certificates: certificates.into(), key: key.into() })
    }

    /// A configuration of rustls as it is, for client certificates or several names. It must name
    /// its protocols (`alpn_protocols`): `h2` for HTTP/2, `http/1.1`.
    ///
    /// Sessions survive a restart if its `ticketer` is a [`Ticketer`](crate::tls::Ticketer). rustls's default
    /// remembers 256 sessions in the process itself.
    pub fn config(config: Arc<ServerConfig>) -> Tls {
        Tls(Source::Config(config))
    }

    /// For a server at this address.
    pub(super) fn load(self, place: &Address) -> Result<TlsAcceptor> {
        let config = match self.0 {
            Source::Config(config) => config,
            Source::Pem { certificates, key } => Arc::new(read(&certificates, &key, place)?),
        };
        Ok(TlsAcceptor::from(config))
    }
}

/// The handshake of a connection that has said nothing yet. `None`: it has failed.
pub(super) async fn handshake(
    acceptor: TlsAcceptor,
    stream: Stream,
    limit: Duration,
) -> Option<Stream> {
    let Stream::Tcp(stream) = stream else { return None };
    match timeout(limit, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => return Some(Stream::Tls(Box::new(stream))),
        Ok(Err(error)) => log::failed("handshake", &error),
        Err(timed_out) => log::failed("handshake", &timed_out),
    }
    None
}

fn read(certificates: &Path, key: &Path, place: &Address) -> Result<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(certificates)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(certificates, error))?;
    if chain.is_empty() {
        return Err(unusable(certificates, &"it holds no certificate"));
    }
    // Sessions are never shared between places, or with another certificate.
    let mut label = format!("seamless/http {place} h2 http/1.1").into_bytes();
    for one in &chain {
        label.extend_from_slice(&(one.len() as u64).to_le_bytes());
        label.extend_from_slice(one);
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, error))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret))
        .map_err(|error| unusable(certificates, &format_args!("with {key:?}: {error}")))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = Ticketer::of(&label)?.into();
    Ok(config)
}

fn unreadable(path: &Path, error: pem::Error) -> Error {
    match error {
        pem::Error::Io(error) => {
            Error::io(ErrorKind::Certificate, format!("cannot read {path:?} (tls)"), error)
        }
        other => unusable(path, &other),
    }
}

fn unusable(path: &Path, why: &dyn fmt::Display) -> Error {
    Error::new(ErrorKind::Certificate, format!("cannot use {path:?} (tls): {why}"))
}

/// Without the key.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Pem { certificates, key } => {
                f.debug_struct("Tls").field("certificates", certificates).field("key", key).finish()
            }
            Source::Config(_) => f.debug_struct("Tls").finish_non_exhaustive(),
        }
    }
}
