//! Whatever a lock file holds: the parser does not panic, and what is written is read again as the same record.
#![no_main]
#![allow(unexpected_cfgs)] // those of the crate that the parser comes from

// Only some of it is used here.
#[allow(dead_code, unexpected_cfgs, unreachable_pub)]
#[path = "../../src/proto/mod.rs"]
mod proto;

use proto::generation::record::Record;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    _ = Record::begins(bytes);
    let Ok((record, _)) = Record::parse(bytes) else { return };
    // What stands in another order than we write it is in ours from the second time on.
    let (record, dropped) = Record::parse(record.format().as_bytes()).expect("a record");
    assert_eq!(dropped, [""; 0]);
    let again = Record::parse(record.format().as_bytes());
    assert_eq!(again, Ok((record, Vec::new())));
});
