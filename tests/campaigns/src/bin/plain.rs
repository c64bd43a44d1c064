//! The server of the example `threads` without the crate: what the crate's start is measured
//! against. TERM ends it as it ends any program.

use std::{
    error::Error,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process, thread,
    time::Duration,
};

use lexopt::prelude::*;
use socket2::{Domain, Socket, Type};

const READ_LIMIT: Duration = Duration::from_secs(10);
const MAX_HEAD: usize = 16 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let mut address = SocketAddr::from(([127, 0, 0, 1], 8080));
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("listen") => address = args.value()?.parse()?,
            _ => return Err(arg.unexpected().into()),
        }
    }
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();

    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    let listener = TcpListener::from(socket);
    log::info!("process {} listens on {}", process::id(), listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        thread::Builder::new().spawn(move || {
            if let Err(error) = converse(stream) {
                log::debug!("connection: {error}");
            }
        })?;
    }
    Ok(())
}

fn converse(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(READ_LIMIT))?;
    let mut received = Vec::new();
    let mut chunk = [0; 2048];
    loop {
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            count => received.extend_from_slice(&chunk[..count]),
        }
        let Some((length, keep_alive)) = parse(&received)? else {
            continue;
        };
        received.drain(..length);
        let text = format!("Server pid: {}\n", process::id());
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let length = text.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
             Connection: {connection}\r\n\r\n{text}"
        );
        stream.write_all(answer.as_bytes())?;
        if !keep_alive {
            return Ok(());
        }
    }
}

/// The length of the request at the start of `received` and whether another may follow it, once it
/// is complete. It has no body: only our own clients ask here.
fn parse(received: &[u8]) -> io::Result<Option<(usize, bool)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut headers);
    match head.parse(received) {
        Ok(httparse::Status::Complete(length)) => {
            let close = |header: &httparse::Header| {
                header.name.eq_ignore_ascii_case("connection")
                    && header.value.eq_ignore_ascii_case(b"close")
            };
            let keep_alive = head.version == Some(1) && !head.headers.iter().any(close);
            Ok(Some((length, keep_alive)))
        }
        Ok(httparse::Status::Partial) if received.len() < MAX_HEAD => Ok(None),
        _ => Err(ErrorKind::InvalidData.into()),
    }
}
