//! Acts on the system and decides nothing. Only files in here use nix, signal-hook, fs2, the environment
//! and `std::process`; only `raw` and `raw_linux` have unsafe code. `raw_linux` is also the only one that
//! names what only Linux has.

pub(crate) mod counters;
pub(crate) mod descriptor;
pub(crate) mod launch;
pub(crate) mod lock_file;
pub(crate) mod memfd;
mod notes;
pub(crate) mod notification_fd;
pub(crate) mod passed;
pub(crate) mod pattern;
pub(crate) mod pid_file;
pub(crate) mod proc;
pub(crate) mod process;
mod raw;
pub(crate) mod reuseport;
pub(crate) mod rlimit;
#[cfg(feature = "systemd")]
pub(crate) mod sd_notify;
pub(crate) mod seqpacket;
pub(crate) mod shortage;
pub(crate) mod signals;
pub(crate) mod socket;
pub(crate) mod stdio;
pub(crate) mod supervisor;
#[cfg(feature = "command")]
pub(crate) mod surroundings;
pub(crate) mod systemctl;
// `seamless_portable` is for tests: what other systems get, on Linux.
#[cfg_attr(any(seamless_portable, not(target_os = "linux")), path = "raw_elsewhere.rs")]
#[cfg_attr(not(any(seamless_portable, not(target_os = "linux"))), path = "raw_linux.rs")]
mod system;
pub(crate) mod unix_path;
pub(crate) mod wait;
mod way_up;

pub(crate) use raw::exit_now;
pub(crate) use system::{RESTARTS, random, since_boot};
