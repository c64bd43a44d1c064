//! The program that chooses among the sockets of a group.

use super::bpf::{self, Assembler, Instruction, Label};
use super::layout::Layout;
use super::{Owner, Secret, Steer, key, quic};
use std::collections::BTreeMap;

/// The program would be longer than the kernel accepts: too many members, in too mixed an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong {
    pub(crate) instructions: usize,
}

// What the program remembers.
const FIRST: u32 = 0;
const SECOND: u32 = 1;
/// Made of the sender's address and port.
const SENDER: u32 = 2;

/// Flows of each generation that has sockets in the group go to that generation. All else goes to the
/// generation `newest`, which has sockets in it.
pub(crate) fn program(
    layout: &Layout,
    newest: u64,
    secret: &Secret,
) -> Result<Vec<Instruction>, TooLong> {
    let owners = layout.places().iter().flatten();
    let generations: BTreeMap<u64, &Owner> =
        owners.map(|owner| (owner.generation, owner)).collect();
    let mut asm = Assembler::default();
    sender(&mut asm);
    if generations.values().any(|one| one.steer == Steer::Quic) {
        by_connection_id(&mut asm, layout, secret);
    }
    for one in generations.values() {
        if let Steer::Bytes { offset, mask } = one.steer {
            by_value(&mut asm, layout, one, offset, mask);
        }
    }
    let steer = generations.get(&newest).map(|one| one.steer);
    if steer == Some(Steer::Quic) {
        spread_by_connection_id(&mut asm);
    } else {
        asm.op(bpf::LOAD_MEMORY, SENDER);
    }
    pick(&mut asm, layout, newest);
    let program = asm.finish();
    match program.len() {
        instructions if instructions > bpf::PROGRAM_MAX => Err(TooLong { instructions }),
        _ => Ok(program),
    }
}

/// Remembers a number for the sender, made of its port and the end of its address, and leaves it in A. A packet
/// that is too short ends the program, which then returns 0.
pub(crate) fn sender(asm: &mut Assembler) {
    let (v6, known) = (asm.label(), asm.label());
    asm.op(bpf::LOAD_BYTE, bpf::IP);
    asm.op(bpf::SHIFT_RIGHT, 4); // the version of IP
    asm.jump_if(bpf::JUMP_IF_EQUAL, 6, v6);
    // IPv4: the port follows the header, whose length is in its first byte.
    asm.op(bpf::LOAD_BYTE, bpf::IP);
    asm.op(bpf::AND, 15);
    asm.op(bpf::SHIFT_LEFT, 2);
    asm.op(bpf::A_TO_X, 0);
    asm.op(bpf::LOAD_HALF_AT_X, bpf::IP);
    asm.op(bpf::A_TO_X, 0);
    asm.op(bpf::LOAD_WORD, bpf::IP + 12);
    asm.jump(known);
    asm.place(v6);
    asm.op(bpf::LOAD_HALF, bpf::IP + 40);
    asm.op(bpf::A_TO_X, 0);
    asm.op(bpf::LOAD_WORD, bpf::IP + 20);
    asm.place(known);
    asm.op(bpf::ADD_X, 0);
    hash(asm);
    asm.op(bpf::STORE, SENDER);
}

/// Spreads adjacent numbers.
fn hash(asm: &mut Assembler) {
    asm.op(bpf::MULTIPLY, 0x9e37_79b1);
    asm.op(bpf::SHIFT_RIGHT, 16);
}

/// A datagram whose destination connection ID was made by a generation that lives goes to the member that
/// has made it.
fn by_connection_id(asm: &mut Assembler, layout: &Layout, secret: &Secret) {
    const SHORT: u32 = 1;
    /// Behind the first byte, the version and the length of the ID.
    const LONG: u32 = 6;
    let (id, block) = (quic::LENGTH as u32, quic::BLOCK as u32);
    let (long, read, other) = (asm.label(), asm.label(), asm.label());
    let load = |asm: &mut Assembler, at: u32| {
        asm.op(bpf::LOAD_WORD, at);
        asm.op(bpf::STORE, FIRST);
        asm.op(bpf::LOAD_WORD, at + block / 2);
        asm.op(bpf::STORE, SECOND);
    };
    asm.op(bpf::LOAD_LENGTH, 0);
    asm.jump_unless(bpf::JUMP_IF_AT_LEAST, SHORT + id, other);
    asm.op(bpf::LOAD_BYTE, 0);
    asm.jump_if(bpf::JUMP_IF_ANY, 0x80, long);
    load(asm, SHORT);
    asm.jump(read);
    asm.place(long);
    asm.op(bpf::LOAD_BYTE, LONG - 1);
    asm.jump_unless(bpf::JUMP_IF_EQUAL, id, other);
    asm.op(bpf::LOAD_LENGTH, 0);
    asm.jump_unless(bpf::JUMP_IF_AT_LEAST, LONG + id, other);
    load(asm, LONG);
    asm.place(read);
    encipher(asm, secret);
    asm.op(bpf::LOAD_MEMORY, SECOND);
    asm.op(bpf::SHIFT_RIGHT, 8);
    asm.jump_unless(bpf::JUMP_IF_EQUAL, 0, other);
    asm.op(bpf::LOAD_MEMORY, FIRST);
    asm.op(bpf::SHIFT_RIGHT, 16);
    go(asm, &layout.runs(|owner| owner.steer == Steer::Quic));
    asm.place(other);
}

/// XTEA. A half round adds to one half a number made of the other half.
fn encipher(asm: &mut Assembler, secret: &Secret) {
    asm.op(bpf::LOAD_MEMORY, SECOND);
    for (round, at) in quic::schedule(secret).into_iter().zip(0_u32..) {
        // The half that was changed last is in A.
        let (changed, other) = if at % 2 == 0 { (FIRST, SECOND) } else { (SECOND, FIRST) };
        asm.op(bpf::SHIFT_RIGHT, 5);
        asm.op(bpf::A_TO_X, 0);
        asm.op(bpf::LOAD_MEMORY, other);
        asm.op(bpf::SHIFT_LEFT, 4);
        asm.op(bpf::XOR_X, 0);
        asm.op(bpf::LOAD_MEMORY_X, other);
        asm.op(bpf::ADD_X, 0);
        asm.op(bpf::XOR, round);
        asm.op(bpf::LOAD_MEMORY_X, changed);
        asm.op(bpf::ADD_X, 0);
        asm.op(bpf::STORE, changed);
    }
}

/// A datagram with the value of this generation goes to one of its members, by its sender.
fn by_value(asm: &mut Assembler, layout: &Layout, one: &Owner, offset: u32, mask: u32) {
    let other = asm.label();
    asm.op(bpf::LOAD_LENGTH, 0);
    asm.jump_unless(bpf::JUMP_IF_AT_LEAST, offset + 4, other);
    asm.op(bpf::LOAD_WORD, offset);
    asm.op(bpf::AND, mask);
    let value = one.steer.value(one.slot).unwrap_or_default();
    asm.jump_unless(bpf::JUMP_IF_EQUAL, value, other);
    asm.op(bpf::LOAD_MEMORY, SENDER);
    pick(asm, layout, one.generation);
    asm.place(other);
}

/// A: a number by which new flows are spread. A client chooses the ID of its first datagrams at random, and
/// sends all of them with the same one.
fn spread_by_connection_id(asm: &mut Assembler) {
    let (by_sender, known) = (asm.label(), asm.label());
    asm.op(bpf::LOAD_LENGTH, 0);
    asm.jump_unless(bpf::JUMP_IF_AT_LEAST, 10, by_sender);
    asm.op(bpf::LOAD_BYTE, 0);
    asm.jump_unless(bpf::JUMP_IF_ANY, 0x80, by_sender);
    asm.op(bpf::LOAD_BYTE, 5);
    asm.jump_unless(bpf::JUMP_IF_AT_LEAST, 4, by_sender);
    asm.op(bpf::LOAD_WORD, 6);
    hash(asm);
    asm.jump(known);
    asm.place(by_sender);
    asm.op(bpf::LOAD_MEMORY, SENDER);
    asm.place(known);
}

/// Returns a member of this generation, by the number in A.
fn pick(asm: &mut Assembler, layout: &Layout, generation: u64) {
    let places = layout.places_of(generation);
    let slot = layout.mark_of(generation).map_or(0, |(_, slot)| slot);
    let first = places.first().copied().unwrap_or(0) as u32;
    if let count @ 2.. = places.len() as u32 {
        asm.op(bpf::MODULO, count);
        asm.op(bpf::ADD, key(slot, 0));
        go(asm, &layout.runs(|owner| owner.generation == generation));
    }
    asm.op(bpf::RETURN, first);
}

/// Returns the place of the member whose key is in A, or goes on behind.
fn go(asm: &mut Assembler, runs: &[(u32, u32, u32)]) {
    let end: Label = asm.label();
    for (first, count, place) in runs {
        let next = asm.label();
        // Ordered by their keys: what is below this run is in none.
        asm.jump_unless(bpf::JUMP_IF_AT_LEAST, *first, end);
        asm.jump_if(bpf::JUMP_IF_GREATER, first + count - 1, next);
        asm.op(bpf::SUBTRACT, first.wrapping_sub(*place));
        asm.op(bpf::RETURN_A, 0);
        asm.place(next);
    }
    asm.place(end);
}
