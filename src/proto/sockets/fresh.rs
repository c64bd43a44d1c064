//! A socket that was taken over, and that this generation could not have bound itself: a fresh start of the
//! service would fail. Why, and what to do.

use crate::proto::control::frame::{Address, SocketKind};

/// So many sockets of a start are tried: each trial delays the takeover by some 20 µs, and what is wrong with one
/// socket is mostly wrong with many.
pub(crate) const TRIALS: usize = 16;

/// Why the system refuses to bind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The permission is missing.
    Denied,
    /// The file system is read-only.
    ReadOnly,
    /// The address does not belong to this machine.
    NoSuchAddress,
    /// The folder of the path does not exist.
    NoSuchFolder,
    Other,
}

/// Does a TCP or UDP port need a capability? `first_unprivileged`: `net.ipv4.ip_unprivileged_port_start`.
pub(crate) fn is_privileged(address: &Address, first_unprivileged: u16) -> bool {
    matches!(address, Address::Inet(address) if address.port() < first_unprivileged)
}

/// What to do, so that a fresh start works.
pub(crate) fn remedy(
    kind: SocketKind,
    address: &Address,
    refusal: Refusal,
    first_unprivileged: u16,
) -> String {
    let is_inet = kind.is_inet();
    match refusal {
        Refusal::Denied if is_inet && is_privileged(address, first_unprivileged) => format!(
            "ports below {first_unprivileged} need the capability CAP_NET_BIND_SERVICE: give it to the \
             program file again (setcap cap_net_bind_service=+ep FILE: a copied or replaced file has lost \
             it), or let the supervisor give it (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE), or \
             lower net.ipv4.ip_unprivileged_port_start"
        ),
        Refusal::Denied if is_inet => {
            "a security module (SELinux, AppArmor) or seccomp forbids it: allow this port"
                .to_owned()
        }
        Refusal::Denied => "let the user of the service write to the folder of the path".to_owned(),
        Refusal::ReadOnly => {
            "mount the folder of the path writable, or use a folder under /run".to_owned()
        }
        Refusal::NoSuchFolder => "make the folder of the path again".to_owned(),
        Refusal::NoSuchAddress => {
            "give the machine this address again, or let the program ask for another one".to_owned()
        }
        Refusal::Other => "see `error`".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Refusal, is_privileged, remedy};
    use crate::proto::control::frame::{Address, SocketKind};

    #[test]
    fn what_a_fresh_start_needs() {
        let at = |port| Address::Inet(([0, 0, 0, 0], port).into());
        let path = Address::Unix(b"/run/web".to_vec());
        assert!(is_privileged(&at(80), 1024) && !is_privileged(&at(80), 80));
        assert!(!is_privileged(&at(1024), 1024) && !is_privileged(&path, 1024));
        for (kind, address, refusal, words) in [
            (SocketKind::Tcp, at(80), Refusal::Denied, "ports below 1024 need the capability"),
            (SocketKind::Udp, at(8080), Refusal::Denied, "a security module"),
            (SocketKind::Tcp, at(80), Refusal::NoSuchAddress, "give the machine this address"),
            (SocketKind::Unix, path.clone(), Refusal::Denied, "write to the folder"),
            (SocketKind::UnixDatagram, path.clone(), Refusal::ReadOnly, "mount the folder"),
            (SocketKind::Unix, path, Refusal::NoSuchFolder, "make the folder"),
        ] {
            let text = remedy(kind, &address, refusal, 1024);
            assert!(text.contains(words), "{text}");
        }
    }
}
