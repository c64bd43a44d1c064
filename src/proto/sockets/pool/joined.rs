//! Sockets that have come from two processes, each of which had most of them.

use super::Entry;
use crate::proto::control::frame::SocketKind;

/// All of these, and of `more` what is missing among them.
pub(crate) fn joined<F>(mut these: Vec<Entry<F>>, mut more: Vec<Entry<F>>) -> Vec<Entry<F>> {
    more.retain(|one| !these.iter().any(|other| is_copy(one, other)));
    these.append(&mut more);
    these
}

fn is_copy<F>(one: &Entry<F>, other: &Entry<F>) -> bool {
    let (named, others) = (&one.socket, &other.socket);
    let as_named = named.kind == others.kind
        && (&named.asked, &named.name, named.member)
            == (&others.asked, &others.name, others.member);
    match (one.cookie, other.cookie) {
        // Copies of a descriptor have nothing in common but its name.
        (Some(own), Some(its)) if named.kind != SocketKind::Descriptor => own == its,
        _ => as_named,
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, joined};
    use crate::proto::control::frame::{Address, Socket, SocketKind};

    fn entry(
        kind: SocketKind,
        name: &str,
        member: u32,
        cookie: Option<u64>,
        fd: u32,
    ) -> Entry<u32> {
        let asked = Address::Name(name.to_owned());
        let socket = Socket { member, ..Socket::new(kind, asked.clone(), asked) };
        Entry { socket, fd, cookie, only_v6: false, outlives_crash: true }
    }

    #[test]
    fn p1_what_came_twice_is_used_once() {
        use SocketKind::{Descriptor, Tcp};
        let these = vec![
            entry(Tcp, "a", 0, Some(1), 1),
            entry(Tcp, "b", 0, None, 2),
            entry(Descriptor, "log", 0, Some(1 << 63), 3),
        ];
        let more = vec![
            entry(Tcp, "renamed", 0, Some(1), 4),
            entry(Tcp, "a", 1, Some(2), 5),
            entry(Tcp, "b", 0, None, 6),
            entry(Tcp, "b", 1, None, 7),
            entry(Descriptor, "log", 0, Some(5), 8),
            entry(Descriptor, "other", 0, Some(6), 9),
        ];
        let all = joined(these, more);
        assert_eq!(all.iter().map(|one| one.fd).collect::<Vec<_>>(), [1, 2, 3, 5, 7, 9]);
    }
}
