//! What became of the requests.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::SocketAddr,
    ops::{AddAssign, Deref},
    time::Duration,
};

use hdrhistogram::Histogram;

/// Failed requests that each thread keeps in full; all are counted.
const KEPT_FAILURES: usize = 100_000;

/// The longest latency that is told from longer ones, in nanoseconds.
const LONGEST: u64 = 3_600_000_000_000;

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Failure {
    /// Nobody listens.
    Refused,
    /// The path of the Unix socket is missing.
    NotFound,
    /// The connection was reset before it was there for its client.
    ResetConnecting,
    /// It was reset and had given no byte of an answer: what happens to a connection that waits in
    /// the queue of a listener that closes.
    ResetBeforeAnswer,
    /// It was reset in the middle of the answer.
    ResetMidAnswer,
    /// The server closed it without an answer.
    EofBeforeAnswer,
    /// The server closed it in the middle of the answer.
    EofMidAnswer,
    /// The answer took too long.
    Timeout,
    /// Not HTTP, not 200, or not the PID of a server.
    BadAnswer,
    /// The generator ran out of local ports: its own failure, not the server's.
    PortsExhausted,
    /// Any other error, by its number.
    Other(i32),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::Refused => "refused",
            Failure::NotFound => "socket path missing",
            Failure::ResetConnecting => "reset while connecting",
            Failure::ResetBeforeAnswer => "reset before any byte of the answer",
            Failure::ResetMidAnswer => "reset in the middle of the answer",
            Failure::EofBeforeAnswer => "closed before any byte of the answer",
            Failure::EofMidAnswer => "closed in the middle of the answer",
            Failure::Timeout => "timed out",
            Failure::BadAnswer => "bad answer",
            Failure::PortsExhausted => "no local port left",
            Failure::Other(number) => {
                return write!(f, "{}", std::io::Error::from_raw_os_error(*number));
            }
        })
    }
}

/// The client's end of a connection, as the kernel's tables name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Its address.
    Tcp(SocketAddr),
    /// The inode of a Unix socket.
    Unix(u64),
}

/// One request. Times count from the start of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// When it began; with [`Load::every`](super::Load::every) or
    /// [`Load::rate`](super::Load::rate), when it was due.
    pub begin: Duration,
    /// From then to its end.
    pub latency: Duration,
    /// Some part of it fell within a marked restart.
    pub during: bool,
    /// The process that answered, or why none did.
    pub outcome: Result<u32, Failure>,
}

/// A request that failed. Times count from the start of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    /// When it began.
    pub begin: Duration,
    /// When it had failed.
    pub end: Duration,
    /// Some part of it fell within a marked restart.
    pub during: bool,
    /// Why it failed.
    pub failure: Failure,
    /// On which connection; `None` where there was none, or no time was left to look.
    pub origin: Option<Origin>,
}

/// The answers of one process. Times count from the start of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answers {
    /// The process.
    pub pid: u32,
    /// How many.
    pub count: u64,
    /// When the first one had come.
    pub first: Duration,
    /// When the last one had come.
    pub last: Duration,
}

/// A count during marked restarts, and one outside them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Split {
    /// During a restart.
    pub during: u64,
    /// Outside.
    pub outside: u64,
}

impl Split {
    /// Both.
    pub fn total(self) -> u64 {
        self.during + self.outside
    }

    fn add(&mut self, during: bool) {
        *(if during { &mut self.during } else { &mut self.outside }) += 1;
    }
}

impl AddAssign for Split {
    fn add_assign(&mut self, other: Self) {
        self.during += other.during;
        self.outside += other.outside;
    }
}

/// The latencies of answered requests.
#[derive(Debug, Clone)]
pub struct Latency(Histogram<u64>);

impl Latency {
    fn new() -> Self {
        Latency(Histogram::new_with_bounds(1, LONGEST, 3).expect("valid bounds"))
    }

    fn add(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// All of both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Latency(self.0.clone() + &other.0)
    }

    /// That which the given part of them, 0.5 or 0.99, does not exceed.
    pub fn quantile(&self, part: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(part))
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |part| self.quantile(part).as_secs_f64() * 1e3;
        let max = self.max().as_secs_f64() * 1e3;
        write!(
            f,
            "p50 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms, max {max:.3} ms",
            part(0.5),
            part(0.99),
            part(0.999)
        )
    }
}

/// What one thread has counted.
pub(super) struct Stats {
    retried: u64,
    requests: Split,
    failures: BTreeMap<Failure, Split>,
    failed: Vec<Failed>,
    answers: HashMap<u32, Answers>,
    during: Latency,
    outside: Latency,
    late: Latency,
    records: Vec<Record>,
}

impl Stats {
    pub(super) fn new() -> Self {
        Stats {
            retried: 0,
            requests: Split::default(),
            failures: BTreeMap::new(),
            failed: Vec::new(),
            answers: HashMap::new(),
            during: Latency::new(),
            outside: Latency::new(),
            late: Latency::new(),
            records: Vec::new(),
        }
    }

    pub(super) fn requests(&self) -> Split {
        self.requests
    }

    pub(super) fn answered(&self) -> u64 {
        self.during.count() + self.outside.count()
    }

    /// The failed requests that are kept; from now on others.
    pub(super) fn take_failed(&mut self) -> Vec<Failed> {
        std::mem::take(&mut self.failed)
    }

    /// Counts how late a request was sent.
    pub(super) fn late(&mut self, late: Duration) {
        self.late.add(late);
    }

    /// Counts a request; gives the process that answered it where its first answer here is this.
    pub(super) fn count(
        &mut self,
        record: Record,
        origin: Option<Origin>,
        retried: bool,
        keep: bool,
    ) -> Option<u32> {
        let Record { begin, latency, during, outcome } = record;
        let end = begin + latency;
        self.requests.add(during);
        self.retried += u64::from(retried);
        if keep {
            self.records.push(record);
        }
        match outcome {
            Ok(pid) => {
                (if during { &mut self.during } else { &mut self.outside }).add(latency);
                let answers = self.answers.entry(pid).or_insert(Answers {
                    pid,
                    count: 0,
                    first: end,
                    last: end,
                });
                answers.count += 1;
                answers.last = end;
                (answers.count == 1).then_some(pid)
            }
            Err(failure) => {
                self.failures.entry(failure).or_default().add(during);
                if self.failed.len() < KEPT_FAILURES {
                    self.failed.push(Failed { begin, end, during, failure, origin });
                }
                None
            }
        }
    }
}

/// What became of the requests that have ended.
#[derive(Debug, Clone)]
pub struct Report {
    /// How long the load ran.
    pub elapsed: Duration,
    /// Requests that have ended, answered or not.
    pub requests: Split,
    /// Requests that were sent again on a new connection because a kept one had ended.
    pub retried: u64,
    /// Failed requests by kind.
    pub failures: BTreeMap<Failure, Split>,
    /// The first failed requests of each thread, in the order in which they failed.
    pub failed: Vec<Failed>,
    /// The processes that answered, in the order of their first answers.
    pub answers: Vec<Answers>,
    /// Latencies of the requests that were answered, during restarts.
    pub during: Latency,
    /// The same, outside restarts.
    pub outside: Latency,
    /// How late the generator sent the requests of an open loop, answered or not; empty where the
    /// loop is closed. A part of their latencies, and none of the server's doing.
    pub late: Latency,
    /// Every request, in the order in which they began; empty unless they were asked for.
    pub records: Vec<Record>,
}

impl Report {
    pub(super) fn of(
        threads: impl Iterator<Item = impl Deref<Target = Stats>>,
        elapsed: Duration,
    ) -> Self {
        let mut report = Report {
            elapsed,
            requests: Split::default(),
            retried: 0,
            failures: BTreeMap::new(),
            failed: Vec::new(),
            answers: Vec::new(),
            during: Latency::new(),
            outside: Latency::new(),
            late: Latency::new(),
            records: Vec::new(),
        };
        for stats in threads {
            report.requests += stats.requests;
            report.retried += stats.retried;
            for (failure, split) in &stats.failures {
                *report.failures.entry(*failure).or_default() += *split;
            }
            report.failed.extend(&stats.failed);
            for more in stats.answers.values() {
                match report.answers.iter_mut().find(|answers| answers.pid == more.pid) {
                    Some(answers) => {
                        answers.count += more.count;
                        answers.first = answers.first.min(more.first);
                        answers.last = answers.last.max(more.last);
                    }
                    None => report.answers.push(*more),
                }
            }
            report.during.0 += &stats.during.0;
            report.outside.0 += &stats.outside.0;
            report.late.0 += &stats.late.0;
            report.records.extend(&stats.records);
        }
        report.answers.sort_by_key(|answers| answers.first);
        report.failed.sort_by_key(|failed| failed.end);
        report.records.sort_by_key(|record| record.begin);
        report
    }

    /// Answered requests.
    pub fn answered(&self) -> u64 {
        self.during.count() + self.outside.count()
    }

    /// Answered requests a second.
    pub fn rate(&self) -> f64 {
        self.answered() as f64 / self.elapsed.as_secs_f64()
    }

    /// Failed requests, but not those of the kinds named.
    pub fn failures_but(&self, excused: &[Failure]) -> u64 {
        let counted = self.failures.iter().filter(|(failure, _)| !excused.contains(failure));
        counted.map(|(_, split)| split.total()).sum()
    }

    /// Nothing failed, at least `floor` requests were made, and exactly `generations` processes
    /// answered: one more than there were restarts.
    ///
    /// # Panics
    /// Where that is not so, with the whole report.
    #[track_caller]
    pub fn assert_clean(&self, floor: u64, generations: usize) {
        let failures = self.failures_but(&[]);
        assert!(failures == 0, "{failures} requests failed\n{self}");
        let requests = self.requests.total();
        assert!(
            requests >= floor,
            "{requests} requests are no load: at least {floor} were expected\n{self}"
        );
        let seen = self.answers.len();
        assert!(seen == generations, "{seen} generations answered, not {generations}\n{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        writeln!(
            f,
            "{} requests in {seconds:.1} s, {:.0} answers a second",
            self.requests.total(),
            self.rate()
        )?;
        if self.retried > 0 {
            writeln!(f, "{} sent again because their kept connection had ended", self.retried)?;
        }
        for (failure, split) in &self.failures {
            writeln!(
                f,
                "{} {failure}: {} during restarts, {} outside",
                split.total(),
                split.during,
                split.outside
            )?;
        }
        for failed in self.failed.iter().take(10) {
            let (begin, end) = (failed.begin.as_secs_f64(), failed.end.as_secs_f64());
            let place = if failed.during { "during a restart" } else { "outside restarts" };
            writeln!(f, "  {begin:.6} s to {end:.6} s, {place}: {}", failed.failure)?;
        }
        for Answers { pid, count, first, last } in &self.answers {
            let (first, last) = (first.as_secs_f64(), last.as_secs_f64());
            writeln!(f, "PID {pid}: {count} answers from {first:.3} s to {last:.3} s")?;
        }
        writeln!(f, "during restarts: {}", self.during)?;
        write!(f, "outside restarts: {}", self.outside)?;
        if self.late.count() > 0 {
            write!(f, "\nsent late by: {}", self.late)?;
        }
        Ok(())
    }
}
