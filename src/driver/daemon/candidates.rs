//! The processes that wait in `init` for this generation's end, or for their next try.

use super::events::Events;
use crate::driver::generation::probation::Candidate;
use crate::driver::log::{self, probation::Event as Line};
use crate::driver::shared::Daemon;
use crate::proto::control::frame::{self, Answer, Request, Word};
use crate::proto::daemon::{Event, Input};
use crate::shutdown::lock;
use crate::sys::seqpacket::{Arrival, Link};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One supervisor starts fewer. Each of them costs a descriptor.
const MOST: usize = 16;

impl Daemon {
    /// On the thread that answers at the control socket.
    pub(in crate::driver) fn add_candidate(
        &self,
        link: &Arc<Link>,
        pid: i32,
        left: Duration,
    ) -> Result<(), String> {
        if !lock(&self.machine).takes_candidates() {
            return Err("this generation does not serve, or is on probation".to_owned());
        }
        if lock(&self.candidates).len() >= MOST {
            return Err(format!("{MOST} processes wait already"));
        }
        // Before it is entered: `go` may follow at once.
        if let Err(error) = link.send(&Answer::Accepted.format(), &[]) {
            return Err(format!("cannot send to it: {error}"));
        }
        let next_try = Instant::now() + left.min(frame::WAIT_MAX);
        lock(&self.candidates).push(Candidate { pid, next_try, link: Arc::clone(link) });
        log::write(Line::CandidateWaits {
            generation: self.generation(),
            candidate: pid,
            pause_ms: left,
        });
        self.post(Input::Probation(Event::Candidates { wait: true }));
        Ok(())
    }

    pub(super) fn candidate_links(&self) -> Vec<Arc<Link>> {
        lock(&self.candidates).iter().map(|one| Arc::clone(&one.link)).collect()
    }
}

impl Events {
    pub(super) fn look_at_candidates(&mut self) {
        let (mut told, mut gone) = (Vec::new(), false);
        let is_left = {
            let mut all = lock(&self.daemon.candidates);
            all.retain(|one| {
                let stays = loop {
                    match one.link.receive(frame::MESSAGE_MAX) {
                        Arrival::Message(message) => {
                            if Request::parse(&message.bytes) == Ok(Request::Say(Word::Told)) {
                                told.push(one.pid);
                                break false;
                            }
                        }
                        Arrival::Nothing | Arrival::OutOfMemory => break true,
                        Arrival::Closed => break false,
                    }
                };
                gone |= !stays;
                stays
            });
            !all.is_empty()
        };
        for pid in told {
            let (generation, cause) = (self.daemon.generation(), "told");
            log::write(Line::TryAtOnce { generation, candidate: Some(pid), cause });
            self.feed(Input::Probation(Event::CandidateTold));
        }
        if gone {
            self.feed(Input::Probation(Event::Candidates { wait: is_left }));
        }
    }

    pub(super) fn let_candidates_go(&self) {
        for link in self.daemon.candidate_links() {
            // If it has gone, the next look sees that.
            _ = link.send(&Request::Say(Word::Go).format(), &[]);
        }
    }
}

/// `seamless restart`: the processes that wait may go on.
pub(super) fn try_again(daemon: &Daemon) {
    let candidate = lock(&daemon.candidates).first().map(|one| one.pid);
    let (generation, cause) = (daemon.generation(), "restart");
    log::write(Line::TryAtOnce { generation, candidate, cause });
    daemon.post(Input::Probation(Event::TryAgain));
}
