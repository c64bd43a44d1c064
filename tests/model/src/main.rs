//! The whole protocol, walked by a model checker: a supervisor of each kind, generations of launcher
//! and daemon, the claim, the record, the PID file, listening sockets with their clients, and an
//! operator. Any process may die at any step.
//!
//! Every rule is the crate's own code (`src/proto`): the machines of launcher and daemon, the verdict on
//! whom a generation may signal, the steps of a takeover, the check, the hooks before signals, the
//! supervisors' statuses, the pool of sockets, and what is said in a transfer. The model tells only what
//! the world does: processes, files, signals, messages, the kernel's sockets. The driver's loops over
//! these machines are told again here, with the names of their functions.
//!
//! Every run ends, because whatever comes from outside is taken from a budget. So "in the end" is
//! whatever holds when nothing happens any more.
//!
//! # What is walked
//!
//! Each set of bounds says how often something may happen. Within the bounds, everything that can happen
//! does, in each order. `walks` has them all; `scripts/model --deep` walks further.
//!
//! | what | under | generations | what may happen in one set |
//! | --- | --- | --- | --- |
//! | restarts, stops, bad deploys, kills, lost files, reused PIDs, refused signals | daemontools and runit, with a status that can be read and one that cannot; a supervisor of no known kind; none | 1 to 4 | 1 to 5 events of up to 4 kinds |
//! | restart in place | none, daemontools, runit, an unknown one | 2, 3 | 1 or 2 reloads; a bad deploy, command, kill, signal by hand, lost socket |
//! | the keeper: a crash at each step of daemon, keeper and launcher, and the next start | daemontools, runit, an unknown one, and in place | 2 to 4 | 1 to 3 kills; or one, and a command, bad deploy, client or limit |
//! | each other kind (`supervisors`) | s6 with a `finish` that kills, systemd with each `KillMode=` and two of `Restart=`, supervisord, OpenRC | 2, 3 | 2 commands; or one, and a kill, bad deploy, signal by hand or limit of the supervisor's |
//! | sockets (`net`): one, two then one, a Unix socket, groups that grow and shrink, passed ones, stored ones | daemontools, systemd, and in place | 2, 3 | 1 or 2 clients, and a command with one of the above, a transfer that is refused or cut, a stranger at the control socket, a removed path |
//! | open connections that move (`moves`) | daemontools, an unknown one | 2 (3 in the long run) | a command, and a kill, lost descriptors, a slow answer, or a rollback |
//! | a generation that starts and has lost its supervisor | daemontools, runit | 3 | a kill, 2 bad deploys |
//! | no pidfds, so that only the lock on the PID file tells who lives | daemontools | 2, 3 | 2 commands; or one, and a kill, bad deploy, reused PID or client |
//! | another PID namespace that shares the files | daemontools | 3 | a start there, and a command, kill or lost PID file |
//! | a record of another user | daemontools | 3 | 2 commands; or one, and a kill, or a line that names a process of others |
//! | checks and stops that fail: out of memory, or no access to the lock file | daemontools, an unknown one | 2, 3 | 2 commands and a failure; or a command, a refused signal, 2 failures |
//! | generations that have to prove themselves (`probation`) | daemontools, runit, an unknown one, in place | 2, 3 | 1 or 2 commands or a reload; or one, and a failed check or an end, a kill, signal by hand, silence or file that waits; or a kill, and out of memory |
//! | a steered group of UDP sockets (`flows`): members that come and stay, the program, standby and rollback, the keeper | daemontools, and in place | 2, 3 | 2 commands or 2 kills; or one, and a reload, kill, failure or silence |
//! | all of these together: a socket and a steered group with a keeper, a probation, `leave_time`, connections that move | daemontools, and in place | 2 | a kill; or a command or reload, and a kill or failure |
//! | hooks that hold back signals | daemontools, runit, an unknown one, in place | 2 | 2 commands; or one, and a signal by hand, kill or reload |
//!
//! `broken` breaks the protocol in one place at a time, and each such variant is found by the promise
//! that it breaks. The crate knows nothing of that: `machines` stands between the world and the crate's
//! code, and drops or rewrites what passes.
//!
//! # What is not
//!
//! - Time. A timer fires at any moment, or late. There are three exceptions: a supervisor finishes a
//!   command within 20 ms, clients come only after a generation has served, and `claim_timeout` passes
//!   only for a generation that hangs, or at the cost of a bad deploy.
//! - The bytes: what parses them has tests and a fuzzer. Of two users, only the refusals.
//! - State that is handed over, UDP that is not steered, and port 0: to the pool they are sockets like any other.
//! - Nothing arrives between the look at an empty queue and `close`. To the kernel these are two steps,
//!   and for a socket that no successor has taken the crate cannot make them one.
//! - A connection at an address that is no longer asked for, in the moment in which systemd's store is
//!   the last to hold its socket; and what waits at a retired member whose last server was killed.
//! - Groups whose predecessor, in place, is told to drain by the launcher's timer before its successor
//!   has steered the group: a process would have to be stopped for a second between two instructions.
//! - Forwarded signals (P7) and bad input (P10), the watchdog and notifications.
//!
//! # What does not hold
//!
//! The walks leave these out, and say so where they do:
//!
//! - Without pidfds the end of older generations cannot be awaited, so a stop may be reported too early
//!   (P6). Nobody knows whose a launcher is: a service that shares the PID file gets TERM (P5). Between
//!   the look and the signal a PID may become another process's (P5). A generation whose supervisor was
//!   killed, and whose PID file a failed start has replaced, cannot be told to end (P4).
//! - With a record of another user than the daemons', a generation whose supervisor was killed gets no
//!   TERM, and beside its launcher it does not check (P4).
//! - A daemon that can open neither lock file nor record drains as soon as the PID file names a newer
//!   generation, which serves a moment later (P1). If its supervisor does not tell what it wants, it drains
//!   after `successor_timeout`, though a successor may be starting (P1).
//! - If the generation that serves has a launcher whose supervisor was killed, it does not check. If its successor
//!   dies before it has told that generation to end, new flows of a steered group wait for the next start (P14).
//! - Nobody knows of a keeper whose launcher was killed before the record listed it. A stop may be reported down before
//!   it has ended, which it does at its next check (P6).
//! - A generation may end after its control socket was put in place, and before the record lists it. Until the next
//!   check of its predecessor, a start then finds nobody to take over from: it fails, and the supervisor tries again.
//! - A generation that has failed in its probation drains when it hears that the other one serves again. If the
//!   supervisor was killed, and it hears that only after the whole of `successor_timeout`, as a stopped process may,
//!   the other one has drained by then, since nobody would come (P1). Heard in time, both would end as well, the
//!   other one later. No walk has a kill and a failed probation together.

// A crate of its own, since the walks want it optimized, and nothing else of the crate is worth the
// time that takes to compile. It is a program, not a crate of unit tests: those of src/proto, which the crate
// runs, would be compiled once more, and take longer than all of this.

#![allow(unreachable_pub)]

mod broken;
mod daemon;
mod flows;
mod keeper;
mod launcher;
mod machines;
mod moves;
mod net;
mod probation;
mod properties;
mod shared;
mod steps;
mod supervisors;
mod trace;
mod variants;
mod walks;
mod world;

// The machines are a part of the crate here, not the whole of it, and their unit tests are left out.
#[allow(dead_code, unexpected_cfgs, unused_imports)]
#[path = "../../../src/proto/mod.rs"]
mod proto;

use libtest_mimic::{Arguments, Trial};
use stateright::{Model, Property};
use steps::Action;
use variants::Variant;
use world::{Promise, Setting, World};

type Test = (&'static str, fn());

/// These functions, by their names.
macro_rules! tests {
    ($($test:path),* $(,)?) => { &[$((stringify!($test), $test)),*] };
}
use tests;

fn main() {
    let trials = |module: &'static str, tests: &'static [Test]| {
        tests.iter().map(move |(name, test)| {
            Trial::test(format!("{module}::{name}"), move || {
                test();
                Ok(())
            })
        })
    };
    let trials = trials("walks", walks::ALL).chain(trials("broken", broken::ALL)).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

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
        let next = world.after(action, &self.setting);
        variants::set(None);
        next
    }

    fn properties(&self) -> Vec<Property<Protocol>> {
        use Promise::{P1, P2, P3, P4, P5, P6, P8, P11, P12, P13, P14};
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
            Property::always(P11.name(), |_, world| keeps(world, P11)),
            Property::always(P12.name(), |_, world| keeps(world, P12)),
            Property::always(P13.name(), |_, world| keeps(world, P13)),
            Property::always(P14.name(), |_, world| keeps(world, P14)),
        ]
    }
}
