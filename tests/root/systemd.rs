//! A service of a real systemd.

use std::{fs, path::Path};

use seamless_testing::{
    bin,
    boxed::{self, Boxed},
    http::{Prober, Target},
    report::Report,
    systemd::{self, Systemd},
    wait_for,
};

use crate::LIMIT;

const UNIT: &str = "web.service";

fn run(test: impl FnOnce(&Systemd, &Path)) {
    systemd::run(Boxed::new().private_net_without_migration(), test);
}

/// A service with its files in one folder.
struct Web<'a> {
    systemd: &'a Systemd,
    folder: &'a Path,
    target: Target,
    report: Report,
}

impl<'a> Web<'a> {
    fn new(systemd: &'a Systemd, folder: &'a Path) -> Self {
        let target = Target::from(boxed::address());
        let report = Report::new(folder.join("report"));
        Web { systemd, folder, target, report }
    }

    /// Writes the unit: `settings` may override what stands before them.
    fn deploy(&self, settings: &str, options: &str) {
        let (probe, folder, target) = (bin::probe(), self.folder.display(), &self.target);
        self.systemd.unit(
            UNIT,
            &format!(
                "[Unit]\nDefaultDependencies=no\nStartLimitIntervalSec=0\n[Service]\n\
                 Type=notify\nKillMode=process\nRestart=always\nRestartSec=0\n\
                 Environment=RUST_LOG=debug\n\
                 StandardOutput=append:{folder}/log\nStandardError=append:{folder}/log\n\
                 ExecStart={} --pid-file={folder}/web.pid --report={folder}/report --tcp={target} \
                 {options}\n{settings}",
                probe.display()
            ),
        );
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    #[track_caller]
    fn wait_log(&self, words: &[&str]) -> String {
        wait_for(format!("{words:?} in the log"), LIMIT, || {
            let log = self.log();
            let mut lines = log.lines();
            lines.find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
        })
    }
}

#[test]
fn p1_p2_restarts() {
    run(|systemd, folder| {
        let web = Web::new(systemd, folder);
        web.deploy("Type=simple", "");
        systemd.control(&["start", UNIT]);
        let first = web.report.wait("started").pid;
        let prober = Prober::start(&web.target);
        prober.wait_pid(first);
        systemd.control(&["restart", UNIT]);
        let second = web.report.wait_nth("started", 2).pid;
        prober.wait_pid(second);
        println!("{}", web.log());
        prober.stop().assert_all_answered();
        systemd.control(&["stop", UNIT]);
        println!("{}", web.log());
    });
}
