//! WebSockets that survive restarts, with their session: `ws [PID_FILE [ADDRESS]]`.
//!
//! Each session counts the texts of its client. The answer to a text is its number, the PID of this process, and
//! the text. The client connects once, and never sees a restart: no Close frame, no new connection, and no number that
//! is missing or comes twice.
//!
//! When the drain begins, each connection is passed to the successor, together with the half of a frame that has
//! arrived (`unread`), the first fragments of a message, and what is still to be written (`state`). If a connection
//! cannot be passed, it is served on.
//!
//! The frames are parsed here, since libraries do not give back what they have read. Without extensions the frames are
//! simple (RFC 6455, section 5.2).

use seamless::connections::tokio::{Arrived, accept, pass};
use std::io::{self, ErrorKind};
use std::{env, error::Error, process, time::Duration};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tungstenite::handshake::derive_accept_key;

/// A change of what [`Session::state`] writes gets another name.
const KIND: &str = "ws/1";
/// How long a client may take to send the head of its request.
const HANDSHAKE: Duration = Duration::from_secs(10);
const LONGEST_HEAD: usize = 16 << 10;
/// The longest message, and as much may wait to be read by the client: then nothing more is read from it.
const LONGEST: usize = 1 << 20;

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let pid_file = args.next().unwrap_or("/run/ws/ws.pid".into());
    let address = args.next().unwrap_or("127.0.0.1:7001".into());
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();

    seamless::Config::new(pid_file).drain_timeout(Duration::from_secs(3600)).init()?;
    Runtime::new()?.block_on(async {
        let mut arriving = accept::<TcpStream>(KIND)?;
        let mut listener = seamless::sockets::tokio::tcp(address)?;
        seamless::started()?;
        tokio::spawn(async move {
            loop {
                let Arrived { stream, unread, state, guard, .. } = arriving.next().await;
                let session = Session::arrived(&state);
                tokio::spawn(async move { ended(serve(stream, unread, session).await, guard) });
            }
        });
        while let Some((stream, _)) = listener.next().await {
            let guard = seamless::drain_guard();
            tokio::spawn(async move { ended(begin(stream).await, guard) });
        }
        seamless::finished().await;
        Ok(())
    })
}

fn ended(result: io::Result<()>, guard: seamless::DrainGuard) {
    if let Err(error) = result {
        log::debug!("connection: {error}");
    }
    drop(guard);
}

/// All of a connection but its socket and half a frame.
#[derive(Default)]
struct Session {
    /// How many texts the client has sent.
    count: u64,
    /// The first fragments of a message; `None` between two messages.
    message: Option<Vec<u8>>,
    /// To be written.
    unsent: Vec<u8>,
    /// The client has closed the session: it ends when all is written.
    over: bool,
}

impl Session {
    fn state(&self) -> Vec<u8> {
        let message = self.message.as_ref();
        let length = message.map_or("-".to_owned(), |message| message.len().to_string());
        let head = format!("{} {} {length}\n", self.count, u8::from(self.over));
        [head.as_bytes(), message.map_or(&[], |message| message), &self.unsent].concat()
    }

    fn arrived(state: &[u8]) -> Session {
        const FORM: &str = "as `state` writes it";
        let end = state.iter().position(|byte| *byte == b'\n').expect(FORM);
        let (head, rest) = (std::str::from_utf8(&state[..end]).expect(FORM), &state[end + 1..]);
        let [count, over, length] = head.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{FORM}")
        };
        let (message, unsent) = match length.parse() {
            Ok(length) => (Some(rest[..length].to_vec()), &rest[length..]),
            Err(_) => (None, rest),
        };
        Session {
            count: count.parse().expect(FORM),
            over: over == "1",
            message,
            unsent: unsent.to_vec(),
        }
    }

    fn take(&mut self, frame: Frame) {
        match frame.opcode {
            PING => self.send(PONG, &frame.payload),
            CLOSE => {
                self.send(CLOSE, &frame.payload);
                self.over = true;
            }
            opcode if opcode < CLOSE => {
                let message = self.message.get_or_insert_default();
                message.extend_from_slice(&frame.payload);
                if let Some(message) = self.message.take_if(|_| frame.is_last) {
                    let text = String::from_utf8_lossy(&message);
                    let answer = format!("{} {} {text}", self.count, process::id());
                    self.send(TEXT, answer.as_bytes());
                    self.count += 1;
                }
            }
            _ => {}
        }
    }

    /// A server does not mask.
    fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.unsent.push(0x80 | opcode);
        match payload.len() {
            short @ ..126 => self.unsent.push(short as u8),
            length @ 126..65536 => {
                self.unsent.push(126);
                self.unsent.extend_from_slice(&(length as u16).to_be_bytes());
            }
            long => {
                self.unsent.push(127);
                self.unsent.extend_from_slice(&(long as u64).to_be_bytes());
            }
        }
        self.unsent.extend_from_slice(payload);
    }
}

struct Frame {
    is_last: bool,
    opcode: u8,
    payload: Vec<u8>,
}

impl Frame {
    /// The first frame in these bytes, and its length. `None`: it is not complete yet.
    fn first(bytes: &[u8]) -> io::Result<Option<(Frame, usize)>> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        if second & 0x80 == 0 {
            return Err(io::Error::new(ErrorKind::InvalidData, "a client that does not mask"));
        }
        let (size, more) = match second & 0x7f {
            126 => (rest.first_chunk().map(|two| u64::from(u16::from_be_bytes(*two))), 2),
            127 => (rest.first_chunk().map(|eight| u64::from_be_bytes(*eight)), 8),
            short => (Some(u64::from(short)), 0),
        };
        let Some(size) = size else { return Ok(None) };
        let size = usize::try_from(size).ok().filter(|size| *size <= LONGEST);
        let size = size.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "a long frame"))?;
        let Some((mask, payload)) = rest[more..].split_first_chunk::<4>() else { return Ok(None) };
        let Some(payload) = payload.get(..size) else { return Ok(None) };
        let plain = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        let frame =
            Frame { is_last: first & 0x80 != 0, opcode: first & 0x0f, payload: plain.collect() };
        Ok(Some((frame, 2 + more + 4 + size)))
    }
}

/// The handshake. It is short, so it is not passed.
async fn begin(stream: TcpStream) -> io::Result<()> {
    let Ok(head) = timeout(HANDSHAKE, head(&stream)).await else { return Ok(()) };
    let Some((mut unread, end)) = head? else { return Ok(()) };
    let head: Vec<u8> = unread.drain(..end).collect();
    let head = String::from_utf8_lossy(&head);
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    let key = fields.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    let mut session = Session::default();
    match key {
        Some((_, key)) => {
            let accept = derive_accept_key(key.trim().as_bytes());
            let answer =
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
            let answer = format!("{answer}Sec-WebSocket-Accept: {accept}\r\n\r\n");
            session.unsent.extend_from_slice(answer.as_bytes());
        }
        None => {
            let answer =
                b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n";
            session.unsent.extend_from_slice(answer);
            session.over = true;
        }
    }
    serve(stream, unread, session).await
}

/// The head of the request, with what has come after it; and its length. `None`: the client has gone.
async fn head(stream: &TcpStream) -> io::Result<Option<(Vec<u8>, usize)>> {
    let mut unread = Vec::new();
    loop {
        if let Some(at) = unread.windows(4).position(|part| part == b"\r\n\r\n") {
            return Ok(Some((unread, at + 4)));
        }
        stream.readable().await?;
        if !read(stream, &mut unread)? || unread.len() > LONGEST_HEAD {
            return Ok(None);
        }
    }
}

async fn serve(mut stream: TcpStream, mut unread: Vec<u8>, mut session: Session) -> io::Result<()> {
    let mut draining = seamless::draining().at_once();
    let mut may_pass = true;
    loop {
        while let Some((frame, used)) = Frame::first(&unread)? {
            unread.drain(..used);
            session.take(frame);
        }
        if session.message.as_ref().is_some_and(|message| message.len() > LONGEST) {
            return Err(io::Error::new(ErrorKind::InvalidData, "a long message"));
        }
        if session.over && session.unsent.is_empty() {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = &mut draining, if may_pass => {
                match pass(KIND, stream, unread, session.state()).await {
                    Ok(()) => return Ok(()),
                    Err(stays) => {
                        log::info!("a connection stays: {}", stays.reason);
                        (stream, unread, may_pass) = (stays.stream?, stays.unread, false);
                    }
                }
            }
            ready = stream.writable(), if !session.unsent.is_empty() => {
                ready?;
                match stream.try_write(&session.unsent) {
                    Ok(written) => drop(session.unsent.drain(..written)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            ready = stream.readable(), if !session.over && session.unsent.len() < LONGEST => {
                ready?;
                if !read(&stream, &mut unread)? {
                    return Ok(());
                }
            }
        }
    }
}

/// `false`: the client has gone.
fn read(stream: &TcpStream, unread: &mut Vec<u8>) -> io::Result<bool> {
    let mut bytes = [0; 4096];
    match stream.try_read(&mut bytes) {
        Ok(0) => Ok(false),
        Ok(count) => {
            unread.extend_from_slice(&bytes[..count]);
            Ok(true)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}
