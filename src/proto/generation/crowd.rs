//! How many generations may drain at a time, and what becomes of one more.

use super::verdict::Facts;
use crate::proto::TooMany;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Crowd {
    pub(crate) most: usize,
    /// `None`: what drains is counted by a launcher that restarts in place, and by nobody else.
    pub(crate) then: Option<TooMany>,
}

impl Crowd {
    /// With so many a launcher that restarts in place refuses another one. If the oldest one has to make room, the
    /// new generation ends it.
    pub(crate) fn most_of_launcher(self) -> Option<usize> {
        (self.then != Some(TooMany::EndOldest)).then_some(self.most)
    }

    /// Does this generation count before it starts? In place, its launcher has counted.
    pub(crate) fn may_refuse(self, in_place: bool) -> bool {
        self.then == Some(TooMany::Refuse) && !in_place
    }

    /// May a further generation start? If none serves, it may. `others`: of the record, and whether it says of them
    /// that they drain.
    pub(crate) fn has_room(self, others: &[(Facts, bool)]) -> bool {
        let living = || others.iter().filter(|(facts, _)| facts.lives());
        let draining = living().filter(|(_, drains)| *drains).count();
        draining < self.most || living().all(|(facts, _)| !facts.serves)
    }

    /// Those generations that this one forces to end, so that no more than `most` drain: the oldest ones, by their
    /// place. Only one that was told to drain before may be forced.
    pub(crate) fn surplus(self, others: &[(Facts, bool)]) -> Vec<usize> {
        if self.then != Some(TooMany::EndOldest) {
            return Vec::new();
        }
        let mut living: Vec<usize> =
            (0..others.len()).filter(|place| others[*place].0.lives()).collect();
        living.sort_by_key(|place| others[*place].0.number);
        living.truncate(living.len().saturating_sub(self.most));
        living.retain(|place| others[*place].1);
        living
    }
}

#[cfg(test)]
mod tests {
    use super::Crowd;
    use crate::proto::TooMany;
    use crate::proto::generation::verdict::{Facts, Unproven};

    const fn crowd(most: usize, then: TooMany) -> Crowd {
        Crowd { most, then: Some(then) }
    }

    fn drains(number: u64) -> (Facts, bool) {
        (Facts::of_test(number, Ok(())), true)
    }

    fn serves(number: u64) -> (Facts, bool) {
        (Facts::of_test(number, Ok(())), false)
    }

    fn gone(number: u64) -> (Facts, bool) {
        (Facts::of_test(number, Err(Unproven::Gone)), true)
    }

    #[test]
    fn the_oldest_of_too_many_that_drain_make_room() {
        let surplus = |others: &[_], most| crowd(most, TooMany::EndOldest).surplus(others);
        let all = [drains(3), gone(1), serves(4), drains(2)];
        assert_eq!(surplus(&all, 3), [0; 0]);
        assert_eq!(surplus(&all, 2), [3]);
        assert_eq!(surplus(&all, 1), [3, 0]);
        assert_eq!(surplus(&[serves(4)], 1), [0; 0]);
        // What has just been told to drain is not forced, whatever the limit is.
        assert_eq!(surplus(&all, 0), [3, 0]);
        assert_eq!(crowd(0, TooMany::Refuse).surplus(&all), [0; 0]);
        assert_eq!(Crowd { most: 0, then: None }.surplus(&all), [0; 0]);
    }

    #[test]
    fn as_many_as_may_drain_are_no_more_than_that() {
        let has_room = |others: &[_], most| crowd(most, TooMany::Refuse).has_room(others);
        let all = [drains(3), gone(1), serves(4), drains(2)];
        assert!(has_room(&all, 3));
        assert!(!has_room(&all, 2));
        assert!(has_room(&[serves(4), gone(1), gone(2)], 1));
        let mut none_serves = [drains(2), drains(3)];
        assert!(!has_room(&none_serves, 1), "a draining line may still say that it served");
        none_serves.iter_mut().for_each(|(facts, _)| facts.serves = false);
        assert!(has_room(&none_serves, 1));
    }

    #[test]
    fn one_process_counts() {
        let (refuse, end) = (crowd(3, TooMany::Refuse), crowd(3, TooMany::EndOldest));
        let alone = Crowd { most: 3, then: None };
        assert_eq!([refuse, alone, end].map(Crowd::most_of_launcher), [Some(3), Some(3), None]);
        assert_eq!([refuse, alone, end].map(|one| one.may_refuse(false)), [true, false, false]);
        assert_eq!([refuse, alone, end].map(|one| one.may_refuse(true)), [false; 3]);
    }
}
