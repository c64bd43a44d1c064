//! Who watches a launcher, and is told how the service is.

#[cfg(not(feature = "systemd"))]
#[path = "silent.rs"]
pub(super) mod systemd;
#[cfg(feature = "systemd")]
pub(super) mod systemd;
