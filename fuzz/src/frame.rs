//! Whatever bytes come: the parser does not panic, and what it takes for a message, it writes and
//! reads again as the same message.
#![no_main]
#![allow(unexpected_cfgs)] // those of the crate that the parser comes from

// Only some of it is used here.
#[allow(dead_code, unexpected_cfgs, unreachable_pub)]
#[path = "../../src/proto/mod.rs"]
mod proto;

use proto::control::frame::{self, Answer, Batch, Request};
use proto::control::status::Status;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    _ = proto::counters::list(bytes);
    if let Ok(request) = Request::parse(bytes) {
        assert_eq!(Request::parse(&request.format()), Ok(request));
    }
    if let Ok((batch, load)) = Batch::parse(bytes) {
        let text = batch.format(load);
        if text.len() <= frame::MESSAGE_MAX {
            assert_eq!(Batch::parse(&text), Ok((batch, load)));
        }
    }
    if let Ok(answer) = Answer::parse(bytes) {
        if let Answer::Status(text) = &answer {
            status(text);
        }
        let text = answer.format();
        // Escapes may make a message longer than it came.
        if text.len() <= frame::MESSAGE_MAX {
            assert_eq!(Answer::parse(&text), Ok(answer));
        }
    }
});

fn status(text: &str) {
    let Some(status) = Status::parse(text) else { return };
    let text = status.format();
    let again = Status::parse(&text).expect("what was written");
    // Escapes may leave no room for the last sockets.
    let held = again.held.len();
    let status = Status { held: status.held[..held].to_vec(), ..status };
    assert_eq!(again, status);
}
