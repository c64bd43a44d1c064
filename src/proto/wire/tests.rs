//! What is read may have been written by anybody, cut anywhere, or be older or newer than we are.

use super::*;

// ---- the PID file ----

#[test]
fn a_pid_file_holds_one_decimal_pid() {
    for (text, pid) in [
        ("123\n", Some(123)),
        ("123", Some(123)), // the Go original
        ("2\n", Some(2)),
        ("2147483647\n", Some(i32::MAX)),
        ("2147483648\n", None),
        ("4294967298", None), // 2, where it wraps round
        ("18446744073709551618", None),
        ("1111111111111111111111111111111111111111", None), // 40 digits
        ("", None),
        ("\n", None),
        ("0\n", None),
        ("1\n", None),
        ("-1\n", None),
        ("-123\n", None),
        ("+5\n", None),
        (" 123\n", None),
        ("123 \n", None),
        ("123\r\n", None),
        ("123\n\n", None),
        ("123\n456\n", None),
        ("12 34", None),
        ("0x7b\n", None),
        ("1e3\n", None),
        ("web\n", None),
        ("١٢٣\n", None), // digits, but not decimal ASCII
    ] {
        assert_eq!(parse_pid(text.as_bytes()), pid, "{text:?}");
    }
    for bytes in [&b"\0"[..], b"12\0", b"\xff\xfe1\0", &[0; 64]] {
        assert_eq!(parse_pid(bytes), None, "{bytes:?}");
    }
}

#[test]
fn a_pid_comes_back_from_its_file() {
    for pid in [2, 10, 4_194_304, i32::MAX] {
        let text = format_pid(pid);
        assert_eq!(text, format!("{pid}\n"));
        assert_eq!(parse_pid(text.as_bytes()), Some(pid));
    }
}

// ---- the record ----

/// A record of version 1 as the first release writes it. It must be understood for ever: generations
/// of any two versions may meet.
const RECORD_1: &str = "\
seamless-record 1 last=12
generation=9 daemon=4101:73500 boot=3f5e9c1a-6f3e-4f36-9f9c-0a4a9d6c2b11 pid_namespace=4026531836 launcher=4100:73499 supervisor=812:1200
generation=11 daemon=4188:90210 boot=3f5e9c1a-6f3e-4f36-9f9c-0a4a9d6c2b11 pid_namespace=4026531836 launcher=4187:90209
starting generation=12 daemon=4204:90350 boot=3f5e9c1a-6f3e-4f36-9f9c-0a4a9d6c2b11 pid_namespace=4026531836 launcher=4203:90349 supervisor=812:1200
end
";

fn id(pid: i32, start: u64) -> Identity {
    Identity { pid, start }
}

fn record_1() -> Record {
    let boot = "3f5e9c1a-6f3e-4f36-9f9c-0a4a9d6c2b11".to_owned();
    let nine = Generation {
        number: 9,
        daemon: id(4101, 73500),
        boot: boot.clone(),
        pid_namespace: 4_026_531_836,
        launcher: id(4100, 73499),
        supervisor: Some(id(812, 1200)),
        more: Vec::new(),
    };
    let twelve = Generation {
        number: 12,
        daemon: id(4204, 90350),
        launcher: id(4203, 90349),
        ..nine.clone()
    };
    let eleven = Generation {
        number: 11,
        daemon: id(4188, 90210),
        boot,
        pid_namespace: 4_026_531_836,
        launcher: id(4187, 90209),
        supervisor: None,
        more: Vec::new(),
    };
    let starting = Some(twelve);
    Record { last: 12, starting, live: vec![nine, eleven], more: Vec::new() }
}

/// Without dropped lines.
#[track_caller]
fn parsed(text: &str) -> Record {
    let (record, dropped) = Record::parse(text.as_bytes()).expect("a record");
    assert_eq!(dropped, [""; 0]);
    record
}

/// Records of every shape: none to 40 generations, the largest numbers, with and without
/// supervisors and fields of a later version.
fn records() -> Vec<Record> {
    let generation = |number: u64, more: &[&str]| Generation {
        number,
        daemon: id(2 + number as i32, number * 100),
        boot: format!("boot-{number}"),
        pid_namespace: number,
        launcher: id(1, number * 100 - 1),
        supervisor: (number % 2 == 0).then(|| id(i32::MAX, u64::MAX)),
        more: more.iter().map(|field| (*field).to_owned()).collect(),
    };
    let more = || vec!["head=more".to_owned()];
    let record = |last, live| Record { last, starting: None, live, more: more() };
    let plain = |numbers: std::ops::RangeInclusive<u64>| numbers.map(|n| generation(n, &[]));
    vec![
        Record::default(),
        record(u64::MAX, Vec::new()),
        record(1, plain(1..=1).collect()),
        record(7, plain(4..=6).collect()),
        Record { starting: Some(generation(8, &["a=b"])), ..record(8, plain(7..=7).collect()) },
        record(40, plain(1..=40).collect()),
        record(3, vec![generation(2, &["colour=red"]), generation(3, &["a=b=c", "empty="])]),
        record_1(),
    ]
}

#[test]
fn the_record_of_version_1_is_understood() {
    assert_eq!(VERSION, 1, "keep the fixture of version 1, and add one of the new version");
    assert_eq!(parsed(RECORD_1), record_1());
    assert_eq!(record_1().format(), RECORD_1, "an older reader meets what we write");
}

#[test]
fn a_record_comes_back_as_it_was_written() {
    for record in records() {
        assert_eq!(parsed(&record.format()), record);
    }
    assert_eq!(Record::parse(b""), Ok((Record::default(), Vec::new())), "a new lock file");
}

/// A disk that is full, or a kill in the middle of a long write, leaves the beginning only.
#[test]
fn p9_a_record_that_was_cut_invents_no_generation() {
    for record in records() {
        let text = record.format();
        for length in 0..text.len() {
            let Ok((cut, _)) = Record::parse(&text.as_bytes()[..length]) else {
                // Even its first words are missing.
                assert!(length < "seamless-record 1".len(), "refused: {:?}", &text[..length]);
                continue;
            };
            assert!(cut.last <= record.last);
            assert_eq!(cut.live, record.live[..cut.live.len()], "{:?}", &text[..length]);
            assert!(cut.starting.is_none() || cut.starting == record.starting);
            let generations = cut.live.len() + usize::from(cut.starting.is_some());
            let complete = text[..length].lines().count() == 1 + generations
                || !text[..length].ends_with('\n')
                || text[..length].ends_with("\nend\n");
            assert!(complete, "a whole line was lost: {:?}", &text[..length]);
        }
    }
}

/// A kill between the write and the cut leaves the end of the longer record that stood there.
#[test]
fn p9_what_an_older_record_left_behind_the_end_does_not_count() {
    for old in records() {
        for new in records() {
            let (old, text) = (old.format(), new.format());
            let left = old.get(text.len()..).unwrap_or_default();
            assert_eq!(parsed(&format!("{text}{left}")), new);
            // Cut at last, or in the middle of the rest.
            assert_eq!(parsed(&text), new);
            assert_eq!(parsed(&format!("{text}{}", &left[..left.len() / 2])), new);
        }
    }
}

#[test]
fn fields_of_a_later_minor_version_are_kept() {
    let text = RECORD_1.replace(" launcher=4187:90209", " launcher=4187:90209 sockets=7 owner=0:0");
    let record = parsed(&text);
    assert_eq!(record.live[1].more, ["sockets=7", "owner=0:0"]);
    assert_eq!(record.format(), text);
    let text = text.replace("last=12", "last=12 colour=red");
    assert_eq!(parsed(&text).format(), text, "in the first line as well");
}

#[test]
fn lines_that_are_no_generation_are_dropped_and_told() {
    let good = record_1().live[1].format();
    let one = good.trim_end();
    let fields = ["generation=", "daemon=", "boot=", "pid_namespace=", "launcher="];
    // Without any one of its fields, or with one that makes no sense.
    let mut bad: Vec<String> = fields.iter().map(|field| one.replace(field, "unknown_")).collect();
    bad.extend(fields.iter().map(|field| one.replace(field, &format!("un{field}"))));
    bad.extend(
        [
            ("daemon=4188:90210", "daemon=4188"),
            ("daemon=4188:90210", "daemon=:90210"),
            ("daemon=4188:90210", "daemon=4188:"),
            ("daemon=4188:90210", "daemon=0:90210"),
            ("daemon=4188:90210", "daemon=-1:90210"),
            ("daemon=4188:90210", "daemon=+4188:90210"),
            ("daemon=4188:90210", "daemon=4188:-1"),
            ("daemon=4188:90210", "daemon=4188:18446744073709551616"),
            ("daemon=4188:90210", "daemon=99999999999:1"),
            ("generation=11", "generation=-1"),
            ("generation=11", "generation=18446744073709551616"),
            ("generation=11", "generation="),
            ("pid_namespace=4026531836", "pid_namespace=pid:[4026531836]"),
        ]
        .map(|(from, to)| one.replace(from, to)),
    );
    bad.extend(["", "generation", "garbage", "=", "\u{fffd}"].map(str::to_owned));
    let starting: Vec<String> = bad.iter().map(|line| format!("starting {line}")).collect();
    bad.extend(starting.into_iter().filter(|line| line.trim_end() == line));
    for line in bad {
        assert_ne!(line, one);
        let text = format!("seamless-record 1 last=12\n{line}\n{good}end\n");
        let (record, dropped) = Record::parse(text.as_bytes()).expect("a record");
        assert_eq!(record.live, [record_1().live[1].clone()], "{line:?}");
        assert_eq!(dropped, [line]);
    }
    let (record, dropped) =
        Record::parse(b"seamless-record 1 last=12\n\xff\xfe\0\nend\n").expect("a record");
    assert_eq!((record.live.len(), dropped.len()), (0, 1));
}

#[test]
fn a_number_counts_once() {
    let first = record_1().live[1].format();
    let second = first.replace("4188", "4189");
    let text = format!("seamless-record 1 last=12\n{first}{second}end\n");
    let (record, dropped) = Record::parse(text.as_bytes()).expect("a record");
    assert_eq!(record.live, [record_1().live[1].clone()]);
    assert_eq!(dropped, [second.trim_end()]);
    let text = format!("seamless-record 1 last=12\nstarting {first}starting {second}end\n");
    let (record, dropped) = Record::parse(text.as_bytes()).expect("a record");
    assert_eq!(record.starting, Some(record_1().live[1].clone()));
    assert_eq!(dropped, [format!("starting {}", second.trim_end())]);
}

/// Two generations must not get one number.
#[test]
fn p4_the_last_number_is_never_below_a_live_one() {
    for head in ["last=3", "last=", "last=x", "last=-1", ""] {
        let text = RECORD_1.replace("last=12", head);
        let (record, dropped) = Record::parse(text.as_bytes()).expect("a record");
        assert_eq!(record.last, 11, "{head:?}");
        assert_eq!(dropped.len(), usize::from(head != "last=3"), "{head:?}");
    }
}

#[test]
fn p10_a_later_version_and_a_foreign_file_are_refused() {
    for (head, refused) in [
        ("seamless-record 2 last=12", Refused::Version(2)),
        ("seamless-record 4000000000 last=12", Refused::Version(4_000_000_000)),
        ("seamless-record 2", Refused::Version(2)),
        ("seamless-record 0 last=12", Refused::Foreign),
        ("seamless-record -1 last=12", Refused::Foreign),
        ("seamless-record one last=12", Refused::Foreign),
        ("seamless-record", Refused::Foreign),
        ("seamless-records 1 last=12", Refused::Foreign),
        ("SEAMLESS-RECORD 1 last=12", Refused::Foreign),
        ("4711", Refused::Foreign),
        ("", Refused::Foreign),
        ("root:x:0:0:root:/root:/bin/bash", Refused::Foreign),
    ] {
        let text = RECORD_1.replace("seamless-record 1 last=12", head);
        assert_eq!(Record::parse(text.as_bytes()), Err(refused), "{head:?}");
    }
    for bytes in [&b"\0"[..], &[0; 4096], b"\xff\xfe", b"\x7fELF\x02\x01\x01"] {
        assert_eq!(Record::parse(bytes), Err(Refused::Foreign));
    }
}

#[test]
fn an_identity_is_a_pid_and_a_start_time() {
    assert_eq!(Identity::parse("4711:99"), Some(id(4711, 99)));
    assert_eq!(Identity::parse("1:99"), Some(id(1, 99)), "a supervisor may be PID 1");
    assert_eq!(Identity::parse("2:0"), Some(id(2, 0)));
    for text in
        ["", ":", "0:1", "-1:1", "+2:1", " 2:1", "2: 1", "2:1:3", "2", "2:-1", "2147483648:1"]
    {
        assert_eq!(Identity::parse(text), None, "{text:?}");
    }
    assert_eq!(id(4711, 99).to_string(), "4711:99");
}

// ---- the supervisor's status ----

/// As `supervise` wrote it: 18 bytes.
const DAEMONTOOLS: [u8; 18] = *b"\x40\0\0\0\x69\x20\x1f\x0a\x0c\x1d\xe4\x30\x39\x30\0\0\0u";
/// As `runsv` wrote it: two more.
const RUNIT: [u8; 20] = *b"\x40\0\0\0\x69\x20\x1f\x0a\x0c\x1d\xe4\x30\x39\x30\0\0\0u\0\x01";
const MAIN: i32 = 0x3039;

#[test]
fn a_status_tells_what_the_supervisor_wants() {
    let with = |status: &[u8], index: usize, byte: u8| {
        let mut status = status.to_vec();
        status[index] = byte;
        status
    };
    for status in [&DAEMONTOOLS[..], &RUNIT[..]] {
        let read = |want| parse_status(&with(status, 17, want), Some(MAIN));
        assert_eq!(read(b'u'), Some(Reading::Up));
        assert_eq!(read(b'd'), Some(Reading::Down));
        assert_eq!(read(0), Some(Reading::Down), "once, then down");
        for other in [b'U', b'D', b'0', b' ', 1, 255] {
            assert_eq!(read(other), None, "{other}");
        }
        let paused = with(status, 16, 1);
        assert_eq!(parse_status(&paused, Some(MAIN)), Some(Reading::Up));
    }
}

/// What runs once is a successor to a detached daemon; to itself it says that none will come.
#[test]
fn p1_what_is_wanted_once_is_wanted_while_it_runs() {
    let mut daemontools = DAEMONTOOLS;
    daemontools[17] = 0;
    let mut runit = RUNIT;
    runit[17] = b'd';
    for status in [&daemontools[..], &runit[..]] {
        assert_eq!(parse_status(status, None), Some(Reading::Up));
        assert_eq!(parse_status(status, Some(MAIN)), Some(Reading::Down));
        let mut ended = status.to_vec();
        ended[12..16].fill(0);
        assert_eq!(parse_status(&ended, None), Some(Reading::Down));
    }
    // Told to go down; and a `finish` script.
    for (index, byte) in [(18, 1), (19, 0), (19, 2)] {
        let mut down = runit;
        down[index] = byte;
        assert_eq!(parse_status(&down, None), Some(Reading::Down), "{index}: {byte}");
    }
    daemontools[17] = b'd';
    assert_eq!(parse_status(&daemontools, None), Some(Reading::Down));
}

#[test]
fn a_status_about_another_process_says_nothing() {
    for status in [&DAEMONTOOLS[..], &RUNIT[..]] {
        for other in [1, MAIN - 1, MAIN + 1, MAIN.swap_bytes(), -1] {
            assert_eq!(parse_status(status, Some(other)), None, "{other}");
        }
        assert_eq!(parse_status(status, None), Some(Reading::Up), "a detached daemon has no say");
    }
    let mut down = DAEMONTOOLS;
    down[12..16].fill(0);
    down[17] = b'd';
    assert_eq!(parse_status(&down, None), Some(Reading::Down));
    assert_eq!(parse_status(&down, Some(MAIN)), None);
}

#[test]
fn a_short_status_says_nothing() {
    for length in 0..DAEMONTOOLS.len() {
        assert_eq!(parse_status(&RUNIT[..length], Some(MAIN)), None, "{length} bytes");
        assert_eq!(parse_status(&RUNIT[..length], None), None, "{length} bytes");
    }
    assert_eq!(parse_status(&RUNIT[..18], Some(MAIN)), Some(Reading::Up));
}

/// As `s6-supervise` 2.11 wrote it: 35 bytes.
const S6: [u8; 35] = *b"\x40\0\0\0\x6b\x01\xbd\x6f\x18\x29\xb0\xdd\x40\0\0\0\x6b\x01\xbd\x6f\x19\x46\xaa\x07\0\0\0\0\0\0\x30\x39\0\0\x0c";

/// With these flags, about this PID, in each length: 2.13 puts a process group before the last three.
fn s6(flags: u8, pid: u64) -> [Vec<u8>; 2] {
    let mut short = S6.to_vec();
    short[24..32].copy_from_slice(&pid.to_be_bytes());
    short[34] = flags;
    let mut long = short.clone();
    long.splice(32..32, pid.to_be_bytes());
    [short, long]
}

#[test]
fn p1_p6_a_status_of_s6_tells_what_it_wants() {
    const PAUSED: u8 = 1;
    const FINISHING: u8 = 2;
    const WANTED: u8 = 4;
    const READY: u8 = 8;
    let main = MAIN as u64;
    for (flags, pid, own, detached) in [
        (WANTED | READY, main, Some(Reading::Up), Reading::Up),
        (WANTED, main, Some(Reading::Up), Reading::Up),
        (WANTED | PAUSED, main, Some(Reading::Up), Reading::Up),
        // Told to stop, or up only once.
        (READY, main, Some(Reading::Down), Reading::Up),
        (0, main, Some(Reading::Down), Reading::Up),
        // `./finish`, and then nothing, runs.
        (WANTED | FINISHING, main + 1, None, Reading::Up),
        (FINISHING, main + 1, None, Reading::Down),
        (READY, 0, None, Reading::Down),
        (0, 0, None, Reading::Down),
        (WANTED, 0, None, Reading::Up),
    ] {
        for status in s6(flags, pid) {
            assert_eq!(parse_s6_status(&status, Some(MAIN)), own, "{flags} {pid}");
            assert_eq!(parse_s6_status(&status, None), Some(detached), "{flags} {pid}");
        }
    }
    // What it left behind when it exited.
    for status in s6(READY, 0) {
        assert_eq!(parse_s6_status(&status, Some(0)), Some(Reading::Down));
    }
}

#[test]
fn a_status_of_another_length_is_none_of_s6() {
    let [_, long] = s6(12, MAIN as u64);
    for length in (0..64).filter(|length| ![35, 43].contains(length)) {
        let mut status = long.clone();
        status.resize(length, 0);
        assert_eq!(parse_s6_status(&status, None), None, "{length} bytes");
    }
    for main in [-1, 0, 1, MAIN + 1, MAIN.swap_bytes()] {
        assert_eq!(parse_s6_status(&S6, Some(main)), None, "{main}");
    }
    assert_eq!(parse_s6_status(&S6, Some(MAIN)), Some(Reading::Up));
}

#[test]
fn a_down_signal_is_a_name_or_a_number() {
    for term in ["15", "15\n", "TERM", "SIGTERM\n", "sigterm", " term "] {
        assert!(is_term(term), "{term:?}");
    }
    for other in ["", "\n", "1", "HUP", "SIGINT\n", "150", "TERMINATE"] {
        assert!(!is_term(other), "{other:?}");
    }
}

// ---- the channel ----

fn hello(kind: Kind) -> Hello {
    Hello { kind, launcher: None, supervisor: None, in_place: false, folder: None }
}

/// Every message of version 1, as the first release writes it.
fn to_daemon_1() -> Vec<(Vec<u8>, ToDaemon)> {
    let full = Hello {
        launcher: Some(id(4100, 73499)),
        supervisor: Some(id(1, 3)),
        folder: Some(b"/service/web".to_vec()),
        ..hello(Kind::Daemontools)
    };
    let odd = b"/a b\n\xff folder=/c kind=runit";
    let odd_folder = Hello { folder: Some(odd.to_vec()), ..hello(Kind::Runit) };
    let intent = |text: &str, intent| {
        (format!("seamless/1 intent {text}").into_bytes(), ToDaemon::Intent(intent))
    };
    let plain = |name: &str, kind| {
        (format!("seamless/1 hello kind={name}").into_bytes(), ToDaemon::Hello(hello(kind)))
    };
    vec![
        (
            b"seamless/1 hello kind=daemontools launcher=4100:73499 supervisor=1:3 \
              folder=/service/web"
                .to_vec(),
            ToDaemon::Hello(full),
        ),
        ([&b"seamless/1 hello kind=runit folder="[..], odd].concat(), ToDaemon::Hello(odd_folder)),
        (
            b"seamless/1 hello kind=other reload=1 folder=/a".to_vec(),
            ToDaemon::Hello(Hello {
                in_place: true,
                folder: Some(b"/a".to_vec()),
                ..hello(Kind::Other)
            }),
        ),
        (
            b"seamless/1 reload-failed daemon 7 ended: exit_code 3".to_vec(),
            ToDaemon::ReloadFailed("daemon 7 ended: exit_code 3".to_owned()),
        ),
        (b"seamless/1 taken-over".to_vec(), ToDaemon::TakenOver),
        plain("nobody", Kind::Nobody),
        plain("other", Kind::Other),
        intent("restart", Intent::Restart),
        intent("stop", Intent::Stop(Scope::Service)),
        intent("stop-generation", Intent::Stop(Scope::Generation)),
        intent("unknown", Intent::Unknown),
    ]
}

const REPORTS_1: [(&str, Report); 7] = [
    ("seamless/1 ready", Report::Ready),
    ("seamless/1 started", Report::Started),
    ("seamless/1 released", Report::Released),
    ("seamless/1 taken-over", Report::TakenOver),
    ("seamless/1 draining", Report::Draining),
    ("seamless/1 waiting", Report::Waiting),
    ("seamless/1 reload", Report::Reload),
];

#[test]
fn the_messages_of_version_1_are_understood() {
    for (bytes, message) in to_daemon_1() {
        assert_eq!(ToDaemon::parse(&bytes), Ok(Some(message.clone())));
        assert_eq!(message.format(), bytes, "an older daemon meets what we write");
    }
    for (text, report) in REPORTS_1 {
        assert_eq!(Report::parse(text.as_bytes()), Ok(Some(report)));
        assert_eq!(report.format(), text.as_bytes(), "an older launcher meets what we write");
    }
}

#[test]
fn what_a_later_minor_version_adds_is_ignored() {
    for text in ["seamless/1 listen", "seamless/1 listen fds=3", "seamless/1 ", "seamless/1 Hello"]
    {
        assert_eq!(ToDaemon::parse(text.as_bytes()), Ok(None), "{text:?}");
        assert_eq!(Report::parse(text.as_bytes()), Ok(None), "{text:?}");
    }
    let parse = |text: &[u8]| ToDaemon::parse(text).expect("ours").expect("known");
    assert_eq!(
        parse(b"seamless/1 hello colour=red kind=runit sockets=3 folder=/a"),
        ToDaemon::Hello(Hello { folder: Some(b"/a".to_vec()), ..hello(Kind::Runit) }),
    );
    assert_eq!(parse(b"seamless/1 hello kind=upstart"), ToDaemon::Hello(hello(Kind::Other)));
    assert_eq!(parse(b"seamless/1 hello"), ToDaemon::Hello(hello(Kind::Other)));
    assert_eq!(
        parse(b"seamless/1 hello kind=runit launcher=0:1 supervisor=x"),
        ToDaemon::Hello(hello(Kind::Runit)),
    );
    assert_eq!(parse(b"seamless/1 intent pause"), ToDaemon::Intent(Intent::Unknown));
    assert_eq!(parse(b"seamless/1 intent"), ToDaemon::Intent(Intent::Unknown));
    assert_eq!(parse(b"seamless/1 intent stop by=root"), ToDaemon::Intent(parse_stop()));
    assert_eq!(Report::parse(b"seamless/1 released after=3ms"), Ok(Some(Report::Released)));
}

#[test]
fn a_start_tells_how_long_a_drain_may_take() {
    for limit in [None, Some(Duration::ZERO), Some(Duration::from_millis(60_001))] {
        let message = Report::format_started(limit);
        assert_eq!(Report::parse(&message), Ok(Some(Report::Started)));
        assert_eq!(Report::drain_timeout(&message), limit);
    }
    let later = b"seamless/1 started colour=red drain_timeout_ms=5 more=1";
    assert_eq!(Report::drain_timeout(later), Some(Duration::from_millis(5)));
    for none in ["started", "started drain_timeout_ms=soon", "started drain_timeout_ms=-1"] {
        assert_eq!(Report::drain_timeout(format!("seamless/1 {none}").as_bytes()), None, "{none}");
    }
}

fn parse_stop() -> Intent {
    Intent::Stop(Scope::Service)
}

#[test]
fn p10_messages_of_a_later_version_and_foreign_ones_are_refused() {
    let all = to_daemon_1().into_iter().map(|(bytes, _)| bytes);
    let all = all.chain(REPORTS_1.map(|(text, _)| text.as_bytes().to_vec()));
    for message in all {
        let later = [&b"seamless/2"[..], &message["seamless/1".len()..]].concat();
        assert_eq!(ToDaemon::parse(&later), Err(Refused::Version(2)));
        if std::str::from_utf8(&later).is_ok() {
            assert_eq!(Report::parse(&later), Err(Refused::Version(2)));
        }
    }
    for bytes in [
        &b""[..],
        b"seamless",
        b"seamless/1",
        b"seamless/ hello",
        b"seamless/0 hello",
        b"seamless/-1 hello",
        b"seamless/x hello",
        b"SEAMLESS/1 hello",
        b" seamless/1 hello",
        b"hello kind=runit",
        b"GET / HTTP/1.1\r\n\r\n",
        b"seamless/1 hello \xff",
        &[0; 32],
    ] {
        assert_eq!(ToDaemon::parse(bytes), Err(Refused::Foreign), "{bytes:?}");
        assert_eq!(Report::parse(bytes), Err(Refused::Foreign), "{bytes:?}");
    }
}

/// The channel keeps messages whole, but no cut may make one worse than unknown.
#[test]
fn a_message_that_was_cut_never_becomes_another() {
    for (bytes, message) in to_daemon_1() {
        for length in 0..bytes.len() {
            match (ToDaemon::parse(&bytes[..length]), &message) {
                (Err(_) | Ok(None), _)
                | (Ok(Some(ToDaemon::Hello(_))), ToDaemon::Hello(_))
                | (Ok(Some(ToDaemon::Intent(Intent::Unknown))), ToDaemon::Intent(_))
                | (
                    Ok(Some(ToDaemon::Intent(Intent::Stop(Scope::Service)))),
                    ToDaemon::Intent(Intent::Stop(Scope::Generation)),
                ) => {}
                (Ok(Some(ToDaemon::ReloadFailed(_))), ToDaemon::ReloadFailed(_)) => {}
                (other, _) => panic!("{:?} became {other:?}", &bytes[..length]),
            }
        }
    }
}

#[test]
fn why_a_restart_failed_is_told_in_one_line_that_fits() {
    let ToDaemon::ReloadFailed(why) = ToDaemon::reload_failed("two\nlines") else { panic!() };
    assert_eq!(why, "two lines");
    let longest = ToDaemon::reload_failed(&"\u{10ffff}".repeat(MESSAGE_MAX)).format();
    assert!(longest.len() < MESSAGE_MAX);
    assert!(matches!(ToDaemon::parse(&longest), Ok(Some(ToDaemon::ReloadFailed(_)))));
}

#[test]
fn the_longest_hello_fits() {
    let longest = Hello {
        launcher: Some(id(i32::MAX, u64::MAX)),
        supervisor: Some(id(i32::MAX, u64::MAX)),
        folder: Some(vec![b'x'; 4096]),
        ..hello(Kind::Daemontools)
    };
    assert!(ToDaemon::Hello(longest).format().len() < MESSAGE_MAX);
}

#[cfg(feature = "systemd")]
#[test]
fn what_is_told_beside_the_protocol_is_no_report() {
    use super::Aside;
    let name = || "seamless-tcp-00".to_owned();
    for aside in [Aside::Alive, Aside::Store(name()), Aside::Remove(name())] {
        assert_eq!(Aside::parse(&aside.format()), Some(aside.clone()));
        assert_eq!(Report::parse(&aside.format()), Ok(None));
    }
    for other in [&b"seamless/1 started"[..], b"seamless/1 store", b"seamless/2 alive", b"alive"] {
        assert_eq!(Aside::parse(other), None);
    }
    assert_eq!(ToDaemon::parse(&ToDaemon::Ask.format()), Ok(Some(ToDaemon::Ask)));
}
