//! Acts on the system, and decides nothing. nix, signal-hook, fs2, the environment and
//! `std::process` appear here alone; unsafe code in `raw` alone.

pub(crate) mod channel;
pub(crate) mod claim;
#[cfg(feature = "sockets")]
pub(crate) mod handover;
pub(crate) mod launch;
#[cfg(feature = "command")]
pub(crate) mod look;
pub(crate) mod notification;
#[cfg(feature = "systemd")]
pub(crate) mod notify;
pub(crate) mod output;
pub(crate) mod pid_file;
pub(crate) mod process;
mod raw;
pub(crate) mod signals;
#[cfg(feature = "command")]
pub(crate) mod site;
#[cfg(feature = "sockets")]
pub(crate) mod socket;
pub(crate) mod supervisor;
pub(crate) mod systemd;
pub(crate) mod wait;

pub(crate) use raw::exit_now;
#[cfg(feature = "http")]
pub(crate) use raw::reset_on_close;
