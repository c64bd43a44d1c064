//! The control socket, `web.pid.sock`: what is said there.

pub(crate) mod frame;
pub(crate) mod passing;
pub(crate) mod status;
pub(crate) mod transfer;
