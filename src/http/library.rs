//! How the server library is set up, and what it takes.

use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioExecutor;
use std::error::Error;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

pub(super) struct Library {
    pub(super) http1: http1::Builder,
    pub(super) http2: http2::Builder<TokioExecutor>,
}
