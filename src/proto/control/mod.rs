//! The control socket, `web.pid.sock`: what is said there.

pub(crate) mod frame;
#[cfg_attr(not(feature = "command"), allow(dead_code))] // the command reads what is written
pub(crate) mod status;
pub(crate) mod transfer;
