use std::os::unix::fs::symlink;

use super::*;
use crate::load::Load;
use seamless_testing::{
    bin,
    boxed::{self, Boxed},
};

struct Quiet;

impl Watcher for Quiet {
    fn live(&mut self, _: &str, _: Option<&Running>) {}
}

#[test]
fn a_server_is_restarted_outlives_a_bad_version_and_crashes() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let family = Family::adopt().expect("a subreaper");
        let (link, good) = (folder.join("program"), bin::example("takeover"));
        let set = |program: &Path| {
            let next = folder.join("next");
            symlink(program, &next)?;
            fs::rename(next, &link)
        };
        set(&good).expect("a link");
        let address = boxed::address();
        let pid_file = folder.join("web.pid").into_os_string();
        let args = ["--pid-file".into(), pid_file, "--listen".into(), address.to_string().into()];
        let server = Server::new(link.clone(), args, Target::Tcp(address), folder);
        let pause = Duration::from_millis(100);
        let supervised = Supervised::start(None, &server, folder, pause).expect("it starts");
        let mut deployment = Deployment { family: &family, supervised, watcher: Quiet };
        server.wait("it listens", || server.listens().then_some(())).expect("it listens");
        let every = Duration::from_millis(5);
        let load = Load::new(server.target().clone()).clients(2).threads(1).every(every).start();
        assert!(load.wait_for_pids(1, LIMIT));

        deployment.restart(&load).expect("a restart");
        set(Path::new("/bin/false")).expect("a link");
        let time = Duration::from_millis(300);
        deployment.fail(&load, time, || set(&good)).expect("the old version serves on");
        assert_eq!(load.pids().len(), 3);
        assert_eq!(load.report().failures_but(&[]), 0, "{}", load.report());
        deployment.crash(&load).expect("another one");
        let report = load.stop();
        assert_eq!(report.answers.len(), 4, "{report}");
        assert!(report.failures_but(&[]) <= 2, "one request of each client: {report}");
    });
}
