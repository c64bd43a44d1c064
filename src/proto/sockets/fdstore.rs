//! The names under which sockets are kept in systemd's store (`FileDescriptorStoreMax=`). A name is
//! all that comes back with a descriptor, and it must be printable, without `:`, and no longer than
//! 255 bytes: so it holds a hash of what the program asks for. Pure.

use crate::proto::control::frame::{Address, FileId, Socket, SocketKind};
use crate::proto::paths::fnv;

/// The beginning of each of our names.
const PREFIX: &str = "seamless-";

/// Is it the name of one of our sockets in the store? No socket unit should have such a name.
pub(crate) fn is_ours(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| !rest.is_empty())
}

/// Is it the name of a descriptor that the program keeps? It may be of any type.
pub(crate) fn is_descriptor(name: &str) -> bool {
    let rest =
        name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix(SocketKind::Descriptor.name()));
    rest.is_some_and(|rest| rest.starts_with('-'))
}

/// The name for a socket: the address that the program asked for, and the file that its path named.
pub(crate) fn name(socket: &Socket) -> String {
    let Socket { kind, asked, name, member, file, .. } = socket;
    let mut text = stem(*kind, asked, name.as_deref(), *member);
    if let Some(FileId { device, inode }) = file {
        text += &format!("-{device}.{inode}");
    }
    text
}

/// The name without the part for the file.
pub(crate) fn stem(kind: SocketKind, asked: &Address, name: Option<&str>, member: u32) -> String {
    // An address with a port is one socket whatever its name.
    let name = name.filter(|_| asked.is_any_port()).unwrap_or_default();
    let kind = kind.name();
    let hash = fnv(format!("{kind} {asked} {member} {name}").as_bytes());
    format!("{PREFIX}{kind}-{hash:016x}")
}

/// Does this name of the store begin so?
pub(crate) fn has_stem(name: &str, stem: &str) -> bool {
    name.strip_prefix(stem).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// The file that the socket's path named.
pub(crate) fn file(name: &str) -> Option<FileId> {
    let (device, inode) = name.rsplit_once('-')?.1.split_once('.')?;
    Some(FileId { device: device.parse().ok()?, inode: inode.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::{
        Address, FileId, Socket, SocketKind, file, has_stem, is_descriptor, is_ours, name, stem,
    };

    fn tcp(address: &str, name: Option<&str>, member: u32) -> Socket {
        let asked = Address::Inet(address.parse().expect("an address"));
        let name = name.map(str::to_owned);
        let (local, kind) = (asked.clone(), SocketKind::Tcp);
        Socket { kind, asked, name, member, retired: false, local, file: None, flow: None }
    }

    #[test]
    fn names_that_systemd_takes() {
        let mut path = tcp("[::1]:80", None, 0);
        path.kind = SocketKind::UnixDatagram;
        path.asked = Address::Unix([b"/run/", &[b':'; 4000][..], "ä \n".as_bytes()].concat());
        path.file = Some(FileId { device: u64::MAX, inode: u64::MAX });
        for socket in [tcp("127.0.0.1:8080", None, 0), tcp("[::]:0", Some("a:b"), 9999), path] {
            let name = name(&socket);
            assert!(is_ours(&name) && name.len() <= 255, "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'), "{name}");
            assert_eq!(file(&name), socket.file);
            let Socket { kind, asked, name: own, member, .. } = &socket;
            assert!(has_stem(&name, &stem(*kind, asked, own.as_deref(), *member)));
        }
        assert!(!is_ours("web.socket") && !is_ours("seamless-"));
        let mut kept = tcp("127.0.0.1:80", None, 0);
        assert!(!is_descriptor(&super::name(&kept)) && !is_descriptor("descriptor-1"));
        (kept.kind, kept.asked) = (SocketKind::Descriptor, Address::Name("tun".to_owned()));
        assert!(is_descriptor(&super::name(&kept)));
    }

    #[test]
    fn each_socket_has_a_name_of_its_own() {
        let mut udp = tcp("127.0.0.1:80", None, 0);
        udp.kind = SocketKind::Udp;
        let different = [
            tcp("127.0.0.1:80", None, 0),
            udp,
            tcp("127.0.0.1:80", None, 1),
            tcp("127.0.0.1:81", None, 0),
            tcp("127.0.0.1:0", Some("a"), 0),
            tcp("127.0.0.1:0", Some("b"), 0),
            tcp("127.0.0.1:0", None, 0),
        ];
        for (at, one) in different.iter().enumerate() {
            for other in &different[at + 1..] {
                assert_ne!(name(one), name(other));
            }
        }
        // The same port under another name is the same socket.
        assert_eq!(name(&tcp("127.0.0.1:80", Some("web"), 0)), name(&different[0]));
    }
}
