//! Acts on the system, and decides nothing. nix, signal-hook, fs2, the environment and
//! `std::process` appear here alone; unsafe code in `raw` alone.

pub(crate) mod channel;
pub(crate) mod handover;
pub(crate) mod launch;
pub(crate) mod lock_file;
pub(crate) mod notification_fd;
pub(crate) mod pid_file;
#[cfg(feature = "command")]
pub(crate) mod proc;
pub(crate) mod process;
mod raw;
#[cfg(feature = "systemd")]
pub(crate) mod sd_notify;
pub(crate) mod signals;
pub(crate) mod socket;
pub(crate) mod stdio;
pub(crate) mod supervisor;
#[cfg(feature = "command")]
pub(crate) mod surroundings;
pub(crate) mod systemctl;
pub(crate) mod wait;

pub(crate) use raw::exit_now;
