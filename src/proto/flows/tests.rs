use super::bpf::{Instruction, PROGRAM_MAX, run};
use super::layout::{Admitted, Layout, NoSlot};
use super::program::program;
use super::quic::{Cipher, LENGTH, Mark, RANDOM};
use super::{MEMBERS_MAX, SLOT_MAX, Secret, Steer};
use crate::proto::generation::verdict::{Facts, Unproven};
use std::collections::BTreeSet;

const SECRET: Secret = Secret([7; Secret::LENGTH]);
const BYTES: Steer = Steer::Bytes { offset: 2, mask: 0x00f0_0300 };

/// The headers of IP and UDP.
fn v4(port: u16, end: u8) -> Vec<u8> {
    let mut ip = vec![0; 28];
    ip[0] = 0x45;
    ip[15] = end;
    ip[20..22].copy_from_slice(&port.to_be_bytes());
    ip
}

/// The same with options, so that the header is longer.
fn v4_with_options(port: u16) -> Vec<u8> {
    let mut ip = vec![0; 32];
    ip[0] = 0x46;
    ip[24..26].copy_from_slice(&port.to_be_bytes());
    ip
}

fn v6(port: u16, end: u8) -> Vec<u8> {
    let mut ip = vec![0; 48];
    ip[0] = 0x60;
    ip[23] = end;
    ip[40..42].copy_from_slice(&port.to_be_bytes());
    ip
}

fn short(id: &[u8]) -> Vec<u8> {
    [&[0x40], id, b"payload"].concat()
}

/// An Initial of the given version, or another long packet: where the ID stands is the same in all.
fn long(first: u8, version: u32, id: &[u8]) -> Vec<u8> {
    [&[first], &version.to_be_bytes()[..], &[id.len() as u8], id, b"payload"].concat()
}

/// Generations by number, each with so many members, in this order.
fn layout(generations: &[(u64, usize, Steer)]) -> Layout {
    let mut layout = Layout::default();
    for (generation, members, steer) in generations {
        layout.admit(*generation, *members, *steer, &[], |_| true).expect("a slot");
    }
    layout
}

fn compiled(layout: &Layout, newest: u64) -> Vec<Instruction> {
    let program = program(layout, newest, &SECRET).expect("short enough");
    assert!(program.len() <= PROGRAM_MAX);
    program
}

fn id(layout: &Layout, generation: u64, member: u16) -> [u8; LENGTH] {
    let slot = layout.mark_of(generation).expect("it lives").1;
    Cipher::new(&SECRET).make(Mark { slot, member }, [member as u8; RANDOM])
}

/// Which places get datagrams from many senders.
fn spread(program: &[Instruction], datagram: impl Fn(u16) -> Vec<u8>) -> BTreeSet<usize> {
    let ips = |port: u16| [v4(port, port as u8), v6(port, 3), v4_with_options(port)];
    let all = (1000..1400_u16).flat_map(|port| ips(port).map(|ip| (ip, datagram(port))));
    all.map(|(ip, datagram)| run(program, &ip, &datagram) as usize).collect()
}

fn places(layout: &Layout, generation: u64) -> BTreeSet<usize> {
    layout.places_of(generation).into_iter().collect()
}

#[test]
fn xtea_as_others_have_it() {
    // From the test vectors that Crypto++ and Go's x/crypto share.
    let mut secret = Secret([0; Secret::LENGTH]);
    secret.0[..16].copy_from_slice(&std::array::from_fn::<u8, 16, _>(|at| at as u8));
    let rounds = super::quic::schedule(&secret);
    let block = [0x4142_4344, 0x4546_4748];
    assert_eq!(super::quic::encipher(block, &rounds), [0x497d_f3d0, 0x7261_2cb5]);
    assert_eq!(super::quic::decipher([0x497d_f3d0, 0x7261_2cb5], &rounds), block);
}

#[test]
fn ids_are_read_by_those_who_have_the_key() {
    let cipher = Cipher::new(&SECRET);
    for slot in [1, 2, SLOT_MAX] {
        for member in [0, 1, MEMBERS_MAX as u16 - 1] {
            let mark = Mark { slot, member };
            let id = cipher.make(mark, [1, 2, 3, 4, 5, 6, 7]);
            assert_eq!(cipher.read(&id), Some(mark));
            assert_eq!(id[8..], [4, 5, 6, 7]);
            assert_eq!(Cipher::new(&Secret([8; Secret::LENGTH])).read(&id), None);
            assert_eq!(cipher.read(&id[..LENGTH - 1]), None);
            // One bit changes all of the block.
            for bit in 0..64 {
                let mut other = id;
                other[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(cipher.read(&other), None);
            }
        }
    }
    assert_eq!(cipher.read(&cipher.make(Mark { slot: 0, member: 0 }, [0; RANDOM])), None);
}

/// Resets of connections that an older generation had are known to their clients.
#[test]
fn all_generations_have_the_key_of_resets_from_the_secret() {
    let secret = Secret(std::array::from_fn(|at| at as u8));
    assert_eq!(super::quic::reset_key(&secret), std::array::from_fn(|at| 32 + at as u8));
}

#[test]
fn p14_packets_of_quic_go_to_the_member_that_made_their_id() {
    // Several generations, and places that are used again out of order.
    let mut layout = layout(&[(1, 3, Steer::Quic), (2, 4, Steer::Quic), (3, 2, Steer::Newest)]);
    layout.free(|one| one != 2);
    layout.admit(4, 5, Steer::Quic, &[], |at| at != 3).expect("a slot");
    layout.admit(5, 2, Steer::Quic, &[], |_| true).expect("a slot");
    let program = compiled(&layout, 5);
    for (generation, member) in
        [(1, 0), (1, 1), (1, 2), (4, 0), (4, 1), (4, 2), (4, 3), (4, 4), (5, 0), (5, 1)]
    {
        let place = layout.places_of(generation)[usize::from(member)] as u32;
        let id = id(&layout, generation, member);
        for ip in [v4(1, 1), v6(2, 2), v4_with_options(3)] {
            assert_eq!(run(&program, &ip, &short(&id)), place);
            // As short as can be, and with the reserved bit cleared (RFC 9287).
            assert_eq!(run(&program, &ip, &[&[0][..], &id].concat()), place);
            // Initial, 0-RTT, Handshake and Retry of versions 1 and 2, and of one that is not known.
            for (first, version) in
                [(0xc0, 1), (0xd0, 1), (0xe0, 1), (0xf0, 1), (0xd0, 0x6b33_43cf), (0x80, 99)]
            {
                assert_eq!(run(&program, &ip, &long(first, version, &id)), place);
            }
        }
    }
}

#[test]
fn p14_all_other_packets_go_to_the_newest() {
    let mut layout = layout(&[(1, 3, Steer::Quic), (2, 4, Steer::Quic), (3, 3, Steer::Quic)]);
    let dead = id(&layout, 2, 1);
    layout.free(|one| one != 2);
    let old = id(&layout, 1, 1);
    for newest in [3, 1] {
        let program = compiled(&layout, newest);
        let own = places(&layout, newest);
        let first = *own.first().expect("a place");
        // New flows: the ID of the client's own choice, 8 to 20 bytes of it, spread over all members.
        for length in 8..=20_usize {
            let fresh = |port: u16| {
                let id: Vec<u8> =
                    (0..length).map(|at| (usize::from(port) * 31 + at) as u8).collect();
                long(0xc0, 1, &id)
            };
            assert_eq!(spread(&program, fresh), own, "{length}");
            // All of one flow to one member, whatever the address.
            let packet = fresh(7);
            let seen = spread(&program, |_| packet.clone());
            assert_eq!(seen.len(), 1, "{length}");
            // 0-RTT packets follow the Initial with the same ID.
            let early = [&[0xd0], &packet[1..]].concat();
            assert_eq!(spread(&program, |_| early.clone()), seen, "{length}");
        }
        // Of a generation that has ended; with a changed bit; with another length.
        assert_eq!(spread(&program, |_| short(&dead)), own);
        assert_eq!(spread(&program, |_| long(0xc0, 1, &dead)).len(), 1);
        assert!(own.is_superset(&spread(&program, |_| long(0xc0, 1, &dead))));
        let mut bent = old;
        bent[0] ^= 1;
        assert_eq!(spread(&program, |_| short(&bent)), own);
        assert!(own.is_superset(&spread(&program, |_| long(0xc0, 1, &old[..11]))));
        assert!(own.is_superset(&spread(&program, |_| long(0xc0, 1, &[&old[..], &[0]].concat()))));
        // Too short, at each length, also where a load would end behind the datagram.
        for length in 0..13 {
            assert_eq!(spread(&program, |_| short(&old)[..length].to_vec()), own, "{length}");
        }
        for length in 0..18 {
            let seen = spread(&program, |_| long(0xc0, 1, &old)[..length].to_vec());
            assert!(own.is_superset(&seen), "{length}: {seen:?}");
        }
        assert!(own.contains(&first));
    }
}

#[test]
fn p14_values_in_datagrams_lead_to_their_generation() {
    let layout = layout(&[(1, 2, BYTES), (2, 3, BYTES), (3, 2, BYTES)]);
    let program = compiled(&layout, 3);
    let datagram = |value: u32| [&[0, 0][..], &value.to_be_bytes(), b"more"].concat();
    for generation in 1..=3 {
        let (steer, slot) = layout.mark_of(generation).expect("it lives");
        let value = steer.value(slot).expect("a value");
        assert_eq!(value & !0x00f0_0300, 0);
        // Bits outside of the mask do not matter; nor does what follows.
        for more in [0, !0x00f0_0300] {
            assert_eq!(spread(&program, |_| datagram(value | more)), places(&layout, generation));
            let exact = |_| datagram(value | more)[..6].to_vec();
            assert_eq!(spread(&program, exact), places(&layout, generation));
        }
    }
    let newest = places(&layout, 3);
    for value in [0, 0x00f0_0300, 0x0000_0001] {
        assert_eq!(spread(&program, |_| datagram(value)), newest);
    }
    let value = BYTES.value(layout.mark_of(1).expect("it lives").1).expect("a value");
    for length in 0..6 {
        assert_eq!(spread(&program, |_| datagram(value)[..length].to_vec()), newest, "{length}");
    }
}

/// Generations of different versions of the crate share a group. 0 stands for a flow that is new.
#[test]
fn p14_the_value_of_a_generation_stays_and_is_never_0() {
    for (slot, value) in [(1, 0x100), (2, 0x200), (5, 0x10_0100), (63, 0xf0_0300)] {
        assert_eq!(BYTES.value(slot), Some(value));
        assert_eq!((Steer::Newest.value(slot), Steer::Quic.value(slot)), (None, None));
    }
}

#[test]
fn p14_newest_takes_all() {
    let layout = layout(&[(1, 2, Steer::Newest), (2, 3, Steer::Newest)]);
    for newest in [1, 2] {
        let program = compiled(&layout, newest);
        for length in [0, 1, 20, 1200] {
            assert_eq!(spread(&program, |_| vec![0xc0; length]), places(&layout, newest));
        }
    }
    // One sender stays with one member.
    let program = compiled(&layout, 2);
    assert_eq!(run(&program, &v4(9, 9), b"a"), run(&program, &v4(9, 9), b"another"));
}

/// Clients have even ports only, and a proxy in front has neighbouring addresses.
#[test]
fn p14_new_flows_are_spread_over_all_members() {
    let members = layout(&[(1, 2, Steer::Newest)]);
    let program = compiled(&members, 1);
    let picks = |ips: &mut dyn Iterator<Item = Vec<u8>>| -> BTreeSet<usize> {
        ips.map(|ip| run(&program, &ip, b"a") as usize).collect()
    };
    let all = places(&members, 1);
    assert_eq!(picks(&mut (1000..1100).step_by(2).map(|port| v4(port, 9))), all);
    assert_eq!(picks(&mut (1000..1100).step_by(2).map(|port| v6(port, 9))), all);
    assert_eq!(picks(&mut (0..100).step_by(2).map(|end| v4(1000, end))), all);
}

/// Each instruction is run for each datagram.
#[test]
fn only_groups_of_quic_decipher() {
    for (steer, deciphers) in [(Steer::Quic, true), (Steer::Newest, false), (BYTES, false)] {
        let length = compiled(&layout(&[(1, 2, steer)]), 1).len();
        assert_eq!(length > 64 * 11, deciphers, "{steer}: {length}");
    }
}

/// A deploy may change how flows are marked: those of each generation are found by its own marks.
#[test]
fn p14_each_generation_has_its_own_marks() {
    let layout = layout(&[(1, 2, Steer::Newest), (2, 2, Steer::Quic), (3, 2, BYTES)]);
    let program = compiled(&layout, 3);
    let to_2 = spread(&program, |_| short(&id(&layout, 2, 1)));
    assert_eq!(to_2, BTreeSet::from([layout.places_of(2)[1]]));
    let value = BYTES.value(layout.mark_of(3).expect("it lives").1).expect("a value");
    let datagram = |value: u32| [&[0, 0][..], &value.to_be_bytes()].concat();
    assert_eq!(spread(&program, |_| datagram(value)), places(&layout, 3));
    let program = compiled(&layout, 2);
    assert_eq!(spread(&program, |_| datagram(value)), places(&layout, 3));
    assert_eq!(spread(&program, |_| datagram(0)), places(&layout, 2));
}

#[test]
fn places_are_used_again_before_new_ones_are_bound() {
    let mut layout = layout(&[(1, 3, Steer::Quic), (2, 3, Steer::Quic)]);
    assert_eq!(layout.free(|one| one == 2), BTreeSet::from([1]));
    assert_eq!(layout.free(|one| one == 2), BTreeSet::new());
    // Growth: the free ones, then new ones behind.
    let grown = layout.admit(3, 5, Steer::Quic, &[], |_| true).expect("a slot");
    assert_eq!(grown, Admitted { slot: 3, places: vec![0, 1, 2, 6, 7] });
    // Shrinking: the rest stays free, and in its place.
    layout.free(|one| one == 3);
    let shrunk = layout.admit(4, 2, Steer::Quic, &[], |at| at != 3).expect("a slot");
    assert_eq!(shrunk, Admitted { slot: 4, places: vec![4, 5] });
    assert_eq!(layout.places().len(), 8);
    assert_eq!(layout.places()[3], None);
    // Those where datagrams may wait come first.
    layout.free(|one| one != 3);
    let first = layout.admit(5, 3, Steer::Quic, &[7, 3], |_| true).expect("a slot");
    assert_eq!(first.places, [3, 7, 0]);
}

#[test]
fn who_stands_by_knows_the_order_of_the_new_one() {
    let mut theirs = layout(&[(1, 2, Steer::Quic), (2, 1, Steer::Quic)]);
    let ours = theirs.clone();
    theirs.free(|one| one != 1);
    theirs.admit(3, 3, Steer::Quic, &[], |_| true).expect("a slot");
    assert_eq!(ours.grown(&theirs, |_| true), Some(theirs.clone()));
    assert_eq!(ours.grown(&ours, |_| true), Some(ours.clone()));
    assert_eq!(ours.grown(&theirs, |at| at != 2), None, "another socket");
    assert_eq!(theirs.grown(&ours, |_| true), None, "some are missing");
}

#[test]
fn only_the_newest_that_serves_writes() {
    let one = |number, serves, proof| Facts { serves, ..Facts::of_test(number, proof) };
    let gone = Err(Unproven::Gone);
    let is_newest = |others: &[Facts]| super::is_newest(5, others.iter());
    assert!(is_newest(&[]) && is_newest(&[one(4, true, Ok(()))]));
    assert!(is_newest(&[one(5, true, Ok(()))]), "itself");
    assert!(is_newest(&[one(6, true, gone)]));
    assert!(is_newest(&[one(6, false, Ok(()))]), "it has failed, and drains");
    assert!(!is_newest(&[one(6, true, Ok(()))]));
    assert!(!is_newest(&[one(6, true, Err(Unproven::Unknown))]), "it may live");
    assert!(is_newest(&[Facts { keeps: true, serves: false, ..one(6, true, Ok(())) }]));
}

#[test]
fn a_slot_is_used_again_as_late_as_can_be() {
    let mut layout = Layout::default();
    let mut slots = Vec::new();
    for generation in 1..=130 {
        layout.free(|one| one + 1 == generation);
        slots.push(layout.admit(generation, 1, Steer::Quic, &[], |_| true).expect("a slot").slot);
    }
    let round: Vec<u16> = (1..=SLOT_MAX).collect();
    assert_eq!(slots[..126], [&round[..], &round].concat());
    // One that lives keeps its own.
    let mask = Steer::Bytes { offset: 0, mask: 0b11 };
    let mut layout = self::layout(&[(1, 1, mask), (2, 1, mask), (3, 1, mask)]);
    let none = layout.clone().admit(4, 1, mask, &[], |_| true);
    assert_eq!(none, Err(NoSlot { generations: 3 }));
    layout.free(|one| one != 2);
    assert_eq!(layout.admit(4, 1, mask, &[], |_| true).map(|new| new.slot), Ok(2));
}

#[test]
fn what_cannot_be_steered() {
    let bytes = |offset, mask| Steer::Bytes { offset, mask };
    assert_eq!(Steer::Quic.refusal(MEMBERS_MAX), None);
    assert_eq!(bytes(65_531, 0x8000_0001).refusal(1), None);
    assert!(Steer::Newest.refusal(MEMBERS_MAX + 1).is_some());
    assert!(bytes(0, 0x8000_0000).refusal(1).is_some());
    assert!(bytes(65_532, 0xff).refusal(1).is_some());
    // As mixed as can be: each second place is another generation's.
    let mut layout = Layout::default();
    layout.admit(1, MEMBERS_MAX, Steer::Quic, &[], |_| true).expect("a slot");
    layout.admit(2, MEMBERS_MAX, Steer::Quic, &[], |_| true).expect("a slot");
    assert!(program(&layout, 2, &SECRET).is_ok());
    let mut mixed = Layout::new((0..2048).map(|_| None).collect());
    mixed.admit(1, MEMBERS_MAX, Steer::Quic, &[], |at| at % 2 == 0).expect("a slot");
    mixed.admit(2, MEMBERS_MAX, Steer::Quic, &[], |at| at % 2 == 1).expect("a slot");
    assert!(program(&mixed, 2, &SECRET).is_err());
}
