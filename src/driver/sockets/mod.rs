//! The sockets of this process: what was passed to it, what it has taken over, what it holds for
//! its successor.
//!
//! `obtain` finds or binds what the program asks for, `bind` binds, `conflict` tells why it cannot, `stages`
//! does what each stage of a restart asks for, `give` gives duplicates to the launcher for a keeper.

pub(in crate::driver) mod bind;
mod conflict;
#[cfg(feature = "systemd")]
pub(in crate::driver) mod fdstore;
pub(crate) mod flows;
mod fresh;
pub(in crate::driver) mod give;
pub(in crate::driver) mod given;
pub(crate) mod obtain;
pub(in crate::driver) mod stages;

use crate::driver::log::{self, sockets::Event};
use crate::proto::control::frame::Socket;
use crate::proto::sockets::passed;
#[cfg(feature = "systemd")]
use crate::proto::sockets::pool::Store;
use crate::proto::sockets::pool::{self, Pool};
use crate::shutdown::lock;
use crate::sys::{process, socket, unix_path};
use flows::Flows;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

pub(in crate::driver) type Entry = pool::Entry<Arc<OwnedFd>>;

/// What this process has of sockets.
pub(in crate::driver) struct Sockets {
    /// Held by the call that takes over: a second one at the same time waits for it.
    taking: Mutex<()>,
    held: Mutex<Held>,
}

/// All that this process has, and what came with it.
struct Held {
    pool: Pool<Arc<OwnedFd>>,
    /// Whose sockets these were.
    predecessor: Option<u64>,
    /// What the predecessor handed over beside them.
    state: Option<Vec<u8>>,
    flows: Flows,
    /// Those whose mode changes when this generation serves, and whether they block no more then.
    modes: Vec<(Entry, bool)>,
}

impl Sockets {
    pub(in crate::driver) const fn new() -> Sockets {
        let held = Held {
            pool: Pool::new(),
            predecessor: None,
            state: None,
            flows: Flows::new(),
            modes: Vec::new(),
        };
        Sockets { taking: Mutex::new(()), held: Mutex::new(held) }
    }

    /// What a successor gets; `None` once the drain has begun.
    pub(in crate::driver) fn held(&self) -> Option<Vec<Entry>> {
        let held = lock(&self.held);
        let mut entries = held.pool.held()?;
        entries.extend(held.flows.held());
        Some(entries)
    }

    /// What a successor gets even then: without the sockets of steered groups it could not find the flows
    /// of this generation.
    pub(in crate::driver) fn flows(&self) -> Vec<Entry> {
        lock(&self.held).flows.held()
    }

    /// Does a successor need to find this generation, although it drains?
    pub(in crate::driver) fn has_flows(&self) -> bool {
        lock(&self.held).flows.is_used()
    }

    #[cfg(feature = "systemd")]
    pub(in crate::driver) fn to_store(&self) -> Store<Arc<OwnedFd>> {
        lock(&self.held).pool.bring_store_into_line()
    }

    /// The drain begins: from here on the program's own close is the last one in this process.
    pub(in crate::driver) fn let_go(&self) {
        let held = lock(&self.held).pool.let_go();
        drop(held);
    }

    /// What was passed to this process or to its launcher. Called as early as can be, so that no
    /// program that is executed meanwhile inherits it.
    pub(in crate::driver) fn adopt_passed(&self, launcher: Option<i32>) {
        let variables = socket::passed_variables();
        let own = process::own_pid();
        let meant_for = [launcher.unwrap_or(own), own];
        let passed = match passed::parse(variables.as_ref(), &meant_for) {
            Ok(passed) => passed,
            Err(why) => {
                return log::write(Event::PassedRefused { refused: &why });
            }
        };
        let pool = &mut lock(&self.held).pool;
        for one in passed {
            match socket::adopt_passed(one.number) {
                Ok((fd, kind, local)) => {
                    log::write(Event::Passed {
                        number: one.number,
                        name: one.name.as_deref(),
                        kind: kind.name(),
                        address: &local,
                    });
                    let file =
                        unix_path::path_of(&local).and_then(|path| unix_path::file_at(&path));
                    let asked = local.clone();
                    let socket = Socket {
                        kind,
                        asked,
                        name: one.name,
                        member: 0,
                        retired: false,
                        local,
                        file,
                        flow: None,
                    };
                    pool.pass(entry(socket, fd));
                }
                Err(why) => log::write(Event::PassedUnusable {
                    number: one.number,
                    name: one.name.as_deref(),
                    refused: &why,
                }),
            }
        }
    }
}

pub(in crate::driver) fn entry(socket: Socket, fd: OwnedFd) -> Entry {
    let cookie = socket::cookie(fd.as_fd()).ok();
    let only_v6 = socket::is_only_v6(fd.as_fd());
    Entry { socket, fd: Arc::new(fd), cookie, only_v6 }
}
