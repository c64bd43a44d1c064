//! A socket, or a descriptor, that is transferred, and its line in a message.

use super::{Escaped, Flow, NAME_MAX, Refused, field, number, unescape, unescape_text};
use crate::proto::names::names;
use crate::proto::text::{digits, put};
use std::fmt::{self, Write as _};
use std::net::SocketAddr;

/// What kind of socket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SocketKind {
    Tcp,
    Udp,
    Unix,
    UnixDatagram,
    UnixSeqpacket,
    Vsock,
    /// No socket of the crate's: a descriptor that the program keeps under a name. It may be of any type.
    Descriptor,
}

/// What the address of a socket consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Inet,
    Unix,
    Vsock,
    Name,
}

/// Where a socket is bound.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Address {
    Inet(SocketAddr),
    /// A path. With a NUL byte in front, an abstract name. Empty if the socket has no name.
    Unix(Vec<u8>),
    /// Between a virtual machine and its host (`vsock(7)`).
    Vsock {
        cid: u32,
        port: u32,
    },
    /// The name of a descriptor.
    Name(String),
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
    /// It is a member of a steered group, and `member` is its place in the kernel's order.
    pub(crate) flow: Option<Box<Flow>>,
}

names!(SocketKind:
    Tcp = "tcp",
    Udp = "udp",
    Unix = "unix",
    UnixDatagram = "unix-datagram",
    UnixSeqpacket = "unix-seqpacket",
    Vsock = "vsock",
    Descriptor = "descriptor",
);

impl SocketKind {
    fn family(self) -> Family {
        match self {
            SocketKind::Tcp | SocketKind::Udp => Family::Inet,
            SocketKind::Unix | SocketKind::UnixDatagram | SocketKind::UnixSeqpacket => Family::Unix,
            SocketKind::Vsock => Family::Vsock,
            SocketKind::Descriptor => Family::Name,
        }
    }

    /// Is it bound to a path?
    pub(crate) fn is_unix(self) -> bool {
        self.family() == Family::Unix
    }

    /// Do sockets of this kind listen?
    pub(crate) fn listens(self) -> bool {
        match self {
            SocketKind::Tcp | SocketKind::Unix | SocketKind::UnixSeqpacket | SocketKind::Vsock => {
                true
            }
            SocketKind::Udp | SocketKind::UnixDatagram | SocketKind::Descriptor => false,
        }
    }

    /// Is it TCP or UDP?
    pub(crate) fn is_inet(self) -> bool {
        self.family() == Family::Inet
    }
}

impl Socket {
    /// A socket of no group.
    pub(crate) fn new(kind: SocketKind, asked: Address, local: Address) -> Socket {
        Socket { kind, asked, name: None, member: 0, retired: false, local, file: None, flow: None }
    }

    pub(crate) fn format(&self) -> String {
        let Socket { kind, asked, name, member, retired, local, file, flow } = self;
        let mut line = format!("{} asked={asked} local={local} member={member}", kind.name());
        put(&mut line, "name", name.as_ref().map(|name| Escaped(name.as_bytes())));
        put(&mut line, "retired", retired.then_some(1));
        let file = file.map(|FileId { device, inode }| format!("{device}:{inode}"));
        put(&mut line, "file", file);
        if let Some(flow) = flow {
            _ = write!(line, " {}", flow.format());
        }
        line
    }

    pub(crate) fn parse(line: &str) -> Result<Socket, Refused> {
        let (kind, fields) = line.split_once(' ').unwrap_or((line, ""));
        let kind = SocketKind::from_name(kind).ok_or(Refused::Malformed("kind of socket"))?;
        let address = |key| {
            let text = field(fields, key).ok_or(Refused::Malformed("address"))?;
            let address = Address::parse(text, kind.family());
            address.ok_or(Refused::Malformed("address"))
        };
        let name =
            field(fields, "name").map(|text| unescape_text(text).ok_or(Refused::Malformed("name")));
        let file = field(fields, "file").map(|text| {
            let (device, inode) = text.split_once(':')?;
            Some(FileId { device: digits(device)?, inode: digits(inode)? })
        });
        let flow = field(fields, "flow")
            .map(|owner| Flow::parse(owner, field(fields, "secret")).map(Box::new));
        Ok(Socket {
            kind,
            asked: address("asked")?,
            name: name.transpose()?,
            member: number(field(fields, "member"), "member")?,
            retired: field(fields, "retired") == Some("1"),
            local: address("local")?,
            file: file.map(|file| file.ok_or(Refused::Malformed("file"))).transpose()?,
            flow: flow.transpose()?,
        })
    }
}

impl Address {
    /// The port of a vsock address that the system replaces.
    pub(crate) const ANY_VSOCK_PORT: u32 = u32::MAX;

    fn parse(text: &str, family: Family) -> Option<Address> {
        match family {
            Family::Inet => text.parse().ok().map(Address::Inet),
            Family::Unix => unescape(text).map(Address::Unix),
            Family::Vsock => {
                let (cid, port) = text.strip_prefix("vsock:")?.split_once(':')?;
                Some(Address::Vsock { cid: digits(cid)?, port: digits(port)? })
            }
            Family::Name => {
                let name = unescape_text(text).filter(|name| name.len() <= NAME_MAX);
                name.map(Address::Name)
            }
        }
    }

    /// Is it a port that the system replaces? Then several sockets can have this address.
    pub(crate) fn is_any_port(&self) -> bool {
        match self {
            Address::Inet(address) => address.port() == 0,
            Address::Vsock { port, .. } => *port == Address::ANY_VSOCK_PORT,
            Address::Unix(_) | Address::Name(_) => false,
        }
    }
}

/// Without blanks, so that it fits into a line of fields.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(address) => address.fmt(f),
            Address::Unix(path) => Escaped(path).fmt(f),
            Address::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
            Address::Name(name) => Escaped(name.as_bytes()).fmt(f),
        }
    }
}
