//! A check: what others see of this service. What follows from it is decided by the daemon's machine.

use super::{Examined, Files, Service, facts, is_shortage, look_failed};
use crate::driver::control::Server;
use crate::driver::log::{self, daemon::Event};
use crate::driver::shared::PROCESS;
use crate::error::{Error, Result};
use crate::proto::daemon::Sight;
use crate::proto::flows;
use crate::proto::generation::check::{Own, Seen, names_newer};
use crate::proto::generation::record::{Generation, LineState};
use crate::shutdown::lock;
use crate::sys::lock_file::Attempt;
use crate::sys::pid_file::{self, PidFile};
use crate::sys::proc;

impl Service {
    /// Takes the claim if it is free, and looks. With [`Sight::Seen`] the claim is held until
    /// [`give_up_claim`](Service::give_up_claim).
    pub(in crate::driver) fn check(&self) -> (Sight, Option<Error>) {
        let mut files = lock(&self.files);
        let seen = match files.lock_file.try_claim(&self.world) {
            Ok(Attempt::HeldBy(_)) => return (Sight::ClaimHeld, None),
            Ok(Attempt::Claimed) => self.look(&files),
            Err(error) => Err(error),
        };
        match seen {
            Ok(seen) => (Sight::Seen(seen), None),
            Err(error) => {
                files.lock_file.give_up_if_held();
                let sight = match is_shortage(&error) {
                    true => Sight::Unknown,
                    false => Sight::NoRecord { newer: self.is_taken_over() },
                };
                (sight, Some(error))
            }
        }
    }

    fn look(&self, files: &Files) -> Result<Seen> {
        let record = self.read_record(&files.lock_file)?;
        let content = self.content()?;
        let others = self.examine_with(files, &record, content.unwrap_or_default())?;
        let named_lives = match content.and_then(|content| content.pid) {
            None => false,
            Some(pid) => {
                proc::try_identity(pid).map_err(|error| look_failed(pid, error))?.is_some()
            }
        };
        let line = |one: Examined| (one.generation.daemon, one.facts);
        Ok(Seen {
            own: Own { number: self.number().unwrap_or(0), identity: self.identity },
            last: record.last,
            lines: others.into_iter().map(line).collect(),
            content,
            named_lives,
            socket_lost: PROCESS.server.get().is_some_and(Server::has_lost_its_path),
        })
    }

    /// Without the record, only the PID file tells of a newer generation.
    fn is_taken_over(&self) -> bool {
        let content = pid_file::read(&self.pid_file).unwrap_or_default();
        names_newer(self.identity, content, content.pid.and_then(proc::identity))
    }

    /// Does something under the claim, unless a newer generation serves. `false`: another one holds the claim,
    /// so it has to be tried again. Guards against two generations that both take themselves for the newest.
    pub(in crate::driver) fn while_newest(&self, act: impl FnOnce()) -> Result<bool> {
        let looked = self.under_claim(|files| {
            let (_, others) = self.look_at_all(files)?;
            if flows::is_newest(self.number().unwrap_or(0), facts(&others)) {
                act();
            }
            Ok(())
        });
        Ok(looked?.is_some())
    }

    /// Under the claim.
    pub(in crate::driver) fn enter_again(&self, state: LineState) -> Result<()> {
        let files = lock(&self.files);
        let mut record = self.read_record(&files.lock_file)?;
        let number = self.number().unwrap_or(0);
        log::write(Event::RecordPutBack { generation: number, path: files.lock_file.path() });
        // If the file fails in the probation, the record names it.
        let file = state.is_unproven().then(proc::own_program).flatten();
        record.live.push(Generation { file, ..self.entry(number, Some(state)) });
        record.last = record.last.max(number);
        files.lock_file.write(&record)
    }

    /// Under the claim.
    pub(in crate::driver) fn put_back_file(&self) -> Result<()> {
        let mut files = lock(&self.files);
        files.pid_file = Some(PidFile::install(&self.pid_file)?);
        log::write(Event::PidFilePutBack { path: &self.pid_file });
        Ok(())
    }

    pub(in crate::driver) fn give_up_claim(&self) {
        lock(&self.files).lock_file.give_up_if_held();
    }
}
