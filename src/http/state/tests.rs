use super::*;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const TIMES: Times = Times {
    header: Duration::from_secs(10),
    keep_alive: Duration::from_secs(75),
    grace: Duration::from_secs(1),
};

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A connection, and the moment of its start.
fn new() -> (State, Instant) {
    let now = Instant::now();
    (State::new(now), now)
}

fn exchange(state: &mut State, now: Instant) {
    state.read(GET, || now);
    state.asked(Length::Nothing);
    state.answered(now);
    state.flushed(|| now);
}

#[test]
fn a_first_request_may_come_within_the_header_time_also_in_a_drain() {
    for draining in [false, true] {
        for first in [&b""[..], b"P", b"GET / HT", &PREFACE[..23]] {
            let (mut state, start) = new();
            state.read(first, || start);
            let draining = draining.then_some(start);
            let mut next = |after| state.next(start + seconds(after), draining, &TIMES, || false);
            assert_eq!(next(0), Next::Wait(start + seconds(10)));
            assert_eq!(next(9), Next::Wait(start + seconds(10)));
            assert_eq!(next(10), Next::Cut);
        }
    }
}

#[test]
fn an_idle_connection_ends_after_keep_alive_and_in_a_drain_after_the_grace() {
    let (mut state, start) = new();
    exchange(&mut state, start);
    assert_eq!(state.next(start, None, &TIMES, || false), Next::Wait(start + seconds(75)));
    let began = start + seconds(20);
    assert_eq!(state.next(began, Some(began), &TIMES, || false), Next::Wait(began + seconds(1)));
    // A request in time: the grace begins anew when it is answered.
    exchange(&mut state, began + seconds(1));
    let after = began + seconds(1);
    assert_eq!(state.next(after, Some(began), &TIMES, || false), Next::Wait(began + seconds(2)));
    assert_eq!(state.next(began + seconds(2), Some(began), &TIMES, || false), Next::Finish);

    let (mut state, start) = new();
    exchange(&mut state, start);
    assert_eq!(state.next(start + seconds(75), None, &TIMES, || false), Next::Finish);
}

/// The runtime may notice it later than its timer.
#[test]
fn an_idle_connection_does_not_end_while_something_is_unread() {
    for draining in [false, true] {
        let (mut state, start) = new();
        exchange(&mut state, start);
        let now = start + seconds(75);
        let draining = draining.then_some(start);
        let next = state.next(now, draining, &TIMES, || true);
        assert_eq!(next, Next::Wait(now + LOOK_AGAIN));
        assert_eq!(state.next(now + LOOK_AGAIN, draining, &TIMES, || false), Next::Finish);
    }
}

#[test]
fn a_request_on_its_way_is_waited_for_as_long_as_a_head_may_take() {
    let (mut state, start) = new();
    exchange(&mut state, start);
    let late = start + seconds(30);
    state.read(b"GET /", || late);
    state.read(b" HTTP/1.1\r\n", || late + seconds(5)); // the same head
    let next = state.next(late + seconds(5), Some(start), &TIMES, || false);
    assert_eq!(next, Next::Wait(late + seconds(10)));
    assert_eq!(state.next(late + seconds(10), Some(start), &TIMES, || false), Next::Cut);
}

#[test]
fn what_is_in_flight_is_never_ended() {
    for first in [GET, PREFACE] {
        let (mut state, start) = new();
        state.read(first, || start);
        state.asked(Length::Unknown);
        for draining in [None, Some(start)] {
            let mut seen = Vec::new();
            for after in [0, 100, 100_000] {
                seen.push(state.next(start + seconds(after), draining, &TIMES, || false));
            }
            if first == PREFACE && draining.is_some() {
                assert_eq!(seen[..2], [Next::Announce, Next::Finish]);
                seen.drain(..2);
            }
            assert!(seen.iter().all(|next| matches!(next, Next::Wait(_))), "{seen:?}");
        }
    }
}

#[test]
fn only_the_last_of_several_requests_is_the_last_answer() {
    let (mut state, start) = new();
    state.read(&[GET, GET, GET].concat(), || start);
    for last in [false, false, true] {
        state.asked(Length::Nothing);
        assert_eq!(state.is_last(), last);
        assert!(matches!(state.next(start, Some(start), &TIMES, || false), Next::Wait(_)));
        state.answered(start);
    }
    // Nor is one the last while the next is on its way.
    state.read(&[GET, b"GET /"].concat(), || start);
    state.asked(Length::Nothing);
    assert!(!state.is_last());
    state.read(&GET[5..], || start);
    state.answered(start);
    state.asked(Length::Nothing);
    assert!(state.is_last());
}

#[test]
fn an_answer_is_through_when_the_kernel_has_all_of_it() {
    let (mut state, start) = new();
    let mut busy = Vec::new();
    state.flushed(|| start);
    busy.push(state.is_busy());
    state.read(GET, || start);
    busy.push(state.is_busy());
    state.asked(Length::Nothing);
    state.flushed(|| start); // the head
    busy.push(state.is_busy());
    state.answered(start);
    busy.push(state.is_busy());
    state.flushed(|| start);
    busy.push(state.is_busy());
    assert_eq!(busy, [false, true, true, true, false]);
}

/// The library has the whole of it, and the client reads slowly.
#[test]
fn p3_an_answer_that_is_being_written_is_never_ended() {
    let waits_for_ever = |behind: &[u8], draining: bool| {
        let (mut state, start) = new();
        state.read(GET, || start);
        state.asked(Length::Nothing);
        state.read(behind, || start);
        state.answered(start);
        for written in [Some(100), None, Some(100)] {
            state.wrote(written);
            for after in [0, 1, 10, 75, 100_000] {
                let now = start + seconds(after);
                let next = state.next(now, draining.then_some(start), &TIMES, || true);
                assert!(matches!(next, Next::Wait(end) if end >= now + seconds(1)), "{next:?}");
            }
        }
        // From its end on, everything else has its time.
        let end = start + seconds(100_000);
        state.flushed(|| end);
        state.next(end, draining.then_some(start), &TIMES, || false)
    };
    for draining in [false, true] {
        for behind in [&b""[..], GET, &GET[..9]] {
            let next = waits_for_ever(behind, draining);
            assert!(matches!(next, Next::Wait(_)), "{behind:?}: {next:?}");
        }
    }
}

#[test]
fn empty_lines_in_a_body_are_no_requests() {
    let (mut state, start) = new();
    state.read(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\na\r\n\r\n", || start);
    state.asked(Length::Unknown);
    state.read(b"b\n\n", || start);
    assert!(state.is_last());
    state.answered(start);
    state.flushed(|| start);
    assert_eq!(state.next(start, Some(start), &TIMES, || false), Next::Wait(start + seconds(1)));
}

#[test]
fn what_is_left_of_a_body_ends_no_request_and_holds_up_no_drain() {
    let (mut state, start) = new();
    state.read(b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\n", || start);
    state.asked(Length::Unknown);
    state.answered(start); // not read
    state.flushed(|| start);
    state.read(b"a\n\nb\n\n", || start);
    assert_eq!(state.next(start, Some(start), &TIMES, || false), Next::Wait(start + seconds(10)));
    state.read(GET, || start);
    state.asked(Length::Nothing);
    assert!(state.is_last());
    state.answered(start);
    state.flushed(|| start);
    assert_eq!(state.next(start + seconds(1), Some(start), &TIMES, || false), Next::Finish);
}

/// The app has answered, and reads on.
#[test]
fn p3_an_upload_that_goes_on_after_its_answer_is_not_taken_for_heads() {
    for draining in [false, true] {
        let (mut state, start) = new();
        state.read(b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\na\n\n", || start);
        state.asked(Length::Bytes(99));
        state.answered(start);
        state.flushed(|| start);
        let draining = draining.then_some(start);
        let mut now = start + seconds(75);
        assert_eq!(state.next(now, draining, &TIMES, || true), Next::Finish);
        for _ in 0..20 {
            state.read(b"b\n\nc", || now);
            now += seconds(10);
            assert_eq!(state.next(now, draining, &TIMES, || true), Next::Wait(now + seconds(10)));
        }
        now += seconds(10);
        assert_eq!(state.next(now, draining, &TIMES, || true), Next::Cut);
    }
}

#[test]
fn where_a_body_of_known_length_ends_the_next_head_begins() {
    const POST: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n";
    for split in 0..=5 {
        let (mut state, start) = new();
        let body = b"\n1\n\n3";
        state.read(&[POST, &body[..split]].concat(), || start);
        state.asked(Length::Bytes(5));
        state.read(&body[split..], || start);
        assert!(state.is_last());
        state.read(&[POST, &body[..split]].concat(), || start);
        assert!(!state.is_last());
        state.answered(start);
        state.asked(Length::Bytes(5));
        state.answered(start);
        state.flushed(|| start);
        assert_eq!(state.may_move(), split == 5);
        state.read(&body[split..], || start);
        assert!(state.may_move());
    }
    // What is read behind it at once is not seen.
    let (mut state, start) = new();
    state.read(&[POST, b"12345", GET].concat(), || start);
    state.asked(Length::Bytes(5));
    assert!(state.is_last());
    state.answered(start);
    state.read(&GET[..9], || start);
    assert!(!state.is_last());
}

#[test]
fn p13_it_may_move_when_the_last_request_has_come_and_was_answered() {
    const POST: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n";
    let (mut state, start) = new();
    assert!(state.may_move()); // nothing has come
    state.read(&GET[..7], || start);
    assert!(state.may_move()); // half a head
    state.read(&GET[7..], || start);
    assert!(!state.may_move());
    state.asked(Length::Nothing);
    assert!(!state.may_move());
    state.answered(start);
    assert!(!state.may_move()); // it is not written
    state.flushed(|| start);
    assert!(state.may_move());
    // Answered before its body has come.
    state.read(&[POST, b"123"].concat(), || start);
    state.asked(Length::Bytes(5));
    state.answered(start);
    state.flushed(|| start);
    assert!(!state.may_move());
    state.read(b"45", || start);
    assert!(state.may_move());
    state.read(b"GE", || start);
    assert!(state.may_move());
    // It does not say how long it is: known after the next one.
    let next = |state: &mut State, bytes: &[u8], body| {
        state.read(bytes, || start);
        state.asked(body);
        state.answered(start);
        state.flushed(|| start);
        state.may_move()
    };
    let (mut state, _) = new();
    assert!(!next(&mut state, b"POST / HTTP/1.1\r\n\r\n0\r\n\r\n", Length::Unknown));
    assert!(next(&mut state, GET, Length::Nothing));
    // What looks like a head in its body is none.
    let (mut state, _) = new();
    assert!(next(&mut state, &[POST, b"\n1\n\n3"].concat(), Length::Bytes(5)));
    assert!(next(&mut state, &[POST, b"12345"].concat(), Length::Bytes(5)));
    // Where its head has ended is not known: what has come may begin with the end of another body.
    let (mut state, _) = new();
    assert!(!next(&mut state, b"POST / HTTP/1.1\r\n\r\n5\r\n12345\r\n", Length::Unknown));
    assert!(!next(&mut state, &[b"0\r\n\r\n", POST, b"\n1\n\n3"].concat(), Length::Bytes(5)));
    assert!(next(&mut state, &[POST, b"12345"].concat(), Length::Bytes(5)));
    // Only the first of several heads belongs to the request that is asked first.
    let (mut state, _) = new();
    state.read(&[GET, POST, b"123"].concat(), || start);
    state.asked(Length::Nothing);
    state.answered(start);
    assert!(!next(&mut state, b"4", Length::Bytes(5)));
    let (mut state, _) = new();
    assert!(!next(&mut state, &[GET, POST, b"12345"].concat(), Length::Nothing)); // one is ahead
    // One that came from another generation.
    let mut state = State::resumed(start);
    assert!(state.may_move() && state.has_been_asked() && state.is_untouched());
    assert_eq!(state.next(start, None, &TIMES, || false), Next::Wait(start + seconds(75)));
    assert!(next(&mut state, GET, Length::Nothing));
    assert!(!state.is_untouched());
    state.read(PREFACE, || start);
    state.upgraded();
    assert!(!state.may_move());
    let (mut state, _) = new();
    state.read(PREFACE, || start);
    assert!(!state.may_move());
    let (mut state, _) = new();
    assert!(next(&mut state, GET, Length::Nothing));
    state.finishes(start);
    assert!(!state.may_move());
}

#[test]
fn p3_only_what_can_still_move_waits_for_that() {
    const POST: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n";
    // Of a request: before it, in flight, and answered.
    let waits = |bytes: &[u8], body| {
        let (mut state, start) = new();
        let before = state.may_move_yet();
        state.read(bytes, || start);
        state.asked(body);
        let in_flight = state.may_move_yet();
        state.answered(start);
        let unflushed = state.may_move_yet();
        state.flushed(|| start);
        assert_eq!(unflushed, state.may_move_yet());
        state.finishes(start);
        assert!(!state.may_move_yet());
        [before, in_flight, unflushed]
    };
    assert_eq!(waits(GET, Length::Nothing), [true; 3]);
    let whole = [POST, b"1\n\n45"].concat();
    assert_eq!(waits(&whole, Length::Bytes(5)), [true; 3]);
    // The rest may come until it is answered.
    assert_eq!(waits(&whole[..whole.len() - 1], Length::Bytes(5)), [true, true, false]);
    assert_eq!(waits(POST, Length::Unknown), [true, false, false]);
    assert_eq!(waits(PREFACE, Length::Nothing), [true, false, false]);
}

/// It waits for something that may never come.
#[test]
fn http_1_is_cut_where_the_library_does_not_end_it() {
    for what in ["empty line", "rest of a body", "shutdown"] {
        let mut state = State::resumed(Instant::now());
        let start = state.since();
        match what {
            "empty line" => state.read(b"\r\n", || start),
            "rest of a body" => {
                state.read(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n1", || start);
                state.asked(Length::Bytes(9));
                state.answered(start);
                state.flushed(|| start);
            }
            _ => state.closes(),
        }
        let mut next =
            |after, unread| state.next(start + seconds(after), Some(start), &TIMES, || unread);
        // In the shutdown, nobody reads.
        assert_eq!(next(1, what == "shutdown"), Next::Finish, "{what}");
        assert_eq!(next(2, false), Next::Wait(start + seconds(11)), "{what}");
        assert_eq!(next(11, false), Next::Cut, "{what}");
    }
    // As long as something moves, or waits to be written, it is not.
    let (mut state, start) = new();
    exchange(&mut state, start);
    assert_eq!(state.next(start + seconds(75), None, &TIMES, || false), Next::Finish);
    state.read(b"2", || start);
    let mut now = start + seconds(85);
    assert_eq!(state.next(now, None, &TIMES, || false), Next::Wait(now + seconds(10)));
    state.wrote(None);
    now += seconds(10);
    assert_eq!(state.next(now, None, &TIMES, || false), Next::Wait(now + seconds(10)));
    state.wrote(Some(0));
    now += seconds(10);
    assert_eq!(state.next(now, None, &TIMES, || false), Next::Cut);
}

#[test]
fn http_2_is_told_at_once_and_cut_only_where_nothing_moves() {
    let (mut state, start) = new();
    state.read(PREFACE, || start);
    assert_eq!(state.next(start, Some(start), &TIMES, || false), Next::Announce);
    assert_eq!(state.next(start, Some(start), &TIMES, || false), Next::Wait(start + seconds(1)));
    let start = start + seconds(1);
    assert_eq!(state.next(start, Some(start), &TIMES, || false), Next::Finish);
    let mut now = start + seconds(10);
    state.wrote(Some(20));
    assert_eq!(state.next(now, Some(start), &TIMES, || false), Next::Wait(now + seconds(10)));
    now += seconds(10);
    state.wrote(None); // somebody does not read
    assert_eq!(state.next(now, Some(start), &TIMES, || false), Next::Wait(now + seconds(10)));
    state.wrote(Some(0));
    now += seconds(10);
    assert_eq!(state.next(now, Some(start), &TIMES, || false), Next::Cut);
}

/// The library has the end of its answer, and may not send it yet.
#[test]
fn p3_who_has_answered_the_last_goaway_may_pause_as_long_as_it_wants() {
    let (mut state, start) = new();
    state.read(PREFACE, || start);
    state.asked(Length::Nothing);
    state.answered(start);
    state.flushed(|| start);
    let finished = start + seconds(1);
    assert_eq!(state.next(start, Some(start), &TIMES, || false), Next::Announce);
    assert_eq!(state.next(finished, Some(start), &TIMES, || false), Next::Finish);
    state.read(b"", || start); // no word of the client
    state.read(b"pong", || start);
    for after in [10, 20, 30, 100_000] {
        let now = finished + seconds(after);
        let next = state.next(now, Some(start), &TIMES, || false);
        assert_eq!(next, Next::Wait(now + seconds(10)));
    }
}
