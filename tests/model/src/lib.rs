//! The protocol's machines with the model checker that walks them: a crate of its own, since the
//! walks want it optimized, and nothing else of the crate is worth the time that takes to compile.

// The machines are a part of the crate here, not the whole of it.
#![cfg(test)]
#![allow(dead_code, unexpected_cfgs, unreachable_pub)]

#[path = "../../../src/proto/mod.rs"]
mod proto;
