//! Counters in memory that all generations share: how the memory is laid out.
//!
//! ```text
//! head   128 bytes: a mark, the version of the layout, the number of slots
//! slot   128 bytes, 4,096 times: the hash of the name, the value, the length of the name, the name
//! ```
//!
//! Everything is a word of 64 bits that is only read and written as a whole, so no lock is needed and a
//! process may be KILLed at any instruction. A slot is found by the hash of its name, from the place that the
//! hash gives onwards. It belongs to a name as soon as the hash stands in it, which one compare-and-swap
//! does. The name follows. If it is missing, since its writer was KILLed, the next one that asks for it writes
//! it: two writers of one name write the same words.
//!
//! The hash and the layout never change within a version of the layout.

use crate::proto::paths::fnv;
use std::sync::atomic::{AtomicU64, Ordering};

/// The name of the descriptor as which the memory travels.
pub(crate) const DESCRIPTOR: &str = "seamless/counters";
/// A name has no more bytes.
pub(crate) const NAME_MAX: usize = 100;
/// There are no more counters.
pub(crate) const SLOTS: usize = 4096;
/// Words of the head, and of each slot.
const STEP: usize = 16;
const WORDS: usize = STEP * (1 + SLOTS);
/// The size of the memory.
pub(crate) const BYTES: usize = WORDS * 8;

const MARK: u64 = u64::from_ne_bytes(*b"seamless");
const LAYOUT: u64 = 1;

// Within a slot.
const HASH: usize = 0;
const VALUE: usize = 1;
const LENGTH: usize = 2;
const NAME: usize = 3;

/// Why memory of the right size holds no counters that this version can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// Its mark is missing.
    Foreign,
    /// The version of its layout.
    Layout(u64),
}

/// The counters in this memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table<'a>(&'a [AtomicU64]);

impl<'a> Table<'a> {
    /// Of fresh memory, which is all zeroes. Nobody else uses it yet.
    pub(crate) fn make(words: &'a [AtomicU64]) -> Table<'a> {
        assert_eq!(words.len(), WORDS);
        for (word, value) in words.iter().zip([MARK, LAYOUT, SLOTS as u64]) {
            word.store(value, Ordering::Release);
        }
        Table(words)
    }

    /// Of memory that a predecessor has made.
    pub(crate) fn open(words: &'a [AtomicU64]) -> Result<Table<'a>, Unusable> {
        assert_eq!(words.len(), WORDS);
        check(|at| words[at].load(Ordering::Acquire))?;
        Ok(Table(words))
    }

    /// The counter of this name, which is made if there is none. `None`: there is no room.
    pub(crate) fn get(self, name: &str) -> Option<&'a AtomicU64> {
        let hash = hash(name);
        let first = hash as usize % SLOTS;
        for at in (first..SLOTS).chain(0..first) {
            let slot = &self.0[STEP * (1 + at)..][..STEP];
            let mut there = slot[HASH].load(Ordering::Acquire);
            if there == 0 {
                let (done, failed) = (Ordering::AcqRel, Ordering::Acquire);
                there = slot[HASH].compare_exchange(0, hash, done, failed).err().unwrap_or(hash);
            }
            if there == hash {
                if slot[LENGTH].load(Ordering::Acquire) == 0 {
                    for (word, value) in slot[NAME..].iter().zip(words_of(name)) {
                        word.store(value, Ordering::Relaxed);
                    }
                    slot[LENGTH].store(name.len() as u64, Ordering::Release);
                }
                return Some(&slot[VALUE]);
            }
        }
        None
    }
}

fn check(word: impl Fn(usize) -> u64) -> Result<(), Unusable> {
    match (word(0), word(1), word(2)) {
        (MARK, LAYOUT, slots) if slots == SLOTS as u64 => Ok(()),
        (MARK, layout, _) => Err(Unusable::Layout(layout)),
        _ => Err(Unusable::Foreign),
    }
}

/// All counters with their names, in the order of these, from a copy of the memory. A name that is no text is
/// left out.
pub(crate) fn list(bytes: &[u8]) -> Result<Vec<(String, u64)>, Unusable> {
    let word = |at: usize| {
        let bytes = bytes.get(8 * at..8 * at + 8).and_then(|bytes| bytes.try_into().ok());
        u64::from_ne_bytes(bytes.unwrap_or_default())
    };
    check(word)?;
    let slot = |at: usize| {
        let first = STEP * (1 + at);
        let length = usize::try_from(word(first + LENGTH)).ok()?;
        // A slot that is free, or whose name is not complete, has length 0.
        if !(1..=NAME_MAX).contains(&length) {
            return None;
        }
        let name = (first + NAME..).flat_map(|at| word(at).to_ne_bytes());
        let name = String::from_utf8(name.take(length).collect()).ok()?;
        Some((name, word(first + VALUE)))
    };
    let mut all: Vec<(String, u64)> = (0..SLOTS).filter_map(slot).collect();
    all.sort();
    Ok(all)
}

/// The name, and zeroes behind it without an end.
fn words_of(name: &str) -> impl Iterator<Item = u64> {
    let bytes = name.as_bytes();
    (0..).map(move |at: usize| {
        let mut word = [0; 8];
        let part = bytes.get(8 * at..).unwrap_or_default();
        let count = part.len().min(8);
        word[..count].copy_from_slice(&part[..count]);
        u64::from_ne_bytes(word)
    })
}

/// FNV-1a with a last mix, which spreads short names over all slots. Never 0: that is an empty slot.
fn hash(name: &str) -> u64 {
    let hash = fnv(name.as_bytes());
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).max(1)
}

#[cfg(test)]
mod tests {
    use super::{AtomicU64, BYTES, LAYOUT, MARK, NAME_MAX, Ordering, SLOTS, STEP, Table, WORDS};
    use super::{Unusable, hash, list};
    use std::collections::HashSet;
    use std::thread;

    fn memory() -> Vec<AtomicU64> {
        (0..WORDS).map(|_| AtomicU64::new(0)).collect()
    }

    fn copy(words: &[AtomicU64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.load(Ordering::SeqCst).to_ne_bytes()).collect()
    }

    #[test]
    fn the_layout_stays() {
        assert_eq!(BYTES, 128 * 4097);
        assert_eq!(hash("requests"), 0x4ef7_874a_2aaf_7a75);
        let words = memory();
        let table = Table::make(&words);
        table.get("requests").expect("room").store(7, Ordering::SeqCst);
        let slot = hash("requests") as usize % SLOTS;
        let first = STEP * (1 + slot);
        let expected = [hash("requests"), 7, 8, u64::from_ne_bytes(*b"requests"), 0];
        let there: Vec<u64> =
            words[first..first + 5].iter().map(|w| w.load(Ordering::SeqCst)).collect();
        assert_eq!(there, expected);
    }

    #[test]
    fn each_name_has_its_own_counter_until_there_is_no_room() {
        let words = memory();
        let table = Table::make(&words);
        let name = |at: usize| format!("{at}{}", "x".repeat(NAME_MAX - 4));
        let all: HashSet<*const AtomicU64> =
            (0..SLOTS).map(|at| table.get(&name(at)).expect("room") as *const _).collect();
        assert_eq!(all.len(), SLOTS);
        assert!(table.get("one more").is_none());
        for at in 0..SLOTS {
            table.get(&name(at)).expect("it is there").fetch_add(at as u64, Ordering::SeqCst);
        }
        let mut expected: Vec<(String, u64)> = (0..SLOTS).map(|at| (name(at), at as u64)).collect();
        expected.sort();
        assert_eq!(list(&copy(&words)), Ok(expected));
    }

    #[test]
    fn threads_and_later_generations_count_in_the_same_place() {
        let words = memory();
        Table::make(&words);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let table = Table::open(&words).expect("a table");
                    for at in 0..2000 {
                        let counter = table.get(&format!("c{}", at % 200)).expect("room");
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let all = list(&copy(&words)).expect("a table");
        assert_eq!(all.len(), 200);
        assert!(all.iter().all(|(_, value)| *value == 80), "{all:?}");
    }

    /// Its writer was KILLed after each step.
    #[test]
    fn p9_a_name_that_was_written_half_is_completed() {
        for done in 0..4 {
            let words = memory();
            let table = Table::make(&words);
            let first = STEP * (1 + hash("half-written") as usize % SLOTS);
            words[first].store(hash("half-written"), Ordering::SeqCst);
            for (at, part) in [*b"half-wri", *b"tten\0\0\0\0"].into_iter().enumerate().take(done) {
                words[first + 3 + at].store(u64::from_ne_bytes(part), Ordering::SeqCst);
            }
            assert_eq!(list(&copy(&words)), Ok(vec![]));
            table.get("half-written").expect("room").fetch_add(1, Ordering::SeqCst);
            assert_eq!(list(&copy(&words)), Ok(vec![("half-written".to_owned(), 1)]));
        }
    }

    #[test]
    fn p10_memory_that_holds_something_else_is_refused_or_passed_over() {
        let words = memory();
        assert_eq!(Table::open(&words).err(), Some(Unusable::Foreign));
        words[0].store(MARK, Ordering::SeqCst);
        words[1].store(LAYOUT + 1, Ordering::SeqCst);
        assert_eq!(Table::open(&words).err(), Some(Unusable::Layout(LAYOUT + 1)));
        words[1].store(LAYOUT, Ordering::SeqCst);
        assert_eq!(Table::open(&words).err(), Some(Unusable::Layout(LAYOUT)), "no slots");
        assert_eq!(list(&[]), Err(Unusable::Foreign));
        // Words at random: nothing is read out of bounds, and nothing hangs.
        let mut state = 1_u64;
        for word in &words[3..] {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            word.store(state >> 3, Ordering::SeqCst);
        }
        words[2].store(SLOTS as u64, Ordering::SeqCst);
        let table = Table::open(&words).expect("its head is right");
        assert!(table.get("anything").is_none());
        list(&copy(&words)).expect("its head is right");
        let bytes = copy(&words);
        list(&bytes[..BYTES / 3]).expect("its head is right");
    }
}
