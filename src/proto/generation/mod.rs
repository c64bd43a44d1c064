//! A generation among others: the record of all that live, whom it may touch, how it takes over, and
//! what it checks.

pub(crate) mod bookings;
pub(crate) mod check;
pub(crate) mod clock;
pub(crate) mod crashes;
pub(crate) mod crowd;
pub(crate) mod lines;
pub(crate) mod proof;
pub(crate) mod record;
pub(crate) mod rejection;
pub(crate) mod takeover;
pub(crate) mod tally;
pub(crate) mod verdict;
