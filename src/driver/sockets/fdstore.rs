//! Has systemd keep the sockets of this generation (`FileDescriptorStoreMax=`), so that they outlive
//! the end of every process of the service, and removes what a successor must not find: nobody would
//! accept from it, and what arrives there would wait for ever.

use crate::driver::log::{self, sockets::Event};
use crate::driver::retry;
use crate::driver::shared::PROCESS;
use crate::proto::channel::Aside;
use crate::proto::sockets::pool::Store;
use crate::shutdown::lock;
use crate::sys::seqpacket::Link;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::thread;

/// What is held has changed since the last look, or a probation is passed.
pub(in crate::driver) fn again() {
    let room = PROCESS.sockets.store_room.load(Ordering::SeqCst);
    let channel = PROCESS.daemon().and_then(|daemon| daemon.channel.upgrade());
    let (Some(channel), true) = (channel, room > 0) else { return };
    // On a thread of its own: the supervisor may be slow.
    let thread = thread::Builder::new().name("seamless-systemd".to_owned());
    if let Err(error) = thread.spawn(move || keep(&channel, room)) {
        log::write(Event::NotStored { error: &error });
    }
}

/// Brings systemd's store into line with what is held. `room`: how many it takes. On probation the store stays the
/// predecessor's, which may serve again.
pub(in crate::driver) fn keep(channel: &Link, room: usize) {
    PROCESS.sockets.store_room.store(room, Ordering::SeqCst);
    if PROCESS.daemon().is_some_and(|daemon| lock(&daemon.machine).is_on_probation()) {
        return;
    }
    let _one_at_a_time = lock(&PROCESS.sockets.storing);
    let mut store = lock(&PROCESS.sockets.held).pool.bring_store_into_line();
    if let Some(sockets) = store.fit(room) {
        log::write(Event::StoreTooSmall {
            setting: &format_args!("FileDescriptorStoreMax={room}"),
            sockets,
        });
    }
    let Store { remove, add, kept } = store;
    let count = add.len();
    let done = remove
        .into_iter()
        .try_for_each(|name| send(channel, &Aside::Remove(name), None))
        .and_then(|()| {
            add.into_iter()
                .try_for_each(|(name, fd)| send(channel, &Aside::Store(name), Some(fd.as_fd())))
        });
    match done {
        Ok(()) => log::write(Event::Stored { stored: count, kept }),
        // The launcher may have gone. Then the next generation brings the store into line.
        Err(error) => log::write(Event::NotStored { error: &error }),
    }
}

fn send(channel: &Link, message: &Aside, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let bytes = message.format();
    retry::within(retry::STORE, || channel.send(&bytes, fd.as_slice()))
}
