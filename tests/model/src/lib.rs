//! The whole protocol, walked by a model checker: a supervisor of each kind, generations of launcher
//! and daemon, the claim, the record, the PID file, listening sockets with their clients, and an
//! operator, with any process dying at any step.
//!
//! The machines, the order of `started`, the reading of the record and of the supervisors' statuses,
//! the pool of sockets and what is said in a takeover are those of the crate. What the drivers do
//! between them is told here again, step by step, with the names of their functions. Every run ends,
//! since whatever comes from outside is taken from a budget; so "in the end" is whatever holds where
//! nothing happens any more.
//!
//! # What is walked
//!
//! Each set of bounds says how often something may happen; within it, everything that can happen does,
//! in each order. [`walks`] has them all; `scripts/model --deep` walks further.
//!
//! | what | under | generations | what may happen in one set |
//! | --- | --- | --- | --- |
//! | restarts, stops, bad deploys, kills, lost files, reused PIDs, refused signals | daemontools and runit, with a status that can be read and one that cannot; a supervisor of no known kind; none | 1 to 4 | 1 to 5 events of up to 4 kinds |
//! | restart in place | none, daemontools, runit, an unknown one | 2, 3 | 1 or 2 reloads; a bad deploy, command, kill, signal by hand, lost socket |
//! | each other kind ([`supervisors`]) | s6 with a `finish` that kills, systemd with each `KillMode=` and two of `Restart=`, supervisord, OpenRC | 2, 3 | 2 commands; or one, and a kill, bad deploy, signal by hand or limit of the supervisor's |
//! | sockets ([`net`]): one, two then one, a Unix socket, groups that grow and shrink, passed ones, stored ones | daemontools, systemd, and in place | 2, 3 | 1 or 2 clients, and a command with one of the above, a takeover that is refused or cut, a stranger at the takeover socket, a removed path |
//!
//! [`broken`] breaks the protocol in one place at a time, and each such variant is found by the promise
//! that it breaks.
//!
//! # What is not
//!
//! - Time. A timer fires at any moment, or late; the two exceptions stand where they are made: a
//!   supervisor is through with a command within 20 ms, and clients come when somebody has served.
//! - The bytes: what parses them has tests and a fuzzer. Of two users, the refusals only.
//! - State that is handed over, UDP, and port 0: to the pool they are sockets as any other.
//! - Between the look at an empty queue and `close` nothing arrives: to the kernel that is two steps, and
//!   for a socket that no successor has taken the crate cannot make it one.
//! - A connection at an address that is no longer asked for, in the moment in which systemd's store is
//!   the last to hold its socket; what waits at a retired member whose last server was killed.
//! - Groups whose predecessor, in place, is told by the launcher's timer to drain before its successor has
//!   steered the group: that takes a process stopped for a second between two instructions.
//! - Forwarded signals (P7) and bad input (P10), the watchdog and notifications.

//!
//! A crate of its own, since the walks want it optimized, and nothing else of the crate is worth the
//! time that takes to compile.

// The machines are a part of the crate here, not the whole of it.
#![cfg(test)]
#![allow(dead_code, unexpected_cfgs, unreachable_pub)]

mod broken;
mod daemon;
mod launcher;
mod machines;
mod net;
mod properties;
mod steps;
mod supervisors;
mod trace;
mod variants;
mod walks;
mod world;

#[path = "../../../src/proto/mod.rs"]
mod proto;

use stateright::{Model, Property};
use steps::Action;
use variants::Variant;
use world::{Promise, Setting, World};

/// The protocol in some setting, whole or broken.
#[derive(Clone, Copy, Debug)]
struct Protocol {
    setting: Setting,
    broken: Option<Variant>,
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.setting)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        variants::set(self.broken);
        world.actions(&self.setting, actions);
        variants::set(None);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        variants::set(self.broken);
        let mut next = world.after(action, &self.setting);
        if let Some(next) = &mut next {
            if next.fault.is_none() && trace::silently(|| next.is_at_rest(&self.setting)) {
                next.check_rest(&self.setting);
            }
        }
        variants::set(None);
        next
    }

    fn properties(&self) -> Vec<Property<Protocol>> {
        use Promise::{P1, P2, P3, P4, P5, P6, P8};
        fn keeps(world: &World, promise: Promise) -> bool {
            world.fault.is_none_or(|fault| fault.promise != promise)
        }
        vec![
            Property::always(P1.name(), |_, world| keeps(world, P1)),
            Property::always(P2.name(), |_, world| keeps(world, P2)),
            Property::always(P3.name(), |_, world| keeps(world, P3)),
            Property::always(P4.name(), |_, world| keeps(world, P4)),
            Property::always(P5.name(), |_, world| keeps(world, P5)),
            Property::always(P6.name(), |_, world| keeps(world, P6)),
            Property::always(P8.name(), |_, world| keeps(world, P8)),
        ]
    }
}
