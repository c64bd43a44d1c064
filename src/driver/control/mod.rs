//! The takeover: in the old daemon the thread that hands over, in the new one the call that takes.

use crate::driver::daemon::{self, Daemon, generation};
use crate::driver::generation::Service;
use crate::driver::log::{Maybe, note};
use crate::driver::sockets::{self, Entry};

pub(super) mod status;
use crate::config::{Config, HandOver};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::control::frame::{self, Answer, Request};
use crate::proto::control::transfer::{Give, Giving, Predecessor, Taking, Took, Untakeable, giver};
use crate::proto::paths;
use crate::shutdown::lock;
use crate::sys::process::{self, Held};
use crate::sys::seqpacket::{Arrival, Link, Listener, Message};
use crate::sys::socket::{self, Peer};
use crate::sys::unix_path::Beside;
use crate::sys::wait::{self, Waker};
use crate::sys::{memfd, rlimit};
use std::any::Any;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, TryLockError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// At most so many are answered at the same time; the others wait.
const CONNECTIONS: usize = 8;
/// A pause before something is tried again that the system has refused for the moment.
const PAUSE: Duration = Duration::from_millis(1);

static SERVER: OnceLock<Server> = OnceLock::new();

/// What the thread `seamless-sockets` serves.
struct Server {
    daemon: &'static Daemon,
    timeout: Duration,
    since: Instant,
    waker: Waker,
    /// Ours, once `started` has put it in place.
    listener: Mutex<Option<Arc<Listener>>>,
    hand_over: Arc<Mutex<Option<HandOver>>>,
    /// Older generations, after whose end the retired members of groups are closed.
    older: Mutex<Vec<Held>>,
    connections: AtomicUsize,
}

/// The settings of [`crate::Config`] that belong here.
pub(in crate::driver) struct Settings {
    pub(super) hand_over: Option<HandOver>,
    pub(super) timeout: Duration,
}

impl Settings {
    pub(in crate::driver) fn take(mut config: Config) -> (Config, Settings) {
        let hand_over = config.hand_over.take();
        let timeout = config.takeover_timeout;
        (config, Settings { hand_over, timeout })
    }
}

/// Counts down what a whole takeover may take.
#[derive(Clone, Copy)]
pub(crate) struct Deadline {
    due: Instant,
    timeout: Duration,
    /// What the limit is called where it is set.
    name: &'static str,
}

impl Deadline {
    fn after(timeout: Duration) -> Deadline {
        Deadline::named(timeout, "takeover_timeout")
    }

    pub(crate) fn named(timeout: Duration, name: &'static str) -> Deadline {
        // A limit beyond what the clock can count is none.
        let far = Duration::from_secs(60 * 60 * 24 * 365);
        Deadline { due: Instant::now() + timeout.min(far), timeout, name }
    }

    pub(crate) fn left(self) -> Result<Duration, String> {
        let left = self.due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("it was not through within {:?} ({})", self.timeout, self.name));
        }
        Ok(left)
    }

    /// Sends one message, as soon as there is room for it.
    pub(crate) fn send(
        self,
        link: &Link,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), String> {
        loop {
            match link.send(bytes, fds) {
                Ok(()) => return Ok(()),
                Err(error) if process::is_shortage(&error) => {
                    wait::writable(link.as_fd(), self.left()?);
                    thread::sleep(PAUSE); // there was room, but not memory
                }
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Err(CLOSED.into());
                }
                Err(error) => return Err(format!("cannot send to it: {error}")),
            }
        }
    }

    /// Receives one message, complete and with all its descriptors.
    pub(crate) fn receive(self, link: &Link) -> Result<Message, String> {
        loop {
            match link.receive(frame::MESSAGE_MAX) {
                Arrival::Message(Message { lost_fds: true, .. }) => {
                    return Err("some of the descriptors that it sent are lost (MSG_CTRUNC): the \
                                limit of open files may be too low"
                        .into());
                }
                Arrival::Message(Message { is_cut: true, .. }) => {
                    return Err("it sent a message that is too long".into());
                }
                Arrival::Message(message) => return Ok(message),
                Arrival::Nothing => wait::readable(&[link.as_fd()], Some(self.left()?)),
                Arrival::Closed => return Err(CLOSED.into()),
                Arrival::OutOfMemory => {
                    self.left()?;
                    thread::sleep(PAUSE);
                }
            }
        }
    }
}

const CLOSED: &str = "it has closed the connection half-way";

// ---- the old daemon ----

/// Starts the thread that hands over. It waits for [`listen`].
pub(in crate::driver) fn serve(daemon: &'static Daemon, settings: Settings) -> Result<()> {
    let waker = Waker::new()
        .map_err(|error| Error::io(ErrorKind::System, "cannot make a socket pair (init)", error))?;
    let server = SERVER.get_or_init(|| Server {
        daemon,
        timeout: settings.timeout,
        since: Instant::now(),
        waker,
        listener: Mutex::new(None),
        hand_over: Arc::new(Mutex::new(settings.hand_over)),
        older: Mutex::new(Vec::new()),
        connections: AtomicUsize::new(0),
    });
    daemon::spawn("seamless-sockets", move || server.run())
}

/// Our takeover socket, before it is put in place. The caller holds the claim.
pub(in crate::driver) struct Prepared {
    path: PathBuf,
    beside: Beside,
}

/// Does all that can fail for want of descriptors or memory.
pub(in crate::driver) fn prepare(pid_file: &Path) -> Result<Prepared> {
    let path = paths::control_socket(pid_file);
    let beside = Listener::bind(&path).map_err(|error| cannot_bind(&path, error))?;
    Ok(Prepared { path, beside })
}

impl Prepared {
    pub(in crate::driver) fn place(self) -> Result<()> {
        let listener =
            Listener::place(self.beside).map_err(|error| cannot_bind(&self.path, error))?;
        if let Some(server) = SERVER.get() {
            *lock(&server.listener) = Some(Arc::new(listener));
            server.waker.wake();
        }
        Ok(())
    }
}

fn cannot_bind(path: &Path, error: io::Error) -> Error {
    let denied =
        matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem);
    let error = Error::io(ErrorKind::Takeover, format!("cannot bind {path:?} (takeover)"), error);
    if denied { error.hint(crate::sys::pid_file::must_be_writable()) } else { error }
}

/// Has our takeover socket lost its name, and nobody else has it?
pub(in crate::driver) fn is_lost(pid_file: &Path) -> bool {
    SERVER.get().is_some_and(|server| {
        lock(&server.listener)
            .as_ref()
            .is_some_and(|listener| listener.is_lost(&paths::control_socket(pid_file)))
    })
}

/// Closes the retired members of groups once these have ended.
pub(in crate::driver) fn retire_after(older: Vec<Held>) {
    if let Some(server) = SERVER.get() {
        *lock(&server.older) = older;
        server.waker.wake();
    }
}

impl Server {
    fn run(&'static self) {
        loop {
            let listener = lock(&self.listener).clone();
            let older = std::mem::take(&mut *lock(&self.older));
            let mut fds = vec![self.waker.as_fd()];
            // At its limit, connections wait in the queue until one of those that run is through.
            let has_room = self.connections.load(Ordering::SeqCst) < CONNECTIONS;
            fds.extend(listener.as_ref().filter(|_| has_room).map(|listener| listener.as_fd()));
            fds.extend(older.iter().map(AsFd::as_fd));
            wait::readable(&fds, None);
            self.waker.clear();
            if !older.is_empty() {
                let left: Vec<Held> =
                    older.into_iter().filter(|older| !older.has_ended()).collect();
                if left.is_empty() {
                    sockets::close_retired();
                } else {
                    lock(&self.older).extend(left);
                }
            }
            let Some(listener) = listener.filter(|_| has_room) else { continue };
            match listener.accept() {
                Ok(Some(link)) => self.answer(link),
                Ok(None) => {}
                Err(error) => {
                    note!(Warn, "stage=handover daemon={} error=\"{error}\"", process::own_pid());
                    thread::sleep(Duration::from_millis(100)); // it stays readable
                }
            }
        }
    }

    /// Each on a thread of its own, so that one that hangs holds up nobody.
    fn answer(&'static self, link: Link) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let link = Arc::new(link);
        let theirs = Arc::clone(&link);
        let spawned = thread::Builder::new().name("seamless-answer".to_owned()).spawn(move || {
            self.answer_here(&theirs);
            drop(theirs);
            self.connections.fetch_sub(1, Ordering::SeqCst);
            self.waker.wake();
        });
        if spawned.is_err() {
            self.answer_here(&link);
            self.connections.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn answer_here(&self, link: &Link) {
        let own = process::own_pid();
        let Some(peer) = link.peer() else { return };
        let deadline = Deadline::after(self.timeout);
        if let Err(error) = self.converse(link, peer, deadline) {
            note!(Warn, "stage=handover daemon={own} peer={} error=\"{error}\"", peer.pid);
        }
    }

    fn converse(&self, link: &Link, peer: Peer, deadline: Deadline) -> Result<(), String> {
        if !peer.may_control() {
            let why = format!("uid {} may not take over", peer.uid);
            _ = link.send(&Answer::Refused(why.clone()).format(), &[]);
            return Err(why);
        }
        let message = match link_message(link, deadline) {
            Err(error) if error == CLOSED => return Ok(()), // it has only looked whether we are here
            message => message?,
        };
        let refuse = |why: String| {
            _ = link.send(&Answer::Refused(why.clone()).format(), &[]);
            Err(why)
        };
        match message {
            Ok(Request::Status) => {
                let status = status::of(self.daemon, self.since.elapsed()).format();
                deadline.send(link, &Answer::Status(status).format(), &[])
            }
            Ok(Request::Restart) => {
                let refused = daemon::restart().err().map(|error| error.to_string());
                note_command("restart", peer, refused.as_deref());
                let answer = refused.map_or(Answer::Accepted, Answer::Refused);
                deadline.send(link, &answer.format(), &[])
            }
            Ok(Request::Stop) => {
                note_command("stop", peer, None);
                // First the answer: the process may end as soon as it is told.
                let sent = deadline.send(link, &Answer::Accepted.format(), &[]);
                daemon::stop(self.daemon);
                sent
            }
            Ok(Request::Take { generation: theirs }) => {
                if let Err(why) = Giving::begin(generation().unwrap_or(0), theirs) {
                    return refuse(why);
                }
                self.hand_over(link, peer, theirs, deadline)
            }
            Ok(Request::Got { .. } | Request::Done) => refuse("it began in the middle".to_owned()),
            Err(refused) => refuse(format!("it sent {refused}")),
        }
    }

    fn hand_over(
        &self,
        link: &Link,
        peer: Peer,
        theirs: u64,
        deadline: Deadline,
    ) -> Result<(), String> {
        let began = Instant::now();
        let own = process::own_pid();
        let entries = sockets::held();
        let state = match &entries {
            None => None, // draining: there is nothing left to hand over
            Some(_) => match self.state(deadline) {
                Ok(state) => state,
                Err(why) => {
                    _ = link.send(&Answer::Refused(why.clone()).format(), &[]);
                    return Err(why);
                }
            },
        };
        let entries = entries.unwrap_or_default();
        let bytes = state.as_ref().map(|(_, bytes)| *bytes);
        let mut rest = &entries[..];
        let mut giving = Giving::new(rest.len(), state.is_some());
        while !giving.is_through() {
            let fits = |_| frame::chunk(rest.iter().map(|entry| &entry.socket));
            match giving.next(fits) {
                Some(Give::Offer) => {
                    let generation = generation().unwrap_or(0);
                    let offer = Answer::Offer { generation, sockets: rest.len(), state: bytes };
                    deadline.send(link, &offer.format(), &[])?;
                }
                Some(Give::Sockets(0)) => {
                    return Err(format!("{} does not fit into a message", rest[0].socket.asked));
                }
                Some(Give::Sockets(count)) => {
                    let (chunk, more) = rest.split_at(count);
                    let sockets = chunk.iter().map(|entry| entry.socket.clone()).collect();
                    let fds: Vec<BorrowedFd<'_>> =
                        chunk.iter().map(|entry| entry.fd.as_fd()).collect();
                    deadline.send(link, &Answer::Sockets(sockets).format(), &fds)?;
                    rest = more;
                }
                Some(Give::State) => {
                    let (memory, bytes) = state.as_ref().expect("there is one");
                    let message = Answer::State { bytes: *bytes };
                    deadline.send(link, &message.format(), &[memory.as_fd()])?;
                }
                Some(Give::End) => deadline.send(link, &Answer::End.format(), &[])?,
                None => match link_message(link, deadline)? {
                    Ok(request) => giving.on(request)?,
                    Err(refused) => return Err(format!("it sent {refused}")),
                },
            }
        }
        note!(
            Info,
            "stage=handover generation={} daemon={own} successor={} successor_generation={theirs} \
             sockets={} state={} elapsed_ms={:.1}",
            Maybe(generation()),
            peer.pid,
            entries.len(),
            Maybe(bytes),
            began.elapsed().as_secs_f64() * 1e3,
        );
        Ok(())
    }

    /// What the program hands over, in sealed memory. It is asked on a thread of its own: it may
    /// take too long, or panic.
    fn state(&self, deadline: Deadline) -> Result<Option<(OwnedFd, u64)>, String> {
        let hand_over = Arc::clone(&self.hand_over);
        match hand_over.try_lock() {
            Ok(hook) if hook.is_none() => return Ok(None),
            Err(TryLockError::WouldBlock) => return Err("hand_over still runs".to_owned()),
            Ok(_) | Err(TryLockError::Poisoned(_)) => {}
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        let asked = thread::Builder::new().name("seamless-state".to_owned()).spawn(move || {
            let mut hook = lock(&hand_over);
            let Some(hook) = &mut *hook else { return };
            let state = catch_unwind(AssertUnwindSafe(hook)).map_err(|panic| {
                let panic = text_of(&*panic);
                note!(
                    Error,
                    "stage=handover daemon={} hook=hand_over panic={panic:?}",
                    process::own_pid(),
                );
                "hand_over panicked".to_owned()
            });
            _ = sender.send(state);
        });
        asked.map_err(|error| format!("cannot start a thread for hand_over: {error}"))?;
        let state = receiver.recv_timeout(deadline.left()?).map_err(|_| {
            format!("hand_over takes longer than {:?} (takeover_timeout)", self.timeout)
        })??;
        let bytes = state.len() as u64;
        if bytes > frame::STATE_MAX {
            return Err(format!(
                "hand_over gave {bytes} bytes, and {} are the limit",
                frame::STATE_MAX
            ));
        }
        let memory =
            memfd::seal(&state).map_err(|error| format!("cannot seal the state: {error}"))?;
        Ok(Some((memory, bytes)))
    }
}

/// Who has asked for what, and what came of it.
fn note_command(request: &str, peer: Peer, refused: Option<&str>) {
    let (own, peer, uid) = (process::own_pid(), peer.pid, peer.uid);
    match refused {
        None => note!(Info, "stage=command daemon={own} request={request} peer={peer} uid={uid}"),
        Some(why) => note!(
            Warn,
            "stage=command daemon={own} request={request} peer={peer} uid={uid} refused={why:?}",
        ),
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

/// A request of the peer's. The outer error is the connection's, the inner one the message's.
fn link_message(
    link: &Link,
    deadline: Deadline,
) -> Result<Result<Request, frame::Refused>, String> {
    let message = deadline.receive(link)?;
    if !message.fds.is_empty() {
        return Err(format!("it sent {} descriptors that nobody asked for", message.fds.len()));
    }
    Ok(Request::parse(&message.bytes))
}

// ---- the new daemon ----

/// What was taken over, or as much of it as came before the predecessor's end.
#[derive(Default)]
pub(in crate::driver) struct Taken {
    /// Whose it was.
    pub(super) generation: Option<u64>,
    pub(super) entries: Vec<Entry>,
    pub(super) state: Option<Vec<u8>>,
}

/// Takes over from the predecessor, if there is one that hands over.
pub(in crate::driver) fn take(service: &Service) -> Result<Taken> {
    let timeout = SERVER.get().map_or(Duration::MAX, |server| server.timeout);
    let Some(own) = service.number() else {
        return Ok(Taken::default()); // no claim, no predecessor
    };
    let deadline = Deadline::after(timeout);
    let mut predecessors = service.predecessors()?;
    let path = paths::control_socket(&service.pid_file);
    let refuse = |why: String| {
        Err(Error::new(
            ErrorKind::Takeover,
            format!("cannot take over at {path:?} (takeover): {why}"),
        ))
    };
    let link = match connect(&path, deadline) {
        Ok(link) => link.listener().map(|listener| (link, listener.pid)),
        Err(Unconnected::Nobody) => None,
        Err(Unconnected::Failed(why)) => return refuse(why),
    };
    if link.is_none() {
        predecessors.retain(|one| !(one.about.hands_over && one.is_ending()));
    }
    let known: Vec<_> = predecessors.iter().map(|one| one.about).collect();
    let predecessor = match giver(link.as_ref().map(|(_, pid)| *pid), &known) {
        Ok(predecessor) => predecessor,
        Err(Untakeable::Stranger(pid)) => {
            return refuse(format!(
                "process {pid} listens there, which is not proven to be a predecessor"
            ));
        }
        Err(Untakeable::NobodyListens(one)) => {
            return refuse(format!(
                "nobody listens there, while generation {} with daemon {} should; it looks after it \
                 each second",
                one.number, one.pid,
            ));
        }
    };
    let (Some(predecessor), Some((link, _))) = (predecessor, link) else {
        for one in known {
            note!(
                Info,
                "stage=takeover daemon={} predecessor={} predecessor_generation={} sockets=0 \
                 reason=\"it hands nothing over\"",
                process::own_pid(),
                one.pid,
                one.number,
            );
        }
        return Ok(Taken::default());
    };
    let mut taken = Taken::default();
    match receive(&link, own, &predecessor, deadline, &mut taken) {
        Ok(()) => Ok(taken),
        // What has come is now held by us alone, and with us it would be lost.
        Err(why)
            if why == CLOSED
                && predecessors.iter().any(|one| one.about == predecessor && one.is_ending()) =>
        {
            note!(
                Warn,
                "stage=takeover daemon={} predecessor={} predecessor_generation={} sockets={} \
                 reason=\"it ended half-way\"",
                process::own_pid(),
                predecessor.pid,
                predecessor.number,
                taken.entries.len(),
            );
            Ok(taken)
        }
        Err(why) => refuse(format!("process {}: {why}", predecessor.pid)),
    }
}

pub(crate) enum Unconnected {
    /// Nothing is there, or what a process that is gone has left.
    Nobody,
    Failed(String),
}

pub(crate) fn connect(path: &Path, deadline: Deadline) -> Result<Link, Unconnected> {
    loop {
        let error = match Link::connect(path) {
            Ok(link) => return Ok(link),
            Err(error) => error,
        };
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                return Err(Unconnected::Nobody);
            }
            // Others wait there, and the queue is full.
            io::ErrorKind::WouldBlock => {
                deadline.left().map_err(Unconnected::Failed)?;
                thread::sleep(PAUSE);
            }
            _ => return Err(Unconnected::Failed(error.to_string())),
        }
    }
}

/// What comes is in `taken` at once.
fn receive(
    link: &Link,
    own: u64,
    predecessor: &Predecessor,
    deadline: Deadline,
    taken: &mut Taken,
) -> Result<(), String> {
    let began = Instant::now();
    let (mut taking, first) = Taking::begin(own, predecessor);
    if let Err(closed) = deadline.send(link, &first.format(), &[]) {
        // It may have said why.
        let (answer, fds) = answer(link, deadline)?;
        return Err(taking.on(answer, fds.len()).err().unwrap_or(closed));
    }
    loop {
        let (answer, fds) = answer(link, deadline)?;
        let (took, reply) = taking.on(answer, fds.len())?;
        let is_end = took == Took::End;
        match took {
            Took::Offer(sockets) => {
                taken.generation = Some(predecessor.number);
                if sockets > 0 {
                    rlimit::make_room(2 * sockets as u64);
                    taken.entries.reserve(sockets);
                }
            }
            Took::Sockets(claimed) => {
                for (claimed, fd) in claimed.into_iter().zip(fds) {
                    taken.entries.push(check(claimed, fd)?);
                }
            }
            Took::State(offered) => {
                let memory = fds.into_iter().next().expect("one");
                taken.state = Some(memfd::read_sealed(memory, offered)?);
            }
            Took::End => {}
        }
        if let Some(reply) = reply {
            deadline.send(link, &reply.format(), &[])?;
        }
        if is_end {
            break;
        }
    }
    let generation = predecessor.number;
    let (sockets, state) = (taken.entries.len(), taken.state.as_ref().map(Vec::len));
    note!(
        Info,
        "stage=takeover daemon={} predecessor={} predecessor_generation={generation} \
         sockets={sockets} state={} elapsed_ms={:.1}",
        process::own_pid(),
        predecessor.pid,
        Maybe(state),
        began.elapsed().as_secs_f64() * 1e3,
    );
    Ok(())
}

fn answer(link: &Link, deadline: Deadline) -> Result<(Answer, Vec<OwnedFd>), String> {
    let message = deadline.receive(link)?;
    match Answer::parse(&message.bytes) {
        Ok(answer) => Ok((answer, message.fds)),
        Err(refused) => Err(format!("it sent {refused}")),
    }
}

/// Is it what it claims to be?
fn check(claimed: frame::Socket, fd: OwnedFd) -> Result<Entry, String> {
    let wrong = |why: String| {
        format!(
            "the {} socket that it sent for {} is not one: {why}",
            claimed.kind.name(),
            claimed.local
        )
    };
    let (kind, local) = socket::describe(fd.as_fd()).map_err(wrong)?;
    if kind != claimed.kind {
        return Err(wrong(format!("it is a {} socket", kind.name())));
    }
    if local != claimed.local {
        return Err(wrong(format!("it is bound to {local}")));
    }
    Ok(sockets::entry(claimed, fd))
}
