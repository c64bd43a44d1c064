//! The claim: one generation starts at a time, and each claim takes the next number.

use super::{Files, Service};
use crate::driver::log::{self, daemon::Event};
use crate::error::{Error, ErrorKind, Result};
use crate::shutdown::lock;
use crate::sys::lock_file::Attempt;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

/// The pauses between attempts to claim: from, to.
const CLAIM_PAUSE: (Duration, Duration) = (Duration::from_micros(500), Duration::from_millis(20));

impl Service {
    /// Waits for the claim and takes the next number. Guards against two generations that start at
    /// once and would each take itself for the newest.
    pub(in crate::driver) fn claim(&self) -> Result<u64> {
        let began = Instant::now();
        let mut pause = CLAIM_PAUSE.0;
        let mut said = None;
        loop {
            let mut files = lock(&self.files);
            let holder = match files.lock_file.try_claim(&self.world)? {
                Attempt::Claimed => return self.take_number(&mut files, began),
                Attempt::HeldBy(holder) => holder,
            };
            let path = files.lock_file.path().to_owned();
            drop(files); // not while sleeping: a stop has to read the record
            if said != Some(holder) {
                said = Some(holder);
                log::write(Event::ClaimHeld { holder, path: &path });
            }
            let left = match self.claim_timeout {
                None => Duration::MAX,
                Some(limit) => limit.saturating_sub(began.elapsed()),
            };
            if left.is_zero() {
                return Err(Error::new(
                    ErrorKind::ClaimTimeout,
                    format!(
                        "cannot lock {path:?} (claim): process {holder} is starting, and holds it for \
                         longer than claim_timeout ({:?})",
                        self.claim_timeout.unwrap_or_default(),
                    ),
                ));
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(CLAIM_PAUSE.1);
        }
    }

    /// Under the claim.
    fn take_number(&self, files: &mut Files, began: Instant) -> Result<u64> {
        let taken = self.read_record(&files.lock_file).and_then(|mut record| {
            record.last += 1;
            record.starting = Some(self.entry(record.last, None));
            files.lock_file.write(&record).map(|()| record.last)
        });
        let number = taken.inspect_err(|_| files.lock_file.give_up())?;
        self.number.store(number, Ordering::SeqCst);
        log::write(Event::Claim {
            generation: number,
            launcher: self.launcher,
            elapsed_ms: began.elapsed(),
        });
        Ok(number)
    }
}
