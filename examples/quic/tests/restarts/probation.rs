//! A probation of a server with living connections: `tests/sockets/flows/probation.rs` has the same for single
//! datagrams.

use std::process::Command;

use quinn::Connection;
use seamless_testing::{bin, wait_for};

use crate::service::{Clients, LIMIT, Service, a_box};

impl Service {
    /// The next generation, on probation; the one before stands by.
    #[track_caller]
    fn next_on_probation(&mut self, members: usize) {
        let standby = self.newest();
        self.next(members);
        self.wait_stage("standby", standby);
    }

    #[track_caller]
    fn wait_stage(&self, stage: &str, daemon: u32) {
        self.log().wait(&[("stage", stage), ("daemon", &daemon.to_string())]);
    }

    #[track_caller]
    fn seamless(&self, command: &str) {
        let mut seamless = Command::new(bin::support("seamless"));
        let output = seamless.arg(command).arg(self.pid_file()).output().expect("seamless");
        assert!(output.status.success(), "{output:?}");
    }
}

/// All of these have lost their process, and were told so. On a busy machine, some may not ask again before their own
/// limit of 10 s.
#[track_caller]
fn assert_lost(ends: &[Result<(), String>]) {
    let has_ended = |end: &&Result<(), String>, how: &str| {
        end.as_ref().is_err_and(|error| error.ends_with(how))
    };
    let reset = ends.iter().filter(|end| has_ended(end, "reset by peer")).count();
    let timed_out = ends.iter().filter(|end| has_ended(end, "timed out")).count();
    println!("{reset} reset, {timed_out} timed out");
    assert!(reset > 0 && reset + timed_out == ends.len(), "{ends:?}");
}

/// A service with a generation that stands by, one on probation, and connections to both.
struct Scene {
    service: Service,
    clients: Clients,
    proven: u32,
    tried: u32,
    old: Vec<Connection>,
    new: Vec<Connection>,
}

impl Scene {
    fn new(folder: &std::path::Path) -> Scene {
        let mut service = Service::new(folder).option("--probation=10m");
        service.next(2);
        let clients = Clients::new(service.address);
        let (proven, old) = (service.newest(), clients.connections(8));
        service.next_on_probation(3);
        let (tried, new) = (service.newest(), clients.connections(8));
        clients.assert_reach(&old, proven);
        clients.assert_reach(&new, tried);
        Scene { service, clients, proven, tried, old, new }
    }

    /// New connections reach this process from some moment on, at the latest now.
    #[track_caller]
    fn fresh(&self, pid: u32) -> Vec<Connection> {
        let fresh = self.clients.connections(8);
        self.clients.assert_reach(&fresh, pid);
        fresh
    }
}

#[test]
fn p14_p11_a_kill_on_probation_costs_the_connections_of_the_killed_one_alone() {
    a_box().run(|folder| {
        let scene = Scene::new(folder);
        let (old, new) = (scene.clients.traffic(&scene.old), scene.clients.traffic(&scene.new));
        let killed = &scene.service.daemons[1];
        killed.kill();
        killed.wait_end(LIMIT);
        let fresh = scene.fresh(scene.proven);
        new.wait_broken();
        assert_lost(&scene.clients.end(new));
        old.wait_rounds();
        scene.clients.move_on();
        scene.clients.assert_reach(&scene.old, scene.proven);
        let Scene { mut service, clients, proven, old: connections, .. } = scene;
        service.daemons.remove(1);
        service.wait_launcher();
        // The next one waits a while, since its program has just failed.
        service.next_after_a_crash(2);
        service.wait_stage("standby", proven);
        let third = clients.connections(8);
        clients.assert_reach(&third, service.newest());
        clients.end_well(old);
        clients.assert_reach(&connections, proven);
        clients.assert_reach(&fresh, proven);
        service.seamless("commit");
        [connections, fresh, third].into_iter().for_each(|all| clients.close(all));
        service.daemons.remove(0).wait_end(LIMIT);
        service.assert_counted(500);
    });
}

#[test]
fn p14_p11_a_kill_of_the_one_that_stands_by_costs_its_own_connections_alone() {
    a_box().run(|folder| {
        let scene = Scene::new(folder);
        let (old, new) = (scene.clients.traffic(&scene.old), scene.clients.traffic(&scene.new));
        let killed = &scene.service.daemons[0];
        killed.kill();
        killed.wait_end(LIMIT);
        scene.service.wait_stage("commit", scene.tried);
        let fresh = scene.fresh(scene.tried);
        old.wait_broken();
        assert_lost(&scene.clients.end(old));
        scene.clients.end_well(new);
        scene.clients.move_on();
        scene.clients.assert_reach(&scene.new, scene.tried);
        // A further probation is as any other.
        let Scene { mut service, clients, tried, new, .. } = scene;
        service.daemons.remove(0);
        service.next_on_probation(2);
        let third = clients.connections(8);
        clients.assert_reach(&third, service.newest());
        clients.assert_reach(&new, tried);
        service.seamless("commit");
        [new, fresh, third].into_iter().for_each(|all| clients.close(all));
        service.daemons.remove(0).wait_end(LIMIT);
        service.assert_counted(500);
    });
}

/// Passed or not: no connection breaks, and the generation that ends does so when its last one is closed.
#[test]
fn p14_p11_a_commit_and_a_rollback_break_no_connection() {
    a_box().run(|folder| {
        for end in ["commit", "rollback"] {
            println!("{end}");
            let folder = folder.join(end);
            std::fs::create_dir(&folder).expect("a folder");
            let scene = Scene::new(&folder);
            let (proven, tried) = (scene.proven, scene.tried);
            let (old, new) = (scene.clients.traffic(&scene.old), scene.clients.traffic(&scene.new));
            scene.service.seamless(end);
            let (serves, drains) = if end == "commit" { (tried, proven) } else { (proven, tried) };
            scene.service.wait_stage("drain", drains);
            wait_for("new connections where they belong", LIMIT, || {
                let one = scene.clients.connections(1);
                let pid = scene.clients.process(&one[0]);
                scene.clients.close(one);
                (pid == serves).then_some(())
            });
            let fresh = scene.fresh(serves);
            scene.clients.move_on();
            scene.clients.end_well(old);
            scene.clients.end_well(new);
            scene.clients.assert_reach(&scene.old, proven);
            scene.clients.assert_reach(&scene.new, tried);
            let Scene { mut service, clients, old, new, .. } = scene;
            let place = usize::from(end == "rollback");
            let (ends, stays) = if end == "commit" { (old, new) } else { (new, old) };
            clients.close(ends);
            service.daemons.remove(place).wait_end(LIMIT);
            clients.assert_reach(&stays, serves);
            clients.assert_reach(&fresh, serves);
            service.assert_counted(200);
        }
    });
}
