//! To which generation connections are passed, and from which one they are accepted.

use super::{Examined, Service, facts};
use crate::error::Result;
use crate::proto::control::passing::{room, successor};
use crate::proto::generation::record::Generation;
use crate::shutdown::lock;
use crate::sys::process::Held;
use crate::sys::{proc, rlimit};

/// A generation that cannot be mistaken for another process.
pub(in crate::driver) struct Proven {
    pub(in crate::driver) number: u64,
    pub(in crate::driver) pid: i32,
    pub(in crate::driver) held: Held,
}

impl Service {
    /// The generation to which this one passes its connections.
    pub(in crate::driver) fn successor(&self) -> Result<Option<Proven>> {
        let others = self.others(|_| true)?;
        let Some(own) = self.number() else { return Ok(None) };
        let number = successor(own, facts(&others)).map(|one| one.number);
        Ok(others.into_iter().find(|one| Some(one.facts.number) == number).and_then(proven))
    }

    /// Makes room for the descriptors of connections that a predecessor may pass, before this process has threads:
    /// from then on the kernel waits for all processors when the table grows, while the predecessor waits as well.
    pub(in crate::driver) fn make_room(&self) {
        let Ok((record, _)) = lock(&self.files).lock_file.read() else { return };
        let sizes = record.live.iter().filter_map(|one| proc::table_size(one.daemon.pid));
        rlimit::make_room_for_table(room(sizes));
    }

    /// This process, if it is the other generation with this number.
    pub(in crate::driver) fn other(&self, number: u64, pid: i32) -> Result<Option<Proven>> {
        let is_it = |line: &Generation| line.number == number && line.daemon.pid == pid;
        Ok(self.others(is_it)?.into_iter().find_map(proven))
    }

    /// Without the claim: a generation that starts may hold it for long.
    pub(super) fn others(&self, is_wanted: impl Fn(&Generation) -> bool) -> Result<Vec<Examined>> {
        let own = self.number();
        let files = lock(&self.files);
        let mut record = self.read_record(&files.lock_file)?;
        record.live.retain(|line| Some(line.number) != own && is_wanted(line));
        self.examine_all(&files, &record)
    }
}

fn proven(one: Examined) -> Option<Proven> {
    one.facts.proof.ok()?;
    let (number, pid) = (one.facts.number, one.pid());
    Some(Proven { number, pid, held: one.held? })
}
