use super::{Entry, Origin, Pool, Spread, Wanted};
use crate::proto::control::frame::{Address, FileId, Socket, SocketKind};
use crate::proto::sockets::changes::{Changes, FileChanges};
use crate::proto::sockets::fdstore;

fn address(port: u16) -> Address {
    Address::Inet(([127, 0, 0, 1], port).into())
}

fn entry(port: u16, cookie: u64) -> Entry<u64> {
    let (kind, asked, local) = (SocketKind::Tcp, address(port), address(port));
    let socket = Socket {
        kind,
        asked,
        name: None,
        member: 0,
        retired: false,
        local,
        file: None,
        flow: None,
    };
    Entry { socket, fd: cookie, cookie: Some(cookie), only_v6: false, outlives_crash: true }
}

fn wanted(port: u16, group: Option<usize>) -> Wanted<'static> {
    let (kind, addresses) = (SocketKind::Tcp, vec![address(port)]);
    let changes = Changes::NONE;
    Wanted { kind, addresses, name: None, group, only_v6: false, changes, steer: None }
}

fn found(pool: &mut Pool<u64>, wanted: &Wanted<'_>) -> Vec<(u64, Origin)> {
    let found = pool.find(wanted, |_| false).expect("of one kind");
    found.into_iter().map(|(entry, origin)| (entry.fd, origin)).collect()
}

fn fds(entries: impl IntoIterator<Item = Entry<u64>>) -> Vec<u64> {
    entries.into_iter().map(|entry| entry.fd).collect()
}

/// A pool that holds these, as a program that has asked for each of them.
fn holding(sockets: &[(u16, u64)]) -> Pool<u64> {
    let mut pool = Pool::new();
    pool.use_it();
    pool.take(Vec::new());
    for (port, cookie) in sockets {
        let bound = vec![(entry(*port, *cookie), Origin::Bound)];
        assert_eq!(pool.hold(&wanted(*port, None), bound, false).1, None);
    }
    pool
}

#[test]
fn what_was_passed_counts_before_what_was_taken_over() {
    let mut pool = Pool::new();
    pool.use_it();
    pool.pass(entry(80, 1));
    // The same socket once more, by the way of the predecessor, and two of its own.
    pool.take(vec![entry(80, 1), entry(81, 2), entry(82, 3)]);
    assert_eq!(found(&mut pool, &wanted(80, None)), [(1, Origin::Supervisor)]);
    assert_eq!(found(&mut pool, &wanted(80, None)), []);
    assert_eq!(found(&mut pool, &wanted(81, None)), [(2, Origin::Predecessor)]);
    let left = pool.unclaimed().into_iter().map(|(entry, origin)| (entry.fd, origin));
    assert_eq!(left.collect::<Vec<_>>(), [(3, Origin::Predecessor)]);
}

/// A named socket of a port; `name` is the supervisor's, or that of the store.
fn named(port: u16, cookie: u64, name: &str) -> Entry<u64> {
    let mut entry = entry(port, cookie);
    entry.socket.name = Some(name.to_owned());
    entry
}

#[test]
fn a_passed_socket_is_found_by_its_name_or_by_its_kind_and_address() {
    let mut pool = Pool::new();
    assert!(!pool.is_taken());
    for entry in [entry(82, 3), named(81, 2, "admin"), entry(82, 4), entry(82, 5)] {
        pool.pass(entry);
    }
    // The predecessor has others at the same addresses.
    pool.take(vec![entry(81, 9), entry(82, 9)]);
    assert!(pool.is_taken());
    // By its name, whatever the address. Successors know it by the address that was asked for.
    let mut admin = wanted(9, None);
    admin.name = Some("admin");
    let by_name = pool.find(&admin, |_| false).expect("of one kind");
    assert_eq!(fds(by_name.iter().map(|(entry, _)| entry.clone())), [2]);
    assert_eq!(by_name[0].0.socket.asked, address(9));
    // By its address, no more than are wanted, and with them none of the predecessor's.
    let both = [(3, Origin::Supervisor), (4, Origin::Supervisor)];
    assert_eq!(found(&mut pool, &wanted(82, Some(2))), both);
    assert_eq!(found(&mut pool, &wanted(83, None)), []);
    // Of another kind: it is another socket, and by its name a mistake.
    pool.pass(named(84, 6, "dns"));
    let mut udp = wanted(84, None);
    udp.kind = SocketKind::Udp;
    assert_eq!(found(&mut pool, &udp), []);
    udp.name = Some("dns");
    let other = pool.find(&udp, |_| false).expect_err("a socket of another kind");
    assert_eq!((other.kind, other.local), (SocketKind::Tcp, address(84)));
    assert_eq!(Origin::Supervisor.name(), "supervisor");
}

/// A name has several addresses, and the supervisor has bound one of them.
#[test]
fn of_several_addresses_the_one_that_was_passed_counts() {
    let mut pool = Pool::new();
    let mut other = entry(81, 1);
    other.socket.kind = SocketKind::Udp;
    pool.pass(other);
    pool.pass(entry(82, 2));
    let mut asks = wanted(81, None);
    asks.addresses = vec![address(80), address(81), address(82)];
    let found = pool.find(&asks, |_| false).expect("of one kind");
    assert_eq!(fds(found.iter().map(|(entry, _)| entry.clone())), [2]);
    assert_eq!(found[0].0.socket.asked, address(82), "the address that successors ask for");
}

/// What the program has not asked for is closed once it has asked for any, and never before that if it was
/// passed: the program may find it by itself.
#[test]
fn what_was_passed_is_closed_only_for_a_program_that_asks() {
    for (asks, taken, closed) in
        [(false, true, &[2][..]), (true, true, &[1, 2]), (true, false, &[1]), (false, false, &[])]
    {
        let mut pool = Pool::new();
        pool.pass(entry(80, 1));
        if asks {
            pool.use_it();
        }
        if taken {
            pool.take(vec![entry(81, 2)]);
        }
        let unclaimed = pool.unclaimed().into_iter().map(|(entry, _)| entry);
        assert_eq!(fds(unclaimed), closed, "asks: {asks}, taken: {taken}");
    }
}

#[test]
fn a_request_that_fails_leaves_all_as_it_was() {
    let mut pool = Pool::new();
    pool.pass(entry(80, 1));
    pool.take(vec![entry(81, 2)]);
    for (port, origin) in [(80, Origin::Supervisor), (81, Origin::Predecessor)] {
        let wanted = wanted(port, None);
        let first = pool.find(&wanted, |_| false).expect("of one kind");
        assert_eq!(first[0].1, origin);
        pool.put_back(first.clone());
        assert_eq!(pool.find(&wanted, |_| false).expect("of one kind"), first);
    }
}

#[test]
fn what_has_lost_its_path_is_bound_anew_and_closed() {
    let mut pool = Pool::new();
    pool.use_it();
    pool.take(vec![entry(80, 1)]);
    assert_eq!(pool.find(&wanted(80, None), |_| true).expect("of one kind"), []);
    assert_eq!(fds(pool.unclaimed().into_iter().map(|(entry, _)| entry)), [1]);
}

#[test]
fn a_smaller_group_retires_the_last_ones() {
    let mut pool = Pool::new();
    let member = |cookie, member| {
        let mut entry = entry(80, cookie);
        entry.socket.member = member;
        entry
    };
    pool.take(vec![member(7, 2), member(5, 0), member(6, 1)]);
    let wanted = wanted(80, Some(1));
    let all = pool.find(&wanted, |_| false).expect("of one kind");
    let (held, now) = pool.hold(&wanted, all, false);
    assert_eq!(now, None, "before it serves, the group stays as it is");
    let known = |(entry, _): &(Entry<u64>, Origin)| (entry.fd, entry.socket.retired);
    assert_eq!(held.iter().map(known).collect::<Vec<_>>(), [(5, false), (6, true), (7, true)]);
    assert_eq!(pool.steer(), [(held[0].0.clone(), Spread::First(1))]);
    assert_eq!(pool.steer(), []);
    assert_eq!(pool.steer_back(), [(held[0].0.clone(), Spread::First(1))]);
    assert!(pool.has_retired());
    assert_eq!(fds(pool.take_retired()), [6, 7]);
    assert_eq!(pool.held().map(fds), Some(vec![5]));
}

/// Only a group has to be spread, at once if this generation serves.
#[test]
fn a_group_of_the_same_size_is_spread_over_all() {
    let mut pool = holding(&[(80, 1)]);
    assert_eq!(pool.steer(), []);
    assert!(!pool.has_retired());
    let two = vec![(entry(81, 2), Origin::Bound), (entry(81, 3), Origin::Bound)];
    let first = entry(81, 2);
    let (held, now) = pool.hold(&wanted(81, Some(2)), two, true);
    assert_eq!(now, Some((first.clone(), Spread::All)));
    assert_eq!(pool.steer_back(), [(first, Spread::First(2))], "those of others come behind them");
    assert!(held.iter().all(|(entry, _)| !entry.socket.retired));
    assert!(!pool.has_retired());
    let one = vec![(entry(82, 4), Origin::Bound)];
    assert_eq!(pool.hold(&wanted(82, None), one, true).1, None);
    assert_eq!(pool.steer_back().len(), 1);
    _ = pool.let_go();
    assert_eq!(pool.steer_back(), []);
}

/// A deploy from several sockets to a single one: the others still get connections of their queues.
#[test]
fn one_socket_of_what_was_a_group_gets_all() {
    let mut pool = Pool::new();
    pool.take(vec![entry(80, 1), entry(80, 2)]);
    let wanted = wanted(80, None);
    let all = pool.find(&wanted, |_| false).expect("of one kind");
    let (held, now) = pool.hold(&wanted, all, true);
    assert_eq!(now.map(|(entry, spread)| (entry.fd, spread)), Some((1, Spread::First(1))));
    assert!(!held[0].0.socket.retired && held[1].0.socket.retired);
}

/// A deploy from a steered group to a plain one.
#[test]
fn members_of_a_steered_group_are_found_as_those_of_a_plain_one() {
    let mut pool = Pool::new();
    pool.take(Vec::new());
    pool.receive_all(vec![entry(80, 1), entry(80, 2)]);
    let both = [(1, Origin::Predecessor), (2, Origin::Predecessor)];
    assert_eq!(found(&mut pool, &wanted(80, Some(2))), both);
}

/// A steered group is bound by this crate: beside a socket that the supervisor has passed it would get a part
/// of what arrives, and no program of the kernel could be attached.
#[test]
fn what_was_passed_stands_in_the_way_of_a_steered_group() {
    let mut pool = Pool::new();
    pool.pass(named(80, 1, "quic"));
    let mut asks = wanted(80, Some(2));
    assert!(pool.is_passed(&asks), "by its address");
    asks.addresses = vec![address(81)];
    assert!(!pool.is_passed(&asks));
    asks.name = Some("quic");
    assert!(pool.is_passed(&asks), "by its name");
    asks.name = Some("dns");
    assert!(!pool.is_passed(&asks));
    pool.note_asked(&wanted(82, Some(2)), &address(82));
    assert_eq!(pool.asked_before(&wanted(82, None)), Some(&address(82)));
    assert_eq!(pool.asked_before(&wanted(81, None)), None);
}

#[test]
fn a_drain_lets_all_go_however_early_it_begins() {
    let mut pool = Pool::new();
    pool.use_it();
    pool.take(vec![entry(80, 1), entry(81, 2)]);
    let wanted = wanted(80, Some(1));
    let one = pool.find(&wanted, |_| false).expect("of one kind");
    _ = pool.hold(&wanted, one, false);
    // Held, to be steered, steered back, and not asked for.
    assert_eq!(fds(pool.let_go()), [1, 1, 1, 2]);
    assert_eq!(pool.held(), None);
    assert_eq!(pool.steer(), []);
}

#[test]
fn a_program_that_asks_for_nothing_keeps_what_was_passed() {
    let mut pool = Pool::new();
    pool.pass(entry(80, 1));
    assert_eq!(pool.unclaimed(), []);
    assert_eq!(pool.let_go(), []);
}

#[test]
fn nothing_is_asked_for_twice() {
    let pool = holding(&[(80, 1)]);
    assert_eq!(pool.asked_before(&wanted(80, None)), Some(&address(80)));
    assert_eq!(pool.asked_before(&wanted(81, None)), None);
}

#[test]
fn the_store_has_what_is_held_and_nothing_else() {
    let mut first = holding(&[(80, 1), (81, 2)]);
    let store = first.bring_store_into_line();
    assert_eq!((store.remove.len(), store.add.len(), store.kept), (0, 2, 0));
    // The next generation finds both there, and asks for one.
    let mut second = Pool::new();
    second.use_it();
    for (name, cookie) in store.add {
        let mut entry = entry(if cookie == 1 { 80 } else { 81 }, cookie);
        entry.socket.name = Some(name);
        second.pass(entry);
    }
    second.take(Vec::new());
    let wanted = wanted(80, None);
    let one = second.find(&wanted, |_| false).expect("of one kind");
    assert_eq!(one[0].1, Origin::Store);
    _ = second.hold(&wanted, one, false);
    let store = second.bring_store_into_line();
    assert_eq!((store.remove.len(), store.add.len(), store.kept), (1, 0, 1));
    // It drains, and its successor holds that one.
    _ = second.let_go();
    _ = second.keep(entry(82, 3));
    let store = second.bring_store_into_line();
    assert_eq!((store.remove.len(), store.add.len(), store.kept), (0, 0, 0));
}

/// As it comes back from the store after a crash: known by its name there.
fn stored(mut entry: Entry<u64>, member: u32, file: Option<FileId>) -> Entry<u64> {
    (entry.socket.member, entry.socket.file) = (member, file);
    entry.socket.name = Some(fdstore::name(&entry.socket));
    (entry.socket.member, entry.socket.file) = (0, None);
    entry.socket.asked = Address::Name("unknown".to_owned());
    entry
}

/// The name is no proof: whoever may put something into the store gives it any name.
#[test]
fn p10_what_has_a_name_of_the_store_and_is_of_another_kind_is_not_used() {
    let mut pool = Pool::new();
    let mut other = stored(entry(80, 1), 0, None);
    other.socket.kind = SocketKind::Udp;
    pool.pass(other);
    pool.take(Vec::new());
    assert_eq!(found(&mut pool, &wanted(80, None)), []);
}

/// A program that asks for the first address that is free had the second one.
#[test]
fn of_several_addresses_the_one_that_was_stored_counts() {
    let mut pool = Pool::new();
    pool.pass(stored(entry(81, 1), 0, None));
    pool.take(Vec::new());
    let mut asks = wanted(80, None);
    asks.addresses.push(address(81));
    assert_eq!(found(&mut pool, &asks), [(1, Origin::Store)]);
}

/// If the store has too little room, it is a descriptor that is left out.
#[test]
fn p12_sockets_go_into_the_store_before_descriptors() {
    let mut pool = Pool::new();
    let mut descriptor = entry(0, 1);
    descriptor.socket.kind = SocketKind::Descriptor;
    descriptor.socket.asked = Address::Name("tun".to_owned());
    assert_eq!(pool.keep(descriptor), []);
    _ = pool.hold(&wanted(80, None), vec![(entry(80, 2), Origin::Bound)], false);
    let added = pool.bring_store_into_line().add;
    assert_eq!(added.into_iter().map(|(_, fd)| fd).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn what_comes_from_the_store_is_known_again() {
    let mut pool = Pool::new();
    for entry in [
        stored(entry(81, 4), 0, None),
        stored(entry(80, 3), 2, None),
        stored(entry(80, 2), 1, None),
        stored(entry(80, 1), 0, None),
    ] {
        pool.pass(entry);
    }
    pool.take(Vec::new());
    let mut udp = wanted(81, None);
    udp.kind = SocketKind::Udp;
    assert_eq!(found(&mut pool, &udp), []);
    // A group in its order, no more than are wanted, and of the first address that has any.
    let mut group = wanted(80, Some(2));
    group.addresses.push(address(81));
    let two = pool.find(&group, |_| false).expect("of one kind");
    let known = |(entry, origin): &(Entry<u64>, Origin)| {
        let Socket { asked, name, member, .. } = &entry.socket;
        (entry.fd, *origin, asked.clone(), name.clone(), *member)
    };
    let as_asked = |fd, member| (fd, Origin::Store, address(80), None, member);
    assert_eq!(two.iter().map(known).collect::<Vec<_>>(), [as_asked(1, 0), as_asked(2, 1)]);
    assert_eq!(found(&mut pool, &wanted(81, None)), [(4, Origin::Store)]);
    assert_eq!(fds(pool.unclaimed().into_iter().map(|(entry, _)| entry)), [3]);
}

/// The file that its path named stands in the name. If the path names another one, it is not the socket.
#[test]
fn a_path_that_names_another_file_is_not_what_the_store_has() {
    let file = FileId { device: 7, inode: 9 };
    let unix = |cookie| {
        let mut unix = entry(0, cookie);
        unix.socket.kind = SocketKind::Unix;
        unix.socket.asked = Address::Unix(b"/run/web".to_vec());
        stored(unix, 0, Some(file))
    };
    for is_lost in [true, false] {
        let mut pool = Pool::new();
        pool.pass(unix(1));
        let mut asks = wanted(80, None);
        asks.addresses = vec![Address::Unix(b"/run/web".to_vec())];
        asks.kind = SocketKind::Unix;
        let found = pool.find(&asks, |entry| {
            assert_eq!(entry.socket.file, Some(file));
            is_lost
        });
        assert_eq!(found.expect("of one kind").len(), usize::from(!is_lost));
    }
}

/// A name of the store takes all that has it with it: what stays under that name is added again.
#[test]
fn a_name_that_means_another_socket_now_is_replaced_in_the_store() {
    let name = fdstore::name(&entry(80, 1).socket);
    // Bound anew, since what was stored could not be used.
    let mut pool = Pool::new();
    pool.pass(stored(entry(80, 1), 0, None));
    _ = pool.hold(&wanted(80, None), vec![(entry(80, 2), Origin::Bound)], false);
    let store = pool.bring_store_into_line();
    assert_eq!(
        (store.remove, store.add, store.kept),
        (vec![name.clone()], vec![(name.clone(), 2)], 0)
    );
    // The predecessor has put another one there meanwhile.
    let mut pool = Pool::new();
    pool.pass(stored(entry(80, 1), 0, None));
    pool.take(vec![entry(80, 2)]);
    _ = pool.hold(&wanted(80, None), vec![(entry(80, 1), Origin::Store)], false);
    let store = pool.bring_store_into_line();
    assert_eq!((store.remove, store.add, store.kept), (vec![name.clone()], vec![(name, 1)], 0));
    // What may not outlive a crash, and what has retired, is not in it.
    let mut pool = Pool::new();
    let kept_here = Entry { outlives_crash: false, ..entry(81, 3) };
    _ = pool.hold(&wanted(81, None), vec![(kept_here, Origin::Bound)], false);
    let two = vec![(entry(82, 4), Origin::Predecessor), (entry(82, 5), Origin::Predecessor)];
    _ = pool.hold(&wanted(82, Some(1)), two, false);
    let store = pool.bring_store_into_line();
    assert_eq!(store.add.into_iter().map(|(_, fd)| fd).collect::<Vec<_>>(), [4]);
}

/// A socket at another address of a port.
fn at(address: &str, cookie: u64) -> Entry<u64> {
    let local = Address::Inet(address.parse().expect("an address"));
    let mut entry = entry(0, cookie);
    (entry.socket.asked, entry.socket.local) = (local.clone(), local);
    entry
}

#[test]
fn an_address_that_others_cover_is_replaced_when_this_generation_serves() {
    let mut pool = Pool::new();
    pool.use_it();
    pool.take(vec![at("10.0.0.1:80", 1), at("[::1]:80", 2), at("10.0.0.1:81", 3)]);
    let mut wide = wanted(80, None);
    wide.addresses = vec![at("0.0.0.0:80", 4).socket.asked];
    assert_eq!(found(&mut pool, &wide), []);
    let overlapping = pool.overlapping(&wide).into_iter().map(|(entry, _)| entry);
    assert_eq!(fds(overlapping), [1]);
    assert!(!pool.replaces());
    assert_eq!(pool.hold(&wide, vec![(at("0.0.0.0:80", 4), Origin::Bound)], false).1, None);
    assert_eq!((pool.replaced(), pool.replaces()), (Vec::new(), true));
    // What nobody covers is closed before.
    assert_eq!(fds(pool.unclaimed().into_iter().map(|(entry, _)| entry)), [3, 2]);
    assert_eq!(fds(pool.replaced()), [1]);
    assert_eq!(pool.replaced(), []);
}

#[test]
fn what_a_stop_finds_replaced_is_let_go() {
    let mut pool = Pool::new();
    pool.use_it();
    pool.take(vec![at("10.0.0.1:80", 1)]);
    let mut wide = wanted(80, None);
    wide.addresses = vec![at("0.0.0.0:80", 4).socket.asked];
    _ = pool.hold(&wide, vec![(at("0.0.0.0:80", 4), Origin::Bound)], false);
    assert_eq!(pool.unclaimed(), []);
    assert_eq!(fds(pool.let_go()), [4, 1]);
}

/// What the supervisor has passed stays its own: it keeps the socket open, and accepts nothing.
#[test]
fn what_the_supervisor_has_passed_is_not_replaced() {
    let mut pool = Pool::new();
    pool.use_it();
    pool.pass(at("10.0.0.1:80", 1));
    pool.take(Vec::new());
    let mut wide = wanted(80, None);
    wide.addresses = vec![at("0.0.0.0:80", 4).socket.asked];
    let overlapping = pool.overlapping(&wide).into_iter().map(|(_, origin)| origin);
    assert_eq!(overlapping.collect::<Vec<_>>(), [Origin::Supervisor]);
    _ = pool.hold(&wide, vec![(at("0.0.0.0:80", 4), Origin::Bound)], false);
    assert!(!pool.replaces());
    assert_eq!(pool.unclaimed().len(), 1);
    assert_eq!(pool.replaced(), []);
}

#[test]
fn a_socket_that_takes_ipv4_as_well_is_not_one_that_does_not() {
    let mut pool = Pool::new();
    pool.take(vec![at("[::]:80", 1)]);
    let mut only_v6 = wanted(80, None);
    only_v6.addresses = vec![at("[::]:80", 1).socket.asked];
    only_v6.only_v6 = true;
    assert_eq!(found(&mut pool, &only_v6), []);
    assert_eq!(pool.overlapping(&only_v6).len(), 1);
    only_v6.only_v6 = false;
    assert_eq!(found(&mut pool, &only_v6), [(1, Origin::Predecessor)]);
}

#[test]
fn the_port_that_the_system_chose_may_be_asked_for_by_its_number() {
    let mut pool = Pool::new();
    let mut chosen = at("127.0.0.1:4711", 1);
    chosen.socket.asked = address(0);
    chosen.socket.name = Some("any".to_owned());
    pool.take(vec![chosen]);
    assert_eq!(found(&mut pool, &wanted(4712, None)), []);
    let found = pool.find(&wanted(4711, None), |_| false).expect("of one kind");
    let socket = &found[0].0.socket;
    assert_eq!((&socket.asked, &socket.name), (&address(4711), &None));
    let vsock = |port| Address::Vsock { cid: 1, port };
    let mut chosen = entry(0, 2);
    (chosen.socket.kind, chosen.socket.local) = (SocketKind::Vsock, vsock(9));
    chosen.socket.asked = vsock(Address::ANY_VSOCK_PORT);
    pool.take(vec![chosen]);
    let mut asks = wanted(0, None);
    (asks.kind, asks.addresses) = (SocketKind::Vsock, vec![vsock(9)]);
    assert_eq!(self::found(&mut pool, &asks), [(2, Origin::Predecessor)]);
}

/// Only what was asked for, only of what others have bound, and only what such a socket has.
#[test]
fn what_is_asked_for_is_changed_when_this_generation_takes_over() {
    let mode = FileChanges { mode: Some(0o660), ..FileChanges::NONE };
    let all = Changes { backlog: Some(7), file: mode };
    let path = |cookie, kind| {
        let mut entry = entry(0, cookie);
        entry.socket.kind = kind;
        entry.socket.asked = Address::Unix(b"/run/web".to_vec());
        entry
    };
    for (kind, expected) in
        [(SocketKind::Unix, all), (SocketKind::UnixDatagram, Changes { backlog: None, file: mode })]
    {
        let mut pool = Pool::new();
        pool.take(vec![path(1, kind)]);
        let mut asks = wanted(80, None);
        (asks.kind, asks.changes) = (kind, all);
        asks.addresses = vec![Address::Unix(b"/run/web".to_vec())];
        let found = pool.find(&asks, |_| false).expect("of one kind");
        _ = pool.hold(&asks, found, false);
        assert_eq!(pool.changes().into_iter().map(|(_, one)| one).collect::<Vec<_>>(), [expected]);
        assert_eq!(pool.steer(), []);
        assert_eq!(pool.changes(), []);
    }
    for (kind, origin, left) in [
        (SocketKind::Tcp, Origin::Predecessor, Changes { backlog: Some(7), ..Changes::NONE }),
        (SocketKind::Tcp, Origin::Bound, Changes::NONE),
        (SocketKind::Tcp, Origin::Supervisor, Changes::NONE),
        (SocketKind::Udp, Origin::Predecessor, Changes::NONE),
    ] {
        let mut pool = Pool::new();
        let mut asks = wanted(80, None);
        (asks.kind, asks.changes) = (kind, all);
        _ = pool.hold(&asks, vec![(entry(80, 1), origin)], false);
        let changes = pool.changes().into_iter().map(|(_, one)| one).next();
        assert_eq!(changes.unwrap_or(Changes::NONE), left);
    }
}
