//! A keeper among the generations: what it sees under the claim, and its line in the record. And what a start in
//! place has to know of the crash before it.

use super::{Examined, Service};
use crate::error::Result;
use crate::proto::generation::crashes::may_be_of_this_boot;
use crate::proto::generation::lines;
use crate::proto::generation::record::{Generation, LineState, Row};
use crate::proto::keeper::Seen;
use crate::shutdown::lock;
use crate::sys::lock_file::Attempt;
use crate::sys::since_boot;
use std::sync::atomic::Ordering;

impl Service {
    /// In a keeper: it stands for this generation.
    pub(in crate::driver) fn stand_for(&self, generation: u64) {
        self.number.store(generation, Ordering::SeqCst);
    }

    /// Takes the claim if it is free. `None`: another process has it. After an error, the caller gives it up.
    pub(in crate::driver) fn claim_to_keep(&self) -> Result<Option<Seen>> {
        let mut files = lock(&self.files);
        match files.lock_file.try_claim(&self.world)? {
            Attempt::HeldBy(_) => return Ok(None),
            Attempt::Claimed => {}
        }
        let (record, others) = self.look_at_all(&files)?;
        let is_ours = |one: &Generation| Some(one.number) == self.number();
        let mut lines = record.live.iter();
        let crashed = lines.find(|one| is_ours(one) && may_be_of_this_boot(one, &self.world));
        Ok(Some(Seen {
            others: others.iter().map(|one| (one.generation.state, one.facts.lives())).collect(),
            crashes: crashed.and_then(|line| line.crashes),
            now: since_boot(),
        }))
    }

    /// Under the claim: the keeper takes the place of the generation that has crashed.
    pub(in crate::driver) fn enter_as_keeper(&self, crashes: Row) -> Result<()> {
        let files = lock(&self.files);
        let mut record = self.read_record(&files.lock_file)?;
        let line = self.entry(self.number().unwrap_or(0), Some(LineState::Keeping));
        record.enter_keeper(Generation { crashes: Some(crashes), ..line });
        files.lock_file.write(&record)
    }

    /// Under a launcher that restarts in place: the number of the daemon that it had before us, if that one
    /// has ended without a drain. The launcher gives us what it holds of its sockets.
    pub(in crate::driver) fn crashed_sibling(&self) -> Result<Option<u64>> {
        if !self.in_place {
            return Ok(None);
        }
        let (_, all) = self.look_at_all(&lock(&self.files))?;
        let is_sibling = |one: &&Examined| one.generation.launcher == self.launcher_identity;
        let siblings = all.iter().filter(is_sibling);
        Ok(lines::crashed_sibling(siblings.map(|one| &one.facts)))
    }
}
