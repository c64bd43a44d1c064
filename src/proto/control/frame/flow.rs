//! What a successor has to know of a member of a steered group: see `proto::flows`.

use super::Refused;
use crate::proto::text::digits;
use std::fmt;

/// How the datagrams of a group of UDP sockets find the generation that they belong to
/// ([`Options::steer`](crate::sockets::Options::steer)).
///
/// New flows go to the newest generation in each case. The variants differ in what happens to the flows of
/// older generations that still drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Steer {
    /// Every datagram goes to the newest generation. For protocols of one question and one answer, such as
    /// DNS, NTP and syslog.
    ///
    /// An older generation gets nothing more. In its drain it must read until its queue is empty, and go on
    /// for 20 ms: a datagram that was on its way may still arrive.
    Newest,
    /// QUIC and HTTP/3: a datagram goes to the generation and the member that have made its destination
    /// connection ID, by [`quic::ConnectionIds`](crate::sockets::quic::ConnectionIds). All others go to the
    /// newest generation. At most 1,024 members.
    Quic,
    /// A protocol whose datagrams hold a value that the server has chosen, such as a session number.
    ///
    /// The four bytes at `offset` are read as a big-endian number, of which `mask` selects bits. If these
    /// bits are the [value](Steer::mine) of a generation that lives, that generation gets the datagram. Every
    /// other datagram, also one that is too short, goes to the newest generation. No generation has the value
    /// 0, so clients that do not know a value yet send 0.
    ///
    /// `mask` needs at least two bits. With `n` bits, `2^n - 1` generations may live at the same time; one
    /// more fails to start until an older one has ended.
    Bytes {
        /// Where the four bytes begin, from the start of the datagram.
        offset: u32,
        /// The bits that hold the value.
        mask: u32,
    },
}

impl fmt::Display for Steer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Steer::Newest => f.write_str("newest"),
            Steer::Quic => f.write_str("quic"),
            Steer::Bytes { offset, mask } => write!(f, "bytes.{offset}.{mask}"),
        }
    }
}

/// The largest number that can stand for a generation in datagrams; the smallest is 1.
pub(crate) const SLOT_MAX: u16 = 63;
/// So many members of one generation can be told apart.
pub(crate) const MEMBERS_MAX: usize = 1024;
/// The last place in a datagram at which four bytes can begin.
pub(crate) const OFFSET_MAX: u32 = 65_531;

/// To which generation a member belongs, and as which of its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Owner {
    pub(crate) generation: u64,
    /// The number that stands for the generation in datagrams; never 0.
    pub(crate) slot: u16,
    pub(crate) member: u16,
    /// How the owner marks its datagrams.
    pub(crate) steer: Steer,
}

/// Random bytes that all generations of a group share.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Secret(pub(crate) [u8; Secret::LENGTH]);

impl Secret {
    pub(crate) const LENGTH: usize = 64;
}

/// It must not get into a log.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flow {
    /// `None`: the generation that it belonged to has ended.
    pub(crate) owner: Option<Owner>,
    pub(crate) secret: Secret,
}

impl Flow {
    /// The two fields of a socket's line.
    pub(super) fn format(&self) -> String {
        let mut text = match self.owner {
            None => "flow=free".to_owned(),
            Some(Owner { generation, slot, member, steer }) => {
                format!("flow={generation}.{slot}.{member}.{steer}")
            }
        };
        text.push_str(" secret=");
        text.extend(self.secret.0.iter().map(|byte| format!("{byte:02x}")));
        text
    }

    pub(super) fn parse(owner: &str, secret: Option<&str>) -> Result<Flow, Refused> {
        let owner = match owner {
            "free" => None,
            text => Some(parse_owner(text).ok_or(Refused::Malformed("flow"))?),
        };
        let secret = secret.and_then(parse_secret).ok_or(Refused::Malformed("secret"))?;
        Ok(Flow { owner, secret })
    }
}

fn parse_owner(text: &str) -> Option<Owner> {
    let mut words = text.splitn(4, '.');
    let generation = digits(words.next()?)?;
    let slot: u16 = digits(words.next()?)?;
    let member: u16 = digits(words.next()?)?;
    if slot == 0 || slot > SLOT_MAX || usize::from(member) >= MEMBERS_MAX {
        return None;
    }
    let steer = match words.next()? {
        "newest" => Steer::Newest,
        "quic" => Steer::Quic,
        text => {
            let (offset, mask) = text.strip_prefix("bytes.")?.split_once('.')?;
            let offset = digits(offset).filter(|offset: &u32| *offset <= OFFSET_MAX)?;
            Steer::Bytes { offset, mask: digits(mask)? }
        }
    };
    Some(Owner { generation, slot, member, steer })
}

fn parse_secret(text: &str) -> Option<Secret> {
    let mut secret = Secret([0; Secret::LENGTH]);
    if text.len() != 2 * Secret::LENGTH || !text.is_ascii() {
        return None;
    }
    for (at, byte) in secret.0.iter_mut().enumerate() {
        let digits = &text[2 * at..2 * at + 2];
        *byte = u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?;
    }
    Some(secret)
}
