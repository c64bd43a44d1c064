//! What the stages of a restart and of a probation do with steered groups.

use super::super::Entry;
use super::{Flows, Group};
use crate::driver::control;
use crate::driver::generation::Service;
use crate::driver::shared::{Daemon, PROCESS};
use crate::proto::sockets::pool::{Found, Origin};
use crate::shutdown::lock;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;

impl Flows {
    /// This generation is about to serve. Returns the groups that the program has not asked for, to be
    /// closed: one socket of each.
    pub(in crate::driver::sockets) fn unclaimed(&mut self) -> Vec<Found<Arc<OwnedFd>>> {
        let groups = std::mem::take(&mut self.groups);
        let (claimed, unclaimed): (Vec<Group>, Vec<Group>) =
            groups.into_iter().partition(|group| group.claimed);
        self.groups = claimed;
        unclaimed.iter().map(|group| (group.sockets[0].clone(), Origin::Predecessor)).collect()
    }
}

/// New flows go to this generation from now on. `lives`: the others that are known to live.
pub(in crate::driver) fn take_over(own: u64, lives: &BTreeSet<u64>) {
    for group in &mut lock(&PROCESS.sockets.held).flows.groups {
        group.layout.free(|one| one == own || lives.contains(&one));
        group.write(own);
    }
}

/// New flows go to this generation from now on: ours, or the one that we stand by for. No lock of the service is
/// needed.
pub(in crate::driver) fn steer_to(generation: u64) {
    lock(&PROCESS.sockets.held).flows.groups.iter().for_each(|group| group.write(generation));
}

/// Returns when nothing is being written. For a generation that has decided to write no more: guards against a
/// program of ours that replaces the one of the generation that serves in our place.
pub(in crate::driver) fn written() {
    drop(lock(&PROCESS.sockets.held));
}

/// These are the groups of the newer generation that we stand by for: what it has bound is held here as well.
/// If it dies, no socket moves to another place, and if it fails, its flows still reach it.
pub(in crate::driver) fn hold(entries: Vec<Entry>) -> Result<(), String> {
    let theirs = Group::all_of(entries);
    let flows = &mut lock(&PROCESS.sockets.held).flows;
    let mut grown = Vec::new();
    for group in &theirs {
        let known = flows.known(group);
        let layout = match &known {
            _ if !group.is_whole() => None,
            None => Some(group.layout.clone()),
            Some(known) => known.layout.grown(&group.layout, |at| {
                let cookie = known.sockets[at].cookie;
                cookie.is_some() && cookie == group.sockets[at].cookie
            }),
        };
        grown.push(layout.ok_or_else(|| {
            format!("the order of its sockets at {} is not the one that is known here", group.asked)
        })?);
    }
    for (mut group, layout) in theirs.into_iter().zip(grown) {
        match flows.known(&group) {
            Some(known) => {
                known.layout = layout;
                let more = known.sockets.len();
                known.sockets.extend(group.sockets.drain(more..));
            }
            None => {
                group.claimed = true;
                flows.groups.push(group);
            }
        }
    }
    Ok(())
}

/// An older generation has ended, or the programs could not be written when one had. `true`: try again in a
/// second.
pub(in crate::driver) fn settle(ended: &[u64]) -> bool {
    let Some(daemon) = PROCESS.daemon() else { return false };
    let own = daemon.generation().unwrap_or(0);
    {
        let mut held = lock(&PROCESS.sockets.held);
        let flows = &mut held.flows;
        for group in &mut flows.groups {
            let freed = group.layout.free(|generation| !ended.contains(&generation));
            flows.unsettled |= !freed.is_empty();
        }
        if !flows.unsettled {
            return false;
        }
    }
    let Some(service) = &daemon.service else { return false };
    if !lock(&daemon.machine).may_steer() {
        return false;
    }
    for generation in ended {
        control::forget(&service.pid_file, *generation);
    }
    let done = service.while_newest(|| {
        let mut held = lock(&PROCESS.sockets.held);
        // Asked while the lock is held: see `written`.
        if lock(&daemon.machine).steers() {
            held.flows.unsettled = false;
            held.flows.groups.iter().for_each(|group| group.write(own));
        }
    });
    !done.unwrap_or(false)
}

/// This process is about to end: nobody has to find it any more.
pub(in crate::driver) fn finish(daemon: &Daemon) {
    if let (Some(service), true) = (&daemon.service, PROCESS.sockets.has_flows()) {
        control::forget(&service.pid_file, service.number().unwrap_or_default());
    }
}

/// The number by which the next generations find this one, if they need to.
pub(in crate::driver) fn named(service: &Service) -> Option<u64> {
    service.number().filter(|_| PROCESS.sockets.has_flows())
}
