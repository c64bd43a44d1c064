//! Shared by tests, demo and benchmark.
