//! A web server whose restarts nobody notices: `hello [PID_FILE [ADDRESS]]`.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, Builder};
use std::{env, error::Error, process, time::Duration};

use socket2::{Domain, Socket, Type};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let pid_file = args.next().unwrap_or("/run/web/web.pid".into());
    let address: SocketAddr = args.next().unwrap_or("127.0.0.1:8080".into()).parse()?;

    seamless::init(pid_file)?; // returns in the daemon, a child of the supervisor's process

    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_port(true)?; // during a restart the old and the new daemon listen
    socket.set_read_timeout(Some(Duration::from_millis(100)))?; // how long `accept` waits
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    seamless::started()?; // we listen: the old daemon answers what it has accepted, and ends

    let listener = TcpListener::from(socket);
    thread::scope(move |requests| {
        loop {
            let draining = seamless::draining().has_begun();
            listener.set_nonblocking(draining)?;
            match listener.accept() {
                // Without a thread, the client is let go.
                Ok((stream, _)) => drop(Builder::new().spawn_scoped(requests, || answer(stream))),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if draining {
                        return io::Result::Ok(()); // the queue is empty: close
                    } // else nobody came for 100 ms
                }
                Err(_) => thread::sleep(Duration::from_millis(10)), // out of descriptors
            }
        }
    })?; // goes on when the last request is answered
    seamless::wait();
    Ok(())
}

fn answer(stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut head = BufReader::new(&stream).lines();
    head.all(|line| line.is_ok_and(|line| !line.is_empty()));
    let pid = process::id();
    let text = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nServer pid: {pid}\n");
    (&stream).write_all(text.as_bytes())
}
