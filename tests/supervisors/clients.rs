//! What a client sees under each supervisor, compared with the table in the guide.

use std::{fs, path::Path};

use seamless_testing::{
    bin,
    boxed::{self, Boxed},
    clients::{self, Case, Host, Program},
    http::Target,
    page,
    supervisor::{Service, Supervisor, copy_folder},
};

#[test]
fn the_table_of_clients_is_complete() {
    page::check_table(&clients::table());
}

/// A test for each case of one supervisor.
macro_rules! cases {
    ($module:ident: $row:literal, $host:expr) => {
        mod $module {
            use super::*;
            cases![@ $row, $host;
                p1_p2_p3_restart: Restart,
                p3_p6_stop: Stop,
                p8_kill: Kill,
                p6_crash: Crash,
                p1_bad_deploy: BadDeploy,
            ];
        }
    };
    (@ $row:literal, $host:expr; $($name:ident: $case:ident,)+) => {
        $(
            #[test]
            fn $name() {
                cell($row, Case::$case, $host);
            }
        )+
    };
}

cases![daemontools: "daemontools", |folder| supervised(Supervisor::Daemontools, folder)];
cases![runit: "runit", |folder| supervised(Supervisor::Runit, folder)];
cases![s6: "s6", |folder| supervised(Supervisor::S6, folder)];
cases![supervisord: "supervisord", crate::supervisors::supervisord::Web::new];
cases![openrc: "OpenRC", crate::supervisors::openrc::Web::new];

fn cell<H: Host>(row: &str, case: Case, host: impl FnOnce(&Path) -> H) {
    Boxed::new().private_net().run(|folder| {
        let seen = clients::watch(&mut host(folder), case);
        page::check_cell(&clients::table(), row, case.name(), &seen.to_string());
    });
}

/// A service folder of `examples/service` as it is, with the example `takeover` in it.
pub(crate) struct Supervised {
    service: Service,
    target: Target,
    program: Program,
}

pub(crate) fn supervised(kind: Supervisor, folder: &Path) -> Supervised {
    let target = Target::from(boxed::address());
    let program = Program::new(folder.join("web"), &bin::example("takeover"));
    let service = folder.join("service");
    let name = format!("{kind:?}").to_lowercase();
    copy_folder(&bin::root().join(format!("examples/service/{name}/web")), &service);
    fs::remove_dir_all(service.join("log")).expect("its logger");
    let env = format!(
        "WEB_BIN='{}'\nWEB_PID_FILE='{}/run/web.pid'\nWEB_USER=\n\
         WEB_ARGS='--listen {target} --startup-delay 200ms'\n",
        program.path().display(),
        folder.display(),
    );
    fs::write(service.join("env"), env).expect("its settings");
    let service = Service::supervise(kind, service);
    service.settle();
    Supervised { service, target, program }
}

impl Host for Supervised {
    fn target(&self) -> &Target {
        &self.target
    }

    fn program(&self) -> &Program {
        &self.program
    }

    fn restart(&mut self) {
        self.service.restart();
    }

    fn stop(&mut self) {
        self.service.down();
    }

    fn wait_down(&mut self) {
        self.service.wait_down();
    }

    fn kill(&mut self) {
        self.service.control(match self.service.kind() {
            Supervisor::Daemontools | Supervisor::S6 => "-k",
            Supervisor::Runit => "kill",
        });
    }
}
