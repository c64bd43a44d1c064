//! What a daemon says of itself.

use crate::proto::State;
use crate::proto::control::frame::{self, Address};
use crate::proto::control::status;
use crate::sys::unix_path;
use std::time::Duration;

/// What the newest generation says of itself: see [`Service::status`](super::Service::status). A
/// daemon of another version may leave out what is an [`Option`] here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status(pub(super) status::Status);

impl Status {
    /// Where it is in its life.
    pub fn state(&self) -> State {
        self.0.state
    }

    /// Whether it serves and its [`on_shutdown_request`](crate::on_shutdown_request) hooks run: a
    /// restart has begun, and the launcher waits for them.
    pub fn is_handing_off(&self) -> bool {
        self.0.handing_off
    }

    /// Whether it is a keeper: the daemon of this generation has crashed, and the keeper holds its sockets
    /// until the next start. See [`Config::keep_sockets`](crate::Config::keep_sockets). Nobody serves, and
    /// the [`state`](Status::state) is [`State::Starting`].
    pub fn is_keeping(&self) -> bool {
        self.0.keeping
    }

    /// The state in one word: `starting`, `serving`, `handing-off`, `detached`, `standby`, `leaving`, `draining`
    /// or `keeping`.
    pub fn state_name(&self) -> &'static str {
        if self.0.keeping {
            return "keeping";
        }
        self.0.state.name(self.0.handing_off)
    }

    /// How long it has been in this state.
    pub fn state_age(&self) -> Option<Duration> {
        self.0.state_ms.map(Duration::from_millis)
    }

    /// The PID of its daemon: that of [`Look::newest`](super::Look::newest).
    pub fn daemon(&self) -> i32 {
        self.0.daemon
    }

    /// The version of this crate in the daemon, like `0.1.0`.
    pub fn version(&self) -> Option<&str> {
        self.0.version.as_deref()
    }

    /// The sockets that a successor would get, as many as fit into the answer (64 KiB).
    pub fn sockets(&self) -> Vec<Socket> {
        self.0.held.iter().map(Socket::of).collect()
    }

    /// How many sockets a successor would get.
    pub fn socket_count(&self) -> u64 {
        self.0.sockets
    }

    /// The number of the generation that it took over from.
    pub fn took_over_from(&self) -> Option<u64> {
        self.0.took_over
    }

    /// How long the transfer of sockets, state and counters from that generation took. `None` if nothing was
    /// transferred.
    pub fn transfer_time(&self) -> Option<Duration> {
        self.0.transfer_us.map(Duration::from_micros)
    }

    /// Whether its launcher starts the next generation itself: see
    /// [`Config::reload_signals`](crate::Config::reload_signals).
    pub fn restarts_in_place(&self) -> bool {
        self.0.in_place
    }

    /// How many restarts in place have failed since it serves.
    pub fn failed_restarts(&self) -> u64 {
        self.0.failures
    }

    /// Why the last of those failed.
    pub fn last_failure(&self) -> Option<&str> {
        self.0.failure.as_deref()
    }

    /// Why no restart is possible from here; `None` also while it does not serve.
    pub fn no_restart(&self) -> Option<&str> {
        self.0.no_restart.as_deref()
    }

    /// How long its [probation](crate::Config::probation) still lasts; `None` if it is not on probation. Zero means
    /// that it is passed, and the record does not say so yet.
    pub fn probation_left(&self) -> Option<Duration> {
        self.0.probation_ms.map(Duration::from_millis)
    }

    /// How long a process still waits in [`init`](crate::init) whose program file has failed in its
    /// [probation](crate::Config::probation): then the file is tried again. `None` if no process waits for this
    /// generation.
    pub fn next_try(&self) -> Option<Duration> {
        self.0.next_try_ms.map(Duration::from_millis)
    }

    /// The PID of that process.
    pub fn candidate(&self) -> Option<i32> {
        self.0.candidate
    }

    /// Its [`drain_timeout`](crate::Config::drain_timeout); `None` means no limit, or unknown.
    pub fn drain_timeout(&self) -> Option<Duration> {
        self.0.drain_timeout_ms.map(Duration::from_millis)
    }
}

/// A socket that a daemon holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Socket {
    /// `tcp`, `udp`, `unix` or `unix-datagram`.
    pub kind: &'static str,
    /// The address that it is bound to. In a path that is not printable, bytes are written as `%XX`.
    pub address: String,
    /// The name that the program asked for it by.
    pub name: Option<String>,
    /// Its place in its group of sockets on one port, from 0. It is 0 for a socket without a group.
    pub member: u32,
    /// Whether new connections go to other members of the group only.
    pub retired: bool,
}

impl Socket {
    fn of(held: &frame::Socket) -> Socket {
        let frame::Socket { kind, asked, name, member, retired, local, .. } = held;
        // A path may have been bound under another name.
        let address = if unix_path::path_of(asked).is_some() { asked } else { local };
        Socket {
            kind: kind.name(),
            address: match address {
                Address::Unix(bytes) if bytes.is_empty() => "unnamed".to_owned(),
                address => address.to_string(),
            },
            name: name.clone(),
            member: *member,
            retired: *retired,
        }
    }
}
