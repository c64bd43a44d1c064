//! A client that keeps asking, and what it saw.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{Failure, FailureKind, Response, Target, get, time_now};
use crate::{LIMIT, wait_for};

/// How often a [`Prober`] asks unless told otherwise.
pub const EVERY: Duration = Duration::from_millis(20);

/// Asks a server again and again, each time on a new connection.
#[derive(Debug)]
pub struct Prober {
    target: Target,
    probes: Arc<Mutex<Probes>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Prober {
    /// Every 20 ms: so long from one request to the next, and none is left out where an answer takes
    /// longer.
    pub fn start(target: &Target) -> Self {
        Self::start_every(EVERY, target)
    }

    pub fn start_every(pause: Duration, target: &Target) -> Self {
        let began = time_now();
        let probes = Arc::new(Mutex::new(Probes { began, ..Probes::default() }));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (target, probes, stop) = (target.clone(), probes.clone(), stop.clone());
            move || probe(&target, pause, began, &probes, &stop)
        });
        Prober { target: target.clone(), probes, stop, thread }
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Probes {
        self.probes.lock().expect("the prober does not panic").clone()
    }

    /// Waits until this server has answered.
    #[track_caller]
    pub fn wait_pid(&self, pid: u32) {
        let what = format!("{pid} answers at {}", self.target);
        wait_for(what, LIMIT, || self.seen().pids().contains(&pid).then_some(()));
    }

    /// Waits for so many requests more, answered or not.
    #[track_caller]
    pub fn wait_more(&self, count: usize) {
        let enough = self.seen().requests() + count;
        let what = format!("{count} more requests at {}", self.target);
        wait_for(what, LIMIT, || (self.seen().requests() >= enough).then_some(()));
    }

    /// Lets the request in flight end, and tells what happened.
    pub fn stop(self) -> Probes {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.probes.clone();
        self.thread.join().expect("the prober does not panic");
        let seen = seen.lock().expect("it has ended");
        seen.clone()
    }
}

/// Times are all taken from one clock: between looks at two, this thread may have to wait.
fn probe(
    target: &Target,
    pause: Duration,
    began: Duration,
    probes: &Mutex<Probes>,
    stop: &AtomicBool,
) {
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let at = time_now().saturating_sub(began);
        let result = get(target, "/");
        let took = time_now().saturating_sub(began + at);
        let mut probes = probes.lock().expect("no reader panics");
        let failure = match result {
            Ok(Response { status: 200, pid: Some(pid), .. }) => {
                probes.answers.push(Answer { at, took, pid });
                None
            }
            Ok(other) => {
                Some(Failure { kind: FailureKind::Unexpected, text: format!("{other:?}") })
            }
            Err(failure) => Some(failure),
        };
        probes.failures.extend(failure.map(|failure| FailedProbe { at, took, failure }));
        drop(probes);
        next = (next + pause).max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// What a [`Prober`] saw. Times count from its start.
#[derive(Clone, Debug, Default)]
pub struct Probes {
    /// Its start, by [`time_now`].
    pub began: Duration,
    pub answers: Vec<Answer>,
    pub failures: Vec<FailedProbe>,
}

#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub at: Duration,
    pub took: Duration,
    pub pid: u32,
}

#[derive(Clone, Debug)]
pub struct FailedProbe {
    pub at: Duration,
    pub took: Duration,
    pub failure: Failure,
}

impl Probes {
    pub fn requests(&self) -> usize {
        self.answers.len() + self.failures.len()
    }

    /// Those that were asked after the one moment and answered before the other, by [`time_now`].
    pub fn answers_between(&self, from: Duration, to: Duration) -> Vec<Answer> {
        let mut answers = self.answers.clone();
        answers.retain(|one| self.began + one.at >= from && self.answered_at(one) <= to);
        answers
    }

    /// When this server answered first, by [`time_now`].
    #[track_caller]
    pub fn first_answer_of(&self, pid: u32) -> Duration {
        let first = self.answers.iter().find(|one| one.pid == pid);
        self.answered_at(first.unwrap_or_else(|| panic!("no answer of {pid}")))
    }

    fn answered_at(&self, answer: &Answer) -> Duration {
        self.began + answer.at + answer.took
    }

    /// The longest time from one request to the next of those since this moment, by [`time_now`]:
    /// more than its pause is what the machine, or the server, made it wait.
    pub fn longest_gap(&self, from: Duration) -> Duration {
        let mut asked: Vec<Duration> = self.answers.iter().map(|one| one.at).collect();
        asked.extend(self.failures.iter().map(|one| one.at));
        asked.sort_unstable();
        let gaps = asked.windows(2).filter(|pair| self.began + pair[1] >= from);
        gaps.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// In the order of their first answer.
    pub fn pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        for answer in &self.answers {
            if !pids.contains(&answer.pid) {
                pids.push(answer.pid);
            }
        }
        pids
    }

    pub fn failures_by_kind(&self) -> BTreeMap<FailureKind, usize> {
        let mut counts = BTreeMap::new();
        for failed in &self.failures {
            *counts.entry(failed.failure.kind).or_default() += 1;
        }
        counts
    }

    /// Some requests, and none failed.
    #[track_caller]
    pub fn assert_all_answered(&self) {
        assert!(!self.answers.is_empty(), "no request was answered: {:?}", self.failures);
        assert!(
            self.failures.is_empty(),
            "{} of {} requests failed: {:?}",
            self.failures.len(),
            self.requests(),
            self.failures
        );
    }
}
