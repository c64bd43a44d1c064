//! `started`: this generation takes over, step by step as `proto::generation::takeover` says.

use super::already_running::already_running;
use super::stop::log_told;
use super::{Examined, Files, Service, facts};
use crate::driver::control;
use crate::driver::generation::unit;
use crate::driver::log::{self, daemon::Event};
use crate::driver::shared::{Daemon, PROCESS};
use crate::driver::sockets;
use crate::error::Result;
use crate::proto::Report;
use crate::proto::daemon::StartedCall;
use crate::proto::generation::crashes::carried;
use crate::proto::generation::lines::Step;
use crate::proto::generation::record::{Generation, Record};
use crate::proto::generation::takeover::{Act, Done, End, Next, TakeOver};
use crate::proto::generation::verdict::{Purpose, Verdict, verdict};
use crate::shutdown::lock;
use crate::sys::pid_file::PidFile;
use crate::sys::signals::SIGUSR2;
use crate::sys::{proc, process, since_boot};
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// What the steps have in their hands. The files are held from [`Act::Look`] on: with them comes the
/// claim, which a stop may have given up until then.
#[derive(Default)]
struct Hands<'a> {
    files: Option<MutexGuard<'a, Files>>,
    record: Record,
    others: Vec<Examined>,
    control: Option<control::Prepared>,
}

const HELD: &str = "the files are held since the look";

pub(in crate::driver) fn started(service: &'static Service, daemon: &'static Daemon) -> Result<()> {
    let only_one = lock(&service.announcing);
    match daemon.phase().started_call() {
        StartedCall::TakesOver => {}
        StartedCall::Parks => {
            drop(only_one);
            service.park()
        }
        StartedCall::Returns => return Ok(()),
    }
    sockets::adjust::adjust()?;
    let began = Instant::now();
    let mut hands = Hands::default();
    let mut takeover = TakeOver::new(service.asker())
        .on_probation(service.probation.is_some())
        .replacing(PROCESS.sockets.replaces());
    let end = loop {
        match takeover.next() {
            Next::Act(act) => {
                let done = perform(service, daemon, &takeover, act, &mut hands)?;
                takeover.done(done);
            }
            Next::End(end) => break end,
        }
    };
    drop(hands.files.take());
    match end {
        End::Started => {}
        End::NeverStarted => {
            drop(only_one);
            super::park_for_ever()
        }
        End::Refused(place, why) => {
            service.number.store(0, Ordering::SeqCst);
            return Err(already_running(service, &hands.others[place], why));
        }
    }
    end_surplus(service, &hands.others);
    let older = takeover.older().filter_map(|place| {
        let Examined { facts, held, .. } = &mut hands.others[place];
        Some((facts.number, held.take()?))
    });
    sockets::stages::started(older.collect());
    log::write(Event::Started {
        generation: service.number().unwrap_or_default(),
        launcher: service.launcher,
        predecessors: takeover.older().count(),
        elapsed_ms: began.elapsed(),
    });
    if let Some(place) = takeover.replaced() {
        let predecessor = hands.others[place].pid();
        let reason = "a socket at an overlapping address replaces one of the predecessor, which could not serve there \
                      again";
        log::write(log::probation::Event::NoStandby { predecessor, reason });
    }
    if let Some(pile) = takeover.pile() {
        log::write(Event::GenerationsPileUp {
            generation: service.number().unwrap_or_default(),
            older: pile.count,
            oldest_ms: proc::time_between(pile.oldest, service.identity.start),
        });
    }
    unit::started(service, daemon);
    Ok(())
}

impl Service {
    /// Returns when no call of `started` goes on.
    pub(in crate::driver) fn await_started(&self) {
        drop(lock(&self.announcing));
    }
}

fn perform<'a>(
    service: &'a Service,
    daemon: &Daemon,
    takeover: &TakeOver,
    act: Act,
    hands: &mut Hands<'a>,
) -> Result<Done> {
    match act {
        Act::Claim => {
            let number = service.claim()?;
            daemon.post(crate::proto::daemon::Input::Claimed);
            return Ok(Done::Claimed(number));
        }
        Act::Look => {
            let files = lock(&service.files);
            // It may have gone while we were stopped.
            if process::parent_pid() != service.launcher {
                return Ok(Done::LauncherGone);
            }
            if daemon.phase().started_call() != StartedCall::TakesOver {
                hands.files = Some(files);
                return Ok(Done::ToldToEnd);
            }
            // With what the path of the PID file holds before our file replaces it.
            (hands.record, hands.others) = service.look_at_all(&files)?;
            hands.control = Some(control::prepare(&service.pid_file)?);
            // Last: if anything else fails, the older generations keep what they have.
            sockets::stages::change()?;
            hands.files = Some(files);
            return Ok(Done::Looked(facts(&hands.others).copied().collect()));
        }
        Act::Install => {
            let installed = PidFile::install(&service.pid_file)?;
            hands.files.as_mut().expect(HELD).pid_file = Some(installed);
        }
        Act::KeepName(place) => control::keep_name(&service.pid_file, hands.others[place].pid()),
        Act::DropName => control::drop_name(&service.pid_file),
        Act::Listen => {
            if let Some(prepared) = hands.control.take() {
                prepared.place(&PROCESS.server)?;
            }
            if PROCESS.sockets.has_flows() {
                let number = service.number().unwrap_or_default();
                control::name(&service.pid_file, number);
            }
        }
        Act::Enter(kept) => {
            let own = service.number().expect("a claim has a number");
            let standby = takeover.standby().map(|place| hands.others[place].facts.number);
            let Hands { record, others, .. } = hands;
            let crashes = carried(&record.live, &service.world, since_boot());
            // If the file fails in the probation, the record names it.
            let file = standby.and_then(|_| proc::own_program());
            record.book_crashed(facts(others), &service.world);
            record.book_start(facts(others));
            record.starting = None;
            record.live = kept.into_iter().map(|place| others[place].generation.clone()).collect();
            record.live.push(Generation { crashes, file, ..service.entry(own, None) });
            record.apply(Step::Enter { own, standby });
            hands.write_record()?;
        }
        Act::Close => sockets::stages::close_unclaimed(),
        Act::Serve => {
            // Before an older generation, or its keeper, is told to end.
            sockets::give::give(service, daemon);
            if takeover.standby().is_some() {
                daemon.report(Report::Probation); // before it learns that we have started
            }
            let older = takeover.older().map(|place| hands.others[place].facts.number);
            return Ok(match daemon.serve(hands.record.last, older.max()) {
                true => Done::Yes,
                false => Done::ToldToEnd,
            });
        }
        Act::Steer => sockets::stages::steer_groups(),
        Act::SteerFlows => {
            let lives = super::with_flows(&hands.others);
            sockets::flows::take_over(service.number().unwrap_or_default(), &lives);
        }
        Act::StandBy(place) => {
            let lifeline = service.ask_to_stand_by(&hands.others[place], &PROCESS.sockets.flows());
            return Ok(Done::StandsBy(match lifeline {
                Ok(lifeline) => {
                    daemon.begin_probation(lifeline);
                    true
                }
                Err(why) => {
                    let predecessor = hands.others[place].pid();
                    log::write(log::probation::Event::NoStandby { predecessor, reason: &why });
                    false
                }
            }));
        }
        Act::Prove => {
            hands.record.apply(Step::Prove { own: service.number().unwrap_or_default() });
            // We serve already, so an error would help nobody: the older ones would never be told.
            match hands.write_record() {
                Ok(()) => daemon.report(Report::Committed),
                Err(error) => {
                    log::write(log::probation::Event::ProofNotWritten { error: &error });
                    daemon.prove_later();
                }
            }
        }
        Act::Stop(place, verdict) => {
            _ = service.touch(&hands.others[place], verdict, log_told);
        }
        Act::GiveUp => match &mut hands.files {
            Some(files) => files.lock_file.give_up_if_held(),
            None => service.give_up_claim(),
        },
    }
    Ok(Done::Yes)
}

impl Hands<'_> {
    fn write_record(&self) -> Result<()> {
        self.files.as_ref().expect(HELD).lock_file.write(&self.record)
    }
}

/// The oldest generations make room.
fn end_surplus(service: &Service, others: &[Examined]) {
    let Some(crowd) = service.crowd else { return };
    let draining: Vec<_> = others.iter().map(Examined::draining).collect();
    for place in crowd.surplus(&draining) {
        let Examined { generation, held: Some(held), facts } = &others[place] else { continue };
        // Its own hammer: in a drain, a USR2 that is not its launcher's forces the end.
        match verdict(facts, Purpose::TakeOver, service.asker()) {
            Verdict::Touch { .. } => {}
            Verdict::TouchByNumber | Verdict::Leave { .. } | Verdict::Refuse(_) => continue,
        }
        let predecessor = generation.daemon.pid;
        match held.signal(SIGUSR2) {
            Ok(()) => log::write(Event::OldestEnded { predecessor, max_draining: crowd.most }),
            Err(error) => log::write(Event::TakeoverFailed { predecessor, error: &error }),
        }
    }
}
