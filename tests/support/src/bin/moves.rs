//! The test service whose connections move: it counts lines. A client sends `0`, `1`, `2`… in lines of their own, and
//! each is answered with the PID and the same number. A line that is not the next one is answered with `wrong`. What
//! follows the number in a line is ignored.
//!
//! `--kind NAME` of its connections, `--accepts NAME` (`none`: nothing). `--load BYTES` more of state. `--again`: what
//! cannot be passed is tried again each 100 ms. `--refuse`: takes nothing. `--stop-in admit`, `--stop-in serve`: the
//! process stops itself when the first connection arrives, before and after it has answered. `--panic-in admit`,
//! `--panic-in serve`: for the first one. `--slow TIME`: so long for each connection that arrives. `--files N`: its limit of open files.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::fd::{AsFd, OwnedFd},
    process,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use lexopt::prelude::*;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        resource::{Resource, setrlimit},
        signal::{Signal, raise},
    },
};
use seamless::connections::{self, Connection};

/// When a connection is passed again that stays.
const AGAIN: Duration = Duration::from_millis(100);

struct Options {
    kind: String,
    load: usize,
    again: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let mut options = Options { kind: "moves".to_owned(), load: 0, again: false };
    let (mut pid_file, mut listen, mut files) = (String::new(), String::new(), None);
    let mut accepts = "moves".to_owned();
    let (mut stop_in, mut panic_in, mut refuse) = (String::new(), String::new(), false);
    let (mut probation, mut drain_timeout, mut slow) = (None, None, Duration::ZERO);
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        let Long(name) = arg else { return Err(arg.unexpected().into()) };
        let name = name.to_owned();
        let mut value = || args.value().and_then(|value| value.string());
        match &*name {
            "pid-file" => pid_file = value()?,
            "listen" => listen = value()?,
            "kind" => options.kind = value()?,
            "accepts" => accepts = value()?,
            "load" => options.load = value()?.parse()?,
            "again" => options.again = true,
            "refuse" => refuse = true,
            "stop-in" => stop_in = value()?,
            "panic-in" => panic_in = value()?,
            "slow" => slow = humantime::parse_duration(&value()?)?,
            "files" => files = Some(value()?.parse()?),
            "probation" => probation = Some(humantime::parse_duration(&value()?)?),
            "drain-timeout" => drain_timeout = Some(humantime::parse_duration(&value()?)?),
            _ => return Err(format!("no such option: {name}").into()),
        }
    }
    let config = seamless::Config::new(pid_file).probation(probation);
    let config = match drain_timeout {
        Some(limit) => config.drain_timeout(limit),
        None => config,
    };
    config.init()?;
    if let Some(files) = files {
        setrlimit(Resource::RLIMIT_NOFILE, files, files)?;
    }
    let options = Arc::new(options);
    if accepts != "none" {
        let theirs = Arc::clone(&options);
        let first = AtomicBool::new(true);
        connections::accept_if(&accepts, move |_| {
            let is_first = first.swap(false, Ordering::SeqCst);
            let now = |what: &str, place: &str| is_first && what == place;
            if now(&stop_in, "admit") {
                stop();
            }
            assert!(!now(&panic_in, "admit"), "as it was told");
            thread::sleep(slow);
            let (stops, panics) = (now(&stop_in, "serve"), now(&panic_in, "serve"));
            let options = Arc::clone(&theirs);
            (!refuse).then_some(move |connection: Connection| {
                if stops {
                    stop();
                }
                assert!(!panics, "as it was told");
                let state = String::from_utf8(connection.state).expect("text");
                let count = state.split(' ').next().and_then(|count| count.parse().ok());
                let unread = connection.unread;
                begin(connection.fd, unread, count.expect("a count"), &options);
            })
        })?;
    }
    let listener = seamless::sockets::tcp(listen)?;
    seamless::started()?;
    listener.set_nonblocking(true)?;
    loop {
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false)?;
            begin(stream.into(), Vec::new(), 0, &options);
        }
        if seamless::draining().has_begun() {
            break;
        }
        let fds = [listener.as_fd(), drain().as_fd()];
        let mut fds = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        _ = poll(&mut fds, PollTimeout::NONE);
    }
    drop(listener);
    seamless::wait();
    Ok(())
}

/// Stops this process, and this thread at once.
fn stop() {
    raise(Signal::SIGSTOP).expect("a signal");
}

/// Readable when the drain has begun.
fn drain() -> &'static OwnedFd {
    static DRAIN: OnceLock<OwnedFd> = OnceLock::new();
    DRAIN.get_or_init(|| seamless::draining().at_once().fd().expect("a descriptor"))
}

fn begin(fd: OwnedFd, unread: Vec<u8>, count: u64, options: &Arc<Options>) {
    let (guard, options) = (seamless::drain_guard(), Arc::clone(options));
    thread::spawn(move || {
        serve(TcpStream::from(fd), unread, count, &options);
        drop(guard);
    });
}

fn serve(mut stream: TcpStream, mut unread: Vec<u8>, mut count: u64, options: &Options) {
    let pid = process::id();
    let (mut tries, mut tried) = (true, Instant::now());
    loop {
        while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = unread.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let number =
                line.trim_end().split(' ').next().and_then(|text| text.parse::<u64>().ok());
            let answer = match number == Some(count) {
                true => format!("{pid} {count}\n"),
                false => format!("{pid} wrong: {count} was due\n"),
            };
            count += 1;
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
        if tries && seamless::draining().has_begun() {
            let mut connection = Connection::new(stream);
            connection.unread = unread;
            connection.state = format!("{count} {}", "x".repeat(options.load)).into_bytes();
            match connections::pass(&options.kind, connection).wait() {
                Ok(()) => return,
                Err(stays) => {
                    log::info!("stage=stays daemon={pid} reason=\"{}\"", stays.reason);
                    stream = TcpStream::from(stays.connection.fd);
                    unread = stays.connection.unread;
                }
            }
            (tries, tried) = (false, Instant::now());
        }
        let waits_for_drain = tries.then(|| drain().as_fd());
        let fds = [Some(stream.as_fd()), waits_for_drain].into_iter().flatten();
        let mut fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let limit = match tries || !options.again {
            true => PollTimeout::NONE,
            false => PollTimeout::try_from(AGAIN).expect("a time"),
        };
        let ready = poll(&mut fds, limit);
        tries |= options.again && tried.elapsed() >= AGAIN;
        if ready == Ok(0) {
            continue;
        }
        let is_readable = fds[0].any() == Some(true);
        if is_readable {
            let mut bytes = [0; 65536];
            match stream.read(&mut bytes) {
                Ok(0) | Err(_) => return,
                Ok(read) => unread.extend_from_slice(&bytes[..read]),
            }
        }
    }
}
