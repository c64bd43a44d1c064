//! The clock of the record.

use std::time::Duration;

/// A time: since boot, suspensions included (`CLOCK_BOOTTIME`).
pub(crate) type SinceBoot = Duration;
