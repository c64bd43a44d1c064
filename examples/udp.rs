//! A UDP server whose socket is taken over: it sends each datagram back after a line that names the
//! process, and no restart loses one.
//!
//! ```sh
//! udp --listen 127.0.0.1:8080 --pid-file /run/web/web.pid
//! echo hello | socat - UDP:127.0.0.1:8080
//! ```

mod options;

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, UdpSocket},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{self, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use options::Options;
use seamless::sockets;
use socket2::SockRef;

/// The longest datagram of which the answer is one as well.
const LONGEST: usize = 65_000;

fn main() -> ExitCode {
    options::main(SocketAddr::from(([127, 0, 0, 1], 8080)), run)
}

fn run(options: &Options<SocketAddr>) -> Result<(), Box<dyn std::error::Error>> {
    options.config().init()?;
    thread::sleep(options.startup_delay);

    // Two processes read from the same queue: the one that comes too late must not block.
    let socket = sockets::Options::new().nonblocking(true).udp(options.places)?;
    // While all processors are busy, datagrams wait in the buffer, which is as large as the system allows.
    SockRef::from(&socket).set_recv_buffer_size(1 << 20)?;
    log::info!("process {} listens on {}", process::id(), socket.local_addr()?);

    // While this generation stands by for a new one on probation, the new one alone takes from the queue that
    // they share.
    let parked = Parked::new()?;
    seamless::on_standby(parked.setter(true)?);
    seamless::on_resume(parked.setter(false)?);

    // Can be read from as soon as the drain begins.
    let drained = seamless::draining().at_once().fd()?;
    // Until it is dropped, the drain goes on and `drain_timeout` counts.
    let serving = seamless::drain_guard();

    // The socket is there, and so are the datagrams in its queue: the old process may go.
    seamless::started()?;
    echo(&socket, &drained, &parked)?;
    drop(serving);
    let reason = seamless::wait();
    log::info!("process {} has drained: {reason:?}", process::id());
    Ok(())
}

/// Whether this generation stands by. The hooks run on threads of the crate, several times maybe.
struct Parked {
    now: Arc<AtomicBool>,
    /// Can be read from when that has changed: it wakes the thread that waits for datagrams.
    changed: UnixStream,
    wakes: UnixStream,
}

impl Parked {
    fn new() -> io::Result<Parked> {
        let (changed, wakes) = UnixStream::pair()?;
        changed.set_nonblocking(true)?;
        wakes.set_nonblocking(true)?; // if it is full, the thread wakes anyway
        Ok(Parked { now: Arc::default(), changed, wakes })
    }

    fn setter(&self, parked: bool) -> io::Result<impl FnMut() + Send + 'static> {
        let (now, wakes) = (Arc::clone(&self.now), self.wakes.try_clone()?);
        Ok(move || {
            now.store(parked, Ordering::SeqCst);
            _ = (&wakes).write(&[0]);
        })
    }

    /// Reads the wake-ups first: one that comes later is of a change that may not be seen here.
    fn is_parked(&self) -> bool {
        while matches!((&self.changed).read(&mut [0; 64]), Ok(1..)) {}
        self.now.load(Ordering::SeqCst)
    }
}

/// Answers until the drain has begun and the queue is empty. A successor takes from the same queue
/// from its start on.
fn echo(socket: &UdpSocket, drained: &OwnedFd, parked: &Parked) -> io::Result<()> {
    let draining = seamless::draining();
    let mut received = vec![0; LONGEST];
    let mut answer = Vec::new();
    loop {
        // Read first: only an EAGAIN that comes after the drain began says that the queue is empty.
        let last_round = draining.has_begun();
        if parked.is_parked() && !last_round {
            wait([
                (parked.changed.as_fd(), PollFlags::POLLIN),
                (drained.as_fd(), PollFlags::POLLIN),
            ])?;
            continue;
        }
        match socket.recv_from(&mut received) {
            Ok((length, client)) => {
                answer.clear();
                writeln!(answer, "Server pid: {}", process::id())?;
                answer.extend_from_slice(&received[..length]);
                if let Err(error) = send(socket, &answer, client) {
                    log::warn!("no answer to {client}: {error}");
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if last_round {
                    return Ok(());
                }
                wait([
                    (socket.as_fd(), PollFlags::POLLIN),
                    (drained.as_fd(), PollFlags::POLLIN),
                    (parked.changed.as_fd(), PollFlags::POLLIN),
                ])?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn send(socket: &UdpSocket, answer: &[u8], client: SocketAddr) -> io::Result<()> {
    loop {
        match socket.send_to(answer, client) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                wait([(socket.as_fd(), PollFlags::POLLOUT)])?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            ended => return ended.map(drop),
        }
    }
}

/// Waits until one of them is ready or has ended.
fn wait<const N: usize>(for_what: [(impl AsFd, PollFlags); N]) -> io::Result<()> {
    let mut entries = for_what.each_ref().map(|(fd, flags)| PollFd::new(fd.as_fd(), *flags));
    while let Err(errno) = poll(&mut entries, PollTimeout::NONE) {
        if errno != Errno::EINTR {
            return Err(errno.into());
        }
    }
    Ok(())
}
