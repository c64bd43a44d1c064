use super::{Arrival, Link, Message};
use std::os::fd::AsFd;

fn message(arrival: Arrival) -> Message {
    let Arrival::Message(message) = arrival else { panic!("{arrival:?}") };
    message
}

#[test]
fn what_a_peer_sent_arrives_although_it_closed_without_reading() {
    let (ours, theirs) = Link::pair().expect("a pair");
    assert!(matches!(ours.receive(8), Arrival::Nothing));
    ours.send(b"unread", &[]).expect("room");
    theirs.send(b"first", &[]).expect("room");
    theirs.send(b"last", &[]).expect("room");
    drop(theirs);
    assert_eq!(message(ours.receive(8)).bytes, b"first");
    assert_eq!(message(ours.receive(8)).bytes, b"last");
    assert!(matches!(ours.receive(8), Arrival::Closed));
    let error = ours.send(b"more", &[]).expect_err("nobody is there");
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
}

#[test]
fn a_message_that_is_too_long_is_marked_and_the_next_one_is_whole() {
    let (ours, theirs) = Link::pair().expect("a pair");
    theirs.send(b"too long", &[]).expect("room");
    theirs.send(b"short", &[ours.as_fd(), theirs.as_fd()]).expect("room");
    let cut = message(ours.receive(5));
    assert!(cut.is_cut && cut.bytes == b"too l");
    let whole = message(ours.receive(5));
    assert!(!whole.is_cut && !whole.lost_fds && whole.bytes == b"short");
    assert_eq!(whole.fds.len(), 2);
}

#[test]
fn a_full_queue_is_a_shortage() {
    let (ours, _theirs) = Link::pair().expect("a pair");
    let error = (0..1 << 20).find_map(|_| ours.send(b"message", &[]).err()).expect("it is full");
    assert!(super::is_shortage(&error), "{error}");
}
