//! What is read may have been written by anybody, cut anywhere, or be older or newer than we are.

use super::*;
use crate::proto::generation::tally::NUMBER_MAX;

/// A record of version 1 as the first release writes it. It must be understood for ever: generations
/// of any two versions may meet.
const RECORD_1: &str = "\
seamless-record 1 last=12
generation=9 daemon=4101:73500 boot=3f5e9c1a-6f3e-4f36-9f9c-0a4a9d6c2b11 pid_namespace=4026531836 launcher=4100:73499 supervisor=812:1200 state=draining
generation=11 daemon=4188:90210 boot=3f5e9c1a-6f3e-4f36-9f9c-0a4a9d6c2b11 pid_namespace=4026531836 launcher=4187:90209 state=serving
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
        state: Some(LineState::Draining),
        crashes: None,
        file: None,
        more: Vec::new(),
    };
    let twelve = Generation {
        number: 12,
        daemon: id(4204, 90350),
        launcher: id(4203, 90349),
        state: None,
        ..nine.clone()
    };
    let eleven = Generation {
        number: 11,
        daemon: id(4188, 90210),
        boot,
        pid_namespace: 4_026_531_836,
        launcher: id(4187, 90209),
        supervisor: None,
        state: Some(LineState::Serving),
        crashes: None,
        file: None,
        more: Vec::new(),
    };
    let starting = Some(twelve);
    Record { last: 12, starting, live: vec![nine, eleven], ..Record::default() }
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
        state: Some(LineState::Serving).filter(|_| number % 3 > 0),
        crashes: None,
        file: None,
        more: more.iter().map(|field| (*field).to_owned()).collect(),
    };
    let more = || vec!["head=more".to_owned()];
    let record = |last, live| Record { last, live, more: more(), ..Record::default() };
    let plain = |numbers: std::ops::RangeInclusive<u64>| numbers.map(|n| generation(n, &[]));
    vec![
        Record::default(),
        record(NUMBER_MAX, Vec::new()),
        record(1, plain(1..=1).collect()),
        record(7, plain(4..=6).collect()),
        Record { starting: Some(generation(8, &["a=b"])), ..record(8, plain(7..=7).collect()) },
        record(40, plain(1..=40).collect()),
        record(
            3,
            vec![
                generation(2, &["colour=red", "state=dreaming"]),
                generation(3, &["a=b=c", "empty="]),
            ],
        ),
        record(
            5,
            vec![
                Generation { crashes: Some(ROW), ..generation(4, &["crashes=soon"]) },
                Generation { crashes: Some(SERVED), ..generation(5, &["crashes=1"]) },
            ],
        ),
        record(
            8,
            vec![
                generation(6, &["crashes=soon", "file=soon", "state=dreaming"]),
                Generation { file: Some(FILE), ..generation(7, &["file=soon", "file=1:2:3:4"]) },
                Generation {
                    state: Some(LineState::Probation),
                    ..generation(8, &["state=serving"])
                },
            ],
        ),
        record_1(),
    ]
}

const FILE: ProgramFile = ProgramFile { device: 5, inode: 6, mtime: -7, size: 8 };
const ROW: Row = Row { first: Duration::from_millis(7), served_since: None };
const SERVED: Row = Row { served_since: Some(Duration::from_millis(9)), ..ROW };

#[test]
fn what_a_generation_does_in_each_state() {
    let all =
        LineState::ALL.map(|one| (one.name(), one.listens(), one.serves(), one.is_unproven()));
    let expected = [
        ("serving", true, true, false),
        ("probation", true, true, true),
        ("replaced", false, false, true),
        ("draining", false, false, false),
        ("keeping", true, false, false),
    ];
    assert_eq!(all, expected);
}

/// Before a file is written over, and in a command that is given any path.
#[test]
fn a_record_is_known_by_its_first_word() {
    for (text, is_one) in [
        (RECORD_1, true),
        ("seamless-record 2 last=1", true),
        ("seamless-record", false),
        ("seamless-records 1 last=12", false),
        ("4711", false),
        ("", false),
    ] {
        assert_eq!(Record::begins(text.as_bytes()), is_one, "{text:?}");
    }
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
    let text = RECORD_1.replace(" state=serving", " state=serving sockets=7 owner=0:0");
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

/// The next claim adds one to it.
#[test]
fn p4_p10_a_number_that_cannot_be_counted_on_from_is_dropped() {
    let too_large = u64::MAX.to_string();
    let counts = RECORD_1.replace("last=12", &format!("last=12 starts={too_large}"));
    let (record, _) = Record::parse(counts.as_bytes()).expect("a record");
    assert_eq!((record.tally.starts, record.more.len()), (0, 1));
    for (from, to) in [("last=12", "last="), ("generation=11", "generation=")] {
        for number in [&too_large, "9223372036854775808", "+13"] {
            let text = RECORD_1.replace(from, &format!("{to}{number}"));
            let (record, dropped) = Record::parse(text.as_bytes()).expect("a record");
            assert!(record.last <= 12, "{number}");
            assert_eq!(dropped.len(), 1, "{number}");
        }
    }
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
    for bytes in [&b"\0x"[..], b"\xff\xfe", b"\x7fELF\x02\x01\x01"] {
        assert_eq!(Record::parse(bytes), Err(Refused::Foreign));
    }
}

#[test]
fn what_a_loss_of_power_leaves_is_an_empty_record() {
    for length in [1, 214, 4096] {
        let dropped = vec![format!("{length} zero bytes")];
        assert_eq!(Record::parse(&vec![0; length]), Ok((Record::default(), dropped)));
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
