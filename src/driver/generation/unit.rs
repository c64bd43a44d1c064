//! What a daemon does about the settings of its supervisor once it serves. It reads after how long a stop is followed
//! by KILL. Under systemd it also warns of settings that would cost connections, and asks systemd to keep its
//! sockets for a successor that finds no predecessor; that is done on a thread of its own, since systemd may be
//! slow and nothing waits for the result.

use crate::driver::generation::Service;
use crate::driver::log::{self, daemon::Event};
use crate::driver::retry;
use crate::driver::shared::Daemon;
use crate::proto::channel::Aside;
use crate::proto::supervisor::systemd::{self, Own, Unit};
use crate::shutdown::lock;
use crate::sys::systemctl as sys;
use std::thread;

/// Called when `started` has finished.
pub(in crate::driver) fn started(service: &'static Service, daemon: &'static Daemon) {
    if let Some(limit) = service.supervisor.kill_limit() {
        *lock(&daemon.stop_limit) = Some(limit);
    }
    let Some(unit) = &service.supervisor.unit else { return };
    let look = move || look(daemon, service, unit);
    let thread = thread::Builder::new().name("seamless-systemd".to_owned()).spawn(look);
    if let Err(error) = thread {
        log::write(Event::UnitNotAsked { error: &error });
    }
}

fn look(daemon: &'static Daemon, service: &'static Service, unit: &Unit) {
    let settings = match sys::show(unit, systemd::SETTINGS, sys::PATIENCE) {
        Ok(settings) => settings,
        Err(error) => {
            return log::write(Event::UnitUnknown { unit: &unit.name, error: &error });
        }
    };
    let folder = service.pid_file.parent().map(|folder| folder.display().to_string());
    let own_side = Own {
        notifies: cfg!(feature = "systemd"),
        drain_timeout: daemon.drain_timeout(),
        leave_time: daemon.leave_time,
        probation: service.probation,
        reloads: service.in_place,
        folder: folder.unwrap_or_default(),
    };
    *lock(&daemon.stop_limit) = systemd::stop_limit(&settings);
    for found in systemd::findings(&settings, &own_side) {
        log::write(Event::UnitSetting {
            unit: &unit.name,
            setting: &found.setting,
            instead: found.instead,
            reason: &found.why,
        });
    }
    let Some(channel) = daemon.channel.upgrade() else { return };
    let room = settings.get("FileDescriptorStoreMax").parse().unwrap_or(0);
    if !systemd::lets_a_keeper_live(&settings, cfg!(feature = "systemd") && room > 0) {
        lock(&daemon.to_launcher).clear();
        // If it is lost, the keeper is started for nothing.
        _ = retry::within(retry::TO_DAEMON, || channel.send(&Aside::NoKeeper.format(), &[]));
    }
    #[cfg(feature = "systemd")]
    crate::driver::sockets::fdstore::keep(&channel, room);
}
