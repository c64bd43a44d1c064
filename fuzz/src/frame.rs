//! Whatever bytes come: the parser does not panic, and what it takes for a message, it writes and
//! reads again as the same message.
#![no_main]

// Only some of it is used here.
#[allow(dead_code)]
#[path = "../../src/proto/frame.rs"]
mod frame;

use frame::{Answer, Request};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = Request::parse(bytes) {
        assert_eq!(Request::parse(&request.format()), Ok(request));
    }
    if let Ok(answer) = Answer::parse(bytes) {
        let text = answer.format();
        // Escapes may make a message longer than it came.
        if text.len() <= frame::MESSAGE_MAX {
            assert_eq!(Answer::parse(&text), Ok(answer));
        }
    }
});
