//! The stages of a restart as they can be seen from outside: what has changed between two looks.

use crate::words;
use seamless::client::{Generation, Look, Status};

/// The state of a keeper.
const KEEPING: &str = "keeping";

/// What one look has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) newest: Option<Newest>,
    /// Those that drain, and one that stands by.
    pub(crate) older: Vec<Older>,
    /// A process that holds the claim.
    pub(crate) starting: Option<i32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Newest {
    pub(crate) number: u64,
    pub(crate) daemon: i32,
    pub(crate) on_probation: bool,
    /// `None` if it has not answered.
    pub(crate) state: Option<&'static str>,
    /// How many restarts have failed, as far as it has answered so far, and why the last one did.
    pub(crate) failed: Option<u64>,
    pub(crate) failure: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Older {
    pub(crate) number: u64,
    pub(crate) daemon: i32,
    pub(crate) stands_by: bool,
}

impl Seen {
    pub(crate) fn of(look: &Look, status: Option<&Status>) -> Seen {
        let newest = look.newest().map(|newest| {
            let status = status.filter(|status| status.daemon() == newest.daemon());
            Newest {
                number: newest.number(),
                daemon: newest.daemon(),
                on_probation: newest.is_on_probation(),
                state: match newest.is_keeper() {
                    true => Some(KEEPING),
                    false => status.map(Status::state_name),
                },
                failed: status.map(Status::failed_restarts),
                failure: status.and_then(Status::last_failure).map(str::to_owned),
            }
        });
        let standby = look.standby().map(Generation::daemon);
        let older = |one: &Generation| Older {
            number: one.number(),
            daemon: one.daemon(),
            stands_by: standby == Some(one.daemon()),
        };
        Seen { newest, older: look.older().iter().map(older).collect(), starting: look.starting() }
    }

    /// Whether the files tell the same as at this look.
    pub(crate) fn has_the_same(&self, look: &Look) -> bool {
        let now = Seen::of(look, None);
        let newest =
            |seen: &Seen| seen.newest.as_ref().map(|newest| (newest.daemon, newest.on_probation));
        (newest(self), &self.older, self.starting) == (newest(&now), &now.older, now.starting)
    }

    /// Nobody serves, and a keeper holds the sockets.
    pub(crate) fn keeps(&self) -> bool {
        self.newest.as_ref().is_some_and(|newest| newest.state == Some(KEEPING))
    }

    fn has(&self, pid: i32) -> bool {
        let newest = self.newest.as_ref().is_some_and(|newest| newest.daemon == pid);
        newest || self.older.iter().any(|older| older.daemon == pid)
    }

    /// The next look: what has happened since this one.
    pub(crate) fn advance(&mut self, mut now: Seen) -> Vec<String> {
        let lines = self.until(&now);
        // What it does not say now it has said before.
        if let (Some(before), Some(after)) = (&self.newest, &mut now.newest) {
            let is_same = before.daemon == after.daemon;
            after.failed = after.failed.or(before.failed.filter(|_| is_same));
        }
        *self = now;
        lines
    }

    /// What has happened since, a line each, in the order of a restart.
    fn until(&self, now: &Seen) -> Vec<String> {
        let mut lines = Vec::new();
        let both = self.newest.as_ref().zip(now.newest.as_ref());
        if let Some((before, after)) = both.filter(|(before, after)| before.daemon == after.daemon)
        {
            lines.extend(before.until(after));
        }
        match (self.starting, now.starting) {
            (before, Some(pid)) if before != Some(pid) && !self.has(pid) => {
                lines.push(format!("process {pid} starts"));
            }
            (Some(pid), None) if !now.has(pid) => {
                lines.push(format!("process {pid} has given up its start"));
            }
            _ => {}
        }
        let is_back = |(before, after): &(&Newest, &Newest)| {
            after.number < before.number && self.has(after.daemon)
        };
        if let Some((before, Newest { number, daemon, .. })) = both.filter(is_back) {
            lines.push(format!(
                "generation {number} (daemon {daemon}) serves again: generation {} has failed",
                before.number
            ));
        }
        if let Some(Newest { number, daemon, on_probation, .. }) =
            now.newest.as_ref().filter(|one| !self.has(one.daemon))
        {
            lines.push(match &self.newest {
                Some(_) if *on_probation => {
                    format!("generation {number} (daemon {daemon}) serves, on probation")
                }
                _ if now.keeps() => {
                    format!("a keeper (process {daemon}) holds the sockets after a crash")
                }
                Some(before) if now.has(before.daemon) || *number > before.number => {
                    format!(
                        "generation {number} (daemon {daemon}) took over from generation {}",
                        before.number
                    )
                }
                _ => format!("generation {number} (daemon {daemon}) has started"),
            });
        }
        let is_new = |older: &&Older| self.older.iter().all(|before| before != *older);
        for Older { number, daemon, stands_by } in now.older.iter().filter(is_new) {
            let does = if *stands_by { "stands by" } else { "drains" };
            lines.push(format!("generation {number} (daemon {daemon}) {does}"));
        }
        let before = self.newest.iter().map(|one| (one.number, one.daemon));
        let before = before.chain(self.older.iter().map(|one| (one.number, one.daemon)));
        for (number, daemon) in before.filter(|(_, daemon)| !now.has(*daemon)) {
            lines.push(format!("generation {number} (daemon {daemon}) has ended"));
        }
        lines.iter().map(|line| words::line(line)).collect()
    }
}

impl Newest {
    /// The same process, later.
    fn until(&self, now: &Newest) -> Vec<String> {
        let Newest { number, daemon, .. } = now;
        let mut lines = Vec::new();
        if self.on_probation && !now.on_probation {
            lines.push(format!("generation {number} (daemon {daemon}) has passed its probation"));
        }
        if self.failed.is_some_and(|before| now.failed > Some(before)) {
            let why = now.failure.as_deref().unwrap_or("it did not say why");
            lines.push(format!("a restart has failed: {why}"));
        }
        let text = match (self.state, now.state) {
            (before, after) if before == after => return lines,
            (_, None) | (None, Some("serving")) => return lines,
            (_, Some("handing-off")) => "prepares: its on_shutdown_request hooks run",
            (_, Some("detached")) => "serves on, detached: its launcher has ended",
            (_, Some("serving")) => "serves on: the handoff was given up",
            (_, Some("leaving")) => "is told to stop, and serves on until its drain begins",
            (_, Some("draining")) => "drains",
            (_, Some(other)) => other,
        };
        lines.push(format!("generation {number} (daemon {daemon}) {text}"));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::{KEEPING, Newest, Older, Seen};

    fn newest(number: u64, state: &'static str) -> Option<Newest> {
        let daemon = 100 + number as i32;
        let on_probation = false;
        let (state, failed) = (Some(state), Some(0));
        Some(Newest { number, daemon, on_probation, state, failed, failure: None })
    }

    fn older(number: u64) -> Older {
        Older { number, daemon: 100 + number as i32, stands_by: false }
    }

    /// What is told of these looks, one after the other.
    fn told(looks: &[Seen]) -> Vec<String> {
        looks.windows(2).flat_map(|two| two[0].until(&two[1])).collect()
    }

    #[test]
    fn a_restart_stage_by_stage() {
        let seen =
            |newest, older: &[Older], starting| Seen { newest, older: older.to_vec(), starting };
        let looks = [
            seen(newest(1, "serving"), &[], None),
            seen(newest(1, "handing-off"), &[], None),
            seen(newest(1, "detached"), &[], None),
            seen(newest(1, "detached"), &[], Some(102)),
            seen(newest(2, "serving"), &[older(1)], None),
            seen(newest(2, "serving"), &[older(1)], None),
            seen(newest(2, "serving"), &[], None),
        ];
        let expected = [
            "generation 1 (daemon 101) prepares: its on_shutdown_request hooks run",
            "generation 1 (daemon 101) serves on, detached: its launcher has ended",
            "process 102 starts",
            "generation 2 (daemon 102) took over from generation 1",
            "generation 1 (daemon 101) drains",
            "generation 1 (daemon 101) has ended",
        ];
        assert_eq!(told(&looks), expected);
        // Too fast to see each stage.
        assert_eq!(told(&[looks[0].clone(), looks[6].clone()]), [expected[3], expected[5]]);
    }

    #[test]
    fn a_probation_that_is_passed_and_one_that_fails() {
        let proven = |number, older: &[Older]| Seen {
            newest: newest(number, "serving"),
            older: older.to_vec(),
            starting: None,
        };
        let mut tried = proven(2, &[Older { stands_by: true, ..older(1) }]);
        tried.newest.as_mut().expect("a generation").on_probation = true;
        let begins = [
            "generation 2 (daemon 102) serves, on probation",
            "generation 1 (daemon 101) stands by",
        ];
        let passed = [
            "generation 2 (daemon 102) has passed its probation",
            "generation 1 (daemon 101) drains",
        ];
        let looks = [proven(1, &[]), tried.clone(), proven(2, &[older(1)])];
        assert_eq!(told(&looks), [begins, passed].concat());
        let failed = [
            "generation 1 (daemon 101) serves again: generation 2 has failed",
            "generation 2 (daemon 102) drains",
        ];
        let looks = [proven(1, &[]), tried.clone(), proven(1, &[older(2)])];
        assert_eq!(told(&looks), [begins, failed].concat());
        assert_eq!(told(&[tried, proven(1, &[])])[1], "generation 2 (daemon 102) has ended");
    }

    #[test]
    fn a_start_that_comes_to_nothing_and_a_restart_that_fails() {
        let serving = |starting| Seen { newest: newest(1, "serving"), older: Vec::new(), starting };
        let mut failed = serving(None);
        let one = failed.newest.as_mut().expect("a generation");
        (one.failed, one.failure) = (Some(1), Some("exit\n3".to_owned()));
        assert_eq!(
            told(&[serving(None), serving(Some(102)), failed]),
            [
                "process 102 starts",
                "a restart has failed: exit 3",
                "process 102 has given up its start"
            ]
        );
    }

    #[test]
    fn an_old_failure_is_not_told_as_a_new_one() {
        let of = |failed| {
            let mut seen = Seen { newest: newest(1, "serving"), ..Seen::default() };
            seen.newest.as_mut().expect("a generation").failed = failed;
            seen
        };
        // The first question is not answered, nor is one between two others.
        let mut seen = of(None);
        for (failed, told) in
            [(None, 0), (Some(3), 0), (None, 0), (Some(3), 0), (None, 0), (Some(4), 1)]
        {
            assert_eq!(seen.advance(of(failed)).len(), told, "{failed:?}");
        }
        // Another process begins anew.
        let other = Seen { newest: newest(2, "serving"), ..Seen::default() };
        seen.advance(other);
        assert_eq!(seen.newest.expect("a generation").failed, Some(0));
    }

    #[test]
    fn a_crash_a_stop_and_a_first_start() {
        let none = Seen::default();
        let of = |number, state| Seen { newest: newest(number, state), ..Seen::default() };
        assert_eq!(
            told(&[of(1, "serving"), none.clone(), of(2, "serving"), of(2, "draining"), none]),
            [
                "generation 1 (daemon 101) has ended",
                "generation 2 (daemon 102) has started",
                "generation 2 (daemon 102) drains",
                "generation 2 (daemon 102) has ended",
            ]
        );
        assert_eq!(
            told(&[of(1, "serving"), of(2, KEEPING), of(3, "serving")]),
            [
                "a keeper (process 102) holds the sockets after a crash",
                "generation 1 (daemon 101) has ended",
                "generation 3 (daemon 103) took over from generation 2",
                "generation 2 (daemon 102) has ended",
            ]
        );
        // It did not answer meanwhile.
        let mut silent = of(1, "serving");
        silent.newest.as_mut().expect("a generation").state = None;
        assert!(told(&[of(1, "serving"), silent.clone(), of(1, "serving")]).is_empty());
    }
}
