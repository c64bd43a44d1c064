//! What each kind of supervisor sees and does: s6, supervisord, OpenRC, containers; each command at each
//! stage; and what clients see under each.

pub(crate) mod clients;
mod commands;
pub(crate) mod containers;
mod namespaces;
mod notify;
pub(crate) mod openrc;
mod runit;
mod s6;
mod status;
pub(crate) mod supervisord;
mod wrappers;
