//! Restarts as such: what was accepted is answered, the newest generation serves, bad deploys cost no
//! request, and nothing leaks. Restarts in place, options, hooks and calls are here too.

mod blocked;
mod calls;
mod candidates;
pub(crate) mod crashes;
pub(crate) mod deploys;
mod drain;
mod hooks;
mod in_flight;
mod in_place;
pub(crate) mod leaks;
mod limits;
mod nohup;
mod options;
mod order;
mod prepared;
mod probation;
mod program_file;
mod programs;
mod releases;
mod shortage;
mod told;
mod window;
mod wishes;
