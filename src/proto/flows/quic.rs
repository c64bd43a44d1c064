//! Connection IDs of QUIC that say which generation, and which of its members, has made them.
//!
//! An ID has twelve bytes. The first eight are one block: slot (6 bits), member (10), random (16); check (24,
//! all zero), random (8). The block is enciphered with XTEA and the key that all generations of the group
//! share, so nobody else can read it, or make one that fits: of random blocks, one in 16 million does. The
//! last four bytes are random, so that IDs do not repeat.
//!
//! The program in the kernel *enciphers* to read a block, which needs fewer instructions. So an ID is made by
//! *deciphering*.

use super::{MEMBER_BITS, Secret, key};

/// The length of a connection ID.
pub(crate) const LENGTH: usize = 12;
/// The bytes that the program reads.
pub(crate) const BLOCK: usize = 8;
/// Random bytes for one ID.
pub(crate) const RANDOM: usize = 7;
const ROUNDS: u32 = 32;
const DELTA: u32 = 0x9e37_79b9;

/// What an ID says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mark {
    pub(crate) slot: u16,
    pub(crate) member: u16,
}

/// The key by which an endpoint makes the tokens of its stateless resets. All generations have the same.
pub(crate) fn reset_key(secret: &Secret) -> [u8; 32] {
    secret.0[32..].try_into().expect("32 bytes")
}

/// What is added in each of the 64 half rounds. Even ones change the first half of the block, odd ones the
/// second.
pub(super) fn schedule(secret: &Secret) -> Vec<u32> {
    let word = |at: usize| secret.0[4 * at..4 * at + 4].try_into().map(u32::from_be_bytes);
    let key: [u32; 4] = std::array::from_fn(|at| word(at).expect("four bytes"));
    let mut sum = 0_u32;
    let mut rounds = Vec::with_capacity(2 * ROUNDS as usize);
    for _ in 0..ROUNDS {
        rounds.push(sum.wrapping_add(key[(sum & 3) as usize]));
        sum = sum.wrapping_add(DELTA);
        rounds.push(sum.wrapping_add(key[(sum >> 11 & 3) as usize]));
    }
    rounds
}

fn mixed(half: u32, round: u32) -> u32 {
    ((half << 4 ^ half >> 5).wrapping_add(half)) ^ round
}

pub(super) fn encipher([mut first, mut second]: [u32; 2], schedule: &[u32]) -> [u32; 2] {
    for rounds in schedule.chunks_exact(2) {
        first = first.wrapping_add(mixed(second, rounds[0]));
        second = second.wrapping_add(mixed(first, rounds[1]));
    }
    [first, second]
}

pub(super) fn decipher([mut first, mut second]: [u32; 2], schedule: &[u32]) -> [u32; 2] {
    for rounds in schedule.chunks_exact(2).rev() {
        second = second.wrapping_sub(mixed(first, rounds[1]));
        first = first.wrapping_sub(mixed(second, rounds[0]));
    }
    [first, second]
}

/// Makes and reads IDs.
#[derive(Clone, Debug)]
pub(crate) struct Cipher(Vec<u32>);

impl Cipher {
    pub(crate) fn new(secret: &Secret) -> Cipher {
        Cipher(schedule(secret))
    }

    pub(crate) fn make(&self, mark: Mark, random: [u8; RANDOM]) -> [u8; LENGTH] {
        let [a, b, c, tail @ ..] = random;
        let [high, low] = (key(mark.slot, mark.member) as u16).to_be_bytes();
        let block = [u32::from_be_bytes([high, low, a, b]), u32::from(c)];
        let [first, second] = decipher(block, &self.0).map(u32::to_be_bytes);
        let mut id = [0; LENGTH];
        id[..4].copy_from_slice(&first);
        id[4..BLOCK].copy_from_slice(&second);
        id[BLOCK..].copy_from_slice(&tail);
        id
    }

    /// `None`: it was not made with this key.
    pub(crate) fn read(&self, id: &[u8]) -> Option<Mark> {
        let id: &[u8; LENGTH] = id.try_into().ok()?;
        let word = |at: usize| id[at..at + 4].try_into().map(u32::from_be_bytes);
        let [first, second] = encipher([word(0).ok()?, word(4).ok()?], &self.0);
        let key = first >> 16;
        let mark = Mark {
            slot: (key >> MEMBER_BITS) as u16,
            member: (key & ((1 << MEMBER_BITS) - 1)) as u16,
        };
        (second >> 8 == 0 && mark.slot > 0).then_some(mark)
    }
}
