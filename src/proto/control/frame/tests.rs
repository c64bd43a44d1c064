use super::{
    Address, Answer, CHUNK_MAX, Fate, FileId, Flow, Known, MESSAGE_MAX, NAME_MAX, NamedState,
    Owner, Refused, Request, SOCKETS_MAX, STATE_MAX, STATES_MAX, Secret, Socket, SocketKind, Steer,
    Word, chunk, chunk_of_states,
};
use crate::proto::are_told_apart;

fn tcp(asked: &str, local: &str) -> Socket {
    Socket {
        kind: SocketKind::Tcp,
        asked: Address::Inet(asked.parse().unwrap()),
        name: None,
        member: 0,
        retired: false,
        local: Address::Inet(local.parse().unwrap()),
        file: None,
        flow: None,
    }
}

fn unix(path: &[u8]) -> Socket {
    let address = Address::Unix(path.to_vec());
    Socket {
        kind: SocketKind::Unix,
        asked: address.clone(),
        local: address,
        ..tcp("[::]:1", "[::]:1")
    }
}

fn of(kind: SocketKind, address: Address) -> Socket {
    Socket { kind, asked: address.clone(), local: address, ..unix(b"/") }
}

fn request(text: &str) -> Result<Request, Refused> {
    Request::parse(format!("seamless-takeover 1 {text}").as_bytes())
}

fn answer(text: &str) -> Result<Answer, Refused> {
    Answer::parse(format!("seamless-takeover 1 {text}").as_bytes())
}

#[test]
fn each_request_as_text() {
    for (text, value) in [
        ("take generation=7", Request::Take { generation: 7, known: Known::FIRST }),
        (
            "take generation=7 kinds=tcp,udp,unix,unix-datagram,unix-seqpacket,vsock,descriptor,state",
            Request::Take { generation: 7, known: Known::ALL },
        ),
        ("status", Request::Status),
        ("restart", Request::Restart),
        ("stop", Request::Stop),
        ("counters", Request::Counters),
        ("got 252", Request::Got { count: 252 }),
        ("got 0", Request::Got { count: 0 }),
        ("done", Request::Done),
        ("wait left_ms=2000", Request::Wait { left_ms: 2000 }),
        ("copy", Request::Copy { known: Known::FIRST }),
        ("say told", Request::Say(Word::Told)),
        ("say go", Request::Say(Word::Go)),
        ("stand-by generation=7", Request::StandBy { generation: 7 }),
        ("commit", Request::Commit),
        ("roll-back", Request::RollBack),
        ("pass generation=7 open=10000", Request::Pass { generation: 7, open: 10_000 }),
    ] {
        assert_eq!(value.format(), format!("seamless-takeover 1 {text}").into_bytes());
        assert_eq!(request(text), Ok(value));
    }
    let sockets = vec![tcp("[::]:1", "[::]:1"), unix(b"/a")];
    let flows = Request::Flows { generation: 7, sockets };
    let text = String::from_utf8(flows.format()).expect("text");
    assert!(text.starts_with("seamless-takeover 1 flows generation=7 count=2\ntcp "), "{text}");
    assert_eq!(Request::parse(text.as_bytes()), Ok(flows));
    for wrong in ["flows generation=7 count=0", "flows count=1\n", "flows generation=7 count=2\nx"]
    {
        assert!(request(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn each_answer_as_text() {
    let offer = |sockets, state| Answer::Offer { generation: 3, sockets, state, states: 0 };
    let with_states = Answer::Offer { generation: 3, sockets: 1, state: None, states: STATES_MAX };
    let named = |name: &str, version, bytes| NamedState { name: name.to_owned(), version, bytes };
    let longest = named(&"x".repeat(NAME_MAX), u32::MAX, STATE_MAX);
    let states = vec![named("a b=%\u{e9}", 2, 0), longest];
    let states_text = format!(
        "states count=2\nname=a%20b=%25%C3%A9 version=2 bytes=0\nname={} version=4294967295 \
         bytes=67108864",
        "x".repeat(NAME_MAX)
    );
    for (text, value) in [
        ("offer generation=3 sockets=2 state=5", offer(2, Some(5))),
        ("offer generation=3 sockets=0 state=-", offer(0, None)),
        ("offer generation=3 sockets=1048576 state=67108864", offer(SOCKETS_MAX, Some(STATE_MAX))),
        ("offer generation=3 sockets=1 state=- states=4096", with_states),
        ("state bytes=0", Answer::State { bytes: 0 }),
        (&states_text, Answer::States(states)),
        ("end", Answer::End),
        ("status generation=3\nline two", Answer::Status("generation=3\nline two".to_owned())),
        ("counters", Answer::Counters),
        ("accepted", Answer::Accepted),
        (
            "kept number=7 fates=kur",
            Answer::Kept { number: 7, fates: vec![Fate::Kept, Fate::Unknown, Fate::Refused] },
        ),
        ("refused one is not two", Answer::Refused("one is not two".to_owned())),
    ] {
        assert_eq!(value.format(), format!("seamless-takeover 1 {text}").into_bytes());
        assert_eq!(answer(text), Ok(value));
    }
}

#[test]
fn each_socket_as_text() {
    let named = Socket {
        name: Some("a b%\u{e9}".to_owned()),
        member: 3,
        retired: true,
        kind: SocketKind::Udp,
        ..tcp("[fe80::1%4]:0", "[fe80::1%4]:53")
    };
    let placed = Socket {
        local: Address::Unix(b"/run/web.new".to_vec()),
        file: Some(FileId { device: 2049, inode: 131 }),
        ..unix(b"/run/web")
    };
    let odd = Socket { kind: SocketKind::UnixDatagram, ..unix(b"/a \n=\xff%") };
    let lines = [
        (tcp("127.0.0.1:0", "127.0.0.1:9"), "tcp asked=127.0.0.1:0 local=127.0.0.1:9 member=0"),
        (
            named,
            "udp asked=[fe80::1%4]:0 local=[fe80::1%4]:53 member=3 name=a%20b%25%C3%A9 retired=1",
        ),
        (placed, "unix asked=/run/web local=/run/web.new member=0 file=2049:131"),
        (odd, "unix-datagram asked=/a%20%0A=%FF%25 local=/a%20%0A=%FF%25 member=0"),
        (unix(b"\0name"), "unix asked=%00name local=%00name member=0"),
        (unix(b""), "unix asked= local= member=0"),
        (
            Socket { kind: SocketKind::UnixSeqpacket, ..unix(b"/run/q") },
            "unix-seqpacket asked=/run/q local=/run/q member=0",
        ),
        (
            of(SocketKind::Vsock, Address::Vsock { cid: 2, port: 1024 }),
            "vsock asked=vsock:2:1024 local=vsock:2:1024 member=0",
        ),
        (
            of(SocketKind::Descriptor, Address::Name("the tun %".to_owned())),
            "descriptor asked=the%20tun%20%25 local=the%20tun%20%25 member=0",
        ),
    ];
    let text: Vec<&str> = lines.iter().map(|(_, line)| *line).collect();
    let text = format!("sockets count=9\n{}", text.join("\n"));
    let value = Answer::Sockets(lines.into_iter().map(|(socket, _)| socket).collect());
    assert_eq!(value.format(), format!("seamless-takeover 1 {text}").into_bytes());
    assert_eq!(answer(&text), Ok(value));
}

#[test]
fn fields_of_later_versions_are_passed_over() {
    let first = Request::Take { generation: 7, known: Known::FIRST };
    assert_eq!(request("take generation=7 color=red"), Ok(first));
    assert_eq!(request("got 2 of=3"), Ok(Request::Got { count: 2 }));
    let line = "sockets count=1 more=1\ntcp color=red asked=127.0.0.1:0 local=127.0.0.1:9 member=0";
    assert_eq!(answer(line), Ok(Answer::Sockets(vec![tcp("127.0.0.1:0", "127.0.0.1:9")])));
}

#[test]
fn what_is_none_of_ours_is_refused() {
    for bytes in [
        &b""[..],
        b"seamless-takeover",
        b"seamless-takeover 1",
        b"seamless-takeover  1 done",
        b"seamless-takeover x done",
        b"seamless-takeover -1 done",
        b"seamless-takeover 99999999999 done",
        b"seamless/1 ready",
        b"Seamless-takeover 1 done",
        b"seamless-takeover 1 \xff",
        b"\0",
    ] {
        assert_eq!(Request::parse(bytes), Err(Refused::Foreign), "{bytes:?}");
        assert_eq!(Answer::parse(bytes), Err(Refused::Foreign), "{bytes:?}");
    }
    for version in [0, 2, u32::MAX] {
        let text = format!("seamless-takeover {version} done");
        assert_eq!(Request::parse(text.as_bytes()), Err(Refused::Version(version)));
        assert_eq!(Answer::parse(text.as_bytes()), Err(Refused::Version(version)));
    }
    for name in ["", "offer", "sockets", "end", "refused", "Take", "take2"] {
        assert_eq!(request(name), Err(Refused::Unknown(name.to_owned())));
    }
    for name in ["", "take", "got", "done", "Offer"] {
        assert_eq!(answer(name), Err(Refused::Unknown(name.to_owned())));
    }
    let whole = |length| answer(&format!("status {}", "x".repeat(length - 27)));
    assert!(whole(MESSAGE_MAX).is_ok(), "the longest");
    assert_eq!(whole(MESSAGE_MAX + 1), Err(Refused::Malformed("length")));
    let long = "x".repeat(MESSAGE_MAX);
    let Err(Refused::Unknown(name)) = answer(&long[..1000]) else { panic!("known") };
    assert_eq!(name.len(), 64, "cut");
}

#[test]
fn each_wrong_part_of_a_request_is_refused() {
    for text in ["take", "take generation=", "take generation=-1", "take generation=+1", "take 7"] {
        assert_eq!(request(text), Err(Refused::Malformed("generation")), "{text}");
    }
    for text in ["got", "got ", "got x", "got -1", "got 254", "got 99999999999999999999"] {
        assert_eq!(request(text), Err(Refused::Malformed("count")), "{text}");
    }
}

#[test]
fn each_wrong_part_of_an_answer_is_refused() {
    let good = "tcp asked=127.0.0.1:0 local=127.0.0.1:9 member=0";
    let many = |count: usize| format!("sockets count={count}\n{}", vec![good; count].join("\n"));
    assert!(answer(&many(CHUNK_MAX)).is_ok());
    for (text, part) in [
        ("offer sockets=1 state=-", "generation"),
        ("offer generation=1 state=-", "number of sockets"),
        ("offer generation=1 sockets=1048577 state=-", "number of sockets"),
        ("offer generation=1 sockets=-1 state=-", "number of sockets"),
        ("offer generation=1 sockets=1", "size of the state"),
        ("offer generation=1 sockets=1 state=x", "size of the state"),
        ("offer generation=1 sockets=1 state=67108865", "size of the state"),
        ("state", "size of the state"),
        ("state bytes=67108865", "size of the state"),
        ("sockets", "count"),
        ("sockets count=0", "count"),
        ("sockets count=1", "count"),
        (&many(CHUNK_MAX + 1), "count"),
        (&format!("sockets count=2\n{good}"), "count"),
        (&format!("sockets count=1\n{good}\n{good}"), "count"),
        (&format!("sockets count=1\n{good}\n\n"), "kind of socket"),
        ("sockets count=1\nsctp asked=127.0.0.1:0 local=127.0.0.1:9 member=0", "kind of socket"),
        ("sockets count=1\n\n", "kind of socket"),
        ("sockets count=1\ntcp local=127.0.0.1:9 member=0", "address"),
        ("sockets count=1\ntcp asked=127.0.0.1:0 member=0", "address"),
        ("sockets count=1\ntcp asked=127.0.0.1 local=127.0.0.1:9 member=0", "address"),
        ("sockets count=1\ntcp asked=/run/web local=/run/web member=0", "address"),
        ("sockets count=1\nunix asked=/a%2 local=/a member=0", "address"),
        ("sockets count=1\nunix asked=/a%zz local=/a member=0", "address"),
        ("sockets count=1\nunix asked=/\u{e9} local=/a member=0", "address"),
        ("sockets count=1\ntcp asked=127.0.0.1:0 local=127.0.0.1:9", "member"),
        ("sockets count=1\ntcp asked=127.0.0.1:0 local=127.0.0.1:9 member=4294967296", "member"),
        (&format!("sockets count=1\n{good} name=%ff"), "name"),
        (&format!("sockets count=1\n{good} file=1"), "file"),
        (&format!("sockets count=1\n{good} file=1:x"), "file"),
    ] {
        assert_eq!(answer(text), Err(Refused::Malformed(part)), "{text}");
    }
    let long =
        |length| format!("sockets count=1\nunix asked={} local=/a member=0", "a".repeat(length));
    assert!(answer(&long(12288)).is_ok(), "4096 bytes, each as three");
    assert_eq!(answer(&long(12289)), Err(Refused::Malformed("address")));
}

#[test]
fn a_reason_stays_one_line_of_bounded_length() {
    let reason = format!("one\ntwo\0{}", "\u{e9}".repeat(2000));
    let Ok(Answer::Refused(read)) = Answer::parse(&Answer::Refused(reason).format()) else {
        panic!("no refusal");
    };
    assert!(read.starts_with("one two \u{e9}") && read.len() <= 1024, "{}", read.len());
}

#[test]
fn a_chunk_fits_into_one_message() {
    assert_eq!(chunk(&[]), 0);
    let short = vec![tcp("127.0.0.1:0", "127.0.0.1:9"); 1000];
    assert_eq!(chunk(&short), CHUNK_MAX);
    assert_eq!(chunk(&short[..7]), 7);
    // Each byte of the longest path needs three.
    let longest = vec![unix(&[0xff; 4095]); 10];
    let count = chunk(&longest);
    assert!((1..10).contains(&count), "{count}");
    assert!(Answer::Sockets(longest[..count].to_vec()).format().len() <= MESSAGE_MAX);
    assert!(Answer::Sockets(longest[..=count].to_vec()).format().len() > MESSAGE_MAX - 256);
    assert_eq!(chunk_of_states(&[]), 0);
    let state = |name: String| NamedState { name, version: u32::MAX, bytes: STATE_MAX };
    assert_eq!(chunk_of_states(&vec![state("a".to_owned()); 1000]), CHUNK_MAX);
    let longest = vec![state("\u{1}".repeat(NAME_MAX)); 200];
    let count = chunk_of_states(&longest);
    assert!((1..200).contains(&count), "{count}");
    assert!(Answer::States(longest[..count].to_vec()).format().len() <= MESSAGE_MAX);
}

/// The ends of many lines need room as well.
#[test]
fn a_chunk_of_many_short_lines_fits_into_one_message() {
    for longer in (0..300).step_by(8) {
        let mut sockets = vec![unix(&[b'p'; 115]); CHUNK_MAX];
        sockets[0] = unix(&vec![b'p'; 115 + longer]);
        let count = chunk(&sockets);
        assert!(count > CHUNK_MAX - 5, "{count}");
        assert!(Answer::Sockets(sockets[..count].to_vec()).format().len() <= MESSAGE_MAX);
    }
    let state = |name: String| NamedState { name, version: u32::MAX, bytes: STATE_MAX };
    for longer in (0..NAME_MAX).step_by(5) {
        let mut states = vec![state("s".repeat(219)); CHUNK_MAX];
        states[0] = state("\u{1}".repeat(longer)); // three bytes each
        let count = chunk_of_states(&states);
        assert!(count > CHUNK_MAX - 5, "{count}");
        assert!(Answer::States(states[..count].to_vec()).format().len() <= MESSAGE_MAX);
    }
}

/// Each kind: bound to a path, TCP or UDP, and listening.
#[test]
fn what_sockets_of_each_kind_do() {
    let kinds = SocketKind::ALL.map(|kind| (kind.is_unix(), kind.is_inet(), kind.listens()));
    let expected = [
        (false, true, true),   // TCP
        (false, true, false),  // UDP
        (true, false, true),   // Unix
        (true, false, false),  // datagrams
        (true, false, true),   // SEQPACKET
        (false, false, true),  // vsock
        (false, false, false), // a descriptor
    ];
    assert_eq!(kinds, expected);
}

/// Two requests for such an address are two sockets.
#[test]
fn which_ports_the_system_replaces() {
    let vsock = |port| Address::Vsock { cid: 1, port };
    for (address, is_any) in [
        (tcp("[::]:0", "[::]:0").asked, true),
        (tcp("[::]:1", "[::]:1").asked, false),
        (vsock(u32::MAX), true),
        (vsock(0), false),
        (Address::Unix(Vec::new()), false),
        (Address::Name("tun".to_owned()), false),
    ] {
        assert_eq!(address.is_any_port(), is_any, "{address}");
    }
}

#[test]
fn each_refusal_says_what_is_wrong() {
    assert!(are_told_apart([
        Refused::Version(2),
        Refused::Version(3),
        Refused::Foreign,
        Refused::Unknown("a".to_owned()),
        Refused::Malformed("count"),
        Refused::Malformed("address"),
    ]));
}

#[test]
fn members_of_steered_groups_as_text() {
    let secret = Secret(std::array::from_fn(|at| at as u8));
    let hex: String = secret.0.iter().map(|byte| format!("{byte:02x}")).collect();
    let owner = |steer| Some(Owner { generation: 12, slot: 3, member: 7, steer });
    for (owner, text) in [
        (None, "free"),
        (owner(Steer::Newest), "12.3.7.newest"),
        (owner(Steer::Quic), "12.3.7.quic"),
        (owner(Steer::Bytes { offset: 4, mask: 0xff00_0000 }), "12.3.7.bytes.4.4278190080"),
    ] {
        let flow = Some(Box::new(Flow { owner, secret }));
        let socket = Socket { flow, ..tcp("127.0.0.1:9", "127.0.0.1:9") };
        let line =
            format!("tcp asked=127.0.0.1:9 local=127.0.0.1:9 member=0 flow={text} secret={hex}");
        assert_eq!(socket.format(), line);
        assert_eq!(Socket::parse(&line), Ok(socket));
    }
    assert_eq!(format!("{secret:?}"), "Secret(…)", "for a log");
    let line = |flow: &str, secret: &str| {
        Socket::parse(&format!(
            "udp asked=[::]:9 local=[::]:9 member=0 flow={flow} secret={secret}"
        ))
    };
    assert!(line("12.63.1023.newest", &hex).is_ok(), "the last of each");
    for flow in [
        "",
        "12",
        "12.0.7.quic",
        "12.64.7.quic",
        "12.1.1024.quic",
        "12.3.7.other",
        "12.3.7.bytes.4",
        "12.70000.7.quic",
    ] {
        assert_eq!(line(flow, &hex), Err(Refused::Malformed("flow")), "{flow}");
    }
    for secret in ["", "00", &hex[1..], &format!("+{}", &hex[1..])] {
        assert_eq!(line("free", secret), Err(Refused::Malformed("secret")), "{secret}");
    }
}
