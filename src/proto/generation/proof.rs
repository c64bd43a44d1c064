//! Is this process the one that the record names? (P5) What cannot be compared is unknown, and nothing that is
//! unknown counts as gone: a sandbox may hide from one generation, or from a command, what another one has
//! written down.

use super::record::{Generation, Identity};
use super::verdict::Unproven;

/// In the record, if it was unknown to the generation.
pub(crate) const NO_BOOT: &str = "unknown";
/// In the record, if it was unknown to the generation.
pub(crate) const NO_NAMESPACE: u64 = 0;
/// Without a `/proc`, the start time in the record.
pub(crate) const NO_START: u64 = 0;

/// Where a PID and a start time mean something. What is `None` cannot be known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct World {
    pub(crate) boot: Option<String>,
    pub(crate) pid_namespace: Option<u64>,
}

impl World {
    /// The one that a line of the record is about.
    pub(crate) fn of(generation: &Generation) -> World {
        let Generation { boot, pid_namespace, .. } = generation;
        World {
            boot: Some(boot.clone()).filter(|boot| boot != NO_BOOT),
            pid_namespace: Some(*pid_namespace).filter(|number| *number != NO_NAMESPACE),
        }
    }
}

/// What there is to see of a PID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sight {
    /// There is no such process, or it has ended.
    pub(crate) is_missing: bool,
    /// A pidfd holds it, so what was compared is what is held.
    pub(crate) is_held: bool,
    /// What `/proc` shows; `None` if it is hidden.
    pub(crate) identity: Option<Identity>,
}

/// `of_this_boot`: it is known that the line is of this boot, whatever it says. A process that holds the lock on
/// the PID file has put it there since the last boot.
pub(crate) fn prove(
    who: Identity,
    theirs: &World,
    here: &World,
    of_this_boot: bool,
    sight: Sight,
) -> Result<(), Unproven> {
    let boot = is_same(&theirs.boot, &here.boot);
    let namespace = is_same(&theirs.pid_namespace, &here.pid_namespace);
    match (boot, namespace) {
        (Some(false), _) => return Err(Unproven::Gone),
        (_, Some(false)) => return Err(Unproven::Elsewhere),
        (Some(true) | None, Some(true) | None) => {}
    }
    let is_another = |now: Identity| who.start != NO_START && now != who;
    if sight.is_missing || sight.identity.is_some_and(is_another) {
        // Its number may be one of another namespace.
        return Err(match namespace.is_none() && of_this_boot {
            true => Unproven::Unknown,
            false => Unproven::Gone,
        });
    }
    let is_known = namespace == Some(true) && (boot == Some(true) || of_this_boot);
    match sight.identity == Some(who) && sight.is_held && is_known {
        true => Ok(()),
        false => Err(Unproven::Unknown),
    }
}

/// `None` if one of them is unknown.
fn is_same<T: PartialEq>(one: &Option<T>, other: &Option<T>) -> Option<bool> {
    Some(one.as_ref()? == other.as_ref()?)
}

#[cfg(test)]
mod tests {
    use super::{NO_BOOT, NO_NAMESPACE, NO_START, Sight, World, prove};
    use crate::proto::generation::record::{Generation, Identity};
    use crate::proto::generation::verdict::Unproven::{Elsewhere, Gone, Unknown};

    const WHO: Identity = Identity { pid: 7, start: 70 };
    const SEEN: Sight = Sight { is_missing: false, is_held: true, identity: Some(WHO) };

    fn world(boot: &str, pid_namespace: u64) -> World {
        World {
            boot: (boot != "?").then(|| boot.to_owned()),
            pid_namespace: (pid_namespace != 0).then_some(pid_namespace),
        }
    }

    #[test]
    fn a_process_that_is_seen_is_proven_by_all_that_it_can_be_compared_with() {
        for (theirs, here, by_record, by_lock) in [
            (world("a", 1), world("a", 1), Ok(()), Ok(())),
            (world("a", 1), world("b", 1), Err(Gone), Err(Gone)),
            (world("a", 1), world("a", 2), Err(Elsewhere), Err(Elsewhere)),
            // Hidden from the old generation, from the new one, from both.
            (world("?", 1), world("a", 1), Err(Unknown), Ok(())),
            (world("a", 1), world("?", 1), Err(Unknown), Ok(())),
            (world("?", 1), world("?", 1), Err(Unknown), Ok(())),
            (world("?", 1), world("a", 2), Err(Elsewhere), Err(Elsewhere)),
            (world("a", 0), world("a", 1), Err(Unknown), Err(Unknown)),
            (world("?", 0), world("?", 0), Err(Unknown), Err(Unknown)),
            (world("a", 0), world("b", 1), Err(Gone), Err(Gone)),
        ] {
            let proven = |of_this_boot| prove(WHO, &theirs, &here, of_this_boot, SEEN);
            assert_eq!((proven(false), proven(true)), (by_record, by_lock), "{theirs:?} {here:?}");
        }
    }

    #[test]
    fn what_a_generation_did_not_know_is_unknown_in_its_line() {
        let line = Generation::of_test(1, None);
        assert_eq!(World::of(&line), world("this", 1));
        let boot = Generation { boot: NO_BOOT.to_owned(), ..line.clone() };
        assert_eq!(World::of(&boot), world("?", 1));
        assert_eq!(
            World::of(&Generation { pid_namespace: NO_NAMESPACE, ..line }),
            world("this", 0)
        );
    }

    #[test]
    fn what_is_hidden_is_unknown_and_never_gone() {
        let here = world("a", 1);
        for sight in [Sight { identity: None, ..SEEN }, Sight { is_held: false, ..SEEN }] {
            for lock in [false, true] {
                assert_eq!(prove(WHO, &here, &here, lock, sight), Err(Unknown), "{sight:?}");
            }
        }
        let no_start = Identity { start: NO_START, ..WHO };
        assert_eq!(prove(no_start, &here, &here, true, SEEN), Err(Unknown));
    }

    #[test]
    fn a_number_that_is_free_or_of_another_process_is_gone_in_the_same_namespace() {
        let other = Identity { start: 71, ..WHO };
        for sight in [
            Sight { is_missing: true, identity: None, ..SEEN },
            Sight { is_missing: true, is_held: false, ..SEEN },
            Sight { identity: Some(other), ..SEEN },
            Sight { identity: Some(other), is_held: false, ..SEEN },
        ] {
            for boot in ["a", "?"] {
                let here = world(boot, 1);
                assert_eq!(prove(WHO, &world("a", 1), &here, true, sight), Err(Gone), "{sight:?}");
            }
            // Whoever holds the PID file lives, under another number.
            assert_eq!(prove(WHO, &world("a", 0), &world("a", 1), true, sight), Err(Unknown));
            assert_eq!(prove(WHO, &world("a", 0), &world("a", 1), false, sight), Err(Gone));
        }
    }
}
