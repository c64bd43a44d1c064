//! Classic BPF (`linux/filter.h`, `bpf(4)`), as far as the programs need it.

/// One instruction; the kernel's `sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) jt: u8,
    pub(crate) jf: u8,
    pub(crate) k: u32,
}

/// The kernel accepts no longer program (BPF_MAXINSNS).
pub(crate) const PROGRAM_MAX: usize = 4096;

// A load past the end of the datagram ends the program, which then returns 0. So look at the length first.
pub(crate) const LOAD_WORD: u16 = 0x20;
pub(crate) const LOAD_HALF: u16 = 0x28;
pub(crate) const LOAD_BYTE: u16 = 0x30;
pub(crate) const LOAD_HALF_AT_X: u16 = 0x48;
/// The length of the datagram.
pub(crate) const LOAD_LENGTH: u16 = 0x80;
pub(crate) const LOAD_MEMORY: u16 = 0x60;
pub(crate) const LOAD_MEMORY_X: u16 = 0x61;
pub(crate) const STORE: u16 = 0x02;
pub(crate) const ADD: u16 = 0x04;
pub(crate) const ADD_X: u16 = 0x0c;
pub(crate) const SUBTRACT: u16 = 0x14;
pub(crate) const MULTIPLY: u16 = 0x24;
pub(crate) const AND: u16 = 0x54;
pub(crate) const SHIFT_LEFT: u16 = 0x64;
pub(crate) const SHIFT_RIGHT: u16 = 0x74;
pub(crate) const MODULO: u16 = 0x94;
pub(crate) const XOR: u16 = 0xa4;
pub(crate) const XOR_X: u16 = 0xac;
pub(crate) const JUMP: u16 = 0x05;
pub(crate) const JUMP_IF_EQUAL: u16 = 0x15;
pub(crate) const JUMP_IF_GREATER: u16 = 0x25;
pub(crate) const JUMP_IF_AT_LEAST: u16 = 0x35;
pub(crate) const JUMP_IF_ANY: u16 = 0x45;
pub(crate) const RETURN: u16 = 0x06;
pub(crate) const RETURN_A: u16 = 0x16;
pub(crate) const A_TO_X: u16 = 0x07;

/// Loads from here on read the IP header (SKF_NET_OFF, -0x10_0000).
pub(crate) const IP: u32 = 0xfff0_0000;

/// A place in the program that a jump leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label(usize);

/// Writes a program. Conditional jumps reach 255 instructions, and the others any distance: so each
/// condition here skips one jump.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    code: Vec<Instruction>,
    /// Where each label stands, once it has been placed.
    labels: Vec<Option<usize>>,
    /// The jumps, and where they lead.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    pub(crate) fn op(&mut self, code: u16, k: u32) {
        self.code.push(Instruction { code, jt: 0, jf: 0, k });
    }

    pub(crate) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    pub(crate) fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    pub(crate) fn jump(&mut self, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.op(JUMP, 0);
    }

    /// Jumps unless the condition holds.
    pub(crate) fn jump_unless(&mut self, code: u16, k: u32, to: Label) {
        self.code.push(Instruction { code, jt: 1, jf: 0, k });
        self.jump(to);
    }

    /// Jumps if the condition holds.
    pub(crate) fn jump_if(&mut self, code: u16, k: u32, to: Label) {
        self.code.push(Instruction { code, jt: 0, jf: 1, k });
        self.jump(to);
    }

    /// The program. Every label that a jump leads to has been placed, behind the jump.
    pub(crate) fn finish(mut self) -> Vec<Instruction> {
        for (at, label) in self.jumps {
            let to = self.labels[label.0].expect("each label is placed");
            self.code[at].k = (to - at - 1) as u32; // there are no jumps back
        }
        self.code
    }
}

/// Runs a program as the kernel does. `ip`: the IP header and what follows it; `datagram`: the payload.
#[cfg(test)]
pub(crate) fn run(program: &[Instruction], ip: &[u8], datagram: &[u8]) -> u32 {
    let (mut a, mut x, mut memory) = (0_u32, 0_u32, [None; 16]);
    let load = |at: u32, bytes: usize| -> Option<u32> {
        let (from, at) = match at.checked_sub(IP) {
            Some(at) => (ip, at as usize),
            None => (datagram, at as usize),
        };
        let bytes = from.get(at..at.checked_add(bytes)?)?;
        Some(bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    };
    let mut at = 0;
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let loaded = match code {
            LOAD_WORD => load(k, 4).map(|value| a = value),
            LOAD_HALF => load(k, 2).map(|value| a = value),
            LOAD_BYTE => load(k, 1).map(|value| a = value),
            LOAD_HALF_AT_X => load(k.wrapping_add(x), 2).map(|value| a = value),
            _ => Some(()),
        };
        if loaded.is_none() {
            return 0; // past the end
        }
        let branch = |holds| usize::from(if holds { jt } else { jf });
        match code {
            LOAD_WORD | LOAD_HALF | LOAD_BYTE | LOAD_HALF_AT_X => {}
            LOAD_LENGTH => a = datagram.len() as u32,
            LOAD_MEMORY => {
                a = memory[k as usize].expect("the kernel refuses a load before a store")
            }
            LOAD_MEMORY_X => x = memory[k as usize].expect("a load before a store"),
            STORE => memory[k as usize] = Some(a),
            ADD => a = a.wrapping_add(k),
            ADD_X => a = a.wrapping_add(x),
            SUBTRACT => a = a.wrapping_sub(k),
            MULTIPLY => a = a.wrapping_mul(k),
            AND => a &= k,
            SHIFT_LEFT => a <<= k,
            SHIFT_RIGHT => a >>= k,
            MODULO => a %= k,
            XOR => a ^= k,
            XOR_X => a ^= x,
            JUMP => at += k as usize,
            JUMP_IF_EQUAL => at += branch(a == k),
            JUMP_IF_GREATER => at += branch(a > k),
            JUMP_IF_AT_LEAST => at += branch(a >= k),
            JUMP_IF_ANY => at += branch(a & k != 0),
            RETURN => return k,
            RETURN_A => return a,
            A_TO_X => x = a,
            other => panic!("an unknown instruction {other:#x}"),
        }
    }
}
