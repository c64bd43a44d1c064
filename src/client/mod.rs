//! A service as it is seen from outside: for deploy tools and for monitoring. The program `seamless`
//! is built on this module.
//!
//! A service is named by its PID file. Run this as the service's user or as root, in the service's
//! PID namespace.
//!
//! ```no_run
//! use seamless::client::Service;
//! use std::time::Duration;
//!
//! let service = Service::at("/run/web/web.pid")?;
//! let (look, status) = service.status(Duration::from_secs(5));
//! for older in look.older() {
//!     println!("generation {} still drains", older.number());
//! }
//! match status {
//!     Ok(status) if status.state().serves() => println!("it serves"),
//!     Ok(_) => println!("it does not serve"),
//!     Err(why) => println!("no answer: {why}"),
//! }
//! # Ok::<(), seamless::Error>(())
//! ```
//!
//! # What is believed
//!
//! Any process can write a number into a file. So a generation that the record (`web.pid.lock`)
//! lists is looked at, asked or signalled only if a pidfd and the start time prove that the process
//! is the listed one. If the record belongs to a user other than root and other than us, it is
//! believed only for processes of that user. An answer from the control socket (`web.pid.sock`)
//! counts only if the process that listens there is the proven one. See `pidfd_open(2)`,
//! `proc_pid_stat(5)` and SO_PEERCRED in `unix(7)`.
//!
//! No call of this module panics.

mod ask;
mod check;
mod counters;
mod find;
mod history;
mod look;
mod outcome;
mod rejected;
mod service;
mod status;
mod supervisor;

pub use ask::NoAnswer;
pub use check::{Check, Finding, Report, Severity};
pub use counters::Counter;
pub use find::Found;
pub use history::History;
pub use look::{Generation, Look, Proof};
pub use outcome::{Outcome, Restart};
pub use rejected::Rejected;
pub use service::Service;
pub use status::{Socket, Status};
pub use supervisor::{Supervisor, Wish};
