//! A probation beside steered groups: the new generation gets new flows, the one that stands by keeps its own,
//! and whatever ends the probation, only flows of a process that has died are lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use super::*;
use crate::command::seamless;
use seamless_testing::log::{Line, Log};

/// Longer than any test.
const WINDOW: &str = "--probation=10m";
const CONT: i32 = 18;

impl Service {
    /// The next generation, on probation; the one at `standby` stands by.
    #[track_caller]
    fn next_on_probation(&mut self, count: usize, standby: u32, more: &[&str]) {
        let stands = standby.to_string();
        let is_it = |line: &Line| line.is(&[("stage", "standby"), ("daemon", &stands)]);
        let times = |log: &Log| log.lines().iter().filter(|line| is_it(line)).count();
        let before = times(&self.direct.log);
        self.generations.last_mut().expect("one").started.detach_if_attached();
        self.next_with(count, &[&[WINDOW], more].concat());
        wait_for(format!("{standby} to stand by"), LIMIT, || {
            (times(&self.direct.log) > before).then_some(())
        });
    }

    /// The newest one has failed, and drains: new flows are those of the one before.
    fn rolled_back(&mut self) {
        let last = self.generations.len() - 1;
        self.generations.swap(last - 1, last);
    }

    /// Its supervisor starts no other one while it lives.
    fn lose_launcher(&mut self, place: usize) {
        let started = &mut self.generations[place].started;
        started.launcher.kill();
        started.wait_end();
    }

    /// Waits until all new flows reach the newest one.
    #[track_caller]
    pub(super) fn wait_new_flows(&self) {
        for datagram in new_flows(self.steer) {
            for address in &self.clients {
                wait_for(format!("new flows at {}: {datagram:?}", self.newest()), LIMIT, || {
                    let who = || ask(*address, &datagram, Duration::from_millis(100));
                    (0..12).all(|_| who() == Some(self.newest())).then_some(())
                });
            }
        }
    }

    fn pid(&self, place: usize) -> u32 {
        self.generations[place].daemon.pid()
    }

    /// Datagrams of the flows of these generations, without a pause.
    pub(super) fn traffic(&self, places: &[usize]) -> Traffic {
        let flows = places.iter().map(|place| &self.generations[*place]);
        let flows =
            flows.flat_map(|one| one.flows.iter().map(|flow| (one.daemon.pid(), flow.clone())));
        Traffic::start(self.clients[0], flows.collect())
    }
}

/// Asks again and again, each time from another port.
pub(super) struct Traffic {
    rounds: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    asking: JoinHandle<Vec<String>>,
}

impl Traffic {
    #[track_caller]
    fn start(address: SocketAddr, flows: Vec<(u32, Vec<u8>)>) -> Traffic {
        let (rounds, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, ends) = (Arc::clone(&rounds), Arc::clone(&over));
        let asking = thread::spawn(move || {
            let mut wrong = Vec::new();
            while !ends.load(Ordering::SeqCst) && wrong.len() < 10 {
                for (pid, flow) in &flows {
                    let who = ask(address, flow, LIMIT);
                    if who != Some(*pid) {
                        wrong.push(format!("a flow of {pid} has reached {who:?}"));
                    }
                }
                count.fetch_add(1, Ordering::SeqCst);
            }
            wrong
        });
        let traffic = Traffic { rounds, over, asking };
        traffic.wait_rounds();
        traffic
    }

    #[track_caller]
    pub(super) fn wait_rounds(&self) {
        let begun = self.rounds.load(Ordering::SeqCst);
        wait_for("more rounds", LIMIT, || {
            (self.rounds.load(Ordering::SeqCst) > begun + 20 || self.asking.is_finished())
                .then_some(())
        });
    }

    /// All of them have reached their process.
    #[track_caller]
    pub(super) fn end(self) {
        self.wait_rounds();
        self.over.store(true, Ordering::SeqCst);
        let wrong = self.asking.join().expect("no panic");
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}

/// The old, the one that stands by and the new one are killed in mid-flow, each time beside two that live.
#[test]
fn p14_p11_a_kill_in_a_probation_costs_the_flows_of_the_dead_alone() {
    a_box().run(|folder| {
        for steer in ["quic", BYTES, "newest"] {
            for role in ["old", "standby", "new"] {
                println!("{steer}, the {role} is killed");
                let kind = if steer == BYTES { "bytes" } else { steer };
                let mut service = Service::at(&folder.join(format!("{kind}-{role}")), steer);
                service.next(2);
                service.next(2);
                let standby = service.pid(1);
                service.next_on_probation(3, standby, &[]);
                service.check();
                let (killed, live) = match role {
                    "old" => (0, [1, 2]),
                    "standby" => (1, [0, 2]),
                    _ => (2, [0, 1]),
                };
                let traffic = service.traffic(&live);
                let killed = service.kill(killed);
                service.wait_new_flows();
                service.wait_given_up(&killed);
                traffic.end();
                service.check();
                // All goes on as ever: with a further probation, which is passed.
                let standby = service.newest();
                if role == "standby" {
                    service
                        .direct
                        .log
                        .wait(&[("stage", "commit"), ("daemon", &standby.to_string())]);
                }
                match role {
                    "old" => service.next_on_probation(1, service.pid(0), &[]),
                    _ => service.next_on_probation(1, standby, &[]),
                }
                service.check();
            }
        }
    });
}

/// The check of the program fails. New flows go back, and those of the failed one reach it while it drains; also
/// beside a further generation, which takes the sockets of both from the one that serves.
#[test]
fn p14_p11_flows_of_a_generation_that_is_rolled_back_reach_it_until_its_end() {
    a_box().run(|folder| {
        for steer in ["quic", BYTES] {
            println!("{steer}");
            let place = folder.join(if steer == BYTES { "bytes" } else { steer });
            let mut service = Service::at(&place, steer);
            service.next(2);
            service.next(2);
            let standby = service.pid(1);
            let unhealthy = place.join("unhealthy");
            let option = format!("--unhealthy={}", unhealthy.display());
            service.next_on_probation(3, standby, &[&option]);
            service.check();
            let traffic = service.traffic(&[0, 1, 2]);
            fs::write(&unhealthy, "").expect("a file");
            service.rolled_back();
            service.wait_new_flows();
            // By its place: the failed one stands before the one that serves.
            service.check();
            service.lose_launcher(1);
            service.next_after_a_crash(2);
            service.check();
            traffic.end();
            let failed = service.end(1);
            service.wait_given_up(&failed);
            service.check();
            service.next(4); // places of the failed one among them
            service.check();
        }
    });
}

/// The one that serves again has to see that end by itself: nobody starts after it.
#[test]
fn p14_p11_flows_of_a_failed_generation_are_given_up_at_its_end() {
    a_box().run(|folder| {
        let mut service = Service::at(folder, "quic");
        service.next(2);
        let standby = service.pid(0);
        let unhealthy = folder.join("unhealthy");
        service.next_on_probation(2, standby, &[&format!("--unhealthy={}", unhealthy.display())]);
        fs::write(&unhealthy, "").expect("a file");
        service.rolled_back();
        service.wait_new_flows();
        service.check();
        let failed = service.end(0);
        service.wait_given_up(&failed);
        service.check();
    });
}

#[test]
fn p14_p11_new_flows_go_back_while_the_new_generation_hangs() {
    a_box().run(|folder| {
        for steer in ["quic", "newest"] {
            println!("{steer}");
            let mut service = Service::at(&folder.join(steer), steer);
            service.next(2);
            let standby = service.pid(0);
            service.next_on_probation(2, standby, &[]);
            service.generations[1].daemon.stop();
            let traffic = service.traffic(&[0]);
            service.rolled_back();
            service.wait_new_flows();
            traffic.end();
            service.rolled_back();
            service.generations[1].daemon.signal(CONT);
            service.wait_new_flows();
            service.check();
        }
    });
}

/// The second one has never been proven, and drains; the first one stands by for the third, and holds its sockets
/// as well as those of the second.
#[test]
fn p14_p11_three_generations_and_one_that_stands_by() {
    a_box().run(|folder| {
        for end in ["killed", "commit"] {
            println!("{end}");
            let mut service = Service::at(&folder.join(end), "quic");
            service.next(2);
            let standby = service.pid(0);
            service.next_on_probation(3, standby, &[]);
            service.next_on_probation(1, standby, &[]);
            service.check();
            let traffic = service.traffic(&[0, 1]);
            if end == "killed" {
                let killed = service.kill(2);
                service.generations.swap(0, 1); // the first one serves again
                service.wait_new_flows();
                service.wait_given_up(&killed);
            } else {
                let pid_file = service.direct.pid_file();
                let said = seamless("commit", &pid_file, &[]);
                assert_eq!(said.code, 0, "{}", said.err);
            }
            service.check();
            traffic.end();
            service.generations.last_mut().expect("one").started.detach_if_attached();
            service.next_after_a_crash(2);
            service.check();
        }
    });
}

/// A deploy that begins to steer is rolled back. Its own flows reach it while it drains, and all others the old
/// one, which has never steered.
#[test]
fn p14_p11_a_plain_group_is_as_before_after_a_rollback() {
    a_box().run(|folder| {
        for plain in [1, 2] {
            println!("{plain}");
            let place = folder.join(plain.to_string());
            let mut service = Service::at(&place, "");
            service.next(plain);
            let standby = service.pid(0);
            service.steer = "quic";
            let unhealthy = place.join("unhealthy");
            service.next_on_probation(
                2,
                standby,
                &[&format!("--unhealthy={}", unhealthy.display())],
            );
            service.check();
            fs::write(&unhealthy, "").expect("a file");
            service.rolled_back();
            service.wait_new_flows();
            service.check();
            service.lose_launcher(0);
            service.next_after_a_crash(2);
            service.check();
            service.end(0);
            service.check();
        }
    });
}
