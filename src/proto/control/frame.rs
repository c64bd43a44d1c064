//! The messages on the control socket, `web.pid.sock`: those of a transfer, between a new daemon and its
//! predecessor, and the command's questions. Pure: bytes in, values out, and back.
//!
//! The connection is a Unix SEQPACKET socket, so one message is one frame. Each message begins with the
//! protocol's name and version. Descriptors come with it (SCM_RIGHTS).
//!
//! ```text
//! take:    new  take generation=N kinds=KIND,…            (what the new daemon understands)
//!          old  offer generation=M sockets=K state=BYTES|- states=S
//!          old  sockets count=C, a line for each, and C descriptors      new  got C
//!          …    until there were K
//!          old  state bytes=B, and one sealed memfd                      new  got 1
//!          old  states count=C, a line for each, and C sealed memfds     new  got C
//!          …    until there were S
//!          old  end                                                      new  done
//! status:  status               status generation=… (a text, see `status`)
//! restart: restart              accepted
//! stop:    stop                 accepted
//! commit, roll-back:            accepted
//! counters: counters            counters, and the memory of the counters
//! flows:   flows generation=N count=C, a line for each, and C descriptors      accepted
//!          … until all members of steered groups were sent; then, on the same connection:
//! standby: stand-by generation=N  accepted, and then both: say WORD
//! wait:    wait left_ms=N         accepted, and then both: say WORD
//! copy:    as take, but that it begins with `copy kinds=KIND,…`: the asker has no number, and gets no states
//! pass:    pass generation=N open=C                       accepted
//!          connections number=K count=C memory=yes|no, a line for each, then their bytes unless they are in
//!                    memory, and C descriptors (and one sealed memfd)     kept number=K fates=LETTERS
//!          … for the next message, when the answer has come
//! ```
//!
//! Instead of each answer, `refused REASON` may come.
//!
//! Within a version, fields may be added, and a reader ignores those that it does not know. A reader
//! refuses an unknown message and any version but its own, with a reason.

mod flow;
mod known;
pub(crate) mod passing;
mod socket;
mod state;
mod word;

use crate::proto::text::{digits, put};
use std::fmt::{self, Write as _};
use std::str::FromStr;

pub use flow::Steer;
pub(crate) use flow::{Flow, MEMBERS_MAX, OFFSET_MAX, Owner, SLOT_MAX, Secret};
pub(crate) use known::Known;
pub(crate) use passing::{Batch, Fate, Passed};
pub(crate) use socket::{Address, FileId, Socket, SocketKind};
pub(crate) use state::{NAME_MAX, NamedState, STATES_MAX, chunk_of_states};
pub(crate) use word::Word;

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
/// No process says that it waits in `init` for longer.
pub(crate) const WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(3600);
/// So much of a message is for its first line.
const HEAD_MAX: usize = 256;
/// A path has fewer than 4096 bytes, of which each may need three.
const WORD_MAX: usize = 3 * 4096;

/// A message from the new daemon, or from the command.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Request {
    Take {
        generation: u64,
        known: Known,
    },
    Status,
    Restart,
    Stop,
    Counters,
    Got {
        count: usize,
    },
    Done,
    /// The generation with this number is on probation: the other one is to stand by. After the answer
    /// `accepted` the connection is their lifeline, on which both send [`Request::Say`].
    StandBy {
        generation: u64,
    },
    /// Before [`Request::StandBy`]: members of the steered groups of the generation with this number. The one
    /// that stands by holds them from now on.
    Flows {
        generation: u64,
        sockets: Vec<Socket>,
    },
    Say(Word),
    /// The program file of the sender has failed in its probation, and its next try comes in so many
    /// milliseconds. After the answer `accepted`, [`Word::Told`] and [`Word::Go`] are said on the connection.
    Wait {
        left_ms: u64,
    },
    /// Such a sender asks for duplicates of the sockets, in case that the other one dies.
    Copy {
        known: Known,
    },
    Commit,
    RollBack,
    /// The generation with this number drains, and has this many connections to pass. After the answer
    /// `accepted` it sends each [`Batch`], and gets an [`Answer::Kept`].
    Pass {
        generation: u64,
        open: u64,
    },
}

/// A message from the old daemon.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    Offer {
        generation: u64,
        sockets: usize,
        state: Option<u64>,
        states: usize,
    },
    Sockets(Vec<Socket>),
    State {
        bytes: u64,
    },
    States(Vec<NamedState>),
    End,
    Status(String),
    Counters,
    Accepted,
    /// What becomes of each connection of the batch with this number.
    Kept {
        number: u64,
        fates: Vec<Fate>,
    },
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
            Request::Take { generation, known } => {
                let mut text = format!("take generation={generation}");
                put(&mut text, "kinds", known.format());
                message(text)
            }
            Request::Copy { known } => {
                let mut text = "copy".to_owned();
                put(&mut text, "kinds", known.format());
                message(text)
            }
            Request::Wait { left_ms } => message(format_args!("wait left_ms={left_ms}")),
            Request::Status => message("status"),
            Request::Restart => message("restart"),
            Request::Stop => message("stop"),
            Request::Counters => message("counters"),
            Request::Got { count } => message(format_args!("got {count}")),
            Request::Done => message("done"),
            Request::StandBy { generation } => {
                message(format_args!("stand-by generation={generation}"))
            }
            Request::Flows { generation, sockets } => {
                let lines = sockets.iter().map(Socket::format);
                lines_of(format_args!("flows generation={generation}"), lines)
            }
            Request::Say(word) => message(format_args!("say {}", word.name())),
            Request::Commit => message("commit"),
            Request::RollBack => message("roll-back"),
            Request::Pass { generation, open } => {
                message(format_args!("pass generation={generation} open={open}"))
            }
        }
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Request, Refused> {
        let (name, head, lines) = split(bytes)?;
        let generation = || number(field(head, "generation"), "generation");
        match name {
            "take" => Ok(Request::Take {
                generation: generation()?,
                known: Known::parse(field(head, "kinds")),
            }),
            "copy" => Ok(Request::Copy { known: Known::parse(field(head, "kinds")) }),
            "wait" => Ok(Request::Wait { left_ms: number(field(head, "left_ms"), "time")? }),
            "status" => Ok(Request::Status),
            "restart" => Ok(Request::Restart),
            "stop" => Ok(Request::Stop),
            "counters" => Ok(Request::Counters),
            "got" => {
                let count = at_most(CHUNK_MAX, head.split(' ').next(), "count")?;
                Ok(Request::Got { count })
            }
            "done" => Ok(Request::Done),
            "stand-by" => Ok(Request::StandBy { generation: generation()? }),
            "flows" => Ok(Request::Flows {
                generation: generation()?,
                sockets: each_line(head, lines, Socket::parse)?,
            }),
            "say" => {
                let word = head.split(' ').next().and_then(Word::from_name);
                word.map(Request::Say).ok_or(Refused::Malformed("word"))
            }
            "commit" => Ok(Request::Commit),
            "roll-back" => Ok(Request::RollBack),
            "pass" => Ok(Request::Pass {
                generation: generation()?,
                open: number(field(head, "open"), "number of connections")?,
            }),
            _ => Err(unknown(name)),
        }
    }
}

// ---- answers ----

impl Answer {
    pub(crate) fn format(&self) -> Vec<u8> {
        match self {
            Answer::Offer { generation, sockets, state, states } => {
                let state = state.map_or("-".to_owned(), |bytes| bytes.to_string());
                let mut text =
                    format!("offer generation={generation} sockets={sockets} state={state}");
                put(&mut text, "states", Some(states).filter(|states| **states > 0));
                message(text)
            }
            Answer::Sockets(sockets) => lines_of("sockets", sockets.iter().map(Socket::format)),
            Answer::State { bytes } => message(format_args!("state bytes={bytes}")),
            Answer::States(states) => lines_of("states", states.iter().map(NamedState::format)),
            Answer::End => message("end"),
            Answer::Status(text) => message(format_args!("status {text}")),
            Answer::Counters => message("counters"),
            Answer::Accepted => message("accepted"),
            Answer::Kept { number, fates } => {
                message(format_args!("kept number={number} fates={}", Fate::format(fates)))
            }
            Answer::Refused(reason) => {
                message(format_args!("refused {}", clean(reason, REASON_MAX)))
            }
        }
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Answer, Refused> {
        let (name, head, lines) = split(bytes)?;
        match name {
            "offer" => {
                let sockets = field(head, "sockets");
                let states = field(head, "states").or(Some("0"));
                Ok(Answer::Offer {
                    generation: number(field(head, "generation"), "generation")?,
                    sockets: at_most(SOCKETS_MAX, sockets, "number of sockets")?,
                    state: match field(head, "state") {
                        Some("-") => None,
                        bytes => Some(size(bytes)?),
                    },
                    states: at_most(STATES_MAX, states, "number of states")?,
                })
            }
            "sockets" => each_line(head, lines, Socket::parse).map(Answer::Sockets),
            "states" => each_line(head, lines, NamedState::parse).map(Answer::States),
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
            "counters" => Ok(Answer::Counters),
            "accepted" => Ok(Answer::Accepted),
            "kept" => Ok(Answer::Kept {
                number: number(field(head, "number"), "number")?,
                fates: Fate::parse(field(head, "fates"))?,
            }),
            "refused" => Ok(Answer::Refused(clean(head, REASON_MAX))),
            _ => Err(unknown(name)),
        }
    }
}

/// How many of the first of `sockets` fit into one message, by its length and by the number of
/// descriptors that come with it.
pub(crate) fn chunk<'a>(sockets: impl IntoIterator<Item = &'a Socket>) -> usize {
    chunk_within(MESSAGE_MAX - HEAD_MAX, sockets)
}

/// The same for a message with this room.
pub(crate) fn chunk_within<'a>(
    room: usize,
    sockets: impl IntoIterator<Item = &'a Socket>,
) -> usize {
    that_fit(room, sockets.into_iter().map(Socket::format))
}

/// How many of the first of these lines fit into a message with this room.
fn that_fit(room: usize, lines: impl Iterator<Item = String>) -> usize {
    let mut length = 0;
    let fits = lines.take(CHUNK_MAX).take_while(|line| {
        length += line.len() + 1;
        length <= room
    });
    fits.count()
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
                plain.push((16 * digit()? + digit()?) as u8);
            }
            b'!'..=b'~' => plain.push(byte),
            _ => return None,
        }
    }
    Some(plain)
}

fn unescape_text(text: &str) -> Option<String> {
    String::from_utf8(unescape(text)?).ok()
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

fn message(text: impl fmt::Display) -> Vec<u8> {
    format!("{PROTOCOL} {VERSION} {text}").into_bytes()
}

/// `NAME count=C`, and a line for each.
fn lines_of(name: impl fmt::Display, lines: impl ExactSizeIterator<Item = String>) -> Vec<u8> {
    let mut text = format!("{name} count={}", lines.len());
    for line in lines {
        text.push('\n');
        text.push_str(&line);
    }
    message(text)
}

/// What [`lines_of`] has written.
fn each_line<T>(
    head: &str,
    lines: &str,
    parse: impl Fn(&str) -> Result<T, Refused>,
) -> Result<Vec<T>, Refused> {
    let count = at_most(CHUNK_MAX, field(head, "count"), "count")?;
    let all: Vec<T> = lines.lines().map(parse).collect::<Result<_, _>>()?;
    if count > 0 && all.len() == count { Ok(all) } else { Err(Refused::Malformed("count")) }
}

/// The name, the rest of the first line, and the lines behind it.
fn split(bytes: &[u8]) -> Result<(&str, &str, &str), Refused> {
    if bytes.len() > MESSAGE_MAX {
        return Err(Refused::Malformed("length"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Refused::Foreign)?;
    let text = text.strip_prefix(PROTOCOL).and_then(|text| text.strip_prefix(' '));
    let (version, text) = text.and_then(|text| text.split_once(' ')).ok_or(Refused::Foreign)?;
    match digits(version).ok_or(Refused::Foreign)? {
        VERSION => {}
        version => return Err(Refused::Version(version)),
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

fn number<T: FromStr>(text: Option<&str>, part: &'static str) -> Result<T, Refused> {
    text.and_then(digits).ok_or(Refused::Malformed(part))
}

fn at_most<T: FromStr + PartialOrd>(
    most: T,
    text: Option<&str>,
    part: &'static str,
) -> Result<T, Refused> {
    let number: T = number(text, part)?;
    if number <= most { Ok(number) } else { Err(Refused::Malformed(part)) }
}

fn size(text: Option<&str>) -> Result<u64, Refused> {
    at_most(STATE_MAX, text, "size of the state")
}

#[cfg(test)]
mod tests;
