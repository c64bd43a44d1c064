//! A TCP port for a server that others must not get meanwhile.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use socket2::{Domain, Socket, Type};

/// A free port of 127.0.0.1, bound but not listened on, for servers that set SO_REUSEPORT: it
/// refuses connections, and nobody else is given it, while none of them listens.
#[derive(Debug)]
pub struct ReservedPort {
    address: SocketAddr,
    _bound: Socket,
}

impl ReservedPort {
    /// Any port that is free.
    pub fn new() -> io::Result<Self> {
        let socket = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = socket.local_addr()?.as_socket().expect("the kind of address that was bound");
        Ok(ReservedPort { address, _bound: socket })
    }

    /// One more listener on it, nonblocking.
    pub fn listen(&self) -> io::Result<TcpListener> {
        let socket = bound(self.address)?;
        socket.set_nonblocking(true)?;
        socket.listen(1024)?;
        Ok(socket.into())
    }

    /// The address to listen on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
