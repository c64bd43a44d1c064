//! What became of the requests.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, ErrorKind},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

/// A point of the timeline.
pub(crate) const SLICE: Duration = Duration::from_millis(100);

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    Refused,
    ResetConnecting,
    ClosedBeforeAnswer,
    Cut,
    TimedOut,
    BadAnswer,
    Other(i32),
}

impl Failure {
    pub(crate) fn of_connect(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => Failure::Refused,
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => Failure::ResetConnecting,
            ErrorKind::WouldBlock => Failure::TimedOut,
            _ => Failure::Other(error.raw_os_error().unwrap_or_default()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::Refused => "refused",
            Failure::ResetConnecting => "reset while connecting",
            Failure::ClosedBeforeAnswer => "closed before the answer",
            Failure::Cut => "cut in the answer",
            Failure::TimedOut => "timed out",
            Failure::BadAnswer => "bad answer",
            Failure::Other(number) => return io::Error::from_raw_os_error(*number).fmt(f),
        })
    }
}

/// The requests that ended in some time.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    /// In microseconds, of those that were answered.
    latency: Histogram<u32>,
}

impl Slice {
    fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, 60_000_000, 2).expect("valid bounds");
        Slice { answered: 0, failed: 0, latency }
    }

    fn count(&mut self, outcome: Result<u32, Failure>, latency: Duration) {
        match outcome {
            Ok(_) => {
                self.answered += 1;
                self.latency.saturating_record(latency.as_micros() as u64);
            }
            Err(_) => self.failed += 1,
        }
    }

    /// The latency that this part of the answers, 0.5 or 0.99, does not exceed.
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        Duration::from_micros(self.latency.value_at_quantile(part))
    }
}

/// The answers of one process. Times count from the start of the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answers {
    pub(crate) pid: u32,
    pub(crate) count: u64,
    pub(crate) first: Duration,
    pub(crate) last: Duration,
}

#[derive(Debug)]
pub(crate) struct Stats {
    /// In the order of their first answers.
    pub(crate) answers: Vec<Answers>,
    pub(crate) failures: BTreeMap<Failure, u64>,
    /// Requests that were sent again because a kept connection had ended.
    pub(crate) again: u64,
    pub(crate) during: Slice,
    pub(crate) outside: Slice,
    /// The longest time without an answer, from the first answer on.
    pub(crate) longest_gap: Duration,
    /// The begin of each restart, and its end.
    pub(crate) restarts: Vec<(Duration, Option<Duration>)>,
    pub(crate) slices: Vec<Slice>,
    start: Instant,
    last_answer: Option<Duration>,
    interval: Slice,
    interval_began: Instant,
}

impl Stats {
    pub(crate) fn new(start: Instant) -> Self {
        Stats {
            answers: Vec::new(),
            failures: BTreeMap::new(),
            again: 0,
            during: Slice::new(),
            outside: Slice::new(),
            longest_gap: Duration::ZERO,
            restarts: Vec::new(),
            slices: Vec::new(),
            start,
            last_answer: None,
            interval: Slice::new(),
            interval_began: start,
        }
    }

    pub(crate) fn count(
        &mut self,
        begin: Duration,
        end: Duration,
        outcome: Result<u32, Failure>,
        again: bool,
    ) {
        let latency = end - begin;
        let touched =
            self.restarts.last().is_some_and(|(_, over)| over.is_none_or(|over| over >= begin));
        (if touched { &mut self.during } else { &mut self.outside }).count(outcome, latency);
        self.interval.count(outcome, latency);
        let slice = (end.as_millis() / SLICE.as_millis()) as usize;
        if self.slices.len() <= slice {
            self.slices.resize_with(slice + 1, Slice::new);
        }
        self.slices[slice].count(outcome, latency);
        self.again += u64::from(again);
        match outcome {
            Ok(pid) => {
                if let Some(last) = self.last_answer {
                    self.longest_gap = self.longest_gap.max(end.saturating_sub(last));
                }
                self.last_answer = self.last_answer.max(Some(end));
                match self.answers.iter_mut().rev().find(|answers| answers.pid == pid) {
                    Some(answers) => {
                        answers.count += 1;
                        answers.last = end;
                    }
                    None => self.answers.push(Answers { pid, count: 1, first: end, last: end }),
                }
            }
            Err(failure) => *self.failures.entry(failure).or_default() += 1,
        }
    }

    pub(crate) fn answered(&self) -> u64 {
        self.during.answered + self.outside.answered
    }

    pub(crate) fn failed(&self) -> u64 {
        self.during.failed + self.outside.failed
    }

    pub(crate) fn begin_restart(&mut self) {
        self.restarts.push((self.start.elapsed(), None));
    }

    pub(crate) fn end_restart(&mut self) {
        let now = self.start.elapsed();
        self.restarts.last_mut().expect("a restart has begun").1 = Some(now);
    }

    /// What has ended since the last call, in how many seconds.
    pub(crate) fn interval(&mut self) -> (Slice, f64) {
        let seconds = self.interval_began.elapsed().as_secs_f64();
        self.interval_began = Instant::now();
        (std::mem::replace(&mut self.interval, Slice::new()), seconds)
    }

    /// The same, without beginning anew.
    pub(crate) fn so_far(&self) -> (Slice, f64) {
        (self.interval.clone(), self.interval_began.elapsed().as_secs_f64())
    }
}
