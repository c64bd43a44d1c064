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

    /// How long a new generation has to prove itself before its predecessor ends. Default: `None`, no
    /// probation.
    ///
    /// Without a probation the predecessor drains as soon as the new generation has
    /// [`started`](crate::started). If the new version then crashes at its hundredth request, nobody is left
    /// who could serve.
    ///
    /// With a probation the predecessor [stands by](crate::State::Standby) for this time. If the new
    /// generation dies, exits (with code 0, too), is found unhealthy by
    /// [`probation_check`](Config::probation_check) or is ended by hand, the predecessor serves again at once,
    /// and no connection is refused. What is lost is what the new generation had accepted. If it passes, or
    /// calls [`commit`](crate::commit), its predecessor drains as in any restart.
    ///
    /// A program file that has failed is not tried again in a tight loop: [`init`](crate::init) waits in it for
    /// 2, 4, 8 … 64 s, as long as a proven generation serves. A file that was changed does not wait.
    ///
    /// The setting of the new generation counts. Its predecessor must have this crate in a version that knows
    /// probations, and the system must have pidfds; otherwise the new generation is proven at once. So is the
    /// first generation of a service.
    ///
    /// During a probation two generations need memory, and data that both change must bear it. State that was
    /// [handed over](Config::hand_over) does not come back. [The guide](crate::guide::probation) has the
    /// details.
    pub fn probation(mut self, time: impl Into<Option<Duration>>) -> Config {
        self.settings.probation = time.into().filter(|time| !time.is_zero());
        self
    }

    /// A check of whether the program works, asked each second of a [`probation`](Config::probation), the first
    /// time after one second, on a thread of the crate. If it returns `false`, panics or gives no answer within
    /// 5 s, the probation has failed: the predecessor serves again, and this generation drains
    /// ([`DrainReason::RolledBack`](crate::DrainReason::RolledBack)). A probation whose time is over waits for an
    /// answer that is still due; [`commit`](crate::commit) does not.
    pub fn probation_check(mut self, check: impl FnMut() -> bool + Send + 'static) -> Config {
        self.settings.probation_check = Some(Box::new(check));
        self
    }
}
