//! The guide: how a restart works, what each supervisor needs, and how to come from another library.
//!
//! | page | what it tells |
//! | --- | --- |
//! | [protocol] | the promises, each stage of a restart, the files, the signals, and who may signal whom |
//! | [deploying] | the features, examples to copy from, a walk through a restart, a new version |
//! | [supervisors] | daemontools, runit, s6, systemd, supervisord, OpenRC: what each command does, what clients see |
//! | [containers] | PID 1, wrappers, STOPSIGNAL, Docker, Kubernetes, Podman, s6-overlay |
//! | [hardening] | which settings of systemd's sandbox are fine, and which need what |
//! | [releases] | links, packages, the environment: which program the next generation runs |
//! | [fleet] | many services: metrics, alerts, Ansible, and what a deploy of a fleet costs |
//! | [command] | the program `seamless` |
//! | [signals] | what each signal does, to the launcher and to a daemon |
//! | [log] | all lines of the log, and what to do about each |
//! | [http] | HTTP servers that drain |
//! | [proxies] | behind nginx and haproxy; clients that reuse connections; request bodies |
//! | [frameworks] | axum, tonic, actix-web, hyper, warp, poem, salvo, Rocket, pingora, and servers without a framework |
//! | [programs] | programs with tokio, tracing, anyhow and clap |
//! | [sockets] | which way to keep the sockets, and how they move to the successor |
//! | [datagrams] | QUIC, DTLS, WebRTC, games and DNS: how flows over UDP stay with their process |
//! | [state] | state, files, locks and other descriptors that move to the successor |
//! | [connections] | open connections that move to the successor |
//! | [probation] | if a new version fails, its predecessor serves again |
//! | [crashes] | what clients see of a crash, and the keeper that holds the sockets |
//! | [limitations] | what the crate cannot do |
//! | [development] | tests, terminals, debuggers, and what the log warns of |
//! | [testing] | how it is tested, and what was found |
//! | [benchmarks] | what was measured |
//! | [migration] | from rs/seamless, endless, grace, graceful, tableflip, shellflip or ecdysis |
//!
//! The guide is a part of the documentation only, not of the library.

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

#[doc = include_str!("datagrams.md")]
pub mod datagrams {}

#[doc = include_str!("state.md")]
pub mod state {}

#[doc = include_str!("connections.md")]
pub mod connections {}

#[doc = include_str!("proxies.md")]
pub mod proxies {}

#[doc = include_str!("http.md")]
pub mod http {}

#[doc = include_str!("crashes.md")]
pub mod crashes {}

#[doc = include_str!("programs.md")]
pub mod programs {}

#[doc = include_str!("probation.md")]
pub mod probation {}

#[doc = include_str!("command.md")]
pub mod command {}

#[doc = include_str!("fleet.md")]
pub mod fleet {}

#[doc = include_str!("releases.md")]
pub mod releases {}

#[doc = include_str!("signals.md")]
pub mod signals {}

#[doc = include_str!("deploying.md")]
pub mod deploying {}

#[doc = include_str!("log.md")]
pub mod log {}

#[doc = include_str!("frameworks.md")]
pub mod frameworks {}

#[doc = include_str!("development.md")]
pub mod development {}

#[doc = include_str!("limitations.md")]
pub mod limitations {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("benchmarks.md")]
pub mod benchmarks {}

#[doc = include_str!("migration.md")]
pub mod migration {
    /// From Go's rs/seamless, whose protocol this crate has.
    #[doc = include_str!("migration/seamless.md")]
    pub mod seamless {}

    /// From fvbock/endless (Go).
    #[doc = include_str!("migration/endless.md")]
    pub mod endless {}

    /// From facebookgo/grace (Go).
    #[doc = include_str!("migration/grace.md")]
    pub mod grace {}

    /// From tylerb/graceful (Go).
    #[doc = include_str!("migration/graceful.md")]
    pub mod graceful {}

    /// From cloudflare/tableflip (Go).
    #[doc = include_str!("migration/tableflip.md")]
    pub mod tableflip {}

    /// From shellflip (Rust).
    #[doc = include_str!("migration/shellflip.md")]
    pub mod shellflip {}

    /// From ecdysis (Rust).
    #[doc = include_str!("migration/ecdysis.md")]
    pub mod ecdysis {}
}
