//! The claim: one generation starts at a time, and each claim takes the next number.

use super::{Examined, Files, Service};
use crate::driver::log::{self, daemon::Event};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::generation::record::{LineState, Record};
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
            let left = |limit: Duration| limit.saturating_sub(began.elapsed());
            let left = self.claim_timeout.map_or(Duration::MAX, left);
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

    /// Does something under the claim if it is free, and gives it up. `None`: another process holds it, or another
    /// thread of ours.
    pub(super) fn under_claim<T>(
        &self,
        act: impl FnOnce(&mut Files) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut files = lock(&self.files);
        if files.lock_file.is_held() {
            return Ok(None);
        }
        match files.lock_file.try_claim(&self.world)? {
            Attempt::HeldBy(_) => return Ok(None),
            Attempt::Claimed => {}
        }
        let done = act(&mut files);
        files.lock_file.give_up_if_held();
        done.map(Some)
    }

    /// Under the claim.
    fn take_number(&self, files: &mut Files, began: Instant) -> Result<u64> {
        let taken = self.read_record(&files.lock_file).and_then(|mut record| {
            self.refuse_if_too_many(files, &record)?;
            if record.live.iter().any(|line| line.state == Some(LineState::Probation)) {
                let others = self.examine_all(files, &record)?;
                Service::book_failed(&mut record, &others);
            }
            record.book_failed_start(self.identity, &self.world);
            record.last += 1;
            record.starting = Some(self.entry(record.last, None));
            files.lock_file.write(&record).map(|()| record.last)
        });
        let number = taken.inspect_err(|_| files.lock_file.give_up_if_held())?;
        self.number.store(number, Ordering::SeqCst);
        log::write(Event::Claim {
            generation: number,
            launcher: self.launcher,
            elapsed_ms: began.elapsed(),
        });
        Ok(number)
    }

    fn refuse_if_too_many(&self, files: &Files, record: &Record) -> Result<()> {
        let Some(crowd) = self.crowd.filter(|crowd| crowd.may_refuse(self.in_place)) else {
            return Ok(());
        };
        let others = self.examine_all(files, record)?;
        let others: Vec<_> = others.iter().map(Examined::draining).collect();
        if crowd.has_room(&others) {
            return Ok(());
        }
        let text = format!(
            "cannot start (max_draining): {} generations or more still answer what is in flight",
            crowd.most
        );
        let hint = "wait until one has ended, or end one by USR2; seamless status lists them";
        Err(Error::new(ErrorKind::TooManyDraining, text).hint(hint))
    }
}
