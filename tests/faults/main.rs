//! Crashes and faults at every step, with real processes: what is left then, and who is not hurt.
//!
//! A test of a promise is named after it, `p<N>_…`. Each runs in a box.

mod clock;
mod disk;
mod hostile;
mod injected;
mod passing;
mod pids;
mod probation;
mod slow;
mod stopped;
mod sweep;
