//! Accepting, until the drain has begun and the queue is empty: what both kinds of listeners do.

use crate::driver::Seldom;
use crate::driver::sockets::obtain::cannot_accept;
use crate::sys::socket::{is_nonblocking, set_nonblocking};
use crate::{Draining, State, States};
use ::tokio::net;
use ::tokio::time::{Sleep, sleep};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net as unix;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// The pause before the next attempt, if out of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// A listener of tokio, and what it is without a runtime.
pub(super) trait Registered: Sized {
    type Std: AsFd + From<OwnedFd>;
    type Connection;
    type Address;

    fn from_std(listener: Self::Std) -> io::Result<Self>;
    fn into_std(self) -> io::Result<Self::Std>;
    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Accepted<Self>>>;
    /// Asks the kernel each time, while tokio's listener relies on what it was told last.
    fn accept(listener: &Self::Std) -> io::Result<Accepted<Self>>;
}

pub(super) type Accepted<L> = (<L as Registered>::Connection, <L as Registered>::Address);

macro_rules! registered {
    ($listener:ty, $std:ty, $connection:ty, $address:ty) => {
        impl Registered for $listener {
            type Std = $std;
            type Connection = $connection;
            type Address = $address;

            fn from_std(listener: Self::Std) -> io::Result<Self> {
                <$listener>::from_std(listener)
            }

            fn into_std(self) -> io::Result<Self::Std> {
                self.into_std()
            }

            fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Accepted<Self>>> {
                self.poll_accept(context)
            }

            fn accept(listener: &Self::Std) -> io::Result<Accepted<Self>> {
                let (connection, address) = listener.accept()?;
                connection.set_nonblocking(true)?;
                Ok((<$connection>::from_std(connection)?, address.into()))
            }
        }
    };
}

registered!(net::TcpListener, std::net::TcpListener, net::TcpStream, SocketAddr);
registered!(net::UnixListener, unix::UnixListener, net::UnixStream, net::unix::SocketAddr);

/// What both kinds of listeners do.
pub(super) struct Accepting<L: Registered> {
    stage: Stage<L>,
    draining: Draining,
    pause: Option<Pin<Box<Sleep>>>,
    failures: Seldom,
}

enum Stage<L: Registered> {
    /// Not polled yet.
    New(L::Std),
    /// It blocks. The mode is changed when this generation serves.
    Blocks(L::Std, States),
    Accepting(L),
    /// The drain has begun: what is in the queue is given out.
    Emptying(L::Std),
    Ended,
}

impl<L: Registered> Accepting<L> {
    pub(super) fn new(listener: L::Std) -> Self {
        let draining = crate::draining().at_once();
        Accepting {
            stage: Stage::New(listener),
            draining,
            pause: None,
            failures: Seldom::default(),
        }
    }

    /// The next connection; `None` when the drain has begun and the queue is empty.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Accepted<L>>> {
        loop {
            if let Some(pause) = &mut self.pause {
                // A drain that begins meanwhile is seen when the pause is over.
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            let accepted = match &mut self.stage {
                Stage::Ended => return Poll::Ready(None),
                Stage::New(_) | Stage::Blocks(..) => {
                    if let Err(error) = ready!(self.poll_begin(context)) {
                        self.failed(&error);
                    }
                    continue;
                }
                Stage::Accepting(_) if self.draining.has_begun() => {
                    if let Err(error) = self.begin_to_empty() {
                        self.failed(&error);
                    }
                    continue;
                }
                Stage::Accepting(listener) => match listener.poll_accept(context) {
                    Poll::Ready(accepted) => accepted,
                    Poll::Pending => {
                        ready!(Pin::new(&mut self.draining).poll(context));
                        continue;
                    }
                },
                Stage::Emptying(listener) => match L::accept(listener) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.stage = Stage::Ended; // closes it
                        continue;
                    }
                    accepted => accepted,
                },
            };
            match accepted {
                Ok(accepted) => return Poll::Ready(Some(accepted)),
                Err(error) if is_of_the_client(&error) => {}
                Err(error) => self.failed(&error),
            }
        }
    }

    /// Goes on from `New` and `Blocks`, as soon as that may be.
    fn poll_begin(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let listener = match &mut self.stage {
            Stage::New(listener) | Stage::Blocks(listener, _) => listener,
            Stage::Accepting(_) | Stage::Emptying(_) | Stage::Ended => return Poll::Ready(Ok(())),
        };
        if !is_nonblocking(listener.as_fd()) && crate::state() != State::Starting {
            set_nonblocking(listener.as_fd(), true)?;
        }
        if is_nonblocking(listener.as_fd()) {
            // Whatever fails here must not cost the listener: it is tried again.
            let copy = L::Std::from(listener.as_fd().try_clone_to_owned()?);
            self.stage = Stage::Accepting(L::from_std(copy)?);
        } else if let Stage::Blocks(_, states) = &mut self.stage {
            ready!(states.poll_changed(context));
        } else if let Stage::New(listener) = self.take() {
            self.stage = Stage::Blocks(listener, crate::states()); // and look again at the state
        }
        Poll::Ready(Ok(()))
    }

    fn begin_to_empty(&mut self) -> io::Result<()> {
        if let Stage::Accepting(listener) = self.take() {
            self.stage = Stage::Emptying(listener.into_std()?);
        }
        Ok(())
    }

    fn take(&mut self) -> Stage<L> {
        std::mem::replace(&mut self.stage, Stage::Ended)
    }

    /// Out of descriptors, most often: pauses, and logs it once a minute.
    fn failed(&mut self, error: &io::Error) {
        if self.failures.is_due() {
            cannot_accept(error);
        }
        self.pause = Some(Box::pin(sleep(PAUSE)));
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }

    pub(super) fn fd(&self) -> io::Result<BorrowedFd<'_>>
    where
        L: AsFd,
    {
        match &self.stage {
            Stage::New(listener) | Stage::Blocks(listener, _) | Stage::Emptying(listener) => {
                Ok(listener.as_fd())
            }
            Stage::Accepting(listener) => Ok(listener.as_fd()),
            Stage::Ended => Err(io::Error::other("the drain has begun: it is closed")),
        }
    }
}

/// The client has gone before its connection was accepted.
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
