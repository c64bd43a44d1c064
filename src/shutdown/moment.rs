//! [`Moment`]: when a task of the program leaves in a drain.

use super::{Draining, Shutdown, lock};
use crate::proto::DrainReason;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Resolves at a moment of its own after the drain has begun: see [`Draining::moment`].
#[must_use = "a future does nothing unless it is awaited or waited for"]
pub struct Moment {
    spread: Duration,
    /// The beginning of the drain, and the moment once that is known.
    draining: Draining,
    dealt: bool,
}

impl Draining {
    /// A moment of its own for each task, for what would otherwise happen to all clients in the same second:
    /// the end of an idle connection, the Close frame of a WebSocket. All clients that are told to leave come
    /// back at once, which is a storm for the successor. So the moments are spread evenly over `spread`, from
    /// the beginning of the drain on.
    ///
    /// `spread` is at most a third of the drain's limit. It is 0 unless another generation serves, the successor
    /// ([`DrainReason::TakenOver`]) or after a failed probation the predecessor ([`DrainReason::RolledBack`]): on a
    /// stop nobody can come back here.
    ///
    /// Each future that this call makes, and each clone, gets a moment when the drain begins. The grace of this
    /// [`Draining`] does not matter.
    ///
    /// ```no_run
    /// # async fn send_close_frame() {}
    /// # async fn socket() {
    /// use std::time::Duration;
    ///
    /// seamless::draining().moment(Duration::from_secs(5)).await;
    /// send_close_frame().await;
    /// # }
    /// ```
    pub fn moment(&self, spread: Duration) -> Moment {
        Moment { spread, draining: Draining::of(self.shutdown).at_once(), dealt: false }
    }
}

impl Moment {
    /// Blocks this thread until the future would resolve.
    pub fn wait(mut self) {
        self.draining.wait();
        self.deal();
        self.draining.wait();
    }

    /// The drain has begun.
    fn deal(&mut self) {
        if !std::mem::replace(&mut self.dealt, true) {
            let shutdown = self.draining.shutdown;
            self.draining = Draining::of(shutdown).after(shutdown.deal(self.spread));
        }
    }
}

impl Future for Moment {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if !self.dealt {
            ready!(Pin::new(&mut self.draining).poll(context));
            self.deal();
        }
        Pin::new(&mut self.draining).poll(context)
    }
}

/// With a moment of its own.
impl Clone for Moment {
    fn clone(&self) -> Self {
        self.draining.moment(self.spread)
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Moment").field("spread", &self.spread).finish_non_exhaustive()
    }
}

impl Shutdown {
    /// How long after the beginning of the drain the next one leaves.
    fn deal(&self, spread: Duration) -> Duration {
        let (reason, longest) = {
            let state = lock(&self.state);
            (state.reason, state.begun.map_or(Duration::ZERO, |begun| begun.longest))
        };
        match reason {
            Some(DrainReason::TakenOver | DrainReason::RolledBack) => {}
            Some(DrainReason::Stopped | DrainReason::Requested) | None => return Duration::ZERO,
        }
        // The longest grace is half of the limit.
        let spread = spread.min(longest / 3 * 2);
        spread.mul_f64(part(self.dealt.fetch_add(1, Ordering::Relaxed)))
    }
}

/// The n-th of numbers from 0 to 1 of which the first ones are spread as evenly as all: 0, 1/2, 1/4, 3/4, 1/8…
/// (van der Corput).
fn part(n: u32) -> f64 {
    f64::from(n.reverse_bits()) / 2_f64.powi(32)
}

#[cfg(test)]
mod tests {
    use super::{DrainReason, Duration, Shutdown, part};

    #[test]
    fn p15_moments_are_spread_only_if_another_generation_serves() {
        let all = [
            DrainReason::TakenOver,
            DrainReason::RolledBack,
            DrainReason::Stopped,
            DrainReason::Requested,
        ];
        let second = all.map(|reason| {
            let shutdown: &Shutdown = Box::leak(Box::new(Shutdown::new()));
            shutdown.decided(reason);
            shutdown.begin(None);
            let spread = Duration::from_secs(8);
            assert_eq!(shutdown.deal(spread), Duration::ZERO);
            shutdown.deal(spread).as_secs()
        });
        assert_eq!(second, [4, 4, 0, 0]);
    }

    /// However many there are: no part of the time has many more than its share.
    #[test]
    fn p15_each_number_of_moments_is_spread_evenly() {
        assert_eq!([0, 1, 2, 3, 4].map(part), [0.0, 0.5, 0.25, 0.75, 0.125]);
        for count in [4_u32, 10, 64, 100, 1000, 20_000] {
            for slices in [4_u32, 10, 100].into_iter().filter(|slices| *slices * 2 <= count) {
                let mut of_slice = vec![0; slices as usize];
                for n in 0..count {
                    of_slice[(part(n) * f64::from(slices)) as usize] += 1;
                }
                let most = of_slice.into_iter().max().expect("slices");
                let share = f64::from(count) / f64::from(slices);
                assert!(
                    f64::from(most) <= (2.0 * share).min(share + 12.0),
                    "{count} {slices}: {most}"
                );
            }
            let first = (0..count).filter(|n| part(*n) < 0.25).count();
            assert!(first as f64 <= 1.5 * f64::from(count) / 4.0, "{count}: {first}");
        }
    }
}
