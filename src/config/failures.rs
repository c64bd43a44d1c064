//! What happens if a version fails.

use super::Config;
use std::time::Duration;

impl Config {
    /// For how long a keeper holds the sockets after a crash. Default: 10 s.
    ///
    /// If a daemon that has [`started`](crate::started) dies of a signal or exits with a code other than 0,
    /// and nobody has stopped the service, its launcher starts a keeper before it ends: a small process
    /// that holds the listening and UDP sockets and accepts nothing. New connections wait in the queues
    /// instead of being refused. The next start takes the sockets over from the keeper, and the keeper
    /// ends. The connections that the daemon had accepted are lost with it.
    ///
    /// The time counts from the first crash in a row. A row ends when a generation has served for 10 s. So
    /// the port of a service that crashes at each start does not look healthy for ever. When the time is
    /// over, when the supervisor wants the service down, or when the supervisor has ended, the keeper ends,
    /// and connections are refused as without it.
    ///
    /// A queue that is full drops new TCP connections, and clients try again by themselves. With the
    /// `tcp_abort_on_overflow` setting of the kernel it resets them. At a Unix socket a blocking client
    /// waits, and a nonblocking one gets EAGAIN.
    ///
    /// `None` (or zero): no keeper. This is better behind a load balancer with other backends: during the
    /// restart the port would look healthy and be silent, while another backend could answer.
    ///
    /// More in [the guide](crate::guide::crashes), also about when there is no keeper.
    pub fn keep_sockets(mut self, time: impl Into<Option<Duration>>) -> Config {
        self.settings.keep_sockets = time.into().filter(|time| !time.is_zero());
        self
    }
}
