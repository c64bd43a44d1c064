//! Stops: requests in flight are answered, and the service is not reported down before every
//! generation is gone, whenever the stop comes.

pub(crate) mod down;
pub(crate) mod gaps;
mod group;
mod leaving;
