//! In the place of `systemd` if the feature `systemd` is off: nobody is told anything.

use crate::proto::Report;
use crate::proto::launcher::{Child, Output, Progress};
use std::os::fd::OwnedFd;
use std::time::Duration;

pub(in crate::driver) enum Due {}

pub(in crate::driver) struct Notifier;

impl Notifier {
    pub(in crate::driver) fn new(_: Child) -> Notifier {
        Notifier
    }

    pub(in crate::driver) fn next(&self) -> Option<Duration> {
        None
    }

    pub(in crate::driver) fn due(&mut self) -> Option<Due> {
        None
    }

    pub(in crate::driver) fn progress(&mut self, _: Progress) {}

    pub(in crate::driver) fn reported(&mut self, _: Report) {}

    pub(in crate::driver) fn aside(&mut self, _: Child, _: &[u8], _: Option<OwnedFd>) {}

    pub(in crate::driver) fn performing(&mut self, _: &Output) {}
}
