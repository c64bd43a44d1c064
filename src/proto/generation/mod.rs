//! A generation among others: the record of all that live, whom it may touch, and how it takes over.

pub(crate) mod record;
pub(crate) mod takeover;
