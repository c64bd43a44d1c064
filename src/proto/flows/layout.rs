//! Whose socket stands at each place of a group, in the kernel's order.

use super::{Owner, Steer, key};
use std::collections::BTreeSet;

/// The sockets of a group, in the order in which the kernel numbers them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Layout {
    /// `None`: the generation that it belonged to has ended.
    places: Vec<Option<Owner>>,
}

/// The places of a new generation, by member. A place beyond those that there were has to be bound, in this
/// order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Admitted {
    pub(crate) slot: u16,
    pub(crate) places: Vec<usize>,
}

/// Every number that can stand for a generation belongs to one that lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoSlot {
    /// So many generations may live at the same time.
    pub(crate) generations: u16,
}

impl Layout {
    /// As it was handed over, in the kernel's order.
    pub(crate) fn new(places: Vec<Option<Owner>>) -> Layout {
        Layout { places }
    }

    pub(crate) fn places(&self) -> &[Option<Owner>] {
        &self.places
    }

    /// The generations that have sockets here.
    pub(crate) fn generations(&self) -> BTreeSet<u64> {
        self.places.iter().flatten().map(|owner| owner.generation).collect()
    }

    /// How a generation marks its datagrams, and its slot.
    pub(crate) fn mark_of(&self, generation: u64) -> Option<(Steer, u16)> {
        let mut owners = self.places.iter().flatten();
        owners.find(|owner| owner.generation == generation).map(|owner| (owner.steer, owner.slot))
    }

    /// The order as a newer generation knows it, which has bound more members. `same`: is it the same socket at
    /// this place? `None`: it is the order of another group.
    pub(crate) fn grown(&self, theirs: &Layout, same: impl Fn(usize) -> bool) -> Option<Layout> {
        let known = self.places.len();
        let grows = known <= theirs.places.len() && (0..known).all(same);
        grows.then(|| theirs.clone())
    }

    /// The places of a generation, by member.
    pub(crate) fn places_of(&self, generation: u64) -> Vec<usize> {
        let own = |(at, owner): (usize, &Option<Owner>)| {
            owner.filter(|owner| owner.generation == generation).map(|owner| (owner.member, at))
        };
        let mut places: Vec<(u16, usize)> =
            self.places.iter().enumerate().filter_map(own).collect();
        places.sort_unstable();
        places.into_iter().map(|(_, at)| at).collect()
    }

    /// Frees the places of generations that have ended. Returns those generations.
    pub(crate) fn free(&mut self, lives: impl Fn(u64) -> bool) -> BTreeSet<u64> {
        let mut ended = BTreeSet::new();
        for place in &mut self.places {
            if let Some(owner) = place.filter(|owner| !lives(owner.generation)) {
                ended.insert(owner.generation);
                *place = None;
            }
        }
        ended
    }

    /// Gives a new generation so many places: free ones first, and of these the `first` ones before others.
    /// `usable`: may the socket at this place be used again? Its slot is the next one that no living generation
    /// has, so that a slot is used again as late as can be: what still comes for a generation that has ended is
    /// known to be for none that lives.
    pub(crate) fn admit(
        &mut self,
        generation: u64,
        members: usize,
        steer: Steer,
        first: &[usize],
        usable: impl Fn(usize) -> bool,
    ) -> Result<Admitted, NoSlot> {
        let max = steer.slot_max();
        let taken: BTreeSet<u16> = self.places.iter().flatten().map(|owner| owner.slot).collect();
        let newest = self.generations().last().and_then(|newest| self.mark_of(*newest));
        let last = newest.map_or(0, |(_, slot)| slot.min(max));
        let mut slots = (last + 1..=max).chain(1..=last);
        let slot = slots.find(|slot| !taken.contains(slot)).ok_or(NoSlot { generations: max })?;
        let is_free = |at: &usize| self.places[*at].is_none() && usable(*at);
        let mut places: Vec<usize> = (0..self.places.len()).filter(is_free).collect();
        places.sort_by_key(|at| !first.contains(at));
        places.truncate(members);
        let new = self.places.len()..self.places.len() + members - places.len();
        self.places.extend(new.clone().map(|_| None));
        places.extend(new);
        for (member, at) in places.iter().enumerate() {
            let member = member as u16;
            self.places[*at] = Some(Owner { generation, slot, member, steer });
        }
        Ok(Admitted { slot, places })
    }

    /// Runs of members that follow each other in the kernel's order as well: the first key, the number of
    /// members, and the first place.
    pub(super) fn runs(&self, is_in: impl Fn(&Owner) -> bool) -> Vec<(u32, u32, u32)> {
        let all = self.places.iter().zip(0..);
        let mut keys: Vec<(u32, u32)> = all
            .filter_map(|(owner, at)| owner.filter(&is_in).map(|owner| (owner, at)))
            .map(|(owner, at)| (key(owner.slot, owner.member), at))
            .collect();
        keys.sort_unstable();
        let mut runs: Vec<(u32, u32, u32)> = Vec::new();
        for (key, at) in keys {
            match runs.last_mut() {
                Some((first, count, place)) if *first + *count == key && *place + *count == at => {
                    *count += 1;
                }
                _ => runs.push((key, 1, at)),
            }
        }
        runs
    }
}
