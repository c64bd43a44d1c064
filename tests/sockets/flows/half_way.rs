//! A third generation that is killed half-way through its start, while two others have living flows: at each of its
//! system calls that changes a group of sockets, a file that others read, or another process.

use std::process::{Child, Command};

use super::{probation::Traffic, *};
use seamless_testing::{process, scene};

const CONT: i32 = 18;
const TERM: i32 = 15;

/// strace, which kills a process at one of its system calls: it is not executed any more.
struct Strace(Child);

impl Strace {
    /// Returns when the process is traced. Each of its threads counts its own calls.
    #[track_caller]
    fn kills(pid: u32, call: &str, nth: u32) -> Strace {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
        strace.args(["-e", &format!("inject={call}:signal=KILL:when={nth}")]);
        strace.args(["-p", &pid.to_string()]).stdin(Stdio::null()).stderr(Stdio::null());
        let strace = strace.spawn().expect("strace; run scripts/setup");
        wait_for(format!("{pid} is traced"), LIMIT, || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
            (!status.contains("\nTracerPid:\t0\n")).then_some(())
        });
        Strace(strace)
    }

    /// Lets go of what lives.
    fn end(mut self) {
        Watched::new(self.0.id()).signal(TERM);
        self.0.wait().expect("its end");
    }
}

impl Service {
    /// One more generation, which is killed when one of its threads makes this call for the `nth` time. `false`: it
    /// does not make so many of them until it has started. Then it serves.
    #[track_caller]
    fn next_killed_at(&mut self, call: &str, nth: u32, count: usize) -> bool {
        self.generations.last_mut().expect("one").started.detach_if_attached();
        let mut started = self.start(count, &["--at=before-daemon-init=raise:19"]);
        let daemon = Watched::new(scene::stopped_child(started.launcher.pid()));
        let strace = Strace::kills(daemon.pid(), call, nth);
        process::signal(daemon.pid(), CONT);
        let has_started = || {
            let events = self.direct.report.events();
            events.iter().any(|event| event.pid == daemon.pid() && event.name == "started")
        };
        wait_for(format!("{call}:{nth}, or a start\n{}", self.direct.log), LIMIT, || {
            (daemon.has_ended() || has_started()).then_some(())
        });
        strace.end();
        if daemon.has_ended() {
            started.wait_end();
            return true;
        }
        let (flows, go) = (self.flows(&daemon), self.go(self.count));
        self.count += 1;
        self.generations.push(Generation { started, daemon, flows, go });
        false
    }

    /// New flows go to the newest one that is left, if it serves. If it had been told to end already, it drains.
    #[track_caller]
    fn serves_on(&self) -> bool {
        let newest = self.newest();
        let new = &new_flows(self.steer)[0];
        wait_for(format!("{newest} serves or drains\n{}", self.direct.log), LIMIT, || {
            let hooks = scene::hooks(&self.direct.report, newest);
            if hooks.iter().any(|hook| hook == "shutdown") {
                return Some(false);
            }
            let who = || ask(self.clients[0], new, Duration::from_millis(100));
            (0..12).all(|_| who() == Some(newest)).then_some(true)
        })
    }

    fn traffic_of_all(&self) -> Traffic {
        self.traffic(&(0..self.generations.len()).collect::<Vec<usize>>())
    }
}

fn half_way(calls: &[&str]) {
    a_box().run(|folder| {
        for call in calls {
            let mut service = Service::at(&folder.join(call), "quic");
            // Two places of one that has ended are to be used again, and one more is bound.
            service.next(2);
            service.next(3);
            service.next(2);
            let first = service.end(0);
            service.wait_given_up(&first);
            let mut times = 0;
            loop {
                let traffic = service.traffic_of_all();
                if !service.next_killed_at(call, times + 1, 3) {
                    traffic.end();
                    service.check();
                    break;
                }
                times += 1;
                traffic.wait_rounds();
                service.check_flows();
                let serves_on = service.serves_on();
                println!("{call}:{times} serves on: {serves_on}");
                traffic.end();
                if serves_on {
                    service.wait_new_flows();
                    service.check();
                    continue;
                }
                service.next_after_a_crash(3);
                service.check();
                let oldest = service.end(0);
                service.wait_given_up(&oldest);
            }
            assert!(times > 0, "{call}");
        }
    });
}

#[test]
fn p14_p9_a_kill_while_members_are_bound_and_steered_leads_no_flow_astray() {
    half_way(&["bind", "setsockopt"]);
}

#[test]
fn p14_p9_a_kill_while_flows_are_taken_over_leads_no_flow_astray() {
    half_way(&["sendmsg", "recvmsg", "rename", "pidfd_send_signal"]);
}
