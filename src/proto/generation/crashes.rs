//! Crashes in a row, and how long a keeper keeps. Each generation that follows a crash carries the time of
//! the first one in its line of the record, until it has served for [`PROVEN`].
//!
//! Guards against a service that crashes at each start: its port would look healthy for ever, and be
//! silent.

use super::clock::SinceBoot;
use super::proof::World;
use super::record::{Generation, LineState, Row};
use std::time::Duration;

/// A generation that has served for so long ends a row of crashes.
const PROVEN: Duration = Duration::from_secs(10);

/// What the line of a generation says that is about to serve. `record`: the lines of those before it, of
/// this boot or others.
pub(crate) fn carried<'a>(
    record: impl IntoIterator<Item = &'a Generation>,
    here: &World,
    now: SinceBoot,
) -> Option<Row> {
    let of_boot = record.into_iter().filter(|one| may_be_of_this_boot(one, here));
    let newest = of_boot.filter(|one| one.state.is_some()).max_by_key(|one| one.number)?;
    let Row { first, served_since } = newest.crashes?;
    let is_over = served_since.is_some_and(|since| now.saturating_sub(since) >= PROVEN);
    (!is_over && first <= now).then_some(Row { first, served_since: Some(now) })
}

/// Is the line not known to be of another boot? Its times mean nothing then.
pub(crate) fn may_be_of_this_boot(line: &Generation, here: &World) -> bool {
    match (World::of(line).boot, &here.boot) {
        (Some(its), Some(ours)) => its == *ours,
        (None, _) | (_, None) => true,
    }
}

/// The row that a keeper's line says. `before`: what the line of the crashed generation said. `served`:
/// how long that one had served.
pub(crate) fn after_crash(before: Option<Row>, served: Duration, now: SinceBoot) -> Row {
    let going_on = before.filter(|_| served < PROVEN);
    let first = going_on.map(|row| row.first).filter(|first| *first <= now);
    Row { first: first.unwrap_or(now), served_since: None }
}

/// How long a keeper still keeps.
pub(crate) fn left(row: Row, keep_sockets: Duration, now: SinceBoot) -> Duration {
    row.first.saturating_add(keep_sockets).saturating_sub(now)
}

/// Is a keeper needed? Not if a generation serves: it has the same sockets. `others`: the state of each other
/// generation, and whether it lives.
pub(crate) fn needs_keeper(others: impl IntoIterator<Item = (Option<LineState>, bool)>) -> bool {
    !others.into_iter().any(|(state, lives)| lives && state.is_some_and(LineState::serves))
}

#[cfg(test)]
mod tests {
    use super::{World, after_crash, carried, left, needs_keeper};
    use crate::proto::generation::record::{Generation, LineState, Row};
    use std::time::Duration;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn here(boot: &str) -> World {
        World { boot: Some(boot.to_owned()), pid_namespace: Some(1) }
    }

    fn line(number: u64, state: LineState, crashes: Option<Row>) -> Generation {
        Generation { crashes, ..Generation::of_test(number, Some(state)) }
    }

    #[test]
    fn a_row_is_written_and_read() {
        for row in [
            Row { first: s(7), served_since: None },
            Row { first: s(7), served_since: Some(Duration::from_millis(8001)) },
        ] {
            assert_eq!(Row::parse(&row.to_string()), Some(row));
        }
        for bad in ["", ":", "7:", "x", "7:8:9", "-1"] {
            assert_eq!(Row::parse(bad), None, "{bad}");
        }
    }

    /// Generation 1 crashes at 100 s; each next one crashes after 3 s. The time counts from the first.
    #[test]
    fn p12_the_time_counts_from_the_first_crash_in_a_row() {
        let keep = s(10);
        let first = after_crash(None, s(3600), s(100));
        assert_eq!(left(first, keep, s(100)), s(10));
        let two = carried(&[line(1, LineState::Keeping, Some(first))], &here("this"), s(101));
        assert_eq!(two, Some(Row { first: s(100), served_since: Some(s(101)) }));
        let second = after_crash(two, s(3), s(104));
        assert_eq!((second.first, left(second, keep, s(104))), (s(100), s(6)));
        // A restart between two crashes does not end the row.
        let three = carried(&[line(2, LineState::Serving, two)], &here("this"), s(105));
        assert_eq!(three.map(|row| row.first), Some(s(100)));
        let third = after_crash(three, s(6), s(111));
        assert_eq!(left(third, keep, s(111)), s(0));
    }

    #[test]
    fn a_generation_that_has_served_for_ten_seconds_ends_the_row() {
        let row = Row { first: s(100), served_since: Some(s(101)) };
        assert_eq!(after_crash(Some(row), s(10), s(111)).first, s(111));
        assert_eq!(carried(&[line(2, LineState::Serving, Some(row))], &here("this"), s(111)), None);
        assert_eq!(
            carried(&[line(2, LineState::Serving, Some(row))], &here("other"), s(105)),
            None
        );
        // Of another boot, written before the clock began anew.
        let later = Row { first: s(900), served_since: None };
        assert_eq!(after_crash(Some(later), s(0), s(5)).first, s(5));
        // The newest line counts.
        let lines = [line(3, LineState::Serving, None), line(2, LineState::Draining, Some(row))];
        assert_eq!(carried(&lines, &here("this"), s(105)), None);
    }

    #[test]
    fn only_a_living_generation_that_serves_makes_a_keeper_needless() {
        assert!(needs_keeper([]));
        assert!(needs_keeper([
            (Some(LineState::Serving), false),
            (Some(LineState::Draining), true)
        ]));
        assert!(needs_keeper([(Some(LineState::Keeping), true), (None, true)]));
        assert!(!needs_keeper([(Some(LineState::Serving), true)]));
    }
}
