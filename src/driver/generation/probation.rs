//! A probation: the lifeline between the two generations, and what both write into the record.

use super::{Examined, HeldPredecessor, Service, facts, with_flows};
use crate::driver::control::link::{Deadline, Unconnected, connect};
use crate::driver::log::{self, probation::Event};
use crate::driver::sockets::Entry;
use crate::error::Result;
use crate::proto::control::frame::{self, Answer, Request};
use crate::proto::daemon::{CommitTried, Newer, TakenBack};
use crate::proto::generation::lines::{self, Obstacle, Step};
use crate::proto::generation::record::Record;
use crate::proto::generation::rejection::{ProgramFile, RollbackCause, Sight};
use crate::proto::paths;
use crate::shutdown::lock;
use crate::sys::pid_file::PidFile;
use crate::sys::process::Held;
use crate::sys::seqpacket::Link;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the predecessor may take to say that it stands by. It answers without running code of the program, but
/// the machine may be busy, and without an answer there is no probation. A predecessor that hangs is found out
/// earlier, since it gives no sockets.
const ANSWER: Duration = Duration::from_secs(5);

/// The generation at the other end of the lifeline, or one that is watched without it.
pub(in crate::driver) struct Partner {
    pub(in crate::driver) number: u64,
    pub(in crate::driver) pid: i32,
    pub(in crate::driver) link: Option<Arc<Link>>,
    /// Its end counts, not that of the link: a program that it has started may hold that one open.
    pub(in crate::driver) held: Held,
}

/// A process that waits in `init` while this generation serves, and its connection.
pub(in crate::driver) struct Candidate {
    pub(in crate::driver) pid: i32,
    /// When it goes on by itself.
    pub(in crate::driver) next_try: Instant,
    pub(in crate::driver) link: Arc<Link>,
}

/// The other generations, when one takes its place back.
pub(in crate::driver) enum Others {
    /// This newer generation is proven.
    Successor(u64),
    /// The numbers of those that may have flows; and the newer generations, which have failed.
    Failed { with_flows: BTreeSet<u64>, newer: Vec<(u64, Held)> },
}

/// Asks, and has the answer `accepted`.
pub(super) fn ask(
    link: &Link,
    request: &Request,
    fds: &[BorrowedFd<'_>],
    deadline: Deadline,
) -> Result<(), String> {
    deadline.send(link, &request.format(), fds)?;
    match Answer::parse(&deadline.receive(link)?.bytes) {
        Ok(Answer::Accepted) => Ok(()),
        Ok(Answer::Refused(why)) => Err(why),
        Ok(other) => Err(format!("it answers {other:?}")),
        Err(refused) => Err(format!("it sent {refused}")),
    }
}

impl Service {
    /// Under the claim: this generation is to stand by for us. It is connected by its second name, since ours
    /// is in the place of the first one.
    /// `flows`: the sockets of steered groups.
    pub(super) fn ask_to_stand_by(
        &self,
        older: &Examined,
        flows: &[Entry],
    ) -> Result<Partner, String> {
        let deadline = Deadline::named(ANSWER, "standby");
        let Some(held) = older.held.as_ref().and_then(Held::again) else {
            return Err("it is not held by a pidfd".to_owned());
        };
        let path = paths::standby_socket(&self.pid_file);
        let (link, listener) = connect(&path, deadline).map_err(|error| match error {
            Unconnected::Nobody => "nobody listens there".to_owned(),
            Unconnected::Failed(why) => why,
        })?;
        if listener.map(|listener| listener.pid) != Some(older.pid()) {
            return Err("another process listens there".to_owned());
        }
        let generation = self.number().unwrap_or(0);
        let mut rest = flows;
        while !rest.is_empty() {
            let count = frame::chunk(rest.iter().map(|entry| &entry.socket));
            let (chunk, more) = rest.split_at(count.max(1));
            let sockets = chunk.iter().map(|entry| entry.socket.clone()).collect();
            let fds: Vec<BorrowedFd<'_>> = chunk.iter().map(|entry| entry.fd.as_fd()).collect();
            ask(&link, &Request::Flows { generation, sockets }, &fds, deadline)?;
            rest = more;
        }
        ask(&link, &Request::StandBy { generation }, &[], deadline)?;
        let (number, pid) = (older.facts.number, older.pid());
        Ok(Partner { number, pid, link: Some(Arc::new(link)), held })
    }

    /// Is this process the newer generation with this number, and on probation? Without the claim: its own
    /// `started` holds it.
    pub(in crate::driver) fn newer_on_probation(&self, number: u64, pid: i32) -> Option<Held> {
        let own = self.number()?;
        let mut is_it = self.others(|line| line.number == number && line.daemon.pid == pid).ok()?;
        is_it.retain(|one| lines::may_be_stood_by_for(own, &one.facts));
        is_it.pop()?.held
    }

    /// The newest newer generation that lives and serves. The answer is [`Newer::Watched`] if there is one.
    pub(in crate::driver) fn newest_newer(&self) -> (Newer, Option<Partner>) {
        let Some(own) = self.number() else { return (Newer::Nobody, None) };
        let Ok(others) = self.others(|line| line.number > own) else {
            return (Newer::Unknown, None);
        };
        let newest = lines::newest_newer(own, facts(&others)).map(|newest| newest.number);
        let Some(number) = newest else { return (Newer::Nobody, None) };
        let newest = others.into_iter().find(|one| one.facts.number == number);
        let partner = newest.and_then(|newest| {
            Some(Partner { number, pid: newest.pid(), link: None, held: newest.held? })
        });
        // Without a pidfd its end would not be seen.
        (if partner.is_some() { Newer::Watched } else { Newer::Unknown }, partner)
    }

    /// Does a newer generation serve that is proven? `false` if that cannot be known.
    pub(in crate::driver) fn is_succeeded(&self) -> bool {
        let Some(own) = self.number() else { return false };
        let others = self.others(|line| line.number > own).unwrap_or_default();
        lines::successor(own, facts(&others)).is_some()
    }

    /// The probation is passed.
    pub(in crate::driver) fn try_commit(&self) -> CommitTried {
        let tried = self.under_claim(|files| {
            let (mut record, others) = self.look_at_all(files)?;
            let own = self.number().unwrap_or_default();
            let line = record.live.iter().find(|line| line.number == own);
            let line = line.and_then(|line| line.state);
            match lines::obstacle(own, line, facts(&others)) {
                Some(Obstacle::Newer) => return Ok(CommitTried::Replaced),
                Some(Obstacle::RolledBack) => return Ok(CommitTried::RolledBack),
                None => {}
            }
            record.book_crashed(facts(&others), &self.world);
            record.apply(Step::Prove { own });
            files.lock_file.write(&record).map(|()| CommitTried::Written)
        });
        match tried {
            Ok(tried) => tried.unwrap_or(CommitTried::ClaimHeld),
            Err(error) => {
                log::write(Event::CommitFailed { error: &error });
                CommitTried::Failed
            }
        }
    }

    /// We serve again: what the newer generations have put in the place of our files is ours again, and what
    /// they run is rejected. `act` does the rest, under the claim.
    pub(in crate::driver) fn take_back(
        &self,
        cause: RollbackCause,
        act: impl FnOnce(Others) -> Result<()>,
    ) -> TakenBack {
        let taken = self.under_claim(|files| {
            let (mut record, others) = self.look_at_all(files)?;
            let own = self.number().unwrap_or_default();
            if let Some(newer) = lines::successor(own, facts(&others)) {
                return act(Others::Successor(newer)); // it has come meanwhile, and tells us to end
            }
            record.apply(Step::TakeBack { own, cause });
            files.lock_file.write(&record)?;
            files.pid_file = Some(PidFile::install(&self.pid_file)?);
            let with_flows = with_flows(&others);
            let newer = others.into_iter().filter(|one| one.facts.number > own);
            let newer = newer.filter_map(|one| Some((one.facts.number, one.held?))).collect();
            act(Others::Failed { with_flows, newer })?;
            if let Some(rejected) = record.rejected {
                log::write(Event::Rejected {
                    generation: Some(own),
                    failed_generation: rejected.generation,
                    reason: rejected.cause.text(),
                    tries: rejected.tries,
                    pause_ms: rejected.pause(),
                });
            }
            Ok(())
        });
        match taken {
            Ok(Some(())) => TakenBack::Done,
            // If a generation is starting, it has booked what has failed, and takes over from us.
            Ok(None) => TakenBack::ClaimHeld,
            Err(error) => {
                log::write(Event::TakeBackFailed { error: &error });
                TakenBack::Failed
            }
        }
    }

    /// Books the generations that have died on probation: their program files are rejected.
    pub(super) fn book_failed(record: &mut Record, others: &[Examined]) {
        record.book_failed(|number| {
            others.iter().any(|one| one.facts.number == number && one.facts.may_be_tried())
        });
    }

    /// What a daemon that is about to claim sees, and the proven generation that serves.
    pub(super) fn sight(
        &self,
        own: Option<ProgramFile>,
    ) -> Result<(Sight, Option<HeldPredecessor>)> {
        let files = lock(&self.files);
        let mut record = self.read_record(&files.lock_file)?;
        if record.rejected.is_none() && record.live.iter().all(|line| line.file.is_none()) {
            return Ok((Sight { rejected: None, own, is_served: false, goes: false }, None));
        }
        let others = self.examine_all(&files, &record)?;
        Service::book_failed(&mut record, &others);
        let number = lines::server(others.iter().map(|one| (&one.facts, one.generation.ends())));
        let server = others.into_iter().find(|one| Some(one.facts.number) == number);
        let server = server.map(Examined::into_predecessor);
        let is_served = server.is_some();
        Ok((Sight { rejected: record.rejected, own, is_served, goes: false }, server))
    }

    /// Called if the generation that serves is not connected with us. If it is detached, it takes a claim since its
    /// last check for the sign of a successor. And whoever looks at the service learns when the next try comes.
    pub(super) fn give_sign(&self, next_try: Duration) {
        // If it fails, the next sign follows in a second.
        _ = self.under_claim(|files| {
            let mut record = self.read_record(&files.lock_file)?;
            record.last += 1;
            if let Some(rejected) = &mut record.rejected {
                rejected.next_try = Some(next_try);
            }
            files.lock_file.write(&record)
        });
    }
}
