use super::super::frame::{Address, Answer, Flow, Secret, Socket, SocketKind};
use super::{MESSAGE_MAX, State, Status};

fn socket(port: u16) -> Socket {
    let address = Address::Inet(([127, 0, 0, 1], port).into());
    Socket {
        kind: SocketKind::Tcp,
        asked: address.clone(),
        name: Some("a name".to_owned()),
        member: 0,
        retired: false,
        local: address,
        file: None,
        flow: None,
    }
}

fn full() -> Status {
    let text = |text: &str| Some(text.to_owned());
    Status {
        generation: Some(3),
        state: State::Serving,
        keeping: false,
        handing_off: true,
        daemon: 812,
        launcher: Some(811),
        age_ms: 5000,
        sockets: 1,
        version: text("0.1.0"),
        state_ms: Some(20),
        supervisor_kind: text("runit"),
        supervisor: Some(7),
        supervisor_wants: text("up"),
        service_folder: Some(b"/service/a web\n\xff".to_vec()),
        no_restart: text("nobody would start the service again"),
        took_over: Some(2),
        transfer_us: Some(850),
        notifies: true,
        drain_timeout_ms: Some(60_000),
        leave_time_ms: Some(10_000),
        probation_limit_ms: Some(60_000),
        probation_ms: Some(1_500),
        candidate: Some(9),
        next_try_ms: Some(700),
        in_place: true,
        failures: 4,
        failure: text("exit code 1: 100 % wrong"),
        held: vec![socket(80)],
    }
}

fn least() -> Status {
    let text = "generation=- state=draining daemon=812 launcher=- age_ms=0 sockets=0 failures=0";
    Status::parse(text).expect("a status")
}

#[test]
fn each_status_is_read_as_it_was_written() {
    for word in ["starting", "serving", "handing-off", "detached", "draining"] {
        let (state, handing_off) = State::parse(word).expect("a state");
        let full = Status { state, handing_off, ..full() };
        assert_eq!(Status::parse(&full.format()), Some(full));
    }
    assert_eq!(Status::parse(&least().format()), Some(least()));
    assert_eq!((least().generation, least().launcher, least().version), (None, None, None));
}

/// What another process says is printed on somebody's terminal.
#[test]
fn a_text_is_one_line_of_bounded_length() {
    let failure = Some(format!("one\n\u{1b}[2Jtwo{}", "x".repeat(5000)));
    let read = Status::parse(&Status { failure, ..full() }.format()).expect("a status");
    let text = read.failure.expect("a text");
    assert!(text.starts_with("one  [2Jtwoxxx") && text.len() == 1024, "{text}");
}

#[test]
fn what_a_later_version_adds_is_passed_over() {
    let mut text = full().format().replacen(' ', " later=1 ", 1);
    text.push_str("\nconnection 7\nsocket sctp asked=1 local=2 member=0");
    assert_eq!(Status::parse(&text), Some(full()));
}

#[test]
fn what_does_not_say_who_it_is_or_how_far_is_no_status() {
    for text in [
        "",
        "state=serving",
        "daemon=812",
        "state=resting daemon=812",
        "state=serving daemon=0",
        "state=serving daemon=-1",
        "state=serving daemon=99999999999",
    ] {
        assert_eq!(Status::parse(text), None, "{text}");
    }
}

#[test]
fn more_sockets_than_fit_are_counted_and_not_listed() {
    let held: Vec<Socket> = (1..=5000).map(socket).collect();
    let many = Status { sockets: 5000, held, ..full() };
    let text = many.format();
    assert!(Answer::Status(text.clone()).format().len() <= MESSAGE_MAX);
    let read = Status::parse(&text).expect("a status");
    assert_eq!(read.sockets, 5000);
    assert_eq!(read.held[..], many.held[..read.held.len()]);
    // Another one has no room beside what stands before the status.
    let next = format!("\nsocket {}", many.held[read.held.len()].format());
    assert!(text.len() + next.len() + 256 > MESSAGE_MAX, "{} of {MESSAGE_MAX}", text.len());
}

/// Everybody who may ask for the status reads it; the secret is for the successors of the group alone.
#[test]
fn a_status_does_not_tell_the_secret_of_a_steered_group() {
    let flow = Flow { owner: None, secret: Secret([0xa5; Secret::LENGTH]) };
    let held = vec![Socket { flow: Some(Box::new(flow)), ..socket(80) }];
    let text = Status { held, ..full() }.format();
    assert!(!text.contains("a5a5"), "{text}");
    assert_eq!(Status::parse(&text), Some(full()));
}

#[test]
fn lines_that_are_long_fit_as_well() {
    for length in 1..60 {
        let name = Some("\u{1}".repeat(length)); // three bytes each
        let held = vec![Socket { name, ..socket(80) }; 1000];
        let text = Status { held, ..full() }.format();
        assert!(Answer::Status(text).format().len() <= MESSAGE_MAX);
    }
}
