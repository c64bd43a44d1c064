//! The guide: how a restart works, what each supervisor needs, and how to come from another library.
//!
//! | page | what it tells |
//! | --- | --- |
//! | [protocol] | each stage of a restart, the files, the signals, and who may signal whom |
//! | [supervisors] | daemontools, runit, s6, systemd, supervisord, OpenRC, containers |
//! | [containers] | PID 1, wrappers, STOPSIGNAL, Docker, Kubernetes, Podman, s6-overlay |
//! | [hardening] | which settings of systemd's sandbox are fine, and which need what |
//! | [sockets] | which way to keep the sockets, and how they move to the successor |
//! | [proxies] | behind nginx and haproxy; clients that reuse connections; request bodies |
//! | [command] | the program `seamless` |
//! | [log] | all lines of the log, and what an operator does |
//! | [limitations] | what the crate cannot do |
//! | [testing] | how it is tested, and what was found |
//! | [benchmarks] | what was measured |
//!
//! From another library: [rs/seamless](from_seamless), [endless](from_endless), [grace](from_grace),
//! [graceful](from_graceful), [tableflip](from_tableflip), [shellflip](from_shellflip),
//! [ecdysis](from_ecdysis).
//!
//! The guide exists in the documentation only.

#[doc = include_str!("protocol.md")]
pub mod protocol {}

#[doc = include_str!("supervisors.md")]
pub mod supervisors {}

#[doc = include_str!("containers.md")]
pub mod containers {}

#[doc = include_str!("hardening.md")]
pub mod hardening {}

#[doc = include_str!("sockets.md")]
pub mod sockets {}

#[doc = include_str!("proxies.md")]
pub mod proxies {}

#[doc = include_str!("command.md")]
pub mod command {}

#[doc = include_str!("log.md")]
pub mod log {}

#[doc = include_str!("limitations.md")]
pub mod limitations {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("benchmarks.md")]
pub mod benchmarks {}

/// From Go's rs/seamless, whose protocol this crate has.
#[doc = include_str!("seamless.md")]
pub mod from_seamless {}

/// From fvbock/endless (Go).
#[doc = include_str!("endless.md")]
pub mod from_endless {}

/// From facebookgo/grace (Go).
#[doc = include_str!("grace.md")]
pub mod from_grace {}

/// From tylerb/graceful (Go).
#[doc = include_str!("graceful.md")]
pub mod from_graceful {}

/// From cloudflare/tableflip (Go).
#[doc = include_str!("tableflip.md")]
pub mod from_tableflip {}

/// From shellflip (Rust).
#[doc = include_str!("shellflip.md")]
pub mod from_shellflip {}

/// From ecdysis (Rust).
#[doc = include_str!("ecdysis.md")]
pub mod from_ecdysis {}
