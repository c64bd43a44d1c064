//! Which failures are excused, and which are violations.
//!
//! A failed request is excused where
//! - a process that had accepted its connection was KILLed by a fault: the kernel's tables named that
//!   connection while the process was stopped, right before the KILL;
//! - it had no byte of an answer, and the socket in whose queue it was, or would have been, had lost
//!   its last holder by such a KILL or by `svc -d`;
//! - it was a datagram, of which each process that is KILLed may have taken one from the queue.
//!
//! Nothing else is: not a limit that passed, and not a socket that closes for any other reason.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use seamless_campaigns::load::{Failed, Failure, Origin};

use crate::kernel::{Open, Place};

/// How long a client on a busy machine may take to note that its request has failed.
const NOTED: Duration = Duration::from_secs(3);

/// A socket that nobody holds any more.
struct Vanished {
    place: Place,
    /// The last time it was seen.
    from: Instant,
    /// There was another one.
    until: Option<Instant>,
}

#[derive(Default)]
struct Notes {
    open: Open,
    looked: Option<Instant>,
    vanished: Vec<Vanished>,
    /// A socket may lose its last holder until the next rest.
    may_vanish: bool,
    cut: HashMap<Origin, Instant>,
    /// KILLed daemons, until a datagram is put down to each.
    killed: Vec<Instant>,
    failed: Vec<(Place, Instant, Instant, Failed)>,
    excused: BTreeMap<Failure, u64>,
    violations: Vec<(Instant, String)>,
}

#[derive(Default)]
pub struct Judge(Mutex<Notes>);

impl Judge {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn violation(&self, what: impl Into<String>) {
        self.notes().violations.push((Instant::now(), what.into()));
    }

    pub fn violations(&self) -> Vec<(Instant, String)> {
        self.notes().violations.clone()
    }

    pub fn is_violated(&self) -> bool {
        !self.notes().violations.is_empty()
    }

    pub fn excused(&self) -> BTreeMap<Failure, u64> {
        self.notes().excused.clone()
    }

    /// A daemon that holds these connections is about to be KILLed.
    pub fn kills(&self, held: HashSet<Origin>) {
        let (mut notes, now) = (self.notes(), Instant::now());
        notes.may_vanish = true;
        notes.killed.push(now);
        notes.cut.extend(held.into_iter().map(|origin| (origin, now)));
    }

    /// The service is about to be told to stop.
    pub fn stops(&self) {
        self.notes().may_vanish = true;
    }

    pub fn rests(&self) {
        self.notes().may_vanish = false;
    }

    /// What was found at the last look.
    pub fn open(&self) -> Open {
        self.notes().open.clone()
    }

    /// A look at the sockets, which began at this time.
    pub fn look(&self, at: Instant, open: Open) {
        // A look may take long on a busy machine: what it found may have come just now.
        let now_open = Instant::now();
        let mut notes = self.notes();
        let from = notes.looked.replace(at).unwrap_or(at);
        let before = std::mem::replace(&mut notes.open, open);
        for (place, inodes) in before {
            let now = &notes.open[&place];
            let lost = inodes.difference(now).count();
            let found = !now.is_empty();
            if lost > 0 {
                notes.vanished.push(Vanished { place, from, until: None });
                if !notes.may_vanish {
                    let what =
                        format!("{lost} sockets of {place:?} were closed by their last holder");
                    notes.violations.push((at, what));
                }
            }
            if found {
                let gaps = notes.vanished.iter_mut().filter(|gap| gap.place == place);
                gaps.for_each(|gap| _ = gap.until.get_or_insert(now_open));
            }
        }
    }

    /// Requests that have failed; `start` is the begin of their load.
    pub fn failures(&self, place: Place, start: Instant, failed: Vec<Failed>) {
        let dated = failed.into_iter().map(|one| (place, start + one.begin, start + one.end, one));
        self.notes().failed.extend(dated);
    }

    /// Decides on those of which all is known by now, or on all.
    pub fn decide(&self, all: bool) {
        let mut notes = self.notes();
        let Some(looked) = notes.looked else { return };
        let known = looked.checked_sub(Duration::from_millis(300)).unwrap_or(looked);
        let failed = std::mem::take(&mut notes.failed);
        let (ripe, rest) = failed.into_iter().partition(|(_, _, end, _)| all || *end < known);
        notes.failed = rest;
        let ripe: Vec<(Place, Instant, Instant, Failed)> = ripe;
        for (place, begin, end, failed) in ripe {
            if notes.excuse(place, begin, end, &failed) {
                *notes.excused.entry(failed.failure).or_default() += 1;
            } else {
                let took = end.duration_since(begin).as_secs_f64();
                let what =
                    format!("a request to {place:?} failed: {} ({took:.3} s)", failed.failure);
                notes.violations.push((end, what));
            }
        }
    }
}

impl Notes {
    fn excuse(&mut self, place: Place, begin: Instant, end: Instant, failed: &Failed) -> bool {
        let is_cut = |killed: &Instant| begin <= *killed && *killed <= end;
        if failed.origin.and_then(|origin| self.cut.get(&origin)).is_some_and(is_cut) {
            return true;
        }
        let in_queue = match failed.failure {
            Failure::Refused
            | Failure::NotFound
            | Failure::ResetConnecting
            | Failure::ResetBeforeAnswer
            | Failure::EofBeforeAnswer => true,
            Failure::Timeout => place == Place::Udp,
            _ => false,
        };
        let gap = |gap: &Vanished| {
            let over = gap.until.is_some_and(|until| match place {
                Place::Udp => until + NOTED < begin,
                _ => until + NOTED < end,
            });
            gap.place == place && gap.from <= end && !over
        };
        if in_queue && self.vanished.iter().any(gap) {
            return true;
        }
        let lost = (place == Place::Udp && failed.failure == Failure::Timeout)
            .then(|| self.killed.iter().position(is_cut))
            .flatten();
        lost.map(|index| self.killed.swap_remove(index)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: Place = Place::Tcp;

    fn open(inodes: &[u64]) -> Open {
        Place::ALL.into_iter().map(|place| (place, inodes.iter().copied().collect())).collect()
    }

    fn origin(port: u16) -> Origin {
        Origin::Tcp(([127, 0, 1, 1], port).into())
    }

    /// A judge to whom this is done; is a request excused that failed afterwards?
    fn excuses(
        place: Place,
        failure: Failure,
        from: Option<Origin>,
        done: impl FnOnce(&Judge),
    ) -> bool {
        let (judge, start) = (Judge::default(), Instant::now());
        judge.look(Instant::now(), open(&[1]));
        done(&judge);
        let end = start.elapsed();
        let begin = Duration::ZERO;
        let failed = Failed { begin, end, during: false, failure, origin: from };
        judge.failures(place, start, vec![failed]);
        judge.decide(true);
        let excused = judge.excused().contains_key(&failure);
        assert_eq!(judge.is_violated(), !excused);
        excused
    }

    #[test]
    fn nothing_is_excused_without_a_fault() {
        for failure in [Failure::Refused, Failure::ResetBeforeAnswer, Failure::Timeout] {
            for place in Place::ALL {
                assert!(!excuses(place, failure, Some(origin(1)), |_| {}));
            }
        }
    }

    #[test]
    fn who_held_it_was_killed() {
        let kill = |judge: &Judge| judge.kills([origin(1)].into());
        assert!(excuses(TCP, Failure::ResetMidAnswer, Some(origin(1)), kill));
        assert!(!excuses(TCP, Failure::ResetMidAnswer, Some(origin(2)), kill));
        assert!(!excuses(TCP, Failure::ResetBeforeAnswer, Some(origin(2)), kill));
        assert!(!excuses(TCP, Failure::Refused, None, kill));
        assert!(!excuses(TCP, Failure::Timeout, None, kill));
    }

    #[test]
    fn its_port_was_used_before() {
        let (judge, start) = (Judge::default(), Instant::now());
        judge.kills([origin(1)].into());
        let (begin, failure) = (start.elapsed(), Failure::ResetMidAnswer);
        let end = begin + Duration::from_millis(1);
        let failed = Failed { begin, end, during: false, failure, origin: Some(origin(1)) };
        judge.look(Instant::now(), open(&[1]));
        judge.failures(TCP, start, vec![failed]);
        judge.decide(true);
        assert!(judge.is_violated());
    }

    #[test]
    fn its_queue_went_with_its_last_holder() {
        let vanish = |judge: &Judge| {
            judge.kills(HashSet::new());
            judge.look(Instant::now(), open(&[]));
        };
        assert!(excuses(TCP, Failure::Refused, None, vanish));
        assert!(excuses(TCP, Failure::ResetBeforeAnswer, Some(origin(1)), vanish));
        assert!(!excuses(TCP, Failure::ResetMidAnswer, Some(origin(1)), vanish));
        assert!(!excuses(TCP, Failure::Timeout, Some(origin(1)), vanish));
        assert!(excuses(Place::Udp, Failure::Timeout, None, vanish));
    }

    #[test]
    fn a_queue_that_goes_without_a_fault_is_a_violation() {
        let judge = Judge::default();
        judge.look(Instant::now(), open(&[1, 2]));
        judge.look(Instant::now(), open(&[2]));
        assert!(judge.is_violated());
    }

    #[test]
    fn a_killed_process_takes_one_datagram_with_it() {
        let (judge, start) = (Judge::default(), Instant::now());
        judge.look(Instant::now(), open(&[1]));
        judge.kills(HashSet::new());
        let failed = Failed {
            begin: Duration::ZERO,
            end: start.elapsed(),
            during: false,
            failure: Failure::Timeout,
            origin: None,
        };
        judge.failures(Place::Udp, start, vec![failed, failed]);
        judge.decide(true);
        assert_eq!(judge.excused()[&Failure::Timeout], 1);
        assert_eq!(judge.violations().len(), 1);
    }
}
