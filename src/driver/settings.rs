//! The values that a program has configured, as [`Config`](crate::Config) gathers them.

use crate::proto::TooMany;
use crate::proto::generation::crowd::Crowd;
use crate::shutdown::Hook;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

/// Gives a state that a successor gets.
pub(crate) struct HandOver {
    pub(crate) name: String,
    pub(crate) version: u32,
    pub(crate) give: Box<dyn FnMut() -> Vec<u8> + Send>,
}

/// Gives variables for the environment of the next generation.
pub(crate) type Environment = Box<dyn FnMut() -> Vec<(OsString, OsString)> + Send>;

/// Asks the program whether it is well.
pub(crate) type Check = Box<dyn FnMut() -> bool + Send>;

/// What each means is told by the method of `Config` that has its name.
pub(crate) struct Settings {
    pub(crate) pid_file: PathBuf,
    pub(crate) handoff_timeout: Duration,
    pub(crate) successor_timeout: Option<Duration>,
    pub(crate) claim_timeout: Option<Duration>,
    pub(crate) drain_timeout: Option<Duration>,
    pub(crate) leave_time: Option<Duration>,
    pub(crate) takeover_timeout: Duration,
    pub(crate) keep_sockets: Option<Duration>,
    pub(crate) probation: Option<Duration>,
    pub(crate) probation_check: Option<Check>,
    pub(crate) release_signal: i32,
    pub(crate) reload_signals: Vec<i32>,
    pub(crate) max_draining: Option<usize>,
    pub(crate) signals_to_all: Vec<i32>,
    pub(crate) working_dir: Option<PathBuf>,
    pub(crate) environment: Option<Environment>,
    pub(crate) too_many_draining: Option<TooMany>,
    pub(crate) parent_restarts: Option<bool>,
    pub(crate) release_code: i32,
    pub(crate) notification_fd: Option<RawFd>,
    pub(crate) replace_output: bool,
    pub(crate) on_launch: Vec<Hook>,
    pub(crate) keep_open: Vec<RawFd>,
    pub(crate) hand_over: Vec<HandOver>,
    #[cfg(feature = "systemd")]
    pub(crate) watchdog: Option<Check>,
}

impl Settings {
    pub(crate) fn crowd(&self) -> Option<Crowd> {
        self.max_draining.map(|most| Crowd { most, then: self.too_many_draining })
    }

    /// With every default.
    pub(crate) fn new(pid_file: PathBuf) -> Settings {
        Settings {
            pid_file,
            handoff_timeout: Duration::from_secs(10),
            successor_timeout: Some(Duration::from_secs(10)),
            claim_timeout: Some(Duration::from_secs(60)),
            drain_timeout: None,
            leave_time: None,
            takeover_timeout: Duration::from_secs(5),
            keep_sockets: Some(Duration::from_secs(10)),
            probation: None,
            probation_check: None,
            release_signal: crate::sys::signals::SIGCHLD,
            reload_signals: Vec::new(),
            max_draining: Some(8),
            signals_to_all: Vec::new(),
            working_dir: None,
            environment: None,
            too_many_draining: None,
            parent_restarts: None,
            release_code: 0,
            notification_fd: None,
            replace_output: true,
            on_launch: Vec::new(),
            keep_open: Vec::new(),
            hand_over: Vec::new(),
            #[cfg(feature = "systemd")]
            watchdog: None,
        }
    }

    /// Without a PID file the crate does nothing but drain.
    pub(crate) fn is_disabled(&self) -> bool {
        self.pid_file.as_os_str().is_empty()
    }
}
