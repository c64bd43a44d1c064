//! The PROXY protocol: a load balancer in front says, before all else, for whom it connects.

use super::log;
use super::stream::{Peer, Stream};
use crate::{Error, ErrorKind, Result};
use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use std::io;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};
use tokio::time::timeout_at;

/// The time for a header, if [`Server::header_timeout`](super::Server::header_timeout) is not shorter.
const HEADER: Duration = Duration::from_secs(5);

const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Of a header of version 1, with its line end.
const V1_MAX: usize = 107;
/// Of a header of version 2: the part that tells how long the rest is.
const V2_HEAD: usize = 16;

/// From whom the PROXY protocol is accepted: the addresses of the load balancers in front.
/// [`Server::proxy_protocol`](super::Server::proxy_protocol)
///
/// A list of addresses and networks, and the word `unix` for clients of Unix sockets, separated by commas or
/// blanks:
///
/// ```
/// # fn main() -> Result<(), seamless::Error> {
/// let trusted: seamless::http::Trusted = "10.0.0.0/8, 2001:db8::/32, ::1, unix".parse()?;
/// # let _ = trusted;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trusted {
    networks: Vec<(IpAddr, u32)>,
    unix: bool,
}

/// # Errors
///
/// [`ErrorKind::InvalidConfig`]: a word is no address, no network and not `unix`, or there is no word.
impl FromStr for Trusted {
    type Err = Error;

    fn from_str(text: &str) -> Result<Trusted> {
        let mut trusted = Trusted::default();
        let words = text.split(|char: char| char == ',' || char.is_whitespace());
        for word in words.filter(|word| !word.is_empty()) {
            if word == "unix" {
                trusted.unix = true;
                continue;
            }
            trusted.networks.push(network(word).ok_or_else(|| {
                let text = format!(
                    "cannot trust {word:?} (http): it is no address, no network like 10.0.0.0/8, and not \
                     unix"
                );
                Error::new(ErrorKind::InvalidConfig, text)
            })?);
        }
        if trusted == Trusted::default() {
            let text = "cannot accept the PROXY protocol (http): nobody is trusted";
            return Err(Error::new(ErrorKind::InvalidConfig, text));
        }
        Ok(trusted)
    }
}

fn network(word: &str) -> Option<(IpAddr, u32)> {
    let (ip, bits) = word.split_once('/').map_or((word, None), |(ip, bits)| (ip, Some(bits)));
    let ip: IpAddr = ip.parse().ok()?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Some(most), |bits| bits.parse().ok().filter(|bits| *bits <= most))?;
    Some((ip, bits))
}

impl Trusted {
    fn is_trusted(&self, peer: Option<Peer>) -> bool {
        let Some(Peer(address)) = peer else { return self.unix };
        let ip = address.ip().to_canonical(); // IPv4 at an IPv6 socket
        // An IPv4 address stands at the beginning of the number.
        let number = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => u128::from(ip.to_bits()) << 96,
            IpAddr::V6(ip) => ip.to_bits(),
        };
        self.networks.iter().any(|(network, bits)| {
            let differing = number(*network) ^ number(ip);
            network.is_ipv4() == ip.is_ipv4() && differing.leading_zeros() >= *bits
        })
    }
}

/// What a server with this protocol shares among its connections.
pub(super) struct Proxied {
    pub(super) trusted: Trusted,
    refused: log::Seldom,
}

impl Proxied {
    pub(super) fn new(trusted: Trusted) -> Proxied {
        Proxied { trusted, refused: log::Seldom::default() }
    }

    /// Reads the header of a trusted peer and returns for whom it connects: `peer` itself if the header
    /// names nobody. `None`: the connection is to be closed. Reads no byte behind the header.
    pub(super) async fn client(
        &self,
        stream: &Stream,
        peer: Option<Peer>,
        accepted: Instant,
        header_timeout: Duration,
    ) -> Option<Option<Peer>> {
        if !self.trusted.is_trusted(peer) {
            let refused = self.is_refused(stream, peer, accepted + header_timeout).await;
            return (!refused).then_some(peer);
        }
        let due = accepted + HEADER.min(header_timeout);
        match timeout_at(due.into(), read(stream)).await {
            Ok(Ok(client)) => Some(client.or(peer)),
            Ok(Err(error)) => {
                log::failed("proxy", &error);
                None
            }
            Err(_) => {
                log::failed("proxy", &"no PROXY header came in time");
                None
            }
        }
    }

    /// Does somebody who is not trusted say for whom he connects? Anybody could then claim any address.
    async fn is_refused(&self, stream: &Stream, peer: Option<Peer>, due: Instant) -> bool {
        let mut bytes = [0; V2.len()];
        let came = timeout_at(due.into(), peek(stream, &mut bytes)).await;
        let Ok(Ok(count)) = came else { return true };
        let is_header = bytes[..count].starts_with(V1) || bytes[..count] == *V2;
        if is_header && self.refused.is_due() {
            let peer = peer.map_or("unix".to_owned(), |peer| peer.0.ip().to_string());
            log::not_trusted(&peer);
        }
        is_header
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The next bytes, without taking them; 0 at the end.
async fn peek(stream: &Stream, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        match stream.try_peek(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
}

/// Takes a header, and nothing else. `None` if it names nobody: a check by the load balancer itself, or an
/// address of another kind.
async fn read(stream: &Stream) -> io::Result<Option<Peer>> {
    let mut header = Vec::new();
    let mut bytes = [0; 256];
    while let Some(wanted) = wanted(&header)? {
        let most = wanted.min(bytes.len());
        let count = peek(stream, &mut bytes[..most]).await?;
        if count == 0 {
            return Err(invalid("the connection ended before its PROXY header"));
        }
        // A header of version 1 ends with its line.
        let line = bytes[..count].iter().position(|byte| *byte == b'\n');
        let is_v1 = header.first().or(bytes.first()) == Some(&V1[0]);
        let take = line.filter(|_| is_v1).map_or(count, |end| end + 1);
        let taken = stream.try_read(&mut bytes[..take])?; // they are there
        header.extend_from_slice(&bytes[..taken]);
    }
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    let (parsed, length) = ProxyHeader::parse(&header, config)
        .map_err(|error| invalid(&format!("a wrong PROXY header: {error}")))?;
    if length != header.len() {
        return Err(invalid("a wrong PROXY header: it is shorter than it says"));
    }
    let address = parsed.proxied_address().filter(|one| one.protocol == Protocol::Stream);
    Ok(address.map(|one| Peer(one.source)))
}

/// How many bytes more the header may have; `None` if it is complete.
fn wanted(header: &[u8]) -> io::Result<Option<usize>> {
    let begins = |with: &[u8]| header.iter().zip(with).all(|(one, other)| one == other);
    if header.is_empty() {
        return Ok(Some(V2.len()));
    }
    if begins(V1) {
        return match header.ends_with(b"\n") {
            true => Ok(None),
            false if header.len() >= V1_MAX => Err(invalid("a PROXY header that is too long")),
            false => Ok(Some(V1_MAX - header.len())),
        };
    }
    if begins(V2) {
        let Some(head) = header.first_chunk::<V2_HEAD>() else {
            return Ok(Some(V2_HEAD - header.len()));
        };
        let total = V2_HEAD + usize::from(u16::from_be_bytes([head[14], head[15]]));
        return Ok(Some(total - header.len()).filter(|left| *left > 0));
    }
    Err(invalid("a trusted peer began without a PROXY header"))
}

#[cfg(test)]
mod tests {
    use super::{Peer, Trusted, V1_MAX, V2, wanted};
    use crate::ErrorKind;

    #[test]
    fn trusted_networks() {
        let trusted: Trusted =
            "10.1.0.0/16, 192.0.2.7\n2001:db8::/33 ::1/128 0.0.0.0/32".parse().unwrap();
        let is = |ip: &str| {
            trusted.is_trusted(Some(Peer((ip.parse::<std::net::IpAddr>().unwrap(), 1).into())))
        };
        for ip in ["10.1.0.0", "10.1.255.255", "::ffff:10.1.2.3", "192.0.2.7", "2001:db8::1", "::1"]
        {
            assert!(is(ip), "{ip}");
        }
        for ip in
            ["10.2.0.0", "192.0.2.6", "2001:db8:8000::", "::2", "127.0.0.1", "::ffff:10.2.0.1"]
        {
            assert!(!is(ip), "{ip}");
        }
        assert!(!trusted.is_trusted(None));
        let all: Trusted = "0.0.0.0/0,::/0,unix".parse().unwrap();
        assert!(all.is_trusted(None));
        for ip in ["1.2.3.4", "255.255.255.255", "::", "ffff::"] {
            let peer = Peer((ip.parse::<std::net::IpAddr>().unwrap(), 1).into());
            assert!(all.is_trusted(Some(peer)), "{ip}");
        }
    }

    #[test]
    fn p10_a_word_that_is_no_network_is_named() {
        for text in ["10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/-1", "localhost"] {
            let error = text.parse::<Trusted>().expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
        let nobody = " , ".parse::<Trusted>().expect_err("refused");
        assert!(nobody.to_string().ends_with("nobody is trusted"), "{nobody}");
    }

    #[test]
    fn a_header_is_read_to_its_end_and_no_further() {
        let left = |header: &[u8]| wanted(header).ok();
        assert_eq!(left(b""), Some(Some(12)));
        assert_eq!(left(b"P"), Some(Some(V1_MAX - 1)));
        assert_eq!(left(b"PROXY UNKNOWN\r\n"), Some(None));
        assert_eq!(left(b"POST"), None);
        assert_eq!(left(&[b'P'; 2]), None);
        let long = [b"PROXY ".to_vec(), vec![b'1'; 101]].concat();
        assert_eq!(left(&long), None);
        assert_eq!(left(&V2[..5]), Some(Some(11)));
        let head = |length: u16| [V2, &[0x21, 0x11], &length.to_be_bytes()].concat();
        assert_eq!(left(&head(12)), Some(Some(12)));
        assert_eq!(left(&head(0)), Some(None));
        assert_eq!(left(&[head(300), vec![0; 299]].concat()), Some(Some(1)));
        assert_eq!(left(b"\r\nGET"), None);
    }
}
