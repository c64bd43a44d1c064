//! What is read may have been written by anybody, cut anywhere, or be older or newer than we are.

use super::*;
use crate::proto::control::frame::{Address, SocketKind};

fn id(pid: i32, start: u64) -> Identity {
    Identity { pid, start }
}

fn hello(kind: Kind) -> Hello {
    Hello {
        kind,
        launcher: None,
        supervisor: None,
        in_place: false,
        takes_unhandled: false,
        folder: None,
    }
}

/// Every message of version 1, as the first release writes it.
fn to_daemon_1() -> Vec<(Vec<u8>, ToDaemon)> {
    let full = Hello {
        launcher: Some(id(4100, 73499)),
        supervisor: Some(id(1, 3)),
        folder: Some(b"/service/web".to_vec()),
        ..hello(Kind::DAEMONTOOLS)
    };
    let odd = b"/a b\n\xff folder=/c kind=runit";
    let odd_folder = Hello { folder: Some(odd.to_vec()), ..hello(Kind::RUNIT) };
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
                ..hello(Kind::OTHER)
            }),
        ),
        (b"seamless/1 cancel".to_vec(), ToDaemon::Cancel),
        (b"seamless/1 prepare".to_vec(), ToDaemon::Prepare),
        (
            b"seamless/1 reload-failed daemon 7 ended: exit_code 3".to_vec(),
            ToDaemon::ReloadFailed("daemon 7 ended: exit_code 3".to_owned()),
        ),
        (b"seamless/1 taken-over".to_vec(), ToDaemon::TakenOver),
        plain("nobody", Kind::NOBODY),
        plain("other", Kind::OTHER),
        intent("restart", Intent::Restart),
        intent("stop", Intent::Stop(Scope::Service)),
        intent("stop-generation", Intent::Stop(Scope::Generation)),
        intent("unknown", Intent::Unknown),
    ]
}

const REPORTS_1: [(&str, Report); 9] = [
    ("seamless/1 ready", Report::Ready),
    ("seamless/1 started", Report::Started),
    ("seamless/1 released", Report::Released),
    ("seamless/1 taken-over", Report::TakenOver),
    ("seamless/1 draining", Report::Draining),
    ("seamless/1 waiting", Report::Waiting),
    ("seamless/1 reload", Report::Reload),
    ("seamless/1 prepared", Report::Prepared),
    ("seamless/1 unhandled", Report::Unhandled),
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
        ToDaemon::Hello(Hello { folder: Some(b"/a".to_vec()), ..hello(Kind::RUNIT) }),
    );
    assert_eq!(parse(b"seamless/1 hello kind=upstart"), ToDaemon::Hello(hello(Kind::OTHER)));
    assert_eq!(parse(b"seamless/1 hello"), ToDaemon::Hello(hello(Kind::OTHER)));
    assert_eq!(
        parse(b"seamless/1 hello kind=runit launcher=0:1 supervisor=x"),
        ToDaemon::Hello(hello(Kind::RUNIT)),
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
        ..hello(Kind::DAEMONTOOLS)
    };
    assert!(ToDaemon::Hello(longest).format().len() < MESSAGE_MAX);
}

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

#[test]
fn what_is_given_is_read_again() {
    let socket = |port| {
        let address = Address::Inet(([127, 0, 0, 1], port).into());
        let (asked, local) = (address.clone(), address);
        let (kind, name) = (SocketKind::Tcp, Some("a b".to_owned()));
        Socket { kind, asked, name, member: 0, retired: false, local, file: None, flow: None }
    };
    let keep_sockets = Duration::from_millis(1500);
    for given in [
        Given::Begin { generation: 7, sockets: 2, keep_sockets },
        Given::Sockets(vec![socket(80), socket(81)]),
        Given::End,
    ] {
        assert_eq!(Given::parse(&given.format()), Some(given));
    }
    let many: Vec<Socket> = (1..=1000).map(socket).collect();
    let fits = Given::chunk(&many);
    assert!(fits > 10 && Given::Sockets(many[..fits].to_vec()).format().len() <= MESSAGE_MAX);
    for message in [&b"seamless/1 alive"[..], b"seamless/1 give sockets=1", b""] {
        assert_eq!(Given::parse(message), None);
    }
    assert_eq!(Aside::parse(&Aside::NoKeeper.format()), Some(Aside::NoKeeper));
    assert_eq!(Aside::parse(&Aside::InPlace.format()), Some(Aside::InPlace));
    let waits = Aside::Waits(Duration::from_millis(1_500));
    assert_eq!(Aside::parse(&waits.format()), Some(waits));
    let leave = Duration::from_millis(2_500);
    let leaving = Report::format_leaving(leave);
    assert_eq!(Report::parse(&leaving), Ok(Some(Report::Leaving)));
    assert_eq!(Report::leave_time(&leaving), leave);
    assert_eq!(Report::leave_time(&Report::Leaving.format()), Duration::ZERO);
}

#[test]
fn a_keeper_reads_what_its_launcher_tells() {
    let hello = Hello {
        kind: Kind::OTHER,
        launcher: Identity::parse("12:34"),
        supervisor: None,
        in_place: false,
        takes_unhandled: true,
        folder: Some(b"/a folder=b".to_vec()),
    };
    for user in [None, Some((33, 33, vec![])), Some((1000, 100, vec![4, 27]))] {
        let told = ToKeeper {
            hello: hello.clone(),
            served: Duration::from_millis(12),
            user,
            pid_file: b"/run/a pid_file=x \xff/web.pid".to_vec(),
        };
        assert_eq!(ToKeeper::parse(&told.format()), Some(told));
    }
    assert_eq!(ToKeeper::parse(&ToDaemon::Hello(hello).format()), None);
}
