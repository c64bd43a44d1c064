//! What launcher and daemon promise, with real processes that mostly wait: many tests at a time.
//!
//! A test of a promise is named after it, `p<N>_…`. Each runs in a box; with a supervisor, under
//! daemontools and under runit.

mod at_full_length;
mod blocked;
mod clients;
mod command;
mod commands;
mod config;
mod containers;
mod copies;
mod deploys;
mod drain;
mod ends;
mod examples;
mod files;
mod gaps;
mod group;
mod groups;
mod hooks;
mod http;
mod in_flight;
mod in_place;
mod kills;
mod launcher;
mod launcher_gone;
mod leaks;
mod log_file;
mod nohup;
mod notify;
mod openrc;
mod order;
mod output;
mod peers;
mod pid_file;
mod program_file;
mod s6;
mod shortage;
mod signals;
mod site;
mod sockets;
mod stop;
mod stopped;
mod supervisord;
mod takeover;

use seamless_testing::scene;
