//! A service that plays the part a test gives it, and reports what happens to it.
//!
//! It reports by lines `PID NAME TEXT` (see `seamless_testing::report`):
//!
//! | line | when |
//! | --- | --- |
//! | `launch` | `on_launch` runs, in the launcher |
//! | `init PPID` | `init` has returned, so this is the daemon |
//! | `started GENERATION` | `started` has returned |
//! | `hook request`, `hook shutdown`, `hook hammer` | a hook runs |
//! | `signal N` | a signal of `--catch-all` or `--on` came |
//! | `request PATH` | a request with a `delay` was accepted (`--listen`) |
//! | `runtime` | in the launcher, where there is a runtime: it still works |
//! | `spawned PID NAME` | the action `spawn:NAME` has started a program that waits |
//! | `orphan PID` | the action `orphan:TIME` has started one for this long, and its parent ended |
//! | `called CALL ok`, `called CALL error: TEXT` | the action `call:…` |
//! | `called state STATE GENERATION` | the action `call:state` |
//! | `called look N M TEXT` | the action `call:look`: how many services it finds in its folder, and by a pattern; why its own service cannot be looked at |
//! | `called time N` | the action `call:time`; nanoseconds since 1970 |
//! | `called print ok`, `called print error: TEXT` | `--chatter`: the first line; one that cannot be written |
//! | `called reason REASON` | the action `call:reason` |
//! | `made ID WHO` | the action `call:made-by`: each connection ID of the report, and which generation has made it |
//! | `thread STATE`, `task STATE`; `thread end`, `task REASON` | the action `call:states`: a change; the end |
//! | `called wait REASON` | the action `call:wait`, whose wait on a thread of its own is over |
//! | `wait REASON` | `wait` has returned |
//! | `error STEP: TEXT` | `init`, `started` or a socket failed; exit code 111 |
//! | `socket KIND ADDRESS` | a socket of `--tcp` and its like was found or bound |
//! | `named NAME VERSION TEXT`, `named NAME none` | the action `inherited:NAME` |
//! | `kept NAME ok`, `kept NAME error: TEXT` | the actions `keep:…` |
//! | `took NAME TARGET INODE`, `took NAME none` | the action `take:NAME` |
//! | `counted NAME VALUE` | the action `count:NAME` |
//! | `check N` | `--unhealthy-at`: the N-th call of `probation_check` |
//! | `inherited FROM BYTES TEXT` | `--inherit`: from which generation, how many bytes, the first of them |

use std::{
    env,
    fs::{self, File},
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, UdpSocket},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{
            net::{UnixDatagram, UnixListener, UnixStream},
            process::CommandExt,
        },
    },
    panic,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    str::FromStr,
    sync::{
        Arc, Condvar, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use lexopt::{Parser, ValueExt};
use rustix::event::{PollFd, PollFlags, poll};
use seamless::{
    Config, DrainReason, TooMany,
    hooks::{self, Stage},
    sockets::{self, Steer, quic::ConnectionIds},
};
use seamless_testing::{
    http::{PATTERN, time_now},
    process::catchable_signals,
    report,
};
use signal_hook::{iterator::Signals, low_level};
use socket2::{Domain, SockAddr, Socket, Type};

const USAGE: &str = "\
probe --pid-file PATH [options]

  --report FILE             where to report; else nowhere
  --keep-report             the daemon keeps the report open: for one that uses up its descriptors
  --listen ADDRESS|PATH     answer `Server pid: N` there, once `started` has returned, on a
                            SO_REUSEPORT listener, or on a Unix socket that replaces what has the path;
                            for `GET /bytes/N`, N bytes, as fast as they are read
  --tcp SOCKET, --udp SOCKET, --unix SOCKET, --unix-datagram SOCKET
                            the same by `seamless::sockets`; may be repeated; datagrams are answered
                            by the PID and what they held
  --group SOCKET, --udp-group SOCKET
                            the same, with `,count=N`; with `,steer=newest|quic|OFFSET:MASK`, reports
                            a connection ID or the value for each member
  --unix-seqpacket PATH, --vsock PORT
                            the same; nobody serves it
  --many N                  N TCP sockets with port 0, which nobody serves
  --accept WHEN             what is done with sockets of `seamless::sockets`: always; started (once
                            `started` has returned); never; late (in the drain only); until-drain
                            (then held open and not served)
  --state text:TEXT|size:N|panic|hang|kill
                            what to hand over
  --hand-over NAME=VERSION:TEXT
                            a named state to hand over; may be repeated
  --inherit                 report what was handed over without a name
  --watchdog PATH           the program is well as long as this file exists
  --exit-code N             how to end after `wait`
  --no-wait                 never call `wait`
  --catch-all               report every signal that can be caught
  --threads-before-init N
  --runtime-before-init     one of tokio
  --log-panics              log by a logger that panics each time
  --log-file FILE           log there instead of standard error; opened before `init`
  --keep-log                the launcher keeps that file open
  --on SIGNAL=ACTION        SIGNAL is a number
  --at POINT=ACTION         may be repeated; the actions of one point follow each other
  --handoff-timeout, --claim-timeout, --takeover-timeout TIME;  --successor-timeout, --drain-timeout,
  --keep-sockets TIME|none
  --probation TIME;  --leave TIME
  --unhealthy PATH          `probation_check` says no while this file exists, and hangs if it is a folder
  --unhealthy-at N          `probation_check` reports `check N`, and says no at its N-th call
  --crash-after N           the process aborts when its N-th request arrives
  --standby                 an `on_standby` hook and an `on_resume` hook that report
  --release-signal N, --release-code N, --notification-fd N
  --reload-signal N         may be repeated
  --hook-signal N           report this signal by `hooks::on_signal`, called before `init`
  --catch-before N          report this signal by a handler that is installed before `init`
  --to-all N                the launcher passes this signal on to every generation
  --resume                  an `on_resume` hook, which reports, and adds the hook `request` again
  --working-dir PATH
  --environment FILE        each daemon gets `NAME=VALUE` of this file's first line
  --set NAME=VALUE          sets a variable before `init`, unless it is set
  --max-draining N
  --too-many refuse|end-oldest
  --parent-restarts yes|no
  --keep-output             standard output and error are not replaced
  --chatter                 prints a line each millisecond, and reports the first that fails

POINT   before-init (in launcher and daemon), before-daemon-init, launch, after-init,
        ready (it listens, and is about to call `started`), started, drained (`wait` has returned),
        or a hook: request, shutdown, before-hammer, hammer, after-hammer
ACTION  exit:N, raise:SIGNAL, panic, abort, hang, sleep:TIME, file:PATH (until it exists),
        user:UID, euid:UID (the effective one alone), hoard (every descriptor that is to be had),
        free:N (so many of them again), close-all (every descriptor but the standard ones),
        again:PATH (executes itself anew if it exists, and removes it), spawn:NAME, orphan:SECONDS,
        chroot:PATH, refuse:CALL+CALL:ERRNO (in the launcher: the kernel refuses it and its
        daemons these calls, named by their numbers),
        reap (a thread waits for whatever child there is, for ever),
        guard:PATH (holds up the end of the drain until it exists),
        own-output (standard output is a socket of its own that nobody reads),
        call:init, call:started, call:restart, call:commit, call:state, call:time, call:wait,
        call:look, call:inherited, call:made-by, call:reason (of the drain), call:states (reported as they come, by a thread
        and a task), tcp:SOCKET, inherited:NAME,
        keep:PATH, lock:PATH (keep a file under its path; it gets a line with our PID; with an exclusive lock),
        keep-crash:PATH (through a crash), keep-userfaultfd:NAME, forget:NAME, take:NAME (and write a line),
        count:NAME (adds 1)
SOCKET  an address or a path, and then any of: ,name=NAME ,count=N ,mode=660 ,uid=N ,gid=N
        ,backlog=N ,only-v6 ,reuse-port ,blocking ,fd=N ,make=HOW (as asked; or what is wrong: port, kind,
        deaf, inherited, error) ,adjust=N (bytes of the receive buffer; 0 fails)
TIME    like 300ms or 2s";

#[derive(Clone, Debug)]
enum Action {
    Exit(i32),
    Raise(i32),
    Panic,
    Abort,
    Hang,
    Sleep(Duration),
    File(PathBuf),
    Guard(PathBuf),
    User(u32),
    EffectiveUser(u32),
    Hoard,
    Free(usize),
    CloseAll,
    Again(PathBuf),
    Spawn(String),
    Chroot(PathBuf),
    Refuse(Vec<u32>, u16),
    OwnOutput,
    Reap,
    Orphan(u32),
    Call(String),
    Named(String, String),
    Tcp(Asked),
}

/// What the actions `hoard` and `free` are about.
static HOARD: Mutex<Vec<File>> = Mutex::new(Vec::new());

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (verb, value) = text.split_once(':').unwrap_or((text, ""));
        let wrong = |error: &dyn std::fmt::Display| format!("action {text:?}: {error}");
        match verb {
            "exit" => value.parse().map(Action::Exit).map_err(|error| wrong(&error)),
            "raise" => value.parse().map(Action::Raise).map_err(|error| wrong(&error)),
            "user" => value.parse().map(Action::User).map_err(|error| wrong(&error)),
            "euid" => value.parse().map(Action::EffectiveUser).map_err(|error| wrong(&error)),
            "hoard" => Ok(Action::Hoard),
            "free" => value.parse().map(Action::Free).map_err(|error| wrong(&error)),
            "close-all" => Ok(Action::CloseAll),
            "again" => Ok(Action::Again(value.into())),
            "sleep" => {
                humantime::parse_duration(value).map(Action::Sleep).map_err(|error| wrong(&error))
            }
            "file" => Ok(Action::File(value.into())),
            "guard" => Ok(Action::Guard(value.into())),
            "panic" => Ok(Action::Panic),
            "abort" => Ok(Action::Abort),
            "hang" => Ok(Action::Hang),
            "chroot" => Ok(Action::Chroot(value.into())),
            "refuse" => {
                let (calls, error) = value.split_once(':').ok_or_else(|| wrong(&"no error"))?;
                let calls = calls.split('+').map(str::parse).collect::<Result<_, _>>();
                let calls = calls.map_err(|error| wrong(&error))?;
                Ok(Action::Refuse(calls, error.parse().map_err(|error| wrong(&error))?))
            }
            "own-output" => Ok(Action::OwnOutput),
            "reap" => Ok(Action::Reap),
            "orphan" => value.parse().map(Action::Orphan).map_err(|error| wrong(&error)),
            "spawn" => Ok(Action::Spawn(value.to_owned())),
            "call" => Ok(Action::Call(value.to_owned())),
            "inherited" | "keep" | "lock" | "keep-crash" | "keep-userfaultfd" | "forget"
            | "take" | "count" => Ok(Action::Named(verb.to_owned(), value.to_owned())),
            "tcp" => value.parse().map(Action::Tcp).map_err(|error: String| wrong(&error)),
            _ => Err(wrong(&"unknown")),
        }
    }
}

#[derive(Clone, Debug)]
enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with('/') {
            return Ok(Address::Unix(text.into()));
        }
        text.parse().map(Address::Tcp)
    }
}

/// A socket to ask for.
#[derive(Clone, Debug)]
struct Asked {
    address: String,
    count: usize,
    options: sockets::Options,
    steer: Option<Steer>,
}

impl FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split(',');
        let address = words.next().unwrap_or_default().to_owned();
        let mut asked = Asked { address, count: 1, options: sockets::Options::new(), steer: None };
        let options = asked.options.nonblocking(true);
        let (mut uid, mut gid, mut steer) = (None, None, None);
        for word in words {
            let wrong = || format!("socket {text:?}: {word:?}");
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            match key {
                "name" => _ = options.name(value),
                "count" => asked.count = value.parse().map_err(|_| wrong())?,
                "mode" => {
                    _ = options.mode(u32::from_str_radix(value, 8).map_err(|_| wrong())?);
                }
                "uid" => uid = Some(value.parse().map_err(|_| wrong())?),
                "gid" => gid = Some(value.parse().map_err(|_| wrong())?),
                "backlog" => _ = options.backlog(value.parse().map_err(|_| wrong())?),
                "only-v6" => _ = options.only_v6(true),
                "reuse-port" => _ = options.reuse_port(true),
                "blocking" => _ = options.nonblocking(false),
                "steer" => steer = Some(parse_steer(value).ok_or_else(wrong)?),
                "fd" => _ = options.passed_as(value.parse().map_err(|_| wrong())?),
                "make" => {
                    let how = value.to_owned();
                    _ = options.make(move |wanted| make(wanted, &how));
                }
                "adjust" => {
                    let bytes: usize = value.parse().map_err(|_| wrong())?;
                    _ = options.adjust(move |fd| adjust(fd, bytes));
                }
                _ => return Err(wrong()),
            }
        }
        options.owner(uid, gid);
        if let Some(steer) = steer {
            options.steer(steer);
        }
        asked.steer = steer;
        Ok(asked)
    }
}

/// `newest`, `quic`, or `OFFSET:MASK` with the mask in hexadecimal digits.
fn parse_steer(text: &str) -> Option<Steer> {
    match text {
        "newest" => Some(Steer::Newest),
        "quic" => Some(Steer::Quic),
        text => {
            let (offset, mask) = text.split_once(':')?;
            let (offset, mask) = (offset.parse().ok()?, u32::from_str_radix(mask, 16).ok()?);
            Some(Steer::Bytes { offset, mask })
        }
    }
}

/// As it is asked for, or with a fault.
fn make(wanted: &sockets::ToMake, how: &str) -> io::Result<std::os::fd::OwnedFd> {
    use sockets::Place;
    let (domain, mut address) = match &wanted.place {
        Place::Inet(address) => (Domain::for_address(*address), SockAddr::from(*address)),
        Place::Path(path) => (Domain::UNIX, SockAddr::unix(path)?),
        other => return Err(io::Error::other(format!("no such place: {other:?}"))),
    };
    if how == "error" {
        return Err(io::Error::other("as told"));
    }
    if how == "counting" {
        seamless::counters::get("made"); // asks the crate for something while it makes a socket
    }
    let is_datagram = matches!(how, "kind" | "counting");
    let socket = Socket::new(domain, if is_datagram { Type::DGRAM } else { Type::STREAM }, None)?;
    if domain == Domain::IPV4 {
        socket.set_freebind_v4(true)?;
        socket.set_reuse_port(wanted.share_port)?;
        if how == "port" {
            address = SockAddr::from(SocketAddr::from(([127, 0, 0, 2], 0)));
        }
    }
    socket.bind(&address)?;
    if how != "deaf" && !is_datagram {
        socket.listen(128)?;
    }
    socket.set_cloexec(how != "inherited")?;
    Ok(socket.into())
}

fn adjust(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    if bytes == 0 {
        return Err(io::Error::other("as told"));
    }
    socket2::SockRef::from(&fd).set_recv_buffer_size(bytes)
}

/// When a server accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Accept {
    Always,
    #[default]
    Started,
    Never,
    Late,
    UntilDrain,
}

impl FromStr for Accept {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "always" => Ok(Accept::Always),
            "started" => Ok(Accept::Started),
            "never" => Ok(Accept::Never),
            "late" => Ok(Accept::Late),
            "until-drain" => Ok(Accept::UntilDrain),
            _ => Err(format!("accept {text:?}")),
        }
    }
}

/// What a successor gets.
#[derive(Clone, Debug)]
enum State {
    Text(String),
    Size(usize),
    /// 64 MiB, made once this file is there. Beside it, `begun` tells that this is waited for.
    File(PathBuf),
    Panic,
    Hang,
    /// The process ends by KILL.
    Kill,
}

impl FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':').unwrap_or((text, "")) {
            ("text", text) => Ok(State::Text(text.to_owned())),
            ("size", size) => size.parse().map(State::Size).map_err(|_| format!("size {size:?}")),
            ("file", path) => Ok(State::File(path.into())),
            ("panic", _) => Ok(State::Panic),
            ("hang", _) => Ok(State::Hang),
            ("kill", _) => Ok(State::Kill),
            _ => Err(format!("state {text:?}")),
        }
    }
}

/// Without a backtrace, which takes most of a second on a busy machine: as long as a hook may.
fn panic_as_told() -> ! {
    panic::set_hook(Box::new(|info| {
        _ = writeln!(io::stderr(), "{info}"); // which may be closed
    }));
    panic!("as told")
}

impl State {
    fn give(&self) -> Vec<u8> {
        match self {
            State::Text(text) => text.clone().into_bytes(),
            // Not all the same, so that a part that is missing or in the wrong place shows.
            State::Size(size) => (0..*size).map(|at| (at % 251) as u8).collect(),
            State::File(path) => {
                std::fs::write(path.with_file_name("begun"), "").expect("a file");
                wait_file(path);
                vec![7; 64 << 20]
            }
            State::Panic => panic_as_told(),
            State::Kill => {
                low_level::raise(signal_hook::consts::SIGKILL)
                    .expect("a signal that can be raised");
                unreachable!("it cannot be caught")
            }
            State::Hang => loop {
                thread::park();
            },
        }
    }
}

const KINDS: [&str; 8] =
    ["tcp", "udp", "unix", "unix-datagram", "unix-seqpacket", "vsock", "group", "udp-group"];

#[derive(Default)]
struct Options {
    pid_file: PathBuf,
    report: Option<PathBuf>,
    keep_report: bool,
    listen: Option<Address>,
    sockets: Vec<(&'static str, Asked)>,
    many: usize,
    accept: Accept,
    state: Option<State>,
    hand_over: Vec<(String, u32, String)>,
    inherit: bool,
    watchdog: Option<PathBuf>,
    exit_code: i32,
    no_wait: bool,
    catch_all: bool,
    threads_before_init: usize,
    runtime_before_init: bool,
    log_panics: bool,
    log_file: Option<PathBuf>,
    keep_log: bool,
    on: Vec<(i32, Action)>,
    at: Vec<(String, Action)>,
    handoff_timeout: Option<Duration>,
    claim_timeout: Option<Duration>,
    takeover_timeout: Option<Duration>,
    successor_timeout: Option<Option<Duration>>,
    drain_timeout: Option<Option<Duration>>,
    keep_sockets: Option<Option<Duration>>,
    probation: Option<Duration>,
    leave: Option<Duration>,
    unhealthy: Option<PathBuf>,
    unhealthy_at: Option<u32>,
    crash_after: Option<u64>,
    standby: bool,
    release_signal: Option<i32>,
    reload_signals: Vec<i32>,
    hook_signals: Vec<i32>,
    catch_before: Vec<i32>,
    to_all: Vec<i32>,
    resume: bool,
    working_dir: Option<PathBuf>,
    environment: Option<PathBuf>,
    set: Option<(String, String)>,
    max_draining: Option<usize>,
    too_many: Option<TooMany>,
    parent_restarts: Option<bool>,
    release_code: Option<i32>,
    notification_fd: Option<i32>,
    keep_output: bool,
    chatter: bool,
}

impl Options {
    fn parse() -> Result<Self, lexopt::Error> {
        use lexopt::Arg::Long;
        let mut options = Options::default();
        let mut parser = Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("pid-file") => options.pid_file = parser.value()?.into(),
                Long("report") => options.report = Some(parser.value()?.into()),
                Long("keep-report") => options.keep_report = true,
                Long("listen") => options.listen = Some(parser.value()?.parse()?),
                Long(kind) if KINDS.contains(&kind) => {
                    let kind = KINDS.into_iter().find(|one| *one == kind).expect("one of them");
                    options.sockets.push((kind, parser.value()?.parse()?));
                }
                Long("hand-over") => {
                    let text = parser.value()?.string()?;
                    let parts = text.split_once('=').and_then(|(name, rest)| {
                        let (version, text) = rest.split_once(':')?;
                        Some((name.to_owned(), version.parse().ok()?, text.to_owned()))
                    });
                    options.hand_over.push(parts.ok_or(format!("{text:?} is no named state"))?);
                }
                Long("many") => options.many = parser.value()?.parse()?,
                Long("accept") => options.accept = parser.value()?.parse()?,
                Long("state") => options.state = Some(parser.value()?.parse()?),
                Long("inherit") => options.inherit = true,
                Long("watchdog") => options.watchdog = Some(parser.value()?.into()),
                Long("takeover-timeout") => {
                    options.takeover_timeout =
                        Some(parser.value()?.parse_with(humantime::parse_duration)?)
                }
                Long("exit-code") => options.exit_code = parser.value()?.parse()?,
                Long("no-wait") => options.no_wait = true,
                Long("catch-all") => options.catch_all = true,
                Long("threads-before-init") => {
                    options.threads_before_init = parser.value()?.parse()?
                }
                Long("runtime-before-init") => options.runtime_before_init = true,
                Long("log-panics") => options.log_panics = true,
                Long("log-file") => options.log_file = Some(parser.value()?.into()),
                Long("keep-log") => options.keep_log = true,
                Long("on") => options.on.push(pair(&mut parser)?),
                Long("at") => options.at.push(pair(&mut parser)?),
                Long("handoff-timeout") => {
                    options.handoff_timeout =
                        Some(parser.value()?.parse_with(humantime::parse_duration)?)
                }
                Long("claim-timeout") => {
                    options.claim_timeout =
                        Some(parser.value()?.parse_with(humantime::parse_duration)?)
                }
                Long("successor-timeout") => {
                    options.successor_timeout = Some(parser.value()?.parse_with(limit)?)
                }
                Long("drain-timeout") => {
                    options.drain_timeout = Some(parser.value()?.parse_with(limit)?)
                }
                Long("keep-sockets") => {
                    options.keep_sockets = Some(parser.value()?.parse_with(limit)?)
                }
                Long("probation") => {
                    options.probation = parser.value()?.parse_with(limit)?;
                }
                Long("leave") => options.leave = parser.value()?.parse_with(limit)?,
                Long("unhealthy") => options.unhealthy = Some(parser.value()?.into()),
                Long("unhealthy-at") => options.unhealthy_at = Some(parser.value()?.parse()?),
                Long("crash-after") => options.crash_after = Some(parser.value()?.parse()?),
                Long("standby") => options.standby = true,
                Long("release-signal") => options.release_signal = Some(parser.value()?.parse()?),
                Long("reload-signal") => options.reload_signals.push(parser.value()?.parse()?),
                Long("hook-signal") => options.hook_signals.push(parser.value()?.parse()?),
                Long("catch-before") => options.catch_before.push(parser.value()?.parse()?),
                Long("to-all") => options.to_all.push(parser.value()?.parse()?),
                Long("resume") => options.resume = true,
                Long("working-dir") => options.working_dir = Some(parser.value()?.into()),
                Long("environment") => options.environment = Some(parser.value()?.into()),
                Long("set") => {
                    let text = parser.value()?.string()?;
                    let (name, value) = text.split_once('=').ok_or(format!("{text:?} has no ="))?;
                    options.set = Some((name.to_owned(), value.to_owned()));
                }
                Long("max-draining") => options.max_draining = Some(parser.value()?.parse()?),
                Long("too-many") => {
                    let refuses = parser.value()? == "refuse";
                    let then = if refuses { TooMany::Refuse } else { TooMany::EndOldest };
                    options.too_many = Some(then);
                }
                Long("parent-restarts") => {
                    options.parent_restarts = Some(parser.value()? == "yes");
                }
                Long("release-code") => options.release_code = Some(parser.value()?.parse()?),
                Long("notification-fd") => options.notification_fd = Some(parser.value()?.parse()?),
                Long("keep-output") => options.keep_output = true,
                Long("chatter") => options.chatter = true,
                Long("help") => {
                    println!("{USAGE}");
                    process::exit(0);
                }
                _ => return Err(argument.unexpected()),
            }
        }
        Ok(options)
    }
}

fn pair<T: FromStr<Err: Into<Box<dyn std::error::Error + Send + Sync>>>>(
    parser: &mut Parser,
) -> Result<(T, Action), lexopt::Error> {
    let text = parser.value()?.string()?;
    let (key, action) = text.split_once('=').ok_or(format!("{text:?} has no ="))?;
    let key = key.parse().map_err(|error: T::Err| lexopt::Error::Custom(error.into()))?;
    Ok((key, action.parse()?))
}

fn limit(text: &str) -> Result<Option<Duration>, humantime::DurationError> {
    (text != "none").then(|| humantime::parse_duration(text)).transpose()
}

/// `--standby`: in standby nothing is accepted.
static PARKED: AtomicBool = AtomicBool::new(false);
/// `--crash-after`: how many requests may still come.
static CRASH_AFTER: AtomicU64 = AtomicU64::new(u64::MAX);

/// Of the last socket that has some.
static IDS: Mutex<Option<ConnectionIds>> = Mutex::new(None);

/// For [`Accept::Started`].
static STARTED: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

/// `--keep-report`.
static KEPT_REPORT: OnceLock<File> = OnceLock::new();

/// The part to play, for every thread and hook.
#[derive(Clone)]
struct Part {
    report: Option<PathBuf>,
    at: Vec<(String, Action)>,
    pid_file: PathBuf,
}

impl Part {
    fn report(&self, event: &str) {
        match (KEPT_REPORT.get(), &self.report) {
            (Some(mut file), _) => {
                file.write_all(format!("{} {event}\n", process::id()).as_bytes()).expect("a line");
            }
            (None, Some(path)) => report::append(path, event),
            (None, None) => {}
        }
    }

    fn reach(&self, point: &str) {
        let actions = self.at.iter().filter(|(at, _)| at == point);
        actions.for_each(|(_, action)| self.act(action));
    }

    fn hook(&self, name: &'static str) -> impl FnOnce() + Send + 'static {
        let part = self.clone();
        move || {
            part.report(&format!("hook {name}"));
            part.reach(name);
        }
    }

    fn act(&self, action: &Action) {
        match action {
            Action::Exit(code) => process::exit(*code),
            Action::Raise(signal) => {
                // Knows the default of named signals only; a real-time signal ends us unless caught.
                let raised = low_level::emulate_default_handler(*signal);
                raised.or_else(|_| low_level::raise(*signal)).expect("a signal that can be raised");
            }
            Action::Panic => panic_as_told(),
            Action::Abort => process::abort(),
            Action::Hang => hang(),
            Action::Sleep(time) => thread::sleep(*time),
            Action::File(path) => wait_file(path),
            Action::Guard(path) => {
                let (guard, path) = (seamless::drain_guard(), path.clone());
                thread::spawn(move || {
                    wait_file(&path);
                    drop(guard);
                });
            }
            Action::User(id) => {
                nix::unistd::setgroups(&[]).expect("setgroups");
                nix::unistd::setgid((*id).into()).expect("setgid");
                nix::unistd::setuid((*id).into()).expect("setuid");
            }
            Action::EffectiveUser(id) => {
                nix::unistd::seteuid((*id).into()).expect("seteuid");
            }
            Action::Hoard => {
                let mut hoard = HOARD.lock().expect("no panic");
                while let Ok(file) = File::open("/dev/null") {
                    hoard.push(file);
                }
            }
            Action::Free(count) => {
                let mut hoard = HOARD.lock().expect("no panic");
                let left = hoard.len().saturating_sub(*count);
                hoard.truncate(left);
            }
            Action::CloseAll => {
                let files = fs::read_dir("/proc/self/fd").expect("/proc");
                let numbers =
                    files.filter_map(|file| file.ok()?.file_name().to_str()?.parse().ok());
                let numbers: Vec<i32> = numbers.filter(|number| *number > 2).collect();
                for number in numbers {
                    _ = nix::unistd::close(number); // that of the folder is closed already
                }
            }
            Action::Again(path) => {
                if fs::remove_file(path).is_ok() {
                    let program = env::current_exe().expect("/proc");
                    let error = Command::new(program).args(env::args_os().skip(1)).exec();
                    panic!("cannot execute itself: {error}");
                }
            }
            Action::OwnOutput => {
                let (ours, _) = UnixStream::pair().expect("a socket pair");
                nix::unistd::dup2_stdout(ours).expect("dup2");
            }
            Action::Spawn(name) => {
                let child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn();
                // Nobody waits for it: it ends with the test's box.
                self.report(&format!("spawned {} {name}", child.expect("sleep").id()));
            }
            Action::Chroot(folder) => {
                // The folder that it stands in stays outside.
                nix::unistd::chroot(folder).expect("root");
            }
            Action::Refuse(calls, error) => refuse(calls, *error),
            Action::Reap => {
                thread::spawn(|| {
                    loop {
                        if nix::sys::wait::wait().is_err() {
                            thread::sleep(Duration::from_millis(2)); // no child for now
                        }
                    }
                });
            }
            Action::Orphan(seconds) => {
                let script = format!("sleep {seconds} >&2 & echo $!");
                let pid = Command::new("sh")
                    .args(["-c", &script])
                    .stderr(Stdio::inherit())
                    .output()
                    .expect("sh")
                    .stdout;
                self.report(&format!("orphan {}", String::from_utf8_lossy(&pid).trim()));
            }
            Action::Tcp(asked) => {
                let found = asked.options.tcp(&asked.address);
                let result = found.map(|listener| {
                    let local = listener.local_addr().expect("its address");
                    std::mem::forget(listener); // open until the end
                    local
                });
                let result = result
                    .map_or_else(|error| format!("error: {error}"), |local| local.to_string());
                self.report(&format!("called tcp {result}"));
            }
            Action::Named(verb, name) => self.act_on(verb, name),
            Action::Call(call) if call == "inherited" => self.inherit(),
            Action::Call(call) if call == "state" => {
                let (state, generation) = (seamless::state(), seamless::generation());
                self.report(&format!("called state {state:?} {generation:?}"));
            }
            Action::Call(call) if call == "look" => {
                let service = seamless::client::Service::at(&self.pid_file);
                let look = service.map(|service| service.look().unknown().map(str::to_owned));
                let folder = self.pid_file.parent().expect("a folder").to_owned();
                let pattern = folder.join("*.pid");
                let found = seamless::client::Service::find(&[folder]).services.len();
                let matching = seamless::client::Service::find_matching(&pattern).services.len();
                self.report(&format!("called look {found} {matching} {look:?}"));
            }
            Action::Call(call) if call == "time" => {
                self.report(&format!("called time {}", time_now().as_nanos()));
            }
            Action::Call(call) if call == "wait" => {
                let part = self.clone();
                thread::spawn(move || part.report(&format!("called wait {:?}", seamless::wait())));
            }
            Action::Call(call) if call == "reason" => {
                self.report(&format!("called reason {:?}", seamless::draining().reason()));
            }
            Action::Call(call) if call == "states" => self.states(),
            Action::Call(call) if call == "made-by" => self.made_by(),
            Action::Call(call) => {
                let result = match call.as_str() {
                    "init" => seamless::init(&self.pid_file),
                    "started" => seamless::started(),
                    "restart" => seamless::restart(),
                    "commit" => seamless::commit(),
                    _ => panic!("no such call: {call}"),
                };
                let result =
                    result.map_or_else(|error| format!("error: {error}"), |()| "ok".to_owned());
                self.report(&format!("called {call} {result}"));
            }
        }
    }

    /// Of all generations.
    fn made_by(&self) {
        let path = self.report.as_ref().expect("a report");
        let report = fs::read_to_string(path).expect("the report");
        let ids = IDS.lock().expect("no panic");
        let ids = ids.as_ref().expect("a group that is steered by connection IDs");
        for text in report.lines().filter_map(|line| line.split_once(" id ").map(|(_, id)| id)) {
            let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("digits");
            let id: Vec<u8> = (0..text.len()).step_by(2).map(digits).collect();
            self.report(&format!("made {text} {:?}", ids.made_by(&id)));
        }
    }

    fn states(&self) {
        let (part, states) = (self.clone(), seamless::states());
        thread::spawn(move || {
            states.for_each(|state| part.report(&format!("thread {state:?}")));
            part.report("thread end");
        });
        let (part, mut states) = (self.clone(), seamless::states());
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.expect("a runtime").block_on(async {
                while let Some(state) = states.changed().await {
                    part.report(&format!("task {state:?}"));
                }
                part.report(&format!("task {:?}", seamless::finished().await));
            });
        });
    }

    /// As `println!` and `eprintln!`, which panic where these fail.
    fn chatter(&self) {
        for line in 1.. {
            let text = format!("chatter {line}\n");
            let printed = io::stdout().write_all(text.as_bytes());
            if let Err(error) = printed.and_then(|()| io::stderr().write_all(text.as_bytes())) {
                return self.report(&format!("called print error: {error}"));
            }
            if line == 1 {
                self.report("called print ok");
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn check<T>(&self, step: &str, result: seamless::Result<T>) -> T {
        result.unwrap_or_else(|error| {
            eprintln!("{step}: {error}");
            self.report(&format!("error {step}: {error}"));
            process::exit(111);
        })
    }

    fn act_on(&self, verb: &str, name: &str) {
        use std::os::unix::fs::MetadataExt;
        let file = || {
            let mut file = File::options().append(true).create(true).open(name).expect("a file");
            writeln!(file, "{} {verb}", process::id()).expect("a line");
            file
        };
        let kept = |kept: seamless::Result<()>| {
            let kept = kept.map_or_else(|error| format!("error: {error}"), |()| "ok".to_owned());
            self.report(&format!("kept {name} {kept}"));
        };
        match verb {
            "inherited" => match seamless::inherited_version(name) {
                Some((version, bytes)) => {
                    let text = String::from_utf8_lossy(&bytes);
                    self.report(&format!("named {name} {version} {text}"));
                }
                None => self.report(&format!("named {name} none")),
            },
            "keep" => kept(seamless::descriptors::keep(name, file())),
            "keep-crash" => kept(seamless::descriptors::keep_through_crash(name, file())),
            "lock" => {
                use nix::fcntl::{Flock, FlockArg};
                let lock = Flock::lock(file(), FlockArg::LockExclusiveNonblock);
                let lock = lock.map_err(|(_, error)| error).expect("a lock that nobody holds");
                kept(seamless::descriptors::keep(name, &*lock));
                std::mem::forget(lock); // its end would unlock the successor's, too
            }
            "keep-userfaultfd" => {
                #[allow(unsafe_code)]
                // SAFETY: takes a flag; a result that is not negative is a new descriptor of ours.
                let fd = unsafe {
                    let fd =
                        nix::libc::syscall(nix::libc::SYS_userfaultfd, 1 /* user mode only */);
                    assert!(fd >= 0, "{}", io::Error::last_os_error());
                    <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd as i32)
                };
                kept(seamless::descriptors::keep(name, fd));
            }
            "forget" => seamless::descriptors::forget(name),
            "count" => {
                use std::sync::atomic::Ordering;
                let value = seamless::counters::get(name).fetch_add(1, Ordering::SeqCst) + 1;
                self.report(&format!("counted {name} {value}"));
            }
            "take" => match seamless::descriptors::take(name) {
                Some(fd) => {
                    let mut file = File::from(fd);
                    writeln!(file, "{} {verb}", process::id()).expect("a line");
                    let inode = file.metadata().expect("a file").ino();
                    self.report(&format!("took {name} {inode}"));
                    std::mem::forget(file);
                }
                None => self.report(&format!("took {name} none")),
            },
            verb => panic!("no such action: {verb}"),
        }
    }

    fn inherit(&self) {
        let state = seamless::inherited("");
        let from = seamless::inherited_from();
        let Some(state) = state else {
            return self.report(&format!("inherited {from:?} none"));
        };
        let whole = state.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8);
        let text = String::from_utf8_lossy(&state[..state.len().min(32)]);
        let text = if whole { "as made".into() } else { text };
        self.report(&format!("inherited {from:?} {} {text}", state.len()));
    }
}

/// As `println!` panics where standard output is closed.
struct PanickingLogger;

impl log::Log for PanickingLogger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _: &log::Record<'_>) {
        panic!("the log is closed");
    }

    fn flush(&self) {}
}

/// As a program may that writes its own state into each line.
struct AskingLogger(env_logger::Logger);

impl log::Log for AskingLogger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &log::Record<'_>) {
        _ = seamless::state();
        self.0.log(record);
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// What other threads ask of the main thread.
enum Task {
    Panic,
    End(DrainReason),
}

fn main() {
    seamless_testing::innocent::stand_by_if_told();
    let options = Options::parse().unwrap_or_else(|error| {
        eprintln!("probe: {error}\n{USAGE}");
        process::exit(100);
    });
    let mut log_file = None;
    if options.log_panics {
        log::set_logger(&PanickingLogger).expect("the first logger");
        log::set_max_level(log::LevelFilter::Trace);
    } else {
        let mut logger = env_logger::Builder::from_default_env();
        if let Some(path) = &options.log_file {
            let file = File::options().append(true).create(true).open(path).expect("the log");
            let file = Arc::new(file);
            logger.target(env_logger::Target::Pipe(Box::new(Arc::clone(&file))));
            log_file = Some(file);
        }
        let logger = logger.format_timestamp_millis().build();
        log::set_max_level(logger.filter());
        log::set_boxed_logger(Box::new(AskingLogger(logger))).expect("the first logger");
    }
    let part = Part {
        report: options.report.clone(),
        at: options.at.clone(),
        pid_file: options.pid_file.clone(),
    };
    for _ in 0..options.threads_before_init {
        thread::spawn(hang);
    }
    let runtime = options.runtime_before_init.then(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().thread_keep_alive(Duration::from_secs(1000)).build();
        let runtime = runtime.expect("a runtime");
        runtime.block_on(async { tokio::task::spawn_blocking(|| ()).await.expect("a thread") });
        runtime
    });
    for signal in options.catch_before.clone() {
        report_signals(vec![signal], &part);
    }
    for signal in options.hook_signals.clone() {
        let part = part.clone();
        let hook = move || part.report(&format!("signal {signal}"));
        hooks::on_signal(signal, hook).expect("a signal that can be caught");
    }
    if let Some((name, value)) =
        options.set.as_ref().filter(|(name, _)| env::var_os(name).is_none())
    {
        #[allow(unsafe_code)]
        // SAFETY: no other thread runs yet that reads the environment.
        unsafe {
            env::set_var(name, value);
        }
    }
    part.reach("before-init");
    if env::var_os("SEAMLESS").is_some() {
        part.reach("before-daemon-init");
    }
    let mut config = config(&options, &part);
    if let Some(runtime) = runtime {
        let part = part.clone();
        config = config.on_launch(move || {
            runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
            part.report("runtime");
            std::mem::forget(runtime); // it lives as long as the launcher
        });
    }
    if let Some(file) = log_file.filter(|_| options.keep_log) {
        config = config.keep_open(file);
    }
    part.check("init", config.init());
    if let Some(path) = options.report.as_ref().filter(|_| options.keep_report) {
        let file = File::options().append(true).create(true).open(path).expect("the report");
        KEPT_REPORT.set(file).expect("the first");
    }
    let (tasks, received) = mpsc::channel();
    watch_signals(&options, &part, tasks.clone());
    if options.chatter {
        let part = part.clone();
        thread::spawn(move || part.chatter());
    }
    seamless::on_shutdown_request(part.hook("request"));
    if options.resume {
        let part = part.clone();
        seamless::on_resume(move || {
            part.hook("resume")();
            seamless::on_shutdown_request(part.hook("request"));
        });
    }
    if options.standby {
        let standby = part.clone();
        seamless::on_standby(move || {
            PARKED.store(true, Ordering::SeqCst);
            standby.hook("standby")();
        });
        let again = part.clone();
        seamless::on_resume(move || {
            PARKED.store(false, Ordering::SeqCst);
            again.hook("serves-again")();
        });
    }
    CRASH_AFTER.store(options.crash_after.unwrap_or(u64::MAX), Ordering::SeqCst);
    let servers: Arc<Mutex<Vec<Server>>> = Arc::default();
    let held = Arc::clone(&servers);
    seamless::on_shutdown(move || {
        let mut servers = held.lock().expect("no panic");
        let ending = servers.iter_mut().filter(|server| server.accept == Accept::UntilDrain);
        ending.for_each(Server::stop);
    });
    seamless::on_shutdown(part.hook("shutdown"));
    seamless::on_hammer(part.hook("hammer"));
    let asked = |point: &str| options.at.iter().any(|(at, _)| at == point);
    if asked("before-hammer") {
        hooks::before(Stage::Hammer, part.hook("before-hammer"));
    }
    if asked("after-hammer") {
        hooks::after(Stage::Hammer, part.hook("after-hammer"));
    }
    // Only now: whoever reads it may send any signal.
    part.report(&format!("init {}", std::os::unix::process::parent_id()));
    part.reach("after-init");
    if options.inherit {
        part.inherit();
    }
    if let Some(address) = &options.listen {
        let listener = listen(address).unwrap_or_else(|error| panic!("{address:?}: {error}"));
        let server = Server::start(listener, &part, Accept::Started);
        servers.lock().expect("no panic").push(server);
    }
    for (kind, asked) in &options.sockets {
        for socket in open(kind, asked, &part) {
            let server = Server::start(socket, &part, options.accept);
            servers.lock().expect("no panic").push(server);
        }
    }
    let many: Vec<TcpListener> = (0..options.many)
        .map(|at| {
            let found = sockets::Options::new().name(at.to_string()).tcp("127.0.0.1:0");
            part.check("socket", found)
        })
        .collect();
    seamless::on_shutdown(move || {
        drop(many);
        let mut servers = std::mem::take(&mut *servers.lock().expect("no panic"));
        servers.iter_mut().for_each(Server::stop);
        servers.into_iter().for_each(Server::join);
    });
    part.reach("ready");
    part.check("started", seamless::started());
    *STARTED.0.lock().expect("no panic") = true;
    STARTED.1.notify_all();
    part.report(&format!("started {}", seamless::generation().unwrap_or_default()));
    part.reach("started");

    if !options.no_wait {
        let tasks = tasks.clone();
        spawn(move || tasks.send(Task::End(seamless::wait())));
    }
    match received.recv().expect("this thread keeps a sender") {
        Task::Panic => part.act(&Action::Panic),
        Task::End(reason) => {
            part.report(&format!("wait {reason:?}"));
            part.reach("drained");
            process::exit(options.exit_code);
        }
    }
}

fn config(options: &Options, part: &Part) -> Config {
    let launch = part.clone();
    let mut config = Config::new(&options.pid_file).on_launch(move || {
        launch.report("launch");
        launch.reach("launch");
    });
    if let Some(time) = options.handoff_timeout {
        config = config.handoff_timeout(time);
    }
    if let Some(time) = options.claim_timeout {
        config = config.claim_timeout(time);
    }
    if let Some(time) = options.successor_timeout {
        config = config.successor_timeout(time);
    }
    if let Some(time) = options.keep_sockets {
        config = config.keep_sockets(time);
    }
    config = config.probation(options.probation).leave_time(options.leave);
    if let Some(path) = options.unhealthy.clone() {
        config = config.probation_check(move || {
            while path.is_dir() {
                thread::sleep(Duration::from_millis(100));
            }
            !path.exists()
        });
    }
    if let Some(nth) = options.unhealthy_at {
        let (part, mut calls) = (part.clone(), 0);
        config = config.probation_check(move || {
            calls += 1;
            part.report(&format!("check {calls}"));
            calls < nth
        });
    }
    if let Some(time) = options.drain_timeout {
        config = config.drain_timeout(time);
    }
    if let Some(time) = options.takeover_timeout {
        config = config.takeover_timeout(time);
    }
    if let Some(state) = options.state.clone() {
        config = config.hand_over("", move || state.give());
    }
    for (name, version, text) in options.hand_over.clone() {
        let state = move || text.clone().into_bytes();
        config = config.hand_over_version(name, version, state);
    }
    if let Some(path) = options.watchdog.clone() {
        config = config.watchdog(move || path.exists());
    }
    if let Some(signal) = options.release_signal {
        config = config.release_signal(signal);
    }
    config = config.reload_signals(options.reload_signals.clone());
    config = config.signals_to_all(options.to_all.clone());
    if let Some(folder) = &options.working_dir {
        config = config.working_dir(folder);
    }
    if let Some(file) = options.environment.clone() {
        config = config.environment(move || {
            let text = fs::read_to_string(&file).expect("the file of the environment");
            let (name, value) = text.trim().split_once('=').expect("a variable");
            [(name.into(), value.into())]
        });
    }
    if let Some(generations) = options.max_draining {
        config = config.max_draining(generations);
    }
    if let Some(then) = options.too_many {
        config = config.too_many_draining(then);
    }
    if let Some(restarts) = options.parent_restarts {
        config = config.parent_restarts(restarts);
    }
    if let Some(code) = options.release_code {
        config = config.release_code(code);
    }
    if let Some(fd) = options.notification_fd {
        config = config.notification_fd(fd);
    }
    if options.keep_output {
        config = config.replace_output(false);
    }
    config
}

/// Reports these signals, for ever.
fn report_signals(signals: Vec<i32>, part: &Part) {
    let mut signals = Signals::new(signals).expect("signals that can be caught");
    let part = part.clone();
    thread::spawn(move || signals.forever().for_each(|one| part.report(&format!("signal {one}"))));
}

fn watch_signals(options: &Options, part: &Part, tasks: Sender<Task>) {
    let on = options.on.clone();
    let mut watched: Vec<i32> = on.iter().map(|(signal, _)| *signal).collect();
    if options.catch_all {
        watched.extend(catchable_signals());
    }
    let mut signals = Signals::new(watched).expect("signals that can be caught");
    let part = part.clone();
    thread::spawn(move || {
        for signal in signals.forever() {
            part.report(&format!("signal {signal}"));
            for (_, action) in on.iter().filter(|(number, _)| *number == signal) {
                match action {
                    // Here it would end no more than this thread.
                    Action::Panic => tasks.send(Task::Panic).expect("the main thread listens"),
                    action => part.act(action),
                }
            }
        }
    });
}

/// A thread, as soon as there is one to be had: what a test makes fail is the crate, not the probe.
fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let body = Arc::new(Mutex::new(Some(body)));
    loop {
        let theirs = Arc::clone(&body);
        let run = move || theirs.lock().expect("no panic").take().expect("run once");
        match thread::Builder::new().spawn(move || run()()) {
            Ok(thread) => return thread,
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn wait_file(path: &Path) {
    while !path.exists() {
        thread::sleep(Duration::from_millis(2));
    }
}

fn hang() {
    loop {
        thread::park();
    }
}

fn open(kind: &str, asked: &Asked, part: &Part) -> Vec<Listening> {
    let Asked { address, count, options, steer } = asked;
    let found = match kind {
        "tcp" => options.tcp(address).map(|one| vec![Listening::Tcp(one)]),
        "udp" => options.udp(address).map(|one| vec![Listening::Udp(one)]),
        "unix" => options.unix(address).map(|one| vec![Listening::Unix(one)]),
        "unix-datagram" => options.unix_datagram(address).map(|one| vec![Listening::Datagram(one)]),
        "unix-seqpacket" => options.unix_seqpacket(address).map(|one| vec![Listening::Other(one)]),
        "vsock" => {
            let port = address.parse().expect("a port");
            options.vsock(u32::MAX, port).map(|one| vec![Listening::Other(one)])
        }
        "group" => options
            .tcp_group(address, *count)
            .map(|group| group.into_iter().map(Listening::Tcp).collect()),
        _ => options
            .udp_group(address, *count)
            .map(|group| group.into_iter().map(Listening::Udp).collect()),
    };
    let found = part.check("socket", found);
    for socket in &found {
        part.report(&format!("socket {kind} {}", socket.address()));
        match steer {
            Some(Steer::Quic) => {
                let ids = part.check("ids", ConnectionIds::new(socket));
                let id: String = ids.generate().iter().map(|byte| format!("{byte:02x}")).collect();
                part.report(&format!("id {id}"));
                *IDS.lock().expect("no panic") = Some(ids);
            }
            Some(steer @ Steer::Bytes { .. }) => {
                part.report(&format!("value {}", part.check("value", steer.mine(socket))));
            }
            _ => {}
        }
    }
    found
}

/// Answers until it is told to drain; then accepts what is queued, closes, and answers what is in
/// flight. Or as [`Accept`] says.
struct Server {
    /// Closing it starts the drain.
    running: Option<UnixStream>,
    accept: Accept,
    /// Ends with the socket, where that was not served to the end.
    acceptor: JoinHandle<Option<Listening>>,
}

/// By a filter of `seccomp(2)`, which stays over `execve`. A daemon has inherited its launcher's, and may be
/// refused the call for one of its own.
fn refuse(calls: &[u32], error: u16) {
    use nix::libc::{
        BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, PR_SET_NO_NEW_PRIVS,
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, prctl,
        sock_filter, sock_fprog,
    };
    if env::var_os("SEAMLESS").is_some() {
        return;
    }
    let step = |code: u32, jf, k| sock_filter { code: code as u16, jt: 0, jf, k };
    let answer = |k| step(BPF_RET | BPF_K, 0, k);
    let mut program = vec![step(BPF_LD | BPF_W | BPF_ABS, 0, 0)]; // the number of the call
    for call in calls {
        program.push(step(BPF_JMP | BPF_JEQ | BPF_K, 1, *call));
        program.push(answer(SECCOMP_RET_ERRNO | u32::from(error)));
    }
    program.push(answer(SECCOMP_RET_ALLOW));
    let filter = sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    #[allow(unsafe_code)]
    // SAFETY: the kernel copies the program, which lives until both calls have returned.
    unsafe {
        assert_eq!(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0, "{}", io::Error::last_os_error());
        let done = prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &raw const filter);
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
    }
}

impl Server {
    fn start(socket: Listening, part: &Part, accept: Accept) -> Self {
        let (running, ended) = UnixStream::pair().expect("a socket pair");
        let part = part.clone();
        let acceptor = spawn(move || {
            if matches!(accept, Accept::Never | Accept::Late) {
                let mut events = [PollFd::new(&ended, PollFlags::IN)];
                while poll(&mut events, None).is_err() {}
            }
            if accept == Accept::Started {
                let (started, told) = &STARTED;
                let started = started.lock().expect("no panic");
                drop(told.wait_while(started, |started| !*started).expect("no panic"));
            }
            match accept {
                Accept::Never => Some(socket),
                Accept::UntilDrain => serve(socket, &ended, &part, false),
                Accept::Always | Accept::Started | Accept::Late => {
                    serve(socket, &ended, &part, true)
                }
            }
        });
        Server { running: Some(running), accept, acceptor }
    }

    fn stop(&mut self) {
        self.running = None;
    }

    fn join(self) {
        drop(self.acceptor.join().expect("no panic in the server"));
    }
}

/// The socket of a server.
enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
    Udp(UdpSocket),
    Datagram(UnixDatagram),
    /// `std` has no type for it.
    Other(std::os::fd::OwnedFd),
}

trait Connection: Read + Write + Send {}

impl<T: Read + Write + Send> Connection for T {}

impl Listening {
    fn address(&self) -> String {
        match self {
            Listening::Tcp(socket) => socket.local_addr().expect("its address").to_string(),
            Listening::Udp(socket) => socket.local_addr().expect("its address").to_string(),
            Listening::Unix(socket) => format!("{:?}", socket.local_addr().expect("its address")),
            Listening::Datagram(socket) => {
                format!("{:?}", socket.local_addr().expect("its address"))
            }
            Listening::Other(socket) => {
                use std::os::fd::AsRawFd;
                let link = format!("/proc/self/fd/{}", socket.as_raw_fd());
                fs::read_link(link).expect("/proc").display().to_string()
            }
        }
    }

    /// The next connection; `None` for a datagram, which is answered at once.
    fn next(&self) -> io::Result<Option<Box<dyn Connection>>> {
        let mut bytes = [0; 2048];
        let answer = |bytes: &[u8]| [format!("{} ", process::id()).as_bytes(), bytes].concat();
        match self {
            // What it accepts inherits no O_NONBLOCK.
            Listening::Tcp(socket) => Ok(Some(Box::new(socket.accept()?.0))),
            Listening::Other(_) => Err(io::ErrorKind::WouldBlock.into()),
            Listening::Unix(socket) => Ok(Some(Box::new(socket.accept()?.0))),
            Listening::Udp(socket) => {
                let (length, from) = socket.recv_from(&mut bytes)?;
                socket.send_to(&answer(&bytes[..length]), from).map(|_| None)
            }
            Listening::Datagram(socket) => {
                let (length, from) = socket.recv_from(&mut bytes)?;
                let path = from.as_pathname().ok_or(io::ErrorKind::InvalidInput)?;
                socket.send_to(&answer(&bytes[..length]), path).map(|_| None)
            }
        }
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listening::Tcp(socket) => socket.as_fd(),
            Listening::Unix(socket) => socket.as_fd(),
            Listening::Udp(socket) => socket.as_fd(),
            Listening::Datagram(socket) => socket.as_fd(),
            Listening::Other(socket) => socket.as_fd(),
        }
    }
}

fn listen(address: &Address) -> io::Result<Listening> {
    match address {
        Address::Tcp(address) => {
            let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&(*address).into())?;
            socket.listen(1024)?;
            Ok(Listening::Tcp(socket.into()))
        }
        Address::Unix(path) => {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            // Listening before it has its name: nobody finds one that refuses.
            let new = path.with_extension(process::id().to_string());
            socket.bind(&SockAddr::unix(&new)?)?;
            socket.listen(1024)?;
            fs::rename(new, path)?;
            Ok(Listening::Unix(socket.into()))
        }
    }
}

/// With `empty`, until the drain has begun and nothing waits any more; else until it has begun.
fn serve(socket: Listening, ended: &UnixStream, part: &Part, empty: bool) -> Option<Listening> {
    let mut workers: Vec<JoinHandle<io::Result<()>>> = Vec::new();
    let mut draining = false;
    loop {
        if PARKED.load(Ordering::SeqCst) && !draining {
            let mut events = [PollFd::new(ended, PollFlags::IN)];
            let _ = poll(&mut events, Some(&MOMENT));
            draining = !events[0].revents().is_empty();
            continue;
        }
        match socket.next() {
            Ok(Some(connection)) => {
                let part = part.clone();
                workers.retain(|worker| !worker.is_finished());
                workers.push(spawn(move || answer(connection, &part)));
            }
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && draining => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut events =
                    [PollFd::new(&socket, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
                // Interrupted or not, the next look shows what there is.
                let _ = poll(&mut events, None);
                draining = !events[1].revents().is_empty();
                if draining && !empty {
                    return Some(socket);
                }
            }
            // The client has gone again, we were interrupted, or there is no descriptor to be had.
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
    drop(socket);
    for worker in workers {
        // A client that went away is no fault of ours.
        let _ = worker.join().expect("no panic in a worker");
    }
    None
}

/// How long a server that is parked takes to notice that it is to serve again.
const MOMENT: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

fn answer(mut connection: Box<dyn Connection>, part: &Part) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut bytes = [0; 1024];
        match connection.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(count) => request.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if CRASH_AFTER.fetch_sub(1, Ordering::SeqCst) <= 1 {
        process::abort();
    }
    let request = String::from_utf8_lossy(&request);
    let path = request.split(' ').nth(1).unwrap_or_default();
    if let Some((_, delay)) = path.split_once("?delay=") {
        part.report(&format!("request {path}"));
        thread::sleep(humantime::parse_duration(delay).unwrap_or_default());
    }
    if let Some(count) = path.strip_prefix("/bytes/").and_then(|count| count.parse().ok()) {
        return stream(connection, count);
    }
    let body = format!("Server pid: {}\n", process::id());
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close";
    let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    connection.write_all(answer.as_bytes())
}

/// A body of so many bytes, in a pattern.
fn stream(mut connection: Box<dyn Connection>, count: usize) -> io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nConnection: close";
    connection.write_all(format!("{head}\r\nContent-Length: {count}\r\n\r\n").as_bytes())?;
    let mut sent = 0;
    while sent < count {
        let part = &PATTERN[..PATTERN.len().min(count - sent)];
        connection.write_all(part)?;
        sent += part.len();
    }
    Ok(())
}
