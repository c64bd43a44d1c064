//! A socket that counts the packets which belong to another process: to prove that there are none.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use seamless::sockets::quic::{ConnectionIds, MadeBy};

/// What has arrived at all members of this process.
#[derive(Debug, Default)]
pub struct Counts {
    pub packets: AtomicU64,
    /// With a connection ID of another generation that lives.
    pub astray: AtomicU64,
    /// With one of a generation that has ended.
    pub of_ended: AtomicU64,
}

pub struct Counting {
    pub socket: Arc<dyn AsyncUdpSocket>,
    pub ids: ConnectionIds,
    pub counts: Arc<Counts>,
}

impl fmt::Debug for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.fmt(f)
    }
}

impl Counting {
    fn count(&self, datagram: &[u8]) {
        self.counts.packets.fetch_add(1, Ordering::Relaxed);
        let Some(id) = destination_id(datagram) else { return };
        match self.ids.made_by(id) {
            MadeBy::Living => self.counts.astray.fetch_add(1, Ordering::Relaxed),
            MadeBy::Ended => self.counts.of_ended.fetch_add(1, Ordering::Relaxed),
            _ => return,
        };
    }
}

/// Where every version of QUIC has it (RFC 8999).
fn destination_id(datagram: &[u8]) -> Option<&[u8]> {
    if datagram.first()? & 0x80 == 0 {
        return datagram.get(1..1 + ConnectionIds::LENGTH);
    }
    let length = usize::from(*datagram.get(5)?);
    datagram.get(6..6 + length)
}

impl AsyncUdpSocket for Counting {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let messages = ready!(self.socket.poll_recv(cx, bufs, meta))?;
        for (buffer, meta) in bufs.iter().zip(meta).take(messages) {
            buffer[..meta.len].chunks(meta.stride.max(1)).for_each(|datagram| self.count(datagram));
        }
        Poll::Ready(Ok(messages))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}
