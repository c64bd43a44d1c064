//! A chat over TCP whose clients never notice a restart: `chat [PID_FILE [ADDRESS]]`.
//!
//! `join ROOM` and `say TEXT` are the two commands. Each line is sent to all members of the room, with the number of
//! its author. Try it with `nc 127.0.0.1 7000` in two windows, and restart it as often as you like.
//!
//! When the drain begins, all tasks stop reading, so that nothing more is said in this process. Then each connection is
//! passed to the successor, with its number, its room, the half of a line that was read, and the lines that are not
//! written yet. Some connections arrive earlier than others, so each gets on its arrival what was said since the
//! successor has started. If a connection cannot be passed, it is served on.

use seamless::connections::tokio::{Arrived, accept, pass};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::{env, error::Error, io, time::Duration};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

/// A change of what [`Member::state`] writes gets another name.
const KIND: &str = "chat/1";
/// The longest line.
const LONGEST: usize = 4096;
/// How much may wait to be read by a client. One that reads no more is let go.
const UNSENT: usize = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let pid_file = args.next().unwrap_or("/run/chat/chat.pid".into());
    let address = args.next().unwrap_or("127.0.0.1:7000".into());
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();

    seamless::Config::new(pid_file).drain_timeout(Duration::from_secs(3600)).init()?;
    let numbers = seamless::counters::get("chat_members"); // so that no two have the same
    Runtime::new()?.block_on(async {
        let rooms = Arc::new(Rooms::new());
        let mut arriving = accept::<TcpStream>(KIND)?;
        let mut listener = seamless::sockets::tokio::tcp(address)?;
        seamless::started()?;
        let theirs = Arc::clone(&rooms);
        tokio::spawn(async move {
            loop {
                let Arrived { stream, unread, state, guard, .. } = arriving.next().await;
                let member = Member::arrived(unread, &state);
                tokio::spawn(serve(stream, member, true, Arc::clone(&theirs), guard));
            }
        });
        while let Some((stream, _)) = listener.next().await {
            let guard = seamless::drain_guard();
            let number = numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tokio::spawn(serve(stream, Member::new(number), false, Arc::clone(&rooms), guard));
        }
        seamless::finished().await;
        Ok(())
    })
}

/// The members of the rooms, and what was said.
struct Rooms {
    inner: Mutex<HashMap<String, Room>>,
    /// How many tasks still read: more may be said.
    reading: watch::Sender<usize>,
}

#[derive(Default)]
struct Room {
    members: BTreeMap<u64, mpsc::UnboundedSender<String>>,
    /// Since this process has started. A real chat would keep only the lines of the last minutes.
    said: Vec<String>,
}

impl Rooms {
    fn new() -> Rooms {
        Rooms { inner: Mutex::default(), reading: watch::Sender::new(0) }
    }

    fn say(&self, member: &Member, text: &str) {
        let line = format!("{} {text}\n", member.number);
        let mut rooms = self.inner.lock().expect("no panic");
        let room = rooms.entry(member.room.clone()).or_default();
        room.members.values().for_each(|inbox| _ = inbox.send(line.clone()));
        room.said.push(line);
    }

    /// `arrived`: it gets what has been said in this process, since all others in the room have got it.
    fn join(&self, member: &Member, inbox: &mpsc::UnboundedSender<String>, arrived: bool) {
        let mut rooms = self.inner.lock().expect("no panic");
        let room = rooms.entry(member.room.clone()).or_default();
        if arrived {
            room.said.iter().for_each(|line| _ = inbox.send(line.clone()));
        }
        room.members.insert(member.number, inbox.clone());
    }

    fn leave(&self, member: &Member) {
        let mut rooms = self.inner.lock().expect("no panic");
        if let Some(room) = rooms.get_mut(&member.room) {
            room.members.remove(&member.number);
        }
    }
}

/// All of a connection but its socket.
struct Member {
    number: u64,
    room: String,
    /// What was read and is not a whole line yet.
    unread: Vec<u8>,
    /// To be written.
    unsent: Vec<u8>,
}

impl Member {
    fn new(number: u64) -> Member {
        Member { number, room: "hall".to_owned(), unread: Vec::new(), unsent: Vec::new() }
    }

    fn state(&self) -> Vec<u8> {
        [format!("{} {}\n", self.number, self.room).as_bytes(), &self.unsent].concat()
    }

    fn arrived(unread: Vec<u8>, state: &[u8]) -> Member {
        let end = state.iter().position(|byte| *byte == b'\n').expect("as `state` writes it");
        let head = String::from_utf8_lossy(&state[..end]).into_owned();
        let (number, room) = head.split_once(' ').expect("as `state` writes it");
        let number = number.parse().expect("a number");
        Member { number, room: room.to_owned(), unread, unsent: state[end + 1..].to_vec() }
    }
}

async fn serve(
    mut stream: TcpStream,
    mut member: Member,
    arrived: bool,
    rooms: Arc<Rooms>,
    _guard: seamless::DrainGuard,
) {
    let (inbox, mut lines) = mpsc::unbounded_channel();
    rooms.join(&member, &inbox, arrived);
    rooms.reading.send_modify(|count| *count += 1);
    let talked = talk(&stream, &mut member, &inbox, &mut lines, &rooms, true).await;
    rooms.reading.send_modify(|count| *count -= 1);
    if let Ok(true) = talked {
        let mut reading = rooms.reading.subscribe();
        _ = reading.wait_for(|count| *count == 0).await;
        rooms.leave(&member);
        while let Ok(line) = lines.try_recv() {
            member.unsent.extend_from_slice(line.as_bytes());
        }
        let (unread, state) = (std::mem::take(&mut member.unread), member.state());
        match pass(KIND, stream, unread, state).await {
            Ok(()) => return,
            Err(stays) => {
                log::info!("connection {} stays: {}", member.number, stays.reason);
                let Ok(back) = stays.stream else { return };
                (stream, member.unread) = (back, stays.unread);
            }
        }
        rooms.join(&member, &inbox, false);
        _ = talk(&stream, &mut member, &inbox, &mut lines, &rooms, false).await;
    }
    rooms.leave(&member);
}

/// Serves until the drain begins, or until the client leaves, which is an error or `false`.
async fn talk(
    stream: &TcpStream,
    member: &mut Member,
    inbox: &mpsc::UnboundedSender<String>,
    lines: &mut mpsc::UnboundedReceiver<String>,
    rooms: &Rooms,
    may_pass: bool,
) -> io::Result<bool> {
    let mut draining = seamless::draining().at_once();
    loop {
        if member.unsent.len() > UNSENT {
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, "it reads nothing"));
        }
        tokio::select! {
            biased;
            () = &mut draining, if may_pass => return Ok(true),
            Some(line) = lines.recv() => member.unsent.extend_from_slice(line.as_bytes()),
            ready = stream.writable(), if !member.unsent.is_empty() => {
                ready?;
                match stream.try_write(&member.unsent) {
                    Ok(written) => drop(member.unsent.drain(..written)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            ready = stream.readable() => {
                ready?;
                let mut bytes = [0; 4096];
                match stream.try_read(&mut bytes) {
                    Ok(0) => return Ok(false),
                    Ok(count) => member.unread.extend_from_slice(&bytes[..count]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
                while let Some(end) = member.unread.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = member.unread.drain(..=end).collect();
                    act(String::from_utf8_lossy(&line).trim_end(), member, inbox, rooms);
                }
                if member.unread.len() > LONGEST {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a long line"));
                }
            }
        }
    }
}

fn act(line: &str, member: &mut Member, inbox: &mpsc::UnboundedSender<String>, rooms: &Rooms) {
    match line.split_once(' ') {
        Some(("say", text)) => rooms.say(member, text),
        Some(("join", room)) => {
            rooms.leave(member);
            room.clone_into(&mut member.room);
            rooms.join(member, inbox, false);
        }
        _ => member.unsent.extend_from_slice(b"? say TEXT, or join ROOM\n"),
    }
}
