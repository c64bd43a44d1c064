//! In the place of `notify` where the feature `systemd` is off: nobody is told anything.

use crate::driver::daemon::Daemon;
use crate::proto::Report;
use crate::proto::launcher::{Child, Output, Progress};
use crate::sys::seqpacket::Link;
use std::os::fd::OwnedFd;
use std::time::Duration;

pub(super) enum Due {}

pub(super) struct Notifier;

impl Notifier {
    pub(super) fn new(_: Child) -> Notifier {
        Notifier
    }

    pub(super) fn next(&self) -> Option<Duration> {
        None
    }

    pub(super) fn due(&mut self) -> Option<Due> {
        None
    }

    pub(super) fn progress(&mut self, _: Progress) {}

    pub(super) fn reported(&mut self, _: Report) {}

    pub(super) fn aside(&mut self, _: Child, _: &[u8], _: Option<OwnedFd>) {}

    pub(super) fn performing(&mut self, _: &Output) {}
}

pub(super) fn answer(_: &Daemon, _: &Link) {}

pub(super) fn serves_alone() {}

pub(super) fn drains_alone() {}
