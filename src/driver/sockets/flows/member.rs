//! What the program asks about its members of a steered group.

use crate::driver::shared::PROCESS;
use crate::proto::control::frame::{Secret, Steer};
use crate::proto::flows::quic::Mark;
use crate::shutdown::lock;
use crate::sys::socket;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// What a member of a steered group is.
pub(crate) struct Member {
    pub(crate) steer: Steer,
    pub(crate) mark: Mark,
    pub(crate) secret: Secret,
    pub(crate) living: Arc<AtomicU64>,
}

/// `None`: it is no member of this generation in a steered group.
pub(crate) fn member(socket: BorrowedFd<'_>) -> Option<Member> {
    let own = PROCESS.daemon()?.generation().unwrap_or(0);
    let cookie = socket::cookie(socket).ok()?;
    let held = lock(&PROCESS.sockets.held);
    held.flows.groups.iter().find_map(|group| {
        let place = group.sockets.iter().position(|entry| entry.cookie == Some(cookie))?;
        let owner = group.layout.places().get(place)?.filter(|owner| owner.generation == own)?;
        let mark = Mark { slot: owner.slot, member: owner.member };
        let living = Arc::clone(&group.living);
        Some(Member { steer: owner.steer, mark, secret: group.secret, living })
    })
}
