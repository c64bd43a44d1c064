use super::{SocketKind, describe};
use crate::proto::control::frame::Address;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::net::SocketAddr;
use std::os::fd::AsFd;

fn described(socket: &Socket) -> Result<(SocketKind, Address), String> {
    describe(socket.as_fd())
}

fn unix(ty: Type) -> Socket {
    Socket::new(Domain::UNIX, ty, None).expect("a socket")
}

#[test]
fn unix_addresses_with_a_path_an_abstract_name_and_none() {
    let socket = unix(Type::DGRAM);
    assert_eq!(described(&socket), Ok((SocketKind::UnixDatagram, Address::Unix(Vec::new()))));
    // The kernel chooses an abstract name, of five digits.
    socket.bind(&SockAddr::unix("").expect("an address")).expect("bind");
    let Ok((SocketKind::UnixDatagram, Address::Unix(name))) = described(&socket) else { panic!() };
    assert!(name.len() == 6 && name[0] == 0, "{name:?}");

    let name = format!("\0seamless-{}\0\0", std::process::id());
    let socket = unix(Type::STREAM);
    socket.bind(&SockAddr::unix(&name).expect("an address")).expect("bind");
    assert_eq!(described(&socket), Err("it is not listening".to_owned()));
    socket.listen(1).expect("listen");
    assert_eq!(described(&socket), Ok((SocketKind::Unix, Address::Unix(name.into_bytes()))));

    let path = std::env::temp_dir().join(format!("seamless-{}", std::process::id()));
    let socket = unix(Type::STREAM);
    socket.bind(&SockAddr::unix(&path).expect("an address")).expect("bind");
    socket.listen(1).expect("listen");
    let address = Address::Unix(path.as_os_str().as_encoded_bytes().to_vec());
    assert_eq!(described(&socket), Ok((SocketKind::Unix, address)));
    std::fs::remove_file(path).expect("its file");
}

#[test]
fn inet_addresses_and_multipath_tcp() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let address: SocketAddr = address.parse().expect("an address");
        for protocol in [Protocol::TCP, Protocol::MPTCP] {
            let domain = Domain::for_address(address);
            let Ok(socket) = Socket::new(domain, Type::STREAM, Some(protocol)) else { continue };
            if socket.bind(&address.into()).is_err() {
                continue; // no IPv6 here
            }
            assert_eq!(described(&socket), Err("it is not listening".to_owned()));
            socket.listen(1).expect("listen");
            let local = socket.local_addr().expect("its address").as_socket();
            let local = Address::Inet(local.expect("an internet address"));
            assert_eq!(described(&socket), Ok((SocketKind::Tcp, local)));
        }
    }
}

#[test]
fn seqpacket_sockets_are_described_and_other_kinds_are_refused() {
    let socket = unix(Type::SEQPACKET);
    assert_eq!(described(&socket), Err("it is not listening".to_owned()));
    let name = format!("\0seamless-seqpacket-{}", std::process::id());
    socket.bind(&SockAddr::unix(&name).expect("an address")).expect("bind");
    socket.listen(1).expect("listen");
    let address = Address::Unix(name.into_bytes());
    assert_eq!(described(&socket), Ok((SocketKind::UnixSeqpacket, address)));
    let socket = Socket::new(Domain::PACKET, Type::RAW, None);
    if let Ok(socket) = socket {
        let (packet, raw) = (i32::from(Domain::PACKET), i32::from(Type::RAW));
        let why = format!("it is a socket of another kind (domain {packet}, type {raw})");
        assert_eq!(described(&socket), Err(why)); // root alone may make one
    }
    let file = std::fs::File::open("/dev/null").expect("it");
    assert_eq!(describe(file.as_fd()), Err("it is not a socket".to_owned()));
}
