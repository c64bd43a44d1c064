//! TCP sockets by IPv4 in our network namespace, by `sock_diag(7)`. `/proc/net/tcp` shows the same, but for each look the
//! kernel goes through a table that is as large as the machine: milliseconds of processor time.

use std::net::{IpAddr, SocketAddrV4};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, IPPROTO_TCP},
    inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

/// Those that listen, at this port or at any: their inodes, in the order of their number in the kernel.
pub(crate) fn listening(port: Option<u16>) -> Vec<u32> {
    let all = ask(NLM_F_DUMP, StateFlags::LISTEN, SocketId::new_v4());
    let here = |one: &InetResponseHeader| port.is_none_or(|port| one.socket_id.source_port == port);
    all.into_iter().filter(here).map(|one| one.inode).collect()
}

/// The inode of the connection between these two addresses, at its end `here`: 0 before it is accepted.
pub(crate) fn connection(here: SocketAddrV4, there: SocketAddrV4) -> Option<u32> {
    let id = SocketId {
        source_address: IpAddr::V4(*here.ip()),
        source_port: here.port(),
        destination_address: IpAddr::V4(*there.ip()),
        destination_port: there.port(),
        cookie: [0xff; 8], // none
        ..SocketId::new_v4()
    };
    // Without a connection the kernel shows what listens there.
    let mut found = ask(0, StateFlags::all(), id.clone());
    found.retain(|one| one.socket_id.destination_port == id.destination_port);
    found.pop().map(|one| one.inode)
}

fn ask(flags: u16, states: StateFlags, socket_id: SocketId) -> Vec<InetResponseHeader> {
    let request = InetRequest {
        family: AF_INET,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states,
        socket_id,
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let mut socket = Socket::new(NETLINK_SOCK_DIAG).expect("a netlink socket");
    socket.bind_auto().expect("an address");
    socket.connect(&SocketAddr::new(0, 0)).expect("the kernel");
    socket.send(&bytes, 0).expect("a question");

    let mut found = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full().expect("an answer");
        let mut rest = &answer[..];
        while !rest.is_empty() {
            let message = NetlinkMessage::deserialize(rest).expect("a netlink message");
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(one)) => {
                    found.push(one.header);
                    if flags == 0 {
                        return found;
                    }
                }
                NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => return found,
                other => panic!("{other:?}"),
            }
            let length = message.header.length as usize;
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
    }
}
