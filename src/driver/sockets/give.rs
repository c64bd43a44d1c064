//! A daemon gives duplicates of its sockets to its launcher, for a keeper.

use super::Entry;
use crate::driver::generation::Service;
use crate::driver::log::{self, sockets::Event};
use crate::driver::shared::{Daemon, PROCESS};
use crate::proto::channel::Given;
use crate::proto::control::frame::Socket;
use crate::shutdown::lock;
use crate::sys::shortage::is_shortage;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// This generation is about to serve, and no older one has been told to end: its launcher gets what a
/// keeper needs. What cannot be sent now is sent later, by the thread that takes signals: a shortage
/// fails no start.
pub(in crate::driver) fn give(service: &Service, daemon: &Daemon) {
    let entries = outliving();
    if !entries.is_empty() {
        give_all(service, daemon, &entries);
    }
}

/// `entries`: none, if what was given before is not to outlive a crash any more.
fn give_all(service: &Service, daemon: &Daemon, entries: &[Entry]) {
    let (Some(keep_sockets), Some(generation)) = (service.keep_sockets, service.number()) else {
        return;
    };
    let mut messages = VecDeque::new();
    let mut put = |given: Given, fds| messages.push_back((given.format(), fds));
    put(Given::Begin { generation, sockets: entries.len(), keep_sockets }, Vec::new());
    let mut rest = entries;
    while let Some(first) = rest.first() {
        let count = Given::chunk(rest.iter().map(|entry| &entry.socket));
        if count == 0 {
            log::write(Event::TooLong {
                kind: first.socket.kind.name(),
                address: &first.socket.asked,
            });
            rest = &rest[1..];
            continue;
        }
        let (chunk, more) = rest.split_at(count);
        let sockets: Vec<Socket> = chunk.iter().map(|entry| entry.socket.clone()).collect();
        put(Given::Sockets(sockets), chunk.iter().map(|entry| Arc::clone(&entry.fd)).collect());
        rest = more;
    }
    put(Given::End, Vec::new());
    *lock(&daemon.to_launcher) = messages;
    if !send(daemon) {
        daemon.waker.wake();
    }
}

/// What is to outlive a crash of this generation.
pub(in crate::driver) fn outliving() -> Vec<Entry> {
    let mut entries: Vec<Entry> = PROCESS.sockets.held().unwrap_or_default();
    entries.retain(|one| !one.socket.retired && one.outlives_crash);
    entries
}

/// The same, while this generation serves: what is to outlive a crash has changed.
pub(in crate::driver) fn again() {
    let Some(daemon) = PROCESS.daemon() else { return };
    let gives = lock(&daemon.machine).gives_again();
    if let Some(service) = daemon.service.as_ref().filter(|_| gives) {
        give_all(service, daemon, &outliving());
    }
}

/// Sends what there is to give; `false`: some of it has to wait.
pub(in crate::driver) fn send(daemon: &Daemon) -> bool {
    let mut unsent = lock(&daemon.to_launcher);
    while let Some((bytes, fds)) = unsent.front() {
        let Some(channel) = daemon.channel.upgrade() else {
            unsent.clear(); // a launcher that has gone starts no keeper
            return true;
        };
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
        match channel.send(bytes, &fds) {
            Err(error) if is_shortage(&error) => return false,
            Ok(()) | Err(_) => _ = unsent.pop_front(),
        }
    }
    true
}
