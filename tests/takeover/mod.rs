//! Who takes over from whom, whatever stands in the files, and whoever is stopped or killed on the way.

mod claim;
mod copies;
mod files;
mod hidden;
pub(crate) mod kills;
mod original;
mod pid_file;
mod predecessor;
mod stopped;
