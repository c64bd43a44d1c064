//! A small DNS server without a library. It answers each TXT question with the PID of the process, also during
//! restarts: as soon as a new process is ready, all questions go to it, and the old one answers what waits in its
//! queues.
//!
//! ```sh
//! dns --listen 127.0.0.1:8053 --pid-file /run/web/web.pid
//! dig @127.0.0.1 -p 8053 pid.example TXT +short
//! ```

mod options;

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, UdpSocket},
    process::{self, ExitCode},
    thread,
    time::{Duration, Instant},
};

use options::Options;
use seamless::sockets::{self, Steer};

/// How many threads answer; each has a socket.
const WORKERS: usize = 2;
/// A datagram that was on its way when the drain began arrives within this time.
const ON_ITS_WAY: Duration = Duration::from_millis(20);
/// How soon a worker sees that the drain has begun.
const LOOK: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    options::main(SocketAddr::from(([127, 0, 0, 1], 8053)), run)
}

fn run(options: &Options<SocketAddr>) -> Result<(), Box<dyn std::error::Error>> {
    options.config().init()?;
    thread::sleep(options.startup_delay);

    let members =
        sockets::Options::new().steer(Steer::Newest).udp_group(options.places, WORKERS)?;
    log::info!("process {} listens on {}", process::id(), members[0].local_addr()?);
    let workers = members.into_iter().map(|member| {
        // Until it is dropped, the drain goes on and `drain_timeout` counts.
        let serving = seamless::drain_guard();
        thread::spawn(move || {
            let done = serve(&member);
            drop(serving);
            done
        })
    });
    let workers: Vec<_> = workers.collect();

    // From here on all questions come to this process.
    seamless::started()?;
    let reason = seamless::wait();
    for worker in workers {
        worker.join().expect("no panic")?;
    }
    log::info!("process {} has drained: {reason:?}", process::id());
    Ok(())
}

/// Answers until the drain has begun, nothing waits, and nothing is on its way any more.
fn serve(member: &UdpSocket) -> io::Result<()> {
    let draining = seamless::draining();
    // The sockets of a steered group are shared with successors, which use them only when this process has
    // ended: so it may set what it likes.
    member.set_read_timeout(Some(LOOK))?;
    let mut last_look = None;
    let mut received = [0; 1500];
    loop {
        if last_look.is_none() && draining.has_begun() {
            member.set_read_timeout(Some(Duration::from_millis(1)))?;
            last_look = Some(Instant::now() + ON_ITS_WAY);
        }
        match member.recv_from(&mut received) {
            Ok((length, client)) => {
                if let Some(answer) = answer(&received[..length]) {
                    if let Err(error) = member.send_to(&answer, client) {
                        log::warn!("no answer to {client}: {error}");
                    }
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if last_look.is_some_and(|last| Instant::now() >= last) {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The answer to one question (RFC 1035, section 4). `None` if it is not a question.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    const HEAD: usize = 12;
    const TXT: u16 = 16;
    let number = |at: usize| Some(u16::from_be_bytes(question.get(at..at + 2)?.try_into().ok()?));
    let flags = number(2)?;
    let is_answer = flags & 0x8000 != 0;
    if is_answer || number(4)? != 1 {
        return None;
    }
    let mut at = HEAD;
    loop {
        match usize::from(*question.get(at)?) {
            0 => break,
            length @ 1..64 => at += 1 + length,
            _ => return None, // questions are not compressed
        }
    }
    let kind = number(at + 1)?;
    let asked = question.get(HEAD..at + 5)?;
    let found = kind == TXT;
    let text = format!("Server pid: {}", process::id());
    let mut answer = question[..2].to_vec();
    // An answer with authority; recursion if that was asked for is not available.
    answer.extend((0x8400 | flags & 0x0100).to_be_bytes());
    answer.extend([0, 1, 0, u8::from(found), 0, 0, 0, 0]);
    answer.extend(asked);
    if found {
        answer.extend([0xc0, HEAD as u8, 0, TXT as u8, 0, 1, 0, 0, 0, 0]);
        answer.extend((text.len() as u16 + 1).to_be_bytes());
        answer.push(text.len() as u8);
        answer.extend(text.as_bytes());
    }
    Some(answer)
}
