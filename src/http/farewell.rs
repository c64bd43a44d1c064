//! What a WebSocket says when it leaves.

use crate::DrainReason;

/// The frame with which a WebSocket ends: what [`close_frame`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseFrame {
    /// RFC 6455, 7.4.
    pub code: u16,
    /// A few words.
    pub reason: &'static str,
}

/// The Close frame for a WebSocket in a drain: 1012, "service restart". Clients take it for what it is, and
/// connect again. If the drain has begun and no other generation serves, it is 1001, "going away".
///
/// Send it at a [moment](crate::Draining::moment) of the connection's own, then read until the client has
/// answered it. With axum:
///
/// ```no_run
/// use axum::extract::ws::{CloseFrame, Message, WebSocket};
/// use std::time::Duration;
///
/// # async fn answer(_: &mut WebSocket, _: Message) {}
/// async fn talk(mut socket: WebSocket) {
///     let mut leave = seamless::draining().moment(Duration::from_secs(5));
///     loop {
///         tokio::select! {
///             () = &mut leave => break,
///             Some(Ok(message)) = socket.recv() => answer(&mut socket, message).await,
///             else => return,
///         }
///     }
///     let seamless::http::CloseFrame { code, reason, .. } = seamless::http::close_frame();
///     let frame = CloseFrame { code, reason: reason.into() };
///     let _ = socket.send(Message::Close(Some(frame))).await;
///     while let Some(Ok(message)) = socket.recv().await {
///         answer(&mut socket, message).await;
///     }
/// }
/// ```
pub fn close_frame() -> CloseFrame {
    of(crate::draining().reason())
}

fn of(reason: Option<DrainReason>) -> CloseFrame {
    match reason {
        None | Some(DrainReason::TakenOver | DrainReason::RolledBack) => {
            CloseFrame { code: 1012, reason: "service restart" }
        }
        Some(DrainReason::Stopped | DrainReason::Requested) => {
            CloseFrame { code: 1001, reason: "going away" }
        }
    }
}

impl CloseFrame {
    /// The frame as a server sends it, unmasked (RFC 6455, 5.5.1).
    pub fn bytes(self) -> Vec<u8> {
        let [high, low] = self.code.to_be_bytes();
        let length = 2 + self.reason.len() as u8; // a frame of control has at most 125
        [&[0x88, length, high, low], self.reason.as_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::{DrainReason, of};

    #[test]
    fn clients_learn_whether_to_come_back() {
        let restart = of(Some(DrainReason::TakenOver));
        assert_eq!((restart.code, of(None)), (1012, restart));
        assert_eq!(of(Some(DrainReason::RolledBack)), restart, "the predecessor serves");
        assert_eq!(restart.bytes(), b"\x88\x11\x03\xf4service restart");
        for reason in [DrainReason::Stopped, DrainReason::Requested] {
            assert_eq!(of(Some(reason)).bytes(), b"\x88\x0c\x03\xe9going away");
        }
    }
}
