//! The builder.

mod failures;
mod leaving;
mod state;

use crate::driver;
use crate::driver::settings::Settings;
use crate::error::{Error, ErrorKind, Result};
use std::ffi::OsString;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;
use std::time::Duration;

/// How this service restarts. [`init`](Config::init) starts it; everything else has a default.
///
/// ```no_run
/// use std::time::Duration;
///
/// seamless::Config::new("/run/web/web.pid")
///     .drain_timeout(Duration::from_secs(60))
///     .init()?;
/// # Ok::<(), seamless::Error>(())
/// ```
#[must_use = "nothing happens before `init`"]
pub struct Config {
    settings: Settings,
}

impl Config {
    /// A configuration with every default. An empty path disables the crate: there is no launcher and
    /// there are no files, TERM and INT drain, and [`started`](crate::started) does nothing. On systems
    /// other than Linux, every path is treated as an empty one, and the log says so.
    pub fn new(pid_file: impl AsRef<Path>) -> Config {
        Config { settings: Settings::new(pid_file.as_ref().to_owned()) }
    }

    /// How long the launcher waits, after a TERM, until the daemon releases it. Default: 10 s.
    ///
    /// After that time the launcher exits all the same, and the daemon serves on, detached. If the
    /// daemon has not even installed its handlers by then, the launcher KILLs it, since nothing else
    /// would reach it.
    ///
    /// The limit must be longer than the `on_shutdown_request` hooks need. If it is too short, the
    /// successor starts before they have returned. If it is long, a hook that hangs keeps the
    /// supervisor waiting.
    ///
    /// It also limits these hooks in a rollback of a [probation](Config::probation): after that time the predecessor
    /// serves again, and this generation drains.
    pub fn handoff_timeout(mut self, timeout: Duration) -> Config {
        self.settings.handoff_timeout = timeout;
        self
    }

    /// How long a detached daemon serves on without a sign of a successor, if its supervisor does not
    /// tell whether it restarts the service. Then it drains. Each start that gets as far as `init`
    /// begins the wait anew. Default: 10 s.
    ///
    /// `None`: for ever. If the supervisor cannot tell that it has stopped the service, the daemon then
    /// serves until somebody sends it TERM.
    pub fn successor_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Config {
        self.settings.successor_timeout = timeout.into();
        self
    }

    /// How long `init` waits while another generation is starting. Then it fails with
    /// [`ErrorKind::ClaimTimeout`]. Default: 60 s.
    ///
    /// It is also the limit of a start whose supervisor has died. Nobody else would end such a
    /// generation, and it would block every later start. So a generation ends itself if it has not
    /// [`started`](crate::started) within its own `claim_timeout` and its supervisor was of a known
    /// kind and has died. If the supervisor dies later, it ends itself within a second. Under an
    /// unknown kind of supervisor, an operator has to end it.
    ///
    /// `None`: for ever. A start that hangs then blocks every later start until somebody kills it.
    pub fn claim_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Config {
        self.settings.claim_timeout = timeout.into();
        self
    }

    /// How long a drain may take. Then the hammer ends it: the [`on_hammer`](crate::on_hammer) hooks
    /// run for at most a second, and the process ends with code 124, which cuts what is still in
    /// flight. If the process is still there 5 s later, its launcher KILLs it, if it still has one.
    ///
    /// When half of it has passed, or 60 s, the log says once what the drain waits for
    /// (`stage=drain-lasts`). If four or more older generations still drain, each new one warns of it
    /// (`stage=generations`).
    ///
    /// Default: `None`. Then the limit is what a library has set with
    /// [`default_drain_timeout`](crate::default_drain_timeout); `http::Server` sets 60 s there. Without
    /// such a library there is no limit, and a client that never finishes keeps its process for ever.
    pub fn drain_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Config {
        self.settings.drain_timeout = timeout.into();
        self
    }

    /// The [signal](crate::signal) by which the daemon wakes its launcher to release it. Default:
    /// [CHLD](crate::signal::CHLD), as in rs/seamless.
    ///
    /// The release itself is a message on the channel. So nothing is lost if the signal cannot be sent, or
    /// merges with another one.
    pub fn release_signal(mut self, signal: i32) -> Config {
        self.settings.release_signal = signal;
        self
    }

    /// Restarts in place, for containers and for every supervisor that must keep the PID. On such a
    /// signal the launcher itself starts the next generation, from the program file as it is then on
    /// disk. The launcher stays, the new daemon takes over as in any other restart, and the old one
    /// drains. [`restart`](crate::restart), and a USR2 by hand, then do the same.
    ///
    /// Default: none. HUP is then forwarded to the daemon, as every signal that has no meaning for the
    /// crate. A reload signal is not forwarded.
    ///
    /// **Who may get the signal.** The launcher, or any daemon of the service, one that drains included.
    /// All of them pass the wish on to the launcher, and wishes that come within 100 ms count as one. If
    /// the program handles the signal itself, by [`on_signal`](crate::hooks::on_signal) or by another
    /// library, a signal that is sent to the daemon is the program's alone. If the launcher has gone or
    /// is leaving, a successor is awaited already, and the daemon ignores the signal.
    ///
    /// **Many wishes.** A generation that is starting may finish, however fast further wishes come. All of
    /// them together count as one, and when the generation has started, the launcher starts another one
    /// from the file as it is then. If the generation that is starting takes longer than
    /// [`handoff_timeout`](Config::handoff_timeout), and longer than twice the time of the last start, the
    /// launcher ends it (by KILL after another `handoff_timeout`, if it must be) and starts the next one.
    ///
    /// **Failures.** If a new generation fails, the old one serves on, the log tells why, and the next
    /// attempt works. Before the new generation starts, the old one runs its
    /// [`on_shutdown_request`](crate::on_shutdown_request) hooks, for `handoff_timeout` at most; if the new
    /// one fails, the old one runs its [`on_resume`](crate::on_resume) hooks.
    ///
    /// **Ends.** If the serving generation ends by itself, the launcher ends too, unless a new
    /// generation is just starting: then the launcher waits for its result. TERM ends what is starting,
    /// and means restart or stop as always. After a stop, the launcher ends when every generation that
    /// it has started has ended.
    ///
    /// **What the next generation gets.** It gets the arguments, environment, standard descriptors and
    /// every descriptor without close-on-exec that the launcher was started with, `LISTEN_FDS` included.
    /// So the launcher keeps those open. What the program adds to its environment before `init` is not
    /// passed on; [`environment`](Config::environment) adds variables. The path is the one by which the
    /// program was executed, and links in it are followed anew; so are those in the path of the working
    /// folder ([`working_dir`](Config::working_dir)). If [`on_launch`](Config::on_launch) changes the
    /// launcher's process (priority, user), this applies to all generations but the first. The launcher
    /// keeps its own code and configuration until its supervisor starts it anew: if
    /// a later program has other reload signals, the launcher does not know them.
    ///
    /// A signal that was ignored at the start (HUP under `nohup`) is handled all the same. A daemon starts
    /// with these signals ignored, until `init` has installed its handlers. Without a PID file there is no
    /// launcher, and these signals are left alone. See `signal(7)`, `nohup(1)`, and
    /// [the table of all signals](crate::guide::signals).
    ///
    /// These are not allowed, and [`init`](Config::init) then fails with [`ErrorKind::InvalidConfig`]:
    /// TERM, INT, USR2, CHLD, CONT, PIPE, the release signal, and signals that cannot be caught.
    ///
    /// ```no_run
    /// use seamless::signal;
    ///
    /// seamless::Config::new("/run/web/web.pid").reload_signals([signal::HUP]).init()?;
    /// # Ok::<(), seamless::Error>(())
    /// ```
    pub fn reload_signals(mut self, signals: impl IntoIterator<Item = i32>) -> Config {
        self.settings.reload_signals = signals.into_iter().collect();
        self
    }

    /// How many generations may drain at once under a launcher that restarts in place
    /// ([`reload_signals`](Config::reload_signals)). If as many drain, a further restart is refused,
    /// and the log says so. It is not refused if no generation serves. Default: 8. For other supervisors, and
    /// for another choice than to refuse, see [`too_many_draining`](Config::too_many_draining).
    ///
    /// The limit guards against clients that never finish: they keep a whole process for each generation.
    /// `None`: any number. 0 would refuse every restart, and is [`ErrorKind::InvalidConfig`].
    pub fn max_draining(mut self, generations: impl Into<Option<usize>>) -> Config {
        self.settings.max_draining = generations.into();
        self
    }

    /// Signals that the launcher passes on to every generation that it has started and that still lives,
    /// not only to the one that serves: USR1, if the program opens its log files again at USR1, so that
    /// generations that drain for hours do not write to the rotated file. Default: none.
    ///
    /// A generation other than the one that serves gets the signal only if its program handles it
    /// (`SigCgt` of `proc_pid_status(5)`), so that a drain never dies of it. The launcher only knows the
    /// generations of its own, so this is for restarts in place
    /// ([`reload_signals`](Config::reload_signals)). Under a supervisor that starts each generation anew,
    /// the older daemons are detached: send the signal to them as well, by the PIDs that `seamless status`
    /// lists.
    ///
    /// Not allowed are signals that mean something to the crate: TERM, INT, QUIT, PWR, USR2, CHLD, CONT,
    /// PIPE, the release signal, the reload signals, and those that cannot be caught.
    /// [`init`](Config::init) then fails with [`ErrorKind::InvalidConfig`].
    pub fn signals_to_all(mut self, signals: impl IntoIterator<Item = i32>) -> Config {
        self.settings.signals_to_all = signals.into_iter().collect();
        self
    }

    /// The folder in which every daemon is started. Default: the one in which the launcher was started.
    ///
    /// The folder is entered anew for each generation, so a link in the path, such as `/srv/web/current`,
    /// leads to the release that is current then. By default, a launcher that restarts in place uses the
    /// path that the shell has put into the variable `PWD`, links included, if that path names the folder
    /// in which the launcher was started. If there is no such variable, the path by which the folder was
    /// entered is unknown: all generations then start in the same folder, even if it is removed, and the
    /// launcher logs a warning. `PWD` of the daemon is set to the path that was used.
    ///
    /// If the folder cannot be entered, the start fails. A relative path counts from the folder in which
    /// the launcher stands when it starts a daemon. The PID file does not move: if its path is relative,
    /// all generations use the file that the launcher has found at first.
    pub fn working_dir(mut self, folder: impl AsRef<Path>) -> Config {
        self.settings.working_dir = Some(folder.as_ref().to_owned());
        self
    }

    /// Variables that are added to the environment of each daemon, in place of those of the same name.
    ///
    /// `variables` is called in the launcher, each time before it starts a daemon. It should return soon,
    /// because signals wait for it: read a file, ask nobody. If it panics, the start fails. It cannot set
    /// `SEAMLESS` and the other variables of the crate.
    ///
    /// It is for restarts in place, where all generations get the environment that the launcher was
    /// started with, as the kernel has recorded it (`/proc/self/environ`). A program that reads a `.env`
    /// file itself, without replacing variables that exist, needs nothing: the record does not contain
    /// what the program has set.
    ///
    /// ```no_run
    /// # fn secret() -> std::ffi::OsString { "x".into() }
    /// seamless::Config::new("/run/web/web.pid")
    ///     .reload_signals([seamless::signal::HUP])
    ///     .environment(|| [("DATABASE_PASSWORD".into(), secret())])
    ///     .init()?;
    /// # Ok::<(), seamless::Error>(())
    /// ```
    pub fn environment<I>(mut self, mut variables: impl FnMut() -> I + Send + 'static) -> Config
    where
        I: IntoIterator<Item = (OsString, OsString)>,
    {
        self.settings.environment = Some(Box::new(move || variables().into_iter().collect()));
        self
    }

    /// What happens if as many generations drain as [`max_draining`](Config::max_draining) allows, and a
    /// restart comes. It counts under every supervisor, and in place. Default: `None`. Then only a launcher that
    /// restarts in place has a limit, and refuses the restart.
    ///
    /// Under a supervisor, [`TooMany::Refuse`](crate::TooMany) means that each start fails until a generation
    /// has ended, and that the detached daemon serves on meanwhile. The supervisor may give up (systemd's start
    /// limit, supervisord's `startretries`). If no generation serves, none is refused.
    pub fn too_many_draining(mut self, then: impl Into<Option<crate::TooMany>>) -> Config {
        self.settings.too_many_draining = then.into();
        self
    }

    /// Whether the launcher's parent starts the service again each time that the launcher has ended. It
    /// matters only if the parent is no [known supervisor](crate::guide::supervisors): those are asked.
    /// Default: `None`, which means that the crate finds out:
    ///
    /// - In a PID namespace of its own (a container), nobody restarts the service, unless a process
    ///   between the launcher and PID 1 is a known supervisor. So a TERM is a stop: the daemon drains, and
    ///   the launcher waits for it. A restart is refused.
    /// - Elsewhere it is unknown: a TERM is handled as a restart, and the detached daemon waits for
    ///   [`successor_timeout`](Config::successor_timeout).
    ///
    /// `true`: a TERM is handled as a restart. It is for a shell loop or a process manager in a
    /// container. Do not set it if PID 1 of the container ends together with the launcher: the kernel
    /// then ends the detached daemon as well. It has no effect if the launcher itself is PID 1.
    ///
    /// `false`: a TERM is a stop, in a container or not.
    ///
    /// The log tells at launch what was found: `supervisor_kind`, and the reason if that is `nobody`
    /// although there is a parent.
    pub fn parent_restarts(mut self, restarts: impl Into<Option<bool>>) -> Config {
        self.settings.parent_restarts = restarts.into();
        self
    }

    /// The launcher's exit code when it leaves its daemon detached, 0 to 255. Default: 0.
    ///
    /// It is for a supervisor that starts a service again only after an unexpected code. Such a
    /// supervisor is supervisord with `autorestart=unexpected`, which is its default: use a code that
    /// is not among its `exitcodes`, or set `autorestart=true` and keep 0. If the daemon ends before
    /// its launcher, the launcher ends as the daemon did, and this code is not used.
    pub fn release_code(mut self, code: i32) -> Config {
        self.settings.release_code = code;
        self
    }

    /// The descriptor on which the supervisor expects to be told that the service is ready: the number
    /// in the file `notification-fd` of the service folder (s6). Default: none.
    ///
    /// When [`started`](crate::started) takes effect, the launcher writes a newline there, once. Then
    /// `s6-svwait -U` and `s6-svc -wU` return, and s6 starts the next generation 2 to 3 ms after the
    /// launcher has exited. Without this descriptor it waits for a second, in which no launcher runs.
    ///
    /// Only the launcher holds the descriptor: `init` makes it close-on-exec, so the daemon and its
    /// children do not inherit it. If the crate is disabled, this process holds it. It must be above 2,
    /// it must be open when `init` is called in the process that the supervisor starts, and the program
    /// must not use it. Otherwise `init` fails with [`ErrorKind::InvalidConfig`]. So set it only if the
    /// supervisor opens it, for example by an option of the program that the run script gives.
    pub fn notification_fd(mut self, fd: RawFd) -> Config {
        self.settings.notification_fd = Some(fd);
        self
    }

    /// Whether `/dev/null` replaces standard output and error when nobody reads them any more, so that
    /// `println!` does not panic. Default: `true`.
    ///
    /// A daemon outlives its launcher. Under some supervisors, the reader of its output goes with the
    /// launcher: supervisord closes its end of the pipe as soon as the launcher has ended. After that a
    /// write fails with EPIPE, `println!` panics, and requests in flight would be lost. So the crate
    /// watches descriptors 1 and 2 in a daemon that is detached or drains, if they are pipes or
    /// sockets. It replaces them when their reader is gone (`poll(2)`, `dup2(2)`), and the log says so.
    /// A write before that moment still fails.
    ///
    /// Under supervisord there is no such moment: the crate replaces them before it releases the
    /// launcher, unless it can see that the pipe leads elsewhere. What supervisord would have read
    /// later is lost in either case. If a service wants to keep its last lines, it should write them to
    /// a file.
    ///
    /// A descriptor that the program has replaced since `init` is left alone. `false` leaves all of
    /// them alone: for a program that handles EPIPE itself, or whose own logger reads the pipe.
    pub fn replace_output(mut self, replace: bool) -> Config {
        self.settings.replace_output = replace;
        self
    }

    /// Adds a hook that runs in the launcher once its daemon has been started: to give the process a
    /// title, or to lower its priority. It should return soon, because signals wait for it. A panic in
    /// it is logged.
    pub fn on_launch(mut self, hook: impl FnOnce() + Send + 'static) -> Config {
        self.settings.on_launch.push(Box::new(hook));
        self
    }

    /// Keeps a descriptor open in the launcher and in a keeper: that of the log file of a logger which was
    /// set up before `init`. Then their lines arrive in it. May be called for several descriptors.
    ///
    /// By default a launcher with a single thread closes every descriptor above 2 but its own. A
    /// launcher with more threads closes none. If the log file is closed, each line that the launcher
    /// logs there is lost. The write fails, and the crate survives what the logger makes of that, a
    /// panic included. The line cannot end up in another file: the number of a descriptor that was closed
    /// is not used again.
    ///
    /// `fd` is borrowed for this call only. What is kept is the file that has this number when `init`
    /// is called, so it must stay open until then. The daemon does not get it: it starts from the
    /// beginning of `main`, and opens the file itself. Both write to the file, so open it for
    /// appending.
    ///
    /// The launcher keeps the file open as long as it lives. So do not keep a listener: it would go on
    /// taking connections that nobody answers. If a log file is rotated (renamed and opened anew), the
    /// launcher's lines go to the renamed file.
    ///
    /// ```no_run
    /// use std::fs::File;
    ///
    /// let log = File::options().append(true).create(true).open("/var/log/web.log")?;
    /// let config = seamless::Config::new("/run/web/web.pid").keep_open(&log);
    /// // … give `log` to the logger, then
    /// config.init()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn keep_open(mut self, fd: impl AsFd) -> Config {
        self.settings.keep_open.push(fd.as_fd().as_raw_fd());
        self
    }

    /// How long the transfer of sockets and state may take as a whole, on either side. Default: 5 s. If
    /// it takes longer, it fails: in the new daemon, the call that needed it returns
    /// [`ErrorKind::Takeover`]. The old daemon serves on.
    ///
    /// The limit guards against a peer that hangs. It must be longer than
    /// [`hand_over`](Config::hand_over) needs, in both generations.
    pub fn takeover_timeout(mut self, timeout: Duration) -> Config {
        self.settings.takeover_timeout = timeout;
        self
    }

    /// A check of whether the program works, for a service under a watchdog (`WatchdogSec=` of systemd,
    /// see `sd_watchdog_enabled(3)`). If it returns `false`, panics or gives no answer in time, systemd
    /// ends the service by ABRT and starts it again, as its unit says. If the daemon is still there 2 s
    /// later, it is KILLed. Default: none. Then it is enough that the crate's own thread in the daemon
    /// answers its launcher.
    ///
    /// `is_well` is called between [`started`](crate::started) and the drain, on a thread of its own,
    /// twice in each `WatchdogSec=`. It should test what hangs when the program hangs: take the locks
    /// that requests take, or send a request to itself. Before and after that time, an answer of the crate's own
    /// thread is enough. The last call counts.
    #[cfg(feature = "systemd")]
    pub fn watchdog(mut self, is_well: impl FnMut() -> bool + Send + 'static) -> Config {
        self.settings.watchdog = Some(Box::new(is_well));
        self
    }

    /// Splits the process into launcher and daemon. See [`init`](crate::init).
    ///
    /// # Errors
    ///
    /// As [`init`](crate::init), and [`ErrorKind::InvalidConfig`] if a value cannot be used.
    pub fn init(self) -> Result<()> {
        let refuse = |text: &str| Err(Error::new(ErrorKind::InvalidConfig, text));
        if !driver::can_release(self.settings.release_signal) {
            return refuse(&format!(
                "cannot release a launcher with signal {} (release_signal): it cannot be caught, \
                 or has another meaning here",
                self.settings.release_signal
            ));
        }
        let in_use = |signal: &&i32| !driver::can_reload(**signal, self.settings.release_signal);
        if let Some(signal) = self.settings.reload_signals.iter().find(in_use) {
            return refuse(&format!(
                "cannot restart on signal {signal} (reload_signals): it cannot be caught, or has \
                 another meaning here"
            ));
        }
        let taken = |signal: &&i32| {
            let reload = self.settings.reload_signals.contains(signal);
            reload || !driver::can_pass_to_all(**signal, self.settings.release_signal)
        };
        if let Some(signal) = self.settings.signals_to_all.iter().find(taken) {
            return refuse(&format!(
                "cannot pass signal {signal} to all generations (signals_to_all): it cannot be \
                 caught, or has another meaning here"
            ));
        }
        if let Some(why) = self.refused_state() {
            return refuse(&why);
        }
        if self.settings.max_draining == Some(0) {
            return refuse(
                "cannot restart with no generation that drains (max_draining): it must be 1 or more",
            );
        }
        if !(0..=255).contains(&self.settings.release_code) {
            return refuse(&format!(
                "cannot exit with code {} (release_code): 0 to 255 can be told apart",
                self.settings.release_code
            ));
        }
        if let Some(fd) = self.settings.notification_fd.filter(|fd| *fd <= 2) {
            return refuse(&format!(
                "cannot use descriptor {fd} (notification_fd): it is none, or a standard one, \
                 which the daemon needs"
            ));
        }
        if self.settings.pid_file.file_name().is_none() && !self.settings.is_disabled() {
            return refuse(&format!(
                "cannot use {:?} (PID file): it names no file",
                self.settings.pid_file
            ));
        }
        driver::init(self.settings)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut config = f.debug_struct("Config");
        config
            .field("pid_file", &self.settings.pid_file)
            .field("handoff_timeout", &self.settings.handoff_timeout)
            .field("successor_timeout", &self.settings.successor_timeout)
            .field("claim_timeout", &self.settings.claim_timeout)
            .field("drain_timeout", &self.settings.drain_timeout)
            .field("leave_time", &self.settings.leave_time)
            .field("release_signal", &self.settings.release_signal)
            .field("reload_signals", &self.settings.reload_signals)
            .field("max_draining", &self.settings.max_draining)
            .field("too_many_draining", &self.settings.too_many_draining)
            .field("parent_restarts", &self.settings.parent_restarts)
            .field("release_code", &self.settings.release_code)
            .field("notification_fd", &self.settings.notification_fd)
            .field("replace_output", &self.settings.replace_output)
            .field("on_launch", &self.settings.on_launch.len())
            .field("keep_open", &self.settings.keep_open)
            .field("keep_sockets", &self.settings.keep_sockets)
            .field("probation", &self.settings.probation)
            .field("probation_check", &self.settings.probation_check.is_some())
            .field("hand_over", &self.states())
            .field("takeover_timeout", &self.settings.takeover_timeout)
            .field("signals_to_all", &self.settings.signals_to_all)
            .field("working_dir", &self.settings.working_dir)
            .field("environment", &self.settings.environment.is_some());
        #[cfg(feature = "systemd")]
        config.field("watchdog", &self.settings.watchdog.is_some());
        config.finish()
    }
}
