//! A stream of events from one publisher to any number of readers, none of which can hold the publisher up.
//!
//! Each reader has a bounded queue of its own. One that does not read loses its oldest events and is told exactly how
//! many ([`NoEvent::Lagged`]); the others lose nothing. A reader that is dropped is forgotten at once. When the publisher
//! is closed or dropped, readers get what they still have queued and then the end. What the events mean, and that they
//! are published in a certain order, is decided by whoever publishes: a stream keeps the order of one publishing thread.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard, deadline, lock, wait_until};

/// Publishes events to everyone who has subscribed. Closes the streams when it is dropped.
pub struct Publisher<T> {
    shared: Arc<Shared<T>>,
}

/// Where streams are subscribed to. Clones belong to the same publisher.
pub struct Subscriptions<T> {
    shared: Arc<Shared<T>>,
}

/// The events published since it was subscribed, in order. Dropping it ends the subscription.
pub struct EventStream<T> {
    shared: Arc<Shared<T>>,
    queue: Arc<Queue<T>>,
}

/// Why there is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEvent {
    /// That many events were lost, because they were not read in time. The events after them follow.
    Lagged(u64),
    /// None came in the time given. More may come.
    Nothing,
    /// The publisher has closed the stream, and everything that was queued has been read.
    Closed,
}

struct Shared<T> {
    /// How many subscribers there are, so that publishing to nobody takes no lock.
    count: AtomicUsize,
    subscribers: Mutex<Subscribers<T>>,
}

struct Subscribers<T> {
    /// Replaced as a whole, so that the publisher delivers without the lock.
    queues: Arc<[Arc<Queue<T>>]>,
    closed: bool,
}

struct Queue<T> {
    capacity: usize,
    state: Mutex<QueueState<T>>,
    ready: Condvar,
}

struct QueueState<T> {
    events: VecDeque<T>,
    lost: u64,
    closed: bool,
    waiting: bool,
}

impl<T> Queue<T> {
    fn lock(&self) -> MutexGuard<'_, QueueState<T>> {
        lock(&self.state)
    }

    /// Appends the event, and returns the oldest one if it had to go.
    fn push(&self, event: T) -> Option<T> {
        let mut state = self.lock();
        let mut oldest = None;
        if state.events.len() >= self.capacity {
            oldest = state.events.pop_front();
            state.lost += 1;
        }
        state.events.push_back(event);
        self.wake(state);
        oldest
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.wake(state);
    }

    /// Wakes the reader if it waits. A reader that is awake costs no system call.
    fn wake(&self, state: MutexGuard<'_, QueueState<T>>) {
        let waiting = state.waiting;
        drop(state);
        if waiting {
            self.ready.notify_one();
        }
    }
}

impl<T> QueueState<T> {
    fn take(&mut self) -> Result<T, NoEvent> {
        if self.lost > 0 {
            return Err(NoEvent::Lagged(std::mem::take(&mut self.lost)));
        }
        match self.events.pop_front() {
            Some(event) => Ok(event),
            None if self.closed => Err(NoEvent::Closed),
            None => Err(NoEvent::Nothing),
        }
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Subscribers<T>> {
        lock(&self.subscribers)
    }

    fn subscribe(self: &Arc<Self>, capacity: usize) -> EventStream<T> {
        let mut subscribers = self.lock();
        let state = QueueState { events: VecDeque::new(), lost: 0, closed: subscribers.closed, waiting: false };
        let queue = Arc::new(Queue { capacity: capacity.max(1), state: Mutex::new(state), ready: Condvar::new() });
        if !subscribers.closed {
            subscribers.queues = subscribers.queues.iter().cloned().chain([Arc::clone(&queue)]).collect();
            self.count.store(subscribers.queues.len(), Ordering::Release);
        }
        EventStream { shared: Arc::clone(self), queue }
    }
}

impl<T> Publisher<T> {
    /// A publisher without subscribers.
    pub fn new() -> Self {
        let subscribers = Mutex::new(Subscribers { queues: Arc::new([]), closed: false });
        Self { shared: Arc::new(Shared { count: AtomicUsize::new(0), subscribers }) }
    }

    /// Where streams of this publisher are subscribed to.
    pub fn subscriptions(&self) -> Subscriptions<T> {
        Subscriptions { shared: Arc::clone(&self.shared) }
    }

    /// A stream of what is published from now on. `capacity` is how many events may wait to be read before the oldest
    /// are lost; 0 counts as 1.
    pub fn subscribe(&self, capacity: usize) -> EventStream<T> {
        self.shared.subscribe(capacity)
    }

    /// Whether anyone has subscribed: an event that nobody gets need not be made. Reads one atomic.
    pub fn has_subscribers(&self) -> bool {
        self.shared.count.load(Ordering::Acquire) > 0
    }

    /// Hands the event to every subscriber. Never waits for one; without any it reads one atomic and is done.
    pub fn publish(&self, event: T)
    where
        T: Clone,
    {
        if !self.has_subscribers() {
            return;
        }
        let queues = Arc::clone(&self.shared.lock().queues);
        let Some((last, others)) = queues.split_last() else { return };
        for queue in others {
            queue.push(event.clone());
        }
        last.push(event);
    }

    /// Ends every stream, and every later one at once. What is queued can still be read; what is published after it
    /// reaches nobody.
    pub fn close(&self) {
        let queues = {
            let mut subscribers = self.shared.lock();
            subscribers.closed = true;
            self.shared.count.store(0, Ordering::Release);
            std::mem::replace(&mut subscribers.queues, Arc::new([]))
        };
        for queue in queues.iter() {
            queue.close();
        }
    }
}

impl<T> Drop for Publisher<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> Default for Publisher<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Subscriptions<T> {
    /// A stream of what is published from now on; see [`Publisher::subscribe`]. Ended already if the publisher is closed.
    pub fn subscribe(&self, capacity: usize) -> EventStream<T> {
        self.shared.subscribe(capacity)
    }

    /// Whether anyone has subscribed.
    pub fn has_subscribers(&self) -> bool {
        self.shared.count.load(Ordering::Acquire) > 0
    }
}

impl<T> Clone for Subscriptions<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> EventStream<T> {
    /// Waits for the next event.
    ///
    /// # Errors
    /// [`NoEvent::Lagged`] if events were lost before it (call again for the next one), [`NoEvent::Closed`] at the end.
    /// Never [`NoEvent::Nothing`].
    pub fn recv(&mut self) -> Result<T, NoEvent> {
        self.wait_until(None)
    }

    /// Waits for the next event for at most `timeout`.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`NoEvent::Nothing`] if none came in time.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, NoEvent> {
        // A deadline beyond what the clock can express is none.
        self.wait_until(deadline(timeout))
    }

    /// The next event, if it is there already.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`NoEvent::Nothing`] if there is none yet.
    pub fn try_recv(&mut self) -> Result<T, NoEvent> {
        self.queue.lock().take()
    }

    fn wait_until(&mut self, deadline: Option<Instant>) -> Result<T, NoEvent> {
        let mut state = self.queue.lock();
        loop {
            match state.take() {
                Err(NoEvent::Nothing) => {}
                settled => return settled,
            }
            state.waiting = true;
            let in_time;
            (state, in_time) = wait_until(&self.queue.ready, state, deadline);
            state.waiting = false;
            if !in_time {
                return Err(NoEvent::Nothing);
            }
        }
    }
}

impl<T> Drop for EventStream<T> {
    fn drop(&mut self) {
        let mut subscribers = self.shared.lock();
        // A closed publisher has forgotten everyone.
        if !subscribers.closed {
            let others = subscribers.queues.iter().filter(|queue| !Arc::ptr_eq(queue, &self.queue)).cloned();
            subscribers.queues = others.collect();
            self.shared.count.store(subscribers.queues.len(), Ordering::Release);
        }
    }
}

impl fmt::Display for NoEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoEvent::Lagged(lost) => write!(f, "{lost} events were not read in time and are lost"),
            NoEvent::Nothing => f.write_str("no event in the time given"),
            NoEvent::Closed => f.write_str("the stream is closed"),
        }
    }
}

impl std::error::Error for NoEvent {}

impl<T> fmt::Debug for Publisher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("subscribers", &self.shared.count.load(Ordering::Relaxed)).finish()
    }
}

impl<T> fmt::Debug for Subscriptions<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriptions").field("subscribers", &self.shared.count.load(Ordering::Relaxed)).finish()
    }
}

impl<T> fmt::Debug for EventStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.queue.lock();
        f.debug_struct("EventStream").field("queued", &state.events.len()).field("lost", &state.lost).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::thread;

    #[test]
    fn m5_5_every_subscriber_gets_every_event_in_order() {
        let publisher = Publisher::new();
        let mut streams = [publisher.subscribe(8), publisher.subscriptions().subscribe(8)];
        for n in 0..5 {
            publisher.publish(n);
        }
        for stream in &mut streams {
            let got: Vec<_> = std::iter::from_fn(|| stream.try_recv().ok()).collect();
            assert_eq!(got, [0, 1, 2, 3, 4]);
            assert_eq!(stream.try_recv(), Err(NoEvent::Nothing));
            assert_eq!(stream.recv_timeout(Duration::ZERO), Err(NoEvent::Nothing));
        }
    }

    #[test]
    fn one_that_does_not_read_loses_its_oldest_and_the_others_nothing() {
        let publisher = Publisher::new();
        let mut slow = publisher.subscribe(2);
        let mut quick = publisher.subscribe(8);
        for n in 0..5 {
            publisher.publish(n);
        }
        assert_eq!(slow.recv(), Err(NoEvent::Lagged(3)));
        assert_eq!((slow.recv(), slow.recv()), (Ok(3), Ok(4)));
        assert_eq!(slow.try_recv(), Err(NoEvent::Nothing));
        assert_eq!(quick.recv(), Ok(0));
    }

    #[test]
    fn the_end_comes_after_what_is_queued_also_for_late_subscribers() {
        let publisher = Publisher::new();
        let mut stream = publisher.subscribe(0);
        let subscriptions = publisher.subscriptions();
        publisher.publish(1);
        drop(publisher);
        assert_eq!(stream.recv(), Ok(1));
        assert_eq!((stream.recv(), stream.recv()), (Err(NoEvent::Closed), Err(NoEvent::Closed)));
        assert!(!subscriptions.has_subscribers());
        assert_eq!(subscriptions.subscribe(1).recv(), Err(NoEvent::Closed));
    }

    #[test]
    fn a_dropped_subscriber_is_forgotten_with_all_that_it_held() {
        let publisher = Publisher::new();
        let event = Arc::new(());
        let stream = publisher.subscribe(4);
        let other = publisher.subscribe(4);
        publisher.publish(Arc::clone(&event));
        drop(other);
        assert!(publisher.has_subscribers());
        drop(stream);
        assert!(!publisher.has_subscribers());
        assert_eq!(Arc::strong_count(&event), 1);
        publisher.publish(Arc::clone(&event));
        assert_eq!(Arc::strong_count(&event), 1);
    }

    #[test]
    fn a_waiting_reader_is_woken_by_an_event_and_by_the_end() {
        let publisher = Publisher::new();
        let mut stream = publisher.subscribe(1);
        let reader = thread::spawn(move || (stream.recv(), stream.recv_timeout(Duration::MAX)));
        publisher.publish(7);
        // The end may overtake the first read; the event comes first all the same.
        drop(publisher);
        assert_eq!(reader.join().unwrap(), (Ok(7), Err(NoEvent::Closed)));
    }

    #[test]
    fn across_threads_nothing_is_lost_uncounted() {
        let publisher = Publisher::new();
        let mut stream = publisher.subscribe(16);
        let reader = thread::spawn(move || {
            let (mut read, mut lost, mut next) = (0u64, 0u64, 0u64);
            loop {
                match stream.recv() {
                    Ok(n) => {
                        assert_eq!(n, next);
                        next += 1;
                        read += 1;
                    }
                    Err(NoEvent::Lagged(n)) => {
                        lost += n;
                        next += n;
                    }
                    Err(_) => return (read, lost),
                }
            }
        });
        for n in 0..20_000u64 {
            publisher.publish(n);
        }
        drop(publisher);
        let (read, lost) = reader.join().unwrap();
        assert_eq!(read + lost, 20_000);
    }

    proptest! {
        #[test]
        fn what_is_read_and_what_is_lost_add_up(
            capacity in 1usize..6,
            bursts in prop::collection::vec((0usize..10, 0usize..10), 1..40),
        ) {
            let publisher = Publisher::new();
            let mut stream = publisher.subscribe(capacity);
            let (mut published, mut expected) = (0u64, 0u64);
            for (events, reads) in bursts {
                for _ in 0..events {
                    publisher.publish(published);
                    published += 1;
                }
                for _ in 0..reads {
                    match stream.try_recv() {
                        Ok(n) => {
                            prop_assert_eq!(n, expected);
                            expected += 1;
                        }
                        Err(NoEvent::Lagged(n)) => expected += n,
                        Err(_) => prop_assert_eq!(expected, published),
                    }
                }
                prop_assert!(published - expected <= capacity as u64 || stream.queue.lock().lost > 0);
            }
        }
    }
}

#[cfg(all(test, loom))]
mod interleavings {
    use super::*;
    use loom::thread;

    #[test]
    fn m5_5_in_no_order_of_events_is_an_event_or_the_end_lost_on_a_waiting_reader() {
        loom::model(|| {
            let publisher = Publisher::new();
            let mut stream = publisher.subscribe(8);
            // In the model a wait never times out: a wake-up that is lost would hang here.
            let reader = thread::spawn(move || [stream.recv(), stream.recv(), stream.recv()]);
            publisher.publish(1);
            publisher.publish(2);
            drop(publisher);
            assert_eq!(reader.join().unwrap(), [Ok(1), Ok(2), Err(NoEvent::Closed)]);
        });
    }

    #[test]
    fn m5_5_in_no_order_of_events_is_an_event_lost_uncounted() {
        loom::model(|| {
            let publisher = Publisher::new();
            let mut stream = publisher.subscribe(1);
            let reader = thread::spawn(move || {
                let (mut read, mut lost) = (0, 0);
                loop {
                    match stream.recv() {
                        Ok(_) => read += 1,
                        Err(NoEvent::Lagged(more)) => lost += more,
                        Err(_) => return read + lost,
                    }
                }
            });
            publisher.publish(1);
            publisher.publish(2);
            drop(publisher);
            assert_eq!(reader.join().unwrap(), 2);
        });
    }

    #[test]
    fn m5_5_who_subscribes_while_the_publisher_closes_hears_the_end() {
        loom::model(|| {
            let publisher = Publisher::<u8>::new();
            let subscriptions = publisher.subscriptions();
            let late = thread::spawn(move || subscriptions.subscribe(1).recv());
            drop(publisher);
            assert_eq!(late.join().unwrap(), Err(NoEvent::Closed));
        });
    }

    #[test]
    fn m5_5_a_subscriber_that_goes_while_an_event_comes_is_forgotten() {
        loom::model(|| {
            let publisher = Publisher::new();
            let stream = publisher.subscribe(1);
            let leaves = thread::spawn(move || drop(stream));
            publisher.publish(1);
            leaves.join().unwrap();
            assert!(!publisher.has_subscribers());
        });
    }
}
