//! Nothing here sleeps: a thread that has to wait is known to wait by what it holds.

use super::*;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake};
use std::thread;

/// Counts how often it is woken; its own count of references tells who keeps it.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Counter {
    fn woken(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn shutdown() -> &'static Shutdown {
    Box::leak(Box::new(Shutdown::new()))
}

fn poll(draining: &mut Draining, waker: &Waker) -> Poll<()> {
    Pin::new(draining).poll(&mut Context::from_waker(waker))
}

fn kept(shutdown: &Shutdown) -> usize {
    lock(&shutdown.state).waiting.values().map(|waiting| waiting.wakers.of.len()).sum()
}

// ---- Draining ----

#[test]
fn the_future_resolves_when_the_drain_begins() {
    let shutdown = shutdown();
    let counter = Arc::new(Counter::default());
    let waker = counter.clone().into();
    let mut draining = Draining::of(shutdown).at_once();
    assert_eq!(poll(&mut draining, &waker), Poll::Pending);
    assert!(!draining.has_begun());
    assert_eq!(format!("{draining:?}"), "Draining { has_begun: false, grace: 0ns }");
    shutdown.begin(None);
    assert_eq!(counter.woken(), 1);
    assert!(draining.has_begun());
    assert_eq!(poll(&mut draining, &waker), Poll::Ready(()));
    assert_eq!(poll(&mut draining, &waker), Poll::Ready(()), "it may be polled again");
    assert_eq!(
        poll(&mut Draining::of(shutdown).at_once(), &waker),
        Poll::Ready(()),
        "one made later"
    );
    assert_eq!(counter.woken(), 1);
}

#[test]
fn clones_resolve_together() {
    let shutdown = shutdown();
    let counters: Vec<_> = (0..3).map(|_| Arc::new(Counter::default())).collect();
    let mut first = Draining::of(shutdown).at_once();
    let mut futures = vec![first.clone(), first.clone().clone()];
    assert_eq!(poll(&mut first, &counters[0].clone().into()), Poll::Pending);
    futures.push(first);
    for (future, counter) in futures.iter_mut().zip(&counters) {
        assert_eq!(poll(future, &counter.clone().into()), Poll::Pending);
    }
    shutdown.begin(None);
    for (future, counter) in futures.iter_mut().zip(&counters) {
        assert_eq!(counter.woken(), 1);
        assert_eq!(poll(future, Waker::noop()), Poll::Ready(()));
    }
}

#[test]
fn a_future_wakes_the_task_that_polled_it_last() {
    let shutdown = shutdown();
    let (first, second) = (Arc::new(Counter::default()), Arc::new(Counter::default()));
    let mut draining = Draining::of(shutdown).at_once();
    let _ = poll(&mut draining, &first.clone().into());
    let _ = poll(&mut draining, &second.clone().into());
    assert_eq!(Arc::strong_count(&first), 1, "the first waker is not kept");
    shutdown.begin(None);
    assert_eq!((first.woken(), second.woken()), (0, 1));
    assert_eq!(Arc::strong_count(&second), 1, "nor is the second, once used");
}

/// As `tokio::select!` in a loop makes and drops them, for the life of a server.
#[test]
fn futures_that_come_and_go_leave_nothing_behind() {
    let shutdown = shutdown();
    let original = Draining::of(shutdown).at_once();
    let counter = Arc::new(Counter::default());
    let waker = counter.clone().into();
    for _ in 0..10_000 {
        let mut clone = original.clone();
        assert_eq!(poll(&mut clone, &waker), Poll::Pending);
        assert_eq!(poll(&mut clone, &waker), Poll::Pending);
        assert_eq!(kept(shutdown), 1);
    }
    assert_eq!(kept(shutdown), 0);
    drop(waker);
    assert_eq!(Arc::strong_count(&counter), 1);
    let mut one = original.clone();
    for _ in 0..10_000 {
        let _ = poll(&mut one, &counter.clone().into());
    }
    assert_eq!((kept(shutdown), Arc::strong_count(&counter)), (1, 2));
    shutdown.begin(None);
    assert_eq!(counter.woken(), 1);
}

#[test]
fn a_waker_that_panics_does_not_keep_the_others_asleep() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("as planned");
        }
    }
    let shutdown = shutdown();
    let counter = Arc::new(Counter::default());
    let (mut first, mut second) =
        (Draining::of(shutdown).at_once(), Draining::of(shutdown).at_once());
    let _ = poll(&mut first, &Arc::new(Panics).into());
    let _ = poll(&mut second, &counter.clone().into());
    shutdown.begin(None);
    assert_eq!(counter.woken(), 1);
}

/// As that of a task which nobody else knows any more.
#[test]
fn a_waker_may_own_futures_itself() {
    struct Owns {
        _inner: Draining,
    }
    impl Wake for Owns {
        fn wake(self: Arc<Self>) {}
    }
    let shutdown = shutdown();
    let owns = || {
        let mut inner = Draining::of(shutdown).at_once();
        let _ = poll(&mut inner, Waker::noop());
        Waker::from(Arc::new(Owns { _inner: inner }))
    };
    let mut draining = Draining::of(shutdown).at_once();
    let _ = poll(&mut draining, &owns());
    let _ = poll(&mut draining, &owns()); // replaces the first
    assert_eq!(kept(shutdown), 2);
    drop(draining);
    assert_eq!(kept(shutdown), 0);
}

#[test]
fn the_drain_begins_once() {
    let shutdown = shutdown();
    let counter = Arc::new(Counter::default());
    let mut draining = Draining::of(shutdown).at_once();
    let _ = poll(&mut draining, &counter.clone().into());
    shutdown.begin(None);
    shutdown.begin(None);
    assert_eq!(counter.woken(), 1);
    assert!(draining.has_begun());
}

#[test]
fn threads_wait_for_the_drain() {
    let shutdown = shutdown();
    let (through, seen) = mpsc::channel();
    let waiting: Vec<_> = (0..4u64)
        .map(|number| {
            let through = through.clone();
            thread::spawn(move || {
                let draining = Draining::of(shutdown).at_once();
                through.send(()).expect("the test listens");
                match number {
                    0 | 1 => draining.wait(),
                    2 => assert!(draining.wait_timeout(Duration::from_secs(60))),
                    _ => assert!(draining.wait_timeout(Duration::MAX)),
                }
                assert!(draining.has_begun());
            })
        })
        .collect();
    waiting.iter().for_each(|_| seen.recv().expect("it is about to wait"));
    // Whether they wait already or come to it only now: nobody misses it.
    shutdown.begin(None);
    waiting.into_iter().for_each(|thread| thread.join().expect("it has seen the drain"));
}

#[test]
fn a_wait_with_a_limit_tells_whether_the_drain_has_begun() {
    let shutdown = shutdown();
    let draining = Draining::of(shutdown).at_once();
    assert!(!draining.wait_timeout(Duration::ZERO));
    assert!(!draining.wait_timeout(Duration::from_millis(1)));
    shutdown.begin(None);
    assert!(draining.wait_timeout(Duration::ZERO));
    draining.wait();
}

#[test]
fn draining_goes_wherever_futures_go() {
    fn goes<T: Future<Output = ()> + Clone + Send + Sync + Unpin + 'static>() {}
    goes::<Draining>();
}

#[test]
fn the_reason_is_known_before_the_drain_begins() {
    let shutdown = shutdown();
    let draining = Draining::of(shutdown).at_once();
    assert_eq!(draining.reason(), None);
    shutdown.decided(DrainReason::TakenOver);
    assert_eq!((draining.reason(), draining.has_begun()), (Some(DrainReason::TakenOver), false));
    shutdown.begin(None);
    shutdown.decided(DrainReason::Stopped);
    assert_eq!(draining.clone().reason(), Some(DrainReason::TakenOver));
}

/// Also while another process holds a copy of our end, as a forked one does.
#[test]
fn a_descriptor_ends_when_the_drain_begins() {
    use std::io::Read;
    let shutdown = shutdown();
    let draining = Draining::of(shutdown).at_once();
    let early = UnixStream::from(draining.fd().expect("a pair"));
    early.set_nonblocking(true).expect("a flag");
    let blocks = (&early).read(&mut [0]).expect_err("no end yet");
    assert_eq!(blocks.kind(), io::ErrorKind::WouldBlock);
    let inherited =
        lock(&shutdown.state).waiting(Duration::ZERO).ends[0].try_clone().expect("a copy");
    shutdown.begin(None);
    let late = UnixStream::from(draining.fd().expect("a pair"));
    for mut end in [&early, &late] {
        assert_eq!(end.read(&mut [0]).expect("its end"), 0);
    }
    assert!(lock(&shutdown.state).waiting.is_empty());
    drop(inherited);
}

// ---- DrainGuard ----

/// A thread that waits until no guard exists, and what it sends then.
fn waits_for_guards(shutdown: &'static Shutdown) -> mpsc::Receiver<()> {
    let (through, seen) = mpsc::channel();
    let wait = move || {
        shutdown.wait_guards();
        through.send(()).expect("the test listens");
    };
    thread::spawn(wait);
    seen
}

fn count(shutdown: &Shutdown) -> usize {
    shutdown.guards.load(Ordering::SeqCst)
}

#[test]
fn the_drain_waits_for_the_last_guard() {
    let shutdown = shutdown();
    let before = DrainGuard::of(shutdown);
    shutdown.begin(None);
    let seen = waits_for_guards(shutdown);
    let during = DrainGuard::of(shutdown);
    let clones = [before.clone(), during.clone(), during.clone()];
    for guard in [before, during].into_iter().chain(clones) {
        assert!(seen.try_recv().is_err());
        drop(guard);
    }
    seen.recv().expect("it goes on");
}

#[test]
fn without_a_guard_nothing_waits() {
    let shutdown = shutdown();
    drop(DrainGuard::of(shutdown));
    shutdown.begin(None);
    shutdown.wait_guards();
    assert_eq!(count(shutdown), 0);
}

#[test]
fn a_panic_lets_its_guard_go() {
    let shutdown = shutdown();
    let guard = DrainGuard::of(shutdown);
    shutdown.begin(None);
    let seen = waits_for_guards(shutdown);
    let task = thread::spawn(move || {
        let _guard = guard;
        panic!("as planned");
    });
    assert!(task.join().is_err());
    seen.recv().expect("it goes on");
}

/// The last guard goes at the very moment at which the drain begins.
#[test]
fn no_end_of_a_guard_is_missed() {
    for round in 0..500 {
        let shutdown = shutdown();
        let guards: Vec<_> = (0..1 + round % 3).map(|_| DrainGuard::of(shutdown)).collect();
        let drops: Vec<_> =
            guards.into_iter().map(|guard| thread::spawn(move || drop(guard.clone()))).collect();
        shutdown.begin(None);
        shutdown.wait_guards();
        assert_eq!(count(shutdown), 0);
        drops.into_iter().for_each(|thread| thread.join().expect("no panic"));
    }
}

#[test]
fn guards_and_futures_go_wherever_tasks_go() {
    fn goes<T: Clone + Send + Sync + Unpin + std::panic::UnwindSafe + 'static>() {}
    goes::<DrainGuard>();
    goes::<Finished>();
}

// ---- Finished ----

#[test]
fn wait_tells_the_first_reason() {
    let shutdown = shutdown();
    let waiting = thread::spawn(|| Finished::of(shutdown).wait());
    shutdown.begin(None);
    assert_eq!(Finished::of(shutdown).wait_timeout(Duration::ZERO), None);
    shutdown.finish(DrainReason::TakenOver);
    shutdown.finish(DrainReason::Stopped);
    assert_eq!(waiting.join().expect("no panic"), DrainReason::TakenOver);
    assert_eq!(Finished::of(shutdown).wait(), DrainReason::TakenOver, "a second caller as well");
    let none = Finished::of(shutdown).wait_timeout(Duration::ZERO);
    assert_eq!(none, Some(DrainReason::TakenOver));
}

#[test]
fn the_future_of_the_end_is_woken_by_the_thread_that_waits_for_it() {
    let shutdown = shutdown();
    let counters: Vec<_> = (0..2).map(|_| Arc::new(Counter::default())).collect();
    let mut futures = [Finished::of(shutdown), Finished::of(shutdown)];
    let mut poll = |at: usize| {
        let waker = counters[at].clone().into();
        Pin::new(&mut futures[at]).poll(&mut Context::from_waker(&waker))
    };
    shutdown.begin(None);
    assert_eq!([poll(0), poll(1)], [Poll::Pending; 2]);
    shutdown.finish(DrainReason::Stopped);
    assert_eq!(counters[0].woken(), 0, "finish runs on the thread that takes signals");
    shutdown.wake_finished();
    assert_eq!(counters.iter().map(|counter| counter.woken()).sum::<usize>(), 2);
    assert_eq!([poll(0), poll(1)], [Poll::Ready(DrainReason::Stopped); 2]);
    assert_eq!(format!("{:?}", futures[0]), "Finished { reason: Some(Stopped) }");
}

#[test]
fn a_future_of_the_end_that_is_dropped_leaves_nothing_behind() {
    let shutdown = shutdown();
    let counter = Arc::new(Counter::default());
    for _ in 0..100 {
        let mut finished = Finished::of(shutdown);
        let waker = counter.clone().into();
        assert!(Pin::new(&mut finished).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    assert_eq!(Arc::strong_count(&counter), 1);
}

// ---- hooks ----

/// A stage, and what its hooks and panics noted.
fn stage() -> (&'static HookList, Arc<Mutex<Vec<String>>>) {
    (Box::leak(Box::new(HookList::new())), Arc::default())
}

fn note(notes: &Arc<Mutex<Vec<String>>>, text: &str) -> Hook {
    let (notes, text) = (notes.clone(), text.to_owned());
    Box::new(move || lock(&notes).push(text))
}

fn run(stage: &HookList, notes: &Arc<Mutex<Vec<String>>>) {
    stage.run(|panic| lock(notes).push(format!("panic: {panic}")));
}

#[test]
fn hooks_run_in_the_order_in_which_they_were_added() {
    let (stage, notes) = stage();
    for number in 0..100 {
        assert!(stage.add(note(&notes, &number.to_string())));
    }
    run(stage, &notes);
    assert_eq!(*lock(&notes), (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn hooks_run_once() {
    let (stage, notes) = stage();
    assert!(stage.add(note(&notes, "one")));
    run(stage, &notes);
    run(stage, &notes);
    assert_eq!(*lock(&notes), ["one"]);
}

#[test]
fn a_panic_in_a_hook_is_told_and_the_next_runs() {
    let (stage, notes) = stage();
    assert!(stage.add(Box::new(|| panic!("a text"))));
    assert!(stage.add(note(&notes, "two")));
    let number = 3;
    assert!(stage.add(Box::new(move || panic!("formatted {number}"))));
    assert!(stage.add(Box::new(|| std::panic::panic_any(4))));
    assert!(stage.add(note(&notes, "five")));
    run(stage, &notes);
    let expected = ["panic: a text", "two", "panic: formatted 3", "panic: (no message)", "five"];
    assert_eq!(*lock(&notes), expected);
}

#[test]
fn a_hook_that_is_added_while_others_run_still_runs() {
    let (stage, notes) = stage();
    let inner = notes.clone();
    let adds = move || {
        lock(&inner).push("first".to_owned());
        assert!(stage.add(note(&inner, "third")));
    };
    assert!(stage.add(Box::new(adds)));
    assert!(stage.add(note(&notes, "second")));
    run(stage, &notes);
    assert_eq!(*lock(&notes), ["first", "second", "third"]);
}

#[test]
fn a_hook_that_is_added_after_the_end_is_refused() {
    let (stage, notes) = stage();
    assert!(stage.add(note(&notes, "one")));
    assert!(!stage.end_if_empty());
    run(stage, &notes);
    assert!(!stage.add(note(&notes, "late")));
    run(stage, &notes);
    assert_eq!(*lock(&notes), ["one"]);
}

#[test]
fn a_stage_without_hooks_ends_at_once() {
    let (stage, notes) = stage();
    assert!(stage.end_if_empty());
    assert!(stage.end_if_empty());
    assert!(!stage.add(note(&notes, "late")));
    run(stage, &notes);
    assert!(lock(&notes).is_empty());
}

/// No hook falls between the last look and the end: it runs, or it is refused.
#[test]
fn every_hook_runs_or_is_refused() {
    for _ in 0..200 {
        let (stage, notes) = stage();
        let adds = thread::spawn({
            let notes = notes.clone();
            move || (0..50).filter(|_| stage.add(note(&notes, "ran"))).count()
        });
        run(stage, &notes);
        let added = adds.join().expect("no panic");
        assert_eq!(lock(&notes).len(), added);
    }
}

// ---- the grace ----

const GRACE: Duration = Duration::from_millis(200);

#[test]
fn a_grace_begins_with_the_drain() {
    let shutdown = shutdown();
    let counter = Arc::new(Counter::default());
    let (mut late, mut later) = (Draining::of(shutdown).after(GRACE), Draining::of(shutdown));
    assert_eq!(format!("{later:?}"), "Draining { has_begun: false, grace: 1s }");
    assert_eq!(poll(&mut late, &counter.clone().into()), Poll::Pending);
    shutdown.begin(None);
    let began = lock(&shutdown.state).begun.expect("it has begun").at;
    assert!(late.has_begun(), "answers say so from the beginning on");
    assert_eq!(poll(&mut later, Waker::noop()), Poll::Pending);
    assert!(!later.wait_timeout(Duration::ZERO));
    assert_eq!(poll(&mut later.clone().at_once(), Waker::noop()), Poll::Ready(()));
    let fd = UnixStream::from(late.fd().expect("a pair"));
    io::Read::read(&mut &fd, &mut [0]).expect("its end");
    assert!(began.elapsed() >= GRACE);
    assert_eq!(poll(&mut late, Waker::noop()), Poll::Ready(()));
    while counter.woken() == 0 {
        thread::yield_now(); // by the same thread, behind the descriptor
    }
    later.wait();
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(counter.woken(), 1);
}

/// Whoever comes to wait only in the drain is woken, too, and not behind those with a longer grace.
#[test]
fn a_shorter_grace_is_over_first() {
    let shutdown = shutdown();
    let mut long = Draining::of(shutdown).after(Duration::MAX);
    assert_eq!(poll(&mut long, Waker::noop()), Poll::Pending);
    shutdown.begin(None);
    let counter = Arc::new(Counter::default());
    let mut short = Draining::of(shutdown).after(GRACE);
    assert_eq!(poll(&mut short, &counter.clone().into()), Poll::Pending);
    let pair = Draining::of(shutdown).after(GRACE / 2).fd().expect("a pair");
    io::Read::read(&mut UnixStream::from(pair), &mut [0]).expect("its end");
    assert_eq!(counter.woken(), 0);
    short.wait();
    while counter.woken() == 0 {
        thread::yield_now();
    }
    assert_eq!(poll(&mut long, Waker::noop()), Poll::Pending);
    drop((short, long));
    assert_eq!(kept(shutdown), 0);
}

#[test]
fn a_grace_is_at_most_half_of_the_limit() {
    let shutdown = shutdown();
    let mut draining = Draining::of(shutdown).after(Duration::from_secs(3600));
    assert_eq!(poll(&mut draining, Waker::noop()), Poll::Pending);
    shutdown.begin(Some(GRACE * 2));
    let began = lock(&shutdown.state).begun.expect("it has begun").at;
    assert!(!draining.wait_timeout(Duration::ZERO));
    draining.wait();
    assert!(began.elapsed() >= GRACE);
    let shutdown = self::shutdown();
    shutdown.begin(Some(Duration::ZERO));
    assert_eq!(poll(&mut Draining::of(shutdown), Waker::noop()), Poll::Ready(()));
}
