//! Threads of `std`, one for each connection.

use seamless_frameworks::{arguments, hello};
use std::error::Error;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// How often a thread that waits looks whether the drain has begun.
const TICK: Duration = Duration::from_millis(50);
/// How long a client may be silent before its connection is closed: usually, and in the drain.
const IDLE: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(1)];

fn main() -> Result<(), Box<dyn Error>> {
    let (pid_file, address) = arguments();
    seamless::init(pid_file)?;
    let listener = seamless::sockets::Options::new().nonblocking(true).tcp(address)?;
    seamless::started()?;
    accept(&listener);
    drop(listener);
    seamless::wait(); // for the drain guards
    Ok(())
}

/// Until the drain has begun. Then the successor accepts, and at a stop the queue is emptied.
fn accept(listener: &TcpListener) {
    loop {
        let draining = seamless::draining().has_begun();
        match listener.accept() {
            Ok((stream, _)) => {
                let guard = seamless::drain_guard(); // the process lives until the answer is sent
                // Without a thread, the client is let go.
                _ = thread::Builder::new().spawn(move || {
                    _ = serve(&stream);
                    drop(guard);
                });
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && draining => return,
            Err(_) => thread::sleep(TICK / 50), // nobody came, or out of descriptors
        }
    }
}

/// Requests without a body.
fn serve(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(TICK))?;
    let mut reader = BufReader::new(stream);
    while wait_for_a_request(&mut reader)? {
        stream.set_read_timeout(Some(IDLE[0]))?;
        let mut line = String::new();
        while reader.read_line(&mut line)? > 2 {
            line.clear();
        }
        let closes = seamless::draining().has_begun();
        let (text, connection) = (hello(), if closes { "close" } else { "keep-alive" });
        let answer = format!(
            "HTTP/1.1 200 OK\r\nConnection: {connection}\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        );
        (&mut &*stream).write_all(answer.as_bytes())?;
        if closes {
            break;
        }
        stream.set_read_timeout(Some(TICK))?;
    }
    Ok(())
}

/// `false` if the client has closed, or was silent for too long. A drain does not end this at once: a
/// request may be on its way.
fn wait_for_a_request(reader: &mut impl BufRead) -> io::Result<bool> {
    let mut since = Instant::now();
    let mut drained = false;
    loop {
        match reader.fill_buf() {
            Ok(bytes) => return Ok(!bytes.is_empty()),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        if seamless::draining().has_begun() && !drained {
            (since, drained) = (Instant::now(), true);
        }
        if since.elapsed() > IDLE[usize::from(drained)] {
            return Ok(false);
        }
    }
}
