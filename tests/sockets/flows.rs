//! Datagram flows stay with their process (P14), by hand-made datagrams: with each way to mark them, for IPv4,
//! IPv6 and both, and whichever generation is killed. As a user without rights where the box allows it.

mod half_way;
mod probation;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    net::{SocketAddr, UdpSocket},
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use seamless_testing::{
    LIMIT,
    boxed::{self, Boxed},
    handover::End,
    process::{NOBODY, Watched, take_claim},
    report,
    signal::USR1,
    site::{SERVES_ON, Site, Started},
    wait_for,
};

use super::{origins, sockets};

/// The first byte of each datagram.
const BYTES: &str = "0:ff000000";

/// A generation, and one datagram for each of its members.
struct Generation {
    started: Started,
    daemon: Watched,
    flows: Vec<Vec<u8>>,
    /// Ends its drain.
    go: PathBuf,
}

struct Service {
    direct: Site,
    asked: String,
    steer: &'static str,
    clients: Vec<SocketAddr>,
    /// Those that live, the newest last.
    generations: Vec<Generation>,
    count: usize,
}

impl Service {
    /// `asked`: where it listens; `clients`: where its clients send to.
    fn new(folder: &Path, asked: &str, steer: &'static str, clients: &[SocketAddr]) -> Service {
        fs::create_dir_all(folder).expect("a folder");
        report::for_all_users(folder);
        if boxed::by_root() {
            chown(folder, Some(NOBODY), Some(NOBODY)).expect("chown");
        }
        let direct = Site::alone(folder);
        let (asked, clients) = (asked.to_owned(), clients.to_vec());
        Service { direct, asked, steer, clients, generations: Vec::new(), count: 0 }
    }

    fn at(folder: &Path, steer: &'static str) -> Service {
        let address = boxed::address();
        Service::new(folder, &address.to_string(), steer, &[address])
    }

    fn start(&self, count: usize, more: &[&str]) -> Started {
        let steer = match self.steer {
            "" => String::new(),
            steer => format!(",steer={steer}"),
        };
        let group = format!("--udp-group={},count={count}{steer}", self.asked);
        let go = format!("--at=shutdown=file:{}", self.go(self.count).display());
        let options = [&[group.as_str(), &go, SERVES_ON], more].concat();
        let mut command = self.direct.command(&options);
        if boxed::by_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        self.direct.spawn(command.stdout(Stdio::null()))
    }

    fn go(&self, number: usize) -> PathBuf {
        self.direct.folder().join(format!("go-{number}"))
    }

    /// What this process has reported of its members.
    fn flows(&self, daemon: &Watched) -> Vec<Vec<u8>> {
        let events = self.direct.report.events().into_iter();
        let own = events.filter(|event| event.pid == daemon.pid());
        own.filter_map(|event| match event.name.as_str() {
            "value" => {
                let value: u32 = event.text.parse().expect("a number");
                assert!(value != 0 && value & 0x00ff_ffff == 0, "{value:#x}");
                Some(vec![(value >> 24) as u8, 1, 2, 3, 4])
            }
            "id" => {
                let digits = |at| u8::from_str_radix(&event.text[at..at + 2], 16).expect("digits");
                let id = (0..event.text.len()).step_by(2).map(digits);
                Some([0x40].into_iter().chain(id).chain(*b"payload").collect())
            }
            _ => None,
        })
        .collect()
    }

    /// The next generation, once it serves. The ones before drain, and still answer.
    fn next(&mut self, count: usize) {
        if let Some(last) = self.generations.last_mut() {
            last.started.detach();
        }
        self.next_after_a_crash(count);
    }

    fn next_after_a_crash(&mut self, count: usize) {
        self.next_with(count, &[]);
    }

    fn next_with(&mut self, count: usize, more: &[&str]) {
        let started = self.start(count, more);
        let daemon = started.wait_started();
        let (flows, go) = (self.flows(&daemon), self.go(self.count));
        if self.steer == "quic" || self.steer.contains(':') {
            assert_eq!(flows.len(), count);
        }
        self.count += 1;
        self.generations.push(Generation { started, daemon, flows, go });
    }

    fn newest(&self) -> u32 {
        self.generations.last().expect("one").daemon.pid()
    }

    /// Ends the drain of the generation at this place.
    fn end(&mut self, place: usize) -> Generation {
        let one = self.generations.remove(place);
        fs::write(&one.go, "").expect("a file");
        one.daemon.wait_end(LIMIT);
        one
    }

    fn kill(&mut self, place: usize) -> Generation {
        let one = self.generations.remove(place);
        one.daemon.kill();
        one.daemon.wait_end(LIMIT);
        one
    }

    /// Who answers this datagram, from many senders.
    fn answers(&self, datagram: &[u8]) -> BTreeSet<u32> {
        let all = self.clients.iter().flat_map(|address| (0..12).map(move |_| address));
        all.map(|address| answer(*address, datagram)).collect()
    }

    /// Each flow of each generation gets its answer from that generation.
    #[track_caller]
    fn check_flows(&self) {
        for one in &self.generations {
            for flow in &one.flows {
                assert_eq!(self.answers(flow), BTreeSet::from([one.daemon.pid()]));
                for long in self.long_packets(flow) {
                    let who = answer(self.clients[0], &long);
                    assert_eq!(who, one.daemon.pid(), "{long:?}");
                }
            }
        }
    }

    /// What is sent again in a handshake, when the client knows the server's connection ID: an Initial, 0-RTT and
    /// Handshake, and an Initial of version 2.
    fn long_packets(&self, flow: &[u8]) -> Vec<Vec<u8>> {
        if self.steer != "quic" {
            return Vec::new();
        }
        let id = &flow[1..=12];
        let v2 = 0x6b33_43cf_u32;
        let kinds = [(0xc0, 1), (0xd0, 1), (0xe0, 1), (0xd0, v2)];
        let packet = |(first, version): (u8, u32)| {
            [&[first], &version.to_be_bytes()[..], &[12], id, b"payload"].concat()
        };
        kinds.map(packet).to_vec()
    }

    /// The same, and new flows get it from the newest generation.
    #[track_caller]
    fn check(&self) {
        self.check_flows();
        for datagram in new_flows(self.steer) {
            assert_eq!(self.answers(&datagram), BTreeSet::from([self.newest()]), "{datagram:?}");
        }
    }

    /// From some moment on, the flows of a generation that has ended are the newest one's.
    #[track_caller]
    fn wait_given_up(&self, ended: &Generation) {
        for flow in &ended.flows {
            wait_for(format!("the end of {flow:?}"), LIMIT, || {
                // What no process reads is not answered.
                let who = ask(self.clients[0], flow, Duration::from_millis(100));
                who.filter(|who| *who == self.newest())
            });
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        for one in &self.generations {
            one.daemon.kill();
        }
    }
}

fn new_flows(steer: &str) -> Vec<Vec<u8>> {
    let initial = [&[0xc0, 0, 0, 0, 1, 8][..], b"client's", &[0; 20]].concat();
    match steer {
        "quic" => vec![initial, vec![0x40], vec![0x40; 30], vec![0xc0; 3], vec![0xc0; 40]],
        _ => vec![initial.iter().map(|byte| byte & 0x3f).collect(), vec![0], vec![0, 7, 7, 7]],
    }
}

fn ask(address: SocketAddr, datagram: &[u8], limit: Duration) -> Option<u32> {
    let socket = UdpSocket::bind(match address {
        SocketAddr::V4(_) => "127.0.0.1:0",
        SocketAddr::V6(_) => "[::1]:0",
    });
    let socket = socket.expect("a socket");
    socket.set_read_timeout(Some(limit)).expect("a limit");
    socket.connect(address).expect("an address");
    socket.send(datagram).ok()?;
    let mut bytes = [0; 2048];
    let length = socket.recv(&mut bytes).ok()?;
    let end = bytes.iter().position(|byte| *byte == b' ').expect("two words");
    assert_eq!(&bytes[end + 1..length], datagram);
    Some(std::str::from_utf8(&bytes[..end]).expect("a PID").parse().expect("a PID"))
}

#[track_caller]
fn answer(address: SocketAddr, datagram: &[u8]) -> u32 {
    ask(address, datagram, LIMIT).unwrap_or_else(|| panic!("no answer to {datagram:?}"))
}

fn a_box() -> Boxed {
    Boxed::new().private_net_without_migration()
}

/// Generations of different sizes, all of them alive; then the oldest ends, and the next one uses its places.
#[test]
fn p14_flows_stay_over_restarts_while_groups_grow_and_shrink() {
    a_box().run(|folder| {
        for number in 0..4 {
            for steer in [BYTES, "quic"] {
                // Another one each time: a keeper may still hold the sockets of what was killed before.
                let v4 = boxed::address();
                let v6 = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], v4.port()));
                let port = v4.port();
                let (asked, clients) = match number {
                    0 => (v4.to_string(), vec![v4]),
                    1 => (format!("0.0.0.0:{port}"), vec![v4]),
                    2 => (v6.to_string(), vec![v6]),
                    _ => (format!("[::]:{port}"), vec![v4, v6]),
                };
                println!("{asked} {steer}");
                let kind = if steer == "quic" { "quic" } else { "bytes" };
                let place = folder.join(format!("{kind}-{number}"));
                let mut service = Service::new(&place, &asked, steer, &clients);
                for count in [2, 4, 1, 3] {
                    service.next(count);
                    service.check();
                }
                let first = service.end(0);
                service.wait_given_up(&first);
                service.check();
                service.next(3); // two places of the first, and a new one
                service.check();
                service.end(1);
                service.next(1);
                service.check();
                while service.generations.len() > 1 {
                    service.end(0);
                    service.check();
                }
                service.next(2);
                service.check();
            }
        }
    });
}

/// For a packet of no connection, a program asks who has made its ID: the packets of a generation that lives are dropped.
#[test]
fn p14_connection_ids_tell_which_generation_lives() {
    const ASK: [&str; 1] = ["--on=10=call:made-by"];
    a_box().run(|folder| {
        let mut service = Service::at(folder, "quic");
        for _ in 0..3 {
            if let Some(last) = service.generations.last_mut() {
                last.started.detach();
            }
            service.next_with(2, &ASK);
        }
        let ids = service.direct.report.named("id");
        let pids: Vec<u32> = service.generations.iter().map(|one| one.daemon.pid()).collect();
        let mut seen = 0;
        let mut made_by = |service: &Service, asked: usize, pid: u32| {
            service.generations[asked].daemon.signal(USR1);
            let made = wait_for("each of them", LIMIT, || {
                let made = service.direct.report.named("made").split_off(seen);
                (made.len() == ids.len()).then_some(made)
            });
            seen += made.len();
            let of_it = ids.iter().zip(made).filter(|(id, _)| id.pid == pid);
            of_it.map(|(id, made)| made.text.replace(&format!("{} ", id.text), "")).collect()
        };
        let says = |word: &str| vec![word.to_owned(); 2];
        let mut all = |service: &Service, asked| -> Vec<Vec<String>> {
            pids.iter().map(|pid| made_by(service, asked, *pid)).collect()
        };
        assert_eq!(all(&service, 2), [says("Living"), says("Living"), says("ThisGeneration")]);
        // Two of them drain, and no longer learn who comes and goes.
        assert_eq!(all(&service, 0), [says("ThisGeneration"), says("Living"), says("Living")]);
        let second = service.end(1);
        service.wait_given_up(&second);
        assert_eq!(all(&service, 1), [says("Living"), says("Ended"), says("ThisGeneration")]);
    });
}

/// Each generation has a name of its own for its control socket, as long as it lives, and none of them stays.
#[test]
fn p14_names_of_generations_that_have_ended_are_removed() {
    a_box().run(|folder| {
        let mut service = Service::at(folder, "quic");
        let names = |service: &Service| {
            let files = fs::read_dir(service.direct.folder()).expect("the folder").flatten();
            let names = files.filter_map(|file| {
                let name = file.file_name().into_string().ok()?;
                name.strip_prefix("web.pid.sock.").map(str::to_owned)
            });
            names.collect::<BTreeSet<String>>()
        };
        let named = |numbers: &[u32]| numbers.iter().map(u32::to_string).collect::<BTreeSet<_>>();
        for _ in 0..3 {
            service.next(1);
        }
        assert_eq!(names(&service), named(&[1, 2, 3]));
        service.end(0);
        assert_eq!(names(&service), named(&[2, 3]));
        // It cannot remove it itself. The next start does.
        let mut killed = service.kill(1);
        killed.started.wait_end();
        service.next_after_a_crash(1);
        wait_for("the names of those that live", LIMIT, || {
            (names(&service) == named(&[2, 4])).then_some(())
        });
        service.end(0);
        let last = service.generations.pop().expect("one");
        fs::write(&last.go, "").expect("a file");
        let stop = End::connect(&service.direct.socket());
        stop.send("seamless-takeover 1 stop");
        last.daemon.wait_end(LIMIT);
        assert_eq!(names(&service), named(&[]));
    });
}

/// A generation ends while another one starts, which holds the claim: here, this test. Its flows are given up after that.
#[test]
fn p14_flows_are_given_up_also_if_a_start_was_in_the_way() {
    a_box().run(|folder| {
        let mut service = Service::at(folder, "quic");
        service.next(2);
        service.next(2); // with a launcher, so that it makes no checks
        let lock_file = File::options().write(true).open(service.direct.lock_file());
        let lock_file = lock_file.expect("the lock file");
        take_claim(&lock_file);
        let first = service.end(0);
        for _ in 0..10 {
            let who = ask(service.clients[0], &first.flows[0], Duration::from_millis(100));
            assert_eq!(who, None, "the program was written without the claim");
        }
        drop(lock_file);
        service.wait_given_up(&first);
        service.check();
    });
}

/// The next version listens elsewhere. What nobody reads from any more is closed.
#[test]
fn p14_a_group_that_is_not_asked_for_any_more_is_closed() {
    a_box().run(|folder| {
        let mut service = Service::at(folder, "quic");
        service.next(2);
        let address = std::mem::replace(&mut service.clients, vec![boxed::address()])[0];
        service.asked = service.clients[0].to_string();
        service.next(2);
        service.end(0);
        wait_for("the address", LIMIT, || UdpSocket::bind(address).ok());
        service.check();
    });
}

/// Nothing is read by the old generations any more, while they hold their sockets open.
#[test]
fn p14_with_steer_newest_all_goes_to_the_newest() {
    a_box().run(|folder| {
        let mut service = Service::at(folder, "newest");
        for count in [2, 3, 1] {
            service.next(count);
            service.check();
        }
        service.end(0);
        service.next(2);
        service.check();
    });
}

/// The newest generation is killed, attached or detached, also after places were used again; what drains
/// keeps its flows at once, and the next start finds it.
#[test]
fn p14_a_crash_of_the_newest_leads_no_flow_astray() {
    a_box().run(|folder| {
        for (detached, steer) in [(false, "quic"), (true, "quic"), (false, BYTES)] {
            for reuse in [false, true] {
                println!("{steer} detached={detached} reuse={reuse}");
                let place = folder.join(format!("{}-{detached}-{reuse}", steer.len()));
                let mut service = Service::at(&place, steer);
                service.next(2);
                service.next(3);
                if reuse {
                    let first = service.end(0);
                    service.wait_given_up(&first);
                    service.next(2);
                }
                service.next(2);
                service.check();
                if detached {
                    service.generations.last_mut().expect("one").started.detach();
                }
                let newest = service.generations.len() - 1;
                let mut killed = service.kill(newest);
                service.check_flows();
                if !detached {
                    killed.started.wait_end(); // until then the service is not to be started by hand
                }
                service.next_after_a_crash(3);
                service.check();
                for flow in &killed.flows {
                    assert_eq!(service.answers(flow), BTreeSet::from([service.newest()]));
                }
                // All goes on as ever.
                service.end(0);
                service.next(2);
                service.check();
            }
        }
    });
}

/// Also at places that were used before, and if the next one has more members.
#[test]
fn p14_new_flows_wait_after_a_crash() {
    a_box().run(|folder| {
        for (steer, count) in [("newest", 2), ("quic", 3)] {
            let mut service = Service::at(&folder.join(steer), steer);
            for _ in 0..2 {
                service.next(2);
            }
            let first = service.end(0);
            service.wait_given_up(&first);
            service.next(2);
            service.kill(1).started.wait_end();
            let flow = &new_flows(steer)[0];
            let clients: Vec<UdpSocket> = (0..12)
                .map(|_| {
                    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
                    client.set_read_timeout(Some(LIMIT)).expect("a limit");
                    client.connect(service.clients[0]).expect("an address");
                    client.send(flow).expect("room");
                    client
                })
                .collect();
            service.next_after_a_crash(count);
            let newest = service.newest().to_string();
            for client in clients {
                let mut bytes = [0; 2048];
                let length = client.recv(&mut bytes).expect("an answer");
                assert!(bytes[..length].starts_with(newest.as_bytes()));
            }
            service.check();
        }
    });
}

#[test]
fn p14_a_crash_of_an_older_one_costs_its_own_flows_alone() {
    a_box().run(|folder| {
        for steer in ["quic", BYTES] {
            let mut service = Service::at(&folder.join(steer.len().to_string()), steer);
            for count in [2, 2, 2, 2] {
                service.next(count);
            }
            let killed = service.kill(1);
            service.check();
            service.wait_given_up(&killed);
            service.check();
            service.next(3);
            service.check();
        }
    });
}

/// A version that dies before it serves has got nothing, and leaves nothing.
#[test]
fn p14_a_version_that_never_serves_gets_no_datagram() {
    a_box().run(|folder| {
        let mut service = Service::at(folder, "quic");
        service.next(2);
        service.next(2);
        let oldest = service.end(0);
        service.wait_given_up(&oldest);
        for _ in 0..2 {
            service.generations.last_mut().expect("one").started.detach_if_attached();
            let ready = format!("--at=ready=file:{}", folder.join("never").display());
            let failed = service.start(4, &[&ready]);
            let daemon = failed.wait_init();
            wait_for("its members", LIMIT, || (service.flows(&daemon).len() == 4).then_some(()));
            let its = service.flows(&daemon);
            let newest = BTreeSet::from([service.newest()]);
            for flow in &its {
                assert_eq!(service.answers(flow), newest);
            }
            service.check();
            daemon.kill();
            daemon.wait_end(LIMIT);
            service.check();
        }
        service.next_after_a_crash(3);
        service.check();
    });
}

/// A deploy may begin to steer, and end it.
#[test]
fn p14_plain_groups_become_steered_ones_and_back() {
    a_box().run(|folder| {
        for plain in [1, 3] {
            println!("from {plain}");
            let mut service = Service::at(&folder.join(plain.to_string()), "");
            service.next(plain);
            service.check();
            service.steer = "quic";
            service.next(2);
            service.check();
            service.next(2);
            service.check();
            service.end(0);
            service.check();
            service.steer = "";
            service.next(2);
            service.end(0);
            service.end(0);
            service.check();
        }
    });
}

/// Until the next one serves, all goes to the sockets that the first one has bound for itself.
#[test]
fn p14_a_version_that_begins_to_steer_gets_nothing_before_it_serves() {
    a_box().run(|folder| {
        for plain in [1, 3] {
            println!("from {plain}");
            let place = folder.join(plain.to_string());
            let mut service = Service::at(&place, "");
            service.next(plain);
            service.generations[0].started.detach();
            service.steer = "quic";
            let go = place.join("ready");
            let started = service.start(2, &[&format!("--at=ready=file:{}", go.display())]);
            let daemon = started.wait_init();
            wait_for("its members", LIMIT, || (service.flows(&daemon).len() == 2).then_some(()));
            assert_eq!(origins(&place, &daemon), ["bound"; 2]);
            for datagram in new_flows("quic") {
                assert_eq!(service.answers(&datagram), BTreeSet::from([service.newest()]));
            }
            fs::write(go, "").expect("a file");
            started.wait_started();
            daemon.kill();
        }
    });
}

/// Nobody else has them, and they have to be the members of the next one, which steers.
#[test]
fn p14_a_plain_group_that_a_keeper_has_held_becomes_a_steered_one() {
    a_box().run(|folder| {
        let mut service = Service::at(folder, "");
        service.next(2);
        service.kill(0).started.wait_end();
        service.steer = "quic";
        service.next_after_a_crash(2);
        assert_eq!(origins(folder, &service.generations[0].daemon), ["predecessor"; 2]);
        service.check();
    });
}

/// By its name where the system has chosen the port, and by the port itself. A plain socket beside it moves as well.
#[test]
fn p14_a_steered_group_is_found_by_its_name_and_by_its_address() {
    const TCP: [&str; 1] = ["--tcp=127.0.0.1:0"];
    a_box().run(|folder| {
        let mut service = Service::new(folder, "127.0.0.1:0", "newest,name=flows", &[]);
        let own = |service: &Service| {
            sockets(&service.direct, &service.generations.last().expect("one").daemon)
        };
        service.next_with(2, &TCP);
        let first = own(&service);
        let address = first[1].rsplit_once(' ').expect("two words").1.to_owned();
        for asked in ["127.0.0.1:0", &address] {
            service.generations.last_mut().expect("one").started.detach();
            service.asked = asked.to_owned();
            service.next_with(2, &TCP);
            assert_eq!(own(&service), first, "{asked}");
        }
    });
}

#[test]
fn what_cannot_be_steered_is_an_error_with_a_remedy() {
    a_box().run(|folder| {
        let address = boxed::address();
        let port = address.port();
        let any = format!("0.0.0.0:{port}");
        let mut service = Service::new(folder, &any, "quic", &[address]);
        service.next(2);
        let mut fails = |asked: &str, steer: &'static str, words: &str| {
            let before = std::mem::replace(&mut service.asked, asked.to_owned());
            let steer = std::mem::replace(&mut service.steer, steer);
            let last = service.generations.last_mut().expect("one");
            last.started.detach_if_attached();
            let mut failed = service.start(2, &["--successor-timeout=none"]);
            let error = failed.wait_error().text;
            assert!(error.contains(words), "{error}");
            (service.asked, service.steer) = (before, steer);
            service.check();
        };
        for other in [format!("[::]:{port}"), address.to_string()] {
            fails(&other, "quic", "flows cannot move from one group to another");
        }
        fails(&any, "0:80000000", "a mask needs at least two bits");
        fails(&any, "65532:ff", "no datagram is long enough");
        if boxed::by_root() {
            fails("127.0.0.1:53", "quic", "CAP_NET_BIND_SERVICE");
        }
        // Somebody else's.
        let foreign = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let taken = foreign.local_addr().expect("its address").to_string();
        fails(&taken, "quic", " holds udp ");
        service.next_after_a_crash(1);
        service.check();
    });
}

/// Each bit of a mask, wherever it stands; and one generation more than there are values.
#[test]
fn p14_a_mask_has_a_value_for_each_generation_that_lives() {
    a_box().run(|folder| {
        let mut service = Service::at(folder, "0:81000000");
        for _ in 0..3 {
            service.next(1);
            service.check();
        }
        let values: BTreeMap<u8, u32> =
            service.generations.iter().map(|one| (one.flows[0][0], one.daemon.pid())).collect();
        assert_eq!(values.keys().copied().collect::<Vec<u8>>(), [0x01, 0x80, 0x81]);
        service.generations.last_mut().expect("one").started.detach();
        let error = service.start(1, &[]).wait_error().text;
        assert!(error.contains("3 generations live"), "{error}");
        service.check();
        service.end(1);
        service.next_after_a_crash(1);
        service.check();
    });
}
