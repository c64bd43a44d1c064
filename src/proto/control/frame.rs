//! The messages on the control socket, `web.pid.sock`: those of a transfer, between a new daemon and its
//! predecessor, and the command's questions. Pure: bytes in, values out, and back.
//!
//! The connection is a Unix SEQPACKET socket, so one message is one frame. Each message begins with the
//! protocol's name and version. Descriptors come with it (SCM_RIGHTS).
//!
//! ```text
//! take:    new  take generation=N
//!          old  offer generation=M sockets=K state=BYTES|-
//!          old  sockets count=C, a line for each, and C descriptors      new  got C
//!          …    until there were K
//!          old  state bytes=B, and one sealed memfd                      new  got 1
//!          old  end                                                      new  done
//! status:  status               status generation=… (a text, see `status`)
//! restart: restart              accepted
//! stop:    stop                 accepted
//! commit, roll-back:            accepted
//! standby: stand-by generation=N  accepted, and then both: say WORD
//! ```
//!
//! Instead of each answer, `refused REASON` may come.
//!
//! Within a version, fields may be added, and a reader ignores those that it does not know. A reader
//! refuses an unknown message and any version but its own, with a reason.
//!
//! This file imports nothing of the crate: the fuzzer compiles it by itself.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;

const PROTOCOL: &str = "seamless-takeover";
/// The version of the messages.
pub(crate) const VERSION: u32 = 1;

/// No message is longer.
pub(crate) const MESSAGE_MAX: usize = 64 * 1024;
/// The most descriptors in one message. The kernel takes 253 (`unix(7)`, SCM_MAX_FD), but musl before 1.2.4
/// sends no message with more than 1024 bytes of control data, which is 252 descriptors.
pub(crate) const CHUNK_MAX: usize = 252;
/// No predecessor holds more sockets: the kernel's own limit of open files is about a million.
pub(crate) const SOCKETS_MAX: usize = 1 << 20;
/// The state that a predecessor hands over has no more bytes.
pub(crate) const STATE_MAX: u64 = 64 << 20;
/// A refusal is cut to this many bytes.
pub(crate) const REASON_MAX: usize = 1024;
/// A path has fewer than 4096 bytes, of which each may need three.
const WORD_MAX: usize = 3 * 4096;

/// What kind of socket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SocketKind {
    Tcp,
    Udp,
    Unix,
    UnixDatagram,
}

/// Where a socket is bound.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Address {
    Inet(SocketAddr),
    /// A path. With a NUL byte in front, an abstract name. Empty if the socket has no name.
    Unix(Vec<u8>),
}

/// What identifies a file to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// A socket that is transferred.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Socket {
    pub(crate) kind: SocketKind,
    /// The address as it was asked for: with port 0, or before a rename.
    pub(crate) asked: Address,
    pub(crate) name: Option<String>,
    /// Its place in its group; 0 for a socket without a group.
    pub(crate) member: u32,
    /// A member of a group that its owner did not ask for: no new connections go to it.
    pub(crate) retired: bool,
    /// The address that the kernel gives.
    pub(crate) local: Address,
    /// The file that its path named when it was bound there.
    pub(crate) file: Option<FileId>,
}

/// A word on the lifeline between a generation on probation and the one that stands by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Word {
    /// To the one that stands by, ten times a second; `Resume`: serve again, say so, and I drain.
    Well,
    Resume,
    /// The answer to `Resume`.
    Resumed,
    /// To the one that stands by: TERM follows. `Leaving`: I end, and no successor of mine has come.
    Committed,
    Leaving,
}

impl Word {
    const ALL: [Word; 5] =
        [Word::Well, Word::Resume, Word::Resumed, Word::Committed, Word::Leaving];
    const NAMES: [&str; 5] = ["well", "resume", "resumed", "committed", "leaving"];

    pub(crate) fn name(self) -> &'static str {
        Word::NAMES[self as usize]
    }

    fn from_name(name: &str) -> Option<Word> {
        Word::ALL.into_iter().find(|word| word.name() == name)
    }
}

/// A message from the new daemon, or from the command.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Request {
    Take {
        generation: u64,
    },
    Status,
    Restart,
    Stop,
    Got {
        count: usize,
    },
    Done,
    /// The generation with this number is on probation: the other one is to stand by. After the answer
    /// `accepted` the connection is their lifeline, on which both send [`Request::Say`].
    StandBy {
        generation: u64,
    },
    Say(Word),
    Commit,
    RollBack,
}

/// A message from the old daemon.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    Offer { generation: u64, sockets: usize, state: Option<u64> },
    Sockets(Vec<Socket>),
    State { bytes: u64 },
    End,
    Status(String),
    Accepted,
    Refused(String),
}

/// Why a message cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is of another version.
    Version(u32),
    /// It is not of this protocol.
    Foreign,
    /// This version has no message of this name.
    Unknown(String),
    /// A field is missing or cannot be used.
    Malformed(&'static str),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Version(version) => {
                write!(f, "a message of version {version}, where this side speaks {VERSION}")
            }
            Refused::Foreign => f.write_str("no message of this protocol"),
            Refused::Unknown(name) => write!(f, "an unknown message {name:?}"),
            Refused::Malformed(part) => write!(f, "a message with a wrong {part}"),
        }
    }
}

// ---- requests ----

impl Request {
    pub(crate) fn format(&self) -> Vec<u8> {
        match self {
            Request::Take { generation } => message(format_args!("take generation={generation}")),
            Request::Status => message(format_args!("status")),
            Request::Restart => message(format_args!("restart")),
            Request::Stop => message(format_args!("stop")),
            Request::Got { count } => message(format_args!("got {count}")),
            Request::Done => message(format_args!("done")),
            Request::StandBy { generation } => {
                message(format_args!("stand-by generation={generation}"))
            }
            Request::Say(word) => message(format_args!("say {}", word.name())),
            Request::Commit => message(format_args!("commit")),
            Request::RollBack => message(format_args!("roll-back")),
        }
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Request, Refused> {
        let (name, head, _) = split(bytes)?;
        match name {
            "take" => {
                Ok(Request::Take { generation: number(field(head, "generation"), "generation")? })
            }
            "status" => Ok(Request::Status),
            "restart" => Ok(Request::Restart),
            "stop" => Ok(Request::Stop),
            "got" => {
                let count = head.split(' ').next().and_then(digits);
                let count = count.filter(|count| *count <= CHUNK_MAX as u64);
                Ok(Request::Got { count: count.ok_or(Refused::Malformed("count"))? as usize })
            }
            "done" => Ok(Request::Done),
            "stand-by" => {
                let generation = number(field(head, "generation"), "generation")?;
                Ok(Request::StandBy { generation })
            }
            "say" => {
                let word = head.split(' ').next().and_then(Word::from_name);
                word.map(Request::Say).ok_or(Refused::Malformed("word"))
            }
            "commit" => Ok(Request::Commit),
            "roll-back" => Ok(Request::RollBack),
            _ => Err(unknown(name)),
        }
    }
}

// ---- answers ----

impl Answer {
    pub(crate) fn format(&self) -> Vec<u8> {
        match self {
            Answer::Offer { generation, sockets, state: Some(bytes) } => message(format_args!(
                "offer generation={generation} sockets={sockets} state={bytes}"
            )),
            Answer::Offer { generation, sockets, state: None } => {
                message(format_args!("offer generation={generation} sockets={sockets} state=-"))
            }
            Answer::Sockets(sockets) => {
                let mut text = format!("sockets count={}", sockets.len());
                for socket in sockets {
                    text.push('\n');
                    text.push_str(&socket.format());
                }
                message(format_args!("{text}"))
            }
            Answer::State { bytes } => message(format_args!("state bytes={bytes}")),
            Answer::End => message(format_args!("end")),
            Answer::Status(text) => message(format_args!("status {text}")),
            Answer::Accepted => message(format_args!("accepted")),
            Answer::Refused(reason) => {
                message(format_args!("refused {}", clean(reason, REASON_MAX)))
            }
        }
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Answer, Refused> {
        let (name, head, lines) = split(bytes)?;
        match name {
            "offer" => {
                let sockets = number(field(head, "sockets"), "number of sockets")?;
                if sockets > SOCKETS_MAX as u64 {
                    return Err(Refused::Malformed("number of sockets"));
                }
                let state = match field(head, "state") {
                    Some("-") => None,
                    bytes => Some(size(bytes)?),
                };
                Ok(Answer::Offer {
                    generation: number(field(head, "generation"), "generation")?,
                    sockets: sockets as usize,
                    state,
                })
            }
            "sockets" => {
                let count = number(field(head, "count"), "count")?;
                if count == 0 || count > CHUNK_MAX as u64 {
                    return Err(Refused::Malformed("count"));
                }
                let sockets: Vec<Socket> =
                    lines.lines().map(Socket::parse).collect::<Result<_, _>>()?;
                if sockets.len() as u64 != count {
                    return Err(Refused::Malformed("count"));
                }
                Ok(Answer::Sockets(sockets))
            }
            "state" => Ok(Answer::State { bytes: size(field(head, "bytes"))? }),
            "end" => Ok(Answer::End),
            "status" => {
                let mut text = head.to_owned();
                if !lines.is_empty() {
                    text.push('\n');
                    text.push_str(lines);
                }
                Ok(Answer::Status(text))
            }
            "accepted" => Ok(Answer::Accepted),
            "refused" => Ok(Answer::Refused(clean(head, REASON_MAX))),
            _ => Err(unknown(name)),
        }
    }
}

/// How many of the first of `sockets` fit into one message, by its length and by the number of
/// descriptors that come with it.
pub(crate) fn chunk<'a>(sockets: impl IntoIterator<Item = &'a Socket>) -> usize {
    chunk_within(MESSAGE_MAX - 256, sockets)
}

/// The same for a message with this room.
pub(crate) fn chunk_within<'a>(
    room: usize,
    sockets: impl IntoIterator<Item = &'a Socket>,
) -> usize {
    let mut length = 0;
    let fits = sockets.into_iter().take(CHUNK_MAX).take_while(|socket| {
        length += socket.format().len() + 1;
        length <= room
    });
    fits.count()
}

// ---- a socket ----

impl SocketKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            SocketKind::Tcp => "tcp",
            SocketKind::Udp => "udp",
            SocketKind::Unix => "unix",
            SocketKind::UnixDatagram => "unix-datagram",
        }
    }

    fn from_name(name: &str) -> Option<SocketKind> {
        let all = [SocketKind::Tcp, SocketKind::Udp, SocketKind::Unix, SocketKind::UnixDatagram];
        all.into_iter().find(|kind| kind.name() == name)
    }

    fn is_unix(self) -> bool {
        matches!(self, SocketKind::Unix | SocketKind::UnixDatagram)
    }
}

impl Socket {
    pub(crate) fn format(&self) -> String {
        let Socket { kind, asked, name, member, retired, local, file } = self;
        let mut line = format!("{} asked={asked} local={local} member={member}", kind.name());
        if let Some(name) = name {
            _ = write!(line, " name={}", Escaped(name.as_bytes()));
        }
        if *retired {
            line.push_str(" retired=1");
        }
        if let Some(FileId { device, inode }) = file {
            _ = write!(line, " file={device}:{inode}");
        }
        line
    }

    pub(crate) fn parse(line: &str) -> Result<Socket, Refused> {
        let (kind, fields) = line.split_once(' ').unwrap_or((line, ""));
        let kind = SocketKind::from_name(kind).ok_or(Refused::Malformed("kind of socket"))?;
        let address = |key| {
            let text = field(fields, key).ok_or(Refused::Malformed("address"))?;
            let address = Address::parse(text, kind.is_unix());
            address.ok_or(Refused::Malformed("address"))
        };
        let name = field(fields, "name").map(|text| {
            unescape(text)
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .ok_or(Refused::Malformed("name"))
        });
        let member = number(field(fields, "member"), "member")?;
        let file = field(fields, "file").map(|text| {
            let (device, inode) = text.split_once(':')?;
            Some(FileId { device: digits(device)?, inode: digits(inode)? })
        });
        Ok(Socket {
            kind,
            asked: address("asked")?,
            name: name.transpose()?,
            member: u32::try_from(member).map_err(|_| Refused::Malformed("member"))?,
            retired: field(fields, "retired") == Some("1"),
            local: address("local")?,
            file: file.map(|file| file.ok_or(Refused::Malformed("file"))).transpose()?,
        })
    }
}

impl Address {
    fn parse(text: &str, unix: bool) -> Option<Address> {
        if unix { unescape(text).map(Address::Unix) } else { text.parse().ok().map(Address::Inet) }
    }

    /// Is it port 0, which the system replaces? Then several sockets can have this address.
    pub(crate) fn is_any_port(&self) -> bool {
        matches!(self, Address::Inet(address) if address.port() == 0)
    }
}

/// Without blanks, so that it fits into a line of fields.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(address) => address.fmt(f),
            Address::Unix(path) => Escaped(path).fmt(f),
        }
    }
}

// ---- words ----

/// Printable ASCII as it is, every other byte as `%XX`.
pub(crate) struct Escaped<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| match byte {
            b'%' => f.write_str("%25"),
            b'!'..=b'~' => f.write_char(char::from(*byte)),
            _ => write!(f, "%{byte:02X}"),
        })
    }
}

pub(crate) fn unescape(text: &str) -> Option<Vec<u8>> {
    if text.len() > WORD_MAX {
        return None;
    }
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                plain.push((digit()? << 4 | digit()?) as u8);
            }
            b'!'..=b'~' => plain.push(byte),
            _ => return None,
        }
    }
    Some(plain)
}

/// A reason in a line of its own, of bounded length.
pub(crate) fn clean(text: &str, longest: usize) -> String {
    let mut clean = String::new();
    for char in text.chars().map(|char| if char.is_control() { ' ' } else { char }) {
        if clean.len() + char.len_utf8() > longest {
            break;
        }
        clean.push(char);
    }
    clean
}

fn message(text: fmt::Arguments<'_>) -> Vec<u8> {
    format!("{PROTOCOL} {VERSION} {text}").into_bytes()
}

/// The name, the rest of the first line, and the lines behind it.
fn split(bytes: &[u8]) -> Result<(&str, &str, &str), Refused> {
    if bytes.len() > MESSAGE_MAX {
        return Err(Refused::Malformed("length"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Refused::Foreign)?;
    let text = text.strip_prefix(PROTOCOL).and_then(|text| text.strip_prefix(' '));
    let (version, text) = text.and_then(|text| text.split_once(' ')).ok_or(Refused::Foreign)?;
    match digits(version).and_then(|version| u32::try_from(version).ok()) {
        Some(VERSION) => {}
        Some(version) => return Err(Refused::Version(version)),
        None => return Err(Refused::Foreign),
    }
    let (head, lines) = text.split_once('\n').unwrap_or((text, ""));
    let (name, head) = head.split_once(' ').unwrap_or((head, ""));
    Ok((name, head, lines))
}

fn unknown(name: &str) -> Refused {
    Refused::Unknown(clean(name, 64))
}

pub(crate) fn field<'a>(fields: &'a str, key: &str) -> Option<&'a str> {
    fields.split(' ').find_map(|field| field.strip_prefix(key)?.strip_prefix('='))
}

/// Digits only: no sign.
pub(crate) fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn number(text: Option<&str>, part: &'static str) -> Result<u64, Refused> {
    text.and_then(digits).ok_or(Refused::Malformed(part))
}

fn size(text: Option<&str>) -> Result<u64, Refused> {
    let size = number(text, "size of the state")?;
    if size > STATE_MAX { Err(Refused::Malformed("size of the state")) } else { Ok(size) }
}

#[cfg(test)]
mod tests;
