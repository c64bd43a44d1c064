//! One request on the wire, and the kind of what went wrong with it.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use nix::sys::{
    socket::{setsockopt, sockopt::IpBindAddressNoPort},
    stat::fstat,
};
use tokio::net::{TcpSocket, TcpStream, UdpSocket, UnixStream};

use super::{Failure, Origin, Target};
use seamless_testing::boxed;

/// A Unix socket with a full backlog says EAGAIN to a connect that must not block, and nothing tells
/// when to try again.
const BACKLOG_PAUSE: Duration = Duration::from_millis(1);

/// Source addresses, from 127.0.1.1 on.
const SOURCES: usize = 250;

/// A whole answer of the server.
pub(super) struct Answer {
    pub(super) pid: u32,
    /// The server lets the connection be used again.
    pub(super) reusable: bool,
}

/// What is asked, and how.
#[derive(Debug, Clone)]
pub(super) enum Server {
    Http(Target),
    Udp(SocketAddr),
}

pub(super) enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
    Udp(UdpSocket),
}

impl Connection {
    /// Connects; `turn` chooses the source address.
    pub(super) async fn open(server: &Server, turn: usize) -> Result<Self, Failure> {
        let connected = match server {
            Server::Http(Target::Tcp(address)) => {
                let opened = match open_tcp(*address, turn).await {
                    Err(error) if boxed::is_reset_by_linux(&error) => {
                        open_tcp(*address, turn).await
                    }
                    ended => ended,
                };
                opened.map(Connection::Tcp)
            }
            Server::Http(Target::Unix(path)) => open_unix(path).await.map(Connection::Unix),
            Server::Udp(address) => open_udp(*address, turn).await.map(Connection::Udp),
        };
        connected.map_err(|error| of_connect(&error))
    }

    pub(super) fn origin(&self) -> Option<Origin> {
        match self {
            Connection::Tcp(stream) => stream.local_addr().ok().map(Origin::Tcp),
            Connection::Unix(stream) => fstat(stream).ok().map(|stat| Origin::Unix(stat.st_ino)),
            Connection::Udp(_) => None,
        }
    }

    /// Sends the request and reads the whole answer.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> Result<Answer, Failure> {
        if let Connection::Udp(socket) = self {
            return ask_by_datagram(socket, request).await;
        }
        // A reset that the write meets is not met by the read again, which sees an end only. But
        // what the server had sent before is still to be read.
        let sent = self.send(request).await;
        let mut received = Vec::with_capacity(1024);
        let mut chunk = [0; 4096];
        loop {
            let whole = match self.receive(&mut chunk).await {
                Ok(0) => {
                    return match (parse(&received, true), &sent) {
                        (Parsed::Whole(answer), _) => Ok(answer),
                        (Parsed::Bad, _) => Err(Failure::BadAnswer),
                        (Parsed::Partial, Err(error)) => {
                            Err(of_exchange(error, !received.is_empty()))
                        }
                        (Parsed::Partial, Ok(())) if received.is_empty() => {
                            Err(Failure::EofBeforeAnswer)
                        }
                        (Parsed::Partial, Ok(())) => Err(Failure::EofMidAnswer),
                    };
                }
                Ok(length) => {
                    received.extend_from_slice(&chunk[..length]);
                    parse(&received, false)
                }
                Err(error) => return Err(of_exchange(&error, !received.is_empty())),
            };
            match whole {
                Parsed::Whole(answer) => return Ok(answer),
                Parsed::Bad => return Err(Failure::BadAnswer),
                Parsed::Partial => {}
            }
        }
    }

    async fn send(&self, mut rest: &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            let sent = match self {
                Connection::Tcp(stream) => stream.try_write(rest),
                Connection::Unix(stream) => stream.try_write(rest),
                Connection::Udp(socket) => socket.try_send(rest),
            };
            match sent {
                Ok(length) => rest = &rest[length..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => match self {
                    Connection::Tcp(stream) => stream.writable().await?,
                    Connection::Unix(stream) => stream.writable().await?,
                    Connection::Udp(socket) => socket.writable().await?,
                },
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn receive(&self, chunk: &mut [u8]) -> io::Result<usize> {
        loop {
            let received = match self {
                Connection::Tcp(stream) => {
                    stream.readable().await?;
                    stream.try_read(chunk)
                }
                Connection::Unix(stream) => {
                    stream.readable().await?;
                    stream.try_read(chunk)
                }
                Connection::Udp(socket) => {
                    socket.readable().await?;
                    socket.try_recv(chunk)
                }
            };
            match received {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                ended => return ended,
            }
        }
    }
}

async fn open_tcp(address: SocketAddr, turn: usize) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(source) = source(address, turn) {
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(source)?;
    }
    socket.connect(address).await
}

/// An address of our own to connect from, where any will do for `address`.
fn source(address: SocketAddr, turn: usize) -> Option<SocketAddr> {
    let host = u8::try_from(turn % SOURCES + 1).expect("250 sources fit in a byte");
    let source = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 1, host)), 0);
    (address.is_ipv4() && address.ip().is_loopback()).then_some(source)
}

/// Connected, so that nobody else's datagram is taken for the answer, and a port where nobody
/// listens refuses.
async fn open_udp(address: SocketAddr, turn: usize) -> io::Result<UdpSocket> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = source(address, turn).unwrap_or(SocketAddr::new(any, 0));
    let socket = UdpSocket::bind(source).await?;
    socket.connect(address).await?;
    Ok(socket)
}

async fn ask_by_datagram(socket: &UdpSocket, request: &[u8]) -> Result<Answer, Failure> {
    let mut answer = [0; 1024];
    let exchange = async {
        socket.send(request).await?;
        socket.recv(&mut answer).await
    };
    let length = exchange.await.map_err(|error| of_exchange(&error, false))?;
    let text = std::str::from_utf8(&answer[..length]).ok();
    let (pid, rest) = text
        .and_then(|text| text.strip_prefix("Server pid: ")?.split_once('\n'))
        .ok_or(Failure::BadAnswer)?;
    match pid.parse() {
        Ok(pid) if rest.as_bytes() == request => Ok(Answer { pid, reusable: true }),
        _ => Err(Failure::BadAnswer),
    }
}

async fn open_unix(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                tokio::time::sleep(BACKLOG_PAUSE).await
            }
            ended => return ended,
        }
    }
}

fn of_connect(error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::ConnectionRefused => Failure::Refused,
        ErrorKind::NotFound => Failure::NotFound,
        ErrorKind::AddrNotAvailable => Failure::PortsExhausted,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => Failure::ResetConnecting,
        _ => Failure::Other(error.raw_os_error().unwrap_or(0)),
    }
}

fn of_exchange(error: &io::Error, answer_begun: bool) -> Failure {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe if answer_begun => {
            Failure::ResetMidAnswer
        }
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Failure::ResetBeforeAnswer,
        ErrorKind::ConnectionRefused => Failure::Refused, // a datagram
        _ => Failure::Other(error.raw_os_error().unwrap_or(0)),
    }
}

enum Parsed {
    Partial,
    Whole(Answer),
    Bad,
}

/// Reads an answer of which `received` is here; `ended` where no more will come.
fn parse(received: &[u8], ended: bool) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let begin = match head.parse(received) {
        Ok(httparse::Status::Complete(begin)) => begin,
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(_) => return Parsed::Bad,
    };
    let field = |name: &str| {
        let found = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let body = &received[begin..];
    let length = match field("content-length") {
        Some(text) => match text.trim().parse::<usize>() {
            Ok(length) => Some(length),
            Err(_) => return Parsed::Bad,
        },
        None => None,
    };
    let body = match length {
        _ if head.code != Some(200) => return Parsed::Bad,
        Some(length) if body.len() > length => return Parsed::Bad,
        Some(length) if body.len() < length => return Parsed::Partial,
        None if !ended => return Parsed::Partial,
        Some(_) | None => body,
    };
    let close = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let reusable = length.is_some() && !ended && !close && head.version == Some(1);
    let text = std::str::from_utf8(body).ok();
    match text
        .and_then(|text| text.trim().strip_prefix("Server pid: "))
        .and_then(|pid| pid.trim().parse().ok())
    {
        Some(pid) => Parsed::Whole(Answer { pid, reusable }),
        None => Parsed::Bad,
    }
}
