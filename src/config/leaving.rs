//! What a stop does before the drain.

use super::Config;
use std::time::Duration;

impl Config {
    /// How long this generation serves on after it was told to stop, before its drain begins. Default: `None`,
    /// the drain begins at once.
    ///
    /// A load balancer learns only after some time that a server is about to end: by its next health check, or
    /// (in Kubernetes) when each node has heard that the endpoint is gone. Until then it sends new connections.
    /// During this time everything is served on, [`state`](crate::state) is
    /// [`Leaving`](crate::State::Leaving), and [`http::health`](crate::http::health) answers 503 instead of
    /// 200. So set it a little longer than the balancer needs: the interval of its health checks times the
    /// number of failures that it waits for, or some 10 s in Kubernetes.
    ///
    /// It is about a *stop* only, never about a restart: a successor that serves, or a restart in place, begins
    /// the drain at once. So do a second TERM, and a USR2 by hand. Older generations that still drain, or that
    /// [stand by](crate::State::Standby), end at once. A daemon without a launcher that sees that its service
    /// is to be down serves on for this time as well. If the crate is disabled (an empty PID path), each TERM
    /// and INT is a stop.
    ///
    /// **The whole stop** takes this time and then the drain. [`drain_timeout`](Config::drain_timeout) counts from
    /// the beginning of the drain. Under systemd `TimeoutStopSec=` bounds both together, and the drain has
    /// priority:
    ///
    /// - If the drain has a limit, systemd is asked for more time (feature `systemd`).
    /// - If it has none, or without that feature, this time is cut, and the log says so: half of
    ///   `TimeoutStopSec=`, or the limit of the drain, is left for the drain.
    ///
    /// The grace of a container (`docker stop`, `terminationGracePeriodSeconds`) cannot be read, and neither can
    /// `stopwaitsecs=` of supervisord: set this time and `drain_timeout` so that their sum is below it.
    /// `timeout-kill` of s6 is read when a generation starts.
    pub fn leave_time(mut self, time: impl Into<Option<Duration>>) -> Config {
        self.settings.leave_time = time.into().filter(|time| !time.is_zero());
        self
    }
}
