//! The builder.

use crate::driver;
use crate::driver::settings::Settings;
use crate::error::{Error, ErrorKind, Result};
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
    /// A configuration with every default. An empty path disables the crate: no launcher, no files;
    /// TERM and INT drain, and [`started`](crate::started) does nothing.
    pub fn new(pid_file: impl AsRef<Path>) -> Config {
        Config { settings: Settings::new(pid_file.as_ref().to_owned()) }
    }

    /// How long the launcher waits, after a TERM, for the daemon to let it go. Then it goes all the
    /// same, and the daemon serves on detached; a daemon that has not even installed its handlers
    /// by then is KILLed, since nothing else would reach it. Default: 10 s.
    ///
    /// It must be longer than the `on_shutdown_request` hooks need. A short one starts the
    /// successor before they are through; a long one keeps the supervisor waiting.
    pub fn handoff_timeout(mut self, timeout: Duration) -> Config {
        self.settings.handoff_timeout = timeout;
        self
    }

    /// How long a detached daemon serves on without a sign of a successor, where its supervisor
    /// did not say whether it restarts the service. Then it drains. Any start that gets as far as
    /// `init` begins the wait anew. Default: 10 s.
    ///
    /// `None`: for ever. Then a service that was stopped by a supervisor which cannot say so keeps
    /// a daemon until somebody sends that TERM.
    pub fn successor_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Config {
        self.settings.successor_timeout = timeout.into();
        self
    }

    /// How long `init` waits while another generation is starting. Then it fails with
    /// [`ErrorKind::ClaimTimeout`]. Default: 60 s. A starter whose supervisor has been killed
    /// meanwhile is ended then, with a USR2 of its own kind that means nothing to what has started
    /// just now: nobody else would end it.
    ///
    /// `None`: for ever. Then a starter that hangs holds up every later one until it is killed.
    pub fn claim_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Config {
        self.settings.claim_timeout = timeout.into();
        self
    }

    /// How long a drain may take. Then the hammer falls: [`on_hammer`](crate::on_hammer) hooks run
    /// for a moment and the process ends with code 124, cutting whatever is still in flight. If
    /// even that does not end it, its launcher, where it still has one, KILLs it 5 s later.
    ///
    /// Default: `None`, no limit: a client that never finishes keeps its process for ever. If it is
    /// `None`, what a library has set with [`default_drain_timeout`](crate::default_drain_timeout)
    /// holds; `http::Server` sets 60 s there.
    pub fn drain_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Config {
        self.settings.drain_timeout = timeout.into();
        self
    }

    /// The [signal](crate::signal) by which the daemon wakes its launcher to let it go. Default:
    /// [CHLD](crate::signal::CHLD), as in rs/seamless. The release itself travels over the channel between the two, so a signal that
    /// cannot be sent, or that merges with another, loses nothing.
    pub fn release_signal(mut self, signal: i32) -> Config {
        self.settings.release_signal = signal;
        self
    }

    /// Restarts in place, for containers and for every supervisor that must keep the PID: on such a
    /// signal the launcher itself starts the next generation, from the program file as it is then on
    /// disk. The launcher stays; the new daemon takes over as after any restart, and the old one
    /// drains. [`restart`](crate::restart), and a USR2 by hand, then do the same.
    ///
    /// Default: none; HUP is then passed on to the daemon, as every signal without a meaning here. A
    /// reload signal is not passed on.
    ///
    /// A new generation that fails, in whatever way, leaves the old one serving; the log says why,
    /// and the next attempt works. One that hangs blocks nobody: a further signal ends it (by USR2,
    /// and KILL after [`handoff_timeout`](Config::handoff_timeout)) and starts the next one, once
    /// more from the file as it is then. Several signals at once are as good as one. If the serving
    /// generation ends by itself, so does the launcher, as ever, unless a new one is just starting:
    /// then its outcome is awaited. TERM ends what is starting, and means what it has always meant;
    /// after a stop the launcher ends when every generation of its own has.
    ///
    /// The next generation gets the arguments, environment, folder, standard descriptors and every
    /// descriptor without close-on-exec that the launcher was started with, `LISTEN_FDS` included;
    /// so the launcher keeps those open. The path is the one by which the program was
    /// executed, links in it followed anew. What [`on_launch`](Config::on_launch) changes of the
    /// process (priority, folder, user) applies to all generations but the first. The launcher's own
    /// code and this configuration of it stay those of its start until its supervisor starts it
    /// anew: a daemon of a later program with other reload signals waits for them in vain.
    ///
    /// A signal that was ignored at the start (HUP below `nohup`) counts all the same once it is
    /// given a meaning here; to the daemon itself it then does what it does by default. Without a PID
    /// file there is no launcher, and these signals are left alone. See `signal(7)`, `nohup(1)`.
    ///
    /// Not TERM, INT, USR2, CHLD, CONT, PIPE, the release signal, or one that cannot be caught:
    /// [`init`](Config::init) then fails with [`ErrorKind::InvalidConfig`].
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

    /// How many generations may drain at once below a launcher that restarts in place
    /// ([`reload_signals`](Config::reload_signals)). When as many do, a further restart is refused,
    /// unless nobody serves; the log says so. Default: 8.
    ///
    /// It guards against clients that never finish: each generation that they keep is a whole
    /// process. `None`: any number. 0 would refuse every restart, and is
    /// [`ErrorKind::InvalidConfig`].
    pub fn max_draining(mut self, generations: impl Into<Option<usize>>) -> Config {
        self.settings.max_draining = generations.into();
        self
    }

    /// The launcher's exit code when it leaves its daemon detached, 0 to 255. Default: 0.
    ///
    /// For a supervisor that starts a service again only after an unexpected code: under
    /// supervisord with `autorestart=unexpected`, which is its default, use one that is not among
    /// its `exitcodes`, or set `autorestart=true` and leave it at 0. Whenever the daemon ends before
    /// its launcher, the launcher ends as the daemon did, and this code plays no part.
    pub fn release_code(mut self, code: i32) -> Config {
        self.settings.release_code = code;
        self
    }

    /// The descriptor by which the supervisor wants to be told that the service is ready: the number
    /// in the file `notification-fd` of the service folder (s6). Default: none.
    ///
    /// When [`started`](crate::started) takes effect, a newline is written there, once. From then on
    /// `s6-svwait -U` and `s6-svc -wU` return, and s6 starts the next generation 2 to 3 ms after the
    /// launcher has left; without it, after a second, for which no launcher runs.
    ///
    /// The launcher alone holds it: `init` makes it close-on-exec, so the daemon, and what the
    /// daemon starts, do not inherit it. Where the crate is disabled, this process holds it. It
    /// must be above 2 and open when `init` is called in the process that the supervisor starts,
    /// and the program must not use it: otherwise `init` fails with [`ErrorKind::InvalidConfig`].
    /// So give it only where the supervisor opens it, by an option of the program that the run
    /// script sets.
    pub fn notification_fd(mut self, fd: RawFd) -> Config {
        self.settings.notification_fd = Some(fd);
        self
    }

    /// Shall `/dev/null` take the place of standard output and error when nobody reads them any
    /// more, so that `println!` does not panic? Default: `true`.
    ///
    /// A daemon outlives its launcher, and with the launcher goes, under some supervisors, whoever
    /// reads what it prints: supervisord closes its end of the pipe as soon as the launcher has
    /// ended. From then on a write fails with EPIPE, and `println!` panics: requests in flight
    /// would be lost. So in a daemon that is detached or drains, descriptors 1 and 2, where they
    /// are pipes or sockets, are watched, and replaced when their reader is gone (`poll(2)`,
    /// `dup2(2)`); the log says so. A write that comes before that is noticed still fails. Under
    /// supervisord there is no such moment: they are replaced before the launcher is let go, unless
    /// it can be seen that the pipe leads elsewhere. What supervisord would have read later is lost
    /// in either case: a service that wants its last lines kept writes them to a file.
    ///
    /// A descriptor that the program has replaced since `init` is left alone. `false` leaves all of
    /// them alone: for a program that reacts to EPIPE itself, or whose own logger reads the pipe.
    pub fn replace_output(mut self, replace: bool) -> Config {
        self.settings.replace_output = replace;
        self
    }

    /// Adds a hook that runs in the launcher, once its daemon has been started: to give the process
    /// a title, or to lower its priority. It should return soon: signals that arrive meanwhile wait
    /// for it. A panic in it is logged.
    pub fn on_launch(mut self, hook: impl FnOnce() + Send + 'static) -> Config {
        self.settings.on_launch.push(Box::new(hook));
        self
    }

    /// Keeps a descriptor open in the launcher: that of the file of a logger which was set up before
    /// `init`, so that the launcher's lines arrive in it. May be called for several.
    ///
    /// By default the launcher closes every descriptor above 2 but its own, where it has a single
    /// thread; otherwise it closes none. Then each line that it logs to such a file is lost: the
    /// write fails, and what the logger makes of that, a panic included, is survived. It cannot
    /// end up in another file, though numbers are used again: the launcher logs nothing while it
    /// has a file open. An [`on_launch`](Config::on_launch) hook that logs with files of its own
    /// open has no such guarantee.
    ///
    /// `fd` is borrowed for this call alone; what is kept is what has its number when `init` is
    /// called, so the file must stay open until then. Nothing is passed on to the daemon by
    /// this: it starts from the beginning of `main`, and opens the file itself. A file that both
    /// write to should be opened for appending. What is kept stays open as long as the launcher
    /// lives: a listener that is kept would go on taking connections that nobody answers, and a
    /// log file that is renamed and opened anew (rotated) gets the launcher's lines under its old
    /// name.
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

    /// What to hand over to a successor beside the sockets: a cache, counters, session tickets, up
    /// to 64 MiB. The successor gets it from [`inherited`](crate::inherited).
    ///
    /// Called in the old daemon when a successor asks, on a thread of its own, while it still
    /// serves; more than once, where a successor fails and another one comes. What it may take is
    /// part of [`takeover_timeout`](Config::takeover_timeout). If it panics, takes longer or gives
    /// more than 64 MiB, the successor's takeover fails with an error that says so, and this daemon
    /// serves on. What the bytes mean, and whether a later or earlier version of the program
    /// understands them, is the program's own affair: put a version into them. The last one added
    /// counts.
    pub fn hand_over(mut self, state: impl FnMut() -> Vec<u8> + Send + 'static) -> Config {
        self.settings.hand_over = Some(Box::new(state));
        self
    }

    /// How long a takeover of sockets and state may take as a whole, on either side. Then it fails:
    /// in the new daemon the call that needed it with [`ErrorKind::Takeover`], while the old one
    /// serves on. Default: 5 s.
    ///
    /// It guards against a peer that hangs. It must be longer than [`hand_over`](Config::hand_over)
    /// needs, in both generations.
    pub fn takeover_timeout(mut self, timeout: Duration) -> Config {
        self.settings.takeover_timeout = timeout;
        self
    }

    /// Asked while the service runs under a watchdog (`WatchdogSec=` of systemd, see
    /// `sd_watchdog_enabled(3)`): is the program well? `false`, a panic or no answer in time, and
    /// systemd ends the service by ABRT and starts it again, as its unit says. A daemon that is still
    /// there 2 s after that is KILLed. Default: none; then it is enough that the crate's own thread
    /// in the daemon answers its launcher.
    ///
    /// Called between [`started`](crate::started) and the drain, on a thread of its own, twice in
    /// each `WatchdogSec=`. It should look at what hangs when the program hangs: take the locks that
    /// requests take, or send a request to itself. The last one added counts.
    #[cfg(feature = "systemd")]
    pub fn watchdog(mut self, is_well: impl FnMut() -> bool + Send + 'static) -> Config {
        self.settings.watchdog = Some(Box::new(is_well));
        self
    }

    /// Splits the process into launcher and daemon. See [`init`](crate::init).
    ///
    /// # Errors
    ///
    /// As [`init`](crate::init), and [`ErrorKind::InvalidConfig`] where a value cannot be used.
    pub fn init(self) -> Result<()> {
        if !driver::can_release(self.settings.release_signal) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "cannot release a launcher with signal {} (release_signal): it cannot be \
                     caught, or has another meaning here",
                    self.settings.release_signal
                ),
            ));
        }
        let in_use = |signal: &&i32| !driver::can_reload(**signal, self.settings.release_signal);
        if let Some(signal) = self.settings.reload_signals.iter().find(in_use) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "cannot restart on signal {signal} (reload_signals): it cannot be caught, or has \
                     another meaning here"
                ),
            ));
        }
        if self.settings.max_draining == Some(0) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "cannot restart with no generation that drains (max_draining): it must be 1 or more",
            ));
        }
        if !(0..=255).contains(&self.settings.release_code) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "cannot exit with code {} (release_code): 0 to 255 can be told apart",
                    self.settings.release_code
                ),
            ));
        }
        if let Some(fd) = self.settings.notification_fd.filter(|fd| *fd <= 2) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "cannot use descriptor {fd} (notification_fd): it is none, or a standard one, \
                     which the daemon needs"
                ),
            ));
        }
        if self.settings.pid_file.file_name().is_none() && !self.settings.is_disabled() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("cannot use {:?} (PID file): it names no file", self.settings.pid_file),
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
            .field("release_signal", &self.settings.release_signal)
            .field("reload_signals", &self.settings.reload_signals)
            .field("max_draining", &self.settings.max_draining)
            .field("release_code", &self.settings.release_code)
            .field("notification_fd", &self.settings.notification_fd)
            .field("replace_output", &self.settings.replace_output)
            .field("on_launch", &self.settings.on_launch.len())
            .field("keep_open", &self.settings.keep_open);
        config
            .field("hand_over", &self.settings.hand_over.is_some())
            .field("takeover_timeout", &self.settings.takeover_timeout);
        #[cfg(feature = "systemd")]
        config.field("watchdog", &self.settings.watchdog.is_some());
        config.finish()
    }
}
