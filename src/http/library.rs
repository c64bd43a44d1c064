//! How the server library is set up, and what it takes.

use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioExecutor;
use std::error::Error;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

pub(super) struct Library {
    pub(super) http1: http1::Builder,
    pub(super) http2: http2::Builder<TokioExecutor>,
}

impl Library {
    pub(super) fn new(max_header_size: usize) -> Library {
        let mut http1 = http1::Builder::new();
        // Hyper's own limit would also count between two requests; `State` has one that does not.
        http1.header_read_timeout(None).max_buf_size(max_header_size);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2.max_header_list_size(u32::try_from(max_header_size).unwrap_or(u32::MAX));
        Library { http1, http2 }
    }
}
