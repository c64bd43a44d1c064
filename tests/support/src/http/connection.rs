//! One connection, byte by byte.

use std::{
    io::{self, ErrorKind, Read, Write},
    mem,
    time::Duration,
};

use socket2::{Domain, SockAddr, Socket, Type};

use super::{Failure, FailureKind, Response, Target, parse};
use crate::{LIMIT, boxed, process, tcp, wait_for};

/// A connection to a server. What has come is not lost with a read that fails.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    unread: Vec<u8>,
}

impl Connection {
    /// Nothing has been asked yet.
    #[track_caller]
    pub fn to(target: &Target) -> Self {
        Self::within(LIMIT, target)
    }

    /// The same; connecting, sending and each read may take so long.
    #[track_caller]
    pub fn within(limit: Duration, target: &Target) -> Self {
        Self::try_within(limit, target).unwrap_or_else(|error| panic!("{target}: {error}"))
    }

    pub(super) fn try_within(limit: Duration, target: &Target) -> io::Result<Self> {
        let socket = connect(limit, target)?;
        if matches!(target, Target::Tcp(_)) {
            socket.set_tcp_nodelay(true)?;
        }
        Ok(Connection { socket, unread: Vec::new() })
    }

    /// With a request whose last line is still to be sent, so that its server cannot answer yet.
    #[track_caller]
    pub fn unfinished(target: &Target) -> Self {
        let mut connection = Self::to(target);
        connection.begin();
        connection
    }

    /// With a whole request.
    #[track_caller]
    pub fn ask(target: &Target, path: &str) -> Self {
        let mut connection = Self::to(target);
        connection.try_ask(path).expect("the request is sent");
        connection
    }

    pub(super) fn try_ask(&mut self, path: &str) -> io::Result<()> {
        let end = "Host: localhost\r\nConnection: close\r\n\r\n";
        self.socket.write_all(format!("GET {path} HTTP/1.1\r\n{end}").as_bytes())
    }

    #[track_caller]
    pub fn send(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).expect("all of it sent");
    }

    /// Sends a request without its last line.
    #[track_caller]
    pub fn begin(&mut self) {
        self.try_begin().expect("the first part");
    }

    pub(super) fn try_begin(&mut self) -> io::Result<()> {
        self.socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
    }

    /// The client's.
    pub fn port(&self) -> u16 {
        let address = self.socket.local_addr().ok().and_then(|address| address.as_socket());
        address.expect("a TCP socket has an address").port()
    }

    /// Waits until this process has accepted it: where generations share a socket, the next one may
    /// be as quick.
    #[track_caller]
    pub fn wait_accepted(&self, pid: u32) {
        let [server, client] = [self.socket.peer_addr(), self.socket.local_addr()]
            .map(|address| address.expect("an address").as_socket_ipv4().expect("by IPv4"));
        wait_for(format!("{pid} accepts a connection"), LIMIT, || {
            let accepted = process::socket(tcp::connection(server, client)?);
            process::descriptors(pid).iter().any(|(_, what)| *what == accepted).then_some(())
        });
    }

    /// Sends the rest, and returns all that the server answers until it closes the connection.
    #[track_caller]
    pub fn finish(mut self) -> String {
        self.socket.write_all(b"\r\n").expect("the rest");
        self.read_to_end()
    }

    /// Sends the rest, and waits for the answer.
    pub fn try_finish(mut self) -> Result<Response, Failure> {
        self.socket.write_all(b"Connection: close\r\n\r\n")?;
        self.response()
    }

    /// Waits for the answer to a request that was sent.
    pub fn response(mut self) -> Result<Response, Failure> {
        loop {
            if let Some(response) = parse(&self.unread)? {
                return Ok(response);
            }
            match self.receive() {
                Ok(0) => {
                    let text = format!("after {} bytes of an answer", self.unread.len());
                    return Err(Failure { kind: FailureKind::Closed, text });
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends the rest, and returns the answer as soon as it is there. The connection stays open.
    #[track_caller]
    pub fn answer(&mut self) -> String {
        self.socket.write_all(b"\r\n").expect("the rest");
        let head = self.read_until("\r\n\r\n");
        let body = self.read_until("\n");
        assert!(body.starts_with("Server pid: "), "{head}{body}");
        head + &body
    }

    /// Reads on until this has come.
    #[track_caller]
    pub fn read_until(&mut self, end: &str) -> String {
        let end = end.as_bytes();
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|part| part == end) {
                let rest = self.unread.split_off(at + end.len());
                let found = mem::replace(&mut self.unread, rest);
                return String::from_utf8(found).expect("text");
            }
            let count = self.receive().expect("an answer");
            let so_far = String::from_utf8_lossy(&self.unread);
            assert!(count > 0, "the connection ended: {so_far:?}");
        }
    }

    /// The next so many bytes.
    #[track_caller]
    pub fn read_bytes(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            assert!(self.receive().expect("an answer") > 0, "ended after {}", self.unread.len());
        }
        let rest = self.unread.split_off(count);
        mem::replace(&mut self.unread, rest)
    }

    /// All that comes until the server closes the connection.
    #[track_caller]
    pub fn read_to_end(mut self) -> String {
        while self.receive().expect("an answer, and then its end") > 0 {}
        String::from_utf8(self.unread).expect("text")
    }

    /// All that comes, and how it ends: `None` if in an orderly way.
    pub fn read_to_failure(mut self) -> (Vec<u8>, Option<ErrorKind>) {
        let failure = loop {
            match self.receive() {
                Ok(0) => break None,
                Ok(_) => {}
                Err(error) => break Some(error.kind()),
            }
        };
        (self.unread, failure)
    }

    fn receive(&mut self) -> io::Result<usize> {
        let mut part = [0; 4096];
        let count = self.socket.read(&mut part)?;
        self.unread.extend_from_slice(&part[..count]);
        Ok(count)
    }

    /// Has anything come?
    pub fn has_answer(&self) -> bool {
        self.socket.set_nonblocking(true).expect("a socket");
        let answered = self.socket.peek(&mut [mem::MaybeUninit::uninit()]).is_ok();
        self.socket.set_nonblocking(false).expect("a socket");
        answered
    }

    /// What has come so far is not looked at.
    pub fn skip(&mut self) {
        self.unread.clear();
    }

    /// For what else may be done with it.
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// How long a read may take from now on.
    pub fn set_limit(&mut self, limit: Duration) {
        self.socket.set_read_timeout(Some(limit)).expect("a limit");
    }

    /// Waits until the server closes the connection; nothing more comes.
    #[track_caller]
    pub fn ends(&mut self) {
        assert_eq!(self.unread, b"");
        assert_eq!(self.socket.read(&mut [0]).expect("an orderly end"), 0);
    }
}

/// The body of every answer.
pub fn answer_of(pid: u32) -> String {
    format!("\r\n\r\nServer pid: {pid}\n")
}

fn connect(limit: Duration, target: &Target) -> io::Result<Socket> {
    match connect_once(limit, target) {
        Err(error) if boxed::is_reset_by_linux(&error) => connect_once(limit, target),
        ended => ended,
    }
}

fn connect_once(limit: Duration, target: &Target) -> io::Result<Socket> {
    let (domain, address) = match target {
        Target::Tcp(address) => (Domain::for_address(*address), SockAddr::from(*address)),
        Target::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
    };
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.set_read_timeout(Some(limit))?;
    // Linux takes it for the connect, too.
    socket.set_write_timeout(Some(limit))?;
    socket.connect(&address)?;
    Ok(socket)
}
