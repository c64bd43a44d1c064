//! The launcher: what it holds, starts, passes on and prints, and what its end does.

mod ends;
mod gone;
mod log_file;
mod output;
mod sandbox;
mod signal_table;
mod signals;
pub(crate) mod start;
