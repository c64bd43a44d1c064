//! A QUIC server whose connections survive restarts, and a client that shows it.
//!
//! `ids` is what a server on quinn has to add, and `sessions` what it adds for early data (0-RTT); `server` is the
//! server; `client` keeps streams running and counts what is lost; `counting` counts packets that reach the wrong
//! process.
#![allow(missing_docs)] // of a program

pub mod client;
pub mod counting;
pub mod ids;
pub mod server;
pub mod sessions;

/// What client and server agree on.
const ALPN: &[u8] = b"echo";
