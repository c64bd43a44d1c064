//! Coming from another way to restart: what things are called there, and what they are here.
//!
//! Only in the documentation.

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
