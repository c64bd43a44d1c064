//! Drives the keeper: `init` in it, which never returns to the program once it holds sockets. What it does
//! is decided in `proto::keeper`; `answers` is its side of the control socket.

mod answers;

use crate::driver::control;
use crate::driver::generation::Service;
use crate::driver::log::{self, keeper::Event};
use crate::driver::retry;
use crate::driver::settings::Settings;
use crate::driver::threads::{Answer, Asked, ask};
use crate::driver::timers::Timers;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::channel::{Aside, Given, MESSAGE_MAX, ToKeeper};
use crate::proto::control::frame::Socket;
use crate::proto::keeper::{Input, Keeper, Output, Timer};
use crate::proto::paths;
use crate::sys::seqpacket::{Arrival, Link, Listener};
use crate::sys::signals::{self, SIGINT, SIGTERM, Signals};
use crate::sys::{launch, process, rlimit, wait};
use answers::Conversation;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::time::{Duration, Instant};

struct Driver {
    machine: Keeper,
    timers: Timers<Timer>,
    /// To the launcher, as long as it lives.
    channel: Option<Link>,
    service: Service,
    generation: u64,
    keep_sockets: Duration,
    sockets: Vec<(Socket, OwnedFd)>,
    listener: Option<Listener>,
    failures: log::Seldom,
    conversations: Vec<Conversation>,
    /// What the supervisor has been asked.
    asked: Option<Asked>,
    since: Instant,
}

/// Returns an error if the process cannot become a keeper.
pub(in crate::driver) fn keep(mut settings: Settings, launcher: i32, channel: Link) -> Result<()> {
    launch::new_session();
    let system =
        |step: &str, error| Error::io(ErrorKind::System, format!("cannot {step} (keeper)"), error);
    let Some((told, pidfd)) = first_message(&channel) else {
        let text = format!("cannot understand launcher {launcher} (keeper)");
        return Err(Error::new(ErrorKind::Channel, text));
    };
    let signals = Signals::install(&[], &signals::for_keeper())
        .map_err(|error| system("install handlers", error))?;
    signals::unblock_all();
    let mut kept = signals.fds().to_vec();
    kept.push(channel.number());
    kept.extend(pidfd.as_ref().map(AsRawFd::as_raw_fd));
    kept.extend(&settings.keep_open);
    launch::close_all_but(&kept);
    if let Some((user, group, groups)) = &told.user {
        process::become_user(*user, *group, groups)
            .map_err(|error| system("become the daemon's user", error))?;
    }
    settings.pid_file = OsString::from_vec(told.pid_file).into();
    let service = Service::open(&settings, launcher, &told.hello, pidfd)?;
    _ = std::env::set_current_dir("/"); // so that no file system is kept busy
    let driver = Driver {
        machine: Keeper::new(Duration::ZERO, told.served, false),
        timers: Timers::new(),
        channel: Some(channel),
        service,
        generation: 0,
        keep_sockets: Duration::ZERO,
        sockets: Vec::new(),
        listener: None,
        failures: log::Seldom::default(),
        conversations: Vec::new(),
        asked: None,
        since: Instant::now(),
    };
    driver.run(signals, told.served)
}

/// It was sent before we were started.
fn first_message(channel: &Link) -> Option<(ToKeeper, Option<OwnedFd>)> {
    match retry::within(retry::FIRST_MESSAGE, || channel.receive(MESSAGE_MAX)) {
        Arrival::Message(message) if !message.is_cut => {
            let told = ToKeeper::parse(&message.bytes)?;
            Some((told, message.fds.into_iter().next()))
        }
        Arrival::Message(_) | Arrival::Nothing | Arrival::OutOfMemory | Arrival::Closed => None,
    }
}

impl Driver {
    fn run(mut self, mut signals: Signals, served: Duration) -> ! {
        self.gather(&mut signals);
        launch::trim_memory();
        let by_program = self.service.supervisor.is_asked_by_program();
        self.machine = Keeper::new(self.keep_sockets, served, by_program);
        self.feed(Input::Gathered(self.sockets.len()));
        loop {
            self.step(&mut signals);
        }
    }

    /// All that the launcher gives. If it dies meanwhile, what has come is kept.
    fn gather(&mut self, signals: &mut Signals) {
        while let Some(channel) = &self.channel {
            match channel.receive(MESSAGE_MAX) {
                Arrival::Message(message) => match Given::parse(&message.bytes) {
                    Some(Given::Begin { generation, sockets, keep_sockets }) => {
                        (self.generation, self.keep_sockets) = (generation, keep_sockets);
                        self.service.stand_for(generation);
                        rlimit::make_room(sockets as u64);
                    }
                    Some(Given::Sockets(sockets)) => {
                        self.sockets.extend(sockets.into_iter().zip(message.fds));
                    }
                    Some(Given::End) => return,
                    None => {}
                },
                Arrival::Nothing => {
                    let mut fds = signals.readers();
                    fds.push(channel.as_fd());
                    wait::readable(&fds, None);
                }
                Arrival::OutOfMemory => retry::pause(),
                Arrival::Closed => self.channel = None,
            }
            self.take_signals(signals);
        }
    }

    fn take_signals(&mut self, signals: &mut Signals) {
        for received in signals.pending() {
            if matches!(received.signal, SIGTERM | SIGINT) {
                self.feed(Input::Term);
            }
        }
    }

    fn step(&mut self, signals: &mut Signals) {
        let mut fds = signals.readers();
        fds.extend(self.channel.as_ref().map(AsFd::as_fd));
        fds.extend(self.listener.as_ref().filter(|_| self.has_room()).map(AsFd::as_fd));
        fds.extend(self.conversations.iter().map(AsFd::as_fd));
        fds.extend(self.asked.as_ref().map(AsFd::as_fd));
        wait::readable(&fds, self.timers.next());
        self.take_signals(signals);
        if let Some(channel) = &self.channel {
            if matches!(channel.receive(MESSAGE_MAX), Arrival::Closed) {
                self.channel = None;
            }
        }
        self.converse();
        if let Some(supervisor) = self.asked.as_mut().and_then(Asked::answer) {
            self.asked = None;
            self.checked(supervisor);
        }
        while let Some(timer) = self.timers.due() {
            let transferring = self.conversations.iter().any(Conversation::transfers);
            self.feed(Input::Timer { timer, transferring });
        }
    }

    fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            // After a step that has failed, the rest makes no sense.
            for output in self.machine.on(input) {
                match self.perform(output) {
                    Ok(None) => {}
                    Ok(Some(input)) => inputs.push_back(input),
                    Err(error) => {
                        log::write(Event::Failed { error: &error });
                        self.service.give_up_claim();
                        inputs.push_back(Input::Failed);
                        break;
                    }
                }
            }
        }
    }

    fn perform(&mut self, output: Output) -> Result<Option<Input>> {
        match output {
            Output::Claim => {
                return Ok(Some(match self.service.claim_to_keep()? {
                    Some(seen) => Input::Claimed(seen),
                    None => Input::ClaimHeld,
                }));
            }
            Output::Place(row) => {
                let listener = control::prepare(&self.service.pid_file)?.listener()?;
                self.service.enter_as_keeper(row)?;
                self.listener = Some(listener);
            }
            Output::GiveUpClaim => self.service.give_up_claim(),
            Output::TellInPlace => {
                if let Some(channel) = &self.channel {
                    // If it is lost, the launcher waits for some seconds in vain.
                    let message = Aside::InPlace.format();
                    _ = retry::within(retry::TO_DAEMON, || channel.send(&message, &[]));
                }
                launch::trim_memory();
            }
            Output::Check => match ask(&self.service.supervisor, None) {
                Answer::Known(supervisor) => self.checked(supervisor),
                Answer::Awaited(asked) => self.asked = Some(asked),
            },
            Output::Arm(timer, after) => {
                if timer == Timer::Over {
                    log::write(Event::Keeping {
                        generation: self.generation,
                        sockets: self.sockets.len(),
                        left_ms: after,
                    });
                }
                self.timers.arm(timer, after);
            }
            Output::End(why) => {
                log::write(Event::Ended { generation: self.generation, reason: why.text() });
                crate::sys::exit_now(0);
            }
        }
        Ok(None)
    }

    fn checked(&mut self, supervisor: crate::proto::Reading) {
        let path = paths::control_socket(&self.service.pid_file);
        let path_lost = self.listener.as_ref().is_some_and(|listener| listener.is_lost(&path));
        self.feed(Input::Checked { supervisor, path_lost });
    }
}
