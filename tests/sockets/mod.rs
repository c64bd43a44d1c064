//! Sockets and state that survive a restart: where they are found, how they are handed over, and what
//! hostile peers can do.

mod examples;
mod found;
mod groups;
mod peers;
