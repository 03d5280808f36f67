//! The streams of one connection, polled in the connection's own task.
//!
//! A task for each stream would cost a scheduler's round trip for every wake, and a write for every answer. Here a
//! wake sets a bit and wakes the connection's task, if that is not running anyway; all streams that were woken are
//! polled, then `h2` once, which puts their frames into one write.
//!
//! Invariant: a wake is never lost: the bit is set before the task is asked for, taken before the stream is polled, and
//! looked for once more when the task has said that it rests.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use slab::Slab;

/// Streams at one time, those included that the client reset and that have not noticed.
pub const MOST: usize = 64 * WORDS - 1;
const WORDS: usize = 4;
/// The bell of the connection itself.
const CONNECTION: usize = MOST;

/// Who was woken.
#[derive(Debug)]
pub struct Bell {
    rung: [AtomicU64; WORDS],
    /// The task is running, and looks again before it rests.
    is_attended: AtomicBool,
    task: Mutex<Waker>,
}

/// Rings for one stream, or for the connection.
struct Rope {
    bell: Arc<Bell>,
    place: usize,
}

impl Wake for Rope {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.bell.ring(self.place);
    }
}

impl Bell {
    fn new() -> Arc<Bell> {
        Arc::new(Bell {
            rung: Default::default(),
            is_attended: AtomicBool::new(false),
            task: Mutex::new(Waker::noop().clone()),
        })
    }

    fn rope(self: &Arc<Bell>, place: usize) -> Waker {
        Waker::from(Arc::new(Rope { bell: Arc::clone(self), place }))
    }

    fn ring(&self, place: usize) {
        self.rung[place / 64].fetch_or(1 << (place % 64), SeqCst);
        if !self.is_attended.load(SeqCst) {
            self.task.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
        }
    }
}

/// The streams under way.
pub struct Streams {
    bell: Arc<Bell>,
    connection: Waker,
    futures: Slab<Pin<Box<dyn Future<Output = ()>>>>,
    /// One for each place there ever was.
    ropes: Vec<Waker>,
}

impl Default for Streams {
    /// None yet; the connection is to be polled first.
    fn default() -> Streams {
        let bell = Bell::new();
        let connection = bell.rope(CONNECTION);
        connection.wake_by_ref();
        Streams { bell, connection, futures: Slab::new(), ropes: Vec::new() }
    }
}

impl Streams {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.futures.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.futures.is_empty()
    }

    /// Wakes the connection when it is to be polled.
    pub fn connection(&self) -> Waker {
        self.connection.clone()
    }

    /// The task runs: wakes need not reach it until [`Streams::rest`].
    pub fn attend(&self, task: &Waker) {
        let mut known = self.bell.task.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.will_wake(task) {
            known.clone_from(task);
        }
        self.bell.is_attended.store(true, SeqCst);
    }

    /// The task is about to rest. It is woken if something rang meanwhile.
    pub fn rest(&self, task: &Waker) {
        self.bell.is_attended.store(false, SeqCst);
        if self.bell.rung.iter().any(|word| word.load(SeqCst) != 0) {
            task.wake_by_ref();
        }
    }

    /// Begins a stream, and polls it for the first time. Past [`MOST`] it is dropped. It comes in its box: handed on by
    /// value, its kilobytes would be copied once more.
    pub fn begin(&mut self, future: Pin<Box<dyn Future<Output = ()>>>) {
        let place = self.futures.vacant_key();
        if place >= MOST {
            return;
        }
        while self.ropes.len() <= place {
            self.ropes.push(self.bell.rope(self.ropes.len()));
        }
        self.futures.insert(future);
        self.poll(place);
    }

    /// Polls all streams that were woken. True if the connection was, or a stream ran, which leaves it with work.
    pub fn poll_woken(&mut self) -> bool {
        let mut any = false;
        for word in 0..WORDS {
            let mut rung = self.bell.rung[word].swap(0, SeqCst);
            any |= rung != 0;
            while rung != 0 {
                let place = word * 64 + rung.trailing_zeros() as usize;
                rung &= rung - 1;
                if place != CONNECTION {
                    self.poll(place);
                }
            }
        }
        any
    }

    /// Polls every stream once, whoever was woken.
    pub fn poll_all(&mut self) {
        for place in 0..self.ropes.len() {
            self.poll(place);
        }
    }

    fn poll(&mut self, place: usize) {
        let mut cx = Context::from_waker(&self.ropes[place]);
        // A late wake may name a stream that has ended.
        if let Some(future) = self.futures.get_mut(place)
            && future.as_mut().poll(&mut cx) == Poll::Ready(())
        {
            drop(self.futures.remove(place));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// Counts its wakes.
    #[derive(Default)]
    struct Task(AtomicU64);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    impl Task {
        fn wakes(&self) -> u64 {
            self.0.load(SeqCst)
        }
    }

    /// A stream that ends once `done` is set; it leaves its waker in `waker`, and counts its polls.
    fn stream(
        done: &Rc<Cell<bool>>,
        polls: &Rc<Cell<u32>>,
        waker: &Rc<Cell<Option<Waker>>>,
    ) -> impl Future<Output = ()> + use<> {
        let (done, polls, waker) = (Rc::clone(done), Rc::clone(polls), Rc::clone(waker));
        std::future::poll_fn(move |cx| {
            polls.set(polls.get() + 1);
            waker.set(Some(cx.waker().clone()));
            if done.get() { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    fn parts() -> (Arc<Task>, Waker, Streams) {
        let task = Arc::new(Task::default());
        let waker = Waker::from(Arc::clone(&task));
        let mut streams = Streams::default();
        streams.attend(&waker);
        assert!(streams.poll_woken(), "the connection comes first");
        (task, waker, streams)
    }

    #[test]
    fn a_wake_reaches_the_stream_and_the_task_once() {
        let (task, task_waker, mut streams) = parts();
        let (done, polls, waker) = Default::default();
        streams.begin(Box::pin(stream(&done, &polls, &waker)));
        streams.rest(&task_waker);
        assert_eq!((polls.get(), task.wakes()), (1, 0));
        let stream_waker = waker.take().unwrap();
        stream_waker.wake_by_ref();
        assert_eq!(task.wakes(), 1);
        streams.attend(&task_waker);
        assert!(streams.poll_woken());
        assert!(!streams.poll_woken(), "a wake counts once");
        assert_eq!(polls.get(), 2);
        done.set(true);
        stream_waker.wake_by_ref();
        assert_eq!(task.wakes(), 1, "it is attended");
        assert!(streams.poll_woken());
        assert!(streams.is_empty());
        stream_waker.wake_by_ref();
        assert!(streams.poll_woken(), "a late wake only costs a look");
        assert_eq!(polls.get(), 3);
    }

    #[test]
    fn what_rings_while_attended_wakes_the_task_when_it_rests() {
        let (task, task_waker, streams) = parts();
        streams.connection().wake();
        assert_eq!(task.wakes(), 0);
        streams.rest(&task_waker);
        assert_eq!(task.wakes(), 1);
    }

    #[test]
    fn there_are_never_more_than_most() {
        let (_, _, mut streams) = parts();
        let (done, polls, waker) = Default::default();
        for _ in 0..MOST + 10 {
            streams.begin(Box::pin(stream(&done, &polls, &waker)));
        }
        assert_eq!((streams.len(), polls.get() as usize), (MOST, MOST));
        done.set(true);
        streams.poll_all();
        assert!(streams.is_empty());
    }
}
