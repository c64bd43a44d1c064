//! The sockets of a generation: which it has, and which were passed to it.

pub(crate) mod changes;
pub(crate) mod fdstore;
pub(crate) mod fresh;
pub(crate) mod overlap;
pub(crate) mod passed;
pub(crate) mod pool;
