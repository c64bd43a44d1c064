//! A web server whose restarts nobody notices: `hello [PID_FILE [ADDRESS]]`.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::{env, error::Error, process, thread, time::Duration};

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
                Ok((stream, _)) => drop(requests.spawn(|| answer(stream))),
                Err(_) if draining => return io::Result::Ok(()), // the queue is empty: close
                Err(_) => {}                                     // nobody came for 100 ms
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
