//! What supervisors are, and what they say of a service.

pub(crate) mod notices;
pub(crate) mod supervise;
pub(crate) mod systemd;
